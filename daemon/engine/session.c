/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.c - tenants, sessions and their slots, and the looking at what clients wrote.
 *
 * A slot is used from admission until its client gives it back (`released`), whatever has become
 * of its request in between. Every way of giving back - by the client, by reuse, by the client's
 * death - goes through session_slot_release(). Polling is bounded per session and round; only an
 * engine that is about to sleep looks at every flag. Owned by the core thread; the control thread
 * makes sessions and unmakes them, but has none of them in between.
 */
#include "daemon/engine/engine.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#define ROUND_SLOTS 64 /* flags looked at per session and round: one cache line each */

/* --- tenants -------------------------------------------------------------------------------------*/

#define MAX_TENANTS 65536 /* the public domain's included */

struct tenant *tenant_get(struct engine *e, uint32_t index)
{
	return index < e->n_tenants ? e->tenants[index] : NULL;
}

static int tenants_grow(struct engine *e, uint32_t n)
{
	struct tenant **all;

	if (n <= e->n_tenants)
		return 0;
	if (n > MAX_TENANTS)
		return -EINVAL;
	all = reallocarray(e->tenants, n, sizeof(*all));
	if (!all)
		return -ENOMEM;
	memset(all + e->n_tenants, 0, (n - e->n_tenants) * sizeof(*all));
	e->tenants = all;
	e->n_tenants = n;
	return 0;
}

int tenant_set(struct engine *e, uint32_t number, const char *name, const struct wlink_quota *quota)
{
	int rc = number == UINT32_MAX ? -EINVAL : tenants_grow(e, number + 1);
	struct tenant *t = tenant_get(e, number);
	struct domain *d = domain_find(e, number);

	if (rc)
		return rc;
	if (!t) {
		t = calloc(1, sizeof(*t));
		if (!t)
			return -ENOMEM;
		e->tenants[number] = t;
	}
	snprintf(t->name, sizeof(t->name), "%s", name);
	t->quota = *quota;
	if (d)
		cache_domain_weight(d->cache, quota->weight ? quota->weight : 1);
	return sched_tenant_set(&e->sched, number, quota->weight);
}

/* --- slots ---------------------------------------------------------------------------------------*/

void session_slot_use(struct session *s, uint32_t slot, uint32_t generation, struct request *req)
{
	s->slots[slot] = (struct slot_use){
		.used = true,
		.generation = generation,
		.req = req,
		.at = s->n_used,
	};
	s->used[s->n_used++] = slot;
}

/* Everything but what the client sees of the slot. */
static void slot_forget(struct engine *e, struct session *s, uint32_t slot)
{
	struct slot_use *u = &s->slots[slot];
	uint32_t last = s->used[s->n_used - 1];

	if (u->req)
		request_drop(e, u->req);
	if (u->has_slab) {
		slab_put(&s->slabs, u->slab_off);
		s->slabs_freed++;
	}
	s->used[u->at] = last;
	s->slots[last].at = u->at;
	s->n_used--;
	*u = (struct slot_use){.used = false};
}

void session_slot_release(struct engine *e, struct session *s, uint32_t slot)
{
	slot_forget(e, s, slot);
	publish_free(s, slot);
}

static void session_drop_all(struct engine *e, struct session *s)
{
	if (s->pending)
		request_drop(e, s->pending);
	while (s->n_used)
		slot_forget(e, s, s->used[s->n_used - 1]);
}

/* --- polling -------------------------------------------------------------------------------------*/

/* True if the slot's flags said something. */
static bool slot_poll(struct engine *e, struct session *s, uint32_t slot)
{
	struct slot_use *u = &s->slots[slot];

	if (wshm_engine_released(&s->shm, slot, u->generation)) {
		session_slot_release(e, s, slot);
		return true;
	}
	if (u->req && wshm_engine_cancelled(&s->shm, slot, u->generation)) {
		request_end(e, u->req, WSHM_CANCELLED, 0);
		return true;
	}
	return false;
}

bool session_poll(struct engine *e, struct session *s, uint64_t now, bool all)
{
	uint32_t n = all || s->n_used < ROUND_SLOTS ? s->n_used : ROUND_SLOTS;
	bool any = false;

	if (s->over)
		return false;
	while (n-- && s->n_used) {
		/* From the end down: a release moves the last entry to where we are. */
		if (s->cursor == 0 || s->cursor > s->n_used)
			s->cursor = s->n_used;
		any |= slot_poll(e, s, s->used[--s->cursor]);
	}
	any = admit_poll(e, s, now) || any;
	/* A wake-up that was worth it; only others are held against a session. */
	if (any && s->wakes)
		s->wakes--;
	return any;
}

void session_ring_bell(struct engine *e, struct session *s)
{
	if (s->bell != BELL_NONE)
		bell_ring(e->bell, s->bell);
}

/* --- coming and going ----------------------------------------------------------------------------*/

struct session *session_find(struct engine *e, uint64_t id)
{
	struct session *s = e->sessions;

	while (s && s->id != id)
		s = s->next;
	return s;
}

void session_offence(struct engine *e, struct session *s, const char *what)
{
	struct mail *mail = mail_new(MAIL_OFFENCE);

	s->over = true;
	e->count.offences++;
	session_drop_all(e, s);
	wshm_engine_set_state(&s->shm, WSHM_ENGINE_ENDED, WSHM_PROTOCOL, e->instance_id);
	session_ring_bell(e, s);
	if (s->wake_fd >= 0)
		epoll_ctl(e->epoll_fd, EPOLL_CTL_DEL, s->wake_fd, NULL);
	log_limited(&e->log_session, LOG_LEVEL_WARN, "event=offence session=%llu what=\"%s\"",
		    (unsigned long long)s->id, what);
	if (!mail || s->internal) { /* weftd does not know of it */
		free(mail);
		return;
	}
	mail->session_id = s->id;
	mail->value = WSHM_PROTOCOL;
	snprintf(mail->text, sizeof(mail->text), "%s", what);
	mail_send(&e->to_control, mail);
}

/* Its tenant is known, and has a domain. */
static bool tenant_ready(struct engine *e, uint32_t number)
{
	struct tenant *t = tenant_get(e, number);

	if (t && !t->domain)
		t->domain = domain_of(e, number);
	return t && t->domain;
}

void session_attach(struct engine *e, struct session *s, enum wlink_resume resume)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET, .data.ptr = s};

	s->prev = NULL;
	s->next = e->sessions;
	if (s->next)
		s->next->prev = s;
	e->sessions = s;
	s->shm.wake_later = true;
	if (s->wake_fd >= 0 && epoll_ctl(e->epoll_fd, EPOLL_CTL_ADD, s->wake_fd, &ev) < 0) {
		log_line(LOG_LEVEL_ERROR, "event=watch-failed session=%llu errno=%d",
			 (unsigned long long)s->id, errno);
		session_offence(e, s, "wake descriptor cannot be watched");
		return;
	}
	if (!tenant_ready(e, s->tenant)) {
		session_offence(e, s, "tenant unknown to the engine");
		return;
	}
	if (resume && !recover_session(e, s, resume))
		return;
	wshm_engine_set_state(&s->shm, e->draining ? WSHM_ENGINE_DRAINING : WSHM_ENGINE_RUNNING,
			      WSHM_OK, e->instance_id);
	if (resume)
		wshm_engine_announce_all(&s->shm);
	session_ring_bell(e, s);
}

void session_detach(struct engine *e, struct session *s)
{
	struct mail *mail = mail_new(MAIL_DETACHED);

	session_drop_all(e, s);
	if (s->wake_fd >= 0 && !s->over)
		epoll_ctl(e->epoll_fd, EPOLL_CTL_DEL, s->wake_fd, NULL);
	if (s->prev)
		s->prev->next = s->next;
	else
		e->sessions = s->next;
	if (s->next)
		s->next->prev = s->prev;
	if (!mail)
		abort(); /* weftd would wait for ever; a restart is better */
	mail->session_id = s->id;
	mail->object = s;
	mail_send(&e->to_control, mail);
}
