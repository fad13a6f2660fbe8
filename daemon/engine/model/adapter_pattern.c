/* SPDX-License-Identifier: Apache-2.0 */
/*
 * adapter_pattern.c - does a pattern of adapter_config.json match the name of a module.
 *
 * PEFT takes the keys of rank_pattern and alpha_pattern, and a target_modules that is a string, for
 * Python regular expressions. What people write there is names, suffixes of names and now and then
 * a choice of layers, so the usual core is matched here, and anything else is refused by name:
 *
 *	expr  = branch { "|" branch }		branch = { atom [ "*" | "+" | "?" ] }
 *	atom  = char | "." | "\." | "\d" | "[" set "]" | "(" [ "?:" ] expr ")" | "^" | "$"
 *
 * Whether a whole string is matched does not depend on the order in which alternatives are tried,
 * so a set of positions is carried through the expression instead; a budget of atoms bounds the
 * work, whatever stands in the file.
 */
#include "daemon/engine/model/adapter_private.h"

#include <errno.h>
#include <string.h>

#define MAX_PATTERN 256
#define MAX_DEPTH   8

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

/* A set in brackets: m->p is behind the "[" and will be behind the "]". Members are kept by code. */
static void parse_class(struct matcher *m, bool member[128])
{
	bool negate = *m->p == '^';

	memset(member, 0, 128 * sizeof(*member));
	m->p += negate;
	do {
		unsigned char first = (unsigned char)*m->p, last = first;

		if (!first || first > 126 || first == '\\' || first == '[') {
			m->refused = "an unclosed set or an escape in a set";
			return;
		}
		m->p++;
		if (m->p[0] == '-' && m->p[1] != ']' && m->p[1]) {
			last = (unsigned char)m->p[1];
			m->p += 2;
		}
		if (last < first || last > 126 || last == '\\' || last == '[') {
			m->refused = "a range in a set";
			return;
		}
		for (unsigned c = first; c <= last; c++)
			member[c] = true;
	} while (*m->p != ']');
	m->p++;
	for (unsigned c = 1; negate && c < 127; c++)
		member[c] = !member[c];
}

/* What the one-character atom at m->p takes; false: m->refused. */
static bool parse_char(struct matcher *m, bool member[128])
{
	char c = *m->p++;

	if (c == '[') {
		parse_class(m, member);
		return !m->refused;
	}
	memset(member, c == '.', 128 * sizeof(*member));
	if (c == '\\') {
		c = *m->p ? *m->p++ : 0;
		if (c == 'd')
			for (int d = '0'; d <= '9'; d++)
				member[d] = true;
		else if (c && strchr(".-_/", c))
			member[(unsigned char)c] = true;
		else
			m->refused = "an escape other than \\. and \\d";
	} else if (strchr("{}]*+?", c) || (unsigned char)c < 0x20 || (unsigned char)c > 126) {
		m->refused = "a character that has a meaning of its own in a regular expression";
	} else {
		member[(unsigned char)c] = true;
	}
	return !m->refused;
}

/* One atom without what may follow it. */
static void match_atom(struct matcher *m, const struct set *from, struct set *to)
{
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
	} else if (*m->p == '^' || *m->p == '$') {
		size_t end = *m->p++ == '^' ? 0 : m->len;

		if (has(from, end))
			add(to, end);
	} else if (parse_char(m, member)) {
		for (size_t i = 0; i < m->len; i++)
			if (has(from, i) && member[m->s[i] & 127])
				add(to, i + 1);
	}
}

/* An atom and its repetition: from the positions in *at to those behind it. */
static void match_repeated(struct matcher *m, struct set *at)
{
	const char *begin = m->p, *end;
	struct set once, all = *at;
	char how;

	match_atom(m, at, &once);
	how = m->refused ? 0 : *m->p;
	if (!how || !strchr("*+?", how)) {
		*at = once;
		return;
	}
	end = ++m->p;
	if (*begin == '^' || *begin == '$' || (*end && strchr("*+?", *end))) {
		m->refused = "a repetition of a repetition or of an anchor, or a lazy one";
		return;
	}
	if (how == '+')
		all = once;
	join(&all, &once);
	/* Each round adds a position or is the last. */
	for (bool grew = how != '?'; grew && !m->refused;) {
		m->p = begin;
		match_atom(m, &all, &once);
		grew = join(&all, &once);
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
		return "more than 256 characters";
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
