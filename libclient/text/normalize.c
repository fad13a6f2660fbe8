/* SPDX-License-Identifier: Apache-2.0 */
/*
 * normalize.c - what is done to text before it is cut. Reads the file's normalizers and applies them
 * one after the other, from one buffer of the scratch into the other.
 *
 * Unicode's forms are utf8proc's: its tables decompose and compose. Marks are put into their order
 * here, by counting, because utf8proc's insertion sort takes quadratic time for a run of a million
 * marks that someone sends.
 */
#include "libclient/text/private.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

int wt_normalizer_read(struct wt_steps *steps, json_t *o, struct weft_error *error)
{
	static const struct {
		const char *name;
		int form;
	} forms[] = {
		{"NFC", UTF8PROC_STABLE | UTF8PROC_COMPOSE},
		{"NFD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE},
		{"NFKC", UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
		{"NFKD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT},
	};
	const char *type;
	struct wt_step *s;
	int r = wt_read_sequence(steps, o, "normalizer", "normalizers", wt_normalizer_read, &type,
				 error);

	if (r <= 0)
		return r;
	s = wt_steps_add(steps, WT_FORM, error);
	if (!s)
		return -EFBIG;
	for (size_t i = 0; i < 4; i++)
		if (!strcmp(type, forms[i].name)) {
			s->form = forms[i].form;
			return 0;
		}
	if (!strcmp(type, "Lowercase")) {
		s->kind = WT_LOWERCASE;
		return 0;
	}
	if (!strcmp(type, "Prepend")) {
		s->kind = WT_PREPEND;
		return wt_read_string(o, "prepend", &s->content, &s->content_bytes, error);
	}
	if (!strcmp(type, "Replace")) {
		s->kind = WT_REPLACE;
		r = wt_pattern_read(&s->pattern, json_object_get(o, "pattern"), error);
		return r ? r : wt_read_string(o, "content", &s->content, &s->content_bytes, error);
	}
	return wt_fail(error, -EOPNOTSUPP, "normalizer %s is not supported", type);
}

/* --- Unicode's forms -----------------------------------------------------------------------------*/

static int mark_class(int32_t c)
{
	return (int)utf8proc_get_property(c)->combining_class;
}

/* Stable, by class, n log n: merge sort from the bottom with room for n beside. */
static void sort_marks(int32_t *p, int32_t *other, size_t n)
{
	for (size_t width = 1; width < n; width *= 2) {
		for (size_t from = 0; from < n; from += 2 * width) {
			size_t mid = from + width < n ? from + width : n;
			size_t end = from + 2 * width < n ? from + 2 * width : n;
			size_t a = from, b = mid;

			for (size_t i = from; i < end; i++)
				other[i] = a < mid && (b == end ||
						       mark_class(p[a]) <= mark_class(p[b]))
						   ? p[a++]
						   : p[b++];
		}
		memcpy(p, other, n * sizeof(*p));
	}
}

static int points_reserve(struct wt_scratch *s, size_t n)
{
	size_t room = s->points_room ? s->points_room : 1024;
	int32_t *p;

	if (n <= s->points_room)
		return 0;
	while (room < n)
		room *= 2;
	p = realloc(s->points, room * sizeof(*p));
	if (!p)
		return -ENOMEM;
	s->points = p;
	s->points_room = room;
	return 0;
}

/* Text to decomposed code points in s->points: how many, or -errno. */
static ssize_t decompose(struct wt_scratch *s, int form, const char *p, size_t n)
{
	size_t out = 0;
	int len;

	for (size_t at = 0; at < n; at += (size_t)len) {
		int32_t c = (int32_t)wt_utf8_next(p + at, n - at, &len);
		utf8proc_ssize_t k;

		/* The longest decomposition of a character has 18. */
		if (points_reserve(s, out + 32))
			return -ENOMEM;
		k = utf8proc_decompose_char(c, &s->points[out], 32,
					    (utf8proc_option_t)(form | UTF8PROC_DECOMPOSE), NULL);
		if (k < 0 || k > 32)
			return -EINVAL;
		out += (size_t)k;
	}
	return (ssize_t)out;
}

static int order_marks(struct wt_scratch *s, size_t n)
{
	size_t from = 0;

	if (points_reserve(s, 2 * n))
		return -ENOMEM;
	while (from < n) {
		size_t end = from;

		while (end < n && mark_class(s->points[end]))
			end++;
		if (end - from > 1)
			sort_marks(&s->points[from], &s->points[n], end - from);
		from = end + 1;
	}
	return 0;
}

static bool is_ascii(const char *p, size_t n)
{
	unsigned char any = 0;

	for (size_t i = 0; i < n; i++)
		any |= (unsigned char)p[i];
	return any < 0x80;
}

static int normal_form(struct wt_scratch *s, const struct wt_step *step, const char *p, size_t n,
		       struct wt_buf *out)
{
	ssize_t points = decompose(s, step->form, p, n);
	utf8proc_ssize_t k;

	if (points < 0)
		return (int)points;
	if (order_marks(s, (size_t)points))
		return -ENOMEM;
	k = utf8proc_normalize_utf32(s->points, points, (utf8proc_option_t)step->form);
	if (k < 0 || wt_buf_reserve(out, 4 * (size_t)k))
		return k < 0 ? -EINVAL : -ENOMEM;
	for (utf8proc_ssize_t i = 0; i < k; i++)
		out->n += (size_t)wt_utf8_put(out->p + out->n, (uint32_t)s->points[i]);
	return 0;
}

/* --- the others ----------------------------------------------------------------------------------*/

static int lowercase(const char *p, size_t n, struct wt_buf *out)
{
	int len, r = 0;

	for (size_t at = 0; at < n && !r; at += (size_t)len) {
		uint32_t c = wt_utf8_next(p + at, n - at, &len);

		/* The one letter whose small form is two characters: I with a dot. */
		if (c == 0x130) {
			r = wt_buf_add(out, "i\xcc\x87", 3);
			continue;
		}
		r = wt_buf_reserve(out, 4);
		if (!r)
			out->n += (size_t)wt_utf8_put(
				out->p + out->n, (uint32_t)utf8proc_tolower((utf8proc_int32_t)c));
	}
	return r;
}

static int replace(struct wt_scratch *s, const struct wt_step *step, const char *p, size_t n,
		   struct wt_buf *out)
{
	struct wt_matches m = {&step->pattern, p, n, 0, SIZE_MAX};
	size_t from = 0, start, end;
	int r;

	while ((r = wt_matches_next(&m, s, &start, &end)) > 0) {
		if (wt_buf_add(out, p + from, start - from) ||
		    wt_buf_add(out, step->content, step->content_bytes))
			return -ENOMEM;
		if (out->n > WEFT_TEXT_MAX_BYTES)
			return -E2BIG;
		from = end;
	}
	return r ? r : wt_buf_add(out, p + from, n - from);
}

static int apply(struct wt_scratch *s, const struct wt_step *step, const char *p, size_t n,
		 struct wt_buf *out)
{
	switch (step->kind) {
	case WT_FORM:
		return normal_form(s, step, p, n, out);
	case WT_LOWERCASE:
		return lowercase(p, n, out);
	case WT_REPLACE:
		return replace(s, step, p, n, out);
	default: /* WT_PREPEND */
		if (wt_buf_add(out, step->content, step->content_bytes))
			return -ENOMEM;
		return wt_buf_add(out, p, n);
	}
}

int wt_normalize(const struct wt_steps *steps, struct wt_scratch *s, const char **p, size_t *n)
{
	for (uint32_t i = 0; i < steps->n && *n; i++) {
		const struct wt_step *step = &steps->step[i];
		struct wt_buf *out = &s->norm[*p == s->norm[0].p];
		int r;

		if (step->kind == WT_FORM && is_ascii(*p, *n))
			continue;
		out->n = 0;
		r = apply(s, step, *p, *n, out);
		if (r)
			return r;
		if (out->n > WEFT_TEXT_MAX_BYTES)
			return -E2BIG;
		*p = out->p;
		*n = out->n;
	}
	return 0;
}
