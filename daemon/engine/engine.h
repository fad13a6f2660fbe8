/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine.h - what the files of weft-engine share.
 *
 *   main.c      options, start         core.c       the core thread's loop, waking and sleeping
 *   adapters.c  between both threads: who is served by name, by RCU
 *   link.c      control thread: weftd  session.c    sessions, slots, polling of rings and flags
 *   mail.c      between the two        admit.c      descriptor to request: fetch, check, quotas
 *   bell.c      bell helper thread     recover.c    requests of an engine that was killed
 *   status.c    what weftd may ask     request.c    a request's life; the one release path
 *   orphan.c    the end of weftd       domain.c     who may reuse whose KV; the mirrors
 *   blocks.c, sched.c, slab.c, stop.c  reuse.c      sequences and the prefix cache
 *     plain data, no model             step.c       plan to batch, forward pass, results
 *   cache/      likewise               ahead.c      a pass queued before those results
 *   model/      models and adapters    pins.c       prefixes that stay
 *   chores.c    a part in each pass    sampling.c   rows of the sampler
 *   test_hook.c for tests only         publish.c    results into rx
 *                                      meter.c      times and sizes of all of it
 *
 * Threads: the core thread owns everything in struct engine but what is said to be otherwise; the
 * control thread owns the link and all descriptors. They talk through two mailboxes, never through
 * shared fields.
 */
#ifndef WEFT_ENGINE_ENGINE_H
#define WEFT_ENGINE_ENGINE_H

#include "daemon/common/err.h"
#include "daemon/common/log.h"
#include "daemon/engine/adapters.h"
#include "daemon/engine/blocks.h"
#include "daemon/engine/cache/cache.h"
#include "daemon/engine/mail.h"
#include "daemon/engine/meter.h"
#include "daemon/engine/model/model.h"
#include "daemon/engine/sched.h"
#include "daemon/engine/slab.h"
#include "daemon/engine/stop.h"
#include "kernels/backend.h"
#include "shm/wshm.h"
#include "shm/wshm_control.h"

#define NO_DEADLINE UINT64_MAX

struct engine;
struct session;
struct request;
struct bell;

/*
 * The requests that may reuse each other's KV: one domain per tenant, under the same number.
 * Number 0 is the public one, which all may take from; weftd's tenant t is t + 1 here.
 */
#define DOMAIN_PUBLIC 0u

struct domain {
	struct domain *next; /* engine.domains */
	uint32_t number;
	struct cache_domain *cache;	/* owned */
	struct wshm_idx_writer *mirror; /* owned; NULL: none */
	bool waits;			/* the mirror has something to give back */
};

/* Who pays. Quotas come from weftd; the fair share is the scheduler's. */
struct tenant {
	bool known;
	char name[WCTL_NAME_BYTES];
	struct wlink_quota quota;
	uint32_t in_flight;	/* requests fetched and not ended */
	uint32_t queued_tokens; /* of prompts that have not started */
	uint64_t rate_ns;	/* when the descriptor bucket was empty, on the engine's clock */
	uint64_t requests, refused, tokens_in, tokens_out, tokens_cached;
	struct domain *domain; /* borrowed; NULL until its first session */
};

/* --- a request -----------------------------------------------------------------------------------*/

/* One of its n answers: a sequence of the scheduler's. */
struct sample {
	struct sched_seq seq; /* the first field: see sample_of() */
	struct request *req;
	uint32_t index;
	uint32_t n_out;	   /* tokens known, in the slab */
	bool pending;	   /* one more has been drawn, by the pass that is queued; see ahead.c */
	uint32_t drawn_at; /* pending: in which of its draws */
	uint64_t token_ns; /* when its last token was known; 0: not in this engine */
	bool done;
	enum wshm_finish finish;
	struct wk_count *counts; /* owned; NULL until penalties need them; ascending by token */
	uint32_t n_counts, cap_counts;
	struct cache_chain chain;
	bool uses_adapter;   /* outside of its chain */
	uint64_t wait_order; /* of the sequence that it waits for */
	uint32_t wait_until; /* until that one has computed so many positions; 0: for none */
	uint32_t tail_block, tail_rows; /* held between probe and adopt; rows 0: none */
};

struct request {
	struct request *prev, *next; /* engine.requests */
	struct session *session;     /* borrowed; outlives its requests */
	struct tenant *tenant;	     /* borrowed */
	uint32_t slot, generation;
	struct wshm_desc desc;
	uint32_t desc_bytes;
	uint64_t digest[2];
	struct adapter_handle *adapter; /* borrowed, counted in its requests; NULL: base model */
	uint32_t activation;		/* first adapted position; WSHM_NO_ACTIVATION: none */
	enum wshm_invocation invocation;
	uint32_t *prompt;  /* owned */
	uint32_t n_client; /* tokens of the client's prompt */
	uint32_t n_prompt; /* with an invocation that was appended */
	uint32_t *resume;  /* owned; tokens delivered by an earlier daemon, all samples in a row */
	uint64_t order;	   /* age: the order of the first sample; 0: request_link() chooses */
	uint64_t seed;
	uint64_t arrival_ns, deadline_ns; /* NO_DEADLINE: none */
	uint64_t forward_ns;		  /* up to the first token */
	struct wshm_slab_layout lay;
	bool placed; /* has its slab; else it is its session's pending one */
	uint64_t slab_off;
	struct wk_bias *bias;		   /* owned; the client's, then what min_tokens forbids */
	uint32_t n_bias, n_bias_forbidden; /* the second number counts both */
	struct wk_count *prompt_counts;	   /* owned; NULL until penalties need them */
	uint32_t n_prompt_counts;
	struct sample *samples;	  /* owned; [desc.n] */
	uint32_t n_live;	  /* samples not done */
	uint32_t prompt_ready;	  /* prompt log-probabilities written */
	bool started, first_done; /* scheduled once; first token published */
	bool queued_charged;	  /* tenant.queued_tokens holds n_prompt */
	uint32_t cached;	  /* positions of the prompt that were found at the start */
	bool suspect;		  /* see recover.c */
	bool crash_test;
	uint8_t touched;	     /* in whose step.touched: their bits */
	bool progressed;	     /* got a token in this step */
	uint32_t restarts;	     /* as in the slot, without the mark */
	enum wshm_status end_status; /* set within a step, acted on at its end */
};

/* --- a session -----------------------------------------------------------------------------------*/

struct slot_use {
	bool used; /* admitted and not yet released */
	bool has_slab;
	uint32_t generation;
	uint64_t slab_off;
	struct request *req; /* NULL once ended */
	uint32_t at;	     /* index in session.used */
};

struct session {
	struct session *prev, *next; /* engine.sessions */
	uint64_t id;
	uint32_t tenant;
	struct wshm_engine shm;
	int wake_fd;   /* borrowed from the control thread until DETACHED; never read */
	uint32_t bell; /* index in the bell helper, or BELL_NONE */
	bool over;     /* broke the protocol; waits to be detached */
	struct session *next_guarded; /* see orphan.c */
	bool internal;		      /* the engine's own: weftd knows nothing of it */
	bool returns;		      /* is detached to be attached again */
	struct pin_job *pin;	      /* what it computes, while it does; see pins.c */
	uint32_t wakes;		      /* by its descriptor, within the window below */
	uint64_t wake_window_ns;
	uint64_t muted_until_ns; /* 0: its descriptor is watched; see core.c */
	struct slab_arena slabs;
	struct slot_use *slots; /* owned; [slots] */
	uint32_t *used;		/* owned; numbers of the used slots */
	uint32_t n_used, cursor;
	struct request *pending;  /* admitted, and waits for room in rx; holds up the ring */
	uint64_t last_arrival_ns; /* each of its requests has another */
	uint64_t slabs_freed, pending_seen; /* has room been made since the last try? */
	uint64_t seed_state;		    /* for requests that bring no seed */
};

/* --- a step --------------------------------------------------------------------------------------*/

struct given_row {
	struct request *req;
	uint32_t row, index; /* of the pass, of the prompt */
};

#define STEP_MAX_DRAWS (SCHED_MAX_SEQS * WSHM_MAX_SAMPLES)
_Static_assert(STEP_MAX_DRAWS <= WK_MAX_DRAWS, "one call of sample() for a pass");

/* A pass, from its plan to its results. */
struct step {
	uint8_t bit; /* of the two */
	struct sched_plan
		plan; /* seqs, drawn_for, touched: NULL where the sequence has gone since */
	uint32_t tokens[WK_MOST_ROWS];
	struct wk_seq seqs[SCHED_MAX_SEQS];
	uint32_t out_rows[SCHED_MAX_SEQS];
	uint32_t n_out;
	struct sample *order[SCHED_MAX_SEQS]; /* of the plan, equal adapters side by side */
	struct wk_segment segments[SCHED_MAX_SEQS];
	uint32_t n_segments;
	const struct wk_lora *loras[SCHED_MAX_SEQS];
	uint32_t n_loras;
	uint32_t *table; /* owned */
	uint32_t n_table, cap_table;
	uint32_t *fresh; /* owned; blocks to be zeroed */
	uint32_t n_fresh, cap_fresh;
	struct sample *drawn_for[STEP_MAX_DRAWS];
	struct wk_sample draws[STEP_MAX_DRAWS];
	struct wk_sampled drawn[STEP_MAX_DRAWS];
	uint32_t n_draws;
	struct given_row given[WK_MOST_ROWS];
	uint32_t n_given;
	struct request *touched[SCHED_MAX_SEQS];
	uint32_t n_touched;
	uint32_t n_rows;
	double flops;
	uint64_t ticket;
	uint64_t begun_ns; /* on the device: when it was queued, or the one before it ended */
	uint64_t made_ns;  /* the host's time for it: its batch, and to queue it */
	bool advanced;	   /* what is known of its outcome beforehand has been noted */
};

/* The engine's own time per pass: scheduling, keys, index, results; without the device's. */
#define OWN_TIMES 1024u

struct own_times {
	uint32_t ns[OWN_TIMES]; /* the last so many, in a ring */
	uint64_t n;
};

/* What is done a part in each pass; see chores.c. */
struct chores {
	struct mail *first, *last;  /* owned: from the control thread, answered in this order */
	int64_t slice_bytes, bytes; /* of adapters: for a pass; what is left of it */
	uint64_t most_slices;	    /* test_hook.c */
};

/* --- the engine ----------------------------------------------------------------------------------*/

/* See orphan.c. */
struct orphan_guard {
	pthread_mutex_t lock;
	struct session *first; /* by next_guarded, under lock; borrowed */
	int signals;	       /* SIGCONT, to be read; the guard's */
};

struct engine_options {
	char **argv; /* of main() */
	const char *name, *model_dir, *backend;
	bool deterministic;
	bool dummy_weights;
	uint32_t threads;
	uint64_t kv_bytes; /* 0: computed */
	uint32_t max_batch_tokens, max_seqs, prefill_chunk;
	bool poll_always;
	bool files;	      /* WLINK_FD_FILES is there, to be filled */
	uint32_t crash_token; /* WK_NO_TOKEN: none; see step.c */
	bool no_system_calls; /* after the first token; see test_hook.c */
	bool poison_free;     /* free blocks hold NaN; see test_hook.c */
	bool ahead;	      /* queue a pass ahead on any backend, to test it */
};

struct engine_counters {
	uint64_t steps, steps_ahead, rows, tokens_in, tokens_out, tokens_cached, requests, refused,
		recovered, faults, offences;
	uint64_t adapters_placed, place_passes, place_most_bytes; /* in a pass */
	uint64_t start_ns, step_ns;
};

struct engine {
	/* fixed before the core thread starts */
	struct engine_options opt;
	const struct wk_ops *ops;
	struct wk_backend *be;	 /* owned by the core thread once it runs */
	struct model *model;	 /* likewise */
	struct wk_buf *pool_buf; /* likewise */
	const struct model_config *config;
	struct wk_info info;
	uint64_t weight_bytes, block_bytes;
	uint64_t instance_id;
	uint32_t eos[MODEL_MAX_EOS], n_eos; /* those inside the vocabulary */
	struct wlink_heartbeat *heartbeat;  /* mapped; the core thread writes */
	struct mailbox to_core, to_control; /* the two threads' only meeting points */
	struct bell *bell;		    /* has its own lock */
	struct adapter_table *adapters;	    /* RCU: see adapters.h; NULL: none yet */

	struct orphan_guard orphan; /* has its own lock */

	/* whose thread makes the calls: see publish_wake() */
	struct wshm_wakes waking;
	_Atomic bool waking_lent;

	/* the control thread's */
	struct pin_job *pin_queue; /* owned; the first one is with the core thread */
	uint64_t n_internal;	   /* sessions made so far */
	bool told_drained;	   /* weftd is about to hang up, and its clients know */

	/* the core thread's */
	struct block_pool blocks;
	struct sched sched;
	struct cache *cache; /* owned */
	struct domain *domains;
	struct pin *pins; /* owned; see pins.c */
	struct adapter_weights
		*placing; /* borrowed: have their blocks, not yet all their weights */
	struct chores chores;
	struct own_times own;
	struct tenant **tenants; /* owned; by domain number, NULL: unknown */
	uint32_t n_tenants;
	struct session *sessions;
	struct wshm_wakes wakes;  /* gathered by publish_wake() */
	bool wakes_owed;	  /* there were more than one pass wakes */
	bool first_token;	  /* published since the last publish_wake() */
	uint32_t wake_turn;	  /* who comes first where not all get a share */
	struct request *requests; /* fetched and not ended */
	uint32_t n_requests, n_suspects;
	uint64_t next_order;
	uint64_t fetched_tokens;   /* out of clients' memory, whatever became of them */
	uint64_t next_deadline_ns; /* of any request, or NO_DEADLINE; may be too early */
	struct step steps[2];
	struct step *flying; /* of them: queued and not waited for; or NULL */
	uint64_t device_ns;  /* of this turn: the device's, waited for by this thread */
	uint64_t own_ns;     /* of this pass so far, in earlier turns */
	uint32_t last_rows;  /* of the last pass, and how long it took */
	uint64_t last_ns;
	double ns_per_flop; /* the slowest seen lately; 0: nothing measured */
	bool loads_failed;  /* of any adapter, in this engine */
	bool announced_busy, draining, drained, stop;
	uint64_t last_work_ns, last_gap_ns;
	uint32_t n_muted;
	bool readers_waited; /* before the last sleep, mirrors had something to give back */
	uint64_t drain_deadline_ns;
	int epoll_fd;
	struct engine_counters count;
	struct meter meter;
	struct log_limit log_session;
};

uint64_t now_ns(void); /* CLOCK_MONOTONIC */

static inline struct sample *sample_of(struct sched_seq *q)
{
	return (struct sample *)q;
}

/* core.c */
int core_init(struct engine *e); /* 0 or -errno; before the thread starts */
void *core_main(void *engine);

/* session.c */
struct tenant *tenant_get(struct engine *e, uint32_t index); /* NULL: unknown */
int tenant_set(struct engine *e, uint32_t number, const char *name,
	       const struct wlink_quota *quota);
void session_attach(struct engine *e, struct session *s, enum wlink_resume resume);
void session_detach(struct engine *e, struct session *s);
struct session *session_find(struct engine *e, uint64_t id);
/* Look at ring and flags, with bounded work; all: at every flag. True if something was found. */
bool session_poll(struct engine *e, struct session *s, uint64_t now, bool all);
/* The session broke the protocol: everything of it ends, weftd is told. */
void session_offence(struct engine *e, struct session *s, const char *what);
void session_slot_use(struct session *s, uint32_t slot, uint32_t generation, struct request *req);
/* The client gave the slot back, or is gone: request, slab and slot are free. */
void session_slot_release(struct engine *e, struct session *s, uint32_t slot);
void session_ring_bell(struct engine *e, struct session *s);

/* admit.c */
/* Take submissions from the ring. True if there were any. */
bool admit_poll(struct engine *e, struct session *s, uint64_t now);
/*
 * Fetch and check everything about a request that needs neither quota nor room: 0 and *ret; or a
 * status above 0 with *ret_detail; or -ENOMEM. An earlier engine's slot, if it has admitted the
 * request, says with what adapter and from where.
 */
int admit_fetch(struct engine *e, struct session *s, uint32_t slot, uint32_t generation,
		const struct wshm_slot *earlier, struct request **ret, uint32_t *ret_detail);
/* A request of the engine's own: compute this prompt and one token. NULL: no memory. */
struct request *admit_internal(struct engine *e, struct session *s, const uint32_t *tokens,
			       uint32_t n);

/* recover.c */
#define RESTARTS_ALONE 0x80000000u /* in slot.restarts: in a pass alone */
/* Take over the requests of an earlier engine. False: the session has been ended. */
bool recover_session(struct engine *e, struct session *s, enum wlink_resume resume);
/* Choose who computes alone next, if there are suspects. */
void recover_quarantine(struct engine *e);
void recover_cleared(struct engine *e, struct request *r);

/* request.c */
/* n_append: room for so many tokens more in the prompt. */
struct request *request_new(struct engine *e, struct session *s, uint32_t slot, uint32_t generation,
			    const struct wshm_desc *desc, uint32_t n_append);
void request_free(struct request *r); /* not linked; half-built and NULL allowed */
int request_prepare(struct engine *e, struct request *r); /* bias; 0 or -ENOMEM */
/* Charge the tenant, enter engine.requests. */
void request_link(struct engine *e, struct request *r);
/* Hand the unfinished samples to the scheduler. */
void request_start(struct engine *e, struct request *r);
/* A sample has its last token. */
void request_sample_done(struct engine *e, struct sample *a, enum wshm_finish finish);
/* The one way out: leave the scheduler, uncharge, and (unless the slot itself goes) publish. */
void request_end(struct engine *e, struct request *r, enum wshm_status status, uint32_t detail);
void request_drop(struct engine *e, struct request *r);
/* The account of the model that it is for. */
struct meter_use *request_use(struct engine *e, const struct request *r);
uint32_t request_token(const struct sample *a, uint32_t position);
uint32_t *request_out(const struct sample *a); /* its tokens, in the slab */

/* reuse.c: the scheduler's questions, and what a pass leaves in the cache */
void reuse_chain(struct engine *e, struct sample *a); /* before it enters the scheduler */
uint32_t reuse_probe(void *engine, struct sched_seq *q);
bool reuse_adopt(void *engine, struct sched_seq *q);
void reuse_leave(void *engine, struct sched_seq *q);
void reuse_commit(struct engine *e, const struct sched_plan *plan);

/* chores.c: what would hold up everybody if it were done in one go is done a part in each pass */
void chores_add(struct engine *e, struct mail *mail); /* ADAPTER or DROP; answered in turn */
void chores_run(struct engine *e);		      /* a pass's part */
void chores_place(struct engine *e);		      /* what this pass may still move */
bool chores_left(const struct engine *e);

/* domain.c */
struct domain_open {
	uint32_t number;
	uint8_t secret[WSHM_SECRET_BYTES];
	struct wshm_idx_writer *mirror; /* NULL: none */
};
void domain_root(const struct engine *e, struct wshm_root *ret); /* any thread */
struct domain *domain_find(const struct engine *e, uint32_t number);
/* Make it, or give it this secret and this mirror in place of its own. Takes the mirror over in any
 * case. 0 or -ENOMEM. */
int domain_set(struct engine *e, const struct domain_open *open);
/* The domain of a tenant; made with a random secret if weftd has sent none. NULL: no memory. */
struct domain *domain_of(struct engine *e, uint32_t number);
/* Give back what clients have stopped reading. True: something waits for them still. */
bool domain_reclaim(struct engine *e, uint64_t now);

/* pins.c */
struct pin {
	struct pin *next; /* engine.pins */
	uint64_t id;
	struct cache_pin *pin; /* owned */
};

struct pin_job {
	struct pin_job *next;	   /* the control thread's queue */
	struct wlink_pinned reply; /* as it will be sent */
	uint32_t number;	   /* of the domain */
	uint32_t n_tokens;
	uint32_t *tokens;	 /* owned */
	struct session *session; /* opened for it; NULL: could not be */
	struct request *request; /* the core thread's */
	bool dropped;		 /* unpinned while it waited: the control thread's */
};
struct pin_job *pin_job_new(const struct wlink_pin *msg, int fd); /* any thread; NULL: no memory */
void pin_job_free(struct pin_job *job);
void pin_start(struct engine *e, struct pin_job *job);
/* The request of an internal session has ended. */
void pin_ended(struct engine *e, struct session *s, enum wshm_status status, uint32_t detail);
void pin_drop(struct engine *e, uint64_t id);

/* sampling.c: 0 or -ENOMEM */
int sampling_row(struct engine *e, struct sample *a, uint32_t logits_row, struct wk_sample *ret);
void sampling_given(uint32_t logits_row, uint32_t token, uint32_t n_logprobs,
		    struct wk_sample *ret);
void sampling_append(struct sample *a, uint32_t token); /* keep the counts */
bool sampling_needs_tokens(const struct wshm_desc *d);	/* those drawn so far */

/* publish.c: results and states into rx */
void publish_admitted(struct request *r);
void publish_placed(struct request *r); /* it was admitted before there was room for its results */
/* True: for the first time, in any engine. */
bool publish_started(struct engine *e, struct request *r, uint64_t now);
void publish_token(struct sample *a, const struct wk_sampled *drawn);
void publish_prompt_logprobs(struct request *r, uint32_t index, const struct wk_sampled *drawn);
void publish_counts(struct engine *e, struct request *r, uint64_t now);
/*
 * After everything was published: wake whoever waits for any of it, once for each session. busy:
 * there is more to do, so a compute thread that is free makes the calls, unless they are few and for
 * a first token. publish_wake_end(): they are made now, if it has not begun.
 */
void publish_wake(struct engine *e, bool busy);
void publish_wake_end(struct engine *e);
void publish_end(struct engine *e, struct request *r, enum wshm_status status, uint32_t detail);
void publish_refusal(struct engine *e, struct session *s, uint32_t slot, uint32_t generation,
		     enum wshm_status status, uint32_t detail);
/* A slot of an earlier engine whose request cannot go on. */
void publish_lost(struct engine *e, struct session *s, uint32_t slot, enum wshm_status status);
void publish_free(struct session *s, uint32_t slot);
void publish_restarts(struct request *r, uint32_t restarts);

/* step.c */
/* One pass, if anything can compute; or less: a pass computes, and it is too early for the next. False:
 * nothing could. */
bool step_run(struct engine *e);
void step_finish(struct engine *e); /* the pass that is queued, if one is, and its results */
void step_quiet(struct engine *e);  /* the device has nothing queued; results come later */

/* warm.c: a device's first passes, before the core thread starts. 0 or -errno */
int warm_up(struct engine *e, struct weft_err *err);

/* ahead.c */
/* May a pass be queued behind this one, whose results are not there yet? Then advance it and plan. */
bool ahead_possible(const struct engine *e, const struct step *st);
/* Is there still time to see who comes before a pass is queued behind this one? */
bool ahead_early(const struct engine *e, const struct step *st, uint64_t now);
/* What is known of a queued pass without its results: positions, and that tokens are drawn. */
void ahead_advance(struct engine *e, struct step *st);
/* A position's token, or where the pass that is queued draws it. */
uint32_t ahead_token(const struct sample *a, uint32_t position);
/* The sequence, or all of the request, ends: what is queued for it comes to nothing. */
void ahead_forget_sample(struct engine *e, const struct sample *a);
void ahead_forget_request(struct engine *e, const struct request *r);

/* test_hook.c: 0 or -errno */
int hook_no_system_calls(void);
void hook_poison_free(struct engine *e);
void hook_check_fresh(struct engine *e, const struct step *st); /* aborts */
int64_t hook_slice_bytes(int64_t otherwise);
uint64_t hook_most_slices(void);

/* bell.c */
#define BELL_NONE UINT32_MAX
int bell_open(struct bell **ret);
void bell_close(struct bell *b);
/* Watch over a socket (owned until bell_remove). Index, or -ENOMEM. */
int bell_add(struct bell *b, int fd);
void bell_remove(struct bell *b, uint32_t index); /* closes it */
void bell_ring(struct bell *b, uint32_t index);	  /* from the core thread; at most one futex call */

/* orphan.c: what happens when weftd dies, or hangs up while nobody looks */
void orphan_guard_start(struct engine *e); /* before any other thread */
/* The control thread's sessions, whose sleepers are to be told. */
void orphan_add(struct engine *e, struct session *s);
void orphan_remove(struct engine *e, struct session *s); /* one that is not there is none */
/* The link has hung up: if weftd is dying, its clients are told first, and this does not return. */
void orphan_wait(void);

/* link.c: the control thread */
int link_fail(
	const struct weft_err *err); /* tell weftd that nothing came of it; returns 1 for exit() */
void link_progress(void *engine, uint64_t done, uint64_t total);
void link_ready(struct engine *e);
int link_main(struct engine *e); /* until weftd hangs up; the exit status */
/* Anything that the core thread tells weftd. */
void core_tell(struct engine *e, enum mail_type type, uint64_t session_id);

/* status.c */
struct status_report;
struct status_report *status_collect(struct engine *e); /* core thread; heap; NULL: no memory */
/* JSON text, heap; frees the report. */
char *status_text(struct engine *e, struct status_report *r);

#endif
