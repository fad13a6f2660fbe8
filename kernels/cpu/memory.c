/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory.c - where buffers, weights and scratch of the CPU backend live: anonymous mappings.
 *
 * Mappings come zeroed, go back to the kernel when released, and large ones start on a huge page's
 * boundary and ask for huge pages: streaming weights through 4 KB pages costs a page walk every
 * 64 lines. Asking is only advice; where the kernel says no, nothing but speed is lost.
 *
 * Weights that are smaller than a huge page, as those of a small model are, therefore lie one after
 * the other in regions of many: alone, those of shape 135m stream at two thirds of the speed.
 */
#include "kernels/cpu/cpu.h"

#include <stdlib.h>
#include <sys/mman.h>

#define HUGE_BYTES   ((size_t)2 << 20)
#define REGION_BYTES ((size_t)64 << 20) /* address space; what is not used of it costs nothing */
#define PAGE_BYTES   ((size_t)4096)

static size_t whole_pages(size_t bytes)
{
	size_t unit = bytes >= HUGE_BYTES ? HUGE_BYTES : 4096;

	return bytes > SIZE_MAX - unit ? 0 : (bytes + unit - 1) / unit * unit;
}

static void *map(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

void *wk_cpu_alloc(size_t bytes)
{
	size_t size = whole_pages(bytes ? bytes : 1);
	char *p, *start;

	if (!size)
		return NULL;
	if (size < HUGE_BYTES)
		return map(size);
	p = size > SIZE_MAX - HUGE_BYTES ? NULL : map(size + HUGE_BYTES);
	if (!p)
		return NULL;
	start = (char *)(((uintptr_t)p + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES);
	if (start > p)
		munmap(p, (size_t)(start - p));
	if (start < p + HUGE_BYTES)
		munmap(start + size, (size_t)(p + HUGE_BYTES - start));
	madvise(start, size, MADV_HUGEPAGE);
	return start;
}

void wk_cpu_release(void *p, size_t bytes)
{
	if (p)
		munmap(p, whole_pages(bytes ? bytes : 1));
}

/* --- regions -------------------------------------------------------------------------------------*/

struct wk_region {
	struct wk_region *next;
	char *start; /* owner */
	size_t bytes, used;
	uint32_t live; /* pieces that are not yet given back */
};

static struct wk_region *region_new(size_t bytes)
{
	struct wk_region *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->bytes = bytes > REGION_BYTES ? bytes : REGION_BYTES;
	r->start = wk_cpu_alloc(r->bytes);
	if (r->start)
		return r;
	free(r);
	return NULL;
}

void *wk_region_take(struct wk_region **list, size_t bytes)
{
	struct wk_region *r = *list;
	char *p;

	bytes = (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
	/* Only the newest: what is left in an older one is less than what was wanted then. */
	if (!r || bytes > r->bytes - r->used) {
		r = region_new(bytes);
		if (!r)
			return NULL;
		r->next = *list;
		*list = r;
	}
	p = r->start + r->used;
	r->used += bytes;
	r->live++;
	return p;
}

void wk_region_give(struct wk_region **list, const void *p)
{
	for (; p && *list; list = &(*list)->next) {
		struct wk_region *r = *list;

		if ((const char *)p < r->start || (const char *)p >= r->start + r->bytes)
			continue;
		if (--r->live)
			return;
		*list = r->next;
		wk_cpu_release(r->start, r->bytes);
		free(r);
		return;
	}
}
