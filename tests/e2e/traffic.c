/* SPDX-License-Identifier: Apache-2.0 */
/* traffic.c - see traffic.h. */
#include "tests/e2e/traffic.h"

#include "tests/e2e/adapter_files.h"
#include "tests/e2e/engine_harness.h"

#include <stdio.h>
#include <string.h>

/* --- adapters -------------------------------------------------------------------------------------*/

/* Short invocations of few tokens, so that they occur by chance, overlap and nest. */
static const struct {
	const char *name;
	enum wshm_missing missing;
	struct af_adapter version[TR_VERSIONS];
	int32_t offset[TR_VERSIONS];
} specs[TR_NAMES] = {
	{"lora-small",
	 WSHM_MISSING_ERROR,
	 {{.linears = AF_Q | AF_V, .rank = 4, .alpha = 8},
	  {.linears = AF_Q | AF_V, .rank = 4, .alpha = 8},
	  {.linears = AF_DOWN, .rank = 1, .alpha = 2}},
	 {0}},
	{"lora-all",
	 WSHM_MISSING_ERROR,
	 {{.linears = AF_ALL, .rank = 16, .alpha = 16, .bf16 = true},
	  {.linears = AF_ALL, .rank = 17, .alpha = 16, .rslora = true},
	  {.linears = AF_O | AF_UP, .rank = 8, .alpha = 8}},
	 {0}},
	{"act-qkv",
	 WSHM_MISSING_BASE,
	 {{.linears = AF_Q | AF_K | AF_V,
	   .rank = 8,
	   .alpha = 8,
	   .n_invocation = 2,
	   .invocation = {150, 151}},
	  {.linears = AF_Q | AF_K | AF_V,
	   .rank = 8,
	   .alpha = 8,
	   .n_invocation = 2,
	   .invocation = {150, 151}},
	  {.linears = AF_Q | AF_K | AF_V,
	   .rank = 8,
	   .alpha = 8,
	   .n_invocation = 2,
	   .invocation = {151, 150}}},
	 {0}},
	{"act-all",
	 WSHM_MISSING_ERROR,
	 {{.linears = AF_ALL,
	   .rank = 32,
	   .alpha = 32,
	   .bf16 = true,
	   .n_invocation = 3,
	   .invocation = {150, 150, 151}},
	  {.linears = AF_ALL,
	   .rank = 33,
	   .alpha = 32,
	   .n_invocation = 3,
	   .invocation = {150, 150, 151}},
	  {.linears = AF_ALL, .rank = 3, .alpha = 3, .n_invocation = 1, .invocation = {150}}},
	 {0, 0, 1}},
	{"act-off",
	 WSHM_MISSING_APPEND,
	 {{.linears = AF_K | AF_DOWN,
	   .rank = 16,
	   .alpha = 8,
	   .n_invocation = 2,
	   .invocation = {152, 153}},
	  {.linears = AF_K | AF_DOWN,
	   .rank = 16,
	   .alpha = 8,
	   .n_invocation = 2,
	   .invocation = {152, 153}},
	  {.linears = AF_V, .rank = 5, .alpha = 8, .n_invocation = 2, .invocation = {152, 153}}},
	 {2, 1, -3}},
	{"act-one",
	 WSHM_MISSING_APPEND,
	 {{.linears = AF_V | AF_GATE,
	   .rank = 6,
	   .alpha = 6,
	   .n_invocation = 1,
	   .invocation = {154}},
	  {.linears = AF_V | AF_GATE,
	   .rank = 6,
	   .alpha = 6,
	   .n_invocation = 1,
	   .invocation = {154}},
	  {.linears = AF_ALL, .rank = 9, .alpha = 9, .n_invocation = 2, .invocation = {154, 154}}},
	 {0}},
	{"act-same",
	 WSHM_MISSING_BASE,
	 {{.linears = AF_Q, .rank = 2, .alpha = 4, .n_invocation = 2, .invocation = {150, 151}},
	  {.linears = AF_UP, .rank = 2, .alpha = 4, .n_invocation = 2, .invocation = {150, 151}},
	  {.linears = AF_ALL, .rank = 9, .alpha = 9, .n_invocation = 2, .invocation = {154, 154}}},
	 {0}},
};

void tr_world_init(struct tr_world *w, const char *model, const char *base_dir)
{
	memset(w, 0, sizeof(*w));
	snprintf(w->model_dir, sizeof(w->model_dir), "%s", eh_model_dir(model));
	w->plain = plain_new(w->model_dir);
	for (uint32_t i = 0; i < TR_NAMES; i++) {
		struct tr_name *n = &w->names[i];

		snprintf(n->name, sizeof(n->name), "%s", specs[i].name);
		n->missing = specs[i].missing;
		for (uint32_t v = 0; v < TR_VERSIONS; v++) {
			struct af_adapter a = specs[i].version[v];

			a.seed = i == 6 && v == 2 ? 100 * 5 + v : 100 * i + v;
			n->offset[v] = specs[i].offset[v];
			snprintf(n->dir[v], sizeof(n->dir[v]), "%.40s/%.16s-%.16s-%u", base_dir,
				 model, n->name, v);
			af_write(n->dir[v], w->model_dir, &a);
			n->plain[v] = plain_adapter(w->plain, n->dir[v], n->offset[v]);
		}
	}
}

void tr_world_fini(struct tr_world *w)
{
	plain_free(w->plain);
	for (uint32_t i = 0; i < TR_NAMES; i++)
		for (uint32_t v = 0; v < TR_VERSIONS; v++)
			af_remove(w->names[i].dir[v]);
}

/* --- requests -------------------------------------------------------------------------------------*/

uint32_t tr_below(struct tr_source *s, uint32_t n)
{
	return eh_random(&s->x) % n;
}

bool tr_chance(struct tr_source *s, uint32_t percent)
{
	return tr_below(s, 100) < percent;
}

void tr_source_init(struct tr_source *s, const struct tr_world *w, uint64_t seed)
{
	memset(s, 0, sizeof(*s));
	s->world = w;
	s->x = seed * UINT64_C(0x9E3779B97F4A7C15) | 1;
	for (int i = 0; i < 20; i++)
		eh_random(&s->x);
}

static void append(struct tr_request *r, uint32_t token)
{
	if (r->n < TR_MAX_PROMPT)
		r->prompt[r->n++] = token;
}

static void append_random(struct tr_source *s, struct tr_request *r, uint32_t n)
{
	while (n--)
		append(r, tr_chance(s, 10) ? 150 + tr_below(s, 5)
					   : tr_below(s, plain_vocab(s->world->plain)));
}

static void append_invocation(struct tr_source *s, struct tr_request *r)
{
	const struct tr_name *n = &s->world->names[2 + tr_below(s, TR_NAMES - 2)];
	const struct wshm_instance *in =
		plain_instance(s->world->plain, n->plain[tr_below(s, TR_VERSIONS)]);

	for (uint32_t i = 0; i < in->n_invocation; i++)
		append(r, in->invocation[i]);
}

/* A conversation's beginning: all of it, or cut at a block's edge and around it, or anywhere. */
static uint32_t cut(struct tr_source *s, uint32_t n)
{
	uint32_t at;

	if (tr_chance(s, 50))
		return n;
	if (tr_chance(s, 50))
		return tr_below(s, n + 1);
	at = 16 * tr_below(s, n / 16 + 1) + tr_below(s, 3);
	return at ? at - 1 : 0;
}

static void make_prompt(struct tr_source *s, struct tr_request *r)
{
	uint32_t talk = tr_below(s, TR_CONVERSATIONS), n = s->talks[talk].n;

	r->n = 0;
	r->talk = talk;
	if (n && n < TR_MAX_PROMPT - 40 && tr_chance(s, 85)) {
		r->n = cut(s, n);
		memcpy(r->prompt, s->talks[talk].tokens, r->n * sizeof(*r->prompt));
	}
	if (!r->n)
		append_random(s, r, 1 + tr_below(s, 70));
	for (uint32_t more = tr_below(s, 4); more; more--) {
		if (tr_chance(s, 50))
			append_invocation(s, r);
		else
			append_random(s, r, 1 + tr_below(s, 20));
	}
	if (r->n == s->talks[talk].n && tr_chance(s, 70))
		append_random(s, r, 1);
}

static void make_sampling(struct tr_source *s, struct wshm_desc *d)
{
	d->seed = tr_below(s, 1000);
	d->has_seed = true;
	if (tr_chance(s, 40)) {
		d->temperature = 1.1f;
		d->top_k = tr_chance(s, 30) ? 40 : 0;
		d->top_p = tr_chance(s, 50) ? 0.95f : 1;
	}
	if (tr_chance(s, 10)) {
		d->repetition = 1.2f;
		d->presence = 0.3f;
	}
	if (tr_chance(s, 10)) {
		d->ignore_eos = false;
		d->min_tokens = tr_below(s, d->max_tokens + 1);
		d->n_stop_tokens = 2;
		d->stop_tokens[0] = tr_below(s, 150);
		d->stop_tokens[1] = tr_below(s, 150);
	}
	/* Answers that hold an invocation: in the next prompt it counts, in this one it did not. */
	if (tr_chance(s, 15)) {
		d->n_bias = 5;
		for (uint32_t i = 0; i < 5; i++) {
			d->bias[i].token = 150 + i;
			d->bias[i].value = 3.0f + (float)tr_below(s, 5);
		}
	}
	d->n = tr_chance(s, 12) ? 2 + tr_below(s, 3) : 1;
	d->logprobs = tr_chance(s, 50) ? tr_below(s, 4) : WSHM_NO_LOGPROBS;
	d->prompt_logprobs = tr_chance(s, 8) ? tr_below(s, 3) : WSHM_NO_LOGPROBS;
}

void tr_next(struct tr_source *s, struct tr_request *r)
{
	if (s->has_last && tr_chance(s, 12)) {
		*r = s->last; /* the same prompt again, at the same time */
		if (tr_chance(s, 50))
			r->name = (int)tr_below(s, TR_NAMES + 1) - 1;
		return;
	}
	memset(r, 0, sizeof(*r));
	eh_desc(&r->d);
	make_prompt(s, r);
	r->d.max_tokens = 1 + tr_below(s, tr_chance(s, 80) ? 8 : TR_MAX_TOKENS);
	make_sampling(s, &r->d);
	r->d.priority = tr_chance(s, 20) ? (int32_t)tr_below(s, 5) - 2 : 0;
	r->d.no_cache = tr_chance(s, 5);
	r->name = tr_chance(s, 30) ? -1 : (int)tr_below(s, TR_NAMES);
	s->last = *r;
	s->has_last = true;
}

void tr_answered(struct tr_source *s, const struct tr_request *r, const uint32_t *answer,
		 uint32_t n)
{
	uint32_t talk = r->talk;

	if (r->n + n > TR_MAX_PROMPT - 40)
		return;
	memcpy(s->talks[talk].tokens, r->prompt, r->n * sizeof(*r->prompt));
	memcpy(s->talks[talk].tokens + r->n, answer, n * sizeof(*answer));
	s->talks[talk].n = r->n + n;
}

void tr_meaning(const struct tr_world *w, const struct tr_request *r, int version,
		struct tr_meaning *ret)
{
	const struct wshm_instance *in;
	const struct tr_name *name;

	memset(ret, 0, sizeof(*ret));
	ret->n = r->n;
	memcpy(ret->prompt, r->prompt, r->n * sizeof(*r->prompt));
	if (r->name < 0)
		return;
	name = &w->names[r->name];
	ret->adapter = name->plain[version];
	in = plain_instance(w->plain, ret->adapter);
	if (!in->activated)
		return;
	ret->invocation = WSHM_INVOCATION_FOUND;
	if (plain_activation(w->plain, ret->adapter, r->prompt, r->n) != UINT64_MAX)
		return;
	if (name->missing == WSHM_MISSING_ERROR) {
		ret->status = WSHM_NO_INVOCATION;
	} else if (name->missing == WSHM_MISSING_BASE) {
		ret->invocation = WSHM_INVOCATION_BASE;
	} else {
		ret->invocation = WSHM_INVOCATION_APPENDED;
		memcpy(ret->prompt + ret->n, in->invocation,
		       in->n_invocation * sizeof(*in->invocation));
		ret->n += in->n_invocation;
	}
}
