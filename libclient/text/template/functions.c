/* SPDX-License-Identifier: Apache-2.0 */
/*
 * functions.c - the functions that templates can call, and how arguments are bound to names.
 */
#include "libclient/text/private.h"
#include "libclient/text/template/template.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* --- arguments -----------------------------------------------------------------------------------*/

/* The place of a name in a list with commas, or -1. */
static int place_of(const char *names, const struct wj_str *name)
{
	int i = 0;

	for (const char *p = names; *p; i++) {
		size_t n = strcspn(p, ",");

		if (n == name->bytes && !memcmp(p, name->p, n))
			return i;
		p += n + (p[n] == ',');
	}
	return -1;
}

bool wj_bind(struct wj *m, const char *what, const struct wj_args *args, const char *names,
	     size_t least, struct wj_value *ret)
{
	size_t n = *names != 0;

	for (const char *p = names; *p; p++)
		n += *p == ',';
	for (size_t i = 0; i < n; i++)
		ret[i] = i < args->n ? args->pos[i] : WJ_VALUE(WJ_UNSET);
	if (args->n > n) {
		wj_raise(m, "%s: at most %zu arguments", what, n);
		return false;
	}
	for (size_t i = 0; i < args->n_kw; i++) {
		const struct wj_str *name = args->kw[i].name;
		int at = place_of(names, name);

		if (at < 0 || !wj_is(ret[at], WJ_UNSET)) {
			wj_raise(m, at < 0 ? "%s: no argument '%.*s'" : "%s: '%.*s' is given twice",
				 what, (int)(name->bytes > 60 ? 60 : name->bytes), name->p);
			return false;
		}
		ret[at] = args->kw[i].value;
	}
	for (size_t i = 0; i < least; i++)
		if (wj_is(ret[i], WJ_UNSET)) {
			wj_raise(m, "%s: at least %zu arguments", what, least);
			return false;
		}
	return !m->code;
}

int64_t wj_arg_int(struct wj *m, const char *what, struct wj_value v, int64_t otherwise)
{
	int64_t i;

	if (wj_is(v, WJ_UNSET))
		return otherwise;
	if (wj_is_int(v, &i))
		return i;
	if (wj_is(v, WJ_UNDEFINED))
		wj_use_undefined(m, v);
	wj_raise(m, "%s: an int is needed, not a %s", what, wj_kind_name(v));
	return otherwise;
}

bool wj_arg_true(struct wj *m, struct wj_value v)
{
	return !wj_is(v, WJ_UNSET) && wj_true(m, v);
}

const struct wj_str *wj_arg_str(struct wj *m, const char *what, struct wj_value v)
{
	if (wj_is(v, WJ_STR) && !v.sub)
		return v.s;
	if (wj_is(v, WJ_STR))
		wj_refuse(m, "%s: a string marked safe is not supported", what);
	else
		wj_raise(m, "%s: a str is needed, not a %s", what, wj_kind_name(v));
	return NULL;
}

/* --- the functions -------------------------------------------------------------------------------*/

static struct wj_value raise_exception(struct wj *m, const struct wj_args *args)
{
	struct wj_value v;

	if (wj_bind(m, "raise_exception", args, "message", 1, &v)) {
		const struct wj_str *s = wj_to_str(m, v);

		wj_fail(m, -EBADMSG, "%.*s", (int)(s->bytes > 200 ? 200 : s->bytes), s->p);
	}
	return wj_none();
}

static struct wj_value make_range(struct wj *m, const struct wj_args *args)
{
	struct wj_value v[3];
	struct wj_range r, *ret;
	__int128 n;

	if (args->n_kw || !wj_bind(m, "range", args, "start,stop,step", 1, v))
		return wj_raise(m, "range: one to three ints are needed");
	r.start = wj_is(v[1], WJ_UNSET) ? 0 : wj_arg_int(m, "range", v[0], 0);
	r.stop = wj_arg_int(m, "range", wj_is(v[1], WJ_UNSET) ? v[0] : v[1], 0);
	r.step = wj_arg_int(m, "range", v[2], 1);
	if (!r.step)
		return wj_raise(m, "range: the step must not be zero");
	n = (__int128)r.stop - r.start;
	n = r.step > 0 ? (n + r.step - 1) / r.step : (n + r.step + 1) / r.step;
	if (n > WJ_MAX_RANGE)
		return wj_raise(m, "range: more than %d items", WJ_MAX_RANGE);
	r.n = n > 0 ? (int64_t)n : 0;
	ret = wj_alloc(m, sizeof(*ret));
	if (!ret)
		return wj_none();
	*ret = r;
	return (struct wj_value){.kind = WJ_RANGE, .range = ret};
}

/* One pair of what dict() is given as a list. */
static bool add_pair(struct wj *m, struct wj_dict *d, struct wj_value pair)
{
	struct wj_value list = wj_listed(m, pair);

	if (m->code)
		return false;
	if (list.list->n != 2) {
		wj_raise(m, "dict: an item must be a pair");
		return false;
	}
	return wj_dict_set(m, d, list.list->items[0], list.list->items[1]);
}

static struct wj_dict *build_dict(struct wj *m, const char *what, const struct wj_args *args)
{
	struct wj_dict *d = wj_dict(m, args->n_kw);
	struct wj_value from, item;
	struct wj_iter it;

	if (!d)
		return NULL;
	if (args->n > 1) {
		wj_raise(m, "%s: at most one argument without a name", what);
		return NULL;
	}
	from = args->n ? args->pos[0] : WJ_VALUE(WJ_UNSET);
	if (wj_is(from, WJ_DICT)) {
		for (uint32_t i = 0; i < from.dict->n; i++)
			wj_dict_set(m, d, from.dict->pairs[i].key, from.dict->pairs[i].value);
	} else if (args->n) {
		if (wj_is(from, WJ_UNDEFINED))
			wj_use_undefined(m, from);
		if (!wj_iter_init(m, &it, from))
			return NULL;
		while (wj_next(m, &it, &item) && add_pair(m, d, item))
			;
	}
	for (size_t i = 0; i < args->n_kw; i++)
		wj_dict_set(m, d, (struct wj_value){.kind = WJ_STR, .s = args->kw[i].name},
			    args->kw[i].value);
	return m->code ? NULL : d;
}

static struct wj_value make_dict(struct wj *m, const struct wj_args *args)
{
	struct wj_dict *d = build_dict(m, "dict", args);

	return d ? (struct wj_value){.kind = WJ_DICT, .dict = d} : wj_none();
}

static struct wj_value make_namespace(struct wj *m, const struct wj_args *args)
{
	struct wj_dict *d = build_dict(m, "namespace", args);

	for (uint32_t i = 0; d && i < d->n; i++) {
		struct wj_value key = d->pairs[i].key;

		if (wj_is(key, WJ_STR) && key.s->bytes && key.s->p[0] == '_')
			return wj_raise(m, "namespace: a name must not begin with '_'");
	}
	return d ? (struct wj_value){.kind = WJ_NAMESPACE, .dict = d} : wj_none();
}

/* --- time ----------------------------------------------------------------------------------------*/

/* Directives on which C's strftime() and Python's agree, and the flags that may stand before them:
 * "%-d" is the day without a zero. */
#define DIRECTIVES "aAwdbBmyYHIpMSjUWcxXGuVeDFTRnthCklP"
#define FLAGS	   "-_0^#"

static bool now(struct wj *m, struct tm *ret, long *ret_micros)
{
	struct timespec ts;
	double whole;
	time_t seconds;

	if (m->has_time) {
		whole = floor(m->time);
		seconds = (time_t)whole;
		*ret_micros = lround((m->time - whole) * 1e6) % 1000000;
		return gmtime_r(&seconds, ret) != NULL;
	}
	clock_gettime(CLOCK_REALTIME, &ts);
	*ret_micros = ts.tv_nsec / 1000;
	return localtime_r(&ts.tv_sec, ret) != NULL;
}

static void put_time(struct wj *m, struct wj_buf *b, const char *format, const struct tm *tm,
		     long micros)
{
	char directive = format[strlen(format) - 1], text[80];
	int n;

	if (directive == '%') {
		wj_buf_add(m, b, "%", 1);
	} else if (directive == 'f') {
		n = snprintf(text, sizeof(text), "%06ld", micros);
		wj_buf_add(m, b, text, (size_t)n);
	} else if (directive != 'z' && directive != 'Z') { /* no zone: nothing */
		wj_buf_add(m, b, text, strftime(text, sizeof(text), format, tm));
	}
}

/* The directive at p, of n bytes that are left; gives its length. */
static size_t directive(struct wj *m, struct wj_buf *b, const char *p, size_t n,
			const struct tm *tm, long micros)
{
	bool flag = n > 2 && p[1] && strchr(FLAGS, p[1]);
	size_t len = flag ? 3 : 2;
	char c = n < len ? 0 : p[len - 1], format[4] = "";

	if (!c || !strchr(flag ? DIRECTIVES : DIRECTIVES "%fzZ", c)) {
		wj_refuse(m, "strftime_now: the directive '%.*s' is not supported",
			  (int)(n < len ? n : len), p);
	} else {
		memcpy(format, p, len);
		put_time(m, b, format, tm, micros);
	}
	return len;
}

static struct wj_value strftime_now(struct wj *m, const struct wj_args *args)
{
	struct wj_buf b = {0};
	const struct wj_str *s;
	struct wj_value v;
	struct tm tm;
	long micros;

	if (!wj_bind(m, "strftime_now", args, "format", 1, &v))
		return wj_none();
	s = wj_arg_str(m, "strftime_now", v);
	if (!s)
		return wj_none();
	if (!now(m, &tm, &micros))
		return wj_raise(m, "strftime_now: no such time");
	for (size_t i = 0; i < s->bytes && !m->code; i++) {
		if (s->p[i] != '%') {
			wj_buf_add(m, &b, s->p + i, 1);
			continue;
		}
		i += directive(m, &b, s->p + i, s->bytes - i, &tm, micros) - 1;
	}
	return wj_buf_take(m, &b);
}

const struct wj_function wj_functions[] = {
	{"dict", make_dict},   {"namespace", make_namespace},  {"raise_exception", raise_exception},
	{"range", make_range}, {"strftime_now", strftime_now},
};
const size_t wj_n_functions = sizeof(wj_functions) / sizeof(*wj_functions);

bool wj_name_refused(const struct wj_str *name)
{
	static const char *const names[] = {"self",   "super",	"caller",
					    "cycler", "joiner", "lipsum"};

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (wj_str_is(name, names[i]))
			return true;
	return false;
}
