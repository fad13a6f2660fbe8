/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ops.c - arithmetic on values, as Python has it, in 64 bits: what needs more is refused.
 */
#include "libclient/text/private.h"
#include "libclient/text/template/template.h"

#include <math.h>
#include <string.h>

static const char *const signs[] = {
	[WJ_ADD] = "+",	      [WJ_SUB] = "-", [WJ_MUL] = "*",  [WJ_DIV] = "/",
	[WJ_FLOORDIV] = "//", [WJ_MOD] = "%", [WJ_POW] = "**",
};

static struct wj_value too_big(struct wj *m)
{
	return wj_refuse(m, "an integer of more than 64 bits is not supported");
}

/* --- integers ------------------------------------------------------------------------------------*/

static struct wj_value power(struct wj *m, int64_t a, int64_t b)
{
	int64_t r = 1;

	if (b < 0) {
		if (!a)
			return wj_raise(m, "zero cannot be raised to a negative power");
		return wj_float(pow((double)a, (double)b));
	}
	while (b) {
		if ((b & 1) && __builtin_mul_overflow(r, a, &r))
			return too_big(m);
		b >>= 1;
		if (b && __builtin_mul_overflow(a, a, &a))
			return too_big(m);
	}
	return wj_int(r);
}

static struct wj_value divide_ints(struct wj *m, enum wj_op op, int64_t a, int64_t b)
{
	int64_t q, rest;

	if (!b)
		return wj_raise(m, "division by zero");
	if (op == WJ_DIV) {
		/* Both exact as doubles, or the quotient would be rounded twice. */
		if (a > (1LL << 53) || a < -(1LL << 53) || b > (1LL << 53) || b < -(1LL << 53))
			return wj_refuse(m, "'/' of integers beyond 53 bits is not supported");
		return wj_float((double)a / (double)b);
	}
	if (b == -1) {
		if (op == WJ_MOD)
			return wj_int(0);
		return a == INT64_MIN ? too_big(m) : wj_int(-a);
	}
	q = a / b;
	rest = a % b;
	/* Python rounds down, C towards zero. */
	if (rest && (rest < 0) != (b < 0)) {
		q--;
		rest += b;
	}
	return wj_int(op == WJ_MOD ? rest : q);
}

static struct wj_value on_ints(struct wj *m, enum wj_op op, int64_t a, int64_t b)
{
	bool over;
	int64_t r;

	switch (op) {
	case WJ_ADD:
		over = __builtin_add_overflow(a, b, &r);
		break;
	case WJ_SUB:
		over = __builtin_sub_overflow(a, b, &r);
		break;
	case WJ_MUL:
		over = __builtin_mul_overflow(a, b, &r);
		break;
	case WJ_POW:
		return power(m, a, b);
	default:
		return divide_ints(m, op, a, b);
	}
	return over ? too_big(m) : wj_int(r);
}

/* --- floats --------------------------------------------------------------------------------------*/

static struct wj_value power_floats(struct wj *m, double a, double b)
{
	double r;

	if (a == 0 && b < 0)
		return wj_raise(m, "zero cannot be raised to a negative power");
	if (a < 0 && isfinite(a) && isfinite(b) && b != trunc(b))
		return wj_refuse(m, "complex numbers are not supported");
	r = pow(a, b);
	if (isinf(r) && isfinite(a) && isfinite(b))
		return wj_raise(m, "the result of '**' is too large");
	return wj_float(r);
}

static struct wj_value divide_floats(struct wj *m, enum wj_op op, double a, double b)
{
	double rest, q;

	if (b == 0)
		return wj_raise(m, "division by zero");
	if (op == WJ_DIV)
		return wj_float(a / b);
	rest = fmod(a, b);
	q = (a - rest) / b;
	if (rest != 0) {
		if ((b < 0) != (rest < 0)) {
			rest += b;
			q -= 1;
		}
	} else {
		rest = copysign(0.0, b);
	}
	if (op == WJ_MOD)
		return wj_float(rest);
	if (q == 0)
		return wj_float(copysign(0.0, a / b));
	/* q is whole but for rounding. */
	return wj_float(q - floor(q) > 0.5 ? floor(q) + 1 : floor(q));
}

static struct wj_value on_floats(struct wj *m, enum wj_op op, double a, double b)
{
	switch (op) {
	case WJ_ADD:
		return wj_float(a + b);
	case WJ_SUB:
		return wj_float(a - b);
	case WJ_MUL:
		return wj_float(a * b);
	case WJ_POW:
		return power_floats(m, a, b);
	default:
		return divide_floats(m, op, a, b);
	}
}

static double as_float(struct wj_value v)
{
	int64_t i;

	return wj_is_int(v, &i) ? (double)i : v.f;
}

/* --- sequences -----------------------------------------------------------------------------------*/

static struct wj_value add_strings(struct wj *m, const struct wj_str *a, const struct wj_str *b)
{
	char *p = wj_alloc(m, a->bytes + b->bytes);

	if (!p)
		return wj_str_borrow(m, "", 0);
	memcpy(p, a->p, a->bytes);
	memcpy(p + a->bytes, b->p, b->bytes);
	return wj_str_borrow(m, p, a->bytes + b->bytes);
}

static struct wj_value add_lists(struct wj *m, struct wj_value a, struct wj_value b)
{
	struct wj_list *list = wj_list(m, a.list->n + b.list->n);

	if (list && a.list->n)
		memcpy(list->items, a.list->items, a.list->n * sizeof(*list->items));
	if (list && b.list->n)
		memcpy(list->items + a.list->n, b.list->items, b.list->n * sizeof(*list->items));
	return wj_list_value(a.kind, list);
}

static bool fits(struct wj *m, size_t bytes, int64_t times)
{
	if (bytes && times > (int64_t)(WJ_MAX_MEMORY / bytes)) {
		wj_fail(m, -E2BIG, "more than %u MiB of memory", WJ_MAX_MEMORY >> 20);
		return false;
	}
	return true;
}

struct wj_value wj_repeat(struct wj *m, const struct wj_str *s, int64_t times)
{
	char *p;

	if (times <= 0 || !s->bytes || !fits(m, s->bytes, times))
		return wj_str_borrow(m, "", 0);
	p = wj_alloc(m, s->bytes * (size_t)times);
	if (!p || !wj_step(m, (size_t)times / 8))
		return wj_str_borrow(m, "", 0);
	for (int64_t i = 0; i < times; i++)
		memcpy(p + (size_t)i * s->bytes, s->p, s->bytes);
	return wj_str_borrow(m, p, s->bytes * (size_t)times);
}

static struct wj_value repeat_list(struct wj *m, struct wj_value v, int64_t times)
{
	struct wj_list *list;

	if (times < 0)
		times = 0;
	if (!fits(m, v.list->n * sizeof(struct wj_value), times))
		return wj_none();
	list = wj_list(m, v.list->n * (size_t)times);
	for (size_t i = 0; list && i < list->n; i++)
		list->items[i] = v.list->items[i % v.list->n];
	return wj_list_value(v.kind, list);
}

static struct wj_value repeat(struct wj *m, struct wj_value v, int64_t times)
{
	return wj_is(v, WJ_STR) ? wj_repeat(m, v.s, times) : repeat_list(m, v, times);
}

/* --- the whole -----------------------------------------------------------------------------------*/

static bool repeatable(struct wj_value v)
{
	return wj_is(v, WJ_STR) || wj_is_list(v);
}

struct wj_value wj_binary(struct wj *m, enum wj_op op, struct wj_value a, struct wj_value b)
{
	int64_t i, k;

	wj_step(m, 1);
	if ((wj_is(a, WJ_STR) && a.sub) || (wj_is(b, WJ_STR) && b.sub))
		return wj_refuse(m, "'%s' on a string marked safe is not supported", signs[op]);
	if (wj_is_int(a, &i) && wj_is_int(b, &k))
		return on_ints(m, op, i, k);
	if (wj_is_number(a) && wj_is_number(b))
		return on_floats(m, op, as_float(a), as_float(b));
	if (op == WJ_MOD && wj_is(a, WJ_STR))
		return wj_percent(m, a.s, b);
	if (wj_is(a, WJ_UNDEFINED) || wj_is(b, WJ_UNDEFINED))
		return wj_use_undefined(m, wj_is(a, WJ_UNDEFINED) ? a : b);
	if (op == WJ_ADD && a.kind == b.kind && wj_is(a, WJ_STR))
		return add_strings(m, a.s, b.s);
	if (op == WJ_ADD && a.kind == b.kind && wj_is_list(a))
		return add_lists(m, a, b);
	if (op == WJ_MUL && repeatable(a) && wj_is_int(b, &i))
		return repeat(m, a, i);
	if (op == WJ_MUL && repeatable(b) && wj_is_int(a, &i))
		return repeat(m, b, i);
	if (wj_is(a, WJ_VIEW) || wj_is(b, WJ_VIEW) || (wj_is(a, WJ_DICT) && wj_is(b, WJ_DICT)))
		return wj_refuse(m, "'%s' on dicts is not supported", signs[op]);
	return wj_raise(m, "'%s' is not defined between %s and %s", signs[op], wj_kind_name(a),
			wj_kind_name(b));
}

struct wj_value wj_negate(struct wj *m, struct wj_value v, bool minus)
{
	int64_t i;

	if (wj_is(v, WJ_FLOAT))
		return wj_float(minus ? -v.f : v.f);
	if (wj_is_int(v, &i)) {
		if (minus && i == INT64_MIN)
			return too_big(m);
		return wj_int(minus ? -i : i);
	}
	if (wj_is(v, WJ_UNDEFINED))
		return wj_use_undefined(m, v);
	return wj_raise(m, "a %s has no sign", wj_kind_name(v));
}
