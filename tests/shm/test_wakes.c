/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_wakes.c - whom a publication wakes, at once or later, and how many one pass wakes.
 *
 * Nobody sleeps here: the words in which clients say that they wait are set by hand, and the wake-up
 * only notes for whom it was.
 */
#include "daemon/engine/engine.h"
#include "shm/internal.h"
#include "tests/shm/pair.h"
#include "tests/tap.h"

#include <stdlib.h>

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

	p->engine.wake_later = true;
	n_woken = 0;
	for (uint32_t i = 0; i < SLOTS; i++)
		wshm_engine_post(&p->engine, i);
	wshm_engine_wake(&p->engine);
	is_int(n_woken, 0, "with wake_later nobody is woken yet");
	is_int(wshm_engine_gather(&p->engine, &list, WSHM_MAX_WAKES), 2,
	       "of 64 slots with news: the one waiter, and once who waits for any");
	is_int(p->engine.n_owed, 0, "and no more are owed");
	wshm_wakes_run(&list);
	is_int(n_woken, 2, "then both are woken");
	ok(woken[0] == progress(p, 3) && woken[1] == tail(p), "the same words");
	is_int(list.n, 0, "and the list is empty");
	drain(p);

	say_waits(p, 3, false);
	say_any(p, false);
	wshm_engine_publish(&p->engine, 3);
	is_int(p->engine.n_owed, 0, "who does not wait is not noted");
	drain(p);
	p->engine.wake_later = false;
}

static void test_full(struct pair *p)
{
	struct wshm_wakes list = {0};
	bool each = true;

	p->engine.wake_later = true;
	n_woken = 0;
	for (uint32_t i = 0; i < SLOTS; i++)
		say_waits(p, i, true);
	for (uint32_t i = 0; i < 3 * SLOTS; i++)
		wshm_engine_publish(&p->engine, i % SLOTS);
	list.n = WSHM_MAX_WAKES - 10;
	is_int(wshm_engine_gather(&p->engine, &list, 20), 10, "a full list takes no more");
	is_int(n_woken, 0, "and nobody is woken past it");
	list.n = 0;
	is_int(wshm_engine_gather(&p->engine, &list, 20), 20, "nor more than was asked for");
	is_int(wshm_engine_gather(&p->engine, &list, SLOTS), SLOTS - 30, "nor one twice");
	is_int(p->engine.n_owed, 0, "that was all of them");
	wshm_wakes_run(&list);
	for (uint32_t i = 10; i < SLOTS; i++)
		each = each && woken[i - 10] == progress(p, i);
	ok(each && n_woken == SLOTS - 10, "each in its turn");
	for (uint32_t i = 0; i < SLOTS; i++)
		say_waits(p, i, false);
	p->engine.wake_later = false;
}

/* A client that says that it waits at every word, against the engine's own passes. */
static void test_end(void)
{
	static const struct wk_ops ops;
	struct engine *e = calloc(1, sizeof(*e));
	struct session *many = calloc(1, sizeof(*many)), *one = calloc(1, sizeof(*one));
	struct pair bad, good;
	uint32_t total = 0, passes = 0, most = 0;
	bool honest = false;

	if (!e || !many || !one)
		bail_out("memory");
	pair_open(&bad, WSHM_MAX_SLOTS, 0);
	pair_open(&good, SLOTS, 0);
	many->shm = bad.engine;
	one->shm = good.engine;
	many->bell = one->bell = BELL_NONE;
	many->shm.wake_later = one->shm.wake_later = true;
	many->next = one;
	e->sessions = many;
	e->ops = &ops;
	for (uint32_t i = 0; i < WSHM_MAX_SLOTS; i++)
		say_waits(&bad, i, true);
	say_waits(&good, 5, true);
	n_woken = 0;
	wshm_engine_set_state(&many->shm, WSHM_ENGINE_ENDED, WSHM_PROTOCOL, 1);
	wshm_engine_post(&one->shm, 5);
	is_int(n_woken, 0, "the end of a session makes no calls");
	do {
		n_woken = 0;
		publish_wake(e, false);
		for (uint32_t i = 0; !passes && i < n_woken; i++)
			honest = honest || woken[i] == progress(&good, 5);
		most = n_woken > most ? n_woken : most;
		total += n_woken;
		passes++;
	} while (e->wakes_owed && passes < 100);
	is_int(most, WSHM_MAX_WAKES, "no pass makes more calls than fit in the list");
	ok(honest, "another session's sleeper is woken in the first one");
	is_int(total, WSHM_MAX_SLOTS + 2, "and in the end everybody is");
	publish_wake(e, false);
	is_int(n_woken, (WSHM_MAX_SLOTS + 2) % WSHM_MAX_WAKES, "once");
	pair_close(&bad);
	pair_close(&good);
	free(one);
	free(many);
	free(e);
}

int main(void)
{
	struct pair p;

	pair_open(&p, SLOTS, 0);
	test_at_once(&p);
	test_gathered(&p);
	test_full(&p);
	pair_close(&p);
	test_end();
	return tap_done();
}
