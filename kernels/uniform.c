/* SPDX-License-Identifier: Apache-2.0 */
/*
 * uniform.c - counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011).
 *
 * The key is the request's seed, the counter is (sample, position, 0, 0): a number depends on
 * nothing else, so a resumed or replayed request draws what it would have drawn.
 */
#include "kernels/uniform.h"

void wk_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t ret[4])
{
	uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
	uint32_t k0 = key[0], k1 = key[1];

	for (int round = 0; round < 10; round++) {
		uint64_t a = (uint64_t)c0 * 0xD2511F53u, b = (uint64_t)c2 * 0xCD9E8D57u;

		c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
		c1 = (uint32_t)b;
		c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
		c3 = (uint32_t)a;
		k0 += 0x9E3779B9u;
		k1 += 0xBB67AE85u;
	}
	ret[0] = c0;
	ret[1] = c1;
	ret[2] = c2;
	ret[3] = c3;
}

float wk_uniform(uint64_t seed, uint32_t sample, uint32_t position)
{
	uint32_t counter[4] = {sample, position, 0, 0};
	uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
	uint32_t r[4];

	wk_philox4x32(counter, key, r);
	return (float)(r[0] >> 8) * 0x1p-24f;
}
