/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stream.c - the fake driver's streams: copies, kernels, events and graphs.
 *
 * What is on a stream is done when it is put there, or with WEFT_FAKE_CUDA_LATE in the environment
 * only when someone asks for the stream or an event: then pinned memory that is reused too early, or
 * read before it is time, shows. Streams are independent then: one that is asked for goes on alone, and
 * takes others as far as events bind it to them, so a wait that is missing shows too. Asking whether an
 * event has come does one thing more of its stream, with WEFT_FAKE_CUDA_LATE=2 none; asking whether a
 * stream has ended does all that is on it, with 2 up to and with a kernel of a single thread, which is
 * what the backend ends a step with. fake_cuda_waiting() is how much is left to do. Copies of a batch
 * are done last to first.
 *
 * A launch that may begin before those before it have ended runs after them all the same; but what it reads
 * before it waits is read twice, the first time when the launch comes to its turn from which on they overlap
 * and then in its own, and must be the same. So a kernel that reads early what a launch before it
 * writes ends the program. fake_cuda_overlapping() is how many such launches there were, graphs' included,
 * fake_cuda_replayed() how many graphs were launched; WEFT_FAKE_CUDA_PTX what kernels were compiled for (90).
 *
 * fake_cuda_runs() is how often a kernel has run. WEFT_FAKE_CUDA_SWIZZLE=0: products of warpgroups are
 * wrong (hopper.cc).
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cuda/fake/emulate.h"
#include "tests/cuda/fake/fake.h"

#define SHARED_PLAIN (48u << 10) /* that a block may have without asking */

/* --- streams -----------------------------------------------------------------------------------------*/

enum op_kind { OP_COPY, OP_FILL, OP_LAUNCH, OP_CALL, OP_RECORD, OP_WAIT };

struct op {
	struct op *next;
	enum op_kind kind;
	void *to;
	const void *from;
	size_t bytes;
	int value;
	cu_event event;
	uint64_t count; /* of the event's records: the one that is made or waited for */
	const struct emu_kernel *kernel;
	void (*call)(const void *args); /* another library's */
	uint32_t grid[3], threads, shared;
	bool overlaps, looked; /* may begin early; and what it reads then is known */
	uint64_t digest;
	size_t arg_bytes;
	char args[]; /* of a launch or call: copied when it is made */
};

struct list {
	struct op *first, **end;
};

struct cu_graph_s {
	struct list ops;
};

struct cu_graph_exec_s {
	struct list ops;
};

static struct cu_stream_s {
	struct cu_stream_s *next;
	struct list waiting;
	struct cu_graph_s *capture; /* NULL: not capturing */
} * streams;

struct cu_event_s {
	uint64_t recorded, come; /* counts: queued, done */
	cu_stream on;		 /* of the last record */
};

static void list_init(struct list *l)
{
	l->first = NULL;
	l->end = &l->first;
}

static void list_clear(struct list *l)
{
	while (l->first) {
		struct op *op = l->first;

		l->first = op->next;
		free(op);
	}
	l->end = &l->first;
}

static void list_add(struct list *l, struct op *op)
{
	op->next = NULL;
	*l->end = op;
	l->end = &op->next;
}

static void run_until(cu_event e, uint64_t count);

/* All that follow and overlap may begin when this one does. */
static void look_ahead(const struct op *first)
{
	for (struct op *op = first->next; op && op->kind == OP_LAUNCH && op->overlaps;
	     op = op->next) {
		if (op->looked || !emu_is_early(op->kernel))
			continue;
		op->digest = emu_run_early(op->kernel, op->grid, op->threads, op->shared, op->args);
		op->looked = true;
	}
}

static void run_kernel(const struct op *op)
{
	uint64_t digest = emu_run(op->kernel, op->grid, op->threads, op->shared, op->args);

	if (!op->looked || digest == op->digest)
		return;
	fprintf(stderr, "a kernel reads before its wait what a launch before it writes\n");
	abort();
}

EXPORT long fake_cuda_runs(const char *kernel);
EXPORT long fake_cuda_runs(const char *kernel)
{
	const struct emu_kernel *k = emu_find(kernel);

	return k ? emu_runs(k) : -1;
}

static void run(const struct op *op)
{
	switch (op->kind) {
	case OP_COPY:
		memcpy(op->to, op->from, op->bytes);
		break;
	case OP_FILL:
		memset(op->to, op->value, op->bytes);
		break;
	case OP_LAUNCH:
		run_kernel(op);
		break;
	case OP_CALL:
		op->call(op->args);
		break;
	case OP_RECORD:
		op->event->come = op->count;
		break;
	case OP_WAIT:
		run_until(op->event, op->count);
		break;
	}
}

static void run_one(cu_stream s)
{
	struct op *op = s->waiting.first;

	if (op->kind == OP_LAUNCH)
		look_ahead(op);
	s->waiting.first = op->next;
	if (!op->next)
		s->waiting.end = &s->waiting.first;
	run(op);
	free(op);
}

static void run_stream(cu_stream s)
{
	while (s->waiting.first)
		run_one(s);
}

static void run_until(cu_event e, uint64_t count)
{
	while (e->come < count && e->on->waiting.first)
		run_one(e->on);
}

void fake_run_all(void)
{
	for (cu_stream s = streams; s; s = s->next)
		run_stream(s);
}

EXPORT long fake_cuda_waiting(void);
EXPORT long fake_cuda_waiting(void)
{
	long n = 0;

	for (cu_stream s = streams; s; s = s->next)
		for (const struct op *op = s->waiting.first; op; op = op->next)
			n++;
	return n;
}

static bool latest(void)
{
	const char *late = getenv("WEFT_FAKE_CUDA_LATE");

	return late && !strcmp(late, "2");
}

static long overlapping;

EXPORT long fake_cuda_overlapping(void);
EXPORT long fake_cuda_overlapping(void)
{
	return overlapping;
}

static void queue(cu_stream s, struct op op, const void *args, size_t arg_bytes)
{
	struct op *copy;

	copy = malloc(sizeof(op) + arg_bytes);
	*copy = op;
	copy->arg_bytes = arg_bytes;
	if (arg_bytes)
		memcpy(copy->args, args, arg_bytes);
	if (s->capture) {
		list_add(&s->capture->ops, copy);
		return;
	}
	list_add(&s->waiting, copy);
	overlapping += op.overlaps;
}

static void go(cu_stream s)
{
	if (!s->capture && !getenv("WEFT_FAKE_CUDA_LATE"))
		run_stream(s);
}

static cu_result put(cu_stream s, struct op op, const void *args, size_t arg_bytes)
{
	if (!s)
		return INVALID;
	queue(s, op, args, arg_bytes);
	go(s);
	return 0;
}

/* What another library puts on a stream (blas.c). */
EXPORT int fake_cuda_call(cu_stream s, void (*call)(const void *), const void *args, size_t bytes);
EXPORT int fake_cuda_call(cu_stream s, void (*call)(const void *), const void *args, size_t bytes)
{
	return put(s, (struct op){.kind = OP_CALL, .call = call}, args, bytes);
}

static int overlaps(const void *p, size_t n, uint64_t at, size_t bytes)
{
	uint64_t from = (uint64_t)(uintptr_t)p;

	return from < at + bytes && at < from + n;
}

void fake_must_be_still(uint64_t at, size_t bytes)
{
	for (cu_stream s = streams; s; s = s->next)
		for (const struct op *op = s->waiting.first; op; op = op->next)
			if (op->kind == OP_COPY && (overlaps(op->to, op->bytes, at, bytes) ||
						    overlaps(op->from, op->bytes, at, bytes))) {
				fprintf(stderr, "memory goes while a copy waits for it\n");
				abort();
			}
}

/* --- copies ------------------------------------------------------------------------------------------*/

EXPORT cu_result cuMemcpyHtoDAsync_v2(cu_ptr to, const void *from, size_t bytes, cu_stream s)
{
	CALL(cuMemcpyHtoDAsync);
	return put(
		s,
		(struct op){
			.kind = OP_COPY, .to = (void *)(uintptr_t)to, .from = from, .bytes = bytes},
		NULL, 0);
}

EXPORT cu_result cuMemcpyDtoDAsync_v2(cu_ptr to, cu_ptr from, size_t bytes, cu_stream s)
{
	CALL(cuMemcpyDtoDAsync);
	return put(s,
		   (struct op){.kind = OP_COPY,
			       .to = (void *)(uintptr_t)to,
			       .from = (const void *)(uintptr_t)from,
			       .bytes = bytes},
		   NULL, 0);
}

EXPORT cu_result cuMemcpyDtoHAsync_v2(void *to, cu_ptr from, size_t bytes, cu_stream s)
{
	CALL(cuMemcpyDtoHAsync);
	return put(
		s,
		(struct op){
			.kind = OP_COPY, .to = to, .from = (void *)(uintptr_t)from, .bytes = bytes},
		NULL, 0);
}

static cu_result batch(const cu_ptr *to, const cu_ptr *from, const size_t *bytes, size_t n,
		       const struct cu_copy_attributes *a, const size_t *first, size_t n_attributes,
		       cu_stream s)
{
	if (!n || n_attributes != 1 || *first || a->source_order != CU_SOURCE_IN_STREAM_ORDER ||
	    !s || s->capture)
		return INVALID;
	for (size_t i = n; i--;) {
		cu_result r = bytes[i] ? put(s,
					     (struct op){.kind = OP_COPY,
							 .to = (void *)(uintptr_t)to[i],
							 .from = (const void *)(uintptr_t)from[i],
							 .bytes = bytes[i]},
					     NULL, 0)
				       : INVALID;

		if (r)
			return r;
	}
	return 0;
}

EXPORT cu_result cuMemcpyBatchAsync_v2(const cu_ptr *to, const cu_ptr *from, const size_t *bytes,
				       size_t n, const struct cu_copy_attributes *a,
				       const size_t *first, size_t n_attributes, cu_stream s)
{
	CALL(cuMemcpyBatchAsync);
	return batch(to, from, bytes, n, a, first, n_attributes, s);
}

/* As it was before 13.0. */
EXPORT cu_result cuMemcpyBatchAsync(const cu_ptr *to, const cu_ptr *from, const size_t *bytes,
				    size_t n, const struct cu_copy_attributes *a,
				    const size_t *first, size_t n_attributes, size_t *ret_failed,
				    cu_stream s)
{
	CALL(cuMemcpyBatchAsync_12);
	*ret_failed = SIZE_MAX;
	return batch(to, from, bytes, n, a, first, n_attributes, s);
}

EXPORT cu_result cuMemsetD8Async(cu_ptr to, unsigned char v, size_t bytes, cu_stream s)
{
	CALL(cuMemsetD8Async);
	return put(
		s,
		(struct op){
			.kind = OP_FILL, .to = (void *)(uintptr_t)to, .value = v, .bytes = bytes},
		NULL, 0);
}

/* --- streams, events, graphs -------------------------------------------------------------------------*/

EXPORT cu_result cuStreamCreate(cu_stream *ret, unsigned flags)
{
	(void)flags;
	CALL(cuStreamCreate);
	*ret = calloc(1, sizeof(**ret));
	list_init(&(*ret)->waiting);
	(*ret)->next = streams;
	streams = *ret;
	fake_live++;
	return 0;
}

EXPORT cu_result cuStreamDestroy_v2(cu_stream s)
{
	struct cu_stream_s **at = &streams;

	fake_live--;
	run_stream(s);
	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	free(s);
	return 0;
}

EXPORT cu_result cuStreamSynchronize(cu_stream s)
{
	CALL(cuStreamSynchronize);
	run_stream(s);
	return 0;
}

EXPORT cu_result cuStreamQuery(cu_stream s)
{
	CALL(cuStreamQuery);
	if (!latest())
		run_stream(s);
	for (bool ended = false; s->waiting.first && !ended;) {
		const struct op *op = s->waiting.first;

		ended = op->kind == OP_LAUNCH && op->threads == 1 && op->grid[0] == 1;
		run_one(s);
	}
	return s->waiting.first ? CU_NOT_READY : 0;
}

EXPORT cu_result cuStreamWaitEvent(cu_stream s, cu_event e, unsigned flags)
{
	CALL(cuStreamWaitEvent);
	/* For what was recorded by now, whatever is recorded later. */
	return flags ? INVALID
		     : put(s, (struct op){.kind = OP_WAIT, .event = e, .count = e->recorded}, NULL,
			   0);
}

EXPORT cu_result cuEventCreate(cu_event *ret, unsigned flags)
{
	(void)flags;
	CALL(cuEventCreate);
	*ret = calloc(1, sizeof(**ret));
	fake_live++;
	return 0;
}

EXPORT cu_result cuEventDestroy_v2(cu_event e)
{
	fake_live--;
	/* A stream may wait for it still. */
	fake_run_all();
	free(e);
	return 0;
}

EXPORT cu_result cuEventRecord(cu_event e, cu_stream s)
{
	CALL(cuEventRecord);
	e->on = s;
	return put(s, (struct op){.kind = OP_RECORD, .event = e, .count = ++e->recorded}, NULL, 0);
}

EXPORT cu_result cuEventQuery(cu_event e)
{
	CALL(cuEventQuery);
	if (e->come == e->recorded)
		return 0;
	if (!latest())
		run_one(e->on);
	return CU_NOT_READY;
}

EXPORT cu_result cuEventSynchronize(cu_event e)
{
	CALL(cuEventSynchronize);
	run_until(e, e->recorded);
	return 0;
}

EXPORT cu_result cuEventElapsedTime(float *ret_ms, cu_event from, cu_event to)
{
	(void)from;
	(void)to;
	*ret_ms = 0;
	return 0;
}

EXPORT cu_result cuStreamBeginCapture_v2(cu_stream s, int mode)
{
	CALL(cuStreamBeginCapture);
	if (s->capture || mode != CU_CAPTURE_THREAD_LOCAL)
		return INVALID;
	s->capture = calloc(1, sizeof(*s->capture));
	list_init(&s->capture->ops);
	return 0;
}

EXPORT cu_result cuGraphDestroy(cu_graph g)
{
	list_clear(&g->ops);
	free(g);
	return 0;
}

EXPORT cu_result cuStreamEndCapture(cu_stream s, cu_graph *ret)
{
	struct cu_graph_s *g = s->capture;
	cu_result r = fake_fate("cuStreamEndCapture");

	/* It ends in any case. */
	s->capture = NULL;
	if (!r && g) {
		*ret = g;
		return 0;
	}
	if (g)
		cuGraphDestroy(g);
	return r ? r : INVALID;
}

EXPORT cu_result cuGraphInstantiateWithFlags(cu_graph_exec *ret, cu_graph g,
					     unsigned long long flags)
{
	(void)flags;
	CALL(cuGraphInstantiate);
	fake_live++;
	*ret = calloc(1, sizeof(**ret));
	list_init(&(*ret)->ops);
	for (const struct op *op = g->ops.first; op; op = op->next) {
		size_t args = op->arg_bytes;
		struct op *copy = malloc(sizeof(*op) + args);

		memcpy(copy, op, sizeof(*op) + args);
		list_add(&(*ret)->ops, copy);
	}
	return 0;
}

EXPORT cu_result cuGraphExecDestroy(cu_graph_exec g)
{
	fake_live--;
	fake_run_all();
	list_clear(&g->ops);
	free(g);
	return 0;
}

static long replayed;

EXPORT long fake_cuda_replayed(void);
EXPORT long fake_cuda_replayed(void)
{
	return replayed;
}

EXPORT cu_result cuGraphLaunch(cu_graph_exec g, cu_stream s)
{
	CALL(cuGraphLaunch);
	if (s->capture)
		return INVALID;
	replayed++;
	for (const struct op *op = g->ops.first; op; op = op->next)
		queue(s, *op, op->args, op->arg_bytes);
	go(s);
	return 0;
}

/* --- kernels -----------------------------------------------------------------------------------------*/

struct cu_function_s {
	const struct emu_kernel *kernel;
	uint32_t shared; /* that a launch may ask for */
};

EXPORT cu_result cuModuleLoadData(cu_module *ret, const void *image)
{
	CALL(cuModuleLoadData);
	*ret = (cu_module)(uintptr_t)image;
	return image ? 0 : INVALID;
}

EXPORT cu_result cuModuleUnload(cu_module m)
{
	(void)m;
	return 0;
}

EXPORT cu_result cuModuleGetFunction(cu_function *ret, cu_module m, const char *name)
{
	static struct cu_function_s functions[64];
	static uint32_t n;
	const struct emu_kernel *k = emu_find(name);

	(void)m;
	CALL(cuModuleGetFunction);
	if (!k)
		return NOT_FOUND;
	for (uint32_t i = 0; i < n; i++)
		if (functions[i].kernel == k) {
			*ret = &functions[i];
			return 0;
		}
	functions[n] = (struct cu_function_s){k, SHARED_PLAIN};
	*ret = &functions[n++];
	return 0;
}

EXPORT cu_result cuFuncGetAttribute(int *ret, int attribute, cu_function f)
{
	const char *version = getenv("WEFT_FAKE_CUDA_PTX");

	CALL(cuFuncGetAttribute);
	*ret = version ? atoi(version) : 90;
	return f && attribute == CU_FUNCTION_PTX_VERSION ? 0 : INVALID;
}

EXPORT cu_result cuFuncSetAttribute(cu_function f, int attribute, int value)
{
	CALL(cuFuncSetAttribute);
	if (attribute == CU_FUNCTION_SHARED_PART) /* percent */
		return value < 0 || value > 100 ? INVALID : 0;
	if (attribute != CU_FUNCTION_SHARED_BYTES || value < 0 || value > (int)SHARED_LIMIT)
		return INVALID;
	f->shared = (uint32_t)value;
	return 0;
}

static cu_result start(cu_function f, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
		       unsigned by, unsigned bz, unsigned shared, cu_stream s, void **params,
		       void **extra, bool overlaps)
{
	if (!gx || !gy || gz != 1 || gy > 65535 || !bx || by != 1 || bz != 1 || extra ||
	    bx > emu_max_threads(f->kernel) || shared > f->shared)
		return INVALID;
	return put(s,
		   (struct op){.kind = OP_LAUNCH,
			       .kernel = f->kernel,
			       .grid = {gx, gy, gz},
			       .threads = bx,
			       .shared = shared,
			       .overlaps = overlaps},
		   params[0], emu_arg_bytes(f->kernel));
}

EXPORT cu_result cuLaunchKernel(cu_function f, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
				unsigned by, unsigned bz, unsigned shared, cu_stream s,
				void **params, void **extra)
{
	CALL(cuLaunchKernel);
	return start(f, gx, gy, gz, bx, by, bz, shared, s, params, extra, false);
}

EXPORT cu_result cuLaunchKernelEx(const struct cu_launch_config *c, cu_function f, void **params,
				  void **extra)
{
	CALL(cuLaunchKernelEx);
	if (c->n_attributes != 1 || c->attributes->id != CU_LAUNCH_OVERLAP || c->attributes->pad)
		return INVALID;
	return start(f, c->grid[0], c->grid[1], c->grid[2], c->block[0], c->block[1], c->block[2],
		     c->shared_bytes, c->stream, params, extra, c->attributes->value.on == 1);
}
