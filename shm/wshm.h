/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wshm.h - everything that touches the shared regions goes through these functions.
 *
 * Three users: weftd makes and seals regions; libweft holds the client end; weft-engine holds the
 * engine end. Each end keeps its own indices, sizes and masks in private memory; what the other
 * side can write is fetched once, checked, and only the copy is used.
 *
 * The three handshakes are store-then-load on both sides, all sequentially consistent, so at least
 * one side sees the other:
 *
 *   submit   client: sq_tail, cancel or released (S1); then reads need_wake (S2)
 *            engine: sets need_wake (S3); then reads sq_tail, cancel, released (S4); sleeps
 *   wake     engine: progress, cq_tail (W1); then reads waiters, any_waiters (W2); wakes
 *            client: adds itself to waiters, any_waiters (W3); then reads progress, cq_tail (W4);
 *                    sleeps
 *   notice   engine: progress (W1); then reads cq_head (N2); posts unless one is outstanding
 *            client: cq_head (N3); then reads progress (N4) and the counts
 *
 * and the plain hand-overs: sq entry before sq_tail (S1, S4), sq_head after the entry was read and
 * the slot written (Q1, Q2), cq entry before cq_tail (W1, C1), cq_head after the entry was read
 * (N3, N2), tokens before counts (T1, T2), results before state (T3, T4), a slot's contents before
 * its generation (G1, G2), instance before engine state (I1, I2).
 *
 * A notice says "look at this slot". At most one per slot is outstanding, whatever its generation,
 * so the ring of 2 * slots entries cannot overflow; a client that lies about cq_head loses its own
 * notices and nothing else.
 *
 * Generations are nonzero and differ from the slot's previous one. A client may reuse a slot once
 * it has released it and rx shows the slot FREE under that generation; the request's bytes in the
 * arena likewise.
 */
#ifndef WEFT_SHM_WSHM_H
#define WEFT_SHM_WSHM_H

#include "shm/order.h"
#include "shm/wshm_abi.h"

#include <stdbool.h>
#include <stdint.h>

/* --- layout and regions --------------------------------------------------------------------------*/

struct wshm_params {
	uint32_t slots;		 /* power of two, 1..WSHM_MAX_SLOTS */
	uint64_t tx_arena_bytes; /* multiples of WSHM_PAGE, up to WSHM_MAX_ARENA */
	uint64_t rx_arena_bytes;
};

/* Offsets of everything, computed from params alone. Rings have 2 * slots entries. */
struct wshm_layout {
	struct wshm_params params;
	uint32_t ring_entries;
	uint64_t tx_ctl, tx_ring, tx_table, tx_arena, tx_bytes;
	uint64_t rx_ctl, rx_ring, rx_table, rx_arena, rx_bytes;
};

/* 0, or -EINVAL when a parameter is out of its range. */
int wshm_layout_init(struct wshm_layout *ret, const struct wshm_params *params);

/*
 * Make the two memfds of a session: sized, headers written, sealed (SHRINK, GROW, SEAL), rx of
 * mode 0600. 0 or -errno; on failure nothing is left open. The caller owns the descriptors.
 */
int wshm_regions_new(const struct wshm_layout *layout, uint64_t session_id, int *ret_tx_fd,
		     int *ret_rx_fd);
/* A read-only descriptor of rx for the client, opened through /proc/self/fd. fd or -errno. */
int wshm_open_read_only(int rx_fd);
/* Wipe dead regions so that they can serve the same uid again: all bytes zero, headers anew. */
int wshm_regions_reset(const struct wshm_layout *layout, uint64_t session_id, int tx_fd, int rx_fd);
/* Check type, seals and size of a received descriptor. 0 or -EPROTO/-errno. */
int wshm_region_check(int fd, uint64_t bytes);

/* --- client end ----------------------------------------------------------------------------------*/

struct wshm_client {
	struct wshm_layout layout;
	uint8_t *tx; /* owner of both mappings */
	const uint8_t *rx;
	uint32_t sq_tail; /* private copy; guarded by libweft's lock */
	uint32_t sq_head; /* as last read from rx; likewise */
	uint32_t cq_head; /* likewise */
};

/*
 * Threads: submit under one lock of the caller's, notice under one lock; the others from any
 * thread. `layout` is what the hello said; the headers must agree with it.
 */

/* Map and check both regions against the layout of the hello's reply. 0 or -errno. */
int wshm_client_open(struct wshm_client *c, const struct wshm_layout *layout, int tx_fd, int rx_fd);
void wshm_client_close(struct wshm_client *c); /* half-open or zeroed allowed */

struct wshm_req *wshm_client_req(const struct wshm_client *c, uint32_t slot);
const struct wshm_slot *wshm_client_slot(const struct wshm_client *c, uint32_t slot);
const struct wshm_rx_ctl *wshm_client_rx_ctl(const struct wshm_client *c);
uint8_t *wshm_client_tx_arena(const struct wshm_client *c);
const uint8_t *wshm_client_rx_arena(const struct wshm_client *c);

/* Write a request record; the slot must be the caller's own and released. */
void wshm_client_req_write(struct wshm_client *c, uint32_t slot, uint32_t generation,
			   uint64_t desc_off, uint32_t desc_bytes);
/* Push (slot, generation). Returns 1 if the engine sleeps and its eventfd must be written, 0 if
 * not, -EAGAIN if the ring is full. */
int wshm_client_submit(struct wshm_client *c, uint32_t slot, uint32_t generation);
/* Both return 1 if the engine must be woken. */
int wshm_client_cancel(struct wshm_client *c, uint32_t slot, uint32_t generation);
int wshm_client_release(struct wshm_client *c, uint32_t slot, uint32_t generation);
/* Next notice: 1, the slot and the generation that it carries now; 0 when there is none. Advances
 * cq_head before the slot is read: what the caller then reads there is at least as new as the last
 * publication that posted no notice of its own. Also 0 once the engine's words make no sense. */
int wshm_client_notice(struct wshm_client *c, uint32_t *ret_slot, uint32_t *ret_generation);
/* Sleep until progress of the slot differs from `seen`, or a notice is there to be taken (any), or
 * the timeout (negative: none). 0 woken or changed, perhaps spuriously; -ETIMEDOUT, -EINTR. Handles
 * the waiter counts. Read progress first (wshm_slot_progress), then the counts, then wait on it. */
int wshm_client_wait_slot(struct wshm_client *c, uint32_t slot, uint32_t seen, int64_t timeout_ns);
int wshm_client_wait_any(struct wshm_client *c, int64_t timeout_ns);
/* Once armed, take the notices that are there already: the bell rings for later ones only. */
void wshm_client_arm_bell(struct wshm_client *c, bool armed);

/*
 * What a client reads of a slot, in this order: generation, and only if it is the request's own:
 * state, then status, detail and finish if ENDED; counts, then tokens below the count.
 */
static inline uint32_t wshm_slot_generation(const struct wshm_slot *s)
{
	return ord_load_acquire(&s->generation); /* G2: pairs with G1 in wshm_slot_admit() */
}

static inline uint32_t wshm_slot_state(const struct wshm_slot *s)
{
	return ord_load_acquire(&s->state); /* T4: pairs with T3 in wshm_slot_set_state() */
}

static inline uint32_t wshm_slot_progress(const struct wshm_slot *s)
{
	return ord_load_seq(&s->progress); /* W4: pairs with W1 in wshm_engine_post() */
}

static inline uint32_t wshm_slot_count(const struct wshm_slot *s, uint32_t sample)
{
	return ord_load_acquire(&s->count[sample]); /* T2: pairs with T1 in wshm_slot_set_count() */
}

/* A sample that has finished gets no more tokens: load its count after this. */
static inline uint32_t wshm_slot_finish(const struct wshm_slot *s, uint32_t sample)
{
	return ord_load_acquire(
		&s->finish[sample]); /* T2: pairs with T1 in wshm_slot_set_finish() */
}

/* 0: none yet. */
static inline uint64_t wshm_slot_slab_bytes(const struct wshm_slot *s)
{
	return ord_load_acquire(&s->slab_bytes); /* V2: pairs with V1 in wshm_slot_set_slab() */
}

static inline uint32_t wshm_slot_prompt_count(const struct wshm_slot *s)
{
	return ord_load_acquire(&s->prompt_count); /* T2: pairs with T1 in wshm_slot_set_count() */
}

static inline uint32_t wshm_rx_engine_state(const struct wshm_rx_ctl *ctl)
{
	return ord_load_acquire(
		&ctl->engine_state); /* I2: pairs with I1 in wshm_engine_set_state() */
}

/* --- engine end ----------------------------------------------------------------------------------*/

/*
 * Words of rx whose sleepers are to be woken, of any number of sessions, so that the system calls can
 * be made later, or by another thread. A word whose region has been unmapped meanwhile does no harm:
 * the call fails.
 */
#define WSHM_MAX_WAKES 128
struct wshm_wakes {
	uint32_t n;
	const _Atomic uint32_t *words[WSHM_MAX_WAKES];
};
void wshm_wakes_run(struct wshm_wakes *w); /* and empty it */

struct wshm_engine {
	struct wshm_layout layout;
	const uint8_t *tx; /* owner; mapped read-only: the engine never writes tx */
	uint8_t *rx;	   /* owner */
	uint32_t sq_head;  /* private copies; never read back from shared memory */
	uint32_t cq_tail;
	uint32_t *generation; /* [slots] last generation admitted; 0: none yet */
	uint32_t *noticed_at; /* [slots] ring position of the last notice */
	uint32_t *cq_shadow;  /* [ring_entries] slot of each ring position, or UINT32_MAX */
	uint64_t peeked;      /* the entry that peek showed and accept takes; 0: none */
	uint64_t violations;  /* nonsense seen; the session must end when it is not 0 */
	bool posted;	      /* a notice that wshm_engine_wake() has not announced */
	/* Publications wake nobody but note whom they owe it: see wshm_engine_gather(). */
	bool wake_later;
	uint64_t
		*owed; /* [slots + 1] bits: those of each slot, and behind them who waits for any */
	uint32_t n_owed, owed_at; /* how many, and where the next one is looked for */
};

/* Map both regions. With `resume`, private state is read once from rx (which only engines
 * write). 0, -ENOMEM, -EPROTO, -errno. */
int wshm_engine_open(struct wshm_engine *e, const struct wshm_layout *layout, int tx_fd, int rx_fd,
		     bool resume);
void wshm_engine_close(struct wshm_engine *e);

struct wshm_slot *wshm_engine_slot(struct wshm_engine *e, uint32_t slot);
uint8_t *wshm_engine_rx_arena(struct wshm_engine *e);
void wshm_engine_set_state(struct wshm_engine *e, enum wshm_engine_state state,
			   enum wshm_status end_status, uint64_t instance_id);

/*
 * Next submission: 1 with the pair, 0 none, -EPROTO (from then on for ever) when the tail jumped,
 * the slot is out of range, the generation is 0, or the slot holds a request that the client has
 * not released. (Releasing the new one counts as well: it overwrites the old one's word, and a
 * request may be given back before the engine has seen it.) An entry whose slot already carries that
 * generation is skipped. The slot may still hold an older request that was released but not yet
 * noticed so, if the client did not wait for FREE: the caller ends that one first.
 * Does not advance sq_head: wshm_engine_accept() does, after the slot has been written; until then
 * peek shows the same pair, whatever the client does to the ring.
 */
int wshm_engine_peek(struct wshm_engine *e, uint32_t *ret_slot, uint32_t *ret_generation);
void wshm_engine_accept(struct wshm_engine *e);

/*
 * What the engine writes to a slot, in this order: everything that stands from the start (lines 1
 * and 2, counts of 0), then wshm_slot_admit(), then wshm_engine_accept(). Later: tokens and
 * log-probabilities, then the count; at the end finish, status, detail, times, then the state; and
 * wshm_engine_publish() after any of it. A freed slot goes back to state FREE. A killed engine then
 * leaves behind a slot that carries the old generation (which was released, so the slot is free
 * whatever its state says, as is one of generation 0, and its entry is still in the ring), or the
 * new generation with contents complete (and its entry is skipped).
 */
static inline void wshm_slot_admit(struct wshm_slot *s, uint32_t generation,
				   enum wshm_slot_state state)
{
	ord_store(&s->state, (uint32_t)state);
	ord_store_release(&s->generation,
			  generation); /* G1: pairs with G2 in wshm_slot_generation() */
}

static inline void wshm_slot_set_count(struct wshm_slot *s, uint32_t sample, uint32_t count)
{
	ord_store_release(&s->count[sample], count); /* T1: pairs with T2 in wshm_slot_count() */
}

/* After the sample's last count. */
static inline void wshm_slot_set_finish(struct wshm_slot *s, uint32_t sample, uint8_t finish)
{
	ord_store_release(&s->finish[sample], finish); /* T1: pairs with T2 in wshm_slot_finish() */
}

/* At admission, or later when there was no room then; bytes 0: none yet. */
static inline void wshm_slot_set_slab(struct wshm_slot *s, uint64_t off, uint64_t bytes)
{
	ord_store(&s->slab_off, off);
	ord_store_release(&s->slab_bytes, bytes); /* V1: pairs with V2 in wshm_slot_slab_bytes() */
}

static inline void wshm_slot_set_prompt_count(struct wshm_slot *s, uint32_t count)
{
	ord_store_release(&s->prompt_count,
			  count); /* T1: pairs with T2 in wshm_slot_prompt_count() */
}

static inline void wshm_slot_set_state(struct wshm_slot *s, enum wshm_slot_state state)
{
	ord_store_release(&s->state, (uint32_t)state); /* T3: pairs with T4 in wshm_slot_state() */
}

/* Is there anything in the ring (one load), or a violation that peek would report? */
bool wshm_engine_pending(const struct wshm_engine *e);

/* The request's own words, each fetched once; all three are the client's claims. */
struct wshm_req_copy {
	uint32_t generation;
	uint32_t desc_bytes;
	uint64_t desc_off;
};
void wshm_engine_fetch_req(const struct wshm_engine *e, uint32_t slot, struct wshm_req_copy *ret);
bool wshm_engine_cancelled(const struct wshm_engine *e, uint32_t slot, uint32_t generation);
bool wshm_engine_released(const struct wshm_engine *e, uint32_t slot, uint32_t generation);
/* Copy bytes out of the tx arena, each byte loaded once. -EPROTO when out of bounds. */
int wshm_engine_fetch(const struct wshm_engine *e, uint64_t off, void *dst, uint64_t bytes);
/* The same for u32 arrays: offset must be a multiple of 4. */
int wshm_engine_fetch_u32(const struct wshm_engine *e, uint64_t off, uint32_t *dst, uint64_t n);

/*
 * Publication. Tokens and log-probabilities are written first, then for each slot that changed:
 *   wshm_engine_publish(e, slot)    progress + 1 (release), notice unless one is outstanding,
 *                                   full barrier, FUTEX_WAKE (see wake_later) only if someone waits.
 * Returns 1 if the session's bell should be rung, else 0. A cq_head that makes no sense counts as a
 * violation, which the next peek reports.
 *
 * When many slots of a session have news at once: wshm_engine_post() for each, which wakes only who
 * waits for that very slot, and then one wshm_engine_wake() for whoever waits for any, with publish's
 * return value. A client that is woken by the first of many would only be woken again by the others.
 */
int wshm_engine_publish(struct wshm_engine *e, uint32_t slot);
void wshm_engine_post(struct wshm_engine *e, uint32_t slot);
int wshm_engine_wake(struct wshm_engine *e);
/*
 * With wake_later: move up to `most` of those who are to be woken to the list, as far as it has room,
 * and return how many. How many words clients wait at is their choice, so whoever makes the calls says
 * how many he makes, and n_owed says how many are left for the next time.
 */
uint32_t wshm_engine_gather(struct wshm_engine *e, struct wshm_wakes *list, uint32_t most);
/* Announce everything unreleased again and wake every waiter (after a restart). */
void wshm_engine_announce_all(struct wshm_engine *e);
/*
 * The daemon is gone, and the engine goes with it: say so and wake every sleeper. From any thread, while
 * the core thread goes on. Returns how many words somebody waits at: who was about to sleep when they
 * were woken sleeps on, so it is called again a moment later until none is left.
 */
uint32_t wshm_engine_orphan(struct wshm_engine *e);
/* true: about to sleep; then look once more at every ring (wshm_engine_pending) and every cancel
 * and released word before sleeping. false: awake. */
void wshm_engine_set_need_wake(struct wshm_engine *e, bool need);

/* --- descriptor ----------------------------------------------------------------------------------*/

#define WSHM_MAX_STOP_TOKENS 64
#define WSHM_MAX_STOP_SEQS   16
#define WSHM_MAX_STOP_SEQ    32 /* tokens of one */
#define WSHM_MAX_BIAS	     256
#define WSHM_MAX_NAME	     128
#define WSHM_NO_LOGPROBS     UINT32_MAX

/* Keys of the msgpack map; man/weft-protocol.7 documents them. */
enum wshm_desc_key {
	WSHM_KEY_MODEL = 1,   /* str */
	WSHM_KEY_ADAPTER = 2, /* str */
	WSHM_KEY_PROMPT = 3,  /* [offset, tokens] in the tx arena; required */
	WSHM_KEY_RESUME = 4,  /* [[offset, tokens], ...] one per sample, already delivered */
	WSHM_KEY_N = 5,	      /* 1..WSHM_MAX_SAMPLES */
	WSHM_KEY_MAX_TOKENS = 6,
	WSHM_KEY_MIN_TOKENS = 7,
	WSHM_KEY_TEMPERATURE = 8, /* float32 */
	WSHM_KEY_TOP_K = 9,
	WSHM_KEY_TOP_P = 10,	   /* float32 */
	WSHM_KEY_MIN_P = 11,	   /* float32 */
	WSHM_KEY_REPETITION = 12,  /* float32 */
	WSHM_KEY_PRESENCE = 13,	   /* float32 */
	WSHM_KEY_FREQUENCY = 14,   /* float32 */
	WSHM_KEY_SEED = 15,	   /* uint64; absent: the engine draws one and records it */
	WSHM_KEY_STOP_TOKENS = 16, /* [u32, ...] */
	WSHM_KEY_STOP_SEQS = 17,   /* [[u32, ...], ...] */
	WSHM_KEY_BIAS = 18,	   /* [token, float32, token, float32, ...] */
	WSHM_KEY_IGNORE_EOS = 19,  /* bool */
	WSHM_KEY_LOGPROBS = 20,	   /* top alternatives, 0: the token's own only */
	WSHM_KEY_PROMPT_LOGPROBS = 21,
	WSHM_KEY_PRIORITY = 22,	  /* int, -100..100 */
	WSHM_KEY_TIMEOUT_MS = 23, /* deadline, from arrival */
	WSHM_KEY_INSTANCE = 24,	  /* uint64; the adapter must be this instance (resubmission) */
	WSHM_KEY_NO_CACHE = 25,	  /* bool; neither take KV from the cache nor leave any there */
};

struct wshm_span {
	uint64_t off; /* bytes into the tx arena */
	uint32_t tokens;
};

/* A decoded descriptor: plain, self-contained, every count within its maximum. */
struct wshm_desc {
	char model[WSHM_MAX_NAME];   /* "" : the engine's */
	char adapter[WSHM_MAX_NAME]; /* "" : base model */
	struct wshm_span prompt;
	struct wshm_span resume[WSHM_MAX_SAMPLES];
	uint32_t n_resume; /* 0 or n */
	uint32_t n;
	uint32_t max_tokens, min_tokens;
	float temperature, top_p, min_p;
	float repetition, presence, frequency;
	uint32_t top_k;
	bool has_seed;
	uint64_t seed;
	uint32_t n_stop_tokens;
	uint32_t stop_tokens[WSHM_MAX_STOP_TOKENS];
	uint32_t n_stop_seqs;
	struct {
		uint32_t n;
		uint32_t tokens[WSHM_MAX_STOP_SEQ];
	} stop_seqs[WSHM_MAX_STOP_SEQS];
	uint32_t n_bias;
	struct {
		uint32_t token;
		float value;
	} bias[WSHM_MAX_BIAS];
	bool ignore_eos;
	uint32_t logprobs; /* WSHM_NO_LOGPROBS: none wanted */
	uint32_t prompt_logprobs;
	int32_t priority;
	uint32_t timeout_ms; /* 0: none */
	uint64_t instance;   /* 0: any */
	bool no_cache;
};

extern const struct wshm_desc wshm_desc_default;
void wshm_desc_init(struct wshm_desc *d); /* the defaults */

/*
 * Decode and validate: bounded, allocation-free, never reads past bytes. 0; or -EBADMSG malformed
 * (depth, count, type, ext, duplicate or unknown key, trailing byte, non-minimal), or -ERANGE a
 * value out of its range; *ret_key (set on failure only) is the key at fault or 0. *ret holds
 * nothing of meaning after a failure. What needs the model (vocabulary, length) and the arena (do
 * the spans lie inside) is the engine's to check.
 *
 *   n 1..16                          prompt: offset a multiple of 4, at least one token
 *   max_tokens >= 1                  resume: none or n spans, each of at most max_tokens
 *   min_tokens 0..max_tokens         names: at most 127 bytes, none below 0x20, not 0x7f
 *   temperature 0..100 (0: greedy)   logprobs, prompt_logprobs 0..20
 *   top_k any (0: off)               priority -100..100
 *   top_p (0, 1], min_p [0, 1]       stop tokens 0..64
 *   repetition (0, 10]               stop sequences 0..16, of 1..32 tokens
 *   presence, frequency [-10, 10]    bias: at most 256 pairs, finite or -infinity
 */
int wshm_desc_decode(struct wshm_desc *ret, const uint8_t *data, uint32_t bytes, uint32_t *ret_key);

/* --- slab geometry: the same arithmetic on both sides ----------------------------------------------*/

struct wshm_slab_layout {
	uint64_t sample_bytes, logprob_off, prompt_logprob_off, bytes;
	uint32_t logprob_bytes, prompt_logprob_bytes;
};

/* Sizes fit in 64 bits by the limits on their inputs; the caller checks bytes against the arena. */
void wshm_slab_layout(struct wshm_slab_layout *ret, uint32_t n, uint32_t max_tokens,
		      uint32_t prompt_tokens, uint32_t logprobs, uint32_t prompt_logprobs);

/* In a word, as it is shown to everybody: "quota-tokens", "stop-sequence"; else "unknown". */
const char *wshm_status_name(uint32_t status);
const char *wshm_finish_name(uint32_t finish);

#endif
