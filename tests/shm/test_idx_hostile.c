/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_idx_hostile.c - whatever stands in an index, a reader stays inside it, comes to an end soon,
 * and says nothing that is out of range: random bytes everywhere, random words in a sound index,
 * and what a mean engine would write on purpose.
 */
#include "tests/shm/idx_damage.h"
#include "tests/shm/pair.h"
#include "tests/tap.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static uint8_t *region;

static struct wshm_idx_ctl *ctl(void)
{
	return (struct wshm_idx_ctl *)(region + WSHM_IDX_OFF_CTL);
}

static struct wshm_idx_tail *tails(void)
{
	return (struct wshm_idx_tail *)(region + WSHM_IDX_OFF_TAILS);
}

static _Atomic uint64_t *heads(void)
{
	return (_Atomic uint64_t *)(region + WSHM_IDX_OFF_HEADS);
}

static void clear(void)
{
	madvise(region, WSHM_IDX_BYTES, MADV_DONTNEED);
}

static void fill_random(uint64_t from, uint64_t to, uint64_t *rng)
{
	for (uint64_t at = from; at < to; at += 4) {
		uint32_t x = pair_random(rng);

		memcpy(region + at, &x, 4);
	}
}

static void test_random_bytes(void)
{
	uint64_t rng = 1;

	fill_random(WSHM_IDX_OFF_CTL, WSHM_IDX_OFF_TABLES + (16 << 20), &rng);
	for (uint32_t i = 0; i < 200000; i++) {
		/* The words that everything depends on, over all that they can say. */
		ctl()->table = (uint64_t)pair_random(&rng) << 8 |
			       (i % 16 ? WSHM_IDX_LOG2_MIN + i % 14 : i / 16 & 0xff);
		ctl()->n_instances = i % 3 ? pair_random(&rng) : UINT32_MAX;
		damage_read(region, (uint64_t)pair_random(&rng) << 20 | i);
	}
	ok(1, "random bytes");
	clear();
}

static void test_chains(void)
{
	uint64_t rng = 2, start;

	ctl()->engine = 1;
	for (uint32_t i = 0; i < WSHM_IDX_HEADS; i++)
		heads()[i] = i % 2 ? (uint64_t)pair_random(&rng) << 32 | UINT32_MAX
				   : 1 + i % WSHM_IDX_TAILS;
	for (uint32_t i = 0; i < WSHM_IDX_TAILS; i++) {
		tails()[i].next = i % 4 == 0   ? i + 1 /* itself */
				  : i % 4 == 1 ? i     /* a ring of two */
				  : i % 4 == 2 ? UINT32_MAX
					       : WSHM_IDX_TAILS + 1;
		tails()[i].version = i % 2; /* for ever being written */
		tails()[i].rows = i % 5 ? UINT32_MAX : 16;
	}
	start = pair_now_ns();
	for (uint32_t i = 0; i < 20000; i++)
		damage_read(region, (uint64_t)pair_random(&rng) << 16 | i);
	ok(pair_now_ns() - start < UINT64_C(20000) * 200000, "rings and wild links end");
	clear();
}

static void test_instances(void)
{
	struct wshm_idx_instance *in =
		(struct wshm_idx_instance *)(region + WSHM_IDX_OFF_INSTANCES);
	struct wshm_idx_reader r = {.base = region};
	struct wshm_instance got;

	ctl()->engine = 1;
	ctl()->n_instances = UINT32_MAX;
	for (uint32_t i = 0; i < WSHM_MAX_INSTANCES; i++) {
		memset(&in[i], 0x41, sizeof(*in)); /* names without an end, counts beyond all */
		in[i].version = i % 3 ? 2 : 3;
	}
	for (uint32_t i = 0; i < WSHM_MAX_INSTANCES + 5; i++)
		damage_read(region, i);
	ok(wshm_idx_at(&r, 1, &got) < 0, "an instance that cannot be is none");
	/* All is well but the length of the invocation: the word at 96 of a struct wshm_instance. */
	memset(&in[4], 0, sizeof(*in));
	in[4].present = 1;
	in[4].words[0] = 'x';
	in[4].words[12] = WSHM_MAX_INVOCATION;
	ok(!wshm_idx_at(&r, 4, &got) && got.n_invocation == WSHM_MAX_INVOCATION,
	   "the longest invocation");
	in[4].words[12] = WSHM_MAX_INVOCATION + 1;
	ok(wshm_idx_at(&r, 4, &got) < 0, "one that is longer is none");
	clear();
}

/* While somebody writes anything anywhere, as fast as he can. */
static void test_live(void)
{
	uint64_t rng = 3;
	pid_t pid;

	munmap(region, WSHM_IDX_BYTES);
	if (mmap(region, WSHM_IDX_BYTES, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != region)
		bail_out("mmap");
	pid = fork();
	if (!pid) {
		alarm(60); /* not inherited */
		for (;;) {
			uint64_t at = pair_random(&rng) % 64
					      ? pair_random(&rng) % 600000
					      : WSHM_IDX_OFF_CTL + pair_random(&rng) % 24;

			at = at < 256 ? 256 : at & ~UINT64_C(7);
			*(_Atomic uint64_t *)(region + at) =
				(uint64_t)pair_random(&rng) << 32 | pair_random(&rng) % 70000;
			if (pair_random(&rng) % 32 == 0)
				ctl()->table = 7 + pair_random(&rng) % 20;
		}
	}
	for (uint32_t i = 0; i < 300000; i++)
		damage_read(region, i);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	ok(1, "under a storm of writes");
}

int main(void)
{
	alarm(60);
	region = damage_region();
	test_random_bytes();
	test_chains();
	test_instances();
	test_live();
	return tap_done();
}
