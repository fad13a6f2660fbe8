/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_mistakes.c - what went wrong in other servers, end to end, one test each: identity by name,
 * fields that imitate each other, an adapter's KV served to another adapter or to the base, the tail
 * between two invocations, LoRA and aLoRA in one batch, activations that race, late answers, a NaN's
 * neighbours, adapters that cannot share a batch.
 */
#include "tests/e2e/twin.h"
#include "tests/tap.h"

#include <math.h>

static const uint32_t inv_a[] = {150, 151}, inv_b[] = {152, 153};

static const struct af_adapter spec_a = {.linears = AF_Q | AF_K | AF_V | AF_DOWN,
					 .rank = 8,
					 .alpha = 8,
					 .seed = 1,
					 .n_invocation = 2,
					 .invocation = {150, 151}};
static const struct af_adapter spec_b = {.linears = AF_ALL,
					 .rank = 16,
					 .alpha = 8,
					 .seed = 2,
					 .n_invocation = 2,
					 .invocation = {152, 153}};
static const struct af_adapter spec_lora = {
	.linears = AF_Q | AF_K | AF_V, .rank = 8, .alpha = 8, .seed = 3};

/* Another adapter of the same shape. */
static struct af_adapter reseeded(const struct af_adapter *a, uint64_t seed)
{
	struct af_adapter copy = *a;

	copy.seed = seed;
	return copy;
}

/* Two adapters of one name, one after the other; one adapter under two names. */
static void identity_by_name(struct twin *t)
{
	struct af_adapter first = reseeded(&spec_a, 76), other = reseeded(&spec_a, 77);
	uint32_t old = twin_adapter(t, "same-name", &first, 0);
	uint32_t new = twin_adapter(t, "same-name", &other, 0);
	uint32_t twice = twin_adapter(t, "other-name", &other, 0);
	struct text p = {.n = 0}, grown, regrown;
	uint32_t same = 0; /* tokens that both answer */

	text_random(t, &p, 50);
	text_add(&p, inv_a, 2);
	text_random(t, &p, 20);
	twin_load(t, old);
	twin_run(t, 0, old, &p, 6, &grown);
	twin_unload(t, old);
	twin_load(t, new);
	/* Rows 48 and 49 are the base's too, but their block went with the adapter that is in it. */
	is_reused(twin_run(t, 0, new, &p, 6, &regrown), 48,
		  "1: reloaded under its name with other weights: only the base's blocks");
	while (same < 5 && grown.tokens[p.n + same] == regrown.tokens[p.n + same])
		same++;
	is_reused(twin_run(t, 0, new, &grown, 6, NULL), p.n + same,
		  "1: the old one's answer in the prompt is computed anew");
	twin_load(t, twice);
	is_reused(twin_run(t, 0, twice, &p, 6, NULL), p.n - 1,
		  "1: the same weights under another name: everything");
	twin_unload(t, new);
	is_reused(twin_run(t, 0, twice, &p, 6, NULL), p.n - 1,
		  "1: the other name is gone, the weights are not");
	twin_unload(t, twice);
	twin_load(t, old);
	is_reused(twin_run(t, 0, old, &p, 6, NULL), 48,
		  "1: the first is back, its KV went with it");
	twin_unload(t, old);
}

/* Two names for the same weights: after a restart a request belongs to the one that it named. */
static void names_after_restart(struct twin *t)
{
	struct af_adapter both = reseeded(&spec_a, 91);
	uint32_t first = twin_adapter(t, "first", &both, 0);
	uint32_t second = twin_adapter(t, "second", &both, 0);
	struct text p = {.n = 0};
	struct eh_req r;

	text_random(t, &p, 40);
	text_add(&p, inv_a, 2);
	twin_load(t, first);
	twin_load(t, second);
	twin_ask(t, 0, first, &p, 200, &r);
	eh_wait_tokens(&r, 0, 3);
	eh_kill(&t->h);
	eh_restart(&t->h);
	is_int(eh_adapter_unload(&t->h, "second", true, NULL), 0,
	       "1: after a restart the other name is unloaded by force");
	ok(twin_take(t, first, &p, 200, &r, NULL) != UINT32_MAX,
	   "1: which ends nobody who named the first");
	t->adapters[second].loaded = false;
	twin_unload(t, first);
}

/* A tenant and an adapter of one name; KV of the base that an adapter left, and a tenant. */
static void fields_that_imitate(struct twin *t)
{
	struct af_adapter named = reseeded(&spec_lora, 5);
	uint32_t tenant1 = twin_adapter(t, "tenant1", &named, 0);
	struct text p = {.n = 0};

	text_random(t, &p, 64);
	text_add(&p, inv_a, 2);
	twin_load(t, tenant1);
	twin_run(t, 0, tenant1, &p, 3, NULL);
	is_reused(twin_run(t, 1, 0, &p, 3, NULL), 0, "2: the tenant whose name an adapter has");
	twin_unload(t, tenant1);
	twin_run(t, 0, 1, &p, 3, NULL);
	is_reused(twin_run(t, 1, 1, &p, 3, NULL), 66 - 2,
		  "2: base-aligned blocks: the tenant's own, from its base request");
	is_reused(twin_run(t, 2, 1, &p, 3, NULL), 0, "2: base-aligned blocks of others: none");
}

/* Two adapters that are called alike, on one prompt: nothing but their weights tells them apart. */
static void called_alike(struct twin *t)
{
	struct af_adapter other = reseeded(&spec_a, 31);
	uint32_t alike = twin_adapter(t, "alike", &other, 0);
	struct text p = {.n = 0};

	text_random(t, &p, 37);
	text_add(&p, inv_a, 2);
	text_random(t, &p, 30);
	twin_load(t, alike);
	twin_run(t, 0, 1, &p, 5, NULL);
	is_reused(twin_run(t, 0, alike, &p, 5, NULL), 37, "3: another adapter with the same call");
	is_reused(twin_run(t, 0, 1, &p, 5, NULL), p.n - 1, "3: and each has its own");
	twin_unload(t, alike);
}

/*
 * An answer that holds its adapter's invocation. In the next prompt it counts: one block with the
 * same tokens, of the same adapter, but activated at another row.
 */
static void invocation_in_answer(struct twin *t)
{
	static const struct af_adapter one = {.linears = AF_ALL,
					      .rank = 4,
					      .alpha = 8,
					      .seed = 8,
					      .n_invocation = 1,
					      .invocation = {160}};
	uint32_t number = twin_adapter(t, "one", &one, 0), right = 0;
	const struct plain_result *plain;

	twin_load(t, number);
	for (uint32_t row = 0; row < 16; row++) {
		struct text p = {.n = 0};
		struct wshm_desc d;
		struct eh_req r;

		text_random(t, &p, 32 + row);
		text_add(&p, one.invocation, 1);
		eh_desc(&d);
		d.max_tokens = 18;
		d.has_seed = true;
		d.n_bias = 1;
		d.bias[0].token = one.invocation[0];
		d.bias[0].value = 1000;
		memcpy(d.adapter, "one", 4);
		eh_submit(t->s[0], &d, p.tokens, p.n, NULL, &r);
		plain = plain_run(t->plain, &d, t->adapters[number].plain, p.tokens, p.n);
		right += eh_wait(&r) && plain_same(&r, plain, p.n, false) &&
			 plain->tokens[0] == one.invocation[0];
		eh_release(&r);
		text_add(&p, plain->tokens, plain->count[0]);
		right += reused(twin_run(t, 0, number, &p, 3, NULL), 32 + row);
		right += reused(twin_run(t, 0, 0, &p, 3, NULL), p.n - 1);
		/* The first answer's block again, but now its last token is what activates. */
		p.n = 48;
		text_random(t, &p, 10);
		right += reused(twin_run(t, 0, number, &p, 3, NULL), row < 15 ? 47 : 48);
	}
	is_int(right, 64, "7: an invocation in the answer, called again at any row");
	twin_unload(t, number);
}

static void a_b_a_and_base(struct twin *t)
{
	struct text p = {.n = 0}, q = {.n = 0};

	text_random(t, &p, 90);
	text_random(t, &q, 90);
	text_add(&p, inv_a, 2);
	text_add(&p, inv_b, 2);
	text_add(&q, inv_b, 2);
	ok(reused(twin_run(t, 0, 1, &p, 5, NULL), 0) && reused(twin_run(t, 0, 2, &q, 5, NULL), 0),
	   "3: A on P, B on Q");
	is_reused(twin_run(t, 0, 2, &p, 5, NULL), 90, "3: B on P has the base's rows of A's");
	ok(reused(twin_run(t, 0, 3, &p, 5, NULL), 0), "4: a LoRA on P");
	is_reused(twin_run(t, 0, 0, &p, 5, NULL), 92,
		  "4: the base after adapters has no adapter's rows");
}

/* A answers, then B is called behind: what A computed between the two invocations is not B's. */
static void tail_between(struct twin *t)
{
	struct text p = {.n = 0}, said;

	text_random(t, &p, 40);
	text_add(&p, inv_a, 2);
	twin_run(t, 0, 1, &p, 30, &said);
	text_add(&said, inv_b, 2);
	is_reused(twin_run(t, 0, 2, &said, 5, NULL), 40,
		  "5: A to B: only what is before A's invocation");
	is_reused(twin_run(t, 0, 0, &said, 5, NULL), said.n - 2,
		  "5: and the base has B's base rows");
}

/* LoRA, aLoRA and base on one prompt at once; and an aLoRA with many different activations. */
static void one_batch(struct twin *t)
{
	struct text p[24];
	struct eh_req r[24];
	uint32_t exact = 0;
	uint64_t steps;

	for (int i = 0; i < 24; i++) {
		p[i].n = 0;
		text_random(t, &p[i], 20);
	}
	for (int i = 0; i < 24; i++) {
		p[i] = p[i / 8 * 8];
		if (i >= 8)
			text_random(t, &p[i], (uint32_t)i);
		text_add(&p[i], inv_a, 2);
		text_add(&p[i], inv_b, 2);
	}
	steps = twin_status(t, "steps");
	for (int i = 0; i < 24; i++)
		twin_ask(t, 0, (uint32_t)i % 4, &p[i], 12, &r[i]);
	for (int i = 0; i < 24; i++)
		exact += twin_take(t, (uint32_t)i % 4, &p[i], 12, &r[i], NULL) != UINT32_MAX;
	is_int(exact, 24, "6: base, LoRA and two aLoRAs in one batch");
	steps = twin_status(t, "steps") - steps;
	ok(steps < 24 * 12 / 2,
	   "12: and in one batch they were: %llu passes for 24 answers of 12 tokens",
	   (unsigned long long)steps);
	for (int i = 0; i < 24; i++) {
		p[i].n = 0;
		text_random(t, &p[i], 3 + (uint32_t)i * 5);
		text_add(&p[i], inv_a, 2);
		text_random(t, &p[i], 40 - (uint32_t)i);
	}
	exact = 0;
	for (int i = 0; i < 24; i++)
		twin_ask(t, (uint32_t)i % 3, 1, &p[i], 12, &r[i]);
	for (int i = 0; i < 24; i++)
		exact += twin_take(t, 1, &p[i], 12, &r[i], NULL) != UINT32_MAX;
	is_int(exact, 24, "7: one adapter at 24 activations in one batch");
}

/* A slot is used again before its cancelled request has ended. */
static void late_answers(struct twin *t)
{
	uint32_t exact = 0;

	for (int i = 0; i < 50; i++) {
		struct text p = {.n = 0}, q = {.n = 0};
		struct eh_req cancelled, next;

		text_random(t, &p, 100);
		text_add(&p, inv_a, 2);
		text_random(t, &q, 30);
		text_add(&q, inv_b, 2);
		twin_ask(t, 0, 1, &p, 100, &cancelled);
		if (i % 3)
			eh_wait_tokens(&cancelled, 0, (uint32_t)i);
		eh_cancel(&cancelled);
		eh_release(&cancelled);
		twin_ask(t, 0, 2, &q, 5, &next);
		exact += next.slot == cancelled.slot &&
			 twin_take(t, 2, &q, 5, &next, NULL) != UINT32_MAX;
	}
	is_int(exact, 50,
	       "10: a cancelled request's answer never comes to the next one in its slot");
}

/* An adapter whose products overflow. */
static void nan_neighbours(struct twin *t)
{
	struct af_adapter bad = reseeded(&spec_a, 9);
	struct text p = {.n = 0}, good[6];
	struct eh_req r[6], poisoned[6];
	uint32_t exact = 0, nan = 0, i;
	uint32_t number;

	bad.poison = 1e38f;
	bad.linears = AF_ALL;
	number = twin_adapter(t, "bad", &bad, 0);
	twin_load(t, number);
	text_random(t, &p, 60);
	text_add(&p, inv_a, 2);
	text_add(&p, inv_b, 2);
	text_random(t, &p, 20);
	for (uint32_t round = 0; round < 8; round++) {
		for (i = 0; i < 6; i++) {
			good[i] = p;
			text_random(t, &good[i], 1 + round);
			twin_ask(t, 0, number, &good[i], 8, &poisoned[i]);
			twin_ask(t, 0, i % 4, &good[i], 8, &r[i]);
		}
		for (i = 0; i < 6; i++) {
			exact += twin_take(t, i % 4, &good[i], 8, &r[i], NULL) != UINT32_MAX;
			eh_wait(&poisoned[i]);
			nan += eh_status(&poisoned[i]) == WSHM_NAN;
			eh_release(&poisoned[i]);
		}
	}
	is_int(nan, 48, "11: an adapter that overflows ends its own requests as NaN");
	is_int(exact, 48, "11: and nobody else's, beside it and on the same prompt");
	twin_unload(t, number);
	/* Its blocks hold NaN and serve others now. */
	exact = 0;
	for (i = 0; i < 60; i++) {
		struct text q = {.n = 0};

		text_random(t, &q, 150);
		exact += twin_run(t, 1, i % 2 ? 3 : 0, &q, 4, NULL) != UINT32_MAX;
	}
	is_int(exact, 60, "11: nor who gets its blocks");
}

int main(void)
{
	static struct twin t;
	char bytes[32];

	twin_open(&t, eh_model_dir("llama"), (const char *const[]){NULL});
	twin_adapter(&t, "a", &spec_a, 0);
	twin_adapter(&t, "b", &spec_b, 0);
	twin_adapter(&t, "lora", &spec_lora, 0);
	snprintf(bytes, sizeof(bytes), "%llu",
		 (unsigned long long)(300 * plain_block_bytes(t.plain)));
	for (uint32_t i = 1; i <= 3; i++)
		twin_load(&t, i);
	identity_by_name(&t);
	names_after_restart(&t);
	fields_that_imitate(&t);
	called_alike(&t);
	invocation_in_answer(&t);
	a_b_a_and_base(&t);
	tail_between(&t);
	one_batch(&t);
	late_answers(&t);
	twin_again(&t, (const char *const[]){"--kv-bytes", bytes, NULL});
	nan_neighbours(&t);
	/* All that, and NaN in every free block. */
	setenv("WEFT_TEST_POISON_FREE", "1", 1);
	twin_again(&t, (const char *const[]){"--kv-bytes", bytes, "--prefill-chunk", "17", NULL});
	identity_by_name(&t);
	a_b_a_and_base(&t);
	tail_between(&t);
	one_batch(&t);
	nan_neighbours(&t);
	is_int(t.wrong, 0, "every answer on the way was right, too");
	twin_close(&t);
	return tap_done();
}
