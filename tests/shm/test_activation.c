/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_activation.c - the first adapted position of a prompt: the vectors that published
 * implementations agree or differ on, and a naive search over random prompts.
 */
#include "shm/wshm_key.h"
#include "tests/tap.h"

#include <stdlib.h>

static const uint32_t NONE = WSHM_NO_ACTIVATION;

/* PEFT's own words: the last start at which the whole invocation follows, in order. */
static uint32_t naive(const uint32_t *p, uint32_t n, const uint32_t *inv, uint32_t n_inv)
{
	uint32_t found = NONE;

	for (uint32_t i = 0; i + n_inv <= n; i++) {
		uint32_t same = 0;

		while (same < n_inv && p[i + same] == inv[same])
			same++;
		if (same == n_inv)
			found = i;
	}
	return found;
}

static void test_vectors(void)
{
	static const uint32_t inv[] = {1, 2};
	static const uint32_t a[] = {0, 1, 2, 3}, b[] = {1, 2, 1, 2}, c[] = {0, 4, 1, 4},
			      d[] = {1, 2, 2};
	static const uint32_t granite[] = {100264, 78191, 100265};
	static const uint32_t prompt[] = {7, 100264, 78191, 100265, 8, 100264, 78191, 9};

	is_int(wshm_activation(a, 4, inv, 2, 0), 1, "in the middle");
	is_int(wshm_activation(b, 4, inv, 2, 0), 2, "twice: the last one");
	is_int(wshm_activation(c, 4, inv, 2, 0), NONE, "absent");
	is_int(wshm_activation(d, 3, inv, 2, 0), 0,
	       "its last token once more behind it: still found");
	is_int(wshm_activation(prompt, 8, granite, 3, 0), 1, "cut short later on: the whole one");
	is_int(wshm_activation(prompt, 3, granite, 3, 0), NONE, "only its beginning is there");
	is_int(wshm_activation(inv, 1, inv, 2, 0), NONE, "longer than the prompt");
	is_int(wshm_activation(inv, 2, inv, 2, 0), 0, "it is all there is");
	is_int(wshm_activation(inv, 0, inv, 2, 0), NONE, "an empty prompt");
	is_int(wshm_activation(inv, 2, inv, 1, 0), 0, "of one token");
	is_int(wshm_activation(b, 4, inv, 0, 3), 0, "a plain LoRA: all positions");
	is_int(wshm_activation(b, 0, inv, 0, 0), 0, "a plain LoRA and an empty prompt");
}

static void test_offsets(void)
{
	static const uint32_t inv[] = {1, 2}, p[] = {0, 1, 2, 3};

	is_int(wshm_activation(p, 4, inv, 2, 1), 2, "one after the start");
	is_int(wshm_activation(p, 4, inv, 2, -1), 0, "one before it");
	is_int(wshm_activation(p, 4, inv, 2, -2), 0, "no further than the beginning");
	is_int(wshm_activation(p, 4, inv, 2, 3), 4, "the prompt's end: only what is generated");
	is_int(wshm_activation(p, 4, inv, 2, 4), 4, "no further than that");
	is_int(wshm_activation(p, 4, inv, 2, INT32_MAX), 4, "the largest offset");
	is_int(wshm_activation(p, 4, inv, 2, INT32_MIN), 0, "the smallest");
	is_int(wshm_activation(p, 2, inv, 2, -1), NONE, "an offset finds nothing by itself");
}

static void test_random(void)
{
	uint32_t p[40], inv[4], found = 0, wrong = 0;

	srand(1);
	for (int i = 0; i < 100000; i++) {
		uint32_t n = (uint32_t)rand() % 40, n_inv = 1 + (uint32_t)rand() % 4, got;

		for (uint32_t k = 0; k < n; k++)
			p[k] = (uint32_t)rand() % 3;
		for (uint32_t k = 0; k < n_inv; k++)
			inv[k] = (uint32_t)rand() % 3;
		got = wshm_activation(p, n, inv, n_inv, 0);
		found += got != NONE;
		wrong += got != naive(p, n, inv, n_inv);
	}
	is_int(wrong, 0, "100,000 random prompts: where a naive search finds it");
	ok(found > 20000 && found < 99000, "it was there in %u of them", found);
}

int main(void)
{
	test_vectors();
	test_offsets();
	test_random();
	return tap_done();
}
