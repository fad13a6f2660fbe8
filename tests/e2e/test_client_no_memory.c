/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every allocation that libweft makes fails in turn, once and from then on for ever: an error comes
 * back, nothing leaks a descriptor or a mapping, and a session that was open goes on working.
 */
#include "tests/e2e/client_util.h"
#include "tests/e2e/fake_daemon.h"
#include "tests/tap.h"

#include <errno.h>
#include <time.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
int main(void)
{
	skip_all("the sanitizer has malloc to itself");
}
#else

extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t n, size_t bytes);

/* Of this thread only, so that the daemon's threads have memory. */
static __thread long countdown; /* the allocation that fails; 0: none */
static __thread int for_ever, failures;

static int fails(void)
{
	if (countdown && !--countdown) {
		failures++;
		countdown = for_ever;
		return 1;
	}
	return 0;
}

void *malloc(size_t bytes)
{
	return fails() ? NULL : __libc_malloc(bytes);
}

void *calloc(size_t n, size_t bytes)
{
	return fails() ? NULL : __libc_calloc(n, bytes);
}

static void arm(long k, int ever)
{
	failures = 0;
	for_ever = ever;
	countdown = k;
}

static int disarm(void)
{
	countdown = 0;
	return failures;
}

static int mappings(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	char line[512];
	int n = 0;

	while (fgets(line, sizeof(line), f))
		n += strstr(line, "memfd:") != NULL;
	fclose(f);
	return n;
}

static void test_open(int ever)
{
	struct weft_open_options o = WEFT_OPEN_OPTIONS_INIT;
	int fds = cu_open_fds(), maps = mappings(), wrong = 0, failed;
	long k = 1;

	o.socket = fake_path();
	o.model = "fake";
	for (;; k++) {
		struct weft_error e = {0};
		struct weft *w = NULL;
		int err;

		arm(k, ever);
		err = weft_open(&w, &o, &e);
		failed = disarm();
		if (!failed) {
			wrong += err != 0;
			weft_close(w);
			break;
		}
		wrong += err != -ENOMEM || e.code != -ENOMEM || w || !strstr(e.message, "memory");
	}
	ok(k > 4, "weft_open makes %ld allocations", k - 1);
	is_int(wrong, 0, "each failure is -ENOMEM%s", ever ? ", also if all later ones fail" : "");
	/* The daemon's threads close their ends a little later. */
	for (int i = 0; i < 12000 && (cu_open_fds() != fds || mappings() != maps); i++)
		nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
	is_int(cu_open_fds(), fds, "no descriptor is left");
	is_int(mappings(), maps, "no mapping is left");
}

static void test_submit(struct weft *w, int ever)
{
	struct weft_submit_options o;
	int wrong = 0, failed;
	long k = 1;

	cu_options(&o, 5);
	for (;; k++) {
		struct weft_request *r = NULL;
		struct weft_error e = {0};
		int err;

		arm(k, ever);
		err = weft_submit(w, &r, &o, &e);
		failed = disarm();
		if (!failed) {
			wrong += err || cu_wait_end(r, 0) != 5 || !cu_right(r, 0, 5);
			weft_free(r);
			break;
		}
		wrong += err != -ENOMEM || r || !strstr(e.message, "memory");
	}
	ok(k > 1, "weft_submit makes %ld allocations", k - 1);
	is_int(wrong, 0, "each failure is -ENOMEM, and the next request is served");
}

int main(void)
{
	struct fake_options fo = {.path = fake_path()};
	struct fake *f = fake_start(&fo);
	struct weft *w;

	test_open(0);
	fake_kill(f);
	f = fake_start(&fo);
	test_open(1);
	w = cu_open(NULL);
	test_submit(w, 0);
	test_submit(w, 1);
	weft_close(w);
	fake_kill(f);
	return tap_done();
}
#endif
