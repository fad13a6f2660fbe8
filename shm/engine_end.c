/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine_end.c - the engine's end of a session: submissions in, results and notices out.
 *
 * tx is mapped read-only and can change at any moment, so each word of it is loaded once by an
 * atomic load, checked, and only the copy is used. Indices, sizes, masks and the generations
 * admitted are kept in private memory; rx is written and, but for the progress counts (which no
 * client can write) and a resume, never read. One thread, the engine's core thread, owns a
 * struct wshm_engine.
 *
 * Ordering guarantees (partners in client_end.c, list in wshm.h):
 *   - a slot's contents and generation are visible before sq_head passes its entry (Q1);
 *   - an engine that finds nothing after set_need_wake(true) will be rung for whatever comes (S3, S4);
 *   - whoever sees a new progress or cq_tail sees everything written before publish (W1);
 *   - a publication wakes every sleeper that could have missed it (W1, W2): two of them, and these
 *     the others.
 */
#include "shm/internal.h"
#include "shm/wshm_idx.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static const struct wshm_tx_ctl *tx_ctl(const struct wshm_engine *e)
{
	return (const struct wshm_tx_ctl *)(e->tx + e->layout.tx_ctl);
}

static struct wshm_rx_ctl *rx_ctl(const struct wshm_engine *e)
{
	return (struct wshm_rx_ctl *)(e->rx + e->layout.rx_ctl);
}

static const struct wshm_req *req(const struct wshm_engine *e, uint32_t slot)
{
	return (const struct wshm_req *)(e->tx + e->layout.tx_table) + slot;
}

static wshm_entry *cq(const struct wshm_engine *e)
{
	return (wshm_entry *)(e->rx + e->layout.rx_ring);
}

struct wshm_slot *wshm_engine_slot(struct wshm_engine *e, uint32_t slot)
{
	return (struct wshm_slot *)(e->rx + e->layout.rx_table) + slot;
}

uint8_t *wshm_engine_rx_arena(struct wshm_engine *e)
{
	return e->rx + e->layout.rx_arena;
}

static uint32_t mask(const struct wshm_engine *e)
{
	return e->layout.ring_entries - 1;
}

/*
 * Take over from an engine that was killed. The ring entry that it may have written at cq_tail
 * without publishing lies outside every window of outstanding notices, because those are at most
 * `slots` of 2 * slots; so remembering it under the old position is harmless.
 */
static void resume_state(struct wshm_engine *e)
{
	uint32_t i, entries = e->layout.ring_entries;

	e->sq_head = ord_load(&rx_ctl(e)->sq_head);
	e->cq_tail = ord_load(&rx_ctl(e)->cq_tail);
	for (i = 0; i < e->layout.params.slots; i++)
		e->generation[i] = ord_load(&wshm_engine_slot(e, i)->generation);
	for (i = e->cq_tail - entries; i != e->cq_tail; i++) {
		uint64_t entry = ord_load(&cq(e)[i & mask(e)]);
		uint32_t slot = (uint32_t)entry;

		if (!(entry >> 32) || slot >= e->layout.params.slots)
			continue;
		e->cq_shadow[i & mask(e)] = slot;
		e->noticed_at[slot] = i;
	}
}

int wshm_engine_open(struct wshm_engine *e, const struct wshm_layout *layout, int tx_fd, int rx_fd,
		     bool resume)
{
	void *tx = NULL, *rx = NULL;
	int rc;

	memset(e, 0, sizeof(*e));
	rc = wshm_region_check(tx_fd, layout->tx_bytes);
	if (!rc)
		rc = wshm_region_check(rx_fd, layout->rx_bytes);
	if (!rc)
		rc = wshm_map(tx_fd, layout->tx_bytes, PROT_READ, &tx);
	if (!rc)
		rc = wshm_map(rx_fd, layout->rx_bytes, PROT_READ | PROT_WRITE, &rx);
	e->layout = *layout;
	e->tx = tx;
	e->rx = rx;
	if (rc)
		goto fail;

	rc = -ENOMEM;
	e->generation = calloc(layout->params.slots, sizeof(*e->generation));
	e->noticed_at = calloc(layout->params.slots, sizeof(*e->noticed_at));
	e->cq_shadow = malloc(layout->ring_entries * sizeof(*e->cq_shadow));
	e->owed = calloc(layout->params.slots / 64 + 1, sizeof(*e->owed));
	if (!e->generation || !e->noticed_at || !e->cq_shadow || !e->owed)
		goto fail;
	memset(e->cq_shadow, 0xff, layout->ring_entries * sizeof(*e->cq_shadow));
	if (resume)
		resume_state(e);
	return 0;
fail:
	wshm_engine_close(e);
	return rc;
}

void wshm_engine_close(struct wshm_engine *e)
{
	if (e->tx)
		munmap((void *)(uintptr_t)e->tx, e->layout.tx_bytes);
	if (e->rx)
		munmap(e->rx, e->layout.rx_bytes);
	free(e->generation);
	free(e->noticed_at);
	free(e->cq_shadow);
	free(e->owed);
	memset(e, 0, sizeof(*e));
}

void wshm_engine_set_state(struct wshm_engine *e, enum wshm_engine_state state,
			   enum wshm_status end_status, uint64_t instance_id)
{
	struct wshm_rx_ctl *ctl = rx_ctl(e);

	ord_store(&ctl->instance_id, instance_id);
	ord_store(&ctl->end_status, (uint32_t)end_status);
	/* I1: pairs with I2 in wshm_rx_engine_state() */
	ord_store_release(&ctl->engine_state, (uint32_t)state);
	if (state == WSHM_ENGINE_ENDED)
		wshm_engine_announce_all(e);
}

/* --- submissions ---------------------------------------------------------------------------------*/

static int violation(struct wshm_engine *e)
{
	e->violations++;
	return -EPROTO;
}

static void take_entry(struct wshm_engine *e)
{
	e->sq_head++;
	/* Q1: pairs with Q2 in wshm_client_submit(): the entry was read, its slot was written. */
	ord_store_release(&rx_ctl(e)->sq_head, e->sq_head);
}

/* Has the client given back what the slot held, as far as it can have told us? */
static bool may_reuse(struct wshm_engine *e, uint32_t slot, uint32_t generation)
{
	uint32_t released;

	/* Our own word first: the line of the request would come from the client's core. */
	if (ord_load(&wshm_engine_slot(e, slot)->state) == WSHM_SLOT_FREE)
		return true;
	/* S4: pairs with S1 in wshm_client_release() */
	released = ord_load_seq(&req(e, slot)->released);
	return released == e->generation[slot] || released == generation;
}

int wshm_engine_peek(struct wshm_engine *e, uint32_t *ret_slot, uint32_t *ret_generation)
{
	const wshm_entry *ring = (const wshm_entry *)(e->tx + e->layout.tx_ring);
	uint32_t tail, slot, generation, old, looked = 0;
	const wshm_entry *at;
	uint64_t entry;

	if (e->violations)
		return -EPROTO;
	while (!e->peeked) {
		/* A restart leaves one ring at most to be skipped; a client that refills it as fast
		 * as it is skipped may not hold the engine here. */
		if (looked++ > e->layout.ring_entries)
			return 0;
		at = &ring[e->sq_head & mask(e)];
		ord_expect_read(at); /* asked for together with the tail, it arrives with it */
		/* S4: pairs with S1 in wshm_client_submit() */
		tail = ord_load_seq(&tx_ctl(e)->sq_tail);
		if (tail == e->sq_head)
			return 0;
		if (tail - e->sq_head > e->layout.ring_entries)
			return violation(e);
		entry = ord_load(at);
		slot = (uint32_t)entry;
		generation = entry >> 32;
		if (slot >= e->layout.params.slots || !generation)
			return violation(e);
		ord_expect_write(wshm_engine_slot(e, slot));
		old = e->generation[slot];
		if (generation == old)
			take_entry(e);
		else if (old && !may_reuse(e, slot, generation))
			return violation(e);
		else
			e->peeked = entry;
	}
	*ret_slot = (uint32_t)e->peeked;
	*ret_generation = e->peeked >> 32;
	return 1;
}

void wshm_engine_accept(struct wshm_engine *e)
{
	assert(e->peeked);
	e->generation[(uint32_t)e->peeked] = e->peeked >> 32;
	e->peeked = 0;
	take_entry(e);
}

bool wshm_engine_pending(const struct wshm_engine *e)
{
	/* S4: pairs with S1 in wshm_client_submit() */
	return ord_load_seq(&tx_ctl(e)->sq_tail) != e->sq_head || e->violations;
}

void wshm_engine_fetch_req(const struct wshm_engine *e, uint32_t slot, struct wshm_req_copy *ret)
{
	const struct wshm_req *r = req(e, slot);

	ret->generation = ord_load(&r->generation);
	ret->desc_bytes = ord_load(&r->desc_bytes);
	ret->desc_off = ord_load(&r->desc_off);
}

bool wshm_engine_cancelled(const struct wshm_engine *e, uint32_t slot, uint32_t generation)
{
	/* S4: pairs with S1 in wshm_client_cancel() */
	return ord_load_seq(&req(e, slot)->cancel) == generation;
}

bool wshm_engine_released(const struct wshm_engine *e, uint32_t slot, uint32_t generation)
{
	/* S4: pairs with S1 in wshm_client_release() */
	return ord_load_seq(&req(e, slot)->released) == generation;
}

void wshm_engine_set_need_wake(struct wshm_engine *e, bool need)
{
	/* S3: pairs with S2 in must_wake() */
	ord_store_seq(&rx_ctl(e)->need_wake, need ? 1u : 0u);
}

/* --- publication ---------------------------------------------------------------------------------*/

/*
 * Post a notice for slot unless one is outstanding: one whose position lies in [cq_head, cq_tail)
 * and whose ring entry is still that slot's. The second condition makes the first exact for slots
 * whose last notice is 2^32 positions ago. Returns whether one was posted.
 */
static bool post_notice(struct wshm_engine *e, uint32_t slot, uint32_t generation)
{
	uint32_t head, used, at = e->noticed_at[slot], tail = e->cq_tail;

	/* N2: pairs with N3 in wshm_client_notice() */
	head = ord_load_seq(&tx_ctl(e)->cq_head);
	used = tail - head;
	if (used > e->layout.ring_entries) {
		violation(e);
		return false;
	}
	if (tail - at - 1 < used && e->cq_shadow[at & mask(e)] == slot)
		return false;
	if (used == e->layout.ring_entries)
		return false; /* only a client that moved cq_head back gets here */
	ord_store(&cq(e)[tail & mask(e)], wshm_entry_make(slot, generation));
	e->cq_shadow[tail & mask(e)] = slot;
	e->noticed_at[slot] = tail;
	e->cq_tail = tail + 1;
	/* W1: pairs with C1 in wshm_client_notice() and W4 in wshm_client_wait_any() */
	ord_store_seq(&rx_ctl(e)->cq_tail, e->cq_tail);
	return true;
}

void wshm_wakes_run(struct wshm_wakes *w)
{
	for (uint32_t i = 0; i < w->n; i++)
		wshm_futex_wake(w->words[i], WSHM_WAKE_MOST);
	w->n = 0;
}

/* Where those sleep who wait for a slot; behind the slots, for any. */
static const _Atomic uint32_t *sleepers(struct wshm_engine *e, uint32_t i)
{
	return i < e->layout.params.slots ? &wshm_engine_slot(e, i)->progress : &rx_ctl(e)->cq_tail;
}

static void wake(struct wshm_engine *e, uint32_t i)
{
	uint64_t bit = UINT64_C(1) << i % 64;

	if (!e->wake_later) {
		wshm_futex_wake(sleepers(e, i), WSHM_WAKE_MOST);
	} else if (!(e->owed[i / 64] & bit)) {
		e->owed[i / 64] |= bit;
		e->n_owed++;
	}
}

uint32_t wshm_engine_gather(struct wshm_engine *e, struct wshm_wakes *list, uint32_t most)
{
	uint32_t i = e->owed_at, n = 0, end = e->layout.params.slots + 1;

	while (e->n_owed && n < most && list->n < WSHM_MAX_WAKES) {
		uint64_t ahead = e->owed[i / 64] >> i % 64;

		if (!ahead) {
			i = (i / 64 + 1) * 64;
		} else {
			i += (uint32_t)__builtin_ctzll(ahead);
			e->owed[i / 64] &= ~(UINT64_C(1) << i % 64);
			e->n_owed--;
			list->words[list->n++] = sleepers(e, i++);
			n++;
		}
		if (i >= end)
			i = 0;
	}
	e->owed_at = i;
	return n;
}

void wshm_engine_post(struct wshm_engine *e, uint32_t slot)
{
	struct wshm_slot *s = wshm_engine_slot(e, slot);
	const struct wshm_tx_ctl *ctl = tx_ctl(e);

	ord_expect_read(&ctl->cq_head);
	ord_expect_read(&req(e, slot)->waiters);
	ord_expect_write(&cq(e)[e->cq_tail & mask(e)]);
	ord_expect_write(&rx_ctl(e)->cq_tail);
	/* W1: pairs with W4 in wshm_client_wait_slot() and N4 in wshm_client_notice() */
	ord_store_seq(&s->progress, ord_load(&s->progress) + 1);
	e->posted |= post_notice(e, slot, e->generation[slot]);
	/* W2: pairs with W3 in wshm_client_wait_slot() */
	if (ord_load_seq(&req(e, slot)->waiters))
		wake(e, slot);
}

int wshm_engine_wake(struct wshm_engine *e)
{
	const struct wshm_tx_ctl *ctl = tx_ctl(e);

	if (!e->posted)
		return 0;
	e->posted = false;
	/* W2: pairs with W3 in wshm_client_wait_any() */
	if (ord_load_seq(&ctl->any_waiters))
		wake(e, e->layout.params.slots);
	/* W2: pairs with W3 in wshm_client_arm_bell() */
	return ord_load_seq(&ctl->bell_armed) != 0;
}

int wshm_engine_publish(struct wshm_engine *e, uint32_t slot)
{
	wshm_engine_post(e, slot);
	return wshm_engine_wake(e);
}

uint32_t wshm_engine_orphan(struct wshm_engine *e)
{
	uint32_t n = 0;

	/* O1: pairs with O2 in orphaned(): whoever is not found waiting below will see it. */
	ord_store_seq(&rx_ctl(e)->engine_state, (uint32_t)WSHM_ENGINE_ORPHANED);
	for (uint32_t i = 0; i <= e->layout.params.slots; i++) {
		const _Atomic uint32_t *waiters =
			i < e->layout.params.slots ? &req(e, i)->waiters : &tx_ctl(e)->any_waiters;

		/* W2: pairs with W3 in wshm_client_wait_slot() and wshm_client_wait_any() */
		if (!ord_load_seq(waiters))
			continue;
		wshm_futex_wake(sleepers(e, i), WSHM_WAKE_MOST);
		n++;
	}
	return n;
}

void wshm_engine_announce_all(struct wshm_engine *e)
{
	uint32_t i;

	for (i = 0; i < e->layout.params.slots; i++) {
		struct wshm_slot *s = wshm_engine_slot(e, i);

		if (ord_load(&s->state) != WSHM_SLOT_FREE) {
			wshm_engine_publish(e, i);
			continue;
		}
		/* W1: pairs with W4 in wshm_client_wait_slot() */
		ord_store_seq(&s->progress, ord_load(&s->progress) + 1);
		/* W2: pairs with W3 in wshm_client_wait_slot() */
		if (ord_load_seq(&req(e, i)->waiters))
			wake(e, i);
	}
	wake(e, e->layout.params.slots);
}

/* --- fetching ------------------------------------------------------------------------------------*/

/*
 * Copy out of memory that changes under our hands. Every byte is loaded once, by relaxed atomic
 * loads of eight bytes where alignment allows: the compiler may neither repeat nor invent such a
 * load, as it may for memcpy, and each is one mov, 8 bytes a cycle from the cache.
 */
static void copy_once(uint8_t *dst, const uint8_t *src, uint64_t bytes)
{
	for (; bytes && (uintptr_t)src % 8; bytes--)
		*dst++ = ord_load((const _Atomic uint8_t *)src++);
	for (; bytes >= 8; bytes -= 8, src += 8, dst += 8) {
		uint64_t word = ord_load((const _Atomic uint64_t *)src);

		memcpy(dst, &word, sizeof(word));
	}
	for (; bytes; bytes--)
		*dst++ = ord_load((const _Atomic uint8_t *)src++);
}

static bool in_tx_arena(const struct wshm_engine *e, uint64_t off, uint64_t bytes)
{
	uint64_t size = e->layout.params.tx_arena_bytes;

	return off <= size && bytes <= size - off;
}

int wshm_engine_fetch(const struct wshm_engine *e, uint64_t off, void *dst, uint64_t bytes)
{
	if (!in_tx_arena(e, off, bytes))
		return -EPROTO;
	copy_once(dst, e->tx + e->layout.tx_arena + off, bytes);
	return 0;
}

int wshm_engine_fetch_u32(const struct wshm_engine *e, uint64_t off, uint32_t *dst, uint64_t n)
{
	if (off % sizeof(*dst) || n > WSHM_MAX_ARENA)
		return -EPROTO;
	return wshm_engine_fetch(e, off, dst, n * sizeof(*dst));
}

uint64_t wshm_engine_oldest_reader(const struct wshm_engine *e)
{
	const struct wshm_tx_ctl *ctl = (const struct wshm_tx_ctl *)(e->tx + e->layout.tx_ctl);
	uint64_t oldest = UINT64_MAX;

	for (uint32_t i = 0; i < WSHM_READERS; i++) {
		/* E2: pairs with E3 in wshm_idx_enter() and E5 in wshm_idx_leave() */
		uint64_t epoch = ord_load_seq(&ctl->reader_epoch[i]);

		if (epoch && epoch < oldest)
			oldest = epoch;
	}
	return oldest;
}
