/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_engine_exact.c - tokens and log-probabilities of a request are the same, bit for bit, alone,
 * among 2 to 64 mixed neighbours, with prefill chunks of any size, when it is preempted, and when
 * passes are queued before the results of the last are known. On the cpu backend, with every sampling
 * option in use.
 *
 * The expected value is the request served alone by an engine with the default chunk; its own
 * correctness is test_engine_basic's and tests/model's matter.
 */
#include "tests/e2e/engine_harness.h"
#include "tests/tap.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define N_KINDS 8
#define VOCAB	192

struct kind {
	struct wshm_desc d;
	uint32_t prompt[200], n;
	struct eh_result alone;
};

static struct kind kinds[N_KINDS];

static void make_kinds(void)
{
	static const uint32_t lengths[N_KINDS] = {1, 15, 16, 17, 40, 100, 160, 199};
	uint64_t x = 88172645463325252ull;

	for (uint32_t i = 0; i < N_KINDS; i++) {
		struct kind *k = &kinds[i];

		eh_desc(&k->d);
		k->n = lengths[i];
		for (uint32_t p = 0; p < k->n; p++)
			k->prompt[p] = eh_random(&x) % VOCAB;
		k->d.max_tokens = 40;
		k->d.has_seed = true;
		k->d.seed = 1000 + i;
		k->d.logprobs = i % 3 == 0 ? 5 : i % 3 == 1 ? 0 : WSHM_NO_LOGPROBS;
		if (i % 2) {
			k->d.temperature = 1.2f;
			k->d.top_k = i % 4 == 1 ? 50 : 0;
			k->d.top_p = 0.95f;
			k->d.min_p = 0.01f;
		}
	}
	kinds[2].d.repetition = 1.3f;
	kinds[4].d.presence = 0.7f;
	kinds[4].d.frequency = 0.3f;
	kinds[5].d.prompt_logprobs = 3;
	kinds[6].d.n = 4;
	kinds[6].d.temperature = 0.9f;
	kinds[6].d.logprobs = 2;
	kinds[7].d.prompt_logprobs = 0;
	kinds[3].d.n = 3;
	kinds[3].d.min_tokens = 10;
	kinds[3].d.n_stop_tokens = 3;
	kinds[3].d.stop_tokens[0] = 50;
	kinds[3].d.stop_tokens[1] = 51;
	kinds[3].d.stop_tokens[2] = 120;
}

static struct eh_session *start(struct eh *h, const char *const *args)
{
	eh_init(h, eh_model_dir("llama"));
	eh_arg(h, "--threads");
	eh_arg(h, "2");
	for (; *args; args++)
		eh_arg(h, *args);
	eh_start(h);
	return eh_open(h, 0, 64, 8 << 20);
}

static void take_alone(struct eh_session *s)
{
	for (uint32_t i = 0; i < N_KINDS; i++) {
		struct eh_req r;

		eh_submit(s, &kinds[i].d, kinds[i].prompt, kinds[i].n, NULL, &r);
		eh_wait(&r);
		eh_result_take(&kinds[i].alone, &r);
		is_int(kinds[i].alone.status, WSHM_OK, "kind %u ends well alone", i);
		eh_release(&r);
	}
	ok(kinds[3].alone.count[0] >= 10, "min_tokens holds");
	ok(memcmp(kinds[6].alone.tokens[0], kinds[6].alone.tokens[1], 160) != 0,
	   "answers of one request differ");
}

/* n requests at once, of all kinds; do all have the results they have alone? */
static bool together(struct eh_session *s, uint32_t n, uint32_t first)
{
	struct eh_req r[64];
	struct eh_result got;
	bool same = true;

	kill(s->h->pid, SIGSTOP); /* so that it sees all of them at once */
	for (uint32_t i = 0; i < n; i++) {
		struct kind *k = &kinds[(first + i) % N_KINDS];

		eh_submit(s, &k->d, k->prompt, k->n, NULL, &r[i]);
	}
	kill(s->h->pid, SIGCONT);
	for (uint32_t i = 0; i < n; i++) {
		same = eh_wait(&r[i]) && same;
		eh_result_take(&got, &r[i]);
		if (!eh_result_same(&got, &kinds[(first + i) % N_KINDS].alone)) {
			diag("kind %u among %u", (first + i) % N_KINDS, n);
			same = false;
		}
		eh_result_free(&got);
		eh_release(&r[i]);
	}
	return same;
}

static void test_batches(void)
{
	static const uint32_t sizes[] = {2, 3, 5, 8, 16, 31, 64};
	struct eh_session *s;
	struct eh h;

	s = start(&h, (const char *const[]){NULL});
	take_alone(s);
	for (uint32_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
		ok(together(s, sizes[i], i), "the same among %u", sizes[i]);
	eh_stop(&h);
}

static void test_chunks(void)
{
	static const char *const chunks[] = {"1", "15", "16", "17", "256", "0"};
	struct eh_session *s;
	struct eh h;

	for (uint32_t i = 0; i < sizeof(chunks) / sizeof(*chunks); i++) {
		s = start(&h, (const char *const[]){"--prefill-chunk", chunks[i], NULL});
		ok(together(s, 1, 5) && together(s, N_KINDS, 0), "the same in chunks of %s",
		   chunks[i]);
		eh_stop(&h);
	}
	s = start(&h, (const char *const[]){"--max-batch-tokens", "7", NULL});
	ok(together(s, 20, 0), "the same in passes of 7 rows");
	eh_stop(&h);
}

/* A count of the engine's, wherever it stands. */
static uint64_t count_of(struct eh *h, const char *name)
{
	char key[64];
	const char *at;

	snprintf(key, sizeof(key), "\"%s\":", name);
	at = strstr(eh_report(h), key);
	return at ? strtoull(at + strlen(key), NULL, 10) : 0;
}

static void test_preempted(void)
{
	struct eh_session *s;
	struct eh h;

	/* 36 blocks: 2 layers, 2 heads of 16, keys and values, 16 positions; or a piece of an adapter. */
	s = start(&h, (const char *const[]){"--kv-bytes", "184320", NULL});
	ok(together(s, 24, 0), "the same in a pool that is too small");
	ok(count_of(&h, "preemptions") > 5, "in which requests were preempted (%llu times)",
	   (unsigned long long)count_of(&h, "preemptions"));
	eh_stop(&h);
}

/* By how much a count of the engine's grows for a kind alone. */
static uint64_t counted_for(struct eh_session *s, uint32_t kind, const char *name)
{
	uint64_t before = count_of(s->h, name);
	struct eh_req r;

	eh_submit(s, &kinds[kind].d, kinds[kind].prompt, kinds[kind].n, NULL, &r);
	eh_wait(&r);
	eh_release(&r);
	return count_of(s->h, name) - before;
}

/* One after the other is cancelled, beside one that goes on; its neighbours' rows are taken back. */
static void test_ahead_cancelled(struct eh_session *s)
{
	uint32_t good = 0;

	for (uint32_t i = 0; i < 40; i++) {
		struct eh_req r[3], stays;
		struct eh_result got;

		for (uint32_t j = 0; j < 3; j++) {
			struct kind *k = &kinds[(i + j) % 5];

			eh_submit(s, &k->d, k->prompt, k->n, NULL, &r[j]);
		}
		eh_submit(s, &kinds[0].d, kinds[0].prompt, kinds[0].n, NULL, &stays);
		for (uint32_t j = 0; j < 3; j++) {
			eh_wait_tokens(&r[j], 0, (i + j) % 7);
			eh_cancel(&r[j]);
		}
		eh_wait(&stays);
		eh_result_take(&got, &stays);
		good += eh_result_same(&got, &kinds[0].alone);
		eh_result_free(&got);
		eh_release(&stays);
		for (uint32_t j = 0; j < 3; j++) {
			eh_wait(&r[j]);
			eh_release(&r[j]);
		}
	}
	is_int(good, 40, "the same beside others that are cancelled");
}

/* By itself an engine on this backend would not. */
static void test_ahead(void)
{
	static const uint32_t sizes[] = {1, 2, 5, 8, 24, 64};
	struct eh_session *s;
	uint64_t passes;
	struct eh h;

	setenv("WEFT_TEST_AHEAD", "1", 1);
	s = start(&h, (const char *const[]){"--prefill-chunk", "16", NULL});
	for (uint32_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
		ok(together(s, sizes[i], i), "the same ahead, among %u", sizes[i]);
	/* The passes of 40 tokens, but for the first and the last; a prompt of 160 has ten itself. */
	is_int((long)counted_for(s, 0, "steps_ahead"), 39, "tokens are decoded ahead");
	is_int((long)counted_for(s, 1, "steps_ahead"), 39, "so are those that are sampled");
	is_int((long)counted_for(s, 2, "steps_ahead"), 0, "not with penalties");
	passes = counted_for(s, 6, "steps");
	test_ahead_cancelled(s);
	eh_stop(&h);
	is_int(h.exit_status, 0, "the engine ends well");
	s = start(&h, (const char *const[]){"--kv-bytes", "184320", NULL});
	ok(together(s, 24, 0), "the same ahead in a pool that is too small");
	ok(count_of(&h, "preemptions") > 5 && count_of(&h, "steps_ahead") > 20,
	   "in which requests were preempted, and passes queued ahead (%llu)",
	   (unsigned long long)count_of(&h, "steps_ahead"));
	eh_stop(&h);
	unsetenv("WEFT_TEST_AHEAD");
	s = start(&h, (const char *const[]){NULL});
	is_int((long)counted_for(s, 0, "steps_ahead"), 0, "and without being asked, none");
	counted_for(s, 6, "steps");
	is_int((long)counted_for(s, 6, "steps"), (long)passes,
	       "four answers to a prompt that is cached take as many passes either way");
	eh_stop(&h);
}

int main(void)
{
	make_kinds();
	test_batches();
	test_chunks();
	test_preempted();
	test_ahead();
	for (uint32_t i = 0; i < N_KINDS; i++)
		eh_result_free(&kinds[i].alone);
	return tap_done();
}
