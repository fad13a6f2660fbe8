/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_engine_sampling.c - every sampling option, through the rings, against what the fixture's
 * logits (made by transformers) say must come of it. On the ref backend, whose logits are those.
 */
#include "tests/e2e/engine_harness.h"
#include "tests/e2e/engine_oracle.h"
#include "tests/tap.h"

#include <math.h>

#define VOCAB 192

static struct engine_oracle oracle;
static uint32_t last_row; /* of the oracle's rows: the last of prompt 0 */

static void run(struct eh_session *s, struct wshm_desc *d, struct eh_result *ret)
{
	struct eh_req r;

	eh_submit(s, d, oracle.prompt[0], oracle.n_prompt[0], NULL, &r);
	if (!eh_wait(&r))
		bail_out("a request does not end");
	eh_result_take(ret, &r);
	eh_release(&r);
}

/* Tokens by falling probability at the last prompt row. */
static void ranking(uint32_t *ret)
{
	const float *x = oracle.logits + (size_t)last_row * VOCAB;

	for (uint32_t i = 0; i < VOCAB; i++) {
		uint32_t k = i;

		for (; k > 0 && x[ret[k - 1]] < x[i]; k--)
			ret[k] = ret[k - 1];
		ret[k] = i;
	}
}

static void test_first_token(struct eh_session *s, const uint32_t *rank)
{
	struct wshm_desc d;
	struct eh_result got;
	uint32_t inside = 0;
	double mass = 0;

	eh_desc(&d);
	d.max_tokens = 1;
	d.logprobs = 5;
	run(s, &d, &got);
	is_int(got.tokens[0][0], rank[0], "greedy takes the most probable token");
	for (uint32_t i = 0; i < 5; i++) {
		const struct wshm_logprob *p = (const struct wshm_logprob *)got.logprobs;

		inside += p[1 + i].token == rank[i] &&
			  fabs(p[1 + i].logprob -
			       engine_oracle_logprob(&oracle, last_row, rank[i])) < 1e-3;
	}
	is_int(inside, 5, "the alternatives are the five most probable, with their probabilities");
	eh_result_free(&got);

	d.n_bias = 2;
	d.bias[0].token = rank[0];
	d.bias[0].value = -INFINITY;
	d.bias[1].token = rank[1];
	d.bias[1].value = -INFINITY;
	run(s, &d, &got);
	is_int(got.tokens[0][0], rank[2], "forbidding two yields the third");
	ok(fabs(((struct wshm_logprob *)got.logprobs)[0].logprob -
		engine_oracle_logprob(&oracle, last_row, rank[2])) < 1e-3,
	   "with its probability in the model");
	eh_result_free(&got);
	d.bias[0].token = rank[VOCAB - 1];
	d.bias[0].value = 1000;
	run(s, &d, &got);
	is_int(got.tokens[0][0], rank[VOCAB - 1], "a large bias yields the least probable");
	eh_result_free(&got);

	/* top_k, top_p, min_p bound what can come; 16 answers of 8 seeds each try them. */
	for (int which = 0; which < 3; which++) {
		uint32_t allowed = 0, outside = 0, distinct = 0;
		bool seen[VOCAB] = {false};

		eh_desc(&d);
		d.max_tokens = 1;
		d.n = 16;
		d.temperature = 5;
		if (which == 0)
			d.top_k = allowed = 7;
		/* At this temperature: probabilities of logits / 5. */
		if (which == 1)
			d.top_p = 0.3f;
		if (which == 2)
			d.min_p = 0.6f;
		if (which) {
			const float *x = oracle.logits + (size_t)last_row * VOCAB;
			double sum = 0;

			for (uint32_t i = 0; i < VOCAB; i++)
				sum += exp((x[i] - x[rank[0]]) / 5);
			for (mass = 0; allowed < VOCAB; allowed++) {
				double p = exp((x[rank[allowed]] - x[rank[0]]) / 5);

				if (which == 1 ? mass / sum >= 0.3 : p < 0.6)
					break;
				mass += p;
			}
		}
		for (uint64_t seed = 0; seed < 8; seed++) {
			d.has_seed = true;
			d.seed = seed;
			run(s, &d, &got);
			for (uint32_t i = 0; i < 16; i++) {
				uint32_t place = 0;

				while (rank[place] != got.tokens[i][0])
					place++;
				outside += place >= allowed;
				distinct += !seen[place];
				seen[place] = true;
			}
			eh_result_free(&got);
		}
		ok(outside == 0 && distinct > allowed / 3 && distinct > 1,
		   "%s leaves %u tokens, and of these come (%u different)",
		   which == 0	? "top_k"
		   : which == 1 ? "top_p"
				: "min_p",
		   allowed, distinct);
	}
}

static void test_seed(struct eh_session *s)
{
	struct wshm_desc d;
	struct eh_result a, b, c;

	eh_desc(&d);
	d.temperature = 2;
	d.has_seed = true;
	d.seed = 42;
	d.n = 3;
	run(s, &d, &a);
	run(s, &d, &b);
	ok(eh_result_same(&a, &b), "the same seed gives the same answers");
	d.seed = 43;
	run(s, &d, &c);
	ok(memcmp(a.tokens[0], c.tokens[0], 64) != 0, "another seed others");
	ok(memcmp(a.tokens[0], a.tokens[1], 64) != 0 && memcmp(a.tokens[1], a.tokens[2], 64) != 0,
	   "and the answers of one request differ");
	eh_result_free(&b);
	eh_result_free(&c);
	d.has_seed = false;
	run(s, &d, &b);
	run(s, &d, &c);
	ok(memcmp(b.tokens[0], c.tokens[0], 64) != 0, "without a seed each request draws its own");
	eh_result_free(&a);
	eh_result_free(&b);
	eh_result_free(&c);
}

static void test_penalties(struct eh_session *s)
{
	struct wshm_desc d;
	struct eh_result got;
	uint32_t repeats = 0;

	/* The greedy answer of this fixture repeats itself (see its oracle.json). */
	eh_desc(&d);
	d.max_tokens = 60;
	d.presence = 10;
	d.frequency = 10;
	run(s, &d, &got);
	for (uint32_t i = 0; i < 60; i++)
		for (uint32_t k = 0; k < i; k++)
			repeats += got.tokens[0][i] == got.tokens[0][k];
	is_int(repeats, 0, "strong penalties let no token come twice");
	eh_result_free(&got);
	eh_desc(&d);
	d.max_tokens = 1;
	/* With a penalty of 10 on logits a token of the prompt comes only if nothing else is positive. */
	d.repetition = 10;
	run(s, &d, &got);
	repeats = 0;
	for (uint32_t i = 0; i < oracle.n_prompt[0]; i++)
		repeats += oracle.prompt[0][i] == got.tokens[0][0];
	is_int(repeats, 0, "nor one of the prompt");
	eh_result_free(&got);
}

static void test_stops(struct eh_session *s)
{
	const uint32_t *g = oracle.greedy[0];
	uint32_t want = 0;
	struct wshm_desc d;
	struct eh_result got;

	/* The end token 2 becomes the most probable by far. */
	eh_desc(&d);
	d.max_tokens = 40;
	d.ignore_eos = false;
	d.n_bias = 1;
	d.bias[0].token = 2;
	d.bias[0].value = 1000;
	run(s, &d, &got);
	ok(got.count[0] == 1 && got.tokens[0][0] == 2 && got.finish[0] == WSHM_FINISH_EOS,
	   "the model's end token ends, and stays");
	eh_result_free(&got);
	d.min_tokens = 5;
	run(s, &d, &got);
	/* As transformers' min_new_tokens: so many, and the end token is not one of them. */
	ok(got.count[0] == 6 && got.tokens[0][5] == 2 && got.finish[0] == WSHM_FINISH_EOS,
	   "min_tokens forbids it for so many");
	for (uint32_t i = 0; i < 5; i++)
		want += got.tokens[0][i] != 2;
	is_int(want, 5, "and only it");
	eh_result_free(&got);
	d.ignore_eos = true;
	run(s, &d, &got);
	ok(got.count[0] == 40 && got.tokens[0][0] == 2 && got.finish[0] == WSHM_FINISH_LENGTH,
	   "ignore_eos lets it come and go on");
	eh_result_free(&got);

	eh_desc(&d);
	d.max_tokens = 40;
	d.n_stop_tokens = 2;
	d.stop_tokens[0] = g[4];
	d.stop_tokens[1] = VOCAB - 1;
	for (want = 1; g[want - 1] != g[4] && g[want - 1] != VOCAB - 1; want++)
		;
	run(s, &d, &got);
	ok(got.count[0] == want && got.finish[0] == WSHM_FINISH_STOP_TOKEN &&
		   !memcmp(got.tokens[0], g, want * sizeof(*g)),
	   "a stop token ends, and stays");
	eh_result_free(&got);

	eh_desc(&d);
	d.max_tokens = 40;
	d.n_stop_seqs = 1;
	d.stop_seqs[0].n = 3;
	memcpy(d.stop_seqs[0].tokens, g + 3, 12);
	for (want = 3; memcmp(g + want - 3, g + 3, 12) != 0; want++)
		;
	run(s, &d, &got);
	ok(got.count[0] == want && got.finish[0] == WSHM_FINISH_STOP_SEQUENCE &&
		   !memcmp(got.tokens[0], g, want * sizeof(*g)),
	   "a stop sequence ends, and stays");
	eh_result_free(&got);

	eh_desc(&d);
	d.max_tokens = 7;
	run(s, &d, &got);
	ok(got.count[0] == 7 && got.finish[0] == WSHM_FINISH_LENGTH, "max_tokens end");
	eh_result_free(&got);
}

int main(void)
{
	const char *dir = eh_model_dir("llama");
	uint32_t rank[VOCAB];
	struct eh_session *s;
	struct eh h;

	engine_oracle_read(&oracle, dir, VOCAB);
	while (oracle.rows[0][last_row] + 1 != oracle.n_prompt[0])
		last_row++;
	ranking(rank);
	eh_init(&h, dir);
	eh_arg(&h, "--backend");
	eh_arg(&h, "ref");
	eh_start(&h);
	s = eh_open(&h, 0, 8, 1 << 20);
	test_first_token(s, rank);
	test_seed(s);
	test_penalties(s);
	test_stops(s);
	eh_stop(&h);
	engine_oracle_free(&oracle);
	return tap_done();
}
