/* SPDX-License-Identifier: Apache-2.0 */
/*
 * desc.c - decode a request descriptor: a msgpack map from a client that may be hostile.
 *
 * A cursor over a private copy of at most WSHM_MAX_DESC bytes. It allocates nothing, and there is
 * no recursion: each key has its own decoder, and the deepest shape, an array of arrays in the map,
 * is spelled out. So nesting ends at three levels whatever the bytes claim, and every loop runs
 * over a count that was compared with the bytes left and with the destination's capacity first.
 *
 * Only the shortest encoding of a value is accepted, so equal requests have equal bytes. Numbers are
 * integers or float32 as the key says, never one for the other.
 *
 * Errors: every take_*() returns 0, -EBADMSG (form) or -ERANGE (value). Pure, no state.
 */
#include "shm/wshm.h"

#include <errno.h>
#include <math.h>
#include <string.h>

struct cursor {
	const uint8_t *p, *end;
};

static uint32_t left(const struct cursor *c)
{
	return (uint32_t)(c->end - c->p);
}

/* A big-endian number of n bytes. */
static int take_be(struct cursor *c, uint32_t n, uint64_t *ret)
{
	uint64_t v = 0;

	if (left(c) < n)
		return -EBADMSG;
	while (n--)
		v = v << 8 | *c->p++;
	*ret = v;
	return 0;
}

static int take_byte(struct cursor *c, uint8_t *ret)
{
	if (c->p == c->end)
		return -EBADMSG;
	*ret = *c->p++;
	return 0;
}

static int take_u64(struct cursor *c, uint64_t *ret)
{
	uint32_t log2_bytes;
	uint64_t v;
	uint8_t b;

	if (take_byte(c, &b))
		return -EBADMSG;
	if (b <= 0x7f) {
		*ret = b;
		return 0;
	}
	if (b < 0xcc || b > 0xcf) /* uint8, 16, 32, 64 */
		return -EBADMSG;
	log2_bytes = b - 0xcc;
	if (take_be(c, 1u << log2_bytes, &v))
		return -EBADMSG;
	/* Minimal: too large for the next shorter form, which for one byte is the fixint. */
	if (log2_bytes ? !(v >> (4u << log2_bytes)) : v <= 0x7f)
		return -EBADMSG;
	*ret = v;
	return 0;
}

static int take_u32(struct cursor *c, uint32_t *ret)
{
	uint64_t v;
	int rc = take_u64(c, &v);

	if (rc)
		return rc;
	if (v > UINT32_MAX)
		return -ERANGE;
	*ret = (uint32_t)v;
	return 0;
}

static int take_u32_in(struct cursor *c, uint32_t min, uint32_t max, uint32_t *ret)
{
	uint32_t v;
	int rc = take_u32(c, &v);

	if (rc)
		return rc;
	if (v < min || v > max)
		return -ERANGE;
	*ret = v;
	return 0;
}

/* A negative number in the form of 1 << log2_bytes bytes; minimal ones do not fit in half of them. */
static int take_negative(struct cursor *c, uint32_t log2_bytes, int64_t *ret)
{
	static const int64_t limit[4] = {-32, INT8_MIN, INT16_MIN, INT32_MIN};
	uint32_t unused_bits = 64 - (8u << log2_bytes);
	uint64_t v;

	if (take_be(c, 1u << log2_bytes, &v))
		return -EBADMSG;
	*ret = (int64_t)(v << unused_bits) >> unused_bits;
	return *ret >= limit[log2_bytes] ? -EBADMSG : 0;
}

static int take_i32_in(struct cursor *c, int32_t min, int32_t max, int32_t *ret)
{
	uint64_t u;
	int64_t v;
	int rc = 0;
	uint8_t b;

	if (c->p == c->end)
		return -EBADMSG;
	b = *c->p;
	if (b >= 0xe0) { /* -32..-1 in one byte */
		c->p++;
		v = (int8_t)b;
	} else if (b >= 0xd0 && b <= 0xd3) { /* int8, 16, 32, 64 */
		c->p++;
		rc = take_negative(c, b - 0xd0, &v);
	} else {
		rc = take_u64(c, &u);
		v = u > INT32_MAX ? INT32_MAX : (int64_t)u;
	}
	if (rc)
		return rc;
	if (v < min || v > max)
		return -ERANGE;
	*ret = (int32_t)v;
	return 0;
}

static int take_float(struct cursor *c, float *ret)
{
	uint64_t bits;
	uint32_t b32;
	uint8_t b;

	if (take_byte(c, &b) || b != 0xca || take_be(c, 4, &bits))
		return -EBADMSG;
	b32 = (uint32_t)bits;
	memcpy(ret, &b32, sizeof(*ret));
	return isnan(*ret) ? -ERANGE : 0;
}

/* In [min, max]; open_min: in (min, max]. */
static int take_float_in(struct cursor *c, float min, bool open_min, float max, float *ret)
{
	float v;
	int rc = take_float(c, &v);

	if (rc)
		return rc;
	if (v > max || v < min || (open_min && v == min))
		return -ERANGE;
	*ret = v;
	return 0;
}

static int take_bool(struct cursor *c, bool *ret)
{
	uint8_t b;

	if (take_byte(c, &b) || (b != 0xc2 && b != 0xc3))
		return -EBADMSG;
	*ret = b == 0xc3;
	return 0;
}

/*
 * The head of a map (fix 0x80, 16: 0xde) or an array (fix 0x90, 16: 0xdc). `unit` elements of at
 * least one byte follow per count. The 32-bit forms are never minimal within 4 KiB.
 */
static int take_head(struct cursor *c, uint8_t fix, uint8_t wide, uint32_t unit, uint32_t *ret)
{
	uint64_t n;
	uint8_t b;

	if (take_byte(c, &b))
		return -EBADMSG;
	if ((b & 0xf0) == fix)
		n = b & 0x0f;
	else if (b != wide || take_be(c, 2, &n) || n <= 15)
		return -EBADMSG;
	if (n * unit > left(c))
		return -EBADMSG;
	*ret = (uint32_t)n;
	return 0;
}

static int take_array(struct cursor *c, uint32_t max, uint32_t *ret)
{
	uint32_t n;
	int rc = take_head(c, 0x90, 0xdc, 1, &n);

	if (rc)
		return rc;
	if (n > max)
		return -ERANGE;
	*ret = n;
	return 0;
}

static int take_name(struct cursor *c, char ret[WSHM_MAX_NAME])
{
	uint64_t n;
	uint32_t i;
	uint8_t b;

	if (take_byte(c, &b))
		return -EBADMSG;
	if ((b & 0xe0) == 0xa0)
		n = b & 0x1f;
	else if (b == 0xd9 || b == 0xda) { /* str8, str16 */
		if (take_be(c, b == 0xd9 ? 1 : 2, &n) || n <= (b == 0xd9 ? 31 : 255))
			return -EBADMSG;
	} else
		return -EBADMSG;
	if (n > left(c))
		return -EBADMSG;
	if (n >= WSHM_MAX_NAME)
		return -ERANGE;
	for (i = 0; i < n; i++) {
		if (c->p[i] < 0x20 || c->p[i] == 0x7f)
			return -ERANGE;
		ret[i] = (char)c->p[i];
	}
	ret[n] = '\0';
	c->p += n;
	return 0;
}

static int take_tokens(struct cursor *c, uint32_t min, uint32_t max, uint32_t *dst, uint32_t *ret_n)
{
	uint32_t i, n;
	int rc = take_array(c, max, &n);

	if (!rc && n < min)
		rc = -ERANGE;
	for (i = 0; !rc && i < n; i++)
		rc = take_u32(c, &dst[i]);
	if (!rc)
		*ret_n = n;
	return rc;
}

static int take_span(struct cursor *c, uint32_t min_tokens, struct wshm_span *ret)
{
	uint32_t n;
	int rc = take_head(c, 0x90, 0xdc, 1, &n);

	if (!rc && n != 2)
		rc = -EBADMSG;
	if (!rc)
		rc = take_u64(c, &ret->off);
	if (!rc)
		rc = take_u32_in(c, min_tokens, UINT32_MAX, &ret->tokens);
	if (!rc && ret->off % sizeof(uint32_t))
		rc = -ERANGE;
	return rc;
}

static int take_resume(struct cursor *c, struct wshm_desc *d)
{
	uint32_t i, n;
	int rc = take_array(c, WSHM_MAX_SAMPLES, &n);

	for (i = 0; !rc && i < n; i++)
		rc = take_span(c, 0, &d->resume[i]);
	if (!rc)
		d->n_resume = n;
	return rc;
}

static int take_stop_seqs(struct cursor *c, struct wshm_desc *d)
{
	uint32_t i, n;
	int rc = take_array(c, WSHM_MAX_STOP_SEQS, &n);

	for (i = 0; !rc && i < n; i++)
		rc = take_tokens(c, 1, WSHM_MAX_STOP_SEQ, d->stop_seqs[i].tokens,
				 &d->stop_seqs[i].n);
	if (!rc)
		d->n_stop_seqs = n;
	return rc;
}

static int take_bias(struct cursor *c, struct wshm_desc *d)
{
	uint32_t i, n;
	int rc = take_array(c, 2 * WSHM_MAX_BIAS, &n);

	if (!rc && n % 2)
		rc = -EBADMSG;
	for (i = 0; !rc && i < n / 2; i++) {
		rc = take_u32(c, &d->bias[i].token);
		if (!rc)
			rc = take_float(c, &d->bias[i].value);
		if (!rc && d->bias[i].value == INFINITY)
			rc = -ERANGE;
	}
	if (!rc)
		d->n_bias = n / 2;
	return rc;
}

static int take_value(struct cursor *c, struct wshm_desc *d, uint32_t key)
{
	switch (key) {
	case WSHM_KEY_MODEL:
		return take_name(c, d->model);
	case WSHM_KEY_ADAPTER:
		return take_name(c, d->adapter);
	case WSHM_KEY_PROMPT:
		return take_span(c, 1, &d->prompt);
	case WSHM_KEY_RESUME:
		return take_resume(c, d);
	case WSHM_KEY_N:
		return take_u32_in(c, 1, WSHM_MAX_SAMPLES, &d->n);
	case WSHM_KEY_MAX_TOKENS:
		return take_u32_in(c, 1, UINT32_MAX, &d->max_tokens);
	case WSHM_KEY_MIN_TOKENS:
		return take_u32(c, &d->min_tokens);
	case WSHM_KEY_TEMPERATURE:
		return take_float_in(c, 0, false, 100, &d->temperature);
	case WSHM_KEY_TOP_K:
		return take_u32(c, &d->top_k);
	case WSHM_KEY_TOP_P:
		return take_float_in(c, 0, true, 1, &d->top_p);
	case WSHM_KEY_MIN_P:
		return take_float_in(c, 0, false, 1, &d->min_p);
	case WSHM_KEY_REPETITION:
		return take_float_in(c, 0, true, 10, &d->repetition);
	case WSHM_KEY_PRESENCE:
		return take_float_in(c, -10, false, 10, &d->presence);
	case WSHM_KEY_FREQUENCY:
		return take_float_in(c, -10, false, 10, &d->frequency);
	case WSHM_KEY_SEED:
		d->has_seed = true;
		return take_u64(c, &d->seed);
	case WSHM_KEY_STOP_TOKENS:
		return take_tokens(c, 0, WSHM_MAX_STOP_TOKENS, d->stop_tokens, &d->n_stop_tokens);
	case WSHM_KEY_STOP_SEQS:
		return take_stop_seqs(c, d);
	case WSHM_KEY_BIAS:
		return take_bias(c, d);
	case WSHM_KEY_IGNORE_EOS:
		return take_bool(c, &d->ignore_eos);
	case WSHM_KEY_LOGPROBS:
		return take_u32_in(c, 0, WSHM_MAX_LOGPROBS, &d->logprobs);
	case WSHM_KEY_PROMPT_LOGPROBS:
		return take_u32_in(c, 0, WSHM_MAX_LOGPROBS, &d->prompt_logprobs);
	case WSHM_KEY_PRIORITY:
		return take_i32_in(c, -100, 100, &d->priority);
	case WSHM_KEY_TIMEOUT_MS:
		return take_u32(c, &d->timeout_ms);
	case WSHM_KEY_INSTANCE:
		return take_u64(c, &d->instance);
	case WSHM_KEY_NO_CACHE:
		return take_bool(c, &d->no_cache);
	default:
		return -EBADMSG;
	}
}

/* What one key says about another. Returns the key at fault, or 0. */
static uint32_t cross_check(const struct wshm_desc *d)
{
	uint32_t i;

	if (d->min_tokens > d->max_tokens)
		return WSHM_KEY_MIN_TOKENS;
	if (d->n_resume && d->n_resume != d->n)
		return WSHM_KEY_RESUME;
	for (i = 0; i < d->n_resume; i++)
		if (d->resume[i].tokens > d->max_tokens)
			return WSHM_KEY_RESUME;
	return 0;
}

const struct wshm_desc wshm_desc_default = {
	.n = 1,
	.max_tokens = 128,
	.temperature = 1,
	.top_p = 1,
	.repetition = 1,
	.logprobs = WSHM_NO_LOGPROBS,
	.prompt_logprobs = WSHM_NO_LOGPROBS,
};

void wshm_desc_init(struct wshm_desc *d)
{
	const struct wshm_desc *from = &wshm_desc_default;

	/* Most of it is room for lists: not worth reading. */
	memset(d, 0, sizeof(*d));
	d->n = from->n;
	d->max_tokens = from->max_tokens;
	d->temperature = from->temperature;
	d->top_p = from->top_p;
	d->repetition = from->repetition;
	d->logprobs = from->logprobs;
	d->prompt_logprobs = from->prompt_logprobs;
}

static int fail(int rc, uint32_t key, uint32_t *ret_key)
{
	*ret_key = key;
	return rc;
}

int wshm_desc_decode(struct wshm_desc *ret, const uint8_t *data, uint32_t bytes, uint32_t *ret_key)
{
	struct cursor c = {.p = data, .end = data + bytes};
	uint32_t i, n, key, seen = 0;
	int rc;

	static_assert(WSHM_KEY_NO_CACHE < 32, "keys seen fit in a word");
	wshm_desc_init(ret);
	if (bytes > WSHM_MAX_DESC || take_head(&c, 0x80, 0xde, 2, &n))
		return fail(-EBADMSG, 0, ret_key);
	for (i = 0; i < n; i++) {
		rc = take_u32(&c, &key);
		if (rc)
			return fail(-EBADMSG, 0, ret_key);
		if (key > WSHM_KEY_NO_CACHE || seen & 1u << key)
			return fail(-EBADMSG, key, ret_key);
		seen |= 1u << key;
		rc = take_value(&c, ret, key);
		if (rc)
			return fail(rc, key, ret_key);
	}
	if (c.p != c.end)
		return fail(-EBADMSG, 0, ret_key);
	if (!(seen & 1u << WSHM_KEY_PROMPT))
		return fail(-EBADMSG, WSHM_KEY_PROMPT, ret_key);
	key = cross_check(ret);
	return key ? fail(-ERANGE, key, ret_key) : 0;
}
