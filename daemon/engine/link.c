/* SPDX-License-Identifier: Apache-2.0 */
/*
 * link.c - the control thread: weftd's messages to the core thread and back.
 *
 * It owns the link and every descriptor that arrives on it: opens and maps the regions of a
 * session before the core thread sees it, unmaps and closes them after the core thread has let
 * go, so neither costs the core thread a system call. It sleeps in poll() all the time. When weftd
 * is gone the process ends at once (see orphan.c): what matters lies in the regions, and they are weftd's.
 */
#include "daemon/engine/engine.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define SEND_PATIENCE_MS     5000
#define PROGRESS_INTERVAL_NS UINT64_C(100000000)

union any_message {
	struct wctl_head head;
	struct wlink_attach attach;
	struct wlink_session session;
	struct wlink_drain drain;
	struct wlink_tenant tenant;
	struct wlink_domain domain;
	struct wlink_adapter adapter;
	struct wlink_unload unload;
	struct wlink_pin pin;
	struct wlink_drop drop;
};

/* weftd reads the link whenever it can; one that does not for seconds is as good as gone. */
static void tell(const void *msg, uint32_t bytes)
{
	struct pollfd p = {.fd = WLINK_FD_SOCKET, .events = POLLOUT};
	int rc;

	while ((rc = wctl_send(WLINK_FD_SOCKET, msg, bytes, NULL, 0)) == -EAGAIN)
		if (poll(&p, 1, SEND_PATIENCE_MS) == 0)
			break;
	if (rc) {
		log_line(LOG_LEVEL_ERROR, "event=link-lost errno=%d", -rc);
		orphan_wait();
		_exit(1);
	}
}

static void tell_head(enum wctl_type type)
{
	struct wctl_head head;

	wctl_head_init(&head, type, sizeof(head), 0);
	tell(&head, sizeof(head));
}

static void tell_session(enum wctl_type type, uint64_t id)
{
	struct wlink_session msg = {.session_id = id};

	wctl_head_init(&msg.head, type, sizeof(msg), 0);
	tell(&msg, sizeof(msg));
}

static void tell_offence(uint64_t id, uint32_t status, const char *text)
{
	struct wlink_offence msg = {.session_id = id, .status = status};

	wctl_head_init(&msg.head, WLINK_OFFENCE, sizeof(msg), 0);
	snprintf(msg.text, sizeof(msg.text), "%s", text);
	tell(&msg, sizeof(msg));
}

int link_fail(const struct weft_err *err)
{
	struct wctl_text msg = {.text = ""};

	log_line(LOG_LEVEL_ERROR, "event=start-failed why=\"%s\"", err->message);
	wctl_head_init(&msg.head, WLINK_FAILED, sizeof(msg), err->code);
	snprintf(msg.text, sizeof(msg.text), "%.*s", (int)sizeof(msg.text) - 1, err->message);
	tell(&msg, sizeof(msg));
	return 1;
}

void link_progress(void *engine, uint64_t done, uint64_t total)
{
	static uint64_t last; /* one loader per process */
	struct wlink_progress msg = {.done_bytes = done, .total_bytes = total};
	struct pollfd p = {.fd = WLINK_FD_SOCKET};
	uint64_t now = now_ns();

	(void)engine;
	if (now - last < PROGRESS_INTERVAL_NS && done < total)
		return;
	last = now;
	if (poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR)))
		_exit(0);
	wctl_head_init(&msg.head, WLINK_PROGRESS, sizeof(msg), 0);
	tell(&msg, sizeof(msg));
}

void link_ready(struct engine *e)
{
	struct wlink_ready msg = {.instance_id = e->instance_id};

	wctl_head_init(&msg.head, WLINK_READY, sizeof(msg), 0);
	snprintf(msg.model.name, sizeof(msg.model.name), "%s", e->opt.name);
	snprintf(msg.model.type, sizeof(msg.model.type), "%s", e->config->model_type);
	msg.model.vocab = e->config->vocab;
	msg.model.max_positions = e->config->max_positions;
	msg.model.n_eos = e->n_eos < WCTL_MAX_EOS ? e->n_eos : WCTL_MAX_EOS;
	memcpy(msg.model.eos, e->eos, msg.model.n_eos * sizeof(e->eos[0]));
	msg.model.bos = e->config->bos;
	msg.model.weight_bytes = e->weight_bytes;
	msg.model.ready = 1;
	tell(&msg, sizeof(msg));
}

/* --- from weftd ----------------------------------------------------------------------------------*/

static void session_free(struct engine *e, struct session *s)
{
	if (!s)
		return;
	orphan_remove(e, s);
	wshm_engine_close(&s->shm);
	if (s->bell != BELL_NONE)
		bell_remove(e->bell, s->bell);
	if (s->wake_fd >= 0)
		close(s->wake_fd);
	slab_fini(&s->slabs);
	free(s->slots);
	free(s->used);
	free(s);
}

static int session_open(struct engine *e, const struct wlink_attach *msg, int *fds,
			struct session **ret)
{
	struct session *s = calloc(1, sizeof(*s));
	struct wshm_layout layout;
	int rc;

	if (!s)
		return -ENOMEM;
	s->wake_fd = -1;
	s->bell = BELL_NONE;
	s->id = msg->session_id;
	s->tenant = msg->tenant + 1; /* 0 is the public domain's; see engine.h */
	rc = getrandom(&s->seed_state, sizeof(s->seed_state), 0) < 0 ? -errno : 0;
	if (!rc)
		rc = wshm_layout_init(&layout, &msg->params);
	if (!rc)
		rc = wshm_engine_open(&s->shm, &layout, fds[0], fds[1], msg->resume != 0);
	if (!rc)
		rc = slab_init(&s->slabs, msg->params.rx_arena_bytes, msg->params.slots);
	if (rc)
		goto fail;
	rc = -ENOMEM;
	s->slots = calloc(msg->params.slots, sizeof(*s->slots));
	s->used = calloc(msg->params.slots, sizeof(*s->used));
	if (!s->slots || !s->used)
		goto fail;
	rc = fds[3] < 0 ? 0 : bell_add(e->bell, fds[3]);
	if (rc < 0)
		goto fail;
	if (fds[3] >= 0)
		s->bell = (uint32_t)rc;
	fds[3] = -1;
	s->wake_fd = fds[2];
	fds[2] = -1;
	*ret = s;
	return 0;
fail:
	session_free(e, s);
	return rc;
}

static void post(struct engine *e, enum mail_type type, uint64_t session_id, uint64_t value,
		 void *object)
{
	struct mail *mail = mail_new(type);

	if (!mail) {
		log_line(LOG_LEVEL_ERROR, "event=fatal what=memory");
		_exit(1);
	}
	mail->session_id = session_id;
	mail->value = value;
	mail->object = object;
	mail_send(&e->to_core, mail);
}

static void on_attach(struct engine *e, const struct wlink_attach *msg, int *fds, uint32_t n_fds)
{
	struct session *s = NULL;
	int rc = n_fds == 4 ? session_open(e, msg, fds, &s) : -EPROTO;

	if (rc) {
		log_line(LOG_LEVEL_ERROR, "event=attach-failed session=%llu errno=%d",
			 (unsigned long long)msg->session_id, -rc);
		tell_offence(msg->session_id, WSHM_PROTOCOL, "regions cannot be attached");
		return;
	}
	orphan_add(e, s);
	post(e, MAIL_ATTACH, msg->session_id, msg->resume, s);
}

static void on_tenant(struct engine *e, const struct wlink_tenant *msg)
{
	struct wlink_tenant *copy = malloc(sizeof(*copy));

	if (!copy)
		_exit(1);
	*copy = *msg;
	copy->name[sizeof(copy->name) - 1] = '\0';
	post(e, MAIL_TENANT, 0, 0, copy);
}

/* The number of a domain of weftd's in the engine. */
static uint32_t domain_number(uint32_t domain)
{
	return domain == WLINK_PUBLIC ? DOMAIN_PUBLIC : domain + 1;
}

static void on_domain(struct engine *e, const struct wlink_domain *msg, const int *fds,
		      uint32_t n_fds)
{
	struct domain_open *open = calloc(1, sizeof(*open));
	struct wshm_root root;
	int rc = -EPROTO;

	if (!open)
		_exit(1);
	open->number = domain_number(msg->domain);
	memcpy(open->secret, msg->secret, sizeof(open->secret));
	domain_root(e, &root);
	if (n_fds == 1)
		rc = wshm_idx_writer_open(&open->mirror, fds[0], open->secret, &root);
	if (rc) /* the cache works as well without a mirror; only probes miss it */
		log_line(LOG_LEVEL_ERROR, "event=index-failed domain=%u errno=%d", msg->domain,
			 -rc);
	post(e, MAIL_DOMAIN, 0, 0, open);
}

/* --- adapters -------------------------------------------------------------------------------------*/

static struct adapter_mail *adapter_mail_new(enum wctl_type answer, uint64_t load_id)
{
	struct adapter_mail *m = calloc(1, sizeof(*m));

	if (!m)
		_exit(1);
	wctl_head_init(&m->reply.head, answer, sizeof(m->reply), 0);
	m->reply.load_id = load_id;
	return m;
}

/* Also what has failed goes through the core thread: answers come in order. */
static void on_load(struct engine *e, const struct wlink_adapter *msg, const int *fds,
		    uint32_t n_fds)
{
	struct adapter_mail *m = adapter_mail_new(WLINK_ADAPTER_LOADED, msg->load_id);
	struct weft_err err = {.message = "the adapter's two files must come with it"};
	int rc = n_fds == 2 ? adapters_load(e, msg, fds[0], fds[1], &m->handle, &err) : -EPROTO;

	m->reply.head.code = rc;
	if (rc) {
		snprintf(m->reply.text, sizeof(m->reply.text), "%s", err.message);
		log_line(LOG_LEVEL_WARN, "event=adapter-refused why=\"%s\"", err.message);
	} else {
		m->reply.instance = m->handle->instance;
		m->reply.weight_bytes = m->handle->weights->node.n_blocks * e->block_bytes;
	}
	post(e, MAIL_ADAPTER, 0, 0, m);
}

static void on_unload(struct engine *e, const struct wlink_unload *msg)
{
	struct adapter_mail *m = adapter_mail_new(WLINK_ADAPTER_UNLOADED, msg->load_id);
	struct adapter_handle *h = adapters_by_id(e, msg->load_id);

	m->unload = true;
	m->force = msg->force;
	if (!h || h->unloading) {
		m->reply.head.code = h ? -EALREADY : -ENOENT;
		snprintf(m->reply.text, sizeof(m->reply.text), "%s",
			 h ? "it is being unloaded" : "the engine has no such adapter");
	} else {
		h->unloading = true;
		m->last = adapters_last(e, h);
		m->reply.instance = h->instance;
		m->handle = h;
	}
	post(e, MAIL_ADAPTER, 0, 0, m);
}

static void adapter_done(struct engine *e, struct adapter_mail *m)
{
	if (m->handle && m->unload && m->reply.head.code)
		m->handle->unloading = false;
	else if (m->handle && m->unload)
		adapters_forget(e, m->handle);
	tell(&m->reply, sizeof(m->reply));
	free(m);
}

/* --- pins ----------------------------------------------------------------------------------------*/

/* A session without a client: its regions are in nobody's hands but the engine's. */
static int internal_session(struct engine *e, uint32_t number, struct session **ret)
{
	struct wlink_attach msg = {
		.session_id = UINT64_MAX - e->n_internal++,
		.params = {.slots = 1, .tx_arena_bytes = WSHM_PAGE, .rx_arena_bytes = WSHM_PAGE},
	};
	int fds[4] = {-1, -1, -1, -1};
	struct wshm_layout layout;
	int rc = wshm_layout_init(&layout, &msg.params);

	if (!rc)
		rc = wshm_regions_new(&layout, msg.session_id, &fds[0], &fds[1]);
	if (rc)
		return rc;
	rc = session_open(e, &msg, fds, ret);
	if (!rc) {
		(*ret)->tenant = number;
		(*ret)->internal = true;
	}
	close(fds[0]);
	close(fds[1]);
	return rc;
}

/* The first of the queue. */
static void pin_next(struct engine *e)
{
	struct pin_job *job = e->pin_queue;
	int rc;

	if (!job)
		return;
	rc = job->dropped ? -ECANCELED : internal_session(e, job->number, &job->session);
	if (rc && !job->reply.head.code) {
		job->reply.head.code = rc;
		snprintf(job->reply.text, sizeof(job->reply.text), "%s", strerror(-rc));
	}
	post(e, MAIL_PIN, 0, 0, job);
}

static void on_pin(struct engine *e, const struct wlink_pin *msg, const int *fds, uint32_t n_fds)
{
	struct pin_job *job = pin_job_new(msg, n_fds == 1 ? fds[0] : -1), **end = &e->pin_queue;

	if (!job)
		_exit(1);
	while (*end)
		end = &(*end)->next;
	*end = job;
	if (e->pin_queue == job)
		pin_next(e);
}

static void on_unpin(struct engine *e, uint64_t id)
{
	struct pin_job *job = e->pin_queue ? e->pin_queue->next : NULL;

	for (; job; job = job->next)
		job->dropped = job->dropped || job->reply.pin_id == id;
	post(e, MAIL_UNPIN, 0, id, NULL);
}

static void pin_done(struct engine *e, struct pin_job *job)
{
	e->pin_queue = job->next;
	if (job->session)
		post(e, MAIL_DETACH, job->session->id, 0, NULL);
	tell(&job->reply, sizeof(job->reply));
	pin_job_free(job);
	pin_next(e);
}

static void on_drop(struct engine *e, const struct wlink_drop *msg)
{
	struct wlink_drop *copy = malloc(sizeof(*copy));

	if (!copy)
		_exit(1);
	*copy = *msg;
	wctl_head_init(&copy->head, WLINK_DROPPED, sizeof(*copy), 0);
	post(e, MAIL_DROP, 0, 0, copy);
}

/* --- all of them ---------------------------------------------------------------------------------*/

/* The exact size of a message from weftd, 0: there is no such message. */
static uint32_t size_of(uint16_t type)
{
	switch (type) {
	case WLINK_ATTACH:
		return sizeof(struct wlink_attach);
	case WLINK_DETACH:
		return sizeof(struct wlink_session);
	case WLINK_DRAIN:
		return sizeof(struct wlink_drain);
	case WLINK_TENANT:
		return sizeof(struct wlink_tenant);
	case WLINK_DOMAIN:
		return sizeof(struct wlink_domain);
	case WLINK_ADAPTER_LOAD:
		return sizeof(struct wlink_adapter);
	case WLINK_ADAPTER_UNLOAD:
		return sizeof(struct wlink_unload);
	case WLINK_PIN:
	case WLINK_UNPIN:
		return sizeof(struct wlink_pin);
	case WLINK_DROP:
		return sizeof(struct wlink_drop);
	case WLINK_NUDGE:
	case WLINK_STATUS:
		return sizeof(struct wctl_head);
	default:
		return 0;
	}
}

static void dispatch(struct engine *e, const union any_message *m, int *fds, uint32_t n_fds)
{
	switch (m->head.type) {
	case WLINK_ATTACH:
		on_attach(e, &m->attach, fds, n_fds);
		break;
	case WLINK_DETACH:
		post(e, MAIL_DETACH, m->session.session_id, m->head.code == 1, NULL);
		break;
	case WLINK_TENANT:
		on_tenant(e, &m->tenant);
		break;
	case WLINK_DOMAIN:
		on_domain(e, &m->domain, fds, n_fds);
		break;
	case WLINK_ADAPTER_LOAD:
		on_load(e, &m->adapter, fds, n_fds);
		break;
	case WLINK_ADAPTER_UNLOAD:
		on_unload(e, &m->unload);
		break;
	case WLINK_PIN:
		on_pin(e, &m->pin, fds, n_fds);
		break;
	case WLINK_UNPIN:
		on_unpin(e, m->pin.pin_id);
		break;
	case WLINK_DROP:
		on_drop(e, &m->drop);
		break;
	case WLINK_DRAIN:
		post(e, MAIL_DRAIN, 0, m->drain.deadline_ns, NULL);
		break;
	case WLINK_NUDGE:
		post(e, MAIL_NUDGE, 0, 0, NULL);
		break;
	case WLINK_STATUS:
		post(e, MAIL_STATUS, 0, 0, NULL);
		break;
	}
}

/* One message. False: weftd is gone. */
static bool receive(struct engine *e)
{
	union any_message m;
	int fds[WCTL_MAX_FDS];
	uint32_t n_fds = WCTL_MAX_FDS;
	int rc = wctl_recv(WLINK_FD_SOCKET, &m, sizeof(m), fds, &n_fds);

	if (rc == -EAGAIN || rc == -EINTR)
		return true;
	if (rc <= 0)
		return false;
	if ((uint32_t)rc == size_of(m.head.type))
		dispatch(e, &m, fds, n_fds);
	else
		log_line(LOG_LEVEL_ERROR, "event=bad-message type=%u bytes=%d", m.head.type, rc);
	explicit_bzero(&m, sizeof(m)); /* it may have been a domain's secret */
	for (uint32_t i = 0; i < n_fds; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	return true;
}

/* --- from the core thread ------------------------------------------------------------------------*/

static void tell_status(struct engine *e, struct status_report *report)
{
	struct wlink_status *msg = calloc(1, sizeof(*msg));
	char *text = status_text(e, report);
	uint32_t bytes;

	if (msg) {
		snprintf(msg->text, sizeof(msg->text), "%s", text ? text : "{}");
		msg->text_bytes = (uint32_t)strlen(msg->text);
		bytes = (uint32_t)offsetof(struct wlink_status, text) + msg->text_bytes;
		wctl_head_init(&msg->head, WLINK_STATUS_TEXT, bytes, 0);
		tell(msg, bytes);
	}
	free(text);
	free(msg);
}

static void detached(struct engine *e, struct session *s, uint64_t id)
{
	bool internal = s && s->internal;

	session_free(e, s);
	if (!internal)
		tell_session(WLINK_DETACHED, id);
}

/* False: the core thread has ended. */
static bool forward_mail(struct engine *e, struct mail *mail)
{
	bool go_on = true;

	switch (mail->type) {
	case MAIL_DETACHED:
		detached(e, mail->object, mail->session_id);
		break;
	case MAIL_ADAPTER:
		adapter_done(e, mail->object);
		break;
	case MAIL_PIN_DONE:
		pin_done(e, mail->object);
		break;
	case MAIL_DROP:
		tell(mail->object, sizeof(struct wlink_drop));
		free(mail->object);
		break;
	case MAIL_OFFENCE:
		tell_offence(mail->session_id, (uint32_t)mail->value, mail->text);
		break;
	case MAIL_BUSY:
		tell_head(WLINK_BUSY);
		break;
	case MAIL_IDLE:
		tell_head(WLINK_IDLE);
		break;
	case MAIL_NUDGED:
		tell_head(WLINK_NUDGED);
		break;
	case MAIL_DRAINED:
		e->told_drained = true;
		tell_head(WLINK_DRAINED);
		break;
	case MAIL_REPORT:
		tell_status(e, mail->object);
		break;
	case MAIL_STOPPED:
		go_on = false;
		break;
	default:
		break;
	}
	free(mail);
	return go_on;
}

int link_main(struct engine *e)
{
	struct pollfd p[2] = {
		{.fd = WLINK_FD_SOCKET, .events = POLLIN},
		{.fd = e->to_control.event_fd, .events = POLLIN},
	};
	struct mail *mail;

	for (;;) {
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return 1;
		if (p[1].revents) {
			mail_quiet(&e->to_control);
			while ((mail = mail_take(&e->to_control)))
				if (!forward_mail(e, mail))
					return 1;
		}
		if (p[0].revents && !receive(e)) {
			log_line(LOG_LEVEL_INFO, "event=stopped why=\"weftd hung up\"");
			if (!e->told_drained)
				orphan_wait();
			return 0;
		}
	}
}
