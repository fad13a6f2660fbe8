/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weftd and an engine on the CUDA backend, with the fake driver: requests of all kinds side by side get,
 * bit for bit, what they get alone; and a device that fails in the middle costs one restart, leaves a
 * line in the log that says what failed and where, and loses no request.
 */
#include "tests/cuda/fake_device.h"
#include "tests/hostile/world.h"
#include "tests/tap.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Of the requests some are under way when the call fails. */
static void failing(const char *call, unsigned nth, int code, const char *name)
{
	char once[64], plan[256], text[128];
	struct world *w;
	struct neighbours *n;
	FILE *f;

	snprintf(once, sizeof(once), "/tmp/weft-cuda-once-%d", (int)getpid());
	snprintf(plan, sizeof(plan), "WEFT_FAKE_CUDA_FAIL=%s:%u:%d:%s", call, nth, code, once);
	unlink(once);
	w = world_start(&(struct world_options){
		.model = "kv_bytes = 4M\nbackend = cuda\nmax_seqs = 8", .env = {plan}});
	world_reference(w);
	n = neighbours_start(w, 2);
	/* From here on the plan holds, in the engine that comes next. */
	f = fopen(once, "w");
	if (!f)
		bail_out("cannot make a file");
	fclose(f);
	kill(world_engine(w), SIGKILL);
	for (int i = 0; i < 100 && !access(once, F_OK) && neighbours_advance(n, 1, 240000); i++)
		;
	ok(access(once, F_OK), "%s has failed with %d", call, code);
	ok(neighbours_advance(n, 2, 240000), "and requests go on");
	snprintf(text, sizeof(text), "%s", name);
	ok(world_logged(w, text), "the log names the failure: %s", text);
	neighbours_stop(n);
	ok(world_number(w, "starts") >= 3, "the engine was started again");
	ok(world_number(w, "steps_ahead") > 0, "and queues passes ahead (%lld of %lld)",
	   world_number(w, "steps_ahead"), world_number(w, "steps"));
	world_given_back(w);
	world_stop(w);
	unlink(once);
}

int main(void)
{
	if (!fake_device()) {
		skip(1, "no emulated device here");
		return tap_done();
	}
	failing("cuLaunchKernel", 60, 700, "CUDA_ERROR_ILLEGAL_ADDRESS");
	return tap_done();
}
