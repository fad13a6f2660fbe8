/* SPDX-License-Identifier: Apache-2.0 */
/* stop.c - see stop.h. */
#include "daemon/engine/stop.h"

#include <string.h>

static bool contains(const uint32_t *set, uint32_t n, uint32_t token)
{
	for (uint32_t i = 0; i < n; i++)
		if (set[i] == token)
			return true;
	return false;
}

enum wshm_finish stop_check(const struct wshm_desc *desc, const uint32_t *eos, uint32_t n_eos,
			    const uint32_t *out, uint32_t n)
{
	uint32_t last = out[n - 1];

	if (n >= desc->min_tokens) {
		if (!desc->ignore_eos && contains(eos, n_eos, last))
			return WSHM_FINISH_EOS;
		if (contains(desc->stop_tokens, desc->n_stop_tokens, last))
			return WSHM_FINISH_STOP_TOKEN;
		for (uint32_t i = 0; i < desc->n_stop_seqs; i++) {
			uint32_t len = desc->stop_seqs[i].n;

			if (len && len <= n &&
			    !memcmp(out + n - len, desc->stop_seqs[i].tokens, len * sizeof(*out)))
				return WSHM_FINISH_STOP_SEQUENCE;
		}
	}
	return n >= desc->max_tokens ? WSHM_FINISH_LENGTH : WSHM_FINISH_NONE;
}
