/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_model.c - `weft model ...`: list what a daemon serves; make a folder with random weights; say
 * what a folder holds. The last two need no daemon.
 */
#include "daemon/common/err.h"
#include "libclient/weft.h"
#include "tools/cli.h"
#include "tools/model_make.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MAX_MODELS 64

static const char *socket_path;
static int json;

static const struct cli_option list_options[] = {
	{"socket", 0, "PATH", cli_set_str, &socket_path, "the daemon's socket"},
	{"json", 'j', NULL, NULL, &json, "a JSON list"},
};

static const struct cli_command list_command = {
	"model list", "", "List the models that the daemon serves.", list_options, 2, 0,
};

static void print_json(const struct weft_model *m, int n)
{
	puts("[");
	for (int i = 0; i < n; i++, m++) {
		printf("{\"name\":");
		cli_json_string(m->name, strlen(m->name));
		printf(",\"type\":");
		cli_json_string(m->type, strlen(m->type));
		printf(",\"ready\":%s,\"failed\":%s,\"vocab\":%u,\"max_positions\":%u,"
		       "\"weight_bytes\":%" PRIu64 ",\"eos\":[",
		       m->ready ? "true" : "false", m->failed ? "true" : "false", m->vocab,
		       m->max_positions, m->weight_bytes);
		for (uint32_t k = 0; k < m->n_eos; k++)
			printf("%s%u", k ? "," : "", m->eos[k]);
		if (m->bos == UINT32_MAX)
			printf("],\"bos\":null}");
		else
			printf("],\"bos\":%u}", m->bos);
		puts(i + 1 < n ? "," : "");
	}
	puts("]");
}

/* What is not known before it is loaded is not shown as none. */
static void print_one(const struct weft_model *m)
{
	if (m->ready)
		cli_line(stdout, "%-24s %-10s %-8s %8u %10u %7.1f MB", m->name, m->type, "ready",
			 m->vocab, m->max_positions, (double)m->weight_bytes / 1e6);
	else
		cli_line(stdout, "%-24s %-10s %-8s %8s %10s %10s", m->name, "-",
			 m->failed ? "failed" : "loading", "-", "-", "-");
}

static int list(int argc, char **argv)
{
	static struct weft_model models[MAX_MODELS];
	struct weft_error e;
	int n;

	cli_parse(&list_command, argc, argv);
	n = weft_models(socket_path, models, MAX_MODELS, &e);
	if (n < 0)
		return cli_fail("%s", e.message);
	if (json) {
		print_json(models, n);
		return 0;
	}
	printf("%-24s %-10s %-8s %8s %10s %10s\n", "name", "type", "state", "vocab", "positions",
	       "weights");
	for (int i = 0; i < n; i++)
		print_one(&models[i]);
	return 0;
}

/* --- folders -------------------------------------------------------------------------------------*/

static struct model_make_options make_options = {.shape = "tiny", .arch = "llama", .seed = 1};
static int quiet;

static const struct cli_option make_table[] = {
	{"shape", 's', "NAME", cli_set_str, &make_options.shape, "tiny (default), 135m, 1b, 8b"},
	{"arch", 'a', "NAME", cli_set_str, &make_options.arch,
	 "llama (default), mistral, qwen2, qwen3, granite"},
	{"seed", 0, "N", cli_set_u64, &make_options.seed, "same seed, same bytes; default 1"},
	{"positions", 0, "N", cli_set_u32, &make_options.positions,
	 "longest sequence; default: the shape's own"},
	{"quiet", 'q', NULL, NULL, &quiet, "no progress bar"},
	{"json", 'j', NULL, NULL, &json, "one JSON object"},
};

static const struct cli_command make_command = {
	"model make",
	"DIR",
	"Write a Hugging Face model folder with random weights (BF16).",
	make_table,
	sizeof(make_table) / sizeof(*make_table),
	1,
};

static int make(int argc, char **argv)
{
	struct weft_err e;

	if (cli_parse(&make_command, argc, argv) != 1)
		return cli_usage("name the folder to write");
	make_options.dir = argv[1];
	make_options.quiet = quiet;
	if (model_make(&make_options, &e) < 0)
		return cli_fail("%s", e.message);
	if (json && model_info(argv[1], true, stdout, &e) < 0)
		return cli_fail("%s", e.message);
	return 0;
}

static const struct cli_command info_command = {
	"model info",	"DIR", "Say what a model folder holds; weights are not read.",
	&make_table[5], 1,     1,
};

static int info(int argc, char **argv)
{
	struct weft_err e;

	if (cli_parse(&info_command, argc, argv) != 1)
		return cli_usage("name the folder to look at");
	if (model_info(argv[1], json, stdout, &e) < 0)
		return cli_fail("%s", e.message);
	return 0;
}

static const struct cli_entry commands[] = {
	{"list", list, "the models that the daemon serves"},
	{"make", make, "write a folder with random weights"},
	{"info", info, "what a folder holds"},
};

int cmd_model(int argc, char **argv)
{
	return cli_subcommand("weft model", commands, sizeof(commands) / sizeof(*commands), argc,
			      argv);
}
