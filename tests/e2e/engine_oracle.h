/* SPDX-License-Identifier: Apache-2.0 */
/* engine_oracle.h - what transformers, or peft, answered: prompts, greedy tokens and logits of a
 * fixture. */
#ifndef WEFT_TESTS_ENGINE_ORACLE_H
#define WEFT_TESTS_ENGINE_ORACLE_H

#include <stdint.h>

#define EO_MAX	       256
#define EO_MAX_PROMPTS 8

struct engine_oracle {
	uint32_t n; /* prompts */
	uint32_t n_prompt[EO_MAX_PROMPTS], n_greedy[EO_MAX_PROMPTS], n_rows[EO_MAX_PROMPTS];
	uint32_t prompt[EO_MAX_PROMPTS][EO_MAX], greedy[EO_MAX_PROMPTS][EO_MAX];
	uint32_t rows[EO_MAX_PROMPTS][EO_MAX];
	int64_t activation[EO_MAX_PROMPTS]; /* of an adapter's fixture; -1: none */
	uint32_t vocab;
	float *logits; /* owned; all rows of all prompts, in order, vocab each */
};

/* Ends the program when the fixture cannot be read. */
void engine_oracle_read(struct engine_oracle *ret, const char *dir, uint32_t vocab);
void engine_oracle_free(struct engine_oracle *o);
/* Log-softmax of logits row `row` (of all rows), in double precision, at `token`. */
double engine_oracle_logprob(const struct engine_oracle *o, uint32_t row, uint32_t token);

#endif
