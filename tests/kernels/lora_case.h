/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lora_case.h - one product with adapters: made up from a seed, run on a backend, and what it
 * should give, in double, from W + scale B A.
 */
#ifndef WEFT_TESTS_KERNELS_LORA_CASE_H
#define WEFT_TESTS_KERNELS_LORA_CASE_H

#include "tests/kernels/kt.h"

#define LC_MAX_PARTS	3
#define LC_MAX_ADAPTERS 6
#define LC_BASE		UINT32_MAX /* a row without an adapter */
#define LC_SITE		7

/* One adapter's pair for one stacked part of the weight; rank 0: it leaves that part alone. */
struct lc_pair {
	uint32_t rank;
	float scale;
	enum wk_dtype dtype;
	float *a, *b;	    /* owned: [rank][k], [n][rank] */
	double *s, *s_size; /* owned: [rows][rank] scale * A x, and the same of magnitudes */
};

/* What is multiplied: the same on every backend. */
struct lc_data {
	uint32_t n_parts, part_n[LC_MAX_PARTS], part_col[LC_MAX_PARTS];
	uint32_t n, k, rows, n_adapters;
	enum wk_epilogue epilogue;
	bool bias;
	float *w, *x, *h, *b;	/* owned: [n][k], [rows][k], [rows][n_out], [n] */
	double *sum, *sum_size; /* owned: [rows][n] W x, and the same of magnitudes */
	struct lc_pair pairs[LC_MAX_ADAPTERS][LC_MAX_PARTS];
};

/* The parts' sizes must be set, and k, rows, n_adapters, epilogue, bias; all numbers are drawn. */
void lc_data_init(struct lc_data *d);
/* A pair for part `part` of adapter `adapter`. */
void lc_pair_init(struct lc_data *d, uint32_t adapter, uint32_t part, uint32_t rank,
		  enum wk_dtype dtype);
void lc_data_fini(struct lc_data *d);
uint32_t lc_n_out(const struct lc_data *d);

/* The same on one backend: weight, pool, adapters placed in it, buffers. */
struct lc_rig {
	struct kt *t;
	const struct lc_data *d;
	struct wk_weight *w;
	struct wk_buf *pool, *x, *out, *bias;
	struct wk_lora *loras[LC_MAX_ADAPTERS];
	uint64_t *pieces[LC_MAX_ADAPTERS][LC_MAX_PARTS]; /* owned */
	uint32_t x_stride, out_stride;
	size_t block_bytes;
};

void lc_open(struct lc_rig *r, struct kt *t, const struct lc_data *d);
void lc_close(struct lc_rig *r);

/*
 * Rows rows[0..m) of the data as rows 0.. of one batch, row i under adapter adapters[i]; columns
 * col.. (n_cols, 0: all the rest). got: [m][columns] floats. False: something failed, or memory past
 * the columns was touched.
 */
bool lc_run(struct lc_rig *r, const uint32_t *rows, const uint32_t *adapters, uint32_t m,
	    uint32_t col, uint32_t n_cols, float *got);

/* Output j of a row under an adapter, in double, and the most by which a backend may miss it. */
double lc_want(const struct lc_data *d, uint32_t row, uint32_t adapter, uint32_t j, bool bf16,
	       double *ret_tol);

#endif
