/* SPDX-License-Identifier: Apache-2.0 */
/* test_slab.c - where tokens and log-probabilities lie in a slab, computed by hand. */
#include "shm/wshm.h"
#include "tests/tap.h"

int main(void)
{
	struct wshm_slab_layout l;

	wshm_slab_layout(&l, 1, 1, 5, WSHM_NO_LOGPROBS, WSHM_NO_LOGPROBS);
	is_int(l.sample_bytes, 128, "one token takes a line");
	is_int(l.bytes, 128, "nothing else");
	is_int(l.logprob_off + l.prompt_logprob_off, 0, "no log-probabilities");
	is_int(l.logprob_bytes + l.prompt_logprob_bytes, 0, "no entries");

	wshm_slab_layout(&l, 3, 7, 5, 0, WSHM_NO_LOGPROBS);
	is_int(l.logprob_off, 32, "28 bytes of tokens up to 8");
	is_int(l.logprob_bytes, 8, "the token's own pair");
	is_int(l.sample_bytes, 128, "32 + 56 up to a line");
	is_int(l.bytes, 384, "three samples");

	wshm_slab_layout(&l, 2, 100, 11, 20, 2);
	is_int(l.logprob_off, 400, "100 tokens");
	is_int(l.logprob_bytes, 168, "21 pairs");
	is_int(l.sample_bytes, 17280, "400 + 16800 up to a line");
	is_int(l.prompt_logprob_off, 34560, "after both samples");
	is_int(l.prompt_logprob_bytes, 24, "3 pairs");
	is_int(l.bytes, 34560 + 384, "264 bytes up to a line");

	wshm_slab_layout(&l, 16, UINT32_MAX, UINT32_MAX, 20, 20);
	ok(l.bytes > UINT64_C(16) * UINT32_MAX * 172 && l.bytes < UINT64_C(1) << 44,
	   "the largest does not wrap");
	return tap_done();
}
