/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin_cache.c - administrators' commands about engines' caches.
 *
 *   {"cmd":"cache-pin","tokens":[1,2,...],"tenant":T}   or "public":true; answered when pinned
 *   {"cmd":"cache-unpin","id":N}
 *   {"cmd":"cache-pins"}
 *   {"cmd":"cache-drop","tenant":T}                     or "public":true, or "all":true
 *
 * "model":M is needed when several models are served, "tenant" when there are several tenants. What is to be
 * dropped is always said: that there is one tenant only today is no reason to lose what it has.
 */
#include "daemon/supervisor/admin_reply.h"
#include "daemon/supervisor/weftd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The only tenant there is, or -ENOENT. */
static int only_tenant(const struct weftd *d)
{
	int index = -ENOENT;

	for (uint32_t i = 0; i < d->tenants.n; i++) {
		if (!d->tenants.tenant[i].configured)
			continue;
		if (index >= 0)
			return -ENOENT;
		index = (int)i;
	}
	return index;
}

/* The domain of "tenant" or "public". */
static int parse_domain(const struct weftd *d, const json_t *request, uint32_t *ret,
			struct weft_err *err)
{
	const json_t *tenant = json_object_get(request, "tenant");
	bool public = false;
	int index;

	if (admin_flag(request, "public", &public, err))
		return err->code;
	if (tenant && (public || !json_is_string(tenant)))
		return err_set(err, -EINVAL, "either public or the name of one tenant");
	if (public) {
		*ret = ENGINE_PUBLIC;
		return 0;
	}
	index = tenant ? tenants_find(&d->tenants, json_string_value(tenant)) : only_tenant(d);
	if (index < 0 && tenant)
		return err_set(err, index, "there is no tenant \"%.64s\"",
			       json_string_value(tenant));
	if (index < 0)
		return err_set(err, index, "there are several tenants: name one, or public");
	*ret = (uint32_t)index;
	return 0;
}

/* Owner of *ret is the caller. */
static int parse_tokens(const json_t *request, uint32_t **ret, uint32_t *ret_n,
			struct weft_err *err)
{
	const json_t *list = json_object_get(request, "tokens");
	size_t n = json_array_size(list);
	uint32_t *tokens;

	if (!n || n > PIN_MAX_TOKENS)
		return err_set(err, -EINVAL, "tokens must be a list of 1 to %u ids",
			       PIN_MAX_TOKENS);
	tokens = malloc(n * sizeof(*tokens));
	if (!tokens)
		return err_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < n; i++) {
		const json_t *v = json_array_get(list, i);
		json_int_t id = json_integer_value(v);

		if (!json_is_integer(v) || id < 0 || id > UINT32_MAX) {
			free(tokens);
			return err_set(err, -EINVAL, "token %zu is no id", i);
		}
		tokens[i] = (uint32_t)id;
	}
	*ret = tokens;
	*ret_n = (uint32_t)n;
	return 0;
}

json_t *admin_cache_pin(struct weftd *d, struct admin_conn *c, const json_t *request)
{
	struct weft_err err = {0};
	uint32_t domain, *tokens = NULL, n = 0;
	struct engine *e;
	uint64_t ticket;

	if (admin_known_fields(request, "cmd tokens tenant public model", &err) ||
	    !(e = admin_engine(d, request, &err)) || parse_domain(d, request, &domain, &err) ||
	    parse_tokens(request, &tokens, &n, &err))
		return admin_reply_error(err.message);
	ticket = admin_wait(c);
	if (pins_add(e, domain, tokens, n, ticket, &err)) {
		free(tokens);
		admin_answer(d, ticket, admin_reply_error(err.message));
	}
	return NULL;
}

json_t *admin_cache_unpin(struct weftd *d, struct admin_conn *c, const json_t *request)
{
	const json_t *id = json_object_get(request, "id");
	struct weft_err err = {0};
	char text[200];
	json_t *j;
	int left;

	if (admin_known_fields(request, "cmd id", &err))
		return admin_reply_error(err.message);
	if (!json_is_integer(id) || json_integer_value(id) <= 0)
		return admin_reply_error("id must be a pin's number");
	if (pins_remove(d, (uint64_t)json_integer_value(id), &left, &err))
		return admin_reply_error(err.message);
	j = json_pack("{s:b}", "ok", 1);
	snprintf(text, sizeof(text),
		 "its file in the state directory could not be removed (%s): a weftd that is "
		 "started again pins it again",
		 strerror(-left));
	if (left)
		json_object_set_new(j, "warning", json_string(text));
	return j;
}

json_t *admin_cache_pins(struct weftd *d, struct admin_conn *c, const json_t *request)
{
	return json_pack("{s:b, s:o}", "ok", 1, "pins", pins_list(d));
}

json_t *admin_cache_drop(struct weftd *d, struct admin_conn *c, const json_t *request)
{
	bool tenant = json_object_get(request, "tenant"), all = false, public = false;
	struct weft_err err = {0};
	uint32_t domain = 0;
	struct engine *e;
	uint64_t ticket;

	if (admin_known_fields(request, "cmd tenant public all model", &err) ||
	    admin_flag(request, "all", &all, &err) || admin_flag(request, "public", &public, &err))
		return admin_reply_error(err.message);
	if (tenant + all + public != 1)
		return admin_reply_error("either all, or public, or the name of one tenant");
	if (!(e = admin_engine(d, request, &err)) ||
	    (!all && parse_domain(d, request, &domain, &err)))
		return admin_reply_error(err.message);
	ticket = admin_wait(c);
	if (pins_drop(e, domain, all, ticket, &err))
		admin_answer(d, ticket, admin_reply_error(err.message));
	return NULL;
}
