/* SPDX-License-Identifier: Apache-2.0 */
/* mail.c - see mail.h. */
#include "daemon/engine/mail.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

int mail_init(struct mailbox *m)
{
	memset(m, 0, sizeof(*m));
	pthread_mutex_init(&m->lock, NULL);
	m->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return m->event_fd < 0 ? -errno : 0;
}

void mail_fini(struct mailbox *m)
{
	struct mail *mail;

	while ((mail = mail_take(m)))
		free(mail);
	if (m->event_fd >= 0)
		close(m->event_fd);
	m->event_fd = -1;
	pthread_mutex_destroy(&m->lock);
}

struct mail *mail_new(enum mail_type type)
{
	struct mail *mail = calloc(1, sizeof(*mail));

	if (mail)
		mail->type = type;
	return mail;
}

void mail_send(struct mailbox *m, struct mail *mail)
{
	uint64_t one = 1;
	ssize_t n;

	mail->next = NULL;
	pthread_mutex_lock(&m->lock);
	if (m->last)
		m->last->next = mail;
	else
		m->first = mail;
	m->last = mail;
	atomic_store_explicit(&m->waiting, true, memory_order_relaxed);
	pthread_mutex_unlock(&m->lock);
	/* Cannot fail but by overflow, and then the descriptor is readable anyway. */
	n = write(m->event_fd, &one, sizeof(one));
	(void)n;
}

struct mail *mail_take(struct mailbox *m)
{
	struct mail *mail;

	pthread_mutex_lock(&m->lock);
	mail = m->first;
	if (mail)
		m->first = mail->next;
	if (!m->first) {
		m->last = NULL;
		atomic_store_explicit(&m->waiting, false, memory_order_relaxed);
	}
	pthread_mutex_unlock(&m->lock);
	return mail;
}

void mail_quiet(struct mailbox *m)
{
	uint64_t n;
	ssize_t rc = read(m->event_fd, &n, sizeof(n));

	(void)rc;
}
