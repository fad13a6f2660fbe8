/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_cache.c - `weft cache ...`: what engines have cached, prefixes that stay, caches emptied. All
 * through the admin socket.
 */
#include "tools/admin_client.h"
#include "tools/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int json, public, all;
static const char *model, *tenant, *file;

/* Whom a request is about, as far as it was said. */
static json_t *request_of(const char *cmd)
{
	json_t *j = json_pack("{s:s}", "cmd", cmd);

	if (model)
		json_object_set_new(j, "model", json_string(model));
	if (tenant)
		json_object_set_new(j, "tenant", json_string(tenant));
	if (public)
		json_object_set_new(j, "public", json_true());
	return j;
}

/* --- stat ----------------------------------------------------------------------------------------*/

static const struct cli_option stat_table[] = {
	{"model", 'm', "NAME", cli_set_str, &model, "only this model"},
	ADMIN_OPTIONS,
	{"json", 'j', NULL, NULL, &json, "a JSON list"},
};

static const struct cli_command stat_command = {
	"cache stat",
	"",
	"Show the pools and caches of the engines, and of their tenants.",
	stat_table,
	sizeof(stat_table) / sizeof(*stat_table),
	0,
};

/* What concerns memory and cache, of all that an engine says. */
static json_t *cache_of(const json_t *engine)
{
	static const char *const keys[] = {"blocks",	       "blocks_free", "blocks_idle",
					   "block_bytes",      "pins",	      "adapters_placed",
					   "adapters_evicted", "cache",	      "tenants"};
	const json_t *own = json_object_get(engine, "engine");
	json_t *o = json_pack("{s:s, s:s}", "model", admin_text(engine, "model"), "state",
			      admin_text(engine, "state"));

	for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
		json_t *v = json_object_get(own, keys[i]);

		if (v)
			json_object_set(o, keys[i], v);
	}
	return o;
}

static int stat_main(int argc, char **argv)
{
	json_t *reply, *engine, *list = json_array(), *shown;
	size_t i;

	cli_parse(&stat_command, argc, argv);
	reply = admin_do(json_pack("{s:s}", "cmd", "status"), ADMIN_QUICK, false);
	json_array_foreach(json_object_get(reply, "engines"), i, engine)
	{
		if (!model || !strcmp(model, admin_text(engine, "model")))
			json_array_append_new(list, cache_of(engine));
	}
	if (reply && json) {
		admin_print(list);
	} else {
		json_array_foreach(list, i, shown) admin_show(shown, 0);
	}
	if (reply && !json_array_size(list))
		cli_fail(model ? "no model \"%s\" is served" : "no model is served", model);
	i = reply && json_array_size(list) ? 0 : 1;
	json_decref(list);
	json_decref(reply);
	return (int)i;
}

/* --- pins ----------------------------------------------------------------------------------------*/

static const struct cli_option pin_table[] = {
	{"public", 0, NULL, NULL, &public, "for all tenants to read"},
	{"tenant", 't', "NAME", cli_set_str, &tenant, "for this one; default the only one"},
	{"model", 'm', "NAME", cli_set_str, &model, "default the only one"},
	{"file", 'f', "PATH", cli_set_str, &file, "the tokens, \"-\": standard input"},
	ADMIN_OPTIONS,
	{"json", 'j', NULL, NULL, &json, "the daemon's reply as it is"},
};

static const struct cli_command pin_command = {
	"cache pin",
	"[TOKEN...]",
	"Compute a prefix and keep it in the cache, until it is unpinned.",
	pin_table,
	sizeof(pin_table) / sizeof(*pin_table),
	-1,
};

static json_t *ids(const struct cli_tokens *t)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < t->n; i++)
		json_array_append_new(list, json_integer(t->tokens[i]));
	return list;
}

static int pin(int argc, char **argv)
{
	struct cli_tokens t = {0};
	json_t *request, *reply, *it;
	int n = cli_parse(&pin_command, argc, argv);

	if (!n && !file)
		return cli_usage("give it tokens, or --file");
	if (cli_read_prompt(&t, n, argv, file)) {
		free(t.tokens);
		return 1;
	}
	request = request_of("cache-pin");
	json_object_set_new(request, "tokens", ids(&t));
	free(t.tokens);
	reply = admin_do(request, ADMIN_LONG, json);
	if (!reply)
		return 1;
	it = json_object_get(reply, "pin");
	if (!json)
		printf("pin %lld: %lld of %lld tokens\n", admin_int(it, "id"),
		       admin_int(it, "pinned_tokens"), admin_int(it, "tokens"));
	if (*admin_text(it, "why"))
		cli_fail("warning: %s", admin_text(it, "why"));
	json_decref(reply);
	return 0;
}

static const struct cli_command unpin_command = {
	"cache unpin", "ID", "Let a pinned prefix go: from now on it is cached like any other.",
	&pin_table[4], 3,    1,
};

static int unpin(int argc, char **argv)
{
	uint32_t id = 0;
	json_t *reply;

	if (cli_parse(&unpin_command, argc, argv) != 1 || cli_set_u32(&id, argv[1]) || !id)
		return cli_usage("name the pin by its number (weft cache pins)");
	reply = admin_do(json_pack("{s:s, s:i}", "cmd", "cache-unpin", "id", (int)id), ADMIN_QUICK,
			 json);
	if (reply && !json)
		printf("pin %u is released\n", id);
	if (*admin_text(reply, "warning"))
		cli_fail("warning: %s", admin_text(reply, "warning"));
	json_decref(reply);
	return reply ? 0 : 1;
}

static const struct cli_command pins_command = {
	"cache pins", "", "List the pinned prefixes.", &pin_table[4], 3, 0,
};

static int pins(int argc, char **argv)
{
	json_t *reply, *p;
	size_t i;

	cli_parse(&pins_command, argc, argv);
	reply = admin_do(json_pack("{s:s}", "cmd", "cache-pins"), ADMIN_QUICK, json);
	if (!reply)
		return 1;
	if (!json)
		printf("%6s %-16s %-16s %-9s %8s %8s  %s\n", "id", "model", "tenant", "state",
		       "tokens", "pinned", "why");
	json_array_foreach(json_object_get(reply, "pins"), i, p)
	{
		if (!json)
			cli_line(stdout, "%6lld %-16s %-16s %-9s %8lld %8lld  %s",
				 admin_int(p, "id"), admin_text(p, "model"),
				 json_is_true(json_object_get(p, "public"))
					 ? "(public)"
					 : admin_text(p, "tenant"),
				 admin_text(p, "state"), admin_int(p, "tokens"),
				 admin_int(p, "pinned_tokens"), admin_text(p, "why"));
	}
	json_decref(reply);
	return 0;
}

/* --- drop ----------------------------------------------------------------------------------------*/

static const struct cli_option drop_table[] = {
	{"tenant", 't', "NAME", cli_set_str, &tenant, "what this one's requests have left"},
	{"public", 0, NULL, NULL, &public, "what is public"},
	{"all", 'a', NULL, NULL, &all, "what is public, and all tenants'"},
	{"model", 'm', "NAME", cli_set_str, &model, "default the only one"},
	ADMIN_OPTIONS,
	{"json", 'j', NULL, NULL, &json, "the daemon's reply as it is"},
};

static const struct cli_command drop_command = {
	"cache drop",
	"",
	"Forget what a tenant has cached, what is public, or all of it (say which), but for what "
	"is\n"
	"pinned or in use; and say how many blocks were freed.",
	drop_table,
	sizeof(drop_table) / sizeof(*drop_table),
	0,
};

static void say_dropped(const json_t *reply)
{
	const char *of = *admin_text(reply, "tenant") ? admin_text(reply, "tenant")
			 : public		      ? "(public)"
						      : "(all)";

	if (json_is_true(json_object_get(reply, "engine_ended")))
		cli_line(stdout, "%s: the engine has ended, and all that was cached is gone",
			 admin_text(reply, "model"));
	else
		cli_line(stdout, "%s, %s: %lld blocks freed", admin_text(reply, "model"), of,
			 admin_int(reply, "blocks"));
}

static int drop(int argc, char **argv)
{
	json_t *request, *reply;

	cli_parse(&drop_command, argc, argv);
	if (!!tenant + public + all != 1)
		return cli_usage("say what: --tenant NAME, --public or --all");
	request = request_of("cache-drop");
	if (all)
		json_object_set_new(request, "all", json_true());
	reply = admin_do(request, ADMIN_LONG, json);
	if (!reply)
		return 1;
	if (!json)
		say_dropped(reply);
	json_decref(reply);
	return 0;
}

static const struct cli_entry commands[] = {
	{"stat", stat_main, "pools and caches, hits and misses"},
	{"pin", pin, "compute a prefix and keep it"},
	{"unpin", unpin, "let one go"},
	{"pins", pins, "those that are kept"},
	{"drop", drop, "empty a cache"},
};

int cmd_cache(int argc, char **argv)
{
	return cli_subcommand("weft cache", commands, sizeof(commands) / sizeof(*commands), argc,
			      argv);
}
