/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_engine_poison.c - a request that crashes the engine each time it runs ends alone, with
 * ENGINE_FAULT, after a few restarts; the others go on and have the tokens they should.
 */
#include "tests/e2e/engine_harness.h"
#include "tests/tap.h"

#define POISON 191 /* the token that makes the engine abort */
#define N      6

static void make(struct wshm_desc *d, uint32_t *prompt, uint32_t i)
{
	uint64_t x = i + 1;

	eh_desc(d);
	d->max_tokens = 60;
	for (uint32_t p = 0; p < 30; p++)
		prompt[p] = eh_random(&x) % 150;
}

int main(void)
{
	struct eh_result alone[N], got;
	struct eh_req r[N], bad, late;
	uint32_t prompt[N][30], faulty[10], before;
	struct eh_session *s, *s2;
	struct wshm_desc d[N];
	struct eh h;

	eh_init(&h, eh_model_dir("llama"));
	eh_arg(&h, "--threads");
	eh_arg(&h, "1");
	h.crash_token = "191";
	h.supervise = true;
	eh_start(&h);
	s = eh_open(&h, 0, 16, 1 << 20);
	s2 = eh_open(&h, 1, 16, 1 << 20);
	for (uint32_t i = 0; i < N; i++) {
		make(&d[i], prompt[i], i);
		eh_submit(s, &d[i], prompt[i], 30, NULL, &r[i]);
		eh_wait(&r[i]);
		eh_result_take(&alone[i], &r[i]);
		eh_release(&r[i]);
	}
	for (uint32_t round = 0; round < 3; round++) {
		struct wshm_desc bad_desc;
		bool same = true;

		before = h.restarts;
		for (uint32_t i = 0; i < 10; i++)
			faulty[i] = i == 7 ? POISON : i;
		eh_desc(&bad_desc);
		for (uint32_t i = 0; i < N; i++) {
			eh_submit(i % 2 ? s : s2, &d[i], prompt[i], 30, NULL, &r[i]);
			if (i == 3)
				eh_submit(s2, &bad_desc, faulty, 10, NULL, &bad);
		}
		ok(eh_wait(&bad), "a request that crashes the engine ends");
		is_int(eh_status(&bad), WSHM_ENGINE_FAULT, "as a fault");
		is_int(eh_count(&bad, 0), 0, "without tokens");
		ok(h.restarts - before <= 4, "after %u restarts", h.restarts - before);
		for (uint32_t i = 0; i < N; i++) {
			eh_wait(&r[i]);
			eh_result_take(&got, &r[i]);
			same = eh_result_same(&got, &alone[i]) && same;
			eh_result_free(&got);
			eh_release(&r[i]);
		}
		ok(same, "the others have what they have without it");
		eh_release(&bad);
	}
	make(&d[0], prompt[0], 0);
	eh_submit(s, &d[0], prompt[0], 30, NULL, &late);
	eh_wait(&late);
	eh_result_take(&got, &late);
	ok(eh_result_same(&got, &alone[0]), "and so has a later one");
	eh_result_free(&got);
	is_int(eh_slot(&late)->restarts, 0, "whose slot counts no restarts");
	for (uint32_t i = 0; i < N; i++)
		eh_result_free(&alone[i]);
	eh_stop(&h);
	return tap_done();
}
