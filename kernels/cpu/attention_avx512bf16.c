/* SPDX-License-Identifier: Apache-2.0 */
/* attention_avx512bf16.c - attention with VDPBF16PS: pairs of bf16 multiplied as they lie. */
#include "kernels/cpu/attention_512.h"

typedef uint16_t elem;
typedef __m512bh va;
typedef __m512bh vb;

#define TILE_R	   6
#define TILE_C	   4
#define TABLE	   wk_cpu_attn_avx512bf16
#define TABLE_NAME "avx512bf16"

V_INLINE va va_load(const elem *p)
{
	int pair;

	memcpy(&pair, p, sizeof(pair));
	return (va)_mm512_set1_epi32(pair);
}

V_INLINE vb vb_load(const char *p)
{
	return (vb)_mm512_loadu_si512(p);
}

V_INLINE vb vb_half(vb b, bool high)
{
	return (vb)_mm512_and_si512((__m512i)b, _mm512_set1_epi32(high ? -65536 : 65535));
}

V_INLINE v16 v_dp(v16 acc, va a, vb b)
{
	return _mm512_dpbf16_ps(acc, a, b);
}

V_INLINE elem elem_from_bf16(uint16_t x)
{
	return x;
}

/* Stores p rounded, gives what was stored. */
V_INLINE v16 p_store(elem *p, v16 x)
{
	__m256i h = (__m256i)_mm512_cvtneps_pbh(x);

	_mm256_storeu_si256((__m256i *)p, h);
	return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

#include "kernels/cpu/attention_impl.h"
