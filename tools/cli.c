/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cli.c - option tables; see cli.h. `--complete` lists a command's options for the shell, so that
 * completion never lags behind the tables.
 */
#include "tools/cli.h"
#include "tools/progress.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- values --------------------------------------------------------------------------------------*/

static int set_integer(const char *text, long long min, unsigned long long max, int is_signed,
		       unsigned long long *ret)
{
	char *end;

	if (!*text || strchr(" \t\n+", *text) || (!is_signed && *text == '-'))
		return -1;
	errno = 0;
	if (is_signed) {
		long long v = strtoll(text, &end, 10);

		if (errno || *end || v < min || v > (long long)max)
			return -1;
		*ret = (unsigned long long)v;
	} else {
		*ret = strtoull(text, &end, 10);
		if (errno || *end || *ret > max)
			return -1;
	}
	return 0;
}

int cli_set_u32(void *value, const char *text)
{
	unsigned long long v;

	if (set_integer(text, 0, UINT32_MAX, 0, &v))
		return -1;
	*(uint32_t *)value = (uint32_t)v;
	return 0;
}

int cli_set_i32(void *value, const char *text)
{
	unsigned long long v;

	if (set_integer(text, INT32_MIN, INT32_MAX, 1, &v))
		return -1;
	*(int32_t *)value = (int32_t)v;
	return 0;
}

int cli_set_u64(void *value, const char *text)
{
	unsigned long long v;

	if (set_integer(text, 0, UINT64_MAX, 0, &v))
		return -1;
	*(uint64_t *)value = v;
	return 0;
}

int cli_set_double(void *value, const char *text)
{
	char *end;
	double v = strtod(text, &end);

	if (end == text || *end || isnan(v))
		return -1;
	*(double *)value = v;
	return 0;
}

int cli_set_float(void *value, const char *text)
{
	double v;

	if (cli_set_double(&v, text))
		return -1;
	*(float *)value = (float)v;
	return 0;
}

int cli_set_str(void *value, const char *text)
{
	*(const char **)value = text;
	return 0;
}

int cli_tokens_add(struct cli_tokens *t, uint32_t token)
{
	if (t->n == t->room) {
		uint32_t room = t->room ? 2 * t->room : 64;
		uint32_t *tokens = reallocarray(t->tokens, room, sizeof(*tokens));

		if (!tokens)
			return -1;
		t->tokens = tokens;
		t->room = room;
	}
	t->tokens[t->n++] = token;
	return 0;
}

int cli_set_tokens(void *value, const char *text)
{
	char *copy = strdup(text), *at = copy, *word;
	int err = copy ? 0 : -1;

	while (!err && (word = strsep(&at, ","))) {
		uint32_t token;

		err = cli_set_u32(&token, word) ? -1 : cli_tokens_add(value, token);
	}
	free(copy);
	return err;
}

/* Ids separated by blanks, newlines or commas. */
static int read_stream(struct cli_tokens *t, FILE *f, const char *name)
{
	char word[32];

	while (fscanf(f, " %31[^ \t\n\r,]%*[,]", word) == 1 ||
	       fscanf(f, " %31[^ \t\n\r,]", word) == 1)
		if (cli_set_tokens(t, word))
			return cli_fail("\"%s\" in %s is not a token id", word, name);
	if (ferror(f))
		return cli_fail("read %s: %s", name, strerror(errno));
	return 0;
}

int cli_read_prompt(struct cli_tokens *t, int n, char **argv, const char *file)
{
	int err = 0;

	if (file && n)
		return cli_fail("a prompt is given both as arguments and as a file");
	if (file && strcmp(file, "-")) {
		FILE *f = fopen(file, "r");

		if (!f)
			return cli_fail("open %s: %s", file, strerror(errno));
		err = read_stream(t, f, file);
		fclose(f);
	} else if (file || !n || (n == 1 && !strcmp(argv[1], "-"))) {
		err = read_stream(t, stdin, "standard input");
	}
	for (int i = 1; i <= n && !err; i++)
		if (strcmp(argv[i], "-") && cli_set_tokens(t, argv[i]))
			err = cli_fail("\"%s\" is not a token id", argv[i]);
	if (!err && !t->n)
		err = cli_fail("no prompt: give token ids as arguments or on standard input");
	return err;
}

/* --- output --------------------------------------------------------------------------------------*/

/* The bytes of a control character that begins here, or 0. */
static size_t control(const char *p, size_t n)
{
	unsigned char c = (unsigned char)p[0], next = n > 1 ? (unsigned char)p[1] : 0;

	if (c < 0x20 || c == 0x7f)
		return 1;
	return c == 0xc2 && next >= 0x80 && next < 0xa0 ? 2 : 0;
}

void cli_print(FILE *to, const char *p, size_t n)
{
	if (!isatty(fileno(to))) {
		fwrite(p, 1, n, to);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		size_t bytes = p[i] == '\n' || p[i] == '\t' ? 0 : control(p + i, n - i);

		putc(bytes ? '?' : p[i], to);
		i += bytes == 2;
	}
}

static void print_args(FILE *to, const char *fmt, va_list ap)
{
	char *text;
	int n = vasprintf(&text, fmt, ap);

	if (n < 0)
		return;
	cli_print(to, text, (size_t)n);
	free(text);
}

void cli_printf(FILE *to, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	print_args(to, fmt, ap);
	va_end(ap);
}

/* Without its newline. */
static void line_args(FILE *to, const char *fmt, va_list ap)
{
	char *text;
	int n = vasprintf(&text, fmt, ap);

	for (int i = 0; i < n; i++) {
		size_t bytes = control(text + i, (size_t)(n - i));

		putc(bytes ? '?' : text[i], to);
		i += bytes == 2;
	}
	if (n >= 0)
		free(text);
}

void cli_line(FILE *to, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	line_args(to, fmt, ap);
	va_end(ap);
	putc('\n', to);
}

int cli_end(int rc)
{
	/* Who reads a file later must not take a part for the whole. */
	if ((fflush(stdout) || ferror(stdout)) && !rc)
		rc = cli_fail("standard output: not all of it could be written");
	return rc;
}

int cli_fail(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	progress_clear();
	fputs("weft: ", stderr);
	va_start(ap, fmt);
	line_args(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return 1;
}

/* All control characters escaped, so that a terminal can have it as it is. */
void cli_json_string(const char *s, size_t n)
{
	putchar('"');
	for (size_t i = 0; i < n; i++) {
		size_t bytes = control(s + i, n - i);

		if (bytes)
			printf("\\u%04x", (unsigned char)s[i + bytes - 1]);
		else if (s[i] == '"' || s[i] == '\\')
			printf("\\%c", s[i]);
		else
			putchar(s[i]);
		i += bytes == 2;
	}
	putchar('"');
}

const char *cli_invocation_name(unsigned invocation)
{
	static const char *const names[] = {"none", "found", "base", "appended", "missing"};

	return invocation < 5 ? names[invocation] : "unknown";
}

void cli_json_activation(uint32_t activation)
{
	if (activation == UINT32_MAX)
		fputs("null", stdout);
	else
		printf("%u", activation);
}

static void help(const struct cli_command *c)
{
	printf("usage: weft %s [OPTION...]%s%s\n\n%s\n\n", c->name, *c->args ? " " : "", c->args,
	       c->about);
	for (uint32_t i = 0; i < c->n_options; i++) {
		const struct cli_option *o = &c->options[i];
		char left[64], letter[8] = "";

		if (o->letter)
			snprintf(letter, sizeof(letter), "-%c, ", o->letter);
		snprintf(left, sizeof(left), "%s--%s%s%s", letter, o->name, o->arg ? " " : "",
			 o->arg ? o->arg : "");
		printf("  %-28s %s\n", left, o->help);
	}
	printf("  %-28s %s\n", "--help", "this text");
}

static void usage_args(const char *name, const char *fmt, va_list ap)
{
	fprintf(stderr, "weft %s: ", name);
	line_args(stderr, fmt, ap);
	fprintf(stderr, " (weft %s --help)\n", name);
}

static void __attribute__((noreturn, format(printf, 2, 3)))
usage(const struct cli_command *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	usage_args(c->name, fmt, ap);
	va_end(ap);
	exit(2);
}

/* --- parsing -------------------------------------------------------------------------------------*/

static const struct cli_option *find(const struct cli_command *c, const char *name, size_t n)
{
	for (uint32_t i = 0; i < c->n_options; i++)
		if (strlen(c->options[i].name) == n && !strncmp(c->options[i].name, name, n))
			return &c->options[i];
	return NULL;
}

static const struct cli_option *find_letter(const struct cli_command *c, char letter)
{
	for (uint32_t i = 0; i < c->n_options; i++)
		if (c->options[i].letter == letter)
			return &c->options[i];
	return NULL;
}

static void complete(const struct cli_command *c)
{
	for (uint32_t i = 0; i < c->n_options; i++)
		printf("--%s%s\n", c->options[i].name, c->options[i].arg ? "=" : "");
	puts("--help");
	exit(cli_end(0));
}

/* Handle argv[i], an option; returns how many words it took. */
static int parse_option(const struct cli_command *c, char **argv, int i, int argc)
{
	const char *word = argv[i], *value = NULL;
	const struct cli_option *o;
	int used = 1;

	if (word[1] == '-') {
		const char *equals = strchr(word, '=');
		size_t n = equals ? (size_t)(equals - word) - 2 : strlen(word) - 2;

		if (!strcmp(word, "--help")) {
			help(c);
			exit(cli_end(0));
		}
		if (!strcmp(word, "--complete"))
			complete(c);
		o = find(c, word + 2, n);
		value = equals ? equals + 1 : NULL;
	} else {
		o = find_letter(c, word[1]);
		if (!o && !strcmp(word, "-h")) {
			help(c);
			exit(cli_end(0));
		}
		value = word[2] ? word + 2 : NULL;
	}
	if (!o)
		usage(c, "unknown option %s", word);
	if (!o->arg) {
		if (value)
			usage(c, "--%s takes no value", o->name);
		*(int *)o->value = 1;
		return used;
	}
	if (!value) {
		if (i + 1 >= argc)
			usage(c, "--%s needs a value (%s)", o->name, o->arg);
		value = argv[i + 1];
		used = 2;
	}
	if (o->set(o->value, value))
		usage(c, "--%s: \"%s\" is not a valid %s", o->name, value, o->arg);
	return used;
}

static const char *name_parsed = "";

const char *cli_name(void)
{
	return name_parsed;
}

int cli_usage(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	usage_args(name_parsed, fmt, ap);
	va_end(ap);
	return 2;
}

int cli_parse(const struct cli_command *c, int argc, char **argv)
{
	int n = 0, options = 1;

	name_parsed = c->name;

	for (int i = 1; i < argc;) {
		if (options && !strcmp(argv[i], "--")) {
			options = 0;
			i++;
		} else if (options && argv[i][0] == '-' && argv[i][1]) {
			i += parse_option(c, argv, i, argc);
		} else {
			argv[++n] = argv[i++];
		}
	}
	if (c->max_args >= 0 && n > c->max_args)
		usage(c, "unexpected \"%s\"", argv[c->max_args + 1]);
	return n;
}

int cli_subcommand(const char *usage, const struct cli_entry *entries, uint32_t n, int argc,
		   char **argv)
{
	bool complete = argc > 1 && !strcmp(argv[1], "--complete");
	bool asked = argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"));
	int width = 0;

	for (uint32_t i = 0; argc > 1 && i < n; i++) {
		if (complete)
			puts(entries[i].name);
		else if (!strcmp(argv[1], entries[i].name))
			return entries[i].run(argc - 1, argv + 1);
	}
	if (complete)
		return 0;
	if (!asked) {
		fprintf(stderr, argc > 1 ? "%s: unknown command \"%s\"" : "%s: which command?",
			usage, argv[1]);
		for (uint32_t i = 0; i < n; i++)
			fprintf(stderr, "%s%s",
				i	   ? ", "
				: argc > 1 ? "; there are "
					   : " ",
				entries[i].name);
		fprintf(stderr, " (%s --help)\n", usage);
		return 2;
	}
	printf("usage: %s COMMAND [OPTION...]\n\n", usage);
	for (uint32_t i = 0; i < n; i++)
		width = (int)strlen(entries[i].name) > width ? (int)strlen(entries[i].name) : width;
	for (uint32_t i = 0; i < n; i++)
		printf("  %-*s  %s\n", width, entries[i].name, entries[i].about);
	return 0;
}
