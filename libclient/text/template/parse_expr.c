/* SPDX-License-Identifier: Apache-2.0 */
/*
 * parse_expr.c - expressions, with Jinja's precedence, which is not Python's everywhere: "~" binds
 * tighter than "+", "**" is left-associative, and filters and tests bind tighter than any operator.
 *
 * On an error functions return NULL; the error is the run's.
 */
#include "libclient/text/private.h"
#include "libclient/text/template/template.h"

#include <stdlib.h>
#include <string.h>

static struct wj_node *unary(struct wj_parser *p, bool with_filters);

/* --- literals ------------------------------------------------------------------------------------*/

static int hex_value(const char *p, int n, uint32_t *ret)
{
	*ret = 0;
	for (int i = 0; i < n; i++) {
		char c = p[i];
		uint32_t d = c >= '0' && c <= '9'		  ? (uint32_t)(c - '0')
			     : (c | 32) >= 'a' && (c | 32) <= 'f' ? (uint32_t)((c | 32) - 'a' + 10)
								  : 16;

		if (d == 16)
			return -1;
		*ret = *ret << 4 | d;
	}
	return 0;
}

static void add_char(struct wj_parser *p, struct wj_buf *b, uint32_t c)
{
	char text[4];

	if (c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		wj_refuse(p->m, "the character U+%04X in a string is not supported", c);
	else
		wj_buf_add(p->m, b, text, (size_t)wt_utf8_put(text, c));
}

/* One escape, after its backslash: how many bytes it has. */
static size_t escape(struct wj_parser *p, struct wj_buf *b, const char *s, size_t n)
{
	static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
	const char *at = *s ? strchr(from, *s) : NULL;
	uint32_t c = 0;
	size_t digits;

	if (*s == '\n')
		return 1;
	if (at) {
		wj_buf_add(p->m, b, to + (at - from), 1);
		return 1;
	}
	if (*s >= '0' && *s <= '7') {
		for (digits = 0; digits < 3 && digits < n && s[digits] >= '0' && s[digits] <= '7';
		     digits++)
			c = c << 3 | (uint32_t)(s[digits] - '0');
		add_char(p, b, c);
		return digits;
	}
	if (*s == 'N')
		wj_refuse(p->m, "\\N in a string is not supported");
	digits = *s == 'x' ? 2 : *s == 'u' ? 4 : *s == 'U' ? 8 : 0;
	if (digits) {
		if (digits >= n || hex_value(s + 1, (int)digits, &c))
			wj_raise(p->m, "a string has a truncated \\%c", *s);
		else
			add_char(p, b, c);
		return 1 + digits;
	}
	/* No escape: both characters stand. */
	wj_buf_add(p->m, b, "\\", 1);
	return 0;
}

static void add_string(struct wj_parser *p, struct wj_buf *b, const struct wj_token *t)
{
	const char *s = t->p + 1, *end = t->p + t->n - 1;

	while (s < end && !p->m->code) {
		const char *slash = memchr(s, '\\', (size_t)(end - s));

		wj_buf_add(p->m, b, s, (size_t)((slash ? slash : end) - s));
		s = slash ? slash + 1 : end;
		if (slash)
			s += escape(p, b, s, (size_t)(end - s));
	}
}

static struct wj_node *constant(struct wj_parser *p, struct wj_value v, uint32_t line)
{
	struct wj_node *node = wj_node(p, WJ_N_CONST, line);

	if (node)
		node->value = v;
	return node;
}

static struct wj_node *string(struct wj_parser *p)
{
	uint32_t line = p->at->line;
	struct wj_buf b = {0};

	for (; p->at->type == WJ_T_STRING && !p->m->code; wj_advance(p))
		add_string(p, &b, p->at);
	return constant(p, wj_buf_take(p->m, &b), line);
}

static struct wj_node *number(struct wj_parser *p)
{
	const struct wj_token *t = p->at;
	struct wj_str text = {t->p, t->n, t->n};
	char kind = t->n > 2 && t->p[0] == '0' ? (char)(t->p[1] | 32) : 0;
	int base = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 10;
	int64_t i;
	double f;

	wj_advance(p);
	if (t->type == WJ_T_FLOAT) {
		if (wj_read_float(&text, &f))
			wj_refuse(p->m, "a number of %zu digits is not supported", t->n);
		return constant(p, wj_float(f), t->line);
	}
	if (wj_read_int(&text, base, &i))
		wj_refuse(p->m, "an integer of more than 64 bits is not supported");
	return constant(p, wj_int(i), t->line);
}

/* --- primaries -----------------------------------------------------------------------------------*/

static bool is_word(const struct wj_token *t, const char *a, const char *b)
{
	return (t->n == strlen(a) && !memcmp(t->p, a, t->n)) ||
	       (t->n == strlen(b) && !memcmp(t->p, b, t->n));
}

static struct wj_node *name(struct wj_parser *p)
{
	const struct wj_token *t = p->at;
	struct wj_node *node;

	wj_advance(p);
	if (is_word(t, "true", "True"))
		return constant(p, wj_bool(true), t->line);
	if (is_word(t, "false", "False"))
		return constant(p, wj_bool(false), t->line);
	if (is_word(t, "none", "None"))
		return constant(p, wj_none(), t->line);
	node = wj_node(p, WJ_N_NAME, t->line);
	if (!node)
		return NULL;
	node->symbol = wj_symbol(p, t->p, t->n);
	if (p->macro) {
		p->macro->varargs |= node->symbol == p->t->varargs_symbol;
		p->macro->kwargs |= node->symbol == p->t->kwargs_symbol;
	}
	return node;
}

static struct wj_node *list(struct wj_parser *p)
{
	struct wj_node *node = wj_node(p, WJ_N_LIST, p->at->line), *item;

	wj_advance(p);
	while (node && !wj_is_op(p, "]")) {
		if (node->list.n && !wj_expect_op(p, ","))
			return NULL;
		if (wj_is_op(p, "]"))
			break;
		item = wj_expression(p, true);
		if (!item || !wj_body_add(p, &node->list, item))
			return NULL;
		node = wj_deepen(p, node, item);
	}
	return wj_expect_op(p, "]") ? node : NULL;
}

static struct wj_node *dict(struct wj_parser *p)
{
	struct wj_node *node = wj_node(p, WJ_N_DICT, p->at->line), *key, *value;

	wj_advance(p);
	while (node && !wj_is_op(p, "}")) {
		if (node->list.n && !wj_expect_op(p, ","))
			return NULL;
		if (wj_is_op(p, "}"))
			break;
		key = wj_expression(p, true);
		if (!key || !wj_expect_op(p, ":"))
			return NULL;
		value = wj_expression(p, true);
		if (!value || !wj_body_add(p, &node->list, key) ||
		    !wj_body_add(p, &node->list, value))
			return NULL;
		node = wj_deepen(p, wj_deepen(p, node, key), value);
	}
	return wj_expect_op(p, "}") ? node : NULL;
}

static struct wj_node *primary(struct wj_parser *p)
{
	struct wj_node *node;

	switch (p->at->type) {
	case WJ_T_NAME:
		return name(p);
	case WJ_T_STRING:
		return string(p);
	case WJ_T_INT:
	case WJ_T_FLOAT:
		return number(p);
	default:
		break;
	}
	if (wj_skip_op(p, "(")) {
		node = wj_tuple(p, true, true);
		return wj_expect_op(p, ")") ? node : NULL;
	}
	if (wj_is_op(p, "["))
		return list(p);
	if (wj_is_op(p, "{"))
		return dict(p);
	return wj_unexpected(p, "an expression");
}

/* --- calls and members ---------------------------------------------------------------------------*/

static bool keyword(struct wj_parser *p, struct wj_node *call, uint32_t *room)
{
	struct wj_kw_node kw = {.name = wj_str(p->m, p->at->p, p->at->n).s};

	wj_advance(p);
	wj_advance(p);
	kw.node = wj_expression(p, true);
	if (!kw.node || !wj_grow(p->m, &call->kw, call->n_kw, room, sizeof(kw)))
		return false;
	for (uint32_t i = 0; i < call->n_kw; i++)
		if (wj_str_equal(call->kw[i].name, kw.name)) {
			wj_raise(p->m, "an argument's name is given twice");
			return false;
		}
	call->kw[call->n_kw++] = kw;
	return wj_deepen(p, call, kw.node) != NULL;
}

/* "(..)" into node's list and kw. */
static struct wj_node *arguments(struct wj_parser *p, struct wj_node *node)
{
	struct wj_node *arg;
	uint32_t room = 0;

	if (!node || !wj_expect_op(p, "("))
		return NULL;
	while (!wj_is_op(p, ")")) {
		if ((node->list.n || node->n_kw) && !wj_expect_op(p, ","))
			return NULL;
		if (wj_is_op(p, ")"))
			break;
		if (wj_is_op(p, "*") || wj_is_op(p, "**")) {
			wj_refuse(p->m, "arguments with '*' are not supported");
			return NULL;
		}
		if (p->at->type == WJ_T_NAME && p->at[1].type == WJ_T_OP && p->at[1].n == 1 &&
		    p->at[1].op[0] == '=') {
			if (!keyword(p, node, &room))
				return NULL;
			continue;
		}
		if (node->n_kw) {
			wj_raise(p->m, "an argument without a name behind one with a name");
			return NULL;
		}
		arg = wj_expression(p, true);
		if (!arg || !wj_body_add(p, &node->list, arg) || !wj_deepen(p, node, arg))
			return NULL;
	}
	wj_advance(p);
	return node;
}

static struct wj_node *over(struct wj_parser *p, enum wj_node_type type, struct wj_node *a,
			    uint32_t line)
{
	struct wj_node *node = a ? wj_node(p, type, line) : NULL;

	if (node)
		node->a = a;
	return node ? wj_deepen(p, node, a) : NULL;
}

static struct wj_node *call(struct wj_parser *p, struct wj_node *node)
{
	return arguments(p, over(p, WJ_N_CALL, node, p->at->line));
}

/* One part of a slice, or None. */
static bool slice_part(struct wj_parser *p, struct wj_node *node)
{
	struct wj_node *part;

	if (wj_is_op(p, ":") || wj_is_op(p, "]") || wj_is_op(p, ","))
		part = constant(p, wj_none(), p->at->line);
	else
		part = wj_expression(p, true);
	return part && wj_body_add(p, &node->list, part) && wj_deepen(p, node, part);
}

static struct wj_node *bracketed(struct wj_parser *p, struct wj_node *a, uint32_t line)
{
	struct wj_node *node = over(p, WJ_N_ITEM, a, line), *tuple;

	if (!node || !slice_part(p, node))
		return NULL;
	if (wj_skip_op(p, ":")) {
		node->type = WJ_N_SLICE;
		if (!slice_part(p, node))
			return NULL;
		if (wj_skip_op(p, ":")) {
			if (!slice_part(p, node))
				return NULL;
		} else if (!wj_body_add(p, &node->list, constant(p, wj_none(), line))) {
			return NULL;
		}
		if (wj_is_op(p, ",")) {
			wj_refuse(p->m, "several slices are not supported");
			return NULL;
		}
		return wj_expect_op(p, "]") ? node : NULL;
	}
	node->b = node->list.list[0];
	if (wj_is_op(p, ",")) {
		/* x[a, b] is x[(a, b)]. */
		tuple = wj_node(p, WJ_N_TUPLE, line);
		if (!tuple || !wj_body_add(p, &tuple->list, node->b))
			return NULL;
		while (wj_skip_op(p, ",")) {
			struct wj_node *item = wj_expression(p, true);

			if (!item || !wj_body_add(p, &tuple->list, item) ||
			    !wj_deepen(p, tuple, item))
				return NULL;
		}
		node->b = tuple;
		node = wj_deepen(p, node, wj_deepen(p, tuple, tuple->list.list[0]));
	}
	return wj_expect_op(p, "]") ? node : NULL;
}

static struct wj_node *member(struct wj_parser *p, struct wj_node *a)
{
	uint32_t line = p->at->line;
	struct wj_node *node;

	if (wj_skip_op(p, "["))
		return bracketed(p, a, line);
	wj_advance(p);
	if (p->at->type == WJ_T_INT) {
		node = over(p, WJ_N_ITEM, a, line);
		if (node)
			node->b = number(p);
		return node;
	}
	if (p->at->type != WJ_T_NAME)
		return wj_unexpected(p, "a name");
	node = over(p, WJ_N_ATTR, a, line);
	if (node)
		node->value = wj_str(p->m, p->at->p, p->at->n);
	wj_advance(p);
	return node;
}

static struct wj_node *postfix(struct wj_parser *p, struct wj_node *node)
{
	while (node && !p->m->code) {
		if (wj_is_op(p, ".") || wj_is_op(p, "["))
			node = member(p, node);
		else if (wj_is_op(p, "("))
			node = call(p, node);
		else
			break;
	}
	return p->m->code ? NULL : node;
}

/* --- filters and tests ---------------------------------------------------------------------------*/

static const struct wj_str *known_name(struct wj_parser *p)
{
	const struct wj_token *t = p->at;

	if (t->type != WJ_T_NAME) {
		wj_unexpected(p, "a name");
		return NULL;
	}
	wj_advance(p);
	return wj_str(p->m, t->p, t->n).s;
}

struct wj_node *wj_filters(struct wj_parser *p, struct wj_node *node, bool first_named)
{
	while (!p->m->code && (first_named || wj_is_op(p, "|"))) {
		uint32_t line = p->at->line;
		const struct wj_str *name;
		struct wj_node *filter;

		if (!first_named)
			wj_advance(p);
		first_named = false;
		name = known_name(p);
		filter = name ? wj_node(p, WJ_N_FILTER, line) : NULL;
		if (!filter)
			return NULL;
		filter->filter = wj_filter_find(name);
		if (!filter->filter) {
			wj_refuse(p->m, "the filter '%.*s' is not supported",
				  (int)(name->bytes > 60 ? 60 : name->bytes), name->p);
			return NULL;
		}
		filter->a = node;
		if (node && !wj_deepen(p, filter, node))
			return NULL;
		node = wj_is_op(p, "(") ? arguments(p, filter) : filter;
	}
	return p->m->code ? NULL : node;
}

/* A test's argument without parentheses: x is divisibleby 3. */
static bool begins_argument(const struct wj_parser *p)
{
	if (p->at->type == WJ_T_NAME)
		return !wj_is_name(p, "else") && !wj_is_name(p, "or") && !wj_is_name(p, "and");
	return p->at->type == WJ_T_STRING || p->at->type == WJ_T_INT || p->at->type == WJ_T_FLOAT ||
	       wj_is_op(p, "[") || wj_is_op(p, "{");
}

static struct wj_node *test(struct wj_parser *p, struct wj_node *a)
{
	uint32_t line = p->at->line;
	const struct wj_str *name;
	struct wj_node *node, *arg;
	bool negated;

	wj_advance(p);
	negated = wj_skip_name(p, "not");
	name = known_name(p);
	node = name ? over(p, WJ_N_TEST, a, line) : NULL;
	if (!node)
		return NULL;
	node->test = wj_test_find(name);
	if (!node->test) {
		wj_refuse(p->m, "the test '%.*s' is not supported",
			  (int)(name->bytes > 60 ? 60 : name->bytes), name->p);
		return NULL;
	}
	if (wj_is_op(p, "(")) {
		node = arguments(p, node);
	} else if (begins_argument(p)) {
		if (wj_is_name(p, "is")) {
			wj_raise(p->m, "tests cannot be chained with 'is'");
			return NULL;
		}
		arg = postfix(p, primary(p));
		if (!arg || !wj_body_add(p, &node->list, arg))
			return NULL;
		node = wj_deepen(p, node, arg);
	}
	return negated ? over(p, WJ_N_NOT, node, line) : node;
}

static struct wj_node *filters_and_tests(struct wj_parser *p, struct wj_node *node)
{
	while (node && !p->m->code) {
		if (wj_is_op(p, "|"))
			node = wj_filters(p, node, false);
		else if (wj_is_name(p, "is"))
			node = test(p, node);
		else if (wj_is_op(p, "("))
			node = call(p, node);
		else
			break;
	}
	return p->m->code ? NULL : node;
}

/* --- operators -----------------------------------------------------------------------------------*/

static struct wj_node *unary(struct wj_parser *p, bool with_filters)
{
	uint32_t line = p->at->line;
	struct wj_node *node = NULL;

	if (wj_enter(p->m, WJ_MAX_TREE_DEPTH)) {
		if (wj_skip_op(p, "-"))
			node = over(p, WJ_N_MINUS, unary(p, false), line);
		else if (wj_skip_op(p, "+"))
			node = over(p, WJ_N_PLUS, unary(p, false), line);
		else
			node = primary(p);
		node = postfix(p, node);
		if (with_filters)
			node = filters_and_tests(p, node);
	}
	wj_leave(p->m);
	return node;
}

static struct wj_node *pair(struct wj_parser *p, enum wj_node_type type, enum wj_op op,
			    struct wj_node *a, struct wj_node *b, uint32_t line)
{
	struct wj_node *node = b ? over(p, type, a, line) : NULL;

	if (!node)
		return NULL;
	node->op = (uint8_t)op;
	node->b = b;
	return wj_deepen(p, node, b);
}

static struct wj_node *power(struct wj_parser *p)
{
	struct wj_node *node = unary(p, true);

	while (node && wj_is_op(p, "**")) {
		uint32_t line = p->at->line;

		wj_advance(p);
		node = pair(p, WJ_N_BINARY, WJ_POW, node, unary(p, true), line);
	}
	return node;
}

static struct wj_node *product(struct wj_parser *p)
{
	static const struct {
		const char *sign;
		enum wj_op op;
	} ops[] = {{"*", WJ_MUL}, {"/", WJ_DIV}, {"//", WJ_FLOORDIV}, {"%", WJ_MOD}};
	struct wj_node *node = power(p);

	for (size_t i = 0; node && i < 4;) {
		uint32_t line = p->at->line;

		if (!wj_skip_op(p, ops[i].sign)) {
			i++;
			continue;
		}
		node = pair(p, WJ_N_BINARY, ops[i].op, node, power(p), line);
		i = 0;
	}
	return node;
}

static struct wj_node *concat(struct wj_parser *p)
{
	struct wj_node *node = product(p), *first = node, *part;

	if (!node || !wj_is_op(p, "~"))
		return node;
	node = wj_node(p, WJ_N_CONCAT, p->at->line);
	if (!node || !wj_body_add(p, &node->list, first))
		return NULL;
	node = wj_deepen(p, node, first);
	while (node && wj_skip_op(p, "~")) {
		part = product(p);
		if (!part || !wj_body_add(p, &node->list, part))
			return NULL;
		node = wj_deepen(p, node, part);
	}
	return node;
}

static struct wj_node *sum(struct wj_parser *p)
{
	struct wj_node *node = concat(p);

	while (node && (wj_is_op(p, "+") || wj_is_op(p, "-"))) {
		enum wj_op op = wj_is_op(p, "+") ? WJ_ADD : WJ_SUB;
		uint32_t line = p->at->line;

		wj_advance(p);
		node = pair(p, WJ_N_BINARY, op, node, concat(p), line);
	}
	return node;
}

/* The comparison at the current token, passed over; -1: none. */
static int comparison(struct wj_parser *p)
{
	static const struct {
		const char *sign;
		enum wj_op op;
	} ops[] = {{"==", WJ_EQ}, {"!=", WJ_NE}, {"<", WJ_LT},
		   {"<=", WJ_LE}, {">", WJ_GT},	 {">=", WJ_GE}};

	for (size_t i = 0; i < sizeof(ops) / sizeof(*ops); i++)
		if (wj_skip_op(p, ops[i].sign))
			return ops[i].op;
	if (wj_skip_name(p, "in"))
		return WJ_IN;
	if (wj_is_name(p, "not") && p->at[1].type == WJ_T_NAME && p->at[1].n == 2 &&
	    !memcmp(p->at[1].p, "in", 2)) {
		wj_advance(p);
		wj_advance(p);
		return WJ_NOT_IN;
	}
	return -1;
}

static struct wj_node *compare(struct wj_parser *p)
{
	struct wj_node *first = sum(p), *node = NULL, *next;
	uint32_t line = p->at->line, room = 0;
	int op;

	while (first && (op = comparison(p)) >= 0) {
		if (!node)
			node = over(p, WJ_N_COMPARE, first, line);
		next = node ? sum(p) : NULL;
		if (!next || !wj_grow(p->m, &node->ops, node->list.n, &room, 1) ||
		    !wj_body_add(p, &node->list, next))
			return NULL;
		node->ops[node->list.n - 1] = (uint8_t)op;
		node = wj_deepen(p, node, next);
	}
	return node ? node : first;
}

static struct wj_node *negation(struct wj_parser *p)
{
	uint32_t line = p->at->line;
	struct wj_node *node = NULL;

	if (!wj_is_name(p, "not"))
		return compare(p);
	wj_advance(p);
	if (wj_enter(p->m, WJ_MAX_TREE_DEPTH))
		node = over(p, WJ_N_NOT, negation(p), line);
	wj_leave(p->m);
	return node;
}

static struct wj_node *conjunction(struct wj_parser *p)
{
	struct wj_node *node = negation(p);

	while (node && wj_is_name(p, "and")) {
		uint32_t line = p->at->line;

		wj_advance(p);
		node = pair(p, WJ_N_AND, 0, node, negation(p), line);
	}
	return node;
}

static struct wj_node *disjunction(struct wj_parser *p)
{
	struct wj_node *node = conjunction(p);

	while (node && wj_is_name(p, "or")) {
		uint32_t line = p->at->line;

		wj_advance(p);
		node = pair(p, WJ_N_OR, 0, node, conjunction(p), line);
	}
	return node;
}

static struct wj_node *inline_if(struct wj_parser *p)
{
	struct wj_node *node = disjunction(p);

	while (node && wj_is_name(p, "if")) {
		struct wj_node *then = node;

		wj_advance(p);
		node = over(p, WJ_N_IF_ELSE, disjunction(p), then->line);
		if (!node)
			return NULL;
		node->b = then;
		node = wj_deepen(p, node, then);
		if (node && wj_skip_name(p, "else")) {
			node->c = wj_expression(p, true);
			node = node->c ? wj_deepen(p, node, node->c) : NULL;
		}
	}
	return node;
}

struct wj_node *wj_expression(struct wj_parser *p, bool conditional)
{
	struct wj_node *node = NULL;

	if (wj_enter(p->m, WJ_MAX_TREE_DEPTH))
		node = conditional ? inline_if(p) : disjunction(p);
	wj_leave(p->m);
	return p->m->code ? NULL : node;
}

/* --- tuples and targets --------------------------------------------------------------------------*/

static bool tuple_ends(const struct wj_parser *p)
{
	return p->at->type == WJ_T_VAR_END || p->at->type == WJ_T_BLOCK_END || wj_is_op(p, ")");
}

/* A name, or namespace.member, or a tuple of them in parentheses. */
static struct wj_node *target_part(struct wj_parser *p, bool members)
{
	struct wj_node *node;

	if (wj_is_op(p, "(")) {
		if (!wj_enter(p->m, WJ_MAX_TREE_DEPTH)) {
			wj_leave(p->m);
			return NULL;
		}
		wj_advance(p);
		/* Within parentheses Jinja reads expressions, so members are none. */
		node = wj_target(p, false);
		wj_leave(p->m);
		return node && wj_expect_op(p, ")") ? node : NULL;
	}
	if (p->at->type != WJ_T_NAME)
		return wj_unexpected(p, "a name to assign to");
	node = name(p);
	if (!node || node->type != WJ_N_NAME) {
		wj_raise(p->m, "cannot assign to a constant");
		return NULL;
	}
	if (members && wj_skip_op(p, ".")) {
		if (p->at->type != WJ_T_NAME)
			return wj_unexpected(p, "a name");
		node->type = WJ_N_MEMBER;
		node->value = wj_str(p->m, p->at->p, p->at->n);
		wj_advance(p);
	}
	return node;
}

/* parts separated by commas, or the only one */
static struct wj_node *series(struct wj_parser *p, bool parentheses, bool conditional, int target)
{
	struct wj_node *tuple = NULL, *part = NULL;
	uint32_t line = p->at->line, n = 0;

	while (!tuple_ends(p)) {
		part = target ? target_part(p, target == 2) : wj_expression(p, conditional);
		if (!part)
			return NULL;
		n++;
		if (n == 1 && !wj_is_op(p, ","))
			return part;
		if (!tuple)
			tuple = wj_node(p, WJ_N_TUPLE, line);
		if (!tuple || !wj_body_add(p, &tuple->list, part) || !wj_deepen(p, tuple, part))
			return NULL;
		if (!wj_skip_op(p, ","))
			return tuple;
	}
	if (!tuple && !parentheses)
		return wj_unexpected(p, "an expression");
	return tuple ? tuple : wj_node(p, WJ_N_TUPLE, line);
}

struct wj_node *wj_tuple(struct wj_parser *p, bool conditional, bool parentheses)
{
	return series(p, parentheses, conditional, 0);
}

struct wj_node *wj_target(struct wj_parser *p, bool members)
{
	return series(p, false, false, members ? 2 : 1);
}
