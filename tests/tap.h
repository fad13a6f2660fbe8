/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tap.h - the Test Anything Protocol in one header, for `prove`.
 *
 * A test program calls ok() and friends and ends with `return tap_done();`. One program tests one
 * behaviour; the plan is printed at the end, so nothing has to be counted by hand. Checks are made
 * from one thread only.
 */
#ifndef WEFT_TESTS_TAP_H
#define WEFT_TESTS_TAP_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Weak, so that the checks of a program's helper files count together with its own. */
__attribute__((weak)) int tap_count, tap_failed;

static inline int __attribute__((format(printf, 4, 5)))
tap_ok(int cond, const char *file, int line, const char *fmt, ...)
{
	va_list ap;

	printf("%sok %d - ", cond ? "" : "not ", ++tap_count);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	if (!cond) {
		tap_failed++;
		printf("# failed at %s:%d\n", file, line);
	}
	fflush(stdout);
	return cond;
}

/* ok(condition, "what must hold", ...) -> the condition */
#define ok(cond, ...) tap_ok(!!(cond), __FILE__, __LINE__, __VA_ARGS__)

/* Compare two integers and show both when they differ. */
#define is_int(got, want, ...)                                                 \
	do {                                                                   \
		long long tap_g = (long long)(got), tap_w = (long long)(want); \
		if (!ok(tap_g == tap_w, __VA_ARGS__))                          \
			printf("#   got %lld, want %lld\n", tap_g, tap_w);     \
	} while (0)

/* Compare two strings (NULL allowed) and show both when they differ. */
#define is_str(got, want, ...)                                                                 \
	do {                                                                                   \
		const char *tap_g = (got), *tap_w = (want);                                    \
		if (!ok(tap_g && tap_w ? !strcmp(tap_g, tap_w) : tap_g == tap_w, __VA_ARGS__)) \
			printf("#   got \"%s\", want \"%s\"\n", tap_g ? tap_g : "(null)",      \
			       tap_w ? tap_w : "(null)");                                      \
	} while (0)

static inline void __attribute__((format(printf, 1, 2))) diag(const char *fmt, ...)
{
	va_list ap;

	printf("# ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
}

/* Report `count` tests as skipped for a reason that really is not there on this machine. */
static inline void skip(int count, const char *why)
{
	while (count-- > 0)
		printf("ok %d # SKIP %s\n", ++tap_count, why);
}

/* Nothing can be tested here at all: end the program. */
static inline void __attribute__((noreturn)) skip_all(const char *why)
{
	printf("1..0 # SKIP %s\n", why);
	exit(0);
}

static inline void __attribute__((noreturn)) bail_out(const char *why)
{
	printf("Bail out! %s\n", why);
	exit(255);
}

static inline int tap_done(void)
{
	printf("1..%d\n", tap_count);
	return tap_failed ? 1 : 0;
}

#endif
