/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.c - config.json and generation_config.json of a model folder, checked.
 *
 * Every key is either read, or in a list of keys that cannot change a logit, or refused by name:
 * a key that is not understood may be the one that changes what the model computes. Defaults are
 * those of transformers 5, whose spelling (`rope_parameters`) is read beside the older one
 * (`rope_scaling`, `rope_theta`); a default that differs between families and is not obvious is
 * not assumed, the key is asked for.
 */
#include "daemon/engine/model/model.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "daemon/common/err.h"
#include "daemon/engine/model/json_file.h"
#include "daemon/engine/model/model_private.h"

#define CONFIG_NAME	 "config.json"
#define GENERATION_NAME	 "generation_config.json"
#define CONFIG_MAX_BYTES (1u << 20)

/* What the code below may allocate or index: well above the largest published dense model. */
#define MAX_LAYERS    1024
#define MAX_HIDDEN    65536
#define MAX_HEADS     1024
#define MAX_FFN	      (1u << 20)
#define MAX_VOCAB     (1u << 22)
#define MAX_POSITIONS (1u << 27)

enum family { LLAMA = 1, MISTRAL = 2, QWEN2 = 4, QWEN3 = 8, GRANITE = 16 };
#define ALL (LLAMA | MISTRAL | QWEN2 | QWEN3 | GRANITE)

static const struct {
	const char *name;
	enum family family;
} families[] = {
	{"llama", LLAMA}, {"mistral", MISTRAL}, {"qwen2", QWEN2},
	{"qwen3", QWEN3}, {"granite", GRANITE},
};

/* Keys of config.json: which families have them. Those of `ignored` cannot change a logit: they
 * are of training, of storage, of how Python runs the model, or of text. */
static const struct known_key {
	const char *name;
	unsigned families;
	bool ignored;
} known_keys[] = {
	{"model_type", ALL, false},
	{"vocab_size", ALL, false},
	{"hidden_size", ALL, false},
	{"intermediate_size", ALL, false},
	{"num_hidden_layers", ALL, false},
	{"num_attention_heads", ALL, false},
	{"num_key_value_heads", ALL, false},
	{"head_dim", ALL, false},
	{"hidden_act", ALL, false},
	{"max_position_embeddings", ALL, false},
	{"rms_norm_eps", ALL, false},
	{"tie_word_embeddings", ALL, false},
	{"rope_theta", ALL, false},
	{"rope_scaling", ALL, false},
	{"rope_parameters", ALL, false},
	{"attention_bias", ALL, false},
	{"mlp_bias", ALL, false},
	{"sliding_window", ALL, false},
	{"use_sliding_window", QWEN2 | QWEN3, false},
	{"max_window_layers", QWEN2 | QWEN3, false},
	{"layer_types", ALL, false},
	{"embedding_multiplier", GRANITE, false},
	{"residual_multiplier", GRANITE, false},
	{"attention_multiplier", GRANITE, false},
	{"logits_scaling", GRANITE, false},
	{"bos_token_id", ALL, false},
	{"eos_token_id", ALL, false},
	{"pretraining_tp", ALL, false},
	{"quantization_config", ALL, false},
	{"is_encoder_decoder", ALL, false},
	{"partial_rotary_factor", ALL, false},
	{"use_mrope", QWEN2 | QWEN3, false},
	{"rope_interleaved", LLAMA, false},
	{"add_cross_attention", ALL, false},
	{"auto_map", ALL, false},
	{"cross_attention_hidden_size", ALL, false},
	{"prefix", ALL, false},
	{"pruned_heads", ALL, false},
	{"tie_encoder_decoder", ALL, false},
	{"_attn_implementation_autoset", ALL, true},
	{"_commit_hash", ALL, true},
	{"_name_or_path", ALL, true},
	{"architectures", ALL, true},
	{"attention_dropout", ALL, true},
	{"chunk_size_feed_forward", ALL, true},
	{"dtype", ALL, true},
	{"finetuning_task", ALL, true},
	{"gradient_checkpointing", ALL, true},
	{"id2label", ALL, true},
	{"initializer_range", ALL, true},
	{"is_decoder", ALL, true},
	{"is_llama_config", LLAMA, true},
	{"label2id", ALL, true},
	{"max_sequence_length", ALL, true},
	{"num_labels", ALL, true},
	{"output_attentions", ALL, true},
	{"output_hidden_states", ALL, true},
	{"pad_token_id", ALL, true},
	{"problem_type", ALL, true},
	{"return_dict", ALL, true},
	{"sep_token_id", ALL, true},
	{"task_specific_params", ALL, true},
	{"tf_legacy_loss", ALL, true},
	{"tokenizer_class", ALL, true},
	{"torch_dtype", ALL, true},
	{"torchscript", ALL, true},
	{"transformers.js_config", ALL, true},
	{"transformers_version", ALL, true},
	{"unsloth_fixed", ALL, true},
	{"unsloth_version", ALL, true},
	{"use_bfloat16", ALL, true},
	{"use_cache", ALL, true},
	/* How tokens are chosen, which older versions wrote here: a request says that itself. */
	{"bad_words_ids", ALL, true},
	{"begin_suppress_tokens", ALL, true},
	{"decoder_start_token_id", ALL, true},
	{"diversity_penalty", ALL, true},
	{"do_sample", ALL, true},
	{"early_stopping", ALL, true},
	{"encoder_no_repeat_ngram_size", ALL, true},
	{"exponential_decay_length_penalty", ALL, true},
	{"forced_bos_token_id", ALL, true},
	{"forced_eos_token_id", ALL, true},
	{"length_penalty", ALL, true},
	{"max_length", ALL, true},
	{"min_length", ALL, true},
	{"no_repeat_ngram_size", ALL, true},
	{"num_beam_groups", ALL, true},
	{"num_beams", ALL, true},
	{"num_return_sequences", ALL, true},
	{"output_scores", ALL, true},
	{"remove_invalid_values", ALL, true},
	{"repetition_penalty", ALL, true},
	{"return_dict_in_generate", ALL, true},
	{"suppress_tokens", ALL, true},
	{"temperature", ALL, true},
	{"top_k", ALL, true},
	{"top_p", ALL, true},
	{"typical_p", ALL, true},
};

struct reader {
	const char *dir, *file;
	const char *prefix; /* "" or the object inside the file, with a dot: "rope_scaling." */
	json_t *root;
	struct weft_err *err;
};

#define fail_key(rd, key, fmt, ...)                                                              \
	err_set((rd)->err, -EINVAL, "%s/%s: %s%.60s: " fmt, (rd)->dir, (rd)->file, (rd)->prefix, \
		key, ##__VA_ARGS__)

/* A key that is absent or null: both mean "not given" in these files. */
static json_t *get(const struct reader *rd, const char *key)
{
	json_t *v = json_object_get(rd->root, key);

	return json_is_null(v) ? NULL : v;
}

static int get_uint(const struct reader *rd, const char *key, uint32_t min, uint32_t max,
		    uint32_t *ret)
{
	json_t *v = get(rd, key);
	json_int_t n;

	if (!v)
		return fail_key(rd, key, "missing");
	if (!json_is_integer(v))
		return fail_key(rd, key, "must be an integer");
	n = json_integer_value(v);
	if (n < min || n > max)
		return fail_key(rd, key, "%lld is not in %u..%u", (long long)n, min, max);
	*ret = (uint32_t)n;
	return 0;
}

static int get_uint_or(const struct reader *rd, const char *key, uint32_t min, uint32_t max,
		       uint32_t other, uint32_t *ret)
{
	if (get(rd, key))
		return get_uint(rd, key, min, max, ret);
	*ret = other;
	return 0;
}

static int get_real(const struct reader *rd, const char *key, double min, double max, double *ret)
{
	json_t *v = get(rd, key);
	double d;

	if (!v)
		return fail_key(rd, key, "missing");
	if (!json_is_number(v))
		return fail_key(rd, key, "must be a number");
	d = json_number_value(v);
	if (!(d >= min && d <= max))
		return fail_key(rd, key, "%g is not in %g..%g", d, min, max);
	*ret = d;
	return 0;
}

static int get_real_or(const struct reader *rd, const char *key, double min, double max,
		       double other, double *ret)
{
	if (get(rd, key))
		return get_real(rd, key, min, max, ret);
	*ret = other;
	return 0;
}

static int get_bool_or(const struct reader *rd, const char *key, bool other, bool *ret)
{
	json_t *v = get(rd, key);

	if (v && !json_is_boolean(v))
		return fail_key(rd, key, "must be true or false");
	*ret = v ? json_is_true(v) : other;
	return 0;
}

/* --- the family and its keys ---------------------------------------------------------------------*/

static int read_family(const struct reader *rd, struct model_config *c, enum family *ret)
{
	const char *s = json_string_value(get(rd, "model_type"));

	if (!s)
		return fail_key(rd, "model_type", "missing, or not a string");
	for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++)
		if (!strcmp(s, families[i].name)) {
			snprintf(c->model_type, sizeof(c->model_type), "%s", s);
			*ret = families[i].family;
			return 0;
		}
	return fail_key(rd, "model_type",
			"\"%.40s\" is not supported (llama, mistral, qwen2, qwen3, granite)", s);
}

static int check_keys(const struct reader *rd, enum family family)
{
	const size_t n = sizeof(known_keys) / sizeof(known_keys[0]);
	const char *key;
	json_t *v;

	json_object_foreach(rd->root, key, v)
	{
		size_t i = 0;

		while (i < n && strcmp(key, known_keys[i].name))
			i++;
		if (i == n)
			return fail_key(rd, key,
					"unknown key; refused, since it may change what "
					"the model computes");
		/* A null of another family's key says nothing. */
		if (!(known_keys[i].families & family) && !json_is_null(v))
			return fail_key(rd, key, "this model_type has no such key");
	}
	return 0;
}

/* Keys that are known and have one value that is supported. */
static int check_fixed(const struct reader *rd)
{
	const char *act = json_string_value(get(rd, "hidden_act"));
	static const struct {
		const char *key, *why;
	} must_be_false[] = {
		{"is_encoder_decoder", "only decoders are supported"},
		{"add_cross_attention", "only decoders are supported"},
		{"tie_encoder_decoder", "only decoders are supported"},
		{"mlp_bias", "biases in the MLP are not supported"},
		{"use_mrope", "rotation by sections is not supported"},
		{"rope_interleaved", "rotation of neighbouring pairs is not supported"},
	};
	static const struct {
		const char *key, *why;
	} must_be_null[] = {
		{"quantization_config", "quantized models are not supported"},
		/* Often the family's own code, copied; but nothing here can tell. */
		{"auto_map", "the model has code of its own, which may compute something else"},
		{"cross_attention_hidden_size", "only decoders are supported"},
		{"prefix", "text before each prompt is not supported"},
	};
	json_t *pruned;
	uint32_t tp;
	bool on;
	double rotary;
	int r;

	if (get(rd, "hidden_act") && (!act || strcmp(act, "silu")))
		return fail_key(rd, "hidden_act", "only \"silu\" is supported");
	for (size_t i = 0; i < sizeof(must_be_null) / sizeof(must_be_null[0]); i++)
		if (get(rd, must_be_null[i].key))
			return fail_key(rd, must_be_null[i].key, "%s", must_be_null[i].why);
	pruned = get(rd, "pruned_heads");
	if (pruned && (!json_is_object(pruned) || json_object_size(pruned)))
		return fail_key(rd, "pruned_heads",
				"layers without some of their heads are not supported");
	r = get_uint_or(rd, "pretraining_tp", 1, 1, 1, &tp);
	r = r ? r : get_real_or(rd, "partial_rotary_factor", 1, 1, 1, &rotary);
	for (size_t i = 0; !r && i < sizeof(must_be_false) / sizeof(must_be_false[0]); i++) {
		r = get_bool_or(rd, must_be_false[i].key, false, &on);
		if (!r && on)
			r = fail_key(rd, must_be_false[i].key, "%s", must_be_false[i].why);
	}
	return r;
}

/* --- shape ---------------------------------------------------------------------------------------*/

static int read_heads(const struct reader *rd, enum family family, struct model_config *c)
{
	uint32_t heads;
	int r;

	r = get_uint(rd, "num_attention_heads", 1, MAX_HEADS, &c->n_heads);
	if (r)
		return r;
	/* null is one KV head per head. So is nothing at all with Llama and Granite; the others have a
	 * number of theirs. */
	heads = family & (LLAMA | GRANITE) || json_object_get(rd->root, "num_key_value_heads")
			? c->n_heads
			: 0;
	if (!heads && !get(rd, "num_key_value_heads"))
		return fail_key(rd, "num_key_value_heads", "missing");
	r = get_uint_or(rd, "num_key_value_heads", 1, c->n_heads, heads, &c->n_kv_heads);
	if (r)
		return r;
	if (c->n_heads % c->n_kv_heads)
		return fail_key(rd, "num_key_value_heads", "%u does not divide %u heads",
				c->n_kv_heads, c->n_heads);
	if (!get(rd, "head_dim") && family != QWEN3 && c->hidden % c->n_heads)
		return fail_key(rd, "hidden_size", "%u is not a multiple of %u heads", c->hidden,
				c->n_heads);
	/* Qwen3 means 128 when it does not say. */
	c->head_dim = family == QWEN3 ? 128 : c->hidden / c->n_heads;
	if (get(rd, "head_dim"))
		r = get_uint(rd, "head_dim", 8, 256, &c->head_dim);
	if (!r && (c->head_dim < 8 || c->head_dim > 256 || c->head_dim % 2))
		return fail_key(rd, "head_dim", "%u is not an even number in 8..256", c->head_dim);
	return r;
}

static int read_shape(const struct reader *rd, enum family family, struct model_config *c)
{
	bool bias;
	double eps;
	int r;

	r = get_uint(rd, "num_hidden_layers", 1, MAX_LAYERS, &c->n_layers);
	r = r ? r : get_uint(rd, "hidden_size", 8, MAX_HIDDEN, &c->hidden);
	r = r ? r : get_uint(rd, "intermediate_size", 8, MAX_FFN, &c->ffn);
	r = r ? r : get_uint(rd, "vocab_size", 2, MAX_VOCAB, &c->vocab);
	r = r ? r : get_uint(rd, "max_position_embeddings", 1, MAX_POSITIONS, &c->max_positions);
	r = r ? r : get_real_or(rd, "rms_norm_eps", 1e-12, 1, 1e-6, &eps);
	r = r ? r : get_bool_or(rd, "tie_word_embeddings", false, &c->tied_head);
	r = r ? r : get_bool_or(rd, "attention_bias", false, &bias);
	r = r ? r : read_heads(rd, family, c);
	if (r)
		return r;
	if (bias && family & (MISTRAL | QWEN2))
		return fail_key(rd, "attention_bias", "this model_type has no such key");
	c->norm_eps = (float)eps;
	c->qkv_bias = bias || family == QWEN2;
	c->o_bias = bias;
	c->qk_norm = family == QWEN3;
	return 0;
}

static int read_multipliers(const struct reader *rd, enum family family, struct model_config *c)
{
	double embedding, residual, attention, logits;
	int r;

	c->embedding_scale = c->residual_scale = c->logits_scale = 1;
	c->attention_scale = (float)(1 / sqrt(c->head_dim));
	if (family != GRANITE)
		return 0;
	r = get_real_or(rd, "embedding_multiplier", 1e-6, 1e6, 1, &embedding);
	r = r ? r : get_real_or(rd, "residual_multiplier", 1e-6, 1e6, 1, &residual);
	r = r ? r : get_real_or(rd, "attention_multiplier", 1e-6, 1e6, 1, &attention);
	r = r ? r : get_real_or(rd, "logits_scaling", 1e-6, 1e6, 1, &logits);
	if (r)
		return r;
	c->embedding_scale = (float)embedding;
	c->residual_scale = (float)residual;
	c->attention_scale = (float)attention;
	c->logits_scale = (float)(1 / logits);
	return 0;
}

/* --- windows -------------------------------------------------------------------------------------*/

/* layer_types: full layers first, then layers with the window; nothing else can be expressed. */
static int read_layer_types(const struct reader *rd, struct model_config *c)
{
	json_t *v = get(rd, "layer_types");
	uint32_t full = 0;
	bool windowed = false;

	if (!json_is_array(v) || json_array_size(v) != c->n_layers)
		return fail_key(rd, "layer_types", "must be an array of %u strings", c->n_layers);
	for (uint32_t i = 0; i < c->n_layers; i++) {
		const char *s = json_string_value(json_array_get(v, i));

		if (s && !strcmp(s, "sliding_attention")) {
			windowed = true;
		} else if (!s || strcmp(s, "full_attention")) {
			return fail_key(rd, "layer_types", "layer %u: \"%.40s\" is not supported",
					i, s ? s : "");
		} else {
			if (windowed)
				return fail_key(rd, "layer_types",
						"layer %u: a full layer after one with a window is "
						"not supported",
						i);
			full++;
		}
	}
	if (windowed && !c->window)
		return fail_key(rd, "layer_types", "sliding_attention without a sliding_window");
	if (!windowed)
		c->window = 0;
	c->window_from_layer = windowed ? full : 0;
	return 0;
}

static int read_window(const struct reader *rd, enum family family, struct model_config *c)
{
	bool use = family == MISTRAL;
	/* MistralConfig and the Qwen configs mean 4096 when they do not say; null is none. */
	uint32_t other = json_object_get(rd->root, "sliding_window") ? 0 : 4096;
	int r = 0;

	if (family & (LLAMA | GRANITE) && get(rd, "sliding_window"))
		return fail_key(rd, "sliding_window", "this model_type has no such key");
	if (family & (QWEN2 | QWEN3))
		r = get_bool_or(rd, "use_sliding_window", false, &use);
	if (!r)
		r = get_uint_or(rd, "sliding_window", 1, MAX_POSITIONS, other, &c->window);
	if (!r && family & (QWEN2 | QWEN3))
		r = get_uint_or(rd, "max_window_layers", 0, MAX_POSITIONS, 28,
				&c->window_from_layer);
	if (r)
		return r;
	if (!use)
		c->window = 0;
	if (get(rd, "layer_types")) {
		bool all = c->window != 0;

		r = read_layer_types(rd, c);
		/* Mistral's own model does not look at them: its window is that of all layers. */
		if (!r && family == MISTRAL && (all != (c->window != 0) || c->window_from_layer))
			r = fail_key(rd, "layer_types", "contradicts sliding_window");
		return r;
	}
	if (!c->window || c->window_from_layer >= c->n_layers)
		c->window = c->window_from_layer = 0;
	return 0;
}

/* --- rotation ------------------------------------------------------------------------------------*/

static const struct {
	const char *name;
	enum model_rope rope;
	const char *keys; /* allowed beside type, rope_type and rope_theta */
} rope_types[] = {
	{"default", MODEL_ROPE_PLAIN, " "},
	{"linear", MODEL_ROPE_LINEAR, " factor "},
	{"llama3", MODEL_ROPE_LLAMA3,
	 " factor low_freq_factor high_freq_factor original_max_position_embeddings "},
	{"yarn", MODEL_ROPE_YARN,
	 " factor original_max_position_embeddings attention_factor beta_fast beta_slow mscale "
	 "mscale_all_dim truncate "},
};

static int read_rope_type(const struct reader *rd, struct model_config *c, const char **ret_keys)
{
	json_t *a = get(rd, "rope_type"), *b = get(rd, "type");
	const char *s = json_string_value(a ? a : b);

	if (a && b && !json_equal(a, b))
		return fail_key(rd, "type", "contradicts rope_type");
	if (!a && !b)
		s = "default";
	if (!s)
		return fail_key(rd, "rope_type", "must be a string");
	for (size_t i = 0; i < sizeof(rope_types) / sizeof(rope_types[0]); i++)
		if (!strcmp(s, rope_types[i].name)) {
			c->rope = rope_types[i].rope;
			*ret_keys = rope_types[i].keys;
			return 0;
		}
	return fail_key(rd, "rope_type",
			"\"%.40s\" is not supported (default, linear, llama3, yarn)", s);
}

static int check_rope_keys(const struct reader *rd, const char *allowed)
{
	const char *key;
	char word[64];
	json_t *v;

	json_object_foreach(rd->root, key, v)
	{
		if (!strcmp(key, "type") || !strcmp(key, "rope_type") || !strcmp(key, "rope_theta"))
			continue;
		if (json_is_null(v))
			continue;
		if (!strcmp(key, "partial_rotary_factor") && json_number_value(v) == 1)
			continue;
		snprintf(word, sizeof(word), " %.60s ", key);
		if (strchr(key, ' ') || !strstr(allowed, word))
			return fail_key(rd, key, "unknown key for this rope_type");
	}
	return 0;
}

static int read_llama3(const struct reader *rd, struct model_config *c)
{
	int r;

	r = get_real(rd, "low_freq_factor", 1e-3, 1e6, &c->rope_low_freq);
	r = r ? r : get_real(rd, "high_freq_factor", 1e-3, 1e6, &c->rope_high_freq);
	if (!r && c->rope_low_freq >= c->rope_high_freq)
		return fail_key(rd, "high_freq_factor", "must be greater than low_freq_factor");
	return r;
}

/* The paper's factor on the scores, as attention magnitude: 0.1 * m * ln(factor) + 1. */
static double yarn_magnitude(double factor, double m)
{
	return factor <= 1 ? 1 : 0.1 * m * log(factor) + 1;
}

static int read_yarn(const struct reader *rd, struct model_config *c)
{
	double mscale, all;
	int r;

	r = get_real_or(rd, "beta_fast", 1e-3, 1e6, 32, &c->yarn_beta_fast);
	r = r ? r : get_real_or(rd, "beta_slow", 1e-3, 1e6, 1, &c->yarn_beta_slow);
	r = r ? r : get_real_or(rd, "mscale", 0, 1e3, 0, &mscale);
	r = r ? r : get_real_or(rd, "mscale_all_dim", 0, 1e3, 0, &all);
	/* The one key of which transformers takes null for false. */
	r = r ? r
	      : get_bool_or(rd, "truncate", !json_object_get(rd->root, "truncate"),
			    &c->yarn_truncate);
	if (r)
		return r;
	if (c->yarn_beta_fast < c->yarn_beta_slow)
		return fail_key(rd, "beta_fast", "must not be less than beta_slow");
	if (mscale > 0 && all > 0)
		mscale = yarn_magnitude(c->rope_factor, mscale) /
			 yarn_magnitude(c->rope_factor, all);
	else
		mscale = yarn_magnitude(c->rope_factor, 1);
	return get_real_or(rd, "attention_factor", 1e-3, 1e3, mscale, &c->yarn_attention_factor);
}

/* A yarn config names the length before scaling in either key, a linear one in max_position_embeddings;
 * a llama3 one names the length after it there. */
static int scale_positions(const struct reader *rd, struct model_config *c)
{
	double scaled = c->rope_factor;

	if (c->rope == MODEL_ROPE_LLAMA3)
		return 0;
	scaled *= c->rope == MODEL_ROPE_YARN ? c->rope_original : c->max_positions;
	if (scaled > MAX_POSITIONS)
		return fail_key(rd, "factor", "times the original length is too large");
	if (scaled > c->max_positions)
		c->max_positions = (uint32_t)scaled;
	return 0;
}

/* One object of either spelling. */
static int read_rope_object(const struct reader *rd, struct model_config *c)
{
	const char *keys = "";
	int r;

	r = read_rope_type(rd, c, &keys);
	r = r ? r : check_rope_keys(rd, keys);
	if (!r && get(rd, "rope_theta"))
		r = get_real(rd, "rope_theta", 1.5, 1e12, &c->rope_theta);
	if (r || c->rope == MODEL_ROPE_PLAIN)
		return r;
	r = get_real(rd, "factor", 1, 1e6, &c->rope_factor);
	r = r ? r
	      : get_uint_or(rd, "original_max_position_embeddings", 1, MAX_POSITIONS,
			    c->max_positions, &c->rope_original);
	if (!r && c->rope == MODEL_ROPE_LLAMA3)
		r = read_llama3(rd, c);
	if (!r && c->rope == MODEL_ROPE_YARN)
		r = read_yarn(rd, c);
	return r ? r : scale_positions(rd, c);
}

static int read_rope(const struct reader *rd, struct model_config *c)
{
	json_t *old = get(rd, "rope_scaling"), *new = get(rd, "rope_parameters");
	struct reader sub = *rd;
	double theta;
	int r;

	r = get_real_or(rd, "rope_theta", 1.5, 1e12, 10000, &theta);
	if (r)
		return r;
	c->rope = MODEL_ROPE_PLAIN;
	c->rope_theta = theta;
	c->rope_factor = 1;
	if (old && new)
		return fail_key(rd, "rope_scaling",
				"rope_parameters is there as well; one of them "
				"must go");
	if (!old && !new)
		return 0;
	sub.prefix = old ? "rope_scaling." : "rope_parameters.";
	sub.root = old ? old : new;
	if (!json_is_object(sub.root))
		return fail_key(rd, old ? "rope_scaling" : "rope_parameters", "must be an object");
	r = read_rope_object(&sub, c);
	if (!r && get(rd, "rope_theta") && c->rope_theta != theta)
		return fail_key(rd, "rope_theta", "contradicts %srope_theta", sub.prefix);
	return r;
}

/* --- special tokens ------------------------------------------------------------------------------*/

static int add_eos(const struct reader *rd, json_t *v, struct model_config *c)
{
	json_int_t id = json_integer_value(v);

	if (!json_is_integer(v) || id < 0 || id >= c->vocab)
		return fail_key(rd, "eos_token_id", "must be token ids below vocab_size");
	for (uint32_t i = 0; i < c->n_eos; i++)
		if (c->eos[i] == id)
			return 0;
	if (c->n_eos == MODEL_MAX_EOS)
		return fail_key(rd, "eos_token_id", "more than %d tokens", MODEL_MAX_EOS);
	c->eos[c->n_eos++] = (uint32_t)id;
	return 0;
}

static int read_tokens(const struct reader *rd, struct model_config *c)
{
	json_t *eos = get(rd, "eos_token_id"), *v;
	size_t i;
	int r = 0;

	if (json_is_array(eos)) {
		json_array_foreach(eos, i, v)
		{
			r = add_eos(rd, v, c);
			if (r)
				return r;
		}
	} else if (eos) {
		r = add_eos(rd, eos, c);
	}
	if (!r && get(rd, "bos_token_id") && c->bos == WK_NO_TOKEN)
		r = get_uint(rd, "bos_token_id", 0, c->vocab - 1, &c->bos);
	return r;
}

/* Sampling defaults and the like are for whoever makes a request: only the tokens are read. */
static int read_generation(const char *dir, struct model_config *c, struct weft_err *err)
{
	struct reader rd = {.dir = dir, .file = GENERATION_NAME, .prefix = "", .err = err};
	struct weft_err absent;
	int r;

	r = json_object_read(dir, GENERATION_NAME, CONFIG_MAX_BYTES, &rd.root, &absent);
	if (r == -ENOENT)
		return 0;
	if (r) {
		if (err)
			*err = absent;
		return r;
	}
	r = read_tokens(&rd, c);
	json_decref(rd.root);
	return r;
}

/* --- all of it -----------------------------------------------------------------------------------*/

static int read_config(const struct reader *rd, struct model_config *c)
{
	enum family family = LLAMA;
	int r;

	r = read_family(rd, c, &family);
	r = r ? r : check_keys(rd, family);
	r = r ? r : check_fixed(rd);
	r = r ? r : read_shape(rd, family, c);
	r = r ? r : read_multipliers(rd, family, c);
	r = r ? r : read_window(rd, family, c);
	return r ? r : read_rope(rd, c);
}

int model_config_parse(const char *dir, json_t *root, struct model_config *ret,
		       struct weft_err *err)
{
	struct reader rd = {
		.dir = dir, .file = CONFIG_NAME, .prefix = "", .root = root, .err = err};
	struct model_config c = {.bos = WK_NO_TOKEN};
	int r;

	r = read_config(&rd, &c);
	r = r ? r : read_generation(dir, &c, err);
	r = r ? r : read_tokens(&rd, &c);
	if (!r)
		*ret = c;
	return r;
}

int model_config_read(const char *dir, struct model_config *ret, struct weft_err *err)
{
	json_t *root;
	int r;

	r = json_object_read(dir, CONFIG_NAME, CONFIG_MAX_BYTES, &root, err);
	if (r)
		return r;
	r = model_config_parse(dir, root, ret, err);
	json_decref(root);
	if (r)
		err_one_line(err);
	return r;
}
