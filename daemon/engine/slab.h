/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slab.h - which parts of a session's rx arena hold results.
 *
 * A first-fit allocator over extents, kept wholly in the engine's private memory: nothing in the
 * arena itself is trusted or needed to free. A session has at most WSHM_MAX_SLOTS slabs, so a
 * sorted array of the used extents is all there is to it. Owned by the core thread.
 */
#ifndef WEFT_ENGINE_SLAB_H
#define WEFT_ENGINE_SLAB_H

#include <stdint.h>

#define SLAB_ALIGN 128u /* a line: two requests never share one */

struct slab_extent {
	uint64_t off, bytes;
};

struct slab_arena {
	uint64_t bytes;
	struct slab_extent *used; /* owned; ascending by off, disjoint */
	uint32_t n, cap;
};

int slab_init(struct slab_arena *a, uint64_t bytes, uint32_t max_slabs); /* 0 or -ENOMEM */
void slab_fini(struct slab_arena *a);
/* 0 and the offset; -ENOSPC: no room now; -EFBIG: never. bytes > 0. */
int slab_get(struct slab_arena *a, uint64_t bytes, uint64_t *ret_off);
/* Mark an extent used that an earlier engine gave out. -EINVAL: it overlaps or is out of bounds. */
int slab_take(struct slab_arena *a, uint64_t off, uint64_t bytes);
void slab_put(struct slab_arena *a, uint64_t off);
uint64_t slab_used_bytes(const struct slab_arena *a);

#endif
