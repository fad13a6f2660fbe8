/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weftd is killed in the middle of streams and started again, ROUNDS times or more: every stream continues
 * and is, to the bit, what it is without a kill - greedy, drawn with a given seed, drawn with a seed
 * that the dead engine chose, several answers, log-probabilities. Real daemon, real engine.
 */
#include "libclient/weft.h"
#include "tests/e2e/real_daemon.h"
#include "tests/tap.h"

#include <errno.h>
#include <unistd.h>

#define ROUNDS	 8
#define KINDS	 5
#define N_PROMPT 24
#define TOKENS	 200

static uint32_t prompt[N_PROMPT];

static void options(struct weft_submit_options *o, int kind)
{
	weft_submit_options_init(o);
	o->prompt = prompt;
	o->n_prompt = N_PROMPT;
	o->max_tokens = TOKENS;
	o->ignore_eos = 1;
	switch (kind) {
	case 0:
		break;
	case 1: /* a given seed, penalties that depend on everything generated so far */
		o->temperature = 0.9f;
		o->has_seed = 1;
		o->seed = 12345;
		o->frequency_penalty = 0.3f;
		break;
	case 2: /* the engine draws the seed */
		o->temperature = 1.2f;
		o->top_p = 0.95f;
		break;
	case 3:
		o->n = 4;
		o->temperature = 1.0f;
		o->top_k = 50;
		break;
	case 4:
		o->temperature = 0.7f;
		o->logprobs = 2;
		o->prompt_logprobs = 1;
		break;
	}
}

static int64_t wait_end(struct weft_request *r, uint32_t sample)
{
	int64_t n, have = 0;

	while ((n = weft_wait(r, sample, (uint32_t)have, 60000)) > have)
		have = n;
	return n;
}

/* Are two ended requests the same to the bit? */
static int same(struct weft_request *a, struct weft_request *b, const struct weft_submit_options *o)
{
	for (uint32_t s = 0; s < o->n; s++) {
		uint32_t na, nb;
		const uint32_t *ta = weft_tokens(a, s, &na), *tb = weft_tokens(b, s, &nb);

		if (na != nb || na != o->max_tokens || memcmp(ta, tb, na * sizeof(*ta)))
			return 0;
		for (uint32_t i = 0; o->logprobs != WEFT_NO_LOGPROBS && i < na; i++) {
			const struct weft_logprob *la, *lb;
			int k = weft_logprobs(a, s, i, &la);

			if (k != 1 + (int)o->logprobs || weft_logprobs(b, s, i, &lb) != k ||
			    memcmp(la, lb, k * sizeof(*la)))
				return 0;
		}
	}
	for (uint32_t i = 1; o->prompt_logprobs != WEFT_NO_LOGPROBS && i < N_PROMPT; i++) {
		const struct weft_logprob *la, *lb;

		if (weft_prompt_logprobs(a, i, &la) != 2 || weft_prompt_logprobs(b, i, &lb) != 2 ||
		    memcmp(la, lb, 2 * sizeof(*la)))
			return 0;
	}
	return 1;
}

static void round_of(struct real_daemon *d, struct weft *w, int round, uint32_t *resubmitted)
{
	struct weft_request *r[KINDS], *again[KINDS];
	struct weft_submit_options o[KINDS];
	int equal = 0, seeds = 0, ended = 0;

	for (uint32_t i = 0; i < N_PROMPT; i++)
		prompt[i] = (uint32_t)(round * 31 + i * 7) % 150;
	for (int k = 0; k < KINDS; k++) {
		options(&o[k], k);
		if (weft_submit(w, &r[k], &o[k], NULL) < 0)
			bail_out("submit");
	}
	/* Sometimes before the first token, mostly in the middle. */
	weft_wait(r[round % KINDS], 0, (uint32_t)(round % ROUNDS) * 20, 60000);
	real_daemon_kill(d);
	if (real_daemon_start(d))
		bail_out("weftd does not start again");
	for (int k = 0; k < KINDS; k++) {
		struct weft_result res = {.size = sizeof(res)};

		for (uint32_t s = 0; s < o[k].n; s++)
			ended += wait_end(r[k], s) == TOKENS;
		weft_result(r[k], &res);
		*resubmitted += res.resubmitted;
		/* The reference: the same request, the same seed, nobody killed. */
		o[k].has_seed = 1;
		o[k].seed = res.seed;
		seeds += res.status == WEFT_OK && (k != 1 || res.seed == 12345);
		if (weft_submit(w, &again[k], &o[k], NULL) < 0)
			bail_out("submit");
		for (uint32_t s = 0; s < o[k].n; s++)
			wait_end(again[k], s);
		equal += same(r[k], again[k], &o[k]);
	}
	is_int(ended, KINDS + 3, "round %d: all answers have all tokens", round);
	is_int(seeds, KINDS, "round %d: status and seeds", round);
	is_int(equal, KINDS, "round %d: bit for bit as without a kill", round);
	for (int k = 0; k < KINDS; k++) {
		weft_free(r[k]);
		weft_free(again[k]);
	}
}

int main(void)
{
	struct weft_open_options oo = WEFT_OPEN_OPTIONS_INIT;
	struct real_daemon d;
	struct weft_error e;
	struct weft *w;
	uint32_t resubmitted = 0;

	real_daemon_init(&d, "llama", NULL);
	if (real_daemon_start(&d))
		bail_out("weftd does not start");
	oo.socket = d.socket;
	if (!ok(weft_open(&w, &oo, &e) == 0, "open a session"))
		bail_out(e.message);
	/* A round that was held up may have come too late for its kill. */
	for (int round = 0; round < ROUNDS || (resubmitted < ROUNDS && round < 100); round++)
		round_of(&d, w, round, &resubmitted);
	ok(resubmitted >= ROUNDS, "requests were in flight when weftd was killed (%u resubmitted)",
	   resubmitted);
	weft_close(w);
	is_int(real_daemon_fini(&d), 0, "weftd ends cleanly");
	return tap_done();
}
