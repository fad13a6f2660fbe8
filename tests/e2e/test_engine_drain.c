/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_engine_drain.c - draining: what runs may end, what comes is refused, what cannot end in time
 * ends with SHUTDOWN; and the engine says when it is done.
 */
#include "tests/e2e/engine_harness.h"
#include "tests/tap.h"

static uint32_t prompt[64];

static void start(struct eh *h, struct eh_session **s)
{
	eh_init(h, eh_model_dir("llama"));
	eh_arg(h, "--threads");
	eh_arg(h, "1");
	eh_start(h);
	*s = eh_open(h, 0, 16, 1 << 20);
}

static void drain(struct eh *h, uint64_t in_ms)
{
	struct wlink_drain msg = {.deadline_ns = eh_now_ns() + in_ms * 1000000};

	wctl_head_init(&msg.head, WLINK_DRAIN, sizeof(msg), 0);
	wctl_send(h->link, &msg, sizeof(msg), NULL, 0);
}

/* Sixteen requests that a drain of 20 ms cuts short. How many it does; *ret_right: that end as they should. */
static uint32_t cut_short(struct wshm_desc *d, uint32_t *ret_right, uint64_t *ret_ns)
{
	struct eh_session *s;
	struct eh_req r[16];
	uint32_t shut = 0;
	uint64_t begun;
	struct eh h;

	*ret_right = 0;
	start(&h, &s);
	for (int i = 0; i < 16; i++)
		eh_submit(s, d, prompt, 60, NULL, &r[i]);
	eh_wait_tokens(&r[0], 0, 1);
	begun = eh_now_ns();
	drain(&h, 20);
	eh_expect(&h, WLINK_DRAINED, NULL, 0);
	*ret_ns = eh_now_ns() - begun;
	for (int i = 0; i < 16; i++) {
		eh_wait(&r[i]);
		shut += eh_status(&r[i]) == WSHM_SHUTDOWN;
		*ret_right += eh_status(&r[i]) == WSHM_SHUTDOWN || eh_status(&r[i]) == WSHM_OK;
	}
	eh_stop(&h);
	return shut;
}

int main(void)
{
	struct eh_session *s;
	struct wshm_desc d;
	struct eh_req a, b;
	uint32_t shut = 0, right = 0;
	uint64_t took = 0;
	struct eh h;

	for (uint32_t i = 0; i < 64; i++)
		prompt[i] = i;
	eh_desc(&d);
	d.max_tokens = 190;
	start(&h, &s);
	eh_submit(s, &d, prompt, 60, NULL, &a);
	eh_wait_tokens(&a, 0, 2);
	drain(&h, 30000);
	while (wshm_rx_engine_state(wshm_client_rx_ctl(&s->client)) != WSHM_ENGINE_DRAINING)
		;
	ok(h.drained == 0, "draining begins");
	eh_submit(s, &d, prompt, 10, NULL, &b);
	eh_wait(&b);
	is_int(eh_status(&b), WSHM_SHUTDOWN, "a request that comes now is refused");
	eh_wait(&a);
	is_int(eh_status(&a), WSHM_OK, "the one that ran ends well");
	is_int(eh_count(&a, 0), 190, "and whole");
	if (!h.drained)
		eh_expect(&h, WLINK_DRAINED, NULL, 0);
	is_int(h.drained, 1, "then the engine says that it is done");
	eh_stop(&h);

	d.n = 16;
	d.temperature = 1;
	/* None, if this process was held up until all had ended: once more. */
	for (int i = 0; i < 10 && !shut; i++)
		shut = cut_short(&d, &right, &took);
	ok(took >= 20000000, "a drain waits until its deadline");
	is_int(right, 16, "what could not end by then ends as shut down");
	ok(shut > 0, "which %u did", shut);
	return tap_done();
}
