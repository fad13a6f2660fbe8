/* SPDX-License-Identifier: Apache-2.0 */
/*
 * forward.c - one pass of the decoder: a batch of rows in, logits of some of them out.
 *
 *	h = embed(tokens)
 *	each layer:	x = norm(h);  y = qkv x;  q, K, V = rotate(y);  x = attention(q, K, V)
 *			h += residual * (o x)
 *			x = norm(h);  f = silu(gate x) * (up x);  h += residual * (down f)
 *	logits = scale * head norm(h[out_rows])
 *
 * All of it is queued on the backend's stream; nothing here waits, and every row of a batch costs
 * the same work whatever sequence it is of. The four products of a layer name their site, so that
 * adapters take part for the rows in segments; embedding and head have none.
 */
#include <errno.h>

#include "daemon/engine/model/model_private.h"

static void norm(struct model *m, const struct wk_buf *weight, uint32_t n_rows, bool out_rows)
{
	const struct wk_norm op = {.h = m->h,
				   .weight = weight,
				   .x = m->x,
				   .n_rows = n_rows,
				   .dim = m->config.hidden,
				   .h_stride = m->h_stride,
				   .x_stride = m->x_stride,
				   .eps = m->config.norm_eps,
				   .out_rows_only = out_rows};

	m->ops->norm(m->be, &op);
}

static void attention(struct model *m, struct wk_buf *pool, const struct model_layer *y,
		      uint32_t layer, uint32_t n_rows)
{
	const struct model_config *c = &m->config;
	const struct wk_matmul qkv = {.w = y->qkv,
				      .x = m->x,
				      .out = m->y,
				      .bias = y->qkv_bias,
				      .n_rows = n_rows,
				      .x_stride = m->x_stride,
				      .out_stride = m->y_stride,
				      .epilogue = WK_EPI_STORE,
				      .scale = 1,
				      .site = MODEL_SITE(layer, MODEL_SITE_QKV)};
	const struct wk_rope_append rope = {.y = m->y,
					    .q = m->q,
					    .pool = pool,
					    .q_norm = y->q_norm,
					    .k_norm = y->k_norm,
					    .inv_freq = m->inv_freq,
					    .norm_eps = c->norm_eps,
					    .rope_scale = m->rope_scale,
					    .layer = layer,
					    .n_heads = c->n_heads,
					    .y_stride = m->y_stride,
					    .q_stride = m->q_stride};
	const struct wk_attention attn = {.q = m->q,
					  .pool = pool,
					  .x = m->x,
					  .layer = layer,
					  .n_heads = c->n_heads,
					  .q_stride = m->q_stride,
					  .x_stride = m->x_stride,
					  .window = layer >= c->window_from_layer ? c->window : 0,
					  .scale = c->attention_scale};
	const struct wk_matmul o = {.w = y->o,
				    .x = m->x,
				    .out = m->h,
				    .bias = y->o_bias,
				    .n_rows = n_rows,
				    .x_stride = m->x_stride,
				    .out_stride = m->h_stride,
				    .epilogue = WK_EPI_ADD,
				    .scale = c->residual_scale,
				    .site = MODEL_SITE(layer, MODEL_SITE_O)};

	norm(m, y->attn_norm, n_rows, false);
	m->ops->matmul(m->be, &qkv);
	m->ops->rope_append(m->be, &rope);
	m->ops->attention(m->be, &attn);
	m->ops->matmul(m->be, &o);
}

static void mlp(struct model *m, const struct model_layer *y, uint32_t layer, uint32_t n_rows)
{
	const struct wk_matmul gate_up = {.w = y->gate_up,
					  .x = m->x,
					  .out = m->ffn,
					  .n_rows = n_rows,
					  .x_stride = m->x_stride,
					  .out_stride = m->ffn_stride,
					  .epilogue = WK_EPI_SWIGLU,
					  .scale = 1,
					  .site = MODEL_SITE(layer, MODEL_SITE_GATE_UP)};
	const struct wk_matmul down = {.w = y->down,
				       .x = m->ffn,
				       .out = m->h,
				       .n_rows = n_rows,
				       .x_stride = m->ffn_stride,
				       .out_stride = m->h_stride,
				       .epilogue = WK_EPI_ADD,
				       .scale = m->config.residual_scale,
				       .site = MODEL_SITE(layer, MODEL_SITE_DOWN)};

	norm(m, y->mlp_norm, n_rows, false);
	m->ops->matmul(m->be, &gate_up);
	m->ops->matmul(m->be, &down);
}

/* Logits of the batch's out_rows. At most WK_MAX_OUT rows are kept, so one product makes them. */
static void logits(struct model *m, uint32_t n_out)
{
	const struct wk_matmul head = {.w = m->head ? m->head : m->embed,
				       .x = m->x,
				       .out = m->logits,
				       .n_rows = n_out,
				       .x_stride = m->x_stride,
				       .out_stride = m->logits_stride,
				       .epilogue = WK_EPI_STORE,
				       .scale = m->config.logits_scale};

	norm(m, m->final_norm, n_out, true);
	m->ops->matmul(m->be, &head);
}

int model_forward(struct model *m, struct wk_buf *pool, const struct wk_batch *batch)
{
	int r;

	if (batch->n_out > WK_MAX_OUT)
		return -EINVAL;
	m->n_rows = 0;
	r = m->ops->batch_set(m->be, batch);
	if (r)
		return r;
	m->ops->embed(m->be, m->embed, m->h, m->h_stride, m->config.embedding_scale);
	for (uint32_t i = 0; i < m->config.n_layers; i++) {
		attention(m, pool, &m->layers[i], i, batch->n_rows);
		mlp(m, &m->layers[i], i, batch->n_rows);
	}
	if (batch->n_out)
		logits(m, batch->n_out);
	m->n_rows = batch->n_rows;
	return 0;
}

const struct wk_buf *model_logits(const struct model *m, uint32_t *ret_stride)
{
	*ret_stride = m->logits_stride;
	return m->logits;
}

/*
 * The residual stream of the pass still stands in h. A batch that differs in its out_rows alone
 * would name them to the norm; its tokens and blocks are not looked at again, so that any valid
 * ones do, and the caller's need not be kept.
 */
int model_logits_of(struct model *m, const uint32_t *rows, uint32_t n_rows)
{
	static const uint32_t zeros[WK_MOST_ROWS]; /* tokens, and block numbers */
	const struct wk_seq seq = {.n_rows = m->n_rows};
	const struct wk_batch batch = {.n_rows = m->n_rows,
				       .n_seqs = 1,
				       .n_table =
					       (m->n_rows + WK_BLOCK_TOKENS - 1) / WK_BLOCK_TOKENS,
				       .n_out = n_rows,
				       .tokens = zeros,
				       .seqs = &seq,
				       .block_table = zeros,
				       .out_rows = rows};
	int r;

	if (!m->n_rows || !n_rows || n_rows > WK_MAX_OUT)
		return -EINVAL;
	r = m->ops->batch_set(m->be, &batch);
	if (!r)
		logits(m, n_rows);
	return r;
}

/* Keys that n rows after `pos` positions attend to, all together. */
static double keys_of(uint32_t n, uint32_t pos, uint32_t window)
{
	uint32_t free = n; /* rows that the window does not cut: pos + r + 1 <= window */

	if (window)
		free = pos >= window ? 0 : window - pos < n ? window - pos : n;
	return (double)free * pos + 0.5 * free * (free + 1.0) + (double)(n - free) * window;
}

double model_flops(const struct model_config *c, uint32_t n_rows, uint32_t pos, uint32_t n_out)
{
	const double q = (double)c->n_heads * c->head_dim, kv = (double)c->n_kv_heads * c->head_dim;
	double dense = 2 * c->hidden * (q + 2 * kv) + 2 * q * c->hidden + 6.0 * c->hidden * c->ffn;
	double flops = dense * n_rows * c->n_layers + 2.0 * c->hidden * c->vocab * n_out;
	uint32_t whole = c->window_from_layer < c->n_layers ? c->window_from_layer : c->n_layers;

	/* Scores and values. */
	flops += 4 * q * whole * keys_of(n_rows, pos, 0);
	flops += 4 * q * (c->n_layers - whole) * keys_of(n_rows, pos, c->window);
	return flops;
}
