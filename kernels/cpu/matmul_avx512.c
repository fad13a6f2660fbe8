/* SPDX-License-Identifier: Apache-2.0 */
/*
 * matmul_avx512.c - dense kernels with AVX-512 fp32 arithmetic over bf16 weights.
 *
 * Holds no state. A bf16 number is the upper half of an fp32 one: the even element of a pair is
 * widened by a shift, the odd one by a mask. Packed x is fp32.
 */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/lora512.h"
#include "kernels/cpu/pack_x_float.h"
#include "kernels/cpu/tile512.h"
#include "kernels/cpu/vec512.h"

#define X_PAIR_BYTES 8

static ALWAYS_INLINE void fma_rows(__m512 acc[][4], const char *x, const __m512 b[4],
				   const uint32_t rows)
{
	WK_UNROLL
	for (uint32_t r = 0; r < rows; r++) {
		__m512 a;
		float f;

		memcpy(&f, x + 8 * r, 4);
		a = _mm512_set1_ps(f);
		WK_UNROLL
		for (uint32_t c = 0; c < 4; c++)
			acc[r][c] = _mm512_fmadd_ps(a, b[c], acc[r][c]);
	}
}

static ALWAYS_INLINE void tile_step(__m512 acc[][4], const char *x, const char *w,
				    const uint32_t rows)
{
	__m512 b[4];

	WK_UNROLL
	for (uint32_t c = 0; c < 4; c++)
		b[c] = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(w + 64 * c), 16));
	fma_rows(acc, x, b, rows);
	WK_UNROLL
	for (uint32_t c = 0; c < 4; c++)
		b[c] = _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(w + 64 * c),
							    _mm512_set1_epi32(-65536)));
	fma_rows(acc, x + 4, b, rows);
}

static void tile(const struct wk_tile *t)
{
	tile512(t, tile_step, X_PAIR_BYTES);
}

static ALWAYS_INLINE __m512 pair_fma(__m512 acc, const char *x, __m512i w)
{
	float f[2];

	memcpy(f, x, 8);
	acc = _mm512_fmadd_ps(_mm512_set1_ps(f[0]), _mm512_castsi512_ps(_mm512_slli_epi32(w, 16)),
			      acc);
	return _mm512_fmadd_ps(_mm512_set1_ps(f[1]),
			       _mm512_castsi512_ps(_mm512_and_si512(w, _mm512_set1_epi32(-65536))),
			       acc);
}

static void shrink(const struct wk_shrink *s)
{
	shrink512(s, pair_fma, X_PAIR_BYTES);
}

static void expand(const struct wk_expand *e)
{
	expand512(e, pair_fma, X_PAIR_BYTES);
}

const struct wk_cpu_kernels wk_cpu_avx512 = {
	.name = "avx512",
	.x_pair_bytes = X_PAIR_BYTES,
	.pack_x = pack_x_float,
	.tile = tile,
	.shrink = shrink,
	.expand = expand,
	.store = v512_store,
	.add = v512_add,
	.swiglu = v512_swiglu,
	.norm = v512_norm,
};
