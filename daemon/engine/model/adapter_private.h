/* SPDX-License-Identifier: Apache-2.0 */
/*
 * adapter_private.h - what the parts of the adapter loader share, and what tests and tools may
 * reach.
 *
 *	adapter_config.c	adapter_config.json -> struct adapter_config
 *	adapter_invocation.c	its invocation, which may be ids or text
 *	adapter_pattern.c	does a pattern of the configuration match a module's name
 *	adapter.c		both files -> image -> blocks of the pool
 */
#ifndef WEFT_ENGINE_ADAPTER_PRIVATE_H
#define WEFT_ENGINE_ADAPTER_PRIVATE_H

#include <jansson.h>

#include "daemon/engine/model/adapter.h"

#define ADAPTER_CONFIG_NAME  "adapter_config.json"
#define ADAPTER_WEIGHTS_NAME "adapter_model.safetensors"
#define ADAPTER_MAX_NAME     128 /* of a module or tensor that this model can have */

/* The linears of a layer that an adapter can change, in the order in which they are read. */
enum adapter_linear {
	ADAPTER_Q,
	ADAPTER_K,
	ADAPTER_V,
	ADAPTER_O,
	ADAPTER_GATE,
	ADAPTER_UP,
	ADAPTER_DOWN,
	ADAPTER_N_LINEARS
};

struct adapter_linear_shape {
	const char *name; /* below the layer: "self_attn.q_proj" */
	enum model_site site;
	uint32_t col, n, k; /* its outputs in the site's product, and its inputs */
};

void adapter_linear_shape(const struct model_config *c, enum adapter_linear which,
			  struct adapter_linear_shape *ret);

/* Part i as read, without its pieces; NULL: there are no more. */
const struct wk_lora_part *adapter_part(const struct adapter *a, uint32_t i);

/* adapter_config.json, checked. Lists and patterns are held as parsed and asked by module. */
struct adapter_config {
	const char *name;				      /* borrowed, for messages */
	json_t *root;					      /* owner */
	json_t *targets, *excludes, *layers, *ranks, *alphas; /* of root; NULL: not given */
	uint32_t rank;
	double alpha;
	bool rslora, activated;
	uint32_t n_invocation;
	uint32_t invocation[WSHM_MAX_INVOCATION];
	uint64_t budget; /* for matching patterns */
};

/* What the configuration says of one module. */
struct adapter_module {
	bool targeted;
	uint32_t rank;
	float scale; /* alpha / rank, or alpha / sqrt(rank) */
};

/* Takes root's reference, on failure too. *ret needs adapter_config_fini() only on success. model_dir:
 * where the tokenizer is, for an invocation that is text; NULL: there is none. */
int adapter_config_parse(const char *name, json_t *root, const struct model_config *model,
			 const char *model_dir, struct adapter_config *ret, struct weft_err *err);
/* Of that: what activates it. */
int adapter_config_invocation(struct adapter_config *c, const char *model_dir, uint32_t vocab,
			      struct weft_err *err);
void adapter_config_fini(struct adapter_config *c);
/* The module `linear` of a layer, as PEFT calls it: model.layers.3.self_attn.q_proj. */
int adapter_config_module(struct adapter_config *c, uint32_t layer, const char *linear,
			  struct adapter_module *ret, struct weft_err *err);

/*
 * Patterns are PEFT's, that is Python's regular expressions. NULL if this one can be matched here
 * exactly as there, else what is not supported in it.
 */
const char *adapter_pattern_check(const char *pattern);
/* Does one that was checked match all of s or, with suffix, all that follows some dot in s: 1 or 0.
 * -E2BIG when *budget, which counts down, does not suffice. */
int adapter_pattern_match(const char *pattern, const char *s, bool suffix, uint64_t *budget);

#endif
