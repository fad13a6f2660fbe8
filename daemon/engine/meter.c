/* SPDX-License-Identifier: Apache-2.0 */
/* meter.c - see meter.h. */
#include "daemon/engine/meter.h"

#define US 1000ull
#define MS (1000 * US)
#define S  (1000 * MS)

const uint64_t meter_time_bounds[METER_TIME_BOUNDS] = {
	10 * US, 20 * US, 50 * US, 100 * US, 200 * US, 500 * US, MS,	   2 * MS,
	5 * MS,	 10 * MS, 20 * MS, 50 * MS,  100 * MS, 200 * MS, 500 * MS, S,
	2 * S,	 5 * S,	  10 * S,  20 * S,   50 * S,   100 * S,	 200 * S,
};

const uint64_t meter_size_bounds[METER_SIZE_BOUNDS] = {
	1,	 2,	  4,	   8,	    16,	     32,      64,      128,	256,	 512,
	1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 15, 1 << 16, 1 << 17, 1 << 18,
};

const char *const meter_time_names[METER_N_TIMES] = {
	[METER_QUEUE] = "queue",     [METER_FIRST] = "first_token",
	[METER_PREFILL] = "prefill", [METER_BETWEEN] = "between_tokens",
	[METER_DECODE] = "decode",   [METER_WHOLE] = "whole",
	[METER_PASS] = "pass",
};

const char *const meter_size_names[METER_N_SIZES] = {
	[METER_PROMPT] = "prompt_tokens",
	[METER_ANSWER] = "answer_tokens",
	[METER_ROWS] = "pass_rows",
};

/* The first bound that x does not exceed, or n. */
static uint32_t bucket(const uint64_t *bounds, uint32_t n, uint64_t x)
{
	uint32_t i = 0;

	while (i < n && x > bounds[i])
		i++;
	return i;
}

void meter_time(struct meter *m, enum meter_time what, uint64_t from_ns, uint64_t to_ns)
{
	struct meter_times *t = &m->time[what];
	uint64_t ns = to_ns > from_ns ? to_ns - from_ns : 0;

	if (!from_ns || !to_ns)
		return;
	t->sum_ns += ns;
	t->bucket[bucket(meter_time_bounds, METER_TIME_BOUNDS, ns)]++;
}

void meter_size(struct meter *m, enum meter_size what, uint64_t size)
{
	struct meter_sizes *t = &m->size[what];

	t->sum += size;
	t->bucket[bucket(meter_size_bounds, METER_SIZE_BOUNDS, size)]++;
}
