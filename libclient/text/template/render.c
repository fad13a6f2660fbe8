/* SPDX-License-Identifier: Apache-2.0 */
/*
 * render.c - the calls of weft_text.h: a template from its source, its text for a context.
 */
#include "libclient/text/private.h"
#include "libclient/text/template/template.h"

#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- the "C" locale ------------------------------------------------------------------------------*/

/* printf() and strtod() write and read numbers by the thread's locale. (locale_t)0: cannot be had. */
static locale_t plain_locale(locale_t *ret_before)
{
	locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);

	if (c)
		*ret_before = uselocale(c);
	return c;
}

static void restore_locale(locale_t c, locale_t before)
{
	uselocale(before);
	freelocale(c);
}

/* --- a template ----------------------------------------------------------------------------------*/

/* \r\n and \r become \n, and one line's end at the end goes. */
static char *lines_of(struct wj *m, const char *source, size_t bytes, size_t *ret_n)
{
	char *p = wj_alloc(m, bytes + 1);
	size_t n = 0;

	if (!p)
		return NULL;
	for (size_t i = 0; i < bytes; i++) {
		p[n++] = source[i] == '\r' ? '\n' : source[i];
		if (source[i] == '\r' && i + 1 < bytes && source[i + 1] == '\n')
			i++;
	}
	if (n && p[n - 1] == '\n')
		n--;
	*ret_n = n;
	return p;
}

static int build(struct weft_template *t, const char *source, size_t bytes)
{
	struct wj_token *tokens = NULL;
	size_t n = 0;
	char *text;
	int r;

	if (bytes > WEFT_TEMPLATE_MAX_SOURCE)
		return wj_fail(&t->m, -E2BIG, "%zu bytes; at most %u", bytes,
			       WEFT_TEMPLATE_MAX_SOURCE);
	if (!wt_utf8_valid(source, bytes))
		return wj_fail(&t->m, -EINVAL, "not valid UTF-8");
	text = lines_of(&t->m, source, bytes, &n);
	r = text ? wj_lex(&t->m, text, n, &tokens) : t->m.code;
	return r ? r : wj_parse(t, tokens);
}

static int fail_with(struct weft_error *error, const struct wj *m)
{
	if (m->failed_line)
		return wt_fail(error, m->code, "chat template, line %u: %s", m->failed_line,
			       m->message);
	return wt_fail(error, m->code, "chat template: %s", m->message);
}

int weft_template_new(struct weft_template **ret, const char *source, size_t bytes,
		      struct weft_error *error)
{
	struct weft_template *t = calloc(1, sizeof(*t));
	locale_t before = (locale_t)0, c = plain_locale(&before);
	int r;

	if (!t || !c) {
		if (c)
			restore_locale(c, before);
		free(t);
		return wt_fail(error, -ENOMEM, "chat template: out of memory");
	}
	r = build(t, source, bytes);
	restore_locale(c, before);
	if (r) {
		fail_with(error, &t->m);
		weft_template_free(t);
		return r;
	}
	*ret = t;
	return 0;
}

void weft_template_free(struct weft_template *t)
{
	if (!t)
		return;
	wj_fini(&t->m);
	free(t);
}

/* --- the context ---------------------------------------------------------------------------------*/

static struct wj_value from_json(struct wj *m, json_t *o, uint32_t depth);

static struct wj_value from_array(struct wj *m, json_t *o, uint32_t depth)
{
	struct wj_list *list = wj_list(m, json_array_size(o));

	for (size_t i = 0; list && i < list->n && !m->code; i++)
		list->items[i] = from_json(m, json_array_get(o, i), depth);
	return wj_list_value(WJ_LIST, list);
}

static struct wj_value from_object(struct wj *m, json_t *o, uint32_t depth)
{
	struct wj_dict *d = wj_dict(m, json_object_size(o));
	const char *key;
	json_t *member;

	if (!d)
		return wj_none();
	json_object_foreach(o, key, member)
	{
		struct wj_value name = wj_str_z(m, key), value = from_json(m, member, depth);

		if (m->code || !wj_dict_set(m, d, name, value))
			break;
	}
	return (struct wj_value){.kind = WJ_DICT, .dict = d};
}

static struct wj_value from_json(struct wj *m, json_t *o, uint32_t depth)
{
	if (depth > WJ_MAX_VALUE_DEPTH || !wj_step(m, 1)) {
		wj_fail(m, -ELOOP, "the context is nested more than %u deep", WJ_MAX_VALUE_DEPTH);
		return wj_none();
	}
	switch (json_typeof(o)) {
	case JSON_OBJECT:
		return from_object(m, o, depth + 1);
	case JSON_ARRAY:
		return from_array(m, o, depth + 1);
	case JSON_STRING:
		return wj_str(m, json_string_value(o), json_string_length(o));
	case JSON_INTEGER:
		return wj_int(json_integer_value(o));
	case JSON_REAL:
		return wj_float(json_real_value(o));
	case JSON_NULL:
		return wj_none();
	default:
		return wj_bool(json_is_true(o));
	}
}

/* Jinja's functions, and over them the context's members. */
static void fill_top(struct wj *m, json_t *context)
{
	const struct weft_template *t = m->t;
	json_t *time = json_object_get(context, "strftime_now");

	m->top = wj_alloc(m, (t->n_symbols + 1) * sizeof(*m->top));
	for (uint32_t i = 0; m->top && i < t->n_symbols; i++) {
		const struct wj_str *name = t->names[i];
		json_t *o = json_object_getn(context, name->p, name->bytes);

		m->top[i] = WJ_VALUE(WJ_UNSET);
		for (size_t k = 0; k < wj_n_functions; k++)
			if (wj_str_is(name, wj_functions[k].name))
				m->top[i] = (struct wj_value){.kind = WJ_FUNCTION,
							      .function = &wj_functions[k]};
		if (o && !(o == time && json_is_number(time)))
			m->top[i] = from_json(m, o, 0);
	}
	m->has_time = json_is_number(time);
	m->time = json_number_value(time);
	if (m->has_time && !(fabs(m->time) < 1e11))
		wj_fail(m, -EINVAL, "the context's time is out of range");
}

static json_t *read_context(struct wj *m, const char *context, size_t bytes)
{
	json_error_t je;
	json_t *o;

	if (bytes > WEFT_TEMPLATE_MAX_CONTEXT) {
		wj_fail(m, -E2BIG, "a context of %zu bytes; at most %u", bytes,
			WEFT_TEMPLATE_MAX_CONTEXT);
		return NULL;
	}
	o = json_loadb(context, bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &je);
	if (!o)
		wj_fail(m, -EINVAL, "the context is not valid JSON: %.120s", je.text);
	else if (!json_is_object(o))
		wj_fail(m, -EINVAL, "the context must be a JSON object");
	return o;
}

/* --- rendering -----------------------------------------------------------------------------------*/

static int run(struct wj *m, const char *context, size_t bytes)
{
	json_t *o = read_context(m, context, bytes);

	if (!m->code)
		fill_top(m, o);
	json_decref(o);
	if (!m->code)
		wj_exec(m, &m->t->body);
	/* A zero behind the text, which is not counted. */
	wj_buf_add(m, m->out, "", 1);
	return m->code;
}

int weft_template_render(const struct weft_template *t, const char *context, size_t bytes,
			 char **ret_text, size_t *ret_bytes, struct weft_error *error)
{
	struct wj_buf out = {0};
	struct wj m = {.t = t, .out = &out};
	locale_t before = (locale_t)0, c = plain_locale(&before);
	int r;

	if (!c)
		return wt_fail(error, -ENOMEM, "chat template: out of memory");
	r = run(&m, context, bytes);
	restore_locale(c, before);
	wj_fini(&m);
	if (r) {
		free(out.p);
		return fail_with(error, &m);
	}
	*ret_text = out.p;
	*ret_bytes = out.n - 1;
	return 0;
}
