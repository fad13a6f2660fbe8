/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_model.c - whole passes of the 1b and 135m shapes against what the machine can do.
 *
 * A repetition probes the limit, runs, and probes again: its ratio is taken against the mean of
 * both, because on shared machines bandwidth and clock swing from second to second. Bytes are
 * those that a pass has to read: every weight but the embedding, of which a row is read per token,
 * and the KV. Operations are model_flops(): causal attention counts what is attended to.
 *
 * Everything is owned by the one call that runs.
 */
#include "tools/bench_model.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/common/err.h"
#include "daemon/engine/model/model.h"
#include "kernels/probe.h"
#include "tools/bench.h"
#include "tools/model_make.h"
#include "tools/progress.h"

#define MAX_REPS       31u
#define MAX_SEQS       16u
#define DECODE_CONTEXT 128u  /* positions before the decode steps */
#define LONG_CONTEXT   4096u /* of the attention and the long prefill */

struct bench {
	const struct bench_model_options *opt;
	struct bench_table *table;
	const struct wk_ops *ops;
	struct wk_backend *be;
	struct wk_probe *probe;
	struct wk_info info;
	struct model *m;
	const struct model_config *c; /* of m */
	struct wk_buf *pool;
	uint32_t reps;
	double samples[MAX_REPS];
};

/* The machine's limits, means of a probe before and one after. */
struct limits {
	double peak, stream;
};

static void probe_add(struct bench *b, struct limits *l)
{
	l->peak += wk_probe_peak_of(b->probe, b->info.path) / 2;
	l->stream += wk_probe_stream_of(b->probe) / 2;
}

static int fail(const char *what, const char *why)
{
	fprintf(stderr, "weft bench: %s: %s\n", what, why);
	return -1;
}

/* --- passes --------------------------------------------------------------------------------------*/

/* One pass of n_seqs sequences, each of n_rows rows after `pos` positions, logits of the last. */
static int pass(struct bench *b, uint32_t n_seqs, uint32_t n_rows, uint32_t pos)
{
	const uint32_t blocks = (pos + n_rows + WK_BLOCK_TOKENS - 1) / WK_BLOCK_TOKENS;
	uint32_t tokens[WK_MAX_ROWS], out[MAX_SEQS];
	uint32_t table[MAX_SEQS * LONG_CONTEXT / WK_BLOCK_TOKENS];
	struct wk_seq seqs[MAX_SEQS];
	const struct wk_batch batch = {.n_rows = n_seqs * n_rows,
				       .n_seqs = n_seqs,
				       .n_table = n_seqs * blocks,
				       .n_out = n_seqs,
				       .tokens = tokens,
				       .seqs = seqs,
				       .block_table = table,
				       .out_rows = out};

	for (uint32_t i = 0; i < batch.n_rows; i++)
		tokens[i] = (i * 7919 + pos) % b->c->vocab;
	for (uint32_t i = 0; i < batch.n_table; i++)
		table[i] = i;
	for (uint32_t s = 0; s < n_seqs; s++) {
		seqs[s] = (struct wk_seq){s * n_rows, n_rows, pos, s * blocks};
		out[s] = (s + 1) * n_rows - 1;
	}
	if (model_forward(b->m, b->pool, &batch))
		return -1;
	return b->ops->wait(b->be, b->ops->record(b->be));
}

/* A prompt in passes of WK_MAX_ROWS. */
static int prefill(struct bench *b, uint32_t n)
{
	for (uint32_t at = 0; at < n; at += WK_MAX_ROWS)
		if (pass(b, 1, n - at < WK_MAX_ROWS ? n - at : WK_MAX_ROWS, at))
			return -1;
	return 0;
}

static double prefill_flops(const struct bench *b, uint32_t n)
{
	double flops = 0;

	for (uint32_t at = 0; at < n; at += WK_MAX_ROWS)
		flops += model_flops(b->c, n - at < WK_MAX_ROWS ? n - at : WK_MAX_ROWS, at, 1);
	return flops;
}

static double kv_bytes(const struct model_config *c, uint32_t positions)
{
	return 2.0 * 2 * c->n_layers * c->n_kv_heads * c->head_dim * positions;
}

/* What a decode step of n sequences has to read. */
static double step_bytes(const struct model_config *c, uint32_t n, uint32_t context)
{
	const double q = (double)c->n_heads * c->head_dim, kv = (double)c->n_kv_heads * c->head_dim;
	double layer = c->hidden * (q + 2 * kv) + q * c->hidden + 3.0 * c->hidden * c->ffn;

	return 2 * (layer * c->n_layers + (double)c->hidden * c->vocab) + n * kv_bytes(c, context);
}

/* --- figures -------------------------------------------------------------------------------------*/

static void add(struct bench *b, const char *name, const char *unit, enum bench_goal goal,
		double target)
{
	bench_add_samples(b->table, name, unit, b->samples, b->reps, goal, target);
}

static int bench_prefill(struct bench *b, uint32_t n, const char *name, const char *rate_name,
			 double target)
{
	const double flops = prefill_flops(b, n);
	double rate[MAX_REPS];

	if (prefill(b, n < WK_MAX_ROWS ? n : WK_MAX_ROWS)) /* touches every buffer */
		return fail(name, b->ops->last_error(b->be));
	for (uint32_t i = 0; i < b->reps; i++) {
		struct limits l = {0};
		double start;

		probe_add(b, &l);
		start = wk_seconds();
		if (prefill(b, n))
			return fail(name, b->ops->last_error(b->be));
		rate[i] = n / (wk_seconds() - start);
		probe_add(b, &l);
		b->samples[i] = flops * rate[i] / n / l.peak;
		progress_step();
	}
	add(b, name, "of peak", BENCH_AT_LEAST, target);
	memcpy(b->samples, rate, sizeof(rate));
	add(b, rate_name, "tokens/s", BENCH_NONE, 0);
	return 0;
}

/* Steps of n sequences; the mean of a few is one sample. */
static int decode_sample(struct bench *b, uint32_t n, double *ret_seconds)
{
	const uint32_t steps = n > 4 ? 2 : 4;
	double start = wk_seconds();

	for (uint32_t i = 0; i < steps; i++)
		if (pass(b, n, 1, DECODE_CONTEXT))
			return fail("decode", b->ops->last_error(b->be));
	*ret_seconds = (wk_seconds() - start) / steps;
	return 0;
}

static int bench_decode(struct bench *b, uint32_t n)
{
	const double bytes = step_bytes(b->c, n, DECODE_CONTEXT);
	const double flops = n * model_flops(b->c, 1, DECODE_CONTEXT, 1);
	double seconds, rate[MAX_REPS];

	if (pass(b, n, WK_MAX_ROWS / MAX_SEQS, 0) || decode_sample(b, n, &seconds))
		return fail("decode", b->ops->last_error(b->be));
	for (uint32_t i = 0; i < b->reps; i++) {
		struct limits l = {0};
		double limit;

		probe_add(b, &l);
		if (decode_sample(b, n, &seconds))
			return -1;
		probe_add(b, &l);
		limit = bytes / l.stream > flops / l.peak ? bytes / l.stream : flops / l.peak;
		b->samples[i] = n == 1 ? bytes / seconds / l.stream : seconds / limit;
		rate[i] = n / seconds;
		progress_step();
	}
	if (n == 1)
		add(b, "decode 1b, batch 1", "of bandwidth", BENCH_AT_LEAST, 0.85);
	else
		add(b, "decode 1b, batch 16, step time", "of the limit", BENCH_AT_MOST, 1.25);
	memcpy(b->samples, rate, sizeof(rate));
	add(b, n == 1 ? "decode 1b, batch 1, rate" : "decode 1b, batch 16, rate", "tokens/s",
	    BENCH_NONE, 0);
	return 0;
}

/* Attention of one row over a long context, layer after layer; the pool holds random numbers. */
static int bench_attention(struct bench *b)
{
	const uint32_t n_q = b->c->n_heads * b->c->head_dim, positions = LONG_CONTEXT - 1;
	uint32_t table[LONG_CONTEXT / WK_BLOCK_TOKENS], token = 0;
	const struct wk_seq seq = {0, 1, positions, 0};
	const struct wk_batch batch = {.n_rows = 1,
				       .n_seqs = 1,
				       .n_table = LONG_CONTEXT / WK_BLOCK_TOKENS,
				       .tokens = &token,
				       .seqs = &seq,
				       .block_table = table};
	struct wk_attention op = {.pool = b->pool,
				  .n_heads = b->c->n_heads,
				  .q_stride = n_q,
				  .x_stride = n_q,
				  .scale = b->c->attention_scale};
	struct wk_buf *q = NULL, *x = NULL;
	int r;

	for (uint32_t i = 0; i < batch.n_table; i++)
		table[i] = i;
	r = b->ops->buf_new(b->be, (size_t)n_q * b->info.x_bytes, &q);
	r = r ? r : b->ops->buf_new(b->be, (size_t)n_q * b->info.x_bytes, &x);
	r = r ? r : b->ops->batch_set(b->be, &batch);
	op.q = q;
	op.x = x;
	for (uint32_t i = 0; !r && i < b->reps + 1; i++) {
		const uint32_t walks = 4;
		struct limits l = {0};
		double start;

		probe_add(b, &l);
		start = wk_seconds();
		for (uint32_t k = 0; k < walks; k++)
			for (op.layer = 0; op.layer < b->c->n_layers; op.layer++)
				b->ops->attention(b->be, &op);
		r = b->ops->wait(b->be, b->ops->record(b->be));
		start = wk_seconds() - start;
		probe_add(b, &l);
		if (i) /* the first one warms up */
			b->samples[i - 1] =
				walks * kv_bytes(b->c, positions + 1) / start / l.stream;
		progress_step();
	}
	b->ops->buf_free(b->be, q);
	b->ops->buf_free(b->be, x);
	if (r)
		return fail("attention", b->ops->last_error(b->be));
	add(b, "decode attention, 4096 positions", "of bandwidth", BENCH_AT_LEAST, 0.7);
	return 0;
}

/* --- models --------------------------------------------------------------------------------------*/

static void close_model(struct bench *b)
{
	if (b->pool)
		model_pool_free(b->m, b->pool);
	model_close(b->m);
	b->pool = NULL;
	b->m = NULL;
}

int bench_fill_pool(const struct wk_ops *ops, struct wk_backend *be, struct wk_buf *pool,
		    size_t bytes)
{
	uint16_t *chunk = malloc(1 << 20);
	uint32_t state = 1;
	int r = 0;

	if (!chunk)
		return -ENOMEM;
	for (size_t i = 0; i < (1 << 20) / 2; i++) {
		state = state * 1664525u + 1013904223u;
		chunk[i] = (uint16_t)((state >> 16 & 0x807f) | 0x3f00); /* +-0.5..1 */
	}
	for (size_t at = 0; !r && at < bytes; at += 1 << 20)
		r = ops->buf_write(be, pool, at, chunk,
				   bytes - at < 1 << 20 ? bytes - at : 1 << 20);
	free(chunk);
	return r;
}

/* dir/shape, if it is not there. */
static int make_model(const char *dir, const char *shape)
{
	char path[PATH_MAX], config[PATH_MAX];
	const struct model_make_options make = {
		.dir = path, .shape = shape, .arch = "llama", .seed = 1};
	struct weft_err err;

	if (snprintf(path, sizeof(path), "%s/%s", dir, shape) >= (int)sizeof(path) - 16)
		return fail(dir, "the path is too long");
	snprintf(config, sizeof(config), "%.4080s/config.json", path);
	if (access(config, F_OK) && model_make(&make, &err))
		return fail("cannot make a model", err.message);
	return 0;
}

static int open_model(struct bench *b, const char *dir, const char *shape, double *ret_seconds)
{
	const uint32_t blocks = LONG_CONTEXT / WK_BLOCK_TOKENS;
	char path[PATH_MAX];
	const struct model_open_options open = {.dir = path};
	struct weft_err err;
	double start;

	snprintf(path, sizeof(path), "%.4080s/%s", dir, shape);
	start = wk_seconds();
	if (model_open(b->ops, b->be, &open, &b->m, &err))
		return fail("cannot load", err.message);
	*ret_seconds = wk_seconds() - start;
	b->c = model_config_of(b->m);
	if (model_pool_new(b->m, blocks, &b->pool, &err))
		return fail("KV pool", err.message);
	if (bench_fill_pool(b->ops, b->be, b->pool, blocks * model_block_bytes(b->m)))
		return fail("KV pool", b->ops->last_error(b->be));
	return 0;
}

/* Once to have the files in the page cache, then for the clock; the last one stays open. */
static int bench_load(struct bench *b, const char *dir)
{
	double seconds;

	if (open_model(b, dir, "1b", &seconds))
		return -1;
	for (uint32_t i = 0; i < b->reps; i++) {
		close_model(b);
		if (open_model(b, dir, "1b", &b->samples[i]))
			return -1;
		progress_step();
	}
	add(b, "load 1b, page cache warm", "s", BENCH_AT_MOST, 4);
	return 0;
}

static int run_1b(struct bench *b, const char *dir)
{
	int r;

	r = bench_load(b, dir);
	r = r ? r : bench_attention(b);
	r = r ? r : bench_prefill(b, 512, "prefill 1b, 512 tokens", "prefill 1b, rate", 0.75);
	r = r ? r : bench_decode(b, 1);
	return r ? r : bench_decode(b, MAX_SEQS);
}

static int run_135m(struct bench *b, const char *dir)
{
	char path[PATH_MAX];
	double seconds;
	int r;

	r = open_model(b, dir, "135m", &seconds);
	r = r ? r
	      : bench_prefill(b, LONG_CONTEXT, "prefill 135m, 4096 tokens", "prefill 135m, rate",
			      0.6);
	if (r)
		return r;
	model_pool_free(b->m, b->pool);
	b->pool = NULL;
	snprintf(path, sizeof(path), "%.4080s/135m", dir);
	return bench_model_lora(b->ops, b->be, b->m, path, b->reps, b->table);
}

static int run(struct bench *b, const char *dir)
{
	const struct wk_open_options open = {.n_threads = b->opt->threads};
	int r;

	if (b->ops->open(&open, &b->be))
		return fail("cpu backend", "cannot open");
	b->ops->info(b->be, &b->info);
	if (wk_probe_new(b->info.n_threads, WK_PROBE_STREAM_BYTES, &b->probe))
		return fail("probe", "no memory or threads");
	r = make_model(dir, "1b");
	r = r ? r : make_model(dir, "135m");
	/* Loads, attention, a prefill and two decodes of 1b; a prefill of 135m and what adapters cost. */
	progress_begin("weft bench model",
		       b->reps + (b->reps + 1) + 3 * b->reps + b->reps + 3 * (b->reps + 1));
	r = r ? r : run_1b(b, dir);
	close_model(b);
	r = r ? r : run_135m(b, dir);
	progress_end();
	close_model(b);
	return r;
}

static void remove_models(const char *dir)
{
	static const char *const names[] = {"config.json", "generation_config.json",
					    "model.safetensors", ""};
	static const char *const shapes[] = {"1b", "135m"};
	char path[PATH_MAX + 64];

	for (int s = 0; s < 2; s++)
		for (int i = 0; i < 4; i++) {
			snprintf(path, sizeof(path), "%s/%s/%s", dir, shapes[s], names[i]);
			if (*names[i])
				unlink(path);
			else
				rmdir(path);
		}
	rmdir(dir);
}

int bench_model(const struct bench_model_options *opt, struct bench_table *t)
{
	struct bench b = {.opt = opt, .table = t, .ops = wk_ops_by_name("cpu")};
	const char *tmp = getenv("TMPDIR");
	char temp[PATH_MAX];
	int r;

	if (!b.ops)
		return fail("cpu backend", "not built in");
	b.reps = opt->reps < 5 ? 5 : opt->reps < MAX_REPS ? opt->reps : MAX_REPS;
	if (!opt->dir) {
		snprintf(temp, sizeof(temp), "%s/weft-bench.XXXXXX", tmp ? tmp : "/tmp");
		if (!mkdtemp(temp))
			return fail(temp, strerror(errno));
	}
	r = run(&b, opt->dir ? opt->dir : temp);
	wk_probe_free(b.probe);
	b.ops->close(b.be);
	if (!opt->dir)
		remove_models(temp);
	return r;
}
