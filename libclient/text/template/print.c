/* SPDX-License-Identifier: Apache-2.0 */
/*
 * print.c - values as text, as Python's str() and repr() write them. Numbers are written in the "C"
 * locale, which a rendering has set for its thread.
 */
#include "libclient/text/private.h"
#include "libclient/text/template/template.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define ADD(b, z) wj_buf_add(m, b, z, sizeof(z) - 1)

/* --- numbers -------------------------------------------------------------------------------------*/

/* The shortest digits that read back as f: d.ddd in p, the exponent of ten in *ret_exp. */
static int shortest(char *p, size_t room, double f, int *ret_exp)
{
	char text[40];
	int n = 0;

	for (int digits = 1; digits <= 17; digits++) {
		snprintf(text, sizeof(text), "%.*e", digits - 1, f);
		if (strtod(text, NULL) == f)
			break;
	}
	for (char *c = text; *c && *c != 'e' && n < (int)room; c++)
		if (*c >= '0' && *c <= '9')
			p[n++] = *c;
	*ret_exp = atoi(strchr(text, 'e') + 1);
	return n;
}

int wj_float_text(char *p, double f)
{
	char digits[24] = "0", *start = p;
	int n, exp;

	if (isnan(f))
		return sprintf(p, "nan");
	if (signbit(f))
		*p++ = '-';
	if (isinf(f))
		return (int)(p - start) + sprintf(p, "inf");
	n = shortest(digits, sizeof(digits), fabs(f), &exp);
	if (exp < -4 || exp >= 16) {
		*p++ = digits[0];
		if (n > 1) {
			*p++ = '.';
			memcpy(p, digits + 1, (size_t)n - 1);
			p += n - 1;
		}
		p += sprintf(p, "e%c%02d", exp < 0 ? '-' : '+', abs(exp));
		return (int)(p - start);
	}
	if (exp < 0) {
		p += sprintf(p, "0.%.*s", -exp - 1, "000");
		memcpy(p, digits, (size_t)n);
		return (int)(p - start) + n;
	}
	for (int i = 0; i <= exp; i++)
		*p++ = i < n ? digits[i] : '0';
	*p++ = '.';
	if (n <= exp + 1)
		*p++ = '0';
	for (int i = exp + 1; i < n; i++)
		*p++ = digits[i];
	return (int)(p - start);
}

/* --- strings -------------------------------------------------------------------------------------*/

/* What Python's repr() leaves as it is. */
static bool printable(uint32_t c)
{
	utf8proc_category_t k;

	if (c < 0x7f)
		return c >= 0x20;
	k = utf8proc_category((utf8proc_int32_t)c);
	return k != UTF8PROC_CATEGORY_CN && k < UTF8PROC_CATEGORY_ZS;
}

static bool add_escape(struct wj *m, struct wj_buf *b, uint32_t c)
{
	char text[16];

	snprintf(text, sizeof(text),
		 c < 0x100     ? "\\x%02x"
		 : c < 0x10000 ? "\\u%04x"
			       : "\\U%08x",
		 c);
	return wj_buf_add(m, b, text, strlen(text));
}

static bool repr_str(struct wj *m, struct wj_buf *b, const struct wj_str *s)
{
	char quote = memchr(s->p, '\'', s->bytes) && !memchr(s->p, '"', s->bytes) ? '"' : '\'';
	bool good = wj_buf_add(m, b, &quote, 1);
	int len;

	for (size_t at = 0; at < s->bytes && good; at += (size_t)len) {
		uint32_t c = wt_utf8_next(s->p + at, s->bytes - at, &len);

		if (c == '\n')
			good = ADD(b, "\\n");
		else if (c == '\r')
			good = ADD(b, "\\r");
		else if (c == '\t')
			good = ADD(b, "\\t");
		else if (c == (uint32_t)quote || c == '\\')
			good = ADD(b, "\\") && wj_buf_add(m, b, s->p + at, 1);
		else if (!printable(c))
			good = add_escape(m, b, c);
		else
			good = wj_buf_add(m, b, s->p + at, (size_t)len);
		good = good && wj_step(m, (at & 63) == 0);
	}
	return good && wj_buf_add(m, b, &quote, 1);
}

/* --- containers ----------------------------------------------------------------------------------*/

static bool repr_list(struct wj *m, struct wj_buf *b, const struct wj_list *list, bool tuple)
{
	bool good = wj_buf_add(m, b, tuple ? "(" : "[", 1);

	for (size_t i = 0; i < list->n && good; i++)
		good = (!i || ADD(b, ", ")) && wj_repr(m, b, list->items[i]);
	if (tuple && list->n == 1)
		good = good && ADD(b, ",");
	return good && wj_buf_add(m, b, tuple ? ")" : "]", 1);
}

static bool repr_dict(struct wj *m, struct wj_buf *b, const struct wj_dict *d)
{
	bool good = ADD(b, "{");

	for (uint32_t i = 0; i < d->n && good; i++)
		good = (!i || ADD(b, ", ")) && wj_repr(m, b, d->pairs[i].key) && ADD(b, ": ") &&
		       wj_repr(m, b, d->pairs[i].value);
	return good && ADD(b, "}");
}

static bool repr_view(struct wj *m, struct wj_buf *b, struct wj_value v)
{
	static const char *const names[] = {"dict_keys(", "dict_values(", "dict_items("};
	struct wj_value list = wj_listed(m, v);

	return !m->code && wj_buf_add(m, b, names[v.sub], strlen(names[v.sub])) &&
	       repr_list(m, b, list.list, false) && ADD(b, ")");
}

static bool repr_number(struct wj *m, struct wj_buf *b, struct wj_value v)
{
	char text[40];
	int n;

	if (wj_is(v, WJ_FLOAT))
		n = wj_float_text(text, v.f);
	else
		n = snprintf(text, sizeof(text), "%" PRId64, v.i);
	return wj_buf_add(m, b, text, (size_t)n);
}

static bool repr_range(struct wj *m, struct wj_buf *b, const struct wj_range *r)
{
	char text[100];
	int n = snprintf(text, sizeof(text), "range(%" PRId64 ", %" PRId64, r->start, r->stop);

	if (r->step != 1)
		n += snprintf(text + n, sizeof(text) - (size_t)n, ", %" PRId64, r->step);
	return wj_buf_add(m, b, text, (size_t)n) && ADD(b, ")");
}

static bool repr(struct wj *m, struct wj_buf *b, struct wj_value v)
{
	switch (v.kind) {
	case WJ_UNDEFINED:
		return ADD(b, "Undefined");
	case WJ_NONE:
		return ADD(b, "None");
	case WJ_BOOL:
		return v.b ? ADD(b, "True") : ADD(b, "False");
	case WJ_INT:
	case WJ_FLOAT:
		return repr_number(m, b, v);
	case WJ_STR:
		if (v.sub)
			wj_refuse(m, "printing a list with a string marked safe is not supported");
		return repr_str(m, b, v.s);
	case WJ_LIST:
	case WJ_TUPLE:
		return repr_list(m, b, v.list, wj_is(v, WJ_TUPLE));
	case WJ_DICT:
		return repr_dict(m, b, v.dict);
	case WJ_VIEW:
		return repr_view(m, b, v);
	case WJ_RANGE:
		return repr_range(m, b, v.range);
	default:
		wj_refuse(m, "printing a %s is not supported", wj_kind_name(v));
		return false;
	}
}

bool wj_repr(struct wj *m, struct wj_buf *b, struct wj_value v)
{
	bool good = wj_enter(m, WJ_MAX_RUN_DEPTH) && wj_step(m, 1) && repr(m, b, v);

	wj_leave(m);
	return good;
}

bool wj_print(struct wj *m, struct wj_buf *b, struct wj_value v)
{
	if (wj_is(v, WJ_STR))
		return wj_buf_add(m, b, v.s->p, v.s->bytes);
	if (wj_is(v, WJ_UNDEFINED))
		return !m->code;
	return wj_repr(m, b, v);
}

const struct wj_str *wj_to_str(struct wj *m, struct wj_value v)
{
	struct wj_buf b = {0};

	if (wj_is(v, WJ_STR))
		return v.s;
	wj_print(m, &b, v);
	return wj_buf_take(m, &b).s;
}
