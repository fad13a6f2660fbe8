/* SPDX-License-Identifier: Apache-2.0 */
/*
 * encode.c - text to ids: added tokens are cut out, the rest is normalized, cut and merged.
 *
 * An encoding works in a scratch that it takes from the tokenizer's list and puts back, with the
 * words that it remembers; as many exist as threads have encoded at a time.
 */
#include "libclient/text/private.h"

#include <stdlib.h>
#include <string.h>

/* --- scratch -------------------------------------------------------------------------------------*/

void wt_scratch_free(struct wt_scratch *s)
{
	if (!s)
		return;
	pcre2_match_data_free(s->match);
	pcre2_match_context_free(s->context);
	pcre2_jit_stack_free(s->stack);
	free(s->text.p);
	free(s->unguarded.p);
	free(s->norm[0].p);
	free(s->norm[1].p);
	for (uint32_t i = 0; i < WT_MAX_STEPS; i++)
		free(s->step[i].p);
	free(s->points);
	free(s->symbols);
	free(s->heap);
	free(s->cache);
	free(s);
}

struct wt_scratch *wt_scratch_new(struct weft_tokenizer *t)
{
	struct wt_scratch *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->t = t;
	s->match = pcre2_match_data_create(1, NULL);
	s->context = pcre2_match_context_create(NULL);
	s->stack = pcre2_jit_stack_create(32 << 10, 1 << 20, NULL);
	s->cache = calloc(WT_CACHE_ENTRIES, sizeof(*s->cache));
	if (!s->match || !s->context || !s->cache) {
		wt_scratch_free(s);
		return NULL;
	}
	/* What a text may cost at one place; a published expression needs a few steps a byte. */
	pcre2_set_match_limit(s->context, 50000000);
	pcre2_set_depth_limit(s->context, 1000000);
	pcre2_set_heap_limit(s->context, 256 << 10);
	if (s->stack)
		pcre2_jit_stack_assign(s->context, NULL, s->stack);
	return s;
}

static struct wt_scratch *take(struct weft_tokenizer *t)
{
	struct wt_scratch *s;

	pthread_mutex_lock(&t->lock);
	s = t->idle;
	if (s)
		t->idle = s->next;
	pthread_mutex_unlock(&t->lock);
	if (s)
		s->patience = (struct wt_patience){0};
	return s ? s : wt_scratch_new(t);
}

/* A long text's buffers are not kept. */
#define KEEP_BYTES (16u << 20)

static void put_back(struct weft_tokenizer *t, struct wt_scratch *s)
{
	size_t bytes = s->text.room + s->unguarded.room + s->norm[0].room + s->norm[1].room +
		       4 * s->points_room + sizeof(*s->symbols) * s->symbols_room +
		       sizeof(*s->heap) * s->heap_room;

	for (uint32_t i = 0; i < WT_MAX_STEPS; i++)
		bytes += s->step[i].room;
	if (bytes > KEEP_BYTES) {
		wt_scratch_free(s);
		return;
	}
	pthread_mutex_lock(&t->lock);
	s->next = t->idle;
	t->idle = s;
	pthread_mutex_unlock(&t->lock);
}

/* --- added tokens --------------------------------------------------------------------------------*/

/* The ends of a match that its flags move, or false where they forbid it. */
static bool accept(const struct wt_scratch *s, const struct wt_added *a, const char *p, size_t n,
		   size_t begun, size_t *start, size_t *end)
{
	int len;

	if (a->special && !s->parse_special)
		return false;
	if (a->single_word && ((*start && wt_is_word(wt_utf8_last(p, *start))) ||
			       (*end < n && wt_is_word(wt_utf8_next(p + *end, n - *end, &len)))))
		return false;
	/* What the token before has taken it keeps. */
	if (a->lstrip && *start < begun)
		*start = begun;
	while (a->lstrip && *start > begun && wt_is_space(wt_utf8_last(p, *start)))
		do
			--*start;
		while (((unsigned char)p[*start] & 0xc0) == 0x80);
	while (a->rstrip && *end < n && wt_is_space(wt_utf8_next(p + *end, n - *end, &len)))
		*end += (size_t)len;
	return true;
}

static int encode_rest(struct wt_scratch *s, const char *p, size_t n, bool normalized, bool first);

/* Cut out the tokens that f finds and encode what is between. first: p is the text's beginning. */
static int cut_added(struct wt_scratch *s, const struct wt_finder *f, const char *p, size_t n,
		     bool normalized, bool first)
{
	size_t begun = 0, at = 0;
	int r = 0;

	while (f->n && at < n && !r) {
		const struct wt_added *a;
		size_t start = at, end;

		a = f->first[(unsigned char)p[at]] ? wt_finder_at(f, p + at, n - at) : NULL;
		if (!a) {
			at++;
			continue;
		}
		end = at = start + a->bytes;
		/* Of blanks that the token before has taken nothing is left to be a token. */
		if (!accept(s, a, p, n, begun, &start, &end) || start >= end)
			continue;
		if (begun < start)
			r = encode_rest(s, p + begun, start - begun, normalized, first && !begun);
		r = r ? r : wt_ids_add(s->out, a->id);
		begun = end;
	}
	if (r || begun >= n)
		return r;
	return encode_rest(s, p + begun, n - begun, normalized, first && !begun);
}

/* The guards have done their work: no added token is sought any more. */
static int split_unguarded(struct wt_scratch *s, const char *p, size_t n, bool first)
{
	const char *end = p + n;
	int r = 0;

	s->unguarded.n = 0;
	while (p < end && !r) {
		const char *g = memmem(p, (size_t)(end - p), s->guard, WT_GUARD_BYTES);

		r = wt_buf_add(&s->unguarded, p, (size_t)((g ? g : end) - p));
		p = g ? g + WT_GUARD_BYTES : end;
	}
	if (r || !s->unguarded.n)
		return r;
	return wt_split(s, 0, s->unguarded.p, s->unguarded.n, first);
}

static int encode_rest(struct wt_scratch *s, const char *p, size_t n, bool normalized, bool first)
{
	int r;

	if (normalized && s->guard)
		return split_unguarded(s, p, n, first);
	if (normalized)
		return wt_split(s, 0, p, n, first);
	r = wt_normalize(&s->t->normalizer, s, &p, &n);
	return r ? r : cut_added(s, &s->t->normalized, p, n, true, first);
}

/* --- the call ------------------------------------------------------------------------------------*/

static int encode(struct wt_scratch *s, const char *text, size_t n, uint32_t flags)
{
	const struct weft_tokenizer *t = s->t;
	int r = 0;

	if (!wt_utf8_valid(text, n)) {
		s->text.n = 0;
		r = wt_buf_add_lossy(&s->text, text, n);
		text = s->text.p;
		n = s->text.n;
	}
	for (uint32_t i = 0; i < t->n_prefix && flags & WEFT_ADD_SPECIAL && !r; i++)
		r = wt_ids_add(s->out, t->prefix[i]);
	r = r ? r : cut_added(s, &t->raw, text, n, false, true);
	for (uint32_t i = 0; i < t->n_suffix && flags & WEFT_ADD_SPECIAL && !r; i++)
		r = wt_ids_add(s->out, t->suffix[i]);
	return r;
}

static int explain(int r, struct weft_error *error)
{
	if (r == -E2BIG)
		return wt_fail(error, r, "encode: the text is longer than %u bytes: cut it",
			       WEFT_TEXT_MAX_BYTES);
	if (r == -ELOOP)
		return wt_fail(error, r,
			       "encode: matching the tokenizer's expressions took too many steps "
			       "at one place of the text");
	return wt_fail(error, r, "encode: %s", strerror(-r));
}

int wt_encode_guarded(struct weft_tokenizer *t, const char *text, size_t bytes, uint32_t flags,
		      const char *guard, uint32_t **ret_ids, size_t *ret_n,
		      struct weft_error *error)
{
	struct wt_ids out = {0};
	struct wt_scratch *s;
	int r;

	if (flags & ~(WEFT_ADD_SPECIAL | WEFT_PARSE_SPECIAL))
		return wt_fail(error, -EINVAL, "encode: unknown flags %#x", flags);
	if (bytes > WEFT_TEXT_MAX_BYTES)
		return explain(-E2BIG, error);
	s = take(t);
	if (!s || wt_ids_grow(&out)) {
		wt_scratch_free(s);
		return explain(-ENOMEM, error);
	}
	s->out = &out;
	s->parse_special = flags & WEFT_PARSE_SPECIAL;
	s->guard = guard;
	r = encode(s, text, bytes, flags);
	s->out = NULL;
	s->guard = NULL;
	put_back(t, s);
	if (r) {
		free(out.p);
		return explain(r, error);
	}
	*ret_ids = out.p;
	*ret_n = out.n;
	return 0;
}

int weft_encode(struct weft_tokenizer *t, const char *text, size_t bytes, uint32_t flags,
		uint32_t **ret_ids, size_t *ret_n, struct weft_error *error)
{
	return wt_encode_guarded(t, text, bytes, flags, NULL, ret_ids, ret_n, error);
}

int wt_holds_special(struct weft_tokenizer *t, const char *text, size_t bytes)
{
	const struct wt_finder *finders[] = {&t->raw, &t->normalized};
	struct wt_scratch *s = take(t);
	const char *p = text;
	size_t n = bytes;
	int r = s ? 0 : -ENOMEM;

	for (size_t i = 0; i < 2 && !r; i++) {
		const struct wt_finder *f = finders[i];

		if (i)
			r = wt_normalize(&t->normalizer, s, &p, &n);
		for (size_t at = 0; at < n && !r; at++) {
			const struct wt_added *a = f->first[(unsigned char)p[at]]
							   ? wt_finder_at(f, p + at, n - at)
							   : NULL;

			r = a && a->special ? 1 : 0;
		}
	}
	if (s)
		put_back(t, s);
	return r;
}

void weft_text_free(void *p)
{
	free(p);
}
