/* SPDX-License-Identifier: Apache-2.0 */
/*
 * json.c - values as JSON, byte for byte as Python's json.dumps() writes them.
 */
#include "libclient/text/private.h"
#include "libclient/text/template/template.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define ADD(b, z) wj_buf_add(m, b, z, sizeof(z) - 1)

struct writer {
	struct wj *m;
	struct wj_buf b;
	const struct wj_json_style *style;
	int64_t level;
};

static bool dump(struct writer *w, struct wj_value v);

static bool add_unit(struct wj *m, struct wj_buf *b, uint32_t unit)
{
	char text[12];

	return wj_buf_add(m, b, text, (size_t)snprintf(text, sizeof(text), "\\u%04x", unit));
}

/* A character that cannot stand as it is. */
static bool add_escape(struct wj *m, struct wj_buf *b, uint32_t c)
{
	static const char shorts[] = "\"\"\\\\\nn\rr\tt\ff\bb";

	for (const char *s = shorts; *s; s += 2)
		if (c == (uint32_t)(unsigned char)*s)
			return ADD(b, "\\") && wj_buf_add(m, b, s + 1, 1);
	if (c < 0x10000)
		return add_unit(m, b, c);
	c -= 0x10000;
	return add_unit(m, b, 0xd800 + (c >> 10)) && add_unit(m, b, 0xdc00 + (c & 0x3ff));
}

static bool dump_str(struct writer *w, const struct wj_str *s)
{
	struct wj *m = w->m;
	bool good = ADD(&w->b, "\"");
	size_t from = 0, at = 0;
	int len;

	while (at < s->bytes && good) {
		uint32_t c = wt_utf8_next(s->p + at, s->bytes - at, &len);

		if (c < 0x20 || c == '"' || c == '\\' || (w->style->ascii && c > 0x7e)) {
			/* 7f is ASCII and stands. */
			if (c != 0x7f) {
				good = wj_buf_add(m, &w->b, s->p + from, at - from) &&
				       add_escape(m, &w->b, c);
				from = at + (size_t)len;
			}
		}
		at += (size_t)len;
	}
	good = good && wj_step_bytes(m, s->bytes) &&
	       wj_buf_add(m, &w->b, s->p + from, s->bytes - from);
	return good && ADD(&w->b, "\"");
}

static bool dump_float(struct writer *w, double f)
{
	char text[40];
	struct wj *m = w->m;

	if (isnan(f))
		return ADD(&w->b, "NaN");
	if (isinf(f))
		return f > 0 ? ADD(&w->b, "Infinity") : ADD(&w->b, "-Infinity");
	return wj_buf_add(m, &w->b, text, (size_t)wj_float_text(text, f));
}

static bool new_line(struct writer *w)
{
	bool good = w->style->indent_bytes < 0 || wj_buf_add(w->m, &w->b, "\n", 1);

	for (int64_t i = 0; i < w->level && w->style->indent_bytes > 0 && good; i++)
		good = wj_buf_add(w->m, &w->b, w->style->indent, (size_t)w->style->indent_bytes);
	return good;
}

static bool separator(struct writer *w)
{
	return wj_buf_add(w->m, &w->b, w->style->item->p, w->style->item->bytes);
}

static bool dump_list(struct writer *w, const struct wj_list *list)
{
	struct wj *m = w->m;
	bool good = ADD(&w->b, "[");

	if (!list->n)
		return good && ADD(&w->b, "]");
	w->level++;
	for (size_t i = 0; i < list->n && good; i++)
		good = (!i || separator(w)) && new_line(w) && dump(w, list->items[i]);
	w->level--;
	return good && new_line(w) && ADD(&w->b, "]");
}

static bool dump_key(struct writer *w, struct wj_value key)
{
	struct wj *m = w->m;

	if (wj_is(key, WJ_STR))
		return dump_str(w, key.s);
	if (!wj_is_number(key) && !wj_is(key, WJ_NONE)) {
		wj_raise(m, "tojson: a %s cannot be a key in JSON", wj_kind_name(key));
		return false;
	}
	return ADD(&w->b, "\"") && dump(w, key) && ADD(&w->b, "\"");
}

/* The order in which a dict's pairs are written. */
static const struct wj_pair *ordered(struct writer *w, const struct wj_dict *d)
{
	struct wj *m = w->m;
	struct wj_value *keys, *order;
	struct wj_pair *pairs;

	if (!w->style->sort || !d->n)
		return d->pairs;
	keys = wj_alloc(m, d->n * sizeof(*keys));
	order = wj_alloc(m, d->n * sizeof(*order));
	pairs = wj_alloc(m, d->n * sizeof(*pairs));
	if (!keys || !order || !pairs)
		return d->pairs;
	for (uint32_t i = 0; i < d->n; i++) {
		keys[i] = d->pairs[i].key;
		order[i] = wj_int(i);
	}
	wj_sort(m, order, keys, d->n, false);
	for (uint32_t i = 0; i < d->n; i++)
		pairs[i] = d->pairs[order[i].i];
	return pairs;
}

static bool dump_dict(struct writer *w, const struct wj_dict *d)
{
	struct wj *m = w->m;
	const struct wj_pair *pairs = ordered(w, d);
	bool good = ADD(&w->b, "{");

	if (!d->n)
		return good && ADD(&w->b, "}");
	w->level++;
	for (uint32_t i = 0; i < d->n && good; i++)
		good = (!i || separator(w)) && new_line(w) && dump_key(w, pairs[i].key) &&
		       wj_buf_add(m, &w->b, w->style->key->p, w->style->key->bytes) &&
		       dump(w, pairs[i].value);
	w->level--;
	return good && new_line(w) && ADD(&w->b, "}");
}

static bool dump_value(struct writer *w, struct wj_value v)
{
	struct wj *m = w->m;

	switch (v.kind) {
	case WJ_NONE:
		return ADD(&w->b, "null");
	case WJ_BOOL:
		return v.b ? ADD(&w->b, "true") : ADD(&w->b, "false");
	case WJ_INT:
		return wj_repr(m, &w->b, v);
	case WJ_FLOAT:
		return dump_float(w, v.f);
	case WJ_STR:
		return dump_str(w, v.s);
	case WJ_LIST:
	case WJ_TUPLE:
		return dump_list(w, v.list);
	case WJ_DICT:
		return dump_dict(w, v.dict);
	default:
		wj_raise(m, "tojson: a %s cannot be written as JSON", wj_kind_name(v));
		return false;
	}
}

static bool dump(struct writer *w, struct wj_value v)
{
	bool good = wj_enter(w->m, WJ_MAX_RUN_DEPTH) && wj_step(w->m, 1) && dump_value(w, v);

	wj_leave(w->m);
	return good;
}

struct wj_value wj_json(struct wj *m, struct wj_value v, const struct wj_json_style *style)
{
	struct writer w = {.m = m, .style = style};

	dump(&w, v);
	return wj_buf_take(m, &w.b);
}
