/* SPDX-License-Identifier: Apache-2.0 */
/*
 * model_private.h - what the parts of a model share, and what its tests may reach.
 *
 *	config.c	config.json -> struct model_config
 *	rope.c		struct model_config -> inverse frequencies
 *	load.c		files -> packed weights, buffers
 *	forward.c	batch -> logits
 */
#ifndef WEFT_ENGINE_MODEL_PRIVATE_H
#define WEFT_ENGINE_MODEL_PRIVATE_H

#include <jansson.h>

#include "daemon/engine/model/model.h"

struct model_layer {
	struct wk_weight *qkv, *o, *gate_up, *down;
	struct wk_buf *attn_norm, *mlp_norm;
	struct wk_buf *qkv_bias, *o_bias; /* NULL: none */
	struct wk_buf *q_norm, *k_norm;	  /* NULL: none */
};

struct model {
	const struct wk_ops *ops;
	struct wk_backend *be; /* borrowed until model_close() */
	char *dir;	       /* owner; the folder */
	struct model_config config;
	struct wk_kv_shape kv;
	uint8_t digest[16];
	uint64_t weight_bytes;

	struct model_layer *layers; /* owner, of all that is in them */
	struct wk_weight *embed;
	struct wk_weight *head; /* NULL: tied, embed serves */
	struct wk_buf *final_norm, *inv_freq;
	float rope_scale;

	/* Activations of one pass: as many rows as the backend takes, logits WK_MAX_OUT. Strides in elements. */
	struct wk_buf *h, *x, *q, *y, *ffn, *logits;
	uint32_t h_stride, x_stride, q_stride, y_stride, ffn_stride, logits_stride;
	uint32_t n_rows; /* of the pass last run; 0: none */
};

/* config.json as already parsed; dir serves generation_config.json and messages. */
int model_config_parse(const char *dir, json_t *root, struct model_config *ret,
		       struct weft_err *err);

/* head_dim / 2 inverse frequencies and the factor of cos and sin. */
void model_rope(const struct model_config *c, float *ret_inv_freq, float *ret_scale);

/* model_open() with a configuration other than the folder's, of the same shape: the tests leave
 * out a part of the arithmetic and look whether anyone notices. */
int model_open_config(const struct wk_ops *ops, struct wk_backend *be,
		      const struct model_open_options *opt, const struct model_config *config,
		      struct model **ret, struct weft_err *err);

#endif
