/* SPDX-License-Identifier: Apache-2.0 */
/* fake_idx.h - a mirror that only records: what the cache says is there, and tells the test. */
#ifndef WEFT_TESTS_FAKE_IDX_H
#define WEFT_TESTS_FAKE_IDX_H

#include "shm/wshm_idx.h"

#define FAKE_FULL  65536
#define FAKE_TAILS 4096

struct fake_tail {
	bool used;
	struct wshm_key parent;
	struct wshm_identity id;
	uint32_t rows;
	uint32_t tokens[WSHM_BLOCK_TOKENS];
};

struct wshm_idx_writer {
	/* The test's, NULL allowed: rows came (or went) below the key. */
	void (*full)(void *arg, const struct wshm_key *key, bool there);
	void (*rows)(void *arg, const struct fake_tail *t, uint32_t first, uint32_t end,
		     bool there);
	void *arg;
	uint32_t n_full, n_tails; /* now */
	uint32_t max_tails;	  /* WSHM_NO_TAIL beyond; 0: FAKE_TAILS */
	uint64_t wrong;		  /* calls that make no sense */
	struct wshm_key full_keys[FAKE_FULL];
	struct fake_tail tails[FAKE_TAILS];
};

bool fake_idx_has(const struct wshm_idx_writer *w, const struct wshm_key *key);

#endif
