/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin.h - admin.sock: one line of JSON in, one line out, as often as wanted.
 *
 *   {"cmd":"status"}                      daemon, engines, tenants
 *   {"cmd":"sessions"}                    every session
 *   {"cmd":"reload"}                      as SIGHUP
 *   {"cmd":"drain","seconds":N}           as SIGTERM
 *   {"cmd":"engine-restart","model":M}    kill and start again; requests continue
 *
 * A stream socket, so that any program that can write a line will do. Open to root, weftd's own
 * uid and members of the admin group; others are told so and hung up.
 */
#ifndef WEFT_SUPERVISOR_ADMIN_H
#define WEFT_SUPERVISOR_ADMIN_H

#include "daemon/supervisor/loop.h"

#include <sys/types.h>

struct weftd;
struct admin_conn;

struct admin {
	int fd;
	struct loop_source source;
	struct admin_conn *conns;
	uint32_t n_conns;
	gid_t group; /* -1: none */
	struct loop_timer status_timer;
};

int admin_open(struct weftd *d, int listen_fd, gid_t group);
void admin_close(struct weftd *d);
/* An engine answered or went: status replies that waited for it may be complete. */
void admin_engine_answered(struct weftd *d);

#endif
