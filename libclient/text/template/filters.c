/* SPDX-License-Identifier: Apache-2.0 */
/*
 * filters.c - the filters of single values, and the table of all. Those of sequences are in
 * sequences.c.
 */
#include "libclient/text/private.h"
#include "libclient/text/template/template.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILTER(f) \
	static struct wj_value f(struct wj *m, struct wj_value v, const struct wj_args *args)

static bool no_arguments(struct wj *m, const char *what, const struct wj_args *args)
{
	return wj_bind(m, what, args, "", 0, NULL);
}

/* A text keeps the mark that it is safe. */
static struct wj_value marked(struct wj_value v, struct wj_value like)
{
	v.sub = wj_is(like, WJ_STR) ? like.sub : 0;
	return v;
}

/* --- text ----------------------------------------------------------------------------------------*/

FILTER(filter_upper)
{
	no_arguments(m, "upper", args);
	return marked(wj_recase(m, wj_to_str(m, v), WJ_UPPER), v);
}

FILTER(filter_lower)
{
	no_arguments(m, "lower", args);
	return marked(wj_recase(m, wj_to_str(m, v), WJ_LOWER), v);
}

FILTER(filter_capitalize)
{
	no_arguments(m, "capitalize", args);
	return marked(wj_recase(m, wj_to_str(m, v), WJ_CAPITALIZE), v);
}

FILTER(filter_title)
{
	no_arguments(m, "title", args);
	return wj_title_words(m, wj_to_str(m, v));
}

FILTER(filter_trim)
{
	const struct wj_str *chars = NULL;
	struct wj_value given;

	if (!wj_bind(m, "trim", args, "chars", 0, &given))
		return wj_none();
	if (!wj_is(given, WJ_UNSET) && !wj_is(given, WJ_NONE)) {
		chars = wj_arg_str(m, "trim", given);
		if (!chars)
			return wj_none();
	}
	return marked(wj_strip(m, wj_to_str(m, v), chars, true, true), v);
}

FILTER(filter_string)
{
	no_arguments(m, "string", args);
	if (wj_is(v, WJ_STR))
		return v;
	return (struct wj_value){.kind = WJ_STR, .s = wj_to_str(m, v)};
}

FILTER(filter_safe)
{
	no_arguments(m, "safe", args);
	return (struct wj_value){.kind = WJ_STR, .sub = 1, .s = wj_to_str(m, v)};
}

FILTER(filter_replace)
{
	struct wj_value given[3];
	int64_t count = -1;

	if (!wj_bind(m, "replace", args, "old,new,count", 2, given))
		return wj_none();
	if (!wj_is(given[2], WJ_NONE))
		count = wj_arg_int(m, "replace", given[2], -1);
	return wj_replace(m, wj_to_str(m, v), wj_to_str(m, given[0]), wj_to_str(m, given[1]),
			  count);
}

static void indent_lines(struct wj *m, struct wj_buf *b, const struct wj_list *lines,
			 const struct wj_str *by, bool blank)
{
	for (size_t i = 0; i < lines->n; i++) {
		const struct wj_str *line = lines->items[i].s;

		if (i)
			wj_buf_add(m, b, "\n", 1);
		if (i && (blank || line->bytes))
			wj_buf_add(m, b, by->p, by->bytes);
		wj_buf_add(m, b, line->p, line->bytes);
	}
}

FILTER(filter_indent)
{
	const struct wj_str *s, *by;
	struct wj_value given[3], lines;
	struct wj_buf b = {0};

	if (!wj_bind(m, "indent", args, "width,first,blank", 0, given))
		return wj_none();
	s = wj_arg_str(m, "indent", v);
	if (!s)
		return wj_none();
	if (wj_is(given[0], WJ_STR))
		by = given[0].s;
	else
		by = wj_repeat(m, wj_str_borrow(m, " ", 1).s, wj_arg_int(m, "indent", given[0], 4))
			     .s;
	/* As Jinja does: with a line's end behind, an empty last line counts. */
	wj_buf_add(m, &b, s->p, s->bytes);
	wj_buf_add(m, &b, "\n", 1);
	lines = wj_split_lines(m, wj_buf_take(m, &b).s, false);
	if (m->code)
		return wj_none();
	if (wj_arg_true(m, given[1]))
		wj_buf_add(m, &b, by->p, by->bytes);
	indent_lines(m, &b, lines.list, by, wj_arg_true(m, given[2]));
	return wj_buf_take(m, &b);
}

FILTER(filter_format)
{
	struct wj_value given = wj_list_value(WJ_TUPLE, wj_list(m, args->n));

	if (args->n_kw)
		return wj_refuse(m, "the filter format with named arguments is not supported");
	if (wj_is(v, WJ_STR) && v.sub)
		return wj_refuse(m, "format of a string marked safe is not supported");
	if (m->code)
		return wj_none();
	for (size_t i = 0; i < args->n; i++)
		given.list->items[i] = args->pos[i];
	return wj_percent(m, wj_to_str(m, v), given);
}

/* --- json ----------------------------------------------------------------------------------------*/

static bool json_indent(struct wj *m, struct wj_value v, struct wj_json_style *style)
{
	const struct wj_str *s;
	int64_t n;

	if (wj_is(v, WJ_UNSET) || wj_is(v, WJ_NONE))
		return true;
	if (wj_is(v, WJ_STR)) {
		s = v.s;
	} else {
		n = wj_arg_int(m, "tojson", v, 0);
		s = wj_repeat(m, wj_str_borrow(m, " ", 1).s, n).s;
	}
	style->indent = s->p;
	style->indent_bytes = (int64_t)s->bytes;
	return !m->code;
}

FILTER(filter_tojson)
{
	static const struct wj_str comma_space = {", ", 2, 2}, comma = {",", 1, 1},
				   colon = {": ", 2, 2};
	struct wj_json_style style = {.indent_bytes = -1, .item = &comma_space, .key = &colon};
	struct wj_value given[4], pair;

	if (!wj_bind(m, "tojson", args, "ensure_ascii,indent,separators,sort_keys", 0, given) ||
	    !json_indent(m, given[1], &style))
		return wj_none();
	if (style.indent_bytes >= 0)
		style.item = &comma;
	if (!wj_is(given[2], WJ_UNSET) && !wj_is(given[2], WJ_NONE)) {
		pair = wj_listed(m, given[2]);
		if (m->code)
			return wj_none();
		if (pair.list->n != 2)
			return wj_raise(m, "tojson: separators must be a pair");
		style.item = wj_arg_str(m, "tojson", pair.list->items[0]);
		style.key = wj_arg_str(m, "tojson", pair.list->items[1]);
		if (!style.item || !style.key)
			return wj_none();
	}
	style.ascii = wj_arg_true(m, given[0]);
	style.sort = wj_arg_true(m, given[3]);
	return wj_json(m, v, &style);
}

/* --- numbers -------------------------------------------------------------------------------------*/

FILTER(filter_abs)
{
	int64_t i;

	no_arguments(m, "abs", args);
	if (wj_is(v, WJ_FLOAT))
		return wj_float(fabs(v.f));
	if (!wj_is_int(v, &i))
		return wj_raise(m, "abs: a number is needed, not a %s", wj_kind_name(v));
	return i < 0 ? wj_negate(m, wj_int(i), true) : wj_int(i);
}

/* A float's whole part. 0, or -EINVAL: it has none. */
static int truncated(struct wj *m, double f, int64_t *ret)
{
	if (!isfinite(f))
		return -EINVAL;
	if (!(f > -0x1p63 && f < 0x1p63)) {
		wj_refuse(m, "an integer of more than 64 bits is not supported");
		return -EINVAL;
	}
	*ret = (int64_t)f;
	return 0;
}

static struct wj_value int_of_text(struct wj *m, const struct wj_str *s, int64_t base,
				   struct wj_value otherwise)
{
	int64_t i;
	double f;
	int r;

	if (base != 2 && base != 8 && base != 10 && base != 16)
		return wj_refuse(m, "the filter int with base %lld is not supported",
				 (long long)base);
	if (s->chars != s->bytes)
		return wj_refuse(m, "a number with characters beyond ASCII is not supported");
	r = wj_read_int(s, (int)base, &i);
	if (r == -ERANGE)
		return wj_refuse(m, "an integer of more than 64 bits is not supported");
	/* "42.23" gives 42. */
	if (r)
		r = wj_read_float(s, &f);
	else
		return wj_int(i);
	return !r && !truncated(m, f, &i) ? wj_int(i) : otherwise;
}

FILTER(filter_int)
{
	struct wj_value given[2], otherwise;
	int64_t i;

	if (!wj_bind(m, "int", args, "default,base", 0, given))
		return wj_none();
	otherwise = wj_is(given[0], WJ_UNSET) ? wj_int(0) : given[0];
	if (wj_is(v, WJ_STR))
		return int_of_text(m, v.s, wj_arg_int(m, "int", given[1], 10), otherwise);
	if (wj_is_int(v, &i))
		return wj_int(i);
	if (wj_is(v, WJ_UNDEFINED))
		return wj_use_undefined(m, v);
	if (!wj_is(v, WJ_FLOAT))
		return otherwise;
	if (isinf(v.f))
		return wj_raise(m, "int: infinity is not an int");
	return !truncated(m, v.f, &i) ? wj_int(i) : otherwise;
}

FILTER(filter_float)
{
	struct wj_value given;
	int64_t i;
	double f;

	if (!wj_bind(m, "float", args, "default", 0, &given))
		return wj_none();
	if (wj_is(given, WJ_UNSET))
		given = wj_float(0);
	if (wj_is_int(v, &i))
		return wj_float((double)i);
	if (wj_is(v, WJ_FLOAT))
		return v;
	if (wj_is(v, WJ_UNDEFINED))
		return wj_use_undefined(m, v);
	if (!wj_is(v, WJ_STR))
		return given;
	if (v.s->chars != v.s->bytes)
		return wj_refuse(m, "a number with characters beyond ASCII is not supported");
	return wj_read_float(v.s, &f) ? given : wj_float(f);
}

static struct wj_value round_common(struct wj *m, double f, int64_t digits)
{
	char text[700];

	if (!isfinite(f) || digits > 320)
		return wj_float(f);
	/* printf() rounds the exact value, halves to even, as Python does. */
	snprintf(text, sizeof(text), "%.*f", (int)digits, f);
	return wj_float(strtod(text, NULL));
}

FILTER(filter_round)
{
	struct wj_value given[2], r;
	const struct wj_str *method;
	int64_t digits, i;
	double f;

	if (!wj_bind(m, "round", args, "precision,method", 0, given))
		return wj_none();
	digits = wj_arg_int(m, "round", given[0], 0);
	method = wj_is(given[1], WJ_UNSET) ? wj_str_z(m, "common").s
					   : wj_arg_str(m, "round", given[1]);
	if (digits < 0)
		return wj_refuse(m, "round with a negative precision is not supported");
	if (!wj_is_number(v) || !method)
		return wj_raise(m, "round: a number is needed, not a %s", wj_kind_name(v));
	if (wj_str_is(method, "common")) {
		if (wj_is_int(v, &i))
			return wj_int(i);
		return round_common(m, v.f, digits);
	}
	if (!wj_str_is(method, "ceil") && !wj_str_is(method, "floor"))
		return wj_raise(m, "round: the method must be common, ceil or floor");
	/* As Jinja computes it: func(value * 10**precision) / 10**precision. */
	r = wj_binary(m, WJ_POW, wj_int(10), wj_int(digits));
	v = wj_binary(m, WJ_MUL, v, r);
	if (m->code)
		return wj_none();
	if (wj_is(v, WJ_FLOAT)) {
		f = wj_str_is(method, "ceil") ? ceil(v.f) : floor(v.f);
		if (truncated(m, f, &i))
			return wj_raise(m, "round: no such int");
		v = wj_int(i);
	}
	return wj_binary(m, WJ_DIV, v, r);
}

/* --- any value -----------------------------------------------------------------------------------*/

FILTER(filter_default)
{
	struct wj_value given[2];

	if (!wj_bind(m, "default", args, "default_value,boolean", 0, given))
		return wj_none();
	if (!wj_is(v, WJ_UNDEFINED) && !(wj_arg_true(m, given[1]) && !wj_true(m, v)))
		return v;
	return wj_is(given[0], WJ_UNSET) ? wj_str_borrow(m, "", 0) : given[0];
}

FILTER(filter_length)
{
	int64_t n = wj_length(v);

	no_arguments(m, "length", args);
	if (wj_is(v, WJ_LOOP))
		return wj_loop_member(m, v, wj_str_z(m, "length").s);
	return n < 0 ? wj_raise(m, "a %s has no length", wj_kind_name(v)) : wj_int(n);
}

FILTER(filter_list)
{
	no_arguments(m, "list", args);
	return wj_listed(m, v);
}

FILTER(filter_first)
{
	struct wj_value item;
	struct wj_iter it;

	no_arguments(m, "first", args);
	if (!wj_iter_init(m, &it, v))
		return wj_none();
	return wj_next(m, &it, &item) ? item : wj_undefined(WJ_NO_ITEM, NULL);
}

FILTER(filter_last)
{
	int64_t n = wj_length(v);
	struct wj_value list;

	no_arguments(m, "last", args);
	if (n < 0)
		return wj_raise(m, "a %s cannot be reversed", wj_kind_name(v));
	if (!n)
		return wj_undefined(WJ_NO_ITEM, NULL);
	if (!wj_is(v, WJ_DICT) && !wj_is(v, WJ_VIEW))
		return wj_subscript(m, v, wj_int(n - 1));
	list = wj_listed(m, v);
	return m->code ? wj_none() : list.list->items[n - 1];
}

FILTER(filter_reverse)
{
	struct wj_value list, from;

	no_arguments(m, "reverse", args);
	if (wj_is(v, WJ_STR))
		return marked(wj_slice(m, v, wj_none(), wj_none(), wj_int(-1)), v);
	from = wj_listed(m, v);
	list = m->code ? from : wj_list_value(WJ_LIST, wj_list(m, from.list->n));
	if (m->code)
		return wj_none();
	for (size_t i = 0; i < from.list->n; i++)
		list.list->items[i] = from.list->items[from.list->n - 1 - i];
	/* What Python cannot reverse in place comes as a list. */
	return wj_is(v, WJ_ITER) ? list : wj_generator(m, list, NULL, NULL);
}

FILTER(filter_items)
{
	no_arguments(m, "items", args);
	if (wj_is(v, WJ_UNDEFINED))
		return wj_generator(m, v, NULL, NULL);
	if (!wj_is(v, WJ_DICT))
		return wj_raise(m, "items: a dict is needed, not a %s", wj_kind_name(v));
	v.kind = WJ_VIEW;
	v.sub = WJ_ITEMS;
	return wj_generator(m, v, NULL, NULL);
}

/* --- the table -----------------------------------------------------------------------------------*/

static const struct wj_filter filters[] = {
	{"abs", filter_abs},	      {"capitalize", filter_capitalize},
	{"count", filter_length},     {"d", filter_default},
	{"default", filter_default},  {"dictsort", wj_filter_dictsort},
	{"first", filter_first},      {"float", filter_float},
	{"format", filter_format},    {"indent", filter_indent},
	{"int", filter_int},	      {"items", filter_items},
	{"join", wj_filter_join},     {"last", filter_last},
	{"length", filter_length},    {"list", filter_list},
	{"lower", filter_lower},      {"map", wj_filter_map},
	{"max", wj_filter_max},	      {"min", wj_filter_min},
	{"reject", wj_filter_reject}, {"rejectattr", wj_filter_rejectattr},
	{"replace", filter_replace},  {"reverse", filter_reverse},
	{"round", filter_round},      {"safe", filter_safe},
	{"select", wj_filter_select}, {"selectattr", wj_filter_selectattr},
	{"sort", wj_filter_sort},     {"string", filter_string},
	{"sum", wj_filter_sum},	      {"title", filter_title},
	{"tojson", filter_tojson},    {"trim", filter_trim},
	{"unique", wj_filter_unique}, {"upper", filter_upper},
};

const struct wj_filter *wj_filter_find(const struct wj_str *name)
{
	for (size_t i = 0; i < sizeof(filters) / sizeof(*filters); i++)
		if (wj_str_is(name, filters[i].name))
			return &filters[i];
	return NULL;
}
