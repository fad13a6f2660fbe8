/* SPDX-License-Identifier: Apache-2.0 */
/*
 * regex.c - a file's regular expression, said again for PCRE2.
 *
 * The files' expressions are written for Oniguruma with Ruby's syntax, and much of it PCRE2 would
 * accept and read otherwise. So nothing passes unread: every construct is either known here, and is
 * written as what it means there, or refused by its name. What differs and is translated:
 *
 *   \s \w \b   White_Space; letters, marks, digits, connectors, and outside of brackets the six
 *              numbers of Latin-1, which a table there counts as word characters
 *   \p{Han}    the property Script, where PCRE2 from 10.40 on means Script_Extensions
 *   \h \v      a hexadecimal digit; the one character
 *   (?m)       what PCRE2 calls (?s); ^ and $ are at every line anyway
 *   (?i)       to the end of its group, "|" included: (?i:...)
 *   x{2,3}+    repeated, not possessive; x{2}? is optional, not lazy; x{,3} is x{0,3}
 *
 * Without regard to case, Oniguruma also folds one character to several (U+00DF and "ss"), which
 * PCRE2 does not: whatever could meet such a fold is refused.
 */
#include "libclient/text/private.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define SPACE      \
	"\\t-\\r " \
	"\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define WORD                                                                                   \
	"\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-" \
	"\\x{1f169}\\x{1f170}-\\x{1f189}"
#define WORD_OUTSIDE WORD "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"
#define IS_W	     "[" WORD_OUTSIDE "]"

#define MAX_GROUPS 64
#define NONE	   SIZE_MAX

struct group {
	size_t start;	/* where it begins in the output */
	uint32_t extra; /* groups opened for options, to be closed with it */
	bool fold;	/* what held around it */
};

struct reader {
	const char *p; /* borrowed; n bytes of UTF-8, of which i are read */
	size_t n, i;
	struct wt_buf *b; /* borrowed: the output */
	struct weft_error *error;
	size_t atom;   /* where what a quantifier would repeat begins in the output, or NONE */
	bool fold;     /* without regard to case */
	uint32_t last; /* the character before, if it is literal and folded; or 0 */
	bool named;    /* there are named groups, beside which others capture nothing */
	uint32_t captures, depth;
	struct group groups[MAX_GROUPS];
};

static int __attribute__((format(printf, 2, 3))) refuse(struct reader *t, const char *format, ...)
{
	char what[120];
	va_list args;

	va_start(args, format);
	vsnprintf(what, sizeof(what), format, args);
	va_end(args);
	return wt_fail(t->error, -EOPNOTSUPP, "unsupported in a regular expression: %s", what);
}

static int out(struct reader *t, const char *s)
{
	return wt_buf_add(t->b, s, strlen(s)) ? wt_fail(t->error, -ENOMEM, "out of memory") : 0;
}

/* Something that a quantifier can repeat. */
static int out_atom(struct reader *t, const char *s)
{
	t->atom = t->b->n;
	t->last = 0;
	return out(t, s);
}

static bool is_alnum(uint32_t c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* A character that means itself, in brackets or not. */
static int out_char(struct reader *t, uint32_t c)
{
	char s[16] = {0};

	if (is_alnum(c))
		s[0] = (char)c;
	else
		snprintf(s, sizeof(s), "\\x{%x}", c);
	return out(t, s);
}

static bool has(const struct reader *t, char c)
{
	return t->i < t->n && t->p[t->i] == c;
}

static bool has_text(const struct reader *t, const char *s)
{
	size_t n = strlen(s);

	return n <= t->n - t->i && !memcmp(t->p + t->i, s, n);
}

static uint32_t next_char(struct reader *t)
{
	int len;
	uint32_t c = wt_utf8_next(t->p + t->i, t->n - t->i, &len);

	t->i += (size_t)len;
	return c;
}

/* --- case ----------------------------------------------------------------------------------------*/

static bool is_letter_or_mark(uint32_t c)
{
	utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);

	return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_ME;
}

/* Can these two be (part of) what one character folds to? Of ASCII that is ss, ff, fi, fl and st. */
static bool may_join(uint32_t a, uint32_t b)
{
	if (a >= 0x80 || b >= 0x80)
		return is_letter_or_mark(a) && is_letter_or_mark(b);
	a |= 0x20;
	b |= 0x20;
	return (a == 's' && (b == 's' || b == 't')) ||
	       (a == 'f' && (b == 'f' || b == 'i' || b == 'l'));
}

static int check_fold(struct reader *t, uint32_t c)
{
	utf8proc_int32_t to[8];

	if (!t->fold) {
		t->last = 0;
		return 0;
	}
	if (utf8proc_decompose_char((utf8proc_int32_t)c, to, 8, UTF8PROC_CASEFOLD, NULL) > 1)
		return refuse(t, "U+%04X without regard to case", c);
	if (t->last && may_join(t->last, c))
		return refuse(t, "U+%04X after U+%04X without regard to case", c, t->last);
	t->last = c;
	return 0;
}

static int literal(struct reader *t, uint32_t c)
{
	int r = check_fold(t, c);

	t->atom = t->b->n;
	return r ? r : out_char(t, c);
}

/* --- escapes -------------------------------------------------------------------------------------*/

static int hex_value(char c)
{
	return c >= '0' && c <= '9'			? c - '0'
	       : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
							: -1;
}

/* `least` to `most` hexadecimal digits; false where there are fewer. */
static bool read_hex(struct reader *t, int least, int most, uint32_t *ret)
{
	int n = 0;

	*ret = 0;
	for (; n < most && t->i < t->n && hex_value(t->p[t->i]) >= 0; n++)
		*ret = *ret << 4 | (uint32_t)hex_value(t->p[t->i++]);
	return n >= least;
}

/*
 * After a backslash: 1 and the one character that it stands for, 0 where it is another thing (then
 * nothing is read), or -errno.
 */
static int read_escaped(struct reader *t, bool in_class, uint32_t *ret)
{
	static const char controls[] = "t\tn\nr\rf\fa\ae\033v\v";
	char e = t->p[t->i];
	bool right;

	if (!is_alnum((unsigned char)e)) {
		*ret = next_char(t);
		return 1;
	}
	for (const char *c = controls; *c; c += 2)
		if (*c == e) {
			t->i++;
			*ret = (unsigned char)c[1];
			return 1;
		}
	if (e == 'b' && in_class) {
		t->i++;
		*ret = '\b';
		return 1;
	}
	if (e == 'x' || e == 'u') {
		t->i++;
		if (e == 'x' && has(t, '{')) {
			t->i++;
			right = read_hex(t, 1, 6, ret) && has(t, '}');
			t->i += right;
		} else {
			/* \x80 and above are bytes there, not characters. */
			right = e == 'x' ? read_hex(t, 2, 2, ret) && *ret < 0x80
					 : read_hex(t, 4, 4, ret);
		}
		if (!right || *ret > 0x10ffff || (*ret >= 0xd800 && *ret < 0xe000))
			return refuse(t, "\\%c without a character's number", e);
		return 1;
	}
	if (e == '0') {
		*ret = 0;
		for (int k = 0; k < 3 && t->i < t->n && t->p[t->i] >= '0' && t->p[t->i] <= '7'; k++)
			*ret = *ret * 8 + (uint32_t)(t->p[t->i++] - '0');
		return 1;
	}
	return 0;
}

/* A property's name as it is compared: without case, blanks, "_" and "-". */
static bool read_name(struct reader *t, char *name, size_t room)
{
	size_t k = 0;

	for (; t->i < t->n && t->p[t->i] != '}'; t->i++) {
		char c = t->p[t->i];

		if (c == ' ' || c == '_' || c == '-')
			continue;
		if (!is_alnum((unsigned char)c) || k + 1 >= room)
			return false;
		name[k++] = (char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
	}
	name[k] = 0;
	return k && has(t, '}');
}

static bool is_listed(const char *const *list, const char *name)
{
	while (*list && strcmp(*list, name))
		list++;
	return *list;
}

/* Before 10.40 PCRE2 had no Script_Extensions, and no way to say which of the two is meant. */
static const char *script_prefix(void)
{
	char version[64] = "";
	int major = 0, minor = 0;

	if (pcre2_config(PCRE2_CONFIG_VERSION, NULL) < (int)sizeof(version))
		pcre2_config(PCRE2_CONFIG_VERSION, version);
	if (sscanf(version, "%d.%d", &major, &minor) == 2 &&
	    (major < 10 || (major == 10 && minor < 40)))
		return "";
	return "sc:";
}

/* \p{...} and \P{...}, of which the letter is read. A script that is none PCRE2 will not compile. */
static int property(struct reader *t, char e, bool in_class)
{
	static const char *const cased[] = {"lu",	 "ll",	  "lt",	       "upper",
					    "uppercase", "lower", "lowercase", NULL};
	static const char *const same[] = {"l",
					   "lu",
					   "ll",
					   "lt",
					   "lm",
					   "lo",
					   "lc",
					   "m",
					   "mn",
					   "mc",
					   "me",
					   "n",
					   "nd",
					   "nl",
					   "no",
					   "p",
					   "pc",
					   "pd",
					   "ps",
					   "pe",
					   "pi",
					   "pf",
					   "po",
					   "s",
					   "sm",
					   "sc",
					   "sk",
					   "so",
					   "z",
					   "zs",
					   "zl",
					   "zp",
					   "c",
					   "cc",
					   "cf",
					   "co",
					   "cn",
					   "cs",
					   "any",
					   "alpha",
					   "alphabetic",
					   "upper",
					   "uppercase",
					   "lower",
					   "lowercase",
					   "space",
					   "whitespace",
					   "emoji",
					   "emojipresentation",
					   "extendedpictographic",
					   "ideographic",
					   "ids",
					   "idstart",
					   "math",
					   "hexdigit",
					   "dash",
					   NULL};
	bool negated = e == 'P';
	char name[64], text[96];

	if (!has(t, '{'))
		return refuse(t, "\\%c without braces", e);
	t->i++;
	if (has(t, '^')) {
		negated = !negated;
		t->i++;
	}
	if (!read_name(t, name, sizeof(name)))
		return refuse(t, "the name of a property");
	t->i++;
	if (t->fold && (in_class || is_listed(cased, name)))
		return refuse(t, "\\p{%s} without regard to case%s", name,
			      in_class ? ", in brackets" : "");
	snprintf(text, sizeof(text), "\\%c{%s%s}", negated ? 'P' : 'p',
		 is_listed(same, name) ? "" : script_prefix(), name);
	return in_class ? out(t, text) : out_atom(t, text);
}

/* \1: to a group that is before it. */
static int back_reference(struct reader *t)
{
	char s[8] = {'\\', 'g', '{', t->p[t->i], '}'}; /* no digit that follows can join it */
	uint32_t k = (uint32_t)(t->p[t->i++] - '0');

	if (t->fold || t->named || k > t->captures ||
	    (t->i < t->n && t->p[t->i] >= '0' && t->p[t->i] <= '9'))
		return refuse(t, "this use of \\%u", k);
	return out_atom(t, s);
}

/* NAME and what ends it, to the output too. */
static int group_name(struct reader *t, char end)
{
	size_t from = t->i;

	while (t->i < t->n && (is_alnum((unsigned char)t->p[t->i]) || t->p[t->i] == '_'))
		t->i++;
	if (t->i == from || !has(t, end))
		return refuse(t, "the name of a group");
	t->i++;
	t->named = true;
	return wt_buf_add(t->b, t->p + from, t->i - from)
		       ? wt_fail(t->error, -ENOMEM, "out of memory")
		       : 0;
}

static int escape(struct reader *t)
{
	uint32_t c;
	int r;
	char e;

	if (t->i == t->n)
		return wt_fail(t->error, -EINVAL, "a regular expression ends with a backslash");
	r = read_escaped(t, false, &c);
	if (r)
		return r < 0 ? r : literal(t, c);
	e = t->p[t->i];
	if (e >= '1' && e <= '9')
		return back_reference(t);
	t->i++;
	switch (e) {
	case 's':
		return out_atom(t, "[" SPACE "]");
	case 'S':
		return out_atom(t, "[^" SPACE "]");
	case 'w':
		return out_atom(t, IS_W);
	case 'W':
		return out_atom(t, "[^" WORD_OUTSIDE "]");
	case 'd':
		return out_atom(t, "\\d");
	case 'D':
		return out_atom(t, "\\D");
	case 'h':
		return out_atom(t, "[0-9a-fA-F]");
	case 'H':
		return out_atom(t, "[^0-9a-fA-F]");
	case 'N':
		return out_atom(t, "[^\\n]");
	case 'R':
		return out_atom(t, "(?>\\r\\n|[\\n-\\r\\x{85}\\x{2028}\\x{2029}])");
	case 'b':
		return out_atom(t, "(?:(?<=" IS_W ")(?!" IS_W ")|(?<!" IS_W ")(?=" IS_W "))");
	case 'B':
		return out_atom(t, "(?:(?<=" IS_W ")(?=" IS_W ")|(?<!" IS_W ")(?!" IS_W "))");
	case 'A':
		return out_atom(t, "\\A");
	case 'z':
		return out_atom(t, "\\z");
	case 'Z':
		return out_atom(t, "\\Z");
	case 'K':
		return out_atom(t, "\\K");
	case 'p':
	case 'P':
		return property(t, e, false);
	case 'k':
		if (!has(t, '<') || t->fold)
			return refuse(t, "this use of \\k");
		t->i++;
		r = out_atom(t, "\\k<");
		return r ? r : group_name(t, '>');
	default: /* among them \G: a search goes on from where it stopped, which is not where it means */
		return refuse(t, "\\%c", e);
	}
}

/* --- brackets ------------------------------------------------------------------------------------*/

/* 1 and a character, 0 where a set was read and written, or -errno. */
static int class_member(struct reader *t, uint32_t *ret)
{
	char e;
	int r;

	if (!has(t, '\\')) {
		*ret = next_char(t);
		return 1;
	}
	t->i++;
	if (t->i == t->n)
		return wt_fail(t->error, -EINVAL, "a regular expression ends with a backslash");
	r = read_escaped(t, true, ret);
	if (r)
		return r;
	e = t->p[t->i++];
	switch (e) {
	case 's':
		return out(t, SPACE);
	case 'w':
		return t->fold ? refuse(t, "\\w without regard to case, in brackets")
			       : out(t, WORD);
	case 'd':
		return out(t, "\\d");
	case 'D':
		return out(t, "\\D");
	case 'h':
		return out(t, "0-9a-fA-F");
	case 'p':
	case 'P':
		return property(t, e, true);
	default:
		return refuse(t, "\\%c in brackets", e);
	}
}

/* One character, or from one to another. */
static int class_range(struct reader *t, uint32_t from)
{
	uint32_t to = from;
	int r = 0;

	if (has(t, '-') && !has_text(t, "-]")) {
		t->i++;
		if (has(t, '[') || has_text(t, "&&"))
			return refuse(t, "a class within a class");
		if (t->i == t->n)
			return wt_fail(t->error, -EINVAL,
				       "a regular expression has \"[\" without \"]\"");
		r = class_member(t, &to);
		if (r <= 0)
			return r ? r : refuse(t, "a range that ends with a class");
		if (has(t, '-') && !has_text(t, "-]"))
			return refuse(t, "\"-\" after a range, in brackets");
	}
	if (t->fold && (to != from ? to >= 0x80 : to >= 0x80 && is_letter_or_mark(to)))
		return refuse(t, "U+%04X without regard to case, in brackets", to);
	r = out_char(t, from);
	if (r || to == from)
		return r;
	r = out(t, "-");
	return r ? r : out_char(t, to);
}

static int brackets(struct reader *t)
{
	uint32_t c;
	int r = out_atom(t, has(t, '^') ? "[^" : "[");

	t->i += has(t, '^');
	if (has(t, ']'))
		return refuse(t, "\"]\" first in brackets");
	while (!r && t->i < t->n && t->p[t->i] != ']') {
		bool dash = has(t, '-');

		if (has(t, '[') || has_text(t, "&&"))
			return refuse(t, "a class within a class");
		r = class_member(t, &c);
		if (r == 1 && dash && has(t, '-') && !has_text(t, "-]"))
			return refuse(t, "a range from \"-\"");
		if (r == 1)
			r = class_range(t, c);
		else if (!r && has(t, '-') && !has_text(t, "-]"))
			return refuse(t, "\"-\" after a class, in brackets");
	}
	if (r)
		return r;
	if (t->i == t->n)
		return wt_fail(t->error, -EINVAL, "a regular expression has \"[\" without \"]\"");
	t->i++;
	return out(t, "]");
}

/* --- groups --------------------------------------------------------------------------------------*/

static int open_group(struct reader *t, const char *text)
{
	if (t->depth + 1 == MAX_GROUPS)
		return refuse(t, "groups %u deep", MAX_GROUPS);
	t->depth++;
	t->groups[t->depth] = (struct group){.start = t->b->n, .fold = t->fold};
	t->atom = NONE;
	return out(t, text);
}

static int close_extra(struct reader *t)
{
	int r = 0;

	for (; t->groups[t->depth].extra && !r; t->groups[t->depth].extra--)
		r = out(t, ")");
	return r;
}

static int close_group(struct reader *t)
{
	int r = close_extra(t);

	if (!t->depth)
		return wt_fail(t->error, -EINVAL, "a regular expression has \")\" without \"(\"");
	t->atom = t->groups[t->depth].start;
	t->fold = t->groups[t->depth].fold;
	t->depth--;
	return r ? r : out(t, ")");
}

/* (?im-im) and (?im-im:...), of which "(?" is read. */
static int options(struct reader *t)
{
	bool off = false, fold = t->fold;
	char text[16] = "(?";
	size_t k = 2;
	int r;

	for (; t->i < t->n && t->p[t->i] != ')' && t->p[t->i] != ':'; t->i++) {
		char c = t->p[t->i];

		if ((c != 'i' && c != 'm' && (c != '-' || off)) || k > 8)
			return refuse(t, "(?%c", c);
		if (c == 'i')
			fold = !off;
		off = off || c == '-';
		text[k++] = (char)(c == 'm' ? 's' : c);
	}
	if (t->i == t->n)
		return refuse(t, "(? without its end");
	text[k++] = ':';
	text[k] = 0;
	if (t->p[t->i++] == ':') {
		r = open_group(t, text);
	} else {
		t->groups[t->depth].extra++;
		t->atom = NONE;
		r = out(t, text);
	}
	t->fold = fold;
	return r;
}

/* "(" is read. */
static int group(struct reader *t)
{
	static const char *const plain[] = {"?:", "?=", "?!", "?>", "?<=", "?<!"};
	char text[8];
	int r;

	for (size_t k = 0; k < sizeof(plain) / sizeof(*plain); k++)
		if (has_text(t, plain[k])) {
			t->i += strlen(plain[k]);
			snprintf(text, sizeof(text), "(%s", plain[k]);
			return open_group(t, text);
		}
	if (has_text(t, "?#")) {
		while (t->i < t->n && t->p[t->i] != ')' && t->p[t->i] != '\\')
			t->i++;
		return has(t, ')') ? (t->i++, 0) : refuse(t, "this comment");
	}
	if (has_text(t, "?<") || has_text(t, "?'")) {
		char end = t->p[t->i + 1] == '<' ? '>' : '\'';

		t->i += 2;
		r = open_group(t, end == '>' ? "(?<" : "(?'");
		return r ? r : group_name(t, end);
	}
	if (has(t, '*'))
		return refuse(t, "(*");
	if (has(t, '?')) {
		t->i++;
		if (t->i < t->n && !memchr("im-", t->p[t->i], 3))
			return refuse(t, "(?%c", t->p[t->i]);
		return options(t);
	}
	t->captures++;
	return open_group(t, "(");
}

/* --- quantifiers ---------------------------------------------------------------------------------*/

/* {2} {2,} {,3} {2,3}: false, and nothing read, where it is none of these. high: -1 for no limit. */
static bool read_interval(struct reader *t, long *low, long *high, bool *fixed)
{
	size_t i = t->i;
	long v[2] = {-1, -1};

	*fixed = true;
	for (int k = 0; k < 2; k++) {
		for (; i < t->n && t->p[i] >= '0' && t->p[i] <= '9' && v[k] < 100000; i++)
			v[k] = (v[k] < 0 ? 0 : v[k]) * 10 + (t->p[i] - '0');
		if (k || i == t->n || t->p[i] != ',')
			break;
		*fixed = false;
		i++;
	}
	if (i == t->n || t->p[i] != '}' || (v[0] < 0 && v[1] < 0))
		return false;
	t->i = i + 1;
	*low = v[0] < 0 ? 0 : v[0];
	*high = *fixed ? *low : v[1];
	return true;
}

/* The atom and its quantifier as a group, for what follows to repeat. */
static int wrap(struct reader *t)
{
	int r = out(t, "(?:)");

	if (r)
		return r;
	memmove(t->b->p + t->atom + 3, t->b->p + t->atom, t->b->n - 4 - t->atom);
	memcpy(t->b->p + t->atom, "(?:", 3);
	t->b->p[t->b->n - 1] = ')';
	return 0;
}

/* "{" is read. */
static int interval(struct reader *t)
{
	bool fixed, abbreviated = has(t, ',');
	char s[48];
	long low, high;
	int r;

	if (!read_interval(t, &low, &high, &fixed))
		return literal(t, '{');
	if (t->atom == NONE || (high >= 0 && high < low))
		return refuse(t, "this use of {%ld,%ld}", low, high);
	/* What is folded could join with its own repetition. */
	if (t->fold && t->last)
		return refuse(t, "{%ld} without regard to case", low);
	if (fixed)
		snprintf(s, sizeof(s), "{%ld}", low);
	else if (high < 0)
		snprintf(s, sizeof(s), "{%ld,}", low);
	else
		snprintf(s, sizeof(s), "{%ld,%ld}", low, high);
	r = out(t, s);
	if (!r && (has(t, '+') || has(t, '?'))) {
		char more[2] = {t->p[t->i++], 0};

		if (abbreviated)
			return refuse(t, "\"%s\" after {,%ld}", more, high);
		if (*more == '+' || fixed)
			r = wrap(t);
		r = r ? r : out(t, more);
	}
	if (!r && t->i < t->n && memchr("*+?{", t->p[t->i], 4))
		return refuse(t, "\"%c\" after {%ld}", t->p[t->i], low);
	t->atom = NONE;
	return r;
}

/* *, + or ?, and whether it is lazy or possessive; PCRE2 refuses any that follows. */
static int quantifier(struct reader *t, char c)
{
	char s[3] = {c, 0, 0};

	if (t->atom == NONE)
		return refuse(t, "\"%c\" after nothing that it could repeat", c);
	if (t->fold && t->last && c != '?')
		t->last = may_join(t->last, t->last) ? t->last : 0;
	else
		t->last = 0;
	if (has(t, '?') || has(t, '+'))
		s[1] = t->p[t->i++];
	t->atom = NONE;
	return out(t, s);
}

/* --- the whole -----------------------------------------------------------------------------------*/

static int step(struct reader *t)
{
	uint32_t c = next_char(t);

	switch (c) {
	case '\\':
		return escape(t);
	case '[':
		return brackets(t);
	case '(':
		return group(t);
	case ')':
		return close_group(t);
	case '{':
		return interval(t);
	case '*':
	case '+':
	case '?':
		return quantifier(t, (char)c);
	case '|':
		t->last = 0;
		t->atom = NONE;
		return out(t, "|");
	case '.':
		return out_atom(t, ".");
	case '^':
		return out_atom(t, "^");
	case '$':
		return out_atom(t, "$");
	default:
		return literal(t, c);
	}
}

int wt_regex_translate(struct wt_buf *b, const char *regex, size_t bytes, struct weft_error *error)
{
	struct reader t = {.p = regex, .n = bytes, .b = b, .error = error, .atom = NONE};
	int r = 0;

	while (t.i < t.n && !r)
		r = step(&t);
	if (!r && t.depth)
		r = wt_fail(error, -EINVAL, "a regular expression has \"(\" without \")\"");
	return r ? r : close_extra(&t);
}
