/* SPDX-License-Identifier: Apache-2.0 */
/*
 * copies.c - whole blocks between the pool and pinned host memory, on a stream of their own.
 *
 * Two events tie that stream to the one that computes. A call first records `before` on the latter and
 * has the former wait for it: a copy begins when all that was queued earlier has ended. A copy in then
 * has the computing stream wait for its own end; a copy out does not, and what the caller owes for that
 * is in kernels/backend.h. A wait means the event as it was recorded last when the wait was queued, so
 * one `before` serves all calls. The end of each call is an event too, one of WK_MAX_COPIES that are
 * used in turn: tickets are done in their order, so the oldest that is not is all there is to ask for.
 *
 * A call is one call of the driver where that can copy a batch (12.8 and newer), else one for each run
 * of blocks: blocks that follow one another in the list, in the pool and in host memory travel as one.
 * Sources are read in stream order: with any other order a block could be read before it is written.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/cuda/cuda.h"

/* --- open and close ----------------------------------------------------------------------------------*/

static int choose_batches(const struct wk_backend *be)
{
	const char *text = getenv("WEFT_CUDA_BATCH");
	int most = text && *text ? atoi(text) : 2;

	if (be->cu.copy_batch && most > 1)
		return 2;
	return be->cu.copy_batch_12 && most > 0;
}

int cuda_copies_init(struct wk_backend *be)
{
	struct cuda_copies *c = &be->copies;
	int r = cu_ok(be, stream_new, "making a stream for copies", &c->stream, CU_STREAM_ASYNC);

	r = r ? r : cu_ok(be, event_new, "an event", &c->before, CU_EVENT_NO_TIMING);
	/* Whoever waits for gigabytes sleeps. */
	for (int i = 0; !r && i < WK_MAX_COPIES; i++)
		r = cu_ok(be, event_new, "an event", &c->done[i],
			  CU_EVENT_NO_TIMING | CU_EVENT_BLOCKING);
	c->batches = choose_batches(be);
	return r;
}

void cuda_copies_settle(struct wk_backend *be)
{
	if (be->copies.finished == be->copies.ticket)
		return;
	cuda_enter(be);
	be->cu.stream_wait(be->copies.stream);
}

void cuda_copies_fini(struct wk_backend *be)
{
	struct cuda_copies *c = &be->copies;

	if (c->stream)
		be->cu.stream_wait(c->stream);
	for (int i = 0; i < WK_MAX_COPIES; i++)
		if (c->done[i])
			be->cu.event_free(c->done[i]);
	if (c->before)
		be->cu.event_free(c->before);
	if (c->stream)
		be->cu.stream_free(c->stream);
	while (c->hosts) {
		struct cuda_host *h = c->hosts;

		c->hosts = h->next;
		free(h);
	}
	free(c->to);
	free(c->from);
	free(c->bytes);
	*c = (struct cuda_copies){0};
}

/* --- host memory -------------------------------------------------------------------------------------*/

int cuda_host_new(struct wk_backend *be, size_t bytes, void **ret)
{
	struct cuda_host *h = calloc(1, sizeof(*h));
	void *at = NULL;
	char what[64];
	int r;

	if (!h)
		return cuda_fail(be, ENOMEM, "no memory for a description of pinned memory");
	snprintf(what, sizeof(what), "%zu bytes of pinned memory", bytes);
	r = cu_ok(be, host_alloc, what, &at, bytes ? bytes : 1, CU_HOST_PORTABLE);
	if (r) {
		free(h);
		return r;
	}
	*h = (struct cuda_host){be->copies.hosts, at, bytes};
	be->copies.hosts = h;
	*ret = at;
	return 0;
}

void cuda_host_free(struct wk_backend *be, void *host, size_t bytes)
{
	struct cuda_host **at = &be->copies.hosts, *gone;

	while (host && *at && (*at)->at != host)
		at = &(*at)->next;
	gone = host ? *at : NULL;
	if (!gone)
		return;
	cuda_copies_settle(be);
	cuda_enter(be);
	be->cu.host_free(host);
	*at = gone->next;
	free(gone);
}

static bool within(const struct cuda_host *h, const char *p, size_t bytes)
{
	return h && p >= h->at && bytes <= h->bytes && (size_t)(p - h->at) <= h->bytes - bytes;
}

/* The memory that has a block's place, or NULL; most often it is `last`. */
static const struct cuda_host *host_of(const struct wk_backend *be, const void *place,
				       const struct cuda_host *last)
{
	const struct cuda_host *h = last;

	if (within(h, place, be->block_bytes))
		return h;
	for (h = be->copies.hosts; h && !within(h, place, be->block_bytes);)
		h = h->next;
	return h;
}

/* --- tickets -----------------------------------------------------------------------------------------*/

/* See how far they are. 0 or the sticky error. */
static int look(struct wk_backend *be)
{
	struct cuda_copies *c = &be->copies;

	cuda_enter(be);
	while (!be->sticky && c->finished < c->ticket) {
		cu_result r = be->cu.event_query(c->done[(c->finished + 1) % WK_MAX_COPIES]);

		if (r == CU_NOT_READY)
			break;
		r = cuda_check(be, r, "event_query", "copies of blocks");
		if (r)
			cuda_stick_last(be, r);
		else
			c->finished++;
	}
	return be->sticky;
}

static int never_given(struct wk_backend *be)
{
	return cuda_fail(be, EINVAL, "a copy's ticket that was never given out");
}

int cuda_copy_query(struct wk_backend *be, uint64_t ticket)
{
	if (be->sticky)
		return be->sticky;
	if (ticket > be->copies.ticket)
		return never_given(be);
	return look(be) ? be->sticky : be->copies.finished >= ticket;
}

int cuda_copy_wait(struct wk_backend *be, uint64_t ticket)
{
	struct cuda_copies *c = &be->copies;
	int r;

	if (be->sticky)
		return be->sticky;
	if (ticket > c->ticket)
		return never_given(be);
	if (ticket <= c->finished)
		return 0;
	r = cu_ok(be, event_wait, "copies of blocks", c->done[ticket % WK_MAX_COPIES]);
	if (r)
		cuda_stick_last(be, r);
	else
		c->finished = ticket;
	return r;
}

/* --- a call ------------------------------------------------------------------------------------------*/

static int check(struct wk_backend *be, const struct wk_buf *pool,
		 const struct wk_block_copy *copies, uint32_t n)
{
	const struct cuda_host *h = NULL;

	if (be->sticky)
		return be->sticky;
	if (!be->n_blocks || pool != be->pool)
		return cuda_fail(be, EINVAL, "copies of blocks of a pool that is not bound");
	for (uint32_t i = 0; i < n; i++) {
		if (copies[i].block >= be->n_blocks)
			return cuda_fail(be, EINVAL, "a copy of block %u of %u", copies[i].block,
					 be->n_blocks);
		h = host_of(be, copies[i].host, h);
		if (!h)
			return cuda_fail(be, EINVAL, "a copy of block %u: not in pinned memory",
					 copies[i].block);
	}
	return 0;
}

static int reserve(struct wk_backend *be, uint32_t n)
{
	struct cuda_copies *c = &be->copies;
	uint32_t room = c->room ? c->room : 64;

	while (room < n)
		room *= 2;
	if (room == c->room)
		return 0;
	free(c->to);
	free(c->from);
	free(c->bytes);
	c->to = malloc(room * sizeof(*c->to));
	c->from = malloc(room * sizeof(*c->from));
	c->bytes = malloc(room * sizeof(*c->bytes));
	c->room = c->to && c->from && c->bytes ? room : 0;
	return c->room ? 0 : cuda_fail(be, ENOMEM, "no memory for a list of %u copies", n);
}

/* How many copies a list comes to. One that reached from one piece of pinned memory into another, which
 * may adjoin it, would be refused. */
static uint32_t join(struct wk_backend *be, const struct wk_block_copy *copies, uint32_t n,
		     bool out)
{
	const struct cuda_host *last = NULL;
	struct cuda_copies *c = &be->copies;
	uint32_t runs = 0;

	for (uint32_t i = 0; i < n; i++) {
		const struct cuda_host *h = host_of(be, copies[i].host, last);
		cu_ptr device = be->pool->at + (uint64_t)copies[i].block * be->block_bytes;
		cu_ptr host = (cu_ptr)(uintptr_t)copies[i].host;
		cu_ptr to = out ? host : device, from = out ? device : host;

		if (runs && h == last && c->to[runs - 1] + c->bytes[runs - 1] == to &&
		    c->from[runs - 1] + c->bytes[runs - 1] == from) {
			c->bytes[runs - 1] += be->block_bytes;
			continue;
		}
		last = h;
		c->to[runs] = to;
		c->from[runs] = from;
		c->bytes[runs++] = be->block_bytes;
	}
	return runs;
}

static int send_singly(struct wk_backend *be, uint32_t runs, bool out, const char *what)
{
	struct cuda_copies *c = &be->copies;
	int r = 0;

	for (uint32_t i = 0; !r && i < runs; i++)
		r = out ? cu_ok(be, copy_from, what, (void *)(uintptr_t)c->to[i], c->from[i],
				c->bytes[i], c->stream)
			: cu_ok(be, copy_to, what, c->to[i], (const void *)(uintptr_t)c->from[i],
				c->bytes[i], c->stream);
	return r;
}

static int send(struct wk_backend *be, uint32_t runs, bool out, const char *what)
{
	const struct cu_copy_attributes a = {.source_order = CU_SOURCE_IN_STREAM_ORDER,
					     .flags = CU_COPY_BESIDE_COMPUTE};
	struct cuda_copies *c = &be->copies;
	size_t first = 0, failed = 0;
	cu_result r;

	if (!c->batches)
		return send_singly(be, runs, out, what);
	cuda_enter(be);
	r = c->batches == 2
		    ? be->cu.copy_batch(c->to, c->from, c->bytes, runs, &a, &first, 1, c->stream)
		    : be->cu.copy_batch_12(c->to, c->from, c->bytes, runs, &a, &first, 1, &failed,
					   c->stream);
	if (r != CU_NOT_SUPPORTED)
		return cuda_check(be, r, "copy_batch", what);
	/* There, but not for this device. */
	c->batches = 0;
	return send_singly(be, runs, out, what);
}

static int copy(struct wk_backend *be, const struct wk_block_copy *copies, uint32_t n, bool out,
		uint64_t *ret_ticket)
{
	struct cuda_copies *c = &be->copies;
	uint64_t ticket = c->ticket + 1;
	cu_event done = c->done[ticket % WK_MAX_COPIES];
	char what[80];
	int r = look(be);

	snprintf(what, sizeof(what), "a copy of %u blocks %s, the first of them %u", n,
		 out ? "to the host" : "to the device", copies[0].block);
	if (!r && ticket - c->finished > WK_MAX_COPIES)
		return cuda_fail(be, EAGAIN, "%d copies are under way", WK_MAX_COPIES);
	r = r ? r : reserve(be, n);
	if (r)
		return r;
	/* Those of an open step that were noted so far; the others follow with its end. */
	cuda_flush(be);
	r = be->sticky;
	r = r ? r : cu_ok(be, event_record, what, c->before, be->stream);
	r = r ? r : cu_ok(be, stream_wait_for, what, c->stream, c->before, 0);
	if (r)
		return r;
	r = send(be, join(be, copies, n, out), out, what);
	r = r ? r : cu_ok(be, event_record, what, done, c->stream);
	if (!out)
		r = r ? r : cu_ok(be, stream_wait_for, what, be->stream, done, 0);
	/* Some of it may be on its way, and nobody has a ticket for it. */
	if (r)
		cuda_stick_last(be, r);
	c->ticket = ticket;
	if (!r)
		*ret_ticket = ticket;
	return r;
}

int cuda_kv_copy_out(struct wk_backend *be, const struct wk_buf *pool,
		     const struct wk_block_copy *copies, uint32_t n, uint64_t *ret_ticket)
{
	int r = check(be, pool, copies, n);

	if (!r && n)
		return copy(be, copies, n, true, ret_ticket);
	if (!r)
		*ret_ticket = be->copies.ticket;
	return r;
}

int cuda_kv_copy_in(struct wk_backend *be, struct wk_buf *pool, const struct wk_block_copy *copies,
		    uint32_t n, uint64_t *ret_ticket)
{
	int r = check(be, pool, copies, n);

	if (!r && n)
		return copy(be, copies, n, false, ret_ticket);
	if (!r)
		*ret_ticket = be->copies.ticket;
	return r;
}
