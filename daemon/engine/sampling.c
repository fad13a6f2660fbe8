/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sampling.c - what the sampler needs to know about a row: a pure function of the request and of
 * the tokens so far, so that a resumed answer draws exactly what it would have drawn.
 *
 * Penalties need how often each token occurred. The prompt is counted when the first row is drawn,
 * once for all answers and by a sort in linear time, because the core thread does it and no tenant
 * is charged for it; each answer's counts start as a copy and are kept up to date by insertion.
 * Owned by the core thread.
 */
#include "daemon/engine/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool sampling_needs_tokens(const struct wshm_desc *d)
{
	return d->repetition != 1 || d->presence != 0 || d->frequency != 0;
}

#define RADIX_BITS 6 /* three turns for most vocabularies, two for that of the tests */
#define RADIX	   (1u << RADIX_BITS)

/* Sort numbers below `limit` from the lowest digit up; gives the one of the two where they are. */
static uint32_t *sort_tokens(uint32_t *from, uint32_t *to, uint32_t n, uint32_t limit)
{
	for (uint32_t shift = 0; shift < 32 && (limit - 1) >> shift; shift += RADIX_BITS) {
		uint32_t at[RADIX] = {0}, sum = 0, *was = from;

		for (uint32_t i = 0; i < n; i++)
			at[from[i] >> shift & (RADIX - 1)]++;
		for (uint32_t i = 0; i < RADIX; i++) {
			uint32_t count = at[i];

			at[i] = sum;
			sum += count;
		}
		for (uint32_t i = 0; i < n; i++)
			to[at[from[i] >> shift & (RADIX - 1)]++] = from[i];
		from = to;
		to = was;
	}
	return from;
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

/* The prompt's, ascending by token. */
static int count_prompt(const struct engine *e, struct request *r)
{
	uint32_t *room = malloc(2 * (size_t)r->n_prompt * sizeof(*room)), *sorted, n = 0;
	struct wk_count *counts = malloc(r->n_prompt * sizeof(*counts));

	if (!room || !counts) {
		free(room);
		free(counts);
		return -ENOMEM;
	}
	memcpy(room, r->prompt, r->n_prompt * sizeof(*room));
	sorted = sort_tokens(room, room + r->n_prompt, r->n_prompt, e->config->vocab);
	for (uint32_t i = 0; i < r->n_prompt; i++) {
		if (!n || counts[n - 1].token != sorted[i])
			counts[n++] = (struct wk_count){.token = sorted[i]};
		counts[n - 1].in_prompt++;
	}
	free(room);
	r->prompt_counts = counts;
	r->n_prompt_counts = n;
	return 0;
}

static int counts_make(const struct engine *e, struct sample *a)
{
	struct request *r = a->req;

	if (!r->prompt_counts && count_prompt(e, r))
		return -ENOMEM;
	a->cap_counts = r->n_prompt_counts + r->desc.max_tokens;
	a->counts = malloc(a->cap_counts * sizeof(*a->counts));
	if (!a->counts)
		return -ENOMEM;
	a->n_counts = r->n_prompt_counts;
	memcpy(a->counts, r->prompt_counts, a->n_counts * sizeof(*a->counts));
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
	uint32_t n_out = a->n_out + a->pending;

	if (sampling_needs_tokens(d) && !a->counts && counts_make(e, a))
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
		.position = r->n_prompt + n_out,
		.n_logprobs = d->logprobs == WSHM_NO_LOGPROBS ? 0 : d->logprobs,
		.given = WK_NO_TOKEN,
		.counts = a->counts,
		.n_counts = a->n_counts,
		.bias = r->bias,
		.n_bias = n_out < d->min_tokens ? r->n_bias_forbidden : r->n_bias,
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
