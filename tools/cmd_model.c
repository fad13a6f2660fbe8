/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_model.c - `weft model list`: the models that the daemon serves. */
#include "libclient/weft.h"
#include "tools/cli.h"

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
		cli_json_string(m->name);
		printf(",\"type\":");
		cli_json_string(m->type);
		printf(",\"ready\":%s,\"vocab\":%u,\"max_positions\":%u,\"weight_bytes\":%" PRIu64
		       ",\"eos\":[",
		       m->ready ? "true" : "false", m->vocab, m->max_positions, m->weight_bytes);
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
		printf("%-24s %-10s %-8s %8u %10u %7" PRIu64 " MB\n", models[i].name,
		       models[i].ready ? models[i].type : "", models[i].ready ? "ready" : "loading",
		       models[i].vocab, models[i].max_positions, models[i].weight_bytes / 1000000);
	return 0;
}

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *about;
} commands[] = {
	{"list", list, "the models that the daemon serves"},
};

#define N_COMMANDS (sizeof(commands) / sizeof(*commands))

int cmd_model(int argc, char **argv)
{
	int asked = argc > 1 && !strcmp(argv[1], "--help");

	for (size_t i = 0; argc > 1 && i < N_COMMANDS; i++) {
		if (!strcmp(argv[1], "--complete"))
			puts(commands[i].name);
		else if (!strcmp(argv[1], commands[i].name))
			return commands[i].run(argc - 1, argv + 1);
	}
	if (argc > 1 && !strcmp(argv[1], "--complete"))
		return 0;
	fputs("usage: weft model COMMAND [OPTION...]\n\n", asked ? stdout : stderr);
	for (size_t i = 0; i < N_COMMANDS; i++)
		fprintf(asked ? stdout : stderr, "  %-6s %s\n", commands[i].name,
			commands[i].about);
	return asked ? 0 : 2;
}
