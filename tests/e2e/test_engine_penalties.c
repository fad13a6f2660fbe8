/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Penalties depend on how often each token has occurred: in prompts that repeat theirs in any order,
 * and over several answers. Against a model that counts anew for every token, in the plainest way
 * (plain_model.h).
 */
#include "tests/e2e/engine_harness.h"
#include "tests/e2e/plain_model.h"
#include "tests/tap.h"

#define PROMPTS 12u
#define LONGEST 200u
#define TOKENS	24u

static uint64_t state = 88172645463325252u;

/* Few different tokens, among them some that are equal but for a multiple of 64. */
static uint32_t make_prompt(uint32_t *ret)
{
	static const uint32_t few[] = {6, 70, 134, 0, 64, 128, 63, 127, 191, 20, 84};
	uint32_t n = 1 + eh_random(&state) % LONGEST;

	for (uint32_t i = 0; i < n; i++)
		ret[i] = few[eh_random(&state) % (sizeof(few) / sizeof(*few))];
	return n;
}

static void one(struct eh_session *s, struct plain *p, uint32_t i)
{
	static const float repetition[] = {1.3f, 0.7f, 1, 2}, shift[] = {0, 0.5f, -0.3f};
	const struct plain_result *want;
	uint32_t prompt[LONGEST], n = make_prompt(prompt);
	struct wshm_desc d;
	struct eh_req r;

	eh_desc(&d);
	d.max_tokens = TOKENS;
	d.n = 1 + i % 4;
	d.has_seed = true;
	d.seed = i;
	d.temperature = i % 2 ? 1 : 0;
	d.repetition = repetition[i % 4];
	d.presence = shift[i % 3];
	d.frequency = shift[(i + 1) % 3];
	eh_submit(s, &d, prompt, n, NULL, &r);
	want = plain_run(p, &d, 0, prompt, n);
	ok(eh_wait(&r) && plain_same(&r, want, n, false),
	   "%u tokens, %u answers, repetition %.1f, presence %.1f, frequency %.1f", n, d.n,
	   (double)d.repetition, (double)d.presence, (double)d.frequency);
	eh_release(&r);
}

int main(void)
{
	const char *dir = eh_model_dir("llama");
	struct plain *p = plain_new(dir);
	struct eh_session *s;
	struct eh h;

	eh_init(&h, dir);
	eh_start(&h);
	s = eh_open(&h, 0, 8, 1 << 20);
	for (uint32_t i = 0; i < PROMPTS; i++)
		one(s, p, i);
	eh_stop(&h);
	plain_free(p);
	return tap_done();
}
