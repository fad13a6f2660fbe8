/* SPDX-License-Identifier: Apache-2.0 */
/* device_figures.c - figures of a stage into its file, and all files into one table; see device.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tests/bench/device.h"

/* --- writing -----------------------------------------------------------------------------------*/

/* Whole or not at all: the reader may come at any moment. */
static void save(const json_t *root, const char *path)
{
	char temporary[4096];
	struct stat st;

	/* A device or a pipe is never replaced. */
	if (!path || (!stat(path, &st) && !S_ISREG(st.st_mode)))
		return;
	snprintf(temporary, sizeof(temporary), "%s.part", path);
	if (json_dump_file(root, temporary, JSON_INDENT(1) | JSON_PRESERVE_ORDER) ||
	    rename(temporary, path))
		fprintf(stderr, "device-bench: cannot write %s\n", path);
}

static char *date_now(void)
{
	static char text[32];
	time_t now = time(NULL);
	struct tm tm;

	gmtime_r(&now, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
	return text;
}

int figures_open(struct figures *f, const char *path, const char *stage, bool small)
{
	*f = (struct figures){
		.root = json_object(), .list = json_array(), .path = path, .small = small};
	if (!f->root || !f->list)
		return -1;
	json_object_set_new(f->root, "stage", json_string(stage));
	json_object_set_new(f->root, "date", json_string(date_now()));
	json_object_set_new(f->root, "figures", f->list);
	return 0;
}

void figures_close(struct figures *f)
{
	save(f->root, f->path);
	json_decref(f->root);
}

void figures_fact(struct figures *f, const char *name, json_t *value)
{
	json_object_set_new(f->root, name, value);
	save(f->root, f->path);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void add(struct figures *f, json_t *one)
{
	json_array_append_new(f->list, one);
	save(f->root, f->path);
}

/* What it must reach, and whether it does. */
static void set_goal(json_t *one, enum figure_goal goal, double target)
{
	double value = json_number_value(json_object_get(one, "value"));
	double ratio = goal == FIGURE_AT_LEAST ? value / target : target / value;

	json_object_set_new(one, "target", json_real(target));
	json_object_set_new(one, "goal", json_string(goal == FIGURE_AT_LEAST ? ">=" : "<="));
	json_object_set_new(one, "ratio", json_real(ratio));
	json_object_set_new(one, "pass", json_boolean(ratio >= 1));
}

void figures_add(struct figures *f, const char *name, const char *unit, double *samples, uint32_t n,
		 enum figure_goal goal, double target)
{
	json_t *one;

	qsort(samples, n, sizeof(*samples), compare);
	one = json_pack("{s:s, s:f, s:s, s:f, s:f, s:i}", "name", name, "value", samples[n / 2],
			"unit", unit, "lowest", samples[0], "highest", samples[n - 1], "samples",
			(int)n);
	if (goal != FIGURE_NONE && target > 0 && !f->small)
		set_goal(one, goal, target);
	add(f, one);
}

void figures_missing(struct figures *f, const char *name, const char *why)
{
	fprintf(stderr, "device-bench: %s: %s\n", name, why);
	add(f, json_pack("{s:s, s:n, s:s}", "name", name, "value", "why", why));
}

static const char *text_of(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

/* A stage's object, or the bare list that `weft bench --json` prints. */
static const json_t *list_of(const json_t *stage)
{
	return json_is_array(stage) ? stage : json_object_get(stage, "figures");
}

/* --- what follows from the figures of several stages -------------------------------------------*/

/* A figure that has a value, by its name, in any stage. */
static json_t *find(const json_t *all, const char *name)
{
	for (size_t s = 0; s < json_array_size(all); s++) {
		const json_t *list = list_of(json_array_get(all, s));
		json_t *one;
		size_t i;

		json_array_foreach(list, i, one)
		{
			if (!strcmp(text_of(one, "name"), name) &&
			    json_is_number(json_object_get(one, "value")))
				return one;
		}
	}
	return NULL;
}

static double number(const json_t *one, const char *key)
{
	const json_t *v = json_object_get(one, key);

	return json_number_value(v ? v : json_object_get(one, "value"));
}

/* Targets of the 8B shape for rows of `weft bench`, which knows none; other lengths have other names. */
static void set_goals(const json_t *all)
{
	static const struct {
		const char *name;
		enum figure_goal goal;
		double target;
	} goals[] = {
		{"pipeline: base-adapter, prompt 65536, lora-cold against alora: TTFT",
		 FIGURE_AT_LEAST, 100},
		{"pipeline: base-adapter, prompt 65536, alora: E2E", FIGURE_AT_MOST, 110 /* ms */},
	};

	for (size_t i = 0; i < sizeof(goals) / sizeof(goals[0]); i++) {
		json_t *one = find(all, goals[i].name);

		if (one)
			set_goal(one, goals[i].goal, goals[i].target);
	}
}

#define DETERMINISTIC "deterministic: "

/* The price of the deterministic mode: median against median of two stages, so no pairs; the extremes
 * are of one's best sample against the other's worst. */
static void add_price(json_t *list, const json_t *with, const json_t *without)
{
	const json_t *slow = with, *fast = without;
	char name[160];

	if (strstr(text_of(with, "unit"), "/s")) {
		slow = without;
		fast = with;
	}
	snprintf(name, sizeof(name), "deterministic, times as long: %s", text_of(without, "name"));
	json_array_append_new(
		list, json_pack("{s:s, s:f, s:s, s:f, s:f}", "name", name, "value",
				number(slow, "value") / number(fast, "value"), "unit", "x",
				"lowest", number(slow, "lowest") / number(fast, "highest"),
				"highest", number(slow, "highest") / number(fast, "lowest")));
}

static void add_prices(json_t *list, const json_t *all)
{
	const size_t prefix = strlen(DETERMINISTIC);

	for (size_t s = 0; s < json_array_size(all); s++) {
		const json_t *figures = list_of(json_array_get(all, s)), *with, *without;
		size_t i;

		json_array_foreach(figures, i, with)
		{
			if (strncmp(text_of(with, "name"), DETERMINISTIC, prefix) ||
			    !json_is_number(json_object_get(with, "value")))
				continue;
			without = find(all, text_of(with, "name") + prefix);
			if (without)
				add_price(list, with, without);
		}
	}
}

/* The host's work of a step has two parts, measured apart: queueing without the engine, and the
 * engine's own. Both medians together have one target, where the first has. */
static void add_host(json_t *list, const json_t *all)
{
	const json_t *queued = find(all, FIGURE_QUEUED), *own = find(all, FIGURE_OWN);
	json_t *one;

	if (!queued || !own)
		return;
	one = json_pack(
		"{s:s, s:f, s:s}", "name",
		"host: a step of the batch, queued and the engine's own part, sum of medians",
		"value", number(queued, "value") + number(own, "value"), "unit", "us");
	if (json_object_get(queued, "target"))
		set_goal(one, FIGURE_AT_MOST, number(queued, "target"));
	json_array_append_new(list, one);
}

static void add_derived(json_t *all)
{
	json_t *list = json_array();

	set_goals(all);
	add_host(list, all);
	add_prices(list, all);
	if (json_array_size(list))
		json_array_append_new(all,
				      json_pack("{s:s, s:O}", "stage", "derived", "figures", list));
	json_decref(list);
}

/* --- the report ----------------------------------------------------------------------------------*/

static void line(const json_t *o, int width)
{
	const json_t *value = json_object_get(o, "value"), *ratio = json_object_get(o, "ratio");
	const json_t *spread = json_object_get(o, "spread");
	double lo = json_number_value(json_object_get(o, "lowest") ? json_object_get(o, "lowest")
								   : value);
	double hi = json_number_value(json_object_get(o, "highest") ? json_object_get(o, "highest")
								    : value);
	char target[32] = "", ratio_text[32] = "";

	if (!json_is_number(value)) {
		printf("%-*s  -  %s\n", width, text_of(o, "name"), text_of(o, "why"));
		return;
	}
	if (json_array_size(spread) == 2) {
		lo = json_number_value(json_array_get(spread, 0));
		hi = json_number_value(json_array_get(spread, 1));
	}
	if (json_is_number(json_object_get(o, "target")))
		snprintf(target, sizeof(target), "%s %.4g", text_of(o, "goal"),
			 json_number_value(json_object_get(o, "target")));
	if (json_is_number(ratio))
		snprintf(ratio_text, sizeof(ratio_text), "%.3f", json_number_value(ratio));
	printf("%-*s %10.4g %-12s %10s %7s %10.4g ... %-10.4g%s\n", width, text_of(o, "name"),
	       json_number_value(value), text_of(o, "unit"), target, ratio_text, lo, hi,
	       json_is_false(json_object_get(o, "pass")) ? " MISSED" : "");
}

static int width_of(const json_t *all)
{
	size_t width = 6;

	for (size_t s = 0; s < json_array_size(all); s++) {
		const json_t *list = list_of(json_array_get(all, s));

		for (size_t i = 0; i < json_array_size(list); i++) {
			size_t n = strlen(text_of(json_array_get(list, i), "name"));

			width = n > width ? n : width;
		}
	}
	return (int)width;
}

static void print_tests(const json_t *stage)
{
	const json_t *tests = json_object_get(stage, "tests"), *one;
	size_t i;

	json_array_foreach(tests, i, one)
		printf("%-6s %s (%.0f s)\n",
		       json_is_true(json_object_get(one, "ok")) ? "ok" : "FAILED",
		       text_of(one, "name"), json_number_value(json_object_get(one, "seconds")));
}

/* Every fact of every stage that is a plain value. */
static void print_facts(const json_t *all)
{
	for (size_t s = 0; s < json_array_size(all); s++) {
		json_t *stage = json_array_get(all, s), *v;
		const char *key;

		json_object_foreach(stage, key, v) if (json_is_string(v) && strcmp(key, "stage"))
			printf("%s %s: %s\n", text_of(stage, "stage"), key, json_string_value(v));
	}
}

int report(int n, char **files, const char *out)
{
	json_t *all = json_array();
	json_error_t e;
	int width;

	for (int i = 0; i < n; i++) {
		json_t *stage = json_load_file(files[i], 0, &e);

		if (!stage)
			fprintf(stderr, "device-bench: %s: %s\n", files[i], e.text);
		else
			json_array_append_new(all, stage);
	}
	add_derived(all);
	width = width_of(all);
	print_facts(all);
	for (size_t s = 0; s < json_array_size(all); s++)
		print_tests(json_array_get(all, s));
	printf("\n%-*s %10s %-12s %10s %7s %24s\n", width, "figure", "median", "unit", "target",
	       "ratio", "lowest ... highest");
	for (size_t s = 0; s < json_array_size(all); s++) {
		const json_t *list = list_of(json_array_get(all, s)), *one;
		size_t i;

		json_array_foreach(list, i, one) line(one, width);
	}
	save(all, out);
	n = json_array_size(all) ? 0 : -1;
	json_decref(all);
	return n;
}
