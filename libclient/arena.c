/* SPDX-License-Identifier: Apache-2.0 */
/*
 * arena.c - first-fit allocation in the tx arena; see arena.h.
 */
#include "libclient/arena.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static uint64_t round_up(uint64_t bytes)
{
	return (bytes + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
}

int wc_arena_init(struct arena *a, uint64_t bytes, uint32_t max_allocations)
{
	/* n allocations leave at most n + 1 gaps. */
	a->extents = calloc(max_allocations + 1, sizeof(*a->extents));
	if (!a->extents)
		return -ENOMEM;
	a->max = max_allocations + 1;
	a->n = 1;
	a->extents[0] = (struct arena_extent){0, bytes / ARENA_ALIGN * ARENA_ALIGN};
	return 0;
}

void wc_arena_fini(struct arena *a)
{
	free(a->extents);
	*a = (struct arena){0};
}

static void extent_remove(struct arena *a, uint32_t i)
{
	a->n--;
	memmove(a->extents + i, a->extents + i + 1, (a->n - i) * sizeof(*a->extents));
}

int wc_arena_get(struct arena *a, uint64_t bytes, uint64_t *ret_off)
{
	if (bytes > UINT64_MAX - ARENA_ALIGN)
		return -EAGAIN;
	bytes = round_up(bytes ? bytes : 1);
	for (uint32_t i = 0; i < a->n; i++) {
		struct arena_extent *e = &a->extents[i];

		if (e->bytes < bytes)
			continue;
		*ret_off = e->off;
		e->off += bytes;
		e->bytes -= bytes;
		if (!e->bytes)
			extent_remove(a, i);
		return 0;
	}
	return -EAGAIN;
}

void wc_arena_put(struct arena *a, uint64_t off, uint64_t bytes)
{
	uint32_t i = 0;
	bool joins_left, joins_right;

	bytes = round_up(bytes ? bytes : 1);
	while (i < a->n && a->extents[i].off < off)
		i++;
	/* i: the first free extent behind the one that comes back */
	assert(i == a->n || off + bytes <= a->extents[i].off);
	assert(i == 0 || a->extents[i - 1].off + a->extents[i - 1].bytes <= off);
	joins_left = i > 0 && a->extents[i - 1].off + a->extents[i - 1].bytes == off;
	joins_right = i < a->n && off + bytes == a->extents[i].off;
	if (joins_left && joins_right) {
		a->extents[i - 1].bytes += bytes + a->extents[i].bytes;
		extent_remove(a, i);
	} else if (joins_left) {
		a->extents[i - 1].bytes += bytes;
	} else if (joins_right) {
		a->extents[i].off = off;
		a->extents[i].bytes += bytes;
	} else {
		assert(a->n < a->max);
		memmove(a->extents + i + 1, a->extents + i, (a->n - i) * sizeof(*a->extents));
		a->extents[i] = (struct arena_extent){off, bytes};
		a->n++;
	}
}
