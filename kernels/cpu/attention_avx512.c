/* SPDX-License-Identifier: Apache-2.0 */
/* attention_avx512.c - attention with fp32 FMA on 16 lanes; bf16 is widened as it is loaded. */
#include "kernels/cpu/attention_512.h"

typedef float elem;

struct pair16 {
	__m512 lo, hi;
};
typedef struct pair16 va;
typedef struct pair16 vb;

#define TILE_R	   6
#define TILE_C	   2
#define TABLE	   wk_cpu_attn_avx512
#define TABLE_NAME "avx512"

V_INLINE va va_load(const elem *p)
{
	return (va){_mm512_set1_ps(p[0]), _mm512_set1_ps(p[1])};
}

V_INLINE vb vb_load(const char *p)
{
	__m512i u = _mm512_loadu_si512(p);

	return (vb){_mm512_castsi512_ps(_mm512_slli_epi32(u, 16)),
		    _mm512_castsi512_ps(_mm512_and_si512(u, _mm512_set1_epi32(-65536)))};
}

V_INLINE vb vb_half(vb b, bool high)
{
	return high ? (vb){_mm512_setzero_ps(), b.hi} : (vb){b.lo, _mm512_setzero_ps()};
}

V_INLINE v16 v_dp(v16 acc, va a, vb b)
{
	return _mm512_fmadd_ps(a.hi, b.hi, _mm512_fmadd_ps(a.lo, b.lo, acc));
}

V_INLINE elem elem_from_bf16(uint16_t x)
{
	return wk_bf16_float(x);
}

V_INLINE v16 p_store(elem *p, v16 x)
{
	x = _mm512_castsi512_ps(_mm512_slli_epi32(v_bf16_bits(x), 16));
	_mm512_storeu_ps(p, x);
	return x;
}

#include "kernels/cpu/attention_impl.h"
