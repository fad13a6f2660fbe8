/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine is killed with SIGKILL at random moments, twenty times (WEFT_KILLS says otherwise),
 * while several clients generate. Every request ends, with exactly the tokens and log-probabilities
 * of an undisturbed run, and afterwards nothing is missing.
 */
#include "tests/hostile/raw.h"
#include "tests/hostile/world.h"
#include "tests/tap.h"

#include <signal.h>
#include <unistd.h>

#define CLIENTS 4u

static uint32_t next(uint32_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 17;
	return *x ^= *x << 5;
}

int main(void)
{
	const char *asked = getenv("WEFT_KILLS");
	uint32_t kills = asked ? (uint32_t)atoi(asked) : 20, done = 0,
		 x = (uint32_t)raw_now_ns() | 1;
	uint64_t slowest = 0, before;
	struct neighbours *n;
	struct world *w;

	diag("random state %u", x);
	w = world_start(NULL);
	n = neighbours_start(w, CLIENTS);
	before = neighbours_done(n);
	for (; done < kills; done++) {
		pid_t engine = world_engine(w);
		uint64_t start;

		/* From before the first step to many requests later. */
		raw_pause_us(next(&x) % 3 ? next(&x) % 3000 : next(&x) % 60000);
		start = raw_now_ns();
		if (engine <= 0 || kill(engine, SIGKILL) ||
		    !world_wait_engine(w, engine, RAW_PATIENCE_MS * (int)world_slowness()))
			break;
		if (raw_now_ns() - start > slowest)
			slowest = raw_now_ns() - start;
		/* Someone's progress: without any, requests become suspects of the crash. */
		if (!neighbours_advance(n, 1, RAW_PATIENCE_MS))
			break;
	}
	is_int(done, kills, "the engine was killed and came back");
	diag("%llu requests meanwhile; slowest restart %.0f ms",
	     (unsigned long long)(neighbours_done(n) - before), slowest / 1e6);
	neighbours_stop(n);
	ok(world_number(w, "starts") == kills + 1, "one start for each kill");
	world_given_back(w);
	world_stop(w);
	return tap_done();
}
