/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sequences.c - the filters of sequences: map, select and their like, sort, unique, join, sum.
 *
 * map and select give generators. Their stages hold what they were given in the run's arena.
 */
#include "libclient/text/private.h"
#include "libclient/text/template/template.h"

#include <string.h>

/* "a.0.b": members one after another, numbers as indices. */
struct path {
	struct wj_value *parts;
	size_t n;
};

static struct wj_value path_part(struct wj *m, const char *p, size_t n)
{
	struct wj_value v = wj_str(m, p, n);
	int64_t i;

	for (size_t k = 0; k < n; k++)
		if (p[k] < '0' || p[k] > '9')
			return v;
	return n && !wj_read_int(v.s, 10, &i) ? wj_int(i) : v;
}

static void path_read(struct wj *m, struct path *path, struct wj_value v)
{
	struct wj_items parts = {0};
	const char *p, *end, *dot;

	*path = (struct path){0};
	if (wj_is(v, WJ_UNSET) || wj_is(v, WJ_NONE))
		return;
	if (!wj_is(v, WJ_STR)) {
		wj_items_add(m, &parts, v);
	} else {
		p = v.s->p;
		end = p + v.s->bytes;
		do {
			dot = memchr(p, '.', (size_t)(end - p));
			wj_items_add(m, &parts, path_part(m, p, (size_t)((dot ? dot : end) - p)));
			p = dot ? dot + 1 : end;
		} while (dot && wj_step(m, 1));
	}
	*path = (struct path){parts.p, parts.n};
}

/* otherwise: instead of what is undefined; UNSET or None: nothing. */
static struct wj_value path_follow(struct wj *m, const struct path *path, struct wj_value v,
				   struct wj_value otherwise)
{
	for (size_t i = 0; i < path->n && wj_step(m, 1); i++) {
		v = wj_subscript(m, v, path->parts[i]);
		if (wj_is(v, WJ_UNDEFINED) && !wj_is(otherwise, WJ_UNSET) &&
		    !wj_is(otherwise, WJ_NONE))
			v = otherwise;
	}
	return v;
}

static struct wj_value without_case(struct wj *m, struct wj_value v)
{
	return wj_is(v, WJ_STR) ? wj_recase(m, v.s, WJ_LOWER) : v;
}

/* --- map -----------------------------------------------------------------------------------------*/

struct stage {
	struct path path;
	struct wj_value otherwise;
	const struct wj_filter *filter;
	const struct wj_test *test;
	struct wj_args args;
	bool keep; /* what passes the test */
	bool same_case;
	struct wj_dict *seen;
};

static int map_stage(struct wj *m, struct wj_iter *it, struct wj_value *item)
{
	struct stage *s = it->data;

	*item = s->filter ? s->filter->call(m, *item, &s->args)
			  : path_follow(m, &s->path, *item, s->otherwise);
	return 1;
}

static struct stage *stage_new(struct wj *m)
{
	struct stage *s = wj_alloc(m, sizeof(*s));

	if (s)
		*s = (struct stage){0};
	return s;
}

/* An own copy: the generator outlives the call. */
static void keep_args(struct wj *m, struct stage *s, const struct wj_args *args, size_t skip)
{
	size_t n = args->n > skip ? args->n - skip : 0;

	s->args = (struct wj_args){.n = n, .n_kw = args->n_kw};
	s->args.pos = wj_alloc(m, (n + 1) * sizeof(*args->pos));
	s->args.kw = wj_alloc(m, (args->n_kw + 1) * sizeof(*args->kw));
	if (!s->args.pos || !s->args.kw) {
		s->args = (struct wj_args){0};
		return;
	}
	if (n)
		memcpy(s->args.pos, args->pos + skip, n * sizeof(*args->pos));
	if (args->n_kw)
		memcpy(s->args.kw, args->kw, args->n_kw * sizeof(*args->kw));
}

static struct wj_value nothing(struct wj *m)
{
	return wj_generator(m, wj_undefined(WJ_NO_ITEM, NULL), NULL, NULL);
}

WJ_FILTER(wj_filter_map)
{
	struct stage *s = stage_new(m);
	struct wj_value given[2];
	const struct wj_str *name;

	if (!s)
		return wj_none();
	if (!wj_true(m, v))
		return nothing(m);
	if (!args->n) {
		if (!wj_bind(m, "map", args, "attribute,default", 1, given))
			return wj_none();
		path_read(m, &s->path, given[0]);
		s->otherwise = given[1];
		return wj_generator(m, v, map_stage, s);
	}
	name = wj_arg_str(m, "map", args->pos[0]);
	s->filter = name ? wj_filter_find(name) : NULL;
	if (name && !s->filter)
		return wj_refuse(m, "the filter '%.*s' is not supported",
				 (int)(name->bytes > 60 ? 60 : name->bytes), name->p);
	keep_args(m, s, args, 1);
	return wj_generator(m, v, map_stage, s);
}

/* --- select, reject ------------------------------------------------------------------------------*/

static int select_stage(struct wj *m, struct wj_iter *it, struct wj_value *item)
{
	struct stage *s = it->data;
	struct wj_value v = path_follow(m, &s->path, *item, WJ_VALUE(WJ_UNSET));
	bool passes = s->test ? s->test->call(m, v, &s->args) : wj_true(m, v);

	return passes == s->keep;
}

static struct wj_value select_by(struct wj *m, struct wj_value v, const struct wj_args *args,
				 bool attribute, bool keep)
{
	struct stage *s = stage_new(m);
	const struct wj_str *name;

	if (!s)
		return wj_none();
	if (!wj_true(m, v))
		return nothing(m);
	if (args->n < attribute)
		return wj_raise(m, "selectattr: the attribute's name is missing");
	if (attribute)
		path_read(m, &s->path, args->pos[0]);
	s->keep = keep;
	if (args->n > attribute) {
		name = wj_arg_str(m, "select", args->pos[attribute]);
		s->test = name ? wj_test_find(name) : NULL;
		if (name && !s->test)
			return wj_refuse(m, "the test '%.*s' is not supported",
					 (int)(name->bytes > 60 ? 60 : name->bytes), name->p);
		keep_args(m, s, args, 1 + (size_t)attribute);
	}
	return wj_generator(m, v, select_stage, s);
}

WJ_FILTER(wj_filter_select)
{
	return select_by(m, v, args, false, true);
}

WJ_FILTER(wj_filter_reject)
{
	return select_by(m, v, args, false, false);
}

WJ_FILTER(wj_filter_selectattr)
{
	return select_by(m, v, args, true, true);
}

WJ_FILTER(wj_filter_rejectattr)
{
	return select_by(m, v, args, true, false);
}

/* --- unique --------------------------------------------------------------------------------------*/

static int unique_stage(struct wj *m, struct wj_iter *it, struct wj_value *item)
{
	struct stage *s = it->data;
	struct wj_value key = path_follow(m, &s->path, *item, WJ_VALUE(WJ_UNSET));
	uint32_t before = s->seen->n;

	if (!s->same_case)
		key = without_case(m, key);
	return wj_dict_set(m, s->seen, key, wj_none()) && s->seen->n > before;
}

WJ_FILTER(wj_filter_unique)
{
	struct stage *s = stage_new(m);
	struct wj_value given[2];

	if (!s || !wj_bind(m, "unique", args, "case_sensitive,attribute", 0, given))
		return wj_none();
	s->same_case = wj_arg_true(m, given[0]);
	path_read(m, &s->path, given[1]);
	s->seen = wj_dict(m, 0);
	return s->seen ? wj_generator(m, v, unique_stage, s) : wj_none();
}

/* --- sort ----------------------------------------------------------------------------------------*/

/* "a,b" sorts by a, then b: the key is the list of them. */
static struct wj_value sort_key(struct wj *m, struct wj_value v, const struct path *paths, size_t n,
				bool same_case)
{
	struct wj_list *list = wj_list(m, n);

	for (size_t i = 0; list && i < n; i++) {
		struct wj_value part = path_follow(m, &paths[i], v, WJ_VALUE(WJ_UNSET));

		list->items[i] = same_case ? part : without_case(m, part);
	}
	return wj_list_value(WJ_LIST, list);
}

/* The paths of "a,b". */
static size_t sort_paths(struct wj *m, struct wj_value v, struct path *paths, size_t room)
{
	size_t n = 0;
	const char *p, *end, *comma;

	if (!wj_is(v, WJ_STR)) {
		path_read(m, &paths[0], v);
		return 1;
	}
	p = v.s->p;
	end = p + v.s->bytes;
	do {
		comma = memchr(p, ',', (size_t)(end - p));
		if (n == room) {
			wj_refuse(m, "sort by more than %zu attributes is not supported", room);
			return n;
		}
		path_read(m, &paths[n++], wj_str(m, p, (size_t)((comma ? comma : end) - p)));
		p = comma ? comma + 1 : end;
	} while (comma);
	return n;
}

/* A list of its own of v's items, and room for as many keys. */
static struct wj_list *sortable(struct wj *m, struct wj_value v, struct wj_value **ret_keys)
{
	struct wj_value from = wj_listed(m, v);
	struct wj_list *list = m->code ? NULL : wj_list(m, from.list->n);

	if (!list)
		return NULL;
	if (list->n)
		memcpy(list->items, from.list->items, list->n * sizeof(*list->items));
	*ret_keys = wj_alloc(m, (list->n + 1) * sizeof(**ret_keys));
	return *ret_keys ? list : NULL;
}

WJ_FILTER(wj_filter_sort)
{
	struct wj_value given[3], *keys;
	struct path paths[8];
	struct wj_list *list;
	size_t n;

	if (!wj_bind(m, "sort", args, "reverse,case_sensitive,attribute", 0, given))
		return wj_none();
	n = sort_paths(m, given[2], paths, sizeof(paths) / sizeof(*paths));
	list = sortable(m, v, &keys);
	if (!list)
		return wj_none();
	for (size_t i = 0; i < list->n && !m->code; i++)
		keys[i] = sort_key(m, list->items[i], paths, n, wj_arg_true(m, given[1]));
	if (!m->code)
		wj_sort(m, list->items, keys, list->n, wj_arg_true(m, given[0]));
	return wj_list_value(WJ_LIST, list);
}

WJ_FILTER(wj_filter_dictsort)
{
	struct wj_value given[3], *keys;
	struct wj_list *list;
	size_t part = 0;

	if (!wj_bind(m, "dictsort", args, "case_sensitive,by,reverse", 0, given))
		return wj_none();
	if (!wj_is(v, WJ_DICT))
		return wj_is(v, WJ_UNDEFINED) ? wj_use_undefined(m, v)
					      : wj_raise(m, "dictsort: a dict is needed, not a %s",
							 wj_kind_name(v));
	if (!wj_is(given[1], WJ_UNSET)) {
		const struct wj_str *by = wj_arg_str(m, "dictsort", given[1]);

		part = by && wj_str_is(by, "value");
		if (by && !part && !wj_str_is(by, "key"))
			return wj_raise(m, "dictsort: by must be \"key\" or \"value\"");
	}
	v.kind = WJ_VIEW;
	v.sub = WJ_ITEMS;
	list = sortable(m, v, &keys);
	if (!list)
		return wj_none();
	for (size_t i = 0; i < list->n; i++) {
		keys[i] = list->items[i].list->items[part];
		if (!wj_arg_true(m, given[0]))
			keys[i] = without_case(m, keys[i]);
	}
	wj_sort(m, list->items, keys, list->n, wj_arg_true(m, given[2]));
	return wj_list_value(WJ_LIST, list);
}

/* --- one value of many ---------------------------------------------------------------------------*/

WJ_FILTER(wj_filter_join)
{
	struct wj_value given[2], item;
	const struct wj_str *between;
	struct wj_buf b = {0};
	struct wj_iter it;
	struct path path;
	size_t n = 0;

	if (!wj_bind(m, "join", args, "d,attribute", 0, given) || !wj_iter_init(m, &it, v))
		return wj_none();
	between = wj_is(given[0], WJ_UNSET) ? wj_str_borrow(m, "", 0).s : wj_to_str(m, given[0]);
	path_read(m, &path, given[1]);
	while (wj_next(m, &it, &item)) {
		if (n++)
			wj_buf_add(m, &b, between->p, between->bytes);
		wj_print(m, &b, path_follow(m, &path, item, WJ_VALUE(WJ_UNSET)));
	}
	return wj_buf_take(m, &b);
}

static struct wj_value extreme(struct wj *m, struct wj_value v, const struct wj_args *args,
			       enum wj_op better)
{
	struct wj_value given[2], item, key, best = wj_undefined(WJ_NO_ITEM, NULL), best_key = best;
	struct wj_iter it;
	struct path path;
	bool some = false;

	if (!wj_bind(m, "min, max", args, "case_sensitive,attribute", 0, given) ||
	    !wj_iter_init(m, &it, v))
		return wj_none();
	path_read(m, &path, given[1]);
	while (wj_next(m, &it, &item)) {
		key = path_follow(m, &path, item, WJ_VALUE(WJ_UNSET));
		if (!wj_arg_true(m, given[0]))
			key = without_case(m, key);
		if (!some || wj_compare(m, better, key, best_key)) {
			best = item;
			best_key = key;
		}
		some = true;
	}
	return best;
}

WJ_FILTER(wj_filter_min)
{
	return extreme(m, v, args, WJ_LT);
}

WJ_FILTER(wj_filter_max)
{
	return extreme(m, v, args, WJ_GT);
}

WJ_FILTER(wj_filter_sum)
{
	struct wj_value given[2], item, all;
	struct wj_iter it;
	struct path path;

	if (!wj_bind(m, "sum", args, "attribute,start", 0, given) || !wj_iter_init(m, &it, v))
		return wj_none();
	path_read(m, &path, given[0]);
	all = wj_is(given[1], WJ_UNSET) ? wj_int(0) : given[1];
	if (wj_is(all, WJ_STR))
		return wj_raise(m, "sum: strings cannot be summed");
	while (wj_next(m, &it, &item))
		all = wj_binary(m, WJ_ADD, all, path_follow(m, &path, item, WJ_VALUE(WJ_UNSET)));
	return all;
}
