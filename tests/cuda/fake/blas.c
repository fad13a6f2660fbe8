/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blas.c - a libcublasLt that takes every product and computes none: the tests ask it which it was given.
 * fake_blas_products() is how many, fake_blas_rows() how many rows the last one had.
 */
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/blas.h"

#define EXPORT __attribute__((visibility("default")))

struct layout {
	uint64_t rows, cols;
};

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
	*ret = &products;
	return compute != LT_COMPUTE_32F || scale != LT_F32;
}

int cublasLtMatmulDescDestroy(void *desc)
{
	(void)desc;
	return 0;
}

int cublasLtMatmulDescSetAttribute(void *desc, int attribute, const void *value, size_t bytes)
{
	(void)desc;
	(void)attribute;
	(void)value;
	(void)bytes;
	return 0;
}

int cublasLtMatrixLayoutCreate(void **ret, int type, uint64_t rows, uint64_t cols, int64_t ld)
{
	struct layout *l = malloc(sizeof(*l));

	(void)type;
	(void)ld;
	*l = (struct layout){rows, cols};
	*ret = l;
	return 0;
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

int cublasLtMatmulAlgoGetHeuristic(void *lt, void *desc, void *a, void *b, void *c, void *d,
				   void *pref, int n, struct lt_heuristic *ret, int *ret_n)
{
	(void)lt;
	(void)desc;
	(void)a;
	(void)b;
	(void)c;
	(void)d;
	(void)pref;
	memset(ret, 0, sizeof(*ret));
	*ret_n = n;
	return 0;
}

int cublasLtMatmul(void *lt, void *desc, const void *alpha, cu_ptr a, void *la, cu_ptr b, void *lb,
		   const void *beta, cu_ptr c, void *lc, cu_ptr d, void *ld, const void *algo,
		   cu_ptr workspace, size_t workspace_bytes, cu_stream stream)
{
	(void)lt;
	(void)desc;
	(void)alpha;
	(void)a;
	(void)la;
	(void)b;
	(void)beta;
	(void)c;
	(void)lc;
	(void)d;
	(void)ld;
	(void)algo;
	(void)workspace;
	(void)workspace_bytes;
	(void)stream;
	products++;
	last_rows = (long)((const struct layout *)lb)->cols;
	return 0;
}
