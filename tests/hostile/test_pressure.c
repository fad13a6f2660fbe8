/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tenant that wants everything: a pool full of its long answers at the highest priority, rings
 * full of requests that are refused only after megabytes of them have been read. Another tenant's
 * requests take longer, but they go on, and their answers stay what they are.
 */
#include "tests/hostile/raw.h"
#include "tests/hostile/world.h"
#include "tests/tap.h"

#include <unistd.h>

#define GREEDY	4u
#define SLOTS	16u
#define RESUMED 7000u
#define ARENA	(UINT64_C(1) << 20)

static struct world *w;

static uint8_t *put_u16(uint8_t *p, uint32_t v)
{
	*p++ = 0xcd;
	*p++ = (uint8_t)(v >> 8);
	*p++ = (uint8_t)v;
	return p;
}

/* prompt, n = 16, max_tokens, priority 100, ignore_eos; with `resumed`, 16 spans of so many. */
static uint32_t greedy_desc(uint8_t *d, uint32_t prompt_off, uint32_t max_tokens, uint32_t resumed)
{
	uint8_t *p = d;

	*p++ = resumed ? 0x86 : 0x85;
	*p++ = WSHM_KEY_PROMPT;
	*p++ = 0x92;
	p = put_u16(p, prompt_off);
	*p++ = 20;
	*p++ = WSHM_KEY_N;
	*p++ = 16;
	*p++ = WSHM_KEY_MAX_TOKENS;
	p = put_u16(p, max_tokens);
	*p++ = WSHM_KEY_PRIORITY;
	*p++ = 100;
	*p++ = WSHM_KEY_IGNORE_EOS;
	*p++ = 0xc3;
	if (!resumed)
		return (uint32_t)(p - d);
	*p++ = WSHM_KEY_RESUME;
	*p++ = 0xdc;
	*p++ = 0;
	*p++ = 16;
	for (int i = 0; i < 16; i++) {
		*p++ = 0x92;
		p = put_u16(p, 32768);
		p = put_u16(p, resumed);
	}
	return (uint32_t)(p - d);
}

static void open_greedy(struct raw *r)
{
	struct wctl_hello h;

	raw_hello_init(&h);
	h.slots = SLOTS;
	h.tx_arena_bytes = ARENA;
	h.rx_arena_bytes = UINT64_C(16) << 20;
	if (raw_open_hello(r, world_socket(w), world_attacker(), &h))
		bail_out("a raw client is refused");
}

static void submit(struct raw *r, uint32_t slot, uint32_t generation, uint32_t bytes)
{
	atomic_store(&r->req[slot].desc_off, 0);
	atomic_store(&r->req[slot].desc_bytes, bytes);
	atomic_store(&r->req[slot].generation, generation);
	raw_push(r, slot, generation);
}

static void all_blocks(const struct neighbours *n)
{
	struct raw r[GREEDY];

	for (uint32_t k = 0; k < GREEDY; k++) {
		uint32_t bytes;

		open_greedy(&r[k]);
		bytes = greedy_desc(r[k].tx_arena, 4096, 4000, 0);
		for (uint32_t i = 0; i < SLOTS; i++)
			submit(&r[k], i, 1, bytes);
	}
	raw_wait_count(&r[0], 0, 1, 1, RAW_PATIENCE_MS);
	ok(neighbours_advance(n, 3, 60000), "64 requests of 16 long answers each: others go on");
	diag("%lld preemptions, %lld of %lld blocks free", world_number(w, "preemptions"),
	     world_number(w, "blocks_free"), world_number(w, "blocks"));
	for (uint32_t k = 0; k < GREEDY; k++)
		raw_close(&r[k]);
	ok(world_number_becomes(w, "sessions", 1, RAW_PATIENCE_MS), "and all of it comes back");
}

/* A token outside the vocabulary at the very end of the last resumed answer. */
static void read_for_nothing(const struct neighbours *n)
{
	uint32_t generation[GREEDY][SLOTS] = {0}, bytes = 0, refused = 0;
	uint64_t before = neighbours_done(n), start = raw_now_ns();
	struct raw r[GREEDY];

	for (uint32_t k = 0; k < GREEDY; k++) {
		open_greedy(&r[k]);
		bytes = greedy_desc(r[k].tx_arena, 4096, RESUMED + 1, RESUMED);
		((uint32_t *)(r[k].tx_arena + 32768))[RESUMED - 1] = UINT32_MAX;
	}
	/* Two seconds, or as long as it takes where there is little of a processor to be had. */
	while (raw_now_ns() - start < UINT64_C(2000000000) ||
	       (raw_now_ns() - start < UINT64_C(60000000000) &&
		(refused <= 100 || neighbours_done(n) == before)))
		for (uint32_t i = 0; i < GREEDY * SLOTS; i++) {
			struct raw *one = &r[i / SLOTS];
			uint32_t slot = i % SLOTS, *g = &generation[i / SLOTS][slot];

			if (*g && (atomic_load(&one->slot[slot].generation) != *g ||
				   atomic_load(&one->slot[slot].state) != WSHM_SLOT_ENDED))
				continue;
			refused += *g && atomic_load(&one->slot[slot].status) == WSHM_BAD_VALUE;
			atomic_store(&one->req[slot].released, *g);
			submit(one, slot, ++*g, bytes);
		}
	ok(neighbours_done(n) > before, "%u requests read for nothing, %llu of others served",
	   refused, (unsigned long long)(neighbours_done(n) - before));
	ok(refused > 100, "they were refused for their last token");
	for (uint32_t k = 0; k < GREEDY; k++)
		raw_close(&r[k]);
}

int main(void)
{
	struct neighbours *n;

	if (geteuid()) /* within a tenant whoever has the higher priority may have everything */
		skip_all("another tenant needs another user: run as root");
	/* 1,000 blocks, of which one greedy answer alone wants 250. */
	w = world_start(&(struct world_options){.model = "kv_bytes = 4000K"});
	n = neighbours_start(w, 1);
	all_blocks(n);
	read_for_nothing(n);
	neighbours_stop(n);
	world_same(w);
	world_given_back(w);
	world_stop(w);
	return tap_done();
}
