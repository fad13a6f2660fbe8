/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chat_talk.h - a conversation as the tokens that the model has seen and made.
 *
 * The next prompt is always the last one, the answer's own tokens, and what the template puts after an
 * answer: a prefix of it, to the token, is what the cache holds. Encoding an answer's text again would
 * not do: several rows of tokens have the same text, and the tokenizer gives the one that it would
 * have chosen, not the one that the model did. Messages are kept as text beside that, because
 * templates look at them.
 */
#ifndef WEFT_TOOLS_CHAT_TALK_H
#define WEFT_TOOLS_CHAT_TALK_H

#include "tools/cli.h"
#include "tools/text.h"

struct chat_message {
	const char *role; /* a constant */
	struct text text; /* owner */
	char adapter[64]; /* that answered; "": the base model, or no answer */
};

struct chat_talk {
	const struct text_model *model; /* borrowed */
	struct chat_message *messages;	/* owner */
	size_t n_messages, room;
	struct cli_tokens tokens; /* owner: the last prompt and its answer */
	uint32_t n_answer;	  /* of which are the answer */
	struct cli_tokens prompt; /* owner: the next one */
};

void chat_talk_init(struct chat_talk *t, const struct text_model *model);
/* Forget everything; system: NULL or "" for none. 0, or 1 after cli_fail(). */
int chat_talk_reset(struct chat_talk *t, const char *system);
/* A user's message: t->prompt is what to ask the model, or adapter a (NULL: none). 0, or 1. */
int chat_talk_ask(struct chat_talk *t, const char *text, const struct weft_adapter *a);
/* What the model made of it; text: its answer's, adopted, up to a stop string or all. 0, or 1. */
int chat_talk_answer(struct chat_talk *t, const uint32_t *ids, uint32_t n, struct text *text,
		     bool stopped, const char *adapter);
/* It made nothing of it: the message is forgotten. */
void chat_talk_unask(struct chat_talk *t);
void chat_talk_fini(struct chat_talk *t);

/* Strings that end an answer where there is no template; 0 with one. */
uint32_t chat_talk_stops(const struct chat_talk *t, const char *const **ret);

#endif
