/* SPDX-License-Identifier: Apache-2.0 */
/*
 * daemon_harness.h - a real weftd in a directory of its own, a client that speaks the control
 * protocol by hand, and an engine that misbehaves on demand.
 *
 * The engine is this same test program, started by weftd under the name weft-engine; what it does
 * follows from the model's path, /fake/KIND:
 *
 *   ok         serves the link: attach, detach, nudge, status, drain
 *   slow       sends progress, READY when there is no file "hold" beside the log
 *   silent     never READY
 *   die        exits at once
 *   refuse     says FAILED
 *   usage      exits as over a wrong command line
 *   hang       READY; busy in a step without end from the first attachment on
 *   deaf       READY; does not answer nudges
 *   garbage    READY; answers the first attachment with a message of no known type
 *   liar       READY; answers the first attachment with DETACHED for it
 *   offend     READY; calls each session an offence as soon as it is attached
 *   stubborn   as ok, but never says DRAINED and ignores the hang-up for 60 s
 *   orphan     as ok, but outlives weftd, whatever happens to that, until the next one has logged
 *              that it waits
 *
 * What an adapter does follows from words in its adapter_config.json: refuse (with a reason), crash
 * (the engine ends), never (no answer), slow (300 ms), liar (an answer that makes no sense), used
 * (three requests use it, one ends with each attempt to unload it). Both files must come whole,
 * sealed, and read-only, and a name may be in use once.
 *
 * A pin whose first token is 13 is refused (-ENOSPC); one that begins with 14 is computed without
 * end; 15 ends the engine. Dropping a domain frees 7 blocks, dropping all 99.
 *
 * Its status is {"attached":N,"resumed":N,"crashed":N,"restarts":N,"tenants":[{name,weight},...],
 * "loads":N,"late_loads":N (after the first session),"adapters":[{name,id,weights (a digest),
 * offset,on_missing},...],"pins":[{id,domain,n,tokens (a digest)},...],
 * "domains":[{domain (-1: public),inode (of its region),secret (a digest)},...]}.
 */
#ifndef WEFT_TESTS_DAEMON_HARNESS_H
#define WEFT_TESTS_DAEMON_HARNESS_H

#include "shm/wshm_control.h"

#include <jansson.h>
#include <sys/types.h>

/* First in main(): does not return when weftd has started this program as an engine. */
void wd_engine_or_test(int argc, char **argv);

struct wd {
	pid_t pid;
	char dir[64]; /* runtime directory, also weftd.conf and log */
	char socket[96];
	uid_t uid;	    /* weftd's own; 0: the test's */
	const char *inject; /* strace's: SYSCALL:error=ERRNO:when=N; NULL: none */
};

/* Make the directory and the configuration, start nothing. */
void wd_prepare(struct wd *d, const char *conf);

/* Make the directory and start weftd with this configuration; waits until it listens. */
void wd_start(struct wd *d, const char *conf);
/* Start again in the same directory. */
void wd_restart(struct wd *d);
/* Start without waiting: for a weftd that is expected to fail. */
void wd_spawn(struct wd *d);
/* Wait for its end, at most 10 s: exit status, or -signal, or -1000. */
int wd_wait(struct wd *d);
/* End it if it runs, by SIGTERM; remove the directory. The exit status. */
int wd_stop(struct wd *d);
/* Does the log contain this text? */
int wd_logged(const struct wd *d, const char *text);
/* The same, waiting for it up to ms. */
int wd_log_wait(const struct wd *d, const char *text, int ms);
void wd_show_log(const struct wd *d);

/* One admin request; the reply, or NULL. The caller releases it. */
json_t *wd_admin(const struct wd *d, const char *line);
/* The status with the first engine's own words in it, if it is ready: weftd does not wait for these
 * longer than a second. NULL: no answer. The caller releases it. */
json_t *wd_status(const struct wd *d);
/* The same of a format in which single quotes stand for double ones; the reply takes the place of *last,
 * which is released. Is it ok? */
int wd_ask(const struct wd *d, json_t **last, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Why a reply is not, or "". */
const char *wd_error(const json_t *reply);
/* A field of engine `index` of a fresh status: "pid", "starts", ...; or "engine.attached". */
long wd_engine_int(const struct wd *d, int index, const char *field);
long wd_daemon_int(const struct wd *d, const char *field);
/* Wait up to ms until the field has the value; 1 or 0. Of "starts", which only grows, or more. */
int wd_engine_wait(const struct wd *d, int index, const char *field, long value, int ms);
int wd_daemon_wait(const struct wd *d, const char *field, long value, int ms);

/* A client by hand. */
struct wd_client {
	int sock;
	struct wctl_welcome welcome;
	struct wshm_client shm;
	int fds[WCTL_WELCOME_FDS]; /* tx, rx, wake, bell, own index, public index; -1 */
	struct wctl_text text;	   /* the last REFUSED or BYE */
};

/* A client that is connected to nothing. */
/* For what must come: much longer than it takes on a machine that has other things to do. */
#define WD_PATIENCE_MS 60000

#define WD_CLIENT_NONE ((struct wd_client){.sock = -1, .fds = {-1, -1, -1, -1, -1, -1}})

int wd_connect(const struct wd *d);
void wd_hello_init(struct wctl_hello *h);
/* Connect, say hello, map. 0; or -errno; -EACCES after a REFUSED, whose text is in c->text. */
int wd_open(struct wd_client *c, const struct wd *d, const struct wctl_hello *h);
void wd_close(struct wd_client *c);
/* Receive within ms: the type of the message (0: hang-up, -errno); text is kept in c->text. */
int wd_recv(struct wd_client *c, int ms);
/* Wait until rx shows the state; 1 or 0. */
int wd_state_wait(const struct wd_client *c, enum wshm_engine_state state, int ms);

void wd_sleep_ms(int ms);

#endif
