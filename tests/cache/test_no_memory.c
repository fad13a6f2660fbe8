/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_no_memory.c - every allocation of the cache fails in turn: an error comes back and nothing
 * stays; and when there is no memory for more nodes, sequences go on without being found.
 */
#include "tests/cache/world.h"

#include <errno.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
int main(void)
{
	skip_all("the sanitizer has malloc to itself");
}
#else

extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t n, size_t bytes);
extern void __libc_free(void *p);

static long countdown; /* the allocation that fails; 0: none */
static bool for_ever;
static long live, failures;

static bool fails(void)
{
	if (countdown && !--countdown) {
		countdown = for_ever;
		failures++;
		return true;
	}
	live++;
	return false;
}

void *malloc(size_t bytes)
{
	return fails() ? NULL : __libc_malloc(bytes);
}

void *calloc(size_t n, size_t bytes)
{
	return fails() ? NULL : __libc_calloc(n, bytes);
}

void free(void *p)
{
	live -= p != NULL;
	__libc_free(p);
}

static const uint8_t secret[WSHM_SECRET_BYTES] = {1};

/* All that can be made, in order; what was made is freed again. 0 or -ENOMEM. */
static int make_all(struct block_pool *pool)
{
	const struct cache_options opt = {.root = {{1, 2}, 3}};
	struct cache_adapter a = {.digest = {5, 6}, .n_blocks = 3};
	struct cache *c = NULL;
	struct cache_domain *d = NULL;
	struct cache_pin *p = NULL;
	uint32_t token = 1, n;
	int rc = cache_new(&c, pool, &opt);

	if (rc)
		return rc;
	rc = cache_domain_new(c, secret, 1, NULL, &d);
	cache_adapter_init(&a);
	if (!rc)
		rc = cache_adapter_enter(c, &a);
	if (!rc && !(p = cache_pin_new(d, &token, 1, &n)))
		rc = -ENOMEM;
	cache_pin_free(p);
	cache_adapter_drop(c, &a);
	cache_domain_free(d);
	cache_free(c);
	return rc;
}

static void test_each(void)
{
	struct block_pool pool;
	bool good = true;
	long k, before;

	for (k = 1;; k++) {
		int rc;

		before = live;
		countdown = k;
		if (block_pool_init(&pool, 16)) {
			good = good && live == before;
			continue;
		}
		rc = make_all(&pool);
		if (countdown) { /* not so many */
			countdown = 0;
			good = good && rc == 0;
			block_pool_fini(&pool);
			break;
		}
		good = good && rc == -ENOMEM && pool.n_free == 16 && !pool.n_idle && !pool.reclaim;
		block_pool_fini(&pool);
		good = good && live == before;
	}
	ok(good && live == before, "each of %ld allocations fails, and nothing stays", k - 1);
	ok(k > 8, "(there are as many as that)");
}

enum { TENANTS = 200, PREFIX = 64 };

struct prompt {
	uint32_t tokens[PREFIX + 8];
};

static void tokens_of(const void *arg, uint32_t first, uint32_t n, uint32_t *ret)
{
	memcpy(ret, ((const struct prompt *)arg)->tokens + first, n * sizeof(*ret));
}

/* A request that computes n positions. Returns what it could reuse. */
static uint32_t run(struct cache *c, struct block_pool *pool, struct cache_domain *d,
		    const struct prompt *p, uint32_t n, bool *ret_private)
{
	struct cache_chain ch = {
		.domain = d,
		.activation = WSHM_NO_ACTIVATION,
		.tokens = tokens_of,
		.arg = p,
	};
	struct block_table t;
	struct cache_found f;

	(void)c;
	block_table_init(&t, 8);
	cache_match(&ch, &t, n - 1, &f);
	if (!block_table_grow(&t, pool, blocks_for(n)))
		bail_out("no room");
	for_ever = true;
	countdown = 1;
	cache_promise(&ch, &t, n);
	cache_commit(&ch, &t, n);
	*ret_private = ch.is_private;
	cache_leave(&ch);
	for_ever = false;
	countdown = 0;
	block_table_clear(&t, pool);
	block_table_fini(&t);
	return f.n_full * B + f.tail_rows;
}

/* Tenants that share the public domain's blocks have more nodes than the pool has blocks. */
static void test_nodes(void)
{
	const struct cache_options opt = {.root = {{1, 2}, 3}};
	struct cache_domain *d[TENANTS + 1];
	struct block_pool pool;
	struct cache *c;
	struct cache_stats s;
	struct prompt p;
	bool is_private, all_found = true;
	uint32_t n_private = 0;

	for (uint32_t i = 0; i < PREFIX + 8; i++)
		p.tokens[i] = i + 1;
	block_pool_init(&pool, 16);
	cache_new(&c, &pool, &opt);
	for (int i = 0; i <= TENANTS; i++)
		cache_domain_new(c, secret, 1, NULL, &d[i]);
	cache_set_public(c, d[TENANTS]);
	run(c, &pool, d[TENANTS], &p, PREFIX, &is_private);
	for (int i = 0; i < TENANTS; i++) {
		uint32_t found = run(c, &pool, d[i], &p, PREFIX + 5, &is_private);

		all_found = all_found && (!EXACT_KEYS || found == PREFIX);
		n_private += is_private;
	}
	cache_stats(c, NULL, &s);
	ok(failures > 0 && n_private > 0, "memory ran out for %u tenants", n_private);
	ok(all_found, "each found the public prefix all the same");
	ok(s.nodes + s.tails <= 16 + 256, "no more nodes than were reserved");
	cache_drop(c, NULL);
	is_int(pool.n_free, 16, "and no block is lost");
	run(c, &pool, d[0], &p, PREFIX + 5, &is_private);
	ok(!is_private || !EXACT_KEYS, "nodes that are free again serve others");
	cache_free(c);
	block_pool_fini(&pool);
}

int main(void)
{
	test_each();
	test_nodes();
	return tap_done();
}
#endif
