/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two steps queued on the emulated device, where their results are not all (tests/kernels/test_queued has
 * those): the wait for the first returns while the second has not begun; nothing on the way waits for the
 * device, asks for memory or makes a second graph; results that nobody fetches are sent back when their
 * room is used up.
 *
 * Each case is a process of its own: the fake driver keeps what is broken, and counts.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/cuda/fake_device.h"
#include "tests/kernels/chain.h"
#include "tests/tap.h"

#define ROWS 4u
#define FAR  20u /* positions; by then whatever grows has grown */

static long (*waiting)(void); /* of the fake driver */

/* --- equal steps ---------------------------------------------------------------------------------------*/

struct rig {
	struct kt t;
	struct chain c;
	uint32_t pos;
};

static void make(struct rig *r)
{
	r->pos = 0;
	if (!kt_open(&r->t, "cuda", "own", 1))
		exit(2);
	chain_open(&r->c, &r->t);
}

/* Four sequences that go on by a row each, of an adapter's the last two; all with what was drawn. */
static uint64_t queue(struct rig *r, struct wk_sampled *ret)
{
	const struct wk_count count = {3, 1, 0};
	const struct wk_lora *lora = r->c.loras[0];
	const struct wk_segment segment = {2, 2, 0};
	uint32_t tokens[ROWS], table[2 * ROWS];
	struct wk_sample draws[ROWS];
	struct wk_seq seqs[ROWS];
	const struct wk_batch b = {.n_rows = ROWS,
				   .n_seqs = ROWS,
				   .n_table = 2 * ROWS,
				   .tokens = tokens,
				   .seqs = seqs,
				   .block_table = table,
				   .n_segments = 1,
				   .segments = &segment,
				   .n_loras = 1,
				   .loras = &lora};

	for (uint32_t i = 0; i < ROWS; i++) {
		tokens[i] = r->pos ? WK_DRAWN | (ROWS - 1 - i) : i;
		seqs[i] = (struct wk_seq){i, 1, r->pos, 2 * i};
		table[2 * i] = 2 * i;
		table[2 * i + 1] = 2 * i + 1;
		draws[i] = (struct wk_sample){.row = i,
					      .temperature = 1,
					      .top_p = 1,
					      .repetition_penalty = 1.5f,
					      .seed = i,
					      .position = r->pos,
					      .given = WK_NO_TOKEN,
					      .counts = &count,
					      .n_counts = 1};
	}
	r->pos++;
	if (chain_forward(&r->c, &b, 1, true))
		return 0;
	chain_sample(&r->c, draws, ROWS, ret);
	return r->t.ops->record(r->t.be);
}

static bool is_filled(const void *p, int v, size_t n)
{
	const unsigned char *bytes = p;

	while (n && bytes[n - 1] == v)
		n--;
	return !n;
}

/* --- cases, each in a process: 0, or a line of this file -------------------------------------------------*/

#define MUST(what)                       \
	do {                             \
		if (!(what))             \
			return __LINE__; \
	} while (0)

static int one_by_one(void)
{
	struct wk_sampled first[ROWS], second[ROWS];
	const struct wk_ops *ops;
	uint64_t a, b;
	struct rig r;

	setenv("WEFT_FAKE_CUDA_LATE", "2", 1);
	make(&r);
	ops = r.t.ops;
	memset(first, 0xaa, sizeof(first));
	memset(second, 0xaa, sizeof(second));
	a = queue(&r, first);
	b = queue(&r, second);
	MUST(a && b);
	MUST(is_filled(first, 0xaa, sizeof(first)));
	MUST(!ops->wait(r.t.be, a));
	MUST(waiting() > 8); /* the whole of the second step */
	MUST(!is_filled(first, 0xaa, sizeof(first)) && first[ROWS - 1].token < CHAIN_VOCAB);
	MUST(is_filled(second, 0xaa, sizeof(second)));
	MUST(ops->query(r.t.be, a) == 1);
	/* Done on the device is not handed out. */
	while (!ops->query(r.t.be, b))
		;
	MUST(!waiting() && is_filled(second, 0xaa, sizeof(second)));
	MUST(!ops->wait(r.t.be, b) && second[ROWS - 1].token < CHAIN_VOCAB);
	chain_close(&r.c);
	kt_close(&r.t);
	return 0;
}

/* The wait for the second fetches the first too, and nothing is left behind. */
static int second_first(void)
{
	struct wk_sampled first[ROWS], second[ROWS];
	struct rig r;
	uint64_t a, b;

	make(&r);
	memset(first, 0xaa, sizeof(first));
	a = queue(&r, first);
	b = queue(&r, second);
	MUST(!r.t.ops->wait(r.t.be, b) && first[0].token < CHAIN_VOCAB);
	memset(first, 0xaa, sizeof(first));
	MUST(!r.t.ops->wait(r.t.be, a) && is_filled(first, 0xaa, sizeof(first)));
	return 0;
}

static const char *plan;
static bool from_start; /* or when what grows has grown */
static bool called;	/* it must, after all */

/* With two steps queued all the time a call that would fail must not be made. */
static int not_called(void)
{
	struct wk_sampled out[WK_MAX_STEPS][ROWS];
	uint64_t before = 0;
	bool failed = false;
	struct rig r;

	setenv("WEFT_FAKE_CUDA_LATE", "2", 1);
	if (from_start)
		setenv("WEFT_FAKE_CUDA_FAIL", plan, 1);
	make(&r);
	for (uint32_t i = 0; i < FAR + 10; i++) {
		uint64_t ticket;

		if (i == FAR)
			setenv("WEFT_FAKE_CUDA_FAIL", plan, 1);
		ticket = queue(&r, out[i % WK_MAX_STEPS]);
		failed |= !ticket || (before && r.t.ops->wait(r.t.be, before));
		before = ticket;
	}
	MUST(failed == called && r.t.ops->wait(r.t.be, before) == (called ? -EIO : 0));
	return 0;
}

/* Whoever never waits is told so, before what he has not fetched is lost. */
static int never_waits(void)
{
	struct wk_sampled out[ROWS];
	struct rig r;
	int i = 0;

	make(&r);
	while (i < 30 && queue(&r, out))
		i++;
	MUST(i < 30 && strstr(r.t.ops->last_error(r.t.be), "not waited for"));
	MUST(r.t.ops->wait(r.t.be, 1) == -EINVAL);
	return 0;
}

static void apart(int (*fn)(void), const char *what)
{
	int status = -1;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (!pid) {
		int line = fn();

		if (line)
			diag("line %d", line);
		fflush(NULL);
		_exit(line != 0);
	}
	waitpid(pid, &status, 0);
	ok(!status, "%s", what);
}

static void apart_from(const char *call, bool start, const char *what)
{
	plan = call;
	from_start = start;
	apart(not_called, what);
}

int main(void)
{
	if (!fake_device()) {
		skip(1, "no emulated device here");
		return tap_done();
	}
	waiting = fake_device_number("fake_cuda_waiting");
	apart(one_by_one, "the wait for a step leaves the next one to the device");
	apart(second_first, "the wait for the second is one for both");
	apart_from("cuStreamSynchronize:1:719", false, "nothing waits for the stream");
	apart_from("cuEventSynchronize:1:719", false, "nor for an event");
	apart_from("cuMemAlloc:1:719", false, "nothing asks for memory");
	apart_from("cuMemHostAlloc:1:719", false, "nor for pinned memory");
	apart_from("cuGraphInstantiate:2:719", true, "all steps are one graph");
	called = true;
	apart_from("cuGraphInstantiate:1:719", true, "which they are");
	apart(never_waits, "results that nobody fetches are an error before they are lost");
	return tap_done();
}
