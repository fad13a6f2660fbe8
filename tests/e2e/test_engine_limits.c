/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_engine_limits.c - what cannot be served is refused at once and says why; quotas; deadlines;
 * requests that wait for room; sessions that break the protocol.
 */
#include "tests/e2e/engine_harness.h"
#include "tests/tap.h"

#include <math.h>
#include <signal.h>
#include <unistd.h>

#define VOCAB 192

static uint32_t prompt[256];

static void expect(struct eh_session *s, struct wshm_desc *d, uint32_t n, uint32_t status,
		   uint32_t detail, const char *what)
{
	struct eh_req r;

	eh_submit(s, d, prompt, n, NULL, &r);
	eh_wait(&r);
	is_int(eh_status(&r), status, "%s", what);
	is_int(ord_load(&eh_slot(&r)->detail), detail, "  with its detail");
	eh_release(&r);
}

static void test_refusals(struct eh_session *s)
{
	struct wshm_desc d;

	eh_desc(&d);
	d.max_tokens = 200;
	expect(s, &d, 57, WSHM_TOO_LONG, 256, "one token more than the model's positions");
	d.max_tokens = 180;
	expect(s, &d, 70, WSHM_TOO_BIG, 16, "more blocks than the pool has");
	eh_desc(&d);
	snprintf(d.model, sizeof(d.model), "other");
	expect(s, &d, 3, WSHM_NO_MODEL, 0, "another model");
	eh_desc(&d);
	snprintf(d.model, sizeof(d.model), "m");
	expect(s, &d, 3, WSHM_OK, 0, "this model by name");
	snprintf(d.adapter, sizeof(d.adapter), "a");
	expect(s, &d, 3, WSHM_NO_ADAPTER, 0, "an adapter");
	eh_desc(&d);
	prompt[2] = VOCAB;
	expect(s, &d, 5, WSHM_BAD_TOKEN, 2, "a token outside the vocabulary");
	prompt[2] = 2;
	d.n_stop_tokens = 1;
	d.stop_tokens[0] = VOCAB;
	expect(s, &d, 3, WSHM_BAD_VALUE, WSHM_KEY_STOP_TOKENS, "such a stop token");
	eh_desc(&d);
	d.n_bias = 1;
	d.bias[0].token = VOCAB;
	expect(s, &d, 3, WSHM_BAD_VALUE, WSHM_KEY_BIAS, "such a bias");
	eh_desc(&d);
	d.max_tokens = 100;
	d.n = 16;
	d.logprobs = 20;
	expect(s, &d, 3, WSHM_TOO_BIG, (16 * 17280 + 1023) / 1024, "more than the results' arena");
}

static void test_bad_bytes(struct eh *h)
{
	static const uint8_t unknown[] = {0x81, 0x7f, 0x01}, empty[] = {0x80};
	static const uint8_t range[] = {0x82, 0x03, 0x92, 0x00, 0x01, 0x05, 0x00};
	static const uint8_t outside[] = {0x81, 0x03, 0x92, 0xce, 0x7f, 0xff, 0xff, 0xf0, 0x01};
	struct eh_session *s = eh_open(h, 0, 8, 1 << 20);
	struct wlink_offence offence;
	struct eh_req r;

	eh_submit_bytes(s, unknown, sizeof(unknown), 0, &r);
	eh_wait(&r);
	is_int(eh_status(&r), WSHM_BAD_DESCRIPTOR, "an unknown key");
	eh_submit_bytes(s, empty, sizeof(empty), 100, &r);
	eh_wait(&r);
	is_int(eh_status(&r), WSHM_BAD_DESCRIPTOR, "no prompt");
	eh_submit_bytes(s, range, sizeof(range), 200, &r);
	eh_wait(&r);
	is_int(eh_status(&r), WSHM_BAD_VALUE, "a value out of range");
	is_int(ord_load(&eh_slot(&r)->detail), WSHM_KEY_N, "  names its key");
	eh_submit_bytes(s, outside, sizeof(outside), 300, &r);
	eh_wait(&r);
	is_int(eh_status(&r), WSHM_BAD_VALUE, "a prompt outside the arena");
	eh_submit_bytes(s, empty, 4096, s->layout.params.tx_arena_bytes - 4095, &r);
	eh_expect(h, WLINK_OFFENCE, &offence, sizeof(offence));
	is_int(offence.session_id, s->id, "a descriptor outside the arena ends the session");
	eh_close(s);
}

static void test_quotas(struct eh *h)
{
	struct eh_session *s = eh_open(h, 1, 16, 1 << 20), *rate = eh_open(h, 2, 64, 1 << 20);
	struct eh_session *queued = eh_open(h, 3, 16, 1 << 20);
	struct wshm_desc d;
	struct eh_req r[64], more;
	uint32_t refused = 0, served;
	uint64_t begun, second = 1000000000;

	eh_desc(&d);
	d.n = 8;
	d.max_tokens = 220;
	d.temperature = 1;
	kill(h->pid, SIGSTOP); /* so that it sees all three at once */
	for (int i = 0; i < 2; i++)
		eh_submit(s, &d, prompt, 3, NULL, &r[i]);
	eh_submit(s, &d, prompt, 3, NULL, &more);
	kill(h->pid, SIGCONT);
	eh_wait(&more);
	is_int(eh_status(&more), WSHM_QUOTA_REQUESTS,
	       "a third request of a tenant that may have 2");
	is_int(ord_load(&eh_slot(&more)->detail), 2, "  with the limit");
	for (int i = 0; i < 2; i++) {
		eh_wait(&r[i]);
		is_int(eh_status(&r[i]), WSHM_OK, "the two end well");
		eh_release(&r[i]);
	}
	eh_submit(s, &d, prompt, 3, NULL, &r[0]);
	eh_wait(&r[0]);
	is_int(eh_status(&r[0]), WSHM_OK, "then there is room again");

	d.n = 1;
	d.max_tokens = 2;
	begun = eh_now_ns();
	for (int i = 0; i < 40; i++) {
		eh_submit(rate, &d, prompt, 3, NULL, &r[i]);
		eh_wait(&r[i]);
		refused += eh_status(&r[i]) == WSHM_QUOTA_RATE;
	}
	served = 40 - refused;
	/* A second's worth at once, and then as time goes on. */
	ok(served >= 10 && served <= 11 + 10 * (eh_now_ns() - begun) / second,
	   "40 descriptors at once where 10 a second may come: "
	   "%u are refused",
	   refused);

	eh_submit(queued, &d, prompt, 101, NULL, &r[0]);
	eh_wait(&r[0]);
	is_int(eh_status(&r[0]), WSHM_QUOTA_TOKENS, "a prompt longer than what may be queued");
	is_int(ord_load(&eh_slot(&r[0])->detail), 100, "  with the limit");
	eh_submit(queued, &d, prompt, 100, NULL, &r[0]);
	eh_wait(&r[0]);
	is_int(eh_status(&r[0]), WSHM_OK, "one that is not");
	eh_close(s);
	eh_close(rate);
	eh_close(queued);
}

static void test_deadline(struct eh_session *s)
{
	struct wshm_desc d;
	struct eh_req r;

	eh_desc(&d);
	d.n = 16;
	d.max_tokens = 130;
	d.temperature = 1;
	d.timeout_ms = 1;
	eh_submit(s, &d, prompt, 60, NULL, &r);
	eh_wait(&r);
	is_int(eh_status(&r), WSHM_DEADLINE, "a deadline ends a request");
	ok(eh_slot(&r)->t_end_ns - eh_slot(&r)->t_arrival_ns >= 1000000, "not before its time");
	eh_release(&r);
	d.n = 1;
	d.timeout_ms = 60000;
	eh_submit(s, &d, prompt, 60, NULL, &r);
	eh_wait(&r);
	is_int(eh_status(&r), WSHM_OK, "one in time does not notice");
	eh_release(&r);
}

/* An arena for two results: the third waits until one is released, is cancelled, or times out. */
static void test_room(struct eh *h)
{
	struct eh_session *s = eh_open(h, 0, 16, 4096);
	struct wshm_desc d;
	struct eh_req a, b, c, e, f;

	eh_desc(&d);
	d.max_tokens = 100; /* 512 bytes with logprobs none: 100 * 4, rounded to a line */
	d.n = 4;	    /* 2048 */
	eh_submit(s, &d, prompt, 20, NULL, &a);
	eh_submit(s, &d, prompt, 20, NULL, &b);
	eh_submit(s, &d, prompt, 20, NULL, &c);
	d.timeout_ms = 100;
	eh_submit(s, &d, prompt, 20, NULL, &e);
	d.timeout_ms = 0;
	eh_submit(s, &d, prompt, 20, NULL, &f);
	eh_wait(&a);
	eh_wait(&b);
	while (eh_state(&c) == WSHM_SLOT_FREE)
		usleep(1000);
	ok(eh_state(&c) == WSHM_SLOT_QUEUED && !eh_slot(&c)->slab_bytes,
	   "a request without room waits in its slot");
	eh_cancel(&c);
	ok(eh_wait(&c), "and can be cancelled meanwhile");
	is_int(eh_status(&c), WSHM_CANCELLED, "  as cancelled");
	ok(eh_wait(&e), "the next one waits");
	is_int(eh_status(&e), WSHM_DEADLINE, "until its deadline");
	while (eh_state(&f) == WSHM_SLOT_FREE)
		usleep(1000);
	ok(eh_state(&f) == WSHM_SLOT_QUEUED && !eh_slot(&f)->slab_bytes, "the next one waits too");
	eh_release(&a);
	ok(eh_wait(&f), "and runs as soon as there is room");
	is_int(eh_status(&f), WSHM_OK, "  well");
	is_int(eh_count(&f, 3), 100, "  with all answers");
	ok(!memcmp(eh_tokens(&f, 0), eh_tokens(&b, 0), 400), "  the same as its neighbour");
	eh_close(s);
}

int main(void)
{
	struct eh_session *s;
	struct eh h;

	for (uint32_t i = 0; i < 256; i++)
		prompt[i] = (i * 37 + 11) % VOCAB;
	prompt[2] = 2;
	eh_init(&h, eh_model_dir("llama"));
	eh_arg(&h, "--threads");
	eh_arg(&h, "1");
	eh_arg(&h, "--kv-bytes");
	eh_arg(&h, "76800"); /* 15 blocks of 5120 bytes */
	h.quota[1].max_in_flight = 2;
	h.quota[2].max_rate = 10;
	h.quota[3].max_queued_tokens = 100;
	eh_start(&h);
	s = eh_open(&h, 0, 16, 1 << 17);
	test_refusals(s);
	test_bad_bytes(&h);
	test_quotas(&h);
	test_deadline(s);
	test_room(&h);
	eh_stop(&h);
	return tap_done();
}
