/* SPDX-License-Identifier: Apache-2.0 */
/*
 * driver.c - a libcuda.so.1 without a device, for the tests: the entry points that the CUDA backend
 * uses, over host memory. Kernels are run by emulation of their own text (emulate.cuh).
 *
 * What is on a stream is done when it is put there, or with WEFT_FAKE_CUDA_LATE in the environment
 * only when someone asks for the stream or an event: then pinned memory that is reused too early, or
 * read before it is time, shows. A buffer ends where its pages end, with nothing mapped behind it, and
 * fresh memory is full of 0xff.
 *
 * WEFT_FAKE_CUDA_FAIL="cuLaunchKernel:40:700" makes the 40th call of an entry point fail with 700;
 * with ":/a/file" behind it only while that file exists, and takes it away: once, whatever starts
 * again. Errors but 2 (out of memory) stay, as a real context's do: every later call fails with them.
 * WEFT_FAKE_CUDA_BYTES is how much memory there is (4 GiB).
 *
 * One thread at a time, as the backend calls it.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/cuda/driver.h"
#include "tests/cuda/fake/emulate.h"

#define EXPORT	     __attribute__((visibility("default")))
#define INVALID	     1
#define NOT_FOUND    500
#define GRANULE	     ((size_t)2 << 20)
#define SHARED_LIMIT (227u << 10) /* of a Hopper block */
#define SHARED_PLAIN (48u << 10)
#define PAGE	     ((size_t)4096)

/* --- what is allocated -------------------------------------------------------------------------------*/

struct piece {
	struct piece *next;
	uint64_t at;
	size_t bytes;
	char *map; /* owner: with a page of nothing behind it */
	size_t map_bytes;
};

static struct piece *pieces; /* plain allocations and pinned memory */
static size_t used_bytes;

static size_t all_bytes(void)
{
	const char *e = getenv("WEFT_FAKE_CUDA_BYTES");

	return e ? strtoull(e, NULL, 0) : (size_t)4 << 30;
}

static struct piece *piece_new(size_t bytes)
{
	size_t body = (bytes + 255) / 256 * 256, pages = (body + PAGE - 1) / PAGE * PAGE;
	struct piece *p = calloc(1, sizeof(*p));

	p->map_bytes = pages + PAGE;
	p->map = mmap(NULL, p->map_bytes, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p->map == MAP_FAILED || mprotect(p->map + pages, PAGE, PROT_NONE)) {
		free(p);
		return NULL;
	}
	p->bytes = bytes;
	p->at = (uint64_t)(uintptr_t)(p->map + pages - body);
	memset(p->map + pages - body, 0xff, body);
	p->next = pieces;
	pieces = p;
	return p;
}

static cu_result piece_free(uint64_t at)
{
	for (struct piece **p = &pieces; *p; p = &(*p)->next)
		if ((*p)->at == at) {
			struct piece *gone = *p;

			*p = gone->next;
			munmap(gone->map, gone->map_bytes);
			free(gone);
			return 0;
		}
	return INVALID;
}

/* --- failures ----------------------------------------------------------------------------------------*/

static cu_result sticky;

/* What a call is to give: 0 to go on. */
static cu_result fate(const char *call)
{
	static unsigned long count;
	const char *plan = getenv("WEFT_FAKE_CUDA_FAIL"), *once;
	char name[64];
	unsigned long nth;
	int code, at = 0;

	if (sticky)
		return sticky;
	if (!plan || sscanf(plan, "%63[^:]:%lu:%d%n", name, &nth, &code, &at) < 3 ||
	    strcmp(name, call) || ++count != nth)
		return 0;
	once = plan[at] == ':' ? plan + at + 1 : NULL;
	if (once && unlink(once))
		return 0;
	if (code != CU_OUT_OF_MEMORY)
		sticky = code;
	return code;
}

#define CALL(call)                          \
	do {                                \
		cu_result r_ = fate(#call); \
		if (r_)                     \
			return r_;          \
	} while (0)

/* --- streams -----------------------------------------------------------------------------------------*/

enum op_kind { OP_COPY, OP_FILL, OP_LAUNCH };

struct op {
	struct op *next;
	enum op_kind kind;
	void *to;
	const void *from;
	size_t bytes;
	int value;
	const struct emu_kernel *kernel;
	uint32_t grid[3], threads, shared;
	char args[]; /* of a launch: copied when it is made */
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

/* One stream serves: the backend has no other. */
static struct cu_stream_s {
	struct list waiting;
	struct cu_graph_s *capture; /* NULL: not capturing */
} stream = {{NULL, &stream.waiting.first}, NULL};

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

static void run(const struct op *op)
{
	if (op->kind == OP_COPY)
		memcpy(op->to, op->from, op->bytes);
	else if (op->kind == OP_FILL)
		memset(op->to, op->value, op->bytes);
	else
		emu_run(op->kernel, op->grid, op->threads, op->shared, op->args);
}

static void run_waiting(void)
{
	while (stream.waiting.first) {
		struct op *op = stream.waiting.first;

		stream.waiting.first = op->next;
		if (!op->next)
			stream.waiting.end = &stream.waiting.first;
		run(op);
		free(op);
	}
}

static cu_result put(struct op op, const void *args, size_t arg_bytes)
{
	struct op *copy = malloc(sizeof(op) + arg_bytes);

	*copy = op;
	if (arg_bytes)
		memcpy(copy->args, args, arg_bytes);
	if (stream.capture) {
		list_add(&stream.capture->ops, copy);
		return 0;
	}
	list_add(&stream.waiting, copy);
	if (!getenv("WEFT_FAKE_CUDA_LATE"))
		run_waiting();
	return 0;
}

/* --- the driver --------------------------------------------------------------------------------------*/

EXPORT cu_result cuInit(unsigned flags)
{
	(void)flags;
	CALL(cuInit);
	return 0;
}

EXPORT cu_result cuDriverGetVersion(int *ret)
{
	CALL(cuDriverGetVersion);
	*ret = 13000;
	return 0;
}

EXPORT cu_result cuGetErrorName(cu_result r, const char **ret)
{
	static const struct {
		cu_result r;
		const char *name;
	} names[] = {
		{1, "CUDA_ERROR_INVALID_VALUE"},       {2, "CUDA_ERROR_OUT_OF_MEMORY"},
		{46, "CUDA_ERROR_DEVICE_UNAVAILABLE"}, {100, "CUDA_ERROR_NO_DEVICE"},
		{500, "CUDA_ERROR_NOT_FOUND"},	       {700, "CUDA_ERROR_ILLEGAL_ADDRESS"},
		{719, "CUDA_ERROR_LAUNCH_FAILED"},     {999, "CUDA_ERROR_UNKNOWN"},
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (names[i].r == r) {
			*ret = names[i].name;
			return 0;
		}
	*ret = NULL;
	return INVALID;
}

EXPORT cu_result cuDeviceGetCount(int *ret)
{
	CALL(cuDeviceGetCount);
	*ret = 1;
	return 0;
}

EXPORT cu_result cuDeviceGet(cu_device *ret, int ordinal)
{
	CALL(cuDeviceGet);
	*ret = ordinal;
	return ordinal ? INVALID : 0;
}

EXPORT cu_result cuDeviceGetName(char *ret, int bytes, cu_device dev)
{
	(void)dev;
	CALL(cuDeviceGetName);
	snprintf(ret, (size_t)bytes, "fake device");
	return 0;
}

EXPORT cu_result cuDeviceGetAttribute(int *ret, int attribute, cu_device dev)
{
	(void)dev;
	CALL(cuDeviceGetAttribute);
	switch (attribute) {
	case CU_MULTIPROCESSORS:
		*ret = 3;
		return 0;
	case CU_CAPABILITY_MAJOR:
		*ret = 9;
		return 0;
	case CU_CAPABILITY_MINOR:
		*ret = 0;
		return 0;
	case CU_SHARED_BYTES_OPTIN:
		*ret = SHARED_LIMIT;
		return 0;
	case CU_VIRTUAL_MEMORY:
		*ret = 1;
		return 0;
	}
	return INVALID;
}

EXPORT cu_result cuDevicePrimaryCtxRetain(cu_context *ret, cu_device dev)
{
	static int context;

	(void)dev;
	CALL(cuDevicePrimaryCtxRetain);
	*ret = (cu_context)(void *)&context;
	return 0;
}

EXPORT cu_result cuDevicePrimaryCtxRelease_v2(cu_device dev)
{
	(void)dev;
	return 0;
}

EXPORT cu_result cuCtxSetCurrent(cu_context ctx)
{
	(void)ctx;
	CALL(cuCtxSetCurrent);
	return 0;
}

/* --- memory ------------------------------------------------------------------------------------------*/

EXPORT cu_result cuMemGetInfo_v2(size_t *ret_free, size_t *ret_total)
{
	CALL(cuMemGetInfo);
	*ret_total = all_bytes();
	*ret_free = *ret_total - used_bytes;
	return 0;
}

EXPORT cu_result cuMemAlloc_v2(cu_ptr *ret, size_t bytes)
{
	struct piece *p;

	CALL(cuMemAlloc);
	if (!bytes)
		return INVALID;
	p = bytes <= all_bytes() - used_bytes ? piece_new(bytes) : NULL;
	if (!p)
		return CU_OUT_OF_MEMORY;
	used_bytes += bytes;
	*ret = p->at;
	return 0;
}

EXPORT cu_result cuMemFree_v2(cu_ptr at)
{
	CALL(cuMemFree);
	run_waiting();
	for (const struct piece *p = pieces; p; p = p->next)
		if (p->at == at)
			used_bytes -= p->bytes;
	return piece_free(at);
}

EXPORT cu_result cuMemGetAllocationGranularity(size_t *ret, const struct cu_memory_prop *prop,
					       int option)
{
	(void)option;
	CALL(cuMemGetAllocationGranularity);
	*ret = GRANULE;
	return prop->type == 1 && prop->location.type == 1 ? 0 : INVALID;
}

/* The handle of physical memory is its size: what is mapped is made when it is. */
EXPORT cu_result cuMemCreate(cu_memory *ret, size_t bytes, const struct cu_memory_prop *prop,
			     uint64_t flags)
{
	(void)flags;
	CALL(cuMemCreate);
	if (prop->type != 1 || prop->location.type != 1 || bytes % GRANULE)
		return INVALID;
	if (bytes > all_bytes() - used_bytes)
		return CU_OUT_OF_MEMORY;
	used_bytes += bytes;
	*ret = bytes;
	return 0;
}

EXPORT cu_result cuMemRelease(cu_memory mem)
{
	CALL(cuMemRelease);
	used_bytes -= mem;
	return 0;
}

EXPORT cu_result cuMemAddressReserve(cu_ptr *ret, size_t bytes, size_t align, cu_ptr at,
				     uint64_t flags)
{
	void *p;

	(void)align;
	(void)at;
	(void)flags;
	CALL(cuMemAddressReserve);
	if (bytes % GRANULE)
		return INVALID;
	p = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	*ret = (cu_ptr)(uintptr_t)p;
	return p == MAP_FAILED ? CU_OUT_OF_MEMORY : 0;
}

EXPORT cu_result cuMemAddressFree(cu_ptr p, size_t bytes)
{
	CALL(cuMemAddressFree);
	return munmap((void *)(uintptr_t)p, bytes) ? INVALID : 0;
}

EXPORT cu_result cuMemMap(cu_ptr at, size_t bytes, size_t offset, cu_memory mem, uint64_t flags)
{
	(void)flags;
	CALL(cuMemMap);
	return offset || bytes != mem || !at ? INVALID : 0;
}

EXPORT cu_result cuMemUnmap(cu_ptr at, size_t bytes)
{
	CALL(cuMemUnmap);
	run_waiting();
	return mprotect((void *)(uintptr_t)at, bytes, PROT_NONE) ? INVALID : 0;
}

EXPORT cu_result cuMemSetAccess(cu_ptr at, size_t bytes, const struct cu_access *access, size_t n)
{
	CALL(cuMemSetAccess);
	if (n != 1 || access->flags != 3 || access->location.type != 1)
		return INVALID;
	return mprotect((void *)(uintptr_t)at, bytes, PROT_READ | PROT_WRITE) ? INVALID : 0;
}

EXPORT cu_result cuMemHostAlloc(void **ret, size_t bytes, unsigned flags)
{
	struct piece *p;

	(void)flags;
	CALL(cuMemHostAlloc);
	p = piece_new(bytes);
	if (!p)
		return CU_OUT_OF_MEMORY;
	*ret = (void *)(uintptr_t)p->at;
	return 0;
}

EXPORT cu_result cuMemFreeHost(void *p)
{
	CALL(cuMemFreeHost);
	run_waiting();
	return piece_free((uint64_t)(uintptr_t)p);
}

EXPORT cu_result cuMemHostGetDevicePointer_v2(cu_ptr *ret, void *p, unsigned flags)
{
	CALL(cuMemHostGetDevicePointer);
	*ret = (cu_ptr)(uintptr_t)p;
	return flags ? INVALID : 0;
}

EXPORT cu_result cuMemcpyHtoDAsync_v2(cu_ptr to, const void *from, size_t bytes, cu_stream s)
{
	(void)s;
	CALL(cuMemcpyHtoDAsync);
	return put(
		(struct op){
			.kind = OP_COPY, .to = (void *)(uintptr_t)to, .from = from, .bytes = bytes},
		NULL, 0);
}

EXPORT cu_result cuMemcpyDtoDAsync_v2(cu_ptr to, cu_ptr from, size_t bytes, cu_stream s)
{
	(void)s;
	CALL(cuMemcpyDtoDAsync);
	return put((struct op){.kind = OP_COPY,
			       .to = (void *)(uintptr_t)to,
			       .from = (const void *)(uintptr_t)from,
			       .bytes = bytes},
		   NULL, 0);
}

EXPORT cu_result cuMemcpyDtoHAsync_v2(void *to, cu_ptr from, size_t bytes, cu_stream s)
{
	(void)s;
	CALL(cuMemcpyDtoHAsync);
	return put(
		(struct op){
			.kind = OP_COPY, .to = to, .from = (void *)(uintptr_t)from, .bytes = bytes},
		NULL, 0);
}

EXPORT cu_result cuMemsetD8Async(cu_ptr to, unsigned char v, size_t bytes, cu_stream s)
{
	(void)s;
	CALL(cuMemsetD8Async);
	return put(
		(struct op){
			.kind = OP_FILL, .to = (void *)(uintptr_t)to, .value = v, .bytes = bytes},
		NULL, 0);
}

/* --- streams, events, graphs -------------------------------------------------------------------------*/

EXPORT cu_result cuStreamCreate(cu_stream *ret, unsigned flags)
{
	(void)flags;
	CALL(cuStreamCreate);
	*ret = &stream;
	return 0;
}

EXPORT cu_result cuStreamDestroy_v2(cu_stream s)
{
	(void)s;
	run_waiting();
	return 0;
}

EXPORT cu_result cuStreamSynchronize(cu_stream s)
{
	(void)s;
	CALL(cuStreamSynchronize);
	run_waiting();
	return 0;
}

EXPORT cu_result cuStreamQuery(cu_stream s)
{
	(void)s;
	CALL(cuStreamQuery);
	run_waiting();
	return 0;
}

EXPORT cu_result cuEventCreate(cu_event *ret, unsigned flags)
{
	static int event;

	(void)flags;
	CALL(cuEventCreate);
	*ret = (cu_event)(void *)&event;
	return 0;
}

EXPORT cu_result cuEventDestroy_v2(cu_event e)
{
	(void)e;
	return 0;
}

EXPORT cu_result cuEventRecord(cu_event e, cu_stream s)
{
	(void)e;
	(void)s;
	CALL(cuEventRecord);
	return 0;
}

EXPORT cu_result cuEventSynchronize(cu_event e)
{
	(void)e;
	CALL(cuEventSynchronize);
	run_waiting();
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
	cu_result r = fate("cuStreamEndCapture");

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
	*ret = calloc(1, sizeof(**ret));
	list_init(&(*ret)->ops);
	for (const struct op *op = g->ops.first; op; op = op->next) {
		size_t args = op->kernel ? emu_arg_bytes(op->kernel) : 0;
		struct op *copy = malloc(sizeof(*op) + args);

		memcpy(copy, op, sizeof(*op) + args);
		list_add(&(*ret)->ops, copy);
	}
	return 0;
}

EXPORT cu_result cuGraphExecDestroy(cu_graph_exec g)
{
	run_waiting();
	list_clear(&g->ops);
	free(g);
	return 0;
}

EXPORT cu_result cuGraphLaunch(cu_graph_exec g, cu_stream s)
{
	CALL(cuGraphLaunch);
	if (s->capture)
		return INVALID;
	for (const struct op *op = g->ops.first; op; op = op->next)
		put(*op, op->args, op->kernel ? emu_arg_bytes(op->kernel) : 0);
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

EXPORT cu_result cuFuncSetAttribute(cu_function f, int attribute, int value)
{
	CALL(cuFuncSetAttribute);
	if (attribute != CU_FUNCTION_SHARED_BYTES || value < 0 || value > (int)SHARED_LIMIT)
		return INVALID;
	f->shared = (uint32_t)value;
	return 0;
}

EXPORT cu_result cuLaunchKernel(cu_function f, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
				unsigned by, unsigned bz, unsigned shared, cu_stream s,
				void **params, void **extra)
{
	(void)s;
	CALL(cuLaunchKernel);
	if (!gx || !gy || gz != 1 || gy > 65535 || !bx || by != 1 || bz != 1 || extra ||
	    bx > emu_max_threads(f->kernel) || shared > f->shared)
		return INVALID;
	return put((struct op){.kind = OP_LAUNCH,
			       .kernel = f->kernel,
			       .grid = {gx, gy, gz},
			       .threads = bx,
			       .shared = shared},
		   params[0], emu_arg_bytes(f->kernel));
}
