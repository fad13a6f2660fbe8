/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies of blocks on the emulated device, where their bytes are not all: a ticket is not done before
 * the device has come to it, calls beyond the limit are sent back, blocks that adjoin travel as one, a
 * device that cannot copy batches does without; and each call into the driver fails in turn: the error
 * says what and where and stays, and all that was made is given back.
 *
 * Each case is a process of its own: the fake driver keeps what is broken. tests/kernels/test_copies
 * has bytes and order.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/backend.h"
#include "kernels/cuda/driver.h"
#include "kernels/module.h"
#include "tests/cuda/fake_device.h"
#include "tests/tap.h"

#define N_BLOCKS 8u

static long (*live)(void); /* of the fake driver */

/* --- a pool, and memory for its blocks -----------------------------------------------------------------*/

struct rig {
	const struct wk_ops *ops;
	struct wk_backend *be;
	struct wk_buf *pool;
	size_t bytes; /* of a block */
	void *host;   /* owner: N_BLOCKS blocks */
};

static int make(struct rig *r)
{
	const struct wk_kv_shape shape = {1, 1, 32, 0};
	const struct wk_open_options opt = {.n_threads = 1};
	unsigned char *data;
	char why[256];
	int rc;

	memset(r, 0, sizeof(*r));
	r->ops = wk_module_load("cuda", why, sizeof(why));
	rc = r->ops ? r->ops->open(&opt, &r->be) : -ENOSYS;
	if (rc)
		return rc;
	r->bytes = r->ops->kv_block_bytes(r->be, &shape);
	rc = r->ops->buf_new(r->be, (size_t)5 << 20, &r->pool);
	rc = rc ? rc : r->ops->kv_bind(r->be, &shape, r->pool, N_BLOCKS);
	rc = rc ? rc : r->ops->host_new(r->be, N_BLOCKS * r->bytes, &r->host);
	data = malloc(N_BLOCKS * r->bytes);
	for (size_t i = 0; data && i < N_BLOCKS * r->bytes; i++)
		data[i] = (unsigned char)(1 + i / r->bytes);
	rc = rc || !data ? rc : r->ops->buf_write(r->be, r->pool, 0, data, N_BLOCKS * r->bytes);
	free(data);
	return rc;
}

/* What was made and not given back. */
static long drop(struct rig *r)
{
	if (r->be) {
		r->ops->host_free(r->be, r->host, N_BLOCKS * r->bytes);
		r->ops->buf_free(r->be, r->pool);
		r->ops->close(r->be);
	}
	return live();
}

static char *place(const struct rig *r, uint32_t i)
{
	return (char *)r->host + i * r->bytes;
}

/* Whether the place has the block, as make() wrote it. */
static bool holds(const struct rig *r, uint32_t at, uint32_t block)
{
	for (size_t i = 0; i < r->bytes; i++)
		if (place(r, at)[i] != (char)(block + 1))
			return false;
	return true;
}

static int copy(struct rig *r, bool out, const struct wk_block_copy *list, uint32_t n,
		uint64_t *ticket)
{
	return out ? r->ops->kv_copy_out(r->be, r->pool, list, n, ticket)
		   : r->ops->kv_copy_in(r->be, r->pool, list, n, ticket);
}

/* --- cases, each in a process: 0, or what is wrong ------------------------------------------------------*/

struct answer {
	int wrong; /* a line of this file */
	char text[256];
};

#define MUST(r, a, what)                                                                  \
	do {                                                                              \
		if (!(what)) {                                                            \
			(a)->wrong = __LINE__;                                            \
			snprintf((a)->text, sizeof((a)->text), "%s",                      \
				 (r)->ops ? (r)->ops->last_error((r)->be) : "no module"); \
			return;                                                           \
		}                                                                         \
	} while (0)

static void not_yet(struct answer *a)
{
	struct wk_block_copy one;
	uint64_t ticket = 0;
	struct rig r;

	setenv("WEFT_FAKE_CUDA_LATE", "1", 1);
	MUST(&r, a, !make(&r));
	one = (struct wk_block_copy){3, place(&r, 0)};
	memset(r.host, 0, N_BLOCKS * r.bytes);
	MUST(&r, a, !copy(&r, true, &one, 1, &ticket) && ticket);
	MUST(&r, a, !holds(&r, 0, 3) && r.ops->copy_query(r.be, ticket) == 0);
	MUST(&r, a, !r.ops->copy_wait(r.be, ticket) && holds(&r, 0, 3));
	MUST(&r, a, r.ops->copy_query(r.be, ticket) == 1 && !drop(&r));
}

static void limit(struct answer *a)
{
	uint64_t first = 0, last = 0, none = 99;
	struct wk_block_copy one;
	struct rig r;

	setenv("WEFT_FAKE_CUDA_LATE", "2", 1);
	MUST(&r, a, !make(&r));
	one = (struct wk_block_copy){2, place(&r, 5)};
	MUST(&r, a, !copy(&r, true, &one, 1, &first));
	for (int i = 1; i < WK_MAX_COPIES; i++)
		MUST(&r, a, !copy(&r, true, &one, 1, &last));
	MUST(&r, a, copy(&r, false, &one, 1, &none) == -EAGAIN && none == 99);
	MUST(&r, a, !r.ops->copy_wait(r.be, first) && r.ops->copy_query(r.be, last) == 0);
	MUST(&r, a, !copy(&r, false, &one, 1, &none) && none == last + 1);
	MUST(&r, a, !r.ops->copy_wait(r.be, none) && holds(&r, 5, 2) && !drop(&r));
}

/* Pageable memory would make the host wait. */
static void elsewhere(struct answer *a)
{
	struct wk_block_copy list[2];
	uint64_t ticket = 0;
	char *plain;
	struct rig r;

	MUST(&r, a, !make(&r));
	plain = malloc(r.bytes);
	list[0] = (struct wk_block_copy){1, place(&r, 0)};
	list[1] = (struct wk_block_copy){2, plain};
	MUST(&r, a, copy(&r, true, list, 2, &ticket) == -EINVAL);
	list[1].host = place(&r, N_BLOCKS - 1) + 1;
	MUST(&r, a, copy(&r, false, list, 2, &ticket) == -EINVAL);
	list[1].host = place(&r, N_BLOCKS - 1);
	MUST(&r, a, !copy(&r, true, list, 2, &ticket) && !drop(&r));
	free(plain);
}

/* Three blocks that adjoin: with a second copy that would fail, they must be one. */
static void adjoin(struct answer *a)
{
	struct wk_block_copy list[3];
	uint64_t ticket = 0;
	struct rig r;

	setenv("WEFT_CUDA_BATCH", "0", 1);
	MUST(&r, a, !make(&r));
	for (uint32_t i = 0; i < 3; i++)
		list[i] = (struct wk_block_copy){4 + i, place(&r, 1 + i)};
	setenv("WEFT_FAKE_CUDA_FAIL", "cuMemcpyDtoHAsync:2:719", 1);
	MUST(&r, a, !copy(&r, true, list, 3, &ticket) && !r.ops->copy_wait(r.be, ticket));
	MUST(&r, a, holds(&r, 1, 4) && holds(&r, 2, 5) && holds(&r, 3, 6));
	list[1].block = 2;
	MUST(&r, a, copy(&r, true, list, 3, &ticket) == -EIO && !drop(&r));
}

static void no_batches(struct answer *a)
{
	struct wk_block_copy list[2];
	uint64_t ticket = 0;
	struct rig r;

	MUST(&r, a, !make(&r));
	list[0] = (struct wk_block_copy){6, place(&r, 0)};
	list[1] = (struct wk_block_copy){1, place(&r, 4)};
	setenv("WEFT_FAKE_CUDA_FAIL", "cuMemcpyBatchAsync:1:801", 1);
	MUST(&r, a, !copy(&r, true, list, 2, &ticket) && !r.ops->copy_wait(r.be, ticket));
	MUST(&r, a, holds(&r, 0, 6) && holds(&r, 4, 1));
	/* It is not asked again. */
	setenv("WEFT_FAKE_CUDA_FAIL", "cuMemcpyBatchAsync:2:719", 1);
	MUST(&r, a, !copy(&r, false, list, 2, &ticket) && !r.ops->copy_wait(r.be, ticket));
	MUST(&r, a, !drop(&r));
}

/* --- failures ------------------------------------------------------------------------------------------*/

/* The calls of a copy, and of asking and waiting for it, in their order. */
static const struct failure {
	const char *fake; /* what the fake driver calls it */
	const char *name; /* what messages call it */
	unsigned nth;
	const char *batch; /* WEFT_CUDA_BATCH */
	bool in_only, out_only;
	bool begun; /* without memory too the error stays: something is on its way */
} failures[] = {
	{"cuEventRecord", "event_record", 1, "2", .begun = false},
	{"cuStreamWaitEvent", "stream_wait_for", 1, "2", .begun = false},
	{"cuMemcpyBatchAsync", "copy_batch", 1, "2", .begun = true},
	{"cuMemcpyBatchAsync_12", "copy_batch", 1, "1", .begun = true},
	{"cuMemcpyDtoHAsync", "copy_from", 1, "0", .out_only = true, .begun = true},
	{"cuMemcpyDtoHAsync", "copy_from", 2, "0", .out_only = true, .begun = true},
	{"cuMemcpyHtoDAsync", "copy_to", 1, "0", .in_only = true, .begun = true},
	{"cuMemcpyHtoDAsync", "copy_to", 2, "0", .in_only = true, .begun = true},
	{"cuEventRecord", "event_record", 2, "2", .begun = true},
	{"cuStreamWaitEvent", "stream_wait_for", 2, "2", .in_only = true, .begun = true},
	{"cuEventQuery", "event_query", 1, "2", .begun = true},
	{"cuEventSynchronize", "event_wait", 1, "2", .begun = true},
};

static const struct failure *failure;
static bool failing_out, failing_late;
static int failing_code;

/* Copied, asked for and waited for: the first error. */
static int whole(struct rig *r, const struct wk_block_copy *list, uint32_t n)
{
	uint64_t ticket = 0;
	int rc = copy(r, failing_out, list, n, &ticket);

	if (!strcmp(failure->fake, "cuEventQuery"))
		while (!rc && !(rc = r->ops->copy_query(r->be, ticket)))
			;
	return rc < 0 ? rc : r->ops->copy_wait(r->be, ticket);
}

static void fails(struct answer *a)
{
	const bool memory = failing_code == CU_OUT_OF_MEMORY;
	const int want = memory ? -ENOMEM : -EIO;
	struct wk_block_copy list[3];
	char plan[96], call[64];
	const char *text;
	uint64_t ticket;
	struct rig r;

	setenv("WEFT_CUDA_BATCH", failure->batch, 1);
	if (failing_late)
		setenv("WEFT_FAKE_CUDA_LATE", "1", 1);
	MUST(&r, a, !make(&r));
	for (uint32_t i = 0; i < 3; i++)
		list[i] = (struct wk_block_copy){1 + 2 * i, place(&r, i)};
	memset(r.host, 0, N_BLOCKS * r.bytes);
	snprintf(plan, sizeof(plan), "%s:%u:%d", failure->fake, failure->nth, failing_code);
	setenv("WEFT_FAKE_CUDA_FAIL", plan, 1);
	MUST(&r, a, whole(&r, list, 3) == want);
	text = r.ops->last_error(r.be);
	snprintf(a->text, sizeof(a->text), "%s", text);
	snprintf(call, sizeof(call), "(%s)", failure->name);
	MUST(&r, a, strstr(text, call) && strstr(text, memory ? "OUT_OF_MEMORY" : "LAUNCH_FAILED"));
	if (!strstr(call, "_query") && !strstr(call, "event_wait"))
		MUST(&r, a,
		     strstr(text, failing_out ? "3 blocks to the host, the first of them 1"
					      : "3 blocks to the device, the first of them 1"));
	if (memory && !failure->begun) {
		MUST(&r, a, !whole(&r, list, 3) && (!failing_out || holds(&r, 1, 3)));
	} else {
		MUST(&r, a,
		     copy(&r, true, list, 1, &ticket) == want &&
			     copy(&r, false, list, 1, &ticket) == want);
		MUST(&r, a,
		     r.ops->copy_query(r.be, 0) == want && r.ops->copy_wait(r.be, 0) == want);
		MUST(&r, a, r.ops->wait(r.be, r.ops->record(r.be)) == want);
	}
	MUST(&r, a, !drop(&r));
}

static const char *opening;

/* While a backend is opened, or memory for copies taken. */
static void fails_to_open(struct answer *a)
{
	struct rig r;

	setenv("WEFT_FAKE_CUDA_FAIL", opening, 1);
	MUST(&r, a, make(&r) == -EIO);
	MUST(&r, a, strstr(r.ops->last_error(r.be), "LAUNCH_FAILED"));
	MUST(&r, a, !drop(&r));
}

static void apart(void (*fn)(struct answer *a), const char *what)
{
	struct answer a = {-1, ""};
	int fds[2], status = -1;
	pid_t pid;

	if (pipe(fds))
		bail_out("no pipe");
	fflush(NULL);
	pid = fork();
	if (!pid) {
		a.wrong = 0;
		fn(&a);
		_exit(write(fds[1], &a, sizeof(a)) != sizeof(a));
	}
	close(fds[1]);
	if (read(fds[0], &a, sizeof(a)) != sizeof(a))
		a.wrong = -1;
	close(fds[0]);
	waitpid(pid, &status, 0);
	if (!ok(!a.wrong && !status, "%s", what))
		diag("line %d, status %x: %s", a.wrong, status, a.text);
}

static void one_failure(const struct failure *f, bool out, bool late)
{
	static const int codes[] = {719, CU_OUT_OF_MEMORY};
	char what[128];

	failure = f;
	failing_out = out;
	failing_late = late;
	for (int i = 0; i < 2; i++) {
		failing_code = codes[i];
		snprintf(what, sizeof(what), "%s, call %u, fails with %d, copying %s%s", f->fake,
			 f->nth, codes[i], out ? "out" : "in", late ? ", late" : "");
		apart(fails, what);
	}
}

int main(void)
{
	static const char *const openings[] = {"cuStreamCreate:2:719", "cuEventCreate:1:719",
					       "cuEventCreate:2:719", "cuEventCreate:65:719",
					       "cuMemHostAlloc:6:719"};

	if (!fake_device()) {
		skip(1, "no emulated device here");
		return tap_done();
	}
	live = fake_device_number("fake_cuda_live");
	apart(not_yet, "a ticket is not done before the device has come to it");
	apart(limit, "a call too many is sent back, and taken when one is done");
	apart(elsewhere, "a place outside of pinned memory, or half outside, is refused");
	apart(adjoin, "blocks that adjoin, here and there, are one copy");
	apart(no_batches, "a device that cannot copy batches copies one by one from then on");
	for (size_t i = 0; i < sizeof(openings) / sizeof(*openings); i++) {
		opening = openings[i];
		apart(fails_to_open, opening);
	}
	for (size_t i = 0; i < sizeof(failures) / sizeof(*failures); i++)
		for (int k = 0; k < 4; k++) {
			const struct failure *f = &failures[i];

			if (k & 1 ? !f->in_only : !f->out_only)
				one_failure(f, k & 1, k & 2);
		}
	return tap_done();
}
