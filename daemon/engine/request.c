/* SPDX-License-Identifier: Apache-2.0 */
/*
 * request.c - a request's life, from its record to the one way out.
 *
 * A request with n answers is n sequences. The first to run computes the prompt; when it is done,
 * the first token of every answer is drawn from the same row of logits, and only then do the
 * others enter the scheduler: each shares the prompt's full blocks and copies the partial one.
 * A sequence that was preempted, or whose request is resumed, shares again with any sibling that
 * has the prompt at that moment, and waits while one is just computing it.
 *
 * However a request ends - tokens, cancel, deadline, death of the client, an offence - it goes
 * through request_leave(). Owned by the core thread.
 */
#include "daemon/engine/engine.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct request *request_new(struct engine *e, struct session *s, uint32_t slot, uint32_t generation,
			    const struct wshm_desc *desc)
{
	struct request *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->session = s;
	r->tenant = tenant_get(e, s->tenant);
	r->slot = slot;
	r->generation = generation;
	r->desc = *desc;
	r->n_prompt = desc->prompt.tokens;
	r->n_live = desc->n;
	r->deadline_ns = NO_DEADLINE;
	wshm_slab_layout(&r->lay, desc->n, desc->max_tokens, r->n_prompt, desc->logprobs,
			 desc->prompt_logprobs);
	r->prompt = malloc(r->n_prompt * sizeof(*r->prompt));
	r->samples = calloc(desc->n, sizeof(*r->samples));
	if (!r->prompt || !r->samples)
		goto fail;
	for (uint32_t i = 0; i < desc->n; i++) {
		struct sample *a = &r->samples[i];

		a->req = r;
		a->index = i;
		if (block_table_init(&a->seq.table, blocks_for(r->n_prompt + desc->max_tokens)))
			goto fail;
	}
	return r;
fail:
	request_free(r);
	return NULL;
}

void request_free(struct request *r)
{
	if (!r)
		return;
	for (uint32_t i = 0; r->samples && i < r->desc.n; i++) {
		block_table_fini(&r->samples[i].seq.table);
		free(r->samples[i].counts);
	}
	free(r->samples);
	free(r->bias);
	free(r->resume);
	free(r->prompt);
	free(r);
}

int request_prepare(struct engine *e, struct request *r)
{
	const struct wshm_desc *d = &r->desc;
	uint32_t n_eos = d->ignore_eos ? 0 : e->n_eos;
	uint32_t n_forbidden = d->min_tokens ? d->n_stop_tokens + n_eos : 0;
	uint32_t n = 0;

	r->n_bias = d->n_bias;
	r->n_bias_forbidden = d->n_bias + n_forbidden;
	if (!r->n_bias_forbidden)
		return 0;
	r->bias = calloc(r->n_bias_forbidden, sizeof(*r->bias));
	if (!r->bias)
		return -ENOMEM;
	for (; n < d->n_bias; n++)
		r->bias[n] = (struct wk_bias){d->bias[n].token, d->bias[n].value};
	for (uint32_t i = 0; i < d->n_stop_tokens && n_forbidden; i++)
		r->bias[n++] = (struct wk_bias){d->stop_tokens[i], -__builtin_inff()};
	for (uint32_t i = 0; i < n_eos && n_forbidden; i++)
		r->bias[n++] = (struct wk_bias){e->eos[i], -__builtin_inff()};
	return 0;
}

void request_link(struct engine *e, struct request *r)
{
	r->order = e->next_order;
	e->next_order += WSHM_MAX_SAMPLES;
	r->tenant->in_flight++;
	r->tenant->queued_tokens += r->n_prompt;
	r->queued_charged = true;
	r->prev = NULL;
	r->next = e->requests;
	if (r->next)
		r->next->prev = r;
	e->requests = r;
	e->n_requests++;
	if (r->deadline_ns < e->next_deadline_ns)
		e->next_deadline_ns = r->deadline_ns;
}

uint32_t *request_out(const struct sample *a)
{
	const struct request *r = a->req;

	return (uint32_t *)(wshm_engine_rx_arena(&r->session->shm) + r->slab_off +
			    a->index * r->lay.sample_bytes);
}

uint32_t request_token(const struct sample *a, uint32_t position)
{
	const struct request *r = a->req;

	return position < r->n_prompt ? r->prompt[position]
				      : request_out(a)[position - r->n_prompt];
}

static void sample_enter(struct engine *e, struct sample *a)
{
	struct request *r = a->req;

	a->seq.tenant = r->session->tenant;
	a->seq.priority = r->desc.priority;
	a->seq.order = r->order + a->index;
	a->seq.group = r->order + 1; /* never 0 */
	a->seq.target = r->n_prompt + a->n_out;
	sched_add(&e->sched, &a->seq);
}

void request_start(struct engine *e, struct request *r)
{
	bool fresh = true;

	for (uint32_t i = 0; i < r->desc.n; i++)
		fresh = fresh && !r->samples[i].n_out;
	for (uint32_t i = 0; i < r->desc.n; i++) {
		struct sample *a = &r->samples[i];

		if (!a->done && a->seq.state == SCHED_OUT)
			sample_enter(e, a);
		if (fresh)
			break;
	}
}

void request_sample_done(struct engine *e, struct sample *a, enum wshm_finish finish)
{
	a->finish = finish;
	a->done = true;
	a->req->n_live--;
	sched_remove(&e->sched, &a->seq);
}

static void request_leave(struct engine *e, struct request *r)
{
	struct session *s = r->session;

	for (uint32_t i = 0; i < r->desc.n; i++)
		sched_remove(&e->sched, &r->samples[i].seq);
	if (r->suspect)
		recover_cleared(e, r);
	r->tenant->in_flight--;
	if (r->queued_charged)
		r->tenant->queued_tokens -= r->n_prompt;
	if (r->prev)
		r->prev->next = r->next;
	else
		e->requests = r->next;
	if (r->next)
		r->next->prev = r->prev;
	e->n_requests--;
	if (s->slots[r->slot].req == r)
		s->slots[r->slot].req = NULL;
	if (s->pending == r)
		s->pending = NULL;
}

void request_end(struct engine *e, struct request *r, enum wshm_status status, uint32_t detail)
{
	request_leave(e, r);
	publish_end(e, r, status, detail);
	request_free(r);
}

void request_drop(struct engine *e, struct request *r)
{
	request_leave(e, r);
	request_free(r);
}

/* --- sharing the prompt --------------------------------------------------------------------------*/

/* Positions of the prompt that a sample can take over: its last known one is always computed. */
static uint32_t shareable(const struct sample *a)
{
	uint32_t most = a->seq.target - 1;

	return most < a->req->n_prompt ? most : a->req->n_prompt;
}

static struct sample *donor(const struct sample *a, bool *ret_soon)
{
	struct request *r = a->req;

	*ret_soon = false;
	for (uint32_t i = 0; i < r->desc.n; i++) {
		struct sample *b = &r->samples[i];

		if (b == a || b->seq.state != SCHED_RUNNING)
			continue;
		if (b->seq.computed >= shareable(a))
			return b;
		*ret_soon = true;
	}
	return NULL;
}

uint32_t request_probe(void *engine, struct sched_seq *q)
{
	struct sample *a = sample_of(q);
	bool soon;

	(void)engine;
	if (donor(a, &soon))
		return shareable(a) / WK_BLOCK_TOKENS;
	return soon ? SCHED_HOLD : 0;
}

void request_adopt(void *engine, struct sched_seq *q)
{
	struct engine *e = engine;
	struct sample *a = sample_of(q), *b;
	uint32_t positions = shareable(a), full = positions / WK_BLOCK_TOKENS;
	uint32_t rows = positions % WK_BLOCK_TOKENS;
	bool soon;

	b = donor(a, &soon);
	if (!b || !positions)
		return;
	block_table_share(&q->table, &e->blocks, &b->seq.table, full);
	if (rows) {
		bool room = block_table_grow(&q->table, &e->blocks, full + 1);

		assert(room); /* the scheduler has counted it */
		(void)room;
		e->ops->kv_copy_rows(e->be, e->pool_buf, b->seq.table.blocks[full],
				     q->table.blocks[full], rows);
	}
	q->computed = positions;
	if (q->charged < positions)
		q->charged = positions; /* the sibling has paid */
}
