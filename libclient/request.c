/* SPDX-License-Identifier: Apache-2.0 */
/*
 * request.c - submit, read in place, cancel, free; and moving a request to a new daemon.
 *
 * Readers (weft_tokens, weft_logprobs, weft_result) take no lock: they walk the request's attempts
 * from the newest, which are immutable once published, and read what the engine wrote. Until the
 * newest attempt has caught up with an older one, the older one's tokens are what is returned:
 * both hold the same ones, so the count never goes back.
 */
#include "libclient/private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* --- reading -------------------------------------------------------------------------------------*/

static struct attempt *current(const struct weft_request *r)
{
	/* A2: pairs with A1 in attempt_publish(): the attempt is whole. */
	return atomic_load_explicit(&r->cur, memory_order_acquire);
}

/* The attempt's slab, or NULL before admission (or when the engine's figures make no sense). */
static const uint8_t *attempt_slab(const struct weft_request *r, const struct attempt *a)
{
	const struct wshm_layout *l = &a->link->c.layout;
	const struct wshm_slot *s = a->s;
	uint64_t room = l->params.rx_arena_bytes, bytes, off;

	if (attempt_state(a) == WSHM_SLOT_FREE)
		return NULL;
	bytes = wshm_slot_slab_bytes(s);
	off = atomic_load_explicit(&s->slab_off, memory_order_relaxed);
	if (!bytes || off > room || r->slab.bytes > room - off || off % 8 ||
	    s->sample_bytes != r->slab.sample_bytes || bytes < r->slab.bytes)
		return NULL;
	return wshm_client_rx_arena(&a->link->c) + off;
}

static uint32_t attempt_count(const struct weft_request *r, const struct attempt *a,
			      uint32_t sample)
{
	uint32_t n;

	if (attempt_state(a) == WSHM_SLOT_FREE)
		return 0;
	n = wshm_slot_count(a->s, sample);
	return n <= r->max_tokens ? n : r->max_tokens;
}

/* The attempt with the most tokens of a sample, the newest of equals. */
static const struct attempt *longest(const struct weft_request *r, uint32_t sample,
				     uint32_t *ret_count)
{
	const struct attempt *best = current(r);
	uint32_t n = attempt_count(r, best, sample);

	for (const struct attempt *a = best->prev; a; a = a->prev) {
		uint32_t m = attempt_count(r, a, sample);

		if (m > n) {
			n = m;
			best = a;
		}
	}
	*ret_count = n;
	return best;
}

const uint32_t *wc_request_tokens(const struct weft_request *r, uint32_t sample,
				  uint32_t *ret_count)
{
	const struct attempt *a = longest(r, sample, ret_count);
	const uint8_t *slab = *ret_count ? attempt_slab(r, a) : NULL;

	if (!slab) {
		*ret_count = 0;
		return NULL;
	}
	return (const uint32_t *)(slab + sample * r->slab.sample_bytes);
}

bool wc_request_ended(const struct weft_request *r)
{
	return request_local_status(r) != WEFT_RUNNING ||
	       attempt_state(current(r)) == WSHM_SLOT_ENDED;
}

bool wc_request_sample_ended(const struct weft_request *r, uint32_t sample)
{
	const struct attempt *a = current(r);

	if (wc_request_ended(r))
		return true;
	if (attempt_state(a) == WSHM_SLOT_FREE ||
	    wshm_slot_finish(a->s, sample) == WSHM_FINISH_NONE)
		return false;
	/* The end of the last answer is the request's, and its state follows in a moment: whoever
	 * is told of the end must not find the result still running. */
	for (uint32_t i = 0; i < r->n; i++)
		if (wshm_slot_finish(a->s, i) == WSHM_FINISH_NONE)
			return true;
	return false;
}

const uint32_t *weft_tokens(struct weft_request *r, uint32_t sample, uint32_t *ret_count)
{
	uint32_t n = 0;
	const uint32_t *tokens = NULL;

	if (sample < r->n && !wc_session_forked(r->w))
		tokens = wc_request_tokens(r, sample, &n);
	if (ret_count)
		*ret_count = n;
	return tokens;
}

static const struct attempt *first_attempt(const struct attempt *a)
{
	while (a->prev)
		a = a->prev;
	return a;
}

/* Stage times: of the attempt in which the stage was first reached. What was fixed at admission: of
 * the first attempt that was admitted; later ones have been told to do the same. */
static void result_admission(const struct attempt *a, struct weft_result *res)
{
	for (; a; a = a->prev) {
		const struct wshm_slot *s = a->s;
		uint64_t t;

		if (attempt_state(a) == WSHM_SLOT_FREE)
			continue;
		res->arrival_ns = s->t_arrival_ns;
		res->seed = s->seed;
		res->invocation = (enum weft_invocation)s->invocation;
		res->activation = s->activation < UINT32_MAX ? (uint32_t)s->activation : UINT32_MAX;
		t = atomic_load_explicit(&s->t_start_ns, memory_order_relaxed);
		res->start_ns = t ? t : res->start_ns;
		t = atomic_load_explicit(&s->t_first_ns, memory_order_relaxed);
		if (t) {
			res->first_token_ns = t;
			res->forward_ns =
				atomic_load_explicit(&s->forward_ns, memory_order_relaxed);
		}
	}
}

static void result_fill(struct weft_request *r, struct weft_result *res)
{
	const struct attempt *a = current(r);
	int local = request_local_status(r);
	uint32_t state = attempt_state(a);

	res->status = WEFT_RUNNING;
	res->n = r->n;
	res->prompt_tokens = r->n_prompt;
	res->activation = UINT32_MAX;
	res->resubmitted = atomic_load_explicit(&r->resubmitted, memory_order_relaxed);
	if (state != WSHM_SLOT_FREE) {
		res->cached_tokens = atomic_load_explicit(&first_attempt(a)->s->cached_tokens,
							  memory_order_relaxed);
		for (uint32_t i = 0; i < r->n; i++)
			res->finish[i] = (enum weft_finish)wshm_slot_finish(a->s, i);
	}
	if (state == WSHM_SLOT_ENDED) {
		res->status =
			(enum weft_status)atomic_load_explicit(&a->s->status, memory_order_relaxed);
		res->detail = atomic_load_explicit(&a->s->detail, memory_order_relaxed);
		res->end_ns = atomic_load_explicit(&a->s->t_end_ns, memory_order_relaxed);
	} else if (local != WEFT_RUNNING) {
		res->status = (enum weft_status)local;
	}
	result_admission(a, res);
}

int weft_result(struct weft_request *r, struct weft_result *ret)
{
	struct weft_result res;
	size_t size = ret->size;

	if (wc_session_forked(r->w))
		return -EOWNERDEAD;
	if (size < offsetof(struct weft_result, finish) || size > sizeof(res))
		return -EINVAL;
	wc_wait_polled(r);
	memset(&res, 0, sizeof(res));
	result_fill(r, &res);
	res.size = size;
	memcpy(ret, &res, size);
	return 0;
}

/* --- log-probabilities ---------------------------------------------------------------------------*/

int weft_logprobs(struct weft_request *r, uint32_t sample, uint32_t index,
		  const struct weft_logprob **ret)
{
	static_assert(sizeof(struct weft_logprob) == sizeof(struct wshm_logprob), "same layout");

	if (wc_session_forked(r->w))
		return -EOWNERDEAD;
	if (sample >= r->n)
		return -EINVAL;
	if (r->logprobs == WEFT_NO_LOGPROBS)
		return -ENOENT;
	/* A token that an earlier daemon delivered has its entry there. */
	for (const struct attempt *a = current(r); a; a = a->prev) {
		const uint8_t *slab = attempt_slab(r, a);

		if (!slab || index < a->base[sample] || index >= attempt_count(r, a, sample))
			continue;
		*ret = (const void *)(slab + sample * r->slab.sample_bytes + r->slab.logprob_off +
				      (uint64_t)index * r->slab.logprob_bytes);
		return 1 + (int)r->logprobs;
	}
	return -ENOENT;
}

int weft_prompt_logprobs(struct weft_request *r, uint32_t index, const struct weft_logprob **ret)
{
	if (wc_session_forked(r->w))
		return -EOWNERDEAD;
	if (r->prompt_logprobs == WEFT_NO_LOGPROBS || !index || index >= r->n_prompt)
		return -ENOENT;
	for (const struct attempt *a = current(r); a; a = a->prev) {
		const uint8_t *slab = attempt_slab(r, a);

		if (!slab || index >= wshm_slot_prompt_count(a->s))
			continue;
		*ret = (const void *)(slab + r->slab.prompt_logprob_off +
				      (uint64_t)index * r->slab.prompt_logprob_bytes);
		return 1 + (int)r->prompt_logprobs;
	}
	return -ENOENT;
}

/* --- submitting ----------------------------------------------------------------------------------*/

static void attempt_publish(struct weft_request *r, struct attempt *a)
{
	a->prev = atomic_load_explicit(&r->cur, memory_order_relaxed);
	/* A1: pairs with A2 in current() and weft_wait() */
	atomic_store_explicit(&r->cur, a, memory_order_release);
}

/*
 * Write prompt, resumed tokens and descriptor into the arena and push the request. `resume` has
 * d->n_resume pointers. The arena block holds, in this order: prompt, resumed tokens, descriptor.
 */
static int attempt_new(struct weft_request *r, struct link *l, struct wshm_desc *d,
		       const uint32_t *prompt, const uint32_t *const *resume, struct attempt **ret)
{
	struct attempt *a = calloc(1, sizeof(*a));
	uint64_t n_tokens = d->prompt.tokens, at;
	uint8_t *arena = wshm_client_tx_arena(&l->c);
	uint8_t packed[WSHM_MAX_DESC];
	int err, bytes;

	if (!a)
		return -ENOMEM;
	for (uint32_t i = 0; i < d->n_resume; i++)
		n_tokens += d->resume[i].tokens;
	err = wc_link_slot_get(l, r, n_tokens * 4 + WSHM_MAX_DESC, &a->slot);
	if (err < 0)
		goto fail;
	at = l->slots[a->slot].off;
	d->prompt.off = at;
	memcpy(arena + at, prompt, d->prompt.tokens * (size_t)4);
	at += d->prompt.tokens * (uint64_t)4;
	for (uint32_t i = 0; i < d->n_resume; i++) {
		d->resume[i].off = at;
		if (d->resume[i].tokens)
			memcpy(arena + at, resume[i], d->resume[i].tokens * (size_t)4);
		a->base[i] = d->resume[i].tokens;
		at += d->resume[i].tokens * (uint64_t)4;
	}
	bytes = wc_desc_pack(d, packed, sizeof(packed));
	if (bytes < 0) {
		err = bytes;
		goto fail_slot;
	}
	memcpy(arena + at, packed, bytes);
	a->generation = l->slots[a->slot].generation;
	a->s = wshm_client_slot(&l->c, a->slot);
	wshm_client_req_write(&l->c, a->slot, a->generation, at, bytes);
	err = wshm_client_submit(&l->c, a->slot, a->generation);
	if (err < 0)
		goto fail_slot;
	a->link = l;
	l->refs++;
	if (err == 1)
		wc_link_wake_engine(l);
	*ret = a;
	return 0;
fail_slot:
	wc_link_slot_cancel(l, a->slot);
fail:
	free(a);
	return err;
}

static void request_list_add(struct weft *w, struct weft_request *r)
{
	r->next = w->requests;
	r->pprev = &w->requests;
	if (r->next)
		r->next->pprev = &r->next;
	w->requests = r;
}

static void request_list_remove(struct weft_request *r)
{
	*r->pprev = r->next;
	if (r->next)
		r->next->pprev = r->pprev;
}

void weft_submit_options_init(struct weft_submit_options *o)
{
	*o = (struct weft_submit_options){
		.size = sizeof(*o),
		.n = 1,
		.max_tokens = 256,
		.top_p = 1,
		.repetition_penalty = 1,
		.logprobs = WEFT_NO_LOGPROBS,
		.prompt_logprobs = WEFT_NO_LOGPROBS,
	};
}

static struct weft_request *request_new(struct weft *w, const struct weft_submit_options *o)
{
	struct weft_request *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->w = w;
	atomic_init(&r->local_status, WEFT_RUNNING);
	r->n = o->n;
	r->max_tokens = o->max_tokens;
	r->n_prompt = o->n_prompt;
	r->logprobs = o->logprobs;
	r->prompt_logprobs = o->prompt_logprobs;
	r->flags = o->flags;
	if (o->timeout_ms)
		r->deadline_ns = wc_now_ns() + o->timeout_ms * NS_PER_MS;
	wshm_slab_layout(&r->slab, o->n, o->max_tokens, o->n_prompt, o->logprobs,
			 o->prompt_logprobs);
	return r;
}

/* How long weft_submit() waits for the engine to take back slots that were freed just before: it
 * does so between two steps, and a step of a large prompt takes a while. */
#define RECLAIM_NS (2 * NS_PER_SEC)
/* A session that is down: how long it waits at a time for the next daemon's answer. */
#define SUBMIT_LOOK_NS NS_PER_SEC

/*
 * One try under the lock. -EAGAIN: nothing free; *ret_hope then says whether something that was
 * released is about to come back.
 */
static int submit_once(struct weft_request *r, struct wshm_desc *d, const uint32_t *prompt,
		       bool *ret_hope)
{
	struct weft *w = r->w;
	struct attempt *a;
	struct link *l;
	int err;

	pthread_mutex_lock(&w->lock);
	l = atomic_load_explicit(&w->link, memory_order_relaxed);
	if (atomic_load_explicit(&w->state, memory_order_relaxed) != SESSION_UP) {
		err = -ECONNRESET;
	} else {
		err = attempt_new(r, l, d, prompt, NULL, &a);
		*ret_hope = err == -EAGAIN && wc_link_has_released(l);
	}
	if (!err) {
		attempt_publish(r, a);
		request_list_add(w, r);
		atomic_store(&w->any_quiet_since_ns, 0);
	}
	pthread_mutex_unlock(&w->lock);
	return err;
}

/* Try until it is in, or there is no point in trying on. */
static int submit_patiently(struct weft_request *r, struct wshm_desc *d, const uint32_t *prompt)
{
	int64_t deadline = 0, pause_ns = 20000;
	struct weft *w = r->w;

	for (;;) {
		bool hope = false;
		int err = submit_once(r, d, prompt, &hope);
		int64_t now;

		if (!err || (err == -EAGAIN && !hope) || (err != -EAGAIN && err != -ECONNRESET))
			return err;
		now = wc_now_ns();
		deadline = deadline ? deadline : now + RECLAIM_NS;
		if (err == -ECONNRESET) {
			err = wc_session_check(w, false, now + SUBMIT_LOOK_NS);
			if (err < 0)
				return err;
		} else if (now >= deadline) {
			err = wc_session_check(w, true, 0);
			return err < 0 ? err : -EAGAIN;
		}
		nanosleep(&(struct timespec){.tv_nsec = pause_ns}, NULL);
		pause_ns = pause_ns < 5 * NS_PER_MS ? 2 * pause_ns : pause_ns;
	}
}

static int submit_error(struct weft *w, const struct wshm_desc *d, int err,
			struct weft_error *error)
{
	struct wshm_params p;

	/* Another thread may be putting a new link in this one's place. */
	pthread_mutex_lock(&w->lock);
	p = atomic_load_explicit(&w->link, memory_order_relaxed)->c.layout.params;
	pthread_mutex_unlock(&w->lock);
	switch (err) {
	case -EAGAIN:
		return wc_fail(error, err,
			       "submit a request: all %u slots or all %llu bytes for "
			       "prompts are in use; free a request first, or open the session "
			       "with more",
			       p.slots, (unsigned long long)p.tx_arena_bytes);
	case -ENOSPC:
		return wc_fail(error, -EINVAL,
			       "submit a request: a prompt of %u tokens does not "
			       "fit the session's %llu bytes; open it with more prompt_bytes",
			       d->prompt.tokens, (unsigned long long)p.tx_arena_bytes);
	case -E2BIG:
		return wc_fail(error, -EINVAL,
			       "submit a request: stop sequences and bias entries "
			       "take more than %u bytes; use fewer",
			       WSHM_MAX_DESC);
	case -ENOMEM:
		return wc_fail(error, err, "submit a request: out of memory");
	default:
		return wc_fail(error, err, "submit a request: the session is over (%s)",
			       weft_status_name((enum weft_status)atomic_load(&w->end_status)));
	}
}

int weft_submit(struct weft *w, struct weft_request **ret,
		const struct weft_submit_options *options, struct weft_error *error)
{
	struct weft_request *r;
	struct wshm_desc d;
	int err;

	if (wc_session_forked(w))
		return wc_fail(error, -EOWNERDEAD,
			       "submit a request: the session belongs to the "
			       "parent process; open another one after fork()");
	if (options->size != sizeof(*options))
		return wc_fail(error, -EINVAL,
			       "submit a request: options of %zu bytes, libweft %s "
			       "knows %zu",
			       options->size, WEFT_VERSION, sizeof(*options));
	err = wc_desc_from_options(&d, options, error);
	if (err < 0)
		return err;
	r = request_new(w, options);
	if (!r)
		return submit_error(w, &d, -ENOMEM, error);
	err = submit_patiently(r, &d, options->prompt);
	if (err < 0) {
		free(r);
		return submit_error(w, &d, err, error);
	}
	*ret = r;
	return 0;
}

/* --- ending --------------------------------------------------------------------------------------*/

/* Under the lock: wait_any is to list it, though no notice in the current ring says so. */
static void request_news(struct weft_request *r)
{
	if (!r->news) {
		r->news = true;
		r->w->n_news++;
	}
}

/* Under the lock: libweft itself ends the request. */
void wc_request_end_local(struct weft_request *r, enum weft_status status)
{
	if (wc_request_ended(r))
		return;
	/* L1: pairs with L2 in request_local_status() */
	atomic_store_explicit(&r->local_status, status, memory_order_release);
	request_news(r);
}

int weft_cancel(struct weft_request *r)
{
	struct weft *w = r->w;
	struct attempt *a;

	if (wc_session_forked(w))
		return -EOWNERDEAD;
	pthread_mutex_lock(&w->lock);
	atomic_store_explicit(&r->cancelled, true, memory_order_relaxed);
	a = current(r);
	if (atomic_load_explicit(&w->state, memory_order_relaxed) == SESSION_DOWN)
		wc_request_end_local(r, WEFT_CANCELLED); /* nobody else could */
	if (a->link == atomic_load_explicit(&w->link, memory_order_relaxed) &&
	    !wc_request_ended(r) && wshm_client_cancel(&a->link->c, a->slot, a->generation) == 1)
		wc_link_wake_engine(a->link);
	pthread_mutex_unlock(&w->lock);
	return 0;
}

static void attempts_free(struct weft *w, struct attempt *a)
{
	while (a) {
		struct attempt *prev = a->prev;

		/* Slots of a daemon that is gone need no release. */
		if (a->link == atomic_load_explicit(&w->link, memory_order_relaxed))
			wc_link_slot_put(a->link, a->slot);
		wc_link_put(a->link);
		free(a);
		a = prev;
	}
}

void weft_free(struct weft_request *r)
{
	struct weft *w;

	if (!r || wc_session_forked(r->w))
		return;
	w = r->w;
	pthread_mutex_lock(&w->lock);
	if (r->news)
		w->n_news--;
	request_list_remove(r);
	attempts_free(w, current(r));
	pthread_mutex_unlock(&w->lock);
	free(r);
}

/* --- moving to a new daemon ----------------------------------------------------------------------*/

/* Under the lock, when the daemon is gone: what no other daemon will be asked for ends now. */
void wc_request_end_unwanted(struct weft *w)
{
	for (struct weft_request *r = w->requests; r; r = r->next) {
		if (atomic_load_explicit(&r->cancelled, memory_order_relaxed))
			wc_request_end_local(r, WEFT_CANCELLED);
		else if (r->flags & WEFT_NO_RESUBMIT)
			wc_request_end_local(r, WEFT_LOST);
	}
}

/* Bytes of tx arena that request_resume_all() will want, allocation overhead included. */
uint64_t wc_request_bytes_needed(struct weft *w)
{
	uint64_t bytes = 0;

	for (struct weft_request *r = w->requests; r; r = r->next) {
		if (wc_request_ended(r))
			continue;
		bytes += r->n_prompt * (uint64_t)4 + WSHM_MAX_DESC + ARENA_ALIGN;
		for (uint32_t i = 0; i < r->n; i++) {
			uint32_t n;

			longest(r, i, &n);
			bytes += n * (uint64_t)4;
		}
	}
	return bytes;
}

/* The descriptor for the next daemon: what the old one was given, and what it made of it. */
static int resume_desc(struct weft_request *r, const struct attempt *old, struct wshm_desc *d,
		       const uint32_t *resume[WSHM_MAX_SAMPLES])
{
	struct wshm_req *q = wshm_client_req(&old->link->c, old->slot);
	uint64_t off = atomic_load_explicit(&q->desc_off, memory_order_relaxed);
	uint32_t bytes = atomic_load_explicit(&q->desc_bytes, memory_order_relaxed), key, total = 0;
	int err = wshm_desc_decode(d, wshm_client_tx_arena(&old->link->c) + off, bytes, &key);

	if (err < 0)
		return err;
	for (uint32_t i = 0; i < r->n; i++) {
		resume[i] = wc_request_tokens(r, i, &d->resume[i].tokens);
		total += d->resume[i].tokens;
	}
	d->n_resume = total ? r->n : 0;
	if (attempt_state(old) != WSHM_SLOT_FREE) {
		d->has_seed = true;
		d->seed = old->s->seed;
		/* Never under other weights, whatever bears the adapter's name by now. */
		if (old->s->adapter_instance)
			d->instance = old->s->adapter_instance;
		else if (old->s->invocation == WSHM_INVOCATION_BASE)
			d->adapter[0] = '\0';
	}
	if (r->deadline_ns) {
		int64_t left_ms = (r->deadline_ns - wc_now_ns()) / NS_PER_MS;

		d->timeout_ms = left_ms > 0 ? (uint32_t)left_ms : 1;
	}
	return 0;
}

static void request_resume(struct weft_request *r, struct link *to)
{
	const struct attempt *old = current(r);
	const uint32_t *resume[WSHM_MAX_SAMPLES] = {0}, *prompt;
	struct wshm_desc d;
	struct attempt *a;

	if (r->deadline_ns && wc_now_ns() >= r->deadline_ns) {
		wc_request_end_local(r, WEFT_DEADLINE);
		return;
	}
	if (resume_desc(r, old, &d, resume) < 0) {
		wc_request_end_local(r, WEFT_LOST);
		return;
	}
	prompt = (const uint32_t *)(wshm_client_tx_arena(&old->link->c) + d.prompt.off);
	if (attempt_new(r, to, &d, prompt, resume, &a) < 0) {
		wc_request_end_local(r, WEFT_LOST);
		return;
	}
	r->any_listed = false;
	atomic_fetch_add_explicit(&r->resubmitted, 1, memory_order_relaxed);
	attempt_publish(r, a);
}

/* Under the lock, once the old daemon and its engine are gone: nobody writes to the old rx now. */
void wc_request_resume_all(struct weft *w, struct link *to)
{
	for (struct weft_request *r = w->requests; r; r = r->next) {
		const struct attempt *a = current(r);

		/* Notices of the old ring that nobody has consumed. */
		if (a->link != to && attempt_state(a) != WSHM_SLOT_FREE &&
		    (!r->any_listed || wshm_slot_progress(a->s) != r->any_progress))
			request_news(r);
		if (!wc_request_ended(r))
			request_resume(r, to);
	}
}
