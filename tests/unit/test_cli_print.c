/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What others have written does not command a terminal, and comes through a pipe as it is; strings
 * as JSON have their full length.
 */
#include "tests/tap.h"
#include "tools/cli.h"

#include <fcntl.h>
#include <pty.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#define STRING(s) s, sizeof(s) - 1

/* An escape, a bell, C1's CSI in UTF-8, a zero; and what only looks like C1: U+00E0, U+2019. */
static const char hostile[] = "a\x1b[2Jb\a\tc\n\xc2\x9b"
			      "d\x7f\0\r\xc3\xa0\xe2\x80\x99\xc2\xa0\xc2";
static const char tame[] = "a?[2Jb?\tc\n?d???\xc3\xa0\xe2\x80\x99\xc2\xa0\xc2";

/* What comes out of `from` when this has been printed to `to`; both are closed. */
static void printed(int from, int to, const char *want, size_t n, const char *what)
{
	FILE *f = fdopen(to, "w");
	char got[256];
	size_t have = 0;

	if (!f)
		bail_out("fdopen");
	cli_print(f, STRING(hostile));
	cli_printf(f, "%s%d", "\x1b", 7);
	fflush(f);
	while (have < n) {
		ssize_t r = read(from, got + have, sizeof(got) - have);

		if (r <= 0)
			break;
		have += (size_t)r;
	}
	ok(have == n && !memcmp(got, want, n), "%s (%zu bytes of %zu)", what, have, n);
	fclose(f);
	close(from);
}

/* What cli_json_string() writes, read back from a file that stands in for standard output. */
static void json(const char *text, size_t n, const char *want)
{
	FILE *f = tmpfile();
	char got[256] = "";
	int before;

	fflush(stdout);
	before = dup(STDOUT_FILENO);
	if (!f || before < 0 || dup2(fileno(f), STDOUT_FILENO) < 0)
		bail_out("standard output");
	cli_json_string(text, n);
	fflush(stdout);
	dup2(before, STDOUT_FILENO);
	close(before);
	if (pread(fileno(f), got, sizeof(got) - 1, 0) < 0)
		bail_out("pread");
	fclose(f);
	is_str(got, want, "as JSON: %s", want);
}

/* A line has no control character at all, wherever it goes, and one newline of its own. */
static void line(void)
{
	FILE *f = tmpfile();
	char got[256] = "";

	if (!f)
		bail_out("tmpfile");
	cli_line(f, "%s",
		 "a\x1b[2Jb\a\tc\n\xc2\x9b"
		 "d\x7f\r\xc3\xa0\xe2\x80\x99\xc2\xa0\xc2");
	cli_line(f, "%d\n%d", 8, 9);
	fflush(f);
	if (pread(fileno(f), got, sizeof(got) - 1, 0) < 0)
		bail_out("pread");
	fclose(f);
	is_str(got, "a?[2Jb??c??d??\xc3\xa0\xe2\x80\x99\xc2\xa0\xc2\n8?9\n", "lines in a file");
}

int main(void)
{
	char exact[sizeof(hostile) + 2], safe[sizeof(tame) + 2];
	struct termios raw;
	int fd[2], master, slave;

	memcpy(exact, hostile, sizeof(hostile) - 1);
	memcpy(exact + sizeof(hostile) - 1,
	       "\x1b"
	       "7",
	       2);
	memcpy(safe, tame, sizeof(tame) - 1);
	memcpy(safe + sizeof(tame) - 1, "?7", 2);
	if (pipe(fd))
		bail_out("pipe");
	printed(fd[0], fd[1], exact, sizeof(hostile) + 1, "a pipe has every byte");
	memset(&raw, 0, sizeof(raw));
	cfmakeraw(&raw);
	if (openpty(&master, &slave, NULL, &raw, NULL))
		diag("no pseudo-terminals");
	else
		printed(master, slave, safe, sizeof(tame) + 1, "a terminal no commands");
	line();
	json(STRING("a\0b"), "\"a\\u0000b\"");
	json(STRING(""), "\"\"");
	json(STRING("\"\\\n\x1f\x7f\xc2\x85\xc2\xa0\xc3\xa0"),
	     "\"\\\"\\\\\\u000a\\u001f\\u007f\\u0085\xc2\xa0\xc3\xa0\"");
	return tap_done();
}
