/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run.c - what every part of a run uses: its first error, its limits, its arena, and buffers.
 *
 * The arena is a list of chunks that is freed as a whole. Buffers are on the heap, because they grow;
 * both count as the run's memory.
 */
#include "libclient/text/template/template.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_CHUNK 16384u
#define LAST_CHUNK  (1u << 20)

/* --- errors and limits ---------------------------------------------------------------------------*/

static int fail(struct wj *m, int code, const char *fmt, va_list ap)
{
	if (!m->code) {
		m->code = code;
		m->failed_line = m->line;
		vsnprintf(m->message, sizeof(m->message), fmt, ap);
	}
	return code;
}

int wj_fail(struct wj *m, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fail(m, code, fmt, ap);
	va_end(ap);
	return code;
}

struct wj_value wj_refuse(struct wj *m, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fail(m, -EOPNOTSUPP, fmt, ap);
	va_end(ap);
	return wj_none();
}

struct wj_value wj_raise(struct wj *m, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fail(m, -EINVAL, fmt, ap);
	va_end(ap);
	return wj_none();
}

bool wj_step(struct wj *m, size_t steps)
{
	m->steps += steps;
	if (m->steps > WJ_MAX_STEPS)
		wj_fail(m, -E2BIG, "more than %u steps", WJ_MAX_STEPS);
	return !m->code;
}

bool wj_enter(struct wj *m, uint32_t limit)
{
	if (++m->depth > limit)
		wj_fail(m, -ELOOP, "nested more than %u deep", limit);
	return !m->code;
}

static bool may_hold(struct wj *m, size_t more)
{
	if (m->code)
		return false;
	if (more > WJ_MAX_MEMORY || m->memory > WJ_MAX_MEMORY - more) {
		wj_fail(m, -E2BIG, "more than %u MiB of memory", WJ_MAX_MEMORY >> 20);
		return false;
	}
	return true;
}

/* --- the arena -----------------------------------------------------------------------------------*/

static struct wj_chunk *chunk_new(struct wj *m, size_t bytes)
{
	size_t room = m->chunks ? 2 * m->chunks->room : FIRST_CHUNK;
	struct wj_chunk *c;

	if (room > LAST_CHUNK)
		room = LAST_CHUNK;
	if (room < bytes)
		room = bytes;
	if (!may_hold(m, room))
		return NULL;
	c = malloc(sizeof(*c) + room);
	if (!c) {
		wj_fail(m, -ENOMEM, "out of memory");
		return NULL;
	}
	*c = (struct wj_chunk){.next = m->chunks, .room = room};
	m->chunks = c;
	m->memory += room;
	return c;
}

void *wj_alloc(struct wj *m, size_t bytes)
{
	struct wj_chunk *c = m->chunks;
	void *p;

	if (bytes > WJ_MAX_MEMORY) {
		may_hold(m, bytes);
		return NULL;
	}
	bytes = (bytes + 15) & ~(size_t)15;
	if (!c || c->room - c->n < bytes) {
		c = chunk_new(m, bytes);
		if (!c)
			return NULL;
	}
	p = c->p + c->n;
	c->n += bytes;
	return p;
}

bool wj_grow(struct wj *m, void *items, size_t n, uint32_t *room, size_t item_bytes)
{
	uint32_t more = *room ? 2 * *room : 4;
	void *old, *p;

	if (n < *room)
		return true;
	if (*room > UINT32_MAX / 4)
		return wj_fail(m, -E2BIG, "too many items") == 0;
	p = wj_alloc(m, more * item_bytes);
	if (!p)
		return false;
	/* items is a pointer to a pointer of some type. */
	memcpy(&old, items, sizeof(old));
	if (n)
		memcpy(p, old, n * item_bytes);
	memcpy(items, &p, sizeof(p));
	*room = more;
	return true;
}

void wj_fini(struct wj *m)
{
	while (m->chunks) {
		struct wj_chunk *next = m->chunks->next;

		m->memory -= m->chunks->room;
		free(m->chunks);
		m->chunks = next;
	}
}

/* --- buffers -------------------------------------------------------------------------------------*/

static bool buf_grow(struct wj *m, struct wj_buf *b, size_t more)
{
	size_t room = b->room ? b->room : 128;
	char *p;

	if (more > WEFT_TEMPLATE_MAX_OUTPUT - b->n) {
		wj_fail(m, -E2BIG, "a text of more than %u MiB", WEFT_TEMPLATE_MAX_OUTPUT >> 20);
		return false;
	}
	while (room - b->n < more)
		room *= 2;
	if (!may_hold(m, room - b->room))
		return false;
	p = realloc(b->p, room);
	if (!p) {
		wj_fail(m, -ENOMEM, "out of memory");
		return false;
	}
	m->memory += room - b->room;
	b->p = p;
	b->room = room;
	return true;
}

bool wj_buf_add(struct wj *m, struct wj_buf *b, const char *p, size_t n)
{
	if (b->room - b->n < n && !buf_grow(m, b, n))
		return false;
	if (n)
		memcpy(b->p + b->n, p, n);
	b->n += n;
	return n < 64 || wj_step(m, n / 64);
}

void wj_buf_fini(struct wj *m, struct wj_buf *b)
{
	m->memory -= b->room;
	free(b->p);
	*b = (struct wj_buf){0};
}

struct wj_value wj_buf_take(struct wj *m, struct wj_buf *b)
{
	struct wj_value v = wj_str(m, b->p, b->n);

	wj_buf_fini(m, b);
	return v;
}
