/* SPDX-License-Identifier: Apache-2.0 */
/*
 * matmul_avx512bf16.c - dense kernels with VDPBF16PS: two products a lane, weights as they lie.
 *
 * Holds no state. Packed x is bf16, a pair of one row in 4 bytes, broadcast as one number.
 */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/lora512.h"
#include "kernels/cpu/tile512.h"
#include "kernels/cpu/vec512.h"

#define X_PAIR_BYTES 4

static ALWAYS_INLINE void tile_step(__m512 acc[][4], const char *x, const char *w,
				    const uint32_t rows)
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

static void tile(const struct wk_tile *t)
{
	tile512(t, tile_step, X_PAIR_BYTES);
}

static ALWAYS_INLINE __m512 pair_fma(__m512 acc, const char *x, __m512i w)
{
	int32_t pair;

	memcpy(&pair, x, 4);
	return _mm512_dpbf16_ps(acc, (__m512bh)_mm512_set1_epi32(pair), (__m512bh)w);
}

static void shrink(const struct wk_shrink *s)
{
	shrink512(s, pair_fma, X_PAIR_BYTES);
}

static void expand(const struct wk_expand *e)
{
	expand512(e, pair_fma, X_PAIR_BYTES);
}

/* --- packing x -----------------------------------------------------------------------------------
 *
 * [row][pair] becomes [pair][row], 16 pairs at a time: of R rows, output vector i holds elements
 * 16 i .. 16 i + 15, and element j is pair j / R of row j % R. A permutation takes from two rows
 * at once, so a lane's index is its pair, plus 16 for an odd row, and a mask says which two rows
 * it is from. The tables have that for each R and i.
 */
/* clang-format off */
#define LANE(R, j) (j) / (R) % 16 + 16 * ((j) % (R) % 2)
#define LANES4(R, j) LANE(R, j), LANE(R, j + 1), LANE(R, j + 2), LANE(R, j + 3)
#define LANES(R, i) { LANES4(R, 16 * i), LANES4(R, 16 * i + 4), \
		      LANES4(R, 16 * i + 8), LANES4(R, 16 * i + 12) }
#define FROM(R, q, j, l) ((((j) + (l)) % (R) / 2 == (q)) << (l))
#define FROM4(R, q, j, l) FROM(R, q, j, l) | FROM(R, q, j, l + 1) | FROM(R, q, j, l + 2) | \
			  FROM(R, q, j, l + 3)
#define MASK(R, q, i) FROM4(R, q, 16 * i, 0) | FROM4(R, q, 16 * i, 4) | \
		      FROM4(R, q, 16 * i, 8) | FROM4(R, q, 16 * i, 12)
#define MASKS(R, i) { MASK(R, 0, i), MASK(R, 1, i), MASK(R, 2, i) }
#define EACH(M, R) { M(R, 0), M(R, 1), M(R, 2), M(R, 3), M(R, 4), M(R, 5) }
/* clang-format on */

static const int32_t lanes[WK_TILE_ROWS + 1][WK_TILE_ROWS][16] = {
	{{0}},		EACH(LANES, 1), EACH(LANES, 2), EACH(LANES, 3),
	EACH(LANES, 4), EACH(LANES, 5), EACH(LANES, 6),
};
static const uint16_t masks[WK_TILE_ROWS + 1][WK_TILE_ROWS][3] = {
	{{0}},		EACH(MASKS, 1), EACH(MASKS, 2), EACH(MASKS, 3),
	EACH(MASKS, 4), EACH(MASKS, 5), EACH(MASKS, 6),
};

/* A multiple of 16 pairs. Rows that are not there are row 0 again, and no mask takes from them. */
static ALWAYS_INLINE void pack_rows(uint32_t *to, const uint16_t *x, size_t stride,
				    const uint32_t rows, uint32_t pairs)
{
	__m512i lane[WK_TILE_ROWS], v[WK_TILE_ROWS];

	WK_UNROLL
	for (uint32_t i = 0; i < rows; i++)
		lane[i] = _mm512_loadu_si512(lanes[rows][i]);
	for (uint32_t p = 0; p < pairs; p += 16, to += 16 * rows) {
		WK_UNROLL
		for (uint32_t r = 0; r < WK_TILE_ROWS; r++)
			v[r] = _mm512_loadu_si512(x + (r < rows ? r : 0) * stride + 2 * p);
		WK_UNROLL
		for (uint32_t i = 0; i < rows; i++) {
			const uint16_t *m = masks[rows][i];
			__m512i out = _mm512_permutex2var_epi32(v[0], lane[i], v[1]);

			if (rows > 2)
				out = _mm512_mask_blend_epi32(
					m[1], out, _mm512_permutex2var_epi32(v[2], lane[i], v[3]));
			if (rows > 4)
				out = _mm512_mask_blend_epi32(
					m[2], out, _mm512_permutex2var_epi32(v[4], lane[i], v[5]));
			_mm512_storeu_si512(to + 16 * i, out);
		}
	}
}

static void pack_whole(uint32_t *to, const uint16_t *x, size_t stride, uint32_t rows,
		       uint32_t pairs)
{
	switch (rows) {
	case 1:
		memcpy(to, x, (size_t)pairs * 4);
		break;
	case 2:
		pack_rows(to, x, stride, 2, pairs);
		break;
	case 3:
		pack_rows(to, x, stride, 3, pairs);
		break;
	case 4:
		pack_rows(to, x, stride, 4, pairs);
		break;
	case 5:
		pack_rows(to, x, stride, 5, pairs);
		break;
	default:
		pack_rows(to, x, stride, 6, pairs);
	}
}

static void pack_x(void *dst, const uint16_t *x, size_t stride, uint32_t rows, uint32_t k0,
		   uint32_t pairs, uint32_t k)
{
	uint32_t whole = k - k0 < 2 * pairs ? (k - k0) / 2 : pairs;
	uint32_t fast = whole / 16 * 16;

	pack_whole(dst, x + k0, stride, rows, fast);
	for (uint32_t r = 0; r < rows; r++) {
		const uint16_t *from = x + r * stride + k0;
		uint32_t *to = (uint32_t *)dst + r;

		for (uint32_t i = fast; i < whole; i++)
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
	.shrink = shrink,
	.expand = expand,
	.store = v512_store,
	.add = v512_add,
	.swiglu = v512_swiglu,
	.norm = v512_norm,
};
