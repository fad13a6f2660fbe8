/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_lora_refuse.c - what every backend refuses about adapters, and blocks made larger for them.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "tests/kernels/kt.h"
#include "tests/tap.h"

#define RANK 21u
#define N    40u
#define K    33u

/* --- packing -------------------------------------------------------------------------------------*/

static int pack(struct kt *t, const float *a, const float *b, uint32_t rank, uint32_t first,
		char where[64])
{
	struct wk_lora_source src = {a, b, WK_F32, WK_F32, rank, N, K};
	void *dst = kt_alloc(t->ops->lora_piece_bytes(t->be, N, K), 1);
	int err;

	where[0] = 0;
	err = t->ops->lora_pack(t->be, &src, first, dst, where);
	free(dst);
	return err;
}

static void packing(struct kt *t)
{
	const float bad[] = {NAN, INFINITY, -INFINITY};
	static float a[RANK * K], b[N * RANK];
	char where[64];

	for (int i = 0; i < 3; i++) {
		kt_fill(a, RANK * K, 1);
		kt_fill(b, N * RANK, 1);
		is_int(pack(t, a, b, RANK, 16, where), 0, "%s: a good piece", t->label);
		a[18 * K + 32] = bad[i];
		is_int(pack(t, a, b, RANK, 0, where), 0, "%s: %g in other ranks is not looked at",
		       t->label, bad[i]);
		is_int(pack(t, a, b, RANK, 16, where), -EDOM, "%s: %g in A is refused", t->label,
		       bad[i]);
		is_str(where, "A, row 18, column 32", "%s: with its place", t->label);
		a[18 * K + 32] = 0;
		b[39 * RANK + 20] = bad[i];
		is_int(pack(t, a, b, RANK, 0, where), 0, "%s: %g in other ranks is not looked at",
		       t->label, bad[i]);
		is_int(pack(t, a, b, RANK, 16, where), -EDOM, "%s: %g in B is refused", t->label,
		       bad[i]);
		is_str(where, "B, row 39, column 20", "%s: with its place", t->label);
	}
	is_int(pack(t, a, b, 0, 0, where), -EINVAL, "%s: rank 0", t->label);
	is_int(pack(t, a, b, RANK, 8, where), -EINVAL, "%s: ranks not from a multiple of 16",
	       t->label);
	is_int(pack(t, a, b, RANK, 32, where), -EINVAL, "%s: ranks past the last", t->label);
}

/* --- making --------------------------------------------------------------------------------------*/

/* A pool of two blocks, each large enough for one piece. */
static struct wk_buf *make_pool(struct kt *t, size_t *ret_block)
{
	struct wk_kv_shape shape = {1, 1, 8, (uint32_t)t->ops->lora_piece_bytes(t->be, N, K)};
	struct wk_buf *pool;

	*ret_block = t->ops->kv_block_bytes(t->be, &shape);
	if (t->ops->buf_new(t->be, 2 * *ret_block, &pool) < 0 ||
	    t->ops->kv_bind(t->be, &shape, pool, 2) < 0)
		bail_out(t->ops->last_error(t->be));
	return pool;
}

static int make(struct kt *t, const struct wk_lora_part *parts, uint32_t n)
{
	struct wk_lora *lora = NULL;
	int err = t->ops->lora_new(t->be, parts, n, &lora);

	t->ops->lora_free(t->be, lora);
	return err;
}

static void making(struct kt *t)
{
	size_t block;
	uint64_t pieces[2] = {0, 0};
	struct wk_lora_part good = {
		.site = 1, .col = 8, .n = N, .k = K, .rank = RANK, .scale = 1, .pieces = pieces};
	struct wk_lora_part p[2] = {good, good};
	struct wk_buf *pool;

	is_int(make(t, p, 1), -EINVAL, "%s: an adapter without a pool", t->label);
	pool = make_pool(t, &block);
	pieces[1] = block;
	is_int(make(t, p, 1), 0, "%s: a good adapter", t->label);
	is_int(make(t, p, 0), -EINVAL, "%s: one without parts", t->label);
	is_int(make(t, p, 2), -EINVAL, "%s: two parts for the same outputs", t->label);
	p[1].col = 8 + N - 1;
	is_int(make(t, p, 2), -EINVAL, "%s: two that overlap by one", t->label);
	p[1].col = 8 + N;
	is_int(make(t, p, 2), 0, "%s: two side by side", t->label);
	p[1] = good;
	p[1].site = 2;
	is_int(make(t, p, 2), 0, "%s: two of different sites", t->label);
	p[0].site = 0;
	is_int(make(t, p, 1), -EINVAL, "%s: site 0", t->label);
	p[0] = good;
	p[0].rank = 0;
	is_int(make(t, p, 1), -EINVAL, "%s: rank 0", t->label);
	p[0] = good;
	pieces[1] = block + 64;
	is_int(make(t, p, 1), -EINVAL, "%s: a piece that is not aligned", t->label);
	pieces[1] = 2 * block;
	is_int(make(t, p, 1), -EINVAL, "%s: a piece past the pool", t->label);
	pieces[1] = UINT64_MAX / WK_POOL_ALIGN * WK_POOL_ALIGN;
	is_int(make(t, p, 1), -EINVAL, "%s: a piece past all", t->label);
	kt_free(t, pool);
	pieces[1] = block;
	is_int(make(t, p, 1), -EINVAL, "%s: the pool is gone", t->label);
}

/* --- segments ------------------------------------------------------------------------------------*/

static int set(struct kt *t, const struct wk_segment *segs, uint32_t n, uint32_t n_loras,
	       const struct wk_lora *lora)
{
	static const uint32_t zeros[8];
	struct wk_seq seq = {0, 8, 0, 0};
	const struct wk_lora *loras[2] = {lora, lora};

	return t->ops->batch_set(t->be, &(struct wk_batch){.n_rows = 8,
							   .n_seqs = 1,
							   .n_table = 1,
							   .tokens = zeros,
							   .seqs = &seq,
							   .block_table = zeros,
							   .n_segments = n,
							   .segments = segs,
							   .n_loras = n_loras,
							   .loras = loras});
}

static void segments(struct kt *t)
{
	size_t block;
	struct wk_buf *pool = make_pool(t, &block);
	uint64_t piece = block;
	struct wk_lora_part part = {
		.site = 1, .n = N, .k = K, .rank = 16, .scale = 1, .pieces = &piece};
	struct wk_lora *lora;
	static const struct {
		struct wk_segment s[2];
		uint32_t n, n_loras;
		int want;
		const char *what;
	} cases[] = {
		{{{0, 8, 0}}, 1, 1, 0, "one segment of all rows"},
		{{{0, 3, 1}, {3, 5, 0}}, 2, 2, 0, "two that touch"},
		{{{1, 1, 0}, {7, 1, 0}}, 2, 1, 0, "two of one adapter"},
		{{{0, 9, 0}}, 1, 1, -EINVAL, "one past the rows"},
		{{{8, 1, 0}}, 1, 1, -EINVAL, "one behind the rows"},
		{{{7, UINT32_MAX, 0}}, 1, 1, -EINVAL, "one whose end wraps"},
		{{{2, 0, 0}}, 1, 1, -EINVAL, "one without rows"},
		{{{0, 3, 0}, {2, 2, 0}}, 2, 1, -EINVAL, "two that overlap"},
		{{{4, 3, 0}, {0, 2, 0}}, 2, 1, -EINVAL, "two that descend"},
		{{{0, 3, 1}}, 1, 1, -EINVAL, "one of an adapter that is not there"},
		{{{0, 3, 0}}, 1, 0, -EINVAL, "one without any adapters"},
	};

	if (t->ops->lora_new(t->be, &part, 1, &lora) < 0)
		bail_out(t->ops->last_error(t->be));
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		is_int(set(t, cases[i].s, cases[i].n, cases[i].n_loras, lora), cases[i].want,
		       "%s: segments: %s", t->label, cases[i].what);
	is_int(set(t, cases[0].s, 1, 1, NULL), -EINVAL, "%s: segments: an adapter that is NULL",
	       t->label);
	t->ops->lora_free(t->be, lora);
	kt_free(t, pool);
}

/* --- products ------------------------------------------------------------------------------------*/

/* A part that has not the weight's inputs, or has outputs past its own: an error of the pass. */
static void misfit(const char *name, uint32_t col, uint32_t k, int want)
{
	static const float w[(N + 8) * K];
	const struct wk_weight_part wp = {w, WK_F32, N + 8};
	const struct wk_segment seg = {0, 8, 0};
	uint64_t piece = 0;
	struct wk_lora_part part = {
		.site = 1, .col = col, .n = N, .k = k, .rank = 16, .scale = 1, .pieces = &piece};
	struct wk_weight *weight;
	struct wk_lora *lora;
	struct wk_buf *pool, *x, *y;
	size_t block;
	struct kt t;

	if (!kt_open(&t, name, NULL, 1))
		bail_out("no backend");
	pool = make_pool(&t, &block);
	x = kt_x(&t, NULL, 8 * 64);
	y = kt_floats(&t, NULL, 8 * 64);
	if (t.ops->weight_new(t.be, &wp, 1, K, WK_PACK_PLAIN, &weight) < 0 ||
	    t.ops->lora_new(t.be, &part, 1, &lora) < 0 || set(&t, &seg, 1, 1, lora) < 0)
		bail_out(t.ops->last_error(t.be));
	t.ops->matmul(t.be, &(struct wk_matmul){.w = weight,
						.x = x,
						.out = y,
						.n_rows = 8,
						.x_stride = 64,
						.out_stride = 64,
						.scale = 1,
						.site = 1});
	is_int(t.ops->wait(t.be, t.ops->record(t.be)), want,
	       "%s: outputs from %u, %u inputs, in a weight of %u x %u", t.label, col, k, N + 8, K);
	t.ops->lora_free(t.be, lora);
	t.ops->weight_free(t.be, weight);
	kt_free(&t, pool);
	kt_free(&t, x);
	kt_free(&t, y);
	kt_close(&t);
}

/* --- blocks --------------------------------------------------------------------------------------*/

/* Blocks as large as asked for, and zeroed and copied at that size. */
static void blocks(struct kt *t)
{
	struct wk_kv_shape shape = {2, 1, 20, 0};
	size_t own = t->ops->kv_block_bytes(t->be, &shape), bytes, kept = 0;
	uint32_t one = 1;
	struct wk_buf *pool;
	char *host;

	shape.min_block_bytes = (uint32_t)own - 1;
	ok(t->ops->kv_block_bytes(t->be, &shape) == own, "%s: smaller than KV needs is no matter",
	   t->label);
	shape.min_block_bytes = (uint32_t)own + 1;
	bytes = t->ops->kv_block_bytes(t->be, &shape);
	ok(bytes > own && bytes <= own + WK_POOL_ALIGN && bytes % WK_POOL_ALIGN == 0,
	   "%s: a block as large as a piece, aligned", t->label);
	if (t->ops->buf_new(t->be, 3 * bytes, &pool) < 0)
		bail_out("no pool");
	is_int(t->ops->kv_bind(t->be, &shape, pool, 4), -EINVAL, "%s: four blocks do not fit",
	       t->label);
	is_int(t->ops->kv_bind(t->be, &shape, pool, 3), 0, "%s: three do", t->label);
	host = kt_alloc(3, bytes);
	kt_fill_bytes(t, pool, 0xee, 3 * bytes);
	t->ops->kv_zero(t->be, pool, &one, 1);
	kt_read_bytes(t, pool, 0, host, 3 * bytes);
	for (size_t i = 0; i < 3 * bytes; i++)
		kept += i / bytes == 1 ? !host[i] : host[i] == (char)0xee;
	ok(kept == 3 * bytes, "%s: kv_zero zeroes a block and no more", t->label);
	t->ops->kv_copy_rows(t->be, pool, 0, 2, 16);
	kt_read_bytes(t, pool, 0, host, 3 * bytes);
	kept = 0;
	for (size_t i = 0; i < 2 * bytes; i++)
		kept += i / bytes == 1 ? !host[i] : host[i] == (char)0xee;
	ok(kept == 2 * bytes && host[2 * bytes] == (char)0xee,
	   "%s: kv_copy_rows writes its block and no other", t->label);
	free(host);
	kt_free(t, pool);
}

static void run(struct kt *t)
{
	packing(t);
	making(t);
	segments(t);
	blocks(t);
}

int main(void)
{
	const char *only = getenv("WEFT_TEST_BACKEND");
	const char *const names[] = {only ? only : "ref", "cpu"};

	kt_each(run);
	for (int i = 0; i < (only ? 1 : 2); i++) {
		misfit(names[i], 8, K, 0);
		misfit(names[i], 9, K, -EINVAL);
		misfit(names[i], 0, K - 1, -EINVAL);
	}
	return tap_done();
}
