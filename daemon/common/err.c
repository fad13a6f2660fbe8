/* SPDX-License-Identifier: Apache-2.0 */
/* err.c - see err.h. */
#include "daemon/common/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct weft_err *err, int code, const char *fmt, ...)
{
	va_list ap;

	if (!err)
		return code;
	err->code = code;
	va_start(ap, fmt);
	vsnprintf(err->message, sizeof(err->message), fmt, ap);
	va_end(ap);
	return code;
}

/* Nobody thinks of files where shared memory is meant, and "File too large" does not say whose limit. */
const char *err_memory_text(int error)
{
	return error == EFBIG
		       ? "larger than the limit of file sizes, which holds for shared memory, "
			 "too (RLIMIT_FSIZE)"
		       : strerror(error);
}

void err_one_line(struct weft_err *err)
{
	for (char *s = err ? err->message : ""; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			*s = ' ';
}
