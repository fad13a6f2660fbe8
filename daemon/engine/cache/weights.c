/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weights.c - adapters as nodes: their weights take blocks of the same pool as KV, stay while they
 * are of use, and leave when nothing that depends on them is left.
 *
 * While sequences run with it an adapter's blocks are pinned. Without any they are idle, and so is
 * all KV that depends on it: whoever holds such KV runs with the adapter.
 */
#include "daemon/engine/cache/cache_private.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

bool weights_are_spare(const struct cache_adapter *a)
{
	return a->resident && !a->users && !a->dependents;
}

void weights_count(struct cache *c, struct cache_adapter *a, int users, int dependents)
{
	bool was = weights_are_spare(a);

	a->users += users;
	a->dependents += dependents;
	c->n_spare += weights_are_spare(a) - was;
}

void cache_adapter_init(struct cache_adapter *a)
{
	a->blocks = NULL;
	a->resident = false;
	a->users = a->dependents = 0;
	a->nodes = NULL;
	a->last_use = a->visits = 0;
	a->prev = a->next = NULL;
}

static void pin_all(struct cache *c, const struct cache_adapter *a, bool pin)
{
	for (uint32_t i = 0; i < a->n_blocks; i++)
		block_pin(c->pool, a->blocks[i], pin);
}

int cache_adapter_enter(struct cache *c, struct cache_adapter *a)
{
	struct block_table t = {.cap = a->n_blocks};

	assert(a->digest[0] || a->digest[1]);
	if (a->resident)
		return 0;
	t.blocks = malloc((a->n_blocks + 1) * sizeof(*t.blocks));
	if (!t.blocks)
		return -ENOMEM;
	if (!block_table_grow(&t, c->pool, a->n_blocks)) {
		free(t.blocks);
		return -ENOSPC;
	}
	for (uint32_t i = 0; i < t.n; i++) {
		block_ref_cached(c->pool, t.blocks[i]);
		block_put(c->pool, t.blocks[i]);
	}
	a->blocks = t.blocks;
	a->resident = true;
	a->last_use = ++c->now;
	if (a->users)
		pin_all(c, a, true);
	c->n_spare += weights_are_spare(a);
	a->prev = NULL;
	a->next = c->adapters;
	if (a->next)
		a->next->prev = a;
	c->adapters = a;
	c->stats.adapters++;
	c->stats.blocks += a->n_blocks;
	return 0;
}

void weights_evict(struct cache *c, struct cache_adapter *a)
{
	assert(weights_are_spare(a));
	if (a->left)
		a->left(a);
	c->n_spare--;
	a->resident = false;
	if (a->prev)
		a->prev->next = a->next;
	else
		c->adapters = a->next;
	if (a->next)
		a->next->prev = a->prev;
	a->prev = a->next = NULL;
	for (uint32_t i = 0; i < a->n_blocks; i++)
		block_put_cached(c->pool, a->blocks[i]);
	free(a->blocks);
	a->blocks = NULL;
	c->stats.adapters--;
	c->stats.adapters_evicted++;
	c->stats.blocks -= a->n_blocks;
}

void cache_adapter_use(struct cache *c, struct cache_adapter *a, bool use)
{
	assert(use || a->users);
	if (a->resident && a->users == (use ? 0 : 1))
		pin_all(c, a, use);
	weights_count(c, a, use ? 1 : -1, 0);
	a->last_use = ++c->now;
}

bool cache_adapter_drop_some(struct cache *c, struct cache_adapter *a, uint32_t *most)
{
	struct cache_node *n = NULL, *parent;

	assert(!a->users);
	/* What hangs below adapted rows is the same adapter's: leaf after leaf, up as they go. */
	while (a->nodes) {
		if (!*most)
			return false;
		--*most;
		if (!n)
			n = a->nodes;
		while (n->child)
			n = n->child;
		parent = n->parent;
		n->domain->stats.evicted++;
		node_free(n);
		n = !node_is_root(parent) && parent->adapter == a ? parent : NULL;
	}
	if (a->resident)
		weights_evict(c, a);
	return true;
}

void cache_adapter_drop(struct cache *c, struct cache_adapter *a)
{
	uint32_t all = UINT32_MAX;

	cache_adapter_drop_some(c, a, &all);
}
