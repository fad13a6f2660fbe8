/* SPDX-License-Identifier: Apache-2.0 */
/*
 * desc_oracle.h - the descriptor as msgpack-c sees it: an independent packer of random valid
 * descriptors, and an independent judge of any bytes, for the tests and the fuzzer.
 */
#ifndef WEFT_TESTS_SHM_DESC_ORACLE_H
#define WEFT_TESTS_SHM_DESC_ORACLE_H

#include "shm/wshm.h"

#include <msgpack.h>

/* A random valid descriptor: *ret says what was packed, keys in random order, absent ones at their
 * defaults. Bytes packed, at most WSHM_MAX_DESC. */
uint32_t oracle_random(uint64_t *rng, struct wshm_desc *ret, uint8_t out[WSHM_MAX_DESC]);

/*
 * Judge bytes by msgpack-c's unpacker and a reading of the schema over its objects. 1 accepted, and
 * *ret is what it says; 0 refused; -1 no opinion: a byte could be the head of an array32 or map32,
 * and msgpack-c would reserve memory for any count that follows. `bounded` says that it is not,
 * because wshm_desc_decode() has accepted these bytes.
 */
int oracle_judge(const uint8_t *data, uint32_t bytes, bool bounded, struct wshm_desc *ret);

/* Equal in every field that has a meaning; floats by their bits. */
bool oracle_equal(const struct wshm_desc *a, const struct wshm_desc *b);

#endif
