/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attention.c - paged attention: dividing a batch into tiles, and tiles among threads.
 *
 * A tile is a KV head of a sequence and as many of its rows as fill WK_ATTN_ROWS (times the query
 * heads that share the KV head); a decode row is a tile by itself. A thread takes a tile through
 * all its cuts. When there are too few tiles to go round (decode of one sequence), each (tile, cut)
 * is a piece of work of its own, its partial goes to memory, and a second round folds them. The
 * same partials are folded in the same order either way, so the division never shows in the bits.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "kernels/cpu/attention.h"

#define TILES_PER_THREAD 4u		    /* enough that no cut needs to be split off */
#define PARTIALS_MAX	 ((size_t)16 << 20) /* bytes; beyond that tiles stay whole */

struct wk_attn_tile {
	const struct wk_seq *seq;
	uint32_t kv_head;
	uint32_t head, n_heads; /* query heads */
	uint32_t row, n_pos;	/* of the sequence */
	uint32_t cut0, n_cuts;	/* cuts that its rows attend to */
	uint32_t item;		/* split: its first (tile, cut) */
	size_t partial;		/* split: its first float in state->partials */
};

struct job {
	struct wk_backend *be;
	const struct wk_attention *op;
	const struct wk_attn_tile *tiles;
	uint32_t n_tiles;
	float *partials;
};

/* A thread's scratch, carved. */
struct work {
	void *q, *p;
	float *s, *o, *o_cut;
	float m[WK_ATTN_ROWS], l[WK_ATTN_ROWS], m_cut[WK_ATTN_ROWS], l_cut[WK_ATTN_ROWS];
};

struct wk_attn_state *wk_attn_state_get(struct wk_backend *be)
{
	struct wk_attn_state *st = be->attn_state;

	if (st)
		return st;
	st = calloc(1, sizeof(*st));
	if (st)
		st->sample = calloc(be->n_threads, sizeof(*st->sample));
	if (!st || !st->sample) {
		free(st);
		wk_cpu_stick(be, ENOMEM, "no memory for attention");
		return NULL;
	}
	be->attn_state = st;
	return st;
}

void wk_cpu_attn_fini(struct wk_backend *be)
{
	struct wk_attn_state *st = be->attn_state;

	if (!st)
		return;
	for (uint32_t i = 0; i < be->n_threads; i++)
		wk_sample_scratch_fini(&st->sample[i]);
	free(st->sample);
	wk_cpu_release(st->tiles, st->tiles_bytes);
	wk_cpu_release(st->angles, st->angles_bytes);
	wk_cpu_release(st->partials, st->partials_bytes);
	free(st);
	be->attn_state = NULL;
}

void *wk_attn_room(struct wk_backend *be, void *p, size_t *have, size_t bytes)
{
	if (bytes <= *have)
		return p;
	wk_cpu_release(p, *have);
	p = wk_cpu_alloc(bytes);
	*have = p ? bytes : 0;
	if (!p)
		wk_cpu_stick(be, ENOMEM, "no memory for attention: %zu bytes", bytes);
	return p;
}

/* --- tiles ---------------------------------------------------------------------------------------*/

/* Positions of a tile: as many as fit, and if possible so that rows are a multiple of 6. */
static uint32_t tile_positions(uint32_t heads)
{
	uint32_t fit = WK_ATTN_ROWS / heads, step = 1;

	while (step * heads % 6)
		step++;
	return fit > step ? fit / step * step : fit;
}

static uint32_t first_key(const struct wk_attention *op, uint32_t pos)
{
	return op->window && pos + 1 > op->window ? pos + 1 - op->window : 0;
}

static uint32_t min_u32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* Tiles of one sequence, appended at t; gives how many. */
static uint32_t seq_tiles(const struct wk_backend *be, const struct wk_attention *op,
			  const struct wk_seq *seq, struct wk_attn_tile *t)
{
	uint32_t group = op->n_heads / be->kv.n_kv_heads, n = 0;
	uint32_t heads = min_u32(group, WK_ATTN_ROWS), step = tile_positions(heads);
	/* The last rows attend to the most keys: begin with them, so that no thread ends late. */
	uint32_t last = (seq->n_rows - 1) / step * step;

	for (uint32_t row = last;; row -= step) {
		uint32_t n_pos = min_u32(step, seq->n_rows - row), pos = seq->pos + row;
		uint32_t cut0 = first_key(op, pos) / WK_ATTN_CUT;
		uint32_t cuts = (pos + n_pos - 1) / WK_ATTN_CUT + 1 - cut0;

		for (uint32_t kvh = 0; kvh < be->kv.n_kv_heads; kvh++)
			for (uint32_t h = 0; h < group; h += heads, n++)
				t[n] = (struct wk_attn_tile){
					.seq = seq,
					.kv_head = kvh,
					.head = kvh * group + h,
					.n_heads = min_u32(heads, group - h),
					.row = row,
					.n_pos = n_pos,
					.cut0 = cut0,
					.n_cuts = cuts,
				};
		if (!row)
			return n;
	}
}

static uint32_t make_tiles(struct wk_backend *be, const struct wk_attention *op)
{
	struct wk_attn_state *st = be->attn_state;
	uint32_t n = 0;

	/* No row of a head is in two tiles. */
	st->tiles = wk_attn_room(be, st->tiles, &st->tiles_bytes,
				 (size_t)WK_MAX_ROWS * op->n_heads * sizeof(*st->tiles));
	if (!st->tiles)
		return 0;
	for (uint32_t i = 0; i < be->batch.n_seqs; i++)
		n += seq_tiles(be, op, &be->batch.seqs[i], st->tiles + n);
	return n;
}

static uint32_t tile_rows(const struct wk_attn_tile *t)
{
	return t->n_pos * t->n_heads;
}

/* --- one tile ------------------------------------------------------------------------------------*/

static void carve(struct wk_backend *be, uint32_t thread, struct work *w)
{
	char *at = wk_pool_scratch(be->pool, thread);
	size_t tile = WK_ATTN_ROWS * WK_ATTN_CUT * sizeof(float);

	_Static_assert(WK_HEAD_DIM_MAX <= WK_ATTN_CUT, "q and o are no wider than s");
	_Static_assert(5 * WK_ATTN_ROWS * WK_ATTN_CUT * sizeof(float) <= WK_SCRATCH_BYTES,
		       "scratch of a thread");
	w->q = at;
	w->p = at + tile;
	w->s = (float *)(at + 2 * tile);
	w->o = (float *)(at + 3 * tile);
	w->o_cut = (float *)(at + 4 * tile);
}

/* Row r of a tile is position r / n_heads, head r % n_heads. */
static void pack_q(const struct job *job, const struct wk_attn_tile *t, void *dst)
{
	const struct wk_attention *op = job->op;
	const struct wk_cpu_attn_kernels *k = job->be->attn;
	uint32_t dim = job->be->kv.head_dim;

	for (uint32_t r = 0; r < tile_rows(t); r++) {
		uint32_t row = t->seq->row + t->row + r / t->n_heads;
		const uint16_t *q = (const uint16_t *)op->q->host + (size_t)row * op->q_stride +
				    (t->head + r % t->n_heads) * dim;

		k->pack_q((char *)dst + (size_t)r * WK_HEAD_DIM_MAX * k->elem_bytes, q, dim);
	}
}

/* The part of [from, to) that lies in a cut, relative to it; lo >= hi where none does. */
static void clip(uint32_t from, uint32_t to, uint32_t cut, uint16_t *lo, uint16_t *hi)
{
	uint32_t base = cut * WK_ATTN_CUT;

	*lo = from <= base ? 0 : min_u32(from - base, WK_ATTN_CUT);
	*hi = to <= base ? 0 : min_u32(to - base, WK_ATTN_CUT);
}

/* K of a tile's head in the blocks of a cut; past the last block that it reads, the last. */
static void find_cut(const struct job *job, const struct wk_attn_tile *t, uint32_t cut,
		     const char **ret)
{
	const struct wk_backend *be = job->be;
	const uint32_t *table = be->batch.block_table + t->seq->table;
	const char *first = wk_kv_head(be, job->op->pool, 0, job->op->layer, t->kv_head);
	size_t step = be->kv_block_bytes;
	uint32_t last = (t->seq->pos + t->row + t->n_pos - 1) / WK_BLOCK_TOKENS;
	uint32_t base = cut * WK_CUT_BLOCKS;

	for (uint32_t b = 0; b < WK_CUT_BLOCKS; b++)
		ret[b] = first + table[min_u32(base + b, last)] * step;
}

/* The same of what this thread will likely read next: the tile's next cut, or the next tile's first. */
static void find_next(const struct job *job, const struct wk_attn_tile *t, uint32_t cut,
		      const char **ret)
{
	if (++cut == t->cut0 + t->n_cuts && t + 1 < job->tiles + job->n_tiles) {
		t++;
		cut = t->cut0;
	}
	find_cut(job, t, cut, ret);
}

/* All that does not change from cut to cut. */
static void begin_cuts(const struct job *job, const struct wk_attn_tile *t, const struct work *w,
		       struct wk_attn_cut *c)
{
	const struct wk_backend *be = job->be;

	c->v_off = wk_kv_k_bytes(&be->kv);
	c->dim = be->kv.head_dim;
	c->dim_pad = wk_dim_pad(c->dim);
	c->n_rows = tile_rows(t);
	c->scale = job->op->scale * (float)M_LOG2E;
	c->q = w->q;
	c->p = w->p;
	c->s = w->s;
}

/* c->kv and c->next are set. */
static void run_cut(const struct job *job, const struct wk_attn_tile *t, uint32_t cut,
		    struct wk_attn_cut *c, float *m, float *l, float *o)
{
	const struct wk_attention *op = job->op;

	c->m = m;
	c->l = l;
	c->o = o;
	for (uint32_t r = 0; r < c->n_rows; r++) {
		uint32_t pos = t->seq->pos + t->row + r / t->n_heads;

		clip(first_key(op, pos), pos + 1, cut, &c->lo[r], &c->hi[r]);
	}
	job->be->attn->cut(c);
	/* A row without a key here is left out of the fold: its l says so. */
	for (uint32_t r = 0; r < c->n_rows; r++)
		if (c->lo[r] >= c->hi[r]) {
			m[r] = -INFINITY;
			l[r] = 0;
		}
}

static void fold_rows(const struct job *job, const struct wk_attn_tile *t, struct work *w,
		      const float *m, const float *l, const float *o)
{
	uint32_t pad = wk_dim_pad(job->be->kv.head_dim);

	/* A partial's l is at least about 1, or NaN; exactly 0 is a row without keys. */
	for (uint32_t r = 0; r < tile_rows(t); r++)
		if (l[r] != 0)
			job->be->attn->fold(&w->m[r], &w->l[r], w->o + (size_t)r * pad, m[r], l[r],
					    o + (size_t)r * pad, pad);
}

static void fold_init(const struct job *job, const struct wk_attn_tile *t, struct work *w)
{
	uint32_t pad = wk_dim_pad(job->be->kv.head_dim);

	for (uint32_t r = 0; r < tile_rows(t); r++) {
		w->m[r] = -INFINITY;
		w->l[r] = 0;
	}
	memset(w->o, 0, (size_t)tile_rows(t) * pad * sizeof(float));
}

static void finish(const struct job *job, const struct wk_attn_tile *t, const struct work *w)
{
	const struct wk_attention *op = job->op;
	uint32_t dim = job->be->kv.head_dim, pad = wk_dim_pad(dim);

	for (uint32_t r = 0; r < tile_rows(t); r++) {
		uint32_t row = t->seq->row + t->row + r / t->n_heads;
		uint16_t *x = (uint16_t *)op->x->host + (size_t)row * op->x_stride +
			      (t->head + r % t->n_heads) * dim;

		job->be->attn->finish(x, w->o + (size_t)r * pad, w->l[r], dim);
	}
}

static void run_tile(void *arg, uint32_t chunk, uint32_t thread)
{
	const struct job *job = arg;
	const struct wk_attn_tile *t = &job->tiles[chunk];
	struct wk_attn_cut c;
	struct work w;

	carve(job->be, thread, &w);
	pack_q(job, t, w.q);
	fold_init(job, t, &w);
	begin_cuts(job, t, &w, &c);
	find_cut(job, t, t->cut0, c.next);
	for (uint32_t i = 0; i < t->n_cuts; i++) {
		memcpy(c.kv, c.next, sizeof(c.kv));
		find_next(job, t, t->cut0 + i, c.next);
		run_cut(job, t, t->cut0 + i, &c, w.m_cut, w.l_cut, w.o_cut);
		fold_rows(job, t, &w, w.m_cut, w.l_cut, w.o_cut);
	}
	finish(job, t, &w);
}

/* --- split among cuts ----------------------------------------------------------------------------*/

/* Floats of a partial of a tile: m, l (each WK_ATTN_ROWS) and o. */
static size_t partial_floats(const struct job *job, const struct wk_attn_tile *t)
{
	return 2 * WK_ATTN_ROWS + (size_t)tile_rows(t) * wk_dim_pad(job->be->kv.head_dim);
}

static void run_item(void *arg, uint32_t chunk, uint32_t thread)
{
	const struct job *job = arg;
	const struct wk_attn_tile *t = job->tiles;
	struct wk_attn_cut c;
	struct work w;
	float *part;
	uint32_t cut;

	while (t + 1 < job->tiles + job->n_tiles && t[1].item <= chunk)
		t++;
	part = job->partials + t->partial + (chunk - t->item) * partial_floats(job, t);
	carve(job->be, thread, &w);
	pack_q(job, t, w.q);
	cut = t->cut0 + chunk - t->item;
	begin_cuts(job, t, &w, &c);
	find_cut(job, t, cut, c.kv);
	find_next(job, t, cut, c.next);
	run_cut(job, t, cut, &c, part, part + WK_ATTN_ROWS, part + 2 * WK_ATTN_ROWS);
}

static void run_fold(void *arg, uint32_t chunk, uint32_t thread)
{
	const struct job *job = arg;
	const struct wk_attn_tile *t = &job->tiles[chunk];
	struct work w;

	carve(job->be, thread, &w);
	fold_init(job, t, &w);
	for (uint32_t i = 0; i < t->n_cuts; i++) {
		const float *part = job->partials + t->partial + i * partial_floats(job, t);

		fold_rows(job, t, &w, part, part + WK_ATTN_ROWS, part + 2 * WK_ATTN_ROWS);
	}
	finish(job, t, &w);
}

/* Lays out the partials; false if splitting would win nothing or take too much memory. */
static bool plan_split(struct job *job, struct wk_attn_tile *tiles, uint32_t *ret_items)
{
	struct wk_attn_state *st = job->be->attn_state;
	uint32_t items = 0;
	size_t floats = 0;

	if (job->be->n_threads == 1)
		return false;
	st->partials = wk_attn_room(job->be, st->partials, &st->partials_bytes, PARTIALS_MAX);
	if (!st->partials || job->n_tiles >= TILES_PER_THREAD * job->be->n_threads)
		return false;
	for (uint32_t i = 0; i < job->n_tiles; i++) {
		tiles[i].item = items;
		tiles[i].partial = floats;
		items += tiles[i].n_cuts;
		floats += tiles[i].n_cuts * partial_floats(job, &tiles[i]);
	}
	if (items == job->n_tiles || floats * sizeof(float) > PARTIALS_MAX)
		return false;
	job->partials = st->partials;
	*ret_items = items;
	return true;
}

void wk_cpu_attention(struct wk_backend *be, const struct wk_attention *op)
{
	struct wk_attn_state *st = wk_attn_state_get(be);
	struct job job = {.be = be, .op = op};
	uint32_t items;

	if (!st || be->sticky)
		return;
	if (!be->kv_blocks || !op->n_heads || op->n_heads % be->kv.n_kv_heads ||
	    op->layer >= be->kv.n_layers) {
		wk_cpu_stick(be, EINVAL, "attention: %u heads, layer %u do not fit the KV shape",
			     op->n_heads, op->layer);
		return;
	}
	job.n_tiles = make_tiles(be, op);
	job.tiles = st->tiles;
	if (!job.n_tiles)
		return;
	if (plan_split(&job, st->tiles, &items)) {
		wk_pool_run(be->pool, run_item, &job, items);
		wk_pool_run(be->pool, run_fold, &job, job.n_tiles);
		return;
	}
	if (!be->sticky)
		wk_pool_run(be->pool, run_tile, &job, job.n_tiles);
}
