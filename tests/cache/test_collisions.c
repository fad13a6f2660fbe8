/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_collisions.c - with keys of 8 bits nearly every block meets another that has its key: a
 * million of them, none served. With whole keys the same requests never collide.
 */
#include "tests/cache/world.h"

enum { BLOCKS = 400, WANT = 1000000 };

static uint64_t seed = 4711;

static uint32_t rnd(uint32_t n)
{
	seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
	return (uint32_t)(seed >> 33) % n;
}

int main(void)
{
	struct world w;
	struct cache_stats s;
	uint64_t n = 0, reused = 0;
	uint32_t t[49], kept[49];

	world_init(&w, BLOCKS, 1, NULL);
	for (;; n++) {
		for (uint32_t i = 0; i < 49; i++)
			t[i] = i < 16 && n % 2 ? kept[i] : rnd(1u << 30);
		if (n % 16 == 0)
			memcpy(kept, t, sizeof(kept));
		reused += request(&w, 0, n % 3 ? NULL : &w.adapters[n % 4], (uint32_t)(n % 40), t,
				  17 + 16 * (uint32_t)(n % 3));
		/* What was taken is checked row by row in request(); see world.c. */
		if (w.errors)
			break;
		if (n % 4096)
			continue;
		world_check(&w);
		cache_stats(w.cache, NULL, &s);
		if (EXACT_KEYS ? n >= 100000 : s.collisions >= WANT)
			break;
	}
	cache_stats(w.cache, NULL, &s);
	diag("%llu requests, %llu collisions, %llu tokens reused", (unsigned long long)n,
	     (unsigned long long)s.collisions, (unsigned long long)reused);
	if (EXACT_KEYS)
		is_int(s.collisions, 0, "whole keys do not collide");
	else
		ok(s.collisions >= WANT, "a million collisions");
	ok(reused > 0, "what is there is used all the same");
	ok(!w.errors, "none was served");
	world_fini(&w);
	return tap_done();
}
