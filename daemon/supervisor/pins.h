/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pins.h - prefixes that the operator keeps in an engine's cache, and caches that he empties.
 *
 *   SEND -> SENT -> HELD          the engine ended: SEND again
 *            |       |
 *            +-> FAILED           a pin that was HELD once and that the next engine refuses
 *            +-------+--> LEAVE   removed: UNPIN is to be sent; LEFT: its PINNED is still owed
 *
 * Tokens are kept here, and in the state directory once they have been pinned (a restarted weftd goes
 * on with them), and handed over in a sealed memfd. Computing a prefix takes its time, so
 * PINNED has no limit of its own: the engine's steps show that it lives. A drop is answered at
 * once or by the engine's end, which has emptied the cache, too. Owned by weftd's only thread.
 */
#ifndef WEFT_SUPERVISOR_PINS_H
#define WEFT_SUPERVISOR_PINS_H

#include "daemon/common/err.h"
#include "daemon/supervisor/config.h"

#include <jansson.h>

#define PINS_MAX       256u
#define PIN_MAX_TOKENS 131072u

struct weftd;
struct engine;
struct pins_entry;
struct pins_drop;

struct pins {
	struct pins_entry *first; /* owner */
	struct pins_drop *drops;  /* owner; the oldest first */
	uint32_t n;
	uint64_t last_id;
};

/* Begin. tokens are taken over on success. The ticket is answered after a return of 0. `domain` is
 * a tenant's index or ENGINE_PUBLIC. */
int pins_add(struct engine *e, uint32_t domain, uint32_t *tokens, uint32_t n_tokens,
	     uint64_t ticket, struct weft_err *err);
/* 0, and it is gone; *ret_left, if not 0, is why its file is not. Or -ENOENT. */
int pins_remove(struct weftd *d, uint64_t id, int *ret_left, struct weft_err *err);
json_t *pins_list(const struct weftd *d);
/* Free what nobody uses in a domain, or (all) in every one. */
int pins_drop(struct engine *e, uint32_t domain, bool all, uint64_t ticket, struct weft_err *err);
void pins_fini(struct weftd *d);

/* Those that an earlier weftd has left. */
void pins_start(struct weftd *d);

/* Send what is to be sent: 0 or -errno, the rest later. */
int pins_send(struct engine *e);
/* Answers. -EPROTO: it makes no sense. */
int pins_on_pinned(struct engine *e, const struct wlink_pinned *m);
int pins_on_dropped(struct engine *e, const struct wlink_drop *m);
void pins_engine_gone(struct engine *e);
void pins_engine_failed(struct engine *e);

/* --- pins_file.c ------------------------------------------------------------------------------------*/

struct pins_saved {
	char model[WCTL_NAME_BYTES], tenant[WCTL_NAME_BYTES]; /* tenant "": public */
	uint32_t *tokens, n_tokens;
};

/* 0 or -errno. */
int pins_file_save(int dir_fd, uint64_t id, const struct pins_saved *pin);
int pins_file_remove(int dir_fd, uint64_t id);
/* Call found() for each file: it takes over the tokens; pin is NULL for one that cannot be read. */
typedef void (*pins_saved_fn)(void *arg, uint64_t id, struct pins_saved *pin);
void pins_file_load(int dir_fd, pins_saved_fn found, void *arg);

#endif
