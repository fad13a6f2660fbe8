/* SPDX-License-Identifier: Apache-2.0 */
/* admin_client.c - see admin_client.h. */
#include "tools/admin_client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define REPLY_MAX (16u << 20) /* far beyond any reply; a bound all the same */

const char *admin_client_socket, *admin_client_path;

/* admin.sock in the folder of the daemon's socket. */
static int admin_socket(char *buf, size_t bytes)
{
	const char *env = getenv("WEFT_SOCKET"), *at, *slash;
	int n;

	if (admin_client_path)
		return snprintf(buf, bytes, "%s", admin_client_path) < (int)bytes ? 0 : -1;
	at = admin_client_socket ? admin_client_socket : env && *env ? env : "/run/weft/weftd.sock";
	slash = strrchr(at, '/');
	n = snprintf(buf, bytes, "%.*sadmin.sock", slash ? (int)(slash + 1 - at) : 0, at);
	return n < (int)bytes ? 0 : -1;
}

/* All of it: a long line may go in pieces, and who was stopped and goes on finds his call interrupted. */
static int say(int sock, const char *line)
{
	size_t left = strlen(line);

	while (left) {
		ssize_t n = send(sock, line, left, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		/* EPIPE: it has hung up already; what it said before is still to be read. */
		if (n < 0)
			return errno == EPIPE ? 0 : -errno;
		line += n;
		left -= (size_t)n;
	}
	return 0;
}

static int exchange(const char *path, const char *line, int seconds, char **ret)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct timeval limit = {.tv_sec = seconds};
	int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), err;
	size_t have = 0, room = 0;
	char *buf = NULL;

	if (sock < 0)
		return -errno;
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	/* A daemon that stands still takes no connection when so many wait already. */
	setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	err = connect(sock, (struct sockaddr *)&addr, sizeof(addr)) < 0 ? -errno : say(sock, line);
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
		if (n < 0 && errno == EINTR)
			continue;
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

json_t *admin_ask(json_t *request, int seconds, char **text)
{
	char path[200], *line = json_dumps(request, JSON_COMPACT), *reply = NULL;
	size_t n = line ? strlen(line) : 0;
	json_error_t why;
	json_t *j;
	int err;

	json_decref(request);
	line = n ? realloc(line, n + 2) : NULL;
	if (!line) {
		cli_fail("out of memory");
		return NULL;
	}
	strcpy(line + n, "\n");
	if (admin_socket(path, sizeof(path)) ||
	    strlen(path) >= sizeof(((struct sockaddr_un *)0)->sun_path)) {
		free(line);
		cli_fail("the path of the admin socket is too long");
		return NULL;
	}
	err = exchange(path, line, seconds, &reply);
	free(line);
	if (err == -EPROTOTYPE) {
		cli_fail("ask weftd through %s: that is another kind of socket; --admin-socket is "
			 "admin.sock, --socket the weftd.sock beside it",
			 path);
		return NULL;
	}
	if (err == -EAGAIN) {
		cli_fail("ask weftd through %s: no answer in %d s; it listens and is stuck, "
			 "stopped or "
			 "busy, see its log",
			 path, seconds);
		return NULL;
	}
	if (err) {
		cli_fail("ask weftd through %s: %s; is weftd running, and is this user root or in "
			 "weft-admin?",
			 path, strerror(-err));
		return NULL;
	}
	j = json_loads(reply, JSON_REJECT_DUPLICATES, &why);
	if (!json_is_object(j)) {
		json_decref(j);
		j = NULL;
		cli_fail("the daemon's reply is not JSON: %s", why.text);
	}
	if (text && j)
		*text = reply;
	else
		free(reply);
	return j;
}

json_t *admin_do(json_t *request, int seconds, bool json)
{
	char *text = NULL;
	json_t *j = admin_ask(request, seconds, &text);

	if (!j)
		return NULL;
	if (json)
		cli_print(stdout, text, strlen(text));
	free(text);
	if (json_is_true(json_object_get(j, "ok")))
		return j;
	cli_fail("%s", admin_text(j, "error"));
	json_decref(j);
	return NULL;
}

const char *admin_text(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));

	return text ? text : "";
}

long long admin_int(const json_t *o, const char *key)
{
	return json_integer_value(json_object_get(o, key));
}

static void show_value(int depth, const char *key, const json_t *v)
{
	char *text =
		json_is_string(v)
			? NULL
			: json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(6));

	cli_line(stdout, "%*s%-*s %s", 2 * depth, "", 28 - 2 * depth, key,
		 json_is_string(v) ? json_string_value(v)
		 : text		   ? text
				   : "?");
	free(text);
}

void admin_print(const json_t *j)
{
	char *text = json_dumps(j, JSON_COMPACT);

	cli_printf(stdout, "%s\n", text ? text : "null");
	free(text);
}

void admin_show(const json_t *j, int depth)
{
	const char *key;
	json_t *v;
	size_t i;

	json_object_foreach((json_t *)j, key, v)
	{
		if (json_is_object(v) && json_object_size(v)) {
			cli_line(stdout, "%*s%s", 2 * depth, "", key);
			admin_show(v, depth + 1);
		} else if (json_is_array(v) && json_is_object(json_array_get(v, 0))) {
			json_t *item;

			cli_line(stdout, "%*s%s", 2 * depth, "", key);
			json_array_foreach(v, i, item)
			{
				printf("%*s%zu\n", 2 * depth + 2, "", i + 1);
				admin_show(item, depth + 2);
			}
		} else {
			show_value(depth, key, v);
		}
	}
}
