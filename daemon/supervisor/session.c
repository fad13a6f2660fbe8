/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.c - connections: accepted, listened to, ended.
 *
 * A client can only cost what is bounded here: so many connections without a hello, of all and of
 * one uid, for hello_seconds; one message per turn of the loop; and nothing is ever queued for it:
 * what its socket does not take at once ends the connection. Descriptors that a client does not read
 * are on their way, and the kernel limits how many of these one user may have: so a session whose
 * client has not read them counts until it has, or has closed its end, whoever ended the session.
 * Owned by weftd's only thread.
 */
#include "daemon/supervisor/weftd.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define INDEX_UNREAD  "its tenant's index was replaced, and it has not read of the last one"
#define INDEX_UNKNOWN "its tenant's index was replaced: open another session"

/* Before the hello a client has no reason to ask for the models more often than this. */
#define MAX_EARLY_REQUESTS 16u
#define COMPLAIN_EVERY_NS  NS_PER_SECOND
#define SWEEP_AFTER_NS	   (100 * NS_PER_MS)
#define UNREAD_FIRST_NS	   (100 * NS_PER_MS)
#define UNREAD_LAST_NS	   (3200 * NS_PER_MS)

static void on_client_event(struct loop_source *source, uint32_t events);

/* --- sending --------------------------------------------------------------------------------------*/

static int send_text(int sock, enum wctl_type type, int code, const char *text)
{
	struct wctl_text m = {0};

	wctl_head_init(&m.head, type, sizeof(m), code);
	snprintf(m.text, sizeof(m.text), "%s", text);
	return wctl_send(sock, &m, sizeof(m), NULL, 0);
}

static int send_models(struct session *s)
{
	struct wctl_models m = {.n = s->d->n_engines};

	wctl_head_init(&m.head, WCTL_MODEL_LIST, sizeof(m), 0);
	for (uint32_t i = 0; i < m.n; i++)
		engine_describe(&s->d->engines[i], &m.models[i]);
	return wctl_send(s->sock, &m, sizeof(m), NULL, 0);
}

/* --- the end --------------------------------------------------------------------------------------*/

static void unlink_session(struct session *s)
{
	if (s->prev)
		s->prev->next = s->next;
	else
		s->d->sessions = s->next;
	if (s->next)
		s->next->prev = s->prev;
}

static void on_retry_timer(struct loop_timer *t)
{
	struct weftd *d = container_of(t, struct weftd, retry_timer);
	struct session *s, *next;

	for (s = d->sessions; s; s = next) {
		next = s->next;
		if (s->parked)
			session_hello_again(s, true);
	}
}

/* Something was given back. From the loop, because the caller may be among the sessions. */
static void retry_parked(struct weftd *d)
{
	for (const struct session *s = d->sessions; s; s = s->next)
		if (s->parked) {
			loop_timer_set(&d->loop, &d->retry_timer, loop_now_ns(), on_retry_timer);
			return;
		}
}

static void on_sweep_timer(struct loop_timer *t)
{
	struct weftd *d = container_of(t, struct weftd, sweep_timer);

	regions_sweep(&d->regions, UINT32_MAX);
	retry_parked(d);
}

static void session_free(struct session *s)
{
	struct weftd *d = s->d;

	if (s->engine) {
		d->n_sessions--;
		d->tenants.tenant[s->tenant].sessions--;
	}
	unlink_session(s);
	if (s->sock >= 0)
		close(s->sock);
	if (s->wake >= 0)
		close(s->wake);
	if (s->bell >= 0)
		close(s->bell);
	/* A dying client's socket hangs up a moment before its mappings and the descriptors that it
	 * has not received are gone: look once more. */
	region_put(&d->regions, s->region);
	if (d->regions.n_dead)
		loop_timer_set(&d->loop, &d->sweep_timer, loop_now_ns() + SWEEP_AFTER_NS,
			       on_sweep_timer);
	free(s);
	retry_parked(d);
}

void session_release(struct session *s)
{
	if (s->state == SESSION_GONE && s->link == LINK_NONE && !s->unread)
		session_free(s);
}

/* Has the client yet to read something that was sent? A closed end counts as read. */
static bool has_unread(int sock)
{
	int bytes = 0;

	return !ioctl(sock, SIOCOUTQ, &bytes) && bytes > 0;
}

void session_forget_unread(struct session *s)
{
	s->unread = false;
}

/*
 * Neither reading nor closing can be waited for on a socket that was shut down: look now and then, and
 * the less often the longer nobody has read, since a client can leave it at that for ever.
 */
static void on_unread_timer(struct loop_timer *t)
{
	struct weftd *d = container_of(t, struct weftd, unread_timer);
	struct session *s, *next;
	bool more = false, some_read = false;

	for (s = d->sessions; s; s = next) {
		next = s->next;
		if (!s->unread)
			continue;
		s->unread = has_unread(s->sock);
		more |= s->unread;
		some_read |= !s->unread;
		session_release(s);
	}
	if (some_read)
		d->unread_pause_ns = UNREAD_FIRST_NS;
	else if (d->unread_pause_ns < UNREAD_LAST_NS)
		d->unread_pause_ns *= 2;
	if (more)
		loop_timer_set(&d->loop, t, loop_now_ns() + d->unread_pause_ns, on_unread_timer);
}

void session_look_for_unread(struct weftd *d)
{
	uint64_t at = loop_now_ns() + UNREAD_FIRST_NS;

	d->unread_pause_ns = UNREAD_FIRST_NS;
	if (!d->unread_timer.armed || d->unread_timer.at_ns > at)
		loop_timer_set(&d->loop, &d->unread_timer, at, on_unread_timer);
}

/* What a peer has sent and we shall not read would turn the last words to it into ECONNRESET. */
static void discard_input(int sock)
{
	char byte;

	for (int i = 0; i < 64 && recv(sock, &byte, 1, MSG_DONTWAIT | MSG_TRUNC) > 0; i++)
		;
}

static void close_socket(struct session *s)
{
	if (s->state == SESSION_HELLO)
		s->d->n_pending--;
	loop_timer_clear(&s->d->loop, &s->hello_timer);
	loop_unwatch(&s->d->loop, &s->source);
	s->state = SESSION_GONE;
	if (s->unread) {
		shutdown(s->sock, SHUT_RDWR); /* what it has not read it still can */
		session_look_for_unread(s->d);
		return;
	}
	close(s->sock);
	s->sock = -1;
}

void session_end(struct session *s, int code, const char *why)
{
	struct engine *e = s->engine;

	if (s->state == SESSION_GONE)
		return;
	/* Before the last words, which carry no descriptor. */
	s->unread = s->state == SESSION_OPEN && has_unread(s->sock);
	if (why) { /* as a courtesy: a client that does not read it learns by the hang-up */
		send_text(s->sock, s->state == SESSION_HELLO ? WCTL_REFUSED : WCTL_BYE, code, why);
		discard_input(s->sock);
	}
	if (e)
		log_limited(&s->d->session_limit, LOG_LEVEL_INFO,
			    "model=%s session=%llu event=closed uid=%u%s%s%s", e->conf.name,
			    (unsigned long long)s->id, s->uid, why ? " why=\"" : "", why ? why : "",
			    why ? "\"" : "");
	close_socket(s);
	if (s->link == LINK_ATTACHED) {
		s->link = LINK_DETACH;
		engine_flush(e);
	} else if (s->link == LINK_ATTACH || s->link == LINK_NONE) {
		s->link = LINK_NONE;
		session_release(s);
	}
}

void session_refuse(struct session *s, int code, const char *fmt, ...)
{
	char why[WCTL_TEXT_BYTES];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	s->d->counters.refused++;
	log_limited(&s->d->refuse_limit, LOG_LEVEL_NOTICE, "event=refused uid=%u pid=%d why=\"%s\"",
		    s->uid, (int)s->pid, why);
	session_end(s, code, why);
}

/* The client's socket takes no more, or something else is wrong with it. */
static void drop(struct session *s, int err)
{
	s->d->counters.dropped++;
	log_limited(&s->d->refuse_limit, LOG_LEVEL_NOTICE, "event=dropped uid=%u pid=%d why=\"%s\"",
		    s->uid, (int)s->pid,
		    err == -EAGAIN ? "it does not read its socket" : strerror(-err));
	session_end(s, err, NULL);
}

/* --- the index -------------------------------------------------------------------------------------*/

static int send_index(struct session *s)
{
	const struct tenant *t = &s->d->tenants.tenant[s->tenant];
	struct wctl_domain m = {.max_in_flight = t->conf.quota.max_in_flight};
	int fd = engine_index(s->engine, (uint32_t)s->tenant), err;

	if (fd >= 0)
		fd = wshm_open_read_only(fd);
	if (fd < 0)
		return fd;
	wctl_head_init(&m.head, WCTL_DOMAIN, sizeof(m), 0);
	memcpy(m.tenant, t->conf.name, sizeof(m.tenant));
	err = wctl_send(s->sock, &m, sizeof(m), &fd, 1);
	close(fd);
	return err;
}

/* What lies unread holds a descriptor on its way, as do files: see on_files(). A client that does not look
 * at its socket for so long has nobody waiting, and connects again when it does. */
void session_send_index(struct session *s)
{
	int err;

	if (!has_unread(s->sock))
		s->indexes = 0;
	if (!(s->hello.features & WCTL_FEATURE_DOMAIN)) {
		session_end(s, -ESTALE, INDEX_UNKNOWN);
	} else if (s->indexes++ == WCTL_MAX_INDEXES) {
		session_end(s, -ESTALE, INDEX_UNREAD);
	} else {
		err = send_index(s);
		if (err)
			drop(s, err);
	}
}

/* --- messages -------------------------------------------------------------------------------------*/

static void on_complain(struct session *s)
{
	uint64_t now = loop_now_ns();

	if (s->state != SESSION_OPEN) {
		session_refuse(s, -EPROTO, "a complaint before the hello");
		return;
	}
	if (s->complained_ns && now - s->complained_ns < COMPLAIN_EVERY_NS)
		return;
	s->complained_ns = now;
	s->d->counters.complaints++;
	engine_nudge(s->engine);
}

static void on_models(struct session *s)
{
	int err;

	if (s->state == SESSION_HELLO && ++s->requests > MAX_EARLY_REQUESTS) {
		session_refuse(s, -EPROTO, "asked for the models %u times without a hello",
			       MAX_EARLY_REQUESTS);
		return;
	}
	err = send_models(s);
	if (err)
		drop(s, err);
}

/*
 * Each answer may lie unread with a descriptor in it, and the kernel limits how many of these are on
 * their way for all of weftd. Once is what a session needs.
 */
static void on_files(struct session *s)
{
	struct wctl_head m;
	int fd, err;

	if (s->state != SESSION_OPEN || ++s->files_asked > WCTL_MAX_FILES_ASKED) {
		session_refuse(s, -EPROTO, "asked for the model's files %s",
			       s->state == SESSION_OPEN ? "too often" : "without a hello");
		return;
	}
	fd = engine_open_files(s->engine);
	/* Before the first READY nobody knows what there will be. */
	if (fd == -ENOENT && !s->engine->model.vocab)
		fd = -EAGAIN;
	wctl_head_init(&m, WCTL_FILE_SET, sizeof(m), fd < 0 ? fd : 0);
	err = wctl_send(s->sock, &m, sizeof(m), &fd, fd >= 0);
	if (fd >= 0)
		close(fd);
	if (err)
		drop(s, err);
}

static void on_message(struct session *s, const struct wctl_hello *m, int bytes, uint32_t n_fds)
{
	if (m->head.type == WCTL_HELLO && s->state == SESSION_HELLO) {
		session_hello(s, m, n_fds);
	} else if (n_fds) {
		session_refuse(s, -EPROTO, "descriptors where none are expected");
	} else if (bytes != (int)sizeof(m->head)) {
		session_refuse(s, -EPROTO, "message of type %u and %d bytes makes no sense here",
			       m->head.type, bytes);
	} else if (m->head.type == WCTL_MODELS) {
		on_models(s);
	} else if (m->head.type == WCTL_FILES) {
		on_files(s);
	} else if (m->head.type == WCTL_COMPLAIN) {
		on_complain(s);
	} else {
		session_refuse(s, -EPROTO, "message of type %u makes no sense here", m->head.type);
	}
}

static void on_client_event(struct loop_source *source, uint32_t events)
{
	struct session *s = container_of(source, struct session, source);
	struct wctl_hello m = {0};
	uint32_t n_fds = 0;
	int n;

	if (s->parked) { /* watched for nothing: it has hung up */
		session_end(s, 0, NULL);
		return;
	}
	n = wctl_recv(s->sock, &m, sizeof(m), NULL, &n_fds);
	if (n == -EAGAIN)
		return;
	if (n == -EPROTO)
		session_refuse(s, -EPROTO, "malformed message");
	else if (n <= 0)
		session_end(s, n, NULL);
	else
		on_message(s, &m, n, n_fds);
}

/* --- accept ---------------------------------------------------------------------------------------*/

static void on_hello_timer(struct loop_timer *t)
{
	struct session *s = container_of(t, struct session, hello_timer);

	if (s->parked)
		session_hello_again(s, false);
	else
		session_refuse(s, -ETIMEDOUT, "no hello within %u seconds",
			       s->d->config.daemon.hello_seconds);
}

static uint32_t pending_of(const struct weftd *d, uid_t uid)
{
	uint32_t n = 0;

	for (const struct session *s = d->sessions; s; s = s->next)
		n += s->state == SESSION_HELLO && s->uid == uid;
	return n;
}

/* Why this connection cannot even be listened to, or NULL. */
static const char *overload(const struct weftd *d, uid_t uid)
{
	if (d->draining)
		return "weftd is shutting down";
	if (d->n_pending >= WEFTD_MAX_PENDING)
		return "too many connections that have not said hello";
	if (pending_of(d, uid) >= WEFTD_MAX_PENDING_UID)
		return "too many connections of this user that have not said hello";
	return NULL;
}

static struct session *session_new(struct weftd *d, int sock, const struct ucred *cred)
{
	struct session *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->d = d;
	s->sock = sock;
	s->wake = s->bell = -1;
	s->uid = cred->uid;
	s->pid = cred->pid;
	if (loop_watch(&d->loop, &s->source, sock, EPOLLIN, on_client_event)) {
		free(s);
		return NULL;
	}
	s->next = d->sessions;
	if (s->next)
		s->next->prev = s;
	d->sessions = s;
	d->n_pending++;
	loop_timer_set(&d->loop, &s->hello_timer,
		       loop_now_ns() + d->config.daemon.hello_seconds * NS_PER_SECOND,
		       on_hello_timer);
	return s;
}

int session_accept(struct weftd *d, int listen_fd)
{
	int sock = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct ucred cred = {0};
	socklen_t len = sizeof(cred);
	const char *why;

	if (sock < 0)
		return errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS
			       ? -errno
			       : 0;
	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len)) {
		close(sock);
		return 0;
	}
	why = overload(d, cred.uid);
	if (!why && !session_new(d, sock, &cred))
		why = "weftd is out of memory";
	if (why) {
		d->counters.refused++;
		log_limited(&d->refuse_limit, LOG_LEVEL_NOTICE,
			    "event=refused uid=%u pid=%d why=\"%s\"", cred.uid, (int)cred.pid, why);
		send_text(sock, WCTL_REFUSED, -EBUSY, why);
		close(sock);
	}
	return 0;
}
