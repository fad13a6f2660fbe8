/* SPDX-License-Identifier: Apache-2.0 */
/*
 * open.c - the chat template of a model's folder: chat_template.jinja, else what
 * tokenizer_config.json says, as one text or as a list of named ones.
 */
#include "libclient/text/private.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* Borrowed from the object; NULL: it has none. */
static json_t *of_config(json_t *config)
{
	json_t *v = json_object_get(config, "chat_template"), *item;
	size_t i;

	json_array_foreach(v, i, item)
	{
		const char *name = json_string_value(json_object_get(item, "name"));

		if (name && !strcmp(name, "default"))
			return json_object_get(item, "template");
	}
	return v;
}

/* Takes config's reference. */
static int from_config(struct weft_template **ret, json_t *config, struct weft_error *error)
{
	json_t *text = of_config(config);
	int r = json_is_string(text) ? weft_template_new(ret, json_string_value(text),
							 json_string_length(text), error)
				     : wt_fail(error, -ENOENT, "the model has no chat template");

	json_decref(config);
	return r;
}

int weft_template_new_from(struct weft_template **ret, const char *jinja, size_t jinja_bytes,
			   const char *config, size_t config_bytes, struct weft_error *error)
{
	json_t *root = NULL;
	int r = 0;

	if (jinja)
		return weft_template_new(ret, jinja, jinja_bytes, error);
	if (config)
		r = wt_parse_json("tokenizer_config.json", config, config_bytes, &root, error);
	return r ? r : from_config(ret, root, error);
}

int weft_template_open(struct weft_template **ret, const char *dir, struct weft_error *error)
{
	struct weft_error why = {0};
	char path[PATH_MAX], *text;
	size_t bytes;
	int r = wt_read_file(dir, "chat_template.jinja", path, sizeof(path), &text, &bytes, &why);

	if (r == -ENOENT) {
		json_t *config = NULL;

		r = wt_read_json(dir, "tokenizer_config.json", &config, &why);
		r = r ? r : from_config(ret, config, &why);
	} else if (!r) {
		r = weft_template_new(ret, text, bytes, &why);
		free(text);
	}
	return r ? wt_fail(error, r, "%.80s: %.170s", dir, why.message) : 0;
}
