/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry_file.c - the adapters that administrators have loaded, in the state directory, so that the next
 * weftd loads them, too: requests that use them go on there (adapters.json: how each was asked for). What
 * they are is read from their folders again. Those of the configuration are not in it, and win over a name
 * that is. One that an engine or its folder refuses stays listed as failed, and in the file, until it is
 * unloaded. One whose model is served no more, or for which the limits leave no room, stays in the file for
 * a weftd that can load it, until another of its name comes. A file that cannot be read is set aside
 * (adapters.json.bad) before it is written anew.
 */
#include "daemon/supervisor/registry.h"

#include "daemon/supervisor/state_file.h"
#include "daemon/supervisor/weftd.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define FILE_NAME "adapters.json"

static json_t *entry_json(const struct registry_entry *it)
{
	return json_pack("{s:s, s:s, s:s, s:i, s:s}", "model", it->engine->conf.name, "name",
			 it->conf.name, "path", it->conf.path, "activation_offset",
			 (int)it->conf.activation_offset, "on_missing_invocation",
			 config_on_missing_name(it->conf.on_missing));
}

/* What the next weftd is to load of an entry: while a new version is not there yet, the old one. */
static const struct registry_entry *to_save(const struct weftd *d, const struct registry_entry *it)
{
	if (it->former && !it->served)
		it = it->former;
	return it->by_hand && (it->served || it->kept) && !registry_in_config(&d->config, it)
		       ? it
		       : NULL;
}

/* Its name is another's now, and not of one that is still to be loaded. */
static bool is_taken(struct weftd *d, const json_t *unread)
{
	const char *model = json_string_value(json_object_get(unread, "model"));
	const char *name = json_string_value(json_object_get(unread, "name"));
	struct engine *e = model && name ? weftd_engine(d, model) : NULL;
	const struct registry_entry *it = e ? registry_find(d, e, name) : NULL;

	return it && (to_save(d, it) || registry_in_config(&d->config, it));
}

static int add_unread(struct weftd *d, json_t *list)
{
	json_t *one;
	size_t i;

	json_array_foreach(d->registry.unread, i, one)
	{
		if (!is_taken(d, one) && json_array_append(list, one))
			return -ENOMEM;
	}
	return 0;
}

void registry_file_save(struct weftd *d)
{
	json_t *list = json_array(), *j = json_pack("{s:o}", "adapters", list);
	int rc = j ? add_unread(d, list) : -ENOMEM;

	for (const struct registry_entry *it = d->registry.first; it && !rc; it = it->next) {
		const struct registry_entry *saved = to_save(d, it);

		if (saved)
			rc = json_array_append_new(list, entry_json(saved)) ? -ENOMEM : 0;
	}
	if (!rc && d->registry.bad_file &&
	    renameat(d->domains.dir_fd, FILE_NAME, d->domains.dir_fd, FILE_NAME ".bad") &&
	    errno != ENOENT)
		rc = -errno;
	d->registry.bad_file = d->registry.bad_file && rc;
	if (!rc)
		rc = state_file_save(d->domains.dir_fd, FILE_NAME, j);
	json_decref(j);
	if (rc)
		log_line(LOG_LEVEL_WARN,
			 "event=adapters-file error=\"%s\" why=\"the next weftd may "
			 "not load what administrators have loaded\"",
			 strerror(-rc));
}

static bool text_field(const json_t *j, const char *key, char *ret, size_t bytes)
{
	const char *s = json_string_value(json_object_get(j, key));

	if (!s || !*s || strlen(s) >= bytes)
		return false;
	strcpy(ret, s);
	return true;
}

/* How it was asked for; false: it is damaged. */
static bool parse(const json_t *j, struct config_adapter *c)
{
	const json_t *offset = json_object_get(j, "activation_offset");
	const char *missing = json_string_value(json_object_get(j, "on_missing_invocation"));
	json_int_t n = json_integer_value(offset);

	*c = (struct config_adapter){.activation_offset = (int32_t)n};
	return text_field(j, "model", c->model, sizeof(c->model)) &&
	       text_field(j, "name", c->name, sizeof(c->name)) && config_name_ok(c->name) &&
	       text_field(j, "path", c->path, sizeof(c->path)) && *c->path == '/' &&
	       json_is_integer(offset) && n >= -CONFIG_MAX_OFFSET && n <= CONFIG_MAX_OFFSET &&
	       missing && !config_on_missing(missing, &c->on_missing);
}

/* NULL, or why it is not loaded; *ret_stays: it stays in the file. */
static const char *load_one(struct weftd *d, const json_t *j, struct registry_load *how,
			    struct weft_err *err, bool *ret_stays)
{
	*ret_stays = false;
	if (!parse(j, &how->conf))
		return "its entry in " FILE_NAME " is damaged";
	how->engine = weftd_engine(d, how->conf.model);
	how->early = how->kept = true;
	if (how->engine && registry_find(d, how->engine, how->conf.name))
		return "the configuration has one of that name";
	*ret_stays = true;
	if (!how->engine)
		return "its model is served no more";
	return registry_load(d, how, err) ? err->message : NULL;
}

static void stays_unread(struct weftd *d, json_t *one)
{
	if (!d->registry.unread)
		d->registry.unread = json_array();
	if (json_array_append(d->registry.unread, one))
		log_line(LOG_LEVEL_WARN, "event=adapters-file error=\"out of memory\"");
}

void registry_file_load(struct weftd *d)
{
	const char *why;
	json_t *j = state_file_load(d->domains.dir_fd, FILE_NAME, &why), *one;
	size_t i;

	if (j && !json_is_array(json_object_get(j, "adapters")))
		why = "it is no list of adapters";
	d->registry.bad_file = why != NULL;
	if (why)
		log_line(LOG_LEVEL_ERROR,
			 "event=adapters-file why=\"" FILE_NAME " in the state directory: %s; none "
			 "of its adapters is loaded\"",
			 why);
	json_array_foreach(json_object_get(j, "adapters"), i, one)
	{
		struct registry_load how = {0};
		struct weft_err err = {0};
		bool stays;

		why = load_one(d, one, &how, &err, &stays);
		if (!why)
			continue;
		log_line(LOG_LEVEL_WARN, "adapter=%s event=adapter-skipped why=\"%s\"",
			 how.conf.name, why);
		if (stays)
			stays_unread(d, one);
	}
	json_decref(j);
}
