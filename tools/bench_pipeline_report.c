/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_pipeline_report.c - the points of `weft bench pipeline` as rows, as a table and as pictures.
 *
 * A figure is the median over a point's samples. A speed-up is the median of the samples' ratios,
 * repetition by repetition (of the asynchronous pipeline: conversation by conversation, whose
 * arrivals are the same in every arm).
 */
#include "tools/bench_pipeline.h"
#include "tools/svg.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *name, *title, *timed, *x;
} kinds[PIPE_KINDS] = {
	{"base-adapter", "base -> adapter", "the adapter's call", "prompt"},
	{"adapter-base", "adapter -> base", "the base model's call", "prompt"},
	{"generation", "base -> adapter, length of the base's answer", "the adapter's call",
	 "generated"},
	{"parallel", "base -> 5 adapters in parallel -> base", "the five adapters", "prompt"},
	{"async", "base -> adapter, Poisson arrivals", "the adapters' calls", "rate"},
};

static const char *const arms[PIPE_ARMS] = {"alora", "alora-serial", "lora-cold", "lora-warm",
					    "base-recompute"};

static const char *const metrics[PIPE_METRICS] = {"queue", "prefill", "decode", "TTFT",
						  "E2E",   "cached",  "wall"};

const char *pipe_kind_name(enum pipe_kind kind)
{
	return kinds[kind].name;
}

const char *pipe_x_name(enum pipe_kind kind)
{
	return kinds[kind].x;
}

const char *pipe_arm_name(enum pipe_arm arm)
{
	return arms[arm];
}

/* --- figures -------------------------------------------------------------------------------------*/

struct figure {
	double median, lo, hi;
};

static struct figure figure_of(double *v, uint32_t n)
{
	struct figure f = {NAN, NAN, NAN};

	f.median = bench_percentile(v, n, 0.5);
	if (n) {
		f.lo = v[0];
		f.hi = v[n - 1];
	}
	return f;
}

/* Of one metric, times `scale`. */
static struct figure figure(const struct pipe_point *q, enum pipe_metric m, double scale)
{
	double *v = calloc(q->n + 1, sizeof(*v));
	struct figure f = {NAN, NAN, NAN};

	if (!v)
		return f;
	for (uint32_t i = 0; i < q->n; i++)
		v[i] = q->v[m][i] * scale;
	f = figure_of(v, q->n);
	free(v);
	return f;
}

/* How many times as long as `of` takes `q`. */
static struct figure ratio(const struct pipe_point *q, const struct pipe_point *of,
			   enum pipe_metric m)
{
	uint32_t n = q->n < of->n ? q->n : of->n;
	double *v = calloc(n + 1, sizeof(*v));
	struct figure f = {NAN, NAN, NAN};

	if (!v)
		return f;
	for (uint32_t i = 0; i < n; i++)
		v[i] = q->v[m][i] / of->v[m][i];
	f = figure_of(v, n);
	free(v);
	return f;
}

const struct pipe_point *pipe_find(const struct pipe *p, const struct pipe_point *like,
				   enum pipe_arm arm)
{
	for (uint32_t i = 0; i < p->n_points; i++) {
		const struct pipe_point *q = &p->points[i];

		if (q->kind == like->kind && q->step == like->step && q->x == like->x &&
		    q->arm == arm)
			return q;
	}
	return NULL;
}

/* --- rows ----------------------------------------------------------------------------------------*/

static void add(struct bench_table *t, const struct pipe_point *q, const char *who,
		const char *what, const char *unit, struct figure f)
{
	struct bench_row r = {.value = f.median, .lo = f.lo, .hi = f.hi, .unit = unit, .pass = 1};
	char name[160];

	snprintf(name, sizeof(name), "pipeline: %s, %s %g, %s%s: %s", kinds[q->kind].name,
		 kinds[q->kind].x, q->x, who, q->step == STEP_AFTER ? ", base after" : "", what);
	r.name = name;
	bench_add(t, &r);
}

static void add_ratios(const struct pipe *p, struct bench_table *t, const struct pipe_point *q)
{
	const struct pipe_point *of = pipe_find(p, q, ARM_ALORA);
	char who[64];

	if (!of || of == q)
		return;
	snprintf(who, sizeof(who), "%s against alora", arms[q->arm]);
	if (q->arm != ARM_ALORA_SERIAL) {
		add(t, q, who, "TTFT", "x", ratio(q, of, M_TTFT));
		add(t, q, who, "E2E", "x", ratio(q, of, M_E2E));
	}
	if (q->kind != PIPE_PARALLEL || q->step != STEP_CALL)
		return;
	add(t, q, who, "wall", "x", ratio(q, of, M_WALL));
	if (q->arm == ARM_ALORA_SERIAL)
		add(t, q, "alora against alora-serial", "wall", "x", ratio(of, q, M_WALL));
}

void pipe_rows(const struct pipe *p, struct bench_table *t)
{
	for (uint32_t i = 0; i < p->n_points; i++) {
		const struct pipe_point *q = &p->points[i];
		struct figure most = {q->live_tokens, q->live_tokens, q->live_tokens};

		for (uint32_t m = 0; m < PIPE_METRICS; m++)
			if (m != M_WALL || (q->kind == PIPE_PARALLEL && q->step == STEP_CALL))
				add(t, q, arms[q->arm], metrics[m], m == M_HIT ? "%" : "ms",
				    figure(q, m, m == M_HIT ? 100 : 1e3));
		if (q->kind == PIPE_ASYNC)
			add(t, q, arms[q->arm], "most tokens of running calls", "tokens", most);
		add_ratios(p, t, q);
	}
}

/* --- the table -----------------------------------------------------------------------------------*/

static bool has_wall(const struct pipe_point *q)
{
	return q->kind == PIPE_PARALLEL && q->step == STEP_CALL;
}

static void print_ratio(const struct pipe *p, const struct pipe_point *q, enum pipe_metric m)
{
	const struct pipe_point *of = pipe_find(p, q, ARM_ALORA);

	if (of && of != q)
		printf(" %7.1f", ratio(q, of, m).median);
	else
		printf(" %7s", "");
}

/* A tenth of a millisecond counts in short times only. */
static void print_ms(const struct pipe_point *q, enum pipe_metric m)
{
	double ms = figure(q, m, 1e3).median;

	printf(" %7.*f", ms < 10000 ? 1 : 0, ms);
}

static void print_point(const struct pipe *p, const struct pipe_point *q, bool ratios)
{
	printf("%9g  %-14s %7.1f", q->x, arms[q->arm], figure(q, M_HIT, 100).median);
	for (uint32_t m = M_QUEUE; m <= M_E2E; m++)
		print_ms(q, m);
	if (has_wall(q))
		print_ms(q, M_WALL);
	if (ratios) {
		print_ratio(p, q, M_TTFT);
		print_ratio(p, q, has_wall(q) ? M_WALL : M_E2E);
	}
	putchar('\n');
}

static void print_head(const struct pipe_point *q, bool ratios)
{
	printf("\n%s\nTimed: %s, in ms", kinds[q->kind].title,
	       q->step == STEP_AFTER ? "the base model's call after them" : kinds[q->kind].timed);
	if (q->n > 1)
		printf("; medians of %u\n", q->n);
	else
		puts("; measured once");
	printf("%9s  %-14s %7s %7s %7s %7s %7s %7s", kinds[q->kind].x, "arm", "cached%", "queue",
	       "prefill", "decode", "TTFT", "E2E");
	if (has_wall(q))
		printf(" %7s", "wall");
	if (ratios)
		printf(" %7s %7s", "x TTFT", has_wall(q) ? "x wall" : "x E2E");
	putchar('\n');
}

/* Is there another arm beside alora? */
static bool has_ratios(const struct pipe *p)
{
	return pipe_wants(p, ARM_ALORA) && p->opt.arms & ~(1u << ARM_ALORA);
}

static void print_step(const struct pipe *p, enum pipe_kind kind, enum pipe_step step)
{
	bool head = false;

	for (uint32_t i = 0; i < p->n_points; i++) {
		const struct pipe_point *q = &p->points[i];

		if (q->kind != kind || q->step != step)
			continue;
		if (!head)
			print_head(q, has_ratios(p));
		head = true;
		print_point(p, q, has_ratios(p));
	}
}

static bool measured(const struct pipe *p, enum pipe_arm arm)
{
	for (uint32_t i = 0; i < p->n_points; i++)
		if (p->points[i].arm == arm)
			return true;
	return false;
}

static void print_words(const struct pipe *p)
{
	static const char *const who[PIPE_ARMS] = {
		"activated adapters, which read the KV that the base model left",
		"the same calls one after another",
		"plain LoRAs that have not seen the prompt: they read it all",
		"those calls once more: their own KV is there",
		"the base model in their place, with nothing reused",
	};

	putchar('\n');
	for (uint32_t arm = 0; arm < PIPE_ARMS; arm++)
		if (measured(p, arm))
			printf("%-14s  %s\n", arms[arm], who[arm]);
	puts("cached%         of the prompt, what did not have to be computed\n"
	     "TTFT, E2E       from arrival to the first token, to the end");
	if (p->opt.kinds & 1u << PIPE_PARALLEL)
		puts("wall            of the five together, first arrival to last end; the others "
		     "are "
		     "their means");
	if (has_ratios(p))
		puts("x ...           so many times as long as the arm alora takes");
}

void pipe_print(const struct pipe *p)
{
	for (uint32_t kind = 0; kind < PIPE_KINDS; kind++) {
		print_step(p, kind, STEP_CALL);
		print_step(p, kind, STEP_AFTER);
	}
	print_words(p);
}

/* --- pictures ------------------------------------------------------------------------------------*/

/* The values of the plots of one picture, and room for what they point to. */
struct pictures {
	struct svg_plot plots[4 * PIPE_KINDS];
	struct svg_series series[4 * PIPE_KINDS][PIPE_ARMS];
	uint32_t n;
	double *values; /* owner; handed out from the front */
	uint32_t used, room;
};

static double *take(struct pictures *pic, uint32_t n)
{
	double *v = pic->values + pic->used;

	pic->used += n;
	return v;
}

static struct svg_series *new_series(struct pictures *pic, enum pipe_arm arm, uint32_t room)
{
	struct svg_plot *plot = &pic->plots[pic->n];
	struct svg_series *s = &pic->series[pic->n][plot->n_series++];
	double *v = take(pic, 4 * room);

	plot->series = pic->series[pic->n];
	*s = (struct svg_series){.name = arms[arm],
				 .color = arm,
				 .x = v,
				 .y = v + room,
				 .lo = v + 2 * room,
				 .hi = v + 3 * room};
	return s;
}

static void put(struct svg_series *s, double x, struct figure f)
{
	((double *)s->x)[s->n] = x;
	((double *)s->y)[s->n] = f.median;
	((double *)s->lo)[s->n] = f.lo;
	((double *)s->hi)[s->n] = f.hi;
	s->n++;
}

/* A metric against what was swept, a line for each arm. */
static void plot_lines(const struct pipe *p, struct pictures *pic, enum pipe_kind kind,
		       enum pipe_step step, enum pipe_metric m, const char *title)
{
	struct svg_plot *plot = &pic->plots[pic->n];

	*plot = (struct svg_plot){.title = title, .y_label = "ms", .x_log = true, .y_log = true};
	plot->x_label = kind == PIPE_ASYNC	  ? "conversations arriving per second"
			: kind == PIPE_GENERATION ? "tokens that the base model generated"
						  : "prompt tokens";
	for (uint32_t arm = 0; arm < PIPE_ARMS; arm++) {
		struct svg_series *s = NULL;

		for (uint32_t i = 0; i < p->n_points; i++) {
			const struct pipe_point *q = &p->points[i];

			if (q->kind != kind || q->arm != arm || q->step != step)
				continue;
			s = s ? s : new_series(pic, arm, p->n_points);
			put(s, q->x, figure(q, m, 1e3));
		}
	}
	pic->n += plot->n_series > 0;
}

/* The stages at the largest value of what was swept, a bar for each arm. */
static void plot_stages(const struct pipe *p, struct pictures *pic, enum pipe_kind kind,
			const char *title)
{
	static const char *const groups[] = {"queue", "prefill", "decode", "TTFT", "E2E"};
	struct svg_plot *plot = &pic->plots[pic->n];
	double x = -1;

	*plot = (struct svg_plot){.title = title,
				  .x_label = "stages at the largest",
				  .y_label = "ms",
				  .y_log = true,
				  .groups = groups,
				  .n_groups = 5};
	for (uint32_t i = 0; i < p->n_points; i++)
		if (p->points[i].kind == kind && p->points[i].x > x)
			x = p->points[i].x;
	for (uint32_t i = 0; i < p->n_points; i++) {
		const struct pipe_point *q = &p->points[i];
		struct svg_series *s;

		if (q->kind != kind || q->x != x || q->step != STEP_CALL)
			continue;
		s = new_series(pic, q->arm, 5);
		for (uint32_t m = M_QUEUE; m <= M_E2E; m++)
			put(s, m, figure(q, m, 1e3));
	}
	pic->n += plot->n_series > 0;
}

static void plot_all(const struct pipe *p, struct pictures *pic)
{
	static const char *const ttft[] = {"base -> adapter: TTFT", "adapter -> base: TTFT",
					   "generation length: TTFT", "", "Poisson arrivals: TTFT"};
	static const char *const e2e[] = {"base -> adapter: E2E", "adapter -> base: E2E",
					  "generation length: E2E", "", "Poisson arrivals: E2E"};
	static const char *const stages[] = {"base -> adapter: stages", "adapter -> base: stages",
					     "generation length: stages",
					     "five in parallel: stages of each",
					     "Poisson arrivals: stages"};

	for (uint32_t kind = 0; kind < PIPE_KINDS; kind++) {
		if (kind == PIPE_PARALLEL) {
			plot_lines(p, pic, kind, STEP_CALL, M_WALL, "five in parallel: wall time");
			plot_lines(p, pic, kind, STEP_AFTER, M_TTFT, "base after the five: TTFT");
		} else {
			plot_lines(p, pic, kind, STEP_CALL, M_TTFT, ttft[kind]);
			plot_lines(p, pic, kind, STEP_CALL, M_E2E, e2e[kind]);
		}
		plot_stages(p, pic, kind, stages[kind]);
	}
}

int pipe_pictures(const struct pipe *p, const char *path)
{
	struct pictures *pic = calloc(1, sizeof(*pic));
	char title[128];
	FILE *f = NULL;
	int err = -1;

	if (pic) {
		pic->room = 4 * PIPE_KINDS * PIPE_ARMS * 4 * (p->n_points + 5);
		pic->values = calloc(pic->room, sizeof(double));
	}
	if (!pic || !pic->values) {
		cli_fail("bench pipeline: out of memory");
		goto out;
	}
	plot_all(p, pic);
	snprintf(title, sizeof(title), "weft bench pipeline, model %s", p->model.name);
	f = fopen(path, "w");
	if (f)
		err = svg_write(f, title, pic->plots, pic->n, 3);
	if (f && fclose(f))
		err = -1;
	if (err)
		cli_fail("bench pipeline: write %s: %s", path, strerror(errno));
out:
	if (pic)
		free(pic->values);
	free(pic);
	return err;
}
