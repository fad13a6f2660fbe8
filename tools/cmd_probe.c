/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_probe.c - `weft probe`: how much of a prompt is cached for a model or an adapter, read from
 * shared memory. Opening the session asks the daemon; the probe itself asks nobody.
 */
#include "libclient/weft.h"
#include "tools/cli.h"
#include "tools/patience.h"
#include "tools/text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct weft_open_options open_options;
static const char *adapter, *file;
static struct cli_tokens prompt;
static int json;

/* clang-format off */
static const struct cli_option options[] = {
	{"socket", 0, "PATH", cli_set_str, &open_options.socket, "the daemon's socket"},
	{"model", 'm', "NAME", cli_set_str, &open_options.model, "which model; default: the only one"},
	{"adapter", 'a', "NAME", cli_set_str, &adapter, "which adapter; default: none"},
	{"file", 'f', "FILE", cli_set_str, &file, "read the token ids from FILE; -: standard input"},
	{"json", 'j', NULL, NULL, &json, "a JSON object"},
};
/* clang-format on */

static const struct cli_command command = {
	"probe",
	"[TOKEN...]",
	"Say how many tokens of a prompt are cached, and where: the arguments, a file, or "
	"standard\n"
	"input without either. A hint: things may change before a request arrives.",
	options,
	sizeof(options) / sizeof(*options),
	-1,
};

static void print(const struct weft_probe *p)
{
	printf("%u of %u tokens cached", p->cached_tokens, prompt.n);
	if (p->cached_tokens)
		printf(": device %u, host %u, disk %u", p->device_tokens, p->host_tokens,
		       p->disk_tokens);
	putchar('\n');
	if (p->activation != UINT32_MAX)
		printf("the adapter begins at position %u\n", p->activation);
	if (p->invocation == WEFT_INVOCATION_BASE)
		puts("the prompt does not hold the invocation: the base model would answer");
	else if (p->invocation == WEFT_INVOCATION_APPENDED)
		puts("the prompt does not hold the invocation: it would be appended");
	else if (p->invocation == WEFT_INVOCATION_MISSING)
		puts("the prompt does not hold the invocation: a request would be refused");
}

static void print_json(const struct weft_probe *p)
{
	printf("{\"prompt_tokens\":%u,\"cached_tokens\":%u,\"device_tokens\":%u,"
	       "\"host_tokens\":%u,\"disk_tokens\":%u,\"invocation\":\"%s\",\"activation\":",
	       prompt.n, p->cached_tokens, p->device_tokens, p->host_tokens, p->disk_tokens,
	       cli_invocation_name(p->invocation));
	cli_json_activation(p->activation);
	puts("}");
}

static int fail(struct weft *w, int err)
{
	struct weft_model m;

	if (err == -ENOENT)
		return text_no_adapter(w, adapter);
	if (err == -EAGAIN)
		return cli_fail("the engine has not published an index; is it being restarted?");
	weft_model_info(w, &m);
	if (err == -E2BIG)
		return cli_fail("the prompt has %u tokens, the model has %u positions: a request "
				"would be refused",
				prompt.n, m.max_positions);
	for (uint32_t i = 0; err == -ERANGE && i < prompt.n; i++)
		if (prompt.tokens[i] >= m.vocab)
			return cli_fail("token %u (number %u of the prompt, counted from 0) is not "
					"in the model's vocabulary of %u: a request would be "
					"refused",
					prompt.tokens[i], i, m.vocab);
	return cli_fail("probe: %s", strerror(-err));
}

int cmd_probe(int argc, char **argv)
{
	struct weft_probe p = {.size = sizeof(p)};
	struct weft *w;
	int err;

	open_options = (struct weft_open_options)WEFT_OPEN_OPTIONS_INIT;
	err = cli_parse(&command, argc, argv);
	if (cli_read_prompt(&prompt, err, argv, file))
		return 1;
	open_options.slots = 1;
	if (patience_open(&w, &open_options))
		return 1;
	err = weft_probe(w, adapter, prompt.tokens, prompt.n, &p);
	if (err < 0)
		err = fail(w, err);
	else if (json)
		print_json(&p);
	else
		print(&p);
	weft_close(w);
	free(prompt.tokens);
	return err;
}
