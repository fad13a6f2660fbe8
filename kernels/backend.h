/* SPDX-License-Identifier: Apache-2.0 */
/*
 * backend.h - the one interface between the engine and whatever computes.
 *
 * A backend is a table of functions over opaque buffers and plain descriptors. The engine never
 * sees an address of the device, a layout of packed weights or of KV blocks, or a thread. All
 * operations between wk_batch_set() and wk_record() are queued in order on the backend's one
 * stream and may complete later; nothing in a step calls back to the host, and nothing is
 * described per row except in arrays that are uploaded once per step. The CPU backend happens to
 * have finished an operation when the call returns; callers must not rely on that.
 *
 * Element types are the backend's choice, by role:
 *
 *   h       residual stream, [rows][hidden]           fp32 everywhere
 *   x       input of a matrix product, [rows][n]      wk_info.x_bytes each (ref fp32, cpu/cuda bf16)
 *   y       plain output of a matrix product          fp32 everywhere
 *   logits  [rows][vocabulary]                        fp32 everywhere
 *
 * Arithmetic contract ("batch-invariant"): the value computed for a row never depends on which
 * other rows are in the batch, on how a prompt was cut into chunks, on the number of threads or
 * on which physical blocks hold its KV. Each output element of a product is accumulated over K
 * in one fixed order. Attention cuts the keys at absolute positions WK_ATTN_CUT, handles a cut
 * in one fixed way, and merges cuts in ascending order, in prefill and decode alike.
 *
 * Whole blocks travel between the pool and host memory beside that stream, in an order of their own
 * that is tied to it where it must be: see kv_copy_out.
 *
 * Errors: functions returning int give 0 or -errno (-ENOMEM, -EIO for a lost device, -EINVAL for
 * what the backend does not support, with one line in wk_last_error()). Operations queued on the
 * stream return void: a failure there is sticky and is reported by wk_wait().
 *
 * Ownership: a backend belongs to one thread (the engine's core thread); every call but
 * wk_query() comes from it. Loading may happen on another thread before the first step.
 */
#ifndef WEFT_KERNELS_BACKEND_H
#define WEFT_KERNELS_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Trailing comments stay in columns. */
/* clang-format off */

#define WK_BLOCK_TOKENS	 16	/* positions in a KV block */
#define WK_ATTN_CUT	 256	/* keys per attention partial; absolute positions, multiple of 16 */
#define WK_MAX_ROWS	 512	/* rows of one pass that every backend takes */
#define WK_MOST_ROWS	 2048	/* the most that one may take (wk_info.max_rows) */
#define WK_MAX_LOGPROBS	 20	/* top log-probabilities per position */
#define WK_NO_TOKEN	 UINT32_MAX
#define WK_LORA_CUT	 16	/* ranks in a piece of a LoRA pair */
#define WK_POOL_ALIGN	 256	/* pieces lie in the pool at multiples of this; so do blocks */
#define WK_MAX_DRAWS	 1024	/* rows of one call of sample() */
#define WK_MAX_STEPS	 2	/* queued and not waited for; a step: batch_set up to record */
#define WK_MAX_COPIES	 64	/* calls that copy blocks and may be under way at once */

enum wk_dtype { WK_F32 = 0, WK_BF16 = 1, WK_F16 = 2 };

struct wk_backend;		/* an instance: a device, its stream, its threads */
struct wk_buf;			/* memory of the device */
struct wk_weight;		/* a matrix in the backend's packed layout */
struct wk_lora;			/* an adapter whose pieces lie in the pool */

/* How keys and values of one model are laid out; the backend derives block_bytes from it. */
struct wk_kv_shape {
	uint32_t n_layers;
	uint32_t n_kv_heads;
	uint32_t head_dim;	/* even, 8..256 */
	uint32_t min_block_bytes;	/* a block is at least so large: it may have to hold a LoRA piece */
};

struct wk_info {
	char name[16];		/* "ref", "cpu", "cuda" */
	char path[32];		/* what was chosen at run time: "avx512bf16", "avx512", "avx2" */
	uint64_t arith_rev;	/* changes whenever results may change by a bit: path, tiles, version */
	uint32_t x_bytes;	/* bytes of an element of x */
	uint32_t align_bytes;	/* alignment of rows in x, y, h: pad the row stride to this */
	uint32_t n_threads;
	uint32_t max_rows;	/* rows of one pass: WK_MAX_ROWS..WK_MOST_ROWS */
	uint32_t short_rows;	/* so many take little longer than one: for a pass that someone waits for */
	uint64_t device_bytes_free;	/* of a device with memory of its own, now; 0: the host's is used */
	bool queues;		/* operations run beside the caller, who may have the next step queued
				 * before the results of this one are known */
};

struct wk_open_options {
	uint32_t n_threads;	/* compute threads, the caller's included; 0: all online CPUs */
	bool poll_always;	/* threads spin between operations of a step and between steps */
	const char *path;	/* force an instruction set ("avx2"); NULL: WEFT_CPU_PATH, then best */
	bool deterministic;	/* cuda: a row's bits never depend on its batch (the others: always so) */
};

/* --- a step's batch ------------------------------------------------------------------------------
 *
 * Rows of one sequence are contiguous and at consecutive positions. Row r of sequence s sits at
 * position s.pos + (r - s.row) and attends to positions 0 .. itself of that sequence (or to the
 * last `window` of them). Its block table covers all of these positions, this step's included.
 */
struct wk_seq {
	uint32_t row;		/* first row in the batch */
	uint32_t n_rows;
	uint32_t pos;		/* position of the first row */
	uint32_t table;		/* index of its first entry in block_table */
};

/*
 * Rows that an adapter changes. Segments ascend, do not overlap and need not cover all rows: the
 * rest are the base model's, and a batch without segments costs nothing more than before. A
 * sequence may begin outside and end inside one, and a segment may span several sequences.
 */
struct wk_segment {
	uint32_t row, n_rows;
	uint32_t lora;		/* index in wk_batch.loras */
};

/*
 * In wk_batch.tokens: the token that row i of the last call of sample() before batch_set() drew, whoever
 * has or has not waited for it. So a step can be queued before the results of the one before it are
 * known. A given token counts as drawn, and a row with a NaN logit drew token 0. An index that this call
 * did not have is -EINVAL. In a step with such tokens embed() comes before sample().
 */
#define WK_DRAWN 0x80000000u	/* | i */

struct wk_batch {
	uint32_t n_rows;	/* 1..wk_info.max_rows */
	uint32_t n_seqs;
	uint32_t n_table;
	uint32_t n_out;			/* rows whose logits are wanted */
	const uint32_t *tokens;		/* [n_rows]; or WK_DRAWN | row of the last sample() */
	const struct wk_seq *seqs;	/* [n_seqs], ascending and gapless in row */
	const uint32_t *block_table;	/* [n_table] block numbers in the pool */
	const uint32_t *out_rows;	/* [n_out] ascending row numbers */
	uint32_t n_segments;
	const struct wk_segment *segments;
	uint32_t n_loras;
	const struct wk_lora *const *loras;	/* each named by at least one segment */
};

/* A block of the pool and its place in host memory, of kv_block_bytes. */
struct wk_block_copy {
	uint32_t block;
	void *host;	/* within memory of host_new */
};

/* --- operations ----------------------------------------------------------------------------------*/

enum wk_epilogue {
	WK_EPI_STORE,		/* y[r][j]  = scale * (acc + bias[j])                fp32 */
	WK_EPI_ADD,		/* h[r][j] += scale * (acc + bias[j])                fp32, in place */
	WK_EPI_SWIGLU,		/* x[r][j]  = silu(gate acc) * (up acc); the weight was packed with
				 * WK_PACK_GATE_UP and has n/2 outputs here */
};

struct wk_matmul {
	const struct wk_weight *w;	/* [n out][k in] */
	const struct wk_buf *x;		/* [n_rows][x_stride] */
	struct wk_buf *out;		/* y, h or x as the epilogue says: [n_rows][out_stride] */
	const struct wk_buf *bias;	/* fp32 [n], or NULL */
	uint32_t n_rows;
	uint32_t x_stride, out_stride;	/* in elements */
	uint32_t col, n_cols;		/* tile of output columns, col a multiple of 64; n_cols 0: all.
					 * out column 0 is output `col`: the logits are made in tiles */
	enum wk_epilogue epilogue;
	float scale;
	uint32_t site;			/* which product of the model this is, from 1: LoRA parts of this
					 * site take part for rows in segments; 0: none do */
};

/* --- LoRA ------------------------------------------------------------------------------------------
 *
 * For a row in a segment, the sum of output j of a part is
 *
 *	sum over ranks r, ascending, of  s[r] * B[j][r],    s[r] = round_x(scale * (A[r] . x))
 *
 * and goes on, in the same fp32 accumulator, over K as for any other row, and then through the
 * product's epilogue (bias, scale, silu). The sums A . x are fp32 in one fixed order over K; s is
 * rounded to x's element type. So an adapted row too is the same to the bit whatever else is in the
 * batch. (The ranks come first so that an adapter's pieces can be read in one go before the
 * product; after K it would be as exact.)
 *
 * One linear's pair A [rank][k], B [n][rank] is cut along the rank into pieces of WK_LORA_CUT ranks
 * (the last one padded with zeros). A piece is packed once by lora_pack() into host memory, is of
 * lora_piece_bytes(n, k), and is brought by buf_write() to any multiple of WK_POOL_ALIGN in the
 * pool. lora_new() then says where the pieces of an adapter are.
 */
struct wk_lora_source {
	const void *a, *b;	/* borrowed during the call; row-major, unaligned allowed */
	enum wk_dtype a_dtype, b_dtype;
	uint32_t rank, n, k;
};

/* One linear that an adapter changes. */
struct wk_lora_part {
	uint32_t site;
	uint32_t col, n;	/* outputs of the site's product, as its parts were stacked: for a
				 * WK_PACK_GATE_UP weight gates come first, then ups */
	uint32_t k;
	uint32_t rank;
	float scale;
	const uint64_t *pieces;	/* [ceil(rank / WK_LORA_CUT)] byte offsets in the pool; copied */
};

enum wk_pack { WK_PACK_PLAIN, WK_PACK_GATE_UP };

/* A part of a weight: rows of a [n][k] matrix as the file has them. Parts are stacked along n
 * (q, k, v as one product). With WK_PACK_GATE_UP there are two parts of equal n: gate, up. */
struct wk_weight_part {
	const void *data;	/* borrowed during the call only; row-major [n][k], unaligned allowed */
	enum wk_dtype dtype;
	uint32_t n;
};

struct wk_norm {
	const struct wk_buf *h;		/* fp32 [.][h_stride] */
	const struct wk_buf *weight;	/* fp32 [dim] */
	struct wk_buf *x;		/* x [n_rows][x_stride] */
	uint32_t n_rows, dim;
	uint32_t h_stride, x_stride;
	float eps;
	bool out_rows_only;		/* take the batch's out_rows instead of rows 0..n_rows-1 */
};

/* After the q/k/v product: optional norms of each q and k head (Qwen3), rotation, q to x, K and V
 * into the pool at this step's positions. The rotation of pair (i, i + rot/2) by the angle
 * pos * inv_freq[i]; cos and sin are both multiplied by rope_scale (yarn's attention factor). */
struct wk_rope_append {
	const struct wk_buf *y;		/* fp32 [n_rows][y_stride]: q heads, k heads, v heads */
	struct wk_buf *q;		/* x [n_rows][n_heads * head_dim] */
	struct wk_buf *pool;
	const struct wk_buf *q_norm, *k_norm;	/* fp32 [head_dim] or NULL */
	const struct wk_buf *inv_freq;	/* fp32 [head_dim / 2] */
	float norm_eps;
	float rope_scale;
	uint32_t layer;
	uint32_t n_heads;
	uint32_t y_stride, q_stride;
};

struct wk_attention {
	const struct wk_buf *q;		/* as wk_rope_append left it */
	const struct wk_buf *pool;
	struct wk_buf *x;		/* [n_rows][n_heads * head_dim] */
	uint32_t layer;
	uint32_t n_heads;		/* a multiple of the KV heads */
	uint32_t q_stride, x_stride;
	uint32_t window;		/* attend to the last `window` positions, own included; 0: all */
	float scale;			/* of the scores */
};

/* --- sampling ------------------------------------------------------------------------------------
 *
 * One entry per row of logits. The order of processing: bias; penalties (repetition over prompt
 * and output tokens, presence and frequency over output tokens); temperature; top_k; top_p;
 * min_p; draw. Log-probabilities are of the model's own distribution: log-softmax of the logits
 * before any of these. Ties go to the lowest id. temperature 0 is greedy (bias and penalties
 * apply). The uniform number comes from wk_uniform(seed, sample, position) alone.
 */
struct wk_count {
	uint32_t token;
	uint32_t in_output;	/* occurrences among generated tokens */
	uint32_t in_prompt;	/* occurrences in the prompt */
};

struct wk_bias {
	uint32_t token;
	float value;		/* added to the logit; -INFINITY forbids the token */
};

struct wk_sample {
	uint32_t row;			/* of logits */
	float temperature;		/* >= 0 */
	uint32_t top_k;			/* 0: off */
	float top_p;			/* 1: off */
	float min_p;			/* 0: off */
	float repetition_penalty;	/* 1: off */
	float presence_penalty, frequency_penalty;	/* 0: off */
	uint64_t seed;
	uint32_t sample;		/* which of the request's n answers */
	uint32_t position;		/* of the token being drawn */
	uint32_t n_logprobs;		/* top log-probabilities wanted, <= WK_MAX_LOGPROBS */
	uint32_t given;			/* not WK_NO_TOKEN: draw nothing, report this token's
					 * log-probability (prompt log-probabilities, teacher forcing) */
	const struct wk_count *counts;	/* borrowed during the call; ascending by token */
	uint32_t n_counts;
	const struct wk_bias *bias;	/* borrowed during the call */
	uint32_t n_bias;
};

struct wk_sampled {
	uint32_t token;
	float logprob;			/* NaN: the row had a NaN logit; token is then 0 */
	uint32_t top_tokens[WK_MAX_LOGPROBS];	/* descending, ties by ascending id */
	float top_logprobs[WK_MAX_LOGPROBS];
};

/* A uniform number in [0, 1) from (seed, sample, position): the same on every backend. */
float wk_uniform(uint64_t seed, uint32_t sample, uint32_t position);

/* --- the table -----------------------------------------------------------------------------------*/

struct wk_ops {
	uint32_t abi;		/* WK_ABI */
	const char *name;

	/* -EAGAIN: this process cannot have the device, and one that begins anew with the environment as
	 * it is now can. */
	int (*open)(const struct wk_open_options *opt, struct wk_backend **ret);
	void (*close)(struct wk_backend *be);	/* NULL allowed */
	void (*info)(const struct wk_backend *be, struct wk_info *ret);
	/* NULL: of an open that failed. Of a backend just opened: what it has to do without, or "". */
	const char *(*last_error)(const struct wk_backend *be);

	/* Memory. Fresh buffers are zero. write and read are synchronous with the stream's end. */
	int (*buf_new)(struct wk_backend *be, size_t bytes, struct wk_buf **ret);
	void (*buf_free)(struct wk_backend *be, struct wk_buf *buf);	/* NULL allowed */
	int (*buf_write)(struct wk_backend *be, struct wk_buf *buf, size_t off, const void *src,
			 size_t bytes);
	int (*buf_read)(struct wk_backend *be, const struct wk_buf *buf, size_t off, void *dst,
			size_t bytes);
	/* Host address of a buffer where the device shares the host's memory, else NULL. */
	void *(*buf_host)(struct wk_buf *buf);

	/* Weights: packs once. A NaN or Inf is -EDOM with its part, row and column in last_error. */
	int (*weight_new)(struct wk_backend *be, const struct wk_weight_part *parts, uint32_t n_parts,
			  uint32_t k, enum wk_pack pack, struct wk_weight **ret);
	void (*weight_free)(struct wk_backend *be, struct wk_weight *w);
	size_t (*weight_bytes)(const struct wk_weight *w);

	/* KV blocks. The pool is one buffer of n blocks; a block holds all layers contiguously. */
	size_t (*kv_block_bytes)(const struct wk_backend *be, const struct wk_kv_shape *shape);
	int (*kv_bind)(struct wk_backend *be, const struct wk_kv_shape *shape, struct wk_buf *pool,
		       uint32_t n_blocks);
	void (*kv_zero)(struct wk_backend *be, struct wk_buf *pool, const uint32_t *blocks, uint32_t n);
	/* Copy rows 0..n_rows-1 of block src to dst, all layers; the rest of dst becomes zero. */
	void (*kv_copy_rows)(struct wk_backend *be, struct wk_buf *pool, uint32_t src, uint32_t dst,
			     uint32_t n_rows);

	/*
	 * Host memory for copies of blocks: page-locked where a device has memory of its own, else
	 * plain. Its contents are undefined at first. host_free (NULL allowed) waits for copies, and
	 * comes before close.
	 */
	int (*host_new)(struct wk_backend *be, size_t bytes, void **ret);
	void (*host_free)(struct wk_backend *be, void *host, size_t bytes);
	/*
	 * Copies of n whole blocks from the bound pool to the host, or back. The list is copied; the
	 * call queues and does not wait, for the host or for the device, and may come within a step.
	 *
	 * All copies are done in the order of their calls, those of one call in no order. Each begins
	 * when all that was queued before it has ended. What is queued after a copy in sees what it
	 * brought, so waits for it on the device: whoever has work that need not wait copies little at
	 * a time. What is queued after a copy out does not wait. Until its ticket is done the caller
	 * therefore queues nothing that writes its blocks, copies in excepted, and reads nothing at
	 * its places; until the ticket of a copy in is done he writes nothing there. Within one call
	 * nothing is written twice: no place by a copy out, no block by a copy in.
	 *
	 * -EINVAL: another pool than the bound one, a block past its end, or, where pages are locked,
	 * a place that is not in such memory. -EAGAIN: WK_MAX_COPIES calls are under way; wait for one.
	 * -ENOMEM: no memory for the list or the ticket. In these cases nothing was copied; whatever
	 * happens later is sticky. n may be 0.
	 */
	int (*kv_copy_out)(struct wk_backend *be, const struct wk_buf *pool,
			   const struct wk_block_copy *copies, uint32_t n, uint64_t *ret_ticket);
	int (*kv_copy_in)(struct wk_backend *be, struct wk_buf *pool,
			  const struct wk_block_copy *copies, uint32_t n, uint64_t *ret_ticket);
	/* As query and wait, for tickets of copies, which get done in the order they were given. */
	int (*copy_query)(struct wk_backend *be, uint64_t ticket);
	int (*copy_wait)(struct wk_backend *be, uint64_t ticket);

	/*
	 * LoRA. Parts of one site have disjoint outputs. piece_bytes and pack touch nothing of the
	 * instance and may be called from any thread; pack gives -EDOM, with matrix, row and column in
	 * *ret_where, for a NaN or Inf in the ranks first..first+WK_LORA_CUT-1 ("A", row, column).
	 * A wk_lora may be freed when no pass that uses it is under way.
	 */
	size_t (*lora_piece_bytes)(const struct wk_backend *be, uint32_t n, uint32_t k);
	int (*lora_pack)(const struct wk_backend *be, const struct wk_lora_source *src, uint32_t first,
			 void *dst, char ret_where[64]);
	int (*lora_new)(struct wk_backend *be, const struct wk_lora_part *parts, uint32_t n_parts,
			struct wk_lora **ret);
	void (*lora_free)(struct wk_backend *be, struct wk_lora *lora);	/* NULL allowed */

	/*
	 * A step: one batch_set, then operations, then record; the arrays are copied by batch_set. Of
	 * WK_MAX_STEPS steps the first must have been waited for before another begins; model, buffers
	 * and adapters are then all in use by both.
	 */
	int (*batch_set)(struct wk_backend *be, const struct wk_batch *batch);
	/* h[r] = scale * table[token[r]]; the table is a weight of [vocabulary][hidden], packed
	 * WK_PACK_PLAIN, so that a tied head needs no second copy. */
	void (*embed)(struct wk_backend *be, const struct wk_weight *table, struct wk_buf *h,
		      uint32_t h_stride, float scale);
	void (*norm)(struct wk_backend *be, const struct wk_norm *op);
	void (*matmul)(struct wk_backend *be, const struct wk_matmul *op);
	void (*rope_append)(struct wk_backend *be, const struct wk_rope_append *op);
	void (*attention)(struct wk_backend *be, const struct wk_attention *op);
	/* Results are in `out`, which stays until then, once the wait for this step returns. logits:
	 * [.][stride], vocab columns used. n is up to WK_MAX_DRAWS; several rows may be drawn from one
	 * row of logits, and there may be several calls in a step, at most 8. */
	void (*sample)(struct wk_backend *be, const struct wk_buf *logits, uint32_t stride,
		       uint32_t vocab, const struct wk_sample *rows, uint32_t n,
		       struct wk_sampled *out);

	/* record marks the stream's end and returns a ticket; query: 1 done, 0 not yet, or -errno;
	 * wait returns 0 or the sticky error. */
	uint64_t (*record)(struct wk_backend *be);
	int (*query)(struct wk_backend *be, uint64_t ticket);
	int (*wait)(struct wk_backend *be, uint64_t ticket);
	/* The engine is about to sleep (true) or has work again (false): threads park or spin. */
	void (*idle)(struct wk_backend *be, bool idle);

	/*
	 * Between steps: have fn(arg) called by a thread of the backend's that is awake and has nothing
	 * to compute, beside what the caller goes on to do. true: it is being called, or will be, and
	 * arg stays as it is until then. false: nobody is free, or the last one is still under way; the
	 * caller had better call it itself. aside_end: if no thread has come to it yet (it may not be
	 * scheduled), it is called now; does not wait for one that has. Both NULL: never anybody.
	 */
	bool (*aside)(struct wk_backend *be, void (*fn)(void *arg), void *arg);
	void (*aside_end)(struct wk_backend *be);
};

#define WK_ABI 6

extern const struct wk_ops wk_ref_ops;
extern const struct wk_ops wk_cpu_ops;

/* The table of a backend that is linked in, by name ("ref", "cpu"), or NULL. module.h has the others. */
const struct wk_ops *wk_ops_by_name(const char *name);

#endif
