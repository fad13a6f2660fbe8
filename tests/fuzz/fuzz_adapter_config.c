/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_adapter_config.c - libFuzzer on adapter_config.json: whatever is accepted can be asked about
 * every module, and the answers are within what the loader relies on.
 */
#include "daemon/common/err.h"
#include "daemon/engine/model/adapter_private.h"
#include "daemon/engine/model/json_file.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BUDGET 20000 /* a run must be short */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool cond)
{
	if (!cond)
		abort();
}

static const struct model_config model = {
	.model_type = "llama",
	.n_layers = 2,
	.hidden = 64,
	.n_heads = 4,
	.n_kv_heads = 2,
	.head_dim = 16,
	.ffn = 96,
	.vocab = 192,
};

static void check_accepted(struct adapter_config *c, struct weft_err *err)
{
	struct adapter_linear_shape s;
	struct adapter_module m;

	require(c->n_invocation <= WSHM_MAX_INVOCATION && c->activated == (c->n_invocation > 0));
	for (uint32_t i = 0; i < c->n_invocation; i++)
		require(c->invocation[i] < model.vocab);
	c->budget = BUDGET;
	for (uint32_t i = 0; i < model.n_layers * ADAPTER_N_LINEARS; i++) {
		int r;

		adapter_linear_shape(&model, i % ADAPTER_N_LINEARS, &s);
		r = adapter_config_module(c, i / ADAPTER_N_LINEARS, s.name, &m, err);
		require(!r || (r == -E2BIG && !c->budget));
		require(r || (m.rank >= 1 && m.rank <= ADAPTER_MAX_RANK && isfinite(m.scale)));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct weft_err err = {0};
	struct adapter_config c;
	json_t *root;
	int r;

	r = json_object_parse("nowhere/adapter_config.json", (const char *)data, size, &root, &err);
	r = r ? r : adapter_config_parse("nowhere", root, &model, NULL, &c, &err);
	if (!r) {
		check_accepted(&c, &err);
		adapter_config_fini(&c);
		return 0;
	}
	err_one_line(&err);
	require(r < 0 && strstr(err.message, "nowhere/adapter_config.json"));
	require(!strchr(err.message, '\n'));
	return 0;
}
