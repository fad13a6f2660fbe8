/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients of libweft are killed at random moments under load. What they held comes back, at once
 * and all of it, and others get what they get alone.
 */
#include "tests/hostile/raw.h"
#include "tests/hostile/world.h"
#include "tests/tap.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static struct world *w;

static pid_t start_victim(uint32_t index)
{
	pid_t pid = fork();
	struct job_answer *got;
	struct weft *weft;

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	got = malloc(sizeof(*got));
	weft = world_open(w);
	for (uint32_t i = index;; i++)
		job_run(weft, i % JOBS, got);
}

int main(void)
{
	const char *asked = getenv("WEFT_KILLS");
	uint32_t kills = asked ? (uint32_t)atoi(asked) : 20, x = (uint32_t)raw_now_ns() | 1,
		 back = 0;
	struct neighbours *n;
	pid_t victim[4];

	w = world_start(NULL);
	n = neighbours_start(w, 2);
	for (uint32_t i = 0; i < 4; i++)
		victim[i] = start_victim(i * 2);
	for (uint32_t k = 0; k < kills; k++) {
		x = x * 1664525 + 1013904223;
		raw_pause_us((x >> 8) % 50000);
		kill(victim[k % 4], SIGKILL);
		waitpid(victim[k % 4], NULL, 0);
		victim[k % 4] = start_victim(k);
	}
	ok(neighbours_advance(n, 4, RAW_PATIENCE_MS), "the others go on after %u kills", kills);
	for (uint32_t i = 0; i < 4; i++) {
		kill(victim[i], SIGKILL);
		back += waitpid(victim[i], NULL, 0) == victim[i];
	}
	is_int(back, 4, "the last four are killed together");
	ok(world_number_becomes(w, "sessions", 2, RAW_PATIENCE_MS),
	   "only the neighbours' sessions are left");
	neighbours_stop(n);
	world_same(w);
	world_given_back(w);
	world_stop(w);
	return tap_done();
}
