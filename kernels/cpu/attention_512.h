/* SPDX-License-Identifier: Apache-2.0 */
/* attention_512.h - 16 floats in one register, for the two AVX-512 paths. */
#ifndef WEFT_KERNELS_CPU_ATTENTION_512_H
#define WEFT_KERNELS_CPU_ATTENTION_512_H

#include <immintrin.h>

#include "kernels/cpu/attention.h"

#define V_INLINE static inline __attribute__((always_inline))

typedef __m512 v16;

/* clang-format off */
V_INLINE v16 v_zero(void) { return _mm512_setzero_ps(); }
V_INLINE v16 v_set(float x) { return _mm512_set1_ps(x); }
V_INLINE v16 v_load(const float *p) { return _mm512_loadu_ps(p); }
V_INLINE void v_store(float *p, v16 a) { _mm512_storeu_ps(p, a); }
V_INLINE v16 v_add(v16 a, v16 b) { return _mm512_add_ps(a, b); }
V_INLINE v16 v_sub(v16 a, v16 b) { return _mm512_sub_ps(a, b); }
V_INLINE v16 v_mul(v16 a, v16 b) { return _mm512_mul_ps(a, b); }
V_INLINE v16 v_div(v16 a, v16 b) { return _mm512_div_ps(a, b); }
V_INLINE v16 v_fma(v16 a, v16 b, v16 c) { return _mm512_fmadd_ps(a, b, c); }
/* b where either is NaN */
V_INLINE v16 v_max(v16 a, v16 b) { return _mm512_max_ps(a, b); }
V_INLINE v16 v_round(v16 a) { return _mm512_roundscale_ps(a, 8); }
V_INLINE float v_first(v16 a) { return _mm512_cvtss_f32(a); }
/* clang-format on */

/* p * 2^n for whole n in -127..0; 0 at -127, as on the path that has no such instruction. */
V_INLINE v16 v_scale2(v16 p, v16 n)
{
	__mmask16 keep = _mm512_cmp_ps_mask(n, _mm512_set1_ps(-127.0f), _CMP_NEQ_UQ);

	return _mm512_maskz_scalef_ps(keep, p, n);
}

V_INLINE float v_reduce_max(v16 a)
{
	__m256 h = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
	__m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));

	q = _mm_max_ps(q, _mm_movehl_ps(q, q));
	return _mm_cvtss_f32(_mm_max_ss(q, _mm_shuffle_ps(q, q, 1)));
}

V_INLINE float v_reduce_add(v16 a)
{
	__m256 h = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
	__m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));

	q = _mm_add_ps(q, _mm_movehl_ps(q, q));
	return _mm_cvtss_f32(_mm_add_ss(q, _mm_shuffle_ps(q, q, 1)));
}

/* bf16 of each lane in the lane's low half: to nearest even; NaN quiet. */
V_INLINE __m512i v_bf16_bits(v16 a)
{
	__m512i u = _mm512_castps_si512(a), hi = _mm512_srli_epi32(u, 16);
	__m512i odd = _mm512_and_si512(hi, _mm512_set1_epi32(1));
	__m512i r = _mm512_add_epi32(_mm512_add_epi32(u, odd), _mm512_set1_epi32(0x7fff));
	__mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);

	r = _mm512_srli_epi32(r, 16);
	return _mm512_mask_or_epi32(r, nan, hi, _mm512_set1_epi32(0x40));
}

V_INLINE void v_store_bf16(uint16_t *p, v16 a)
{
	_mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(v_bf16_bits(a)));
}

#endif
