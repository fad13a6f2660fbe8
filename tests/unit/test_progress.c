/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bar: on a terminal, after a second, and wiped before a message and at the end; elsewhere never.
 */
#include "tests/tap.h"
#include "tools/cli.h"
#include "tools/progress.h"

#include <fcntl.h>
#include <pty.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000) + ts.tv_nsec / 1000000;
}

static void sleep_ms(long ms)
{
	struct timespec ts = {ms / 1000, ms % 1000 * 1000000};

	nanosleep(&ts, NULL);
}

/* What has come out at the other end since the last time is this: a terminal hands it on in its own time. */
static void shows(int fd, const char *want, const char *what)
{
	char got[4096];
	size_t n = 0;

	for (int64_t until = now_ms() + 60000; now_ms() < until; sleep_ms(5)) {
		ssize_t r = read(fd, got + n, sizeof(got) - 1 - n);

		n += r > 0 ? (size_t)r : 0;
		if (n >= strlen(want))
			break;
	}
	got[n] = 0;
	is_str(got, want, "%s", what);
}

/* Steps as somebody makes them who takes over a second. */
static void go(void)
{
	progress_begin("a test", 10);
	progress_step();
	sleep_ms(1100);
	progress_at(5);
}

static void on_terminal(int fd)
{
	int64_t start = now_ms();

	progress_step();
	shows(fd, "", "steps of nothing");
	progress_begin("a test", 10);
	progress_step();
	if (now_ms() - start < 1000)
		shows(fd, "", "nothing is drawn in the first second");
	go();
	shows(fd, "\ra test [###############               ]  50%", "then there is a bar");
	cli_fail("x");
	shows(fd, "\r\033[Kweft: x\n", "a message takes its line");
	sleep_ms(150);
	progress_at(20);
	shows(fd, "\ra test [##############################] 100%",
	      "it comes back, and is full at the most");
	progress_end();
	shows(fd, "\r\033[K", "and is wiped at the end");
	progress_step();
	progress_end();
	shows(fd, "", "once");
}

int main(void)
{
	int stderr_was = dup(STDERR_FILENO), fd[2], master, slave;
	struct termios raw;

	if (pipe2(fd, O_NONBLOCK) || stderr_was < 0)
		bail_out("pipe");
	dup2(fd[1], STDERR_FILENO);
	go();
	progress_end();
	shows(fd[0], "", "a pipe gets nothing");
	memset(&raw, 0, sizeof(raw));
	cfmakeraw(&raw);
	if (openpty(&master, &slave, NULL, &raw, NULL)) {
		diag("no pseudo-terminals");
	} else {
		fcntl(master, F_SETFL, O_NONBLOCK);
		dup2(slave, STDERR_FILENO);
		on_terminal(master);
	}
	dup2(stderr_was, STDERR_FILENO);
	return tap_done();
}
