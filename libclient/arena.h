/* SPDX-License-Identifier: Apache-2.0 */
/*
 * arena.h - who has which bytes of the tx arena.
 *
 * First fit by address over a sorted array of free extents. All of it is private memory: the arena
 * itself is only ever written with prompts and descriptors. There are at most as many allocations
 * as request slots, so the array has a fixed size and no call fails for want of memory.
 * Not thread-safe: guarded by the session's lock.
 */
#ifndef WEFT_LIBCLIENT_ARENA_H
#define WEFT_LIBCLIENT_ARENA_H

#include <stdint.h>

#define ARENA_ALIGN UINT64_C(64) /* a cache line of the processors we know */

struct arena_extent {
	uint64_t off, bytes;
};

struct arena {
	struct arena_extent *extents; /* owner; free ones, ascending, never adjacent */
	uint32_t n, max;
};

/* For at most max_allocations at a time. 0 or -ENOMEM. */
int wc_arena_init(struct arena *a, uint64_t bytes, uint32_t max_allocations);
void wc_arena_fini(struct arena *a); /* zeroed allowed */
/* 0 and an offset, a multiple of ARENA_ALIGN; or -EAGAIN when no free extent is long enough. */
int wc_arena_get(struct arena *a, uint64_t bytes, uint64_t *ret_off);
/* Give back exactly what wc_arena_get() gave. */
void wc_arena_put(struct arena *a, uint64_t off, uint64_t bytes);

#endif
