/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine.h - one weft-engine process: started, watched, restarted.
 *
 *                     READY
 *   WAITING --> LOADING ----> READY        exit, crash, silence: back to WAITING (back-off)
 *      ^           |            |          FAILED by its own word: stays so until a reload
 *      +-----------+------------+          STOPPED: weftd is going
 *
 * What goes over the link is state, not a queue: sessions that have to be attached or detached and
 * the wants below are sent when the socket takes them (engine_flush), so a slow engine costs no
 * memory and a new one gets everything that the last one had.
 */
#ifndef WEFT_SUPERVISOR_ENGINE_H
#define WEFT_SUPERVISOR_ENGINE_H

#include "daemon/common/log.h"
#include "daemon/supervisor/config.h"
#include "daemon/supervisor/domain.h"
#include "daemon/supervisor/loop.h"
#include "daemon/supervisor/tenant.h"

struct weftd;
struct session;

enum engine_state {
	ENGINE_STOPPED,
	ENGINE_WAITING,
	ENGINE_LOADING,
	ENGINE_READY,
	ENGINE_FAILED,
};

#define ENGINE_PUBLIC TENANT_MAX

struct engine {
	struct weftd *d; /* borrowed: owns the engine */
	struct config_model conf;
	enum engine_state state;
	pid_t pid;			   /* 0: none */
	int pidfd, link, heartbeat_fd;	   /* -1 when there is no process */
	struct wlink_heartbeat *heartbeat; /* owner of the mapping */
	struct loop_source pid_source, link_source;
	struct loop_timer timer;       /* WAITING: start; LOADING, READY: health */
	struct loop_timer flush_timer; /* the kernel was short of something: send again */

	struct wctl_model model; /* of the last READY; vocab 0: not known yet */
	uint64_t instance_id;
	char failure[WCTL_TEXT_BYTES]; /* why FAILED, or why the last one ended */
	bool gave_up, killed;	       /* this process said FAILED; was killed, see failure */
	bool asked;		       /* an administrator wants it to start again */
	bool lacked;		       /* said FAILED for want of what the next may find */
	bool killed_outside; /* the last one, by a SIGKILL of neither ours nor the kernel's */
	uint64_t oom_kills, oom_read_ns;  /* of the machine, when this engine began to work */
	uint64_t done_bytes, total_bytes; /* loading */

	uint32_t starts;   /* processes started */
	uint32_t restarts; /* in a row without a completed step */
	uint64_t started_ns, ready_ns;

	/* health: see engine_health.c */
	bool busy, nudged;
	uint64_t steps_seen, alive_ns, nudge_ns;
	uint32_t n_detaching; /* sessions it has to answer for */
	uint32_t n_owed;      /* answers about adapters and the cache */
	uint64_t owed_ns;     /* the last one came, or the first of them was asked for */

	/* The model's text files, owner, -1: none. What a process fills until it is READY, and what was
	 * sealed then: that is handed out, and replaced only by other bytes. */
	int filling_fd, files_fd;

	/* index regions, owner; [ENGINE_PUBLIC] is the public domain's, -1: not made yet */
	int index_fd[DOMAIN_MAX];

	/* to be sent */
	uint32_t told[TENANT_MAX];	  /* version of each tenant */
	uint32_t told_domain[DOMAIN_MAX]; /* version of each secret, with its region; 0: not told */
	bool want_nudge, want_status, want_drain, drained;
	uint64_t drain_deadline_ns;
	char *status_text; /* owner; JSON of the last STATUS_TEXT, or NULL */
	struct log_limit garbage_limit, offence_limit, send_limit;
};

int engine_init(struct engine *e, struct weftd *d, const struct config_model *conf);
void engine_fini(struct engine *e); /* kills and reaps what runs */
const char *engine_state_name(enum engine_state s);

/* Start the process now, or wait for its turn after a failure. */
void engine_start(struct engine *e);
/* SIGKILL; the rest follows when the process is gone. */
void engine_kill(struct engine *e, const char *why);
/* Hang up and do not start it again. */
void engine_stop(struct engine *e);
/* Send what is outstanding, as far as the link takes it. */
void engine_flush(struct engine *e);
/* Ask the core thread for a sign of life. */
void engine_nudge(struct engine *e);
/* The index region of a tenant's domain (or ENGINE_PUBLIC), made when it is first asked for.
 * Borrowed descriptor or -errno. */
int engine_index(struct engine *e, uint32_t domain);
/* Whoever has it is to see nothing more in it: the next one that is asked for is another. */
void engine_forget_index(struct engine *e, uint32_t domain);
/* The model's text files for one client. A descriptor of its own, or -ENOENT, or -errno. */
int engine_open_files(const struct engine *e);
/* The process is READY: nothing is written any more. */
void engine_take_files(struct engine *e);
/* The model as clients see it. */
void engine_describe(const struct engine *e, struct wctl_model *ret);

/* --- between the files of this module -------------------------------------------------------------*/

/* engine_spawn.c: fork and exec with fds 3 (link), 4 (heartbeat), 5 (lock). 0 or -errno. */
int engine_spawn(struct engine *e);
/* In a child: these descriptors (at most ENGINE_MAX_FDS) from number 3 on, and none above them. 0 or
 * -errno. */
#define ENGINE_MAX_FDS 4
int engine_place_fds(const int *fds, int n);
/* engine_link.c: take every message that is there. false: hung up or broken. */
bool engine_link_read(struct engine *e);
/* A tenant and its domain, or ENGINE_PUBLIC, unless it has been told. 0 or -errno. */
int engine_send_domain(struct engine *e, uint32_t domain);
/* engine_health.c */
void engine_health_arm(struct engine *e);
/* How many processes the kernel has ended for want of memory; 0 when it does not say. */
uint64_t engine_oom_kills(void);
/* It owes one more answer that it has to give itself, whatever requests do; it gave one. */
void engine_owes(struct engine *e);
void engine_answered(struct engine *e);

#endif
