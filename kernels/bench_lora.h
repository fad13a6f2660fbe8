/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_lora.h - measures what adapters add to the products of a pass.
 *
 * All four products of all 30 layers of shape 135m (hidden 576, 9 heads and 3 KV heads of 64, FFN
 * 1536), each layer with weights of its own, once for the base model and once with r = 16 adapters
 * of all seven linears: a prefill of 512 rows under one adapter, and a decode step of 16 rows under
 * eight. Ratios are of times, base over adapted, pair by pair.
 */
#ifndef WEFT_KERNELS_BENCH_LORA_H
#define WEFT_KERNELS_BENCH_LORA_H

#include "kernels/bench.h"

struct wk_bench_lora {
	uint32_t threads;
	struct wk_bench_spread prefill;			  /* 512 rows, one adapter */
	struct wk_bench_spread decode;			  /* 16 rows, eight adapters */
	struct wk_bench_spread one;			  /* 1 row, one adapter */
	double prefill_base_s, decode_base_s, one_base_s; /* medians */
	double bytes_share; /* base bytes / (base + the eight adapters' bytes) */
};

/* path NULL: the backend's choice; reps 0: 9. 0 or -errno. */
int wk_bench_lora(uint32_t threads, const char *path, uint32_t reps, struct wk_bench_lora *ret);

#endif
