/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_engine_chores.c - a large adapter is brought into the pool, and unloaded, a part in each pass:
 * streams of others go on meanwhile, token by token, and whoever waits for it gets what it gives
 * when it has been there all along. Counted in passes and bytes, not in time: the engine is told to
 * move very little in a pass, so that a small adapter takes many.
 */
#include "tests/e2e/adapter_files.h"
#include "tests/e2e/engine_harness.h"
#include "tests/tap.h"

#include <stdlib.h>
#include <unistd.h>

#define SLICE	 4096u
#define N_PROMPT 40u
#define LONG	 200u /* tokens of a stream */
#define ANSWER	 20u
#define ALL	 4u /* requests that want the adapter at once */
#define HALF	 5u /* passes that bring something, where it is to stay half there */

static uint32_t prompt[N_PROMPT];
static char dir[] = "/tmp/weft-chores-XXXXXX";

static void ask(struct eh_session *s, const char *adapter, uint32_t tokens, struct eh_req *ret)
{
	struct wshm_desc d;

	eh_desc(&d);
	d.max_tokens = tokens;
	d.ignore_eos = true;
	d.logprobs = 1;
	if (adapter)
		snprintf(d.adapter, sizeof(d.adapter), "%s", adapter);
	eh_submit(s, &d, prompt, N_PROMPT, NULL, ret);
}

static void start(struct eh *h, struct eh_session **s)
{
	eh_init(h, eh_model_dir("llama"));
	eh_arg(h, "--threads");
	eh_arg(h, "1");
	eh_arg(h, "--kv-bytes");
	eh_arg(h, "16000000");
	eh_start(h);
	*s = eh_open(h, 0, 16, 1 << 20);
}

/* What the adapter answers when it is all there. */
static void reference(const char *folder, struct eh_result *ret)
{
	struct eh_session *s;
	struct eh_req r;
	struct eh h;

	start(&h, &s);
	if (eh_adapter_load(&h, folder, "big", 0, WSHM_MISSING_ERROR, NULL))
		bail_out("the adapter does not load");
	is_int(eh_number(&h, "adapters_placed"), 1, "a small adapter is there when it is loaded");
	ask(s, "big", ANSWER, &r);
	eh_wait(&r);
	eh_result_take(ret, &r);
	eh_stop(&h);
}

/* Its weights come a part in each pass; everybody who waits for them is served. */
static void test_place(struct eh *h, struct eh_session *s, const char *folder,
		       const struct eh_result *want)
{
	struct wlink_adapter_reply loaded;
	struct eh_req stream, r[ALL];
	struct eh_result got;
	double parts, block = eh_number(h, "block_bytes"), steps;
	uint32_t good = 0;

	ask(s, NULL, LONG, &stream);
	eh_wait_tokens(&stream, 0, 1);
	steps = eh_number(h, "steps");
	is_int(eh_adapter_load(h, folder, "big", 0, WSHM_MISSING_ERROR, &loaded), 0, "it loads");
	for (uint32_t i = 0; i < ALL; i++)
		ask(s, "big", ANSWER, &r[i]);
	for (uint32_t i = 0; i < ALL; i++) {
		good += eh_wait(&r[i]) && eh_status(&r[i]) == WSHM_OK;
		eh_result_take(&got, &r[i]);
		good += eh_result_same(&got, want);
		eh_result_free(&got);
		eh_release(&r[i]);
	}
	is_int(good, 2 * ALL, "those who wait for it get what it gives when it is there");
	is_int(eh_number(h, "adapters_placed"), 1, "it was brought once");
	/* Of its blocks at most the last is not full of pieces. */
	parts = (double)loaded.weight_bytes / (SLICE + block) - 1;
	ok(eh_number(h, "place_passes") >= parts && parts > 20,
	   "in %.0f passes (%.0f at the least)", eh_number(h, "place_passes"), parts);
	ok(eh_number(h, "place_most_bytes") <= SLICE + block,
	   "none of which moved more than that and the rest of a block: %.0f bytes",
	   eh_number(h, "place_most_bytes"));
	eh_wait(&stream);
	is_int(eh_status(&stream), WSHM_OK, "the stream beside it ends well");
	ok(eh_number(h, "steps") > steps, "and had its steps");
	eh_release(&stream);
}

static void wait_number(struct eh *h, const char *path, double value)
{
	for (uint64_t end = eh_now_ns() + EH_WAIT_MS * UINT64_C(1000000);
	     eh_number(h, path) != value && eh_now_ns() < end;)
		usleep(1000);
	is_int(eh_number(h, path), value, "%s", path);
}

/* Unloaded on its way into the pool: who waits is told, and what it had comes back. The engine stops
 * half way; the second time it does not even begin. */
static void test_unload_half(struct eh *h, struct eh_session *s, const char *folder)
{
	double idle = eh_number(h, "blocks_free") + eh_number(h, "blocks_idle");
	struct eh_req r;

	is_int(eh_adapter_load(h, folder, "big", 0, WSHM_MISSING_ERROR, NULL), 0, "loaded");
	ask(s, "big", ANSWER, &r);
	wait_number(h, "adapters.0.in_use", 1);
	wait_number(h, "place_passes", HALF);
	is_int(eh_number(h, "adapters_placed"), 0, "it is not whole");
	ok(eh_number(h, "blocks_free") + eh_number(h, "blocks_idle") < idle, "it has its blocks");
	is_int(eh_adapter_unload(h, "big", true, NULL), 0, "and unloaded by force");
	eh_wait(&r);
	is_int(eh_status(&r), WSHM_UNLOADED, "who waited for it hears of it");
	is_int(eh_count(&r, 0), 0, "without a token");
	eh_release(&r);
	is_int(eh_number(h, "blocks_free") + eh_number(h, "blocks_idle"), idle,
	       "its blocks are back");
}

int main(void)
{
	struct af_adapter af = {.linears = AF_ALL, .rank = 192, .alpha = 64, .seed = 9};
	struct eh_result want;
	struct eh_session *s;
	char folder[64], slice[24], half[24];
	struct eh h;

	for (uint32_t i = 0; i < N_PROMPT; i++)
		prompt[i] = i * 11 % 150;
	if (!mkdtemp(dir))
		bail_out(dir);
	snprintf(folder, sizeof(folder), "%s/big", dir);
	af_write(folder, eh_model_dir("llama"), &af);
	reference(folder, &want);
	snprintf(slice, sizeof(slice), "%u", SLICE);
	setenv("WEFT_TEST_SLICE_BYTES", slice, 1);
	start(&h, &s);
	test_place(&h, s, folder, &want);
	is_int(eh_adapter_unload(&h, "big", false, NULL), 0, "it is unloaded");
	eh_stop(&h);
	snprintf(half, sizeof(half), "%u", HALF);
	setenv("WEFT_TEST_SLICES", half, 1);
	start(&h, &s);
	for (int i = 0; i < 2; i++)
		test_unload_half(&h, s, folder);
	eh_stop(&h);
	eh_result_free(&want);
	af_remove(folder);
	rmdir(dir);
	return tap_done();
}
