/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pin.c - prefixes that stay. A pin holds every node from the root to its last one, so what is
 * pinned never hangs below something that could go.
 */
#include "daemon/engine/cache/cache_private.h"

#include <stdlib.h>

struct cache_pin {
	struct cache_domain *domain; /* NULL: it is gone, and the nodes with it */
	struct cache_node *last;     /* the domain's root: nothing was there */
	struct cache_pin *prev, *next;
};

static void pin_node(struct cache_node *n, bool pin)
{
	struct cache_domain *d = n->domain;

	block_pin(d->cache->pool, n->block, pin);
	n->pins += pin ? 1 : -1;
	if (n->pins == (pin ? 1 : 0))
		d->stats.pinned += pin ? 1 : -1;
	evict_update(n);
}

/* What follows the last full block: some rows of a child that nobody is still filling. Not of one
 * that depends on an adapter: its weights would have to stay too. */
static uint32_t pin_rows(struct cache_pin *p, const uint32_t *tokens, uint32_t n)
{
	const struct block_label base = {NULL, CACHE_BLOCK};
	struct cache_node *s = p->last->child, *best = NULL;
	uint32_t rows, most = 0;

	for (uint32_t i = 0; s && i < CACHE_SCAN; s = s->next, i++) {
		if (s->owner || s->adapter)
			continue;
		rows = node_agree(s, &base, tokens, n);
		if (rows > most) {
			most = rows;
			best = s;
		}
	}
	if (best) {
		p->last = best;
		pin_node(best, true);
	}
	return most;
}

struct cache_pin *cache_pin_new(struct cache_domain *d, const uint32_t *tokens, uint32_t n_tokens,
				uint32_t *ret_tokens)
{
	struct cache_pin *p = calloc(1, sizeof(*p));
	struct wanted w = {.label = {NULL, CACHE_BLOCK}};
	struct cache_node *n;
	uint32_t at = 0;

	if (!p)
		return NULL;
	p->domain = d;
	p->last = &d->root;
	for (; n_tokens - at >= CACHE_BLOCK; at += CACHE_BLOCK) {
		memcpy(w.tokens, tokens + at, sizeof(w.tokens));
		n = wanted_find(&w, p->last);
		if (!n || n->state != NODE_FULL)
			break;
		p->last = n;
		pin_node(n, true);
	}
	if (at < n_tokens)
		at += pin_rows(p, tokens + at, n_tokens - at);
	*ret_tokens = at;
	p->next = d->pins;
	if (p->next)
		p->next->prev = p;
	d->pins = p;
	return p;
}

static void unpin(struct cache_pin *p)
{
	for (struct cache_node *n = p->last; !node_is_root(n); n = n->parent)
		pin_node(n, false);
	if (p->prev)
		p->prev->next = p->next;
	else
		p->domain->pins = p->next;
	if (p->next)
		p->next->prev = p->prev;
	p->domain = NULL;
}

void cache_pin_free(struct cache_pin *p)
{
	if (p && p->domain)
		unpin(p);
	free(p);
}

void pin_forget_all(struct cache_domain *d)
{
	while (d->pins)
		unpin(d->pins);
}
