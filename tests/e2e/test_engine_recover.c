/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_engine_recover.c - the engine is killed at random moments and started again: every request
 * ends with exactly the tokens and log-probabilities that it has without a kill. A client that
 * changes its request between crash and restart loses its session; one that was resumed by its
 * client continues after the tokens it names; one that is too big for the new engine ends alone.
 *
 * WEFT_KILLS sets the number of kills (20).
 */
#include "tests/e2e/engine_harness.h"
#include "tests/tap.h"

#include <signal.h>
#include <time.h>

#define VOCAB 192
#define N     12

static struct wshm_desc descs[N];
static uint32_t prompts[N][150], lengths[N];
static struct eh_result alone[N];

static void make_requests(void)
{
	uint64_t x = 0x9E3779B97F4A7C15ull;

	for (uint32_t i = 0; i < N; i++) {
		eh_desc(&descs[i]);
		lengths[i] = 1 + eh_random(&x) % 130;
		for (uint32_t p = 0; p < lengths[i]; p++)
			prompts[i][p] = eh_random(&x) % VOCAB;
		descs[i].max_tokens = 100;
		descs[i].has_seed = true;
		descs[i].seed = i;
		descs[i].logprobs = i % 2 ? 3 : WSHM_NO_LOGPROBS;
		descs[i].temperature = i % 3 ? 1.0f : 0;
		descs[i].repetition = i % 5 == 1 ? 1.2f : 1;
		descs[i].n = i % 4 == 3 ? 3 : 1;
		descs[i].prompt_logprobs = i % 6 == 2 ? 1 : WSHM_NO_LOGPROBS;
	}
}

static void init(struct eh *h)
{
	eh_init(h, eh_model_dir("llama"));
	eh_arg(h, "--threads");
	eh_arg(h, "1");
	eh_arg(h, "--prefill-chunk");
	eh_arg(h, "20");
	h->supervise = true;
}

static void sleep_us(uint32_t us)
{
	struct timespec ts = {.tv_nsec = us * 1000L};

	nanosleep(&ts, NULL);
}

static void take_alone(struct eh_session *s)
{
	for (uint32_t i = 0; i < N; i++) {
		struct eh_req r;

		eh_submit(s, &descs[i], prompts[i], lengths[i], NULL, &r);
		eh_wait(&r);
		eh_result_take(&alone[i], &r);
		eh_release(&r);
	}
}

/* Rounds of N requests over two sessions; the engine is killed at random moments all the while. */
static void test_kills(struct eh *h, struct eh_session **s, uint32_t kills)
{
	uint32_t right = 0, total = 0;
	uint64_t x = eh_now_ns() | 1;

	while (h->restarts < kills) {
		struct eh_req r[N];
		struct eh_result got;

		for (uint32_t i = 0; i < N; i++)
			eh_submit(s[i % 2], &descs[i], prompts[i], lengths[i], NULL, &r[i]);
		for (int k = 0; k < 3; k++) {
			sleep_us(500 + eh_random(&x) % 12000);
			eh_kill(h);
			eh_restart(h);
		}
		for (uint32_t i = 0; i < N; i++) {
			total++;
			if (!eh_wait(&r[i]))
				break;
			eh_result_take(&got, &r[i]);
			right += eh_result_same(&got, &alone[i]);
			eh_result_free(&got);
			eh_release(&r[i]);
		}
	}
	is_int(right, total, "after %u kills every request is as if there had been none",
	       h->restarts);
	is_int(h->offences, 0, "and no session was ended");
}

/* A client that is gone on, or has released, meanwhile; and results that nobody took yet. */
static void test_between(struct eh *h, struct eh_session *s)
{
	struct eh_req ended, dropped, next;
	struct eh_result got;

	eh_submit(s, &descs[1], prompts[1], lengths[1], NULL, &ended);
	eh_wait(&ended);
	eh_submit(s, &descs[0], prompts[0], lengths[0], NULL, &dropped);
	eh_wait_tokens(&dropped, 0, 5);
	kill(h->pid, SIGSTOP);
	eh_kill(h);
	eh_release(&dropped);
	eh_submit(s, &descs[2], prompts[2], lengths[2], NULL, &next);
	is_int(next.slot, dropped.slot, "a slot is released and used again without an engine");
	eh_restart(h);
	ok(eh_wait(&next), "the new request ends");
	eh_result_take(&got, &next);
	ok(eh_result_same(&got, &alone[2]), "as it should");
	eh_result_free(&got);
	eh_result_take(&got, &ended);
	ok(eh_result_same(&got, &alone[1]), "results from before the kill still stand");
	eh_result_free(&got);
	eh_release(&ended);
	eh_release(&next);
}

static void test_changed(struct eh *h, struct eh_session *other)
{
	struct eh_session *s = eh_open(h, 1, 4, 1 << 20);
	struct wlink_offence offence;
	struct eh_req r, innocent;
	struct eh_result got;
	uint8_t *arena = wshm_client_tx_arena(&s->client);

	eh_submit(other, &descs[3], prompts[3], lengths[3], NULL, &innocent);
	/* The whole answer takes a millisecond: try again when the kill came too late. */
	for (;;) {
		eh_submit(s, &descs[0], prompts[0], lengths[0], NULL, &r);
		eh_wait_tokens(&r, 0, 3);
		eh_kill(h);
		if (ord_load(&eh_slot(&r)->state) != WSHM_SLOT_ENDED)
			break;
		eh_release(&r);
		eh_restart(h);
	}
	arena[descs[0].prompt.off] ^= 1; /* the first token of its prompt */
	eh_restart(h);
	eh_expect(h, WLINK_OFFENCE, &offence, sizeof(offence));
	is_int(offence.session_id, s->id, "a request changed between crash and restart");
	is_int(wshm_rx_engine_state(wshm_client_rx_ctl(&s->client)), WSHM_ENGINE_ENDED,
	       "ends its session");
	is_int(ord_load(&wshm_client_rx_ctl(&s->client)->end_status), WSHM_PROTOCOL, "and says so");
	eh_wait(&innocent);
	eh_result_take(&got, &innocent);
	ok(eh_result_same(&got, &alone[3]), "others notice nothing");
	eh_result_free(&got);
	eh_release(&innocent);
	eh_close(s);
}

/* As libweft does after weftd was killed: the first k tokens go along with the request. */
static void test_resume(struct eh_session *s)
{
	static const uint32_t cut[] = {1, 2, 15, 50, 99, 100};
	bool same = true, counted = true;

	for (uint32_t c = 0; c < sizeof(cut) / sizeof(*cut); c++) {
		for (uint32_t i = 0; i < 4; i++) {
			struct wshm_desc d = descs[i];
			const uint32_t *resume[WSHM_MAX_SAMPLES];
			struct eh_req r;

			d.n_resume = d.n;
			for (uint32_t k = 0; k < d.n; k++) {
				resume[k] = alone[i].tokens[k];
				d.resume[k].tokens = cut[c] > k ? cut[c] - k : 0;
			}
			eh_submit(s, &d, prompts[i], lengths[i], resume, &r);
			eh_wait(&r);
			counted = counted && eh_slot(&r)->resumed_tokens == cut[c];
			for (uint32_t k = 0; k < d.n; k++)
				same = same && eh_count(&r, k) == alone[i].count[k] &&
				       !memcmp(eh_tokens(&r, k), alone[i].tokens[k],
					       4 * (size_t)alone[i].count[k]);
			eh_release(&r);
		}
	}
	ok(same, "resubmitted requests go on exactly where they were");
	ok(counted, "and the slot says how many tokens were not made here");
}

/* Without --kv-bytes the pool is a part of the memory that is free, and that may be less by then. */
static void test_smaller_pool(void)
{
	char bytes[24];
	uint32_t prompt[150] = {0};
	struct wshm_desc d;
	struct eh_session *s;
	struct eh_req big, small;
	double block;
	struct eh h;

	init(&h);
	h.supervise = false;
	eh_arg(&h, "--kv-bytes");
	eh_arg(&h, bytes);
	snprintf(bytes, sizeof(bytes), "1000000");
	eh_start(&h);
	block = eh_number(&h, "block_bytes");
	s = eh_open(&h, 0, 16, 1 << 20);
	eh_desc(&d);
	d.ignore_eos = true;
	for (int tries = 0; tries < 50; tries++) {
		d.max_tokens = 80;
		eh_submit(s, &d, prompt, 150, NULL, &big);
		d.max_tokens = 20;
		eh_submit(s, &d, prompt, 20, NULL, &small);
		eh_wait_tokens(&big, 0, 1);
		eh_kill(&h);
		if (eh_state(&big) != WSHM_SLOT_ENDED)
			break;
		/* This test was held up for so long that the request could end. */
		eh_restart(&h);
		eh_wait(&small);
		eh_release(&big);
		eh_release(&small);
	}
	snprintf(bytes, sizeof(bytes), "%.0f", 10 * block); /* 160 positions; big has 229 */
	eh_restart(&h);
	ok(eh_wait(&big), "a request too big for the new engine ends");
	is_int(eh_status(&big), WSHM_TOO_BIG, "for that reason");
	ok(eh_wait(&small), "others of its session go on");
	is_int(eh_status(&small), WSHM_OK, "to their end");
	is_int(h.offences, 0, "nobody is accused");
	eh_release(&big);
	eh_release(&small);
	eh_stop(&h);
}

/* A request that waits for room keeps its time over a restart, and runs once there is room. */
static void test_waits_for_room(struct eh *h)
{
	struct eh_session *s = eh_open(h, 0, 16, 4096);
	uint64_t arrival, deadline;
	struct eh_req a, late, last;
	struct wshm_desc d;

	eh_desc(&d);
	d.max_tokens = 100;
	d.n = 6; /* 3072 bytes: room for one */
	eh_submit(s, &d, prompts[0], lengths[0], NULL, &a);
	d.timeout_ms = 500;
	eh_submit(s, &d, prompts[0], lengths[0], NULL, &late);
	d.timeout_ms = 0;
	eh_submit(s, &d, prompts[0], lengths[0], NULL, &last);
	eh_wait(&a);
	while (eh_state(&late) == WSHM_SLOT_FREE)
		sleep_us(500);
	arrival = eh_slot(&late)->t_arrival_ns;
	deadline = eh_slot(&late)->deadline_ns;
	ok(!eh_slot(&late)->slab_bytes && deadline == arrival + 500000000,
	   "one that waits for room has a slot and a deadline");
	eh_kill(h);
	eh_restart(h);
	ok(eh_wait(&late) && eh_status(&late) == WSHM_DEADLINE, "it ends at a deadline");
	ok(eh_slot(&late)->t_arrival_ns == arrival && eh_slot(&late)->deadline_ns == deadline,
	   "which a restart has not moved");
	while (eh_state(&last) == WSHM_SLOT_FREE)
		sleep_us(500);
	eh_kill(h);
	eh_restart(h);
	eh_release(&a);
	ok(eh_wait(&last) && eh_status(&last) == WSHM_OK && eh_count(&last, 5) == 100,
	   "the next one waits over a restart and runs when there is room");
	eh_release(&late);
	eh_release(&last);
	eh_close(s);
}

/* Of two that wait, the one that came first has the higher slot; only one computes at a time. */
static void test_age(void)
{
	uint64_t first = 0, second = 0;
	struct eh_req a, b, c, d;
	struct eh_session *s;
	struct wshm_desc desc;
	struct eh h;

	init(&h);
	h.supervise = false;
	eh_arg(&h, "--max-seqs");
	eh_arg(&h, "1");
	eh_start(&h);
	s = eh_open(&h, 0, 16, 1 << 20);
	eh_desc(&desc);
	desc.ignore_eos = true;
	desc.max_tokens = 100;
	for (int tries = 0; tries < 200 && !first; tries++) {
		eh_submit(s, &desc, prompts[0], lengths[0], NULL, &a);
		eh_wait(&a);
		kill(h.pid, SIGSTOP);
		eh_submit(s, &desc, prompts[1], lengths[1], NULL, &b);
		eh_submit(s, &desc, prompts[2], lengths[2], NULL, &c);
		eh_release(&a);
		eh_submit(s, &desc, prompts[3], lengths[3], NULL, &d);
		kill(h.pid, SIGCONT);
		while (eh_state(&d) == WSHM_SLOT_FREE)
			;
		eh_kill(&h);
		/* Both still waited when the engine was killed. */
		if (!ord_load(&eh_slot(&c)->t_start_ns) && !ord_load(&eh_slot(&d)->t_start_ns))
			first = 1;
		eh_restart(&h);
		eh_wait(&b);
		eh_wait(&c);
		eh_wait(&d);
		if (first) {
			first = ord_load(&eh_slot(&c)->t_start_ns);
			second = ord_load(&eh_slot(&d)->t_start_ns);
			ok(d.slot < c.slot, "the younger one has the lower slot");
		}
		eh_release(&b);
		eh_release(&c);
		eh_release(&d);
	}
	ok(first && first < second, "after a restart the older one starts first");
	eh_stop(&h);
}

int main(void)
{
	const char *kills = getenv("WEFT_KILLS");
	struct eh_session *s[2];
	struct eh h;

	make_requests();
	init(&h);
	eh_start(&h);
	s[0] = eh_open(&h, 0, 16, 1 << 20);
	s[1] = eh_open(&h, 1, 16, 1 << 20);
	take_alone(s[0]);
	test_kills(&h, s, kills ? (uint32_t)atoi(kills) : 20);
	test_between(&h, s[0]);
	test_changed(&h, s[0]);
	test_resume(s[1]);
	test_waits_for_room(&h);
	eh_stop(&h);
	test_age();
	test_smaller_pool();
	for (uint32_t i = 0; i < N; i++)
		eh_result_free(&alone[i]);
	return tap_done();
}
