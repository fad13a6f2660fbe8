/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_notices.c - the completion ring, one step at a time: at most one outstanding notice per
 * slot, none lost, no overflow whatever the client does to cq_head.
 */
#include "tests/shm/pair.h"
#include "tests/tap.h"

#define SLOTS 4
#define START (UINT32_MAX - 5)

static uint32_t outstanding(struct pair *p)
{
	return p->engine.cq_tail - p->client.cq_head;
}

static void admit(struct pair *p, uint32_t slot, uint32_t gen)
{
	uint32_t s, g;

	if (p->engine.generation[slot])
		wshm_client_release(&p->client, slot, p->engine.generation[slot]);
	wshm_client_submit(&p->client, slot, gen);
	if (pair_admit(p, &s, &g) != 1 || s != slot || g != gen)
		bail_out("admit");
}

static void test_coalescing(void)
{
	uint32_t slot, gen, i;
	struct pair p;

	pair_open(&p, SLOTS, START);
	admit(&p, 1, 1);
	admit(&p, 3, 1);
	is_int(wshm_client_notice(&p.client, &slot, &gen), 0, "no notice yet");
	for (i = 0; i < 100; i++)
		wshm_engine_publish(&p.engine, 3);
	is_int(outstanding(&p), 1, "a hundred publications, one notice");
	wshm_engine_publish(&p.engine, 1);
	is_int(outstanding(&p), 2, "another slot, another notice");
	is_int(wshm_client_notice(&p.client, &slot, &gen), 1, "taken");
	ok(slot == 3 && gen == 1, "the first");
	wshm_engine_publish(&p.engine, 3);
	is_int(outstanding(&p), 2, "once taken, the next publication posts again");
	is_int(wshm_client_notice(&p.client, &slot, &gen), 1, "taken");
	is_int(slot, 1, "the second");
	is_int(wshm_client_notice(&p.client, &slot, &gen), 1, "taken");
	is_int(slot, 3, "the third");
	is_int(wshm_client_notice(&p.client, &slot, &gen), 0, "no more");
	is_int(wshm_slot_progress(wshm_client_slot(&p.client, 3)), 101, "progress counts all");
	pair_close(&p);
}

/* A client that never takes notices but uses its slots over and over. */
static void test_never_overflows(void)
{
	uint32_t i, slot, gen, seen = 0;
	struct pair p;

	pair_open(&p, SLOTS, START);
	for (i = 1; i < 1000; i++) {
		admit(&p, i % SLOTS, i);
		wshm_engine_publish(&p.engine, i % SLOTS);
		pair_end(&p, i % SLOTS);
	}
	is_int(outstanding(&p), SLOTS, "one notice per slot and no more");
	while (wshm_client_notice(&p.client, &slot, &gen))
		seen |= (gen == wshm_slot_generation(wshm_client_slot(&p.client, slot))) << slot;
	is_int(seen, 15, "each tells of what the slot holds now");
	is_int(p.engine.violations, 0, "nothing wrong with that");
	pair_close(&p);
}

/* A slot whose last notice is exactly 2^32 positions ago. */
static void test_same_position_again(void)
{
	struct pair p;
	uint32_t slot, gen;

	pair_open(&p, SLOTS, 0);
	admit(&p, 2, 1);
	admit(&p, 1, 1);
	wshm_engine_publish(&p.engine, 2);
	wshm_client_notice(&p.client, &slot, &gen);
	/* 2^32 - 1 notices of slot 1 later, cut short */
	p.engine.cq_shadow[0] = 1;
	p.engine.cq_tail = 0;
	p.client.cq_head = 0;
	ord_store(&pair_tx_ctl(&p)->cq_head, 0);
	wshm_engine_publish(&p.engine, 1);
	is_int(outstanding(&p), 1, "slot 1 at position 0");
	wshm_engine_publish(&p.engine, 2);
	is_int(outstanding(&p), 2, "slot 2 does not take that for its own");
	pair_close(&p);
}

static void test_lying_head(void)
{
	static const uint32_t lies[] = {1, 2 * SLOTS, 2 * SLOTS + 1, 1u << 31, UINT32_MAX};
	uint32_t i, slot, gen;
	struct pair p;

	for (i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		pair_open(&p, SLOTS, START);
		admit(&p, 0, 1);
		wshm_engine_publish(&p.engine, 0);
		ord_store(&pair_tx_ctl(&p)->cq_head, p.engine.cq_tail + lies[i]);
		wshm_engine_publish(&p.engine, 0);
		if (lies[i] < UINT32_MAX - 2 * SLOTS)
			is_int(wshm_engine_pending(&p.engine)
				       ? wshm_engine_peek(&p.engine, &slot, &gen)
				       : 0,
			       -71, "cq_head %u beyond cq_tail is a violation", lies[i]);
		else
			is_int(outstanding(&p), 1, "cq_head one behind: nothing new");
		pair_close(&p);
	}

	/* Taken back after each notice was taken, so that the ring looks full of slot 0's. */
	pair_open(&p, SLOTS, START);
	admit(&p, 0, 1);
	admit(&p, 1, 1);
	for (i = 0; i < 2 * SLOTS; i++) {
		wshm_engine_publish(&p.engine, 0);
		wshm_client_notice(&p.client, &slot, &gen);
	}
	ord_store(&pair_tx_ctl(&p)->cq_head, START);
	wshm_engine_publish(&p.engine, 1);
	is_int(p.engine.cq_tail - START, 2 * SLOTS, "a full ring stays as it is");
	wshm_engine_publish(&p.engine, 1);
	is_int(p.engine.violations, 0, "which alone is no violation");
	pair_close(&p);
}

static void test_bell(void)
{
	uint32_t slot, gen;
	struct pair p;

	pair_open(&p, SLOTS, START);
	admit(&p, 0, 1);
	is_int(wshm_engine_publish(&p.engine, 0), 0, "no bell unless armed");
	wshm_client_arm_bell(&p.client, true);
	is_int(wshm_engine_publish(&p.engine, 0), 0, "not for a notice that is already there");
	wshm_client_notice(&p.client, &slot, &gen);
	is_int(wshm_engine_publish(&p.engine, 0), 1, "for a new one");
	wshm_client_notice(&p.client, &slot, &gen);
	wshm_client_arm_bell(&p.client, false);
	is_int(wshm_engine_publish(&p.engine, 0), 0, "disarmed");
	pair_close(&p);
}

int main(void)
{
	test_coalescing();
	test_never_overflows();
	test_same_position_again();
	test_lying_head();
	test_bell();
	return tap_done();
}
