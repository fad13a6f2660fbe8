/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A storm of requests of every kind (storm.h) from several sessions at once, with a pool that is
 * too small for them: all end, the engine stands, the neighbours' answers are those they get alone.
 */
#include "tests/hostile/storm.h"
#include "tests/hostile/world.h"
#include "tests/tap.h"

#define SESSIONS 3u
#define SECONDS	 8u

int main(void)
{
	uint32_t seed = (uint32_t)raw_now_ns() | 1, settled = 0;
	uint64_t submitted = 0, served = 0, refused = 0, faults = 0, until, slowest = 0;
	struct storm s[SESSIONS];
	struct raw r[SESSIONS];
	struct neighbours *n;
	struct world *w;

	/* 400 blocks: three sessions could use ten times as many. */
	w = world_start(&(struct world_options){.model = "kv_bytes = 1600K\nprefill_chunk = 48"});
	n = neighbours_start(w, 1);
	diag("random seed %u", seed);
	for (uint32_t i = 0; i < SESSIONS; i++) {
		if (storm_open(&r[i], world_socket(w), world_attacker()))
			bail_out("a raw client is refused");
		storm_init(&s[i], &r[i], seed + i);
	}
	until = raw_now_ns() + SECONDS * UINT64_C(1000000000);
	/* Longer where there is little of a processor to be had. */
	while (raw_now_ns() < until ||
	       (raw_now_ns() < until + UINT64_C(60000000000) && s[0].by_status[WSHM_OK] <= 100)) {
		for (uint32_t k = 0; k < 100 * SESSIONS; k++)
			storm_turn(&s[k % SESSIONS]);
		raw_pause_us(50);
	}
	for (uint32_t i = 0; i < SESSIONS; i++) {
		settled += storm_settle(&s[i], RAW_PATIENCE_MS * (int)world_slowness());
		submitted += s[i].submitted;
		served += s[i].by_status[WSHM_OK];
		faults += s[i].by_status[WSHM_ENGINE_FAULT] + s[i].by_status[WSHM_PROTOCOL];
		if (s[i].slowest_ns > slowest)
			slowest = s[i].slowest_ns;
		for (int k = WSHM_BAD_DESCRIPTOR; k < WSHM_N_STATUS; k++)
			refused += s[i].by_status[k];
	}
	for (int k = 0; k < WSHM_N_STATUS; k++)
		if (s[0].by_status[k])
			diag("%s: %llu", weft_status_name((enum weft_status)k),
			     (unsigned long long)s[0].by_status[k]);
	is_int(settled, SESSIONS, "all that was asked has ended");
	diag("%llu submitted, %llu served (slowest %.0f ms), %llu refused, %lld preemptions",
	     (unsigned long long)submitted, (unsigned long long)served, slowest / 1e6,
	     (unsigned long long)refused, world_number(w, "preemptions"));
	ok(served > 100 && refused > 10, "good and bad ones were among them");
	is_int(faults, 0, "none is the engine's fault");
	for (uint32_t i = 0; i < SESSIONS; i++)
		raw_close(&r[i]);
	neighbours_stop(n);
	world_same(w);
	world_given_back(w);
	world_stop(w);
	return tap_done();
}
