/* SPDX-License-Identifier: Apache-2.0 */
/* err.h - a code and one line of text: what was being done, to what, why it failed, what to do. */
#ifndef WEFT_COMMON_ERR_H
#define WEFT_COMMON_ERR_H

struct weft_err {
	int code; /* negative errno */
	char message[512];
};

/* Fill *err (NULL allowed) and return code, so that a failing function can `return err_set(...)`. */
int err_set(struct weft_err *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Why memory that counts as a file could not be made or filled: strerror(), or the limit's name. */
const char *err_memory_text(int error);

/* Messages quote files: make control characters blanks, so that it stays one line. NULL allowed. */
void err_one_line(struct weft_err *err);

#endif
