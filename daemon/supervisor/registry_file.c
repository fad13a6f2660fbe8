/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry_file.c - the adapters that administrators have loaded, in the state directory, so that the next
 * weftd loads them, too: requests that use them go on there (adapters.json: how each was asked for). What
 * they are is read from their folders again. Those of the configuration are not in it, and win over a name
 * that is. One that an engine or its folder refuses stays listed as failed, and in the file, until it is
 * unloaded. One whose model is served no more, or for which the limits leave no room, is skipped: it stays in
 * the file for a weftd that can load it, until another of its name comes or an administrator drops it. A file
 * that cannot be read is set aside (adapters.json.bad) before it is written anew. One that cannot be written
 * is written with the next change, or at weftd's end; until then whoever asked for the change knows.
 */
#include "daemon/supervisor/registry.h"

#include "daemon/supervisor/admin_reply.h"
#include "daemon/supervisor/state_file.h"
#include "daemon/supervisor/weftd.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define FILE_NAME "adapters.json"
/* Of those that are skipped for one reason or another, so many have a line each in the log. */
#define MOST_LOGGED 10u

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
static bool is_taken(struct weftd *d, const json_t *entry)
{
	const char *model = json_string_value(json_object_get(entry, "model"));
	const char *name = json_string_value(json_object_get(entry, "name"));
	struct engine *e = model && name ? weftd_engine(d, model) : NULL;
	const struct registry_entry *it = e ? registry_find(d, e, name) : NULL;

	return it && (to_save(d, it) || registry_in_config(&d->config, it));
}

/* What was skipped and still stays in the file, to the list; and as it will then be kept here. */
static int add_skipped(struct weftd *d, json_t *list, json_t *stay)
{
	json_t *one;
	size_t i;

	json_array_foreach(d->registry.skipped, i, one)
	{
		json_t *entry = json_object_get(one, "entry");

		if (!is_taken(d, entry) &&
		    (json_array_append(list, entry) || json_array_append(stay, one)))
			return -ENOMEM;
	}
	return 0;
}

static int write_list(struct weftd *d, json_t *list, json_t *stay)
{
	json_t *j = json_pack("{s:o}", "adapters", list);
	int rc = j ? add_skipped(d, list, stay) : -ENOMEM;

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
	return rc;
}

int registry_file_save(struct weftd *d)
{
	json_t *stay = json_array(), *before = d->registry.skipped;
	int rc = write_list(d, json_array(), stay);

	d->registry.unsaved = rc != 0;
	for (struct registry_entry *it = d->registry.first; it && !rc; it = it->next)
		it->saved = to_save(d, it) == it;
	/* What another of its name has driven out does not come back when that one goes. */
	d->registry.skipped = rc ? before : stay;
	json_decref(rc ? stay : before);
	if (rc)
		log_line(LOG_LEVEL_WARN,
			 "event=adapters-file error=\"%s\" why=\"the next weftd may "
			 "not load what administrators have loaded\"",
			 strerror(-rc));
	return rc;
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
		return "another of that name is loaded";
	*ret_stays = true;
	if (!how->engine)
		return "its model is served no more";
	return registry_load(d, how, err) ? err->message : NULL;
}

static void skip(struct weftd *d, json_t *entry, const char *why)
{
	if (!d->registry.skipped)
		d->registry.skipped = json_array();
	if (json_array_append_new(d->registry.skipped,
				  json_pack("{s:O, s:s}", "entry", entry, "why", why)))
		log_line(LOG_LEVEL_WARN, "event=adapters-file error=\"out of memory\"");
}

static json_t *read_list(struct weftd *d)
{
	const char *why;
	json_t *j = state_file_load(d->domains.dir_fd, FILE_NAME, &why);

	if (j && !json_is_array(json_object_get(j, "adapters")))
		why = "it is no list of adapters";
	d->registry.bad_file = why != NULL;
	if (why)
		log_line(LOG_LEVEL_ERROR,
			 "event=adapters-file why=\"" FILE_NAME " in the state directory: %s; none "
			 "of its adapters is loaded\"",
			 why);
	return j;
}

void registry_file_load(struct weftd *d)
{
	json_t *j = read_list(d), *one;
	uint32_t n = 0;
	size_t i;

	json_array_foreach(json_object_get(j, "adapters"), i, one)
	{
		struct registry_load how = {0};
		struct weft_err err = {0};
		bool stays;
		const char *why = load_one(d, one, &how, &err, &stays);

		if (!why)
			continue;
		if (n++ < MOST_LOGGED)
			log_line(LOG_LEVEL_WARN, "adapter=%s event=adapter-skipped why=\"%s\"",
				 how.conf.name, why);
		if (stays)
			skip(d, one, why);
	}
	if (n > MOST_LOGGED)
		log_line(LOG_LEVEL_WARN,
			 "event=adapters-skipped adapters=%u not_named=%u why=\"%zu of them stay "
			 "in " FILE_NAME
			 "; weft adapter list says why, weft adapter unload drops them\"",
			 n, n - MOST_LOGGED, json_array_size(d->registry.skipped));
	json_decref(j);
}

/* --- what was not loaded --------------------------------------------------------------------------*/

static bool is_of(const json_t *one, const char *model, const char *name)
{
	const json_t *entry = json_object_get(one, "entry");

	return (!model || !strcmp(model, json_string_value(json_object_get(entry, "model")))) &&
	       (!name || !strcmp(name, json_string_value(json_object_get(entry, "name"))));
}

size_t registry_file_skipped(const struct weftd *d, const char *model, size_t max, json_t *list)
{
	const json_t *one;
	size_t i, n = 0;

	json_array_foreach(d->registry.skipped, i, one)
	{
		if (is_of(one, model, NULL) && n++ < max)
			json_array_append_new(
				list, admin_reply_skipped(
					      json_object_get(one, "entry"),
					      json_string_value(json_object_get(one, "why"))));
	}
	return n;
}

/* Those of the list that stay, and whether those that do not are of one model. */
static json_t *others(const json_t *list, const char *model, const char *name, bool *ret_one_model)
{
	json_t *rest = json_array(), *one;
	const char *first = NULL;
	size_t i;

	*ret_one_model = true;
	json_array_foreach((json_t *)(uintptr_t)list, i, one)
	{
		const char *its =
			json_string_value(json_object_get(json_object_get(one, "entry"), "model"));

		if (!is_of(one, model, name)) {
			json_array_append(rest, one);
			continue;
		}
		*ret_one_model = *ret_one_model && (!first || !strcmp(first, its));
		first = its;
	}
	return rest;
}

int registry_file_forget(struct weftd *d, const char *model, const char *name, struct weft_err *err)
{
	json_t *all = d->registry.skipped, *rest;
	bool one_model;
	int n, rc;

	rest = others(all, model, name, &one_model);
	n = (int)(json_array_size(all) - json_array_size(rest));
	if (name && !one_model) {
		json_decref(rest);
		return err_set(err, -EINVAL,
			       "several models have had an adapter %s that is not loaded: name one",
			       name);
	}
	if (!n) {
		json_decref(rest);
		return 0;
	}
	d->registry.skipped = rest;
	rc = registry_file_save(d);
	if (rc) {
		json_decref(rest);
		d->registry.skipped = all;
		return err_set(err, rc, FILE_NAME " could not be written (%s): nothing was dropped",
			       strerror(-rc));
	}
	json_decref(all);
	return n;
}
