/* SPDX-License-Identifier: Apache-2.0 */
/*
 * value.c - strings, lists and dicts in a run's arena.
 *
 * A string knows its characters as well as its bytes, so that for ASCII, the usual case, an index is
 * an offset. A dict keeps its pairs in order; from nine on a hash table finds them.
 */
#include "libclient/text/private.h"
#include "libclient/text/template/template.h"

#include <string.h>

static const struct wj_str empty = {"", 0, 0};

/* --- strings -------------------------------------------------------------------------------------*/

static size_t count_chars(const char *p, size_t n)
{
	size_t chars = 0;

	for (size_t i = 0; i < n; i++)
		chars += ((unsigned char)p[i] & 0xc0) != 0x80;
	return chars;
}

struct wj_value wj_str_borrow(struct wj *m, const char *p, size_t n)
{
	struct wj_str *s = n ? wj_alloc(m, sizeof(*s)) : NULL;
	struct wj_value v = {.kind = WJ_STR, .s = &empty};

	if (s) {
		*s = (struct wj_str){p, n, count_chars(p, n)};
		wj_step_bytes(m, n);
		v.s = s;
	}
	return v;
}

struct wj_value wj_str(struct wj *m, const char *p, size_t n)
{
	char *copy = n ? wj_alloc(m, n) : NULL;

	if (!copy)
		return (struct wj_value){.kind = WJ_STR, .s = &empty};
	memcpy(copy, p, n);
	return wj_str_borrow(m, copy, n);
}

struct wj_value wj_str_z(struct wj *m, const char *z)
{
	return wj_str(m, z, strlen(z));
}

bool wj_str_equal(const struct wj_str *a, const struct wj_str *b)
{
	return a->bytes == b->bytes && !memcmp(a->p, b->p, a->bytes);
}

bool wj_str_is(const struct wj_str *s, const char *z)
{
	return s->bytes == strlen(z) && !memcmp(s->p, z, s->bytes);
}

size_t wj_str_offset(const struct wj_str *s, size_t at)
{
	size_t i = 0;

	if (s->chars == s->bytes)
		return at;
	if (at == s->chars)
		return s->bytes;
	/* The at-th byte that begins a character, counted from none. */
	for (size_t seen = 0;; i++) {
		if (((unsigned char)s->p[i] & 0xc0) == 0x80)
			continue;
		if (seen++ == at)
			return i;
	}
}

struct wj_value wj_str_chars(struct wj *m, const struct wj_str *s, size_t from, size_t to)
{
	size_t a, b;

	if (from >= to)
		return wj_str_borrow(m, "", 0);
	wj_step_bytes(m, s->chars == s->bytes ? 0 : s->bytes);
	a = wj_str_offset(s, from);
	b = wj_str_offset(s, to);
	return wj_str_borrow(m, s->p + a, b - a);
}

/* --- lists ---------------------------------------------------------------------------------------*/

struct wj_list *wj_list(struct wj *m, size_t n)
{
	struct wj_list *list = wj_alloc(m, sizeof(*list));

	if (!list)
		return NULL;
	*list = (struct wj_list){.n = n};
	if (n > WJ_MAX_MEMORY / sizeof(*list->items)) {
		wj_fail(m, -E2BIG, "a list of more than %u MiB", WJ_MAX_MEMORY >> 20);
		return NULL;
	}
	list->items = n ? wj_alloc(m, n * sizeof(*list->items)) : NULL;
	if ((n && !list->items) || !wj_step(m, 1 + n / 4))
		return NULL;
	for (size_t i = 0; i < n; i++)
		list->items[i] = wj_none();
	return list;
}

struct wj_value wj_list_value(enum wj_kind kind, const struct wj_list *list)
{
	if (!list)
		return wj_none();
	return (struct wj_value){.kind = (uint8_t)kind, .list = list};
}

struct wj_value wj_pair_value(struct wj *m, struct wj_value a, struct wj_value b)
{
	struct wj_list *pair = wj_list(m, 2);

	if (pair) {
		pair->items[0] = a;
		pair->items[1] = b;
	}
	return wj_list_value(WJ_TUPLE, pair);
}

bool wj_items_add(struct wj *m, struct wj_items *items, struct wj_value v)
{
	if (!wj_grow(m, &items->p, items->n, &items->room, sizeof(*items->p)))
		return false;
	items->p[items->n++] = v;
	return true;
}

struct wj_value wj_items_list(struct wj *m, const struct wj_items *items)
{
	struct wj_list *list = wj_alloc(m, sizeof(*list));

	if (list)
		*list = (struct wj_list){items->p, items->n};
	return wj_list_value(WJ_LIST, list);
}

struct wj_value wj_listed(struct wj *m, struct wj_value iterable)
{
	struct wj_items items = {0};
	struct wj_value v;
	struct wj_iter it;

	if (wj_is_list(iterable))
		return wj_list_value(WJ_LIST, iterable.list);
	if (!wj_iter_init(m, &it, iterable))
		return wj_none();
	while (wj_next(m, &it, &v))
		wj_items_add(m, &items, v);
	return wj_items_list(m, &items);
}

/* --- dicts ---------------------------------------------------------------------------------------*/

#define LINEAR 8u

struct wj_dict *wj_dict(struct wj *m, size_t room)
{
	struct wj_dict *d = wj_alloc(m, sizeof(*d));

	if (!d)
		return NULL;
	*d = (struct wj_dict){0};
	if (room > WJ_MAX_MEMORY / sizeof(*d->pairs)) {
		wj_fail(m, -E2BIG, "a dict of more than %u MiB", WJ_MAX_MEMORY >> 20);
		return NULL;
	}
	d->pairs = room ? wj_alloc(m, room * sizeof(*d->pairs)) : NULL;
	if (room && !d->pairs)
		return NULL;
	d->room = (uint32_t)room;
	return d;
}

static void slot_put(struct wj *m, struct wj_dict *d, uint32_t index, uint64_t hash)
{
	uint32_t at = (uint32_t)hash & d->mask;

	while (d->slots[at] && wj_step(m, 1))
		at = (at + 1) & d->mask;
	d->slots[at] = index + 1;
}

static bool rehash(struct wj *m, struct wj_dict *d)
{
	uint32_t n = 32;
	uint64_t hash;

	while (n < 2 * (d->n + 1))
		n *= 2;
	d->slots = wj_alloc(m, (size_t)n * sizeof(*d->slots));
	if (!d->slots)
		return false;
	memset(d->slots, 0, (size_t)n * sizeof(*d->slots));
	d->mask = n - 1;
	for (uint32_t i = 0; i < d->n; i++) {
		if (!wj_hash(m, d->pairs[i].key, &hash))
			return false;
		slot_put(m, d, i, hash);
	}
	return true;
}

/* The pair of a key whose hash is known, or NULL. */
static struct wj_pair *find(struct wj *m, const struct wj_dict *d, struct wj_value key,
			    uint64_t hash)
{
	if (!d->slots) {
		for (uint32_t i = 0; i < d->n; i++)
			if (wj_equal(m, d->pairs[i].key, key))
				return &d->pairs[i];
		return NULL;
	}
	for (uint32_t at = (uint32_t)hash & d->mask; d->slots[at] && wj_step(m, 1);
	     at = (at + 1) & d->mask)
		if (wj_equal(m, d->pairs[d->slots[at] - 1].key, key))
			return &d->pairs[d->slots[at] - 1];
	return NULL;
}

bool wj_dict_set(struct wj *m, struct wj_dict *d, struct wj_value key, struct wj_value value)
{
	struct wj_pair *pair;
	uint64_t hash = 0;

	if (!wj_hash(m, key, &hash)) {
		wj_raise(m, "a %s cannot be a dict's key", wj_kind_name(key));
		return false;
	}
	pair = find(m, d, key, hash);
	if (pair) {
		pair->value = value;
		return !m->code;
	}
	if (m->code || !wj_grow(m, &d->pairs, d->n, &d->room, sizeof(*d->pairs)))
		return false;
	d->pairs[d->n++] = (struct wj_pair){key, value};
	if (d->n <= LINEAR)
		return true;
	if (!d->slots || d->n > d->mask / 4 * 3)
		return rehash(m, d);
	slot_put(m, d, d->n - 1, hash);
	return !m->code;
}

const struct wj_value *wj_dict_get(struct wj *m, const struct wj_dict *d, struct wj_value key,
				   bool *ret_bad)
{
	uint64_t hash;
	struct wj_pair *pair;

	*ret_bad = !wj_hash(m, key, &hash);
	if (*ret_bad)
		return NULL;
	pair = find(m, d, key, hash);
	return pair ? &pair->value : NULL;
}

const struct wj_value *wj_dict_get_str(struct wj *m, const struct wj_dict *d,
				       const struct wj_str *key)
{
	bool bad;

	return wj_dict_get(m, d, (struct wj_value){.kind = WJ_STR, .s = key}, &bad);
}

/* --- names ---------------------------------------------------------------------------------------*/

const char *wj_kind_name(struct wj_value v)
{
	static const char *const names[] = {
		[WJ_UNSET] = "nothing",	    [WJ_UNDEFINED] = "undefined value",
		[WJ_NONE] = "None",	    [WJ_BOOL] = "bool",
		[WJ_INT] = "int",	    [WJ_FLOAT] = "float",
		[WJ_STR] = "str",	    [WJ_LIST] = "list",
		[WJ_TUPLE] = "tuple",	    [WJ_DICT] = "dict",
		[WJ_VIEW] = "dict view",    [WJ_RANGE] = "range",
		[WJ_ITER] = "generator",    [WJ_NAMESPACE] = "namespace",
		[WJ_LOOP] = "loop",	    [WJ_MACRO] = "macro",
		[WJ_FUNCTION] = "function", [WJ_METHOD] = "method",
	};

	return names[v.kind];
}

struct wj_value wj_use_undefined(struct wj *m, struct wj_value v)
{
	static const char *const why[] = {
		[WJ_NO_VARIABLE] = "'%.*s' is undefined",
		[WJ_NO_MEMBER] = "there is no member '%.*s'",
		[WJ_NO_ARGUMENT] = "argument '%.*s' was not given",
		[WJ_NO_ITEM] = "there is no such item%.*s",
		[WJ_NO_ELSE] = "an inline if was false and has no else%.*s",
	};
	const struct wj_str *name = v.s ? v.s : &empty;

	/* The formats are the constants above, each with one length and one string. */
	wj_fail(m, -EINVAL, why[v.sub], (int)(name->bytes > 60 ? 60 : name->bytes), name->p);
	return wj_none();
}
