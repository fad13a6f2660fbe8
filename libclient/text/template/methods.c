/* SPDX-License-Identifier: Apache-2.0 */
/*
 * methods.c - the methods of str, dict, list and tuple that templates call.
 *
 * Each table names all that Python has, because such a name hides a dict's key of that name; those
 * without a function are refused when they are used. The sandbox forbids the ones that change their
 * object.
 */
#include "libclient/text/private.h"
#include "libclient/text/template/template.h"

#include <string.h>

#define METHOD(f) \
	static struct wj_value f(struct wj *m, struct wj_value self, const struct wj_args *args)

/* --- str: cutting --------------------------------------------------------------------------------*/

static struct wj_value strip(struct wj *m, struct wj_value self, const struct wj_args *args,
			     const char *what, bool left, bool right)
{
	const struct wj_str *chars = NULL;
	struct wj_value v;

	if (args->n_kw || !wj_bind(m, what, args, "chars", 0, &v))
		return wj_raise(m, "%s: takes no named arguments", what);
	if (!wj_is(v, WJ_UNSET) && !wj_is(v, WJ_NONE)) {
		chars = wj_arg_str(m, what, v);
		if (!chars)
			return wj_none();
	}
	return wj_strip(m, self.s, chars, left, right);
}

METHOD(str_strip)
{
	return strip(m, self, args, "strip", true, true);
}

METHOD(str_lstrip)
{
	return strip(m, self, args, "lstrip", true, false);
}

METHOD(str_rstrip)
{
	return strip(m, self, args, "rstrip", false, true);
}

static void split_blanks(struct wj *m, struct wj_items *items, const struct wj_str *s,
			 int64_t limit)
{
	size_t at = 0, from;
	int len;

	while (wj_step(m, 1)) {
		while (at < s->bytes && wj_is_blank(wt_utf8_next(s->p + at, s->bytes - at, &len)))
			at += (size_t)len;
		if (at == s->bytes)
			return;
		from = at;
		if (limit-- == 0) {
			wj_items_add(m, items, wj_str_borrow(m, s->p + from, s->bytes - from));
			return;
		}
		while (at < s->bytes && !wj_is_blank(wt_utf8_next(s->p + at, s->bytes - at, &len)))
			at += (size_t)len;
		wj_items_add(m, items, wj_str_borrow(m, s->p + from, at - from));
	}
}

METHOD(str_split)
{
	struct wj_items items = {0};
	const struct wj_str *sep;
	struct wj_value v[2];
	size_t from = 0;
	int64_t limit;
	ssize_t at;

	if (!wj_bind(m, "split", args, "sep,maxsplit", 0, v))
		return wj_none();
	limit = wj_arg_int(m, "split", v[1], -1);
	wj_step_bytes(m, self.s->bytes);
	if (wj_is(v[0], WJ_UNSET) || wj_is(v[0], WJ_NONE)) {
		split_blanks(m, &items, self.s, limit);
		return wj_items_list(m, &items);
	}
	sep = wj_arg_str(m, "split", v[0]);
	if (!sep)
		return wj_none();
	if (!sep->bytes)
		return wj_raise(m, "split: an empty separator");
	while (limit-- != 0 && (at = wj_find(self.s, from, sep)) >= 0 && wj_step(m, 1)) {
		wj_items_add(m, &items, wj_str_borrow(m, self.s->p + from, (size_t)at - from));
		from = (size_t)at + sep->bytes;
	}
	wj_items_add(m, &items, wj_str_borrow(m, self.s->p + from, self.s->bytes - from));
	return wj_items_list(m, &items);
}

static ssize_t find_last(struct wj *m, const struct wj_str *s, size_t end,
			 const struct wj_str *what)
{
	for (size_t at = end >= what->bytes ? end - what->bytes + 1 : 0;
	     at-- > 0 && wj_step(m, at % 16 == 0);)
		if (!memcmp(s->p + at, what->p, what->bytes))
			return (ssize_t)at;
	return -1;
}

METHOD(str_rsplit)
{
	struct wj_items items = {0};
	const struct wj_str *sep;
	struct wj_value v[2];
	size_t end = self.s->bytes;
	int64_t limit;
	ssize_t at;

	if (!wj_bind(m, "rsplit", args, "sep,maxsplit", 0, v))
		return wj_none();
	limit = wj_arg_int(m, "rsplit", v[1], -1);
	if (wj_is(v[0], WJ_UNSET) || wj_is(v[0], WJ_NONE)) {
		if (limit >= 0)
			return wj_refuse(m, "rsplit: maxsplit without a separator is not "
					    "supported");
		return str_split(m, self, &(struct wj_args){0});
	}
	sep = wj_arg_str(m, "rsplit", v[0]);
	if (!sep)
		return wj_none();
	if (!sep->bytes)
		return wj_raise(m, "rsplit: an empty separator");
	while (limit-- != 0 && (at = find_last(m, self.s, end, sep)) >= 0) {
		size_t start = (size_t)at + sep->bytes;

		wj_items_add(m, &items, wj_str_borrow(m, self.s->p + start, end - start));
		end = (size_t)at;
	}
	wj_items_add(m, &items, wj_str_borrow(m, self.s->p, end));
	for (size_t i = 0; i < items.n / 2; i++) {
		struct wj_value other = items.p[i];

		items.p[i] = items.p[items.n - 1 - i];
		items.p[items.n - 1 - i] = other;
	}
	return wj_items_list(m, &items);
}

METHOD(str_splitlines)
{
	struct wj_value v;

	if (!wj_bind(m, "splitlines", args, "keepends", 0, &v))
		return wj_none();
	return wj_split_lines(m, self.s, wj_arg_true(m, v));
}

/* Before, the separator, behind; found at `at` or not (-1). */
static struct wj_value three(struct wj *m, const struct wj_str *s, const struct wj_str *sep,
			     ssize_t at, bool last)
{
	struct wj_list *list = wj_list(m, 3);
	size_t end = at < 0 ? (last ? 0 : s->bytes) : (size_t)at, next = end + sep->bytes;

	if (!list)
		return wj_none();
	if (at < 0)
		next = end;
	list->items[0] = wj_str_borrow(m, s->p, end);
	list->items[1] = wj_str_borrow(m, sep->p, next - end);
	list->items[2] = wj_str_borrow(m, s->p + next, s->bytes - next);
	return wj_list_value(WJ_TUPLE, list);
}

static struct wj_value partition(struct wj *m, struct wj_value self, const struct wj_args *args,
				 bool last)
{
	const struct wj_str *sep = NULL;
	struct wj_value v;

	if (wj_bind(m, "partition", args, "sep", 1, &v))
		sep = wj_arg_str(m, "partition", v);
	if (!sep)
		return wj_none();
	if (!sep->bytes)
		return wj_raise(m, "partition: an empty separator");
	return three(m, self.s, sep,
		     last ? find_last(m, self.s, self.s->bytes, sep) : wj_find(self.s, 0, sep),
		     last);
}

METHOD(str_partition)
{
	return partition(m, self, args, false);
}

METHOD(str_rpartition)
{
	return partition(m, self, args, true);
}

/* --- str: searching ------------------------------------------------------------------------------*/

static bool at_edge(const struct wj_str *s, const struct wj_str *part, bool end)
{
	return s->bytes >= part->bytes &&
	       !memcmp(s->p + (end ? s->bytes - part->bytes : 0), part->p, part->bytes);
}

static struct wj_value edge(struct wj *m, struct wj_value self, const struct wj_args *args,
			    const char *what, bool end)
{
	const struct wj_str *part;

	if (args->n != 1 || args->n_kw)
		return args->n ? wj_refuse(m, "%s: a start and an end are not supported", what)
			       : wj_raise(m, "%s: an argument is needed", what);
	if (wj_is(args->pos[0], WJ_TUPLE)) {
		const struct wj_list *list = args->pos[0].list;

		for (size_t i = 0; i < list->n; i++) {
			part = wj_arg_str(m, what, list->items[i]);
			if (!part)
				return wj_none();
			if (at_edge(self.s, part, end))
				return wj_bool(true);
		}
		return wj_bool(false);
	}
	part = wj_arg_str(m, what, args->pos[0]);
	return part ? wj_bool(at_edge(self.s, part, end)) : wj_none();
}

METHOD(str_startswith)
{
	return edge(m, self, args, "startswith", false);
}

METHOD(str_endswith)
{
	return edge(m, self, args, "endswith", true);
}

static struct wj_value without(struct wj *m, struct wj_value self, const struct wj_args *args,
			       const char *what, bool end)
{
	const struct wj_str *part = NULL;
	struct wj_value v;

	if (wj_bind(m, what, args, "part", 1, &v))
		part = wj_arg_str(m, what, v);
	if (!part || !at_edge(self.s, part, end))
		return self;
	return wj_str_borrow(m, self.s->p + (end ? 0 : part->bytes), self.s->bytes - part->bytes);
}

METHOD(str_removeprefix)
{
	return without(m, self, args, "removeprefix", false);
}

METHOD(str_removesuffix)
{
	return without(m, self, args, "removesuffix", true);
}

static size_t chars_before(const struct wj_str *s, size_t byte)
{
	size_t n = 0;

	for (size_t i = 0; i < byte; i++)
		n += ((unsigned char)s->p[i] & 0xc0) != 0x80;
	return n;
}

static struct wj_value find(struct wj *m, struct wj_value self, const struct wj_args *args,
			    const char *what, bool last, bool must)
{
	const struct wj_str *part;
	size_t from = 0;
	int64_t start;
	ssize_t at;

	if (args->n < 1 || args->n > (last ? 1 : 2) || args->n_kw)
		return args->n ? wj_refuse(m, "%s: an end is not supported", what)
			       : wj_raise(m, "%s: an argument is needed", what);
	part = wj_arg_str(m, what, args->pos[0]);
	if (!part)
		return wj_none();
	wj_step_bytes(m, self.s->bytes);
	if (args->n == 2) {
		start = wj_arg_int(m, what, args->pos[1], 0);
		if (start < 0)
			start += (int64_t)self.s->chars;
		if (start < 0)
			start = 0;
		if (start > (int64_t)self.s->chars)
			return must ? wj_raise(m, "%s: not found", what) : wj_int(-1);
		from = wj_str_offset(self.s, (size_t)start);
	}
	at = last ? find_last(m, self.s, self.s->bytes, part) : wj_find(self.s, from, part);
	if (at < 0)
		return must ? wj_raise(m, "%s: not found", what) : wj_int(-1);
	return wj_int((int64_t)chars_before(self.s, (size_t)at));
}

METHOD(str_find)
{
	return find(m, self, args, "find", false, false);
}

METHOD(str_rfind)
{
	return find(m, self, args, "rfind", true, false);
}

METHOD(str_index)
{
	return find(m, self, args, "index", false, true);
}

METHOD(str_rindex)
{
	return find(m, self, args, "rindex", true, true);
}

METHOD(str_count)
{
	const struct wj_str *part = NULL;
	struct wj_value v;
	int64_t n = 0;
	size_t from = 0;
	ssize_t at;

	if (args->n > 1 && args->n < 4 && !args->n_kw)
		return wj_refuse(m, "count: a start is not supported");
	if (wj_bind(m, "count", args, "sub", 1, &v))
		part = wj_arg_str(m, "count", v);
	if (!part)
		return wj_none();
	if (!part->bytes)
		return wj_int((int64_t)self.s->chars + 1);
	wj_step_bytes(m, self.s->bytes);
	for (; (at = wj_find(self.s, from, part)) >= 0 && wj_step(m, 1); n++)
		from = (size_t)at + part->bytes;
	return wj_int(n);
}

/* --- str: changing -------------------------------------------------------------------------------*/

static bool no_arguments(struct wj *m, const char *what, const struct wj_args *args)
{
	return wj_bind(m, what, args, "", 0, NULL);
}

METHOD(str_upper)
{
	return no_arguments(m, "upper", args) ? wj_recase(m, self.s, WJ_UPPER) : wj_none();
}

METHOD(str_lower)
{
	return no_arguments(m, "lower", args) ? wj_recase(m, self.s, WJ_LOWER) : wj_none();
}

METHOD(str_capitalize)
{
	return no_arguments(m, "capitalize", args) ? wj_recase(m, self.s, WJ_CAPITALIZE)
						   : wj_none();
}

static bool is_ascii(struct wj *m, const struct wj_str *s, const char *what)
{
	if (s->chars != s->bytes)
		wj_refuse(m, "%s of text beyond ASCII is not supported", what);
	return s->chars == s->bytes;
}

static bool letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

METHOD(str_swapcase)
{
	char *p;

	if (!no_arguments(m, "swapcase", args) || !is_ascii(m, self.s, "swapcase"))
		return wj_none();
	p = wj_alloc(m, self.s->bytes);
	for (size_t i = 0; p && i < self.s->bytes; i++)
		p[i] = (char)(self.s->p[i] ^ (letter(self.s->p[i]) ? 32 : 0));
	return p ? wj_str_borrow(m, p, self.s->bytes) : wj_none();
}

METHOD(str_casefold)
{
	if (!no_arguments(m, "casefold", args) || !is_ascii(m, self.s, "casefold"))
		return wj_none();
	return wj_recase(m, self.s, WJ_LOWER);
}

METHOD(str_title)
{
	bool inside = false;
	char *p;

	if (!no_arguments(m, "title", args) || !is_ascii(m, self.s, "title"))
		return wj_none();
	p = wj_alloc(m, self.s->bytes);
	for (size_t i = 0; p && i < self.s->bytes; i++) {
		char c = self.s->p[i];

		p[i] = letter(c) ? (char)(inside ? c | 32 : c & ~32) : c;
		inside = letter(c);
	}
	return p ? wj_str_borrow(m, p, self.s->bytes) : wj_none();
}

METHOD(str_replace)
{
	const struct wj_str *old, *with;
	struct wj_value v[3];

	if (args->n_kw || !wj_bind(m, "replace", args, "old,new,count", 2, v))
		return wj_raise(m, "replace: two or three arguments without names");
	old = wj_arg_str(m, "replace", v[0]);
	with = wj_arg_str(m, "replace", v[1]);
	if (!old || !with)
		return wj_none();
	return wj_replace(m, self.s, old, with, wj_arg_int(m, "replace", v[2], -1));
}

METHOD(str_join)
{
	struct wj_buf b = {0};
	struct wj_value v, item;
	struct wj_iter it;
	size_t n = 0;

	if (!wj_bind(m, "join", args, "iterable", 1, &v) || !wj_iter_init(m, &it, v))
		return wj_none();
	while (wj_next(m, &it, &item)) {
		const struct wj_str *s = wj_arg_str(m, "join", item);

		if (!s)
			break;
		if (n++)
			wj_buf_add(m, &b, self.s->p, self.s->bytes);
		wj_buf_add(m, &b, s->p, s->bytes);
	}
	return wj_buf_take(m, &b);
}

/* One replacement field without attributes, conversions and formats: {}, {0} or {name}. */
static struct wj_value field(struct wj *m, const struct wj_args *args, const char *p, size_t n,
			     size_t *next)
{
	struct wj_str name = {p, n, n};
	int64_t i;

	if (memchr(p, '.', n) || memchr(p, '[', n) || memchr(p, ':', n) || memchr(p, '!', n) ||
	    memchr(p, '{', n))
		return wj_refuse(m, "format: the field '{%.*s}' is not supported",
				 (int)(n > 60 ? 60 : n), p);
	if (!n)
		i = (int64_t)(*next)++;
	else if (*p < '0' || *p > '9')
		i = -1;
	else if (wj_read_int(&name, 10, &i))
		return wj_raise(m, "format: '{%.*s}' has no argument", (int)(n > 60 ? 60 : n), p);
	if (i >= 0 && (size_t)i < args->n)
		return args->pos[i];
	for (size_t k = 0; i < 0 && k < args->n_kw; k++)
		if (wj_str_equal(args->kw[k].name, &name))
			return args->kw[k].value;
	return wj_raise(m, "format: '{%.*s}' has no argument", (int)(n > 60 ? 60 : n), p);
}

METHOD(str_format)
{
	const char *p = self.s->p, *end = p + self.s->bytes;
	struct wj_buf b = {0};
	size_t next = 0;

	while (p < end && wj_step(m, 1)) {
		const char *close;

		if (p + 1 < end && (*p == '{' || *p == '}') && p[1] == *p) {
			wj_buf_add(m, &b, p, 1);
			p += 2;
			continue;
		}
		if (*p != '{' && *p != '}') {
			wj_buf_add(m, &b, p++, 1);
			continue;
		}
		close = *p == '{' ? memchr(p, '}', (size_t)(end - p)) : NULL;
		if (!close) {
			wj_raise(m, "format: a single brace");
			break;
		}
		wj_print(m, &b, field(m, args, p + 1, (size_t)(close - p) - 1, &next));
		p = close + 1;
	}
	return wj_buf_take(m, &b);
}

/* --- str: to a width -----------------------------------------------------------------------------*/

/* `left` and `right` times the fill around the text. */
static struct wj_value padded(struct wj *m, const struct wj_str *s, const struct wj_str *fill,
			      int64_t left, int64_t right)
{
	struct wj_value before = wj_repeat(m, fill, left), after = wj_repeat(m, fill, right);
	struct wj_buf b = {0};

	if (m->code)
		return wj_none();
	wj_buf_add(m, &b, before.s->p, before.s->bytes);
	wj_buf_add(m, &b, s->p, s->bytes);
	wj_buf_add(m, &b, after.s->p, after.s->bytes);
	return wj_buf_take(m, &b);
}

/* What is missing to the width, and what it is filled with; -1: nothing, or an error. */
static int64_t missing(struct wj *m, struct wj_value self, const struct wj_args *args,
		       const char *what, const struct wj_str **ret_fill)
{
	struct wj_value v[2];
	int64_t width;

	if (args->n_kw || !wj_bind(m, what, args, "width,fillchar", 1, v)) {
		wj_raise(m, "%s: a width and a character are needed, without names", what);
		return -1;
	}
	width = wj_arg_int(m, what, v[0], 0);
	*ret_fill = wj_is(v[1], WJ_UNSET) ? wj_str_borrow(m, " ", 1).s : wj_arg_str(m, what, v[1]);
	if (*ret_fill && (*ret_fill)->chars != 1)
		wj_raise(m, "%s: fill with one character", what);
	return m->code || width < (int64_t)self.s->chars ? -1 : width - (int64_t)self.s->chars;
}

METHOD(str_ljust)
{
	const struct wj_str *fill;
	int64_t n = missing(m, self, args, "ljust", &fill);

	return n > 0 ? padded(m, self.s, fill, 0, n) : self;
}

METHOD(str_rjust)
{
	const struct wj_str *fill;
	int64_t n = missing(m, self, args, "rjust", &fill);

	return n > 0 ? padded(m, self.s, fill, n, 0) : self;
}

/* Of an odd number Python puts one more to the left if the width is odd too. */
METHOD(str_center)
{
	const struct wj_str *fill;
	int64_t n = missing(m, self, args, "center", &fill), left;

	if (n <= 0)
		return self;
	left = n / 2 + (n & (n + (int64_t)self.s->chars) & 1);
	return padded(m, self.s, fill, left, n - left);
}

METHOD(str_zfill)
{
	struct wj_value sign = wj_str_borrow(m, "", 0), digits = self, v;
	int64_t n;

	if (args->n_kw || !wj_bind(m, "zfill", args, "width", 1, &v))
		return wj_raise(m, "zfill: a width is needed, without a name");
	n = wj_arg_int(m, "zfill", v, 0) - (int64_t)self.s->chars;
	if (m->code || n <= 0)
		return self;
	if (self.s->bytes && (self.s->p[0] == '-' || self.s->p[0] == '+')) {
		sign = wj_str_borrow(m, self.s->p, 1);
		digits = wj_str_borrow(m, self.s->p + 1, self.s->bytes - 1);
	}
	v = m->code ? v : padded(m, digits.s, wj_str_borrow(m, "0", 1).s, n, 0);
	return m->code ? wj_none() : wj_binary(m, WJ_ADD, sign, v);
}

/* --- str: kinds of characters --------------------------------------------------------------------*/

static struct wj_value all_of(struct wj *m, struct wj_value self, const struct wj_args *args,
			      const char *what, bool letters, bool digits)
{
	if (!no_arguments(m, what, args) || !is_ascii(m, self.s, what))
		return wj_none();
	for (size_t i = 0; i < self.s->bytes; i++) {
		char c = self.s->p[i];

		if (!(letters && letter(c)) && !(digits && c >= '0' && c <= '9'))
			return wj_bool(false);
	}
	return wj_bool(self.s->bytes != 0);
}

METHOD(str_isdigit)
{
	return all_of(m, self, args, "isdigit", false, true);
}

METHOD(str_isalpha)
{
	return all_of(m, self, args, "isalpha", true, false);
}

METHOD(str_isalnum)
{
	return all_of(m, self, args, "isalnum", true, true);
}

METHOD(str_isspace)
{
	if (!no_arguments(m, "isspace", args))
		return wj_none();
	return wj_bool(self.s->bytes && !wj_strip(m, self.s, NULL, true, false).s->bytes);
}

METHOD(str_isascii)
{
	return wj_bool(no_arguments(m, "isascii", args) && self.s->chars == self.s->bytes);
}

/* At least one letter, and none of the other case. */
static struct wj_value one_case(struct wj *m, struct wj_value self, const struct wj_args *args,
				const char *what, char bit)
{
	bool some = false;

	if (!no_arguments(m, what, args) || !is_ascii(m, self.s, what))
		return wj_none();
	for (size_t i = 0; i < self.s->bytes; i++) {
		char c = self.s->p[i];

		if (letter(c) && (c & 32) != bit)
			return wj_bool(false);
		some = some || letter(c);
	}
	return wj_bool(some);
}

METHOD(str_islower)
{
	return one_case(m, self, args, "islower", 32);
}

METHOD(str_isupper)
{
	return one_case(m, self, args, "isupper", 0);
}

/* Capitals begin words and nothing else does. */
METHOD(str_istitle)
{
	bool some = false, inside = false;

	if (!no_arguments(m, "istitle", args) || !is_ascii(m, self.s, "istitle"))
		return wj_none();
	for (size_t i = 0; i < self.s->bytes; i++) {
		char c = self.s->p[i];

		if (letter(c) && inside != ((c & 32) != 0))
			return wj_bool(false);
		inside = letter(c);
		some = some || inside;
	}
	return wj_bool(some);
}

/* --- dict, list and tuple ------------------------------------------------------------------------*/

METHOD(dict_get)
{
	const struct wj_value *found;
	struct wj_value v[2];
	bool bad;

	if (args->n_kw || !wj_bind(m, "get", args, "key,default", 1, v))
		return wj_raise(m, "get: one or two arguments without names");
	found = wj_dict_get(m, self.dict, v[0], &bad);
	if (bad)
		return wj_raise(m, "a %s cannot be a dict's key", wj_kind_name(v[0]));
	if (found)
		return *found;
	return wj_is(v[1], WJ_UNSET) ? wj_none() : v[1];
}

static struct wj_value view(struct wj *m, struct wj_value self, const struct wj_args *args,
			    const char *what, enum wj_view kind)
{
	no_arguments(m, what, args);
	return (struct wj_value){.kind = WJ_VIEW, .sub = (uint8_t)kind, .dict = self.dict};
}

METHOD(dict_keys)
{
	return view(m, self, args, "keys", WJ_KEYS);
}

METHOD(dict_values)
{
	return view(m, self, args, "values", WJ_VALUES);
}

METHOD(dict_items)
{
	return view(m, self, args, "items", WJ_ITEMS);
}

/* Nothing changes a value, so a copy is the value. */
METHOD(copy)
{
	no_arguments(m, "copy", args);
	return self;
}

METHOD(list_count)
{
	struct wj_value v;
	int64_t n = 0;

	if (!wj_bind(m, "count", args, "value", 1, &v))
		return wj_none();
	for (size_t i = 0; i < self.list->n; i++)
		n += wj_equal(m, self.list->items[i], v);
	return wj_int(n);
}

METHOD(list_index)
{
	struct wj_value v;

	if (!wj_bind(m, "index", args, "value", 1, &v))
		return wj_none();
	for (size_t i = 0; i < self.list->n; i++)
		if (wj_equal(m, self.list->items[i], v))
			return wj_int((int64_t)i);
	return wj_raise(m, "index: not in the %s", wj_kind_name(self));
}

/* --- the tables ----------------------------------------------------------------------------------*/

static const struct wj_method of_str[] = {
	{"capitalize", str_capitalize},
	{"casefold", str_casefold},
	{"center", str_center},
	{"count", str_count},
	{"encode", NULL},
	{"endswith", str_endswith},
	{"expandtabs", NULL},
	{"find", str_find},
	{"format", str_format},
	{"format_map", NULL},
	{"index", str_index},
	{"isalnum", str_isalnum},
	{"isalpha", str_isalpha},
	{"isascii", str_isascii},
	{"isdecimal", str_isdigit},
	{"isdigit", str_isdigit},
	{"isidentifier", NULL},
	{"islower", str_islower},
	{"isnumeric", str_isdigit},
	{"isprintable", NULL},
	{"isspace", str_isspace},
	{"istitle", str_istitle},
	{"isupper", str_isupper},
	{"join", str_join},
	{"ljust", str_ljust},
	{"lower", str_lower},
	{"lstrip", str_lstrip},
	{"maketrans", NULL},
	{"partition", str_partition},
	{"removeprefix", str_removeprefix},
	{"removesuffix", str_removesuffix},
	{"replace", str_replace},
	{"rfind", str_rfind},
	{"rindex", str_rindex},
	{"rjust", str_rjust},
	{"rpartition", str_rpartition},
	{"rsplit", str_rsplit},
	{"rstrip", str_rstrip},
	{"split", str_split},
	{"splitlines", str_splitlines},
	{"startswith", str_startswith},
	{"strip", str_strip},
	{"swapcase", str_swapcase},
	{"title", str_title},
	{"translate", NULL},
	{"upper", str_upper},
	{"zfill", str_zfill},
	{NULL, NULL},
};

static const struct wj_method of_dict[] = {
	{"clear", NULL},       {"copy", copy},	    {"fromkeys", NULL},	     {"get", dict_get},
	{"items", dict_items}, {"keys", dict_keys}, {"pop", NULL},	     {"popitem", NULL},
	{"setdefault", NULL},  {"update", NULL},    {"values", dict_values}, {NULL, NULL},
};

static const struct wj_method of_list[] = {
	{"append", NULL}, {"clear", NULL},	 {"copy", copy},   {"count", list_count},
	{"extend", NULL}, {"index", list_index}, {"insert", NULL}, {"pop", NULL},
	{"remove", NULL}, {"reverse", NULL},	 {"sort", NULL},   {NULL, NULL},
};

static const struct wj_method of_tuple[] = {
	{"count", list_count},
	{"index", list_index},
	{NULL, NULL},
};

static const struct wj_method of_number[] = {
	{"as_integer_ratio", NULL}, {"bit_count", NULL},   {"bit_length", NULL},
	{"conjugate", NULL},	    {"denominator", NULL}, {"from_bytes", NULL},
	{"fromhex", NULL},	    {"hex", NULL},	   {"imag", NULL},
	{"is_integer", NULL},	    {"numerator", NULL},   {"real", NULL},
	{"to_bytes", NULL},	    {NULL, NULL},
};

const struct wj_method *wj_method_find(struct wj_value self, const struct wj_str *name)
{
	static const struct wj_method safe = {"(of a string marked safe)", NULL};
	const struct wj_method *list = wj_is(self, WJ_STR)     ? of_str
				       : wj_is(self, WJ_DICT)  ? of_dict
				       : wj_is(self, WJ_LIST)  ? of_list
				       : wj_is(self, WJ_TUPLE) ? of_tuple
				       : wj_is_number(self)    ? of_number
							       : NULL;

	for (; list && list->name; list++)
		if (wj_str_is(name, list->name))
			return wj_is(self, WJ_STR) && self.sub ? &safe : list;
	return NULL;
}
