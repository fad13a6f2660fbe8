/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_need_wake_torture.c - an engine that goes to sleep is rung for every submission, cancel and
 * release that it did not see, in two processes with random delays on both sides.
 *
 * The engine here sleeps in poll() on an eventfd as the real one does. A ring is lost if poll runs
 * into two seconds although the client had done something.
 */
#include "tests/shm/pair.h"
#include "tests/tap.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define RUN_NS UINT64_C(2000000000)

struct shared {
	_Atomic uint32_t over, rounds, rings, sleeps;
};

static void ring_if(struct shared *sh, int efd, int needed)
{
	uint64_t one = 1;

	if (!needed)
		return;
	ord_add_seq(&sh->rings, 1);
	if (write(efd, &one, sizeof(one)) != sizeof(one))
		_exit(1);
}

static bool slept_enough(const struct shared *sh)
{
	return ord_load(&sh->rounds) > 1000 && ord_load(&sh->sleeps) > ord_load(&sh->rounds) / 10;
}

/* Longer where there is little of a processor to be had. */
static bool go_on(const struct shared *sh, uint64_t ns)
{
	return ns < RUN_NS || (ns < 30 * RUN_NS && !slept_enough(sh));
}

/* Submit, cancel, release, each after the engine has answered the step before. */
static void client(struct pair *p, struct shared *sh, int efd)
{
	const struct wshm_slot *s = wshm_client_slot(&p->client, 0);
	uint64_t rng = 99, begun = pair_now_ns();
	uint32_t gen, step;

	for (gen = 1; go_on(sh, pair_now_ns() - begun); gen++)
		for (step = 1; step <= 3; step++) {
			uint64_t patience = pair_now_ns() + UINT64_C(60000000000);

			pair_spin(pair_random(&rng) % 8000);
			if (step == 1)
				ring_if(sh, efd, wshm_client_submit(&p->client, 0, gen));
			else if (step == 2)
				ring_if(sh, efd, wshm_client_cancel(&p->client, 0, gen));
			else
				ring_if(sh, efd, wshm_client_release(&p->client, 0, gen));
			while (wshm_slot_count(s, 0) != (gen << 2 | step))
				if (pair_now_ns() > patience) {
					ord_store_release(&sh->over, 1);
					ring_if(sh, efd, 1);
					_exit(2);
				}
			ord_add_seq(&sh->rounds, 1);
		}
	ord_store_release(&sh->over, 1);
	ring_if(sh, efd, 1);
	_exit(0);
}

/* What there is to do: answers it and returns true, or false. */
static bool work(struct pair *p, uint32_t *gen, uint32_t *step)
{
	struct wshm_slot *s = wshm_engine_slot(&p->engine, 0);
	uint32_t slot;

	if (*step == 3	 ? pair_admit(p, &slot, gen) != 1
	    : *step == 1 ? !wshm_engine_cancelled(&p->engine, 0, *gen)
			 : !wshm_engine_released(&p->engine, 0, *gen))
		return false;
	*step = *step % 3 + 1;
	wshm_slot_set_count(s, 0, *gen << 2 | *step);
	return true;
}

/* Returns how often a sleep ran out with work waiting. */
static uint32_t engine(struct pair *p, struct shared *sh, int efd)
{
	struct pollfd pfd = {.fd = efd, .events = POLLIN};
	uint32_t gen = 0, step = 3, lost = 0;
	uint64_t rng = 7, dummy;

	while (!ord_load_acquire(&sh->over)) {
		if (work(p, &gen, &step))
			continue;
		pair_spin(pair_random(&rng) % 4000);
		wshm_engine_set_need_wake(&p->engine, true);
		if (!work(p, &gen, &step) && !ord_load_acquire(&sh->over)) {
			ord_add_seq(&sh->sleeps, 1);
			if (poll(&pfd, 1, 20000) == 0 && work(p, &gen, &step))
				lost++;
			else if (read(efd, &dummy, sizeof(dummy)) < 0)
				bail_out("read");
		}
		wshm_engine_set_need_wake(&p->engine, false);
	}
	return lost;
}

int main(void)
{
	struct shared *sh = pair_shared_page();
	int efd = eventfd(0, EFD_CLOEXEC), status;
	uint32_t lost;
	struct pair p;
	pid_t pid;

	pair_open(&p, 1, UINT32_MAX - 1000);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		client(&p, sh, efd);
	}
	lost = engine(&p, sh, efd);
	waitpid(pid, &status, 0);
	diag("%u rounds, %u sleeps, %u rings", ord_load(&sh->rounds), ord_load(&sh->sleeps),
	     ord_load(&sh->rings));
	ok(WIFEXITED(status) && !WEXITSTATUS(status), "the client saw every answer");
	ok(slept_enough(sh), "the engine really slept");
	is_int(lost, 0, "no ring was lost");
	close(efd);
	pair_close(&p);
	return tap_done();
}
