/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sample.c - drawing a token and reporting log-probabilities.
 *
 * One vector pass gives the row's log-sum and the maximum of each chunk of 64 logits. The k-th
 * largest chunk maximum is a lower bound of the k-th largest logit, so the top k lie in the few
 * chunks that reach it: nothing is ever sorted but a handful of candidates. top_p is a weighted
 * quickselect over the candidates near the maximum, widened until they hold the mass.
 *
 * Filters only find the cut: the last token kept, in the order (logit descending, id ascending).
 * The draw then walks the kept tokens in ascending id, adding weights in double, until the sum
 * passes u times the total. So the token is a function of the logits, the parameters and u.
 *
 * The scratch belongs to the calling thread; there is no other state.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/sample_pass.h"

struct wk_candidate {
	float logit, weight;
	uint32_t id;
};

struct row {
	const struct wk_passes *pass;
	const float *logits; /* what is drawn from: the caller's row, or the scratch's copy */
	uint32_t n;
	float max, inv_temp;
	const float *weight; /* of every token, or NULL: not computed yet */
	const float *chunk_max;
	struct wk_candidate *cand;
};

/* --- scratch -------------------------------------------------------------------------------------*/

int wk_sample_scratch_grow(struct wk_sample_scratch *s, uint32_t vocab)
{
	struct wk_sample_scratch n = {.vocab = vocab, .level = s->level};
	size_t chunks = (vocab + WK_PASS_CHUNK - 1) / WK_PASS_CHUNK;

	if (vocab <= s->vocab)
		return 0;
	n.logits = malloc(vocab * sizeof(float));
	n.weight = malloc(vocab * sizeof(float));
	n.chunk_max = malloc(chunks * sizeof(float));
	n.cand = malloc(vocab * sizeof(*n.cand));
	if (!n.logits || !n.weight || !n.chunk_max || !n.cand) {
		wk_sample_scratch_fini(&n);
		return -ENOMEM;
	}
	wk_sample_scratch_fini(s);
	*s = n;
	return 0;
}

void wk_sample_scratch_fini(struct wk_sample_scratch *s)
{
	enum wk_sample_level level = s->level;

	free(s->logits);
	free(s->weight);
	free(s->chunk_max);
	free(s->cand);
	*s = (struct wk_sample_scratch){.level = level};
}

/* --- selection -----------------------------------------------------------------------------------*/

/* The order of preference. No two candidates are equal. */
static bool before(const struct wk_candidate *a, const struct wk_candidate *b)
{
	return a->logit > b->logit || (a->logit == b->logit && a->id < b->id);
}

static void swap(struct wk_candidate *a, struct wk_candidate *b)
{
	struct wk_candidate t = *a;

	*a = *b;
	*b = t;
}

static void sort(struct wk_candidate *c, uint32_t n)
{
	for (uint32_t i = 1; i < n; i++) {
		struct wk_candidate t = c[i];
		uint32_t j = i;

		for (; j && before(&t, &c[j - 1]); j--)
			c[j] = c[j - 1];
		c[j] = t;
	}
}

/* Partition around the median of first, middle and last; gives the pivot's place. */
static uint32_t partition(struct wk_candidate *c, uint32_t n)
{
	uint32_t mid = n / 2, at = 0;

	if (before(&c[mid], &c[0]))
		swap(&c[mid], &c[0]);
	if (before(&c[n - 1], &c[0]))
		swap(&c[n - 1], &c[0]);
	if (before(&c[mid], &c[n - 1]))
		swap(&c[mid], &c[n - 1]);
	for (uint32_t i = 0; i < n - 1; i++)
		if (before(&c[i], &c[n - 1]))
			swap(&c[i], &c[at++]);
	swap(&c[at], &c[n - 1]);
	return at;
}

/* Reorder so that the shortest prefix, in the order of preference, whose mass reaches `target` comes
 * first (in any order); gives its length, at least 1. With by_count the mass of a candidate is 1. */
static uint32_t select_prefix(struct wk_candidate *c, uint32_t n, bool by_count, double target)
{
	uint32_t lo = 0, hi = n;
	double acc = 0;

	while (hi - lo > 24) {
		uint32_t p = lo + partition(c + lo, hi - lo);
		double mass = 0;

		if (by_count)
			mass = p - lo;
		else
			for (uint32_t i = lo; i < p; i++)
				mass += c[i].weight;
		if (p > lo && acc + mass >= target) {
			hi = p;
			continue;
		}
		acc += mass + (by_count ? 1 : c[p].weight);
		lo = p + 1;
		if (acc >= target)
			return lo;
	}
	sort(c + lo, hi - lo);
	while (lo < hi) {
		acc += by_count ? 1 : c[lo].weight;
		lo++;
		if (acc >= target)
			break;
	}
	return lo;
}

/* The least preferred of c[0..n-1]. */
static struct wk_candidate last_of(const struct wk_candidate *c, uint32_t n)
{
	struct wk_candidate last = c[0];

	for (uint32_t i = 1; i < n; i++)
		if (before(&last, &c[i]))
			last = c[i];
	return last;
}

static float weight_of(const struct row *r, uint32_t id)
{
	return r->weight ? r->weight[id] : wk_exp((r->logits[id] - r->max) * r->inv_temp);
}

/* All tokens of at least `floor`, in ascending id, without weights. */
static uint32_t collect(const struct row *r, float floor)
{
	uint32_t n = 0;

	for (uint32_t at = 0; at < r->n; at += WK_PASS_CHUNK) {
		uint32_t end = r->n - at < WK_PASS_CHUNK ? r->n : at + WK_PASS_CHUNK;

		if (r->chunk_max[at / WK_PASS_CHUNK] < floor)
			continue;
		for (uint32_t i = at; i < end; i++)
			if (r->logits[i] >= floor)
				r->cand[n++] =
					(struct wk_candidate){.logit = r->logits[i], .id = i};
	}
	return n;
}

static void weigh(const struct row *r, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		r->cand[i].weight = weight_of(r, r->cand[i].id);
}

/* The k largest into cand[0..], in any order; gives how many there are. */
static uint32_t top_k(const struct row *r, uint32_t k)
{
	uint32_t n_chunks = (r->n + WK_PASS_CHUNK - 1) / WK_PASS_CHUNK, n;
	float floor = -INFINITY;

	if (k < n_chunks) {
		for (uint32_t i = 0; i < n_chunks; i++)
			r->cand[i] = (struct wk_candidate){.logit = r->chunk_max[i], .id = i};
		floor = last_of(r->cand, select_prefix(r->cand, n_chunks, true, k)).logit;
	}
	n = collect(r, floor);
	return n > k ? select_prefix(r->cand, n, true, k) : n;
}

/* Candidates that surely hold `mass`: those near the maximum, then more, then all. */
static uint32_t collect_mass(const struct row *r, double mass)
{
	static const float reach[] = {4, 8, 16, INFINITY};

	for (int i = 0;; i++) {
		uint32_t n = collect(r, r->max - reach[i] / r->inv_temp);
		double sum = 0;

		weigh(r, n);
		for (uint32_t j = 0; j < n; j++)
			sum += r->cand[j].weight;
		/* The margin covers that select_prefix() adds the same weights in another order. */
		if (isinf(reach[i]) || sum * (1 - 1e-9) >= mass)
			return n;
	}
}

/* The filters; gives the last token kept. `sum` is the weight of all tokens. */
static struct wk_candidate find_cut(const struct row *r, const struct wk_sample *s, double sum)
{
	bool by_k = s->top_k && s->top_k < r->n;
	uint32_t n;

	if (by_k) {
		n = top_k(r, s->top_k);
		weigh(r, n);
		sum = 0;
		for (uint32_t i = 0; i < n; i++)
			sum += r->cand[i].weight;
		if (s->top_p >= 1)
			return last_of(r->cand, n);
	} else {
		n = collect_mass(r, s->top_p * sum);
	}
	return last_of(r->cand, select_prefix(r->cand, n, false, s->top_p * sum));
}

/* --- drawing -------------------------------------------------------------------------------------*/

/* The first token at which the running sum of weights passes u of the total. */
static uint32_t walk(const struct wk_candidate *c, uint32_t n, float u)
{
	double sum = 0, acc = 0;
	uint32_t last = 0;

	for (uint32_t i = 0; i < n; i++)
		sum += c[i].weight;
	for (uint32_t i = 0; i < n; i++) {
		acc += c[i].weight;
		if (c[i].weight > 0)
			last = c[i].id;
		if (acc > u * sum)
			break;
	}
	return last;
}

/* The same over all tokens, without candidates. */
static uint32_t walk_all(const struct row *r, double sum, float u)
{
	double acc = 0;
	uint32_t last = 0;

	for (uint32_t i = 0; i < r->n; i++) {
		acc += r->weight[i];
		if (r->weight[i] > 0)
			last = i;
		if (acc > u * sum)
			break;
	}
	return last;
}

static uint32_t draw(struct row *r, const struct wk_sample *s, float *weight)
{
	float u = wk_uniform(s->seed, s->sample, s->position);
	bool by_k = s->top_k && s->top_k < r->n;
	struct wk_candidate cut = {.logit = -INFINITY, .id = UINT32_MAX};
	double sum = 0;
	uint32_t n, kept = 0;

	if (!by_k) {
		sum = r->pass->weigh(r->logits, r->n, r->max, r->inv_temp, weight);
		r->weight = weight;
	}
	if (by_k || s->top_p < 1)
		cut = find_cut(r, s, sum);
	else if (!(s->min_p > 0))
		return walk_all(r, sum, u);
	n = collect(r, cut.logit);
	for (uint32_t i = 0; i < n; i++) {
		struct wk_candidate c = r->cand[i];

		c.weight = weight_of(r, c.id);
		/* The largest weight is exactly 1. */
		if (!before(&cut, &c) && c.weight >= s->min_p)
			r->cand[kept++] = c;
	}
	return walk(r->cand, kept, u);
}

static uint32_t arg_max(const struct row *r)
{
	uint32_t i = 0;

	while (r->chunk_max[i] != r->max)
		i++;
	for (i *= WK_PASS_CHUNK; r->logits[i] != r->max;)
		i++;
	return i;
}

/* --- one row -------------------------------------------------------------------------------------*/

static bool penalised(const struct wk_sample *s)
{
	return s->n_counts && (s->repetition_penalty != 1 || s->presence_penalty != 0 ||
			       s->frequency_penalty != 0);
}

/* Bias, then repetition (of prompt and output), then presence and frequency (of output). */
static void adjust(float *l, uint32_t vocab, const struct wk_sample *s)
{
	for (uint32_t i = 0; i < s->n_bias; i++)
		if (s->bias[i].token < vocab)
			l[s->bias[i].token] += s->bias[i].value;
	if (!penalised(s))
		return;
	for (uint32_t i = 0; i < s->n_counts; i++) {
		const struct wk_count *c = &s->counts[i];
		float v;

		if (c->token >= vocab)
			continue;
		v = l[c->token];
		if (s->repetition_penalty != 1 && (c->in_prompt || c->in_output))
			v = v > 0 ? v / s->repetition_penalty : v * s->repetition_penalty;
		if (c->in_output)
			v -= s->presence_penalty + s->frequency_penalty * c->in_output;
		l[c->token] = v;
	}
}

static void report_top(const struct row *r, uint32_t k, double lse, struct wk_sampled *ret)
{
	uint32_t n = k ? top_k(r, k) : 0;

	sort(r->cand, n);
	for (uint32_t i = 0; i < WK_MAX_LOGPROBS; i++) {
		ret->top_tokens[i] = i < n ? r->cand[i].id : WK_NO_TOKEN;
		ret->top_logprobs[i] = i < n ? (float)(r->cand[i].logit - lse) : -INFINITY;
	}
}

/* The row that is drawn from: adjusted in scratch if anything adjusts it. */
static bool prepare(struct row *r, const struct wk_sample *s, struct wk_sample_scratch *scratch)
{
	struct wk_scan scan;

	if (!s->n_bias && !penalised(s))
		return true;
	memcpy(scratch->logits, r->logits, r->n * sizeof(float));
	adjust(scratch->logits, r->n, s);
	r->pass->scan(scratch->logits, r->n, false, scratch->chunk_max, &scan);
	r->logits = scratch->logits;
	r->max = scan.max;
	return !scan.bad;
}

void wk_sample_row(const float *logits, uint32_t vocab, const struct wk_sample *s,
		   struct wk_sample_scratch *scratch, struct wk_sampled *ret)
{
	struct row r = {.pass = wk_passes_get(scratch->level),
			.logits = logits,
			.n = vocab,
			.chunk_max = scratch->chunk_max,
			.cand = scratch->cand};
	uint32_t n_top = s->n_logprobs < WK_MAX_LOGPROBS ? s->n_logprobs : WK_MAX_LOGPROBS;
	struct wk_scan scan;
	double lse;

	r.pass->scan(logits, vocab, true, scratch->chunk_max, &scan);
	r.max = scan.max;
	lse = scan.max + scan.log_sum;
	report_top(&r, scan.bad ? 0 : n_top, lse, ret);
	ret->token = 0;
	ret->logprob = NAN;
	if (scan.bad)
		return;
	if (s->given != WK_NO_TOKEN) {
		ret->token = s->given;
		if (s->given < vocab)
			ret->logprob = (float)(logits[s->given] - lse);
		return;
	}
	if (!prepare(&r, s, scratch))
		return;
	r.inv_temp = s->temperature > 0 ? 1 / s->temperature : INFINITY;
	ret->token = isfinite(r.inv_temp) ? draw(&r, s, scratch->weight) : arg_max(&r);
	ret->logprob = (float)(logits[ret->token] - lse);
}
