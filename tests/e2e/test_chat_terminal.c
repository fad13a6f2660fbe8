/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weft chat on a terminal: lines are edited, an interrupt gives up the line or the answer and not the
 * conversation, the end of the input ends it, and lines are kept only where the user says so.
 */
#include "tests/e2e/chat_model.h"
#include "tests/e2e/real_daemon.h"
#include "tests/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

/* The prompt, with the name of the adapter that answers: no answer looks like it. */
#define PROMPT	 "noted> "
#define PATIENCE 60000
#define ASKED	 "3900"

static struct real_daemon d;
static pid_t pid;
static int terminal = -1;
static bool no_files;	   /* of more than no bytes can be written by what is started */
static char seen[1 << 20]; /* since the last await() */
static size_t n_seen;
static char before[32]; /* what the last await() found: the end of what came before it */

static void start(const char *const *more)
{
	const char *argv[24] = {"weft", "chat",	 "--socket",	d.socket,
				"-a",	"noted", "--ignore-eos"};
	const char *build = getenv("WEFT_BUILD");
	struct winsize size = {.ws_row = 24, .ws_col = 200};
	char path[400];
	int n = 7;

	while (*more)
		argv[n++] = *more++;
	snprintf(path, sizeof(path), "%s/weft", build ? build : "build");
	n_seen = 0;
	pid = forkpty(&terminal, NULL, NULL, &size);
	if (!pid) {
		if (no_files) {
			signal(SIGXFSZ, SIG_IGN);
			setrlimit(RLIMIT_FSIZE, &(struct rlimit){0});
		}
		setenv("TERM", "dumb", 1);
		setenv("HOME", "/nonexistent", 1);
		execv(path, (char **)(uintptr_t)argv);
		_exit(127);
	}
	if (pid < 0)
		skip_all("no pseudo-terminals");
}

/* Read until this text has come since the last time; false: it does not come. */
static bool await(const char *text)
{
	size_t from = 0;

	for (;;) {
		struct pollfd p = {.fd = terminal, .events = POLLIN};
		char *found = memmem(seen + from, n_seen - from, text, strlen(text));
		ssize_t n;

		if (found) {
			size_t tail = sizeof(before) - 1;

			tail = (size_t)(found - seen) < tail ? (size_t)(found - seen) : tail;
			memcpy(before, found - tail, tail);
			before[tail] = 0;
			n_seen -= (size_t)(found - seen) + strlen(text);
			memmove(seen, found + strlen(text), n_seen);
			return true;
		}
		if (n_seen == sizeof(seen) || poll(&p, 1, PATIENCE) <= 0)
			return false;
		n = read(terminal, seen + n_seen, sizeof(seen) - n_seen);
		if (n <= 0)
			return false;
		n_seen += (size_t)n;
	}
}

/* It asks, and has the terminal in the editor's own mode: what comes before is echoed by the kernel, and an
 * interrupt then takes with it what was typed. */
static bool prompted(void)
{
	struct termios t;

	if (!await(PROMPT))
		return false;
	for (int ms = 0; ms < PATIENCE; ms += 2) {
		if (!tcgetattr(terminal, &t) && !(t.c_lflag & ICANON))
			return true;
		nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
	}
	return false;
}

static void type(const char *text)
{
	if (write(terminal, text, strlen(text)) != (ssize_t)strlen(text) && errno != EIO)
		bail_out("cannot write to the terminal");
}

/* Its exit status; what it still writes is read, or it could not end. */
static int end(void)
{
	int status;

	while (await("\x01"))
		;
	close(terminal);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static const char *read_file(const char *path)
{
	static char text[65536];
	FILE *f = fopen(path, "r");
	size_t n = f ? fread(text, 1, sizeof(text) - 1, f) : 0;

	if (f)
		fclose(f);
	text[n] = 0;
	return text;
}

static void edited(void)
{
	char history[100], saved[100], command[140];
	struct stat st = {0};
	const char *text;

	snprintf(history, sizeof(history), "%s/history", d.dir);
	snprintf(saved, sizeof(saved), "%s/saved", d.dir);
	start((const char *const[]){"-t", "6", "--history", history, NULL});
	ok(await("/help lists"), "it says where help is");
	ok(prompted(), "it asks");
	type("Helo\x02l\n"); /* Ctrl-B: one back; the line is then shown again, with the prompt before it */
	ok(await("\n") && prompted(), "an answer, and it asks again");
	type("abc");
	ok(await("abc"), "what is written is shown");
	type("\x03");
	ok(prompted(), "an interrupt gives up the line");
	type("World\n");
	ok(await("\n") && prompted(), "the next one is answered");
	snprintf(command, sizeof(command), "/save %s\n", saved);
	type(command);
	ok(await("\n") && prompted(), "saved");
	type("/quit\n");
	is_int(end(), 0, "/quit");
	text = read_file(saved);
	ok(strstr(text, "user:\nHello\n"), "the edited line was said");
	ok(strstr(text, "user:\nWorld\n") && strstr(text, "assistant (noted):\n"), "and the other");
	ok(!strstr(text, "abc"), "not the one given up");
	ok(!stat(history, &st) && (st.st_mode & 0777) == 0600, "the history is the user's alone");
	ok(strstr(read_file(history), "World"), "and holds what was written");
}

/* The tokens of an answer of at most ASKED that is interrupted when some of it has come; -1: it, or the
 * prompt after it, does not come. */
static int interrupted_answer(void)
{
	struct pollfd p = {.fd = terminal, .events = POLLIN};
	int n;

	type("Talk\n");
	if (!await("\n") || (!n_seen && poll(&p, 1, PATIENCE) <= 0))
		return -1;
	type("\x03");
	if (!await("[noted: ") || !await(" ms, ") || !await(" tokens"))
		return -1;
	n = atoi(before);
	return prompted() ? n : -1;
}

static void interrupted(void)
{
	char some[256];
	bool open = true;
	int asked = atoi(ASKED), n = asked;

	/* An answer that had ended before the key was there says nothing: once more. */
	for (int i = 0; i < 20 && n == asked; i++) {
		start((const char *const[]){"-t", ASKED, "--stats", NULL});
		n = prompted() ? interrupted_answer() : -1;
		type("/quit\n");
		if (end())
			n = -1;
	}
	ok(n >= 0 && n < asked, "an interrupt ends an answer, and the conversation goes on (%d)",
	   n);
	start((const char *const[]){NULL});
	ok(prompted(), "it asks");
	/* One that comes between the prompt and the editor's own mode is taken for something else. */
	for (int i = 0; i < PATIENCE / 100 && open; i++) {
		struct pollfd p = {.fd = terminal, .events = POLLIN};

		type("\x15\x04"); /* Ctrl-U clears what became of the last one */
		while (poll(&p, 1, 100) > 0 && open)
			open = read(terminal, some, sizeof(some)) > 0;
	}
	is_int(end(), 0, "the end of the input ends it");
}

/* So many bytes are in a pipe, and no more come. */
static int pipe_settles(int fd)
{
	int n = -1, last = -2, same = 0;

	for (int ms = 0; ms < PATIENCE && same < 20; ms += 5) {
		nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
		if (ioctl(fd, FIONREAD, &n))
			return -1;
		same = n > 0 && n == last ? same + 1 : 0;
		last = n;
	}
	return n;
}

/* An interrupt while the answer cannot be written: the answer ends, what was being written does not. */
static void interrupted_writing(void)
{
	const char *build = getenv("WEFT_BUILD");
	char path[400], some[4096];
	int in[2], out[2], status, n;

	snprintf(path, sizeof(path), "%s/weft", build ? build : "build");
	if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || fcntl(out[1], F_SETPIPE_SZ, 4096) < 0)
		bail_out("pipe");
	pid = fork();
	if (!pid) {
		dup2(in[0], STDIN_FILENO);
		dup2(out[1], STDOUT_FILENO);
		execl(path, "weft", "chat", "--socket", d.socket, "-a", "noted", "--ignore-eos",
		      "-t", ASKED, (char *)NULL);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	ok(write(in[1], "Talk\n", 5) == 5, "a conversation through pipes");
	n = pipe_settles(out[0]);
	ok(n > 2048, "which are full (%d bytes)", n);
	kill(pid, SIGINT);
	close(in[1]);
	/* Before there is room again: what is read at once finds no write that was broken off. */
	nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
	while (read(out[0], some, sizeof(some)) > 0)
		;
	close(out[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	ok(WIFEXITED(status) && !WEXITSTATUS(status), "an interrupt loses nothing of it (%d)",
	   status);
}

/* What cannot be kept is said at the end. */
static void history_lost(void)
{
	char history[100];

	snprintf(history, sizeof(history), "%s/lost", d.dir);
	no_files = true;
	start((const char *const[]){"-t", "6", "--history", history, NULL});
	no_files = false;
	ok(await(PROMPT), "it asks");
	type("Lost\n");
	ok(await(PROMPT), "and answers");
	type("/quit\n");
	ok(await("weft: write ") && await("File too large"),
	   "a history that cannot be written is named");
	is_int(end(), 1, "and counts as failure");
}

/* Signals that come while a line is written: the line survives those that do not end the program, and
 * after the others the terminal is as it was before. */
static void signalled(int last)
{
	char history[100];
	struct termios now;
	int status;

	snprintf(history, sizeof(history), "%s/history-%d", d.dir, last);
	start((const char *const[]){"-t", "6", "--history", history, NULL});
	ok(await(PROMPT), "it asks");
	type("Kept\n");
	ok(await(PROMPT), "and answers");
	type("abc");
	ok(await("abc"), "a line is begun");
	kill(pid, SIGTSTP); /* without a shell nothing stops it */
	ok(await("abc"), "and shown again after a stop");
	kill(pid, SIGCONT);
	ok(await("abc"), "when it goes on");
	tcgetattr(terminal, &now);
	ok(!(now.c_lflag & ICANON), "it is being edited");
	kill(pid, last);
	while (await("\x01"))
		;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	ok(WIFSIGNALED(status) && WTERMSIG(status) == last, "signal %d ends it", last);
	ok(!tcgetattr(terminal, &now) && now.c_lflag & ICANON && now.c_lflag & ECHO &&
		   now.c_iflag & ICRNL,
	   "and the terminal is as it was");
	ok(strstr(read_file(history), "Kept"), "the history is written");
	close(terminal);
}

int main(void)
{
	char command[700];

	real_daemon_init(&d, "llama", NULL);
	snprintf(d.model, sizeof(d.model), "%s/model", d.dir);
	chat_model_make(d.model);
	snprintf(command, sizeof(command),
		 "'%s/weft' adapter make --model '%s' --invocation 511 '%s/noted' > /dev/null",
		 getenv("WEFT_BUILD") ? getenv("WEFT_BUILD") : "build", d.model, d.dir);
	if (system(command))
		bail_out("weft adapter make");
	snprintf(command, sizeof(command), "[adapter noted]\npath = %s/noted\n", d.dir);
	d.conf = command;
	if (real_daemon_start(&d))
		bail_out("weftd");
	edited();
	history_lost();
	interrupted();
	interrupted_writing();
	signalled(SIGTERM);
	signalled(SIGHUP);
	is_int(real_daemon_fini(&d), 0, "weftd ends in order");
	return tap_done();
}
