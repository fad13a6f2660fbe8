/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sched.h - who computes how many rows in the next pass.
 *
 * A sequence is a row of positions; those before `computed` have their KV in its blocks, or will
 * before anything that is queued from now on, and those before `target` have tokens, which are known
 * but for one that a queued pass may be drawing. A plan gives each chosen sequence n_new rows, and
 * when these reach the target the pass yields a new token.
 *
 *   1. Every running sequence that lacks one row (decoding) gets it.
 *   2. What is left of the row budget goes in chunks to sequences that lack more, and to waiting
 *      ones that can start: always to the tenant with the lowest virtual counter, within it by
 *      priority, then by age.
 *
 * Fairness: a tenant's counter grows by (rows / weight) when its positions are computed for the
 * first time; a tenant that comes back from idleness is lifted to the lowest counter in use, so
 * nobody saves up. What starts next starts alone: if its blocks are not free, nothing else
 * starts, so a large request is not overtaken for ever.
 *
 * Blocks: a sequence that starts takes blocks for all of its known positions; each further block
 * is taken as it grows. When there is none, a victim loses its blocks and waits again (it is
 * computed anew later): of the tenant that holds most blocks for its weight the sequence of lowest
 * priority, the latest of them. A waiting sequence takes nothing from its own tenant's, but may
 * take from a tenant that then still has no less for its weight. The oldest running sequence is
 * never a victim and can take the blocks of all others, so the engine always gets on. One that is
 * alone and still lacks room (what the pool has left is pinned) is named as stuck, for the owner to
 * end it.
 *
 * Plain data and no clock: everything is testable without a model. Owned by the core thread.
 */
#ifndef WEFT_ENGINE_SCHED_H
#define WEFT_ENGINE_SCHED_H

#include "daemon/engine/blocks.h"

#define SCHED_MAX_SEQS 64u
#define SCHED_HOLD     UINT32_MAX
#define SCHED_MAX_HELD 64u /* that a tenant is asked for in one plan: bounds the work */

enum sched_state { SCHED_OUT = 0, SCHED_WAITING, SCHED_RUNNING };

struct sched_seq {
	/* set by the owner before sched_add() */
	uint32_t tenant;
	int32_t priority; /* higher first, within the tenant; raised while lent more */
	uint64_t order;	  /* age; unique */
	uint64_t group;	  /* the request; see sched.only */
	uint32_t target;  /* known positions; the owner raises it */
	struct block_table table;
	bool blocked; /* changed by the owner at any time: runs, but has no rows in a plan */

	/* the scheduler's; computed is advanced by sched_commit() */
	enum sched_state state;
	uint32_t computed;
	uint32_t charged; /* positions that the tenant has paid for */
	uint32_t n_new;	  /* rows in the current plan */
	uint32_t passed;  /* plan number in which it was held back */
	/* The last plan that found no room for it (0: none), and what there was: see start(). */
	uint32_t refused_plan, refused_available, refused_running;
	int32_t own_priority;
	struct sched_seq *prev, *next;
};

struct sched_tenant {
	bool known;
	uint32_t weight;
	uint64_t counter;
	uint32_t n_seqs, n_running; /* waiting and running; running */
	uint32_t held_plan, n_held; /* held back in that plan */
	uint32_t n_blocks; /* held by its running sequences, shared ones counted each time */
	struct sched_seq *first, *last; /* waiting, in the order in which they start */
};

struct sched_options {
	uint32_t max_rows;  /* of a pass */
	uint32_t max_seqs;  /* running at once, up to SCHED_MAX_SEQS */
	uint32_t chunk;	    /* rows of one sequence in a pass, 0: no limit */
	uint32_t max_mixed; /* rows of chunks in a pass that decodes too, 0: no limit */
	/*
	 * What a sequence finds of itself when it starts; all NULL allowed. probe: take what can be
	 * shared into the empty table, and say how many blocks it needs beside those of its positions,
	 * or SCHED_HOLD to wait for a better moment. adopt: there is room; fill the table for all known
	 * positions and set computed; false: there was not enough after all. leave: the sequence gives
	 * its table up, or has only probed; it is cleared afterwards.
	 */
	uint32_t (*probe)(void *arg, struct sched_seq *q);
	bool (*adopt)(void *arg, struct sched_seq *q);
	void (*leave)(void *arg, struct sched_seq *q);
	void *arg;
};

struct sched {
	struct sched_options opt;
	struct block_pool *pool;      /* borrowed */
	struct sched_tenant *tenants; /* owned; by index */
	uint32_t n_tenants;
	struct sched_seq *running[SCHED_MAX_SEQS]; /* ascending by order */
	uint32_t n_running, n_waiting;
	uint64_t only;	    /* nonzero: this group alone computes (a suspect) */
	uint64_t last_left; /* counter of the tenant that fell idle last */
	uint32_t plan_no;
	uint64_t preemptions;
	struct sched_seq
		*stuck; /* of the last plan: waiting, and the pool cannot hold it; or NULL */
};

struct sched_plan {
	uint32_t n, n_rows;
	struct sched_seq *seqs[SCHED_MAX_SEQS]; /* ascending by order, n_new rows each */
};

void sched_init(struct sched *s, const struct sched_options *opt, struct block_pool *pool);
void sched_fini(struct sched *s);
/* Make or change a tenant. 0 or -ENOMEM. */
int sched_tenant_set(struct sched *s, uint32_t tenant, uint32_t weight);

/* Enter a sequence, as waiting. Its table is empty and has room for all it will ever need. */
void sched_add(struct sched *s, struct sched_seq *q);
/* Take a sequence out, wherever it is, and give back its blocks. */
void sched_remove(struct sched *s, struct sched_seq *q);
/* Another waits for what q is computing: until q gives up its table it counts for as much. */
void sched_lend(struct sched_seq *q, int32_t priority);
/* Nothing to do when the plan has no rows. */
void sched_make_plan(struct sched *s, struct sched_plan *ret);
/* Would a plan only go on with what runs: nothing that could start, a block for whoever needs one? */
bool sched_goes_on(const struct sched *s);
/* Then such a plan. */
void sched_plan_on(struct sched *s, struct sched_plan *ret);
/* The pass has been computed, or will be before anything that is queued later. NULL: gone since. */
void sched_commit(const struct sched_plan *plan);
/* Is there a sequence that may compute now? */
bool sched_has_work(const struct sched *s);

#endif
