/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A limit of file sizes holds for the regions, too, and what exceeds it is by default the end of the
 * process: a client that asks for large ones must not be able to bring that about.
 */
#include "tests/e2e/daemon_harness.h"
#include "tests/tap.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIMIT (UINT64_C(64) << 20) /* an index region has room, and a session of usual size */

/* A limit that leaves no room for anything: a line and an exit status. */
static void test_too_low(void)
{
	const char *build = getenv("WEFT_BUILD");
	char command[1024], said[1024];
	struct wd d;
	size_t n;
	FILE *f;
	int rc;

#ifdef __SANITIZE_THREAD__
	skip(2, "the thread sanitizer writes a file before main()");
	return;
#endif
	wd_prepare(&d, "[model m]\npath = /fake/ok\n");
	snprintf(command, sizeof(command),
		 "ulimit -f 0; exec '%s/weftd' --foreground --config '%s/weftd.conf' "
		 "--runtime-dir '%s' 2>&1",
		 build ? build : "build", d.dir, d.dir);
	fflush(stdout);
	f = popen(command, "r");
	if (!f)
		bail_out("popen");
	n = fread(said, 1, sizeof(said) - 1, f);
	said[n] = 0;
	rc = pclose(f);
	ok(WIFEXITED(rc) && WEXITSTATUS(rc) == 1, "no room for any file: weftd does not start");
	ok(strstr(said, "RLIMIT_FSIZE") && strchr(said, '\n') == said + n - 1,
	   "and says why, in a line: %.*s", (int)strcspn(said, "\n"), said);
	wd_stop(&d);
}

static char folder[] = "/tmp/weft-file-size-XXXXXX";
static const char *const files[] = {"adapter_config.json", "adapter_model.safetensors"};

static const char *in_folder(const char *name)
{
	static char path[100];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return path;
}

/* While this process may: an adapter whose weights are twice the limit, a hole but for two bytes. */
static void make_adapter(void)
{
	if (!mkdtemp(folder) || chmod(folder, 0755))
		bail_out(folder);
	for (int i = 0; i < 2; i++) {
		FILE *f = fopen(in_folder(files[i]), "w");

		if (!f || fputs("{}", f) < 0 || fclose(f) || chmod(in_folder(files[i]), 0644))
			bail_out(folder);
	}
	if (truncate(in_folder(files[1]), 2 * LIMIT))
		bail_out(folder);
}

/* They are copied into memory of which the same holds. */
static void test_adapter(struct wd *d)
{
	json_t *last = NULL;

	ok(!wd_ask(d, &last, "{'cmd':'adapter-load','name':'a','path':'%s'}", folder),
	   "an adapter beyond the limit is refused");
	ok(strstr(wd_error(last), "RLIMIT_FSIZE"), "with the reason: %s", wd_error(last));
	json_decref(last);
	for (int i = 0; i < 2; i++)
		unlink(in_folder(files[i]));
	rmdir(folder);
}

int main(int argc, char **argv)
{
	const struct rlimit limit = {LIMIT, LIMIT};
	struct wctl_hello h;
	struct wd_client c;
	struct wd d;

	wd_engine_or_test(argc, argv);
	test_too_low();
	make_adapter();
	if (setrlimit(RLIMIT_FSIZE, &limit))
		bail_out("setrlimit");
	wd_start(&d, "[model m]\npath = /fake/ok\n");
	test_adapter(&d);
	wd_hello_init(&h);
	h.tx_arena_bytes = 2 * LIMIT;
	is_int(wd_open(&c, &d, &h), -EACCES, "regions beyond the limit are refused");
	ok(strstr(c.text.text, "limit of file sizes") && strstr(c.text.text, "RLIMIT_FSIZE"),
	   "with the reason: %s", c.text.text);
	wd_close(&c);
	wd_hello_init(&h);
	is_int(wd_open(&c, &d, &h), 0, "and others are made as before");
	ok(wd_state_wait(&c, WSHM_ENGINE_RUNNING, WD_PATIENCE_MS), "and served");
	wd_close(&c);
	is_int(wd_stop(&d), 0, "weftd ends in good order");
	return tap_done();
}
