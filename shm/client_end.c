/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client_end.c - the client's end of a session: submissions out, notices and results in.
 *
 * The client writes tx and reads rx. sq_tail and cq_head are kept privately and copied out; each
 * has one writer at a time (libweft's locks). The words `cancel` and `released` of a request are
 * written by whoever owns the request's handle, waiter counts by any thread.
 *
 * Ordering guarantees (partners in engine_end.c, list in wshm.h):
 *   - an engine that sees a new sq_tail sees the entry, the request record, the descriptor and the
 *     prompt written before it (S1);
 *   - a submission, cancel or release is either seen by an engine about to sleep, or the client
 *     sees need_wake and rings (S1, S2);
 *   - a sleeper is either seen by the engine's publication, or sees what was published (W3, W4);
 *   - a notice that was not posted because one was outstanding is covered by that one: its
 *     consumer reads the slot after cq_head has moved (N3, N4).
 */
#include "shm/internal.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

static struct wshm_tx_ctl *tx_ctl(const struct wshm_client *c)
{
	return (struct wshm_tx_ctl *)(c->tx + c->layout.tx_ctl);
}

const struct wshm_rx_ctl *wshm_client_rx_ctl(const struct wshm_client *c)
{
	return (const struct wshm_rx_ctl *)(c->rx + c->layout.rx_ctl);
}

struct wshm_req *wshm_client_req(const struct wshm_client *c, uint32_t slot)
{
	return (struct wshm_req *)(c->tx + c->layout.tx_table) + slot;
}

const struct wshm_slot *wshm_client_slot(const struct wshm_client *c, uint32_t slot)
{
	return (const struct wshm_slot *)(c->rx + c->layout.rx_table) + slot;
}

uint8_t *wshm_client_tx_arena(const struct wshm_client *c)
{
	return c->tx + c->layout.tx_arena;
}

const uint8_t *wshm_client_rx_arena(const struct wshm_client *c)
{
	return c->rx + c->layout.rx_arena;
}

/* The header must be what this layout gives, but for a minor version that may be newer. */
static int check_header(const struct wshm_layout *l, const void *region, bool is_tx,
			uint64_t *ret_session)
{
	struct wshm_hdr got, want;

	memcpy(&got, region, sizeof(got));
	wshm_hdr_make(&want, l, got.session_id, is_tx);
	if (got.minor < want.minor || (got.features & ~WSHM_FEATURES))
		return -EPROTO;
	want.minor = got.minor;
	want.features = got.features;
	if (memcmp(&got, &want, sizeof(got)))
		return -EPROTO;
	*ret_session = got.session_id;
	return 0;
}

int wshm_client_open(struct wshm_client *c, const struct wshm_layout *layout, int tx_fd, int rx_fd)
{
	uint64_t tx_session, rx_session;
	void *tx = NULL, *rx = NULL;
	int rc;

	memset(c, 0, sizeof(*c));
	rc = wshm_region_check(tx_fd, layout->tx_bytes);
	if (!rc)
		rc = wshm_region_check(rx_fd, layout->rx_bytes);
	if (!rc)
		rc = wshm_map(tx_fd, layout->tx_bytes, PROT_READ | PROT_WRITE, &tx);
	if (!rc)
		rc = wshm_map(rx_fd, layout->rx_bytes, PROT_READ, &rx);
	c->layout = *layout;
	c->tx = tx;
	c->rx = rx;
	if (!rc)
		rc = check_header(layout, tx, true, &tx_session);
	if (!rc)
		rc = check_header(layout, rx, false, &rx_session);
	if (!rc && tx_session != rx_session)
		rc = -EPROTO;
	if (rc) {
		wshm_client_close(c);
		return rc;
	}
	c->sq_tail = ord_load(&tx_ctl(c)->sq_tail);
	c->cq_head = ord_load(&tx_ctl(c)->cq_head);
	c->sq_head = ord_load_acquire(&wshm_client_rx_ctl(c)->sq_head); /* Q2: pairs with Q1 */
	return 0;
}

void wshm_client_close(struct wshm_client *c)
{
	if (c->tx)
		munmap(c->tx, c->layout.tx_bytes);
	if (c->rx)
		munmap((void *)(uintptr_t)c->rx, c->layout.rx_bytes);
	memset(c, 0, sizeof(*c));
}

void wshm_client_req_write(struct wshm_client *c, uint32_t slot, uint32_t generation,
			   uint64_t desc_off, uint32_t desc_bytes)
{
	struct wshm_req *r = wshm_client_req(c, slot);

	ord_store(&r->desc_off, desc_off);
	ord_store(&r->desc_bytes, desc_bytes);
	ord_store(&r->generation, generation);
}

/* Call after the store that the engine must not miss. */
static int must_wake(const struct wshm_client *c)
{
	/* S2: pairs with S3 in wshm_engine_set_need_wake() */
	return ord_load_seq(&wshm_client_rx_ctl(c)->need_wake) != 0;
}

int wshm_client_submit(struct wshm_client *c, uint32_t slot, uint32_t generation)
{
	wshm_entry *ring = (wshm_entry *)(c->tx + c->layout.tx_ring);
	wshm_entry *entry = &ring[c->sq_tail & (c->layout.ring_entries - 1)];

	ord_expect_write(&tx_ctl(c)->sq_tail);
	ord_expect_write(entry);
	/* The engine writes sq_head all the time; its line is fetched only when room seems to lack. */
	if (c->sq_tail - c->sq_head >= c->layout.ring_entries)
		/* Q2: pairs with Q1 in take_entry(): the entry to be overwritten has been read. */
		c->sq_head = ord_load_acquire(&wshm_client_rx_ctl(c)->sq_head);
	if (c->sq_tail - c->sq_head >= c->layout.ring_entries)
		return -EAGAIN;
	ord_store(entry, wshm_entry_make(slot, generation));
	c->sq_tail++;
	/* S1: pairs with S4 in wshm_engine_peek() and wshm_engine_pending() */
	ord_store_seq(&tx_ctl(c)->sq_tail, c->sq_tail);
	return must_wake(c);
}

int wshm_client_cancel(struct wshm_client *c, uint32_t slot, uint32_t generation)
{
	/* S1: pairs with S4 in wshm_engine_cancelled() */
	ord_store_seq(&wshm_client_req(c, slot)->cancel, generation);
	return must_wake(c);
}

int wshm_client_release(struct wshm_client *c, uint32_t slot, uint32_t generation)
{
	/* S1: pairs with S4 in wshm_engine_released() */
	ord_store_seq(&wshm_client_req(c, slot)->released, generation);
	return must_wake(c);
}

int wshm_client_notice(struct wshm_client *c, uint32_t *ret_slot, uint32_t *ret_generation)
{
	const wshm_entry *ring = (const wshm_entry *)(c->rx + c->layout.rx_ring);
	const struct wshm_slot *s;
	uint32_t tail, slot;

	/* Asked for together, they arrive together. */
	ord_expect_read(&ring[c->cq_head & (c->layout.ring_entries - 1)]);
	/* C1: pairs with W1 in wshm_engine_post(): the entry is there. */
	tail = ord_load_acquire(&wshm_client_rx_ctl(c)->cq_tail);
	if (tail == c->cq_head || tail - c->cq_head > c->layout.ring_entries)
		return 0;
	ord_expect_write(&tx_ctl(c)->cq_head);
	slot = (uint32_t)ord_load(&ring[c->cq_head & (c->layout.ring_entries - 1)]);
	if (slot >= c->layout.params.slots)
		return 0;
	s = wshm_client_slot(c, slot);
	ord_expect_read(s);
	c->cq_head++;
	/* N3: pairs with N2 in post_notice() */
	ord_store_seq(&tx_ctl(c)->cq_head, c->cq_head);
	/*
	 * N4: pairs with W1 in wshm_engine_post(). Either this load sees that publication, and
	 * with it everything written before, or its N2 sees the new head and posts again.
	 */
	(void)ord_load_seq(&s->progress);
	*ret_slot = slot;
	*ret_generation = wshm_slot_generation(s);
	return 1;
}

/*
 * The engine wakes a few at a time. Whoever is woken and finds more than those counted wakes the
 * rest: the first to look finds all, because nobody takes its 1 back before it has looked.
 */
static void pass_on(const _Atomic uint32_t *word, const _Atomic uint32_t *waiters)
{
	if (ord_load(waiters) > WSHM_WAKE_MOST)
		wshm_futex_wake(word, UINT32_MAX);
}

/* Nobody will wake a sleeper any more. */
static bool orphaned(const struct wshm_client *c)
{
	/* O2: pairs with O1 in wshm_engine_orphan() */
	return ord_load_seq(&wshm_client_rx_ctl(c)->engine_state) == WSHM_ENGINE_ORPHANED;
}

int wshm_client_wait_slot(struct wshm_client *c, uint32_t slot, uint32_t seen, int64_t timeout_ns)
{
	const struct wshm_slot *s = wshm_client_slot(c, slot);
	struct wshm_req *r = wshm_client_req(c, slot);
	int rc = 0;

	ord_add_seq(&r->waiters, 1); /* W3: pairs with W2 in wshm_engine_post() */
	if (wshm_slot_progress(s) == seen && !orphaned(c))
		rc = wshm_futex_wait(&s->progress, seen, timeout_ns);
	if (!rc)
		pass_on(&s->progress, &r->waiters);
	ord_add(&r->waiters, -1); /* seen late it costs the engine a wake-up in vain, no more */
	return rc;
}

int wshm_client_wait_any(struct wshm_client *c, int64_t timeout_ns)
{
	const struct wshm_rx_ctl *rx = wshm_client_rx_ctl(c);
	struct wshm_tx_ctl *ctl = tx_ctl(c);
	uint32_t head, tail;
	int rc = 0;

	ord_add_seq(&ctl->any_waiters, 1); /* W3: pairs with W2 in wshm_engine_wake() */
	/* Our own word in tx, not c->cq_head: another thread may be taking notices meanwhile. */
	head = ord_load(&ctl->cq_head);
	tail = ord_load_seq(&rx->cq_tail); /* W4: pairs with W1 in wshm_engine_post() */
	if (tail == head && !orphaned(c))
		rc = wshm_futex_wait(&rx->cq_tail, tail, timeout_ns);
	if (!rc)
		pass_on(&rx->cq_tail, &ctl->any_waiters);
	ord_add(&ctl->any_waiters, -1);
	return rc;
}

void wshm_client_arm_bell(struct wshm_client *c, bool armed)
{
	/* W3: pairs with W2 in wshm_engine_wake() */
	ord_store_seq(&tx_ctl(c)->bell_armed, armed ? 1u : 0u);
}
