/* SPDX-License-Identifier: Apache-2.0 */
/*
 * match.c - what of a prompt is there already.
 *
 * The walk goes from the root block by block. Where a node has one or two children the next node is
 * compared with them directly: parent, adapter, first adapted row and every token are equal or it is
 * not the one. Only where more part is the key computed and the index asked, and then the same is
 * compared; a key alone never decides.
 *
 * Where the walk ends the children of the last node are searched for the one that agrees in most
 * rows with what follows; those rows the caller copies.
 *
 * The public tree is walked from its root likewise, when the own one has not everything. It is read
 * only: what one tenant takes from it leaves no trace there that another could find.
 */
#include "daemon/engine/cache/cache_private.h"

#include <assert.h>

#define TRY_CHILDREN 2

void wanted_get(struct wanted *w, const struct cache_chain *ch, uint32_t index, uint32_t rows)
{
	uint32_t first = index * CACHE_BLOCK;
	bool adapted = ch->adapter && ch->activation != WSHM_NO_ACTIVATION &&
		       ch->activation < first + CACHE_BLOCK;

	w->index = index;
	w->label.adapter = adapted ? ch->adapter : NULL;
	w->label.unadapted = !adapted		      ? CACHE_BLOCK
			     : ch->activation > first ? ch->activation - first
						      : 0;
	ch->tokens(ch->arg, first, rows, w->tokens);
}

void wanted_key(const struct wanted *w, const struct cache_node *parent, struct wshm_key *ret)
{
	struct wshm_identity id = {{0, 0}, w->label.unadapted};

	if (w->label.adapter)
		memcpy(id.adapter, w->label.adapter->digest, sizeof(id.adapter));
	wshm_key_block(ret, parent->domain->secret, &parent->key, &id, w->tokens);
}

bool wanted_is(const struct wanted *w, const struct cache_node *parent, const struct cache_node *n)
{
	return n->state != NODE_TAIL && n->parent == parent && n->adapter == w->label.adapter &&
	       n->unadapted == w->label.unadapted &&
	       !memcmp(n->tokens, w->tokens, sizeof(n->tokens));
}

struct cache_node *wanted_find(const struct wanted *w, const struct cache_node *parent)
{
	struct cache_node *n = parent->child;
	struct wshm_key key;

	for (int i = 0; i < TRY_CHILDREN; i++, n = n->next) {
		if (!n)
			return NULL;
		if (wanted_is(w, parent, n))
			return n;
	}
	if (!n)
		return NULL;
	wanted_key(w, parent, &key);
	n = index_find(&parent->domain->index, &key);
	return n && wanted_is(w, parent, n) ? n : NULL;
}

/* How far a walk came. */
struct walk {
	struct cache_node *last; /* the root at first */
	uint32_t n;
	const struct cache_node *promised; /* what it ended before, if somebody computes that */
};

/* Blocks from `from` on are written to blocks[], which may be NULL. */
static void walk(struct walk *k, struct cache_domain *d, const struct cache_chain *ch, uint32_t max,
		 uint32_t from, uint32_t *blocks)
{
	struct wanted w;
	struct cache_node *n;

	*k = (struct walk){.last = &d->root};
	while (k->n < max) {
		wanted_get(&w, ch, k->n, CACHE_BLOCK);
		n = wanted_find(&w, k->last);
		if (!n)
			return;
		if (n->state != NODE_FULL) {
			k->promised = n;
			return;
		}
		if (blocks && k->n >= from)
			blocks[k->n] = n->block;
		k->last = n;
		k->n++;
	}
}

/* A child to copy rows from. */
struct donor {
	struct cache_node *node; /* NULL: none */
	uint32_t rows;
};

static void find_donor(struct donor *best, const struct cache_node *parent, const struct wanted *w,
		       uint32_t n)
{
	struct cache_node *s = parent->child;

	for (uint32_t i = 0; s && i < CACHE_SCAN; s = s->next, i++) {
		uint32_t rows = node_agree(s, &w->label, w->tokens, n);

		if (rows > best->rows)
			*best = (struct donor){s, rows};
	}
}

struct match {
	struct walk own, public;
	uint32_t n; /* the longer one's */
	struct donor donor;
};

static void look(struct match *m, const struct cache_chain *ch, uint32_t limit, uint32_t *blocks)
{
	struct cache_domain *d = ch->domain, *pub = d->cache->public;
	uint32_t max = limit / CACHE_BLOCK, rest;
	struct wanted w;

	*m = (struct match){.donor = {NULL, 0}};
	walk(&m->own, d, ch, max, 0, blocks);
	m->n = m->own.n;
	if (pub && pub != d && pub->root.child && limit > m->n * CACHE_BLOCK) {
		walk(&m->public, pub, ch, max, m->n, blocks);
		if (m->public.n > m->n)
			m->n = m->public.n;
	}
	rest = limit - m->n * CACHE_BLOCK;
	if (!rest)
		return;
	if (rest > CACHE_BLOCK)
		rest = CACHE_BLOCK;
	wanted_get(&w, ch, m->n, rest);
	if (m->own.n == m->n)
		find_donor(&m->donor, m->own.last, &w, rest);
	if (m->public.last && m->public.n == m->n)
		find_donor(&m->donor, m->public.last, &w, rest);
}

uint32_t cache_peek(const struct cache_chain *ch, uint32_t limit)
{
	struct match m;

	look(&m, ch, limit, NULL);
	return m.n * CACHE_BLOCK + m.donor.rows;
}

/* The domain's own nodes on the way have been used, if only by one that waits for room. */
static void mark_used(struct cache_chain *ch, const struct match *m)
{
	uint64_t now = ++ch->domain->cache->now;

	for (struct cache_node *n = m->own.last; !node_is_root(n); n = n->parent)
		n->last_use = now;
	if (m->donor.node && m->donor.node->domain == ch->domain) {
		m->donor.node->last_use = now;
		node_to_front(m->donor.node);
	}
	if (m->own.n && m->own.n == m->n)
		node_to_front(m->own.last);
}

/* A sequence may look again and again before there is room for it: only what it uses counts. */
void match_count(struct cache_chain *ch)
{
	struct cache_stats *s = &ch->domain->stats;

	ch->is_counted = true;
	s->hits_full += ch->hit_full;
	s->hits_rows += ch->hit_rows;
	s->misses += ch->missed;
	for (struct cache_node *n = ch->node; n && !node_is_root(n); n = n->parent)
		n->visits++;
	if (ch->adapter)
		ch->adapter->visits++;
}

void cache_match(struct cache_chain *ch, struct block_table *table, uint32_t limit,
		 struct cache_found *ret)
{
	struct cache *c = ch->domain->cache;
	struct match m;

	assert(!ch->on && !table->n && limit / CACHE_BLOCK <= table->cap);
	look(&m, ch, limit, table->blocks);
	*ret = (struct cache_found){.n_full = m.n, .tail_rows = m.donor.rows};
	for (; table->n < m.n; table->n++)
		block_ref(c->pool, table->blocks[table->n]);
	ch->on = true;
	ch->n = m.own.n;
	ch->node = m.own.n ? m.own.last : NULL;
	if (ch->node) {
		ch->node->users++;
		evict_update(ch->node);
	}
	if (ch->adapter)
		cache_adapter_use(c, ch->adapter, true);
	if (m.donor.node) {
		ch->copying = true;
		ch->copy_from = ret->tail_block = m.donor.node->block;
		block_ref(c->pool, ch->copy_from);
	}
	/* It is the next block only if the public tree has not got further. */
	if (m.own.promised && m.own.n == m.n)
		ret->wait_for = m.own.promised->owner;
	mark_used(ch, &m);
	ch->is_counted = false;
	ch->hit_full = m.n;
	ch->hit_rows = m.donor.rows;
	ch->missed = limit / CACHE_BLOCK - m.n;
	ch->domain->stats.waits += ret->wait_for != NULL;
}

void cache_copied(struct cache_chain *ch)
{
	if (!ch->copying)
		return;
	ch->copying = false;
	block_put(ch->domain->cache->pool, ch->copy_from);
}
