/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_idx.c - libFuzzer on the reader of an index: the input says what stands where.
 *
 * First a seed of 8 bytes, then pieces of 12: where, and the 8 bytes to put there. Places are chosen
 * so that small numbers reach every part of the region and the lines that the reader's keys lead to.
 * The region lies between pages that fault. Run by `make fuzz`.
 */
#include "tests/shm/idx_damage.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PIECE 12u
#define MAX   512u

/* A place for a word: the upper bits of `where` choose the part. */
static uint64_t place(uint32_t where)
{
	static const struct {
		uint64_t off, bytes;
	} parts[8] = {
		{WSHM_IDX_OFF_CTL, 32},
		{WSHM_IDX_OFF_CTL, sizeof(struct wshm_idx_ctl)},
		{WSHM_IDX_OFF_INSTANCES, 3 * sizeof(struct wshm_idx_instance)},
		{WSHM_IDX_OFF_HEADS, WSHM_IDX_HEADS * 8},
		{WSHM_IDX_OFF_TAILS, 16 * sizeof(struct wshm_idx_tail)},
		{WSHM_IDX_OFF_TAILS, WSHM_IDX_TAILS * sizeof(struct wshm_idx_tail)},
		{WSHM_IDX_OFF_TABLES, 128 * sizeof(struct wshm_idx_bucket)},
		{WSHM_IDX_OFF_TABLES, WSHM_IDX_BYTES - WSHM_IDX_OFF_TABLES},
	};
	uint32_t part = where >> 29;

	return parts[part].off + (where & 0x1fffffff) * UINT64_C(8) % parts[part].bytes;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t *region;
	uint64_t seed, touched[MAX];
	uint32_t n = 0, where;

	if (size < sizeof(seed))
		return 0;
	if (!region)
		region = damage_region();
	memcpy(&seed, data, sizeof(seed));
	for (size_t at = sizeof(seed); at + PIECE <= size && n < MAX; at += PIECE) {
		memcpy(&where, data + at, sizeof(where));
		touched[n] = place(where);
		memcpy(region + touched[n++], data + at + 4, 8);
	}
	damage_read(region, seed);
	while (n)
		memset(region + touched[--n], 0, 8);
	return 0;
}
