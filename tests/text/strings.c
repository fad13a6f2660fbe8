/* SPDX-License-Identifier: Apache-2.0 */
/*
 * strings.c - the generator of tests/oracle/make_tokenizers.py, word for word: fragments in many
 * languages, blanks, long runs, numbers, stray bytes, code points, names of special tokens. The file
 * `sample` says whether both make the same.
 */
#include "tests/text/strings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/tap.h"

struct fragment {
	const char *p;
	size_t n;
};

struct list {
	struct fragment items[1024];
	uint32_t n;
};

static struct list pool, specials;
static char *out;
static size_t out_n, out_room;

#define F(text)                        \
	{                              \
		text, sizeof(text) - 1 \
	}
static const struct fragment spaces[] = {
	F(" "),	     F("  "),	  F("\n"),	 F("\t"),     F(" \n"),	   F("\r\n"),
	F("\u00a0"), F("\u3000"), F("   \n\n "), F("\u180e"), F("\u2028"), F("\xc2\x85"),
	F("\n\n\n"), F("     "),  F("\x0b\x0c"), F(" \t "),
};
static const struct fragment runs[] = {
	F("a"),	   F(" "),	F("1"),	     F("é"),  F("▁"),	 F("你"),
	F("🙂"), F("\u0301"), F("-"),	     F("\n"), F("the "), F("\u0323\u0301"),
	F("'s"),   F("Z"),	F("\u00a0"), F("ab"),
};
static const struct {
	uint32_t base, n;
} ranges[] = {
	{0, 0x80},	  {0xa0, 0xe0},	    {0x370, 0x8},     {0x391, 0x11},
	{0x410, 0x40},	  {0x5d0, 0x1b},    {0x905, 0x35},    {0xe01, 0x3a},
	{0x1e00, 0x100},  {0x2010, 0x40},   {0x2190, 0x70},   {0x3041, 0x56},
	{0x4e00, 0x5000}, {0xac00, 0x2ba4}, {0x1f300, 0x150}, {0xf900, 0x100},
};
#undef F

const char *tokenizer_path(const char *name)
{
	static char path[4096];
	const char *src = getenv("WEFT_SRC");

	snprintf(path, sizeof(path), "%s/tests/data/tokenizers/%s", src ? src : ".", name);
	return path;
}

char *read_file(const char *path, size_t *ret_bytes)
{
	FILE *f = fopen(path, "rb");
	char *p;
	long n;

	if (!f || fseek(f, 0, SEEK_END) || (n = ftell(f)) < 0)
		bail_out(path);
	rewind(f);
	p = malloc((size_t)n + 1);
	if (!p || fread(p, 1, (size_t)n, f) != (size_t)n)
		bail_out(path);
	fclose(f);
	p[n] = 0;
	*ret_bytes = (size_t)n;
	return p;
}

static void read_list(struct list *l, const char *name)
{
	size_t n;
	char *p = read_file(tokenizer_path(name), &n);

	for (char *end; (end = strchr(p, '\n')); p = end + 1)
		l->items[l->n++] = (struct fragment){p, (size_t)(end - p)};
}

static uint64_t next(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static void add(const char *p, size_t n)
{
	while (out_n + n > out_room) {
		out_room = out_room ? 2 * out_room : 4096;
		out = realloc(out, out_room);
		if (!out)
			bail_out("out of memory");
	}
	if (n)
		memcpy(out + out_n, p, n);
	out_n += n;
}

static void pick(uint64_t *r, const struct fragment *items, size_t n)
{
	const struct fragment *f = &items[next(r) % n];

	add(f->p, f->n);
}

#define PICK(table) pick(r, table, sizeof(table) / sizeof(*table))

static void add_run(uint64_t *r)
{
	const struct fragment *f = &runs[next(r) % (sizeof(runs) / sizeof(*runs))];
	uint64_t n = 1 + next(r) % 40;

	if (next(r) % 64 == 0)
		n *= 100;
	while (n--)
		add(f->p, f->n);
}

static void add_number(uint64_t *r)
{
	uint64_t v = next(r);
	char text[24];
	int n = snprintf(text, sizeof(text), "%llu", (unsigned long long)(v >> next(r) % 64));

	add(text, (size_t)n);
}

static void add_point(uint64_t *r)
{
	size_t i = next(r) % (sizeof(ranges) / sizeof(*ranges));
	uint32_t c = ranges[i].base + (uint32_t)(next(r) % ranges[i].n);
	char p[4];

	if (c < 0x80) {
		p[0] = (char)c;
		add(p, 1);
	} else if (c < 0x800) {
		p[0] = (char)(0xc0 | c >> 6);
		p[1] = (char)(0x80 | (c & 0x3f));
		add(p, 2);
	} else if (c < 0x10000) {
		p[0] = (char)(0xe0 | c >> 12);
		p[1] = (char)(0x80 | (c >> 6 & 0x3f));
		p[2] = (char)(0x80 | (c & 0x3f));
		add(p, 3);
	} else {
		p[0] = (char)(0xf0 | c >> 18);
		p[1] = (char)(0x80 | (c >> 12 & 0x3f));
		p[2] = (char)(0x80 | (c >> 6 & 0x3f));
		p[3] = (char)(0x80 | (c & 0x3f));
		add(p, 4);
	}
}

static void add_bytes(uint64_t *r, uint64_t n, uint64_t below)
{
	while (n--) {
		char c = (char)(next(r) % below);

		add(&c, 1);
	}
}

static void add_piece(uint64_t *r)
{
	uint64_t op = next(r) % 32;

	if (op >= 12 && op < 20)
		add(" ", 1);
	if (op < 20)
		pick(r, pool.items, pool.n);
	else if (op < 22)
		PICK(spaces);
	else if (op == 22)
		add_run(r);
	else if (op == 23)
		add_number(r);
	else if (op == 24)
		add_bytes(r, 1 + next(r) % 3, 256);
	else if (op < 27)
		add_point(r);
	else if (op < 30)
		pick(r, specials.items, specials.n);
	else if (op == 30)
		add_bytes(r, 1, 32);
	else {
		pick(r, pool.items, pool.n);
		PICK(spaces);
	}
}

const char *test_string(uint64_t seed, size_t *ret_bytes)
{
	uint64_t r = seed, n;

	if (!pool.n) {
		read_list(&pool, "pool.txt");
		read_list(&specials, "specials.txt");
	}
	out_n = 0;
	for (n = 1 + next(&r) % 12; n; n--)
		add_piece(&r);
	*ret_bytes = out_n;
	return out;
}

uint32_t fnv(uint32_t h, const void *p, size_t n)
{
	const unsigned char *b = p;

	for (size_t i = 0; i < n; i++)
		h = (h ^ b[i]) * 0x01000193u;
	return h;
}
