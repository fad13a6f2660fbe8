/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_wait_torture.c - no wake-up is lost between a client that really sleeps and its engine, in
 * two processes. Delays on both sides are random and about as long as the windows of the
 * handshakes, so sleep and publication meet at every possible moment.
 *
 * A wake-up is lost if a sleep runs into its limit of two seconds although what it waited for had
 * happened. A publication is lost if the client, woken, does not see it.
 */
#include "tests/shm/pair.h"
#include "tests/tap.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIMIT_NS   UINT64_C(20000000000)
#define RUN_NS	   UINT64_C(1500000000)
#define AT_MOST_NS UINT64_C(60000000000) /* where there is little of a processor to be had */
#define ROUNDS	   1000u

struct shared {
	_Atomic uint32_t asked; /* rounds that the client has begun */
	_Atomic uint32_t over;	/* no more will begin */
	_Atomic uint32_t lost;	/* sleeps that ran out */
	_Atomic uint32_t slept; /* rounds in which the client found nothing at first */
};

/* One round: wait until slot 0 carries `round` tokens. Returns false when a wake-up was lost. */
typedef bool (*round_fn)(struct pair *p, struct shared *sh, uint32_t round);

static bool wait_by_slot(struct pair *p, struct shared *sh, uint32_t round)
{
	const struct wshm_slot *s = wshm_client_slot(&p->client, 0);

	for (;;) {
		uint32_t seen = wshm_slot_progress(s);

		if (wshm_slot_count(s, 0) == round)
			return true;
		ord_add_seq(&sh->slept, 1);
		if (wshm_client_wait_slot(&p->client, 0, seen, LIMIT_NS) == -ETIMEDOUT)
			return false;
	}
}

static bool wait_by_notice(struct pair *p, struct shared *sh, uint32_t round)
{
	const struct wshm_slot *s = wshm_client_slot(&p->client, 0);
	uint32_t slot, gen;

	for (;;) {
		if (wshm_client_notice(&p->client, &slot, &gen)) {
			if (wshm_slot_count(s, 0) == round)
				return true;
			continue;
		}
		ord_add_seq(&sh->slept, 1);
		if (wshm_client_wait_any(&p->client, LIMIT_NS) == -ETIMEDOUT)
			return false;
	}
}

static bool slept_enough(const struct shared *sh, uint32_t rounds)
{
	return rounds > ROUNDS && ord_load(&sh->slept) > rounds / 10;
}

static bool go_on(const struct shared *sh, uint32_t round, uint64_t ns)
{
	return ns < RUN_NS || (ns < AT_MOST_NS && !slept_enough(sh, round - 1));
}

static void client(struct pair *p, struct shared *sh, round_fn wait)
{
	uint64_t rng = 88172645463325252u, begun = pair_now_ns();
	uint32_t round;

	for (round = 1; go_on(sh, round, pair_now_ns() - begun); round++) {
		ord_store_release(&sh->asked, round);
		pair_spin(pair_random(&rng) % 3000);
		if (!wait(p, sh, round)) {
			ord_add_seq(&sh->lost, 1);
			break;
		}
	}
	ord_store_release(&sh->over, 1);
}

/* Answers each round with one publication, after a random delay. Returns the rounds answered. */
static uint32_t engine(struct pair *p, struct shared *sh)
{
	struct wshm_slot *s = wshm_engine_slot(&p->engine, 0);
	uint64_t rng = 2463534242u;
	uint32_t round = 0;

	while (!ord_load_acquire(&sh->over)) {
		if (ord_load_acquire(&sh->asked) == round) {
			pair_spin(20);
			continue;
		}
		round++;
		pair_spin(pair_random(&rng) % 20000);
		wshm_slot_set_count(s, 0, round);
		wshm_engine_publish(&p->engine, 0);
	}
	return round;
}

static void run(const char *what, round_fn wait)
{
	struct shared *sh = pair_shared_page();
	uint32_t slot, gen, rounds;
	struct pair p;
	pid_t pid;

	pair_open(&p, 2, UINT32_MAX - 1000);
	wshm_client_submit(&p.client, 0, 1);
	pair_admit(&p, &slot, &gen);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		client(&p, sh, wait);
		_exit(0);
	}
	rounds = engine(&p, sh);
	waitpid(pid, NULL, 0);
	diag("%s: %u rounds, %u times about to sleep", what, rounds, ord_load(&sh->slept));
	ok(slept_enough(sh, rounds), "%s: the client really slept", what);
	is_int(ord_load(&sh->lost), 0, "%s: no wake-up was lost", what);
	is_int(ord_load(&pair_tx_ctl(&p)->any_waiters) +
		       ord_load(&wshm_client_req(&p.client, 0)->waiters),
	       0, "%s: the waiter counts are back at zero", what);
	pair_close(&p);
}

int main(void)
{
	run("wait for one slot", wait_by_slot);
	run("wait for any", wait_by_notice);
	return tap_done();
}
