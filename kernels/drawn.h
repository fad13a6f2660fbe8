/* SPDX-License-Identifier: Apache-2.0 */
/*
 * drawn.h - tokens of a batch that are named by where they were drawn (WK_DRAWN): what every backend
 * checks of them, and the looking up of those that have finished a call of sample() when it returns.
 */
#ifndef WEFT_KERNELS_DRAWN_H
#define WEFT_KERNELS_DRAWN_H

#include "kernels/backend.h"

/* Whether the last call of sample(), of n_drawn rows, has all the rows that a batch names. */
static inline bool wk_drawn_known(const struct wk_batch *b, uint32_t n_drawn)
{
	for (uint32_t r = 0; r < b->n_rows; r++)
		if (b->tokens[r] & WK_DRAWN && (b->tokens[r] & ~WK_DRAWN) >= n_drawn)
			return false;
	return true;
}

/* What the last call drew, in the host's memory. */
struct wk_drawn {
	uint32_t n;
	uint32_t tokens[WK_MAX_DRAWS];
};

static inline void wk_drawn_keep(struct wk_drawn *d, const struct wk_sampled *rows, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		d->tokens[i] = rows[i].token;
	d->n = n;
}

/* Put tokens in the place of their names. */
static inline void wk_drawn_resolve(const struct wk_drawn *d, uint32_t *tokens, uint32_t n)
{
	for (uint32_t r = 0; r < n; r++)
		if (tokens[r] & WK_DRAWN)
			tokens[r] = d->tokens[tokens[r] & ~WK_DRAWN];
}

#endif
