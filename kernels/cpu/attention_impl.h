/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attention_impl.h - attention's kernels, written once for all instruction sets.
 *
 * Included by attention_<path>.c, which defines before:
 *
 *   v16		16 floats; vget_* / v_* operations on them (see any of the three)
 *   vb, vb_load()	64 bytes of K or V: 16 pairs of bf16
 *   va, va_load()	a pair of elements of q or p, in all lanes
 *   v_dp(acc, a, b)	acc + the two products, in the path's one fixed way
 *   elem, TILE_R, TILE_C	element of q and p; register tile, in rows and in v16
 *   TABLE, TABLE_NAME	the table to define
 */
#include <math.h>

#define INLINE static inline __attribute__((always_inline))

#define P_STRIDE WK_ATTN_CUT	 /* elements between rows of p */
#define Q_STRIDE WK_HEAD_DIM_MAX /* elements between rows of q */

/* 2^x for x <= 0: x = n + f, |f| <= 1/2, and the series of 2^f to f^6, whose remainder is below
 * 1e-7. Below -127 it is 0; NaN stays NaN. */
INLINE v16 exp2_neg(v16 x)
{
	v16 n, f, p = v_set(1.54035304e-4f);

	x = v_max(v_set(-127.0f), x);
	n = v_round(x);
	f = v_sub(x, n);
	p = v_fma(p, f, v_set(1.33335581e-3f));
	p = v_fma(p, f, v_set(9.61812911e-3f));
	p = v_fma(p, f, v_set(5.55041087e-2f));
	p = v_fma(p, f, v_set(2.40226507e-1f));
	p = v_fma(p, f, v_set(6.93147181e-1f));
	p = v_fma(p, f, v_set(1.0f));
	return v_scale2(p, n);
}

/* --- scores --------------------------------------------------------------------------------------*/

/*
 * Blocks are scattered, and each is too short for the hardware to see it coming. With few rows a
 * cut is bound by memory, so the first row tile asks, line for line with what it reads, for what it
 * will read four blocks later: K, after K the first V, and after V the next cut's K. Further ahead
 * it would be lost from L1 before its turn.
 */
#define AHEAD_BLOCKS   4
#define AHEAD_MAX_ROWS 16

INLINE bool ahead_wanted(const struct wk_attn_cut *c, uint32_t row)
{
	return row == 0 && c->n_rows <= AHEAD_MAX_ROWS;
}

/* R rows of q against C blocks of 16 keys. */
INLINE void score_tile(const struct wk_attn_cut *c, uint32_t row, uint32_t blk, const bool ahead,
		       const int R, const int C)
{
	const elem *q = (const elem *)c->q + (size_t)row * Q_STRIDE;
	float *s = c->s + (size_t)row * WK_ATTN_CUT + blk * WK_BLOCK_TOKENS;
	const char *next[TILE_C];
	v16 acc[TILE_R][TILE_C];

	WK_UNROLL
	for (int j = 0; ahead && j < C; j++)
		next[j] = blk + j + AHEAD_BLOCKS < WK_CUT_BLOCKS
				  ? c->kv[blk + j + AHEAD_BLOCKS]
				  : c->kv[blk + j + AHEAD_BLOCKS - WK_CUT_BLOCKS] + c->v_off;
	WK_UNROLL
	for (int r = 0; r < R; r++) {
		WK_UNROLL
		for (int j = 0; j < C; j++)
			acc[r][j] = v_zero();
	}
	for (uint32_t i = 0; i < c->dim / 2; i++) {
		vb k[TILE_C];

		WK_UNROLL
		for (int j = 0; j < C; j++)
			k[j] = vb_load(c->kv[blk + j] + (size_t)i * 64);
		WK_UNROLL
		for (int j = 0; ahead && j < C; j++)
			_mm_prefetch(next[j] + (size_t)i * 64, _MM_HINT_T0);
		WK_UNROLL
		for (int r = 0; r < R; r++) {
			va a = va_load(q + r * Q_STRIDE + 2 * i);

			WK_UNROLL
			for (int j = 0; j < C; j++)
				acc[r][j] = v_dp(acc[r][j], a, k[j]);
		}
	}
	WK_UNROLL
	for (int r = 0; r < R; r++) {
		WK_UNROLL
		for (int j = 0; j < C; j++)
			v_store(s + r * WK_ATTN_CUT + j * 16, v_mul(acc[r][j], v_set(c->scale)));
	}
}

/* --- outputs -------------------------------------------------------------------------------------*/

/* R rows of p against C * 16 dimensions from d0, key pairs j0 .. j1-1 of the cut. */
INLINE void out_tile(const struct wk_attn_cut *c, uint32_t row, uint32_t d0, uint32_t j0,
		     uint32_t j1, const bool ahead, const int R, const int C)
{
	const elem *p = (const elem *)c->p + (size_t)row * P_STRIDE;
	float *o = c->o + (size_t)row * c->dim_pad + d0;
	size_t pitch = (size_t)c->dim_pad * 4;
	v16 acc[TILE_R][TILE_C];

	WK_UNROLL
	for (int r = 0; r < R; r++) {
		WK_UNROLL
		for (int i = 0; i < C; i++)
			acc[r][i] = v_load(o + r * c->dim_pad + i * 16);
	}
	for (uint32_t j = j0; j < j1;) {
		const char *v = c->kv[j / 8] + c->v_off + j % 8 * pitch + (size_t)d0 * 4;
		uint32_t far = j / 8 + AHEAD_BLOCKS;
		const char *next =
			far < WK_CUT_BLOCKS ? c->kv[far] + c->v_off : c->next[far - WK_CUT_BLOCKS];
		uint32_t end = (j / 8 + 1) * 8 < j1 ? (j / 8 + 1) * 8 : j1;

		next += j % 8 * pitch + (size_t)d0 * 4;
		for (; j < end; j++, v += pitch, next += pitch) {
			vb b[TILE_C];

			WK_UNROLL
			for (int i = 0; i < C; i++)
				b[i] = vb_load(v + i * 64);
			WK_UNROLL
			for (int i = 0; ahead && i < C; i++)
				_mm_prefetch(next + i * 64, _MM_HINT_T0);
			WK_UNROLL
			for (int r = 0; r < R; r++) {
				va a = va_load(p + r * P_STRIDE + 2 * j);

				WK_UNROLL
				for (int i = 0; i < C; i++)
					acc[r][i] = v_dp(acc[r][i], a, b[i]);
			}
		}
	}
	WK_UNROLL
	for (int r = 0; r < R; r++) {
		WK_UNROLL
		for (int i = 0; i < C; i++)
			v_store(o + r * c->dim_pad + i * 16, acc[r][i]);
	}
}

/* One key pair of which the row attends to one key only: the other's V is made zero. */
static void out_half_pair(const struct wk_attn_cut *c, uint32_t row, uint32_t j, bool high)
{
	va a = va_load((const elem *)c->p + (size_t)row * P_STRIDE + 2 * j);
	const char *v = c->kv[j / 8] + c->v_off + (size_t)(j % 8) * c->dim_pad * 4;
	float *o = c->o + (size_t)row * c->dim_pad;

	for (uint32_t d = 0; d < c->dim_pad; d += 16) {
		vb b = vb_half(vb_load(v + (size_t)d * 4), high);

		v_store(o + d, v_dp(v_load(o + d), a, b));
	}
}

/* Calls f(..., R, C) with constants R and C. */
#define WITH_C(f, R, c_, ...)                                   \
	do {                                                    \
		if (TILE_C >= 4 && (c_) == 4)                   \
			f(__VA_ARGS__, R, TILE_C >= 4 ? 4 : 1); \
		else if (TILE_C >= 3 && (c_) == 3)              \
			f(__VA_ARGS__, R, TILE_C >= 3 ? 3 : 1); \
		else if (TILE_C >= 2 && (c_) == 2)              \
			f(__VA_ARGS__, R, TILE_C >= 2 ? 2 : 1); \
		else                                            \
			f(__VA_ARGS__, R, 1);                   \
	} while (0)

#define WITH_RC(f, r_, c_, ...)                                          \
	do {                                                             \
		switch (r_) {                                            \
		case 1:                                                  \
			WITH_C(f, 1, c_, __VA_ARGS__);                   \
			break;                                           \
		case 2:                                                  \
			WITH_C(f, 2, c_, __VA_ARGS__);                   \
			break;                                           \
		case 3:                                                  \
			WITH_C(f, 3, c_, __VA_ARGS__);                   \
			break;                                           \
		case 4:                                                  \
			WITH_C(f, TILE_R >= 4 ? 4 : 1, c_, __VA_ARGS__); \
			break;                                           \
		case 5:                                                  \
			WITH_C(f, TILE_R >= 5 ? 5 : 1, c_, __VA_ARGS__); \
			break;                                           \
		default:                                                 \
			WITH_C(f, TILE_R >= 6 ? 6 : 1, c_, __VA_ARGS__); \
			break;                                           \
		}                                                        \
	} while (0)

static uint32_t min_u32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* Scores of all rows against blocks b0 .. b1-1. Column tiles outside: K of a tile stays in L1. */
static void all_scores(const struct wk_attn_cut *c, uint32_t b0, uint32_t b1)
{
	for (uint32_t b = b0, nc; b < b1; b += nc) {
		nc = min_u32(b1 - b, TILE_C);
		for (uint32_t row = 0, nr; row < c->n_rows; row += nr) {
			nr = min_u32(c->n_rows - row, TILE_R);
			if (ahead_wanted(c, row))
				WITH_RC(score_tile, nr, nc, c, row, b, true);
			else
				WITH_RC(score_tile, nr, nc, c, row, b, false);
		}
	}
}

/* Outputs of rows row .. row+n-1 over whole key pairs. */
static void outputs(const struct wk_attn_cut *c, uint32_t row, uint32_t n, uint32_t j0, uint32_t j1)
{
	for (uint32_t d = 0, nc; d < c->dim_pad; d += nc * 16) {
		nc = min_u32((c->dim_pad - d) / 16, TILE_C);
		for (uint32_t i = 0, nr; i < n; i += nr) {
			nr = min_u32(n - i, TILE_R);
			if (ahead_wanted(c, row + i))
				WITH_RC(out_tile, nr, nc, c, row + i, d, j0, j1, true);
			else
				WITH_RC(out_tile, nr, nc, c, row + i, d, j0, j1, false);
		}
	}
}

/* Outputs of one row over keys k0 .. k1-1, which need not be whole pairs. */
static void row_outputs(const struct wk_attn_cut *c, uint32_t row, uint32_t k0, uint32_t k1)
{
	if (k0 >= k1)
		return;
	if (k0 % 2) {
		out_half_pair(c, row, k0 / 2, true);
		k0++;
	}
	if (k0 / 2 < k1 / 2)
		outputs(c, row, 1, k0 / 2, k1 / 2);
	if (k1 % 2 && k1 > k0)
		out_half_pair(c, row, k1 / 2, false);
}

/* m, l and p of one row from its scores. */
static void softmax(const struct wk_attn_cut *c, uint32_t row)
{
	uint32_t lo = c->lo[row], hi = c->hi[row];
	uint32_t k0 = lo / 16 * 16, k1 = (hi + 15) / 16 * 16;
	float *s = c->s + (size_t)row * WK_ATTN_CUT, max;
	elem *p = (elem *)c->p + (size_t)row * P_STRIDE;
	v16 m = v_set(-INFINITY), l = v_zero();

	for (uint32_t k = k0; k < lo; k++)
		s[k] = -INFINITY;
	for (uint32_t k = hi; k < k1; k++)
		s[k] = -INFINITY;
	for (uint32_t k = k0; k < k1; k += 16)
		m = v_max(v_load(s + k), m);
	max = v_reduce_max(m);
	m = v_set(max);
	for (uint32_t k = k0; k < k1; k += 16)
		l = v_add(l, p_store(p + k, exp2_neg(v_sub(v_load(s + k), m))));
	c->m[row] = max;
	c->l[row] = v_reduce_add(l);
}

static void kernel_cut(const struct wk_attn_cut *c)
{
	/* Keys that any row attends to, and those that all do, in whole blocks. */
	uint32_t any_lo = WK_ATTN_CUT, any_hi = 0, all_lo = 0, all_hi = WK_ATTN_CUT;

	for (uint32_t r = 0; r < c->n_rows; r++) {
		if (c->lo[r] < c->hi[r]) {
			any_lo = min_u32(any_lo, c->lo[r]);
			any_hi = c->hi[r] > any_hi ? c->hi[r] : any_hi;
		}
		all_lo = c->lo[r] > all_lo ? c->lo[r] : all_lo;
		all_hi = min_u32(all_hi, c->hi[r]);
	}
	all_scores(c, any_lo / 16, (any_hi + 15) / 16);
	memset(c->o, 0, (size_t)c->n_rows * c->dim_pad * sizeof(float));
	for (uint32_t r = 0; r < c->n_rows; r++)
		if (c->lo[r] < c->hi[r])
			softmax(c, r);
	all_lo = (all_lo + 15) / 16 * 16;
	all_hi = all_hi / 16 * 16;
	if (all_lo >= all_hi) {
		for (uint32_t r = 0; r < c->n_rows; r++)
			row_outputs(c, r, c->lo[r], c->hi[r]);
		return;
	}
	for (uint32_t r = 0; r < c->n_rows; r++)
		row_outputs(c, r, c->lo[r], all_lo);
	outputs(c, 0, c->n_rows, all_lo / 2, all_hi / 2);
	for (uint32_t r = 0; r < c->n_rows; r++)
		row_outputs(c, r, all_hi, c->hi[r]);
}

static void kernel_fold(float *m, float *l, float *o, float m2, float l2, const float *o2,
			uint32_t dim_pad)
{
	float max = m2 > *m ? m2 : *m;
	v16 a = exp2_neg(v_set(*m - max)), b = exp2_neg(v_set(m2 - max));

	*l = v_first(v_add(v_mul(a, v_set(*l)), v_mul(b, v_set(l2))));
	*m = max;
	for (uint32_t d = 0; d < dim_pad; d += 16) {
		v16 x = v_add(v_load(o2 + d), v_zero());

		v_store(o + d, v_add(v_mul(a, v_load(o + d)), v_mul(b, x)));
	}
}

static void kernel_finish(uint16_t *x, const float *o, float l, uint32_t dim)
{
	uint16_t tmp[16];

	for (uint32_t d = 0; d < dim; d += 16) {
		v16 v = v_div(v_add(v_load(o + d), v_zero()), v_set(l));

		if (dim - d >= 16) {
			v_store_bf16(x + d, v);
			continue;
		}
		v_store_bf16(tmp, v);
		memcpy(x + d, tmp, (dim - d) * sizeof(*x));
	}
}

static void kernel_pack_q(void *dst, const uint16_t *q, uint32_t dim)
{
	elem *d = dst;

	for (uint32_t i = 0; i < dim; i++)
		d[i] = elem_from_bf16(q[i]);
}

/* --- rotary --------------------------------------------------------------------------------------*/

/* Copied to padded halves first, so that no vector crosses from one half to the other. */
static void kernel_rope(const struct wk_rope_head *h, uint16_t *ret)
{
	float half[2][WK_HEAD_DIM_MAX / 2 + 16] = {0};
	uint16_t out[WK_HEAD_DIM_MAX / 2 + 16];
	uint32_t n = h->dim / 2;
	v16 sum = v_zero();

	memcpy(half[0], h->y, n * sizeof(float));
	memcpy(half[1], h->y + n, n * sizeof(float));
	if (h->norm) {
		float w[2][WK_HEAD_DIM_MAX / 2 + 16] = {0}, inv;

		memcpy(w[0], h->norm, n * sizeof(float));
		memcpy(w[1], h->norm + n, n * sizeof(float));
		for (int i = 0; i < 2; i++)
			for (uint32_t d = 0; d < n; d += 16)
				sum = v_fma(v_load(half[i] + d), v_load(half[i] + d), sum);
		inv = 1.0f / sqrtf(v_reduce_add(sum) / h->dim + h->eps);
		for (int i = 0; i < 2; i++)
			for (uint32_t d = 0; d < n; d += 16)
				v_store(half[i] + d, v_mul(v_load(w[i] + d),
							   v_mul(v_load(half[i] + d), v_set(inv))));
	}
	for (uint32_t d = 0; d < n; d += 16) {
		v16 a = v_load(half[0] + d), b = v_load(half[1] + d);
		v16 c = v_load(h->cos + d), s = v_load(h->sin + d);

		v_store_bf16(ret + d, v_sub(v_mul(a, c), v_mul(b, s)));
		v_store_bf16(out + d, v_add(v_mul(b, c), v_mul(a, s)));
	}
	memcpy(ret + n, out, n * sizeof(*ret));
}

static void kernel_round(const float *src, uint16_t *ret, uint32_t dim)
{
	float tmp[16] = {0};
	uint32_t d = 0;

	for (; d + 16 <= dim; d += 16)
		v_store_bf16(ret + d, v_load(src + d));
	if (d == dim)
		return;
	memcpy(tmp, src + d, (dim - d) * sizeof(float));
	v_store_bf16(ret + d, v_load(tmp));
}

const struct wk_cpu_attn_kernels TABLE = {
	.name = TABLE_NAME,
	.elem_bytes = sizeof(elem),
	.pack_q = kernel_pack_q,
	.cut = kernel_cut,
	.fold = kernel_fold,
	.finish = kernel_finish,
	.rope = kernel_rope,
	.round = kernel_round,
};
