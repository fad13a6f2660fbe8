/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_linear.c - embed, norm and matrix products of every backend against formulas in double.
 */
#include <errno.h>
#include <math.h>

#include "kernels/convert.h"
#include "tests/kernels/kt.h"
#include "tests/tap.h"

static const uint32_t shapes[][3] = {
	/* rows, outputs, inputs */
	{1, 1, 1},  {1, 64, 64},    {2, 63, 65},  {3, 65, 63},	  {5, 128, 96},	 {6, 130, 100},
	{7, 66, 2}, {12, 200, 576}, {13, 96, 31}, {48, 192, 130}, {49, 64, 258}, {129, 70, 34},
};

#define MAX_DIM 1024

/* A weight of two or one parts, and the same as floats. */
static struct wk_weight *make_weight(struct kt *t, const float *w, uint32_t n, uint32_t k,
				     enum wk_dtype dtype, enum wk_pack pack)
{
	size_t elems = (size_t)n * k, elem = dtype == WK_F32 ? 4 : 2;
	char *data = kt_alloc(elems * elem + 1, 1), *odd = data + 1; /* unaligned on purpose */
	uint32_t n0 = n > 1 ? n / 2 : n;
	struct wk_weight_part parts[2] = {{odd, dtype, n0},
					  {odd + (size_t)n0 * k * elem, dtype, n - n0}};
	struct wk_weight *ret;

	for (size_t i = 0; i < elems; i++) {
		uint16_t h = wk_f32_to_bf16(w[i]);
		_Float16 f = (_Float16)w[i];

		memcpy(odd + i * elem,
		       dtype == WK_F32	 ? (void *)&w[i]
		       : dtype == WK_F16 ? (void *)&f
					 : (void *)&h,
		       elem);
	}
	if (t->ops->weight_new(t->be, parts, n > n0 ? 2 : 1, k, pack, &ret) < 0)
		bail_out(t->ops->last_error(t->be));
	free(data);
	return ret;
}

static double dot(const float *a, const float *b, uint32_t n)
{
	double s = 0;

	for (uint32_t i = 0; i < n; i++)
		s += (double)a[i] * b[i];
	return s;
}

static void check_matmul(struct kt *t, const uint32_t *shape, enum wk_dtype dtype,
			 enum wk_epilogue epi, bool with_bias, uint32_t col)
{
	bool glu = epi == WK_EPI_SWIGLU;
	uint32_t m = shape[0], n = shape[1], k = shape[2], x_stride = k + 64 - k % 64;
	uint32_t n_w = glu ? 2 * n : n, cols = n - col, out_stride = cols + 64 - cols % 64;
	float *w = kt_alloc((size_t)n_w * k, 4), *x = kt_alloc((size_t)m * x_stride, 4);
	float *bias = kt_alloc(n, 4), *out = kt_alloc((size_t)m * out_stride, 4);
	double *want = kt_alloc((size_t)m * out_stride, sizeof(double));
	struct wk_buf *xb, *bb, *ob;
	struct wk_weight *wt;
	double err;

	kt_fill(w, (size_t)n_w * k, 0.5f);
	kt_fill(x, (size_t)m * x_stride, 1);
	kt_fill(bias, n, 1);
	kt_fill(out, (size_t)m * out_stride, 1);
	for (uint32_t r = 0; r < m; r++)
		for (uint32_t c = 0; c < out_stride; c++) {
			size_t at = (size_t)r * out_stride + c;
			const float *row = x + (size_t)r * x_stride;
			uint32_t j = col + c;
			double a, up;

			want[at] = out[at];
			if (c >= cols)
				continue;
			a = dot(row, w + (size_t)j * k, k);
			if (glu) {
				up = dot(row, w + (size_t)(n + j) * k, k);
				want[at] = a / (1 + exp(-a)) * up;
				continue;
			}
			a = 0.25 * (a + (with_bias ? bias[j] : 0));
			want[at] = epi == WK_EPI_ADD ? out[at] + a : a;
		}
	xb = kt_x(t, x, (size_t)m * x_stride);
	bb = kt_floats(t, bias, n);
	ob = glu ? kt_x(t, out, (size_t)m * out_stride) : kt_floats(t, out, (size_t)m * out_stride);
	wt = make_weight(t, w, n_w, k, dtype, glu ? WK_PACK_GATE_UP : WK_PACK_PLAIN);
	t->ops->matmul(t->be, &(struct wk_matmul){.w = wt,
						  .x = xb,
						  .out = ob,
						  .bias = with_bias ? bb : NULL,
						  .n_rows = m,
						  .x_stride = x_stride,
						  .out_stride = out_stride,
						  .col = col,
						  .n_cols = col ? cols : 0,
						  .epilogue = epi,
						  .scale = 0.25f});
	if (glu)
		kt_read_x(t, ob, out, (size_t)m * out_stride);
	else
		kt_read_floats(t, ob, out, (size_t)m * out_stride);
	err = kt_error(out, want, (size_t)m * out_stride);
	/* Sums are fp32 on every backend; only what is stored as x is rounded further, and before it
	 * gates and ups may be: three times 2^-9, one of them up to 1.3-fold by silu. */
	ok(err <= (glu ? 1.1 * t->tol : 4e-6),
	   "%s: matmul %u x %u x %u, dtype %d, epilogue %d%s, "
	   "column %u: %.1e",
	   t->label, m, n, k, dtype, epi, with_bias ? ", bias" : "", col, err);
	t->ops->weight_free(t->be, wt);
	kt_free(t, xb);
	kt_free(t, bb);
	kt_free(t, ob);
	free(w);
	free(x);
	free(bias);
	free(out);
	free(want);
}

static void matmuls(struct kt *t)
{
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		kt_seed(i);
		check_matmul(t, shapes[i], (enum wk_dtype)(i % 3), WK_EPI_STORE, i % 2, 0);
		check_matmul(t, shapes[i], WK_BF16, WK_EPI_ADD, i % 2 == 0, 0);
		check_matmul(t, shapes[i], WK_F32, WK_EPI_SWIGLU, false, 0);
		if (shapes[i][1] > 64)
			check_matmul(t, shapes[i], WK_BF16, WK_EPI_STORE, true, 64);
	}
}

static void batch_rows(struct kt *t, uint32_t n, const uint32_t *tokens, const uint32_t *out_rows,
		       uint32_t n_out)
{
	struct wk_kv_shape shape = {1, 1, 8, 0};
	struct wk_seq seq = {0, n, 0, 0};
	uint32_t table[WK_MAX_ROWS / WK_BLOCK_TOKENS] = {0};
	struct wk_batch b = {.n_rows = n,
			     .n_seqs = 1,
			     .tokens = tokens,
			     .seqs = &seq,
			     .n_table = (n + 15) / 16,
			     .block_table = table,
			     .out_rows = out_rows,
			     .n_out = n_out};
	struct wk_buf *pool;

	if (t->ops->buf_new(t->be, t->ops->kv_block_bytes(t->be, &shape), &pool) < 0 ||
	    t->ops->kv_bind(t->be, &shape, pool, 1) < 0 || t->ops->batch_set(t->be, &b) < 0)
		bail_out(t->ops->last_error(t->be));
	kt_free(t, pool);
}

static void embed(struct kt *t)
{
	enum { vocab = 77, dim = 70, stride = 128, rows = 9 };
	uint32_t tokens[rows] = {0, 76, 3, 3, 64, 63, 1, 31, 32}, none[1] = {0};
	float w[vocab * dim], h[rows * stride];
	double want[rows * stride] = {0};
	struct wk_weight *wt;
	struct wk_buf *hb;

	kt_fill(w, vocab * dim, 1);
	wt = make_weight(t, w, vocab, dim, WK_BF16, WK_PACK_PLAIN);
	hb = kt_floats(t, NULL, rows * stride);
	batch_rows(t, rows, tokens, none, 0);
	t->ops->embed(t->be, wt, hb, stride, 3.5f);
	kt_read_floats(t, hb, h, rows * stride);
	for (uint32_t r = 0; r < rows; r++)
		for (uint32_t i = 0; i < dim; i++)
			want[r * stride + i] = 3.5 * w[tokens[r] * dim + i];
	ok(kt_error(h, want, rows * stride) == 0, "%s: embed is exact", t->label);
	t->ops->weight_free(t->be, wt);
	kt_free(t, hb);
}

static void check_norm(struct kt *t, uint32_t dim, bool out_only)
{
	enum { rows = 7 };
	uint32_t tokens[rows] = {0}, out_rows[3] = {1, 4, 6}, n = out_only ? 3 : rows;
	uint32_t stride = dim + 64 - dim % 64;
	float *h = kt_alloc((size_t)rows * stride, 4), *w = kt_alloc(dim, 4);
	float *x = kt_alloc((size_t)n * stride, 4);
	double *want = kt_alloc((size_t)n * stride, sizeof(double)), err;
	struct wk_buf *hb, *wb, *xb;

	kt_fill(h, (size_t)rows * stride, 3);
	kt_fill(w, dim, 2);
	for (uint32_t r = 0; r < n; r++) {
		const float *row = h + (size_t)(out_only ? out_rows[r] : r) * stride;
		double inv = 1 / sqrt(dot(row, row, dim) / dim + 1e-2);

		for (uint32_t i = 0; i < dim; i++)
			want[(size_t)r * stride + i] = row[i] * inv * w[i];
	}
	hb = kt_floats(t, h, (size_t)rows * stride);
	wb = kt_floats(t, w, dim);
	xb = kt_x(t, NULL, (size_t)n * stride);
	batch_rows(t, rows, tokens, out_rows, 3);
	t->ops->norm(t->be, &(struct wk_norm){.h = hb,
					      .weight = wb,
					      .x = xb,
					      .n_rows = n,
					      .dim = dim,
					      .h_stride = stride,
					      .x_stride = stride,
					      .eps = 1e-2f,
					      .out_rows_only = out_only});
	kt_read_x(t, xb, x, (size_t)n * stride);
	err = kt_error(x, want, (size_t)n * stride);
	ok(err <= t->tol, "%s: norm of %u%s: %.1e", t->label, dim, out_only ? ", out rows" : "",
	   err);
	kt_free(t, hb);
	kt_free(t, wb);
	kt_free(t, xb);
	free(h);
	free(w);
	free(x);
	free(want);
}

/* Each kind of bad number in each part is found and named. */
static void not_finite(struct kt *t)
{
	float w[6 * 40];
	struct wk_weight *wt = NULL;
	const float bad[] = {NAN, INFINITY, -INFINITY};

	for (int i = 0; i < 3; i++) {
		struct wk_weight_part parts[2] = {{w, WK_F32, 3}, {w + 3 * 40, WK_F32, 3}};

		kt_fill(w, 6 * 40, 1);
		w[(3 + 2) * 40 + 37] = bad[i];
		is_int(t->ops->weight_new(t->be, parts, 2, 40, WK_PACK_PLAIN, &wt), -EDOM,
		       "%s: a weight with %g is refused", t->label, bad[i]);
		ok(strstr(t->ops->last_error(t->be), "part 1") &&
			   strstr(t->ops->last_error(t->be), "37"),
		   "the error says where: %s", t->ops->last_error(t->be));
	}
}

static void run(struct kt *t)
{
	kt_seed(99);
	matmuls(t);
	embed(t);
	for (uint32_t dim = 1; dim <= MAX_DIM; dim = dim * 3 / 2 + 5)
		check_norm(t, dim, dim % 2);
	not_finite(t);
}

int main(void)
{
	kt_each(run);
	return tap_done();
}
