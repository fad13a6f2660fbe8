/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache.c - the cache and its domains: coming, going, figures.
 *
 * Why no tenant learns from another's requests. A domain has its own tree, index, heap and secret,
 * and all that decides a lookup is in them: which node a walk finds, which child is searched first
 * and where the search stops, which key collides, what is promised, which tail is redundant. The
 * other trees are not read, with one exception: the public one, which lookups of tenants do not
 * change in any way. The logical clock is shared, but within a domain only its order counts, and
 * that is the order of the domain's own uses. What is shared is memory: how many blocks a domain may
 * keep depends on how many the others fill, and an adapter's weights, which all may use, are there
 * or not; that is the load on the machine, not what was asked.
 */
#include "daemon/engine/cache/cache_private.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

int cache_new(struct cache **ret, struct block_pool *pool, const struct cache_options *opt)
{
	struct cache *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	if (getrandom(&c->seed, sizeof(c->seed), 0) != sizeof(c->seed)) {
		free(c);
		return -EIO;
	}
	/* Tails and what is promised come on top of one node per block. */
	if (!node_reserve(c, pool->n + 256)) {
		free(c);
		return -ENOMEM;
	}
	c->pool = pool;
	c->root = opt->root;
	c->policy = opt->policy ? opt->policy : &cache_policy_lru;
	pool->reclaim = evict_reclaim;
	pool->arg = c;
	*ret = c;
	return 0;
}

void cache_free(struct cache *c)
{
	if (!c)
		return;
	while (c->domains)
		cache_domain_free(c->domains);
	while (c->adapters)
		weights_evict(c, c->adapters);
	node_free_all(c);
	c->pool->reclaim = NULL;
	c->pool->arg = NULL;
	free(c);
}

int cache_domain_new(struct cache *c, const uint8_t secret[WSHM_SECRET_BYTES], uint32_t weight,
		     struct wshm_idx_writer *mirror, struct cache_domain **ret)
{
	struct cache_domain *d = calloc(1, sizeof(*d));

	if (!d)
		return -ENOMEM;
	d->heap = malloc(((size_t)c->pool->n + 1) * sizeof(struct cache_node *));
	if (!d->heap || index_init(&d->index, c->seed, c->pool->n)) {
		free(d->heap);
		free(d);
		return -ENOMEM;
	}
	d->cache = c;
	memcpy(d->secret, secret, sizeof(d->secret));
	d->mirror = mirror;
	d->weight = weight ? weight : 1;
	d->root.domain = d;
	wshm_key_root(&d->root.key, secret, &c->root);
	d->next = c->domains;
	if (d->next)
		d->next->prev = d;
	c->domains = d;
	*ret = d;
	return 0;
}

static void add_counts(struct cache_stats *to, const struct cache_stats *from)
{
	to->hits_full += from->hits_full;
	to->hits_rows += from->hits_rows;
	to->misses += from->misses;
	to->inserted += from->inserted;
	to->duplicates += from->duplicates;
	to->collisions += from->collisions;
	to->evicted += from->evicted;
	to->waits += from->waits;
}

void cache_domain_free(struct cache_domain *d)
{
	struct cache *c;

	if (!d)
		return;
	c = d->cache;
	if (c->public == d)
		c->public = NULL;
	pin_forget_all(d);
	while (d->root.child)
		evict_subtree(d->root.child);
	assert(!d->n_heap && !d->stats.blocks);
	if (d->prev)
		d->prev->next = d->next;
	else
		c->domains = d->next;
	if (d->next)
		d->next->prev = d->prev;
	add_counts(&c->stats, &d->stats);
	index_fini(&d->index);
	explicit_bzero(d->secret, sizeof(d->secret));
	free(d->heap);
	free(d);
}

/* The next of a tree, parents before children. NULL: that was the last. */
static struct cache_node *next_node(struct cache_node *n)
{
	if (n->child)
		return n->child;
	while (!n->next) {
		if (node_is_root(n) || node_is_root(n->parent))
			return NULL;
		n = n->parent;
	}
	return n->next;
}

int cache_domain_renew(struct cache_domain *d, const uint8_t secret[WSHM_SECRET_BYTES],
		       struct wshm_idx_writer *mirror)
{
	struct node_index fresh;

	if (index_init(&fresh, d->cache->seed, d->cache->pool->n))
		return -ENOMEM;
	d->index.n = 0;
	index_fini(&d->index);
	d->index = fresh;
	memcpy(d->secret, secret, sizeof(d->secret));
	d->mirror = mirror;
	wshm_key_root(&d->root.key, secret, &d->cache->root);
	for (struct cache_node *n = next_node(&d->root); n; n = next_node(n))
		if (!node_renew(n))
			return -EEXIST;
	return 0;
}

void cache_domain_weight(struct cache_domain *d, uint32_t weight)
{
	d->weight = weight ? weight : 1;
}

void cache_set_public(struct cache *c, struct cache_domain *d)
{
	assert(!d || d->cache == c);
	c->public = d;
}

void cache_stats(const struct cache *c, const struct cache_domain *d, struct cache_stats *ret)
{
	if (d) {
		*ret = d->stats;
		return;
	}
	*ret = c->stats;
	for (d = c->domains; d; d = d->next) {
		ret->nodes += d->stats.nodes;
		ret->tails += d->stats.tails;
		ret->promised += d->stats.promised;
		ret->pinned += d->stats.pinned;
		add_counts(ret, &d->stats);
	}
}
