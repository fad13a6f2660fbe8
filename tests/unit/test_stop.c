/* SPDX-License-Identifier: Apache-2.0 */
/* test_stop.c - when an answer ends, by hand-made cases. */
#include "daemon/engine/stop.h"
#include "tests/tap.h"

static const uint32_t eos[] = {2, 7};

static enum wshm_finish check(const struct wshm_desc *d, uint32_t n, const uint32_t *out)
{
	return stop_check(d, eos, 2, out, n);
}

#define CHECK(d, ...) \
	check(d, sizeof((uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t), (uint32_t[]){__VA_ARGS__})

int main(void)
{
	struct wshm_desc d;

	wshm_desc_init(&d);
	d.max_tokens = 5;
	is_int(CHECK(&d, 10), WSHM_FINISH_NONE, "an ordinary token goes on");
	is_int(CHECK(&d, 10, 7), WSHM_FINISH_EOS, "any of the model's end tokens ends");
	is_int(CHECK(&d, 7, 10), WSHM_FINISH_NONE, "only as the newest");
	is_int(CHECK(&d, 1, 1, 1, 1, 1), WSHM_FINISH_LENGTH, "max_tokens end");
	is_int(CHECK(&d, 1, 1, 1, 1, 2), WSHM_FINISH_EOS, "an end token in the last place says so");

	d.ignore_eos = true;
	is_int(CHECK(&d, 2), WSHM_FINISH_NONE, "ignore_eos ignores it");
	d.n_stop_tokens = 2;
	d.stop_tokens[0] = 30;
	d.stop_tokens[1] = 2;
	is_int(CHECK(&d, 2), WSHM_FINISH_STOP_TOKEN, "unless it is a stop token as well");
	is_int(CHECK(&d, 30), WSHM_FINISH_STOP_TOKEN, "a stop token ends");
	d.ignore_eos = false;
	is_int(CHECK(&d, 2), WSHM_FINISH_EOS, "the model's own meaning comes first");

	d.min_tokens = 3;
	is_int(CHECK(&d, 9, 30), WSHM_FINISH_NONE, "nothing ends before min_tokens");
	is_int(CHECK(&d, 9, 9, 30), WSHM_FINISH_STOP_TOKEN, "but with them");
	d.min_tokens = 0;

	d.n_stop_seqs = 2;
	d.stop_seqs[0].n = 3;
	memcpy(d.stop_seqs[0].tokens, (uint32_t[]){4, 5, 6}, 12);
	d.stop_seqs[1].n = 1;
	d.stop_seqs[1].tokens[0] = 8;
	is_int(CHECK(&d, 4, 5, 6), WSHM_FINISH_STOP_SEQUENCE, "a sequence at the very start");
	is_int(CHECK(&d, 4, 4, 5, 6), WSHM_FINISH_STOP_SEQUENCE, "or after others");
	is_int(CHECK(&d, 5, 6), WSHM_FINISH_NONE, "its tail alone is not it");
	is_int(CHECK(&d, 4, 5), WSHM_FINISH_NONE, "nor its head");
	is_int(CHECK(&d, 4, 5, 6, 9), WSHM_FINISH_NONE, "nor one that has passed");
	is_int(CHECK(&d, 8), WSHM_FINISH_STOP_SEQUENCE, "a sequence of one token");
	is_int(CHECK(&d, 1, 1, 4, 5, 6), WSHM_FINISH_STOP_SEQUENCE, "rather than the length");
	d.min_tokens = 4;
	is_int(CHECK(&d, 4, 5, 6), WSHM_FINISH_NONE, "min_tokens holds for sequences");
	is_int(CHECK(&d, 9, 4, 5, 6), WSHM_FINISH_STOP_SEQUENCE, "that end later");
	return tap_done();
}
