/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_desc.c - libFuzzer on the descriptor decoder, with msgpack-c as the second opinion.
 *
 * The decoder runs on a heap copy of exactly the input's length. Its verdict and, when accepted, its
 * contents must be the oracle's; every count must lie within its array. Run by `make fuzz`.
 */
#include "tests/shm/desc_oracle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool cond)
{
	if (!cond)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct wshm_desc mine, theirs;
	uint32_t key, bytes = (uint32_t)size;
	uint8_t *copy = malloc(size ? size : 1);
	int rc, verdict;

	if (size)
		memcpy(copy, data, size);
	rc = wshm_desc_decode(&mine, copy, bytes, &key);
	verdict = oracle_judge(copy, bytes, !rc, &theirs);
	free(copy);
	require(rc == 0 || rc == -EBADMSG || rc == -ERANGE);
	require(verdict < 0 || verdict == !rc);
	if (!rc)
		require(oracle_equal(&mine, &theirs));
	return 0;
}
