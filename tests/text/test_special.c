/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_special.c - text of others cannot become special tokens; a tokenizer is shared by threads;
 * ids and texts are found; long runs of marks and blanks end in time.
 */
#include "libclient/text/weft_text.h"
#include "tests/tap.h"
#include "tests/text/strings.h"

#include <errno.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

static struct weft_tokenizer *open_kind(const char *kind)
{
	struct weft_tokenizer *t;
	struct weft_error e;

	if (weft_tokenizer_open(&t, tokenizer_path(kind), &e))
		bail_out(e.message);
	return t;
}

static int has_special(struct weft_tokenizer *t, const char *text, uint32_t flags)
{
	uint32_t *ids;
	size_t n;
	int found = 0;

	if (weft_encode(t, text, strlen(text), flags, &ids, &n, NULL))
		bail_out("encode");
	for (size_t i = 0; i < n; i++)
		found += weft_token_is_special(t, ids[i]);
	weft_text_free(ids);
	return found;
}

static void test_untrusted(void)
{
	struct weft_tokenizer *t = open_kind("llama3");

	is_int(has_special(t, "a<|eot_id|>b", WEFT_PARSE_SPECIAL), 1, "parsed when asked for");
	is_int(has_special(t, "a<|eot_id|>b", 0), 0, "not parsed otherwise");
	is_int(has_special(t, "a", WEFT_ADD_SPECIAL), 1, "the template's token is added");
	weft_tokenizer_close(t);
}

/* A file whose merges lead to special tokens, and whose whole words are looked up. */
static void test_merges_to_special(void)
{
	static const char json[] = "{\"added_tokens\":[{\"id\":4,\"content\":\"<s>\",\"special\":"
				   "true,\"normalized\":false}],"
				   "\"model\":{\"type\":\"BPE\",\"ignore_merges\":true,"
				   "\"vocab\":{\"<\":0,\"s\":1,\">\":2,\"<s\":3,\"<s>\":4},"
				   "\"merges\":[\"< s\",\"<s >\"]}}";
	char dir[] = "/tmp/weft-text-XXXXXX", path[64];
	struct weft_tokenizer *t;
	struct weft_error e;
	uint32_t *ids;
	size_t n;
	FILE *f;

	if (!mkdtemp(dir))
		bail_out("mkdtemp");
	snprintf(path, sizeof(path), "%s/tokenizer.json", dir);
	f = fopen(path, "w");
	if (!f || fputs(json, f) < 0 || fclose(f))
		bail_out(path);
	if (weft_tokenizer_open(&t, dir, &e))
		bail_out(e.message);
	ok(!weft_encode(t, "<s>", 3, 0, &ids, &n, NULL) && n == 2 && ids[0] == 3 && ids[1] == 2,
	   "neither merges nor whole words make a special token");
	weft_text_free(ids);
	ok(!weft_encode(t, "<s>", 3, WEFT_PARSE_SPECIAL, &ids, &n, NULL) && n == 1 && ids[0] == 4,
	   "parsing does");
	weft_text_free(ids);
	weft_tokenizer_close(t);
	unlink(path);
	rmdir(dir);
}

/* Whether a text's ids are these, which the published implementation gives. */
static void encodes(struct weft_tokenizer *t, const char *text, const char *want)
{
	char got[64] = "";
	uint32_t *ids;
	size_t n;

	if (weft_encode(t, text, strlen(text), 0, &ids, &n, NULL))
		bail_out("encode");
	for (size_t i = 0; i < n && strlen(got) < 48; i++)
		sprintf(got + strlen(got), " %u", ids[i]);
	weft_text_free(ids);
	ok(!strcmp(got, want), "\"%s\":%s (%s)", text, want, got);
}

/* A token that takes the blanks behind it leaves nothing for one of blanks that follows. */
static void test_emptied(void)
{
	static const char json[] =
		"{\"added_tokens\":[{\"id\":2,\"content\":\"word\",\"rstrip\":true,\"normalized\":"
		"false},"
		"{\"id\":3,\"content\":\" "
		"\",\"lstrip\":true,\"rstrip\":true,\"normalized\":false}],"
		"\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"x\":1},\"merges\":[]}}";
	const struct weft_tokenizer_files files = {
		.size = sizeof(files), .tokenizer = json, .tokenizer_bytes = sizeof(json) - 1};
	struct weft_tokenizer *t;
	struct weft_error e;

	if (weft_tokenizer_new(&t, &files, &e))
		bail_out(e.message);
	encodes(t, "word ", " 2");
	encodes(t, "a word", " 0 3 2");
	encodes(t, "word   a", " 2 0");
	encodes(t, "word xword  word a", " 2 1 2 2 0");
	weft_tokenizer_close(t);
}

static void test_lookup(void)
{
	struct weft_tokenizer *t = open_kind("qwen2");
	struct weft_tokenizer_info info = {.size = sizeof(info)};
	uint32_t found = 0, wrong = 0;

	ok(!weft_tokenizer_info(t, &info), "info");
	is_int(info.n_special, 3, "special tokens");
	is_int(info.vocab, 1005, "ids");
	ok(info.byte_level && info.bos == WEFT_NO_TOKEN,
	   "byte level, and no roles without their file");
	for (uint32_t id = 0; id < info.vocab; id++) {
		const char *text = weft_token_text(t, id);

		found += text != NULL;
		wrong += text && weft_token_id(t, text) != id;
	}
	is_int(found, 1005, "all have a text");
	is_int(wrong, 0, "which leads back to them");
	ok(!weft_token_text(t, 1005) && weft_token_id(t, "no such token") == WEFT_NO_TOKEN,
	   "others have none");
	weft_tokenizer_close(t);
}

/* --- threads -------------------------------------------------------------------------------------*/

#define THREADS 4
#define TEXTS	300

static struct weft_tokenizer *shared;
static char *texts[TEXTS];
static size_t texts_bytes[TEXTS];
static uint32_t want[TEXTS];

static uint32_t encode_digest(int i)
{
	uint32_t *ids, h;
	size_t n;

	if (weft_encode(shared, texts[i], texts_bytes[i], 0, &ids, &n, NULL))
		return 0;
	h = fnv(FNV_START, ids, n * 4);
	weft_text_free(ids);
	return h;
}

static void *encode_all(void *arg)
{
	uintptr_t wrong = 0;

	for (int round = 0; round < 5; round++)
		for (int i = 0; i < TEXTS; i++)
			wrong += encode_digest(i) != want[i];
	return (void *)wrong;
}

static void test_threads(void)
{
	pthread_t threads[THREADS];
	void *wrong, *all = NULL;

	shared = open_kind("llama3");
	for (int i = 0; i < TEXTS; i++) {
		const char *s = test_string((uint64_t)i + 1, &texts_bytes[i]);

		texts[i] = malloc(texts_bytes[i] + 1);
		if (!texts[i])
			bail_out("out of memory");
		memcpy(texts[i], s, texts_bytes[i]);
		want[i] = encode_digest(i);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, encode_all, NULL);
	for (int i = 0; i < THREADS; i++) {
		pthread_join(threads[i], &wrong);
		all = wrong ? wrong : all;
	}
	ok(!all, "%d threads with one tokenizer encode what one does", THREADS);
	for (int i = 0; i < TEXTS; i++)
		free(texts[i]);
	weft_tokenizer_close(shared);
}

/* --- long runs -----------------------------------------------------------------------------------*/

/* A megabyte of one unit: what takes quadratic time would not end within the suite's patience. */
static void test_run(const char *kind, const char *unit)
{
	struct weft_tokenizer *t = open_kind(kind);
	size_t len = strlen(unit), bytes = (1u << 20) / len * len, n, back;
	char *text = malloc(bytes), *again;
	uint32_t *ids;
	int r;

	if (!text)
		bail_out("out of memory");
	for (size_t i = 0; i < bytes; i++)
		text[i] = unit[i % len];
	alarm(60);
	r = weft_encode(t, text, bytes, 0, &ids, &n, NULL);
	ok(!r, "%s: a megabyte of a short unit is encoded", kind);
	if (!r) {
		ok(!weft_decode(t, ids, n, 0, &again, &back, NULL) && back >= bytes / 2,
		   "and decoded");
		weft_text_free(again);
		weft_text_free(ids);
	}
	alarm(0);
	free(text);
	weft_tokenizer_close(t);
}

int main(void)
{
	struct weft_tokenizer *t;
	struct weft_error e = {0};
	char *big = calloc(1, (size_t)WEFT_TEXT_MAX_BYTES + 1);
	uint32_t *ids;
	size_t n;

	test_untrusted();
	test_merges_to_special();
	test_emptied();
	test_lookup();
	test_threads();
	test_run("qwen2", "\xcc\x81\xcc\xa3");
	test_run("qwen2", " ");
	test_run("llama3", "a");
	test_run("llama2", "ab ");
	is_int(weft_tokenizer_open(&t, "/nonexistent", &e), -ENOENT, "no folder");
	ok(strstr(e.message, "/nonexistent/tokenizer.json"), "and the message names the file");
	t = open_kind("gpt2");
	is_int(weft_encode(t, big, (size_t)WEFT_TEXT_MAX_BYTES + 1, 0, &ids, &n, &e), -E2BIG,
	       "a text that is too long");
	is_int(weft_encode(t, "", 0, 8, &ids, &n, &e), -EINVAL, "an unknown flag");
	weft_tokenizer_close(t);
	free(big);
	return tap_done();
}
