/* SPDX-License-Identifier: Apache-2.0 */
/*
 * eval.c - expressions to values. One function for each kind of node, so that a level of evaluation
 * takes little of the stack; levels are counted.
 */
#include "libclient/text/private.h"
#include "libclient/text/template/template.h"

#define EVAL(f) \
	static __attribute__((noinline)) struct wj_value f(struct wj *m, const struct wj_node *node)

/* --- names ---------------------------------------------------------------------------------------*/

static struct wj_value unknown(struct wj *m, const struct wj_node *node)
{
	const struct wj_str *name = m->t->names[node->symbol];

	if (wj_name_refused(name))
		return wj_refuse(m, "'%.*s' is not supported", (int)name->bytes, name->p);
	return wj_undefined(WJ_NO_VARIABLE, name);
}

EVAL(eval_name)
{
	for (const struct wj_scope *s = m->scope; s; s = s->parent) {
		for (uint32_t i = s->n; i-- > 0;)
			if (s->vars[i].symbol == node->symbol)
				return s->vars[i].value;
		if (!wj_step(m, s->n / 8))
			return wj_none();
	}
	if (wj_is(m->top[node->symbol], WJ_UNSET))
		return unknown(m, node);
	return m->top[node->symbol];
}

/* --- literals ------------------------------------------------------------------------------------*/

EVAL(eval_list)
{
	struct wj_list *list = wj_list(m, node->list.n);

	for (uint32_t i = 0; list && i < node->list.n; i++)
		list->items[i] = wj_eval(m, node->list.list[i]);
	return wj_list_value(node->type == WJ_N_LIST ? WJ_LIST : WJ_TUPLE, list);
}

EVAL(eval_dict)
{
	struct wj_dict *d = wj_dict(m, node->list.n / 2);

	for (uint32_t i = 0; d && i < node->list.n && !m->code; i += 2) {
		struct wj_value key = wj_eval(m, node->list.list[i]);
		struct wj_value value = wj_eval(m, node->list.list[i + 1]);

		wj_dict_set(m, d, key, value);
	}
	return d ? (struct wj_value){.kind = WJ_DICT, .dict = d} : wj_none();
}

/* --- members -------------------------------------------------------------------------------------*/

EVAL(eval_attr)
{
	struct wj_value v = wj_eval(m, node->a);

	m->line = node->line;
	return m->code ? v : wj_attribute(m, v, node->value.s);
}

EVAL(eval_item)
{
	struct wj_value v = wj_eval(m, node->a), key = wj_eval(m, node->b);

	m->line = node->line;
	return m->code ? v : wj_subscript(m, v, key);
}

EVAL(eval_slice)
{
	struct wj_value v = wj_eval(m, node->a), part[3];

	for (int i = 0; i < 3; i++)
		part[i] = wj_eval(m, node->list.list[i]);
	m->line = node->line;
	return m->code ? v : wj_slice(m, v, part[0], part[1], part[2]);
}

/* --- calls, filters, tests -----------------------------------------------------------------------*/

static bool eval_args(struct wj *m, const struct wj_node *node, struct wj_args *args)
{
	*args = (struct wj_args){0};
	if (node->list.n) {
		args->pos = wj_alloc(m, node->list.n * sizeof(*args->pos));
		args->n = args->pos ? node->list.n : 0;
	}
	if (node->n_kw) {
		args->kw = wj_alloc(m, node->n_kw * sizeof(*args->kw));
		args->n_kw = args->kw ? node->n_kw : 0;
	}
	for (size_t i = 0; i < args->n; i++)
		args->pos[i] = wj_eval(m, node->list.list[i]);
	for (size_t i = 0; i < args->n_kw; i++)
		args->kw[i] = (struct wj_keyword){node->kw[i].name, wj_eval(m, node->kw[i].node)};
	m->line = node->line;
	return !m->code;
}

struct wj_value wj_call(struct wj *m, struct wj_value f, const struct wj_args *args)
{
	switch (f.kind) {
	case WJ_MACRO:
		return wj_call_macro(m, f.macro, args);
	case WJ_FUNCTION:
		return f.function->call(m, args);
	case WJ_METHOD:
		return f.bound->method->call(m, f.bound->self, args);
	case WJ_UNDEFINED:
		return wj_use_undefined(m, f);
	default:
		return wj_raise(m, "a %s cannot be called", wj_kind_name(f));
	}
}

EVAL(eval_call)
{
	struct wj_value f = wj_eval(m, node->a);
	struct wj_args args;

	return !m->code && eval_args(m, node, &args) ? wj_call(m, f, &args) : wj_none();
}

/* The block's text goes through the filters from the innermost on. */
__attribute__((noinline)) struct wj_value wj_eval_filter(struct wj *m, const struct wj_node *node,
							 struct wj_value v)
{
	struct wj_args args;

	if (wj_enter(m, WJ_MAX_RUN_DEPTH) && node->a)
		v = node->a->type == WJ_N_FILTER ? wj_eval_filter(m, node->a, v)
						 : wj_eval(m, node->a);
	if (!m->code && eval_args(m, node, &args))
		v = node->filter->call(m, v, &args);
	wj_leave(m);
	return v;
}

EVAL(eval_test)
{
	struct wj_value v = wj_eval(m, node->a);
	struct wj_args args;

	if (m->code || !eval_args(m, node, &args))
		return wj_none();
	return wj_bool(node->test->call(m, v, &args));
}

/* --- operators -----------------------------------------------------------------------------------*/

EVAL(eval_binary)
{
	struct wj_value a = wj_eval(m, node->a), b = wj_eval(m, node->b);

	m->line = node->line;
	return m->code ? a : wj_binary(m, node->op, a, b);
}

EVAL(eval_either)
{
	struct wj_value v = wj_eval(m, node->a);

	if (m->code || wj_true(m, v) == (node->type == WJ_N_OR))
		return v;
	return wj_eval(m, node->b);
}

EVAL(eval_one)
{
	struct wj_value v = wj_eval(m, node->a);

	m->line = node->line;
	if (m->code)
		return v;
	if (node->type == WJ_N_NOT)
		return wj_bool(!wj_true(m, v));
	return wj_negate(m, v, node->type == WJ_N_MINUS);
}

EVAL(eval_if_else)
{
	bool yes = wj_true(m, wj_eval(m, node->a));

	if (m->code)
		return wj_none();
	if (yes)
		return wj_eval(m, node->b);
	return node->c ? wj_eval(m, node->c) : wj_undefined(WJ_NO_ELSE, NULL);
}

EVAL(eval_concat)
{
	struct wj_buf b = {0};

	for (uint32_t i = 0; i < node->list.n && !m->code; i++) {
		struct wj_value v = wj_eval(m, node->list.list[i]);

		m->line = node->line;
		if (!m->code)
			wj_print(m, &b, v);
	}
	return wj_buf_take(m, &b);
}

EVAL(eval_compare)
{
	struct wj_value a = wj_eval(m, node->a), b;
	bool holds = true;

	for (uint32_t i = 0; i < node->list.n && holds && !m->code; i++) {
		b = wj_eval(m, node->list.list[i]);
		m->line = node->line;
		if (m->code)
			break;
		if (node->ops[i] == WJ_IN || node->ops[i] == WJ_NOT_IN)
			holds = wj_contains(m, b, a) == (node->ops[i] == WJ_IN);
		else
			holds = wj_compare(m, node->ops[i], a, b);
		a = b;
	}
	return wj_bool(holds);
}

/* --- the whole -----------------------------------------------------------------------------------*/

static struct wj_value eval(struct wj *m, const struct wj_node *node)
{
	switch (node->type) {
	case WJ_N_NAME:
		return eval_name(m, node);
	case WJ_N_LIST:
	case WJ_N_TUPLE:
		return eval_list(m, node);
	case WJ_N_DICT:
		return eval_dict(m, node);
	case WJ_N_ATTR:
		return eval_attr(m, node);
	case WJ_N_ITEM:
		return eval_item(m, node);
	case WJ_N_SLICE:
		return eval_slice(m, node);
	case WJ_N_CALL:
		return eval_call(m, node);
	case WJ_N_FILTER:
		return wj_eval_filter(m, node, wj_none());
	case WJ_N_TEST:
		return eval_test(m, node);
	case WJ_N_AND:
	case WJ_N_OR:
		return eval_either(m, node);
	case WJ_N_NOT:
	case WJ_N_MINUS:
	case WJ_N_PLUS:
		return eval_one(m, node);
	case WJ_N_IF_ELSE:
		return eval_if_else(m, node);
	case WJ_N_CONCAT:
		return eval_concat(m, node);
	case WJ_N_BINARY:
		return eval_binary(m, node);
	default: /* WJ_N_COMPARE */
		return eval_compare(m, node);
	}
}

struct wj_value wj_eval(struct wj *m, const struct wj_node *node)
{
	struct wj_value v = wj_none();

	if (node->type == WJ_N_CONST)
		return node->value;
	if (wj_enter(m, WJ_MAX_RUN_DEPTH) && wj_step(m, 1)) {
		m->line = node->line;
		v = eval(m, node);
	}
	wj_leave(m);
	return v;
}
