/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_attention.c - rotary, KV append and attention of every backend against formulas in double,
 * over head sizes, groups, windows and ragged lengths; copying of KV rows.
 */
#include <math.h>

#include "tests/kernels/attn_case.h"
#include "tests/tap.h"

static const struct attn_case cases[] = {
	{.n_heads = 9, .n_kv = 3, .dim = 64, .n_seqs = 3, .len = {300, 1, 17}},
	{.n_heads = 1, .n_kv = 1, .dim = 8, .n_seqs = 2, .len = {31, 16}, .norms = true},
	{.n_heads = 4, .n_kv = 4, .dim = 80, .n_seqs = 1, .len = {270}, .window = 33},
	{.n_heads = 8, .n_kv = 1, .dim = 96, .n_seqs = 2, .len = {260, 5}, .norms = true},
	{.n_heads = 14, .n_kv = 2, .dim = 128, .n_seqs = 2, .len = {40, 257}, .window = 256},
	{.n_heads = 5, .n_kv = 1, .dim = 256, .n_seqs = 1, .len = {64}},
	{.n_heads = 6, .n_kv = 2, .dim = 18, .n_seqs = 4, .len = {50, 2, 3, 33}, .window = 1},
	{.n_heads = 50, .n_kv = 1, .dim = 32, .n_seqs = 1, .len = {20}},
	{.n_heads = 8, .n_kv = 2, .dim = 64, .n_seqs = 2, .len = {600, 520}, .window = 300},
};

static void check_case(struct kt *t, const struct attn_case *proto, uint32_t chunk)
{
	struct attn_case c = *proto;
	struct attn_plan plan = {.chunk = chunk, .shuffle = 5, .poison_free = true};
	float *got[ATTN_MAX_SEQS];
	double worst;

	c.n_layers = 3;
	c.layer = 1;
	c.rope_scale = c.norms ? 1.25f : 1;
	c.scale = c.norms ? 0.05f : 0.8f / sqrtf(c.dim);
	attn_case_init(&c, c.dim);
	attn_run(t, &c, &plan, got);
	worst = attn_worst(&c, got);
	/* bf16: q, k, v and p are each rounded by up to 2^-9 before they are summed. */
	ok(worst <= (t->info.x_bytes == 4 ? 2e-5 : 2e-2),
	   "%s: attention, heads %u/%u of %u, window %u, chunk %u: %.1e", t->label, c.n_heads,
	   c.n_kv, c.dim, c.window, chunk, worst);
	attn_case_fini(&c);
}

/* Whatever is in a block, a copy of n rows gives what computing these n rows gives. */
static void copy_rows(struct kt *t, uint32_t n)
{
	enum { dim = 20, n_kv = 2, heads = 2, width = (heads + 2 * n_kv) * dim, layers = 2 };
	struct wk_kv_shape shape = {layers, n_kv, dim, 0};
	size_t bytes = t->ops->kv_block_bytes(t->be, &shape);
	struct wk_buf *pool, *yb, *q, *freq;
	float y[16 * width], f[dim / 2] = {1, 0.5f};
	uint32_t tokens[16] = {0}, all[3] = {0, 1, 2};
	char *host;

	kt_fill(y, 16 * width, 1);
	if (t->ops->buf_new(t->be, 3 * bytes, &pool) < 0)
		bail_out("no pool");
	host = kt_alloc(3, bytes);
	kt_fill_bytes(t, pool, 0xff, 3 * bytes);
	t->ops->kv_bind(t->be, &shape, pool, 3);
	t->ops->kv_zero(t->be, pool, all, 2);
	yb = kt_floats(t, y, 16 * width);
	freq = kt_floats(t, f, dim / 2);
	q = kt_x(t, NULL, 16 * heads * dim);
	/* Block 0 gets 16 rows, block 1 the first n of them, block 2 (garbage) a copy of n. */
	for (uint32_t block = 0; block < 2; block++) {
		uint32_t rows = block ? n : 16;
		struct wk_seq seq = {0, rows, 0, 0};
		struct wk_batch b = {.n_rows = rows,
				     .n_seqs = 1,
				     .n_table = 1,
				     .tokens = tokens,
				     .seqs = &seq,
				     .block_table = &block};

		if (t->ops->batch_set(t->be, &b) < 0)
			bail_out(t->ops->last_error(t->be));
		for (uint32_t layer = 0; layer < layers; layer++)
			t->ops->rope_append(t->be,
					    &(struct wk_rope_append){.y = yb,
								     .q = q,
								     .pool = pool,
								     .inv_freq = freq,
								     .rope_scale = 1,
								     .layer = layer,
								     .n_heads = heads,
								     .y_stride = width,
								     .q_stride = heads * dim});
	}
	kt_read_bytes(t, pool, 0, host, 3 * bytes);
	ok(n == 16 || memcmp(host, host + bytes, bytes), "%s: the blocks differ before", t->label);
	t->ops->kv_copy_rows(t->be, pool, 0, 2, n);
	kt_read_bytes(t, pool, 0, host, 3 * bytes);
	ok(!memcmp(host + 2 * bytes, host + bytes, bytes), "%s: copy of %u rows", t->label, n);
	free(host);
	kt_free(t, pool);
	kt_free(t, yb);
	kt_free(t, q);
	kt_free(t, freq);
}

static void run(struct kt *t)
{
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		check_case(t, &cases[i], 0);
		check_case(t, &cases[i], 23);
	}
	for (uint32_t n = 1; n <= 16; n += 5)
		copy_rows(t, n);
}

int main(void)
{
	kt_each(run);
	return tap_done();
}
