/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weftd is killed with SIGKILL and started again, several times, under load: libweft connects
 * again and resubmits, and every stream continues exactly where it was. A request that asked for
 * it is told that it was lost instead. No engine of the dead weftd stays.
 */
#include "tests/hostile/raw.h"
#include "tests/hostile/world.h"
#include "tests/tap.h"

#include <signal.h>
#include <unistd.h>

#define KILLS 6u

static struct world *w;
static uint32_t by_hand_met; /* turns in which the kills met both streams */

/* No such process, or one that only waits for init to take notice. */
static bool ended(pid_t pid)
{
	char path[40], line[256], state = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return true;
	if (fgets(line, sizeof(line), f) && strrchr(line, ')'))
		sscanf(strrchr(line, ')') + 1, " %c", &state);
	fclose(f);
	return state == 'Z' || state == 'X' || !state;
}

static bool gone(pid_t pid)
{
	for (int i = 0; i < 10000 && !ended(pid); i++)
		raw_pause_us(1000);
	return ended(pid);
}

static bool kill_and_restart(void)
{
	pid_t engine = world_engine(w);
	bool alone;

	kill(world_daemon(w), SIGKILL);
	world_wait_exit(w, 60000);
	alone = gone(engine);
	world_restart_daemon(w);
	return alone;
}

/* A stream that is read in small steps over three daemons, and one that opts out. */
static void by_hand(void)
{
	struct weft_result res = {.size = sizeof(res)};
	struct weft *weft = world_open(w);
	struct weft_submit_options o;
	struct weft_request *r, *lost;
	uint32_t prompt[JOB_TOKENS], first[3000], have = 0, n, kills = 0, met = 0, next = 50;
	const uint32_t *again;
	int64_t got;

	job_options(4, 192, prompt, &o);
	o.max_tokens = 3000;
	is_int(weft_submit(weft, &r, &o, NULL), 0, "a long stream");
	while ((got = weft_wait(r, 0, have, 60000)) > have)
		have = (uint32_t)got;
	again = weft_tokens(r, 0, &n);
	memcpy(first, again, sizeof(first));
	is_int(n, 3000, "once undisturbed");
	weft_free(r);
	is_int(weft_submit(weft, &r, &o, NULL), 0, "once more");
	o.flags = WEFT_NO_RESUBMIT;
	is_int(weft_submit(weft, &lost, &o, NULL), 0, "one that opts out");
	have = 0;
	while ((got = weft_wait(r, 0, have, 60000)) > have) {
		have = (uint32_t)got;
		if (have < 2500 && have > next && kills < 3) {
			diag("kill at %u", have);
			kills++;
			kill_and_restart();
			/* This process may have been held up until the engine was done. What it had
			 * made is still to come; what comes after that is the next one's. */
			met += weft_tokens(r, 0, &n) && n < 3000;
			next = n + 600;
		}
	}
	is_int(got, 3000, "over %u daemons all tokens come", kills + 1);
	again = weft_tokens(r, 0, &n);
	if (!ok(!memcmp(first, again, sizeof(first)), "and are the same"))
		for (uint32_t i = 0, shown = 0; i < 3000 && shown < 5; i++)
			if (first[i] != again[i] && ++shown)
				diag("token %u: %u, not %u", i, again[i], first[i]);
	weft_result(r, &res);
	ok(res.resubmitted == met && res.status == WEFT_OK, "bridged %u times", res.resubmitted);
	weft_wait(lost, 0, 3000, 60000);
	weft_result(lost, &res);
	weft_tokens(lost, 0, &n);
	ok(res.status == (n < 3000 ? WEFT_LOST : WEFT_OK),
	   "the one that opted out is told that it was lost");
	by_hand_met += met && n < 3000;
	weft_free(r);
	weft_free(lost);
	weft_close(weft);
}

int main(void)
{
	uint32_t x = (uint32_t)raw_now_ns() | 1, clean = 0;
	struct neighbours *n;

	w = world_start(NULL);
	for (int turn = 0; turn < 50 && !by_hand_met; turn++)
		by_hand();
	ok(by_hand_met, "both were met");
	n = neighbours_start(w, 3);
	for (uint32_t k = 0; k < KILLS; k++) {
		x = x * 1664525 + 1013904223;
		raw_pause_us((x >> 8) % 30000);
		clean += kill_and_restart();
		if (!neighbours_advance(n, 3, RAW_PATIENCE_MS))
			diag("no progress after kill %u", k);
	}
	is_int(clean, KILLS, "each time the engine ended with its weftd");
	neighbours_stop(n);
	world_given_back(w);
	world_stop(w);
	return tap_done();
}
