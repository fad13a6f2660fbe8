/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_dummy.c - made-up weights: as many bytes as those of a made model of the same configuration,
 * numbers that differ from tensor to tensor and give finite logits, the same ones each time; refused
 * where there are weights.
 */
#include "tests/model/fixture.h"
#include "tests/tap.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODELS 3

/* Tied head and biases, norms of heads, a head size that is no multiple of 16: what dummy_bytes() adds. */
static const char *const names[MODELS] = {"llama-tied-bias", "qwen3", "granite"};

static char dir[] = "/tmp/weft-dummy.XXXXXX";

/* The folder has this model's config.json and nothing else. */
static void take_config(const char *from)
{
	char path[PATH_MAX], text[8192];
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "%.4000s/config.json", from);
	f = fopen(path, "re");
	n = f ? fread(text, 1, sizeof(text), f) : 0;
	if (!n || n == sizeof(text))
		bail_out("cannot read a configuration");
	fclose(f);
	snprintf(path, sizeof(path), "%s/config.json", dir);
	f = fopen(path, "we");
	if (!f || fwrite(text, 1, n, f) != n || fclose(f))
		bail_out("cannot write a configuration");
}

struct seen {
	uint64_t done, total;
};

static void progress(void *arg, uint64_t done, uint64_t total)
{
	*(struct seen *)arg = (struct seen){done, total};
}

static struct model *open_dummy(struct wk_backend *be, struct seen *seen, struct weft_err *err)
{
	const struct model_open_options mo = {
		.dir = dir, .dummy = true, .progress = progress, .progress_arg = seen};
	struct model *m;

	if (model_open(&wk_cpu_ops, be, &mo, &m, err))
		bail_out(err->message);
	return m;
}

/* Logits of all rows of a few tokens. */
static void run(struct wk_backend *be, struct model *m, uint32_t vocab, float *ret)
{
	const struct wk_seq seq = {.n_rows = 4};
	const uint32_t tokens[] = {3, 1, 4, 15}, table[] = {0}, rows[] = {0, 1, 2, 3};
	const struct wk_batch batch = {.n_rows = 4,
				       .n_seqs = 1,
				       .n_table = 1,
				       .n_out = 4,
				       .tokens = tokens,
				       .seqs = &seq,
				       .block_table = table,
				       .out_rows = rows};
	const struct wk_buf *logits;
	struct weft_err err;
	struct wk_buf *pool;
	uint32_t stride;

	if (model_pool_new(m, 1, &pool, &err) || model_forward(m, pool, &batch) ||
	    wk_cpu_ops.wait(be, wk_cpu_ops.record(be)))
		bail_out("cannot run");
	logits = model_logits(m, &stride);
	for (uint32_t i = 0; i < 4; i++)
		if (wk_cpu_ops.buf_read(be, logits, (size_t)i * stride * 4, ret + i * vocab,
					vocab * 4))
			bail_out("cannot read logits");
	model_pool_free(m, pool);
}

static void test_one(struct wk_backend *be, const char *name)
{
	struct model_open_options real = {0};
	struct seen seen = {0}, again;
	struct model *m, *other;
	uint8_t d1[16], d2[16];
	struct weft_err err;
	struct fixture f;
	float *logits, largest = 0;
	uint32_t finite = 0, n;

	fixture_read(name, &f);
	take_config(f.dir);
	real.dir = f.dir;
	m = open_dummy(be, &seen, &err);
	if (model_open(&wk_cpu_ops, be, &real, &other, &err))
		bail_out(err.message);
	is_int(model_weight_bytes(m), model_weight_bytes(other), "%s: packed as real weights are",
	       name);
	is_int(seen.done, seen.total, "%s: progress ends at the whole", name);
	model_close(other);
	n = 4 * f.config.vocab;
	logits = calloc(n, sizeof(*logits));
	if (!logits)
		bail_out("out of memory");
	run(be, m, f.config.vocab, logits);
	for (uint32_t i = 0; i < n; i++) {
		finite += isfinite(logits[i]) != 0;
		largest = fmaxf(largest, fabsf(logits[i]));
	}
	ok(finite == n && largest > 0 && largest < 1e4f, "%s: logits are finite: %g", name,
	   largest);
	ok(memcmp(logits, logits + f.config.vocab, f.config.vocab * 4), "%s: rows differ", name);
	other = open_dummy(be, &again, &err);
	model_digest(m, d1);
	model_digest(other, d2);
	ok(!memcmp(d1, d2, 16), "%s: the same numbers each time", name);
	model_close(other);
	model_close(m);
	free(logits);
	fixture_free(&f);
}

int main(void)
{
	const struct wk_open_options bo = {.n_threads = 1};
	struct model_open_options mo = {.dummy = true};
	char path[64];
	struct wk_backend *be;
	struct weft_err err;
	struct fixture f;
	struct model *m = NULL;

	if (wk_cpu_ops.open(&bo, &be) || !mkdtemp(dir))
		bail_out("no backend, or no folder");
	for (int i = 0; i < MODELS; i++)
		test_one(be, names[i]);
	fixture_read("llama", &f);
	mo.dir = f.dir;
	is_int(model_open(&wk_cpu_ops, be, &mo, &m, &err), -EEXIST,
	       "a folder with weights is refused");
	ok(!m && strstr(err.message, "has weights"), "and says why: %s", err.message);
	fixture_free(&f);
	wk_cpu_ops.close(be);
	snprintf(path, sizeof(path), "%s/config.json", dir);
	unlink(path);
	rmdir(dir);
	return tap_done();
}
