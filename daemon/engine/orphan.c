/* SPDX-License-Identifier: Apache-2.0 */
/*
 * orphan.c - the engine outlives weftd by a moment, and tells its clients; and it ends when its link has
 * hung up, whatever its other threads do.
 *
 * A client that sleeps on a word of rx sees no socket. When weftd dies the kernel sends this process
 * SIGCONT (PDEATHSIG), after it has closed weftd's sockets. A thread that does nothing else takes the
 * signal, says in every session's rx that the daemon is gone, wakes all who sleep there, and ends the
 * process. So clients connect again at once, and neither a wait nor an idle engine pays for it.
 *
 * SIGCONT, because it reaches a stopped process too: a new weftd waits for this one to be gone. What
 * the other threads do, or whether they hang, does not matter; the lock is held for moments, and if its
 * holder never returns the process ends without telling. Without this thread weftd's death is a
 * SIGKILL.
 *
 * A weftd that only hangs up leaves the end to the control thread, which may be unable to see it: while a
 * model loads, in a device's driver that does not return, in a grace period that the core thread holds up
 * because it is in such a driver, in a write to a log that nobody reads. So the same thread looks at the
 * link, for nothing but its end, and ends the process if that still stands a moment later.
 *
 * Owns nothing: sessions are the control thread's, which adds and removes them.
 */
#include "daemon/engine/engine.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

/* Who counted itself among the sleepers, and did not sleep yet, is woken by one of these. */
#define ROUNDS	    20
#define PAUSE_NS    1000000
#define PATIENCE_NS 100000000
#define DYING_MS    100
/* From the hang-up to the end a second, of which the control thread takes a tenth; weftd kills after two. In
 * slices, so that one in which the whole machine stood still does not count for more. */
#define HUNG_UP_SLICES 10
#define SLICE_MS       100
#define LAST_WORD_SEC  1 /* for a line in the log */

static pid_t parent; /* weftd; set once, before there are threads */

static void tell_all(struct engine *e)
{
	for (int i = 0; i < ROUNDS; i++) {
		uint32_t n = 0;

		for (struct session *s = e->orphan.first; s; s = s->next_guarded)
			n += wshm_engine_orphan(&s->shm);
		if (!n)
			return;
		nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
	}
}

static void __attribute__((noreturn)) end_orphaned(struct engine *e)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += PATIENCE_NS;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	if (!pthread_mutex_timedlock(&e->orphan.lock, &until))
		tell_all(e);
	kill(getpid(), SIGKILL);
	for (;;)
		pause();
}

/* The line may never be taken: then the alarm is the end. */
static void __attribute__((noreturn)) end_hung_up(void)
{
	signal(SIGALRM, SIG_DFL);
	alarm(LAST_WORD_SEC);
	log_line(LOG_LEVEL_WARN,
		 "event=stopped why=\"weftd hung up, and the control thread does not "
		 "see it\"");
	_exit(1);
}

static bool weftd_died(int signals)
{
	struct signalfd_siginfo si;

	/* Anybody may continue a process. */
	return read(signals, &si, sizeof(si)) == (ssize_t)sizeof(si) && getppid() != parent;
}

static void *guard_main(void *engine)
{
	struct engine *e = engine;
	struct pollfd p[2] = {{.fd = e->orphan.signals, .events = POLLIN}, {.fd = WLINK_FD_SOCKET}};
	int left = HUNG_UP_SLICES;

	for (;;) {
		bool stands = p[1].fd >= 0;

		if (!poll(p, 2, stands ? -1 : SLICE_MS) && !--left)
			end_hung_up();
		if (p[0].revents && weftd_died(e->orphan.signals))
			end_orphaned(e);
		if (stands && p[1].revents)
			p[1].fd = -1;
	}
	return NULL;
}

/* With the signal blocked, which all later threads inherit. */
static bool guard_thread(struct engine *e, const sigset_t *set)
{
	pthread_t thread;

	e->orphan.signals = signalfd(-1, set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (e->orphan.signals < 0 || pthread_create(&thread, NULL, guard_main, e))
		return false;
	pthread_setname_np(thread, "weft-orphan");
	pthread_detach(thread);
	return true;
}

void orphan_guard_start(struct engine *e)
{
	sigset_t set;

	pthread_mutex_init(&e->orphan.lock, NULL);
	parent = getppid();
	sigemptyset(&set);
	sigaddset(&set, SIGCONT);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	if (!guard_thread(e, &set)) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		return;
	}
	prctl(PR_SET_PDEATHSIG, SIGCONT);
	if (getppid() != parent)
		kill(getpid(), SIGCONT); /* it died just before */
}

/* weftd closes the link a moment before its death is announced. */
void orphan_wait(void)
{
	for (int i = 0; i < DYING_MS; i++) {
		if (getppid() != parent)
			pause();
		nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
	}
}

void orphan_add(struct engine *e, struct session *s)
{
	pthread_mutex_lock(&e->orphan.lock);
	s->next_guarded = e->orphan.first;
	e->orphan.first = s;
	pthread_mutex_unlock(&e->orphan.lock);
}

void orphan_remove(struct engine *e, struct session *s)
{
	struct session **at = &e->orphan.first;

	pthread_mutex_lock(&e->orphan.lock);
	while (*at && *at != s)
		at = &(*at)->next_guarded;
	if (*at)
		*at = s->next_guarded;
	pthread_mutex_unlock(&e->orphan.lock);
}
