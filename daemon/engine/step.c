/* SPDX-License-Identifier: Apache-2.0 */
/*
 * step.c - one pass: the scheduler's plan becomes a batch, the batch logits, the logits tokens.
 *
 *   plan -> rows, block tables, segments of adapters -> zero fresh blocks -> forward -> sample ->
 *   log-probabilities of prompt tokens (64 rows at a time) -> commit, here and in the cache ->
 *   publish
 *
 * What is queued and what comes of it are two halves: on a device that computes beside the host the
 * next pass may be queued in between (ahead.c), and struct engine has two steps for that.
 *
 * A sequence whose rows reach its last known position yields a row of logits and a new token; the
 * first to finish a prompt does so for all answers of its request. Rows further up are of interest
 * only when log-probabilities of the prompt were asked for.
 *
 * Test hook: with WEFT_TEST_CRASH_TOKEN=ID in its environment the engine aborts when a prompt that
 * contains this token is about to be computed. Owned by the core thread.
 */
#include "daemon/engine/engine.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A device this slow is taken for dead until something has been measured (operations per ns). */
#define SLOWEST_FLOP_PER_NS 1.0
#define BUDGET_FLOOR_NS	    UINT64_C(5000000000)
#define BUDGET_TIMES	    50
/* Pages go back by a system call each time, and only after a mirror has grown. */
#define RECLAIM_STEPS 64

/* An engine that cannot get a few KiB cannot serve: weftd starts another. */
static void must(bool ok, const char *what)
{
	if (ok)
		return;
	log_line(LOG_LEVEL_ERROR, "event=fatal what=\"%s\"", what);
	_exit(1);
}

/* From the first pass on for a million positions, of which only what is used takes memory: growing
 * while tokens flow would be a system call. */
#define ROOM_MIN (1u << 16)

static void room(uint32_t **array, uint32_t *cap, uint32_t n)
{
	uint32_t *p;

	if (n <= *cap)
		return;
	n = n > ROOM_MIN / 2 ? 2 * n : ROOM_MIN;
	p = reallocarray(*array, n, sizeof(*p));
	must(p != NULL, "memory for a batch");
	*array = p;
	*cap = n;
}

/* --- the batch -----------------------------------------------------------------------------------*/

static void given_add(struct step *st, struct request *r, uint32_t row, uint32_t position)
{
	uint32_t next = position + 1;

	if (!r->lay.prompt_logprob_bytes || next >= r->n_client || next < r->prompt_ready)
		return;
	st->given[st->n_given++] = (struct given_row){.req = r, .row = row, .index = next};
}

static void draw_add(struct engine *e, struct step *st, struct sample *a, uint32_t logits_row)
{
	assert(st->n_draws < STEP_MAX_DRAWS);
	must(!sampling_row(e, a, logits_row, &st->draws[st->n_draws]), "memory for penalties");
	st->drawn_for[st->n_draws++] = a;
}

/* The last row of a sequence: a token for it, or for all answers of a fresh request. */
static void out_add(struct engine *e, struct step *st, struct sample *a, uint32_t row)
{
	struct request *r = a->req;

	draw_add(e, st, a, st->n_out);
	for (uint32_t i = 0; i < r->desc.n && !a->n_out && !a->pending; i++) {
		struct sample *b = &r->samples[i];

		if (b != a && !b->n_out && b->seq.state == SCHED_OUT)
			draw_add(e, st, b, st->n_out);
	}
	st->out_rows[st->n_out++] = row;
}

/* Rows of the adapter of the segment before just make that one longer. */
static void segment_add(struct step *st, const struct wk_lora *lora, uint32_t row, uint32_t n_rows)
{
	struct wk_segment *last = st->n_segments ? &st->segments[st->n_segments - 1] : NULL;

	if (!st->n_loras || st->loras[st->n_loras - 1] != lora) {
		st->loras[st->n_loras++] = lora;
		last = NULL;
	}
	if (last && last->row + last->n_rows == row)
		last->n_rows += n_rows;
	else
		st->segments[st->n_segments++] = (struct wk_segment){
			.row = row,
			.n_rows = n_rows,
			.lora = st->n_loras - 1,
		};
}

/* From the activation on, rows are the adapter's. */
static void seq_segment(struct step *st, const struct sample *a, uint32_t row)
{
	const struct request *r = a->req;
	uint32_t first = a->seq.computed, end = first + a->seq.n_new;

	if (!r->adapter || r->activation >= end)
		return;
	if (r->activation > first) {
		row += r->activation - first;
		first = r->activation;
	}
	segment_add(st, adapter_lora(r->adapter->weights->image), row, end - first);
}

static void seq_add(struct engine *e, struct step *st, struct sample *a, uint32_t index,
		    uint32_t *row)
{
	struct sched_seq *q = &a->seq;
	uint32_t first = *row, end = q->computed + q->n_new, n_table = blocks_for(end);
	uint32_t fresh = blocks_for(q->computed);

	room(&st->table, &st->cap_table, st->n_table + n_table);
	room(&st->fresh, &st->cap_fresh, st->n_fresh + n_table - fresh);
	for (uint32_t b = fresh; b < n_table; b++)
		st->fresh[st->n_fresh++] = q->table.blocks[b];
	for (uint32_t p = q->computed; p < end; p++, ++*row) {
		st->tokens[*row] = ahead_token(a, p);
		if (p + 1 == q->target)
			out_add(e, st, a, *row);
		else
			given_add(st, a->req, *row, p);
	}
	memcpy(st->table + st->n_table, q->table.blocks, n_table * sizeof(*st->table));
	st->seqs[index] = (struct wk_seq){
		.row = first,
		.n_rows = q->n_new,
		.pos = q->computed,
		.table = st->n_table,
	};
	st->n_table += n_table;
	seq_segment(st, a, first);
}

static void touch(struct engine *e, struct step *st, struct request *r)
{
	if (r->touched & st->bit)
		return;
	r->touched |= st->bit;
	st->touched[st->n_touched++] = r;
	if (e->sched.only)
		publish_restarts(r, r->restarts | RESTARTS_ALONE);
	if (r->crash_test)
		abort();
}

static void count_prompt(struct engine *e, const struct request *r)
{
	struct meter_use *use = request_use(e, r);

	r->tenant->tokens_in += r->n_prompt;
	r->tenant->tokens_cached += r->cached;
	e->count.tokens_in += r->n_prompt;
	e->count.tokens_cached += r->cached;
	use->tokens_in += r->n_prompt;
	use->tokens_cached += r->cached;
}

static void request_first_step(struct engine *e, struct request *r, uint64_t now)
{
	r->started = true;
	r->tenant->queued_tokens -= r->n_prompt;
	r->queued_charged = false;
	if (publish_started(e, r, now))
		count_prompt(e, r);
	/* The first position of a prompt has no probability; its entry just says the token. */
	if (r->lay.prompt_logprob_bytes && !r->prompt_ready)
		publish_prompt_logprobs(r, 0,
					&(struct wk_sampled){.token = r->prompt[0], .logprob = 0});
}

/* By the content of the adapter: nothing that depends on who else is in the batch. */
static bool adapter_before(const struct sample *a, const struct sample *b)
{
	const uint64_t none[2] = {0, 0};
	const uint64_t *x = a->req->adapter ? a->req->adapter->instance.digest : none;
	const uint64_t *y = b->req->adapter ? b->req->adapter->instance.digest : none;

	return x[0] != y[0] ? x[0] < y[0] : x[1] < y[1];
}

/* Equal adapters side by side, the base model first; otherwise the plan's order, by age. Values do
 * not depend on it: rows of one adapter in a row cost its weights once. */
static void batch_order(struct step *st)
{
	for (uint32_t i = 0; i < st->plan.n; i++) {
		struct sample *a = sample_of(st->plan.seqs[i]);
		uint32_t at = i;

		for (; at > 0 && adapter_before(a, st->order[at - 1]); at--)
			st->order[at] = st->order[at - 1];
		st->order[at] = a;
	}
}

static void batch_build(struct engine *e, struct step *st, struct wk_batch *ret, uint64_t now)
{
	uint32_t row = 0;

	st->bit = (uint8_t)(1u << (st - e->steps));
	st->advanced = false;
	st->n_out = st->n_table = st->n_fresh = st->n_draws = st->n_given = st->n_touched = 0;
	st->n_segments = st->n_loras = 0;
	for (uint32_t i = 0; i < st->plan.n; i++) {
		struct sample *a = sample_of(st->plan.seqs[i]);

		if (!a->req->started)
			request_first_step(e, a->req, now);
		touch(e, st, a->req);
	}
	batch_order(st);
	for (uint32_t i = 0; i < st->plan.n; i++)
		seq_add(e, st, st->order[i], i, &row);
	st->n_rows = row;
	*ret = (struct wk_batch){
		.n_rows = row,
		.n_seqs = st->plan.n,
		.n_table = st->n_table,
		.n_out = st->n_out,
		.tokens = st->tokens,
		.seqs = st->seqs,
		.block_table = st->table,
		.out_rows = st->out_rows,
		.n_segments = st->n_segments,
		.segments = st->segments,
		.n_loras = st->n_loras,
		.loras = st->loras,
	};
}

/* --- running it ----------------------------------------------------------------------------------*/

static double adapted_flops(const struct request *r, const struct sched_seq *q)
{
	uint32_t end = q->computed + q->n_new, first = q->computed;

	if (!r->adapter || r->activation >= end)
		return 0;
	if (r->activation > first)
		first = r->activation;
	return (end - first) * adapter_row_flops(r->adapter->weights->image);
}

static double plan_flops(const struct engine *e, const struct sched_plan *plan)
{
	double sum = 0;

	for (uint32_t i = 0; i < plan->n; i++) {
		const struct sched_seq *q = plan->seqs[i];

		sum += model_flops(e->config, q->n_new, q->computed, 1);
		sum += adapted_flops(sample_of(plan->seqs[i])->req, q);
	}
	return sum;
}

/* The device begins with it: now, as far as the host can tell. */
static void heartbeat_start(struct engine *e, struct step *st, uint64_t now)
{
	double ns_per_flop =
		e->ns_per_flop ? e->ns_per_flop * BUDGET_TIMES : 1 / SLOWEST_FLOP_PER_NS;
	uint64_t budget;

	st->begun_ns = now;
	budget = BUDGET_FLOOR_NS + (uint64_t)(st->flops * ns_per_flop);
	ord_store(&e->heartbeat->step_budget_ns, budget);
	ord_store(&e->heartbeat->step_start_ns, now);
}

static void heartbeat_end(struct engine *e, const struct step *st, uint64_t ns)
{
	double seen = (double)ns / (st->flops + 1);

	/* The slowest rate seen, forgotten slowly. */
	e->ns_per_flop = seen > e->ns_per_flop ? seen : 0.99 * e->ns_per_flop + 0.01 * seen;
	ord_store(&e->heartbeat->step_start_ns, 0);
	ord_store(&e->heartbeat->steps, ord_load(&e->heartbeat->steps) + 1);
}

static void device_wait(struct engine *e, uint64_t ticket)
{
	uint64_t begin = now_ns();
	int rc = e->ops->wait(e->be, ticket);

	e->device_ns += now_ns() - begin;
	if (!rc)
		return;
	log_line(LOG_LEVEL_ERROR, "event=device-failed errno=%d what=\"%s\"", -rc,
		 e->ops->last_error(e->be));
	_exit(1);
}

void step_quiet(struct engine *e)
{
	if (e->flying)
		device_wait(e, e->flying->ticket);
}

static void forward(struct engine *e, struct step *st, const struct wk_batch *batch)
{
	uint64_t begin = now_ns();
	uint32_t stride;
	int rc;

	if (e->opt.poison_free)
		hook_poison_free(e);
	if (st->n_fresh)
		e->ops->kv_zero(e->be, e->pool_buf, st->fresh, st->n_fresh);
	if (e->opt.poison_free)
		hook_check_fresh(e, st);
	rc = model_forward(e->model, e->pool_buf, batch);
	if (rc) {
		log_line(LOG_LEVEL_ERROR, "event=forward-failed errno=%d what=\"%s\"", -rc,
			 e->ops->last_error(e->be));
		_exit(1);
	}
	if (st->n_draws) {
		const struct wk_buf *logits = model_logits(e->model, &stride);

		e->ops->sample(e->be, logits, stride, e->config->vocab, st->draws, st->n_draws,
			       st->drawn);
	}
	st->ticket = e->ops->record(e->be);
	if (!e->info.queues)
		e->device_ns += now_ns() - begin;
}

/* Log-probabilities of prompt tokens, for up to WK_MAX_OUT rows at a time. */
static void forward_given(struct engine *e, const struct step *st)
{
	for (uint32_t at = 0; at < st->n_given; at += WK_MAX_OUT) {
		uint32_t n = st->n_given - at < WK_MAX_OUT ? st->n_given - at : WK_MAX_OUT;
		uint32_t rows[WK_MAX_OUT], stride;
		const struct wk_buf *logits;
		struct wk_sample ask[WK_MAX_OUT];
		struct wk_sampled got[WK_MAX_OUT];

		for (uint32_t i = 0; i < n; i++) {
			const struct given_row *g = &st->given[at + i];

			rows[i] = g->row;
			sampling_given(i, g->req->prompt[g->index], g->req->desc.prompt_logprobs,
				       &ask[i]);
		}
		must(!model_logits_of(e->model, rows, n), "logits of prompt rows");
		logits = model_logits(e->model, &stride);
		e->ops->sample(e->be, logits, stride, e->config->vocab, ask, n, got);
		device_wait(e, e->ops->record(e->be));
		for (uint32_t i = 0; i < n; i++) {
			const struct given_row *g = &st->given[at + i];

			if (isnan(got[i].logprob))
				g->req->end_status = WSHM_NAN;
			else
				publish_prompt_logprobs(g->req, g->index, &got[i]);
		}
	}
}

/* --- what came of it -----------------------------------------------------------------------------*/

static void draw_apply(struct engine *e, struct sample *a, const struct wk_sampled *drawn,
		       uint64_t now)
{
	struct request *r = a->req;
	enum wshm_finish finish;

	a->pending = false;
	if (isnan(drawn->logprob)) {
		r->end_status = WSHM_NAN;
		return;
	}
	r->progressed = true;
	publish_token(a, drawn);
	sampling_append(a, drawn->token);
	r->tenant->tokens_out++;
	e->count.tokens_out++;
	request_use(e, r)->tokens_out++;
	meter_time(&e->meter, METER_BETWEEN, a->token_ns, now);
	a->token_ns = now;
	finish = stop_check(&r->desc, e->eos, e->n_eos, request_out(a), a->n_out);
	if (finish)
		request_sample_done(e, a, finish);
}

static void request_settle(struct engine *e, const struct step *st, struct request *r, uint64_t now)
{
	r->touched &= (uint8_t)~st->bit;
	if (r->progressed && r->restarts)
		publish_restarts(r, 0);
	else if (e->sched.only)
		publish_restarts(r, r->restarts); /* it has survived this pass */
	publish_counts(e, r, now);
	if (r->progressed && r->suspect)
		recover_cleared(e, r);
	if (r->end_status || !r->n_live)
		request_end(e, r, r->end_status, 0);
	else if (r->progressed)
		request_start(e, r); /* answers that waited for the prompt */
}

static void apply(struct engine *e, struct step *st, uint64_t ns, uint64_t now)
{
	for (uint32_t i = 0; i < st->n_touched; i++) {
		struct request *r = st->touched[i];

		if (!r)
			continue;
		r->progressed = false;
		if (!r->first_done)
			r->forward_ns += ns;
	}
	reuse_commit(e, &st->plan);
	for (uint32_t i = 0; i < st->n_draws; i++)
		if (st->drawn_for[i])
			draw_apply(e, st->drawn_for[i], &st->drawn[i], now);
}

/* The pool cannot hold it beside what is pinned, though it could have when it came. */
static void end_stuck(struct engine *e)
{
	struct request *r = sample_of(e->sched.stuck)->req;

	request_end(e, r, WSHM_TOO_BIG, blocks_for(e->sched.stuck->target));
}

static void own_time(struct own_times *t, uint64_t ns)
{
	t->ns[t->n++ % OWN_TIMES] = ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX;
}

/* Its plan is made. */
static void queue(struct engine *e, struct step *st)
{
	uint64_t begin = now_ns();
	struct wk_batch batch;

	batch_build(e, st, &batch, begin);
	st->flops = plan_flops(e, &st->plan);
	if (!e->flying) {
		publish_wake_end(e); /* what of it is left to this thread is its own work */
		heartbeat_start(e, st, now_ns());
	}
	forward(e, st, &batch);
	st->made_ns = now_ns() - begin;
}

/* What comes next anyway, behind a pass that is queued. NULL: that is not known yet. */
static struct step *queue_next(struct engine *e, struct step *st)
{
	struct step *next = &e->steps[st == &e->steps[0]];

	if (!ahead_possible(e, st))
		return NULL;
	ahead_advance(e, st);
	if (!sched_goes_on(&e->sched))
		return NULL;
	sched_plan_on(&e->sched, &next->plan);
	if (!next->plan.n)
		return NULL;
	queue(e, next);
	e->count.steps_ahead++;
	return next;
}

/* Wait for the pass and act on its results, while the next one, or NULL, computes. */
static void finish(struct engine *e, struct step *st, struct step *next)
{
	uint64_t end, ns;

	device_wait(e, st->ticket);
	forward_given(e, st);
	end = now_ns();
	ns = end - st->begun_ns;
	heartbeat_end(e, st, ns);
	if (next)
		heartbeat_start(e, next, end);
	ahead_advance(e, st);
	e->flying = next;
	apply(e, st, ns, end);
	for (uint32_t i = 0; i < st->n_touched; i++)
		if (st->touched[i])
			request_settle(e, st, st->touched[i], end);
	publish_wake(e, next || sched_has_work(&e->sched));
	if (e->count.steps % RECLAIM_STEPS == 0)
		domain_reclaim(e, end);
	e->count.steps++;
	e->count.rows += st->n_rows;
	e->count.step_ns += ns;
	meter_time(&e->meter, METER_PASS, st->begun_ns, end);
	meter_size(&e->meter, METER_ROWS, st->n_rows);
	e->last_rows = st->n_rows;
	e->last_ns = ns;
}

/* A pass has ended, and with it a turn that began then: what of both was this thread's own. */
static void own_end(struct engine *e, uint64_t begin)
{
	own_time(&e->own, e->own_ns + now_ns() - begin - e->device_ns);
	e->own_ns = 0;
}

void step_finish(struct engine *e)
{
	uint64_t begin = now_ns();

	if (!e->flying)
		return;
	e->device_ns = 0;
	finish(e, e->flying, NULL);
	own_end(e, begin);
}

/* Queue a pass that depends on no other. False: nothing can compute. */
static bool queue_first(struct engine *e)
{
	struct step *st = &e->steps[0];

	recover_quarantine(e);
	sched_make_plan(&e->sched, &st->plan);
	if (e->sched.stuck)
		end_stuck(e);
	if (!st->plan.n)
		return false;
	queue(e, st);
	e->flying = st;
	return true;
}

bool step_run(struct engine *e)
{
	uint64_t begin = now_ns();
	bool first = !e->flying;

	e->device_ns = 0;
	if (first && !queue_first(e))
		return false;
	if (ahead_early(e, e->flying, begin)) {
		if (first)
			e->own_ns += now_ns() - begin - e->device_ns;
		return true;
	}
	finish(e, e->flying, queue_next(e, e->flying));
	own_end(e, begin);
	return true;
}
