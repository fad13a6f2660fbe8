/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_sample.c - sampling of every backend against a plain reading of its rules in double: sort
 * everything, keep what the filters keep, walk the kept tokens by id until the sum passes u.
 */
#include <math.h>

#include "kernels/sample.h"
#include "kernels/uniform.h"
#include "tests/kernels/kt.h"
#include "tests/tap.h"

#define EPS 1e-5 /* what fp32 weights may differ by, relative to the total */

struct token {
	double logit, p;
	uint32_t id;
};

/* The row being tested, as the rules have it. */
struct row {
	uint32_t n;
	double lse;	       /* of the model's logits */
	struct token *by_rank; /* after bias and penalties, best first; p: softmax / temperature */
};

static int better(const void *a, const void *b)
{
	const struct token *x = a, *y = b;

	if (x->logit != y->logit)
		return x->logit > y->logit ? -1 : 1;
	return x->id < y->id ? -1 : 1;
}

static double adjusted(float logit, uint32_t id, const struct wk_sample *s)
{
	float v = logit;

	for (uint32_t i = 0; i < s->n_bias; i++)
		if (s->bias[i].token == id)
			v += s->bias[i].value;
	for (uint32_t i = 0; i < s->n_counts; i++) {
		const struct wk_count *c = &s->counts[i];

		if (c->token != id)
			continue;
		if (c->in_output + c->in_prompt)
			v = v > 0 ? v / s->repetition_penalty : v * s->repetition_penalty;
		if (c->in_output)
			v -= s->presence_penalty + s->frequency_penalty * c->in_output;
	}
	return v;
}

static struct row make_row(const float *l, uint32_t n, const struct wk_sample *s)
{
	struct row r = {.n = n, .by_rank = kt_alloc(n, sizeof(*r.by_rank))};
	double sum = 0, max = -INFINITY;

	for (uint32_t i = 0; i < n; i++)
		max = fmax(max, l[i]);
	for (uint32_t i = 0; i < n; i++)
		sum += exp(l[i] - max);
	r.lse = max + log(sum);
	for (uint32_t i = 0; i < n; i++)
		r.by_rank[i] = (struct token){adjusted(l[i], i, s), 0, i};
	qsort(r.by_rank, n, sizeof(*r.by_rank), better);
	sum = 0;
	for (uint32_t i = 0; i < n; i++) {
		r.by_rank[i].p = exp((r.by_rank[i].logit - r.by_rank[0].logit) /
				     (s->temperature > 0 ? s->temperature : 1));
		sum += r.by_rank[i].p;
	}
	for (uint32_t i = 0; i < n; i++)
		r.by_rank[i].p /= sum;
	return r;
}

/* How many tokens, best first, the filters keep; `slack` moves the borders of top_p and min_p. */
static uint32_t kept(const struct row *r, const struct wk_sample *s, double slack)
{
	uint32_t n = s->top_k && s->top_k < r->n ? s->top_k : r->n, m = 0;
	double total = 0, acc = 0;

	for (uint32_t i = 0; i < n; i++)
		total += r->by_rank[i].p;
	if (s->top_p < 1) {
		while (m < n && acc < (s->top_p + slack) * total)
			acc += r->by_rank[m++].p;
		n = m ? m : 1;
	}
	while (n > 1 && r->by_rank[n - 1].p < (s->min_p - slack) * r->by_rank[0].p)
		n--;
	return n;
}

static int by_id(const void *a, const void *b)
{
	const struct token *x = a, *y = b;

	return x->id < y->id ? -1 : 1;
}

/* Whether `token` is what u picks from the best n tokens, give or take EPS. */
static bool picks(const struct row *r, uint32_t n, double u, uint32_t token)
{
	struct token *t = kt_alloc(n, sizeof(*t));
	double total = 0, acc = 0;
	bool ret = false;

	memcpy(t, r->by_rank, n * sizeof(*t));
	qsort(t, n, sizeof(*t), by_id);
	for (uint32_t i = 0; i < n; i++)
		total += t[i].p;
	for (uint32_t i = 0; i < n; i++) {
		double lo = acc / total;

		acc += t[i].p;
		if (t[i].id == token)
			ret = u >= lo - EPS && u <= acc / total + EPS;
	}
	free(t);
	return ret;
}

static bool row_right(const float *l, uint32_t n, const struct wk_sample *s,
		      const struct wk_sampled *got)
{
	struct row r = make_row(l, n, s), raw;
	struct wk_sample plain = {.repetition_penalty = 1};
	bool right = fabs(got->logprob - (l[got->token] - r.lse)) < 1e-5 * (1 + fabs(r.lse));

	if (s->given != WK_NO_TOKEN) {
		right &= got->token == s->given;
	} else if (s->temperature == 0) {
		right &= got->token == r.by_rank[0].id;
	} else {
		double u = wk_uniform(s->seed, s->sample, s->position);
		uint32_t few = kept(&r, s, -EPS), many = kept(&r, s, EPS);
		bool any = false;

		/* Normally one count; more only where a border is within EPS. */
		for (uint32_t k = few; k <= many && k < few + 50; k++)
			any |= picks(&r, k, u, got->token);
		right &= any;
	}
	raw = make_row(l, n, &plain);
	for (uint32_t i = 0; i < WK_MAX_LOGPROBS; i++) {
		if (i >= s->n_logprobs || i >= n) {
			right &= got->top_tokens[i] == WK_NO_TOKEN;
			continue;
		}
		right &= got->top_tokens[i] == raw.by_rank[i].id;
		if (isfinite(raw.by_rank[i].logit))
			right &= fabs(got->top_logprobs[i] - (raw.by_rank[i].logit - raw.lse)) <
				 1e-5 * (1 + fabs(raw.lse));
	}
	free(r.by_rank);
	free(raw.by_rank);
	return right;
}

/* --- the parameters ------------------------------------------------------------------------------*/

#define N_CASES 120

static const uint32_t vocabs[] = {1, 2, 63, 64, 65, 1000, 1024, 1025, 5003, 20003};

static struct wk_bias biases[] = {{0, 3}, {5, -INFINITY}, {64, -2}, {999999, 1}};
static struct wk_count counts[] = {{0, 0, 2}, {1, 3, 0}, {7, 1, 1}, {62, 2, 0}};

/* Drawn at random, but the same for every backend: every filter meets every other. */
static struct wk_sample make_sample(uint32_t i, uint32_t n)
{
	static const float temps[] = {0, 1, 0.3f, 2.5f, 1}, top_ps[] = {1, 1, 0.9f, 0.5f, 0};
	static const float min_ps[] = {0, 0, 0.05f, 0.4f};
	static const uint32_t ks[] = {0, 0, 0, 1, 5, 64, 300};
	struct wk_sample s = {.row = i,
			      .repetition_penalty = 1,
			      .seed = 77 + i,
			      .sample = i % 3,
			      .position = 1000 + i,
			      .given = i == 11 ? n - 1 : WK_NO_TOKEN};

	kt_seed(5000 + i);
	s.temperature = temps[kt_random(5)];
	s.top_k = ks[kt_random(7)];
	s.top_p = top_ps[kt_random(5)];
	s.min_p = min_ps[kt_random(4)];
	s.n_logprobs = kt_random(3) ? 0 : 20;
	if (!kt_random(3) && n > 6) {
		s.bias = biases;
		s.n_bias = 4;
	}
	if (!kt_random(3)) {
		s.counts = counts;
		s.n_counts = 4;
		s.repetition_penalty = 1.3f;
		s.presence_penalty = kt_random(2) * 0.5f;
		s.frequency_penalty = kt_random(2) * 0.25f;
	}
	return s;
}

/* Rows of several tempers: spread, coarse (many ties), flat, and with some logits -Inf. */
static void fill_row(float *l, uint32_t n, uint32_t i)
{
	for (uint32_t j = 0; j < n; j++) {
		float v = kt_value() * 4 + kt_value() * 0.03f;

		l[j] = i % 4 == 0 ? v : i % 4 == 1 ? roundf(v) : i % 4 == 2 ? -2 : v * v - 1;
		if (i % 5 == 4 && j % 3 == 1)
			l[j] = -INFINITY;
	}
}

static struct wk_sampled first_seen[sizeof(vocabs) / sizeof(vocabs[0])][N_CASES];
static bool have_first;

static void check_vocab(struct kt *t, uint32_t v)
{
	/* Of the largest every other row is not aligned: nobody has promised that they are. */
	uint32_t n = vocabs[v], stride = n > 20000 ? n + 3 : n + 64 - n % 64, wrong = 0;
	float *l = kt_alloc((size_t)N_CASES * stride, sizeof(float));
	struct wk_sample s[N_CASES];
	struct wk_sampled out[N_CASES];
	struct wk_buf *lb;

	kt_seed(v);
	for (uint32_t i = 0; i < N_CASES; i++) {
		fill_row(l + (size_t)i * stride, n, i);
		s[i] = make_sample(i, n);
	}
	lb = kt_floats(t, l, (size_t)N_CASES * stride);
	memset(out, 0, sizeof(out));
	t->ops->sample(t->be, lb, stride, n, s, N_CASES, out);
	kt_sync(t);
	for (uint32_t i = 0; i < N_CASES; i++)
		if (!row_right(l + (size_t)i * stride, n, &s[i], &out[i])) {
			diag("wrong: vocabulary %u, row %u, token %u", n, i, out[i].token);
			wrong++;
		}
	is_int(wrong, 0, "%s: %u rows over a vocabulary of %u", t->label, N_CASES, n);
	if (!have_first)
		memcpy(first_seen[v], out, sizeof(out));
	ok(!memcmp(first_seen[v], out, sizeof(out)), "%s: the same bits as on ref", t->label);
	kt_free(t, lb);
	free(l);
}

/* Rows that nothing can be drawn from, and tokens given from outside the vocabulary. */
static void bad_rows(struct kt *t)
{
	enum { n = 130 };
	float l[4 * n];
	struct wk_sample s[4];
	struct wk_sampled out[4];
	struct wk_buf *lb;

	kt_fill(l, 4 * n, 5);
	l[100] = NAN;
	l[n + 129] = INFINITY;
	for (int i = 0; i < n; i++)
		l[2 * n + i] = -INFINITY;
	for (uint32_t i = 0; i < 4; i++)
		s[i] = (struct wk_sample){.row = i,
					  .temperature = i % 2,
					  .top_p = 1,
					  .repetition_penalty = 1,
					  .n_logprobs = 2,
					  .given = i == 3 ? n : WK_NO_TOKEN};
	lb = kt_floats(t, l, 4 * n);
	t->ops->sample(t->be, lb, n, n, s, 4, out);
	kt_sync(t);
	for (int i = 0; i < 3; i++)
		ok(isnan(out[i].logprob) && out[i].token == 0,
		   "%s: bad row %d gives NaN and token 0", t->label, i);
	ok(isnan(out[3].logprob) && out[3].token == n, "%s: a given token beyond the vocabulary",
	   t->label);
	kt_free(t, lb);
}

static void run(struct kt *t)
{
	for (uint32_t v = 0; v < sizeof(vocabs) / sizeof(vocabs[0]); v++)
		check_vocab(t, v);
	have_first = true;
	bad_rows(t);
}

/* The three known answers that come with the generator's publication. */
static void philox(void)
{
	static const uint32_t kat[3][10] = {
		{0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
		{~0u, ~0u, ~0u, ~0u, ~0u, ~0u, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
		{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09,
		 0x94fdcceb, 0x5001e420, 0x24126ea1},
	};
	uint32_t r[4];

	for (int i = 0; i < 3; i++) {
		wk_philox4x32(kat[i], kat[i] + 4, r);
		ok(!memcmp(r, kat[i] + 6, sizeof(r)), "philox4x32-10, known answer %d", i);
	}
	ok(wk_uniform(0, 0, 0) == (0x6627e8d5u >> 8) / 16777216.0f,
	   "the uniform number is its top");
}

/* The vector passes give the same bits on every instruction set. */
static void levels(void)
{
	enum { n = 3001 };
	float l[n];
	struct wk_sampled out[3];
	uint32_t wrong = 0;

	for (uint32_t i = 0; i < 200; i++) {
		struct wk_sample s = make_sample(i % N_CASES, n);

		fill_row(l, n, i);
		for (int k = 0; k < 3; k++) {
			struct wk_sample_scratch scratch = {
				.level = (enum wk_sample_level)(WK_SAMPLE_BASELINE + k)};

			if (wk_sample_scratch_grow(&scratch, n))
				bail_out("out of memory");
			memset(&out[k], 0, sizeof(out[k]));
			wk_sample_row(l, n, &s, &scratch, &out[k]);
			wk_sample_scratch_fini(&scratch);
			wrong += memcmp(&out[0], &out[k], sizeof(out[0])) != 0;
		}
	}
	is_int(wrong, 0, "baseline, AVX2 and AVX-512 agree");
}

int main(void)
{
	philox();
	kt_each(run);
	levels();
	return tap_done();
}
