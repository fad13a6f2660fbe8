/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arena of prompts against a map with one byte per cache line: no overlap, first fit, nothing
 * lost, and everything whole again in the end. A hundred thousand steps.
 */
#include "libclient/arena.h"
#include "tests/tap.h"

#include <errno.h>

#define LINES	 512
#define MAX_LIVE 40
#define STEPS	 100000
#define LINE	 ARENA_ALIGN

static uint8_t map[LINES];
static struct {
	uint64_t off, bytes;
} live[MAX_LIVE];
static uint32_t n_live;
static uint64_t state = 88172645463325252u;

static uint32_t rnd(uint32_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)((state >> 20) % below);
}

static uint32_t lines_of(uint64_t bytes)
{
	return bytes ? (uint32_t)((bytes + LINE - 1) / LINE) : 1;
}

/* Where first fit by address puts so many lines, or -1. */
static int first_fit(uint32_t lines)
{
	uint32_t run = 0;

	for (uint32_t i = 0; i < LINES; i++) {
		run = map[i] ? 0 : run + 1;
		if (run == lines)
			return (int)(i + 1 - lines);
	}
	return -1;
}

static int take(struct arena *a)
{
	uint64_t bytes = rnd(4) ? rnd(20 * LINE) : rnd(200 * LINE), off = 1;
	int at = first_fit(lines_of(bytes)), err = wc_arena_get(a, bytes, &off);

	if (at < 0)
		return err == -EAGAIN;
	if (err || off != (uint64_t)at * LINE)
		return 0;
	memset(map + at, 1, lines_of(bytes));
	live[n_live].off = off;
	live[n_live++].bytes = bytes;
	return 1;
}

static void give(struct arena *a, uint32_t i)
{
	wc_arena_put(a, live[i].off, live[i].bytes);
	memset(map + live[i].off / LINE, 0, lines_of(live[i].bytes));
	live[i] = live[--n_live];
}

int main(void)
{
	struct arena a;
	uint64_t off;
	int wrong = 0;

	is_int(wc_arena_init(&a, LINES * LINE + 17, MAX_LIVE), 0, "an arena, not of whole lines");
	for (uint32_t step = 0; step < STEPS && !wrong; step++) {
		if (n_live < MAX_LIVE && (!n_live || rnd(2)))
			wrong += !take(&a);
		else
			give(&a, rnd(n_live));
	}
	is_int(wrong, 0, "every step as on the map");
	while (n_live)
		give(&a, 0);
	is_int(a.n, 1, "one extent in the end");
	is_int(wc_arena_get(&a, LINES * LINE, &off), 0, "all of it can be had again");
	is_int(wc_arena_get(&a, 1, &off), -EAGAIN, "and then nothing more");
	is_int(wc_arena_get(&a, UINT64_MAX, &off), -EAGAIN, "a size that would wrap");
	wc_arena_fini(&a);
	wc_arena_fini(&a);
	return tap_done();
}
