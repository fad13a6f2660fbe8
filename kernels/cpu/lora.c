/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lora.c - adapters on the CPU: packing of pieces, and what a matrix product does with them.
 *
 * lora.h has the layout and the plan. s of one row and rank is two chains of sums over K, even and
 * odd pairs, added at the end; then scaled and rounded. An output's sum is one chain over the ranks,
 * with which the product's own chain over K begins. Nothing in this depends on which other rows
 * there are, on how rows were cut into runs and groups, or on the thread.
 *
 * The pool's bytes belong to the engine. Plan, shrunk rows and sums belong to the backend; a unit
 * writes only its own runs' and its own part's, which are read when all units are done.
 */
#include "kernels/cpu/lora.h"

#include <errno.h>
#include <stdlib.h>

#define GROUP_RUNS 4u  /* A is read once for so many; a prefill still is many units */
#define EARLY_ROWS 64u /* up to here sums of all panels are made before the product */

/* --- pieces --------------------------------------------------------------------------------------*/

static size_t a_bytes(uint32_t k)
{
	return (size_t)((k + 1) / 2) * WK_LORA_CUT * 4;
}

size_t wk_cpu_lora_piece_bytes(const struct wk_backend *be, uint32_t n, uint32_t k)
{
	size_t halves = (n + WK_LORA_HALF - 1) / WK_LORA_HALF;

	(void)be;
	return a_bytes(k) + halves * WK_LORA_PAIRS * WK_LORA_HALF * 4;
}

static bool read_bf16(const void *data, enum wk_dtype dtype, size_t i, uint16_t *ret)
{
	*ret = wk_bf16_round(wk_lora_element(data, dtype, i));
	return (*ret & 0x7f80) != 0x7f80;
}

static int pack_a(const struct wk_lora_source *src, uint32_t first, uint32_t ranks, char *dst,
		  char ret_where[64])
{
	uint16_t v;

	for (uint32_t i = 0; i < ranks; i++)
		for (uint32_t c = 0; c < src->k; c++) {
			if (!read_bf16(src->a, src->a_dtype, (size_t)(first + i) * src->k + c, &v))
				return wk_lora_not_finite(ret_where, 'A', first + i, c);
			memcpy(dst + ((size_t)(c / 2) * WK_LORA_CUT + i) * 4 + c % 2 * 2, &v, 2);
		}
	return 0;
}

static int pack_b(const struct wk_lora_source *src, uint32_t first, uint32_t ranks, char *dst,
		  char ret_where[64])
{
	uint16_t v;

	for (uint32_t j = 0; j < src->n; j++)
		for (uint32_t i = 0; i < ranks; i++) {
			size_t pair = (size_t)(j / WK_LORA_HALF) * WK_LORA_PAIRS + i / 2;

			if (!read_bf16(src->b, src->b_dtype, (size_t)j * src->rank + first + i, &v))
				return wk_lora_not_finite(ret_where, 'B', j, first + i);
			memcpy(dst + (pair * WK_LORA_HALF + j % WK_LORA_HALF) * 4 + i % 2 * 2, &v,
			       2);
		}
	return 0;
}

int wk_cpu_lora_pack(const struct wk_backend *be, const struct wk_lora_source *src, uint32_t first,
		     void *dst, char ret_where[64])
{
	uint32_t ranks = src->rank - first < WK_LORA_CUT ? src->rank - first : WK_LORA_CUT;
	int err = wk_lora_source_check(src, first);

	if (err)
		return err;
	memset(dst, 0, wk_cpu_lora_piece_bytes(be, src->n, src->k));
	err = pack_a(src, first, ranks, dst, ret_where);
	return err ? err : pack_b(src, first, ranks, (char *)dst + a_bytes(src->k), ret_where);
}

/* --- room ----------------------------------------------------------------------------------------*/

/* Room for the sums of so many panels, in EARLY_ROWS rows; or none. */
static void reserve_sums(struct wk_backend *be, uint32_t panels)
{
	struct wk_lora_state *st = be->lora;
	size_t bytes = (size_t)panels * EARLY_ROWS * WK_CPU_PANEL * sizeof(float);

	if (bytes <= st->sums_bytes)
		return;
	wk_cpu_release(st->sums, st->sums_bytes);
	st->sums = wk_cpu_alloc(bytes);
	st->sums_bytes = st->sums ? bytes : 0;
}

/*
 * All that a step can need is taken when an adapter is made, so that no step waits for the kernel:
 * pages that are not touched cost nothing.
 */
static int reserve(struct wk_backend *be, const struct wk_lora *lora)
{
	size_t bytes =
		(size_t)WK_MAX_ROWS * lora->parts.max_cuts * WK_LORA_PAIRS * be->kern->x_pair_bytes;
	struct wk_lora_state *st = be->lora;
	char *s;

	if (!st)
		st = be->lora = calloc(1, sizeof(*st));
	if (!st)
		return -ENOMEM;
	reserve_sums(be, be->most_panels);
	if (bytes <= st->s_bytes)
		return 0;
	s = wk_cpu_alloc(bytes);
	if (!s)
		return -ENOMEM;
	wk_cpu_release(st->s, st->s_bytes);
	st->s = s;
	st->s_bytes = bytes;
	return 0;
}

/* --- adapters -------------------------------------------------------------------------------------*/

int wk_cpu_lora_new(struct wk_backend *be, const struct wk_lora_part *parts, uint32_t n_parts,
		    struct wk_lora **ret)
{
	struct wk_lora *lora;
	const char *why = NULL;
	int err;

	if (!be->pool_buf)
		return wk_cpu_fail(be, EINVAL, "an adapter before there is a pool");
	lora = calloc(1, sizeof(*lora));
	if (!lora)
		return wk_cpu_fail(be, ENOMEM, "no memory for an adapter");
	lora->pool = be->pool_buf;
	err = wk_lora_parts_init(&lora->parts, parts, n_parts, lora->pool->bytes, be,
				 wk_cpu_lora_piece_bytes, &why);
	if (!err)
		err = reserve(be, lora);
	if (err) {
		wk_cpu_lora_free(be, lora);
		return wk_cpu_fail(be, -err, "adapter: %s", why ? why : "out of memory");
	}
	*ret = lora;
	return 0;
}

void wk_cpu_lora_free(struct wk_backend *be, struct wk_lora *lora)
{
	(void)be;
	if (!lora)
		return;
	wk_lora_parts_fini(&lora->parts);
	free(lora);
}

void wk_lora_fini(struct wk_backend *be)
{
	if (be->lora) {
		wk_cpu_release(be->lora->s, be->lora->s_bytes);
		wk_cpu_release(be->lora->sums, be->lora->sums_bytes);
	}
	free(be->lora);
	be->lora = NULL;
}

/* --- the plan ------------------------------------------------------------------------------------*/

static bool part_fits(const struct wk_lora_part *p, const struct wk_weight *w)
{
	return p->k == w->k && p->col < w->n && p->n <= w->n - p->col;
}

/* What all runs of a segment have in common; false: the segment's adapter changes nothing here. */
static bool start_run(struct wk_backend *be, const struct wk_matmul *op,
		      const struct wk_segment *seg, struct wk_lora_run *run)
{
	run->lora = be->loras[seg->lora];
	run->parts = wk_lora_parts_of(&run->lora->parts, op->site, &run->n_parts);
	run->cuts = 0;
	for (uint32_t i = 0; i < run->n_parts; i++) {
		if (!part_fits(&run->parts[i], op->w)) {
			wk_cpu_stick(be, EINVAL,
				     "matmul: an adapter's part of site %u has outputs "
				     "or inputs that the weight has not",
				     op->site);
			return false;
		}
		run->cuts += wk_lora_cuts(run->parts[i].rank);
	}
	return run->cuts;
}

/* Its outputs are whole halves of panels, or go to the end of what there is. */
static bool part_even(const struct wk_lora_part *p, const struct wk_weight *w)
{
	uint32_t gates = w->gate_up ? w->n / 2 : 0, end = p->col + p->n;
	uint32_t col = p->col < gates ? p->col : p->col - gates;

	if (gates && (gates % WK_LORA_HALF || (p->col < gates && end > gates)))
		return false;
	return col % WK_LORA_HALF == 0 && (p->n % WK_LORA_HALF == 0 || end == w->n);
}

/* Whether there are outputs of these rows that no part covers in whole halves. */
static bool has_holes(const struct wk_lora_run *run, const struct wk_weight *w)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < run->n_parts; i++) {
		if (!part_even(&run->parts[i], w))
			return true;
		n += run->parts[i].n;
	}
	return n < w->n;
}

/* Rows that no adapter changes begin with zero. */
static void zero_rows(const struct wk_lora_plan *p, uint32_t from, uint32_t to)
{
	for (uint32_t panel = 0; p->sums && from < to && panel < p->op->w->panels; panel++)
		memset(wk_lora_sums(p, panel, from), 0,
		       (size_t)(to - from) * WK_CPU_PANEL * sizeof(float));
}

/* Cut a segment's rows, up to the product's last, along its tiles. */
static void add_segment(struct wk_backend *be, struct wk_lora_plan *p, const struct wk_segment *seg,
			char **s)
{
	uint32_t n_rows = p->op->n_rows, row = seg->row, end, tile, n = 0;
	struct wk_lora_run run;

	if (row >= n_rows || !start_run(be, p->op, seg, &run))
		return;
	end = seg->n_rows < n_rows - row ? row + seg->n_rows : n_rows;
	p->holes = p->holes || has_holes(&run, p->op->w);
	zero_rows(p, p->rows, row);
	p->rows = end;
	tile = (uint32_t)((uint64_t)row * p->tiles / n_rows);
	while (wk_tile_row(n_rows, p->tiles, tile + 1) <= row)
		tile++;
	for (; row < end; tile++, n++) {
		uint32_t next = wk_tile_row(n_rows, p->tiles, tile + 1);

		if (n % GROUP_RUNS == 0) {
			p->groups[p->n_groups++] =
				(struct wk_lora_group){.run = p->n_runs, .unit = p->n_units};
			p->n_units += p->sums ? run.n_parts : (run.cuts + 1) / 2;
		}
		p->groups[p->n_groups - 1].n_runs++;
		run.row = row;
		run.rows = (next < end ? next : end) - row;
		run.s = *s;
		*s += (size_t)run.rows * run.cuts * WK_LORA_PAIRS * be->kern->x_pair_bytes;
		row += run.rows;
		p->runs[p->n_runs++] = run;
	}
}

/*
 * Room for the sums of all rows and panels, for few rows: then an adapter's pieces are read from end
 * to end by one thread, as fast as memory gives them. NULL: many rows, or no memory; then each unit
 * of the product expands for itself.
 */
static float *early_sums(struct wk_backend *be, const struct wk_matmul *op)
{
	if (op->n_rows > EARLY_ROWS)
		return NULL;
	reserve_sums(be, op->w->panels); /* of a weight younger than all adapters */
	return be->lora->sums;
}

const struct wk_lora_plan *wk_lora_plan(struct wk_backend *be, const struct wk_matmul *op,
					uint32_t tiles, uint32_t k_pairs)
{
	struct wk_lora_plan *p = be->lora ? &be->lora->plan : NULL;
	uint32_t run = 0;
	char *s;

	if (!op->site || !be->batch.n_segments)
		return NULL;
	s = be->lora->s;
	p->op = op;
	p->tiles = tiles;
	p->k_pairs = k_pairs;
	p->n_runs = p->n_groups = p->n_units = p->rows = 0;
	p->holes = false;
	p->sums = early_sums(be, op);
	for (uint32_t i = 0; i < be->batch.n_segments; i++)
		add_segment(be, p, &be->batch.segments[i], &s);
	if (!p->n_runs || be->sticky)
		return NULL;
	zero_rows(p, p->holes ? 0 : p->rows, op->n_rows);
	for (uint32_t t = 0; t <= tiles; t++) {
		while (run < p->n_runs && p->runs[run].row < wk_tile_row(op->n_rows, tiles, t))
			run++;
		p->first_run[t] = run;
	}
	return p;
}

/* --- shrink --------------------------------------------------------------------------------------*/

/* A of the run's cut-th cut, parts one after the other. */
static const char *cut_a(const struct wk_lora_run *run, uint32_t cut, float *ret_scale)
{
	const struct wk_lora_part *p = run->parts;

	for (; cut >= wk_lora_cuts(p->rank); p++)
		cut -= wk_lora_cuts(p->rank);
	*ret_scale = p->scale;
	return (const char *)run->lora->pool->host + p->pieces[cut];
}

static const struct wk_lora_group *group_of(const struct wk_lora_plan *p, uint32_t unit)
{
	uint32_t lo = 0, hi = p->n_groups;

	while (hi - lo > 1) {
		uint32_t mid = (lo + hi) / 2;

		if (p->groups[mid].unit <= unit)
			lo = mid;
		else
			hi = mid;
	}
	return &p->groups[lo];
}

/* x of a run's first row in one block of K. */
static void set_x(struct wk_backend *be, const struct wk_lora_plan *p,
		  const struct wk_lora_run *run, uint32_t block, struct wk_shrink *s)
{
	uint32_t n_rows = p->op->n_rows, pair_bytes = be->kern->x_pair_bytes;
	uint32_t tile = (uint32_t)((uint64_t)run->row * p->tiles / n_rows), row0, tile_rows;

	while (wk_tile_row(n_rows, p->tiles, tile + 1) <= run->row)
		tile++;
	row0 = wk_tile_row(n_rows, p->tiles, tile);
	tile_rows = wk_tile_row(n_rows, p->tiles, tile + 1) - row0;
	s->x = wk_packed_x(be, n_rows, p->k_pairs, block, s->pairs, row0) +
	       (size_t)(run->row - row0) * pair_bytes;
	s->x_step = tile_rows * pair_bytes;
	s->rows = run->rows;
}

/* One or two cuts of a group of runs: each block of A is used for all runs at once. */
static void shrink_cuts(struct wk_backend *be, const struct wk_lora_plan *p,
			const struct wk_lora_group *g, uint32_t cut, uint32_t cuts, float *acc)
{
	const struct wk_lora_run *runs = &p->runs[g->run];
	uint32_t pairs = p->op->w->pairs;
	struct wk_shrink s = {.cuts = cuts};

	for (uint32_t c = 0; c < s.cuts; c++)
		s.a[c] = cut_a(runs, cut + c, &s.scale[c]);
	for (uint32_t at = 0; at < pairs; at += s.pairs) {
		s.pairs = pairs - at < p->k_pairs ? pairs - at : p->k_pairs;
		s.first = !at;
		s.last = at + s.pairs == pairs;
		for (uint32_t i = 0; i < g->n_runs; i++) {
			set_x(be, p, &runs[i], at / p->k_pairs, &s);
			s.acc = acc + (size_t)i * WK_TILE_ROWS * WK_SHRINK_ACC;
			s.s = runs[i].s +
			      (size_t)cut * WK_LORA_PAIRS * s.rows * be->kern->x_pair_bytes;
			be->kern->shrink(&s);
		}
		for (uint32_t c = 0; c < s.cuts; c++)
			s.a[c] += (size_t)s.pairs * WK_LORA_CUT * 4;
	}
}

/* --- expand --------------------------------------------------------------------------------------*/

/* Half a panel: 32 outputs from `out` on, of which those before `end` exist. */
struct half {
	uint32_t out, end;
};

static const char *b_half(const struct wk_lora_run *run, const struct wk_lora_part *p, uint32_t cut,
			  uint32_t half)
{
	return (const char *)run->lora->pool->host + p->pieces[cut] + a_bytes(p->k) +
	       (size_t)half * WK_LORA_PAIRS * WK_LORA_HALF * 4;
}

/* B of one cut for 32 outputs that do not begin where a half of the part does; else zero. */
static void gather_b(const struct wk_lora_run *run, const struct wk_lora_part *p, uint32_t cut,
		     struct half h, char *dst)
{
	memset(dst, 0, WK_LORA_PAIRS * WK_LORA_HALF * 4);
	for (uint32_t c = 0; c < WK_LORA_HALF && h.out + c < h.end; c++) {
		uint32_t j = h.out + c - p->col;
		const char *src;

		if (h.out + c < p->col || j >= p->n)
			continue;
		src = b_half(run, p, cut, j / WK_LORA_HALF) + j % WK_LORA_HALF * 4;
		for (uint32_t i = 0; i < WK_LORA_PAIRS; i++)
			memcpy(dst + (i * WK_LORA_HALF + c) * 4, src + i * WK_LORA_HALF * 4, 4);
	}
}

/*
 * Where a part covers half a panel only in part: the sums of the outputs outside it must not even
 * meet a product with zero, for s may be infinite.
 */
static void expand_odd(const struct wk_backend *be, const struct wk_lora_run *run,
		       const struct wk_lora_part *p, struct half h, const char *s, float *acc)
{
	_Alignas(64) char b[WK_LORA_PAIRS * WK_LORA_HALF * 4];
	_Alignas(64) float sums[WK_TILE_ROWS * WK_CPU_PANEL];
	uint64_t none = 0;
	struct wk_expand e = {.half = {{.base = b, .offsets = &none}},
			      .acc = sums,
			      .n = 1,
			      .rows = run->rows,
			      .halves = 1,
			      .panels = 1};

	for (uint32_t r = 0; r < run->rows; r++)
		memcpy(sums + r * WK_CPU_PANEL, acc + r * WK_CPU_PANEL, WK_LORA_HALF * 4);
	for (uint32_t c = 0; c < wk_lora_cuts(p->rank); c++) {
		gather_b(run, p, c, h, b);
		e.half[0].s = s + (size_t)c * WK_LORA_PAIRS * run->rows * be->kern->x_pair_bytes;
		be->kern->expand(&e);
	}
	for (uint32_t r = 0; r < run->rows; r++)
		for (uint32_t c = 0; c < WK_LORA_HALF && h.out + c < h.end; c++)
			if (h.out + c >= p->col && h.out + c - p->col < p->n)
				acc[r * WK_CPU_PANEL + c] = sums[r * WK_CPU_PANEL + c];
}

/* B of a part for a half that it covers whole. */
static bool cover(const struct wk_lora_run *run, const struct wk_lora_part *p, const char *s,
		  struct half h, struct wk_expand_half *ret)
{
	uint32_t end = p->col + p->n;

	if (h.out < p->col || (h.out - p->col) % WK_LORA_HALF ||
	    (end < h.out + WK_LORA_HALF && end < h.end))
		return false;
	ret->s = s;
	ret->base = (const char *)run->lora->pool->host + a_bytes(p->k) +
		    (size_t)(h.out - p->col) * WK_LORA_PAIRS * 4;
	ret->offsets = p->pieces;
	return true;
}

static bool overlap(const struct wk_lora_part *p, struct half h)
{
	return h.out + WK_LORA_HALF > p->col && h.out < p->col + p->n && h.out < h.end;
}

static size_t s_bytes(const struct wk_backend *be, const struct wk_lora_run *run, uint32_t cuts)
{
	return (size_t)cuts * WK_LORA_PAIRS * run->rows * be->kern->x_pair_bytes;
}

/*
 * The cuts of the part that covers a whole half, and its B; 0: there is none. Parts that cover the
 * half only in part are expanded on the way.
 */
static uint32_t find_half(const struct wk_backend *be, const struct wk_lora_run *run, struct half h,
			  struct wk_expand_half *ret, float *acc)
{
	const char *s = run->s;

	for (uint32_t i = 0; i < run->n_parts; i++) {
		const struct wk_lora_part *p = &run->parts[i];
		uint32_t cuts = wk_lora_cuts(p->rank);

		if (overlap(p, h)) {
			if (cover(run, p, s, h, ret))
				return cuts;
			expand_odd(be, run, p, h, s, acc);
		}
		s += s_bytes(be, run, cuts);
	}
	return 0;
}

/* All parts of a run into one panel's sums. */
static void expand_run(const struct wk_backend *be, const struct wk_lora_run *run,
		       const struct half h[2], uint32_t ahead, float *acc)
{
	struct wk_expand e = {
		.acc = acc, .rows = run->rows, .halves = 2, .ahead = ahead, .panels = 1};
	uint32_t n = find_half(be, run, h[1], &e.half[1], acc + WK_LORA_HALF);

	e.n = find_half(be, run, h[0], &e.half[0], acc);
	if (e.n && e.n == n) {
		be->kern->expand(&e);
		return;
	}
	e.halves = 1;
	if (e.n)
		be->kern->expand(&e);
	e.half[0] = e.half[1];
	e.n = n;
	e.acc += WK_LORA_HALF;
	if (n)
		be->kern->expand(&e);
}

/* Of B, for the outputs of a panel that come from one part. */
static uint32_t panel_bytes(const struct wk_weight *w)
{
	return WK_LORA_PAIRS * WK_LORA_HALF * 4 * (w->gate_up ? 1 : 2);
}

/* One part of a run into the sums of a panel, and of the next ones that it covers likewise. */
static void expand_part(const struct wk_backend *be, const struct wk_lora_plan *plan,
			const struct wk_lora_run *run, const struct wk_lora_part *p, const char *s,
			const struct half h[2], uint32_t n_panels, const char *next, float *acc)
{
	struct wk_expand e = {.acc = acc,
			      .n = wk_lora_cuts(p->rank),
			      .rows = run->rows,
			      .first = !plan->holes,
			      .ahead = WK_LORA_AHEAD,
			      .next = wk_lora_cuts(p->rank) == 1 ? next : NULL,
			      .panels = n_panels,
			      .acc_step = (size_t)plan->op->n_rows * WK_CPU_PANEL,
			      .b_step = panel_bytes(plan->op->w)};
	bool whole[2];

	for (uint32_t i = 0; i < 2; i++) {
		whole[i] = overlap(p, h[i]) && cover(run, p, s, h[i], &e.half[i]);
		if (!whole[i] && overlap(p, h[i]))
			expand_odd(be, run, p, h[i], s, acc + i * WK_LORA_HALF);
	}
	e.halves = whole[0] + whole[1];
	if (!whole[0]) {
		e.half[0] = e.half[1];
		e.acc += WK_LORA_HALF;
	}
	if (e.halves)
		be->kern->expand(&e);
}

static void panel_halves(const struct wk_weight *w, uint32_t panel, struct half ret[2])
{
	uint32_t gates = w->n / 2;

	ret[0] = (struct half){panel * WK_CPU_PANEL, w->n};
	ret[1] = (struct half){ret[0].out + WK_LORA_HALF, w->n};
	if (w->gate_up) {
		ret[0] = (struct half){panel * WK_LORA_HALF, gates};
		ret[1] = (struct half){gates + panel * WK_LORA_HALF, w->n};
	}
}

bool wk_lora_begin(const struct wk_backend *be, const struct wk_lora_plan *p, uint32_t tile,
		   uint32_t panel, bool ask, float *acc)
{
	uint32_t row0 = wk_tile_row(p->op->n_rows, p->tiles, tile);
	uint32_t rows = wk_tile_row(p->op->n_rows, p->tiles, tile + 1) - row0;
	uint32_t ahead = panel_bytes(p->op->w);
	struct half halves[2];

	if (p->sums)
		return true;
	if (p->first_run[tile] == p->first_run[tile + 1])
		return false;
	memset(acc, 0, (size_t)rows * WK_CPU_PANEL * sizeof(*acc));
	panel_halves(p->op->w, panel, halves);
	for (uint32_t i = p->first_run[tile]; i < p->first_run[tile + 1]; i++) {
		bool new = ask || !i || p->runs[i].lora != p->runs[i - 1].lora;

		expand_run(be, &p->runs[i], halves, new ? ahead : 0,
			   acc + (size_t)(p->runs[i].row - row0) * WK_CPU_PANEL);
	}
	return true;
}

/* --- units ---------------------------------------------------------------------------------------*/

/* One part of a group of runs, shrunk and expanded: its pieces are read once, from end to end. */
static void early_unit(struct wk_backend *be, const struct wk_lora_plan *p,
		       const struct wk_lora_group *g, uint32_t part, const char *next, float *acc)
{
	const struct wk_lora_run *runs = &p->runs[g->run];
	const struct wk_lora_part *q = &runs->parts[part];
	const struct wk_weight *w = p->op->w;
	uint32_t cut = 0, cuts = wk_lora_cuts(q->rank), gates = w->gate_up ? w->n / 2 : 0;
	uint32_t cols = w->gate_up ? WK_LORA_HALF : WK_CPU_PANEL, whole;
	uint32_t from = q->col < gates ? q->col : q->col - gates, to = from + q->n;

	for (uint32_t i = 0; i < part; i++)
		cut += wk_lora_cuts(runs->parts[i].rank);
	for (uint32_t c = 0; c < cuts; c += 2)
		shrink_cuts(be, p, g, cut + c, cuts - c < 2 ? 1 : 2, acc);
	if (gates && q->col < gates && to > gates) { /* gates and ups in one */
		from = 0;
		to = gates;
	}
	whole = part_even(q, w) && from % cols == 0 ? q->n / cols : 0;
	for (uint32_t panel = from / cols, n; panel * cols < to; panel += n) {
		struct half halves[2];

		n = panel == from / cols && whole ? whole : 1;
		panel_halves(w, panel, halves);
		for (uint32_t i = 0; i < g->n_runs; i++)
			expand_part(be, p, &runs[i], q, runs[i].s + s_bytes(be, &runs[i], cut),
				    halves, n, n > 1 ? next : NULL,
				    wk_lora_sums(p, panel, runs[i].row));
	}
}

/* What a unit reads first. */
static const char *unit_start(const struct wk_lora_plan *p, uint32_t unit)
{
	const struct wk_lora_group *g = group_of(p, unit);
	const struct wk_lora_run *run = &p->runs[g->run];

	return (const char *)run->lora->pool->host + run->parts[unit - g->unit].pieces[0];
}

void wk_lora_unit(struct wk_backend *be, const struct wk_lora_plan *p, uint32_t unit, uint32_t end,
		  uint32_t thread)
{
	const struct wk_lora_group *g = group_of(p, unit);
	uint32_t i = unit - g->unit, cuts = p->runs[g->run].cuts;
	float *acc = wk_pool_scratch(be->pool, thread);

	if (p->sums)
		early_unit(be, p, g, i, unit + 1 < end ? unit_start(p, unit + 1) : NULL, acc);
	else
		shrink_cuts(be, p, g, 2 * i, cuts - 2 * i < 2 ? 1 : 2, acc);
}
