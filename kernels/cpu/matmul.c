/* SPDX-License-Identifier: Apache-2.0 */
/*
 * matmul.c - matrix products over packed weights: how the work is cut, and who does what.
 *
 * x is packed first (tiles of up to 6 rows, cut along K into blocks). Then a unit of work is one
 * panel of 64 columns for one block of rows: for each block of K in ascending order, for each
 * tile of rows, the kernel adds that block to the tile's sums, which lie in the thread's scratch
 * between blocks; after the last block the epilogue takes them from there. So a block of weights
 * is read from memory once and from cache by every further tile, and the order of additions of
 * one output is the order of K, whatever the rows, the cut or the threads.
 *
 * Each thread starts in a range of units of its own, whose weights lie in one stretch of memory:
 * the next unit's weights can be prefetched, and prefetchers in hardware see long streams. A
 * thread that is done takes units from the others' ranges, so one that is not scheduled
 * delays nobody.
 *
 * Where adapters take part (lora.h), the sums of their rows do not begin with zero but with what the
 * adapters add: x is shrunk by all threads before the units, and expanded then too, or at a unit's
 * first block of K.
 *
 * Owns nothing: x_packed and scratch are the backend's.
 */
#include "kernels/cpu/lora.h"

#include <errno.h>
#include <stdatomic.h>

/*
 * Pairs of K in a block, at most. With few rows the next block is prefetched into the first-level
 * cache while this one is multiplied, so both must fit there: 16 KB each. With more, prefetching
 * matters less than how often sums go to memory and back.
 */
#define FEW_TILES  3u
#define PAIRS_FEW  64u
#define PAIRS_MANY 256u
#define MAX_RANGES 64u
/*
 * Tiles of rows in a block: at least 8 (48 rows); at most 22 (132 rows, whose sums take 33 KB)
 * where the panel, which is read again for each block, stays in the second-level cache.
 */
#define MIN_BLOCK  8u
#define MAX_BLOCK  22u
#define PANEL_KEPT (384u << 10)
#define UNITS_EACH 32u	       /* units for each thread, if the rows allow */
#define PACK_ALONE (32u << 10) /* bytes of packed x that are not worth waking anybody for */
#define PACK_TILES 2u	       /* tiles of rows packed at a time */

struct range {
	_Alignas(64) _Atomic uint32_t next; /* unit not yet taken; may pass `end` */
	uint32_t end;
};

struct job {
	struct wk_backend *be;
	const struct wk_matmul *op;
	const struct wk_lora_plan *lora; /* NULL: no adapter takes part */
	uint32_t pairs;			 /* of K, in all */
	uint32_t k_pairs;		 /* in a block */
	uint32_t k_blocks;
	uint32_t tiles;	     /* of all rows */
	uint32_t row_blocks; /* the tiles are cut into so many */
	uint32_t panel;	     /* the first */
	uint32_t panel_cols; /* outputs of a panel: 64, or 32 where it holds gates and ups */
	uint32_t n_cols;
	uint32_t units;
	bool lora_units; /* the adapters' units are being done, not the product's */
	uint32_t n_ranges;
	struct range ranges[MAX_RANGES];
};

/* First row of a tile: the rows are spread evenly, so that no tile is much thinner than another. */
static uint32_t tile_row(const struct job *j, uint32_t tile)
{
	return wk_tile_row(j->op->n_rows, j->tiles, tile);
}

static uint32_t block_pairs(const struct job *j, uint32_t k_block)
{
	uint32_t left = j->pairs - k_block * j->k_pairs;

	return left < j->k_pairs ? left : j->k_pairs;
}

/* Packed x of a block of K from a row on: [k_block][tile][pair][row of the tile]. */
static char *packed_at(const struct job *j, uint32_t k_block, uint32_t row)
{
	return wk_packed_x(j->be, j->op->n_rows, j->k_pairs, k_block, block_pairs(j, k_block), row);
}

/* --- packing x -----------------------------------------------------------------------------------*/

static void pack_chunk(void *arg, uint32_t chunk, uint32_t thread)
{
	struct job *j = arg;
	uint32_t end = (chunk + 1) * PACK_TILES < j->tiles ? (chunk + 1) * PACK_TILES : j->tiles;

	for (uint32_t t = chunk * PACK_TILES; t < end; t++) {
		uint32_t row = tile_row(j, t), rows = tile_row(j, t + 1) - row;
		const uint16_t *x =
			(const uint16_t *)j->op->x->host + (size_t)row * j->op->x_stride;

		for (uint32_t kb = 0; kb < j->k_blocks; kb++)
			j->be->kern->pack_x(packed_at(j, kb, row), x, j->op->x_stride, rows,
					    kb * j->k_pairs * 2, block_pairs(j, kb), j->op->w->k);
	}
}

static void pack_all(struct job *j)
{
	uint32_t chunks = (j->tiles + PACK_TILES - 1) / PACK_TILES;
	size_t bytes = (size_t)j->op->n_rows * j->pairs * j->be->kern->x_pair_bytes;

	if (bytes > PACK_ALONE) {
		wk_pool_run(j->be->pool, pack_chunk, j, chunks);
		return;
	}
	for (uint32_t c = 0; c < chunks; c++)
		pack_chunk(j, c, 0);
}

/* --- one unit ------------------------------------------------------------------------------------*/

/* Sums of one row to where they belong; `col` counts from the operation's first column. */
static void finish_row(const struct job *j, const float *acc, uint32_t row, uint32_t col)
{
	const struct wk_matmul *op = j->op;
	const struct wk_cpu_kernels *kern = j->be->kern;
	uint32_t n = j->n_cols - col < j->panel_cols ? j->n_cols - col : j->panel_cols;
	size_t at = (size_t)row * op->out_stride + col;
	const float *bias = op->bias ? (const float *)op->bias->host + op->col + col : NULL;

	switch (op->epilogue) {
	case WK_EPI_STORE:
		kern->store((float *)op->out->host + at, acc, bias, op->scale, n);
		break;
	case WK_EPI_ADD:
		kern->add((float *)op->out->host + at, acc, bias, op->scale, n);
		break;
	case WK_EPI_SWIGLU:
		kern->swiglu((uint16_t *)op->out->host + at, acc, bias,
			     bias ? bias + op->w->n / 2 : NULL, n);
		break;
	}
}

/*
 * Ask for the lines that a tile's epilogue will write, while its last block is multiplied.
 * Inline by force: gcc takes a function that only prefetches for one without effect, and drops it.
 */
static inline __attribute__((always_inline)) void prefetch_out(const struct job *j, uint32_t row,
							       uint32_t rows, uint32_t col)
{
	size_t elem = j->op->epilogue == WK_EPI_SWIGLU ? sizeof(uint16_t) : sizeof(float);
	const char *out = (const char *)j->op->out->host;

	for (uint32_t r = row; r < row + rows; r++) {
		const char *at = out + ((size_t)r * j->op->out_stride + col) * elem;

		for (size_t b = 0; b < j->panel_cols * elem; b += 64)
			__builtin_prefetch(at + b, 1);
	}
}

/*
 * Which lines of the next block of weights tile i of n prefetches: all lines are asked for once,
 * spread over the first four tiles or all, so that memory never rests for a whole tile; a tile's
 * loop has room for few. What comes last is needed last.
 */
static void set_prefetch(struct wk_tile *t, const uint16_t *next, uint32_t i, uint32_t n)
{
	static const uint8_t first[4][5] = {
		{0, 4, 4, 4, 4}, {0, 2, 4, 4, 4}, {0, 2, 3, 4, 4}, {0, 1, 2, 3, 4}};
	const uint8_t *line = first[n < 4 ? n - 1 : 3];

	t->prefetch_lines = i < 4 ? line[i + 1] - line[i] : 0;
	t->prefetch = (const char *)next + (i < 4 ? (size_t)line[i] * 64 * t->pairs : 0);
}

/* And for what adapters left for a tile of the next panel: half of it is in other threads' caches. */
static inline __attribute__((always_inline)) void prefetch_sums(const struct job *j, uint32_t panel,
								uint32_t row, uint32_t rows)
{
	const char *at;

	if (!j->lora || !j->lora->sums || panel >= j->op->w->panels)
		return;
	at = (const char *)wk_lora_sums(j->lora, panel, row);
	for (size_t b = 0; b < (size_t)rows * WK_CPU_PANEL * sizeof(float); b += 64)
		__builtin_prefetch(at + b, 1);
}

static void do_unit(struct job *j, uint32_t unit, float *acc)
{
	uint32_t panel = unit / j->row_blocks, block = unit % j->row_blocks;
	uint32_t from = (uint32_t)((uint64_t)block * j->tiles / j->row_blocks);
	uint32_t to = (uint32_t)((uint64_t)(block + 1) * j->tiles / j->row_blocks);
	const uint16_t *start =
		j->op->w->data + (size_t)(j->panel + panel) * j->pairs * 2 * WK_CPU_PANEL;
	const uint16_t *w = start;
	uint32_t row0 = tile_row(j, from);

	if (j->lora && j->lora->sums)
		acc = wk_lora_sums(j->lora, j->panel + panel, row0);

	for (uint32_t kb = 0; kb < j->k_blocks; kb++) {
		struct wk_tile t = {.w = w, .pairs = block_pairs(j, kb)};
		uint32_t row = row0;

		w += (size_t)t.pairs * 2 * WK_CPU_PANEL;
		if (kb + 1 == j->k_blocks && block + 1 < j->row_blocks)
			w = start; /* the next unit is the same panel's next rows */
		for (uint32_t i = from; i < to; i++, row += t.rows) {
			t.rows = tile_row(j, i + 1) - row;
			t.x = packed_at(j, kb, row);
			t.first = !kb;
			t.acc = acc + (size_t)(row - row0) * WK_CPU_PANEL;
			if (!kb && j->lora)
				t.first = !wk_lora_begin(j->be, j->lora, i, j->panel + panel,
							 i == from, t.acc);
			set_prefetch(&t, w, i - from, to - from);
			if (kb + 1 == j->k_blocks) {
				prefetch_out(j, row, t.rows, panel * j->panel_cols);
				prefetch_sums(j, j->panel + panel + 1, row, t.rows);
			}
			j->be->kern->tile(&t);
			if (kb + 1 < j->k_blocks)
				continue;
			for (uint32_t r = 0; r < t.rows; r++)
				finish_row(j, t.acc + (size_t)r * WK_CPU_PANEL, row + r,
					   panel * j->panel_cols);
		}
	}
}

/* --- division among threads ----------------------------------------------------------------------*/

static void do_ranges(void *arg, uint32_t chunk, uint32_t thread)
{
	struct job *j = arg;
	float *acc = wk_pool_scratch(j->be->pool, thread);

	for (uint32_t i = 0; i < j->n_ranges; i++) {
		struct range *r = &j->ranges[(chunk + i) % j->n_ranges];

		while (atomic_load_explicit(&r->next, memory_order_relaxed) < r->end) {
			uint32_t unit =
				atomic_fetch_add_explicit(&r->next, 1, memory_order_relaxed);

			if (unit >= r->end)
				break;
			if (j->lora_units)
				wk_lora_unit(j->be, j->lora, unit, r->end, thread);
			else
				do_unit(j, unit, acc);
		}
	}
}

static void run_ranges(struct job *j, uint32_t units)
{
	uint32_t threads = j->be->n_threads;

	j->n_ranges = threads < MAX_RANGES ? threads : MAX_RANGES;
	if (j->n_ranges > units)
		j->n_ranges = units;
	for (uint32_t i = 0; i < j->n_ranges; i++) {
		atomic_init(&j->ranges[i].next, (uint32_t)((uint64_t)i * units / j->n_ranges));
		j->ranges[i].end = (uint32_t)((uint64_t)(i + 1) * units / j->n_ranges);
	}
	wk_pool_run(j->be->pool, do_ranges, j, j->n_ranges);
}

static void divide(struct job *j)
{
	uint32_t threads = j->be->n_threads;
	uint32_t panels = (j->n_cols + j->panel_cols - 1) / j->panel_cols;

	j->row_blocks = 1;
	if ((size_t)j->pairs * WK_CPU_PANEL * 4 <= PANEL_KEPT)
		j->row_blocks = (j->tiles + MAX_BLOCK - 1) / MAX_BLOCK;
	if (threads > 1 && panels < UNITS_EACH * threads) {
		uint32_t want = (UNITS_EACH * threads + panels - 1) / panels;
		uint32_t most = j->tiles / MIN_BLOCK;

		want = want < most ? want : most;
		j->row_blocks = want > j->row_blocks ? want : j->row_blocks;
	}
	j->units = panels * j->row_blocks;
}

/*
 * K in blocks of one size: a block is prefetched by the pace of the one before, so a short last one
 * would fetch only part of the next panel's first. Of an even number of pairs, because a shrink's
 * two chains of sums take the even and the odd pairs of each block.
 */
static void cut_k(struct job *j)
{
	uint32_t most = j->tiles <= FEW_TILES ? PAIRS_FEW : PAIRS_MANY;
	uint32_t blocks = (j->pairs + most - 1) / most;

	j->k_pairs = ((j->pairs + blocks - 1) / blocks + 1) / 2 * 2;
	j->k_blocks = (j->pairs + j->k_pairs - 1) / j->k_pairs;
}

/* --- the operation -------------------------------------------------------------------------------*/

static bool fits(const struct wk_buf *buf, uint32_t rows, uint32_t stride, uint32_t n, size_t elem)
{
	return buf && ((size_t)(rows - 1) * stride + n) * elem <= buf->bytes &&
	       (rows == 1 || stride >= n);
}

static const char *why_not(const struct wk_matmul *op, uint32_t n_out, uint32_t n_cols)
{
	size_t out_elem = op->epilogue == WK_EPI_SWIGLU ? sizeof(uint16_t) : sizeof(float);

	if (op->n_rows > WK_MAX_ROWS)
		return "too many rows";
	if ((op->epilogue == WK_EPI_SWIGLU) != op->w->gate_up)
		return "the epilogue does not suit the weight's packing";
	if (op->col % WK_CPU_PANEL || op->col >= n_out || n_cols > n_out - op->col)
		return "no such columns";
	if (!fits(op->x, op->n_rows, op->x_stride, op->w->k, sizeof(uint16_t)))
		return "x is too small";
	if (!fits(op->out, op->n_rows, op->out_stride, n_cols, out_elem))
		return "the output is too small";
	if (op->bias && op->bias->bytes / sizeof(float) < op->w->n)
		return "the bias is too small";
	return NULL;
}

void wk_cpu_matmul(struct wk_backend *be, const struct wk_matmul *op)
{
	uint32_t n_out = op->w->gate_up ? op->w->n / 2 : op->w->n;
	struct job j = {.be = be, .op = op};
	const char *why;

	if (!op->n_rows)
		return;
	j.n_cols = op->n_cols ? op->n_cols : n_out - op->col;
	why = why_not(op, n_out, j.n_cols);
	if (why) {
		wk_cpu_stick(be, EINVAL, "matmul of %u rows by %ux%u, columns %u+%u: %s",
			     op->n_rows, op->w->n, op->w->k, op->col, j.n_cols, why);
		return;
	}
	j.pairs = op->w->pairs;
	j.tiles = (op->n_rows + WK_TILE_ROWS - 1) / WK_TILE_ROWS;
	cut_k(&j);
	j.panel_cols = op->w->gate_up ? WK_CPU_PANEL / 2 : WK_CPU_PANEL;
	j.panel = op->col / j.panel_cols;
	divide(&j);
	j.lora = wk_lora_plan(be, op, j.tiles, j.k_pairs);
	if (be->sticky)
		return;
	pack_all(&j);
	if (j.lora) {
		j.lora_units = true;
		run_ranges(&j, j.lora->n_units);
		j.lora_units = false;
	}
	run_ranges(&j, j.units);
}
