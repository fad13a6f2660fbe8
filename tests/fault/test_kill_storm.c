/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine is killed at random moments under a storm of requests of every kind (storm.h):
 * several answers, resumed ones, log-probabilities of prompts, cancelled, released, waiting for
 * room, preempted. Each engine must make sense of what the last one left: no session is taken for
 * hostile, no engine dies but by our hand, all ends and comes back.
 */
#include "tests/hostile/storm.h"
#include "tests/hostile/world.h"
#include "tests/tap.h"

#include <signal.h>

#define SESSIONS 2u

static void turns(struct storm *s, uint64_t for_ns)
{
	uint64_t until = raw_now_ns() + for_ns;

	do {
		for (uint32_t k = 0; k < 100 * SESSIONS; k++)
			storm_turn(&s[k % SESSIONS]);
		raw_pause_us(50);
	} while (raw_now_ns() < until);
}

/* Until another engine serves, the storm goes on. */
static bool killed(struct world *w, struct storm *s)
{
	pid_t engine = world_engine(w);
	uint64_t until = raw_now_ns() + 60 * UINT64_C(1000000000) * world_slowness();

	if (engine <= 0 || kill(engine, SIGKILL))
		return false;
	while (raw_now_ns() < until) {
		turns(s, 2000000);
		if (world_wait_engine(w, engine, 1))
			return true;
	}
	return false;
}

int main(void)
{
	const char *asked = getenv("WEFT_KILLS");
	uint32_t kills = asked ? (uint32_t)atoi(asked) : 20, seed = (uint32_t)raw_now_ns() | 1;
	uint32_t done = 0, settled = 0;
	uint64_t served = 0, bad = 0;
	struct storm s[SESSIONS];
	struct raw r[SESSIONS];
	struct neighbours *n;
	struct world *w;

	w = world_start(&(struct world_options){.model = "kv_bytes = 1600K\nprefill_chunk = 48"});
	n = neighbours_start(w, 1);
	diag("random seed %u", seed);
	for (uint32_t i = 0; i < SESSIONS; i++) {
		if (storm_open(&r[i], world_socket(w), world_attacker()))
			bail_out("a raw client is refused");
		storm_init(&s[i], &r[i], seed + i);
		s[i].faithful = true;
	}
	for (; done < kills; done++) {
		uint64_t before = s[0].by_status[WSHM_OK];

		turns(s, (seed = seed * 1664525 + 1013904223) >> 6);
		/* Progress between two kills: without any, requests become suspects. */
		for (int i = 0; i < 6000 && s[0].by_status[WSHM_OK] == before; i++)
			turns(s, 10000000);
		if (s[0].by_status[WSHM_OK] == before || !killed(w, s))
			break;
	}
	is_int(done, kills, "the engine was killed and came back");
	for (uint32_t i = 0; i < SESSIONS; i++) {
		settled += storm_settle(&s[i], RAW_PATIENCE_MS * (int)world_slowness());
		served += s[i].by_status[WSHM_OK];
		bad += s[i].by_status[WSHM_ENGINE_FAULT] + s[i].by_status[WSHM_PROTOCOL] +
		       s[i].by_status[WSHM_NAN];
		ok(atomic_load(&r[i].rx_ctl->engine_state) == WSHM_ENGINE_RUNNING,
		   "session %u stands", i);
	}
	is_int(settled, SESSIONS, "all that was asked has ended (%llu served)",
	       (unsigned long long)served);
	is_int(bad, 0, "nobody is blamed for our kills");
	is_int(world_number(w, "starts"), kills + 1, "no engine died but by our hand");
	for (uint32_t i = 0; i < SESSIONS; i++)
		raw_close(&r[i]);
	neighbours_stop(n);
	world_given_back(w);
	world_stop(w);
	return tap_done();
}
