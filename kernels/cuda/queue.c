/* SPDX-License-Identifier: Apache-2.0 */
/*
 * queue.c - a step's launches, sent one by one or replayed as a graph.
 *
 * Between batch_set and record the operations write what they would launch into a list: kernel, grid,
 * arguments. What a step computes on stands in device memory at addresses that stay, and the sizes
 * that vary freely (units of attention) are read there by the kernels, so steps of the same number of
 * rows make the same list, byte by byte. A list that comes for the second time is captured into a
 * graph; from then on it is one call. A graph is used only for a list that equals its own copy: a
 * buffer that has moved, or another number of rows, is another list. There are at most CUDA_GRAPHS;
 * the one used longest ago makes way. Of a list that came once only its hash is kept, for a while, so
 * that prompts of all lengths push out no graph. A list's pointers may name memory that was freed and
 * given out again: then they name what they would name if sent one by one.
 *
 * A kernel of ours may begin before what stands before it in its list has ended (device.cuh). The first of a
 * list never does, nor what is launched outside of a step: before these there may be a transfer, an event or
 * a graph. So a ticket's mark comes when all before it is done, and results are there. Of a product by the
 * library we know that when its last kernel has ended, all before it has: whoever queues a transfer behind a
 * product relies on no more. In a graph these are edges of their own kind. A driver that refuses them, at
 * a launch, in a capture or when the graph is made, is not asked again, and the graph is made without.
 *
 * If making a graph fails for lack of memory, or a capture refuses what the list does (the library of
 * products may load a kernel, and no version says when), lists are sent one by one from then on.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.h"

#define MIN_LAUNCHES 8 /* shorter lists are not worth a graph */

static const char *const names[] = {
#define CUDA_KERNEL(name, file) #name,
	CUDA_KERNELS(CUDA_KERNEL)
#undef CUDA_KERNEL
};

/* Drivers refuse a capture, or what is in it, with errors of all kinds: -ECANCELED. What is really wrong
 * with the device is said again when the list is sent without one. */
static int check_captured(struct wk_backend *be, cu_result r, const char *call, const char *what)
{
	return r && r != CU_OUT_OF_MEMORY ? -ECANCELED : cuda_check(be, r, call, what);
}

static cu_result launch(struct wk_backend *be, const struct cuda_launch *l, const void *args,
			bool early)
{
	void *params[] = {(void *)(uintptr_t)args};
	struct cu_launch_attribute overlap = {.id = CU_LAUNCH_OVERLAP, .value = {.on = 1}};
	const struct cu_launch_config c = {.grid = {l->grid[0], l->grid[1], l->grid[2]},
					   .block = {l->block, 1, 1},
					   .shared_bytes = l->shared_bytes,
					   .stream = be->stream,
					   .attributes = &overlap,
					   .n_attributes = 1};

	/* What fails for another reason fails without it, too. */
	if (early && be->overlap) {
		if (!be->cu.launch_ex(&c, be->functions[l->kernel], params, NULL))
			return 0;
		be->overlap = false;
	}
	return be->cu.launch(be->functions[l->kernel], l->grid[0], l->grid[1], l->grid[2], l->block,
			     1, 1, l->shared_bytes, be->stream, params, NULL);
}

/* early: it is not the first of a list. */
static int send_one(struct wk_backend *be, const struct cuda_launch *l, const void *args,
		    bool early, bool captured)
{
	cu_result r;

	cuda_enter(be);
	if (l->kernel == K_COUNT) {
		int status = blas_run(be->blas, args, be->stream);

		if (status && captured) /* sent, it may succeed, or says the same again */
			return -ECANCELED;
		if (status)
			cuda_stick(be, EIO, "a product (cublasLtMatmul): status %d", status);
		return be->sticky;
	}
	r = launch(be, l, args, early);
	return captured ? check_captured(be, r, "launch", names[l->kernel])
			: cuda_check(be, r, "launch", names[l->kernel]);
}

static int reserve(struct wk_backend *be, size_t bytes)
{
	struct cuda_queue *q = &be->queue;
	size_t room = q->room ? q->room : 1 << 16;
	char *list;

	while (room < q->used + bytes)
		room *= 2;
	if (room == q->room)
		return 0;
	list = realloc(q->list, room);
	if (!list) {
		cuda_stick(be, ENOMEM, "no memory for a step's launches");
		return -ENOMEM;
	}
	q->list = list;
	q->room = room;
	return 0;
}

static void note(struct wk_backend *be, const struct cuda_launch *l, const void *args)
{
	struct cuda_queue *q = &be->queue;
	size_t bytes = (l->arg_bytes + 7u) & ~7u;

	if (be->sticky)
		return;
	if (!q->open) {
		int r = send_one(be, l, args, false, false);

		if (r)
			cuda_stick_last(be, r);
		return;
	}
	if (reserve(be, sizeof(*l) + bytes))
		return;
	/* The gap after the arguments is compared too. */
	memset(q->list + q->used, 0, sizeof(*l) + bytes);
	memcpy(q->list + q->used, l, sizeof(*l));
	memcpy(q->list + q->used + sizeof(*l), args, l->arg_bytes);
	q->used += sizeof(*l) + bytes;
	q->n++;
}

void cuda_launch(struct wk_backend *be, enum cuda_kernel k, uint32_t gx, uint32_t gy,
		 uint32_t block, uint32_t shared_bytes, const void *args, size_t arg_bytes)
{
	struct cuda_launch l;

	memset(&l, 0, sizeof(l));
	l.kernel = (uint16_t)k;
	l.arg_bytes = (uint16_t)arg_bytes;
	l.grid[0] = gx;
	l.grid[1] = gy;
	l.grid[2] = 1;
	l.block = block;
	l.shared_bytes = shared_bytes;
	note(be, &l, args);
}

void cuda_product(struct wk_backend *be, const struct blas_product *p)
{
	struct cuda_launch l;

	memset(&l, 0, sizeof(l));
	l.kernel = K_COUNT;
	l.arg_bytes = sizeof(*p);
	note(be, &l, p);
}

static int send_all(struct wk_backend *be, bool captured)
{
	const struct cuda_queue *q = &be->queue;
	bool early = false;
	int r = 0;

	for (size_t at = 0; !r && at < q->used;) {
		const struct cuda_launch *l = (const void *)(q->list + at);

		r = send_one(be, l, l + 1, early, captured);
		early = true;
		at += sizeof(*l) + ((l->arg_bytes + 7u) & ~7u);
	}
	return r;
}

/* --- graphs ------------------------------------------------------------------------------------------*/

static uint64_t hash_list(const struct cuda_queue *q)
{
	uint64_t h = q->used;

	/* The list is whole words. */
	for (size_t i = 0; i < q->used; i += 8) {
		uint64_t w;

		memcpy(&w, q->list + i, 8);
		h = (h ^ w) * 0x9E3779B97F4A7C15u;
		h ^= h >> 32;
	}
	return h;
}

static void graph_drop(struct wk_backend *be, struct cuda_graph *g)
{
	if (g->list)
		be->cu.graph_exec_free(g->exec);
	free(g->list);
	memset(g, 0, sizeof(*g));
}

static struct cuda_graph *graph_find(struct wk_backend *be, uint64_t hash)
{
	for (int i = 0; i < CUDA_GRAPHS; i++) {
		struct cuda_graph *g = &be->graphs[i];

		if (g->list && g->hash == hash && g->bytes == be->queue.used &&
		    !memcmp(g->list, be->queue.list, g->bytes))
			return g;
	}
	return NULL;
}

/* Whether a list of this hash has come before, lately; from now on it has. */
static bool seen(struct wk_backend *be, uint64_t hash)
{
	for (int i = 0; i < CUDA_SEEN; i++)
		if (be->seen[i] == hash)
			return true;
	be->seen[be->n_seen++ % CUDA_SEEN] = hash;
	return false;
}

/* The list as a graph. -ECANCELED: it was refused, and nothing is lost. */
static int capture(struct wk_backend *be, cu_graph_exec *ret)
{
	cu_graph graph = NULL;
	int r = cu_ok(be, capture_begin, "beginning a graph", be->stream, CU_CAPTURE_THREAD_LOCAL),
	    sent;

	if (r)
		return r;
	sent = send_all(be, true);
	r = check_captured(be, be->cu.capture_end(be->stream, &graph), "capture_end",
			   "ending a graph");
	r = sent ? sent : r;
	if (!r)
		r = check_captured(be, be->cu.graph_make(ret, graph, 0), "graph_make",
				   "making a graph");
	if (graph)
		be->cu.graph_free(graph);
	return r;
}

/* Refused, it is tried once more with launches that do not overlap: a graph is worth more than that. Where
 * it is refused still, or there is no memory: no graphs any more. *ret NULL: none was made. */
static int capture_or_not(struct wk_backend *be, cu_graph_exec *ret)
{
	bool overlap = be->overlap;
	int r = capture(be, ret);

	if (r == -ECANCELED && overlap) {
		be->overlap = false;
		r = capture(be, ret);
		/* That was not why. */
		be->overlap = r == -ECANCELED;
	}
	if (r != -ENOMEM && r != -ECANCELED)
		return r;
	*ret = NULL;
	be->graphs_on = false;
	return 0;
}

/* A graph of the list, in the place of the one used longest ago. *ret NULL: none was made. */
static int graph_add(struct wk_backend *be, uint64_t hash, struct cuda_graph **ret)
{
	struct cuda_graph *g = be->graphs, made = {.hash = hash, .bytes = be->queue.used};
	int r;

	*ret = NULL;
	made.list = malloc(made.bytes);
	if (!made.list)
		return 0;
	memcpy(made.list, be->queue.list, made.bytes);
	r = capture_or_not(be, &made.exec);
	if (r || !made.exec) {
		free(made.list);
		return r;
	}
	for (int i = 1; i < CUDA_GRAPHS; i++)
		if (be->graphs[i].last_used < g->last_used)
			g = &be->graphs[i];
	graph_drop(be, g);
	*g = made;
	*ret = g;
	return 0;
}

static int send(struct wk_backend *be)
{
	struct cuda_graph *g;
	uint64_t hash;
	int r = 0;

	if (!be->graphs_on || be->queue.n < MIN_LAUNCHES)
		return send_all(be, false);
	hash = hash_list(&be->queue);
	g = graph_find(be, hash);
	if (!g && seen(be, hash))
		r = graph_add(be, hash, &g);
	if (r || !g)
		return r ? r : send_all(be, false);
	g->last_used = ++be->graph_clock;
	return cu_ok(be, graph_launch, "launching a graph", g->exec, be->stream);
}

void cuda_flush(struct wk_backend *be)
{
	int r = be->queue.used && !be->sticky ? send(be) : 0;

	/* Without memory for a launch: the step cannot be finished, and its caller has gone on. */
	if (r)
		cuda_stick_last(be, r);
	be->queue.used = 0;
	be->queue.n = 0;
}

void cuda_queue_fini(struct wk_backend *be)
{
	for (int i = 0; i < CUDA_GRAPHS; i++)
		graph_drop(be, &be->graphs[i]);
	free(be->queue.list);
	memset(&be->queue, 0, sizeof(be->queue));
}
