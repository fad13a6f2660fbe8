/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pair.h - both ends of a session in one test: regions, a client and an engine, and what the tests
 * need to play either side. The engine's and the client's mappings are separate, as in real life.
 */
#ifndef WEFT_TESTS_SHM_PAIR_H
#define WEFT_TESTS_SHM_PAIR_H

#include "shm/wshm.h"

struct pair {
	struct wshm_layout layout;
	int tx_fd, rx_fd, ro_fd;
	struct wshm_client client;
	struct wshm_engine engine;
};

/*
 * Open a session of `slots` slots with arenas of 64 KiB whose four ring counters all start at
 * `start`. Ends the program when that fails.
 */
void pair_open(struct pair *p, uint32_t slots, uint32_t start);
void pair_close(struct pair *p);
/* Throw the engine away as a crash would, and open a new one on what it left. */
void pair_restart_engine(struct pair *p);

/* The client's writable view of its own control words. */
struct wshm_tx_ctl *pair_tx_ctl(struct pair *p);
/* Write an entry of the submission ring and the tail as a hostile client would. */
void pair_push_raw(struct pair *p, uint32_t tail, uint64_t entry);

/* Admit what peek shows: write the slot, accept. Returns peek's result. */
int pair_admit(struct pair *p, uint32_t *ret_slot, uint32_t *ret_generation);
/* End the request of a slot and publish. */
void pair_end(struct pair *p, uint32_t slot);

/* A memory page that a test shares with its children. */
void *pair_shared_page(void);

/* xorshift64*: *state != 0. */
uint32_t pair_random(uint64_t *state);
/* Burn about n iterations without a system call. */
void pair_spin(uint32_t n);
uint64_t pair_now_ns(void);

#endif
