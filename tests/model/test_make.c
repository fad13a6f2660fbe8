/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_make.c - models that the maker writes, and the digest that says what a model is.
 *
 * Made models of every architecture load and compute: the cpu backend is held against the
 * reference over a text that crosses a cut of the attention. The same seed makes the same digest,
 * another seed, shape or configuration another one, and cutting the files otherwise changes
 * nothing.
 */
#include "daemon/engine/model/safetensors.h"
#include "tests/model/fixture.h"
#include "tests/tap.h"
#include "tools/model_make.h"

#include <errno.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#define LEN 300

static char root[] = "/tmp/weft-make.XXXXXX";

static void make(const char *name, const char *arch, uint64_t seed, char *ret_dir)
{
	const struct model_make_options opt = {
		.dir = ret_dir, .shape = "tiny", .arch = arch, .seed = seed, .quiet = true};
	struct weft_err err = {0};

	snprintf(ret_dir, 100, "%s/%s", root, name);
	if (!ok(!model_make(&opt, &err), "make %s", name))
		diag("%s", err.message);
}

static void remove_model(const char *dir)
{
	static const char *const names[] = {"config.json", "generation_config.json",
					    "model.safetensors"};
	char path[200];

	for (int i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		unlink(path);
	}
	ok(!rmdir(dir), "nothing else was left in the folder");
}

static void digest_of(const char *dir, const struct model_config *config, uint8_t ret[16])
{
	struct weft_err err;
	struct runner r;

	if (runner_open(&r, &wk_ref_ops, NULL, 1, dir, config, &err))
		bail_out(err.message);
	model_digest(r.m, ret);
	runner_close(&r);
}

static void test_arch(const char *arch)
{
	uint32_t tokens[LEN], state = 7;
	struct runner ref, cpu;
	struct weft_err err = {0};
	char dir[100];
	double worst = 0;
	float *a, *b;

	make(arch, arch, 1, dir);
	if (runner_open(&ref, &wk_ref_ops, NULL, 1, dir, NULL, &err) ||
	    runner_open(&cpu, &wk_cpu_ops, NULL, 2, dir, NULL, &err))
		bail_out(err.message);
	a = malloc(LEN * ref.vocab * sizeof(float));
	b = malloc(LEN * ref.vocab * sizeof(float));
	for (int i = 0; i < LEN; i++) {
		state = state * 1664525 + 1013904223;
		tokens[i] = (state >> 8) % ref.vocab;
	}
	ok(!runner_pass(&ref, tokens, 0, LEN, a) && !runner_pass(&cpu, tokens, 0, LEN, b),
	   "%s: runs", arch);
	for (int i = 0; i < LEN; i++) {
		double e = row_error(b + i * ref.vocab, a + i * ref.vocab, ref.vocab);

		worst = e <= worst ? worst : e;
	}
	ok(worst <= 2e-2, "%s: cpu within 2e-2 of ref over %d positions: %.1e", arch, LEN, worst);
	/* One more way to be wrong: positions after the first cut, one by one. */
	for (int i = 250; i < 262; i++)
		if (runner_pass(&cpu, tokens, (uint32_t)i, (uint32_t)i + 1, a + i * ref.vocab))
			bail_out("cannot run a row");
	ok(!memcmp(a + 250 * ref.vocab, b + 250 * ref.vocab, 12 * ref.vocab * sizeof(float)),
	   "%s: row by row across the cut, the same bits", arch);
	free(a);
	free(b);
	runner_close(&ref);
	runner_close(&cpu);
	remove_model(dir);
}

static void test_digest(void)
{
	uint8_t one[16], again[16], other[16], changed[16];
	struct model_config c;
	struct weft_err err;
	char dir[100];

	make("one", "llama", 1, dir);
	digest_of(dir, NULL, one);
	if (model_config_read(dir, &c, &err))
		bail_out(err.message);
	c.rope_theta *= 2;
	digest_of(dir, &c, changed);
	remove_model(dir);
	make("again", "llama", 1, dir);
	digest_of(dir, NULL, again);
	remove_model(dir);
	make("other", "llama", 2, dir);
	digest_of(dir, NULL, other);
	remove_model(dir);
	ok(!memcmp(one, again, 16), "the same seed, another folder: the same digest");
	ok(memcmp(one, other, 16), "another seed: another digest");
	ok(memcmp(one, changed, 16), "another configuration: another digest");
}

/* Copy a file of a fixture. */
static void copy(const char *from_dir, const char *to_dir, const char *name)
{
	char path[PATH_MAX], buf[65536];
	FILE *from, *to;
	size_t n;

	snprintf(path, sizeof(path), "%.3900s/%s", from_dir, name);
	from = fopen(path, "rb");
	snprintf(path, sizeof(path), "%.3900s/%s", to_dir, name);
	to = fopen(path, "wb");
	if (!from || !to)
		bail_out(path);
	while ((n = fread(buf, 1, sizeof(buf), from)))
		fwrite(buf, 1, n, to);
	fclose(from);
	fclose(to);
}

/* The shards of a fixture as one file, its tensors in the order of their names. */
static void merge(const char *from_dir, const char *to_dir)
{
	char path[PATH_MAX], head[16384] = "{";
	size_t len = 1, at = 0;
	struct weft_err err;
	struct st_set set;
	uint64_t header;
	FILE *f;

	if (safetensors_open(from_dir, &set, &err))
		bail_out(err.message);
	for (uint32_t i = 0; i < set.n_tensors; i++) {
		const struct st_tensor *t = &set.tensors[i];
		char k[32] = "";

		if (t->n_dims == 2)
			snprintf(k, sizeof(k), ",%llu", (unsigned long long)t->shape[1]);
		len += (size_t)snprintf(head + len, sizeof(head) - len,
					"%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%llu%s],"
					"\"data_offsets\":[%zu,%zu]}",
					i ? "," : "", t->name, st_dtype_name(t->dtype),
					(unsigned long long)t->shape[0], k, at, at + t->bytes);
		at += t->bytes;
	}
	head[len++] = '}';
	header = len;
	snprintf(path, sizeof(path), "%.3900s/model.safetensors", to_dir);
	f = fopen(path, "wb");
	fwrite(&header, 8, 1, f);
	fwrite(head, 1, len, f);
	for (uint32_t i = 0; i < set.n_tensors; i++)
		fwrite(set.tensors[i].data, 1, set.tensors[i].bytes, f);
	fclose(f);
	safetensors_close(&set);
}

static void test_cutting(void)
{
	uint8_t sharded[16], single[16];
	struct fixture f;
	char dir[100];

	fixture_read("llama3", &f);
	digest_of(f.dir, NULL, sharded);
	snprintf(dir, sizeof(dir), "%s/merged", root);
	if (access(dir, F_OK) && mkdir(dir, 0700))
		bail_out(dir);
	copy(f.dir, dir, "config.json");
	merge(f.dir, dir);
	digest_of(dir, NULL, single);
	ok(!memcmp(sharded, single, 16), "two shards or one file: the same digest");
	remove_model(dir);
	fixture_free(&f);
}

static void test_refusals(void)
{
	struct model_make_options opt = {
		.shape = "tiny", .arch = "llama", .seed = 1, .quiet = true};
	struct weft_err err;
	char dir[100];

	make("taken", "llama", 1, dir);
	opt.dir = dir;
	is_int(model_make(&opt, &err), -EEXIST, "a folder with a model is left alone");
	ok(strstr(err.message, dir), "the message names it: %s", err.message);
	remove_model(dir);
	opt.shape = "9b";
	is_int(model_make(&opt, &err), -EINVAL, "an unknown shape");
	ok(strstr(err.message, "9b"), "the message names it: %s", err.message);
	opt.shape = "tiny";
	opt.arch = "bert";
	is_int(model_make(&opt, &err), -EINVAL, "an unknown architecture");
	ok(access(dir, F_OK), "nothing was made");
}

int main(void)
{
	static const char *const archs[] = {"llama", "mistral", "qwen2", "qwen3", "granite"};

	if (!mkdtemp(root))
		bail_out("no temporary folder");
	for (size_t i = 0; i < sizeof(archs) / sizeof(archs[0]); i++)
		test_arch(archs[i]);
	test_digest();
	test_cutting();
	test_refusals();
	ok(!rmdir(root), "everything was removed");
	return tap_done();
}
