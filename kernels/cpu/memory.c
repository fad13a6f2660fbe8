/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory.c - where buffers, weights and scratch of the CPU backend live: anonymous mappings.
 *
 * Mappings come zeroed, go back to the kernel when released, and large ones start on a huge page's
 * boundary and ask for huge pages: streaming weights through 4 KB pages costs a page walk every
 * 64 lines. Asking is only advice; where the kernel says no, nothing but speed is lost.
 */
#include "kernels/cpu/cpu.h"

#include <sys/mman.h>

#define HUGE_BYTES ((size_t)2 << 20)

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
