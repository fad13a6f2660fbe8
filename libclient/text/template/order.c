/* SPDX-License-Identifier: Apache-2.0 */
/*
 * order.c - truth, equality, order, membership, hashes and sorting of values, as Python has them.
 *
 * Numbers of all kinds compare by value and exactly; strings by code point, which is the order of
 * UTF-8's bytes. Plain functions; nesting is bounded, because a template can nest a list a million
 * times.
 */
#include "libclient/text/private.h"
#include "libclient/text/template/template.h"

#include <math.h>
#include <string.h>
#include <xxhash.h>

bool wj_true(struct wj *m, struct wj_value v)
{
	switch (v.kind) {
	case WJ_BOOL:
		return v.b;
	case WJ_INT:
		return v.i != 0;
	case WJ_FLOAT:
		return v.f != 0;
	case WJ_UNSET:
	case WJ_UNDEFINED:
	case WJ_NONE:
		return false;
	case WJ_LOOP:
		return true;
	default:
		return wj_length(v) != 0; /* -1, no length: true */
	}
}

/* -1, 0, 1; 2: not ordered, for a NaN. */
static int order_int_float(int64_t i, double f)
{
	double whole;

	if (isnan(f))
		return 2;
	if (f >= 0x1p63)
		return -1;
	if (f < -0x1p63)
		return 1;
	whole = trunc(f);
	if (i != (int64_t)whole)
		return i < (int64_t)whole ? -1 : 1;
	return f == whole ? 0 : f > whole ? -1 : 1;
}

static int order_numbers(struct wj_value a, struct wj_value b)
{
	int64_t i, k;
	int r;

	if (wj_is(a, WJ_FLOAT) && wj_is(b, WJ_FLOAT)) {
		if (isnan(a.f) || isnan(b.f))
			return 2;
		return a.f < b.f ? -1 : a.f > b.f;
	}
	if (wj_is(b, WJ_FLOAT)) {
		wj_is_int(a, &i);
		return order_int_float(i, b.f);
	}
	if (wj_is(a, WJ_FLOAT)) {
		wj_is_int(b, &i);
		r = order_int_float(i, a.f);
		return r == 2 ? 2 : -r;
	}
	wj_is_int(a, &i);
	wj_is_int(b, &k);
	return i < k ? -1 : i > k;
}

static int order_strings(struct wj *m, const struct wj_str *a, const struct wj_str *b)
{
	size_t n = a->bytes < b->bytes ? a->bytes : b->bytes;
	int r = memcmp(a->p, b->p, n);

	wj_step_bytes(m, n);
	if (r)
		return r < 0 ? -1 : 1;
	return a->bytes < b->bytes ? -1 : a->bytes > b->bytes;
}

static bool equal_lists(struct wj *m, const struct wj_list *a, const struct wj_list *b)
{
	if (a == b)
		return true;
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (!wj_equal(m, a->items[i], b->items[i]))
			return false;
	return true;
}

static bool equal_dicts(struct wj *m, const struct wj_dict *a, const struct wj_dict *b)
{
	const struct wj_value *v;
	bool bad;

	if (a == b)
		return true;
	if (a->n != b->n)
		return false;
	for (uint32_t i = 0; i < a->n; i++) {
		v = wj_dict_get(m, b, a->pairs[i].key, &bad);
		if (!v || !wj_equal(m, a->pairs[i].value, *v))
			return false;
	}
	return true;
}

static bool equal_ranges(const struct wj_range *a, const struct wj_range *b)
{
	if (a->n != b->n)
		return false;
	return !a->n || (a->start == b->start && (a->n == 1 || a->step == b->step));
}

static bool equal(struct wj *m, struct wj_value a, struct wj_value b)
{
	if (wj_is_number(a) && wj_is_number(b))
		return order_numbers(a, b) == 0;
	if (a.kind != b.kind)
		return false;
	switch (a.kind) {
	case WJ_UNDEFINED:
	case WJ_NONE:
		return true;
	case WJ_STR:
		wj_step_bytes(m, a.s->bytes == b.s->bytes ? a.s->bytes : 0);
		return a.s == b.s || wj_str_equal(a.s, b.s);
	case WJ_LIST:
	case WJ_TUPLE:
		return equal_lists(m, a.list, b.list);
	case WJ_DICT:
		return equal_dicts(m, a.dict, b.dict);
	case WJ_RANGE:
		return equal_ranges(a.range, b.range);
	case WJ_VIEW:
		wj_refuse(m, "comparing dict views is not supported");
		return false;
	case WJ_METHOD:
		wj_refuse(m, "comparing methods is not supported");
		return false;
	default: /* the same object */
		return a.iter == b.iter;
	}
}

bool wj_equal(struct wj *m, struct wj_value a, struct wj_value b)
{
	bool r = wj_enter(m, WJ_MAX_RUN_DEPTH) && wj_step(m, 1) && equal(m, a, b);

	wj_leave(m);
	return r;
}

static bool holds(enum wj_op op, int order)
{
	switch (op) {
	case WJ_LT:
		return order == -1;
	case WJ_LE:
		return order == -1 || order == 0;
	case WJ_GT:
		return order == 1;
	default: /* WJ_GE */
		return order == 1 || order == 0;
	}
}

static bool compare_lists(struct wj *m, enum wj_op op, const struct wj_list *a,
			  const struct wj_list *b)
{
	for (size_t i = 0; i < a->n && i < b->n && !m->code; i++)
		if (!wj_equal(m, a->items[i], b->items[i]))
			return wj_compare(m, op, a->items[i], b->items[i]);
	return holds(op, a->n < b->n ? -1 : a->n > b->n);
}

static bool compare(struct wj *m, enum wj_op op, struct wj_value a, struct wj_value b)
{
	static const char *const names[] = {
		[WJ_LT] = "<", [WJ_LE] = "<=", [WJ_GT] = ">", [WJ_GE] = ">="};

	if (op == WJ_EQ)
		return wj_equal(m, a, b);
	if (op == WJ_NE)
		return !wj_equal(m, a, b);
	if (wj_is_number(a) && wj_is_number(b))
		return holds(op, order_numbers(a, b));
	if (wj_is(a, WJ_UNDEFINED) || wj_is(b, WJ_UNDEFINED)) {
		wj_use_undefined(m, wj_is(a, WJ_UNDEFINED) ? a : b);
		return false;
	}
	if (a.kind == b.kind && wj_is(a, WJ_STR))
		return holds(op, order_strings(m, a.s, b.s));
	if (a.kind == b.kind && wj_is_list(a))
		return compare_lists(m, op, a.list, b.list);
	if (a.kind == b.kind && wj_is(a, WJ_VIEW))
		wj_refuse(m, "comparing dict views is not supported");
	wj_raise(m, "'%s' is not defined between %s and %s", names[op], wj_kind_name(a),
		 wj_kind_name(b));
	return false;
}

bool wj_compare(struct wj *m, enum wj_op op, struct wj_value a, struct wj_value b)
{
	bool r = wj_enter(m, WJ_MAX_RUN_DEPTH) && wj_step(m, 1) && compare(m, op, a, b);

	wj_leave(m);
	return r;
}

/* --- membership ----------------------------------------------------------------------------------*/

static bool range_has(const struct wj_range *r, struct wj_value v)
{
	int64_t i, last = r->start + (r->n - 1) * r->step;

	if (!r->n)
		return false;
	if (wj_is(v, WJ_FLOAT)) {
		if (!(v.f > -0x1p62 && v.f < 0x1p62) || v.f != trunc(v.f))
			return false;
		i = (int64_t)v.f;
	} else if (!wj_is_int(v, &i)) {
		return false;
	}
	if (r->step > 0 ? i < r->start || i > last : i > r->start || i < last)
		return false;
	/* The difference may need all bits. */
	if (r->step > 0)
		return ((uint64_t)i - (uint64_t)r->start) % (uint64_t)r->step == 0;
	return ((uint64_t)r->start - (uint64_t)i) % (0 - (uint64_t)r->step) == 0;
}

static bool contains_str(struct wj *m, const struct wj_str *in, struct wj_value v)
{
	if (wj_is(v, WJ_STR)) {
		wj_step_bytes(m, in->bytes);
		return wj_find(in, 0, v.s) >= 0;
	}
	wj_raise(m, "a %s cannot be in a str", wj_kind_name(v));
	return false;
}

bool wj_contains(struct wj *m, struct wj_value in, struct wj_value v)
{
	struct wj_value item;
	struct wj_iter it;
	bool bad;

	if (wj_is(in, WJ_STR))
		return contains_str(m, in.s, v);
	if (wj_is(in, WJ_DICT) || (wj_is(in, WJ_VIEW) && in.sub == WJ_KEYS)) {
		bool there = wj_dict_get(m, in.dict, v, &bad) != NULL;

		if (bad)
			wj_raise(m, "a %s cannot be a dict's key", wj_kind_name(v));
		return there;
	}
	if (wj_is(in, WJ_RANGE))
		return range_has(in.range, v);
	if (!wj_iter_init(m, &it, in))
		return false;
	while (wj_next(m, &it, &item))
		if (wj_equal(m, item, v))
			return true;
	return false;
}

/* --- hashes --------------------------------------------------------------------------------------*/

static bool hash_tuple(struct wj *m, const struct wj_list *list, uint64_t *ret)
{
	uint64_t all = 0x9e3779b97f4a7c15u, one;

	for (size_t i = 0; i < list->n; i++) {
		if (!wj_hash(m, list->items[i], &one))
			return false;
		all = XXH3_64bits_withSeed(&one, sizeof(one), all);
	}
	*ret = all;
	return true;
}

/* Equal numbers have equal hashes, whatever their kind. */
static uint64_t hash_number(struct wj_value v)
{
	int64_t i;

	if (!wj_is_int(v, &i)) {
		if (!(v.f >= -0x1p63 && v.f < 0x1p63) || v.f != trunc(v.f))
			return XXH3_64bits(&v.f, sizeof(v.f));
		i = (int64_t)v.f;
	}
	return XXH3_64bits(&i, sizeof(i));
}

static bool hash(struct wj *m, struct wj_value v, uint64_t *ret)
{
	switch (v.kind) {
	case WJ_BOOL:
	case WJ_INT:
	case WJ_FLOAT:
		*ret = hash_number(v);
		return true;
	case WJ_STR:
		*ret = XXH3_64bits(v.s->p, v.s->bytes);
		return wj_step_bytes(m, v.s->bytes);
	case WJ_TUPLE:
		return hash_tuple(m, v.list, ret);
	case WJ_NONE:
	case WJ_UNDEFINED:
		*ret = v.kind;
		return true;
	case WJ_LIST:
	case WJ_DICT:
	case WJ_VIEW:
		return false;
	default:
		wj_refuse(m, "a %s as a key is not supported", wj_kind_name(v));
		return false;
	}
}

bool wj_hash(struct wj *m, struct wj_value v, uint64_t *ret)
{
	bool r = wj_enter(m, WJ_MAX_RUN_DEPTH) && hash(m, v, ret);

	wj_leave(m);
	return r;
}

/* --- sorting -------------------------------------------------------------------------------------*/

struct entry {
	struct wj_value key, item;
};

static void merge(struct wj *m, const struct entry *from, struct entry *to, size_t at, size_t mid,
		  size_t end, bool reverse)
{
	size_t a = at, b = mid;

	for (size_t i = at; i < end; i++) {
		bool right = a == mid;

		/* The right one only if it must come first: what is equal keeps its order. */
		if (!right && b < end)
			right = reverse ? wj_compare(m, WJ_LT, from[a].key, from[b].key)
					: wj_compare(m, WJ_LT, from[b].key, from[a].key);
		to[i] = right ? from[b++] : from[a++];
	}
}

void wj_sort(struct wj *m, struct wj_value *items, struct wj_value *keys, size_t n, bool reverse)
{
	struct entry *room = wj_alloc(m, 2 * n * sizeof(*room)), *from = room, *to;

	if (!room)
		return;
	for (size_t i = 0; i < n; i++)
		from[i] = (struct entry){keys[i], items[i]};
	to = from + n;
	for (size_t width = 1; width < n && !m->code; width *= 2) {
		struct entry *was = from;

		for (size_t at = 0; at < n; at += 2 * width) {
			size_t mid = at + width < n ? at + width : n;
			size_t end = at + 2 * width < n ? at + 2 * width : n;

			merge(m, from, to, at, mid, end, reverse);
		}
		from = to;
		to = was;
	}
	for (size_t i = 0; i < n; i++)
		items[i] = from[i].item;
}
