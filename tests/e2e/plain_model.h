/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plain_model.h - what a request's answer must be, from a model without any cache.
 *
 * One sequence at a time, whole prompt in one pass into blocks that were just zeroed, token after
 * token; adapters by one segment from the activation index on. The model, the backend and its
 * sampler are the engine's; nothing else is: no scheduler, no batch, no index, no admission.
 * Answers are kept by the exact request, so that asking twice costs nothing.
 */
#ifndef WEFT_TESTS_PLAIN_MODEL_H
#define WEFT_TESTS_PLAIN_MODEL_H

#include "shm/wshm.h"
#include "shm/wshm_idx.h"

#define PLAIN_MAX_ADAPTERS 64

struct plain;
struct eh_req;

struct plain_result {
	uint32_t n, n_prompt;
	uint64_t activation; /* UINT64_MAX: no position is adapted */
	uint64_t instance;   /* of the adapter, 0: no position is adapted */
	uint32_t count[WSHM_MAX_SAMPLES], finish[WSHM_MAX_SAMPLES];
	uint32_t max_tokens, logprob_bytes, prompt_entry; /* bytes of an entry */
	uint32_t *tokens;				  /* owned; [n][max_tokens] */
	uint8_t *logprobs; /* owned; [n][max_tokens][logprob_bytes]; NULL: none */
	uint8_t *prompt;   /* owned; [n_prompt][prompt_entry]; NULL: none */
};

struct plain *plain_new(const char *model_dir); /* ends the program on failure */
void plain_free(struct plain *p);
uint32_t plain_vocab(const struct plain *p);
uint32_t plain_max_positions(const struct plain *p);
uint64_t plain_block_bytes(const struct plain *p);

/* Read an adapter's folder: its number, from 1 on. */
uint32_t plain_adapter(struct plain *p, const char *dir, int32_t offset);
const struct wshm_instance *plain_instance(const struct plain *p, uint32_t adapter);
uint32_t plain_adapter_blocks(const struct plain *p, uint32_t adapter);

/* The first adapted position, by the definition: UINT64_MAX for the base model (adapter 0) and for
 * an activated adapter whose invocation is not there. */
uint64_t plain_activation(const struct plain *p, uint32_t adapter, const uint32_t *prompt,
			  uint32_t n);

/*
 * The answer to a request; the descriptor must name a seed. The result belongs to p. d->prompt,
 * d->adapter and everything that must not matter (priority, no_cache, timeout) are not looked at.
 */
const struct plain_result *plain_run(struct plain *p, const struct wshm_desc *d, uint32_t adapter,
				     const uint32_t *prompt, uint32_t n);

/* Forget the answers kept (all results end here). */
void plain_forget(struct plain *p);

/*
 * Is what stands in the request's slot this result, to the bit? Of the prompt n_client tokens are the
 * client's own: the slot speaks of those only. With `partial` an answer that was cut short
 * (cancelled, unloaded) may stop anywhere. Says the first difference as a TAP remark.
 */
bool plain_same(const struct eh_req *r, const struct plain_result *want, uint32_t n_client,
		bool partial);

/* The same for a request that its client resumed: it had so many tokens of each answer already. */
bool plain_same_from(const struct eh_req *r, const struct plain_result *want, uint32_t n_client,
		     bool partial, const uint32_t *resumed);

#endif
