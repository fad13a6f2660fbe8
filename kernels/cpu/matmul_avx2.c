/* SPDX-License-Identifier: Apache-2.0 */
/*
 * matmul_avx2.c - dense kernels with AVX2 and FMA: fp32 arithmetic over bf16 weights.
 *
 * Holds no state. Sixteen registers hold 6 rows x 16 columns (12 sums, 2 weights, 1 x), so a panel
 * is walked four times, 16 columns each; the order over K of every output is the same as on the
 * other paths. Tails go through a copy of the last vector, as AVX2 has masks for 32-bit lanes only.
 */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/pack_x_float.h"

#include <immintrin.h>
#include <math.h>

#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define ALWAYS_INLINE inline __attribute__((always_inline))

/* --- products ------------------------------------------------------------------------------------*/

static ALWAYS_INLINE void fma_rows(__m256 acc[][2], const char *x, __m256 b0, __m256 b1,
				   const uint32_t rows)
{
	UNROLL
	for (uint32_t r = 0; r < rows; r++) {
		__m256 a = _mm256_broadcast_ss((const float *)(x + 8 * r));

		acc[r][0] = _mm256_fmadd_ps(a, b0, acc[r][0]);
		acc[r][1] = _mm256_fmadd_ps(a, b1, acc[r][1]);
	}
}

static ALWAYS_INLINE __m256 even(const char *w)
{
	return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256((const void *)w), 16));
}

static ALWAYS_INLINE __m256 odd(const char *w)
{
	return _mm256_castsi256_ps(
		_mm256_and_si256(_mm256_loadu_si256((const void *)w), _mm256_set1_epi32(-65536)));
}

/* 16 columns of the panel; `ahead`, if not NULL, is prefetched a line for each pair of K. */
static ALWAYS_INLINE void tile_cols(const struct wk_tile *t, uint32_t col, const uint32_t rows,
				    const char *ahead)
{
	const char *x = t->x, *w = (const char *)t->w + 4 * col;
	float *out = t->acc + col;
	__m256 acc[WK_TILE_ROWS][2];

	UNROLL
	for (uint32_t r = 0; r < rows; r++) {
		acc[r][0] = t->first ? _mm256_setzero_ps() : _mm256_loadu_ps(out + r * 64);
		acc[r][1] = t->first ? _mm256_setzero_ps() : _mm256_loadu_ps(out + r * 64 + 8);
	}
	for (uint32_t i = t->pairs; i; i--) {
		if (ahead) {
			_mm_prefetch(ahead, _MM_HINT_T0);
			ahead += 64;
		}
		fma_rows(acc, x, even(w), even(w + 32), rows);
		fma_rows(acc, x + 4, odd(w), odd(w + 32), rows);
		x += 8 * rows;
		w += 256;
	}
	UNROLL
	for (uint32_t r = 0; r < rows; r++) {
		_mm256_storeu_ps(out + r * 64, acc[r][0]);
		_mm256_storeu_ps(out + r * 64 + 8, acc[r][1]);
	}
}

/* A panel takes four walks, so up to four lines per pair are prefetched one in each walk. */
static ALWAYS_INLINE void tile_rows(const struct wk_tile *t, const uint32_t rows)
{
	for (uint32_t c = 0; c < 4; c++) {
		const char *ahead = t->prefetch + (size_t)c * t->pairs * 64;

		tile_cols(t, 16 * c, rows, c < t->prefetch_lines ? ahead : NULL);
	}
}

static void tile(const struct wk_tile *t)
{
	switch (t->rows) {
	case 1:
		tile_rows(t, 1);
		break;
	case 2:
		tile_rows(t, 2);
		break;
	case 3:
		tile_rows(t, 3);
		break;
	case 4:
		tile_rows(t, 4);
		break;
	case 5:
		tile_rows(t, 5);
		break;
	default:
		tile_rows(t, 6);
	}
}

/* --- epilogues -----------------------------------------------------------------------------------*/

/* The vector forms below work on whole vectors of 8; a tail passes through these. */
static ALWAYS_INLINE __m256 load_n(const float *p, uint32_t n)
{
	float v[8] = {0};

	if (n >= 8)
		return _mm256_loadu_ps(p);
	memcpy(v, p, n * sizeof(float));
	return _mm256_loadu_ps(v);
}

static ALWAYS_INLINE void store_n(float *p, __m256 v, uint32_t n)
{
	float tail[8];

	if (n >= 8) {
		_mm256_storeu_ps(p, v);
		return;
	}
	_mm256_storeu_ps(tail, v);
	memcpy(p, tail, n * sizeof(float));
}

static ALWAYS_INLINE void store_bf16_n(uint16_t *p, __m256 v, uint32_t n)
{
	__m256i bits = _mm256_castps_si256(v);
	__m256i lsb = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
	__m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(lsb, _mm256_set1_epi32(0x7fff)));
	__m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
	__m256 nan = _mm256_cmp_ps(v, v, _CMP_UNORD_Q);
	__m256i r = _mm256_castps_si256(
		_mm256_blendv_ps(_mm256_castsi256_ps(up), _mm256_castsi256_ps(quiet), nan));
	uint16_t out[8];

	r = _mm256_srli_epi32(r, 16);
	_mm_storeu_si128((void *)out, _mm_packus_epi32(_mm256_castsi256_si128(r),
						       _mm256_extracti128_si256(r, 1)));
	memcpy(p, out, (n < 8 ? n : 8) * sizeof(uint16_t));
}

/* e^x as v512_exp(): the same reduction and series, the power of two by its exponent's bits. */
static ALWAYS_INLINE __m256 exp8(__m256 x)
{
	__m256 n, r, p;

	x = _mm256_min_ps(_mm256_max_ps(x, _mm256_set1_ps(-87.0f)), _mm256_set1_ps(88.0f));
	n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(0x1.715476p0f)),
			    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
	r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.62e4p-1f), x);
	r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.7f7d1cp-20f), r);
	p = _mm256_set1_ps(1.0f / 5040);
	p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 720));
	p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 120));
	p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 24));
	p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 6));
	p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
	p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
	p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
	return _mm256_mul_ps(
		p, _mm256_castsi256_ps(_mm256_slli_epi32(
			   _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23)));
}

static ALWAYS_INLINE __m256 scaled(const float *acc, const float *bias, float scale, uint32_t n)
{
	__m256 v = _mm256_loadu_ps(acc);

	if (bias)
		v = _mm256_add_ps(v, load_n(bias, n));
	return _mm256_mul_ps(v, _mm256_set1_ps(scale));
}

static void store(float *y, const float *acc, const float *bias, float scale, uint32_t n)
{
	for (uint32_t i = 0; i < n; i += 8)
		store_n(y + i, scaled(acc + i, bias ? bias + i : NULL, scale, n - i), n - i);
}

static void add(float *h, const float *acc, const float *bias, float scale, uint32_t n)
{
	for (uint32_t i = 0; i < n; i += 8) {
		__m256 v = scaled(acc + i, bias ? bias + i : NULL, scale, n - i);

		store_n(h + i, _mm256_add_ps(load_n(h + i, n - i), v), n - i);
	}
}

static void swiglu(uint16_t *x, const float *acc, const float *gate_bias, const float *up_bias,
		   uint32_t n)
{
	for (uint32_t i = 0; i < n; i += 8) {
		__m256 g = scaled(acc + i, gate_bias ? gate_bias + i : NULL, 1.0f, n - i);
		__m256 u = scaled(acc + 32 + i, up_bias ? up_bias + i : NULL, 1.0f, n - i);
		__m256 e = exp8(_mm256_sub_ps(_mm256_setzero_ps(), g));
		__m256 silu = _mm256_div_ps(g, _mm256_add_ps(_mm256_set1_ps(1.0f), e));

		store_bf16_n(x + i, _mm256_mul_ps(silu, u), n - i);
	}
}

static float sum8(__m256 v)
{
	__m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));

	s = _mm_add_ps(s, _mm_movehl_ps(s, s));
	return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}

static void norm(uint16_t *x, const float *h, const float *weight, uint32_t dim, float eps)
{
	__m256 s0 = _mm256_setzero_ps(), s1 = _mm256_setzero_ps(), inv;

	for (uint32_t i = 0; i < dim; i += 16) {
		__m256 a = load_n(h + i, dim - i);
		__m256 b = i + 8 < dim ? load_n(h + i + 8, dim - i - 8) : _mm256_setzero_ps();

		s0 = _mm256_fmadd_ps(a, a, s0);
		s1 = _mm256_fmadd_ps(b, b, s1);
	}
	inv = _mm256_set1_ps(1.0f / sqrtf(sum8(_mm256_add_ps(s0, s1)) / (float)dim + eps));
	for (uint32_t i = 0; i < dim; i += 8) {
		__m256 v = _mm256_mul_ps(load_n(h + i, dim - i), inv);

		store_bf16_n(x + i, _mm256_mul_ps(v, load_n(weight + i, dim - i)), dim - i);
	}
}

/* --- LoRA: see lora512.h --------------------------------------------------------------------------
 *
 * Twelve registers of sums here too: shrink takes 8 ranks of one cut at a time (6 rows, 2 chains),
 * expand 16 outputs (6 rows).
 */
static ALWAYS_INLINE __m256 pair_fma(__m256 acc, const char *x, const char *w)
{
	acc = _mm256_fmadd_ps(_mm256_broadcast_ss((const float *)x), even(w), acc);
	return _mm256_fmadd_ps(_mm256_broadcast_ss((const float *)(x + 4)), odd(w), acc);
}

/* s of 8 ranks of one row, rounded, to where expand wants it: pairs are `step` bytes apart. */
static void put_s(char *dst, size_t step, __m256 v)
{
	uint16_t half[8];

	store_bf16_n(half, v, 8);
	for (uint32_t i = 0; i < 4; i++) {
		float pair[2] = {wk_bf16_float(half[2 * i]), wk_bf16_float(half[2 * i + 1])};

		memcpy(dst + i * step, pair, sizeof(pair));
	}
}

static ALWAYS_INLINE void shrink_ranks(const struct wk_shrink *t, uint32_t cut, uint32_t rank,
				       const uint32_t rows)
{
	const char *x = t->x, *a = t->a[cut] + 4 * rank;
	size_t s_step = (size_t)rows * 8;
	float *sums = t->acc + cut * 32 + rank;
	__m256 acc[WK_TILE_ROWS][2];

	UNROLL
	for (uint32_t r = 0; r < rows; r++) {
		const float *from = sums + r * WK_SHRINK_ACC;

		acc[r][0] = t->first ? _mm256_setzero_ps() : _mm256_loadu_ps(from);
		acc[r][1] = t->first ? _mm256_setzero_ps() : _mm256_loadu_ps(from + 16);
	}
	for (uint32_t i = 0; i < t->pairs / 2; i++, x += 2 * t->x_step, a += 128) {
		_mm_prefetch(a + WK_LORA_AHEAD, _MM_HINT_T0);
		_mm_prefetch(a + WK_LORA_AHEAD + 64, _MM_HINT_T0);
		UNROLL
		for (uint32_t r = 0; r < rows; r++) {
			acc[r][0] = pair_fma(acc[r][0], x + 8 * r, a);
			acc[r][1] = pair_fma(acc[r][1], x + t->x_step + 8 * r, a + 64);
		}
	}
	UNROLL
	for (uint32_t r = 0; r < rows; r++) {
		float *to = sums + r * WK_SHRINK_ACC;
		__m256 sum;

		if (t->pairs % 2)
			acc[r][0] = pair_fma(acc[r][0], x + 8 * r, a);
		if (t->last) {
			sum = _mm256_mul_ps(_mm256_add_ps(acc[r][0], acc[r][1]),
					    _mm256_set1_ps(t->scale[cut]));
			put_s(t->s + (cut * 8 + rank / 2) * s_step + r * 8, s_step, sum);
			continue;
		}
		_mm256_storeu_ps(to, acc[r][0]);
		_mm256_storeu_ps(to + 16, acc[r][1]);
	}
}

static ALWAYS_INLINE void shrink_rows(const struct wk_shrink *t, const uint32_t rows)
{
	for (uint32_t c = 0; c < t->cuts; c++) {
		shrink_ranks(t, c, 0, rows);
		shrink_ranks(t, c, 8, rows);
	}
}

static void shrink(const struct wk_shrink *t)
{
	switch (t->rows) {
	case 1:
		shrink_rows(t, 1);
		break;
	case 2:
		shrink_rows(t, 2);
		break;
	case 3:
		shrink_rows(t, 3);
		break;
	case 4:
		shrink_rows(t, 4);
		break;
	case 5:
		shrink_rows(t, 5);
		break;
	default:
		shrink_rows(t, 6);
	}
}

static ALWAYS_INLINE void expand_cols(const struct wk_expand *t, uint32_t panel, uint32_t col,
				      const uint32_t rows)
{
	const struct wk_expand_half *h = &t->half[col / 32];
	const char *s = h->s;
	float *out = t->acc + panel * t->acc_step + col;
	__m256 acc[WK_TILE_ROWS][2];

	UNROLL
	for (uint32_t r = 0; r < rows; r++) {
		const float *from = out + r * WK_CPU_PANEL;

		acc[r][0] = t->first ? _mm256_setzero_ps() : _mm256_loadu_ps(from);
		acc[r][1] = t->first ? _mm256_setzero_ps() : _mm256_loadu_ps(from + 8);
	}
	for (uint32_t n = 0; n < t->n; n++) {
		const char *b = h->base + h->offsets[n] + panel * t->b_step + 4 * (col % 32);
		const char *far = wk_expand_ahead(t, b, col / 32 * 1024 + 4 * (col % 32), panel);

		for (uint32_t i = 0; i < 8; i++, b += 128, s += 8 * rows) {
			if (t->ahead)
				_mm_prefetch(far + i * 128, _MM_HINT_T0);
			fma_rows(acc, s, even(b), even(b + 32), rows);
			fma_rows(acc, s + 4, odd(b), odd(b + 32), rows);
		}
	}
	UNROLL
	for (uint32_t r = 0; r < rows; r++) {
		_mm256_storeu_ps(out + r * WK_CPU_PANEL, acc[r][0]);
		_mm256_storeu_ps(out + r * WK_CPU_PANEL + 8, acc[r][1]);
	}
}

static ALWAYS_INLINE void expand_rows(const struct wk_expand *t, const uint32_t rows)
{
	for (uint32_t i = 0; i < t->panels; i++)
		for (uint32_t col = 0; col < 32 * t->halves; col += 16)
			expand_cols(t, i, col, rows);
}

static void expand(const struct wk_expand *t)
{
	switch (t->rows) {
	case 1:
		expand_rows(t, 1);
		break;
	case 2:
		expand_rows(t, 2);
		break;
	case 3:
		expand_rows(t, 3);
		break;
	case 4:
		expand_rows(t, 4);
		break;
	case 5:
		expand_rows(t, 5);
		break;
	default:
		expand_rows(t, 6);
	}
}

const struct wk_cpu_kernels wk_cpu_avx2 = {
	.name = "avx2",
	.x_pair_bytes = 8,
	.pack_x = pack_x_float,
	.tile = tile,
	.shrink = shrink,
	.expand = expand,
	.store = store,
	.add = add,
	.swiglu = swiglu,
	.norm = norm,
};
