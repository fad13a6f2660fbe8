/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_engine_cache.c - the prefix cache in the running engine: how much is found, to the token and
 * in every direction between base model and adapters; concurrent requests compute what they share
 * once; waiting ends with what is waited for; domains, pins; and what wants nothing of it.
 *
 * Expected counts are worked out by hand from the prompts: everything that agrees and whose rows
 * the same weights made, but never the last position of a prompt. Answers are compared with those
 * of requests that keep away from the cache.
 */
#include "tests/e2e/engine_harness.h"
#include "tests/tap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define VOCAB 192

static uint64_t seed = 88172645463325252u;

/* No two begin with the same token; never the aLoRA fixture's invocation. */
static void fresh_prompt(uint32_t *p, uint32_t n)
{
	static uint32_t n_prompts;

	for (uint32_t i = 1; i < n; i++)
		p[i] = 20 + eh_random(&seed) % (VOCAB - 20);
	p[0] = 20 + n_prompts++;
	if (n_prompts + 20 == VOCAB)
		n_prompts = 0;
}

static void invoke(uint32_t *p, uint32_t at)
{
	for (uint32_t i = 0; i < 3; i++)
		p[at + i] = 11 + i;
}

/* With keys cut short blocks that collide are not kept: what is found can only be less. */
static bool cut_short(void)
{
	return WSHM_KEY_BITS < 128;
}

static void found(uint32_t got, uint32_t want, const char *what)
{
	if (cut_short())
		ok(got <= want, "%s (%u of %u)", what, got, want);
	else
		is_int(got, want, "%s", what);
}

/* And what is computed only more. */
static void computed(uint32_t got, uint32_t want, const char *what)
{
	if (cut_short())
		ok(got >= want, "%s (%u, not %u)", what, got, want);
	else
		is_int(got, want, "%s", what);
}

struct ask {
	const char *adapter;
	const uint32_t *prompt;
	uint32_t n, max_tokens, answers;
	bool no_cache;
	uint32_t prompt_logprobs; /* plus one; 0: none */
	int priority;
};

static void submit(struct eh_session *s, const struct ask *a, struct eh_req *ret)
{
	struct wshm_desc d;

	eh_desc(&d);
	d.max_tokens = a->max_tokens ? a->max_tokens : 4;
	d.n = a->answers ? a->answers : 1;
	if (d.n > 1) { /* answers that differ */
		d.temperature = 1;
		d.has_seed = true;
		d.seed = 7;
	}
	d.logprobs = 2;
	d.no_cache = a->no_cache;
	d.priority = a->priority;
	if (a->prompt_logprobs)
		d.prompt_logprobs = a->prompt_logprobs - 1;
	if (a->adapter)
		snprintf(d.adapter, sizeof(d.adapter), "%s", a->adapter);
	eh_submit(s, &d, a->prompt, a->n, NULL, ret);
}

/* Run it to its end: cached tokens; the result in *ret unless NULL. */
static uint32_t run(struct eh_session *s, const struct ask *a, struct eh_result *ret)
{
	struct eh_req r;
	uint32_t cached;

	submit(s, a, &r);
	if (!eh_wait(&r) || eh_status(&r) != WSHM_OK)
		printf("# status %u\n", eh_status(&r));
	cached = ord_load(&eh_slot(&r)->cached_tokens);
	if (ret)
		eh_result_take(ret, &r);
	eh_release(&r);
	return cached;
}

/* Cached tokens as expected, and the same answer as without the cache. */
static void expect(struct eh_session *s, const struct ask *a, uint32_t cached, const char *what)
{
	struct eh_result with, without;
	struct ask alone = *a;

	alone.no_cache = true;
	found(run(s, a, &with), cached, what);
	is_int(run(s, &alone, &without), 0, "%s: alone, nothing is found", what);
	ok(eh_result_same(&with, &without), "%s: and the answer is the same", what);
	eh_result_free(&with);
	eh_result_free(&without);
}

/* --- how much is found ----------------------------------------------------------------------------*/

static void test_base(struct eh_session *s)
{
	static const uint32_t lengths[] = {1, 2, 15, 16, 17, 31, 32, 33, 100};
	uint32_t p[256], q[256];
	struct eh_req r;
	char what[64];

	for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
		struct ask a = {.prompt = p, .n = lengths[i]};

		fresh_prompt(p, a.n);
		is_int(run(s, &a, NULL), 0, "%u new tokens", a.n);
		snprintf(what, sizeof(what), "%u tokens again", a.n);
		expect(s, &a, a.n - 1, what);
	}
	/* A conversation: prompt, answer, more. The answer's last token has no KV. */
	fresh_prompt(p, 40);
	submit(s, &(struct ask){.prompt = p, .n = 40, .max_tokens = 30}, &r);
	eh_wait(&r);
	memcpy(p + 40, eh_tokens(&r, 0), 30 * sizeof(*p));
	eh_release(&r);
	fresh_prompt(p + 70, 20);
	expect(s, &(struct ask){.prompt = p, .n = 90}, 69, "prompt, answer and more");
	/* Prompts that part inside a block, and on its border. */
	memcpy(q, p, sizeof(q));
	q[37] = q[37] == 50 ? 51 : 50;
	expect(s, &(struct ask){.prompt = q, .n = 90}, 37, "another token at 37");
	memcpy(q, p, sizeof(q));
	q[48] = q[48] == 50 ? 51 : 50;
	expect(s, &(struct ask){.prompt = q, .n = 90}, 48, "another token at 48");
}

static void test_adapters(struct eh_session *s)
{
	uint32_t p[256];
	struct ask base = {.prompt = p, .n = 100}, one = base, two = base, lora = base;

	one.adapter = "one";
	two.adapter = "two";
	lora.adapter = "lora";
	/* The invocation in the middle of a block: 53. */
	fresh_prompt(p, 100);
	invoke(p, 53);
	run(s, &base, NULL);
	expect(s, &one, 53, "base to aLoRA: up to the activation");
	expect(s, &one, 99, "the same aLoRA again");
	one.adapter = "same";
	expect(s, &one, 99, "the same by another name");
	one.adapter = "one";
	expect(s, &two, 53, "another aLoRA");
	expect(s, &lora, 0, "a LoRA shares nothing with them");
	expect(s, &lora, 99, "but with itself");
	expect(s, &base, 99, "and the base model everything");
	/* The other direction, from a block's border. */
	fresh_prompt(p, 100);
	invoke(p, 64);
	run(s, &two, NULL);
	expect(s, &base, 64, "aLoRA to base: up to the activation");
	expect(s, &one, 64, "aLoRA to aLoRA");
	/* At the very beginning: nothing in common but with itself. */
	fresh_prompt(p, 100);
	invoke(p, 0);
	run(s, &one, NULL);
	expect(s, &base, 0, "an activation of 0: nothing for the base model");
	expect(s, &one, 99, "all for itself");
	/* An earlier invocation is plain base tokens. */
	fresh_prompt(p, 100);
	invoke(p, 20);
	run(s, &(struct ask){.adapter = "one", .prompt = p, .n = 50}, NULL);
	invoke(p, 80);
	expect(s, &one, 20, "called again further on: its earlier rows do not fit");
}

static void test_apart(struct eh *h, struct eh_session *s)
{
	struct eh_session *other = eh_open(h, 1, 8, 1 << 20), *third = eh_open(h, 2, 8, 1 << 20);
	uint32_t p[256];
	struct ask a = {.prompt = p, .n = 80};

	fresh_prompt(p, 80);
	run(s, &(struct ask){.prompt = p, .n = 80, .no_cache = true, .answers = 3}, NULL);
	is_int(run(s, &a, NULL), 0, "what wants no cache leaves nothing there");
	is_int(run(other, &a, NULL), 0, "another tenant finds nothing of the first one's");
	found(run(other, &a, NULL), 79, "but its own");
	is_int(run(third, &a, NULL), 0, "nor does one without a secret of weftd's");
	found(run(third, &a, NULL), 79, "which has a cache all the same");
	a.prompt_logprobs = 1 + 1;
	is_int(run(s, &a, NULL), 0, "log-probabilities of the prompt want all of it computed");
	fresh_prompt(p, 80);
	run(s, &a, NULL);
	a.prompt_logprobs = 0;
	found(run(s, &a, NULL), 79, "and leave it in the cache");
	eh_close(other);
	eh_close(third);
}

/* --- at the same time ------------------------------------------------------------------------------*/

/* Rows that the engine computes for k requests at once, of these prompts. */
static uint32_t rows_of(struct eh *h, struct eh_session *s, const struct ask *a, uint32_t k)
{
	double before = eh_number(h, "rows");
	struct eh_req r[16];

	for (uint32_t i = 0; i < k; i++)
		submit(s, &a[i], &r[i]);
	for (uint32_t i = 0; i < k; i++) {
		if (!eh_wait(&r[i]) || eh_status(&r[i]) != WSHM_OK)
			printf("# request %u: status %u\n", i, eh_status(&r[i]));
		eh_release(&r[i]);
	}
	return (uint32_t)(eh_number(h, "rows") - before);
}

static void test_together(struct eh *h, struct eh_session *s)
{
	struct ask a[8];
	uint32_t p[256], q[8][256];

	/* The engine has chunks of 24 rows, so 216 tokens are nine passes, and the last of them ends
	 * a whole block: until then it is worth waiting, whenever a request comes. */
	fresh_prompt(p, 216);
	for (int i = 0; i < 8; i++)
		a[i] = (struct ask){.prompt = p, .n = 216, .max_tokens = 2};
	computed(rows_of(h, s, a, 8), 216 + 7 + 8,
		 "eight at once: the prompt once, its last position each, then a token each");
	/* Eight aLoRA requests, two adapters, one text: the base's part once, each adapter's once. */
	fresh_prompt(p, 216);
	invoke(p, 168);
	for (int i = 0; i < 8; i++)
		a[i] = (struct ask){
			.adapter = i % 2 ? "one" : "two", .prompt = p, .n = 216, .max_tokens = 2};
	computed(rows_of(h, s, a, 8), 168 + 2 * 48 + 6 + 8,
		 "two adapters on one text: its unadapted part once, the rest once for each");
	invoke(p, 0);
	p[3] = 50;
	a[0] = (struct ask){.adapter = "one", .prompt = p, .n = 216, .max_tokens = 2};
	a[1] = a[0];
	a[1].adapter = "same";
	/* The invocation's own three rows are there, from an earlier prompt. */
	computed(rows_of(h, s, a, 2), 216 - 3 + 1 + 2, "one adapter by two names: once");
	/* Prompts that part at 128. */
	fresh_prompt(p, 128);
	for (int i = 0; i < 4; i++) {
		memcpy(q[i], p, 128 * sizeof(*p));
		fresh_prompt(q[i] + 128, 32);
		a[i] = (struct ask){.prompt = q[i], .n = 160, .max_tokens = 1};
	}
	computed(rows_of(h, s, a, 4), 128 + 4 * 32, "four that part at a block's border");
	fresh_prompt(p, 100);
	a[0] = (struct ask){.prompt = p, .n = 100, .max_tokens = 5, .answers = 4};
	computed(rows_of(h, s, a, 1), 100 + 4 * 4, "four answers: the prompt once");
	a[0].no_cache = true;
	computed(rows_of(h, s, a, 1), 100 + 4 * 4, "without the cache too");
}

/* The one that is waited for ends: the others go on from what it has filled. The plain backend is
 * slow enough to be caught at it. */
static void test_waiting_ends(const char *dir)
{
	struct ask a = {.max_tokens = 2, .n = 250, .priority = 5}, low = a;
	struct eh_result got, want;
	struct eh_req first, second;
	struct eh_session *s;
	uint32_t p[256], rows, before = 0;
	bool ended = false;
	int running = 0;
	struct eh h;

	eh_init(&h, dir);
	eh_arg(&h, "--backend");
	eh_arg(&h, "ref");
	eh_arg(&h, "--prefill-chunk");
	eh_arg(&h, "8");
	eh_start(&h);
	s = eh_open(&h, 0, 16, 1 << 20);
	a.prompt = low.prompt = p;
	low.priority = 0;
	/* The first may be done before it is cancelled when this process is held up: then once more. */
	for (int i = 0; i < 20; i++) {
		double waits = eh_number(&h, "cache.waits");

		fresh_prompt(p, 250);
		before = (uint32_t)eh_number(&h, "rows");
		submit(s, &low, &first);
		submit(s, &a, &second);
		while (eh_number(&h, "cache.waits") == waits && eh_state(&first) != WSHM_SLOT_ENDED)
			;
		running = (int)eh_number(&h, "running");
		eh_cancel(&first);
		ended = eh_wait(&first) && eh_wait(&second);
		if (eh_status(&first) == WSHM_CANCELLED)
			break;
		eh_release(&first);
		eh_release(&second);
	}
	is_int(running, 1, "the second waits for the first");
	ok(ended, "both end");
	is_int(eh_status(&first), WSHM_CANCELLED, "the first as cancelled");
	is_int(eh_status(&second), WSHM_OK, "the second well");
	eh_result_take(&got, &second);
	eh_release(&first);
	eh_release(&second);
	rows = (uint32_t)eh_number(&h, "rows") - before;
	ok(rows >= 251 && rows < 251 + 16, "no full block twice (%u rows)", rows);
	a.no_cache = true;
	run(s, &a, &want);
	ok(eh_result_same(&got, &want), "and its answer is right");
	eh_result_free(&got);
	eh_result_free(&want);
	eh_stop(&h);
}

/* --- pins, drop -----------------------------------------------------------------------------------*/

static void test_pins(struct eh *h, struct eh_session *s)
{
	struct eh_session *other = eh_open(h, 1, 8, 1 << 20);
	uint32_t p[256], q[256], tokens = 0;
	struct ask a = {.prompt = p, .n = 120};
	int64_t pin, own;

	fresh_prompt(p, 120);
	pin = eh_pin(h, EH_PUBLIC, p, 100, &tokens);
	ok(pin > 0, "a public prefix is pinned (%d)", (int)pin);
	found(tokens, 100, "to the token");
	found(run(other, &a, NULL), 100, "one tenant finds it");
	found(run(s, &a, NULL), 100, "and another");
	found(run(s, &a, NULL), 119, "what follows is each one's own");
	eh_drop(h, UINT32_MAX);
	found((uint32_t)eh_number(h, "cache.nodes"), 6, "dropping all leaves what is pinned");
	found(run(s, &a, NULL), 100, "which is found again");
	fresh_prompt(q, 64);
	own = eh_pin(h, 1, q, 64, &tokens);
	ok(own > 0, "a tenant's own");
	found(tokens, 64, "all of it");
	a.prompt = q;
	a.n = 64;
	is_int(run(s, &a, NULL), 0, "is not another's");
	found(run(other, &a, NULL), 63, "but its own");
	is_int(eh_number(h, "pins"), 2, "two pins");
	eh_unpin(h, pin);
	eh_unpin(h, own);
	eh_drop(h, UINT32_MAX);
	is_int(eh_number(h, "pins"), 0, "unpinned");
	is_int(eh_number(h, "cache.nodes"), 0, "they can be dropped");
	is_int(eh_number(h, "blocks_free"), eh_number(h, "blocks"), "every block can be had");
	q[3] = VOCAB;
	is_int(eh_pin(h, 1, q, 64, NULL), -EINVAL, "a token beyond the vocabulary is refused");
	is_int(eh_number(h, "sessions"), 2, "sessions of the engine's own are not counted");
	eh_close(other);
}

/* More is pinned than leaves room for a request that was admitted. */
static void test_no_room(const char *dir)
{
	uint32_t p[256], status;
	struct eh_session *s;
	struct wshm_desc d;
	struct eh_req r;
	struct eh h;

	eh_init(&h, dir);
	eh_arg(&h, "--kv-bytes");
	eh_arg(&h, "81920"); /* 16 blocks of 5 KiB */
	eh_start(&h);
	s = eh_open(&h, 0, 4, 1 << 20);
	fresh_prompt(p, 200);
	ok(eh_pin(&h, 0, p, 128, NULL) > 0, "half of the pool is pinned");
	is_int(eh_pin(&h, 0, p + 16, 128, NULL), -ENOSPC, "but not all of it");
	eh_desc(&d);
	d.max_tokens = 40;
	eh_submit(s, &d, p + 1, 190, NULL, &r);
	ok(eh_wait(&r), "a request that needs more than the rest ends");
	status = eh_status(&r);
	is_int(status, WSHM_TOO_BIG, "as too big");
	eh_release(&r);
	d.max_tokens = 40;
	eh_submit(s, &d, p, 190, NULL, &r);
	eh_wait(&r);
	is_int(eh_status(&r), WSHM_OK, "one that begins with what is pinned fits");
	found(ord_load(&eh_slot(&r)->cached_tokens), 128, "and finds it");
	eh_release(&r);
	eh_stop(&h);
}

/* The fixture with half the scale: other weights, the same invocation. */
static void load_half(struct eh *h, const char *name)
{
	char dir[] = "/tmp/weft-test-XXXXXX", from[600], to[64], text[8192];
	const char *at;
	size_t n;
	FILE *f;

	if (!mkdtemp(dir))
		return;
	snprintf(from, sizeof(from), "%s/adapter_config.json", eh_adapter_dir("llama-alora"));
	f = fopen(from, "r");
	n = f ? fread(text, 1, sizeof(text) - 1, f) : 0;
	text[n] = '\0';
	fclose(f);
	at = strstr(text, "\"lora_alpha\": 16");
	snprintf(to, sizeof(to), "%s/adapter_config.json", dir);
	f = fopen(to, "w");
	fprintf(f, "%.*s\"lora_alpha\": 8%s", (int)(at - text), text,
		at + strlen("\"lora_alpha\": 16"));
	fclose(f);
	snprintf(from, sizeof(from), "%s/adapter_model.safetensors", eh_adapter_dir("llama-alora"));
	snprintf(to, sizeof(to), "%s/adapter_model.safetensors", dir);
	is_int(symlink(realpath(from, text), to), 0, "a second adapter is made");
	is_int(eh_adapter_load(h, dir, name, 0, WSHM_MISSING_ERROR, NULL), 0, "and loaded");
	unlink(to);
	snprintf(to, sizeof(to), "%s/adapter_config.json", dir);
	unlink(to);
	rmdir(dir);
}

int main(void)
{
	char dir[512];
	struct eh_session *s;
	struct eh h;

	snprintf(dir, sizeof(dir), "%s", eh_model_dir("llama"));
	eh_init(&h, dir);
	eh_arg(&h, "--threads");
	eh_arg(&h, "1");
	eh_arg(&h, "--prefill-chunk");
	eh_arg(&h, "24");
	eh_arg(&h, "--kv-bytes"); /* nothing is evicted: counts are exact */
	eh_arg(&h, "33554432");
	eh_domain(&h, 0);
	eh_domain(&h, 1);
	eh_domain(&h, EH_PUBLIC);
	eh_start(&h);
	eh_adapter_load(&h, eh_adapter_dir("llama-alora"), "one", 0, WSHM_MISSING_ERROR, NULL);
	eh_adapter_load(&h, eh_adapter_dir("llama-alora"), "same", 0, WSHM_MISSING_ERROR, NULL);
	load_half(&h, "two");
	eh_adapter_load(&h, eh_adapter_dir("llama-qv"), "lora", 0, WSHM_MISSING_ERROR, NULL);
	s = eh_open(&h, 0, 16, 1 << 20);
	test_base(s);
	test_adapters(s);
	test_apart(&h, s);
	test_together(&h, s);
	test_pins(&h, s);
	eh_stop(&h);
	is_int(h.exit_status, 0, "the engine ends well");
	test_waiting_ends(dir);
	if (!cut_short()) /* it needs the whole of what is pinned */
		test_no_room(dir);
	return tap_done();
}
