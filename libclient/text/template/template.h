/* SPDX-License-Identifier: Apache-2.0 */
/*
 * template.h - the parts of the interpreter of chat templates.
 *
 *   source -> tokens -> tree                        weft_template_new(), once
 *          (lex.c)   (parse.c, parse_expr.c)
 *   context -> values -> statements -> output       weft_template_render(), any number at once
 *          (render.c)  (exec.c)
 *                      expressions (eval.c), operators (ops.c, order.c, item.c), iteration (iter.c),
 *                      filters, tests, methods and functions (files of these names)
 *
 * A struct wj is one run over a template, of the parser or of a rendering: its arena, its limits and
 * its first error. All values live in an arena until it is freed as a whole; the tree's live in the
 * template's. Values never change, but for a namespace's members and what an iterator has passed.
 *
 * Errors stick: wj_fail() keeps the first, and after it wj_step() and every iteration say no, so
 * whatever runs comes to its end. Functions return some value of the right kind meanwhile; a check
 * of the error is needed only where going on would be unsafe or long. Allocators return NULL.
 *
 * Semantics are those of jinja2 with the settings that transformers uses, on Python's values:
 * trim_blocks, lstrip_blocks, loop controls, the immutable sandbox, no escaping.
 */
#ifndef WEFT_TEXT_TEMPLATE_H
#define WEFT_TEXT_TEMPLATE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "libclient/text/weft_text.h"

/*
 * Limits (weft_template_new(3) names them). A step is about a node evaluated, an item passed or 64
 * bytes copied: all of them take about a second. Depth bounds the C stack: a level of evaluation
 * takes about 300 bytes.
 */
#define WJ_MAX_STEPS	   (20u << 20)
#define WJ_MAX_MEMORY	   (256u << 20)
#define WJ_MAX_TREE_DEPTH  200u
#define WJ_MAX_RUN_DEPTH   1000u
#define WJ_MAX_VALUE_DEPTH 100u
#define WJ_MAX_RANGE	   100000

/* --- values --------------------------------------------------------------------------------------*/

enum wj_kind {
	WJ_UNSET, /* not a value: an argument or a variable that is not there */
	WJ_UNDEFINED,
	WJ_NONE,
	WJ_BOOL,
	WJ_INT,
	WJ_FLOAT,
	WJ_STR,
	WJ_LIST,
	WJ_TUPLE,
	WJ_DICT,
	WJ_VIEW, /* of a dict: keys(), values(), items() */
	WJ_RANGE,
	WJ_ITER, /* what can be passed once: a generator */
	WJ_NAMESPACE,
	WJ_LOOP,
	WJ_MACRO,
	WJ_FUNCTION,
	WJ_METHOD,
};

/* wj_value.sub of an undefined value: why it is one. */
enum wj_why { WJ_NO_VARIABLE, WJ_NO_MEMBER, WJ_NO_ARGUMENT, WJ_NO_ITEM, WJ_NO_ELSE };
/* of a view */
enum wj_view { WJ_KEYS, WJ_VALUES, WJ_ITEMS };

struct wj;
struct wj_node;
struct wj_scope;

/* UTF-8; chars == bytes: all of it is ASCII. */
struct wj_str {
	const char *p;
	size_t bytes, chars;
};

struct wj_value {
	uint8_t kind; /* enum wj_kind */
	uint8_t sub;  /* enum wj_why, enum wj_view; of a string 1: marked safe */
	union {
		bool b;
		int64_t i;
		double f;
		const struct wj_str *s; /* of an undefined value its name, or NULL */
		const struct wj_list *list;
		struct wj_dict *dict; /* of a namespace its members */
		const struct wj_range *range;
		struct wj_iter *iter;
		struct wj_loop *loop;
		const struct wj_macro *macro;
		const struct wj_function *function;
		const struct wj_bound *bound;
	};
};

struct wj_list {
	struct wj_value *items;
	size_t n;
};

struct wj_pair {
	struct wj_value key, value;
};

/* In order of insertion; slots is a hash table of indices + 1, there from nine pairs on. */
struct wj_dict {
	struct wj_pair *pairs;
	uint32_t n, room;
	uint32_t *slots;
	uint32_t mask;
};

struct wj_range {
	int64_t start, stop, step;
	int64_t n;
};

struct wj_iter;
/* What becomes of an item: 1: *item is the next; 0: none for it. */
typedef int (*wj_stage_fn)(struct wj *m, struct wj_iter *it, struct wj_value *item);

struct wj_iter {
	struct wj_value over;
	size_t at; /* index, or offset in a string */
	wj_stage_fn stage;
	void *data;
};

struct wj_loop {
	struct wj_iter it;
	const struct wj_node *node;
	struct wj_scope *outer; /* where the loop's filter is evaluated */
	int64_t index0;
	int64_t length; /* -1: not known yet */
	bool has_after, tested;
	struct wj_value after, current, before, changed;
};

struct wj_macro {
	const struct wj_node *node;
	struct wj_scope *scope;
};

struct wj_keyword {
	const struct wj_str *name;
	struct wj_value value;
};

struct wj_args {
	struct wj_value *pos;
	size_t n;
	struct wj_keyword *kw;
	size_t n_kw;
};

typedef struct wj_value (*wj_function_fn)(struct wj *m, const struct wj_args *args);
struct wj_function {
	const char *name;
	wj_function_fn call;
};

typedef struct wj_value (*wj_method_fn)(struct wj *m, struct wj_value self,
					const struct wj_args *args);
struct wj_method {
	const char *name;
	wj_method_fn call; /* NULL: Python has it, and it is not known here */
};

struct wj_bound {
	struct wj_value self;
	const struct wj_method *method;
};

/* --- one run -------------------------------------------------------------------------------------*/

struct wj_chunk {
	struct wj_chunk *next;
	size_t n, room;
	_Alignas(16) char p[];
};

/* Bytes being put together; owner of p. Its room counts as the run's memory. */
struct wj_buf {
	char *p;
	size_t n, room;
};

struct wj_var {
	uint32_t symbol;
	struct wj_value value;
};

struct wj_scope {
	struct wj_scope *parent; /* NULL: the template's own variables */
	struct wj_var *vars;
	uint32_t n, room;
};

struct wj {
	struct wj_chunk *chunks; /* owner */
	size_t memory;		 /* bytes held, chunks and buffers */
	uint64_t steps;
	uint32_t depth;
	uint32_t line; /* of what is being done */
	int code;      /* of the first error */
	uint32_t failed_line;
	char message[224];
	/* A rendering's: */
	const struct weft_template *t;
	struct wj_value *top; /* [n_symbols]: context, functions and the template's own */
	struct wj_scope *scope;
	struct wj_buf *out;
	bool has_time; /* the context says what time it is */
	double time;
};

/* Returns code. Only the first error counts. */
int wj_fail(struct wj *m, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Something of Python's or Jinja's that is not known here. */
struct wj_value wj_refuse(struct wj *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* What the same in Python would raise. */
struct wj_value wj_raise(struct wj *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* false: an error, now or before. */
bool wj_step(struct wj *m, size_t steps);
static inline bool wj_step_bytes(struct wj *m, size_t bytes)
{
	return wj_step(m, 1 + bytes / 64);
}
bool wj_enter(struct wj *m, uint32_t limit);
static inline void wj_leave(struct wj *m)
{
	m->depth--;
}
void *wj_alloc(struct wj *m, size_t bytes);
/* *items holds n of them; make room for one more. false: an error. */
bool wj_grow(struct wj *m, void *items, size_t n, uint32_t *room, size_t item_bytes);
void wj_fini(struct wj *m);

bool wj_buf_add(struct wj *m, struct wj_buf *b, const char *p, size_t n);
void wj_buf_fini(struct wj *m, struct wj_buf *b);
/* The bytes as a string value; the buffer is empty then. */
struct wj_value wj_buf_take(struct wj *m, struct wj_buf *b);

/* --- making values (value.c) ---------------------------------------------------------------------*/

#define WJ_VALUE(k) ((struct wj_value){.kind = (k)})
static inline struct wj_value wj_none(void)
{
	return WJ_VALUE(WJ_NONE);
}
static inline struct wj_value wj_bool(bool b)
{
	return (struct wj_value){.kind = WJ_BOOL, .b = b};
}
static inline struct wj_value wj_int(int64_t i)
{
	return (struct wj_value){.kind = WJ_INT, .i = i};
}
static inline struct wj_value wj_float(double f)
{
	return (struct wj_value){.kind = WJ_FLOAT, .f = f};
}
static inline struct wj_value wj_undefined(enum wj_why why, const struct wj_str *name)
{
	return (struct wj_value){.kind = WJ_UNDEFINED, .sub = (uint8_t)why, .s = name};
}
static inline bool wj_is(struct wj_value v, enum wj_kind kind)
{
	return v.kind == kind;
}
static inline bool wj_is_number(struct wj_value v)
{
	return v.kind == WJ_BOOL || v.kind == WJ_INT || v.kind == WJ_FLOAT;
}
/* Python's bool is an int. */
static inline bool wj_is_int(struct wj_value v, int64_t *ret)
{
	*ret = v.kind == WJ_BOOL ? v.b : v.i;
	return v.kind == WJ_BOOL || v.kind == WJ_INT;
}
static inline bool wj_is_list(struct wj_value v)
{
	return v.kind == WJ_LIST || v.kind == WJ_TUPLE;
}

/* UTF-8 in memory that outlives the run; a copy of it. */
struct wj_value wj_str_borrow(struct wj *m, const char *p, size_t n);
struct wj_value wj_str(struct wj *m, const char *p, size_t n);
struct wj_value wj_str_z(struct wj *m, const char *z);
bool wj_str_equal(const struct wj_str *a, const struct wj_str *b);
bool wj_str_is(const struct wj_str *s, const char *z);
/* The byte where character `at` begins; at <= chars. */
size_t wj_str_offset(const struct wj_str *s, size_t at);
struct wj_value wj_str_chars(struct wj *m, const struct wj_str *s, size_t from, size_t to);

/* A list or tuple of n items to be filled in, or NULL. */
struct wj_list *wj_list(struct wj *m, size_t n);
struct wj_value wj_list_value(enum wj_kind kind, const struct wj_list *list);
struct wj_value wj_pair_value(struct wj *m, struct wj_value a, struct wj_value b);
struct wj_items {
	struct wj_value *p;
	size_t n;
	uint32_t room;
};
bool wj_items_add(struct wj *m, struct wj_items *items, struct wj_value v);
struct wj_value wj_items_list(struct wj *m, const struct wj_items *items);
/* All that an iterable gives. */
struct wj_value wj_listed(struct wj *m, struct wj_value iterable);

struct wj_dict *wj_dict(struct wj *m, size_t room);
bool wj_dict_set(struct wj *m, struct wj_dict *d, struct wj_value key, struct wj_value value);
/* NULL: no such key, or a key that cannot be one, which *ret_bad says. */
const struct wj_value *wj_dict_get(struct wj *m, const struct wj_dict *d, struct wj_value key,
				   bool *ret_bad);
const struct wj_value *wj_dict_get_str(struct wj *m, const struct wj_dict *d,
				       const struct wj_str *key);

const char *wj_kind_name(struct wj_value v);
/* Fails: what an undefined value is asked to do cannot be done. */
struct wj_value wj_use_undefined(struct wj *m, struct wj_value v);

/* --- order and truth (order.c) -------------------------------------------------------------------*/

enum wj_op {
	WJ_ADD,
	WJ_SUB,
	WJ_MUL,
	WJ_DIV,
	WJ_FLOORDIV,
	WJ_MOD,
	WJ_POW,
	WJ_EQ,
	WJ_NE,
	WJ_LT,
	WJ_LE,
	WJ_GT,
	WJ_GE,
	WJ_IN,
	WJ_NOT_IN,
};

bool wj_true(struct wj *m, struct wj_value v);
bool wj_equal(struct wj *m, struct wj_value a, struct wj_value b);
/* a < b for WJ_LT and so on; fails where Python raises. */
bool wj_compare(struct wj *m, enum wj_op op, struct wj_value a, struct wj_value b);
bool wj_contains(struct wj *m, struct wj_value in, struct wj_value v);
bool wj_hash(struct wj *m, struct wj_value v, uint64_t *ret);
/* Stable, by keys[i] for items[i]. */
void wj_sort(struct wj *m, struct wj_value *items, struct wj_value *keys, size_t n, bool reverse);

/* --- operators (ops.c), members (item.c) ---------------------------------------------------------*/

struct wj_value wj_binary(struct wj *m, enum wj_op op, struct wj_value a, struct wj_value b);
struct wj_value wj_negate(struct wj *m, struct wj_value v, bool minus);
/* a % b with a string a. */
struct wj_value wj_percent(struct wj *m, const struct wj_str *format, struct wj_value args);
struct wj_value wj_repeat(struct wj *m, const struct wj_str *s, int64_t times);

/* v.name and v[key] as templates have them: what is not there is undefined. */
struct wj_value wj_attribute(struct wj *m, struct wj_value v, const struct wj_str *name);
struct wj_value wj_subscript(struct wj *m, struct wj_value v, struct wj_value key);
/* v[from:to:by]; WJ_NONE where left out. */
struct wj_value wj_slice(struct wj *m, struct wj_value v, struct wj_value from, struct wj_value to,
			 struct wj_value by);
/* len(v), or -1: it has none. */
int64_t wj_length(struct wj_value v);
struct wj_value wj_range_at(const struct wj_range *r, int64_t i);
/* Members of loop; UNSET: no such. */
struct wj_value wj_loop_member(struct wj *m, struct wj_value loop, const struct wj_str *name);

/* --- iteration (iter.c) --------------------------------------------------------------------------*/

bool wj_iterable(struct wj_value v);
/* Fails for what cannot be iterated. */
bool wj_iter_init(struct wj *m, struct wj_iter *it, struct wj_value over);
/* false: the end, or an error. */
bool wj_next(struct wj *m, struct wj_iter *it, struct wj_value *ret);
/* A generator over a value. */
struct wj_value wj_generator(struct wj *m, struct wj_value over, wj_stage_fn stage, void *data);

/* --- text of values (print.c, json.c) ------------------------------------------------------------*/

/* str() and repr(). */
bool wj_print(struct wj *m, struct wj_buf *b, struct wj_value v);
bool wj_repr(struct wj *m, struct wj_buf *b, struct wj_value v);
/* str(v): v itself if it is a string. */
const struct wj_str *wj_to_str(struct wj *m, struct wj_value v);
/* At least 40 bytes at p; the length. */
int wj_float_text(char *p, double f);
struct wj_json_style {
	int64_t indent_bytes; /* -1: all in one line */
	const char *indent;
	const struct wj_str *item, *key; /* separators */
	bool ascii, sort;
};
struct wj_value wj_json(struct wj *m, struct wj_value v, const struct wj_json_style *style);

/* --- filters, tests, methods, functions ----------------------------------------------------------*/

struct wj_filter {
	const char *name;
	struct wj_value (*call)(struct wj *m, struct wj_value v, const struct wj_args *args);
};
struct wj_test {
	const char *name;
	bool (*call)(struct wj *m, struct wj_value v, const struct wj_args *args);
};

/* NULL: not known. */
const struct wj_filter *wj_filter_find(const struct wj_str *name);
const struct wj_test *wj_test_find(const struct wj_str *name);
const struct wj_method *wj_method_find(struct wj_value self, const struct wj_str *name);
extern const struct wj_function wj_functions[];
extern const size_t wj_n_functions;
/* A name that Jinja has and that is not known here. */
bool wj_name_refused(const struct wj_str *name);
bool wj_test_run(struct wj *m, const struct wj_str *name, struct wj_value v,
		 const struct wj_args *args);

/*
 * Arguments by position and by name into ret[], WJ_UNSET where not given. names: separated by commas;
 * the first `least` must be there. false: an error.
 */
bool wj_bind(struct wj *m, const char *what, const struct wj_args *args, const char *names,
	     size_t least, struct wj_value *ret);
/* A bound argument: its integer, or `otherwise` where it was not given. */
int64_t wj_arg_int(struct wj *m, const char *what, struct wj_value v, int64_t otherwise);
bool wj_arg_true(struct wj *m, struct wj_value v);
/* It must be a string. NULL: an error. */
const struct wj_str *wj_arg_str(struct wj *m, const char *what, struct wj_value v);

/* The parts of filters that are spread over files. */
#define WJ_FILTER(f) struct wj_value f(struct wj *m, struct wj_value v, const struct wj_args *args)
WJ_FILTER(wj_filter_dictsort);
WJ_FILTER(wj_filter_sort);
WJ_FILTER(wj_filter_unique);
WJ_FILTER(wj_filter_map);
WJ_FILTER(wj_filter_select);
WJ_FILTER(wj_filter_reject);
WJ_FILTER(wj_filter_selectattr);
WJ_FILTER(wj_filter_rejectattr);
WJ_FILTER(wj_filter_join);
WJ_FILTER(wj_filter_min);
WJ_FILTER(wj_filter_max);
WJ_FILTER(wj_filter_sum);

/* Python's str functions (string.c), on strings. */
bool wj_is_blank(uint32_t c);
struct wj_value wj_strip(struct wj *m, const struct wj_str *s, const struct wj_str *chars,
			 bool left, bool right);
struct wj_value wj_replace(struct wj *m, const struct wj_str *s, const struct wj_str *old,
			   const struct wj_str *with, int64_t count);
enum wj_case { WJ_LOWER, WJ_UPPER, WJ_CAPITALIZE };
struct wj_value wj_recase(struct wj *m, const struct wj_str *s, enum wj_case to);
/* The filter's title, not the method's. */
struct wj_value wj_title_words(struct wj *m, const struct wj_str *s);
struct wj_value wj_split_lines(struct wj *m, const struct wj_str *s, bool keep);
/* In bytes from `from` on, or -1. */
ssize_t wj_find(const struct wj_str *s, size_t from, const struct wj_str *what);
/* Numbers as Python's int() and float() read them. 0, -EINVAL: not one; -ERANGE: beyond 64 bits. */
int wj_read_int(const struct wj_str *s, int base, int64_t *ret);
int wj_read_float(const struct wj_str *s, double *ret);

/* --- the tree ------------------------------------------------------------------------------------*/

enum wj_token_type {
	WJ_T_DATA,
	WJ_T_VAR_BEGIN,
	WJ_T_VAR_END,
	WJ_T_BLOCK_BEGIN,
	WJ_T_BLOCK_END,
	WJ_T_NAME,
	WJ_T_STRING, /* with its quotes */
	WJ_T_INT,
	WJ_T_FLOAT,
	WJ_T_OP,
	WJ_T_END,
};

struct wj_token {
	uint8_t type;
	uint8_t op[2]; /* its characters */
	uint32_t line;
	const char *p;
	size_t n;
};

/* *ret is [n], the last WJ_T_END, in the arena. The source has \n for line ends. */
int wj_lex(struct wj *m, const char *source, size_t bytes, struct wj_token **ret);

enum wj_node_type {
	/* expressions */
	WJ_N_CONST,
	WJ_N_NAME,
	WJ_N_LIST,
	WJ_N_TUPLE,
	WJ_N_DICT, /* list: key, value, key, .. */
	WJ_N_ATTR,
	WJ_N_ITEM,
	WJ_N_SLICE, /* a[list[0]:list[1]:list[2]] */
	WJ_N_CALL,
	WJ_N_FILTER, /* a NULL: of a block's text */
	WJ_N_TEST,
	WJ_N_NOT,
	WJ_N_MINUS,
	WJ_N_PLUS,
	WJ_N_AND,
	WJ_N_OR,
	WJ_N_IF_ELSE, /* b if a else c */
	WJ_N_CONCAT,
	WJ_N_BINARY,
	WJ_N_COMPARE, /* a ops[0] list[0] ops[1] list[1] .. */
	WJ_N_MEMBER,  /* as a target: namespace.member */
	/* statements */
	WJ_N_DATA,
	WJ_N_PRINT,
	WJ_N_IF, /* list: tests; bodies: one more if there is an else */
	WJ_N_FOR,
	WJ_N_SET,
	WJ_N_SET_BLOCK,
	WJ_N_FILTER_BLOCK,
	WJ_N_WITH,
	WJ_N_MACRO,
	WJ_N_SCOPE,
	WJ_N_BREAK,
	WJ_N_CONTINUE,
};

struct wj_body {
	struct wj_node **list;
	uint32_t n, room;
};

struct wj_kw_node {
	const struct wj_str *name;
	struct wj_node *node;
};

struct wj_node {
	uint8_t type;
	uint8_t op;	      /* enum wj_op of a binary */
	bool varargs, kwargs; /* a macro's body uses these names */
	uint16_t depth;
	uint32_t line;
	uint32_t symbol;
	struct wj_value value; /* a constant; the name of an attribute or a member */
	struct wj_node *a, *b, *c;
	struct wj_body list;
	struct wj_body *bodies;
	uint32_t n_bodies;
	uint8_t *ops; /* of a comparison */
	struct wj_kw_node *kw;
	uint32_t n_kw;
	uint32_t *symbols; /* a macro's parameters */
	uint32_t n_symbols;
	const struct wj_filter *filter;
	const struct wj_test *test;
};

struct weft_template {
	struct wj m; /* the parser's run: its arena is the tree's */
	struct wj_body body;
	const struct wj_str **names; /* of symbols */
	uint32_t n_symbols;
	uint32_t loop_symbol, varargs_symbol, kwargs_symbol;
};

struct wj_parser {
	struct wj *m;
	struct weft_template *t;
	struct wj_token *at; /* the current token; the one after the last is the last */
	struct wj_dict *symbols;
	uint32_t names_room;
	uint32_t loops;	       /* that a break would leave */
	bool in_block;	       /* .. and could not, for a block's text is being gathered */
	struct wj_node *macro; /* the innermost */
};

int wj_parse(struct weft_template *t, struct wj_token *tokens);
/* parse.c, for parse_expr.c */
struct wj_node *wj_node(struct wj_parser *p, enum wj_node_type type, uint32_t line);
bool wj_body_add(struct wj_parser *p, struct wj_body *b, struct wj_node *node);
uint32_t wj_symbol(struct wj_parser *p, const char *name, size_t n);
bool wj_is_op(const struct wj_parser *p, const char *op);
bool wj_is_name(const struct wj_parser *p, const char *name);
bool wj_skip_op(struct wj_parser *p, const char *op);
bool wj_skip_name(struct wj_parser *p, const char *name);
bool wj_expect_op(struct wj_parser *p, const char *op);
void wj_advance(struct wj_parser *p);
struct wj_node *wj_unexpected(struct wj_parser *p, const char *wanted);
/* Count the tree's depth in: what `child` has, and one. */
struct wj_node *wj_deepen(struct wj_parser *p, struct wj_node *node, const struct wj_node *child);
/* parse_expr.c */
struct wj_node *wj_expression(struct wj_parser *p, bool conditional);
/* Expressions separated by commas are a tuple. */
struct wj_node *wj_tuple(struct wj_parser *p, bool conditional, bool parentheses);
struct wj_node *wj_target(struct wj_parser *p, bool members);
struct wj_node *wj_filters(struct wj_parser *p, struct wj_node *node, bool first_named);

/* --- running (eval.c, exec.c) --------------------------------------------------------------------*/

struct wj_value wj_eval(struct wj *m, const struct wj_node *node);
struct wj_value wj_call(struct wj *m, struct wj_value f, const struct wj_args *args);
/* The filter of a node on v. */
struct wj_value wj_eval_filter(struct wj *m, const struct wj_node *node, struct wj_value v);
enum wj_flow { WJ_ON, WJ_LEAVE, WJ_AGAIN };
enum wj_flow wj_exec(struct wj *m, const struct wj_body *body);
struct wj_value wj_call_macro(struct wj *m, const struct wj_macro *macro,
			      const struct wj_args *args);
bool wj_loop_next(struct wj *m, struct wj_loop *loop, struct wj_value *ret);

#endif
