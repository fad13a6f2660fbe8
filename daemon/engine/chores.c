/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chores.c - work of the core thread that is none of anybody's tokens and may be large: bringing an
 * adapter's weights into the pool, letting go of all that depended on one, dropping what is cached.
 * In one go it would stop every stream for as long as it takes, hundreds of megabytes at worst; so
 * each pass of the core thread does a part of it, about a millisecond's, and then computes what
 * there is to compute. Without anything to compute the passes follow each other at once.
 *
 * What the control thread wants done and answered stands in a queue, since weftd takes answers in
 * the order of its questions. Adapters on their way into the pool stand in a list of their own
 * (adapters.c), because sequences put them there too; those wait, with their blocks, until theirs is
 * whole. Nobody's share is charged for either: what is in the pool is common to all.
 *
 * Owned by the core thread.
 */
#include "daemon/engine/engine.h"

#include <errno.h>
#include <stdlib.h>

#define SLICE_BYTES (INT64_C(8) << 20) /* a millisecond at 8 GB/s */
#define SLICE_NODES 1024u	       /* about as long */

void chores_add(struct engine *e, struct mail *mail)
{
	const struct adapter_mail *m = mail->type == MAIL_ADAPTER ? mail->object : NULL;

	e->loads_failed = e->loads_failed || (m && !m->unload && m->reply.head.code);
	struct chores *c = &e->chores;

	mail->next = NULL;
	if (c->last)
		c->last->next = mail;
	else
		c->first = mail;
	c->last = mail;
}

bool chores_left(const struct engine *e)
{
	return e->chores.first || e->placing;
}

/* True when there is an answer. */
static bool adapter_some(struct engine *e, struct adapter_mail *m, uint32_t *nodes)
{
	if (!m->handle)
		return true;
	if (!m->unload) {
		adapters_enter(e, m->handle);
		return true;
	}
	if (!m->begun)
		adapters_leave(e, m);
	m->begun = true;
	return m->reply.head.code || adapters_leave_some(e, m, nodes);
}

static bool drop_some(struct engine *e, struct wlink_drop *m, uint32_t *nodes)
{
	uint32_t number = m->domain == WLINK_PUBLIC ? DOMAIN_PUBLIC : m->domain + 1;
	struct domain *d = m->all ? NULL : domain_find(e, number);

	if (m->all || d)
		return cache_drop_some(e->cache, d ? d->cache : NULL, nodes, &m->blocks);
	m->head.code = -ENOENT;
	return true;
}

static bool mail_some(struct engine *e, struct mail *mail, uint32_t *nodes)
{
	return mail->type == MAIL_ADAPTER ? adapter_some(e, mail->object, nodes)
					  : drop_some(e, mail->object, nodes);
}

void chores_place(struct engine *e)
{
	struct chores *c = &e->chores;

	if (e->count.place_passes < c->most_slices)
		adapters_place_some(e, &c->bytes);
}

void chores_run(struct engine *e)
{
	struct chores *c = &e->chores;
	uint64_t moved = (uint64_t)(c->slice_bytes - c->bytes);
	uint32_t nodes = SLICE_NODES;
	struct mail *mail;

	/* What sequences that started in the last plan have brought along counts, too. */
	e->count.place_passes += moved != 0;
	if (moved > e->count.place_most_bytes)
		e->count.place_most_bytes = moved;
	if (!c->slice_bytes) {
		c->slice_bytes = hook_slice_bytes(SLICE_BYTES);
		c->most_slices = hook_most_slices();
	}
	c->bytes = c->slice_bytes;
	if (!chores_left(e))
		return;
	while ((mail = c->first) && mail_some(e, mail, &nodes)) {
		c->first = mail->next;
		if (!c->first)
			c->last = NULL;
		mail_send(&e->to_control, mail); /* the answer, in what asked for it */
	}
	chores_place(e);
	/* However long it takes: the engine gets on. */
	ord_store(&e->heartbeat->steps, ord_load(&e->heartbeat->steps) + 1);
}
