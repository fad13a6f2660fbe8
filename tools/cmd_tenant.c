/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_tenant.c - `weft tenant list|sessions`: who is served, with what quotas, and what of them is
 * in use; and every session that is open. Through the admin socket.
 */
#include "tools/admin_client.h"
#include "tools/json_path.h"

#include <stdio.h>

static int json;

static const struct cli_option table[] = {
	ADMIN_OPTIONS,
	{"json", 'j', NULL, NULL, &json, "a JSON list"},
};

#define N_OPTIONS (sizeof(table) / sizeof(*table))

/* --- list ----------------------------------------------------------------------------------------*/

static const struct cli_command list_command = {
	"tenant list", "",	  "List the tenants: quotas, and what they have in use.",
	table,	       N_OPTIONS, 0,
};

/* Over all engines. */
static json_int_t sum(const json_t *engines, const char *tenant, const char *key)
{
	json_int_t total = 0;
	json_t *e;
	size_t i;

	json_array_foreach((json_t *)engines, i, e) total +=
		admin_int(json_path_named(json_path(e, "engine.tenants"), "name", tenant), key);
	return total;
}

/* The daemon's part of a tenant, with the engines' counts beside it. */
static json_t *tenant_of(const json_t *tenant, const json_t *engines)
{
	static const char *const keys[] = {"in_flight",	    "queued_tokens", "blocks",
					   "requests",	    "refused",	     "tokens_in",
					   "tokens_cached", "tokens_out"};
	json_t *o = json_deep_copy(tenant);

	for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++)
		json_object_set_new(
			o, keys[i],
			json_integer(sum(engines, admin_text(tenant, "tenant"), keys[i])));
	return o;
}

static json_t *tenants_of(const json_t *status)
{
	json_t *all = json_array(), *t;
	size_t i;

	json_array_foreach(json_object_get(status, "tenants"), i, t)
		json_array_append_new(all, tenant_of(t, json_object_get(status, "engines")));
	return all;
}

static void say_missing(const json_t *engines)
{
	json_t *e;
	size_t i;

	json_array_foreach((json_t *)engines, i, e)
	{
		if (!json_is_object(json_path(e, "engine")))
			cli_fail("the engine of %s has not answered: its counts are missing",
				 admin_text(e, "model"));
	}
}

static int list(int argc, char **argv)
{
	json_t *status, *all, *t;
	size_t i;

	cli_parse(&list_command, argc, argv);
	status = admin_do(json_pack("{s:s}", "cmd", "status"), ADMIN_QUICK, false);
	if (!status)
		return 1;
	all = tenants_of(status);
	say_missing(json_path(status, "engines"));
	json_decref(status);
	if (json) {
		admin_print(all);
		json_decref(all);
		return 0;
	}
	printf("%-20s %6s %9s %11s %8s %8s %8s %10s %10s %10s\n", "tenant", "weight", "sessions",
	       "in flight", "queued", "requests", "refused", "tokens in", "cached", "tokens out");
	json_array_foreach(all, i, t)
	{
		char in_use[32], sessions[32];

		snprintf(sessions, sizeof(sessions), "%lld/%lld", admin_int(t, "sessions"),
			 admin_int(t, "max_sessions"));
		snprintf(in_use, sizeof(in_use), "%lld/%lld", admin_int(t, "in_flight"),
			 admin_int(t, "max_in_flight"));
		cli_printf(stdout, "%-20s %6lld %9s %11s %8lld %8lld %8lld %10lld %10lld %10lld\n",
			   admin_text(t, "tenant"), admin_int(t, "weight"), sessions, in_use,
			   admin_int(t, "queued_tokens"), admin_int(t, "requests"),
			   admin_int(t, "refused"), admin_int(t, "tokens_in"),
			   admin_int(t, "tokens_cached"), admin_int(t, "tokens_out"));
	}
	json_decref(all);
	return 0;
}

/* --- sessions ------------------------------------------------------------------------------------*/

static const struct cli_command sessions_command = {
	"tenant sessions", "", "List the open sessions: whose, and of which process.", table,
	N_OPTIONS,	   0,
};

static int sessions(int argc, char **argv)
{
	json_t *reply, *all, *s;
	size_t i;

	cli_parse(&sessions_command, argc, argv);
	reply = admin_do(json_pack("{s:s}", "cmd", "sessions"), ADMIN_QUICK, false);
	if (!reply)
		return 1;
	all = json_object_get(reply, "sessions");
	if (json)
		admin_print(all);
	else
		printf("%8s %-20s %-16s %8s %8s %6s %10s %9s  %s\n", "session", "tenant", "model",
		       "uid", "pid", "slots", "memory", "age", "link");
	json_array_foreach(all, i, s)
	{
		if (json)
			break;
		cli_printf(stdout, "%8lld %-20s %-16s %8lld %8lld %6lld %7.1f MB %7.1f s  %s\n",
			   admin_int(s, "session"), admin_text(s, "tenant"), admin_text(s, "model"),
			   admin_int(s, "uid"), admin_int(s, "pid"), admin_int(s, "slots"),
			   (double)admin_int(s, "region_bytes") / 1e6,
			   (double)admin_int(s, "age_ms") / 1e3, admin_text(s, "link"));
	}
	json_decref(reply);
	return 0;
}

int cmd_tenant(int argc, char **argv)
{
	static const struct cli_entry entries[] = {
		{"list", list, "tenants, their quotas, and what they have in use"},
		{"sessions", sessions, "every session that is open"},
	};

	return cli_subcommand("weft tenant", entries, 2, argc, argv);
}
