/* SPDX-License-Identifier: Apache-2.0 */
/*
 * added.c - find added tokens in text: the leftmost, and the longest of those.
 *
 * The tokens lie sorted by their bytes. At a place of the text the range of those that agree with it
 * narrows byte by byte, and the last that was agreed with to its end is the longest. Constant once
 * the tokenizer is open.
 */
#include "libclient/text/private.h"

#include <stdlib.h>
#include <string.h>

static int compare(const void *a, const void *b)
{
	const struct wt_added *x = *(const struct wt_added *const *)a;
	const struct wt_added *y = *(const struct wt_added *const *)b;
	int r = memcmp(x->text, y->text, x->bytes < y->bytes ? x->bytes : y->bytes);

	if (r || x->bytes != y->bytes)
		return r ? r : x->bytes < y->bytes ? -1 : 1;
	/* Of equal texts special tokens come first, then the file's order. */
	if (x->special != y->special)
		return x->special ? -1 : 1;
	return x < y ? -1 : x > y;
}

static bool same(const struct wt_added *x, const struct wt_added *y)
{
	return x->bytes == y->bytes && !memcmp(x->text, y->text, x->bytes);
}

int wt_finder_init(struct wt_finder *f, const struct wt_added *added, uint32_t n, bool normalized)
{
	uint32_t kept = 0;

	f->sorted = malloc((n ? n : 1) * sizeof(const struct wt_added *));
	if (!f->sorted)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++)
		if (added[i].normalized == normalized && added[i].bytes)
			f->sorted[f->n++] = &added[i];
	qsort(f->sorted, f->n, sizeof(*f->sorted), compare);
	for (uint32_t i = 0; i < f->n; i++) {
		if (kept && same(f->sorted[kept - 1], f->sorted[i]))
			continue;
		f->sorted[kept++] = f->sorted[i];
		f->first[(unsigned char)f->sorted[i]->text[0]] = true;
	}
	f->n = kept;
	return 0;
}

void wt_finder_fini(struct wt_finder *f)
{
	free(f->sorted);
	*f = (struct wt_finder){0};
}

/* The byte of a token at a place, below all bytes at its end. */
static int byte_at(const struct wt_added *a, size_t at)
{
	return at < a->bytes ? (unsigned char)a->text[at] : -1;
}

/* The first of [low, high) whose byte at `at` is not below b. */
static uint32_t bound(const struct wt_finder *f, uint32_t low, uint32_t high, size_t at, int b)
{
	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (byte_at(f->sorted[mid], at) < b)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

const struct wt_added *wt_finder_at(const struct wt_finder *f, const char *p, size_t n)
{
	const struct wt_added *best = NULL;
	uint32_t low = 0, high = f->n;

	for (size_t at = 0; at < n; at++) {
		int b = (unsigned char)p[at];

		low = bound(f, low, high, at, b);
		high = bound(f, low, high, at, b + 1);
		if (low == high)
			break;
		if (f->sorted[low]->bytes == at + 1)
			best = f->sorted[low];
	}
	return best;
}
