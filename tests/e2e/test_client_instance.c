/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weftd is killed in the middle of a stream that runs with an adapter. If the next one loads the
 * same adapter, the stream continues and is what it is without a kill; if its folder holds other
 * weights by then, the stream ends with WEFT_NO_ADAPTER rather than going on under them. Nor does a stream
 * whose invocation was appended go on with the base model where that is the rule by then. Real
 * daemon, real engine.
 */
#include "libclient/weft.h"
#include "tests/e2e/adapter_files.h"
#include "tests/e2e/real_daemon.h"
#include "tests/tap.h"

#include <unistd.h>

#define N_PROMPT 40u
#define TOKENS	 200u
#define SAMPLES	 8u
#define TRIES	 100 /* until a kill meets a stream in its middle */

static struct real_daemon d;
static char conf[300], folder[100];
static uint32_t prompt[N_PROMPT];

/* rule: what a prompt without the invocation means; NULL: a plain LoRA. */
static void write_adapter(uint64_t seed, const char *rule)
{
	const struct af_adapter a = {
		.linears = AF_ALL,
		.rank = 8,
		.alpha = 32,
		.seed = seed,
		.n_invocation = rule ? 2 : 0,
		.invocation = {3, 3},
	};

	af_write(folder, d.model, &a);
	snprintf(conf, sizeof(conf), "[adapter a]\npath = %s\non_missing_invocation = %s\n", folder,
		 rule ? rule : "error");
}

static struct weft_request *submit(struct weft *w)
{
	struct weft_submit_options o;
	struct weft_request *r;
	struct weft_error e;

	weft_submit_options_init(&o);
	o.prompt = prompt;
	o.n_prompt = N_PROMPT;
	o.adapter = "a";
	o.n = SAMPLES;
	o.max_tokens = TOKENS;
	o.temperature = 1;
	o.has_seed = 1;
	o.seed = 4711;
	o.ignore_eos = 1;
	if (weft_submit(w, &r, &o, &e) < 0)
		bail_out(e.message);
	return r;
}

static void wait_end(struct weft_request *r)
{
	for (uint32_t s = 0; s < SAMPLES; s++)
		for (int64_t n, have = 0; (n = weft_wait(r, s, (uint32_t)have, 60000)) > have;)
			have = n;
}

/* Tokens that both have and that differ; *ret_common: how many both have. */
static uint32_t different(struct weft_request *a, struct weft_request *b, uint32_t *ret_common)
{
	uint32_t bad = 0;

	*ret_common = 0;
	for (uint32_t s = 0; s < SAMPLES; s++) {
		uint32_t na, nb;
		const uint32_t *ta = weft_tokens(a, s, &na), *tb = weft_tokens(b, s, &nb);

		for (uint32_t i = 0; i < na && i < nb; i++, ++*ret_common)
			bad += ta[i] != tb[i];
	}
	return bad;
}

/* weftd, killed, starts again with the adapter of this seed and this rule. */
static void restart(uint64_t seed, const char *rule)
{
	real_daemon_kill(&d);
	write_adapter(seed, rule);
	if (real_daemon_start(&d))
		bail_out("weftd does not start again");
}

/* What the folder and the configuration hold while a stream runs, and by its end. */
struct change {
	uint64_t seed[2];
	const char *rule[2];
};

/* A stream of c's first adapter, weftd killed in its middle and started again with the second. */
static struct weft_request *interrupted(struct weft *w, const struct change *c,
					struct weft_result *res)
{
	struct weft_request *r;

	for (int i = 0;; i++) {
		r = submit(w);
		weft_wait(r, 0, 5, 60000);
		restart(c->seed[1], c->rule[1]);
		wait_end(r);
		res->size = sizeof(*res);
		weft_result(r, res);
		if (res->resubmitted || i == TRIES)
			return r;
		/* It had ended before the kill: the next one is to begin under the first adapter too,
		 * and on a session that knows that weftd is another. */
		weft_free(r);
		restart(c->seed[0], c->rule[0]);
		r = submit(w);
		wait_end(r);
		weft_free(r);
	}
}

/* The instance is the same, but now the base model would answer. */
static void test_rule(struct weft *w)
{
	struct weft_request *r, *whole;
	struct weft_result res;
	uint32_t common;

	restart(1, "append");
	whole = submit(w);
	wait_end(whole);
	res.size = sizeof(res);
	weft_result(whole, &res);
	is_int(res.invocation, WEFT_INVOCATION_APPENDED, "the invocation is appended");
	r = interrupted(w, &(struct change){{1, 1}, {"append", "base"}}, &res);
	is_int(res.resubmitted, 1, "weftd was killed, and the base model is to answer by now");
	is_int(res.status, WEFT_NO_INVOCATION, "the stream ends");
	is_int(different(r, whole, &common), 0, "what had come is right");
	weft_free(r);
	r = submit(w);
	wait_end(r);
	weft_result(r, &res);
	is_int(res.invocation, WEFT_INVOCATION_BASE, "a new request is the base model's");
	weft_free(r);
	weft_free(whole);
}

int main(void)
{
	struct weft_open_options oo = WEFT_OPEN_OPTIONS_INIT;
	struct weft_request *whole, *r, *other;
	struct weft_result res;
	struct weft_error e;
	uint32_t common;
	struct weft *w;

	real_daemon_init(&d, "llama", NULL);
	snprintf(folder, sizeof(folder), "%s/adapter", d.dir);
	d.conf = conf;
	for (uint32_t i = 0; i < N_PROMPT; i++)
		prompt[i] = i * 7 % 150;
	write_adapter(1, NULL);
	if (real_daemon_start(&d))
		bail_out("weftd does not start");
	oo.socket = d.socket;
	if (weft_open(&w, &oo, &e) < 0)
		bail_out(e.message);
	whole = submit(w);
	wait_end(whole);

	r = interrupted(w, &(struct change){{1, 1}, {NULL, NULL}}, &res);
	is_int(res.resubmitted, 1, "weftd was killed under a stream");
	is_int(res.status, WEFT_OK, "with the same adapter it continues");
	is_int(different(r, whole, &common), 0, "as if nothing had happened");
	is_int(common, SAMPLES * TOKENS, "to its end");
	weft_free(r);

	r = interrupted(w, &(struct change){{1, 2}, {NULL, NULL}}, &res);
	is_int(res.resubmitted, 1, "weftd was killed, and the folder holds other weights");
	is_int(res.status, WEFT_NO_ADAPTER, "the stream ends");
	is_int(different(r, whole, &common), 0, "what had come is right");
	ok(common < SAMPLES * TOKENS, "and nothing came after it");
	other = submit(w);
	wait_end(other);
	ok(different(other, whole, &common) > 0, "the new weights do give other answers");
	weft_free(other);
	weft_free(r);
	weft_free(whole);
	test_rule(w);
	weft_close(w);
	af_remove(folder);
	is_int(real_daemon_fini(&d), 0, "weftd ends cleanly");
	return tap_done();
}
