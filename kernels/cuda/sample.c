/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sample.c - sampling: what the host prepares. The random numbers are made here, by wk_uniform(), so
 * that they are the other backends' own; the kernel writes its results into pinned memory.
 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "kernels/cuda/cuda.h"

struct need {
	size_t bias, counts;
};

static bool penalised(const struct wk_sample *s)
{
	return s->n_counts && (s->repetition_penalty != 1 || s->presence_penalty != 0 ||
			       s->frequency_penalty != 0);
}

static struct ka_sample describe(const struct wk_sample *s, const struct need *at)
{
	float inv = s->temperature > 0 ? 1 / s->temperature : INFINITY;

	return (struct ka_sample){
		.row = s->row,
		.top_k = s->top_k,
		.n_top = s->n_logprobs < WK_MAX_LOGPROBS ? s->n_logprobs : WK_MAX_LOGPROBS,
		.given = s->given,
		.inv_temp = inv,
		.top_p = s->top_p,
		.min_p = s->min_p,
		.repetition = s->repetition_penalty,
		.presence = s->presence_penalty,
		.frequency = s->frequency_penalty,
		.uniform = wk_uniform(s->seed, s->sample, s->position),
		.bias = (uint32_t)at->bias,
		.n_bias = s->n_bias,
		.counts = (uint32_t)at->counts,
		.n_counts = penalised(s) ? s->n_counts : 0,
	};
}

/* Samples, then biases, then counts, each from its own fixed place on if there is room for it. */
static int upload(struct wk_backend *be, const struct wk_sample *rows, uint32_t n,
		  const struct need *all, struct ka_sampling *a)
{
	size_t bias_at = WK_MAX_ROWS * sizeof(struct ka_sample);
	size_t counts_at = bias_at + (all->bias + 1023) / 1024 * 1024 * sizeof(struct ka_bias);
	size_t bytes = counts_at + all->counts * sizeof(struct ka_count);
	struct cuda_shared *from = &be->slots[be->slot].samples;
	struct need at = {0, 0};
	int r = cuda_shared_reserve(be, from, bytes);

	r = r ? r : cuda_reserve(be, &be->samples, bytes);
	if (r)
		return r;
	_Static_assert(sizeof(struct ka_bias) == sizeof(struct wk_bias), "the same");
	_Static_assert(sizeof(struct ka_count) == sizeof(struct wk_count), "the same");
	for (uint32_t i = 0; i < n; i++) {
		struct ka_sample s = describe(&rows[i], &at);
		char *to = from->host;

		memcpy(to + i * sizeof(s), &s, sizeof(s));
		if (s.n_bias)
			memcpy(to + bias_at + at.bias * sizeof(struct ka_bias), rows[i].bias,
			       s.n_bias * sizeof(struct ka_bias));
		if (s.n_counts)
			memcpy(to + counts_at + at.counts * sizeof(struct ka_count), rows[i].counts,
			       s.n_counts * sizeof(struct ka_count));
		at.bias += s.n_bias;
		at.counts += s.n_counts;
	}
	a->samples = (const struct ka_sample *)(uintptr_t)be->samples->at;
	a->bias = (const struct ka_bias *)(uintptr_t)(be->samples->at + bias_at);
	a->counts = (const struct ka_count *)(uintptr_t)(be->samples->at + counts_at);
	return cu_ok(be, copy_to, "uploading what to sample", be->samples->at, from->host, bytes,
		     be->stream);
}

static int prepare(struct wk_backend *be, uint32_t stride, const struct wk_sample *rows, uint32_t n,
		   struct ka_sampling *a)
{
	struct need all = {0, 0};
	bool adjusted = false;
	int r = 0;

	_Static_assert(sizeof(struct ka_sampled) == sizeof(struct wk_sampled), "the same");
	for (uint32_t i = 0; i < n; i++) {
		all.bias += rows[i].n_bias;
		all.counts += penalised(&rows[i]) ? rows[i].n_counts : 0;
		adjusted |= rows[i].n_bias || penalised(&rows[i]);
	}
	if (adjusted) {
		r = cuda_reserve(be, &be->scratch, (size_t)n * stride * sizeof(float));
		a->scratch = r ? NULL : (float *)(uintptr_t)be->scratch->at;
	}
	/* Results of an earlier call stand in the same memory: they must not move. */
	if (!r && !be->n_calls)
		r = cuda_shared_reserve(be, &be->results, WK_MAX_ROWS * sizeof(struct ka_sampled));
	return r ? r : upload(be, rows, n, &all, a);
}

void cuda_sample(struct wk_backend *be, const struct wk_buf *logits, uint32_t stride,
		 uint32_t vocab, const struct wk_sample *rows, uint32_t n, struct wk_sampled *out)
{
	struct ka_sampling a = {
		.logits = (const float *)(uintptr_t)logits->at, .vocab = vocab, .stride = stride};
	int r;

	if (!n || be->sticky)
		return;
	if (n > WK_MAX_ROWS) {
		cuda_stick(be, EINVAL, "sample: %u rows", n);
		return;
	}
	/* A second call of a step: its arguments come where those of the first are. */
	if (be->n_calls) {
		cuda_flush(be);
		if (be->n_calls == sizeof(be->calls) / sizeof(*be->calls) ||
		    n > WK_MAX_ROWS - be->n_results) {
			cuda_stick(be, EINVAL, "sample: more than %d rows or %zu calls in a step",
				   WK_MAX_ROWS, sizeof(be->calls) / sizeof(*be->calls));
			return;
		}
		if (cuda_drain(be))
			return;
	}
	r = prepare(be, stride, rows, n, &a);
	if (r) {
		cuda_stick_last(be, r);
		return;
	}
	a.out = (struct ka_sampled *)(uintptr_t)be->results.device + be->n_results;
	be->calls[be->n_calls++] = (struct cuda_results){out, be->n_results, n, be->ticket + 1};
	be->n_results += n;
	cuda_launch(be, K_wk_sample, n, 1, 512, 0, &a, sizeof(a));
}
