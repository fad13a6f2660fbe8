/* SPDX-License-Identifier: Apache-2.0 */
/* admin_reply.h - the daemon's state as JSON. NULL: out of memory. */
#ifndef WEFT_SUPERVISOR_ADMIN_REPLY_H
#define WEFT_SUPERVISOR_ADMIN_REPLY_H

#include <jansson.h>

struct registry_entry;
struct weftd;

json_t *admin_reply_status(const struct weftd *d);
json_t *admin_reply_sessions(const struct weftd *d);
json_t *admin_reply_adapter(const struct registry_entry *it);
/* One that adapters.json has and that was not loaded: how it was asked for, and why not. */
json_t *admin_reply_skipped(const json_t *entry, const char *why);
json_t *admin_reply_error(const char *text);

#endif
