/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_attention.h - measures the CPU backend's attention against what the machine can do.
 *
 *   prefill   4,096 positions in chunks of WK_MAX_ROWS, shape 135m (9 heads, 3 KV heads of 64):
 *	       operations per second against the arithmetic peak. Operations are those of the
 *	       causal triangle, two for a multiplication and an addition.
 *   decode    one row at position 4,096, walking all 16 layers of shape 1b (32 heads, 8 KV heads
 *	       of 64; 128 MiB of KV in scattered blocks): bytes of KV per second against the
 *	       streaming bandwidth.
 *
 * Each repetition is a pair, a probe of the limit and then the measurement; figures are medians.
 */
#ifndef WEFT_KERNELS_BENCH_ATTENTION_H
#define WEFT_KERNELS_BENCH_ATTENTION_H

#include "kernels/bench.h"

struct wk_bench_attention {
	uint32_t threads;
	double prefill_ops_s, decode_bytes_s;	 /* medians */
	struct wk_bench_spread prefill_of_peak;	 /* operations per second / probed peak */
	struct wk_bench_spread decode_of_stream; /* bytes per second / probed bandwidth */
};

/* Measure with so many threads. path NULL: the backend's choice; reps 0: 7. 0 or -errno. */
int wk_bench_attention(uint32_t threads, const char *path, uint32_t reps,
		       struct wk_bench_attention *ret);

#endif
