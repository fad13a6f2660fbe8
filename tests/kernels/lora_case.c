/* SPDX-License-Identifier: Apache-2.0 */
/* lora_case.c - see lora_case.h. */
#include "tests/kernels/lora_case.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/convert.h"
#include "tests/tap.h"

/* --- the numbers ---------------------------------------------------------------------------------*/

uint32_t lc_n_out(const struct lc_data *d)
{
	return d->epilogue == WK_EPI_SWIGLU ? d->n / 2 : d->n;
}

/*
 * Of either sign, over eight binades, so that another order of addition gives other bits; exact in
 * bf16 and in half.
 */
static void draw(float *f, size_t n, float scale)
{
	for (size_t i = 0; i < n; i++)
		f[i] = scale * (1 + (float)kt_random(128) / 128) / (float)(1 << kt_random(8)) *
		       (kt_random(2) ? 1 : -1);
}

static double dot(const float *a, const float *b, uint32_t n, double *ret_size)
{
	double sum = 0;

	*ret_size = 0;
	for (uint32_t i = 0; i < n; i++) {
		sum += (double)a[i] * b[i];
		*ret_size += fabs((double)a[i] * b[i]);
	}
	return sum;
}

/* Every row of x times every row of a matrix [n][k]. */
static void products(const struct lc_data *d, const float *m, uint32_t n, double scale,
		     double **ret, double **ret_size)
{
	*ret = kt_alloc((size_t)d->rows * n, sizeof(double));
	*ret_size = kt_alloc((size_t)d->rows * n, sizeof(double));
	for (uint32_t r = 0; r < d->rows; r++)
		for (uint32_t j = 0; j < n; j++)
			(*ret)[(size_t)r * n + j] =
				scale * dot(d->x + (size_t)r * d->k, m + (size_t)j * d->k, d->k,
					    &(*ret_size)[(size_t)r * n + j]);
}

void lc_data_init(struct lc_data *d)
{
	d->n = 0;
	for (uint32_t i = 0; i < d->n_parts; i++) {
		d->part_col[i] = d->n;
		d->n += d->part_n[i];
	}
	d->w = kt_alloc((size_t)d->n * d->k, sizeof(float));
	d->x = kt_alloc((size_t)d->rows * d->k, sizeof(float));
	d->h = kt_alloc((size_t)d->rows * lc_n_out(d), sizeof(float));
	d->b = kt_alloc(d->n, sizeof(float));
	draw(d->w, (size_t)d->n * d->k, 0.125f);
	draw(d->x, (size_t)d->rows * d->k, 1);
	draw(d->h, (size_t)d->rows * lc_n_out(d), 1);
	draw(d->b, d->n, 1);
	products(d, d->w, d->n, 1, &d->sum, &d->sum_size);
}

void lc_pair_init(struct lc_data *d, uint32_t adapter, uint32_t part, uint32_t rank,
		  enum wk_dtype dtype)
{
	struct lc_pair *p = &d->pairs[adapter][part];
	uint32_t n = d->part_n[part];

	*p = (struct lc_pair){.rank = rank, .scale = 0.75f, .dtype = dtype};
	p->a = kt_alloc((size_t)rank * d->k, sizeof(float));
	p->b = kt_alloc((size_t)rank * n, sizeof(float));
	draw(p->a, (size_t)rank * d->k, 0.25f);
	draw(p->b, (size_t)rank * n, 0.25f);
	products(d, p->a, rank, p->scale, &p->s, &p->s_size);
}

void lc_data_fini(struct lc_data *d)
{
	for (uint32_t i = 0; i < LC_MAX_ADAPTERS; i++)
		for (uint32_t p = 0; p < LC_MAX_PARTS; p++) {
			free(d->pairs[i][p].a);
			free(d->pairs[i][p].b);
			free(d->pairs[i][p].s);
			free(d->pairs[i][p].s_size);
		}
	free(d->w);
	free(d->sum);
	free(d->sum_size);
	free(d->x);
	free(d->h);
	free(d->b);
	memset(d, 0, sizeof(*d));
}

/* --- on a backend --------------------------------------------------------------------------------*/

/* A matrix as a file may have it: of any type, and at an odd address. Free ret - 1. */
static char *as_dtype(const float *f, size_t n, enum wk_dtype dtype)
{
	size_t elem = dtype == WK_F32 ? 4 : 2;
	char *data = (char *)kt_alloc(n * elem + 1, 1) + 1;

	for (size_t i = 0; i < n; i++) {
		uint16_t bf = wk_f32_to_bf16(f[i]);
		_Float16 half = (_Float16)f[i];

		memcpy(data + i * elem,
		       dtype == WK_F32	 ? (const void *)&f[i]
		       : dtype == WK_F16 ? (const void *)&half
					 : (const void *)&bf,
		       elem);
	}
	return data;
}

static void pack_pair(struct lc_rig *r, const struct lc_pair *p, uint32_t n, uint32_t *block,
		      uint64_t *pieces)
{
	uint32_t k = r->d->k;
	size_t bytes = r->t->ops->lora_piece_bytes(r->t->be, n, k);
	char *a = as_dtype(p->a, (size_t)p->rank * k, p->dtype), *dst = kt_alloc(bytes, 1);
	char *b = as_dtype(p->b, (size_t)p->rank * n, p->dtype), where[64];
	struct wk_lora_source src = {a, b, p->dtype, p->dtype, p->rank, n, k};

	for (uint32_t first = 0; first < p->rank; first += WK_LORA_CUT) {
		pieces[first / WK_LORA_CUT] = *block * r->block_bytes;
		if (r->t->ops->lora_pack(r->t->be, &src, first, dst, where) < 0 ||
		    r->t->ops->buf_write(r->t->be, r->pool, (*block)++ * r->block_bytes, dst,
					 bytes) < 0)
			bail_out("cannot pack a piece");
	}
	free(dst);
	free(a - 1);
	free(b - 1);
}

static void place_adapter(struct lc_rig *r, uint32_t adapter, uint32_t *block)
{
	const struct lc_data *d = r->d;
	struct wk_lora_part parts[LC_MAX_PARTS + 1];
	uint32_t n = 0;

	for (uint32_t i = d->n_parts; i-- > 0;) { /* the order of parts is free */
		const struct lc_pair *p = &d->pairs[adapter][i];
		uint64_t **pieces = &r->pieces[adapter][i];

		if (!p->rank)
			continue;
		*pieces = kt_alloc(p->rank, sizeof(**pieces));
		pack_pair(r, p, d->part_n[i], block, *pieces);
		parts[n++] = (struct wk_lora_part){.site = LC_SITE,
						   .col = d->part_col[i],
						   .n = d->part_n[i],
						   .k = d->k,
						   .rank = p->rank,
						   .scale = p->scale,
						   .pieces = *pieces};
	}
	/* And one of another site, which must take no part. */
	parts[n] = parts[0];
	parts[n++].site = LC_SITE + 1;
	if (r->t->ops->lora_new(r->t->be, parts, n, &r->loras[adapter]) < 0)
		bail_out(r->t->ops->last_error(r->t->be));
}

/* Blocks for all pieces, filled with NaN before the pieces are written. */
static void make_pool(struct lc_rig *r)
{
	const struct lc_data *d = r->d;
	const struct wk_ops *ops = r->t->ops;
	struct wk_kv_shape shape = {1, 1, 8, 0};
	uint32_t blocks = WK_MAX_ROWS / WK_BLOCK_TOKENS, block = 0;

	for (uint32_t i = 0; i < d->n_parts; i++) {
		size_t bytes = ops->lora_piece_bytes(r->t->be, d->part_n[i], d->k);

		if (bytes > shape.min_block_bytes)
			shape.min_block_bytes = (uint32_t)bytes;
		for (uint32_t a = 0; a < d->n_adapters; a++)
			blocks += (d->pairs[a][i].rank + WK_LORA_CUT - 1) / WK_LORA_CUT;
	}
	r->block_bytes = ops->kv_block_bytes(r->t->be, &shape);
	if (ops->buf_new(r->t->be, blocks * r->block_bytes, &r->pool) < 0 ||
	    ops->kv_bind(r->t->be, &shape, r->pool, blocks) < 0)
		bail_out(ops->last_error(r->t->be));
	kt_fill_bytes(r->t, r->pool, 0xff, blocks * r->block_bytes);
	block = WK_MAX_ROWS / WK_BLOCK_TOKENS;
	for (uint32_t a = 0; a < d->n_adapters; a++)
		place_adapter(r, a, &block);
}

void lc_open(struct lc_rig *r, struct kt *t, const struct lc_data *d)
{
	struct wk_weight_part parts[LC_MAX_PARTS];
	bool glu = d->epilogue == WK_EPI_SWIGLU;

	memset(r, 0, sizeof(*r));
	r->t = t;
	r->d = d;
	for (uint32_t i = 0; i < d->n_parts; i++)
		parts[i] = (struct wk_weight_part){d->w + (size_t)d->part_col[i] * d->k, WK_F32,
						   d->part_n[i]};
	if (t->ops->weight_new(t->be, parts, d->n_parts, d->k,
			       glu ? WK_PACK_GATE_UP : WK_PACK_PLAIN, &r->w) < 0)
		bail_out(t->ops->last_error(t->be));
	make_pool(r);
	r->x_stride = (d->k + 31) / 32 * 32 + 32;
	r->out_stride = lc_n_out(d) + 5;
	r->x = kt_x(t, NULL, (size_t)WK_MAX_ROWS * r->x_stride);
	r->out = kt_floats(t, NULL, (size_t)WK_MAX_ROWS * r->out_stride);
	r->bias = kt_floats(t, d->b, d->n);
}

void lc_close(struct lc_rig *r)
{
	for (uint32_t i = 0; i < LC_MAX_ADAPTERS; i++) {
		r->t->ops->lora_free(r->t->be, r->loras[i]);
		for (uint32_t p = 0; p < LC_MAX_PARTS; p++)
			free(r->pieces[i][p]);
	}
	r->t->ops->weight_free(r->t->be, r->w);
	kt_free(r->t, r->pool);
	kt_free(r->t, r->x);
	kt_free(r->t, r->out);
	kt_free(r->t, r->bias);
}

/* --- a run ---------------------------------------------------------------------------------------*/

static void set_batch(struct lc_rig *r, const uint32_t *adapters, uint32_t m)
{
	static const uint32_t zeros[WK_MAX_ROWS];
	struct wk_seq seq = {0, m, 0, 0};
	struct wk_segment segs[WK_MAX_ROWS];
	const struct wk_lora *loras[LC_MAX_ADAPTERS] = {NULL};
	uint32_t n = 0, index[LC_MAX_ADAPTERS], n_loras = 0;
	struct wk_batch b = {.n_rows = m,
			     .n_seqs = 1,
			     .n_table = (m + WK_BLOCK_TOKENS - 1) / WK_BLOCK_TOKENS,
			     .tokens = zeros,
			     .seqs = &seq,
			     .block_table = zeros};

	memset(index, 0xff, sizeof(index));
	for (uint32_t i = 0; i < m; i++) {
		uint32_t a = adapters[i];

		if (a == LC_BASE)
			continue;
		if (index[a] == UINT32_MAX) {
			index[a] = n_loras;
			loras[n_loras++] = r->loras[a];
		}
		if (i && adapters[i - 1] == a)
			segs[n - 1].n_rows++;
		else
			segs[n++] = (struct wk_segment){i, 1, index[a]};
	}
	b.n_segments = n;
	b.segments = segs;
	b.n_loras = n_loras;
	b.loras = loras;
	if (r->t->ops->batch_set(r->t->be, &b) < 0)
		bail_out(r->t->ops->last_error(r->t->be));
	/* What batch_set was given need not outlive it. */
	memset(segs, 0xff, sizeof(segs));
	memset(loras, 0xff, sizeof(loras));
}

static void put_x(struct lc_rig *r, const uint32_t *rows, uint32_t m)
{
	uint32_t elem = r->t->info.x_bytes, k = r->d->k;
	size_t bytes = (size_t)WK_MAX_ROWS * r->x_stride * elem;
	char *x = kt_alloc(bytes, 1);

	memset(x, 0xff, bytes);
	for (uint32_t i = 0; i < m; i++)
		for (uint32_t c = 0; c < k; c++) {
			float f = r->d->x[(size_t)rows[i] * k + c];
			uint16_t h = wk_f32_to_bf16(f);

			memcpy(x + ((size_t)i * r->x_stride + c) * elem,
			       elem == 4 ? (void *)&f : (void *)&h, elem);
		}
	kt_write_bytes(r->t, r->x, 0, x, bytes);
	free(x);
}

/* Columns of the output as floats; false if the bytes past them are not 0xee any more. */
static bool get_out(struct lc_rig *r, uint32_t m, uint32_t n, float *got)
{
	bool glu = r->d->epilogue == WK_EPI_SWIGLU;
	uint32_t elem = glu ? r->t->info.x_bytes : 4;
	size_t bytes = (size_t)m * r->out_stride * elem;
	char *out = kt_alloc(bytes, 1);
	bool kept = true;

	kt_read_bytes(r->t, r->out, 0, out, bytes);
	for (uint32_t i = 0; i < m; i++) {
		const char *row = out + (size_t)i * r->out_stride * elem;

		for (uint32_t c = 0; c < n; c++) {
			uint16_t h;

			memcpy(&h, row + c * elem, 2);
			if (elem == 4)
				memcpy(&got[i * n + c], row + c * elem, 4);
			else
				got[i * n + c] = wk_bf16_to_f32(h);
		}
		for (uint32_t b = n * elem; b < r->out_stride * elem; b++)
			kept = kept && row[b] == (char)0xee;
	}
	free(out);
	return kept;
}

bool lc_run(struct lc_rig *r, const uint32_t *rows, const uint32_t *adapters, uint32_t m,
	    uint32_t col, uint32_t n_cols, float *got)
{
	const struct lc_data *d = r->d;
	uint32_t n_out = lc_n_out(d), n = n_cols ? n_cols : n_out - col;
	size_t bytes = (size_t)WK_MAX_ROWS * r->out_stride * sizeof(float);
	float *out = kt_alloc(bytes, 1);

	set_batch(r, adapters, m);
	put_x(r, rows, m);
	memset(out, 0xee, bytes);
	for (uint32_t i = 0; i < m && d->epilogue == WK_EPI_ADD; i++)
		memcpy(out + (size_t)i * r->out_stride, d->h + (size_t)rows[i] * n_out + col,
		       n * sizeof(float));
	kt_write_bytes(r->t, r->out, 0, out, bytes);
	free(out);
	r->t->ops->matmul(r->t->be, &(struct wk_matmul){.w = r->w,
							.x = r->x,
							.out = r->out,
							.bias = d->bias ? r->bias : NULL,
							.n_rows = m,
							.x_stride = r->x_stride,
							.out_stride = r->out_stride,
							.col = col,
							.n_cols = n_cols,
							.epilogue = d->epilogue,
							.scale = 0.5f,
							.site = LC_SITE});
	kt_sync(r->t);
	return get_out(r, m, n, got);
}

/* --- what it should be ---------------------------------------------------------------------------*/

/* Stacked output j with what an adapter adds, and how far fp32 sums and a rounded s may be off. */
static double output(const struct lc_data *d, uint32_t row, uint32_t adapter, uint32_t j, bool bf16,
		     double *ret_tol)
{
	double sum = d->sum[(size_t)row * d->n + j];
	uint32_t part = 0;
	const struct lc_pair *p;

	*ret_tol = d->sum_size[(size_t)row * d->n + j] * 1e-6;
	while (j - d->part_col[part] >= d->part_n[part])
		part++;
	if (adapter == LC_BASE || !d->pairs[adapter][part].rank)
		return sum;
	p = &d->pairs[adapter][part];
	for (uint32_t i = 0; i < p->rank; i++) {
		double b = p->b[(size_t)(j - d->part_col[part]) * p->rank + i];
		double s = p->s[(size_t)row * p->rank + i];
		double s_size = p->s_size[(size_t)row * p->rank + i];

		sum += b * s;
		*ret_tol += fabs(b) * (s_size * 1e-6 + fabs(s) * (bf16 ? 1.0 / 255 : 1e-7));
		*ret_tol += fabs(b * s) * 1e-6;
	}
	return sum;
}

double lc_want(const struct lc_data *d, uint32_t row, uint32_t adapter, uint32_t j, bool bf16,
	       double *ret_tol)
{
	double tol, up_tol, up, sum = output(d, row, adapter, j, bf16, &tol);

	if (d->epilogue == WK_EPI_SWIGLU) {
		up = output(d, row, adapter, d->n / 2 + j, bf16, &up_tol);
		/* The derivative of silu is never above 1.1. */
		*ret_tol = 1.1 * tol * (fabs(up) + up_tol) + up_tol * fabs(sum);
		sum = sum / (1 + exp(-sum)) * up;
		*ret_tol += fabs(sum) * (bf16 ? 1.0 / 255 : 1e-5);
		return sum;
	}
	sum = 0.5 * (sum + (d->bias ? d->b[j] : 0));
	if (d->epilogue == WK_EPI_ADD)
		sum += d->h[(size_t)row * lc_n_out(d) + j];
	*ret_tol = tol + fabs(sum) * 1e-6 + 1e-6;
	return sum;
}
