/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admit.c - from a ring entry to a request.
 *
 * Everything that a client wrote is fetched once into private memory and checked there: record,
 * descriptor, prompt. What can never be served is refused at once, by status; what breaks the
 * protocol ends the session; what only lacks room for its results waits as the session's pending
 * request, in its slot but without a slab, and holds up the entries behind it and nobody else. Owned by the
 * core thread.
 */
#include "daemon/engine/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* Work per session and round: a few requests, or one large prompt. */
#define ROUND_ENTRIES 16
#define ROUND_TOKENS  16384

static int refuse(uint32_t *ret_detail, enum wshm_status status, uint32_t detail)
{
	*ret_detail = detail;
	return (int)status;
}

/* Is there room for so long a prompt and its answer, ever? 0 or a status. */
static int check_length(const struct engine *e, const struct adapter_handle *h,
			const struct wshm_desc *d, uint64_t n_prompt, uint32_t *ret_detail)
{
	uint32_t max = e->config->max_positions;
	uint64_t blocks;

	if (n_prompt + d->max_tokens > max)
		return refuse(ret_detail, WSHM_TOO_LONG, max);
	/* The last token has no KV; the adapter's weights are in the pool too. */
	blocks = blocks_for((uint32_t)n_prompt + d->max_tokens - 1);
	blocks += h ? h->weights->node.n_blocks : 0;
	if (blocks > e->blocks.n)
		return refuse(ret_detail, WSHM_TOO_BIG, (uint32_t)blocks);
	return 0;
}

/* Values that depend on the model. 0 or a status. */
static int check_model(const struct engine *e, const struct wshm_desc *d, uint32_t *ret_detail)
{
	uint32_t vocab = e->config->vocab;

	if (d->model[0] && strcmp(d->model, e->opt.name) != 0)
		return refuse(ret_detail, WSHM_NO_MODEL, 0);
	for (uint32_t i = 0; i < d->n_stop_tokens; i++)
		if (d->stop_tokens[i] >= vocab)
			return refuse(ret_detail, WSHM_BAD_VALUE, WSHM_KEY_STOP_TOKENS);
	for (uint32_t i = 0; i < d->n_bias; i++)
		if (d->bias[i].token >= vocab)
			return refuse(ret_detail, WSHM_BAD_VALUE, WSHM_KEY_BIAS);
	return 0;
}

/* Prompt and resumed tokens into private memory. 0, a status or -ENOMEM. */
static int fetch_tokens(struct engine *e, struct request *r, uint32_t *ret_detail)
{
	const struct wshm_engine *shm = &r->session->shm;
	const struct wshm_desc *d = &r->desc;
	uint32_t vocab = e->config->vocab, total = 0;

	e->fetched_tokens += r->n_prompt;
	if (wshm_engine_fetch_u32(shm, d->prompt.off, r->prompt, r->n_prompt))
		return refuse(ret_detail, WSHM_BAD_VALUE, WSHM_KEY_PROMPT);
	for (uint32_t i = 0; i < r->n_prompt; i++) {
		if (r->prompt[i] >= vocab)
			return refuse(ret_detail, WSHM_BAD_TOKEN, i);
		r->crash_test = r->crash_test || r->prompt[i] == e->opt.crash_token;
	}
	for (uint32_t i = 0; i < d->n_resume; i++)
		total += d->resume[i]
				 .tokens; /* each at most max_tokens, so at most 16 models long */
	if (!total)
		return 0;
	e->fetched_tokens += total;
	r->resume = malloc(total * sizeof(*r->resume));
	if (!r->resume)
		return -ENOMEM;
	total = 0;
	for (uint32_t i = 0; i < d->n_resume; i++) {
		uint32_t n = d->resume[i].tokens;

		if (n && wshm_engine_fetch_u32(shm, d->resume[i].off, r->resume + total, n))
			return refuse(ret_detail, WSHM_BAD_VALUE, WSHM_KEY_RESUME);
		total += n;
	}
	for (uint32_t i = 0; i < total; i++)
		if (r->resume[i] >= vocab)
			return refuse(ret_detail, WSHM_BAD_VALUE, WSHM_KEY_RESUME);
	return 0;
}

/* --- adapters -------------------------------------------------------------------------------------*/

/* Which adapter; *ret NULL: none. 0 or a status. */
static int find_adapter(const struct engine *e, const struct wshm_desc *d,
			const struct wshm_slot *earlier, struct adapter_handle **ret,
			uint32_t *ret_detail)
{
	*ret = NULL;
	if (!d->adapter[0])
		return 0;
	/* Names may have changed hands since it was admitted; or it runs as the base model. */
	if (earlier && !earlier->adapter_instance)
		return 0;
	/* Of several names for the same content, the one that was named: it is what keeps the request. */
	*ret = adapters_find(e, d->adapter, earlier ? earlier->adapter_instance : d->instance);
	if (earlier && !*ret)
		*ret = adapters_by_instance(e, earlier->adapter_instance);
	return *ret ? 0 : refuse(ret_detail, WSHM_NO_ADAPTER, 0);
}

static void append_invocation(struct request *r, const struct wshm_instance *in)
{
	memcpy(r->prompt + r->n_client, in->invocation, in->n_invocation * sizeof(*r->prompt));
	r->n_prompt = r->n_client + in->n_invocation;
	r->invocation = WSHM_INVOCATION_APPENDED;
}

/* A request of an earlier engine keeps what that one decided. 0 or WSHM_PROTOCOL. */
static int take_activation(struct request *r, struct adapter_handle *h,
			   const struct wshm_slot *earlier)
{
	r->invocation = (enum wshm_invocation)earlier->invocation;
	r->adapter = h;
	if (!h)
		return 0;
	if (r->invocation == WSHM_INVOCATION_APPENDED)
		append_invocation(r, &h->instance);
	if (earlier->activation > r->n_prompt)
		return WSHM_PROTOCOL;
	r->activation = (uint32_t)earlier->activation;
	return 0;
}

/* From which position on is the adapter's? 0 or a status. */
static int find_activation(struct request *r, struct adapter_handle *h, uint32_t *ret_detail)
{
	const struct wshm_instance *in = &h->instance;
	uint32_t a = wshm_activation(r->prompt, r->n_prompt, in->invocation, in->n_invocation,
				     in->offset);

	r->invocation = in->activated ? WSHM_INVOCATION_FOUND : WSHM_INVOCATION_NONE;
	if (a == WSHM_NO_ACTIVATION && in->on_missing == WSHM_MISSING_ERROR)
		return refuse(ret_detail, WSHM_NO_INVOCATION, 0);
	/* Who insists on an instance goes on with what it has of it: the base model would not. */
	if (a == WSHM_NO_ACTIVATION && in->on_missing == WSHM_MISSING_BASE && r->desc.instance)
		return refuse(ret_detail, WSHM_NO_INVOCATION, 0);
	if (a == WSHM_NO_ACTIVATION && in->on_missing == WSHM_MISSING_BASE) {
		r->invocation = WSHM_INVOCATION_BASE;
		return 0;
	}
	if (a == WSHM_NO_ACTIVATION) {
		append_invocation(r, in);
		a = wshm_activation(r->prompt, r->n_prompt, in->invocation, in->n_invocation,
				    in->offset);
	}
	r->adapter = h;
	r->activation = a;
	return 0;
}

/* --- fetching -------------------------------------------------------------------------------------*/

static void request_digest(struct request *r, const uint8_t *desc)
{
	uint64_t n_resume = 0;
	XXH3_state_t *state = XXH3_createState();
	XXH128_hash_t h;

	if (!state)
		abort(); /* 576 bytes: nothing else would work either */
	for (uint32_t i = 0; i < r->desc.n_resume; i++)
		n_resume += r->desc.resume[i].tokens;
	XXH3_128bits_reset(state);
	XXH3_128bits_update(state, desc, r->desc_bytes);
	XXH3_128bits_update(state, r->prompt, r->n_client * sizeof(*r->prompt));
	if (n_resume)
		XXH3_128bits_update(state, r->resume, n_resume * sizeof(*r->resume));
	h = XXH3_128bits_digest(state);
	XXH3_freeState(state);
	r->digest[0] = h.low64;
	r->digest[1] = h.high64;
}

/* Everything about a decoded descriptor. 0 and *ret, a status or -ENOMEM. */
static int fetch_request(struct engine *e, struct session *s, uint32_t slot, uint32_t generation,
			 const struct wshm_desc *d, const struct wshm_slot *earlier,
			 struct request **ret, uint32_t *ret_detail)
{
	struct adapter_handle *h;
	struct request *r;
	int rc = check_model(e, d, ret_detail);

	if (!rc)
		rc = find_adapter(e, d, earlier, &h, ret_detail);
	if (!rc)
		rc = check_length(e, h, d, d->prompt.tokens, ret_detail);
	if (rc)
		return rc;
	r = request_new(e, s, slot, generation, d, h ? h->instance.n_invocation : 0);
	if (!r)
		return -ENOMEM;
	rc = fetch_tokens(e, r, ret_detail);
	if (!rc && earlier)
		rc = take_activation(r, h, earlier);
	else if (!rc && h)
		rc = find_activation(r, h, ret_detail);
	if (!rc && r->n_prompt != r->n_client)
		rc = check_length(e, h, d, r->n_prompt, ret_detail);
	if (!rc)
		rc = request_prepare(e, r);
	if (rc)
		request_free(r);
	else
		*ret = r;
	return rc;
}

int admit_fetch(struct engine *e, struct session *s, uint32_t slot, uint32_t generation,
		const struct wshm_slot *earlier, struct request **ret, uint32_t *ret_detail)
{
	struct wshm_req_copy copy;
	uint8_t bytes[WSHM_MAX_DESC];
	struct wshm_desc desc;
	int rc;

	*ret_detail = 0;
	wshm_engine_fetch_req(&s->shm, slot, &copy);
	/* Released before it was looked at, and the slot perhaps used again: nobody waits for it. */
	if (copy.generation != generation || wshm_engine_released(&s->shm, slot, generation))
		return WSHM_CANCELLED;
	if (!copy.desc_bytes || copy.desc_bytes > WSHM_MAX_DESC ||
	    wshm_engine_fetch(&s->shm, copy.desc_off, bytes, copy.desc_bytes))
		return WSHM_PROTOCOL;
	rc = wshm_desc_decode(&desc, bytes, copy.desc_bytes, ret_detail);
	if (rc)
		return rc == -ERANGE ? WSHM_BAD_VALUE : WSHM_BAD_DESCRIPTOR;
	rc = fetch_request(e, s, slot, generation, &desc, earlier, ret, ret_detail);
	if (rc)
		return rc;
	(*ret)->desc_bytes = copy.desc_bytes;
	request_digest(*ret, bytes);
	return 0;
}

/* --- quotas and room -----------------------------------------------------------------------------*/

/* Descriptors per second, with a burst of one second. */
static bool rate_exceeded(struct tenant *t, uint64_t now)
{
	uint64_t second = UINT64_C(1000000000), cost;

	if (!t->quota.max_rate)
		return false;
	cost = second / t->quota.max_rate;
	if (t->rate_ns + second < now)
		t->rate_ns = now - second;
	if (t->rate_ns + cost > now)
		return true;
	t->rate_ns += cost;
	return false;
}

static int check_quota(const struct request *r, uint32_t *ret_detail)
{
	const struct tenant *t = r->tenant;

	if (t->quota.max_in_flight && t->in_flight >= t->quota.max_in_flight)
		return refuse(ret_detail, WSHM_QUOTA_REQUESTS, t->quota.max_in_flight);
	if (t->quota.max_queued_tokens &&
	    (uint64_t)t->queued_tokens + r->n_prompt > t->quota.max_queued_tokens)
		return refuse(ret_detail, WSHM_QUOTA_TOKENS, t->quota.max_queued_tokens);
	return 0;
}

/*
 * A splitmix64 sequence from a random start. Clients see their seeds and can go back from one to
 * the state, so each session has its own: a common one would tell how many requests of others came
 * in between, and what is drawn for them.
 */
static uint64_t next_seed(struct session *s)
{
	uint64_t z = s->seed_state += UINT64_C(0x9E3779B97F4A7C15);

	z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
	return z ^ (z >> 31);
}

/*
 * Tokens delivered by an earlier daemon count as published. Their log-probabilities are left as
 * zeros: the client has them too.
 */
static void take_resumed(struct engine *e, struct request *r)
{
	const uint32_t *from = r->resume;

	for (uint32_t i = 0; i < r->desc.n_resume; i++) {
		struct sample *a = &r->samples[i];
		uint32_t n = r->desc.resume[i].tokens;

		if (!n)
			continue;
		memcpy(request_out(a), from, n * sizeof(*from));
		from += n;
		a->n_out = n;
		memset((uint8_t *)request_out(a) + r->lay.logprob_off, 0,
		       n * (size_t)r->lay.logprob_bytes);
		a->finish = stop_check(&r->desc, e->eos, e->n_eos, request_out(a), n);
		if (a->finish) {
			a->done = true;
			r->n_live--;
		}
	}
	free(r->resume);
	r->resume = NULL;
}

/* It has its slab, and its slot says so. */
static void admit_start(struct engine *e, struct request *r)
{
	struct slot_use *u = &r->session->slots[r->slot];

	u->has_slab = true;
	u->slab_off = r->slab_off;
	if (!r->n_live)
		request_end(e, r, WSHM_OK, 0);
	else
		request_start(e, r);
}

/*
 * Into the slot, which says from now on when it came and what was drawn for it; with its slab, if there
 * is room.
 */
static void admit_enter(struct engine *e, struct request *r)
{
	struct session *s = r->session;

	r->placed = !slab_get(&s->slabs, r->lay.bytes, &r->slab_off);
	if (r->placed)
		take_resumed(e, r);
	publish_admitted(r);
	wshm_engine_accept(&s->shm);
	session_slot_use(s, r->slot, r->generation, r);
	e->count.requests++;
	request_use(e, r)->requests++;
	r->tenant->requests++;
	if (r->placed) {
		admit_start(e, r);
		return;
	}
	s->pending = r;
	s->pending_seen = s->slabs_freed;
}

struct request *admit_internal(struct engine *e, struct session *s, const uint32_t *tokens,
			       uint32_t n)
{
	struct wshm_desc d;
	struct request *r;

	wshm_desc_init(&d);
	d.prompt.tokens = n;
	d.max_tokens = 1;
	r = request_new(e, s, 0, 1, &d, 0);
	if (!r || slab_get(&s->slabs, r->lay.bytes, &r->slab_off)) {
		request_free(r);
		return NULL;
	}
	memcpy(r->prompt, tokens, n * sizeof(*tokens));
	r->placed = true;
	r->arrival_ns = now_ns();
	request_link(e, r);
	publish_admitted(r);
	session_slot_use(s, 0, 1, r);
	s->slots[0].has_slab = true;
	s->slots[0].slab_off = r->slab_off;
	request_start(e, r);
	return r;
}

static void admit_refuse(struct engine *e, struct session *s, uint32_t slot, uint32_t generation,
			 enum wshm_status status, uint32_t detail)
{
	struct tenant *t = tenant_get(e, s->tenant);

	e->count.refused++;
	t->refused++;
	publish_refusal(e, s, slot, generation, status, detail);
	session_slot_use(s, slot, generation, NULL);
}

/* The pending request: is there room now? True when it waits no more. */
static bool admit_pending(struct engine *e, struct session *s)
{
	struct request *r = s->pending;

	if (e->draining) {
		request_end(e, r, WSHM_SHUTDOWN, 0);
		return true;
	}
	if (s->pending_seen == s->slabs_freed)
		return false;
	s->pending_seen = s->slabs_freed;
	if (slab_get(&s->slabs, r->lay.bytes, &r->slab_off))
		return false;
	r->placed = true;
	s->pending = NULL;
	take_resumed(e, r);
	publish_placed(r);
	admit_start(e, r);
	return true;
}

/* One entry of the ring; false: the session is over. */
static bool admit_entry(struct engine *e, struct session *s, uint32_t slot, uint32_t generation,
			uint64_t now)
{
	struct tenant *t = tenant_get(e, s->tenant);
	struct request *r = NULL;
	uint32_t detail = 0;
	int rc = 0;

	if (s->slots[slot].used) /* the client reuses it, so it has given it back */
		session_slot_release(e, s, slot);
	if (e->draining)
		rc = WSHM_SHUTDOWN;
	else if (rate_exceeded(t, now))
		rc = refuse(&detail, WSHM_QUOTA_RATE, t->quota.max_rate);
	if (!rc)
		rc = admit_fetch(e, s, slot, generation, NULL, &r, &detail);
	if (!rc)
		rc = check_quota(r, &detail);
	if (!rc && r->lay.bytes > s->slabs.bytes)
		rc = refuse(&detail, WSHM_TOO_BIG, (uint32_t)((r->lay.bytes + 1023) / 1024));
	if (rc) {
		request_free(r);
		if (rc == WSHM_PROTOCOL) {
			session_offence(e, s, "request record");
			return false;
		}
		if (rc == -ENOMEM)
			rc = WSHM_TOO_BIG;
		admit_refuse(e, s, slot, generation, (enum wshm_status)rc, detail);
		return true;
	}
	/* Those of a round come at the same time, but one after another. */
	if (now <= s->last_arrival_ns)
		now = s->last_arrival_ns + 1;
	r->arrival_ns = s->last_arrival_ns = now;
	if (r->desc.timeout_ms)
		r->deadline_ns = now + r->desc.timeout_ms * UINT64_C(1000000);
	r->seed = r->desc.has_seed ? r->desc.seed : next_seed(s);
	request_link(e, r);
	admit_enter(e, r);
	return true;
}

bool admit_poll(struct engine *e, struct session *s, uint64_t now)
{
	uint64_t fetched = e->fetched_tokens;
	uint32_t slot, generation;
	bool any = false;
	int rc;

	if (s->pending && !admit_pending(e, s))
		return false;
	for (uint32_t i = 0; i < ROUND_ENTRIES && !s->pending; i++) {
		/* What is refused in the end has cost as much. */
		if (e->fetched_tokens - fetched >= ROUND_TOKENS)
			return true;
		rc = wshm_engine_peek(&s->shm, &slot, &generation);
		if (rc < 0) {
			session_offence(e, s, "submission ring");
			return true;
		}
		if (!rc)
			break;
		any = true;
		if (!admit_entry(e, s, slot, generation, now))
			break;
	}
	return any;
}
