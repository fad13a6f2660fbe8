/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_desc_oracle.c - the descriptor decoder agrees with msgpack-c: on what valid descriptors say,
 * on every truncation and every single-byte change of many of them, and on random damage.
 *
 * Each decode runs on a heap copy of exactly its length, so the address sanitizer sees any read
 * beyond it. test_desc_oracle --corpus DIR writes the fuzzer's seeds.
 */
#include "tests/shm/desc_oracle.h"
#include "tests/shm/pair.h"
#include "tests/tap.h"

#include <errno.h>

static struct {
	uint32_t judged, accepted, no_opinion, disagreed, wrong;
} tally;

/* Decode a copy and compare with the oracle's verdict. */
static void check(const uint8_t *data, uint32_t bytes)
{
	static struct wshm_desc mine, theirs;
	uint8_t *copy = malloc(bytes ? bytes : 1);
	uint32_t key = 0;
	int rc, verdict;

	memcpy(copy, data, bytes);
	rc = wshm_desc_decode(&mine, copy, bytes, &key);
	verdict = oracle_judge(copy, bytes, !rc, &theirs);
	free(copy);
	tally.judged++;
	tally.accepted += !rc;
	tally.wrong += rc && rc != -EBADMSG && rc != -ERANGE;
	if (verdict < 0)
		tally.no_opinion++;
	else if (verdict != !rc)
		tally.disagreed++;
	else if (!rc)
		tally.wrong += !oracle_equal(&mine, &theirs);
}

static void report(const char *what)
{
	diag("%s: %u decoded, %u accepted, %u without an opinion", what, tally.judged,
	     tally.accepted, tally.no_opinion);
	is_int(tally.disagreed, 0, "%s: same verdicts", what);
	is_int(tally.wrong, 0, "%s: same contents", what);
	memset(&tally, 0, sizeof(tally));
}

/* A random descriptor without the bytes that would leave the oracle without an opinion. */
static uint32_t random_clean(uint64_t *rng, uint32_t max, uint8_t data[WSHM_MAX_DESC])
{
	static struct wshm_desc packed;
	uint32_t bytes;

	do
		bytes = oracle_random(rng, &packed, data);
	while (bytes > max || memchr(data, 0xdd, bytes) || memchr(data, 0xdf, bytes));
	return bytes;
}

static void test_valid(uint64_t *rng)
{
	static struct wshm_desc packed, mine;
	uint32_t i, key, bytes, bad = 0;
	uint8_t data[WSHM_MAX_DESC];

	for (i = 0; i < 20000; i++) {
		bytes = oracle_random(rng, &packed, data);
		bad += wshm_desc_decode(&mine, data, bytes, &key) || !oracle_equal(&mine, &packed);
	}
	is_int(bad, 0, "20000 random descriptors decode to what was packed");
}

static void test_truncations(uint64_t *rng)
{
	uint8_t data[WSHM_MAX_DESC];
	uint32_t i, n, bytes;

	for (i = 0; i < 100; i++) {
		bytes = random_clean(rng, WSHM_MAX_DESC, data);
		for (n = 0; n < bytes; n++)
			check(data, n);
	}
	is_int(tally.accepted, 0, "no truncation is accepted");
	report("truncations");
}

static void test_single_bytes(uint64_t *rng)
{
	uint8_t data[WSHM_MAX_DESC];
	uint32_t i, at, value, bytes;

	for (i = 0; i < 12; i++) {
		bytes = random_clean(rng, 400, data);
		for (at = 0; at < bytes; at++) {
			uint8_t was = data[at];

			for (value = 0; value < 256; value++) {
				data[at] = (uint8_t)value;
				check(data, bytes);
			}
			data[at] = was;
		}
	}
	report("single bytes");
}

/* Several changes at once: bytes overwritten, removed, inserted, pieces doubled. */
static void test_damage(uint64_t *rng)
{
	uint8_t data[WSHM_MAX_DESC + 64];
	uint32_t i, j, at, n, bytes = 0;

	for (i = 0; i < 200000; i++) {
		if (i % 20 == 0)
			bytes = random_clean(rng, WSHM_MAX_DESC, data);
		for (j = pair_random(rng) % 3 + 1; j; j--) {
			at = pair_random(rng) % bytes;
			n = pair_random(rng) % 4 + 1;
			switch (pair_random(rng) % 4) {
			case 0:
			case 1:
				data[at] = (uint8_t)pair_random(rng);
				break;
			case 2:
				if (at + n < bytes && bytes > 8) {
					memmove(data + at, data + at + n, bytes - at - n);
					bytes -= n;
				}
				break;
			case 3:
				if (bytes + n < sizeof(data)) {
					memmove(data + at + n, data + at, bytes - at);
					bytes += n;
				}
				break;
			}
		}
		check(data, bytes);
	}
	report("damage");
}

static void write_corpus(const char *dir)
{
	uint64_t rng = 20;
	struct wshm_desc d;
	uint8_t data[WSHM_MAX_DESC];
	uint32_t i, bytes;
	char path[4096];
	FILE *f;

	for (i = 0; i < 24; i++) {
		do
			bytes = oracle_random(&rng, &d, data);
		while (bytes > 600);
		snprintf(path, sizeof(path), "%s/valid-%02u", dir, i);
		f = fopen(path, "w");
		if (!f || fwrite(data, 1, bytes, f) != bytes || fclose(f))
			bail_out(path);
	}
}

int main(int argc, char **argv)
{
	uint64_t rng = 1;

	if (argc == 3 && !strcmp(argv[1], "--corpus")) {
		write_corpus(argv[2]);
		return 0;
	}
	test_valid(&rng);
	test_truncations(&rng);
	test_single_bytes(&rng);
	test_damage(&rng);
	return tap_done();
}
