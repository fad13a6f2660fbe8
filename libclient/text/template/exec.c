/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exec.c - statements: output, conditions, loops, assignments, macros.
 *
 * Scopes: a loop's body, a gathered block, `with` and a macro have one each, in which assignments
 * stay; `if` has none. A loop's scope begins anew with each item. A macro's scope hangs under the
 * one that it was defined in.
 */
#include "libclient/text/private.h"
#include "libclient/text/template/template.h"

/* --- variables -----------------------------------------------------------------------------------*/

static void set(struct wj *m, uint32_t symbol, struct wj_value v)
{
	struct wj_scope *s = m->scope;

	if (!s) {
		m->top[symbol] = v;
		return;
	}
	wj_step(m, 1 + s->n / 8);
	for (uint32_t i = 0; i < s->n; i++)
		if (s->vars[i].symbol == symbol) {
			s->vars[i].value = v;
			return;
		}
	if (wj_grow(m, &s->vars, s->n, &s->room, sizeof(*s->vars)))
		s->vars[s->n++] = (struct wj_var){symbol, v};
}

/* A new scope under `parent`, which becomes the current one; NULL: an error. */
static struct wj_scope *push(struct wj *m, struct wj_scope *parent)
{
	struct wj_scope *s = wj_alloc(m, sizeof(*s));

	if (!s)
		return NULL;
	*s = (struct wj_scope){.parent = parent};
	m->scope = s;
	return s;
}

static void set_member(struct wj *m, const struct wj_node *target, struct wj_value v)
{
	struct wj_node name = {.type = WJ_N_NAME, .symbol = target->symbol, .line = target->line};
	struct wj_value ns = wj_eval(m, &name);
	const struct wj_str *member = target->value.s;

	if (m->code)
		return;
	if (!wj_is(ns, WJ_NAMESPACE))
		wj_raise(m, "a member of a %s cannot be assigned to, only of a namespace",
			 wj_kind_name(ns));
	else if (member->p[0] == '_')
		wj_raise(m, "a namespace's member must not begin with '_'");
	else
		wj_dict_set(m, ns.dict, target->value, v);
}

static void assign(struct wj *m, const struct wj_node *target, struct wj_value v)
{
	struct wj_value list;

	if (m->code)
		return;
	if (target->type == WJ_N_NAME) {
		set(m, target->symbol, v);
		return;
	}
	if (target->type == WJ_N_MEMBER) {
		set_member(m, target, v);
		return;
	}
	list = wj_listed(m, v);
	if (m->code)
		return;
	if (list.list->n != target->list.n) {
		wj_raise(m, "%zu values for %u names", list.list->n, target->list.n);
		return;
	}
	for (uint32_t i = 0; i < target->list.n; i++)
		assign(m, target->list.list[i], list.list->items[i]);
}

/* --- loops ---------------------------------------------------------------------------------------*/

/* The next item that passes the loop's filter. */
static bool pull(struct wj *m, struct wj_loop *loop, struct wj_value *ret)
{
	struct wj_scope *before = m->scope;
	bool good = false;

	while (!good && wj_next(m, &loop->it, ret)) {
		good = !loop->tested;
		if (good || !push(m, loop->outer))
			break;
		assign(m, loop->node->a, *ret);
		good = wj_true(m, wj_eval(m, loop->node->c)) && !m->code;
	}
	m->scope = before;
	return good && !m->code;
}

bool wj_loop_next(struct wj *m, struct wj_loop *loop, struct wj_value *ret)
{
	if (loop->has_after)
		*ret = loop->after;
	else if (!pull(m, loop, ret))
		return false;
	loop->has_after = false;
	loop->index0++;
	loop->before = loop->current;
	loop->current = *ret;
	return true;
}

static int64_t loop_length(struct wj *m, struct wj_loop *loop)
{
	struct wj_items rest = {0};
	struct wj_value v;

	if (loop->length >= 0)
		return loop->length;
	/* How many there will be is known when all are there. */
	while (pull(m, loop, &v))
		wj_items_add(m, &rest, v);
	loop->tested = false;
	wj_iter_init(m, &loop->it, wj_items_list(m, &rest));
	loop->length = loop->index0 + 1 + loop->has_after + (int64_t)rest.n;
	return loop->length;
}

static bool has_next(struct wj *m, struct wj_loop *loop)
{
	if (!loop->has_after)
		loop->has_after = pull(m, loop, &loop->after);
	return loop->has_after;
}

static struct wj_value loop_cycle(struct wj *m, struct wj_value self, const struct wj_args *args)
{
	if (!args->n || args->n_kw)
		return wj_raise(m, "cycle: nothing to choose from");
	return args->pos[(size_t)self.loop->index0 % args->n];
}

static struct wj_value loop_changed(struct wj *m, struct wj_value self, const struct wj_args *args)
{
	struct wj_loop *loop = self.loop;
	struct wj_list *list = wj_list(m, args->n);
	struct wj_value now = wj_list_value(WJ_TUPLE, list);

	for (size_t i = 0; list && i < args->n; i++)
		list->items[i] = args->pos[i];
	if (!wj_is(loop->changed, WJ_UNSET) && wj_equal(m, loop->changed, now))
		return wj_bool(false);
	loop->changed = now;
	return wj_bool(true);
}

static struct wj_value loop_method(struct wj *m, struct wj_value loop,
				   const struct wj_method *method)
{
	struct wj_bound *b = wj_alloc(m, sizeof(*b));

	if (!b)
		return wj_none();
	*b = (struct wj_bound){loop, method};
	return (struct wj_value){.kind = WJ_METHOD, .bound = b};
}

struct wj_value wj_loop_member(struct wj *m, struct wj_value v, const struct wj_str *name)
{
	static const struct wj_method cycle = {"cycle", loop_cycle};
	static const struct wj_method changed = {"changed", loop_changed};
	struct wj_loop *loop = v.loop;

	if (wj_str_is(name, "index"))
		return wj_int(loop->index0 + 1);
	if (wj_str_is(name, "index0"))
		return wj_int(loop->index0);
	if (wj_str_is(name, "first"))
		return wj_bool(!loop->index0);
	if (wj_str_is(name, "last"))
		return wj_bool(!has_next(m, loop));
	if (wj_str_is(name, "length"))
		return wj_int(loop_length(m, loop));
	if (wj_str_is(name, "revindex"))
		return wj_int(loop_length(m, loop) - loop->index0);
	if (wj_str_is(name, "revindex0"))
		return wj_int(loop_length(m, loop) - loop->index0 - 1);
	if (wj_str_is(name, "previtem"))
		return loop->index0 ? loop->before : wj_undefined(WJ_NO_ITEM, NULL);
	if (wj_str_is(name, "nextitem"))
		return has_next(m, loop) ? loop->after : wj_undefined(WJ_NO_ITEM, NULL);
	if (wj_str_is(name, "depth"))
		return wj_int(1);
	if (wj_str_is(name, "depth0"))
		return wj_int(0);
	if (wj_str_is(name, "cycle"))
		return loop_method(m, v, &cycle);
	if (wj_str_is(name, "changed"))
		return loop_method(m, v, &changed);
	if (name->bytes && name->p[0] == '_')
		return wj_refuse(m, "loop's inner members are not supported");
	return WJ_VALUE(WJ_UNSET);
}

static struct wj_loop *loop_new(struct wj *m, const struct wj_node *node)
{
	struct wj_value over = wj_eval(m, node->b);
	struct wj_loop *loop = m->code ? NULL : wj_alloc(m, sizeof(*loop));

	if (!loop)
		return NULL;
	*loop = (struct wj_loop){.node = node, .outer = m->scope, .index0 = -1};
	m->line = node->line;
	if (!wj_iter_init(m, &loop->it, over))
		return NULL;
	loop->tested = node->c != NULL;
	loop->length = loop->tested ? -1 : wj_length(over);
	loop->changed = WJ_VALUE(WJ_UNSET);
	return loop;
}

static __attribute__((noinline)) enum wj_flow exec_for(struct wj *m, const struct wj_node *node)
{
	struct wj_scope *before = m->scope, *own;
	struct wj_loop *loop = loop_new(m, node);
	bool completed = false;
	struct wj_value v;
	enum wj_flow flow;

	own = loop ? push(m, before) : NULL;
	while (own && wj_loop_next(m, loop, &v)) {
		own->n = 0;
		m->scope = own;
		set(m, m->t->loop_symbol, (struct wj_value){.kind = WJ_LOOP, .loop = loop});
		assign(m, node->a, v);
		flow = wj_exec(m, &node->bodies[0]);
		m->scope = before;
		if (flow == WJ_LEAVE)
			break;
		/* As in Jinja, `else` follows unless a body came to its end. */
		completed = completed || flow == WJ_ON;
	}
	m->scope = before;
	if (completed || node->n_bodies == 1 || !own || !push(m, before))
		return WJ_ON;
	flow = wj_exec(m, &node->bodies[1]);
	m->scope = before;
	return flow;
}

/* --- text that is gathered -----------------------------------------------------------------------*/

static struct wj_value gather(struct wj *m, const struct wj_body *body)
{
	struct wj_buf b = {0}, *out = m->out;

	m->out = &b;
	wj_exec(m, body);
	m->out = out;
	return wj_buf_take(m, &b);
}

static __attribute__((noinline)) void exec_gathered(struct wj *m, const struct wj_node *node)
{
	struct wj_scope *before = m->scope;
	struct wj_value v;

	if (!push(m, before))
		return;
	v = gather(m, &node->bodies[0]);
	/* The filters are in the block's scope. */
	if (node->b && !m->code)
		v = wj_eval_filter(m, node->b, v);
	m->scope = before;
	if (m->code)
		return;
	if (node->type == WJ_N_SET_BLOCK)
		assign(m, node->a, v);
	else
		wj_print(m, m->out, v);
}

static __attribute__((noinline)) void exec_with(struct wj *m, const struct wj_node *node)
{
	struct wj_scope *before = m->scope, *own = push(m, before);

	for (uint32_t i = 0; own && i < node->list.n && !m->code; i += 2) {
		struct wj_value v;

		m->scope = before;
		v = wj_eval(m, node->list.list[i + 1]);
		m->scope = own;
		assign(m, node->list.list[i], v);
	}
}

/* --- macros --------------------------------------------------------------------------------------*/

static void define(struct wj *m, const struct wj_node *node)
{
	struct wj_macro *macro = wj_alloc(m, sizeof(*macro));

	if (!macro)
		return;
	*macro = (struct wj_macro){node, m->scope};
	set(m, node->symbol, (struct wj_value){.kind = WJ_MACRO, .macro = macro});
}

/* Keywords that are no parameters: a dict for kwargs, or an error. */
static void rest_by_name(struct wj *m, const struct wj_node *node, const struct wj_args *args,
			 const bool *used)
{
	struct wj_dict *d = wj_dict(m, 0);

	for (size_t i = 0; i < args->n_kw && d; i++) {
		const struct wj_str *name = args->kw[i].name;

		if (used[i])
			continue;
		if (!node->kwargs) {
			wj_raise(m, "the macro has no parameter '%.*s', or it is given twice",
				 (int)(name->bytes > 60 ? 60 : name->bytes), name->p);
			return;
		}
		wj_dict_set(m, d, (struct wj_value){.kind = WJ_STR, .s = name}, args->kw[i].value);
	}
	if (node->kwargs && d)
		set(m, m->t->kwargs_symbol, (struct wj_value){.kind = WJ_DICT, .dict = d});
}

static void rest_by_place(struct wj *m, const struct wj_node *node, const struct wj_args *args)
{
	size_t n = args->n > node->n_symbols ? args->n - node->n_symbols : 0;
	struct wj_list *list;

	if (!node->varargs) {
		if (n)
			wj_raise(m, "the macro takes at most %u arguments", node->n_symbols);
		return;
	}
	list = wj_list(m, n);
	for (size_t i = 0; list && i < n; i++)
		list->items[i] = args->pos[node->n_symbols + i];
	set(m, m->t->varargs_symbol, wj_list_value(WJ_TUPLE, list));
}

/* The value that a parameter is called with, or UNSET. */
static struct wj_value given(struct wj *m, const struct wj_node *node, uint32_t i,
			     const struct wj_args *args, bool *used)
{
	if (i < args->n)
		return args->pos[i];
	for (size_t k = 0; k < args->n_kw; k++)
		if (wj_str_equal(args->kw[k].name, m->t->names[node->symbols[i]])) {
			used[k] = true;
			return args->kw[k].value;
		}
	return WJ_VALUE(WJ_UNSET);
}

static void bind(struct wj *m, const struct wj_node *node, const struct wj_args *args)
{
	bool *used = wj_alloc(m, args->n_kw + 1);

	if (!used)
		return;
	for (size_t k = 0; k < args->n_kw; k++)
		used[k] = false;
	for (uint32_t i = 0; i < node->n_symbols; i++)
		set(m, node->symbols[i], given(m, node, i, args, used));
	rest_by_name(m, node, args, used);
	rest_by_place(m, node, args);
	/* Defaults see the parameters before them. */
	for (uint32_t i = 0; i < node->n_symbols && !m->code; i++) {
		uint32_t first = node->n_symbols - node->list.n;
		struct wj_value *v = &m->scope->vars[i].value;

		if (!wj_is(*v, WJ_UNSET))
			continue;
		*v = wj_undefined(WJ_NO_ARGUMENT, m->t->names[node->symbols[i]]);
		if (i >= first) {
			struct wj_value made = wj_eval(m, node->list.list[i - first]);

			m->scope->vars[i].value = made;
		}
	}
}

__attribute__((noinline)) struct wj_value wj_call_macro(struct wj *m, const struct wj_macro *macro,
							const struct wj_args *args)
{
	struct wj_scope *before = m->scope;
	struct wj_value v = wj_none();

	if (wj_enter(m, WJ_MAX_RUN_DEPTH) && push(m, macro->scope)) {
		bind(m, macro->node, args);
		if (!m->code)
			v = gather(m, &macro->node->bodies[0]);
	}
	m->scope = before;
	wj_leave(m);
	return v;
}

/* --- the whole -----------------------------------------------------------------------------------*/

static __attribute__((noinline)) enum wj_flow exec_if(struct wj *m, const struct wj_node *node)
{
	for (uint32_t i = 0; i < node->list.n; i++) {
		bool yes = wj_true(m, wj_eval(m, node->list.list[i]));

		if (m->code)
			return WJ_ON;
		if (yes)
			return wj_exec(m, &node->bodies[i]);
	}
	if (node->n_bodies > node->list.n)
		return wj_exec(m, &node->bodies[node->list.n]);
	return WJ_ON;
}

static __attribute__((noinline)) void exec_print(struct wj *m, const struct wj_node *node)
{
	struct wj_value v = wj_eval(m, node->a);

	m->line = node->line;
	if (!m->code)
		wj_print(m, m->out, v);
}

static enum wj_flow exec_scoped(struct wj *m, const struct wj_node *node)
{
	struct wj_scope *before = m->scope;
	enum wj_flow flow = WJ_ON;

	if (node->type == WJ_N_WITH)
		exec_with(m, node);
	else
		push(m, before);
	if (!m->code)
		flow = wj_exec(m, &node->bodies[0]);
	m->scope = before;
	return flow;
}

static enum wj_flow exec_node(struct wj *m, const struct wj_node *node)
{
	switch (node->type) {
	case WJ_N_DATA:
		wj_buf_add(m, m->out, node->value.s->p, node->value.s->bytes);
		break;
	case WJ_N_PRINT:
		exec_print(m, node);
		break;
	case WJ_N_IF:
		return exec_if(m, node);
	case WJ_N_FOR:
		return exec_for(m, node);
	case WJ_N_SET:
		assign(m, node->a, wj_eval(m, node->b));
		break;
	case WJ_N_SET_BLOCK:
	case WJ_N_FILTER_BLOCK:
		exec_gathered(m, node);
		break;
	case WJ_N_WITH:
	case WJ_N_SCOPE:
		return exec_scoped(m, node);
	case WJ_N_MACRO:
		define(m, node);
		break;
	case WJ_N_BREAK:
		return WJ_LEAVE;
	default: /* WJ_N_CONTINUE */
		return WJ_AGAIN;
	}
	return WJ_ON;
}

enum wj_flow wj_exec(struct wj *m, const struct wj_body *body)
{
	enum wj_flow flow = WJ_ON;

	if (wj_enter(m, WJ_MAX_RUN_DEPTH))
		for (uint32_t i = 0; i < body->n && flow == WJ_ON && wj_step(m, 1); i++) {
			m->line = body->list[i]->line;
			flow = exec_node(m, body->list[i]);
		}
	wj_leave(m);
	return flow;
}
