/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_eval.c - `weft eval`: is what the adapters have learnt served, and is reuse invisible?
 *
 * Test sets go through the daemon three times: without the cache, with it while it fills, and once
 * more when it is full. Answers are scored exactly, and have to be the same in all three, token for
 * token; a difference is a failure, whatever the score. Many requests are in flight at once, so
 * that batches mix adapters.
 */
#include "libclient/text/weft_text.h"
#include "libclient/weft.h"
#include "tools/cli.h"
#include "tools/eval.h"
#include "tools/patience.h"
#include "tools/progress.h"
#include "tools/text.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct eval eval = {.arms = {NULL}, .n_arms = 1, .in_flight = 64};
static struct weft_open_options open_options;
static const char *folder, *expect, *reference;
static double slack = 1;
static uint32_t show;
static int json;

static const char *const pass_names[] = {"without", "filling", "filled"};

static int set_arm(void *value, const char *text)
{
	if (eval.n_arms == EVAL_MAX_ARMS || !*text || strlen(text) >= EVAL_MAX_NAME)
		return -1;
	eval.arms[eval.n_arms++] = text;
	return 0;
}

/* clang-format off */
static const struct cli_option options[] = {
	{"tokenizer", 't', "DIR", cli_set_str, &folder, "the folder that holds tokenizer.json; default: as served"},
	{"adapter", 'a', "PATTERN", set_arm, NULL, "adapters, * is a set's task; may be repeated"},
	{"items", 'n', "N", cli_set_u32, &eval.max_items, "only the first N items of each set"},
	{"in-flight", 0, "N", cli_set_u32, &eval.in_flight, "so many requests at once; default 64"},
	{"expect", 'e', "FILE", cli_set_str, &expect, "fail if less is right than a JSON file says"},
	{"slack", 0, "X", cli_set_double, &slack, "by more than X of 100; default 1"},
	{"reference", 'r', "FILE", cli_set_str, &reference, "fail if answers are not those of a file"},
	{"show-wrong", 'w', "N", cli_set_u32, &show, "show N wrong answers of each set and adapter"},
	{"model", 'm', "NAME", cli_set_str, &open_options.model, "which model; default: the only one"},
	{"socket", 0, "PATH", cli_set_str, &open_options.socket, "the daemon's socket"},
	{"json", 'j', NULL, NULL, &json, "a JSON object"},
};
/* clang-format on */

static const struct cli_command command = {
	"eval",
	"SET...",
	"Put test sets (JSON lines) to the base model and to adapters, score the answers exactly,\n"
	"and compare them with the prefix cache off, filling and full: any difference fails.",
	options,
	sizeof(options) / sizeof(*options),
	-1,
};

/* --- printing ------------------------------------------------------------------------------------*/

/* "base", or the pattern. */
static const char *arm_name(uint32_t arm)
{
	return eval.arms[arm] ? eval.arms[arm] : "base";
}

static double cached_share(const struct eval_figures *f, uint32_t arm)
{
	return f->prompt_tokens[arm] ? 100.0 * f->cached_tokens[arm] / f->prompt_tokens[arm] : 0;
}

static void print_table(void)
{
	printf("%-14s %6s", "right, %", "items");
	for (uint32_t a = 0; a < eval.n_arms; a++)
		printf(" %12s", arm_name(a));
	putchar('\n');
	for (uint32_t s = 0; s < eval.n_sets; s++) {
		cli_printf(stdout, "%-14s %6u", eval.sets[s].task, eval.sets[s].n);
		for (uint32_t a = 0; a < eval.n_arms; a++)
			printf(" %12.1f", eval_accuracy(&eval, a, s));
		putchar('\n');
	}
	printf("\n%-14s %6s", "reused, %", "sec");
	for (uint32_t a = 0; a < eval.n_arms; a++)
		printf(" %12s", arm_name(a));
	putchar('\n');
	for (int p = 0; p < EVAL_PASSES; p++) {
		printf("%-7s cache  %6.1f", pass_names[p], eval.passes[p].seconds);
		for (uint32_t a = 0; a < eval.n_arms; a++)
			printf(" %12.1f", cached_share(&eval.passes[p], a));
		putchar('\n');
	}
	printf("right: the expected answer to the letter (a base model that answers in sentences "
	       "has none).\n"
	       "sec: the time of all %u answers, %u at once, prompts and generation included.\n"
	       "without cache: every prompt is computed. filling: the cache is used from the "
	       "first\n"
	       "request on, so adapters find what the base model left. filled: all once more.\n\n",
	       eval.n_cases, eval.in_flight);
}

static void print_wrong(void)
{
	uint32_t *shown = calloc((size_t)eval.n_sets * eval.n_arms, sizeof(*shown));

	for (uint32_t i = 0; shown && i < eval.n_cases; i++) {
		const struct eval_case *c = &eval.cases[i];
		const struct eval_set *set = &eval.sets[c->set];
		char name[EVAL_MAX_NAME];
		const char *adapter = eval_adapter(&eval, c->arm, c->set, name);

		if (c->right || shown[c->set * eval.n_arms + c->arm]++ >= show)
			continue;
		cli_printf(stderr, "%s, %s, item %u:\n  %s\n  right: %s\n  said:  %s\n", set->task,
			   adapter ? adapter : "base", c->item, set->items[c->item].text,
			   set->items[c->item].answer, c->text);
	}
	free(shown);
}

static json_t *json_results(void)
{
	json_t *list = json_array();

	for (uint32_t s = 0; s < eval.n_sets; s++)
		for (uint32_t a = 0; a < eval.n_arms; a++) {
			char name[EVAL_MAX_NAME];
			const char *adapter = eval_adapter(&eval, a, s, name);

			json_array_append_new(list, json_pack("{s:s, s:s?, s:i, s:f}", "task",
							      eval.sets[s].task, "adapter", adapter,
							      "items", (int)eval.sets[s].n, "right",
							      eval_accuracy(&eval, a, s)));
		}
	return list;
}

static json_t *json_passes(void)
{
	json_t *list = json_array();

	for (int p = 0; p < EVAL_PASSES; p++) {
		json_t *reused = json_object();

		for (uint32_t a = 0; a < eval.n_arms; a++)
			json_object_set_new(reused, arm_name(a),
					    json_real(cached_share(&eval.passes[p], a)));
		json_array_append_new(list,
				      json_pack("{s:s, s:f, s:i, s:o}", "cache", pass_names[p],
						"seconds", eval.passes[p].seconds, "different",
						(int)eval.passes[p].different, "reused", reused));
	}
	return list;
}

static void print_json(uint32_t compared, uint32_t other, uint32_t below)
{
	json_t *o =
		json_pack("{s:o, s:o, s:i, s:i, s:i, s:i}", "results", json_results(), "passes",
			  json_passes(), "answers", (int)eval.n_cases, "compared", (int)compared,
			  "unlike_reference", (int)other, "below_expected", (int)below);

	json_dumpf(o, stdout,
		   JSON_INDENT(1) | JSON_ENSURE_ASCII | JSON_PRESERVE_ORDER |
			   JSON_REAL_PRECISION(6));
	putchar('\n');
	json_decref(o);
}

/* --- what may fail -------------------------------------------------------------------------------*/

/* How many figures are below those of a file, {"NAME": percent}; the base is "base-TASK". */
static int count_below(uint32_t *ret)
{
	json_error_t e;
	json_t *o = json_load_file(expect, JSON_REJECT_DUPLICATES, &e);
	uint32_t below = 0, found = 0;

	if (!o)
		return cli_fail("read %s: %s", expect, e.text);
	for (uint32_t s = 0; s < eval.n_sets; s++)
		for (uint32_t a = 0; a < eval.n_arms; a++) {
			char name[EVAL_MAX_NAME], base[EVAL_MAX_NAME];
			const char *adapter = eval_adapter(&eval, a, s, name);
			double got = eval_accuracy(&eval, a, s);
			json_t *want;

			snprintf(base, sizeof(base), "base-%s", eval.sets[s].task);
			want = json_object_get(o, adapter ? adapter : base);
			if (!json_is_number(want))
				continue;
			found++;
			if (got >= json_number_value(want) - slack)
				continue;
			below++;
			fprintf(stderr, "%s: %.1f %% are right, and %.1f should be\n",
				adapter ? adapter : base, got, json_number_value(want));
		}
	json_decref(o);
	*ret = below;
	return found ? 0 : cli_fail("%s says nothing about these sets and adapters", expect);
}

static int report(void)
{
	uint32_t different = eval.passes[EVAL_COLD].different + eval.passes[EVAL_WARM].different;
	uint32_t compared = 0, other = 0, below = 0;
	int err = 0;

	if (reference)
		err = eval_compare(&eval, reference, &compared, &other);
	if (!err && expect)
		err = count_below(&below);
	if (err)
		return err;
	if (json)
		print_json(compared, other, below);
	else
		print_table();
	if (show)
		print_wrong();
	if (different)
		err = cli_fail("%u answers are others when the cache is used", different);
	else if (!json)
		printf("All %u answers are the same, token for token, with and without reuse.\n",
		       eval.n_cases);
	if (other)
		err = cli_fail("%u of %u answers are not those of %s", other, compared, reference);
	else if (reference && !json)
		printf("All %u answers that %s holds are the same.\n", compared, reference);
	if (below)
		err = cli_fail("%u figures are below those of %s", below, expect);
	return err;
}

static int run(void)
{
	struct weft_tokenizer *t = NULL;
	struct weft *w;
	int err;

	open_options.slots = eval.in_flight;
	if (patience_open(&w, &open_options))
		return 1;
	err = text_tokenizer_open(&t, folder, w);
	err = err ? err : eval_prepare(&eval, t);
	if (!err)
		progress_begin("weft eval", (uint64_t)EVAL_PASSES * eval.n_cases);
	for (int p = 0; p < EVAL_PASSES && !err; p++)
		err = eval_run(&eval, w, t, (enum eval_pass)p);
	progress_end();
	weft_tokenizer_close(t);
	weft_close(w);
	return err ? err : report();
}

int cmd_eval(int argc, char **argv)
{
	int n, err = 0;

	open_options = (struct weft_open_options)WEFT_OPEN_OPTIONS_INIT;
	n = cli_parse(&command, argc, argv);
	if (!n)
		return cli_usage("name a test set");
	if (!eval.in_flight || eval.in_flight > 1024)
		return cli_fail("--in-flight must be 1 to 1024");
	for (int i = 1; i <= n && !err; i++)
		err = eval_read_set(&eval, argv[i]);
	err = err ? err : run();
	eval_free(&eval);
	return err;
}
