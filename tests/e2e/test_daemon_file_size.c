/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A limit of file sizes holds for the regions, too, and what exceeds it is by default the end of the
 * process: a client that asks for large ones must not be able to bring that about.
 */
#include "tests/e2e/daemon_harness.h"
#include "tests/tap.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>

#define LIMIT (UINT64_C(64) << 20) /* an index region has room, and a session of usual size */

int main(int argc, char **argv)
{
	const struct rlimit limit = {LIMIT, LIMIT};
	struct wctl_hello h;
	struct wd_client c;
	struct wd d;

	wd_engine_or_test(argc, argv);
	if (setrlimit(RLIMIT_FSIZE, &limit))
		bail_out("setrlimit");
	wd_start(&d, "[model m]\npath = /fake/ok\n");
	wd_hello_init(&h);
	h.tx_arena_bytes = 2 * LIMIT;
	is_int(wd_open(&c, &d, &h), -EACCES, "regions beyond the limit are refused");
	ok(strstr(c.text.text, strerror(EFBIG)), "with the reason: %s", c.text.text);
	wd_close(&c);
	wd_hello_init(&h);
	is_int(wd_open(&c, &d, &h), 0, "and others are made as before");
	ok(wd_state_wait(&c, WSHM_ENGINE_RUNNING, WD_PATIENCE_MS), "and served");
	wd_close(&c);
	is_int(wd_stop(&d), 0, "weftd ends in good order");
	return tap_done();
}
