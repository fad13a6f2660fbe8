/* SPDX-License-Identifier: Apache-2.0 */
/* adapted.h - the oracle's adapters, and passes with adapters run by hand. */
#ifndef WEFT_TESTS_MODEL_ADAPTED_H
#define WEFT_TESTS_MODEL_ADAPTED_H

#include "daemon/engine/model/adapter_private.h"
#include "tests/model/fixture.h"

#define ADAPTED_PROMPTS 5
#define ADAPTED_GREEDY	32

struct adapted_prompt {
	uint32_t tokens[FIXTURE_MAX_LEN];
	uint32_t n_prompt, n_tokens;
	uint32_t activation; /* as peft found it; WSHM_NO_ACTIVATION: none */
	uint32_t rows[FIXTURE_MAX_LEN];
	uint32_t n_rows;
	float *logits; /* owner: [n_rows][vocab] */
};

/* A folder of tests/data/adapters. */
struct adapted_fixture {
	char dir[4096], model[4096]; /* folders */
	uint32_t n_prompts;
	struct adapted_prompt prompts[ADAPTED_PROMPTS];
};

extern const char *const adapted_names[];
extern const uint32_t n_adapted;

/* A fixture that cannot be read ends the test. */
void adapted_read(const char *name, uint32_t vocab_of_model, struct adapted_fixture *ret);
void adapted_free(struct adapted_fixture *f);

/* Read a folder's adapter and put it in the spare blocks `first` on, in descending order. What
 * fails ends the test. */
struct adapter *adapted_open(struct runner *r, const char *dir, uint32_t first);
void adapted_close(struct runner *r, struct adapter *a);

/* One sequence of a pass: rows from..to of tokens, adapted from `activation` on. */
struct adapted_seq {
	const uint32_t *tokens;
	uint32_t from, to;
	const uint32_t *table;
	const struct adapter *adapter; /* NULL: the base model */
	uint32_t activation;
	float *out; /* logits of its rows: [to - from][vocab] */
};

/* 0 or -errno. */
int adapted_pass(struct runner *r, const struct adapted_seq *seqs, uint32_t n);

#endif
