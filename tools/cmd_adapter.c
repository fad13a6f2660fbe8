/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_adapter.c - `weft adapter ...`: make a folder with random weights for a model; say what a
 * folder holds. Neither needs a daemon.
 */
#include "daemon/common/err.h"
#include "tools/adapter_make.h"
#include "tools/cli.h"

#include <stdio.h>
#include <stdlib.h>

static int json;

/* --- folders -------------------------------------------------------------------------------------*/

static struct adapter_make_options make_options = {
	.targets = "all",
	.dtype = "bf16",
	.rank = 16,
	.alpha = -1,
	.strength = 0.5,
	.seed = 1,
};
static struct cli_tokens invocation;
static int rslora;

static const struct cli_option make_table[] = {
	{"model", 'm', "DIR", cli_set_str, &make_options.model, "the model's folder; needed"},
	{"rank", 'r', "N", cli_set_u32, &make_options.rank, "1..1024; default 16"},
	{"alpha", 0, "X", cli_set_double, &make_options.alpha, "default twice the rank"},
	{"rslora", 0, NULL, NULL, &rslora, "scale by alpha / sqrt(rank), not alpha / rank"},
	{"targets", 't', "LIST", cli_set_str, &make_options.targets,
	 "of q,k,v,o,gate,up,down; default all"},
	{"invocation", 'i', "IDS", cli_set_tokens, &invocation,
	 "tokens that activate it: makes an aLoRA"},
	{"dtype", 0, "NAME", cli_set_str, &make_options.dtype, "bf16 (default), f16, f32"},
	{"scale", 0, "X", cli_set_double, &make_options.strength,
	 "size of what it adds to a linear's output, relative to that; default 0.5"},
	{"seed", 0, "N", cli_set_u64, &make_options.seed, "same seed, same bytes; default 1"},
	{"json", 'j', NULL, NULL, &json, "one JSON object"},
};

static const struct cli_command make_command = {
	"adapter make",
	"DIR",
	"Write a PEFT folder of a LoRA or aLoRA with random weights for a model.",
	make_table,
	sizeof(make_table) / sizeof(*make_table),
	1,
};

static int make(int argc, char **argv)
{
	struct weft_err e;
	int r;

	if (cli_parse(&make_command, argc, argv) != 1 || !make_options.model)
		return cli_fail("adapter make: name the folder to write and --model") + 1;
	make_options.dir = argv[1];
	make_options.rslora = rslora;
	make_options.invocation = invocation.tokens;
	make_options.n_invocation = invocation.n;
	r = adapter_make(&make_options, &e);
	free(invocation.tokens);
	if (!r && json)
		r = adapter_info(argv[1], make_options.model, true, stdout, &e);
	return r ? cli_fail("%s", e.message) : 0;
}

static const char *info_model;

static const struct cli_option info_table[] = {
	{"model", 'm', "DIR", cli_set_str, &info_model, "the model's folder; needed"},
	{"json", 'j', NULL, NULL, &json, "one JSON object"},
};

static const struct cli_command info_command = {
	"adapter info",
	"DIR",
	"Check an adapter's folder as the engine would, and say what it holds.",
	info_table,
	sizeof(info_table) / sizeof(*info_table),
	1,
};

static int info(int argc, char **argv)
{
	struct weft_err e;

	if (cli_parse(&info_command, argc, argv) != 1 || !info_model)
		return cli_fail("adapter info: name the folder to look at and --model") + 1;
	return adapter_info(argv[1], info_model, json, stdout, &e) ? cli_fail("%s", e.message) : 0;
}

static const struct cli_entry commands[] = {
	{"make", make, "write a folder with random weights"},
	{"info", info, "what a folder holds, checked"},
};

int cmd_adapter(int argc, char **argv)
{
	return cli_subcommand("weft adapter", commands, sizeof(commands) / sizeof(*commands), argc,
			      argv);
}
