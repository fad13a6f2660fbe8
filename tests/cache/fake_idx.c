/* SPDX-License-Identifier: Apache-2.0 */
/* fake_idx.c - see fake_idx.h. Plain lists; a wrong call is counted, not repaired. */
#include "tests/cache/fake_idx.h"

#include <string.h>

static uint32_t find(const struct wshm_idx_writer *w, const struct wshm_key *key)
{
	uint32_t i = 0;

	/* The newest first: what is taken out is often what came last. */
	for (i = w->n_full; i > 0; i--)
		if (wshm_key_same(&w->full_keys[i - 1], key))
			return i - 1;
	return UINT32_MAX;
}

bool fake_idx_has(const struct wshm_idx_writer *w, const struct wshm_key *key)
{
	return find(w, key) != UINT32_MAX;
}

void wshm_idx_put(struct wshm_idx_writer *w, const struct wshm_key *key, enum wshm_tier tier)
{
	if (fake_idx_has(w, key) || tier != WSHM_TIER_DEVICE || w->n_full == FAKE_FULL) {
		w->wrong++;
		return;
	}
	w->full_keys[w->n_full++] = *key;
	if (w->full)
		w->full(w->arg, key, true);
}

void wshm_idx_remove(struct wshm_idx_writer *w, const struct wshm_key *key)
{
	uint32_t i = find(w, key);

	if (i == UINT32_MAX) {
		w->wrong++;
		return;
	}
	if (w->full)
		w->full(w->arg, key, false);
	w->full_keys[i] = w->full_keys[--w->n_full];
}

uint32_t wshm_idx_tail_new(struct wshm_idx_writer *w, const struct wshm_key *parent,
			   const struct wshm_identity *id)
{
	uint32_t max = w->max_tails ? w->max_tails : FAKE_TAILS;

	for (uint32_t i = 0; i < max; i++) {
		if (w->tails[i].used)
			continue;
		w->tails[i] = (struct fake_tail){.used = true, .parent = *parent, .id = *id};
		w->n_tails++;
		return i;
	}
	return WSHM_NO_TAIL;
}

void wshm_idx_tail_set(struct wshm_idx_writer *w, uint32_t tail, const uint32_t *tokens,
		       uint32_t rows)
{
	struct fake_tail *t = &w->tails[tail < FAKE_TAILS ? tail : 0];
	uint32_t had = t->rows;

	if (tail >= FAKE_TAILS || !t->used || !rows || rows <= had || rows >= WSHM_BLOCK_TOKENS ||
	    memcmp(t->tokens, tokens, had * sizeof(*tokens))) {
		w->wrong++;
		return;
	}
	memcpy(t->tokens, tokens, rows * sizeof(*tokens));
	t->rows = rows;
	if (w->rows)
		w->rows(w->arg, t, had, rows, true);
}

void wshm_idx_tail_free(struct wshm_idx_writer *w, uint32_t tail)
{
	struct fake_tail *t = &w->tails[tail < FAKE_TAILS ? tail : 0];

	if (tail >= FAKE_TAILS || !t->used) {
		w->wrong++;
		return;
	}
	if (w->rows)
		w->rows(w->arg, t, 0, t->rows, false);
	t->used = false;
	w->n_tails--;
}
