/* SPDX-License-Identifier: Apache-2.0 */
/*
 * adapter_info.c - what an adapter's folder holds, read by the engine's own loader.
 *
 * The loader needs of the model what its configuration says and how the backend packs, so that the
 * model's weights are not read: a model without any stands in. A folder that this accepts, the
 * engine accepts.
 */
#include "tools/adapter_make.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/common/err.h"
#include "daemon/engine/model/adapter_private.h"
#include "daemon/engine/model/model_private.h"

static const char *const linear_names[ADAPTER_N_LINEARS] = {"q",    "k",  "v",	 "o",
							    "gate", "up", "down"};

struct summary {
	uint32_t parts[ADAPTER_N_LINEARS]; /* layers that have this linear */
	uint32_t low_rank, high_rank;
	double low_scale, high_scale;
	uint64_t parameters;
};

static enum adapter_linear linear_of(const struct model_config *c, const struct wk_lora_part *p)
{
	struct adapter_linear_shape s;
	int w = 0;

	for (; w < ADAPTER_N_LINEARS - 1; w++) {
		adapter_linear_shape(c, (enum adapter_linear)w, &s);
		if ((p->site - 1) % MODEL_N_SITES == s.site && p->col == s.col)
			break;
	}
	return (enum adapter_linear)w;
}

static void sum_up(const struct adapter *a, const struct model_config *c, struct summary *ret)
{
	const struct wk_lora_part *p = adapter_part(a, 0);

	*ret = (struct summary){.low_rank = p->rank, .low_scale = p->scale, .high_scale = p->scale};
	for (uint32_t i = 0; (p = adapter_part(a, i)); i++) {
		ret->parts[linear_of(c, p)]++;
		ret->low_rank = p->rank < ret->low_rank ? p->rank : ret->low_rank;
		ret->high_rank = p->rank > ret->high_rank ? p->rank : ret->high_rank;
		ret->low_scale = p->scale < ret->low_scale ? p->scale : ret->low_scale;
		ret->high_scale = p->scale > ret->high_scale ? p->scale : ret->high_scale;
		ret->parameters += (uint64_t)p->rank * ((uint64_t)p->n + p->k);
	}
}

static int print_json(const char *dir, const struct adapter *a, const struct summary *s, FILE *out)
{
	const struct wshm_instance *in = adapter_instance(a);
	json_t *invocation = json_array(), *linears = json_object(), *o;

	for (uint32_t i = 0; i < in->n_invocation; i++)
		json_array_append_new(invocation, json_integer(in->invocation[i]));
	for (int w = 0; w < ADAPTER_N_LINEARS; w++)
		if (s->parts[w])
			json_object_set_new(linears, linear_names[w], json_integer(s->parts[w]));
	o = json_pack("{s:s, s:s, s:o, s:o, s:i, s:i, s:f, s:f, s:I, s:I, s:o}", "dir", dir, "kind",
		      in->activated ? "alora" : "lora", "digest",
		      json_sprintf("%016" PRIx64 "%016" PRIx64, in->digest[1], in->digest[0]),
		      "invocation", invocation, "rank_min", (int)s->low_rank, "rank_max",
		      (int)s->high_rank, "scale_min", s->low_scale, "scale_max", s->high_scale,
		      "parameters", (json_int_t)s->parameters, "packed_bytes",
		      (json_int_t)adapter_bytes(a), "linears", linears);
	if (!o)
		return -ENOMEM;
	json_dumpf(o, out, JSON_INDENT(2));
	fputc('\n', out);
	json_decref(o);
	return 0;
}

static int print_text(const char *dir, const struct adapter *a, const struct summary *s, FILE *out)
{
	const struct wshm_instance *in = adapter_instance(a);

	fprintf(out, "%-12s %s\n%-12s %s\n", "folder", dir, "kind",
		in->activated ? "aLoRA" : "LoRA");
	fprintf(out, "%-12s %016" PRIx64 "%016" PRIx64 "\n", "digest", in->digest[1],
		in->digest[0]);
	fprintf(out, "%-12s %u..%u, scale %g..%g\n", "rank", s->low_rank, s->high_rank,
		s->low_scale, s->high_scale);
	fprintf(out, "%-12s %.2f million\n", "parameters", (double)s->parameters / 1e6);
	fprintf(out, "%-12s", "linears");
	for (int w = 0; w < ADAPTER_N_LINEARS; w++)
		if (s->parts[w])
			fprintf(out, " %s (%u)", linear_names[w], s->parts[w]);
	if (in->activated)
		fprintf(out, "\n%-12s", "invocation");
	for (uint32_t i = 0; i < in->n_invocation; i++)
		fprintf(out, " %u", in->invocation[i]);
	fputc('\n', out);
	return 0;
}

int adapter_info(const char *dir, const char *model, bool json, FILE *out, struct weft_err *err)
{
	const struct wk_open_options bo = {.n_threads = 1};
	struct model m = {.ops = wk_ops_by_name("cpu"), .dir = (char *)(uintptr_t)model};
	struct adapter *a = NULL;
	struct summary s;
	int r;

	r = model_config_read(model, &m.config, err);
	if (r)
		return r;
	r = m.ops->open(&bo, &m.be);
	if (r) { /* a CPU that the fast kernels do not know */
		m.ops = wk_ops_by_name("ref");
		r = m.ops->open(&bo, &m.be);
	}
	if (r)
		return err_set(err, r, "cannot open a backend: %s", strerror(-r));
	r = adapter_open_dir(&m, adapter_piece_bytes(m.ops, m.be, &m.config), dir, NULL, &a, err);
	if (!r) {
		sum_up(a, &m.config, &s);
		r = json ? print_json(dir, a, &s, out) : print_text(dir, a, &s, out);
		if (r)
			err_set(err, r, "%s: out of memory", dir);
	}
	adapter_close(a);
	m.ops->close(m.be);
	return r;
}
