/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_wakes.c - whom a publication wakes, at once or when somebody runs the list.
 *
 * Nobody sleeps here: the words in which clients say that they wait are set by hand, and the wake-up
 * only notes for whom it was.
 */
#include "shm/internal.h"
#include "tests/shm/pair.h"
#include "tests/tap.h"

#define SLOTS 64u

static const _Atomic uint32_t *woken[4 * WSHM_MAX_WAKES];
static uint32_t n_woken;

/* In the place of shm/futex.c. */
void wshm_futex_wake(const _Atomic uint32_t *word, uint32_t most)
{
	woken[n_woken++] = word;
}

int wshm_futex_wait(const _Atomic uint32_t *word, uint32_t seen, int64_t timeout_ns)
{
	return 0;
}

static void say_waits(struct pair *p, uint32_t slot, bool waits)
{
	ord_store(&wshm_client_req(&p->client, slot)->waiters, waits);
}

static void say_any(struct pair *p, bool waits)
{
	ord_store(&pair_tx_ctl(p)->any_waiters, waits);
}

static const _Atomic uint32_t *progress(struct pair *p, uint32_t slot)
{
	return &wshm_engine_slot(&p->engine, slot)->progress;
}

static const _Atomic uint32_t *tail(struct pair *p)
{
	return &((struct wshm_rx_ctl *)(p->engine.rx + p->engine.layout.rx_ctl))->cq_tail;
}

static void drain(struct pair *p)
{
	uint32_t slot, generation;

	while (wshm_client_notice(&p->client, &slot, &generation))
		;
}

static void test_at_once(struct pair *p)
{
	say_waits(p, 3, true);
	say_any(p, true);
	n_woken = 0;
	wshm_engine_publish(&p->engine, 3);
	is_int(n_woken, 2, "without a list both are woken by the publication");
	ok(woken[0] == progress(p, 3) && woken[1] == tail(p), "the slot's, and who waits for any");
	drain(p);
}

static void test_gathered(struct pair *p)
{
	struct wshm_wakes list = {0};

	p->engine.wakes = &list;
	n_woken = 0;
	for (uint32_t i = 0; i < SLOTS; i++)
		wshm_engine_post(&p->engine, i);
	wshm_engine_wake(&p->engine);
	is_int(n_woken, 0, "with a list nobody is woken yet");
	is_int(list.n, 2, "of 64 slots with news: the one waiter, and once who waits for any");
	wshm_wakes_run(&list);
	is_int(n_woken, 2, "then both are");
	ok(woken[0] == progress(p, 3) && woken[1] == tail(p), "the same words");
	is_int(list.n, 0, "and the list is empty");
	drain(p);

	say_waits(p, 3, false);
	say_any(p, false);
	wshm_engine_publish(&p->engine, 3);
	is_int(list.n, 0, "who does not wait is not gathered");
	drain(p);
	p->engine.wakes = NULL;
}

static void test_full(struct pair *p)
{
	struct wshm_wakes list = {0};

	p->engine.wakes = &list;
	n_woken = 0;
	for (uint32_t i = 0; i < SLOTS; i++)
		say_waits(p, i, true);
	for (uint32_t i = 0; i < 3 * SLOTS; i++)
		wshm_engine_publish(&p->engine, i % SLOTS);
	is_int(list.n, WSHM_MAX_WAKES, "a list takes so many");
	is_int(n_woken, 3 * SLOTS - WSHM_MAX_WAKES, "the others are woken at once");
	wshm_wakes_run(&list);
	is_int(n_woken, 3 * SLOTS, "all in all each as often as there was news");
	p->engine.wakes = NULL;
}

int main(void)
{
	struct pair p;

	pair_open(&p, SLOTS, 0);
	test_at_once(&p);
	test_gathered(&p);
	test_full(&p);
	pair_close(&p);
	return tap_done();
}
