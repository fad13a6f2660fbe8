/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_pipeline_async.c - conversations that arrive by a Poisson process, many at once.
 *
 * A conversation is base, then the adapter on its prompt and answer; each has its own random
 * prompt, and all arms see the same arrivals and the same prompts. An arm runs alone, from the first
 * arrival to the last end, whatever the rate: past what the machine can do, conversations queue up,
 * and past what the KV memory holds they are evicted or wait; the queue stage shows it. What arrives
 * while the session has no free slot waits here, and that wait counts as queue.
 */
#include "tools/bench_pipeline.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum stage { ST_BASE, ST_ADAPTER, ST_AGAIN /* lora-warm: the adapter's call once more */, ST_DONE };

struct conversation {
	double due_s;	  /* CLOCK_MONOTONIC; when its next call should arrive */
	enum stage stage; /* of the call that is due or runs */
	struct weft_request *r;
	struct cli_tokens tokens;
	struct pipe_call call;
	uint32_t adapter;
};

struct stream {
	struct pipe *p;
	enum pipe_arm arm;
	double rate;
	struct conversation *c; /* owner, [n] in the order of their arrivals */
	uint32_t n, done;
	uint32_t live_tokens, most_live;
};

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec * 1e-9;
}

static uint32_t live(const struct conversation *c)
{
	return c->call.n_prompt + c->call.max_tokens;
}

static const struct weft_adapter *adapter_of(const struct stream *s, const struct conversation *c)
{
	if (s->arm == ARM_BASE_RECOMPUTE)
		return NULL;
	return s->arm == ARM_ALORA ? &s->p->alora[c->adapter % s->p->n_alora]
				   : &s->p->lora[c->adapter % s->p->n_lora];
}

/* 1: submitted; 0: no slot or no room now; -1 with a message. */
static int start(struct stream *s, struct conversation *c)
{
	const struct weft_adapter *a = c->stage == ST_BASE ? NULL : adapter_of(s, c);
	const struct pipe_options *o = &s->p->opt;
	struct weft_submit_options so;
	struct weft_error e;
	int err;

	c->call = (struct pipe_call){
		.adapter = a ? a->name : NULL,
		.prompt = c->tokens.tokens,
		.n_prompt = c->tokens.n,
		.max_tokens = c->stage == ST_BASE ? o->generate : o->tokens,
		.flags = s->arm == ARM_BASE_RECOMPUTE ? WEFT_NO_CACHE : 0,
		.answer = c->stage == ST_BASE ? &c->tokens : NULL,
	};
	pipe_submit_options(&c->call, &so);
	err = weft_submit(s->p->weft, &c->r, &so, &e);
	if (err == -EAGAIN) {
		c->r = NULL;
		return 0;
	}
	if (err < 0) {
		cli_fail("%s: %s", cli_name(), e.message);
		return -1;
	}
	s->live_tokens += live(c);
	s->most_live = s->live_tokens > s->most_live ? s->live_tokens : s->most_live;
	return 1;
}

/* Start what is due, oldest first. Returns how long until the next is, in ms; -1 at an error. */
static int start_due(struct stream *s)
{
	double now = now_s(), next = now + 1;

	for (uint32_t i = 0; i < s->n; i++) {
		struct conversation *c = &s->c[i];
		int got;

		if (c->r || c->stage == ST_DONE)
			continue;
		if (c->due_s > now) {
			next = c->due_s < next ? c->due_s : next;
			continue;
		}
		got = start(s, c);
		if (got < 0)
			return -1;
		if (!got) /* an end will make room */
			break;
	}
	return (int)ceil((next - now) * 1e3);
}

static int measured(struct stream *s, struct conversation *c)
{
	struct pipe_point where = {
		.kind = PIPE_ASYNC, .arm = s->arm, .x = s->rate, .live_tokens = s->most_live};

	/* What it waited for a slot belongs to the queue. */
	c->call.arrival_s = c->due_s < c->call.arrival_s ? c->due_s : c->call.arrival_s;
	return pipe_record(s->p, &where, &c->call, 1);
}

/* The conversation's call has ended: on to its next. */
static int advance(struct stream *s, struct conversation *c)
{
	enum stage last = s->arm == ARM_LORA_WARM ? ST_AGAIN : ST_ADAPTER;
	uint32_t n_alora = s->p->n_alora ? s->p->n_alora : 1; /* without one: no invocation */
	const struct weft_adapter *invoked = &s->p->alora[c->adapter % n_alora];
	int err;

	s->live_tokens -= live(c);
	err = pipe_finish(&c->call, c->r);
	weft_free(c->r);
	c->r = NULL;
	if (err)
		return err;
	/* All arms' prompts end with an invocation, so that they are of one length. */
	if (c->stage == ST_BASE && pipe_add(&c->tokens, invoked->invocation, invoked->n_invocation))
		return -1;
	if (c->stage == last) {
		c->stage = ST_DONE;
		s->done++;
		return measured(s, c);
	}
	c->stage++;
	c->due_s = c->call.end_s;
	return 0;
}

static struct conversation *find(struct stream *s, const struct weft_request *r)
{
	for (uint32_t i = 0; i < s->n; i++)
		if (s->c[i].r == r)
			return &s->c[i];
	return NULL;
}

static int run(struct stream *s)
{
	struct weft_request *news[64];

	while (s->done < s->n) {
		int wait_ms = start_due(s), n;

		if (wait_ms < 0)
			return -1;
		n = weft_wait_any(s->p->weft, news, 64, wait_ms);
		if (n < 0 && n != -ETIMEDOUT && n != -EINTR) {
			cli_fail("%s: wait for news: %s", cli_name(), strerror(-n));
			return -1;
		}
		for (int i = 0; i < n; i++) {
			struct weft_result res = {.size = sizeof(res)};
			struct conversation *c = find(s, news[i]);

			if (c && weft_result(c->r, &res) >= 0 && res.status != WEFT_RUNNING &&
			    advance(s, c))
				return -1;
		}
	}
	return 0;
}

/* Arrivals and prompts are functions of seed and rate: the same for every arm, but for the first
 * token, which keeps all conversations' KV apart. */
static int prepare(struct stream *s)
{
	struct pipe *p = s->p;
	double at = now_s() + 0.05;
	int err = 0;

	s->c = calloc(s->n, sizeof(*s->c));
	if (!s->c)
		return cli_fail("%s: out of memory", cli_name());
	pipe_seed(p, (uint64_t)PIPE_ASYNC << 32, (uint64_t)(s->rate * 1e3), 0);
	for (uint32_t i = 0; i < s->n && !err; i++) {
		double u = (double)((pipe_draw(p) >> 11) + 1) / 9007199254740993.0;

		at += -log(u) / s->rate;
		s->c[i].due_s = at;
		s->c[i].adapter = i % PIPE_PARALLEL_CALLS;
		err = pipe_new_prompt(p, &s->c[i].tokens, p->opt.prompt);
	}
	return err;
}

int pipe_async(struct pipe *p, double rate)
{
	int err = 0;

	for (uint32_t arm = 0; arm < PIPE_ARMS && !err; arm++) {
		struct stream s = {.p = p, .arm = arm, .rate = rate, .n = p->opt.requests};

		if (!pipe_wants(p, arm) || arm == ARM_ALORA_SERIAL)
			continue;
		pipe_progress(p, arm);
		err = prepare(&s) || run(&s);
		for (uint32_t i = 0; s.c && i < s.n; i++) {
			weft_free(s.c[i].r);
			free(s.c[i].tokens.tokens);
		}
		free(s.c);
	}
	return err ? -1 : 0;
}
