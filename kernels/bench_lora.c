/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_lora.c - the benchmark of adapters in products: see bench_lora.h for what is measured.
 *
 * Base and adapted steps alternate, so that a machine whose speed swings changes both. Weights and
 * pieces are small random numbers of both signs; the pieces of an adapter lie one after the other
 * in the pool, as they do when its blocks do. Everything is owned by the one call that runs.
 */
#include "kernels/bench_lora.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/backend.h"
#include "kernels/probe.h"

#define LAYERS	 30u
#define HIDDEN	 576u
#define KV	 192u
#define FFN	 1536u
#define ADAPTERS 8u
#define RANK	 16u
#define SITES	 4u
#define LINEARS	 7u
#define MAX_REPS 31u

/* The products of a layer, and the linears stacked in each. */
static const struct product {
	uint32_t n, k, first, n_linears; /* of linears[] */
	enum wk_epilogue epilogue;
} products[SITES] = {
	{HIDDEN + 2 * KV, HIDDEN, 0, 3, WK_EPI_STORE},
	{HIDDEN, HIDDEN, 3, 1, WK_EPI_ADD},
	{2 * FFN, HIDDEN, 4, 2, WK_EPI_SWIGLU},
	{HIDDEN, FFN, 6, 1, WK_EPI_ADD},
};
static const struct linear {
	uint32_t col, n;
} linears[LINEARS] = {
	{0, HIDDEN}, {HIDDEN, KV}, {HIDDEN + KV, KV}, {0, HIDDEN},
	{0, FFN},    {FFN, FFN},   {0, HIDDEN},
};

struct bench {
	const struct wk_ops *ops;
	struct wk_backend *be;
	struct wk_weight *w[LAYERS][SITES];
	struct wk_lora *loras[ADAPTERS];
	struct wk_buf *pool, *x, *mid, *y, *h;
	double weight_bytes, adapter_bytes;
};

static void fill(uint16_t *v, size_t n)
{
	static uint32_t state = 1;

	for (size_t i = 0; i < n; i++) {
		state = state * 1664525u + 1013904223u;
		v[i] = (uint16_t)((state >> 16 & 0x807f) | 0x3c00);
	}
}

/* --- set-up --------------------------------------------------------------------------------------*/

static int make_weights(struct bench *b)
{
	uint16_t *data = malloc((size_t)2 * FFN * HIDDEN * 2);
	int err = data ? 0 : -ENOMEM;

	for (uint32_t l = 0; !err && l < LAYERS; l++)
		for (uint32_t s = 0; !err && s < SITES; s++) {
			const struct product *p = &products[s];
			bool pair = p->epilogue == WK_EPI_SWIGLU;
			uint32_t n = pair ? p->n / 2 : p->n;
			struct wk_weight_part parts[2] = {{data, WK_BF16, n},
							  {data + (size_t)n * p->k, WK_BF16, n}};

			fill(data, (size_t)p->n * p->k);
			err = b->ops->weight_new(b->be, parts, pair ? 2 : 1, p->k,
						 pair ? WK_PACK_GATE_UP : WK_PACK_PLAIN,
						 &b->w[l][s]);
			if (!err)
				b->weight_bytes += (double)b->ops->weight_bytes(b->w[l][s]);
		}
	free(data);
	return err;
}

static size_t piece_bytes(const struct bench *b, const struct product *p, const struct linear *l)
{
	size_t bytes = b->ops->lora_piece_bytes(b->be, l->n, p->k);

	return (bytes + WK_POOL_ALIGN - 1) / WK_POOL_ALIGN * WK_POOL_ALIGN;
}

static size_t layer_bytes(const struct bench *b)
{
	size_t bytes = 0;

	for (uint32_t s = 0; s < SITES; s++)
		for (uint32_t i = 0; i < products[s].n_linears; i++)
			bytes += piece_bytes(b, &products[s], &linears[products[s].first + i]);
	return bytes;
}

/* One adapter's pieces from byte `at` of the pool on; `src` and `dst` have room for any. */
static int make_adapter(struct bench *b, uint64_t at, uint16_t *src, void *dst,
			struct wk_lora **ret)
{
	struct wk_lora_part parts[LAYERS * LINEARS];
	uint64_t pieces[LAYERS * LINEARS];
	uint32_t n = 0;
	char where[64];
	int err = 0;

	for (uint32_t i = 0; !err && i < LAYERS * SITES; i++) {
		const struct product *p = &products[i % SITES];

		for (uint32_t j = 0; !err && j < p->n_linears; j++, n++) {
			const struct linear *l = &linears[p->first + j];
			struct wk_lora_source s = {
				src, src + (size_t)RANK * p->k, WK_BF16, WK_BF16, RANK, l->n, p->k};

			fill(src, (size_t)RANK * (p->k + l->n));
			err = b->ops->lora_pack(b->be, &s, 0, dst, where);
			if (!err)
				err = b->ops->buf_write(b->be, b->pool, at, dst,
							b->ops->lora_piece_bytes(b->be, l->n,
										 p->k));
			pieces[n] = at;
			parts[n] = (struct wk_lora_part){.site = 1 + i,
							 .col = l->col,
							 .n = l->n,
							 .k = p->k,
							 .rank = RANK,
							 .scale = 1,
							 .pieces = &pieces[n]};
			at += piece_bytes(b, p, l);
		}
	}
	return err ? err : b->ops->lora_new(b->be, parts, n, ret);
}

static int make_adapters(struct bench *b)
{
	size_t one = layer_bytes(b) * LAYERS, room = 4u * RANK * (FFN + HIDDEN);
	struct wk_kv_shape shape = {1, 1, 8, (uint32_t)one};
	uint16_t *src = malloc(room);
	void *dst = malloc(room);
	int err = src && dst ? 0 : -ENOMEM;

	b->adapter_bytes = (double)one;
	if (!err)
		err = b->ops->buf_new(b->be, (ADAPTERS + 1) * b->ops->kv_block_bytes(b->be, &shape),
				      &b->pool);
	if (!err)
		err = b->ops->kv_bind(b->be, &shape, b->pool, ADAPTERS + 1);
	for (uint32_t a = 0; !err && a < ADAPTERS; a++)
		err = make_adapter(b, a * b->ops->kv_block_bytes(b->be, &shape), src, dst,
				   &b->loras[a]);
	free(src);
	free(dst);
	return err;
}

static int make_buffers(struct bench *b)
{
	struct wk_info info;
	uint16_t *x = malloc((size_t)WK_MAX_ROWS * FFN * 2);
	int err = x ? 0 : -ENOMEM;

	b->ops->info(b->be, &info);
	if (!err)
		err = b->ops->buf_new(b->be, (size_t)WK_MAX_ROWS * FFN * info.x_bytes, &b->x);
	if (!err)
		err = b->ops->buf_new(b->be, (size_t)WK_MAX_ROWS * FFN * info.x_bytes, &b->mid);
	if (!err)
		err = b->ops->buf_new(b->be, (size_t)WK_MAX_ROWS * (HIDDEN + 2 * KV) * 4, &b->y);
	if (!err)
		err = b->ops->buf_new(b->be, (size_t)WK_MAX_ROWS * HIDDEN * 4, &b->h);
	if (!err) {
		fill(x, (size_t)WK_MAX_ROWS * FFN);
		err = b->ops->buf_write(b->be, b->x, 0, x, (size_t)WK_MAX_ROWS * FFN * 2);
	}
	if (!err)
		err = b->ops->buf_write(b->be, b->mid, 0, x, (size_t)WK_MAX_ROWS * FFN * 2);
	free(x);
	return err;
}

static void bench_close(struct bench *b)
{
	if (!b->be)
		return;
	for (uint32_t a = 0; a < ADAPTERS; a++)
		b->ops->lora_free(b->be, b->loras[a]);
	for (uint32_t i = 0; i < LAYERS * SITES; i++)
		b->ops->weight_free(b->be, b->w[i / SITES][i % SITES]);
	b->ops->buf_free(b->be, b->pool);
	b->ops->buf_free(b->be, b->x);
	b->ops->buf_free(b->be, b->mid);
	b->ops->buf_free(b->be, b->y);
	b->ops->buf_free(b->be, b->h);
	b->ops->close(b->be);
}

/* --- measurements --------------------------------------------------------------------------------*/

/* A batch of n rows, under so many adapters, in segments of equal size; 0: the base model's. */
static int set_batch(struct bench *b, uint32_t n, uint32_t adapters)
{
	static const uint32_t zeros[WK_MAX_ROWS];
	const struct wk_seq seq = {0, n, 0, 0};
	struct wk_segment segs[ADAPTERS];
	const struct wk_lora *loras[ADAPTERS];

	for (uint32_t a = 0; a < adapters; a++) {
		segs[a] = (struct wk_segment){a * n / adapters, n / adapters, a};
		loras[a] = b->loras[a];
	}
	return b->ops->batch_set(b->be, &(struct wk_batch){.n_rows = n,
							   .n_seqs = 1,
							   .n_table = (n + 15) / 16,
							   .tokens = zeros,
							   .seqs = &seq,
							   .block_table = zeros,
							   .n_segments = adapters,
							   .segments = segs,
							   .n_loras = adapters,
							   .loras = loras});
}

static void layer(struct bench *b, uint32_t n, uint32_t l)
{
	for (uint32_t s = 0; s < SITES; s++) {
		const struct product *p = &products[s];
		bool down = p->k == FFN, glu = p->epilogue == WK_EPI_SWIGLU;
		uint32_t n_out = glu ? FFN : p->n;

		b->ops->matmul(b->be, &(struct wk_matmul){.w = b->w[l][s],
							  .x = down ? b->mid : b->x,
							  .out = glu  ? b->mid
								 : !s ? b->y
								      : b->h,
							  .n_rows = n,
							  .x_stride = p->k,
							  .out_stride = n_out,
							  .epilogue = p->epilogue,
							  .scale = 1,
							  .site = 1 + l * SITES + s});
	}
}

/* Seconds of a pass, the mean of `passes`; negative: -errno. */
static double pass(struct bench *b, uint32_t n, uint32_t adapters, uint32_t passes)
{
	double start;
	int err = set_batch(b, n, adapters);

	if (err)
		return err;
	start = wk_seconds();
	for (uint32_t i = 0; i < passes; i++)
		for (uint32_t l = 0; l < LAYERS; l++)
			layer(b, n, l);
	err = b->ops->wait(b->be, b->ops->record(b->be));
	return err ? err : (wk_seconds() - start) / passes;
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

static int compare(struct bench *b, uint32_t n, uint32_t adapters, uint32_t reps,
		   struct wk_bench_spread *ret_ratio, double *ret_base)
{
	double ratio[MAX_REPS], base[MAX_REPS];
	uint32_t passes = n > 16 ? 1 : 3;

	for (uint32_t i = 0; i <= reps; i++) {
		double before = pass(b, n, 0, passes), with = pass(b, n, adapters, 2 * passes);
		double after = pass(b, n, 0, passes);

		if (before < 0 || with < 0 || after < 0)
			return -EIO;
		if (!i)
			continue; /* the first one warms up */
		base[i - 1] = (before + after) / 2;
		ratio[i - 1] = base[i - 1] / with;
	}
	*ret_ratio = spread(ratio, reps);
	*ret_base = spread(base, reps).median;
	return 0;
}

int wk_bench_lora(uint32_t threads, const char *path, uint32_t reps, struct wk_bench_lora *ret)
{
	const struct wk_open_options opt = {.n_threads = threads, .path = path};
	struct wk_bench_lora row = {.threads = threads};
	struct bench *b = calloc(1, sizeof(*b));
	int err = -ENOMEM;

	if (!b)
		return err;
	reps = !reps ? 9 : reps < 5 ? 5 : reps < MAX_REPS ? reps : MAX_REPS;
	b->ops = &wk_cpu_ops;
	err = b->ops->open(&opt, &b->be);
	if (!err)
		err = make_weights(b);
	if (!err)
		err = make_adapters(b);
	if (!err)
		err = make_buffers(b);
	if (!err)
		err = compare(b, WK_MAX_ROWS, 1, reps, &row.prefill, &row.prefill_base_s);
	if (!err)
		err = compare(b, 2 * ADAPTERS, ADAPTERS, reps, &row.decode, &row.decode_base_s);
	if (!err)
		err = compare(b, 1, 1, reps, &row.one, &row.one_base_s);
	row.bytes_share = b->weight_bytes / (b->weight_bytes + ADAPTERS * b->adapter_bytes);
	if (!err)
		*ret = row;
	bench_close(b);
	free(b);
	return err;
}
