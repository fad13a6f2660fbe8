/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log.h - one line to standard error per event, key=value, with journald's priority prefix.
 *
 *   <6>weftd: session=12 event=attached uid=1000
 *
 * Never a prompt, never a token. A line is one write(), so lines of several threads and processes
 * do not mix. Control characters in a line become '?', so that nothing a client says can forge
 * another line.
 */
#ifndef WEFT_COMMON_LOG_H
#define WEFT_COMMON_LOG_H

#include <stdint.h>

enum log_level {
	LOG_LEVEL_ERROR = 3,
	LOG_LEVEL_WARN = 4,
	LOG_LEVEL_NOTICE = 5,
	LOG_LEVEL_INFO = 6,
	LOG_LEVEL_DEBUG = 7,
};

/* The name before the colon; copied. Call before threads start. */
void log_set_name(const char *name);
/* Lines above this level are dropped; the default is INFO. Call before threads start. */
void log_set_level(enum log_level level);

void log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/*
 * At most `burst` lines in any `interval_ns`, for what others can provoke. One per kind of event,
 * owned by one thread; zeroed fields mean 5 lines in 10 seconds. The first line after a silence
 * says how many were dropped.
 */
struct log_limit {
	uint32_t burst;
	uint64_t interval_ns;
	uint64_t window_ns; /* start of the current interval */
	uint32_t used;
	uint32_t dropped;
};

void log_limited(struct log_limit *limit, enum log_level level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
