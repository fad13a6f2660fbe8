/* SPDX-License-Identifier: Apache-2.0 */
/*
 * recover.c - an engine that was killed leaves its requests in the sessions' regions; this one
 * goes on with them.
 *
 * rx says which slots are in use, where their results lie, how many tokens are out and what was
 * drawn at random; only engines write it, so it is believed. tx says what was asked; clients write
 * it, so it is fetched and checked anew, and must still be, by its digest, what was admitted. The
 * sequence is then prompt + published tokens; whatever lies beyond the counts is written again,
 * with the same values, because positions draw from (seed, sample, position) alone.
 *
 * Poison. slot.restarts counts the crashes that a started request has seen since its last token; an
 * engine that was killed from outside has not crashed.
 * From the second on it is a suspect: suspects compute alone, one request at a time, until each
 * has got a token or has ended. While one is in a pass alone its slot carries RESTARTS_ALONE; an
 * engine that finds this mark at recovery has its culprit and ends it with WSHM_ENGINE_FAULT.
 */
#include "daemon/engine/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SUSPECT_AFTER 2

static bool sound_slot(const struct wshm_slot *w, const struct request *r)
{
	uint64_t slab_bytes = ord_load(&w->slab_bytes);

	return w->n_samples == r->desc.n && (slab_bytes == r->lay.bytes || !slab_bytes) &&
	       w->sample_bytes == r->lay.sample_bytes && w->logprob_off == r->lay.logprob_off &&
	       w->prompt_logprob_off == r->lay.prompt_logprob_off &&
	       w->max_tokens == r->desc.max_tokens && w->prompt_tokens == r->n_client &&
	       w->desc_bytes == r->desc_bytes && w->digest[0] == r->digest[0] &&
	       w->digest[1] == r->digest[1];
}

/* Resumed tokens stand in the slab whatever the counts say, but may not have been all copied. */
static void take_resumed(struct request *r)
{
	const uint32_t *from = r->resume;

	for (uint32_t i = 0; i < r->desc.n_resume; i++) {
		uint32_t n = r->desc.resume[i].tokens;

		if (!n)
			continue;
		memcpy(request_out(&r->samples[i]), from, n * sizeof(*from));
		from += n;
		r->samples[i].n_out = n;
	}
}

static void sample_recover(struct engine *e, const struct wshm_slot *w, struct sample *a)
{
	struct request *r = a->req;
	uint32_t count = ord_load(&w->count[a->index]);

	if (count > a->n_out)
		a->n_out = count;
	a->finish = ord_load(&w->finish[a->index]);
	if (!a->finish && a->n_out)
		a->finish = stop_check(&r->desc, e->eos, e->n_eos, request_out(a), a->n_out);
	if (a->finish) {
		a->done = true;
		r->n_live--;
	}
}

/* As old as it is: the age that it arrived at, and not that of another. */
static uint64_t order_of(const struct engine *e, uint64_t arrival_ns)
{
	uint64_t order = arrival_ns * WSHM_MAX_SAMPLES;
	const struct request *r = e->requests;

	while (r) {
		if (r->order != order) {
			r = r->next;
			continue;
		}
		order += WSHM_MAX_SAMPLES;
		r = e->requests;
	}
	return order;
}

/* It had no room for its results. There may be some by now, once all who have theirs are here. */
static bool wait_for_room(struct engine *e, struct session *s, struct request *r)
{
	if (s->pending) {
		request_free(r);
		session_offence(e, s, "two requests wait for room");
		return false;
	}
	request_link(e, r);
	s->slots[r->slot].req = r;
	s->pending = r;
	s->pending_seen = s->slabs_freed - 1;
	e->count.recovered++;
	return true;
}

/* A request that the earlier engine had not ended. False: the session is over. */
static bool recover_request(struct engine *e, struct session *s, uint32_t slot, struct wshm_slot *w,
			    bool crashed)
{
	uint32_t generation = ord_load(&w->generation), detail, restarts = w->restarts;
	struct request *r = NULL;
	int rc = admit_fetch(e, s, slot, generation, w, &r, &detail);

	if (rc == -ENOMEM) {
		log_line(LOG_LEVEL_ERROR, "event=recover-failed reason=memory");
		abort(); /* the next engine may have more */
	}
	if (rc == WSHM_CANCELLED) { /* given back this very moment */
		session_slot_release(e, s, slot);
		return true;
	}
	/* weftd sends every adapter again but one that was unloaded by force as the engine went. */
	if (rc == WSHM_NO_ADAPTER && !e->loads_failed)
		rc = WSHM_UNLOADED;
	/* Gone since, and nothing else would answer the same; or this engine found less memory. */
	if (rc == WSHM_NO_ADAPTER || rc == WSHM_UNLOADED || rc == WSHM_TOO_BIG) {
		publish_lost(e, s, slot, (enum wshm_status)rc);
		return true;
	}
	if (rc || !sound_slot(w, r)) {
		request_free(r);
		session_offence(e, s, "request changed since its engine was killed");
		return false;
	}
	r->slab_off = ord_load(&w->slab_off);
	r->arrival_ns = w->t_arrival_ns;
	r->order = order_of(e, r->arrival_ns);
	if (r->arrival_ns > s->last_arrival_ns)
		s->last_arrival_ns = r->arrival_ns;
	r->deadline_ns = w->deadline_ns ? w->deadline_ns : NO_DEADLINE;
	r->seed = w->seed;
	if (!ord_load(&w->slab_bytes))
		return wait_for_room(e, s, r);
	r->placed = true;
	r->forward_ns = ord_load(&w->forward_ns);
	r->prompt_ready = ord_load(&w->prompt_count);
	r->first_done = ord_load(&w->t_first_ns) != 0;
	take_resumed(r);
	for (uint32_t i = 0; i < r->desc.n; i++)
		sample_recover(e, w, &r->samples[i]);
	request_link(e, r);
	s->slots[slot].req = r;
	e->count.recovered++;
	if (!r->n_live) {
		request_end(e, r, WSHM_OK, 0);
		return true;
	}
	if ((restarts & RESTARTS_ALONE) && crashed) {
		e->count.faults++;
		log_line(LOG_LEVEL_ERROR, "event=engine-fault session=%llu slot=%u",
			 (unsigned long long)s->id, slot);
		request_end(e, r, WSHM_ENGINE_FAULT, restarts & ~RESTARTS_ALONE);
		return true;
	}
	restarts &= ~RESTARTS_ALONE;
	if (crashed && ord_load(&w->state) == WSHM_SLOT_RUNNING)
		restarts++;
	publish_restarts(r, restarts);
	if (restarts >= SUSPECT_AFTER) {
		r->suspect = true;
		e->n_suspects++;
	}
	request_start(e, r);
	return true;
}

bool recover_session(struct engine *e, struct session *s, enum wlink_resume resume)
{
	for (uint32_t slot = 0; slot < s->shm.layout.params.slots; slot++) {
		struct wshm_slot *w = wshm_engine_slot(&s->shm, slot);
		uint32_t state = ord_load(&w->state), generation = ord_load(&w->generation);
		struct wshm_req_copy copy;

		if (state == WSHM_SLOT_FREE || !generation)
			continue;
		wshm_engine_fetch_req(&s->shm, slot, &copy);
		/* Given back, or reused already, which says the same. */
		if (copy.generation != generation ||
		    wshm_engine_released(&s->shm, slot, generation)) {
			publish_free(s, slot);
			continue;
		}
		session_slot_use(s, slot, generation, NULL);
		if (ord_load(&w->slab_bytes)) {
			if (slab_take(&s->slabs, ord_load(&w->slab_off),
				      ord_load(&w->slab_bytes))) {
				session_offence(e, s, "results of an earlier engine overlap");
				return false;
			}
			s->slots[slot].has_slab = true;
			s->slots[slot].slab_off = ord_load(&w->slab_off);
		}
		if (state != WSHM_SLOT_ENDED &&
		    !recover_request(e, s, slot, w, resume == WLINK_RESUME_CRASHED))
			return false;
	}
	return true;
}

/* --- suspects ------------------------------------------------------------------------------------*/

void recover_cleared(struct engine *e, struct request *r)
{
	r->suspect = false;
	e->n_suspects--;
	if (e->sched.only == r->order + 1)
		e->sched.only = 0;
}

void recover_quarantine(struct engine *e)
{
	struct request *oldest = NULL;

	if (!e->n_suspects || e->sched.only)
		return;
	for (struct request *r = e->requests; r; r = r->next)
		if (r->suspect && (!oldest || r->order < oldest->order))
			oldest = r;
	e->sched.only = oldest->order + 1;
}
