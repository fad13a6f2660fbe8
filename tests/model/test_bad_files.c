/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_bad_files.c - model folders that are broken in one place each.
 *
 * A fixture is copied to a temporary folder, broken, and opened on the reference backend. It must
 * be refused with one line that names the file and the key or tensor; nothing may be leaked or
 * touched out of bounds (run with SAN=address). The unbroken copy must open, so that a case cannot
 * pass for another reason than its own.
 */
#include "tests/model/fixture.h"
#include "tests/tap.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#define TENSORS	   "model.safetensors"
#define INDEX	   "model.safetensors.index.json"
#define MAX_SHARDS 2

/* A model in memory: what will be written to the folder, to be broken before. */
struct shard {
	char name[64];
	json_t *header;
	char *header_text; /* instead of header, if set */
	size_t header_bytes;
	uint8_t *data;
	size_t data_bytes;
	uint64_t claimed_header; /* instead of the header's length, if not 0 */
	size_t keep;		 /* the file is cut to this, if not 0 */
};

struct box {
	char dir[64];
	json_t *config, *index; /* index NULL: not sharded */
	char *config_text;	/* instead of config, if set */
	size_t config_bytes;
	char *generation; /* text of generation_config.json, if set */
	struct shard shards[MAX_SHARDS];
	int n_shards;
};

/* --- reading and writing -------------------------------------------------------------------------*/

static uint8_t *read_file(const char *dir, const char *name, size_t *ret_bytes)
{
	char path[PATH_MAX];
	struct stat st;
	uint8_t *p;
	FILE *f;

	snprintf(path, sizeof(path), "%.3900s/%s", dir, name);
	f = fopen(path, "rb");
	if (!f || fstat(fileno(f), &st))
		bail_out(path);
	p = malloc((size_t)st.st_size + 1);
	if (!p || fread(p, 1, (size_t)st.st_size, f) != (size_t)st.st_size)
		bail_out(path);
	fclose(f);
	p[st.st_size] = 0;
	*ret_bytes = (size_t)st.st_size;
	return p;
}

static void write_file(const char *dir, const char *name, const void *a, size_t a_bytes,
		       const void *b, size_t b_bytes)
{
	char path[PATH_MAX];
	FILE *f;

	snprintf(path, sizeof(path), "%.3900s/%s", dir, name);
	f = fopen(path, "wb");
	if (!f || fwrite(a, 1, a_bytes, f) != a_bytes || (b && fwrite(b, 1, b_bytes, f) != b_bytes))
		bail_out(path);
	fclose(f);
}

static void read_shard(struct box *b, const char *dir, const char *name)
{
	struct shard *s = &b->shards[b->n_shards++];
	size_t bytes;
	uint64_t len;
	uint8_t *file = read_file(dir, name, &bytes);

	memset(s, 0, sizeof(*s));
	snprintf(s->name, sizeof(s->name), "%s", name);
	memcpy(&len, file, 8);
	s->header = json_loadb((char *)file + 8, len, 0, NULL);
	s->data_bytes = bytes - 8 - len;
	s->data = malloc(s->data_bytes);
	if (!s->header || !s->data)
		bail_out("cannot read a fixture");
	memcpy(s->data, file + 8 + len, s->data_bytes);
	free(file);
}

static void box_read(struct box *b, const char *fixture)
{
	const char *src = getenv("WEFT_SRC");
	char dir[PATH_MAX];
	size_t bytes;
	char *text;

	memset(b, 0, sizeof(*b));
	snprintf(b->dir, sizeof(b->dir), "/tmp/weft-bad-files.XXXXXX");
	if (!mkdtemp(b->dir))
		bail_out("no temporary folder");
	snprintf(dir, sizeof(dir), "%s/tests/data/models/%s", src ? src : ".", fixture);
	text = (char *)read_file(dir, "config.json", &bytes);
	b->config = json_loads(text, 0, NULL);
	free(text);
	if (strcmp(fixture, "llama3")) {
		read_shard(b, dir, TENSORS);
		return;
	}
	text = (char *)read_file(dir, INDEX, &bytes);
	b->index = json_loads(text, 0, NULL);
	free(text);
	read_shard(b, dir, "model-00001-of-00002.safetensors");
	read_shard(b, dir, "model-00002-of-00002.safetensors");
}

static void write_shard(const struct box *b, struct shard *s)
{
	uint64_t len;
	uint8_t *all;
	char path[200];

	if (!s->header_text) {
		s->header_text = json_dumps(s->header, JSON_COMPACT);
		s->header_bytes = strlen(s->header_text);
	}
	len = s->claimed_header ? s->claimed_header : s->header_bytes;
	all = malloc(8 + s->header_bytes);
	memcpy(all, &len, 8);
	memcpy(all + 8, s->header_text, s->header_bytes);
	write_file(b->dir, s->name, all, 8 + s->header_bytes, s->data, s->data_bytes);
	free(all);
	snprintf(path, sizeof(path), "%s/%s", b->dir, s->name);
	if (s->keep && truncate(path, (off_t)s->keep))
		bail_out("cannot truncate");
}

static void write_json(const struct box *b, const char *name, json_t *root)
{
	char *text = json_dumps(root, 0);

	write_file(b->dir, name, text, strlen(text), NULL, 0);
	free(text);
}

static void box_write(struct box *b)
{
	if (b->config_text)
		write_file(b->dir, "config.json", b->config_text, b->config_bytes, NULL, 0);
	else if (b->config)
		write_json(b, "config.json", b->config);
	if (b->generation)
		write_file(b->dir, "generation_config.json", b->generation, strlen(b->generation),
			   NULL, 0);
	if (b->index)
		write_json(b, INDEX, b->index);
	for (int i = 0; i < b->n_shards; i++)
		write_shard(b, &b->shards[i]);
}

static void box_free(struct box *b)
{
	static const char *const names[] = {"config.json",
					    "generation_config.json",
					    TENSORS,
					    INDEX,
					    "model-00001-of-00002.safetensors",
					    "model-00002-of-00002.safetensors"};
	char path[200];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", b->dir, names[i]);
		if (unlink(path) && errno != ENOENT)
			rmdir(path);
	}
	rmdir(b->dir);
	for (int i = 0; i < MAX_SHARDS; i++) {
		json_decref(b->shards[i].header);
		free(b->shards[i].header_text);
		free(b->shards[i].data);
	}
	json_decref(b->config);
	json_decref(b->index);
	free(b->config_text);
	free(b->generation);
}

/* --- one case ------------------------------------------------------------------------------------*/

static int open_box(const struct box *b, struct weft_err *err)
{
	const struct model_open_options opt = {.dir = b->dir};
	struct wk_backend *be;
	struct model *m = NULL;
	int r;

	if (wk_ref_ops.open(NULL, &be))
		bail_out("cannot open the reference backend");
	r = model_open(&wk_ref_ops, be, &opt, &m, err);
	if (r && m)
		r = 1; /* touched although it failed */
	model_close(m);
	wk_ref_ops.close(be);
	return r;
}

/* Refused, in one line that says both. */
static void refused(struct box *b, const char *what, const char *says, const char *also)
{
	struct weft_err err = {0};
	int r;

	box_write(b);
	r = open_box(b, &err);
	if (!ok(r < 0 && strstr(err.message, b->dir) && strstr(err.message, says) &&
			strstr(err.message, also) && !strpbrk(err.message, "\n\r\033"),
		"%s", what))
		diag("returned %d, says: %s", r, r < 0 ? err.message : "");
	box_free(b);
}

static json_t *value_of(const char *text)
{
	json_t *v = json_loads(text, JSON_DECODE_ANY, NULL);

	if (!v)
		bail_out(text);
	return v;
}

/* Set, or delete if value is NULL, a key; "a.b" is a key b in an object a. */
static void set_key(json_t *root, const char *path, const char *value)
{
	const char *dot = strchr(path, '.');
	char first[64];

	if (dot) {
		snprintf(first, sizeof(first), "%.*s", (int)(dot - path), path);
		root = json_object_get(root, first);
		path = dot + 1;
	}
	if (value)
		json_object_set_new(root, path, value_of(value));
	else
		json_object_del(root, path);
}

/* --- config.json ---------------------------------------------------------------------------------*/

static const struct {
	const char *fixture, *key, *value, *says;
} config_cases[] = {
	{"llama", "model_type", "\"granitemoehybrid\"", "granitemoehybrid"},
	{"llama", "model_type", "\"gpt2\"", "gpt2"},
	{"llama", "model_type", NULL, "model_type"},
	{"llama", "model_type", "3", "model_type"},
	{"llama", "n_experts", "8", "n_experts"},
	{"llama", "line\\u000abreak", "8", "unknown key"},
	{"llama", "embedding_multiplier", "2.0", "embedding_multiplier"},
	{"llama", "hidden_size", "0", "hidden_size"},
	{"llama", "hidden_size", "-64", "hidden_size"},
	{"llama", "hidden_size", "1000000", "hidden_size"},
	{"llama", "hidden_size", "64.5", "hidden_size"},
	{"llama", "hidden_size", "\"64\"", "hidden_size"},
	{"llama", "hidden_size", NULL, "hidden_size"},
	{"llama", "num_hidden_layers", "0", "num_hidden_layers"},
	{"llama", "num_hidden_layers", "4294967298", "num_hidden_layers"},
	{"llama", "num_hidden_layers", "3", "model.layers.2.input_layernorm.weight"},
	{"llama", "num_hidden_layers", "1", "model.layers.1."},
	{"llama", "num_attention_heads", "0", "num_attention_heads"},
	{"llama", "num_key_value_heads", "3", "num_key_value_heads"},
	{"llama", "num_key_value_heads", "8", "num_key_value_heads"},
	{"llama", "head_dim", "15", "head_dim"},
	{"llama", "head_dim", "4", "head_dim"},
	{"llama", "head_dim", "512", "head_dim"},
	{"llama", "vocab_size", "0", "vocab_size"},
	{"llama", "vocab_size", "193", "model.embed_tokens.weight"},
	{"llama", "intermediate_size", "97", "model.layers.0.mlp.gate_proj.weight"},
	{"llama", "max_position_embeddings", "0", "max_position_embeddings"},
	{"llama", "rms_norm_eps", "-1.0", "rms_norm_eps"},
	{"llama", "rms_norm_eps", "0", "rms_norm_eps"},
	{"llama", "hidden_act", "\"gelu\"", "hidden_act"},
	{"llama", "mlp_bias", "true", "mlp_bias"},
	{"llama", "attention_bias", "1", "attention_bias"},
	{"llama", "attention_bias", "true", "self_attn.q_proj.bias"},
	{"llama", "tie_word_embeddings", "true", "lm_head.weight"},
	{"llama", "pretraining_tp", "2", "pretraining_tp"},
	{"llama", "quantization_config", "{\"bits\": 4}", "quantization_config"},
	{"llama", "is_encoder_decoder", "true", "is_encoder_decoder"},
	{"llama", "add_cross_attention", "true", "add_cross_attention"},
	{"llama", "tie_encoder_decoder", "true", "tie_encoder_decoder"},
	{"llama", "cross_attention_hidden_size", "64", "cross_attention_hidden_size"},
	{"llama", "quantization_config", "{}", "quantization_config"},
	{"llama", "pruned_heads", "{\"0\": [1]}", "pruned_heads"},
	{"llama", "prefix", "\"Answer: \"", "prefix"},
	{"llama", "auto_map", "{\"AutoModelForCausalLM\": \"modeling_x.X\"}", "code of its own"},
	{"llama", "sliding_window", "128", "sliding_window"},
	{"llama", "rope_interleaved", "true", "rope_interleaved"},
	{"qwen2", "use_mrope", "true", "use_mrope"},
	{"llama", "eos_token_id", "192", "eos_token_id"},
	{"llama", "eos_token_id", "[1, -1]", "eos_token_id"},
	{"llama", "eos_token_id", "[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]", "eos_token_id"},
	{"llama", "bos_token_id", "500", "bos_token_id"},
	{"llama", "rope_theta", "0", "rope_theta"},
	{"llama", "rope_parameters", "7", "rope_parameters"},
	{"llama", "rope_parameters.rope_type", "\"dynamic\"", "dynamic"},
	{"llama", "rope_parameters.rope_theta", "1e400", "rope_theta"},
	{"llama", "rope_parameters.factor", "2.0", "rope_parameters.factor"},
	{"llama", "rope_parameters.partial_rotary_factor", "0.5", "partial_rotary_factor"},
	{"llama", "rope_scaling", "{\"type\":\"linear\",\"factor\":2.0}", "rope_scaling"},
	{"llama3", "rope_parameters.factor", "0.0", "rope_parameters.factor"},
	{"llama3", "rope_parameters.factor", NULL, "rope_parameters.factor"},
	{"llama3", "rope_parameters.low_freq_factor", "4.0", "high_freq_factor"},
	{"llama3", "rope_parameters.original_max_position_embeddings", "0",
	 "original_max_position"},
	{"llama-linear", "rope_theta", "-1", "rope_theta"},
	{"llama-linear", "rope_scaling.type", "\"yarn\"", "rope_scaling.type"},
	{"llama-yarn", "rope_parameters.beta_fast", "0.5", "beta_fast"},
	{"llama-yarn", "rope_parameters.mystery", "1", "rope_parameters.mystery"},
	{"llama-yarn", "rope_parameters.attention_factor", "0", "attention_factor"},
	{"mistral-window", "sliding_window", "0", "sliding_window"},
	{"mistral-window", "attention_bias", "true", "attention_bias"},
	{"mistral-window", "layer_types", "[\"full_attention\",\"full_attention\"]", "contradicts"},
	{"mistral-window", "layer_types", "[\"full_attention\",\"sliding_attention\"]",
	 "contradicts"},
	{"mistral-window", "num_key_value_heads", NULL, "num_key_value_heads"},
	{"mistral-window", "num_key_value_heads", "null", "self_attn.k_proj.weight"},
	{"qwen2-window-yarn", "layer_types", "[\"full_attention\"]", "layer_types"},
	{"qwen2-window-yarn", "layer_types",
	 "[\"sliding_attention\",\"full_attention\",\"full_attention\"]", "layer_types"},
	{"qwen2-window-yarn", "layer_types",
	 "[\"full_attention\",\"full_attention\",\"linear_attention\"]", "linear_attention"},
	{"qwen2-window-yarn", "use_sliding_window", "false", "layer_types"},
	{"qwen3", "head_dim", NULL, "self_attn.q_proj.weight"},
	{"granite", "logits_scaling", "0", "logits_scaling"},
	{"granite", "residual_multiplier", "\"x\"", "residual_multiplier"},
};

/* A key of the table may hold a JSON escape. */
static void unescape(const char *key, char *ret, size_t bytes)
{
	char text[100];
	json_t *v;

	snprintf(text, sizeof(text), "\"%s\"", key);
	v = value_of(text);
	snprintf(ret, bytes, "%s", json_string_value(v));
	json_decref(v);
}

static void test_config_keys(void)
{
	char what[200], key[100];
	struct box b;

	for (size_t i = 0; i < sizeof(config_cases) / sizeof(config_cases[0]); i++) {
		const char *value = config_cases[i].value;

		box_read(&b, config_cases[i].fixture);
		unescape(config_cases[i].key, key, sizeof(key));
		snprintf(what, sizeof(what), "%s: %s = %s", config_cases[i].fixture,
			 config_cases[i].key, value ? value : "(deleted)");
		if (value && !strcmp(value, "1e400")) {
			/* No double: jansson itself must refuse the text. */
			b.config_text =
				strdup("{\"model_type\": \"llama\", \"rope_theta\": 1e400}");
			b.config_bytes = strlen(b.config_text);
			refused(&b, what, "config.json", "line 1");
			continue;
		}
		set_key(b.config, key, value);
		refused(&b, what, config_cases[i].says, "");
	}
}

/* A literal, NUL bytes and all, on the heap; and its length. */
#define TEXT(s) memcpy(malloc(sizeof(s)), s, sizeof(s)), sizeof(s) - 1

static void config_text_case(const char *what, char *text, size_t bytes, const char *says)
{
	struct box b;

	box_read(&b, "llama");
	b.config_text = text;
	b.config_bytes = bytes;
	refused(&b, what, "config.json", says);
}

static void test_config_texts(void)
{
	const size_t deep = 100000, huge = (1u << 20) + 1;
	char *p;
	struct box b;

	config_text_case("config.json: empty", TEXT(""), "not valid JSON");
	config_text_case("config.json: an array", TEXT("[]"), "object");
	config_text_case("config.json: cut short", TEXT("{\"model_type\": \"lla"),
			 "not valid JSON");
	config_text_case("config.json: duplicate key",
			 TEXT("{\"hidden_size\": 64, \"hidden_size\": 32}"), "duplicate");
	config_text_case("config.json: a NUL inside", TEXT("{\"model_type\": \"ll\0ma\"}"),
			 "not valid JSON");
	config_text_case("config.json: text after the object", TEXT("{} {}"), "not valid JSON");
	config_text_case("config.json: not UTF-8", TEXT("{\"a\": \"\xff\xfe\"}"), "not valid JSON");
	p = malloc(deep);
	memset(p, '[', deep);
	config_text_case("config.json: 100,000 brackets deep", p, deep, "depth");
	p = malloc(huge);
	memset(p, ' ', huge);
	config_text_case("config.json: more than a megabyte", p, huge, "at most");
	box_read(&b, "llama");
	json_decref(b.config);
	b.config = NULL;
	refused(&b, "config.json: missing", "config.json", "cannot open");
	box_read(&b, "llama");
	b.generation = strdup("{\"eos_token_id\": [2, 1000]}");
	refused(&b, "generation_config.json: eos beyond the vocabulary", "generation_config.json",
		"eos_token_id");
	box_read(&b, "llama");
	b.generation = strdup("{\"eos_token_id\": 2");
	refused(&b, "generation_config.json: cut short", "generation_config.json", "JSON");
}

/* --- headers -------------------------------------------------------------------------------------*/

/* One key of one tensor's entry; key "" replaces the entry, tensor and key "" add a top-level key. */
static const struct {
	const char *tensor, *key, *value, *says;
} header_cases[] = {
	{"model.norm.weight", "dtype", "\"I64\"", "I64"},
	{"model.norm.weight", "dtype", "\"F32\"", "data_offsets"},
	{"model.norm.weight", "dtype", "7", "dtype"},
	{"model.norm.weight", "dtype", NULL, "needs dtype"},
	{"model.norm.weight", "shape", "[32]", "data_offsets"},
	{"model.norm.weight", "shape", "[64, 1]", "shape"},
	{"model.norm.weight", "shape", "[0]", "zero"},
	{"model.norm.weight", "shape", "[-64]", "shape"},
	{"model.norm.weight", "shape", "[64.0]", "shape"},
	{"model.norm.weight", "shape", "[]", "dimensions"},
	{"model.norm.weight", "shape", "[1,1,1,1,64]", "dimensions"},
	{"model.norm.weight", "shape", "\"64\"", "shape"},
	{"model.norm.weight", "shape", "[9223372036854775807, 2]", "absurdly"},
	{"model.norm.weight", "shape", "[4294967296, 4294967296, 64]", "absurdly"},
	{"model.norm.weight", "data_offsets", "[0]", "data_offsets"},
	{"model.norm.weight", "data_offsets", "[128, 0]", "data_offsets"},
	{"model.norm.weight", "data_offsets", "[-128, 0]", "data_offsets"},
	{"model.norm.weight", "data_offsets", "[0, 9223372036854775807]", "data_offsets"},
	{"model.norm.weight", "data_offsets", "[9223372036854775680, 9223372036854775807]",
	 "data_offsets"},
	{"model.norm.weight", "data_offsets", "[0, 128]", "overlap"},
	{"model.norm.weight", "data_offsets", "{}", "data_offsets"},
	{"model.norm.weight", "data_offsets", NULL, "needs dtype"},
	{"model.norm.weight", "extra", "1", "extra"},
	{"model.norm.weight", "", "3", "model.norm.weight"},
	{"model.layers.0.self_attn.o_proj.weight", "shape", "[32, 128]", "must be [64, 64]"},
	{"__metadata__", "", "[]", "__metadata__"},
	{"__metadata__", "format", "5", "format"},
};

static void test_header_keys(void)
{
	struct box b;

	for (size_t i = 0; i < sizeof(header_cases) / sizeof(header_cases[0]); i++) {
		const char *value = header_cases[i].value;
		char what[200];
		json_t *root;

		box_read(&b, "llama");
		root = b.shards[0].header;
		snprintf(what, sizeof(what), "tensors: %s %s = %s", header_cases[i].tensor,
			 header_cases[i].key, value ? value : "(deleted)");
		if (!*header_cases[i].key)
			json_object_set_new(root, header_cases[i].tensor, value_of(value));
		else if (value)
			json_object_set_new(json_object_get(root, header_cases[i].tensor),
					    header_cases[i].key, value_of(value));
		else
			json_object_del(json_object_get(root, header_cases[i].tensor),
					header_cases[i].key);
		refused(&b, what, header_cases[i].says, TENSORS);
	}
}

static json_t *take_entry(struct shard *s, const char *name)
{
	json_t *v = json_incref(json_object_get(s->header, name));

	if (!v)
		bail_out(name);
	json_object_del(s->header, name);
	return v;
}

/* Where a tensor's data begins. */
static uint8_t *data_of(struct shard *s, const char *name)
{
	json_t *v = json_object_get(json_object_get(s->header, name), "data_offsets");

	if (!v)
		bail_out(name);
	return s->data + json_integer_value(json_array_get(v, 0));
}

static void header_text_case(const char *what, char *text, size_t bytes, uint64_t claimed,
			     const char *says)
{
	struct box b;

	box_read(&b, "llama");
	b.shards[0].header_text = text;
	b.shards[0].header_bytes = bytes;
	b.shards[0].claimed_header = claimed;
	refused(&b, what, TENSORS, says);
}

static void test_header_texts(void)
{
	const size_t deep = 100000, huge = ((size_t)16 << 20) + 1;
	char *p, path[100];
	struct box b;

	header_text_case("tensors: header of 2^64 - 1 bytes", TEXT("{}"), UINT64_MAX, "truncated");
	header_text_case("tensors: header of 2^63 bytes", TEXT("{}"), (uint64_t)1 << 63,
			 "truncated");
	header_text_case("tensors: no JSON", TEXT("GGUF"), 0, "not valid JSON");
	header_text_case("tensors: an empty header object", TEXT("{}"), 0, "no tensors");
	header_text_case("tensors: a header that is an array", TEXT("[]"), 0, "object");
	header_text_case("tensors: a duplicate name",
			 TEXT("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
			      "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}"),
			 0, "duplicate");
	p = malloc(deep);
	for (size_t i = 0; i < deep; i++)
		p[i] = "{\"a\":"[i % 5];
	header_text_case("tensors: 20,000 objects deep", p, deep, 0, "depth");
	p = malloc(huge);
	memset(p, ' ', huge);
	header_text_case("tensors: a header of 16 MB", p, huge, 0, "at most");
	p = malloc(400);
	snprintf(p, 400, "{\"%0300d\":{}}", 1);
	header_text_case("tensors: a name of 300 bytes", p, strlen(p), 0, "longer");
	header_text_case("tensors: a name with a line break and an escape",
			 TEXT("{\"a\\n\\u001b[2J\":{\"dtype\":3}}"), 0, "needs dtype");

	box_read(&b, "llama");
	b.shards[0].keep = 5;
	refused(&b, "tensors: a file of five bytes", TENSORS, "truncated");
	box_read(&b, "llama");
	b.shards[0].keep = 100;
	refused(&b, "tensors: cut inside the header", TENSORS, "truncated");
	box_read(&b, "llama");
	b.shards[0].data_bytes -= 2;
	refused(&b, "tensors: two bytes of data missing", TENSORS, "data_offsets");
	box_read(&b, "llama");
	b.shards[0].data = realloc(b.shards[0].data, b.shards[0].data_bytes + 2);
	memset(b.shards[0].data + b.shards[0].data_bytes, 0, 2);
	b.shards[0].data_bytes += 2;
	refused(&b, "tensors: two bytes of data too many", TENSORS, "after the last tensor");
	box_read(&b, "llama");
	b.n_shards = 0;
	refused(&b, "tensors: no file", TENSORS, "cannot open");
	box_read(&b, "llama");
	b.n_shards = 0;
	snprintf(path, sizeof(path), "%s/" TENSORS, b.dir);
	if (mkdir(path, 0700))
		bail_out("cannot make a folder");
	refused(&b, "tensors: a folder instead of a file", TENSORS, "regular");
}

/* --- tensors -------------------------------------------------------------------------------------*/

static void put_bf16(struct shard *s, const char *name, size_t index, uint16_t value)
{
	memcpy(data_of(s, name) + 2 * index, &value, 2);
}

static void test_tensors(void)
{
	struct box b;

	box_read(&b, "llama");
	json_object_set_new(b.shards[0].header, "model.layers.1.mlp.up_proj.wait",
			    take_entry(&b.shards[0], "model.layers.1.mlp.up_proj.weight"));
	refused(&b, "tensors: one has another name", "model.layers.1.mlp.up_proj.weight",
		"missing");
	box_read(&b, "qwen2");
	json_object_set_new(b.config, "model_type", json_string("llama"));
	json_object_del(b.config, "use_sliding_window");
	json_object_del(b.config, "max_window_layers");
	refused(&b, "tensors: biases that a llama has not", "_proj.bias", "unknown");
	box_read(&b, "llama-tied-bias");
	json_object_set_new(b.config, "tie_word_embeddings", json_false());
	refused(&b, "tensors: no head", "lm_head.weight", "missing");
	box_read(&b, "llama");
	put_bf16(&b.shards[0], "model.layers.1.self_attn.v_proj.weight", 64 * 3 + 5, 0x7fc0);
	refused(&b, "tensors: NaN in a weight", "model.layers.1.self_attn.v_proj.weight\": NaN",
		"row 3, column 5");
	box_read(&b, "llama");
	put_bf16(&b.shards[0], "lm_head.weight", 0, 0xff80);
	refused(&b, "tensors: -Inf in the head", "lm_head.weight\": Inf", "row 0, column 0");
	box_read(&b, "llama");
	put_bf16(&b.shards[0], "model.embed_tokens.weight", 191 * 64 + 63, 0x7f80);
	refused(&b, "tensors: Inf in the embedding", "model.embed_tokens.weight\": Inf", "row 191");
	box_read(&b, "llama");
	put_bf16(&b.shards[0], "model.norm.weight", 63, 0xffff);
	refused(&b, "tensors: NaN in a norm", "model.norm.weight\": NaN", "column 63");
	box_read(&b, "qwen2");
	put_bf16(&b.shards[0], "model.layers.0.self_attn.k_proj.bias", 1, 0x7f80);
	refused(&b, "tensors: Inf in a bias", "model.layers.0.self_attn.k_proj.bias", "Inf");
}

/* --- shards --------------------------------------------------------------------------------------*/

static void index_case(const char *what, const char *key, const char *value, const char *says)
{
	struct box b;

	box_read(&b, "llama3");
	set_key(b.index, key, value);
	refused(&b, what, INDEX, says);
}

static void map_case(const char *what, const char *tensor, const char *value, const char *says)
{
	struct box b;
	json_t *map;

	box_read(&b, "llama3");
	map = json_object_get(b.index, "weight_map");
	if (value)
		json_object_set_new(map, tensor, value_of(value));
	else
		json_object_del(map, tensor);
	refused(&b, what, INDEX, says);
}

static void test_shards(void)
{
	struct box b;

	index_case("index: no weight_map", "weight_map", NULL, "weight_map");
	index_case("index: an empty weight_map", "weight_map", "{}", "weight_map");
	index_case("index: weight_map is a list", "weight_map", "[]", "weight_map");
	index_case("index: unknown key", "extra", "1", "extra");
	map_case("index: a path upwards", "model.norm.weight", "\"../model.safetensors\"",
		 "../model.safetensors");
	map_case("index: an absolute path", "model.norm.weight", "\"/etc/passwd\"", "/etc/passwd");
	map_case("index: a subfolder", "model.norm.weight", "\"a/b.safetensors\"", "a/b");
	map_case("index: a hidden file", "model.norm.weight", "\".x.safetensors\"", ".x");
	map_case("index: another kind of file", "model.norm.weight", "\"config.json\"",
		 "config.json");
	map_case("index: a file that is a number", "model.norm.weight", "1", "string");
	map_case("index: the wrong shard", "model.norm.weight",
		 "\"model-00001-of-00002.safetensors\"", "model.norm.weight");
	map_case("index: a tensor that no shard has", "model.ghost.weight",
		 "\"model-00001-of-00002.safetensors\"", "model.ghost.weight");
	map_case("index: a tensor left out", "model.norm.weight", NULL, "model.norm.weight");

	box_read(&b, "llama3");
	b.n_shards = 1;
	refused(&b, "shards: one is missing", "model-00002-of-00002.safetensors", "cannot open");
	box_read(&b, "llama3");
	b.shards[1].keep = 4;
	refused(&b, "shards: one is truncated", "model-00002-of-00002.safetensors", "truncated");
	box_read(&b, "llama3");
	json_object_set_new(b.shards[1].header, "model.embed_tokens.weight",
			    take_entry(&b.shards[1], "model.norm.weight"));
	refused(&b, "shards: a tensor in two of them", "model.embed_tokens.weight", "and in");
	box_read(&b, "llama3");
	snprintf(b.shards[0].name, sizeof(b.shards[0].name), TENSORS);
	refused(&b, "shards: an index beside a single file", INDEX, TENSORS);
}

/* What transformers 4 wrote into every config.json, with values that are not its defaults where it
 * computes the same logits with them. */
static void test_harmless(void)
{
	static const char keys[] =
		"{\"_commit_hash\":\"ab\",\"add_cross_attention\":false,\"bad_words_ids\":[[3]],"
		"\"begin_suppress_tokens\":[3],\"cross_attention_hidden_size\":null,"
		"\"decoder_start_token_id\":1,\"diversity_penalty\":0.5,\"do_sample\":true,"
		"\"early_stopping\":true,\"encoder_no_repeat_ngram_size\":2,"
		"\"exponential_decay_length_penalty\":[5,1.5],\"finetuning_task\":\"x\","
		"\"forced_bos_token_id\":1,\"forced_eos_token_id\":2,\"gradient_checkpointing\":"
		"false,"
		"\"id2label\":{\"0\":\"a\",\"1\":\"b\"},\"is_decoder\":true,\"label2id\":{\"a\":0,"
		"\"b\":1},"
		"\"length_penalty\":2.0,\"max_length\":7,\"min_length\":3,\"no_repeat_ngram_size\":"
		"2,"
		"\"num_beam_groups\":2,\"num_beams\":4,\"num_return_sequences\":2,\"output_"
		"scores\":true,"
		"\"prefix\":null,\"pruned_heads\":{},\"remove_invalid_values\":true,"
		"\"repetition_penalty\":1.5,\"return_dict_in_generate\":true,\"sep_token_id\":3,"
		"\"suppress_tokens\":[5],\"task_specific_params\":{\"x\":{\"top_k\":1}},"
		"\"temperature\":0.5,\"tf_legacy_loss\":false,\"tie_encoder_decoder\":false,"
		"\"tokenizer_class\":\"LlamaTokenizer\",\"top_k\":3,\"top_p\":0.5,\"torchscript\":"
		"false,"
		"\"typical_p\":0.5,\"use_bfloat16\":false}";
	struct model_config before, after;
	struct weft_err err = {0};
	struct box b;
	json_t *more = value_of(keys);

	box_read(&b, "llama");
	box_write(&b);
	if (model_config_read(b.dir, &before, &err))
		bail_out(err.message);
	json_object_update(b.config, more);
	json_decref(more);
	box_write(&b);
	if (!ok(!model_config_read(b.dir, &after, &err), "what transformers 4 wrote is accepted"))
		diag("%s", err.message);
	else
		ok(after.max_positions == before.max_positions && after.n_eos == before.n_eos &&
			   after.eos[0] == before.eos[0] && after.bos == before.bos,
		   "and changes neither length nor tokens");
	box_free(&b);
}

/* Nothing is wrong with the copies themselves. */
static void test_good(void)
{
	struct model_config c;
	struct weft_err err;
	struct box b;

	for (uint32_t i = 0; i < n_fixtures; i++) {
		box_read(&b, fixture_names[i]);
		box_write(&b);
		ok(!open_box(&b, &err), "%s: unbroken, opens", fixture_names[i]);
		box_free(&b);
	}
	box_read(&b, "llama-tied-bias");
	json_object_set_new(b.config, "quantization_config", json_null());
	json_object_set_new(b.config, "torch_dtype", json_string("bfloat16"));
	json_object_set_new(b.config, "is_llama_config", json_true());
	json_object_set_new(b.config, "rope_interleaved", json_false());
	json_object_set_new(b.config, "transformers.js_config", json_pack("{s:s}", "dtype", "q4"));
	json_object_set_new(b.config, "unsloth_fixed", json_true());
	json_object_set_new(b.config, "rope_scaling",
			    json_pack("{s:s, s:n}", "rope_type", "default", "factor"));
	json_object_set_new(b.config, "num_key_value_heads", json_null());
	box_write(&b);
	ok(!open_box(&b, &err), "null and harmless keys are accepted");
	box_free(&b);
	box_read(&b, "mistral-window");
	set_key(b.config, "layer_types", "[\"sliding_attention\",\"sliding_attention\"]");
	box_write(&b);
	ok(!open_box(&b, &err), "a Mistral's layer_types may say what sliding_window says");
	box_free(&b);
	box_read(&b, "llama-linear");
	set_key(b.config, "max_position_embeddings", "100");
	set_key(b.config, "max_sequence_length", "400");
	box_write(&b);
	ok(!model_config_read(b.dir, &c, &err) && c.max_positions == 400,
	   "linear scaling makes the context longer");
	box_free(&b);
	box_read(&b, "llama-yarn");
	set_key(b.config, "rope_parameters.truncate", "null");
	set_key(b.config, "rope_parameters.beta_fast", "null");
	box_write(&b);
	ok(!model_config_read(b.dir, &c, &err) && !c.yarn_truncate && c.yarn_beta_fast == 32,
	   "null is transformers' default for beta_fast, but false for truncate");
	box_free(&b);
}

int main(void)
{
	test_good();
	test_harmless();
	test_config_keys();
	test_config_texts();
	test_header_keys();
	test_header_texts();
	test_tensors();
	test_shards();
	return tap_done();
}
