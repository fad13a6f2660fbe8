/* SPDX-License-Identifier: Apache-2.0 */
/*
 * patience.c - see patience.h. Whether weftd is there is asked by weft_models(), which fails at once
 * when nobody listens. One that listens and does not answer holds a caller up for seconds, so it is
 * asked once.
 */
#include "tools/patience.h"
#include "tools/cli.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

#define SECOND_NS     INT64_C(1000000000)
#define OPEN_MS	      120000 /* what weft_open() waits by default */
#define RECONNECT_S   60     /* what libweft gives a daemon to come back, by default */
#define FIRST_OPEN_MS 1000

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * SECOND_NS + ts.tv_nsec;
}

int patience_try(struct weft **ret, const struct weft_open_options *o, struct weft_error *e)
{
	struct weft_open_options first = *o, rest = *o;
	uint32_t all = o->wait_ready_ms ? o->wait_ready_ms : OPEN_MS;
	int err;

	first.wait_ready_ms = all < FIRST_OPEN_MS ? all : FIRST_OPEN_MS;
	err = weft_open(ret, &first, e);
	if (err == -ETIMEDOUT && all > FIRST_OPEN_MS) {
		rest.wait_ready_ms = all - FIRST_OPEN_MS;
		fprintf(stderr,
			"weft: waiting for weftd, which may be loading the model, for up to %u s; "
			"\"weft status\" and weftd's log say more\n",
			all / 1000);
		err = weft_open(ret, &rest, e);
	}
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
