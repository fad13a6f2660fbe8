/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_client_slots.c - the client's request slots: the one that came back last is used next, with
 * the same bytes of the arena; one that the engine has not given back is never used, nor are its
 * bytes. The engine's side is played by hand.
 */
#include "libclient/private.h"
#include "tests/shm/pair.h"
#include "tests/tap.h"

#include <errno.h>
#include <stdlib.h>

#define SLOTS 8u

static struct pair pair;

static void link_init(struct link *l)
{
	static uint32_t generation; /* other ones than the link before has left in rx */

	generation += 1u << 20;
	*l = (struct link){.c = pair.client, .sock = -1, .wake_fd = -1, .bell_fd = -1};
	l->slots = calloc(SLOTS, sizeof(*l->slots));
	l->free_slots = calloc(SLOTS, sizeof(*l->free_slots));
	l->released = calloc(SLOTS, sizeof(*l->released));
	if (!l->slots || !l->free_slots || !l->released ||
	    wc_arena_init(&l->arena, pair.layout.params.tx_arena_bytes, SLOTS))
		bail_out("no memory");
	for (; l->n_free < SLOTS; l->n_free++) {
		l->slots[l->n_free].generation = generation;
		l->free_slots[l->n_free] = SLOTS - 1 - l->n_free;
	}
}

static void link_fini(struct link *l)
{
	wc_arena_fini(&l->arena);
	free(l->slots);
	free(l->free_slots);
	free(l->released);
}

/* What an engine does that has admitted, ended and seen the release. */
static void give_back(struct link *l, uint32_t slot)
{
	struct wshm_slot *s = wshm_engine_slot(&pair.engine, slot);

	wshm_slot_admit(s, l->slots[slot].generation, WSHM_SLOT_FREE);
}

static uint32_t get(struct link *l, uint64_t bytes)
{
	uint32_t slot = UINT32_MAX;
	int rc = wc_link_slot_get(l, NULL, bytes, &slot);

	return rc ? UINT32_MAX : slot;
}

static void test_order(void)
{
	struct link l;
	uint32_t a, b, c;
	uint64_t off;

	link_init(&l);
	a = get(&l, 100);
	off = l.slots[a].off;
	wc_link_slot_put(&l, a);
	b = get(&l, 100);
	ok(b != a && l.slots[b].off != off, "what was only released is not used");
	give_back(&l, a);
	c = get(&l, 100);
	is_int(c, a, "what came back is used next");
	is_int(l.slots[c].off, off, "with the same bytes");
	wc_link_slot_cancel(&l, c);
	is_int(get(&l, 100), c, "so is what was not submitted");
	link_fini(&l);
}

static void test_none_left(void)
{
	struct link l;
	uint32_t slot;

	link_init(&l);
	for (uint32_t i = 0; i < SLOTS; i++)
		get(&l, 64);
	is_int(wc_link_slot_get(&l, NULL, 64, &slot), -EAGAIN, "all in use");
	ok(!wc_link_has_released(&l), "and none on its way back");
	for (uint32_t i = 0; i < SLOTS; i++)
		wc_link_slot_put(&l, i);
	ok(wc_link_has_released(&l), "released");
	is_int(wc_link_slot_get(&l, NULL, 64, &slot), -EAGAIN, "but not given back");
	give_back(&l, 5);
	is_int(get(&l, 64), 5, "found behind older ones that are not back");
	for (uint32_t i = 0; i < SLOTS; i++)
		give_back(&l, i);
	for (uint32_t i = 0; i < SLOTS - 1; i++)
		ok(get(&l, 64) != UINT32_MAX, "slot %u of the others", i);
	is_int(wc_link_slot_get(&l, NULL, 64, &slot), -EAGAIN, "and no more");
	link_fini(&l);
}

static void test_bytes(void)
{
	uint64_t all = pair.layout.params.tx_arena_bytes;
	struct link l;
	uint32_t slot;

	link_init(&l);
	is_int(wc_link_slot_get(&l, NULL, all + 1, &slot), -ENOSPC, "more than there is");
	slot = get(&l, all - 4096);
	is_int(wc_link_slot_get(&l, NULL, all / 2, &slot), -EAGAIN, "no bytes left");
	wc_link_slot_put(&l, 0);
	is_int(wc_link_slot_get(&l, NULL, all / 2, &slot), -EAGAIN, "until they are given back");
	give_back(&l, 0);
	is_int(get(&l, all / 2), 0, "then there are");
	link_fini(&l);
}

/* Random lives of slots: no two that the engine may still read have bytes in common. */
static void test_random(void)
{
	enum { FREE, USED, RELEASED } state[SLOTS] = {0};
	uint64_t rng = 7, rounds = 0, refused = 0;
	bool right = true;
	struct link l;

	link_init(&l);
	for (; rounds < 200000 && right; rounds++) {
		uint32_t i = pair_random(&rng) % SLOTS;

		if (state[i] == USED && pair_random(&rng) % 2) {
			wc_link_slot_put(&l, i);
			state[i] = RELEASED;
		} else if (state[i] == RELEASED && pair_random(&rng) % 2) {
			give_back(&l, i);
			state[i] = FREE;
		} else {
			uint32_t slot = get(&l, 1 + pair_random(&rng) % 16384);

			refused += slot == UINT32_MAX;
			if (slot == UINT32_MAX)
				continue;
			right = state[slot] == FREE;
			state[slot] = USED;
			for (uint32_t k = 0; k < SLOTS; k++)
				if (k != slot && state[k] != FREE)
					right = right && (l.slots[k].off + l.slots[k].bytes <=
								  l.slots[slot].off ||
							  l.slots[slot].off + l.slots[slot].bytes <=
								  l.slots[k].off);
		}
	}
	ok(right, "%llu steps, %llu refused: none twice, no bytes in common",
	   (unsigned long long)rounds, (unsigned long long)refused);
	link_fini(&l);
}

int main(void)
{
	pair_open(&pair, SLOTS, 0);
	test_order();
	test_none_left();
	test_bytes();
	test_random();
	pair_close(&pair);
	return tap_done();
}
