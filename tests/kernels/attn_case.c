/* SPDX-License-Identifier: Apache-2.0 */
/* attn_case.c - one layer of attention, as a backend computes it and as a formula in double. */
#include "tests/kernels/attn_case.h"

#include <math.h>

#include "tests/tap.h"

static uint32_t width(const struct attn_case *c)
{
	return (c->n_heads + 2 * c->n_kv) * c->dim;
}

void attn_case_init(struct attn_case *c, uint64_t seed)
{
	kt_seed(seed);
	for (uint32_t s = 0; s < c->n_seqs; s++) {
		c->y[s] = kt_alloc((size_t)c->len[s] * width(c), sizeof(float));
		kt_fill(c->y[s], (size_t)c->len[s] * width(c), 1.5f);
	}
	c->norm_q = kt_alloc(c->dim, sizeof(float));
	c->norm_k = kt_alloc(c->dim, sizeof(float));
	c->inv_freq = kt_alloc(c->dim / 2, sizeof(float));
	kt_fill(c->norm_q, c->dim, 2);
	kt_fill(c->norm_k, c->dim, 2);
	for (uint32_t i = 0; i < c->dim / 2; i++)
		c->inv_freq[i] = (float)pow(10000, -2.0 * i / c->dim);
}

void attn_case_fini(struct attn_case *c)
{
	for (uint32_t s = 0; s < c->n_seqs; s++)
		free(c->y[s]);
	free(c->norm_q);
	free(c->norm_k);
	free(c->inv_freq);
}

/* --- the formula ---------------------------------------------------------------------------------*/

/* src normed and rotated. The angle is a float product: that is part of the contract. */
static void rope(const struct attn_case *c, const float *src, const float *norm, uint32_t pos,
		 double *dst)
{
	double sum = 0, inv = 1;
	uint32_t half = c->dim / 2;

	for (uint32_t i = 0; i < c->dim; i++)
		sum += (double)src[i] * src[i];
	if (c->norms)
		inv = 1 / sqrt(sum / c->dim + 1e-5);
	for (uint32_t i = 0; i < half; i++) {
		float angle = (float)pos * c->inv_freq[i];
		double cs = cos(angle) * c->rope_scale, sn = sin(angle) * c->rope_scale;
		double a = src[i] * inv * (c->norms ? norm[i] : 1);
		double b = src[i + half] * inv * (c->norms ? norm[i + half] : 1);

		dst[i] = a * cs - b * sn;
		dst[i + half] = a * sn + b * cs;
	}
}

static void want_row(const struct attn_case *c, const float *y, const double *k, uint32_t pos,
		     double *s, double *ret)
{
	uint32_t w = width(c), group = c->n_heads / c->n_kv;
	uint32_t first = c->window && pos + 1 > c->window ? pos + 1 - c->window : 0;
	double q[256];

	for (uint32_t h = 0; h < c->n_heads; h++, ret += c->dim) {
		uint32_t kvh = h / group;
		double sum = 0;

		rope(c, y + (size_t)pos * w + h * c->dim, c->norm_q, pos, q);
		for (uint32_t t = first; t <= pos; t++) {
			s[t] = 0;
			for (uint32_t i = 0; i < c->dim; i++)
				s[t] += q[i] * k[((size_t)t * c->n_kv + kvh) * c->dim + i];
			s[t] = exp(s[t] * c->scale);
			sum += s[t];
		}
		for (uint32_t i = 0; i < c->dim; i++)
			ret[i] = 0;
		for (uint32_t t = first; t <= pos; t++) {
			const float *v = y + (size_t)t * w + (c->n_heads + c->n_kv + kvh) * c->dim;

			for (uint32_t i = 0; i < c->dim; i++)
				ret[i] += s[t] / sum * v[i];
		}
	}
}

double *attn_want(const struct attn_case *c, uint32_t seq)
{
	uint32_t len = c->len[seq];
	const float *y = c->y[seq];
	double *k = kt_alloc((size_t)len * c->n_kv * c->dim, sizeof(double));
	double *s = kt_alloc(len, sizeof(double));
	double *ret = kt_alloc((size_t)len * c->n_heads * c->dim, sizeof(double));

	for (uint32_t t = 0; t < len; t++)
		for (uint32_t h = 0; h < c->n_kv; h++)
			rope(c, y + (size_t)t * width(c) + (c->n_heads + h) * c->dim, c->norm_k, t,
			     k + ((size_t)t * c->n_kv + h) * c->dim);
	for (uint32_t t = 0; t < len; t++)
		want_row(c, y, k, t, s, ret + (size_t)t * c->n_heads * c->dim);
	free(k);
	free(s);
	return ret;
}

/* --- the backend ---------------------------------------------------------------------------------*/

struct runner {
	struct kt *t;
	const struct attn_case *c;
	struct wk_buf *pool, *y, *q, *x, *norm_q, *norm_k, *inv_freq;
	uint32_t n_blocks, first_block[ATTN_MAX_SEQS]; /* of each sequence, in the shuffled list */
	uint32_t *blocks;			       /* owner: a permutation */
	uint32_t done[ATTN_MAX_SEQS];		       /* positions computed */
	float *rows, *out;			       /* owner: staging of a step */
};

static void make_pool(struct runner *r, const struct attn_plan *p)
{
	const struct attn_case *c = r->c;
	struct wk_kv_shape shape = {c->n_layers, c->n_kv, c->dim, p->min_block_bytes};
	size_t bytes = r->t->ops->kv_block_bytes(r->t->be, &shape);
	uint32_t n = 3;

	for (uint32_t s = 0; s < c->n_seqs; s++) {
		r->first_block[s] = n;
		n += (c->len[s] + WK_BLOCK_TOKENS - 1) / WK_BLOCK_TOKENS;
	}
	r->n_blocks = n;
	r->blocks = kt_alloc(n, sizeof(*r->blocks));
	for (uint32_t i = 0; i < n; i++)
		r->blocks[i] = i;
	kt_seed(p->shuffle);
	for (uint32_t i = n - 1; p->shuffle && i; i--) {
		uint32_t j = kt_random(i + 1), b = r->blocks[i];

		r->blocks[i] = r->blocks[j];
		r->blocks[j] = b;
	}
	if (r->t->ops->buf_new(r->t->be, bytes * n, &r->pool) < 0 ||
	    r->t->ops->kv_bind(r->t->be, &shape, r->pool, n) < 0)
		bail_out(r->t->ops->last_error(r->t->be));
	if (p->poison_free)
		kt_fill_bytes(r->t, r->pool, 0xff, bytes * n);
}

/* Rows of sequence s in this step, after the batch's n_rows; grants it the blocks it needs. */
static void add_seq(struct runner *r, struct wk_batch *b, struct wk_seq *seq, uint32_t *table,
		    uint32_t s, uint32_t n)
{
	const struct attn_case *c = r->c;
	uint32_t end = r->done[s] + n;
	uint32_t have = (r->done[s] + 15) / 16, need = (end + 15) / 16;

	memcpy(r->rows + (size_t)b->n_rows * width(c), c->y[s] + (size_t)r->done[s] * width(c),
	       (size_t)n * width(c) * sizeof(float));
	*seq = (struct wk_seq){b->n_rows, n, r->done[s], b->n_table};
	memcpy(table + b->n_table, r->blocks + r->first_block[s], need * sizeof(*table));
	r->t->ops->kv_zero(r->t->be, r->pool, r->blocks + r->first_block[s] + have, need - have);
	b->n_rows += n;
	b->n_table += need;
	b->n_seqs++;
}

static void compute(struct runner *r, const struct wk_batch *b)
{
	const struct attn_case *c = r->c;
	struct kt *t = r->t;
	uint32_t qw = c->n_heads * c->dim;

	if (t->ops->buf_write(t->be, r->y, 0, r->rows,
			      (size_t)b->n_rows * width(c) * sizeof(float)) < 0 ||
	    t->ops->batch_set(t->be, b) < 0)
		bail_out(t->ops->last_error(t->be));
	t->ops->rope_append(t->be, &(struct wk_rope_append){.y = r->y,
							    .q = r->q,
							    .pool = r->pool,
							    .q_norm = c->norms ? r->norm_q : NULL,
							    .k_norm = c->norms ? r->norm_k : NULL,
							    .inv_freq = r->inv_freq,
							    .norm_eps = 1e-5f,
							    .rope_scale = c->rope_scale,
							    .layer = c->layer,
							    .n_heads = c->n_heads,
							    .y_stride = width(c),
							    .q_stride = qw});
	t->ops->attention(t->be, &(struct wk_attention){.q = r->q,
							.pool = r->pool,
							.x = r->x,
							.layer = c->layer,
							.n_heads = c->n_heads,
							.q_stride = qw,
							.x_stride = qw,
							.window = c->window,
							.scale = c->scale});
	kt_read_x(t, r->x, r->out, (size_t)b->n_rows * qw);
}

/* One step: as many sequences as the plan allows, each with up to a chunk. False: all done. */
static bool step(struct runner *r, const struct attn_plan *p, uint32_t *table, float **ret)
{
	const struct attn_case *c = r->c;
	uint32_t tokens[WK_MAX_ROWS] = {0}, who[ATTN_MAX_SEQS];
	struct wk_seq seqs[ATTN_MAX_SEQS];
	struct wk_batch b = {.tokens = tokens, .seqs = seqs, .block_table = table};
	uint32_t qw = c->n_heads * c->dim;

	for (uint32_t s = 0; s < c->n_seqs && b.n_rows < WK_MAX_ROWS; s++) {
		uint32_t left = c->len[s] - r->done[s], room = WK_MAX_ROWS - b.n_rows;
		uint32_t chunk = p->chunks[s] ? p->chunks[s] : p->chunk;
		uint32_t n = chunk && chunk < left ? chunk : left;

		if (!n || (p->max_seqs && b.n_seqs == p->max_seqs))
			continue;
		who[b.n_seqs] = s;
		add_seq(r, &b, &seqs[b.n_seqs], table, s, n < room ? n : room);
	}
	if (!b.n_rows)
		return false;
	compute(r, &b);
	for (uint32_t i = 0; i < b.n_seqs; i++) {
		uint32_t s = who[i];

		memcpy(ret[s] + (size_t)r->done[s] * qw, r->out + (size_t)seqs[i].row * qw,
		       (size_t)seqs[i].n_rows * qw * sizeof(float));
		r->done[s] += seqs[i].n_rows;
	}
	return true;
}

void attn_run(struct kt *t, const struct attn_case *c, const struct attn_plan *p, float **ret)
{
	struct runner r = {.t = t, .c = c};
	uint32_t qw = c->n_heads * c->dim, *table;
	struct wk_buf **bufs[] = {&r.pool, &r.y, &r.q, &r.x, &r.norm_q, &r.norm_k, &r.inv_freq};

	make_pool(&r, p);
	r.y = kt_floats(t, NULL, (size_t)WK_MAX_ROWS * width(c));
	r.q = kt_x(t, NULL, (size_t)WK_MAX_ROWS * qw);
	r.x = kt_x(t, NULL, (size_t)WK_MAX_ROWS * qw);
	r.norm_q = kt_floats(t, c->norm_q, c->dim);
	r.norm_k = kt_floats(t, c->norm_k, c->dim);
	r.inv_freq = kt_floats(t, c->inv_freq, c->dim / 2);
	r.rows = kt_alloc((size_t)WK_MAX_ROWS * width(c), sizeof(float));
	r.out = kt_alloc((size_t)WK_MAX_ROWS * qw, sizeof(float));
	table = kt_alloc(r.n_blocks, sizeof(*table));
	for (uint32_t s = 0; s < c->n_seqs; s++)
		ret[s] = kt_alloc((size_t)c->len[s] * qw, sizeof(float));
	while (step(&r, p, table, ret))
		;
	for (size_t i = 0; i < sizeof(bufs) / sizeof(bufs[0]); i++)
		kt_free(t, *bufs[i]);
	free(r.blocks);
	free(r.rows);
	free(r.out);
	free(table);
}

double attn_worst(const struct attn_case *c, float *got[ATTN_MAX_SEQS])
{
	const size_t width = (size_t)c->n_heads * c->dim;
	double worst = 0;

	for (uint32_t s = 0; s < c->n_seqs; s++) {
		double *want = attn_want(c, s);

		for (uint32_t r = 0; r < c->len[s]; r++)
			worst = fmax(worst, kt_error(got[s] + r * width, want + r * width, width));
		free(want);
		free(got[s]);
	}
	return worst;
}
