/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_idx_epochs.c - a replaced table stays while a reader that entered before is inside, and no
 * longer than the grace period, whatever that reader does: stops, dies, or writes anything at all to
 * its epoch word. A reader that is left behind answers right all the same.
 */
#include "tests/shm/idx_world.h"
#include "tests/shm/pair.h"
#include "tests/tap.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOW UINT64_C(5000000000)

static struct pair session;
static struct idx_world x;
static uint32_t n_keys;

/* Put keys until the table has been replaced. */
static void grow(void)
{
	uint64_t epoch = wshm_idx_epoch(x.w);
	struct wshm_key key;

	while (wshm_idx_epoch(x.w) == epoch) {
		key = idx_world_key(n_keys++);
		wshm_idx_put(x.w, &key, WSHM_TIER_HOST);
	}
}

static uint32_t missing(void)
{
	uint32_t bad = 0;

	for (uint32_t i = 0; i < n_keys; i++) {
		struct wshm_key key = idx_world_key(i);

		bad += idx_world_look(&x.r, &key) != WSHM_TIER_HOST;
	}
	return bad;
}

static bool reclaim(uint64_t now_ns)
{
	return wshm_idx_reclaim(x.w, wshm_engine_oldest_reader(&session.engine), now_ns);
}

/* Give back all that may be given back now: does something still wait? */
static bool reclaim_all(uint64_t now_ns)
{
	uint64_t before;

	do {
		before = idx_world_bytes(&x);
		if (!reclaim(now_ns))
			return false;
	} while (idx_world_bytes(&x) < before);
	return true;
}

static void begin(void)
{
	idx_world_open(&x);
	n_keys = 0;
	/* Large enough that its pages stand out. */
	while (n_keys < 60000)
		grow();
	reclaim_all(NOW);
}

static void test_inside(void)
{
	uint64_t before;

	begin();
	is_int(wshm_engine_oldest_reader(&session.engine), -1, "nobody is inside");
	wshm_idx_enter(&session.client, 3, &x.r);
	is_int(wshm_engine_oldest_reader(&session.engine), wshm_idx_epoch(x.w),
	       "a reader is inside the epoch of now");
	grow();
	before = idx_world_bytes(&x);
	ok(reclaim_all(NOW) && idx_world_bytes(&x) == before, "the table it reads stays");
	wshm_idx_enter(&session.client, 4, &x.r);
	ok(reclaim_all(NOW + 1), "another reader in the new one changes nothing");
	wshm_idx_leave(&session.client, 3);
	ok(!reclaim_all(NOW + 2), "it left: nothing waits any more, though the other is inside");
	ok(idx_world_bytes(&x) + (UINT64_C(1) << 20) <= before, "the pages are given back");
	is_int(missing(), 0, "and everything is found");
	wshm_idx_leave(&session.client, 4);
	idx_world_close(&x);
}

static void test_stopped(void)
{
	uint64_t before;

	begin();
	wshm_idx_enter(&session.client, 0, &x.r);
	grow();
	before = idx_world_bytes(&x);
	ok(reclaim_all(NOW) && reclaim_all(NOW + WSHM_IDX_GRACE_NS - 1),
	   "a reader that stopped inside delays it");
	is_int(idx_world_bytes(&x), before, "up to the grace period");
	grow();
	before = idx_world_bytes(&x);
	ok(reclaim_all(NOW + WSHM_IDX_GRACE_NS) &&
		   idx_world_bytes(&x) + (UINT64_C(1) << 20) <= before,
	   "and no longer");
	ok(reclaim_all(NOW + WSHM_IDX_GRACE_NS), "the next table has a period of its own");
	is_int(missing(), 0, "the reader that was left behind finds everything");
	ok(!reclaim_all(NOW + 2 * WSHM_IDX_GRACE_NS), "which ends too");
	wshm_idx_leave(&session.client, 0);
	idx_world_close(&x);
}

static void test_liar(void)
{
	_Atomic uint64_t *words = pair_tx_ctl(&session)->reader_epoch;
	uint64_t rng = 9, lie;

	for (uint32_t turn = 0; turn < 12; turn++) {
		bool waits;

		begin();
		lie = turn == 0	  ? 1
		      : turn == 1 ? UINT64_MAX
		      : turn == 2 ? UINT64_MAX - 1
				  : (uint64_t)pair_random(&rng) << 32 | pair_random(&rng);
		grow();
		for (uint32_t i = 0; i < WSHM_READERS; i++)
			atomic_store(&words[i], turn < 3 ? lie : lie >> i);
		waits = reclaim_all(NOW);
		if (turn == 0)
			ok(waits, "sixteen words of an epoch long past: it waits");
		if (turn == 1 || turn == 2)
			ok(!waits, "of one that never was: it does not");
		if (missing() || reclaim_all(NOW + WSHM_IDX_GRACE_NS) || missing())
			ok(0, "words %016llx: after the grace period nothing waits",
			   (unsigned long long)lie);
		for (uint32_t i = 0; i < WSHM_READERS; i++)
			atomic_store(&words[i], 0);
		idx_world_close(&x);
	}
	ok(1, "whatever the words say, everything is found and nothing waits longer");
}

/* Killed inside: its words stay as they were until its session is gone. */
static void test_dead(void)
{
	int status;
	pid_t pid;

	begin();
	pid = fork();
	if (!pid) {
		for (uint32_t i = 0; i < WSHM_READERS; i++)
			wshm_idx_enter(&session.client, i, &x.r);
		raise(SIGKILL);
	}
	waitpid(pid, &status, 0);
	is_int(wshm_engine_oldest_reader(&session.engine), wshm_idx_epoch(x.w),
	       "a client was killed inside");
	grow();
	ok(reclaim_all(NOW), "it delays");
	ok(!reclaim_all(NOW + WSHM_IDX_GRACE_NS), "the grace period, no more");
	is_int(missing(), 0, "and everything is found");
	idx_world_close(&x);
}

/* Old epochs of an earlier engine are older than every epoch of the next. */
static void test_restart(void)
{
	uint64_t before;

	begin();
	before = wshm_idx_epoch(x.w);
	idx_world_restart(&x);
	ok(wshm_idx_epoch(x.w) > before, "epochs only ever grow, whichever engine counts");
	is_int(wshm_idx_reclaim(x.w, 1, NOW), false, "a new engine has nothing to give back");
	idx_world_close(&x);
}

int main(void)
{
	pair_open(&session, 4, 0);
	test_inside();
	test_stopped();
	test_liar();
	test_restart();
	test_dead();
	pair_close(&session);
	return tap_done();
}
