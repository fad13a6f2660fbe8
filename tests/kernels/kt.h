/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kt.h - helpers of the kernel tests: backends to run on, buffers from floats, random numbers.
 *
 * Whatever goes wrong in a helper ends the program: the tests are about results.
 */
#ifndef WEFT_TESTS_KERNELS_KT_H
#define WEFT_TESTS_KERNELS_KT_H

#include "kernels/backend.h"

/* A backend under test. */
struct kt {
	const struct wk_ops *ops;
	struct wk_backend *be;
	struct wk_info info;
	char label[64]; /* "cpu/avx2/2 threads" */
	double tol;	/* of results whose inputs are exact in x: relative to the largest */
};

/* Open a backend; false if this machine lacks the path. */
bool kt_open(struct kt *t, const char *name, const char *path, uint32_t threads);
void kt_close(struct kt *t);
/* Call fn for ref and for every path of cpu, with one thread and with two; or, with WEFT_TEST_BACKEND
 * in the environment, for that backend alone ("cuda", a module), whose path must then contain
 * WEFT_TEST_EXPECT if that is set. */
void kt_each(void (*fn)(struct kt *t));
/* What the tests of invariance run on: the fast backend, and its paths, the last one NULL. */
const char *kt_fast(const char *const **ret_paths);
/* Of a long list of cases only every n-th is wanted: WEFT_TEST_EVERY, 1 unless it is set. For a backend
 * under emulation, where a case takes seconds. */
uint32_t kt_every(void);
/* The same as kt_each() for cpu alone. */
void kt_each_cpu(void (*fn)(struct kt *t));

/* Buffers of n floats, or of n elements of x; NULL data: zeros. */
struct wk_buf *kt_floats(struct kt *t, const float *data, size_t n);
struct wk_buf *kt_x(struct kt *t, const float *data, size_t n);
void kt_read_floats(struct kt *t, const struct wk_buf *b, float *ret, size_t n);
void kt_read_x(struct kt *t, const struct wk_buf *b, float *ret, size_t n);
/* Plain bytes, which no backend needs to share with the host. */
void kt_read_bytes(struct kt *t, const struct wk_buf *b, size_t off, void *ret, size_t n);
void kt_write_bytes(struct kt *t, struct wk_buf *b, size_t off, const void *data, size_t n);
/* Every byte of a buffer becomes v; with 0xff it is NaN as bf16 and as fp32. */
void kt_fill_bytes(struct kt *t, struct wk_buf *b, int v, size_t n);
void kt_free(struct kt *t, struct wk_buf *b);
/* End of a queued operation: any sticky error ends the program. */
void kt_sync(struct kt *t);

/* A float in [-1, 1) that bf16 holds exactly; the generator is seeded by kt_seed(). */
void kt_seed(uint64_t seed);
uint32_t kt_random(uint32_t below);
float kt_value(void);
void kt_fill(float *f, size_t n, float scale);

/* max |got - want| / max |want|; infinite if anything is not finite. */
double kt_error(const float *got, const double *want, size_t n);

void *kt_alloc(size_t n, size_t elem);

#endif
