/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu.c - the CPU backend as an instance: which instruction set, buffers, the batch, the table.
 *
 * A backend belongs to the engine's core thread. It owns its pool of threads, its copy of the
 * batch and the room for packed rows; buffers and weights are owned by whoever made them and must
 * be freed before the backend is closed.
 */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/lora.h"

#include <cpuid.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* --- errors --------------------------------------------------------------------------------------*/

/* Of a failed open, when there is no backend to hold it. */
static _Thread_local char open_error[256];

static void set_error(struct wk_backend *be, const char *fmt, va_list ap)
{
	vsnprintf(be ? be->error : open_error, sizeof(open_error), fmt, ap);
}

int wk_cpu_fail(struct wk_backend *be, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	set_error(be, fmt, ap);
	va_end(ap);
	return -err;
}

void wk_cpu_stick(struct wk_backend *be, int err, const char *fmt, ...)
{
	va_list ap;

	if (be->sticky)
		return;
	va_start(ap, fmt);
	set_error(be, fmt, ap);
	va_end(ap);
	be->sticky = -err;
}

static const char *cpu_last_error(const struct wk_backend *be)
{
	return be ? be->error : open_error;
}

/* --- instruction sets ----------------------------------------------------------------------------*/

static const struct {
	const struct wk_cpu_kernels *kern;
	const struct wk_cpu_attn_kernels *attn;
} paths[WK_CPU_N_PATHS] = {
	[WK_CPU_AVX2] = {&wk_cpu_avx2, &wk_cpu_attn_avx2},
	[WK_CPU_AVX512] = {&wk_cpu_avx512, &wk_cpu_attn_avx512},
	[WK_CPU_AVX512BF16] = {&wk_cpu_avx512bf16, &wk_cpu_attn_avx512bf16},
};

static bool has(uint32_t reg, uint32_t bits)
{
	return (reg & bits) == bits;
}

/* How many of the paths, from the plainest up, this CPU and its kernel support. */
static int paths_supported(void)
{
	const uint32_t ecx1 = bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C;
	const uint32_t avx2 = bit_AVX2 | bit_BMI2;
	const uint32_t avx512 =
		bit_AVX512F | bit_AVX512DQ | bit_AVX512CD | bit_AVX512BW | bit_AVX512VL;
	uint32_t a, b, c, d, max_sub, state, state_hi;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !has(c, ecx1))
		return 0;
	/* Which registers the kernel saves: XMM and YMM, then also masks and both halves of ZMM. */
	__asm__("xgetbv" : "=a"(state), "=d"(state_hi) : "c"(0));
	if (!has(state, 0x6) || !__get_cpuid_count(7, 0, &max_sub, &b, &c, &d) || !has(b, avx2))
		return 0;
	if (!has(state, 0xe6) || !has(b, avx512))
		return 1;
	if (max_sub < 1 || !__get_cpuid_count(7, 1, &a, &b, &c, &d) || !has(a, 1u << 5))
		return 2;
	return 3;
}

static int choose_path(const char *want, enum wk_cpu_path *ret)
{
	int n = paths_supported();

	if (!want || !*want)
		want = getenv("WEFT_CPU_PATH");
	if (!n)
		return wk_cpu_fail(NULL, EINVAL, "this CPU has no AVX2, FMA and F16C");
	if (!want || !*want) {
		*ret = (enum wk_cpu_path)(n - 1);
		return 0;
	}
	for (int i = 0; i < WK_CPU_N_PATHS; i++) {
		if (strcmp(want, paths[i].kern->name))
			continue;
		if (i >= n)
			return wk_cpu_fail(NULL, EINVAL, "CPU path %s: this machine's best is %s",
					   want, paths[n - 1].kern->name);
		*ret = (enum wk_cpu_path)i;
		return 0;
	}
	return wk_cpu_fail(NULL, EINVAL, "CPU path %s: know only avx512bf16, avx512 and avx2",
			   want);
}

/* --- open and close ------------------------------------------------------------------------------*/

static void cpu_close(struct wk_backend *be)
{
	if (!be)
		return;
	wk_pool_free(be->pool);
	wk_cpu_release(be->x_packed, be->x_packed_bytes);
	wk_cpu_attn_fini(be);
	wk_lora_fini(be);
	free(be->table);
	free(be);
}

static int cpu_open(const struct wk_open_options *opt, struct wk_backend **ret)
{
	long online = sysconf(_SC_NPROCESSORS_ONLN);
	uint32_t threads = opt->n_threads ? opt->n_threads : online > 0 ? (uint32_t)online : 1;
	enum wk_cpu_path path = WK_CPU_AVX2;
	struct wk_backend *be;
	int err = choose_path(opt->path, &path);

	if (err)
		return err;
	be = calloc(1, sizeof(*be));
	if (!be)
		return wk_cpu_fail(NULL, ENOMEM, "no memory for a backend");
	be->path = path;
	be->kern = paths[path].kern;
	be->attn = paths[path].attn;
	be->n_threads = threads;
	err = wk_pool_new(threads, opt->poll_always, &be->pool);
	if (err) {
		cpu_close(be);
		return wk_cpu_fail(NULL, -err, "cannot start %u compute threads: %s", threads,
				   strerror(-err));
	}
	*ret = be;
	return 0;
}

static void cpu_info(const struct wk_backend *be, struct wk_info *ret)
{
	*ret = (struct wk_info){
		.arith_rev =
			(uint64_t)'c' << 56 | (uint64_t)WK_CPU_REV << 8 | ((uint64_t)be->path + 1),
		.x_bytes = sizeof(uint16_t),
		.align_bytes = WK_CPU_ALIGN,
		.n_threads = be->n_threads,
		.max_rows = WK_MAX_ROWS,
		.short_rows = 128, /* from 48 up it computes at full speed */
	};
	snprintf(ret->name, sizeof(ret->name), "cpu");
	snprintf(ret->path, sizeof(ret->path), "%s", be->kern->name);
}

/* --- buffers -------------------------------------------------------------------------------------*/

static int cpu_buf_new(struct wk_backend *be, size_t bytes, struct wk_buf **ret)
{
	struct wk_buf *buf = malloc(sizeof(*buf));

	if (buf) {
		buf->bytes = bytes;
		buf->host = wk_cpu_alloc(bytes);
	}
	if (!buf || !buf->host) {
		free(buf);
		return wk_cpu_fail(be, ENOMEM, "no memory for a buffer of %zu bytes", bytes);
	}
	*ret = buf;
	return 0;
}

static void cpu_buf_free(struct wk_backend *be, struct wk_buf *buf)
{
	if (!buf)
		return;
	if (be->pool_buf == buf)
		be->pool_buf = NULL;
	wk_cpu_release(buf->host, buf->bytes);
	free(buf);
}

static int buf_range(struct wk_backend *be, const struct wk_buf *buf, size_t off, size_t bytes)
{
	if (off <= buf->bytes && bytes <= buf->bytes - off)
		return 0;
	return wk_cpu_fail(be, EINVAL, "%zu bytes at %zu do not lie in a buffer of %zu", bytes, off,
			   buf->bytes);
}

static int cpu_buf_write(struct wk_backend *be, struct wk_buf *buf, size_t off, const void *src,
			 size_t bytes)
{
	int err = buf_range(be, buf, off, bytes);

	if (!err && bytes)
		memcpy((char *)buf->host + off, src, bytes);
	return err;
}

static int cpu_buf_read(struct wk_backend *be, const struct wk_buf *buf, size_t off, void *dst,
			size_t bytes)
{
	int err = buf_range(be, buf, off, bytes);

	if (!err && bytes)
		memcpy(dst, (const char *)buf->host + off, bytes);
	return err;
}

static void *cpu_buf_host(struct wk_buf *buf)
{
	return buf->host;
}

/* --- a step --------------------------------------------------------------------------------------*/

static const char *batch_wrong(const struct wk_backend *be, const struct wk_batch *b)
{
	uint32_t row = 0;

	if (!b->n_rows || b->n_rows > WK_MAX_ROWS)
		return "the number of rows is 0 or over the limit";
	if (!wk_drawn_known(b, be->drawn.n))
		return "a token of a row that the last sample() did not have";
	if (b->n_seqs > b->n_rows || b->n_out > b->n_rows)
		return "more sequences or outputs than rows";
	for (uint32_t i = 0; i < b->n_table; i++)
		if (b->block_table[i] >= be->kv_blocks)
			return "a block number is past the KV pool";
	for (uint32_t s = 0; s < b->n_seqs; s++) {
		const struct wk_seq *q = &b->seqs[s];
		uint64_t blocks =
			((uint64_t)q->pos + q->n_rows + WK_BLOCK_TOKENS - 1) / WK_BLOCK_TOKENS;

		if (q->row != row || !q->n_rows || q->n_rows > b->n_rows - row)
			return "the sequences leave a gap";
		if (q->table > b->n_table || blocks > b->n_table - q->table)
			return "a sequence's block table is too short";
		row += q->n_rows;
	}
	for (uint32_t i = 0; i < b->n_out; i++)
		if (b->out_rows[i] >= b->n_rows || (i && b->out_rows[i] <= b->out_rows[i - 1]))
			return "out_rows is not ascending, or past the rows";
	if (row != b->n_rows)
		return "rows that belong to no sequence";
	return wk_segments_wrong(b);
}

/* A table grows by a block every few tokens, and room for it must not: for a million positions from
 * the start (pages that are not touched cost nothing), and twice as many each time after that. */
#define TABLE_MIN (1u << 16)

static int reserve_table(struct wk_backend *be, uint32_t n)
{
	uint32_t *table;

	if (n <= be->table_cap)
		return 0;
	n = n > TABLE_MIN / 2 ? 2 * n : TABLE_MIN;
	table = realloc(be->table, (size_t)n * sizeof(*table));
	if (!table)
		return wk_cpu_fail(be, ENOMEM, "no memory for %u block table entries", n);
	be->table = table;
	be->table_cap = n;
	return 0;
}

/* The batch's arrays become the backend's own copies. */
static void copy_batch(struct wk_backend *be, const struct wk_batch *b)
{
	memcpy(be->tokens, b->tokens, b->n_rows * sizeof(*be->tokens));
	wk_drawn_resolve(&be->drawn, be->tokens, b->n_rows);
	memcpy(be->seqs, b->seqs, b->n_seqs * sizeof(*be->seqs));
	if (b->n_out)
		memcpy(be->out_rows, b->out_rows, b->n_out * sizeof(*be->out_rows));
	if (b->n_table)
		memcpy(be->table, b->block_table, b->n_table * sizeof(*be->table));
	if (b->n_segments)
		memcpy(be->segments, b->segments, b->n_segments * sizeof(*be->segments));
	if (b->n_loras)
		memcpy(be->loras, b->loras, b->n_loras * sizeof(*be->loras));
	be->batch = *b;
	be->batch.tokens = be->tokens;
	be->batch.seqs = be->seqs;
	be->batch.out_rows = be->out_rows;
	be->batch.block_table = be->table;
	be->batch.segments = be->segments;
	be->batch.loras = be->loras;
}

static int cpu_batch_set(struct wk_backend *be, const struct wk_batch *b)
{
	const char *wrong = batch_wrong(be, b);
	int err;

	if (wrong)
		return wk_cpu_fail(be, EINVAL, "batch of %u rows: %s", b->n_rows, wrong);
	err = reserve_table(be, b->n_table);
	if (err)
		return err;
	copy_batch(be, b);
	return 0;
}

static uint64_t cpu_record(struct wk_backend *be)
{
	return ++be->ticket;
}

/* Operations are complete when they return, so any ticket that was given out is done. */
static int cpu_wait(struct wk_backend *be, uint64_t ticket)
{
	if (ticket > be->ticket)
		return wk_cpu_fail(be, EINVAL, "waiting for a ticket that was never given out");
	return be->sticky;
}

static int cpu_query(struct wk_backend *be, uint64_t ticket)
{
	return be->sticky ? be->sticky : ticket <= be->ticket;
}

static void cpu_idle(struct wk_backend *be, bool idle)
{
	wk_pool_idle(be->pool, idle);
}

static bool cpu_aside(struct wk_backend *be, void (*fn)(void *arg), void *arg)
{
	return wk_pool_aside(be->pool, fn, arg);
}

static void cpu_aside_end(struct wk_backend *be)
{
	wk_pool_aside_end(be->pool);
}

const struct wk_ops wk_cpu_ops = {
	.abi = WK_ABI,
	.name = "cpu",
	.open = cpu_open,
	.close = cpu_close,
	.info = cpu_info,
	.last_error = cpu_last_error,
	.buf_new = cpu_buf_new,
	.buf_free = cpu_buf_free,
	.buf_write = cpu_buf_write,
	.buf_read = cpu_buf_read,
	.buf_host = cpu_buf_host,
	.weight_new = wk_cpu_weight_new,
	.weight_free = wk_cpu_weight_free,
	.weight_bytes = wk_cpu_weight_bytes,
	.kv_block_bytes = wk_cpu_kv_block_bytes,
	.kv_bind = wk_cpu_kv_bind,
	.kv_zero = wk_cpu_kv_zero,
	.kv_copy_rows = wk_cpu_kv_copy_rows,
	.host_new = wk_cpu_host_new,
	.host_free = wk_cpu_host_free,
	.kv_copy_out = wk_cpu_kv_copy_out,
	.kv_copy_in = wk_cpu_kv_copy_in,
	.copy_query = wk_cpu_copy_query,
	.copy_wait = wk_cpu_copy_wait,
	.lora_piece_bytes = wk_cpu_lora_piece_bytes,
	.lora_pack = wk_cpu_lora_pack,
	.lora_new = wk_cpu_lora_new,
	.lora_free = wk_cpu_lora_free,
	.batch_set = cpu_batch_set,
	.embed = wk_cpu_embed,
	.norm = wk_cpu_norm,
	.matmul = wk_cpu_matmul,
	.rope_append = wk_cpu_rope_append,
	.attention = wk_cpu_attention,
	.sample = wk_cpu_sample,
	.record = cpu_record,
	.query = cpu_query,
	.wait = cpu_wait,
	.idle = cpu_idle,
	.aside = cpu_aside,
	.aside_end = cpu_aside_end,
};
