/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_queued.c - two steps queued, on every backend: rows whose tokens are named by where the step
 * before drew them, against the same steps run one at a time with each token read by the host and given
 * as a number. Tokens and log-probabilities must be the same to the bit, each step's must come with its
 * own wait and no earlier, and nothing that the host reuses may reach a step that is queued.
 *
 * A script of random steps: sequences of one layer's attention that go on, start again over zeroed
 * blocks, or continue from another's copied rows; rows in any order of what was drawn, twice or never,
 * mixed with plain tokens; adapters; none, one or two calls of sample(). A backend that runs late
 * (tests/cuda) shows an order that is not kept.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/chain.h"
#include "tests/tap.h"

#define STEPS	   24u
#define SEQS	   6u
#define SEQ_BLOCKS 4u
#define SEQ_TOKENS (SEQ_BLOCKS * WK_BLOCK_TOKENS)
#define MAX_NEW	   4u
#define ROWS	   (SEQS * MAX_NEW)
#define CALLS	   2u
#define DRAWS	   14u
#define TABLE	   5000u /* more than there is room for at first */
#define UNTOUCHED  0xaa

_Static_assert(SEQS *SEQ_BLOCKS <= CHAIN_KV_BLOCK, "blocks");

struct step {
	uint32_t tokens[ROWS], out_rows[ROWS], n_rows, n_out;
	struct wk_seq seqs[SEQS];
	uint32_t n_seqs, n_table, table[SEQS * SEQ_BLOCKS];
	uint32_t fresh[SEQS * SEQ_BLOCKS], n_fresh; /* blocks that become zero before it */
	uint32_t from, to, n_copied;		    /* rows that are copied before it; none: 0 */
	struct wk_segment segment;		    /* n_rows 0: none */
	uint32_t adapter;
	float scale; /* of the embedding; infinite: all logits are NaN */
	uint32_t n_calls, n_draws[CALLS];
	struct wk_sample draws[CALLS][DRAWS];
};

static struct step script[STEPS];
static struct wk_sampled want[STEPS][CALLS][DRAWS], got[STEPS][CALLS][DRAWS];

/* --- the script ----------------------------------------------------------------------------------------*/

static const struct wk_bias biases[] = {{3, 2}, {50, -INFINITY}, {96, 1.5f}};
static const struct wk_count counts[] = {{2, 1, 0}, {17, 0, 3}, {33, 2, 1}, {90, 4, 0}};
static struct wk_bias all_forbidden[CHAIN_VOCAB];

static struct wk_sample make_draw(uint32_t n_logits, uint32_t position)
{
	struct wk_sample s = {.row = kt_random(n_logits),
			      .temperature = (float)kt_random(3) / 2,
			      .top_p = kt_random(2) ? 1 : 0.9f,
			      .top_k = kt_random(3) ? 0 : 20,
			      .repetition_penalty = 1,
			      .seed = kt_random(1000),
			      .position = position,
			      .n_logprobs = kt_random(4) ? 0 : 3,
			      .given = kt_random(8) ? WK_NO_TOKEN : kt_random(CHAIN_VOCAB)};

	switch (kt_random(8)) {
	case 0:
		s.bias = biases;
		s.n_bias = 3;
		break;
	case 1:
		s.counts = counts;
		s.n_counts = 4;
		s.repetition_penalty = 1.2f;
		s.presence_penalty = 0.25f;
		break;
	case 2: /* nothing is left to draw from */
		s.bias = kt_random(3) ? NULL : all_forbidden;
		s.n_bias = s.bias ? CHAIN_VOCAB : 0;
		break;
	}
	return s;
}

static void make_calls(struct step *st, uint32_t index)
{
	static const uint32_t calls[] = {0, 1, 1, 1, 1, 2};
	uint32_t n_logits = st->n_out ? st->n_out : st->n_rows;

	st->n_calls = index ? calls[kt_random(6)] : 1;
	for (uint32_t c = 0; c < st->n_calls; c++) {
		st->n_draws[c] = 1 + kt_random(DRAWS);
		for (uint32_t i = 0; i < st->n_draws[c]; i++)
			st->draws[c][i] = make_draw(n_logits, 100 * index + i);
	}
}

/* What is done to sequence i before it goes on. */
static void begin_again(struct step *st, uint32_t *pos, uint32_t i)
{
	for (uint32_t b = 0; b < SEQ_BLOCKS; b++)
		st->fresh[st->n_fresh++] = i * SEQ_BLOCKS + b;
	pos[i] = 0;
}

static void continue_other(struct step *st, uint32_t *pos)
{
	uint32_t from = kt_random(SEQS), to = kt_random(SEQS);

	if (from == to || !pos[from])
		return;
	st->n_copied = pos[to] = 1 + kt_random(pos[from] < 16 ? pos[from] : 16);
	st->from = from * SEQ_BLOCKS;
	st->to = to * SEQ_BLOCKS;
}

/* A row or a few for most of the sequences, for one at least. */
static void make_seqs(struct step *st, uint32_t *pos)
{
	for (uint32_t i = 0; i < SEQS; i++) {
		uint32_t n = kt_random(3) ? 1 : kt_random(MAX_NEW + 1), at = st->n_seqs;

		if (!n && (i < SEQS - 1 || at))
			continue;
		n = n ? n : 1;
		st->seqs[at] = (struct wk_seq){st->n_rows, n, pos[i], at * SEQ_BLOCKS};
		for (uint32_t b = 0; b < SEQ_BLOCKS; b++)
			st->table[at * SEQ_BLOCKS + b] = i * SEQ_BLOCKS + b;
		st->n_seqs++;
		st->n_rows += n;
		pos[i] += n;
	}
}

/* Of n_last rows that were drawn before it. */
static void make_step(struct step *st, uint32_t index, uint32_t *pos, uint32_t n_last)
{
	memset(st, 0, sizeof(*st));
	st->scale = index == STEPS / 2 ? INFINITY : 1;
	/* What is not a number stays in the blocks. */
	for (uint32_t i = 0; i < SEQS; i++)
		if (index == STEPS / 2 + 1 || pos[i] + MAX_NEW > SEQ_TOKENS)
			begin_again(st, pos, i);
	if (!st->n_fresh && !kt_random(3))
		continue_other(st, pos);
	make_seqs(st, pos);
	st->n_table = index == STEPS / 3 ? TABLE : st->n_seqs * SEQ_BLOCKS;
	for (uint32_t r = 0; r < st->n_rows; r++)
		st->tokens[r] = n_last && kt_random(4) ? WK_DRAWN | kt_random(n_last)
						       : kt_random(CHAIN_VOCAB);
	for (uint32_t r = 0; r < st->n_rows; r++)
		if (index % 2 && kt_random(2))
			st->out_rows[st->n_out++] = r;
	st->adapter = kt_random(CHAIN_LORAS);
	st->segment.row = kt_random(st->n_rows);
	st->segment.n_rows = kt_random(st->n_rows - st->segment.row + 1);
	make_calls(st, index);
}

/* How many tokens of all are named, for who doubts that any are. */
static uint32_t make_script(void)
{
	uint32_t pos[SEQS] = {0}, n_last = 0, named = 0;

	kt_seed(31);
	for (uint32_t i = 0; i < CHAIN_VOCAB; i++)
		all_forbidden[i] = (struct wk_bias){i, -INFINITY};
	for (uint32_t i = 0; i < STEPS; i++) {
		struct step *st = &script[i];

		make_step(st, i, pos, n_last);
		n_last = st->n_calls ? st->n_draws[st->n_calls - 1] : n_last;
		for (uint32_t r = 0; r < st->n_rows; r++)
			named += st->tokens[r] & WK_DRAWN ? 1 : 0;
	}
	return named;
}

/* --- running it ----------------------------------------------------------------------------------------*/

/* The tokens that are named become numbers. */
static void resolve(uint32_t *tokens, uint32_t n, const struct wk_sampled *last)
{
	for (uint32_t r = 0; r < n; r++)
		if (tokens[r] & WK_DRAWN)
			tokens[r] = last[tokens[r] & ~WK_DRAWN].token;
}

/* From memory that is gone when it returns. */
static void sample(struct chain *c, const struct wk_sample *draws, uint32_t n,
		   struct wk_sampled *ret)
{
	struct wk_sample *rows = kt_alloc(n, sizeof(*rows));
	struct wk_bias *bias = kt_alloc((size_t)n * CHAIN_VOCAB, sizeof(*bias));
	struct wk_count *count = kt_alloc((size_t)n * 4, sizeof(*count));

	for (uint32_t i = 0; i < n; i++) {
		rows[i] = draws[i];
		if (rows[i].n_bias)
			rows[i].bias = memcpy(bias + i * CHAIN_VOCAB, draws[i].bias,
					      draws[i].n_bias * sizeof(*bias));
		if (rows[i].n_counts)
			rows[i].counts = memcpy(count + i * 4, draws[i].counts,
						draws[i].n_counts * sizeof(*count));
	}
	chain_sample(c, rows, n, ret);
	memset(rows, 0xff, n * sizeof(*rows));
	memset(bias, 0xff, (size_t)n * CHAIN_VOCAB * sizeof(*bias));
	memset(count, 0xff, (size_t)n * 4 * sizeof(*count));
	free(rows);
	free(bias);
	free(count);
}

/* One step, up to its ticket. `last`: what the call before drew, if the host is to look tokens up; then it
 * also waits between calls. */
static uint64_t queue(struct chain *c, const struct step *st, const struct wk_sampled *last,
		      struct wk_sampled (*ret)[DRAWS])
{
	static uint32_t table[TABLE]; /* what is past the sequences' own is block 0 */
	const struct wk_ops *ops = c->t->ops;
	struct step copy = *st;
	const struct wk_lora *lora = c->loras[st->adapter];
	struct wk_batch b = {.n_rows = st->n_rows,
			     .n_seqs = st->n_seqs,
			     .n_table = st->n_table,
			     .n_out = st->n_out,
			     .tokens = copy.tokens,
			     .seqs = copy.seqs,
			     .block_table = table,
			     .out_rows = copy.out_rows,
			     .n_segments = st->segment.n_rows > 0,
			     .segments = &copy.segment,
			     .n_loras = st->segment.n_rows > 0,
			     .loras = &lora};

	if (last)
		resolve(copy.tokens, st->n_rows, last);
	memset(table, 0, sizeof(table));
	memcpy(table, st->table, sizeof(st->table));
	if (st->n_fresh)
		ops->kv_zero(c->t->be, c->pool, copy.fresh, st->n_fresh);
	if (st->n_copied)
		ops->kv_copy_rows(c->t->be, c->pool, st->from, st->to, st->n_copied);
	if (chain_forward(c, &b, st->scale, true))
		bail_out(ops->last_error(c->t->be));
	/* The host goes on to use all of this for something else. */
	memset(&copy, 0xff, sizeof(copy));
	memset(table, 0xff, sizeof(table));
	lora = NULL;
	for (uint32_t i = 0; i < st->n_calls; i++) {
		if (i && last)
			kt_sync(c->t);
		sample(c, st->draws[i], st->n_draws[i], ret[i]);
	}
	return ops->record(c->t->be);
}

/* Everything as it was before the first step. */
static void reset(struct chain *c)
{
	uint32_t blocks[CHAIN_KV_BLOCK];

	for (uint32_t i = 0; i < CHAIN_KV_BLOCK; i++)
		blocks[i] = i;
	c->t->ops->kv_zero(c->t->be, c->pool, blocks, CHAIN_KV_BLOCK);
}

static void must_wait(struct chain *c, uint64_t ticket)
{
	if (c->t->ops->wait(c->t->be, ticket))
		bail_out(c->t->ops->last_error(c->t->be));
}

static void run_singly(struct chain *c)
{
	const struct wk_sampled *last = want[0][0];

	reset(c);
	for (uint32_t i = 0; i < STEPS; i++) {
		must_wait(c, queue(c, &script[i], last, want[i]));
		if (script[i].n_calls)
			last = want[i][script[i].n_calls - 1];
	}
}

static bool as_wanted(uint32_t i)
{
	const struct step *st = &script[i];
	bool same = true;

	for (uint32_t k = 0; k < st->n_calls; k++)
		same &= !memcmp(got[i][k], want[i][k], st->n_draws[k] * sizeof(got[i][k][0]));
	return same;
}

static bool untouched(uint32_t i)
{
	const unsigned char *p = (const unsigned char *)got[i];

	for (size_t k = 0; k < sizeof(got[i]); k++)
		if (p[k] != UNTOUCHED)
			return false;
	return true;
}

/* A step is queued, then the one before it waited for. With `also`, an adapter that no step uses comes
 * and goes meanwhile. */
static void run_queued(struct chain *c, bool also)
{
	uint32_t wrong = 0, early = 0, first_wrong = 0;
	uint64_t before = 0;

	memset(got, UNTOUCHED, sizeof(got));
	reset(c);
	for (uint32_t i = 0; i <= STEPS; i++) {
		uint64_t ticket = i < STEPS ? queue(c, &script[i], NULL, got[i]) : 0;

		if (also && i % 5 == 4)
			c->t->ops->lora_free(c->t->be, chain_lora(c, i % CHAIN_LORAS));
		if (i) {
			must_wait(c, before);
			if (!as_wanted(i - 1) && !wrong++)
				first_wrong = i - 1;
			/* One that computes when it is called may be done with both. */
			early += i < STEPS && c->t->info.queues && !untouched(i);
		}
		before = ticket;
	}
	ok(!wrong, "%s: %u steps queued%s: %u of them differ from steps run singly, step %u first",
	   c->t->label, STEPS, also ? ", an adapter coming and going" : "", wrong, first_wrong);
	ok(!early, "%s: %u of them were handed out before their wait", c->t->label, early);
}

/* --- as many as there may be ---------------------------------------------------------------------------*/

static struct wk_sampled wide[WK_MAX_STEPS][WK_MAX_DRAWS], narrow[WK_MAX_STEPS][WK_MAX_DRAWS];

static uint64_t queue_wide(struct chain *c, const uint32_t *tokens, struct wk_sampled *ret)
{
	static const uint32_t zeros[WK_MAX_ROWS / WK_BLOCK_TOKENS];
	static struct wk_sample rows[WK_MAX_DRAWS];
	const struct wk_seq seq = {.n_rows = WK_MAX_ROWS};
	const struct wk_batch b = {.n_rows = WK_MAX_ROWS,
				   .n_seqs = 1,
				   .n_table = WK_MAX_ROWS / WK_BLOCK_TOKENS,
				   .tokens = tokens,
				   .seqs = &seq,
				   .block_table = zeros};

	for (uint32_t i = 0; i < WK_MAX_DRAWS; i++)
		rows[i] = (struct wk_sample){.row = i % WK_MAX_ROWS,
					     .temperature = i % 4 ? 1 : 0,
					     .top_p = 1,
					     .repetition_penalty = 1,
					     .seed = i,
					     .given = WK_NO_TOKEN};
	/* One of the last is adjusted. */
	rows[WK_MAX_DRAWS - 2].bias = biases;
	rows[WK_MAX_DRAWS - 2].n_bias = 3;
	if (chain_forward(c, &b, 1, false))
		bail_out(c->t->ops->last_error(c->t->be));
	chain_sample(c, rows, WK_MAX_DRAWS, ret);
	return c->t->ops->record(c->t->be);
}

static void all_rows(struct chain *c)
{
	uint32_t tokens[WK_MAX_ROWS], names[WK_MAX_ROWS];
	uint64_t first, second;

	for (uint32_t r = 0; r < WK_MAX_ROWS; r++) {
		tokens[r] = r % CHAIN_VOCAB;
		names[r] = WK_DRAWN | (r * 37 + WK_MAX_DRAWS - 1) % WK_MAX_DRAWS;
	}
	must_wait(c, queue_wide(c, tokens, narrow[0]));
	memcpy(tokens, names, sizeof(tokens));
	resolve(tokens, WK_MAX_ROWS, narrow[0]);
	must_wait(c, queue_wide(c, tokens, narrow[1]));
	for (uint32_t r = 0; r < WK_MAX_ROWS; r++)
		tokens[r] = r % CHAIN_VOCAB;
	first = queue_wide(c, tokens, wide[0]);
	second = queue_wide(c, names, wide[1]);
	must_wait(c, first);
	ok(!memcmp(wide[0], narrow[0], sizeof(wide[0])), "%s: %u draws, first step", c->t->label,
	   WK_MAX_DRAWS);
	must_wait(c, second);
	ok(!memcmp(wide[1], narrow[1], sizeof(wide[1])), "%s: %u draws, second step", c->t->label,
	   WK_MAX_DRAWS);
}

/* --- what is refused -----------------------------------------------------------------------------------*/

static int batch_of(struct chain *c, uint32_t token)
{
	const uint32_t block = 0, tokens[2] = {1, token};
	const struct wk_seq seq = {.n_rows = 2};
	const struct wk_batch b = {.n_rows = 2,
				   .n_seqs = 1,
				   .n_table = 1,
				   .tokens = tokens,
				   .seqs = &seq,
				   .block_table = &block};

	return chain_forward(c, &b, 1, false);
}

static void draw(struct chain *c, uint32_t n, uint32_t given)
{
	static struct wk_sample rows[WK_MAX_DRAWS + 1];
	static struct wk_sampled out[WK_MAX_DRAWS + 1];

	for (uint32_t i = 0; i < n; i++)
		rows[i] = (struct wk_sample){
			.row = i % 2, .top_p = 1, .repetition_penalty = 1, .given = given};
	chain_sample(c, rows, n, out);
}

static int end(struct chain *c)
{
	return c->t->ops->wait(c->t->be, c->t->ops->record(c->t->be));
}

static void refused(struct chain *c)
{
	const char *label = c->t->label;

	is_int(batch_of(c, WK_DRAWN), -EINVAL, "%s: a name before anything was drawn", label);
	is_int(batch_of(c, 1), 0, "%s: a plain token", label);
	draw(c, 3, WK_NO_TOKEN);
	is_int(end(c), 0, "%s: and nothing has stuck", label);
	is_int(batch_of(c, WK_DRAWN | 3), -EINVAL, "%s: a row more than were drawn", label);
	ok(strstr(c->t->ops->last_error(c->t->be), "sample()"), "%s: it says what: %s", label,
	   c->t->ops->last_error(c->t->be));
	is_int(batch_of(c, WK_NO_TOKEN), -EINVAL, "%s: no token at all", label);
	is_int(batch_of(c, WK_DRAWN | 2), 0, "%s: the last row that was drawn", label);
	draw(c, 2, WK_NO_TOKEN);
	is_int(end(c), 0, "%s: is taken", label);
	is_int(batch_of(c, WK_DRAWN | 2), -EINVAL, "%s: a row of the call before the last", label);
}

/* Another one of the same kind: an error that stays must not stay with the first. */
static void again(const struct kt *t, struct kt *ret, struct chain *c)
{
	bool module = !strcmp(t->info.name, "cuda");

	if (!kt_open(ret, t->info.name, module ? getenv("WEFT_TEST_PATH") : t->info.path,
		     t->info.n_threads))
		bail_out("the backend does not open again");
	chain_open(c, ret);
}

static void refused_for_good(const struct kt *t)
{
	struct chain c;
	struct kt u;

	again(t, &u, &c);
	is_int(batch_of(&c, 1), 0, "%s: a plain token", u.label);
	draw(&c, 1, CHAIN_VOCAB + 5);
	is_int(end(&c), 0, "%s: a given token that there is not has no probability", u.label);
	is_int(batch_of(&c, WK_DRAWN), 0, "%s: it can be named", u.label);
	is_int(end(&c), -EINVAL, "%s: but not embedded", u.label);
	chain_close(&c);
	kt_close(&u);
	again(t, &u, &c);
	is_int(batch_of(&c, 1), 0, "%s: a plain token", u.label);
	draw(&c, WK_MAX_DRAWS + 1, WK_NO_TOKEN);
	is_int(end(&c), -EINVAL, "%s: a draw more than there may be", u.label);
	chain_close(&c);
	kt_close(&u);
}

static void one_backend(struct kt *t)
{
	struct chain c;

	chain_open(&c, t);
	refused(&c);
	run_singly(&c);
	run_queued(&c, false);
	run_queued(&c, true);
	all_rows(&c);
	chain_close(&c);
	refused_for_good(t);
}

int main(void)
{
	uint32_t named = make_script();

	ok(named > STEPS * SEQS / 2, "%u rows name what was drawn before", named);
	kt_each(one_backend);
	return tap_done();
}
