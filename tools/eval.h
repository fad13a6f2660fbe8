/* SPDX-License-Identifier: Apache-2.0 */
/*
 * eval.h - test sets with one right answer an item, run through the daemon (`weft eval`).
 *
 * An arm is whom a set is put to: the base model, or adapters whose names follow a pattern in which
 * "*" is the task. Every arm answers every item in every pass; a pass is a way of using the cache.
 * An answer is token ids, kept for each pass, so that passes can be compared id for id.
 */
#ifndef WEFT_TOOLS_EVAL_H
#define WEFT_TOOLS_EVAL_H

#include <stddef.h>
#include <stdint.h>

#define EVAL_MAX_ARMS 8
#define EVAL_MAX_NAME 64

struct weft;
struct weft_tokenizer;

/* Off: no cache. Cold: the cache is filled on the way. Warm: all the same once more. */
enum eval_pass { EVAL_OFF, EVAL_COLD, EVAL_WARM, EVAL_PASSES };

struct eval_item {
	char *text;   /* owner: what the adapter's invocation comes after */
	char *plain;  /* owner: what is put behind it for the base model instead */
	char *answer; /* owner: the right one */
};

struct eval_set {
	char *task;	  /* owner */
	char *invocation; /* owner: put behind an item's text for every adapter */
	uint32_t max_tokens;
	struct eval_item *items; /* owner */
	uint32_t n;
};

struct eval_answer {
	uint32_t *ids; /* owner */
	uint32_t n;
};

/* One item put to one arm. */
struct eval_case {
	uint32_t set, item, arm;
	uint32_t *prompt; /* owner */
	uint32_t n_prompt;
	struct eval_answer answers[EVAL_PASSES];
	char *text; /* owner: the first pass's answer as text, without special tokens */
	int right;
};

struct eval_figures {
	double seconds;
	uint64_t prompt_tokens[EVAL_MAX_ARMS], cached_tokens[EVAL_MAX_ARMS];
	uint32_t different; /* answers that are not those of the first pass */
};

struct eval {
	struct eval_set *sets; /* owner */
	uint32_t n_sets;
	const char *arms[EVAL_MAX_ARMS]; /* patterns, borrowed; NULL: the base model */
	uint32_t n_arms;
	uint32_t max_items;	 /* of each set; 0: all */
	uint32_t in_flight;	 /* requests at once */
	struct eval_case *cases; /* owner */
	uint32_t n_cases;
	struct eval_figures passes[EVAL_PASSES];
};

/* Read a set and append it. 0, or 1 after cli_fail(). */
int eval_read_set(struct eval *e, const char *path);
/* The adapter that an arm means for a set: name, or NULL for the base model. */
const char *eval_adapter(const struct eval *e, uint32_t arm, uint32_t set,
			 char name[EVAL_MAX_NAME]);
/* Make the cases and their prompts. 0, or 1 after cli_fail(). */
int eval_prepare(struct eval *e, struct weft_tokenizer *t);
/* Run all cases in one pass; the answers' texts and scores are made after the first. */
int eval_run(struct eval *e, struct weft *w, struct weft_tokenizer *t, enum eval_pass pass);
/* How many answers of a pass are not those of the first, token for token. */
uint32_t eval_count_different(const struct eval *e, enum eval_pass pass);
/*
 * Compare with answers that something else gave: lines of {"adapter", "task", "item", "answer"}.
 * *ret_n: how many were compared, *ret_different: how many are not the same. 0, or 1 after
 * cli_fail().
 */
int eval_compare(const struct eval *e, const char *path, uint32_t *ret_n, uint32_t *ret_different);
/* Share of right answers of an arm on a set, 0 to 100. */
double eval_accuracy(const struct eval *e, uint32_t arm, uint32_t set);
void eval_free(struct eval *e);

#endif
