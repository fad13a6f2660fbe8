/* SPDX-License-Identifier: Apache-2.0 */
/*
 * adapter_make.c - write a valid PEFT folder with random weights for a model.
 *
 * A is drawn with std 1 / sqrt(fan-in), so that a normalised input has products of size 1 with its
 * rows; B such that alpha and rank cancel and what the adapter adds has `strength` times the size
 * of what a linear of `weft model make` gives (0.6). PEFT itself would begin with B = 0, and no
 * answer would change.
 */
#include "tools/adapter_make.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/common/err.h"
#include "daemon/engine/model/adapter_private.h"
#include "daemon/engine/model/safetensors.h"
#include "kernels/convert.h"
#include "tools/random.h"

#define BASE_STD 0.6 /* of a made model's linears, on an input of size 1 */

struct tensor {
	char name[ADAPTER_MAX_NAME];
	uint32_t n, k;
	double std;
};

struct maker {
	const struct adapter_make_options *opt;
	struct model_config model;
	bool targets[ADAPTER_N_LINEARS];
	enum wk_dtype dtype;
	double alpha;
	struct tensor *tensors; /* owner */
	uint32_t n_tensors;
	double quantiles[RANDOM_QUANTILES];
	struct weft_err *err;
};

static const char *const short_names[ADAPTER_N_LINEARS] = {"q",	   "k",	 "v",	"o",
							   "gate", "up", "down"};

/* --- options -------------------------------------------------------------------------------------*/

static int choose_targets(struct maker *mk)
{
	const char *s = mk->opt->targets;

	for (int i = 0; i < ADAPTER_N_LINEARS; i++)
		mk->targets[i] = !strcmp(s, "all");
	while (strcmp(mk->opt->targets, "all") && *s) {
		size_t len = strcspn(s, ",");
		int i = 0;

		while (i < ADAPTER_N_LINEARS &&
		       (strlen(short_names[i]) != len || strncmp(s, short_names[i], len)))
			i++;
		if (i == ADAPTER_N_LINEARS)
			return err_set(mk->err, -EINVAL,
				       "no linear \"%.*s\" (q, k, v, o, gate, up, down, or all)",
				       (int)(len < 40 ? len : 40), s);
		mk->targets[i] = true;
		s += len + (s[len] == ',');
	}
	for (int i = 0; i < ADAPTER_N_LINEARS; i++)
		if (mk->targets[i])
			return 0;
	return err_set(mk->err, -EINVAL, "an adapter needs at least one linear");
}

static int choose(struct maker *mk)
{
	static const char *const dtypes[] = {
		[WK_F32] = "f32", [WK_BF16] = "bf16", [WK_F16] = "f16"};
	const struct adapter_make_options *opt = mk->opt;
	int i = 0;

	while (i < 3 && strcmp(opt->dtype, dtypes[i]))
		i++;
	if (i == 3)
		return err_set(mk->err, -EINVAL, "no dtype \"%.40s\" (bf16, f16, f32)", opt->dtype);
	mk->dtype = (enum wk_dtype)i;
	if (!opt->rank || opt->rank > ADAPTER_MAX_RANK)
		return err_set(mk->err, -EINVAL, "rank %u is not in 1..%d", opt->rank,
			       ADAPTER_MAX_RANK);
	mk->alpha = opt->alpha < 0 ? 2.0 * opt->rank : opt->alpha;
	if (!(mk->alpha > 0 && mk->alpha <= 1e6))
		return err_set(mk->err, -EINVAL, "alpha %g is not in 0..1e6", mk->alpha);
	if (!(opt->strength > 0 && opt->strength <= 1000))
		return err_set(mk->err, -EINVAL, "strength %g is not in 0..1000", opt->strength);
	if (opt->n_invocation > WSHM_MAX_INVOCATION)
		return err_set(mk->err, -EINVAL, "an invocation of %u tokens; at most %u",
			       opt->n_invocation, WSHM_MAX_INVOCATION);
	for (uint32_t t = 0; t < opt->n_invocation; t++)
		if (opt->invocation[t] >= mk->model.vocab)
			return err_set(mk->err, -EINVAL,
				       "invocation: %u is not in the model's vocabulary of %u",
				       opt->invocation[t], mk->model.vocab);
	return choose_targets(mk);
}

/* --- tensors -------------------------------------------------------------------------------------*/

static void add(struct maker *mk, uint32_t layer, const char *linear, char which, uint32_t n,
		uint32_t k, double std)
{
	struct tensor *t = &mk->tensors[mk->n_tensors++];

	snprintf(t->name, sizeof(t->name), "base_model.model.model.layers.%u.%s.lora_%c.weight",
		 layer, linear, which);
	t->n = n;
	t->k = k;
	t->std = std;
}

static int add_all(struct maker *mk)
{
	const double rank = mk->opt->rank, root = sqrt(rank);
	const double scale = mk->opt->rslora ? mk->alpha / root : mk->alpha / rank;
	struct adapter_linear_shape s;

	mk->tensors =
		calloc((size_t)mk->model.n_layers * ADAPTER_N_LINEARS * 2, sizeof(*mk->tensors));
	if (!mk->tensors)
		return err_set(mk->err, -ENOMEM, "%s: out of memory", mk->opt->dir);
	for (uint32_t i = 0; i < mk->model.n_layers; i++)
		for (int w = 0; w < ADAPTER_N_LINEARS; w++) {
			if (!mk->targets[w])
				continue;
			adapter_linear_shape(&mk->model, (enum adapter_linear)w, &s);
			add(mk, i, s.name, 'A', mk->opt->rank, s.k, 1 / sqrt(s.k));
			add(mk, i, s.name, 'B', s.n, mk->opt->rank,
			    mk->opt->strength * BASE_STD / (scale * root));
		}
	return 0;
}

/* Round to nearest, ties to even; what the maker draws is far from overflow. */
static uint16_t to_f16(double d)
{
	const uint16_t sign = d < 0 ? 0x8000 : 0;
	int exp;

	d = frexp(fabs(d), &exp); /* 0.5 <= d < 1, or 0 */
	if (d == 0)
		return sign;
	if (exp < -13) /* subnormal: units of 2^-24 */
		return sign | (uint16_t)nearbyint(ldexp(d, exp + 24));
	if (exp > 16)
		return sign | 0x7bff;
	return sign | (uint16_t)(nearbyint(ldexp(d, 11)) + ldexp(exp + 13, 10));
}

static void make_table(const struct maker *mk, double std, uint8_t *table)
{
	for (int i = 0; i < RANDOM_QUANTILES; i++) {
		double v = mk->quantiles[i] * std;
		float f = (float)v;
		uint16_t half = mk->dtype == WK_BF16 ? wk_f32_to_bf16(f) : to_f16(v);

		if (mk->dtype == WK_F32)
			memcpy(table + 4 * i, &f, 4);
		else
			memcpy(table + 2 * i, &half, 2);
	}
}

static int write_tensor(const struct maker *mk, FILE *file, uint32_t index)
{
	const struct tensor *t = &mk->tensors[index];
	const size_t bytes = st_dtype_bytes(mk->dtype), n = (size_t)t->n * t->k;
	/* Tensors draw from streams of their own: seed and index choose where the counter starts. */
	uint64_t counter = random_draw(random_draw(mk->opt->seed + 1) + index), z = 0;
	uint8_t table[4 * RANDOM_QUANTILES], *data = malloc(n * bytes);
	int r;

	if (!data)
		return -ENOMEM;
	make_table(mk, t->std, table);
	for (size_t i = 0; i < n; i++, z >>= 16) {
		if (i % 4 == 0)
			z = random_draw(counter++);
		memcpy(data + i * bytes, table + (z % RANDOM_QUANTILES) * bytes, bytes);
	}
	errno = EIO;
	r = fwrite(data, bytes, n, file) == n ? 0 : -errno;
	free(data);
	return r;
}

/* The header, padded with blanks to a multiple of eight, its length before it. */
static int write_header(const struct maker *mk, FILE *file)
{
	const size_t bytes = st_dtype_bytes(mk->dtype);
	size_t room = 64 + mk->n_tensors * (ADAPTER_MAX_NAME + 120), len = 8;
	char *text = malloc(room);
	uint64_t at = 0;
	int r;

	if (!text)
		return -ENOMEM;
	len += (size_t)snprintf(text + len, room - len, "{\"__metadata__\":{\"format\":\"pt\"}");
	for (uint32_t i = 0; i < mk->n_tensors; i++) {
		const struct tensor *t = &mk->tensors[i];
		uint64_t end = at + (uint64_t)t->n * t->k * bytes;

		len += (size_t)snprintf(
			text + len, room - len,
			",\"%s\":{\"dtype\":\"%s\",\"shape\":[%u,%u],\"data_offsets\":[%llu,%llu]}",
			t->name, st_dtype_name(mk->dtype), t->n, t->k, (unsigned long long)at,
			(unsigned long long)end);
		at = end;
	}
	text[len++] = '}';
	while (len % 8)
		text[len++] = ' ';
	for (int i = 0; i < 8; i++)
		text[i] = (char)((len - 8) >> (8 * i));
	errno = EIO;
	r = fwrite(text, 1, len, file) == len ? 0 : -errno;
	free(text);
	return r;
}

/* --- configuration -------------------------------------------------------------------------------*/

static json_t *make_config(const struct maker *mk)
{
	const struct adapter_make_options *opt = mk->opt;
	json_t *targets = json_array(),
	       *invocation = opt->n_invocation ? json_array() : json_null();

	for (int i = 0; i < ADAPTER_N_LINEARS; i++)
		if (mk->targets[i])
			json_array_append_new(targets, json_sprintf("%s_proj", short_names[i]));
	for (uint32_t i = 0; i < opt->n_invocation; i++)
		json_array_append_new(invocation, json_integer(opt->invocation[i]));
	return json_pack("{s:s, s:s, s:s, s:i, s:f, s:b, s:f, s:s, s:b, s:b, s:o, s:o}",
			 "peft_type", "LORA", "task_type", "CAUSAL_LM", "base_model_name_or_path",
			 opt->model, "r", (int)opt->rank, "lora_alpha", mk->alpha, "use_rslora",
			 opt->rslora, "lora_dropout", 0.0, "bias", "none", "fan_in_fan_out", false,
			 "inference_mode", true, "target_modules", targets,
			 "alora_invocation_tokens", invocation);
}

/* --- files ---------------------------------------------------------------------------------------*/

static int write_weights(const struct maker *mk, FILE *file)
{
	int r = write_header(mk, file);

	for (uint32_t i = 0; !r && i < mk->n_tensors; i++)
		r = write_tensor(mk, file, i);
	return r;
}

static int write_config(const struct maker *mk, FILE *file)
{
	json_t *config = make_config(mk);
	int r = config ? 0 : -ENOMEM;

	errno = EIO;
	if (!r && (json_dumpf(config, file, JSON_INDENT(2)) || fputc('\n', file) == EOF))
		r = -errno;
	json_decref(config);
	return r;
}

/* Write dir/name through a temporary name. */
static int write_file(const struct maker *mk, const char *name,
		      int (*write_fn)(const struct maker *mk, FILE *file))
{
	char path[PATH_MAX], temp[PATH_MAX];
	FILE *file;
	int r;

	if (snprintf(path, sizeof(path), "%s/%s", mk->opt->dir, name) >= (int)sizeof(path) ||
	    snprintf(temp, sizeof(temp), "%s/.%s.%d", mk->opt->dir, name, (int)getpid()) >=
		    (int)sizeof(temp))
		return err_set(mk->err, -ENAMETOOLONG, "%s: the path is too long", mk->opt->dir);
	file = fopen(temp, "wxe");
	r = file ? write_fn(mk, file) : -errno;
	if (file && fclose(file) && !r)
		r = -errno;
	if (!r && rename(temp, path))
		r = -errno;
	if (!r)
		return 0;
	if (file)
		unlink(temp);
	return err_set(mk->err, r, "%s: cannot write: %s", path, strerror(-r));
}

static int make_dir(const struct maker *mk)
{
	static const char *const taken[] = {ADAPTER_CONFIG_NAME, ADAPTER_WEIGHTS_NAME};
	char path[PATH_MAX];

	if (mkdir(mk->opt->dir, 0777) && errno != EEXIST) {
		int r = -errno;

		return err_set(mk->err, r, "%s: cannot make the folder: %s", mk->opt->dir,
			       strerror(-r));
	}
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%s", mk->opt->dir, taken[i]);
		if (!access(path, F_OK))
			return err_set(mk->err, -EEXIST,
				       "%s is there already: remove it or choose another folder",
				       path);
	}
	return 0;
}

int adapter_make(const struct adapter_make_options *opt, struct weft_err *err)
{
	struct maker *mk = calloc(1, sizeof(*mk));
	int r;

	if (!mk)
		return err_set(err, -ENOMEM, "out of memory");
	mk->opt = opt;
	mk->err = err;
	r = model_config_read(opt->model, &mk->model, err);
	r = r ? r : choose(mk);
	r = r ? r : make_dir(mk);
	r = r ? r : add_all(mk);
	random_quantiles(mk->quantiles);
	r = r ? r : write_file(mk, ADAPTER_WEIGHTS_NAME, write_weights);
	r = r ? r : write_file(mk, ADAPTER_CONFIG_NAME, write_config);
	free(mk->tensors);
	free(mk);
	return r;
}
