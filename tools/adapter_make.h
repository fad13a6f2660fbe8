/* SPDX-License-Identifier: Apache-2.0 */
/* adapter_make.h - folders of adapters with random weights, and what an adapter's folder holds. */
#ifndef WEFT_TOOLS_ADAPTER_MAKE_H
#define WEFT_TOOLS_ADAPTER_MAKE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct weft_err;

struct adapter_make_options {
	const char *dir;     /* made if absent; must not hold an adapter yet */
	const char *model;   /* folder of the model that it is for */
	const char *targets; /* "q,k,v,o,gate,up,down" or some of them; "all" */
	const char *dtype;   /* "bf16", "f16", "f32" */
	uint32_t rank;
	double alpha;		    /* negative: twice the rank */
	bool rslora;		    /* scale alpha / sqrt(rank) instead of alpha / rank */
	double strength;	    /* what it adds to a linear's output, relative to that output */
	uint64_t seed;		    /* same seed and options, same bytes */
	const uint32_t *invocation; /* borrowed; NULL: a plain LoRA */
	uint32_t n_invocation;
};

/* Write adapter_model.safetensors and adapter_config.json, each under its name only when whole, the
 * configuration last. 0 or -errno with *err set. */
int adapter_make(const struct adapter_make_options *opt, struct weft_err *err);

/* Read an adapter's folder as the engine would for this model, every weight included, and say what
 * is there, for people or as one JSON object. 0 or -errno with *err set. */
int adapter_info(const char *dir, const char *model, bool json, FILE *out, struct weft_err *err);

#endif
