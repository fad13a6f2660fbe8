/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_daemon.c - `weft reload`, `weft drain`, `weft restart`: what an administrator tells the daemon
 * as a whole, through the admin socket. Each says in a line what comes of it.
 */
#include "tools/admin_client.h"

#include <stdio.h>

static int json;

/* --- reload --------------------------------------------------------------------------------------*/

static const struct cli_option reload_table[] = {
	ADMIN_OPTIONS,
	{"json", 'j', NULL, NULL, &json, "the daemon's reply as it is"},
};

static const struct cli_command reload_command = {
	"reload",
	"",
	"Read the configuration again and apply what can change while it serves: tenants and\n"
	"adapters. With a mistake in it nothing changes.",
	reload_table,
	sizeof(reload_table) / sizeof(*reload_table),
	0,
};

int cmd_reload(int argc, char **argv)
{
	json_t *reply;

	cli_parse(&reload_command, argc, argv);
	reply = admin_do(json_pack("{s:s}", "cmd", "reload"), ADMIN_QUICK, json);
	if (!reply)
		return 1;
	if (!json)
		cli_printf(stdout, "%s\n", admin_text(reply, "text"));
	json_decref(reply);
	return 0;
}

/* --- drain ---------------------------------------------------------------------------------------*/

static uint32_t seconds = UINT32_MAX; /* as configured */

static const struct cli_option drain_table[] = {
	{"seconds", 's', "N", cli_set_u32, &seconds,
	 "how long requests under way may take; default: drain_seconds of the configuration"},
	ADMIN_OPTIONS,
	{"json", 'j', NULL, NULL, &json, "the daemon's reply as it is"},
};

static const struct cli_command drain_command = {
	"drain",
	"",
	"End the daemon: nothing new is taken, what is under way is finished first.",
	drain_table,
	sizeof(drain_table) / sizeof(*drain_table),
	0,
};

int cmd_drain(int argc, char **argv)
{
	json_t *request, *reply;

	cli_parse(&drain_command, argc, argv);
	request = json_pack("{s:s}", "cmd", "drain");
	if (seconds != UINT32_MAX)
		json_object_set_new(request, "seconds", json_integer(seconds));
	reply = admin_do(request, ADMIN_QUICK, json);
	if (!reply)
		return 1;
	if (!json)
		puts("weftd finishes what is under way, and ends");
	json_decref(reply);
	return 0;
}

/* --- restart -------------------------------------------------------------------------------------*/

static const struct cli_option restart_table[] = {
	ADMIN_OPTIONS,
	{"json", 'j', NULL, NULL, &json, "the daemon's reply as it is"},
};

static const struct cli_command restart_command = {
	"restart",
	"[MODEL]",
	"Kill a model's engine and start it again; the only model's if none is named.\n"
	"Requests go on where they were.",
	restart_table,
	sizeof(restart_table) / sizeof(*restart_table),
	1,
};

int cmd_restart(int argc, char **argv)
{
	json_t *request, *reply;
	int n = cli_parse(&restart_command, argc, argv);

	request = json_pack("{s:s}", "cmd", "engine-restart");
	if (n)
		json_object_set_new(request, "model", json_string(argv[1]));
	reply = admin_do(request, ADMIN_QUICK, json);
	if (!reply)
		return 1;
	if (!json)
		puts("its engine starts again");
	json_decref(reply);
	return 0;
}
