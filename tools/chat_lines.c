/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chat_lines.c - see chat_lines.h. libedit edits, and reads through read_character() below: its own
 * reader goes on after an interrupt, and an interrupt is to give up the line. While a line is edited
 * the terminal is in a mode of the editor's, in which nobody else may find it: signals that end or stop
 * the program are noted, and take effect in raise_caught() once the terminal is as it was.
 *
 * Prompts are private: no history is written unless the user names a file, which then is the user's
 * alone (mode 0600).
 */
#include "tools/chat_lines.h"

#include <errno.h>
#include <fcntl.h>
#include <histedit.h>
#include <locale.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wchar.h>

#define HISTORY_LINES 1000

static const int caught_signals[] = {SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT};
#define N_CAUGHT (sizeof(caught_signals) / sizeof(*caught_signals))

struct chat_lines {
	EditLine *el;	     /* owner; NULL: not a terminal */
	History *lines;	     /* owner */
	const char *history; /* borrowed; NULL: none */
	const char *prompt;  /* borrowed during a call */
	char *line;	     /* owner; of a pipe, or the copy of an edited one */
	size_t room;	     /* of a pipe's */
	volatile sig_atomic_t *interrupted;
	struct sigaction actions[N_CAUGHT]; /* the program's own, while a line is edited */
};

static volatile sig_atomic_t caught; /* the last of them; 0: none */

static void on_caught(int sig)
{
	caught = sig;
}

static void catch_signals(struct chat_lines *l)
{
	struct sigaction sa = {.sa_handler = on_caught, .sa_flags = SA_RESTART};

	for (size_t i = 0; i < N_CAUGHT; i++) {
		sigaction(caught_signals[i], NULL, &l->actions[i]);
		/* What the program's parent wants ignored (nohup) stays so. */
		if (l->actions[i].sa_handler != SIG_IGN)
			sigaction(caught_signals[i], &sa, NULL);
	}
}

static void let_signals(struct chat_lines *l)
{
	for (size_t i = 0; i < N_CAUGHT; i++)
		sigaction(caught_signals[i], &l->actions[i], NULL);
}

static char *prompt_of(EditLine *el)
{
	struct chat_lines *l;

	el_get(el, EL_CLIENTDATA, &l);
	return (char *)(uintptr_t)l->prompt;
}

static int write_history(struct chat_lines *l);

/* The signal that came does what it would have done, to a terminal in order; if the program goes on
 * after it, so does the line. */
static void raise_caught(struct chat_lines *l)
{
	int sig = caught;

	caught = 0;
	if (sig != SIGCONT) {
		el_set(l->el, EL_PREP_TERM, 0);
		let_signals(l);
		if (sig != SIGTSTP && l->history)
			write_history(l);
		raise(sig); /* stopped, if it is SIGTSTP, until it is to go on */
		catch_signals(l);
	}
	/* Whoever had the terminal meanwhile has left a mode of its own there. */
	el_set(l->el, EL_PREP_TERM, 0);
	el_set(l->el, EL_PREP_TERM, 1);
	el_set(l->el, EL_REFRESH);
}

/* Wait for input with signals let through only here, so that none comes between looking and sleeping.
 * false: an interrupt came. */
static bool wait_input(struct chat_lines *l)
{
	struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
	sigset_t held, before;
	int n = 0;

	sigemptyset(&held);
	sigaddset(&held, SIGINT);
	for (size_t i = 0; i < N_CAUGHT; i++)
		sigaddset(&held, caught_signals[i]);
	sigprocmask(SIG_BLOCK, &held, &before);
	while (!*l->interrupted && n <= 0) {
		if (caught) {
			sigprocmask(SIG_SETMASK, &before, NULL);
			raise_caught(l);
			sigprocmask(SIG_BLOCK, &held, NULL);
		} else {
			n = ppoll(&p, 1, NULL, &before);
		}
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
	return !*l->interrupted;
}

/* 1 with a character, 0 at the end, -1 at an interrupt. */
static int read_character(EditLine *el, wchar_t *ret)
{
	struct chat_lines *l;
	mbstate_t state = {0};
	char byte;

	el_get(el, EL_CLIENTDATA, &l);
	for (;;) {
		ssize_t n;
		size_t used;

		if (!wait_input(l))
			return -1;
		n = read(STDIN_FILENO, &byte, 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return (int)n;
		used = mbrtowc(ret, &byte, 1, &state);
		if (used == (size_t)-2)
			continue;
		if (used != (size_t)-1)
			return 1;
		state = (mbstate_t){0}; /* what is no character is left out */
	}
}

/* What is no file has no end (/dev/zero), or none yet (a terminal). */
static bool is_file(const char *path)
{
	struct stat st;

	return !stat(path, &st) && S_ISREG(st.st_mode);
}

/* To open a FIFO waits for somebody at its other end. */
bool chat_lines_may_keep(const char *path)
{
	struct stat st;

	return stat(path, &st) ? errno == ENOENT : S_ISREG(st.st_mode) || S_ISCHR(st.st_mode);
}

static int edit(struct chat_lines *l)
{
	HistEvent event;

	setlocale(LC_CTYPE, ""); /* characters of more than a byte are edited as one */
	l->el = el_init("weft", stdin, stdout, stderr);
	l->lines = history_init();
	if (!l->el || !l->lines)
		return -1;
	history(l->lines, &event, H_SETSIZE, HISTORY_LINES);
	history(l->lines, &event, H_SETUNIQUE, 1);
	if (l->history && is_file(l->history))
		history(l->lines, &event, H_LOAD, l->history);
	el_set(l->el, EL_CLIENTDATA, l);
	el_set(l->el, EL_PROMPT, prompt_of);
	el_set(l->el, EL_EDITOR, "emacs");
	el_set(l->el, EL_HIST, history, l->lines);
	el_set(l->el, EL_GETCFN, read_character);
	el_source(l->el, NULL); /* the user's own ~/.editrc */
	return 0;
}

struct chat_lines *chat_lines_new(const char *history, volatile sig_atomic_t *interrupted)
{
	struct chat_lines *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->history = history;
	l->interrupted = interrupted;
	if (isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && edit(l)) {
		l->history = NULL;
		chat_lines_free(l);
		return NULL;
	}
	return l;
}

static const char *edited(struct chat_lines *l, const char *prompt)
{
	HistEvent event;
	const char *line;
	int n = 0;

	l->prompt = prompt;
	el_resize(l->el);
	catch_signals(l);
	line = el_gets(l->el, &n);
	let_signals(l);
	/* One that came with the line's last character. */
	if (caught) {
		int sig = caught;

		caught = 0;
		raise(sig);
	}
	if (!line || n <= 0) {
		if (*l->interrupted)
			el_reset(l->el);
		return NULL;
	}
	free(l->line);
	l->line = strdup(line);
	if (l->line && line[strspn(line, " \t\r\n")])
		history(l->lines, &event, H_ENTER, line);
	return l->line;
}

/* A line of what is no terminal. Whoever waits for it is ended by an interrupt, which elsewhere lets calls
 * go on. */
static ssize_t piped(struct chat_lines *l)
{
	struct sigaction own, ends;
	ssize_t n;

	sigaction(SIGINT, NULL, &own);
	ends = own;
	ends.sa_flags &= ~SA_RESTART;
	sigaction(SIGINT, &ends, NULL);
	n = getline(&l->line, &l->room, stdin);
	sigaction(SIGINT, &own, NULL);
	return n;
}

const char *chat_lines_next(struct chat_lines *l, const char *prompt)
{
	if (l->el) {
		if (!edited(l, prompt))
			return NULL;
	} else if (piped(l) < 0) {
		return NULL;
	}
	l->line[strcspn(l->line, "\r\n")] = 0;
	return l->line;
}

bool chat_lines_terminal(const struct chat_lines *l)
{
	return l->el != NULL;
}

/* A file is its user's alone before a line is in it; a device is left as it is. */
static int write_history(struct chat_lines *l)
{
	int fd = open(l->history, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), err = 0;
	HistEvent event;
	struct stat st;
	FILE *f;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) || (S_ISREG(st.st_mode) && fchmod(fd, 0600)) || !(f = fdopen(fd, "w"))) {
		err = -errno;
		close(fd);
		return err;
	}
	if (history(l->lines, &event, H_SAVE_FP, f) < 0)
		err = -EIO;
	if ((fflush(f) || ferror(f)) && !err)
		err = errno ? -errno : -EIO;
	fclose(f);
	return err;
}

int chat_lines_free(struct chat_lines *l)
{
	int err = 0;

	if (!l)
		return 0;
	if (l->history && l->lines)
		err = write_history(l);
	if (l->lines)
		history_end(l->lines);
	if (l->el)
		el_end(l->el);
	free(l->line);
	free(l);
	return err;
}
