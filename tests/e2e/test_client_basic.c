/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libweft against an engine whose answers are known: open, submit, tokens, waits of all kinds,
 * options in the descriptor, cancel, free, close, all slots or all prompt room in use.
 */
#include "libclient/weft.h"
#include "tests/e2e/fake_daemon.h"
#include "tests/tap.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

static const uint32_t prompt[] = {3, 1, 4, 1, 5, 9, 2, 6};
#define N_PROMPT (sizeof(prompt) / sizeof(*prompt))

static struct weft *open_session(const struct weft_open_options *o)
{
	struct weft_open_options with = *o;
	struct weft_error e = {0};
	struct weft *w = NULL;

	with.socket = fake_path();
	if (weft_open(&w, &with, &e) < 0)
		diag("open: %d %s", e.code, e.message);
	return w;
}

static struct weft_request *submit(struct weft *w, uint32_t max_tokens)
{
	struct weft_submit_options o;
	struct weft_request *r = NULL;
	struct weft_error e;

	weft_submit_options_init(&o);
	o.prompt = prompt;
	o.n_prompt = N_PROMPT;
	o.max_tokens = max_tokens;
	if (weft_submit(w, &r, &o, &e) < 0)
		diag("submit: %s", e.message);
	return r;
}

static int tokens_right(struct weft_request *r, uint32_t sample, uint32_t want)
{
	uint32_t n;
	const uint32_t *t = weft_tokens(r, sample, &n);

	if (n != want)
		return 0;
	for (uint32_t i = 0; i < n; i++)
		if (t[i] != fake_token(prompt, N_PROMPT, sample, i))
			return 0;
	return 1;
}

static void test_stream(struct weft *w)
{
	struct weft_request *r = submit(w, 100);
	struct weft_result res = {.size = sizeof(res)};
	char text[200];
	uint32_t have = 0;
	int64_t n;

	while ((n = weft_wait(r, 0, have, 60000)) > have)
		have = (uint32_t)n;
	is_int(n, 100, "waiting in a loop ends at all tokens");
	ok(tokens_right(r, 0, 100), "the tokens are the model's");
	is_int(weft_result(r, &res), 0, "a result is there");
	is_int(res.status, WEFT_OK, "status ok");
	is_int(res.finish[0], WEFT_FINISH_LENGTH, "finished by length");
	is_int(res.prompt_tokens, N_PROMPT, "prompt length");
	is_int(res.seed, FAKE_SEED, "the seed that the engine drew");
	ok(res.arrival_ns && res.end_ns >= res.arrival_ns, "stage times");
	ok(weft_status_text(&res, text, sizeof(text)) > 0 && strstr(text, "complete"), "in words");
	is_int(weft_wait(r, 0, 100, 0), 100,
	       "waiting for more of an ended request returns at once");
	is_int(weft_wait(r, 1, 0, 0), -EINVAL, "a sample that was not asked for");
	weft_free(r);
}

static void test_timeout(struct weft *w, struct fake_controls *c)
{
	struct weft_request *r;
	struct weft_result res = {.size = sizeof(res)};
	struct timespec a, b;
	double ms;

	atomic_store(&c->stall_at, 5);
	r = submit(w, 50);
	is_int(weft_wait(r, 0, 4, 60000), 5, "five tokens arrive");
	clock_gettime(CLOCK_MONOTONIC, &a);
	is_int(weft_wait(r, 0, 5, 60), -ETIMEDOUT, "no sixth within the time limit");
	clock_gettime(CLOCK_MONOTONIC, &b);
	ms = (b.tv_sec - a.tv_sec) * 1e3 + (b.tv_nsec - a.tv_nsec) / 1e6;
	ok(ms >= 60 && ms < 30000, "the limit was kept (%.1f ms)", ms);
	weft_result(r, &res);
	is_int(res.status, WEFT_RUNNING, "it is still running");
	is_int(weft_cancel(r), 0, "cancel");
	is_int(weft_wait(r, 0, 5, 60000), 5, "the end wakes the waiter");
	weft_result(r, &res);
	is_int(res.status, WEFT_CANCELLED, "status cancelled");
	weft_free(r);
	atomic_store(&c->stall_at, UINT32_MAX);
}

static void test_samples_and_logprobs(struct weft *w)
{
	struct weft_submit_options o;
	struct weft_request *r;
	const struct weft_logprob *lp;

	weft_submit_options_init(&o);
	o.prompt = prompt;
	o.n_prompt = N_PROMPT;
	o.n = 3;
	o.max_tokens = 20;
	o.logprobs = 2;
	is_int(weft_submit(w, &r, &o, NULL), 0, "three samples with log-probabilities");
	for (uint32_t s = 0; s < 3; s++) {
		int64_t n = 0;
		uint32_t have = 0;

		while ((n = weft_wait(r, s, have, 60000)) > have)
			have = (uint32_t)n;
		ok(tokens_right(r, s, 20), "sample %u", s);
	}
	is_int(weft_logprobs(r, 2, 19, &lp), 3, "the token and two alternatives");
	is_int(lp[0].token, fake_token(prompt, N_PROMPT, 2, 19), "its own entry first");
	ok(lp[0].logprob == -20 && lp[2].logprob == -22, "values in place");
	is_int(weft_logprobs(r, 0, 20, &lp), -ENOENT, "no entry beyond the last token");
	is_int(weft_prompt_logprobs(r, 1, &lp), -ENOENT, "none for the prompt, not asked for");
	weft_free(r);
	r = submit(w, 3);
	is_int(weft_logprobs(r, 0, 0, &lp), -ENOENT, "none where none were asked for");
	weft_free(r);
}

/* Every option, through the descriptor, into the engine's own decoder. */
static void test_options(struct weft *w, struct fake *f)
{
	const uint32_t stops[] = {7, 70000}, s1[] = {1, 2, 3}, s2[] = {9};
	const struct weft_sequence seqs[] = {{s1, 3}, {s2, 1}};
	const struct weft_bias bias[] = {{5, -INFINITY}, {300, 1.5f}};
	struct weft_submit_options o;
	struct weft_request *r;
	struct wshm_desc d;

	weft_submit_options_init(&o);
	o.prompt = prompt;
	o.n_prompt = N_PROMPT;
	o.adapter = "style";
	o.n = 2;
	o.max_tokens = 300;
	o.min_tokens = 2;
	o.temperature = 0.7f;
	o.top_k = 40;
	o.top_p = 0.9f;
	o.min_p = 0.05f;
	o.repetition_penalty = 1.1f;
	o.presence_penalty = -0.5f;
	o.frequency_penalty = 0.25f;
	o.has_seed = 1;
	o.seed = UINT64_C(0xfedcba9876543210);
	o.stop_tokens = stops;
	o.n_stop_tokens = 2;
	o.stop_sequences = seqs;
	o.n_stop_sequences = 2;
	o.bias = bias;
	o.n_bias = 2;
	o.ignore_eos = 1;
	o.logprobs = 0;
	o.prompt_logprobs = 1;
	o.priority = -7;
	o.timeout_ms = 60000;
	is_int(weft_submit(w, &r, &o, NULL), 0, "submit with every option (more than 15 keys)");
	ok(weft_wait(r, 0, 0, 60000) > 0, "the engine could read it");
	d = fake_last_desc(f);
	is_str(d.adapter, "style", "adapter");
	ok(d.n == 2 && d.max_tokens == 300 && d.min_tokens == 2, "counts");
	ok(d.temperature == 0.7f && d.top_k == 40 && d.top_p == 0.9f && d.min_p == 0.05f,
	   "sampling");
	ok(d.repetition == 1.1f && d.presence == -0.5f && d.frequency == 0.25f, "penalties");
	ok(d.has_seed && d.seed == o.seed, "seed");
	ok(d.n_stop_tokens == 2 && d.stop_tokens[0] == 7 && d.stop_tokens[1] == 70000, "stops");
	ok(d.n_stop_seqs == 2 && d.stop_seqs[0].n == 3 && d.stop_seqs[0].tokens[2] == 3 &&
		   d.stop_seqs[1].tokens[0] == 9,
	   "stop sequences");
	ok(d.n_bias == 2 && d.bias[0].token == 5 && isinf(d.bias[0].value) &&
		   d.bias[1].value == 1.5f,
	   "bias");
	ok(d.ignore_eos && d.logprobs == 0 && d.prompt_logprobs == 1,
	   "flags and log-probabilities");
	ok(d.priority == -7 && d.timeout_ms == 60000, "priority and time limit");
	weft_free(r);
}

static void test_refused_options(struct weft *w)
{
	struct weft_request *r = NULL;
	struct weft_error e;
	struct weft_submit_options o;
	uint32_t huge = 1 << 20;
	uint32_t *big = calloc(huge, 4);

#define REFUSED(code, change, text)                                            \
	do {                                                                   \
		weft_submit_options_init(&o);                                  \
		o.prompt = prompt;                                             \
		o.n_prompt = N_PROMPT;                                         \
		change;                                                        \
		e.message[0] = 0;                                              \
		is_int(weft_submit(w, &r, &o, &e), code, "refused: " #change); \
		ok(strstr(e.message, text), "and told why: %s", e.message);    \
	} while (0)
	REFUSED(-EINVAL, o.n_prompt = 0, "prompt");
	REFUSED(-EINVAL, o.n = 17, "n must");
	REFUSED(-EINVAL, o.n = 0, "n must");
	REFUSED(-EINVAL, o.max_tokens = 0, "max_tokens");
	REFUSED(-EINVAL, o.temperature = NAN, "temperature");
	REFUSED(-EINVAL, o.temperature = -1, "temperature");
	REFUSED(-EINVAL, o.top_p = 0, "top_p");
	REFUSED(-EINVAL, o.min_p = 1.5f, "min_p");
	REFUSED(-EINVAL, o.repetition_penalty = 0, "repetition");
	REFUSED(-EINVAL, o.logprobs = 21, "logprobs");
	REFUSED(-EINVAL, o.priority = 101, "priority");
	REFUSED(-EINVAL, o.min_tokens = 1000, "min_tokens");
	REFUSED(-EINVAL, o.size = 8, "8 bytes");
	REFUSED(-EINVAL, (o.prompt = big, o.n_prompt = huge), "does not fit");
	free(big);
	ok(r == NULL, "nothing was returned");
}

static void test_any(struct weft *w)
{
	struct weft_request *r[3] = {submit(w, 10), submit(w, 40), submit(w, 70)}, *got[8];
	int ended = 0, seen[3] = {0}, rounds = 0;

	while (ended < 3 && rounds++ < 1000) {
		int n = weft_wait_any(w, got, 8, 60000);

		if (n <= 0)
			break;
		for (int i = 0; i < n; i++) {
			struct weft_result res = {.size = sizeof(res)};
			int k = got[i] == r[0] ? 0 : got[i] == r[1] ? 1 : 2;

			weft_result(got[i], &res);
			if (res.status == WEFT_OK && !seen[k]++)
				ended++;
		}
	}
	is_int(ended, 3, "wait_any lists the end of all three");
	ok(tokens_right(r[0], 0, 10) && tokens_right(r[1], 0, 40) && tokens_right(r[2], 0, 70),
	   "and their tokens are right");
	is_int(weft_wait_any(w, got, 8, 50), -ETIMEDOUT, "no news is listed twice");
	for (int i = 0; i < 3; i++)
		weft_free(r[i]);
}

static void test_event_fd(struct weft *w, struct fake_controls *c)
{
	struct pollfd p = {weft_event_fd(w), POLLIN, 0};
	struct weft_request *r, *got[4];
	int polls = 0;
	uint32_t n = 0;

	ok(p.fd >= 0, "an event descriptor");
	while (weft_wait_any(w, got, 4, 0) > 0)
		;
	is_int(weft_event_arm(w), 0, "armed, no news");
	is_int(poll(&p, 1, 30), 0, "nothing to read while nothing happens");
	atomic_store(&c->stall_at, 3);
	r = submit(w, 6);
	while (n < 3 && polls++ < 100) {
		if (!weft_event_arm(w))
			ok(poll(&p, 1, 60000) == 1, "readable when there is news");
		while (weft_wait_any(w, got, 4, 0) > 0)
			;
		weft_tokens(r, 0, &n);
	}
	is_int(n, 3, "three tokens through the event loop");
	atomic_store(&c->stall_at, UINT32_MAX);
	while (n < 6 && polls++ < 100) {
		if (!weft_event_arm(w) && poll(&p, 1, 60000) != 1)
			break;
		while (weft_wait_any(w, got, 4, 0) > 0)
			;
		weft_tokens(r, 0, &n);
	}
	is_int(n, 6, "and the rest");
	weft_free(r);
}

static void test_exhaustion(void)
{
	struct weft_open_options o = WEFT_OPEN_OPTIONS_INIT;
	struct fake_options fo = {.path = fake_path(), .slots = 4, .tx_arena_bytes = 65536};
	struct fake *f = fake_start(&fo);
	struct fake_controls *c = fake_controls_of(f);
	struct weft *w = open_session(&o);
	struct weft_submit_options so;
	struct weft_request *r[4], *extra = NULL;
	struct weft_error e;
	uint32_t *big = calloc(10000, 4);

	atomic_store(&c->stall_at, 1);
	for (int i = 0; i < 4; i++)
		r[i] = submit(w, 10);
	weft_submit_options_init(&so);
	so.prompt = prompt;
	so.n_prompt = N_PROMPT;
	is_int(weft_submit(w, &extra, &so, &e), -EAGAIN, "all slots in use");
	ok(strstr(e.message, "4 slots"), "and told so: %s", e.message);
	weft_free(r[1]);
	is_int(weft_submit(w, &r[1], &so, &e), 0, "a slot freed just before is used again");
	for (int i = 0; i < 4; i++)
		weft_free(r[i]);
	/* 64 KiB: one prompt of 40,000 bytes fits, two do not. */
	so.prompt = big;
	so.n_prompt = 10000;
	is_int(weft_submit(w, &r[0], &so, &e), 0, "a prompt that fills most of the arena");
	is_int(weft_submit(w, &r[1], &so, &e), -EAGAIN, "no room for a second");
	weft_free(r[0]);
	is_int(weft_submit(w, &r[1], &so, &e), 0, "room again once the first is freed: %s",
	       e.message);
	/* An engine that does not take slots back must not make submit wait for ever. */
	weft_free(r[1]);
	atomic_store(&c->reclaim, 0);
	for (int i = 0; i < 3; i++)
		weft_free(submit(w, 1));
	so.n_prompt = N_PROMPT;
	so.prompt = prompt;
	int err = 0;
	for (int i = 0; i < 2 && !err; i++)
		err = weft_submit(w, &r[i], &so, &e);
	is_int(err, -EAGAIN, "slots that never come back: refused after a while");
	weft_close(w);
	fake_kill(f);
	free(big);
}

static void test_poll_always(void)
{
	struct weft_open_options o = WEFT_OPEN_OPTIONS_INIT;
	struct weft *w;
	struct weft_request *r, *got[2];
	uint32_t have = 0;
	int64_t n;

	o.flags = WEFT_POLL_ALWAYS;
	w = open_session(&o);
	r = submit(w, 60);
	while ((n = weft_wait(r, 0, have, 60000)) > have)
		have = (uint32_t)n;
	ok(tokens_right(r, 0, 60), "the same through spinning");
	while (weft_wait_any(w, got, 2, 0) > 0)
		;
	is_int(weft_wait_any(w, got, 2, 20), -ETIMEDOUT, "spinning keeps the time limit");
	weft_free(r);
	r = submit(w, 1);
	is_int(weft_wait_any(w, got, 2, 60000), 1, "wait_any spins too");
	ok(got[0] == r, "and finds the request");
	weft_close(w);
}

int main(void)
{
	struct fake_options fo = {.path = fake_path()};
	struct weft_open_options o = WEFT_OPEN_OPTIONS_INIT;
	struct fake *f = fake_start(&fo);
	struct fake_controls *c = fake_controls_of(f);
	struct weft *w = open_session(&o);
	struct weft_model m;

	if (!ok(w != NULL, "open a session"))
		return tap_done();
	is_int(weft_model_info(w, &m), 0, "ask for the model");
	is_str(m.name, "fake", "its name");
	is_int(m.vocab, FAKE_VOCAB, "its vocabulary");
	test_stream(w);
	test_timeout(w, c);
	test_samples_and_logprobs(w);
	test_options(w, f);
	test_refused_options(w);
	test_any(w);
	test_event_fd(w, c);
	test_poll_always();
	/* Left running on purpose: close cancels and frees. */
	submit(w, 1000);
	weft_close(w);
	weft_close(NULL);
	weft_free(NULL);
	fake_kill(f);
	test_exhaustion();
	return tap_done();
}
