/* SPDX-License-Identifier: Apache-2.0 */
/* test_fetch.c - what is copied out of the arena, at every alignment and at every boundary. */
#include "tests/shm/pair.h"
#include "tests/tap.h"

#include <errno.h>

static void test_bytes(struct pair *p, uint64_t size)
{
	uint8_t *arena = wshm_client_tx_arena(&p->client), copy[80];
	uint32_t off, len, bad = 0, spilled = 0;
	uint64_t i;

	for (i = 0; i < size; i++)
		arena[i] = (uint8_t)(i * 7 + (i >> 8));
	for (off = 0; off < 24; off++)
		for (len = 0; len <= 64; len++) {
			memset(copy, 0xee, sizeof(copy));
			bad += wshm_engine_fetch(&p->engine, off, copy + 3, len) != 0;
			bad += memcmp(copy + 3, arena + off, len) != 0;
			spilled += copy[2] != 0xee || copy[3 + len] != 0xee;
		}
	is_int(bad, 0, "every alignment and length up to 64");
	is_int(spilled, 0, "nothing written beside the copy");
}

static void test_bounds(struct pair *p, uint64_t size)
{
	static uint8_t copy[65536];
	static const uint64_t huge[] = {UINT64_MAX, UINT64_MAX - 1, UINT64_MAX - 65535,
					UINT64_C(1) << 63, UINT64_C(1) << 32};
	const struct wshm_engine *e = &p->engine;
	uint32_t i, j, bad = 0;

	is_int(wshm_engine_fetch(e, 0, copy, size), 0, "the whole arena");
	is_int(wshm_engine_fetch(e, size - 1, copy, 1), 0, "its last byte");
	is_int(wshm_engine_fetch(e, size, copy, 0), 0, "nothing, at its end");
	is_int(wshm_engine_fetch(e, size, copy, 1), -EPROTO, "one byte at its end");
	is_int(wshm_engine_fetch(e, size - 1, copy, 2), -EPROTO, "over its end by one");
	is_int(wshm_engine_fetch(e, 0, copy, size + 1), -EPROTO, "one byte more than it has");
	is_int(wshm_engine_fetch(e, 1, copy, size), -EPROTO, "all of it, from one");
	is_int(wshm_engine_fetch(e, size + 1, copy, 0), -EPROTO, "nothing, beyond its end");
	for (i = 0; i < 5; i++)
		for (j = 0; j < 5; j++) {
			bad += wshm_engine_fetch(e, huge[i], copy, huge[j]) != -EPROTO;
			bad += wshm_engine_fetch(e, 8, copy, huge[j]) != -EPROTO;
			bad += wshm_engine_fetch(e, huge[i], copy, 8) != -EPROTO;
		}
	is_int(bad, 0, "absurd offsets and lengths, sums that wrap");
}

static void test_u32(struct pair *p, uint64_t size)
{
	static uint32_t copy[16384];
	const struct wshm_engine *e = &p->engine;
	uint8_t *arena = wshm_client_tx_arena(&p->client);
	uint64_t n = size / 4;

	is_int(wshm_engine_fetch_u32(e, 4, copy, 5), 0, "five words");
	ok(!memcmp(copy, arena + 4, 20), "are those words");
	is_int(wshm_engine_fetch_u32(e, 0, copy, n), 0, "all words");
	is_int(wshm_engine_fetch_u32(e, 0, copy, n + 1), -EPROTO, "one too many");
	is_int(wshm_engine_fetch_u32(e, size - 4, copy, 1), 0, "the last word");
	is_int(wshm_engine_fetch_u32(e, size - 4, copy, 2), -EPROTO, "and one more");
	is_int(wshm_engine_fetch_u32(e, 2, copy, 1), -EPROTO, "not aligned");
	is_int(wshm_engine_fetch_u32(e, 0, copy, (UINT64_C(1) << 62) + 1), -EPROTO,
	       "a count whose bytes wrap to four");
	is_int(wshm_engine_fetch_u32(e, 0, copy, UINT64_MAX), -EPROTO, "the largest count");
}

static void test_req(struct pair *p)
{
	struct wshm_req_copy r;

	wshm_client_req_write(&p->client, 3, 8, UINT64_C(0x123456789abcdef0), 77);
	wshm_engine_fetch_req(&p->engine, 3, &r);
	ok(r.generation == 8 && r.desc_bytes == 77 && r.desc_off == UINT64_C(0x123456789abcdef0),
	   "the request's words arrive");
}

int main(void)
{
	struct pair p;
	uint64_t size;

	pair_open(&p, 8, 0);
	size = p.layout.params.tx_arena_bytes;
	test_bytes(&p, size);
	test_bounds(&p, size);
	test_u32(&p, size);
	test_req(&p);
	pair_close(&p);
	return tap_done();
}
