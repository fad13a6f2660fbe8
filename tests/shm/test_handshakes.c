/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_handshakes.c - the store-then-load handshakes, without the kernel in between.
 *
 * A real futex looks at the word once more, so late that a missing barrier never shows in a test
 * that really sleeps. Here futex_wait and futex_wake only note that they were called. Client and
 * engine thread meet at a rendezvous for each round and then run their sides at the same moment; if
 * the client would have slept and the engine did not wake it, the two have missed each other. Each
 * handshake of wshm.h has its round. On x86-64 a release store in place of any sequentially
 * consistent one shows within a second on two cores.
 */
#include "shm/internal.h"
#include "tests/shm/pair.h"
#include "tests/tap.h"

#include <pthread.h>
#include <sched.h>

#define ROUND_NS   UINT64_C(800000000)
#define MAX_ROUNDS 400000
#define MAX_LEAD   4000

static _Thread_local bool would_sleep, woke;
static _Atomic uint32_t client_round, engine_done; /* the engine's side of a round is over */

/*
 * These two take the place of shm/futex.c in this program. The sleeper stays, counted as a waiter,
 * until the engine has done its part of the round.
 */
int wshm_futex_wait(const _Atomic uint32_t *word, uint32_t seen, int64_t timeout_ns)
{
	uint32_t spins = 0;

	would_sleep = true;
	while (ord_load_acquire(&engine_done) != ord_load(&client_round))
		if (++spins % 4096 == 0)
			sched_yield();
	return 0;
}

void wshm_futex_wake(const _Atomic uint32_t *word, uint32_t most)
{
	woke = true;
}

struct meet {
	struct pair pair;
	_Atomic uint32_t client_at, engine_at; /* rounds that each side has reached */
	_Atomic uint32_t over;
	_Atomic int32_t lead;		/* see aim() */
	_Atomic uint32_t client_missed; /* what the client's side of this round found */
	void (*client_side)(struct meet *m);
	uint32_t round;	  /* the client's own */
	uint32_t seen;	  /* progress before the round, for the client */
	uint32_t notices; /* taken by the client */
};

/* Wait until the other side has reached this round as well. */
static void rendezvous(_Atomic uint32_t *mine, _Atomic uint32_t *other, uint32_t round,
		       const _Atomic uint32_t *over)
{
	uint32_t spins = 0;

	ord_store_seq(mine, round);
	while ((int32_t)(ord_load_seq(other) - round) < 0 && !ord_load(over))
		if (++spins % 4096 == 0)
			sched_yield();
}

/*
 * The moment to hit is where either side is as likely to miss the other: whoever was early in the
 * last rounds waits longer. `lead` is the client's delay in spins, or the engine's if negative.
 */
static void aim(struct meet *m, bool client_missed, bool engine_missed)
{
	int32_t lead = ord_load(&m->lead) + client_missed - engine_missed;

	if (lead > -MAX_LEAD && lead < MAX_LEAD)
		ord_store(&m->lead, lead);
}

static void hold_fire(int32_t lead, uint64_t *rng)
{
	pair_spin((lead > 0 ? (uint32_t)lead : 0) + pair_random(rng) % 32);
}

static void *client_thread(void *arg)
{
	struct meet *m = arg;
	uint64_t rng = 77;
	uint32_t round;

	for (round = 1; !ord_load_acquire(&m->over); round++) {
		m->seen = wshm_slot_progress(wshm_client_slot(&m->pair.client, 0));
		rendezvous(&m->client_at, &m->engine_at, 2 * round, &m->over);
		if (ord_load(&m->over))
			break;
		hold_fire(ord_load(&m->lead), &rng);
		would_sleep = false;
		ord_store(&client_round, round);
		m->round = round;
		m->client_side(m);
		rendezvous(&m->client_at, &m->engine_at, 2 * round + 1, &m->over);
	}
	return NULL;
}

/* --- the engine's publication against the client's waits ---------------------------------------- */

static void sleep_on_slot(struct meet *m)
{
	wshm_client_wait_slot(&m->pair.client, 0, m->seen, -1);
	ord_store(&m->client_missed, would_sleep);
}

static void sleep_on_any(struct meet *m)
{
	wshm_client_wait_any(&m->pair.client, -1);
	ord_store(&m->client_missed, would_sleep);
}

static bool publish_missed(struct meet *m)
{
	woke = false;
	wshm_engine_publish(&m->pair.engine, 0);
	return !woke;
}

/* So that the next round finds no notice. */
static void drain(struct meet *m)
{
	uint32_t slot, gen;

	while (wshm_client_notice(&m->pair.client, &slot, &gen))
		;
}

/* --- the engine's decision not to post against the client that takes the last notice ------------ */

static void take_notice(struct meet *m)
{
	const struct wshm_slot *s = wshm_client_slot(&m->pair.client, 0);
	uint32_t slot, gen;

	/* One is outstanding. Take it and look: is this round's count there? */
	wshm_client_notice(&m->pair.client, &slot, &gen);
	ord_store(&m->client_missed, wshm_slot_count(s, 0) != m->round);
}

static bool post_missed(struct meet *m)
{
	uint32_t tail = m->pair.engine.cq_tail, count;
	struct wshm_slot *s = wshm_engine_slot(&m->pair.engine, 0);

	count = ord_load(&s->count[0]);
	wshm_slot_set_count(s, 0, count + 1);
	wshm_engine_publish(&m->pair.engine, 0);
	return m->pair.engine.cq_tail == tail;
}

/* Leave exactly one notice outstanding. */
static void leave_one(struct meet *m)
{
	drain(m);
	wshm_engine_publish(&m->pair.engine, 0);
}

/* --- the client's words against an engine about to sleep ---------------------------------------- */

static void submit(struct meet *m)
{
	ord_store(&m->client_missed, wshm_client_submit(&m->pair.client, 1, m->round) == 0);
}

static void cancel(struct meet *m)
{
	ord_store(&m->client_missed, wshm_client_cancel(&m->pair.client, 1, m->round) == 0);
}

static void release(struct meet *m)
{
	ord_store(&m->client_missed, wshm_client_release(&m->pair.client, 1, m->round) == 0);
}

static bool pending_missed(struct meet *m)
{
	wshm_engine_set_need_wake(&m->pair.engine, true);
	return !wshm_engine_pending(&m->pair.engine);
}

static bool cancel_missed(struct meet *m)
{
	uint32_t round = ord_load(&m->engine_at) / 2;

	wshm_engine_set_need_wake(&m->pair.engine, true);
	return !wshm_engine_cancelled(&m->pair.engine, 1, round);
}

static bool release_missed(struct meet *m)
{
	uint32_t round = ord_load(&m->engine_at) / 2;

	wshm_engine_set_need_wake(&m->pair.engine, true);
	return !wshm_engine_released(&m->pair.engine, 1, round);
}

static void awake(struct meet *m)
{
	uint32_t slot, gen;

	wshm_engine_set_need_wake(&m->pair.engine, false);
	wshm_client_release(&m->pair.client, 1, m->round);
	while (pair_admit(&m->pair, &slot, &gen) == 1)
		;
}

/* ------------------------------------------------------------------------------------------------ */

/* `after` puts everything back while the client thread waits at the next rendezvous. */
static void run(const char *what, void (*client_side)(struct meet *m),
		bool (*engine_side)(struct meet *m), void (*after)(struct meet *m))
{
	struct meet *m = calloc(1, sizeof(*m));
	uint32_t slot, gen, round, client = 0, engine = 0, both = 0;
	uint64_t rng = 31, stop;
	pthread_t t;

	ord_store(&engine_done, 0);
	pair_open(&m->pair, 2, UINT32_MAX - 1000);
	wshm_client_submit(&m->pair.client, 0, 1);
	pair_admit(&m->pair, &slot, &gen);
	m->client_side = client_side;
	after(m);
	if (pthread_create(&t, NULL, client_thread, m))
		bail_out("pthread_create");
	stop = pair_now_ns() + ROUND_NS;
	for (round = 1; round <= MAX_ROUNDS && (round % 64 || pair_now_ns() < stop); round++) {
		bool missed;

		rendezvous(&m->engine_at, &m->client_at, 2 * round, &m->over);
		hold_fire(-ord_load(&m->lead), &rng);
		missed = engine_side(m);
		ord_store_release(&engine_done, round);
		/* The client stands at its next rendezvous until the engine gets there. */
		while ((int32_t)(ord_load_seq(&m->client_at) - (2 * round + 1)) < 0)
			sched_yield();
		client += ord_load(&m->client_missed);
		engine += missed;
		aim(m, ord_load(&m->client_missed), missed);
		both += missed && ord_load(&m->client_missed);
		after(m);
		rendezvous(&m->engine_at, &m->client_at, 2 * round + 1, &m->over);
	}
	ord_store_release(&m->over, 1);
	pthread_join(t, NULL);
	diag("%s: %u rounds, the client missed the engine in %u, the engine the client in %u", what,
	     round - 1, client, engine);
	is_int(both, 0, "%s: never both", what);
	pair_close(&m->pair);
	free(m);
}

int main(void)
{
	run("wait for a slot", sleep_on_slot, publish_missed,
	    leave_one); /* no cq_tail to order it */
	run("wait for any", sleep_on_any, publish_missed, drain);
	run("notice", take_notice, post_missed, leave_one);
	run("submit", submit, pending_missed, awake);
	run("cancel", cancel, cancel_missed, awake);
	run("release", release, release_missed, awake);
	return tap_done();
}
