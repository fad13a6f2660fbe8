/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_model_lora.c - whole passes of the 135m shape with adapters against the same without.
 *
 * Eight random adapters of r = 16 and all seven linears: decode steps of 16 rows, two of each
 * adapter, after 1,024 positions and after few, where hardly anything but weights is read and the
 * adapters' bytes alone cost a fifth; and a prefill of 512 rows under one. A sample is a base pass
 * before and after the adapted ones, so that a machine whose speed swings changes both. The pool is
 * one of its own, with room for the adapters.
 *
 * Everything is owned by the one call that runs; the adapters' folders are removed as they are read.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/common/err.h"
#include "daemon/engine/model/adapter.h"
#include "kernels/probe.h"
#include "tools/adapter_make.h"
#include "tools/bench.h"
#include "tools/bench_model.h"
#include "tools/progress.h"

#define ADAPTERS 8u
#define RANK	 16u
#define ROWS	 16u
#define CONTEXT	 1024u /* positions before the decode steps */
#define SHORT	 128u
#define KV_BLOCKS \
	(ROWS * (CONTEXT + WK_BLOCK_TOKENS) / WK_BLOCK_TOKENS + WK_MAX_ROWS / WK_BLOCK_TOKENS)
#define SCATTER \
	421u /* blocks lie as after a while of serving; no divisor in common with their number */
#define MAX_REPS 31u

struct bench {
	const struct wk_ops *ops;
	struct wk_backend *be;
	struct model *m;
	struct wk_buf *pool;
	struct adapter *adapters[ADAPTERS];
	uint32_t vocab;
};

static int fail(const char *what, const char *why)
{
	fprintf(stderr, "weft bench: %s: %s\n", what, why);
	return -1;
}

/* --- adapters ------------------------------------------------------------------------------------*/

static int open_adapter(struct bench *b, const char *model_dir, uint32_t i)
{
	static const char *const files[] = {"adapter_config.json", "adapter_model.safetensors"};
	const struct adapter_source source = {.name = "random"};
	char dir[PATH_MAX], file[PATH_MAX + 64];
	const struct adapter_make_options make = {.dir = dir,
						  .model = model_dir,
						  .targets = "all",
						  .dtype = "bf16",
						  .rank = RANK,
						  .alpha = -1,
						  .strength = 0.1,
						  .seed = i + 1};
	struct weft_err err;
	int r;

	if (snprintf(dir, sizeof(dir), "%s/adapter-%u.%ld", model_dir, i, (long)getpid()) >=
	    (int)sizeof(dir))
		return fail(model_dir, "the path is too long");
	r = adapter_make(&make, &err);
	if (!r)
		r = adapter_open_dir(b->m, model_block_bytes(b->m), dir, &source, &b->adapters[i],
				     &err);
	for (int f = 0; f < 2; f++) {
		snprintf(file, sizeof(file), "%s/%s", dir, files[f]);
		unlink(file);
	}
	rmdir(dir);
	return r ? fail("adapters", err.message) : 0;
}

/* All adapters, and a pool that holds them after its blocks of KV. */
static int place_adapters(struct bench *b)
{
	uint32_t n = KV_BLOCKS, *blocks = NULL, at = KV_BLOCKS;
	struct weft_err err;
	int r = 0;

	for (uint32_t i = 0; i < ADAPTERS; i++)
		n += adapter_blocks(b->adapters[i]);
	if (model_pool_new(b->m, n, &b->pool, &err))
		return fail("pool", err.message);
	blocks = malloc(n * sizeof(*blocks));
	if (!blocks)
		return fail("pool", "no memory");
	for (uint32_t i = 0; i < n; i++)
		blocks[i] = i;
	r = bench_fill_pool(b->ops, b->be, b->pool, KV_BLOCKS * model_block_bytes(b->m));
	for (uint32_t i = 0; !r && i < ADAPTERS; i++) {
		r = adapter_place(b->adapters[i], b->m, b->pool, blocks + at);
		at += adapter_blocks(b->adapters[i]);
	}
	free(blocks);
	return r ? fail("adapters", strerror(-r)) : 0;
}

static void close_adapters(struct bench *b)
{
	for (uint32_t i = 0; i < ADAPTERS; i++) {
		if (b->adapters[i] && adapter_lora(b->adapters[i]))
			adapter_remove(b->adapters[i], b->m);
		adapter_close(b->adapters[i]);
	}
	if (b->pool)
		model_pool_free(b->m, b->pool);
}

/* --- passes --------------------------------------------------------------------------------------*/

/* n_seqs sequences of n_rows rows each after `pos` positions, over so many adapters in turn. */
static int pass(struct bench *b, uint32_t n_seqs, uint32_t n_rows, uint32_t pos, uint32_t adapters)
{
	uint32_t blocks = (pos + n_rows + WK_BLOCK_TOKENS - 1) / WK_BLOCK_TOKENS;
	uint32_t tokens[WK_MAX_ROWS], out[ROWS], table[KV_BLOCKS];
	struct wk_seq seqs[ROWS];
	struct wk_segment segments[ADAPTERS];
	const struct wk_lora *loras[ADAPTERS];
	struct wk_batch batch = {.n_rows = n_seqs * n_rows,
				 .n_seqs = n_seqs,
				 .n_table = n_seqs * blocks,
				 .n_out = n_seqs,
				 .tokens = tokens,
				 .seqs = seqs,
				 .block_table = table,
				 .out_rows = out,
				 .n_segments = adapters,
				 .segments = segments,
				 .n_loras = adapters,
				 .loras = loras};

	for (uint32_t i = 0; i < batch.n_rows; i++)
		tokens[i] = (i * 7919 + pos) % b->vocab;
	for (uint32_t i = 0; i < batch.n_table; i++)
		table[i] = i * SCATTER % KV_BLOCKS;
	for (uint32_t s = 0; s < n_seqs; s++) {
		seqs[s] = (struct wk_seq){s * n_rows, n_rows, pos, s * blocks};
		out[s] = (s + 1) * n_rows - 1;
	}
	for (uint32_t a = 0; a < adapters; a++) {
		segments[a] = (struct wk_segment){batch.n_rows / adapters * a,
						  batch.n_rows / adapters, a};
		loras[a] = adapter_lora(b->adapters[a]);
	}
	if (model_forward(b->m, b->pool, &batch))
		return -1;
	return b->ops->wait(b->be, b->ops->record(b->be));
}

/* Seconds of `n` passes, or negative. `context`: decode after so many positions; 0: prefill. */
static double passes(struct bench *b, uint32_t context, uint32_t adapters, uint32_t n)
{
	double start = wk_seconds();

	for (uint32_t i = 0; i < n; i++)
		if (context ? pass(b, ROWS, 1, context, adapters)
			    : pass(b, 1, WK_MAX_ROWS, 0, adapters))
			return -1;
	return wk_seconds() - start;
}

/* target 0: none */
static int compare(struct bench *b, struct bench_table *t, uint32_t context, double target,
		   uint32_t reps)
{
	double samples[MAX_REPS];
	uint32_t adapters = context ? ADAPTERS : 1, n = context ? 4 : 1;
	char name[96];

	for (uint32_t i = 0; i <= reps; i++) {
		double before = passes(b, context, 0, n);
		double with = passes(b, context, adapters, 2 * n);
		double after = passes(b, context, 0, n);

		if (before < 0 || with < 0 || after < 0)
			return fail("adapters", b->ops->last_error(b->be));
		if (i) /* the first one warms up */
			samples[i - 1] = (before + after) / with;
		progress_step();
	}
	snprintf(name, sizeof(name), "prefill 135m, 512 tokens, an adapter, against base");
	if (context)
		snprintf(name, sizeof(name),
			 "decode 135m, batch 16 at %u positions, eight adapters, against base",
			 context);
	bench_add_samples(t, name, "ratio", samples, reps, target ? BENCH_AT_LEAST : BENCH_NONE,
			  target);
	return 0;
}

int bench_model_lora(const struct wk_ops *ops, struct wk_backend *be, struct model *m,
		     const char *model_dir, uint32_t reps, struct bench_table *t)
{
	struct bench b = {.ops = ops, .be = be, .m = m, .vocab = model_config_of(m)->vocab};
	int r = 0;

	reps = reps < MAX_REPS ? reps : MAX_REPS;
	for (uint32_t i = 0; !r && i < ADAPTERS; i++)
		r = open_adapter(&b, model_dir, i);
	r = r ? r : place_adapters(&b);
	r = r ? r : compare(&b, t, 0, 0.90, reps);
	r = r ? r : compare(&b, t, SHORT, 0, reps);
	r = r ? r : compare(&b, t, CONTEXT, 0.80, reps);
	close_adapters(&b);
	return r;
}
