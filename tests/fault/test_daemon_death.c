/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weftd is killed while a client sleeps: the client notices at once, not when its sleep is over (a
 * second), whether it waits for one request or for any; and an engine that is stopped goes with its
 * weftd all the same.
 */
#include "tests/hostile/raw.h"
#include "tests/hostile/world.h"
#include "tests/tap.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TOKENS 3000u
#define TURNS  10

static struct world *w;

/* Until the end of a request that asks for nothing but its end. */
static void wait_end(struct weft *weft, struct weft_request *r, bool any)
{
	struct weft_result res = {.size = sizeof(res)};
	struct weft_request *got[1];

	do {
		if (any)
			weft_wait_any(weft, got, 1, 60000);
		else
			weft_wait(r, 0, TOKENS - 1, 60000);
		weft_result(r, &res);
	} while (res.status == WEFT_RUNNING);
}

/* From the death of weftd to the end of a request that opted out; UINT64_MAX: it was done before. */
static uint64_t notice_ns(bool any)
{
	struct weft_result res = {.size = sizeof(res)};
	struct weft *weft = world_open(w);
	uint32_t prompt[JOB_TOKENS];
	struct weft_submit_options o;
	struct weft_request *r;
	uint64_t killed, noticed;

	job_options(4, 192, prompt, &o);
	o.max_tokens = TOKENS;
	o.flags = WEFT_NO_RESUBMIT;
	if (weft_submit(weft, &r, &o, NULL))
		bail_out("submit");
	weft_wait(r, 0, 1, 60000);
	kill(world_daemon(w), SIGKILL);
	killed = raw_now_ns();
	wait_end(weft, r, any);
	noticed = raw_now_ns();
	weft_result(r, &res);
	weft_free(r);
	weft_close(weft);
	world_wait_exit(w, 60000);
	world_restart_daemon(w);
	return res.status == WEFT_LOST ? noticed - killed : UINT64_MAX;
}

/* Whoever has nothing to read sleeps for a second from the last token on. */
static void test_notice(bool any)
{
	uint64_t best = UINT64_MAX;

	for (int i = 0; i < TURNS && best >= 500000000; i++) {
		uint64_t ns = notice_ns(any);

		best = ns < best ? ns : best;
	}
	ok(best < 500000000, "who waits for %s notices after %.1f ms", any ? "any" : "one",
	   best / 1e6);
}

static void test_stopped(void)
{
	pid_t engine = world_engine(w);

	kill(engine, SIGSTOP);
	kill(world_daemon(w), SIGKILL);
	world_wait_exit(w, 60000);
	world_restart_daemon(w); /* waits until the engine is gone */
	ok(world_engine(w) != engine, "an engine that was stopped ends with its weftd");
}

/* Continued by somebody while weftd lives: nothing happens. */
static void test_continued(void)
{
	pid_t engine = world_engine(w);
	struct job_answer *a = calloc(1, sizeof(*a));
	struct weft *weft = world_open(w);

	kill(engine, SIGCONT);
	job_run(weft, 1, a);
	ok(a->status == WEFT_OK && world_engine(w) == engine, "SIGCONT alone does nothing");
	weft_close(weft);
	free(a);
}

/* Threads of a process that are not stopped; -1: it is not there. */
static int running_threads(pid_t pid)
{
	char path[300], line[300];
	struct dirent *entry;
	int running = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		const char *state = NULL;
		FILE *f;

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%.20s/stat", (int)pid, entry->d_name);
		f = fopen(path, "r");
		if (f && fgets(line, sizeof(line), f))
			state = strrchr(line, ')'); /* the name before it may hold anything */
		running += !state || strncmp(state, ") T", 3);
		if (f)
			fclose(f);
	}
	if (!dir)
		return -1;
	closedir(dir);
	return running;
}

/* SIGSTOP takes effect some time after kill() has returned. */
static void stop(pid_t pid)
{
	int ms = RAW_PATIENCE_MS;

	kill(pid, SIGSTOP);
	while (running_threads(pid) && --ms)
		usleep(1000);
	if (!ms)
		bail_out("the engine does not stop");
}

static struct weft_request *submit(struct weft *weft)
{
	uint32_t prompt[JOB_TOKENS];
	struct weft_submit_options o;
	struct weft_request *r;

	job_options(4, 192, prompt, &o);
	if (weft_submit(weft, &r, &o, NULL))
		bail_out("submit");
	return r;
}

/* weftd is told to end, and then to end at once, while its engine does nothing: it ends in good order,
 * and what it had not served goes on with the next weftd as after a kill. */
static void test_ended(void)
{
	struct weft_result res = {.size = sizeof(res)};
	struct weft *weft = world_open(w);
	struct weft_request *r, *again;
	const uint32_t *a, *b;
	uint32_t n, m;

	stop(world_engine(w));
	r = submit(weft);
	kill(world_daemon(w), SIGTERM);
	kill(world_daemon(w), SIGINT);
	ok(world_wait_exit(w, 60000) >= 0, "weftd ends at its second signal");
	world_restart_daemon(w);
	wait_end(weft, r, false);
	weft_result(r, &res);
	is_int(res.status, WEFT_OK, "a request that it left behind is answered by the next");
	is_int(res.resubmitted, 1, "to which it was submitted again");
	again = submit(weft);
	wait_end(weft, again, false);
	a = weft_tokens(r, 0, &n);
	b = weft_tokens(again, 0, &m);
	ok(n && n == m && !memcmp(a, b, n * sizeof(*a)), "as if it had been asked there");
	weft_close(weft);
}

int main(void)
{
	w = world_start(NULL);
	test_notice(false);
	test_notice(true);
	test_continued();
	test_stopped();
	test_ended();
	world_stop(w);
	return tap_done();
}
