/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_rows.c - one pass of as many rows as a backend takes (wk_info.max_rows), against `ref` in short
 * passes: a long prompt, one that goes on behind what was computed before, and some that decode; an
 * adapter begins in the middle of the long one. All logits are compared. A row more is refused.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/chain.h"
#include "tests/tap.h"

#define SEQS  4u
#define SHORT 300u /* rows of a pass of ref */

_Static_assert(SHORT <= WK_MAX_ROWS, "ref takes so many");

/* Rows of a pass; each sequence has blocks of its own, in falling order. */
struct plan {
	uint32_t pos[SEQS], rows[SEQS], len[SEQS]; /* len: in the end */
	uint32_t n_rows;
	uint32_t segment[2]; /* rows from .. to have an adapter */
};

static uint32_t first_block(const struct plan *p, uint32_t s)
{
	uint32_t at = 0;

	for (uint32_t i = 0; i <= s; i++)
		at += (p->len[i] + WK_BLOCK_TOKENS - 1) / WK_BLOCK_TOKENS;
	return CHAIN_KV_BLOCK - at;
}

/* Queue rows from .. to of the plan and read their logits. */
static int pass(struct chain *c, const struct plan *p, uint32_t from, uint32_t to, float *ret)
{
	static uint32_t tokens[WK_MOST_ROWS + 1], table[CHAIN_KV_BLOCK];
	struct wk_seq seqs[SEQS];
	const struct wk_lora *loras[] = {c->loras[1]};
	struct wk_segment segment = {0};
	struct wk_batch b = {.tokens = tokens,
			     .seqs = seqs,
			     .block_table = table,
			     .loras = loras,
			     .segments = &segment};
	uint32_t at = 0;
	int r;

	for (uint32_t s = 0; s < SEQS; at += p->rows[s++]) {
		uint32_t begin = from > at ? from - at : 0;
		uint32_t end = to < at + p->rows[s] ? to > at ? to - at : 0 : p->rows[s];
		uint32_t pos = p->pos[s] + begin,
			 blocks = (p->pos[s] + end - 1) / WK_BLOCK_TOKENS + 1;

		if (begin >= end)
			continue;
		seqs[b.n_seqs++] = (struct wk_seq){b.n_rows, end - begin, pos, b.n_table};
		for (uint32_t i = 0; i < end - begin; i++)
			tokens[b.n_rows++] =
				(s * 31 + (pos + i) * 7 + (pos + i) / 11) % CHAIN_VOCAB;
		for (uint32_t i = 0; i < blocks; i++)
			table[b.n_table++] =
				first_block(p, s) + (p->len[s] - 1) / WK_BLOCK_TOKENS - i;
	}
	at = p->segment[0] > from ? p->segment[0] : from;
	if (at < to && at < p->segment[1]) {
		uint32_t end = p->segment[1] < to ? p->segment[1] : to;

		segment = (struct wk_segment){at - from, end - at, 0};
		b.n_segments = b.n_loras = 1;
	}
	r = chain_forward(c, &b, 1, true);
	if (r)
		return r;
	kt_sync(c->t);
	kt_read_floats(c->t, c->logits, ret, (size_t)b.n_rows * CHAIN_STRIDE);
	return 0;
}

/* What is computed before, and the pass itself in passes of at most `most` rows. */
static int run(struct chain *c, const struct plan *p, uint32_t most, float *ret)
{
	struct plan before = {.n_rows = 0};
	int r = 0;

	for (uint32_t s = 0; s < SEQS; s++) {
		before.len[s] = p->len[s];
		before.n_rows += before.rows[s] = p->pos[s];
	}
	if (pass(c, &before, 0, before.n_rows, ret))
		bail_out(c->t->ops->last_error(c->t->be));
	for (uint32_t at = 0; !r && at < p->n_rows; at += most)
		r = pass(c, p, at, at + most < p->n_rows ? at + most : p->n_rows,
			 ret + (size_t)at * CHAIN_STRIDE);
	return r;
}

/* The worst of all rows. */
static double compare(const float *got, const float *want, uint32_t n_rows)
{
	double worst = 0;

	for (uint32_t r = 0; r < n_rows; r++) {
		double row[CHAIN_VOCAB], e;

		for (uint32_t i = 0; i < CHAIN_VOCAB; i++)
			row[i] = want[(size_t)r * CHAIN_STRIDE + i];
		e = kt_error(got + (size_t)r * CHAIN_STRIDE, row, CHAIN_VOCAB);
		worst = e > worst ? e : worst;
	}
	return worst;
}

/* So many rows in all: 2 and 1 decode, the long prompt takes what the others leave. */
static struct plan make_plan(uint32_t n_rows)
{
	struct plan p = {.pos = {70, 0, 33, 5}, .rows = {1, 0, 190, 1}, .n_rows = n_rows};

	p.rows[1] = n_rows - 192;
	p.segment[0] = n_rows / 2;
	p.segment[1] = n_rows - 30;
	for (uint32_t s = 0; s < SEQS; s++)
		p.len[s] = p.pos[s] + p.rows[s];
	return p;
}

static void test_one(struct kt *t)
{
	size_t floats = (size_t)(WK_MOST_ROWS + 1) * CHAIN_STRIDE;
	float *got = kt_alloc(floats, sizeof(*got)), *want = kt_alloc(floats, sizeof(*want));
	const struct plan p = make_plan(t->info.max_rows), more = make_plan(t->info.max_rows + 1);
	struct kt ref;
	struct chain c;
	double e;

	ok(t->info.max_rows >= WK_MAX_ROWS && t->info.max_rows <= WK_MOST_ROWS, "%s takes %u rows",
	   t->label, t->info.max_rows);
	ok(t->info.short_rows > 0 && t->info.short_rows <= t->info.max_rows, "and %u are short",
	   t->info.short_rows);
	if (!kt_open(&ref, "ref", NULL, 1))
		bail_out("no ref backend");
	chain_open(&c, &ref);
	if (run(&c, &p, SHORT, want))
		bail_out("ref refuses");
	chain_close(&c);
	kt_close(&ref);
	chain_open(&c, t);
	is_int(run(&c, &p, p.n_rows, got), 0, "all of them in one pass");
	e = compare(got, want, p.n_rows);
	/* x is rounded to bf16 six times on the way; a row's adapter makes 0.5 and more. */
	ok(e < 0.1, "every row's logits are as ref's: %g", e);
	is_int(run(&c, &more, more.n_rows, got), -EINVAL, "one more is refused");
	chain_close(&c);
	free(got);
	free(want);
}

int main(void)
{
	kt_each(test_one);
	return tap_done();
}
