/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plain_model.c - see plain_model.h.
 *
 *   pool   [ the one sequence's blocks | adapter 1 | adapter 2 | ... ]   adapters stay for ever
 *
 * What the sampler is told about a row is computed here anew (counts by a table over the
 * vocabulary), so that a mistake in the engine's own bookkeeping shows.
 */
#include "tests/e2e/plain_model.h"

#include "daemon/common/err.h"
#include "daemon/engine/model/adapter.h"
#include "tests/e2e/engine_harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define MAX_ADAPTER_BLOCKS 8192
#define MEMO_BUCKETS	   65536

struct memo {
	struct memo *next;
	uint64_t hash;
	struct wshm_desc desc; /* with what does not matter set to defaults */
	uint32_t adapter, n;
	uint32_t *prompt; /* owned */
	struct plain_result result;
};

struct plain_one {
	struct adapter *a; /* owned */
};

struct plain {
	const struct wk_ops *ops;
	struct wk_backend *be;
	struct model *model;
	const struct model_config *config;
	struct wk_buf *pool;
	uint32_t n_seq_blocks, used;
	uint32_t *table; /* owned; [n_seq_blocks] */
	struct plain_one adapters[PLAIN_MAX_ADAPTERS + 1];
	uint32_t n_adapters;
	struct memo **memo; /* owned; [MEMO_BUCKETS] */
};

/* One sample being computed. */
struct run {
	struct plain *p;
	const struct wshm_desc *d;
	uint32_t adapter, sample, n_prompt, n; /* positions known */
	uint64_t activation;
	uint32_t *tokens;	 /* owned; prompt and answer */
	struct wk_count *counts; /* owned; [vocab] */
	struct wk_bias bias[WSHM_MAX_BIAS + WSHM_MAX_STOP_TOKENS + MODEL_MAX_EOS];
};

static void __attribute__((noreturn)) bail(const char *what)
{
	printf("Bail out! plain model: %s\n", what);
	exit(255);
}

static void *must(void *memory)
{
	if (!memory)
		bail("out of memory");
	return memory;
}

/* --- the model ------------------------------------------------------------------------------------*/

struct plain *plain_new(const char *model_dir)
{
	const struct wk_open_options bo = {.n_threads = 1};
	const struct model_open_options mo = {.dir = model_dir};
	struct plain *p = must(calloc(1, sizeof(*p)));
	struct weft_err err = {0};

	p->ops = &wk_cpu_ops;
	if (p->ops->open(&bo, &p->be))
		bail("no cpu backend");
	if (model_open(p->ops, p->be, &mo, &p->model, &err))
		bail(err.message);
	p->config = model_config_of(p->model);
	p->n_seq_blocks = (p->config->max_positions + WK_BLOCK_TOKENS - 1) / WK_BLOCK_TOKENS;
	if (p->config->max_positions > WK_MAX_ROWS)
		bail("a prompt would not fit one pass");
	if (model_pool_new(p->model, p->n_seq_blocks + MAX_ADAPTER_BLOCKS, &p->pool, &err))
		bail(err.message);
	p->used = p->n_seq_blocks;
	p->table = must(calloc(p->n_seq_blocks, sizeof(*p->table)));
	for (uint32_t i = 0; i < p->n_seq_blocks; i++)
		p->table[i] = i;
	p->memo = must(calloc(MEMO_BUCKETS, sizeof(*p->memo)));
	return p;
}

static void result_fini(struct plain_result *r)
{
	free(r->tokens);
	free(r->logprobs);
	free(r->prompt);
}

void plain_forget(struct plain *p)
{
	for (uint32_t i = 0; i < MEMO_BUCKETS; i++)
		while (p->memo[i]) {
			struct memo *m = p->memo[i];

			p->memo[i] = m->next;
			result_fini(&m->result);
			free(m->prompt);
			free(m);
		}
}

void plain_free(struct plain *p)
{
	plain_forget(p);
	free(p->memo);
	for (uint32_t i = 1; i <= p->n_adapters; i++) {
		adapter_remove(p->adapters[i].a, p->model);
		adapter_close(p->adapters[i].a);
	}
	free(p->table);
	model_pool_free(p->model, p->pool);
	model_close(p->model);
	p->ops->close(p->be);
	free(p);
}

uint32_t plain_vocab(const struct plain *p)
{
	return p->config->vocab;
}

uint32_t plain_max_positions(const struct plain *p)
{
	return p->config->max_positions;
}

uint64_t plain_block_bytes(const struct plain *p)
{
	return model_block_bytes(p->model);
}

uint32_t plain_adapter(struct plain *p, const char *dir, int32_t offset)
{
	const struct adapter_source settings = {.name = dir, .offset = offset};
	struct plain_one *one = &p->adapters[p->n_adapters + 1];
	struct weft_err err = {0};
	uint32_t n, *blocks;

	if (p->n_adapters == PLAIN_MAX_ADAPTERS)
		bail("too many adapters");
	if (adapter_open_dir(p->model, model_block_bytes(p->model), dir, &settings, &one->a, &err))
		bail(err.message);
	n = adapter_blocks(one->a);
	if (p->used + n > p->n_seq_blocks + MAX_ADAPTER_BLOCKS)
		bail("no room for adapters");
	blocks = must(calloc(n, sizeof(*blocks)));
	for (uint32_t i = 0; i < n; i++)
		blocks[i] = p->used++;
	if (adapter_place(one->a, p->model, p->pool, blocks))
		bail("adapter_place");
	free(blocks);
	return ++p->n_adapters;
}

const struct wshm_instance *plain_instance(const struct plain *p, uint32_t adapter)
{
	return adapter_instance(p->adapters[adapter].a);
}

uint32_t plain_adapter_blocks(const struct plain *p, uint32_t adapter)
{
	return adapter_blocks(p->adapters[adapter].a);
}

uint64_t plain_activation(const struct plain *p, uint32_t adapter, const uint32_t *prompt,
			  uint32_t n)
{
	const struct wshm_instance *in;
	int64_t at = -1;

	if (!adapter)
		return UINT64_MAX;
	in = plain_instance(p, adapter);
	if (!in->activated)
		return 0;
	for (uint32_t i = 0; i + in->n_invocation <= n; i++)
		if (!memcmp(prompt + i, in->invocation, in->n_invocation * sizeof(*prompt)))
			at = i;
	if (at < 0)
		return UINT64_MAX;
	at += in->offset;
	return at < 0 ? 0 : at > n ? n : (uint64_t)at;
}

/* --- one sample -----------------------------------------------------------------------------------*/

/* Positions from..n-1 in one pass, with the logits of the last. */
static void forward(struct run *r, uint32_t from)
{
	struct plain *p = r->p;
	uint32_t rows = r->n - from, last = rows - 1;
	const struct wk_seq seq = {.n_rows = rows, .pos = from};
	uint32_t unadapted = r->activation <= from	    ? 0
			     : r->activation - from >= rows ? rows
							    : (uint32_t)(r->activation - from);
	const struct wk_segment segment = {.row = unadapted, .n_rows = rows - unadapted};
	const struct wk_lora *lora = r->adapter ? adapter_lora(p->adapters[r->adapter].a) : NULL;
	const struct wk_batch batch = {
		.n_rows = rows,
		.n_seqs = 1,
		.n_table = (r->n + WK_BLOCK_TOKENS - 1) / WK_BLOCK_TOKENS,
		.n_out = 1,
		.tokens = r->tokens + from,
		.seqs = &seq,
		.block_table = p->table,
		.out_rows = &last,
		.n_segments = unadapted < rows,
		.segments = &segment,
		.n_loras = unadapted < rows,
		.loras = &lora,
	};

	if (model_forward(p->model, p->pool, &batch))
		bail(p->ops->last_error(p->be));
}

static void count_tokens(struct run *r, struct wk_sample *ret)
{
	uint32_t vocab = r->p->config->vocab, n = 0;
	uint32_t *seen = must(calloc(2 * (size_t)vocab, sizeof(*seen)));

	for (uint32_t i = 0; i < r->n; i++)
		seen[2 * r->tokens[i] + (i >= r->n_prompt)]++;
	for (uint32_t t = 0; t < vocab; t++)
		if (seen[2 * t] || seen[2 * t + 1])
			r->counts[n++] = (struct wk_count){
				.token = t, .in_prompt = seen[2 * t], .in_output = seen[2 * t + 1]};
	free(seen);
	ret->counts = r->counts;
	ret->n_counts = n;
}

static uint32_t biases(struct run *r)
{
	const struct wshm_desc *d = r->d;
	const struct model_config *c = r->p->config;
	uint32_t n = 0, n_out = r->n - r->n_prompt;

	for (uint32_t i = 0; i < d->n_bias; i++)
		r->bias[n++] = (struct wk_bias){d->bias[i].token, d->bias[i].value};
	if (n_out >= d->min_tokens)
		return n;
	for (uint32_t i = 0; i < d->n_stop_tokens; i++)
		r->bias[n++] = (struct wk_bias){d->stop_tokens[i], -INFINITY};
	for (uint32_t i = 0; i < c->n_eos && !d->ignore_eos; i++)
		r->bias[n++] = (struct wk_bias){c->eos[i], -INFINITY};
	return n;
}

static void ask(struct run *r, const struct wk_sample *row, struct wk_sampled *ret)
{
	struct plain *p = r->p;
	const struct wk_buf *logits;
	uint32_t stride;

	logits = model_logits(p->model, &stride);
	p->ops->sample(p->be, logits, stride, p->config->vocab, row, 1, ret);
	if (p->ops->wait(p->be, p->ops->record(p->be)))
		bail(p->ops->last_error(p->be));
	if (isnan(ret->logprob))
		bail("a NaN");
}

static void draw(struct run *r, struct wk_sampled *ret)
{
	const struct wshm_desc *d = r->d;
	struct wk_sample row = {
		.temperature = d->temperature,
		.top_k = d->top_k,
		.top_p = d->top_p,
		.min_p = d->min_p,
		.repetition_penalty = d->repetition,
		.presence_penalty = d->presence,
		.frequency_penalty = d->frequency,
		.seed = d->seed,
		.sample = r->sample,
		.position = r->n,
		.n_logprobs = d->logprobs == WSHM_NO_LOGPROBS ? 0 : d->logprobs,
		.given = WK_NO_TOKEN,
		.bias = r->bias,
		.n_bias = biases(r),
	};

	if (d->repetition != 1 || d->presence != 0 || d->frequency != 0)
		count_tokens(r, &row);
	ask(r, &row, ret);
}

static void entry(uint8_t *at, uint32_t bytes, const struct wk_sampled *s)
{
	struct wshm_logprob e = {s->token, s->logprob};

	memcpy(at, &e, sizeof(e));
	for (uint32_t i = 0; (i + 2) * sizeof(e) <= bytes; i++) {
		e = (struct wshm_logprob){s->top_tokens[i], s->top_logprobs[i]};
		memcpy(at + (i + 1) * sizeof(e), &e, sizeof(e));
	}
}

/* Log-probabilities of the prompt's tokens, from the pass over it. The first has none. */
static void prompt_logprobs(struct run *r, struct plain_result *ret)
{
	uint32_t top = r->d->prompt_logprobs, bytes = 8 + 8 * top;

	ret->prompt = must(calloc(r->n_prompt, bytes));
	entry(ret->prompt, bytes, &(struct wk_sampled){.token = r->tokens[0]});
	for (uint32_t i = 0; i + 1 < r->n_prompt; i++) {
		const struct wk_sample row = {
			.top_p = 1,
			.repetition_penalty = 1,
			.n_logprobs = top,
			.given = r->tokens[i + 1],
		};
		struct wk_sampled got;

		if (model_logits_of(r->p->model, &i, 1))
			bail("logits of a prompt's row");
		ask(r, &row, &got);
		entry(ret->prompt + (size_t)(i + 1) * bytes, bytes, &got);
	}
}

static bool among(const uint32_t *set, uint32_t n, uint32_t token)
{
	while (n--)
		if (set[n] == token)
			return true;
	return false;
}

static enum wshm_finish finish(const struct run *r)
{
	const struct wshm_desc *d = r->d;
	const struct model_config *c = r->p->config;
	uint32_t n_out = r->n - r->n_prompt, last = r->tokens[r->n - 1];

	if (n_out >= d->min_tokens && !d->ignore_eos && among(c->eos, c->n_eos, last))
		return WSHM_FINISH_EOS;
	if (n_out >= d->min_tokens && among(d->stop_tokens, d->n_stop_tokens, last))
		return WSHM_FINISH_STOP_TOKEN;
	return n_out == d->max_tokens ? WSHM_FINISH_LENGTH : WSHM_FINISH_NONE;
}

static void run_sample(struct run *r, struct plain_result *ret)
{
	uint32_t k = r->sample, from = 0, bytes = ret->logprob_bytes;

	r->n = r->n_prompt;
	r->p->ops->kv_zero(r->p->be, r->p->pool, r->p->table, r->p->n_seq_blocks);
	do {
		struct wk_sampled got;
		uint32_t i = r->n - r->n_prompt;

		forward(r, from);
		draw(r, &got);
		if (!k && !from && r->d->prompt_logprobs != WSHM_NO_LOGPROBS)
			prompt_logprobs(r, ret);
		from = r->n;
		r->tokens[r->n++] = got.token;
		ret->tokens[(size_t)k * ret->max_tokens + i] = got.token;
		if (bytes)
			entry(ret->logprobs + ((size_t)k * ret->max_tokens + i) * bytes, bytes,
			      &got);
		ret->count[k] = i + 1;
		ret->finish[k] = finish(r);
	} while (!ret->finish[k]);
}

static void compute(struct plain *p, const struct wshm_desc *d, uint32_t adapter,
		    const uint32_t *prompt, uint32_t n, struct plain_result *ret)
{
	struct run r = {
		.p = p,
		.d = d,
		.adapter = adapter,
		.n_prompt = n,
		.activation = plain_activation(p, adapter, prompt, n),
	};
	size_t room = (size_t)d->n * d->max_tokens;

	if (d->n_stop_seqs || !d->has_seed || n + d->max_tokens > p->config->max_positions)
		bail("a request that it cannot do");
	r.tokens = must(calloc(n + d->max_tokens, sizeof(*r.tokens)));
	r.counts = must(calloc(p->config->vocab, sizeof(*r.counts)));
	memcpy(r.tokens, prompt, n * sizeof(*prompt));
	*ret = (struct plain_result){
		.n = d->n,
		.n_prompt = n,
		.activation = r.activation,
		.instance = r.activation == UINT64_MAX ? 0 : plain_instance(p, adapter)->digest[0],
		.max_tokens = d->max_tokens,
		.logprob_bytes = d->logprobs == WSHM_NO_LOGPROBS ? 0 : 8 + 8 * d->logprobs,
		.prompt_entry =
			d->prompt_logprobs == WSHM_NO_LOGPROBS ? 0 : 8 + 8 * d->prompt_logprobs,
		.tokens = must(calloc(room, sizeof(uint32_t))),
	};
	if (ret->logprob_bytes)
		ret->logprobs = must(calloc(room, ret->logprob_bytes));
	for (r.sample = 0; r.sample < d->n; r.sample++)
		run_sample(&r, ret);
	free(r.tokens);
	free(r.counts);
}

/* --- answers kept ---------------------------------------------------------------------------------*/

static void normalize(struct wshm_desc *ret, const struct wshm_desc *d)
{
	/* A copy of memory, padding included: it is hashed and compared as bytes. */
	memcpy(ret, d, sizeof(*ret));
	ret->prompt = (struct wshm_span){0};
	memset(ret->adapter, 0, sizeof(ret->adapter));
	memset(ret->model, 0, sizeof(ret->model));
	ret->priority = 0;
	ret->timeout_ms = 0;
	ret->instance = 0;
	ret->no_cache = false;
	ret->n_resume = 0;
	memset(ret->resume, 0, sizeof(ret->resume));
}

const struct plain_result *plain_run(struct plain *p, const struct wshm_desc *d, uint32_t adapter,
				     const uint32_t *prompt, uint32_t n)
{
	struct memo *m = must(calloc(1, sizeof(*m))), **at;

	normalize(&m->desc, d);
	m->hash = XXH3_64bits(&m->desc, sizeof(m->desc)) ^
		  XXH3_64bits_withSeed(prompt, n * sizeof(*prompt), adapter + 1);
	at = &p->memo[m->hash % MEMO_BUCKETS];
	for (const struct memo *old = *at; old; old = old->next)
		if (old->hash == m->hash && old->adapter == adapter && old->n == n &&
		    !memcmp(old->prompt, prompt, n * sizeof(*prompt)) &&
		    !memcmp(&old->desc, &m->desc, sizeof(m->desc))) {
			free(m);
			return &old->result;
		}
	m->adapter = adapter;
	m->n = n;
	m->prompt = must(malloc(n * sizeof(*prompt)));
	memcpy(m->prompt, prompt, n * sizeof(*prompt));
	compute(p, d, adapter, prompt, n, &m->result);
	m->next = *at;
	*at = m;
	return &m->result;
}

/* --- comparing ------------------------------------------------------------------------------------*/

static bool differ(const char *what, uint32_t sample, uint64_t got, uint64_t want)
{
	if (got != want)
		printf("#   sample %u: %s %llu, not %llu\n", sample, what, (unsigned long long)got,
		       (unsigned long long)want);
	return got != want;
}

/* Tokens that the client had already say no log-probabilities again. */
static bool same_sample(const struct eh_req *r, const struct plain_result *want, uint32_t k,
			bool partial, uint32_t resumed)
{
	const struct wshm_logprob *logprobs = eh_logprobs(r, k);
	const uint32_t *tokens = eh_tokens(r, k);
	uint32_t n = eh_count(r, k);

	if (partial ? n > want->count[k] : n != want->count[k])
		return !differ("tokens", k, n, want->count[k]);
	if (!partial && differ("finish", k, wshm_slot_finish(eh_slot(r), k), want->finish[k]))
		return false;
	for (uint32_t i = 0; i < n; i++) {
		size_t at = (size_t)k * want->max_tokens + i;
		uint32_t bytes = want->logprob_bytes;

		if (tokens[i] != want->tokens[at]) {
			printf("#   token %u:\n", i);
			return !differ("token", k, tokens[i], want->tokens[at]);
		}
		if (bytes && i >= resumed &&
		    memcmp((const uint8_t *)logprobs + (size_t)i * bytes,
			   want->logprobs + at * bytes, bytes)) {
			printf("#   sample %u: log-probabilities of token %u differ\n", k, i);
			return false;
		}
	}
	return true;
}

bool plain_same_from(const struct eh_req *r, const struct plain_result *want, uint32_t n_client,
		     bool partial, const uint32_t *resumed)
{
	const struct wshm_slot *s = eh_slot(r);
	uint32_t entries = wshm_slot_prompt_count(s), whole = want->prompt_entry ? n_client : 0;

	if ((!partial && differ("status", 0, eh_status(r), WSHM_OK)) ||
	    differ("answers", 0, s->n_samples, want->n) ||
	    differ("prompt", 0, s->prompt_tokens, n_client) ||
	    differ("activation", 0, s->activation, want->activation) ||
	    differ("instance", 0, s->adapter_instance, want->instance) ||
	    differ("entry size", 0, s->logprob_bytes, want->logprob_bytes) ||
	    differ("prompt's entry size", 0, s->prompt_logprob_bytes, want->prompt_entry) ||
	    ((!partial || entries > whole) && differ("prompt's entries", 0, entries, whole)))
		return false;
	if (entries &&
	    memcmp(eh_prompt_logprobs(r), want->prompt, (size_t)entries * want->prompt_entry)) {
		printf("#   log-probabilities of the prompt differ\n");
		return false;
	}
	for (uint32_t k = 0; k < want->n; k++)
		if (!same_sample(r, want, k, partial, resumed ? resumed[k] : 0))
			return false;
	return true;
}

bool plain_same(const struct eh_req *r, const struct plain_result *want, uint32_t n_client,
		bool partial)
{
	return plain_same_from(r, want, n_client, partial, NULL);
}
