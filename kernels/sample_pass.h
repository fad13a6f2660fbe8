/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sample_pass.h - the passes over a whole row of logits, and the exponential they use.
 *
 * Written once with the compiler's vector extension and compiled for each instruction set
 * (sample_pass.c). There is no fused multiply-add in it and every sum has a fixed shape (16 lanes
 * over a block of WK_PASS_BLOCK logits, a fixed tree over the lanes, blocks in ascending order in
 * double), so all compilations give the same bits.
 */
#ifndef WEFT_KERNELS_SAMPLE_PASS_H
#define WEFT_KERNELS_SAMPLE_PASS_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/convert.h"
#include "kernels/sample.h"

#define WK_PASS_CHUNK 64   /* logits whose maximum is kept, so that top_k looks at few of them */
#define WK_PASS_BLOCK 1024 /* logits of one partial sum */

struct wk_scan {
	float max;
	bool bad;	/* a NaN, +Inf, or nothing but -Inf */
	double log_sum; /* log of the sum of exp(logit - max), if asked for */
};

struct wk_passes {
	/* Maxima of the row's chunks, and with `sum` the log-sum of the row. */
	void (*scan)(const float *logits, uint32_t n, bool sum, float *chunk_max,
		     struct wk_scan *ret);
	/* weight[i] = exp((logit[i] - max) * inv_temp); gives their sum. */
	double (*weigh)(const float *logits, uint32_t n, float max, float inv_temp, float *weight);
};

const struct wk_passes *wk_passes_get(enum wk_sample_level level);

/* exp(x) for x <= 0, error below 2 ulp; 0 below -87. Range reduction to r in +-ln(2)/2 and the
 * Taylor series to r^7 / 7!; ln 2 is split so that n * hi is exact. */
#define WK_EXP_LOG2E 1.44269504f
#define WK_EXP_LN2HI 0.693359375f
#define WK_EXP_LN2LO -2.12194440e-4f
#define WK_EXP_MAGIC 12582912.0f /* 1.5 * 2^23: adding it rounds to an integer */
#define WK_EXP_MIN   -87.0f

static inline float wk_exp(float x)
{
	float t = x * WK_EXP_LOG2E + WK_EXP_MAGIC;
	float n = t - WK_EXP_MAGIC;
	float r = (x - n * WK_EXP_LN2HI) - n * WK_EXP_LN2LO;
	float p = 1.0f / 5040;

	if (!(x >= WK_EXP_MIN))
		return 0;
	p = p * r + 1.0f / 720;
	p = p * r + 1.0f / 120;
	p = p * r + 1.0f / 24;
	p = p * r + 1.0f / 6;
	p = p * r + 0.5f;
	p = p * r + 1.0f;
	p = p * r + 1.0f;
	return wk_bits_to_f32(wk_f32_to_bits(p) + (wk_f32_to_bits(t) << 23));
}

#endif
