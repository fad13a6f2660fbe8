/* SPDX-License-Identifier: Apache-2.0 */
/* test_meter.c - histograms of times and sizes, against counting by hand. */
#include "daemon/engine/meter.h"
#include "tests/tap.h"

#include <stdbool.h>

static struct meter m;

static uint64_t total(const uint64_t *bucket, uint32_t n)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < n; i++)
		sum += bucket[i];
	return sum;
}

static void test_bounds(void)
{
	bool grow = true, by_two = true;

	for (uint32_t i = 1; i < METER_TIME_BOUNDS; i++) {
		grow = grow && meter_time_bounds[i] > meter_time_bounds[i - 1];
		by_two = by_two && meter_time_bounds[i] * 2 <= meter_time_bounds[i - 1] * 5;
	}
	for (uint32_t i = 1; i < METER_SIZE_BOUNDS; i++) {
		grow = grow && meter_size_bounds[i] > meter_size_bounds[i - 1];
		by_two = by_two && meter_size_bounds[i] == meter_size_bounds[i - 1] * 2;
	}
	ok(grow && by_two, "bounds grow, by two and a half at the most");
	is_int(meter_time_bounds[0], 10000, "the first one is 10 us");
	is_int(meter_time_bounds[METER_TIME_BOUNDS - 1] / 1000000000, 200, "the last one 200 s");
}

static void test_times(void)
{
	struct meter_times *t = &m.time[METER_FIRST];

	meter_time(&m, METER_FIRST, 1000, 1000 + 10000); /* at the bound: in its bucket */
	meter_time(&m, METER_FIRST, 1000, 1000 + 10001);
	meter_time(&m, METER_FIRST, 5, 5 + 1500000);	     /* between 1 and 2 ms */
	meter_time(&m, METER_FIRST, 1, 1 + 200000000000ull); /* at the last bound */
	meter_time(&m, METER_FIRST, 1, 1 + 200000000001ull); /* above all */
	meter_time(&m, METER_FIRST, 1000, 999);		     /* time does not run backwards */
	is_int(t->bucket[0], 2, "what is at most 10 us");
	is_int(t->bucket[1], 1, "a nanosecond more is the next bucket's");
	is_int(t->bucket[7], 1, "1.5 ms are within 2 ms");
	is_int(t->bucket[METER_TIME_BOUNDS - 1], 1, "200 s are in the last but one");
	is_int(t->bucket[METER_TIME_BOUNDS], 1, "more in the last");
	is_int(t->sum_ns, 10000 + 10001 + 1500000 + 200000000000ll + 200000000001ll, "the sum");
	meter_time(&m, METER_FIRST, 0, 77);
	meter_time(&m, METER_FIRST, 77, 0);
	is_int(total(t->bucket, METER_TIME_BOUNDS + 1), 6,
	       "each stands in one bucket, and a time that is not known in none");
	is_int(total(m.time[METER_QUEUE].bucket, METER_TIME_BOUNDS + 1), 0,
	       "and in no other histogram");
}

static void test_sizes(void)
{
	struct meter_sizes *t = &m.size[METER_PROMPT];

	for (uint64_t i = 0; i <= 20; i++)
		meter_size(&m, METER_PROMPT, i);
	meter_size(&m, METER_PROMPT, 1 << 20);
	is_int(t->bucket[0], 2, "0 and 1");
	is_int(t->bucket[1], 1, "2");
	is_int(t->bucket[2], 2, "3 and 4");
	is_int(t->bucket[4], 8, "9 to 16");
	is_int(t->bucket[5], 4, "17 to 20");
	is_int(t->bucket[METER_SIZE_BOUNDS], 1, "a million is above all");
	is_int(t->sum, 210 + (1 << 20), "the sum");
	is_int(total(t->bucket, METER_SIZE_BOUNDS + 1), 22, "how many");
}

int main(void)
{
	test_bounds();
	test_times();
	test_sizes();
	return tap_done();
}
