/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_adapter.c - `weft adapter ...`: load, unload and list the daemon's adapters; make a folder with
 * random weights for a model, and say what a folder holds, which need no daemon.
 */
#include "daemon/common/err.h"
#include "tools/adapter_make.h"
#include "tools/admin_client.h"
#include "tools/cli.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

static int json;

/* --- folders -------------------------------------------------------------------------------------*/

static struct adapter_make_options make_options = {
	.targets = "all",
	.dtype = "bf16",
	.rank = 16,
	.alpha = -1,
	.strength = 0.5,
	.seed = 1,
};
static struct cli_tokens invocation;
static int rslora;

static const struct cli_option make_table[] = {
	{"model", 'm', "DIR", cli_set_str, &make_options.model, "the model's folder; needed"},
	{"rank", 'r', "N", cli_set_u32, &make_options.rank, "1..1024; default 16"},
	{"alpha", 0, "X", cli_set_double, &make_options.alpha, "default twice the rank"},
	{"rslora", 0, NULL, NULL, &rslora, "scale by alpha / sqrt(rank), not alpha / rank"},
	{"targets", 't', "LIST", cli_set_str, &make_options.targets,
	 "of q,k,v,o,gate,up,down; default all"},
	{"invocation", 'i', "IDS", cli_set_tokens, &invocation,
	 "tokens that activate it: makes an aLoRA"},
	{"dtype", 0, "NAME", cli_set_str, &make_options.dtype, "bf16 (default), f16, f32"},
	{"scale", 0, "X", cli_set_double, &make_options.strength,
	 "size of what it adds to a linear's output, relative to that; default 0.5"},
	{"seed", 0, "N", cli_set_u64, &make_options.seed, "same seed, same bytes; default 1"},
	{"json", 'j', NULL, NULL, &json, "one JSON object"},
};

static const struct cli_command make_command = {
	"adapter make",
	"DIR",
	"Write a PEFT folder of a LoRA or aLoRA with random weights for a model.",
	make_table,
	sizeof(make_table) / sizeof(*make_table),
	1,
};

static int make(int argc, char **argv)
{
	struct weft_err e;
	int r;

	if (cli_parse(&make_command, argc, argv) != 1 || !make_options.model)
		return cli_usage("name the folder to write and --model");
	make_options.dir = argv[1];
	make_options.rslora = rslora;
	make_options.invocation = invocation.tokens;
	make_options.n_invocation = invocation.n;
	r = adapter_make(&make_options, &e);
	free(invocation.tokens);
	if (!r && json)
		r = adapter_info(argv[1], make_options.model, true, stdout, &e);
	return r ? cli_fail("%s", e.message) : 0;
}

/* --- the daemon's --------------------------------------------------------------------------------*/

static const char *model;

/* The daemon's adapters, of one model if it is named; NULL after a message. */
static json_t *fetch(void)
{
	json_t *request = json_pack("{s:s}", "cmd", "adapter-list");

	if (model)
		json_object_set_new(request, "model", json_string(model));
	return admin_do(request, ADMIN_QUICK, false);
}

/* "5,6 why not": what is in the last column, which may be long; freed by the caller. */
static char *last_column(const json_t *a)
{
	const json_t *v;
	char *text;
	size_t i, bytes;
	FILE *f = open_memstream(&text, &bytes);

	if (!f)
		return NULL;
	json_array_foreach(json_object_get(a, "invocation"), i, v)
		fprintf(f, "%s%lld", i ? "," : "", json_integer_value(v));
	fprintf(f, "%s%s", i && *admin_text(a, "why") ? " " : "", admin_text(a, "why"));
	return fclose(f) ? NULL : text;
}

/* A number, or what stands for one that is not known. */
static const char *number(char *buf, size_t bytes, const json_t *v, double unit, const char *format)
{
	if (!json_is_integer(v))
		return "-";
	snprintf(buf, bytes, format, (double)json_integer_value(v) / unit);
	return buf;
}

static const char *origin(const json_t *a)
{
	return json_is_true(json_object_get(a, "configured"))	      ? "config"
	       : json_is_true(json_object_get(a, "survives_restart")) ? "loaded"
								      : "unsaved";
}

static void print_adapter(const json_t *a)
{
	const json_t *rank = json_object_get(a, "rank"), *pool = json_object_get(a, "pool_bytes");
	char buf[2][32], *last = last_column(a);

	cli_line(stdout, "%-20s %-16s %-9s %-7s %-5s %4s %8s  %s", admin_text(a, "name"),
		 admin_text(a, "model"), admin_text(a, "state"), origin(a),
		 *admin_text(a, "kind") ? admin_text(a, "kind") : "-",
		 number(buf[0], sizeof(buf[0]), rank, 1, "%.0f"),
		 number(buf[1], sizeof(buf[1]), pool, 1e6, "%.1f MB"), last ? last : "");
	free(last);
}

static const struct cli_option list_table[] = {
	{"model", 'm', "NAME", cli_set_str, &model, "only those of this model"},
	ADMIN_OPTIONS,
	{"json", 'j', NULL, NULL, &json, "a JSON list"},
};

static const struct cli_command list_command = {
	"adapter list",
	"",
	"List the adapters that the daemon has, or is about to have.",
	list_table,
	sizeof(list_table) / sizeof(*list_table),
	0,
};

static int list(int argc, char **argv)
{
	json_t *reply, *adapters, *a;
	long long shown = 0;
	size_t i;

	cli_parse(&list_command, argc, argv);
	reply = fetch();
	if (!reply)
		return 1;
	adapters = json_object_get(reply, "adapters");
	if (json) {
		admin_print(adapters);
		json_decref(reply);
		return 0;
	}
	printf("%-20s %-16s %-9s %-7s %-5s %4s %8s  %s\n", "name", "model", "state", "from", "kind",
	       "rank", "pool", "invocation, or why");
	json_array_foreach(adapters, i, a)
	{
		print_adapter(a);
		shown += !strcmp(admin_text(a, "state"), "skipped");
	}
	if (admin_int(reply, "skipped") > shown)
		printf("and %lld more that were skipped\n", admin_int(reply, "skipped") - shown);
	json_decref(reply);
	return 0;
}

/* Done, but not all of it. */
static void warn(const json_t *reply)
{
	if (*admin_text(reply, "warning"))
		cli_fail("warning: %s", admin_text(reply, "warning"));
}

static int replace, force;
static int32_t offset;
static const char *on_missing;

static const struct cli_option load_table[] = {
	{"model", 'm', "NAME", cli_set_str, &model, "its model; default the only one"},
	{"offset", 0, "N", cli_set_i32, &offset,
	 "added to the position at which the invocation starts"},
	{"on-missing", 0, "WHAT", cli_set_str, &on_missing,
	 "error (default), base or append, when a prompt lacks the invocation"},
	{"replace", 0, NULL, NULL, &replace, "unload one of that name first"},
	{"force", 0, NULL, NULL, &force, "with --replace: end the requests that use it"},
	ADMIN_OPTIONS,
	{"json", 'j', NULL, NULL, &json, "the daemon's reply as it is"},
};

static const struct cli_command load_command = {
	"adapter load",
	"NAME DIR",
	"Load an adapter from its PEFT folder into the daemon.",
	load_table,
	sizeof(load_table) / sizeof(*load_table),
	2,
};

static int load(int argc, char **argv)
{
	char path[PATH_MAX];
	json_t *request, *reply, *a;

	if (cli_parse(&load_command, argc, argv) != 2)
		return cli_usage("give it a name, and name its folder");
	if (!realpath(argv[2], path))
		return cli_fail("%s: %s", argv[2], strerror(errno));
	request = json_pack("{s:s, s:s, s:s, s:i, s:b, s:b}", "cmd", "adapter-load", "name",
			    argv[1], "path", path, "activation_offset", (int)offset, "replace",
			    replace, "force", force);
	if (!request)
		return cli_fail("a name or path that is no UTF-8");
	if (model)
		json_object_set_new(request, "model", json_string(model));
	if (on_missing)
		json_object_set_new(request, "on_missing_invocation", json_string(on_missing));
	reply = admin_do(request, ADMIN_LONG, json);
	if (!reply)
		return 1;
	a = json_object_get(reply, "adapter");
	if (!json)
		cli_line(stdout, "%s: %s of rank %lld, %.1f MB in the pool", argv[1],
			 admin_text(a, "kind"), admin_int(a, "rank"),
			 (double)admin_int(a, "pool_bytes") / 1e6);
	warn(reply);
	json_decref(reply);
	return 0;
}

static uint32_t wait_seconds;

static int skipped;

static const struct cli_option unload_table[] = {
	{"model", 'm', "NAME", cli_set_str, &model, "its model; default the only one"},
	{"force", 0, NULL, NULL, &force, "end the requests that use it"},
	{"wait", 0, "SECONDS", cli_set_u32, &wait_seconds,
	 "try again for so long while requests use it"},
	{"skipped", 0, NULL, NULL, &skipped,
	 "instead of NAME: all that the daemon remembers and could not load"},
	ADMIN_OPTIONS,
	{"json", 'j', NULL, NULL, &json, "the daemon's reply as it is"},
};

static const struct cli_command unload_command = {
	"adapter unload",
	"NAME|--skipped",
	"Unload an adapter; refused while requests use it. One that the daemon remembers from\n"
	"before its start and could not load (\"skipped\") is remembered no more.",
	unload_table,
	sizeof(unload_table) / sizeof(*unload_table),
	1,
};

static json_t *unload_request(const char *name)
{
	json_t *request = json_pack("{s:s, s:b}", "cmd", "adapter-unload", "force", force);

	if (model)
		json_object_set_new(request, "model", json_string(model));
	if (skipped)
		json_object_set_new(request, "skipped", json_true());
	if (name && json_object_set_new(request, "name", json_string(name))) {
		json_decref(request);
		cli_fail("a name that is no UTF-8");
		return NULL;
	}
	return request;
}

/* Ask until no request uses it, or until the time is over; NULL after a message. */
static json_t *unload_ask(json_t *request, char **ret_text)
{
	const struct timespec pause = {.tv_nsec = 200000000};
	time_t until = time(NULL);

	for (;;) {
		json_t *reply = admin_ask(json_incref(request), ADMIN_LONG, ret_text);

		if (!admin_int(reply, "in_use") || time(NULL) - until >= (time_t)wait_seconds)
			return reply;
		json_decref(reply);
		free(*ret_text);
		nanosleep(&pause, NULL);
	}
}

static void say_unloaded(const json_t *reply, const char *name)
{
	if (skipped)
		printf("%lld skipped adapters are dropped\n", admin_int(reply, "dropped"));
	else if (json_object_get(reply, "dropped"))
		cli_line(stdout, "%s was not loaded; it is dropped", name);
	else
		cli_line(stdout, "%s is unloaded", name);
}

static int unload(int argc, char **argv)
{
	json_t *request, *reply;
	char *text = NULL;
	int rc;

	if (cli_parse(&unload_command, argc, argv) != !skipped)
		return cli_usage(skipped ? "a name, or --skipped" : "name the adapter");
	request = unload_request(skipped ? NULL : argv[1]);
	if (!request)
		return 1;
	reply = unload_ask(request, &text);
	json_decref(request);
	if (!reply)
		return 1;
	rc = json_is_true(json_object_get(reply, "ok"))
		     ? 0
		     : cli_fail("%s", admin_text(reply, "error"));
	if (json)
		cli_print(stdout, text, strlen(text));
	else if (!rc)
		say_unloaded(reply, argv[1]);
	warn(reply);
	free(text);
	json_decref(reply);
	return rc;
}

/* --- of either -----------------------------------------------------------------------------------*/

static const struct cli_option info_table[] = {
	{"model", 'm', "DIR", cli_set_str, &model,
	 "for a folder: the model's folder, needed; else the model's name"},
	ADMIN_OPTIONS,
	{"json", 'j', NULL, NULL, &json, "one JSON object"},
};

static const struct cli_command info_command = {
	"adapter info",
	"DIR|NAME",
	"Check an adapter's folder as the engine would, and say what it holds;\n"
	"or say what the daemon knows of an adapter that it has.",
	info_table,
	sizeof(info_table) / sizeof(*info_table),
	1,
};

static int info_loaded(const char *name)
{
	json_t *reply = fetch(), *a, *it = NULL;
	size_t i;

	if (!reply)
		return 1;
	json_array_foreach(json_object_get(reply, "adapters"), i, a)
	{
		if (!strcmp(admin_text(a, "name"), name))
			it = a;
	}
	if (!it)
		cli_fail("the daemon has no adapter %s", name);
	else if (json)
		admin_print(it);
	else
		admin_show(it, 0);
	i = it ? 0 : 1;
	json_decref(reply);
	return (int)i;
}

static int info(int argc, char **argv)
{
	struct weft_err e;
	struct stat st;

	if (cli_parse(&info_command, argc, argv) != 1)
		return cli_usage("name a folder and --model, or an adapter");
	if (strchr(argv[1], '/') && !stat(argv[1], &st) && S_ISDIR(st.st_mode) && !model)
		return cli_usage("to look at a folder takes its --model");
	if (!model || stat(argv[1], &st) || !S_ISDIR(st.st_mode))
		return info_loaded(argv[1]);
	return adapter_info(argv[1], model, json, stdout, &e) ? cli_fail("%s", e.message) : 0;
}

static const struct cli_entry commands[] = {
	{"load", load, "load one into the daemon"},
	{"unload", unload, "unload one"},
	{"list", list, "the adapters that the daemon has"},
	{"make", make, "write a folder with random weights"},
	{"info", info, "what a folder holds, checked; or what is known of a loaded one"},
};

int cmd_adapter(int argc, char **argv)
{
	return cli_subcommand("weft adapter", commands, sizeof(commands) / sizeof(*commands), argc,
			      argv);
}
