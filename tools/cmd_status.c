/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_status.c - `weft status`: what weftd says of itself and its engines, through the admin
 * socket. The reply is one line of JSON; it is shown as it is (--json) or as an indented list, so
 * that nothing the daemon adds is hidden.
 */
#include "tools/admin_client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int json;

static const struct cli_option options[] = {
	ADMIN_OPTIONS,
	{"json", 'j', NULL, NULL, &json, "the daemon's reply as it is"},
};

static const struct cli_command command = {
	"status",
	"",
	"Show the daemon, its engines, sessions and counters.",
	options,
	sizeof(options) / sizeof(*options),
	0,
};

static void show(const json_t *j)
{
	admin_show(j, 0);
	if (!json_array_size(json_object_get(j, "engines")))
		cli_printf(stdout,
			   "nobody is served: weftd's configuration has no [model NAME] section\n");
}

int cmd_status(int argc, char **argv)
{
	json_t *j;

	cli_parse(&command, argc, argv);
	j = admin_do(json_pack("{s:s}", "cmd", "status"), ADMIN_QUICK, json);
	if (!j)
		return 1;
	if (!json)
		show(j);
	json_decref(j);
	return 0;
}
