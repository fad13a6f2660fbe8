/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blocks.h - blocks of the pool by number: which are free, who shares them, and the tables of
 * sequences. KV and adapter weights take blocks of the same pool.
 *
 *   pool    free: [ 7 | 3 | 9 | ... ]  a stack           refs: one count per block, 0: free
 *   table   position p of a sequence stands in block blocks[p / WK_BLOCK_TOKENS]
 *
 *   free --block_get--> in use --block_put (last)--> free
 *   in use, and only the cache has references to it: idle. Idle blocks can be had: when a caller
 *   needs more than are free, the pool asks the cache to give some up (pool.reclaim).
 *
 * Pure bookkeeping over plain data: what is in a block is the backend's business. A block that
 * several tables hold is full and never written again, or is written by nobody but its first
 * holder past what the others use. Owned by the core thread.
 */
#ifndef WEFT_ENGINE_BLOCKS_H
#define WEFT_ENGINE_BLOCKS_H

#include <stdbool.h>
#include <stdint.h>

#define BLOCK_NONE UINT32_MAX

struct block_pool {
	uint32_t n;
	uint32_t n_free;
	uint32_t n_idle;  /* in use by the cache alone, and not pinned */
	uint32_t *free;	  /* owned; [0, n_free) are free, the last is taken next */
	uint16_t *refs;	  /* owned; [n]; all references, the cache's included */
	uint16_t *cached; /* owned; [n]; the cache's references */
	uint16_t *pinned; /* owned; [n]; nonzero: never idle */
	/* The cache's, NULL allowed: free at least `want` idle blocks, or all there are. */
	void (*reclaim)(void *arg, uint32_t want);
	void *arg;
};

/* How many a caller could have now. */
static inline uint32_t blocks_available(const struct block_pool *p)
{
	return p->n_free + p->n_idle;
}

int block_pool_init(struct block_pool *p, uint32_t n); /* 0 or -ENOMEM */
void block_pool_fini(struct block_pool *p);
uint32_t block_get(struct block_pool *p); /* one reference, or BLOCK_NONE; may reclaim */
void block_ref(struct block_pool *p, uint32_t block); /* of a block that is in use */
void block_put(struct block_pool *p, uint32_t block);
/* The same for the cache's own references, and pins. */
void block_ref_cached(struct block_pool *p, uint32_t block);
void block_put_cached(struct block_pool *p, uint32_t block);
void block_pin(struct block_pool *p, uint32_t block, bool pin);

/* Blocks that n positions take. */
uint32_t blocks_for(uint32_t positions);

struct block_table {
	uint32_t *blocks; /* owned; room for cap */
	uint32_t n, cap;
};

int block_table_init(struct block_table *t, uint32_t cap); /* 0 or -ENOMEM */
void block_table_fini(struct block_table *t);		   /* must be empty; NULL fields allowed */
/* Hold at least n blocks, reclaiming idle ones if need be; false and unchanged when fewer are
 * available. n <= cap. */
bool block_table_grow(struct block_table *t, struct block_pool *p, uint32_t n);
/* Share the first n blocks of another table; t must be empty. */
void block_table_share(struct block_table *t, struct block_pool *p, const struct block_table *from,
		       uint32_t n);
void block_table_clear(struct block_table *t, struct block_pool *p);

#endif
