/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_adapter_make.c - adapters that the maker writes.
 *
 * For every architecture that the model maker knows: they load, they change the logits visibly, and
 * the cpu backend is held against the reference. The same seed makes the same digest; the types of
 * the file hold the same numbers, each to its own precision; and what cannot be made is refused.
 */
#include "daemon/engine/model/json_file.h"
#include "daemon/engine/model/safetensors.h"
#include "kernels/convert.h"
#include "tests/model/adapted.h"
#include "tests/tap.h"
#include "tools/adapter_make.h"
#include "tools/model_make.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define LEN 90

static char root[] = "/tmp/weft-adapter.XXXXXX";
static const uint32_t invocation[] = {3, 4};

static struct adapter_make_options options(const char *dir, const char *model)
{
	return (struct adapter_make_options){
		.dir = dir,
		.model = model,
		.targets = "all",
		.dtype = "bf16",
		.rank = 8,
		.alpha = -1,
		.strength = 0.5,
		.seed = 1,
	};
}

static void remove_files(const char *dir)
{
	static const char *const names[] = {"config.json", "generation_config.json",
					    "model.safetensors", ADAPTER_CONFIG_NAME,
					    ADAPTER_WEIGHTS_NAME};
	char path[200];

	for (int i = 0; i < 5; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		unlink(path);
	}
	ok(!rmdir(dir), "nothing else was left in the folder");
}

static void make(const struct adapter_make_options *opt, const char *what)
{
	struct weft_err err = {0};

	if (!ok(!adapter_make(opt, &err), "made: %s", what))
		bail_out(err.message);
}

/* --- every architecture --------------------------------------------------------------------------*/

static void run(struct runner *r, const struct adapter *a, const uint32_t *tokens, float *out)
{
	const struct adapted_seq s = {.tokens = tokens,
				      .to = LEN,
				      .table = r->table,
				      .adapter = a,
				      .activation = 20,
				      .out = out};

	if (adapted_pass(r, &s, 1))
		bail_out("cannot run");
}

static double worst_of(const float *a, const float *b, uint32_t from, uint32_t to, uint32_t vocab)
{
	double worst = 0;

	for (uint32_t i = from; i < to; i++) {
		double e = row_error(a + i * vocab, b + i * vocab, vocab);

		worst = e <= worst ? worst : e;
	}
	return worst;
}

static void test_arch(const char *arch, uint32_t rank)
{
	char model[100], dir[100];
	const struct model_make_options mo = {
		.dir = model, .shape = "tiny", .arch = arch, .seed = 1, .quiet = true};
	struct adapter_make_options ao = options(dir, model);
	uint32_t tokens[LEN], state = 7;
	struct runner ref, cpu;
	struct adapter *a, *b;
	struct weft_err err = {0};
	float *x, *y;

	snprintf(model, sizeof(model), "%s/%s", root, arch);
	snprintf(dir, sizeof(dir), "%s/%s-adapter", root, arch);
	ao.rank = rank;
	ao.invocation = invocation;
	ao.n_invocation = 2;
	if (model_make(&mo, &err))
		bail_out(err.message);
	make(&ao, arch);
	if (runner_open(&ref, &wk_ref_ops, NULL, 1, model, NULL, &err) ||
	    runner_open(&cpu, &wk_cpu_ops, NULL, 2, model, NULL, &err))
		bail_out(err.message);
	a = adapted_open(&ref, dir, 0);
	b = adapted_open(&cpu, dir, 5);
	for (int i = 0; i < LEN; i++) {
		state = state * 1664525 + 1013904223;
		tokens[i] = (state >> 8) % ref.vocab;
	}
	x = malloc(LEN * ref.vocab * sizeof(float));
	y = malloc(LEN * ref.vocab * sizeof(float));
	run(&ref, a, tokens, x);
	run(&cpu, b, tokens, y);
	ok(worst_of(y, x, 0, LEN, ref.vocab) <= 2e-2, "%s: cpu within 2e-2 of ref: %.1e", arch,
	   worst_of(y, x, 0, LEN, ref.vocab));
	run(&ref, NULL, tokens, y);
	ok(!memcmp(x, y, 20 * ref.vocab * sizeof(float)), "%s: base before the activation", arch);
	ok(worst_of(x, y, 20, LEN, ref.vocab) > 0.05, "%s: visibly changed after it: %.1e", arch,
	   worst_of(x, y, 20, LEN, ref.vocab));
	free(x);
	free(y);
	adapted_close(&ref, a);
	adapted_close(&cpu, b);
	runner_close(&ref);
	runner_close(&cpu);
	remove_files(dir);
	remove_files(model);
}

/* --- bytes ---------------------------------------------------------------------------------------*/

/* All values of an adapter's file, in the order of the tensors' names. */
static float *values_of(const char *dir, size_t *ret_n)
{
	struct weft_err err;
	struct st_set set;
	size_t n = 0, bytes;
	char path[200];
	float *v;
	int fd;

	snprintf(path, sizeof(path), "%s", dir);
	fd = model_file_open(path, ADAPTER_WEIGHTS_NAME, &bytes, &err);
	if (fd < 0 || safetensors_open_fd(dir, ADAPTER_WEIGHTS_NAME, fd, &set, &err))
		bail_out(err.message);
	close(fd);
	v = malloc(4 * bytes);
	for (uint32_t i = 0; i < set.n_tensors; i++) {
		safetensors_read(&set.tensors[i], v + n);
		n += set.tensors[i].shape[0] * set.tensors[i].shape[1];
	}
	safetensors_close(&set);
	*ret_n = n;
	return v;
}

static void digest_of(const char *dir, const char *model, char ret[33])
{
	char text[4000] = "", *at;
	FILE *f = fmemopen(text, sizeof(text), "w");
	struct weft_err err;

	if (!f || adapter_info(dir, model, true, f, &err))
		bail_out(err.message);
	fclose(f);
	at = strstr(text, "\"digest\": \"");
	snprintf(ret, 33, "%.32s", at ? at + strlen("\"digest\": \"") : "");
}

static void test_types(const char *model)
{
	static const char *const dtypes[] = {"f32", "f16", "bf16"};
	/* Half a unit in the last place; the smallest of half's normal numbers is far below these. */
	static const double precision[] = {0, 0x1p-11, 0x1p-8};
	char dir[100], digest[33];
	float *exact = NULL, *v;
	size_t n, n_exact = 0;

	for (int i = 0; i < 3; i++) {
		struct adapter_make_options opt = options(dir, model);
		double worst = 0;

		snprintf(dir, sizeof(dir), "%s/%s", root, dtypes[i]);
		opt.dtype = dtypes[i];
		make(&opt, dtypes[i]);
		digest_of(dir, model, digest);
		v = values_of(dir, &n);
		if (!exact) {
			exact = v;
			n_exact = n;
		}
		for (size_t k = 0; k < n; k++)
			worst = fmax(worst, fabs(v[k] - exact[k]) / fmax(fabs(exact[k]), 0x1p-14));
		ok(n == n_exact && worst <= precision[i], "%s: %zu values within %g of f32: %g",
		   dtypes[i], n, precision[i], worst);
		if (i)
			ok(worst > precision[i] / 2, "and not of a finer type");
		if (v != exact)
			free(v);
		remove_files(dir);
	}
	free(exact);
}

static void test_seeds(const char *model)
{
	char dir[100], one[33], again[33], other[33], lora[33];
	struct adapter_make_options opt = options(dir, model);

	snprintf(dir, sizeof(dir), "%s/a", root);
	make(&opt, "a LoRA");
	digest_of(dir, model, lora);
	remove_files(dir);
	opt.invocation = invocation;
	opt.n_invocation = 2;
	make(&opt, "an aLoRA");
	digest_of(dir, model, one);
	remove_files(dir);
	snprintf(dir, sizeof(dir), "%s/b", root);
	make(&opt, "the same elsewhere");
	digest_of(dir, model, again);
	remove_files(dir);
	opt.seed = 2;
	make(&opt, "of another seed");
	digest_of(dir, model, other);
	remove_files(dir);
	ok(strlen(one) == 32 && !strcmp(one, again), "the same seed: the same digest %s", one);
	ok(strcmp(one, other), "another seed: another one %s", other);
	ok(strcmp(one, lora), "as a LoRA: another one %s", lora);
}

/* --- what cannot be made -------------------------------------------------------------------------*/

static void refuse(const struct adapter_make_options *opt, const char *want)
{
	struct weft_err err = {0};
	int r = adapter_make(opt, &err);

	ok(r < 0 && r == err.code && strstr(err.message, want), "refused: %s", err.message);
}

static void test_refused(const char *model)
{
	static const uint32_t foreign[] = {3, 1u << 30};
	char dir[100];
	const struct adapter_make_options good = options(dir, model);
	struct adapter_make_options opt = good;

	snprintf(dir, sizeof(dir), "%s/refused", root);
	opt.targets = "q,x";
	refuse(&opt, "no linear \"x\"");
	opt.targets = "";
	refuse(&opt, "at least one linear");
	opt = good;
	opt.dtype = "int8";
	refuse(&opt, "no dtype");
	opt = good;
	opt.rank = 0;
	refuse(&opt, "rank 0");
	opt.rank = ADAPTER_MAX_RANK + 1;
	refuse(&opt, "rank 1025");
	opt = good;
	opt.alpha = NAN;
	refuse(&opt, "alpha");
	opt = good;
	opt.strength = 0;
	refuse(&opt, "strength");
	opt = good;
	opt.invocation = foreign;
	opt.n_invocation = 2;
	refuse(&opt, "not in the model's vocabulary");
	opt = good;
	opt.model = "/no/such/model";
	refuse(&opt, "/no/such/model/config.json");
	opt = good;
	opt.dir = "/no/such/place/adapter";
	refuse(&opt, "cannot make the folder");
	make(&good, "nothing of these was in the way");
	refuse(&good, "is there already");
	remove_files(dir);
}

int main(void)
{
	static const char *const archs[] = {"llama", "mistral", "qwen2", "qwen3", "granite"};
	static const uint32_t ranks[] = {24, 1, 16, 17, 100};
	struct fixture base;

	if (!mkdtemp(root))
		bail_out("no temporary folder");
	for (int i = 0; i < 5; i++)
		test_arch(archs[i], ranks[i]);
	fixture_read("llama", &base);
	test_types(base.dir);
	test_seeds(base.dir);
	test_refused(base.dir);
	fixture_free(&base);
	ok(!rmdir(root), "nothing was left behind");
	return tap_done();
}
