/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_ring_torture.c - client and engine in two processes at full speed, counters near 2^32.
 *
 * The client submits requests on every slot, one generation after the other, and learns of their
 * end through notices only; the engine admits and ends them. Every submission must arrive exactly
 * once, in order per slot, with the record and the prompt bytes that belong to it, and every end
 * must be announced.
 */
#include "tests/shm/pair.h"
#include "tests/tap.h"

#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define SLOTS	 8
#define REQUESTS 200000
#define SECONDS	 3
#define ENOUGH	 8000

struct tally {
	_Atomic uint32_t done, client_errors, ended;
};

static uint64_t prompt_word(uint32_t slot, uint32_t gen)
{
	return (uint64_t)gen << 32 | (gen ^ slot);
}

static void submit(struct pair *p, uint32_t slot, uint32_t gen)
{
	uint64_t word = prompt_word(slot, gen);

	memcpy(wshm_client_tx_arena(&p->client) + slot * 64, &word, sizeof(word));
	wshm_client_req_write(&p->client, slot, gen, slot * 64, gen);
	while (wshm_client_submit(&p->client, slot, gen) < 0)
		sched_yield();
}

/* The client's process: returns the number of requests that went wrong. */
static uint32_t client(struct pair *p, struct tally *t)
{
	uint32_t gen[SLOTS], slot, g, i, bad = 0, done = 0;
	uint64_t stop = pair_now_ns() + SECONDS * UINT64_C(1000000000);
	uint64_t heard = pair_now_ns();
	bool stopping = false;
	uint32_t live = SLOTS;

	for (i = 0; i < SLOTS; i++)
		submit(p, i, gen[i] = UINT32_MAX - 1000); /* generations wrap as well */
	while (live) {
		const struct wshm_slot *s;

		if (!wshm_client_notice(&p->client, &slot, &g)) {
			if (pair_now_ns() - heard > UINT64_C(60000000000))
				return bad + live; /* nothing for a minute: lost */
			sched_yield();
			continue;
		}
		heard = pair_now_ns();
		s = wshm_client_slot(&p->client, slot);
		if (g != gen[slot] || wshm_slot_state(s) != WSHM_SLOT_ENDED)
			continue;
		bad += wshm_slot_count(s, 0) != (g & 0xffff);
		wshm_client_release(&p->client, slot, g);
		done++;
		stopping |= done >= REQUESTS ||
			    (done % 64 == 0 && done > ENOUGH && pair_now_ns() > stop);
		if (stopping) {
			live--;
			continue;
		}
		if (!++gen[slot])
			gen[slot] = 1;
		submit(p, slot, gen[slot]);
	}
	ord_store(&t->done, done);
	return bad;
}

static void engine(struct pair *p, struct tally *t, uint32_t *ret_admitted, uint32_t *ret_bad)
{
	uint32_t last[SLOTS] = {0}, slot, gen, want, bad = 0, n = 0;
	struct wshm_req_copy r;
	uint64_t word;
	int rc;

	while (!ord_load_acquire(&t->ended) || wshm_engine_pending(&p->engine)) {
		rc = pair_admit(p, &slot, &gen);
		if (rc < 0)
			break;
		if (!rc) {
			sched_yield();
			continue;
		}
		n++;
		want = last[slot] ? last[slot] + 1 + (last[slot] == UINT32_MAX) : gen;
		last[slot] = gen;
		wshm_engine_fetch_req(&p->engine, slot, &r);
		bad += gen != want || r.generation != gen || r.desc_bytes != gen;
		bad += wshm_engine_fetch(&p->engine, r.desc_off, &word, sizeof(word)) != 0;
		bad += word != prompt_word(slot, gen);
		wshm_slot_set_count(wshm_engine_slot(&p->engine, slot), 0, gen & 0xffff);
		pair_end(p, slot);
	}
	*ret_admitted = n;
	*ret_bad = bad;
}

int main(void)
{
	struct tally *t = pair_shared_page();
	uint32_t admitted, bad;
	struct pair p;
	int status;
	pid_t pid;

	pair_open(&p, SLOTS, UINT32_MAX - 5000);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		ord_store(&t->client_errors, client(&p, t));
		ord_store_release(&t->ended, 1);
		_exit(0);
	}
	engine(&p, t, &admitted, &bad);
	if (p.engine.violations)
		kill(pid, SIGKILL); /* it would wait for ever */
	waitpid(pid, &status, 0);
	ok(WIFEXITED(status) && !WEXITSTATUS(status), "the client ended by itself");
	diag("%u requests", admitted);
	ok(admitted > ENOUGH, "enough of them to wrap both rings and the generations");
	is_int(bad, 0, "every submission arrived once, in order, with its own record and prompt");
	is_int(ord_load(&t->done), admitted, "every end was announced");
	is_int(ord_load(&t->client_errors), 0, "with its counts");
	is_int(p.engine.violations, 0, "no violation");
	pair_close(&p);
	return tap_done();
}
