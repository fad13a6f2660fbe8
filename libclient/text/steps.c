/* SPDX-License-Identifier: Apache-2.0 */
/*
 * steps.c - read the lists of steps that normalizers, pre-tokenizers and decoders are. Each kind is
 * known or refused by name; none is left out silently.
 */
#include "libclient/text/private.h"

#include <stdlib.h>
#include <string.h>

struct wt_step *wt_steps_add(struct wt_steps *steps, enum wt_kind kind, struct weft_error *error)
{
	if (steps->n == WT_MAX_STEPS) {
		wt_fail(error, -EFBIG, "more than %u steps in one sequence", WT_MAX_STEPS);
		return NULL;
	}
	steps->step[steps->n].kind = kind;
	return &steps->step[steps->n++];
}

void wt_steps_fini(struct wt_steps *steps)
{
	for (uint32_t i = 0; i < steps->n; i++) {
		wt_pattern_fini(&steps->step[i].pattern);
		free(steps->step[i].content);
	}
	*steps = (struct wt_steps){0};
}

int wt_read_sequence(struct wt_steps *steps, json_t *o, const char *what, const char *list,
		     wt_read_fn read, const char **ret_type, struct weft_error *error)
{
	const char *type = json_string_value(json_object_get(o, "type"));
	json_t *items, *item;
	size_t i;
	int r;

	if (!type)
		return wt_fail(error, -EINVAL, "the %s has no \"type\"", what);
	*ret_type = type;
	if (strcmp(type, "Sequence"))
		return 1;
	items = json_object_get(o, list);
	if (!json_is_array(items))
		return wt_fail(error, -EINVAL, "the %s has no \"%s\"", what, list);
	json_array_foreach(items, i, item)
	{
		r = read(steps, item, error);
		if (r)
			return r;
	}
	return 0;
}

int wt_read_string(json_t *o, const char *key, char **ret, size_t *ret_bytes,
		   struct weft_error *error)
{
	json_t *s = json_object_get(o, key);
	size_t n = json_string_length(s);

	if (!json_is_string(s) || n > WT_MAX_PATTERN_BYTES)
		return wt_fail(error, -EINVAL, "\"%s\" must be a string of at most %u bytes", key,
			       WT_MAX_PATTERN_BYTES);
	*ret = malloc(n + 1);
	if (!*ret)
		return wt_fail(error, -ENOMEM, "out of memory");
	memcpy(*ret, json_string_value(s), n + 1);
	*ret_bytes = n;
	return 0;
}

bool wt_read_bool(json_t *o, const char *key, bool otherwise)
{
	json_t *b = json_object_get(o, key);

	return json_is_boolean(b) ? json_is_true(b) : otherwise;
}

int wt_read_metaspace(struct wt_step *s, json_t *o, struct weft_error *error)
{
	const char *scheme = json_string_value(json_object_get(o, "prepend_scheme"));
	int len, r;

	r = wt_read_string(o, "replacement", &s->content, &s->content_bytes, error);
	if (r)
		return r;
	if (!s->content_bytes)
		return wt_fail(error, -EINVAL, "Metaspace: the replacement is empty");
	wt_utf8_next(s->content, s->content_bytes, &len);
	if ((size_t)len != s->content_bytes)
		return wt_fail(error, -EINVAL, "Metaspace: the replacement must be one character");
	s->split = wt_read_bool(o, "split", true);
	if (!scheme) /* as files before prepend_scheme said it */
		s->prepend = wt_read_bool(o, "add_prefix_space", true) ? WT_ALWAYS : WT_NEVER;
	else if (!strcmp(scheme, "always"))
		s->prepend = WT_ALWAYS;
	else if (!strcmp(scheme, "first"))
		s->prepend = WT_FIRST;
	else if (!strcmp(scheme, "never"))
		s->prepend = WT_NEVER;
	else
		return wt_fail(error, -EOPNOTSUPP, "Metaspace: prepend_scheme %s is not supported",
			       scheme);
	return 0;
}

/* --- pre-tokenizers ------------------------------------------------------------------------------*/

static int read_split(struct wt_step *s, json_t *o, struct weft_error *error)
{
	static const char *const names[] = {
		[WT_REMOVED] = "Removed",
		[WT_ISOLATED] = "Isolated",
		[WT_WITH_PREVIOUS] = "MergedWithPrevious",
		[WT_WITH_NEXT] = "MergedWithNext",
		[WT_CONTIGUOUS] = "Contiguous",
	};
	const char *behavior = json_string_value(json_object_get(o, "behavior"));

	s->invert = wt_read_bool(o, "invert", false);
	for (int i = 0; i < 5; i++)
		if (behavior && !strcmp(behavior, names[i])) {
			s->behavior = (enum wt_behavior)i;
			return wt_pattern_read(&s->pattern, json_object_get(o, "pattern"), error);
		}
	return wt_fail(error, -EOPNOTSUPP, "Split: behavior %s is not supported",
		       behavior ? behavior : "(none)");
}

/* What ByteLevel splits by unless use_regex is false. */
static const char byte_level_regex[] =
	"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

static int read_byte_level(struct wt_step *s, json_t *o, struct weft_error *error)
{
	s->prefix_space = wt_read_bool(o, "add_prefix_space", true);
	s->regex = wt_read_bool(o, "use_regex", true);
	s->behavior = WT_ISOLATED;
	if (!s->regex)
		return 0;
	return wt_pattern_compile(&s->pattern, byte_level_regex, sizeof(byte_level_regex) - 1,
				  error);
}

int wt_splitter_read(struct wt_steps *steps, json_t *o, struct weft_error *error)
{
	const char *type;
	struct wt_step *s;
	int r = wt_read_sequence(steps, o, "pre-tokenizer", "pretokenizers", wt_splitter_read,
				 &type, error);

	if (r <= 0)
		return r;
	if (steps->n && steps->step[steps->n - 1].kind == WT_BYTE_LEVEL)
		return wt_fail(error, -EOPNOTSUPP,
			       "pre-tokenizer %s after ByteLevel is not supported", type);
	s = wt_steps_add(steps, WT_SPLIT, error);
	if (!s)
		return -EFBIG;
	if (!strcmp(type, "Split"))
		return read_split(s, o, error);
	if (!strcmp(type, "ByteLevel")) {
		s->kind = WT_BYTE_LEVEL;
		return read_byte_level(s, o, error);
	}
	if (!strcmp(type, "Digits")) {
		s->kind = WT_DIGITS;
		s->individual = wt_read_bool(o, "individual_digits", false);
		return 0;
	}
	if (!strcmp(type, "Metaspace")) {
		s->kind = WT_METASPACE;
		return wt_read_metaspace(s, o, error);
	}
	return wt_fail(error, -EOPNOTSUPP, "pre-tokenizer %s is not supported", type);
}

/* --- decoders ------------------------------------------------------------------------------------*/

static int read_strip(struct wt_step *s, json_t *o, struct weft_error *error)
{
	json_int_t start = json_integer_value(json_object_get(o, "start"));
	json_int_t stop = json_integer_value(json_object_get(o, "stop"));
	int len, r;

	if (start < 0 || start > 1024 || stop < 0 || stop > 1024)
		return wt_fail(error, -EINVAL, "Strip: start and stop must be 0 to 1024");
	s->start = (uint32_t)start;
	s->stop = (uint32_t)stop;
	r = wt_read_string(o, "content", &s->content, &s->content_bytes, error);
	if (r)
		return r;
	if (s->content_bytes)
		wt_utf8_next(s->content, s->content_bytes, &len);
	if (!s->content_bytes || (size_t)len != s->content_bytes)
		return wt_fail(error, -EINVAL, "Strip: the content must be one character");
	return 0;
}

/* The order that can be decoded as a stream: steps on a token, bytes, Fuse, Strip of the whole. */
static int check_order(const struct wt_steps *steps, const char *type, enum wt_kind kind,
		       struct weft_error *error)
{
	enum wt_kind last = steps->step[steps->n - 1].kind;

	for (uint32_t i = 0; i < steps->n; i++)
		if (steps->step[i].kind == WT_FUSE && (kind != WT_STRIP || i + 1 < steps->n))
			return wt_fail(error, -EOPNOTSUPP, "decoder %s after Fuse is not supported",
				       type);
	if (last == WT_BYTE_LEVEL || (last == WT_BYTE_FALLBACK && kind != WT_FUSE))
		return wt_fail(error, -EOPNOTSUPP,
			       "decoder %s after ByteLevel or ByteFallback is not supported", type);
	return 0;
}

int wt_decoder_read(struct wt_steps *steps, json_t *o, struct weft_error *error)
{
	static const struct {
		const char *name;
		enum wt_kind kind;
	} known[] = {
		{"ByteLevel", WT_BYTE_LEVEL},
		{"Replace", WT_REPLACE},
		{"ByteFallback", WT_BYTE_FALLBACK},
		{"Fuse", WT_FUSE},
		{"Strip", WT_STRIP},
		{"Metaspace", WT_METASPACE},
	};
	const char *type;
	struct wt_step *s;
	int r = wt_read_sequence(steps, o, "decoder", "decoders", wt_decoder_read, &type, error);

	if (r <= 0)
		return r;
	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
		if (strcmp(type, known[i].name))
			continue;
		r = steps->n ? check_order(steps, type, known[i].kind, error) : 0;
		if (r)
			return r;
		s = wt_steps_add(steps, known[i].kind, error);
		if (!s)
			return -EFBIG;
		if (s->kind == WT_METASPACE)
			return wt_read_metaspace(s, o, error);
		if (s->kind == WT_STRIP)
			return read_strip(s, o, error);
		if (s->kind != WT_REPLACE)
			return 0;
		r = wt_pattern_read(&s->pattern, json_object_get(o, "pattern"), error);
		return r ? r : wt_read_string(o, "content", &s->content, &s->content_bytes, error);
	}
	return wt_fail(error, -EOPNOTSUPP, "decoder %s is not supported", type);
}
