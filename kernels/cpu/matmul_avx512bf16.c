/* SPDX-License-Identifier: Apache-2.0 */
/*
 * matmul_avx512bf16.c - dense kernels with VDPBF16PS: two products a lane, weights as they lie.
 *
 * Holds no state. Packed x is bf16, a pair of one row in 4 bytes, broadcast as one number.
 */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vec512.h"

#define X_PAIR_BYTES 4

static inline __attribute__((always_inline)) void tile_step(__m512 acc[][4], const char *x,
							    const char *w, const uint32_t rows)
{
	__m512bh b[4];

	WK_UNROLL
	for (uint32_t c = 0; c < 4; c++)
		b[c] = (__m512bh)_mm512_loadu_si512(w + 64 * c);
	WK_UNROLL
	for (uint32_t r = 0; r < rows; r++) {
		int32_t pair;
		__m512bh a;

		memcpy(&pair, x + 4 * r, 4);
		a = (__m512bh)_mm512_set1_epi32(pair);
		WK_UNROLL
		for (uint32_t c = 0; c < 4; c++)
			acc[r][c] = _mm512_dpbf16_ps(acc[r][c], a, b[c]);
	}
}

#include "kernels/cpu/tile512.h"

static void pack_x(void *dst, const uint16_t *x, size_t stride, uint32_t rows, uint32_t k0,
		   uint32_t pairs, uint32_t k)
{
	uint32_t whole = k - k0 < 2 * pairs ? (k - k0) / 2 : pairs;

	for (uint32_t r = 0; r < rows; r++) {
		const uint16_t *from = x + r * stride + k0;
		uint32_t *to = (uint32_t *)dst + r;

		if (rows == 1)
			memcpy(to, from, (size_t)whole * 4);
		else
			for (uint32_t i = 0; i < whole; i++)
				memcpy(to + (size_t)i * rows, from + 2 * i, 4);
		for (uint32_t i = whole; i < pairs; i++)
			to[(size_t)i * rows] = k0 + 2 * i < k ? from[2 * i] : 0;
	}
}

const struct wk_cpu_kernels wk_cpu_avx512bf16 = {
	.name = "avx512bf16",
	.x_pair_bytes = X_PAIR_BYTES,
	.pack_x = pack_x,
	.tile = tile,
	.store = v512_store,
	.add = v512_add,
	.swiglu = v512_swiglu,
	.norm = v512_norm,
};
