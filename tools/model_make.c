/* SPDX-License-Identifier: Apache-2.0 */
/*
 * model_make.c - write a valid model folder with random weights.
 *
 * Weights are drawn from a normal distribution of std 0.6 / sqrt(fan-in), so that what a layer
 * adds is of the size of what is there, as in a trained model; embeddings, which are looked up and
 * not multiplied, have std 0.6 over the multiplier that the configuration puts on them, and a
 * third of that where they serve as head too. Norms are 1. A value is one of 4,096 quantiles,
 * chosen by 12 bits of a counter-based generator: four values cost one 64-bit draw and no
 * arithmetic, which writes at the speed of the disk, and the bytes depend on seed, shape,
 * architecture alone.
 */
#include "tools/model_make.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/common/err.h"
#include "kernels/convert.h"
#include "tools/progress.h"
#include "tools/random.h"

#define CHUNK_BYTES   ((size_t)4 << 20)
#define MAX_NAME      96
#define MAX_POSITIONS (1u << 27) /* what the loader takes */

struct shape {
	const char *name;
	unsigned layers, hidden, heads, kv_heads, ffn, vocab, positions;
	bool tied;
};

/* 135m is tied, as the published models of that size are; the larger ones have their own head. */
static const struct shape shapes[] = {
	{"tiny", 2, 64, 4, 2, 128, 512, 4096, false},
	{"135m", 30, 576, 9, 3, 1536, 32000, 8192, true},
	{"1b", 16, 2048, 32, 8, 5632, 32000, 8192, false},
	{"8b", 32, 4096, 32, 8, 14336, 128256, 131072, false},
};

static const struct arch {
	const char *name, *class;
	bool bias, qk_norm;
	float embedding_multiplier;
} archs[] = {
	{"llama", "LlamaForCausalLM", false, false, 1},
	{"mistral", "MistralForCausalLM", false, false, 1},
	{"qwen2", "Qwen2ForCausalLM", true, false, 1},
	{"qwen3", "Qwen3ForCausalLM", false, true, 1},
	{"granite", "GraniteForCausalLM", false, false, 12},
};

/* One tensor to be written. k 0: a vector. */
struct tensor {
	char name[MAX_NAME];
	uint64_t n, k;
	float std; /* 0: all ones */
};

struct maker {
	const struct model_make_options *opt;
	const struct shape *shape;
	const struct arch *arch;
	struct tensor *tensors; /* owner */
	size_t n_tensors;
	double quantiles[RANDOM_QUANTILES];
	uint16_t *chunk; /* owner, CHUNK_BYTES */
	uint64_t done, total;
	struct weft_err *err;
};

/* --- the tensors of a model ----------------------------------------------------------------------*/

static void __attribute__((format(printf, 5, 6)))
add(struct maker *mk, uint64_t n, uint64_t k, double std, const char *fmt, ...)
{
	struct tensor *t = &mk->tensors[mk->n_tensors++];
	va_list ap;

	t->n = n;
	t->k = k;
	t->std = (float)std;
	va_start(ap, fmt);
	vsnprintf(t->name, sizeof(t->name), fmt, ap);
	va_end(ap);
	mk->total += 2 * n * (k ? k : 1);
}

static void add_layer(struct maker *mk, unsigned i)
{
	const struct shape *s = mk->shape;
	const unsigned dim = s->hidden / s->heads, kv = s->kv_heads * dim;
	const double in = 0.6 / sqrt(s->hidden);
	const struct {
		char letter;
		unsigned n;
	} qkv[] = {{'q', s->hidden}, {'k', kv}, {'v', kv}};

	add(mk, s->hidden, 0, 0, "model.layers.%u.input_layernorm.weight", i);
	for (int p = 0; p < 3; p++) {
		add(mk, qkv[p].n, s->hidden, in, "model.layers.%u.self_attn.%c_proj.weight", i,
		    qkv[p].letter);
		if (mk->arch->bias)
			add(mk, qkv[p].n, 0, 0.1, "model.layers.%u.self_attn.%c_proj.bias", i,
			    qkv[p].letter);
	}
	if (mk->arch->qk_norm) {
		add(mk, dim, 0, 0, "model.layers.%u.self_attn.q_norm.weight", i);
		add(mk, dim, 0, 0, "model.layers.%u.self_attn.k_norm.weight", i);
	}
	add(mk, s->hidden, s->hidden, in, "model.layers.%u.self_attn.o_proj.weight", i);
	add(mk, s->hidden, 0, 0, "model.layers.%u.post_attention_layernorm.weight", i);
	add(mk, s->ffn, s->hidden, in, "model.layers.%u.mlp.gate_proj.weight", i);
	add(mk, s->ffn, s->hidden, in, "model.layers.%u.mlp.up_proj.weight", i);
	add(mk, s->hidden, s->ffn, 0.6 / sqrt(s->ffn), "model.layers.%u.mlp.down_proj.weight", i);
}

static int add_all(struct maker *mk)
{
	const struct shape *s = mk->shape;
	double embed = 0.6 / mk->arch->embedding_multiplier;

	mk->tensors = calloc(3 + 14 * (size_t)s->layers, sizeof(*mk->tensors));
	if (!mk->tensors)
		return err_set(mk->err, -ENOMEM, "%s: out of memory", mk->opt->dir);
	add(mk, s->vocab, s->hidden, s->tied ? embed / 3 : embed, "model.embed_tokens.weight");
	for (unsigned i = 0; i < s->layers; i++)
		add_layer(mk, i);
	add(mk, s->hidden, 0, 0, "model.norm.weight");
	if (!s->tied)
		add(mk, s->vocab, s->hidden, 0.6 / sqrt(s->hidden), "lm_head.weight");
	return 0;
}

/* --- random values -------------------------------------------------------------------------------*/

static void fill(uint16_t *dst, size_t n, const uint16_t *table, uint64_t counter)
{
	size_t i = 0;

	for (; i + 4 <= n; i += 4) {
		uint64_t z = random_draw(counter++);

		dst[i] = table[z & (RANDOM_QUANTILES - 1)];
		dst[i + 1] = table[z >> 16 & (RANDOM_QUANTILES - 1)];
		dst[i + 2] = table[z >> 32 & (RANDOM_QUANTILES - 1)];
		dst[i + 3] = table[z >> 48 & (RANDOM_QUANTILES - 1)];
	}
	for (; i < n; i++)
		dst[i] = table[random_draw(counter++) & (RANDOM_QUANTILES - 1)];
}

/* --- writing -------------------------------------------------------------------------------------*/

static int write_all(int fd, const void *data, size_t bytes)
{
	const char *p = data;

	while (bytes) {
		ssize_t n = write(fd, p, bytes);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		bytes -= (size_t)n;
	}
	return 0;
}

static int write_tensor(struct maker *mk, int fd, size_t index)
{
	const struct tensor *t = &mk->tensors[index];
	uint64_t left = t->n * (t->k ? t->k : 1);
	/* Tensors draw from streams of their own: seed and index choose where the counter starts. */
	uint64_t counter = random_draw(random_draw(mk->opt->seed + 1) + index);
	uint16_t table[RANDOM_QUANTILES];
	int r = 0;

	for (int i = 0; i < RANDOM_QUANTILES; i++)
		table[i] = wk_f32_to_bf16(t->std > 0 ? (float)mk->quantiles[i] * t->std : 1.0f);
	while (!r && left) {
		size_t n = left < CHUNK_BYTES / 2 ? (size_t)left : CHUNK_BYTES / 2;

		fill(mk->chunk, n, table, counter);
		r = write_all(fd, mk->chunk, 2 * n);
		counter += CHUNK_BYTES / 8;
		left -= n;
		mk->done += 2 * n;
		progress_at(mk->done);
	}
	return r;
}

/* The header, padded with blanks to a multiple of eight, its length before it. */
static int write_header(struct maker *mk, int fd)
{
	size_t room = 64 + mk->n_tensors * (MAX_NAME + 120), len = 8;
	char *text = malloc(room);
	uint64_t at = 0;
	int r;

	if (!text)
		return -ENOMEM;
	len += (size_t)snprintf(text + len, room - len, "{\"__metadata__\":{\"format\":\"pt\"}");
	for (size_t i = 0; i < mk->n_tensors; i++) {
		const struct tensor *t = &mk->tensors[i];
		uint64_t bytes = 2 * t->n * (t->k ? t->k : 1);
		char shape[64];

		snprintf(shape, sizeof(shape), t->k ? "%llu,%llu" : "%llu",
			 (unsigned long long)t->n, (unsigned long long)t->k);
		len += (size_t)snprintf(
			text + len, room - len,
			",\"%s\":{\"dtype\":\"BF16\",\"shape\":[%s],\"data_offsets\":[%llu,%llu]}",
			t->name, shape, (unsigned long long)at, (unsigned long long)(at + bytes));
		at += bytes;
	}
	text[len++] = '}';
	while (len % 8)
		text[len++] = ' ';
	for (int i = 0; i < 8; i++)
		text[i] = (char)((len - 8) >> (8 * i));
	r = write_all(fd, text, len);
	free(text);
	return r;
}

static int write_tensors(struct maker *mk, int fd)
{
	int r = write_header(mk, fd);

	if (!mk->opt->quiet)
		progress_begin(mk->opt->dir, mk->total);
	for (size_t i = 0; !r && i < mk->n_tensors; i++)
		r = write_tensor(mk, fd, i);
	progress_end();
	return r;
}

static int write_text(struct maker *mk, int fd, json_t *root)
{
	char *text = json_dumps(root, JSON_INDENT(2));
	int r;

	if (!text)
		return -ENOMEM;
	r = write_all(fd, text, strlen(text));
	free(text);
	return r ? r : write_all(fd, "\n", 1);
}

/* Write dir/name through a temporary name; root NULL: the tensors. */
static int write_file(struct maker *mk, const char *name, json_t *root)
{
	char path[PATH_MAX], temp[PATH_MAX];
	int fd, r;

	if (snprintf(path, sizeof(path), "%s/%s", mk->opt->dir, name) >= (int)sizeof(path) ||
	    snprintf(temp, sizeof(temp), "%s/.%s.%d", mk->opt->dir, name, (int)getpid()) >=
		    (int)sizeof(temp))
		return err_set(mk->err, -ENAMETOOLONG, "%s: the path is too long", mk->opt->dir);
	fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	r = fd < 0 ? -errno : 0;
	if (!r)
		r = root ? write_text(mk, fd, root) : write_tensors(mk, fd);
	if (fd >= 0 && close(fd) && !r)
		r = -errno;
	if (!r && rename(temp, path))
		r = -errno;
	if (!r)
		return 0;
	if (fd >= 0)
		unlink(temp);
	return err_set(mk->err, r, "%s: cannot write: %s", path, strerror(-r));
}

/* --- configuration -------------------------------------------------------------------------------*/

static json_t *make_rope(const struct maker *mk)
{
	if (!strcmp(mk->shape->name, "8b") && !strcmp(mk->arch->name, "llama"))
		return json_pack("{s:s, s:f, s:f, s:f, s:i}", "rope_type", "llama3", "factor", 8.0,
				 "low_freq_factor", 1.0, "high_freq_factor", 4.0,
				 "original_max_position_embeddings", 8192);
	return json_null();
}

static json_t *make_config(const struct maker *mk)
{
	const struct shape *s = mk->shape;
	const bool large = !strcmp(s->name, "8b");
	json_t *c;

	c = json_pack("{s:[s], s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:s, s:f, s:b, s:f, "
		      "s:o, s:i, s:i, s:s}",
		      "architectures", mk->arch->class, "model_type", mk->arch->name,
		      "num_hidden_layers", s->layers, "hidden_size", s->hidden,
		      "num_attention_heads", s->heads, "num_key_value_heads", s->kv_heads,
		      "head_dim", s->hidden / s->heads, "intermediate_size", s->ffn, "vocab_size",
		      s->vocab, "max_position_embeddings",
		      mk->opt->positions ? mk->opt->positions : s->positions, "hidden_act", "silu",
		      "rms_norm_eps", 1e-5, "tie_word_embeddings", s->tied, "rope_theta",
		      large ? 500000.0 : 10000.0, "rope_scaling", make_rope(mk), "bos_token_id", 1,
		      "eos_token_id", 2, "torch_dtype", "bfloat16");
	if (c && !strcmp(mk->arch->name, "mistral"))
		json_object_set_new(c, "sliding_window", json_null());
	if (c && !strcmp(mk->arch->name, "granite")) {
		json_object_set_new(c, "embedding_multiplier",
				    json_real(mk->arch->embedding_multiplier));
		json_object_set_new(c, "residual_multiplier", json_real(0.22));
		json_object_set_new(c, "attention_multiplier",
				    json_real(1.0 / (s->hidden / s->heads)));
		json_object_set_new(c, "logits_scaling", json_real(8));
	}
	return c;
}

static int write_configs(struct maker *mk)
{
	json_t *generation = json_pack("{s:i, s:i}", "bos_token_id", 1, "eos_token_id", 2);
	json_t *config = make_config(mk);
	int r;

	if (!generation || !config)
		r = err_set(mk->err, -ENOMEM, "%s: out of memory", mk->opt->dir);
	else
		r = write_file(mk, "generation_config.json", generation);
	r = r ? r : write_file(mk, "config.json", config);
	json_decref(generation);
	json_decref(config);
	return r;
}

/* --- the whole -----------------------------------------------------------------------------------*/

static int choose(struct maker *mk)
{
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
		if (!strcmp(mk->opt->shape, shapes[i].name))
			mk->shape = &shapes[i];
	for (size_t i = 0; i < sizeof(archs) / sizeof(archs[0]); i++)
		if (!strcmp(mk->opt->arch, archs[i].name))
			mk->arch = &archs[i];
	if (!mk->shape)
		return err_set(mk->err, -EINVAL, "no shape \"%.40s\" (tiny, 135m, 1b, 8b)",
			       mk->opt->shape);
	if (!mk->arch)
		return err_set(mk->err, -EINVAL,
			       "no architecture \"%.40s\" (llama, mistral, qwen2, qwen3, granite)",
			       mk->opt->arch);
	if (mk->opt->positions > MAX_POSITIONS)
		return err_set(mk->err, -EINVAL, "%u positions: at most %u", mk->opt->positions,
			       MAX_POSITIONS);
	return 0;
}

static int make_dir(struct maker *mk)
{
	static const char *const taken[] = {"config.json", "model.safetensors",
					    "model.safetensors.index.json"};
	char path[PATH_MAX];
	int r;

	if (mkdir(mk->opt->dir, 0777) && errno != EEXIST) {
		r = -errno;
		return err_set(mk->err, r, "%s: cannot make the folder: %s", mk->opt->dir,
			       strerror(-r));
	}
	for (int i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "%s/%s", mk->opt->dir, taken[i]);
		if (!access(path, F_OK))
			return err_set(mk->err, -EEXIST,
				       "%s is there already: remove it or choose another folder",
				       path);
	}
	return 0;
}

int model_make(const struct model_make_options *opt, struct weft_err *err)
{
	struct maker *mk = calloc(1, sizeof(*mk));
	int r;

	if (!mk)
		return err_set(err, -ENOMEM, "out of memory");
	mk->opt = opt;
	mk->err = err;
	mk->chunk = malloc(CHUNK_BYTES);
	r = mk->chunk ? choose(mk) : err_set(err, -ENOMEM, "out of memory");
	r = r ? r : make_dir(mk);
	r = r ? r : add_all(mk);
	if (!r) {
		random_quantiles(mk->quantiles);
		r = write_file(mk, "model.safetensors", NULL);
	}
	r = r ? r : write_configs(mk);
	free(mk->tensors);
	free(mk->chunk);
	free(mk);
	return r;
}
