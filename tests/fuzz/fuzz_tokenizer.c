/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_tokenizer.c - libFuzzer on tokenizers and texts: tokenizer.json up to a zero byte, a text
 * behind it.
 *
 * Whatever they say, a call ends soon. What is accepted gives ids that have tokens, the same each
 * time; their text is valid UTF-8, and the same from a stream; at byte level, with all bytes in the
 * vocabulary and nothing that changes text on the way, it is the text that went in. Run by
 * `make fuzz`.
 */
#include "libclient/text/private.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool cond)
{
	if (!cond)
		abort();
}

static bool refused(int r, const struct weft_error *e)
{
	require(r <= 0 && (!r || (e->code == r && e->message[0] && !strchr(e->message, '\n'))));
	return r != 0;
}

/* A stream's pieces together are the text, but for ill-formed runs of byte tokens. */
static void check_stream(struct weft_tokenizer *t, const uint32_t *ids, size_t n, const char *text,
			 size_t bytes)
{
	struct weft_stream *s;
	struct wt_buf all = {0};
	const char *p;
	size_t k;
	bool ill = false;

	require(!weft_stream_new(&s, t, 0));
	for (size_t i = 0; i <= n; i++) {
		require(!(i < n ? weft_stream_push(s, ids[i], &p, &k)
				: weft_stream_end(s, &p, &k)));
		require(wt_utf8_valid(p, k) && !p[k]);
		wt_buf_add(&all, p, k);
	}
	weft_stream_free(s);
	for (size_t i = 0; i + 3 <= bytes; i++)
		ill = ill || !memcmp(text + i, "\xef\xbf\xbd", 3);
	require(ill || (all.n == bytes && !memcmp(all.p ? all.p : "", text, bytes)));
	free(all.p);
}

/* Does all text come back as it went in? */
static bool faithful(const struct weft_tokenizer *t)
{
	const struct wt_step *s = t->splitter.step;

	if (!t->vocab.byte_level || t->normalizer.n || t->n_added || t->splitter.n != 1 ||
	    s[0].kind != WT_BYTE_LEVEL || s[0].prefix_space || t->decoder.n != 1 ||
	    t->decoder.step[0].kind != WT_BYTE_LEVEL)
		return false;
	for (int i = 0; i < 256; i++)
		if (t->vocab.bytes[i] == WEFT_NO_TOKEN)
			return false;
	return true;
}

static void check_faith(const struct weft_tokenizer *t, const char *in, size_t in_bytes,
			const char *text, size_t bytes)
{
	struct wt_buf want = {0};

	if (!faithful(t))
		return;
	require(!wt_buf_add_lossy(&want, in, in_bytes));
	require(want.n == bytes && !memcmp(want.p ? want.p : "", text, bytes));
	free(want.p);
}

static void encode(struct weft_tokenizer *t, const char *in, size_t in_bytes, uint32_t flags)
{
	uint32_t *ids = NULL, *again = NULL;
	size_t n, n2, bytes;
	struct weft_error e = {0};
	char *text = NULL;

	if (refused(weft_encode(t, in, in_bytes, flags, &ids, &n, &e), &e))
		return;
	for (size_t i = 0; i < n; i++)
		require(weft_token_text(t, ids[i]) != NULL);
	require(!weft_encode(t, in, in_bytes, flags, &again, &n2, NULL));
	require(n == n2 && (!n || !memcmp(ids, again, n * sizeof(*ids))));
	weft_text_free(again);
	if (!refused(weft_decode(t, ids, n, 0, &text, &bytes, &e), &e)) {
		require(wt_utf8_valid(text, bytes) && !text[bytes]);
		check_stream(t, ids, n, text, bytes);
		if (!flags)
			check_faith(t, in, in_bytes, text, bytes);
	}
	weft_text_free(text);
	weft_text_free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *zero = size ? memchr(data, 0, size) : NULL;
	size_t json = zero ? (size_t)(zero - data) : size;
	struct weft_tokenizer_files files = {
		.size = sizeof(files), .tokenizer = (const char *)data, .tokenizer_bytes = json};
	struct weft_tokenizer *t;
	struct weft_error e = {0};

	if (refused(weft_tokenizer_new(&t, &files, &e), &e))
		return 0;
	if (zero) {
		encode(t, (const char *)zero + 1, size - json - 1, 0);
		encode(t, (const char *)zero + 1, size - json - 1,
		       WEFT_ADD_SPECIAL | WEFT_PARSE_SPECIAL);
	}
	weft_tokenizer_close(t);
	return 0;
}
