/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench.c - the table of a benchmark, for people and as JSON; see bench.h.
 */
#include "tools/bench.h"
#include "tools/cli.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void bench_add(struct bench_table *t, const struct bench_row *row)
{
	struct bench_row *r;

	if (t->n == t->room) {
		t->room = t->room ? 2 * t->room : 32;
		t->rows = reallocarray(t->rows, t->room, sizeof(*t->rows));
		if (!t->rows)
			abort();
	}
	r = &t->rows[t->n++];
	*r = *row;
	r->name = strdup(row->name);
	if (r->goal == BENCH_AT_LEAST)
		r->pass = r->value >= r->target;
	else if (r->goal == BENCH_AT_MOST)
		r->pass = r->value <= r->target;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double bench_percentile(double *samples, uint32_t n, double p)
{
	uint32_t i;

	if (!n)
		return NAN;
	qsort(samples, n, sizeof(*samples), compare);
	i = (uint32_t)ceil(p * n);
	return samples[i ? i - 1 : 0];
}

void bench_add_samples(struct bench_table *t, const char *name, const char *unit, double *samples,
		       uint32_t n, enum bench_goal goal, double target)
{
	struct bench_row r = {
		.name = name, .unit = unit, .goal = goal, .target = target, .pass = 1};

	r.value = bench_percentile(samples, n, 0.5);
	r.lo = n ? samples[0] : NAN;
	r.hi = n ? samples[n - 1] : NAN;
	bench_add(t, &r);
}

void bench_print(const struct bench_table *t)
{
	int width = 4;

	for (uint32_t i = 0; i < t->n; i++)
		if ((int)strlen(t->rows[i].name) > width)
			width = (int)strlen(t->rows[i].name);
	printf("%-*s %10s %-12s %10s %23s\n", width, "figure", "value", "unit", "target",
	       "smallest ... largest");
	for (uint32_t i = 0; i < t->n; i++) {
		const struct bench_row *r = &t->rows[i];
		char target[32] = "";

		if (r->target)
			snprintf(target, sizeof(target), "%s%.4g",
				 r->goal == BENCH_AT_LEAST  ? ">= "
				 : r->goal == BENCH_AT_MOST ? "<= "
							    : "",
				 r->target);
		printf("%-*s %10.4g %-12s %10s %11.4g %11.4g%s\n", width, r->name, r->value,
		       r->unit, target, r->lo, r->hi, r->pass ? "" : "  MISSED");
	}
}

static void json_number(double v)
{
	if (isfinite(v))
		printf("%.9g", v);
	else
		fputs("null", stdout);
}

void bench_print_json(const struct bench_table *t)
{
	puts("[");
	for (uint32_t i = 0; i < t->n; i++) {
		const struct bench_row *r = &t->rows[i];

		printf("{\"name\":");
		cli_json_string(r->name, strlen(r->name));
		printf(",\"value\":");
		json_number(r->value);
		printf(",\"unit\":");
		cli_json_string(r->unit, strlen(r->unit));
		printf(",\"target\":");
		json_number(r->goal == BENCH_NONE && !r->target ? NAN : r->target);
		printf(",\"spread\":[");
		json_number(r->lo);
		putchar(',');
		json_number(r->hi);
		printf("],\"pass\":%s}%s\n",
		       !isfinite(r->value) ? "false"
		       : r->pass	   ? "true"
					   : "false",
		       i + 1 < t->n ? "," : "");
	}
	puts("]");
}

void bench_free(struct bench_table *t)
{
	for (uint32_t i = 0; i < t->n; i++)
		free((void *)(uintptr_t)t->rows[i].name);
	free(t->rows);
	*t = (struct bench_table){0};
}
