/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin.c - connections of administrators: lines in, commands done, lines out.
 *
 * A connection holds one request at a time; what it sends meanwhile waits in its socket. `status`
 * asks each engine that is ready and answers when all have, or after STATUS_WAIT_NS with what there
 * is; what else takes longer than a call answers by a ticket. Owned by weftd's only thread.
 */
#include "daemon/supervisor/admin_reply.h"
#include "daemon/supervisor/weftd.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_CONNS      16u
#define LINE_FIRST     4096u
#define LINE_MAX_BYTES (2u << 20) /* PIN_MAX_TOKENS of them, and more */
#define STATUS_WAIT_NS NS_PER_SECOND
/* A connection that neither speaks nor reads for so long is hung up. */
#define SILENCE_NS	(60 * NS_PER_SECOND)
#define ACCEPT_PAUSE_NS (100 * NS_PER_MS)
/* Beyond load_seconds, the time that an engine has for an answer. */
#define TICKET_EXTRA_NS (60 * NS_PER_SECOND)

struct admin_conn {
	struct weftd *d; /* borrowed */
	struct admin_conn *next;
	int sock;
	struct loop_source source;
	struct loop_timer timer;
	char *line; /* owner */
	size_t line_bytes, line_room;
	char *out; /* owner; what is still to be sent */
	size_t out_bytes, out_done;
	bool waits_status;
	uint64_t ticket; /* 0: none */
};

static void conn_free(struct admin_conn *c)
{
	struct weftd *d = c->d;
	struct admin_conn **at = &d->admin.conns;

	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	d->admin.n_conns--;
	loop_timer_clear(&d->loop, &c->timer);
	loop_unwatch(&d->loop, &c->source);
	close(c->sock);
	free(c->line);
	free(c->out);
	free(c);
}

static bool waits(const struct admin_conn *c)
{
	return c->waits_status || c->ticket;
}

/* What it is watched for between two answers. A request that came together with the last one is
 * here already and nothing more may come: then for room to answer it, which there is. */
static uint32_t listens(const struct admin_conn *c)
{
	if (waits(c))
		return 0;
	return c->line_bytes && memchr(c->line, '\n', c->line_bytes) ? EPOLLIN | EPOLLOUT : EPOLLIN;
}

static void on_silence(struct loop_timer *t)
{
	conn_free(container_of(t, struct admin_conn, timer));
}

/* --- out ------------------------------------------------------------------------------------------*/

/* Send what the socket takes. false: the connection is gone. */
static bool push(struct admin_conn *c)
{
	while (c->out) {
		ssize_t n = send(c->sock, c->out + c->out_done, c->out_bytes - c->out_done,
				 MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			loop_rewatch(&c->d->loop, &c->source, EPOLLOUT);
			return true;
		}
		if (n < 0) {
			conn_free(c);
			return false;
		}
		c->out_done += (size_t)n;
		if (c->out_done == c->out_bytes) {
			free(c->out);
			c->out = NULL;
		}
	}
	loop_rewatch(&c->d->loop, &c->source, listens(c));
	return true;
}

/* Takes the reference. false: the connection is gone. */
static bool reply(struct admin_conn *c, json_t *j)
{
	size_t n;

	c->out = j ? json_dumps(j, JSON_COMPACT) : NULL;
	json_decref(j);
	n = c->out ? strlen(c->out) : 0;
	if (n) {
		char *longer = realloc(c->out, n + 2);

		if (!longer) {
			free(c->out);
			c->out = NULL;
		} else {
			c->out = longer;
			strcpy(c->out + n, "\n");
		}
	}
	if (!c->out) {
		conn_free(c);
		return false;
	}
	c->out_bytes = n + 1;
	c->out_done = 0;
	loop_timer_set(&c->d->loop, &c->timer, loop_now_ns() + SILENCE_NS, on_silence);
	return push(c);
}

/* --- commands -------------------------------------------------------------------------------------*/

static bool engines_pending(const struct weftd *d)
{
	for (uint32_t i = 0; i < d->n_engines; i++)
		if (d->engines[i].state == ENGINE_READY && !d->engines[i].status_text)
			return true;
	return false;
}

/* Answer everybody who waits. Replying can free connections, so start over after each. */
static void answer_status(struct weftd *d)
{
	struct admin_conn *c = d->admin.conns;

	while (c) {
		if (!c->waits_status) {
			c = c->next;
			continue;
		}
		c->waits_status = false;
		reply(c, admin_reply_status(d));
		c = d->admin.conns;
	}
}

static void on_status_timer(struct loop_timer *t)
{
	struct admin *a = container_of(t, struct admin, status_timer);

	answer_status(container_of(a, struct weftd, admin));
}

void admin_engine_answered(struct weftd *d)
{
	if (!d->admin.status_timer.armed || engines_pending(d))
		return;
	loop_timer_clear(&d->loop, &d->admin.status_timer);
	answer_status(d);
}

static json_t *status(struct weftd *d, struct admin_conn *c, const json_t *request)
{
	c->waits_status = true;
	loop_rewatch(&d->loop, &c->source, 0);
	if (d->admin.status_timer.armed)
		return NULL; /* asked already */
	for (uint32_t i = 0; i < d->n_engines; i++) {
		struct engine *e = &d->engines[i];

		free(e->status_text);
		e->status_text = NULL;
		e->want_status = e->state == ENGINE_READY;
		engine_flush(e);
	}
	loop_timer_set(&d->loop, &d->admin.status_timer, loop_now_ns() + STATUS_WAIT_NS,
		       on_status_timer);
	admin_engine_answered(d);
	return NULL;
}

static void on_late(struct loop_timer *t)
{
	struct admin_conn *c = container_of(t, struct admin_conn, timer);

	c->ticket = 0;
	reply(c, admin_reply_error("this takes long: it goes on, look again for what has become "
				   "of it"));
}

uint64_t admin_wait(struct admin_conn *c)
{
	struct weftd *d = c->d;

	c->ticket = ++d->admin.last_ticket;
	loop_rewatch(&d->loop, &c->source, 0);
	loop_timer_set(&d->loop, &c->timer,
		       loop_now_ns() + d->config.daemon.load_seconds * NS_PER_SECOND +
			       TICKET_EXTRA_NS,
		       on_late);
	return c->ticket;
}

void admin_answer(struct weftd *d, uint64_t ticket, json_t *j)
{
	struct admin_conn *c = d->admin.conns;

	while (c && c->ticket != ticket)
		c = c->next;
	if (!c) {
		json_decref(j);
		return;
	}
	c->ticket = 0;
	reply(c, j);
}

static json_t *reload(struct weftd *d, struct admin_conn *c, const json_t *request)
{
	char text[8192];
	int err = weftd_reload(d, text, sizeof(text));
	size_t n = strlen(text);

	if (n && text[n - 1] == '\n') /* lines, for whoever shows them to end */
		text[n - 1] = 0;
	return err ? admin_reply_error(text) : json_pack("{s:b, s:s}", "ok", 1, "text", text);
}

static json_t *sessions(struct weftd *d, struct admin_conn *c, const json_t *request)
{
	return admin_reply_sessions(d);
}

static json_t *drain(struct weftd *d, struct admin_conn *c, const json_t *request)
{
	json_t *seconds = json_object_get(request, "seconds");
	json_int_t n = d->config.daemon.drain_seconds;

	if (seconds) {
		if (!json_is_integer(seconds) || json_integer_value(seconds) < 0 ||
		    json_integer_value(seconds) > 3600)
			return admin_reply_error("seconds must be a number from 0 to 3600");
		n = json_integer_value(seconds);
	}
	weftd_drain(d, (uint32_t)n);
	return json_pack("{s:b}", "ok", 1);
}

static json_t *engine_restart(struct weftd *d, struct admin_conn *c, const json_t *request)
{
	struct weft_err err = {0};
	struct engine *e = admin_engine(d, request, &err);

	if (!e)
		return admin_reply_error(err.message);
	if (d->draining)
		return admin_reply_error("weftd is shutting down; what is under way is finished");
	if (!e->pid)
		return admin_reply_error("its engine is not running");
	e->asked = true;
	engine_kill(e, "an administrator restarts it");
	return json_pack("{s:b}", "ok", 1);
}

static const struct {
	const char *name;
	admin_command_fn fn;
} commands[] = {
	{"status", status},
	{"sessions", sessions},
	{"reload", reload},
	{"drain", drain},
	{"engine-restart", engine_restart},
	{"adapter-load", admin_adapter_load},
	{"adapter-unload", admin_adapter_unload},
	{"adapter-list", admin_adapter_list},
	{"cache-pin", admin_cache_pin},
	{"cache-unpin", admin_cache_unpin},
	{"cache-pins", admin_cache_pins},
	{"cache-drop", admin_cache_drop},
};

#define N_COMMANDS (sizeof(commands) / sizeof(*commands))

static json_t *unknown(void)
{
	char text[512] = "unknown command (known:";

	for (size_t i = 0; i < N_COMMANDS; i++) {
		strcat(text, i ? ", " : " ");
		strcat(text, commands[i].name);
	}
	strcat(text, ")");
	return admin_reply_error(text);
}

static void command(struct admin_conn *c, const char *cmd, const json_t *request)
{
	json_t *j;

	for (size_t i = 0; cmd && i < N_COMMANDS; i++) {
		if (strcmp(cmd, commands[i].name))
			continue;
		j = commands[i].fn(c->d, c, request);
		if (j)
			reply(c, j);
		return;
	}
	reply(c, cmd ? unknown() : admin_reply_error("no \"cmd\" in the request"));
}

/* --- in -------------------------------------------------------------------------------------------*/

/* Do the first whole line; true if there was one (c may be gone afterwards). */
static bool take_line(struct admin_conn *c)
{
	char *end = c->line_bytes ? memchr(c->line, '\n', c->line_bytes) : NULL;
	size_t n;
	json_t *j;

	if (!end)
		return false;
	n = (size_t)(end - c->line);
	j = json_loadb(c->line, n, JSON_REJECT_DUPLICATES, NULL);
	c->line_bytes -= n + 1;
	memmove(c->line, end + 1, c->line_bytes);
	if (json_is_object(j))
		command(c, json_string_value(json_object_get(j, "cmd")), j);
	else
		reply(c, admin_reply_error("a request is one line with a JSON object"));
	json_decref(j);
	return true;
}

static const char too_long[] = "{\"ok\":false,\"error\":\"a request may have 2 MiB\"}\n";

/* Room for more of the line. false: it is too long, or there is no memory. */
static bool make_room(struct admin_conn *c)
{
	size_t room = c->line_room ? 2 * c->line_room : LINE_FIRST;
	char *more;

	if (c->line_bytes < c->line_room)
		return true;
	more = room <= LINE_MAX_BYTES ? realloc(c->line, room) : NULL;
	if (!more)
		return false;
	c->line = more;
	c->line_room = room;
	return true;
}

static void on_conn_event(struct loop_source *s, uint32_t events)
{
	struct admin_conn *c = container_of(s, struct admin_conn, source);
	ssize_t n;

	if (c->out) {
		push(c);
		return;
	}
	if (waits(c)) { /* watched for nothing: only a hang-up comes */
		conn_free(c);
		return;
	}
	if (take_line(c)) /* left over from an earlier read */
		return;
	if (!make_room(c)) {
		(void)!send(c->sock, too_long, strlen(too_long), MSG_NOSIGNAL | MSG_DONTWAIT);
		conn_free(c);
		return;
	}
	n = recv(c->sock, c->line + c->line_bytes, c->line_room - c->line_bytes, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		conn_free(c);
		return;
	}
	c->line_bytes += (size_t)n;
	loop_timer_set(&c->d->loop, &c->timer, loop_now_ns() + SILENCE_NS, on_silence);
	take_line(c);
}

/* --- accept ---------------------------------------------------------------------------------------*/

static bool in_group(int sock, gid_t primary, gid_t group)
{
	gid_t groups[SESSION_MAX_GROUPS];
	socklen_t bytes = sizeof(groups);

	if (group == (gid_t)-1)
		return false;
	if (primary == group)
		return true;
	if (getsockopt(sock, SOL_SOCKET, SO_PEERGROUPS, groups, &bytes))
		return false;
	for (socklen_t i = 0; i < bytes / sizeof(gid_t); i++)
		if (groups[i] == group)
			return true;
	return false;
}

static const char *refusal(const struct weftd *d, int sock)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) ||
	    (cred.uid && cred.uid != geteuid() && !in_group(sock, cred.gid, d->admin.group)))
		return "{\"ok\":false,\"error\":\"only root, the user of weftd and the admin group "
		       "may do this\"}\n";
	return NULL;
}

/* Where all are taken, who has said nothing yet makes room: the one who came first. */
static bool place_for_one(struct weftd *d)
{
	struct admin_conn *idle = NULL;

	if (d->admin.n_conns < MAX_CONNS)
		return true;
	for (struct admin_conn *c = d->admin.conns; c; c = c->next)
		if (!waits(c) && !c->out && !c->line_bytes)
			idle = c;
	if (idle)
		conn_free(idle);
	return idle != NULL;
}

static void on_accept_timer(struct loop_timer *t)
{
	struct admin *a = container_of(t, struct admin, accept_timer);
	struct weftd *d = container_of(a, struct weftd, admin);

	loop_rewatch(&d->loop, &a->source, EPOLLIN);
}

/* No descriptor, no memory: without a pause the loop would spin on the connection that waits. */
static void accept_later(struct weftd *d)
{
	loop_rewatch(&d->loop, &d->admin.source, 0);
	loop_timer_set(&d->loop, &d->admin.accept_timer, loop_now_ns() + ACCEPT_PAUSE_NS,
		       on_accept_timer);
}

static void on_accept(struct loop_source *s, uint32_t events)
{
	struct admin *a = container_of(s, struct admin, source);
	struct weftd *d = container_of(a, struct weftd, admin);
	int sock = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct admin_conn *c = NULL;
	const char *why;

	if (sock < 0) {
		accept_later(d);
		return;
	}
	why = refusal(d, sock);
	if (!why && !place_for_one(d))
		why = "{\"ok\":false,\"error\":\"too many admin connections\"}\n";
	if (why)
		(void)!send(sock, why, strlen(why), MSG_NOSIGNAL | MSG_DONTWAIT);
	else
		c = calloc(1, sizeof(*c));
	if (!c) {
		close(sock);
		return;
	}
	c->d = d;
	c->sock = sock;
	c->next = a->conns;
	a->conns = c;
	a->n_conns++;
	loop_timer_set(&d->loop, &c->timer, loop_now_ns() + SILENCE_NS, on_silence);
	if (loop_watch(&d->loop, &c->source, sock, EPOLLIN, on_conn_event))
		conn_free(c);
}

int admin_open(struct weftd *d, int listen_fd, gid_t group)
{
	d->admin.fd = listen_fd;
	d->admin.group = group;
	return loop_watch(&d->loop, &d->admin.source, listen_fd, EPOLLIN, on_accept);
}

void admin_close(struct weftd *d)
{
	while (d->admin.conns)
		conn_free(d->admin.conns);
	loop_timer_clear(&d->loop, &d->admin.status_timer);
	loop_timer_clear(&d->loop, &d->admin.accept_timer);
	loop_unwatch(&d->loop, &d->admin.source);
	if (d->admin.fd >= 0)
		close(d->admin.fd);
	d->admin.fd = -1;
}
