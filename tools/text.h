/* SPDX-License-Identifier: Apache-2.0 */
/*
 * text.h - text in and out of a served model, for `weft run` and `weft chat`.
 *
 * A struct text_model is the tokenizer and the chat template of a session's model; a struct text_out
 * is one answer becoming text: decoded as its tokens come, cut at a stop string, printed so far as no
 * stop string can begin there. Functions that fail have said why with cli_fail(). One thread.
 */
#ifndef WEFT_TOOLS_TEXT_H
#define WEFT_TOOLS_TEXT_H

#include "libclient/text/weft_text.h"

#include <stdbool.h>
#include <stdio.h>

/* --- in ------------------------------------------------------------------------------------------*/

struct text {
	char *p; /* owner; zero-terminated */
	size_t n;
};

int text_append(struct text *t, const char *p, size_t n);
/* argv[1..n] joined by blanks; or `file`; or standard input without either, or for the only word "-".
 * 0, or 1. */
int text_read(struct text *t, int n, char **argv, const char *file);
/* Without a file: is that standard input? */
bool text_is_piped(int n, char **argv);
/* The end of its last line goes (\n, \r\n), which echo and editors write and nobody means. */
void text_drop_newline(struct text *t);

/* --- the model -----------------------------------------------------------------------------------*/

struct text_model {
	struct weft_tokenizer *tokenizer; /* owner */
	struct weft_template *template;	  /* owner; NULL: the model has none */
	uint32_t eos;			  /* the tokenizer's; WEFT_NO_TOKEN: none */
};

/* 0, or 1 when there is no tokenizer, or a template that cannot be used. */
int text_model_open(struct text_model *m, struct weft *w);
void text_model_close(struct text_model *m);

/* The tokenizer alone: of `folder`, or if that is NULL of w's model. 0, or 1 after cli_fail(). */
int text_tokenizer_open(struct weft_tokenizer **ret, const char *folder, struct weft *w);

/* What the daemon says of an adapter; false: it has none of that name. */
bool text_adapter(struct weft *w, const char *name, struct weft_adapter *ret);
/* cli_fail(): there is none of that name, but these there are. Returns 1. */
int text_no_adapter(struct weft *w, const char *name);

/*
 * The ids of a conversation (flags: WEFT_CHAT_...) that end where the model, or adapter `a` (NULL:
 * none), is to answer. What an activated adapter waits for stands in them: its invocation, which takes
 * the place of the template's own words before an answer unless these hold it. 0, or 1.
 */
int text_prompt(const struct text_model *m, const struct weft_message *messages, size_t n,
		uint32_t flags, const struct weft_adapter *a, uint32_t **ret_ids, size_t *ret_n);

/* --- out -----------------------------------------------------------------------------------------*/

struct text_out {
	struct weft_stream *stream; /* owner */
	FILE *to;		    /* borrowed; NULL: nothing is printed */
	const char *const *stops;   /* borrowed */
	uint32_t n_stops;
	struct text text; /* all of it, up to a stop string */
	size_t printed;
	bool stopped; /* by a stop string */
};

int text_out_begin(struct text_out *o, const struct text_model *m, FILE *to,
		   const char *const *stops, uint32_t n_stops);
/* 0; 1: a stop string has come, nothing more is taken; -1 after cli_fail(). */
int text_out_push(struct text_out *o, const uint32_t *ids, uint32_t n);
/* What was held back. */
int text_out_end(struct text_out *o);
void text_out_fini(struct text_out *o);

#endif
