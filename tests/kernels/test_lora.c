/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_lora.c - products with adapters, on every backend, against W + scale B A in double.
 *
 * The cases go through odd shapes, ranks around the cut, every element type and epilogue, adapters
 * that change only some of the parts, segments of one row and of many, and column tiles. The bound
 * on each output allows for fp32 sums and for one rounding of each s to bf16, and nothing else.
 */
#include <math.h>
#include <stdlib.h>

#include "tests/kernels/lora_case.h"
#include "tests/tap.h"

static const struct shape {
	uint32_t n_parts, part_n[LC_MAX_PARTS], k, rows;
	enum wk_epilogue epilogue;
	bool bias;
} shapes[] = {
	{3, {128, 64, 64}, 96, 16, WK_EPI_STORE, false},
	{3, {70, 33, 33}, 131, 23, WK_EPI_STORE, true}, /* parts that end inside half panels */
	{1, {64}, 64, 7, WK_EPI_ADD, false},
	{1, {77}, 577, 40, WK_EPI_ADD, true},
	{1, {1}, 1, 3, WK_EPI_STORE, false},
	{2, {96, 96}, 65, 19, WK_EPI_SWIGLU, false},
	{2, {150, 150}, 130, 70, WK_EPI_SWIGLU, false}, /* ups begin inside a half of gates */
	{2, {5, 5}, 33, 13, WK_EPI_SWIGLU, false},
	{1, {200}, 1500, 64, WK_EPI_STORE, false},
};

static const uint32_t ranks[] = {16, 1, 8, 17, 64, 100};

#define N_SHAPES (sizeof(shapes) / sizeof(*shapes))
#define N_RANKS	 (sizeof(ranks) / sizeof(*ranks))

/* Adapter a: parts by the bits of a + 1, so that the first ones lack some. */
static void make_data(struct lc_data *d, const struct shape *s, uint32_t salt)
{
	*d = (struct lc_data){.n_parts = s->n_parts,
			      .k = s->k,
			      .rows = s->rows,
			      .n_adapters = 4,
			      .epilogue = s->epilogue,
			      .bias = s->bias};
	memcpy(d->part_n, s->part_n, sizeof(s->part_n));
	lc_data_init(d);
	for (uint32_t a = 0; a < d->n_adapters; a++)
		for (uint32_t p = 0; p < d->n_parts; p++) {
			uint32_t all = (1u << d->n_parts) - 1, mask = a < all ? a + 1 : all;

			if (mask >> p & 1)
				lc_pair_init(d, a, p, ranks[(salt + a + p) % N_RANKS],
					     (enum wk_dtype)((salt + a + p) % 3));
		}
}

/* The greatest miss of any output, in units of what is allowed. */
static double worst(const struct lc_rig *r, const uint32_t *adapters, uint32_t col, uint32_t n,
		    const float *got)
{
	bool bf16 = r->t->info.x_bytes == 2;
	double most = 0;

	for (uint32_t i = 0; i < r->d->rows; i++)
		for (uint32_t c = 0; c < n; c++) {
			double tol, want = lc_want(r->d, i, adapters[i], col + c, bf16, &tol);
			double miss = fabs(got[i * n + c] - want) / tol;

			if (!(miss <= most))
				most = miss;
		}
	return most;
}

static const char *const patterns[] = {"one adapter", "an adapter from the middle",
				       "segments of one row", "segments of any length"};

static void set_adapters(uint32_t pattern, const struct lc_data *d, uint32_t *adapters)
{
	uint32_t now = LC_BASE, left = 0;

	for (uint32_t i = 0; i < d->rows; i++) {
		if (!left--) {
			left = kt_random(9);
			now = kt_random(d->n_adapters + 1);
			now = now == d->n_adapters ? LC_BASE : now;
		}
		adapters[i] = pattern == 0   ? d->n_adapters - 1
			      : pattern == 1 ? (i < d->rows / 2 ? LC_BASE : 2)
			      : pattern == 2 ? i % d->n_adapters
					     : now;
	}
}

static void check_shape(struct kt *t, const struct shape *s, uint32_t salt)
{
	uint32_t rows[WK_MAX_ROWS], adapters[WK_MAX_ROWS], n_out;
	struct lc_data d;
	struct lc_rig r;
	float *got;

	kt_seed(salt);
	make_data(&d, s, salt);
	lc_open(&r, t, &d);
	n_out = lc_n_out(&d);
	got = kt_alloc((size_t)d.rows * n_out, sizeof(*got));
	for (uint32_t i = 0; i < d.rows; i++)
		rows[i] = i;
	for (uint32_t p = 0; p < sizeof(patterns) / sizeof(*patterns); p++) {
		uint32_t col = p == 3 && n_out > 64 ? 64 : 0;
		uint32_t n_cols = col && n_out - col > 3 ? n_out - col - 3 : 0;
		uint32_t n = n_cols ? n_cols : n_out - col;
		bool kept;
		double most;

		set_adapters(p, &d, adapters);
		kept = lc_run(&r, rows, adapters, d.rows, col, n_cols, got);
		most = worst(&r, adapters, col, n, got);
		ok(kept && most <= 1, "%s: %u parts of %u, k %u, %u rows, epilogue %d, %s: %.2f",
		   t->label, d.n_parts, d.part_n[0], d.k, d.rows, d.epilogue, patterns[p], most);
	}
	free(got);
	lc_close(&r);
	lc_data_fini(&d);
}

static void run(struct kt *t)
{
	for (uint32_t i = 0; i < N_SHAPES; i++)
		check_shape(t, &shapes[i], i);
}

int main(void)
{
	kt_each(run);
	return tap_done();
}
