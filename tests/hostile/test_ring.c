/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client that lies in its rings: tails that jump and rewind, slots and generations that are not,
 * requests resubmitted while they stand, heads and waiter counts that make no sense. What is
 * nonsense ends that session and no other; what only hurts the liar is let be.
 */
#include "tests/hostile/raw.h"
#include "tests/hostile/world.h"
#include "tests/tap.h"

#include <pthread.h>
#include <unistd.h>

static struct world *w;

static struct raw open_raw(void)
{
	struct raw r;

	if (raw_open(&r, world_socket(w), world_attacker(), 8)) {
		diag("%s", r.refusal.text);
		bail_out("a raw client is refused");
	}
	return r;
}

/* The session must end, with its slots told so, and the next one must work. */
static void must_end(struct raw *r, const char *what)
{
	ok(raw_ended(r, RAW_PATIENCE_MS) && strlen(r->refusal.text), "%s ends the session: %s",
	   what, r->refusal.text);
	is_int(atomic_load(&r->rx_ctl->engine_state), WSHM_ENGINE_ENDED, "and rx says so");
	is_int(atomic_load(&r->rx_ctl->end_status), WSHM_PROTOCOL, "with the reason");
	raw_close(r);
}

static void tails(void)
{
	static const uint32_t jumps[] = {17, 1000, 0x7fffffff, 0x80000000, 0xffffffff};

	for (size_t i = 0; i < sizeof(jumps) / sizeof(*jumps); i++) {
		struct raw r = open_raw();
		char what[64];

		snprintf(what, sizeof(what), "a tail that jumps by %u", jumps[i]);
		atomic_store(&r.tx_ctl->sq_tail, jumps[i]);
		raw_wake(&r);
		must_end(&r, what);
	}
	for (uint32_t back = 1; back < 40; back += 19) {
		struct raw r = open_raw();

		for (uint32_t g = 1; g < 4; g++)
			raw_request(&r, 0, g, 4, 2);
		atomic_store(&r.tx_ctl->sq_tail, r.tail - back);
		raw_wake(&r);
		must_end(&r, "a tail that goes back");
	}
}

static void slots(void)
{
	static const struct {
		uint32_t slot, generation;
		const char *what;
	} bad[] = {
		{8, 1, "the first slot that does not exist"}, {0xffffffff, 1, "slot 2^32 - 1"},
		{0x10000, 1, "a slot of more bits than any"}, {0, 0, "generation 0"},
		{8, 0, "neither slot nor generation"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct raw r = open_raw();

		raw_prepare(&r, 0, 1, 1, 4, 4);
		raw_push(&r, bad[i].slot, bad[i].generation);
		must_end(&r, bad[i].what);
	}
}

static void generations(void)
{
	struct raw r = open_raw();

	/* Once admitted, the same pair is skipped as often as it comes. */
	raw_submit(&r, 0, 7, 3, 5, 6);
	for (int i = 0; i < 10; i++)
		raw_push(&r, 0, 7);
	ok(raw_wait_state(&r, 0, 7, WSHM_SLOT_ENDED, RAW_PATIENCE_MS), "submitted eleven times");
	is_int(atomic_load(&r.slot[0].count[0]), 6, "computed once");
	for (int i = 0; i < 6000 && atomic_load(&r.rx_ctl->sq_head) != r.tail; i++)
		raw_pause_us(10000);
	is_int(atomic_load(&r.rx_ctl->sq_head), r.tail, "all entries are taken");
	raw_release(&r, 0, 7);
	ok(raw_alive(&r, 0, 8), "the session goes on");

	/* Another one in a slot that stands unreleased. */
	raw_submit(&r, 1, 1, 3, 5, 2);
	raw_wait_state(&r, 1, 1, WSHM_SLOT_ENDED, RAW_PATIENCE_MS);
	raw_submit(&r, 1, 2, 3, 5, 2);
	must_end(&r, "a slot used again unreleased");

	/* The same while the first still runs. */
	r = open_raw();
	raw_submit(&r, 1, 1, 3, 5, 400);
	raw_wait_count(&r, 1, 1, 1, RAW_PATIENCE_MS);
	raw_submit(&r, 1, 2, 3, 5, 2);
	must_end(&r, "a running request's slot used again");

	/* The record names another generation than the ring: used again before it was looked at,
	 * perhaps, and nobody waits for this one. */
	r = open_raw();
	raw_prepare(&r, 0, 5, 1, 4, 4);
	raw_push(&r, 0, 6);
	ok(raw_wait_state(&r, 0, 6, WSHM_SLOT_ENDED, RAW_PATIENCE_MS),
	   "a record of another generation ends");
	is_int(atomic_load(&r.slot[0].status), WSHM_CANCELLED, "as cancelled");
	is_int(atomic_load(&r.slot[0].count[0]), 0, "and is not computed");
	raw_close(&r);

	/* Released before it has begun, while it runs, and twice; generations backwards. */
	r = open_raw();
	raw_prepare(&r, 0, 9, 1, 4, 300);
	atomic_store(&r.req[0].released, 9);
	raw_push(&r, 0, 9);
	raw_submit(&r, 1, 9, 1, 4, 300);
	raw_wait_count(&r, 1, 9, 2, RAW_PATIENCE_MS);
	raw_release(&r, 1, 9);
	ok(raw_alive(&r, 0, 4), "released before it was seen; generations may go back");
	ok(raw_alive(&r, 1, 4), "released while it ran");
	ok(raw_alive(&r, 1, 0xffffffff) && raw_alive(&r, 1, 1), "2^32 - 1, then 1");
	raw_close(&r);
}

/* Only the reserved bytes that a version checks may mean something: these are the client's own. */
static void reserved(void)
{
	struct raw r = open_raw();
	struct wshm_hdr *h = (void *)r.tx;

	memset(r.req[0].reserved, 0xff, sizeof(r.req[0].reserved));
	r.req[0].reserved1 = 0xffffffff;
	memset(r.tx_ctl->pad0, 0xff, sizeof(r.tx_ctl->pad0));
	memset(r.tx_ctl->pad1, 0xff, sizeof(r.tx_ctl->pad1));
	memset(r.tx_ctl->pad2, 0xff, sizeof(r.tx_ctl->pad2));
	memset(h, 0xff, sizeof(*h));
	ok(raw_alive(&r, 0, 1),
	   "nothing in tx but its words is believed: header and padding rubbish");
	raw_close(&r);
}

static void heads(void)
{
	static const uint32_t lies[] = {3, 16, 17, 0x7fffffff, 0x80000000, 0xffffff00};

	for (size_t i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
		struct raw r = open_raw();

		atomic_store(&r.tx_ctl->cq_head, lies[i]);
		raw_submit(&r, 0, 1, 1, 4, 50);
		must_end(&r, "a cq_head beyond what was posted");
	}
	/* Never moved: one notice per slot stands, the results come all the same. */
	struct raw r = open_raw();

	for (uint32_t g = 1; g < 40; g++)
		if (raw_request(&r, g % 8, g, 4, 2) != WSHM_OK)
			bail_out("requests without notices do not end");
	ok(atomic_load(&r.rx_ctl->cq_tail) <= 8, "a cq_head that never moves: %u notices stand",
	   atomic_load(&r.rx_ctl->cq_tail));
	/* All taken, then all untaken again. */
	atomic_store(&r.tx_ctl->cq_head, atomic_load(&r.rx_ctl->cq_tail));
	ok(raw_alive(&r, 0, 100), "notices taken");
	atomic_store(&r.tx_ctl->cq_head, 0);
	raw_submit(&r, 1, 100, 1, 4, 2);
	raw_wait_state(&r, 1, 100, WSHM_SLOT_ENDED, RAW_PATIENCE_MS);
	ok(atomic_load(&r.slot[1].state) == WSHM_SLOT_ENDED || raw_ended(&r, RAW_PATIENCE_MS),
	   "and put back: the liar's own loss");
	raw_close(&r);
}

static void waiters(void)
{
	struct raw r = open_raw();

	for (uint32_t i = 0; i < r.slots; i++)
		atomic_store(&r.req[i].waiters, 0xffffffff);
	atomic_store(&r.tx_ctl->any_waiters, 0xffffffff);
	atomic_store(&r.tx_ctl->bell_armed, 0xffffffff);
	is_int(raw_request(&r, 0, 1, 5, 300), WSHM_OK,
	       "waiters that do not exist are woken in vain");
	for (uint32_t i = 0; i < r.slots; i++)
		atomic_store(&r.req[i].waiters, 0x80000000u + i);
	is_int(raw_request(&r, 0, 2, 5, 100), WSHM_OK, "whatever their number");
	raw_close(&r);
}

/*
 * The same entry for ever, as fast as a core can: the engine takes entries that it has seen
 * without doing anything for them, so nothing but a bound of its own ends that.
 */
struct pusher {
	struct raw *r;
	_Atomic bool stop;
};

static void *push_always(void *arg)
{
	struct pusher *p = arg;

	while (!atomic_load(&p->stop))
		atomic_store(&p->r->tx_ctl->sq_tail,
			     atomic_load(&p->r->rx_ctl->sq_head) + p->r->ring_entries);
	return NULL;
}

static void endless_ring(const struct neighbours *n)
{
	struct raw r = open_raw();
	struct pusher p = {.r = &r};
	pthread_t t;

	raw_request(&r, 0, 1, 4, 2);
	raw_submit(&r, 0, 2, 1, 4, 2);
	raw_wait_state(&r, 0, 2, WSHM_SLOT_ENDED, RAW_PATIENCE_MS);
	for (uint32_t i = 0; i < r.ring_entries; i++)
		atomic_store(&r.sq[i], UINT64_C(2) << 32);
	if (pthread_create(&t, NULL, push_always, &p))
		bail_out("no thread");
	raw_wake(&r);
	ok(neighbours_advance(n, 6, RAW_PATIENCE_MS),
	   "a ring that is refilled as it is read holds nobody up");
	atomic_store(&p.stop, true);
	pthread_join(t, NULL);
	raw_close(&r);
}

int main(void)
{
	struct neighbours *n;

	w = world_start(NULL);
	n = neighbours_start(w, 1);
	tails();
	slots();
	generations();
	reserved();
	heads();
	waiters();
	endless_ring(n);
	neighbours_stop(n);
	world_same(w);
	world_given_back(w);
	world_stop(w);
	return tap_done();
}
