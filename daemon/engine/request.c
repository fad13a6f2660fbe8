/* SPDX-License-Identifier: Apache-2.0 */
/*
 * request.c - a request's life, from its record to the one way out.
 *
 * A request with n answers is n sequences. The first to run computes the prompt; when it is done,
 * the first token of every answer is drawn from the same row of logits, and only then do the
 * others enter the scheduler, where each finds the prompt (reuse.c). So does a sequence that was
 * preempted, or whose request is resumed.
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
			    const struct wshm_desc *desc, uint32_t n_append)
{
	struct request *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->session = s;
	r->tenant = tenant_get(e, s->tenant);
	r->slot = slot;
	r->generation = generation;
	r->desc = *desc;
	r->n_prompt = r->n_client = desc->prompt.tokens;
	r->activation = WSHM_NO_ACTIVATION;
	r->n_live = desc->n;
	r->deadline_ns = NO_DEADLINE;
	wshm_slab_layout(&r->lay, desc->n, desc->max_tokens, r->n_client, desc->logprobs,
			 desc->prompt_logprobs);
	r->prompt = malloc((r->n_prompt + n_append) * sizeof(*r->prompt));
	r->samples = calloc(desc->n, sizeof(*r->samples));
	if (!r->prompt || !r->samples)
		goto fail;
	for (uint32_t i = 0; i < desc->n; i++) {
		struct sample *a = &r->samples[i];

		a->req = r;
		a->index = i;
		if (block_table_init(&a->seq.table,
				     blocks_for(r->n_prompt + n_append + desc->max_tokens)))
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
	free(r->prompt_counts);
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

/* Age is by arrival, on a clock that goes on over restarts; those of one engine differ. */
void request_link(struct engine *e, struct request *r)
{
	uint64_t order = r->arrival_ns * WSHM_MAX_SAMPLES;

	if (!r->order)
		r->order = order > e->next_order ? order : e->next_order;
	if (r->order >= e->next_order)
		e->next_order = r->order + WSHM_MAX_SAMPLES;
	if (r->adapter)
		r->adapter->requests++;
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

struct meter_use *request_use(struct engine *e, const struct request *r)
{
	return r->adapter ? &r->adapter->use : &e->meter.base;
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

	assert(position < r->n_prompt + a->n_out);
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
	reuse_chain(e, a);
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
	ahead_forget_sample(e, a);
	sched_remove(&e->sched, &a->seq);
}

static void request_leave(struct engine *e, struct request *r)
{
	struct session *s = r->session;

	ahead_forget_request(e, r);
	for (uint32_t i = 0; i < r->desc.n; i++)
		sched_remove(&e->sched, &r->samples[i].seq);
	if (r->suspect)
		recover_cleared(e, r);
	r->tenant->in_flight--;
	if (r->adapter)
		r->adapter->requests--;
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
	struct session *s = r->session;

	request_leave(e, r);
	publish_end(e, r, status, detail);
	request_free(r);
	if (s->pin)
		pin_ended(e, s, status, detail);
}

void request_drop(struct engine *e, struct request *r)
{
	if (!r->session->internal && !r->session->returns)
		e->meter.left++;
	request_leave(e, r);
	request_free(r);
}
