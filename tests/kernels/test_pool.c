/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_pool.c - the compute threads: every chunk once, results visible, asleep when idle; and what
 * they do at the side between jobs.
 *
 * Built with SAN=thread this is also the race test. What a chunk writes is checked against what
 * this file computes itself; CPU time is the kernel's own account in /proc.
 */
#include "kernels/cpu/cpu.h"
#include "tests/tap.h"

#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#define MAX_CHUNKS  600
#define PATIENCE_MS 60000

struct job {
	uint32_t n;
	uint32_t salt;
	uint32_t hits[MAX_CHUNKS]; /* plain: only the run's own ordering protects it */
	uint32_t value[MAX_CHUNKS];
	atomic_uint threads; /* bit per thread that took part */
};

static void chunk_fn(void *arg, uint32_t chunk, uint32_t thread)
{
	struct job *j = arg;

	j->hits[chunk]++;
	j->value[chunk] = chunk * 2654435761u + j->salt;
	atomic_fetch_or(&j->threads, 1u << thread);
}

static bool job_right(const struct job *j, uint32_t times)
{
	for (uint32_t i = 0; i < MAX_CHUNKS; i++) {
		if (j->hits[i] != (i < j->n ? times : 0))
			return false;
		if (i < j->n && j->value[i] != i * 2654435761u + j->salt)
			return false;
	}
	return true;
}

/* Jobs of ever other size, argument and spacing: a thread late for one must not touch the next. */
static void test_many(uint32_t n_threads, bool poll)
{
	static struct job jobs[2];
	static const uint32_t sizes[] = {1, 2, 3, 7, 64, 599, 0, 5};
	struct wk_pool *p;
	bool right = true;

	is_int(wk_pool_new(n_threads, poll, &p), 0, "pool of %u, poll %d", n_threads, poll);
	is_int(wk_pool_threads(p), n_threads, "it has them");
	for (uint32_t i = 0; i < 8000; i++) {
		struct job *j = &jobs[i % 2];

		memset(j->hits, 0, sizeof(j->hits));
		j->n = sizes[i * 7 % 8];
		j->salt = i;
		wk_pool_run(p, chunk_fn, j, j->n);
		right = right && job_right(j, 1);
		if (i % 1000 == 999)
			usleep(200); /* past the spin: workers asleep */
		if (i % 2000 == 1)
			wk_pool_idle(p, true);
		if (i % 2000 == 50)
			wk_pool_idle(p, false);
	}
	ok(right, "each chunk ran once, with its own job's argument");
	wk_pool_free(p);
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Until all four threads have a chunk; a machine with other things to do may take its time. */
static void slow_fn(void *arg, uint32_t chunk, uint32_t thread)
{
	uint64_t until = now_ms() + PATIENCE_MS;
	struct job *j = arg;

	chunk_fn(arg, chunk, thread);
	while (atomic_load(&j->threads) != 15 && now_ms() < until)
		usleep(2000);
}

/* Chunks that wait let every thread take part, and the caller sleep for the last. */
static void test_all_threads(void)
{
	static struct job j;
	struct wk_pool *p;
	bool right = true;

	is_int(wk_pool_new(4, false, &p), 0, "pool of 4");
	j.n = 40;
	/* A thread may have to wait for a processor longer than the others need for all. */
	for (uint32_t i = 0; i < 200 && atomic_load(&j.threads) != 15; i++) {
		usleep(2000);
		memset(j.hits, 0, sizeof(j.hits));
		wk_pool_run(p, slow_fn, &j, j.n);
		right = right && job_right(&j, 1);
	}
	ok(right, "slow chunks ran once each");
	is_int(atomic_load(&j.threads), 15, "all four threads took some, woken from sleep");
	wk_pool_free(p);
}

/* Ticks of CPU used by the pool's own threads of this process, and how many these are. */
static long workers_ticks(uint32_t *n_workers)
{
	char path[300], line[1024], *at;
	unsigned long user, sys;
	struct dirent *e;
	long sum = 0;
	DIR *d = opendir("/proc/self/task");
	FILE *f;

	*n_workers = 0;
	while (d && (e = readdir(d))) {
		snprintf(path, sizeof(path), "/proc/self/task/%s/stat", e->d_name);
		f = e->d_name[0] == '.' ? NULL : fopen(path, "r");
		if (!f)
			continue;
		/* Fields 14 and 15, counted behind the name's bracket. */
		if (fgets(line, sizeof(line), f) && strstr(line, "(weft-cpu") &&
		    (at = strrchr(line, ')')) &&
		    sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
			   &sys) == 2) {
			sum += (long)(user + sys);
			++*n_workers;
		}
		fclose(f);
	}
	closedir(d);
	return sum;
}

static long ticks_over(unsigned ms)
{
	uint32_t n;
	long before = workers_ticks(&n);

	usleep(ms * 1000);
	return workers_ticks(&n) - before;
}

/* Asleep from some moment on: a worker that had no processor yet is not taken for one that spins. */
static bool falls_asleep(void)
{
	for (int i = 0; i < 20; i++)
		if (!ticks_over(500))
			return true;
	return false;
}

static bool spins(void)
{
	uint64_t until = now_ms() + PATIENCE_MS;
	long ticks = 0;

	while (ticks < 2 && now_ms() < until)
		ticks += ticks_over(500);
	return ticks >= 2;
}

static void test_sleeps(void)
{
	static struct job j;
	struct wk_pool *p;
	uint32_t n;

	j.n = 64;
	wk_pool_new(3, false, &p);
	wk_pool_run(p, chunk_fn, &j, j.n);
	workers_ticks(&n);
	is_int(n, 2, "two workers seen");
	ok(falls_asleep(), "default mode: no CPU between jobs");
	wk_pool_free(p);

	wk_pool_new(2, true, &p);
	wk_pool_run(p, chunk_fn, &j, j.n);
	ok(spins(), "poll_always: the worker spins between jobs");
	wk_pool_idle(p, true);
	ok(falls_asleep(), "poll_always, idle: no CPU");
	memset(j.hits, 0, sizeof(j.hits));
	wk_pool_run(p, chunk_fn, &j, j.n);
	ok(job_right(&j, 1), "a job given while idle is done all the same");
	ok(falls_asleep(), "and it goes back to sleep");
	wk_pool_idle(p, false);
	ok(spins(), "idle ended: it spins again");
	wk_pool_free(p);
}

static void scratch_fn(void *arg, uint32_t chunk, uint32_t thread)
{
	void **at = arg;

	memset(at[thread], (int)thread + 1, WK_SCRATCH_BYTES);
	sched_yield();
	for (size_t i = 0; i < WK_SCRATCH_BYTES; i += 64)
		if (((uint8_t *)at[thread])[i] != thread + 1)
			at[3] = NULL;
}

static void test_scratch(void)
{
	struct wk_pool *p;
	void *at[4];

	wk_pool_new(3, false, &p);
	for (uint32_t i = 0; i < 3; i++)
		at[i] = wk_pool_scratch(p, i);
	at[3] = at;
	ok(!(((uintptr_t)at[0] | (uintptr_t)at[1] | (uintptr_t)at[2]) % 64), "scratch is aligned");
	wk_pool_run(p, scratch_fn, at, 12);
	ok(at[3] != NULL, "and each thread's own");
	wk_pool_free(p);
}

/* --- at the side -----------------------------------------------------------------------------------*/

struct side {
	uint32_t calls; /* plain: the pool's own ordering protects it from one call to the next */
	atomic_uint begun, done;
	atomic_bool hold;
};

static void side_fn(void *arg)
{
	struct side *s = arg;

	atomic_fetch_add(&s->begun, 1);
	while (atomic_load(&s->hold))
		sched_yield();
	s->calls++;
	atomic_fetch_add(&s->done, 1);
}

/* Generous: only a call that never comes takes so long. */
static bool side_done(struct side *s, uint32_t n)
{
	for (uint32_t i = 0; i < 10000; i++) {
		if (atomic_load(&s->done) >= n)
			return true;
		usleep(i < 1000 ? 10 : 1000);
	}
	return false;
}

static void side_pause(uint32_t i)
{
	static const uint32_t ns[] = {0, 1000, 45000, 50000, 52000, 55000, 120000};
	struct timespec t = {0, ns[i % 7]};

	if (t.tv_nsec)
		nanosleep(&t, NULL);
}

/* Around the moment at which workers fall asleep, between jobs: what is accepted is called, once, and
 * without anybody's help; what is refused is not. */
static void test_side_many(uint32_t n_threads, bool poll)
{
	static struct job j;
	struct side s = {0};
	struct wk_pool *p;
	uint32_t accepted = 0, late = 0;
	bool right = true;

	wk_pool_new(n_threads, poll, &p);
	j.n = 8;
	for (uint32_t i = 0; i < 2000 && !late; i++) {
		if (i % 3) {
			memset(j.hits, 0, sizeof(j.hits));
			wk_pool_run(p, chunk_fn, &j, j.n);
			right = right && job_right(&j, 1);
		}
		side_pause(i);
		accepted += wk_pool_aside(p, side_fn, &s);
		if (i % 4 == 0)
			wk_pool_aside_end(p);
		if (i % 2 && !side_done(&s, accepted))
			late++;
	}
	ok(!late && side_done(&s, accepted), "%u threads, poll %d: %u accepted, all called",
	   n_threads, poll, accepted);
	ok(right, "jobs beside them are whole");
	wk_pool_free(p);
	is_int(s.calls, accepted, "each once, and none that was refused");
	if (n_threads == 1)
		is_int(accepted, 0, "a pool of one accepts nothing");
	if (poll)
		ok(accepted > 0, "a worker that polls accepts");
}

static void test_side_states(void)
{
	struct side s = {0}, other = {0}, late = {0};
	uint64_t until;
	uint32_t accepted = 0;
	struct wk_pool *p;

	wk_pool_new(2, true, &p);
	atomic_store(&s.hold, true);
	ok(wk_pool_aside(p, side_fn, &s), "a worker that polls takes it on");
	while (!atomic_load(&s.begun))
		sched_yield();
	ok(!wk_pool_aside(p, side_fn, &other), "while it is under way nothing else is accepted");
	wk_pool_aside_end(p);
	is_int(atomic_load(&s.done), 0, "and the end does not wait for it");
	atomic_store(&s.hold, false);
	ok(side_done(&s, 1), "it ends");
	while (!wk_pool_aside(p, side_fn, &other))
		sched_yield();
	ok(side_done(&other, 1), "then the next one is accepted");

	wk_pool_idle(p, true);
	until = now_ms() + PATIENCE_MS;
	ok(falls_asleep(), "idle: the worker sleeps");
	/* One that had no processor all the while only now gets there. */
	while (wk_pool_aside(p, side_fn, &late) && now_ms() < until)
		side_done(&late, ++accepted);
	ok(!wk_pool_aside(p, side_fn, &s), "nobody is awake: refused");
	is_int(atomic_load(&s.begun), 1, "and not called");
	wk_pool_free(p);
}

int main(void)
{
	struct wk_pool *p;

	is_int(wk_pool_new(0, false, &p), -EINVAL, "no thread at all is refused");
	is_int(wk_pool_new(100000, false, &p), -EINVAL, "so is an absurd number");
	wk_pool_free(NULL);
	for (uint32_t n = 1; n <= 5; n++)
		test_many(n, false);
	test_many(2, true);
	test_all_threads();
	test_scratch();
	test_sleeps();
	test_side_many(1, false);
	test_side_many(2, false);
	test_side_many(4, false);
	test_side_many(2, true);
	test_side_states();
	return tap_done();
}
