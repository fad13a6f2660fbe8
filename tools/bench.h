/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench.h - rows of a benchmark: one figure each, with its spread and what it must reach.
 *
 * A figure is the median of at least five runs; lo and hi are the smallest and largest of them.
 * Ratios are taken pair by pair within one run, never of two medians.
 */
#ifndef WEFT_TOOLS_BENCH_H
#define WEFT_TOOLS_BENCH_H

#include <stdint.h>
#include <stdio.h>

enum bench_goal { BENCH_NONE, BENCH_AT_LEAST, BENCH_AT_MOST };

struct bench_row {
	const char *name; /* borrowed or kept by bench_add() */
	double value;
	const char *unit; /* borrowed */
	double target;
	double lo, hi;
	int pass;
	enum bench_goal goal; /* BENCH_NONE: pass is the maker's own; target 0: there is none */
};

struct bench_table {
	struct bench_row *rows; /* owner, with their names */
	uint32_t n, room;
};

/* A copy of *row at the end; pass is computed from goal and target. */
void bench_add(struct bench_table *t, const struct bench_row *row);
/* The same from n samples (sorted in place): median, smallest, largest. */
void bench_add_samples(struct bench_table *t, const char *name, const char *unit, double *samples,
		       uint32_t n, enum bench_goal goal, double target);
void bench_print(const struct bench_table *t);
/* A JSON list, one row a line: {"name","value","unit","target","spread","pass"}. */
void bench_print_json(const struct bench_table *t);
void bench_free(struct bench_table *t);
/* Sorts in place; p in 0..1, nearest rank. */
double bench_percentile(double *samples, uint32_t n, double p);

/* Submission to notice through a pair of regions, and what it costs to wake a sleeper. Forks. Fills
 * rows, whose names are constants; returns how many, or -errno. */
int bench_ring(struct bench_row *rows, int max);

/* The parts of `weft bench` that need no daemon. 0, or -1 with a message on stderr. */
int bench_machine(struct bench_table *t);
int bench_kernels(struct bench_table *t);
int bench_index(struct bench_table *t);
/* dir: of a tokenizer, or NULL: one is made; file: a text, or NULL. */
int bench_tokenizer(const char *dir, const char *file, struct bench_table *t);

/* `weft bench serve` */
struct bench_serve_options {
	const char *socket, *model;
	uint32_t clients, requests, prompt, tokens, warm_up;
	double rate; /* requests per second over all clients; 0: each as fast as it can */
	int poll_always;
	int parts; /* also where the time that is not forward time goes */
	uint32_t seed;
};
/* 0 or -1 with a message on stderr. */
int bench_serve(const struct bench_serve_options *o, struct bench_table *t);

/* Commands with their own options: `weft bench pipeline`, `adapters`, `probe`. */
int cmd_bench_pipeline(int argc, char **argv);
int cmd_bench_adapters(int argc, char **argv);
int cmd_bench_probe(int argc, char **argv);
/* Print as --json or as a table, and free; returns 0. */
int bench_output(struct bench_table *t, int json);

#endif
