/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attention.h - what attention, rotary and KV share, and the kernels of one instruction set.
 *
 * A KV block, for each layer and each KV head in turn (bf16, everything 64-byte aligned):
 *
 *   K  [head_dim / 2][16 keys][2]	pair of dimensions 2i, 2i+1 of each key: 64 bytes
 *   V  [8 key pairs][dim_pad][2]	keys 2j, 2j+1 of each dimension; dim_pad: head_dim up to 16
 *
 * so that one VDPBF16PS per 64 bytes takes two dimensions of 16 scores, or two keys of 16 outputs.
 *
 * A tile is up to WK_ATTN_ROWS query rows (position, head) that share a KV head. Its keys are taken
 * cut by cut; each cut gives a partial (m, l, o) per row, and partials are folded in ascending
 * order. Whatever the tile, a row's partial is the same bits:
 *   - a score is one chain of accumulations over the dimensions;
 *   - m is a maximum, l adds the keys of each of 16 lanes in ascending order (a masked key adds
 *     +0), then the lanes by a fixed tree;
 *   - o is one chain over the key pairs that hold a key the row attends to. Where another row of
 *     the tile attends to more, this row's chain is stopped, not fed zeros: V of a masked key may
 *     be NaN. A chain may end in -0 or +0 and is normalised to +0.
 */
#ifndef WEFT_KERNELS_CPU_ATTENTION_H
#define WEFT_KERNELS_CPU_ATTENTION_H

#include "kernels/cpu/cpu.h"
#include "kernels/sample.h"

#define WK_ATTN_ROWS	48u /* rows of a tile: a multiple of every path's register tile */
#define WK_HEAD_DIM_MAX 256u
#define WK_CUT_BLOCKS	(WK_ATTN_CUT / WK_BLOCK_TOKENS)

/* One tile over one cut. Row r attends to keys lo[r] .. hi[r]-1 of the cut, perhaps to none. */
struct wk_attn_cut {
	const char *kv[WK_CUT_BLOCKS];	 /* K of this layer and head in each block */
	const char *next[WK_CUT_BLOCKS]; /* what will be read next, to ask for early; any address */
	uint32_t v_off;			 /* from K to V, in bytes */
	uint32_t dim, dim_pad;
	uint32_t n_rows;
	uint16_t lo[WK_ATTN_ROWS], hi[WK_ATTN_ROWS];
	float scale;   /* of the scores, times log2(e) */
	const void *q; /* pack_q: rows of WK_HEAD_DIM_MAX elements */
	float *s;      /* scratch: [WK_ATTN_ROWS][WK_ATTN_CUT] */
	void *p;       /* scratch: the same, elements of elem_bytes */
	float *m, *l;  /* out: [n_rows] */
	float *o;      /* out: [n_rows][dim_pad] */
};

/* One head of one row on its way from the q/k/v product. */
struct wk_rope_head {
	const float *y;		/* [dim] */
	const float *norm;	/* [dim] or NULL */
	const float *cos, *sin; /* [dim / 2, padded to 16] */
	uint32_t dim;
	float eps;
};

struct wk_cpu_attn_kernels {
	const char *name;
	uint32_t elem_bytes; /* of q and p inside: bf16 or fp32 */
	void (*pack_q)(void *dst, const uint16_t *q, uint32_t dim);
	void (*cut)(const struct wk_attn_cut *c);
	/* Fold a later partial into (m, l, o), for one row. */
	void (*fold)(float *m, float *l, float *o, float m2, float l2, const float *o2,
		     uint32_t dim_pad);
	void (*finish)(uint16_t *x, const float *o, float l, uint32_t dim);
	/* Norm and rotate; ret has room for dim + 15. */
	void (*rope)(const struct wk_rope_head *h, uint16_t *ret);
	/* Round [dim] to bf16; ret has room for dim + 15, src need not. */
	void (*round)(const float *src, uint16_t *ret, uint32_t dim);
};

/* What attention, rotary and sampling keep between calls. Owned by the backend's thread. */
struct wk_attn_state {
	/* Angles of the rows last rotated, good while positions and frequencies are the same. */
	uint32_t n_rows, dim;
	float scale;
	uint32_t pos[WK_MAX_ROWS];
	float inv_freq[WK_HEAD_DIM_MAX / 2];
	float *angles; /* owner: per row: cosines, then sines, each padded to 16 */
	size_t angles_bytes;

	struct wk_attn_tile *tiles; /* owner */
	size_t tiles_bytes;
	float *partials; /* owner */
	size_t partials_bytes;

	struct wk_sample_scratch *sample; /* owner: one per thread */
};

/* The state, made when first asked for; NULL: no memory (and the backend is stuck). */
struct wk_attn_state *wk_attn_state_get(struct wk_backend *be);
/*
 * Room for `bytes` in place of p of *have bytes, whose contents may be lost; NULL: no memory (and
 * the backend is stuck). Asked for the most that any step can need, so that no later step waits for
 * the kernel: pages that are not touched cost nothing.
 */
void *wk_attn_room(struct wk_backend *be, void *p, size_t *have, size_t bytes);

static inline uint32_t wk_dim_pad(uint32_t dim)
{
	return (dim + 15) / 16 * 16;
}

/* Bytes of K and V of one layer and head in a block. */
static inline size_t wk_kv_k_bytes(const struct wk_kv_shape *s)
{
	return (size_t)s->head_dim / 2 * 64;
}

static inline size_t wk_kv_head_bytes(const struct wk_kv_shape *s)
{
	return wk_kv_k_bytes(s) + (size_t)wk_dim_pad(s->head_dim) * WK_BLOCK_TOKENS * 2;
}

static inline char *wk_kv_head(const struct wk_backend *be, const struct wk_buf *pool,
			       uint32_t block, uint32_t layer, uint32_t head)
{
	return (char *)pool->host + block * be->kv_block_bytes +
	       ((size_t)layer * be->kv.n_kv_heads + head) * wk_kv_head_bytes(&be->kv);
}

#endif
