/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chain.c - a sequence on its way: it promises blocks, fills them, and leaves.
 *
 *   [full]..[full]--[promised, rows so far]--[promised]--[promised]
 *            node    promised                             promised_end
 *
 *   [full]..[full]--[tail, rows so far]
 *            node    tail
 *
 * A chain has a tail or promises, never both. Its promises are a path without branches: whoever
 * fills a block that another has promised takes the promise from that one, from there on, and the
 * other finds the full node when it gets there.
 *
 * Only what cache_commit() is told of ever becomes readable, so a request that fails leaves behind
 * what it has computed and nothing else.
 */
#include "daemon/engine/cache/cache_private.h"

#include <assert.h>

static struct cache_node *last_node(const struct cache_chain *ch)
{
	return ch->node ? ch->node : &ch->domain->root;
}

/* --- promises ----------------------------------------------------------------------------------------*/

/* From this node on; the rows that are there stay as the chain's tail. */
static void withdraw(struct cache_chain *ch, struct cache_node *from)
{
	struct cache_node *n = ch->promised_end, *parent = n->parent;
	bool all = from == ch->promised;

	for (; n != from; n = parent) {
		parent = n->parent;
		node_free(n);
	}
	ch->promised_end = from->parent;
	if (all)
		ch->promised = ch->promised_end = NULL;
	if (all && from->rows) {
		node_unpromise(from);
		ch->tail = from;
	} else {
		node_free(from);
	}
}

/* Promise one block; false: somebody has it, or no memory. */
static bool promise(struct cache_chain *ch, uint32_t index)
{
	struct cache_node *parent = ch->promised_end ? ch->promised_end : last_node(ch);
	struct cache_node *n = ch->tail;
	struct wshm_key key;
	struct wanted w;

	wanted_get(&w, ch, index, CACHE_BLOCK);
	wanted_key(&w, parent, &key);
	if (index_find(&ch->domain->index, &key))
		return false;
	if (!n)
		n = node_new(parent, ch->domain, index, &w.label);
	if (!n)
		return false;
	memcpy(n->tokens, w.tokens, sizeof(n->tokens));
	n->key = key;
	if (!node_promise(n, ch)) {
		if (n != ch->tail)
			node_free(n);
		return false;
	}
	ch->tail = NULL;
	if (!ch->promised)
		ch->promised = n;
	ch->promised_end = n;
	return true;
}

void cache_promise(struct cache_chain *ch, const struct block_table *table, uint32_t end)
{
	uint32_t next = ch->promised_end ? ch->promised_end->index + 1 : ch->n;

	cache_copied(ch);
	assert(table->n >= end / CACHE_BLOCK || !ch->on);
	if (!ch->on)
		return;
	if (!ch->is_counted)
		match_count(ch);
	if (ch->is_private)
		return;
	while (next < end / CACHE_BLOCK && promise(ch, next))
		next++;
}

/* --- filling -----------------------------------------------------------------------------------------*/

/* A key is taken by something else, or there is no memory: the rest is nobody else's. */
static void go_private(struct cache_chain *ch)
{
	ch->is_private = true;
	if (ch->tail)
		node_free(ch->tail);
	ch->tail = NULL;
}

static void advance(struct cache_chain *ch, struct cache_node *n)
{
	struct cache_node *before = ch->node;

	n->users++;
	n->last_use = ch->domain->cache->now;
	evict_update(n);
	ch->node = n;
	ch->n++;
	if (before)
		before->users--; /* it has a child, so it stays */
}

/* The same block is there already: go over to it. */
static void go_over(struct cache_chain *ch, struct block_table *table, struct cache_node *n)
{
	struct block_pool *pool = ch->domain->cache->pool;
	uint32_t own = table->blocks[ch->n];

	if (ch->tail)
		node_free(ch->tail);
	ch->tail = NULL;
	if (own != n->block) {
		block_ref(pool, n->block);
		table->blocks[ch->n] = n->block;
		block_put(pool, own);
		ch->domain->stats.duplicates++;
	}
	advance(ch, n);
}

static void fill(struct cache_chain *ch, struct cache_node *n, uint32_t block)
{
	node_attach(n, block);
	if (!node_fill(n)) {
		ch->tail = n;
		go_private(ch);
		return;
	}
	ch->domain->stats.inserted++;
	advance(ch, n);
	if (n->prev || n->next)
		node_prune_siblings(n);
}

/* A block that was not promised, or no longer is. */
static void commit_unpromised(struct cache_chain *ch, struct block_table *table)
{
	struct cache_node *parent = last_node(ch), *n;
	struct wshm_key key;
	struct wanted w;

	wanted_get(&w, ch, ch->n, CACHE_BLOCK);
	wanted_key(&w, parent, &key);
	n = index_find(&ch->domain->index, &key);
	if (n && !wanted_is(&w, parent, n)) {
		ch->domain->stats.collisions++;
		go_private(ch);
		return;
	}
	if (n && n->state == NODE_FULL) {
		go_over(ch, table, n);
		return;
	}
	if (n)
		withdraw(n->owner, n);
	n = ch->tail ? ch->tail : node_new(parent, ch->domain, ch->n, &w.label);
	ch->tail = NULL;
	if (!n) {
		go_private(ch);
		return;
	}
	memcpy(n->tokens, w.tokens, sizeof(n->tokens));
	n->key = key;
	fill(ch, n, table->blocks[ch->n]);
}

static void commit_full(struct cache_chain *ch, struct block_table *table)
{
	struct cache_node *n = ch->promised;

	if (!n) {
		commit_unpromised(ch, table);
		return;
	}
	/* Below a promised node there is the next one of the same chain, or nothing. */
	if (n == ch->promised_end)
		ch->promised = ch->promised_end = NULL;
	else
		ch->promised = n->child;
	fill(ch, n, table->blocks[ch->n]);
}

static struct cache_node *new_tail(struct cache_chain *ch)
{
	struct wanted w;
	struct cache_node *n;

	wanted_get(&w, ch, ch->n, 0);
	n = node_new(last_node(ch), ch->domain, ch->n, &w.label);
	if (n)
		n->owner = ch;
	return n;
}

static void commit_rows(struct cache_chain *ch, const struct block_table *table, uint32_t rows)
{
	struct cache_node *n = ch->promised ? ch->promised : ch->tail;

	if (!n) {
		n = ch->tail = new_tail(ch);
		if (!n)
			return;
	}
	if (n->rows >= rows)
		return;
	node_attach(n, table->blocks[ch->n]);
	if (n == ch->tail)
		ch->tokens(ch->arg, ch->n * CACHE_BLOCK + n->rows, rows - n->rows,
			   n->tokens + n->rows);
	node_grow(n, rows);
}

void cache_commit(struct cache_chain *ch, struct block_table *table, uint32_t computed)
{
	uint32_t full = computed / CACHE_BLOCK;

	cache_copied(ch);
	if (!ch->on)
		return;
	if (!ch->is_counted)
		match_count(ch);
	while (ch->n < full && !ch->is_private)
		commit_full(ch, table);
	if (ch->n == full && computed % CACHE_BLOCK && !ch->is_private)
		commit_rows(ch, table, computed % CACHE_BLOCK);
}

/* --- leaving -----------------------------------------------------------------------------------------*/

static void leave_tail(struct cache_chain *ch)
{
	struct cache_node *n = ch->tail;

	ch->tail = NULL;
	n->owner = NULL;
	if (node_is_redundant(n)) {
		node_free(n);
		return;
	}
	n->last_use = ch->domain->cache->now;
	evict_update(n);
	node_prune_siblings(n);
}

void cache_leave(struct cache_chain *ch)
{
	struct cache_node *last = ch->node;

	cache_copied(ch);
	if (!ch->on)
		return;
	ch->domain->cache->now++;
	if (ch->promised)
		withdraw(ch, ch->promised);
	if (ch->tail)
		leave_tail(ch);
	if (last) {
		last->users--;
		last->last_use = ch->domain->cache->now;
		evict_update(last);
	}
	if (ch->adapter)
		cache_adapter_use(ch->domain->cache, ch->adapter, false);
	ch->on = ch->is_private = false;
	ch->n = 0;
	ch->node = NULL;
}
