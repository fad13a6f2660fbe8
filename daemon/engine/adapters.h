/* SPDX-License-Identifier: Apache-2.0 */
/*
 * adapters.h - the adapters that an engine serves: handles, by name, to weights, by content.
 *
 *   handle  what weftd loaded under a name           weights  one for each content, however many
 *     load_id, name, on_missing  ------------------>   handles it has: a node of the cache, and
 *                                                      the image it is filled from
 *
 * Two threads. The control thread reads the files, packs them, and publishes tables of handles;
 * the core thread looks names up in the table of the moment. Between them stands RCU (the
 * quiescent-state kind): the core thread passes a quiescent state every round and is offline while
 * it sleeps, so a table that has been replaced is freed after a grace period, and reading costs a
 * plain load. What belongs to the core thread alone: a handle's requests, the node, the places.
 *
 * Loading:   control: read, pack, publish             --mail--> core: mirror, place if there is room
 * Unloading: control: ask     --mail--> core: refuse, or end what uses it, let go of the blocks
 *                     <--mail-- then control: publish without, grace period, free
 */
#ifndef WEFT_ENGINE_ADAPTERS_H
#define WEFT_ENGINE_ADAPTERS_H

#include "daemon/engine/cache/cache.h"
#include "daemon/engine/meter.h"
#include "daemon/engine/model/adapter.h"
#include "shm/wshm_control.h"

struct engine;
struct request;

struct adapter_weights {
	struct cache_adapter node; /* the first field; the core thread's */
	struct engine *engine;
	struct adapter *image; /* owned */
	uint32_t n_handles;    /* the control thread's */
	/* the core thread's */
	struct adapter_weights *next_placing; /* in engine.placing, while it is there */
	uint32_t n_placed;		      /* blocks that have been written */
};

struct adapter_handle {
	/* fixed before it is published */
	uint64_t load_id;
	uint32_t index;			 /* in the mirrors' tables of instances */
	struct wshm_instance instance;	 /* with its name */
	struct adapter_weights *weights; /* shared */
	/* the core thread's */
	uint32_t requests; /* from admission to end */
	bool gone;	   /* takes no more of them */
	struct meter_use use;
	/* the control thread's */
	bool unloading;
};

struct adapter_table {
	uint32_t n;
	struct adapter_handle *handles[]; /* in the order in which they were loaded */
};

/* One loading or unloading, from one thread to the other and back. */
struct adapter_mail {
	struct wlink_adapter_reply reply; /* as it will be sent */
	struct adapter_handle *handle;	  /* NULL: nothing to do, just answer in turn */
	bool unload, force;
	bool last;  /* of this content: its nodes go too */
	bool begun; /* the core thread has accepted it */
};

/* --- control thread ------------------------------------------------------------------------------*/

/* Read, pack and publish. 0 and *ret, or -errno with a message. */
int adapters_load(struct engine *e, const struct wlink_adapter *msg, int config_fd, int weights_fd,
		  struct adapter_handle **ret, struct weft_err *err);
struct adapter_handle *adapters_by_id(struct engine *e, uint64_t load_id);
/* Has no other handle, but those that are being unloaded, the same content? */
bool adapters_last(struct engine *e, const struct adapter_handle *h);
/* The core thread has let go: unpublish, wait for a grace period, free. */
void adapters_forget(struct engine *e, struct adapter_handle *h);

/* --- core thread ----------------------------------------------------------------------------------*/

/* It reads tables from its start to its end, but for these: */
void adapters_reader(bool start);
void adapters_quiescent(struct engine *e); /* every round: no table is in use */
void adapters_asleep(struct engine *e, bool asleep);

/* By name, and by instance unless 0; NULL: none. */
struct adapter_handle *adapters_find(const struct engine *e, const char *name, uint64_t instance);
/* By instance alone: what a request of an earlier engine was admitted for. */
struct adapter_handle *adapters_by_instance(const struct engine *e, uint64_t instance);
/* Newly published: bring its weights into the pool if that costs nobody anything, and let
 * clients know. */
void adapters_enter(struct engine *e, struct adapter_handle *h);
/* Have the weights in the pool: they take their blocks now, and are brought there a part in each
 * pass. False: not enough room. */
bool adapters_place(struct engine *e, struct adapter_weights *w);
bool adapters_ready(const struct adapter_weights *w); /* are they all there? */
/* Go on with those that are on their way for *bytes, and the rest of the block then. */
void adapters_place_some(struct engine *e, int64_t *bytes);
/* Unload, or refuse while requests stand in the way; force: end them. */
void adapters_leave(struct engine *e, struct adapter_mail *m);
/* Then let go of what depends on it, *nodes at the most. True when that is done. */
bool adapters_leave_some(struct engine *e, const struct adapter_mail *m, uint32_t *nodes);
/* All that are served now; ret lasts until the thread is quiescent. */
uint32_t adapters_all(const struct engine *e, struct adapter_handle **ret, uint32_t max);
/* The mirror of a new domain. */
void adapters_mirror(const struct engine *e, struct wshm_idx_writer *mirror);

#endif
