/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blocks.c - see blocks.h. The free list is a stack, so a block that has just been given back, and
 * is still in the caches, is the next to be used.
 */
#include "daemon/engine/blocks.h"

#include "kernels/backend.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

int block_pool_init(struct block_pool *p, uint32_t n)
{
	p->n = p->n_free = n;
	p->free = malloc(((size_t)n + 1) * sizeof(*p->free));
	p->refs = calloc((size_t)n + 1, sizeof(*p->refs));
	if (!p->free || !p->refs) {
		block_pool_fini(p);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < n; i++)
		p->free[i] = n - 1 - i;
	return 0;
}

void block_pool_fini(struct block_pool *p)
{
	free(p->free);
	free(p->refs);
	p->free = NULL;
	p->refs = NULL;
	p->n = p->n_free = 0;
}

uint32_t block_get(struct block_pool *p)
{
	uint32_t b;

	if (!p->n_free)
		return BLOCK_NONE;
	b = p->free[--p->n_free];
	assert(p->refs[b] == 0);
	p->refs[b] = 1;
	return b;
}

void block_ref(struct block_pool *p, uint32_t block)
{
	assert(block < p->n && p->refs[block] > 0 && p->refs[block] < UINT16_MAX);
	p->refs[block]++;
}

void block_put(struct block_pool *p, uint32_t block)
{
	assert(block < p->n && p->refs[block] > 0);
	if (--p->refs[block] == 0)
		p->free[p->n_free++] = block;
}

uint32_t blocks_for(uint32_t positions)
{
	return positions / WK_BLOCK_TOKENS + (positions % WK_BLOCK_TOKENS != 0);
}

int block_table_init(struct block_table *t, uint32_t cap)
{
	t->n = 0;
	t->cap = cap;
	t->blocks = malloc(((size_t)cap + 1) * sizeof(*t->blocks));
	return t->blocks ? 0 : -ENOMEM;
}

void block_table_fini(struct block_table *t)
{
	assert(!t->n);
	free(t->blocks);
	t->blocks = NULL;
	t->cap = 0;
}

bool block_table_grow(struct block_table *t, struct block_pool *p, uint32_t n)
{
	assert(n <= t->cap);
	if (n <= t->n)
		return true;
	if (n - t->n > p->n_free)
		return false;
	while (t->n < n)
		t->blocks[t->n++] = block_get(p);
	return true;
}

void block_table_share(struct block_table *t, struct block_pool *p, const struct block_table *from,
		       uint32_t n)
{
	assert(!t->n && n <= from->n && n <= t->cap);
	for (; t->n < n; t->n++) {
		t->blocks[t->n] = from->blocks[t->n];
		block_ref(p, t->blocks[t->n]);
	}
}

void block_table_clear(struct block_table *t, struct block_pool *p)
{
	while (t->n)
		block_put(p, t->blocks[--t->n]);
}
