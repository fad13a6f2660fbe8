/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_reuse.c - reuse is complete, to the token and in every direction, and invisible: each case
 * has the cached_tokens that follow from the definition (the longest prefix with the same tokens
 * and the same adapter or none, short of the last row; an answer's last token has no KV) and the
 * answer of a model without any cache, whatever the chunks of the prefill.
 */
#include "tests/e2e/twin.h"
#include "tests/tap.h"

static const uint32_t inv_a[] = {150, 151}, inv_b[] = {152, 153, 154};

/* Their numbers in the twin. */
enum { BASE, LORA, ALORA_A, ALORA_B, ALORA_AFTER, ALORA_BEFORE };

static void make_adapters(struct twin *t)
{
	const struct af_adapter lora = {.linears = AF_ALL, .rank = 17, .alpha = 16, .seed = 1};
	const struct af_adapter a = {.linears = AF_Q | AF_K | AF_V,
				     .rank = 8,
				     .alpha = 8,
				     .seed = 2,
				     .n_invocation = 2,
				     .invocation = {150, 151}};
	const struct af_adapter b = {.linears = AF_ALL,
				     .rank = 32,
				     .alpha = 16,
				     .seed = 3,
				     .bf16 = true,
				     .n_invocation = 3,
				     .invocation = {152, 153, 154}};

	twin_adapter(t, "lora", &lora, 0);
	twin_adapter(t, "a", &a, 0);
	twin_adapter(t, "b", &b, 0);
	twin_adapter(t, "a-after", &a, 2);
	twin_adapter(t, "a-before", &a, -3);
	for (uint32_t i = 1; i <= t->n_adapters; i++)
		twin_load(t, i);
}

/* --- one after another ----------------------------------------------------------------------------*/

/* Append some tokens of which the first is not what the answer would be. */
static void text_other(struct twin *t, struct text *x, uint32_t adapter, uint32_t max_tokens)
{
	struct text answered;

	twin_run(t, 0, adapter, x, max_tokens, &answered);
	text_add(x, &(uint32_t){(answered.tokens[x->n] + 1) % 150}, 1);
	text_random(t, x, 30);
}

static void test_base(struct twin *t, uint32_t length)
{
	struct text p = {.n = 0}, q, said;

	text_random(t, &p, length);
	is_reused(twin_run(t, 0, BASE, &p, 9, &said), 0,
		  "base, %u tokens: nothing to reuse at first", length);
	is_reused(twin_run(t, 0, BASE, &p, 9, NULL), length - 1,
		  "the same again: all but the last row");
	q = said;
	text_random(t, &q, 5);
	is_reused(twin_run(t, 0, BASE, &q, 3, NULL), said.n - 1,
		  "its answer and more: all but the answer's last token");
	text_other(t, &q, BASE, 3);
	is_reused(twin_run(t, 0, BASE, &q, 1, NULL), said.n + 5, "and on, instead of an answer");
}

/* Base, then an activated adapter behind its answer, then the base again. */
static void test_base_adapter_base(struct twin *t, uint32_t adapter, const uint32_t *inv,
				   uint32_t n_inv, uint32_t length)
{
	struct text p = {.n = 0}, said, asked, judged;

	text_random(t, &p, length);
	twin_run(t, 0, BASE, &p, 7, &said);
	asked = said;
	text_add(&asked, inv, n_inv);
	is_reused(twin_run(t, 0, adapter, &asked, 6, &judged), said.n - 1,
		  "base to adapter, from %u: all that the base has computed", length);
	is_reused(twin_run(t, 0, adapter, &asked, 6, NULL), asked.n - 1,
		  "the same again: beyond the activation");
	text_random(t, &judged, 4);
	is_reused(twin_run(t, 0, BASE, &judged, 5, NULL), said.n,
		  "adapter to base: up to the activation, of which the adapter computed one row");
	is_reused(twin_run(t, 0, BASE, &judged, 5, NULL), judged.n - 1, "the base again: its own");
	is_reused(twin_run(t, 0, LORA, &judged, 5, NULL), 0, "a LoRA: nothing");
	is_reused(twin_run(t, 0, LORA, &judged, 5, NULL), judged.n - 1, "the LoRA again: its own");
}

static void test_adapter_first(struct twin *t, uint32_t length)
{
	struct text p = {.n = 0}, a, b, on, said;

	text_random(t, &p, length);
	a = p;
	text_add(&a, inv_a, 2);
	is_reused(twin_run(t, 0, ALORA_A, &a, 8, &said), 0, "adapter first, at %u", length);
	b = p;
	text_add(&b, inv_b, 3);
	is_reused(twin_run(t, 0, ALORA_B, &b, 8, NULL), length,
		  "another on the same: up to its own");
	on = said;
	text_random(t, &on, 3);
	is_reused(twin_run(t, 0, ALORA_A, &on, 4, NULL), said.n - 1,
		  "the same adapter goes on behind its answer");
	is_reused(twin_run(t, 0, BASE, &on, 4, NULL), length, "the base: up to the activation");
	text_add(&said, &(uint32_t){(on.tokens[said.n] + 1) % 150}, 1);
	on = said;
	said.n--;
	text_add(&on, inv_a, 2);
	is_reused(twin_run(t, 0, ALORA_A, &on, 4, NULL), said.n,
		  "called again: its earlier answer is plain text, as the base has computed it");
}

/* --- inside a block --------------------------------------------------------------------------------*/

/* Two prompts part at every row of a block; an activation lies at every row of a block. */
static void test_rows(struct twin *t)
{
	uint32_t parted = 0, base = 0, again = 0, other = 0, lora = 0;

	for (uint32_t row = 0; row < 16; row++) {
		struct text head = {.n = 0}, x, y;

		text_random(t, &head, 32 + row);
		x = y = head;
		text_add(&x, &(uint32_t){10}, 1);
		text_add(&y, &(uint32_t){20}, 1);
		text_random(t, &x, 37);
		text_random(t, &y, 37);
		twin_run(t, 0, BASE, &x, 2, NULL);
		parted += reused(twin_run(t, 0, BASE, &y, 2, NULL), 32 + row);
		twin_run(t, 0, LORA, &x, 2, NULL);
		lora += reused(twin_run(t, 0, LORA, &y, 2, NULL), 32 + row);
		x = y = head;
		text_add(&x, inv_a, 2);
		text_add(&y, inv_b, 3);
		text_random(t, &x, row);
		text_random(t, &y, row);
		base += reused(twin_run(t, 0, ALORA_A, &x, 2, NULL), 32 + row);
		again += reused(twin_run(t, 0, ALORA_A, &x, 2, NULL), x.n - 1);
		other += reused(twin_run(t, 0, ALORA_B, &y, 2, NULL), 32 + row) &&
			 reused(twin_run(t, 0, ALORA_B, &y, 2, NULL), y.n - 1);
	}
	is_int(parted, 16, "prompts that part at any row share what is before it");
	is_int(lora, 16, "a LoRA's likewise");
	is_int(base, 16, "base to adapter, activated at any row");
	is_int(again, 16, "the adapter again");
	is_int(other, 16, "another adapter, activated at the same row");
}

/* The activation is not where the invocation begins. */
static void test_offsets(struct twin *t)
{
	uint32_t right = 0;

	for (uint32_t row = 0; row < 17; row++) {
		struct text p = {.n = 0}, a;

		text_random(t, &p, 30 + row);
		a = p;
		text_add(&a, inv_a, 2);
		twin_run(t, 0, ALORA_A, &a, 3, NULL);
		/* Its invocation is the base's too: all but one of its rows are to be computed. */
		right += reused(twin_run(t, 0, ALORA_AFTER, &a, 3, NULL), p.n);
		right += reused(twin_run(t, 0, BASE, &a, 3, NULL), a.n - 1);
		right += reused(twin_run(t, 0, ALORA_BEFORE, &a, 3, NULL), p.n - 3);
		right += reused(twin_run(t, 0, ALORA_BEFORE, &a, 3, NULL), a.n - 1);
		right += reused(twin_run(t, 0, ALORA_AFTER, &a, 3, NULL), a.n - 1);
	}
	is_int(right, 17 * 5, "offsets of 2 and -3 at any row");
}

/* --- what must not be reused, or not be left ------------------------------------------------------*/

static void ask_with(struct twin *t, const struct text *p, bool no_cache, uint32_t prompt_logprobs,
		     uint32_t want, const char *what)
{
	const struct plain_result *plain;
	struct wshm_desc d;
	struct eh_req r;

	eh_desc(&d);
	d.max_tokens = 5;
	d.has_seed = true;
	d.no_cache = no_cache;
	d.prompt_logprobs = prompt_logprobs;
	eh_submit(t->s[0], &d, p->tokens, p->n, NULL, &r);
	plain = plain_run(t->plain, &d, 0, p->tokens, p->n);
	ok(eh_wait(&r) && plain_same(&r, plain, p->n, false), "%s: exact", what);
	is_reused(ord_load(&eh_slot(&r)->cached_tokens), want, "%s: reused", what);
	eh_release(&r);
}

static void test_not(struct twin *t)
{
	struct text p = {.n = 0}, q = {.n = 0};

	text_random(t, &p, 80);
	text_random(t, &q, 80);
	ask_with(t, &p, true, WSHM_NO_LOGPROBS, 0, "no_cache");
	ask_with(t, &p, false, WSHM_NO_LOGPROBS, 0, "after no_cache, which leaves nothing");
	ask_with(t, &p, true, WSHM_NO_LOGPROBS, 0, "no_cache, with the prompt there");
	ask_with(t, &p, false, 2, 0, "log-probabilities of a prompt that is there");
	ask_with(t, &q, false, 2, 0, "log-probabilities of a new prompt");
	ask_with(t, &q, false, WSHM_NO_LOGPROBS, q.n - 1, "after it: it fills the cache");
}

static void test_tenants(struct twin *t)
{
	struct text p = {.n = 0}, a;

	text_random(t, &p, 64);
	a = p;
	text_add(&a, inv_a, 2);
	twin_run(t, 0, BASE, &p, 4, NULL);
	twin_run(t, 0, ALORA_A, &a, 4, NULL);
	is_reused(twin_run(t, 1, BASE, &p, 4, NULL), 0, "another tenant, the same prompt: nothing");
	is_reused(twin_run(t, 2, ALORA_A, &a, 4, NULL), 0, "another, the same adapter: nothing");
	is_reused(twin_run(t, 1, ALORA_A, &a, 4, NULL), p.n, "its own base's rows it has");
	is_reused(twin_run(t, 0, ALORA_A, &a, 4, NULL), a.n - 1, "the first has all");
}

/* What the operator publishes serves all, to the row; and only that. */
static void test_public(struct twin *t)
{
	struct text p = {.n = 0}, q, a;
	uint32_t tokens;
	int64_t pin;

	text_random(t, &p, 70);
	pin = eh_pin(&t->h, EH_PUBLIC, p.tokens, p.n, &tokens);
	ok(pin > 0 && reused(tokens, p.n), "70 tokens are published");
	q = p;
	text_random(t, &q, 30);
	is_reused(twin_run(t, 1, BASE, &q, 4, NULL), p.n, "a tenant finds them");
	is_reused(twin_run(t, 2, BASE, &q, 4, NULL), p.n, "another too, and nothing of the first");
	a = p;
	text_add(&a, inv_a, 2);
	is_reused(twin_run(t, 0, ALORA_A, &a, 4, NULL), p.n, "for an adapter called behind them");
	is_reused(twin_run(t, 0, LORA, &a, 4, NULL), 0, "not for a LoRA");
	is_reused(twin_run(t, 1, BASE, &q, 4, NULL), q.n - 1, "and what follows is one's own");
	eh_unpin(&t->h, pin);
	is_reused(twin_run(t, 1, BASE, &q, 4, NULL), q.n - 1, "also when they are public no more");
}

/* --- at the same time -----------------------------------------------------------------------------*/

/* A prompt that many want is computed once: the others wait for it. */
static void test_together(struct twin *t, uint32_t adapter, uint32_t length)
{
	struct text p = {.n = 0};
	struct eh_req r[8];
	uint32_t computed = 0, whole = 0;

	text_random(t, &p, length);
	text_add(&p, inv_a, 2);
	for (int i = 0; i < 8; i++)
		twin_ask(t, 0, adapter, &p, 4, &r[i]);
	for (int i = 0; i < 8; i++) {
		uint32_t cached = twin_take(t, adapter, &p, 4, &r[i], NULL);

		if (!ok(cached <= p.n - 1, "one of eight: exact"))
			return;
		whole += cached >= (p.n - 1) / 16 * 16;
		computed += p.n - cached;
	}
	if (!REUSE_IS_EXACT)
		return;
	is_int(whole, 7, "seven of eight waited for the eighth's blocks");
	ok(computed < p.n + 8 * 16, "together they computed little more than one prompt (%u, %u)",
	   computed, p.n);
}

static void test_answers(struct twin *t)
{
	const struct plain_result *plain;
	struct text p = {.n = 0};
	struct wshm_desc d;
	struct eh_req r;

	text_random(t, &p, 70);
	text_add(&p, inv_b, 3);
	eh_desc(&d);
	d.n = 5;
	d.temperature = 1;
	d.has_seed = true;
	d.logprobs = 2;
	memcpy(d.adapter, "b", 2);
	for (int i = 0; i < 2; i++) {
		eh_submit(t->s[0], &d, p.tokens, p.n, NULL, &r);
		plain = plain_run(t->plain, &d, t->adapters[ALORA_B].plain, p.tokens, p.n);
		ok(eh_wait(&r) && plain_same(&r, plain, p.n, false), "five answers: exact");
		is_reused(ord_load(&eh_slot(&r)->cached_tokens), i ? p.n - 1 : 0,
			  "five answers: reused");
		eh_release(&r);
	}
}

/* --- gone and back --------------------------------------------------------------------------------*/

static void test_evicted(struct twin *t)
{
	struct text p = {.n = 0}, noise;
	uint32_t exact = 0;

	text_random(t, &p, 60);
	text_add(&p, inv_b, 3);
	exact += reused(twin_run(t, 0, ALORA_B, &p, 8, NULL), 0);
	for (int i = 0; i < 40; i++) {
		noise.n = 0;
		text_random(t, &noise, 150);
		exact += twin_run(t, 0, i % 2 ? BASE : LORA, &noise, 4, NULL) != UINT32_MAX;
	}
	exact += reused(twin_run(t, 0, ALORA_B, &p, 8, NULL), 0);
	exact += reused(twin_run(t, 0, ALORA_B, &p, 8, NULL), p.n - 1);
	is_int(exact, 43,
	       "after everything was evicted: exact, from nothing, and again from the cache");
	ok(twin_status(t, "evicted") > 100, "blocks were evicted");
	ok(twin_status(t, "adapters_evicted") > 0, "an adapter left the pool and came back");
}

static void test_restart(struct twin *t)
{
	struct text p = {.n = 0}, said;
	struct eh_req r;
	uint32_t cached;

	text_random(t, &p, 60);
	text_add(&p, inv_a, 2);
	twin_run(t, 0, ALORA_A, &p, 8, &said);
	eh_kill(&t->h);
	eh_restart(&t->h);
	is_reused(twin_run(t, 0, ALORA_A, &p, 8, NULL), 0, "a new engine has nothing, and says so");
	is_reused(twin_run(t, 0, ALORA_A, &p, 8, NULL), p.n - 1, "then it has");
	text_random(t, &said, 2);
	twin_ask(t, 0, ALORA_A, &said, 100, &r);
	eh_wait_tokens(&r, 0, 10);
	eh_kill(&t->h);
	eh_restart(&t->h);
	cached = twin_take(t, ALORA_A, &said, 100, &r, NULL);
	ok(reused(cached, said.n - 3) || cached == 0,
	   "a request that was under way goes on where it was (reused %u)", cached);
}

/* --- all ------------------------------------------------------------------------------------------*/

static void test_sequence(struct twin *t)
{
	static const uint32_t lengths[] = {1, 15, 16, 17, 47, 100};

	for (uint32_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
		test_base(t, lengths[i]);
		test_base_adapter_base(t, ALORA_A, inv_a, 2, lengths[i]);
		test_base_adapter_base(t, ALORA_B, inv_b, 3, lengths[i]);
		test_adapter_first(t, lengths[i]);
	}
	test_rows(t);
	test_offsets(t);
	test_not(t);
	test_tenants(t);
	test_public(t);
	test_together(t, ALORA_A, 100);
	test_together(t, BASE, 64);
	test_together(t, LORA, 62);
	test_answers(t);
}

int main(void)
{
	static const char *const chunks[] = {"1", "15", "16", "17", "256"};
	static struct twin t;
	char bytes[32];

	for (uint32_t i = 0; i < sizeof(chunks) / sizeof(*chunks); i++) {
		const char *const args[] = {"--prefill-chunk", chunks[i], NULL};

		diag("in chunks of %s", chunks[i]);
		if (i) {
			twin_again(&t, args);
		} else {
			twin_open(&t, eh_model_dir("llama"), args);
			make_adapters(&t);
		}
		test_sequence(&t);
	}
	test_restart(&t);
	snprintf(bytes, sizeof(bytes), "%llu",
		 (unsigned long long)(64 * plain_block_bytes(t.plain)));
	twin_again(&t, (const char *const[]){"--kv-bytes", bytes, NULL});
	test_evicted(&t);
	is_int(t.wrong, 0, "every answer on the way was right, too");
	twin_close(&t);
	return tap_done();
}
