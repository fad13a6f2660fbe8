/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_attention.c - the attention benchmark: see bench_attention.h for what is measured.
 *
 * KV is filled through rope_append with small random numbers, so that no path meets denormals or
 * infinities. Physical blocks are shuffled, as they are after a while of serving.
 */
#include "kernels/bench_attention.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/backend.h"
#include "kernels/probe.h"

#define POSITIONS 4096u
#define N_BLOCKS  (POSITIONS / WK_BLOCK_TOKENS)
#define MAX_REPS  31u

struct bench {
	const struct wk_ops *ops;
	struct wk_backend *be;
	struct wk_probe *probe;
	struct wk_buf *pool, *y, *q, *x, *inv_freq;
	struct wk_kv_shape kv;
	uint32_t n_heads;
	uint32_t table[N_BLOCKS];
	uint32_t tokens[WK_MAX_ROWS];
};

static uint32_t width(const struct bench *b)
{
	return (b->n_heads + 2 * b->kv.n_kv_heads) * b->kv.head_dim;
}

static int new_pool(struct bench *b)
{
	size_t bytes = b->ops->kv_block_bytes(b->be, &b->kv);
	uint32_t seed = 1;
	int r = b->ops->buf_new(b->be, bytes * N_BLOCKS, &b->pool);

	if (r)
		return r;
	for (uint32_t i = 0; i < N_BLOCKS; i++)
		b->table[i] = i;
	for (uint32_t i = N_BLOCKS - 1; i; i--) {
		uint32_t j, t = b->table[i];

		seed = seed * 1664525 + 1013904223;
		j = (seed >> 8) % (i + 1);
		b->table[i] = b->table[j];
		b->table[j] = t;
	}
	return b->ops->kv_bind(b->be, &b->kv, b->pool, N_BLOCKS);
}

static int new_rows(struct bench *b)
{
	size_t n = (size_t)WK_MAX_ROWS * width(b);
	uint32_t dim = b->kv.head_dim, seed = 7;
	float *y = malloc(n * sizeof(*y)), freq[256];
	int r;

	if (!y)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		seed = seed * 1664525 + 1013904223;
		y[i] = (float)(seed >> 8) / (1 << 23) - 1;
	}
	for (uint32_t i = 0; i < dim / 2; i++)
		freq[i] = 1.0f / (1 + i);
	r = b->ops->buf_new(b->be, n * sizeof(*y), &b->y);
	if (!r)
		r = b->ops->buf_write(b->be, b->y, 0, y, n * sizeof(*y));
	if (!r)
		r = b->ops->buf_new(b->be, n * 2, &b->q);
	if (!r)
		r = b->ops->buf_new(b->be, n * 2, &b->x);
	if (!r)
		r = b->ops->buf_new(b->be, dim / 2 * sizeof(float), &b->inv_freq);
	if (!r)
		r = b->ops->buf_write(b->be, b->inv_freq, 0, freq, dim / 2 * sizeof(float));
	free(y);
	return r;
}

static int set_batch(struct bench *b, uint32_t pos, uint32_t n)
{
	struct wk_seq seq = {0, n, pos, 0};

	return b->ops->batch_set(b->be, &(struct wk_batch){.n_rows = n,
							   .n_seqs = 1,
							   .n_table = N_BLOCKS,
							   .tokens = b->tokens,
							   .seqs = &seq,
							   .block_table = b->table});
}

static void attend(struct bench *b, uint32_t layer)
{
	uint32_t stride = b->n_heads * b->kv.head_dim;

	b->ops->attention(b->be, &(struct wk_attention){.q = b->q,
							.pool = b->pool,
							.x = b->x,
							.layer = layer,
							.n_heads = b->n_heads,
							.q_stride = stride,
							.x_stride = stride,
							.scale = 0.125f});
}

/* K and V of all positions and layers; leaves the batch at the last rows. */
static int fill(struct bench *b)
{
	for (uint32_t pos = 0; pos < POSITIONS; pos += WK_MAX_ROWS) {
		int r = set_batch(b, pos, WK_MAX_ROWS);

		if (r)
			return r;
		for (uint32_t layer = 0; layer < b->kv.n_layers; layer++)
			b->ops->rope_append(
				b->be,
				&(struct wk_rope_append){.y = b->y,
							 .q = b->q,
							 .pool = b->pool,
							 .inv_freq = b->inv_freq,
							 .rope_scale = 1,
							 .layer = layer,
							 .n_heads = b->n_heads,
							 .y_stride = width(b),
							 .q_stride = b->n_heads * b->kv.head_dim});
	}
	return b->ops->wait(b->be, b->ops->record(b->be));
}

static void bench_close(struct bench *b)
{
	if (!b->be)
		return;
	b->ops->buf_free(b->be, b->pool);
	b->ops->buf_free(b->be, b->y);
	b->ops->buf_free(b->be, b->q);
	b->ops->buf_free(b->be, b->x);
	b->ops->buf_free(b->be, b->inv_freq);
	b->ops->close(b->be);
}

static int bench_open(struct bench *b, uint32_t threads, const char *path)
{
	struct wk_open_options opt = {.n_threads = threads, .path = path};
	int r;

	b->ops = &wk_cpu_ops;
	r = b->ops->open(&opt, &b->be);
	if (!r)
		r = new_pool(b);
	if (!r)
		r = new_rows(b);
	return r ? r : fill(b);
}

/* --- measurements --------------------------------------------------------------------------------*/

static double prefill_ops(const struct bench *b)
{
	double keys = 0.5 * POSITIONS * (POSITIONS + 1);

	return 4.0 * b->n_heads * b->kv.head_dim * keys;
}

static double prefill_seconds(struct bench *b)
{
	double start = wk_seconds();

	for (uint32_t pos = 0; pos < POSITIONS; pos += WK_MAX_ROWS) {
		if (set_batch(b, pos, WK_MAX_ROWS))
			return -1;
		attend(b, 0);
	}
	return wk_seconds() - start;
}

static double decode_bytes(const struct bench *b)
{
	return 4.0 * b->kv.n_layers * b->kv.n_kv_heads * b->kv.head_dim * POSITIONS;
}

static double decode_seconds(struct bench *b)
{
	double start;

	if (set_batch(b, POSITIONS - 1, 1))
		return -1;
	start = wk_seconds();
	for (uint32_t layer = 0; layer < b->kv.n_layers; layer++)
		attend(b, layer);
	return wk_seconds() - start;
}

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

struct figure {
	double work; /* operations or bytes of a run */
	double (*seconds)(struct bench *b);
	bool by_peak;
};

/* The rate's median and the spread of its ratio to the limit. */
static int measure(struct bench *b, const struct figure *f, uint32_t reps, double *ret_rate,
		   struct wk_bench_spread *ret_ratio)
{
	double rate[MAX_REPS], ratio[MAX_REPS], limit, seconds;
	struct wk_info info;

	b->ops->info(b->be, &info);
	for (uint32_t i = 0; i < reps; i++) {
		limit = f->by_peak ? wk_probe_peak_of(b->probe, info.path)
				   : wk_probe_stream_of(b->probe);
		seconds = f->seconds(b);
		if (limit <= 0 || seconds <= 0)
			return -EIO;
		rate[i] = f->work / seconds;
		ratio[i] = rate[i] / limit;
	}
	*ret_ratio = spread(ratio, reps);
	*ret_rate = spread(rate, reps).median;
	return 0;
}

static int bench_one(bool prefill, uint32_t threads, const char *path, uint32_t reps,
		     struct wk_bench_attention *ret)
{
	struct bench *b = calloc(1, sizeof(*b));
	int r;

	if (!b)
		return -ENOMEM;
	b->n_heads = prefill ? 9 : 32;
	b->kv = prefill ? (struct wk_kv_shape){1, 3, 64, 0} : (struct wk_kv_shape){16, 8, 64, 0};
	r = wk_probe_new(threads, WK_PROBE_STREAM_BYTES, &b->probe);
	if (!r)
		r = bench_open(b, threads, path);
	if (!r && prefill)
		r = measure(b, &(struct figure){prefill_ops(b), prefill_seconds, true}, reps,
			    &ret->prefill_ops_s, &ret->prefill_of_peak);
	else if (!r)
		r = measure(b, &(struct figure){decode_bytes(b), decode_seconds, false}, reps,
			    &ret->decode_bytes_s, &ret->decode_of_stream);
	bench_close(b);
	wk_probe_free(b->probe);
	free(b);
	return r;
}

int wk_bench_attention(uint32_t threads, const char *path, uint32_t reps,
		       struct wk_bench_attention *ret)
{
	struct wk_bench_attention row = {.threads = threads};
	int r;

	reps = reps ? reps : 7;
	reps = reps > MAX_REPS ? MAX_REPS : reps;
	r = bench_one(true, threads, path, reps, &row);
	if (!r)
		r = bench_one(false, threads, path, reps, &row);
	if (!r)
		*ret = row;
	return r;
}
