/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin.h - admin.sock: one line of JSON in, one line out, as often as wanted.
 *
 *   {"cmd":"status"}                      daemon, engines, tenants
 *   {"cmd":"sessions"}                    every session
 *   {"cmd":"reload"}                      as SIGHUP
 *   {"cmd":"drain","seconds":N}           as SIGTERM
 *   {"cmd":"engine-restart","model":M}    kill and start again; requests continue
 *   {"cmd":"adapter-list","model":M}      and adapter-load, adapter-unload: admin_adapter.c
 *   {"cmd":"cache-pins"}                  and cache-pin, cache-unpin, cache-drop: admin_cache.c
 *
 * A stream socket, so that any program that can write a line will do. Open to root, weftd's own
 * uid and members of the admin group; others are told so and hung up.
 */
#ifndef WEFT_SUPERVISOR_ADMIN_H
#define WEFT_SUPERVISOR_ADMIN_H

#include "daemon/supervisor/loop.h"

#include <jansson.h>
#include <sys/types.h>

struct weftd;
struct admin_conn;

struct admin {
	int fd;
	struct loop_source source;
	struct admin_conn *conns;
	uint32_t n_conns;
	gid_t group; /* -1: none */
	struct loop_timer status_timer, accept_timer;
	uint64_t last_ticket;
};

/* A command: the reply, or NULL when it has been given or will be (then c may be gone). */
typedef json_t *(*admin_command_fn)(struct weftd *d, struct admin_conn *c, const json_t *request);

int admin_open(struct weftd *d, int listen_fd, gid_t group);
void admin_close(struct weftd *d);
/* An engine answered or went: status replies that waited for it may be complete. */
void admin_engine_answered(struct weftd *d);

/*
 * For commands whose answer takes time: the connection waits, up to load_seconds, and whoever holds
 * the ticket (never 0) answers. The reference to j is taken. An administrator who has hung up
 * meanwhile gets nothing.
 */
uint64_t admin_wait(struct admin_conn *c);
void admin_answer(struct weftd *d, uint64_t ticket, json_t *j);

/* admin_adapter.c: parts of a request, checked; then the commands. */
struct weft_err;
struct engine;
/* Refuse what is not among the known names, which blanks separate. 0 or -EINVAL. */
int admin_known_fields(const json_t *request, const char *known, struct weft_err *err);
int admin_flag(const json_t *request, const char *key, bool *ret, struct weft_err *err);
/* The engine of "model", or the only one. NULL: err says why. */
struct engine *admin_engine(struct weftd *d, const json_t *request, struct weft_err *err);
json_t *admin_adapter_load(struct weftd *d, struct admin_conn *c, const json_t *request);
json_t *admin_adapter_unload(struct weftd *d, struct admin_conn *c, const json_t *request);
json_t *admin_adapter_list(struct weftd *d, struct admin_conn *c, const json_t *request);

/* admin_cache.c */
json_t *admin_cache_pin(struct weftd *d, struct admin_conn *c, const json_t *request);
json_t *admin_cache_unpin(struct weftd *d, struct admin_conn *c, const json_t *request);
json_t *admin_cache_pins(struct weftd *d, struct admin_conn *c, const json_t *request);
json_t *admin_cache_drop(struct weftd *d, struct admin_conn *c, const json_t *request);

#endif
