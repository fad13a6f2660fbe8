/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rope.c - after the q/k/v product: head norms, rotation, q to x, K and V into the pool.
 *
 * The angles of a step's rows are computed once, in the first layer, and kept while positions,
 * frequencies and scale stay what they were. A row is worked on by itself, so nothing about it
 * depends on its neighbours; rows are divided among threads by sixteen, that two threads seldom
 * write to one KV block, or by two where each is a sequence's only row and has a block of its own.
 */
#include <errno.h>
#include <math.h>

#include "kernels/cpu/attention.h"

#define PROMPT_CHUNK 16u /* rows */
#define DECODE_CHUNK 2u

struct job {
	struct wk_backend *be;
	const struct wk_rope_append *op;
	const struct wk_attn_state *st;
	uint32_t chunk_rows;
	uint32_t block[WK_MAX_ROWS]; /* KV block of each row */
	uint32_t pos[WK_MAX_ROWS];
};

static uint32_t half_pad(uint32_t dim)
{
	return (dim / 2 + 15) / 16 * 16;
}

static void fill_angles(struct wk_attn_state *st)
{
	uint32_t pad = half_pad(st->dim);

	for (uint32_t r = 0; r < st->n_rows; r++) {
		float *c = st->angles + (size_t)r * 2 * pad, *s = c + pad;

		/* The angle is rounded to float, as the published implementations have it. */
		for (uint32_t i = 0; i < st->dim / 2; i++) {
			float angle = (float)st->pos[r] * st->inv_freq[i];

			c[i] = cosf(angle) * st->scale;
			s[i] = sinf(angle) * st->scale;
		}
	}
}

static bool update_angles(struct wk_backend *be, struct wk_attn_state *st,
			  const struct wk_rope_append *op, const uint32_t *pos)
{
	uint32_t dim = be->kv.head_dim, n = be->batch.n_rows;
	size_t freq_bytes = dim / 2 * sizeof(float);

	if (st->dim == dim && st->n_rows == n && st->scale == op->rope_scale &&
	    !memcmp(st->pos, pos, n * sizeof(*pos)) &&
	    !memcmp(st->inv_freq, op->inv_freq->host, freq_bytes))
		return true;
	st->n_rows = 0;
	st->angles = wk_attn_room(be, st->angles, &st->angles_bytes,
				  (size_t)WK_MAX_ROWS * 2 * half_pad(dim) * sizeof(float));
	if (!st->angles)
		return false;
	st->dim = dim;
	st->n_rows = n;
	st->scale = op->rope_scale;
	memcpy(st->pos, pos, n * sizeof(*pos));
	memcpy(st->inv_freq, op->inv_freq->host, freq_bytes);
	fill_angles(st);
	return true;
}

static void store_k(char *kv, const uint16_t *k, uint32_t dim, uint32_t key)
{
	for (uint32_t i = 0; i < dim / 2; i++)
		memcpy(kv + (size_t)i * 64 + key * 4, k + 2 * i, 4);
}

static void store_v(char *kv, const uint16_t *v, const struct wk_kv_shape *s, uint32_t key)
{
	uint16_t *dst = (uint16_t *)(kv + wk_kv_k_bytes(s)) +
			(size_t)(key / 2) * wk_dim_pad(s->head_dim) * 2 + key % 2;

	for (uint32_t d = 0; d < s->head_dim; d++)
		dst[2 * d] = v[d];
}

static void rope_row(const struct job *job, uint32_t r)
{
	struct wk_backend *be = job->be;
	const struct wk_rope_append *op = job->op;
	uint32_t dim = be->kv.head_dim, n_kv = be->kv.n_kv_heads, key = job->pos[r] % 16;
	const float *y = (const float *)op->y->host + (size_t)r * op->y_stride;
	uint16_t *q = (uint16_t *)op->q->host + (size_t)r * op->q_stride;
	uint16_t tmp[WK_HEAD_DIM_MAX + 16];
	struct wk_rope_head h = {.dim = dim, .eps = op->norm_eps};

	h.cos = job->st->angles + (size_t)r * 2 * half_pad(dim);
	h.sin = h.cos + half_pad(dim);
	h.norm = op->q_norm ? op->q_norm->host : NULL;
	for (uint32_t i = 0; i < op->n_heads; i++) {
		h.y = y + (size_t)i * dim;
		be->attn->rope(&h, tmp);
		memcpy(q + (size_t)i * dim, tmp, dim * sizeof(*q));
	}
	y += (size_t)op->n_heads * dim;
	h.norm = op->k_norm ? op->k_norm->host : NULL;
	for (uint32_t i = 0; i < n_kv; i++) {
		char *kv = wk_kv_head(be, op->pool, job->block[r], op->layer, i);

		h.y = y + (size_t)i * dim;
		be->attn->rope(&h, tmp);
		store_k(kv, tmp, dim, key);
		be->attn->round(y + (size_t)(n_kv + i) * dim, tmp, dim);
		store_v(kv, tmp, &be->kv, key);
	}
}

static void rope_chunk(void *arg, uint32_t chunk, uint32_t thread)
{
	const struct job *job = arg;
	uint32_t n = job->be->batch.n_rows, from = chunk * job->chunk_rows;

	for (uint32_t r = from; r < n && r < from + job->chunk_rows; r++)
		rope_row(job, r);
}

void wk_cpu_rope_append(struct wk_backend *be, const struct wk_rope_append *op)
{
	struct wk_attn_state *st = wk_attn_state_get(be);
	const struct wk_batch *b = &be->batch;
	struct job job = {.be = be, .op = op, .st = st};

	if (!st || be->sticky)
		return;
	if (!be->kv_blocks || op->layer >= be->kv.n_layers) {
		wk_cpu_stick(be, EINVAL, "rope_append: no KV pool, or no layer %u", op->layer);
		return;
	}
	for (uint32_t i = 0; i < b->n_seqs; i++)
		for (uint32_t r = 0; r < b->seqs[i].n_rows; r++) {
			uint32_t row = b->seqs[i].row + r, pos = b->seqs[i].pos + r;

			job.pos[row] = pos;
			job.block[row] = b->block_table[b->seqs[i].table + pos / WK_BLOCK_TOKENS];
		}
	job.chunk_rows = b->n_seqs == b->n_rows ? DECODE_CHUNK : PROMPT_CHUNK;
	if (update_angles(be, st, op, job.pos))
		wk_pool_run(be->pool, rope_chunk, &job,
			    (b->n_rows + job.chunk_rows - 1) / job.chunk_rows);
}
