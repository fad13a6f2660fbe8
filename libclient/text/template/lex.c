/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lex.c - a template's source as tokens.
 *
 * Between tags all is data. A tag's "-" takes the blanks on its side away; without a sign, blanks
 * before a block or a comment go if nothing else stands before it on the line, and so does one line
 * end behind it (lstrip_blocks and trim_blocks). "+" keeps them.
 */
#include "libclient/text/private.h"
#include "libclient/text/template/template.h"

#include <string.h>

#define MAX_BRACKETS 256u

struct lexer {
	struct wj *m;
	const char *p, *end;
	bool line_starts; /* what was read last ended with a line's end */
	struct wj_token *tokens;
	size_t n;
	uint32_t room;
	char brackets[MAX_BRACKETS]; /* that are open in a tag */
	uint32_t n_brackets;
};

static void add(struct lexer *l, enum wj_token_type type, const char *p, size_t n)
{
	struct wj_token *t;

	if (!wj_grow(l->m, &l->tokens, l->n, &l->room, sizeof(*l->tokens)))
		return;
	t = &l->tokens[l->n++];
	*t = (struct wj_token){.type = (uint8_t)type, .line = l->m->line, .p = p, .n = n};
	if (type == WJ_T_OP)
		memcpy(t->op, p, n);
}

/* Pass over n bytes. */
static void pass(struct lexer *l, size_t n)
{
	for (size_t i = 0; i < n; i++)
		l->m->line += l->p[i] == '\n';
	if (n)
		l->line_starts = l->p[n - 1] == '\n';
	l->p += n;
}

static size_t left(const struct lexer *l)
{
	return (size_t)(l->end - l->p);
}

static bool at(const struct lexer *l, const char *text)
{
	return left(l) >= strlen(text) && !memcmp(l->p, text, strlen(text));
}

static size_t blanks(const char *p, const char *end)
{
	const char *from = p;
	int len;

	while (p < end && wj_is_blank(wt_utf8_next(p, (size_t)(end - p), &len)))
		p += len;
	return (size_t)(p - from);
}

/* How much of the text is left when the blanks at its end are gone. */
static size_t without_blanks(const char *p, size_t n)
{
	while (n && wj_is_blank(wt_utf8_last(p, n)))
		do
			n--;
		while (((unsigned char)p[n] & 0xc0) == 0x80);
	return n;
}

/* Data that ends before a tag with a sign ('-', '+' or none: 0). */
static void add_data(struct lexer *l, size_t n, char sign, bool variable)
{
	const char *p = l->p;
	size_t keep = n, line = n;

	if (sign == '-') {
		keep = without_blanks(p, n);
	} else if (sign != '+' && !variable) {
		while (line && p[line - 1] != '\n')
			line--;
		if ((line || l->line_starts) && blanks(p + line, p + n) == n - line)
			keep = line;
	}
	if (keep)
		add(l, WJ_T_DATA, p, keep);
	pass(l, n);
}

static char sign_at(const char *p, const char *end)
{
	return p < end && (*p == '-' || *p == '+') ? *p : 0;
}

/* What ends a block or a comment, whose last two bytes are given: its length with what it takes, or 0. */
static size_t end_of_tag(const struct lexer *l, const char *p, const char *close)
{
	const char *sign = p;

	if (p < l->end && (*p == '-' || *p == '+'))
		p++;
	if (l->end - p < 2 || memcmp(p, close, 2))
		return 0;
	p += 2;
	if (*sign == '-')
		return (size_t)(p - sign) + blanks(p, l->end);
	if (*sign != '+' && p < l->end && *p == '\n')
		p++;
	return (size_t)(p - sign);
}

/* --- comments and raw ----------------------------------------------------------------------------*/

/* At the source's very end Jinja does not ask for the end of a comment or of a raw block. */
static void comment(struct lexer *l)
{
	if (l->p == l->end)
		return;
	for (const char *p = l->p; p < l->end; p++) {
		size_t n = end_of_tag(l, p, "#}");

		if (n) {
			pass(l, (size_t)(p - l->p) + n);
			return;
		}
	}
	wj_raise(l->m, "a comment has no end");
}

/* "{% raw %}" at p: its length, or 0. */
static size_t raw_begins(const struct lexer *l, const char *p)
{
	const char *from = p;

	p += 2;
	p += sign_at(p, l->end) != 0;
	p += blanks(p, l->end);
	if (l->end - p < 3 || memcmp(p, "raw", 3))
		return 0;
	p += 3;
	p += blanks(p, l->end);
	if (l->end - p >= 3 && !memcmp(p, "-%}", 3))
		return (size_t)(p + 3 - from) + blanks(p + 3, l->end);
	return l->end - p >= 2 && !memcmp(p, "%}", 2) ? (size_t)(p + 2 - from) : 0;
}

static void raw(struct lexer *l)
{
	for (const char *p = l->p; l->end - p >= 2; p++) {
		const char *word;
		size_t n;
		char sign;

		if (memcmp(p, "{%", 2))
			continue;
		sign = sign_at(p + 2, l->end);
		word = p + 2 + (sign != 0);
		word += blanks(word, l->end);
		if (l->end - word < 6 || memcmp(word, "endraw", 6))
			continue;
		word += 6;
		word += blanks(word, l->end);
		n = end_of_tag(l, word, "%}");
		if (!n)
			continue;
		add_data(l, (size_t)(p - l->p), sign, false);
		pass(l, (size_t)(word - p) + n);
		return;
	}
	if (l->p < l->end)
		wj_raise(l->m, "a raw block has no end");
}

/* --- within tags ---------------------------------------------------------------------------------*/

static bool digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool name_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || digit(c);
}

/* Digits with single underscores between them. */
static size_t digits(const char *p, const char *end)
{
	const char *from = p;

	while (p < end &&
	       (digit(*p) || (*p == '_' && p > from && p[-1] != '_' && p + 1 < end && digit(p[1]))))
		p++;
	return (size_t)(p - from);
}

static size_t float_at(const struct lexer *l, const char *p)
{
	const char *from = p, *exp;
	size_t n = digits(p, l->end), k;
	bool fraction = false;

	if (!n || (l->n && l->tokens[l->n - 1].type == WJ_T_OP &&
		   l->tokens[l->n - 1].op[0] == '.' && l->tokens[l->n - 1].p + 1 == p))
		return 0;
	p += n;
	if (p < l->end && *p == '.' && (k = digits(p + 1, l->end))) {
		fraction = true;
		p += 1 + k;
	}
	if (p < l->end && (*p | 32) == 'e') {
		exp = p + 1;
		exp += exp < l->end && (*exp == '+' || *exp == '-');
		k = digits(exp, l->end);
		if (k)
			return (size_t)(exp + k - from);
	}
	return fraction ? (size_t)(p - from) : 0;
}

static bool digit_of(char c, char base)
{
	if (base == 'x')
		return digit(c) || ((c | 32) >= 'a' && (c | 32) <= 'f');
	return c >= '0' && c <= (base == 'b' ? '1' : '7');
}

static size_t int_at(const struct lexer *l, const char *p)
{
	const char *from = p;
	char base = l->end - p >= 2 ? (char)(p[1] | 32) : 0;

	if (!digit(*p))
		return 0;
	if (*p != '0')
		return digits(p, l->end);
	if (base == 'x' || base == 'b' || base == 'o') {
		p += 2;
		while (p < l->end && (digit_of(*p, base) ||
				      (*p == '_' && p + 1 < l->end && digit_of(p[1], base))))
			p++;
		if (p - from > 2)
			return (size_t)(p - from);
		p = from;
	}
	while (p < l->end && (*p == '0' || (*p == '_' && p + 1 < l->end && p[1] == '0')))
		p++;
	return (size_t)(p - from);
}

static size_t string_at(const struct lexer *l, const char *p)
{
	const char *from = p, quote = *p;

	for (p++; p < l->end && *p != quote; p++)
		p += *p == '\\' && p + 1 < l->end;
	return p < l->end ? (size_t)(p + 1 - from) : 0;
}

static size_t operator_at(const struct lexer *l, const char *p)
{
	static const char *const twos[] = {"//", "**", "==", "!=", ">=", "<="};

	for (size_t i = 0; i < sizeof(twos) / sizeof(*twos) && l->end - p >= 2; i++)
		if (!memcmp(p, twos[i], 2))
			return 2;
	return *p && strchr("+-/*%~[](){}><=.:|,;", *p) ? 1 : 0;
}

static void bracket(struct lexer *l, char c)
{
	static const char pairs[] = "()[]{}";
	const char *at = strchr(pairs, c);

	if (!at)
		return;
	if ((at - pairs) % 2 == 0) {
		if (l->n_brackets == MAX_BRACKETS)
			wj_fail(l->m, -ELOOP, "more than %u brackets are open", MAX_BRACKETS);
		else
			l->brackets[l->n_brackets++] = at[1];
		return;
	}
	if (!l->n_brackets || l->brackets[--l->n_brackets] != c)
		wj_raise(l->m, "unexpected '%c'", c);
}

static void add_word(struct lexer *l, const char *p)
{
	size_t n = 1;

	while (p + n < l->end && name_char(p[n]))
		n++;
	if (p + n < l->end && (unsigned char)p[n] >= 0x80)
		wj_refuse(l->m, "a name with characters beyond ASCII is not supported");
	add(l, WJ_T_NAME, p, n);
	pass(l, n);
}

static void token(struct lexer *l)
{
	const char *p = l->p;
	size_t n;

	if ((n = float_at(l, p))) {
		add(l, WJ_T_FLOAT, p, n);
	} else if ((n = int_at(l, p))) {
		add(l, WJ_T_INT, p, n);
	} else if (name_char(*p)) {
		add_word(l, p);
		return;
	} else if (*p == '\'' || *p == '"') {
		n = string_at(l, p);
		if (!n)
			wj_raise(l->m, "a string has no end");
		add(l, WJ_T_STRING, p, n);
	} else if ((n = operator_at(l, p))) {
		if (n == 1)
			bracket(l, *p);
		add(l, WJ_T_OP, p, n);
	} else if ((unsigned char)*p >= 0x80) {
		wj_refuse(l->m, "a name with characters beyond ASCII is not supported");
	} else {
		wj_raise(l->m, "unexpected character '%c'", *p);
	}
	pass(l, n);
}

/* The inside of a block or a variable, to its end. */
static void tag(struct lexer *l, bool variable)
{
	size_t n;

	l->n_brackets = 0;
	while (wj_step(l->m, 1)) {
		n = blanks(l->p, l->end);
		/* A tag's end comes before blanks only in that it cannot begin with one. */
		pass(l, n);
		if (l->p == l->end) {
			wj_raise(l->m, "a tag has no end");
			return;
		}
		n = 0;
		if (!l->n_brackets && !variable)
			n = end_of_tag(l, l->p, "%}");
		else if (!l->n_brackets && at(l, "-}}"))
			n = 3 + blanks(l->p + 3, l->end);
		else if (!l->n_brackets && at(l, "}}"))
			n = 2;
		if (n) {
			add(l, variable ? WJ_T_VAR_END : WJ_T_BLOCK_END, l->p, 2);
			pass(l, n);
			return;
		}
		token(l);
	}
}

/* --- the whole -----------------------------------------------------------------------------------*/

/* The next "{{", "{%" or "{#", or the end. */
static const char *next_tag(const struct lexer *l)
{
	for (const char *p = l->p; (p = memchr(p, '{', (size_t)(l->end - p))); p++) {
		if (l->end - p < 2)
			break;
		if (p[1] == '{' || p[1] == '%' || p[1] == '#')
			return p;
	}
	return l->end;
}

static void root(struct lexer *l)
{
	const char *p = next_tag(l);
	char kind, sign;
	size_t n;

	if (p == l->end) {
		if (p > l->p)
			add(l, WJ_T_DATA, l->p, (size_t)(p - l->p));
		pass(l, (size_t)(p - l->p));
		return;
	}
	kind = p[1];
	sign = sign_at(p + 2, l->end);
	add_data(l, (size_t)(p - l->p), sign, kind == '{');
	n = kind == '%' ? raw_begins(l, p) : 0;
	if (n) {
		pass(l, n);
		raw(l);
		return;
	}
	if (kind != '#')
		add(l, kind == '{' ? WJ_T_VAR_BEGIN : WJ_T_BLOCK_BEGIN, p, 2);
	pass(l, 2 + (size_t)(sign != 0));
	if (kind == '#')
		comment(l);
	else
		tag(l, kind == '{');
}

int wj_lex(struct wj *m, const char *source, size_t bytes, struct wj_token **ret)
{
	struct lexer *l = wj_alloc(m, sizeof(*l));

	if (!l)
		return m->code;
	*l = (struct lexer){.m = m, .p = source, .end = source + bytes, .line_starts = true};
	m->line = 1;
	while (l->p < l->end && wj_step(m, 1))
		root(l);
	add(l, WJ_T_END, l->end, 0);
	*ret = l->tokens;
	return m->code;
}
