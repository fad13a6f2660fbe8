/* SPDX-License-Identifier: Apache-2.0 */
/*
 * idx_writer.h - the engine's end of an idx region, for the files that implement it.
 *
 * Everything that the writer needs to know again stands here, in private memory: `own` is what the
 * table holds, `links` how the tails are chained. The region is only ever stored to. One thread.
 */
#ifndef WEFT_SHM_IDX_WRITER_H
#define WEFT_SHM_IDX_WRITER_H

#include "shm/idx.h"

/* One more than there are sizes: each is used once in an engine's life. */
#define IDX_MAX_RETIRED (WSHM_IDX_LOG2_MAX - WSHM_IDX_LOG2_MIN + 1)

struct idx_table {
	struct wshm_idx_bucket *shared; /* in the region */
	uint64_t *own;			/* owner (mmap); as shared; NULL: there is no such table */
	uint32_t log2;			/* of the number of buckets */
	uint32_t n;			/* entries */
};

/* A table that no reader starts to use any more, but some may still be reading. */
struct idx_retired {
	uint8_t *own; /* owner of what is behind given_bytes */
	uint32_t log2;
	uint64_t generation;
	uint64_t deadline_ns; /* 0: nobody has looked at the clock yet */
	uint64_t given_bytes; /* back so far */
};

struct idx_link {
	uint32_t prev, next; /* index + 1, 0: none; next also chains what is free */
	uint32_t rows;
	uint32_t head; /* its chain; IDX_FREE: none */
};

#define IDX_FREE UINT32_MAX

struct wshm_idx_writer {
	uint8_t *base; /* owner of the mapping */
	int fd;	       /* owner; to give pages back */
	uint64_t generation;

	struct idx_table cur, next; /* next: being filled, its turn comes when all is there */
	uint32_t moved;		    /* buckets of cur whose entries are in next as well */
	uint64_t dropped;	    /* entries for which there was no room */
	struct idx_retired retired[IDX_MAX_RETIRED];
	uint32_t n_retired;

	uint32_t version; /* the last even one that a tail or an instance was given */
	uint32_t n_instances;

	struct idx_link *links; /* owner; [WSHM_IDX_TAILS] */
	struct {
		uint32_t first, changes;
	} * heads;	    /* owner; [WSHM_IDX_HEADS], as in the region */
	uint32_t free_tail; /* index + 1; 0: none */
	uint32_t n_tails;   /* those from here on were never used */
};

static inline struct wshm_idx_ctl *idx_writer_ctl(const struct wshm_idx_writer *w)
{
	return (struct wshm_idx_ctl *)(w->base + WSHM_IDX_OFF_CTL);
}

/* The next version of a record. Any number of records may be changed between two uses of one. */
static inline uint32_t idx_writer_version(struct wshm_idx_writer *w)
{
	return w->version += 2;
}

/* 0 or -ENOMEM. */
int idx_table_init(struct wshm_idx_writer *w, struct idx_table *t, uint32_t log2);
void idx_table_publish(struct wshm_idx_writer *w);
void idx_table_fini(struct idx_table *t); /* zeroed allowed */
void idx_table_forget_retired(struct wshm_idx_writer *w);

#endif
