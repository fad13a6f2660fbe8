/* SPDX-License-Identifier: Apache-2.0 */
/* bench_model.h - whole passes of the 1b and 135m shapes against what the machine can do. */
#ifndef WEFT_TOOLS_BENCH_MODEL_H
#define WEFT_TOOLS_BENCH_MODEL_H

#include <stddef.h>
#include <stdint.h>

struct bench_table;
struct model;
struct wk_backend;
struct wk_buf;
struct wk_ops;

struct bench_model_options {
	const char *dir;  /* where the models 1b and 135m are, or are made and left; NULL: a
			   * temporary folder, removed at the end (2 GB under $TMPDIR) */
	uint32_t threads; /* 0: all online CPUs */
	uint32_t reps;	  /* at least 5; 0: 5 */
};

/* Adds rows for loading, prefill, decode and decode attention. 0 or -1 with a message on stderr. */
int bench_model(const struct bench_model_options *opt, struct bench_table *t);

/* The same passes with adapters against without, for a model that is open and has no pool; its folder
 * must be writable. Adds rows; 0 or -1 with a message on stderr. */
int bench_model_lora(const struct wk_ops *ops, struct wk_backend *be, struct model *m,
		     const char *model_dir, uint32_t reps, struct bench_table *t);

/* Small random bf16 numbers, so that no page of a pool is the kernel's zero page. 0 or -errno. */
int bench_fill_pool(const struct wk_ops *ops, struct wk_backend *be, struct wk_buf *pool,
		    size_t bytes);

#endif
