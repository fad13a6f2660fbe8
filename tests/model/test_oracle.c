/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_oracle.c - every family computes what transformers computes.
 *
 * The fixtures (tests/oracle/make_fixtures.py) hold weights, prompts, transformers' float32
 * logits and its 64 greedy tokens. The reference backend must agree to 1e-4 of the largest logit
 * of a row and choose the same tokens; every path of the cpu backend to 2e-2, teacher-forced.
 * Then parts of the arithmetic are left out one by one: each must be noticed.
 */
#include "tests/model/fixture.h"
#include "tests/tap.h"

#include <errno.h>
#include <math.h>

#define REF_TOLERANCE 1e-4
#define CPU_TOLERANCE 2e-2

/* The first of 64 greedy steps that goes another way than the oracle; 64 if none does. */
static uint32_t greedy_agreement(struct runner *r, const struct fixture_prompt *p)
{
	float *out = malloc((size_t)FIXTURE_MAX_LEN * r->vocab * sizeof(float));
	uint32_t step;

	if (!out || runner_pass(r, p->tokens, 0, p->n_prompt - 1, out))
		bail_out("cannot run a prompt");
	for (step = 0; step < FIXTURE_GREEDY; step++) {
		uint32_t at = p->n_prompt - 1 + step, best = 0;

		if (runner_pass(r, p->tokens, at, at + 1, out))
			bail_out("cannot run a step");
		for (uint32_t i = 1; i < r->vocab; i++)
			if (out[i] > out[best])
				best = i;
		if (best != p->tokens[at + 1])
			break;
	}
	free(out);
	return step;
}

static void test_ref(const char *name, const struct fixture *f)
{
	struct weft_err err;
	struct runner r;
	double e;

	if (!ok(!runner_open(&r, &wk_ref_ops, NULL, 1, f->dir, NULL, &err), "%s: ref opens",
		name)) {
		diag("%s", err.message);
		return;
	}
	e = fixture_error(&r, f);
	ok(e <= REF_TOLERANCE, "%s: ref within 1e-4 of the oracle: %.1e", name, e);
	for (int i = 0; i < FIXTURE_PROMPTS; i++)
		is_int(greedy_agreement(&r, &f->prompts[i]), FIXTURE_GREEDY,
		       "%s: ref finds the 64 greedy tokens of prompt %d", name, i);
	runner_close(&r);
}

static void test_fast(const struct wk_ops *ops, const char *name, const struct fixture *f,
		      const char *path)
{
	struct weft_err err;
	struct runner r;
	double e;
	int c;

	c = runner_open(&r, ops, path, 2, f->dir, NULL, &err);
	if (c == -EINVAL || c == -ENOTSUP) {
		skip(1, "no such instruction set here");
		return;
	}
	if (c) {
		ok(0, "%s: %s %s opens: %s", name, ops->name, path, err.message);
		return;
	}
	e = fixture_error(&r, f);
	ok(e <= CPU_TOLERANCE, "%s: %s %s within 2e-2 of the oracle: %.1e", name, ops->name, path,
	   e);
	runner_close(&r);
}

/* --- what is left out must be noticed ------------------------------------------------------------*/

static void no_rotation(struct model_config *c)
{
	c->rope = MODEL_ROPE_LINEAR;
	c->rope_factor = 1e30;
}
static void no_rope_scaling(struct model_config *c)
{
	c->rope = MODEL_ROPE_PLAIN;
}
static void no_yarn_magnitude(struct model_config *c)
{
	c->yarn_attention_factor = 1;
}
static void no_score_scale(struct model_config *c)
{
	c->attention_scale = 1;
}
static void plain_score_scale(struct model_config *c)
{
	c->attention_scale = (float)(1 / sqrt(c->head_dim));
}
static void no_window(struct model_config *c)
{
	c->window = 0;
}
static void window_one_less(struct model_config *c)
{
	c->window--;
}
static void window_everywhere(struct model_config *c)
{
	c->window_from_layer = 0;
}
static void no_embedding_scale(struct model_config *c)
{
	c->embedding_scale = 1;
}
static void no_residual_scale(struct model_config *c)
{
	c->residual_scale = 1;
}
static void no_logits_scale(struct model_config *c)
{
	c->logits_scale = 1;
}

static const struct {
	const char *fixture, *what;
	void (*mutate)(struct model_config *c);
} mutations[] = {
	{"llama", "the rotation", no_rotation},
	{"llama", "the scale of the scores", no_score_scale},
	{"llama-tied-bias", "the rotation", no_rotation},
	{"llama-tied-bias", "the scale of the scores", no_score_scale},
	{"llama3", "the rotation", no_rotation},
	{"llama3", "the llama3 scaling", no_rope_scaling},
	{"llama3", "the scale of the scores", no_score_scale},
	{"llama-linear", "the rotation", no_rotation},
	{"llama-linear", "the linear scaling", no_rope_scaling},
	{"llama-linear", "the scale of the scores", no_score_scale},
	{"llama-yarn", "the rotation", no_rotation},
	{"llama-yarn", "the yarn scaling", no_rope_scaling},
	{"llama-yarn", "yarn's magnitude", no_yarn_magnitude},
	{"llama-yarn", "the scale of the scores", no_score_scale},
	{"mistral-window", "the rotation", no_rotation},
	{"mistral-window", "the window", no_window},
	{"mistral-window", "one position of the window", window_one_less},
	{"mistral-window", "the scale of the scores", no_score_scale},
	{"qwen2", "the rotation", no_rotation},
	{"qwen2", "the scale of the scores", no_score_scale},
	{"qwen2-window-yarn", "the rotation", no_rotation},
	{"qwen2-window-yarn", "the yarn scaling", no_rope_scaling},
	{"qwen2-window-yarn", "yarn's magnitude", no_yarn_magnitude},
	{"qwen2-window-yarn", "the window", no_window},
	{"qwen2-window-yarn", "the layers without window", window_everywhere},
	{"qwen2-window-yarn", "the scale of the scores", no_score_scale},
	{"qwen3", "the rotation", no_rotation},
	{"qwen3", "the scale of the scores", no_score_scale},
	{"granite", "the rotation", no_rotation},
	{"granite", "embedding_multiplier", no_embedding_scale},
	{"granite", "residual_multiplier", no_residual_scale},
	{"granite", "attention_multiplier", plain_score_scale},
	{"granite", "logits_scaling", no_logits_scale},
};

static void test_mutations(const char *name, const struct fixture *f)
{
	for (size_t i = 0; i < sizeof(mutations) / sizeof(mutations[0]); i++) {
		struct model_config c = f->config;
		struct weft_err err;
		struct runner r;
		double e;

		if (strcmp(mutations[i].fixture, name))
			continue;
		mutations[i].mutate(&c);
		if (runner_open(&r, &wk_ref_ops, NULL, 1, f->dir, &c, &err))
			bail_out(err.message);
		e = fixture_error(&r, f);
		ok(e > CPU_TOLERANCE, "%s without %s is noticed: %.1e", name, mutations[i].what, e);
		runner_close(&r);
	}
}

int main(void)
{
	const char *const *paths;
	const struct wk_ops *ops = fixture_fast(&paths);
	bool all = !fixture_only_fast();

	for (uint32_t i = 0; i < n_fixtures; i++) {
		struct fixture f;

		fixture_read(fixture_names[i], &f);
		if (all)
			test_ref(fixture_names[i], &f);
		for (int p = 0; paths[p]; p++)
			test_fast(ops, fixture_names[i], &f, paths[p]);
		if (all)
			test_mutations(fixture_names[i], &f);
		fixture_free(&f);
	}
	return tap_done();
}
