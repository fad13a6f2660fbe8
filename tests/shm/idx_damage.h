/* SPDX-License-Identifier: Apache-2.0 */
/*
 * idx_damage.h - an idx region between pages that fault, for whatever a test or the fuzzer wants to
 * write into it, and one call that reads it in every way a client can.
 */
#ifndef WEFT_TESTS_SHM_IDX_DAMAGE_H
#define WEFT_TESTS_SHM_IDX_DAMAGE_H

#include "shm/wshm_idx.h"
#include "shm/wshm_idx_abi.h"

/* Zeroed memory of the region's size with PROT_NONE before and behind. */
uint8_t *damage_region(void);
/* Read everything; `seed` chooses keys, tokens and names. Aborts if an answer is out of range. */
void damage_read(const uint8_t *region, uint64_t seed);
/* Keys that damage_read() asks for, so that they can be put. */
struct wshm_key damage_key(uint64_t seed, uint32_t n);

#endif
