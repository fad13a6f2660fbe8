/* SPDX-License-Identifier: Apache-2.0 */
/*
 * futex.c - sleep on a word of rx and wake its sleepers.
 *
 * Not the PRIVATE kind: sleeper and waker are different processes with different mappings, and the
 * kernel finds them by the page of the memfd. The sleeper's mapping is read-only; FUTEX_WAIT only
 * reads. The engine names its own mapping of rx, so the call cannot fail on what a client does.
 */
#include "shm/internal.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int wshm_futex_wait(const _Atomic uint32_t *word, uint32_t seen, int64_t timeout_ns)
{
	struct timespec ts = {.tv_sec = timeout_ns / 1000000000,
			      .tv_nsec = timeout_ns % 1000000000};

	if (syscall(SYS_futex, word, FUTEX_WAIT, seen, timeout_ns < 0 ? NULL : &ts, NULL, 0) == 0)
		return 0;
	return errno == ETIMEDOUT || errno == EINTR ? -errno : 0;
}

void wshm_futex_wake(const _Atomic uint32_t *word, uint32_t most)
{
	syscall(SYS_futex, word, FUTEX_WAKE, most < INT_MAX ? most : INT_MAX, NULL, NULL, 0);
}
