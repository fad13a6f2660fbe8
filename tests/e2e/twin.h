/* SPDX-License-Identifier: Apache-2.0 */
/*
 * twin.h - an engine and a plain model side by side, with the same adapters, for directed tests: ask
 * something, have the answer compared bit for bit, look at how much was reused.
 */
#ifndef WEFT_TESTS_TWIN_H
#define WEFT_TESTS_TWIN_H

#include "tests/e2e/adapter_files.h"
#include "tests/e2e/engine_harness.h"
#include "tests/e2e/plain_model.h"

#define TWIN_MAX_ADAPTERS 24
#define TWIN_TENANTS	  3
#define TWIN_MAX_TEXT	  512

struct twin_adapter {
	char name[32], dir[96];
	int32_t offset;
	uint32_t plain;
	bool loaded;
};

struct twin {
	struct eh h;
	struct plain *plain;
	struct eh_session *s[TWIN_TENANTS];
	char base[32], model_dir[512];
	struct twin_adapter adapters[TWIN_MAX_ADAPTERS + 1]; /* from 1; 0: the base model */
	uint32_t n_adapters;
	uint64_t x;	/* of random tokens */
	uint32_t wrong; /* answers */
	uint32_t fresh; /* texts that were begun */
};

/*
 * How much was reused is exact; but where keys are cut short, and so collide nearly always, what was
 * found is at most that.
 */
#if WSHM_KEY_BITS < 64
#define REUSE_IS_EXACT		  0
#define is_reused(got, want, ...) ok((uint32_t)(got) <= (uint32_t)(want), __VA_ARGS__)
#else
#define REUSE_IS_EXACT		  1
#define is_reused(got, want, ...) is_int(got, want, __VA_ARGS__)
#endif

static inline bool reused(uint32_t got, uint32_t want)
{
	return REUSE_IS_EXACT ? got == want : got <= want;
}

/* Tokens that grow. */
struct text {
	uint32_t tokens[TWIN_MAX_TEXT], n;
};

/* args end with NULL. The engine runs and three tenants have sessions, of 64 slots. */
void twin_open(struct twin *t, const char *model_dir, const char *const *args);
void twin_close(struct twin *t);
/* Another engine, with other arguments and the same adapters; nothing is left of the first. */
void twin_again(struct twin *t, const char *const *args);
/* Write, load and read an adapter: its number. */
uint32_t twin_adapter(struct twin *t, const char *name, const struct af_adapter *a, int32_t offset);
/* Unload one (it must work), load another of the twin's under its name. */
void twin_unload(struct twin *t, uint32_t adapter);
void twin_load(struct twin *t, uint32_t adapter);

/* Append n tokens below 150: where invocations are above, none occurs by chance. The first 150 texts of
 * an engine begin with different tokens, so they have nothing in common. */
void text_random(struct twin *t, struct text *x, uint32_t n);
void text_add(struct text *x, const uint32_t *tokens, uint32_t n);

/* Submit greedily, with log-probabilities; then wait, compare with the plain model, append the answer
 * to *grow (NULL allowed), release. Returns cached_tokens; UINT32_MAX when the answer is wrong. */
void twin_ask(struct twin *t, uint32_t tenant, uint32_t adapter, const struct text *prompt,
	      uint32_t max_tokens, struct eh_req *ret);
uint32_t twin_take(struct twin *t, uint32_t adapter, const struct text *prompt, uint32_t max_tokens,
		   const struct eh_req *r, struct text *grow);
/* Both. */
uint32_t twin_run(struct twin *t, uint32_t tenant, uint32_t adapter, const struct text *prompt,
		  uint32_t max_tokens, struct text *grow);
/* A number of the engine's status, by the key that it first appears under; 0 if it does not. */
uint64_t twin_status(struct twin *t, const char *key);

#endif
