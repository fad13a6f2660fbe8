/* SPDX-License-Identifier: Apache-2.0 */
/*
 * patience.c - see patience.h. Whether weftd is there is asked by weft_models(), which fails at once
 * when nobody listens. One that listens and does not answer holds a caller up for seconds, so it is
 * asked once.
 *
 * A session is opened once, however long it takes: a second thread, which lives as long as weft_open()
 * lasts and touches nothing but struct teller, says that it does.
 */
#include "tools/patience.h"
#include "tools/cli.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

#define SECOND_NS    INT64_C(1000000000)
#define OPEN_MS	     120000 /* what weft_open() waits by default */
#define RECONNECT_S  60	    /* what libweft gives a daemon to come back, by default */
#define SAID_AFTER_S 1

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * SECOND_NS + ts.tv_nsec;
}

/* Who says, a second after the opening began, that it goes on. */
struct teller {
	pthread_t thread;
	bool runs;
	sem_t opened; /* posted when it has ended */
	struct timespec at;
	uint32_t all_ms;
};

static void *tell(void *arg)
{
	struct teller *t = arg;
	int err;

	do
		err = sem_clockwait(&t->opened, CLOCK_MONOTONIC, &t->at) ? errno : 0;
	while (err == EINTR);
	if (err == ETIMEDOUT)
		fprintf(stderr,
			"weft: waiting for weftd, which may be loading the model, for up to %u s; "
			"\"weft status\" and weftd's log say more\n",
			t->all_ms / 1000);
	return NULL;
}

/* Without a thread it is waited silently. Signals are for the thread that opens. */
static void teller_start(struct teller *t, uint32_t all_ms)
{
	sigset_t all, before;

	*t = (struct teller){.all_ms = all_ms};
	if (all_ms <= SAID_AFTER_S * 1000 || sem_init(&t->opened, 0, 0))
		return;
	clock_gettime(CLOCK_MONOTONIC, &t->at);
	t->at.tv_sec += SAID_AFTER_S;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	t->runs = !pthread_create(&t->thread, NULL, tell, t);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!t->runs)
		sem_destroy(&t->opened);
}

static void teller_stop(struct teller *t)
{
	if (!t->runs)
		return;
	sem_post(&t->opened);
	pthread_join(t->thread, NULL);
	sem_destroy(&t->opened);
	t->runs = false;
}

int patience_try(struct weft **ret, const struct weft_open_options *o, struct weft_error *e)
{
	struct teller t;
	int err;

	teller_start(&t, o->wait_ready_ms ? o->wait_ready_ms : OPEN_MS);
	err = weft_open(ret, o, e);
	teller_stop(&t);
	return err;
}

int patience_open(struct weft **ret, const struct weft_open_options *o)
{
	struct weft_error e;

	return patience_try(ret, o, &e) < 0 ? cli_fail("%s", e.message) : 0;
}

/* Does anybody listen there? */
static bool is_gone(struct patience *p)
{
	struct weft_error e;
	int r = weft_models(p->socket, NULL, 0, &e);

	if (r == -ETIMEDOUT)
		p->given_up = true;
	return r == -ECONNREFUSED || r == -ENOENT;
}

void patience_news(struct patience *p)
{
	if (p->told)
		fputs("weft: weftd is back\n", stderr);
	p->told = p->given_up = false;
	p->asked_ns = now_ns();
}

void patience_none(struct patience *p)
{
	int64_t now = now_ns();

	if (p->told || p->given_up || now - p->asked_ns < SECOND_NS)
		return;
	p->asked_ns = now;
	if (!is_gone(p))
		return;
	p->told = true;
	fprintf(stderr,
		"weft: weftd is gone; waiting up to %u s for it to be started again, to go on\n",
		RECONNECT_S);
}

int patience_daemon(struct patience *p, const volatile sig_atomic_t *interrupted)
{
	int64_t start = now_ns();

	patience_news(p);
	while (!*interrupted && is_gone(p)) {
		if (now_ns() - start >= RECONNECT_S * SECOND_NS)
			return cli_fail("weftd has not come back within %u s", RECONNECT_S);
		nanosleep(&(struct timespec){.tv_nsec = SECOND_NS / 5}, NULL);
		patience_none(p);
	}
	if (*interrupted)
		return cli_fail("interrupted");
	patience_news(p);
	return 0;
}
