/* SPDX-License-Identifier: Apache-2.0 */
/* chain.c - a model of one layer. */
#include "tests/kernels/chain.h"

#include <stdlib.h>
#include <string.h>

#include "tests/tap.h"

#define HEADS 2u
#define DIM   16u
#define WIDTH (HEADS * DIM)
#define QKV   (WIDTH + 2 * DIM) /* one KV head */
#define RANK  20u
#define SITE  7u

static struct wk_weight *weight(struct kt *t, uint32_t n, uint32_t k, float scale)
{
	float *data = kt_alloc((size_t)n * k, sizeof(*data));
	struct wk_weight_part part = {data, WK_F32, n};
	struct wk_weight *w;

	kt_fill(data, (size_t)n * k, scale);
	if (t->ops->weight_new(t->be, &part, 1, k, WK_PACK_PLAIN, &w))
		bail_out(t->ops->last_error(t->be));
	free(data);
	return w;
}

static void make_pool(struct chain *c)
{
	const struct wk_ops *ops = c->t->ops;
	struct wk_kv_shape shape = {.n_layers = 1, .n_kv_heads = 1, .head_dim = DIM};

	shape.min_block_bytes = (uint32_t)ops->lora_piece_bytes(c->t->be, CHAIN_HIDDEN, WIDTH);
	c->block_bytes = ops->kv_block_bytes(c->t->be, &shape);
	if (ops->buf_new(c->t->be, CHAIN_BLOCKS * c->block_bytes, &c->pool) ||
	    ops->kv_bind(c->t->be, &shape, c->pool, CHAIN_BLOCKS))
		bail_out(ops->last_error(c->t->be));
}

static size_t piece_at(const struct chain *c, uint32_t lora, uint32_t piece)
{
	return (CHAIN_KV_BLOCK + lora * CHAIN_PIECES + piece) * c->block_bytes;
}

static void place_pieces(struct chain *c, uint32_t lora)
{
	static float a[RANK * WIDTH], b[CHAIN_HIDDEN * RANK];
	const struct wk_lora_source source = {a, b, WK_F32, WK_F32, RANK, CHAIN_HIDDEN, WIDTH};
	char *piece = kt_alloc(c->block_bytes, 1), where[64];

	kt_fill(a, RANK * WIDTH, 0.5f);
	kt_fill(b, CHAIN_HIDDEN * RANK, 0.5f);
	for (uint32_t i = 0; i < CHAIN_PIECES; i++) {
		if (c->t->ops->lora_pack(c->t->be, &source, i * WK_LORA_CUT, piece, where))
			bail_out("an adapter that cannot be packed");
		kt_write_bytes(c->t, c->pool, piece_at(c, lora, i), piece, c->block_bytes);
	}
	free(piece);
}

struct wk_lora *chain_lora(struct chain *c, uint32_t which)
{
	const uint64_t pieces[CHAIN_PIECES] = {piece_at(c, which, 0), piece_at(c, which, 1)};
	const struct wk_lora_part part = {.site = SITE,
					  .n = CHAIN_HIDDEN,
					  .k = WIDTH,
					  .rank = RANK,
					  .scale = 1,
					  .pieces = pieces};
	struct wk_lora *lora;

	if (c->t->ops->lora_new(c->t->be, &part, 1, &lora))
		bail_out(c->t->ops->last_error(c->t->be));
	return lora;
}

void chain_open(struct chain *c, struct kt *t)
{
	float ones[CHAIN_HIDDEN], freq[DIM / 2];
	const size_t rows = t->info.max_rows;

	memset(c, 0, sizeof(*c));
	c->t = t;
	kt_seed(4242);
	for (uint32_t i = 0; i < CHAIN_HIDDEN; i++)
		ones[i] = 1;
	for (uint32_t i = 0; i < DIM / 2; i++)
		freq[i] = 1.0f / (float)(1 + i);
	c->table = weight(t, CHAIN_VOCAB, CHAIN_HIDDEN, 1);
	c->qkv = weight(t, QKV, CHAIN_HIDDEN, 0.5f);
	c->o = weight(t, CHAIN_HIDDEN, WIDTH, 0.5f);
	c->head = weight(t, CHAIN_VOCAB, CHAIN_HIDDEN, 0.5f);
	make_pool(c);
	for (uint32_t i = 0; i < CHAIN_LORAS; i++) {
		place_pieces(c, i);
		c->loras[i] = chain_lora(c, i);
	}
	c->norm = kt_floats(t, ones, CHAIN_HIDDEN);
	c->inv_freq = kt_floats(t, freq, DIM / 2);
	c->h = kt_floats(t, NULL, rows * CHAIN_HIDDEN);
	c->x = kt_x(t, NULL, rows * CHAIN_HIDDEN);
	c->y = kt_floats(t, NULL, rows * QKV);
	c->q = kt_x(t, NULL, rows * CHAIN_HIDDEN);
	c->attended = kt_x(t, NULL, rows * CHAIN_HIDDEN);
	c->logits = kt_floats(t, NULL, rows * CHAIN_STRIDE);
}

void chain_close(struct chain *c)
{
	struct wk_buf *const bufs[] = {c->pool, c->norm, c->inv_freq, c->h,	c->x,
				       c->y,	c->q,	 c->attended, c->logits};
	struct wk_weight *const weights[] = {c->table, c->qkv, c->o, c->head};

	for (uint32_t i = 0; i < CHAIN_LORAS; i++)
		c->t->ops->lora_free(c->t->be, c->loras[i]);
	for (size_t i = 0; i < sizeof(weights) / sizeof(*weights); i++)
		c->t->ops->weight_free(c->t->be, weights[i]);
	for (size_t i = 0; i < sizeof(bufs) / sizeof(*bufs); i++)
		kt_free(c->t, bufs[i]);
}

static void norm(struct chain *c, uint32_t n_rows, bool out_rows_only)
{
	const struct wk_norm op = {.h = c->h,
				   .weight = c->norm,
				   .x = c->x,
				   .n_rows = n_rows,
				   .dim = CHAIN_HIDDEN,
				   .h_stride = CHAIN_HIDDEN,
				   .x_stride = CHAIN_HIDDEN,
				   .eps = 1e-5f,
				   .out_rows_only = out_rows_only};

	c->t->ops->norm(c->t->be, &op);
}

static void attention(struct chain *c, uint32_t n_rows)
{
	const struct wk_matmul qkv = {.w = c->qkv,
				      .x = c->x,
				      .out = c->y,
				      .n_rows = n_rows,
				      .x_stride = CHAIN_HIDDEN,
				      .out_stride = QKV,
				      .scale = 1};
	const struct wk_matmul o = {.w = c->o,
				    .x = c->attended,
				    .out = c->h,
				    .n_rows = n_rows,
				    .x_stride = CHAIN_HIDDEN,
				    .out_stride = CHAIN_HIDDEN,
				    .epilogue = WK_EPI_ADD,
				    .scale = 1,
				    .site = SITE};
	const struct wk_rope_append rope = {.y = c->y,
					    .q = c->q,
					    .pool = c->pool,
					    .inv_freq = c->inv_freq,
					    .rope_scale = 1,
					    .n_heads = HEADS,
					    .y_stride = QKV,
					    .q_stride = CHAIN_HIDDEN};
	const struct wk_attention attention = {.q = c->q,
					       .pool = c->pool,
					       .x = c->attended,
					       .n_heads = HEADS,
					       .q_stride = CHAIN_HIDDEN,
					       .x_stride = CHAIN_HIDDEN,
					       .scale = 0.25f};

	norm(c, n_rows, false);
	c->t->ops->matmul(c->t->be, &qkv);
	c->t->ops->rope_append(c->t->be, &rope);
	c->t->ops->attention(c->t->be, &attention);
	c->t->ops->matmul(c->t->be, &o);
}

int chain_forward(struct chain *c, const struct wk_batch *b, float scale, bool attend)
{
	uint32_t n = b->n_out ? b->n_out : b->n_rows;
	const struct wk_matmul head = {.w = c->head,
				       .x = c->x,
				       .out = c->logits,
				       .n_rows = n,
				       .x_stride = CHAIN_HIDDEN,
				       .out_stride = CHAIN_STRIDE,
				       .scale = 1};
	int r = c->t->ops->batch_set(c->t->be, b);

	if (r)
		return r;
	c->t->ops->embed(c->t->be, c->table, c->h, CHAIN_HIDDEN, scale);
	if (attend)
		attention(c, b->n_rows);
	norm(c, n, b->n_out > 0);
	c->t->ops->matmul(c->t->be, &head);
	return 0;
}

void chain_sample(struct chain *c, const struct wk_sample *rows, uint32_t n, struct wk_sampled *out)
{
	c->t->ops->sample(c->t->be, c->logits, CHAIN_STRIDE, CHAIN_VOCAB, rows, n, out);
}
