/* SPDX-License-Identifier: Apache-2.0 */
/*
 * desc_oracle.c - see desc_oracle.h. Written against man/weft-protocol.7, sharing nothing with
 * shm/desc.c but the struct: msgpack-c does all reading and writing of bytes.
 */
#include "tests/shm/desc_oracle.h"
#include "tests/shm/pair.h"

#include <math.h>
#include <string.h>

#define N_KEYS 25

/* --- packing -------------------------------------------------------------------------------------*/

static uint32_t below(uint64_t *rng, uint32_t n)
{
	return pair_random(rng) % n;
}

/* Any magnitude is equally likely, so every length of encoding occurs. */
static uint64_t any_u64(uint64_t *rng)
{
	uint64_t v = (uint64_t)pair_random(rng) << 32 | pair_random(rng);

	return v >> below(rng, 64);
}

static uint32_t any_u32(uint64_t *rng)
{
	return pair_random(rng) >> below(rng, 32);
}

static float unit(uint64_t *rng)
{
	return (float)(pair_random(rng) >> 8) / (float)(1 << 24);
}

static void random_name(uint64_t *rng, char *name)
{
	uint32_t i, n = below(rng, 3) ? below(rng, 40) : below(rng, WSHM_MAX_NAME);

	for (i = 0; i < n; i++)
		do
			name[i] = (char)(0x20 + below(rng, 0xe0));
		while (name[i] == 0x7f);
	name[n] = '\0';
}

static void pack_name(msgpack_packer *pk, const char *name)
{
	msgpack_pack_str(pk, strlen(name));
	msgpack_pack_str_body(pk, name, strlen(name));
}

static void pack_tokens(msgpack_packer *pk, const uint32_t *tokens, uint32_t n)
{
	uint32_t i;

	msgpack_pack_array(pk, n);
	for (i = 0; i < n; i++)
		msgpack_pack_uint32(pk, tokens[i]);
}

static void pack_span(msgpack_packer *pk, const struct wshm_span *s)
{
	msgpack_pack_array(pk, 2);
	msgpack_pack_uint64(pk, s->off);
	msgpack_pack_uint32(pk, s->tokens);
}

static void random_span(uint64_t *rng, struct wshm_span *s, uint32_t min, uint32_t max)
{
	s->off = any_u64(rng) & ~UINT64_C(3);
	s->tokens = min + any_u32(rng) % (max - min + 1 ? max - min + 1 : 1);
}

static void random_bias(uint64_t *rng, msgpack_packer *pk, struct wshm_desc *d)
{
	uint32_t i;

	d->n_bias = below(rng, 4) ? below(rng, 6) : below(rng, WSHM_MAX_BIAS + 1);
	msgpack_pack_array(pk, 2 * d->n_bias);
	for (i = 0; i < d->n_bias; i++) {
		d->bias[i].token = any_u32(rng);
		d->bias[i].value = below(rng, 5) ? unit(rng) * 200 - 100 : -INFINITY;
		msgpack_pack_uint32(pk, d->bias[i].token);
		msgpack_pack_float(pk, d->bias[i].value);
	}
}

static void random_stop_seqs(uint64_t *rng, msgpack_packer *pk, struct wshm_desc *d)
{
	uint32_t i, j;

	d->n_stop_seqs = below(rng, 4) ? below(rng, 4) : below(rng, WSHM_MAX_STOP_SEQS + 1);
	msgpack_pack_array(pk, d->n_stop_seqs);
	for (i = 0; i < d->n_stop_seqs; i++) {
		d->stop_seqs[i].n = 1 + below(rng, below(rng, 4) ? 3 : WSHM_MAX_STOP_SEQ);
		for (j = 0; j < d->stop_seqs[i].n; j++)
			d->stop_seqs[i].tokens[j] = any_u32(rng) & 0xffff;
		pack_tokens(pk, d->stop_seqs[i].tokens, d->stop_seqs[i].n);
	}
}

static float pack_float(msgpack_packer *pk, float v)
{
	msgpack_pack_float(pk, v);
	return v;
}

static uint32_t pack_u32(msgpack_packer *pk, uint32_t v)
{
	msgpack_pack_uint32(pk, v);
	return v;
}

/* Draw and pack one key's value; n and max_tokens have been drawn before. */
static void random_value(uint64_t *rng, msgpack_packer *pk, struct wshm_desc *d, uint32_t key)
{
	uint32_t i;

	switch (key) {
	case 1:
		random_name(rng, d->model);
		pack_name(pk, d->model);
		break;
	case 2:
		random_name(rng, d->adapter);
		pack_name(pk, d->adapter);
		break;
	case 3:
		random_span(rng, &d->prompt, 1, UINT32_MAX);
		pack_span(pk, &d->prompt);
		break;
	case 4:
		d->n_resume = below(rng, 5) ? d->n : 0;
		msgpack_pack_array(pk, d->n_resume);
		for (i = 0; i < d->n_resume; i++) {
			random_span(rng, &d->resume[i], 0, d->max_tokens);
			pack_span(pk, &d->resume[i]);
		}
		break;
	case 5:
		pack_u32(pk, d->n);
		break;
	case 6:
		pack_u32(pk, d->max_tokens);
		break;
	case 7:
		d->min_tokens = pack_u32(pk, any_u32(rng) % d->max_tokens);
		break;
	case 8:
		d->temperature = pack_float(pk, 100 * unit(rng));
		break;
	case 9:
		d->top_k = pack_u32(pk, any_u32(rng));
		break;
	case 10:
		d->top_p = pack_float(pk, 1 - unit(rng));
		break;
	case 11:
		d->min_p = pack_float(pk, unit(rng));
		break;
	case 12:
		d->repetition = pack_float(pk, 10 - 10 * unit(rng));
		break;
	case 13:
		d->presence = pack_float(pk, 20 * unit(rng) - 10);
		break;
	case 14:
		d->frequency = pack_float(pk, 20 * unit(rng) - 10);
		break;
	case 15:
		d->has_seed = true;
		d->seed = any_u64(rng);
		msgpack_pack_uint64(pk, d->seed);
		break;
	case 16:
		d->n_stop_tokens = below(rng, WSHM_MAX_STOP_TOKENS + 1);
		for (i = 0; i < d->n_stop_tokens; i++)
			d->stop_tokens[i] = any_u32(rng);
		pack_tokens(pk, d->stop_tokens, d->n_stop_tokens);
		break;
	case 17:
		random_stop_seqs(rng, pk, d);
		break;
	case 18:
		random_bias(rng, pk, d);
		break;
	case 19:
		d->ignore_eos = below(rng, 2);
		d->ignore_eos ? msgpack_pack_true(pk) : msgpack_pack_false(pk);
		break;
	case 20:
		d->logprobs = pack_u32(pk, below(rng, 21));
		break;
	case 21:
		d->prompt_logprobs = pack_u32(pk, below(rng, 21));
		break;
	case 22:
		d->priority = (int32_t)below(rng, 201) - 100;
		msgpack_pack_int32(pk, d->priority);
		break;
	case 23:
		d->timeout_ms = pack_u32(pk, any_u32(rng));
		break;
	case 24:
		d->instance = any_u64(rng);
		msgpack_pack_uint64(pk, d->instance);
		break;
	case 25:
		d->no_cache = below(rng, 2);
		d->no_cache ? msgpack_pack_true(pk) : msgpack_pack_false(pk);
		break;
	}
}

static void oracle_defaults(struct wshm_desc *d)
{
	memset(d, 0, sizeof(*d));
	d->n = 1;
	d->max_tokens = 128;
	d->temperature = d->top_p = d->repetition = 1;
	d->logprobs = d->prompt_logprobs = UINT32_MAX;
}

uint32_t oracle_random(uint64_t *rng, struct wshm_desc *ret, uint8_t out[WSHM_MAX_DESC])
{
	uint32_t keys[N_KEYS], n, i, j, bytes = 0;
	msgpack_sbuffer sb;
	msgpack_packer pk;

	while (!bytes) {
		oracle_defaults(ret);
		for (n = 0, i = 1; i <= N_KEYS; i++)
			if (i == 3 || below(rng, 2))
				keys[n++] = i;
		for (i = n; i > 1; i--) {
			uint32_t k = keys[j = below(rng, i)];

			keys[j] = keys[i - 1];
			keys[i - 1] = k;
		}
		for (i = 0; i < n; i++) { /* what others depend on */
			if (keys[i] == 5)
				ret->n = 1 + below(rng, WSHM_MAX_SAMPLES);
			if (keys[i] == 6)
				ret->max_tokens = 1 + (any_u32(rng) & INT32_MAX);
		}
		msgpack_sbuffer_init(&sb);
		msgpack_packer_init(&pk, &sb, msgpack_sbuffer_write);
		msgpack_pack_map(&pk, n);
		for (i = 0; i < n; i++) {
			msgpack_pack_uint32(&pk, keys[i]);
			random_value(rng, &pk, ret, keys[i]);
		}
		if (sb.size <= WSHM_MAX_DESC) {
			bytes = (uint32_t)sb.size;
			memcpy(out, sb.data, bytes);
		}
		msgpack_sbuffer_destroy(&sb);
	}
	return bytes;
}

/* --- judging -------------------------------------------------------------------------------------*/

static bool get_u64(const msgpack_object *o, uint64_t *ret)
{
	if (o->type != MSGPACK_OBJECT_POSITIVE_INTEGER)
		return false;
	*ret = o->via.u64;
	return true;
}

static bool get_u32(const msgpack_object *o, uint32_t min, uint32_t max, uint32_t *ret)
{
	uint64_t v;

	if (!get_u64(o, &v) || v < min || v > max)
		return false;
	*ret = (uint32_t)v;
	return true;
}

static bool get_float(const msgpack_object *o, float *ret)
{
	if (o->type != MSGPACK_OBJECT_FLOAT32 || isnan(o->via.f64))
		return false;
	*ret = (float)o->via.f64;
	return true;
}

static bool get_range(const msgpack_object *o, float min, float max, float *ret)
{
	return get_float(o, ret) && *ret >= min && *ret <= max;
}

static bool get_name(const msgpack_object *o, char *name)
{
	uint32_t i;

	if (o->type != MSGPACK_OBJECT_STR || o->via.str.size > 127)
		return false;
	for (i = 0; i < o->via.str.size; i++)
		if ((uint8_t)o->via.str.ptr[i] < 0x20 || o->via.str.ptr[i] == 0x7f)
			return false;
	if (o->via.str.size)
		memcpy(name, o->via.str.ptr, o->via.str.size);
	name[o->via.str.size] = '\0';
	return true;
}

static bool is_array(const msgpack_object *o, uint32_t min, uint32_t max)
{
	return o->type == MSGPACK_OBJECT_ARRAY && o->via.array.size >= min &&
	       o->via.array.size <= max;
}

static bool get_span(const msgpack_object *o, uint32_t min, struct wshm_span *ret)
{
	return is_array(o, 2, 2) && get_u64(&o->via.array.ptr[0], &ret->off) && ret->off % 4 == 0 &&
	       get_u32(&o->via.array.ptr[1], min, UINT32_MAX, &ret->tokens);
}

static bool get_tokens(const msgpack_object *o, uint32_t min, uint32_t max, uint32_t *tokens,
		       uint32_t *ret_n)
{
	uint32_t i;

	if (!is_array(o, min, max))
		return false;
	for (i = 0; i < o->via.array.size; i++)
		if (!get_u32(&o->via.array.ptr[i], 0, UINT32_MAX, &tokens[i]))
			return false;
	*ret_n = o->via.array.size;
	return true;
}

static bool get_bias(const msgpack_object *o, struct wshm_desc *d)
{
	uint32_t i;

	if (!is_array(o, 0, 512) || o->via.array.size % 2)
		return false;
	d->n_bias = o->via.array.size / 2;
	for (i = 0; i < d->n_bias; i++)
		if (!get_u32(&o->via.array.ptr[2 * i], 0, UINT32_MAX, &d->bias[i].token) ||
		    !get_float(&o->via.array.ptr[2 * i + 1], &d->bias[i].value) ||
		    d->bias[i].value == INFINITY)
			return false;
	return true;
}

static bool get_value(uint64_t key, const msgpack_object *o, struct wshm_desc *d)
{
	const msgpack_object *e = o->via.array.ptr;
	uint32_t i;

	switch (key) {
	case 1:
		return get_name(o, d->model);
	case 2:
		return get_name(o, d->adapter);
	case 3:
		return get_span(o, 1, &d->prompt);
	case 4:
		if (!is_array(o, 0, 16))
			return false;
		d->n_resume = o->via.array.size;
		for (i = 0; i < d->n_resume; i++)
			if (!get_span(&e[i], 0, &d->resume[i]))
				return false;
		return true;
	case 5:
		return get_u32(o, 1, 16, &d->n);
	case 6:
		return get_u32(o, 1, UINT32_MAX, &d->max_tokens);
	case 7:
		return get_u32(o, 0, UINT32_MAX, &d->min_tokens);
	case 8:
		return get_range(o, 0, 100, &d->temperature);
	case 9:
		return get_u32(o, 0, UINT32_MAX, &d->top_k);
	case 10:
		return get_range(o, 0, 1, &d->top_p) && d->top_p != 0;
	case 11:
		return get_range(o, 0, 1, &d->min_p);
	case 12:
		return get_range(o, 0, 10, &d->repetition) && d->repetition != 0;
	case 13:
		return get_range(o, -10, 10, &d->presence);
	case 14:
		return get_range(o, -10, 10, &d->frequency);
	case 15:
		d->has_seed = true;
		return get_u64(o, &d->seed);
	case 16:
		return get_tokens(o, 0, 64, d->stop_tokens, &d->n_stop_tokens);
	case 17:
		if (!is_array(o, 0, 16))
			return false;
		d->n_stop_seqs = o->via.array.size;
		for (i = 0; i < d->n_stop_seqs; i++)
			if (!get_tokens(&e[i], 1, 32, d->stop_seqs[i].tokens, &d->stop_seqs[i].n))
				return false;
		return true;
	case 18:
		return get_bias(o, d);
	case 19:
		d->ignore_eos = o->type == MSGPACK_OBJECT_BOOLEAN && o->via.boolean;
		return o->type == MSGPACK_OBJECT_BOOLEAN;
	case 20:
		return get_u32(o, 0, 20, &d->logprobs);
	case 21:
		return get_u32(o, 0, 20, &d->prompt_logprobs);
	case 22:
		d->priority = (int32_t)o->via.i64;
		return (o->type == MSGPACK_OBJECT_POSITIVE_INTEGER && o->via.u64 <= 100) ||
		       (o->type == MSGPACK_OBJECT_NEGATIVE_INTEGER && o->via.i64 >= -100);
	case 23:
		return get_u32(o, 0, UINT32_MAX, &d->timeout_ms);
	case 24:
		return get_u64(o, &d->instance);
	case 25:
		d->no_cache = o->type == MSGPACK_OBJECT_BOOLEAN && o->via.boolean;
		return o->type == MSGPACK_OBJECT_BOOLEAN;
	default:
		return false;
	}
}

static bool judge_map(const msgpack_object *o, struct wshm_desc *d)
{
	uint32_t i, j, seen = 0;

	oracle_defaults(d);
	if (o->type != MSGPACK_OBJECT_MAP)
		return false;
	for (i = 0; i < o->via.map.size; i++) {
		const msgpack_object_kv *kv = &o->via.map.ptr[i];
		uint64_t key;

		if (!get_u64(&kv->key, &key) || key > N_KEYS || seen & 1u << key)
			return false;
		seen |= 1u << key;
		if (!get_value(key, &kv->val, d))
			return false;
	}
	for (j = 0; j < d->n_resume; j++)
		if (d->resume[j].tokens > d->max_tokens)
			return false;
	return seen & 1u << 3 && d->min_tokens <= d->max_tokens &&
	       (!d->n_resume || d->n_resume == d->n);
}

/* Packing the object again gives the same bytes only if each value had its shortest form. */
static bool minimal(const msgpack_object *o, const uint8_t *data, uint32_t bytes)
{
	msgpack_sbuffer sb;
	msgpack_packer pk;
	bool same;

	msgpack_sbuffer_init(&sb);
	msgpack_packer_init(&pk, &sb, msgpack_sbuffer_write);
	same = !msgpack_pack_object(&pk, *o) && sb.size == bytes && !memcmp(sb.data, data, bytes);
	msgpack_sbuffer_destroy(&sb);
	return same;
}

int oracle_judge(const uint8_t *data, uint32_t bytes, bool bounded, struct wshm_desc *ret)
{
	msgpack_unpacked u;
	size_t off = 0;
	int verdict;

	if (bytes > WSHM_MAX_DESC)
		return 0;
	if (!bounded && bytes && (memchr(data, 0xdd, bytes) || memchr(data, 0xdf, bytes)))
		return -1;
	msgpack_unpacked_init(&u);
	verdict = msgpack_unpack_next(&u, (const char *)data, bytes, &off) ==
			  MSGPACK_UNPACK_SUCCESS &&
		  off == bytes && minimal(&u.data, data, bytes) && judge_map(&u.data, ret);
	msgpack_unpacked_destroy(&u);
	return verdict;
}

/* --- comparing -----------------------------------------------------------------------------------*/

static bool same_float(float a, float b)
{
	return !memcmp(&a, &b, sizeof(a));
}

static bool same_lists(const struct wshm_desc *a, const struct wshm_desc *b)
{
	uint32_t i;

	if (a->n_resume != b->n_resume || a->n_stop_tokens != b->n_stop_tokens ||
	    a->n_stop_seqs != b->n_stop_seqs || a->n_bias != b->n_bias)
		return false;
	for (i = 0; i < a->n_resume; i++)
		if (a->resume[i].off != b->resume[i].off ||
		    a->resume[i].tokens != b->resume[i].tokens)
			return false;
	for (i = 0; i < a->n_stop_seqs; i++)
		if (a->stop_seqs[i].n != b->stop_seqs[i].n ||
		    memcmp(a->stop_seqs[i].tokens, b->stop_seqs[i].tokens,
			   a->stop_seqs[i].n * sizeof(uint32_t)))
			return false;
	for (i = 0; i < a->n_bias; i++)
		if (a->bias[i].token != b->bias[i].token ||
		    !same_float(a->bias[i].value, b->bias[i].value))
			return false;
	return !memcmp(a->stop_tokens, b->stop_tokens, a->n_stop_tokens * sizeof(uint32_t));
}

bool oracle_equal(const struct wshm_desc *a, const struct wshm_desc *b)
{
	return !strcmp(a->model, b->model) && !strcmp(a->adapter, b->adapter) &&
	       a->prompt.off == b->prompt.off && a->prompt.tokens == b->prompt.tokens &&
	       a->n == b->n && a->max_tokens == b->max_tokens && a->min_tokens == b->min_tokens &&
	       same_float(a->temperature, b->temperature) && a->top_k == b->top_k &&
	       same_float(a->top_p, b->top_p) && same_float(a->min_p, b->min_p) &&
	       same_float(a->repetition, b->repetition) && same_float(a->presence, b->presence) &&
	       same_float(a->frequency, b->frequency) && a->has_seed == b->has_seed &&
	       a->seed == b->seed && a->ignore_eos == b->ignore_eos && a->logprobs == b->logprobs &&
	       a->prompt_logprobs == b->prompt_logprobs && a->priority == b->priority &&
	       a->timeout_ms == b->timeout_ms && a->instance == b->instance &&
	       a->no_cache == b->no_cache && same_lists(a, b);
}
