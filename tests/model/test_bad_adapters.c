/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_bad_adapters.c - adapters that are broken in one place each.
 *
 * A fixture is read, changed and opened from memory. It must be refused with one line that names
 * the file and the key or tensor; nothing may be leaked or touched out of bounds (run with
 * SAN=address). The unbroken one must open, so that a case cannot pass for another reason than its
 * own, and harmless changes must be accepted.
 */
#include "tests/model/adapter_box.h"
#include "tests/tap.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

static struct model ref, cpu;

static void check(struct adapter_box *b, const struct model *m, const char *want, const char *what)
{
	struct weft_err err = {0};
	struct adapter *a = NULL;
	int r = box_open(b, m, "the/adapter", &a, &err);

	if (!want) {
		ok(!r, "accepted: %s", what);
		if (r)
			diag("%s", err.message);
	} else {
		bool good = r < 0 && r == err.code && !a && strstr(err.message, want) &&
			    strstr(err.message, "the/adapter") && !strchr(err.message, '\n');

		ok(good, "refused: %s", what);
		if (!good)
			diag("code %d, \"%s\", want \"%s\"", r, err.message, want);
	}
	adapter_close(a);
	box_free(b);
}

/* --- the configuration ---------------------------------------------------------------------------*/

/* One key, its new value as JSON (NULL: taken out), and what the message must hold; NULL: opens. */
struct config_case {
	const char *key, *value, *want;
};

static const struct config_case config_cases[] = {
	{"r", "8", NULL},
	{"r", NULL, ": r: a rank must"},
	{"r", "0", ": r: a rank must"},
	{"r", "1025", ": r: a rank must"},
	{"r", "-8", ": r: a rank must"},
	{"r", "8.5", ": r: a rank must"},
	{"r", "\"8\"", ": r: a rank must"},
	{"r", "18446744073709551624", "not valid JSON"},
	{"r", "9", "shape [8, 64]"},
	{"lora_alpha", "0", NULL},
	{"lora_alpha", "3.25", NULL},
	{"lora_alpha", NULL, ": lora_alpha: an alpha must"},
	{"lora_alpha", "1e7", ": lora_alpha: an alpha must"},
	{"lora_alpha", "true", ": lora_alpha: an alpha must"},
	{"use_rslora", "true", NULL},
	{"use_rslora", "1", ": use_rslora: must be"},
	{"peft_type", NULL, ": peft_type:"},
	{"peft_type", "\"ADALORA\"", ": peft_type:"},
	{"peft_type", "\"lora\"", ": peft_type:"},
	{"bias", "null", NULL},
	{"bias", "\"lora_only\"", ": bias:"},
	{"bias", "\"all\"", ": bias:"},
	{"bias", "false", ": bias:"},
	{"use_dora", "true", ": use_dora: DoRA"},
	{"use_dora", "\"no\"", ": use_dora:"},
	{"use_qalora", "true", ": use_qalora:"},
	{"use_bdlora", "{\"nblocks\": 2}", ": use_bdlora:"},
	{"lora_bias", "true", ": lora_bias:"},
	{"fan_in_fan_out", "true", ": fan_in_fan_out:"},
	{"modules_to_save", "[\"lm_head\"]", ": modules_to_save:"},
	{"modules_to_save", "[]", NULL},
	{"layer_replication", "[[0, 2]]", ": layer_replication:"},
	{"trainable_token_indices", "[3]", ": trainable_token_indices:"},
	{"target_parameters", "[\"experts\"]", ": target_parameters:"},
	{"megatron_config", "{\"a\": 1}", ": megatron_config:"},
	{"corda_config", "{\"a\": 1}", ": corda_config:"},
	{"lora_ga_config", "{\"a\": 1}", ": lora_ga_config:"},
	{"arrow_config", "{\"a\": 1}", ": arrow_config:"},
	{"loftq_config", "{\"loftq_bits\": 4}", ": loftq_config:"},
	{"loftq_config", "null", NULL},
	{"eva_config", "{\"rho\": 2.0}", NULL},
	{"init_lora_weights", "\"gaussian\"", NULL},
	{"init_lora_weights", "\"pissa\"", ": init_lora_weights: \"pissa\""},
	{"init_lora_weights", "\"pissa_niter_4\"", ": init_lora_weights: \"pissa_niter_4\""},
	{"init_lora_weights", "\"olora\"", ": init_lora_weights:"},
	{"init_lora_weights", "\"loftq\"", ": init_lora_weights:"},
	{"init_lora_weights", "3", ": init_lora_weights:"},
	{"base_model_name_or_path", "\"/no/such/model\"", NULL},
	{"task_type", "\"SEQ_CLS\"", NULL},
	{"lora_dropout", "0.1", NULL},
	{"merge_weights", "false", NULL},
	{"enable_lora", "null", NULL},
	{"enable_lora", "[true, false, true]", ": enable_lora:"},
	{"frobnicate", "null", ": frobnicate: unknown key"},
	{"R", "8", ": R: unknown key"},
	{"alora_invocation_tokens", "[5, 6]", NULL},
	{"alora_invocation_tokens", "[]", ": alora_invocation_tokens: must be"},
	{"alora_invocation_tokens", "5", ": alora_invocation_tokens: must be"},
	{"alora_invocation_tokens", "\"5\"", ": alora_invocation_tokens: must be"},
	{"alora_invocation_tokens", "{\"a\": 5}", ": alora_invocation_tokens: must be"},
	{"alora_invocation_tokens", "[5, 192]", ": alora_invocation_tokens: entry 1"},
	{"alora_invocation_tokens", "[-1]", ": alora_invocation_tokens: entry 0"},
	{"alora_invocation_tokens", "[4294967297]", ": alora_invocation_tokens: entry 0"},
	{"alora_invocation_tokens", "[5.0]", ": alora_invocation_tokens: entry 0"},
	{"rank_pattern", "{\"nothing.of.this\": 4}", NULL},
	{"rank_pattern", "[]", ": rank_pattern: must be"},
	{"rank_pattern", "{\"q_proj\": 0}", ": rank_pattern: a rank must"},
	{"rank_pattern", "{\"q_proj\": 8.0}", ": rank_pattern: a rank must"},
	{"rank_pattern", "{\"up_proj\": 7}", "up_proj.lora_A.weight\": shape [8, 64]"},
	{"rank_pattern", "{\"(?i)q_proj\": 8}", "(?i)q_proj\": not supported"},
	{"rank_pattern", "{\"(?<!k)q_proj\": 8}", "not supported"},
	{"rank_pattern", "{\"q{_proj\": 8}", "not supported"},
	{"rank_pattern", "{\"q{}_proj\": 8}", "not supported"},
	{"rank_pattern", "{\"q{1,2,3}_proj\": 8}", "not supported"},
	{"rank_pattern", "{\"q{2,1}_proj\": 8}", "not supported"},
	{"rank_pattern", "{\"q{256}_proj\": 8}", "not supported"},
	{"rank_pattern", "{\"q{1\": 8}", "not supported"},
	{"rank_pattern", "{\"q++_proj\": 8}", "not supported"},
	{"rank_pattern", "{\"^*q_proj\": 8}", "not supported"},
	{"rank_pattern", "{\"\\\\b?q_proj\": 8}", "not supported"},
	{"rank_pattern", "{\"\\\\W_proj\": 8}", "not supported"},
	{"rank_pattern", "{\"q_proj\\\\\": 8}", "not supported"},
	{"rank_pattern", "{\"[a\\\\d-z]_proj\": 8}", "not supported"},
	{"rank_pattern", "{\"[q_proj\": 8}", "not supported"},
	{"rank_pattern", "{\"(q_proj\": 8}", "not supported"},
	{"rank_pattern", "{\"q_proj)\": 8}", "not supported"},
	{"rank_pattern", "{\"*q_proj\": 8}", "not supported"},
	{"rank_pattern", "{\".*?q_proj\": 8}", NULL},
	{"rank_pattern", "{\"q\\u00e9\": 8}", "not supported"},
	{"rank_pattern", "{\"((((((((((q))))))))))\": 8}", "not supported"},
	{"alpha_pattern", "{\"q_proj\": 3}", NULL},
	{"alpha_pattern", "{\"q_proj\": null}", ": alpha_pattern: an alpha must"},
	{"alpha_pattern", "{\"((a|b)+|(c|d)+)+e\": 3}", NULL},
	{"target_modules", NULL, ": target_modules: missing"},
	{"target_modules", "null", ": target_modules: missing"},
	{"target_modules", "7", ": target_modules: must be"},
	{"target_modules", "[7]", ": target_modules: entry 0"},
	{"target_modules", "\"all-linear\"", NULL},
	{"target_modules", "\"ALL-Linear\"", NULL},
	{"target_modules", "\".*_proj\"", NULL},
	{"target_modules", "\"_proj\"", "q_proj.lora_A.weight\": not among the target_modules"},
	{"target_modules", "\".*(q|k|v|o|gate|up)_proj\"",
	 "mlp.down_proj.lora_A.weight\": not among"},
	{"target_modules", "\"(?!x).*\"", ": target_modules: pattern"},
	{"target_modules", "[\"q_proj\", \"k_proj\"]", "v_proj.lora_A.weight\": not among"},
	{"target_modules", "[\"_proj\"]", "q_proj.lora_A.weight\": not among"},
	{"target_modules", "[]", "q_proj.lora_A.weight\": not among"},
	{"exclude_modules", "[\"up_proj\"]", "0.mlp.up_proj.lora_A.weight\": not among"},
	{"exclude_modules", "\".*up_proj\"", "0.mlp.up_proj.lora_A.weight\": not among"},
	{"exclude_modules", "[]", NULL},
	{"exclude_modules", "\"\"", NULL},
	{"exclude_modules", "[\"lm_head\"]", NULL},
	{"layers_to_transform", "[0, 1]", NULL},
	{"layers_to_transform", "[]", NULL},
	{"layers_to_transform", "[0]", "layers.1.self_attn.q_proj.lora_A.weight\": not among"},
	{"layers_to_transform", "1", "layers.0.self_attn.q_proj.lora_A.weight\": not among"},
	{"layers_to_transform", "2", ": layers_to_transform:"},
	{"layers_to_transform", "[-1]", ": layers_to_transform: entry 0"},
	{"layers_to_transform", "\"1\"", ": layers_to_transform:"},
	{"layers_pattern", "\"layers\"", NULL},
	{"layers_pattern", "[\"layers\"]", NULL},
	{"layers_pattern", "\"h\"", ": layers_pattern:"},
	{"layers_pattern", "[\"layers\", \"h\"]", ": layers_pattern:"},
};

static void test_configs(void)
{
	for (size_t i = 0; i < sizeof(config_cases) / sizeof(config_cases[0]); i++) {
		const struct config_case *c = &config_cases[i];
		struct adapter_box b;
		char what[120];
		json_t *v;

		box_read(&b, "llama-all");
		v = c->value ? json_loads(c->value, JSON_DECODE_ANY, NULL) : NULL;
		if (!c->value) {
			json_object_del(b.config, c->key);
		} else if (v) {
			json_object_set_new(b.config, c->key, v);
		} else { /* not a value that jansson can hold */
			b.config_bytes =
				(size_t)asprintf(&b.config_text, "{\"%s\": %s}", c->key, c->value);
		}
		snprintf(what, sizeof(what), "%s: %s", c->key, c->value ? c->value : "(none)");
		check(&b, &ref, c->want, what);
	}
}

static void test_text(const char *text, size_t bytes, const char *want, const char *what)
{
	struct adapter_box b;

	box_read(&b, "llama-all");
	b.config_text = malloc(bytes);
	memcpy(b.config_text, text, bytes);
	b.config_bytes = bytes;
	check(&b, &ref, want, what);
}

static void test_texts(void)
{
	static char big[ADAPTER_MAX_CONFIG_BYTES + 1], deep[20000];
	static const char twice[] = "{\"r\": 8, \"r\": 8}";

	memset(big, ' ', sizeof(big));
	memset(deep, '[', sizeof(deep));
	test_text("", 0, "adapter_config.json: not valid JSON", "an empty configuration");
	test_text("[]", 2, "adapter_config.json: must be a JSON object", "a list");
	test_text("{}", 2, "adapter_config.json: peft_type", "nothing in it");
	test_text(twice, sizeof(twice) - 1, "not valid JSON", "a key twice");
	test_text(big, sizeof(big), "at most", "more than a megabyte");
	test_text(deep, sizeof(deep), "not valid JSON", "nested too deep");
}

/* A pattern of the worst kind for a matcher that goes back; and thousands of them. */
static void test_slow_patterns(void)
{
	struct adapter_box b;
	json_t *patterns = json_object();
	char key[100];

	box_read(&b, "llama-all");
	for (int i = 0; i < 4096; i++) {
		snprintf(key, sizeof(key), "((.*a)*(.*_)*(.*p)*(.*r)*(.*o)*(.*j)*)*%d", i);
		json_object_set_new(patterns, key, json_integer(8));
	}
	json_object_set_new(b.config, "rank_pattern", patterns);
	check(&b, &ref, "too long to match", "patterns that would take hours");
}

/* --- tensors -------------------------------------------------------------------------------------*/

static json_t *entry(struct adapter_box *b, const char *tensor)
{
	return json_object_get(b->header, tensor);
}

static void rename_tensor(struct adapter_box *b, const char *from, const char *to)
{
	json_object_set(b->header, to, entry(b, from));
	json_object_del(b->header, from);
}

static void test_renamed(const char *from, const char *to, const char *want)
{
	struct adapter_box b;
	char what[200];

	box_read(&b, "llama-all");
	rename_tensor(&b, from, to);
	snprintf(what, sizeof(what), "%s", to);
	check(&b, &ref, want, what);
}

static void test_names(void)
{
	static const char *const names[] = {
		"base_model.model.model.layers.1.up_proj.lora_A.weight",
		"base_model.model.model.layers.2.mlp.up_proj.lora_A.weight",
		"base_model.model.model.layers.01.mlp.up_proj.lora_A.weight",
		"base_model.model.model.layers.1.mlp.up_proj.lora_A.default.weight",
		"base_model.model.model.layers.1.mlp.up_proj.lora_A.bias",
		"base_model.model.model.layers.1.mlp.up_proj.lora_magnitude_vector",
		"base_model.model.model.layers.1.self_attn.up_proj.lora_A.weight",
		"base_model.model.model.embed_tokens.lora_embedding_A",
		"base_model.model.lm_head.lora_A.weight",
		"model.layers.1.mlp.up_proj.lora_A.weight",
		"",
		"base_model.model.model.layers.1.mlp.up_proj.lora_A.weight ",
	};
	char want[200];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(want, sizeof(want), "adapter_model.safetensors: tensor \"%s\": unknown",
			 names[i]);
		test_renamed(BOX_A, names[i], want);
	}
}

/* Take a tensor's data out as well, since the data must be covered. Only the last one can go. */
static char *drop_last(struct adapter_box *b)
{
	const char *name, *found = NULL;
	json_int_t last = -1;
	char *copy;
	json_t *v;

	json_object_foreach(b->header, name, v)
	{
		json_int_t at =
			json_integer_value(json_array_get(json_object_get(v, "data_offsets"), 0));

		if (json_object_get(v, "dtype") && at > last) {
			last = at;
			found = name;
		}
	}
	b->data_bytes = (size_t)last;
	copy = strdup(found ? found : "");
	json_object_del(b->header, copy);
	return copy;
}

static void test_missing(void)
{
	struct adapter_box b;
	char want[200], *name;

	box_read(&b, "llama-all");
	name = drop_last(&b);
	snprintf(want, sizeof(want), "tensor \"%s\": missing", name);
	check(&b, &ref, want, "one half of a pair");
	free(name);
}

static void set_shape(struct adapter_box *b, const char *tensor, const char *shape)
{
	json_object_set_new(entry(b, tensor), "shape", json_loads(shape, 0, NULL));
}

static void test_shapes(void)
{
	static const struct {
		const char *tensor, *shape, *want;
	} cases[] = {
		{BOX_A, "[64, 8]", BOX_A "\": shape [64, 8] in 2 dimensions, must be [8, 64]"},
		{BOX_A, "[512]", BOX_A "\": shape [512, 0] in 1 dimensions"},
		{BOX_A, "[8, 64, 1]", BOX_A "\": shape [8, 64] in 3 dimensions"},
		{BOX_A, "[16, 32]", BOX_A "\": shape"},
		{BOX_B, "[8, 96]", BOX_B "\": shape [8, 96] in 2 dimensions, must be [96, 8]"},
		{BOX_B, "[96, 9]", BOX_B "\": data_offsets"},
		{BOX_B, "[0, 8]", BOX_B "\": dimension 0 is zero"},
		{BOX_B, "[-96, 8]", BOX_B "\": shape"},
	};
	struct adapter_box b;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		box_read(&b, "llama-all");
		set_shape(&b, cases[i].tensor, cases[i].shape);
		check(&b, &ref, cases[i].want, cases[i].shape);
	}
}

static void test_files(void)
{
	struct adapter_box b;

	box_read(&b, "llama-all");
	json_object_set_new(entry(&b, BOX_A), "dtype", json_string("F64"));
	check(&b, &ref, BOX_A "\": dtype F64", "a type that is not known");
	box_read(&b, "llama-all");
	b.keep = 5;
	check(&b, &ref, "adapter_model.safetensors: truncated", "five bytes");
	box_read(&b, "llama-all");
	b.keep = 4000;
	check(&b, &ref, "adapter_model.safetensors", "cut in its data");
	box_read(&b, "llama-all");
	b.claimed_header = 1u << 30;
	check(&b, &ref, "adapter_model.safetensors: truncated", "a header beyond its end");
	box_read(&b, "llama-all");
	b.data_bytes -= 2;
	check(&b, &ref, "adapter_model.safetensors", "two bytes less");
	box_read(&b, "llama-all");
	b.data_bytes += 2;
	check(&b, &ref, "after the last tensor", "two bytes more");
}

static void test_descriptors(void)
{
	struct adapter_source src = {.name = "the/adapter", .config_fd = -1, .weights_fd = -1};
	struct weft_err err = {0};
	struct adapter *a = NULL;
	int fds[2];

	ok(adapter_open(&ref, 1 << 20, &src, &a, &err) == -EBADF && !a, "no descriptor: %s",
	   err.message);
	if (pipe(fds))
		bail_out("no pipe");
	src.config_fd = fds[0];
	ok(adapter_open(&ref, 1 << 20, &src, &a, &err) == -EINVAL && !a, "a pipe: %s", err.message);
	close(fds[0]);
	close(fds[1]);
	ok(adapter_open_dir(&ref, 1 << 20, "/no/such/folder", NULL, &a, &err) == -ENOENT && !a,
	   "no folder: %s", err.message);
}

/* --- values --------------------------------------------------------------------------------------*/

static void test_value(const struct model *m, const char *fixture, const char *tensor, size_t index,
		       const void *value, size_t bytes, const char *want)
{
	struct adapter_box b;
	char what[200];

	box_read(&b, fixture);
	memcpy(box_data(&b, tensor) + index * bytes, value, bytes);
	snprintf(what, sizeof(what), "%s in %s: %s", m->ops->name, fixture, want ? want : "huge");
	check(&b, m, want, what);
}

#define REGEX_A "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight"
#define RS_B	"base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"

static void test_values(const struct model *m)
{
	static const uint16_t bf16_nan = 0x7fc1, bf16_inf = 0xff80, f16_nan = 0x7e00,
			      f16_inf = 0x7c00;
	static const float nan = NAN, inf = -INFINITY, huge = 3.4e38f;

	test_value(m, "llama-all", BOX_A, 3 * 64 + 5, &bf16_nan, 2,
		   BOX_A "\": NaN at row 3, column 5");
	test_value(m, "llama-all", BOX_B, 95 * 8 + 7, &bf16_inf, 2,
		   BOX_B "\": Inf at row 95, column 7");
	test_value(m, "llama-regex", REGEX_A, 63, &f16_nan, 2,
		   REGEX_A "\": NaN at row 0, column 63");
	test_value(m, "llama-regex", REGEX_A, 64, &f16_inf, 2,
		   REGEX_A "\": Inf at row 1, column 0");
	test_value(m, "llama-rslora", RS_B, 12, &nan, 4, RS_B "\": NaN at row 1, column 0");
	test_value(m, "llama-rslora", RS_B, 5, &huge, 4,
		   m == &ref ? NULL
			     : RS_B "\": too large a value for this machine: B, row 0, column 5");
	test_value(m, "llama-rslora", RS_B, 0, &inf, 4, RS_B "\": Inf at row 0, column 0");
}

static void test_small_blocks(void)
{
	struct adapter_box b;
	struct weft_err err = {0};
	struct adapter *a = NULL;
	struct adapted_fixture f;

	adapted_read("llama-all", ref.config.vocab, &f);
	ok(adapter_open_dir(&ref, 256, f.dir, NULL, &a, &err) == -EINVAL && !a, "small blocks: %s",
	   err.message);
	adapted_free(&f);
	box_read(&b, "llama3-layer");
	json_object_set_new(b.config, "layers_to_transform", json_pack("[i, i]", 0, 1));
	check(&b, &ref, "layers.0.self_attn.q_proj.lora_A.weight\": missing",
	      "a layer that was promised");
	box_read(&b, "qwen3-all");
	check(&b, &ref, "shape [96, 7] in 2 dimensions, must be [64, 7]",
	      "an adapter of a model with other heads");
}

int main(void)
{
	struct adapter_box b;

	box_model_open(&ref, &wk_ref_ops, "llama");
	box_model_open(&cpu, &wk_cpu_ops, "llama");
	box_read(&b, "llama-all");
	check(&b, &ref, NULL, "the unbroken one");
	test_configs();
	test_texts();
	test_slow_patterns();
	test_names();
	test_missing();
	test_shapes();
	test_files();
	test_descriptors();
	test_values(&ref);
	test_values(&cpu);
	test_small_blocks();
	box_model_close(&ref);
	box_model_close(&cpu);
	return tap_done();
}
