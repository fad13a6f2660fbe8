/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_adapter_oracle.c - adapted models compute what peft computes.
 *
 * The fixtures (tests/oracle/make_adapters.py) hold adapters as peft saves them, prompts, where
 * peft begins to apply the adapter, its float32 logits and its greedy tokens. The reference backend
 * must agree to 1e-5 of the largest logit of a row and choose the same tokens; every path of the
 * cpu backend to 2e-2, teacher-forced. Then parts are left out one by one: each must be noticed.
 */
#include "tests/model/adapted.h"
#include "tests/tap.h"

#include <errno.h>
#include <math.h>

#define REF_TOLERANCE 1e-5
#define CPU_TOLERANCE 2e-2

/* The largest error of a kept row, the activation shifted by `shift`. */
static double adapted_error(struct runner *r, const struct adapted_fixture *f,
			    const struct adapter *a, int shift)
{
	float *out = malloc((size_t)FIXTURE_MAX_LEN * r->vocab * sizeof(float));
	double worst = 0;

	for (uint32_t i = 0; out && i < f->n_prompts; i++) {
		const struct adapted_prompt *p = &f->prompts[i];
		const struct adapted_seq s = {
			.tokens = p->tokens,
			.to = p->n_tokens,
			.table = r->table,
			.adapter = a,
			.activation = p->activation == WSHM_NO_ACTIVATION
					      ? p->activation
					      : p->activation + (uint32_t)shift,
			.out = out,
		};

		if (adapted_pass(r, &s, 1))
			worst = INFINITY;
		for (uint32_t j = 0; j < p->n_rows; j++) {
			double e = row_error(out + (size_t)p->rows[j] * r->vocab,
					     p->logits + (size_t)j * r->vocab, r->vocab);

			if (!(e <= worst))
				worst = e;
		}
	}
	free(out);
	return out ? worst : INFINITY;
}

/* The first greedy step that goes another way than peft; ADAPTED_GREEDY if none does. */
static uint32_t greedy_agreement(struct runner *r, const struct adapted_prompt *p,
				 const struct adapter *a)
{
	float *out = malloc((size_t)FIXTURE_MAX_LEN * r->vocab * sizeof(float));
	struct adapted_seq s = {.tokens = p->tokens,
				.to = p->n_prompt - 1,
				.table = r->table,
				.adapter = a,
				.activation = p->activation,
				.out = out};
	uint32_t step;

	if (!out || adapted_pass(r, &s, 1))
		bail_out("cannot run a prompt");
	for (step = 0; step < ADAPTED_GREEDY; step++) {
		uint32_t best = 0;

		s.from = p->n_prompt - 1 + step;
		s.to = s.from + 1;
		if (adapted_pass(r, &s, 1))
			bail_out("cannot run a step");
		for (uint32_t i = 1; i < r->vocab; i++)
			if (out[i] > out[best])
				best = i;
		if (best != p->tokens[s.to])
			break;
	}
	free(out);
	return step;
}

/* The engine's way to the activation finds what peft found. */
static void test_activation(const char *name, const struct adapted_fixture *f,
			    const struct adapter *a)
{
	const struct wshm_instance *in = adapter_instance(a);

	for (uint32_t i = 0; i < f->n_prompts; i++)
		is_int(wshm_activation(f->prompts[i].tokens, f->prompts[i].n_prompt, in->invocation,
				       in->n_invocation, in->offset),
		       f->prompts[i].activation, "%s: adapted from where peft does, prompt %u",
		       name, i);
}

static void test_ref(const char *name, struct adapted_fixture *f)
{
	struct weft_err err;
	struct adapter *a;
	struct runner r;
	double e;

	if (runner_open(&r, &wk_ref_ops, NULL, 1, f->model, NULL, &err))
		bail_out(err.message);
	a = adapted_open(&r, f->dir, 3);
	test_activation(name, f, a);
	e = adapted_error(&r, f, a, 0);
	ok(e <= REF_TOLERANCE, "%s: ref within 1e-5 of peft: %.1e", name, e);
	for (uint32_t i = 0; i < f->n_prompts; i++)
		is_int(greedy_agreement(&r, &f->prompts[i], a), ADAPTED_GREEDY,
		       "%s: ref finds the 32 greedy tokens of prompt %u", name, i);
	e = adapted_error(&r, f, NULL, 0);
	ok(e > CPU_TOLERANCE, "%s: without the adapter: %.1e", name, e);
	if (adapter_instance(a)->activated) {
		e = adapted_error(&r, f, a, 1);
		ok(e > CPU_TOLERANCE, "%s: from one position later: %.1e", name, e);
		f->prompts[0].activation++; /* the first prompt begins with the invocation */
		e = adapted_error(&r, f, a, -1);
		ok(e > CPU_TOLERANCE, "%s: from one position earlier: %.1e", name, e);
		f->prompts[0].activation--;
	}
	adapted_close(&r, a);
	runner_close(&r);
}

static void test_fast(const struct wk_ops *ops, const char *name, const struct adapted_fixture *f,
		      const char *path)
{
	struct weft_err err;
	struct adapter *a;
	struct runner r;
	double e;
	int c;

	c = runner_open(&r, ops, path, 2, f->model, NULL, &err);
	if (c == -EINVAL || c == -ENOTSUP) {
		skip(1, "no such instruction set here");
		return;
	}
	if (c)
		bail_out(err.message);
	a = adapted_open(&r, f->dir, 3);
	e = adapted_error(&r, f, a, 0);
	ok(e <= CPU_TOLERANCE, "%s: %s %s within 2e-2 of peft: %.1e", name, ops->name, path, e);
	adapted_close(&r, a);
	runner_close(&r);
}

/* --- what is left out must be noticed ------------------------------------------------------------*/

static struct wk_ops cut;	      /* the reference backend, which leaves out one kind of part */
static uint32_t without, without_col; /* site of a layer, and its outputs' first column */
static float scale_by = 1;

static int cut_lora_new(struct wk_backend *be, const struct wk_lora_part *parts, uint32_t n_parts,
			struct wk_lora **ret)
{
	struct wk_lora_part *kept = calloc(n_parts, sizeof(*kept));
	uint32_t n = 0;
	int r;

	for (uint32_t i = 0; i < n_parts; i++) {
		if ((parts[i].site - 1) % MODEL_N_SITES == without && parts[i].col == without_col)
			continue;
		kept[n] = parts[i];
		kept[n++].scale *= scale_by;
	}
	r = wk_ref_ops.lora_new(be, kept, n, ret);
	free(kept);
	return r;
}

static void test_left_out(const char *name, const struct model_config *c, const char *what)
{
	struct adapted_fixture f;
	struct weft_err err;
	struct adapter *a;
	struct runner r;
	double e;

	adapted_read(name, c->vocab, &f);
	if (runner_open(&r, &cut, NULL, 1, f.model, NULL, &err))
		bail_out(err.message);
	a = adapted_open(&r, f.dir, 0);
	e = adapted_error(&r, &f, a, 0);
	ok(e > 10 * REF_TOLERANCE && e > CPU_TOLERANCE / 4, "%s without %s: %.1e", name, what, e);
	adapted_close(&r, a);
	runner_close(&r);
	adapted_free(&f);
}

static void test_all_left_out(const char *name, const struct model_config *c)
{
	struct adapter_linear_shape s;

	cut = wk_ref_ops;
	cut.lora_new = cut_lora_new;
	for (int w = 0; w < ADAPTER_N_LINEARS; w++) {
		adapter_linear_shape(c, (enum adapter_linear)w, &s);
		without = s.site;
		without_col = s.col;
		test_left_out(name, c, s.name);
	}
	without = MODEL_N_SITES;
	scale_by = 0.9f;
	test_left_out(name, c, "a tenth of its scale");
	scale_by = 1;
}

int main(void)
{
	const char *const *paths;
	const struct wk_ops *ops = fixture_fast(&paths);
	bool all = !fixture_only_fast();
	struct adapted_fixture f;
	struct fixture base;

	fixture_read("llama", &base); /* all fixtures have its vocabulary */
	for (uint32_t i = 0; i < n_adapted; i++) {
		adapted_read(adapted_names[i], base.config.vocab, &f);
		if (all)
			test_ref(adapted_names[i], &f);
		for (int p = 0; paths[p]; p++)
			test_fast(ops, adapted_names[i], &f, paths[p]);
		adapted_free(&f);
	}
	if (all)
		test_all_left_out("llama-all", &base.config);
	fixture_free(&base);
	return tap_done();
}
