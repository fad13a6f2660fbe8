/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_bench.c - `weft bench ...`: each kind of benchmark fills a table (bench.h), printed for
 * people or as JSON. What is measured, and how, is said where it is measured.
 */
#include "tools/bench.h"
#include "tools/bench_model.h"
#include "tools/cli.h"

#include <stdio.h>
#include <string.h>

static int json;

int bench_output(struct bench_table *t, int as_json)
{
	if (as_json)
		bench_print_json(t);
	else
		bench_print(t);
	bench_free(t);
	return 0;
}

static int print(struct bench_table *t)
{
	return bench_output(t, json);
}

/* --- serve ---------------------------------------------------------------------------------------*/

static struct bench_serve_options serve_options = {
	.clients = 2,
	.requests = 20,
	.prompt = 64,
	.tokens = 32,
	.warm_up = 1,
	.seed = 1,
};

/* clang-format off */
static const struct cli_option serve_table[] = {
	{"socket", 0, "PATH", cli_set_str, &serve_options.socket, "the daemon's socket"},
	{"model", 'm', "NAME", cli_set_str, &serve_options.model, "which model; default: the only one"},
	{"clients", 'c', "N", cli_set_u32, &serve_options.clients, "client processes; default 2"},
	{"requests", 'r', "N", cli_set_u32, &serve_options.requests, "requests in all; default 20"},
	{"prompt", 'p', "N", cli_set_u32, &serve_options.prompt, "tokens of each prompt; default 64"},
	{"tokens", 't', "N", cli_set_u32, &serve_options.tokens, "tokens of each answer; default 32"},
	{"warm-up", 0, "N", cli_set_u32, &serve_options.warm_up, "requests of each client before; default 1"},
	{"rate", 0, "X", cli_set_double, &serve_options.rate, "requests a second in all; default: no pause"},
	{"poll-always", 0, NULL, NULL, &serve_options.poll_always, "clients spin instead of sleeping"},
	{"parts", 0, NULL, NULL, &serve_options.parts, "where the time that is not forward time goes"},
	{"seed", 's', "N", cli_set_u32, &serve_options.seed, "of the prompts; default 1"},
	{"json", 'j', NULL, NULL, &json, "a JSON list instead of the table"},
};
/* clang-format on */

static const struct cli_command serve_command = {
	"bench serve",
	"",
	"Client processes against a running daemon: time to first token, time between tokens,\n"
	"tokens per second, and what the system adds to the model's own time.",
	serve_table,
	sizeof(serve_table) / sizeof(*serve_table),
	0,
};

static int serve(int argc, char **argv)
{
	struct bench_table t = {0};

	cli_parse(&serve_command, argc, argv);
	if (bench_serve(&serve_options, &t)) {
		bench_free(&t);
		return 1;
	}
	return print(&t);
}

/* --- without a daemon ----------------------------------------------------------------------------*/

static const struct cli_option json_table[] = {
	{"json", 'j', NULL, NULL, &json, "a JSON list instead of the table"},
};

static const struct cli_command machine_command = {
	"bench machine",
	"",
	"What this machine can do at most: arithmetic of each instruction path, streaming\n"
	"bandwidth, on one thread and on all.",
	json_table,
	1,
	0,
};

static const struct cli_command kernels_command = {
	"bench kernels",
	"",
	"Matrix products of the 1b model's shapes, and attention, against the limits of the\n"
	"machine, probed between the repetitions. Takes about a minute.",
	json_table,
	1,
	0,
};

static const struct cli_command ring_command = {
	"bench ring",
	"",
	"Two processes through a real pair of regions: the round trip of a submission and its\n"
	"notice, and what it costs to wake a sleeper.",
	json_table,
	1,
	0,
};

static const struct cli_command index_command = {
	"bench index",
	"",
	"Look up keys in an index of a million entries while its writer changes it: lookups per\n"
	"second of one core, torn entries, and what changes cost the writer.",
	json_table,
	1,
	0,
};

static const char *tokenizer_dir, *tokenizer_text;

static const struct cli_option tokenizer_table[] = {
	{"tokenizer", 't', "DIR", cli_set_str, &tokenizer_dir,
	 "measure this one; default: one is made"},
	{"file", 'f', "FILE", cli_set_str, &tokenizer_text,
	 "encode this text; default: one is made"},
	{"json", 'j', NULL, NULL, &json, "a JSON list instead of the table"},
};

static const struct cli_command tokenizer_command = {
	"bench tokenizer",
	"",
	"Read a tokenizer of 128,000 tokens, and encode text with it on one core.",
	tokenizer_table,
	3,
	0,
};

static struct bench_model_options model_options;

/* clang-format off */
static const struct cli_option model_table[] = {
	{"dir", 'd', "DIR", cli_set_str, &model_options.dir, "where the models 1b and 135m are, or are made and left"},
	{"threads", 0, "N", cli_set_u32, &model_options.threads, "compute threads; default: all CPUs"},
	{"reps", 0, "N", cli_set_u32, &model_options.reps, "repetitions of each pair; default 5"},
	{"json", 'j', NULL, NULL, &json, "a JSON list instead of the table"},
};
/* clang-format on */

static const struct cli_command model_command = {
	"bench model",
	"",
	"Whole passes of the 1b and 135m shapes, prefill and decode, against the limits of the\n"
	"machine. Makes the models (2 GB) if they are not there.",
	model_table,
	sizeof(model_table) / sizeof(*model_table),
	0,
};

static int add_model(struct bench_table *t)
{
	return bench_model(&model_options, t);
}

static int add_ring(struct bench_table *t)
{
	struct bench_row rows[16];
	int n = bench_ring(rows, 16);

	if (n < 0)
		return cli_fail("bench ring: %s", strerror(-n));
	for (int i = 0; i < n; i++)
		bench_add(t, &rows[i]);
	return 0;
}

static int measure(const struct cli_command *c, int (*add)(struct bench_table *), int argc,
		   char **argv)
{
	struct bench_table t = {0};

	cli_parse(c, argc, argv);
	if (add(&t)) {
		bench_free(&t);
		return 1;
	}
	return print(&t);
}

static int machine(int argc, char **argv)
{
	return measure(&machine_command, bench_machine, argc, argv);
}

static int kernels(int argc, char **argv)
{
	return measure(&kernels_command, bench_kernels, argc, argv);
}

static int model(int argc, char **argv)
{
	return measure(&model_command, add_model, argc, argv);
}

static int add_tokenizer(struct bench_table *t)
{
	return bench_tokenizer(tokenizer_dir, tokenizer_text, t);
}

static int tokenizer(int argc, char **argv)
{
	return measure(&tokenizer_command, add_tokenizer, argc, argv);
}

static int prefix_index(int argc, char **argv)
{
	return measure(&index_command, bench_index, argc, argv);
}

static int ring(int argc, char **argv)
{
	return measure(&ring_command, add_ring, argc, argv);
}

static const struct cli_entry commands[] = {
	{"machine", machine, "the limits of this machine"},
	{"kernels", kernels, "matrix products and attention against those limits"},
	{"model", model, "whole passes of a model against those limits"},
	{"ring", ring, "the round trip through shared memory"},
	{"index", prefix_index, "reading the prefix index while it changes"},
	{"tokenizer", tokenizer, "text to tokens"},
	{"serve", serve, "clients against a running daemon"},
	{"pipeline", cmd_bench_pipeline, "base model and adapters on one another's KV"},
	{"adapters", cmd_bench_adapters, "what adapters cost, in a batch and unused"},
	{"probe", cmd_bench_probe, "asking what is cached"},
};

int cmd_bench(int argc, char **argv)
{
	return cli_subcommand("weft bench", commands, sizeof(commands) / sizeof(*commands), argc,
			      argv);
}
