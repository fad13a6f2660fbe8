/* SPDX-License-Identifier: Apache-2.0 */
/*
 * index.c - from a key to the node that has it: one open-addressing table per domain, nowhere
 * shared, so that its state says nothing about other domains.
 *
 * A slot holds half the key; the other half and everything that the key stands for is compared in
 * the node. Slots are chosen by a secret multiplier: clients know their domain's keys, and must not
 * be able to make up prompts whose keys all fall into one run of slots.
 *
 * The table has its full size from the start, for a domain has no more full and promised nodes than
 * the pool has blocks: so nothing ever moves, and nothing is allocated while tokens flow. Pages
 * that are not touched cost nothing. When a node is removed the run behind it closes up.
 */
#include "daemon/engine/cache/cache_private.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define MIN_SLOTS 64u

static uint64_t slot_of(const struct node_index *x, uint64_t lo)
{
	uint64_t h = (lo ^ x->seed) * (x->seed | 1);

	return (h ^ h >> 32) & x->mask;
}

int index_init(struct node_index *x, uint64_t seed, uint32_t n)
{
	uint64_t slots = MIN_SLOTS;

	while (slots / 2 < n)
		slots *= 2;
	*x = (struct node_index){.seed = seed, .mask = slots - 1};
	x->slots = calloc(slots, sizeof(*x->slots));
	return x->slots ? 0 : -ENOMEM;
}

void index_fini(struct node_index *x)
{
	assert(!x->n);
	free(x->slots);
	x->slots = NULL;
}

struct cache_node *index_find(const struct node_index *x, const struct wshm_key *key)
{
	const struct index_slot *s;

	for (uint64_t i = slot_of(x, key->lo); (s = &x->slots[i])->node; i = (i + 1) & x->mask)
		if (s->lo == key->lo && s->node->key.hi == key->hi)
			return s->node;
	return NULL;
}

bool index_insert(struct node_index *x, struct cache_node *n)
{
	uint64_t i = slot_of(x, n->key.lo);

	if (x->n >= x->mask - x->mask / 8)
		return false;
	while (x->slots[i].node)
		i = (i + 1) & x->mask;
	x->slots[i] = (struct index_slot){n->key.lo, n};
	x->n++;
	return true;
}

/* May what stands at `at`, whose own slot is `own`, stand in the gap before it? */
static bool may_fill(uint64_t own, uint64_t gap, uint64_t at, uint64_t mask)
{
	return ((at - own) & mask) >= ((at - gap) & mask);
}

void index_remove(struct node_index *x, struct cache_node *n)
{
	struct index_slot *s = x->slots;
	uint64_t gap = slot_of(x, n->key.lo);

	while (s[gap].node != n) {
		assert(s[gap].node);
		gap = (gap + 1) & x->mask;
	}
	for (uint64_t i = (gap + 1) & x->mask; s[i].node; i = (i + 1) & x->mask) {
		if (!may_fill(slot_of(x, s[i].lo), gap, i, x->mask))
			continue;
		s[gap] = s[i];
		gap = i;
	}
	s[gap].node = NULL;
	x->n--;
}
