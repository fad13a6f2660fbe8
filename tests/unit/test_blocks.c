/* SPDX-License-Identifier: Apache-2.0 */
/* test_blocks.c - the block pool and block tables: counts, sharing, exhaustion, random use. */
#include "daemon/engine/blocks.h"
#include "tests/tap.h"

static void test_pool(void)
{
	struct block_pool p;
	bool seen[5] = {false};
	bool distinct = true;

	ok(block_pool_init(&p, 5) == 0, "a pool of 5 blocks");
	for (int i = 0; i < 5; i++) {
		uint32_t b = block_get(&p);

		distinct = distinct && b < 5 && !seen[b];
		seen[b < 5 ? b : 0] = true;
	}
	ok(distinct, "every block is given out once");
	is_int(block_get(&p), BLOCK_NONE, "an empty pool gives none");
	block_ref(&p, 3);
	block_put(&p, 3);
	is_int(p.n_free, 0, "a block with a second reference stays in use");
	block_put(&p, 3);
	is_int(p.n_free, 1, "and is free without the last one");
	is_int(block_get(&p), 3, "the block just freed is the next given out");
	block_pool_fini(&p);
}

static void test_table(void)
{
	struct block_pool p;
	struct block_table a, b;

	is_int(blocks_for(0), 0, "no positions take no block");
	is_int(blocks_for(16), 1, "16 positions take one");
	is_int(blocks_for(17), 2, "17 take two");
	block_pool_init(&p, 8);
	block_table_init(&a, 8);
	block_table_init(&b, 8);
	ok(block_table_grow(&a, &p, 5), "a table grows to 5");
	ok(!block_table_grow(&b, &p, 4), "another cannot grow to 4");
	is_int(b.n, 0, "and is unchanged by trying");
	is_int(p.n_free, 3, "as is the pool");
	block_table_share(&b, &p, &a, 3);
	is_int(p.n_free, 3, "sharing takes no block");
	ok(b.n == 3 && b.blocks[2] == a.blocks[2], "but the same ones");
	ok(block_table_grow(&b, &p, 5), "the sharer grows by its own");
	ok(b.blocks[3] != a.blocks[3], "which are not the other's");
	block_table_clear(&a, &p);
	is_int(p.n_free, 3, "the first holder's leaving frees what it alone had");
	block_table_clear(&b, &p);
	is_int(p.n_free, 8, "the last one's frees all");
	block_table_fini(&a);
	block_table_fini(&b);
	block_pool_fini(&p);
}

/* Random growing, sharing and clearing; the counts must be those of an independent tally. */
static void test_random(void)
{
	enum { TABLES = 12, BLOCKS = 40, CAP = 30 };
	struct block_pool p;
	struct block_table t[TABLES];
	uint32_t x = 12345;
	bool good = true;

	block_pool_init(&p, BLOCKS);
	for (int i = 0; i < TABLES; i++)
		block_table_init(&t[i], CAP);
	for (int step = 0; step < 20000; step++) {
		uint32_t i, j, tally[BLOCKS] = {0}, used = 0;

		x = x * 1664525 + 1013904223;
		i = (x >> 8) % TABLES;
		j = (x >> 16) % TABLES;
		if ((x >> 28) < 6)
			block_table_grow(&t[i], &p, (x >> 12) % CAP + 1);
		else if ((x >> 28) < 11)
			block_table_clear(&t[i], &p);
		else if (i != j && !t[i].n)
			block_table_share(&t[i], &p, &t[j], t[j].n / 2);
		for (int k = 0; k < TABLES; k++)
			for (uint32_t b = 0; b < t[k].n; b++)
				tally[t[k].blocks[b]]++;
		for (int b = 0; b < BLOCKS; b++) {
			good = good && tally[b] == p.refs[b];
			used += tally[b] != 0;
		}
		good = good && used + p.n_free == BLOCKS;
	}
	ok(good, "20,000 random operations keep every reference count right");
	for (int i = 0; i < TABLES; i++) {
		block_table_clear(&t[i], &p);
		block_table_fini(&t[i]);
	}
	is_int(p.n_free, BLOCKS, "and lose no block");
	block_pool_fini(&p);
}

/* A cache that has nothing but one reference of each block in a list. */
static struct {
	uint32_t kept[8], n;
} cache;

static void give_up(void *arg, uint32_t want)
{
	while (want-- && cache.n)
		block_put_cached(arg, cache.kept[--cache.n]);
}

static void test_idle(void)
{
	struct block_pool p;
	struct block_table t;
	uint32_t b;

	block_pool_init(&p, 8);
	p.reclaim = give_up;
	p.arg = &p;
	for (uint32_t i = 0; i < 6; i++) {
		b = block_get(&p);
		block_ref_cached(&p, b);
		if (i == 0)
			is_int(p.n_idle, 0, "a block that the cache and another has is not idle");
		block_put(&p, b);
		cache.kept[cache.n++] = b;
	}
	ok(p.n_idle == 6 && p.n_free == 2, "those that only the cache has are");
	is_int(blocks_available(&p), 8, "and are available like free ones");
	b = cache.kept[0];
	block_ref_cached(&p, b);
	is_int(p.n_idle, 6, "two references of the cache's are still the cache's alone");
	block_put_cached(&p, b);
	block_pin(&p, b, true);
	block_pin(&p, b, true);
	block_pin(&p, b, false);
	is_int(p.n_idle, 5, "a pinned one is not idle, until the last pin has gone");
	block_ref(&p, cache.kept[1]);
	is_int(p.n_idle, 4, "nor one that is shared");
	block_table_init(&t, 8);
	ok(!block_table_grow(&t, &p, 7) && !t.n && cache.n == 6, "seven blocks are not to be had");
	ok(block_table_grow(&t, &p, 4), "four are, two of them idle ones");
	ok(cache.n == 4 && p.n_idle == 2 && !p.n_free, "as many were given up as were missing");
	ok(block_get(&p) != BLOCK_NONE && cache.n == 3, "a single one comes the same way");
	ok(block_get(&p) != BLOCK_NONE && cache.n == 2, "and the last one");
	is_int(block_get(&p), BLOCK_NONE, "then there is none");
	is_int(cache.n, 2, "and nothing is given up in vain");
	block_pin(&p, b, false);
	is_int(p.n_idle, 1, "without its pin one is idle again");
	block_put(&p, cache.kept[1]);
	is_int(p.n_idle, 2, "and one that nobody shares any more");
	block_table_clear(&t, &p);
	block_table_fini(&t);
	block_pool_fini(&p);
}

int main(void)
{
	test_idle();
	test_pool();
	test_table();
	test_random();
	return tap_done();
}
