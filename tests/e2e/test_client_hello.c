/* SPDX-License-Identifier: Apache-2.0 */
/* Daemons that refuse, differ in version, or send what must not be mapped: clear errors, no leak. */
#include "tests/e2e/client_util.h"
#include "tests/e2e/fake_daemon.h"
#include "tests/tap.h"

#include <errno.h>
#include <unistd.h>

/* Much longer than an answer takes on a machine that has other things to do. */
#define PATIENCE_MS 60000
#define SHORT_MS    300 /* where there is nothing to wait for */

static void refused_in(enum fake_fault fault, int code, const char *text, const char *what,
		       uint32_t wait_ms)
{
	struct fake_options fo = {.path = fake_path(), .fault = fault};
	struct weft_open_options o = WEFT_OPEN_OPTIONS_INIT;
	int fds = cu_open_fds();
	struct fake *f = fake_start(&fo);
	struct weft_error e = {0};
	struct weft *w = NULL;

	o.socket = fake_path();
	o.wait_ready_ms = wait_ms;
	is_int(weft_open(&w, &o, &e), code, "%s", what);
	ok(!w && e.code == code, "no session");
	ok(strstr(e.message, text), "\"%s\"", e.message);
	fake_kill(f);
	is_int(cu_open_fds(), fds, "no descriptor is left");
}

static void refused(enum fake_fault fault, int code, const char *text, const char *what)
{
	refused_in(fault, code, text, what, PATIENCE_MS);
}

static void test_bad_options(void)
{
	struct weft_open_options o = WEFT_OPEN_OPTIONS_INIT;
	struct weft_error e;
	struct weft *w;
	char longest[300];

	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = 0;
	o.socket = longest;
	is_int(weft_open(&w, &o, &e), -ENAMETOOLONG, "a path that no socket can have");
	o.socket = fake_path();
	is_int(weft_open(&w, &o, &e), -ENOENT, "no daemon");
	ok(strstr(e.message, "weftd running"), "%s", e.message);
	o.slots = 2000;
	is_int(weft_open(&w, &o, &e), -EINVAL, "too many slots");
	o.slots = 0;
	o.size = 3;
	is_int(weft_open(&w, &o, &e), -EINVAL, "options of an unknown size");
	is_int(weft_open(&w, &o, NULL), -EINVAL, "no error wanted");
}

int main(void)
{
	refused(FAKE_REFUSE, -EACCES, "no session for you today",
		"refused: the daemon's own words");
	refused(FAKE_NO_SEALS, -EPROTO, "not sealed", "regions without seals are not mapped");
	refused(FAKE_SHORT_RX, -EPROTO, "agreed size", "nor a region of another size");
	refused(FAKE_FEW_FDS, -EPROTO, "5 descriptors", "a descriptor is missing");
	refused(FAKE_BAD_INDEX, -EPROTO, "index", "an index that could change its size");
	refused(FAKE_WRONG_MAJOR, -EPROTO, "same version", "another protocol");
	refused(FAKE_GARBAGE, -EPROTO, "not known", "an unknown message");
	refused_in(FAKE_SILENT, -ETIMEDOUT, "answer to the hello", "silence", SHORT_MS);
	/* The hello must have been answered by then. */
	refused_in(FAKE_NEVER_READY, -ETIMEDOUT, "not loaded", "a model that does not get ready",
		   10 * SHORT_MS);
	test_bad_options();
	return tap_done();
}
