/* SPDX-License-Identifier: Apache-2.0 */
/* fixture.c - see fixture.h. */
#include "tests/model/fixture.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/module.h"

const char *const fixture_names[] = {
	"llama", "llama-tied-bias",   "llama3", "llama-linear", "llama-yarn", "mistral-window",
	"qwen2", "qwen2-window-yarn", "qwen3",	"granite",
};
const uint32_t n_fixtures = sizeof(fixture_names) / sizeof(fixture_names[0]);

static void __attribute__((noreturn)) give_up(const char *what, const char *why)
{
	printf("Bail out! %s: %s\n", what, why);
	exit(255);
}

static uint32_t read_tokens(json_t *root, const char *key, int prompt, uint32_t *ret, uint32_t max)
{
	json_t *list = json_array_get(json_object_get(root, key), (size_t)prompt), *v;
	size_t i;

	if (!json_array_size(list) || json_array_size(list) > max)
		give_up(key, "not a list of the expected length");
	json_array_foreach(list, i, v) ret[i] = (uint32_t)json_integer_value(v);
	return (uint32_t)json_array_size(list);
}

static void read_logits(FILE *file, struct fixture_prompt *p, uint32_t vocab)
{
	size_t n = (size_t)p->n_rows * vocab;

	p->logits = malloc(n * sizeof(float));
	if (!p->logits || fread(p->logits, sizeof(float), n, file) != n)
		give_up("logits.f32", "too short");
}

void fixture_read(const char *name, struct fixture *f)
{
	const char *src = getenv("WEFT_SRC");
	char path[PATH_MAX];
	struct weft_err err;
	json_error_t je;
	json_t *root;
	FILE *file;

	memset(f, 0, sizeof(*f));
	snprintf(f->dir, sizeof(f->dir), "%s/tests/data/models/%s", src ? src : ".", name);
	if (model_config_read(f->dir, &f->config, &err))
		give_up(name, err.message);
	snprintf(path, sizeof(path), "%.4000s/oracle.json", f->dir);
	root = json_load_file(path, 0, &je);
	snprintf(path, sizeof(path), "%.4000s/logits.f32", f->dir);
	file = fopen(path, "rb");
	if (!root || !file)
		give_up(path, "cannot read");
	for (int i = 0; i < FIXTURE_PROMPTS; i++) {
		struct fixture_prompt *p = &f->prompts[i];

		p->n_prompt = read_tokens(root, "prompts", i, p->tokens,
					  FIXTURE_MAX_LEN - FIXTURE_GREEDY);
		if (read_tokens(root, "greedy", i, p->tokens + p->n_prompt, FIXTURE_GREEDY) !=
		    FIXTURE_GREEDY)
			give_up("greedy", "not 64 tokens");
		p->n_tokens = p->n_prompt + FIXTURE_GREEDY;
		p->n_rows = read_tokens(root, "rows", i, p->rows, FIXTURE_MAX_LEN);
		read_logits(file, p, f->config.vocab);
	}
	if (fgetc(file) != EOF)
		give_up("logits.f32", "too long");
	fclose(file);
	json_decref(root);
}

void fixture_free(struct fixture *f)
{
	for (int i = 0; i < FIXTURE_PROMPTS; i++) {
		free(f->prompts[i].logits);
		f->prompts[i].logits = NULL;
	}
}

const struct wk_ops *fixture_fast(const char *const **ret_paths)
{
	static const char *const cpu[] = {"avx2", "avx512", "avx512bf16", NULL};
	static const char *module[] = {"own", NULL};
	const char *name = getenv("WEFT_TEST_BACKEND"), *path = getenv("WEFT_TEST_PATH");
	const struct wk_ops *ops;
	char why[256];

	if (path)
		module[0] = path;
	*ret_paths = name ? module : cpu;
	ops = name ? wk_module_load(name, why, sizeof(why)) : &wk_cpu_ops;
	if (!ops)
		give_up(name, why);
	return ops;
}

bool fixture_only_fast(void)
{
	return getenv("WEFT_TEST_BACKEND") != NULL;
}

/* Of a module: what the tests ask it for, not what it would choose. */
static const char *path_of(const struct wk_ops *ops, const char *path)
{
	const char *const *paths;

	if (path || ops == &wk_cpu_ops || ops == &wk_ref_ops || !fixture_only_fast())
		return path;
	fixture_fast(&paths);
	return *paths;
}

int runner_open(struct runner *r, const struct wk_ops *ops, const char *path, uint32_t threads,
		const char *dir, const struct model_config *config, struct weft_err *err)
{
	const uint32_t n = sizeof(r->table) / sizeof(r->table[0]);
	const struct wk_open_options bo = {.n_threads = threads, .path = path_of(ops, path)};
	const struct model_open_options mo = {.dir = dir};
	int e;

	memset(r, 0, sizeof(*r));
	r->ops = ops;
	e = ops->open(&bo, &r->be);
	if (e)
		return err_set(err, e, "cannot open backend %s %s", ops->name, path ? path : "");
	e = config ? model_open_config(ops, r->be, &mo, config, &r->m, err)
		   : model_open(ops, r->be, &mo, &r->m, err);
	e = e ? e : model_pool_new(r->m, n + FIXTURE_SPARE, &r->pool, err);
	if (e) {
		runner_close(r);
		return e;
	}
	r->vocab = model_config_of(r->m)->vocab;
	r->first_spare = n;
	for (uint32_t i = 0; i < n; i++)
		r->table[i] = (i * 5 + 3) % n; /* 5 does not divide the 21 blocks */
	return 0;
}

void runner_close(struct runner *r)
{
	if (r->pool)
		model_pool_free(r->m, r->pool);
	model_close(r->m);
	r->ops->close(r->be);
	memset(r, 0, sizeof(*r));
}

int runner_pass(struct runner *r, const uint32_t *tokens, uint32_t from, uint32_t to, float *out)
{
	const struct wk_seq seq = {.n_rows = to - from, .pos = from};
	uint32_t rows[WK_MAX_ROWS], stride;
	const struct wk_buf *logits;
	struct wk_batch batch = {.n_rows = to - from,
				 .n_seqs = 1,
				 .n_table = (to + WK_BLOCK_TOKENS - 1) / WK_BLOCK_TOKENS,
				 .tokens = tokens + from,
				 .seqs = &seq,
				 .block_table = r->table,
				 .out_rows = rows};
	int e;

	for (uint32_t i = 0; i < to - from; i++)
		rows[i] = i;
	e = model_forward(r->m, r->pool, &batch);
	/* The last rows first, to see that logits can be had in any order after the pass. */
	for (uint32_t end = to - from; !e && end;) {
		uint32_t n = end < WK_MAX_OUT ? end : WK_MAX_OUT;

		end -= n;
		e = model_logits_of(r->m, rows + end, n);
		logits = model_logits(r->m, &stride);
		for (uint32_t i = 0; !e && i < n; i++)
			e = r->ops->buf_read(r->be, logits, (size_t)i * stride * sizeof(float),
					     out + (size_t)(end + i) * r->vocab,
					     r->vocab * sizeof(float));
	}
	return e ? e : r->ops->wait(r->be, r->ops->record(r->be));
}

double row_error(const float *a, const float *b, uint32_t n)
{
	double delta = 0, most = 0;

	for (uint32_t i = 0; i < n; i++) {
		/* Not fmax: it would pass over a NaN. */
		if (!(fabs((double)a[i] - b[i]) <= delta))
			delta = fabs((double)a[i] - b[i]);
		most = fmax(most, fabs(b[i]));
	}
	return delta / most;
}

double fixture_error(struct runner *r, const struct fixture *f)
{
	float *out = malloc((size_t)FIXTURE_MAX_LEN * r->vocab * sizeof(float));
	double worst = 0;

	for (int i = 0; out && i < FIXTURE_PROMPTS; i++) {
		const struct fixture_prompt *p = &f->prompts[i];

		if (runner_pass(r, p->tokens, 0, p->n_tokens, out))
			worst = INFINITY;
		for (uint32_t j = 0; j < p->n_rows; j++) {
			double e = row_error(out + (size_t)p->rows[j] * r->vocab,
					     p->logits + (size_t)j * r->vocab, r->vocab);

			if (!(e <= worst))
				worst = e;
		}
	}
	free(out);
	return out ? worst : INFINITY;
}
