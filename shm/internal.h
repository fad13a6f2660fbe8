/* SPDX-License-Identifier: Apache-2.0 */
/* internal.h - what the files of shm/ share among themselves. */
#ifndef WEFT_SHM_INTERNAL_H
#define WEFT_SHM_INTERNAL_H

#include "shm/wshm.h"

/* Ring entries are one atomic word. */
typedef _Atomic uint64_t wshm_entry;

static inline uint64_t wshm_entry_make(uint32_t slot, uint32_t generation)
{
	return (uint64_t)generation << 32 | slot;
}

/* The header of a region; is_tx chooses which. */
void wshm_hdr_make(struct wshm_hdr *ret, const struct wshm_layout *layout, uint64_t session_id,
		   bool is_tx);

/* A sealed memfd of mode 0600 with this header, of the size that it says. fd or -errno. */
int wshm_region_make(const char *name, const struct wshm_hdr *h);

/* Map a checked descriptor shared with prot. 0 or -errno. */
int wshm_map(int fd, uint64_t bytes, int prot, void **ret);

/* Sleep while *word == seen; timeout_ns < 0: no limit. 0, -ETIMEDOUT or -EINTR. */
int wshm_futex_wait(const _Atomic uint32_t *word, uint32_t seen, int64_t timeout_ns);
/* Wake sleepers of word, at most so many. */
void wshm_futex_wake(const _Atomic uint32_t *word, uint32_t most);

/*
 * Sleepers that the engine wakes at one publication: each costs it a microsecond or more, and how
 * many there are is the client's choice. Who is woken wakes the others.
 */
#define WSHM_WAKE_MOST 2u

#endif
