/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_template.c - libFuzzer on chat templates: the template's source up to a zero byte, the context
 * as JSON behind it (without one: a conversation of our own).
 *
 * Whatever they say, a call ends soon, with a text of valid UTF-8 within its limit, or with a code and
 * one line; and the same call gives the same again. Run by `make fuzz`.
 */
#include "libclient/text/private.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char own[] =
	"{\"messages\": [{\"role\": \"system\", \"content\": \"S\"}, {\"role\": \"user\", "
	"\"content\": [{\"type\": \"text\", \"text\": \"h\\u00e9\"}]}, {\"role\": \"assistant\", "
	"\"content\": null, \"tool_calls\": [{\"id\": 1.5, \"function\": {\"name\": \"f\", "
	"\"arguments\": {\"a\": [1, true]}}}]}], \"add_generation_prompt\": true, "
	"\"strftime_now\": "
	"1e9, \"n\": 7, \"s\": \"Hello \\ud83d\\ude42\", \"l\": [3, 1, 2], \"d\": {\"b\": 2, "
	"\"a\": 1}}";

static void require(bool cond)
{
	if (!cond)
		abort();
}

static int render(const struct weft_template *t, const char *context, size_t bytes, char **text,
		  size_t *n)
{
	struct weft_error e = {0};
	int r;

	*text = NULL;
	r = weft_template_render(t, context, bytes, text, n, &e);
	if (r) {
		require(r < 0 && e.code == r && e.message[0] && !strchr(e.message, '\n'));
		return r;
	}
	require(*n <= WEFT_TEMPLATE_MAX_OUTPUT && !(*text)[*n] && wt_utf8_valid(*text, *n));
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *zero = size ? memchr(data, 0, size) : NULL;
	size_t source = zero ? (size_t)(zero - data) : size, bytes, n = 0, n2 = 0;
	char *copy = malloc(source + 1), *context, *text, *text2;
	struct weft_template *t = NULL;
	struct weft_error e = {0};
	int r;

	memcpy(copy, data, source);
	r = weft_template_new(&t, copy, source, &e);
	/* Nothing points into the source afterwards. */
	memset(copy, 'x', source);
	free(copy);
	if (r) {
		require(r < 0 && e.code == r && e.message[0] && !strchr(e.message, '\n'));
		return 0;
	}
	bytes = zero ? size - source - 1 : sizeof(own) - 1;
	context = malloc(bytes + 1);
	memcpy(context, zero ? (const char *)zero + 1 : own, bytes);
	r = render(t, context, bytes, &text, &n);
	require(render(t, context, bytes, &text2, &n2) == r);
	/* Our own context says what time it is. */
	if (!r && !zero)
		require(n == n2 && !memcmp(text, text2, n));
	weft_text_free(text);
	weft_text_free(text2);
	weft_template_free(t);
	free(context);
	return 0;
}
