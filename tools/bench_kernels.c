/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_kernels.c - `weft bench kernels`: matrix products of the 1b model's shapes, and attention,
 * against the limits probed between the repetitions, and products under adapters against the same
 * without (kernels/bench*.h measure; here the shapes are added up).
 *
 * A row stands for all weights of a layer and the head at one number of rows: the time that all of
 * them would take at the limit, divided by the time that they take. The largest shapes count most,
 * as they do in a forward pass.
 */
#include "kernels/bench.h"
#include "kernels/bench_attention.h"
#include "kernels/bench_lora.h"
#include "tools/bench.h"
#include "tools/cli.h"
#include "tools/progress.h"

#include <string.h>
#include <unistd.h>

static void progress(void *arg, const struct wk_bench_row *row, uint32_t done, uint32_t total)
{
	const struct wk_bench_options *o = arg;

	(void)row;
	if (done == 1)
		progress_begin("weft bench kernels", total + 2 * o->n_threads);
	progress_at(done);
}

enum against { OF_PEAK, OF_STREAM, OVER_LIMIT };

static const struct wk_bench_spread *spread_of(const struct wk_bench_row *r, enum against what)
{
	return what == OF_PEAK ? &r->of_peak : what == OF_STREAM ? &r->of_stream : &r->over_limit;
}

/* Times add up, so ratios to a limit combine by their inverses, weighted by the limit's time. */
static void combine(struct bench_table *t, const struct wk_bench_row *rows, uint32_t n, uint32_t m,
		    uint32_t threads, enum against what, enum bench_goal goal, double target)
{
	static const char *const texts[] = {"against peak", "against streaming bandwidth",
					    "time over the nearer limit"};
	double weight = 0, mid = 0, lo = 0, hi = 0;
	struct bench_row out = {.unit = "ratio", .goal = goal, .target = target, .pass = 1};
	char name[128];

	for (uint32_t i = 0; i < n; i++) {
		const struct wk_bench_row *r = &rows[i];
		const struct wk_bench_spread *s = spread_of(r, what);
		double w = (double)r->n * r->k;

		if (r->m != m || r->threads != threads || !(s->min > 0))
			continue;
		weight += w;
		mid += what == OVER_LIMIT ? w * s->median : w / s->median;
		lo += what == OVER_LIMIT ? w * s->min : w / s->min;
		hi += what == OVER_LIMIT ? w * s->max : w / s->max;
	}
	if (!(weight > 0))
		return;
	snprintf(name, sizeof(name), "bf16 product, M = %u, 1b shapes, %u thread%s: %s", m, threads,
		 threads > 1 ? "s" : "", texts[what]);
	out.name = name;
	out.value = what == OVER_LIMIT ? mid / weight : weight / mid;
	out.lo = what == OVER_LIMIT ? lo / weight : weight / lo;
	out.hi = what == OVER_LIMIT ? hi / weight : weight / hi;
	bench_add(t, &out);
}

static void add_attention(struct bench_table *t, const char *what, uint32_t threads,
			  const struct wk_bench_spread *s, enum bench_goal goal, double target)
{
	struct bench_row r = {.unit = "ratio", .goal = goal, .target = target, .pass = 1};
	char name[128];

	snprintf(name, sizeof(name), "attention, %s, %u thread%s", what, threads,
		 threads > 1 ? "s" : "");
	r.name = name;
	r.value = s->median;
	r.lo = s->min;
	r.hi = s->max;
	bench_add(t, &r);
}

static int attention(struct bench_table *t, uint32_t threads)
{
	struct wk_bench_attention a;
	int err = wk_bench_attention(threads, NULL, 21, &a);

	if (err < 0)
		return cli_fail("bench kernels: attention: %s", strerror(-err)) - 2;
	add_attention(t, "prefill of 4,096 positions, 135m shape: against peak", threads,
		      &a.prefill_of_peak, BENCH_NONE, 0);
	add_attention(t, "decode at 4,096 positions, all layers of 1b: against streaming bandwidth",
		      threads, &a.decode_of_stream, BENCH_AT_LEAST, 0.70);
	return 0;
}

static void add_lora(struct bench_table *t, const char *what, uint32_t threads,
		     const struct wk_bench_spread *s)
{
	struct bench_row r = {.unit = "ratio", .goal = BENCH_NONE, .pass = 1};
	char name[128];

	snprintf(name, sizeof(name), "products, 135m shapes, %s, %u thread%s: against base", what,
		 threads, threads > 1 ? "s" : "");
	r.name = name;
	r.value = s->median;
	r.lo = s->min;
	r.hi = s->max;
	bench_add(t, &r);
}

static int adapters(struct bench_table *t, uint32_t threads)
{
	struct wk_bench_lora l;
	int err = wk_bench_lora(threads, NULL, 0, &l);

	if (err < 0)
		return cli_fail("bench kernels: adapters: %s", strerror(-err)) - 2;
	add_lora(t, "512 rows, an adapter of r = 16", threads, &l.prefill);
	add_lora(t, "16 rows, eight adapters of r = 16", threads, &l.decode);
	add_lora(t, "1 row, an adapter of r = 16", threads, &l.one);
	return 0;
}

int bench_kernels(struct bench_table *t)
{
	static const uint32_t ms[] = {48, 128, 512};
	static struct wk_bench_row rows[WK_BENCH_MAX_ROWS];
	struct wk_bench_options o = {
		.reps = 7,
		.m = {1, 16, 48, 128, 512},
		.n_m = 5,
		.threads = {1, 2},
		.n_threads = sysconf(_SC_NPROCESSORS_ONLN) > 1 ? 2 : 1,
		.row = progress,
	};
	int n, err = 0;

	o.arg = &o;
	n = wk_bench_matmul(&o, rows, WK_BENCH_MAX_ROWS);
	if (n < 0)
		return cli_fail("bench kernels: %s", strerror(-n)) - 2;
	for (uint32_t k = 0; k < o.n_threads; k++) {
		for (uint32_t i = 0; i < 3; i++)
			combine(t, rows, n, ms[i], o.threads[k], OF_PEAK, BENCH_AT_LEAST, 0.90);
		combine(t, rows, n, 1, o.threads[k], OF_STREAM, BENCH_AT_LEAST, 0.85);
		combine(t, rows, n, 16, o.threads[k], OVER_LIMIT, BENCH_NONE, 0);
	}
	for (uint32_t k = 0; k < o.n_threads && !err; k++) {
		err = attention(t, o.threads[k]);
		progress_step();
		err = err ? err : adapters(t, o.threads[k]);
		progress_step();
	}
	progress_end();
	return err;
}
