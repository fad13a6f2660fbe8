/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_pipeline.h - what the parts of `weft bench pipeline` share.
 *
 *   bench_pipeline.c        options, session, adapters; which points are measured in which order
 *   bench_pipeline_run.c    calls and the four pipelines that run one conversation at a time
 *   bench_pipeline_async.c  the fifth: conversations that arrive by a Poisson process
 *   bench_pipeline_report.c points to rows, table and pictures
 *
 * `weft bench adapters` makes its calls by the same functions. One process, one session, one thread
 * (bench adapters: one session with each of two daemons). All times are the engine's own (struct weft_result).
 */
#ifndef WEFT_TOOLS_BENCH_PIPELINE_H
#define WEFT_TOOLS_BENCH_PIPELINE_H

#include "libclient/weft.h"
#include "tools/bench.h"
#include "tools/cli.h"

#include <stdbool.h>

#define PIPE_PARALLEL_CALLS 5
#define PIPE_MAX_CALLS	    64 /* of pipe_calls() */

enum pipe_kind {
	PIPE_BASE_ADAPTER, /* base, then the adapter: the adapter's call */
	PIPE_ADAPTER_BASE, /* adapter, then the base: the base's call */
	PIPE_GENERATION,   /* as the first, the base's answer swept */
	PIPE_PARALLEL,	   /* base, five adapters at once, base */
	PIPE_ASYNC,	   /* base, then the adapter, many at once: the adapter's calls */
	PIPE_KINDS
};

enum pipe_arm {
	ARM_ALORA,
	ARM_ALORA_SERIAL,   /* PIPE_PARALLEL only: one after another */
	ARM_LORA_COLD,	    /* a LoRA that has never seen the prompt */
	ARM_LORA_WARM,	    /* the same call again */
	ARM_BASE_RECOMPUTE, /* the base model in the adapter's place, nothing reused */
	PIPE_ARMS
};

enum pipe_metric {
	M_QUEUE,   /* arrival to start; all times in seconds */
	M_PREFILL, /* start to first token */
	M_DECODE,  /* first token to end */
	M_TTFT,	   /* arrival to first token */
	M_E2E,	   /* arrival to end */
	M_HIT,	   /* cached tokens / prompt tokens */
	M_WALL,	   /* of several calls: first arrival to last end */
	PIPE_METRICS
};

/* Which of a pipeline's timed calls. */
enum pipe_step { STEP_CALL, STEP_AFTER /* PIPE_PARALLEL: the base call that follows */ };

/* What one arm did in one pipeline at one length or rate. */
struct pipe_point {
	enum pipe_kind kind;
	enum pipe_arm arm;
	enum pipe_step step;
	double x;		 /* prompt tokens, generated tokens, or conversations a second */
	double *v[PIPE_METRICS]; /* owner; [n]: by repetition, or by conversation */
	uint32_t n;
	uint32_t live_tokens; /* PIPE_ASYNC: most tokens of running requests at once */
};

struct pipe_options {
	const char *socket, *model, *svg;
	struct cli_tokens prompts, generations;
	bool default_prompts, default_generations; /* nobody chose them */
	double rates[32];
	uint32_t n_rates;
	uint32_t generate;	 /* tokens of the first call's answer */
	uint32_t tokens;	 /* of the timed calls' answers */
	uint32_t adapter_tokens; /* of each of the adapters in parallel; 0: as `generate` */
	uint32_t prompt;	 /* of PIPE_GENERATION and PIPE_ASYNC */
	uint32_t reps, requests, seed;
	uint32_t share;	      /* repetitions that go on from one first call */
	uint32_t kinds, arms; /* bit sets */
};

/* What is being measured, for pipe_progress(). */
struct pipe_progress {
	enum pipe_kind kind;
	double x;
	uint32_t rep, reps;
};

struct pipe {
	struct pipe_options opt;
	struct weft *weft; /* owner */
	struct weft_model model;
	struct weft_adapter alora[PIPE_PARALLEL_CALLS], lora[PIPE_PARALLEL_CALLS];
	uint32_t n_alora, n_lora;
	struct cli_tokens held; /* owner; the conversation that repetitions share */
	struct pipe_progress progress;
	uint64_t random;	   /* state of the generator of tokens and arrivals */
	uint32_t n_prompts;	   /* made by pipe_new_prompt() */
	struct pipe_point *points; /* owner */
	uint32_t n_points, room;
};

static inline bool pipe_wants(const struct pipe *p, enum pipe_arm arm)
{
	return p->opt.arms >> arm & 1;
}

/* One call: what is asked, then what was measured. */
struct pipe_call {
	const char *adapter; /* NULL: base */
	const uint32_t *prompt;
	uint32_t n_prompt, max_tokens, flags;
	struct cli_tokens *answer; /* the tokens are appended; NULL: not wanted */
	double arrival_s, start_s, first_s, end_s;
	uint32_t cached, prompt_tokens;
};

/* Say on standard error that an arm's turn has come: a line that is written over on a terminal; lines
 * elsewhere, one for each arm of each length or rate, when it comes for the first time. */
void pipe_progress(const struct pipe *p, enum pipe_arm arm);

/* --- run -----------------------------------------------------------------------------------------*/

/* The generator's state becomes a function of the seed and these. */
void pipe_seed(struct pipe *p, uint64_t a, uint64_t b, uint64_t c);
uint64_t pipe_draw(struct pipe *p);
/* n random tokens at the end. 0 or -1 with a message. */
int pipe_add_random(struct pipe *p, struct cli_tokens *t, uint32_t n);
/* A prompt of n random tokens whose first one counts the prompts, so that not even a first token
 * agrees by chance with an earlier one's. */
int pipe_new_prompt(struct pipe *p, struct cli_tokens *t, uint32_t n);
int pipe_add(struct cli_tokens *t, const uint32_t *tokens, uint32_t n);
/* Fill in what was measured and append the answer; the request has ended. 0 or -1 with a message. */
int pipe_finish(struct pipe_call *c, struct weft_request *r);
void pipe_submit_options(const struct pipe_call *c, struct weft_submit_options *o);
/* Submit all n at once, wait for all. 0 or -1 with a message. */
int pipe_calls(struct pipe *p, struct pipe_call *calls, uint32_t n);
/* Add one sample to a point: the means of the calls' figures, and the wall time of all. */
int pipe_record(struct pipe *p, const struct pipe_point *where, const struct pipe_call *calls,
		uint32_t n);
/* One repetition of a pipeline other than PIPE_ASYNC. 0 or -1 with a message. */
int pipe_repetition(struct pipe *p, enum pipe_kind kind, uint32_t x, uint32_t rep);

/* --- async ---------------------------------------------------------------------------------------*/

int pipe_async(struct pipe *p, double rate);

/* --- report --------------------------------------------------------------------------------------*/

const char *pipe_kind_name(enum pipe_kind kind);
const char *pipe_arm_name(enum pipe_arm arm);
/* What is swept: "prompt", "generated" or "rate". */
const char *pipe_x_name(enum pipe_kind kind);
const struct pipe_point *pipe_find(const struct pipe *p, const struct pipe_point *like,
				   enum pipe_arm arm);
void pipe_rows(const struct pipe *p, struct bench_table *t);
void pipe_print(const struct pipe *p);
/* 0 or -1 with a message. */
int pipe_pictures(const struct pipe *p, const char *path);

#endif
