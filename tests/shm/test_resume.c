/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_resume.c - an engine takes over what a killed one left, wherever that one stood: nothing is
 * admitted twice, nothing is lost, and everything unreleased is announced again.
 */
#include "tests/shm/pair.h"
#include "tests/tap.h"

#include <errno.h>

#define SLOTS 4
#define START (UINT32_MAX - 1)

static void test_before_admission(void)
{
	uint32_t slot, gen;
	struct pair p;

	pair_open(&p, SLOTS, START);
	wshm_client_submit(&p.client, 2, 5);
	wshm_engine_peek(&p.engine, &slot, &gen);
	pair_restart_engine(&p);
	is_int(pair_admit(&p, &slot, &gen), 1, "killed after peek: admitted by the next engine");
	ok(slot == 2 && gen == 5, "the same request");
	pair_close(&p);
}

static void test_before_accept(void)
{
	uint32_t slot, gen;
	struct pair p;

	pair_open(&p, SLOTS, START);
	wshm_client_submit(&p.client, 2, 5);
	wshm_client_submit(&p.client, 3, 1);
	wshm_engine_peek(&p.engine, &slot, &gen);
	wshm_slot_admit(wshm_engine_slot(&p.engine, slot), gen, WSHM_SLOT_QUEUED);
	pair_restart_engine(&p);
	is_int(p.engine.generation[2], 5, "killed after the slot was written: it is known");
	is_int(pair_admit(&p, &slot, &gen), 1, "its entry is skipped");
	is_int(slot, 3, "the next is taken");
	pair_close(&p);
}

static void test_announce(void)
{
	uint32_t i, slot, gen, seen = 0, n = 0;
	struct pair p;

	pair_open(&p, SLOTS, START);
	for (i = 0; i < 3; i++) {
		wshm_client_submit(&p.client, i, 1);
		pair_admit(&p, &slot, &gen);
	}
	wshm_engine_publish(&p.engine, 0);
	wshm_engine_publish(&p.engine, 1);
	wshm_client_notice(&p.client, &slot, &gen); /* slot 0: taken; 1: outstanding; 2: none */
	pair_restart_engine(&p);
	wshm_engine_announce_all(&p.engine);
	while (wshm_client_notice(&p.client, &slot, &gen)) {
		seen |= 1u << slot;
		n++;
	}
	is_int(seen, 7, "everything unreleased is announced, nothing else");
	is_int(n, 3, "and what was outstanding only once");
	is_int(wshm_slot_progress(wshm_client_slot(&p.client, 1)), 2, "progress goes on");
	pair_close(&p);
}

/* A client that does not look while engine after engine dies. */
static void test_many_restarts(void)
{
	uint32_t i, j, slot, gen, seen = 0;
	struct pair p;

	pair_open(&p, SLOTS, START);
	for (i = 0; i < SLOTS; i++) {
		wshm_client_submit(&p.client, i, 1);
		pair_admit(&p, &slot, &gen);
	}
	for (j = 0; j < 50; j++) {
		pair_restart_engine(&p);
		wshm_engine_announce_all(&p.engine);
	}
	is_int(p.engine.cq_tail - p.client.cq_head, SLOTS, "50 restarts, one notice per slot");
	/* Killed between the ring entry and cq_tail, when the ring has been used all over. */
	for (i = 0; i < 1000; i++) {
		wshm_client_notice(&p.client, &slot, &gen);
		wshm_engine_publish(&p.engine, slot);
		_Atomic uint64_t *cq = (_Atomic uint64_t *)(p.engine.rx + p.layout.rx_ring);

		ord_store(&cq[p.engine.cq_tail & (p.layout.ring_entries - 1)],
			  UINT64_C(1) << 32 | (i & 3));
		pair_restart_engine(&p);
		for (j = 0; j < SLOTS; j++)
			wshm_engine_publish(&p.engine, j);
		if (p.engine.cq_tail - p.client.cq_head != SLOTS)
			break;
	}
	is_int(i, 1000, "a half-posted notice changes nothing");
	while (wshm_client_notice(&p.client, &slot, &gen))
		seen |= 1u << slot;
	is_int(seen, 15, "all slots announced");
	pair_close(&p);
}

static void test_set_state(void)
{
	const struct wshm_rx_ctl *ctl;
	uint32_t slot, gen;
	struct pair p;

	pair_open(&p, SLOTS, START);
	ctl = wshm_client_rx_ctl(&p.client);
	is_int(wshm_rx_engine_state(ctl), WSHM_ENGINE_STARTING, "starting");
	wshm_engine_set_state(&p.engine, WSHM_ENGINE_RUNNING, WSHM_OK, 77);
	is_int(wshm_rx_engine_state(ctl), WSHM_ENGINE_RUNNING, "running");
	is_int(ord_load(&ctl->instance_id), 77, "as instance 77");
	wshm_client_submit(&p.client, 1, 1);
	pair_admit(&p, &slot, &gen);
	wshm_engine_set_state(&p.engine, WSHM_ENGINE_ENDED, WSHM_PROTOCOL, 77);
	is_int(wshm_rx_engine_state(ctl), WSHM_ENGINE_ENDED, "ended");
	is_int(ord_load(&ctl->end_status), WSHM_PROTOCOL, "with the reason");
	is_int(wshm_client_notice(&p.client, &slot, &gen), 1, "and open requests are announced");
	pair_close(&p);
}

static void test_need_wake(void)
{
	struct pair p;

	pair_open(&p, SLOTS, START);
	is_int(wshm_client_submit(&p.client, 0, 1), 0, "an engine that is awake is not rung");
	wshm_engine_set_need_wake(&p.engine, true);
	is_int(wshm_client_submit(&p.client, 1, 1), 1, "submission rings");
	is_int(wshm_client_cancel(&p.client, 1, 1), 1, "cancel rings");
	is_int(wshm_client_release(&p.client, 1, 1), 1, "release rings");
	ok(wshm_engine_cancelled(&p.engine, 1, 1) && wshm_engine_released(&p.engine, 1, 1),
	   "both are seen");
	ok(!wshm_engine_cancelled(&p.engine, 1, 2) && !wshm_engine_released(&p.engine, 0, 1),
	   "for that request only");
	wshm_engine_set_need_wake(&p.engine, false);
	is_int(wshm_client_cancel(&p.client, 0, 1), 0, "awake again");
	pair_close(&p);
}

int main(void)
{
	test_before_admission();
	test_before_accept();
	test_announce();
	test_many_restarts();
	test_set_state();
	test_need_wake();
	return tap_done();
}
