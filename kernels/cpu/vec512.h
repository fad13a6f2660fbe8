/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vec512.h - what the two 512-bit paths share: rounding, exp, epilogues, rmsnorm.
 *
 * Included by sources compiled for AVX-512 only. Tails are masked, so no length needs padding and
 * nothing past a row's end is read or written.
 */
#ifndef WEFT_KERNELS_CPU_VEC512_H
#define WEFT_KERNELS_CPU_VEC512_H

#include <immintrin.h>
#include <math.h>
#include <stdint.h>

#include "kernels/cpu/cpu.h"

static inline __mmask16 v512_mask(uint32_t left)
{
	return left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1);
}

/* fp32 to bf16 as wk_bf16_round(): the instruction for it would flush denormals. */
static inline __m256i v512_bf16(__m512 v)
{
	__m512i bits = _mm512_castps_si512(v);
	__m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
	__m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
	__mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
	__m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));

	return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(up, nan, quiet), 16));
}

/* e^x to about 1 ulp for x in [-87, 88], clamped there. */
static inline __m512 v512_exp(__m512 x)
{
	const __m512 log2e = _mm512_set1_ps(0x1.715476p0f);
	const __m512 ln2_hi = _mm512_set1_ps(0x1.62e4p-1f),
		     ln2_lo = _mm512_set1_ps(0x1.7f7d1cp-20f);
	__m512 n, r, p;

	x = _mm512_min_ps(_mm512_max_ps(x, _mm512_set1_ps(-87.0f)), _mm512_set1_ps(88.0f));
	n = _mm512_roundscale_ps(_mm512_mul_ps(x, log2e), 0);
	r = _mm512_fnmadd_ps(n, ln2_lo, _mm512_fnmadd_ps(n, ln2_hi, x));
	/* Taylor's series is enough: |r| <= ln2 / 2 leaves 2^-25 after r^7 / 5040. */
	p = _mm512_set1_ps(1.0f / 5040);
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 720));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
	return _mm512_scalef_ps(p, n);
}

static inline __m512 v512_silu(__m512 g)
{
	__m512 e = v512_exp(_mm512_sub_ps(_mm512_setzero_ps(), g));

	return _mm512_div_ps(g, _mm512_add_ps(_mm512_set1_ps(1.0f), e));
}

static inline __m512 v512_scaled(const float *acc, const float *bias, __m512 scale, __mmask16 m)
{
	__m512 v = _mm512_loadu_ps(acc);

	if (bias)
		v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(m, bias));
	return _mm512_mul_ps(v, scale);
}

static void v512_store(float *y, const float *acc, const float *bias, float scale, uint32_t n)
{
	for (uint32_t i = 0; i < n; i += 16) {
		__mmask16 m = v512_mask(n - i);

		_mm512_mask_storeu_ps(y + i, m,
				      v512_scaled(acc + i, bias ? bias + i : NULL,
						  _mm512_set1_ps(scale), m));
	}
}

static void v512_add(float *h, const float *acc, const float *bias, float scale, uint32_t n)
{
	for (uint32_t i = 0; i < n; i += 16) {
		__mmask16 m = v512_mask(n - i);
		__m512 v = v512_scaled(acc + i, bias ? bias + i : NULL, _mm512_set1_ps(scale), m);

		_mm512_mask_storeu_ps(h + i, m, _mm512_add_ps(_mm512_maskz_loadu_ps(m, h + i), v));
	}
}

static void v512_swiglu(uint16_t *x, const float *acc, const float *gate_bias, const float *up_bias,
			uint32_t n)
{
	const __m512 one = _mm512_set1_ps(1.0f);

	for (uint32_t i = 0; i < n; i += 16) {
		__mmask16 m = v512_mask(n - i);
		__m512 g = v512_scaled(acc + i, gate_bias ? gate_bias + i : NULL, one, m);
		__m512 u = v512_scaled(acc + 32 + i, up_bias ? up_bias + i : NULL, one, m);

		_mm256_mask_storeu_epi16(x + i, m, v512_bf16(_mm512_mul_ps(v512_silu(g), u)));
	}
}

static void v512_norm(uint16_t *x, const float *h, const float *weight, uint32_t dim, float eps)
{
	__m512 sum[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(),
			 _mm512_setzero_ps()};
	__m512 inv;
	uint32_t i;

	for (i = 0; i < dim; i += 64) {
		WK_UNROLL
		for (uint32_t j = 0; j < 4; j++) {
			uint32_t at = i + 16 * j;
			__mmask16 m = at < dim ? v512_mask(dim - at) : 0;
			__m512 v = _mm512_maskz_loadu_ps(m, h + at);

			sum[j] = _mm512_fmadd_ps(v, v, sum[j]);
		}
	}
	sum[0] = _mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3]));
	inv = _mm512_set1_ps(1.0f / sqrtf(_mm512_reduce_add_ps(sum[0]) / (float)dim + eps));
	for (i = 0; i < dim; i += 16) {
		__mmask16 m = v512_mask(dim - i);
		__m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, h + i), inv);

		v = _mm512_mul_ps(v, _mm512_maskz_loadu_ps(m, weight + i));
		_mm256_mask_storeu_epi16(x + i, m, v512_bf16(v));
	}
}

#endif
