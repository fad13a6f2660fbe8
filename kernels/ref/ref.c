/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ref.c - the reference backend: instance, buffers, batch, sampling, and its table.
 *
 * Every operation is complete when its call returns, so tickets are a mere counter. The caller's
 * thread is the only one.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/ref/ref.h"

int ref_fail(struct wk_backend *be, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(be->error_text, sizeof(be->error_text), fmt, ap);
	va_end(ap);
	return err;
}

void ref_stick(struct wk_backend *be, int err, const char *what)
{
	if (!be->error)
		be->error = ref_fail(be, err, "%s", what);
}

static int ref_open(const struct wk_open_options *opt, struct wk_backend **ret)
{
	struct wk_backend *be;

	if (opt && opt->path && strcmp(opt->path, "scalar"))
		return -EINVAL;
	be = calloc(1, sizeof(*be));
	if (!be)
		return -ENOMEM;
	*ret = be;
	return 0;
}

static void free_batch(struct wk_backend *be)
{
	free(be->tokens);
	free(be->seqs);
	free(be->table);
	free(be->out_rows);
	free(be->segments);
	free(be->loras);
	be->tokens = be->table = be->out_rows = NULL;
	be->seqs = NULL;
	be->segments = NULL;
	be->loras = NULL;
	memset(&be->batch, 0, sizeof(be->batch));
}

static void ref_close(struct wk_backend *be)
{
	if (!be)
		return;
	free_batch(be);
	wk_sample_scratch_fini(&be->scratch);
	free(be);
}

static void ref_info(const struct wk_backend *be, struct wk_info *ret)
{
	memset(ret, 0, sizeof(*ret));
	strcpy(ret->name, "ref");
	strcpy(ret->path, "scalar");
	ret->arith_rev = 1;
	ret->x_bytes = sizeof(float);
	ret->align_bytes = sizeof(float);
	ret->n_threads = 1;
	ret->max_rows = WK_MAX_ROWS;
	ret->short_rows = 128;
}

static const char *ref_last_error(const struct wk_backend *be)
{
	return be ? be->error_text : "cannot open the reference backend";
}

/* --- memory --------------------------------------------------------------------------------------*/

static int ref_buf_new(struct wk_backend *be, size_t bytes, struct wk_buf **ret)
{
	struct wk_buf *buf = calloc(1, sizeof(*buf));

	if (!buf)
		return ref_fail(be, -ENOMEM, "out of memory");
	buf->bytes = bytes;
	buf->data = calloc(bytes ? bytes : 1, 1);
	if (!buf->data) {
		free(buf);
		return ref_fail(be, -ENOMEM, "no memory for a buffer of %zu bytes", bytes);
	}
	*ret = buf;
	return 0;
}

static void ref_buf_free(struct wk_backend *be, struct wk_buf *buf)
{
	if (!buf)
		return;
	if (be->pool == buf)
		be->pool = NULL;
	free(buf->data);
	free(buf);
}

static int check_range(struct wk_backend *be, const struct wk_buf *buf, size_t off, size_t bytes)
{
	if (off <= buf->bytes && bytes <= buf->bytes - off)
		return 0;
	return ref_fail(be, -EINVAL, "%zu bytes at %zu are beyond a buffer of %zu", bytes, off,
			buf->bytes);
}

static int ref_buf_write(struct wk_backend *be, struct wk_buf *buf, size_t off, const void *src,
			 size_t bytes)
{
	int r = check_range(be, buf, off, bytes);

	if (!r && bytes)
		memcpy((char *)buf->data + off, src, bytes);
	return r;
}

static int ref_buf_read(struct wk_backend *be, const struct wk_buf *buf, size_t off, void *dst,
			size_t bytes)
{
	int r = check_range(be, buf, off, bytes);

	if (!r && bytes)
		memcpy(dst, (const char *)buf->data + off, bytes);
	return r;
}

static void *ref_buf_host(struct wk_buf *buf)
{
	return buf->data;
}

static int ref_host_new(struct wk_backend *be, size_t bytes, void **ret)
{
	void *p = malloc(bytes ? bytes : 1);

	if (!p)
		return ref_fail(be, -ENOMEM, "no memory for %zu bytes of blocks", bytes);
	*ret = p;
	return 0;
}

static void ref_host_free(struct wk_backend *be, void *host, size_t bytes)
{
	free(host);
}

/* --- a step --------------------------------------------------------------------------------------*/

static int check_seqs(struct wk_backend *be, const struct wk_batch *b)
{
	uint32_t row = 0;

	for (uint32_t i = 0; i < b->n_seqs; i++) {
		const struct wk_seq *s = &b->seqs[i];
		uint64_t blocks =
			((uint64_t)s->pos + s->n_rows + WK_BLOCK_TOKENS - 1) / WK_BLOCK_TOKENS;

		if (s->row != row || !s->n_rows || s->n_rows > b->n_rows - row)
			return ref_fail(be, -EINVAL, "sequence %u has bad rows", i);
		if (s->table > b->n_table || blocks > b->n_table - s->table)
			return ref_fail(be, -EINVAL, "sequence %u: block table too short", i);
		row += s->n_rows;
	}
	return row == b->n_rows ? 0 : ref_fail(be, -EINVAL, "rows without a sequence");
}

static int check_batch(struct wk_backend *be, const struct wk_batch *b)
{
	const char *wrong = wk_segments_wrong(b);

	if (wrong)
		return ref_fail(be, -EINVAL, "batch: %s", wrong);
	if (!b->n_rows || b->n_rows > WK_MAX_ROWS)
		return ref_fail(be, -EINVAL, "a batch of %u rows", b->n_rows);
	if (!wk_drawn_known(b, be->drawn.n))
		return ref_fail(be, -EINVAL, "a token of a row that sample() did not have");
	for (uint32_t i = 0; i < b->n_table; i++)
		if (b->block_table[i] >= be->n_blocks)
			return ref_fail(be, -EINVAL, "block %u of %u", b->block_table[i],
					be->n_blocks);
	for (uint32_t i = 0; i < b->n_out; i++)
		if (b->out_rows[i] >= b->n_rows || (i && b->out_rows[i] <= b->out_rows[i - 1]))
			return ref_fail(be, -EINVAL, "out_rows not ascending rows");
	return check_seqs(be, b);
}

/* A copy of n elements; never NULL unless out of memory. */
static void *copy_array(const void *src, size_t n, size_t elem)
{
	void *p = malloc(n ? n * elem : 1);

	if (p && n)
		memcpy(p, src, n * elem);
	return p;
}

static int ref_batch_set(struct wk_backend *be, const struct wk_batch *b)
{
	int r = check_batch(be, b);

	if (r)
		return r;
	free_batch(be);
	be->tokens = copy_array(b->tokens, b->n_rows, sizeof(*b->tokens));
	be->seqs = copy_array(b->seqs, b->n_seqs, sizeof(*b->seqs));
	be->table = copy_array(b->block_table, b->n_table, sizeof(*b->block_table));
	be->out_rows = copy_array(b->out_rows, b->n_out, sizeof(*b->out_rows));
	be->segments = copy_array(b->segments, b->n_segments, sizeof(*b->segments));
	be->loras = copy_array(b->loras, b->n_loras, sizeof(*b->loras));
	if (!be->tokens || !be->seqs || !be->table || !be->out_rows || !be->segments ||
	    !be->loras) {
		free_batch(be);
		return ref_fail(be, -ENOMEM, "no memory for a batch");
	}
	wk_drawn_resolve(&be->drawn, be->tokens, b->n_rows);
	be->batch = *b;
	be->batch.tokens = be->tokens;
	be->batch.seqs = be->seqs;
	be->batch.block_table = be->table;
	be->batch.out_rows = be->out_rows;
	be->batch.segments = be->segments;
	be->batch.loras = be->loras;
	return 0;
}

static void ref_sample(struct wk_backend *be, const struct wk_buf *logits, uint32_t stride,
		       uint32_t vocab, const struct wk_sample *rows, uint32_t n,
		       struct wk_sampled *out)
{
	int r = n > WK_MAX_DRAWS ? -EINVAL : wk_sample_scratch_grow(&be->scratch, vocab);

	if (r) {
		ref_stick(be, r, r == -EINVAL ? "sample: too many rows" : "no memory for sampling");
		return;
	}
	for (uint32_t i = 0; i < n; i++)
		wk_sample_row((const float *)logits->data + (size_t)rows[i].row * stride, vocab,
			      &rows[i], &be->scratch, &out[i]);
	wk_drawn_keep(&be->drawn, out, n);
}

static uint64_t ref_record(struct wk_backend *be)
{
	return ++be->ticket;
}

static int ref_query(struct wk_backend *be, uint64_t ticket)
{
	return be->error ? be->error : 1;
}

static int ref_wait(struct wk_backend *be, uint64_t ticket)
{
	return be->error;
}

static int ref_copy_query(struct wk_backend *be, uint64_t ticket)
{
	if (!be->error && ticket > be->copy_ticket)
		return ref_fail(be, -EINVAL, "a copy's ticket that was never given out");
	return be->error ? be->error : 1;
}

static int ref_copy_wait(struct wk_backend *be, uint64_t ticket)
{
	int r = ref_copy_query(be, ticket);

	return r < 0 ? r : 0;
}

static void ref_idle(struct wk_backend *be, bool idle)
{
}

const struct wk_ops wk_ref_ops = {
	.abi = WK_ABI,
	.name = "ref",
	.open = ref_open,
	.close = ref_close,
	.info = ref_info,
	.last_error = ref_last_error,
	.buf_new = ref_buf_new,
	.buf_free = ref_buf_free,
	.buf_write = ref_buf_write,
	.buf_read = ref_buf_read,
	.buf_host = ref_buf_host,
	.weight_new = ref_weight_new,
	.weight_free = ref_weight_free,
	.weight_bytes = ref_weight_bytes,
	.kv_block_bytes = ref_kv_block_bytes,
	.kv_bind = ref_kv_bind,
	.kv_zero = ref_kv_zero,
	.kv_copy_rows = ref_kv_copy_rows,
	.host_new = ref_host_new,
	.host_free = ref_host_free,
	.kv_copy_out = ref_kv_copy_out,
	.kv_copy_in = ref_kv_copy_in,
	.copy_query = ref_copy_query,
	.copy_wait = ref_copy_wait,
	.lora_piece_bytes = ref_lora_piece_bytes,
	.lora_pack = ref_lora_pack,
	.lora_new = ref_lora_new,
	.lora_free = ref_lora_free,
	.batch_set = ref_batch_set,
	.embed = ref_embed,
	.norm = ref_norm,
	.matmul = ref_matmul,
	.rope_append = ref_rope_append,
	.attention = ref_attention,
	.sample = ref_sample,
	.record = ref_record,
	.query = ref_query,
	.wait = ref_wait,
	.idle = ref_idle,
};
