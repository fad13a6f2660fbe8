/* SPDX-License-Identifier: Apache-2.0 */
/*
 * probe.c - what of a prompt is cached, and which adapters there are: read from the domain's index
 * and the public one, in shared memory.
 *
 * The keys of a prompt's blocks are chained, so they are computed as far as the answer is yes: own
 * chain under the domain's secret; beside it the public chain under the public secret, up to the
 * first block that it lacks, since no block stays when the one before it goes.
 *
 * No lock, no system call, no allocation; but where there is no index, because no engine serves or the
 * daemon has sent another, the control socket is looked at. A link that is read here is not taken away meanwhile: the
 * caller counts itself in w->probing first, and who puts another link in its place looks at that
 * count afterwards (D1 to D4). Epochs of readers lie in tx, one word for each of WSHM_READERS
 * threads; a seventeenth reads without one, and might only have to read again.
 */
#include "libclient/private.h"

#include <errno.h>
#include <string.h>

#define CHUNK 64u /* blocks whose keys are computed before they are looked up together */

/* --- the link --------------------------------------------------------------------------------------*/

static int probe_begin(struct weft *w, struct link **ret)
{
	struct link *l;
	int state;

	if (wc_session_forked(w))
		return -EOWNERDEAD;
	/* D1: pairs with D4 in wc_session_put_retired() */
	atomic_fetch_add_explicit(&w->probing, 1, memory_order_seq_cst);
	/* D2: pairs with D3 in session_adopt() */
	l = atomic_load_explicit(&w->link, memory_order_seq_cst);
	state = atomic_load_explicit(&w->state, memory_order_relaxed);
	if (state == SESSION_UP) {
		*ret = l;
		return 0;
	}
	wc_probe_end(w);
	return state == SESSION_DEAD ? -ECONNRESET : -EAGAIN;
}

/* Until wc_probe_end(). */
static const struct wshm_idx_reader *index_of(const struct link *l)
{
	/* D9: pairs with D8 in wc_link_take_index(): as with links, who is not counted sees the new one. */
	return &atomic_load_explicit(&l->index, memory_order_seq_cst)->r;
}

/* No engine serves by this index: perhaps because the daemon has sent another one, which nobody has taken
 * from the socket yet. True if there is one now. */
static bool new_index(struct weft *w, const struct link *l, const struct wshm_idx_reader *old)
{
	bool is_new;

	pthread_mutex_lock(&w->lock);
	if (w->state == SESSION_UP && w->link == l)
		wc_session_listen(w);
	is_new = w->state == SESSION_UP && w->link == l && index_of(l) != old;
	pthread_mutex_unlock(&w->lock);
	return is_new;
}

void wc_probe_end(struct weft *w)
{
	/* D5: pairs with D4 in wc_session_put_retired(): all reading is done. */
	atomic_fetch_sub_explicit(&w->probing, 1, memory_order_release);
}

/* One of the epoch words, or -1. */
static int reader_take(struct link *l)
{
	uint32_t taken = atomic_load_explicit(&l->readers, memory_order_relaxed);

	for (uint32_t i = 0; i < WSHM_READERS; i++) {
		uint32_t free = ~taken & ((1u << WSHM_READERS) - 1), bit = free & -free;

		if (!free)
			break;
		/* D6: pairs with D7 in reader_give(): the word is outside again. */
		if (atomic_compare_exchange_weak_explicit(&l->readers, &taken, taken | bit,
							  memory_order_acquire,
							  memory_order_relaxed))
			return __builtin_ctz(bit);
	}
	return -1;
}

static void reader_give(struct link *l, int reader)
{
	/* D7: pairs with D6 in reader_take() */
	if (reader >= 0)
		atomic_fetch_and_explicit(&l->readers, ~(1u << reader), memory_order_release);
}

/* --- the prompt as the engine will see it --------------------------------------------------------------*/

struct prompt {
	const uint32_t *tokens;
	const uint32_t *appended; /* the invocation, if the engine will append it */
	uint32_t n_tokens, n;	  /* without and with it */
	uint64_t adapter[2];
	uint32_t activation;
};

/* Up to a block of tokens from position `from`: how many, and where. */
static uint32_t prompt_tokens(const struct prompt *p, uint32_t from,
			      uint32_t buf[WSHM_BLOCK_TOKENS], const uint32_t **ret)
{
	uint32_t n = p->n - from < WSHM_BLOCK_TOKENS ? p->n - from : WSHM_BLOCK_TOKENS;

	*ret = buf;
	if (from + n <= p->n_tokens) {
		*ret = p->tokens + from;
		return n;
	}
	for (uint32_t i = 0; i < n; i++)
		buf[i] = from + i < p->n_tokens ? p->tokens[from + i]
						: p->appended[from + i - p->n_tokens];
	return n;
}

/* Which rows are whose. 0 with ret->invocation set, or -ENOENT. */
static int prompt_init(struct prompt *p, const struct wshm_idx_reader *idx, const char *adapter,
		       struct wshm_instance *in, struct weft_probe *ret)
{
	p->activation = WSHM_NO_ACTIVATION;
	if (!adapter || !*adapter)
		return 0;
	if (wshm_idx_find(idx, adapter, in) < 0)
		return -ENOENT;
	memcpy(p->adapter, in->digest, sizeof(p->adapter));
	p->activation = wshm_activation(p->tokens, p->n_tokens, in->invocation, in->n_invocation,
					in->offset);
	if (!in->activated)
		return 0;
	ret->invocation = WEFT_INVOCATION_FOUND;
	if (p->activation != WSHM_NO_ACTIVATION)
		return 0;
	ret->invocation = WEFT_INVOCATION_MISSING;
	if (in->on_missing == WSHM_MISSING_BASE)
		ret->invocation = WEFT_INVOCATION_BASE;
	if (in->on_missing == WSHM_MISSING_APPEND && p->n <= UINT32_MAX - in->n_invocation) {
		int64_t at = (int64_t)p->n_tokens + in->offset;

		ret->invocation = WEFT_INVOCATION_APPENDED;
		p->appended = in->invocation;
		p->n += in->n_invocation;
		p->activation = at < 0 ? 0 : at > p->n ? p->n : (uint32_t)at;
	}
	return 0;
}

/* --- chains ------------------------------------------------------------------------------------------*/

struct chain {
	const struct wshm_idx_reader *r;
	bool on; /* there is an index, and it has had every block so far (public) */
	uint8_t secret[WSHM_SECRET_BYTES];
	struct wshm_key last;	     /* of the last block before the chunk; at first the root */
	struct wshm_key keys[CHUNK]; /* of the chunk */
	uint8_t tiers[CHUNK];
};

static void chain_init(struct chain *c, const struct wshm_idx_reader *r)
{
	struct wshm_root root;

	c->r = r;
	c->on = r->base && wshm_idx_secret(r, c->secret, &root);
	if (c->on)
		wshm_key_root(&c->last, c->secret, &root);
}

/* Keys and tiers of n blocks from block `first` on. */
static void chain_walk(struct chain *c, const struct prompt *p, uint32_t first, uint32_t n,
		       struct link *l, int reader)
{
	const struct wshm_key *parent = &c->last;

	for (uint32_t i = 0; i < n; i++) {
		struct wshm_identity id = wshm_identity_of(p->adapter, p->activation, first + i);
		uint32_t buf[WSHM_BLOCK_TOKENS];
		const uint32_t *tokens;

		prompt_tokens(p, (first + i) * WSHM_BLOCK_TOKENS, buf, &tokens);
		wshm_key_block(&c->keys[i], c->secret, parent, &id, tokens);
		parent = &c->keys[i];
	}
	if (reader >= 0)
		wshm_idx_enter(&l->c, (uint32_t)reader, c->r);
	wshm_idx_lookup(c->r, c->keys, n, c->tiers);
	if (reader >= 0)
		wshm_idx_leave(&l->c, (uint32_t)reader);
}

/* Rows that agree behind the first `blocks` blocks, `used` of which were in the chunk. */
static uint32_t chain_tail(const struct chain *c, const struct prompt *p, uint32_t blocks,
			   uint32_t used)
{
	const struct wshm_key *parent = used ? &c->keys[used - 1] : &c->last;
	struct wshm_identity id = wshm_identity_of(p->adapter, p->activation, blocks);
	uint32_t buf[WSHM_BLOCK_TOKENS], n;
	const uint32_t *tokens;

	if (!c->on)
		return 0;
	n = prompt_tokens(p, blocks * WSHM_BLOCK_TOKENS, buf, &tokens);
	return wshm_idx_tail_rows(c->r, parent, &id, tokens, n);
}

/* Of n rows from row `from` on, those of the caller's own prompt: what the engine appends is looked for
 * like the rest, and is counted here no more than in a result's cached_tokens. */
static uint32_t own_rows(const struct prompt *p, uint32_t from, uint32_t n)
{
	if (from >= p->n_tokens)
		return 0;
	return n < p->n_tokens - from ? n : p->n_tokens - from;
}

/* Blocks of a chunk from block `first` on that either chain has; counts[] by tier. The public chain stays
 * on while it has every block that is counted: what it holds behind the last of them counts too. */
static uint32_t chunk_count(const struct prompt *p, const struct chain *own, struct chain *public,
			    uint32_t first, uint32_t n, uint32_t counts[WSHM_N_TIERS],
			    uint32_t *ret_last)
{
	for (uint32_t i = 0; i < n; i++) {
		bool has = public->on && public->tiers[i] != WSHM_N_TIERS;
		uint32_t tier = own->tiers[i];

		if (has && public->tiers[i] < tier)
			tier = public->tiers[i];
		if (tier == WSHM_N_TIERS)
			return i;
		public->on = has;
		counts[tier] += own_rows(p, (first + i) * WSHM_BLOCK_TOKENS, WSHM_BLOCK_TOKENS);
		*ret_last = tier;
	}
	return n;
}

static void walk(struct link *l, const struct prompt *p, struct chain *own, struct chain *public,
		 uint32_t counts[WSHM_N_TIERS])
{
	uint32_t blocks = p->n / WSHM_BLOCK_TOKENS, at = 0, used, n, last = 0, rows, more;
	int reader = reader_take(l);

	for (;;) {
		n = blocks - at < CHUNK ? blocks - at : CHUNK;
		chain_walk(own, p, at, n, l, reader);
		if (public->on)
			chain_walk(public, p, at, n, l, reader);
		used = chunk_count(p, own, public, at, n, counts, &last);
		at += used;
		if (used < n || at == blocks)
			break;
		own->last = own->keys[n - 1];
		public->last = public->keys[n - 1];
	}
	/* The last row is always computed: a request needs what follows from it. An appended one is not
	 * among those counted. */
	if (at * WSHM_BLOCK_TOKENS == p->n) {
		if (at && p->n == p->n_tokens)
			counts[last]--;
	} else {
		rows = chain_tail(own, p, at, used);
		more = chain_tail(public, p, at, used);
		rows = more > rows ? more : rows;
		if (rows == p->n - at * WSHM_BLOCK_TOKENS)
			rows--;
		counts[WSHM_TIER_DEVICE] += own_rows(p, at * WSHM_BLOCK_TOKENS, rows);
	}
	reader_give(l, reader);
}

/* --- calls -------------------------------------------------------------------------------------------*/

static int probe(struct link *l, const struct wshm_idx_reader *idx, const char *adapter,
		 struct prompt *p, struct weft_probe *res)
{
	uint32_t counts[WSHM_N_TIERS] = {0};
	struct wshm_instance in;
	struct chain own, public;
	int err;

	chain_init(&own, idx);
	if (!own.on)
		return -EAGAIN;
	err = prompt_init(p, idx, adapter, &in, res);
	if (err < 0)
		return err;
	res->activation = p->activation;
	if (res->invocation == WEFT_INVOCATION_MISSING)
		return 0;
	chain_init(&public, &l->public_idx);
	walk(l, p, &own, &public, counts);
	res->device_tokens = counts[WSHM_TIER_DEVICE];
	res->host_tokens = counts[WSHM_TIER_HOST];
	res->disk_tokens = counts[WSHM_TIER_DISK];
	res->cached_tokens = res->device_tokens + res->host_tokens + res->disk_tokens;
	return 0;
}

/*
 * Would a request with this prompt be refused, whatever is cached? What is cached has been a request's, so
 * only the tokens behind it are looked at. A model that is not loaded yet has no size.
 */
static int check_prompt(const struct link *l, const struct prompt *p, uint32_t cached)
{
	const struct wctl_model *m = &l->welcome.model;
	uint32_t largest = 0;

	if (m->max_positions && p->n_tokens > m->max_positions)
		return -E2BIG;
	for (uint32_t i = cached; i < p->n_tokens; i++)
		largest = p->tokens[i] > largest ? p->tokens[i] : largest;
	return m->vocab && largest >= m->vocab ? -ERANGE : 0;
}

int weft_probe(struct weft *w, const char *adapter, const uint32_t *prompt, uint32_t n_prompt,
	       struct weft_probe *ret)
{
	struct prompt p = {.tokens = prompt, .n_tokens = n_prompt, .n = n_prompt};
	struct weft_probe res = {.size = ret->size};
	const struct wshm_idx_reader *idx;
	struct link *l;
	int err;

	if (ret->size < offsetof(struct weft_probe, device_tokens) || ret->size > sizeof(res) ||
	    !prompt || !n_prompt)
		return -EINVAL;
	err = probe_begin(w, &l);
	if (err < 0)
		return err;
	idx = index_of(l);
	err = probe(l, idx, adapter, &p, &res);
	if (err == -EAGAIN && new_index(w, l, idx))
		err = probe(l, index_of(l), adapter, &p, &res);
	if (!err)
		err = check_prompt(l, &p, res.cached_tokens);
	wc_probe_end(w);
	if (!err)
		memcpy(ret, &res, ret->size);
	return err;
}

static void adapter_convert(struct weft_adapter *to, const struct wshm_instance *from)
{
	static_assert(sizeof(to->name) == sizeof(from->name), "names fit");
	static_assert(sizeof(to->invocation) == sizeof(from->invocation), "invocations fit");
	memset(to, 0, sizeof(*to));
	memcpy(to->name, from->name, sizeof(to->name));
	to->instance = from->digest[0];
	to->activated = from->activated != 0;
	to->rank = from->rank;
	to->activation_offset = from->offset;
	to->on_missing = (int)from->on_missing;
	to->n_invocation = from->n_invocation;
	memcpy(to->invocation, from->invocation, sizeof(to->invocation));
}

int weft_adapters(struct weft *w, struct weft_adapter *ret, uint32_t max)
{
	uint8_t secret[WSHM_SECRET_BYTES];
	struct wshm_root root;
	const struct wshm_idx_reader *idx;
	struct link *l;
	uint32_t n = 0;
	int err = probe_begin(w, &l);

	if (err < 0)
		return err;
	idx = index_of(l);
	if (!wshm_idx_secret(idx, secret, &root) && new_index(w, l, idx))
		idx = index_of(l);
	if (!wshm_idx_secret(idx, secret, &root))
		err = -EAGAIN;
	for (uint32_t i = 0; !err && i < WSHM_MAX_INSTANCES; i++) {
		struct wshm_instance in;

		if (wshm_idx_at(idx, i, &in) < 0)
			continue;
		if (n < max)
			adapter_convert(&ret[n], &in);
		n++;
	}
	wc_probe_end(w);
	return err ? err : (int)n;
}
