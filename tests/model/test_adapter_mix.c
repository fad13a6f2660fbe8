/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_adapter_mix.c - the bits of an adapted row do not depend on where its prompt was cut, on
 * what else is in the batch, on the threads, or on where the adapter lies in the pool.
 *
 * The bits to be equal to are those of the sequence in one pass, alone, on one thread. Cuts are
 * tried of 1, 15, 16 and 17 rows, and one row before, at and after the first adapted position. Then
 * the base model, a LoRA and two aLoRAs of other ranks share batches; one of the adapters may
 * overflow without its neighbours noticing; and an adapter leaves the pool and comes back elsewhere.
 */
#include "tests/model/adapted.h"
#include "tests/tap.h"
#include "tools/adapter_make.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#define MIDDLE	   1 /* prompt of an aLoRA's fixture: invoked in the middle */
#define N_MIXED	   4
#define SEQ_BLOCKS 5

static size_t row_bytes;
static float *whole, *cut; /* [FIXTURE_MAX_LEN][vocab] */
static char root[] = "/tmp/weft-mix.XXXXXX";

/* --- one sequence, cut ---------------------------------------------------------------------------*/

/* Run the sequence in pieces: first to `head`, then `chunk` rows at a time; the same bits? */
static bool same_in_chunks(struct runner *r, const struct adapted_seq *seq, uint32_t head,
			   uint32_t chunk)
{
	for (uint32_t at = 0; at < seq->to;) {
		uint32_t end = at < head ? head : at + chunk;
		struct adapted_seq s = *seq;

		s.from = at;
		s.to = end < seq->to ? end : seq->to;
		s.out = cut + (size_t)at * r->vocab;
		if (adapted_pass(r, &s, 1))
			return false;
		at = s.to;
	}
	return !memcmp(whole, cut, seq->to * row_bytes);
}

static void test_cuts(const struct wk_ops *ops, const char *name, const struct adapted_fixture *f,
		      const char *path)
{
	static const uint32_t chunks[] = {1, 15, 16, 17};
	const struct adapted_prompt *p = &f->prompts[MIDDLE];
	const uint32_t a = p->activation;
	struct runner one, two;
	struct adapted_seq s = {.tokens = p->tokens, .to = p->n_tokens, .activation = a};
	struct weft_err err;
	int e;

	e = runner_open(&one, ops, path, 1, f->model, NULL, &err);
	if (e == -EINVAL || e == -ENOTSUP) {
		skip(1, "no such instruction set here");
		return;
	}
	if (e || runner_open(&two, ops, path, 2, f->model, NULL, &err))
		bail_out(err.message);
	s.adapter = adapted_open(&one, f->dir, 0);
	s.table = one.table;
	s.out = whole;
	ok(!adapted_pass(&one, &s, 1), "%s %s: in one pass", name, path);
	adapted_close(&one, (struct adapter *)s.adapter);
	s.adapter = adapted_open(&two, f->dir, 11);
	for (int i = 0; i < 4; i++)
		ok(same_in_chunks(&two, &s, 0, chunks[i]), "%s %s: in chunks of %u", name, path,
		   chunks[i]);
	for (uint32_t head = a - 1; head <= a + 1; head++)
		ok(same_in_chunks(&two, &s, head, 16), "%s %s: cut at %u, adapted from %u", name,
		   path, head, a);
	s.activation = a + 1;
	ok(!same_in_chunks(&two, &s, 0, 16), "%s %s: one position later: other bits", name, path);
	adapted_close(&two, (struct adapter *)s.adapter);
	runner_close(&one);
	runner_close(&two);
}

/* --- several in one batch ------------------------------------------------------------------------*/

/* An aLoRA of this rank for the fixture "llama", on some linears. */
static void make_adapter(const char *name, const char *model, uint32_t rank, const char *targets,
			 char ret_dir[100])
{
	static const uint32_t invocation[] = {40, 41};
	const struct adapter_make_options opt = {
		.dir = ret_dir,
		.model = model,
		.targets = targets,
		.dtype = "f32",
		.rank = rank,
		.alpha = -1,
		.strength = 0.5,
		.seed = rank,
		.invocation = invocation,
		.n_invocation = 2,
	};
	struct weft_err err;

	snprintf(ret_dir, 100, "%s/%s", root, name);
	if (adapter_make(&opt, &err))
		bail_out(err.message);
}

static void remove_adapter(const char *dir)
{
	char path[200];

	snprintf(path, sizeof(path), "%s/" ADAPTER_CONFIG_NAME, dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/" ADAPTER_WEIGHTS_NAME, dir);
	unlink(path);
	rmdir(dir);
}

struct mix {
	struct runner r;
	struct adapter *adapters[N_MIXED]; /* [0] NULL: the base model */
	struct adapted_seq seqs[N_MIXED];
	float *alone[N_MIXED], *mixed[N_MIXED]; /* owner: [FIXTURE_MAX_LEN][vocab] */
};

static void mix_init(struct mix *m, const struct wk_ops *ops, const struct adapted_fixture *lora,
		     const struct adapted_fixture *alora, const char *other_dir)
{
	/* Different prompts, places where adaption begins, and lengths. */
	static const uint32_t activations[N_MIXED] = {WSHM_NO_ACTIVATION, 0, 17, 38};
	const struct adapted_prompt *prompts[N_MIXED] = {
		&lora->prompts[0], &lora->prompts[0], &alora->prompts[MIDDLE], &alora->prompts[3]};
	struct weft_err err;

	if (runner_open(&m->r, ops, NULL, 2, lora->model, NULL, &err))
		bail_out(err.message);
	m->adapters[0] = NULL;
	m->adapters[1] = adapted_open(&m->r, lora->dir, 0);
	m->adapters[2] = adapted_open(&m->r, alora->dir, 30);
	m->adapters[3] = adapted_open(&m->r, other_dir, 60);
	for (int i = 0; i < N_MIXED; i++) {
		m->alone[i] = calloc(FIXTURE_MAX_LEN, row_bytes);
		m->mixed[i] = calloc(FIXTURE_MAX_LEN, row_bytes);
		if (!m->alone[i] || !m->mixed[i])
			bail_out("out of memory");
		m->seqs[i] = (struct adapted_seq){
			.tokens = prompts[i]->tokens,
			.to = prompts[i]->n_tokens < SEQ_BLOCKS * 16 ? prompts[i]->n_tokens
								     : SEQ_BLOCKS * 16,
			.table = m->r.table + i * SEQ_BLOCKS,
			.adapter = m->adapters[i],
			.activation = activations[i],
		};
	}
}

static void mix_fini(struct mix *m)
{
	for (int i = 0; i < N_MIXED; i++) {
		if (m->adapters[i])
			adapted_close(&m->r, m->adapters[i]);
		free(m->alone[i]);
		free(m->mixed[i]);
	}
	runner_close(&m->r);
}

static void run_alone(struct mix *m)
{
	for (int i = 0; i < N_MIXED; i++) {
		struct adapted_seq s = m->seqs[i];

		s.out = m->alone[i];
		if (adapted_pass(&m->r, &s, 1))
			bail_out("cannot run alone");
	}
}

/* All four in each pass, in an order that turns, in chunks of a size of each one's own. */
static void run_mixed(struct mix *m)
{
	static const uint32_t chunks[N_MIXED] = {19, 7, 16, 5};
	uint32_t at[N_MIXED] = {0};
	bool more = true;

	for (int pass = 0; more; pass++) {
		struct adapted_seq batch[N_MIXED];
		uint32_t n = 0;

		for (int k = 0; k < N_MIXED; k++) {
			int i = (pass + k) % N_MIXED;
			struct adapted_seq s = m->seqs[i];

			if (at[i] == s.to)
				continue;
			s.from = at[i];
			s.to = at[i] + chunks[i] < s.to ? at[i] + chunks[i] : s.to;
			s.out = m->mixed[i] + (size_t)at[i] * m->r.vocab;
			at[i] = s.to;
			batch[n++] = s;
		}
		more = n;
		if (n && adapted_pass(&m->r, batch, n))
			bail_out("cannot run mixed");
	}
}

static bool same_bits(const struct mix *m, int i)
{
	return !memcmp(m->alone[i], m->mixed[i], m->seqs[i].to * row_bytes);
}

static void test_mixed(const struct wk_ops *ops, const struct adapted_fixture *lora,
		       const struct adapted_fixture *alora, const char *other_dir)
{
	static const char *const what[] = {"base", "LoRA", "aLoRA", "aLoRA of rank 37"};
	uint32_t blocks[FIXTURE_SPARE];
	struct mix m;

	mix_init(&m, ops, lora, alora, other_dir);
	run_alone(&m);
	run_mixed(&m);
	for (int i = 0; i < N_MIXED; i++)
		ok(same_bits(&m, i), "%s, among three others: %s", ops->name, what[i]);
	ok(memcmp(m.alone[0], m.alone[1], row_bytes), "and the LoRA changes its first row");
	for (int i = 1; i < N_MIXED; i++) {
		adapter_remove(m.adapters[i], m.r.m);
		ok(!adapter_lora(m.adapters[i]), "%s out of the pool", what[i]);
	}
	for (uint32_t i = 0; i < FIXTURE_SPARE; i++)
		blocks[i] = m.r.first_spare + FIXTURE_SPARE - 1 - i;
	for (uint32_t i = 1, at = 0; i < N_MIXED; at += adapter_blocks(m.adapters[i++]))
		if (adapter_place(m.adapters[i], m.r.m, m.r.pool, blocks + at))
			bail_out("cannot place again");
	run_mixed(&m);
	for (int i = 0; i < N_MIXED; i++)
		ok(same_bits(&m, i), "%s, adapters back elsewhere: %s", ops->name, what[i]);
	mix_fini(&m);
}

/* --- one that overflows --------------------------------------------------------------------------*/

static struct wk_ops wild; /* the cpu backend, whose adapters of rank 37 are scaled beyond fp32 */

static int wild_lora_new(struct wk_backend *be, const struct wk_lora_part *parts, uint32_t n_parts,
			 struct wk_lora **ret)
{
	struct wk_lora_part *copy = calloc(n_parts, sizeof(*copy));
	int r;

	for (uint32_t i = 0; i < n_parts; i++) {
		copy[i] = parts[i];
		if (copy[i].rank == 37)
			copy[i].scale = 1e38f;
	}
	r = wk_cpu_ops.lora_new(be, copy, n_parts, ret);
	free(copy);
	return r;
}

static void test_overflow(const struct adapted_fixture *lora, const struct adapted_fixture *alora,
			  const char *other_dir)
{
	struct mix m;
	uint32_t rows, bad = 0;

	wild = wk_cpu_ops;
	wild.lora_new = wild_lora_new;
	mix_init(&m, &wild, lora, alora, other_dir);
	run_alone(&m);
	run_mixed(&m);
	for (int i = 0; i < N_MIXED - 1; i++)
		ok(same_bits(&m, i), "beside one that overflows: the bits of %d", i);
	rows = m.seqs[3].to;
	for (uint32_t i = m.seqs[3].activation; i < rows; i++)
		bad += !isfinite(m.mixed[3][(size_t)i * m.r.vocab]);
	ok(bad > 0, "which has no finite logits in %u rows", bad);
	ok(!memcmp(m.alone[3], m.mixed[3], m.seqs[3].activation * row_bytes),
	   "and the base model's before");
	mix_fini(&m);
}

int main(void)
{
	static const char *const names[] = {"llama-alora", "qwen2-alora", "qwen3-alora",
					    "granite-alora"};
	const char *const *paths;
	const struct wk_ops *ops = fixture_fast(&paths);
	struct adapted_fixture f, lora;
	struct fixture base;
	char dir[100];

	fixture_read("llama", &base);
	row_bytes = base.config.vocab * sizeof(float);
	whole = calloc(FIXTURE_MAX_LEN, row_bytes);
	cut = calloc(FIXTURE_MAX_LEN, row_bytes);
	if (!whole || !cut || !mkdtemp(root))
		bail_out("cannot begin");
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		adapted_read(names[i], base.config.vocab, &f);
		for (int p = 0; paths[p]; p++)
			test_cuts(ops, names[i], &f, paths[p]);
		adapted_free(&f);
	}
	adapted_read("llama-all", base.config.vocab, &lora);
	adapted_read("llama-alora", base.config.vocab, &f);
	make_adapter("other", base.dir, 37, "q,v,o,gate,down", dir);
	test_mixed(ops, &lora, &f, dir);
	if (!fixture_only_fast()) {
		test_mixed(&wk_ref_ops, &lora, &f, dir);
		test_overflow(&lora, &f, dir);
	}
	remove_adapter(dir);
	rmdir(root);
	adapted_free(&f);
	adapted_free(&lora);
	fixture_free(&base);
	free(whole);
	free(cut);
	return tap_done();
}
