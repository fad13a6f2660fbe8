/* SPDX-License-Identifier: Apache-2.0 */
/*
 * split.c - cut text into pre-tokens. Each step cuts what the one before left, piece by piece; what
 * passes the last step goes to BPE. A step that changes text writes a buffer of its own, so that
 * pieces stay where they are while later steps work on them.
 */
#include "libclient/text/private.h"

#include <string.h>

/* A cut of one text by one step. */
struct cut {
	struct wt_scratch *s;
	uint32_t step;
	const char *p;
	bool first;
	enum wt_behavior behavior;
	bool have, was_match; /* of the range that waits for its neighbour */
	struct wt_range range;
};

static int pass(struct cut *c, size_t start, size_t end)
{
	return wt_split(c->s, c->step + 1, c->p + start, end - start, c->first && !start);
}

static int flush(struct cut *c)
{
	bool have = c->have;

	c->have = false;
	return have ? pass(c, c->range.start, c->range.end) : 0;
}

/* The next range of the text, which is or is not a delimiter. */
static int put(struct cut *c, size_t start, size_t end, bool match)
{
	bool joins = false;
	int r;

	if (c->behavior == WT_ISOLATED)
		return pass(c, start, end);
	if (c->behavior == WT_REMOVED)
		return match ? 0 : pass(c, start, end);
	if (c->have) {
		if (c->behavior == WT_CONTIGUOUS)
			joins = match == c->was_match;
		else if (c->behavior == WT_WITH_PREVIOUS)
			joins = match && !c->was_match;
		else
			joins = !match && c->was_match;
	}
	c->was_match = match;
	if (joins) {
		c->range.end = end;
		return 0;
	}
	r = flush(c);
	c->range = (struct wt_range){start, end};
	c->have = true;
	return r;
}

static int split_pattern(struct cut *c, const struct wt_step *step, size_t n)
{
	struct wt_matches m = {&step->pattern, c->p, n, 0, SIZE_MAX};
	size_t from = 0, start, end;
	int r, got;

	while ((got = wt_matches_next(&m, c->s, &start, &end)) > 0) {
		r = from < start ? put(c, from, start, step->invert) : 0;
		r = r ? r : put(c, start, end, !step->invert);
		if (r)
			return r;
		from = end;
	}
	if (got < 0)
		return got;
	r = from < n ? put(c, from, n, step->invert) : 0;
	return r ? r : flush(c);
}

static int split_digits(struct cut *c, const struct wt_step *step, size_t n)
{
	size_t from = 0;
	int len, r = 0;

	c->behavior = step->individual ? WT_ISOLATED : WT_CONTIGUOUS;
	for (size_t at = 0; at < n && !r; at += (size_t)len) {
		if (!wt_is_number(wt_utf8_next(c->p + at, n - at, &len)))
			continue;
		r = from < at ? put(c, from, at, false) : 0;
		from = at + (size_t)len;
		r = r ? r : put(c, at, from, true);
	}
	r = r || from == n ? r : put(c, from, n, false);
	return r ? r : flush(c);
}

static int byte_level(struct cut *c, const struct wt_step *step, size_t n)
{
	struct wt_buf *b = &c->s->step[c->step];

	if (step->prefix_space && c->p[0] != ' ') {
		b->n = 0;
		if (wt_buf_add(b, " ", 1) || wt_buf_add(b, c->p, n))
			return -ENOMEM;
		c->p = b->p;
		n = b->n;
	}
	return step->regex ? split_pattern(c, step, n) : pass(c, 0, n);
}

/* Blanks become the replacement; each piece begins with one. */
static int metaspace(struct cut *c, const struct wt_step *step, size_t n)
{
	struct wt_buf *b = &c->s->step[c->step];
	size_t len = step->content_bytes, from = 0;
	bool begins, prepend;
	int r = 0;

	begins = c->p[0] == ' ' || (n >= len && !memcmp(c->p, step->content, len));
	prepend = step->prepend == WT_ALWAYS || (step->prepend == WT_FIRST && c->first);
	b->n = 0;
	if (prepend && !begins && wt_buf_add(b, step->content, len))
		return -ENOMEM;
	for (size_t at = 0; at < n; at++)
		if (c->p[at] == ' ' ? wt_buf_add(b, step->content, len)
				    : wt_buf_add(b, &c->p[at], 1))
			return -ENOMEM;
	c->p = b->p;
	n = b->n;
	for (size_t at = 1; step->split && at + len <= n && !r; at++)
		if (!memcmp(c->p + at, step->content, len)) {
			r = pass(c, from, at);
			from = at;
			at += len - 1;
		}
	return r ? r : pass(c, from, n);
}

int wt_split(struct wt_scratch *s, uint32_t i, const char *p, size_t n, bool first)
{
	const struct wt_steps *steps = &s->t->splitter;
	struct cut c = {.s = s, .step = i, .p = p, .first = first};

	if (!n)
		return 0;
	if (n > WEFT_TEXT_MAX_BYTES)
		return -E2BIG;
	if (i == steps->n)
		return wt_bpe(s, p, n);
	c.behavior = steps->step[i].behavior;
	switch (steps->step[i].kind) {
	case WT_BYTE_LEVEL:
		return byte_level(&c, &steps->step[i], n);
	case WT_DIGITS:
		return split_digits(&c, &steps->step[i], n);
	case WT_METASPACE:
		return metaspace(&c, &steps->step[i], n);
	default: /* WT_SPLIT */
		return split_pattern(&c, &steps->step[i], n);
	}
}
