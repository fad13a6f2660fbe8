/* SPDX-License-Identifier: Apache-2.0 */
/* engine_oracle.h - what transformers answered: prompts, greedy tokens and logits of a fixture. */
#ifndef WEFT_TESTS_ENGINE_ORACLE_H
#define WEFT_TESTS_ENGINE_ORACLE_H

#include <stdint.h>

#define EO_MAX 256

struct engine_oracle {
	uint32_t n; /* prompts */
	uint32_t n_prompt[4], n_greedy[4], n_rows[4];
	uint32_t prompt[4][EO_MAX], greedy[4][EO_MAX], rows[4][EO_MAX];
	uint32_t vocab;
	float *logits; /* owned; all rows of all prompts, in order, vocab each */
};

/* Ends the program when the fixture cannot be read. */
void engine_oracle_read(struct engine_oracle *ret, const char *dir, uint32_t vocab);
void engine_oracle_free(struct engine_oracle *o);
/* Log-softmax of logits row `row` (of all rows), in double precision, at `token`. */
double engine_oracle_logprob(const struct engine_oracle *o, uint32_t row, uint32_t token);

#endif
