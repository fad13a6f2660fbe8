/* SPDX-License-Identifier: Apache-2.0 */
/*
 * idx_world.h - one domain's index in a test: a region, a writer, and a reader that maps it anew
 * through a read-only descriptor, as a client does.
 */
#ifndef WEFT_TESTS_SHM_IDX_WORLD_H
#define WEFT_TESTS_SHM_IDX_WORLD_H

#include "shm/wshm_idx.h"
#include "shm/wshm_idx_abi.h"

struct idx_world {
	int fd, ro_fd;
	struct wshm_idx_writer *w;
	struct wshm_idx_reader r;
};

extern const uint8_t idx_world_secret[WSHM_SECRET_BYTES];
extern const struct wshm_root idx_world_root;

/* Ends the program when something fails. */
void idx_world_open(struct idx_world *x);
void idx_world_close(struct idx_world *x);
/* The engine dies and another one opens what it left. */
void idx_world_restart(struct idx_world *x);
/* Key number n: as good as random, and always the same. */
struct wshm_key idx_world_key(uint64_t n);
/* One lookup. */
uint32_t idx_world_look(const struct wshm_idx_reader *r, const struct wshm_key *key);
/* Memory behind the region now. */
uint64_t idx_world_bytes(const struct idx_world *x);
/* The control words, through a writable mapping of its own (leaked until exit). */
uint8_t *idx_world_map(const struct idx_world *x);

#endif
