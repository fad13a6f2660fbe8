/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin_adapter.c - administrators' commands about adapters.
 *
 *   {"cmd":"adapter-load","name":N,"path":DIR}
 *       "model":M               needed when several are served
 *       "activation_offset":I   "on_missing_invocation":"error"|"base"|"append"
 *       "replace":true          unload one of that name first; "force":true, even if it is in use
 *   {"cmd":"adapter-unload","name":N,"model":M,"force":true}
 *       also of one that adapters.json has and that was not loaded
 *       "skipped":true          instead of a name: all of those
 *   {"cmd":"adapter-list","model":M}
 *
 * Loading and unloading are answered when the engine has answered. Unknown fields are refused: a
 * misspelt one must not be taken for its default.
 */
#include "daemon/supervisor/admin_reply.h"
#include "daemon/supervisor/weftd.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int model_field(const json_t *request, struct weft_err *err)
{
	const json_t *model = json_object_get(request, "model");

	return model && !json_is_string(model) ? err_set(err, -EINVAL, "model must be a name") : 0;
}

struct engine *admin_engine(struct weftd *d, const json_t *request, struct weft_err *err)
{
	const json_t *model = json_object_get(request, "model");
	struct engine *e;

	if (model_field(request, err))
		return NULL;
	e = model		? weftd_engine(d, json_string_value(model))
	    : d->n_engines == 1 ? &d->engines[0]
				: NULL;
	if (!e && model)
		err_set(err, -ENOENT, "no model \"%.64s\" is served", json_string_value(model));
	else if (!e && !d->n_engines)
		err_set(err, -ENOENT, "no model is served: weftd's configuration has none");
	else if (!e)
		err_set(err, -EINVAL, "%u models are served: name one", d->n_engines);
	return e;
}

int admin_known_fields(const json_t *request, const char *known, struct weft_err *err)
{
	const char *key;
	json_t *v;

	json_object_foreach((json_t *)request, key, v)
	{
		size_t n = strlen(key);
		const char *at = strstr(known, key);

		while (at && !((at == known || at[-1] == ' ') && (!at[n] || at[n] == ' ')))
			at = strstr(at + 1, key);
		if (!n || !at)
			return err_set(err, -EINVAL, "unknown field \"%.64s\" (known: %s)", key,
				       known);
	}
	return 0;
}

int admin_flag(const json_t *request, const char *key, bool *ret, struct weft_err *err)
{
	const json_t *v = json_object_get(request, key);

	if (v && !json_is_boolean(v))
		return err_set(err, -EINVAL, "%s must be true or false", key);
	*ret = json_is_true(v);
	return 0;
}

static int text_field(const json_t *request, const char *key, char *ret, size_t bytes,
		      struct weft_err *err)
{
	const json_t *v = json_object_get(request, key);

	if (!json_is_string(v) || !json_string_length(v) || json_string_length(v) >= bytes ||
	    strlen(json_string_value(v)) != json_string_length(v))
		return err_set(err, -EINVAL, "%s must be a text of 1 to %zu bytes", key, bytes - 1);
	strcpy(ret, json_string_value(v));
	return 0;
}

static int optional_fields(const json_t *request, struct config_adapter *c, struct weft_err *err)
{
	const json_t *offset = json_object_get(request, "activation_offset");
	const json_t *missing = json_object_get(request, "on_missing_invocation");
	json_int_t n = json_integer_value(offset);

	if (offset && (!json_is_integer(offset) || n < -CONFIG_MAX_OFFSET || n > CONFIG_MAX_OFFSET))
		return err_set(err, -EINVAL, "activation_offset must be a number from %d to %d",
			       -CONFIG_MAX_OFFSET, CONFIG_MAX_OFFSET);
	c->activation_offset = (int32_t)n;
	if (missing && (!json_is_string(missing) ||
			config_on_missing(json_string_value(missing), &c->on_missing)))
		return err_set(err, -EINVAL, "on_missing_invocation must be error, base or append");
	return 0;
}

static int parse_load(struct weftd *d, const json_t *request, struct registry_load *ret,
		      struct weft_err *err)
{
	struct config_adapter *c = &ret->conf;
	int rc = admin_known_fields(request,
				    "cmd name path model activation_offset on_missing_invocation "
				    "replace force",
				    err);

	*ret = (struct registry_load){0};
	if (!rc)
		rc = text_field(request, "name", c->name, sizeof(c->name), err);
	if (!rc && !config_name_ok(c->name))
		rc = err_set(err, -EINVAL, "a name has 1 to %u letters, digits and ._-:/",
			     WCTL_NAME_BYTES - 1);
	if (!rc)
		rc = text_field(request, "path", c->path, sizeof(c->path), err);
	if (!rc && *c->path != '/')
		rc = err_set(err, -EINVAL, "path must be absolute");
	if (!rc)
		rc = optional_fields(request, c, err);
	if (!rc)
		rc = admin_flag(request, "replace", &ret->replace, err);
	if (!rc)
		rc = admin_flag(request, "force", &ret->force, err);
	if (rc)
		return rc;
	ret->engine = admin_engine(d, request, err);
	if (!ret->engine)
		return err->code;
	strcpy(c->model, ret->engine->conf.name);
	return d->draining ? err_set(err, -ESHUTDOWN, "weftd is shutting down") : 0;
}

json_t *admin_adapter_load(struct weftd *d, struct admin_conn *c, const json_t *request)
{
	struct registry_load how;
	struct weft_err err = {0};

	if (parse_load(d, request, &how, &err))
		return admin_reply_error(err.message);
	how.ticket = admin_wait(c);
	if (registry_load(d, &how, &err))
		admin_answer(d, how.ticket, admin_reply_error(err.message));
	return NULL;
}

/* What was never loaded goes from the file; NULL: there is none such. model, name: NULL for any. */
static json_t *forget(struct weftd *d, const char *model, const char *name)
{
	struct weft_err err = {0};
	int n = registry_file_forget(d, model, name, &err);

	if (n < 0)
		return admin_reply_error(err.message);
	return n || !name ? json_pack("{s:b, s:i}", "ok", 1, "dropped", n) : NULL;
}

json_t *admin_adapter_unload(struct weftd *d, struct admin_conn *c, const json_t *request)
{
	const char *model = json_string_value(json_object_get(request, "model"));
	bool force = false, skipped = false;
	struct registry_entry *it;
	char name[WCTL_NAME_BYTES];
	struct weft_err err = {0};
	struct engine *e;
	uint64_t ticket;
	json_t *j;

	if (admin_known_fields(request, "cmd name model force skipped", &err) ||
	    admin_flag(request, "force", &force, &err) ||
	    admin_flag(request, "skipped", &skipped, &err) || model_field(request, &err))
		return admin_reply_error(err.message);
	if (skipped)
		return json_object_get(request, "name")
			       ? admin_reply_error("either a name, or all that were skipped")
			       : forget(d, model, NULL);
	if (text_field(request, "name", name, sizeof(name), &err))
		return admin_reply_error(err.message);
	e = admin_engine(d, request, &err);
	it = e ? registry_find(d, e, name) : NULL;
	if (!it) {
		if (e)
			err_set(&err, -ENOENT, "model %s has no adapter %s", e->conf.name, name);
		j = forget(d, model, name);
		return j ? j : admin_reply_error(err.message);
	}
	ticket = admin_wait(c);
	if (registry_unload(it, force, ticket, &err))
		admin_answer(d, ticket, admin_reply_error(err.message));
	return NULL;
}

/* Of a file of thousands it is told which come first, and how many there are. */
#define MOST_SKIPPED 100u

json_t *admin_adapter_list(struct weftd *d, struct admin_conn *c, const json_t *request)
{
	const char *model = json_string_value(json_object_get(request, "model"));
	struct weft_err err = {0};
	struct engine *e = NULL;
	json_t *list;
	size_t skipped;

	if (admin_known_fields(request, "cmd model", &err) || model_field(request, &err))
		return admin_reply_error(err.message);
	list = json_array();
	skipped = registry_file_skipped(d, model, 0, list);
	if (model && !(e = admin_engine(d, request, &err)) && !skipped) {
		json_decref(list);
		return admin_reply_error(err.message);
	}
	for (const struct registry_entry *it = d->registry.first; it; it = it->next)
		if (!model || it->engine == e)
			json_array_append_new(list, admin_reply_adapter(it));
	registry_file_skipped(d, model, MOST_SKIPPED, list);
	return json_pack("{s:b, s:o, s:I}", "ok", 1, "adapters", list, "skipped",
			 (json_int_t)skipped);
}
