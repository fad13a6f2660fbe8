/* SPDX-License-Identifier: Apache-2.0 */
/*
 * backend.c - what all backends share: finding one by name, and the numbers that sampling draws.
 *
 * Holds no state. wk_uniform() is part of what a client observes: a request resumed after a crash,
 * or resubmitted with its seed, must draw the same numbers, so it never changes.
 */
#include "kernels/backend.h"

#include <string.h>

const struct wk_ops *wk_ops_by_name(const char *name)
{
	if (!strcmp(name, wk_ref_ops.name))
		return &wk_ref_ops;
	if (!strcmp(name, wk_cpu_ops.name))
		return &wk_cpu_ops;
	return NULL;
}

/* Philox4x32-10 (Salmon et al., SC 2011): a bijection of the counter, keyed; constants theirs. */
static void philox(uint32_t c[4], uint32_t k0, uint32_t k1)
{
	for (int round = 0; round < 10; round++) {
		uint64_t a = (uint64_t)0xD2511F53u * c[0], b = (uint64_t)0xCD9E8D57u * c[2];
		uint32_t c1 = c[1], c3 = c[3];

		c[0] = (uint32_t)(b >> 32) ^ c1 ^ k0;
		c[1] = (uint32_t)b;
		c[2] = (uint32_t)(a >> 32) ^ c3 ^ k1;
		c[3] = (uint32_t)a;
		k0 += 0x9E3779B9u;
		k1 += 0xBB67AE85u;
	}
}

float wk_uniform(uint64_t seed, uint32_t sample, uint32_t position)
{
	uint32_t c[4] = {position, sample, 0, 0};

	philox(c, (uint32_t)seed, (uint32_t)(seed >> 32));
	return (float)(c[0] >> 8) * 0x1p-24f;
}
