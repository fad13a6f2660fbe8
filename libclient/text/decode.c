/* SPDX-License-Identifier: Apache-2.0 */
/*
 * decode.c - ids to text, all at once or as they come: both are the same steps, token by token.
 *
 *   token's text -> steps before Fuse -> bytes or text -> pending -> whole characters -> Strip -> out
 *
 * Bytes wait in `pending` until they are a character or can no longer become one. A stream belongs
 * to one thread at a time; weft_decode() makes one of its own.
 */
#include "libclient/text/private.h"

#include <stdlib.h>
#include <string.h>

struct weft_stream {
	struct weft_tokenizer *t;    /* borrowed, while the stream lives */
	struct wt_scratch *s;	     /* owner; for patterns, made when one is met */
	const struct wt_step *strip; /* borrowed; of the whole text, or NULL */
	bool skip_special;
	bool whole;   /* all ids will come before anything is taken: judge runs of bytes as one */
	size_t index; /* tokens so far */
	uint32_t strip_left;
	uint32_t held; /* characters that strip at the end would take */
	struct wt_buf piece, other, pending, out;
};

static void begin(struct weft_stream *d)
{
	const struct wt_steps *steps = &d->t->decoder;

	d->strip = NULL;
	if (steps->n > 1 && steps->step[steps->n - 1].kind == WT_STRIP &&
	    steps->step[steps->n - 2].kind == WT_FUSE)
		d->strip = &steps->step[steps->n - 1];
	d->strip_left = d->strip ? d->strip->start : 0;
	d->index = 0;
	d->held = 0;
	d->pending.n = 0;
}

static void fini(struct weft_stream *d)
{
	wt_scratch_free(d->s);
	free(d->piece.p);
	free(d->other.p);
	free(d->pending.p);
	free(d->out.p);
}

/* --- one token -----------------------------------------------------------------------------------*/

static int replace(struct weft_stream *d, const struct wt_step *step)
{
	struct wt_matches m = {&step->pattern, d->piece.p, d->piece.n, 0, SIZE_MAX};
	size_t from = 0, start, end;
	struct wt_buf swap;
	int r;

	if (!d->s)
		d->s = wt_scratch_new(d->t);
	if (!d->s)
		return -ENOMEM;
	/* A stream lives long, and may go from thread to thread. */
	d->s->patience = (struct wt_patience){0};
	d->other.n = 0;
	while ((r = wt_matches_next(&m, d->s, &start, &end)) > 0) {
		if (wt_buf_add(&d->other, d->piece.p + from, start - from) ||
		    wt_buf_add(&d->other, step->content, step->content_bytes))
			return -ENOMEM;
		from = end;
	}
	if (r || wt_buf_add(&d->other, d->piece.p + from, d->piece.n - from))
		return r ? r : -ENOMEM;
	swap = d->piece;
	d->piece = d->other;
	d->other = swap;
	return 0;
}

/* The replacement becomes a blank, or nothing in the first token, where it was put by encoding. */
static void metaspace(struct weft_stream *d, const struct wt_step *step)
{
	bool drop = !d->index && step->prepend != WT_NEVER;
	size_t out = 0;

	for (size_t at = 0; at < d->piece.n;) {
		if (at + step->content_bytes <= d->piece.n &&
		    !memcmp(d->piece.p + at, step->content, step->content_bytes)) {
			if (!drop)
				d->piece.p[out++] = ' ';
			at += step->content_bytes;
		} else {
			d->piece.p[out++] = d->piece.p[at++];
		}
	}
	d->piece.n = out;
}

static bool has(const struct wt_step *step, const char *p, size_t n)
{
	return n >= step->content_bytes && !memcmp(p, step->content, step->content_bytes);
}

static void strip_piece(struct weft_stream *d, const struct wt_step *step)
{
	size_t len = step->content_bytes, from = 0, n = d->piece.n;

	for (uint32_t i = 0; i < step->start && has(step, d->piece.p + from, n - from); i++)
		from += len;
	for (uint32_t i = 0;
	     i < step->stop && n - from >= len && has(step, d->piece.p + n - len, len); i++)
		n -= len;
	memmove(d->piece.p, d->piece.p + from, n - from);
	d->piece.n = n - from;
}

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A token of the form <0xAB> is that byte. */
static bool to_byte(struct wt_buf *b)
{
	int high, low;

	if (b->n != 6 || memcmp(b->p, "<0x", 3) || b->p[5] != '>')
		return false;
	high = hex(b->p[3]);
	low = hex(b->p[4]);
	if (high < 0 || low < 0)
		return false;
	b->p[0] = (char)(high << 4 | low);
	b->n = 1;
	return true;
}

/* d->piece through the steps on single tokens; *bytes: the result is not text yet. */
static int run_steps(struct weft_stream *d, bool *bytes)
{
	const struct wt_steps *steps = &d->t->decoder;
	int r = 0;

	for (uint32_t i = 0; i < steps->n && !r; i++) {
		const struct wt_step *step = &steps->step[i];
		int len;

		switch (step->kind) {
		case WT_REPLACE:
			r = replace(d, step);
			break;
		case WT_METASPACE:
			metaspace(d, step);
			break;
		case WT_STRIP:
			strip_piece(d, step);
			break;
		case WT_BYTE_FALLBACK:
			*bytes = to_byte(&d->piece);
			break;
		case WT_BYTE_LEVEL:
			/* What is not of the alphabet stands for itself. */
			*bytes = true;
			len = wt_byte_decode(d->piece.p, d->piece.p, d->piece.n);
			if (len >= 0)
				d->piece.n = (size_t)len;
			break;
		default: /* WT_FUSE: the rest is about the whole text */
			return 0;
		}
	}
	return r;
}

/* --- text ----------------------------------------------------------------------------------------*/

/* Certain text, less what strip takes. */
static int give(struct weft_stream *d, const char *p, size_t n)
{
	const struct wt_step *strip = d->strip;
	int r;

	if (!strip)
		return wt_buf_add(&d->out, p, n);
	while (n && d->strip_left) {
		if (!has(strip, p, n)) {
			d->strip_left = 0;
			break;
		}
		d->strip_left--;
		p += strip->content_bytes;
		n -= strip->content_bytes;
	}
	for (r = 0; n && d->held && !r; d->held--)
		r = wt_buf_add(&d->out, strip->content, strip->content_bytes);
	r = r ? r : wt_buf_add(&d->out, p, n);
	while (!r && d->held < strip->stop && d->out.n >= strip->content_bytes &&
	       has(strip, d->out.p + d->out.n - strip->content_bytes, strip->content_bytes)) {
		d->out.n -= strip->content_bytes;
		d->held++;
	}
	return r;
}

/* All that is pending, as bytes that nothing follows. */
static int flush(struct weft_stream *d)
{
	struct wt_buf *b = &d->pending;
	const struct wt_steps *steps = &d->t->decoder;
	bool run = d->whole && steps->n && steps->step[steps->n - 1].kind != WT_BYTE_LEVEL;
	int r = 0;

	if (!b->n)
		return 0;
	if (run && !wt_utf8_valid(b->p, b->n)) {
		for (size_t i = 0; i < b->n && !r; i++)
			r = give(d, "\xef\xbf\xbd", 3);
	} else {
		d->other.n = 0;
		r = wt_buf_add_lossy(&d->other, b->p, b->n);
		r = r ? r : give(d, d->other.p, d->other.n);
	}
	b->n = 0;
	return r;
}

/* The part of what is pending that is certain: all but the beginning of a character at the end. */
static int give_certain(struct weft_stream *d)
{
	struct wt_buf *b = &d->pending;
	size_t at = 0, left;
	int r;

	while (at < b->n) {
		int len = wt_utf8_length((const unsigned char *)b->p + at, b->n - at);

		if (!len)
			break;
		at += (size_t)abs(len);
	}
	d->other.n = 0;
	r = wt_buf_add_lossy(&d->other, b->p, at);
	r = r ? r : give(d, d->other.p, d->other.n);
	left = b->n - at;
	memmove(b->p, b->p + at, left);
	b->n = left;
	return r;
}

/* The text of a token that is there, after what is in d->piece. */
static int add_text(struct weft_stream *d, uint32_t id)
{
	const struct weft_tokenizer *t = d->t;
	const struct wt_token *token = &t->vocab.tokens[id];

	for (uint32_t i = 0; i < t->n_added && token->renamed; i++)
		if (t->added[i].id == id)
			return wt_buf_add(&d->piece, t->added[i].text, t->added[i].bytes);
	return wt_buf_add(&d->piece, t->vocab.arena.p + token->text, token->text_bytes);
}

static int push(struct weft_stream *d, uint32_t id)
{
	const struct wt_vocab *v = &d->t->vocab;
	bool bytes = false;
	int r;

	if (id >= v->n || !v->tokens[id].there || (d->skip_special && v->tokens[id].special))
		return 0;
	d->piece.n = 0;
	if (d->t->no_decoder && d->index)
		wt_buf_add(&d->piece, " ", 1);
	r = add_text(d, id);
	r = r ? r : run_steps(d, &bytes);
	d->index++;
	if (r)
		return r;
	if (!bytes) {
		r = flush(d);
		return r ? r : give(d, d->piece.p, d->piece.n);
	}
	r = wt_buf_add(&d->pending, d->piece.p, d->piece.n);
	return r || d->whole ? r : give_certain(d);
}

/* --- the calls -----------------------------------------------------------------------------------*/

int weft_decode(struct weft_tokenizer *t, const uint32_t *ids, size_t n, uint32_t flags,
		char **ret_text, size_t *ret_bytes, struct weft_error *error)
{
	struct weft_stream d = {.t = t, .whole = true, .skip_special = flags & WEFT_SKIP_SPECIAL};
	int r = 0;

	if (flags & ~WEFT_SKIP_SPECIAL)
		return wt_fail(error, -EINVAL, "decode: unknown flags %#x", flags);
	begin(&d);
	for (size_t i = 0; i < n && !r; i++)
		r = push(&d, ids[i]);
	r = r ? r : flush(&d);
	r = r ? r : wt_buf_add(&d.out, "", 1);
	if (!r) {
		*ret_text = d.out.p;
		*ret_bytes = d.out.n - 1;
		d.out.p = NULL;
	} else {
		wt_fail(error, r, "decode: %s", strerror(-r));
	}
	fini(&d);
	return r;
}

int weft_stream_new(struct weft_stream **ret, struct weft_tokenizer *t, uint32_t flags)
{
	struct weft_stream *d;

	if (flags & ~WEFT_SKIP_SPECIAL)
		return -EINVAL;
	d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	d->t = t;
	d->skip_special = flags & WEFT_SKIP_SPECIAL;
	begin(d);
	*ret = d;
	return 0;
}

void weft_stream_free(struct weft_stream *d)
{
	if (!d)
		return;
	fini(d);
	free(d);
}

static int hand_over(struct weft_stream *d, int r, const char **ret_text, size_t *ret_bytes)
{
	r = r ? r : wt_buf_add(&d->out, "", 1);
	if (r)
		return r;
	*ret_text = d->out.p;
	*ret_bytes = d->out.n - 1;
	return 0;
}

int weft_stream_push(struct weft_stream *d, uint32_t id, const char **ret_text, size_t *ret_bytes)
{
	d->out.n = 0;
	return hand_over(d, push(d, id), ret_text, ret_bytes);
}

int weft_stream_end(struct weft_stream *d, const char **ret_text, size_t *ret_bytes)
{
	int r;

	d->out.n = 0;
	r = flush(d);
	begin(d);
	return hand_over(d, r, ret_text, ret_bytes);
}
