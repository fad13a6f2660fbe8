/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_idx_torture.c - one writer changes an index as fast as it can, while a thread and a process
 * read it. The tables grow from the smallest again and again, under another engine each time, and
 * replaced ones are given back at once, without a look at who still reads.
 *
 * Each key's class and tier follow from its number, so what is pieced together from two moments
 * shows:
 *
 *   steady keys   there from the beginning of an engine's life to its end: always found
 *   restless      come and go: not there, or with their own tier
 *   absent        never put
 *
 * WEFT_LOOKUPS is how many each reader does at least.
 */
#include "tests/shm/idx_world.h"
#include "tests/shm/pair.h"
#include "tests/tap.h"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define KEYS	65536u /* of each class; the first STEADY of the steady ones are put */
#define STEADY	512u
#define MOST	20000u /* changes of one engine's life, a bit more or less */
#define BATCH	32u
#define LONG	4096u /* keys of a lookup that lasts longer than replacing a table does */
#define READERS 2u

struct reader {
	_Atomic uint64_t lookups, found, torn, lost;
};

struct shared {
	_Atomic uint32_t life; /* odd: an engine is being replaced */
	_Atomic bool stop;
	struct reader readers[READERS];
};

static struct shared *shared;
static struct idx_world world;
static struct wshm_key keys[3][KEYS];
static uint64_t want;

enum { CLASS_STEADY, CLASS_RESTLESS, CLASS_ABSENT };

static uint32_t tier_of(const struct wshm_key *key)
{
	return (uint32_t)(key->hi >> 40) % WSHM_N_TIERS;
}

static void make_keys(void)
{
	for (uint32_t c = 0; c < 3; c++)
		for (uint32_t i = 0; i < KEYS; i++)
			keys[c][i] = idx_world_key((uint64_t)c << 32 | i);
}

/* --- the writer ------------------------------------------------------------------------------------------*/

/* One engine: from nothing to some growths. */
static uint32_t live(uint64_t *rng)
{
	uint32_t n = 2000 + pair_random(rng) % MOST, growths = 0;
	uint64_t epoch;

	for (uint32_t i = 0; i < STEADY; i++)
		wshm_idx_put(world.w, &keys[CLASS_STEADY][i], tier_of(&keys[CLASS_STEADY][i]));
	epoch = wshm_idx_epoch(world.w);
	atomic_fetch_add(&shared->life, 1);
	for (uint32_t i = 0; i < n; i++) {
		const struct wshm_key *key = &keys[CLASS_RESTLESS][pair_random(rng) % KEYS];

		if (pair_random(rng) % 4)
			wshm_idx_put(world.w, key, tier_of(key));
		else
			wshm_idx_remove(world.w, key);
		if (wshm_idx_epoch(world.w) != epoch) {
			epoch = wshm_idx_epoch(world.w);
			growths++;
		}
		wshm_idx_reclaim(world.w, UINT64_MAX, i);
	}
	atomic_fetch_add(&shared->life, 1);
	return growths;
}

/* --- a reader --------------------------------------------------------------------------------------------*/

static void read_keys(const struct wshm_idx_reader *r, struct reader *me, uint64_t *rng, uint32_t n)
{
	static _Thread_local struct wshm_key batch[LONG];
	static _Thread_local uint8_t tiers[LONG], class[LONG];
	uint32_t life = atomic_load(&shared->life), missing = 0;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t x = pair_random(rng);

		class[i] = x % 8 ? x % 8 < 3 ? CLASS_STEADY : CLASS_RESTLESS : CLASS_ABSENT;
		batch[i] = keys[class[i]][(x >> 8) % (class[i] == CLASS_STEADY ? STEADY : KEYS)];
	}
	wshm_idx_lookup(r, batch, n, tiers);
	for (uint32_t i = 0; i < n; i++) {
		if (tiers[i] == WSHM_N_TIERS) {
			missing += class[i] == CLASS_STEADY;
			continue;
		}
		me->found++;
		me->torn += tiers[i] != tier_of(&batch[i]) || class[i] == CLASS_ABSENT;
	}
	me->lookups += n;
	/* Not in the life that began before and has not ended: lost. */
	if (missing && !(life & 1) && atomic_load(&shared->life) == life)
		me->lost += missing;
}

static void read_all(const struct wshm_idx_reader *r, uint32_t n)
{
	struct reader *me = &shared->readers[n];
	uint64_t rng = 77 + n;

	while (!shared->stop || me->lookups < want) {
		for (uint32_t i = 0; i < 32; i++)
			read_keys(r, me, &rng, BATCH);
		read_keys(r, me, &rng, LONG);
	}
}

static void *reader_thread(void *arg)
{
	(void)arg;
	read_all(&world.r, 0);
	return NULL;
}

/* A process with a mapping of its own, as a client's is. */
static pid_t reader_process(void)
{
	struct wshm_idx_reader r = {0};
	pid_t pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (wshm_idx_reader_open(&r, world.ro_fd))
		_exit(1);
	read_all(&r, 1);
	_exit(0);
}

/* Hits, too: a reader may have a processor just when the writer, between two lives, has none. */
static bool enough(void)
{
	for (uint32_t i = 0; i < READERS; i++) {
		uint64_t n = shared->readers[i].lookups;

		if (n < want || (shared->readers[i].found <= want / 10 && n < 100 * want))
			return false;
	}
	return true;
}

int main(void)
{
	const char *env = getenv("WEFT_LOOKUPS");
	uint32_t lives = 0, growths = 0;
	uint64_t rng = 5, sum[4] = {0};
	pthread_t thread;
	int status;
	pid_t pid;

	want = env ? strtoull(env, NULL, 10) / READERS : 12000000;
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	make_keys();
	idx_world_open(&world);
	atomic_store(&shared->life, 1);
	pid = reader_process();
	pthread_create(&thread, NULL, reader_thread, NULL);
	while (!enough()) {
		growths += live(&rng);
		idx_world_restart(&world);
		lives++;
	}
	shared->stop = true;
	pthread_join(thread, NULL);
	waitpid(pid, &status, 0);
	for (uint32_t i = 0; i < READERS; i++) {
		struct reader *r = &shared->readers[i];

		sum[0] += r->lookups;
		sum[1] += r->found;
		sum[2] += r->torn;
		sum[3] += r->lost;
	}
	diag("%u lives, %u growths", lives, growths);
	diag("%llu lookups, %llu found", (unsigned long long)sum[0], (unsigned long long)sum[1]);
	is_int(status, 0, "the reading process ended well");
	ok(sum[0] >= 2 * want && sum[1] > 2 * want / 10, "enough lookups, many of them hits");
	ok(growths > 2 * lives, "while tables grew");
	is_int(sum[2], 0, "nothing was torn");
	is_int(sum[3], 0, "and nothing that was there all the time was missed");
	idx_world_close(&world);
	return tap_done();
}
