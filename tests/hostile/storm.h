/* SPDX-License-Identifier: Apache-2.0 */
/*
 * storm.h - requests of every kind, at random: all keys of the descriptor with values inside and
 * at the edge of their ranges, spoilt now and then; cancelled, released and overwritten at any
 * moment. Nothing is expected of one of them but that it ends.
 */
#ifndef WEFT_TESTS_STORM_H
#define WEFT_TESTS_STORM_H

#include "tests/hostile/raw.h"

#define STORM_SLOTS 32u

struct storm {
	struct raw *r; /* borrowed; of STORM_SLOTS slots, opened with storm_open() */
	uint32_t x;    /* random state, not 0 */
	bool faithful; /* no byte of a descriptor is spoilt: it might then point to bytes that
			* change while it runs, which the next engine must take for an attack */
	uint32_t generation[STORM_SLOTS];
	uint64_t since_ns[STORM_SLOTS];
	uint64_t submitted, ended;
	uint64_t by_status[WSHM_N_STATUS];
	uint64_t slowest_ns; /* of a request that was not cancelled */
};

int storm_open(struct raw *r, const char *path, uid_t uid);
void storm_init(struct storm *s, struct raw *r, uint32_t seed);
/* One look at one slot: judge, release, submit, cancel. */
void storm_turn(struct storm *s);
/* Wait for all that stand; false if one does not end within the time. */
bool storm_settle(struct storm *s, int timeout_ms);

#endif
