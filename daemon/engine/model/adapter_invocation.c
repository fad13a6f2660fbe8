/* SPDX-License-Identifier: Apache-2.0 */
/*
 * adapter_invocation.c - the invocation of an activated adapter: as token ids, as text, or as both.
 *
 * What counts are ids. Text becomes ids by the tokenizer of the model's folder, which is opened for
 * that and closed again: nothing else in the engine knows of text. If both are given they must agree,
 * since an adapter whose invocation is never found does nothing, and nobody would see it. A model
 * without a tokenizer, or with one that is not known, leaves ids as they are and refuses text alone.
 */
#include "daemon/engine/model/adapter_private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon/common/err.h"
#include "libclient/text/weft_text.h"

#define IDS_KEY	     "alora_invocation_tokens"
#define TEXT_KEY     "invocation_string"
#define MAX_TEXT     1024
#define MAX_ID_CHARS 11 /* and a blank */

#define fail_key(c, err, key, fmt, ...) \
	err_set(err, -EINVAL, "%s/" ADAPTER_CONFIG_NAME ": " key ": " fmt, (c)->name, ##__VA_ARGS__)

static json_t *get(const struct adapter_config *c, const char *key)
{
	json_t *v = json_object_get(c->root, key);

	return json_is_null(v) ? NULL : v;
}

static int read_ids(struct adapter_config *c, uint32_t vocab, struct weft_err *err)
{
	json_t *list = get(c, IDS_KEY), *v;
	size_t i;

	if (!list)
		return 0;
	if (!json_is_array(list) || !json_array_size(list) ||
	    json_array_size(list) > WSHM_MAX_INVOCATION)
		return fail_key(c, err, IDS_KEY, "must be a list of 1 to %u token ids",
				WSHM_MAX_INVOCATION);
	json_array_foreach(list, i, v)
	{
		if (!json_is_integer(v) || json_integer_value(v) < 0 ||
		    json_integer_value(v) >= vocab)
			return fail_key(c, err, IDS_KEY,
					"entry %zu is not a token id below the vocabulary's %u", i,
					vocab);
		c->invocation[i] = (uint32_t)json_integer_value(v);
	}
	c->n_invocation = (uint32_t)json_array_size(list);
	return 0;
}

/* Ids for a message, as many as there is room for. */
static const char *shown(char *text, size_t bytes, const uint32_t *ids, size_t n)
{
	size_t at = 0;

	*text = 0;
	for (size_t i = 0; i < n && at + MAX_ID_CHARS + 1 < bytes; i++)
		at += (size_t)snprintf(text + at, bytes - at, i ? " %u" : "%u", ids[i]);
	return text;
}

/* The text's ids must be those that are given, or become the invocation. */
static int take(struct adapter_config *c, const char *text, const uint32_t *ids, size_t n,
		uint32_t vocab, struct weft_err *err)
{
	char of_text[80], given[80];

	if (!n || n > WSHM_MAX_INVOCATION)
		return fail_key(c, err, TEXT_KEY, "\"%.80s\" has %zu tokens; 1 to %u are possible",
				text, n, WSHM_MAX_INVOCATION);
	for (size_t i = 0; i < n; i++)
		if (ids[i] >= vocab)
			return fail_key(
				c, err, TEXT_KEY,
				"\"%.80s\" has token %u, and the model's vocabulary %u: the "
				"tokenizer is another model's",
				text, ids[i], vocab);
	if (c->n_invocation &&
	    (c->n_invocation != n || memcmp(c->invocation, ids, n * sizeof(*ids))))
		return fail_key(c, err, TEXT_KEY,
				"\"%.60s\" is %s by the model's tokenizer, and " IDS_KEY " says %s",
				text, shown(of_text, sizeof(of_text), ids, n),
				shown(given, sizeof(given), c->invocation, c->n_invocation));
	memcpy(c->invocation, ids, n * sizeof(*ids));
	c->n_invocation = (uint32_t)n;
	return 0;
}

static int read_text(struct adapter_config *c, json_t *v, const char *model_dir, uint32_t vocab,
		     struct weft_err *err)
{
	const char *text = json_string_value(v);
	struct weft_tokenizer *t;
	struct weft_error why;
	uint32_t *ids;
	size_t n;
	int r;

	if (!text || !*text || json_string_length(v) > MAX_TEXT)
		return fail_key(c, err, TEXT_KEY, "must be a text of 1 to %d bytes", MAX_TEXT);
	r = model_dir ? weft_tokenizer_open(&t, model_dir, &why) : -ENOENT;
	if (r == -ENOMEM)
		return err_set(err, r, "%s/" ADAPTER_CONFIG_NAME ": out of memory", c->name);
	if (r && c->n_invocation)
		return 0;
	if (r)
		return fail_key(c, err, TEXT_KEY,
				"needs the ids (" IDS_KEY "), or the model's tokenizer: %.200s",
				model_dir ? why.message : "there is none");
	r = weft_encode(t, text, json_string_length(v), WEFT_PARSE_SPECIAL, &ids, &n, &why);
	weft_tokenizer_close(t);
	if (r)
		return err_set(err, r, "%s/" ADAPTER_CONFIG_NAME ": " TEXT_KEY ": %.200s", c->name,
			       why.message);
	r = take(c, text, ids, n, vocab, err);
	weft_text_free(ids);
	return r;
}

int adapter_config_invocation(struct adapter_config *c, const char *model_dir, uint32_t vocab,
			      struct weft_err *err)
{
	json_t *text = get(c, TEXT_KEY);
	int r = read_ids(c, vocab, err);

	if (!r && text)
		r = read_text(c, text, model_dir, vocab, err);
	c->activated = !r && c->n_invocation;
	return r;
}
