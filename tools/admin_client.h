/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin_client.h - ask weftd through its admin socket: a line of JSON there, a line back.
 *
 * Commands that use it take --socket and --admin-socket; put ADMIN_OPTIONS into their tables.
 */
#ifndef WEFT_TOOLS_ADMIN_CLIENT_H
#define WEFT_TOOLS_ADMIN_CLIENT_H

#include "tools/cli.h"

#include <jansson.h>
#include <stdbool.h>

extern const char *admin_client_socket, *admin_client_path;

/* clang-format off */
#define ADMIN_OPTIONS                                                                              \
	{"socket", 0, "PATH", cli_set_str, &admin_client_socket,                                       \
	 "the daemon's socket; admin.sock lies beside it"},                                            \
	{"admin-socket", 0, "PATH", cli_set_str, &admin_client_path, "the admin socket itself"}
/* clang-format on */

#define ADMIN_QUICK 10 /* seconds, for what weftd answers itself */
#define ADMIN_LONG  0  /* no limit: weftd has its own */

/*
 * Send the request (the reference is taken) and return the reply, an object, which the caller
 * releases. NULL after a message: weftd cannot be reached, or what it says is no JSON. *text, if
 * wanted, is the line as it came, freed by the caller.
 */
json_t *admin_ask(json_t *request, int seconds, char **text);
/*
 * The same, for commands that weftd can refuse: NULL after a message then, too. With `json` the
 * reply is printed as it came.
 */
json_t *admin_do(json_t *request, int seconds, bool json);
/* A field of an object in a list, "" or 0 when it is not there. */
const char *admin_text(const json_t *o, const char *key);
long long admin_int(const json_t *o, const char *key);
/* Print it as a line of JSON. */
void admin_print(const json_t *j);
/* Print an object as an indented list, everything in it. */
void admin_show(const json_t *o, int depth);

#endif
