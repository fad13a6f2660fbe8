/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine.c - the life of an engine process: start, exit, back-off, and what its sessions see of it.
 *
 * A process is gone when its pidfd says so; until then its regions may still be written. A hung-up
 * or broken link only leads to SIGKILL, never to conclusions. Owned by weftd's only thread.
 */
#include "daemon/supervisor/weftd.h"
#include "shm/wshm_files.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Back-off after the second failure in a row; the first restart is immediate. */
#define BACKOFF_FIRST_NS (100 * NS_PER_MS)
#define BACKOFF_LAST_NS	 (5 * NS_PER_SECOND)
#define EXIT_USAGE	 2 /* man/weft-engine.8 */

static void on_exit_event(struct loop_source *s, uint32_t events);
static void on_link_event(struct loop_source *s, uint32_t events);

int engine_init(struct engine *e, struct weftd *d, const struct config_model *conf)
{
	*e = (struct engine){.d = d, .conf = *conf, .pidfd = -1, .link = -1, .heartbeat_fd = -1};
	e->filling_fd = e->files_fd = -1;
	for (uint32_t i = 0; i < DOMAIN_MAX; i++)
		e->index_fd[i] = -1;
	return 0;
}

int engine_index(struct engine *e, uint32_t domain)
{
	if (e->index_fd[domain] < 0)
		e->index_fd[domain] = wshm_idx_new(domain == ENGINE_PUBLIC ? WLINK_PUBLIC : domain);
	return e->index_fd[domain];
}

/*
 * At once, for those who read it as they should, and to have its memory back. The engine goes on writing
 * until it is told of the next one; it never reads what is there, and says nothing in the place where it
 * says that it serves.
 */
void engine_forget_index(struct engine *e, uint32_t domain)
{
	if (e->index_fd[domain] < 0)
		return;
	if (wshm_idx_clear(e->index_fd[domain]))
		log_line(LOG_LEVEL_WARN, "model=%s event=index-not-cleared", e->conf.name);
	close(e->index_fd[domain]);
	e->index_fd[domain] = -1;
}

const char *engine_state_name(enum engine_state s)
{
	static const char *const names[] = {"stopped", "waiting", "loading", "ready", "failed"};

	return names[s];
}

void engine_describe(const struct engine *e, struct wctl_model *ret)
{
	*ret = e->model;
	snprintf(ret->name, sizeof(ret->name), "%s", e->conf.name);
	ret->ready = e->state == ENGINE_READY;
	ret->failed = e->state == ENGINE_FAILED;
}

/* --- the model's text files -----------------------------------------------------------------------*/

int engine_open_files(const struct engine *e)
{
	/* An open file of its own: what one client does with it (its position) no other sees. */
	return e->files_fd < 0 ? -ENOENT : wshm_open_read_only(e->files_fd);
}

/* From here on nobody changes them; so what clients are to find in them is there. */
static int seal(int fd)
{
	struct wshm_files f;
	int err = fd < 0 ? -ENODATA : wshm_files_seal(fd);

	if (!err && !(err = wshm_files_open(&f, fd)))
		wshm_files_close(&f);
	return err;
}

/*
 * Clients keep the memory of what they were given. An engine that is started again brings the same
 * files, usually; then the copy that is out already stays the only one. It also stays if the new one
 * is of no use.
 */
void engine_take_files(struct engine *e)
{
	int err = seal(e->filling_fd);

	if (err && err != -ENODATA)
		log_line(LOG_LEVEL_WARN, "model=%s event=files-not-taken error=\"%s\"",
			 e->conf.name, strerror(-err));
	if (!err && e->files_fd >= 0 && wshm_files_same(e->filling_fd, e->files_fd) > 0)
		err = -EEXIST;
	if (!err) {
		if (e->files_fd >= 0)
			close(e->files_fd);
		e->files_fd = e->filling_fd;
	} else if (e->filling_fd >= 0) {
		close(e->filling_fd);
	}
	e->filling_fd = -1;
}

/* --- the process ----------------------------------------------------------------------------------*/

void engine_stop(struct engine *e)
{
	loop_timer_clear(&e->d->loop, &e->timer);
	loop_timer_clear(&e->d->loop, &e->flush_timer);
	loop_unwatch(&e->d->loop, &e->link_source);
	if (e->link >= 0)
		close(e->link);
	e->link = -1;
	if (!e->pid)
		e->state = ENGINE_STOPPED;
}

/* Give the process's resources back; it has exited. */
static void clear_process(struct engine *e)
{
	engine_stop(e);
	/* Its cache is gone; programs that probe are told so until the next engine begins. */
	for (uint32_t i = 0; i < DOMAIN_MAX; i++)
		if (e->index_fd[i] >= 0 && wshm_idx_clear(e->index_fd[i]))
			log_line(LOG_LEVEL_WARN, "model=%s event=index-not-cleared", e->conf.name);
	loop_unwatch(&e->d->loop, &e->pid_source);
	if (e->pidfd >= 0)
		close(e->pidfd);
	if (e->heartbeat)
		munmap(e->heartbeat, WSHM_PAGE);
	if (e->heartbeat_fd >= 0)
		close(e->heartbeat_fd);
	if (e->filling_fd >= 0)
		close(e->filling_fd);
	e->pidfd = e->heartbeat_fd = e->filling_fd = -1;
	e->heartbeat = NULL;
	e->pid = 0;
}

/* Wait for the exit and say how it was. The process is dead or about to be. */
static void reap(struct engine *e, char *ret, size_t bytes)
{
	siginfo_t si = {0};

	while (waitid(P_PIDFD, (id_t)e->pidfd, &si, WEXITED) < 0 && errno == EINTR)
		;
	if (si.si_code == CLD_EXITED && si.si_status == EXIT_USAGE && e->state == ENGINE_LOADING &&
	    !e->gave_up) {
		e->gave_up = true;
		snprintf(e->failure, sizeof(e->failure),
			 "weft-engine refuses its command line (its log says why; are weftd and "
			 "weft-engine of the same version?)");
	}
	if (si.si_code == CLD_EXITED)
		snprintf(ret, bytes, "exit status %d", si.si_status);
	else
		snprintf(ret, bytes, "signal %d (%s)", si.si_status, strsignal(si.si_status));
	e->killed_outside = si.si_code == CLD_KILLED && si.si_status == SIGKILL && !e->killed &&
			    engine_oom_kills() == e->oom_kills;
}

/* Kill and wait: for a process that nobody shall hear of again. */
static void end_process(struct engine *e)
{
	char how[64];

	if (e->pid) {
		syscall(SYS_pidfd_send_signal, e->pidfd, SIGKILL, NULL, 0);
		reap(e, how, sizeof(how));
	}
	clear_process(e);
}

/* --- start ----------------------------------------------------------------------------------------*/

static void on_start_timer(struct loop_timer *t)
{
	struct engine *e = container_of(t, struct engine, timer);

	e->state = ENGINE_STOPPED;
	engine_start(e);
}

static void start_later(struct engine *e)
{
	uint64_t delay = 0;

	/* restarts counts from 1: none, 100 ms, 200 ms, ... 5 s. */
	if (e->restarts > 1) {
		uint32_t doublings = e->restarts - 2 < 10 ? e->restarts - 2 : 10;

		delay = BACKOFF_FIRST_NS << doublings;
		if (delay > BACKOFF_LAST_NS)
			delay = BACKOFF_LAST_NS;
	}
	e->state = ENGINE_WAITING;
	loop_timer_set(&e->d->loop, &e->timer, loop_now_ns() + delay, on_start_timer);
}

static void reset_link_state(struct engine *e)
{
	memset(e->told, 0, sizeof(e->told));
	memset(e->told_domain, 0, sizeof(e->told_domain));
	e->n_owed = 0;
	e->busy = e->nudged = e->gave_up = e->lacked = e->killed = e->asked = e->drained = false;
	e->want_nudge = e->want_status = e->want_drain = false;
	e->steps_seen = 0;
	e->done_bytes = e->total_bytes = 0;
	free(e->status_text);
	e->status_text = NULL;
}

void engine_start(struct engine *e)
{
	struct weftd *d = e->d;
	int err;

	if (e->pid || d->draining)
		return;
	reset_link_state(e);
	err = engine_spawn(e);
	if (!err)
		err = loop_watch(&d->loop, &e->pid_source, e->pidfd, EPOLLIN, on_exit_event);
	if (!err)
		err = loop_watch(&d->loop, &e->link_source, e->link, EPOLLIN, on_link_event);
	if (err) {
		snprintf(e->failure, sizeof(e->failure), "cannot start a process: %s",
			 strerror(-err));
		log_line(LOG_LEVEL_ERROR, "model=%s event=start-failed error=\"%s\"", e->conf.name,
			 strerror(-err));
		end_process(e);
		e->restarts++;
		start_later(e);
		return;
	}
	e->state = ENGINE_LOADING;
	e->oom_kills = engine_oom_kills();
	e->starts++;
	e->started_ns = e->alive_ns = loop_now_ns();
	engine_health_arm(e);
	log_line(LOG_LEVEL_INFO, "model=%s event=engine-started pid=%d", e->conf.name, (int)e->pid);
}

/* --- end ------------------------------------------------------------------------------------------*/

void engine_kill(struct engine *e, const char *why)
{
	if (!e->pid)
		return;
	log_line(LOG_LEVEL_WARN, "model=%s event=engine-killed pid=%d why=\"%s\"", e->conf.name,
		 (int)e->pid, why);
	if (!e->killed && !e->gave_up)
		snprintf(e->failure, sizeof(e->failure), "%s", why);
	e->killed = true;
	syscall(SYS_pidfd_send_signal, e->pidfd, SIGKILL, NULL, 0);
}

/* No engine touches the regions of this engine's sessions now. */
static void detach_all(struct engine *e)
{
	struct session *s, *next;

	e->n_detaching = 0;
	for (s = e->d->sessions; s; s = next) {
		next = s->next;
		if (s->engine != e)
			continue;
		if (s->state == SESSION_GONE) {
			s->link = LINK_NONE;
			session_release(s);
		} else if (s->link != LINK_NONE && s->link != LINK_ATTACH) {
			s->link = LINK_ATTACH;
			s->resume = e->killed_outside ? WLINK_RESUME_KILLED : WLINK_RESUME_CRASHED;
		}
	}
}

static void end_sessions(struct engine *e, const char *why)
{
	struct session *s, *next;

	for (s = e->d->sessions; s; s = next) {
		next = s->next;
		if (s->engine == e && s->state == SESSION_OPEN)
			session_end(s, -EIO, why);
	}
}

static void engine_gone(struct engine *e)
{
	bool gave_up, stepped = e->heartbeat && atomic_load(&e->heartbeat->steps) > 0;
	char how[64];

	/* Its last words first. */
	if (e->link >= 0)
		engine_link_read(e);
	reap(e, how, sizeof(how));
	gave_up = e->gave_up;
	log_line(gave_up || e->d->draining ? LOG_LEVEL_NOTICE : LOG_LEVEL_ERROR,
		 "model=%s event=engine-gone pid=%d how=\"%s\" steps=%llu", e->conf.name,
		 (int)e->pid, how,
		 e->heartbeat ? (unsigned long long)atomic_load(&e->heartbeat->steps) : 0ull);
	clear_process(e);
	e->state = ENGINE_STOPPED;
	e->restarts = stepped ? 1 : e->restarts + 1;
	detach_all(e);
	registry_engine_gone(e);
	pins_engine_gone(e);
	admin_engine_answered(e->d);
	if (e->d->draining) {
		weftd_drain_check(e->d);
	} else if (gave_up) {
		char why[WCTL_TEXT_BYTES];

		e->state = ENGINE_FAILED;
		snprintf(why, sizeof(why), "model %s cannot be served: %.160s", e->conf.name,
			 e->failure);
		end_sessions(e, why);
		registry_engine_failed(e);
		pins_engine_failed(e);
	} else {
		e->d->counters.engine_crashes += !e->asked;
		if (!e->killed && !e->lacked)
			snprintf(e->failure, sizeof(e->failure), "%s", how);
		start_later(e);
	}
}

static void on_exit_event(struct loop_source *s, uint32_t events)
{
	engine_gone(container_of(s, struct engine, pid_source));
}

static void on_link_event(struct loop_source *s, uint32_t events)
{
	struct engine *e = container_of(s, struct engine, link_source);

	if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && !engine_link_read(e)) {
		/* Nothing more will come, and usually the process is gone already; if it is not, it
		 * must go before anything is concluded. */
		loop_unwatch(&e->d->loop, s);
		if (!e->d->draining)
			syscall(SYS_pidfd_send_signal, e->pidfd, SIGKILL, NULL, 0);
		return;
	}
	if (events & EPOLLOUT)
		engine_flush(e);
}

void engine_fini(struct engine *e)
{
	if (!e->d)
		return;
	end_process(e);
	for (uint32_t i = 0; i < DOMAIN_MAX; i++) {
		if (e->index_fd[i] >= 0)
			close(e->index_fd[i]);
		e->index_fd[i] = -1;
	}
	if (e->files_fd >= 0)
		close(e->files_fd);
	e->files_fd = -1;
	free(e->status_text);
	e->status_text = NULL;
}
