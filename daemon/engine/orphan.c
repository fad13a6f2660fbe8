/* SPDX-License-Identifier: Apache-2.0 */
/*
 * orphan.c - the engine outlives weftd by a moment, and tells its clients.
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
 * Owns nothing: sessions are the control thread's, which adds and removes them.
 */
#include "daemon/engine/engine.h"

#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

/* Who counted itself among the sleepers, and did not sleep yet, is woken by one of these. */
#define ROUNDS	    20
#define PAUSE_NS    1000000
#define PATIENCE_NS 100000000
#define DYING_MS    100

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

static void *guard_main(void *engine)
{
	struct engine *e = engine;
	struct timespec until;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCONT);
	/* Anybody may continue a process. */
	while (sigwaitinfo(&set, NULL) != SIGCONT || getppid() == parent)
		;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += PATIENCE_NS;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	if (!pthread_mutex_timedlock(&e->orphan.lock, &until))
		tell_all(e);
	kill(getpid(), SIGKILL);
	return NULL;
}

void orphan_guard_start(struct engine *e)
{
	pthread_t thread;
	sigset_t set;

	pthread_mutex_init(&e->orphan.lock, NULL);
	parent = getppid();
	sigemptyset(&set);
	sigaddset(&set, SIGCONT);
	pthread_sigmask(SIG_BLOCK, &set, NULL); /* all later threads inherit it */
	if (pthread_create(&thread, NULL, guard_main, e)) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		return;
	}
	pthread_setname_np(thread, "weft-orphan");
	pthread_detach(thread);
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
