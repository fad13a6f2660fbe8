/* SPDX-License-Identifier: Apache-2.0 */
/*
 * idx.h - what the writer and the reader of an idx region compute alike: where things stand, and
 * which places a key may have. For the files of shm/ only.
 */
#ifndef WEFT_SHM_IDX_PRIVATE_H
#define WEFT_SHM_IDX_PRIVATE_H

#include "shm/internal.h"
#include "shm/wshm_idx.h"
#include "shm/wshm_idx_abi.h"

#define IDX_TIER_BITS UINT64_C(3)

static_assert(sizeof(struct wshm_instance) == WSHM_IDX_INSTANCE_WORDS * 8, "ABI");
static_assert(offsetof(struct wshm_instance, digest) == 64, "ABI");
static_assert(offsetof(struct wshm_instance, activated) == 80, "ABI");
static_assert(offsetof(struct wshm_instance, rank) == 84, "ABI");
static_assert(offsetof(struct wshm_instance, offset) == 88, "ABI");
static_assert(offsetof(struct wshm_instance, on_missing) == 92, "ABI");
static_assert(offsetof(struct wshm_instance, n_invocation) == 96, "ABI");
static_assert(offsetof(struct wshm_instance, invocation) == 100, "ABI");
static_assert(WSHM_MAX_INSTANCES * sizeof(struct wshm_idx_instance) ==
		      WSHM_IDX_OFF_HEADS - WSHM_IDX_OFF_INSTANCES,
	      "ABI");
static_assert(WSHM_IDX_TAIL_ROWS == WSHM_BLOCK_TOKENS - 1, "a tail is shorter than a block");

/* The header of a domain's region. */
void wshm_idx_hdr_make(struct wshm_hdr *ret, uint64_t domain_id);

/*
 * An entry without its tier. Keys are as good as random already; the rounds are for builds with
 * short ones, whose bits all lie at one end.
 */
static inline uint64_t idx_fingerprint(const struct wshm_key *key)
{
	uint64_t x = key->lo ^ key->hi * UINT64_C(0x9e3779b97f4a7c15);

	x ^= x >> 32;
	x *= UINT64_C(0xd6e8feb86659fd93);
	x ^= x >> 32;
	x *= UINT64_C(0xd6e8feb86659fd93);
	return (x ^ x >> 32) & ~IDX_TIER_BITS;
}

/* Which bucket of a table of 2^log2 an entry's first (0) or second (1) choice is. */
static inline uint32_t idx_bucket(uint64_t entry, uint32_t log2, uint32_t choice)
{
	return (uint32_t)((choice ? entry << 22 : entry) >> (64 - log2));
}

static inline uint64_t idx_table_off(uint32_t log2)
{
	return WSHM_IDX_OFF_TABLES + ((UINT64_C(1) << log2) - (UINT64_C(1) << WSHM_IDX_LOG2_MIN)) *
					     sizeof(struct wshm_idx_bucket);
}

static inline uint64_t idx_table_bytes(uint32_t log2)
{
	return (UINT64_C(1) << log2) * sizeof(struct wshm_idx_bucket);
}

/* The chain of tails that a parent's are in. */
static inline uint32_t idx_head(const struct wshm_key *parent)
{
	return (uint32_t)(idx_fingerprint(parent) >> 50);
}

static_assert(WSHM_IDX_HEADS == 1 << 14, "idx_head() takes 14 bits");

#endif
