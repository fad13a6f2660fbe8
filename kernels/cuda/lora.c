/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lora.c - adapters: their pieces, their description in device memory, their part of a product.
 *
 * A piece (bf16): A [16][k padded to 8], then B [n][16]. An adapter's description is one buffer that
 * the kernels follow from a chunk of rows: a struct ka_lora, then the arrays that it points to.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/convert.h"
#include "kernels/cuda/cuda.h"

static uint32_t k_pad(uint32_t k)
{
	return (k + 7) & ~7u;
}

size_t cuda_lora_piece_bytes(const struct wk_backend *be, uint32_t n, uint32_t k)
{
	return ((size_t)n + k_pad(k)) * WK_LORA_CUT * sizeof(uint16_t);
}

static bool to_bf16(float f, uint16_t *ret)
{
	*ret = wk_f32_to_bf16(f);
	/* A large finite number may round to infinity. */
	return isfinite(wk_bf16_to_f32(*ret));
}

int cuda_lora_pack(const struct wk_backend *be, const struct wk_lora_source *src, uint32_t first,
		   void *dst, char ret_where[64])
{
	uint32_t pad = k_pad(src->k), ranks = src->rank - first;
	uint16_t *a = dst, *b = a + (size_t)WK_LORA_CUT * pad;
	int r = wk_lora_source_check(src, first);

	if (r)
		return r;
	ranks = ranks < WK_LORA_CUT ? ranks : WK_LORA_CUT;
	memset(dst, 0, cuda_lora_piece_bytes(be, src->n, src->k));
	for (uint32_t i = 0; i < ranks; i++)
		for (uint32_t c = 0; c < src->k; c++)
			if (!to_bf16(wk_lora_element(src->a, src->a_dtype,
						     (size_t)(first + i) * src->k + c),
				     &a[(size_t)i * pad + c]))
				return wk_lora_not_finite(ret_where, 'A', first + i, c);
	for (uint32_t j = 0; j < src->n; j++)
		for (uint32_t i = 0; i < ranks; i++)
			if (!to_bf16(wk_lora_element(src->b, src->b_dtype,
						     (size_t)j * src->rank + first + i),
				     &b[(size_t)j * WK_LORA_CUT + i]))
				return wk_lora_not_finite(ret_where, 'B', j, first + i);
	return 0;
}

/* --- in device memory --------------------------------------------------------------------------------*/

static uint32_t all_cuts(const struct wk_lora_parts *p, uint32_t n_parts)
{
	uint32_t cuts = 0;

	for (uint32_t i = 0; i < n_parts; i++)
		cuts += wk_lora_cuts(p->parts[i].rank);
	return cuts;
}

static int describe(struct wk_backend *be, struct wk_lora *lora, uint32_t n_parts)
{
	const struct wk_lora_parts *p = &lora->parts;
	uint32_t cuts = all_cuts(p, n_parts), sites = p->max_site + 2, cut = 0;
	size_t parts_at = sizeof(struct ka_lora);
	size_t pieces_at = parts_at + n_parts * sizeof(struct ka_part);
	size_t first_at, bytes;
	struct ka_lora *to;
	struct ka_part *parts;
	uint64_t *pieces;
	int r;

	pieces_at = (pieces_at + 7) & ~(size_t)7;
	first_at = pieces_at + cuts * sizeof(uint64_t);
	bytes = first_at + sites * sizeof(uint32_t);
	to = calloc(1, bytes);
	if (!to)
		return cuda_fail(be, ENOMEM, "no memory for an adapter");
	r = cuda_buf_new(be, bytes, &lora->device);
	if (r) {
		free(to);
		return r;
	}
	to->parts = (void *)(uintptr_t)(lora->device->at + parts_at);
	to->pieces = (void *)(uintptr_t)(lora->device->at + pieces_at);
	to->first = (void *)(uintptr_t)(lora->device->at + first_at);
	to->max_site = p->max_site;
	parts = (struct ka_part *)((char *)to + parts_at);
	pieces = (uint64_t *)((char *)to + pieces_at);
	for (uint32_t i = 0; i < n_parts; i++) {
		const struct wk_lora_part *q = &p->parts[i];
		uint32_t n = wk_lora_cuts(q->rank);

		parts[i] = (struct ka_part){q->col, q->n, q->k, n, q->scale, cut};
		memcpy(pieces + cut, q->pieces, n * sizeof(*pieces));
		cut += n;
	}
	memcpy((char *)to + first_at, p->first, sites * sizeof(uint32_t));
	r = cuda_buf_write(be, lora->device, 0, to, bytes);
	free(to);
	return r;
}

int cuda_lora_new(struct wk_backend *be, const struct wk_lora_part *parts, uint32_t n_parts,
		  struct wk_lora **ret)
{
	struct wk_lora *lora;
	const char *why = NULL;
	int r;

	if (!be->pool)
		return cuda_fail(be, EINVAL, "an adapter before there is a pool");
	lora = calloc(1, sizeof(*lora));
	if (!lora)
		return cuda_fail(be, ENOMEM, "no memory for an adapter");
	r = wk_lora_parts_init(&lora->parts, parts, n_parts, be->pool->bytes, be,
			       cuda_lora_piece_bytes, &why);
	if (r) {
		free(lora);
		return cuda_fail(be, -r, "adapter: %s", why ? why : "out of memory");
	}
	lora->max_cuts = lora->parts.max_cuts;
	r = describe(be, lora, n_parts);
	if (r) {
		cuda_lora_free(be, lora);
		return r;
	}
	*ret = lora;
	return 0;
}

void cuda_lora_free(struct wk_backend *be, struct wk_lora *lora)
{
	if (!lora)
		return;
	wk_lora_parts_fini(&lora->parts);
	cuda_buf_free(be, lora->device);
	free(lora);
}

/* --- in a product ------------------------------------------------------------------------------------*/

static bool fits(const struct wk_lora *lora, const struct wk_matmul *op, bool *ret_any)
{
	uint32_t n_parts;
	const struct wk_lora_part *p = wk_lora_parts_of(&lora->parts, op->site, &n_parts);

	*ret_any |= n_parts > 0;
	for (; n_parts; n_parts--, p++)
		if (p->k != op->w->k || p->col >= op->w->n || p->n > op->w->n - p->col)
			return false;
	return true;
}

bool cuda_lora_applies(struct wk_backend *be, const struct wk_matmul *op)
{
	bool any = false;

	if (!op->site || !be->n_chunks)
		return false;
	for (uint32_t i = 0; i < be->batch.n_loras; i++)
		if (!fits(be->loras[i], op, &any)) {
			cuda_stick(be, EINVAL, "matmul: an adapter's part does not fit the weight");
			return false;
		}
	return any &&
	       !cuda_reserve(be, &be->s,
			     (size_t)WK_MOST_ROWS * be->max_cuts * WK_LORA_CUT * sizeof(uint16_t));
}

static const struct ka_chunk *chunks(const struct wk_backend *be)
{
	return (const struct ka_chunk *)(uintptr_t)(be->arrays->at + be->at.chunks);
}

void cuda_lora_shrink(struct wk_backend *be, const struct wk_matmul *op)
{
	struct ka_shrink a = {.x = (const uint16_t *)(uintptr_t)op->x->at,
			      .pool = (const uint8_t *)(uintptr_t)be->pool->at,
			      .chunks = chunks(be),
			      .s = (uint16_t *)(uintptr_t)be->s->at,
			      .site = op->site,
			      .k = op->w->k,
			      .x_stride = op->x_stride,
			      .s_stride = be->max_cuts * WK_LORA_CUT};

	cuda_launch(be, K_wk_shrink, be->n_chunks, be->max_cuts, 512, 0, &a, sizeof(a));
}

void cuda_lora_expand(struct wk_backend *be, const struct wk_matmul *op, uint32_t first, uint32_t n,
		      cu_ptr out, uint32_t out_stride, float scale)
{
	struct ka_expand a = {.s = (const uint16_t *)(uintptr_t)be->s->at,
			      .pool = (const uint8_t *)(uintptr_t)be->pool->at,
			      .chunks = chunks(be),
			      .out = (float *)(uintptr_t)out,
			      .site = op->site,
			      .first = first,
			      .n = n,
			      .s_stride = be->max_cuts * WK_LORA_CUT,
			      .out_stride = out_stride,
			      .scale = scale};

	cuda_launch(be, K_wk_expand, cuda_div_up(n, 128), be->n_chunks, 128, 0, &a, sizeof(a));
}
