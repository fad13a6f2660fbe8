/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon goes away in the middle of streams and another one comes: requests continue after the
 * tokens already delivered, with the seed drawn before; ended, cancelled and opted-out ones do not;
 * whichever thread notices. And what happens when no other daemon comes.
 */
#include "tests/e2e/client_util.h"
#include "tests/e2e/fake_daemon.h"
#include "tests/tap.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static struct fake *start(uint32_t stall_at)
{
	struct fake_options o = {.path = fake_path()};
	struct fake *f = fake_start(&o);

	atomic_store(&fake_controls_of(f)->stall_at, stall_at);
	return f;
}

/* A request for `all` tokens, of which a daemon that stalls after n has sent those. */
static struct weft_request *n_of(struct weft *w, uint32_t n, uint32_t all)
{
	struct weft_submit_options o;
	struct weft_request *r;

	cu_options(&o, all);
	r = cu_submit(w, &o);
	is_int(weft_wait(r, 0, n - 1, 60000), n, "%u tokens", n);
	return r;
}

static void test_continues(void)
{
	struct fake *f = start(10);
	struct weft *w = cu_open(NULL);
	struct weft_submit_options o;
	struct weft_request *r, *done, *cancelled, *opted_out;
	struct weft_result res = {.size = sizeof(res)};
	const struct weft_logprob *lp;
	const uint32_t *before, *after;
	uint32_t n, resumed[64];
	struct wshm_desc d;

	cu_options(&o, 6);
	done = cu_submit(w, &o);
	is_int(cu_wait_end(done, 0), 6, "one request has ended before");
	cu_options(&o, 1000);
	cancelled = cu_submit(w, &o);
	o.flags = WEFT_NO_RESUBMIT;
	opted_out = cu_submit(w, &o);
	cu_options(&o, 50);
	o.n = 2;
	o.logprobs = 1;
	o.temperature = 0.5f;
	o.timeout_ms = 100000;
	r = cu_submit(w, &o);
	is_int(weft_wait(r, 0, 9, 60000), 10, "ten tokens are delivered");
	is_int(weft_wait(r, 1, 9, 60000), 10, "of both samples");
	before = weft_tokens(r, 0, &n);
	atomic_store(&fake_controls_of(f)->admit, 0); /* takes no more notice of anything */
	fake_kill(f);
	weft_cancel(cancelled);

	f = start(UINT32_MAX);
	is_int(cu_wait_end(r, 0), 50, "the stream continues to its end");
	is_int(cu_wait_end(r, 1), 50, "both do");
	ok(cu_right(r, 0, 50) && cu_right(r, 1, 50), "with exactly the tokens it would have had");
	after = weft_tokens(r, 0, &n);
	ok(before != after && before[9] == after[9], "the old pointer can still be read");
	d = fake_last_desc(f);
	ok(d.has_seed && d.seed == FAKE_SEED, "resubmitted with the seed that was drawn");
	ok(d.max_tokens == 50 && d.n == 2 && d.temperature == 0.5f && d.logprobs == 1,
	   "and with its options");
	ok(d.timeout_ms > 40000 && d.timeout_ms < 100000, "and what is left of its time (%u ms)",
	   d.timeout_ms);
	is_int(fake_last_resume(f, resumed, 64), 10, "after ten tokens");
	ok(resumed[0] == fake_token(cu_prompt, CU_PROMPT, 0, 0) &&
		   resumed[9] == fake_token(cu_prompt, CU_PROMPT, 0, 9),
	   "which were sent along");
	ok(weft_logprobs(r, 1, 3, &lp) == 2 && lp[0].logprob == -4, "old log-probabilities");
	ok(weft_logprobs(r, 1, 30, &lp) == 2 && lp[0].logprob == -31, "and new ones");
	is_int(atomic_load(&fake_controls_of(f)->admitted), 1, "nothing else was resubmitted");
	weft_result(r, &res);
	is_int(res.resubmitted, 1, "counted");
	is_int(res.status, WEFT_OK, "status ok");
	is_int(cu_status(done), WEFT_OK, "the ended one stands");
	ok(cu_right(done, 0, 6), "its tokens too");
	is_int(cu_status(cancelled), WEFT_CANCELLED, "the cancelled one was cancelled");
	is_int(cu_status(opted_out), WEFT_LOST, "the one that opted out was lost");
	ok(cu_right(opted_out, 0, 10), "but keeps what it had");
	weft_free(done);
	weft_free(cancelled);
	cu_options(&o, 5);
	done = cu_submit(w, &o);
	is_int(cu_wait_end(done, 0), 5, "the session goes on with the new daemon");
	weft_close(w);
	fake_kill(f);
}

/* Two daemons die: the second resumption starts from where the first one had come to. */
static void test_twice(void)
{
	struct fake *f = start(5);
	struct weft *w = cu_open(NULL);
	struct weft_request *r;
	uint32_t resumed[64];

	r = n_of(w, 5, 30);
	fake_kill(f);
	f = start(12);
	is_int(weft_wait(r, 0, 11, 60000), 12, "up to twelve from the second");
	fake_kill(f);
	f = start(UINT32_MAX);
	is_int(cu_wait_end(r, 0), 30, "the rest from the third");
	ok(cu_right(r, 0, 30), "all right");
	is_int(fake_last_resume(f, resumed, 64), 12, "resumed after twelve");
	weft_close(w);
	fake_kill(f);
}

/* Not yet admitted when the daemon dies: no seed to keep, nothing delivered. */
static void test_not_admitted(void)
{
	struct fake *f = start(5);
	struct weft *w = cu_open(NULL);
	struct weft_submit_options o;
	struct weft_request *r;

	atomic_store(&fake_controls_of(f)->admit, 0);
	cu_options(&o, 30);
	r = cu_submit(w, &o);
	usleep(20000);
	fake_kill(f);
	f = start(UINT32_MAX);
	is_int(cu_wait_end(r, 0), 30, "runs on the next daemon");
	ok(!fake_last_desc(f).has_seed && !fake_last_desc(f).n_resume, "as if new");
	weft_close(w);
	fake_kill(f);
}

#define THREADS 6

static void *wait_thread(void *arg)
{
	struct weft_request *r = arg;

	return cu_wait_end(r, 0) == 40 && cu_right(r, 0, 40) ? arg : NULL;
}

static void test_many_threads(void)
{
	struct fake *f = start(20);
	struct weft *w = cu_open(NULL);
	struct weft_submit_options o;
	struct weft_request *r[THREADS];
	pthread_t t[THREADS];
	int right = 0;

	cu_options(&o, 40);
	for (int i = 0; i < THREADS; i++) {
		r[i] = cu_submit(w, &o);
		pthread_create(&t[i], NULL, wait_thread, r[i]);
	}
	usleep(100000);
	fake_kill(f);
	f = start(UINT32_MAX);
	for (int i = 0; i < THREADS; i++) {
		void *ret;

		pthread_join(t[i], &ret);
		right += ret != NULL;
	}
	is_int(right, THREADS, "all of %d waiting threads see their streams continue", THREADS);
	weft_close(w);
	fake_kill(f);
}

static void test_wait_any_and_events(void)
{
	struct fake *f = start(20);
	struct weft *w = cu_open(NULL);
	struct weft_submit_options o;
	struct weft_request *r, *got[4];
	struct pollfd p = {weft_event_fd(w), POLLIN, 0};
	time_t end = time(NULL) + 100;

	r = n_of(w, 20, 40);
	fake_kill(f);
	f = start(UINT32_MAX);
	while (cu_status(r) == WEFT_RUNNING && time(NULL) < end) {
		if (!weft_event_arm(w))
			poll(&p, 1, 60000);
		while (weft_wait_any(w, got, 4, 0) > 0)
			;
	}
	is_int(cu_status(r), WEFT_OK, "an event loop bridges the restart");
	ok(cu_right(r, 0, 40), "with the right tokens");
	ok(time(NULL) < end - 50, "woken by the descriptor, not by chance");
	weft_free(r);
	atomic_store(&fake_controls_of(f)->stall_at, 20);
	cu_options(&o, 40);
	r = cu_submit(w, &o);
	is_int(weft_wait(r, 0, 19, 60000), 20, "twenty tokens again");
	fake_kill(f);
	f = start(UINT32_MAX);
	while (cu_status(r) == WEFT_RUNNING && weft_wait_any(w, got, 4, 60000) > 0)
		;
	ok(cu_right(r, 0, 40), "wait_any bridges it too");
	weft_close(w);
	fake_kill(f);
}

/* A program that never waits, and asks for a request's result now and then. */
static enum weft_status poll_to_end(struct weft_request *r)
{
	time_t end = time(NULL) + 60;

	while (cu_status(r) == WEFT_RUNNING && time(NULL) < end)
		usleep(1000);
	return cu_status(r);
}

static void test_polls(void)
{
	struct weft_open_options oo = WEFT_OPEN_OPTIONS_INIT;
	struct fake *f = start(5);
	struct weft_request *r;
	struct weft *w;

	oo.reconnect_ms = 300;
	w = cu_open(&oo);
	r = n_of(w, 5, 30);
	fake_kill(f);
	is_int(poll_to_end(r), WEFT_LOST, "no daemon: a program that never waits is told");
	weft_close(w);

	f = start(5);
	w = cu_open(NULL);
	r = n_of(w, 5, 30);
	fake_kill(f);
	f = start(UINT32_MAX);
	is_int(poll_to_end(r), WEFT_OK, "another daemon: it goes on");
	ok(cu_right(r, 0, 30), "with the right tokens");
	weft_free(r);
	atomic_store(&fake_controls_of(f)->stall_at, 5);
	r = n_of(w, 5, 30);
	for (int i = 0; i < 60000 && !atomic_load(&fake_controls_of(f)->complaints); i++) {
		cu_status(r);
		usleep(1000);
	}
	ok(atomic_load(&fake_controls_of(f)->complaints), "an engine that stands still is told of");
	weft_close(w);
	fake_kill(f);
}

static void on_signal(int number)
{
	(void)number;
}

/* A program that never waits for as long as libweft sleeps at most: it looks after the session all the
 * same. Each wait is of `ms`, at most, and ends by a signal if there is a timer. */
static void short_waits(const char *what, int ms, int any, const struct itimerval *timer)
{
	static const struct itimerval off;
	struct fake *f = start(20);
	struct weft *w = cu_open(NULL);
	struct weft_request *r, *got[4];
	time_t end = time(NULL) + 60;

	r = n_of(w, 20, 40);
	fake_kill(f);
	f = start(UINT32_MAX);
	setitimer(ITIMER_REAL, timer ? timer : &off, NULL);
	for (uint32_t n = 0; weft_tokens(r, 0, &n), n < 40 && time(NULL) < end;) {
		if (any)
			weft_wait_any(w, got, 4, ms);
		else
			weft_wait(r, 0, n, ms);
		if (!ms)
			usleep(1000);
	}
	setitimer(ITIMER_REAL, &off, NULL);
	ok(cu_right(r, 0, 40), "%s: the right tokens", what);
	weft_close(w);
	fake_kill(f);
}

static void test_short_waits(void)
{
	const struct itimerval often = {.it_interval.tv_usec = 20000, .it_value.tv_usec = 20000};
	struct sigaction sa = {.sa_handler = on_signal};

	sigaction(SIGALRM, &sa, NULL);
	short_waits("waits of 50 ms bridge a restart", 50, 0, NULL);
	short_waits("and waits of none", 0, 0, NULL);
	short_waits("and those that signals end", 60000, 0, &often);
	short_waits("and waits of 50 ms for any", 50, 1, NULL);
	short_waits("and those for any that signals end", 60000, 1, &often);
}

/* Far from giving up. */
static void test_own_limit(void)
{
	struct fake *f = start(5);
	struct weft *w = cu_open(NULL);
	struct weft_request *r;

	r = n_of(w, 5, 30);
	fake_kill(f);
	is_int(weft_wait(r, 0, 5, 100), -ETIMEDOUT, "without a daemon a wait's own limit holds");
	weft_close(w);
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + now.tv_nsec / 1e9;
}

enum way { WAIT, WAIT_ANY, ASK };

/* One call with a limit of 100 ms, or none to wait. */
static int64_t call_briefly(struct weft *w, struct weft_request *r, enum way way)
{
	struct weft_request *got[4];

	switch (way) {
	case WAIT:
		return weft_wait(r, 0, 5, 100);
	case WAIT_ANY:
		return weft_wait_any(w, got, 4, 100);
	default:
		usleep(1000);
		return cu_status(r) == WEFT_RUNNING ? -ETIMEDOUT : 0;
	}
}

/* The next daemon listens and does not answer for a while. How long did the call take that said hello? */
static double silent_once(enum way way)
{
	struct fake *f = start(5);
	struct weft *w = cu_open(NULL);
	double from, took = 0, began;
	struct weft_request *r;
	int64_t said = 0;

	r = n_of(w, 5, 30);
	fake_kill(f);
	f = start(UINT32_MAX);
	atomic_store(&fake_controls_of(f)->hold_hellos, 1);
	began = seconds();
	while (!atomic_load(&fake_controls_of(f)->hellos)) {
		from = seconds();
		said = call_briefly(w, r, way);
		took = seconds() - from;
	}
	is_int(said, -ETIMEDOUT, "no answer within the limit");
	atomic_store(&fake_controls_of(f)->hold_hellos, 0);
	if (way == ASK)
		is_int(poll_to_end(r), WEFT_OK, "goes on when the daemon answers");
	else
		is_int(cu_wait_end(r, 0), 30, "goes on when the daemon answers");
	ok(cu_right(r, 0, 30), "with the right tokens");
	ok(atomic_load(&fake_controls_of(f)->hellos) == 1 || seconds() - began > 4.5,
	   "to the hello that it had been said");
	weft_close(w);
	fake_kill(f);
	return took;
}

/* A hello is given up after five seconds: a call that takes four has waited for it, whatever its caller
 * said. (A machine that stands still so long does not do so five times.) */
static void silent_daemon(const char *what, enum way way)
{
	double took = silent_once(way);

	for (int i = 0; i < 4 && took >= 4; i++)
		took = silent_once(way);
	ok(took < 4, "%s: the caller's limit holds (%.2f s)", what, took);
}

/* A program with an event loop is called when the answer is there, and not again and again before. */
static void test_silent_events(void)
{
	struct fake *f = start(5);
	struct weft *w = cu_open(NULL);
	struct weft_request *r, *got[4];
	struct pollfd p = {weft_event_fd(w), POLLIN, 0};
	uint32_t turns = 0;

	r = n_of(w, 5, 30);
	fake_kill(f);
	f = start(UINT32_MAX);
	atomic_store(&fake_controls_of(f)->hold_hellos, 1);
	for (double end = seconds() + 60; cu_status(r) == WEFT_RUNNING && seconds() < end;
	     turns++) {
		if (!weft_event_arm(w) && !poll(&p, 1, 300))
			atomic_store(&fake_controls_of(f)->hold_hellos, 0);
		while (weft_wait_any(w, got, 4, 0) > 0)
			;
	}
	ok(cu_right(r, 0, 30), "an event loop goes on when the daemon answers");
	ok(turns < 200, "and is left alone meanwhile (%u turns)", turns);
	weft_close(w);
	fake_kill(f);
}

static void test_silent_daemon(void)
{
	struct weft_open_options oo = WEFT_OPEN_OPTIONS_INIT;
	struct fake *f;
	struct weft_request *r;
	struct weft *w;

	silent_daemon("a wait", WAIT);
	silent_daemon("a wait for any", WAIT_ANY);
	silent_daemon("a question", ASK);
	test_silent_events();
	/* A session can be closed, and end, while a hello is on its way. */
	f = start(5);
	oo.reconnect_ms = 300;
	w = cu_open(&oo);
	r = n_of(w, 5, 30);
	fake_kill(f);
	f = start(UINT32_MAX);
	atomic_store(&fake_controls_of(f)->hold_hellos, 1);
	is_int(weft_wait(r, 0, 5, 60000), 5, "a daemon that never answers: the request ends");
	is_int(cu_status(r), WEFT_LOST, "as lost");
	weft_close(w);
	fake_kill(f);
	f = start(5);
	w = cu_open(NULL);
	r = n_of(w, 5, 30);
	fake_kill(f);
	f = start(UINT32_MAX);
	atomic_store(&fake_controls_of(f)->hold_hellos, 1);
	while (!atomic_load(&fake_controls_of(f)->hellos))
		weft_wait(r, 0, 5, 10);
	weft_close(w);
	fake_kill(f);
}

static void test_no_other_daemon(void)
{
	struct weft_open_options oo = WEFT_OPEN_OPTIONS_INIT;
	struct fake *f = start(5);
	struct weft *w;
	struct weft_submit_options o;
	struct weft_request *r, *got[4], *x;
	struct weft_error e;
	char text[256];
	struct weft_result res = {.size = sizeof(res)};

	oo.reconnect_ms = 300;
	w = cu_open(&oo);
	r = n_of(w, 5, 30);
	fake_kill(f);
	is_int(weft_wait(r, 0, 5, 60000), 5, "no other daemon comes: the request ends");
	weft_result(r, &res);
	is_int(res.status, WEFT_LOST, "as lost");
	ok(weft_status_text(&res, text, sizeof(text)) > 0 && strstr(text, "went away"), "%s", text);
	is_int(weft_wait_any(w, got, 4, 1000), 1, "wait_any lists it");
	is_int(weft_wait_any(w, got, 4, 1000), -ECONNRESET, "then says that the session is over");
	is_int(weft_wait_any(w, got, 4, 0), -ECONNRESET, "also to one that does not wait");
	cu_options(&o, 30);
	is_int(weft_submit(w, &x, &o, &e), -ECONNRESET, "no more requests");
	ok(strstr(e.message, "lost"), "%s", e.message);
	ok(cu_right(r, 0, 5), "the tokens stay readable");
	weft_close(w);
}

/* Nobody must wait for a daemon that will not be asked anything. */
static void test_ends_without_daemon(void)
{
	struct fake *f = start(5);
	struct weft *w = cu_open(NULL);
	struct weft_submit_options o;
	struct weft_request *a, *b, *c;
	time_t before;

	cu_options(&o, 30);
	a = cu_submit(w, &o);
	b = cu_submit(w, &o);
	o.flags = WEFT_NO_RESUBMIT;
	c = cu_submit(w, &o);
	is_int(weft_wait(c, 0, 4, 60000), 5, "five tokens");
	atomic_store(&fake_controls_of(f)->admit, 0);
	fake_kill(f);
	weft_cancel(a);
	before = time(NULL);
	is_int(weft_wait(a, 0, 5, 60000), 5, "cancelled before it was noticed: ends");
	is_int(cu_status(a), WEFT_CANCELLED, "as cancelled");
	is_int(weft_wait(c, 0, 5, 60000), 5, "opted out: ends");
	is_int(cu_status(c), WEFT_LOST, "as lost");
	is_int(cu_status(b), WEFT_RUNNING, "the other one waits for a daemon");
	weft_cancel(b);
	is_int(weft_wait(b, 0, 5, 60000), 5, "until it is cancelled");
	is_int(cu_status(b), WEFT_CANCELLED, "which needs no daemon");
	ok(time(NULL) - before < 40, "without waiting for one"); /* that is a minute */
	weft_close(w);
}

static void test_bye(void)
{
	struct fake *f = start(5);
	struct weft *w = cu_open(NULL);
	struct weft_request *r;

	r = n_of(w, 5, 30);
	atomic_store(&fake_controls_of(f)->bye, 1);
	is_int(weft_wait(r, 0, 5, 60000), 5, "told to go: the request ends");
	is_int(cu_status(r), WEFT_PROTOCOL, "for the protocol");
	ok(atomic_load(&fake_controls_of(f)->admitted) == 1, "and is not resubmitted");
	weft_close(w);
	fake_kill(f);
}

/* A program that waits for a request, or for any, for `ms` at a time, while the engine stands still. */
static void complains(const char *what, int ms, int any, uint32_t flags)
{
	struct weft_open_options oo = WEFT_OPEN_OPTIONS_INIT;
	struct fake *f = start(5);
	struct fake_controls *c = fake_controls_of(f);
	struct weft_request *r, *got[4];
	struct timespec from, now;
	struct weft *w;
	double s;

	oo.flags = flags;
	w = cu_open(&oo);
	r = n_of(w, 5, 30);
	clock_gettime(CLOCK_MONOTONIC, &from);
	do {
		if (any)
			weft_wait_any(w, got, 4, ms);
		else
			weft_wait(r, 0, 5, ms);
		clock_gettime(CLOCK_MONOTONIC, &now);
		s = (double)(now.tv_sec - from.tv_sec) + (now.tv_nsec - from.tv_nsec) / 1e9;
	} while (!atomic_load(&c->complaints) && s < 60);
	ok(atomic_load(&c->complaints) >= 1 && atomic_load(&c->complaints) <= 1 + s / 2 && s >= 1,
	   "%s: the daemon is told, not at once and not often (after %.1f s)", what, s);
	weft_close(w);
	fake_kill(f);
}

static void *wait_long(void *w)
{
	struct weft_request *got[4];

	weft_wait_any(w, got, 4, 60000);
	return NULL;
}

/* One thread waits for any already when another asks for the first thing. */
static void test_complains_of_later(void)
{
	struct fake *f = start(0);
	struct fake_controls *c = fake_controls_of(f);
	struct weft *w = cu_open(NULL);
	struct weft_submit_options o;
	struct timespec turn = {0, 10000000};
	struct weft_request *r;
	pthread_t waiter;

	pthread_create(&waiter, NULL, wait_long, w);
	nanosleep(&(struct timespec){1, 500000000}, NULL);
	is_int((long)atomic_load(&c->complaints), 0, "nothing was asked for: no complaint");
	cu_options(&o, 3);
	r = cu_submit(w, &o);
	for (int i = 0; i < 3000 && !atomic_load(&c->complaints); i++)
		nanosleep(&turn, NULL);
	ok(atomic_load(&c->complaints) > 0, "a wait that began before the request complains, too");
	atomic_store(&c->stall_at, UINT32_MAX);
	pthread_join(waiter, NULL);
	is_int(weft_wait(r, 0, 2, 60000), 3, "and goes on when the engine does");
	weft_close(w);
	fake_kill(f);
}

static void test_complains(void)
{
	complains("waits of 1.5 seconds", 1500, 0, 0);
	complains("waits of 20 ms", 20, 0, 0);
	complains("waits of 1.5 seconds for any", 1500, 1, 0);
	complains("waits of 20 ms for any", 20, 1, 0);
	complains("looks at any without waiting, never asleep", 0, 1, WEFT_POLL_ALWAYS);
	test_complains_of_later();
}

/* Who has asked for nothing has nothing to complain of. */
static void test_no_complaint(void)
{
	struct fake *f = start(5);
	struct weft *w = cu_open(NULL);
	struct weft_request *got[4];

	is_int(weft_wait_any(w, got, 4, 2500), -ETIMEDOUT, "nothing asked, nothing comes");
	is_int(weft_wait_any(w, got, 4, 0), -ETIMEDOUT, "for more than two seconds");
	is_int(atomic_load(&fake_controls_of(f)->complaints), 0, "which is no complaint");
	weft_close(w);
	fake_kill(f);
}

int main(void)
{
	test_continues();
	test_twice();
	test_not_admitted();
	test_many_threads();
	test_wait_any_and_events();
	test_polls();
	test_short_waits();
	test_own_limit();
	test_silent_daemon();
	test_no_other_daemon();
	test_ends_without_daemon();
	test_bye();
	test_complains();
	test_no_complaint();
	return tap_done();
}
