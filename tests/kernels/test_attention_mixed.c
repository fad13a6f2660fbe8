/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_attention_mixed.c - attention of a batch in which sequences have many rows and few, at the
 * beginning and in the middle of their context, against a formula in double: all lengths around tiles,
 * groups of one to eight heads, windows. And a value that is NaN is seen by the rows and heads that see
 * its key, and by no other.
 */
#include <math.h>

#include "tests/kernels/attn_case.h"
#include "tests/tap.h"

static const struct {
	struct attn_case c;
	uint32_t chunks[ATTN_MAX_SEQS];
} cases[] = {
	{{.n_heads = 8,
	  .n_kv = 2,
	  .dim = 64,
	  .n_seqs = 8,
	  .len = {17, 31, 33, 48, 63, 64, 65, 127}},
	 {0}},
	{{.n_heads = 8, .n_kv = 2, .dim = 64, .n_seqs = 3, .len = {128, 129, 255}}, {0}},
	{{.n_heads = 4, .n_kv = 1, .dim = 128, .n_seqs = 3, .len = {256, 257, 385}}, {256, 1, 99}},
	{{.n_heads = 4, .n_kv = 4, .dim = 64, .n_seqs = 2, .len = {600, 3}}, {512, 1}},
	{{.n_heads = 6, .n_kv = 2, .dim = 128, .n_seqs = 3, .len = {330, 45, 200}}, {190, 45, 77}},
	{{.n_heads = 8, .n_kv = 1, .dim = 128, .n_seqs = 4, .len = {150, 20, 2, 40}},
	 {150, 7, 1, 33}},
	{{.n_heads = 4, .n_kv = 1, .dim = 128, .n_seqs = 1, .len = {500}, .window = 130}, {333}},
	{{.n_heads = 8, .n_kv = 2, .dim = 64, .n_seqs = 2, .len = {420, 260}, .window = 40},
	 {300, 0}},
};

static void prepare(struct attn_case *c, struct attn_plan *plan, size_t i)
{
	*c = cases[i].c;
	*plan = (struct attn_plan){.shuffle = 5, .poison_free = true};
	memcpy(plan->chunks, cases[i].chunks, sizeof(plan->chunks));
	c->n_layers = 2;
	c->layer = 1;
	c->rope_scale = 1;
	/* Scores of -6 to 6: some keys decide a row, wherever they are. */
	c->scale = 4 / sqrtf((float)c->dim);
	attn_case_init(c, i + 1);
}

static void check_case(struct kt *t, size_t i)
{
	struct attn_plan plan;
	struct attn_case c;
	float *got[ATTN_MAX_SEQS];
	double worst;

	prepare(&c, &plan, i);
	attn_run(t, &c, &plan, got);
	worst = attn_worst(&c, got);
	/* bf16: q, k, v and p are each rounded by up to 2^-9; scores of 6 from rounded q and k are off by
	 * up to 2^-7 of that, and with them a probability by as much. */
	ok(worst <= (t->info.x_bytes == 4 ? 2e-5 : 5e-2),
	   "%s: case %zu, heads %u/%u of %u, window %u: %.1e", t->label, i, c.n_heads, c.n_kv,
	   c.dim, c.window, worst);
	attn_case_fini(&c);
}

/* Whether a row of one head is as it was, or all NaN, as it should be. */
static bool right(const float *clean, const float *got, uint32_t dim, bool sees)
{
	for (uint32_t i = 0; i < dim; i++)
		if (sees ? !isnan(got[i]) : memcmp(&clean[i], &got[i], sizeof(*got)) != 0)
			return false;
	return true;
}

/* The value of position `at` of the first KV head is NaN. */
static void check_nan(struct kt *t, size_t i, uint32_t at)
{
	struct attn_plan plan;
	struct attn_case c;
	float *clean[ATTN_MAX_SEQS], *got[ATTN_MAX_SEQS];
	uint32_t wrong = 0, width, group;

	prepare(&c, &plan, i);
	width = (c.n_heads + 2 * c.n_kv) * c.dim;
	group = c.n_heads / c.n_kv;
	attn_run(t, &c, &plan, clean);
	c.y[0][(size_t)at * width + (size_t)(c.n_heads + c.n_kv) * c.dim + 3] = NAN;
	attn_run(t, &c, &plan, got);
	for (uint32_t s = 0; s < c.n_seqs; s++) {
		for (uint32_t r = 0; r < c.len[s]; r++)
			for (uint32_t h = 0; h < c.n_heads; h++) {
				size_t off = ((size_t)r * c.n_heads + h) * c.dim;
				bool sees = s == 0 && h < group && r >= at &&
					    (!c.window || r < at + c.window);

				/* ref and cpu multiply it as it is: one column is NaN. */
				if (strcmp(t->info.name, "cuda"))
					wrong += sees ? !isnan(got[s][off + 3])
						      : !right(clean[s] + off, got[s] + off, c.dim,
							       false);
				else
					wrong += !right(clean[s] + off, got[s] + off, c.dim, sees);
			}
		free(clean[s]);
		free(got[s]);
	}
	is_int(wrong, 0, "%s: case %zu: NaN at %u is seen by the rows and heads that see it only",
	       t->label, i, at);
	attn_case_fini(&c);
}

static void run(struct kt *t)
{
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		check_case(t, i);
	check_nan(t, 2, 130);
	check_nan(t, 5, 149);
	check_nan(t, 7, 200);
}

int main(void)
{
	kt_each(run);
	return tap_done();
}
