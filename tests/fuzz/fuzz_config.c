/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_config.c - libFuzzer on config.json: whatever is accepted can be computed with.
 *
 * The loader allocates and divides by what the configuration says, so an accepted one must keep
 * the bounds that it relies on, and its rotation must be finite. What is refused must say so in
 * one line that names the file.
 */
#include "daemon/common/err.h"
#include "daemon/engine/model/json_file.h"
#include "daemon/engine/model/model_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool cond)
{
	if (!cond)
		abort();
}

static void check_accepted(const struct model_config *c)
{
	float inv_freq[128], scale;

	require(c->n_layers && c->hidden && c->ffn && c->vocab > 1 && c->max_positions);
	require(c->head_dim >= 8 && c->head_dim <= 256 && c->head_dim % 2 == 0);
	require(c->n_kv_heads && c->n_heads % c->n_kv_heads == 0);
	require(c->window_from_layer < c->n_layers || !c->window);
	require(c->n_eos <= MODEL_MAX_EOS && (c->bos < c->vocab || c->bos == WK_NO_TOKEN));
	for (uint32_t i = 0; i < c->n_eos; i++)
		require(c->eos[i] < c->vocab);
	require(isfinite(c->embedding_scale) && isfinite(c->residual_scale));
	require(isfinite(c->attention_scale) && isfinite(c->logits_scale) && c->norm_eps > 0);
	model_rope(c, inv_freq, &scale);
	require(isfinite(scale) && scale > 0);
	for (uint32_t i = 0; i < c->head_dim / 2; i++)
		require(isfinite(inv_freq[i]) && inv_freq[i] >= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct weft_err err = {0};
	struct model_config c;
	json_t *root;
	int r;

	/* The folder does not exist: no generation_config.json. */
	r = json_object_parse("/nowhere/config.json", (const char *)data, size, &root, &err);
	if (!r) {
		r = model_config_parse("/nowhere", root, &c, &err);
		json_decref(root);
	}
	if (!r) {
		check_accepted(&c);
		return 0;
	}
	err_one_line(&err);
	require(r < 0 && strstr(err.message, "/nowhere/config.json") && !strchr(err.message, '\n'));
	return 0;
}
