/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench.c - the matrix product benchmark: see bench.h for what is measured.
 *
 * One packed weight holds as many copies of a shape side by side as it takes to outgrow the caches;
 * a repetition multiplies by one copy after the other, through the column tile that the interface
 * offers anyway. Everything is owned by the one call that runs.
 */
#include "kernels/bench.h"
#include "kernels/backend.h"
#include "kernels/probe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_REPS    31u
#define MIN_SECONDS 0.02

/* hidden 2048, 32 heads and 8 KV heads of 64, FFN 5632, vocabulary 32000 */
static const struct shape {
	const char *name;
	uint32_t n, k;
	enum wk_epilogue epilogue;
} shapes[] = {
	{"qkv", 3072, 2048, WK_EPI_STORE},	    {"o", 2048, 2048, WK_EPI_ADD},
	{"gate_up", 2 * 5632, 2048, WK_EPI_SWIGLU}, {"down", 2048, 5632, WK_EPI_ADD},
	{"head", 32000, 2048, WK_EPI_STORE},
};

#define N_SHAPES (sizeof(shapes) / sizeof(*shapes))

struct bench {
	const struct wk_ops *ops;
	struct wk_backend *be;
	struct wk_probe *probe;
	struct wk_weight *w;
	struct wk_buf *x, *out;
	const struct shape *shape;
	char path[32];
	uint32_t copies;
	uint32_t next; /* copy to multiply by */
};

struct sample {
	double seconds, peak, stream;
};

/* --- one repetition ------------------------------------------------------------------------------*/

static void multiply(struct bench *b, uint32_t m)
{
	bool swiglu = b->shape->epilogue == WK_EPI_SWIGLU;
	uint32_t n_out = swiglu ? b->shape->n / 2 : b->shape->n;
	struct wk_matmul op = {
		.w = b->w,
		.x = b->x,
		.out = b->out,
		.n_rows = m,
		.x_stride = b->shape->k,
		.out_stride = n_out,
		.col = b->next * n_out,
		.n_cols = n_out,
		.epilogue = b->shape->epilogue,
		.scale = 1,
	};

	b->ops->matmul(b->be, &op);
	b->next = (b->next + 1) % b->copies;
}

static void repetition(struct bench *b, uint32_t m, struct sample *s)
{
	double start, end;
	uint32_t n = 0;

	s->peak = wk_probe_peak_of(b->probe, b->path);
	s->stream = wk_probe_stream_of(b->probe);
	multiply(b, m); /* what the probe drove out of the caches is not at issue */
	start = wk_seconds();
	do {
		multiply(b, m);
		end = wk_seconds();
		n++;
	} while (end - start < MIN_SECONDS);
	s->seconds = (end - start) / n;
}

/* --- statistics ----------------------------------------------------------------------------------*/

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static struct wk_bench_spread spread(double *v, uint32_t n)
{
	qsort(v, n, sizeof(*v), by_value);
	return (struct wk_bench_spread){n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2, v[0],
					v[n - 1]};
}

static void fill_row(struct wk_bench_row *row, const struct sample *s, uint32_t reps)
{
	double ops = 2.0 * row->m * row->n * row->k, bytes = 2.0 * row->n * row->k;
	double seconds[MAX_REPS], peak[MAX_REPS], stream[MAX_REPS], limit[MAX_REPS];

	for (uint32_t i = 0; i < reps; i++) {
		double by_ops = ops / s[i].peak, by_bytes = bytes / s[i].stream;

		seconds[i] = s[i].seconds;
		peak[i] = by_ops / s[i].seconds;
		stream[i] = by_bytes / s[i].seconds;
		limit[i] = s[i].seconds / (by_ops > by_bytes ? by_ops : by_bytes);
	}
	row->of_peak = spread(peak, reps);
	row->of_stream = spread(stream, reps);
	row->over_limit = spread(limit, reps);
	row->ops_s = ops / spread(seconds, reps).median;
	row->bytes_s = bytes / spread(seconds, reps).median;
}

/* --- set-up --------------------------------------------------------------------------------------*/

static void close_shape(struct bench *b)
{
	b->ops->weight_free(b->be, b->w);
	b->ops->buf_free(b->be, b->x);
	b->ops->buf_free(b->be, b->out);
	b->w = NULL;
	b->x = b->out = NULL;
}

/* Small numbers of both signs; x too, so that no sum overflows however often ADD repeats. */
static void fill(uint16_t *v, size_t n)
{
	uint32_t state = 1;

	for (size_t i = 0; i < n; i++) {
		state = state * 1664525u + 1013904223u;
		v[i] = (uint16_t)((state >> 16 & 0x807f) | 0x3c00);
	}
}

static int open_shape(struct bench *b, const struct shape *s)
{
	bool swiglu = s->epilogue == WK_EPI_SWIGLU;
	size_t one = (size_t)s->n * s->k * 2;
	uint32_t copies = (uint32_t)((WK_PROBE_STREAM_BYTES + one - 1) / one);
	struct wk_weight_part parts[2];
	uint16_t *data = malloc(one * copies);
	int err = -ENOMEM;

	if (!data)
		return err;
	fill(data, one * copies / 2);
	b->shape = s;
	b->copies = copies;
	b->next = 0;
	parts[0] = (struct wk_weight_part){data, WK_BF16, s->n * copies / (swiglu ? 2 : 1)};
	parts[1] = (struct wk_weight_part){data + one * copies / 4, WK_BF16, parts[0].n};
	err = b->ops->weight_new(b->be, parts, swiglu ? 2 : 1, s->k,
				 swiglu ? WK_PACK_GATE_UP : WK_PACK_PLAIN, &b->w);
	if (!err)
		err = b->ops->buf_new(b->be, (size_t)WK_MAX_ROWS * s->k * 2, &b->x);
	if (!err)
		err = b->ops->buf_new(b->be, (size_t)WK_MAX_ROWS * s->n * 4, &b->out);
	if (!err) {
		fill(data, (size_t)WK_MAX_ROWS * s->k);
		err = b->ops->buf_write(b->be, b->x, 0, data, (size_t)WK_MAX_ROWS * s->k * 2);
	}
	free(data);
	return err;
}

static void close_threads(struct bench *b)
{
	b->ops->close(b->be);
	wk_probe_free(b->probe);
	b->be = NULL;
	b->probe = NULL;
}

static int open_threads(struct bench *b, uint32_t threads, const char *path)
{
	struct wk_open_options opt = {.n_threads = threads, .path = path};
	struct wk_info info;
	int err = b->ops->open(&opt, &b->be);

	if (err)
		return err;
	b->ops->info(b->be, &info);
	snprintf(b->path, sizeof(b->path), "%s", info.path);
	err = wk_probe_new(threads, WK_PROBE_STREAM_BYTES, &b->probe);
	if (err)
		close_threads(b);
	return err;
}

/* --- the sweep -----------------------------------------------------------------------------------*/

struct sweep {
	struct wk_bench_options opt;
	struct wk_bench_row *rows;
	uint32_t cap, done, total;
};

static int run_shape(struct bench *b, struct sweep *sw, const struct shape *s, uint32_t threads)
{
	struct sample samples[MAX_REPS];
	int err = open_shape(b, s);

	for (uint32_t i = 0; !err && i < sw->opt.n_m && sw->done < sw->cap; i++) {
		struct wk_bench_row *row = &sw->rows[sw->done++];

		*row = (struct wk_bench_row){
			.n = s->n, .k = s->k, .m = sw->opt.m[i], .threads = threads};
		snprintf(row->name, sizeof(row->name), "%s", s->name);
		for (uint32_t r = 0; r < sw->opt.reps; r++)
			repetition(b, row->m, &samples[r]);
		err = b->ops->wait(b->be, b->ops->record(b->be));
		fill_row(row, samples, sw->opt.reps);
		if (sw->opt.row)
			sw->opt.row(sw->opt.arg, row, sw->done, sw->total);
	}
	close_shape(b);
	return err;
}

static void set_defaults(struct wk_bench_options *o)
{
	static const uint32_t ms[] = {1, 16, 48, 128, 512}, threads[] = {1, 2};

	o->reps = !o->reps ? 7 : o->reps < 5 ? 5 : o->reps > MAX_REPS ? MAX_REPS : o->reps;
	if (!o->n_m) {
		memcpy(o->m, ms, sizeof(ms));
		o->n_m = 5;
	}
	if (!o->n_threads) {
		memcpy(o->threads, threads, sizeof(threads));
		o->n_threads = 2;
	}
}

int wk_bench_matmul(const struct wk_bench_options *opt, struct wk_bench_row *rows, uint32_t cap)
{
	struct sweep sw = {.opt = *opt, .rows = rows, .cap = cap};
	struct bench b = {.ops = wk_ops_by_name("cpu")};
	int err = 0;

	set_defaults(&sw.opt);
	sw.total = (opt->only ? 1 : (uint32_t)N_SHAPES) * sw.opt.n_m * sw.opt.n_threads;
	if (sw.total > cap)
		sw.total = cap;
	for (uint32_t t = 0; !err && t < sw.opt.n_threads; t++) {
		err = open_threads(&b, sw.opt.threads[t], sw.opt.path);
		for (uint32_t i = 0; !err && i < N_SHAPES; i++)
			if (!opt->only || !strcmp(opt->only, shapes[i].name))
				err = run_shape(&b, &sw, &shapes[i], sw.opt.threads[t]);
		if (b.be)
			close_threads(&b);
	}
	return err ? err : (int)sw.done;
}
