/* SPDX-License-Identifier: Apache-2.0 */
/*
 * norm.c - rmsnorm of rows of the residual stream; the arithmetic is in the path's kernels.
 *
 * A row is summed by one thread in one fixed order. Owns nothing.
 */
#include "kernels/cpu/cpu.h"

#include <errno.h>

#define CHUNK_ROWS 8u /* 64 KB of a wide model's h: worth a claim, and enough chunks for balance */

struct job {
	struct wk_backend *be;
	const struct wk_norm *op;
};

static void norm_chunk(void *arg, uint32_t chunk, uint32_t thread)
{
	const struct job *j = arg;
	const struct wk_norm *op = j->op;
	uint32_t end = (chunk + 1) * CHUNK_ROWS;

	for (uint32_t r = chunk * CHUNK_ROWS; r < end && r < op->n_rows; r++) {
		uint32_t from = op->out_rows_only ? j->be->out_rows[r] : r;

		j->be->kern->norm((uint16_t *)op->x->host + (size_t)r * op->x_stride,
				  (const float *)op->h->host + (size_t)from * op->h_stride,
				  op->weight->host, op->dim, op->eps);
	}
}

void wk_cpu_norm(struct wk_backend *be, const struct wk_norm *op)
{
	struct job j = {be, op};
	uint32_t last;

	if (!op->n_rows)
		return;
	if (op->n_rows > (op->out_rows_only ? be->batch.n_out : WK_MAX_ROWS)) {
		wk_cpu_stick(be, EINVAL, "norm: %u rows are more than the batch has", op->n_rows);
		return;
	}
	last = op->out_rows_only ? be->out_rows[op->n_rows - 1] : op->n_rows - 1;
	if (((size_t)last * op->h_stride + op->dim) * sizeof(float) > op->h->bytes ||
	    ((size_t)(op->n_rows - 1) * op->x_stride + op->dim) * sizeof(uint16_t) > op->x->bytes ||
	    op->dim * sizeof(float) > op->weight->bytes) {
		wk_cpu_stick(be, EINVAL, "norm of %u rows of %u: a buffer is too small", op->n_rows,
			     op->dim);
		return;
	}
	wk_pool_run(be->pool, norm_chunk, &j, (op->n_rows + CHUNK_ROWS - 1) / CHUNK_ROWS);
}
