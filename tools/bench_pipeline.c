/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_pipeline.c - `weft bench pipeline`: what reuse of one model's KV by another is worth.
 *
 * Five pipelines of base model and adapters (Activated LoRA, arXiv 2512.17910), each timed in
 * several arms against a running daemon and whatever adapters it has loaded: the first five
 * activated ones and the first five plain ones. The arms differ in who answers the timed call:
 *
 *   alora           an activated adapter, which reads the base model's KV up to its invocation
 *   alora-serial    the same five calls one after another (parallel pipeline only)
 *   lora-cold       a plain adapter that has never seen the prompt
 *   lora-warm       that call once more: its own prefix is there
 *   base-recompute  the base model, everything computed anew
 *
 * This file has the options and the order of things; bench_pipeline.h says where the rest is.
 */
#include "tools/bench_pipeline.h"
#include "tools/patience.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ALL_KINDS    ((1u << PIPE_KINDS) - 1)
#define ALL_ARMS     ((1u << PIPE_ARMS) - 1)
#define ALORA_ARMS   (1u << ARM_ALORA | 1u << ARM_ALORA_SERIAL)
#define LORA_ARMS    (1u << ARM_LORA_COLD | 1u << ARM_LORA_WARM)
#define MAX_ADAPTERS 256
#define SLOTS	     256
#define UNSET	     UINT32_MAX

/* --- options -------------------------------------------------------------------------------------*/

/* A comma-separated list of names to a set of bits. */
static int set_names(uint32_t *set, const char *text, const char *(*name)(uint32_t), uint32_t n)
{
	char *copy = strdup(text), *at = copy, *word;
	int err = copy ? 0 : -1;

	while (!err && (word = strsep(&at, ","))) {
		uint32_t i = 0;

		while (i < n && strcmp(name(i), word))
			i++;
		if (i == n)
			err = -1;
		else
			*set |= 1u << i;
	}
	free(copy);
	return err;
}

static const char *kind_name(uint32_t i)
{
	return pipe_kind_name(i);
}

static const char *arm_name(uint32_t i)
{
	return pipe_arm_name(i);
}

static int set_kinds(void *value, const char *text)
{
	return set_names(value, text, kind_name, PIPE_KINDS);
}

static int set_arms(void *value, const char *text)
{
	return set_names(value, text, arm_name, PIPE_ARMS);
}

static int set_rates(void *value, const char *text)
{
	struct pipe_options *o = value;
	char *copy = strdup(text), *at = copy, *word;
	int err = copy ? 0 : -1;

	while (!err && (word = strsep(&at, ","))) {
		double rate;

		err = o->n_rates == sizeof(o->rates) / sizeof(*o->rates) ||
		      cli_set_double(&rate, word) || !isfinite(rate) || rate <= 0;
		if (!err)
			o->rates[o->n_rates++] = rate;
	}
	free(copy);
	return err ? -1 : 0;
}

static struct pipe_options options = {
	.generate = UNSET,
	.tokens = 16,
	.prompt = 256,
	.reps = 5,
	.requests = UNSET,
	.seed = 1,
	.share = 1,
};
static int json, full;

/* clang-format off */
static const struct cli_option table[] = {
	{"socket", 0, "PATH", cli_set_str, &options.socket, "the daemon's socket"},
	{"model", 'm', "NAME", cli_set_str, &options.model, "which model; default: the only one"},
	{"pipelines", 0, "LIST", set_kinds, &options.kinds, "base-adapter,adapter-base,generation,parallel,async; default: base-adapter,parallel"},
	{"arms", 0, "LIST", set_arms, &options.arms, "alora,alora-serial,lora-cold,lora-warm,base-recompute; default: all"},
	{"prompts", 'p', "LIST", cli_set_tokens, &options.prompts, "prompt tokens, swept; default 512"},
	{"generate", 'g', "N", cli_set_u32, &options.generate, "tokens of the first call's answer; default 32"},
	{"tokens", 't', "N", cli_set_u32, &options.tokens, "tokens of the timed call's answer; default 16"},
	{"adapter-tokens", 0, "N", cli_set_u32, &options.adapter_tokens, "of each of the five in parallel; default 16, or as --generate"},
	{"prompt", 0, "N", cli_set_u32, &options.prompt, "prompt tokens of generation and async; default 256"},
	{"generations", 0, "LIST", cli_set_tokens, &options.generations, "generation: tokens of the base's answer; default 32,256"},
	{"rates", 0, "LIST", set_rates, &options, "async: conversations a second; default 1,4"},
	{"requests", 'r', "N", cli_set_u32, &options.requests, "async: conversations at each rate; default 20"},
	{"reps", 0, "N", cli_set_u32, &options.reps, "repetitions of each point; default 5"},
	{"share", 0, "N", cli_set_u32, &options.share, "so many repetitions go on from one first call; default 1"},
	{"seed", 's', "N", cli_set_u32, &options.seed, "of prompts and arrivals; default 1"},
	{"full", 0, NULL, NULL, &full, "all pipelines, with longer defaults (man weft); may take hours"},
	{"svg", 0, "FILE", cli_set_str, &options.svg, "also draw the figures"},
	{"json", 'j', NULL, NULL, &json, "a JSON list instead of the table"},
};
/* clang-format on */

static const struct cli_command command = {
	"bench pipeline",
	"",
	"Pipelines of base model and adapters against a running daemon with adapters loaded: what\n"
	"it is worth that they reuse one another's KV. Times are the engine's own.",
	table,
	sizeof(table) / sizeof(*table),
	0,
};

/* What nobody chose: enough to see what there is to see; or, with --full, as it is published. */
static const struct defaults {
	uint32_t kinds, generate, adapter_tokens, requests; /* adapter_tokens 0: as generate */
	uint32_t n_prompts, n_generations, n_rates;
	uint32_t prompts[3], generations[3];
	double rates[4];
} defaults[2] = {
	{.kinds = 1u << PIPE_BASE_ADAPTER | 1u << PIPE_PARALLEL,
	 .generate = 32,
	 .adapter_tokens = 16,
	 .requests = 20,
	 .n_prompts = 1,
	 .prompts = {512},
	 .n_generations = 2,
	 .generations = {32, 256},
	 .n_rates = 2,
	 .rates = {1, 4}},
	{.kinds = ALL_KINDS,
	 .generate = 256,
	 .requests = 100,
	 .n_prompts = 3,
	 .prompts = {1024, 4096, 8192},
	 .n_generations = 3,
	 .generations = {256, 1024, 4096},
	 .n_rates = 4,
	 .rates = {0.5, 1, 2, 4}},
};

static int fill_list(struct cli_tokens *list, bool *filled, const uint32_t *v, uint32_t n)
{
	*filled = !list->n;
	return list->n ? 0 : pipe_add(list, v, n);
}

static int complete_options(struct pipe_options *o)
{
	const struct defaults *d = &defaults[full];

	if (o->generate == UNSET) {
		o->generate = d->generate;
		o->adapter_tokens = o->adapter_tokens ? o->adapter_tokens : d->adapter_tokens;
	}
	if (o->requests == UNSET)
		o->requests = d->requests;
	if (!o->reps || !o->requests || !o->generate || !o->tokens || !o->prompt || !o->share)
		return cli_fail("bench pipeline: counts of tokens, repetitions and requests begin "
				"at 1");
	if (!o->kinds)
		o->kinds = d->kinds;
	if (!o->adapter_tokens)
		o->adapter_tokens = o->generate;
	if (!o->n_rates) {
		memcpy(o->rates, d->rates, sizeof(d->rates));
		o->n_rates = d->n_rates;
	}
	return fill_list(&o->prompts, &o->default_prompts, d->prompts, d->n_prompts) ||
	       fill_list(&o->generations, &o->default_generations, d->generations,
			 d->n_generations);
}

/* --- the session ---------------------------------------------------------------------------------*/

static uint32_t largest(const struct cli_tokens *t)
{
	uint32_t max = 0;

	for (uint32_t i = 0; i < t->n; i++)
		max = t->tokens[i] > max ? t->tokens[i] : max;
	return max;
}

/* Positions that the longest conversation of some pipelines takes, invocations included. */
static uint64_t longest(const struct pipe_options *o, uint32_t kinds, uint32_t invocation)
{
	uint64_t max = 0;

	for (uint32_t kind = 0; kind < PIPE_KINDS; kind++) {
		uint32_t prompt = kind == PIPE_GENERATION || kind == PIPE_ASYNC
					  ? o->prompt
					  : largest(&o->prompts);
		uint32_t generate =
			kind == PIPE_GENERATION ? largest(&o->generations) : o->generate;
		uint64_t n = (uint64_t)prompt + generate + invocation + o->tokens;

		if (kind == PIPE_PARALLEL)
			n += PIPE_PARALLEL_CALLS * (uint64_t)o->adapter_tokens +
			     (PIPE_PARALLEL_CALLS - 1) * (uint64_t)invocation;
		if (o->kinds & kinds & 1u << kind && n > max)
			max = n;
	}
	return max;
}

/* Of lengths that nobody asked for, those that the model takes. */
static void trim(struct pipe *p, struct cli_tokens *list, bool chosen, uint32_t kinds,
		 uint32_t invocation)
{
	while (!chosen && list->n > 1 &&
	       longest(&p->opt, kinds, invocation) > p->model.max_positions)
		list->n--;
}

/* The parallel pipeline is meant for five different adapters. */
static void say_shared(uint32_t n, const char *kind)
{
	if (n < PIPE_PARALLEL_CALLS)
		fprintf(stderr,
			"weft: bench pipeline: \"parallel\" makes %u calls at once, but only %u %s "
			"adapter%s loaded: calls share %s\n",
			PIPE_PARALLEL_CALLS, n, kind, n == 1 ? " is" : "s are",
			n == 1 ? "it" : "them");
}

static int find_adapters(struct pipe *p)
{
	struct weft_adapter *all = calloc(MAX_ADAPTERS, sizeof(*all));
	int n = all ? weft_adapters(p->weft, all, MAX_ADAPTERS) : 0;

	for (int i = 0; i < n && i < MAX_ADAPTERS; i++) {
		if (all[i].activated && p->n_alora < PIPE_PARALLEL_CALLS)
			p->alora[p->n_alora++] = all[i];
		else if (!all[i].activated && p->n_lora < PIPE_PARALLEL_CALLS)
			p->lora[p->n_lora++] = all[i];
	}
	free(all);
	if (!p->opt.arms)
		p->opt.arms =
			ALL_ARMS & ~(p->n_alora ? 0 : ALORA_ARMS) & ~(p->n_lora ? 0 : LORA_ARMS);
	if (p->opt.arms & ALORA_ARMS && !p->n_alora)
		return cli_fail("bench pipeline: no activated adapter is loaded for the arms alora "
				"and alora-serial (weft adapter load)");
	if (p->opt.arms & LORA_ARMS && !p->n_lora)
		return cli_fail("bench pipeline: no plain LoRA adapter is loaded for the arms "
				"lora-cold and lora-warm (weft adapter load)");
	if ((p->opt.arms & ALORA_ARMS && p->opt.share > p->n_alora) ||
	    (p->opt.arms & LORA_ARMS && p->opt.share > p->n_lora))
		return cli_fail("bench pipeline: %u repetitions cannot share a first call with %u "
				"activated and %u plain adapters",
				p->opt.share, p->n_alora, p->n_lora);
	if (p->opt.kinds & 1u << PIPE_PARALLEL && p->opt.arms & ALORA_ARMS)
		say_shared(p->n_alora, "activated");
	if (p->opt.kinds & 1u << PIPE_PARALLEL && p->opt.arms & LORA_ARMS)
		say_shared(p->n_lora, "plain");
	return 0;
}

static int open_session(struct pipe *p)
{
	struct weft_open_options oo = WEFT_OPEN_OPTIONS_INIT;
	uint64_t positions = longest(&p->opt, ALL_KINDS, 0), bytes;
	uint32_t invocation = 0;

	oo.socket = p->opt.socket;
	oo.model = p->opt.model;
	/* The longest prompts, five at once; the many of the asynchronous pipeline. */
	bytes = (1 << 20) + 4 * 2 * PIPE_PARALLEL_CALLS * positions;
	if (p->opt.kinds & 1u << PIPE_ASYNC) {
		uint64_t each = p->opt.prompt + p->opt.generate + 2ull * WEFT_MAX_INVOCATION;

		oo.slots = SLOTS;
		bytes += 4 * 2 * SLOTS * each;
	}
	oo.prompt_bytes = bytes;
	if (patience_open(&p->weft, &oo))
		return -1;
	weft_model_info(p->weft, &p->model);
	if (find_adapters(p))
		return -1;
	for (uint32_t i = 0; i < p->n_alora; i++)
		if (p->alora[i].n_invocation > invocation)
			invocation = p->alora[i].n_invocation;
	trim(p, &p->opt.prompts, !p->opt.default_prompts, ~(1u << PIPE_GENERATION), invocation);
	trim(p, &p->opt.generations, !p->opt.default_generations, 1u << PIPE_GENERATION,
	     invocation);
	positions = longest(&p->opt, ALL_KINDS, invocation);
	if (positions > p->model.max_positions)
		return cli_fail("bench pipeline: the longest conversation takes %llu positions, "
				"the model has %u",
				(unsigned long long)positions, p->model.max_positions);
	return 0;
}

/* Each model once, so that no point pays for pages touched the first time. */
static int warm_up(struct pipe *p)
{
	const struct weft_adapter *set[] = {p->alora, p->lora};
	const uint32_t n[] = {p->n_alora, p->n_lora};
	struct cli_tokens t = {0};
	int err = 0;

	for (uint32_t k = 0; k < 2; k++)
		for (uint32_t i = 0; i < n[k] + !k && !err; i++) {
			const struct weft_adapter *a = i < n[k] ? &set[k][i] : NULL;
			struct pipe_call c = {.max_tokens = 2, .adapter = a ? a->name : NULL};

			err = pipe_new_prompt(p, &t, 16) ||
			      (a && pipe_add(&t, a->invocation, a->n_invocation));
			c.prompt = t.tokens;
			c.n_prompt = t.n;
			err = err || pipe_calls(p, &c, 1);
		}
	free(t.tokens);
	return err;
}

/* --- all of it -----------------------------------------------------------------------------------*/

void pipe_progress(const struct pipe *p, enum pipe_arm arm)
{
	const struct pipe_progress *g = &p->progress;
	bool terminal = isatty(STDERR_FILENO);

	if (!terminal && g->rep)
		return;
	fprintf(stderr, "%s%s, %s %g, %s",
		terminal ? "\r\033[K" : "weft: bench pipeline: ", pipe_kind_name(g->kind),
		pipe_x_name(g->kind), g->x, pipe_arm_name(arm));
	if (terminal)
		fprintf(stderr, ", %u of %u", g->rep + 1, g->reps);
	else if (g->reps > 1)
		fprintf(stderr, " (%u repetitions)\n", g->reps);
	else
		fputc('\n', stderr);
}

static void progress_end(void)
{
	if (isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
}

static int measure_kind(struct pipe *p, enum pipe_kind kind)
{
	const struct cli_tokens *xs =
		kind == PIPE_GENERATION ? &p->opt.generations : &p->opt.prompts;

	if (kind == PIPE_ASYNC) {
		for (uint32_t i = 0; i < p->opt.n_rates; i++) {
			p->progress = (struct pipe_progress){kind, p->opt.rates[i], 0, 1};
			if (pipe_async(p, p->opt.rates[i]))
				return -1;
		}
		return 0;
	}
	for (uint32_t i = 0; i < xs->n; i++)
		for (uint32_t rep = 0; rep < p->opt.reps; rep++) {
			p->progress = (struct pipe_progress){kind, xs->tokens[i], rep, p->opt.reps};
			if (pipe_repetition(p, kind, xs->tokens[i], rep))
				return -1;
		}
	return 0;
}

static int measure(struct pipe *p)
{
	int err = open_session(p) || warm_up(p);

	for (uint32_t kind = 0; kind < PIPE_KINDS && !err; kind++)
		if (p->opt.kinds >> kind & 1)
			err = measure_kind(p, kind);
	progress_end();
	return err;
}

static void pipe_fini(struct pipe *p)
{
	weft_close(p->weft);
	for (uint32_t i = 0; i < p->n_points; i++)
		for (uint32_t m = 0; m < PIPE_METRICS; m++)
			free(p->points[i].v[m]);
	free(p->points);
	free(p->held.tokens);
	free(p->opt.prompts.tokens);
	free(p->opt.generations.tokens);
}

int cmd_bench_pipeline(int argc, char **argv)
{
	struct bench_table t = {0};
	struct pipe *p;
	int err;

	cli_parse(&command, argc, argv);
	p = calloc(1, sizeof(*p));
	if (!p)
		return cli_fail("bench pipeline: out of memory");
	err = complete_options(&options);
	p->opt = options;
	pipe_seed(p, 0, 0, 0);
	err = err || measure(p);
	if (!err && json) {
		pipe_rows(p, &t);
		bench_print_json(&t);
		bench_free(&t);
	} else if (!err) {
		pipe_print(p);
	}
	if (!err && p->opt.svg)
		err = pipe_pictures(p, p->opt.svg);
	pipe_fini(p);
	free(p);
	return err ? 1 : 0;
}
