/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Quotas, each reached and refused with its own clear word, while a neighbour of another tenant
 * notices nothing: sessions, region bytes (also of clients that keep their mappings), requests in
 * flight, queued tokens, rate; clients that never release, that never read, that take all blocks.
 */
#include "tests/hostile/raw.h"
#include "tests/hostile/world.h"
#include "tests/tap.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_SESSIONS 6
#define MAX_FLIGHT   5u
#define MAX_QUEUED   2000u
#define MAX_RATE     200u

static struct world *w;

static void open_ok(struct raw *r, uint32_t slots)
{
	int err = raw_open(r, world_socket(w), world_attacker(), slots);

	if (err) {
		diag("%d %s", err, r->refusal.text);
		bail_out("a raw client is refused");
	}
}

static void sessions(void)
{
	struct raw r[MAX_SESSIONS], extra;

	for (int i = 0; i < MAX_SESSIONS; i++)
		open_ok(&r[i], 2);
	is_int(raw_open(&extra, world_socket(w), world_attacker(), 2), -EACCES,
	       "one session more than allowed");
	ok(strstr(extra.refusal.text, "session"), "told why: %s", extra.refusal.text);
	raw_close(&r[2]);
	ok(world_number_becomes(w, "sessions", MAX_SESSIONS, RAW_PATIENCE_MS), "one hangs up");
	is_int(raw_open(&r[2], world_socket(w), world_attacker(), 2), 0, "and another has room");
	for (int i = 0; i < MAX_SESSIONS; i++)
		raw_close(&r[i]);
	world_number_becomes(w, "sessions", 1, RAW_PATIENCE_MS);
}

/* A client that keeps its mappings keeps the bytes on its account. */
static void region_bytes(void)
{
	struct wctl_hello h;
	struct raw r[4];
	int n;

	raw_hello_init(&h);
	h.slots = 2;
	h.tx_arena_bytes = h.rx_arena_bytes = UINT64_C(4) << 20;
	for (n = 0; n < 4; n++)
		if (raw_open_hello(&r[n], world_socket(w), world_attacker(), &h))
			break;
	is_int(n, 3, "three regions of 8 MiB fit a limit of 30 MiB");
	ok(strstr(r[3].refusal.text, "bytes"), "told why: %s", r[3].refusal.text);
	/* Only the sockets go; mappings and descriptors stay. */
	for (int i = 0; i < n; i++) {
		close(r[i].sock);
		r[i].sock = -1;
	}
	world_number_becomes(w, "sessions", 1, RAW_PATIENCE_MS);
	ok(world_number(w, "regions_dead") == 3, "dead, but kept: three regions stay charged");
	h.tx_arena_bytes = UINT64_C(16) << 20;
	is_int(raw_open_hello(&r[3], world_socket(w), world_attacker(), &h), -EACCES,
	       "one of another size is refused");
	ok(strstr(r[3].refusal.text, "bytes"), "told why: %s", r[3].refusal.text);
	h.tx_arena_bytes = UINT64_C(4) << 20;
	is_int(raw_open_hello(&r[3], world_socket(w), world_attacker(), &h), 0,
	       "one of the same size is there: a dead region is used again");
	ok(raw_alive(&r[3], 0, 1), "and works, whatever its old owner does to it");
	raw_close(&r[3]);
	for (int i = 0; i < n; i++)
		raw_close(&r[i]);
	h.tx_arena_bytes = UINT64_C(16) << 20;
	is_int(raw_open_hello(&r[3], world_socket(w), world_attacker(), &h), 0,
	       "once all is unmapped there is room");
	raw_close(&r[3]);
	world_number_becomes(w, "sessions", 1, RAW_PATIENCE_MS);
}

static void in_flight(void)
{
	struct raw r;
	uint32_t refused = 0, ok_ = 0;

	open_ok(&r, 16);
	for (uint32_t i = 0; i < 16; i++) {
		raw_prepare(&r, i, 1, i, 8, 300);
		atomic_store(&r.sq[i], UINT64_C(1) << 32 | i);
	}
	r.tail = 16; /* all appear at once */
	atomic_store(&r.tx_ctl->sq_tail, r.tail);
	raw_wake(&r);
	for (uint32_t i = 0; i < 16; i++) {
		raw_wait_state(&r, i, 1, WSHM_SLOT_ENDED, RAW_PATIENCE_MS);
		if (atomic_load(&r.slot[i].status) == WSHM_QUOTA_REQUESTS)
			refused += atomic_load(&r.slot[i].detail) == MAX_FLIGHT;
		ok_ += atomic_load(&r.slot[i].status) == WSHM_OK;
	}
	ok(ok_ >= MAX_FLIGHT && refused > 0 && ok_ + refused == 16,
	   "of 16 requests at once %u are refused with the limit, %u served", refused, ok_);
	for (uint32_t i = 0; i < 16; i++)
		raw_release(&r, i, 1);
	ok(raw_alive(&r, 0, 2), "the session goes on");
	raw_close(&r);
}

static void queued_tokens(void)
{
	struct raw r;
	uint32_t refused = 0, others = 0;

	/* Five in flight are allowed, 2,000 tokens not yet started: the third 900 is too much,
	 * unless one has started by then. */
	open_ok(&r, 4);
	for (uint32_t round = 0; round < 30 && !refused; round++) {
		uint32_t g = round + 1;

		for (uint32_t i = 0; i < 4; i++)
			raw_prepare(&r, i, g, i, 900, 2);
		for (uint32_t i = 0; i < 4; i++)
			atomic_store(&r.sq[(r.tail + i) & (r.ring_entries - 1)],
				     (uint64_t)g << 32 | i);
		r.tail += 4; /* all four appear at once */
		atomic_store(&r.tx_ctl->sq_tail, r.tail);
		raw_wake(&r);
		for (uint32_t i = 0; i < 4; i++) {
			uint32_t status;

			raw_wait_state(&r, i, g, WSHM_SLOT_ENDED, RAW_PATIENCE_MS);
			status = atomic_load(&r.slot[i].status);
			refused += status == WSHM_QUOTA_TOKENS &&
				   atomic_load(&r.slot[i].detail) == MAX_QUEUED;
			others += status != WSHM_QUOTA_TOKENS && status != WSHM_OK;
			raw_release(&r, i, g);
		}
	}
	ok(refused && !others, "four prompts of 900 tokens at once: one too many for the queue");
	raw_close(&r);
}

static void rate(void)
{
	struct raw r;
	uint32_t refused = 0, served = 0, others = 0;
	uint64_t start;

	open_ok(&r, 2);
	raw_pause_us(1100000); /* the bucket is full again */
	start = raw_now_ns();
	for (uint32_t g = 1; raw_now_ns() - start < UINT64_C(2000000000); g++) {
		int status = raw_request(&r, g % 2, g, 2, 1);

		refused += status == WSHM_QUOTA_RATE;
		served += status == WSHM_OK;
		others += status != WSHM_QUOTA_RATE && status != WSHM_OK;
	}
	diag("%u served, %u refused in two seconds", served, refused);
	ok(served <= MAX_RATE * 3 + 50 && !others,
	   "no more than the rate and one burst are served");
	ok(refused || served < MAX_RATE * 2, "the rest is refused for its rate");
	raw_pause_us(1100000);
	ok(raw_alive(&r, 0, 0x7fffffff), "a second later all is well again");
	raw_close(&r);
}

/* Slots full of answers that nobody takes: nobody else is short of anything. */
static void never_released(const struct neighbours *n)
{
	struct raw r[3];

	raw_pause_us(1100000);
	for (int k = 0; k < 3; k++) {
		open_ok(&r[k], 8);
		for (uint32_t i = 0; i < 8; i++) {
			raw_submit(&r[k], i, 1, i, 8, 20);
			raw_wait_state(&r[k], i, 1, WSHM_SLOT_ENDED, RAW_PATIENCE_MS);
		}
	}
	ok(world_number_becomes(w, "queued", 0, RAW_PATIENCE_MS), "24 answers stand unreleased");
	ok(neighbours_advance(n, 4, RAW_PATIENCE_MS), "the neighbours go on");
	for (int k = 0; k < 3; k++)
		raw_close(&r[k]);
	ok(world_number_becomes(w, "sessions", 1, RAW_PATIENCE_MS),
	   "with the session all of it goes");
}

/* Results that nobody reads fill the slab: the next request waits in the ring, for its own. */
static void no_room(void)
{
	struct wctl_hello h;
	struct raw r;

	raw_hello_init(&h);
	h.slots = 4;
	h.tx_arena_bytes = raw_arena_bytes(4);
	h.rx_arena_bytes = 4096; /* 1,024 tokens */
	if (raw_open_hello(&r, world_socket(w), world_attacker(), &h))
		bail_out("a raw client is refused");
	raw_submit(&r, 0, 1, 1, 4, 600);
	raw_submit(&r, 1, 1, 1, 4, 600);
	ok(raw_wait_state(&r, 0, 1, WSHM_SLOT_ENDED, RAW_PATIENCE_MS), "the first has its room");
	ok(raw_wait_state(&r, 1, 1, WSHM_SLOT_QUEUED, RAW_PATIENCE_MS) && !r.slot[1].slab_bytes,
	   "the second waits for it");
	raw_release(&r, 0, 1);
	ok(raw_wait_state(&r, 1, 1, WSHM_SLOT_ENDED, RAW_PATIENCE_MS) &&
		   atomic_load(&r.slot[1].count[0]) == 600,
	   "and has it when the first is given back");
	raw_release(&r, 1, 1);
	is_int(raw_request(&r, 2, 1, 4, 1025), WSHM_TOO_BIG, "what can never fit is refused");
	/* One waiting when the client goes. */
	raw_submit(&r, 0, 2, 1, 4, 900);
	raw_submit(&r, 1, 2, 1, 4, 900);
	raw_wait_count(&r, 0, 2, 5, RAW_PATIENCE_MS);
	raw_close(&r);
	ok(world_number_becomes(w, "sessions", 1, RAW_PATIENCE_MS),
	   "gone while one waits: all comes back");
}

/* Everything that the pool holds, taken by one tenant with long requests. */
static void all_blocks(const struct neighbours *n)
{
	struct raw r;
	uint32_t max;

	raw_pause_us(1100000);
	open_ok(&r, 8);
	max = r.welcome.model.max_positions;
	for (uint32_t i = 0; i < 5; i++)
		raw_submit(&r, i, 1, i, 300, max - 300 > 4000 ? 4000 : max - 300);
	ok(neighbours_advance(n, 3, 60000), "a tenant with long requests: the neighbours go on");
	raw_close(&r);
	ok(world_number_becomes(w, "sessions", 1, RAW_PATIENCE_MS), "all comes back");
}

int main(void)
{
	static char other[200];
	struct neighbours *n;

	if (geteuid())
		skip_all("quotas of another tenant need another user: run as root");
	snprintf(other, sizeof(other),
		 "max_sessions = %d\nmax_region_bytes = 30M\nmax_in_flight = %u\n"
		 "max_queued_tokens = %u\nmax_rate = %u",
		 MAX_SESSIONS, MAX_FLIGHT, MAX_QUEUED, MAX_RATE);
	w = world_start(&(struct world_options){.other = other});
	n = neighbours_start(w, 1);
	sessions();
	region_bytes();
	in_flight();
	queued_tokens();
	rate();
	never_released(n);
	no_room();
	all_blocks(n);
	neighbours_stop(n);
	world_same(w);
	world_given_back(w);
	world_stop(w);
	return tap_done();
}
