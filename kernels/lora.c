/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lora.c - checks and bookkeeping of adapters that do not depend on a backend's layout.
 *
 * A wk_lora_parts is its backend's copy of what lora_new() was given, sorted so that the parts of
 * one site are next to one another and found by index. It owns all it points to.
 */
#include "kernels/lora.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/convert.h"

#define MAX_DIM	 (1u << 24)
#define MAX_RANK (1u << 16)
#define MAX_SITE (1u << 20)

const char *wk_segments_wrong(const struct wk_batch *b)
{
	uint32_t row = 0;

	if (b->n_loras > b->n_rows)
		return "more adapters than rows";
	for (uint32_t i = 0; i < b->n_segments; i++) {
		const struct wk_segment *s = &b->segments[i];

		if (s->row < row)
			return "the segments overlap or do not ascend";
		if (!s->n_rows || s->row >= b->n_rows || s->n_rows > b->n_rows - s->row)
			return "a segment is empty or past the rows";
		if (s->lora >= b->n_loras || !b->loras[s->lora])
			return "a segment names an adapter that is not there";
		row = s->row + s->n_rows;
	}
	return NULL;
}

/* --- an adapter's parts --------------------------------------------------------------------------*/

static const char *part_wrong(const struct wk_lora_part *p, size_t pool_bytes, size_t piece)
{
	if (!p->site || p->site > MAX_SITE)
		return "no such site";
	if (!p->n || p->n > MAX_DIM || p->col > MAX_DIM || !p->k || p->k > MAX_DIM || !p->rank ||
	    p->rank > MAX_RANK)
		return "not a size that is supported";
	for (uint32_t c = 0; c < wk_lora_cuts(p->rank); c++) {
		if (p->pieces[c] % WK_POOL_ALIGN)
			return "a piece is not aligned";
		if (p->pieces[c] > pool_bytes || piece > pool_bytes - p->pieces[c])
			return "a piece is past the pool";
	}
	return NULL;
}

static int by_site(const void *a, const void *b)
{
	const struct wk_lora_part *p = a, *q = b;

	if (p->site != q->site)
		return p->site < q->site ? -1 : 1;
	return (p->col > q->col) - (p->col < q->col);
}

/* Copy the offsets, and let the copied parts point to the copies. */
static void take_pieces(struct wk_lora_parts *p, uint32_t n_parts)
{
	uint64_t *to = p->pieces;

	for (uint32_t i = 0; i < n_parts; i++) {
		uint32_t cuts = wk_lora_cuts(p->parts[i].rank);

		memcpy(to, p->parts[i].pieces, cuts * sizeof(*to));
		p->parts[i].pieces = to;
		to += cuts;
	}
}

static const char *index_sites(struct wk_lora_parts *p, uint32_t n_parts)
{
	uint32_t cuts = 0;

	for (uint32_t i = 0; i < n_parts; i++) {
		const struct wk_lora_part *a = &p->parts[i], *before = i ? a - 1 : NULL;
		bool same = before && before->site == a->site;

		if (same && a->col - before->col < before->n)
			return "two parts of a site change the same output";
		cuts = (same ? cuts : 0) + wk_lora_cuts(a->rank);
		p->max_cuts = cuts > p->max_cuts ? cuts : p->max_cuts;
		p->first[a->site + 1]++;
	}
	for (uint32_t s = 0; s <= p->max_site; s++)
		p->first[s + 1] += p->first[s];
	return NULL;
}

int wk_lora_parts_init(struct wk_lora_parts *p, const struct wk_lora_part *parts, uint32_t n_parts,
		       size_t pool_bytes, const struct wk_backend *be,
		       size_t (*piece_bytes)(const struct wk_backend *be, uint32_t n, uint32_t k),
		       const char **ret_why)
{
	size_t pieces = 0;

	memset(p, 0, sizeof(*p));
	*ret_why = n_parts ? NULL : "it changes nothing";
	for (uint32_t i = 0; i < n_parts && !*ret_why; i++) {
		*ret_why =
			part_wrong(&parts[i], pool_bytes, piece_bytes(be, parts[i].n, parts[i].k));
		pieces += wk_lora_cuts(parts[i].rank);
		p->max_site = parts[i].site > p->max_site ? parts[i].site : p->max_site;
	}
	if (*ret_why)
		return -EINVAL;
	p->parts = malloc(n_parts * sizeof(*p->parts));
	p->pieces = malloc(pieces * sizeof(*p->pieces));
	p->first = calloc((size_t)p->max_site + 2, sizeof(*p->first));
	if (!p->parts || !p->pieces || !p->first) {
		wk_lora_parts_fini(p);
		return -ENOMEM;
	}
	memcpy(p->parts, parts, n_parts * sizeof(*parts));
	take_pieces(p, n_parts);
	qsort(p->parts, n_parts, sizeof(*p->parts), by_site);
	*ret_why = index_sites(p, n_parts);
	if (!*ret_why)
		return 0;
	wk_lora_parts_fini(p);
	return -EINVAL;
}

void wk_lora_parts_fini(struct wk_lora_parts *p)
{
	free(p->parts);
	free(p->pieces);
	free(p->first);
	memset(p, 0, sizeof(*p));
}

/* --- sources -------------------------------------------------------------------------------------*/

float wk_lora_element(const void *data, enum wk_dtype dtype, size_t i)
{
	const char *p = data;
	uint16_t h;
	float f;

	if (dtype == WK_F32) {
		memcpy(&f, p + 4 * i, 4);
		return f;
	}
	memcpy(&h, p + 2 * i, 2);
	return dtype == WK_BF16 ? wk_bf16_to_f32(h) : wk_f16_to_f32(h);
}

int wk_lora_not_finite(char ret_where[64], char matrix, uint32_t row, uint32_t col)
{
	snprintf(ret_where, 64, "%c, row %u, column %u", matrix, row, col);
	return -EDOM;
}

int wk_lora_source_check(const struct wk_lora_source *src, uint32_t first)
{
	if (!src->a || !src->b || (unsigned)src->a_dtype > WK_F16 ||
	    (unsigned)src->b_dtype > WK_F16)
		return -EINVAL;
	if (!src->n || src->n > MAX_DIM || !src->k || src->k > MAX_DIM || src->rank > MAX_RANK)
		return -EINVAL;
	return first % WK_LORA_CUT || first >= src->rank ? -EINVAL : 0;
}
