/* SPDX-License-Identifier: Apache-2.0 */
/*
 * evict.c - who goes when blocks are needed: a heap per domain of the nodes that may go, by the
 * policy's value.
 *
 * A value in the heap is what it was when the node came in or was last looked at. What is used
 * meanwhile is worth more than that, so the top is valued again before it is taken, and sinks if it
 * has grown. Nothing in a domain's heap depends on other domains; they only decide how much of it
 * has to go.
 */
#include "daemon/engine/cache/cache_private.h"

#include <assert.h>

/* --- heap --------------------------------------------------------------------------------------------*/

static void place(struct cache_domain *d, uint32_t at, struct cache_node *n)
{
	d->heap[at] = n;
	n->heap_at = at;
}

static void sift_up(struct cache_domain *d, uint32_t at)
{
	struct cache_node *n = d->heap[at];

	for (uint32_t up; at && d->heap[up = (at - 1) / 2]->value > n->value; at = up)
		place(d, at, d->heap[up]);
	place(d, at, n);
}

static void sift_down(struct cache_domain *d, uint32_t at)
{
	struct cache_node *n = d->heap[at];

	for (uint32_t down; (down = 2 * at + 1) < d->n_heap; at = down) {
		if (down + 1 < d->n_heap && d->heap[down + 1]->value < d->heap[down]->value)
			down++;
		if (d->heap[down]->value >= n->value)
			break;
		place(d, at, d->heap[down]);
	}
	place(d, at, n);
}

static double value_of(const struct cache_node *n)
{
	const struct cache *c = n->domain->cache;
	const struct cache_facts f = {
		.now = c->now,
		.last_use = n->last_use,
		.visits = n->visits,
		.n_blocks = c->pool->refs[n->block] == 1,
		.depth = n->index,
		.is_tail = n->state == NODE_TAIL,
	};

	return c->policy->value(&f);
}

static void heap_add(struct cache_node *n)
{
	struct cache_domain *d = n->domain;

	/* One node per block at the most: a domain has no two nodes of the same content. */
	assert(d->n_heap < d->cache->pool->n);
	n->value = value_of(n);
	place(d, d->n_heap++, n);
	sift_up(d, n->heap_at);
}

void evict_forget(struct cache_node *n)
{
	struct cache_domain *d = n->domain;
	uint32_t at = n->heap_at;
	struct cache_node *last;

	if (at == NOT_IN_HEAP)
		return;
	n->heap_at = NOT_IN_HEAP;
	last = d->heap[--d->n_heap];
	if (last == n)
		return;
	place(d, at, last);
	sift_up(d, at);
	sift_down(d, last->heap_at);
}

void evict_update(struct cache_node *n)
{
	bool may = !n->child && !n->users && !n->pins && !n->owner;

	if (may && n->heap_at == NOT_IN_HEAP)
		heap_add(n);
	else if (!may)
		evict_forget(n);
}

/* The least valuable one, NULL: there is none. */
static struct cache_node *heap_top(struct cache_domain *d)
{
	while (d->n_heap) {
		struct cache_node *n = d->heap[0];
		double value = value_of(n);
		bool grown = value > n->value;

		n->value = value;
		if (grown)
			sift_down(d, 0);
		if (d->heap[0] == n)
			return n;
	}
	return NULL;
}

/* --- victims -----------------------------------------------------------------------------------------*/

/* The domain that has most for its weight, of those that have anything to give. */
static struct cache_domain *victim_domain(const struct cache *c)
{
	struct cache_domain *v = NULL;

	for (struct cache_domain *d = c->domains; d; d = d->next)
		if (d->n_heap && (!v || d->stats.blocks * v->weight > v->stats.blocks * d->weight))
			v = d;
	return v;
}

static struct cache_adapter *victim_adapter(const struct cache *c, double *ret_value)
{
	struct cache_adapter *v = NULL;

	if (!c->n_spare)
		return NULL;
	for (struct cache_adapter *a = c->adapters; a; a = a->next) {
		const struct cache_facts f = {
			.now = c->now,
			.last_use = a->last_use,
			.visits = a->visits,
			.n_blocks = a->n_blocks,
			.is_adapter = true,
		};
		double value;

		if (!weights_are_spare(a))
			continue;
		value = c->policy->value(&f);
		if (!v || value < *ret_value) {
			v = a;
			*ret_value = value;
		}
	}
	return v;
}

static bool evict_one(struct cache *c)
{
	struct cache_domain *d = victim_domain(c);
	struct cache_node *n = d ? heap_top(d) : NULL;
	double value = 0;
	struct cache_adapter *a = victim_adapter(c, &value);

	if (a && (!n || value < n->value)) {
		weights_evict(c, a);
		return true;
	}
	if (!n)
		return false;
	d->stats.evicted++;
	node_free(n);
	return true;
}

void evict_reclaim(void *cache, uint32_t want)
{
	struct cache *c = cache;
	uint32_t goal = c->pool->n_free + want;

	while (c->pool->n_free < goal && evict_one(c))
		;
}

void evict_subtree(struct cache_node *top)
{
	struct cache_node *n = top, *parent;

	for (;;) {
		while (n->child)
			n = n->child;
		parent = n->parent;
		n->domain->stats.evicted++;
		node_free(n);
		if (n == top)
			return;
		n = parent;
	}
}

static bool drop_domain(struct cache_domain *d, uint32_t *most)
{
	for (; d->n_heap && *most; --*most) {
		d->stats.evicted++;
		node_free(d->heap[d->n_heap - 1]);
	}
	return !d->n_heap;
}

bool cache_drop_some(struct cache *c, struct cache_domain *only, uint32_t *most, uint64_t *blocks)
{
	uint32_t had = c->pool->n_free;
	bool done = true;

	for (struct cache_domain *d = c->domains; d && done; d = d->next)
		if (!only || d == only)
			done = drop_domain(d, most);
	while (!only && done && c->n_spare) {
		double value;

		weights_evict(c, victim_adapter(c, &value));
	}
	*blocks += c->pool->n_free - had;
	return done;
}

uint32_t cache_drop(struct cache *c, struct cache_domain *d)
{
	uint32_t all = UINT32_MAX;
	uint64_t blocks = 0;

	cache_drop_some(c, d, &all, &blocks);
	return (uint32_t)blocks;
}
