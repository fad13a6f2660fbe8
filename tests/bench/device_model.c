/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device_model.c - whole passes of a model with made-up weights on the CUDA backend: attention, decode,
 * prefill, adapters, copies of blocks. The engine's own forward pass (model_forward), without the
 * engine: what a step costs on the device and in queueing it. Steps are timed by the host's clock from
 * the first one's batch to the last one's end, sampling included, one queued while the one before
 * computes and with the tokens that this draws, as the engine runs them.
 *
 * The pool is filled with random numbers: of the KV some blocks by the host, the rest by copying these
 * on the device; adapters by the host throughout, so that no two have the same weights. Adapters are
 * numbers in the pool that descriptions point to; there are no files of them.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "daemon/common/err.h"
#include "daemon/engine/model/adapter_private.h"
#include "daemon/engine/model/model.h"
#include "kernels/module.h"
#include "kernels/probe.h"
#include "tests/bench/device.h"

#define REPS	     7
#define MAX_ADAPTERS 64u
#define MAX_SEQS     64u
#define RANK	     16u
#define FIRST_BLOCKS 64u /* of KV: filled by the host */
#define WARM_STEPS   3u	 /* the backend makes its graphs in the first two of a kind */
#define LINEARS	     ADAPTER_N_LINEARS

struct sizes {
	uint32_t seqs, longest, middle, adapters, steps;
	uint32_t prompts[3];
	size_t copy_bytes;
};

static const struct sizes large = {64, 8192, 1024, 64, 10, {8192, 32768, 65536}, (size_t)4 << 30};
static const struct sizes tiny = {3, 64, 32, 2, 1, {32, 48, 64}, (size_t)1 << 16};

struct bench {
	struct figures *f;
	const struct model_stage *o;
	struct sizes s;
	const struct wk_ops *ops;
	struct wk_backend *be;
	struct wk_info info;
	struct limits limits;
	struct model *m;
	const struct model_config *c;
	struct wk_buf *pool;
	size_t block_bytes;
	uint32_t kv_blocks, n_blocks; /* adapters lie behind the blocks of KV */
	struct wk_lora *loras[MAX_ADAPTERS];
	uint64_t lora_at[MAX_ADAPTERS]; /* in the pool */
	uint32_t n_loras;
	uint32_t *table;      /* owner: all blocks of KV */
	uint64_t copy_ticket; /* of a copy that steps run beside */
	bool copying;	      /* until it has been seen to be done */
	double copied;	      /* when that was */
	char prefix[32];
};

static int fail(struct bench *b, const char *what)
{
	figures_missing(b->f, what, b->ops->last_error(b->be));
	return -1;
}

static void add(struct bench *b, const char *name, const char *unit, double *samples,
		enum figure_goal goal, double target)
{
	char full[128];

	snprintf(full, sizeof(full), "%s%s", b->prefix, name);
	figures_add(b->f, full, unit, samples, REPS, goal, target);
}

/* --- steps -------------------------------------------------------------------------------------*/

struct step {
	uint32_t seqs, rows, pos; /* rows of each */
	uint32_t adapters;	  /* over which the sequences are spread; 0: none */
	bool draw;
	bool alone;	 /* each waits for the one before */
	bool goes_on;	 /* with the tokens that the step before draws */
	double queued_s; /* returned: until all of it was queued */
};

static void segments(struct bench *b, const struct step *s, struct wk_batch *batch,
		     struct wk_segment *ret, const struct wk_lora **loras)
{
	for (uint32_t i = 0; i < s->adapters; i++) {
		uint32_t from = s->seqs * i / s->adapters, to = s->seqs * (i + 1) / s->adapters;

		ret[i] = (struct wk_segment){from * s->rows, (to - from) * s->rows, i};
		loras[i] = b->loras[i];
	}
	batch->n_segments = batch->n_loras = s->adapters;
	batch->segments = ret;
	batch->loras = loras;
}

/* Greedy, for each sequence. */
static void draw(struct bench *b, uint32_t n, struct wk_sampled *drawn)
{
	struct wk_sample ask[MAX_SEQS];
	uint32_t stride;
	const struct wk_buf *logits = model_logits(b->m, &stride);

	for (uint32_t i = 0; i < n; i++)
		ask[i] = (struct wk_sample){
			.row = i, .top_p = 1, .repetition_penalty = 1, .given = WK_NO_TOKEN};
	b->ops->sample(b->be, logits, stride, b->c->vocab, ask, n, drawn);
}

static void look_at_copy(struct bench *b)
{
	if (!b->copying || !b->ops->copy_query(b->be, b->copy_ticket))
		return;
	b->copying = false;
	b->copied = wk_seconds();
}

static int queue(struct bench *b, struct step *s, uint64_t *ret_ticket)
{
	uint32_t blocks = (s->pos + s->rows + WK_BLOCK_TOKENS - 1) / WK_BLOCK_TOKENS;
	uint32_t tokens[WK_MOST_ROWS], out[MAX_SEQS];
	struct wk_segment segs[MAX_ADAPTERS];
	const struct wk_lora *loras[MAX_ADAPTERS];
	static struct wk_sampled drawn[WK_MAX_STEPS][MAX_SEQS];
	static uint32_t which;
	struct wk_seq seqs[MAX_SEQS];
	struct wk_batch batch = {.n_rows = s->seqs * s->rows,
				 .n_seqs = s->seqs,
				 .n_table = s->seqs * blocks,
				 .n_out = s->draw ? s->seqs : 0,
				 .tokens = tokens,
				 .seqs = seqs,
				 .block_table = b->table,
				 .out_rows = out};
	double start = wk_seconds();

	for (uint32_t i = 0; i < batch.n_rows; i++)
		tokens[i] = s->goes_on ? WK_DRAWN | i : (i * 7919 + s->pos) % b->c->vocab;
	for (uint32_t i = 0; i < s->seqs; i++) {
		seqs[i] = (struct wk_seq){i * s->rows, s->rows, s->pos, i * blocks};
		out[i] = (i + 1) * s->rows - 1;
	}
	if (s->adapters)
		segments(b, s, &batch, segs, loras);
	if (model_forward(b->m, b->pool, &batch))
		return fail(b, "a pass");
	if (s->draw)
		draw(b, s->seqs, drawn[which++ % WK_MAX_STEPS]);
	*ret_ticket = b->ops->record(b->be);
	s->queued_s = wk_seconds() - start;
	return 0;
}

static int finish(struct bench *b, uint64_t ticket)
{
	while (b->copying && !b->ops->query(b->be, ticket))
		look_at_copy(b);
	return b->ops->wait(b->be, ticket) ? fail(b, "a pass") : 0;
}

static int run(struct bench *b, struct step *s)
{
	uint64_t ticket;

	return queue(b, s, &ticket) ? -1 : finish(b, ticket);
}

/* Seconds of a step, over several; negative: it failed. */
static double time_steps(struct bench *b, struct step *s, uint32_t n)
{
	double start = wk_seconds();
	uint64_t ticket, before = 0;

	for (uint32_t i = 0; i < n; i++, before = ticket) {
		s->goes_on = before && s->draw && s->rows == 1;
		if (queue(b, s, &ticket) || (before && finish(b, before)))
			return -1;
		if (s->alone && finish(b, ticket))
			return -1;
	}
	s->goes_on = false;
	return finish(b, before) ? -1 : (wk_seconds() - start) / n;
}

/* --- adapters -------------------------------------------------------------------------------------*/

/* Pieces of one adapter; with `parts` NULL only how many bytes they take. */
static size_t lay_adapter(struct bench *b, uint64_t at, struct wk_lora_part *parts,
			  uint64_t *offsets)
{
	uint64_t begin = at;
	uint32_t n = 0;

	for (uint32_t layer = 0; layer < b->c->n_layers; layer++)
		for (int i = 0; i < LINEARS; i++) {
			struct adapter_linear_shape s;

			adapter_linear_shape(b->c, (enum adapter_linear)i, &s);
			if (parts) {
				offsets[n] = at;
				parts[n] = (struct wk_lora_part){
					.site = MODEL_SITE(layer, s.site),
					.col = s.col,
					.n = s.n,
					.k = s.k,
					.rank = RANK,
					.scale = 0.01f,
					.pieces = &offsets[n],
				};
				n++;
			}
			at += (b->ops->lora_piece_bytes(b->be, s.n, s.k) + WK_POOL_ALIGN - 1) /
			      WK_POOL_ALIGN * WK_POOL_ALIGN;
		}
	return at - begin;
}

static void drop_adapters(struct bench *b)
{
	while (b->n_loras)
		b->ops->lora_free(b->be, b->loras[--b->n_loras]);
}

static int make_adapters(struct bench *b)
{
	uint32_t n = b->c->n_layers * LINEARS;
	uint64_t at = (uint64_t)b->kv_blocks * b->block_bytes, *offsets;
	struct wk_lora_part *parts = calloc(n, sizeof(*parts));
	int r = 0;

	offsets = calloc(n, sizeof(*offsets));
	for (; !r && parts && offsets && b->n_loras < b->s.adapters; b->n_loras += !r) {
		b->lora_at[b->n_loras] = at;
		at += lay_adapter(b, at, parts, offsets);
		r = b->ops->lora_new(b->be, parts, n, &b->loras[b->n_loras]);
	}
	free(parts);
	free(offsets);
	return b->n_loras == b->s.adapters ? 0 : fail(b, "adapters");
}

/* --- figures -----------------------------------------------------------------------------------*/

/* Queries that are not all the same: what is multiplied decides what the device draws, and how fast it is
 * allowed to be. */
static int made_up_queries(struct bench *b, size_t n, struct wk_buf **ret)
{
	uint16_t *bits = malloc(n * sizeof(*bits));
	uint32_t state = 1;
	int r = bits ? b->ops->buf_new(b->be, n * sizeof(*bits), ret) : -1;

	for (size_t i = 0; bits && i < n; i++) {
		state = state * 1664525u + 1013904223u;
		bits[i] = (uint16_t)(0x3f00 | (state >> 16 & 0x80ff)); /* 0.5 to 2, either sign */
	}
	r = r ? r : b->ops->buf_write(b->be, *ret, 0, bits, n * sizeof(*bits));
	free(bits);
	return r;
}

/* Attention of all layers, alone. */
static int attend(struct bench *b, const struct wk_batch *batch, struct wk_attention *op)
{
	int r = b->ops->batch_set(b->be, batch);

	for (op->layer = 0; !r && op->layer < b->c->n_layers; op->layer++)
		b->ops->attention(b->be, op);
	return r ? r : b->ops->wait(b->be, b->ops->record(b->be));
}

/* The backend's decode attention of all layers, against the driver's copy before and after it. */
static int attention(struct bench *b, uint32_t context, const char *name)
{
	const uint32_t n_q = b->c->n_heads * b->c->head_dim, blocks = context / WK_BLOCK_TOKENS;
	const double bytes =
		4.0 * b->s.seqs * context * b->c->n_layers * b->c->n_kv_heads * b->c->head_dim;
	uint32_t tokens[MAX_SEQS] = {0};
	struct wk_seq seqs[MAX_SEQS];
	struct wk_batch batch = {.n_rows = b->s.seqs,
				 .n_seqs = b->s.seqs,
				 .n_table = b->s.seqs * blocks,
				 .tokens = tokens,
				 .seqs = seqs,
				 .block_table = b->table};
	struct wk_attention op = {.pool = b->pool,
				  .n_heads = b->c->n_heads,
				  .q_stride = n_q,
				  .x_stride = n_q,
				  .scale = b->c->attention_scale};
	double samples[REPS], rate[REPS];
	struct wk_buf *q = NULL, *x = NULL;
	int r = made_up_queries(b, (size_t)b->s.seqs * n_q, &q);

	r = r ? r : b->ops->buf_new(b->be, (size_t)b->s.seqs * n_q * 2, &x);
	for (uint32_t i = 0; i < b->s.seqs; i++)
		seqs[i] = (struct wk_seq){i, 1, context - 1, i * blocks};
	op.q = q;
	op.x = x;
	for (int i = -3; !r && i < REPS; i++) { /* a graph is made the second time */
		double limit = limits_bandwidth(&b->limits), start = wk_seconds();

		r = attend(b, &batch, &op);
		start = wk_seconds() - start;
		limit = (limit + limits_bandwidth(&b->limits)) / 2;
		if (i >= 0) {
			rate[i] = bytes / start / 1e12;
			samples[i] = bytes / start / limit;
		}
	}
	b->ops->buf_free(b->be, q);
	b->ops->buf_free(b->be, x);
	if (r)
		return fail(b, name);
	add(b, name, "of copy", samples, FIGURE_AT_LEAST, 0.85);
	add(b, name, "TB/s", rate, FIGURE_NONE, 0);
	return 0;
}

/* Attention of all layers of a pass that ends a prompt of so many tokens. */
static int prompt_attention(struct bench *b, uint32_t context, double target)
{
	const uint32_t rows = context < b->info.max_rows ? context : b->info.max_rows;
	const uint32_t n_q = b->c->n_heads * b->c->head_dim;
	const double seen = (double)rows * context - (double)rows * (rows - 1) / 2;
	const double work = 4.0 * seen * n_q * b->c->n_layers;
	struct wk_seq seq = {0, rows, context - rows, 0};
	struct wk_batch batch = {.n_rows = rows,
				 .n_seqs = 1,
				 .n_table = context / WK_BLOCK_TOKENS,
				 .seqs = &seq,
				 .block_table = b->table};
	struct wk_attention op = {.pool = b->pool,
				  .n_heads = b->c->n_heads,
				  .q_stride = n_q,
				  .x_stride = n_q,
				  .scale = b->c->attention_scale};
	uint32_t *tokens = calloc(rows, sizeof(*tokens));
	struct wk_buf *q = NULL, *x = NULL;
	double samples[REPS];
	char name[64];
	int r = tokens ? made_up_queries(b, (size_t)rows * n_q, &q) : -1;

	snprintf(name, sizeof(name), "attention of prompts, %u rows at %u", rows, context);
	r = r ? r : b->ops->buf_new(b->be, (size_t)rows * n_q * 2, &x);
	batch.tokens = tokens;
	op.q = q;
	op.x = x;
	for (int i = -3; !r && i < REPS; i++) {
		double start = wk_seconds();

		r = attend(b, &batch, &op);
		if (i >= 0)
			samples[i] = work / (wk_seconds() - start) / 1e12;
	}
	b->ops->buf_free(b->be, q);
	b->ops->buf_free(b->be, x);
	free(tokens);
	if (r)
		return fail(b, name);
	add(b, name, "TFLOP/s", samples, target > 0 ? FIGURE_AT_LEAST : FIGURE_NONE, target);
	return 0;
}

static int decode(struct bench *b, uint32_t seqs, const char *name)
{
	struct step s = {.seqs = seqs, .rows = 1, .pos = b->s.middle - 1, .draw = true};
	double samples[REPS], queued[REPS];

	if (seqs == 1)
		s.pos = 127 < s.pos ? 127 : s.pos;
	for (int i = -1; i < REPS; i++) {
		double t = time_steps(b, &s, i < 0 ? 3 : b->s.steps);

		if (t < 0)
			return -1;
		if (i >= 0) {
			samples[i] = seqs == 1 ? t * 1e3 : seqs / t;
			queued[i] = s.queued_s * 1e6;
		}
	}
	if (seqs == 1) {
		add(b, name, "ms a token", samples, b->o->without ? FIGURE_NONE : FIGURE_AT_MOST,
		    3.9);
		return 0;
	}
	add(b, name, "tokens/s", samples, FIGURE_AT_LEAST, 9000);
	add(b, FIGURE_QUEUED, "us", queued, FIGURE_AT_MOST, 50);
	return 0;
}

static int prefill(struct bench *b, uint32_t n, uint32_t reps, double target)
{
	double samples[REPS];
	char name[96];

	snprintf(name, sizeof(name), "%sprefill %u, passes and first token", b->prefix, n);
	for (uint32_t i = 0; i < reps; i++) {
		double start = wk_seconds();
		uint64_t before = 0, ticket;

		for (uint32_t at = 0; at < n; at += b->info.max_rows, before = ticket) {
			struct step s = {.seqs = 1,
					 .rows = n - at < b->info.max_rows ? n - at
									   : b->info.max_rows,
					 .pos = at,
					 .draw = at + b->info.max_rows >= n};

			if (queue(b, &s, &ticket) || (before && finish(b, before)))
				return -1;
		}
		if (finish(b, before))
			return -1;
		samples[i] = wk_seconds() - start;
	}
	figures_add(b->f, name, "s", samples, reps, FIGURE_AT_MOST, target);
	return 0;
}

/* Steps with adapters between steps without. */
static int adapted(struct bench *b, uint32_t adapters, const char *name, double target)
{
	struct step with = {.seqs = b->s.seqs,
			    .rows = 1,
			    .pos = b->s.middle - 1,
			    .adapters = adapters,
			    .draw = true},
		    base = with;
	double samples[REPS];

	base.adapters = 0;
	for (int i = -1; i < REPS; i++) {
		double before = time_steps(b, &base, b->s.steps);
		double mid = time_steps(b, &with, i < 0 ? 3 : b->s.steps);
		double after = time_steps(b, &base, b->s.steps);

		if (before < 0 || mid < 0 || after < 0)
			return -1;
		if (i >= 0)
			samples[i] = (before + after) / 2 / mid;
	}
	add(b, name, "of base", samples, FIGURE_AT_LEAST, target);
	return 0;
}

/* Seconds of a step of the base model alone, when its graphs are there. */
static double base_steps(struct bench *b)
{
	struct step s = {.seqs = b->s.seqs, .rows = 1, .pos = b->s.middle - 1, .draw = true};

	return time_steps(b, &s, WARM_STEPS) < 0 ? -1 : time_steps(b, &s, b->s.steps);
}

/* Base steps while adapters are there that others have used, between base steps when none is there. */
static int unused(struct bench *b)
{
	struct step adapted = {.seqs = b->s.seqs,
			       .rows = 1,
			       .pos = b->s.middle - 1,
			       .adapters = b->s.adapters,
			       .draw = true};
	double samples[REPS];

	for (int i = 0; i < REPS; i++) {
		double before, mid, after;

		drop_adapters(b);
		before = base_steps(b);
		if (make_adapters(b) || time_steps(b, &adapted, WARM_STEPS) < 0)
			return -1;
		mid = base_steps(b);
		drop_adapters(b);
		after = base_steps(b);
		if (before < 0 || mid < 0 || after < 0)
			return -1;
		samples[i] = (before + after) / 2 / mid;
	}
	add(b, "decode of base, adapters loaded and unused", "of none", samples, FIGURE_AT_LEAST,
	    0.99);
	return 0;
}

/* How many adapters have weights that no other has, by what is in the pool. */
static int distinct(struct bench *b)
{
	size_t bytes = lay_adapter(b, 0, NULL, NULL);
	XXH64_hash_t digests[MAX_ADAPTERS];
	char *weights = malloc(bytes);
	double n = 0;
	int r = weights ? 0 : -1;

	for (uint32_t i = 0; !r && i < b->n_loras; i++) {
		r = b->ops->buf_read(b->be, b->pool, b->lora_at[i], weights, bytes);
		digests[i] = r ? 0 : XXH3_64bits(weights, bytes);
	}
	free(weights);
	if (r)
		return fail(b, "weights of adapters");
	for (uint32_t i = 0; i < b->n_loras; i++) {
		bool own = true;

		for (uint32_t k = 0; k < b->n_loras; k++)
			own &= k == i || digests[k] != digests[i];
		n += own;
	}
	figures_add(b->f, "adapters whose weights no other has", "adapters", &n, 1, FIGURE_AT_LEAST,
		    b->s.adapters);
	return 0;
}

/* --- copies of blocks ---------------------------------------------------------------------------*/

#define IN_BEFORE_STEP 16u /* blocks copied in before each step */

/* Blocks that no step of the batch writes, all over the rest of the pool, last first: no two adjoin. */
struct copies {
	struct wk_block_copy *list; /* owner */
	uint32_t *blocks;	    /* owner: their numbers */
	XXH64_hash_t *digests;	    /* owner */
	uint32_t n;
	bool of_batch; /* there are no others: the batch has them all */
	char *host;    /* owner */
	size_t bytes;
};

static void copies_close(struct bench *b, struct copies *c)
{
	b->ops->host_free(b->be, c->host, c->bytes);
	free(c->list);
	free(c->blocks);
	free(c->digests);
}

static int copies_open(struct bench *b, struct copies *c)
{
	uint32_t used = b->s.seqs * b->s.middle / WK_BLOCK_TOKENS, from, stride;
	void *host = NULL;
	int r = -ENOMEM;

	from = used < b->kv_blocks ? used : 0;
	c->of_batch = !from;
	c->n = (uint32_t)(b->s.copy_bytes / b->block_bytes);
	c->n = c->n < b->kv_blocks - from ? c->n : b->kv_blocks - from;
	/* As much as the host locks. */
	for (c->n = c->n ? c->n : 1; r == -ENOMEM && c->n; c->n /= r ? 2 : 1) {
		c->bytes = c->n * b->block_bytes;
		r = b->ops->host_new(b->be, c->bytes, &host);
	}
	c->host = host;
	c->list = calloc(c->n + 1, sizeof(*c->list));
	c->blocks = calloc(c->n + 1, sizeof(*c->blocks));
	c->digests = calloc(c->n + 1, sizeof(*c->digests));
	if (r || !c->list || !c->blocks || !c->digests)
		return fail(b, "pinned memory for blocks");
	stride = (b->kv_blocks - from) / c->n;
	for (uint32_t i = 0; i < c->n; i++) {
		c->blocks[i] = from + (c->n - 1 - i) * stride;
		c->list[i] = (struct wk_block_copy){c->blocks[i], c->host + i * b->block_bytes};
	}
	return 0;
}

/* Seconds of a copy from its call to its end; negative: it failed. */
static double time_copy(struct bench *b, const struct copies *c, bool out)
{
	double start = wk_seconds();
	uint64_t ticket = 0;
	int r = out ? b->ops->kv_copy_out(b->be, b->pool, c->list, c->n, &ticket)
		    : b->ops->kv_copy_in(b->be, b->pool, c->list, c->n, &ticket);

	r = r ? r : b->ops->copy_wait(b->be, ticket);
	return r ? fail(b, "copies of blocks") : wk_seconds() - start;
}

/* Out; the blocks zeroed; in; the places wiped; out again. Each block must be then as buf_read gave it
 * before. */
static int exact(struct bench *b, struct copies *c)
{
	char *block = malloc(b->block_bytes);
	double right = 0;
	int r = block ? 0 : -1;

	for (uint32_t i = 0; !r && i < c->n; i++) {
		r = b->ops->buf_read(b->be, b->pool, c->blocks[i] * b->block_bytes, block,
				     b->block_bytes);
		c->digests[i] = r ? 0 : XXH3_64bits(block, b->block_bytes);
	}
	free(block);
	if (r)
		return fail(b, "reading blocks");
	if (time_copy(b, c, true) < 0)
		return -1;
	b->ops->kv_zero(b->be, b->pool, c->blocks, c->n);
	if (time_copy(b, c, false) < 0)
		return -1;
	memset(c->host, 0, c->bytes);
	if (time_copy(b, c, true) < 0)
		return -1;
	for (uint32_t i = 0; i < c->n; i++)
		right += XXH3_64bits(c->list[i].host, b->block_bytes) == c->digests[i];
	right /= c->n;
	figures_add(b->f, "blocks that came back as they were", "of all", &right, 1,
		    FIGURE_AT_LEAST, 1);
	return 0;
}

static int copies_alone(struct bench *b, struct copies *c)
{
	double out[REPS], in[REPS];

	for (int i = -1; i < REPS; i++) {
		double there = time_copy(b, c, true), back = time_copy(b, c, false);

		if (there < 0 || back < 0)
			return -1;
		if (i >= 0) {
			out[i] = (double)c->bytes / there / 1e9;
			in[i] = (double)c->bytes / back / 1e9;
		}
	}
	add(b, "blocks to pinned memory", "GB/s", out, FIGURE_AT_LEAST, 40);
	add(b, "blocks from pinned memory to the device", "GB/s", in, FIGURE_AT_LEAST, 40);
	return 0;
}

/* Seconds of a step while blocks go out, and of that copy in *ret_copy; negative: it failed. */
static double out_beside(struct bench *b, struct copies *c, struct step *s, double *ret_copy)
{
	double start = wk_seconds(), end = start;
	uint32_t n = 0;

	if (b->ops->kv_copy_out(b->be, b->pool, c->list, c->n, &b->copy_ticket))
		return fail(b, "copies of blocks");
	b->copying = true;
	do {
		if (run(b, s))
			return -1;
		look_at_copy(b);
		/* Of whole steps beside it, unless there is none. */
		if (b->copying || !n) {
			end = wk_seconds();
			n++;
		}
	} while (b->copying);
	*ret_copy = b->copied - start;
	return b->ops->copy_wait(b->be, b->copy_ticket) ? fail(b, "copies of blocks")
							: (end - start) / n;
}

/* Seconds of a step with some blocks copied in before it, for which it waits. */
static double in_before(struct bench *b, struct copies *c, struct step *s, uint32_t n_blocks)
{
	double start = wk_seconds();
	uint64_t ticket = 0;

	for (uint32_t i = 0; i < b->s.steps; i++)
		if (b->ops->kv_copy_in(b->be, b->pool, c->list, n_blocks, &ticket) || run(b, s))
			return fail(b, "copies of blocks");
	return (wk_seconds() - start) / b->s.steps;
}

static int copies_beside(struct bench *b, struct copies *c)
{
	const uint32_t some = c->n < IN_BEFORE_STEP ? c->n : IN_BEFORE_STEP;
	struct step s = {
		.seqs = b->s.seqs, .rows = 1, .pos = b->s.middle - 1, .draw = true, .alone = true};
	double rate[REPS], out[REPS], in[REPS];
	char name[96];

	if (c->of_batch) {
		figures_missing(b->f, "blocks to pinned memory, decode of the batch beside it",
				"the pool has no blocks but those of the batch");
		return 0;
	}
	if (time_steps(b, &s, WARM_STEPS) < 0)
		return -1;
	for (int i = 0; i < REPS; i++) {
		double before = time_steps(b, &s, b->s.steps), copy = 0;
		double with_out = out_beside(b, c, &s, &copy);
		double after = time_steps(b, &s, b->s.steps);
		double with_in = in_before(b, c, &s, some);

		if (before < 0 || with_out < 0 || after < 0 || with_in < 0)
			return -1;
		rate[i] = (double)c->bytes / copy / 1e9;
		out[i] = (before + after) / 2 / with_out;
		in[i] = (before + after) / 2 / with_in;
	}
	add(b, "blocks to pinned memory, decode of the batch beside it", "GB/s", rate, FIGURE_NONE,
	    0);
	add(b, "decode of the batch, blocks copied out beside it", "of alone", out, FIGURE_NONE, 0);
	snprintf(name, sizeof(name), "decode of the batch, %u blocks copied in before each step",
		 some);
	add(b, name, "of alone", in, FIGURE_NONE, 0);
	return 0;
}

static int block_copies(struct bench *b)
{
	struct copies c = {0};
	int r = copies_open(b, &c) || copies_alone(b, &c) || exact(b, &c) || copies_beside(b, &c);

	copies_close(b, &c);
	return r ? -1 : 0;
}

/* --- setting up --------------------------------------------------------------------------------*/

/* Random bf16 in +-0.5..1, four of them at a time. */
static void fill_block(uint64_t *to, size_t bytes, uint64_t *state)
{
	uint64_t x = *state;

	for (size_t i = 0; i < bytes / sizeof(*to); i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		to[i] = (x & UINT64_C(0x807f807f807f807f)) | UINT64_C(0x3f003f003f003f00);
	}
	*state = x;
}

static int fill_pool(struct bench *b)
{
	uint32_t first = b->kv_blocks < FIRST_BLOCKS ? b->kv_blocks : FIRST_BLOCKS;
	uint64_t *block = malloc(b->block_bytes), state = 1;
	int r = block ? 0 : -1;

	for (uint32_t i = 0; !r && i < b->n_blocks; i++) {
		if (i >= first && i < b->kv_blocks)
			continue;
		fill_block(block, b->block_bytes, &state);
		r = b->ops->buf_write(b->be, b->pool, i * b->block_bytes, block, b->block_bytes);
	}
	free(block);
	for (uint32_t i = first; !r && i < b->kv_blocks; i++)
		b->ops->kv_copy_rows(b->be, b->pool, i % first, i, WK_BLOCK_TOKENS);
	return r || b->ops->wait(b->be, b->ops->record(b->be)) ? fail(b, "filling the pool") : 0;
}

/* Blocks for the longest batch that fits beside the adapters. */
static int make_pool(struct bench *b)
{
	size_t adapters = b->s.adapters * lay_adapter(b, 0, NULL, NULL), room;
	uint32_t behind = (uint32_t)(adapters / b->block_bytes) + 1, prompt = b->s.prompts[2];
	struct weft_err err;

	b->ops->info(b->be, &b->info);
	room = b->info.device_bytes_free / 10 * 9 / b->block_bytes;
	room = room > behind ? room - behind : 0;
	while (b->s.longest > 16 && (size_t)b->s.seqs * b->s.longest / WK_BLOCK_TOKENS > room)
		b->s.longest /= 2;
	b->kv_blocks = b->s.seqs * (b->s.longest > b->s.middle ? b->s.longest : b->s.middle) /
		       WK_BLOCK_TOKENS;
	if (b->kv_blocks < prompt / WK_BLOCK_TOKENS)
		b->kv_blocks = prompt / WK_BLOCK_TOKENS;
	b->n_blocks = b->kv_blocks + behind;
	b->table = malloc(b->kv_blocks * sizeof(*b->table));
	if (!b->table || model_pool_new(b->m, b->n_blocks, &b->pool, &err)) {
		figures_missing(b->f, "the pool", b->table ? err.message : "no memory");
		return -1;
	}
	for (uint32_t i = 0; i < b->kv_blocks; i++)
		b->table[i] = i;
	return fill_pool(b);
}

static int open_model(struct bench *b)
{
	const struct wk_open_options bo = {.n_threads = 1, .deterministic = b->o->deterministic};
	const struct model_open_options mo = {.dir = b->o->dir, .dummy = true};
	double start, seconds;
	struct weft_err err;
	char why[256];

	b->ops = wk_module_load("cuda", why, sizeof(why));
	if (!b->ops || b->ops->open(&bo, &b->be)) {
		figures_missing(b->f, "the backend", b->ops ? b->ops->last_error(NULL) : why);
		return -1;
	}
	b->ops->info(b->be, &b->info);
	figures_fact(b->f, "path", json_string(b->info.path));
	start = wk_seconds();
	if (model_open(b->ops, b->be, &mo, &b->m, &err)) {
		figures_missing(b->f, "the model", err.message);
		return -1;
	}
	seconds = wk_seconds() - start;
	b->c = model_config_of(b->m);
	b->block_bytes = model_block_bytes(b->m);
	figures_add(b->f, "load, weights made up by one core", "s", &seconds, 1, FIGURE_NONE, 0);
	return 0;
}

static void close_all(struct bench *b)
{
	drop_adapters(b);
	if (b->pool)
		model_pool_free(b->m, b->pool);
	model_close(b->m);
	if (b->be)
		b->ops->close(b->be);
	free(b->table);
	limits_close(&b->limits);
}

/* --- the stage ---------------------------------------------------------------------------------*/

/* What the mode costs: to be held against the figures of the same names without it. */
static int deterministic(struct bench *b)
{
	return decode(b, b->s.seqs, "decode, the batch") || decode(b, 1, "decode, batch 1") ||
	       prefill(b, b->s.prompts[0], 3, 0) || prompt_attention(b, b->s.prompts[0], 0) ||
	       prompt_attention(b, b->s.prompts[1], 0);
}

/* Decoding of one row alone, with less. */
static int without(struct bench *b)
{
	return decode(b, 1, "decode, batch 1");
}

static int all(struct bench *b)
{
	char longest[64], middle[64], few[64], many[64];

	snprintf(longest, sizeof(longest), "decode attention, %u x %u", b->s.seqs, b->s.longest);
	snprintf(middle, sizeof(middle), "decode attention, %u x %u", b->s.seqs, b->s.middle);
	snprintf(few, sizeof(few), "decode on %u adapters of r = 16",
		 b->s.adapters < 4 ? b->s.adapters : 4);
	snprintf(many, sizeof(many), "decode on %u adapters of r = 16", b->s.adapters);
	return attention(b, b->s.longest, longest) || attention(b, b->s.middle, middle) ||
	       decode(b, 1, "decode, batch 1") || decode(b, b->s.seqs, "decode, the batch") ||
	       prompt_attention(b, b->s.prompts[0], 0) ||
	       prompt_attention(b, b->s.prompts[1], 550) ||
	       prompt_attention(b, b->s.prompts[2], 550) || prefill(b, b->s.prompts[0], 5, 0.21) ||
	       prefill(b, b->s.prompts[1], 3, 1.2) || make_adapters(b) || distinct(b) ||
	       adapted(b, b->s.adapters < 4 ? b->s.adapters : 4, few, 0.93) ||
	       adapted(b, b->s.adapters, many, 0.65) || unused(b) || block_copies(b) ||
	       prefill(b, b->s.prompts[2], 1, 3.5);
}

int stage_model(struct figures *f, const struct model_stage *o)
{
	struct bench b = {.f = f, .o = o, .s = o->small ? tiny : large};
	int r;

	if (o->deterministic) {
		snprintf(b.prefix, sizeof(b.prefix), "deterministic: ");
		b.s.longest = b.s.middle;
		b.s.adapters = 1;
		b.s.prompts[2] = b.s.prompts[0];
	}
	if (o->without) {
		snprintf(b.prefix, sizeof(b.prefix), "%s=0: ", o->without);
		setenv(o->without, "0", 1);
		b.s.longest = b.s.middle;
		b.s.seqs = b.s.adapters = 1;
		b.s.prompts[2] = b.s.prompts[0];
	}
	r = limits_open(&b.limits, o->small ? (size_t)1 << 20 : (size_t)2 << 30);
	r = r || open_model(&b) || make_pool(&b);
	r = r || (o->without ? without(&b) : o->deterministic ? deterministic(&b) : all(&b));
	close_all(&b);
	return r ? -1 : 0;
}
