/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer.c - open a tokenizer: read its files, check them, put the parts together.
 *
 * The files are outside input: whoever can write a model folder writes them. Sizes, counts and
 * lengths are capped (private.h), duplicate keys are refused, ids are checked against each other.
 * "truncation" and "padding" are settings of a use, not of the tokenizer, and are not read.
 */
#include "libclient/text/private.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- files ---------------------------------------------------------------------------------------*/

static int read_text(int fd, char **ret, size_t *ret_bytes)
{
	struct stat st;
	size_t at = 0, n;
	char *p;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	if (st.st_size > (off_t)WT_MAX_FILE_BYTES)
		return -EFBIG;
	n = (size_t)st.st_size;
	p = malloc(n + 1);
	if (!p)
		return -ENOMEM;
	while (at < n) {
		ssize_t got = read(fd, p + at, n - at);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0) {
			free(p);
			return got < 0 ? -errno : -EIO;
		}
		at += (size_t)got;
	}
	*ret = p;
	*ret_bytes = n;
	return 0;
}

int wt_read_file(const char *dir, const char *name, char *path, size_t room, char **ret,
		 size_t *ret_bytes, struct weft_error *error)
{
	int fd, r;

	if (snprintf(path, room, "%s/%s", dir, name) >= (int)room)
		return wt_fail(error, -ENAMETOOLONG, "the path of the folder is too long");
	/* O_NONBLOCK: opening a named pipe must not hang. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	r = fd < 0 ? -errno : read_text(fd, ret, ret_bytes);
	if (fd >= 0)
		close(fd);
	return r ? wt_fail(error, r, "cannot read %.150s: %s", path, strerror(-r)) : 0;
}

/*
 * The files beside tokenizer.json hold no integer that is read here, but often one that fits in no
 * 64 bits: a model_max_length of 1e30, for "no limit". Their integers are read as reals.
 */
int wt_parse_json(const char *where, const char *text, size_t bytes, json_t **ret,
		  struct weft_error *error)
{
	size_t n = strlen(where), tail = sizeof("tokenizer.json") - 1;
	int main_file = n >= tail && !strcmp(where + n - tail, "tokenizer.json");
	json_error_t je;

	if (bytes > WT_MAX_FILE_BYTES)
		return wt_fail(error, -EFBIG, "%.150s: longer than %u bytes", where,
			       WT_MAX_FILE_BYTES);
	*ret = json_loadb(text, bytes,
			  JSON_REJECT_DUPLICATES | (main_file ? 0 : JSON_DECODE_INT_AS_REAL), &je);
	if (!*ret)
		return wt_fail(error, -EINVAL, "%.120s: not valid JSON, line %d: %.80s", where,
			       je.line, je.text);
	if (json_is_object(*ret))
		return 0;
	json_decref(*ret);
	*ret = NULL;
	return wt_fail(error, -EINVAL, "%.150s: must be a JSON object", where);
}

/* The object in dir/name; -ENOENT, with *error set, if there is no such file. */
int wt_read_json(const char *dir, const char *name, json_t **ret, struct weft_error *error)
{
	char path[PATH_MAX], *text = NULL;
	size_t bytes = 0;
	int r = wt_read_file(dir, name, path, sizeof(path), &text, &bytes, error);

	if (r)
		return r;
	r = wt_parse_json(path, text, bytes, ret, error);
	free(text);
	return r;
}

/* --- added tokens --------------------------------------------------------------------------------*/

static const struct wt_added *added_of_id(const struct weft_tokenizer *t, uint32_t id)
{
	for (uint32_t i = 0; i < t->n_added; i++)
		if (t->added[i].id == id)
			return &t->added[i];
	return NULL;
}

static int add_token(struct weft_tokenizer *t, json_t *o, json_int_t id, struct weft_error *error)
{
	struct wt_added *a = &t->added[t->n_added];
	uint32_t known;
	int r;

	if (id < 0 || id >= WT_MAX_VOCAB)
		return wt_fail(error, -EINVAL, "an added token's id must be 0 to %u",
			       WT_MAX_VOCAB - 1);
	*a = (struct wt_added){
		.id = (uint32_t)id,
		.single_word = wt_read_bool(o, "single_word", false),
		.lstrip = wt_read_bool(o, "lstrip", false),
		.rstrip = wt_read_bool(o, "rstrip", false),
		.normalized = wt_read_bool(o, "normalized", true),
		.special = wt_read_bool(o, "special", false),
	};
	r = wt_read_string(o, "content", &a->text, &a->bytes, error);
	if (r)
		return r;
	t->n_added++;
	known = wt_vocab_find(&t->vocab, a->text, a->bytes);
	if (known != WEFT_NO_TOKEN && known != a->id)
		return wt_fail(error, -EINVAL,
			       "added token \"%.80s\" has id %u, and %u in the vocab", a->text,
			       a->id, known);
	if (known == WEFT_NO_TOKEN)
		r = wt_vocab_add(&t->vocab, a->id, a->text, a->bytes, true, error);
	if (!r && a->special)
		t->vocab.tokens[a->id].special = 1;
	return r;
}

/* tokenizer_config.json may know tokens that tokenizer.json does not. */
static int add_configured(struct weft_tokenizer *t, json_t *more, struct weft_error *error)
{
	const char *key;
	json_t *o;
	int r;

	json_object_foreach(more, key, o)
	{
		char *end;
		unsigned long id = strtoul(key, &end, 10);
		const struct wt_added *a;
		const char *text = json_string_value(json_object_get(o, "content"));

		if (end == key || *end || id >= WT_MAX_VOCAB)
			return wt_fail(error, -EINVAL,
				       "tokenizer_config.json: \"%.40s\" is not a token id", key);
		a = added_of_id(t, (uint32_t)id);
		if (a && text && !strcmp(a->text, text))
			continue;
		if (a)
			return wt_fail(error, -EINVAL,
				       "token %lu is \"%.60s\" in tokenizer.json and another in "
				       "tokenizer_config.json",
				       id, a->text);
		r = add_token(t, o, (json_int_t)id, error);
		if (r)
			return r;
	}
	return 0;
}

static int read_added(struct weft_tokenizer *t, json_t *list, json_t *more,
		      struct weft_error *error)
{
	json_t *o;
	size_t i;
	int r;

	if (json_array_size(list) + json_object_size(more) > WT_MAX_ADDED)
		return wt_fail(error, -EFBIG, "more than %u added tokens", WT_MAX_ADDED);
	t->added = calloc(json_array_size(list) + json_object_size(more) + 1, sizeof(*t->added));
	if (!t->added)
		return wt_fail(error, -ENOMEM, "out of memory");
	json_array_foreach(list, i, o)
	{
		json_t *id = json_object_get(o, "id");

		r = add_token(t, o, json_is_integer(id) ? json_integer_value(id) : -1, error);
		if (r)
			return r;
	}
	return add_configured(t, more, error);
}

/* What is sought after normalization is sought in its normalized form. */
static int find_added(struct weft_tokenizer *t, struct weft_error *error)
{
	struct wt_scratch *s = wt_scratch_new(t);
	int r = s ? 0 : -ENOMEM;

	for (uint32_t i = 0; i < t->n_added && !r; i++) {
		struct wt_added *a = &t->added[i];
		const char *p = a->text;
		size_t n = a->bytes;

		if (!a->normalized)
			continue;
		r = wt_normalize(&t->normalizer, s, &p, &n);
		if (r || p == a->text)
			continue;
		free(a->text);
		a->text = malloc(n + 1);
		if (!a->text) {
			r = -ENOMEM;
			break;
		}
		memcpy(a->text, p, n);
		a->text[n] = 0;
		a->bytes = n;
		t->vocab.tokens[a->id].renamed = 1;
	}
	wt_scratch_free(s);
	r = r ? r : wt_finder_init(&t->raw, t->added, t->n_added, false);
	r = r ? r : wt_finder_init(&t->normalized, t->added, t->n_added, true);
	return r ? wt_fail(error, r, "added tokens: %s", strerror(-r)) : 0;
}

/* --- post-processors -----------------------------------------------------------------------------*/

/* The ids of a special token of a template. */
static int affix_ids(const struct weft_tokenizer *t, json_t *table, json_t *o, uint32_t *ids,
		     uint32_t *n, struct weft_error *error)
{
	const char *name = json_string_value(json_object_get(o, "id"));
	json_t *list, *id;
	size_t i;

	list = name ? json_object_get(json_object_get(table, name), "ids") : NULL;
	if (!json_is_array(list))
		return wt_fail(error, -EINVAL,
			       "TemplateProcessing: no ids for special token \"%s\"",
			       name ? name : "");
	json_array_foreach(list, i, id)
	{
		json_int_t k = json_is_integer(id) ? json_integer_value(id) : -1;

		if (k < 0 || k >= t->vocab.n || !t->vocab.tokens[k].there)
			return wt_fail(error, -EINVAL,
				       "TemplateProcessing: \"%s\" has an id without token", name);
		if (*n == WT_MAX_AFFIX)
			return wt_fail(error, -EFBIG,
				       "TemplateProcessing: more than %u tokens on one side",
				       WT_MAX_AFFIX);
		ids[(*n)++] = (uint32_t)k;
	}
	return 0;
}

static int read_template(struct weft_tokenizer *t, json_t *o, struct weft_error *error)
{
	json_t *single = json_object_get(o, "single"),
	       *table = json_object_get(o, "special_tokens");
	json_t *part;
	uint32_t before[WT_MAX_AFFIX], n_before = 0, sequences = 0;
	size_t i;
	int r;

	json_array_foreach(single, i, part)
	{
		json_t *special = json_object_get(part, "SpecialToken");

		if (!special) {
			sequences++;
			continue;
		}
		r = sequences ? affix_ids(t, table, special, t->suffix, &t->n_suffix, error)
			      : affix_ids(t, table, special, before, &n_before, error);
		if (r)
			return r;
	}
	if (sequences != 1)
		return wt_fail(error, -EOPNOTSUPP,
			       "TemplateProcessing: \"single\" must name its sequence once");
	if (n_before + t->n_prefix > WT_MAX_AFFIX)
		return wt_fail(error, -EFBIG, "TemplateProcessing: too many tokens");
	/* A later template goes around what an earlier one put. */
	memmove(t->prefix + n_before, t->prefix, t->n_prefix * sizeof(*t->prefix));
	memcpy(t->prefix, before, n_before * sizeof(*before));
	t->n_prefix += n_before;
	return 0;
}

static int read_post(struct weft_tokenizer *t, json_t *o, int depth, struct weft_error *error)
{
	const char *type = json_string_value(json_object_get(o, "type"));
	json_t *list, *item;
	size_t i;
	int r;

	if (!type)
		return wt_fail(error, -EINVAL, "the post-processor has no \"type\"");
	if (!strcmp(type, "ByteLevel"))
		return 0; /* about offsets only */
	if (!strcmp(type, "TemplateProcessing"))
		return read_template(t, o, error);
	if (strcmp(type, "Sequence") || depth == 4)
		return wt_fail(error, -EOPNOTSUPP, "post-processor %s is not supported", type);
	list = json_object_get(o, "processors");
	json_array_foreach(list, i, item)
	{
		r = read_post(t, item, depth + 1, error);
		if (r)
			return r;
	}
	return 0;
}

/* --- the special tokens' roles ----------------------------------------------------------------------*/

static uint32_t role(const struct weft_tokenizer *t, const char *name, json_t *config, json_t *map)
{
	json_t *files[] = {config, map};

	for (size_t i = 0; i < 2; i++) {
		json_t *o = json_object_get(files[i], name);

		if (json_is_object(o))
			o = json_object_get(o, "content");
		if (json_is_string(o))
			return wt_vocab_find(&t->vocab, json_string_value(o),
					     json_string_length(o));
	}
	return WEFT_NO_TOKEN;
}

/* --- the whole -----------------------------------------------------------------------------------*/

static bool there(json_t *o)
{
	return o && !json_is_null(o);
}

static int build(struct weft_tokenizer *t, json_t *root, json_t *config, json_t *map,
		 struct weft_error *error)
{
	json_t *model = json_object_get(root, "model"), *part;
	bool byte_level;
	int r = 0;

	part = json_object_get(root, "normalizer");
	if (there(part))
		r = wt_normalizer_read(&t->normalizer, part, error);
	part = json_object_get(root, "pre_tokenizer");
	if (!r && there(part))
		r = wt_splitter_read(&t->splitter, part, error);
	part = json_object_get(root, "decoder");
	t->no_decoder = !there(part);
	if (!r && there(part))
		r = wt_decoder_read(&t->decoder, part, error);
	if (r)
		return r;
	byte_level = t->splitter.n && t->splitter.step[t->splitter.n - 1].kind == WT_BYTE_LEVEL;
	r = wt_vocab_read(&t->vocab, model, byte_level, error);
	r = r ? r
	      : read_added(t, json_object_get(root, "added_tokens"),
			   json_object_get(config, "added_tokens_decoder"), error);
	r = r ? r : wt_vocab_read_merges(&t->vocab, model, error);
	r = r ? r : find_added(t, error);
	part = json_object_get(root, "post_processor");
	if (!r && there(part))
		r = read_post(t, part, 0, error);
	t->bos = role(t, "bos_token", config, map);
	t->eos = role(t, "eos_token", config, map);
	t->pad = role(t, "pad_token", config, map);
	t->unknown = t->vocab.unknown != WEFT_NO_TOKEN ? t->vocab.unknown
						       : role(t, "unk_token", config, map);
	return r;
}

/* A file that may be missing. */
static int read_optional(const char *dir, const char *name, json_t **ret, struct weft_error *error)
{
	int r = wt_read_json(dir, name, ret, error);

	return r == -ENOENT ? 0 : r;
}

/* The files as objects: owned references, NULL where there is none. */
struct files {
	json_t *root, *config, *map;
};

static void files_fini(struct files *f)
{
	json_decref(f->root);
	json_decref(f->config);
	json_decref(f->map);
}

static int tokenizer_new(struct weft_tokenizer **ret, const struct files *f,
			 struct weft_error *error)
{
	struct weft_tokenizer *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return wt_fail(error, -ENOMEM, "out of memory");
	pthread_mutex_init(&t->lock, NULL);
	r = build(t, f->root, f->config, f->map, error);
	if (r)
		weft_tokenizer_close(t);
	else
		*ret = t;
	return r;
}

int weft_tokenizer_open(struct weft_tokenizer **ret, const char *dir, struct weft_error *error)
{
	struct weft_error why = {0};
	struct files f = {0};
	int r = wt_read_json(dir, "tokenizer.json", &f.root, &why);

	r = r ? r : read_optional(dir, "tokenizer_config.json", &f.config, &why);
	r = r ? r : read_optional(dir, "special_tokens_map.json", &f.map, &why);
	r = r ? r : tokenizer_new(ret, &f, &why);
	files_fini(&f);
	return r ? wt_fail(error, r, "tokenizer of %.80s: %.160s", dir, why.message) : 0;
}

int weft_tokenizer_new(struct weft_tokenizer **ret, const struct weft_tokenizer_files *files,
		       struct weft_error *error)
{
	struct weft_error why = {0};
	struct files f = {0};
	int r;

	if (files->size != sizeof(*files) || !files->tokenizer)
		return wt_fail(error, -EINVAL, "tokenizer: no tokenizer.json is given");
	r = wt_parse_json("tokenizer.json", files->tokenizer, files->tokenizer_bytes, &f.root,
			  &why);
	if (!r && files->config)
		r = wt_parse_json("tokenizer_config.json", files->config, files->config_bytes,
				  &f.config, &why);
	if (!r && files->special_map)
		r = wt_parse_json("special_tokens_map.json", files->special_map,
				  files->special_map_bytes, &f.map, &why);
	r = r ? r : tokenizer_new(ret, &f, &why);
	files_fini(&f);
	return r ? wt_fail(error, r, "tokenizer: %.200s", why.message) : 0;
}

void weft_tokenizer_close(struct weft_tokenizer *t)
{
	if (!t)
		return;
	while (t->idle) {
		struct wt_scratch *next = t->idle->next;

		wt_scratch_free(t->idle);
		t->idle = next;
	}
	for (uint32_t i = 0; i < t->n_added; i++)
		free(t->added[i].text);
	free(t->added);
	wt_finder_fini(&t->raw);
	wt_finder_fini(&t->normalized);
	wt_steps_fini(&t->normalizer);
	wt_steps_fini(&t->splitter);
	wt_steps_fini(&t->decoder);
	wt_vocab_fini(&t->vocab);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

int weft_tokenizer_info(const struct weft_tokenizer *t, struct weft_tokenizer_info *ret)
{
	struct weft_tokenizer_info info = {
		.vocab = t->vocab.n,
		.bos = t->bos,
		.eos = t->eos,
		.unknown = t->unknown,
		.pad = t->pad,
		.byte_level = t->vocab.byte_level,
	};

	if (ret->size < sizeof(info.size))
		return -EINVAL;
	info.size = ret->size < sizeof(info) ? ret->size : sizeof(info);
	for (uint32_t id = 0; id < t->vocab.n; id++)
		info.n_special += t->vocab.tokens[id].special;
	memcpy(ret, &info, info.size);
	return 0;
}

const char *weft_token_text(const struct weft_tokenizer *t, uint32_t id)
{
	if (id >= t->vocab.n || !t->vocab.tokens[id].there)
		return NULL;
	return t->vocab.arena.p + t->vocab.tokens[id].text;
}

uint32_t weft_token_id(const struct weft_tokenizer *t, const char *text)
{
	return wt_vocab_find(&t->vocab, text, strlen(text));
}

int weft_token_is_special(const struct weft_tokenizer *t, uint32_t id)
{
	return id < t->vocab.n && t->vocab.tokens[id].special;
}
