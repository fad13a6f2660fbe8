/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_engine_end.c - an engine ends when its link hangs up, even if the device's driver (here: the fake
 * one) does not return from a call: while it loads, and in the middle of a pass, when the control thread
 * waits for the core thread besides.
 */
#include "tests/cuda/fake_device.h"
#include "tests/e2e/engine_harness.h"
#include "tests/tap.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char marker[64];

/* The nth call will not return. */
static void plan(const char *call, unsigned nth)
{
	char text[128];
	FILE *f = fopen(marker, "w");

	if (!f)
		bail_out("cannot make a file");
	fclose(f);
	snprintf(text, sizeof(text), "%s:%u:0:%s", call, nth, marker);
	setenv("WEFT_FAKE_CUDA_FAIL", text, 1);
}

static void wait_stuck(void)
{
	uint64_t until = eh_now_ns() + EH_WAIT_MS * UINT64_C(1000000);

	while (!access(marker, F_OK)) {
		if (eh_now_ns() > until)
			bail_out("the call was not made");
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	}
}

static void init(struct eh *h)
{
	eh_init(h, eh_model_dir("llama"));
	eh_arg(h, "--backend");
	eh_arg(h, "cuda");
	eh_arg(h, "--kv-bytes");
	eh_arg(h, "1048576");
}

static void ends(struct eh *h, const char *when)
{
	ok(eh_hang_up(h, EH_WAIT_MS), "a device that does not answer %s: the engine ends", when);
	ok(WIFEXITED(h->exit_status) && WEXITSTATUS(h->exit_status) == 1, "with status 1");
	eh_stop(h);
}

static void test_loading(void)
{
	struct eh h;

	plan("cuMemAlloc", 2);
	init(&h);
	eh_launch(&h);
	wait_stuck();
	ends(&h, "while it loads");
}

static void test_serving(void)
{
	static const uint32_t prompt[20];
	struct eh_session *s;
	struct wshm_desc d;
	struct eh_req r;
	struct eh h;

	plan("cuLaunchKernel", 3);
	init(&h);
	eh_start(&h);
	s = eh_open(&h, 0, 4, 1 << 20);
	eh_desc(&d);
	eh_submit(s, &d, prompt, 20, NULL, &r);
	wait_stuck();
	/* A hang-up beside messages that nobody has read would be an error of the link's, and seen first. */
	eh_expect(&h, WLINK_BUSY, NULL, 0);
	/* Before a table of adapters is replaced the core thread has to let go of it. */
	eh_adapter_ask(&h, eh_adapter_dir("llama-all"), "a");
	ends(&h, "in the middle of a pass");
}

int main(void)
{
	if (!fake_device()) {
		skip(1, "no emulated device here");
		return tap_done();
	}
	snprintf(marker, sizeof(marker), "/tmp/weft-cuda-stuck-%d", (int)getpid());
	test_loading();
	test_serving();
	unlink(marker);
	return tap_done();
}
