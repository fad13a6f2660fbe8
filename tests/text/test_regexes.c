/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_regexes.c - where expressions cut, against the published implementation: those of published
 * models, and one for each construct that PCRE2 by itself would read otherwise. The ids of each text are
 * its bytes with a blank before each piece. What has no equal is refused by its name.
 */
#include "libclient/text/weft_text.h"
#include "tests/tap.h"
#include "tests/text/strings.h"

#include <errno.h>
#include <jansson.h>

static json_t *data, *pattern;

/* The tokenizer that cuts at the expression; 0 or -errno. */
static int open_with(struct weft_tokenizer **t, const char *regex, struct weft_error *e)
{
	struct weft_tokenizer_files files = {.size = sizeof(files)};
	char *text;
	int r;

	json_object_set_new(pattern, "Regex", json_string(regex));
	text = json_dumps(json_object_get(data, "tokenizer"), JSON_COMPACT);
	if (!text)
		bail_out("no memory");
	files.tokenizer = text;
	files.tokenizer_bytes = strlen(text);
	r = weft_tokenizer_new(t, &files, e);
	free(text);
	return r;
}

static void check(const char *regex, uint32_t want)
{
	struct weft_tokenizer *t;
	struct weft_error e;
	json_t *text;
	size_t i;
	uint32_t h = FNV_START;

	if (open_with(&t, regex, &e)) {
		ok(0, "%s", regex);
		diag("%s", e.message);
		return;
	}
	json_array_foreach(json_object_get(data, "texts"), i, text)
	{
		uint32_t *ids;
		size_t n;

		if (weft_encode(t, json_string_value(text), json_string_length(text), 0, &ids, &n,
				&e))
			bail_out(e.message);
		h = fnv(h, ids, n * 4);
		h = fnv(h, "\xff\xff\xff\xff", 4);
		weft_text_free(ids);
	}
	ok(h == want, "%s", regex);
	weft_tokenizer_close(t);
}

static void refused(const char *regex, const char *word)
{
	struct weft_tokenizer *t;
	struct weft_error e = {0};
	int r = open_with(&t, regex, &e);

	if (!ok(r == -EOPNOTSUPP && strstr(e.message, "unsupported in a regular expression: ") &&
			strstr(e.message, word),
		"%s is refused: %s", regex, word))
		diag("%d: %s", r, e.message);
	if (!r)
		weft_tokenizer_close(t);
}

/* Cut off where a range goes on. */
static void test_cut_off(void)
{
	static const char *const cut[] = {"[", "[a", "[a-", "[\\0-", "[a-\\", "\\", "(", "(?"};

	for (size_t i = 0; i < sizeof(cut) / sizeof(*cut); i++) {
		struct weft_error e = {0};
		struct weft_tokenizer *t = NULL;
		int r = open_with(&t, cut[i], &e);

		ok(r < 0 && *e.message, "\"%s\" is not whole: %s", cut[i], e.message);
		if (!r)
			weft_tokenizer_close(t);
	}
}

static void test_refused(void)
{
	refused("\\pL", "\\p without braces");
	refused("\\Qa\\E", "\\Q");
	refused("[\\Qa]", "\\Q in brackets");
	refused("\\X", "\\X");
	refused("\\V", "\\V");
	refused("\\g<n>", "\\g");
	refused("\\Ga", "\\G");
	refused("[\\S]", "\\S in brackets");
	refused("[\\H]", "\\H in brackets");
	refused("[[:alpha:]]", "a class within a class");
	refused("[a-z&&b]", "a class within a class");
	refused("[]a]", "\"]\" first in brackets");
	refused("[a-c-e]", "\"-\" after a range");
	refused("[\\s-x]", "\"-\" after a class");
	refused("[!-\\s]", "a range that ends with a class");
	refused("\\xe3\\x81\\x82", "\\x without a character's number");
	refused("(?x: a)", "(?x");
	refused("(?~ab)", "(?~");
	refused("(?P<n>a)", "(?P");
	refused("(?R)", "(?R");
	refused("(*UCP)a", "(*");
	refused("a{2,1}", "{2,1}");
	refused("a{,2}+", "\"+\" after {,2}");
	refused("a{1,2}+?", "\"?\" after {1}");
	refused("\\p{Script=Han}", "the name of a property");
	refused("\\p{Nobody}", "a property in");
	refused("\\1(a)", "this use of \\1");
	refused("(?<n>a)(b)\\1", "this use of \\1");
	refused("(?i)\\p{Lu}", "\\p{lu} without regard to case");
	refused("(?i)[\\p{L}]", "\\p{l} without regard to case, in brackets");
	refused("(?i)[^\\w]", "\\w without regard to case, in brackets");
	refused("(?i)[\xc3\xa0-\xc3\xbf]", "U+00FF without regard to case, in brackets");
	refused("(?i)\xc3\x9f", "U+00DF without regard to case");
	refused("(?i:ma(?:s)s)", "U+0073 after U+0073");
	refused("(?i)s(?#x)\\x73", "U+0073 after U+0073");
	refused("(?i)of(?-i:)f", "U+0066 after U+0066");
	refused("(?i)s{2}", "{2} without regard to case");
}

int main(void)
{
	size_t bytes, n;
	char *text = read_file(tokenizer_path("../regexes.json"), &bytes);
	const char *regex;
	json_t *digest;

	data = json_loadb(text, bytes, JSON_ALLOW_NUL, NULL);
	free(text);
	pattern = json_object_get(json_object_get(data, "tokenizer"), "pre_tokenizer");
	pattern = json_array_get(json_object_get(pattern, "pretokenizers"), 0);
	pattern = json_object_get(pattern, "pattern");
	n = json_object_size(json_object_get(data, "expressions"));
	ok(pattern && n > 150, "%zu expressions", n);
	json_object_foreach(json_object_get(data, "expressions"), regex, digest)
		check(regex, (uint32_t)json_integer_value(digest));
	test_cut_off();
	test_refused();
	json_decref(data);
	return tap_done();
}
