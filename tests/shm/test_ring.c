/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_ring.c - the submission ring, one step at a time: order, room, wrapping of the counters, what
 * is skipped and what is a violation. The counters start just below 2^32.
 */
#include "tests/shm/pair.h"
#include "tests/tap.h"

#include <errno.h>
#include <pthread.h>
#include <unistd.h>

#define SLOTS 4
#define START (UINT32_MAX - 2)

static uint64_t entry(uint32_t slot, uint32_t generation)
{
	return (uint64_t)generation << 32 | slot;
}

static void test_order_and_room(void)
{
	uint32_t i, slot, gen, ordered = 0;
	struct pair p;

	pair_open(&p, SLOTS, START);
	is_int(wshm_engine_peek(&p.engine, &slot, &gen), 0, "nothing there");
	ok(!wshm_engine_pending(&p.engine), "nothing pending");
	for (i = 0; i < 2 * SLOTS; i++)
		if (wshm_client_submit(&p.client, i % SLOTS, 1 + i / SLOTS))
			break;
	is_int(i, 2 * SLOTS, "twice the slots fit");
	is_int(wshm_client_submit(&p.client, 0, 3), -EAGAIN, "and no more");
	ok(wshm_engine_pending(&p.engine), "pending");
	for (i = 0; i < SLOTS; i++)
		ordered += pair_admit(&p, &slot, &gen) == 1 && slot == i && gen == 1;
	is_int(ordered, SLOTS, "taken in order, over the wrap of the counter");
	is_int(wshm_client_submit(&p.client, 0, 3), 0, "room again");
	pair_close(&p);
}

static void test_peek_is_stable(void)
{
	uint32_t slot, gen;
	struct pair p;

	pair_open(&p, SLOTS, START);
	wshm_client_submit(&p.client, 2, 7);
	is_int(wshm_engine_peek(&p.engine, &slot, &gen), 1, "peeked");
	pair_push_raw(&p, START + 1, entry(3, 9));
	slot = gen = 0;
	is_int(wshm_engine_peek(&p.engine, &slot, &gen), 1, "peeked again");
	ok(slot == 2 && gen == 7, "the same, though the client has rewritten the entry");
	wshm_engine_accept(&p.engine);
	is_int(wshm_engine_peek(&p.engine, &slot, &gen), 0, "accepted: gone");
	is_int(p.engine.generation[2], 7, "as it was peeked");
	is_int(p.engine.generation[3], 0, "not as it was rewritten");
	pair_close(&p);
}

static void test_never_twice(void)
{
	uint32_t slot, gen;
	struct pair p;

	pair_open(&p, SLOTS, START);
	wshm_client_submit(&p.client, 1, 5);
	wshm_client_submit(&p.client, 1, 5);
	wshm_client_submit(&p.client, 2, 1);
	is_int(pair_admit(&p, &slot, &gen), 1, "first");
	is_int(pair_admit(&p, &slot, &gen), 1, "third");
	is_int(slot, 2, "the second was skipped");
	is_int(pair_admit(&p, &slot, &gen), 0, "nothing left");
	wshm_client_release(&p.client, 1, 5);
	wshm_client_submit(&p.client, 1, 5);
	is_int(pair_admit(&p, &slot, &gen), 0, "not even after its release");
	wshm_client_submit(&p.client, 1, 6);
	is_int(pair_admit(&p, &slot, &gen), 1, "the next generation is");
	wshm_client_release(&p.client, 1, 7);
	wshm_client_submit(&p.client, 1, 7);
	is_int(pair_admit(&p, &slot, &gen), 1, "also if it has been released already");
	wshm_slot_set_state(wshm_engine_slot(&p.engine, 1), WSHM_SLOT_FREE);
	wshm_client_release(&p.client, 1, 0);
	wshm_client_submit(&p.client, 1, 8);
	is_int(pair_admit(&p, &slot, &gen), 1, "also if the engine has freed the slot itself");
	pair_close(&p);
}

/* One hostile act; the engine must answer -EPROTO, also when it has been undone. */
static void violation(const char *what, uint32_t tail, uint64_t raw, bool good_first)
{
	uint32_t slot, gen;
	struct pair p;

	pair_open(&p, SLOTS, START);
	if (good_first) {
		wshm_client_submit(&p.client, 1, 1);
		pair_admit(&p, &slot, &gen);
	}
	pair_push_raw(&p, tail, raw);
	is_int(wshm_engine_peek(&p.engine, &slot, &gen), -EPROTO, "%s", what);
	pair_push_raw(&p, p.engine.sq_head, 0);
	is_int(wshm_engine_peek(&p.engine, &slot, &gen), -EPROTO, "  and from then on for ever");
	is_int(p.engine.violations, 1, "  counted once");
	pair_close(&p);
}

static void test_violations(void)
{
	violation("tail one beyond the ring", START + 2 * SLOTS + 1, entry(0, 1), false);
	violation("tail far beyond the ring", START + (UINT32_C(1) << 31), entry(0, 1), false);
	violation("tail rewound by one", START - 1, entry(0, 1), false);
	violation("tail rewound after a submission", START, entry(0, 1), true);
	violation("slot out of range", START + 1, entry(SLOTS, 1), false);
	violation("slot far out of range", START + 1, entry(UINT32_MAX, 1), false);
	violation("a reserved bit of the slot", START + 1, entry(1 | 1u << 31, 1), false);
	violation("generation 0", START + 1, entry(1, 0), false);
	violation("a slot that is not released", START + 2, entry(1, 2), true);
}

static void test_full_tail_is_fine(void)
{
	uint32_t i, slot, gen;
	struct pair p;

	pair_open(&p, SLOTS, START);
	for (i = 1; i <= 2 * SLOTS; i++)
		pair_push_raw(&p, START + i, entry(0, 1));
	is_int(pair_admit(&p, &slot, &gen), 1, "a full ring is no violation");
	is_int(pair_admit(&p, &slot, &gen), 0, "repetitions are skipped in one call");
	is_int(p.engine.sq_head, START + 2 * SLOTS, "all taken");
	pair_close(&p);
}

struct refiller {
	struct pair *p;
	_Atomic uint32_t stop;
};

static void *refill(void *arg)
{
	struct refiller *f = arg;
	const struct wshm_rx_ctl *rx = wshm_client_rx_ctl(&f->p->client);

	while (!ord_load(&f->stop))
		ord_store(&pair_tx_ctl(f->p)->sq_tail, ord_load(&rx->sq_head) + 2 * SLOTS);
	return NULL;
}

/* Entries to be skipped, coming as fast as they go: one call takes a ring of them at most. */
static void test_endless(void)
{
	uint32_t slot, gen, most = 0;
	struct refiller f = {0};
	pthread_t thread;
	struct pair p;

	pair_open(&p, SLOTS, START);
	wshm_client_submit(&p.client, 0, 1);
	pair_admit(&p, &slot, &gen);
	for (uint32_t i = 0; i < 2 * SLOTS; i++)
		pair_push_raw(&p, START + 1 + i, entry(0, 1));
	f.p = &p;
	if (pthread_create(&thread, NULL, refill, &f))
		bail_out("no thread");
	alarm(20); /* an engine that never returns fails too */
	for (uint64_t end = pair_now_ns() + 300000000; pair_now_ns() < end;) {
		uint32_t before = p.engine.sq_head;

		if (wshm_engine_peek(&p.engine, &slot, &gen))
			break;
		if (p.engine.sq_head - before > most)
			most = p.engine.sq_head - before;
	}
	alarm(0);
	ord_store(&f.stop, 1);
	pthread_join(thread, NULL);
	ok(most && most <= 2 * SLOTS + 1, "at most %u entries were skipped in one call", most);
	pair_close(&p);
}

int main(void)
{
	test_order_and_room();
	test_peek_is_stable();
	test_never_twice();
	test_violations();
	test_full_tail_is_fine();
	test_endless();
	return tap_done();
}
