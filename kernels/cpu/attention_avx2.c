/* SPDX-License-Identifier: Apache-2.0 */
/* attention_avx2.c - attention with fp32 FMA; 16 floats are two registers. */
#include <immintrin.h>

#include "kernels/cpu/attention.h"

#define V_INLINE static inline __attribute__((always_inline))

struct v16 {
	__m256 a, b;
};
typedef struct v16 v16;
typedef float elem;

struct pair8 {
	__m256 lo, hi;
};
typedef struct pair8 va;

struct pair16 {
	struct v16 lo, hi;
};
typedef struct pair16 vb;

#define TILE_R	   4
#define TILE_C	   1
#define TABLE	   wk_cpu_attn_avx2
#define TABLE_NAME "avx2"

/* clang-format off */
V_INLINE v16 v_zero(void) { return (v16){ _mm256_setzero_ps(), _mm256_setzero_ps() }; }
V_INLINE v16 v_set(float x) { return (v16){ _mm256_set1_ps(x), _mm256_set1_ps(x) }; }
V_INLINE v16 v_load(const float *p) { return (v16){ _mm256_loadu_ps(p), _mm256_loadu_ps(p + 8) }; }
V_INLINE void v_store(float *p, v16 x) { _mm256_storeu_ps(p, x.a); _mm256_storeu_ps(p + 8, x.b); }
#define V_BINARY(name, op) \
	V_INLINE v16 name(v16 x, v16 y) { return (v16){ op(x.a, y.a), op(x.b, y.b) }; }
V_BINARY(v_add, _mm256_add_ps)
V_BINARY(v_sub, _mm256_sub_ps)
V_BINARY(v_mul, _mm256_mul_ps)
V_BINARY(v_div, _mm256_div_ps)
/* y where either is NaN */
V_BINARY(v_max, _mm256_max_ps)
V_INLINE float v_first(v16 x) { return _mm256_cvtss_f32(x.a); }
/* clang-format on */

V_INLINE v16 v_fma(v16 x, v16 y, v16 z)
{
	return (v16){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}

V_INLINE v16 v_round(v16 x)
{
	return (v16){_mm256_round_ps(x.a, 8), _mm256_round_ps(x.b, 8)};
}

V_INLINE __m256 scale2_8(__m256 p, __m256 n)
{
	__m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));

	return _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(e, 23)));
}

/* p * 2^n for whole n in -127..0; 0 at -127. */
V_INLINE v16 v_scale2(v16 p, v16 n)
{
	return (v16){scale2_8(p.a, n.a), scale2_8(p.b, n.b)};
}

V_INLINE float v_reduce_max(v16 x)
{
	__m256 h = _mm256_max_ps(x.a, x.b);
	__m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));

	q = _mm_max_ps(q, _mm_movehl_ps(q, q));
	return _mm_cvtss_f32(_mm_max_ss(q, _mm_shuffle_ps(q, q, 1)));
}

V_INLINE float v_reduce_add(v16 x)
{
	__m256 h = _mm256_add_ps(x.a, x.b);
	__m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));

	q = _mm_add_ps(q, _mm_movehl_ps(q, q));
	return _mm_cvtss_f32(_mm_add_ss(q, _mm_shuffle_ps(q, q, 1)));
}

/* bf16 of each lane in the lane's high half, the low half zero: to nearest even; NaN quiet. */
V_INLINE __m256i bf16_bits8(__m256 a)
{
	__m256i u = _mm256_castps_si256(a);
	__m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
	__m256i r = _mm256_add_epi32(_mm256_add_epi32(u, odd), _mm256_set1_epi32(0x7fff));
	__m256i q = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
	__m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));

	return _mm256_and_si256(_mm256_blendv_epi8(r, q, nan), _mm256_set1_epi32(-65536));
}

V_INLINE void v_store_bf16(uint16_t *p, v16 x)
{
	__m256i a = _mm256_srli_epi32(bf16_bits8(x.a), 16);
	__m256i b = _mm256_srli_epi32(bf16_bits8(x.b), 16);
	/* The pack works within 128-bit halves. */
	__m256i h = _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xd8);

	_mm256_storeu_si256((__m256i *)p, h);
}

V_INLINE va va_load(const elem *p)
{
	return (va){_mm256_set1_ps(p[0]), _mm256_set1_ps(p[1])};
}

V_INLINE vb vb_load(const char *p)
{
	__m256i a = _mm256_loadu_si256((const __m256i *)p);
	__m256i b = _mm256_loadu_si256((const __m256i *)(p + 32));
	__m256i high = _mm256_set1_epi32(-65536);
	vb r;

	r.lo.a = _mm256_castsi256_ps(_mm256_slli_epi32(a, 16));
	r.lo.b = _mm256_castsi256_ps(_mm256_slli_epi32(b, 16));
	r.hi.a = _mm256_castsi256_ps(_mm256_and_si256(a, high));
	r.hi.b = _mm256_castsi256_ps(_mm256_and_si256(b, high));
	return r;
}

V_INLINE vb vb_half(vb b, bool high)
{
	return high ? (vb){v_zero(), b.hi} : (vb){b.lo, v_zero()};
}

V_INLINE v16 v_dp(v16 acc, va x, vb y)
{
	acc.a = _mm256_fmadd_ps(x.hi, y.hi.a, _mm256_fmadd_ps(x.lo, y.lo.a, acc.a));
	acc.b = _mm256_fmadd_ps(x.hi, y.hi.b, _mm256_fmadd_ps(x.lo, y.lo.b, acc.b));
	return acc;
}

V_INLINE elem elem_from_bf16(uint16_t x)
{
	return wk_bf16_float(x);
}

V_INLINE v16 p_store(elem *p, v16 x)
{
	x.a = _mm256_castsi256_ps(bf16_bits8(x.a));
	x.b = _mm256_castsi256_ps(bf16_bits8(x.b));
	v_store(p, x);
	return x;
}

#include "kernels/cpu/attention_impl.h"
