/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lora.h - LoRA inside a matrix product: the plan of one product, its shrink, its expansion.
 *
 * A piece of 16 ranks in the pool (bf16, all parts of it 64-byte aligned):
 *
 *   A  [pairs of k][16 ranks][2]			64 bytes a pair, zero past k and the rank
 *   B  [n / 32, rounded up][8 pairs of ranks][32 outputs][2]	1 KB each, zero past n and the rank
 *
 * The product's rows are cut into tiles (matmul.c); a tile is cut into runs of rows of one segment.
 * Rows of a run share an adapter, so its pieces are read once for all of them:
 *
 *   shrink, run by run: s = round(scale * x A), packed as pack_x() would pack it
 *   expand, run by run and half a panel (32 outputs: a panel of gates and ups holds 32 of each) at
 *   a time: acc = s B, and acc are what the product's own sums begin with
 *
 * With few rows, decoding, the adapters' bytes are what counts: a unit of work takes one part of one
 * segment through both, reading its pieces from end to end, and leaves the sums of all panels for
 * the product (plan.sums). With many rows these would not stay in a cache: the units only shrink,
 * and the product expands panel by panel. The bits are the same.
 */
#ifndef WEFT_KERNELS_CPU_LORA_H
#define WEFT_KERNELS_CPU_LORA_H

#include "kernels/cpu/cpu.h"
#include "kernels/lora.h"

#define WK_LORA_PAIRS (WK_LORA_CUT / 2)
#define WK_LORA_HALF  32u /* outputs of half a panel */
#define WK_LORA_TILES ((WK_MAX_ROWS + WK_TILE_ROWS - 1) / WK_TILE_ROWS)

struct wk_lora {
	struct wk_lora_parts parts;
	const struct wk_buf *pool; /* borrowed: the pool that was bound when it was made */
};

/* Rows of one tile that one segment changes. */
struct wk_lora_run {
	uint32_t row, rows;
	const struct wk_lora *lora;
	const struct wk_lora_part *parts; /* of the product's site */
	uint32_t n_parts;
	uint32_t cuts; /* of these parts */
	char *s;       /* [cut][WK_LORA_PAIRS][rows] pairs, as pack_x leaves them */
};

/* Runs that are shrunk together, all of one segment; one unit of work for each two cuts. */
struct wk_lora_group {
	uint32_t run, n_runs;
	uint32_t unit; /* the first of its units */
};

/* One product's plan; owned by the backend, made anew for each product that has a site. */
struct wk_lora_plan {
	const struct wk_matmul *op;
	uint32_t n_runs, n_groups, n_units;
	uint32_t k_pairs; /* blocks of K, as the product has them */
	uint32_t rows;	  /* past the last row of any run */
	bool holes;	  /* a part covers less than its whole halves, or an output has none */
	float *sums;	  /* [panel][row][WK_CPU_PANEL] what all expand to; NULL: many rows */
	uint32_t tiles;
	uint32_t first_run[WK_LORA_TILES + 1]; /* of each tile; the last: n_runs */
	struct wk_lora_run runs[WK_MAX_ROWS];
	struct wk_lora_group groups[WK_MAX_ROWS];
};

/* What lora.c keeps between calls. Owned by the backend. */
struct wk_lora_state {
	struct wk_lora_plan plan;
	char *s; /* owner: what every run of a product shrinks to */
	size_t s_bytes;
	float *sums; /* owner: plan.sums, for few rows */
	size_t sums_bytes;
};

/* First row of tile t of n: matmul.c spreads rows evenly over tiles. */
static inline uint32_t wk_tile_row(uint32_t n_rows, uint32_t tiles, uint32_t t)
{
	return (uint32_t)((uint64_t)t * n_rows / tiles);
}

/* Packed x of a product from a row on, in one block of K: [block][tile][pair][row of the tile]. */
static inline char *wk_packed_x(const struct wk_backend *be, uint32_t n_rows, uint32_t k_pairs,
				uint32_t block, uint32_t block_pairs, uint32_t row)
{
	size_t pairs = (size_t)block * k_pairs * n_rows + (size_t)row * block_pairs;

	return (char *)be->x_packed + pairs * be->kern->x_pair_bytes;
}

/*
 * The plan for a product whose rows and K are cut so, or NULL if no adapter changes it (or one does
 * not fit the weight: then the backend is stuck).
 */
const struct wk_lora_plan *wk_lora_plan(struct wk_backend *be, const struct wk_matmul *op,
					uint32_t tiles, uint32_t k_pairs);
/*
 * One of plan->n_units units of work, after x was packed and before the product. The thread's next
 * ones are likely those up to `end`.
 */
void wk_lora_unit(struct wk_backend *be, const struct wk_lora_plan *p, uint32_t unit, uint32_t end,
		  uint32_t thread);
/*
 * What the sums of a tile's rows of one panel begin with; false: with zero. Writes acc, [rows of the
 * tile][WK_CPU_PANEL], unless the plan has sums, which are then used in place. `ask`: for B of the
 * next panel.
 */
bool wk_lora_begin(const struct wk_backend *be, const struct wk_lora_plan *p, uint32_t tile,
		   uint32_t panel, bool ask, float *acc);

static inline float *wk_lora_sums(const struct wk_lora_plan *p, uint32_t panel, uint32_t row)
{
	return p->sums + ((size_t)panel * p->op->n_rows + row) * WK_CPU_PANEL;
}

void wk_lora_fini(struct wk_backend *be); /* frees be->lora */

#endif
