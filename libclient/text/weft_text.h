/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weft_text.h - text to tokens and back, with the tokenizer of a model's folder; conversations to
 * text, with its chat template.
 *
 * A `struct weft_tokenizer` is read from tokenizer.json (with tokenizer_config.json and
 * special_tokens_map.json, where there are any) and never changes afterwards. It gives the ids that
 * the format's own implementation gives, or weft_tokenizer_open() refuses the file by the name of
 * what it does not know. Byte-level BPE and BPE with byte fallback are known; WordPiece, Unigram and
 * WordLevel are not.
 *
 * What ids a text has tokenizer.json alone says. Some classes of transformers 5 (LlamaTokenizer,
 * Qwen2Tokenizer and others) put normalizers and pre-tokenizers of their own, and add_prefix_space of
 * tokenizer_config.json, in place of the file's, and can then give other ids.
 *
 * What a letter is, that implementation and this library know from tables of Unicode, of their own
 * versions (here PCRE2's and utf8proc's): at characters that are younger than the older table the two
 * can cut differently.
 *
 * Text is UTF-8 with a length; it may hold zeros. What is not valid UTF-8 is read as U+FFFD, one for
 * each maximal ill-formed part (Unicode's recommended practice). At most WEFT_TEXT_MAX_BYTES at once.
 *
 * Threads: every function may be called from any thread at any time, but for close and for a
 * struct weft_stream, which belongs to one thread at a time.
 *
 * Errors: functions return >= 0, or a negative errno; outputs are written on success only.
 */
#ifndef WEFT_TEXT_H
#define WEFT_TEXT_H

#include "weft.h"

#ifdef __cplusplus
extern "C" {
#endif

struct weft_tokenizer;
struct weft_stream;

#define WEFT_TEXT_MAX_BYTES (64u << 20)
#define WEFT_NO_TOKEN	    UINT32_MAX

/* -EOPNOTSUPP: the file asks for something that this library does not know. */
WEFT_API int weft_tokenizer_open(struct weft_tokenizer **ret, const char *dir,
				 struct weft_error *error);
/* The same from the files' bytes, which are not needed afterwards. */
struct weft_tokenizer_files {
	size_t size;	       /* sizeof this struct, set by the caller */
	const char *tokenizer; /* tokenizer.json */
	size_t tokenizer_bytes;
	const char *config; /* tokenizer_config.json; NULL: there is none */
	size_t config_bytes;
	const char *special_map; /* special_tokens_map.json; NULL: there is none */
	size_t special_map_bytes;
};
WEFT_API int weft_tokenizer_new(struct weft_tokenizer **ret,
				const struct weft_tokenizer_files *files, struct weft_error *error);
/*
 * The tokenizer of a session's model, whose folder the program need not be able to read
 * (weft_model_file()). -ENOENT: the model has none. Inline, so that libweft-text itself needs no
 * libweft.
 */
static inline int weft_tokenizer_open_served(struct weft_tokenizer **ret, struct weft *w,
					     struct weft_error *error)
{
	struct weft_tokenizer_files f = {sizeof(f), NULL, 0, NULL, 0, NULL, 0};
	int r = weft_model_file(w, "tokenizer.json", &f.tokenizer, &f.tokenizer_bytes, error);

	if (r)
		return r;
	weft_model_file(w, "tokenizer_config.json", &f.config, &f.config_bytes, NULL);
	weft_model_file(w, "special_tokens_map.json", &f.special_map, &f.special_map_bytes, NULL);
	return weft_tokenizer_new(ret, &f, error);
}
/* Streams of it must be freed before. NULL allowed. */
WEFT_API void weft_tokenizer_close(struct weft_tokenizer *t);

struct weft_tokenizer_info {
	size_t size;	    /* sizeof this struct, set by the caller */
	uint32_t vocab;	    /* ids are below this; some may have no token */
	uint32_t n_special; /* special tokens */
	uint32_t bos;	    /* WEFT_NO_TOKEN: none */
	uint32_t eos;
	uint32_t unknown;
	uint32_t pad;
	uint32_t byte_level; /* 1: byte-level BPE; 0: BPE over characters */
};
WEFT_API int weft_tokenizer_info(const struct weft_tokenizer *t, struct weft_tokenizer_info *ret);

/*
 * Without WEFT_PARSE_SPECIAL the text cannot become a special token, whatever it says: for text of
 * others. Two are excepted, as in the format's own implementation: the token for unknown characters,
 * where a tokenizer has one, and a special token that is at once a single character of the vocabulary.
 * Added tokens that are not special are found in either case.
 */
#define WEFT_ADD_SPECIAL   1u /* what the model expects around a text, such as a first token */
#define WEFT_PARSE_SPECIAL 2u /* "<s>" in the text is the token <s> */

/* The ids are the caller's, to be freed with weft_text_free(). */
WEFT_API int weft_encode(struct weft_tokenizer *t, const char *text, size_t bytes, uint32_t flags,
			 uint32_t **ret_ids, size_t *ret_n, struct weft_error *error);

/*
 * Leave special tokens out of the text; also one that is normalized and whose text the normalizer
 * changes, which the format's own implementation leaves in.
 */
#define WEFT_SKIP_SPECIAL 1u

/*
 * The text is valid UTF-8, with a zero after it that is not counted; freed with weft_text_free().
 * Ids that have no token are left out.
 */
WEFT_API int weft_decode(struct weft_tokenizer *t, const uint32_t *ids, size_t n, uint32_t flags,
			 char **ret_text, size_t *ret_bytes, struct weft_error *error);
WEFT_API void weft_text_free(void *ids_or_text);

/*
 * Decode tokens as they come. Each call gives the text that is certain now: whole characters only.
 * The pieces together are what weft_decode() gives for all ids, but that an ill-formed run of byte
 * tokens becomes U+FFFD part by part and not byte by byte.
 */
WEFT_API int weft_stream_new(struct weft_stream **ret, struct weft_tokenizer *t, uint32_t flags);
WEFT_API void weft_stream_free(struct weft_stream *s);
/* *ret_text is the stream's, until the next call on it; zero-terminated. */
WEFT_API int weft_stream_push(struct weft_stream *s, uint32_t id, const char **ret_text,
			      size_t *ret_bytes);
/* What is left at the end, after which the stream is new again. */
WEFT_API int weft_stream_end(struct weft_stream *s, const char **ret_text, size_t *ret_bytes);

/* The token as the file spells it, zero-terminated (byte-level ones in the byte alphabet), or NULL. */
WEFT_API const char *weft_token_text(const struct weft_tokenizer *t, uint32_t id);
/* The id of such a token, or WEFT_NO_TOKEN. */
WEFT_API uint32_t weft_token_id(const struct weft_tokenizer *t, const char *text);
WEFT_API int weft_token_is_special(const struct weft_tokenizer *t, uint32_t id);

/* --- chat templates -------------------------------------------------------------------------------*/

/*
 * The text that a model was trained to see for a conversation is made by its chat template, a Jinja
 * program. Here is an interpreter of the part of Jinja that such templates use. It gives the bytes
 * that the format's own implementation gives, or refuses by name what it does not know.
 *
 * Neither template nor context is trusted: sizes, nesting, steps, memory and output have limits
 * (weft_template_new(3)). -EOPNOTSUPP: something that this library does not know. -EINVAL: an error
 * in the template or for this context. -EBADMSG: the template's own raise_exception(), whose text is
 * the message's end. -E2BIG, -ELOOP: a limit. The message is one line and names the template's line.
 */
struct weft_template;

#define WEFT_TEMPLATE_MAX_SOURCE  (1u << 20)
#define WEFT_TEMPLATE_MAX_CONTEXT (16u << 20)
#define WEFT_TEMPLATE_MAX_OUTPUT  WEFT_TEXT_MAX_BYTES

/* It never changes afterwards: any number of threads may render it at once. */
WEFT_API int weft_template_new(struct weft_template **ret, const char *source, size_t bytes,
			       struct weft_error *error);
/* The template of a model's folder: chat_template.jinja, or "chat_template" in
 * tokenizer_config.json (of several the one named "default"). -ENOENT: it has none. */
WEFT_API int weft_template_open(struct weft_template **ret, const char *dir,
				struct weft_error *error);
/* NULL allowed. */
WEFT_API void weft_template_free(struct weft_template *t);
/*
 * context: a JSON object whose members are the template's variables, such as {"messages": [..],
 * "add_generation_prompt": true, "bos_token": "<s>"}. A number "strftime_now" in it is the time, in
 * seconds since 1970 and UTC, that the function of this name formats; without it that is now, local.
 * The text is as weft_decode() gives it: freed with weft_text_free().
 */
WEFT_API int weft_template_render(const struct weft_template *t, const char *context, size_t bytes,
				  char **ret_text, size_t *ret_bytes, struct weft_error *error);

/* As weft_template_open(), of a session's model (see weft_tokenizer_open_served()). */
WEFT_API int weft_template_new_from(struct weft_template **ret, const char *jinja,
				    size_t jinja_bytes, const char *config, size_t config_bytes,
				    struct weft_error *error);
static inline int weft_template_open_served(struct weft_template **ret, struct weft *w,
					    struct weft_error *error)
{
	const char *jinja = NULL, *config = NULL;
	size_t jinja_bytes = 0, config_bytes = 0;

	weft_model_file(w, "chat_template.jinja", &jinja, &jinja_bytes, NULL);
	weft_model_file(w, "tokenizer_config.json", &config, &config_bytes, NULL);
	return weft_template_new_from(ret, jinja, jinja_bytes, config, config_bytes, error);
}

/* --- conversations --------------------------------------------------------------------------------*/

struct weft_message {
	const char *role; /* "system", "user", "assistant"; the program's own word */
	const char *content;
	size_t content_bytes;
};

#define WEFT_CHAT_ANSWER 1u /* end where the model is to answer */
#define WEFT_CHAT_AFTER	 2u /* only what follows the last assistant's content */
#define WEFT_CHAT_PARSE_SPECIAL \
	4u /* find special tokens in the messages too: not for others' text */

/*
 * A conversation as the ids that the model was trained to see: the template is rendered, and special
 * tokens are found in the template's own text only. Whatever a message says, it cannot become one,
 * but for weft_encode()'s exceptions (added tokens that are not special are found, as weft_encode()
 * does). Otherwise the ids are those of the rendered text.
 *
 * With WEFT_CHAT_AFTER the content of the last message of role "assistant" is not looked at: the ids
 * are those of the text that the template puts after it. A program that keeps a conversation as the
 * ids that the model has made appends these, and never encodes an answer's text again, which may give
 * other ids and so miss the cache. -EOPNOTSUPP: the template leaves that answer out.
 */
WEFT_API int weft_chat_encode(struct weft_tokenizer *t, const struct weft_template *tmpl,
			      const struct weft_message *messages, size_t n, uint32_t flags,
			      uint32_t **ret_ids, size_t *ret_n, struct weft_error *error);

/*
 * Is an adapter's invocation (struct weft_adapter) among a prompt's ids? 1; 0: it is not, nor in the
 * text; -EILSEQ: its text is in the text, but its ids are not among the ids, because the tokenizer
 * has merged it with what stands beside it, or because it is a special token and the text was not
 * allowed to hold any; *error says which and what to do.
 */
WEFT_API int weft_find_invocation(struct weft_tokenizer *t, const char *text, size_t bytes,
				  const uint32_t *ids, size_t n, const uint32_t *invocation,
				  size_t n_invocation, struct weft_error *error);

#ifdef __cplusplus
}
#endif

#endif
