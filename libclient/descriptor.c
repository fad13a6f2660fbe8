/* SPDX-License-Identifier: Apache-2.0 */
/*
 * descriptor.c - a request's options as the msgpack map that the engine reads.
 *
 * Two steps: options -> struct wshm_desc (checked), struct wshm_desc -> bytes (msgpack-c, which
 * always chooses the shortest encoding). The second is used again when a request moves to a new
 * daemon: its old descriptor is decoded, changed and packed anew. Keys that have their default are
 * left out. Nothing here is kept between calls.
 */
#include "libclient/private.h"

#include <errno.h>
#include <math.h>
#include <msgpack.h>
#include <string.h>

/* --- options -> wshm_desc ------------------------------------------------------------------------*/

static int check(int holds, struct weft_error *error, const char *what)
{
	return holds ? 0 : wc_fail(error, -EINVAL, "submit a request: %s", what);
}

static int check_ranges(const struct weft_submit_options *o, struct weft_error *error)
{
	const struct {
		int holds;
		const char *what;
	} rules[] = {
		{o->prompt && o->n_prompt, "the prompt must have at least one token"},
		{o->n >= 1 && o->n <= WSHM_MAX_SAMPLES, "n must be 1 to 16"},
		{o->max_tokens >= 1, "max_tokens must be at least 1"},
		{o->min_tokens <= o->max_tokens, "min_tokens must not exceed max_tokens"},
		{o->temperature >= 0 && o->temperature <= 100, "temperature must be 0 to 100"},
		{o->top_p > 0 && o->top_p <= 1, "top_p must be above 0 and at most 1"},
		{o->min_p >= 0 && o->min_p <= 1, "min_p must be 0 to 1"},
		{o->repetition_penalty > 0 && o->repetition_penalty <= 10,
		 "repetition_penalty must be above 0 and at most 10"},
		{o->presence_penalty >= -10 && o->presence_penalty <= 10,
		 "presence_penalty must be -10 to 10"},
		{o->frequency_penalty >= -10 && o->frequency_penalty <= 10,
		 "frequency_penalty must be -10 to 10"},
		{o->n_stop_tokens <= WSHM_MAX_STOP_TOKENS, "at most 64 stop_tokens"},
		{o->n_stop_sequences <= WSHM_MAX_STOP_SEQS, "at most 16 stop_sequences"},
		{o->n_bias <= WSHM_MAX_BIAS, "at most 256 bias entries"},
		{o->logprobs <= WSHM_MAX_LOGPROBS || o->logprobs == WEFT_NO_LOGPROBS,
		 "logprobs must be 0 to 20"},
		{o->prompt_logprobs <= WSHM_MAX_LOGPROBS || o->prompt_logprobs == WEFT_NO_LOGPROBS,
		 "prompt_logprobs must be 0 to 20"},
		{o->priority >= -100 && o->priority <= 100, "priority must be -100 to 100"},
		{!(o->flags & ~(WEFT_NO_RESUBMIT | WEFT_NO_CACHE)), "a flag is not known"},
		{!o->adapter || strlen(o->adapter) < WSHM_MAX_NAME,
		 "the adapter's name must be shorter than 128 bytes"},
	};

	for (size_t i = 0; i < sizeof(rules) / sizeof(*rules); i++)
		if (check(rules[i].holds, error, rules[i].what) < 0)
			return -EINVAL;
	return 0;
}

static int copy_lists(struct wshm_desc *d, const struct weft_submit_options *o,
		      struct weft_error *error)
{
	d->n_stop_tokens = o->n_stop_tokens;
	for (uint32_t i = 0; i < o->n_stop_tokens; i++)
		d->stop_tokens[i] = o->stop_tokens[i];
	d->n_stop_seqs = o->n_stop_sequences;
	for (uint32_t i = 0; i < o->n_stop_sequences; i++) {
		const struct weft_sequence *q = &o->stop_sequences[i];

		if (check(q->n_tokens >= 1 && q->n_tokens <= WSHM_MAX_STOP_SEQ, error,
			  "a stop sequence has 1 to 32 tokens") < 0)
			return -EINVAL;
		d->stop_seqs[i].n = q->n_tokens;
		memcpy(d->stop_seqs[i].tokens, q->tokens, q->n_tokens * sizeof(uint32_t));
	}
	d->n_bias = o->n_bias;
	for (uint32_t i = 0; i < o->n_bias; i++) {
		float v = o->bias[i].value;

		if (check(isfinite(v) || (isinf(v) && v < 0), error,
			  "a bias must be a number or -infinity") < 0)
			return -EINVAL;
		d->bias[i].token = o->bias[i].token;
		d->bias[i].value = v;
	}
	return 0;
}

/* Everything but the prompt's place in the arena. */
int wc_desc_from_options(struct wshm_desc *d, const struct weft_submit_options *o,
			 struct weft_error *error)
{
	if (check_ranges(o, error) < 0)
		return -EINVAL;
	wshm_desc_init(d);
	if (o->adapter)
		strcpy(d->adapter, o->adapter);
	d->prompt.tokens = o->n_prompt;
	d->n = o->n;
	d->max_tokens = o->max_tokens;
	d->min_tokens = o->min_tokens;
	d->temperature = o->temperature;
	d->top_k = o->top_k;
	d->top_p = o->top_p;
	d->min_p = o->min_p;
	d->repetition = o->repetition_penalty;
	d->presence = o->presence_penalty;
	d->frequency = o->frequency_penalty;
	d->has_seed = o->has_seed != 0;
	d->seed = d->has_seed ? o->seed : 0;
	d->ignore_eos = o->ignore_eos != 0;
	d->logprobs = o->logprobs;
	d->prompt_logprobs = o->prompt_logprobs;
	d->priority = o->priority;
	d->timeout_ms = o->timeout_ms;
	d->no_cache = (o->flags & WEFT_NO_CACHE) != 0;
	return copy_lists(d, o, error);
}

/* --- wshm_desc -> bytes --------------------------------------------------------------------------*/

struct out {
	uint8_t *buf;
	uint32_t bytes, room;
	uint32_t n_keys;
	bool overflow;
	msgpack_packer pk;
};

static int out_write(void *data, const char *buf, size_t bytes)
{
	struct out *o = data;

	if (bytes > o->room - o->bytes) {
		o->overflow = true;
		return -1;
	}
	memcpy(o->buf + o->bytes, buf, bytes);
	o->bytes += bytes;
	return 0;
}

static void put_key(struct out *o, enum wshm_desc_key key)
{
	o->n_keys++;
	msgpack_pack_uint32(&o->pk, key);
}

static void put_uint(struct out *o, enum wshm_desc_key key, uint64_t value, uint64_t unless)
{
	if (value == unless)
		return;
	put_key(o, key);
	msgpack_pack_uint64(&o->pk, value);
}

static void put_float(struct out *o, enum wshm_desc_key key, float value, float unless)
{
	if (value == unless)
		return;
	put_key(o, key);
	msgpack_pack_float(&o->pk, value);
}

static void put_str(struct out *o, enum wshm_desc_key key, const char *value)
{
	if (!*value)
		return;
	put_key(o, key);
	msgpack_pack_str(&o->pk, strlen(value));
	msgpack_pack_str_body(&o->pk, value, strlen(value));
}

static void put_span(struct out *o, const struct wshm_span *s)
{
	msgpack_pack_array(&o->pk, 2);
	msgpack_pack_uint64(&o->pk, s->off);
	msgpack_pack_uint32(&o->pk, s->tokens);
}

static void put_tokens(struct out *o, const uint32_t *tokens, uint32_t n)
{
	msgpack_pack_array(&o->pk, n);
	for (uint32_t i = 0; i < n; i++)
		msgpack_pack_uint32(&o->pk, tokens[i]);
}

static void put_lists(struct out *o, const struct wshm_desc *d)
{
	if (d->n_stop_tokens) {
		put_key(o, WSHM_KEY_STOP_TOKENS);
		put_tokens(o, d->stop_tokens, d->n_stop_tokens);
	}
	if (d->n_stop_seqs) {
		put_key(o, WSHM_KEY_STOP_SEQS);
		msgpack_pack_array(&o->pk, d->n_stop_seqs);
		for (uint32_t i = 0; i < d->n_stop_seqs; i++)
			put_tokens(o, d->stop_seqs[i].tokens, d->stop_seqs[i].n);
	}
	if (d->n_bias) {
		put_key(o, WSHM_KEY_BIAS);
		msgpack_pack_array(&o->pk, 2 * (size_t)d->n_bias);
		for (uint32_t i = 0; i < d->n_bias; i++) {
			msgpack_pack_uint32(&o->pk, d->bias[i].token);
			msgpack_pack_float(&o->pk, d->bias[i].value);
		}
	}
}

static void put_sampling(struct out *o, const struct wshm_desc *d, const struct wshm_desc *dflt)
{
	put_uint(o, WSHM_KEY_N, d->n, dflt->n);
	put_uint(o, WSHM_KEY_MAX_TOKENS, d->max_tokens, dflt->max_tokens);
	put_uint(o, WSHM_KEY_MIN_TOKENS, d->min_tokens, dflt->min_tokens);
	put_float(o, WSHM_KEY_TEMPERATURE, d->temperature, dflt->temperature);
	put_uint(o, WSHM_KEY_TOP_K, d->top_k, dflt->top_k);
	put_float(o, WSHM_KEY_TOP_P, d->top_p, dflt->top_p);
	put_float(o, WSHM_KEY_MIN_P, d->min_p, dflt->min_p);
	put_float(o, WSHM_KEY_REPETITION, d->repetition, dflt->repetition);
	put_float(o, WSHM_KEY_PRESENCE, d->presence, dflt->presence);
	put_float(o, WSHM_KEY_FREQUENCY, d->frequency, dflt->frequency);
	if (d->has_seed) {
		put_key(o, WSHM_KEY_SEED);
		msgpack_pack_uint64(&o->pk, d->seed);
	}
}

int wc_desc_pack(const struct wshm_desc *d, uint8_t *buf, uint32_t buf_bytes)
{
	struct out o = {.buf = buf, .room = buf_bytes};

	/* A map of at most 15 keys has a head of one byte; of more, of three. It is written last. */
	o.bytes = 3;
	msgpack_packer_init(&o.pk, &o, out_write);
	put_str(&o, WSHM_KEY_MODEL, d->model);
	put_str(&o, WSHM_KEY_ADAPTER, d->adapter);
	put_key(&o, WSHM_KEY_PROMPT);
	put_span(&o, &d->prompt);
	if (d->n_resume) {
		put_key(&o, WSHM_KEY_RESUME);
		msgpack_pack_array(&o.pk, d->n_resume);
		for (uint32_t i = 0; i < d->n_resume; i++)
			put_span(&o, &d->resume[i]);
	}
	put_sampling(&o, d, &wshm_desc_default);
	put_lists(&o, d);
	if (d->ignore_eos) {
		put_key(&o, WSHM_KEY_IGNORE_EOS);
		msgpack_pack_true(&o.pk);
	}
	put_uint(&o, WSHM_KEY_LOGPROBS, d->logprobs, WSHM_NO_LOGPROBS);
	put_uint(&o, WSHM_KEY_PROMPT_LOGPROBS, d->prompt_logprobs, WSHM_NO_LOGPROBS);
	if (d->priority) {
		put_key(&o, WSHM_KEY_PRIORITY);
		msgpack_pack_int32(&o.pk, d->priority);
	}
	put_uint(&o, WSHM_KEY_TIMEOUT_MS, d->timeout_ms, 0);
	if (d->instance) {
		put_key(&o, WSHM_KEY_INSTANCE);
		msgpack_pack_uint64(&o.pk, d->instance);
	}
	if (d->no_cache) {
		put_key(&o, WSHM_KEY_NO_CACHE);
		msgpack_pack_true(&o.pk);
	}
	if (o.overflow)
		return -E2BIG;
	if (o.n_keys <= 15) {
		memmove(buf + 1, buf + 3, o.bytes - 3);
		buf[0] = 0x80 | o.n_keys;
		return (int)o.bytes - 2;
	}
	buf[0] = 0xde; /* map 16 */
	buf[1] = 0;
	buf[2] = o.n_keys;
	return (int)o.bytes;
}
