/* SPDX-License-Identifier: Apache-2.0 */
/* fixture.h - the oracle's fixtures and a model run by hand, for the tests of models. */
#ifndef WEFT_TESTS_MODEL_FIXTURE_H
#define WEFT_TESTS_MODEL_FIXTURE_H

#include "daemon/common/err.h"
#include "daemon/engine/model/model_private.h"

#define FIXTURE_PROMPTS 2
#define FIXTURE_GREEDY	64
#define FIXTURE_MAX_LEN 320 /* beyond WK_ATTN_CUT, for models made on the spot */
#define FIXTURE_SPARE	128 /* blocks of the pool behind those of the sequence, for adapters */

/* One prompt followed by its greedy tokens, and the oracle's logits of some of its rows. */
struct fixture_prompt {
	uint32_t tokens[FIXTURE_MAX_LEN];
	uint32_t n_prompt, n_tokens;
	uint32_t rows[FIXTURE_MAX_LEN];
	uint32_t n_rows;
	float *logits; /* owner: [n_rows][vocab] */
};

struct fixture {
	char dir[4096];
	struct model_config config;
	struct fixture_prompt prompts[FIXTURE_PROMPTS];
};

extern const char *const fixture_names[];
extern const uint32_t n_fixtures;

/* Read tests/data/models/name; a fixture that cannot be read ends the test. */
void fixture_read(const char *name, struct fixture *ret);
void fixture_free(struct fixture *f);

/* A model on a backend of its own, with one sequence in blocks that are not in order. */
struct runner {
	const struct wk_ops *ops;
	struct wk_backend *be;
	struct model *m;
	struct wk_buf *pool;
	uint32_t table[FIXTURE_MAX_LEN / WK_BLOCK_TOKENS + 1];
	uint32_t first_spare; /* block */
	uint32_t vocab;
};

/* The fast backend under test and its paths, the last one NULL: cpu; or, with WEFT_TEST_BACKEND in the
 * environment, that module alone, with its own products or as WEFT_TEST_PATH says. Then the parts of
 * a test that are about ref are left out. */
const struct wk_ops *fixture_fast(const char *const **ret_paths);
bool fixture_only_fast(void);

/* path NULL: the backend's best; of a module, the first path of fixture_fast(). Returns 0, or -errno with a line in err. */
int runner_open(struct runner *r, const struct wk_ops *ops, const char *path, uint32_t threads,
		const char *dir, const struct model_config *config, struct weft_err *err);
void runner_close(struct runner *r);

/* Run tokens[from..to) of a sequence and add the logits of all its rows to out [][vocab]. */
int runner_pass(struct runner *r, const uint32_t *tokens, uint32_t from, uint32_t to, float *out);

/* max |a - b| / max |b| of one row. */
double row_error(const float *a, const float *b, uint32_t n);

/* Teacher-forced over both prompts in one pass each: the largest error of a kept row. */
double fixture_error(struct runner *r, const struct fixture *f);

#endif
