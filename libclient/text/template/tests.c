/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests.c - what stands after `is`, and what select() and its like are given by name.
 */
#include "libclient/text/private.h"
#include "libclient/text/template/template.h"

#include <string.h>

#define TEST(f) static bool f(struct wj *m, struct wj_value v, const struct wj_args *args)

static bool no_arguments(struct wj *m, const struct wj_args *args)
{
	return wj_bind(m, "a test", args, "", 0, NULL);
}

static bool one_argument(struct wj *m, const struct wj_args *args, struct wj_value *ret)
{
	return wj_bind(m, "a test", args, "other", 1, ret);
}

#define KIND_TEST(name, condition)                           \
	TEST(is_##name)                                      \
	{                                                    \
		return no_arguments(m, args) && (condition); \
	}

KIND_TEST(defined, !wj_is(v, WJ_UNDEFINED))
KIND_TEST(undefined, wj_is(v, WJ_UNDEFINED))
KIND_TEST(none, wj_is(v, WJ_NONE))
KIND_TEST(boolean, wj_is(v, WJ_BOOL))
KIND_TEST(false, wj_is(v, WJ_BOOL) && !v.b)
KIND_TEST(true, wj_is(v, WJ_BOOL) && v.b)
KIND_TEST(integer, wj_is(v, WJ_INT))
KIND_TEST(float, wj_is(v, WJ_FLOAT))
KIND_TEST(number, wj_is_number(v))
KIND_TEST(string, wj_is(v, WJ_STR))
KIND_TEST(mapping, wj_is(v, WJ_DICT))
KIND_TEST(iterable, wj_iterable(v))
KIND_TEST(sequence, wj_length(v) >= 0 && !wj_is(v, WJ_VIEW))
KIND_TEST(callable, wj_is(v, WJ_MACRO) || wj_is(v, WJ_FUNCTION) || wj_is(v, WJ_METHOD) ||
			    wj_is(v, WJ_UNDEFINED) || wj_is(v, WJ_LOOP))
KIND_TEST(escaped, wj_is(v, WJ_STR) && v.sub)

static bool rest_is(struct wj *m, struct wj_value v, struct wj_value by, int64_t want)
{
	struct wj_value rest = wj_binary(m, WJ_MOD, v, by);

	return !m->code && wj_equal(m, rest, wj_int(want));
}

TEST(is_odd)
{
	return no_arguments(m, args) && rest_is(m, v, wj_int(2), 1);
}

TEST(is_even)
{
	return no_arguments(m, args) && rest_is(m, v, wj_int(2), 0);
}

TEST(is_divisibleby)
{
	struct wj_value by;

	return one_argument(m, args, &by) && rest_is(m, v, by, 0);
}

/* All letters there are, and at least one, of the case. */
static bool cased(struct wj *m, struct wj_value v, const struct wj_args *args, char first,
		  char last)
{
	const struct wj_str *s;
	bool some = false;

	if (!no_arguments(m, args))
		return false;
	s = wj_to_str(m, v);
	if (s->chars != s->bytes)
		wj_refuse(m, "the case of text beyond ASCII is not supported");
	for (size_t i = 0; i < s->bytes; i++) {
		char c = s->p[i];

		if (c >= first && c <= last)
			some = true;
		else if ((c ^ 32) >= first && (c ^ 32) <= last)
			return false;
	}
	return some;
}

TEST(is_lower)
{
	return cased(m, v, args, 'a', 'z');
}

TEST(is_upper)
{
	return cased(m, v, args, 'A', 'Z');
}

TEST(is_in)
{
	struct wj_value in;

	return one_argument(m, args, &in) && wj_contains(m, in, v);
}

/* Whether two numbers or texts are one object is an accident of Python's. */
TEST(is_sameas)
{
	struct wj_value other;

	if (!one_argument(m, args, &other))
		return false;
	if (wj_is(v, WJ_NONE) || wj_is(v, WJ_BOOL) || wj_is(other, WJ_NONE) ||
	    wj_is(other, WJ_BOOL))
		return v.kind == other.kind && wj_equal(m, v, other);
	wj_refuse(m, "the test sameas is supported for none, true and false");
	return false;
}

#define ORDER_TEST(name, op)                                                         \
	TEST(is_##name)                                                              \
	{                                                                            \
		struct wj_value other;                                               \
                                                                                     \
		return one_argument(m, args, &other) && wj_compare(m, op, v, other); \
	}

ORDER_TEST(eq, WJ_EQ)
ORDER_TEST(ne, WJ_NE)
ORDER_TEST(lt, WJ_LT)
ORDER_TEST(le, WJ_LE)
ORDER_TEST(gt, WJ_GT)
ORDER_TEST(ge, WJ_GE)

static const struct wj_test tests[] = {
	{"!=", is_ne},
	{"<", is_lt},
	{"<=", is_le},
	{"==", is_eq},
	{">", is_gt},
	{">=", is_ge},
	{"boolean", is_boolean},
	{"callable", is_callable},
	{"defined", is_defined},
	{"divisibleby", is_divisibleby},
	{"eq", is_eq},
	{"equalto", is_eq},
	{"escaped", is_escaped},
	{"even", is_even},
	{"false", is_false},
	{"float", is_float},
	{"ge", is_ge},
	{"greaterthan", is_gt},
	{"gt", is_gt},
	{"in", is_in},
	{"integer", is_integer},
	{"iterable", is_iterable},
	{"le", is_le},
	{"lessthan", is_lt},
	{"lower", is_lower},
	{"lt", is_lt},
	{"mapping", is_mapping},
	{"ne", is_ne},
	{"none", is_none},
	{"number", is_number},
	{"odd", is_odd},
	{"sameas", is_sameas},
	{"sequence", is_sequence},
	{"string", is_string},
	{"true", is_true},
	{"undefined", is_undefined},
	{"upper", is_upper},
};

const struct wj_test *wj_test_find(const struct wj_str *name)
{
	for (size_t i = 0; i < sizeof(tests) / sizeof(*tests); i++)
		if (wj_str_is(name, tests[i].name))
			return &tests[i];
	return NULL;
}
