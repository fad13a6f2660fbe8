/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chat.c - conversations to ids, so that what people write stays text.
 *
 * A chat template puts messages and special tokens into one text, and once they are one text nothing
 * says which "<|im_end|>" is the template's and which a message's. So before rendering a guard, a
 * Unicode noncharacter that no message holds, is put into every message where a special token would be
 * found: inside each, and at a message's ends if a token could come about together with what the
 * template puts beside it. Templates see all other messages as they are. After rendering special
 * tokens are sought with the guards in place, which keep them from matching, and the guards are taken
 * out before the text is cut and merged (wt_encode_guarded()). The ids are thus those of the rendered
 * text, but for special tokens in messages.
 *
 * The other noncharacter stands for the answer of WEFT_CHAT_AFTER. No state of its own.
 */
#include "libclient/text/private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* U+FDD0 to U+FDEF: never characters, "for internal use". */
#define NONCHARACTERS 32u

struct chat {
	struct weft_tokenizer *t;
	const struct weft_template *tmpl;
	const struct weft_message *messages;
	size_t n;
	uint32_t flags;
	size_t answer; /* WEFT_CHAT_AFTER: the message left out; else n */
	char guard[WT_GUARD_BYTES + 1], mark[WT_GUARD_BYTES + 1];
	struct wt_buf text, guarded; /* scratch of one message */
};

/* --- guards --------------------------------------------------------------------------------------*/

static bool is_used(const struct chat *c, const char *character)
{
	for (size_t i = 0; i < c->n; i++)
		if (i != c->answer && c->messages[i].content_bytes &&
		    memmem(c->messages[i].content, c->messages[i].content_bytes, character,
			   WT_GUARD_BYTES))
			return true;
	return false;
}

static int choose_guards(struct chat *c, struct weft_error *error)
{
	char *to[] = {c->guard, c->mark};
	uint32_t found = 0;

	for (uint32_t i = 0; i < NONCHARACTERS && found < 2; i++) {
		wt_utf8_put(to[found], 0xfdd0 + i);
		found += !is_used(c, to[found]);
	}
	return found == 2 ? 0
			  : wt_fail(error, -EINVAL,
				    "the messages hold nearly all of Unicode's noncharacters, of "
				    "which "
				    "two are needed to tell them from the template");
}

static bool is_blank(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Could a special token begin before p, in the template's text, and end in it or after it? */
static bool may_end_one(const struct weft_tokenizer *t, const char *p, size_t n)
{
	for (uint32_t i = 0; i < t->n_added && n; i++) {
		const struct wt_added *a = &t->added[i];

		if (a->special && n < a->bytes && memmem(a->text + 1, a->bytes - 1, p, n))
			return true;
		for (size_t k = 1; a->special && k < a->bytes; k++)
			if (a->text[k] == *p && a->bytes - k <= n &&
			    !memcmp(a->text + k, p, a->bytes - k))
				return true;
	}
	return false;
}

/* Could one begin at the end of p and end after it? */
static bool may_begin_one(const struct weft_tokenizer *t, const char *p, size_t n)
{
	for (uint32_t i = 0; i < t->n_added && n; i++) {
		const struct wt_added *a = &t->added[i];

		for (size_t k = 1; a->special && k < a->bytes && k <= n; k++)
			if (a->text[k - 1] == p[n - 1] && !memcmp(a->text, p + n - k, k))
				return true;
	}
	return false;
}

/* A guard after the first character of each special token of the text. Tokens that are sought after
 * normalization are not found here: see guard_all(). */
static int guard_tokens(struct chat *c, const char *p, size_t n)
{
	const struct weft_tokenizer *t = c->t;
	size_t begin = 0, end = n;
	int r = 0, len;

	while (begin < n && is_blank(p[begin]))
		begin++;
	while (end > begin && is_blank(p[end - 1]))
		end--;
	for (size_t at = 0; at < n && !r; at += (size_t)len) {
		const struct wt_added *a = NULL;

		wt_utf8_next(p + at, n - at, &len);
		if (at == begin && may_end_one(t, p + begin, end - begin))
			r = wt_buf_add(&c->guarded, c->guard, WT_GUARD_BYTES);
		if (t->raw.first[(unsigned char)p[at]])
			a = wt_finder_at(&t->raw, p + at, n - at);
		r = r ? r : wt_buf_add(&c->guarded, p + at, (size_t)len);
		if (!r && ((a && a->special) ||
			   (at + (size_t)len == end && may_begin_one(t, p + begin, end - begin))))
			r = wt_buf_add(&c->guarded, c->guard, WT_GUARD_BYTES);
	}
	return r;
}

/* After every character: for texts that still hold a token once they are normalized. */
static int guard_all(struct chat *c, const char *p, size_t n)
{
	int r = 0, len;

	c->guarded.n = 0;
	for (size_t at = 0; at < n && !r; at += (size_t)len) {
		wt_utf8_next(p + at, n - at, &len);
		r = wt_buf_add(&c->guarded, p + at, (size_t)len);
		r = r ? r : wt_buf_add(&c->guarded, c->guard, WT_GUARD_BYTES);
	}
	return r;
}

/* The message's content with its guards, in c->guarded. */
static int guard(struct chat *c, const struct weft_message *m)
{
	int r;

	c->text.n = c->guarded.n = 0;
	r = wt_buf_add_lossy(&c->text, m->content, m->content_bytes);
	r = r ? r : guard_tokens(c, c->text.p, c->text.n);
	if (r)
		return r;
	r = wt_holds_special(c->t, c->guarded.p, c->guarded.n);
	return r > 0 ? guard_all(c, c->text.p, c->text.n) : r;
}

/* --- the template's context ----------------------------------------------------------------------*/

static int set_token(const struct chat *c, json_t *o, const char *name, uint32_t id)
{
	const char *text = weft_token_text(c->t, id);

	return text ? json_object_set_new(o, name, json_string(text)) : 0;
}

static int take_as_is(struct chat *c, const struct weft_message *m, json_t **ret)
{
	int r;

	c->text.n = 0;
	r = wt_buf_add_lossy(&c->text, m->content, m->content_bytes);
	if (!r)
		*ret = json_stringn(c->text.p ? c->text.p : "", c->text.n);
	return r;
}

static int add_message(struct chat *c, json_t *list, size_t i, struct weft_error *error)
{
	const struct weft_message *m = &c->messages[i];
	json_t *o = json_object(), *content = NULL;
	int r = 0;

	if (i == c->answer)
		content = json_string(c->mark);
	else if (c->flags & WEFT_CHAT_PARSE_SPECIAL)
		r = take_as_is(c, m, &content);
	else if (!(r = guard(c, m)))
		content = json_stringn(c->guarded.p ? c->guarded.p : "", c->guarded.n);
	if (json_object_set_new(o, "role", json_string(m->role)) ||
	    json_object_set_new(o, "content", content) || json_array_append_new(list, o))
		r = r ? r : -ENOMEM;
	return r ? wt_fail(error, r, "message %zu: %s", i, strerror(-r)) : 0;
}

static int make_context(struct chat *c, char **ret, struct weft_error *error)
{
	json_t *o = json_object(), *list = json_array();
	const struct weft_tokenizer *t = c->t;
	int r = 0;

	/* As transformers: without any these are none, and not undefined, which is not none. */
	if (json_object_set_new(o, "messages", list) ||
	    json_object_set_new(o, "tools", json_null()) ||
	    json_object_set_new(o, "documents", json_null()) ||
	    json_object_set_new(o, "add_generation_prompt",
				json_boolean(c->flags & WEFT_CHAT_ANSWER)) ||
	    set_token(c, o, "bos_token", t->bos) || set_token(c, o, "eos_token", t->eos) ||
	    set_token(c, o, "unk_token", t->unknown) || set_token(c, o, "pad_token", t->pad))
		r = wt_fail(error, -ENOMEM, "out of memory");
	for (size_t i = 0; i < c->n && !r; i++)
		r = add_message(c, list, i, error);
	if (!r) {
		*ret = json_dumps(o, JSON_COMPACT);
		r = *ret ? 0 : wt_fail(error, -ENOMEM, "out of memory");
	}
	json_decref(o);
	return r;
}

/* --- the call ------------------------------------------------------------------------------------*/

/* Where the text after the answer begins. */
static int find_mark(const struct chat *c, const char *text, size_t n, size_t *ret,
		     struct weft_error *error)
{
	const char *p = text, *found = NULL;

	*ret = 0;
	if (!(c->flags & WEFT_CHAT_AFTER))
		return 0;
	while ((p = memmem(p, n - (size_t)(p - text), c->mark, WT_GUARD_BYTES)))
		found = p += WT_GUARD_BYTES;
	if (!found)
		return wt_fail(error, -EOPNOTSUPP,
			       "the chat template leaves answers out of the conversation");
	*ret = (size_t)(found - text);
	return 0;
}

static int encode(struct chat *c, uint32_t **ret_ids, size_t *ret_n, struct weft_error *error)
{
	char *context = NULL, *text = NULL;
	size_t n = 0, from;
	int r = choose_guards(c, error);

	r = r ? r : make_context(c, &context, error);
	if (!r)
		r = weft_template_render(c->tmpl, context, strlen(context), &text, &n, error);
	r = r ? r : find_mark(c, text, n, &from, error);
	if (!r)
		r = wt_encode_guarded(c->t, text + from, n - from, WEFT_PARSE_SPECIAL, c->guard,
				      ret_ids, ret_n, error);
	free(context);
	weft_text_free(text);
	return r;
}

int weft_chat_encode(struct weft_tokenizer *t, const struct weft_template *tmpl,
		     const struct weft_message *messages, size_t n, uint32_t flags,
		     uint32_t **ret_ids, size_t *ret_n, struct weft_error *error)
{
	struct chat c = {.t = t, .tmpl = tmpl, .messages = messages, .n = n, .flags = flags};
	int r;

	if (flags & ~(WEFT_CHAT_ANSWER | WEFT_CHAT_AFTER | WEFT_CHAT_PARSE_SPECIAL))
		return wt_fail(error, -EINVAL, "encode a conversation: unknown flags %#x", flags);
	c.answer = n;
	for (size_t i = n; flags & WEFT_CHAT_AFTER && i-- > 0 && c.answer == n;)
		if (!strcmp(messages[i].role, "assistant"))
			c.answer = i;
	if (flags & WEFT_CHAT_AFTER && c.answer == n)
		return wt_fail(error, -EINVAL, "encode a conversation: it has no answer yet");
	r = encode(&c, ret_ids, ret_n, error);
	free(c.text.p);
	free(c.guarded.p);
	return r;
}

/* --- invocations ---------------------------------------------------------------------------------*/

static bool has_ids(const uint32_t *ids, size_t n, const uint32_t *part, size_t n_part)
{
	for (size_t i = 0; n_part <= n && i <= n - n_part; i++)
		if (!memcmp(ids + i, part, n_part * sizeof(*ids)))
			return true;
	return false;
}

int weft_find_invocation(struct weft_tokenizer *t, const char *text, size_t bytes,
			 const uint32_t *ids, size_t n, const uint32_t *invocation,
			 size_t n_invocation, struct weft_error *error)
{
	bool special = false;
	char *shown;
	size_t shown_bytes;
	int r;

	if (!n_invocation || has_ids(ids, n, invocation, n_invocation))
		return n_invocation ? 1 : 0;
	r = weft_decode(t, invocation, n_invocation, 0, &shown, &shown_bytes, error);
	if (r)
		return r;
	for (size_t i = 0; i < n_invocation; i++)
		special |= weft_token_is_special(t, invocation[i]);
	if (shown_bytes && memmem(text, bytes, shown, shown_bytes))
		r = wt_fail(
			error, -EILSEQ,
			special ? "the prompt holds the adapter's invocation \"%.80s\", but as "
				  "plain text: special tokens are not looked for in it (weft run: "
				  "--special)"
				: "the prompt holds the adapter's invocation \"%.80s\", but not "
				  "its tokens: the tokenizer has merged it with what stands "
				  "beside it; set it off, on a line of its own for example, or "
				  "leave it out and let it be appended",
			shown);
	weft_text_free(shown);
	return r;
}
