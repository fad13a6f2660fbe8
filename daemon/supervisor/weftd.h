/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weftd.h - the daemon: everything it holds, owned by its only thread.
 */
#ifndef WEFT_SUPERVISOR_WEFTD_H
#define WEFT_SUPERVISOR_WEFTD_H

#include "daemon/common/err.h"
#include "daemon/common/log.h"
#include "daemon/supervisor/admin.h"
#include "daemon/supervisor/config.h"
#include "daemon/supervisor/domain.h"
#include "daemon/supervisor/engine.h"
#include "daemon/supervisor/loop.h"
#include "daemon/supervisor/pins.h"
#include "daemon/supervisor/region.h"
#include "daemon/supervisor/registry.h"
#include "daemon/supervisor/session.h"
#include "daemon/supervisor/tenant.h"

#include <limits.h>

/* Connections that have not said hello: of everybody, and of one uid. */
#define WEFTD_MAX_PENDING     128u
#define WEFTD_MAX_PENDING_UID 16u

struct weftd_options {
	const char *config_file;
	const char *runtime_dir; /* NULL: the configuration's */
	const char *engine;	 /* NULL: searched for */
	bool foreground;
};

struct weftd_counters {
	uint64_t sessions, refused, offences, complaints, dropped, engine_crashes;
};

struct weftd {
	struct loop loop;
	struct weftd_options options;
	struct config config;
	char runtime_dir[80];
	char engine_path[PATH_MAX];
	uid_t engine_uid; /* -1: the engine keeps weftd's */
	uint64_t daemon_id;
	uint64_t started_ns;
	struct tenants tenants;
	struct domains domains;
	struct regions regions;
	struct registry registry;
	struct pins pins;
	uint32_t n_engines;
	struct engine engines[WCTL_MAX_MODELS];
	struct session *sessions;
	uint32_t max_sessions;		/* the configuration's, or what descriptors allow */
	uint32_t n_sessions, n_pending; /* opened and not freed; without hello */
	struct admin admin;
	struct weftd_counters counters;

	int lock_fd, engine_lock_fd; /* see runtime.c */
	bool owns_runtime;	     /* both locks: the sockets there are ours */
	int client_fd, signal_fd;
	struct loop_source client_source, signal_source;
	struct loop_timer accept_timer, drain_timer, sweep_timer, retry_timer, unread_timer;
	uint64_t unread_pause_ns; /* between looks: see session.c */
	bool draining;
	struct log_limit refuse_limit, session_limit;
};

/* Everything up to listening sockets and starting engines. Messages are for the user. */
int weftd_start(struct weftd *d, const struct weftd_options *options, struct weft_err *err);
int weftd_run(struct weftd *d);
void weftd_fini(struct weftd *d);

/* Read the configuration again. Text for the administrator in out; 0 or -errno. */
int weftd_reload(struct weftd *d, char *out, size_t out_bytes);
/* Stop: let requests end until the deadline, then go. Calling it again changes nothing. */
void weftd_drain(struct weftd *d, uint32_t seconds);
/* An engine is gone or has drained: perhaps that was the last one. */
void weftd_drain_check(struct weftd *d);

struct engine *weftd_engine(struct weftd *d, const char *name);

/* runtime.c: directory and locks; then sockets. */
int runtime_open(struct weftd *d, struct weft_err *err);
/* Last: whoever can connect here finds everything else in place. */
int runtime_listen_clients(struct weftd *d, struct weft_err *err);
void runtime_close(struct weftd *d);
int runtime_listen(const char *dir, const char *name, int type, uint32_t mode,
		   struct weft_err *err);

/* find_engine.c */
int engine_find(const char *option, const char *configured, char *ret, size_t ret_bytes,
		struct weft_err *err);

/* privilege.c: which user engines run as, and what weftd itself can do without. */
int privilege_engine_user(const char *name, uid_t *ret_uid, struct weft_err *err);
/* In the child: become that user for good. */
int privilege_become(const char *name, uid_t uid);
int privilege_drop(uid_t engine_uid, struct weft_err *err);

/* notify.c: one datagram to systemd, if it asked for any. */
void notify(const char *text);

#endif
