/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bell.c - wakes programs that sit in an event loop of their own.
 *
 * A bell is a socket whose other end a client polls. Clients share it, so they decide whether
 * writing blocks: the core thread never touches it, but leaves a mark, and the helper thread rings
 * with MSG_DONTWAIT, each bell at most once per RING_INTERVAL_NS. The core thread pays one futex
 * call, and only when the helper sleeps.
 *
 * The lock protects the table of descriptors, against closing one that is just being rung; marks
 * are atomics, so that ringing takes no lock.
 */
#include "daemon/engine/engine.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define RING_INTERVAL_NS 100000 /* 10,000 a second are plenty for an event loop */
#define MAX_BELLS	 65536u
#define PAGE_BELLS	 256u

struct bell_entry {
	_Atomic bool ring;
	int fd; /* owned; -1: free. Under the lock */
};

struct bell {
	pthread_t thread;
	pthread_mutex_t lock;
	/* Pages never move, so that a mark can be set without the lock. */
	_Atomic(struct bell_entry *) pages[MAX_BELLS / PAGE_BELLS]; /* owned */
	_Atomic uint32_t n;
	_Atomic uint32_t calls; /* futex word: raised by whoever rings */
	_Atomic bool asleep, stop;
};

static struct bell_entry *entry(struct bell *b, uint32_t i)
{
	return atomic_load(&b->pages[i / PAGE_BELLS]) + i % PAGE_BELLS;
}

static bool ring_marked(struct bell *b)
{
	bool any = false;

	for (uint32_t i = 0; i < atomic_load(&b->n); i++) {
		struct bell_entry *en = entry(b, i);

		if (!atomic_exchange(&en->ring, false))
			continue;
		any = true;
		pthread_mutex_lock(&b->lock);
		/* A full socket is readable already: nothing is lost. */
		if (en->fd >= 0 && send(en->fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
			errno = 0;
		pthread_mutex_unlock(&b->lock);
	}
	return any;
}

static void *bell_main(void *arg)
{
	const struct timespec pause = {.tv_nsec = RING_INTERVAL_NS};
	struct bell *b = arg;

	while (!atomic_load(&b->stop)) {
		uint32_t calls = atomic_load(&b->calls);

		if (ring_marked(b)) {
			nanosleep(&pause, NULL);
			continue;
		}
		atomic_store(&b->asleep, true);
		if (atomic_load(&b->calls) == calls)
			syscall(SYS_futex, &b->calls, FUTEX_WAIT_PRIVATE, calls, NULL, NULL, 0);
		atomic_store(&b->asleep, false);
	}
	return NULL;
}

static void call(struct bell *b)
{
	atomic_fetch_add(&b->calls, 1);
	if (atomic_exchange(&b->asleep, false))
		syscall(SYS_futex, &b->calls, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

int bell_open(struct bell **ret)
{
	struct bell *b = calloc(1, sizeof(*b));
	int rc;

	if (!b)
		return -ENOMEM;
	pthread_mutex_init(&b->lock, NULL);
	rc = pthread_create(&b->thread, NULL, bell_main, b);
	if (rc) {
		free(b);
		return -rc;
	}
	pthread_setname_np(b->thread, "weft-bell");
	*ret = b;
	return 0;
}

void bell_close(struct bell *b)
{
	if (!b)
		return;
	atomic_store(&b->stop, true);
	call(b);
	pthread_join(b->thread, NULL);
	for (uint32_t i = 0; i < b->n; i++)
		bell_remove(b, i);
	for (uint32_t p = 0; p < MAX_BELLS / PAGE_BELLS; p++)
		free(b->pages[p]);
	pthread_mutex_destroy(&b->lock);
	free(b);
}

int bell_add(struct bell *b, int fd)
{
	uint32_t i, n;
	int rc = -ENOMEM;

	pthread_mutex_lock(&b->lock);
	n = atomic_load(&b->n);
	for (i = 0; i < n && entry(b, i)->fd >= 0; i++)
		;
	if (i == MAX_BELLS)
		goto out;
	if (i == n && i % PAGE_BELLS == 0 && !atomic_load(&b->pages[i / PAGE_BELLS])) {
		struct bell_entry *page = calloc(PAGE_BELLS, sizeof(*page));

		if (!page)
			goto out;
		atomic_store(&b->pages[i / PAGE_BELLS], page);
	}
	entry(b, i)->fd = fd;
	atomic_store(&entry(b, i)->ring, false);
	if (i == n)
		atomic_store(&b->n, n + 1);
	rc = (int)i;
out:
	pthread_mutex_unlock(&b->lock);
	return rc;
}

void bell_remove(struct bell *b, uint32_t index)
{
	pthread_mutex_lock(&b->lock);
	if (entry(b, index)->fd >= 0)
		close(entry(b, index)->fd);
	entry(b, index)->fd = -1;
	pthread_mutex_unlock(&b->lock);
}

void bell_ring(struct bell *b, uint32_t index)
{
	atomic_store(&entry(b, index)->ring, true);
	call(b);
}
