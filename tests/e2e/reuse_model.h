/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reuse_model.h - how much of a prompt is reusable, by the definition and nothing else: the longest
 * prefix that some sequence of the same domain has computed with the same token and the same
 * adapter (or none) at every position. No blocks, no keys, no eviction: every sequence is kept and
 * compared position by position. With a pool in which nothing is evicted, cached_tokens must be
 * this; otherwise it must not be more.
 */
#ifndef WEFT_TESTS_REUSE_MODEL_H
#define WEFT_TESTS_REUSE_MODEL_H

#include <stdint.h>

#define REUSE_PUBLIC UINT32_MAX /* as a domain: readable by all */

struct reuse;

/* A sequence: positions from `activation` on are computed with `adapter` (its digest's low half). */
struct reuse_seq {
	uint32_t domain;
	uint64_t adapter, activation;
	const uint32_t *tokens; /* borrowed during the call */
	uint32_t n;		/* positions with KV */
	uint64_t owner;		/* any number but 0 */
};

struct reuse *reuse_new(void);
void reuse_free(struct reuse *r);
void reuse_add(struct reuse *r, const struct reuse_seq *s);
void reuse_forget(struct reuse *r); /* as an engine does when it is killed */
/* Reusable positions of s, at most `limit`; those of s->owner's own sequences do not count. */
uint32_t reuse_longest(const struct reuse *r, const struct reuse_seq *s, uint32_t limit);
/* How many different blocks, whole or begun, follow the first `full` positions of s in its domain:
 * a cache looks for single rows among a bounded number of them. */
uint32_t reuse_branches(const struct reuse *r, const struct reuse_seq *s, uint32_t full);

#endif
