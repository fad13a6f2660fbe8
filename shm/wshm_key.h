/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wshm_key.h - the name of a KV block: what the engine's cache and a client's probe compute alike.
 *
 *   root  = H(secret; model digest, exactness class)
 *   key i = H(secret; key i-1, identity i, the block's tokens)          H: XXH3-128 with a secret
 *
 * The secret is the domain's own: 192 random bytes that only weftd, the engine and that domain's
 * clients have. Every field is hashed at a fixed place behind a tag that says what is hashed, so
 * no field can imitate another.
 *
 * The identity of a block is the base model's if the block ends at or before the activation index,
 * whoever computed it. Otherwise it names the adapter by the digest of its content (weights,
 * scales, activation offset) and how many rows at the block's head it does not change.
 *
 * A key finds a candidate; the engine then compares tokens, identity and parent in full. A build
 * with WSHM_KEY_BITS=8 makes nearly every key collide and must pass the same tests.
 */
#ifndef WEFT_SHM_KEY_H
#define WEFT_SHM_KEY_H

#include <stdbool.h>
#include <stdint.h>

#define WSHM_BLOCK_TOKENS 16u
#define WSHM_SECRET_BYTES 192u
#ifndef WSHM_KEY_BITS
#define WSHM_KEY_BITS 128
#endif
#define WSHM_NO_ACTIVATION UINT32_MAX /* the base model: no row is adapted */

struct wshm_key {
	uint64_t lo, hi;
};

/* Constant for one engine: which model, and which arithmetic and KV format (kernels' arith_rev,
 * block size, element type): bits computed otherwise never mix. */
struct wshm_root {
	uint64_t model[2];
	uint64_t exactness;
};

struct wshm_identity {
	uint64_t adapter[2]; /* 0, 0: the base model's */
	uint32_t unadapted; /* rows at the head that are the base model's; WSHM_BLOCK_TOKENS: all */
};

/* The identity of block `index` (positions 16 * index on) of a sequence. */
static inline struct wshm_identity wshm_identity_of(const uint64_t adapter[2], uint32_t activation,
						    uint32_t index)
{
	uint64_t first = (uint64_t)index * WSHM_BLOCK_TOKENS;
	struct wshm_identity id = {{0, 0}, WSHM_BLOCK_TOKENS};

	if (activation == WSHM_NO_ACTIVATION || first + WSHM_BLOCK_TOKENS <= activation)
		return id;
	id.adapter[0] = adapter[0];
	id.adapter[1] = adapter[1];
	id.unadapted = activation > first ? (uint32_t)(activation - first) : 0;
	return id;
}

static inline bool wshm_identity_same(const struct wshm_identity *a, const struct wshm_identity *b)
{
	return a->adapter[0] == b->adapter[0] && a->adapter[1] == b->adapter[1] &&
	       a->unadapted == b->unadapted;
}

static inline bool wshm_key_same(const struct wshm_key *a, const struct wshm_key *b)
{
	return a->lo == b->lo && a->hi == b->hi;
}

void wshm_key_root(struct wshm_key *ret, const uint8_t secret[WSHM_SECRET_BYTES],
		   const struct wshm_root *root);
/* tokens: WSHM_BLOCK_TOKENS of them. */
void wshm_key_block(struct wshm_key *ret, const uint8_t secret[WSHM_SECRET_BYTES],
		    const struct wshm_key *parent, const struct wshm_identity *id,
		    const uint32_t *tokens);

/*
 * The first adapted position of a prompt: where the last occurrence of the invocation starts, plus
 * the adapter's offset, clamped to 0..n_prompt; WSHM_NO_ACTIVATION if it does not occur. A plain
 * LoRA has no invocation (n 0): 0.
 */
uint32_t wshm_activation(const uint32_t *prompt, uint32_t n_prompt, const uint32_t *invocation,
			 uint32_t n_invocation, int32_t offset);

#endif
