/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_idx_records_torture.c - one writer brings, fills and removes tails and instances as fast as
 * it can, while two threads read them. A tail's tag gives its parent, adapter and tokens, an
 * instance's digest all the rest, so whatever is pieced together from two moments shows.
 *
 * WEFT_LOOKUPS is how many each reader does at least.
 */
#include "tests/shm/idx_world.h"
#include "tests/shm/pair.h"
#include "tests/tap.h"

#include <pthread.h>

#define TAGS	6u
#define PARENTS 3u
#define ENTRIES 4u /* instances that are rewritten */
#define READERS 2u

struct reader {
	uint64_t reads, tails, instances, torn;
	uint64_t rng;
};

static struct idx_world world;
static _Atomic uint32_t running = READERS;
static uint64_t want;

/* --- what tails and instances hold -----------------------------------------------------------------------*/

static struct wshm_key parent_of(uint32_t tag)
{
	return idx_world_key(UINT64_C(9) << 32 | tag % PARENTS);
}

static struct wshm_identity identity_of(uint32_t tag)
{
	return (struct wshm_identity){{tag + 1, ~(uint64_t)tag}, 0};
}

static void tokens_of(uint32_t tag, uint32_t tokens[WSHM_IDX_TAIL_ROWS])
{
	for (uint32_t i = 0; i < WSHM_IDX_TAIL_ROWS; i++)
		tokens[i] = tag * 1000 + i;
}

static struct wshm_instance instance_of(uint32_t n)
{
	struct wshm_instance in = {.digest = {n, ~(uint64_t)n}, .rank = n, .n_invocation = n % 65};

	snprintf(in.name, sizeof(in.name), "adapter-%u", n % 10);
	for (uint32_t i = 0; i < in.n_invocation; i++)
		in.invocation[i] = n ^ i;
	return in;
}

static void change_tails(uint64_t *rng, uint32_t *handles)
{
	uint32_t tag = pair_random(rng) % TAGS, tokens[WSHM_IDX_TAIL_ROWS];
	struct wshm_identity id = identity_of(tag);
	struct wshm_key parent = parent_of(tag);

	if (handles[tag] != WSHM_NO_TAIL) {
		wshm_idx_tail_free(world.w, handles[tag]);
		handles[tag] = WSHM_NO_TAIL;
		return;
	}
	tokens_of(tag, tokens);
	handles[tag] = wshm_idx_tail_new(world.w, &parent, &id);
	for (uint32_t rows = 1 + pair_random(rng) % 5; rows <= WSHM_IDX_TAIL_ROWS; rows += 3)
		wshm_idx_tail_set(world.w, handles[tag], tokens, rows);
}

/* A tail's own rows may be found; those of no tail that ever was must not be. */
static void read_tails(const struct wshm_idx_reader *r, struct reader *me, uint64_t *rng)
{
	uint32_t tag = pair_random(rng) % TAGS, other = pair_random(rng) % TAGS;
	uint32_t tokens[WSHM_IDX_TAIL_ROWS], rows;
	struct wshm_identity id = identity_of(tag), other_id = identity_of(other);
	struct wshm_key parent = parent_of(tag), other_parent = parent_of(other);

	tokens_of(tag, tokens);
	rows = wshm_idx_tail_rows(r, &parent, &id, tokens, WSHM_IDX_TAIL_ROWS);
	me->tails += rows > 0;
	me->torn += rows > WSHM_IDX_TAIL_ROWS;
	if (other == tag)
		return;
	me->torn += wshm_idx_tail_rows(r, &parent, &other_id, tokens, WSHM_IDX_TAIL_ROWS) != 0;
	if (other % PARENTS != tag % PARENTS)
		me->torn +=
			wshm_idx_tail_rows(r, &other_parent, &id, tokens, WSHM_IDX_TAIL_ROWS) != 0;
}

static void read_instances(const struct wshm_idx_reader *r, struct reader *me, uint64_t *rng)
{
	uint32_t n = pair_random(rng) % (ENTRIES + 1);
	struct wshm_instance got, right;
	char name[32];

	if (!wshm_idx_at(r, n, &got)) {
		right = instance_of((uint32_t)got.digest[0]);
		me->instances++;
		me->torn += memcmp(&got, &right, sizeof(got)) != 0;
	}
	snprintf(name, sizeof(name), "adapter-%u", n);
	if (!wshm_idx_find(r, name, &got)) {
		right = instance_of((uint32_t)got.digest[0]);
		me->torn += memcmp(&got, &right, sizeof(got)) || strcmp(got.name, name);
	}
}

static void *read_all(void *arg)
{
	struct reader *me = arg;

	while (me->reads < want) {
		for (uint32_t i = 0; i < 10; i++)
			read_tails(&world.r, me, &me->rng);
		read_instances(&world.r, me, &me->rng);
		me->reads += 22;
	}
	running--;
	return NULL;
}

int main(void)
{
	const char *env = getenv("WEFT_LOOKUPS");
	struct reader readers[READERS] = {{.rng = 3}, {.rng = 4}}, sum = {0};
	uint32_t handles[TAGS], changes = 0;
	pthread_t threads[READERS];
	uint64_t rng = 5;

	want = env ? strtoull(env, NULL, 10) / READERS : 6000000;
	memset(handles, 0xff, sizeof(handles));
	idx_world_open(&world);
	for (uint32_t i = 0; i < READERS; i++)
		pthread_create(&threads[i], NULL, read_all, &readers[i]);
	for (; running; changes++) {
		change_tails(&rng, handles);
		if (changes % 8 == 0) {
			struct wshm_instance in = instance_of(changes);

			wshm_idx_instance(world.w, changes / 8 % ENTRIES,
					  changes % 80 ? &in : NULL);
		}
	}
	for (uint32_t i = 0; i < READERS; i++) {
		pthread_join(threads[i], NULL);
		sum.tails += readers[i].tails;
		sum.instances += readers[i].instances;
		sum.torn += readers[i].torn;
	}
	diag("%u changes, %llu tails and %llu instances read", changes,
	     (unsigned long long)sum.tails, (unsigned long long)sum.instances);
	ok(sum.tails > 10000 && sum.instances > 10000, "tails and instances were read");
	is_int(sum.torn, 0, "nothing was torn");
	idx_world_close(&world);
	return tap_done();
}
