/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_domains.c - domains have nothing to do with one another; the public one gives and takes
 * nothing; pins hold.
 */
#include "tests/cache/world.h"

#include <errno.h>

static uint32_t T[SEQ_TOKENS];

static uint64_t mix(uint64_t h, uint64_t x)
{
	h = (h ^ x) * UINT64_C(0x9e3779b97f4a7c15);
	return h ^ h >> 31;
}

/* All that lookups in a domain could depend on, in order; with_use: also what eviction goes by. */
static uint64_t digest_tree(const struct cache_node *n, bool with_use)
{
	uint64_t h = 1;

	for (; n; n = n->next) {
		for (uint32_t r = 0; r < n->rows; r++)
			h = mix(h, n->tokens[r]);
		h = mix(mix(mix(h, n->state), n->rows), n->unadapted);
		h = mix(h, n->adapter ? n->adapter->digest[0] : 0);
		h = mix(mix(h, n->users), n->pins);
		if (with_use)
			h = mix(mix(mix(h, n->last_use), n->visits), n->heap_at);
		h = mix(h, digest_tree(n->child, with_use));
	}
	return h;
}

static void test_public(void)
{
	struct world w;
	struct cache_pin *p;
	struct cache_stats s;
	struct seq *q;
	uint32_t n;
	uint64_t before;

	world_init(&w, 40, 3, NULL);
	w.public = 2;
	cache_set_public(w.cache, w.domains[2]->d);
	request(&w, 2, NULL, 0, T, 70);
	p = cache_pin_new(w.domains[2]->d, T, 70, &n);
	is_int(n, 70, "a public prefix is pinned to its last token");
	before = digest_tree(w.domains[2]->d->root.child, true);
	is_int(request(&w, 0, NULL, 0, T, 100), 70,
	       "a tenant takes all of it, rows of the tail too");
	is_int(request(&w, 0, &w.adapters[0], 40, T, 100), 40,
	       "an adapter as much as is the base's");
	ok(digest_tree(w.domains[2]->d->root.child, true) == before, "which leaves no trace there");
	ok(w.domains[0]->d->root.child->block == w.domains[2]->d->root.child->block,
	   "the tenant's own node has the same block");
	is_int(request(&w, 2, NULL, 0, T, 100), 70,
	       "the public domain takes nothing from a tenant");
	is_int(request(&w, 1, NULL, 0, T, 71), 70, "another tenant sees the public prefix");
	is_int(request(&w, 1, NULL, 0, T, 100), 99, "as far as it goes");

	/* Published only after a tenant had it: blocks are different, what is found is not. */
	q = seq_new(&w, 0, NULL, 0);
	seq_append(q, T, 100);
	is_int(seq_match(q, 99), 99, "a sequence has the prefix");
	cache_drop(w.cache, NULL);
	world_check(&w);
	cache_stats(w.cache, w.domains[2]->d, &s);
	ok(s.nodes == 4 && s.tails == 1 && s.pinned == 5, "what is pinned is not dropped");
	is_int(w.domains[0]->d->stats.nodes, 6, "nor what is used");
	world_domain_free(&w, 2);
	cache_pin_free(p);
	world_check(&w);
	seq_compute(q, 100);
	seq_free(q);
	is_int(request(&w, 0, NULL, 0, T, 100), 99, "a tenant's nodes outlive the public domain");
	is_int(request(&w, 1, NULL, 0, T, 100), 0, "the others no longer have it");
	world_fini(&w);
}

static void test_pins(void)
{
	struct world w;
	struct cache_pin *p, *r;
	struct block_table t;
	uint32_t n;

	world_init(&w, 16, 1, NULL);
	request(&w, 0, NULL, 0, T, 100);
	p = cache_pin_new(w.domains[0]->d, T, 48, &n);
	r = cache_pin_new(w.domains[0]->d, T, 32, &n);
	is_int(n, 32, "two pins over one prefix");
	is_int(w.domains[0]->d->stats.pinned, 3, "pin three nodes");
	is_int(w.pool.n_idle, 4, "which are not idle");
	block_table_init(&t, 16);
	ok(!block_table_grow(&t, &w.pool, 14), "and not to be had");
	ok(block_table_grow(&t, &w.pool, 13), "all others are");
	block_table_clear(&t, &w.pool);
	is_int(request(&w, 0, NULL, 0, T, 100), 48, "the pinned ones are still there");
	cache_pin_free(p);
	is_int(w.domains[0]->d->stats.pinned, 2, "one pin less");
	cache_drop(w.cache, NULL);
	is_int(request(&w, 0, NULL, 0, T, 100), 32, "the other one holds its own");
	cache_pin_free(r);
	ok(block_table_grow(&t, &w.pool, 16), "without pins everything can be had");
	block_table_clear(&t, &w.pool);
	block_table_fini(&t);
	p = cache_pin_new(w.domains[0]->d, T, 48, &n);
	is_int(n, 0, "what is not there cannot be pinned");
	cache_pin_free(p);
	request(&w, 0, NULL, 0, T, 70);
	p = cache_pin_new(w.domains[0]->d, T, 68, &n);
	is_int(n, 68, "rows of a tail are");
	request(&w, 0, NULL, 0, T, 75);
	cache_drop(w.cache, NULL);
	is_int(request(&w, 0, NULL, 0, T, 100), 70, "and stay, though a longer tail has come");
	cache_pin_free(p);
	cache_pin_free(NULL);
	world_fini(&w);
}

/* Another secret and another mirror: what there is stays, running sequences and pins too. */
static void test_renew(void)
{
	struct world w;
	struct cache_pin *p;
	struct seq *q;
	uint32_t n;
	uint64_t before;

	world_init(&w, 40, 2, NULL);
	request(&w, 0, NULL, 0, T, 70);
	request(&w, 0, &w.adapters[0], 40, T, 100);
	request(&w, 1, NULL, 0, T, 50);
	p = cache_pin_new(w.domains[0]->d, T, 70, &n);
	q = seq_new(&w, 0, NULL, 0);
	seq_append(q, T, 150);
	seq_match(q, 100);
	seq_promise(q, 140);
	seq_compute(q, 90);
	before = digest_tree(w.domains[0]->d->root.child, true);
	world_domain_renew(&w, 0, 77);
	world_check(&w);
	ok(digest_tree(w.domains[0]->d->root.child, true) == before,
	   "a domain with another secret has the same tree");
	ok(seq_compute(q, 150), "a sequence that runs goes on");
	seq_free(q);
	is_int(request(&w, 0, NULL, 0, T, 150), 149, "and what it computes is found");
	is_int(request(&w, 0, &w.adapters[0], 40, T, 100), 99, "as is what an adapter has");
	is_int(request(&w, 1, NULL, 0, T, 100), 50, "other domains notice nothing");
	cache_drop(w.cache, NULL);
	is_int(request(&w, 0, NULL, 0, T, 100), 70, "and a pin holds");
	world_check(&w);
	cache_pin_free(p);
	world_domain_renew(&w, 1, 78);
	world_fini(&w);
}

/* Keys of 8 bits: two of 36 meet, sooner or later. An engine ends then. */
static void test_renew_collides(void)
{
	static struct world w; /* nothing can be done with it after that */
	struct world_domain *wd;
	int rc = 0;

	world_init(&w, 40, 1, NULL);
	wd = w.domains[0];
	for (uint32_t i = 0; i < 36; i++)
		request(&w, 0, NULL, 0, T + 3 * i, 17);
	for (int i = 0; i < 1000 && !rc; i++) {
		wd->secret[i % 16] += 1 + i / 16;
		wd->mirror.n_full = wd->mirror.n_tails = 0;
		rc = cache_domain_renew(wd->d, wd->secret, NULL);
	}
	is_int(rc, -EEXIST, "keys that become one are found");
}

static uint64_t seed;

static uint32_t rnd(uint32_t n)
{
	seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
	return (uint32_t)(seed >> 33) % n;
}

static void random_request(struct world *w, int domain, uint64_t s, uint64_t *digest)
{
	uint64_t saved = seed;
	uint32_t t[120], n, a;
	struct cache_adapter *ad;
	uint32_t reused;

	seed = s;
	n = 2 + rnd(118);
	a = rnd(n);
	ad = rnd(3) ? NULL : &w->adapters[rnd(2)];
	for (uint32_t i = 0; i < n; i++)
		t[i] = i < 60 ? 1 : rnd(2);
	reused = request(w, domain, ad, a, t, n);
	if (digest)
		*digest = mix(*digest, reused);
	seed = saved;
}

/* What a tenant sees, and all that it could ever see, is the same with and without others. */
static uint64_t history_of(bool others, bool publish)
{
	struct world w;
	uint64_t h = 1;
	struct cache_stats s;

	world_init(&w, 30000, 3, NULL);
	if (publish) {
		w.public = 2;
		cache_set_public(w.cache, w.domains[2]->d);
		random_request(&w, 2, 1, NULL);
		random_request(&w, 2, 2, NULL);
	}
	for (uint64_t i = 0; i < 300; i++) {
		if (others)
			for (uint64_t k = 0; k < i % 4; k++)
				random_request(&w, 1, k % 2 ? i : 5000 + i * 4 + k, NULL);
		random_request(&w, 0, i, &h);
		h = mix(h, digest_tree(w.domains[0]->d->root.child, false));
		if (publish)
			h = mix(h, digest_tree(w.domains[2]->d->root.child, false));
	}
	cache_stats(w.cache, w.domains[0]->d, &s);
	for (size_t i = 0; i < sizeof(s) / sizeof(uint64_t); i++)
		h = mix(h, ((const uint64_t *)&s)[i]);
	/* The order in which its nodes would go. */
	while (w.domains[0]->d->n_heap) {
		struct cache_node *n = w.domains[0]->d->heap[0];

		h = mix(mix(h, n->tokens[0]), n->index);
		node_free(n);
	}
	world_fini(&w);
	return h;
}

static void test_apart(void)
{
	ok(history_of(false, false) == history_of(true, false),
	   "all of a tenant's lookups, its tree and its order of eviction are the same beside "
	   "another");
	ok(history_of(false, true) == history_of(true, true), "with a public domain too");
	ok(history_of(false, false) != history_of(false, true),
	   "(which makes a difference that is seen)");
}

int main(void)
{
	for (uint32_t i = 0; i < SEQ_TOKENS; i++)
		T[i] = 1000 + i;
	if (EXACT_KEYS) {
		test_public();
		test_pins();
		test_renew();
	} else {
		test_renew_collides();
	}
	test_apart();
	return tap_done();
}
