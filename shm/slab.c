/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slab.c - how a request's results lie in its slab.
 *
 *   sample 0: tokens u32[max_tokens] | pad to 8 | entries[max_tokens] | pad to a line
 *   sample 1: ...
 *   prompt log-probabilities: entries[prompt_tokens] | pad to a line
 *
 * An entry is the token's own pair and `top` alternatives, 8 bytes each; without log-probabilities
 * the part is absent and its offset 0. Pure arithmetic: with n <= 16, counts below 2^32 and entries
 * of at most 168 bytes the sum stays below 2^44.
 */
#include "shm/wshm.h"

#include <string.h>

static uint64_t align_up(uint64_t n, uint64_t to)
{
	return (n + to - 1) / to * to;
}

static uint32_t entry_bytes(uint32_t top)
{
	return (1 + top) * (uint32_t)sizeof(struct wshm_logprob);
}

void wshm_slab_layout(struct wshm_slab_layout *ret, uint32_t n, uint32_t max_tokens,
		      uint32_t prompt_tokens, uint32_t logprobs, uint32_t prompt_logprobs)
{
	uint64_t bytes = (uint64_t)max_tokens * sizeof(uint32_t);

	assert(n <= WSHM_MAX_SAMPLES);
	assert(logprobs <= WSHM_MAX_LOGPROBS || logprobs == WSHM_NO_LOGPROBS);
	assert(prompt_logprobs <= WSHM_MAX_LOGPROBS || prompt_logprobs == WSHM_NO_LOGPROBS);
	memset(ret, 0, sizeof(*ret));
	if (logprobs != WSHM_NO_LOGPROBS) {
		ret->logprob_bytes = entry_bytes(logprobs);
		ret->logprob_off = align_up(bytes, sizeof(struct wshm_logprob));
		bytes = ret->logprob_off + (uint64_t)max_tokens * ret->logprob_bytes;
	}
	ret->sample_bytes = align_up(bytes, WSHM_LINE);
	ret->bytes = n * ret->sample_bytes;
	if (prompt_logprobs != WSHM_NO_LOGPROBS) {
		ret->prompt_logprob_bytes = entry_bytes(prompt_logprobs);
		ret->prompt_logprob_off = ret->bytes;
		ret->bytes +=
			align_up((uint64_t)prompt_tokens * ret->prompt_logprob_bytes, WSHM_LINE);
	}
}
