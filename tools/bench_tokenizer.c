/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_tokenizer.c - `weft bench tokenizer`: how fast a tokenizer is read, and text encoded.
 *
 * Without --tokenizer one is made: byte-level, 128,000 tokens, Llama 3's way of cutting, written as
 * the published files are, near 10 MB. Its words are syllables put together, short ones first; every
 * beginning of a word is a token, which merges lead to. The text draws the words as natural language
 * does, the k-th about once in k, with punctuation, capitals, numbers and lines. A text of one's own
 * is --file.
 *
 * Times are the thread's own CPU time, as other work on the machine is not the tokenizer's.
 */
#include "libclient/text/weft_text.h"
#include "tools/bench.h"
#include "tools/cli.h"
#include "tools/progress.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define VOCAB	   128000u
#define RUNS	   7
#define RUN_BYTES  (2u << 20)
#define TARGET_MB  10.0
#define TARGET_S   0.5
#define WORD_BYTES 24

struct corpus {
	char (*words)[WORD_BYTES]; /* owner; by rank, the most frequent first */
	uint32_t n;
	char *text; /* owner */
	size_t bytes;
};

static uint64_t next(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* --- a language ----------------------------------------------------------------------------------*/

/* A word of as many syllables as its rank has: frequent words are short. */
static void make_word(char *word, uint32_t rank, uint64_t *rng)
{
	static const char heads[][3] = {"b", "c", "d", "f", "g", "h",  "l",  "m",  "n", "p",
					"r", "s", "t", "v", "w", "st", "th", "tr", "",	"pr"};
	static const char tails[][4] = {"a",  "e",  "i",  "o",	"u",   "an", "en", "er",
					"in", "on", "or", "at", "ing", "ed", "es", "ion"};
	int syllables = rank < 30 ? 1 : rank < 1500 ? 2 : rank < 12000 ? 3 : 4;
	size_t n = 0;

	word[n++] = ' ';
	while (syllables--)
		n += (size_t)snprintf(word + n, WORD_BYTES - n, "%s%s", heads[next(rng) % 20],
				      tails[next(rng) % 16]);
}

/* Tokens, in the order in which merges make them; a set by hash, so that each is made once. */
struct tokens {
	struct token {
		char text[WORD_BYTES];
		uint32_t left_bytes;
	} * items;	 /* owner; [VOCAB] */
	uint32_t *slots; /* owner; [SLOTS]; number + 1 */
	uint32_t n;
};

#define SLOTS (1u << 19)

static void add_token(struct tokens *t, const char *text, size_t bytes, size_t left)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);
	uint32_t at;

	for (size_t i = 0; i < bytes; i++)
		h = (h ^ (unsigned char)text[i]) * UINT64_C(0x100000001b3);
	for (at = (uint32_t)(h >> 20) % SLOTS; t->slots[at]; at = (at + 1) % SLOTS) {
		const char *there = t->items[t->slots[at] - 1].text;

		if (strlen(there) == bytes && !memcmp(there, text, bytes))
			return;
	}
	memcpy(t->items[t->n].text, text, bytes);
	t->items[t->n].text[bytes] = 0;
	t->items[t->n].left_bytes = (uint32_t)left;
	t->slots[at] = ++t->n;
}

/* As files write a byte: the blank is U+0120, the rest of what is here stands for itself. */
static void put_text(FILE *f, const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] == ' ')
			fputs("\xc4\xa0", f);
		else
			fputc(p[i], f);
}

static void put_byte(FILE *f, unsigned b)
{
	static const char escaped[] = "\"\\";
	uint32_t c = b;

	if (b < 0x21 || (b > 0x7e && b < 0xa1) || b == 0xad)
		c = b < 0x21 ? 0x100 + b : b < 0xa1 ? 0x121 + b - 0x7f : 0x143;
	if (c < 0x80)
		fprintf(f, strchr(escaped, (int)c) ? "\\%c" : "%c", (int)c);
	else
		fprintf(f, "%c%c", 0xc0 | c >> 6, 0x80 | (c & 0x3f));
}

static void put_merges(FILE *f, const struct tokens *t)
{
	for (uint32_t i = 0; i < t->n; i++) {
		const struct token *k = &t->items[i];

		fputs(i ? ",\n      [\n        \"" : "\n      [\n        \"", f);
		put_text(f, k->text, k->left_bytes);
		fputs("\",\n        \"", f);
		put_text(f, k->text + k->left_bytes, strlen(k->text) - k->left_bytes);
		fputs("\"\n      ]", f);
	}
}

static int write_tokenizer(const char *path, const struct tokens *t)
{
	FILE *f = fopen(path, "w");

	if (!f)
		return -errno;
	fputs("{\n  \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": "
	      "\"Split\", \"pattern\": {\"Regex\": "
	      "\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}"
	      "| "
	      "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
	      "\"},"
	      " \"behavior\": \"Isolated\", \"invert\": false}, {\"type\": \"ByteLevel\", "
	      "\"add_prefix_space\": false, \"use_regex\": false}]},\n"
	      "  \"decoder\": {\"type\": \"ByteLevel\"},\n"
	      "  \"model\": {\n    \"type\": \"BPE\",\n    \"vocab\": {",
	      f);
	for (unsigned b = 0; b < 256; b++) {
		fputs(b ? ",\n      \"" : "\n      \"", f);
		put_byte(f, b);
		fprintf(f, "\": %u", b);
	}
	for (uint32_t i = 0; i < t->n; i++) {
		fputs(",\n      \"", f);
		put_text(f, t->items[i].text, strlen(t->items[i].text));
		fprintf(f, "\": %u", 256 + i);
	}
	fputs("\n    },\n    \"merges\": [", f);
	put_merges(f, t);
	fputs("\n    ]\n  }\n}\n", f);
	return fclose(f) ? -errno : 0;
}

/* Words and their beginnings until the vocabulary is full; and the words without the blank. */
static int make_tokenizer(struct corpus *c, const char *path)
{
	struct tokens t = {calloc(VOCAB, sizeof(*t.items)), calloc(SLOTS, sizeof(*t.slots)), 0};
	uint64_t rng = 7;
	int err = -ENOMEM;

	c->words = calloc(VOCAB, sizeof(*c->words));
	if (t.items && t.slots && c->words) {
		while (t.n + 2 * WORD_BYTES < VOCAB - 256 && c->n < VOCAB) {
			char *word = c->words[c->n];
			size_t n;

			make_word(word, c->n++, &rng);
			n = strlen(word);
			for (size_t end = 2; end <= n; end++)
				add_token(&t, word, end, end - 1);
			for (size_t end = 3; end <= n && c->n < 2000; end++)
				add_token(&t, word + 1, end - 1, end - 2);
		}
		err = write_tokenizer(path, &t);
	}
	free(t.items);
	free(t.slots);
	return err;
}

static int make_text(struct corpus *c)
{
	uint64_t rng = 11;
	bool capital = true;

	c->text = malloc((size_t)RUNS * RUN_BYTES + 64);
	if (!c->text)
		return -ENOMEM;
	while (c->bytes < (size_t)RUNS * RUN_BYTES) {
		double u = (double)(next(&rng) >> 11) * 0x1p-53;
		uint32_t rank = (uint32_t)(pow((double)c->n, u)) - 1;
		char *at = c->text + c->bytes;
		uint64_t mark = next(&rng) % 60;

		c->bytes += (size_t)sprintf(at, "%s", c->words[rank]);
		if (capital)
			at[1] -= 'a' - 'A';
		capital = mark < 4;
		if (mark < 4)
			c->bytes += (size_t)sprintf(c->text + c->bytes, mark ? "." : ".\n\n");
		else if (mark < 8)
			c->text[c->bytes++] = ',';
		else if (mark == 8)
			c->bytes += (size_t)sprintf(c->text + c->bytes, " %u",
						    (unsigned)(next(&rng) % 3000));
		else if (mark == 9)
			c->bytes += (size_t)sprintf(c->text + c->bytes, "'s");
	}
	return 0;
}

static int read_text(struct corpus *c, const char *path)
{
	FILE *f = fopen(path, "rb");

	c->text = malloc((size_t)RUNS * RUN_BYTES);
	if (f && c->text)
		c->bytes = fread(c->text, 1, (size_t)RUNS * RUN_BYTES, f);
	if (f)
		fclose(f);
	return !f || !c->bytes ? cli_fail("cannot read text from %s", path) : 0;
}

/* --- measured ------------------------------------------------------------------------------------*/

static int measure(struct bench_table *table, const char *dir, const struct corpus *c,
		   double file_mb)
{
	double load[RUNS], speed[RUNS], per_token[RUNS];
	struct weft_tokenizer *t = NULL;
	struct weft_error e;
	size_t part = c->bytes / RUNS;
	char name[96];

	for (int i = 0; i < RUNS; i++) {
		double start = seconds();

		weft_tokenizer_close(t);
		start = seconds();
		if (weft_tokenizer_open(&t, dir, &e))
			return cli_fail("%s", e.message);
		load[i] = seconds() - start;
		progress_step();
	}
	for (int i = 0; i < RUNS; i++) {
		double start = seconds();
		uint32_t *ids;
		size_t n;

		if (weft_encode(t, c->text + (size_t)i * part, part, 0, &ids, &n, &e)) {
			weft_tokenizer_close(t);
			return cli_fail("%s", e.message);
		}
		speed[i] = (double)part / (seconds() - start) * 1e-6;
		per_token[i] = n ? (double)part / (double)n : 0;
		weft_text_free(ids);
		progress_step();
	}
	weft_tokenizer_close(t);
	snprintf(name, sizeof(name), "tokenizer: load, file of %.1f MB", file_mb);
	bench_add_samples(table, name, "s", load, RUNS, BENCH_AT_MOST, TARGET_S);
	bench_add_samples(table, "tokenizer: encode, one core", "MB/s", speed, RUNS, BENCH_AT_LEAST,
			  TARGET_MB);
	bench_add_samples(table, "tokenizer: bytes per token", "B", per_token, RUNS, BENCH_NONE, 0);
	return 0;
}

static double size_mb(const char *path)
{
	FILE *f = fopen(path, "rb");
	double mb = 0;

	if (f && !fseek(f, 0, SEEK_END))
		mb = (double)ftell(f) * 1e-6;
	if (f)
		fclose(f);
	return mb;
}

int bench_tokenizer(const char *dir, const char *file, struct bench_table *table)
{
	char made[] = "/tmp/weft-tokenizer-XXXXXX", path[4096];
	struct corpus c = {0};
	int err = 0;

	if (!dir && !mkdtemp(made))
		return cli_fail("mkdtemp: %s", strerror(errno));
	snprintf(path, sizeof(path), "%s/tokenizer.json", dir ? dir : made);
	if (dir && !file)
		err = cli_fail("a tokenizer of one's own needs a text: --file");
	else if (!dir && make_tokenizer(&c, path))
		err = cli_fail("cannot make %s", path);
	if (!err)
		err = file ? read_text(&c, file) : make_text(&c);
	progress_begin("weft bench tokenizer", 2 * RUNS);
	if (!err)
		err = measure(table, dir ? dir : made, &c, size_mb(path));
	progress_end();
	if (!dir) {
		unlink(path);
		rmdir(made);
	}
	free(c.words);
	free(c.text);
	return err;
}
