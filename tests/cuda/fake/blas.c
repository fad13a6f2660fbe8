/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blas.c - a libcublasLt that computes what the library's documentation says its calls mean: matrices by
 * columns, D = alpha op(A) op(B) + beta C, in double and rounded once. Products take their turn on the
 * emulated driver's streams, and become part of its graphs. What it does not know it refuses.
 *
 * The tests ask how many products there were (fake_blas_products) and how many rows, its columns, the last
 * one had (fake_blas_rows).
 */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/convert.h"
#include "kernels/cuda/blas.h"

#define EXPORT	__attribute__((visibility("default")))
#define REFUSED 15 /* CUBLAS_STATUS_NOT_SUPPORTED */

struct layout {
	int type;
	uint64_t rows, cols, ld;
};

struct desc {
	int transposed_a;
};

struct product {
	struct layout a, b, d;
	bool transposed_a;
	const uint16_t *at_a, *at_b;
	const void *at_c;
	void *at_d;
	float alpha, beta;
};

typedef int (*call_fn)(cu_stream s, void (*call)(const void *), const void *args, size_t bytes);

static long products, last_rows;

EXPORT long fake_blas_products(void);
EXPORT long fake_blas_products(void)
{
	return products;
}

EXPORT long fake_blas_rows(void);
EXPORT long fake_blas_rows(void)
{
	return last_rows;
}

#define DECLARE(name, symbol, type, args) EXPORT type symbol args;
LT_CALLS(DECLARE)
#undef DECLARE

size_t cublasLtGetVersion(void)
{
	return 120000;
}

int cublasLtCreate(void **ret)
{
	*ret = &products;
	return 0;
}

int cublasLtDestroy(void *lt)
{
	(void)lt;
	return 0;
}

int cublasLtMatmulDescCreate(void **ret, int compute, int scale)
{
	*ret = calloc(1, sizeof(struct desc));
	return compute != LT_COMPUTE_32F || scale != LT_F32 ? REFUSED : 0;
}

int cublasLtMatmulDescDestroy(void *desc)
{
	free(desc);
	return 0;
}

int cublasLtMatmulDescSetAttribute(void *desc, int attribute, const void *value, size_t bytes)
{
	if (attribute != LT_DESC_TRANS_A || bytes != sizeof(int))
		return REFUSED;
	memcpy(&((struct desc *)desc)->transposed_a, value, bytes);
	return 0;
}

int cublasLtMatrixLayoutCreate(void **ret, int type, uint64_t rows, uint64_t cols, int64_t ld)
{
	struct layout *l = malloc(sizeof(*l));

	*l = (struct layout){type, rows, cols, (uint64_t)ld};
	*ret = l;
	return ld < 0 || (uint64_t)ld < rows ? REFUSED : 0;
}

int cublasLtMatrixLayoutDestroy(void *layout)
{
	free(layout);
	return 0;
}

int cublasLtMatmulPreferenceCreate(void **ret)
{
	*ret = &products;
	return 0;
}

int cublasLtMatmulPreferenceDestroy(void *pref)
{
	(void)pref;
	return 0;
}

int cublasLtMatmulPreferenceSetAttribute(void *pref, int attribute, const void *value, size_t bytes)
{
	(void)pref;
	(void)attribute;
	(void)value;
	(void)bytes;
	return 0;
}

/* Rows of op(A), and of what it is multiplied with. */
static uint64_t rows_of(const struct layout *a, bool transposed)
{
	return transposed ? a->cols : a->rows;
}

static bool fit(const struct desc *desc, const struct layout *a, const struct layout *b,
		const struct layout *c, const struct layout *d)
{
	uint64_t k = rows_of(a, !desc->transposed_a);

	return a->type == LT_BF16 && b->type == LT_BF16 && !memcmp(c, d, sizeof(*c)) &&
	       (d->type == LT_F32 || d->type == LT_BF16) && k == b->rows &&
	       d->rows == rows_of(a, desc->transposed_a) && d->cols == b->cols;
}

int cublasLtMatmulAlgoGetHeuristic(void *lt, void *desc, void *a, void *b, void *c, void *d,
				   void *pref, int n, struct lt_heuristic *ret, int *ret_n)
{
	(void)lt;
	(void)pref;
	memset(ret, 0, sizeof(*ret));
	*ret_n = fit(desc, a, b, c, d) ? n : 0;
	return *ret_n ? 0 : REFUSED;
}

static double element(const struct product *p, uint64_t row, uint64_t col)
{
	uint64_t k = p->b.rows;
	double sum = 0;

	for (uint64_t i = 0; i < k; i++) {
		uint64_t at = p->transposed_a ? row * p->a.ld + i : i * p->a.ld + row;

		sum += (double)wk_bf16_to_f32(p->at_a[at]) *
		       wk_bf16_to_f32(p->at_b[col * p->b.ld + i]);
	}
	return p->alpha * sum;
}

static void compute(const void *args)
{
	const struct product *p = args;

	for (uint64_t col = 0; col < p->d.cols; col++)
		for (uint64_t row = 0; row < p->d.rows; row++) {
			uint64_t at = col * p->d.ld + row;
			double v = element(p, row, col);

			/* With beta 0 C is not read. */
			if (p->d.type == LT_F32) {
				v += p->beta ? p->beta * ((const float *)p->at_c)[at] : 0;
				((float *)p->at_d)[at] = (float)v;
			} else {
				const uint16_t *c = p->at_c;

				v += p->beta ? p->beta * wk_bf16_to_f32(c[at]) : 0;
				((uint16_t *)p->at_d)[at] = wk_f32_to_bf16((float)v);
			}
		}
}

static int queue(cu_stream stream, const struct product *p)
{
	void *driver = dlopen(getenv("WEFT_CUDA_DRIVER"), RTLD_NOW | RTLD_NOLOAD);
	void *symbol = driver ? dlsym(driver, "fake_cuda_call") : NULL;
	call_fn call;
	int r = REFUSED;

	if (symbol) {
		memcpy(&call, &symbol, sizeof(call));
		r = call(stream, compute, p, sizeof(*p));
	}
	if (driver)
		dlclose(driver);
	return r;
}

static void *at(cu_ptr p)
{
	return (void *)(uintptr_t)p;
}

int cublasLtMatmul(void *lt, void *desc, const void *alpha, cu_ptr a, void *la, cu_ptr b, void *lb,
		   const void *beta, cu_ptr c, void *lc, cu_ptr d, void *ld, const void *algo,
		   cu_ptr workspace, size_t workspace_bytes, cu_stream stream)
{
	struct product p = {.transposed_a = ((struct desc *)desc)->transposed_a,
			    .at_a = at(a),
			    .at_b = at(b),
			    .at_c = at(c),
			    .at_d = at(d)};

	(void)lt;
	(void)algo;
	(void)workspace;
	(void)workspace_bytes;
	if (!fit(desc, la, lb, lc, ld))
		return REFUSED;
	memcpy(&p.a, la, sizeof(p.a));
	memcpy(&p.b, lb, sizeof(p.b));
	memcpy(&p.d, ld, sizeof(p.d));
	memcpy(&p.alpha, alpha, sizeof(p.alpha));
	memcpy(&p.beta, beta, sizeof(p.beta));
	products++;
	last_rows = (long)p.d.cols;
	return queue(stream, &p);
}
