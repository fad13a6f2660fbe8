/* SPDX-License-Identifier: Apache-2.0 */
/* kt.c - helpers of the kernel tests. */
#include "tests/kernels/kt.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/convert.h"
#include "kernels/module.h"
#include "tests/tap.h"

static uint64_t state = 1;

bool kt_open(struct kt *t, const char *name, const char *path, uint32_t threads)
{
	struct wk_open_options opt = {.n_threads = threads, .path = path};

	memset(t, 0, sizeof(*t));
	t->ops = wk_ops_by_name(name);
	if (!t->ops) {
		char why[256];

		t->ops = wk_module_load(name, why, sizeof(why));
		if (!t->ops)
			diag("%s", why);
	}
	if (!t->ops || t->ops->open(&opt, &t->be) < 0)
		return false;
	t->ops->info(t->be, &t->info);
	snprintf(t->label, sizeof(t->label), "%s/%s/%u", t->info.name, t->info.path,
		 t->info.n_threads);
	/* fp32: accumulated rounding. Results in bf16: half an ulp, 2^-9, and that again on the way. */
	t->tol = t->info.x_bytes == 4 ? 2e-6 : 6e-3;
	return true;
}

void kt_close(struct kt *t)
{
	t->ops->close(t->be);
	t->be = NULL;
}

/* The backend that the environment asks for, if it does. */
static bool only_one(void (*fn)(struct kt *t))
{
	const char *name = getenv("WEFT_TEST_BACKEND"), *part = getenv("WEFT_TEST_EXPECT");
	struct kt t;

	if (!name)
		return false;
	if (!kt_open(&t, name, getenv("WEFT_TEST_PATH"), 1))
		bail_out(t.ops ? t.ops->last_error(NULL) : "no such backend");
	if (part && !strstr(t.info.path, part))
		bail_out(t.ops->last_error(t.be));
	fn(&t);
	kt_close(&t);
	return true;
}

const char *kt_fast(const char *const **ret_paths)
{
	static const char *const cpu[] = {"avx2", "avx512", "avx512bf16", NULL};
	static const char *const module[] = {"own", NULL};
	const char *name = getenv("WEFT_TEST_BACKEND");

	*ret_paths = name ? module : cpu;
	return name ? name : "cpu";
}

uint32_t kt_every(void)
{
	const char *text = getenv("WEFT_TEST_EVERY");
	int n = text ? atoi(text) : 1;

	return n > 0 ? (uint32_t)n : 1;
}

void kt_each_cpu(void (*fn)(struct kt *t))
{
	static const char *const paths[] = {"avx512bf16", "avx512", "avx2"};
	struct kt t;

	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		for (uint32_t threads = 1; threads <= 2; threads++) {
			if (!kt_open(&t, "cpu", paths[i], threads)) {
				diag("this machine has no %s", paths[i]);
				skip(1, "no such instructions here");
				continue;
			}
			fn(&t);
			kt_close(&t);
		}
}

void kt_each(void (*fn)(struct kt *t))
{
	struct kt t;

	if (only_one(fn))
		return;
	if (!kt_open(&t, "ref", NULL, 1))
		bail_out("no ref backend");
	fn(&t);
	kt_close(&t);
	kt_each_cpu(fn);
}

void *kt_alloc(size_t n, size_t elem)
{
	void *p = calloc(n ? n : 1, elem);

	if (!p)
		bail_out("out of memory");
	return p;
}

static struct wk_buf *new_buf(struct kt *t, const void *data, size_t bytes)
{
	struct wk_buf *b;

	if (t->ops->buf_new(t->be, bytes, &b) < 0 ||
	    (data && t->ops->buf_write(t->be, b, 0, data, bytes) < 0))
		bail_out("no buffer");
	return b;
}

struct wk_buf *kt_floats(struct kt *t, const float *data, size_t n)
{
	return new_buf(t, data, n * sizeof(float));
}

struct wk_buf *kt_x(struct kt *t, const float *data, size_t n)
{
	struct wk_buf *b;
	uint16_t *h;

	if (t->info.x_bytes == 4)
		return kt_floats(t, data, n);
	if (!data)
		return new_buf(t, NULL, n * 2);
	h = kt_alloc(n, sizeof(*h));
	for (size_t i = 0; i < n; i++)
		h[i] = wk_f32_to_bf16(data[i]);
	b = new_buf(t, h, n * 2);
	free(h);
	return b;
}

void kt_read_floats(struct kt *t, const struct wk_buf *b, float *ret, size_t n)
{
	kt_sync(t);
	if (t->ops->buf_read(t->be, b, 0, ret, n * sizeof(float)) < 0)
		bail_out("cannot read a buffer");
}

void kt_read_x(struct kt *t, const struct wk_buf *b, float *ret, size_t n)
{
	uint16_t *h;

	if (t->info.x_bytes == 4) {
		kt_read_floats(t, b, ret, n);
		return;
	}
	kt_sync(t);
	h = kt_alloc(n, sizeof(*h));
	if (t->ops->buf_read(t->be, b, 0, h, n * 2) < 0)
		bail_out("cannot read a buffer");
	for (size_t i = 0; i < n; i++)
		ret[i] = wk_bf16_to_f32(h[i]);
	free(h);
}

void kt_read_bytes(struct kt *t, const struct wk_buf *b, size_t off, void *ret, size_t n)
{
	kt_sync(t);
	if (t->ops->buf_read(t->be, b, off, ret, n) < 0)
		bail_out("cannot read a buffer");
}

void kt_write_bytes(struct kt *t, struct wk_buf *b, size_t off, const void *data, size_t n)
{
	if (t->ops->buf_write(t->be, b, off, data, n) < 0)
		bail_out("cannot write a buffer");
}

void kt_fill_bytes(struct kt *t, struct wk_buf *b, int v, size_t n)
{
	char *bytes = kt_alloc(n, 1);

	memset(bytes, v, n);
	kt_write_bytes(t, b, 0, bytes, n);
	free(bytes);
}

void kt_free(struct kt *t, struct wk_buf *b)
{
	t->ops->buf_free(t->be, b);
}

void kt_sync(struct kt *t)
{
	if (t->ops->wait(t->be, t->ops->record(t->be)) < 0)
		bail_out(t->ops->last_error(t->be));
}

void kt_seed(uint64_t seed)
{
	state = seed * 2 + 1;
}

uint32_t kt_random(uint32_t below)
{
	state = state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((state >> 32) * below >> 32);
}

float kt_value(void)
{
	/* 8 significant bits: what bf16 has. */
	return (float)((int)kt_random(256) - 128) / 128;
}

void kt_fill(float *f, size_t n, float scale)
{
	for (size_t i = 0; i < n; i++)
		f[i] = kt_value() * scale;
}

double kt_error(const float *got, const double *want, size_t n)
{
	double worst = 0, max = 0;

	for (size_t i = 0; i < n; i++) {
		if (!isfinite(got[i]))
			return INFINITY;
		worst = fmax(worst, fabs(got[i] - want[i]));
		max = fmax(max, fabs(want[i]));
	}
	return max > 0 ? worst / max : worst;
}
