/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_index.c - `weft bench index`: reading an index of a million entries on one core while its
 * writer changes it on another as fast as it can.
 *
 * The reader looks up random keys, half of them resident, in batches as long as a probe's. A key's
 * tier follows from the key, so that an entry pieced together from two moments would show; all that
 * is read is checked. Beside it: the same without a writer, what a change costs the writer, and
 * what a million of puts cost that take the index from nothing through ten growths.
 *
 * Times are the threads' own CPU time: figures are per core, and what else the machine does is not
 * the index's.
 */
#include "shm/wshm_idx.h"
#include "tools/bench.h"
#include "tools/cli.h"
#include "tools/progress.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ENTRIES	 1000000u
#define ABSENT	 1000000u /* keys that are not there; the writer brings and removes CHURN of them */
#define CHURN	 50000u
#define BATCH	 64u /* keys of one lookup */
#define BATCHES	 64u /* timed together */
#define RUNS	 7
#define PER_RUN	 15000000u /* seven runs: more than 10^8 lookups under the writer */
#define QUIET	 5000000u
#define TARGET_M 8.0

struct index {
	int fd, ro_fd;
	struct wshm_idx_writer *w;
	struct wshm_idx_reader r;
	struct wshm_key *keys; /* owner; [ENTRIES + ABSENT] */
	double *put_us;	       /* owner; [ENTRIES] */
	_Atomic bool stop;
	uint64_t changes, changes_ns;
	uint64_t torn, lost;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static uint64_t next(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static enum wshm_tier tier_of(const struct wshm_key *key)
{
	return (enum wshm_tier)(key->hi % WSHM_N_TIERS);
}

static void pin(uint32_t cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu % (uint32_t)sysconf(_SC_NPROCESSORS_ONLN), &set);
	sched_setaffinity(0, sizeof(set), &set); /* without it the figure is only less steady */
}

/* --- the writer ----------------------------------------------------------------------------------------*/

/* Put all entries, one in a thousand of which takes longer than *ret_p999_us. */
static void fill(struct index *x, double *ret_mean_ns, double *ret_p999_us)
{
	uint64_t start = now_ns(), before = start;

	for (uint32_t i = 0; i < ENTRIES; i++) {
		uint64_t now;

		wshm_idx_put(x->w, &x->keys[i], tier_of(&x->keys[i]));
		wshm_idx_reclaim(x->w, UINT64_MAX, before);
		now = now_ns();
		x->put_us[i] = (double)(now - before) * 1e-3;
		before = now;
	}
	*ret_mean_ns = (double)(before - start) / ENTRIES;
	*ret_p999_us = bench_percentile(x->put_us, ENTRIES, 0.999);
}

static void *churn(void *arg)
{
	struct index *x = arg;
	uint64_t rng = 99, start;
	bool there[CHURN] = {0};

	pin(1);
	start = now_ns();
	for (x->changes = 0; !x->stop; x->changes++) {
		uint32_t n = (uint32_t)next(&rng) % CHURN;
		const struct wshm_key *key = &x->keys[ENTRIES + n];

		if (there[n])
			wshm_idx_remove(x->w, key);
		else
			wshm_idx_put(x->w, key, tier_of(key));
		there[n] = !there[n];
	}
	x->changes_ns = now_ns() - start;
	return NULL;
}

/* --- the reader ----------------------------------------------------------------------------------------*/

/* Millions of lookups a second. */
static double look(struct index *x, uint32_t n, uint64_t *rng)
{
	static struct wshm_key keys[BATCH * BATCHES];
	static uint32_t which[BATCH * BATCHES];
	static uint8_t tiers[BATCH * BATCHES];
	uint64_t spent = 0;

	for (uint32_t done = 0; done < n; done += BATCH * BATCHES) {
		uint64_t start;

		for (uint32_t i = 0; i < BATCH * BATCHES; i++) {
			which[i] = (uint32_t)(next(rng) % (ENTRIES + ABSENT));
			keys[i] = x->keys[which[i]];
		}
		start = now_ns();
		for (uint32_t i = 0; i < BATCH * BATCHES; i += BATCH)
			wshm_idx_lookup(&x->r, keys + i, BATCH, tiers + i);
		spent += now_ns() - start;
		for (uint32_t i = 0; i < BATCH * BATCHES; i++) {
			if (tiers[i] == WSHM_N_TIERS)
				x->lost += which[i] < ENTRIES;
			else
				x->torn += tiers[i] != tier_of(&keys[i]) ||
					   which[i] >= ENTRIES + CHURN;
		}
	}
	return (double)n / (double)spent * 1e3;
}

static void measure(struct index *x, struct bench_table *t)
{
	double busy[RUNS], quiet[RUNS], change[RUNS];
	uint64_t rng = 7;

	pin(0);
	for (int i = 0; i < RUNS; i++) {
		pthread_t thread;

		quiet[i] = look(x, QUIET, &rng);
		x->stop = false;
		if (pthread_create(&thread, NULL, churn, x))
			continue;
		busy[i] = look(x, PER_RUN, &rng);
		x->stop = true;
		pthread_join(thread, NULL);
		change[i] = (double)x->changes_ns / (double)x->changes;
		/* What the writer left behind goes, so that every run begins alike. */
		for (uint32_t n = 0; n < CHURN; n++)
			wshm_idx_remove(x->w, &x->keys[ENTRIES + n]);
		progress_step();
	}
	bench_add_samples(t, "index: lookups per core, 1M entries, writer churning", "M/s", busy,
			  RUNS, BENCH_AT_LEAST, TARGET_M);
	bench_add_samples(t, "index: lookups per core, 1M entries, no writer", "M/s", quiet, RUNS,
			  BENCH_NONE, 0);
	bench_add_samples(t, "index: one change, while being read", "ns", change, RUNS, BENCH_NONE,
			  0);
}

/* A count that must be 0. */
static void add_count(struct bench_table *t, const char *name, uint64_t n)
{
	double v = (double)n;

	bench_add(t, &(struct bench_row){
			     .name = name,
			     .value = v,
			     .unit = "count",
			     .lo = v,
			     .hi = v,
			     .pass = !n,
		     });
}

static int index_open(struct index *x)
{
	static const uint8_t secret[WSHM_SECRET_BYTES] = {1};
	static const struct wshm_root root = {.model = {1, 2}};
	uint64_t rng = 3;
	int err;

	x->keys = malloc((ENTRIES + ABSENT) * sizeof(*x->keys));
	x->put_us = malloc(ENTRIES * sizeof(*x->put_us));
	if (!x->keys || !x->put_us)
		return -ENOMEM;
	for (uint32_t i = 0; i < ENTRIES + ABSENT; i++) {
		x->keys[i].lo = next(&rng);
		x->keys[i].hi = next(&rng);
	}
	x->fd = wshm_idx_new(0);
	if (x->fd < 0)
		return x->fd;
	x->ro_fd = wshm_open_read_only(x->fd);
	if (x->ro_fd < 0)
		return x->ro_fd;
	err = wshm_idx_writer_open(&x->w, x->fd, secret, &root);
	return err ? err : wshm_idx_reader_open(&x->r, x->ro_fd);
}

static void index_close(struct index *x)
{
	wshm_idx_reader_close(&x->r);
	wshm_idx_writer_close(x->w);
	if (x->ro_fd >= 0)
		close(x->ro_fd);
	if (x->fd >= 0)
		close(x->fd);
	free(x->keys);
	free(x->put_us);
}

int bench_index(struct bench_table *t)
{
	struct index x = {.fd = -1, .ro_fd = -1};
	double mean[RUNS], p999[RUNS];
	int err = 0;

	progress_begin("weft bench index", 2 * RUNS);
	for (int i = 0; i < RUNS && !err; i++) {
		index_close(&x);
		x = (struct index){.fd = -1, .ro_fd = -1};
		err = index_open(&x);
		if (!err)
			fill(&x, &mean[i], &p999[i]);
		progress_step();
	}
	if (err) {
		index_close(&x);
		return cli_fail("bench index: %s", strerror(-err));
	}
	measure(&x, t);
	progress_end();
	add_count(t, "index: torn entries in more than 10^8 lookups", x.torn);
	add_count(t, "index: resident entries missed in them", x.lost);
	bench_add_samples(t, "index: one put, from nothing to 1M entries", "ns", mean, RUNS,
			  BENCH_NONE, 0);
	bench_add_samples(t, "index: the same, p99.9, growths and giving back included", "us", p999,
			  RUNS, BENCH_NONE, 0);
	index_close(&x);
	return 0;
}
