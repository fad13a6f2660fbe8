/* SPDX-License-Identifier: Apache-2.0 */
/* test_rules.c - each rule of the cache by itself, on small worlds. */
#include "tests/cache/world.h"

/* How much of a request with these tokens is reused; with short keys that is an upper bound. */
#define reuses(got, want, ...)                              \
	do {                                                \
		uint32_t r_got = (got), r_want = (want);    \
		if (EXACT_KEYS)                             \
			is_int(r_got, r_want, __VA_ARGS__); \
		else                                        \
			ok(r_got <= r_want, __VA_ARGS__);   \
	} while (0)

static uint32_t T[SEQ_TOKENS]; /* 1000, 1001, ... */

static void number_tokens(const void *arg, uint32_t first, uint32_t n, uint32_t *ret)
{
	memcpy(ret, ((const struct seq *)arg)->tokens + first, n * sizeof(*ret));
}

static void test_prefix(void)
{
	struct world w;
	uint32_t other[64];

	world_init(&w, 64, 2, NULL);
	reuses(request(&w, 0, NULL, 0, T, 50), 0, "an empty cache has nothing");
	reuses(request(&w, 0, NULL, 0, T, 50), 49, "the same again: all but the last position");
	reuses(request(&w, 0, NULL, 0, T, 48), 47,
	       "a shorter one that ends with a block: a copy of 15 rows");
	reuses(request(&w, 0, NULL, 0, T, 60), 50, "a longer one: all of the tail");
	reuses(request(&w, 0, NULL, 0, T, 60), 59, "whose tail has grown by now");
	memcpy(other, T, sizeof(other));
	other[37] = 5;
	reuses(request(&w, 0, NULL, 0, other, 60), 37, "up to the token that differs");
	other[0] = 5;
	reuses(request(&w, 0, NULL, 0, other, 60), 0, "nothing when the first one does");
	reuses(request(&w, 1, NULL, 0, T, 50), 0, "another domain has nothing of it");
	world_fini(&w);
}

/* base, two aLoRAs and a LoRA in turn over the same tokens; a: where the aLoRAs start. */
static void test_directions(void)
{
	struct world w;
	struct cache_adapter *A, *Bd, *L;
	const uint32_t n = 100, a = 53;

	world_init(&w, 128, 1, NULL);
	A = &w.adapters[0];
	Bd = &w.adapters[1];
	L = &w.adapters[2];
	reuses(request(&w, 0, A, a, T, n), 0, "an adapter comes first");
	reuses(request(&w, 0, NULL, 0, T, n), a, "the base takes what the adapter left unadapted");
	reuses(request(&w, 0, Bd, a, T, n), a, "another adapter takes as much");
	reuses(request(&w, 0, Bd, 80, T, n), 80, "one that starts later takes the base's");
	reuses(request(&w, 0, A, a, T, n), n - 1, "the same adapter takes its own rows too");
	reuses(request(&w, 0, A, 48, T, n), 48,
	       "the same adapter from an earlier row: up to there");
	reuses(request(&w, 0, A, 60, T, n), 60, "from a later row: the base's rows");
	reuses(request(&w, 0, NULL, 0, T, n), n - 1, "the base after all of them: its own");
	reuses(request(&w, 0, L, 0, T, n), 0, "a LoRA takes nothing of theirs");
	reuses(request(&w, 0, L, 0, T, n), n - 1, "and all of its own");
	reuses(request(&w, 0, A, 0, T, n), 0, "an aLoRA that starts at 0 is not that LoRA");
	for (uint32_t at = 62; at <= 66; at++)
		reuses(request(&w, 0, A, at, T, n), at, "starting at %u: %u", at, at);
	world_fini(&w);
}

/* Each field of a block's identity, varied alone, must miss. */
static void test_identity(void)
{
	static const struct wshm_root roots[] = {
		{{1, 2}, 3}, {{9, 2}, 3}, {{1, 9}, 3}, {{1, 2}, 9}};
	struct world w[4], v;
	struct wshm_key key[4];
	bool differ = true;
	uint32_t n, miss = 0, t[33];

	for (int i = 0; i < 4; i++) {
		world_init(&w[i], 16, 1, &roots[i]);
		key[i] = w[i].domains[0]->d->root.key;
		for (int k = 0; k < i; k++)
			differ = differ && !wshm_key_same(&key[i], &key[k]);
		world_fini(&w[i]);
	}
	if (EXACT_KEYS)
		ok(differ, "model (both halves) and exactness class change every key");
	world_init(&v, 64, 2, NULL);
	memcpy(t, T, sizeof(t));
	request(&v, 0, &v.adapters[0], 5, t, 33);
	for (n = 0; n < 33; n++) {
		t[n] ^= 1u << n % 32;
		miss += request(&v, 0, &v.adapters[0], 5, t, 33) == (n < 32 ? n : 32);
		t[n] ^= 1u << n % 32;
		cache_drop(v.cache, NULL);
		request(&v, 0, &v.adapters[0], 5, t, 33);
	}
	if (EXACT_KEYS)
		is_int(miss, 33, "each token, changed by one bit, ends the match there");
	v.adapters[1].digest[0] = v.adapters[0].digest[0];
	v.adapters[1].digest[1] = v.adapters[0].digest[1] + 1;
	reuses(request(&v, 0, &v.adapters[1], 5, t, 33), 5,
	       "an adapter whose digest differs in its other half");
	reuses(request(&v, 0, &v.adapters[0], 4, t, 33), 4, "one row less unadapted");
	reuses(request(&v, 0, &v.adapters[0], 6, t, 33), 5,
	       "one row more: only what the base's rows are");
	reuses(request(&v, 0, NULL, 0, t, 33), 6, "no adapter");
	reuses(request(&v, 1, &v.adapters[0], 5, t, 33), 0, "another secret");
	/* The same second block below another first one. */
	t[0] = 1;
	reuses(request(&v, 0, &v.adapters[0], 5, t, 33), 0, "another parent");
	world_fini(&v);
}

static void test_running(void)
{
	struct world w;
	struct seq *p, *q, *r;

	world_init(&w, 64, 1, NULL);
	p = seq_new(&w, 0, NULL, 0);
	seq_numbers(p, 1000, 70);
	seq_match(p, 69);
	seq_promise(p, 70);
	q = seq_new(&w, 0, NULL, 0);
	seq_numbers(q, 1000, 70);
	if (EXACT_KEYS) {
		is_int(seq_match(q, 69), 0, "what is only promised is not taken");
		ok(q->waits && q->waits_for == &p->chain, "but who promised it is said");
		seq_leave(q);
		seq_compute(p, 20);
		is_int(seq_match(q, 69), 20,
		       "rows of a promised block are copied as far as they are there");
		ok(q->waits, "and there is more to wait for");
		seq_leave(q);
		is_int(seq_match(q, 31), 20, "a limit inside the promised block");
		ok(!q->waits, "makes waiting useless");
		seq_leave(q);
		seq_compute(p, 66);
		is_int(seq_match(q, 69), 66, "a running tail is copied from");
		ok(!q->waits, "nothing is promised any more");
		seq_leave(q);
		seq_compute(p, 70);
		seq_numbers(p, 5000, 30);
		seq_promise(p, 100);
		seq_compute(p, 75);
	} else {
		seq_match(q, 69);
		seq_leave(q);
		seq_compute(p, 75 <= p->n ? 75 : 70);
		seq_numbers(p, 5000, 30);
	}
	seq_leave(p);
	r = seq_new(&w, 0, NULL, 0);
	seq_append(r, p->tokens, 100);
	reuses(seq_match(r, 99), 75, "one that is preempted leaves the rows that it has");
	ok(!r->waits, "and no promise");
	seq_free(r);
	seq_free(q);
	seq_free(p);
	world_fini(&w);
}

/* Two that compute the same end up under one node. */
static void test_duplicates(void)
{
	struct world w;
	struct seq *p, *q;
	struct cache_stats s;

	world_init(&w, 64, 1, NULL);
	p = seq_new(&w, 0, NULL, 0);
	q = seq_new(&w, 0, NULL, 0);
	seq_numbers(p, 1000, 100);
	seq_numbers(q, 1000, 100);
	seq_match(p, 99);
	seq_match(q, 99);
	seq_promise(p, 100);
	seq_compute(p, 40);
	seq_compute(q, 36);
	if (EXACT_KEYS) {
		ok(p->table.blocks[0] == q->table.blocks[0] &&
			   p->table.blocks[1] == q->table.blocks[1],
		   "full blocks are exchanged for the ones that are there");
		ok(p->table.blocks[2] != q->table.blocks[2], "the partial one stays its own");
	}
	seq_compute(q, 64); /* blocks 2, 3: promised by p */
	seq_compute(p, 100);
	if (EXACT_KEYS)
		ok(p->table.blocks[3] == q->table.blocks[3],
		   "whoever fills a promised block first has it");
	cache_stats(w.cache, NULL, &s);
	if (EXACT_KEYS)
		is_int(s.nodes, 6, "six full nodes for both");
	seq_free(q);
	seq_free(p);
	world_fini(&w);
}

static void test_tails(void)
{
	struct world w;
	struct cache_stats s;
	uint32_t t[40];

	world_init(&w, 64, 1, NULL);
	for (uint32_t n = 18; n < 30; n++)
		request(&w, 0, NULL, 0, T, n);
	cache_stats(w.cache, NULL, &s);
	is_int(s.tails, 1, "a longer tail takes the place of those it contains");
	request(&w, 0, NULL, 0, T, 20);
	cache_stats(w.cache, NULL, &s);
	is_int(s.tails, 1, "a shorter one is not kept beside it");
	memcpy(t, T, sizeof(t));
	t[25] = 1;
	reuses(request(&w, 0, NULL, 0, t, 28), 25, "one that parts from it takes what agrees");
	cache_stats(w.cache, NULL, &s);
	is_int(s.tails, 2, "and stays beside it");
	request(&w, 0, NULL, 0, T, 33);
	cache_stats(w.cache, NULL, &s);
	if (EXACT_KEYS)
		ok(s.tails == 2 && s.nodes == 2, "a full node takes the place of its tail");
	world_fini(&w);
}

/* Rows to copy are looked for among so many children, those used last. */
static void test_many_children(void)
{
	struct world w;
	uint32_t t[20], n = CACHE_SCAN + 30;
	struct cache_domain *d;
	struct cache_chain ch = {0};
	struct seq *q;

	if (!EXACT_KEYS)
		return;
	world_init(&w, 256, 1, NULL);
	for (uint32_t i = 0; i < n; i++) {
		for (uint32_t k = 0; k < 20; k++)
			t[k] = 1000 * i + k;
		request(&w, 0, NULL, 0, t, 20);
	}
	d = w.domains[0]->d;
	q = seq_new(&w, 0, NULL, 0);
	seq_numbers(q, 1000 * (n - CACHE_SCAN), 10);
	is_int(seq_match(q, 9), 9, "the last that is looked at");
	seq_free(q);
	q = seq_new(&w, 0, NULL, 0);
	seq_numbers(q, 1000 * (n - CACHE_SCAN - 2), 20);
	ch.domain = d;
	ch.activation = WSHM_NO_ACTIVATION;
	ch.tokens = number_tokens;
	ch.arg = q;
	is_int(cache_peek(&ch, 9), 0, "one before it is not");
	is_int(seq_match(q, 19), 19, "but is found by its key when the block is whole");
	seq_leave(q);
	is_int(cache_peek(&ch, 9), 9, "which brings it to the front");
	seq_free(q);
	world_fini(&w);
}

/* A mirror may lack a tail; the cache does not. */
static void test_mirror_full(void)
{
	struct world w;
	struct seq *q[3];

	if (!EXACT_KEYS)
		return;
	world_init(&w, 64, 1, NULL);
	w.domains[0]->mirror.max_tails = 1;
	w.domains[0]->mirror.full = NULL; /* the model does not follow this */
	w.domains[0]->mirror.rows = NULL;
	for (uint32_t i = 0; i < 3; i++) {
		q[i] = seq_new(&w, 0, NULL, 0);
		seq_numbers(q[i], 1000 * i, 40);
		q[i]->chain = (struct cache_chain){
			.domain = w.domains[0]->d,
			.activation = WSHM_NO_ACTIVATION,
			.tokens = number_tokens,
			.arg = q[i],
		};
	}
	for (uint32_t i = 0; i < 3; i++) {
		struct cache_found f;

		cache_match(&q[i]->chain, &q[i]->table, 39, &f);
		block_table_grow(&q[i]->table, &w.pool, 3);
		for (uint32_t n = 1; n < 38; n++)
			cache_commit(&q[i]->chain, &q[i]->table, n);
	}
	is_int(w.domains[0]->mirror.n_tails, 1, "one tail is in the mirror");
	is_int(cache_peek(&q[2]->chain, 40), 37, "all are in the cache");
	for (uint32_t i = 0; i < 3; i++) {
		cache_leave(&q[i]->chain);
		block_table_clear(&q[i]->table, &w.pool);
	}
	cache_drop(w.cache, NULL);
	is_int(w.domains[0]->mirror.n_tails + w.domains[0]->mirror.n_full, 0,
	       "and none afterwards");
	is_int(w.domains[0]->mirror.wrong, 0, "no wrong call was made");
	for (uint32_t i = 0; i < 3; i++)
		seq_free(q[i]);
	world_fini(&w);
}

static void test_figures(void)
{
	struct world w;
	struct seq *p, *q;
	struct cache_stats s, all;

	if (!EXACT_KEYS)
		return;
	world_init(&w, 64, 2, NULL);
	p = seq_new(&w, 0, NULL, 0);
	seq_append(p, T, 70);
	seq_match(p, 69);
	seq_promise(p, 70);
	seq_compute(p, 20);
	q = seq_new(&w, 0, NULL, 0);
	seq_append(q, T, 70);
	seq_match(q, 69);
	cache_stats(w.cache, w.domains[0]->d, &s);
	ok(s.nodes == 1 && s.promised == 3 && s.tails == 0, "one full node, three promised");
	is_int(s.blocks, 2, "two blocks: the promised one with rows is the second");
	ok(s.misses == 4 && s.waits == 1 && !s.hits_full, "what waits neither hits nor misses");
	seq_leave(q);
	seq_compute(p, 70);
	for (int i = 0; i < 3; i++) {
		seq_match(q, 55);
		seq_leave(q);
	}
	seq_match(q, 55);
	cache_stats(w.cache, w.domains[0]->d, &s);
	ok(!s.hits_full && !s.hits_rows && s.misses == 4,
	   "nor does one that finds no room, however often");
	seq_compute(q, 60);
	cache_stats(w.cache, w.domains[0]->d, &s);
	ok(s.hits_full == 3 && s.hits_rows == 7 && s.misses == 4,
	   "three blocks and seven rows hit");
	ok(s.inserted == 4 && s.nodes == 4 && s.tails == 2 && !s.promised,
	   "four inserted, two tails");
	request(&w, 1, NULL, 0, T, 16);
	cache_adapter_enter(w.cache, &w.adapters[0]);
	cache_stats(w.cache, NULL, &all);
	ok(all.nodes == 5 && all.hits_full == 3 && all.adapters == 1,
	   "in all: a domain's and another's");
	is_int(all.blocks, 5 + 2 + 2, "and an adapter's blocks");
	seq_free(p);
	seq_free(q);
	is_int(cache_drop(w.cache, NULL), 8, "all dropped");
	cache_stats(w.cache, NULL, &all);
	ok(!all.nodes && !all.tails && !all.adapters && !all.blocks, "nothing is left");
	ok(all.evicted == 6 && all.adapters_evicted == 1, "and said to be evicted");
	world_domain_free(&w, 0);
	cache_stats(w.cache, NULL, &all);
	is_int(all.evicted, 6, "what is counted stays when a domain goes");
	world_fini(&w);
}

/* Somebody needs n blocks for a moment. */
static void take(struct world *w, uint32_t n)
{
	struct block_table t;

	block_table_init(&t, n);
	ok(block_table_grow(&t, &w->pool, n), "%u blocks are to be had", n);
	block_table_clear(&t, &w->pool);
	block_table_fini(&t);
}

static void test_eviction(void)
{
	struct world w;
	struct seq *q, *probe;
	struct block_table t4;
	uint32_t t[160];

	world_init(&w, 10, 2, NULL);
	request(&w, 0, NULL, 0, T, 64);
	for (uint32_t i = 0; i < 160; i++)
		t[i] = i;
	is_int(w.pool.n_idle, 4, "what a request leaves behind is idle");
	q = seq_new(&w, 0, NULL, 0);
	seq_append(q, t, 160);
	seq_match(q, 159);
	ok(seq_compute(q, 112), "seven more blocks than the four that are kept");
	is_int(w.pool.n_idle, 3, "take one of them");
	block_table_init(&t4, 4);
	ok(!block_table_grow(&t4, &w.pool, 4) && w.pool.n_idle == 3,
	   "who wants too many costs nothing");
	block_table_fini(&t4);
	ok(block_table_grow(&q->table, &w.pool, 10), "all ten can be had");
	is_int(w.pool.n_idle + w.pool.n_free, 0, "then there is none");
	ok(block_get(&w.pool) == BLOCK_NONE, "and none comes");
	world_check(&w);
	seq_free(q);
	is_int(w.pool.n_free + w.pool.n_idle, 10, "at the end all are available again");
	world_fini(&w);

	/* A sequence goes from its end, the least recently used first. */
	world_init(&w, 10, 1, NULL);
	request(&w, 0, NULL, 0, T, 64);
	request(&w, 0, NULL, 0, t, 64);
	request(&w, 0, NULL, 0, T, 64);
	take(&w, 4);
	probe = seq_new(&w, 0, NULL, 0);
	seq_append(probe, t, 64);
	reuses(seq_match(probe, 63), 32, "the older sequence lost its last two blocks");
	seq_free(probe);
	probe = seq_new(&w, 0, NULL, 0);
	seq_append(probe, T, 64);
	reuses(seq_match(probe, 63), 63, "the newer one none");
	seq_free(probe);
	world_fini(&w);

	/* From the domain that has most for its weight. */
	world_init(&w, 12, 2, NULL);
	request(&w, 0, NULL, 0, T, 96);
	request(&w, 1, NULL, 0, T, 64);
	cache_domain_weight(w.domains[0]->d, 2);
	take(&w, 5);
	is_int(w.domains[0]->d->stats.blocks, 5, "three of five come from");
	is_int(w.domains[1]->d->stats.blocks, 2, "the lighter one");
	is_int(cache_drop(w.cache, w.domains[0]->d), 5, "one domain is dropped");
	is_int(w.domains[1]->d->stats.blocks, 2, "the other is not");
	world_fini(&w);
}

int main(void)
{
	for (uint32_t i = 0; i < SEQ_TOKENS; i++)
		T[i] = 1000 + i;
	test_prefix();
	test_directions();
	test_identity();
	test_running();
	test_duplicates();
	test_tails();
	test_eviction();
	test_figures();
	test_many_children();
	test_mirror_full();
	return tap_done();
}
