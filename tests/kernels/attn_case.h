/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attn_case.h - one layer of attention for several sequences, run in any division into steps.
 *
 * A case holds, for each sequence, the q/k/v rows of all its positions. attn_run() feeds them to a
 * backend through rope_append and attention in steps of the caller's choice, and gives the
 * attention output of every position. attn_want() computes the same in double.
 */
#ifndef WEFT_TESTS_KERNELS_ATTN_CASE_H
#define WEFT_TESTS_KERNELS_ATTN_CASE_H

#include "tests/kernels/kt.h"

#define ATTN_MAX_SEQS 8

struct attn_case {
	uint32_t n_heads, n_kv, dim, window;
	uint32_t n_layers, layer; /* the layer that is used; others stay untouched */
	bool norms;		  /* of q and k heads */
	float rope_scale, scale;
	uint32_t n_seqs;
	uint32_t len[ATTN_MAX_SEQS];
	float *y[ATTN_MAX_SEQS];	   /* owner: [len][width] */
	float *norm_q, *norm_k, *inv_freq; /* owner */
};

/* How a case is run. */
struct attn_plan {
	uint32_t chunk; /* rows of a sequence per step; 0: all (up to WK_MAX_ROWS) */
	uint32_t chunks[ATTN_MAX_SEQS]; /* of each sequence; 0: as above */
	uint32_t max_seqs;		/* sequences per step; 0: all */
	uint32_t shuffle;		/* seed of the physical block numbers */
	bool poison_free;		/* free blocks are full of NaN until they become KV */
	uint32_t min_block_bytes;	/* of a block, as if it might have to hold something else */
};

void attn_case_init(struct attn_case *c, uint64_t seed);
void attn_case_fini(struct attn_case *c);

/* ret[s]: [len][n_heads * dim] of sequence s, made by the callee. */
void attn_run(struct kt *t, const struct attn_case *c, const struct attn_plan *p, float **ret);
double *attn_want(const struct attn_case *c, uint32_t seq);
/* The worst kt_error() of what attn_run() left, row by row: a late row's outputs are small, and must be right
 * nevertheless. Frees it. */
double attn_worst(const struct attn_case *c, float *got[ATTN_MAX_SEQS]);

#endif
