/* SPDX-License-Identifier: Apache-2.0 */
/*
 * emulate.cc - fibers for the threads of a block (see emulate.cuh). One block at a time, on the
 * thread that calls; x86-64.
 */
#include "tests/cuda/fake/emulate.cuh"

#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>

#include "tests/cuda/fake/emulate.h"
#include "tests/cuda/fake/emulate_block.h"

#define MAX_THREADS EMU_MAX_THREADS
#define STACK_BYTES (256u << 10)
#define SHARED_MAX  (256u << 10)
/* A kernel's shared memory does not begin where addresses do, nor aligned to more than 16 bytes. */
#define SHARED_FROM (1024u + 16)

struct emu_dim threadIdx, blockIdx, blockDim, gridDim;
uint8_t *emu_shared_bytes, *emu_window;

/* --- kernels -----------------------------------------------------------------------------------------*/

static struct emu_kernel *kernels;

emu_registrar::emu_registrar(struct emu_kernel *k)
{
	k->next = kernels;
	kernels = k;
}

const struct emu_kernel *emu_find(const char *name)
{
	for (struct emu_kernel *k = kernels; k; k = k->next)
		if (!strcmp(k->name, name))
			return k;
	return nullptr;
}

long emu_runs(const struct emu_kernel *k)
{
	return k->runs;
}

uint32_t emu_arg_bytes(const struct emu_kernel *k)
{
	return k->arg_bytes;
}

int emu_is_early(const struct emu_kernel *k)
{
	return k->early;
}

uint32_t emu_max_threads(const struct emu_kernel *k)
{
	return k->max_threads;
}

/* --- fibers ------------------------------------------------------------------------------------------*/

/* Saves the callee's registers on the stack, keeps its top in *from and goes on at `to`. */
extern "C" void emu_switch(void **from, void *to);
__asm__(".text\n.globl emu_switch\n.hidden emu_switch\n.type emu_switch, @function\nemu_switch:\n"
	"	push %rbp\n	push %rbx\n	push %r12\n	push %r13\n	push %r14\n	"
	"push %r15\n"
	"	mov %rsp, (%rdi)\n	mov %rsi, %rsp\n"
	"	pop %r15\n	pop %r14\n	pop %r13\n	pop %r12\n	pop %rbx\n	"
	"pop %rbp\n"
	"	ret\n.size emu_switch, .-emu_switch\n");

struct warp {
	uint32_t alive, arrived, round;
	uint8_t slot[2][32][32];
};

struct meeting {
	uint32_t arrived, round;
};

static struct {
	const struct emu_kernel *kernel;
	const void *args;
	char *stacks;
	void *stack[MAX_THREADS], *caller;
	uint32_t exchanges[MAX_THREADS];
	bool over[MAX_THREADS], waited[MAX_THREADS];
	bool early_only;
	uint64_t digest; /* of what was read before the wait */
	struct warp warps[MAX_THREADS / 32];
	struct meeting groups[MAX_THREADS / 128], named[16];
	uint32_t now, n, alive, arrived, round, idle, shared_bytes;
} emu;

static void stuck(void)
{
	fprintf(stderr, "kernel %s: not all threads of block %u, %u reach a barrier\n",
		emu.kernel->name, blockIdx.x, blockIdx.y);
	abort();
}

/* Go on with the next fiber that is not over. */
static void yield(void)
{
	uint32_t me = emu.now, next = me;

	do
		next = next + 1 == emu.n ? 0 : next + 1;
	while (emu.over[next] && next != me);
	if (++emu.idle > 4 * emu.n)
		stuck();
	if (next == me)
		return;
	emu.now = next;
	threadIdx.x = next;
	emu_switch(&emu.stack[me], emu.stack[next]);
}

static void block_arrived(void)
{
	if (emu.arrived < emu.alive || !emu.arrived)
		return;
	emu.arrived = 0;
	emu.round++;
	emu.idle = 0;
}

static void warp_arrived(struct warp *w)
{
	if (w->arrived < w->alive || !w->arrived)
		return;
	w->arrived = 0;
	w->round++;
	emu.idle = 0;
}

void emu_sync_block(void)
{
	uint32_t round = emu.round;

	emu.arrived++;
	block_arrived();
	while (emu.round == round)
		yield();
}

void emu_sync_warp(void)
{
	struct warp *w = &emu.warps[emu.now / 32];
	uint32_t round = w->round;

	w->arrived++;
	warp_arrived(w);
	while (w->round == round)
		yield();
}

static void meet(struct meeting *m, uint32_t group, void (*fn)(uint32_t group))
{
	uint32_t round = m->round;

	if (++m->arrived == 128) {
		if (fn)
			fn(group);
		m->arrived = 0;
		m->round++;
		emu.idle = 0;
	}
	while (m->round == round)
		yield();
}

void emu_sync_group(uint32_t id)
{
	meet(&emu.named[id % 16], 0, nullptr);
}

void emu_meet(uint32_t group, void (*fn)(uint32_t group))
{
	meet(&emu.groups[group], group, fn);
}

void emu_yield(void)
{
	yield();
}

void emu_went_on(void)
{
	emu.idle = 0;
}

uint32_t emu_window_bytes(void)
{
	return SHARED_FROM + emu.shared_bytes;
}

const char *emu_kernel_name(void)
{
	return emu.kernel->name;
}

const uint8_t *emu_exchange(const void *mine, uint32_t bytes)
{
	struct warp *w = &emu.warps[emu.now / 32];
	/* Two places in turn: nobody writes to one before all have read it and come to the other. */
	uint32_t turn = emu.exchanges[emu.now]++ % 2;

	memcpy(w->slot[turn][emu.now % 32], mine, bytes);
	emu_sync_warp();
	return w->slot[turn][0];
}

/* This thread has come to its end, wherever that is: its stack is not gone back to. */
[[noreturn]] static void end(void)
{
	uint32_t me = emu.now;
	struct warp *w = &emu.warps[me / 32];

	emu.over[me] = true;
	emu.idle = 0;
	w->alive--;
	emu.alive--;
	/* Whoever waits for this one waits no longer. */
	warp_arrived(w);
	block_arrived();
	if (!emu.alive)
		emu_switch(&emu.stack[me], emu.caller);
	yield();
	abort();
}

static void blame(const char *what)
{
	fprintf(stderr, "kernel %s: a thread %s without having waited for the launch before\n",
		emu.kernel->name, what);
	abort();
}

static void fiber(void)
{
	emu.kernel->body(emu.args);
	if (!emu.waited[emu.now])
		blame("ends");
	emu_hopper_thread_end();
	end();
}

void emu_waits(void)
{
	emu.waited[emu.now] = true;
	if (emu.early_only)
		end();
}

void emu_need_not_wait(void)
{
	emu.waited[emu.now] = true;
}

void emu_must_have_waited(void)
{
	if (!emu.waited[emu.now])
		blame("copies");
}

void emu_reads_early(const void *from, uint32_t bytes)
{
	const uint8_t *p = (const uint8_t *)from;

	for (uint32_t i = 0; i < bytes; i++)
		emu.digest = (emu.digest ^ p[i]) * 0x100000001b3u;
}

static void fiber_start(uint32_t i)
{
	void **top = (void **)(emu.stacks + (size_t)(i + 1) * STACK_BYTES);

	/* A return address for fiber() to be entered by, aligned as a call leaves it. */
	*--top = nullptr;
	*--top = (void *)fiber;
	for (int r = 0; r < 6; r++)
		*--top = nullptr;
	emu.stack[i] = top;
	emu.exchanges[i] = 0;
	emu.over[i] = false;
	emu.waited[i] = false;
}

static void run_block(void)
{
	memset(emu.warps, 0, sizeof(emu.warps));
	memset(emu.groups, 0, sizeof(emu.groups));
	memset(emu.named, 0, sizeof(emu.named));
	emu_hopper_begin();
	for (uint32_t i = 0; i < emu.n; i++) {
		fiber_start(i);
		emu.warps[i / 32].alive++;
	}
	emu.alive = emu.n;
	emu.arrived = emu.idle = 0;
	emu.now = 0;
	threadIdx = {0, 0, 0};
	/* What a block before has left must not be what this one relies on. */
	memset(emu_shared_bytes, 0xff, emu.shared_bytes);
	emu_switch(&emu.caller, emu.stack[0]);
	emu_hopper_end();
}

static uint64_t run(const struct emu_kernel *k, const uint32_t grid[3], uint32_t threads,
		    uint32_t shared_bytes, const void *args, bool early_only)
{
	emu.early_only = early_only;
	emu.digest = 0xcbf29ce484222325u;
	emu.shared_bytes = shared_bytes;
	if (!emu.stacks) {
		emu.stacks = (char *)mmap(nullptr, (size_t)MAX_THREADS * STACK_BYTES,
					  PROT_READ | PROT_WRITE,
					  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		emu_window = (uint8_t *)aligned_alloc(1024, SHARED_MAX);
		if (emu.stacks == MAP_FAILED || !emu_window)
			abort();
		emu_shared_bytes = emu_window + SHARED_FROM;
	}
	emu.kernel = k;
	emu.args = args;
	emu.n = threads;
	blockDim = {threads, 1, 1};
	gridDim = {grid[0], grid[1], grid[2]};
	for (uint32_t y = 0; y < grid[1]; y++)
		for (uint32_t x = 0; x < grid[0]; x++) {
			blockIdx = {x, y, 0};
			run_block();
		}
	return emu.digest;
}

uint64_t emu_run(const struct emu_kernel *k, const uint32_t grid[3], uint32_t threads,
		 uint32_t shared_bytes, const void *args)
{
	k->runs++;
	return run(k, grid, threads, shared_bytes, args, false);
}

uint64_t emu_run_early(const struct emu_kernel *k, const uint32_t grid[3], uint32_t threads,
		       uint32_t shared_bytes, const void *args)
{
	return run(k, grid, threads, shared_bytes, args, true);
}
