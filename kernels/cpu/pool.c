/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool.c - the compute threads: a job is a range of chunks, and whoever is free takes the next.
 *
 * One 64-bit word, `claim`, says it all: { generation of the job, chunks not yet claimed }. A thread
 * claims a chunk by a compare-and-swap on it, after reading the job's function, argument and size.
 * Those three are rewritten only when nothing is left to claim and all is done, and within a
 * generation the count only falls: so a swap from a count above zero that succeeds proves that
 * they were read unchanged. A thread that arrives late for a job finds zero, or fails its swap, and
 * touches nothing. A worker that sleeps, or is not scheduled, takes no chunk and delays nobody.
 *
 * Ordering:
 * J1  The poster's store of `claim` (release) and a thread's load or swap of it (acquire): the
 *     job's fields and all that the caller wrote before are seen by whoever claims a chunk.
 * J2  Each done++ (release) and the caller's load of it (acquire): the results are seen.
 * J3  Sleeping workers. Worker: load bell; sleepers++; load claim, stop, parked; futex_wait.
 *     Poster: store claim (or stop, or parked); load sleepers; bell++ and wake. All sequentially
 *     consistent, so one of the two sees the other, and a bell rung in between makes futex_wait
 *     return at once.
 * J4  Sleeping caller, likewise. Caller: caller_sleeps = 1; load done; futex_wait. Worker: done++;
 *     load caller_sleeps; wake.
 * J5  Something at the side. The caller's store of `aside` (release) and whoever swaps it from POSTED
 *     to TAKEN (acquire): function and argument are seen; its store of NONE (release) and the
 *     caller's load of it (acquire): it is done, and both may be written again.
 * J6  Nobody sleeps over it. Caller: store aside; load sleepers. Worker: sleepers++; load aside;
 *     futex_wait. All sequentially consistent: either the caller sees that all sleep, and takes it
 *     back, or one of them sees it and does not.
 *
 * The pool belongs to one calling thread; `struct worker` belongs to its worker, but for the
 * scratch pointer, which is constant.
 */
#include "kernels/cpu/cpu.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SPIN_NS	    50000u /* longer than any gap between two operations of a step */
#define SPIN_CHECK  64u	   /* turns between two looks at the clock: about 2 us */
#define MAX_THREADS 1024u

struct worker {
	struct wk_pool *pool;
	void *scratch; /* owned */
	pthread_t thread;
	bool started;
};

enum aside { ASIDE_NONE, ASIDE_POSTED, ASIDE_TAKEN };

struct wk_pool {
	/* Line of the job: written by the caller, and `claim` by whoever claims. */
	_Alignas(128) _Atomic uint64_t claim; /* generation << 32 | chunks left */
	_Atomic(wk_chunk_fn) fn;
	_Atomic(void *) arg;
	_Atomic uint32_t n_chunks;

	_Alignas(128) _Atomic uint32_t done; /* chunks finished; the caller's futex */
	_Atomic uint32_t caller_sleeps;

	_Alignas(128) _Atomic uint32_t bell; /* the workers' futex */
	_Atomic uint32_t sleepers;
	_Atomic uint32_t polling; /* workers spin without a limit */
	_Atomic uint32_t parked;  /* workers do not spin at all */
	_Atomic uint32_t stop;

	_Alignas(128) _Atomic uint32_t aside; /* enum aside */
	void (*aside_fn)(void *arg);	      /* the caller's while `aside` is NONE */
	void *aside_arg;

	_Alignas(128) uint32_t n_threads;
	bool poll_always;
	struct worker *workers; /* owned; [n_threads], the first is the caller's */
};

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int n)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

static inline void pause_cpu(void)
{
	__builtin_ia32_pause();
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* A spin's patience: true until SPIN_NS have passed since its first call. */
struct spin {
	uint64_t until_ns;
	uint32_t turns;
};

static bool spin_on(struct spin *s)
{
	pause_cpu();
	if (++s->turns % SPIN_CHECK)
		return true;
	if (!s->until_ns) {
		s->until_ns = now_ns() + SPIN_NS;
		return true;
	}
	return now_ns() < s->until_ns;
}

/* --- a job ---------------------------------------------------------------------------------------*/

/* Take chunks of whatever job is current until none is left; returns the claim word last seen. */
static uint64_t work(struct wk_pool *p, uint32_t thread)
{
	uint64_t seen = atomic_load_explicit(&p->claim, memory_order_acquire); /* J1 */

	for (;;) {
		wk_chunk_fn fn = atomic_load_explicit(&p->fn, memory_order_relaxed);
		void *arg = atomic_load_explicit(&p->arg, memory_order_relaxed);
		uint32_t n = atomic_load_explicit(&p->n_chunks, memory_order_relaxed);
		uint32_t left = (uint32_t)seen;

		if (!left)
			return seen;
		/* J1 */
		if (!atomic_compare_exchange_weak_explicit(
			    &p->claim, &seen, seen - 1, memory_order_acq_rel, memory_order_acquire))
			continue;
		fn(arg, n - left, thread);
		/* J2, J4: release for the caller's acquire; seq_cst against its going to sleep.
		 * Whoever makes `done` complete must not touch the job afterwards. */
		if (atomic_fetch_add_explicit(&p->done, 1, memory_order_seq_cst) + 1 == n &&
		    thread && atomic_load_explicit(&p->caller_sleeps, memory_order_seq_cst))
			futex_wake(&p->done, 1);
		seen = atomic_load_explicit(&p->claim, memory_order_acquire); /* J1 */
	}
}

static void wait_done(struct wk_pool *p, uint32_t n)
{
	struct spin s = {0};
	uint32_t d;

	while ((d = atomic_load_explicit(&p->done, memory_order_acquire)) != n) { /* J2 */
		if (p->poll_always) {
			pause_cpu();
			continue;
		}
		if (spin_on(&s))
			continue;
		atomic_store_explicit(&p->caller_sleeps, 1, memory_order_seq_cst); /* J4 */
		d = atomic_load_explicit(&p->done, memory_order_seq_cst);	   /* J4 */
		/* Chunks done meanwhile change the word without a wake; the last one wakes. */
		if (d != n)
			futex_wait(&p->done, d);
		atomic_store_explicit(&p->caller_sleeps, 0, memory_order_relaxed);
	}
}

static void ring(struct wk_pool *p, int n)
{
	atomic_fetch_add_explicit(&p->bell, 1, memory_order_seq_cst); /* J3 */
	futex_wake(&p->bell, n);
}

void wk_pool_run(struct wk_pool *p, wk_chunk_fn fn, void *arg, uint32_t n_chunks)
{
	uint64_t gen;

	if (p->n_threads == 1 || n_chunks <= 1) {
		for (uint32_t i = 0; i < n_chunks; i++)
			fn(arg, i, 0);
		return;
	}
	gen = (atomic_load_explicit(&p->claim, memory_order_relaxed) >> 32) + 1;
	atomic_store_explicit(&p->fn, fn, memory_order_relaxed);
	atomic_store_explicit(&p->arg, arg, memory_order_relaxed);
	atomic_store_explicit(&p->n_chunks, n_chunks, memory_order_relaxed);
	atomic_store_explicit(&p->done, 0, memory_order_relaxed);
	atomic_store_explicit(&p->claim, gen << 32 | n_chunks, memory_order_seq_cst); /* J1, J3 */
	if (atomic_load_explicit(&p->sleepers, memory_order_seq_cst))		      /* J3 */
		ring(p, n_chunks - 1 < INT_MAX ? (int)(n_chunks - 1) : INT_MAX);
	work(p, 0);
	wait_done(p, n_chunks);
}

/* --- at the side ---------------------------------------------------------------------------------*/

/* Whoever swaps it away from POSTED calls it. */
static bool aside_take(struct wk_pool *p)
{
	uint32_t posted = ASIDE_POSTED;

	return atomic_load_explicit(&p->aside, memory_order_relaxed) == posted &&
	       atomic_compare_exchange_strong_explicit(&p->aside, &posted, ASIDE_TAKEN,
						       memory_order_acquire, /* J5 */
						       memory_order_relaxed);
}

static void aside_call(struct wk_pool *p)
{
	p->aside_fn(p->aside_arg);
	atomic_store_explicit(&p->aside, ASIDE_NONE, memory_order_release); /* J5 */
}

bool wk_pool_aside(struct wk_pool *p, void (*fn)(void *arg), void *arg)
{
	if (p->n_threads == 1)
		return false;
	wk_pool_aside_end(p);
	if (atomic_load_explicit(&p->aside, memory_order_acquire) != ASIDE_NONE) /* J5 */
		return false;
	p->aside_fn = fn;
	p->aside_arg = arg;
	atomic_store_explicit(&p->aside, ASIDE_POSTED, memory_order_seq_cst); /* J5, J6 */
	if (atomic_load_explicit(&p->sleepers, memory_order_seq_cst) < p->n_threads - 1 || /* J6 */
	    !aside_take(p))
		return true;
	atomic_store_explicit(&p->aside, ASIDE_NONE, memory_order_relaxed);
	return false;
}

void wk_pool_aside_end(struct wk_pool *p)
{
	if (aside_take(p))
		aside_call(p);
}

/* --- workers -------------------------------------------------------------------------------------*/

/* Sleep, unless since the caller looked there was a job, an end, or a word about parking. */
static void worker_sleep(struct wk_pool *p, uint64_t seen, uint32_t parked)
{
	uint32_t bell = atomic_load_explicit(&p->bell, memory_order_seq_cst); /* J3 */

	atomic_fetch_add_explicit(&p->sleepers, 1, memory_order_seq_cst);    /* J3 */
	if (atomic_load_explicit(&p->claim, memory_order_seq_cst) == seen && /* J3 */
	    atomic_load_explicit(&p->parked, memory_order_seq_cst) == parked &&
	    atomic_load_explicit(&p->aside, memory_order_seq_cst) != ASIDE_POSTED && /* J6 */
	    !atomic_load_explicit(&p->stop, memory_order_seq_cst))
		futex_wait(&p->bell, bell);
	atomic_fetch_sub_explicit(&p->sleepers, 1, memory_order_relaxed);
}

/* Wait until the claim word differs from `seen`, spinning first as the pool's mode says. */
static void worker_wait(struct wk_pool *p, uint64_t seen)
{
	struct spin s = {0};

	while (atomic_load_explicit(&p->claim, memory_order_acquire) == seen && /* J1 */
	       !atomic_load_explicit(&p->stop, memory_order_relaxed)) {
		uint32_t parked = atomic_load_explicit(&p->parked, memory_order_relaxed);

		if (aside_take(p))
			aside_call(p);
		if (!parked) {
			if (atomic_load_explicit(&p->polling, memory_order_relaxed)) {
				pause_cpu();
				continue;
			}
			if (spin_on(&s))
				continue;
		}
		worker_sleep(p, seen, parked);
		s = (struct spin){0}; /* woken: a job comes, or soon will */
	}
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct wk_pool *p = w->pool;
	uint32_t thread = (uint32_t)(w - p->workers);

	while (!atomic_load_explicit(&p->stop, memory_order_relaxed))
		worker_wait(p, work(p, thread));
	return NULL;
}

void wk_pool_idle(struct wk_pool *p, bool idle)
{
	if (p->n_threads == 1)
		return;
	atomic_store_explicit(&p->polling, !idle && p->poll_always, memory_order_relaxed);
	atomic_store_explicit(&p->parked, idle, memory_order_seq_cst); /* J3 */
	/* Otherwise the first job wakes them: a wake-up costs this thread 65 us here, before it has
	 * even looked at what it was woken for. J3 */
	if (!idle && p->poll_always && atomic_load_explicit(&p->sleepers, memory_order_seq_cst))
		ring(p, INT_MAX);
}

/* --- life ----------------------------------------------------------------------------------------*/

static int worker_start(struct wk_pool *p, uint32_t i)
{
	struct worker *w = &p->workers[i];
	sigset_t all, old;
	char name[16];
	int err;

	/* Signals are for the program's own threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&w->thread, NULL, worker_main, w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (err)
		return -err;
	w->started = true;
	snprintf(name, sizeof(name), "weft-cpu%u", i);
	pthread_setname_np(w->thread, name);
	return 0;
}

int wk_pool_new(uint32_t n_threads, bool poll_always, struct wk_pool **ret)
{
	struct wk_pool *p;
	int err;

	if (!n_threads || n_threads > MAX_THREADS)
		return -EINVAL;
	p = aligned_alloc(_Alignof(struct wk_pool), sizeof(*p));
	if (!p)
		return -ENOMEM;
	memset(p, 0, sizeof(*p));
	p->n_threads = n_threads;
	p->poll_always = poll_always;
	atomic_store_explicit(&p->polling, poll_always, memory_order_relaxed);
	p->workers = calloc(n_threads, sizeof(*p->workers));
	err = -ENOMEM;
	if (!p->workers)
		goto fail;
	for (uint32_t i = 0; i < n_threads; i++) {
		p->workers[i].pool = p;
		p->workers[i].scratch = wk_cpu_alloc(WK_SCRATCH_BYTES);
		if (!p->workers[i].scratch)
			goto fail;
	}
	for (uint32_t i = 1; i < n_threads; i++) {
		err = worker_start(p, i);
		if (err)
			goto fail;
	}
	*ret = p;
	return 0;
fail:
	wk_pool_free(p);
	return err;
}

void wk_pool_free(struct wk_pool *p)
{
	if (!p)
		return;
	atomic_store_explicit(&p->stop, 1, memory_order_seq_cst); /* J3 */
	ring(p, INT_MAX);
	for (uint32_t i = 0; p->workers && i < p->n_threads; i++) {
		if (p->workers[i].started)
			pthread_join(p->workers[i].thread, NULL);
		wk_cpu_release(p->workers[i].scratch, WK_SCRATCH_BYTES);
	}
	free(p->workers);
	free(p);
}

uint32_t wk_pool_threads(const struct wk_pool *p)
{
	return p->n_threads;
}

void *wk_pool_scratch(struct wk_pool *p, uint32_t thread)
{
	return p->workers[thread].scratch;
}
