/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_safetensors.c - libFuzzer on the header of a safetensors file.
 *
 * The first two bytes say how much data follows the header. Whatever is accepted must describe
 * exactly that data: each tensor as large as its shape, none outside, all of it covered once.
 */
#include "daemon/common/err.h"
#include "daemon/engine/model/safetensors.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool cond)
{
	if (!cond)
		abort();
}

static void check_accepted(const struct st_set *set, uint64_t data_bytes)
{
	uint8_t *covered = calloc(1, data_bytes + 1);

	for (uint32_t i = 0; i < set->n_tensors; i++) {
		const struct st_tensor *t = &set->tensors[i];
		uint64_t bytes = st_dtype_bytes(t->dtype);

		require(t->n_dims >= 1 && t->n_dims <= ST_MAX_DIMS && t->begin <= data_bytes);
		for (uint32_t d = 0; d < t->n_dims; d++)
			bytes *= t->shape[d];
		require(bytes == t->bytes && bytes <= data_bytes - t->begin);
		for (uint64_t b = 0; b < bytes; b++)
			require(!covered[t->begin + b]++);
	}
	for (uint64_t b = 0; b < data_bytes; b++)
		require(covered[b]);
	free(covered);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct st_set set = {0};
	struct weft_err err = {0};
	uint64_t data_bytes;
	char *copy;
	int r;

	if (size < 2)
		return 0;
	data_bytes = data[0] | (uint64_t)data[1] << 8;
	copy = malloc(size - 1);
	memcpy(copy, data + 2, size - 2);
	r = safetensors_parse(&set, "fuzzed", copy, size - 2, data_bytes, &err);
	free(copy);
	if (!r)
		check_accepted(&set, data_bytes);
	else
		require(strstr(err.message, "fuzzed") != NULL);
	safetensors_close(&set);
	return 0;
}
