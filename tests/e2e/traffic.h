/* SPDX-License-Identifier: Apache-2.0 */
/*
 * traffic.h - random requests of the kind that a prefix cache is made for, and adapters to go with
 * them: conversations that grow (prompt, answer, invocation, ...), are cut anywhere and branch.
 */
#ifndef WEFT_TESTS_TRAFFIC_H
#define WEFT_TESTS_TRAFFIC_H

#include "tests/e2e/plain_model.h"

#define TR_MAX_PROMPT	 200
#define TR_MAX_TOKENS	 48
#define TR_NAMES	 7
#define TR_VERSIONS	 3
#define TR_CONVERSATIONS 48

/* A name under which one of several adapters is loaded at a time. */
struct tr_name {
	char name[16];
	enum wshm_missing missing;
	int32_t offset[TR_VERSIONS];
	char dir[TR_VERSIONS][96];
	uint32_t plain[TR_VERSIONS]; /* its number in the plain model */
};

/* A model with the adapters that go with it. */
struct tr_world {
	char model_dir[512];
	struct plain *plain; /* owned */
	struct tr_name names[TR_NAMES];
};

/* Write the adapters below base_dir and read everything. Names 0 and 1 are LoRAs, the others are
 * activated; version 2 of name 6 is version 2 of name 5 under another name. */
void tr_world_init(struct tr_world *w, const char *model, const char *base_dir);
void tr_world_fini(struct tr_world *w);

struct tr_request {
	struct wshm_desc d;
	int name;      /* -1: the base model */
	uint32_t talk; /* the conversation that it belongs to */
	uint32_t prompt[TR_MAX_PROMPT], n;
};

struct tr_source {
	const struct tr_world *world;
	uint64_t x; /* the random numbers' state; not 0 */
	struct {
		uint32_t tokens[TR_MAX_PROMPT + TR_MAX_TOKENS], n;
	} talks[TR_CONVERSATIONS];
	struct tr_request last;
	bool has_last;
};

uint32_t tr_below(struct tr_source *s, uint32_t n); /* 0..n-1 */
bool tr_chance(struct tr_source *s, uint32_t percent);
void tr_source_init(struct tr_source *s, const struct tr_world *w, uint64_t seed);
void tr_next(struct tr_source *s, struct tr_request *ret);
/* The request was answered: the conversation may go on from there. */
void tr_answered(struct tr_source *s, const struct tr_request *r, const uint32_t *answer,
		 uint32_t n);

/*
 * What the request must lead to with version v of its name (ignored for the base model): WSHM_OK and
 * the prompt as it is computed (an invocation may have been appended) and by which adapter of the
 * plain model; or the refusal.
 */
struct tr_meaning {
	enum wshm_status status;
	enum wshm_invocation invocation;
	uint32_t adapter;
	uint32_t prompt[TR_MAX_PROMPT + 8], n;
};
void tr_meaning(const struct tr_world *w, const struct tr_request *r, int version,
		struct tr_meaning *ret);

#endif
