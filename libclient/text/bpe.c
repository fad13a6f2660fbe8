/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bpe.c - one pre-token to ids: the merge of lowest rank first, the leftmost of equals.
 *
 * Words of up to WORD symbols are merged in place by looking for the best pair again after each
 * merge: quadratic, and faster than anything cleverer at that size. Longer ones use a list of symbols
 * and a heap of candidates, n log n, so that a long run costs no more per byte than a short one. A
 * candidate that no longer describes the pair at its place is skipped when it comes up.
 *
 * Short pre-tokens are remembered with their ids, as most of a text is words that come again.
 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "libclient/text/private.h"

#include <stdlib.h>
#include <string.h>

#define WORD 40u

/* --- symbols -------------------------------------------------------------------------------------*/

/* Where the symbols of a word go, and how many there are. */
struct word {
	struct wt_scratch *s;
	uint32_t *ids; /* [WORD] of the short kind, or NULL: s->symbols */
	size_t n;
};

static int put(struct word *w, uint32_t id)
{
	if (w->ids) {
		w->ids[w->n++] = id;
		return 0;
	}
	if (w->n == w->s->symbols_room) {
		size_t room = w->n ? w->n * 2 : 1024;
		struct wt_symbol *p = realloc(w->s->symbols, room * sizeof(*p));

		if (!p)
			return -ENOMEM;
		w->s->symbols = p;
		w->s->symbols_room = room;
	}
	w->s->symbols[w->n++].id = id;
	return 0;
}

/* Characters that are in the vocabulary, else their bytes, else the token for unknown ones. */
static int begin_characters(struct word *w, const char *p, size_t n)
{
	const struct wt_vocab *v = &w->s->t->vocab;
	bool unknown = false; /* one is due */
	int len, r = 0;

	for (size_t at = 0; at < n && !r; at += (size_t)len) {
		uint32_t id;

		wt_utf8_next(p + at, n - at, &len);
		id = wt_vocab_find_raw(v, p + at, (size_t)len, WT_PLAIN);
		if (id == WEFT_NO_TOKEN && !v->byte_fallback) {
			if (unknown && !v->fuse_unknown)
				r = put(w, v->unknown);
			unknown = v->unknown != WEFT_NO_TOKEN;
			continue;
		}
		if (unknown)
			r = put(w, v->unknown);
		unknown = false;
		if (id != WEFT_NO_TOKEN)
			r = r ? r : put(w, id);
		else
			for (int i = 0; i < len && !r; i++)
				r = put(w, v->bytes[(unsigned char)p[at + (size_t)i]]);
	}
	return unknown && !r ? put(w, v->unknown) : r;
}

static int begin_bytes(struct word *w, const char *p, size_t n)
{
	const struct wt_vocab *v = &w->s->t->vocab;
	bool unknown = false;
	int r = 0;

	for (size_t at = 0; at < n && !r; at++) {
		uint32_t id = v->bytes[(unsigned char)p[at]];

		if (id == WEFT_NO_TOKEN) {
			if (unknown && !v->fuse_unknown)
				r = put(w, v->unknown);
			unknown = v->unknown != WEFT_NO_TOKEN;
			continue;
		}
		if (unknown)
			r = put(w, v->unknown);
		unknown = false;
		r = r ? r : put(w, id);
	}
	return unknown && !r ? put(w, v->unknown) : r;
}

static int begin(struct word *w, const char *p, size_t n)
{
	return w->s->t->vocab.byte_level ? begin_bytes(w, p, n) : begin_characters(w, p, n);
}

/* --- short words ---------------------------------------------------------------------------------*/

static size_t merge_short(const struct wt_vocab *v, uint32_t *ids, size_t n)
{
	const struct wt_merge *pair[WORD]; /* [i]: of ids[i] and ids[i + 1] */

	for (size_t i = 0; i + 1 < n; i++)
		pair[i] = wt_vocab_merge(v, ids[i], ids[i + 1]);
	while (n > 1) {
		uint32_t best = UINT32_MAX;
		size_t at = 0;

		for (size_t i = 0; i + 1 < n; i++)
			if (pair[i] && pair[i]->rank < best) {
				best = pair[i]->rank;
				at = i;
			}
		if (best == UINT32_MAX)
			break;
		ids[at] = pair[at]->id;
		memmove(&ids[at + 1], &ids[at + 2], (n - at - 2) * sizeof(*ids));
		if (n - at > 2)
			memmove(&pair[at], &pair[at + 1], (n - at - 2) * sizeof(*pair));
		n--;
		if (at + 1 < n)
			pair[at] = wt_vocab_merge(v, ids[at], ids[at + 1]);
		if (at)
			pair[at - 1] = wt_vocab_merge(v, ids[at - 1], ids[at]);
	}
	return n;
}

/* --- long words ----------------------------------------------------------------------------------*/

static bool before(const struct wt_candidate *a, const struct wt_candidate *b)
{
	return a->rank < b->rank || (a->rank == b->rank && a->at < b->at);
}

static int push(struct wt_scratch *s, int32_t at)
{
	const struct wt_merge *m;
	struct wt_candidate c;
	size_t i = s->n_heap;

	if (at < 0 || s->symbols[at].next < 0)
		return 0;
	m = wt_vocab_merge(&s->t->vocab, s->symbols[at].id, s->symbols[s->symbols[at].next].id);
	if (!m)
		return 0;
	if (s->n_heap == s->heap_room) {
		size_t room = s->n_heap ? s->n_heap * 2 : 1024;
		struct wt_candidate *p = realloc(s->heap, room * sizeof(*p));

		if (!p)
			return -ENOMEM;
		s->heap = p;
		s->heap_room = room;
	}
	c = (struct wt_candidate){m->rank, (uint32_t)at, m->id};
	for (s->n_heap++; i && before(&c, &s->heap[(i - 1) / 2]); i = (i - 1) / 2)
		s->heap[i] = s->heap[(i - 1) / 2];
	s->heap[i] = c;
	return 0;
}

static struct wt_candidate pop(struct wt_scratch *s)
{
	struct wt_candidate top = s->heap[0], last = s->heap[--s->n_heap];
	size_t i = 0, child;

	while ((child = 2 * i + 1) < s->n_heap) {
		if (child + 1 < s->n_heap && before(&s->heap[child + 1], &s->heap[child]))
			child++;
		if (!before(&s->heap[child], &last))
			break;
		s->heap[i] = s->heap[child];
		i = child;
	}
	s->heap[i] = last;
	return top;
}

/* A symbol that was merged into its left neighbour has no id. */
static int merge_long(struct wt_scratch *s, size_t n)
{
	struct wt_symbol *y = s->symbols;
	int r = 0;

	s->n_heap = 0;
	for (size_t i = 0; i < n; i++) {
		y[i].prev = (int32_t)i - 1;
		y[i].next = i + 1 < n ? (int32_t)i + 1 : -1;
	}
	for (size_t i = 0; i < n && !r; i++)
		r = push(s, (int32_t)i);
	while (s->n_heap && !r) {
		struct wt_candidate c = pop(s);
		int32_t at = (int32_t)c.at, right = y[at].next;
		const struct wt_merge *m;

		if (y[at].id == WEFT_NO_TOKEN || right < 0)
			continue;
		m = wt_vocab_merge(&s->t->vocab, y[at].id, y[right].id);
		if (!m || m->id != c.id)
			continue;
		y[at].id = c.id;
		y[at].next = y[right].next;
		y[right].id = WEFT_NO_TOKEN;
		if (y[at].next >= 0)
			y[y[at].next].prev = at;
		r = push(s, y[at].prev);
		r = r ? r : push(s, at);
	}
	return r;
}

static int bpe_long(struct wt_scratch *s, const char *p, size_t n)
{
	struct word w = {s, NULL, 0};
	int r = begin(&w, p, n);

	if (!r && w.n)
		r = merge_long(s, w.n);
	for (size_t i = 0; i < w.n && !r; i++)
		if (s->symbols[i].id != WEFT_NO_TOKEN)
			r = wt_ids_add(s->out, s->symbols[i].id);
	return r;
}

/* --- remembered words ----------------------------------------------------------------------------*/

static int add_all(struct wt_ids *out, const uint32_t *ids, size_t n)
{
	int r = 0;

	for (size_t i = 0; i < n && !r; i++)
		r = wt_ids_add(out, ids[i]);
	return r;
}

int wt_bpe(struct wt_scratch *s, const char *p, size_t n)
{
	const struct wt_vocab *v = &s->t->vocab;
	struct wt_cached *c = NULL;
	uint32_t ids[WORD];
	struct word w = {s, ids, 0};
	int r;

	if (n <= WT_CACHE_KEY) {
		c = &s->cache[XXH3_64bits(p, n) & (WT_CACHE_ENTRIES - 1)];
		if (c->bytes == n && !memcmp(c->key, p, n))
			return add_all(s->out, c->ids, c->n);
	}
	if (v->ignore_merges) {
		uint32_t id = wt_vocab_find_raw(v, p, n, WT_PLAIN);

		if (id != WEFT_NO_TOKEN && !v->tokens[id].special)
			return wt_ids_add(s->out, id);
	}
	if (n > WORD)
		return bpe_long(s, p, n);
	r = begin(&w, p, n);
	if (r)
		return r;
	w.n = merge_short(v, ids, w.n);
	if (c && w.n <= WT_CACHE_IDS) {
		c->bytes = (uint8_t)n;
		memcpy(c->key, p, n);
		c->n = (uint8_t)w.n;
		memcpy(c->ids, ids, w.n * sizeof(*ids));
	}
	return add_all(s->out, ids, w.n);
}
