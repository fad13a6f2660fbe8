/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_pipeline_run.c - the pipelines that run one conversation at a time.
 *
 * A repetition draws new tokens, so that nothing of an earlier one can be reused, and runs the arms
 * in an order that rotates from repetition to repetition. Arms that cannot touch one another's KV
 * (the LoRA's is keyed by its adapter, a recomputation neither takes nor leaves any) go on from the
 * same first call, so that they are paired; the others get a conversation of their own. lora-warm
 * is lora-cold's call, made again at once. With --share several repetitions go on from one first
 * call, each with adapters that have not seen it: a first call of many tokens is paid for once.
 */
#include "tools/bench_pipeline.h"

#include <stdlib.h>
#include <string.h>

#define CALL_LIMIT_MS (30 * 60 * 1000)

/* --- tokens --------------------------------------------------------------------------------------*/

/* SplitMix64. */
uint64_t pipe_draw(struct pipe *p)
{
	uint64_t z = p->random += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

void pipe_seed(struct pipe *p, uint64_t a, uint64_t b, uint64_t c)
{
	const uint64_t parts[] = {a, b, c};

	p->random = p->opt.seed;
	for (uint32_t i = 0; i < 3; i++)
		p->random = pipe_draw(p) ^ parts[i];
}

static int out_of_memory(void)
{
	cli_fail("%s: out of memory", cli_name());
	return -1;
}

int pipe_add(struct cli_tokens *t, const uint32_t *tokens, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (cli_tokens_add(t, tokens[i]))
			return out_of_memory();
	return 0;
}

int pipe_add_random(struct pipe *p, struct cli_tokens *t, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (cli_tokens_add(t, (uint32_t)(pipe_draw(p) % p->model.vocab)))
			return out_of_memory();
	return 0;
}

int pipe_new_prompt(struct pipe *p, struct cli_tokens *t, uint32_t n)
{
	t->n = 0;
	if (pipe_add_random(p, t, n))
		return -1;
	t->tokens[0] = (uint32_t)((p->opt.seed * UINT64_C(7919) + p->n_prompts++) % p->model.vocab);
	return 0;
}

/* --- calls ---------------------------------------------------------------------------------------*/

void pipe_submit_options(const struct pipe_call *c, struct weft_submit_options *o)
{
	weft_submit_options_init(o);
	o->prompt = c->prompt;
	o->n_prompt = c->n_prompt;
	o->adapter = c->adapter;
	o->max_tokens = c->max_tokens;
	o->ignore_eos = 1;
	o->flags = c->flags;
}

int pipe_finish(struct pipe_call *c, struct weft_request *r)
{
	struct weft_result res = {.size = sizeof(res)};
	const uint32_t *tokens;
	char text[256];
	uint32_t n;

	weft_result(r, &res);
	tokens = weft_tokens(r, 0, &n);
	if (res.status != WEFT_OK || n != c->max_tokens) {
		weft_status_text(&res, text, sizeof(text));
		cli_fail("%s: a call of %s with %u prompt tokens ended after %u of %u "
			 "tokens: %s",
			 cli_name(), c->adapter ? c->adapter : "the base model", c->n_prompt, n,
			 c->max_tokens, text);
		return -1;
	}
	c->arrival_s = res.arrival_ns * 1e-9;
	c->start_s = res.start_ns * 1e-9;
	c->first_s = res.first_token_ns * 1e-9;
	c->end_s = res.end_ns * 1e-9;
	c->cached = res.cached_tokens;
	c->prompt_tokens = res.prompt_tokens;
	return c->answer ? pipe_add(c->answer, tokens, n) : 0;
}

static int wait_end(struct weft_request *r)
{
	uint32_t have = 0;
	int64_t n;

	while ((n = weft_wait(r, 0, have, CALL_LIMIT_MS)) > have)
		have = (uint32_t)n;
	if (n >= 0)
		return 0;
	cli_fail("%s: wait for tokens: %s", cli_name(), strerror((int)-n));
	return -1;
}

int pipe_calls(struct pipe *p, struct pipe_call *calls, uint32_t n)
{
	struct weft_request *r[PIPE_MAX_CALLS] = {0};
	struct weft_submit_options o;
	struct weft_error e;
	int err = 0;

	for (uint32_t i = 0; i < n && !err; i++) {
		pipe_submit_options(&calls[i], &o);
		err = weft_submit(p->weft, &r[i], &o, &e);
		if (err < 0)
			cli_fail("%s: %s", cli_name(), e.message);
	}
	for (uint32_t i = 0; i < n && !err; i++)
		err = wait_end(r[i]);
	for (uint32_t i = 0; i < n && !err; i++)
		err = pipe_finish(&calls[i], r[i]);
	for (uint32_t i = 0; i < n; i++)
		weft_free(r[i]);
	return err ? -1 : 0;
}

/* One call; the answer is appended to *t if its tokens are wanted. */
static int one_call(struct pipe *p, const char *adapter, struct cli_tokens *t, uint32_t max_tokens,
		    uint32_t flags, bool append, struct pipe_call *ret)
{
	struct cli_tokens answer = {0};
	int err;

	*ret = (struct pipe_call){
		.adapter = adapter,
		.prompt = t->tokens,
		.n_prompt = t->n,
		.max_tokens = max_tokens,
		.flags = flags,
		.answer = append ? &answer : NULL,
	};
	err = pipe_calls(p, ret, 1);
	if (!err && append)
		err = pipe_add(t, answer.tokens, answer.n);
	free(answer.tokens);
	return err;
}

/* --- samples -------------------------------------------------------------------------------------*/

static struct pipe_point *point(struct pipe *p, const struct pipe_point *where)
{
	struct pipe_point *more;

	for (uint32_t i = 0; i < p->n_points; i++) {
		struct pipe_point *q = &p->points[i];

		if (q->kind == where->kind && q->arm == where->arm && q->step == where->step &&
		    q->x == where->x)
			return q;
	}
	if (p->n_points == p->room) {
		more = reallocarray(p->points, 2 * p->room + 16, sizeof(*more));
		if (!more)
			return NULL;
		p->points = more;
		p->room = 2 * p->room + 16;
	}
	p->points[p->n_points] = (struct pipe_point){
		.kind = where->kind, .arm = where->arm, .step = where->step, .x = where->x};
	return &p->points[p->n_points++];
}

/* Means over the calls; the hit rate is that of all their tokens. */
static void summarize(const struct pipe_call *calls, uint32_t n, double *ret)
{
	double first = calls[0].arrival_s, last = 0, cached = 0, prompt = 0;

	memset(ret, 0, PIPE_METRICS * sizeof(*ret));
	for (uint32_t i = 0; i < n; i++) {
		const struct pipe_call *c = &calls[i];

		ret[M_QUEUE] += (c->start_s - c->arrival_s) / n;
		ret[M_PREFILL] += (c->first_s - c->start_s) / n;
		ret[M_DECODE] += (c->end_s - c->first_s) / n;
		ret[M_TTFT] += (c->first_s - c->arrival_s) / n;
		ret[M_E2E] += (c->end_s - c->arrival_s) / n;
		first = c->arrival_s < first ? c->arrival_s : first;
		last = c->end_s > last ? c->end_s : last;
		cached += c->cached;
		prompt += c->prompt_tokens;
	}
	ret[M_HIT] = cached / prompt;
	ret[M_WALL] = last - first;
}

int pipe_record(struct pipe *p, const struct pipe_point *where, const struct pipe_call *calls,
		uint32_t n)
{
	struct pipe_point *q = point(p, where);
	double sample[PIPE_METRICS];

	if (!q)
		return out_of_memory();
	summarize(calls, n, sample);
	for (uint32_t m = 0; m < PIPE_METRICS; m++) {
		double *v = reallocarray(q->v[m], q->n + 1, sizeof(*v));

		if (!v)
			return out_of_memory();
		v[q->n] = sample[m];
		q->v[m] = v;
	}
	q->n++;
	q->live_tokens = where->live_tokens > q->live_tokens ? where->live_tokens : q->live_tokens;
	return 0;
}

/* --- the pipelines -------------------------------------------------------------------------------*/

/* Where a repetition stands. */
struct rep {
	struct pipe *p;
	enum pipe_kind kind;
	uint32_t x, n_prompt, n_generate, number;
};

/* Sets of arms that share a conversation and cannot be parted. */
enum unit { UNIT_ALORA, UNIT_ALORA_SERIAL, UNIT_LORA, UNIT_RECOMPUTE, UNITS };

/* The first, or only, arm of each. */
static const enum pipe_arm unit_arms[UNITS] = {ARM_ALORA, ARM_ALORA_SERIAL, ARM_LORA_COLD,
					       ARM_BASE_RECOMPUTE};

static bool wants_unit(const struct pipe *p, enum unit u)
{
	switch (u) {
	case UNIT_ALORA:
		return pipe_wants(p, ARM_ALORA);
	case UNIT_ALORA_SERIAL:
		return pipe_wants(p, ARM_ALORA_SERIAL);
	case UNIT_LORA:
		return pipe_wants(p, ARM_LORA_COLD) || pipe_wants(p, ARM_LORA_WARM);
	default:
		return pipe_wants(p, ARM_BASE_RECOMPUTE);
	}
}

static int record(const struct rep *r, enum pipe_arm arm, enum pipe_step step,
		  const struct pipe_call *calls, uint32_t n)
{
	struct pipe_point where = {.kind = r->kind, .arm = arm, .step = step, .x = r->x};

	return pipe_wants(r->p, arm) ? pipe_record(r->p, &where, calls, n) : 0;
}

/* New tokens for a conversation that only the arms of this unit see. */
static int fresh(const struct rep *r, uint32_t conversation, struct cli_tokens *t)
{
	pipe_seed(r->p, ((uint64_t)r->kind << 32) + r->x, r->number, conversation);
	return pipe_new_prompt(r->p, t, r->n_prompt);
}

/* The invocation that all arms' prompts end with, so that they are of one length; without an
 * aLoRA at hand there is none. */
static int add_invocation(const struct rep *r, struct cli_tokens *t, uint32_t which)
{
	uint32_t n = r->p->n_alora;
	const struct weft_adapter *a = n ? &r->p->alora[which % n] : NULL;

	return a ? pipe_add(t, a->invocation, a->n_invocation) : 0;
}

/* Base, then the adapter: all arms read what one base call left. */
static int base_adapter_arm(const struct rep *r, enum unit u, uint32_t which, struct cli_tokens *t)
{
	struct pipe *p = r->p;
	struct pipe_call c;
	int err;

	if (u == UNIT_RECOMPUTE)
		return one_call(p, NULL, t, p->opt.tokens, WEFT_NO_CACHE, false, &c) ||
		       record(r, ARM_BASE_RECOMPUTE, STEP_CALL, &c, 1);
	if (u == UNIT_ALORA)
		return one_call(p, p->alora[which].name, t, p->opt.tokens, 0, false, &c) ||
		       record(r, ARM_ALORA, STEP_CALL, &c, 1);
	err = one_call(p, p->lora[which].name, t, p->opt.tokens, 0, false, &c) ||
	      record(r, ARM_LORA_COLD, STEP_CALL, &c, 1);
	if (!err && pipe_wants(p, ARM_LORA_WARM))
		err = one_call(p, p->lora[which].name, t, p->opt.tokens, 0, false, &c) ||
		      record(r, ARM_LORA_WARM, STEP_CALL, &c, 1);
	return err;
}

/* A new conversation with the base model's answer, or the one before, which other adapters know. */
static int base_answer(const struct rep *r, bool again, struct cli_tokens *t)
{
	struct cli_tokens *held = &r->p->held;
	struct pipe_call c;

	if (again)
		return pipe_add(t, held->tokens, held->n);
	held->n = 0;
	return fresh(r, 0, t) || one_call(r->p, NULL, t, r->n_generate, 0, true, &c) ||
	       pipe_add(held, t->tokens, t->n);
}

static int base_adapter(const struct rep *r)
{
	uint32_t which = r->number % r->p->opt.share;
	struct cli_tokens t = {0};
	int err;

	err = base_answer(r, which > 0, &t) || add_invocation(r, &t, which);
	for (uint32_t i = 0; i < UNITS && !err; i++) {
		enum unit u = (i + r->number) % UNITS;

		if (u != UNIT_ALORA_SERIAL && wants_unit(r->p, u)) {
			pipe_progress(r->p, unit_arms[u]);
			err = base_adapter_arm(r, u, which, &t);
		}
	}
	free(t.tokens);
	return err;
}

/* Adapter, then the base, each arm with its own conversation. A recomputation's first call is not
 * made: nothing of it would be used. */
static int adapter_base_arm(const struct rep *r, enum unit u, struct cli_tokens *t)
{
	struct pipe *p = r->p;
	const char *first = u == UNIT_ALORA ? p->alora[0].name : p->lora[0].name;
	struct pipe_call c;
	int err;

	err = fresh(r, u, t) || add_invocation(r, t, 0);
	if (u == UNIT_RECOMPUTE)
		return err || pipe_add_random(p, t, r->n_generate) ||
		       one_call(p, NULL, t, p->opt.tokens, WEFT_NO_CACHE, false, &c) ||
		       record(r, ARM_BASE_RECOMPUTE, STEP_CALL, &c, 1);
	err = err || one_call(p, first, t, r->n_generate, 0, true, &c) ||
	      one_call(p, NULL, t, p->opt.tokens, 0, false, &c) ||
	      record(r, u == UNIT_ALORA ? ARM_ALORA : ARM_LORA_COLD, STEP_CALL, &c, 1);
	if (!err && u == UNIT_LORA && pipe_wants(p, ARM_LORA_WARM))
		err = one_call(p, NULL, t, p->opt.tokens, 0, false, &c) ||
		      record(r, ARM_LORA_WARM, STEP_CALL, &c, 1);
	return err;
}

static int adapter_base(const struct rep *r)
{
	struct cli_tokens t = {0};
	int err = 0;

	for (uint32_t i = 0; i < UNITS && !err; i++) {
		enum unit u = (i + r->number) % UNITS;

		if (u != UNIT_ALORA_SERIAL && wants_unit(r->p, u)) {
			pipe_progress(r->p, unit_arms[u]);
			err = adapter_base_arm(r, u, &t);
		}
	}
	free(t.tokens);
	return err;
}

/* --- base, five adapters, base -------------------------------------------------------------------*/

struct five {
	struct cli_tokens prompts[PIPE_PARALLEL_CALLS], answers[PIPE_PARALLEL_CALLS];
	struct pipe_call calls[PIPE_PARALLEL_CALLS];
};

static const char *five_adapter(const struct pipe *p, enum unit u, uint32_t i)
{
	if (u == UNIT_RECOMPUTE)
		return NULL;
	return u == UNIT_LORA ? p->lora[i % p->n_lora].name : p->alora[i % p->n_alora].name;
}

/* The adapters' calls on what the conversation holds so far, at once or one after another. */
static int call_five(const struct rep *r, enum unit u, const struct cli_tokens *t, struct five *f)
{
	struct pipe *p = r->p;
	int err = 0;

	for (uint32_t i = 0; i < PIPE_PARALLEL_CALLS && !err; i++) {
		f->prompts[i].n = f->answers[i].n = 0;
		err = pipe_add(&f->prompts[i], t->tokens, t->n) ||
		      add_invocation(r, &f->prompts[i], i);
		f->calls[i] = (struct pipe_call){
			.adapter = five_adapter(p, u, i),
			.prompt = f->prompts[i].tokens,
			.n_prompt = f->prompts[i].n,
			.max_tokens = p->opt.adapter_tokens,
			.flags = u == UNIT_RECOMPUTE ? WEFT_NO_CACHE : 0,
			.answer = &f->answers[i],
		};
	}
	if (err || u != UNIT_ALORA_SERIAL)
		return err || pipe_calls(p, f->calls, PIPE_PARALLEL_CALLS);
	for (uint32_t i = 0; i < PIPE_PARALLEL_CALLS && !err; i++)
		err = pipe_calls(p, &f->calls[i], 1);
	return err;
}

/* The conversation with all invocations and answers, and the base model's call on it. */
static int call_after(const struct rep *r, enum unit u, struct cli_tokens *t, const struct five *f,
		      struct pipe_call *ret)
{
	int err = 0;

	for (uint32_t i = 0; i < PIPE_PARALLEL_CALLS && !err; i++)
		err = add_invocation(r, t, i) || pipe_add(t, f->answers[i].tokens, f->answers[i].n);
	return err || one_call(r->p, NULL, t, r->p->opt.tokens,
			       u == UNIT_RECOMPUTE ? WEFT_NO_CACHE : 0, false, ret);
}

static int parallel_once(const struct rep *r, enum unit u, enum pipe_arm arm, struct cli_tokens *t,
			 struct five *f)
{
	struct pipe_call after;

	return call_five(r, u, t, f) || record(r, arm, STEP_CALL, f->calls, PIPE_PARALLEL_CALLS) ||
	       call_after(r, u, t, f, &after) || record(r, arm, STEP_AFTER, &after, 1);
}

static int parallel_arm(const struct rep *r, enum unit u, struct cli_tokens *t, struct five *f)
{
	struct pipe_call c;
	uint32_t before;
	int err = fresh(r, u, t);

	if (u == UNIT_RECOMPUTE)
		err = err || pipe_add_random(r->p, t, r->n_generate);
	else
		err = err || one_call(r->p, NULL, t, r->n_generate, 0, true, &c);
	before = t->n;
	err = err || parallel_once(r, u, unit_arms[u], t, f);
	if (!err && u == UNIT_LORA && pipe_wants(r->p, ARM_LORA_WARM)) {
		t->n = before;
		err = parallel_once(r, u, ARM_LORA_WARM, t, f);
	}
	return err;
}

static int parallel(const struct rep *r)
{
	struct five *f = calloc(1, sizeof(*f));
	struct cli_tokens t = {0};
	int err = f ? 0 : out_of_memory();

	for (uint32_t i = 0; i < UNITS && !err; i++) {
		enum unit u = (i + r->number) % UNITS;

		if (wants_unit(r->p, u)) {
			pipe_progress(r->p, unit_arms[u]);
			err = parallel_arm(r, u, &t, f);
		}
	}
	for (uint32_t i = 0; f && i < PIPE_PARALLEL_CALLS; i++) {
		free(f->prompts[i].tokens);
		free(f->answers[i].tokens);
	}
	free(f);
	free(t.tokens);
	return err;
}

int pipe_repetition(struct pipe *p, enum pipe_kind kind, uint32_t x, uint32_t rep)
{
	bool generation = kind == PIPE_GENERATION;
	struct rep r = {
		.p = p,
		.kind = kind,
		.x = x,
		.number = rep,
		.n_prompt = generation ? p->opt.prompt : x,
		.n_generate = generation ? x : p->opt.generate,
	};
	int err;

	err = kind == PIPE_PARALLEL	  ? parallel(&r)
	      : kind == PIPE_ADAPTER_BASE ? adapter_base(&r)
					  : base_adapter(&r);
	return err ? -1 : 0;
}
