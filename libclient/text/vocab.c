/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vocab.c - the vocabulary and the merges: read, checked, and laid out to be searched.
 *
 * Each token's text lies in one arena, with the bytes that it matches beside it where they differ.
 * Two hash tables with open addressing, at most half full: bytes -> id, and (left, right) -> merge.
 * Constant once the tokenizer is open.
 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "libclient/text/private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- bytes -> id ---------------------------------------------------------------------------------*/

static uint32_t hash_bytes(const char *p, size_t n, enum wt_spelling kind)
{
	return (uint32_t)XXH3_64bits_withSeed(p, n, kind);
}

uint32_t wt_vocab_find_raw(const struct wt_vocab *v, const char *p, size_t n, enum wt_spelling kind)
{
	if (!v->slots)
		return WEFT_NO_TOKEN;
	for (uint32_t at = hash_bytes(p, n, kind);; at++) {
		uint32_t id = v->slots[at & v->slots_mask];
		const struct wt_token *t;

		if (id == WEFT_NO_TOKEN)
			return id;
		t = &v->tokens[id];
		if (t->raw_bytes == n && t->kind == kind && !memcmp(v->arena.p + t->raw, p, n))
			return id;
	}
}

uint32_t wt_vocab_find(const struct wt_vocab *v, const char *text, size_t n)
{
	char raw[WT_MAX_TOKEN_BYTES];
	uint32_t id;
	int len;

	if (n > WT_MAX_TOKEN_BYTES)
		return WEFT_NO_TOKEN;
	len = v->byte_level ? wt_byte_decode(raw, text, n) : -1;
	if (len >= 0)
		id = wt_vocab_find_raw(v, raw, (size_t)len, WT_PLAIN);
	else
		id = wt_vocab_find_raw(v, text, n, v->byte_level ? WT_VERBATIM : WT_PLAIN);
	return id != WEFT_NO_TOKEN ? id : wt_vocab_find_raw(v, text, n, WT_ADDED);
}

static void enter(struct wt_vocab *v, uint32_t id)
{
	const struct wt_token *t = &v->tokens[id];
	uint32_t at = hash_bytes(v->arena.p + t->raw, t->raw_bytes, t->kind);

	while (v->slots[at & v->slots_mask] != WEFT_NO_TOKEN)
		at++;
	v->slots[at & v->slots_mask] = id;
}

static int grow_slots(struct wt_vocab *v, uint32_t tokens)
{
	uint32_t n = 64;
	uint32_t *slots;

	while (n < 2 * tokens)
		n *= 2;
	slots = malloc(n * sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	memset(slots, 0xff, n * sizeof(*slots));
	free(v->slots);
	v->slots = slots;
	v->slots_mask = n - 1;
	for (uint32_t id = 0; id < v->n; id++)
		if (v->tokens[id].there)
			enter(v, id);
	return 0;
}

static int grow_tokens(struct wt_vocab *v, uint32_t id)
{
	uint32_t room = v->room ? v->room : 256;
	struct wt_token *p;

	while (room <= id)
		room *= 2;
	if (room > v->room) {
		p = realloc(v->tokens, room * sizeof(*p));
		if (!p)
			return -ENOMEM;
		memset(p + v->room, 0, (room - v->room) * sizeof(*p));
		v->tokens = p;
		v->room = room;
	}
	return 2 * (size_t)room > (size_t)v->slots_mask + !!v->slots ? grow_slots(v, room) : 0;
}

/* Text, a zero and, at byte level, the bytes meant, at the end of the arena. */
static int store(struct wt_vocab *v, struct wt_token *t, const char *text, size_t bytes, bool added)
{
	int len;

	if (v->arena.n > UINT32_MAX / 2 || wt_buf_reserve(&v->arena, 2 * bytes + 1))
		return -ENOMEM;
	t->text = t->raw = (uint32_t)v->arena.n;
	t->text_bytes = t->raw_bytes = (uint32_t)bytes;
	wt_buf_add(&v->arena, text, bytes);
	wt_buf_add(&v->arena, "", 1);
	t->kind = added ? WT_ADDED : WT_PLAIN;
	if (!v->byte_level || added)
		return 0;
	len = wt_byte_decode(v->arena.p + v->arena.n, text, bytes);
	if (len < 0) {
		t->kind = WT_VERBATIM;
	} else {
		t->raw = (uint32_t)v->arena.n;
		t->raw_bytes = (uint32_t)len;
		v->arena.n += (size_t)len;
	}
	return 0;
}

int wt_vocab_add(struct wt_vocab *v, uint32_t id, const char *text, size_t bytes, bool added,
		 struct weft_error *error)
{
	if (id >= WT_MAX_VOCAB)
		return wt_fail(error, -EFBIG, "token id %u; ids must be below %u", id,
			       WT_MAX_VOCAB);
	if (bytes > WT_MAX_TOKEN_BYTES || memchr(text, 0, bytes))
		return wt_fail(error, -EINVAL,
			       "token %u has %zu bytes or a zero in it; at most %u, none zero", id,
			       bytes, WT_MAX_TOKEN_BYTES);
	if (grow_tokens(v, id))
		return wt_fail(error, -ENOMEM, "out of memory");
	if (v->tokens[id].there)
		return wt_fail(error, -EINVAL, "token id %u is given twice, for \"%s\" too", id,
			       text);
	if (store(v, &v->tokens[id], text, bytes, added))
		return wt_fail(error, -ENOMEM, "out of memory");
	v->tokens[id].there = 1;
	if (id >= v->n)
		v->n = id + 1;
	enter(v, id);
	return 0;
}

/* --- the model -----------------------------------------------------------------------------------*/

static int refuse_unknown(json_t *model, struct weft_error *error)
{
	static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
	json_t *type = json_object_get(model, "type"), *dropout = json_object_get(model, "dropout");

	if (!json_is_object(model))
		return wt_fail(error, -EINVAL, "\"model\" is missing");
	/* Old files have no type; theirs are told apart by having merges. */
	if (type ? !json_is_string(type) || strcmp(json_string_value(type), "BPE")
		 : !json_object_get(model, "merges"))
		return wt_fail(error, -EOPNOTSUPP,
			       "the model is of type %s, which is not supported; only BPE is",
			       json_is_string(type) ? json_string_value(type) : "unknown");
	for (size_t i = 0; i < 2; i++)
		if (json_string_length(json_object_get(model, affixes[i])))
			return wt_fail(error, -EOPNOTSUPP, "the model's %s is not supported",
				       affixes[i]);
	if (json_is_number(dropout) && json_number_value(dropout) != 0)
		return wt_fail(error, -EOPNOTSUPP, "the model's dropout is not supported");
	return 0;
}

static int find_bytes(struct wt_vocab *v, struct weft_error *error)
{
	uint32_t there = 0;

	for (uint32_t b = 0; b < 256; b++) {
		char text[8];

		if (v->byte_level) {
			text[0] = (char)b;
			v->bytes[b] = wt_vocab_find_raw(v, text, 1, WT_PLAIN);
		} else {
			snprintf(text, sizeof(text), "<0x%02X>", b);
			v->bytes[b] = wt_vocab_find_raw(v, text, 6, WT_PLAIN);
		}
		there += v->bytes[b] != WEFT_NO_TOKEN;
	}
	if (!v->byte_level && v->byte_fallback && there && there < 256)
		return wt_fail(error, -EOPNOTSUPP,
			       "byte_fallback with %u of the 256 byte tokens is not supported",
			       there);
	if (!there)
		v->byte_fallback = false;
	if (v->byte_level && v->byte_fallback)
		return wt_fail(error, -EOPNOTSUPP,
			       "byte_fallback with byte-level pre-tokenization is not supported");
	return 0;
}

int wt_vocab_read(struct wt_vocab *v, json_t *model, bool byte_level, struct weft_error *error)
{
	json_t *vocab, *value, *unknown;
	const char *key;
	int r = refuse_unknown(model, error);

	if (r)
		return r;
	v->byte_level = byte_level;
	v->byte_fallback = wt_read_bool(model, "byte_fallback", false);
	v->fuse_unknown = wt_read_bool(model, "fuse_unk", false);
	v->ignore_merges = wt_read_bool(model, "ignore_merges", false);
	vocab = json_object_get(model, "vocab");
	if (!json_is_object(vocab) || !json_object_size(vocab) ||
	    json_object_size(vocab) > WT_MAX_VOCAB)
		return wt_fail(error, -EINVAL, "the model's vocab must have 1 to %u tokens",
			       WT_MAX_VOCAB);
	json_object_foreach(vocab, key, value)
	{
		json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;

		if (id < 0 || id >= WT_MAX_VOCAB)
			return wt_fail(error, -EINVAL, "the id of token \"%s\" must be 0 to %u",
				       key, WT_MAX_VOCAB - 1);
		r = wt_vocab_add(v, (uint32_t)id, key, strlen(key), false, error);
		if (r)
			return r;
	}
	v->unknown = WEFT_NO_TOKEN;
	unknown = json_object_get(model, "unk_token");
	if (json_is_string(unknown)) {
		v->unknown =
			wt_vocab_find(v, json_string_value(unknown), json_string_length(unknown));
		if (v->unknown == WEFT_NO_TOKEN)
			return wt_fail(error, -EINVAL, "the unk_token \"%s\" is not in the vocab",
				       json_string_value(unknown));
	}
	return find_bytes(v, error);
}

/* --- merges --------------------------------------------------------------------------------------*/

static uint32_t hash_pair(uint64_t pair)
{
	return (uint32_t)((pair * UINT64_C(0x9e3779b97f4a7c15)) >> 32);
}

const struct wt_merge *wt_vocab_merge(const struct wt_vocab *v, uint32_t left, uint32_t right)
{
	uint64_t pair = (uint64_t)left << 32 | right;

	for (uint32_t at = hash_pair(pair);; at++) {
		const struct wt_merge *m = &v->merges[at & v->merges_mask];

		if (m->pair == pair)
			return m;
		if (m->pair == UINT64_MAX)
			return NULL;
	}
}

/* The two texts of a merge: "left right", or ["left", "right"]. */
static int merge_texts(json_t *o, const char *text[2], size_t bytes[2])
{
	if (json_is_string(o)) {
		const char *space;

		text[0] = json_string_value(o);
		space = memchr(text[0], ' ', json_string_length(o));
		if (!space)
			return -EINVAL;
		bytes[0] = (size_t)(space - text[0]);
		text[1] = space + 1;
		bytes[1] = json_string_length(o) - bytes[0] - 1;
		return memchr(text[1], ' ', bytes[1]) ? -EINVAL : 0;
	}
	if (json_array_size(o) != 2)
		return -EINVAL;
	for (size_t i = 0; i < 2; i++) {
		json_t *s = json_array_get(o, i);

		if (!json_is_string(s))
			return -EINVAL;
		text[i] = json_string_value(s);
		bytes[i] = json_string_length(s);
	}
	return 0;
}

static int read_merge(struct wt_vocab *v, json_t *o, uint32_t rank, struct weft_error *error)
{
	char joined[WT_MAX_TOKEN_BYTES];
	const char *text[2];
	size_t bytes[2];
	uint32_t left, right, id, at;
	uint64_t pair;

	if (merge_texts(o, text, bytes))
		return wt_fail(error, -EINVAL, "merge %u is not a pair of tokens", rank);
	if (bytes[0] + bytes[1] > sizeof(joined))
		return wt_fail(error, -EINVAL, "merge %u is longer than %u bytes", rank,
			       WT_MAX_TOKEN_BYTES);
	memcpy(joined, text[0], bytes[0]);
	memcpy(joined + bytes[0], text[1], bytes[1]);
	left = wt_vocab_find(v, text[0], bytes[0]);
	right = wt_vocab_find(v, text[1], bytes[1]);
	id = wt_vocab_find(v, joined, bytes[0] + bytes[1]);
	if (left == WEFT_NO_TOKEN || right == WEFT_NO_TOKEN || id == WEFT_NO_TOKEN)
		return wt_fail(error, -EINVAL, "merge %u: a part or the whole is not in the vocab",
			       rank);
	if (v->tokens[id].special)
		return 0;
	pair = (uint64_t)left << 32 | right;
	for (at = hash_pair(pair); v->merges[at & v->merges_mask].pair != UINT64_MAX; at++)
		if (v->merges[at & v->merges_mask].pair == pair)
			break; /* the later one counts */
	v->merges[at & v->merges_mask] = (struct wt_merge){pair, rank, id};
	return 0;
}

int wt_vocab_read_merges(struct wt_vocab *v, json_t *model, struct weft_error *error)
{
	json_t *merges = json_object_get(model, "merges"), *o;
	uint32_t slots = 16;
	size_t i;

	if (!json_is_array(merges) || json_array_size(merges) > WT_MAX_MERGES)
		return wt_fail(error, -EINVAL, "the model's merges must be a list of at most %u",
			       WT_MAX_MERGES);
	while (slots < 2 * json_array_size(merges))
		slots *= 2;
	v->merges = malloc(slots * sizeof(*v->merges));
	if (!v->merges)
		return wt_fail(error, -ENOMEM, "out of memory");
	v->merges_mask = slots - 1;
	for (uint32_t at = 0; at < slots; at++)
		v->merges[at].pair = UINT64_MAX;
	json_array_foreach(merges, i, o)
	{
		int r = read_merge(v, o, (uint32_t)i, error);

		if (r)
			return r;
	}
	return 0;
}

void wt_vocab_fini(struct wt_vocab *v)
{
	free(v->tokens);
	free(v->arena.p);
	free(v->slots);
	free(v->merges);
	*v = (struct wt_vocab){0};
}
