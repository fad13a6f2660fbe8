/* SPDX-License-Identifier: Apache-2.0 */
/*
 * progress.h - a bar on standard error, for what takes over a second.
 *
 * Nothing is drawn in the first second, nor ever when standard error is no terminal; the line is wiped at
 * the end, and before a message of cli_fail(). There is one at a time, of the thread that began it. Code
 * that makes steps may run without one: then they count for nothing.
 */
#ifndef WEFT_TOOLS_PROGRESS_H
#define WEFT_TOOLS_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

/* what: at the line's beginning; copied, and cut. total: of steps, of bytes, of whatever is counted. */
void progress_begin(const char *what, uint64_t total);
void progress_at(uint64_t done);
void progress_step(void); /* one more */
/* Wipe the line; it comes back with the next step, or not at all. */
void progress_clear(void);
void progress_end(void);
/* Is there a terminal to draw on, and something to be drawn? */
bool progress_wanted(void);

#endif
