/* SPDX-License-Identifier: Apache-2.0 */
/*
 * model.h - a decoder model: read from a Hugging Face folder, run through a backend.
 *
 * One parametric dense decoder covers Llama 2/3, Mistral, Qwen2/2.5, Qwen3 and Granite. The files
 * are outside input: config.json and every tensor are checked before use, and whatever is not
 * known is refused by its name. The model knows nothing of requests, scheduling or caching: it
 * turns a batch into logits.
 *
 * Ownership: a model belongs to the thread that owns its backend. The folder's files are not
 * needed after model_open().
 */
#ifndef WEFT_ENGINE_MODEL_H
#define WEFT_ENGINE_MODEL_H

#include "kernels/backend.h"

#include <limits.h>

/* Trailing comments stay in columns. */
/* clang-format off */

#define MODEL_MAX_EOS 16

struct weft_err;	/* daemon/common/err.h */

enum model_rope { MODEL_ROPE_PLAIN, MODEL_ROPE_LINEAR, MODEL_ROPE_LLAMA3, MODEL_ROPE_YARN };

/* config.json and generation_config.json, validated. */
struct model_config {
	char model_type[32];		/* "llama", "mistral", "qwen2", "qwen3", "granite" */
	uint32_t n_layers, hidden, n_heads, n_kv_heads, head_dim, ffn, vocab;
	uint32_t max_positions;		/* max_position_embeddings, after rope scaling */
	float norm_eps;
	bool tied_head;			/* tie_word_embeddings */
	bool qkv_bias, o_bias, mlp_bias;
	bool qk_norm;			/* Qwen3 */
	uint32_t window;		/* sliding window, 0: none */
	uint32_t window_from_layer;	/* layers >= this use the window (Qwen2's max_window_layers) */
	float embedding_scale;		/* embedding_multiplier */
	float residual_scale;		/* residual_multiplier */
	float attention_scale;		/* attention_multiplier or 1/sqrt(head_dim) */
	float logits_scale;		/* 1 / logits_scaling */
	enum model_rope rope;
	double rope_theta;
	double rope_factor, rope_low_freq, rope_high_freq;	/* llama3: factor and the two bounds */
	uint32_t rope_original;		/* original_max_position_embeddings */
	double yarn_beta_fast, yarn_beta_slow, yarn_attention_factor;
	bool yarn_truncate;		/* the ramp's ends are rounded to whole pairs */
	uint32_t eos[MODEL_MAX_EOS];	/* generation_config.json first, then config.json */
	uint32_t n_eos;
	uint32_t bos;			/* WK_NO_TOKEN: none */
};

struct model;

/* Called now and then while loading; done and total in bytes. */
typedef void (*model_progress_fn)(void *arg, uint64_t done, uint64_t total);

struct model_open_options {
	const char *dir;
	model_progress_fn progress;	/* may be NULL */
	void *progress_arg;
	bool dummy;			/* random weights; the folder must hold none. For measuring */
};

/* Read and check config.json and generation_config.json alone. 0 or -errno with *err set. */
int model_config_read(const char *dir, struct model_config *ret, struct weft_err *err);

/*
 * Read a model and pack its weights for the backend. 0 or -errno with a message that names the
 * file and the key or tensor. *ret is untouched on failure.
 */
int model_open(const struct wk_ops *ops, struct wk_backend *be, const struct model_open_options *opt,
	       struct model **ret, struct weft_err *err);
void model_close(struct model *m);	/* NULL allowed */

const struct model_config *model_config_of(const struct model *m);
/* 128-bit digest of config and weights: what the model is, whatever its folder is called. */
void model_digest(const struct model *m, uint8_t ret[16]);
uint64_t model_weight_bytes(const struct model *m);	/* as packed */
size_t model_block_bytes(const struct model *m);	/* of one KV block */

/* Make a KV pool of n_blocks blocks for this model and bind it. */
int model_pool_new(struct model *m, uint32_t n_blocks, struct wk_buf **ret, struct weft_err *err);
void model_pool_free(struct model *m, struct wk_buf *pool);

/*
 * One forward pass: queue all operations for `batch` (batch_set included) on the backend. Then
 * the logits of out_rows are in model_logits(), rows of `vocab` columns, `*ret_stride` apart, in
 * the order of out_rows, until the next pass. n_out <= WK_MAX_OUT. Returns 0 or -errno.
 */
#define WK_MAX_OUT 64
int model_forward(struct model *m, struct wk_buf *pool, const struct wk_batch *batch);
const struct wk_buf *model_logits(const struct model *m, uint32_t *ret_stride);

/*
 * For prompt log-probabilities: compute logits for other rows of the pass just run, up to
 * WK_MAX_OUT at a time (rows ascending, of the same batch).
 */
int model_logits_of(struct model *m, const uint32_t *rows, uint32_t n_rows);

/*
 * The products of a layer that adapters can change, as wk_matmul.site and wk_lora_part.site number
 * them: MODEL_SITE(layer, which).
 */
enum model_site { MODEL_SITE_QKV, MODEL_SITE_O, MODEL_SITE_GATE_UP, MODEL_SITE_DOWN, MODEL_N_SITES };
#define MODEL_SITE(layer, which) (1 + (layer) * MODEL_N_SITES + (which))

/* Floating-point operations of a pass of n rows after `pos` earlier positions (benchmarks). */
double model_flops(const struct model_config *c, uint32_t n_rows, uint32_t pos, uint32_t n_out);

#endif
