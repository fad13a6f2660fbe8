/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_copies.c - whole blocks from the pool to the host and back, on every backend: byte for byte, in
 * any number and order; what is refused; tickets; and the order against what is queued before and after.
 *
 * What a block must hold is known from the bytes that were written to the pool, or read from it by
 * buf_read, which has nothing to do with these copies. A backend that runs late (tests/cuda) shows an
 * order that is not kept.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/kt.h"
#include "tests/tap.h"

#define N_BLOCKS 13u
#define LAYERS	 2u
#define KV_HEADS 2u
#define HEADS	 4u
#define DIM	 20u
#define WIDTH	 ((HEADS + 2 * KV_HEADS) * DIM)
#define ROWS	 21u /* two blocks */

struct rig {
	struct kt *t;
	struct wk_buf *pool;
	size_t bytes;		  /* of a block */
	unsigned char *want;	  /* [N_BLOCKS][bytes]: what the pool holds */
	unsigned char *host;	  /* [N_BLOCKS][bytes]: for copies */
	uint32_t order[N_BLOCKS]; /* blocks, shuffled */
};

static unsigned char *place(const struct rig *r, uint32_t i)
{
	return r->host + i * r->bytes;
}

static unsigned char *wanted(const struct rig *r, uint32_t block)
{
	return r->want + block * r->bytes;
}

static bool is_filled(const unsigned char *p, int v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] != v)
			return false;
	return true;
}

/* New contents of the pool; the host's places are full of 0xcc. */
static void fresh(struct rig *r)
{
	for (size_t i = 0; i < N_BLOCKS * r->bytes; i++)
		r->want[i] = (unsigned char)kt_random(256);
	kt_write_bytes(r->t, r->pool, 0, r->want, N_BLOCKS * r->bytes);
	memset(r->host, 0xcc, N_BLOCKS * r->bytes);
	for (uint32_t i = 0; i < N_BLOCKS; i++)
		r->order[i] = i;
	for (uint32_t i = N_BLOCKS - 1; i; i--) {
		uint32_t k = kt_random(i + 1), at = r->order[i];

		r->order[i] = r->order[k];
		r->order[k] = at;
	}
}

static bool pool_is_wanted(const struct rig *r)
{
	unsigned char *now = kt_alloc(N_BLOCKS, r->bytes);
	bool same;

	kt_read_bytes(r->t, r->pool, 0, now, N_BLOCKS * r->bytes);
	same = !memcmp(now, r->want, N_BLOCKS * r->bytes);
	free(now);
	return same;
}

static int copy_out(struct rig *r, const struct wk_block_copy *list, uint32_t n, uint64_t *ticket)
{
	return r->t->ops->kv_copy_out(r->t->be, r->pool, list, n, ticket);
}

static int copy_in(struct rig *r, const struct wk_block_copy *list, uint32_t n, uint64_t *ticket)
{
	return r->t->ops->kv_copy_in(r->t->be, r->pool, list, n, ticket);
}

static void finish(struct rig *r, uint64_t ticket)
{
	if (r->t->ops->copy_wait(r->t->be, ticket))
		bail_out(r->t->ops->last_error(r->t->be));
}

/* A copy that must be taken, and waited for. */
static void out_now(struct rig *r, const struct wk_block_copy *list, uint32_t n)
{
	uint64_t ticket = 0;

	if (copy_out(r, list, n, &ticket))
		bail_out(r->t->ops->last_error(r->t->be));
	finish(r, ticket);
}

/* --- bytes -------------------------------------------------------------------------------------------*/

/* n blocks, all over the pool and all over the host's memory; nothing else is touched. */
static void scattered(struct rig *r, uint32_t n)
{
	struct wk_block_copy list[N_BLOCKS];
	uint32_t block_at[N_BLOCKS];
	bool right = true;

	fresh(r);
	memset(block_at, 0xff, sizeof(block_at));
	for (uint32_t i = 0; i < n; i++) {
		uint32_t at = (i * 5 + 3) % N_BLOCKS;

		list[i] = (struct wk_block_copy){r->order[i], place(r, at)};
		block_at[at] = r->order[i];
	}
	out_now(r, list, n);
	for (uint32_t at = 0; at < N_BLOCKS; at++)
		right &= block_at[at] == UINT32_MAX
				 ? is_filled(place(r, at), 0xcc, r->bytes)
				 : !memcmp(place(r, at), wanted(r, block_at[at]), r->bytes);
	ok(right && pool_is_wanted(r), "%s: %u scattered blocks to the host", r->t->label, n);
}

static void scattered_in(struct rig *r, uint32_t n)
{
	struct wk_block_copy list[N_BLOCKS];
	uint64_t ticket = 0;
	int rc;

	fresh(r);
	for (size_t i = 0; i < N_BLOCKS * r->bytes; i++)
		r->host[i] = (unsigned char)kt_random(256);
	for (uint32_t i = 0; i < n; i++) {
		list[i] = (struct wk_block_copy){r->order[i], place(r, (i * 5 + 3) % N_BLOCKS)};
		memcpy(wanted(r, r->order[i]), list[i].host, r->bytes);
	}
	rc = copy_in(r, list, n, &ticket);
	finish(r, ticket);
	ok(!rc && pool_is_wanted(r), "%s: %u scattered blocks to the pool", r->t->label, n);
}

/* Blocks that follow one another, with one between them that follows only in the pool or in memory. */
static void runs(struct rig *r)
{
	static const uint32_t blocks[] = {2, 3, 4, 6, 7, 8, 1, 0},
			      at[] = {5, 6, 7, 8, 10, 11, 0, 1};
	struct wk_block_copy list[8];
	uint64_t ticket = 0;
	bool right = true;

	fresh(r);
	for (uint32_t i = 0; i < 8; i++)
		list[i] = (struct wk_block_copy){blocks[i], place(r, at[i])};
	out_now(r, list, 8);
	for (uint32_t i = 0; i < 8; i++)
		right &= !memcmp(place(r, at[i]), wanted(r, blocks[i]), r->bytes);
	ok(right && is_filled(place(r, 2), 0xcc, 3 * r->bytes) &&
		   is_filled(place(r, 9), 0xcc, r->bytes) &&
		   is_filled(place(r, 12), 0xcc, r->bytes),
	   "%s: runs of blocks to the host", r->t->label);
	for (uint32_t i = 0; i < 8; i++) {
		memset(place(r, at[i]), (int)(i + 1), r->bytes);
		memset(wanted(r, blocks[i]), (int)(i + 1), r->bytes);
	}
	right = !copy_in(r, list, 8, &ticket);
	finish(r, ticket);
	ok(right && pool_is_wanted(r), "%s: runs of blocks to the pool", r->t->label);
}

static void twice(struct rig *r)
{
	const struct wk_block_copy same[] = {{7, place(r, 1)}, {7, place(r, 4)}, {2, place(r, 9)}};
	const struct wk_block_copy again = {7, place(r, 11)};
	uint64_t first = 0, second = 0;
	int rc;

	fresh(r);
	rc = copy_out(r, same, 3, &first);
	rc = rc ? rc : copy_out(r, &again, 1, &second);
	finish(r, second);
	ok(!rc && first < second && r->t->ops->copy_query(r->t->be, first) == 1,
	   "%s: a block is in two calls at once, and the first is done before the second",
	   r->t->label);
	ok(!memcmp(place(r, 1), wanted(r, 7), r->bytes) &&
		   !memcmp(place(r, 4), wanted(r, 7), r->bytes) &&
		   !memcmp(place(r, 9), wanted(r, 2), r->bytes) &&
		   !memcmp(place(r, 11), wanted(r, 7), r->bytes),
	   "%s: one block to two places of a call, and to one of another", r->t->label);
}

/* --- what is refused, and tickets ----------------------------------------------------------------------*/

static bool refused(struct rig *r, const struct wk_buf *pool, const struct wk_block_copy *list,
		    uint32_t n)
{
	const struct wk_ops *ops = r->t->ops;
	uint64_t ticket = 77;
	int out = ops->kv_copy_out(r->t->be, pool, list, n, &ticket);
	int in = ops->kv_copy_in(r->t->be, (struct wk_buf *)(uintptr_t)pool, list, n, &ticket);

	return out == -EINVAL && in == -EINVAL && ticket == 77;
}

static void refusals(struct rig *r)
{
	struct wk_block_copy list[3] = {{1, place(r, 0)}, {2, place(r, 1)}, {3, place(r, 2)}};
	const struct wk_ops *ops = r->t->ops;
	struct wk_buf *other = kt_floats(r->t, NULL, N_BLOCKS * r->bytes / 4);
	uint64_t ticket = 0;

	fresh(r);
	list[2].block = N_BLOCKS;
	ok(refused(r, r->pool, list, 3) && strstr(ops->last_error(r->t->be), "13"),
	   "%s: a block past the pool's end: %s", r->t->label, ops->last_error(r->t->be));
	list[2].block = UINT32_MAX;
	ok(refused(r, r->pool, list, 3), "%s: a block far past it", r->t->label);
	list[2].block = 3;
	ok(refused(r, other, list, 3), "%s: another buffer: %s", r->t->label,
	   ops->last_error(r->t->be));
	kt_free(r->t, other);
	kt_sync(r->t);
	ok(is_filled(r->host, 0xcc, N_BLOCKS * r->bytes) && pool_is_wanted(r),
	   "%s: and nothing of these was copied", r->t->label);
	ok(!copy_out(r, list, 3, &ticket) && !ops->copy_wait(r->t->be, ticket) &&
		   !memcmp(place(r, 2), wanted(r, 3), r->bytes),
	   "%s: nor does a refusal stay", r->t->label);
}

static void tickets(struct rig *r)
{
	const struct wk_block_copy one = {4, place(r, 3)};
	const struct wk_ops *ops = r->t->ops;
	uint64_t ticket = 0, none = 0;
	int rc, asked = 0;

	fresh(r);
	rc = copy_out(r, NULL, 0, &none);
	ok(!rc && !copy_in(r, NULL, 0, &none) && !ops->copy_wait(r->t->be, none) &&
		   ops->copy_query(r->t->be, none) == 1,
	   "%s: no blocks are no work", r->t->label);
	rc = copy_out(r, &one, 1, &ticket);
	while (!rc && !(rc = ops->copy_query(r->t->be, ticket)))
		asked++;
	ok(rc == 1 && !memcmp(place(r, 3), wanted(r, 4), r->bytes) &&
		   ops->copy_query(r->t->be, ticket) == 1 && !ops->copy_wait(r->t->be, ticket),
	   "%s: a ticket that is asked for is done in the end (%d times not yet)", r->t->label,
	   asked);
	ok(ops->copy_query(r->t->be, ticket + 1) == -EINVAL &&
		   ops->copy_wait(r->t->be, ticket + 1) == -EINVAL && !copy_out(r, &one, 1, &none),
	   "%s: a ticket that was never given out is refused", r->t->label);
	finish(r, none);
}

/* More calls than may be under way: each one is done, or said not to be, and then taken. */
static void many(struct rig *r)
{
	enum { calls = 3 * WK_MAX_COPIES };
	static uint64_t given[calls];
	uint32_t oldest = 0;
	int rc = 0;

	fresh(r);
	for (uint32_t i = 0; !rc && i < calls; i++) {
		struct wk_block_copy list[2] = {{i % N_BLOCKS, place(r, i % N_BLOCKS)},
						{(i + 6) % N_BLOCKS, place(r, (i + 6) % N_BLOCKS)}};

		while ((rc = copy_out(r, list, 1 + i % 2, &given[i])) == -EAGAIN && oldest < i)
			finish(r, given[oldest++]);
		rc = rc ? rc : i && given[i] <= given[i - 1];
	}
	finish(r, given[calls - 1]);
	ok(!rc && !memcmp(r->host, r->want, N_BLOCKS * r->bytes),
	   "%s: %d calls in a row, and their tickets ascend", r->t->label, calls);
}

/* --- order -------------------------------------------------------------------------------------------*/

/* Copies among themselves: out of one block, into another, out of that one again. */
static void among(struct rig *r)
{
	const struct wk_block_copy out = {5, place(r, 0)}, in = {9, place(r, 0)},
				   back = {9, place(r, 1)};
	uint64_t ticket = 0;
	int rc;

	fresh(r);
	rc = copy_out(r, &out, 1, &ticket);
	rc = rc ? rc : copy_in(r, &in, 1, &ticket);
	rc = rc ? rc : copy_out(r, &back, 1, &ticket);
	finish(r, ticket);
	ok(!rc && !memcmp(place(r, 1), wanted(r, 5), r->bytes),
	   "%s: copies are done in the order of their calls", r->t->label);
}

static void after_zero(struct rig *r)
{
	const uint32_t zero[] = {3, 8};
	const struct wk_block_copy list[] = {{8, place(r, 0)}, {4, place(r, 1)}, {3, place(r, 2)}};
	uint64_t ticket = 0;

	fresh(r);
	r->t->ops->kv_zero(r->t->be, r->pool, zero, 2);
	if (copy_out(r, list, 3, &ticket))
		bail_out(r->t->ops->last_error(r->t->be));
	finish(r, ticket);
	ok(is_filled(place(r, 0), 0, r->bytes) && is_filled(place(r, 2), 0, r->bytes) &&
		   !memcmp(place(r, 1), wanted(r, 4), r->bytes),
	   "%s: a copy out sees the zeroing before it", r->t->label);
	r->t->ops->kv_zero(r->t->be, r->pool, (const uint32_t[]){4}, 1);
	kt_sync(r->t);
	ok(!memcmp(place(r, 1), wanted(r, 4), r->bytes),
	   "%s: once its ticket is done, what happens to the block is nothing to it", r->t->label);
}

/* What is queued before a copy in still reads the old block, what is queued after it the new one. */
static void around_in(struct rig *r)
{
	const struct wk_block_copy in = {6, place(r, 0)};
	const struct wk_ops *ops = r->t->ops;
	unsigned char *now = kt_alloc(N_BLOCKS, r->bytes);
	uint64_t ticket = 0;

	fresh(r);
	/* What copying all rows of a block gives, by blocks that are done with. */
	ops->kv_copy_rows(r->t->be, r->pool, 1, 11, WK_BLOCK_TOKENS);
	ops->kv_copy_rows(r->t->be, r->pool, 6, 12, WK_BLOCK_TOKENS);
	kt_read_bytes(r->t, r->pool, 0, now, N_BLOCKS * r->bytes);
	memcpy(wanted(r, 1), now + 11 * r->bytes, r->bytes);
	memcpy(wanted(r, 6), now + 12 * r->bytes, r->bytes);

	memcpy(place(r, 0), wanted(r, 1), r->bytes);
	ops->kv_copy_rows(r->t->be, r->pool, 6, 2, WK_BLOCK_TOKENS);
	if (copy_in(r, &in, 1, &ticket))
		bail_out(ops->last_error(r->t->be));
	ops->kv_copy_rows(r->t->be, r->pool, 6, 3, WK_BLOCK_TOKENS);
	/* First the copy, then the rest: on a late backend each goes only as far as it must. */
	finish(r, ticket);
	kt_read_bytes(r->t, r->pool, 0, now, N_BLOCKS * r->bytes);
	ok(!memcmp(now + 2 * r->bytes, wanted(r, 6), r->bytes),
	   "%s: a copy in waits for those that read the block before it", r->t->label);
	ok(!memcmp(now + 3 * r->bytes, wanted(r, 1), r->bytes),
	   "%s: and is seen by those that come after it", r->t->label);
	free(now);
}

/* Nobody waits for the copy: the next operation must see it all the same. */
static void in_then_read(struct rig *r)
{
	const struct wk_block_copy in = {10, place(r, 2)};
	uint64_t ticket = 0;

	fresh(r);
	memset(place(r, 2), 0x3c, r->bytes);
	memset(wanted(r, 10), 0x3c, r->bytes);
	if (copy_in(r, &in, 1, &ticket))
		bail_out(r->t->ops->last_error(r->t->be));
	ok(pool_is_wanted(r), "%s: a read sees the copy in before it", r->t->label);
	finish(r, ticket);
}

/* --- with attention ------------------------------------------------------------------------------------*/

struct layer {
	struct wk_buf *y, *q, *x, *freq;
};

static void open_step(struct rig *r, const uint32_t table[2])
{
	static const uint32_t tokens[ROWS];
	const struct wk_seq seq = {0, ROWS, 0, 0};
	const struct wk_batch b = {.n_rows = ROWS,
				   .n_seqs = 1,
				   .n_table = 2,
				   .tokens = tokens,
				   .seqs = &seq,
				   .block_table = table};

	if (r->t->ops->batch_set(r->t->be, &b))
		bail_out(r->t->ops->last_error(r->t->be));
}

static void append(struct rig *r, const struct layer *l)
{
	for (uint32_t layer = 0; layer < LAYERS; layer++)
		r->t->ops->rope_append(r->t->be, &(struct wk_rope_append){.y = l->y,
									  .q = l->q,
									  .pool = r->pool,
									  .inv_freq = l->freq,
									  .rope_scale = 1,
									  .layer = layer,
									  .n_heads = HEADS,
									  .y_stride = WIDTH,
									  .q_stride = HEADS * DIM});
}

static void attend(struct rig *r, const struct layer *l)
{
	r->t->ops->attention(r->t->be, &(struct wk_attention){.q = l->q,
							      .pool = r->pool,
							      .x = l->x,
							      .layer = 1,
							      .n_heads = HEADS,
							      .q_stride = HEADS * DIM,
							      .x_stride = HEADS * DIM,
							      .scale = 0.2f});
}

/* Keys and values go to the host within the step that makes them, come back into other blocks, and
 * attention over these gives the same bits: nobody waits in between. */
static void moved(struct rig *r)
{
	const uint32_t here[] = {9, 2}, there[] = {4, 7};
	const struct wk_block_copy out[] = {{9, place(r, 6)}, {2, place(r, 1)}};
	const struct wk_block_copy in[] = {{4, place(r, 6)}, {7, place(r, 1)}};
	enum { n = ROWS * HEADS * DIM };
	float f[DIM / 2] = {1, 0.5f, 0.25f}, first[n], second[n];
	float *y = kt_alloc(ROWS * WIDTH, sizeof(*y));
	unsigned char *now = kt_alloc(N_BLOCKS, r->bytes);
	struct layer l;
	uint64_t ticket = 0;
	int rc;

	fresh(r);
	kt_fill(y, ROWS * WIDTH, 1);
	l = (struct layer){kt_floats(r->t, y, ROWS * WIDTH), kt_x(r->t, NULL, n),
			   kt_x(r->t, NULL, n), kt_floats(r->t, f, DIM / 2)};
	r->t->ops->kv_zero(r->t->be, r->pool, here, 2);
	open_step(r, here);
	append(r, &l);
	rc = copy_out(r, out, 2, &ticket);
	attend(r, &l);
	finish(r, ticket);
	kt_read_x(r->t, l.x, first, n);
	kt_read_bytes(r->t, r->pool, 0, now, N_BLOCKS * r->bytes);
	ok(!rc && !memcmp(place(r, 6), now + 9 * r->bytes, r->bytes) &&
		   !memcmp(place(r, 1), now + 2 * r->bytes, r->bytes),
	   "%s: a copy within a step sees what the step has appended so far", r->t->label);

	r->t->ops->kv_zero(r->t->be, r->pool, here, 2);
	rc = copy_in(r, in, 2, &ticket);
	open_step(r, there);
	attend(r, &l);
	kt_read_x(r->t, l.x, second, n);
	ok(!rc && !memcmp(first, second, sizeof(first)) && first[0] != 0,
	   "%s: attention over blocks that came back is the same to the bit", r->t->label);
	finish(r, ticket);
	kt_free(r->t, l.y);
	kt_free(r->t, l.q);
	kt_free(r->t, l.x);
	kt_free(r->t, l.freq);
	free(y);
	free(now);
}

/* --- all of it -----------------------------------------------------------------------------------------*/

/* Memory and the pool go while copies are under way; whoever gives them back need not wait. */
static void left_alone(struct rig *r, void *host)
{
	const struct wk_block_copy list[] = {{1, host}, {5, (char *)host + r->bytes}};
	const struct wk_block_copy own = {3, place(r, 0)};
	uint64_t ticket = 0;
	int rc = copy_out(r, list, 2, &ticket);

	r->t->ops->host_free(r->t->be, host, 2 * r->bytes);
	r->t->ops->host_free(r->t->be, NULL, 0);
	rc = rc ? rc : copy_out(r, &own, 1, &ticket);
	kt_free(r->t, r->pool);
	ok(!rc && refused(r, r->pool, &own, 1) && !r->t->ops->copy_wait(r->t->be, ticket) &&
		   !memcmp(place(r, 0), wanted(r, 3), r->bytes),
	   "%s: memory is given back with copies under way", r->t->label);
}

static void run(struct kt *t)
{
	const struct wk_kv_shape shape = {LAYERS, KV_HEADS, DIM, 0};
	struct rig r = {.t = t};
	void *host, *brief;

	r.bytes = t->ops->kv_block_bytes(t->be, &shape);
	/* Large enough for a backend that maps its larger buffers. */
	if (t->ops->buf_new(t->be, N_BLOCKS * r.bytes + ((size_t)4 << 20), &r.pool) ||
	    t->ops->host_new(t->be, N_BLOCKS * r.bytes, &host) ||
	    t->ops->host_new(t->be, 2 * r.bytes, &brief) ||
	    t->ops->kv_bind(t->be, &shape, r.pool, N_BLOCKS))
		bail_out(t->ops->last_error(t->be));
	r.want = kt_alloc(N_BLOCKS, r.bytes);
	r.host = host;
	for (uint32_t n = 1; n <= N_BLOCKS; n += 4) {
		scattered(&r, n);
		scattered_in(&r, n);
	}
	runs(&r);
	twice(&r);
	refusals(&r);
	tickets(&r);
	many(&r);
	among(&r);
	after_zero(&r);
	around_in(&r);
	in_then_read(&r);
	moved(&r);
	fresh(&r);
	left_alone(&r, brief);
	t->ops->host_free(t->be, host, N_BLOCKS * r.bytes);
	free(r.want);
}

int main(void)
{
	kt_seed(41);
	kt_each(run);
	return tap_done();
}
