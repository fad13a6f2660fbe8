/* SPDX-License-Identifier: Apache-2.0 */
/*
 * item.c - members, items and slices of values.
 *
 * In a template x.name is Python's attribute if there is one, else the item; x['name'] is the item
 * first. So the name of a dict's method hides a key in the first form. What is not there is an
 * undefined value, not an error.
 */
#include "libclient/text/private.h"
#include "libclient/text/template/template.h"

#include <math.h>

int64_t wj_length(struct wj_value v)
{
	switch (v.kind) {
	case WJ_UNDEFINED:
		return 0;
	case WJ_STR:
		return (int64_t)v.s->chars;
	case WJ_LIST:
	case WJ_TUPLE:
		return (int64_t)v.list->n;
	case WJ_DICT:
	case WJ_VIEW:
		return (int64_t)v.dict->n;
	case WJ_RANGE:
		return v.range->n;
	default:
		return -1;
	}
}

struct wj_value wj_range_at(const struct wj_range *r, int64_t i)
{
	return wj_int(r->start + i * r->step);
}

/* --- attributes ----------------------------------------------------------------------------------*/

static struct wj_value bind(struct wj *m, struct wj_value self, const struct wj_method *method)
{
	struct wj_bound *b;

	if (!method->call)
		return wj_refuse(m, "%s's member '%s' is not supported", wj_kind_name(self),
				 method->name);
	b = wj_alloc(m, sizeof(*b));
	if (!b)
		return wj_none();
	*b = (struct wj_bound){self, method};
	return (struct wj_value){.kind = WJ_METHOD, .bound = b};
}

/* Python's attribute; UNSET: there is none. */
static struct wj_value attribute(struct wj *m, struct wj_value v, const struct wj_str *name)
{
	const struct wj_method *method;
	const struct wj_value *member;

	switch (v.kind) {
	case WJ_NAMESPACE:
		member = wj_dict_get_str(m, v.dict, name);
		if (member)
			return *member;
		return WJ_VALUE(WJ_UNSET);
	case WJ_LOOP:
		return wj_loop_member(m, v, name);
	case WJ_MACRO:
	case WJ_FUNCTION:
	case WJ_METHOD:
	case WJ_ITER:
	case WJ_VIEW:
	case WJ_RANGE:
		return wj_refuse(m, "members of a %s are not supported", wj_kind_name(v));
	default:
		break;
	}
	/* Every object of Python's has these, and the sandbox forbids them. */
	if (name->bytes > 4 && name->p[0] == '_' && name->p[1] == '_' &&
	    name->p[name->bytes - 1] == '_')
		return wj_refuse(m, "member '%.*s' is not supported",
				 (int)(name->bytes > 60 ? 60 : name->bytes), name->p);
	method = wj_method_find(v, name);
	return method ? bind(m, v, method) : WJ_VALUE(WJ_UNSET);
}

static int64_t from_end(int64_t i, int64_t n)
{
	return i < 0 ? i + n : i;
}

/* Python's item; UNSET: there is none. */
static struct wj_value item(struct wj *m, struct wj_value v, struct wj_value key)
{
	const struct wj_value *found;
	int64_t i, n = wj_length(v);
	bool bad;

	if (wj_is(v, WJ_DICT)) {
		found = wj_dict_get(m, v.dict, key, &bad);
		return found ? *found : WJ_VALUE(WJ_UNSET);
	}
	if (n < 0 || wj_is(v, WJ_VIEW) || !wj_is_int(key, &i))
		return WJ_VALUE(WJ_UNSET);
	i = from_end(i, n);
	if (i < 0 || i >= n)
		return WJ_VALUE(WJ_UNSET);
	if (wj_is(v, WJ_STR))
		return wj_str_chars(m, v.s, (size_t)i, (size_t)i + 1);
	if (wj_is(v, WJ_RANGE))
		return wj_range_at(v.range, i);
	return v.list->items[i];
}

struct wj_value wj_attribute(struct wj *m, struct wj_value v, const struct wj_str *name)
{
	struct wj_value key = {.kind = WJ_STR, .s = name}, r;

	if (wj_is(v, WJ_UNDEFINED))
		return wj_use_undefined(m, v);
	r = attribute(m, v, name);
	if (wj_is(r, WJ_UNSET))
		r = item(m, v, key);
	return wj_is(r, WJ_UNSET) ? wj_undefined(WJ_NO_MEMBER, name) : r;
}

struct wj_value wj_subscript(struct wj *m, struct wj_value v, struct wj_value key)
{
	struct wj_value r;

	if (wj_is(v, WJ_UNDEFINED))
		return wj_use_undefined(m, v);
	r = item(m, v, key);
	if (wj_is(r, WJ_UNSET) && wj_is(key, WJ_STR))
		r = attribute(m, v, key.s);
	if (!wj_is(r, WJ_UNSET))
		return r;
	return wj_is(key, WJ_STR) ? wj_undefined(WJ_NO_MEMBER, key.s)
				  : wj_undefined(WJ_NO_ITEM, NULL);
}

/* --- slices --------------------------------------------------------------------------------------*/

static bool bound_of(struct wj *m, struct wj_value v, int64_t n, bool back, int64_t otherwise,
		     int64_t *ret)
{
	int64_t i;

	*ret = otherwise;
	if (wj_is(v, WJ_NONE))
		return true;
	if (!wj_is_int(v, &i)) {
		if (wj_is(v, WJ_UNDEFINED))
			wj_use_undefined(m, v);
		wj_raise(m, "a slice's bound must be an int, not a %s", wj_kind_name(v));
		return false;
	}
	i = i < -n ? -n - 1 : from_end(i, n);
	if (i < 0)
		i = back ? -1 : 0;
	if (i >= n)
		i = back ? n - 1 : n;
	*ret = i;
	return true;
}

static struct wj_value slice_list(struct wj *m, struct wj_value v, int64_t from, int64_t step,
				  int64_t count)
{
	struct wj_list *list = wj_list(m, (size_t)count);

	for (int64_t i = 0; list && i < count; i++)
		list->items[i] = v.list->items[from + i * step];
	return wj_list_value(v.kind, list);
}

static struct wj_value slice_str(struct wj *m, const struct wj_str *s, int64_t from, int64_t step,
				 int64_t count)
{
	struct wj_buf b = {0};

	if (step == 1)
		return wj_str_chars(m, s, (size_t)from, (size_t)(from + count));
	for (int64_t i = 0; i < count && !m->code; i++) {
		struct wj_value c = wj_str_chars(m, s, (size_t)(from + i * step),
						 (size_t)(from + i * step) + 1);

		wj_buf_add(m, &b, c.s->p, c.s->bytes);
	}
	return wj_buf_take(m, &b);
}

struct wj_value wj_slice(struct wj *m, struct wj_value v, struct wj_value from, struct wj_value to,
			 struct wj_value by)
{
	int64_t n = wj_length(v), start, stop, step, count;

	if (wj_is(v, WJ_UNDEFINED))
		return wj_use_undefined(m, v);
	if (wj_is(v, WJ_RANGE))
		return wj_refuse(m, "a slice of a range is not supported");
	if (!wj_is(v, WJ_STR) && !wj_is_list(v))
		return wj_raise(m, "a %s cannot be sliced", wj_kind_name(v));
	if (!wj_is(by, WJ_NONE) && !wj_is_int(by, &step))
		return wj_is(by, WJ_UNDEFINED) ? wj_use_undefined(m, by)
					       : wj_raise(m, "a slice's step must be an int");
	if (wj_is(by, WJ_NONE))
		step = 1;
	if (!step)
		return wj_raise(m, "a slice's step must not be zero");
	if (!bound_of(m, from, n, step < 0, step < 0 ? n - 1 : 0, &start) ||
	    !bound_of(m, to, n, step < 0, step < 0 ? -1 : n, &stop))
		return wj_none();
	/* A step beyond the length is as good as the length. */
	if (step > n + 1)
		step = n + 1;
	if (step < -n - 1)
		step = -n - 1;
	count = step > 0 ? (stop - start + step - 1) / step : (start - stop - step - 1) / -step;
	if (count < 0)
		count = 0;
	return wj_is(v, WJ_STR) ? slice_str(m, v.s, start, step, count)
				: slice_list(m, v, start, step, count);
}
