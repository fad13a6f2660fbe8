/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_status.c - `weft status`: what weftd says of itself and its engines, through the admin
 * socket. The reply is one line of JSON; it is shown as it is (--json) or as an indented list, so
 * that nothing the daemon adds is hidden.
 */
#include "tools/cli.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define REPLY_MAX (4u << 20) /* far beyond any status; a bound all the same */

static const char *socket_path, *admin_path;
static int json;

/* clang-format off */
static const struct cli_option options[] = {
	{"socket", 0, "PATH", cli_set_str, &socket_path, "the daemon's socket; admin.sock lies beside it"},
	{"admin-socket", 0, "PATH", cli_set_str, &admin_path, "the admin socket itself"},
	{"json", 'j', NULL, NULL, &json, "the daemon's reply as it is"},
};
/* clang-format on */

static const struct cli_command command = {
	"status",
	"",
	"Show the daemon, its engines, sessions and counters.",
	options,
	sizeof(options) / sizeof(*options),
	0,
};

/* admin.sock in the folder of the daemon's socket. */
static int admin_socket(char *buf, size_t bytes)
{
	const char *env = getenv("WEFT_SOCKET"), *at, *slash;
	int n;

	if (admin_path)
		return snprintf(buf, bytes, "%s", admin_path) < (int)bytes ? 0 : -1;
	at = socket_path ? socket_path : env && *env ? env : "/run/weft/weftd.sock";
	slash = strrchr(at, '/');
	n = snprintf(buf, bytes, "%.*sadmin.sock", slash ? (int)(slash + 1 - at) : 0, at);
	return n < (int)bytes ? 0 : -1;
}

static int ask(const char *path, const char *line, char **ret)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct timeval limit = {.tv_sec = 10};
	int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), err = 0;
	size_t have = 0, room = 0;
	char *buf = NULL;

	if (sock < 0)
		return -errno;
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (connect(sock, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    send(sock, line, strlen(line), MSG_NOSIGNAL) < 0)
		err = -errno;
	while (!err && !(have && buf[have - 1] == '\n')) {
		ssize_t n;

		if (have + 1 >= room) {
			char *more = room < REPLY_MAX ? realloc(buf, room = room ? 2 * room : 4096)
						      : NULL;

			if (!more) {
				err = -ENOMEM;
				break;
			}
			buf = more;
		}
		n = recv(sock, buf + have, room - have - 1, 0);
		if (n <= 0)
			err = n ? -errno : -ECONNRESET;
		else
			have += (size_t)n;
	}
	close(sock);
	if (err) {
		free(buf);
		return err;
	}
	buf[have] = 0;
	*ret = buf;
	return 0;
}

static void show_value(const json_t *v)
{
	if (json_is_string(v)) {
		printf("%s\n", json_string_value(v));
	} else {
		char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(6));

		printf("%s\n", text ? text : "?");
		free(text);
	}
}

static void show(const json_t *j, int depth)
{
	const char *key;
	json_t *v;
	size_t i;

	json_object_foreach((json_t *)j, key, v)
	{
		if (json_is_object(v) && json_object_size(v)) {
			printf("%*s%s\n", 2 * depth, "", key);
			show(v, depth + 1);
		} else if (json_is_array(v) && json_is_object(json_array_get(v, 0))) {
			json_t *item;

			printf("%*s%s\n", 2 * depth, "", key);
			json_array_foreach(v, i, item)
			{
				printf("%*s%zu\n", 2 * depth + 2, "", i + 1);
				show(item, depth + 2);
			}
		} else {
			printf("%*s%-*s ", 2 * depth, "", 28 - 2 * depth, key);
			show_value(v);
		}
	}
}

int cmd_status(int argc, char **argv)
{
	json_error_t why;
	char path[200], *reply = NULL;
	json_t *j;
	int err;

	cli_parse(&command, argc, argv);
	if (admin_socket(path, sizeof(path)) ||
	    strlen(path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return cli_fail("the path of the admin socket is too long");
	err = ask(path, "{\"cmd\":\"status\"}\n", &reply);
	if (err)
		return cli_fail("ask %s for the status: %s; is weftd running, and is this user "
				"root or in weft-admin?",
				path, strerror(-err));
	if (json) {
		fputs(reply, stdout);
		free(reply);
		return 0;
	}
	j = json_loads(reply, JSON_REJECT_DUPLICATES, &why);
	free(reply);
	if (!json_is_object(j)) {
		json_decref(j);
		return cli_fail("the daemon's reply is not JSON: %s", why.text);
	}
	show(j, 0);
	json_decref(j);
	return 0;
}
