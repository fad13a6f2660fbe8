/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry.h - the adapters that engines serve: copied, handed over, kept for the next engine.
 *
 *   COPYING -> (HELD) -> LOAD -> LOADING -> LOADED -> UNLOAD -> UNLOADING -> gone
 *      |                  ^         |          |
 *      +--> FAILED        +---------+----------+--- the engine ended: sent again to the next
 *
 * An adapter's two files are copied into sealed memfds by a child process (registry_copy.c), so
 * that no slow disk holds the loop, nobody can change them afterwards, and a restarted engine gets
 * the same bytes as the first. HELD: it shall replace one of the same name, which has to leave
 * first; should the new one then not load, the old one comes back.
 *
 * Owned by weftd's only thread. States are sent when the link takes them (registry_send), like
 * everything that goes to an engine.
 */
#ifndef WEFT_SUPERVISOR_REGISTRY_H
#define WEFT_SUPERVISOR_REGISTRY_H

#include "daemon/common/err.h"
#include "daemon/supervisor/config.h"
#include "daemon/supervisor/loop.h"

#include <jansson.h>

struct weftd;
struct engine;
struct copier;

enum entry_state {
	ENTRY_COPYING,
	ENTRY_HELD,
	ENTRY_LOAD,
	ENTRY_LOADING,
	ENTRY_LOADED,
	ENTRY_UNLOAD,
	ENTRY_UNLOADING,
	ENTRY_FAILED,
};

struct registry_entry {
	struct weftd *d; /* borrowed */
	struct registry_entry *next;
	struct engine *engine; /* borrowed */
	struct config_adapter conf;
	bool configured; /* stands in the configuration: it stays listed when it fails */
	bool early;	 /* there from the start: sessions wait for its copy */
	bool by_hand;	 /* an administrator has loaded it, in this weftd's time or before */
	bool kept;	 /* before: it stays listed when it fails, and in the file */
	bool served;	 /* has been LOADED: requests may name it */
	bool saved;	 /* the file that was written last has it as it is */
	enum entry_state state;
	uint64_t load_id;
	struct copier *copier; /* COPYING: borrowed from the registry; NULL: its turn will come */
	int config_fd, weights_fd; /* -1: not copied; sealed, read-only once copied */
	uint64_t bytes;		   /* of both */

	struct registry_entry *successor;    /* owner; takes its place when it has left */
	struct registry_entry *predecessor;  /* borrowed; whose successor this is */
	struct registry_entry *former;	     /* owner; whose place it took, until it is LOADED */
	bool leaving, force, patient;	     /* patient: until no request uses it any more */
	bool asked_by_force;		     /* what the engine was asked last */
	uint32_t crashes;		     /* engines that ended while they loaded it */
	uint64_t load_ticket, unload_ticket; /* administrators that wait; 0: none */

	struct wshm_instance instance; /* LOADED */
	uint64_t weight_bytes;
	char why[WCTL_TEXT_BYTES]; /* FAILED, or what went wrong last */
};

struct registry {
	struct registry_entry *first;
	uint32_t n;	  /* all, successors and formers too */
	uint64_t bytes;	  /* of their files */
	uint64_t load_id; /* the last one given */
	struct copier *running, *abandoned;
	struct loop_timer retry_timer;
	json_t *skipped; /* owner: {"entry", "why"} of the file that cannot be loaded now; NULL: none */
	bool bad_file; /* it cannot be read: it is set aside before it is written anew */
	bool unsaved;  /* it could not be written, and does not say what it should */
};

struct registry_load {
	struct engine *engine;
	struct config_adapter conf;
	bool configured, early, kept;
	bool replace, force, patient; /* replace one of that name, and how it leaves */
	uint64_t ticket;
};

/* Begin. 0, or -errno with a message and nothing changed; the ticket is answered only after 0. */
int registry_load(struct weftd *d, const struct registry_load *how, struct weft_err *err);
/* The same; an entry that no engine has is gone at once. */
int registry_unload(struct registry_entry *it, bool force, uint64_t ticket, struct weft_err *err);
struct registry_entry *registry_find(struct weftd *d, const struct engine *e, const char *name);
const char *registry_state_name(const struct registry_entry *it);
void registry_fini(struct weftd *d);

/* The configuration's adapters at the start; and what a reload changes, line by line to say(). */
void registry_start(struct weftd *d);
typedef void (*registry_say_fn)(void *arg, const char *name, const char *text);
void registry_reload(struct weftd *d, const struct config *c, registry_say_fn say, void *arg);

/* Does it stand in the configuration? */
bool registry_in_config(const struct config *c, const struct registry_entry *it);

/* --- registry_file.c --------------------------------------------------------------------------------*/

/* Write down what administrators have loaded: 0 or -errno, after a line in the log. */
int registry_file_save(struct weftd *d);
/* Load it, as far as the configuration leaves room for it. */
void registry_file_load(struct weftd *d);
/*
 * What of it was not loaded, as a list of adapters for a reply, of one model if it is not NULL: the first
 * max, and how many there are.
 */
size_t registry_file_skipped(const struct weftd *d, const char *model, size_t max, json_t *list);
/*
 * Drop such entries, of one model and one name if these are not NULL: how many, or -errno with a message
 * and nothing changed. A name must be of one model.
 */
int registry_file_forget(struct weftd *d, const char *model, const char *name,
			 struct weft_err *err);

/* --- the engine's side ------------------------------------------------------------------------------*/

/* Send what is to be sent: 0 or -errno, the rest later. */
int registry_send(struct engine *e);
/* May sessions be attached: are the configuration's adapters copied (or have failed)? */
bool registry_settled(const struct engine *e);
/* Answers. -EPROTO: it makes no sense. */
int registry_on_loaded(struct engine *e, const struct wlink_adapter_reply *m);
int registry_on_unloaded(struct engine *e, const struct wlink_adapter_reply *m);
/* The process is gone; and: there will be no other. */
void registry_engine_gone(struct engine *e);
void registry_engine_failed(struct engine *e);

/* --- registry_copy.c --------------------------------------------------------------------------------*/

/* Copy the entry's files, at most `room` bytes of weights. The end is told to registry_copied(). */
int copier_start(struct registry_entry *it, uint64_t room, struct weft_err *err);
/* The entry wants it no longer. */
void copier_abandon(struct registry_entry *it);
void copiers_fini(struct weftd *d);
/* why: NULL when the copies are complete. */
void registry_copied(struct registry_entry *it, const char *why);

#endif
