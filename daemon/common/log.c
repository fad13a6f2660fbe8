/* SPDX-License-Identifier: Apache-2.0 */
/* log.c - see log.h. The name and level are set before threads start and only read afterwards. */
#include "daemon/common/log.h"
#include "daemon/common/plain.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES 1024

static char log_name[64] = "weft";
static enum log_level log_max = LOG_LEVEL_INFO;
static bool log_read_by_people;

void log_set_name(const char *name)
{
	snprintf(log_name, sizeof(log_name), "%s", name);
	log_read_by_people = isatty(STDERR_FILENO);
}

void log_set_level(enum log_level level)
{
	log_max = level;
}

static void line_write(enum log_level level, const char *fmt, va_list ap, uint32_t dropped)
{
	char line[LINE_BYTES];
	int len, n;

	/* The level in front is for who collects it, not for who reads it. */
	len = log_read_by_people ? snprintf(line, sizeof(line), "%s: ", log_name)
				 : snprintf(line, sizeof(line), "<%d>%s: ", (int)level, log_name);
	n = vsnprintf(line + len, sizeof(line) - (size_t)len, fmt, ap);
	if (n < 0)
		return;
	len += n;
	if (len > LINE_BYTES - 32)
		len = LINE_BYTES - 32;
	if (dropped)
		len += snprintf(line + len, sizeof(line) - (size_t)len, " dropped=%u", dropped);
	plain_text(line, (size_t)len);
	line[len++] = '\n';
	/* Where nobody reads the log there is nothing better to do. */
	if (write(STDERR_FILENO, line, (size_t)len) < 0)
		return;
}

void log_line(enum log_level level, const char *fmt, ...)
{
	va_list ap;

	if (level > log_max)
		return;
	va_start(ap, fmt);
	line_write(level, fmt, ap, 0);
	va_end(ap);
}

void log_limited(struct log_limit *limit, enum log_level level, const char *fmt, ...)
{
	uint32_t burst = limit->burst ? limit->burst : 5;
	uint64_t interval = limit->interval_ns ? limit->interval_ns : UINT64_C(10000000000);
	struct timespec ts;
	uint64_t now;
	va_list ap;

	if (level > log_max)
		return;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	now = (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
	if (!limit->window_ns || now - limit->window_ns >= interval) {
		limit->window_ns = now;
		limit->used = 0;
	}
	if (limit->used >= burst) {
		limit->dropped++;
		return;
	}
	limit->used++;
	va_start(ap, fmt);
	line_write(level, fmt, ap, limit->dropped);
	va_end(ap);
	limit->dropped = 0;
}
