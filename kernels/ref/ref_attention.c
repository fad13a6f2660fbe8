/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ref_attention.c - KV blocks, rotation and attention of the reference backend.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/ref/ref.h"

static size_t block_floats(const struct wk_kv_shape *s)
{
	return (size_t)s->n_layers * 2 * s->n_kv_heads * WK_BLOCK_TOKENS * s->head_dim;
}

size_t ref_kv_block_bytes(const struct wk_backend *be, const struct wk_kv_shape *shape)
{
	size_t bytes = block_floats(shape) * sizeof(float);

	bytes = bytes < shape->min_block_bytes ? shape->min_block_bytes : bytes;
	return (bytes + WK_POOL_ALIGN - 1) / WK_POOL_ALIGN * WK_POOL_ALIGN;
}

float *ref_kv_row(const struct wk_backend *be, const struct wk_buf *pool, uint32_t block,
		  uint32_t layer, bool v, uint32_t head, uint32_t token)
{
	const struct wk_kv_shape *s = &be->kv;
	char *base = (char *)pool->data + block * ref_kv_block_bytes(be, s);
	size_t row = (((size_t)layer * 2 + v) * s->n_kv_heads + head) * WK_BLOCK_TOKENS + token;

	return (float *)base + row * s->head_dim;
}

int ref_kv_bind(struct wk_backend *be, const struct wk_kv_shape *shape, struct wk_buf *pool,
		uint32_t n_blocks)
{
	if (!shape->n_layers || !shape->n_kv_heads || shape->head_dim < 8 ||
	    shape->head_dim > 256 || shape->head_dim % 2)
		return ref_fail(be, -EINVAL, "unsupported KV shape: %u layers, %u heads of %u",
				shape->n_layers, shape->n_kv_heads, shape->head_dim);
	if (pool->bytes / ref_kv_block_bytes(be, shape) < n_blocks)
		return ref_fail(be, -EINVAL, "pool of %zu bytes is too small for %u blocks",
				pool->bytes, n_blocks);
	be->kv = *shape;
	be->n_blocks = n_blocks;
	be->pool = pool;
	return 0;
}

void ref_kv_zero(struct wk_backend *be, struct wk_buf *pool, const uint32_t *blocks, uint32_t n)
{
	size_t bytes = ref_kv_block_bytes(be, &be->kv);

	for (uint32_t i = 0; i < n; i++)
		memset((char *)pool->data + blocks[i] * bytes, 0, bytes);
}

void ref_kv_copy_rows(struct wk_backend *be, struct wk_buf *pool, uint32_t src, uint32_t dst,
		      uint32_t n_rows)
{
	const struct wk_kv_shape *s = &be->kv;

	ref_kv_zero(be, pool, &dst, 1);
	for (uint32_t layer = 0; layer < s->n_layers; layer++)
		for (int v = 0; v < 2; v++)
			for (uint32_t head = 0; head < s->n_kv_heads; head++)
				memcpy(ref_kv_row(be, pool, dst, layer, v, head, 0),
				       ref_kv_row(be, pool, src, layer, v, head, 0),
				       (size_t)n_rows * s->head_dim * sizeof(float));
}

static int check_copies(struct wk_backend *be, const struct wk_buf *pool,
			const struct wk_block_copy *copies, uint32_t n)
{
	if (be->error)
		return be->error;
	if (!be->n_blocks || pool != be->pool)
		return ref_fail(be, -EINVAL, "copies of blocks of a pool that is not bound");
	for (uint32_t i = 0; i < n; i++)
		if (copies[i].block >= be->n_blocks)
			return ref_fail(be, -EINVAL, "a copy of block %u of %u", copies[i].block,
					be->n_blocks);
	return 0;
}

int ref_kv_copy_out(struct wk_backend *be, const struct wk_buf *pool,
		    const struct wk_block_copy *copies, uint32_t n, uint64_t *ret_ticket)
{
	int r = check_copies(be, pool, copies, n);
	size_t bytes = ref_kv_block_bytes(be, &be->kv);

	if (r)
		return r;
	for (uint32_t i = 0; i < n; i++)
		memcpy(copies[i].host, (const char *)pool->data + copies[i].block * bytes, bytes);
	*ret_ticket = ++be->copy_ticket;
	return 0;
}

int ref_kv_copy_in(struct wk_backend *be, struct wk_buf *pool, const struct wk_block_copy *copies,
		   uint32_t n, uint64_t *ret_ticket)
{
	int r = check_copies(be, pool, copies, n);
	size_t bytes = ref_kv_block_bytes(be, &be->kv);

	if (r)
		return r;
	for (uint32_t i = 0; i < n; i++)
		memcpy((char *)pool->data + copies[i].block * bytes, copies[i].host, bytes);
	*ret_ticket = ++be->copy_ticket;
	return 0;
}

/* dst = src, normed over the head if there is a weight. */
static void head_norm(const float *src, const struct wk_buf *weight, uint32_t dim, float eps,
		      float *dst)
{
	double sum = 0;
	float inv;

	if (!weight) {
		memcpy(dst, src, dim * sizeof(float));
		return;
	}
	for (uint32_t i = 0; i < dim; i++)
		sum += (double)src[i] * src[i];
	inv = (float)(1.0 / sqrt(sum / dim + eps));
	for (uint32_t i = 0; i < dim; i++)
		dst[i] = ((const float *)weight->data)[i] * (src[i] * inv);
}

/* The angle is a product of two floats rounded to float, as the published implementations have it. */
static void rotate(float *x, uint32_t dim, uint32_t pos, const float *inv_freq, float scale)
{
	for (uint32_t i = 0; i < dim / 2; i++) {
		float angle = (float)pos * inv_freq[i];
		float c = cosf(angle) * scale, s = sinf(angle) * scale;
		float a = x[i], b = x[i + dim / 2];

		x[i] = a * c - b * s;
		x[i + dim / 2] = b * c + a * s;
	}
}

static void append_row(struct wk_backend *be, const struct wk_rope_append *op, uint32_t row,
		       uint32_t pos, uint32_t block)
{
	uint32_t dim = be->kv.head_dim, n_kv = be->kv.n_kv_heads;
	const float *y = (const float *)op->y->data + (size_t)row * op->y_stride;
	float *q = (float *)op->q->data + (size_t)row * op->q_stride;
	const float *inv_freq = op->inv_freq->data;
	uint32_t token = pos % WK_BLOCK_TOKENS;

	for (uint32_t i = 0; i < op->n_heads; i++) {
		head_norm(y + i * dim, op->q_norm, dim, op->norm_eps, q + i * dim);
		rotate(q + i * dim, dim, pos, inv_freq, op->rope_scale);
	}
	y += (size_t)op->n_heads * dim;
	for (uint32_t i = 0; i < n_kv; i++) {
		float *k = ref_kv_row(be, op->pool, block, op->layer, false, i, token);
		float *v = ref_kv_row(be, op->pool, block, op->layer, true, i, token);

		head_norm(y + i * dim, op->k_norm, dim, op->norm_eps, k);
		rotate(k, dim, pos, inv_freq, op->rope_scale);
		memcpy(v, y + (n_kv + i) * dim, dim * sizeof(float));
	}
}

void ref_rope_append(struct wk_backend *be, const struct wk_rope_append *op)
{
	for (uint32_t i = 0; i < be->batch.n_seqs; i++) {
		const struct wk_seq *s = &be->batch.seqs[i];

		for (uint32_t r = 0; r < s->n_rows; r++) {
			uint32_t pos = s->pos + r;
			uint32_t block = be->table[s->table + pos / WK_BLOCK_TOKENS];

			append_row(be, op, s->row + r, pos, block);
		}
	}
}

/* One head of one row: softmax over positions first..pos, in double. p is scratch. */
static void attend(struct wk_backend *be, const struct wk_attention *op, const uint32_t *table,
		   uint32_t kv_head, uint32_t first, uint32_t pos, const float *q, float *x,
		   double *p)
{
	uint32_t dim = be->kv.head_dim;
	double max = -INFINITY, sum = 0, acc[256] = {0};

	for (uint32_t t = first; t <= pos; t++) {
		const float *k = ref_kv_row(be, op->pool, table[t / WK_BLOCK_TOKENS], op->layer,
					    false, kv_head, t % WK_BLOCK_TOKENS);
		double s = 0;

		for (uint32_t i = 0; i < dim; i++)
			s += (double)q[i] * k[i];
		p[t - first] = s * op->scale;
		if (p[t - first] > max)
			max = p[t - first];
	}
	for (uint32_t t = first; t <= pos; t++) {
		const float *v = ref_kv_row(be, op->pool, table[t / WK_BLOCK_TOKENS], op->layer,
					    true, kv_head, t % WK_BLOCK_TOKENS);
		double e = exp(p[t - first] - max);

		sum += e;
		for (uint32_t i = 0; i < dim; i++)
			acc[i] += e * v[i];
	}
	for (uint32_t i = 0; i < dim; i++)
		x[i] = (float)(acc[i] / sum);
}

void ref_attention(struct wk_backend *be, const struct wk_attention *op)
{
	uint32_t dim = be->kv.head_dim, group = op->n_heads / be->kv.n_kv_heads;

	if (op->n_heads % be->kv.n_kv_heads) {
		ref_stick(be, -EINVAL, "attention: heads are no multiple of the KV heads");
		return;
	}
	for (uint32_t i = 0; i < be->batch.n_seqs; i++) {
		const struct wk_seq *s = &be->batch.seqs[i];
		double *p = malloc(((size_t)s->pos + s->n_rows) * sizeof(*p));

		if (!p) {
			ref_stick(be, -ENOMEM, "no memory for attention scores");
			return;
		}
		for (uint32_t r = 0; r < s->n_rows; r++) {
			uint32_t pos = s->pos + r, row = s->row + r;
			uint32_t first =
				op->window && pos + 1 > op->window ? pos + 1 - op->window : 0;
			const float *q = (const float *)op->q->data + (size_t)row * op->q_stride;
			float *x = (float *)op->x->data + (size_t)row * op->x_stride;

			for (uint32_t h = 0; h < op->n_heads; h++)
				attend(be, op, be->table + s->table, h / group, first, pos,
				       q + h * dim, x + h * dim, p);
		}
		free(p);
	}
}
