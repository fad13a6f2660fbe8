/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu.h - the CPU backend's private header: what its files share with one another.
 *
 *   cpu.c       opens a backend, chooses the instruction set; buffers, batch, table of operations
 *   pool.c      the compute threads
 *   memory.c    mappings for buffers, weights and scratch
 *   weight.c    packing of weights, embed
 *   matmul.c    matrix products: blocking, division among threads; matmul_<path>.c the kernels
 *   lora.c      adapters: pieces, and their part in a product (lora.h)
 *   norm.c      rmsnorm
 *   rope.c, kv.c, attention.c, attention_<path>.c, sample.c
 *
 * Everything runs when it is called: a stream's end is where the caller stands. Buffers are host
 * memory, 64-byte aligned.
 *
 * A source whose name ends in _avx512bf16.c, _avx512.c or _avx2.c is compiled with that path's
 * instructions (kernels/rules.mk) and must be reached through a table only, never directly;
 * everything else is compiled for the baseline and runs anywhere.
 *
 * bf16 is carried in uint16_t. Rounding from fp32 is to nearest, ties to even, NaN to a quiet NaN,
 * denormals kept, on every path: see wk_bf16_round() and its vector forms. The instruction
 * VDPBF16PS reads denormals as zero and flushes its results, which is one reason why the path is
 * part of wk_info.arith_rev.
 */
#ifndef WEFT_KERNELS_CPU_H
#define WEFT_KERNELS_CPU_H

#include "kernels/backend.h"
#include "kernels/drawn.h"

#include <string.h>

#define WK_CPU_ALIGN	 64u
#define WK_CPU_REV	 1u		   /* raise whenever a result may change by a bit */
#define WK_CPU_PANEL	 64u		   /* columns of a panel of packed weights */
#define WK_SCRATCH_BYTES ((size_t)1 << 20) /* per thread: WK_MAX_ROWS x WK_CPU_PANEL fp32 fit */

/* Loops over an array of vector registers must vanish, or the array goes to memory. */
#ifdef __clang__
#define WK_UNROLL _Pragma("clang loop unroll(full)")
#else
#define WK_UNROLL _Pragma("GCC unroll 16")
#endif

/* --- threads -----------------------------------------------------------------------------------*/

/*
 * The pool: the calling thread (worker 0) and n_threads - 1 of its own (workers 1..).
 *
 * wk_pool_run() calls fn(arg, chunk, thread) once for each chunk in 0..n_chunks-1 and returns when
 * all have returned; what they wrote is visible to the caller. Chunks are claimed one at a time in
 * ascending order, by whichever thread is free, so a result must never depend on `thread`. A
 * thread that is not scheduled holds up nothing but the chunk it has claimed: make several chunks
 * per thread. fn must not call wk_pool_run(). One thread at a time may call into a pool.
 *
 * Between runs a thread spins for at most 50 us and then sleeps in the kernel; with poll_always it
 * spins until wk_pool_idle(pool, true).
 */
struct wk_pool;
typedef void (*wk_chunk_fn)(void *arg, uint32_t chunk, uint32_t thread);

int wk_pool_new(uint32_t n_threads, bool poll_always, struct wk_pool **ret);
void wk_pool_free(struct wk_pool *pool); /* NULL allowed */
void wk_pool_run(struct wk_pool *pool, wk_chunk_fn fn, void *arg, uint32_t n_chunks);
void wk_pool_idle(struct wk_pool *pool, bool idle);
/* As wk_ops.aside and aside_end say. */
bool wk_pool_aside(struct wk_pool *pool, void (*fn)(void *arg), void *arg);
void wk_pool_aside_end(struct wk_pool *pool);
uint32_t wk_pool_threads(const struct wk_pool *pool);
/* WK_SCRATCH_BYTES of a thread's own, 64-byte aligned, contents undefined between chunks. */
void *wk_pool_scratch(struct wk_pool *pool, uint32_t thread);

/* --- instruction sets --------------------------------------------------------------------------*/

enum wk_cpu_path { WK_CPU_AVX2, WK_CPU_AVX512, WK_CPU_AVX512BF16, WK_CPU_N_PATHS };

#define WK_TILE_ROWS 6

/* One tile of a product over one block of K: up to WK_TILE_ROWS rows x one panel. */
struct wk_tile {
	const void *x;	   /* packed rows (pack_x), at this block of K */
	const uint16_t *w; /* the panel, at this block of K: [pairs][64][2] */
	float *acc;	   /* [rows][64]: read unless `first`, then written */
	uint32_t rows;	   /* 1..WK_TILE_ROWS */
	uint32_t pairs;	   /* of K */
	bool first;
	const char *prefetch;	 /* memory wanted next: `prefetch_lines` lines of it per pair */
	uint32_t prefetch_lines; /* 0..4 */
};

/*
 * How far ahead, in bytes, a piece is asked for while it is read from end to end: first A, whose last
 * requests are for B's first lines, then B. Measured: 2 KB 0.72 of base, 8 and 12 KB 0.76 (16 rows of
 * shape 135m's products under eight adapters, one thread).
 */
#define WK_LORA_AHEAD 8192u

/*
 * A run of rows through the ranks of one or two cuts, over one block of K. Each row and rank is two
 * chains of sums, of even and of odd pairs.
 */
#define WK_SHRINK_ACC 64u /* floats of a row: [2 cuts][2 chains][16] */
struct wk_shrink {
	const char *x;	  /* packed rows, at this block of K; a row's pair beside the next row's */
	size_t x_step;	  /* from pair to pair, in bytes */
	const char *a[2]; /* of each cut, at this block: [pairs][16][2] bf16 */
	float scale[2];
	float *acc;    /* [rows][WK_SHRINK_ACC]: read unless `first`, written unless `last` */
	char *s;       /* after the last block: [cuts][8 pairs][rows], as pack_x leaves pairs */
	uint32_t rows; /* 1..WK_TILE_ROWS */
	uint32_t pairs;
	uint32_t cuts; /* 1 or 2 */
	bool first, last;
};

/* A run of rows into one or both halves of a panel's sums: acc (+)= s B, cut after cut. */
struct wk_expand_half {
	const char *s; /* [n][8 pairs][rows], as pack_x leaves pairs */
	const char *base;
	const uint64_t *offsets; /* B of cut i is at base + offsets[i]: [8 pairs][32][2] bf16 */
};
struct wk_expand {
	struct wk_expand_half half[2];
	float *acc;	 /* [rows], WK_CPU_PANEL apart; 32 of each, or 64 */
	uint32_t n;	 /* cuts, of either half */
	uint32_t rows;	 /* 1..WK_TILE_ROWS */
	uint32_t halves; /* 1 or 2 */
	bool first;	 /* acc is written only, as if it had been zero */
	/* The same for `panels` panels: acc and B of each from the one before, in floats and bytes. */
	uint32_t panels;
	size_t acc_step, b_step;
	uint32_t ahead; /* bytes from B to what will be wanted of it next, to ask for; 0: nothing */
	const char *next; /* what will be wanted after the last panel's B; NULL: nothing known */
};

/*
 * Where to ask for what comes `ahead` bytes after B: past the last panel, in what follows. `off`: of B
 * in its panel.
 */
static inline const char *wk_expand_ahead(const struct wk_expand *e, const char *b, uint32_t off,
					  uint32_t panel)
{
	size_t at = panel * e->b_step + e->ahead, end = e->panels * e->b_step;

	return e->next && at >= end ? e->next + (at - end) + off : b + e->ahead;
}

/* What one path implements of this backend's dense operations. */
struct wk_cpu_kernels {
	const char *name;
	uint32_t x_pair_bytes; /* of two elements of one row as pack_x leaves them */
	/* Pack elements k0 .. k0+2*pairs-1 (those >= k as 0) of `rows` rows of x: [pairs][rows]. */
	void (*pack_x)(void *dst, const uint16_t *x, size_t stride, uint32_t rows, uint32_t k0,
		       uint32_t pairs, uint32_t k);
	void (*tile)(const struct wk_tile *t);
	void (*shrink)(const struct wk_shrink *s);
	void (*expand)(const struct wk_expand *e);
	/* Epilogues of one row of accumulators; n columns; bias NULL allowed. */
	void (*store)(float *y, const float *acc, const float *bias, float scale, uint32_t n);
	void (*add)(float *h, const float *acc, const float *bias, float scale, uint32_t n);
	/* acc: 32 gates, then 32 ups; n of each make n of x. The biases: each NULL allowed. */
	void (*swiglu)(uint16_t *x, const float *acc, const float *gate_bias, const float *up_bias,
		       uint32_t n);
	void (*norm)(uint16_t *x, const float *h, const float *weight, uint32_t dim, float eps);
};

extern const struct wk_cpu_kernels wk_cpu_avx512bf16, wk_cpu_avx512, wk_cpu_avx2;

/* Attention's and rotary's own table: its fields are in attention.h. */
struct wk_cpu_attn_kernels;
extern const struct wk_cpu_attn_kernels wk_cpu_attn_avx512bf16, wk_cpu_attn_avx512,
	wk_cpu_attn_avx2;

/* --- the instance ------------------------------------------------------------------------------*/

struct wk_buf {
	void *host; /* owned; 64-byte aligned, on huge pages when large */
	size_t bytes;
};

/*
 * A packed matrix of n outputs and k inputs: panels of 64 columns (outputs), each contiguous:
 *
 *   panel p, pair i:  64 columns x { w[64p + c][2i], w[64p + c][2i + 1] }	bf16, 256 bytes
 *
 * Columns past n and the element past an odd k are zero. With gate_up a panel holds 32 gates and
 * then their 32 ups, so that one tile has both.
 */
struct wk_weight {
	uint16_t *data; /* owned; in the backend's regions */
	size_t bytes;
	uint32_t n; /* outputs as packed: both of gate and up */
	uint32_t k;
	uint32_t pairs; /* ceil(k / 2) */
	uint32_t panels;
	bool gate_up;
};

struct wk_backend {
	struct wk_pool *pool; /* owned */
	enum wk_cpu_path path;
	const struct wk_cpu_kernels *kern;
	const struct wk_cpu_attn_kernels *attn;
	uint32_t n_threads;

	/* This step's batch; its pointers lead to the backend's own copies below. */
	struct wk_batch batch;
	uint32_t tokens[WK_MAX_ROWS];
	struct wk_seq seqs[WK_MAX_ROWS];
	uint32_t out_rows[WK_MAX_ROWS];
	uint32_t *table; /* owned, room for table_cap entries */
	uint32_t table_cap;
	struct wk_segment segments[WK_MAX_ROWS];
	const struct wk_lora *loras[WK_MAX_ROWS]; /* borrowed */
	struct wk_drawn drawn;

	/* KV, as bound; kv.c owns the layout within a block. */
	struct wk_kv_shape kv;
	size_t kv_block_bytes;
	uint32_t kv_blocks;	       /* 0: nothing bound yet */
	const struct wk_buf *pool_buf; /* borrowed: the one bound last, until it is freed */

	struct wk_region *weights; /* where all weights lie; empty when all are freed */
	uint32_t most_panels;	   /* of any weight so far */

	void *x_packed; /* owned; WK_MAX_ROWS rows of the widest k seen */
	size_t x_packed_bytes;

	struct wk_lora_state *lora; /* owned; lora.h; NULL until first used */

	struct wk_attn_state *attn_state; /* owned; attention.h; NULL until first used */

	uint64_t ticket;
	uint64_t copy_ticket; /* of copies of blocks */
	int sticky;	      /* first failure of a queued operation, -errno */
	char error[256];      /* last_error */
};

/* Record the line and give back -err: return wk_cpu_fail(be, EINVAL, "k is 0"). be NULL allowed. */
int wk_cpu_fail(struct wk_backend *be, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* The same for a queued operation, which has nobody to return to: wk_wait() will report it. */
void wk_cpu_stick(struct wk_backend *be, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Zeroed memory, 64-byte aligned, asking for huge pages from 2 MB up; NULL when there is none. */
void *wk_cpu_alloc(size_t bytes);
void wk_cpu_release(void *p, size_t bytes); /* NULL allowed; bytes as allocated */

/*
 * The same in regions that many share, page after page; a region goes when its last piece does. The
 * list belongs to whoever calls.
 */
struct wk_region;
void *wk_region_take(struct wk_region **list, size_t bytes);
void wk_region_give(struct wk_region **list, const void *p); /* NULL allowed */

/* --- operations of the table, by file ----------------------------------------------------------*/

/* weight.c */
int wk_cpu_weight_new(struct wk_backend *be, const struct wk_weight_part *parts, uint32_t n_parts,
		      uint32_t k, enum wk_pack pack, struct wk_weight **ret);
void wk_cpu_weight_free(struct wk_backend *be, struct wk_weight *w);
size_t wk_cpu_weight_bytes(const struct wk_weight *w);
void wk_cpu_embed(struct wk_backend *be, const struct wk_weight *table, struct wk_buf *h,
		  uint32_t h_stride, float scale);

/* matmul.c, norm.c */
void wk_cpu_matmul(struct wk_backend *be, const struct wk_matmul *op);
void wk_cpu_norm(struct wk_backend *be, const struct wk_norm *op);

/* lora.c */
size_t wk_cpu_lora_piece_bytes(const struct wk_backend *be, uint32_t n, uint32_t k);
int wk_cpu_lora_pack(const struct wk_backend *be, const struct wk_lora_source *src, uint32_t first,
		     void *dst, char ret_where[64]);
int wk_cpu_lora_new(struct wk_backend *be, const struct wk_lora_part *parts, uint32_t n_parts,
		    struct wk_lora **ret);
void wk_cpu_lora_free(struct wk_backend *be, struct wk_lora *lora);

/* kv.c: kv_bind fills be->kv, be->kv_block_bytes, be->kv_blocks and be->pool_buf */
size_t wk_cpu_kv_block_bytes(const struct wk_backend *be, const struct wk_kv_shape *shape);
int wk_cpu_kv_bind(struct wk_backend *be, const struct wk_kv_shape *shape, struct wk_buf *pool,
		   uint32_t n_blocks);
void wk_cpu_kv_zero(struct wk_backend *be, struct wk_buf *pool, const uint32_t *blocks, uint32_t n);
void wk_cpu_kv_copy_rows(struct wk_backend *be, struct wk_buf *pool, uint32_t src, uint32_t dst,
			 uint32_t n_rows);
int wk_cpu_host_new(struct wk_backend *be, size_t bytes, void **ret);
void wk_cpu_host_free(struct wk_backend *be, void *host, size_t bytes);
int wk_cpu_kv_copy_out(struct wk_backend *be, const struct wk_buf *pool,
		       const struct wk_block_copy *copies, uint32_t n, uint64_t *ret_ticket);
int wk_cpu_kv_copy_in(struct wk_backend *be, struct wk_buf *pool,
		      const struct wk_block_copy *copies, uint32_t n, uint64_t *ret_ticket);
int wk_cpu_copy_query(struct wk_backend *be, uint64_t ticket);
int wk_cpu_copy_wait(struct wk_backend *be, uint64_t ticket);

/* rope.c, attention.c, sample.c */
void wk_cpu_rope_append(struct wk_backend *be, const struct wk_rope_append *op);
void wk_cpu_attention(struct wk_backend *be, const struct wk_attention *op);
void wk_cpu_attn_fini(struct wk_backend *be); /* frees be->attn_state */
void wk_cpu_sample(struct wk_backend *be, const struct wk_buf *logits, uint32_t stride,
		   uint32_t vocab, const struct wk_sample *rows, uint32_t n,
		   struct wk_sampled *out);

/* --- scalar conversions ------------------------------------------------------------------------*/

static inline float wk_bf16_float(uint16_t v)
{
	uint32_t bits = (uint32_t)v << 16;
	float f;

	memcpy(&f, &bits, sizeof(f));
	return f;
}

static inline uint16_t wk_bf16_round(float f)
{
	uint32_t bits;

	memcpy(&bits, &f, sizeof(bits));
	if ((bits & 0x7fffffffu) > 0x7f800000u)
		return (uint16_t)(bits >> 16 | 0x40);
	return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

#endif
