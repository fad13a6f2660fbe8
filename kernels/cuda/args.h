/* SPDX-License-Identifier: Apache-2.0 */
/*
 * args.h - what the host hands to the kernels: one struct by value for each kernel, and the arrays of
 * a step in device memory. Shared by C and CUDA C++; every pointer here is an address of the device.
 *
 * KV block (bf16): [layer][K, V][KV head][WK_BLOCK_TOKENS][dim padded to 8], so that a row is a whole
 * number of 16-byte pieces and the rows of a head are contiguous. LoRA piece (bf16): A [16][k padded
 * to 8], then B [n][16], zero past k and the rank.
 */
#ifndef WEFT_KERNELS_CUDA_ARGS_H
#define WEFT_KERNELS_CUDA_ARGS_H

#include <stdint.h>

#define KA_CUT		256 /* WK_ATTN_CUT */
#define KA_TILE		32  /* keys of one online softmax step; part of the arithmetic */
#define KA_FLASH	128 /* keys of a tile of flash.cu */
#define KA_CHUNK	16  /* rows of a LoRA chunk */
#define KA_ZERO_BLOCKS	120
#define KA_MAX_LOGPROBS 20
#define KA_DRAWN	0x80000000u /* WK_DRAWN */

/* --- a step's arrays ------------------------------------------------------------------------------*/

struct ka_seq {
	uint32_t row, n_rows, pos, table;
};

/* A cut of the keys of 16 (row, head) pairs of a KV head's group: a warp's unit of work. */
struct ka_split {
	uint32_t seq;
	uint32_t pair; /* first of 16 pairs: row * group + head in the group */
	uint32_t cut;
	uint32_t part; /* where row 0 of the sequence has its partial results of this cut */
};

/* 64 pairs with all of their keys: a thread block's unit of work. */
struct ka_whole {
	uint32_t seq;
	uint32_t pair;
};

/* Where a row's partial results are: of cut c at part + c * step; n_cuts 0: there are none. */
struct ka_merge {
	uint32_t part, step, n_cuts, pos;
};

/* A sequence whose K and V are gathered (flash.cu): its tile 0 is tile `first` of those that are. */
struct ka_gathered {
	uint32_t seq, first;
};

/* How much there is for flash.cu: gathered sequences, their tiles, units (ka_whole, of 128 pairs and with
 * the number of a gathered sequence). */
struct ka_flash_counts {
	uint32_t n_seqs, n_tiles, n_units;
};

/* One linear of an adapter. */
struct ka_part {
	uint32_t col, n, k, n_cuts;
	float scale;
	uint32_t
		first; /* of its pieces, in ka_lora.pieces; its cut in the site: first - site's first */
};

/* An adapter in device memory. */
struct ka_lora {
	const struct ka_part *parts;
	const uint64_t *pieces; /* offsets in the pool */
	const uint32_t *first;	/* [max_site + 2] first part of a site */
	uint32_t max_site;
	uint32_t pad;
};

/* Up to KA_CHUNK rows of a segment. */
struct ka_chunk {
	const struct ka_lora *lora;
	uint32_t row, n_rows;
};

/* One row of logits to draw from. */
struct ka_sample {
	uint32_t row, top_k, n_top, given;
	float inv_temp; /* infinite: greedy */
	float top_p, min_p;
	float repetition, presence, frequency;
	float uniform;
	uint32_t bias, n_bias;	   /* in ka_sampling.bias */
	uint32_t counts, n_counts; /* in ka_sampling.counts */
	uint32_t out;		   /* in ka_sampling.out */
};

struct ka_bias {
	uint32_t token;
	float value;
};

struct ka_count {
	uint32_t token, in_output, in_prompt;
};

struct ka_sampled { /* wk_sampled */
	uint32_t token;
	float logprob;
	uint32_t top_tokens[KA_MAX_LOGPROBS];
	float top_logprobs[KA_MAX_LOGPROBS];
};

/* --- arguments -------------------------------------------------------------------------------------*/

struct ka_mark {
	uint64_t *where; /* host memory */
	uint64_t value;
};

struct ka_zero {
	uint8_t *pool;
	uint64_t block_bytes;
	uint32_t n;
	uint32_t blocks[KA_ZERO_BLOCKS];
};

struct ka_copy_rows {
	uint8_t *pool;
	uint64_t block_bytes;
	uint32_t src, dst;
	uint32_t n_heads;   /* layers x 2 x KV heads */
	uint32_t head_size; /* bytes of one of them, WK_BLOCK_TOKENS rows */
	uint32_t copy_size; /* bytes of the rows to copy */
	uint32_t pad;
};

struct ka_embed {
	const uint32_t *tokens; /* or KA_DRAWN | index in drawn */
	const uint32_t *drawn;
	const uint16_t *table;
	float *h;
	uint32_t k, k_stride, h_stride;
	float scale;
};

struct ka_norm {
	const float *h, *weight;
	uint16_t *x;
	const uint32_t *rows; /* or NULL: row r is row r */
	uint32_t dim, h_stride, x_stride;
	float eps;
};

struct ka_gemm {
	const uint16_t *x, *w;
	float *out;
	const float *bias; /* of column 0 of out, or NULL */
	uint32_t m, n, k;
	uint32_t x_stride, w_stride, out_stride;
	float scale;
	uint32_t add;
	uint32_t ahead; /* bytes of a row of w that come into the cache early, a multiple of 16 */
	uint32_t first_blocks; /* whose rows do: those that begin at once */
};

struct ka_bias_add {
	float *out;
	const float *bias;
	uint32_t n, out_stride;
	float scale;
	uint32_t pad;
};

struct ka_swiglu {
	const void *y; /* [rows][2 * n]: gates, ups; fp32, or bf16 */
	uint16_t *x;
	uint32_t n, x_stride;
	uint32_t half; /* bf16; n is a multiple of 8 then */
	uint32_t pad;
};

struct ka_rope {
	const float *y;
	uint16_t *q;
	uint8_t *pool;
	const float *q_norm, *k_norm, *inv_freq;
	const struct ka_seq *row_seq; /* of each row: pos is the row's, table its first entry */
	const uint32_t *table;
	uint64_t block_bytes;
	uint64_t layer_offset; /* of this layer's K in a block */
	float norm_eps, rope_scale;
	uint32_t n_heads, n_kv, dim, dim_pad;
	uint32_t y_stride, q_stride;
};

struct ka_attn {
	const uint16_t *q;
	const uint8_t *pool;
	uint16_t *x;
	const struct ka_seq *seqs;
	const uint32_t *table;
	const uint32_t *n_units; /* how many entries units has, in device memory */
	const void *units;	 /* ka_split or ka_whole */
	float *part;		 /* [part row][head][dim_pad] */
	float *part_ml;		 /* [part row][head][2]: max, sum */
	uint64_t block_bytes;
	uint64_t layer_offset;
	uint32_t n_heads, n_kv, dim, dim_pad;
	uint32_t q_stride, x_stride, window;
	float scale; /* of the scores, times log2(e) */
};

struct ka_attn_merge {
	const struct ka_merge *rows;
	const float *part, *part_ml;
	uint16_t *x;
	uint32_t n_heads, dim, dim_pad, x_stride, window, pad;
};

struct ka_gather {
	const uint8_t *pool;
	uint8_t *tiles; /* [tile][KV head][K, V] */
	const struct ka_seq *seqs;
	const uint32_t *table;
	const struct ka_gathered *gathered; /* ascending by first */
	const struct ka_flash_counts *counts;
	uint64_t block_bytes;
	uint64_t layer_offset;
	uint32_t n_kv, dim, window, pad;
};

struct ka_flash {
	const uint16_t *q;
	uint16_t *x;
	const uint8_t *tiles;
	const struct ka_seq *seqs;
	const struct ka_gathered *gathered;
	const struct ka_whole *units;
	const struct ka_flash_counts *counts;
	uint32_t n_heads, n_kv, q_stride, x_stride, window;
	float scale; /* of the scores, times log2(e) */
};

struct ka_shrink {
	const uint16_t *x;
	const uint8_t *pool;
	const struct ka_chunk *chunks;
	uint16_t *s; /* [row][s_stride] */
	uint32_t site, k, x_stride, s_stride;
};

struct ka_expand {
	const uint16_t *s;
	const uint8_t *pool;
	const struct ka_chunk *chunks;
	float *out;
	uint32_t site, first, n; /* outputs first .. first + n - 1 go to columns 0 .. n - 1 */
	uint32_t s_stride, out_stride;
	float scale;
};

struct ka_sampling {
	const float *logits;
	float *scratch; /* [entry][stride] */
	const struct ka_sample *samples;
	const struct ka_bias *bias;
	const struct ka_count *counts;
	struct ka_sampled *out; /* host memory: every row of it has its place there */
	uint32_t *drawn;	/* [entry] its token */
	uint32_t vocab, stride;
};

#endif
