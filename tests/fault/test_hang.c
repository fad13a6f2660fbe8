/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An engine that stands still (SIGSTOP), in the middle of work and while idle: the heartbeat, or a
 * client's complaint, has it killed and replaced, and requests continue as if nothing had been.
 */
#include "tests/hostile/raw.h"
#include "tests/hostile/world.h"
#include "tests/tap.h"

#include <signal.h>

int main(void)
{
	struct world *w = world_start(&(struct world_options){.daemon = "step_seconds = 1"});
	struct neighbours *n = neighbours_start(w, 2);
	struct job_answer *got = calloc(1, sizeof(*got));
	pid_t engine = world_engine(w), now;
	struct weft *weft;
	uint64_t start = raw_now_ns();

	kill(engine, SIGSTOP);
	now = world_wait_engine(w, engine, 60000);
	ok(now > 0, "an engine that hangs at work is replaced (after %.1f s)",
	   (raw_now_ns() - start) / 1e9);
	ok(neighbours_advance(n, 4, RAW_PATIENCE_MS), "requests continue");
	neighbours_stop(n);

	/* Idle: nobody waits for it until somebody asks. */
	weft = world_open(w);
	engine = world_engine(w);
	raw_pause_us(300000);
	kill(engine, SIGSTOP);
	start = raw_now_ns();
	job_run(weft, 2, got);
	ok(job_same(got, &world_reference(w)[2]),
	   "asked while its engine stands still, a client gets its answer (after %.1f s)",
	   (raw_now_ns() - start) / 1e9);
	ok(world_wait_engine(w, engine, 60000) > 0, "from another engine");
	weft_close(weft);
	world_given_back(w);
	free(got);
	world_stop(w);
	return tap_done();
}
