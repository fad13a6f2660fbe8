/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sample.c - sampling: what the host prepares. The random numbers are made here, by wk_uniform(), so
 * that they are the other backends' own; the kernel writes its results into pinned memory, and the tokens
 * once more into device memory, where the next step's embedding finds those that are named by WK_DRAWN.
 *
 * Two steps may be under way. Arguments come from the step's slot and go to one place on the device, in
 * the stream's order. Results go around a ring, by an index that comes with the arguments: so a step's
 * launches are the same wherever its results go.
 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "kernels/cuda/cuda.h"

#define FIRST_BYTES \
	((size_t)256 << 10) /* of arguments: what most steps need, so that it seldom grows */

struct need {
	size_t bias, counts;
};

static bool penalised(const struct wk_sample *s)
{
	return s->n_counts && (s->repetition_penalty != 1 || s->presence_penalty != 0 ||
			       s->frequency_penalty != 0);
}

static struct ka_sample describe(const struct wk_sample *s, const struct need *at, uint32_t result)
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
		.out = result % CUDA_RESULTS,
	};
}

/* Samples, then biases, then counts, each from its own fixed place on if there is room for it. */
static int upload(struct wk_backend *be, const struct wk_sample *rows, uint32_t n,
		  const struct need *all, struct ka_sampling *a)
{
	size_t bias_at = WK_MAX_DRAWS * sizeof(struct ka_sample);
	size_t counts_at = bias_at + (all->bias + 1023) / 1024 * 1024 * sizeof(struct ka_bias);
	size_t bytes = counts_at + all->counts * sizeof(struct ka_count);
	size_t room = bytes > FIRST_BYTES ? bytes : FIRST_BYTES;
	struct cuda_shared *from = &be->slots[be->slot].samples;
	struct need at = {0, 0};
	int r = cuda_shared_reserve(be, from, room);

	r = r ? r : cuda_reserve(be, &be->samples, room);
	if (r)
		return r;
	_Static_assert(sizeof(struct ka_bias) == sizeof(struct wk_bias), "the same");
	_Static_assert(sizeof(struct ka_count) == sizeof(struct wk_count), "the same");
	for (uint32_t i = 0; i < n; i++) {
		struct ka_sample s = describe(&rows[i], &at, be->next_result + i);
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
	return cu_ok(be, copy_to, "uploading what to sample", be->samples->at, from->host,
		     all->bias || all->counts ? bytes : n * sizeof(struct ka_sample), be->stream);
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
		uint32_t at_once = n < WK_MAX_ROWS ? n : WK_MAX_ROWS;

		r = cuda_reserve(be, &be->scratch, (size_t)at_once * stride * sizeof(float));
		a->scratch = r ? NULL : (float *)(uintptr_t)be->scratch->at;
	}
	r = r ? r : cuda_shared_reserve(be, &be->results, CUDA_RESULTS * sizeof(struct ka_sampled));
	return r ? r : upload(be, rows, n, &all, a);
}

/* The slot's memory can be written: what an earlier call put there has been used. That is so for the
 * first call of a step; for another one the device comes to its end. */
static int free_slot(struct wk_backend *be)
{
	struct cuda_slot *s = &be->slots[be->slot];
	int r = s->sampled > cuda_done(be) ? cuda_drain(be) : 0;

	s->sampled = be->ticket + 1;
	return r;
}

/* For whoever names what is drawn here. */
static void remember(struct wk_backend *be, const struct wk_sample *rows, uint32_t n,
		     uint32_t vocab)
{
	for (uint32_t i = 0; i < n; i++)
		be->drawn_most[i] = rows[i].given != WK_NO_TOKEN ? rows[i].given : vocab - 1;
	be->n_drawn = n;
}

/* Many at once share the scratch of WK_MAX_ROWS, one after another. */
static void launch(struct wk_backend *be, struct ka_sampling a, uint32_t n)
{
	for (uint32_t at = 0; at < n; at += WK_MAX_ROWS) {
		uint32_t some = n - at < WK_MAX_ROWS ? n - at : WK_MAX_ROWS;

		cuda_launch(be, K_wk_sample, some, 1, 512, 0, &a, sizeof(a));
		a.samples += some;
		a.drawn += some;
	}
}

void cuda_sample(struct wk_backend *be, const struct wk_buf *logits, uint32_t stride,
		 uint32_t vocab, const struct wk_sample *rows, uint32_t n, struct wk_sampled *out)
{
	struct ka_sampling a = {.logits = (const float *)(uintptr_t)logits->at,
				.drawn = (uint32_t *)(uintptr_t)be->drawn->at,
				.vocab = vocab,
				.stride = stride};
	int r = be->sticky;

	if (r)
		return;
	if (n > WK_MAX_DRAWS || be->n_calls == CUDA_CALLS || n > CUDA_RESULTS - be->n_results) {
		cuda_stick(be, EINVAL, "sample: %u rows, with %u rows of %u calls not waited for",
			   n, be->n_results, be->n_calls);
		return;
	}
	remember(be, rows, n, vocab);
	if (!n)
		return;
	r = free_slot(be);
	r = r ? r : prepare(be, stride, rows, n, &a);
	if (r) {
		cuda_stick_last(be, r);
		return;
	}
	a.out = (struct ka_sampled *)(uintptr_t)be->results.device;
	be->calls[be->n_calls++] = (struct cuda_results){out, be->next_result, n, be->ticket + 1};
	be->next_result += n;
	be->n_results += n;
	launch(be, a, n);
}
