/* SPDX-License-Identifier: Apache-2.0 */
/*
 * utf8.c - growing buffers, characters, and the byte alphabet. Plain functions without state.
 *
 * The byte alphabet of byte-level vocabularies writes each byte as one printable character: most of
 * Latin-1 as itself, the 68 others as U+0100 and up, in order.
 */
#include "libclient/text/private.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

int wt_fail(struct weft_error *error, int code, const char *fmt, ...)
{
	va_list ap;

	if (error) {
		error->code = code;
		va_start(ap, fmt);
		vsnprintf(error->message, sizeof(error->message), fmt, ap);
		va_end(ap);
		/* Names come from the file: one printable line. */
		for (char *s = error->message; *s; s++)
			if ((unsigned char)*s < 0x20 || *s == 0x7f)
				*s = '?';
	}
	return code;
}

/* --- buffers -------------------------------------------------------------------------------------*/

int wt_buf_reserve(struct wt_buf *b, size_t more)
{
	size_t room = b->room ? b->room : 256;
	char *p;

	if (b->room - b->n >= more)
		return 0;
	while (room - b->n < more)
		room *= 2;
	p = realloc(b->p, room);
	if (!p)
		return -ENOMEM;
	b->p = p;
	b->room = room;
	return 0;
}

int wt_buf_add(struct wt_buf *b, const void *p, size_t n)
{
	if (wt_buf_reserve(b, n))
		return -ENOMEM;
	if (n)
		memcpy(b->p + b->n, p, n);
	b->n += n;
	return 0;
}

int wt_ids_grow(struct wt_ids *ids)
{
	size_t room = ids->room ? ids->room * 2 : 64;
	uint32_t *p = realloc(ids->p, room * sizeof(*p));

	if (!p)
		return -ENOMEM;
	ids->p = p;
	ids->room = room;
	return 0;
}

/* --- characters ----------------------------------------------------------------------------------*/

int wt_utf8_length(const unsigned char *p, size_t n)
{
	unsigned char b = p[0], low = 0x80, high = 0xbf;
	int want;

	if (b < 0x80)
		return 1;
	if (b >= 0xc2 && b <= 0xdf)
		want = 2;
	else if (b >= 0xe0 && b <= 0xef)
		want = 3;
	else if (b >= 0xf0 && b <= 0xf4)
		want = 4;
	else
		return -1;
	/* The second byte excludes overlong forms, surrogates and what is beyond U+10FFFF. */
	if (b == 0xe0)
		low = 0xa0;
	else if (b == 0xed)
		high = 0x9f;
	else if (b == 0xf0)
		low = 0x90;
	else if (b == 0xf4)
		high = 0x8f;
	for (int i = 1; i < want; i++) {
		if ((size_t)i == n)
			return 0;
		if (p[i] < low || p[i] > high)
			return -i;
		low = 0x80;
		high = 0xbf;
	}
	return want;
}

uint32_t wt_utf8_next(const char *text, size_t n, int *ret_length)
{
	const unsigned char *p = (const unsigned char *)text;

	if (p[0] < 0x80) {
		*ret_length = 1;
		return p[0];
	}
	if (p[0] < 0xe0) {
		*ret_length = 2;
		return (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu);
	}
	if (p[0] < 0xf0) {
		*ret_length = 3;
		return (p[0] & 0xfu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
	}
	*ret_length = 4;
	return (p[0] & 7u) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 | (p[3] & 0x3fu);
}

uint32_t wt_utf8_last(const char *p, size_t n)
{
	size_t at = n - 1;
	int length;

	while (((unsigned char)p[at] & 0xc0) == 0x80)
		at--;
	return wt_utf8_next(p + at, n - at, &length);
}

int wt_utf8_put(char *p, uint32_t c)
{
	return (int)utf8proc_encode_char((utf8proc_int32_t)c, (utf8proc_uint8_t *)p);
}

bool wt_utf8_valid(const char *p, size_t n)
{
	for (size_t at = 0; at < n;) {
		int len = wt_utf8_length((const unsigned char *)p + at, n - at);

		if (len <= 0)
			return false;
		at += (size_t)len;
	}
	return true;
}

int wt_buf_add_lossy(struct wt_buf *b, const char *p, size_t n)
{
	size_t from = 0, at = 0;

	while (at < n) {
		int len = wt_utf8_length((const unsigned char *)p + at, n - at);

		if (len > 0) {
			at += (size_t)len;
			continue;
		}
		if (wt_buf_add(b, p + from, at - from) || wt_buf_add(b, "\xef\xbf\xbd", 3))
			return -ENOMEM;
		at = len ? at + (size_t)-len : n;
		from = at;
	}
	return wt_buf_add(b, p + from, n - from);
}

bool wt_is_space(uint32_t c)
{
	return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 ||
	       (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
	       c == 0x205f || c == 0x3000;
}

bool wt_is_word(uint32_t c)
{
	utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);

	/* The letters in circles and squares are symbols, but alphabetic. */
	return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NL) ||
	       k == UTF8PROC_CATEGORY_PC || c == 0x200c || c == 0x200d ||
	       (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) ||
	       (c >= 0x1f150 && c <= 0x1f169) || (c >= 0x1f170 && c <= 0x1f189);
}

bool wt_is_number(uint32_t c)
{
	utf8proc_category_t k;

	if (c < 0x80)
		return c >= '0' && c <= '9';
	k = utf8proc_category((utf8proc_int32_t)c);
	return k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO;
}

/* --- the byte alphabet ---------------------------------------------------------------------------*/

static bool stands_for_itself(uint32_t c)
{
	return (c >= 0x21 && c <= 0x7e) || (c >= 0xa1 && c <= 0xac) || (c >= 0xae && c <= 0xff);
}

uint32_t wt_byte_char(unsigned char b)
{
	uint32_t c = 0x100;

	if (stands_for_itself(b))
		return b;
	for (uint32_t i = 0; i < b; i++)
		c += !stands_for_itself(i);
	return c;
}

static int char_byte(uint32_t c)
{
	if (c < 0x100)
		return stands_for_itself(c) ? (int)c : -1;
	if (c <= 0x120) /* 00..20 */
		return (int)(c - 0x100);
	if (c <= 0x142) /* 7f..a0 */
		return (int)(c - 0x121 + 0x7f);
	return c == 0x143 ? 0xad : -1;
}

int wt_byte_decode(char *p, const char *text, size_t n)
{
	int out = 0, len;

	for (size_t at = 0; at < n; at += (size_t)len) {
		int b = char_byte(wt_utf8_next(text + at, n - at, &len));

		if (b < 0)
			return -1;
		p[out++] = (char)b;
	}
	return out;
}
