/* SPDX-License-Identifier: Apache-2.0 */
/* test_engine_slab.c - the allocator of results: bounds, reuse, taking over, random use. */
#include "daemon/engine/slab.h"
#include "tests/tap.h"

#include <errno.h>
#include <stdbool.h>

static void test_bounds(void)
{
	struct slab_arena a;
	uint64_t x, y, z;

	slab_init(&a, 4096, 4);
	is_int(slab_get(&a, 4097, &x), -EFBIG, "more than the arena never fits");
	is_int(slab_get(&a, UINT64_MAX, &x), -EFBIG, "nor does everything");
	is_int(slab_get(&a, 4096, &x), 0, "all of it does");
	is_int(slab_get(&a, 1, &y), -ENOSPC, "and leaves no room");
	slab_put(&a, x);
	ok(!slab_get(&a, 1, &x) && !slab_get(&a, 129, &y) && !slab_get(&a, 1, &z),
	   "three small ones");
	ok(x == 0 && y == 128 && z == 384, "lie one behind another on lines of 128");
	slab_put(&a, y);
	is_int(slab_get(&a, 257, &y), 0, "a larger one than the hole");
	is_int(y, 512, "goes behind");
	is_int(slab_get(&a, 256, &y), 0, "one that fits the hole");
	is_int(y, 128, "goes into it");
	is_int(slab_get(&a, 1, &y), -ENOSPC, "no more slabs than slots");
	is_int(slab_used_bytes(&a), 128 + 256 + 128 + 384, "the sum of what is used");
	slab_fini(&a);
}

static void test_take(void)
{
	struct slab_arena a;
	uint64_t x;

	slab_init(&a, 4096, 8);
	is_int(slab_take(&a, 1024, 200), 0, "taking an extent of an earlier engine");
	is_int(slab_take(&a, 1152, 10), -EINVAL, "not one that overlaps its end");
	is_int(slab_take(&a, 896, 129), -EINVAL, "nor its beginning");
	is_int(slab_take(&a, 1024, 1), -EINVAL, "nor the same");
	is_int(slab_take(&a, 100, 1), -EINVAL, "nor one off the grid");
	is_int(slab_take(&a, 4096, 1), -EINVAL, "nor one past the end");
	is_int(slab_take(&a, 3968, 256), -EINVAL, "nor one across it");
	is_int(slab_take(&a, UINT64_MAX - 127, 128), -EINVAL, "nor one at the end of the numbers");
	is_int(slab_take(&a, 1280, 128), 0, "its neighbour may be taken");
	is_int(slab_get(&a, 1024, &x), 0, "new ones go around them");
	is_int(x, 0, "before");
	is_int(slab_get(&a, 128, &x), 0, "and");
	is_int(x, 1408, "behind");
	slab_fini(&a);
}

static void test_random(void)
{
	enum { N = 64, BYTES = 1 << 16 };
	struct slab_arena a;
	uint64_t off[N], len[N];
	uint32_t n = 0, x = 99;
	bool good = true;

	slab_init(&a, BYTES, N);
	for (int step = 0; step < 50000; step++) {
		x = x * 1664525 + 1013904223;
		if (n < N && (x & 1)) {
			len[n] = (x >> 8) % 4000 + 1;
			if (slab_get(&a, len[n], &off[n]) == 0)
				n++;
		} else if (n) {
			uint32_t i = (x >> 8) % n;

			slab_put(&a, off[i]);
			off[i] = off[--n];
			len[i] = len[n];
		}
		if (!n)
			continue;
		/* The newest must overlap no other and stay inside. */
		good = good && off[n - 1] + len[n - 1] <= BYTES;
		for (uint32_t i = 0; i + 1 < n; i++)
			good = good &&
			       (off[i] + len[i] <= off[n - 1] || off[n - 1] + len[n - 1] <= off[i]);
	}
	ok(good, "50,000 random operations give out no byte twice");
	while (n)
		slab_put(&a, off[--n]);
	is_int(slab_used_bytes(&a), 0, "nothing is lost");
	slab_fini(&a);
}

int main(void)
{
	test_bounds();
	test_take();
	test_random();
	return tap_done();
}
