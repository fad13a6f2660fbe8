/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tile512.h - the 512-bit tile: up to 6 rows x 64 columns in 24 accumulators.
 *
 * A path gives its step, one pair of K: acc[rows][4] += x (one pair of each row, packed) times w
 * (64 columns x one pair). All is inlined by force, so that `rows` is a constant where it matters
 * and the accumulators stay in registers.
 *
 * Six rows by four vectors use 24 registers for sums, four for weights and one for x; two loads a
 * cycle then suffice for two products a cycle. Each output is one chain of additions over K,
 * whatever `rows` is and wherever K is cut: the sums go to memory and come back unrounded.
 */
#ifndef WEFT_KERNELS_CPU_TILE512_H
#define WEFT_KERNELS_CPU_TILE512_H

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vec512.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

typedef void (*tile_step_fn)(__m512 acc[][4], const char *x, const char *w, const uint32_t rows);

static ALWAYS_INLINE void tile_loop(const struct wk_tile *t, tile_step_fn step,
				    const uint32_t pair_bytes, const uint32_t rows,
				    const uint32_t lines)
{
	const char *x = t->x, *w = (const char *)t->w, *ahead = t->prefetch;
	__m512 acc[WK_TILE_ROWS][4];

	WK_UNROLL
	for (uint32_t r = 0; r < rows; r++) {
		WK_UNROLL
		for (uint32_t c = 0; c < 4; c++)
			acc[r][c] = t->first ? _mm512_setzero_ps()
					     : _mm512_loadu_ps(t->acc + r * 64 + c * 16);
	}
	for (uint32_t i = t->pairs; i; i--) {
		WK_UNROLL
		for (uint32_t l = 0; l < lines; l++)
			_mm_prefetch(ahead + 64 * l, _MM_HINT_T0);
		ahead += 64 * lines;
		step(acc, x, w, rows);
		x += pair_bytes * rows;
		w += 256;
	}
	WK_UNROLL
	for (uint32_t r = 0; r < rows; r++) {
		WK_UNROLL
		for (uint32_t c = 0; c < 4; c++)
			_mm512_storeu_ps(t->acc + r * 64 + c * 16, acc[r][c]);
	}
}

static ALWAYS_INLINE void tile_rows(const struct wk_tile *t, tile_step_fn step,
				    const uint32_t pair_bytes, const uint32_t rows)
{
	switch (t->prefetch_lines) {
	case 0:
		tile_loop(t, step, pair_bytes, rows, 0);
		break;
	case 1:
		tile_loop(t, step, pair_bytes, rows, 1);
		break;
	case 2:
		tile_loop(t, step, pair_bytes, rows, 2);
		break;
	default:
		tile_loop(t, step, pair_bytes, rows, 4);
	}
}

static ALWAYS_INLINE void tile512(const struct wk_tile *t, tile_step_fn step,
				  const uint32_t pair_bytes)
{
	switch (t->rows) {
	case 1:
		tile_rows(t, step, pair_bytes, 1);
		break;
	case 2:
		tile_rows(t, step, pair_bytes, 2);
		break;
	case 3:
		tile_rows(t, step, pair_bytes, 3);
		break;
	case 4:
		tile_rows(t, step, pair_bytes, 4);
		break;
	case 5:
		tile_rows(t, step, pair_bytes, 5);
		break;
	default:
		tile_rows(t, step, pair_bytes, 6);
	}
}

#endif
