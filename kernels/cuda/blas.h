/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blas.h - the part of cuBLASLt that is used, found at run time; our own declarations, as driver.h's.
 *
 * The plan for a product's shape (algorithm and layouts) is asked for once and kept; the number of
 * plans is bounded. Without the library every call says so, and linear.c uses its own kernels.
 */
#ifndef WEFT_KERNELS_CUDA_BLAS_H
#define WEFT_KERNELS_CUDA_BLAS_H

#include <stdbool.h>

#include "kernels/cuda/driver.h"

enum { LT_COMPUTE_32F = 68, LT_F32 = 0, LT_BF16 = 14, LT_TRANSPOSED = 1 };
enum { LT_DESC_TRANS_A = 3, LT_PREF_WORKSPACE = 1, LT_PREF_ALIGN_A = 5 };

struct lt_heuristic {
	uint64_t algo[8];
	size_t workspace;
	int state;
	float waves;
	int reserved[4];
};

#define LT_CALLS(X)                                                                         \
	X(version, cublasLtGetVersion, size_t, (void))                                      \
	X(create, cublasLtCreate, int, (void **ret))                                        \
	X(destroy, cublasLtDestroy, int, (void *lt))                                        \
	X(desc_new, cublasLtMatmulDescCreate, int, (void **ret, int compute, int scale))    \
	X(desc_free, cublasLtMatmulDescDestroy, int, (void *desc))                          \
	X(desc_set, cublasLtMatmulDescSetAttribute, int,                                    \
	  (void *desc, int attribute, const void *value, size_t bytes))                     \
	X(layout_new, cublasLtMatrixLayoutCreate, int,                                      \
	  (void **ret, int type, uint64_t rows, uint64_t cols, int64_t ld))                 \
	X(layout_free, cublasLtMatrixLayoutDestroy, int, (void *layout))                    \
	X(pref_new, cublasLtMatmulPreferenceCreate, int, (void **ret))                      \
	X(pref_free, cublasLtMatmulPreferenceDestroy, int, (void *pref))                    \
	X(pref_set, cublasLtMatmulPreferenceSetAttribute, int,                              \
	  (void *pref, int attribute, const void *value, size_t bytes))                     \
	X(heuristic, cublasLtMatmulAlgoGetHeuristic, int,                                   \
	  (void *lt, void *desc, void *a, void *b, void *c, void *d, void *pref, int n,     \
	   struct lt_heuristic *ret, int *ret_n))                                           \
	X(matmul, cublasLtMatmul, int,                                                      \
	  (void *lt, void *desc, const void *alpha, cu_ptr a, void *la, cu_ptr b, void *lb, \
	   const void *beta, cu_ptr c, void *lc, cu_ptr d, void *ld, const void *algo,      \
	   cu_ptr workspace, size_t workspace_bytes, cu_stream stream))

/* out[m][n] = scale * x w, or added to out; row-major as in struct ka_gemm. */
struct blas_product {
	cu_ptr x, w, out;
	uint32_t m, n, k, x_stride, w_stride, out_stride;
	float scale;
	uint32_t add;
	uint32_t half; /* out is bf16, not fp32 */
};

struct blas;

/* NULL if there is no library (`why` says so) or none is wanted. workspace stays the caller's. */
struct blas *blas_open(const char *library, cu_ptr workspace, size_t workspace_bytes, char *why,
		       size_t why_bytes);
void blas_close(struct blas *b);
/* Whether the library has an algorithm for this shape; asked before the product is queued. */
bool blas_takes(struct blas *b, const struct blas_product *p);
/* 0 or the library's status. The shape must have been taken. */
int blas_run(struct blas *b, const struct blas_product *p, cu_stream stream);
size_t blas_version(const struct blas *b);

#endif
