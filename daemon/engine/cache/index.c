/* SPDX-License-Identifier: Apache-2.0 */
/*
 * index.c - from a key to the node that has it: one open-addressing table per domain, nowhere
 * shared, so that its state says nothing about other domains.
 *
 * A slot holds half the key; the other half and everything that the key stands for is compared in
 * the node. Slots are chosen by a secret multiplier: clients know their domain's keys, and must not
 * be able to make up prompts whose keys all fall into one run of slots.
 *
 * Growing never makes the core thread wait: a table of twice the size is put beside the old one,
 * and each insertion moves a few slots over. The old one takes no more insertions, so what leaves
 * it may leave a mark; in the current one the run behind a removed node closes up.
 */
#include "daemon/engine/cache/cache_private.h"

#include <assert.h>
#include <stdlib.h>

#define FIRST_SLOTS 64u
/* At half full a table of C slots is followed; C moves must be done within the C/2 insertions that
 * fill half of the next. Two would do. */
#define MOVES 4u

static struct cache_node moved_on; /* marks a slot of an old table that is empty by now */

static uint64_t slot_of(const struct node_index *x, uint64_t lo, uint64_t mask)
{
	uint64_t h = (lo ^ x->seed) * (x->seed | 1);

	return (h ^ h >> 32) & mask;
}

void index_init(struct node_index *x, uint64_t seed, uint32_t n)
{
	uint64_t slots = FIRST_SLOTS;

	while (slots / 2 < n)
		slots *= 2;
	*x = (struct node_index){.seed = seed};
	/* Fresh pages come as they are touched; without it the table grows from nothing. */
	x->slots = calloc(slots, sizeof(*x->slots));
	if (x->slots)
		x->mask = slots - 1;
}

void index_fini(struct node_index *x)
{
	assert(!x->n);
	free(x->slots);
	free(x->old);
	x->slots = x->old = NULL;
}

static struct cache_node *probe(const struct node_index *x, const struct index_slot *slots,
				uint64_t mask, const struct wshm_key *key)
{
	const struct index_slot *s;

	for (uint64_t i = slot_of(x, key->lo, mask); (s = &slots[i])->node; i = (i + 1) & mask)
		if (s->lo == key->lo && s->node != &moved_on && s->node->key.hi == key->hi)
			return s->node;
	return NULL;
}

struct cache_node *index_find(const struct node_index *x, const struct wshm_key *key)
{
	struct cache_node *n = x->slots ? probe(x, x->slots, x->mask, key) : NULL;

	return n || !x->old ? n : probe(x, x->old, x->old_mask, key);
}

static void put(struct node_index *x, struct cache_node *n)
{
	uint64_t i = slot_of(x, n->key.lo, x->mask);

	while (x->slots[i].node)
		i = (i + 1) & x->mask;
	x->slots[i] = (struct index_slot){n->key.lo, n};
}

static void move_some(struct node_index *x, uint64_t n_slots)
{
	for (; x->old && n_slots; n_slots--) {
		struct index_slot *s = &x->old[x->moved++];

		if (s->node && s->node != &moved_on) {
			put(x, s->node);
			s->node = &moved_on;
		}
		if (x->moved > x->old_mask) {
			free(x->old);
			x->old = NULL;
		}
	}
}

static bool make_room(struct node_index *x)
{
	uint64_t cap = x->slots ? x->mask + 1 : 0;
	uint64_t want = cap ? 2 * cap : FIRST_SLOTS;
	struct index_slot *slots;

	if (x->n + 1 <= cap / 2)
		return true;
	move_some(x, UINT64_MAX);
	slots = calloc(want, sizeof(*slots));
	if (!slots)
		return x->n + 1 < cap - cap / 8;
	x->old = x->slots;
	x->old_mask = x->mask;
	x->moved = 0;
	x->slots = slots;
	x->mask = want - 1;
	return true;
}

bool index_insert(struct node_index *x, struct cache_node *n)
{
	if (!make_room(x))
		return false;
	move_some(x, MOVES);
	put(x, n);
	x->n++;
	return true;
}

/* Does the run that starts at a node's own slot reach over the gap? Then the node may fill it. */
static bool may_fill(uint64_t own, uint64_t gap, uint64_t at, uint64_t mask)
{
	return ((at - own) & mask) >= ((at - gap) & mask);
}

static void close_gap(struct node_index *x, uint64_t gap)
{
	struct index_slot *s = x->slots;

	for (uint64_t i = (gap + 1) & x->mask; s[i].node; i = (i + 1) & x->mask) {
		if (!may_fill(slot_of(x, s[i].lo, x->mask), gap, i, x->mask))
			continue;
		s[gap] = s[i];
		gap = i;
	}
	s[gap].node = NULL;
}

void index_remove(struct node_index *x, struct cache_node *n)
{
	uint64_t i;

	x->n--;
	for (i = slot_of(x, n->key.lo, x->mask); x->slots[i].node; i = (i + 1) & x->mask) {
		if (x->slots[i].node == n) {
			close_gap(x, i);
			return;
		}
	}
	assert(x->old);
	for (i = slot_of(x, n->key.lo, x->old_mask); x->old[i].node != n; i = (i + 1) & x->old_mask)
		assert(x->old[i].node);
	x->old[i].node = &moved_on;
}
