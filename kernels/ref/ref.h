/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ref.h - private parts of the reference backend.
 *
 * The reference backend is the plain reading of kernels/backend.h: one thread, fp32 everywhere,
 * no packing, every array laid out as one would draw it. The fast backends are compared with it.
 * It owns copies of everything it is given; nothing here is shared between threads.
 *
 *   weight     float [n][k], parts one under the other
 *   KV block   float [layer][k|v][kv head][WK_BLOCK_TOKENS][head_dim]
 *   LoRA piece float a[WK_LORA_CUT][k], b[n][WK_LORA_CUT]
 */
#ifndef WEFT_KERNELS_REF_H
#define WEFT_KERNELS_REF_H

#include "kernels/backend.h"
#include "kernels/drawn.h"
#include "kernels/lora.h"
#include "kernels/sample.h"

struct wk_buf {
	size_t bytes;
	void *data; /* owner */
};

struct wk_weight {
	uint32_t n, k;
	uint32_t n_gate; /* outputs of the gate part: 0 unless packed WK_PACK_GATE_UP */
	float *data;	 /* owner: [n][k] */
};

struct wk_lora {
	struct wk_lora_parts parts;
	const struct wk_buf *pool; /* borrowed: the pool that was bound when it was made */
};

struct wk_backend {
	struct wk_kv_shape kv;
	uint32_t n_blocks;		     /* of the bound pool; 0 before wk_ops.kv_bind */
	const struct wk_buf *pool;	     /* borrowed: the one bound last, until it is freed */
	struct wk_batch batch;		     /* its arrays point into those below */
	uint32_t *tokens, *table, *out_rows; /* owner */
	struct wk_seq *seqs;		     /* owner */
	struct wk_segment *segments;	     /* owner */
	const struct wk_lora **loras;	     /* owner of the array; the adapters are borrowed */
	struct wk_sample_scratch scratch;
	struct wk_drawn drawn;
	uint64_t ticket;
	uint64_t copy_ticket; /* of copies of blocks */
	int error;	      /* sticky: the first failure of a queued operation */
	char error_text[200];
};

/* Remember why a call failed; gives err back. */
int ref_fail(struct wk_backend *be, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* The same for a queued operation: sticky until the backend is closed. */
void ref_stick(struct wk_backend *be, int err, const char *what);

/* Rows start..start+head_dim of K (v false) or V of one position. */
float *ref_kv_row(const struct wk_backend *be, const struct wk_buf *pool, uint32_t block,
		  uint32_t layer, bool v, uint32_t head, uint32_t token);

size_t ref_kv_block_bytes(const struct wk_backend *be, const struct wk_kv_shape *shape);
int ref_kv_bind(struct wk_backend *be, const struct wk_kv_shape *shape, struct wk_buf *pool,
		uint32_t n_blocks);
void ref_kv_zero(struct wk_backend *be, struct wk_buf *pool, const uint32_t *blocks, uint32_t n);
void ref_kv_copy_rows(struct wk_backend *be, struct wk_buf *pool, uint32_t src, uint32_t dst,
		      uint32_t n_rows);
int ref_kv_copy_out(struct wk_backend *be, const struct wk_buf *pool,
		    const struct wk_block_copy *copies, uint32_t n, uint64_t *ret_ticket);
int ref_kv_copy_in(struct wk_backend *be, struct wk_buf *pool, const struct wk_block_copy *copies,
		   uint32_t n, uint64_t *ret_ticket);
void ref_rope_append(struct wk_backend *be, const struct wk_rope_append *op);
void ref_attention(struct wk_backend *be, const struct wk_attention *op);

size_t ref_lora_piece_bytes(const struct wk_backend *be, uint32_t n, uint32_t k);
int ref_lora_pack(const struct wk_backend *be, const struct wk_lora_source *src, uint32_t first,
		  void *dst, char ret_where[64]);
int ref_lora_new(struct wk_backend *be, const struct wk_lora_part *parts, uint32_t n_parts,
		 struct wk_lora **ret);
void ref_lora_free(struct wk_backend *be, struct wk_lora *lora);
/* The adapter of a row of this batch, or NULL. */
const struct wk_lora *ref_lora_of_row(const struct wk_backend *be, uint32_t row);
/* Whether an adapter's parts of a site lie within its weight. */
bool ref_lora_fits(const struct wk_lora *lora, uint32_t site, const struct wk_weight *w);
/* Add what an adapter changes of each output of a site, for one row of x. */
void ref_lora_row(const struct wk_lora *lora, uint32_t site, const float *x, double *delta);

int ref_weight_new(struct wk_backend *be, const struct wk_weight_part *parts, uint32_t n_parts,
		   uint32_t k, enum wk_pack pack, struct wk_weight **ret);
void ref_weight_free(struct wk_backend *be, struct wk_weight *w);
size_t ref_weight_bytes(const struct wk_weight *w);
void ref_embed(struct wk_backend *be, const struct wk_weight *table, struct wk_buf *h,
	       uint32_t h_stride, float scale);
void ref_norm(struct wk_backend *be, const struct wk_norm *op);
void ref_matmul(struct wk_backend *be, const struct wk_matmul *op);

#endif
