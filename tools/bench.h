/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench.h - one figure of a benchmark, as `weft bench` prints it and writes it to bench.json.
 *
 * Each part of the benchmark fills rows and returns how many, or -errno. Names and units are
 * string constants. A value is the median of its runs, lo and hi the lowest and highest of them.
 */
#ifndef WEFT_TOOLS_BENCH_H
#define WEFT_TOOLS_BENCH_H

struct bench_row {
	const char *name;
	double value;
	const char *unit;
	double target; /* 0: none, the figure is there to compare with */
	double lo, hi;
	int pass; /* 1 if there is no target */
};

/* Submission to notice through a pair of regions, and what it costs to wake a sleeper. Forks. */
int bench_ring(struct bench_row *rows, int max);

#endif
