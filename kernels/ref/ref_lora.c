/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ref_lora.c - adapters of the reference backend.
 *
 * A piece: float a[WK_LORA_CUT][k], then b[n][WK_LORA_CUT], zero past the rank. Sums run in double,
 * as the products' do; s is rounded to fp32, which x is here.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/ref/ref.h"

size_t ref_lora_piece_bytes(const struct wk_backend *be, uint32_t n, uint32_t k)
{
	return ((size_t)n + k) * WK_LORA_CUT * sizeof(float);
}

int ref_lora_pack(const struct wk_backend *be, const struct wk_lora_source *src, uint32_t first,
		  void *dst, char ret_where[64])
{
	float *a = dst, *b = a + (size_t)WK_LORA_CUT * src->k;
	uint32_t ranks = src->rank - first < WK_LORA_CUT ? src->rank - first : WK_LORA_CUT;
	int r = wk_lora_source_check(src, first);

	if (r)
		return r;
	memset(dst, 0, ref_lora_piece_bytes(be, src->n, src->k));
	for (uint32_t i = 0; i < ranks; i++)
		for (uint32_t c = 0; c < src->k; c++) {
			float *to = &a[(size_t)i * src->k + c];

			*to = wk_lora_element(src->a, src->a_dtype,
					      (size_t)(first + i) * src->k + c);
			if (!isfinite(*to))
				return wk_lora_not_finite(ret_where, 'A', first + i, c);
		}
	for (uint32_t j = 0; j < src->n; j++)
		for (uint32_t i = 0; i < ranks; i++) {
			float *to = &b[(size_t)j * WK_LORA_CUT + i];

			*to = wk_lora_element(src->b, src->b_dtype,
					      (size_t)j * src->rank + first + i);
			if (!isfinite(*to))
				return wk_lora_not_finite(ret_where, 'B', j, first + i);
		}
	return 0;
}

int ref_lora_new(struct wk_backend *be, const struct wk_lora_part *parts, uint32_t n_parts,
		 struct wk_lora **ret)
{
	struct wk_lora *lora;
	const char *why = NULL;
	int r;

	if (!be->pool)
		return ref_fail(be, -EINVAL, "an adapter before there is a pool");
	lora = calloc(1, sizeof(*lora));
	if (!lora)
		return ref_fail(be, -ENOMEM, "no memory for an adapter");
	lora->pool = be->pool;
	r = wk_lora_parts_init(&lora->parts, parts, n_parts, be->pool->bytes, be,
			       ref_lora_piece_bytes, &why);
	if (r) {
		free(lora);
		return ref_fail(be, r, "adapter: %s", why ? why : "out of memory");
	}
	*ret = lora;
	return 0;
}

void ref_lora_free(struct wk_backend *be, struct wk_lora *lora)
{
	if (!lora)
		return;
	wk_lora_parts_fini(&lora->parts);
	free(lora);
}

const struct wk_lora *ref_lora_of_row(const struct wk_backend *be, uint32_t row)
{
	for (uint32_t i = 0; i < be->batch.n_segments; i++) {
		const struct wk_segment *s = &be->segments[i];

		if (row >= s->row && row - s->row < s->n_rows)
			return be->loras[s->lora];
	}
	return NULL;
}

/* s of the 16 ranks of one piece. */
static void shrink(const float *a, uint32_t k, float scale, const float *x, float *s)
{
	for (uint32_t i = 0; i < WK_LORA_CUT; i++) {
		double sum = 0;

		for (uint32_t c = 0; c < k; c++)
			sum += (double)a[(size_t)i * k + c] * x[c];
		s[i] = (float)(scale * sum);
	}
}

void ref_lora_row(const struct wk_lora *lora, uint32_t site, const float *x, double *delta)
{
	uint32_t n_parts;
	const struct wk_lora_part *p = wk_lora_parts_of(&lora->parts, site, &n_parts);

	for (; n_parts; n_parts--, p++)
		for (uint32_t c = 0; c < wk_lora_cuts(p->rank); c++) {
			const float *a =
				(const float *)((const char *)lora->pool->data + p->pieces[c]);
			const float *b = a + (size_t)WK_LORA_CUT * p->k;
			float s[WK_LORA_CUT];

			shrink(a, p->k, p->scale, x, s);
			for (uint32_t j = 0; j < p->n; j++)
				for (uint32_t i = 0; i < WK_LORA_CUT; i++)
					delta[p->col + j] +=
						(double)s[i] * b[(size_t)j * WK_LORA_CUT + i];
		}
}

bool ref_lora_fits(const struct wk_lora *lora, uint32_t site, const struct wk_weight *w)
{
	uint32_t n_parts;
	const struct wk_lora_part *p = wk_lora_parts_of(&lora->parts, site, &n_parts);

	for (; n_parts; n_parts--, p++)
		if (p->k != w->k || p->col >= w->n || p->n > w->n - p->col)
			return false;
	return true;
}
