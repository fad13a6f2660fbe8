/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SIGTERM: what runs is finished, nothing new is taken; what has not ended by the deadline ends as
 * SHUTDOWN; either way weftd leaves with status 0 and takes the engine along.
 */
#include "tests/hostile/raw.h"
#include "tests/hostile/world.h"
#include "tests/tap.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

static struct raw open_raw(struct world *w)
{
	struct raw r;

	if (raw_open(&r, world_socket(w), RAW_ANY_UID, 8))
		bail_out("a raw client is refused");
	return r;
}

static void in_time(void)
{
	struct world *w = world_start(&(struct world_options){.daemon = "drain_seconds = 60"});
	struct raw r = open_raw(w), late;
	pid_t engine = world_engine(w);
	uint32_t whole = 0;

	for (uint32_t i = 0; i < 8; i++)
		raw_submit(&r, i, 1, i, 10, 1000);
	for (uint32_t i = 0; i < 8; i++) /* what is still in the ring would be refused */
		raw_wait_count(&r, i, 1, 1, RAW_PATIENCE_MS);
	kill(world_daemon(w), SIGTERM);
	for (uint32_t i = 0; i < 8; i++)
		whole += raw_wait_state(&r, i, 1, WSHM_SLOT_ENDED, RAW_PATIENCE_MS) &&
			 atomic_load(&r.slot[i].status) == WSHM_OK &&
			 atomic_load(&r.slot[i].count[0]) == 1000;
	is_int(whole, 8, "all that ran at SIGTERM is finished");
	is_int(world_wait_exit(w, RAW_PATIENCE_MS), 0, "weftd leaves with status 0");
	ok(kill(engine, 0) && errno == ESRCH, "and the engine with it");
	ok(raw_open(&late, world_socket(w), RAW_ANY_UID, 2) < 0, "nobody answers any more");
	raw_close(&r);
	world_stop(w);
}

static void too_late(void)
{
	struct world *w = world_start(&(struct world_options){
		.daemon = "drain_seconds = 1", .model = "kv_bytes = 64M\nbackend = ref"});
	struct raw r = open_raw(w);
	uint32_t told = 0, some = 0;
	uint64_t start;

	for (uint32_t i = 0; i < 8; i++)
		raw_submit(&r, i, 1, i, 10, 8000);
	for (uint32_t i = 0; i < 8; i++)
		raw_wait_count(&r, i, 1, 1, RAW_PATIENCE_MS);
	start = raw_now_ns();
	kill(world_daemon(w), SIGTERM);
	raw_pause_us(200000);
	raw_prepare(&r, 0, 2, 1, 4, 4);
	for (uint32_t i = 0; i < 8; i++) {
		raw_wait_state(&r, i, 1, WSHM_SLOT_ENDED, RAW_PATIENCE_MS);
		told += atomic_load(&r.slot[i].status) == WSHM_SHUTDOWN;
		some += atomic_load(&r.slot[i].count[0]) > 0;
	}
	is_int(told, 8, "what has not ended by the deadline is told so");
	is_int(some, 8, "and keeps the tokens that it has");
	is_int(world_wait_exit(w, RAW_PATIENCE_MS), 0, "weftd leaves with status 0");
	ok(raw_now_ns() - start < UINT64_C(30000000000) * world_slowness(), "soon after it");
	raw_close(&r);
	world_stop(w);
}

int main(void)
{
	in_time();
	too_late();
	return tap_done();
}
