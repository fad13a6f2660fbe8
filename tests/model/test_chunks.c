/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_chunks.c - the bits of a row do not depend on how its prompt was cut, on its neighbours or
 * on the number of threads.
 *
 * The bits to be equal to are those of the whole prompt in one pass, alone, on one thread. Families
 * with a window, with yarn, with norms of q and k, and Granite's multipliers are all run, on each
 * path of the fast backend.
 */
#include "tests/kernels/kt.h"
#include "tests/model/fixture.h"
#include "tests/tap.h"

#include <errno.h>

#define PROMPT 1 /* the longer one of a fixture */

static float *whole, *cut; /* [FIXTURE_MAX_LEN][vocab] */

static bool run_in_chunks(struct runner *r, const struct fixture_prompt *p, uint32_t chunk)
{
	for (uint32_t at = 0; at < p->n_tokens; at += chunk) {
		uint32_t end = at + chunk < p->n_tokens ? at + chunk : p->n_tokens;

		if (runner_pass(r, p->tokens, at, end, cut + (size_t)at * r->vocab))
			return false;
	}
	return !memcmp(whole, cut, (size_t)p->n_tokens * r->vocab * sizeof(float));
}

/*
 * Three sequences in one batch: the first prompt's start, then the longer prompt's last rows after
 * what an earlier pass left in its blocks, then a single row of the first prompt's start again.
 */
static bool run_among_neighbours(struct runner *r, const struct fixture *f)
{
	const struct fixture_prompt *p = &f->prompts[PROMPT], *other = &f->prompts[0];
	const uint32_t last = p->n_tokens, from = last - 5, blocks = (last + 15) / 16;
	uint32_t tokens[32], table[32], out[5], stride;
	struct wk_seq seqs[3] = {{0, 7, 0, 0}, {7, 5, from, 1}, {12, 1, 0, 1 + blocks}};
	struct wk_batch batch = {.n_rows = 13,
				 .n_seqs = 3,
				 .n_table = blocks + 2,
				 .n_out = 5,
				 .tokens = tokens,
				 .seqs = seqs,
				 .block_table = table,
				 .out_rows = out};

	if (runner_pass(r, p->tokens, 0, from, cut))
		return false;
	/* Blocks of the neighbours: the two that the longer prompt's table does not use. */
	memcpy(table + 1, r->table, blocks * sizeof(*table));
	table[0] = r->table[blocks];
	table[1 + blocks] = r->table[blocks + 1];
	memcpy(tokens, other->tokens, 7 * sizeof(*tokens));
	memcpy(tokens + 7, p->tokens + from, 5 * sizeof(*tokens));
	tokens[12] = other->tokens[0];
	for (uint32_t i = 0; i < 5; i++)
		out[i] = 7 + i;
	if (model_forward(r->m, r->pool, &batch))
		return false;
	for (uint32_t i = 0; i < 5; i++)
		if (r->ops->buf_read(r->be, model_logits(r->m, &stride),
				     (size_t)i * r->m->logits_stride * sizeof(float),
				     cut + (size_t)i * r->vocab, r->vocab * sizeof(float)))
			return false;
	return !memcmp(cut, whole + (size_t)from * r->vocab, 5 * r->vocab * sizeof(float));
}

static void test_path(const struct wk_ops *ops, const char *name, const struct fixture *f,
		      const char *path)
{
	static const uint32_t chunks[] = {1, 15, 16, 17, 50};
	const struct fixture_prompt *p = &f->prompts[PROMPT];
	struct runner one, two;
	struct weft_err err;
	int e;

	e = runner_open(&one, ops, path, 1, f->dir, NULL, &err);
	if (e == -EINVAL || e == -ENOTSUP) {
		skip(1, "no such instruction set here");
		return;
	}
	if (e || runner_open(&two, ops, path, 2, f->dir, NULL, &err))
		bail_out(err.message);
	ok(!runner_pass(&one, p->tokens, 0, p->n_tokens, whole), "%s %s: whole prompt", name, path);
	for (size_t i = 0; i < sizeof(chunks) / sizeof(chunks[0]); i++)
		ok(run_in_chunks(&two, p, chunks[i]), "%s %s: chunks of %u give the same bits",
		   name, path, chunks[i]);
	ok(run_among_neighbours(&two, f), "%s %s: among neighbours the same bits", name, path);
	runner_close(&one);
	runner_close(&two);
}

/* The comparison above would notice one bit: another model gives other logits. */
static void test_sensitive(const struct wk_ops *ops, const struct fixture *f)
{
	struct model_config c = f->config;
	struct weft_err err;
	struct runner r;

	c.norm_eps *= 4;
	if (runner_open(&r, ops, NULL, 1, f->dir, &c, &err))
		bail_out(err.message);
	ok(!run_in_chunks(&r, &f->prompts[PROMPT], 16), "another epsilon gives other bits");
	runner_close(&r);
}

int main(void)
{
	static const char *const names[] = {
		"llama", "llama-yarn", "mistral-window", "qwen2-window-yarn", "qwen3", "granite"};
	const char *const *paths;
	const struct wk_ops *ops = fixture_fast(&paths);
	struct fixture f;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i += kt_every()) {
		fixture_read(names[i], &f);
		whole = calloc(FIXTURE_MAX_LEN * f.config.vocab, sizeof(float));
		cut = calloc(FIXTURE_MAX_LEN * f.config.vocab, sizeof(float));
		if (!whole || !cut)
			bail_out("out of memory");
		for (int p = 0; paths[p]; p++)
			test_path(ops, names[i], &f, paths[p]);
		test_sensitive(ops, &f);
		free(whole);
		free(cut);
		fixture_free(&f);
	}
	return tap_done();
}
