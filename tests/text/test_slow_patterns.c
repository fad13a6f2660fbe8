/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_slow_patterns.c - expressions that go back and forth without end are cut short with a clear
 * error, and searches that stop on their way through a long text find what one search would.
 */
#include "libclient/text/weft_text.h"
#include "tests/tap.h"

#include <errno.h>
#include <unistd.h>

static int open_with(struct weft_tokenizer **t, const char *regex, struct weft_error *e)
{
	char json[600];
	struct weft_tokenizer_files files = {.size = sizeof(files), .tokenizer = json};

	snprintf(json, sizeof(json),
		 "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"\\u00e9\": 2, "
		 "\"aa\": 3, \"?\": 4, \"\\u00e9a\": 5}, \"merges\": [\"\\u00e9 a\", \"a a\"], "
		 "\"unk_token\": \"?\"}, "
		 "\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"%s\"}, "
		 "\"behavior\": \"Isolated\", \"invert\": false}}",
		 regex);
	files.tokenizer_bytes = strlen(json);
	return weft_tokenizer_new(t, &files, e);
}

static void test_endless(const char *regex, const char *text)
{
	struct weft_tokenizer *t;
	struct weft_error e = {0};
	uint32_t *ids = NULL;
	size_t n;

	if (open_with(&t, regex, &e))
		bail_out(e.message);
	is_int(weft_encode(t, text, strlen(text), 0, &ids, &n, &e), -ELOOP, "%s is cut short",
	       regex);
	ok(e.code == -ELOOP && strstr(e.message, "expressions"), "and that is said");
	weft_text_free(ids);
	weft_tokenizer_close(t);
}

/*
 * "b" or an e with an accent cuts, and what is between is pairs of "a"; without its cut, an accented e
 * merges with the "a" behind it. A search through so long a text has many stretches; the cuts lie on,
 * before and behind their ends, and some characters have two bytes, so that ends fall between them.
 */
static void test_long(void)
{
	const size_t bytes = 3u << 20;
	char *text = malloc(bytes);
	struct weft_tokenizer *t;
	struct weft_error e = {0};
	uint32_t *ids = NULL;
	size_t n = 0, want = 0, run = 0, at = 0, next = 1, cuts = 0;
	size_t wrong = 0, k = 0;

	if (!text || open_with(&t, "b|\\u00e9", &e))
		bail_out("tokenizer");
	while (at < bytes) {
		if (at >= next && at + 2 <= bytes) {
			text[at++] = '\xc3';
			text[at++] = '\xa9';
			want += (run + 1) / 2 + 1;
			run = 0;
			/* All distances up to several stretches, and now and then a long one. */
			next = at + (++cuts % 400 ? cuts % 400 : 100000);
		} else {
			text[at++] = 'a';
			run++;
		}
	}
	want += (run + 1) / 2;
	is_int(weft_encode(t, text, bytes, 0, &ids, &n, &e), 0, "3 MB with a cut here and there");
	is_int(n, want, "every cut is found");
	/* The tokens spell the text. */
	for (size_t i = 0, p = 0; i < n; i++) {
		const char *s = weft_token_text(t, ids[i]);

		k = s ? strlen(s) : 0;
		wrong += !k || p + k > bytes || memcmp(text + p, s, k);
		p += k;
	}
	is_int(wrong, 0, "and the tokens are the text's");
	weft_text_free(ids);
	weft_tokenizer_close(t);
	free(text);
}

int main(void)
{
	struct weft_tokenizer *t;
	struct weft_error e = {0};

	test_endless("(a|aa)+$", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab");
	test_endless("(?=(a*)*b)a", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
	is_int(open_with(&t, "\\\\Ga", &e), -EOPNOTSUPP, "\\G");
	ok(strstr(e.message, "\\G"), "is refused by name");
	test_long();
	return tap_done();
}
