/* SPDX-License-Identifier: Apache-2.0 */
/* slab.c - see slab.h. Sizes are rounded up to SLAB_ALIGN, so all offsets are multiples of it. */
#include "daemon/engine/slab.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int slab_init(struct slab_arena *a, uint64_t bytes, uint32_t max_slabs)
{
	a->bytes = bytes;
	a->n = 0;
	a->cap = max_slabs;
	a->used = malloc(((size_t)max_slabs + 1) * sizeof(*a->used));
	return a->used ? 0 : -ENOMEM;
}

void slab_fini(struct slab_arena *a)
{
	free(a->used);
	a->used = NULL;
	a->n = a->cap = 0;
}

/* Rounded size, or 0 when it does not fit the arena at all. */
static uint64_t slab_round(const struct slab_arena *a, uint64_t bytes)
{
	if (bytes > a->bytes)
		return 0;
	bytes = (bytes + SLAB_ALIGN - 1) / SLAB_ALIGN * SLAB_ALIGN;
	return bytes <= a->bytes ? bytes : 0;
}

static void slab_insert(struct slab_arena *a, uint32_t at, uint64_t off, uint64_t bytes)
{
	memmove(&a->used[at + 1], &a->used[at], (a->n - at) * sizeof(*a->used));
	a->used[at] = (struct slab_extent){.off = off, .bytes = bytes};
	a->n++;
}

int slab_get(struct slab_arena *a, uint64_t bytes, uint64_t *ret_off)
{
	uint64_t size = slab_round(a, bytes), end = 0;
	uint32_t i;

	if (!size)
		return -EFBIG;
	if (a->n == a->cap)
		return -ENOSPC;
	for (i = 0; i < a->n; i++) {
		if (a->used[i].off - end >= size)
			break;
		end = a->used[i].off + a->used[i].bytes;
	}
	if (i == a->n && a->bytes - end < size)
		return -ENOSPC;
	slab_insert(a, i, end, size);
	*ret_off = end;
	return 0;
}

int slab_take(struct slab_arena *a, uint64_t off, uint64_t bytes)
{
	uint64_t size = slab_round(a, bytes), end = 0;
	uint32_t i;

	if (!size || off % SLAB_ALIGN || off > a->bytes || size > a->bytes - off || a->n == a->cap)
		return -EINVAL;
	for (i = 0; i < a->n && a->used[i].off < off; i++)
		end = a->used[i].off + a->used[i].bytes;
	if (end > off || (i < a->n && a->used[i].off < off + size))
		return -EINVAL;
	slab_insert(a, i, off, size);
	return 0;
}

void slab_put(struct slab_arena *a, uint64_t off)
{
	uint32_t lo = 0, hi = a->n;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (a->used[mid].off < off)
			lo = mid + 1;
		else
			hi = mid;
	}
	assert(lo < a->n && a->used[lo].off == off);
	memmove(&a->used[lo], &a->used[lo + 1], (a->n - lo - 1) * sizeof(*a->used));
	a->n--;
}

uint64_t slab_used_bytes(const struct slab_arena *a)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < a->n; i++)
		sum += a->used[i].bytes;
	return sum;
}
