/* SPDX-License-Identifier: Apache-2.0 */
/*
 * format.c - Python's format % arguments, for the conversions s r d i u f e g x X o %.
 */
#include "libclient/text/private.h"
#include "libclient/text/template/template.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Widths and precisions beyond this are a mistake, or an attack. */
#define MAX_WIDTH 4096

struct format {
	struct wj *m;
	struct wj_buf b;
	struct wj_value args;
	size_t next; /* of a tuple's items, or of the one argument */
	char flags[6];
	int64_t width, precision; /* -1: none */
};

/* The next argument. */
static struct wj_value argument(struct format *f)
{
	bool tuple = wj_is(f->args, WJ_TUPLE);

	if (f->next >= (tuple ? f->args.list->n : 1))
		return wj_raise(f->m, "'%%': not enough arguments for the format");
	f->next++;
	return tuple ? f->args.list->items[f->next - 1] : f->args;
}

/* %(name): the argument is a dict's member. */
static struct wj_value named(struct format *f, const char **p, const char *end)
{
	const char *close = memchr(*p, ')', (size_t)(end - *p));
	const struct wj_value *v;
	struct wj_value name;

	if (!close || memchr(*p, '(', (size_t)(close - *p)))
		return wj_raise(f->m, "'%%': a format's name has no end");
	if (!wj_is(f->args, WJ_DICT))
		return wj_raise(f->m, "'%%': a format with names needs a dict");
	name = wj_str(f->m, *p, (size_t)(close - *p));
	v = wj_dict_get_str(f->m, f->args.dict, name.s);
	if (!v)
		return wj_raise(f->m, "'%%': the dict has no '%.*s'",
				(int)(close - *p > 60 ? 60 : close - *p), *p);
	*p = close + 1;
	f->next = 1;
	return *v;
}

/* The text of a number or string, padded. */
static void padded(struct format *f, const char *p, size_t n, size_t chars, bool number)
{
	size_t pad = f->width > (int64_t)chars ? (size_t)f->width - chars : 0;
	bool left = strchr(f->flags, '-'), zeros = number && !left && strchr(f->flags, '0');
	size_t sign = zeros && n && (p[0] == '-' || p[0] == '+' || p[0] == ' ');

	wj_buf_add(f->m, &f->b, p, sign);
	for (size_t i = 0; i < pad && !left; i++)
		wj_buf_add(f->m, &f->b, zeros ? "0" : " ", 1);
	wj_buf_add(f->m, &f->b, p + sign, n - sign);
	for (size_t i = 0; i < pad && left; i++)
		wj_buf_add(f->m, &f->b, " ", 1);
}

static void put_text(struct format *f, struct wj_value v, bool repr)
{
	struct wj_buf b = {0};
	struct wj_value s;

	if (repr) {
		wj_repr(f->m, &b, v);
		s = wj_buf_take(f->m, &b);
	} else {
		s = (struct wj_value){.kind = WJ_STR, .s = wj_to_str(f->m, v)};
	}
	if (f->precision >= 0 && (int64_t)s.s->chars > f->precision)
		s = wj_str_chars(f->m, s.s, 0, (size_t)f->precision);
	padded(f, s.s->p, s.s->bytes, s.s->chars, false);
}

static const char *sign_of(const struct format *f, bool minus)
{
	if (minus)
		return "-";
	return strchr(f->flags, '+') ? "+" : strchr(f->flags, ' ') ? " " : "";
}

static void put_int(struct format *f, struct wj_value v, char conversion)
{
	char text[64];
	int64_t i;
	uint64_t size;
	int n;

	if (wj_is(v, WJ_FLOAT) && strchr("diu", conversion) && v.f > -0x1p63 && v.f < 0x1p63)
		v = wj_int((int64_t)v.f);
	if (wj_is(v, WJ_FLOAT) && strchr("diu", conversion) && isfinite(v.f)) {
		wj_refuse(f->m, "'%%%c': a number of more than 64 bits is not supported",
			  conversion);
		return;
	}
	if (!wj_is_int(v, &i)) {
		wj_raise(f->m, "'%%%c': a number is needed, not a %s", conversion, wj_kind_name(v));
		return;
	}
	if (f->precision >= 0 || strchr(f->flags, '#')) {
		wj_refuse(f->m, "'%%': '#' and a precision of integers are not supported");
		return;
	}
	size = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
	n = snprintf(text, sizeof(text),
		     conversion == 'x'	 ? "%s%" PRIx64
		     : conversion == 'X' ? "%s%" PRIX64
		     : conversion == 'o' ? "%s%" PRIo64
					 : "%s%" PRIu64,
		     sign_of(f, i < 0), size);
	padded(f, text, (size_t)n, (size_t)n, true);
}

static void put_float(struct format *f, struct wj_value v, char conversion)
{
	char text[MAX_WIDTH + 400];
	int precision = f->precision < 0 ? 6 : (int)f->precision, n;
	int64_t i;
	double d;

	if (wj_is_int(v, &i))
		d = (double)i;
	else if (wj_is(v, WJ_FLOAT))
		d = v.f;
	else {
		wj_raise(f->m, "'%%%c': a number is needed, not a %s", conversion, wj_kind_name(v));
		return;
	}
	if (strchr(f->flags, '#') || !isfinite(d)) {
		wj_refuse(f->m, "'%%%c': '#' and infinite numbers are not supported", conversion);
		return;
	}
	n = snprintf(text, sizeof(text),
		     conversion == 'f'	 ? "%s%.*f"
		     : conversion == 'e' ? "%s%.*e"
					 : "%s%.*g",
		     sign_of(f, signbit(d)), precision, fabs(d));
	padded(f, text, (size_t)n, (size_t)n, true);
}

static int64_t read_width(struct format *f, const char **p, const char *end)
{
	int64_t n = 0;

	if (*p < end && **p == '*')
		wj_refuse(f->m, "'%%': a width of '*' is not supported");
	for (; *p < end && **p >= '0' && **p <= '9'; (*p)++)
		n = n > MAX_WIDTH ? n : n * 10 + (**p - '0');
	if (n > MAX_WIDTH)
		wj_fail(f->m, -E2BIG, "'%%': a width of more than %d", MAX_WIDTH);
	return n;
}

/* One conversion, after its %. */
static const char *convert(struct format *f, const char *p, const char *end)
{
	struct wj_value v = WJ_VALUE(WJ_UNSET);
	size_t n = 0;

	if (p < end && *p == '(') {
		p++;
		v = named(f, &p, end);
	}
	memset(f->flags, 0, sizeof(f->flags));
	for (; p < end && strchr("-+ 0#", *p) && *p; p++)
		if (!strchr(f->flags, *p))
			f->flags[n++] = *p;
	f->width = read_width(f, &p, end);
	f->precision = -1;
	if (p < end && *p == '.') {
		p++;
		f->precision = read_width(f, &p, end);
	}
	if (f->m->code || p == end) {
		wj_raise(f->m, "'%%': a format that has no end");
		return end;
	}
	if (*p == '%') {
		wj_buf_add(f->m, &f->b, "%", 1);
		return p + 1;
	}
	if (!strchr("srdiufegxXo", *p) || !*p) {
		wj_refuse(f->m, "'%%': the conversion '%c' is not supported",
			  (unsigned char)*p < 0x80 ? *p : '?');
		return end;
	}
	if (wj_is(v, WJ_UNSET))
		v = argument(f);
	if (f->m->code)
		return end;
	if (*p == 's' || *p == 'r')
		put_text(f, v, *p == 'r');
	else if (strchr("feg", *p))
		put_float(f, v, *p);
	else
		put_int(f, v, *p);
	return p + 1;
}

struct wj_value wj_percent(struct wj *m, const struct wj_str *format, struct wj_value args)
{
	struct format f = {.m = m, .args = args};
	const char *p = format->p, *end = p + format->bytes;
	bool left;

	while (p < end && wj_step(m, 1)) {
		const char *sign = memchr(p, '%', (size_t)(end - p));

		wj_buf_add(m, &f.b, p, (size_t)((sign ? sign : end) - p));
		p = sign ? convert(&f, sign + 1, end) : end;
	}
	/* Python lets what has items by key be left over; of strings it does not. */
	left = wj_is(args, WJ_TUPLE) ? f.next < args.list->n
				     : !f.next && !wj_is(args, WJ_DICT) && !wj_is(args, WJ_LIST) &&
					       !wj_is(args, WJ_RANGE) && !wj_is(args, WJ_UNDEFINED);
	if (left)
		wj_raise(m, "'%%': not all arguments are used by the format");
	return wj_buf_take(m, &f.b);
}
