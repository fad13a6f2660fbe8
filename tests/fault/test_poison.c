/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests that crash the engine each time they run (a test hook in the engine: prompts with one
 * certain token): each ends alone, with ENGINE_FAULT; everybody else's answers are what they are
 * without them.
 */
#include "tests/hostile/raw.h"
#include "tests/hostile/world.h"
#include "tests/tap.h"

#define POISON "191" /* the vocabulary's last token; jobs never use it */

static void submit_poison(struct raw *r, uint32_t slot, uint32_t generation)
{
	raw_prepare(r, slot, generation, 5, 20, 50);
	((uint32_t *)(r->tx_arena + raw_prompt_off(slot)))[7] = (uint32_t)atoi(POISON);
	raw_push(r, slot, generation);
}

static int ended_with(struct raw *r, uint32_t slot, uint32_t generation)
{
	if (!raw_wait_state(r, slot, generation, WSHM_SLOT_ENDED, 60000 * (int)world_slowness()))
		return -1;
	return (int)atomic_load(&r->slot[slot].status);
}

int main(void)
{
	struct world *w =
		world_start(&(struct world_options){.env = {"WEFT_TEST_CRASH_TOKEN=" POISON}});
	struct neighbours *n = neighbours_start(w, 3);
	uint32_t faults = 0, starts;
	struct raw r;

	if (raw_open(&r, world_socket(w), world_attacker(), 8))
		bail_out("a raw client is refused");
	/* One with good company in its own session. */
	raw_submit(&r, 1, 1, 9, 40, 3000);
	raw_wait_count(&r, 1, 1, 1, RAW_PATIENCE_MS);
	submit_poison(&r, 0, 1);
	is_int(ended_with(&r, 0, 1), WSHM_ENGINE_FAULT,
	       "a poisonous request ends with ENGINE_FAULT");
	starts = (uint32_t)world_number(w, "starts");
	ok(starts >= 3 && starts <= 6, "after %u crashes", starts - 1);
	is_int(ended_with(&r, 1, 1), WSHM_OK, "its neighbour in the session ends well");
	is_int(atomic_load(&r.slot[1].count[0]), 3000, "and is complete");
	ok(neighbours_advance(n, 3, 60000), "other sessions go on");
	/* Three at once. */
	for (uint32_t i = 2; i < 5; i++)
		submit_poison(&r, i, 1);
	for (uint32_t i = 2; i < 5; i++)
		faults += ended_with(&r, i, 1) == WSHM_ENGINE_FAULT;
	is_int(faults, 3, "of three at once each ends with ENGINE_FAULT");
	for (uint32_t i = 0; i < 5; i++)
		raw_release(&r, i, 1);
	ok(raw_alive(&r, 7, 1), "the session is as good as before");
	diag("%lld engines", world_number(w, "starts"));
	raw_close(&r);
	neighbours_stop(n);
	world_given_back(w);
	world_stop(w);
	return tap_done();
}
