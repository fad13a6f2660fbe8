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

void figures_add(struct figures *f, const char *name, const char *unit, double *samples, uint32_t n,
		 enum figure_goal goal, double target)
{
	double value, ratio;
	json_t *one;

	qsort(samples, n, sizeof(*samples), compare);
	value = samples[n / 2];
	one = json_pack("{s:s, s:f, s:s, s:f, s:f, s:i}", "name", name, "value", value, "unit",
			unit, "lowest", samples[0], "highest", samples[n - 1], "samples", (int)n);
	if (goal != FIGURE_NONE && target > 0 && !f->small) {
		ratio = goal == FIGURE_AT_LEAST ? value / target : target / value;
		json_object_set_new(one, "target", json_real(target));
		json_object_set_new(one, "goal",
				    json_string(goal == FIGURE_AT_LEAST ? ">=" : "<="));
		json_object_set_new(one, "ratio", json_real(ratio));
		json_object_set_new(one, "pass", json_boolean(ratio >= 1));
	}
	add(f, one);
}

void figures_missing(struct figures *f, const char *name, const char *why)
{
	fprintf(stderr, "device-bench: %s: %s\n", name, why);
	add(f, json_pack("{s:s, s:n, s:s}", "name", name, "value", "why", why));
}

/* --- the report --------------------------------------------------------------------------------*/

static const char *text_of(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

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

/* A stage's object, or the bare list that `weft bench --json` prints. */
static const json_t *list_of(const json_t *stage)
{
	return json_is_array(stage) ? stage : json_object_get(stage, "figures");
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
