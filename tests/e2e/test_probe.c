/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_probe.c - what weft_probe() says is what then happens: random prompts of the base model, a
 * LoRA, and activated LoRAs of each kind are probed and then run on a real daemon and engine. A
 * request finds at least what the probe said and at most the rest of a block more: rows that agree
 * at the head of a full block are for the engine to find. Afterwards all full blocks of the prompt
 * are there, and of one that had nothing in common with any other all but the last token.
 */
#include "libclient/weft.h"
#include "tests/e2e/adapter_files.h"
#include "tests/e2e/real_daemon.h"
#include "tests/tap.h"

#include <errno.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#define TEXTS	 5u
#define LENGTH	 400u
#define REQUESTS 300u
#define VOCAB	 150u /* of prompts: invocations are above */

static const char *const adapters[] = {NULL, "lora", "alora", "lenient", "append"};
#define N_ADAPTERS 5u

static struct real_daemon d;
static struct weft *w;
static uint32_t texts[TEXTS][LENGTH];
static uint64_t rng = 12345;

static uint32_t rnd(uint32_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (uint32_t)(rng >> 20) % n;
}

static void pause_ms(int ms)
{
	nanosleep(&(struct timespec){.tv_nsec = ms * 1000000L}, NULL);
}

/* --- the daemon ------------------------------------------------------------------------------------------*/

static char conf[4000], folders[N_ADAPTERS][120];

static void make_adapters(void)
{
	const struct af_adapter lora = {.linears = AF_ALL, .rank = 8, .alpha = 8, .seed = 1};
	const struct af_adapter alora = {.linears = AF_Q | AF_K | AF_V,
					 .rank = 16,
					 .alpha = 16,
					 .seed = 2,
					 .n_invocation = 3,
					 .invocation = {160, 161, 162}};
	size_t at = (size_t)snprintf(conf, sizeof(conf), "kv_bytes = 8M\n");

	for (uint32_t i = 1; i < N_ADAPTERS; i++) {
		snprintf(folders[i], sizeof(folders[i]), "%s/%s", d.dir, adapters[i]);
		af_write(folders[i], d.model, i == 1 ? &lora : &alora);
		at += (size_t)snprintf(conf + at, sizeof(conf) - at, "[adapter %s]\npath = %s\n",
				       adapters[i], folders[i]);
		if (i >= 2)
			at += (size_t)snprintf(conf + at, sizeof(conf) - at,
					       "on_missing_invocation = %s\n",
					       i == 2	? "error"
					       : i == 3 ? "base"
							: "append");
	}
	d.conf = conf;
}

static struct weft *session(void)
{
	struct weft_open_options o = WEFT_OPEN_OPTIONS_INIT;
	struct weft_error e = {0};
	struct weft *s = NULL;

	o.socket = d.socket;
	if (weft_open(&s, &o, &e) < 0)
		bail_out(e.message);
	return s;
}

/* --- prompts ---------------------------------------------------------------------------------------------*/

/* Some of a text; perhaps an invocation, some of another, a changed token. */
static uint32_t make_prompt(uint32_t tokens[LENGTH])
{
	const uint32_t *text = texts[rnd(TEXTS)], invocation[3] = {160, 161, 162};
	uint32_t n = 1 + rnd(120);

	memcpy(tokens, text, n * 4);
	if (rnd(2)) {
		memcpy(tokens + n, invocation, sizeof(invocation));
		n += 3;
		text = texts[rnd(TEXTS)];
		for (uint32_t more = rnd(60); more; more--, n++)
			tokens[n] = text[n];
	}
	if (!rnd(4))
		tokens[rnd(n)] = rnd(VOCAB);
	return n;
}

/* As defined: the last place where the three tokens stand in a row. */
static uint32_t last_invocation(const uint32_t *tokens, uint32_t n)
{
	for (uint32_t at = n; at-- > 0;)
		if (at + 3 <= n && tokens[at] == 160 && tokens[at + 1] == 161 &&
		    tokens[at + 2] == 162)
			return at;
	return UINT32_MAX;
}

/* --- one request -----------------------------------------------------------------------------------------*/

static uint32_t refused, beyond, below, wrong, incomplete, exact, hits;

static int run(uint32_t adapter, const uint32_t *tokens, uint32_t n, uint32_t max_tokens,
	       struct weft_result *res)
{
	struct weft_submit_options o;
	struct weft_request *r;
	struct weft_error e;

	weft_submit_options_init(&o);
	o.prompt = tokens;
	o.n_prompt = n;
	o.adapter = adapters[adapter];
	o.max_tokens = max_tokens;
	o.ignore_eos = 1;
	if (weft_submit(w, &r, &o, &e) < 0)
		bail_out(e.message);
	for (int64_t have = 0, now; (now = weft_wait(r, 0, (uint32_t)have, 60000)) > have;)
		have = now;
	res->size = sizeof(*res);
	weft_result(r, res);
	weft_free(r);
	return (int)res->status;
}

/* The mirror follows between two steps. */
static bool becomes(uint32_t adapter, const uint32_t *tokens, uint32_t n, uint32_t want)
{
	struct weft_probe p = {.size = sizeof(p)};

	for (int i = 0; i < 30000; i++) {
		if (!weft_probe(w, adapters[adapter], tokens, n, &p) && p.cached_tokens >= want)
			return p.cached_tokens <= n;
		pause_ms(2);
	}
	diag("adapter %u, %u tokens: %u cached, not %u", adapter, n, p.cached_tokens, want);
	return false;
}

static void turn(void)
{
	uint32_t tokens[LENGTH], n = make_prompt(tokens), adapter = rnd(N_ADAPTERS);
	uint32_t found = last_invocation(tokens, n), whole = n;
	struct weft_probe p = {.size = sizeof(p)};
	struct weft_result res;
	int status;

	wrong += weft_probe(w, adapters[adapter], tokens, n, &p) != 0;
	status = run(adapter, tokens, n, 1 + rnd(20), &res);
	if (adapter == 2 && found == UINT32_MAX) {
		wrong += status != WEFT_NO_INVOCATION || p.cached_tokens ||
			 p.invocation != WEFT_INVOCATION_MISSING;
		refused++;
		return;
	}
	if (adapter == 4 && found == UINT32_MAX) {
		found = n;
		whole = n + 3;
	}
	wrong += status != WEFT_OK || p.invocation != res.invocation ||
		 p.activation != res.activation;
	if (adapter < 2)
		wrong += p.activation != (adapter ? 0 : UINT32_MAX);
	else
		wrong += p.activation != found;
	below += res.cached_tokens < p.cached_tokens;
	beyond += res.cached_tokens > p.cached_tokens + 15;
	exact += res.cached_tokens == p.cached_tokens;
	hits += res.cached_tokens > 0;
	whole = whole % 16 ? whole / 16 * 16 : whole - 1;
	incomplete += !becomes(adapter, tokens, n, whole < n ? whole : n);
}

static void test_adapters(void)
{
	struct weft_adapter a[8];
	int n = 0;

	for (int i = 0; i < 12000 && n < (int)N_ADAPTERS - 1; i++) {
		n = weft_adapters(w, a, 8);
		pause_ms(n < (int)N_ADAPTERS - 1 ? 5 : 0);
	}
	is_int(n, N_ADAPTERS - 1, "the adapters of the configuration are listed");
	for (int i = 0; i < n; i++)
		if (!strcmp(a[i].name, "append"))
			ok(a[i].activated && a[i].on_missing == 2 && a[i].n_invocation == 3 &&
				   a[i].invocation[2] == 162 && a[i].rank == 16 && a[i].instance,
			   "as configured");
}

static void test_random(void)
{
	for (uint32_t i = 0; i < REQUESTS; i++)
		turn();
	diag("%u requests: %u with something cached, %u refused; the probe was exact for %u",
	     REQUESTS, hits, refused, exact);
	is_int(wrong, 0, "invocation, activation and refusal are as the probe said");
	is_int(below, 0, "a request finds what the probe said");
	is_int(beyond, 0, "and less than a block more");
	is_int(incomplete, 0, "afterwards all full blocks of the prompt are there");
	ok(hits > REQUESTS / 2 && exact > REQUESTS / 10 && refused > 5, "there was much to find");
}

/* Nothing in common with anything: known to the token. */
static void test_fresh(void)
{
	struct weft_result res;
	uint32_t bad = 0;

	for (uint32_t n = 1; n < 40; n++) {
		uint32_t tokens[40], max_tokens = 1 + rnd(16 - n % 16);

		for (uint32_t i = 0; i < n; i++)
			tokens[i] = i ? rnd(VOCAB) : VOCAB + n;
		bad += run(0, tokens, n, max_tokens, &res) != WEFT_OK || res.cached_tokens;
		bad += !becomes(0, tokens, n, n - 1);
	}
	is_int(bad, 0, "a prompt like no other is known but for its last token");
}

/* WEFT_NO_CACHE takes and leaves nothing. */
static void test_no_cache(void)
{
	struct weft_probe p = {.size = sizeof(p)};
	struct weft_result res = {.size = sizeof(res)};
	struct weft_submit_options o;
	struct weft_request *r;
	uint32_t tokens[64], again[64];

	for (uint32_t i = 0; i < 64; i++) {
		tokens[i] = texts[0][i];
		again[i] = 170 + i % 7;
	}
	weft_submit_options_init(&o);
	o.prompt = tokens;
	o.n_prompt = 64;
	o.max_tokens = 4;
	o.flags = WEFT_NO_CACHE;
	for (int i = 0; i < 2; i++) {
		if (weft_submit(w, &r, &o, NULL) < 0)
			bail_out("submit");
		for (int64_t have = 0, now; (now = weft_wait(r, 0, (uint32_t)have, 60000)) > have;)
			have = now;
		weft_result(r, &res);
		weft_free(r);
		is_int(res.cached_tokens, 0, i ? "nor of another" : "nothing of a cached prompt");
		o.prompt = again;
	}
	weft_probe(w, NULL, again, 64, &p);
	is_int(p.cached_tokens, 0, "and nothing is left behind");
}

/* What the operator publishes is everybody's, for the base model and before an activation. */
static void test_public(void)
{
	uint32_t tokens[90], n = 70;
	struct weft_result res;
	char line[900];
	size_t at =
		(size_t)snprintf(line, sizeof(line), "%s/weft cache pin --public --socket %s",
				 getenv("WEFT_BUILD") ? getenv("WEFT_BUILD") : "build", d.socket);

	for (uint32_t i = 0; i < 90; i++) {
		tokens[i] = i ? rnd(VOCAB) : 191;
		if (i < n)
			at += (size_t)snprintf(line + at, sizeof(line) - at, " %u", tokens[i]);
	}
	snprintf(line + at, sizeof(line) - at, " > /dev/null");
	is_int(system(line), 0, "a prefix is published");
	ok(becomes(0, tokens, 90, n), "to the token");
	ok(becomes(3, tokens, 90, n), "an adapter that would fall back finds it too");
	is_int(run(0, tokens, 90, 1, &res), WEFT_OK, "a request");
	ok(res.cached_tokens >= n && res.cached_tokens < n + 16, "finds it (%u)",
	   res.cached_tokens);
}

/* The cache goes with the engine; an open session sees that, and what comes after. */
static void test_engine_killed(void)
{
	struct weft_probe p = {.size = sizeof(p)};
	struct weft_result res;
	char line[200];
	FILE *f;
	int pid = 0;

	snprintf(line, sizeof(line), "pgrep -P %d", (int)d.pid);
	f = popen(line, "r");
	if (!f || fscanf(f, "%d", &pid) != 1)
		bail_out("no engine");
	pclose(f);
	kill(pid, SIGKILL);
	is_int(run(0, texts[2], 20, 1, &res), WEFT_OK, "the engine was killed: another one serves");
	is_int(weft_probe(w, NULL, texts[1], 100, &p), 0, "its index is read");
	ok(p.cached_tokens < 16, "and it began with nothing (%u)", p.cached_tokens);
	is_int(run(0, texts[1], 100, 1, &res), WEFT_OK, "a request");
	ok(becomes(0, texts[1], 100, 96), "is cached again");
}

int main(void)
{
	real_daemon_init(&d, "llama", NULL);
	make_adapters();
	if (real_daemon_start(&d))
		bail_out("weftd does not start");
	for (uint32_t i = 0; i < TEXTS; i++)
		for (uint32_t k = 0; k < LENGTH; k++)
			texts[i][k] = rnd(VOCAB);
	w = session();
	test_adapters();
	test_random();
	test_fresh();
	test_no_cache();
	test_public();
	test_engine_killed();
	weft_close(w);
	for (uint32_t i = 1; i < N_ADAPTERS; i++)
		af_remove(folders[i]);
	is_int(real_daemon_fini(&d), 0, "weftd ends well");
	return tap_done();
}
