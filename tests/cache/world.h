/* SPDX-License-Identifier: Apache-2.0 */
/*
 * world.h - a cache with something in its blocks: sequences that compute, share, copy and leave as
 * the engine's do, and a naive model that says what must be found.
 *
 * In place of KV each row of a block holds a digest of the row's whole history: every token up to
 * it and which adapter, if any, changed it. So whether what a lookup hands out is right needs no
 * knowledge of how it was found; who wrote it is kept too. What a domain can reuse is kept as a
 * multiset of such digests, filled from what the mirror is told.
 */
#ifndef WEFT_TESTS_CACHE_WORLD_H
#define WEFT_TESTS_CACHE_WORLD_H

#include "daemon/engine/cache/cache_private.h"
#include "tests/cache/fake_idx.h"
#include "tests/tap.h"

#define EXACT_KEYS (WSHM_KEY_BITS == 128)
#define B	   CACHE_BLOCK

enum { MAX_DOMAINS = 4, MAX_ADAPTERS = 4, MAX_SEQS = 16, SEQ_TOKENS = 512 };

struct seq {
	struct world *w;
	int domain;
	struct cache_adapter *adapter;
	uint32_t activation;
	uint32_t n;	   /* tokens */
	uint32_t computed; /* positions */
	uint32_t reused;   /* by the last match */
	bool waits;	   /* the last match said so */
	const struct cache_chain *waits_for;
	uint32_t tokens[SEQ_TOKENS];
	struct block_table table;
	struct cache_chain chain;
};

struct entry { /* a full block that a mirror has */
	struct wshm_key key;
	uint64_t rows[B];
};

struct rows_set;

struct world_domain {
	struct world *w;
	struct cache_domain *d;
	struct wshm_idx_writer mirror;
	struct wshm_key root;
	struct entry *entries;
	uint32_t n_entries;
	struct rows_set *rows; /* what can be reused: row digests, counted */
	uint32_t id;	       /* never used again */
	uint32_t lost;	       /* rows that went since the last look */
	uint8_t secret[WSHM_SECRET_BYTES];
};

struct world {
	struct block_pool pool;
	struct cache *cache;
	struct wshm_root root;
	struct world_domain *domains[MAX_DOMAINS];
	int public; /* its number, or -1 */
	struct cache_adapter adapters[MAX_ADAPTERS];
	struct seq *seqs[MAX_SEQS]; /* all that there are, for counting; NULL: none */
	struct seq *at;		    /* whose call is running */
	uint64_t (*content)[B];	    /* of each block */
	uint32_t (*author)[B];	    /* domain's id; 0: written for all */
	uint32_t n_ids;
	uint32_t left;	   /* adapters whose weights were taken */
	uint64_t errors;   /* anything that was not as it must be */
	const char *first; /* the first of them */
};

#define POISON UINT64_C(0xdeaddeaddeaddead)

void world_wrong(struct world *w, const char *what);

void world_init(struct world *w, uint32_t n_blocks, int n_domains, const struct wshm_root *root);
void world_fini(struct world *w); /* checks that nothing has leaked */
void world_domain_new(struct world *w, int i, uint8_t secret_seed);
void world_domain_free(struct world *w, int i);
/* It gets another secret and an empty mirror; checks that this then shows what the old one did. */
void world_domain_renew(struct world *w, int i, uint8_t secret_seed);
/* Recompute every count from scratch and compare. */
void world_check(struct world *w);
/* Rows lost by any domain since the last call. */
uint32_t world_lost(struct world *w);

struct seq *seq_new(struct world *w, int domain, struct cache_adapter *a, uint32_t activation);
void seq_free(struct seq *q); /* leaves first */
void seq_append(struct seq *q, const uint32_t *tokens, uint32_t n);
void seq_numbers(struct seq *q, uint32_t first, uint32_t n); /* append first, first + 1, ... */
/* Take what there is of the first `limit` positions, copying the partial block's rows; checks every
 * row against history and model. Returns positions taken (also in reused, computed). */
uint32_t seq_match(struct seq *q, uint32_t limit);
void seq_promise(struct seq *q, uint32_t end);
/* Compute up to `end`; false: no blocks. */
bool seq_compute(struct seq *q, uint32_t end);
void seq_leave(struct seq *q);
/* A whole request: match, compute all, leave. Returns what was reused. */
uint32_t request(struct world *w, int domain, struct cache_adapter *a, uint32_t activation,
		 const uint32_t *tokens, uint32_t n);
/* How much the naive model says can be reused of it. */
uint32_t naive_match(struct seq *q, uint32_t limit);

#endif
