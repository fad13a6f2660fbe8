/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_oracle.c - every kind of tokenizer against the published implementation: 5,000 strings each,
 * ids with and without special tokens, and both ways of decoding, through digests; the ids of the
 * first hundred in full. A stream, and texts that are cut at every byte, give the same text.
 */
#include "libclient/text/weft_text.h"
#include "tests/tap.h"
#include "tests/text/strings.h"

static const char *const kinds[] = {
	"gpt2",	  "llama3",  "qwen2",	  "granite", "granite4",
	"llama2", "mistral", "metaspace", "flags",   "behaviours",
};

#define N_KINDS (sizeof(kinds) / sizeof(*kinds))

struct answer {
	uint32_t *ids, *plain;
	size_t n, n_plain;
	char *text, *skipped;
	size_t bytes, skipped_bytes;
};

static void answer_free(struct answer *a)
{
	weft_text_free(a->ids);
	weft_text_free(a->plain);
	weft_text_free(a->text);
	weft_text_free(a->skipped);
}

static void ask(struct weft_tokenizer *t, const char *s, size_t n, struct answer *a)
{
	struct weft_error e;

	if (weft_encode(t, s, n, WEFT_ADD_SPECIAL | WEFT_PARSE_SPECIAL, &a->ids, &a->n, &e) ||
	    weft_encode(t, s, n, 0, &a->plain, &a->n_plain, &e) ||
	    weft_decode(t, a->ids, a->n, 0, &a->text, &a->bytes, &e) ||
	    weft_decode(t, a->ids, a->n, WEFT_SKIP_SPECIAL, &a->skipped, &a->skipped_bytes, &e))
		bail_out(e.message);
}

static uint32_t digest(const struct answer *a)
{
	uint32_t h = fnv(FNV_START, a->ids, a->n * 4);

	h = fnv(h, "\xff\xff\xff\xff", 4);
	h = fnv(h, a->plain, a->n_plain * 4);
	h = fnv(h, "\xff\xff\xff\xff", 4);
	h = fnv(h, a->text, a->bytes + 1);
	return fnv(h, a->skipped, a->skipped_bytes);
}

/* The stream's pieces are whole characters and together the text. */
static int stream_agrees(struct weft_tokenizer *t, const struct answer *a)
{
	struct weft_stream *s;
	const char *p;
	size_t at = 0, n;
	int good = 1;

	if (weft_stream_new(&s, t, 0))
		bail_out("stream");
	for (size_t i = 0; i <= a->n && good; i++) {
		if (i < a->n ? weft_stream_push(s, a->ids[i], &p, &n) : weft_stream_end(s, &p, &n))
			bail_out("push");
		good = at + n <= a->bytes && !memcmp(a->text + at, p, n) &&
		       (!n || ((unsigned char)p[0] & 0xc0) != 0x80);
		at += n;
	}
	weft_stream_free(s);
	return good && at == a->bytes;
}

static void show(const char *kind, int i, const struct answer *a)
{
	diag("%s: string %d (seed %d): %zu ids, %zu plain", kind, i, i + 1, a->n, a->n_plain);
}

static int line_agrees(char **line, const struct answer *a)
{
	char *p = *line, *end = strchr(p, '\n');
	size_t i = 0;

	for (; p < end; i++) {
		unsigned long id = strtoul(p, &p, 10);

		if (i >= a->n || a->ids[i] != id)
			break;
		p += *p == ' ';
	}
	*line = end + 1;
	return p == end && i == a->n;
}

static void check_kind(const char *kind)
{
	char name[64];
	struct weft_tokenizer *t;
	struct weft_error e;
	size_t bytes, n_ids;
	uint32_t *want;
	char *ids, *line;
	int wrong = 0, wrong_ids = 0, wrong_stream = 0, count;

	if (!ok(!weft_tokenizer_open(&t, tokenizer_path(kind), &e), "%s: opened", kind)) {
		diag("%s", e.message);
		return;
	}
	snprintf(name, sizeof(name), "%s/digests", kind);
	want = (uint32_t *)read_file(tokenizer_path(name), &bytes);
	count = (int)(bytes / 4);
	snprintf(name, sizeof(name), "%s/ids", kind);
	line = ids = read_file(tokenizer_path(name), &n_ids);
	for (int i = 0; i < count; i++) {
		struct answer a;
		size_t n;
		const char *s = test_string((uint64_t)i + 1, &n);

		ask(t, s, n, &a);
		if (digest(&a) != want[i] && wrong++ < 5)
			show(kind, i, &a);
		if (*line && !line_agrees(&line, &a) && wrong_ids++ < 5)
			diag("%s: ids of string %d (seed %d) differ", kind, i, i + 1);
		if (!stream_agrees(t, &a) && wrong_stream++ < 5)
			diag("%s: stream of string %d differs", kind, i);
		answer_free(&a);
	}
	ok(count == 5000, "%s: 5,000 strings", kind);
	is_int(wrong_ids, 0, "%s: the ids of the first hundred", kind);
	is_int(wrong, 0, "%s: digests of ids and texts", kind);
	is_int(wrong_stream, 0, "%s: as a stream", kind);
	free(want);
	free(ids);
	weft_tokenizer_close(t);
}

int main(void)
{
	size_t n, at = 0;
	char *sample = read_file(tokenizer_path("sample"), &n), *p = sample;
	int same = 0;

	for (; at < 20; at++) {
		const char *s = test_string(at + 1, &n);

		same += strtoul(p, &p, 16) == fnv(FNV_START, s, n);
	}
	is_int(same, 20, "the generator makes the oracle's strings");
	free(sample);
	for (size_t i = 0; i < N_KINDS; i++)
		check_kind(kinds[i]);
	return tap_done();
}
