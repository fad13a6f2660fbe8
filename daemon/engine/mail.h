/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mail.h - messages between the control and the core thread.
 *
 * A mailbox is a locked list and an eventfd. Sending never blocks for longer than another's
 * pointer swap; whoever is busy looks at `waiting`, a plain load, instead of the descriptor.
 * Messages are heap objects: the sender gives them away, the receiver frees them.
 */
#ifndef WEFT_ENGINE_MAIL_H
#define WEFT_ENGINE_MAIL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum mail_type {
	/* control -> core */
	MAIL_ATTACH, /* object: struct session, opened; value: enum wlink_resume */
	MAIL_DETACH, /* session_id; value 1: to be attached again */
	MAIL_TENANT, /* object: struct wlink_tenant, heap */
	MAIL_DOMAIN, /* object: struct domain_open, heap */
	MAIL_PIN,    /* object: struct pin_job */
	MAIL_UNPIN,  /* value: its number */
	MAIL_NUDGE,
	MAIL_STATUS,
	MAIL_DRAIN, /* value: deadline_ns */
	MAIL_STOP,
	/* either way: done by the core thread, then the answer */
	MAIL_ADAPTER, /* object: struct adapter_mail, heap; see adapters.h */
	MAIL_DROP,    /* object: struct wlink_drop, heap */
	/* core -> control */
	MAIL_DETACHED, /* object: struct session, for closing; NULL: unknown id */
	MAIL_OFFENCE,  /* session_id, value: status, text */
	MAIL_BUSY,
	MAIL_IDLE,
	MAIL_NUDGED,
	MAIL_REPORT, /* object: struct status_report */
	MAIL_DRAINED,
	MAIL_PIN_DONE, /* object: struct pin_job */
	MAIL_STOPPED,  /* the core thread has ended; value: errno */
};

struct mail {
	struct mail *next;
	enum mail_type type;
	uint64_t session_id;
	uint64_t value;
	void *object;
	char text[128];
};

struct mailbox {
	pthread_mutex_t lock; /* protects first and last, for a few instructions */
	struct mail *first, *last;
	_Atomic bool waiting;
	int event_fd; /* owned; only these two threads have it */
};

int mail_init(struct mailbox *m); /* 0 or -errno */
void mail_fini(struct mailbox *m);
struct mail *mail_new(enum mail_type type); /* zeroed; NULL: no memory */
void mail_send(struct mailbox *m, struct mail *mail);
struct mail *mail_take(struct mailbox *m); /* NULL: none */
void mail_quiet(struct mailbox *m);	   /* read the eventfd, before taking */

static inline bool mail_waiting(struct mailbox *m)
{
	return atomic_load_explicit(&m->waiting, memory_order_relaxed);
}

#endif
