/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sampling.c - what the sampler needs to know about a row: a pure function of the request and of
 * the tokens so far, so that a resumed answer draws exactly what it would have drawn.
 *
 * Penalties need how often each token occurred. The counts are made when the first row is drawn
 * (one sort of the prompt) and kept up to date by insertion. Owned by the core thread.
 */
#include "daemon/engine/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool has_penalties(const struct wshm_desc *d)
{
	return d->repetition != 1 || d->presence != 0 || d->frequency != 0;
}

static int compare_tokens(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* The entry of a token, made if need be; there is room for every token of the answer. */
static struct wk_count *count_of(struct sample *a, uint32_t token)
{
	uint32_t lo = 0, hi = a->n_counts;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (a->counts[mid].token < token)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo == a->n_counts || a->counts[lo].token != token) {
		memmove(&a->counts[lo + 1], &a->counts[lo],
			(a->n_counts - lo) * sizeof(*a->counts));
		a->counts[lo] = (struct wk_count){.token = token};
		a->n_counts++;
	}
	return &a->counts[lo];
}

static int counts_make(struct sample *a)
{
	struct request *r = a->req;
	uint32_t *sorted = malloc(r->n_prompt * sizeof(*sorted));

	a->cap_counts = r->n_prompt + r->desc.max_tokens;
	a->counts = malloc(a->cap_counts * sizeof(*a->counts));
	if (!sorted || !a->counts) {
		free(sorted);
		free(a->counts);
		a->counts = NULL;
		return -ENOMEM;
	}
	memcpy(sorted, r->prompt, r->n_prompt * sizeof(*sorted));
	qsort(sorted, r->n_prompt, sizeof(*sorted), compare_tokens);
	a->n_counts = 0;
	for (uint32_t i = 0; i < r->n_prompt; i++) {
		if (!a->n_counts || a->counts[a->n_counts - 1].token != sorted[i])
			a->counts[a->n_counts++] = (struct wk_count){.token = sorted[i]};
		a->counts[a->n_counts - 1].in_prompt++;
	}
	free(sorted);
	for (uint32_t i = 0; i < a->n_out; i++)
		count_of(a, request_out(a)[i])->in_output++;
	return 0;
}

void sampling_append(struct sample *a, uint32_t token)
{
	if (a->counts)
		count_of(a, token)->in_output++;
}

int sampling_row(struct engine *e, struct sample *a, uint32_t logits_row, struct wk_sample *ret)
{
	struct request *r = a->req;
	const struct wshm_desc *d = &r->desc;

	(void)e;
	if (has_penalties(d) && !a->counts && counts_make(a))
		return -ENOMEM;
	*ret = (struct wk_sample){
		.row = logits_row,
		.temperature = d->temperature,
		.top_k = d->top_k,
		.top_p = d->top_p,
		.min_p = d->min_p,
		.repetition_penalty = d->repetition,
		.presence_penalty = d->presence,
		.frequency_penalty = d->frequency,
		.seed = r->seed,
		.sample = a->index,
		.position = r->n_prompt + a->n_out,
		.n_logprobs = d->logprobs == WSHM_NO_LOGPROBS ? 0 : d->logprobs,
		.given = WK_NO_TOKEN,
		.counts = a->counts,
		.n_counts = a->n_counts,
		.bias = r->bias,
		.n_bias = a->n_out + 1 < d->min_tokens ? r->n_bias_forbidden : r->n_bias,
	};
	return 0;
}

void sampling_given(uint32_t logits_row, uint32_t token, uint32_t n_logprobs, struct wk_sample *ret)
{
	*ret = (struct wk_sample){
		.row = logits_row,
		.top_p = 1,
		.repetition_penalty = 1,
		.n_logprobs = n_logprobs,
		.given = token,
	};
}
