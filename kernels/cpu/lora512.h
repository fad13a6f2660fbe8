/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lora512.h - the 512-bit kernels of LoRA: shrink a run of rows, expand it into halves of a panel.
 *
 * A path gives pair_fma: acc += a pair of x (as packed, broadcast) times 16 columns x one pair.
 *
 * Shrink: 16 ranks are one vector. Six rows by two cuts by two chains fill 24 registers, and with
 * one row there are still as many independent chains as one row can have: two for each cut, as the
 * order of summation is fixed whatever there is. Expand: six rows by 64 outputs, 24 registers.
 */
#ifndef WEFT_KERNELS_CPU_LORA512_H
#define WEFT_KERNELS_CPU_LORA512_H

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/tile512.h"
#include "kernels/cpu/vec512.h"

typedef __m512 (*pair_fma_fn)(__m512 acc, const char *x, __m512i w);

/* --- shrink --------------------------------------------------------------------------------------*/

/* s of one row and cut, rounded, to where expand wants it: pairs are `step` bytes apart. */
static ALWAYS_INLINE void put_s(char *dst, size_t step, __m512 v, const uint32_t pair_bytes)
{
	_Alignas(64) char tmp[64];
	__m256i half = v512_bf16(v);

	if (pair_bytes == 4)
		_mm256_store_si256((void *)tmp, half);
	else
		_mm512_store_si512(tmp, _mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
	for (uint32_t i = 0; i < 8; i++)
		memcpy(dst + i * step, tmp + i * pair_bytes, pair_bytes);
}

static ALWAYS_INLINE void shrink_pair(__m512 acc[][2][2], const struct wk_shrink *t, size_t i,
				      const uint32_t chain, pair_fma_fn fma,
				      const uint32_t pair_bytes, const uint32_t rows,
				      const uint32_t cuts)
{
	const char *x = t->x + i * t->x_step;
	__m512i a[2];

	WK_UNROLL
	for (uint32_t c = 0; c < cuts; c++) {
		_mm_prefetch(t->a[c] + i * 64 + WK_LORA_AHEAD, _MM_HINT_T0);
		a[c] = _mm512_loadu_si512(t->a[c] + i * 64);
	}
	WK_UNROLL
	for (uint32_t r = 0; r < rows; r++) {
		WK_UNROLL
		for (uint32_t c = 0; c < cuts; c++)
			acc[r][c][chain] = fma(acc[r][c][chain], x + r * pair_bytes, a[c]);
	}
}

static ALWAYS_INLINE void shrink_rows(const struct wk_shrink *t, pair_fma_fn fma,
				      const uint32_t pair_bytes, const uint32_t rows,
				      const uint32_t cuts)
{
	size_t s_step = (size_t)rows * pair_bytes, i;
	__m512 acc[WK_TILE_ROWS][2][2];

	WK_UNROLL
	for (uint32_t r = 0; r < rows; r++) {
		WK_UNROLL
		for (uint32_t j = 0; j < 2 * cuts; j++)
			acc[r][j / 2][j % 2] =
				t->first ? _mm512_setzero_ps()
					 : _mm512_loadu_ps(t->acc + r * WK_SHRINK_ACC + j * 16);
	}
	for (i = 0; i + 2 <= t->pairs; i += 2) {
		shrink_pair(acc, t, i, 0, fma, pair_bytes, rows, cuts);
		shrink_pair(acc, t, i + 1, 1, fma, pair_bytes, rows, cuts);
	}
	if (i < t->pairs)
		shrink_pair(acc, t, i, 0, fma, pair_bytes, rows, cuts);
	WK_UNROLL
	for (uint32_t r = 0; r < rows; r++) {
		WK_UNROLL
		for (uint32_t c = 0; c < cuts; c++) {
			float *to = t->acc + r * WK_SHRINK_ACC + c * 32;
			__m512 sum = _mm512_add_ps(acc[r][c][0], acc[r][c][1]);

			if (t->last) {
				put_s(t->s + c * 8 * s_step + r * pair_bytes, s_step,
				      _mm512_mul_ps(sum, _mm512_set1_ps(t->scale[c])), pair_bytes);
				continue;
			}
			_mm512_storeu_ps(to, acc[r][c][0]);
			_mm512_storeu_ps(to + 16, acc[r][c][1]);
		}
	}
}

static ALWAYS_INLINE void shrink_cuts(const struct wk_shrink *t, pair_fma_fn fma,
				      const uint32_t pair_bytes, const uint32_t rows)
{
	if (t->cuts == 1)
		shrink_rows(t, fma, pair_bytes, rows, 1);
	else
		shrink_rows(t, fma, pair_bytes, rows, 2);
}

static ALWAYS_INLINE void shrink512(const struct wk_shrink *t, pair_fma_fn fma,
				    const uint32_t pair_bytes)
{
	switch (t->rows) {
	case 1:
		shrink_cuts(t, fma, pair_bytes, 1);
		break;
	case 2:
		shrink_cuts(t, fma, pair_bytes, 2);
		break;
	case 3:
		shrink_cuts(t, fma, pair_bytes, 3);
		break;
	case 4:
		shrink_cuts(t, fma, pair_bytes, 4);
		break;
	case 5:
		shrink_cuts(t, fma, pair_bytes, 5);
		break;
	default:
		shrink_cuts(t, fma, pair_bytes, 6);
	}
}

/* --- expand --------------------------------------------------------------------------------------*/

static ALWAYS_INLINE void expand_panel(const struct wk_expand *t, uint32_t panel, pair_fma_fn fma,
				       const uint32_t pair_bytes, const uint32_t rows,
				       const uint32_t halves)
{
	const char *s[2] = {t->half[0].s, t->half[1].s};
	float *sums = t->acc + panel * t->acc_step;
	__m512 acc[WK_TILE_ROWS][4];

	WK_UNROLL
	for (uint32_t r = 0; r < rows; r++) {
		WK_UNROLL
		for (uint32_t c = 0; c < 2 * halves; c++)
			acc[r][c] = t->first ? _mm512_setzero_ps()
					     : _mm512_loadu_ps(sums + r * WK_CPU_PANEL + c * 16);
	}
	for (uint32_t n = 0; n < t->n; n++) {
		const char *b[2], *far[2];

		WK_UNROLL
		for (uint32_t h = 0; h < halves; h++) {
			b[h] = t->half[h].base + t->half[h].offsets[n] + panel * t->b_step;
			far[h] = wk_expand_ahead(t, b[h], h * 1024, panel);
		}
		for (uint32_t i = 0; i < 8; i++) {
			WK_UNROLL
			for (uint32_t h = 0; h < halves; h++) {
				__m512i b0 = _mm512_loadu_si512(b[h] + i * 128);
				__m512i b1 = _mm512_loadu_si512(b[h] + i * 128 + 64);

				if (t->ahead) {
					_mm_prefetch(far[h] + i * 128, _MM_HINT_T0);
					_mm_prefetch(far[h] + i * 128 + 64, _MM_HINT_T0);
				}
				WK_UNROLL
				for (uint32_t r = 0; r < rows; r++) {
					const char *x = s[h] + r * pair_bytes;

					acc[r][2 * h] = fma(acc[r][2 * h], x, b0);
					acc[r][2 * h + 1] = fma(acc[r][2 * h + 1], x, b1);
				}
				s[h] += rows * pair_bytes;
			}
		}
	}
	WK_UNROLL
	for (uint32_t r = 0; r < rows; r++) {
		WK_UNROLL
		for (uint32_t c = 0; c < 2 * halves; c++)
			_mm512_storeu_ps(sums + r * WK_CPU_PANEL + c * 16, acc[r][c]);
	}
}

static ALWAYS_INLINE void expand_rows(const struct wk_expand *t, pair_fma_fn fma,
				      const uint32_t pair_bytes, const uint32_t rows,
				      const uint32_t halves)
{
	for (uint32_t i = 0; i < t->panels; i++)
		expand_panel(t, i, fma, pair_bytes, rows, halves);
}

static ALWAYS_INLINE void expand_halves(const struct wk_expand *t, pair_fma_fn fma,
					const uint32_t pair_bytes, const uint32_t rows)
{
	if (t->halves == 1)
		expand_rows(t, fma, pair_bytes, rows, 1);
	else
		expand_rows(t, fma, pair_bytes, rows, 2);
}

static ALWAYS_INLINE void expand512(const struct wk_expand *t, pair_fma_fn fma,
				    const uint32_t pair_bytes)
{
	switch (t->rows) {
	case 1:
		expand_halves(t, fma, pair_bytes, 1);
		break;
	case 2:
		expand_halves(t, fma, pair_bytes, 2);
		break;
	case 3:
		expand_halves(t, fma, pair_bytes, 3);
		break;
	case 4:
		expand_halves(t, fma, pair_bytes, 4);
		break;
	case 5:
		expand_halves(t, fma, pair_bytes, 5);
		break;
	default:
		expand_halves(t, fma, pair_bytes, 6);
	}
}

#endif
