/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_attention_invariance.c - a row's attention is the same bits however it came to be computed:
 * alone or beside others, in chunks of any size, in any physical blocks, by any number of threads,
 * and whatever later positions hold. On every path of the CPU backend.
 */
#include <math.h>

#include "kernels/convert.h"
#include "tests/kernels/attn_case.h"
#include "tests/tap.h"

static const struct attn_case cases[] = {
	{.n_heads = 9, .n_kv = 3, .dim = 64, .n_seqs = 4, .len = {530, 1, 47, 300}},
	{.n_heads = 1, .n_kv = 1, .dim = 80, .n_seqs = 2, .len = {290, 18}, .window = 70},
	{.n_heads = 4, .n_kv = 2, .dim = 96, .n_seqs = 2, .len = {35, 270}, .norms = true},
	{.n_heads = 8, .n_kv = 1, .dim = 128, .n_seqs = 2, .len = {280, 9}, .window = 257},
	{.n_heads = 7, .n_kv = 1, .dim = 256, .n_seqs = 2, .len = {65, 31}},
	{.n_heads = 10, .n_kv = 2, .dim = 64, .n_seqs = 2, .len = {515, 100}, .window = 15},
	{.n_heads = 6, .n_kv = 1, .dim = 18, .n_seqs = 2, .len = {33, 270}},
};

static const struct attn_plan plans[] = {
	{.chunk = 0},
	{.chunk = 1, .max_seqs = 1, .shuffle = 1},
	{.chunk = 1, .shuffle = 2, .poison_free = true},
	{.chunk = 15, .shuffle = 3},
	{.chunk = 16, .max_seqs = 2, .shuffle = 4, .poison_free = true},
	{.chunk = 17, .shuffle = 5, .poison_free = true, .min_block_bytes = 200001},
	{.chunk = 256, .max_seqs = 1, .poison_free = true},
};

static const char *backend;

static void finish_case(struct attn_case *c, size_t i)
{
	c->n_layers = 2;
	c->layer = i % 2;
	c->rope_scale = 1;
	c->scale = 0.9f / sqrtf(c->dim);
	attn_case_init(c, 100 + i);
}

/* The first differing position of any sequence, or -1. `upto`: positions to compare. */
static long first_difference(const struct attn_case *c, float **a, float **b, const uint32_t *upto)
{
	size_t row = (size_t)c->n_heads * c->dim;

	for (uint32_t s = 0; s < c->n_seqs; s++)
		for (uint32_t r = 0; r < upto[s]; r++)
			if (memcmp(a[s] + r * row, b[s] + r * row, row * sizeof(float)))
				return (long)s * 100000 + r;
	return -1;
}

static void free_all(const struct attn_case *c, float **a)
{
	for (uint32_t s = 0; s < c->n_seqs; s++)
		free(a[s]);
}

static void check_plans(const char *path, const struct attn_case *c)
{
	float *base[ATTN_MAX_SEQS], *got[ATTN_MAX_SEQS];
	struct kt t;

	kt_open(&t, backend, path, 1);
	attn_run(&t, c, &plans[0], base);
	kt_close(&t);
	for (uint32_t threads = 1; threads <= 3; threads++) {
		kt_open(&t, backend, path, threads);
		for (size_t i = 0; i < sizeof(plans) / sizeof(plans[0]); i++) {
			attn_run(&t, c, &plans[i], got);
			is_int(first_difference(c, base, got, c->len), -1,
			       "%s: heads %u/%u of %u, window %u, chunk %u, %u sequences a step",
			       t.label, c->n_heads, c->n_kv, c->dim, c->window, plans[i].chunk,
			       plans[i].max_seqs);
			free_all(c, got);
		}
		kt_close(&t);
	}
	free_all(c, base);
}

/* From position `from` on, every sequence is NaN: earlier positions must not notice. */
static void check_poison(const char *path, struct attn_case *c, uint32_t from)
{
	uint32_t width = (c->n_heads + 2 * c->n_kv) * c->dim, upto[ATTN_MAX_SEQS];
	float *base[ATTN_MAX_SEQS], *got[ATTN_MAX_SEQS], nan = wk_bits_to_f32(0x7fc00000);
	struct attn_case bad = *c;
	struct kt t;

	kt_open(&t, backend, path, 2);
	attn_run(&t, c, &plans[0], base);
	for (uint32_t s = 0; s < c->n_seqs; s++) {
		size_t n = (size_t)c->len[s] * width;

		upto[s] = from < c->len[s] ? from : c->len[s];
		bad.y[s] = kt_alloc(n, sizeof(float));
		memcpy(bad.y[s], c->y[s], n * sizeof(float));
		for (size_t i = (size_t)upto[s] * width; i < n; i++)
			bad.y[s][i] = nan;
	}
	attn_run(&t, &bad, &plans[0], got);
	is_int(first_difference(c, base, got, upto), -1,
	       "%s: heads %u/%u of %u: NaN from position %u on does not reach back", t.label,
	       c->n_heads, c->n_kv, c->dim, from);
	ok(from >= c->len[0] || isnan(got[0][(size_t)from * c->n_heads * c->dim]),
	   "%s: and is not hidden where it is", t.label);
	for (uint32_t s = 0; s < c->n_seqs; s++)
		free(bad.y[s]);
	free_all(c, base);
	free_all(c, got);
	kt_close(&t);
}

/* With a window, NaN at a position must not reach rows from which it is out of sight. */
static void check_window_poison(const char *path, const struct attn_case *c)
{
	uint32_t width = (c->n_heads + 2 * c->n_kv) * c->dim, at = 20, row = c->n_heads * c->dim;
	float *base[ATTN_MAX_SEQS], *got[ATTN_MAX_SEQS];
	struct attn_case bad = *c;
	uint32_t wrong = 0;
	struct kt t;

	kt_open(&t, backend, path, 2);
	attn_run(&t, c, &plans[0], base);
	bad.y[0] = kt_alloc((size_t)c->len[0] * width, sizeof(float));
	memcpy(bad.y[0], c->y[0], (size_t)c->len[0] * width * sizeof(float));
	for (uint32_t i = 0; i < width; i++)
		bad.y[0][(size_t)at * width + i] = NAN;
	attn_run(&t, &bad, &plans[0], got);
	for (uint32_t r = 0; r < c->len[0]; r++) {
		bool same = !memcmp(base[0] + (size_t)r * row, got[0] + (size_t)r * row,
				    row * sizeof(float));

		wrong += same != (r < at || r >= at + c->window);
	}
	is_int(wrong, 0, "%s: window %u: NaN at %u is seen by the rows that see it only", t.label,
	       c->window, at);
	free(bad.y[0]);
	free_all(c, base);
	free_all(c, got);
	kt_close(&t);
}

int main(void)
{
	const char *const *paths;

	backend = kt_fast(&paths);
	for (size_t p = 0; paths[p]; p++) {
		struct kt t;

		if (!kt_open(&t, backend, paths[p], 1)) {
			skip(1, "no such instructions here");
			continue;
		}
		kt_close(&t);
		for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i += kt_every()) {
			struct attn_case c = cases[i];

			finish_case(&c, i);
			check_plans(paths[p], &c);
			check_poison(paths[p], &c, 1);
			check_poison(paths[p], &c, 18);
			check_poison(paths[p], &c, 33);
			if (c.window)
				check_window_poison(paths[p], &c);
			attn_case_fini(&c);
		}
	}
	return tap_done();
}
