/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_adapters.c - weights as nodes: they take blocks of the pool, cannot go while sequences run
 * with them or KV depends on them, go by value like anything else, and come back.
 */
#include "tests/cache/world.h"

#include <errno.h>

static uint32_t T[SEQ_TOKENS];

static struct {
	uint32_t n;
	bool early; /* the blocks were still there */
	struct world *w;
} left;

static void on_left(struct cache_adapter *a)
{
	left.n++;
	left.early = a->resident;
	for (uint32_t i = 0; i < a->n_blocks; i++)
		left.early = left.early && left.w->pool.cached[a->blocks[i]] == 1;
}

static bool take(struct world *w, uint32_t n)
{
	struct block_table t;
	bool rc;

	block_table_init(&t, n);
	rc = block_table_grow(&t, &w->pool, n);
	block_table_clear(&t, &w->pool);
	block_table_fini(&t);
	return rc;
}

static void test_life(void)
{
	struct world w;
	struct cache_adapter *a, *b;

	world_init(&w, 12, 2, NULL);
	left.w = &w;
	a = &w.adapters[0]; /* 2 blocks */
	b = &w.adapters[1]; /* 3 */
	a->left = b->left = on_left;
	is_int(cache_adapter_enter(w.cache, a), 0, "an adapter enters");
	ok(a->resident && w.pool.n_free == 10 && w.pool.n_idle == 2, "in two blocks, idle");
	is_int(cache_adapter_enter(w.cache, a), 0, "again: nothing to do");
	is_int(w.pool.n_free, 10, "and nothing done");
	cache_adapter_use(w.cache, a, true);
	is_int(w.pool.n_idle, 0, "in use they are not idle");
	cache_adapter_use(w.cache, a, true);
	cache_adapter_use(w.cache, a, false);
	is_int(w.pool.n_idle, 0, "nor while one of two users is left");
	ok(!take(&w, 11), "nobody can have them");
	cache_adapter_use(w.cache, a, false);
	is_int(w.pool.n_idle, 2, "without users they are");
	request(&w, 0, a, 20, T, 52);
	request(&w, 1, a, 20, T, 52);
	is_int(a->dependents, 6, "three adapted blocks in each of two domains depend on it");
	is_int(w.pool.n_idle, 10, "and all is idle");
	ok(take(&w, 7) && a->resident,
	   "taking five evicts KV first, older than the last use of it");
	is_int(left.n, 0, "nobody was told anything");
	world_check(&w);
	ok(take(&w, 12), "all twelve can be had");
	ok(!a->resident && left.n == 1 && left.early,
	   "it has left, and said so while its blocks were there");
	ok(!a->blocks && !a->dependents, "nothing is left of it");
	is_int(cache_adapter_enter(w.cache, a), 0, "it comes back");
	is_int(request(&w, 0, a, 20, T, 52), 0, "without the KV that it had");
	world_fini(&w);
}

static void test_no_room(void)
{
	struct world w;
	struct seq *q;

	world_init(&w, 8, 1, NULL);
	w.adapters[3].n_blocks = 5;
	q = seq_new(&w, 0, NULL, 0);
	seq_append(q, T, 64);
	seq_match(q, 63);
	seq_compute(q, 64);
	is_int(cache_adapter_enter(w.cache, &w.adapters[3]), -ENOSPC,
	       "no room while a sequence has it");
	ok(!w.adapters[3].resident && w.pool.n_free == 4 && w.pool.n_idle == 0,
	   "and nothing has changed");
	seq_leave(q);
	is_int(w.pool.n_idle, 4, "what it leaves is idle");
	is_int(cache_adapter_enter(w.cache, &w.adapters[3]), 0, "then there is room");
	is_int(w.pool.n_idle, 3 + 5, "and no more was evicted than was needed");
	seq_free(q);
	world_fini(&w);
}

/* By value: the older of an adapter and KV goes first. */
static void test_order(void)
{
	struct world w;

	world_init(&w, 8, 1, NULL);
	left = (typeof(left)){.w = &w};
	w.adapters[0].left = on_left;
	cache_adapter_enter(w.cache, &w.adapters[0]);
	request(&w, 0, NULL, 0, T, 64);
	ok(take(&w, 4) && left.n == 1 && w.pool.n_idle == 4,
	   "an adapter that is older than all KV goes before it");
	cache_adapter_enter(w.cache, &w.adapters[0]);
	ok(take(&w, 4) && w.adapters[0].resident && w.pool.n_idle == 4, "a newer one stays");
	ok(take(&w, 6) && w.adapters[0].resident && w.pool.n_idle == 2, "until no KV is left");
	ok(take(&w, 7) && !w.adapters[0].resident, "and goes then");
	world_fini(&w);
}

/* A prefix was used whenever what hung below it was. */
static void test_handed_up(void)
{
	struct world w;
	struct seq *q;
	uint32_t other[64] = {1};

	world_init(&w, 24, 1, NULL);
	cache_adapter_enter(w.cache, &w.adapters[0]);
	q = seq_new(&w, 0, &w.adapters[0], 32);
	seq_append(q, T, 64);
	seq_match(q, 63);
	seq_compute(q, 64);
	request(&w, 0, NULL, 0, other, 64);
	seq_free(q);
	cache_adapter_drop(w.cache, &w.adapters[0]);
	ok(take(&w, 24 - 2), "all but two blocks are needed");
	is_int(request(&w, 0, NULL, 0, T, 64), 32,
	       "the prefix that an adapter used last is what stays");
	world_fini(&w);
}

static void test_unload(void)
{
	struct world w;
	struct cache_adapter *a;

	world_init(&w, 64, 2, NULL);
	left = (typeof(left)){.w = &w};
	a = &w.adapters[0];
	a->left = on_left;
	request(&w, 0, a, 20, T, 60);
	request(&w, 1, a, 0, T, 60);
	request(&w, 0, &w.adapters[1], 20, T, 60);
	request(&w, 0, NULL, 0, T, 60);
	cache_adapter_drop(w.cache, a);
	world_check(&w);
	ok(!a->resident && !a->dependents && left.n == 1,
	   "unloaded: nothing depends on it any more");
	a->digest[0] += 1000;
	is_int(request(&w, 0, a, 20, T, 60), 20,
	       "reloaded with other weights: the base's part is there, no more");
	is_int(request(&w, 1, a, 0, T, 60), 0, "and nothing where all was adapted");
	is_int(request(&w, 0, &w.adapters[1], 20, T, 60), 59, "the other adapter lost nothing");
	is_int(request(&w, 0, NULL, 0, T, 60), 59, "nor the base");
	cache_adapter_drop(w.cache, a);
	a->digest[0] -= 1000;
	is_int(request(&w, 0, a, 20, T, 60), 20, "the old weights again: their KV went with them");
	world_fini(&w);
}

int main(void)
{
	if (!EXACT_KEYS)
		skip_all("the figures are those of keys that do not collide");
	for (uint32_t i = 0; i < SEQ_TOKENS; i++)
		T[i] = 1000 + i;
	test_life();
	test_no_room();
	test_order();
	test_unload();
	test_handed_up();
	return tap_done();
}
