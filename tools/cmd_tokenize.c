/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_tokenize.c - `weft tokenize`: text to token ids and back, with the tokenizer of a model's
 * folder, which needs no daemon, or of a served model.
 */
#include "tools/cli.h"
#include "tools/patience.h"
#include "tools/text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *folder, *file;
static struct weft_open_options served;
static int json, decode, bare, special, skip;

/* clang-format off */
static const struct cli_option options[] = {
	{"tokenizer", 't', "DIR", cli_set_str, &folder, "the folder that holds tokenizer.json; default: as served"},
	{"model", 'm', "NAME", cli_set_str, &served.model, "whose, of those served; default: the only one"},
	{"socket", 0, "PATH", cli_set_str, &served.socket, "the daemon's socket"},
	{"file", 'f', "FILE", cli_set_str, &file, "read FILE; -: standard input"},
	{"decode", 'd', NULL, NULL, &decode, "token ids in, text out"},
	{"bare", 'b', NULL, NULL, &bare, "do not add the tokens that the model expects around a text"},
	{"special", 's', NULL, NULL, &special, "take special tokens' texts for special tokens"},
	{"skip-special", 0, NULL, NULL, &skip, "with --decode: leave special tokens out"},
	{"json", 'j', NULL, NULL, &json, "a JSON object: ids and text"},
};
/* clang-format on */

static const struct cli_command command = {
	"tokenize",
	"[TEXT|TOKEN...]",
	"Text to token ids: the arguments joined by blanks, a file, or standard input without\n"
	"either. With --decode token ids to text.",
	options,
	sizeof(options) / sizeof(*options),
	-1,
};

/* ids beside the text, as one object. */
static void print_json(const uint32_t *ids, size_t n, const char *text, size_t bytes)
{
	printf("{\"tokens\":[");
	for (size_t i = 0; i < n; i++)
		printf(i ? ",%u" : "%u", ids[i]);
	printf("],\"text\":");
	cli_json_string(text, bytes);
	puts("}");
}

static int run_encode(struct weft_tokenizer *t, int n_args, char **argv)
{
	uint32_t flags = (bare ? 0 : WEFT_ADD_SPECIAL) | (special ? WEFT_PARSE_SPECIAL : 0), *ids;
	struct text in = {0};
	struct weft_error e;
	char *text;
	size_t n, bytes;
	int err;

	if (text_read(&in, n_args, argv, file)) {
		free(in.p);
		return 1;
	}
	err = weft_encode(t, in.p, in.n, flags, &ids, &n, &e);
	free(in.p);
	if (err)
		return cli_fail("%s", e.message);
	for (size_t i = 0; i < n && !json; i++)
		printf(i ? " %u" : "%u", ids[i]);
	if (!json) {
		putchar('\n');
	} else {
		err = weft_decode(t, ids, n, 0, &text, &bytes, &e);
		if (err) {
			cli_fail("%s", e.message);
		} else {
			print_json(ids, n, text, bytes);
			weft_text_free(text);
		}
	}
	weft_text_free(ids);
	return err ? 1 : 0;
}

static int run_decode(struct weft_tokenizer *t, int n_args, char **argv)
{
	struct cli_tokens in = {0};
	struct weft_error e;
	char *text;
	size_t bytes;
	int err = cli_read_prompt(&in, n_args, argv, file);

	if (err) {
		free(in.tokens);
		return 1;
	}
	for (uint32_t i = 0; i < in.n && !err; i++)
		if (!weft_token_text(t, in.tokens[i]))
			err = cli_fail("%u is not a token of this tokenizer", in.tokens[i]);
	if (!err &&
	    weft_decode(t, in.tokens, in.n, skip ? WEFT_SKIP_SPECIAL : 0, &text, &bytes, &e))
		err = cli_fail("%s", e.message);
	if (!err) {
		if (json) {
			print_json(in.tokens, in.n, text, bytes);
		} else {
			cli_print(stdout, text, bytes);
			putchar('\n');
		}
		weft_text_free(text);
	}
	free(in.tokens);
	return err;
}

int cmd_tokenize(int argc, char **argv)
{
	struct weft_tokenizer *t;
	struct weft_error e;
	struct weft *w = NULL;
	int n, err;

	served = (struct weft_open_options)WEFT_OPEN_OPTIONS_INIT;
	n = cli_parse(&command, argc, argv);
	served.slots = 1;
	if (folder && (served.model || served.socket))
		return cli_fail("--tokenizer names a folder: --model and --socket are about the "
				"served model's tokenizer");
	err = folder ? 0 : patience_try(&w, &served, &e);
	if (err == -ENOENT || err == -ECONNREFUSED)
		return cli_fail("%s (without a daemon: --tokenizer DIR)", e.message);
	if (err < 0)
		return cli_fail("%s", e.message);
	err = text_tokenizer_open(&t, folder, w);
	if (!err) {
		err = decode ? run_decode(t, n, argv) : run_encode(t, n, argv);
		weft_tokenizer_close(t);
	}
	weft_close(w);
	return err;
}
