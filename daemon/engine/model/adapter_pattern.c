/* SPDX-License-Identifier: Apache-2.0 */
/*
 * adapter_pattern.c - does a pattern of adapter_config.json match the name of a module.
 *
 * PEFT takes the keys of rank_pattern and alpha_pattern, and a target_modules that is a string, for
 * Python regular expressions. What people write there is names, suffixes of names and now and then
 * a choice of layers, so the usual core is matched here, and anything else is refused by name:
 *
 *	expr   = branch { "|" branch }		branch = { atom [ repeat ] }
 *	repeat = ( "*" | "+" | "?" | "{m}" | "{m,}" | "{m,n}" ) [ "?" ]
 *	atom   = char | "." | escape | "[" set "]" | "(" [ "?:" ] expr ")" | "^" | "$" | "\b"
 *	escape = "\." "\-" "\_" "\/" "\d" "\w"
 *
 * Whether a whole string is matched does not depend on the order in which alternatives are tried
 * (so that a lazy repetition is the same as a greedy one), and a set of positions is carried through the expression instead; a budget of atoms bounds the
 * work, whatever stands in the file.
 */
#include "daemon/engine/model/adapter_private.h"

#include <errno.h>
#include <string.h>

#define MAX_PATTERN 1024
#define MAX_DEPTH   8
#define MAX_REPEAT  255
#define FOR_EVER    UINT32_MAX

/* Positions 0..len of the name at which a match may have arrived. */
struct set {
	uint64_t at[(ADAPTER_MAX_NAME + 64) / 64];
};

struct matcher {
	const char *p; /* the next character of the pattern */
	const char *s;
	size_t len;
	int depth;
	uint64_t *budget;    /* atoms that may still be tried */
	const char *refused; /* what is not supported; matching stops */
};

static bool has(const struct set *set, size_t i)
{
	return set->at[i / 64] >> (i % 64) & 1;
}

static void add(struct set *set, size_t i)
{
	set->at[i / 64] |= UINT64_C(1) << (i % 64);
}

/* Add all of `more`; whether that was anything new. */
static bool join(struct set *set, const struct set *more)
{
	bool grew = false;

	for (size_t i = 0; i < sizeof(set->at) / sizeof(set->at[0]); i++) {
		grew = grew || (more->at[i] & ~set->at[i]);
		set->at[i] |= more->at[i];
	}
	return grew;
}

static void match_expr(struct matcher *m, const struct set *from, struct set *to);

static bool is_word(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '_';
}

/* Add what an escape stands for: m->p is behind the backslash and will be behind the escape. */
static void parse_escape(struct matcher *m, bool member[128])
{
	char c = *m->p;

	if (!c || !strchr("dw.-_/", c)) {
		m->refused = "an escape other than \\. \\- \\_ \\/ \\b \\d \\w";
		return;
	}
	m->p++;
	for (unsigned k = 1; k < 127; k++)
		if (c == 'd'   ? k >= '0' && k <= '9'
		    : c == 'w' ? is_word((char)k)
			       : k == (unsigned char)c)
			member[k] = true;
}

/* A character of a set, or the first and last of a range. */
static void parse_member(struct matcher *m, bool member[128])
{
	unsigned char first = (unsigned char)*m->p, last = first;

	if (first == '\\') {
		m->p++;
		parse_escape(m, member);
		if (!m->refused && m->p[0] == '-' && m->p[1] != ']')
			m->refused = "a range from an escape";
		return;
	}
	if (!first || first > 126 || first == '[') {
		m->refused = "an unclosed set, or a bracket in one";
		return;
	}
	m->p++;
	if (m->p[0] == '-' && m->p[1] != ']' && m->p[1]) {
		last = (unsigned char)m->p[1];
		m->p += 2;
	}
	if (last < first || last > 126 || last == '\\' || last == '[') {
		m->refused = "such a range in a set";
		return;
	}
	for (unsigned c = first; c <= last; c++)
		member[c] = true;
}

/* A set in brackets: m->p is behind the "[" and will be behind the "]". */
static void parse_class(struct matcher *m, bool member[128])
{
	bool negate = *m->p == '^';

	memset(member, 0, 128 * sizeof(*member));
	m->p += negate;
	do
		parse_member(m, member);
	while (!m->refused && *m->p != ']');
	if (m->refused)
		return;
	m->p++;
	for (unsigned c = 1; negate && c < 127; c++)
		member[c] = !member[c];
}

/* What the one-character atom at m->p takes; false: m->refused. */
static bool parse_char(struct matcher *m, bool member[128])
{
	char c = *m->p++;

	memset(member, c == '.', 128 * sizeof(*member));
	if (c == '[')
		parse_class(m, member);
	else if (c == '\\')
		parse_escape(m, member);
	else if (strchr("{}]*+?", c) || (unsigned char)c < 0x20 || (unsigned char)c > 126)
		m->refused = "a character that has a meaning of its own in a regular expression";
	else
		member[(unsigned char)c] = true;
	return !m->refused;
}

/* "^", "$" or "\b": takes nothing, and holds at some places only. */
static bool is_anchor(const char *p)
{
	return *p == '^' || *p == '$' || (p[0] == '\\' && p[1] == 'b');
}

static void match_anchor(struct matcher *m, const struct set *from, struct set *to)
{
	char what = *m->p++;

	m->p += what == '\\';
	for (size_t i = 0; i <= m->len; i++) {
		bool holds = what == '^' ? i == 0 : i == m->len;

		if (what == '\\')
			holds = (i > 0 && is_word(m->s[i - 1])) != (i < m->len && is_word(m->s[i]));
		if (holds && has(from, i))
			add(to, i);
	}
}

/* One atom without what may follow it. */
static void match_atom(struct matcher *m, const struct set *at, struct set *to)
{
	const struct set copy = *at, *from = &copy; /* `to` may be the same */
	bool member[128];

	memset(to, 0, sizeof(*to));
	if (!*m->budget) {
		m->refused = "too much work";
		return;
	}
	--*m->budget;
	if (*m->p == '(') {
		m->p++;
		if (m->p[0] == '?' && m->p[1] == ':')
			m->p += 2;
		if (++m->depth > MAX_DEPTH) {
			m->refused = "groups nested too deep";
			return;
		}
		match_expr(m, from, to);
		m->depth--;
		if (!m->refused && *m->p++ != ')')
			m->refused = "an unclosed group";
	} else if (is_anchor(m->p)) {
		match_anchor(m, from, to);
	} else if (parse_char(m, member)) {
		for (size_t i = 0; i < m->len; i++)
			if (has(from, i) && member[m->s[i] & 127])
				add(to, i + 1);
	}
}

static uint32_t parse_number(struct matcher *m)
{
	uint32_t n = 0;

	while (*m->p >= '0' && *m->p <= '9' && n <= MAX_REPEAT)
		n = n * 10 + (uint32_t)(*m->p++ - '0');
	return n;
}

/* "{m}", "{m,}" or "{m,n}" behind its "{". */
static void parse_braces(struct matcher *m, uint32_t *ret_min, uint32_t *ret_max)
{
	const char *begin = m->p;

	*ret_min = *ret_max = parse_number(m);
	if (m->p != begin && *m->p == ',') {
		begin = ++m->p;
		*ret_max = parse_number(m);
		if (m->p == begin)
			*ret_max = FOR_EVER;
	}
	if (m->p == begin && *ret_max != FOR_EVER)
		m->refused = "a brace that begins no repetition";
	else if (*m->p++ != '}')
		m->refused = "a repetition that is not closed";
	else if (*ret_min > MAX_REPEAT || (*ret_max > MAX_REPEAT && *ret_max != FOR_EVER) ||
		 *ret_min > *ret_max)
		m->refused = "a repetition of more than 255, or of less than its least";
}

/* How often the atom that ends at m->p is wanted; whether anything is said at all. */
static bool parse_repeat(struct matcher *m, uint32_t *ret_min, uint32_t *ret_max)
{
	char how = *m->p;

	if (!how || !strchr("*+?{", how))
		return false;
	m->p++;
	*ret_min = how == '+';
	*ret_max = how == '?' ? 1 : FOR_EVER;
	if (how == '{')
		parse_braces(m, ret_min, ret_max);
	if (!m->refused && *m->p == '?') /* lazy */
		m->p++;
	if (!m->refused && *m->p && strchr("*+?{", *m->p))
		m->refused = "a repetition of a repetition";
	return true;
}

/* An atom and its repetition: from the positions in *at to those behind it. */
static void match_repeated(struct matcher *m, struct set *at)
{
	const char *begin = m->p, *end;
	uint32_t min, max;
	struct set now, all = {{0}};

	match_atom(m, at, &now);
	if (m->refused || !parse_repeat(m, &min, &max)) {
		*at = now;
		return;
	}
	end = m->p;
	if (is_anchor(begin))
		m->refused = "a repetition of an anchor";
	/* `now` holds what i times lead to. Once that adds nothing, nothing later will. */
	now = *at;
	for (uint32_t i = 0; !m->refused; i++) {
		if (i >= min && !join(&all, &now))
			break;
		if (i == max)
			break;
		m->p = begin;
		match_atom(m, &now, &now);
	}
	m->p = end;
	*at = all;
}

static void match_expr(struct matcher *m, const struct set *from, struct set *to)
{
	struct set at;

	memset(to, 0, sizeof(*to));
	for (;;) {
		at = *from;
		while (!m->refused && *m->p && *m->p != '|' && *m->p != ')')
			match_repeated(m, &at);
		join(to, &at);
		if (m->refused || *m->p != '|')
			return;
		m->p++;
	}
}

/* Run the whole pattern; the positions at which it may begin are in *from. */
static bool run(struct matcher *m, const struct set *from)
{
	struct set to;

	match_expr(m, from, &to);
	if (!m->refused && *m->p)
		m->refused = "a group closed that was not opened";
	return !m->refused && has(&to, m->len);
}

const char *adapter_pattern_check(const char *pattern)
{
	uint64_t budget = 1000 * MAX_PATTERN;
	struct matcher m = {.p = pattern, .s = "", .budget = &budget};
	struct set from = {{1}};

	if (strlen(pattern) > MAX_PATTERN)
		return "more than 1024 characters";
	run(&m, &from);
	return m.refused;
}

int adapter_pattern_match(const char *pattern, const char *s, bool suffix, uint64_t *budget)
{
	struct matcher m = {.p = pattern, .s = s, .len = strlen(s), .budget = budget};
	struct set from = {{1}};
	bool matched;

	if (m.len > ADAPTER_MAX_NAME)
		return 0;
	for (size_t i = 0; suffix && i < m.len; i++)
		if (s[i] == '.')
			add(&from, i + 1);
	matched = run(&m, &from);
	return m.refused ? -E2BIG : matched;
}
