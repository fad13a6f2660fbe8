/* SPDX-License-Identifier: Apache-2.0 */
/*
 * meter.h - how long things took and how large they were, as counts by magnitude.
 *
 * A histogram counts what was at most each of its bounds; the bounds are the same for all times and
 * the same for all sizes, in steps of about two, so that a quantile read from them is right within
 * a factor of two. Plain data: noting something costs a search among some twenty numbers, and no
 * memory beyond what is here. Owned by the core thread; status.c copies it.
 */
#ifndef WEFT_ENGINE_METER_H
#define WEFT_ENGINE_METER_H

#include "shm/wshm_abi.h"

#include <stdint.h>

#define METER_TIME_BOUNDS 23u
#define METER_SIZE_BOUNDS 19u

extern const uint64_t meter_time_bounds[METER_TIME_BOUNDS]; /* ns */
extern const uint64_t meter_size_bounds[METER_SIZE_BOUNDS];

/* What is timed. */
enum meter_time {
	METER_QUEUE,   /* of a request: from its arrival to its first pass */
	METER_FIRST,   /* to its first token */
	METER_PREFILL, /* from its first pass to its first token */
	METER_BETWEEN, /* from one token of an answer to the next */
	METER_DECODE,  /* from its first token to its end */
	METER_WHOLE,   /* from its arrival to its end */
	METER_PASS,    /* one pass over the model */
	METER_N_TIMES
};

/* What is counted. */
enum meter_size {
	METER_PROMPT, /* tokens of a request's prompt */
	METER_ANSWER, /* of all its answers */
	METER_ROWS,   /* of a pass */
	METER_N_SIZES
};

/* bucket[i] has what is above bound i - 1 and at most bound i; the last one all that is above. */
struct meter_times {
	uint64_t sum_ns, bucket[METER_TIME_BOUNDS + 1];
};

struct meter_sizes {
	uint64_t sum, bucket[METER_SIZE_BOUNDS + 1];
};

/* What one model, the base or an adapter, has done. */
struct meter_use {
	uint64_t requests, tokens_in, tokens_cached, tokens_out;
};

struct meter {
	struct meter_times time[METER_N_TIMES];
	struct meter_sizes size[METER_N_SIZES];
	uint64_t ended[WSHM_N_STATUS];	  /* requests, by what became of them; refused ones too */
	uint64_t finished[WSHM_N_FINISH]; /* answers, by why they came to their end */
	uint64_t left;			  /* requests whose client was gone before their end */
	struct meter_use base;		  /* adapters have theirs: adapters.h */
};

extern const char *const meter_time_names[METER_N_TIMES];
extern const char *const meter_size_names[METER_N_SIZES];

/* From one time to another, which may be 0 (not known: nothing is noted) or earlier (0 ns). */
void meter_time(struct meter *m, enum meter_time what, uint64_t from_ns, uint64_t to_ns);
void meter_size(struct meter *m, enum meter_size what, uint64_t size);

#endif
