/* SPDX-License-Identifier: Apache-2.0 */
/*
 * warm.c - passes that nobody asked for, before an engine says that it is ready.
 *
 * A device's first passes are slow: its libraries choose algorithms, the driver loads kernels, room that a
 * pass needs is asked for, and of passes that come again graphs are made (kernels/cuda/queue.c). Whoever
 * comes first would wait for all of that; and if there is not room enough on the device, it is better said
 * now than in the middle of a request. So one pass of all rows is run, for which all room is made that does
 * not depend on adapters or on how tokens are drawn, and every number of sequences that can decode twice,
 * the second time as a graph is made. Blocks hold what these wrote; a block is zeroed before a sequence has
 * it. What the backend does without from then on is noted.
 *
 * The host's own backends are as fast the first time. Called before the core thread starts.
 */
#include "daemon/engine/engine.h"

#include <errno.h>
#include <stdlib.h>

#define TIMES 2

/* One pass of n sequences of `rows` rows each, from position 0, each in blocks of its own. */
static int pass(struct engine *e, uint32_t n, uint32_t rows)
{
	const uint32_t blocks = blocks_for(rows);
	uint32_t *tokens = calloc((size_t)n * rows, sizeof(*tokens));
	uint32_t *table = calloc((size_t)n * blocks, sizeof(*table));
	struct wk_seq seqs[SCHED_MAX_SEQS];
	struct wk_sample draws[SCHED_MAX_SEQS];
	struct wk_sampled drawn[SCHED_MAX_SEQS];
	uint32_t out[SCHED_MAX_SEQS], stride;
	struct wk_batch batch = {.n_rows = n * rows,
				 .n_seqs = n,
				 .n_table = n * blocks,
				 .n_out = n,
				 .tokens = tokens,
				 .seqs = seqs,
				 .block_table = table,
				 .out_rows = out};
	int r = tokens && table ? 0 : -ENOMEM;

	for (uint32_t i = 0; i < n; i++) {
		seqs[i] = (struct wk_seq){i * rows, rows, 0, i * blocks};
		out[i] = (i + 1) * rows - 1;
		draws[i] = (struct wk_sample){
			.row = i, .top_p = 1, .repetition_penalty = 1, .given = WK_NO_TOKEN};
	}
	for (uint32_t i = 0; !r && i < n * blocks; i++)
		table[i] = i;
	r = r ? r : model_forward(e->model, e->pool_buf, &batch);
	if (!r) {
		const struct wk_buf *logits = model_logits(e->model, &stride);

		e->ops->sample(e->be, logits, stride, e->config->vocab, draws, n, drawn);
		r = e->ops->wait(e->be, e->ops->record(e->be));
	}
	free(tokens);
	free(table);
	return r;
}

int warm_up(struct engine *e, struct weft_err *err)
{
	uint64_t begin = now_ns(), most = (uint64_t)e->blocks.n * WK_BLOCK_TOKENS;
	uint32_t rows = e->opt.max_batch_tokens;
	struct wk_info before = e->info;
	int r = 0;

	if (!e->info.device_bytes_free || getenv("WEFT_TEST_COLD"))
		return 0;
	rows = most < rows ? (uint32_t)most : rows;
	rows = e->config->max_positions < rows ? e->config->max_positions : rows;
	r = pass(e, 1, rows);
	/* From the most down, so that what grows with the number has grown first. */
	for (uint32_t n = e->blocks.n < e->opt.max_seqs ? e->blocks.n : e->opt.max_seqs; n; n--)
		for (int i = 0; !r && i < TIMES; i++)
			r = pass(e, n, 1);
	if (r)
		return err_set(err, r, "the first passes: %s", e->ops->last_error(e->be));
	e->ops->info(e->be, &e->info);
	if (e->info.arith_rev != before.arith_rev)
		log_line(LOG_LEVEL_WARN, "event=goes-without path=%s was=%s", e->info.path,
			 before.path);
	log_line(LOG_LEVEL_INFO, "event=warm seconds=%.2f", (double)(now_ns() - begin) / 1e9);
	return 0;
}
