/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuda.h - the CUDA backend's private header: what its files share with one another.
 *
 *   driver.c, blas.c	the two libraries, opened at run time
 *   cuda.c		opens a backend: device, kernels, table of operations
 *   memory.c		buffers, the pool, transfers
 *   queue.c		a step's launches: collected, then sent, or replayed as a graph
 *   step.c		the batch, tickets, waiting
 *   copies.c		whole blocks to the host and back
 *   linear.c		weights, embedding, norm, products
 *   attention.c	KV blocks, rotation, attention
 *   lora.c, sample.c
 *   *.cu		the kernels; args.h is what both sides share
 *
 * One stream does everything but copies of blocks, in the order of the calls; these have one of their
 * own. Operations between batch_set and record are only noted (queue.c) and sent together; everything
 * else goes to the stream at once. All device memory that a step needs is there before the first step,
 * so that addresses in a step's launches never change, and equal steps are equal lists of launches.
 *
 * Two steps may be under way (WK_MAX_STEPS). On the device one set of arrays and scratch serves both: the
 * second step's uploads are behind the first step's kernels on the stream. What the host writes has a
 * place for each: an upload's pinned memory (cuda_slot), results (a ring). Memory that must grow waits for
 * the device before it is given back; so do buf_free, buf_write and buf_read. Growth is by doubling.
 *
 * A backend belongs to the engine's core thread. Every call into the driver is checked: cu_ok()
 * records what was called, on what, and the driver's name for the failure. A failure of a queued
 * operation is sticky, as kernels/backend.h has it.
 */
#ifndef WEFT_KERNELS_CUDA_H
#define WEFT_KERNELS_CUDA_H

#include "kernels/backend.h"
#include "kernels/cuda/args.h"
#include "kernels/cuda/blas.h"
#include "kernels/cuda/driver.h"
#include "kernels/drawn.h"
#include "kernels/lora.h"

#define WK_CUDA_REV   5u /* raise whenever a result may change by a bit */
#define CUDA_LOG2E    1.44269504088896340736f
#define WK_CUDA_ALIGN 128 /* of rows of x, y and h: a sector of the cache or more */

/* X(kernel, file). Attention: one for each step of head sizes, whole and split. */
#define CUDA_KERNELS(X)                 \
	X(wk_mark, basic)               \
	X(wk_zero, basic)               \
	X(wk_copy_rows, basic)          \
	X(wk_embed, basic)              \
	X(wk_norm, basic)               \
	X(wk_bias_add, basic)           \
	X(wk_swiglu, basic)             \
	X(wk_rope, basic)               \
	X(wk_gemm_16, gemm)             \
	X(wk_gemm_64, gemm)             \
	X(wk_gemm_128, gemm)            \
	X(wk_attn_whole_32, attention)  \
	X(wk_attn_split_32, attention)  \
	X(wk_attn_whole_64, attention)  \
	X(wk_attn_split_64, attention)  \
	X(wk_attn_whole_80, attention)  \
	X(wk_attn_split_80, attention)  \
	X(wk_attn_whole_96, attention)  \
	X(wk_attn_split_96, attention)  \
	X(wk_attn_whole_128, attention) \
	X(wk_attn_split_128, attention) \
	X(wk_attn_whole_256, attention) \
	X(wk_attn_split_256, attention) \
	X(wk_attn_merge, attention)     \
	X(wk_flash_gather, flash)       \
	X(wk_flash_64, flash)           \
	X(wk_flash_128, flash)          \
	X(wk_shrink, lora)              \
	X(wk_expand, lora)              \
	X(wk_sample, sample)

enum cuda_kernel {
#define CUDA_KERNEL(name, file) K_##name,
	CUDA_KERNELS(CUDA_KERNEL)
#undef CUDA_KERNEL
		K_COUNT
};

struct wk_buf {
	cu_ptr at;
	size_t bytes;
	size_t mapped;	  /* bytes of mapped physical memory; 0: a plain allocation */
	cu_memory memory; /* owner, if mapped */
};

struct wk_weight {
	uint32_t n, k, k_stride;
	uint32_t n_gate;     /* outputs of the gate part: 0 unless packed WK_PACK_GATE_UP */
	struct wk_buf *data; /* owner: bf16 [n][k_stride], parts one under the other */
};

struct wk_lora {
	struct wk_lora_parts parts;
	struct wk_buf *device; /* owner: a ka_lora with its arrays behind it */
	uint32_t max_cuts;     /* of any site */
};

/* Memory that both sides see; written by one, read by the other. */
struct cuda_shared {
	void *host;
	cu_ptr device;
	size_t bytes;
};

/* --- queue.c -----------------------------------------------------------------------------------------*/

/* A launch as noted: its arguments follow it in the list. */
struct cuda_launch {
	uint16_t kernel; /* K_COUNT: a product by cuBLASLt */
	uint16_t arg_bytes;
	uint32_t grid[3], block, shared_bytes;
};

struct cuda_queue {
	char *list; /* owner: launches with their arguments, 8-byte aligned */
	size_t used, room;
	uint32_t n;
	bool open; /* between batch_set and record */
};

#define CUDA_GRAPHS 128
#define CUDA_SEEN   64 /* lists that came once */

/* A list that came more than once; list NULL: none. */
struct cuda_graph {
	uint64_t hash, last_used;
	char *list; /* owner: a copy, compared before the graph is used */
	size_t bytes;
	cu_graph_exec exec; /* owner */
};

/* --- step.c ------------------------------------------------------------------------------------------*/

#define CUDA_SLOTS   4 /* steps whose upload may be under way; more than WK_MAX_STEPS */
#define CUDA_CALLS   (8 * WK_MAX_STEPS)		   /* of sample, not waited for */
#define CUDA_RESULTS (WK_MAX_DRAWS * WK_MAX_STEPS) /* rows of these; a power of 2 */

/* The arrays of a step in device memory, placed for its number of rows; offsets in bytes. */
struct cuda_layout {
	size_t tokens, row_seq, out_rows, seqs, chunks, table;
	size_t n_units, whole, split, merge, flash_counts, flash, gathered, units_bytes;
};

/* Pinned memory that an upload comes from, until its ticket is done. */
struct cuda_slot {
	struct cuda_shared batch, units, samples;
	uint64_t ticket;
	uint64_t sampled; /* of the step that samples were last uploaded in */
};

/* Results of one call of sample, until they are handed out. */
struct cuda_results {
	struct wk_sampled *out; /* borrowed until the wait */
	uint32_t first, n;	/* in be->results, modulo CUDA_RESULTS */
	uint64_t ticket;	/* of the step's end */
};

/* --- copies.c ----------------------------------------------------------------------------------------*/

/* Memory that was given out for copies. */
struct cuda_host {
	struct cuda_host *next;
	char *at; /* the caller's */
	size_t bytes;
};

struct cuda_copies {
	cu_stream stream;
	cu_event before;	      /* on the other stream: where the call made last begins */
	cu_event done[WK_MAX_COPIES]; /* of ticket t: t % WK_MAX_COPIES */
	uint64_t ticket, finished;    /* given out last; known to be done, as all before it */
	int batches;		      /* 2: copy_batch, 1: copy_batch_12, 0: one by one */
	cu_ptr *to, *from; /* owner: of a call's copies, blocks that adjoin taken together */
	size_t *bytes;	   /* owner */
	uint32_t room;
	struct cuda_host *hosts; /* owner of the descriptions */
};

struct wk_backend {
	struct cu_driver cu;
	cu_device device;
	cu_context context;
	cu_stream stream;
	cu_module modules[6];
	cu_function functions[K_COUNT];
	int capability, multiprocessors;
	uint32_t shared_bytes; /* that a thread block may have */
	uint32_t fetch_bytes;  /* of weights that come into the cache early (linear.c); 0: none */
	bool deterministic, graphs_on;
	bool small;   /* products of few rows by our own kernel, even where there is cuBLASLt */
	bool overlap; /* launches may begin before those before them have ended (queue.c) */
	char device_name[64];
	struct blas *blas; /* owner; NULL: own kernels */
	struct wk_buf *blas_space;

	struct wk_kv_shape kv;
	size_t block_bytes;
	uint32_t n_blocks;	   /* of the bound pool; 0 before kv_bind */
	const struct wk_buf *pool; /* borrowed: the one bound last, until it is freed */

	/* The batch, on the host. */
	struct wk_batch batch;
	uint32_t tokens[WK_MOST_ROWS];
	struct wk_seq seqs[WK_MOST_ROWS];
	uint32_t n_chunks, max_cuts; /* of LoRA */
	const struct wk_lora *loras[WK_MOST_ROWS];
	uint32_t max_token;
	uint32_t table_room;
	struct cuda_layout at;
	struct wk_buf *arrays, *units; /* owner: on the device */
	struct cuda_slot slots[CUDA_SLOTS];
	uint32_t slot; /* of this step */

	/* Attention's division of this batch, made when its group is known. */
	uint32_t group; /* 0: not made yet */
	bool flashed;	/* made for operations that flash.cu can do */
	uint32_t n_whole, n_split, n_flash;
	struct wk_buf *part, *part_ml; /* owner: partial results of split rows */
	uint32_t part_rows;	       /* room in them, in rows */
	uint32_t part_heads;	       /* for which they were made */

	bool flash, flash_checking; /* flash.cu is used; its check is not over */
	bool flash_all;		    /* wherever it can be */
	struct wk_buf *tiles;	    /* owner: K and V of a layer, gathered */
	uint32_t tiles_room;

	struct wk_buf *glu; /* owner: gates and ups of a pass */
	struct wk_buf *s;   /* owner: what LoRA shrinks to */

	struct wk_buf *samples, *scratch; /* owner: arguments and adjusted rows of sample */
	struct cuda_shared results;	  /* owner: a ring of CUDA_RESULTS struct ka_sampled */
	struct cuda_results calls[CUDA_CALLS];
	uint32_t n_calls, n_results; /* not handed out: calls, and rows of them */
	uint32_t next_result;	     /* modulo CUDA_RESULTS; the oldest is n_results before it */

	/* Of the last call of sample: its tokens, on the device, and what the host knows of them. */
	struct wk_buf *drawn; /* owner: uint32_t [WK_MAX_DRAWS] */
	uint32_t n_drawn;
	uint32_t drawn_most[WK_MAX_DRAWS]; /* the largest that each of them can be */

	struct cuda_queue queue;
	struct cuda_graph graphs[CUDA_GRAPHS];
	uint64_t graph_clock;
	uint64_t seen[CUDA_SEEN]; /* hashes, a ring */
	uint32_t n_seen;

	struct cuda_shared done; /* owner: the ticket that is done, written by the device */
	uint64_t ticket;	 /* given out last */
	uint64_t asked_ns;	 /* when the driver was asked last whether anything has failed */
	struct cuda_shared staging[2]; /* owner: of transfers */
	cu_event staged[2];

	struct cuda_copies copies;

	int sticky; /* the first failure of a queued operation, or of the device */
	char error[256];
};

/* --- cuda.c ------------------------------------------------------------------------------------------*/

/* Remember why a call failed; gives -err back. */
int cuda_fail(struct wk_backend *be, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* The same for a queued operation: sticky until the backend is closed. */
void cuda_stick(struct wk_backend *be, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* The failure that was recorded last becomes sticky. */
void cuda_stick_last(struct wk_backend *be, int r);
/* 0, or -ENOMEM or -EIO with `call` and `what` recorded. All but out of memory are sticky. */
int cuda_check(struct wk_backend *be, cu_result r, const char *call, const char *what);
/* Make the context this thread's; whoever opened the backend may be another. */
void cuda_enter(const struct wk_backend *be);
#define cu_ok(be, call, what, ...) \
	cuda_check(be, (cuda_enter(be), (be)->cu.call(__VA_ARGS__)), #call, what)

/* --- memory.c ----------------------------------------------------------------------------------------*/

int cuda_buf_new(struct wk_backend *be, size_t bytes, struct wk_buf **ret);
void cuda_buf_free(struct wk_backend *be, struct wk_buf *buf);
int cuda_buf_write(struct wk_backend *be, struct wk_buf *buf, size_t off, const void *src,
		   size_t bytes);
int cuda_buf_read(struct wk_backend *be, const struct wk_buf *buf, size_t off, void *dst,
		  size_t bytes);
/* At least so many bytes in *buf, whose contents are lost; waits for the stream if it must move. */
int cuda_reserve(struct wk_backend *be, struct wk_buf **buf, size_t bytes);
int cuda_shared_reserve(struct wk_backend *be, struct cuda_shared *s, size_t bytes);
void cuda_shared_free(struct wk_backend *be, struct cuda_shared *s);
/* Fill device memory from a function that writes a piece at a time into pinned memory. */
typedef int (*cuda_fill_fn)(void *arg, size_t off, void *dst, size_t bytes);
int cuda_upload(struct wk_backend *be, cu_ptr to, size_t bytes, size_t unit, cuda_fill_fn fill,
		void *arg);

/* --- queue.c -----------------------------------------------------------------------------------------*/

/* Note a launch, or outside of a step launch at once. */
void cuda_launch(struct wk_backend *be, enum cuda_kernel k, uint32_t gx, uint32_t gy,
		 uint32_t block, uint32_t shared_bytes, const void *args, size_t arg_bytes);
void cuda_product(struct wk_backend *be, const struct blas_product *p);
/* Send what was noted. */
void cuda_flush(struct wk_backend *be);
void cuda_queue_fini(struct wk_backend *be);

/* --- the rest ----------------------------------------------------------------------------------------*/

int cuda_step_init(struct wk_backend *be);
void cuda_step_fini(struct wk_backend *be);
int cuda_batch_set(struct wk_backend *be, const struct wk_batch *b);
uint64_t cuda_record(struct wk_backend *be);
int cuda_query(struct wk_backend *be, uint64_t ticket);
int cuda_wait(struct wk_backend *be, uint64_t ticket);
/* The ticket that is done, and all before it. */
uint64_t cuda_done(const struct wk_backend *be);
/* Wait for all that is on the stream. */
int cuda_drain(struct wk_backend *be);

int cuda_copies_init(struct wk_backend *be);
void cuda_copies_fini(struct wk_backend *be);
/* Until no copy is under way, whatever has failed: memory is given back next. */
void cuda_copies_settle(struct wk_backend *be);
int cuda_host_new(struct wk_backend *be, size_t bytes, void **ret);
void cuda_host_free(struct wk_backend *be, void *host, size_t bytes);
int cuda_kv_copy_out(struct wk_backend *be, const struct wk_buf *pool,
		     const struct wk_block_copy *copies, uint32_t n, uint64_t *ret_ticket);
int cuda_kv_copy_in(struct wk_backend *be, struct wk_buf *pool, const struct wk_block_copy *copies,
		    uint32_t n, uint64_t *ret_ticket);
int cuda_copy_query(struct wk_backend *be, uint64_t ticket);
int cuda_copy_wait(struct wk_backend *be, uint64_t ticket);

int cuda_weight_new(struct wk_backend *be, const struct wk_weight_part *parts, uint32_t n_parts,
		    uint32_t k, enum wk_pack pack, struct wk_weight **ret);
void cuda_weight_free(struct wk_backend *be, struct wk_weight *w);
size_t cuda_weight_bytes(const struct wk_weight *w);
void cuda_embed(struct wk_backend *be, const struct wk_weight *table, struct wk_buf *h,
		uint32_t h_stride, float scale);
void cuda_norm(struct wk_backend *be, const struct wk_norm *op);
void cuda_matmul(struct wk_backend *be, const struct wk_matmul *op);

size_t cuda_kv_block_bytes(const struct wk_backend *be, const struct wk_kv_shape *shape);
int cuda_kv_bind(struct wk_backend *be, const struct wk_kv_shape *shape, struct wk_buf *pool,
		 uint32_t n_blocks);
void cuda_kv_zero(struct wk_backend *be, struct wk_buf *pool, const uint32_t *blocks, uint32_t n);
void cuda_kv_copy_rows(struct wk_backend *be, struct wk_buf *pool, uint32_t src, uint32_t dst,
		       uint32_t n_rows);
void cuda_rope_append(struct wk_backend *be, const struct wk_rope_append *op);
void cuda_attention(struct wk_backend *be, const struct wk_attention *op);

/* What of a batch goes by flash.cu. */
struct cuda_flash_division {
	struct ka_flash_counts counts;
	struct ka_whole *units;
	struct ka_gathered *gathered;
};

/* Whether it is used on this device, wanted (be->flash) and right; all errors but of memory are sticky. */
int cuda_flash_open(struct wk_backend *be);
/* Whether flash.cu can do this operation; its memory; whether the batch has enough for it; then for each
 * sequence whether it goes this way; and the order of their units. */
bool cuda_flash_fits(const struct wk_backend *be, const struct wk_attention *op);
int cuda_flash_reserve(struct wk_backend *be);
bool cuda_flash_fills(const struct wk_backend *be, uint32_t group);
bool cuda_flash_add(const struct wk_backend *be, struct cuda_flash_division *d,
		    const struct wk_seq *s, uint32_t index, uint32_t group);
void cuda_flash_sort(const struct wk_backend *be, struct cuda_flash_division *d);
void cuda_flash_run(struct wk_backend *be, const struct ka_attn *a);

size_t cuda_lora_piece_bytes(const struct wk_backend *be, uint32_t n, uint32_t k);
int cuda_lora_pack(const struct wk_backend *be, const struct wk_lora_source *src, uint32_t first,
		   void *dst, char ret_where[64]);
int cuda_lora_new(struct wk_backend *be, const struct wk_lora_part *parts, uint32_t n_parts,
		  struct wk_lora **ret);
void cuda_lora_free(struct wk_backend *be, struct wk_lora *lora);
/* The LoRA part of a product: outputs first .. first + n - 1 go to n columns of out. */
void cuda_lora_shrink(struct wk_backend *be, const struct wk_matmul *op);
void cuda_lora_expand(struct wk_backend *be, const struct wk_matmul *op, uint32_t first, uint32_t n,
		      cu_ptr out, uint32_t out_stride, float scale);
/* Whether any row of this batch's adapters changes this product; false sticks if one does not fit. */
bool cuda_lora_applies(struct wk_backend *be, const struct wk_matmul *op);

void cuda_sample(struct wk_backend *be, const struct wk_buf *logits, uint32_t stride,
		 uint32_t vocab, const struct wk_sample *rows, uint32_t n, struct wk_sampled *out);

static inline uint32_t cuda_div_up(uint32_t a, uint32_t b)
{
	return (a + b - 1) / b;
}

#endif
