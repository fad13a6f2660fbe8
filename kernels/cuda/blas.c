/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blas.c - dense products by cuBLASLt.
 *
 * The library thinks in columns: out, seen as a column-major [n][m], is w (transposed) times x, so
 * nothing is moved. Plans are kept in a table of fixed size; a shape that finds its place taken
 * replaces what is there, so that memory is bounded whatever batches come.
 *
 * Owned by its backend; the table by the thread that computes.
 */
#include "kernels/cuda/blas.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PLANS 4096 /* shapes of a model are about ten for each number of rows */

struct plan {
	bool known, usable;
	uint32_t m, n, k, x_stride, w_stride, out_stride, half;
	void *la, *lb, *lc; /* owner: layouts */
	struct lt_heuristic how;
};

struct blas {
	void *library; /* owner: of dlopen */
#define LT_MEMBER(name, symbol, type, args) type(*name) args;
	LT_CALLS(LT_MEMBER)
#undef LT_MEMBER
	void *lt, *desc, *pref; /* owner */
	cu_ptr workspace;
	size_t workspace_bytes;
	struct plan plans[PLANS];
};

static const struct {
	const char *symbol;
	size_t at;
} calls[] = {
#define LT_CALL(name, symbol, type, args) {#symbol, offsetof(struct blas, name)},
	LT_CALLS(LT_CALL)
#undef LT_CALL
};

static const char *find_calls(struct blas *b)
{
	for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++) {
		void *symbol = dlsym(b->library, calls[i].symbol);

		if (!symbol)
			return calls[i].symbol;
		memcpy((char *)b + calls[i].at, &symbol, sizeof(symbol));
	}
	return NULL;
}

static const char *set_up(struct blas *b)
{
	const int transposed = LT_TRANSPOSED;
	const uint32_t align = 16; /* what every buffer and stride keeps */

	if (b->create(&b->lt))
		return "cublasLtCreate";
	if (b->desc_new(&b->desc, LT_COMPUTE_32F, LT_F32) ||
	    b->desc_set(b->desc, LT_DESC_TRANS_A, &transposed, sizeof(transposed)))
		return "cublasLtMatmulDescCreate";
	if (b->pref_new(&b->pref) || b->pref_set(b->pref, LT_PREF_WORKSPACE, &b->workspace_bytes,
						 sizeof(b->workspace_bytes)))
		return "cublasLtMatmulPreferenceCreate";
	for (int i = 0; i < 4; i++)
		if (b->pref_set(b->pref, LT_PREF_ALIGN_A + i, &align, sizeof(align)))
			return "cublasLtMatmulPreferenceSetAttribute";
	return NULL;
}

struct blas *blas_open(const char *library, cu_ptr workspace, size_t workspace_bytes, char *why,
		       size_t why_bytes)
{
	struct blas *b = calloc(1, sizeof(*b));
	const char *missing;

	if (!b)
		return NULL;
	b->workspace = workspace;
	b->workspace_bytes = workspace_bytes;
	b->library = dlopen(library, RTLD_NOW | RTLD_LOCAL);
	if (!b->library) {
		snprintf(why, why_bytes, "%s", dlerror());
		free(b);
		return NULL;
	}
	missing = find_calls(b);
	if (missing)
		snprintf(why, why_bytes, "%s has no %s", library, missing);
	else if ((missing = set_up(b)))
		snprintf(why, why_bytes, "%s: %s failed", library, missing);
	if (!missing)
		return b;
	blas_close(b);
	return NULL;
}

static void forget(struct blas *b, struct plan *p)
{
	if (p->la)
		b->layout_free(p->la);
	if (p->lb)
		b->layout_free(p->lb);
	if (p->lc)
		b->layout_free(p->lc);
	memset(p, 0, sizeof(*p));
}

void blas_close(struct blas *b)
{
	if (!b)
		return;
	for (uint32_t i = 0; i < PLANS; i++)
		forget(b, &b->plans[i]);
	if (b->pref)
		b->pref_free(b->pref);
	if (b->desc)
		b->desc_free(b->desc);
	if (b->lt)
		b->destroy(b->lt);
	dlclose(b->library);
	free(b);
}

size_t blas_version(const struct blas *b)
{
	return b->version();
}

static bool same(const struct plan *p, const struct blas_product *q)
{
	return p->known && p->m == q->m && p->n == q->n && p->k == q->k &&
	       p->x_stride == q->x_stride && p->w_stride == q->w_stride &&
	       p->out_stride == q->out_stride && p->half == q->half;
}

static struct plan *place_of(struct blas *b, const struct blas_product *q)
{
	uint64_t h = q->m * 0x9E3779B97F4A7C15u;

	h = (h ^ q->n) * 0x9E3779B97F4A7C15u;
	h = (h ^ h >> 29 ^ q->k) * 0x9E3779B97F4A7C15u;
	h = (h ^ h >> 29 ^ q->out_stride) * 0x9E3779B97F4A7C15u;
	return &b->plans[h >> 40 & (PLANS - 1)];
}

static void make_plan(struct blas *b, struct plan *p, const struct blas_product *q)
{
	int n = 0;

	forget(b, p);
	*p = (struct plan){.known = true,
			   .m = q->m,
			   .n = q->n,
			   .k = q->k,
			   .x_stride = q->x_stride,
			   .w_stride = q->w_stride,
			   .out_stride = q->out_stride,
			   .half = q->half};
	p->usable = !b->layout_new(&p->la, LT_BF16, q->k, q->n, q->w_stride) &&
		    !b->layout_new(&p->lb, LT_BF16, q->k, q->m, q->x_stride) &&
		    !b->layout_new(&p->lc, q->half ? LT_BF16 : LT_F32, q->n, q->m, q->out_stride) &&
		    !b->heuristic(b->lt, b->desc, p->la, p->lb, p->lc, p->lc, b->pref, 1, &p->how,
				  &n) &&
		    n == 1 && !p->how.state && p->how.workspace <= b->workspace_bytes;
}

bool blas_takes(struct blas *b, const struct blas_product *q)
{
	struct plan *p = place_of(b, q);

	/* The library's fast paths, and the alignment that it was told of. */
	if (q->x % 16 || q->w % 16 || q->out % 16 || q->k % 8 || q->x_stride % 8 ||
	    q->w_stride % 8 || q->out_stride % (q->half ? 8 : 4))
		return false;
	if (!same(p, q))
		make_plan(b, p, q);
	return p->usable;
}

int blas_run(struct blas *b, const struct blas_product *q, cu_stream stream)
{
	struct plan *p = place_of(b, q);
	const float beta = q->add ? 1 : 0;

	/* Another shape of this batch may have taken its place since. */
	if (!same(p, q))
		make_plan(b, p, q);
	return b->matmul(b->lt, b->desc, &q->scale, q->w, p->la, q->x, p->lb, &beta, q->out, p->lc,
			 q->out, p->lc, p->how.algo, b->workspace, b->workspace_bytes, stream);
}
