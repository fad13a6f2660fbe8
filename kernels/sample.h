/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sample.h - from one row of logits to a token and its log-probabilities.
 *
 * Shared by the backends that have the logits in host memory: the same logits give the same bits
 * and the same token whichever of them asks, on every instruction set.
 */
#ifndef WEFT_KERNELS_SAMPLE_H
#define WEFT_KERNELS_SAMPLE_H

#include "kernels/backend.h"

enum wk_sample_level {
	WK_SAMPLE_BEST, /* of what the machine has */
	WK_SAMPLE_BASELINE,
	WK_SAMPLE_AVX2,
	WK_SAMPLE_AVX512,
};

/* Working memory of one thread. Zero-initialised; grows to the vocabulary and stays. */
struct wk_sample_scratch {
	uint32_t vocab;		    /* room for so many logits */
	enum wk_sample_level level; /* of the vector passes; the results never depend on it */
	float *logits;		    /* owner: the row after bias and penalties */
	float *weight;		    /* owner: exp((logit - max) / temperature) */
	float *chunk_max;	    /* owner: largest logit of each chunk */
	struct wk_candidate *cand;  /* owner: tokens that a filter may keep */
};

/* 0 or -ENOMEM (what was there stays usable). */
int wk_sample_scratch_grow(struct wk_sample_scratch *s, uint32_t vocab);
void wk_sample_scratch_fini(struct wk_sample_scratch *s);

/* Draw (or, with s->given, look up) one token. logits: [vocab], not changed. A row with a NaN or
 * +Inf, or without any finite logit left to draw from, gives token 0 and logprob NaN. Unused
 * entries of the top list are WK_NO_TOKEN and -Inf. */
void wk_sample_row(const float *logits, uint32_t vocab, const struct wk_sample *s,
		   struct wk_sample_scratch *scratch, struct wk_sampled *ret);

#endif
