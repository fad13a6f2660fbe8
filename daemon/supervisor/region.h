/* SPDX-License-Identifier: Apache-2.0 */
/*
 * region.h - the memory of sessions: made, lent, wiped, used again, given up.
 *
 *   region_get  --> lent to a session --> region_put --+--> freed, when nobody else has it
 *       ^                                              |
 *       +--- same uid, same sizes, wiped ---- dead <---+--> kept and charged, when somebody may
 *
 * A client that keeps its mapping keeps the pages, so a region's bytes stay charged to its uid
 * until they are used again for that uid or until it is certain that nobody else can reach them.
 * The kernel answers that: F_SETLEASE with F_WRLCK is granted only while the caller's is the only
 * open file of the inode (mappings and descriptors in flight hold theirs open). For this to count,
 * weftd's own descriptor and each one that is handed to a client are open files of their own, made
 * by opening /proc/self/fd; both files have mode 0600, so that another uid cannot open them anew.
 */
#ifndef WEFT_SUPERVISOR_REGION_H
#define WEFT_SUPERVISOR_REGION_H

#include "daemon/supervisor/tenant.h"
#include "shm/wshm.h"

struct region {
	struct wshm_layout layout;
	uid_t uid;
	int tx_fd, rx_fd;    /* weftd's and the engine's open files */
	uint64_t bytes;	     /* charged */
	struct region *next; /* among the dead */
};

struct regions {
	struct tenants *tenants; /* borrowed: the accounts */
	struct region *dead;
	uint32_t n_dead, n_live;
	uint64_t bytes;		/* all that exist */
	uint64_t reused, freed; /* counters for status */
};

void regions_init(struct regions *r, struct tenants *tenants);
void regions_fini(struct regions *r);

/* Each region, lent or dead, takes two of weftd's descriptors: so they are counted as well. */
struct region_limits {
	uint64_t uid_bytes, total_bytes;
	uint32_t uid_regions, total_regions;
};

/*
 * A clean region for a session of this uid. -EDQUOT when the uid would have more than its limits
 * allow, -ENOSPC when all together would, -ENOMEM, -errno.
 */
int region_get(struct regions *r, const struct wshm_layout *layout, uid_t uid, uint64_t session_id,
	       const struct region_limits *limits, struct region **ret);
/* The client's own open files: tx read-write, rx read-only. The caller closes them. */
int region_open_client(const struct region *it, int *ret_tx_fd, int *ret_rx_fd);
/* The session is over and no engine touches the region any more. NULL is allowed. */
void region_put(struct regions *r, struct region *it);
/* Free every dead region of the uid (or of all, UINT32_MAX) that nobody can reach. */
void regions_sweep(struct regions *r, uid_t uid);

#endif
