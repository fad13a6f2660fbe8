/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device_products.c - products of one row, of the shapes of the measured model: how fast their weights are
 * read, one after another of the same shape; and the products and norms of all layers as a decoding pass
 * has them, without attention. As they are, with cuBLASLt for all of them, and with each launch beginning
 * when the one before has ended: what our own kernel and overlapping launches are worth; and with fewer and
 * more weights that come into the cache early.
 *
 * There are several weights of each shape, used in turn: no cache holds them until they come again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/backend.h"
#include "kernels/module.h"
#include "kernels/probe.h"
#include "tests/bench/device.h"

#define REPS   7
#define COPIES 4u /* of a weight at the most */

enum { QKV, OUT, GATE_UP, DOWN, HEAD, SHAPES };

struct sizes {
	uint32_t hidden, qkv, ffn, vocab, layers;
	size_t bytes; /* of the weights of a shape, at least, unless COPIES are less */
};

static const struct sizes large = {4096, 6144, 14336, 128256, 32, (size_t)200 << 20};
static const struct sizes tiny = {64, 128, 96, 192, 2, 1 << 14};

struct shape {
	uint32_t n, k, copies, next;
	struct wk_weight *w[COPIES]; /* owner */
};

struct products {
	struct figures *f;
	const struct sizes *s;
	const char *prefix;
	const struct wk_ops *ops;
	struct wk_backend *be;
	struct shape shapes[SHAPES];
	struct wk_buf *pool, *h, *x, *act, *y, *norm; /* owner */
};

static int fail(struct products *p, const char *what)
{
	figures_missing(p->f, what, p->be ? p->ops->last_error(p->be) : "it does not open");
	return -1;
}

/* --- setting up --------------------------------------------------------------------------------*/

/* Random bf16 in +-0.5..1. */
static void fill(uint16_t *to, size_t n)
{
	uint32_t x = 1;

	for (size_t i = 0; i < n; i++) {
		x = x * 1664525u + 1013904223u;
		to[i] = (uint16_t)((x >> 16 & 0x807f) | 0x3f00);
	}
}

static size_t bytes_of(const struct shape *s)
{
	return (size_t)s->n * s->k * sizeof(uint16_t);
}

static int make_weights(struct products *p)
{
	uint16_t *data = malloc(bytes_of(&p->shapes[HEAD]));
	int r = data ? 0 : -1;

	if (data)
		fill(data, (size_t)p->shapes[HEAD].n * p->shapes[HEAD].k);
	for (int i = 0; !r && i < SHAPES; i++) {
		struct shape *s = &p->shapes[i];
		bool pair = i == GATE_UP;
		const struct wk_weight_part parts[2] = {{data, WK_BF16, pair ? s->n / 2 : s->n},
							{data + (size_t)s->n / 2 * s->k, WK_BF16,
							 s->n / 2}};

		for (; !r && s->copies < COPIES &&
		       (!s->copies || s->copies * bytes_of(s) < p->s->bytes);
		     s->copies += !r)
			r = p->ops->weight_new(p->be, parts, pair ? 2 : 1, s->k,
					       pair ? WK_PACK_GATE_UP : WK_PACK_PLAIN,
					       &s->w[s->copies]);
	}
	free(data);
	return r ? fail(p, "weights") : 0;
}

static int make_buffers(struct products *p)
{
	const struct wk_kv_shape kv = {1, 1, 32, 0};
	const struct sizes *s = p->s;
	float *ones = malloc(s->hidden * sizeof(*ones));
	int r = ones ? 0 : -1;

	for (uint32_t i = 0; !r && i < s->hidden; i++)
		ones[i] = 1;
	r = r ? r : p->ops->buf_new(p->be, p->ops->kv_block_bytes(p->be, &kv), &p->pool);
	r = r ? r : p->ops->kv_bind(p->be, &kv, p->pool, 1);
	r = r ? r : p->ops->buf_new(p->be, s->hidden * sizeof(float), &p->h);
	r = r ? r : p->ops->buf_new(p->be, s->hidden * sizeof(float), &p->norm);
	r = r ? r : p->ops->buf_new(p->be, s->ffn * sizeof(uint16_t), &p->x);
	r = r ? r : p->ops->buf_new(p->be, s->ffn * sizeof(uint16_t), &p->act);
	r = r ? r : p->ops->buf_new(p->be, s->vocab * sizeof(float), &p->y);
	r = r ? r : p->ops->buf_write(p->be, p->norm, 0, ones, s->hidden * sizeof(float));
	r = r ? r : p->ops->buf_write(p->be, p->h, 0, ones, s->hidden * sizeof(float));
	free(ones);
	return r ? fail(p, "buffers") : 0;
}

static int open_all(struct products *p)
{
	const struct wk_open_options o = {.n_threads = 1};
	const struct sizes *s = p->s;
	char why[256];

	p->shapes[QKV] = (struct shape){.n = s->qkv, .k = s->hidden};
	p->shapes[OUT] = (struct shape){.n = s->hidden, .k = s->hidden};
	p->shapes[GATE_UP] = (struct shape){.n = 2 * s->ffn, .k = s->hidden};
	p->shapes[DOWN] = (struct shape){.n = s->hidden, .k = s->ffn};
	p->shapes[HEAD] = (struct shape){.n = s->vocab, .k = s->hidden};
	p->ops = wk_module_load("cuda", why, sizeof(why));
	if (!p->ops || p->ops->open(&o, &p->be)) {
		figures_missing(p->f, "products", p->ops ? p->ops->last_error(NULL) : why);
		return -1;
	}
	return make_weights(p) || make_buffers(p) ? -1 : 0;
}

static void close_all(struct products *p)
{
	struct wk_buf *const bufs[] = {p->pool, p->h, p->x, p->act, p->y, p->norm};

	if (!p->be)
		return;
	for (int i = 0; i < SHAPES; i++)
		for (uint32_t j = 0; j < p->shapes[i].copies; j++)
			p->ops->weight_free(p->be, p->shapes[i].w[j]);
	for (size_t i = 0; i < sizeof(bufs) / sizeof(*bufs); i++)
		p->ops->buf_free(p->be, bufs[i]);
	p->ops->close(p->be);
}

/* --- a pass --------------------------------------------------------------------------------------*/

static int begin(struct products *p)
{
	const uint32_t token = 0, block = 0;
	const struct wk_seq seq = {0, 1, 0, 0};

	return p->ops->batch_set(p->be, &(struct wk_batch){.n_rows = 1,
							   .n_seqs = 1,
							   .n_table = 1,
							   .tokens = &token,
							   .seqs = &seq,
							   .block_table = &block});
}

static void norm(struct products *p)
{
	p->ops->norm(p->be, &(struct wk_norm){.h = p->h,
					      .weight = p->norm,
					      .x = p->x,
					      .n_rows = 1,
					      .dim = p->s->hidden,
					      .h_stride = p->s->hidden,
					      .x_stride = p->s->ffn,
					      .eps = 1e-5f});
}

static void product(struct products *p, int shape, const struct wk_buf *x, struct wk_buf *out)
{
	struct shape *s = &p->shapes[shape];
	enum wk_epilogue epilogue = shape == GATE_UP ? WK_EPI_SWIGLU
				    : out == p->h    ? WK_EPI_ADD
						     : WK_EPI_STORE;

	p->ops->matmul(p->be, &(struct wk_matmul){.w = s->w[s->next++ % s->copies],
						  .x = x,
						  .out = out,
						  .n_rows = 1,
						  .x_stride = p->s->ffn,
						  .out_stride = shape == GATE_UP ? p->s->ffn : s->n,
						  .epilogue = epilogue,
						  .scale = 1e-6f});
}

/* So many products of a shape in a row. */
static void repeat(struct products *p, int shape, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		product(p, shape, p->act, shape == GATE_UP ? p->x : p->y);
}

static void layers(struct products *p)
{
	for (uint32_t i = 0; i < p->s->layers; i++) {
		norm(p);
		product(p, QKV, p->x, p->y);
		product(p, OUT, p->x, p->h);
		norm(p);
		product(p, GATE_UP, p->x, p->act);
		product(p, DOWN, p->act, p->h);
	}
	norm(p);
	product(p, HEAD, p->x, p->y);
}

/* Seconds of a pass of `n` products of a shape, or of all layers (SHAPES); negative: it failed. */
static double time_pass(struct products *p, int shape, uint32_t n)
{
	double start = wk_seconds();

	/* The same weights each time, or it would be another list of launches and no graph. */
	for (int i = 0; i < SHAPES; i++)
		p->shapes[i].next = 0;
	if (begin(p))
		return -1;
	if (shape == SHAPES)
		layers(p);
	else
		repeat(p, shape, n);
	return p->ops->wait(p->be, p->ops->record(p->be)) ? -1 : wk_seconds() - start;
}

static int figure(struct products *p, int shape)
{
	const struct shape *s = &p->shapes[shape < SHAPES ? shape : 0];
	/* Long enough that its beginning and end do not count: some 4 ms. */
	uint32_t n = (uint32_t)(8 * p->shapes[HEAD].n / s->n) + 8;
	double samples[REPS], bytes = (double)n * (double)bytes_of(s);
	char name[128];

	for (int i = -3; i < REPS; i++) {
		double t = time_pass(p, shape, n);

		if (t < 0)
			return fail(p, "a pass");
		if (i >= 0)
			samples[i] = shape < SHAPES ? bytes / t / 1e12 : t * 1e3;
	}
	if (shape < SHAPES)
		snprintf(name, sizeof(name), "%sproduct of 1 row, %u x %u", p->prefix, s->n, s->k);
	else
		snprintf(name, sizeof(name), "%sproducts and norms of %u layers, 1 row", p->prefix,
			 p->s->layers);
	figures_add(p->f, name, shape < SHAPES ? "TB/s" : "ms", samples, REPS, FIGURE_NONE, 0);
	return 0;
}

/* With a variable of the environment set so, or NULL; each shape, too, or all layers alone. */
static int variant(struct figures *f, const char *variable, const char *value, bool each)
{
	char prefix[48] = "";
	struct products p = {.f = f, .s = f->small ? &tiny : &large, .prefix = prefix};
	int r;

	if (variable) {
		snprintf(prefix, sizeof(prefix), "%s=%s: ", variable, value);
		setenv(variable, value, 1);
	}
	r = open_all(&p) || figure(&p, SHAPES);
	for (int i = SHAPES - 1; each && !r && i >= 0; i--)
		r = figure(&p, i);
	close_all(&p);
	if (variable)
		unsetenv(variable);
	return r;
}

int stage_products(struct figures *f)
{
	return variant(f, NULL, NULL, true) || variant(f, "WEFT_CUDA_SMALL", "0", true) ||
	       variant(f, "WEFT_CUDA_OVERLAP", "0", true) ||
	       variant(f, "WEFT_CUDA_FETCH", "0", false) ||
	       variant(f, "WEFT_CUDA_FETCH", "80", false);
}
