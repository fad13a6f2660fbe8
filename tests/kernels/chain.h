/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chain.h - a model of one layer with which steps hang together: what a row's logits are depends on its
 * token, on the keys and values before it, and on an adapter.
 */
#ifndef WEFT_TESTS_KERNELS_CHAIN_H
#define WEFT_TESTS_KERNELS_CHAIN_H

#include "tests/kernels/kt.h"

#define CHAIN_VOCAB    97u
#define CHAIN_HIDDEN   64u
#define CHAIN_STRIDE   128u /* of logits */
#define CHAIN_BLOCKS   148u /* of the pool; the last CHAIN_LORAS * CHAIN_PIECES hold adapters */
#define CHAIN_LORAS    2u
#define CHAIN_PIECES   2u
#define CHAIN_KV_BLOCK (CHAIN_BLOCKS - CHAIN_LORAS * CHAIN_PIECES) /* how many are for KV */

struct chain {
	struct kt *t;
	struct wk_buf *pool, *norm, *inv_freq, *h, *x, *y, *q, *attended, *logits;
	struct wk_weight *table, *qkv, *o, *head;
	size_t block_bytes;
	struct wk_lora *loras[CHAIN_LORAS];
};

/* The same weights each time. */
void chain_open(struct chain *c, struct kt *t);
void chain_close(struct chain *c);
/* Of an adapter's pieces: 0..CHAIN_LORAS-1. May be called while steps are queued. */
struct wk_lora *chain_lora(struct chain *c, uint32_t which);
/* Queue a step up to the logits of the rows in out_rows; of all rows if there are none. What batch_set
 * says. attend false: without attention, and so without the pool. */
int chain_forward(struct chain *c, const struct wk_batch *b, float scale, bool attend);
/* Queue a call of sample on these. */
void chain_sample(struct chain *c, const struct wk_sample *rows, uint32_t n,
		  struct wk_sampled *out);

#endif
