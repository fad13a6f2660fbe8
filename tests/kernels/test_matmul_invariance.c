/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_matmul_invariance.c - a row's product is right, and the same bits in any company.
 *
 * For every path that this machine has: each row of x is multiplied alone, by one thread, and
 * compared with a sum in double; then in batches of 1 to 70 and of 512 rows, at changing offsets, by
 * 1 to 4 threads, in column tiles, and must give the same bits each time. Shapes are odd in both
 * directions and long enough in K for several blocks.
 */
#include "kernels/backend.h"
#include "tests/tap.h"

#include <math.h>

#define ROWS 512u

struct shape {
	uint32_t n, k;
	enum wk_pack pack;
	enum wk_epilogue epilogue;
	bool bias;
};

static const struct shape shapes[] = {
	{200, 1027, WK_PACK_PLAIN, WK_EPI_STORE, true},
	{64, 64, WK_PACK_PLAIN, WK_EPI_ADD, false},
	{333, 576, WK_PACK_PLAIN, WK_EPI_ADD, true},
	{2 * 150, 701, WK_PACK_GATE_UP, WK_EPI_SWIGLU, false},
	{2 * 160, 513, WK_PACK_GATE_UP, WK_EPI_SWIGLU, true},
	{1, 1, WK_PACK_PLAIN, WK_EPI_STORE, false},
	{70, 2049, WK_PACK_PLAIN, WK_EPI_STORE, false},
};

static const struct wk_ops *ops;

/*
 * Repeatable bf16 numbers of either sign from 2^-7 to 2: over so many binades that sums in fp32
 * round, and another order of addition gives other bits.
 */
static uint16_t number(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (uint16_t)((*state >> 48 & 0x807f) | (120 + (*state >> 40 & 7)) << 7);
}

static float widen(uint16_t v)
{
	uint32_t bits = (uint32_t)v << 16;
	float f;

	memcpy(&f, &bits, 4);
	return f;
}

/* One instance with one shape's weight and buffers. */
struct rig {
	struct wk_backend *be;
	struct wk_weight *w;
	struct wk_buf *x, *out, *bias;
	uint32_t n_out, x_stride, out_stride, elem;
};

struct data {
	const struct shape *s;
	uint16_t *w, *x;
	float *bias;
	char *want; /* [ROWS][n_out] of elem bytes: each row alone */
};

static void rig_open(struct rig *r, const struct data *d, const char *path, uint32_t threads)
{
	const struct shape *s = d->s;
	struct wk_open_options opt = {.n_threads = threads, .path = path};
	bool pair = s->pack == WK_PACK_GATE_UP;
	struct wk_weight_part parts[2] = {{d->w, WK_BF16, pair ? s->n / 2 : s->n},
					  {d->w + (size_t)s->n / 2 * s->k, WK_BF16, s->n / 2}};

	memset(r, 0, sizeof(*r));
	if (ops->open(&opt, &r->be))
		bail_out(ops->last_error(NULL));
	r->n_out = pair ? s->n / 2 : s->n;
	r->elem = pair ? 2 : 4;
	r->x_stride = (s->k + 31) / 32 * 32;
	r->out_stride = r->n_out + 3;
	if (ops->weight_new(r->be, parts, pair ? 2 : 1, s->k, s->pack, &r->w) ||
	    ops->buf_new(r->be, (size_t)ROWS * r->x_stride * 2, &r->x) ||
	    ops->buf_new(r->be, (size_t)ROWS * r->out_stride * 4, &r->out) ||
	    ops->buf_new(r->be, s->n * 4, &r->bias))
		bail_out(ops->last_error(r->be));
	ops->buf_write(r->be, r->bias, 0, d->bias, s->n * 4);
}

static void rig_close(struct rig *r)
{
	ops->buf_free(r->be, r->x);
	ops->buf_free(r->be, r->out);
	ops->buf_free(r->be, r->bias);
	ops->weight_free(r->be, r->w);
	ops->close(r->be);
}

/* What h holds before WK_EPI_ADD. */
static float before(uint32_t row, uint32_t col)
{
	return (float)((row * 31 + col * 7) % 64) / 16.0f;
}

/*
 * Multiply rows from..from+m-1 of the data as rows 0..m-1 of a batch, in tiles of `cols` columns
 * (0: all at once), into got[m][n_out]. The padding of x is NaN, and the output's must stay.
 */
static bool rig_run(struct rig *r, const struct data *d, uint32_t from, uint32_t m, uint32_t cols,
		    char *got)
{
	uint16_t *x = ops->buf_host(r->x);
	char *out = ops->buf_host(r->out);
	bool kept = true;

	for (uint32_t i = 0; i < m; i++) {
		memset(x + (size_t)i * r->x_stride, 0xff, r->x_stride * 2);
		memcpy(x + (size_t)i * r->x_stride, d->x + (size_t)(from + i) * d->s->k,
		       d->s->k * 2);
	}
	for (uint32_t col = 0; col < r->n_out; col += cols ? cols : r->n_out) {
		uint32_t n = cols && cols < r->n_out - col ? cols : r->n_out - col;
		struct wk_matmul op = {.w = r->w,
				       .x = r->x,
				       .out = r->out,
				       .bias = d->s->bias ? r->bias : NULL,
				       .n_rows = m,
				       .x_stride = r->x_stride,
				       .out_stride = r->out_stride,
				       .col = col,
				       .n_cols = cols ? n : 0,
				       .epilogue = d->s->epilogue,
				       .scale = 0.75f};

		for (uint32_t i = 0; i < m; i++) {
			char *row = out + (size_t)i * r->out_stride * r->elem;

			memset(row, 0xee, (size_t)r->out_stride * r->elem);
			for (uint32_t c = 0; c < n && d->s->epilogue == WK_EPI_ADD; c++)
				((float *)row)[c] = before(from + i, col + c);
		}
		ops->matmul(r->be, &op);
		for (uint32_t i = 0; i < m; i++) {
			const char *row = out + (size_t)i * r->out_stride * r->elem;

			memcpy(got + ((size_t)i * r->n_out + col) * r->elem, row, n * r->elem);
			for (uint32_t b = n * r->elem; b < r->out_stride * r->elem; b++)
				kept = kept && row[b] == (char)0xee;
		}
	}
	return kept && !ops->wait(r->be, ops->record(r->be));
}

/* --- against double ------------------------------------------------------------------------------*/

static double dot(const struct data *d, uint32_t row, uint32_t out, double *ret_size)
{
	double sum = 0;

	*ret_size = 0;
	for (uint32_t i = 0; i < d->s->k; i++) {
		double p = (double)widen(d->x[(size_t)row * d->s->k + i]) *
			   widen(d->w[(size_t)out * d->s->k + i]);

		sum += p;
		*ret_size += fabs(p);
	}
	if (d->s->bias)
		sum += d->bias[out];
	return sum;
}

static bool row_right(const struct rig *r, const struct data *d, uint32_t row)
{
	const char *got = d->want + (size_t)row * r->n_out * r->elem;

	for (uint32_t c = 0; c < r->n_out; c++) {
		double size, up_size, want = dot(d, row, c, &size), tol, value;

		if (d->s->epilogue == WK_EPI_SWIGLU) {
			double up = dot(d, row, r->n_out + c, &up_size);

			tol = (size * fabs(up) + up_size * fabs(want)) * 1e-6;
			want = want / (1 + exp(-want)) * up;
			tol += fabs(want) / 255;
			value = widen(((const uint16_t *)got)[c]);
		} else {
			want = 0.75 * want;
			if (d->s->epilogue == WK_EPI_ADD)
				want += before(row, c);
			tol = size * 1e-6 + fabs(want) * 1e-6;
			value = ((const float *)got)[c];
		}
		if (!(fabs(value - want) <= tol)) {
			diag("row %u column %u: %.9g, want %.9g +- %g", row, c, value, want, tol);
			return false;
		}
	}
	return true;
}

/* --- one shape on one path -----------------------------------------------------------------------*/

static void test_shape(const char *path, struct data *d)
{
	const struct shape *s = d->s;
	uint32_t checked = s->k > 1000 ? 40 : 100;
	bool right = true, same = true, ran = true;
	struct rig r;
	size_t row_bytes;
	char *got;

	rig_open(&r, d, path, 1);
	row_bytes = (size_t)r.n_out * r.elem;
	d->want = malloc(ROWS * row_bytes);
	got = malloc(ROWS * row_bytes);
	for (uint32_t i = 0; i < ROWS; i++)
		ran = rig_run(&r, d, i, 1, 0, d->want + i * row_bytes) && ran;
	for (uint32_t i = 0; i < checked; i++)
		right = right && row_right(&r, d, i);
	ok(right, "%s %ux%u epilogue %d: rows alone are right", path, s->n, s->k, s->epilogue);
	rig_close(&r);

	for (uint32_t threads = 1; threads <= 4; threads++) {
		rig_open(&r, d, path, threads);
		for (uint32_t m = 1; m <= 71; m++) {
			uint32_t rows = m == 71 ? ROWS : m, from = m == 71 ? 0 : m * 5;
			uint32_t cols = m == 71 ? 0 : m % 3 * 64;

			ran = rig_run(&r, d, from, rows, cols, got) && ran;
			if (memcmp(got, d->want + from * row_bytes, rows * row_bytes)) {
				diag("%u rows, %u threads, tiles of %u", rows, threads, cols);
				same = false;
			}
		}
		rig_close(&r);
	}
	ok(same, "%s %ux%u: the same bits in any batch, thread count and column tile", path, s->n,
	   s->k);
	ok(ran, "%s %ux%u: nothing failed, nothing past the columns was touched", path, s->n, s->k);
	free(d->want);
	free(got);
}

static void test_path(const char *path)
{
	uint64_t state = 42;

	for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++) {
		const struct shape *s = &shapes[i];
		struct data d = {.s = s};

		d.w = malloc((size_t)s->n * s->k * 2);
		d.x = malloc((size_t)ROWS * s->k * 2);
		d.bias = malloc(s->n * 4);
		for (size_t j = 0; j < (size_t)s->n * s->k; j++)
			d.w[j] = number(&state);
		for (size_t j = 0; j < (size_t)ROWS * s->k; j++)
			d.x[j] = number(&state);
		for (uint32_t j = 0; j < s->n; j++)
			d.bias[j] = widen(number(&state)) * 8;
		test_shape(path, &d);
		free(d.w);
		free(d.x);
		free(d.bias);
	}
}

int main(void)
{
	static const char *const names[] = {"avx2", "avx512", "avx512bf16"};

	ops = wk_ops_by_name("cpu");
	for (int i = 0; i < 3; i++) {
		struct wk_open_options opt = {.n_threads = 1, .path = names[i]};
		struct wk_backend *be;

		if (ops->open(&opt, &be)) {
			diag("%s", ops->last_error(NULL));
			skip(1, "no such instructions on this machine");
			continue;
		}
		ops->close(be);
		test_path(names[i]);
	}
	return tap_done();
}
