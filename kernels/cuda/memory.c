/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory.c - device memory: buffers, the pool, and transfers.
 *
 * A small buffer is a plain allocation. A large one (the pool is the largest) is an address range with
 * physical memory mapped into it: it can be of any size that is free, without the allocator's
 * rounding and without a copy of it in the allocator's books.
 *
 * Transfers go through two pinned pieces in turn: while one travels the other is filled.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.h"

#define MAP_FROM_BYTES ((size_t)4 << 20)
#define STAGING_BYTES  ((size_t)16 << 20)

/* --- buffers -----------------------------------------------------------------------------------------*/

/* buf->bytes are those of the range. */
static void unmap(struct wk_backend *be, struct wk_buf *buf)
{
	if (buf->mapped)
		be->cu.mem_unmap(buf->at, buf->mapped);
	if (buf->memory)
		be->cu.mem_release(buf->memory);
	if (buf->at)
		be->cu.mem_unreserve(buf->at, buf->bytes);
}

/* Reserve, create, map, allow: undone in reverse if any of it fails. */
static int map(struct wk_backend *be, struct wk_buf *buf, const char *what)
{
	const struct cu_memory_prop prop = {.type = 1, .location = {1, be->device}};
	const struct cu_access access = {{1, be->device}, 3};
	size_t unit = 0, bytes = 0;
	int r = cu_ok(be, mem_granularity, what, &unit, &prop, 0);

	if (!r)
		bytes = (buf->bytes + unit - 1) / unit * unit;
	r = r ? r : cu_ok(be, mem_create, what, &buf->memory, bytes, &prop, 0);
	r = r ? r : cu_ok(be, mem_reserve, what, &buf->at, bytes, 0, 0, 0);
	r = r ? r : cu_ok(be, mem_map, what, buf->at, bytes, 0, buf->memory, 0);
	if (!r)
		buf->mapped = bytes;
	r = r ? r : cu_ok(be, mem_access, what, buf->at, bytes, &access, 1);
	if (!r)
		return 0;
	buf->bytes = bytes;
	unmap(be, buf);
	return r;
}

static int take(struct wk_backend *be, struct wk_buf *buf)
{
	char what[64];

	snprintf(what, sizeof(what), "a buffer of %zu bytes", buf->bytes);
	if (buf->bytes >= MAP_FROM_BYTES)
		return map(be, buf, what);
	return cu_ok(be, mem_alloc, what, &buf->at, buf->bytes ? buf->bytes : 1);
}

static void give_back(struct wk_backend *be, struct wk_buf *buf)
{
	if (buf->mapped) {
		buf->bytes = buf->mapped;
		unmap(be, buf);
	} else {
		be->cu.mem_free(buf->at);
	}
}

int cuda_buf_new(struct wk_backend *be, size_t bytes, struct wk_buf **ret)
{
	struct wk_buf *buf = calloc(1, sizeof(*buf));
	int r;

	if (!buf)
		return cuda_fail(be, ENOMEM, "no memory for a buffer's description");
	buf->bytes = bytes;
	r = take(be, buf);
	if (!r && bytes) {
		r = cu_ok(be, fill, "clearing a buffer", buf->at, 0, bytes, be->stream);
		if (r)
			give_back(be, buf);
	}
	if (r) {
		free(buf);
		return r;
	}
	*ret = buf;
	return 0;
}

void cuda_buf_free(struct wk_backend *be, struct wk_buf *buf)
{
	if (!buf)
		return;
	if (be->pool == buf)
		be->pool = NULL;
	/* Work that uses it may still be on the stream; a failure is found by the next call. */
	cuda_drain(be);
	cuda_copies_settle(be);
	give_back(be, buf);
	free(buf);
}

int cuda_reserve(struct wk_backend *be, struct wk_buf **buf, size_t bytes)
{
	size_t have = *buf ? (*buf)->bytes : 0;
	int r;

	if (bytes <= have)
		return 0;
	/* Room for twice as much, so that it seldom happens. */
	if (have && bytes < 2 * have)
		bytes = 2 * have;
	cuda_flush(be);
	cuda_buf_free(be, *buf);
	*buf = NULL;
	r = cuda_buf_new(be, bytes, buf);
	if (r) /* the old one is gone */
		cuda_stick_last(be, r);
	return r;
}

int cuda_shared_reserve(struct wk_backend *be, struct cuda_shared *s, size_t bytes)
{
	int r;

	if (bytes <= s->bytes)
		return 0;
	if (s->bytes && bytes < 2 * s->bytes)
		bytes = 2 * s->bytes;
	/* A step that is queued may use what there is. */
	r = s->bytes ? cuda_drain(be) : be->sticky;
	if (r)
		return r;
	cuda_shared_free(be, s);
	r = cu_ok(be, host_alloc, "pinned memory", &s->host, bytes,
		  CU_HOST_PORTABLE | CU_HOST_MAPPED);
	r = r ? r : cu_ok(be, host_address, "pinned memory", &s->device, s->host, 0);
	if (r) {
		cuda_shared_free(be, s);
		return r;
	}
	memset(s->host, 0, bytes);
	s->bytes = bytes;
	return 0;
}

void cuda_shared_free(struct wk_backend *be, struct cuda_shared *s)
{
	if (s->host)
		be->cu.host_free(s->host);
	memset(s, 0, sizeof(*s));
}

/* --- transfers ---------------------------------------------------------------------------------------*/

/* Pieces for a transfer of so many bytes, up to STAGING_BYTES and at least one unit each. */
static int staging_start(struct wk_backend *be, size_t bytes, size_t unit)
{
	size_t most = unit > STAGING_BYTES ? unit : STAGING_BYTES;
	int r = 0;

	bytes = bytes < most ? bytes : most;
	for (int i = 0; !r && i < 2; i++) {
		r = cuda_shared_reserve(be, &be->staging[i], bytes);
		if (!r && !be->staged[i])
			r = cu_ok(be, event_new, "an event", &be->staged[i], CU_EVENT_NO_TIMING);
	}
	return r;
}

int cuda_upload(struct wk_backend *be, cu_ptr to, size_t bytes, size_t unit, cuda_fill_fn fill,
		void *arg)
{
	int r = staging_start(be, bytes, unit);
	/* They differ after one of them could not grow. */
	size_t least = be->staging[0].bytes < be->staging[1].bytes ? be->staging[0].bytes
								   : be->staging[1].bytes;
	size_t step = least / unit * unit;

	cuda_flush(be);
	for (size_t off = 0, i = 0; !r && off < bytes; off += step, i ^= 1) {
		size_t n = bytes - off < step ? bytes - off : step;

		/* An event that was never recorded is done. */
		r = cu_ok(be, event_wait, "a transfer", be->staged[i]);
		r = r ? r : fill(arg, off, be->staging[i].host, n);
		r = r ? r
		      : cu_ok(be, copy_to, "a transfer to the device", to + off,
			      be->staging[i].host, n, be->stream);
		r = r ? r : cu_ok(be, event_record, "a transfer", be->staged[i], be->stream);
	}
	/* The pieces are reused by whoever comes next, who may not look at the events. */
	return r ? r : cuda_drain(be);
}

static int check_range(struct wk_backend *be, const struct wk_buf *buf, size_t off, size_t bytes)
{
	if (off <= buf->bytes && bytes <= buf->bytes - off)
		return 0;
	return cuda_fail(be, EINVAL, "%zu bytes at %zu do not lie in a buffer of %zu", bytes, off,
			 buf->bytes);
}

static int copy_from_host(void *arg, size_t off, void *dst, size_t bytes)
{
	memcpy(dst, (const char *)arg + off, bytes);
	return 0;
}

int cuda_buf_write(struct wk_backend *be, struct wk_buf *buf, size_t off, const void *src,
		   size_t bytes)
{
	int r = check_range(be, buf, off, bytes);

	if (r || !bytes)
		return r;
	return cuda_upload(be, buf->at + off, bytes, 1, copy_from_host, (void *)(uintptr_t)src);
}

int cuda_buf_read(struct wk_backend *be, const struct wk_buf *buf, size_t off, void *dst,
		  size_t bytes)
{
	int r = check_range(be, buf, off, bytes);

	r = r ? r : staging_start(be, bytes, 1);
	cuda_flush(be);
	for (size_t at = 0; !r && at < bytes; at += be->staging[0].bytes) {
		size_t n = bytes - at < be->staging[0].bytes ? bytes - at : be->staging[0].bytes;

		r = cu_ok(be, copy_from, "a transfer from the device", be->staging[0].host,
			  buf->at + off + at, n, be->stream);
		r = r ? r : cuda_drain(be);
		if (!r)
			memcpy((char *)dst + at, be->staging[0].host, n);
	}
	return r;
}
