/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cli.h - options of the weft command: tables that parse, explain and complete themselves.
 *
 * A command is a table of options and a function. Values are checked completely: "12x" is not a
 * number, 70000 is not a 16-bit one. Usage errors exit with 2 from cli_parse(), as --help does
 * with 0; everything else is the command's own to report, with cli_fail().
 */
#ifndef WEFT_TOOLS_CLI_H
#define WEFT_TOOLS_CLI_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Store text into *value. 0, or -1 when it is not of the kind. */
typedef int (*cli_set_fn)(void *value, const char *text);

struct cli_option {
	const char *name; /* long name without dashes */
	char letter;	  /* or 0 */
	const char *arg;  /* name of its value in the help; NULL: a flag, *(int *)value = 1 */
	cli_set_fn set;
	void *value;
	const char *help;
};

struct cli_command {
	const char *name;  /* "run", "model make" */
	const char *args;  /* of the usage line: "[TOKEN...]" */
	const char *about; /* one line; more may follow after a newline */
	const struct cli_option *options;
	uint32_t n_options;
	int max_args; /* positional; -1: any number */
};

int cli_set_u32(void *value, const char *text);
int cli_set_i32(void *value, const char *text);
int cli_set_u64(void *value, const char *text);
int cli_set_float(void *value, const char *text);
int cli_set_double(void *value, const char *text);
int cli_set_str(void *value, const char *text); /* const char *, borrowed from argv */

/* Token lists, growing; "1,2,3" appends three. Freed by the caller. */
struct cli_tokens {
	uint32_t *tokens;
	uint32_t n, room;
};
int cli_set_tokens(void *value, const char *text); /* struct cli_tokens * */
int cli_tokens_add(struct cli_tokens *t, uint32_t token);

/*
 * A prompt of token ids: argv[1..n]; or `file` if not NULL ("-": standard input); or standard input
 * without either, or for the only word "-". 0, or 1 after cli_fail().
 */
int cli_read_prompt(struct cli_tokens *t, int n, char **argv, const char *file);

/* The command whose options were parsed last, for messages of code that several share: "bench probe". */
const char *cli_name(void);
/* Parse argv[1..]; returns the number of positional arguments, moved to argv[1..]. */
int cli_parse(const struct cli_command *c, int argc, char **argv);

/* One of several commands: what `weft`, and some of its commands, choose from. */
struct cli_entry {
	const char *name;
	int (*run)(int argc, char **argv); /* argv[0] is its name; the exit status */
	const char *about;
};

/* Run the entry that argv[1] names; --help and --complete list them. */
int cli_subcommand(const char *usage, const struct cli_entry *entries, uint32_t n, int argc,
		   char **argv);
/* "weft COMMAND: ... (weft COMMAND --help)" of the command that was parsed; returns 2. */
int cli_usage(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* "weft: ..." to stderr; returns 1 so that a command can `return cli_fail(...)`. */
int cli_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The exit status of a command that ends with rc: not 0 if standard output lost anything. */
int cli_end(int rc);
/*
 * Text that others have made: a model, a file, the daemon. In a file or a pipe it stays exact. A
 * terminal would obey what stands in it: of the control characters (C1 too, two bytes in UTF-8) it gets
 * newline and tab, and '?' for the others.
 */
void cli_print(FILE *to, const char *p, size_t n);
void cli_printf(FILE *to, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/*
 * A line of a table, a list or a message, whose newline is added: wherever it goes, what others have put
 * into it cannot begin another one, so it has '?' for all control characters. cli_fail() writes so too.
 */
void cli_line(FILE *to, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A string of n bytes of UTF-8 as JSON, quotes included, to stdout. */
void cli_json_string(const char *s, size_t n);
/* enum weft_invocation in a word; the position of activation as JSON, null for none. */
const char *cli_invocation_name(unsigned invocation);
void cli_json_activation(uint32_t activation);

/* The commands; each returns the exit status. argv[0] is the command's name. */
int cmd_run(int argc, char **argv);
int cmd_chat(int argc, char **argv);
int cmd_probe(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_metrics(int argc, char **argv);
int cmd_top(int argc, char **argv);
int cmd_tenant(int argc, char **argv);
int cmd_reload(int argc, char **argv);
int cmd_drain(int argc, char **argv);
int cmd_restart(int argc, char **argv);
int cmd_model(int argc, char **argv);
int cmd_adapter(int argc, char **argv);
int cmd_cache(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_bench(int argc, char **argv);

#endif
