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
	*p = (struct block_pool){.n = n, .n_free = n};
	p->free = malloc(((size_t)n + 1) * sizeof(*p->free));
	p->refs = calloc((size_t)n + 1, sizeof(*p->refs));
	p->cached = calloc((size_t)n + 1, sizeof(*p->cached));
	p->pinned = calloc((size_t)n + 1, sizeof(*p->pinned));
	if (!p->free || !p->refs || !p->cached || !p->pinned) {
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
	free(p->cached);
	free(p->pinned);
	*p = (struct block_pool){0};
}

static uint32_t is_idle(const struct block_pool *p, uint32_t b)
{
	return p->cached[b] && p->cached[b] == p->refs[b] && !p->pinned[b];
}

/* All changes of a block's counts go through here, so that n_idle is right at every moment. */
static void change(struct block_pool *p, uint32_t b, int refs, int cached, int pinned)
{
	uint32_t was = is_idle(p, b);

	assert(b < p->n && p->refs[b] > 0);
	assert(p->refs[b] + refs >= 0 && p->refs[b] + refs <= UINT16_MAX);
	p->refs[b] += refs;
	p->cached[b] += cached;
	p->pinned[b] += pinned;
	assert(p->cached[b] <= p->refs[b]);
	p->n_idle += is_idle(p, b) - was;
	if (!p->refs[b]) {
		assert(!p->pinned[b]);
		p->free[p->n_free++] = b;
	}
}

/* Have n free blocks, if n are available. */
static bool make_free(struct block_pool *p, uint32_t n)
{
	if (n <= p->n_free)
		return true;
	if (n > blocks_available(p))
		return false;
	p->reclaim(p->arg, n - p->n_free);
	return n <= p->n_free;
}

uint32_t block_get(struct block_pool *p)
{
	uint32_t b;

	if (!make_free(p, 1))
		return BLOCK_NONE;
	b = p->free[--p->n_free];
	assert(p->refs[b] == 0);
	p->refs[b] = 1;
	return b;
}

void block_ref(struct block_pool *p, uint32_t block)
{
	change(p, block, 1, 0, 0);
}

void block_put(struct block_pool *p, uint32_t block)
{
	change(p, block, -1, 0, 0);
}

void block_ref_cached(struct block_pool *p, uint32_t block)
{
	change(p, block, 1, 1, 0);
}

void block_put_cached(struct block_pool *p, uint32_t block)
{
	assert(p->cached[block] > 0);
	change(p, block, -1, -1, 0);
}

void block_pin(struct block_pool *p, uint32_t block, bool pin)
{
	assert(pin || p->pinned[block] > 0);
	change(p, block, 0, 0, pin ? 1 : -1);
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
	if (!make_free(p, n - t->n))
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
