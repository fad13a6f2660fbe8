/* SPDX-License-Identifier: Apache-2.0 */
/*
 * adapter_config.c - adapter_config.json of a PEFT folder, checked.
 *
 * As with a model's config.json, every key is either read, or in a list of keys that cannot change
 * a result, or may be there if it says that something is off, or is refused by name: an adapter
 * that does something else than low-rank products would be served wrong, and nobody would see it.
 *
 * Which modules are meant, and with which rank and alpha, follows PEFT's own rules: lists of names
 * or suffixes, patterns for ranks and alphas of which the first in the file that matches decides.
 */
#include "daemon/engine/model/adapter_private.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "daemon/common/err.h"

#define MAX_LIST     4096 /* names or patterns; PEFT itself writes one per module at most */
#define MAX_ALPHA    1e6
#define MATCH_BUDGET 10000000 /* atoms, a second or two */
#define MAX_MODULE   255

/* Keys that are read below. */
static const char *const read_keys[] = {
	"peft_type",
	"r",
	"lora_alpha",
	"use_rslora",
	"rank_pattern",
	"alpha_pattern",
	"target_modules",
	"exclude_modules",
	"bias",
	"layers_pattern",
	"layers_to_transform",
	"alora_invocation_tokens",
	"invocation_string",
	"loftq_config",
	"init_lora_weights",
};

/* Keys that say where an adapter came from, how it was trained or how Python is to hold it. */
static const char *const ignored_keys[] = {
	"auto_mapping",
	"base_model_name_or_path",
	"ensure_weight_tying",
	"eva_config",
	"inference_mode",
	"lora_dropout",
	"merge_weights",
	"megatron_core",
	"peft_version",
	"qalora_group_size",
	"revision",
	"runtime_config",
	"task_type",
};

/* Keys that must say that what they are about is off: null, false, or empty. */
static const struct {
	const char *key, *why;
} off_keys[] = {
	{"use_dora", "DoRA is not supported"},
	{"enable_lora", "parts of a stacked linear are not supported"},
	{"use_qalora", "QALoRA is not supported"},
	{"use_bdlora", "block-diagonal LoRA is not supported"},
	{"lora_bias", "biases of adapters are not supported"},
	{"fan_in_fan_out", "transposed weights are not supported"},
	{"modules_to_save", "whole modules in an adapter are not supported"},
	{"layer_replication", "layers that are used twice are not supported"},
	{"trainable_token_indices", "tokens in an adapter are not supported"},
	{"target_parameters", "parameters outside linears are not supported"},
	{"target_modules_to_tie", "adapters of embeddings are not supported"},
	{"megatron_config", "Megatron's layers are not supported"},
	{"corda_config", "it changes the base model's weights"},
	{"lora_ga_config", "it changes the base model's weights"},
	{"arrow_config", "routing between adapters is not supported"},
	{"kasa_config", "KaSA is not supported"},
	{"monteclora_config", "MonteCLoRA is not supported"},
	{"velora_config", "VeLoRA is not supported"},
};

#define fail_key(c, err, key, fmt, ...)                                                  \
	err_set(err, -EINVAL, "%s/" ADAPTER_CONFIG_NAME ": %.60s: " fmt, (c)->name, key, \
		##__VA_ARGS__)

/* A key that is absent or null: both mean "not given". */
static json_t *get(const struct adapter_config *c, const char *key)
{
	json_t *v = json_object_get(c->root, key);

	return json_is_null(v) ? NULL : v;
}

/* --- which keys ----------------------------------------------------------------------------------*/

static bool is_in(const char *key, const char *const *list, size_t n)
{
	while (n--)
		if (!strcmp(key, list[n]))
			return true;
	return false;
}

#define IS_IN(key, list) is_in(key, list, sizeof(list) / sizeof(list[0]))

static bool is_off(json_t *v)
{
	return json_is_null(v) || json_is_false(v) || (json_is_array(v) && !json_array_size(v)) ||
	       (json_is_object(v) && !json_object_size(v));
}

static int check_key(const struct adapter_config *c, const char *key, json_t *v,
		     struct weft_err *err)
{
	if (IS_IN(key, read_keys) || IS_IN(key, ignored_keys))
		return 0;
	for (size_t i = 0; i < sizeof(off_keys) / sizeof(off_keys[0]); i++)
		if (!strcmp(key, off_keys[i].key))
			return is_off(v) ? 0 : fail_key(c, err, key, "%s", off_keys[i].why);
	return fail_key(c, err, key,
			"unknown key; refused, since it may change what the adapter does");
}

/* Keys with one value, or few, that leave base model and products as they are. */
static int check_fixed(const struct adapter_config *c, struct weft_err *err)
{
	static const char *const inits[] = {"gaussian", "orthogonal", "eva"};
	const char *type = json_string_value(get(c, "peft_type"));
	const char *bias = json_string_value(get(c, "bias"));
	const char *init = json_string_value(get(c, "init_lora_weights"));

	if (!type || strcmp(type, "LORA"))
		return fail_key(c, err, "peft_type", "must be \"LORA\"");
	if (get(c, "bias") && (!bias || strcmp(bias, "none")))
		return fail_key(c, err, "bias", "only \"none\" is supported");
	if (get(c, "loftq_config") && !is_off(get(c, "loftq_config")))
		return fail_key(c, err, "loftq_config", "it changes the base model's weights");
	if (get(c, "init_lora_weights") && !json_is_boolean(get(c, "init_lora_weights")) &&
	    (!init || !IS_IN(init, inits)))
		return fail_key(c, err, "init_lora_weights",
				"\"%.40s\" is not supported: it changes the base model's weights; "
				"save the adapter converted to plain LoRA",
				init ? init : "?");
	return 0;
}

/* --- numbers -------------------------------------------------------------------------------------*/

static int read_rank(const struct adapter_config *c, const char *key, json_t *v, uint32_t *ret,
		     struct weft_err *err)
{
	json_int_t n = json_integer_value(v);

	if (!json_is_integer(v) || n < 1 || n > ADAPTER_MAX_RANK)
		return fail_key(c, err, key, "a rank must be an integer in 1..%d",
				ADAPTER_MAX_RANK);
	*ret = (uint32_t)n;
	return 0;
}

static int read_alpha(const struct adapter_config *c, const char *key, json_t *v, double *ret,
		      struct weft_err *err)
{
	double d = json_number_value(v);

	if (!json_is_number(v) || !(fabs(d) <= MAX_ALPHA))
		return fail_key(c, err, key, "an alpha must be a number in -%g..%g", MAX_ALPHA,
				MAX_ALPHA);
	*ret = d;
	return 0;
}

static int read_numbers(struct adapter_config *c, struct weft_err *err)
{
	json_t *rslora = get(c, "use_rslora");
	int r;

	if (rslora && !json_is_boolean(rslora))
		return fail_key(c, err, "use_rslora", "must be true or false");
	c->rslora = json_is_true(rslora);
	r = read_rank(c, "r", get(c, "r"), &c->rank, err);
	return r ? r : read_alpha(c, "lora_alpha", get(c, "lora_alpha"), &c->alpha, err);
}

/* --- lists and patterns --------------------------------------------------------------------------*/

static int check_pattern(const struct adapter_config *c, const char *key, const char *pattern,
			 struct weft_err *err)
{
	const char *why = adapter_pattern_check(pattern);

	return why ? fail_key(c, err, key, "pattern \"%.80s\": not supported: %s", pattern, why)
		   : 0;
}

/* A list of names, or one string that is a pattern. */
static int read_names(const struct adapter_config *c, const char *key, json_t **ret,
		      struct weft_err *err)
{
	json_t *v = get(c, key), *name;
	size_t i;

	*ret = v;
	if (!v)
		return 0;
	if (json_is_string(v))
		return check_pattern(c, key, json_string_value(v), err);
	if (!json_is_array(v) || json_array_size(v) > MAX_LIST)
		return fail_key(c, err, key, "must be a string or a list of at most %d", MAX_LIST);
	json_array_foreach(v, i, name)
	{
		if (!json_is_string(name) || json_string_length(name) > MAX_MODULE)
			return fail_key(c, err, key, "entry %zu is not a name of at most %d bytes",
					i, MAX_MODULE);
	}
	return 0;
}

static int read_patterns(const struct adapter_config *c, const char *key, bool ranks, json_t **ret,
			 struct weft_err *err)
{
	json_t *v = get(c, key), *value;
	const char *pattern;
	uint32_t rank;
	double alpha;
	int r = 0;

	*ret = v;
	if (!v)
		return 0;
	if (!json_is_object(v) || json_object_size(v) > MAX_LIST)
		return fail_key(c, err, key, "must be an object of at most %d patterns", MAX_LIST);
	json_object_foreach(v, pattern, value)
	{
		r = check_pattern(c, key, pattern, err);
		if (!r && ranks)
			r = read_rank(c, key, value, &rank, err);
		else if (!r)
			r = read_alpha(c, key, value, &alpha, err);
		if (r)
			break;
	}
	return r;
}

/* Our models have one list of layers, so that only its own name can be meant. */
static int check_layers_pattern(const struct adapter_config *c, struct weft_err *err)
{
	json_t *v = get(c, "layers_pattern");
	const char *s;

	if (json_is_array(v) && json_array_size(v) == 1)
		v = json_array_get(v, 0);
	s = json_string_value(v);
	if (!v || is_off(v) || (s && (!*s || !strcmp(s, "layers"))))
		return 0;
	return fail_key(c, err, "layers_pattern", "only \"layers\" is supported");
}

static int read_layers(struct adapter_config *c, uint32_t n_layers, struct weft_err *err)
{
	static const char key[] = "layers_to_transform";
	json_t *v = get(c, key), *layer;
	size_t i;

	if (!v || (json_is_array(v) && !json_array_size(v)))
		return check_layers_pattern(c, err);
	c->layers = v;
	if (json_is_string(c->targets))
		return fail_key(c, err, key, "needs a target_modules that is a list");
	if (json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) < n_layers)
		return check_layers_pattern(c, err);
	if (!json_is_array(v) || json_array_size(v) > MAX_LIST)
		return fail_key(c, err, key, "must be a layer below %u, or a list of them",
				n_layers);
	json_array_foreach(v, i, layer)
	{
		if (!json_is_integer(layer) || json_integer_value(layer) < 0 ||
		    json_integer_value(layer) >= n_layers)
			return fail_key(c, err, key, "entry %zu is not a layer below %u", i,
					n_layers);
	}
	return check_layers_pattern(c, err);
}

/* --- the whole -----------------------------------------------------------------------------------*/

static int parse(struct adapter_config *c, const struct model_config *model, const char *model_dir,
		 struct weft_err *err)
{
	const char *key;
	json_t *v;
	int r;

	json_object_foreach(c->root, key, v)
	{
		r = check_key(c, key, v, err);
		if (r)
			return r;
	}
	r = check_fixed(c, err);
	r = r ? r : read_numbers(c, err);
	r = r ? r : adapter_config_invocation(c, model_dir, model->vocab, err);
	r = r ? r : read_names(c, "target_modules", &c->targets, err);
	if (!r && !c->targets)
		r = fail_key(c, err, "target_modules", "missing");
	r = r ? r : read_names(c, "exclude_modules", &c->excludes, err);
	r = r ? r : read_patterns(c, "rank_pattern", true, &c->ranks, err);
	r = r ? r : read_patterns(c, "alpha_pattern", false, &c->alphas, err);
	return r ? r : read_layers(c, model->n_layers, err);
}

int adapter_config_parse(const char *name, json_t *root, const struct model_config *model,
			 const char *model_dir, struct adapter_config *ret, struct weft_err *err)
{
	struct adapter_config c = {.name = name, .root = root, .budget = MATCH_BUDGET};
	int r = parse(&c, model, model_dir, err);

	if (r) {
		json_decref(root);
		return r;
	}
	*ret = c;
	return 0;
}

void adapter_config_fini(struct adapter_config *c)
{
	json_decref(c->root);
	memset(c, 0, sizeof(*c));
}

/* --- one module ----------------------------------------------------------------------------------*/

static bool is_name_or_suffix(const char *module, const char *name)
{
	size_t n = strlen(module), len = strlen(name);

	return len <= n && !strcmp(module + n - len, name) &&
	       (len == n || module[n - len - 1] == '.');
}

/* Is the module in a list of names (2: by its whole name), or matched as a whole by a string: 1 or 2,
 * 0, or -E2BIG. */
static int is_named(struct adapter_config *c, json_t *names, const char *module)
{
	json_t *name;
	int r = 0;
	size_t i;

	if (json_is_string(names))
		return adapter_pattern_match(json_string_value(names), module, false, &c->budget);
	json_array_foreach(names, i, name)
	{
		if (!strcmp(module, json_string_value(name)))
			return 2;
		if (is_name_or_suffix(module, json_string_value(name)))
			r = 1;
	}
	return r;
}

static bool is_in_layers(const struct adapter_config *c, uint32_t layer)
{
	json_t *v;
	size_t i;

	if (!c->layers)
		return true;
	if (json_is_integer(c->layers))
		return json_integer_value(c->layers) == layer;
	json_array_foreach(c->layers, i, v)
	{
		if (json_integer_value(v) == layer)
			return true;
	}
	return false;
}

/* "all-linear" is every linear but the head: all that we look at. */
static int is_targeted(struct adapter_config *c, const char *module, uint32_t layer)
{
	const char *s = json_string_value(c->targets);
	int r;

	/* An empty list or string excludes nothing. */
	if (c->excludes && !(json_is_string(c->excludes) && !json_string_length(c->excludes))) {
		r = is_named(c, c->excludes, module);
		if (r)
			return r < 0 ? r : 0;
	}
	if (s && !strcasecmp(s, "all-linear"))
		return 1;
	r = is_named(c, c->targets, module);
	/* As in PEFT, a whole name is meant whatever layers are to be transformed. */
	return r == 1 ? is_in_layers(c, layer) : r;
}

/* The value of the first pattern that matches: 1 with *ret set, 0 or -E2BIG. */
static int find_pattern(struct adapter_config *c, json_t *patterns, const char *module,
			json_t **ret)
{
	const char *pattern;
	json_t *value;

	json_object_foreach(patterns, pattern, value)
	{
		int r = adapter_pattern_match(pattern, module, true, &c->budget);

		if (r > 0)
			*ret = value;
		if (r)
			return r;
	}
	return 0;
}

int adapter_config_module(struct adapter_config *c, uint32_t layer, const char *linear,
			  struct adapter_module *ret, struct weft_err *err)
{
	json_t *rank = NULL, *alpha = NULL;
	char module[ADAPTER_MAX_NAME];
	double a;
	int r;

	snprintf(module, sizeof(module), "model.layers.%u.%s", layer, linear);
	r = is_targeted(c, module, layer);
	ret->targeted = r > 0;
	r = r < 0 ? r : find_pattern(c, c->ranks, module, &rank);
	r = r < 0 ? r : find_pattern(c, c->alphas, module, &alpha);
	if (r < 0)
		return err_set(err, r,
			       "%s/" ADAPTER_CONFIG_NAME ": its patterns take too long to match; "
			       "write names instead",
			       c->name);
	ret->rank = rank ? (uint32_t)json_integer_value(rank) : c->rank;
	a = alpha ? json_number_value(alpha) : c->alpha;
	ret->scale = (float)(c->rslora ? a / sqrt(ret->rank) : a / ret->rank);
	return 0;
}
