/* SPDX-License-Identifier: Apache-2.0 */
/*
 * model_info.c - what a model folder holds, from its configuration and tensor headers.
 *
 * The same readers as the engine's, so that a folder which this accepts fails in the engine only
 * for its weights: a missing tensor, a wrong shape, a NaN.
 */
#include "tools/model_make.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>

#include "daemon/common/err.h"
#include "daemon/engine/model/model.h"
#include "daemon/engine/model/safetensors.h"

static const char *rope_name(enum model_rope rope)
{
	static const char *const names[] = {"plain", "linear", "llama3", "yarn"};

	return names[rope];
}

/* Counted over all files. */
struct counts {
	uint64_t parameters, bytes;
	uint32_t tensors, files;
};

static int count(const char *dir, struct counts *ret, struct weft_err *err)
{
	struct st_set set;
	int r = safetensors_open(dir, &set, err);

	*ret = (struct counts){.tensors = set.n_tensors, .files = set.n_files};
	for (uint32_t i = 0; i < set.n_tensors; i++) {
		ret->bytes += set.tensors[i].bytes;
		ret->parameters += set.tensors[i].bytes / st_dtype_bytes(set.tensors[i].dtype);
	}
	safetensors_close(&set);
	return r;
}

static int print_json(const char *dir, const struct model_config *c, const struct counts *n,
		      FILE *out)
{
	json_t *eos = json_array(), *o;

	for (uint32_t i = 0; i < c->n_eos; i++)
		json_array_append_new(eos, json_integer(c->eos[i]));
	o = json_pack("{s:s, s:s, s:I, s:I, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:b, "
		      "s:s, s:f, s:f, s:i, s:i, s:o, s:o}",
		      "dir", dir, "model_type", c->model_type, "parameters",
		      (json_int_t)n->parameters, "bytes", (json_int_t)n->bytes, "files",
		      (int)n->files, "tensors", (int)n->tensors, "layers", (int)c->n_layers,
		      "hidden", (int)c->hidden, "heads", (int)c->n_heads, "kv_heads",
		      (int)c->n_kv_heads, "head_dim", (int)c->head_dim, "ffn", (int)c->ffn, "vocab",
		      (int)c->vocab, "max_positions", (int)c->max_positions, "tied_head",
		      c->tied_head, "rope", rope_name(c->rope), "rope_theta", c->rope_theta,
		      "rope_factor", c->rope_factor, "window", (int)c->window, "window_from_layer",
		      (int)c->window_from_layer, "bos",
		      c->bos == WK_NO_TOKEN ? json_null() : json_integer(c->bos), "eos", eos);
	if (!o)
		return -ENOMEM;
	json_dumpf(o, out, JSON_INDENT(2));
	fputc('\n', out);
	json_decref(o);
	return 0;
}

static void print_text(const char *dir, const struct model_config *c, const struct counts *n,
		       FILE *out)
{
	fprintf(out, "%-12s %s\n%-12s %s\n", "folder", dir, "model_type", c->model_type);
	fprintf(out, "%-12s %.1f million, %.1f MB in %u tensors, %u file%s\n", "parameters",
		(double)n->parameters / 1e6, (double)n->bytes / 1e6, n->tensors, n->files,
		n->files == 1 ? "" : "s");
	fprintf(out, "%-12s %u layers, hidden %u, %u heads of %u, %u KV heads, FFN %u\n", "shape",
		c->n_layers, c->hidden, c->n_heads, c->head_dim, c->n_kv_heads, c->ffn);
	fprintf(out, "%-12s %u tokens, %s head\n", "vocabulary", c->vocab,
		c->tied_head ? "tied" : "own");
	fprintf(out, "%-12s %u, rope %s, theta %g", "positions", c->max_positions,
		rope_name(c->rope), c->rope_theta);
	if (c->rope != MODEL_ROPE_PLAIN)
		fprintf(out, ", factor %g", c->rope_factor);
	if (c->window)
		fprintf(out, ", window %u from layer %u", c->window, c->window_from_layer);
	fprintf(out, "\n%-12s", "ends with");
	for (uint32_t i = 0; i < c->n_eos; i++)
		fprintf(out, " %u", c->eos[i]);
	fprintf(out, "%s\n", c->n_eos ? "" : " no token");
}

int model_info(const char *dir, bool json, FILE *out, struct weft_err *err)
{
	struct model_config config;
	struct counts n;
	int r;

	r = model_config_read(dir, &config, err);
	r = r ? r : count(dir, &n, err);
	if (r)
		return r;
	if (json)
		return print_json(dir, &config, &n, out);
	print_text(dir, &config, &n, out);
	return 0;
}
