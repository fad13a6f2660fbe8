/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_engine_basic.c - a request from ring to tokens: the tokens and log-probabilities are those
 * that transformers computed for the same model; slots, times, notices, bells, cancel, release.
 */
#include "tests/e2e/engine_harness.h"
#include "tests/e2e/engine_oracle.h"
#include "tests/tap.h"

#include <jansson.h>
#include <math.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

static struct engine_oracle oracle;

static void test_ready(struct eh *h)
{
	is_str(h->model.name, "m", "the engine says its model's name");
	is_str(h->model.type, "llama", "and type");
	is_int(h->model.vocab, 192, "and vocabulary");
	is_int(h->model.max_positions, 256, "and positions");
	ok(h->model.n_eos == 1 && h->model.eos[0] == 2 && h->model.bos == 1,
	   "and its special tokens");
}

static void test_greedy(struct eh_session *s)
{
	for (uint32_t i = 0; i < oracle.n; i++) {
		struct wshm_desc d;
		struct eh_req r;
		uint32_t same = 0;
		const struct wshm_slot *w;

		eh_desc(&d);
		d.max_tokens = oracle.n_greedy[i];
		eh_submit(s, &d, oracle.prompt[i], oracle.n_prompt[i], NULL, &r);
		ok(eh_wait(&r), "a request of %u tokens ends", oracle.n_prompt[i]);
		is_int(eh_status(&r), WSHM_OK, "well");
		is_int(eh_count(&r, 0), oracle.n_greedy[i], "with all its tokens");
		while (same < oracle.n_greedy[i] &&
		       eh_tokens(&r, 0)[same] == oracle.greedy[i][same])
			same++;
		is_int(same, oracle.n_greedy[i], "which are those of transformers");
		w = eh_slot(&r);
		is_int(ord_load(&w->finish[0]), WSHM_FINISH_LENGTH, "and says why it ended");
		ok(w->t_arrival_ns && w->t_arrival_ns <= w->t_start_ns &&
			   w->t_start_ns < w->t_first_ns && w->t_first_ns < w->t_end_ns,
		   "its times ascend");
		ok(w->forward_ns && w->forward_ns <= w->t_first_ns - w->t_start_ns,
		   "its forward time is part of them");
		eh_release(&r);
	}
}

/* Log-probabilities of prompt rows and of the first answer token against the fixture's logits. */
static void test_logprobs(struct eh_session *s)
{
	uint32_t first = oracle.n_rows[0];
	struct wshm_desc d;
	struct eh_req r;
	double worst = 0;
	bool tokens = true, sorted = true;

	eh_desc(&d);
	d.max_tokens = 1;
	d.logprobs = 3;
	d.prompt_logprobs = 2;
	eh_submit(s, &d, oracle.prompt[1], oracle.n_prompt[1], NULL, &r);
	eh_wait(&r);
	is_int(wshm_slot_prompt_count(eh_slot(&r)), oracle.n_prompt[1],
	       "every prompt token has its log-probability");
	for (uint32_t i = 0; i < oracle.n_rows[1]; i++) {
		uint32_t next = oracle.rows[1][i] + 1;
		const struct wshm_logprob *p = eh_prompt_logprobs(&r) + 3 * (size_t)next;

		if (next == oracle.n_prompt[1])
			p = eh_logprobs(&r, 0);
		if (next > oracle.n_prompt[1])
			break;
		if (next < oracle.n_prompt[1])
			tokens = tokens && p[0].token == oracle.prompt[1][next];
		for (int k = 0; k < 3; k++) {
			double want = engine_oracle_logprob(&oracle, first + i, p[k].token);

			worst = fmax(worst, fabs(want - p[k].logprob));
		}
		sorted = sorted && p[1].logprob >= p[2].logprob;
	}
	ok(tokens, "each is the prompt token's own");
	ok(sorted, "its alternatives come in order");
	ok(worst < 1e-3, "and all are those of the fixture's logits (worst %.2g)", worst);
	eh_release(&r);
}

static void test_notice_and_bell(struct eh_session *s)
{
	struct pollfd p = {.fd = s->bell[1], .events = POLLIN};
	uint32_t slot, generation, notices = 0;
	struct wshm_desc d;
	struct eh_req r;
	char c[16];

	while (wshm_client_notice(&s->client, &slot, &generation))
		;
	while (recv(s->bell[1], c, sizeof(c), MSG_DONTWAIT) > 0)
		;
	wshm_client_arm_bell(&s->client, true);
	eh_desc(&d);
	eh_submit(s, &d, oracle.prompt[0], oracle.n_prompt[0], NULL, &r);
	is_int(poll(&p, 1, 60000), 1, "an armed bell rings");
	wshm_client_arm_bell(&s->client, false);
	eh_wait(&r);
	while (wshm_client_notice(&s->client, &slot, &generation))
		notices += slot == r.slot && generation == r.generation;
	ok(notices >= 1, "the completion ring says which slot has news");
	eh_release(&r);
}

static void test_cancel(struct eh_session *s)
{
	struct wshm_desc d;
	struct eh_req r;

	eh_desc(&d);
	d.max_tokens = 240;
	eh_submit(s, &d, oracle.prompt[0], oracle.n_prompt[0], NULL, &r);
	eh_wait_tokens(&r, 0, 3);
	eh_cancel(&r);
	ok(eh_wait(&r), "a cancelled request ends");
	ok(eh_status(&r) == WSHM_CANCELLED || eh_count(&r, 0) == 240, "as cancelled");
	ok(eh_count(&r, 0) >= 3, "and keeps its tokens");
	ok(!memcmp(eh_tokens(&r, 0), oracle.greedy[0], 12), "which are right");
	eh_release(&r);
}

/* Slots and room are reused a thousand times, also before the engine has seen the release. */
static void test_reuse(struct eh_session *s)
{
	uint32_t good = 0;
	struct wshm_desc d;
	struct eh_req r;

	eh_desc(&d);
	d.max_tokens = 2;
	for (int i = 0; i < 1000; i++) {
		eh_submit(s, &d, oracle.prompt[0], oracle.n_prompt[0], NULL, &r);
		if (i % 3 == 0) {
			eh_release(&r); /* while it runs */
			good++;
			continue;
		}
		if (!eh_wait(&r))
			break;
		good += eh_status(&r) == WSHM_OK && eh_count(&r, 0) == 2 &&
			eh_tokens(&r, 0)[1] == oracle.greedy[0][1];
		eh_release(&r);
	}
	is_int(good, 1000, "a thousand requests one after another");
}

static json_t *status(struct eh *h)
{
	static struct wlink_status m;
	json_t *o;

	eh_tell(h, WLINK_STATUS);
	eh_expect(h, WLINK_STATUS_TEXT, &m, sizeof(m));
	o = json_loadb(m.text, m.text_bytes, 0, NULL);
	return o;
}

static void test_link(struct eh *h)
{
	uint64_t steps = atomic_load(&h->heartbeat->steps);
	json_t *o;

	eh_tell(h, WLINK_NUDGE);
	eh_expect(h, WLINK_NUDGED, NULL, 0);
	ok(atomic_load(&h->heartbeat->steps) > steps, "a nudge moves the heartbeat");
	/* One may be, that was queued ahead for a sequence that has ended. */
	for (int i = 0; i < 5000 && atomic_load(&h->heartbeat->step_start_ns); i++)
		usleep(1000);
	is_int(atomic_load(&h->heartbeat->step_start_ns), 0, "no step is under way");
	if (h->idle < h->busy)
		eh_expect(h, WLINK_IDLE, NULL, 0);
	ok(h->busy > 0 && h->busy == h->idle, "busy and idle come in pairs (%u)", h->busy);
	ok(h->busy < 20, "and not for every request");
	o = status(h);
	ok(o != NULL, "the status is JSON");
	is_int(json_integer_value(json_object_get(o, "in_flight")), 0, "with nothing in flight");
	is_int(json_integer_value(json_object_get(o, "blocks_free")),
	       json_integer_value(json_object_get(o, "blocks")), "all blocks free");
	ok(json_integer_value(json_object_get(o, "requests")) > 600, "many requests counted");
	is_int(json_integer_value(json_object_get(o, "offences")), 0, "and no offence");
	json_decref(o);
}

static void test_detach(struct eh *h)
{
	struct eh_session *s = eh_open(h, 1, 4, 1 << 20);
	struct wshm_desc d;
	struct eh_req r[4];
	json_t *o;

	eh_desc(&d);
	d.max_tokens = 200;
	for (int i = 0; i < 4; i++)
		eh_submit(s, &d, oracle.prompt[0], oracle.n_prompt[0], NULL, &r[i]);
	eh_wait_tokens(&r[3], 0, 2);
	eh_close(s);
	o = status(h);
	is_int(json_integer_value(json_object_get(o, "in_flight")), 0,
	       "a client that dies leaves no request");
	is_int(json_integer_value(json_object_get(o, "blocks_free")),
	       json_integer_value(json_object_get(o, "blocks")), "and no block");
	is_int(json_integer_value(json_object_get(o, "sessions")), 1, "and no session");
	json_decref(o);
}

int main(void)
{
	const char *dir = eh_model_dir("llama");
	struct eh_session *s;
	struct eh h;

	engine_oracle_read(&oracle, dir, 192);
	eh_init(&h, dir);
	eh_arg(&h, "--backend");
	eh_arg(&h, "ref");
	eh_arg(&h, "--threads");
	eh_arg(&h, "1");
	eh_start(&h);
	test_ready(&h);
	s = eh_open(&h, 0, 8, 1 << 20);
	test_greedy(s);
	test_logprobs(s);
	test_notice_and_bell(s);
	test_cancel(s);
	test_reuse(s);
	test_detach(&h);
	test_link(&h);
	eh_stop(&h);
	is_int(h.exit_status, 0, "the engine ends when weftd hangs up");
	engine_oracle_free(&oracle);
	return tap_done();
}
