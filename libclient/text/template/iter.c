/* SPDX-License-Identifier: Apache-2.0 */
/*
 * iter.c - passing over values one item after another.
 *
 * An iterator may have a stage, which makes of each item another one or none; what has stages is a
 * generator, and lazy, as in Jinja: an item that nobody asks for cannot fail.
 */
#include "libclient/text/private.h"
#include "libclient/text/template/template.h"

bool wj_iterable(struct wj_value v)
{
	switch (v.kind) {
	case WJ_UNDEFINED:
	case WJ_STR:
	case WJ_LIST:
	case WJ_TUPLE:
	case WJ_DICT:
	case WJ_VIEW:
	case WJ_RANGE:
	case WJ_ITER:
	case WJ_LOOP:
		return true;
	default:
		return false;
	}
}

bool wj_iter_init(struct wj *m, struct wj_iter *it, struct wj_value over)
{
	*it = (struct wj_iter){.over = over};
	if (wj_is(over, WJ_LOOP))
		wj_refuse(m, "iterating over loop is not supported");
	else if (!wj_iterable(over))
		wj_raise(m, "a %s cannot be iterated", wj_kind_name(over));
	return !m->code;
}

static bool next_pair(struct wj *m, struct wj_iter *it, const struct wj_dict *d, enum wj_view view,
		      struct wj_value *ret)
{
	const struct wj_pair *pair;

	if (it->at >= d->n)
		return false;
	pair = &d->pairs[it->at++];
	if (view == WJ_ITEMS)
		*ret = wj_pair_value(m, pair->key, pair->value);
	else
		*ret = view == WJ_KEYS ? pair->key : pair->value;
	return true;
}

static bool next_char(struct wj *m, struct wj_iter *it, const struct wj_str *s,
		      struct wj_value *ret)
{
	int len;

	if (it->at >= s->bytes)
		return false;
	wt_utf8_next(s->p + it->at, s->bytes - it->at, &len);
	*ret = wj_str_borrow(m, s->p + it->at, (size_t)len);
	it->at += (size_t)len;
	return true;
}

static bool next_raw(struct wj *m, struct wj_iter *it, struct wj_value *ret)
{
	struct wj_value over = it->over;

	switch (over.kind) {
	case WJ_STR:
		return next_char(m, it, over.s, ret);
	case WJ_LIST:
	case WJ_TUPLE:
		if (it->at >= over.list->n)
			return false;
		*ret = over.list->items[it->at++];
		return true;
	case WJ_DICT:
		return next_pair(m, it, over.dict, WJ_KEYS, ret);
	case WJ_VIEW:
		return next_pair(m, it, over.dict, over.sub, ret);
	case WJ_RANGE:
		if ((int64_t)it->at >= over.range->n)
			return false;
		*ret = wj_range_at(over.range, (int64_t)it->at++);
		return true;
	case WJ_ITER:
		return wj_next(m, over.iter, ret);
	default: /* undefined: nothing in it */
		return false;
	}
}

bool wj_next(struct wj *m, struct wj_iter *it, struct wj_value *ret)
{
	bool good = false;

	/* A generator over a generator over .. */
	if (wj_enter(m, WJ_MAX_RUN_DEPTH))
		while (wj_step(m, 1) && next_raw(m, it, ret) && !m->code)
			if (!it->stage || it->stage(m, it, ret)) {
				good = !m->code;
				break;
			}
	wj_leave(m);
	return good;
}

struct wj_value wj_generator(struct wj *m, struct wj_value over, wj_stage_fn stage, void *data)
{
	struct wj_iter *it = wj_alloc(m, sizeof(*it));

	if (!it || !wj_iter_init(m, it, over))
		return wj_none();
	it->stage = stage;
	it->data = data;
	return (struct wj_value){.kind = WJ_ITER, .iter = it};
}
