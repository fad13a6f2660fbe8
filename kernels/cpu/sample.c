/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sample.c - sampling on the CPU backend: rows divided among threads, each with its own scratch.
 *
 * What is done to a row is in kernels/sample.c and the same for every backend.
 */
#include <errno.h>

#include "kernels/cpu/attention.h"

struct job {
	struct wk_attn_state *st;
	const float *logits;
	uint32_t stride, vocab;
	const struct wk_sample *rows;
	struct wk_sampled *out;
};

static void sample_chunk(void *arg, uint32_t chunk, uint32_t thread)
{
	const struct job *job = arg;
	const struct wk_sample *s = &job->rows[chunk];

	wk_sample_row(job->logits + (size_t)s->row * job->stride, job->vocab, s,
		      &job->st->sample[thread], &job->out[chunk]);
}

void wk_cpu_sample(struct wk_backend *be, const struct wk_buf *logits, uint32_t stride,
		   uint32_t vocab, const struct wk_sample *rows, uint32_t n, struct wk_sampled *out)
{
	struct wk_attn_state *st = wk_attn_state_get(be);
	struct job job = {st, logits->host, stride, vocab, rows, out};

	if (!st || be->sticky)
		return;
	if (n > WK_MAX_DRAWS) {
		wk_cpu_stick(be, EINVAL, "sample: %u rows", n);
		return;
	}
	for (uint32_t i = 0; i < be->n_threads; i++)
		if (wk_sample_scratch_grow(&st->sample[i], vocab)) {
			wk_cpu_stick(be, ENOMEM, "no memory for sampling");
			return;
		}
	if (n)
		wk_pool_run(be->pool, sample_chunk, &job, n);
	wk_drawn_keep(&be->drawn, out, n);
}
