/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench.h - measures a backend's matrix products against what the machine can do.
 *
 * The shapes are those of the 1b model. Each repetition is a pair: a probe of the limit, then the
 * product, so that a machine whose speed swings is judged by ratios. Weights are larger than the
 * caches and walked through, as a model's are.
 */
#ifndef WEFT_KERNELS_BENCH_H
#define WEFT_KERNELS_BENCH_H

#include <stdint.h>

struct wk_bench_spread {
	double median, min, max;
};

struct wk_bench_row {
	char name[16]; /* "qkv", "o", "gate_up", "down", "head" */
	uint32_t n, k; /* of the weight */
	uint32_t m;    /* rows */
	uint32_t threads;
	double ops_s, bytes_s;		   /* median; bytes are the weight's */
	struct wk_bench_spread of_peak;	   /* operations per second / probed peak */
	struct wk_bench_spread of_stream;  /* bytes per second / probed bandwidth */
	struct wk_bench_spread over_limit; /* time / max(bytes / bandwidth, operations / peak) */
};

struct wk_bench_options {
	uint32_t reps;			/* at least 5; 0: 7 */
	const char *path;		/* NULL: the backend's choice */
	uint32_t m[8], n_m;		/* n_m 0: 1, 16, 48, 128, 512 */
	uint32_t threads[4], n_threads; /* n_threads 0: 1, 2 */
	const char *only;		/* one shape's name, or NULL */
	/* Called after each row, NULL allowed: a table that grows, a progress bar. */
	void (*row)(void *arg, const struct wk_bench_row *row, uint32_t done, uint32_t total);
	void *arg;
};

/* Room for every row of the default sweep. */
#define WK_BENCH_MAX_ROWS 64

/* Fill up to `cap` rows; returns how many, or -errno. Of the cpu backend. */
int wk_bench_matmul(const struct wk_bench_options *opt, struct wk_bench_row *rows, uint32_t cap);

#endif
