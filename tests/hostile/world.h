/* SPDX-License-Identifier: Apache-2.0 */
/*
 * world.h - a weftd of one's own with a small real model, honest neighbours, and the three
 * questions that every attack is judged by:
 *
 *   world_same()         are weftd and the engine still the processes that were started?
 *   neighbours_stop()    did honest clients get, bit for bit, what they get when alone?
 *   world_given_back()   did everything come back: blocks, slabs, slots, sessions, regions?
 *
 * The programs under test are those in $WEFT_BUILD. Everything lives in a temporary directory;
 * processes die with the test. Checks are TAP lines. One thread of the test uses a world.
 */
#ifndef WEFT_TESTS_WORLD_H
#define WEFT_TESTS_WORLD_H

#include "libclient/weft.h"

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

/* A user that is nobody's, for what needs a second tenant. Only root can become it. */
#define WORLD_OTHER_UID 65534u

/* The model is the llama fixture (192 tokens, 2 layers) with more positions. */
#define WORLD_POSITIONS 8192u

struct world_options {
	const char *daemon;  /* lines for [daemon], NULL: none */
	const char *model;   /* for [model tiny] */
	const char *honest;  /* for [tenant honest]: the uid that runs the test */
	const char *other;   /* for [tenant other]: WORLD_OTHER_UID; ignored without root */
	const char *tenants; /* all sections of tenants, in place of those two */
	const char *env[8];  /* NAME=VALUE for weftd and engine, NULL-terminated */
	const char *shape;   /* of `weft model make`; NULL: tiny */
	unsigned threads;    /* of the engine's; 0: one */
	bool may_die;	     /* the test kills processes itself: world_stop() does not mind */
};

struct world;

/* Make the model, write the configuration, start weftd, wait until it serves. Bails out if not. */
struct world *world_start(const struct world_options *o);
/* SIGTERM, wait, remove the directory; a check that weftd ended by itself with status 0. */
void world_stop(struct world *w);
const char *world_socket(const struct world *w);
pid_t world_daemon(const struct world *w);
/* The engine's process now; 0 between two of them. */
pid_t world_engine(const struct world *w);
/* Wait until an engine other than `before` serves. 0: not in time. */
pid_t world_wait_engine(const struct world *w, pid_t before, int timeout_ms);
/* After the test has killed weftd: start another in the same directory. */
void world_restart_daemon(struct world *w);
/* Write the configuration with these sections of tenants; have it reloaded: true if weftd takes it. */
void world_tenants(struct world *w, const char *tenants);
bool world_reload(struct world *w, const char *tenants);
const char *world_dir(const struct world *w);
/* Wait for weftd's exit: its wait status, or -1 when it does not end in time. */
int world_wait_exit(struct world *w, int timeout_ms);

/* The uid for attackers: another tenant's for root, else our own (-1). */
uid_t world_attacker(void);

/* Ask admin.sock; the caller's reference. NULL when there is no answer. */
json_t *world_admin(const struct world *w, const char *line);
/* The first number of that name anywhere in the status, -1: none. */
long long world_number(const struct world *w, const char *name);
/* Wait until the number has this value. */
bool world_number_becomes(const struct world *w, const char *name, long long value, int timeout_ms);

/* Has weftd or the engine logged a line with this text? */
bool world_logged(const struct world *w, const char *text);

void world_same(const struct world *w);
void world_given_back(const struct world *w);

/* Counts are divided by this where a sanitizer makes everything slow. */
unsigned world_slowness(void);

/* --- honest work ----------------------------------------------------------------------------------*/

/*
 * JOBS requests that between them use sampling, penalties, several answers, log-probabilities (of
 * prompts too) and prompts of one to three blocks. What each yields when run alone is taken once, before anything
 * hostile starts.
 */
#define JOBS	   8u
#define JOB_N	   3u
#define JOB_TOKENS 160u
#define JOB_TOP	   2u

struct job_answer {
	int status; /* enum weft_status, or -errno */
	uint32_t n, resubmitted;
	uint32_t count[JOB_N];
	uint32_t tokens[JOB_N][JOB_TOKENS];
	struct weft_logprob logprobs[JOB_N][JOB_TOKENS][1 + JOB_TOP];
	struct weft_logprob prompt_logprobs[JOB_TOKENS][1 + JOB_TOP];
};

/* Options of job i; the prompt stands in `prompt` (room for JOB_TOKENS). */
void job_options(uint32_t i, uint32_t vocab, uint32_t *prompt, struct weft_submit_options *o);
/* Run it to the end and copy everything. */
void job_run(struct weft *w, uint32_t i, struct job_answer *ret);
bool job_same(const struct job_answer *a, const struct job_answer *b);
/* As they are alone: taken by the first call, after that the same memory. */
const struct job_answer *world_reference(struct world *w);

/* Processes that run the jobs over and over and compare. */
struct neighbours;
struct neighbours *neighbours_start(struct world *w, uint32_t n);
/* Requests that have ended so far, of all. */
uint64_t neighbours_done(const struct neighbours *n);
/* Wait until they have ended `more` requests from now on. */
bool neighbours_advance(const struct neighbours *n, uint64_t more, int timeout_ms);
/* Let each finish what it is at, and check that every answer was right. */
void neighbours_stop(struct neighbours *n);

/* A session of libweft's, or bail out. */
struct weft *world_open(const struct world *w);

#endif
