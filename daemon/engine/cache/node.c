/* SPDX-License-Identifier: Apache-2.0 */
/*
 * node.c - the life of a node: a tail grows, is promised, becomes full, and is freed. Each step
 * keeps everything that counts it: its parent's and its adapter's lists, the index, the pool's
 * references, the domain's figures, the mirror.
 *
 * Memory for about as many nodes as the pool has blocks is reserved from the start, and more comes in
 * chunks that are kept until the end: so nodes come and go without a system call.
 */
#include "daemon/engine/cache/cache_private.h"

#include <assert.h>
#include <stdlib.h>

#define CHUNK_NODES 128u

struct node_chunk {
	struct node_chunk *next;
	struct cache_node nodes[CHUNK_NODES];
};

bool node_reserve(struct cache *c, uint32_t n)
{
	c->reserve = malloc((size_t)n * sizeof(*c->reserve));
	c->n_reserve = c->reserve ? n : 0;
	return c->reserve;
}

/* Pages of the reserve are touched one node after another, as they are needed. */
static bool more_nodes(struct cache *c)
{
	struct node_chunk *k;

	if (c->n_reserved < c->n_reserve) {
		struct cache_node *n = &c->reserve[c->n_reserved++];

		n->next = c->spare;
		c->spare = n;
		return true;
	}
	k = malloc(sizeof(*k));
	if (!k)
		return false;
	k->next = c->chunks;
	c->chunks = k;
	for (uint32_t i = CHUNK_NODES; i--;) {
		k->nodes[i].next = c->spare;
		c->spare = &k->nodes[i];
	}
	return true;
}

void node_free_all(struct cache *c)
{
	for (struct node_chunk *k = c->chunks, *next; k; k = next) {
		next = k->next;
		free(k);
	}
	free(c->reserve);
	c->reserve = NULL;
	c->chunks = NULL;
	c->spare = NULL;
}

/* --- lists -------------------------------------------------------------------------------------------*/

static void link_child(struct cache_node *n)
{
	n->prev = NULL;
	n->next = n->parent->child;
	if (n->next)
		n->next->prev = n;
	n->parent->child = n;
}

static void unlink_child(struct cache_node *n)
{
	if (n->prev)
		n->prev->next = n->next;
	else
		n->parent->child = n->next;
	if (n->next)
		n->next->prev = n->prev;
}

void node_to_front(struct cache_node *n)
{
	unlink_child(n);
	link_child(n);
}

static void link_dependent(struct cache_node *n)
{
	struct cache_adapter *a = n->adapter;

	if (!a)
		return;
	n->dep_prev = NULL;
	n->dep_next = a->nodes;
	if (n->dep_next)
		n->dep_next->dep_prev = n;
	a->nodes = n;
	weights_count(n->domain->cache, a, 0, 1);
}

static void unlink_dependent(struct cache_node *n)
{
	struct cache_adapter *a = n->adapter;

	if (!a)
		return;
	if (n->dep_prev)
		n->dep_prev->dep_next = n->dep_next;
	else
		a->nodes = n->dep_next;
	if (n->dep_next)
		n->dep_next->dep_prev = n->dep_prev;
	weights_count(n->domain->cache, a, 0, -1);
}

/* --- states ------------------------------------------------------------------------------------------*/

static uint64_t *gauge_of(struct cache_node *n)
{
	struct cache_stats *s = &n->domain->stats;

	return n->state == NODE_FULL ? &s->nodes : n->state == NODE_TAIL ? &s->tails : &s->promised;
}

static void set_state(struct cache_node *n, enum node_state state)
{
	--*gauge_of(n);
	n->state = state;
	++*gauge_of(n);
}

struct cache_node *node_new(struct cache_node *parent, struct cache_domain *d, uint32_t index,
			    const struct block_label *label)
{
	struct cache *c = d->cache;
	struct cache_node *n;

	if (!c->spare && !more_nodes(c))
		return NULL;
	n = c->spare;
	c->spare = n->next;
	*n = (struct cache_node){
		.parent = parent,
		.adapter = label->adapter,
		.unadapted = label->unadapted,
		.index = index,
		.block = BLOCK_NONE,
		.state = NODE_TAIL,
		.domain = d,
		.last_use = c->now,
		.heap_at = NOT_IN_HEAP,
		.mirror_tail = WSHM_NO_TAIL,
	};
	++*gauge_of(n);
	link_child(n);
	link_dependent(n);
	if (!node_is_root(parent))
		evict_update(parent);
	return n;
}

static void mirror_tail_free(struct cache_node *n)
{
	if (n->mirror_tail != WSHM_NO_TAIL)
		wshm_idx_tail_free(n->domain->mirror, n->mirror_tail);
	n->mirror_tail = WSHM_NO_TAIL;
}

static void detach(struct cache_node *n)
{
	struct cache_domain *d = n->domain;
	struct block_pool *pool = d->cache->pool;

	if (n->block == BLOCK_NONE)
		return;
	d->stats.blocks--;
	d->cache->stats.blocks -= pool->cached[n->block] == 1;
	block_put_cached(pool, n->block);
	n->block = BLOCK_NONE;
}

void node_attach(struct cache_node *n, uint32_t block)
{
	struct cache_domain *d = n->domain;
	struct block_pool *pool = d->cache->pool;

	assert(n->block == BLOCK_NONE || n->block == block);
	if (n->block == block)
		return;
	n->block = block;
	d->stats.blocks++;
	d->cache->stats.blocks += pool->cached[block] == 0;
	block_ref_cached(pool, block);
}

void node_free(struct cache_node *n)
{
	struct cache_domain *d = n->domain;
	struct cache_node *parent = n->parent;

	assert(!n->child && !n->users && !n->pins);
	evict_forget(n);
	if (n->state != NODE_TAIL)
		index_remove(&d->index, n);
	if (n->state == NODE_FULL && d->mirror)
		wshm_idx_remove(d->mirror, &n->key);
	mirror_tail_free(n);
	detach(n);
	--*gauge_of(n);
	unlink_dependent(n);
	unlink_child(n);
	if (!node_is_root(parent)) {
		/* Whoever used the child used the parent. */
		if (parent->last_use < n->last_use)
			parent->last_use = n->last_use;
		evict_update(parent);
	}
	n->next = d->cache->spare;
	d->cache->spare = n;
}

bool node_promise(struct cache_node *n, struct cache_chain *owner)
{
	assert(n->state == NODE_TAIL);
	if (!index_insert(&n->domain->index, n))
		return false;
	set_state(n, NODE_PROMISED);
	n->owner = owner;
	return true;
}

void node_unpromise(struct cache_node *n)
{
	assert(n->state == NODE_PROMISED);
	index_remove(&n->domain->index, n);
	set_state(n, NODE_TAIL);
}

bool node_fill(struct cache_node *n)
{
	struct cache_domain *d = n->domain;

	if (n->state == NODE_TAIL && !index_insert(&d->index, n))
		return false;
	set_state(n, NODE_FULL);
	n->rows = CACHE_BLOCK;
	n->owner = NULL;
	mirror_tail_free(n);
	if (d->mirror)
		wshm_idx_put(d->mirror, &n->key, WSHM_TIER_DEVICE);
	return true;
}

static struct wshm_identity identity_of(const struct cache_node *n)
{
	struct wshm_identity id = {{0, 0}, n->unadapted};

	if (n->adapter)
		memcpy(id.adapter, n->adapter->digest, sizeof(id.adapter));
	return id;
}

static void mirror_rows(struct cache_node *n)
{
	struct wshm_idx_writer *m = n->domain->mirror;

	if (!m)
		return;
	if (n->mirror_tail == WSHM_NO_TAIL) {
		struct wshm_identity id = identity_of(n);

		n->mirror_tail = wshm_idx_tail_new(m, &n->parent->key, &id);
	}
	if (n->mirror_tail != WSHM_NO_TAIL)
		wshm_idx_tail_set(m, n->mirror_tail, n->tokens, n->rows);
}

void node_grow(struct cache_node *n, uint32_t rows)
{
	n->rows = rows;
	mirror_rows(n);
}

bool node_renew(struct cache_node *n)
{
	struct cache_domain *d = n->domain;
	struct wshm_identity id = identity_of(n);

	n->mirror_tail = WSHM_NO_TAIL;
	if (n->state != NODE_TAIL) {
		wshm_key_block(&n->key, d->secret, &n->parent->key, &id, n->tokens);
		if (index_find(&d->index, &n->key) || !index_insert(&d->index, n))
			return false;
	}
	if (n->state != NODE_FULL && n->rows)
		mirror_rows(n);
	else if (n->state == NODE_FULL && d->mirror)
		wshm_idx_put(d->mirror, &n->key, WSHM_TIER_DEVICE);
	return true;
}

/* --- rows --------------------------------------------------------------------------------------------*/

/* Two adapters, or an adapter and the base, agree where neither adapts; the same adapter everywhere,
 * if it starts at the same row. */
static uint32_t labels_agree(const struct cache_node *node, const struct block_label *label)
{
	if (node->adapter == label->adapter && node->unadapted == label->unadapted)
		return CACHE_BLOCK;
	return node->unadapted < label->unadapted ? node->unadapted : label->unadapted;
}

uint32_t node_agree(const struct cache_node *node, const struct block_label *label,
		    const uint32_t *tokens, uint32_t n)
{
	uint32_t most = labels_agree(node, label), r = 0;

	most = most < node->rows ? most : node->rows;
	most = most < n ? most : n;
	while (r < most && node->tokens[r] == tokens[r])
		r++;
	return r;
}

/* Is every row of a also b's? */
static bool is_part_of(const struct cache_node *a, const struct cache_node *b)
{
	struct block_label label = node_label(a);

	return node_agree(b, &label, a->tokens, a->rows) == a->rows;
}

bool node_is_redundant(const struct cache_node *tail)
{
	const struct cache_node *s = tail->parent->child;

	for (uint32_t i = 0; s && i < CACHE_SCAN; s = s->next, i++)
		if (s != tail && is_part_of(tail, s))
			return true;
	return false;
}

void node_prune_siblings(struct cache_node *n)
{
	struct cache_node *s = n->parent->child, *next;

	for (uint32_t i = 0; s && i < CACHE_SCAN; s = next, i++) {
		next = s->next;
		if (s != n && s->state == NODE_TAIL && !s->owner && !s->pins && is_part_of(s, n))
			node_free(s);
	}
}
