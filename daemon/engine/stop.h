/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stop.h - does an answer end with its newest token?
 *
 * In this order: nothing before min_tokens (none of the first min_tokens is drawn from the tokens
 * that end, see sampling_row()); end-of-sequence tokens of the model (unless ignored), stop tokens, stop
 * sequences; max_tokens. What matched stays in the output. Looks at nothing but
 * the answer's own tokens, so the verdict is the same after a restart.
 */
#ifndef WEFT_ENGINE_STOP_H
#define WEFT_ENGINE_STOP_H

#include "shm/wshm.h"

/* out[0 .. n-1] are the answer so far, n >= 1. */
enum wshm_finish stop_check(const struct wshm_desc *desc, const uint32_t *eos, uint32_t n_eos,
			    const uint32_t *out, uint32_t n);

#endif
