/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chat_lines.h - lines that a person writes: edited on a terminal, with a history; as they come from
 * a pipe.
 */
#ifndef WEFT_TOOLS_CHAT_LINES_H
#define WEFT_TOOLS_CHAT_LINES_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

struct chat_lines;

/* May this be a history: a file, there or not, or a device, which is written and never read. */
bool chat_lines_may_keep(const char *path);
/*
 * From standard input. history: a file that keeps lines between conversations (NULL: none does).
 * interrupted is set by the program's handler of SIGINT, which must not restart reads; borrowed. NULL:
 * out of memory.
 */
struct chat_lines *chat_lines_new(const char *history, volatile sig_atomic_t *interrupted);
/* The next line without its end, the callee's until the next call. NULL at the end of the input, or
 * when an interrupt came (*interrupted). */
const char *chat_lines_next(struct chat_lines *l, const char *prompt);
bool chat_lines_terminal(const struct chat_lines *l);
/* Writes the history file; 0 or -errno. NULL allowed. */
int chat_lines_free(struct chat_lines *l);

#endif
