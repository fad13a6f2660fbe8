/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - the weft command: one word chooses what to do. Each command has a file of its own,
 * cmd_NAME.c. Exit status: 0 done, 1 failed, 2 used wrongly, 130 interrupted.
 */
#include "daemon/common/standard.h"
#include "tools/cli.h"

#include <stdio.h>
#include <string.h>

static const struct cli_entry commands[] = {
	{"run", cmd_run, "answer a text, or token ids; streamed"},
	{"chat", cmd_chat, "talk with a model and its adapters"},
	{"probe", cmd_probe, "how much of a prompt is cached, and where"},
	{"tokenize", cmd_tokenize, "text to token ids and back, with a model's tokenizer"},
	{"status", cmd_status, "what the daemon and its engines are doing"},
	{"top", cmd_top, "what they do at the moment: rates, waits, tenants, adapters"},
	{"metrics", cmd_metrics, "the counters of the daemon and its engines, for Prometheus"},
	{"model", cmd_model, "make a model with random weights, look at one, list those served"},
	{"adapter", cmd_adapter,
	 "load, unload and list LoRA and aLoRA adapters; make one, look at one"},
	{"tenant", cmd_tenant, "who is served, quotas and use; open sessions"},
	{"cache", cmd_cache, "what is cached; prefixes that stay; forget"},
	{"eval", cmd_eval,
	 "put test sets to base and adapters: what is right, and is reuse invisible"},
	{"reload", cmd_reload, "let the daemon read its configuration again"},
	{"restart", cmd_restart, "start a model's engine again; requests go on"},
	{"drain", cmd_drain, "end the daemon, when what is under way is finished"},
	{"bench", cmd_bench, "measure this machine, the kernels, the ring, the daemon"},
};

#define N_COMMANDS (sizeof(commands) / sizeof(*commands))

static void help(FILE *to)
{
	fputs("usage: weft COMMAND [OPTION...]\n\n", to);
	for (size_t i = 0; i < N_COMMANDS; i++)
		fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].about);
	fputs("\nweft COMMAND --help says more, and so does man weft. Every command takes --json "
	      "and\n"
	      "--socket PATH (default $WEFT_SOCKET, else /run/weft/weftd.sock) where they make "
	      "sense.\n",
	      to);
}

static int command(int argc, char **argv)
{
	if (argc < 2) {
		help(stderr);
		return 2;
	}
	if (!strcmp(argv[1], "help") && argc > 2) {
		/* "help run": run --help */
		memmove(argv + 1, argv + 2, (size_t)(argc - 2) * sizeof(*argv));
		argv[argc - 1] = (char *)(uintptr_t) "--help";
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
		help(stdout);
		return 0;
	}
	if (!strcmp(argv[1], "--version")) {
		puts("weft " WEFT_VERSION);
		return 0;
	}
	if (!strcmp(argv[1], "--complete")) {
		for (size_t i = 0; i < N_COMMANDS; i++)
			puts(commands[i].name);
		return 0;
	}
	for (size_t i = 0; i < N_COMMANDS; i++)
		if (!strcmp(argv[1], commands[i].name))
			return commands[i].run(argc - 1, argv + 1);
	fprintf(stderr, "weft: unknown command \"%s\" (weft --help)\n", argv[1]);
	return 2;
}

int main(int argc, char **argv)
{
	standard_open();
	return cli_end(command(argc, argv));
}
