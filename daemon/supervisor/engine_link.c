/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine_link.c - the messages between weftd and an engine.
 *
 * Outgoing: whatever engine and sessions have marked, in one pass, until the socket is full; the
 * rest when it has room (EPOLLOUT). Incoming: exact sizes, strings cut at their ends; anything else
 * means that the engine's memory is no longer what it was, and it is replaced.
 */
#include "daemon/supervisor/weftd.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* Taken at most in one go, so that a babbling engine cannot hold the loop. */
#define MAX_MESSAGES  64
#define SEND_AGAIN_NS (10 * NS_PER_MS)
#define OOM_READ_NS   NS_PER_SECOND

/* --- out ------------------------------------------------------------------------------------------*/

static int send_head(struct engine *e, enum wctl_type type)
{
	struct wctl_head h;

	wctl_head_init(&h, type, sizeof(h), 0);
	return wctl_send(e->link, &h, sizeof(h), NULL, 0);
}

static int send_drain(struct engine *e)
{
	struct wlink_drain m = {.deadline_ns = e->drain_deadline_ns};

	wctl_head_init(&m.head, WLINK_DRAIN, sizeof(m), 0);
	return wctl_send(e->link, &m, sizeof(m), NULL, 0);
}

static int send_tenant(struct engine *e, uint32_t index)
{
	const struct tenant *t = &e->d->tenants.tenant[index];
	struct wlink_tenant m = {.tenant = index, .quota = t->conf.quota};
	int err;

	if (e->told[index] == t->version)
		return 0;
	wctl_head_init(&m.head, WLINK_TENANT, sizeof(m), 0);
	memcpy(m.name, t->conf.name, sizeof(m.name));
	err = wctl_send(e->link, &m, sizeof(m), NULL, 0);
	if (!err)
		e->told[index] = t->version;
	return err;
}

/* Once to each process, with the region that the last one had; again when both are others. */
static int send_domain(struct engine *e, uint32_t domain)
{
	const char *tenant = domain == ENGINE_PUBLIC ? "" : e->d->tenants.tenant[domain].conf.name;
	const struct domain_secret *secret = domains_secret(&e->d->domains, tenant);
	struct wlink_domain m = {.domain = domain == ENGINE_PUBLIC ? WLINK_PUBLIC : domain};
	int fd, err;

	if (e->told_domain[domain] == secret->version)
		return 0;
	fd = engine_index(e, domain);
	if (fd < 0)
		return fd;
	memcpy(m.secret, secret->bytes, sizeof(m.secret));
	wctl_head_init(&m.head, WLINK_DOMAIN, sizeof(m), 0);
	err = wctl_send(e->link, &m, sizeof(m), &fd, 1);
	explicit_bzero(m.secret, sizeof(m.secret));
	if (!err)
		e->told_domain[domain] = secret->version;
	return err;
}

int engine_send_domain(struct engine *e, uint32_t domain)
{
	int err = domain == ENGINE_PUBLIC ? 0 : send_tenant(e, domain);

	return err ? err : send_domain(e, domain);
}

static int send_attach(struct engine *e, struct session *s)
{
	struct wlink_attach m = {
		.session_id = s->id,
		.params = s->region->layout.params,
		.tenant = (uint32_t)s->tenant,
		.resume = s->resume,
		.pid = (uint32_t)s->pid,
		.restarts = e->restarts,
	};
	const int fds[4] = {s->region->tx_fd, s->region->rx_fd, s->wake, s->bell};
	int err = engine_send_domain(e, (uint32_t)s->tenant);

	if (err)
		return err;
	wctl_head_init(&m.head, WLINK_ATTACH, sizeof(m), 0);
	err = wctl_send(e->link, &m, sizeof(m), fds, 4);
	if (!err)
		s->link = LINK_ATTACHED;
	return err;
}

static int send_detach(struct engine *e, struct session *s)
{
	struct wlink_session m = {.session_id = s->id};
	int err;

	wctl_head_init(&m.head, WLINK_DETACH, sizeof(m), s->state == SESSION_OPEN);
	err = wctl_send(e->link, &m, sizeof(m), NULL, 0);
	if (err)
		return err;
	s->link = LINK_DETACHING;
	if (!e->n_detaching++)
		e->alive_ns = loop_now_ns();
	return 0;
}

/* Tenants whose quota a reload has changed, domains whose secret it has; new ones are told with their first
 * session. */
static int send_tenants(struct engine *e)
{
	int err = 0;

	for (uint32_t i = 0; i < e->d->tenants.n && !err; i++) {
		if (e->told[i])
			err = send_tenant(e, i);
		if (!err && e->told_domain[i])
			err = send_domain(e, i);
	}
	return err;
}

static int send_wants(struct engine *e)
{
	int err = 0;

	if (!err && e->want_nudge && !(err = send_head(e, WLINK_NUDGE)))
		e->want_nudge = false;
	if (!err && e->want_status && !(err = send_head(e, WLINK_STATUS)))
		e->want_status = false;
	if (!err && e->want_drain && !(err = send_drain(e)))
		e->want_drain = false;
	return err;
}

static int send_sessions(struct engine *e)
{
	int err = 0;

	for (struct session *s = e->d->sessions; s && !err; s = s->next) {
		if (s->engine != e)
			continue;
		if (s->link == LINK_ATTACH)
			err = send_attach(e, s);
		else if (s->link == LINK_DETACH)
			err = send_detach(e, s);
	}
	return err;
}

static void on_flush_timer(struct loop_timer *t)
{
	engine_flush(container_of(t, struct engine, flush_timer));
}

void engine_flush(struct engine *e)
{
	int err;

	if (e->state != ENGINE_READY || e->link < 0)
		return;
	err = engine_send_domain(e, ENGINE_PUBLIC);
	if (!err)
		err = send_tenants(e);
	if (!err)
		err = registry_send(e);
	if (!err && registry_settled(e))
		err = send_sessions(e);
	if (!err)
		err = pins_send(e);
	if (!err)
		err = send_wants(e);
	loop_rewatch(&e->d->loop, &e->link_source, err == -EAGAIN ? EPOLLIN | EPOLLOUT : EPOLLIN);
	if (err && err != -EAGAIN && err != -EPIPE) {
		/* Memory, or too many descriptors on their way. -EPIPE is a crash: the pidfd. */
		log_limited(&e->send_limit, LOG_LEVEL_WARN, "model=%s event=link-send error=\"%s\"",
			    e->conf.name, strerror(-err));
		loop_timer_set(&e->d->loop, &e->flush_timer, loop_now_ns() + SEND_AGAIN_NS,
			       on_flush_timer);
	}
	engine_health_arm(e);
}

/* --- in -------------------------------------------------------------------------------------------*/

union message {
	struct wctl_head head;
	struct wctl_text text;
	struct wlink_ready ready;
	struct wlink_session session;
	struct wlink_offence offence;
	struct wlink_progress progress;
	struct wlink_status status;
	struct wlink_adapter_reply adapter;
	struct wlink_pinned pinned;
	struct wlink_drop dropped;
};

static struct session *session_by_id(struct engine *e, uint64_t id)
{
	for (struct session *s = e->d->sessions; s; s = s->next)
		if (s->engine == e && s->id == id)
			return s;
	return NULL;
}

static int on_ready(struct engine *e, struct wlink_ready *m)
{
	if (e->state != ENGINE_LOADING)
		return -EPROTO;
	m->model.name[sizeof(m->model.name) - 1] = 0;
	m->model.type[sizeof(m->model.type) - 1] = 0;
	if (m->model.n_eos > WCTL_MAX_EOS)
		return -EPROTO;
	e->model = m->model;
	e->instance_id = m->instance_id;
	e->state = ENGINE_READY;
	e->ready_ns = e->alive_ns = loop_now_ns();
	e->failure[0] = 0;
	engine_take_files(e);
	log_line(LOG_LEVEL_NOTICE, "model=%s event=ready pid=%d load_ms=%llu", e->conf.name,
		 (int)e->pid, (unsigned long long)((e->ready_ns - e->started_ns) / NS_PER_MS));
	engine_flush(e);
	return 0;
}

static int on_detached(struct engine *e, uint64_t id)
{
	struct session *s = session_by_id(e, id);

	if (!s || s->link != LINK_DETACHING)
		return -EPROTO;
	e->n_detaching--;
	s->link = LINK_NONE;
	if (s->state == SESSION_OPEN) { /* it goes on as another tenant's: see session_judge() */
		s->link = LINK_ATTACH;
		s->resume = WLINK_RESUME_KILLED;
		engine_flush(e);
	}
	session_release(s);
	return 0;
}

static int on_offence(struct engine *e, struct wlink_offence *m)
{
	struct session *s = session_by_id(e, m->session_id);

	m->text[sizeof(m->text) - 1] = 0;
	if (!s || s->link == LINK_NONE || s->link == LINK_ATTACH)
		return -EPROTO;
	e->d->counters.offences++;
	log_limited(&e->offence_limit, LOG_LEVEL_WARN,
		    "model=%s session=%llu event=offence uid=%u pid=%d why=\"%s\"", e->conf.name,
		    (unsigned long long)s->id, s->uid, (int)s->pid, m->text);
	if (s->state == SESSION_OPEN)
		session_end(s, -EPROTO, m->text);
	return 0;
}

static int on_status(struct engine *e, struct wlink_status *m, size_t bytes)
{
	json_t *j;

	if (bytes < offsetof(struct wlink_status, text) ||
	    m->text_bytes != bytes - offsetof(struct wlink_status, text))
		return -EPROTO;
	free(e->status_text);
	e->status_text = NULL;
	j = json_loadb(m->text, m->text_bytes, JSON_REJECT_DUPLICATES, NULL);
	if (json_is_object(j))
		e->status_text = json_dumps(j, JSON_COMPACT);
	json_decref(j);
	admin_engine_answered(e->d);
	return 0;
}

/*
 * What the machine, or a device that another process has just left, is short of now it may have in a
 * moment. A model that was served before is tried again for that, and its sessions wait, as after any
 * crash; one that never was may simply ask for more than there is.
 */
static bool short_for_now(const struct engine *e, int code)
{
	return e->model.vocab &&
	       (code == -ENOMEM || code == -EAGAIN || code == -EMFILE || code == -ENFILE);
}

static int on_failed(struct engine *e, struct wctl_text *m)
{
	m->text[sizeof(m->text) - 1] = 0;
	memcpy(e->failure, m->text, sizeof(e->failure));
	e->lacked = short_for_now(e, m->head.code);
	if (e->lacked) {
		log_line(LOG_LEVEL_ERROR, "model=%s event=short why=\"%s\"", e->conf.name,
			 e->failure);
		return 0;
	}
	e->gave_up = true;
	log_line(LOG_LEVEL_ERROR, "model=%s event=refused why=\"%s\"", e->conf.name, e->failure);
	return 0;
}

static void on_progress(struct engine *e, const struct wlink_progress *m)
{
	e->done_bytes = m->done_bytes;
	e->total_bytes = m->total_bytes;
	e->alive_ns = loop_now_ns();
	engine_health_arm(e);
}

static int on_head(struct engine *e, enum wctl_type type)
{
	switch (type) {
	case WLINK_BUSY:
		e->busy = true;
		e->alive_ns = loop_now_ns();
		/* Whom the kernel ended before this work began is of no concern to it. */
		if (e->alive_ns - e->oom_read_ns > OOM_READ_NS) {
			e->oom_kills = engine_oom_kills();
			e->oom_read_ns = e->alive_ns;
		}
		break;
	case WLINK_IDLE:
		e->busy = false;
		break;
	case WLINK_NUDGED:
		e->nudged = false;
		e->alive_ns = loop_now_ns();
		break;
	case WLINK_DRAINED:
		e->drained = true;
		weftd_drain_check(e->d);
		break;
	default:
		return -EPROTO;
	}
	engine_health_arm(e);
	return 0;
}

static int on_adapter(struct engine *e, struct wlink_adapter_reply *m)
{
	m->text[sizeof(m->text) - 1] = 0;
	m->instance.name[sizeof(m->instance.name) - 1] = 0;
	return m->head.type == WLINK_ADAPTER_LOADED ? registry_on_loaded(e, m)
						    : registry_on_unloaded(e, m);
}

static int on_pinned(struct engine *e, struct wlink_pinned *m)
{
	m->text[sizeof(m->text) - 1] = 0;
	return pins_on_pinned(e, m);
}

static int on_message(struct engine *e, union message *m, size_t bytes)
{
	switch (m->head.type) {
	case WLINK_READY:
		return bytes == sizeof(m->ready) ? on_ready(e, &m->ready) : -EPROTO;
	case WLINK_FAILED:
		return bytes == sizeof(m->text) ? on_failed(e, &m->text) : -EPROTO;
	case WLINK_DETACHED:
		return bytes == sizeof(m->session) ? on_detached(e, m->session.session_id)
						   : -EPROTO;
	case WLINK_OFFENCE:
		return bytes == sizeof(m->offence) ? on_offence(e, &m->offence) : -EPROTO;
	case WLINK_STATUS_TEXT:
		return on_status(e, &m->status, bytes);
	case WLINK_ADAPTER_LOADED:
	case WLINK_ADAPTER_UNLOADED:
		return bytes == sizeof(m->adapter) ? on_adapter(e, &m->adapter) : -EPROTO;
	case WLINK_PINNED:
		return bytes == sizeof(m->pinned) ? on_pinned(e, &m->pinned) : -EPROTO;
	case WLINK_DROPPED:
		return bytes == sizeof(m->dropped) ? pins_on_dropped(e, &m->dropped) : -EPROTO;
	case WLINK_PROGRESS:
		if (bytes != sizeof(m->progress))
			return -EPROTO;
		on_progress(e, &m->progress);
		return 0;
	default:
		return bytes == sizeof(m->head) ? on_head(e, m->head.type) : -EPROTO;
	}
}

bool engine_link_read(struct engine *e)
{
	static union message m; /* 128 KiB; the one thread uses it between two calls only */

	for (int i = 0; i < MAX_MESSAGES; i++) {
		int n = wctl_recv(e->link, &m, sizeof(m), NULL, NULL);

		if (n == -EAGAIN)
			return true;
		if (n > 0)
			n = on_message(e, &m, (size_t)n) ? -EPROTO : n;
		if (n == -EPROTO) {
			log_limited(&e->garbage_limit, LOG_LEVEL_ERROR,
				    "model=%s event=link-garbage type=%u", e->conf.name,
				    m.head.type);
			engine_kill(e, "it sent a message that makes no sense");
			return false;
		}
		if (n <= 0)
			return false;
	}
	return true;
}
