/* SPDX-License-Identifier: Apache-2.0 */
/*
 * string.c - what Python's str does, on strings of a run. Case is changed character by character;
 * characters whose other case is several, or depends on where they stand, are refused.
 */
#include "libclient/text/private.h"
#include "libclient/text/template/template.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

bool wj_is_blank(uint32_t c)
{
	return wt_is_space(c) || (c >= 0x1c && c <= 0x1f);
}

static bool strippable(uint32_t c, const struct wj_str *chars)
{
	int len;

	if (!chars)
		return wj_is_blank(c);
	for (size_t at = 0; at < chars->bytes; at += (size_t)len)
		if (wt_utf8_next(chars->p + at, chars->bytes - at, &len) == c)
			return true;
	return false;
}

struct wj_value wj_strip(struct wj *m, const struct wj_str *s, const struct wj_str *chars,
			 bool left, bool right)
{
	size_t from = 0, to = s->bytes, cost = chars ? 1 + chars->bytes / 16 : 1;
	int len;

	while (left && from < to && wj_step(m, cost)) {
		if (!strippable(wt_utf8_next(s->p + from, to - from, &len), chars))
			break;
		from += (size_t)len;
	}
	while (right && to > from && wj_step(m, cost)) {
		if (!strippable(wt_utf8_last(s->p + from, to - from), chars))
			break;
		do
			to--;
		while (((unsigned char)s->p[to] & 0xc0) == 0x80);
	}
	return wj_str_borrow(m, s->p + from, to - from);
}

ssize_t wj_find(const struct wj_str *s, size_t from, const struct wj_str *what)
{
	const char *hit;

	if (!what->bytes)
		return (ssize_t)from;
	hit = memmem(s->p + from, s->bytes - from, what->p, what->bytes);
	return hit ? hit - s->p : -1;
}

/* Python puts the new text around every character when the old one is empty. */
static void replace_between(struct wj *m, struct wj_buf *b, const struct wj_str *s,
			    const struct wj_str *with, int64_t count)
{
	size_t at = 0;
	int len;

	while (at < s->bytes && count-- && wj_step(m, 1)) {
		wt_utf8_next(s->p + at, s->bytes - at, &len);
		wj_buf_add(m, b, with->p, with->bytes);
		wj_buf_add(m, b, s->p + at, (size_t)len);
		at += (size_t)len;
	}
	if (at == s->bytes && count)
		wj_buf_add(m, b, with->p, with->bytes);
	wj_buf_add(m, b, s->p + at, s->bytes - at);
}

struct wj_value wj_replace(struct wj *m, const struct wj_str *s, const struct wj_str *old,
			   const struct wj_str *with, int64_t count)
{
	struct wj_buf b = {0};
	size_t from = 0;
	ssize_t at;

	wj_step_bytes(m, s->bytes);
	if (!old->bytes) {
		replace_between(m, &b, s, with, count);
		return wj_buf_take(m, &b);
	}
	while (count && (at = wj_find(s, from, old)) >= 0 && wj_step(m, 1)) {
		wj_buf_add(m, &b, s->p + from, (size_t)at - from);
		wj_buf_add(m, &b, with->p, with->bytes);
		from = (size_t)at + old->bytes;
		count--;
	}
	wj_buf_add(m, &b, s->p + from, s->bytes - from);
	return wj_buf_take(m, &b);
}

/* --- case ----------------------------------------------------------------------------------------*/

/* Characters that become several, or others at a word's end. */
static bool special_case(uint32_t c, enum wj_case to)
{
	if (to == WJ_LOWER)
		return c == 0x130 || c == 0x3a3;
	return c == 0xdf || c == 0x149 || c == 0x1f0 || c == 0x390 || c == 0x3b0 || c == 0x587 ||
	       (c >= 0x1e96 && c <= 0x1e9a) || (c >= 0x1f50 && c <= 0x1f57) ||
	       (c >= 0x1f80 && c <= 0x1fff) || (c >= 0xfb00 && c <= 0xfb17);
}

static void add_cased(struct wj *m, struct wj_buf *b, uint32_t c, enum wj_case to)
{
	char text[4];

	if (special_case(c, to)) {
		wj_refuse(m, "the other case of U+%04X is not supported", c);
		return;
	}
	if (to == WJ_LOWER)
		c = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
	else if (to == WJ_UPPER)
		c = (uint32_t)utf8proc_toupper((utf8proc_int32_t)c);
	else
		c = (uint32_t)utf8proc_totitle((utf8proc_int32_t)c);
	wj_buf_add(m, b, text, (size_t)wt_utf8_put(text, c));
}

struct wj_value wj_recase(struct wj *m, const struct wj_str *s, enum wj_case to)
{
	struct wj_buf b = {0};
	int len;

	for (size_t at = 0; at < s->bytes && wj_step(m, (at & 63) == 0); at += (size_t)len) {
		uint32_t c = wt_utf8_next(s->p + at, s->bytes - at, &len);

		add_cased(m, &b, c, to == WJ_CAPITALIZE && at ? WJ_LOWER : to);
	}
	return wj_buf_take(m, &b);
}

struct wj_value wj_title_words(struct wj *m, const struct wj_str *s)
{
	struct wj_buf b = {0};
	bool first = true;
	int len;

	for (size_t at = 0; at < s->bytes && wj_step(m, (at & 63) == 0); at += (size_t)len) {
		uint32_t c = wt_utf8_next(s->p + at, s->bytes - at, &len);
		bool between = wj_is_blank(c) || (c < 0x80 && c && strchr("-({[<", (int)c));

		add_cased(m, &b, c, first ? WJ_UPPER : WJ_LOWER);
		first = between;
	}
	return wj_buf_take(m, &b);
}

/* --- lines ---------------------------------------------------------------------------------------*/

static bool ends_line(uint32_t c)
{
	return (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 ||
	       c == 0x2029;
}

struct wj_value wj_split_lines(struct wj *m, const struct wj_str *s, bool keep)
{
	struct wj_items items = {0};
	size_t from = 0, at = 0;
	int len;

	while (at < s->bytes && wj_step(m, 1)) {
		uint32_t c = wt_utf8_next(s->p + at, s->bytes - at, &len);
		size_t end = at;

		at += (size_t)len;
		if (!ends_line(c))
			continue;
		if (c == '\r' && at < s->bytes && s->p[at] == '\n')
			at++;
		wj_items_add(m, &items, wj_str_borrow(m, s->p + from, (keep ? at : end) - from));
		from = at;
	}
	if (from < s->bytes)
		wj_items_add(m, &items, wj_str_borrow(m, s->p + from, s->bytes - from));
	return wj_items_list(m, &items);
}

/* --- numbers -------------------------------------------------------------------------------------*/

/* Without blanks around and underscores between digits, into a small buffer. -1: cannot be a number. */
static int clean(const struct wj_str *s, char *p, size_t room)
{
	size_t from = 0, to = s->bytes, n = 0;
	int len;

	while (from < to && wj_is_blank(wt_utf8_next(s->p + from, to - from, &len)))
		from += (size_t)len;
	while (to > from && wj_is_blank(wt_utf8_last(s->p + from, to - from)))
		do
			to--;
		while (((unsigned char)s->p[to] & 0xc0) == 0x80);
	for (size_t i = from; i < to; i++) {
		unsigned char c = (unsigned char)s->p[i];

		if (c == '_') {
			/* Between two digits, or after a prefix such as 0x. */
			if (i == from || i + 1 == to || !n || s->p[i - 1] == '_' ||
			    s->p[i - 1] == '.' || s->p[i + 1] == '.' || s->p[i - 1] == '+' ||
			    s->p[i - 1] == '-')
				return -1;
			continue;
		}
		if (c >= 0x80 || c < '+' || n + 1 >= room)
			return -1;
		p[n++] = (char)c;
	}
	p[n] = 0;
	return n ? (int)n : -1;
}

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'Z' ? c - 'A' + 10 : 99;
}

int wj_read_int(const struct wj_str *s, int base, int64_t *ret)
{
	char text[200], *p = text;
	uint64_t limit, all = 0;
	bool minus;

	if (clean(s, text, sizeof(text)) < 0)
		return -EINVAL;
	minus = *p == '-';
	p += *p == '-' || *p == '+';
	if (p[0] == '0' && ((base == 16 && (p[1] | 32) == 'x') ||
			    (base == 8 && (p[1] | 32) == 'o') || (base == 2 && (p[1] | 32) == 'b')))
		p += 2;
	if (!*p)
		return -EINVAL;
	for (const char *c = p; *c; c++)
		if (digit(*c) >= base)
			return -EINVAL;
	limit = (uint64_t)INT64_MAX + minus;
	for (; *p; p++) {
		uint64_t d = (uint64_t)digit(*p);

		if (all > (limit - d) / (uint64_t)base)
			return -ERANGE;
		all = all * (uint64_t)base + d;
	}
	*ret = (int64_t)(minus ? 0 - all : all);
	return 0;
}

int wj_read_float(const struct wj_str *s, double *ret)
{
	char text[400], *end;
	const char *p = text;

	if (clean(s, text, sizeof(text)) < 0)
		return s->bytes >= sizeof(text) ? -ERANGE : -EINVAL;
	p += *p == '-' || *p == '+';
	/* strtod() reads more than Python: 0x1p3, nan(..). */
	if (!strcasecmp(p, "inf") || !strcasecmp(p, "infinity") || !strcasecmp(p, "nan")) {
		*ret = strtod(text, NULL);
		return 0;
	}
	if (strspn(p, "0123456789.eE+-") != strlen(p))
		return -EINVAL;
	*ret = strtod(text, &end);
	return *end || end == text ? -EINVAL : 0;
}
