/* SPDX-License-Identifier: Apache-2.0 */
/*
 * publish.c - what clients see: slots, tokens and log-probabilities in rx.
 *
 * The engine is the only writer. Tokens and log-probabilities are plain stores into the slab; the
 * counts, stored with release by publish_counts() once per step, make them visible. A slot's
 * state and its generation come last of all, so an engine that is killed between any two stores
 * leaves behind something that recover.c understands (see wshm_slot_admit()).
 *
 * Waking a client that sleeps takes tens of microseconds on a virtual machine, most of them in the
 * host. So publications only note whom to wake, and after a pass a compute thread makes the calls
 * while the core thread goes on to the next pass. What is gathered outside of a pass, or when no
 * thread is awake and free, the core thread does itself; and after a pass that gave a first token,
 * if there are no more than URGENT_WAKES, because its own calls are seen sooner. How many words are
 * waited at is the clients' choice, a thousand and more each: so one pass makes WSHM_MAX_WAKES calls
 * at most, of which every session has a share, and what is over waits for the next pass.
 */
#include "daemon/engine/engine.h"

#include <string.h>

#define URGENT_WAKES 2u /* calls of 15 to 20 us each, which delay the next pass */

static struct wshm_slot *slot_of(struct request *r)
{
	return wshm_engine_slot(&r->session->shm, r->slot);
}

static void slot_clear(struct wshm_slot *s)
{
	ord_store(&s->status, WSHM_OK);
	ord_store(&s->detail, 0);
	wshm_slot_set_prompt_count(s, 0);
	for (uint32_t i = 0; i < WSHM_MAX_SAMPLES; i++) {
		wshm_slot_set_count(s, i, 0);
		ord_store(&s->finish[i], WSHM_FINISH_NONE);
	}
	s->n_samples = 0;
	wshm_slot_set_slab(s, 0, 0);
	s->sample_bytes = 0;
	s->logprob_off = s->prompt_logprob_off = 0;
	s->logprob_bytes = s->prompt_logprob_bytes = 0;
	s->max_tokens = s->prompt_tokens = 0;
	ord_store(&s->cached_tokens, 0);
	s->t_arrival_ns = now_ns();
	ord_store(&s->t_start_ns, 0);
	ord_store(&s->t_first_ns, 0);
	ord_store(&s->t_end_ns, 0);
	ord_store(&s->forward_ns, 0);
	s->seed = s->digest[0] = s->digest[1] = s->deadline_ns = 0;
	s->activation = UINT64_MAX;
	s->adapter_instance = 0;
	s->invocation = WSHM_INVOCATION_NONE;
	s->desc_bytes = s->restarts = s->resumed_tokens = 0;
}

void publish_admitted(struct request *r)
{
	struct wshm_slot *s = slot_of(r);

	slot_clear(s);
	s->n_samples = r->desc.n;
	if (r->placed)
		wshm_slot_set_slab(s, r->slab_off, r->lay.bytes);
	s->sample_bytes = r->lay.sample_bytes;
	s->logprob_off = r->lay.logprob_off;
	s->prompt_logprob_off = r->lay.prompt_logprob_off;
	s->logprob_bytes = r->lay.logprob_bytes;
	s->prompt_logprob_bytes = r->lay.prompt_logprob_bytes;
	s->max_tokens = r->desc.max_tokens;
	s->prompt_tokens = r->n_client;
	s->invocation = r->invocation;
	s->activation = r->activation == WSHM_NO_ACTIVATION ? UINT64_MAX : r->activation;
	s->adapter_instance = r->adapter ? r->adapter->instance.digest[0] : 0;
	s->t_arrival_ns = r->arrival_ns;
	s->seed = r->seed;
	s->digest[0] = r->digest[0];
	s->digest[1] = r->digest[1];
	s->deadline_ns = r->deadline_ns == NO_DEADLINE ? 0 : r->deadline_ns;
	s->desc_bytes = r->desc_bytes;
	s->resumed_tokens = r->desc.n_resume ? r->desc.resume[0].tokens : 0;
	for (uint32_t i = 0; i < r->desc.n; i++) {
		wshm_slot_set_count(s, i, r->samples[i].n_out);
		ord_store(&s->finish[i], r->samples[i].finish);
	}
	wshm_slot_admit(s, r->generation, WSHM_SLOT_QUEUED);
}

void publish_placed(struct request *r)
{
	struct wshm_slot *s = slot_of(r);

	wshm_slot_set_slab(s, r->slab_off, r->lay.bytes);
	for (uint32_t i = 0; i < r->desc.n; i++) {
		wshm_slot_set_count(s, i, r->samples[i].n_out);
		wshm_slot_set_finish(s, i, (uint8_t)r->samples[i].finish);
	}
}

/* A request of a client's, from its beginning: of one that an earlier daemon began these are not its times. */
static bool timed(const struct request *r)
{
	return !r->session->internal && !r->desc.n_resume;
}

bool publish_started(struct engine *e, struct request *r, uint64_t now)
{
	struct wshm_slot *s = slot_of(r);
	bool started = ord_load(&s->t_start_ns) != 0;

	/* A request that is resumed keeps the time of its first start, and what it found then. */
	if (!started) {
		/* Of the client's own prompt; what was appended may have been found too. */
		ord_store(&s->cached_tokens, r->cached < r->n_client ? r->cached : r->n_client);
		ord_store(&s->t_start_ns, now);
		if (timed(r))
			meter_time(&e->meter, METER_QUEUE, s->t_arrival_ns, now);
	}
	wshm_slot_set_state(s, WSHM_SLOT_RUNNING);
	return !started;
}

static void write_entry(uint8_t *at, uint32_t bytes, const struct wk_sampled *drawn)
{
	struct wshm_logprob entry = {drawn->token, drawn->logprob};
	uint32_t top = bytes / (uint32_t)sizeof(entry) - 1;

	memcpy(at, &entry, sizeof(entry));
	for (uint32_t i = 0; i < top; i++) {
		entry = (struct wshm_logprob){drawn->top_tokens[i], drawn->top_logprobs[i]};
		memcpy(at + (i + 1) * sizeof(entry), &entry, sizeof(entry));
	}
}

void publish_token(struct sample *a, const struct wk_sampled *drawn)
{
	const struct wshm_slab_layout *lay = &a->req->lay;
	uint8_t *part = (uint8_t *)request_out(a) + lay->logprob_off;
	uint32_t index = a->n_out++;

	request_out(a)[index] = drawn->token;
	if (lay->logprob_bytes)
		write_entry(part + (uint64_t)index * lay->logprob_bytes, lay->logprob_bytes, drawn);
}

void publish_prompt_logprobs(struct request *r, uint32_t index, const struct wk_sampled *drawn)
{
	const struct wshm_slab_layout *lay = &r->lay;
	uint8_t *part = wshm_engine_rx_arena(&r->session->shm) + r->slab_off;

	write_entry(part + lay->prompt_logprob_off + (uint64_t)index * lay->prompt_logprob_bytes,
		    lay->prompt_logprob_bytes, drawn);
	if (r->prompt_ready <= index)
		r->prompt_ready = index + 1;
}

static void meter_first(struct meter *m, const struct wshm_slot *s, uint64_t now)
{
	meter_time(m, METER_FIRST, s->t_arrival_ns, now);
	meter_time(m, METER_PREFILL, ord_load(&s->t_start_ns), now);
}

void publish_counts(struct engine *e, struct request *r, uint64_t now)
{
	struct wshm_slot *s = slot_of(r);
	bool first = false;

	/* First: an engine that finds all tokens there computes the prompt no more. */
	wshm_slot_set_prompt_count(s, r->prompt_ready);
	for (uint32_t i = 0; i < r->desc.n; i++) {
		struct sample *a = &r->samples[i];

		wshm_slot_set_count(s, i, a->n_out);
		if (a->done)
			wshm_slot_set_finish(s, i, a->finish);
		first = first || a->n_out;
	}
	if (first && !r->first_done) {
		r->first_done = true;
		e->first_token = true;
		if (!ord_load(&s->t_first_ns)) {
			ord_store(&s->forward_ns, r->forward_ns);
			ord_store(&s->t_first_ns, now);
			if (timed(r))
				meter_first(&e->meter, s, now);
		}
	}
	/* A request that ends in this step is published once, by publish_end(). */
	if (r->n_live && !r->end_status)
		wshm_engine_post(&r->session->shm, r->slot);
}

/* By whoever makes the calls. */
static void wake_lent(void *engine)
{
	struct engine *e = engine;

	wshm_wakes_run(&e->waking);
	/* L1: pairs with L2 in publish_wake(): the list may be written again. */
	ord_store_release(&e->waking_lent, false);
}

/* Of n sessions that have sleepers to be woken each gets the same; then whoever has more. */
static void gather(struct engine *e, uint32_t n)
{
	uint32_t share = n < WSHM_MAX_WAKES ? WSHM_MAX_WAKES / n : 1;
	uint32_t skip = n > WSHM_MAX_WAKES ? e->wake_turn % n : 0;
	struct session *s;

	if (n > WSHM_MAX_WAKES)
		e->wake_turn += WSHM_MAX_WAKES;
	for (s = e->sessions; s; s = s->next) {
		if (!s->shm.n_owed)
			continue;
		if (skip)
			skip--;
		else
			wshm_engine_gather(&s->shm, &e->wakes, share);
	}
	e->wakes_owed = false;
	for (s = e->sessions; s; s = s->next) {
		wshm_engine_gather(&s->shm, &e->wakes, WSHM_MAX_WAKES);
		e->wakes_owed |= s->shm.n_owed != 0;
	}
}

void publish_wake(struct engine *e, bool busy)
{
	bool urgent = e->first_token;
	uint32_t n = 0;

	e->first_token = false;
	for (struct session *s = e->sessions; s; s = s->next) {
		if (wshm_engine_wake(&s->shm))
			session_ring_bell(e, s);
		n += s->shm.n_owed != 0;
	}
	e->wakes_owed = false;
	if (n)
		gather(e, n);
	if (!e->wakes.n)
		return;
	urgent = urgent && e->wakes.n <= URGENT_WAKES;
	/* L2: pairs with L1 in wake_lent(): it has been read to its end. */
	if (busy && !urgent && e->ops->aside && !ord_load_acquire(&e->waking_lent)) {
		e->waking.n = e->wakes.n;
		memcpy(e->waking.words, e->wakes.words, e->wakes.n * sizeof(e->wakes.words[0]));
		ord_store(&e->waking_lent, true);
		if (e->ops->aside(e->be, wake_lent, e)) {
			e->wakes.n = 0;
			return;
		}
		ord_store(&e->waking_lent, false);
	}
	wshm_wakes_run(&e->wakes);
}

void publish_wake_end(struct engine *e)
{
	if (e->ops->aside_end)
		e->ops->aside_end(e->be);
}

/* Tokens of an answer that an earlier daemon delivered. */
static uint32_t resumed(const struct request *r, uint32_t sample)
{
	return sample < r->desc.n_resume ? r->desc.resume[sample].tokens : 0;
}

/* Times and sizes of what was broken off say nothing. */
static void meter_end(struct meter *m, const struct request *r, const struct wshm_slot *s,
		      enum wshm_status status, uint64_t now)
{
	uint32_t n_out = 0;

	m->ended[status]++;
	for (uint32_t i = 0; i < r->desc.n; i++) {
		n_out += r->samples[i].n_out - resumed(r, i);
		if (r->samples[i].done)
			m->finished[r->samples[i].finish]++;
	}
	if (status)
		return;
	if (timed(r)) {
		meter_time(m, METER_DECODE, ord_load(&s->t_first_ns), now);
		meter_time(m, METER_WHOLE, s->t_arrival_ns, now);
	}
	meter_size(m, METER_PROMPT, r->n_prompt);
	meter_size(m, METER_ANSWER, n_out);
}

void publish_end(struct engine *e, struct request *r, enum wshm_status status, uint32_t detail)
{
	struct wshm_slot *s = slot_of(r);
	uint64_t now = now_ns();

	if (!r->session->internal)
		meter_end(&e->meter, r, s, status, now);
	ord_store(&s->status, (uint32_t)status);
	ord_store(&s->detail, detail);
	ord_store(&s->t_end_ns, now);
	wshm_slot_set_state(s, WSHM_SLOT_ENDED);
	wshm_engine_post(&r->session->shm, r->slot);
}

void publish_refusal(struct engine *e, struct session *s, uint32_t slot, uint32_t generation,
		     enum wshm_status status, uint32_t detail)
{
	struct wshm_slot *w = wshm_engine_slot(&s->shm, slot);

	e->meter.ended[status]++;
	slot_clear(w);
	ord_store(&w->status, (uint32_t)status);
	ord_store(&w->detail, detail);
	ord_store(&w->t_end_ns, w->t_arrival_ns);
	wshm_slot_admit(w, generation, WSHM_SLOT_ENDED);
	wshm_engine_accept(&s->shm);
	wshm_engine_post(&s->shm, slot);
}

void publish_lost(struct engine *e, struct session *s, uint32_t slot, enum wshm_status status)
{
	struct wshm_slot *w = wshm_engine_slot(&s->shm, slot);

	e->meter.ended[status]++;
	ord_store(&w->status, (uint32_t)status);
	ord_store(&w->detail, 0);
	ord_store(&w->t_end_ns, now_ns());
	wshm_slot_set_state(w, WSHM_SLOT_ENDED);
	wshm_engine_post(&s->shm, slot);
}

void publish_free(struct session *s, uint32_t slot)
{
	wshm_slot_set_state(wshm_engine_slot(&s->shm, slot), WSHM_SLOT_FREE);
}

void publish_restarts(struct request *r, uint32_t restarts)
{
	r->restarts = restarts & ~RESTARTS_ALONE;
	slot_of(r)->restarts = restarts;
}
