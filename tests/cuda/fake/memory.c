/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory.c - the fake driver's memory: of the device, which is the host's, and pinned. A buffer ends where its
 * pages end, with nothing mapped behind it, and fresh memory is full of 0xff. It must not go while a copy to
 * or from it waits. WEFT_FAKE_CUDA_BYTES is how much there is (4 GiB).
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/cuda/fake/fake.h"

#define GRANULE ((size_t)2 << 20)
#define PAGE	((size_t)4096)

/* --- what is allocated -------------------------------------------------------------------------------*/

struct piece {
	struct piece *next;
	uint64_t at;
	size_t bytes;
	char *map; /* owner: with a page of nothing behind it */
	size_t map_bytes;
};

static struct piece *pieces; /* plain allocations and pinned memory */
static size_t used_bytes;

static size_t all_bytes(void)
{
	const char *e = getenv("WEFT_FAKE_CUDA_BYTES");

	return e ? strtoull(e, NULL, 0) : (size_t)4 << 30;
}

static struct piece *piece_new(size_t bytes)
{
	size_t body = (bytes + 255) / 256 * 256, pages = (body + PAGE - 1) / PAGE * PAGE;
	struct piece *p = calloc(1, sizeof(*p));

	p->map_bytes = pages + PAGE;
	p->map = mmap(NULL, p->map_bytes, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p->map == MAP_FAILED || mprotect(p->map + pages, PAGE, PROT_NONE)) {
		free(p);
		return NULL;
	}
	p->bytes = bytes;
	p->at = (uint64_t)(uintptr_t)(p->map + pages - body);
	memset(p->map + pages - body, 0xff, body);
	p->next = pieces;
	pieces = p;
	return p;
}

static cu_result piece_free(uint64_t at)
{
	for (struct piece **p = &pieces; *p; p = &(*p)->next)
		if ((*p)->at == at) {
			struct piece *gone = *p;

			*p = gone->next;
			munmap(gone->map, gone->map_bytes);
			free(gone);
			return 0;
		}
	return INVALID;
}

/* --- entry points ------------------------------------------------------------------------------------------*/

EXPORT cu_result cuMemGetInfo_v2(size_t *ret_free, size_t *ret_total)
{
	CALL(cuMemGetInfo);
	*ret_total = all_bytes();
	*ret_free = *ret_total - used_bytes;
	return 0;
}

EXPORT cu_result cuMemAlloc_v2(cu_ptr *ret, size_t bytes)
{
	struct piece *p;

	CALL(cuMemAlloc);
	if (!bytes)
		return INVALID;
	p = bytes <= all_bytes() - used_bytes ? piece_new(bytes) : NULL;
	if (!p)
		return CU_OUT_OF_MEMORY;
	used_bytes += bytes;
	fake_live++;
	*ret = p->at;
	return 0;
}

EXPORT cu_result cuMemFree_v2(cu_ptr at)
{
	fake_live--;
	CALL(cuMemFree);
	fake_run_all();
	for (const struct piece *p = pieces; p; p = p->next)
		if (p->at == at)
			used_bytes -= p->bytes;
	return piece_free(at);
}

EXPORT cu_result cuMemGetAllocationGranularity(size_t *ret, const struct cu_memory_prop *prop,
					       int option)
{
	(void)option;
	CALL(cuMemGetAllocationGranularity);
	*ret = GRANULE;
	return prop->type == 1 && prop->location.type == 1 ? 0 : INVALID;
}

/* The handle of physical memory is its size: what is mapped is made when it is. */
EXPORT cu_result cuMemCreate(cu_memory *ret, size_t bytes, const struct cu_memory_prop *prop,
			     uint64_t flags)
{
	(void)flags;
	CALL(cuMemCreate);
	if (prop->type != 1 || prop->location.type != 1 || bytes % GRANULE)
		return INVALID;
	if (bytes > all_bytes() - used_bytes)
		return CU_OUT_OF_MEMORY;
	used_bytes += bytes;
	fake_live++;
	*ret = bytes;
	return 0;
}

EXPORT cu_result cuMemRelease(cu_memory mem)
{
	fake_live--;
	CALL(cuMemRelease);
	used_bytes -= mem;
	return 0;
}

EXPORT cu_result cuMemAddressReserve(cu_ptr *ret, size_t bytes, size_t align, cu_ptr at,
				     uint64_t flags)
{
	void *p;

	(void)align;
	(void)at;
	(void)flags;
	CALL(cuMemAddressReserve);
	if (bytes % GRANULE)
		return INVALID;
	p = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	*ret = (cu_ptr)(uintptr_t)p;
	fake_live += p != MAP_FAILED;
	return p == MAP_FAILED ? CU_OUT_OF_MEMORY : 0;
}

EXPORT cu_result cuMemAddressFree(cu_ptr p, size_t bytes)
{
	fake_live--;
	CALL(cuMemAddressFree);
	return munmap((void *)(uintptr_t)p, bytes) ? INVALID : 0;
}

EXPORT cu_result cuMemMap(cu_ptr at, size_t bytes, size_t offset, cu_memory mem, uint64_t flags)
{
	(void)flags;
	CALL(cuMemMap);
	if (offset || bytes != mem || !at)
		return INVALID;
	fake_live++;
	return 0;
}

EXPORT cu_result cuMemUnmap(cu_ptr at, size_t bytes)
{
	fake_live--;
	CALL(cuMemUnmap);
	fake_must_be_still(at, bytes);
	fake_run_all();
	return mprotect((void *)(uintptr_t)at, bytes, PROT_NONE) ? INVALID : 0;
}

EXPORT cu_result cuMemSetAccess(cu_ptr at, size_t bytes, const struct cu_access *access, size_t n)
{
	CALL(cuMemSetAccess);
	if (n != 1 || access->flags != 3 || access->location.type != 1)
		return INVALID;
	return mprotect((void *)(uintptr_t)at, bytes, PROT_READ | PROT_WRITE) ? INVALID : 0;
}

EXPORT cu_result cuMemHostAlloc(void **ret, size_t bytes, unsigned flags)
{
	struct piece *p;

	(void)flags;
	CALL(cuMemHostAlloc);
	p = piece_new(bytes);
	if (!p)
		return CU_OUT_OF_MEMORY;
	*ret = (void *)(uintptr_t)p->at;
	fake_live++;
	return 0;
}

EXPORT cu_result cuMemFreeHost(void *p)
{
	fake_live--;
	CALL(cuMemFreeHost);
	for (const struct piece *piece = pieces; piece; piece = piece->next)
		if (piece->at == (uint64_t)(uintptr_t)p)
			fake_must_be_still(piece->at, piece->bytes);
	return piece_free((uint64_t)(uintptr_t)p);
}

EXPORT cu_result cuMemHostGetDevicePointer_v2(cu_ptr *ret, void *p, unsigned flags)
{
	CALL(cuMemHostGetDevicePointer);
	*ret = (cu_ptr)(uintptr_t)p;
	return flags ? INVALID : 0;
}
