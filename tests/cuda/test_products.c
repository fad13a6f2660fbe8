/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products of few rows on the emulated device: right by a sum in double, the same bits for a row in any
 * number of rows, nothing touched beside the columns; and who does them where there is a cuBLASLt.
 *
 * A norm makes x in the same step, on a device that begins late: so a product that reads x before it has
 * waited for the norm ends the program (tests/cuda/fake/stream.c).
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/convert.h"
#include "tests/cuda/fake_device.h"
#include "tests/kernels/kt.h"
#include "tests/tap.h"

#define ROWS   65u
#define BLOCKS (ROWS / WK_BLOCK_TOKENS + 1)
#define BEFORE 2.5f /* what the output holds before something is added to it */
#define SCALE  0.75f

/* Inputs around the buffers of 256 of which three are asked for early; outputs around a block's 32. */
static const struct shape {
	uint32_t n, k;
	bool bias, add;
} shapes[] = {
	{1, 1, false, false},	  {33, 8, true, false},	  {31, 255, false, true},
	{64, 256, true, true},	  {8, 257, false, false}, {70, 770, true, false},
	{32, 1024, false, false}, {35, 1034, true, true}, {9, 2310, false, false},
};

struct rig {
	const struct shape *s;
	uint32_t x_stride, out_stride;
	struct wk_weight *w;
	struct wk_buf *h, *norm, *x, *out, *bias;
	float *h_values, *w_values, *bias_values, *got;
};

static void fill(float *f, size_t n)
{
	/* Over enough binades that another order of summation gives other bits. */
	for (size_t i = 0; i < n; i++)
		f[i] = ldexpf(kt_value(), (int)kt_random(8) - 6);
}

static void rig_open(struct rig *r, struct kt *t, const struct shape *s)
{
	struct wk_weight_part part;
	float *ones = kt_alloc(s->k, sizeof(*ones));

	*r = (struct rig){.s = s, .x_stride = (s->k + 63) / 64 * 64, .out_stride = s->n + 3};
	r->h_values = kt_alloc((size_t)ROWS * r->x_stride, sizeof(float));
	r->w_values = kt_alloc((size_t)s->n * s->k, sizeof(float));
	r->bias_values = kt_alloc(s->n, sizeof(float));
	r->got = kt_alloc((size_t)ROWS * r->out_stride, sizeof(float));
	fill(r->h_values, (size_t)ROWS * r->x_stride);
	fill(r->w_values, (size_t)s->n * s->k);
	kt_fill(r->bias_values, s->n, 1);
	for (uint32_t i = 0; i < s->k; i++)
		ones[i] = 1;
	part = (struct wk_weight_part){r->w_values, WK_F32, s->n};
	if (t->ops->weight_new(t->be, &part, 1, s->k, WK_PACK_PLAIN, &r->w))
		bail_out(t->ops->last_error(t->be));
	r->h = kt_floats(t, NULL, (size_t)ROWS * r->x_stride);
	r->x = kt_x(t, NULL, (size_t)ROWS * r->x_stride);
	r->out = kt_floats(t, NULL, (size_t)ROWS * r->out_stride);
	r->bias = kt_floats(t, r->bias_values, s->n);
	r->norm = kt_floats(t, ones, s->k);
	/* Past the inputs x may hold anything. */
	kt_fill_bytes(t, r->x, 0xff, (size_t)ROWS * r->x_stride * 2);
	free(ones);
}

static void rig_close(struct rig *r, struct kt *t)
{
	t->ops->weight_free(t->be, r->w);
	kt_free(t, r->h);
	kt_free(t, r->x);
	kt_free(t, r->out);
	kt_free(t, r->bias);
	kt_free(t, r->norm);
	free(r->h_values);
	free(r->w_values);
	free(r->bias_values);
	free(r->got);
}

static void begin(struct kt *t, uint32_t m)
{
	static const uint32_t tokens[ROWS], table[BLOCKS] = {0, 1, 2, 3, 4};
	const struct wk_seq seq = {0, m, 0, 0};
	const struct wk_batch b = {.n_rows = m,
				   .n_seqs = 1,
				   .n_table = BLOCKS,
				   .tokens = tokens,
				   .seqs = &seq,
				   .block_table = table};

	if (t->ops->batch_set(t->be, &b))
		bail_out(t->ops->last_error(t->be));
}

/* Rows from..from+m-1 of h, as rows 0..m-1 of a step; the outputs into r->got. */
static void rig_run(struct rig *r, struct kt *t, uint32_t from, uint32_t m)
{
	const struct shape *s = r->s;
	size_t n_out = (size_t)ROWS * r->out_stride;

	for (size_t i = 0; i < n_out; i++)
		r->got[i] = BEFORE;
	kt_write_bytes(t, r->out, 0, r->got, n_out * sizeof(float));
	kt_write_bytes(t, r->h, 0, r->h_values + (size_t)from * r->x_stride,
		       (size_t)m * r->x_stride * sizeof(float));
	begin(t, m);
	t->ops->norm(t->be, &(struct wk_norm){.h = r->h,
					      .weight = r->norm,
					      .x = r->x,
					      .n_rows = m,
					      .dim = s->k,
					      .h_stride = r->x_stride,
					      .x_stride = r->x_stride,
					      .eps = 1e-5f});
	t->ops->matmul(t->be, &(struct wk_matmul){.w = r->w,
						  .x = r->x,
						  .out = r->out,
						  .bias = s->bias ? r->bias : NULL,
						  .n_rows = m,
						  .x_stride = r->x_stride,
						  .out_stride = r->out_stride,
						  .epilogue = s->add ? WK_EPI_ADD : WK_EPI_STORE,
						  .scale = SCALE});
	kt_sync(t);
	kt_read_floats(t, r->out, r->got, n_out);
}

/* Row 0 of what was computed last, by x as the norm has left it. */
static bool right(struct rig *r, struct kt *t)
{
	const struct shape *s = r->s;
	float *x = kt_alloc(s->k, sizeof(*x));
	bool all = true;

	kt_read_x(t, r->x, x, s->k);
	for (uint32_t j = 0; j < s->n; j++) {
		double sum = s->bias ? r->bias_values[j] : 0, size = fabs(sum), want;

		for (uint32_t i = 0; i < s->k; i++) {
			uint16_t w = wk_f32_to_bf16(r->w_values[(size_t)j * s->k + i]);

			sum += (double)x[i] * wk_bf16_to_f32(w);
			size += fabs((double)x[i] * wk_bf16_to_f32(w));
		}
		want = SCALE * sum + (s->add ? BEFORE : 0);
		all = all && fabs(r->got[j] - want) <= (size + BEFORE) * 1e-6;
	}
	free(x);
	return all;
}

/* What lies past the columns and the rows is as it was. */
static bool kept(const struct rig *r, uint32_t m)
{
	bool all = true;

	for (uint32_t i = 0; i < ROWS; i++)
		for (uint32_t j = i < m ? r->s->n : 0; j < r->out_stride; j++)
			all = all && r->got[(size_t)i * r->out_stride + j] == BEFORE;
	return all;
}

static void check_shape(struct kt *t, const struct shape *s)
{
	float *alone = kt_alloc((size_t)ROWS * s->n, sizeof(*alone));
	bool well = true, same = true, still = true;
	struct rig r;

	kt_seed(s->k);
	rig_open(&r, t, s);
	for (uint32_t i = 0; i < ROWS; i += i < 20 ? 1 : 9) {
		rig_run(&r, t, i, 1);
		well = well && right(&r, t);
		still = still && kept(&r, 1);
		memcpy(alone + (size_t)i * s->n, r.got, s->n * sizeof(float));
	}
	for (uint32_t m = 1; m <= ROWS; m = m < 17 ? m + 1 : m + 16) {
		uint32_t from = m < 17 ? 17 - m : 0;

		rig_run(&r, t, from, m);
		still = still && kept(&r, m);
		for (uint32_t i = 0; i < m; i += from + i < 20 ? 1 : 9)
			same = same &&
			       !memcmp(r.got + (size_t)i * r.out_stride,
				       alone + (size_t)(from + i) * s->n, s->n * sizeof(float));
	}
	ok(well, "%s: %u outputs of %u inputs are right", t->label, s->n, s->k);
	ok(same, "%s: %u x %u: a row has the same bits among any number", t->label, s->n, s->k);
	ok(still, "%s: %u x %u: nothing else is touched", t->label, s->n, s->k);
	rig_close(&r, t);
	free(alone);
}

static void bind_pool(struct kt *t, struct wk_buf **ret)
{
	const struct wk_kv_shape shape = {1, 1, 32, 0};

	if (t->ops->buf_new(t->be, BLOCKS * t->ops->kv_block_bytes(t->be, &shape), ret) ||
	    t->ops->kv_bind(t->be, &shape, *ret, BLOCKS))
		bail_out(t->ops->last_error(t->be));
}

static void products(void)
{
	struct wk_buf *pool;
	struct kt t;

	if (!kt_open(&t, "cuda", "own", 1))
		bail_out("the backend does not open");
	bind_pool(&t, &pool);
	for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
		check_shape(&t, &shapes[i]);
	kt_free(&t, pool);
	kt_close(&t);
}

/* --- who does them -----------------------------------------------------------------------------------*/

/* The most rows of a product that are not the library's. */
static uint32_t own_rows(const char *small, uint64_t *ret_rev)
{
	static const struct shape shape = {29, 64, true, false}; /* rows 32 apart */
	long (*given)(void) = fake_device_number_of("WEFT_CUBLASLT", "fake_blas_products");
	long (*rows)(void) = fake_device_number_of("WEFT_CUBLASLT", "fake_blas_rows");
	long (*overlapping)(void) = fake_device_number("fake_cuda_overlapping");
	uint32_t most = 0;
	long begun;
	struct wk_buf *pool;
	struct rig r;
	struct kt t;

	if (small)
		setenv("WEFT_CUDA_SMALL", small, 1);
	if (!kt_open(&t, "cuda", "cublaslt", 1))
		bail_out("the backend does not open");
	unsetenv("WEFT_CUDA_SMALL");
	*ret_rev = t.info.arith_rev;
	bind_pool(&t, &pool);
	rig_open(&r, &t, &shape);
	begun = overlapping();
	for (uint32_t m = 1; m <= 20; m++) {
		long before = given();

		rig_run(&r, &t, 0, m);
		if (given() == before)
			most = most + 1 == m ? m : ROWS;
		else if (rows() != (long)m)
			most = ROWS;
	}
	/* Our own product, which has the bias, or the kernel that adds it to the library's. */
	is_int(overlapping() - begun, 20, "after a norm or a library's product launches overlap");
	rig_close(&r, &t);
	kt_free(&t, pool);
	kt_close(&t);
	return most;
}

static void who(void)
{
	uint64_t with, without;
	char path[512];
	const char *build = getenv("WEFT_BUILD");

	snprintf(path, sizeof(path), "%s/tests/cuda/libcublasLt-fake.so", build ? build : "build");
	setenv("WEFT_CUBLASLT", path, 1);
	is_int(own_rows(NULL, &with), 16, "up to 16 rows are our own kernel's, more the library's");
	is_int(own_rows("0", &without), 0, "WEFT_CUDA_SMALL=0: all are the library's");
	ok(with != without, "and what is computed so is another arithmetic");
}

int main(void)
{
	if (!fake_device()) {
		skip(1, "no emulated device here");
		return tap_done();
	}
	setenv("WEFT_FAKE_CUDA_LATE", "1", 1);
	products();
	who();
	return tap_done();
}
