/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_cache.c - what the cache costs the core thread: a lookup of a long prompt, a block that
 * fills, a row that does not, an eviction, another secret. With and without the mirror. Medians.
 */
#include "daemon/engine/cache/cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { PROMPT = 32768, BLOCKS = 1 << 16, BATCH = 64, RUNS = 15 };

struct bench {
	struct block_pool pool;
	struct cache *cache;
	struct cache_domain *domain;
	struct wshm_idx_writer *mirror;
};

struct seq {
	uint32_t *tokens;
	struct block_table table;
	struct cache_chain chain;
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void report(const char *what, double *ns, int n, const char *unit, double per)
{
	qsort(ns, (size_t)n, sizeof(*ns), by_value);
	printf("%-66s %9.2f %s  (%.2f .. %.2f)\n", what, ns[n / 2] / per, unit, ns[0] / per,
	       ns[n - 1] / per);
}

static void tokens_of(const void *arg, uint32_t first, uint32_t n, uint32_t *ret)
{
	memcpy(ret, ((const struct seq *)arg)->tokens + first, n * sizeof(*ret));
}

static void seq_init(struct bench *b, struct seq *q, uint32_t seed)
{
	memset(q, 0, sizeof(*q));
	q->tokens = malloc(2 * PROMPT * sizeof(*q->tokens));
	for (uint32_t i = 0; i < 2 * PROMPT; i++)
		q->tokens[i] = seed = seed * 1664525 + 1013904223;
	if (block_table_init(&q->table, 2 * PROMPT / 16))
		abort();
	q->chain.domain = b->domain;
	q->chain.activation = WSHM_NO_ACTIVATION;
	q->chain.tokens = tokens_of;
	q->chain.arg = q;
}

static void seq_fini(struct seq *q)
{
	block_table_fini(&q->table);
	free(q->tokens);
}

static void leave(struct bench *b, struct seq *q)
{
	cache_leave(&q->chain);
	block_table_clear(&q->table, &b->pool);
}

static void fill(struct bench *b, struct seq *q, uint32_t n)
{
	struct cache_found f;

	cache_match(&q->chain, &q->table, n - 1, &f);
	if (!block_table_grow(&q->table, &b->pool, blocks_for(n)))
		abort();
	cache_commit(&q->chain, &q->table, n);
	leave(b, q);
}

static void trash_caches(void)
{
	static uint8_t *p;
	static uint8_t x;
	size_t n = 128u << 20;

	if (!p)
		p = malloc(n);
	memset(p, ++x, n);
}

static void bench_match(struct bench *b, bool cold, bool siblings)
{
	struct seq q, s;
	struct cache_found f;
	double ns[RUNS];
	char what[100];

	seq_init(b, &q, 1);
	seq_init(b, &s, 2);
	fill(b, &q, PROMPT);
	/* Three newer ones beside every node on the way: so each step needs the index. */
	for (uint32_t k = 3 * PROMPT / 16; siblings && k--;) {
		uint32_t at = k / 3 * 16;

		memcpy(s.tokens, q.tokens, at * sizeof(*s.tokens));
		s.tokens[at] = 77 + k;
		fill(b, &s, at + 16);
	}
	for (int i = 0; i < RUNS; i++) {
		uint64_t t;

		if (cold)
			trash_caches();
		t = now_ns();
		cache_match(&q.chain, &q.table, PROMPT - 1, &f);
		ns[i] = (double)(now_ns() - t);
		leave(b, &q);
	}
	snprintf(what, sizeof(what), "match of %d tokens, %s, %s", PROMPT,
		 siblings ? "by key at every step" : "alone",
		 cold ? "nothing in caches" : "in caches");
	report(what, ns, RUNS, "us", 1000);
	cache_drop(b->cache, NULL);
	seq_fini(&q);
	seq_fini(&s);
}

static void bench_fill(struct bench *b)
{
	struct seq q;
	struct cache_found f;
	double promise[RUNS], promised[RUNS], plain[RUNS], again[RUNS], evict[RUNS];
	const double n = PROMPT / 16;

	seq_init(b, &q, 3);
	for (int i = 0; i < RUNS; i++) {
		uint64_t t;

		for (int with = 0; with < 2; with++) {
			cache_match(&q.chain, &q.table, 0, &f);
			if (!block_table_grow(&q.table, &b->pool, PROMPT / 16))
				abort();
			t = now_ns();
			if (with)
				cache_promise(&q.chain, &q.table, PROMPT);
			promise[i] = (double)(now_ns() - t);
			t = now_ns();
			cache_commit(&q.chain, &q.table, PROMPT);
			(with ? promised : plain)[i] = (double)(now_ns() - t);
			leave(b, &q);
			t = now_ns();
			b->pool.reclaim(b->pool.arg, PROMPT / 16);
			evict[i] = (double)(now_ns() - t);
		}
		fill(b, &q, PROMPT);
		cache_match(&q.chain, &q.table, 0, &f);
		if (!block_table_grow(&q.table, &b->pool, PROMPT / 16))
			abort();
		t = now_ns();
		cache_commit(&q.chain, &q.table, PROMPT);
		again[i] = (double)(now_ns() - t);
		leave(b, &q);
		cache_drop(b->cache, NULL);
	}
	report("promise, per block", promise, RUNS, "ns", n);
	report("commit of a promised block", promised, RUNS, "ns", n);
	report("commit of a block", plain, RUNS, "ns", n);
	report("commit of a block that is there already", again, RUNS, "ns", n);
	report("eviction of a block", evict, RUNS, "ns", n);
	seq_fini(&q);
}

static void bench_step(struct bench *b)
{
	static struct seq q[BATCH];
	struct cache_found f;
	double ns[RUNS];
	const int steps = 256;

	for (int i = 0; i < BATCH; i++) {
		seq_init(b, &q[i], 100 + (uint32_t)i);
		fill(b, &q[i], 1000 + (uint32_t)i);
		cache_match(&q[i].chain, &q[i].table, 1000 + (uint32_t)i - 1, &f);
		if (!block_table_grow(&q[i].table, &b->pool, 600))
			abort();
	}
	for (int r = 0; r < RUNS; r++) {
		uint64_t t = now_ns();

		for (int s = 0; s < steps; s++)
			for (int i = 0; i < BATCH; i++)
				cache_commit(&q[i].chain, &q[i].table,
					     (uint32_t)(1000 + i + 1 + r * steps + s));
		ns[r] = (double)(now_ns() - t);
	}
	report("a step: one more row of each of 64 sequences", ns, RUNS, "us", 1000.0 * steps);
	for (int i = 0; i < BATCH; i++) {
		leave(b, &q[i]);
		seq_fini(&q[i]);
	}
	cache_drop(b->cache, NULL);
}

static void bench_many(struct bench *b)
{
	struct seq q;
	double ns[RUNS];
	uint64_t t;

	/* A full pool of short requests, so that the heap is large. */
	seq_init(b, &q, 9);
	for (uint32_t i = 0; b->pool.n_free > 2; i++) {
		q.tokens[0] = i;
		fill(b, &q, 32);
	}
	for (int r = 0; r < RUNS; r++) {
		t = now_ns();
		b->pool.reclaim(b->pool.arg, 1000);
		ns[r] = (double)(now_ns() - t);
	}
	report("eviction of a block, of 65,536 in 32,768 sequences", ns, RUNS, "ns", 1000);
	cache_drop(b->cache, NULL);
	seq_fini(&q);
}

/* A full pool under another secret, in a new mirror each time. */
static void bench_renew(struct bench *b)
{
	const struct wshm_root root = {{1, 2}, 3};
	uint8_t secret[WSHM_SECRET_BYTES] = {9};
	struct wshm_idx_writer *mirror = NULL;
	double ns[RUNS];
	struct seq q;
	uint64_t t;

	seq_init(b, &q, 9);
	for (uint32_t i = 0; b->pool.n_free > PROMPT / 16; i++) {
		q.tokens[0] = i;
		fill(b, &q, PROMPT);
	}
	for (int r = 0; r < RUNS; r++) {
		int fd = b->mirror ? wshm_idx_new(1) : -1;

		secret[1]++;
		trash_caches();
		t = now_ns();
		if (fd >= 0 && wshm_idx_writer_open(&mirror, fd, secret, &root))
			abort();
		if (cache_domain_renew(b->domain, secret, mirror))
			abort();
		wshm_idx_writer_close(b->mirror);
		ns[r] = (double)(now_ns() - t);
		b->mirror = mirror;
		close(fd);
	}
	report("another secret, per block of 65,536", ns, RUNS, "ns", BLOCKS);
	cache_drop(b->cache, NULL);
	seq_fini(&q);
}

static void run(bool mirror)
{
	static const uint8_t secret[WSHM_SECRET_BYTES] = {1, 2, 3};
	const struct cache_options opt = {.root = {{1, 2}, 3}};
	struct bench b = {0};
	int fd = -1;

	if (mirror) {
		fd = wshm_idx_new(1);
		if (fd < 0 || wshm_idx_writer_open(&b.mirror, fd, secret, &opt.root))
			abort();
	}
	if (block_pool_init(&b.pool, BLOCKS) || cache_new(&b.cache, &b.pool, &opt) ||
	    cache_domain_new(b.cache, secret, 1, b.mirror, &b.domain))
		abort();
	printf("--- %s mirror\n", mirror ? "with the" : "without");
	bench_fill(&b);
	bench_match(&b, false, false);
	bench_match(&b, true, false);
	bench_match(&b, false, true);
	bench_match(&b, true, true);
	bench_renew(&b);
	bench_step(&b);
	bench_many(&b);
	cache_domain_free(b.domain);
	cache_free(b.cache);
	block_pool_fini(&b.pool);
	wshm_idx_writer_close(b.mirror);
	if (fd >= 0)
		close(fd);
}

int main(void)
{
	run(false);
	run(true);
	return 0;
}
