/* SPDX-License-Identifier: Apache-2.0 */
/*
 * key.c - see wshm_key.h. What is hashed fits the 128 bytes up to which XXH3 needs no streaming.
 */
#include "shm/wshm_key.h"

#include <assert.h>
#include <string.h>
#include <xxhash.h>

enum { TAG_ROOT = 0x77654601, TAG_BLOCK = 0x77654602 };

struct root_record {
	uint32_t tag, bytes;
	uint64_t model[2], exactness;
};

struct block_record {
	uint32_t tag, bytes;
	uint64_t parent[2], adapter[2];
	uint32_t unadapted, n_tokens;
	uint32_t tokens[WSHM_BLOCK_TOKENS];
};

static_assert(sizeof(struct root_record) == 32, "no padding");
static_assert(sizeof(struct block_record) == 112, "no padding");

static void digest(struct wshm_key *ret, const uint8_t *secret, const void *record, size_t bytes)
{
	XXH128_hash_t h = XXH3_128bits_withSecret(record, bytes, secret, WSHM_SECRET_BYTES);

#if WSHM_KEY_BITS < 128
	h.high64 = 0;
	h.low64 &= (UINT64_C(1) << WSHM_KEY_BITS) - 1;
#endif
	ret->lo = h.low64;
	ret->hi = h.high64;
}

void wshm_key_root(struct wshm_key *ret, const uint8_t secret[WSHM_SECRET_BYTES],
		   const struct wshm_root *root)
{
	const struct root_record r = {
		.tag = TAG_ROOT,
		.bytes = sizeof(r),
		.model = {root->model[0], root->model[1]},
		.exactness = root->exactness,
	};

	digest(ret, secret, &r, sizeof(r));
}

void wshm_key_block(struct wshm_key *ret, const uint8_t secret[WSHM_SECRET_BYTES],
		    const struct wshm_key *parent, const struct wshm_identity *id,
		    const uint32_t *tokens)
{
	struct block_record r = {
		.tag = TAG_BLOCK,
		.bytes = sizeof(r),
		.parent = {parent->lo, parent->hi},
		.adapter = {id->adapter[0], id->adapter[1]},
		.unadapted = id->unadapted,
		.n_tokens = WSHM_BLOCK_TOKENS,
	};

	memcpy(r.tokens, tokens, sizeof(r.tokens));
	digest(ret, secret, &r, sizeof(r));
}

uint32_t wshm_activation(const uint32_t *prompt, uint32_t n_prompt, const uint32_t *invocation,
			 uint32_t n_invocation, int32_t offset)
{
	const uint32_t n = n_invocation;

	if (!n)
		return 0;
	/* Both ends first: nearly every place is passed over for two loads. */
	for (uint32_t left = n <= n_prompt ? n_prompt - n + 1 : 0; left--;) {
		const uint32_t *p = prompt + left;
		int64_t at;

		if (p[0] != invocation[0] || p[n - 1] != invocation[n - 1] ||
		    memcmp(p, invocation, n * sizeof(*p)))
			continue;
		at = (int64_t)left + offset;
		return at < 0 ? 0 : at > n_prompt ? n_prompt : (uint32_t)at;
	}
	return WSHM_NO_ACTIVATION;
}
