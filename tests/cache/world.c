/* SPDX-License-Identifier: Apache-2.0 */
/* world.c - see world.h. */
#include "tests/cache/world.h"

#include <errno.h>

void world_wrong(struct world *w, const char *what)
{
	if (!w->errors++)
		w->first = what;
}

/* --- sets of rows, counted ---------------------------------------------------------------------------*/

#define SLOTS (1u << 15)

struct rows_set {
	uint32_t used; /* slots, also those with count 0 */
	uint64_t digest[SLOTS];
	uint32_t count[SLOTS];
};

static uint32_t *count_of(struct rows_set *s, uint64_t digest)
{
	uint32_t i = digest & (SLOTS - 1);

	while (s->digest[i] && s->digest[i] != digest)
		i = (i + 1) & (SLOTS - 1);
	if (!s->digest[i]) {
		s->digest[i] = digest;
		s->used++;
	}
	return &s->count[i];
}

static void tidy(struct rows_set *s)
{
	struct rows_set *old;

	if (s->used < SLOTS / 2)
		return;
	old = malloc(sizeof(*old));
	*old = *s;
	memset(s, 0, sizeof(*s));
	for (uint32_t i = 0; i < SLOTS; i++)
		if (old->count[i])
			*count_of(s, old->digest[i]) = old->count[i];
	free(old);
}

static void count_row(struct world_domain *wd, uint64_t digest, bool there)
{
	uint32_t *n = count_of(wd->rows, digest);

	if (!there && !*n)
		world_wrong(wd->w, "the mirror lost a row that it did not have");
	*n += there ? 1 : -1;
	if (there && *n == 1 && wd->lost)
		wd->lost--; /* only moved */
	if (!there && !*n)
		wd->lost++;
}

/* --- histories ---------------------------------------------------------------------------------------*/

static uint64_t next_row(uint64_t before, uint32_t token, uint64_t adapter)
{
	uint64_t h = before * UINT64_C(0x9e3779b97f4a7c15) + token * UINT64_C(0xc2b2ae3d27d4eb4f) +
		     adapter * UINT64_C(0x165667b19e3779f9) + 1;

	h = (h ^ h >> 29) * UINT64_C(0xbf58476d1ce4e5b9);
	return (h ^ h >> 32) | 1;
}

static uint64_t digest_of(const uint64_t adapter[2])
{
	return adapter[0] * 3 + adapter[1];
}

static uint64_t adapter_at(const struct seq *q, uint32_t position)
{
	return q->adapter && position >= q->activation ? digest_of(q->adapter->digest) : 0;
}

/* Digests of rows [0, n). */
static void history(const struct seq *q, uint32_t n, uint64_t *ret)
{
	uint64_t h = 1;

	for (uint32_t p = 0; p < n; p++)
		ret[p] = h = next_row(h, q->tokens[p], adapter_at(q, p));
}

static void block_key(const struct seq *q, uint32_t index, const struct wshm_key *parent,
		      struct wshm_key *ret)
{
	const struct world_domain *wd = q->w->domains[q->domain];
	uint64_t none[2] = {0, 0};
	struct wshm_identity id =
		wshm_identity_of(q->adapter ? q->adapter->digest : none,
				 q->adapter ? q->activation : WSHM_NO_ACTIVATION, index);

	wshm_key_block(ret, wd->secret, parent, &id, q->tokens + index * B);
}

/* --- the mirror's news --------------------------------------------------------------------------------*/

static struct entry *entry_of(struct world_domain *wd, const struct wshm_key *key)
{
	for (uint32_t i = wd->n_entries; i > 0; i--)
		if (wshm_key_same(&wd->entries[i - 1].key, key))
			return &wd->entries[i - 1];
	return NULL;
}

static void full_came(struct world_domain *wd, const struct wshm_key *key)
{
	const struct seq *q = wd->w->at;
	struct entry *e = &wd->entries[wd->n_entries];
	struct wshm_key k = wd->root;
	uint64_t rows[SEQ_TOKENS];

	if (!q || wd->n_entries >= wd->w->pool.n) {
		world_wrong(wd->w, "a full block came out of nothing");
		return;
	}
	for (uint32_t i = 0; i < q->n / B; i++) {
		block_key(q, i, &k, &k);
		if (!wshm_key_same(&k, key))
			continue;
		history(q, (i + 1) * B, rows);
		if ((i + 1) * B > q->computed)
			world_wrong(wd->w, "a full block came that is not computed");
		e->key = *key;
		memcpy(e->rows, rows + i * B, sizeof(e->rows));
		wd->n_entries++;
		for (uint32_t r = 0; r < B; r++)
			count_row(wd, e->rows[r], true);
		return;
	}
	world_wrong(wd->w, "a full block came that its sequence does not have");
}

static void full_changed(void *arg, const struct wshm_key *key, bool there)
{
	struct world_domain *wd = arg;
	struct entry *e;

	if (!EXACT_KEYS)
		return;
	if (there) {
		full_came(wd, key);
		return;
	}
	e = entry_of(wd, key);
	for (uint32_t r = 0; r < B; r++)
		count_row(wd, e->rows[r], false);
	*e = wd->entries[--wd->n_entries];
}

static void rows_changed(void *arg, const struct fake_tail *t, uint32_t first, uint32_t end,
			 bool there)
{
	struct world_domain *wd = arg;
	struct entry *e;
	uint64_t h = 1;

	if (!EXACT_KEYS)
		return;
	e = entry_of(wd, &t->parent);
	if (!e && !wshm_key_same(&t->parent, &wd->root)) {
		world_wrong(wd->w, "a tail hangs below nothing");
		return;
	}
	if (e)
		h = e->rows[B - 1];
	for (uint32_t r = 0; r < end; r++) {
		h = next_row(h, t->tokens[r], r >= t->id.unadapted ? digest_of(t->id.adapter) : 0);
		if (r >= first)
			count_row(wd, h, there);
	}
}

/* --- the world ----------------------------------------------------------------------------------------*/

static void weights_left(struct cache_adapter *a)
{
	(void)a;
}

void world_domain_new(struct world *w, int i, uint8_t secret_seed)
{
	struct world_domain *wd = calloc(1, sizeof(*wd));

	wd->w = w;
	wd->id = ++w->n_ids;
	wd->entries = calloc(w->pool.n + 1, sizeof(*wd->entries));
	wd->rows = calloc(1, sizeof(*wd->rows));
	wd->mirror.full = full_changed;
	wd->mirror.rows = rows_changed;
	wd->mirror.arg = wd;
	for (uint32_t k = 0; k < WSHM_SECRET_BYTES; k++)
		wd->secret[k] = (uint8_t)(secret_seed * 31 + k * 7 + (k >> 3));
	wshm_key_root(&wd->root, wd->secret, &w->root);
	w->domains[i] = wd;
	if (cache_domain_new(w->cache, wd->secret, 1, &wd->mirror, &wd->d))
		bail_out("no memory");
}

void world_domain_free(struct world *w, int i)
{
	struct world_domain *wd = w->domains[i];

	cache_domain_free(wd->d);
	if (wd->mirror.n_full || wd->mirror.n_tails)
		world_wrong(w, "a domain that is gone left something in its mirror");
	if (wd->mirror.wrong)
		world_wrong(w, "a wrong call of the mirror");
	free(wd->entries);
	free(wd->rows);
	free(wd);
	w->domains[i] = NULL;
	if (w->public == i)
		w->public = -1;
}

/* The key of a block below `parent` under the domain's secret, by what the node says of itself. */
static void key_of(const struct world_domain *wd, const struct cache_node *n,
		   const struct wshm_key *parent, struct wshm_key *ret)
{
	struct wshm_identity id = {{0, 0}, n->unadapted};

	if (n->adapter)
		memcpy(id.adapter, n->adapter->digest, sizeof(id.adapter));
	wshm_key_block(ret, wd->secret, parent, &id, n->tokens);
}

static bool has_tail(const struct world_domain *wd, const struct cache_node *n,
		     const struct wshm_key *parent)
{
	for (uint32_t i = 0; i < FAKE_TAILS; i++) {
		const struct fake_tail *t = &wd->mirror.tails[i];

		if (t->used && wshm_key_same(&t->parent, parent) && t->rows == n->rows &&
		    t->id.unadapted == n->unadapted &&
		    !memcmp(t->tokens, n->tokens, n->rows * sizeof(*n->tokens)))
			return true;
	}
	return false;
}

/* The model's entries below a node go over from the keys under one secret to those under the other. */
static void rekey(struct world_domain *wd, const struct world_domain *was,
		  const struct cache_node *parent, struct wshm_key old_parent,
		  struct wshm_key new_parent)
{
	for (const struct cache_node *n = parent->child; n; n = n->next) {
		struct wshm_key old_key, new_key;
		struct entry *e;

		if (n->state != NODE_FULL && n->rows && !has_tail(wd, n, &new_parent))
			world_wrong(wd->w, "a new mirror lacks a tail");
		if (n->state == NODE_TAIL)
			continue;
		key_of(was, n, &old_parent, &old_key);
		key_of(wd, n, &new_parent, &new_key);
		e = n->state == NODE_FULL ? entry_of(wd, &old_key) : NULL;
		if (e)
			e->key = new_key;
		if (n->state == NODE_FULL && (!e || !fake_idx_has(&wd->mirror, &new_key)))
			world_wrong(wd->w, "a new mirror lacks a block");
		rekey(wd, was, n, old_key, new_key);
	}
}

void world_domain_renew(struct world *w, int i, uint8_t secret_seed)
{
	struct world_domain *wd = w->domains[i], *was = malloc(sizeof(*was));

	memcpy(was, wd, sizeof(*was));
	wd->mirror = (struct wshm_idx_writer){.max_tails = was->mirror.max_tails};
	for (uint32_t k = 0; k < WSHM_SECRET_BYTES; k++)
		wd->secret[k] ^= (uint8_t)(secret_seed + k * 5 + 1);
	wshm_key_root(&wd->root, wd->secret, &w->root);
	if (cache_domain_renew(wd->d, wd->secret, &wd->mirror))
		world_wrong(w, "a domain cannot be renewed");
	if (wd->mirror.n_full != was->mirror.n_full || wd->mirror.n_tails != was->mirror.n_tails ||
	    wd->mirror.wrong)
		world_wrong(w, "a new mirror does not show as much as the old one did");
	rekey(wd, was, &wd->d->root, was->root, wd->root);
	wd->mirror.full = full_changed;
	wd->mirror.rows = rows_changed;
	wd->mirror.arg = wd;
	free(was);
}

void world_init(struct world *w, uint32_t n_blocks, int n_domains, const struct wshm_root *root)
{
	struct cache_options opt = {.root = {{1, 2}, 3}};

	memset(w, 0, sizeof(*w));
	w->public = -1;
	if (root)
		opt.root = *root;
	w->root = opt.root;
	if (block_pool_init(&w->pool, n_blocks) || cache_new(&w->cache, &w->pool, &opt))
		bail_out("no memory");
	w->content = calloc(n_blocks, sizeof(*w->content));
	w->author = calloc(n_blocks, sizeof(*w->author));
	for (int i = 0; i < n_domains; i++)
		world_domain_new(w, i, (uint8_t)(i + 1));
	for (int i = 0; i < MAX_ADAPTERS; i++) {
		w->adapters[i].digest[0] = 100 + (uint64_t)i;
		w->adapters[i].digest[1] = 7;
		w->adapters[i].n_blocks = 2 + (uint32_t)i;
		w->adapters[i].left = weights_left;
		cache_adapter_init(&w->adapters[i]);
	}
}

void world_fini(struct world *w)
{
	world_check(w);
	for (int i = 0; i < MAX_DOMAINS; i++)
		if (w->domains[i])
			world_domain_free(w, i);
	for (int i = 0; i < MAX_ADAPTERS; i++)
		cache_adapter_drop(w->cache, &w->adapters[i]);
	if (w->pool.n_free != w->pool.n || w->pool.n_idle)
		world_wrong(w, "blocks have leaked");
	cache_free(w->cache);
	block_pool_fini(&w->pool);
	free(w->content);
	free(w->author);
	ok(!w->errors, "everything was as it must be%s%s", w->errors ? ", but: " : "",
	   w->errors ? w->first : "");
}

uint32_t world_lost(struct world *w)
{
	uint32_t n = 0;

	for (int i = 0; i < MAX_DOMAINS; i++) {
		if (!w->domains[i])
			continue;
		n += w->domains[i]->lost;
		w->domains[i]->lost = 0;
		tidy(w->domains[i]->rows);
	}
	return n;
}

/* What was in a block is gone when the block is free. */
static void poison_free(struct world *w)
{
	for (uint32_t i = 0; i < w->pool.n_free; i++)
		for (uint32_t r = 0; r < B; r++)
			w->content[w->pool.free[i]][r] = POISON;
}

/* --- every count from scratch --------------------------------------------------------------------------*/

struct tally {
	uint16_t *refs, *cached, *pinned;
	uint32_t dependents[MAX_ADAPTERS];
	uint64_t full, tails, promised, blocks, in_heap;
};

static void tally_node(struct world *w, struct tally *t, const struct cache_node *n)
{
	bool may = !n->child && !n->users && !n->pins && !n->owner;

	t->full += n->state == NODE_FULL;
	t->tails += n->state == NODE_TAIL;
	t->promised += n->state == NODE_PROMISED;
	if (n->block != BLOCK_NONE) {
		t->blocks++;
		t->refs[n->block]++;
		t->cached[n->block]++;
		t->pinned[n->block] += n->pins;
	} else if (n->rows) {
		world_wrong(w, "rows without a block");
	}
	if ((n->state == NODE_FULL) != (n->rows == B))
		world_wrong(w, "full without 16 rows, or the other way round");
	if (n->state == NODE_FULL && n->owner)
		world_wrong(w, "a full node with an owner");
	if (n->state == NODE_PROMISED && (!n->owner || !n->owner->on))
		world_wrong(w, "a promise that nobody keeps");
	if (n->state == NODE_TAIL && n->owner && n->owner->tail != n)
		world_wrong(w, "a tail that is not its owner's");
	if (n->adapter)
		t->dependents[n->adapter - w->adapters]++;
	if (n->state != NODE_TAIL && index_find(&n->domain->index, &n->key) != n)
		world_wrong(w, "a node that its key does not lead to");
	if (may != (n->heap_at != NOT_IN_HEAP) || (may && n->domain->heap[n->heap_at] != n))
		world_wrong(w, "in the heap, but needed; or not needed, and not in the heap");
	t->in_heap += may;
	for (const struct cache_node *k = n->child; k; k = k->next) {
		if (k->parent != n || k->index != n->index + 1)
			world_wrong(w, "a child that is not its parent's");
		tally_node(w, t, k);
	}
}

static void tally_domain(struct world *w, struct tally *t, const struct cache_domain *d)
{
	struct tally before = *t;
	struct cache_stats s;

	for (const struct cache_node *n = d->root.child; n; n = n->next)
		tally_node(w, t, n);
	cache_stats(w->cache, d, &s);
	if (s.nodes != t->full - before.full || s.tails != t->tails - before.tails ||
	    s.promised != t->promised - before.promised || s.blocks != t->blocks - before.blocks)
		world_wrong(w, "a domain's figures");
	if (d->n_heap != t->in_heap - before.in_heap)
		world_wrong(w, "a heap's size");
	if (d->index.n != s.nodes + s.promised)
		world_wrong(w, "an index's size");
}

/* Its promises are a path that begins below its last full node. */
static void tally_promises(struct world *w, struct tally *t, const struct cache_chain *ch)
{
	const struct cache_node *parent = ch->node ? ch->node : &ch->domain->root;

	if ((ch->promised && ch->tail) || !ch->promised != !ch->promised_end)
		world_wrong(w, "a chain with a tail and promises, or with half a list");
	for (const struct cache_node *n = ch->promised; n; n = n->child) {
		if (n->owner != ch || n->state != NODE_PROMISED || n->parent != parent ||
		    (n != ch->promised && (n->next || n->prev)) ||
		    (n == ch->promised_end) != !n->child || !t->promised)
			world_wrong(w, "promises that are no path");
		t->promised--;
		parent = n;
	}
}

static void tally_seqs(struct world *w, struct tally *t, uint32_t *users)
{
	for (int i = 0; i < MAX_SEQS; i++) {
		const struct seq *q = w->seqs[i];

		if (!q)
			continue;
		for (uint32_t b = 0; b < q->table.n; b++)
			t->refs[q->table.blocks[b]]++;
		if (q->chain.copying)
			t->refs[q->chain.copy_from]++;
		if (!q->chain.on)
			continue;
		tally_promises(w, t, &q->chain);
		if (q->adapter)
			users[q->adapter - w->adapters]++;
	}
	if (t->promised)
		world_wrong(w, "a promise that is in no chain");
}

static void tally_adapters(struct world *w, struct tally *t, const uint32_t *users)
{
	for (int i = 0; i < MAX_ADAPTERS; i++) {
		const struct cache_adapter *a = &w->adapters[i];

		if (a->dependents != t->dependents[i] || (a->dependents && !a->resident) ||
		    a->users < users[i])
			world_wrong(w, "an adapter's counts");
		for (uint32_t b = 0; a->resident && b < a->n_blocks; b++) {
			t->refs[a->blocks[b]]++;
			t->cached[a->blocks[b]]++;
			t->pinned[a->blocks[b]] += a->users > 0;
		}
	}
}

void world_check(struct world *w)
{
	uint32_t n = w->pool.n, idle = 0, free_blocks = 0, users[MAX_ADAPTERS] = {0}, physical = 0;
	struct tally t = {
		.refs = calloc(n, sizeof(uint16_t)),
		.cached = calloc(n, sizeof(uint16_t)),
		.pinned = calloc(n, sizeof(uint16_t)),
	};
	struct cache_stats s;

	for (int i = 0; i < MAX_DOMAINS; i++)
		if (w->domains[i])
			tally_domain(w, &t, w->domains[i]->d);
	tally_seqs(w, &t, users);
	tally_adapters(w, &t, users);
	for (uint32_t b = 0; b < n; b++) {
		if (t.refs[b] != w->pool.refs[b] || t.cached[b] != w->pool.cached[b] ||
		    t.pinned[b] != w->pool.pinned[b])
			world_wrong(w, "a block's counts");
		idle += t.cached[b] && t.refs[b] == t.cached[b] && !t.pinned[b];
		free_blocks += !t.refs[b];
		physical += t.cached[b] != 0;
	}
	cache_stats(w->cache, NULL, &s);
	if (s.blocks != physical)
		world_wrong(w, "how many blocks the cache has");
	if (idle != w->pool.n_idle || free_blocks != w->pool.n_free)
		world_wrong(w, "the number of idle or free blocks");
	free(t.refs);
	free(t.cached);
	free(t.pinned);
}

/* --- sequences ----------------------------------------------------------------------------------------*/

static void tokens_of(const void *arg, uint32_t first, uint32_t n, uint32_t *ret)
{
	const struct seq *q = arg;

	if (n && (first / B != (first + n - 1) / B || first + n > q->n))
		world_wrong(q->w, "tokens asked for that are not there, or across blocks");
	else
		memcpy(ret, q->tokens + first, n * sizeof(*ret));
}

struct seq *seq_new(struct world *w, int domain, struct cache_adapter *a, uint32_t activation)
{
	struct seq *q = calloc(1, sizeof(*q));

	q->w = w;
	q->domain = domain;
	q->adapter = a;
	q->activation = activation;
	if (block_table_init(&q->table, SEQ_TOKENS / B))
		bail_out("no memory");
	for (int i = 0; i < MAX_SEQS; i++) {
		if (!w->seqs[i]) {
			w->seqs[i] = q;
			return q;
		}
	}
	bail_out("too many sequences");
}

void seq_free(struct seq *q)
{
	seq_leave(q);
	block_table_fini(&q->table);
	for (int i = 0; i < MAX_SEQS; i++)
		if (q->w->seqs[i] == q)
			q->w->seqs[i] = NULL;
	free(q);
}

void seq_append(struct seq *q, const uint32_t *tokens, uint32_t n)
{
	if (q->n + n > SEQ_TOKENS)
		bail_out("too many tokens");
	memcpy(q->tokens + q->n, tokens, n * sizeof(*tokens));
	q->n += n;
}

void seq_numbers(struct seq *q, uint32_t first, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		uint32_t t = first + i;

		seq_append(q, &t, 1);
	}
}

static uint32_t longest(struct world_domain *wd, const uint64_t *rows, uint32_t limit)
{
	uint32_t n = 0;

	while (n < limit && *count_of(wd->rows, rows[n]))
		n++;
	return n;
}

uint32_t naive_match(struct seq *q, uint32_t limit)
{
	struct world *w = q->w;
	uint64_t rows[SEQ_TOKENS];
	uint32_t own, public = 0;

	history(q, limit, rows);
	own = longest(w->domains[q->domain], rows, limit);
	if (w->public >= 0)
	public = longest(w->domains[w->public], rows, limit);
	return own > public ? own : public;
}

static void check_rows(struct seq *q, uint32_t first, uint32_t n, const uint64_t *want,
		       uint32_t block)
{
	for (uint32_t p = first; p < first + n; p++) {
		uint32_t by = q->w->author[block][p % B];

		if (q->w->content[block][p % B] != want[p])
			world_wrong(q->w, "a row that is not what was asked for");
		if (by && by != q->w->domains[q->domain]->id)
			world_wrong(q->w, "a row of another domain");
	}
}

/* Copy the rows that were found into a block of its own, if there is one. */
static uint32_t copy_rows(struct seq *q, const struct cache_found *f)
{
	struct world *w = q->w;
	uint32_t to;

	if (!block_table_grow(&q->table, &w->pool, f->n_full + 1)) {
		cache_copied(&q->chain);
		return 0;
	}
	poison_free(w);
	to = q->table.blocks[f->n_full];
	memset(w->content[to], 0, sizeof(w->content[to]));
	memcpy(w->content[to], w->content[f->tail_block], f->tail_rows * sizeof(uint64_t));
	memcpy(w->author[to], w->author[f->tail_block], f->tail_rows * sizeof(uint32_t));
	cache_copied(&q->chain);
	return f->tail_rows;
}

uint32_t seq_match(struct seq *q, uint32_t limit)
{
	struct world *w = q->w;
	struct cache_found f;
	uint64_t want[SEQ_TOKENS];
	uint32_t naive = naive_match(q, limit);

	q->chain.domain = w->domains[q->domain]->d;
	q->chain.adapter = q->adapter;
	q->chain.activation = q->adapter ? q->activation : WSHM_NO_ACTIVATION;
	q->chain.tokens = tokens_of;
	q->chain.arg = q;
	q->chain.owner = q;
	w->at = q;
	history(q, limit, want);
	if (EXACT_KEYS && cache_peek(&q->chain, limit) != naive)
		world_wrong(w, "a peek does not see what is there");
	cache_match(&q->chain, &q->table, limit, &f);
	q->waits_for = f.wait_for;
	q->waits = f.wait_for != NULL;
	if (f.n_full != q->table.n || f.n_full * B + f.tail_rows > limit)
		world_wrong(w, "more than the limit");
	if (EXACT_KEYS && f.n_full * B + f.tail_rows != naive)
		world_wrong(w, f.n_full * B + f.tail_rows < naive ? "less than what is there"
								  : "more than what is there");
	for (uint32_t i = 0; i < f.n_full; i++)
		check_rows(q, i * B, B, want, q->table.blocks[i]);
	if (f.tail_rows)
		check_rows(q, f.n_full * B, f.tail_rows, want, f.tail_block);
	q->computed = f.n_full * B;
	if (f.tail_rows)
		q->computed += copy_rows(q, &f);
	q->reused = q->computed;
	w->at = NULL;
	return q->reused;
}

void seq_promise(struct seq *q, uint32_t end)
{
	q->w->at = q;
	if (block_table_grow(&q->table, &q->w->pool, blocks_for(end)))
		cache_promise(&q->chain, &q->table, end);
	poison_free(q->w);
	q->w->at = NULL;
}

/* Write a row where nobody else may be reading. */
static void write_row(struct seq *q, uint32_t position, uint64_t digest)
{
	struct world *w = q->w;
	uint32_t b = q->table.blocks[position / B];

	for (int i = 0; i < MAX_SEQS; i++)
		for (uint32_t k = 0; w->seqs[i] && w->seqs[i] != q && k < w->seqs[i]->table.n; k++)
			if (w->seqs[i]->table.blocks[k] == b)
				world_wrong(w, "a shared block is written");
	w->content[b][position % B] = digest;
	w->author[b][position % B] = q->domain == w->public ? 0 : w->domains[q->domain]->id;
}

static void check_resident(struct seq *q, const uint64_t *rows)
{
	struct world_domain *wd = q->w->domains[q->domain];

	if (!EXACT_KEYS)
		return;
	if (q->chain.is_private)
		world_wrong(q->w, "private without a collision");
	for (uint32_t p = 0; p < q->computed; p++)
		if (!*count_of(wd->rows, rows[p]))
			world_wrong(q->w, "a row was committed and is not there");
}

bool seq_compute(struct seq *q, uint32_t end)
{
	struct world *w = q->w;
	uint64_t rows[SEQ_TOKENS];

	w->at = q;
	if (!block_table_grow(&q->table, &w->pool, blocks_for(end)))
		return false;
	poison_free(w);
	world_lost(w);
	history(q, end, rows);
	for (; q->computed < end; q->computed++)
		write_row(q, q->computed, rows[q->computed]);
	cache_commit(&q->chain, &q->table, end);
	if (world_lost(w))
		world_wrong(w, "a commit has lost rows");
	check_resident(q, rows);
	/* Blocks may have been exchanged; the rows in them may not. */
	for (uint32_t p = 0; p < end; p++)
		check_rows(q, p, 1, rows, q->table.blocks[p / B]);
	poison_free(w);
	w->at = NULL;
	return true;
}

void seq_leave(struct seq *q)
{
	world_lost(q->w);
	cache_leave(&q->chain);
	if (world_lost(q->w))
		world_wrong(q->w, "leaving has lost rows");
	block_table_clear(&q->table, &q->w->pool);
	poison_free(q->w);
	q->computed = 0;
}

uint32_t request(struct world *w, int domain, struct cache_adapter *a, uint32_t activation,
		 const uint32_t *tokens, uint32_t n)
{
	struct seq *q;
	uint32_t reused;

	if (a && cache_adapter_enter(w->cache, a))
		bail_out("no room for an adapter");
	q = seq_new(w, domain, a, activation);
	seq_append(q, tokens, n);
	reused = seq_match(q, n - 1);
	if (!seq_compute(q, n))
		bail_out("no room for a request");
	seq_free(q);
	return reused;
}
