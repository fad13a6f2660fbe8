/* SPDX-License-Identifier: Apache-2.0 */
/* model_make.h - folders of models with random weights, and what a model folder holds. */
#ifndef WEFT_TOOLS_MODEL_MAKE_H
#define WEFT_TOOLS_MODEL_MAKE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct weft_err;

struct model_make_options {
	const char *dir;    /* made if absent; must not hold a model yet */
	const char *shape;  /* "tiny", "135m", "1b", "8b" */
	const char *arch;   /* "llama", "mistral", "qwen2", "qwen3", "granite" */
	uint64_t seed;	    /* the same seed, shape and arch make the same bytes */
	uint32_t positions; /* max_position_embeddings; 0: the shape's own */
	bool quiet;	    /* no progress bar, even on a terminal */
};

/*
 * Write config.json, generation_config.json and model.safetensors (BF16). Files appear under
 * their names only when whole, config.json last. 0 or -errno with *err set.
 */
int model_make(const struct model_make_options *opt, struct weft_err *err);

/* Read a folder's configuration and tensor headers and say what is there, for people or as one
 * JSON object. Weights are not read. 0 or -errno with *err set. */
int model_info(const char *dir, bool json, FILE *out, struct weft_err *err);

#endif
