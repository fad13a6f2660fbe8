/* SPDX-License-Identifier: Apache-2.0 */
/*
 * parse.c - statements: tokens to the tree of a template. The tree lies in the template's arena.
 *
 * The statements that Jinja has and chat templates do without (include, extends, block, call, ..)
 * are refused by name.
 */
#include "libclient/text/private.h"
#include "libclient/text/template/template.h"

#include <string.h>

static bool statements(struct wj_parser *p, struct wj_body *body, const char *const *ends);

/* --- tools ---------------------------------------------------------------------------------------*/

struct wj_node *wj_node(struct wj_parser *p, enum wj_node_type type, uint32_t line)
{
	struct wj_node *node = wj_alloc(p->m, sizeof(*node));

	if (node)
		*node = (struct wj_node){.type = (uint8_t)type, .line = line, .depth = 1};
	return p->m->code ? NULL : node;
}

struct wj_node *wj_deepen(struct wj_parser *p, struct wj_node *node, const struct wj_node *child)
{
	if (!node || !child)
		return NULL;
	if (child->depth >= node->depth)
		node->depth = (uint16_t)(child->depth + 1);
	if (node->depth > 2 * WJ_MAX_TREE_DEPTH) {
		wj_fail(p->m, -ELOOP, "an expression nested more than %u deep",
			2 * WJ_MAX_TREE_DEPTH);
		return NULL;
	}
	return node;
}

bool wj_body_add(struct wj_parser *p, struct wj_body *b, struct wj_node *node)
{
	if (!node || !wj_grow(p->m, &b->list, b->n, &b->room, sizeof(*b->list)))
		return false;
	b->list[b->n++] = node;
	return true;
}

uint32_t wj_symbol(struct wj_parser *p, const char *name, size_t n)
{
	struct wj_value key = wj_str(p->m, name, n);
	const struct wj_value *known = wj_dict_get_str(p->m, p->symbols, key.s);
	uint32_t symbol = p->t->n_symbols;

	if (known)
		return (uint32_t)known->i;
	if (!wj_dict_set(p->m, p->symbols, key, wj_int(symbol)) ||
	    !wj_grow(p->m, &p->t->names, symbol, &p->names_room, sizeof(*p->t->names)))
		return 0;
	p->t->names[p->t->n_symbols++] = key.s;
	return symbol;
}

void wj_advance(struct wj_parser *p)
{
	if (p->at->type != WJ_T_END)
		p->at++;
	p->m->line = p->at->line;
	wj_step(p->m, 1);
}

bool wj_is_op(const struct wj_parser *p, const char *op)
{
	return p->at->type == WJ_T_OP && p->at->n == strlen(op) && !memcmp(p->at->op, op, p->at->n);
}

bool wj_is_name(const struct wj_parser *p, const char *name)
{
	return p->at->type == WJ_T_NAME && p->at->n == strlen(name) &&
	       !memcmp(p->at->p, name, p->at->n);
}

bool wj_skip_op(struct wj_parser *p, const char *op)
{
	bool is = wj_is_op(p, op);

	if (is)
		wj_advance(p);
	return is;
}

bool wj_skip_name(struct wj_parser *p, const char *name)
{
	bool is = wj_is_name(p, name);

	if (is)
		wj_advance(p);
	return is;
}

struct wj_node *wj_unexpected(struct wj_parser *p, const char *wanted)
{
	const struct wj_token *t = p->at;

	if (t->type == WJ_T_END)
		wj_raise(p->m, "the template ends where %s should be", wanted);
	else if (t->type == WJ_T_VAR_END || t->type == WJ_T_BLOCK_END)
		wj_raise(p->m, "the tag ends where %s should be", wanted);
	else
		wj_raise(p->m, "'%.*s' where %s should be", (int)(t->n > 40 ? 40 : t->n), t->p,
			 wanted);
	return NULL;
}

bool wj_expect_op(struct wj_parser *p, const char *op)
{
	char wanted[8] = "'";

	if (p->m->code)
		return false;
	if (wj_skip_op(p, op))
		return true;
	strcat(strcat(wanted, op), "'");
	wj_unexpected(p, wanted);
	return false;
}

static bool expect_name(struct wj_parser *p, const char *name)
{
	if (p->m->code)
		return false;
	if (!wj_skip_name(p, name))
		wj_unexpected(p, name);
	return !p->m->code;
}

static bool block_end(struct wj_parser *p)
{
	if (p->m->code)
		return false;
	if (p->at->type != WJ_T_BLOCK_END) {
		wj_unexpected(p, "the tag's end");
		return false;
	}
	wj_advance(p);
	return true;
}

/* --- bodies --------------------------------------------------------------------------------------*/

static bool at_end(const struct wj_parser *p, const char *const *ends)
{
	for (; ends && *ends; ends++)
		if (wj_is_name(p, *ends))
			return true;
	return false;
}

/* What follows a tag, up to a tag that begins with one of the names, which is the current token. */
static bool body(struct wj_parser *p, struct wj_body *ret, const char *const *ends)
{
	wj_skip_op(p, ":");
	return block_end(p) && statements(p, ret, ends);
}

/* A body up to its end, which is passed over. */
static bool body_to(struct wj_parser *p, struct wj_body *ret, const char *end)
{
	const char *const ends[] = {end, NULL};

	return body(p, ret, ends) && expect_name(p, end);
}

/* The same for text that is gathered: a break in it would leave it half done. */
static bool gathered(struct wj_parser *p, struct wj_body *ret, const char *end)
{
	bool before = p->in_block, good;

	p->in_block = true;
	good = body_to(p, ret, end);
	p->in_block = before;
	return good;
}

static struct wj_body *add_body(struct wj_parser *p, struct wj_node *node, uint32_t *room)
{
	if (!wj_grow(p->m, &node->bodies, node->n_bodies, room, sizeof(*node->bodies)))
		return NULL;
	node->bodies[node->n_bodies] = (struct wj_body){0};
	return &node->bodies[node->n_bodies++];
}

/* --- statements ----------------------------------------------------------------------------------*/

static struct wj_node *parse_if(struct wj_parser *p, uint32_t line)
{
	static const char *const ends[] = {"elif", "else", "endif", NULL};
	struct wj_node *node = wj_node(p, WJ_N_IF, line), *condition;
	uint32_t room = 0;
	struct wj_body *b;

	do {
		condition = node ? wj_tuple(p, false, false) : NULL;
		if (!condition || !wj_body_add(p, &node->list, condition))
			return NULL;
		b = add_body(p, node, &room);
		if (!b || !body(p, b, ends))
			return NULL;
	} while (wj_skip_name(p, "elif"));
	if (wj_skip_name(p, "else")) {
		b = add_body(p, node, &room);
		return b && body_to(p, b, "endif") ? node : NULL;
	}
	return expect_name(p, "endif") ? node : NULL;
}

/* "loop" is the loop's own. */
static bool names_loop(const struct wj_parser *p, const struct wj_node *target)
{
	if (target->type == WJ_N_NAME)
		return target->symbol == p->t->loop_symbol;
	for (uint32_t i = 0; i < target->list.n; i++)
		if (names_loop(p, target->list.list[i]))
			return true;
	return false;
}

static struct wj_node *parse_for(struct wj_parser *p, uint32_t line)
{
	static const char *const ends[] = {"endfor", "else", NULL};
	struct wj_node *node = wj_node(p, WJ_N_FOR, line);
	bool in_block = p->in_block;
	uint32_t room = 0;
	struct wj_body *b;

	if (!node || !(node->a = wj_target(p, false)) || !expect_name(p, "in"))
		return NULL;
	if (names_loop(p, node->a))
		wj_raise(p->m, "cannot assign to loop");
	node->b = wj_tuple(p, false, false);
	if (node->b && wj_skip_name(p, "if"))
		node->c = wj_expression(p, true);
	if (wj_is_name(p, "recursive"))
		wj_refuse(p->m, "recursive loops are not supported");
	b = p->m->code ? NULL : add_body(p, node, &room);
	p->loops++;
	p->in_block = false;
	if (!b || !body(p, b, ends))
		return NULL;
	p->loops--;
	p->in_block = in_block;
	if (wj_skip_name(p, "endfor"))
		return node;
	wj_advance(p);
	b = add_body(p, node, &room);
	return b && body_to(p, b, "endfor") ? node : NULL;
}

static struct wj_node *parse_set(struct wj_parser *p, uint32_t line)
{
	struct wj_node *node = wj_node(p, WJ_N_SET, line);
	uint32_t room = 0;
	struct wj_body *b;

	if (!node || !(node->a = wj_target(p, true)))
		return NULL;
	if (p->loops && names_loop(p, node->a)) {
		wj_raise(p->m, "cannot assign to loop");
		return NULL;
	}
	if (wj_skip_op(p, "=")) {
		node->b = wj_tuple(p, true, false);
		return node->b ? node : NULL;
	}
	node->type = WJ_N_SET_BLOCK;
	node->b = wj_filters(p, NULL, false);
	b = p->m->code ? NULL : add_body(p, node, &room);
	return b && gathered(p, b, "endset") ? node : NULL;
}

static struct wj_node *parse_filter(struct wj_parser *p, uint32_t line)
{
	struct wj_node *node = wj_node(p, WJ_N_FILTER_BLOCK, line);
	uint32_t room = 0;
	struct wj_body *b;

	if (!node || !(node->b = wj_filters(p, NULL, true)))
		return NULL;
	b = add_body(p, node, &room);
	return b && gathered(p, b, "endfilter") ? node : NULL;
}

/* list: target, value, target, .. */
static struct wj_node *parse_with(struct wj_parser *p, uint32_t line)
{
	struct wj_node *node = wj_node(p, WJ_N_WITH, line), *target, *value;
	uint32_t room = 0;
	struct wj_body *b;

	while (node && p->at->type != WJ_T_BLOCK_END) {
		if (node->list.n && !wj_expect_op(p, ","))
			return NULL;
		target = wj_target(p, false);
		if (!target || !wj_expect_op(p, "="))
			return NULL;
		value = wj_expression(p, true);
		if (!value || !wj_body_add(p, &node->list, target) ||
		    !wj_body_add(p, &node->list, value))
			return NULL;
	}
	b = node ? add_body(p, node, &room) : NULL;
	return b && body_to(p, b, "endwith") ? node : NULL;
}

/* list: the last parameters' defaults. */
static bool parameters(struct wj_parser *p, struct wj_node *node)
{
	uint32_t room = 0;

	if (!wj_expect_op(p, "("))
		return false;
	while (!wj_is_op(p, ")")) {
		if (node->n_symbols && !wj_expect_op(p, ","))
			return false;
		if (p->at->type != WJ_T_NAME)
			return wj_unexpected(p, "a parameter's name") != NULL;
		if (wj_is_name(p, "caller"))
			wj_refuse(p->m, "a macro's parameter 'caller' is not supported");
		if (!wj_grow(p->m, &node->symbols, node->n_symbols, &room, sizeof(uint32_t)))
			return false;
		node->symbols[node->n_symbols] = wj_symbol(p, p->at->p, p->at->n);
		for (uint32_t i = 0; i < node->n_symbols; i++)
			if (node->symbols[i] == node->symbols[node->n_symbols])
				wj_raise(p->m, "a parameter's name is given twice");
		node->n_symbols++;
		wj_advance(p);
		if (wj_skip_op(p, "=")) {
			if (!wj_body_add(p, &node->list, wj_expression(p, true)))
				return false;
		} else if (node->list.n) {
			wj_raise(p->m, "a parameter without a default behind one with a default");
			return false;
		}
	}
	return wj_expect_op(p, ")");
}

static bool has_parameter(const struct wj_node *macro, uint32_t symbol)
{
	for (uint32_t i = 0; i < macro->n_symbols; i++)
		if (macro->symbols[i] == symbol)
			return true;
	return false;
}

static struct wj_node *parse_macro(struct wj_parser *p, uint32_t line)
{
	struct wj_node *node = wj_node(p, WJ_N_MACRO, line), *outer = p->macro;
	bool in_block = p->in_block;
	uint32_t room = 0, loops = p->loops;
	struct wj_body *b;

	if (!node)
		return NULL;
	if (p->at->type != WJ_T_NAME)
		return wj_unexpected(p, "a macro's name");
	node->symbol = wj_symbol(p, p->at->p, p->at->n);
	wj_advance(p);
	if (!parameters(p, node))
		return NULL;
	p->macro = node;
	p->loops = 0;
	b = add_body(p, node, &room);
	if (!b || !body_to(p, b, "endmacro"))
		return NULL;
	p->macro = outer;
	p->loops = loops;
	p->in_block = in_block;
	node->varargs = node->varargs && !has_parameter(node, p->t->varargs_symbol);
	node->kwargs = node->kwargs && !has_parameter(node, p->t->kwargs_symbol);
	return node;
}

/* What transformers adds, to find what a model has said: a scope, and nothing else. */
static struct wj_node *parse_generation(struct wj_parser *p, uint32_t line)
{
	struct wj_node *node = wj_node(p, WJ_N_SCOPE, line);
	uint32_t room = 0;
	struct wj_body *b = node ? add_body(p, node, &room) : NULL;

	return b && gathered(p, b, "endgeneration") ? node : NULL;
}

static struct wj_node *parse_print(struct wj_parser *p, uint32_t line)
{
	wj_refuse(p->m, "the statement 'print' is not supported");
	return NULL;
}

static struct wj_node *parse_jump(struct wj_parser *p, enum wj_node_type type, uint32_t line)
{
	if (!p->loops) {
		wj_raise(p->m, "break or continue outside of a loop");
		return NULL;
	}
	if (p->in_block) {
		wj_refuse(p->m, "break or continue out of a block is not supported");
		return NULL;
	}
	return wj_node(p, type, line);
}

static struct wj_node *parse_break(struct wj_parser *p, uint32_t line)
{
	return parse_jump(p, WJ_N_BREAK, line);
}

static struct wj_node *parse_continue(struct wj_parser *p, uint32_t line)
{
	return parse_jump(p, WJ_N_CONTINUE, line);
}

static struct wj_node *statement(struct wj_parser *p)
{
	static const struct {
		const char *name;
		struct wj_node *(*parse)(struct wj_parser *p, uint32_t line);
	} kinds[] = {
		{"break", parse_break}, {"continue", parse_continue},	  {"filter", parse_filter},
		{"for", parse_for},	{"generation", parse_generation}, {"if", parse_if},
		{"macro", parse_macro}, {"print", parse_print},		  {"set", parse_set},
		{"with", parse_with},
	};
	const struct wj_token *t = p->at;

	if (t->type != WJ_T_NAME)
		return wj_unexpected(p, "a statement");
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		if (wj_skip_name(p, kinds[i].name))
			return kinds[i].parse(p, t->line);
	if (t->n > 3 && !memcmp(t->p, "end", 3))
		wj_raise(p->m, "'%.*s' where no such block is open", (int)(t->n > 40 ? 40 : t->n),
			 t->p);
	else
		wj_refuse(p->m, "the statement '%.*s' is not supported",
			  (int)(t->n > 40 ? 40 : t->n), t->p);
	return NULL;
}

static struct wj_node *data(struct wj_parser *p)
{
	struct wj_node *node = wj_node(p, WJ_N_DATA, p->at->line);

	if (node)
		node->value = wj_str_borrow(p->m, p->at->p, p->at->n);
	wj_advance(p);
	return node;
}

static struct wj_node *print(struct wj_parser *p)
{
	struct wj_node *node = wj_node(p, WJ_N_PRINT, p->at->line);

	wj_advance(p);
	if (!node || !(node->a = wj_tuple(p, true, false)))
		return NULL;
	if (p->at->type != WJ_T_VAR_END)
		return wj_unexpected(p, "'}}'");
	wj_advance(p);
	return node;
}

static bool some_statements(struct wj_parser *p, struct wj_body *body, const char *const *ends)
{
	struct wj_node *node;

	while (wj_step(p->m, 1) && p->at->type != WJ_T_END) {
		if (p->at->type == WJ_T_DATA) {
			node = data(p);
		} else if (p->at->type == WJ_T_VAR_BEGIN) {
			node = print(p);
		} else {
			wj_advance(p);
			if (at_end(p, ends))
				return true;
			node = statement(p);
			if (!node || !block_end(p))
				return false;
		}
		if (!wj_body_add(p, body, node))
			return false;
	}
	if (ends)
		wj_unexpected(p, ends[0]);
	return !p->m->code;
}

static bool statements(struct wj_parser *p, struct wj_body *body, const char *const *ends)
{
	bool good = wj_enter(p->m, WJ_MAX_TREE_DEPTH) && some_statements(p, body, ends);

	wj_leave(p->m);
	return good;
}

int wj_parse(struct weft_template *t, struct wj_token *tokens)
{
	struct wj_parser p = {.m = &t->m, .t = t, .at = tokens, .symbols = wj_dict(&t->m, 0)};

	if (!p.symbols)
		return t->m.code;
	t->m.line = 1;
	t->loop_symbol = wj_symbol(&p, "loop", 4);
	t->varargs_symbol = wj_symbol(&p, "varargs", 7);
	t->kwargs_symbol = wj_symbol(&p, "kwargs", 6);
	statements(&p, &t->body, NULL);
	return t->m.code;
}
