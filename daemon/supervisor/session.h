/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.h - one connection on weftd.sock, from accept to the last trace in the engine.
 *
 * Two state machines side by side: the client's (HELLO, OPEN, GONE) and the engine's view of the
 * session (link). A session is freed when the client is gone and no engine touches its regions.
 */
#ifndef WEFT_SUPERVISOR_SESSION_H
#define WEFT_SUPERVISOR_SESSION_H

#include "daemon/supervisor/engine.h"
#include "daemon/supervisor/loop.h"
#include "daemon/supervisor/region.h"

enum session_state {
	SESSION_HELLO, /* connected; nothing is known but the peer's credentials */
	SESSION_OPEN,
	SESSION_GONE, /* socket closed; waits for the engine */
};

enum session_link {
	LINK_NONE,
	LINK_ATTACH, /* to be sent */
	LINK_ATTACHED,
	LINK_DETACH,	/* to be sent */
	LINK_DETACHING, /* sent; the engine owes DETACHED */
};

#define SESSION_MAX_GROUPS 64u

struct session {
	struct weftd *d; /* borrowed: owns the session */
	struct session *prev, *next;
	enum session_state state;
	enum session_link link;
	int sock;
	bool unread; /* GONE, and its client has descriptors in its socket: see session.c */
	struct loop_source source;
	struct loop_timer hello_timer;
	uid_t uid;
	pid_t pid;
	int tenant; /* index; valid from OPEN on */

	struct wctl_hello hello; /* as received and found well-formed */
	bool parked;		 /* it waits until there may be room */

	uint64_t id;
	struct engine *engine;	  /* borrowed; NULL before OPEN */
	struct region *region;	  /* owner until region_put() */
	int wake, bell;		  /* bell: the engine's end */
	enum wlink_resume resume; /* how the last engine that served these regions ended */
	uint64_t opened_ns, complained_ns;
	uint32_t requests;    /* model lists asked for before the hello */
	uint32_t files_asked; /* in all */
	uint32_t
		indexes; /* sent after the welcome, since its client was last seen to have read all */
};

/* Accept one connection. 0, or -errno of accept4() when it is not about that one connection. */
int session_accept(struct weftd *d, int listen_fd);
/* End it: say why (NULL: the client has gone), close the socket, let the engine let go. */
void session_end(struct session *s, int code, const char *why);
/* The engine no longer touches the regions (DETACHED, or it is dead): free. */
void session_release(struct session *s);
/* At the end of weftd: whatever the client has read. */
void session_forget_unread(struct session *s);
/* Somebody waits for what such sessions hold: look soon whether their clients have read. */
void session_look_for_unread(struct weftd *d);

/* Hand out the index of its tenant in place of the one that it has. It may end the session. */
void session_send_index(struct session *s);

/* moved.c: what a reload does to tenants that it takes somebody out of. Before the configuration is
 * taken over: new secrets for those that may lose somebody. 0, or -errno with some renewed all the same. */
int moved_renew(struct weftd *d, const struct config *next, struct weft_err *err);
/* After that, or after it has failed: nobody has a region or a session of a tenant that is not his by
 * what is in force. */
struct moved {
	uint32_t renewed, sessions, ended;
};
struct moved moved_apply(struct weftd *d);

/* hello.c: the tenant that it belongs to by what is in force, or -ENOENT. */
int session_tenant(const struct session *s);
/* Judge the first message and open the session, or refuse. */
void session_hello(struct session *s, const struct wctl_hello *h, uint32_t n_fds);
/* Judge a parked one again; it is answered now unless it may wait on. */
void session_hello_again(struct session *s, bool may_wait);
void session_refuse(struct session *s, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
