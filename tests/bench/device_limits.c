/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device_limits.c - what the device can do at most: copies, and a dense product by cuBLASLt. By the
 * driver and that library alone, none of our kernels; on the device's primary context, which the
 * backend uses too.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/blas.h"
#include "kernels/probe.h"
#include "tests/bench/device.h"

#define REPS	  7
#define COPIES	  8u /* in a row, of one sample */
#define WORKSPACE ((size_t)32 << 20)

static int fail(struct limits *l, const char *what, cu_result r)
{
	const char *name = NULL;

	l->cu.error_name(r, &name);
	fprintf(stderr, "device-bench: %s: %s\n", what, name ? name : "an unknown error");
	return -1;
}

int limits_open(struct limits *l, size_t bytes)
{
	const char *want = getenv("WEFT_CUDA_DEVICE");
	char why[256];
	void *symbol;
	cu_result r;

	memset(l, 0, sizeof(*l));
	l->bytes = bytes;
	if (cu_driver_open(&l->cu, why, sizeof(why))) {
		fprintf(stderr, "device-bench: %s\n", why);
		return -1;
	}
	symbol = dlsym(l->cu.library, "cuMemcpyDtoDAsync_v2");
	memcpy(&l->copy, &symbol, sizeof(symbol));
	r = l->cu.init(0);
	r = r ? r : l->cu.device_get(&l->device, want ? atoi(want) : 0);
	r = r ? r : l->cu.context_retain(&l->context, l->device);
	r = r ? r : l->cu.context_set(l->context);
	r = r ? r : l->cu.stream_new(&l->stream, CU_STREAM_ASYNC);
	r = r ? r : l->cu.mem_alloc(&l->from, bytes);
	r = r ? r : l->cu.mem_alloc(&l->to, bytes);
	r = r ? r : l->cu.fill(l->from, 0x5a, bytes, l->stream);
	r = r ? r : l->cu.stream_wait(l->stream);
	if (!r && l->copy)
		return 0;
	return fail(l, "opening the device", r);
}

void limits_close(struct limits *l)
{
	if (l->to)
		l->cu.mem_free(l->to);
	if (l->from)
		l->cu.mem_free(l->from);
	if (l->stream)
		l->cu.stream_free(l->stream);
	if (l->context)
		l->cu.context_release(l->device);
	cu_driver_close(&l->cu);
}

double limits_bandwidth(struct limits *l)
{
	double start = wk_seconds();
	cu_result r = 0;

	for (uint32_t i = 0; !r && i < COPIES; i++)
		r = l->copy(l->to, l->from, l->bytes, l->stream);
	r = r ? r : l->cu.stream_wait(l->stream);
	if (r)
		return fail(l, "copying", r);
	return 2.0 * (double)l->bytes * COPIES / (wk_seconds() - start);
}

static int copies(struct limits *l, struct figures *f)
{
	double samples[REPS];

	for (int i = -1; i < REPS; i++) {
		double rate = limits_bandwidth(l);

		if (rate < 0)
			return -1;
		if (i >= 0)
			samples[i] = rate / 1e12;
	}
	figures_add(f, "limit: copy on the device, read + written", "TB/s", samples, REPS,
		    FIGURE_NONE, 0);
	return 0;
}

/* Between the device and pinned memory: what copies of blocks could reach. */
static int bus(struct limits *l, struct figures *f, bool to_host)
{
	size_t bytes = l->bytes < (size_t)256 << 20 ? l->bytes : (size_t)256 << 20;
	double samples[REPS];
	void *host = NULL;
	cu_result r = l->cu.host_alloc(&host, bytes, CU_HOST_PORTABLE | CU_HOST_MAPPED);

	if (!r)
		memset(host, 0x5a, bytes);
	for (int i = -1; !r && i < REPS; i++) {
		double start = wk_seconds();

		r = to_host ? l->cu.copy_from(host, l->from, bytes, l->stream)
			    : l->cu.copy_to(l->from, host, bytes, l->stream);
		r = r ? r : l->cu.stream_wait(l->stream);
		if (i >= 0)
			samples[i] = (double)bytes / (wk_seconds() - start) / 1e9;
	}
	if (host)
		l->cu.host_free(host);
	if (r)
		return fail(l, "copying to or from the host", r);
	figures_add(f,
		    to_host ? "limit: device to pinned memory" : "limit: pinned memory to device",
		    "GB/s", samples, REPS, FIGURE_NONE, 0);
	return 0;
}

/* --- the product -------------------------------------------------------------------------------*/

/* Random bf16 in +-1..2, by way of pinned memory: on zeros a product is faster. */
static cu_result fill_random(struct limits *l, cu_ptr to, size_t n)
{
	void *host = NULL;
	cu_result r = l->cu.host_alloc(&host, n * 2, CU_HOST_PORTABLE | CU_HOST_MAPPED);
	uint32_t state = (uint32_t)to | 1;

	for (size_t i = 0; !r && i < n; i++) {
		uint16_t v;

		state = state * 1664525u + 1013904223u;
		v = (uint16_t)((state >> 16 & 0x807f) | 0x3f80);
		memcpy((char *)host + i * 2, &v, 2);
	}
	r = r ? r : l->cu.copy_to(to, host, n * 2, l->stream);
	r = r ? r : l->cu.stream_wait(l->stream);
	if (host)
		l->cu.host_free(host);
	return r;
}

static struct blas *open_blas(cu_ptr workspace, struct figures *f)
{
	static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12",
					    "libcublasLt.so"};
	const char *given = getenv("WEFT_CUBLASLT");
	char why[256] = "none is wanted";
	struct blas *b = NULL;

	if (given)
		b = *given ? blas_open(given, workspace, WORKSPACE, why, sizeof(why)) : NULL;
	for (int i = 0; !given && !b && i < 3; i++)
		b = blas_open(names[i], workspace, WORKSPACE, why, sizeof(why));
	if (!b)
		figures_missing(f, "limit: product of 8192 by cuBLASLt", why);
	else
		figures_fact(f, "cublaslt", json_integer((json_int_t)blas_version(b)));
	return b;
}

static int product(struct limits *l, struct figures *f, struct blas *b, uint32_t n, cu_ptr at)
{
	struct blas_product p = {.x = at,
				 .w = at + (uint64_t)n * n * 2,
				 .out = at + (uint64_t)n * n * 4,
				 .m = n,
				 .n = n,
				 .k = n,
				 .x_stride = n,
				 .w_stride = n,
				 .out_stride = n,
				 .scale = 1};
	double samples[REPS];
	const int each = 10;

	if (fill_random(l, p.x, (size_t)n * n) || fill_random(l, p.w, (size_t)n * n) ||
	    !blas_takes(b, &p)) {
		figures_missing(f, "limit: product of 8192 by cuBLASLt", "it does not take it");
		return 0;
	}
	for (int i = -1; i < REPS; i++) {
		double start = wk_seconds();
		int r = 0;

		for (int k = 0; !r && k < each; k++)
			r = blas_run(b, &p, l->stream);
		if (r || l->cu.stream_wait(l->stream))
			return fail(l, "a product", r);
		if (i >= 0)
			samples[i] = 2.0 * n * n * (double)n * each / (wk_seconds() - start) / 1e12;
	}
	figures_add(f, "limit: product of 8192 by cuBLASLt, bf16, fp32 out", "TFLOP/s", samples,
		    REPS, FIGURE_NONE, 0);
	return 0;
}

static int products(struct limits *l, struct figures *f)
{
	const uint32_t n = 8192;
	cu_ptr at = 0, workspace = 0;
	struct blas *b = NULL;
	int r = l->cu.mem_alloc(&at, (size_t)n * n * 8);

	r = r ? r : l->cu.mem_alloc(&workspace, WORKSPACE);
	if (r)
		fail(l, "memory for a product", r);
	else if ((b = open_blas(workspace, f)))
		r = product(l, f, b, n, at);
	blas_close(b);
	if (workspace)
		l->cu.mem_free(workspace);
	if (at)
		l->cu.mem_free(at);
	return r;
}

static void facts(struct limits *l, struct figures *f)
{
	char name[64] = "";
	int version = 0, n = 0;

	l->cu.device_name(name, sizeof(name), l->device);
	l->cu.driver_version(&version);
	l->cu.device_attribute(&n, CU_MULTIPROCESSORS, l->device);
	figures_fact(f, "device", json_string(name));
	figures_fact(f, "cuda_version_of_driver", json_integer(version));
	figures_fact(f, "multiprocessors", json_integer(n));
}

int stage_limits(struct figures *f)
{
	struct limits l;
	int r = limits_open(&l, f->small ? (size_t)4 << 20 : (size_t)4 << 30);

	if (!r) {
		facts(&l, f);
		r = copies(&l, f) || bus(&l, f, true) || bus(&l, f, false) || products(&l, f);
	}
	limits_close(&l);
	return r ? -1 : 0;
}
