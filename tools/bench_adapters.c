/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_adapters.c - `weft bench adapters`: what adapters cost.
 *
 * In a batch: the same work by the base model and with adapters, alternately, in pairs; the ratio of
 * each pair. Decode: a batch over all adapters that are loaded, in turn, each request after a context
 * of its own; from the moment all have their first token to the last end. The contexts are computed
 * by the first pair, which is not counted, and then come from the cache. Prefill: one long prompt,
 * start to first token.
 *
 * Unused: requests of the base model alone, at this daemon and at one without any adapter
 * (--against), in pairs whose order alternates. The row is the lower end of the 95 % interval of the
 * pairs' median ratio, by order statistics: no assumption about how a neighbour disturbs.
 *
 * All prompts but those contexts are new: no cache takes part.
 */
#include "tools/bench_pipeline.h"
#include "tools/patience.h"
#include "tools/progress.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ADAPTERS 256

static struct adapters_options {
	struct pipe_options pipe; /* socket, model, seed */
	const char *against;
	uint32_t batch, tokens, context, prompt, reps, pairs;
} options = {
	.pipe = {.seed = 1},
	.batch = 16,
	.tokens = 64,
	.context = 1024,
	.prompt = 1024,
	.reps = 7,
	.pairs = 100,
};
static int json;

/* clang-format off */
static const struct cli_option table[] = {
	{"socket", 0, "PATH", cli_set_str, &options.pipe.socket, "the daemon's socket"},
	{"model", 'm', "NAME", cli_set_str, &options.pipe.model, "which model; default: the only one"},
	{"against", 0, "PATH", cli_set_str, &options.against, "the socket of a daemon with the same model and no adapter"},
	{"batch", 'b', "N", cli_set_u32, &options.batch, "decode: requests at once; default 16"},
	{"tokens", 't', "N", cli_set_u32, &options.tokens, "decode: tokens of each answer; default 64"},
	{"context", 'c', "N", cli_set_u32, &options.context, "decode: tokens before each answer; default 1024"},
	{"prompt", 'p', "N", cli_set_u32, &options.prompt, "prefill: tokens of the prompt; default 1024"},
	{"reps", 0, "N", cli_set_u32, &options.reps, "pairs of each measurement; default 7"},
	{"pairs", 0, "N", cli_set_u32, &options.pairs, "pairs with --against; default 100"},
	{"seed", 's', "N", cli_set_u32, &options.pipe.seed, "of the prompts; default 1"},
	{"json", 'j', NULL, NULL, &json, "a JSON list instead of the table"},
};
/* clang-format on */

static const struct cli_command command = {
	"bench adapters",
	"",
	"What adapters cost: decode and prefill with the adapters that are loaded against the "
	"base\n"
	"model, and, with --against, the base model at this daemon against one without adapters.",
	table,
	sizeof(table) / sizeof(*table),
	0,
};

struct bench {
	struct pipe here, there;       /* daemons; there.weft NULL without --against */
	struct weft_adapter *adapters; /* owner */
	uint32_t n_adapters;
	struct pipe_call calls[PIPE_MAX_CALLS];
	struct cli_tokens prompt, contexts[PIPE_MAX_CALLS];
	bool warm[2]; /* the contexts are computed: by the base, by the adapters */
};

/* n calls at once; over all adapters in turn, or none. */
static int call(struct bench *b, struct pipe *p, const struct cli_tokens *prompts, uint32_t n,
		uint32_t tokens, bool adapted)
{
	for (uint32_t i = 0; i < n; i++)
		b->calls[i] = (struct pipe_call){
			.adapter = adapted ? b->adapters[i % b->n_adapters].name : NULL,
			.prompt = prompts[i].tokens,
			.n_prompt = prompts[i].n,
			.max_tokens = tokens,
		};
	return pipe_calls(p, b->calls, n);
}

/* One call with a new prompt. */
static int call_new(struct bench *b, struct pipe *p, uint32_t prompt, uint32_t tokens, bool adapted)
{
	if (pipe_new_prompt(p, &b->prompt, prompt) || call(b, p, &b->prompt, 1, tokens, adapted))
		return -1;
	if (b->calls[0].cached < 16)
		return 0;
	return cli_fail("bench adapters: weftd has prompts of this seed in its cache; give another "
			"(--seed)");
}

/* Tokens per second from the moment when all run to the last end. */
static int decode(struct bench *b, bool adapted, double *ret)
{
	double first = 0, end = 0;

	for (uint32_t i = 0; i < options.batch; i++)
		if (!b->contexts[i].n &&
		    pipe_new_prompt(&b->here, &b->contexts[i], options.context))
			return -1;
	if (call(b, &b->here, b->contexts, options.batch, options.tokens, adapted))
		return -1;
	for (uint32_t i = 0; i < options.batch; i++) {
		if (b->warm[adapted] && b->calls[i].cached + 16 < options.context)
			return cli_fail("bench adapters: of a context of %u tokens only %u are "
					"still cached: the model's kv_bytes is too small",
					options.context, b->calls[i].cached);
		first = fmax(first, b->calls[i].first_s);
		end = fmax(end, b->calls[i].end_s);
	}
	b->warm[adapted] = true;
	*ret = options.batch * (options.tokens - 1) / (end - first);
	return 0;
}

static int prefill(struct bench *b, bool adapted, double *ret)
{
	if (call_new(b, &b->here, options.prompt, 1, adapted))
		return -1;
	*ret = options.prompt / (b->calls[0].first_s - b->calls[0].start_s);
	return 0;
}

/* Pairs of one measurement; the first pair, which warms up, is not counted. */
static int pairs(struct bench *b, struct bench_table *t, const char *what, double target,
		 int (*measure)(struct bench *, bool, double *))
{
	uint32_t n = options.reps;
	double *base = calloc(3 * (size_t)n, sizeof(*base)), *with = base + n, *ratio = with + n;
	char name[128];
	int err = base ? 0 : cli_fail("bench adapters: out of memory");

	for (uint32_t i = 0; i <= n && !err; i++) {
		uint32_t k = i ? i - 1 : 0;

		err = i & 1 ? measure(b, true, &with[k]) || measure(b, false, &base[k])
			    : measure(b, false, &base[k]) || measure(b, true, &with[k]);
		ratio[k] = with[k] / base[k];
		progress_step();
	}
	if (!err) {
		snprintf(name, sizeof(name), "adapters: %s, base", what);
		bench_add_samples(t, name, "tok/s", base, n, BENCH_NONE, 0);
		snprintf(name, sizeof(name), "adapters: %s, %u adapters", what, b->n_adapters);
		bench_add_samples(t, name, "tok/s", with, n, BENCH_NONE, 0);
		snprintf(name, sizeof(name), "adapters: %s, adapted against base", what);
		bench_add_samples(t, name, "ratio", ratio, n, BENCH_AT_LEAST, target);
	}
	free(base);
	return err;
}

/* Seconds of a base request. */
static int base_only(struct bench *b, struct pipe *p, double *ret)
{
	if (call_new(b, p, 64, 16, false))
		return -1;
	*ret = b->calls[0].end_s - b->calls[0].arrival_s;
	return 0;
}

static void add_interval(struct bench_table *t, double *ratio, uint32_t n)
{
	struct bench_row r = {
		.name = "adapters: base requests, loaded against none: lower end of the interval",
		.unit = "ratio",
		.goal = BENCH_AT_LEAST,
		.target = 0.98};
	double d = 0.98 * sqrt(n), lower = n / 2.0 - d, upper = n / 2.0 + 1 + d;
	uint32_t lo = lower < 1 ? 1 : (uint32_t)lower, hi = upper > n ? n : (uint32_t)ceil(upper);
	double median = bench_percentile(ratio, n, 0.5); /* sorts */

	r.value = r.lo = ratio[lo - 1];
	r.hi = ratio[hi - 1];
	bench_add(t, &r);
	r = (struct bench_row){.name = "adapters: base requests, loaded against none",
			       .unit = "ratio",
			       .value = median,
			       .lo = r.lo,
			       .hi = r.hi,
			       .pass = 1};
	bench_add(t, &r);
}

static int against(struct bench *b, struct bench_table *t)
{
	uint32_t n = options.pairs;
	double *ratio = calloc(n, sizeof(*ratio));
	int err = ratio ? 0 : cli_fail("bench adapters: out of memory");

	for (uint32_t i = 0; i < n + 4 && !err; i++) {
		double here = 0, there = 0;

		err = i & 1 ? base_only(b, &b->here, &here) || base_only(b, &b->there, &there)
			    : base_only(b, &b->there, &there) || base_only(b, &b->here, &here);
		if (i >= 4) /* the first ones warm up */
			ratio[i - 4] = there / here;
		progress_step();
	}
	if (!err)
		add_interval(t, ratio, n);
	free(ratio);
	return err;
}

/* --- sessions ------------------------------------------------------------------------------------*/

static int open_one(struct pipe *p, const char *socket)
{
	struct weft_open_options oo = WEFT_OPEN_OPTIONS_INIT;

	p->opt = options.pipe;
	oo.socket = socket;
	oo.model = p->opt.model;
	oo.prompt_bytes = (1 << 20) + 8 * ((uint64_t)options.prompt +
					   (uint64_t)options.batch * options.context);
	if (patience_open(&p->weft, &oo))
		return -1;
	weft_model_info(p->weft, &p->model);
	pipe_seed(p, 0, 0, 0);
	return 0;
}

static int open_all(struct bench *b)
{
	int n;

	if (open_one(&b->here, options.pipe.socket))
		return -1;
	b->adapters = calloc(MAX_ADAPTERS, sizeof(*b->adapters));
	n = b->adapters ? weft_adapters(b->here.weft, b->adapters, MAX_ADAPTERS) : 0;
	/* Plain ones only: an activated adapter does nothing for a prompt without its invocation. */
	for (int i = 0; i < n && i < MAX_ADAPTERS; i++)
		if (!b->adapters[i].activated)
			b->adapters[b->n_adapters++] = b->adapters[i];
	if (!b->n_adapters)
		return cli_fail(
			"bench adapters: no plain LoRA adapter is loaded (weft adapter load)");
	if (!options.against)
		return 0;
	if (open_one(&b->there, options.against))
		return -1;
	if (weft_adapters(b->there.weft, NULL, 0) > 0)
		return cli_fail("bench adapters: the daemon at %s has adapters loaded",
				options.against);
	return 0;
}

int cmd_bench_adapters(int argc, char **argv)
{
	struct bench_table t = {0};
	struct bench *b;
	int err;

	cli_parse(&command, argc, argv);
	if (!options.batch || options.batch > PIPE_MAX_CALLS || options.tokens < 2 ||
	    !options.context || !options.prompt || !options.reps || !options.pairs)
		return cli_fail("bench adapters: 1 to %u requests of at least 2 tokens, and at "
				"least one of all else",
				PIPE_MAX_CALLS);
	b = calloc(1, sizeof(*b));
	if (!b)
		return cli_fail("bench adapters: out of memory");
	err = open_all(b);
	progress_begin("weft bench adapters",
		       2 * (options.reps + 1) + (options.against ? options.pairs + 4 : 0));
	err = err || pairs(b, &t, "decode", 0.80, decode) ||
	      pairs(b, &t, "prefill", 0.90, prefill) || (options.against && against(b, &t));
	progress_end();
	weft_close(b->here.weft);
	weft_close(b->there.weft);
	for (uint32_t i = 0; i < PIPE_MAX_CALLS; i++)
		free(b->contexts[i].tokens);
	free(b->prompt.tokens);
	free(b->adapters);
	free(b);
	if (!err)
		return bench_output(&t, json);
	bench_free(&t);
	return 1;
}
