/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wshm_abi.h - the layout of the shared regions: nothing but fixed-width types.
 *
 *   tx  (client writes, engine reads)            rx  (engine writes, client maps read-only)
 *   +-----------------------------+              +-----------------------------+
 *   | wshm_hdr                    |              | wshm_hdr                    |
 *   | wshm_tx_ctl                 |              | wshm_rx_ctl                 |
 *   | sq   u64[sq_entries]        |              | cq   u64[cq_entries]        |
 *   | req  wshm_req[slots]        |              | slot wshm_slot[slots]       |
 *   | arena: descriptors, prompts |              | arena: token slabs          |
 *   +-----------------------------+              +-----------------------------+
 *
 * Both regions are made by weftd, which also writes the headers before anyone else maps them. The
 * engine computes the layout from its own private copy of the parameters and never reads a header
 * of a tx region; libweft checks both headers against the hello's reply.
 *
 * One writer per region, one writer per 128-byte line. Ring entries are (generation << 32 | slot).
 * Ring counters run freely; only differences modulo 2^32 have a meaning.
 * Arenas start on a page, everything else on a line.
 *
 * Compatibility: major changes break, minor changes only add (reserved bytes are zero and
 * checked). Every size and offset is asserted below and pinned by tests/shm/test_abi.c.
 */
#ifndef WEFT_SHM_ABI_H
#define WEFT_SHM_ABI_H

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* clang-format off */
#define WSHM_MAJOR	  0
#define WSHM_MINOR	  2
#define WSHM_LINE	  128u
#define WSHM_PAGE	  4096u
#define WSHM_MAGIC_TX	  UINT64_C(0x7874746665770001)	/* bytes 01 00 "weft" "tx" */
#define WSHM_MAGIC_RX	  UINT64_C(0x7872746665770001)	/* bytes 01 00 "weft" "rx" */
#define WSHM_MAX_SLOTS	  1024u
#define WSHM_MAX_SAMPLES  16u
#define WSHM_MAX_DESC	  4096u		/* bytes of a descriptor */
#define WSHM_MAX_LOGPROBS 20u
#define WSHM_MAX_SECTIONS 8u
#define WSHM_READERS	  16u		/* threads of a client that read the index at once */
#define WSHM_MAX_ARENA	  (UINT64_C(1) << 32)	/* bytes of an arena */
#define WSHM_FEATURES	  UINT64_C(0)		/* feature bits that this version knows */

enum wshm_section_id {
	WSHM_SEC_CTL = 1,
	WSHM_SEC_RING = 2,	/* sq or cq */
	WSHM_SEC_TABLE = 3,	/* req or slot */
	WSHM_SEC_ARENA = 4,
};

struct wshm_section {
	uint32_t id;
	uint32_t entries;
	uint64_t off;
	uint64_t bytes;
};

struct wshm_hdr {
	uint64_t magic;
	uint16_t major, minor;
	uint32_t hdr_bytes;
	uint64_t total_bytes;
	uint64_t features;
	uint64_t session_id;
	uint32_t n_sections;
	uint32_t reserved0;
	struct wshm_section sections[WSHM_MAX_SECTIONS];
	uint8_t reserved[16];
};

/* --- tx: all written by the client ---------------------------------------------------------------*/

struct wshm_tx_ctl {
	_Atomic uint32_t sq_tail;	/* entries submitted */
	uint8_t pad0[124];
	_Atomic uint32_t cq_head;	/* notices consumed */
	uint8_t pad1[124];
	_Atomic uint32_t any_waiters;	/* threads that may sleep on rx cq_tail */
	_Atomic uint32_t bell_armed;	/* nonzero: ring the bell socket at the next notice */
	uint8_t pad2[120];
	_Atomic uint64_t reader_epoch[WSHM_READERS];	/* of threads that read an index; 0: outside */
};

/*
 * A request as the client states it. Everything but the three words at the end stays unchanged
 * from submission until rx says ENDED: it is read again when an engine restarts.
 */
struct wshm_req {
	_Atomic uint32_t generation;
	_Atomic uint32_t desc_bytes;
	_Atomic uint64_t desc_off;	/* in the tx arena */
	uint8_t reserved[96];
	_Atomic uint32_t cancel;	/* == generation: stop */
	_Atomic uint32_t released;	/* == generation: the slot and its slab are given back */
	_Atomic uint32_t waiters;	/* threads that may sleep on rx slot progress */
	uint32_t reserved1;
};

/* --- rx: all written by the engine ---------------------------------------------------------------*/

enum wshm_engine_state {
	WSHM_ENGINE_STARTING = 0,	/* no engine, or one that is loading */
	WSHM_ENGINE_RUNNING = 1,
	WSHM_ENGINE_DRAINING = 2,	/* nothing new is admitted */
	WSHM_ENGINE_ENDED = 3,		/* this session is over; see end_status */
	WSHM_ENGINE_ORPHANED = 4,	/* weftd is gone, and the engine with it: connect again */
};

struct wshm_rx_ctl {
	_Atomic uint32_t sq_head;	/* entries taken */
	uint8_t pad0[124];
	_Atomic uint32_t need_wake;	/* nonzero: the engine sleeps, write its eventfd */
	uint8_t pad1[124];
	_Atomic uint32_t cq_tail;	/* notices published; the futex word of wait-any */
	uint8_t pad2[124];
	_Atomic uint32_t engine_state;	/* enum wshm_engine_state */
	_Atomic uint32_t end_status;	/* enum wshm_status, once ENDED */
	_Atomic uint64_t instance_id;	/* of the engine that serves now; changes at a restart */
	uint8_t pad3[112];
};

enum wshm_slot_state {
	WSHM_SLOT_FREE = 0,
	WSHM_SLOT_QUEUED = 1,	/* validated, not yet started */
	WSHM_SLOT_RUNNING = 2,
	WSHM_SLOT_ENDED = 3,	/* results stand until the client releases them */
};

/* Why a request ended, for the whole slot and (OK, see finish) for each sample. */
enum wshm_status {
	WSHM_OK = 0,
	WSHM_CANCELLED = 1,
	WSHM_DEADLINE = 2,
	WSHM_BAD_DESCRIPTOR = 3,	/* detail: key, or 0 */
	WSHM_BAD_VALUE = 4,		/* detail: key */
	WSHM_BAD_TOKEN = 5,		/* detail: index in the prompt */
	WSHM_TOO_LONG = 6,		/* prompt + max_tokens beyond the model; detail: the limit */
	WSHM_TOO_BIG = 7,		/* can never fit the cache or the slab; detail: blocks or KiB */
	WSHM_NO_MODEL = 8,
	WSHM_NO_ADAPTER = 9,
	WSHM_QUOTA_REQUESTS = 10,	/* detail: the limit */
	WSHM_QUOTA_TOKENS = 11,		/* detail: the limit */
	WSHM_QUOTA_RATE = 12,
	WSHM_ENGINE_FAULT = 13,		/* the request crashed or poisoned the engine */
	WSHM_NAN = 14,			/* the model produced NaN logits */
	WSHM_SHUTDOWN = 15,		/* drained before it could end */
	WSHM_PROTOCOL = 16,		/* the session broke the protocol and is over */
	WSHM_LOST = 17,			/* libweft only: reconnecting was not possible or not wanted */
	WSHM_NO_INVOCATION = 18,	/* the prompt does not hold the adapter's invocation */
	WSHM_UNLOADED = 19,		/* the adapter was unloaded by force */
	WSHM_N_STATUS
};

enum wshm_finish {
	WSHM_FINISH_NONE = 0,	/* still running, or ended by the slot's status */
	WSHM_FINISH_EOS = 1,
	WSHM_FINISH_STOP_TOKEN = 2,
	WSHM_FINISH_STOP_SEQUENCE = 3,
	WSHM_FINISH_LENGTH = 4,
	WSHM_N_FINISH
};

/* What became of the adapter's invocation. */
enum wshm_invocation {
	WSHM_INVOCATION_NONE = 0,	/* base model, or a plain LoRA */
	WSHM_INVOCATION_FOUND = 1,
	WSHM_INVOCATION_BASE = 2,	/* not in the prompt: the base model answered */
	WSHM_INVOCATION_APPENDED = 3,	/* not in the prompt: the engine appended it */
};

struct wshm_slot {
	/* line 0: what a waiting client reads */
	_Atomic uint32_t generation;
	_Atomic uint32_t state;		/* enum wshm_slot_state */
	_Atomic uint32_t progress;	/* one more at every publication: the futex word */
	_Atomic uint32_t status;	/* enum wshm_status, once ENDED */
	_Atomic uint32_t detail;
	uint32_t n_samples;
	_Atomic uint32_t prompt_count;	/* prompt log-probabilities written */
	uint32_t reserved0;
	_Atomic uint32_t count[WSHM_MAX_SAMPLES];	/* tokens readable; everything before is final */
	_Atomic uint8_t finish[WSHM_MAX_SAMPLES];	/* enum wshm_finish; written before state */
	uint8_t reserved1[16];

	/* line 1: where the results are and what they cost; fixed once QUEUED but for times */
	_Atomic uint64_t slab_off;	/* in the rx arena; sample s at slab_off + s * sample_bytes */
	_Atomic uint64_t slab_bytes;	/* 0: waits for room, both follow */
	uint64_t sample_bytes;		/* tokens u32[max_tokens], then log-probabilities */
	uint64_t logprob_off;		/* in a sample: wshm_logprob entries; 0: none */
	uint64_t prompt_logprob_off;	/* from slab_off; 0: none */
	uint32_t logprob_bytes;		/* of one entry: 8 + 8 * top */
	uint32_t prompt_logprob_bytes;
	uint32_t max_tokens;
	uint32_t prompt_tokens;
	_Atomic uint32_t cached_tokens;	/* of the prompt, not computed for this request */
	uint32_t invocation;		/* enum wshm_invocation */
	uint64_t t_arrival_ns;		/* CLOCK_MONOTONIC, all four */
	_Atomic uint64_t t_start_ns;	/* first scheduled */
	_Atomic uint64_t t_first_ns;	/* first token published */
	_Atomic uint64_t t_end_ns;
	_Atomic uint64_t forward_ns;	/* spent in forward passes up to the first token */
	uint8_t reserved3[24];

	/* line 2: what cannot be computed again (recovery) */
	uint64_t seed;
	uint64_t digest[2];		/* XXH3-128 over descriptor bytes, prompt and resumed tokens */
	uint64_t deadline_ns;		/* CLOCK_MONOTONIC, 0: none */
	uint64_t activation;		/* first adapted position; UINT64_MAX: none */
	uint64_t adapter_instance;	/* low half of the adapter's digest; 0: base model */
	uint32_t desc_bytes;
	uint32_t restarts;		/* engine restarts since the last published token */
	uint32_t resumed_tokens;	/* of sample 0, delivered by an earlier daemon */
	uint8_t reserved4[68];
};

/* Log-probability of one emitted (or prompt) token, followed by `top` pairs of the same shape. */
struct wshm_logprob {
	uint32_t token;
	float logprob;
};

/* Every size and every offset. */
#define WSHM_SIZE(s, n)	static_assert(sizeof(struct s) == (n), "ABI: size of " #s)
#define WSHM_AT(s, f, n) static_assert(offsetof(struct s, f) == (n), "ABI: offset of " #f)
WSHM_SIZE(wshm_section, 24);
WSHM_AT(wshm_section, id, 0);
WSHM_AT(wshm_section, entries, 4);
WSHM_AT(wshm_section, off, 8);
WSHM_AT(wshm_section, bytes, 16);
WSHM_SIZE(wshm_hdr, 256);
WSHM_AT(wshm_hdr, magic, 0);
WSHM_AT(wshm_hdr, major, 8);
WSHM_AT(wshm_hdr, minor, 10);
WSHM_AT(wshm_hdr, hdr_bytes, 12);
WSHM_AT(wshm_hdr, total_bytes, 16);
WSHM_AT(wshm_hdr, features, 24);
WSHM_AT(wshm_hdr, session_id, 32);
WSHM_AT(wshm_hdr, n_sections, 40);
WSHM_AT(wshm_hdr, reserved0, 44);
WSHM_AT(wshm_hdr, sections, 48);
WSHM_AT(wshm_hdr, reserved, 240);
WSHM_SIZE(wshm_tx_ctl, 4 * WSHM_LINE);
WSHM_AT(wshm_tx_ctl, sq_tail, 0);
WSHM_AT(wshm_tx_ctl, pad0, 4);
WSHM_AT(wshm_tx_ctl, cq_head, 128);
WSHM_AT(wshm_tx_ctl, pad1, 132);
WSHM_AT(wshm_tx_ctl, any_waiters, 256);
WSHM_AT(wshm_tx_ctl, bell_armed, 260);
WSHM_AT(wshm_tx_ctl, pad2, 264);
WSHM_AT(wshm_tx_ctl, reader_epoch, 384);
WSHM_SIZE(wshm_req, WSHM_LINE);
WSHM_AT(wshm_req, generation, 0);
WSHM_AT(wshm_req, desc_bytes, 4);
WSHM_AT(wshm_req, desc_off, 8);
WSHM_AT(wshm_req, reserved, 16);
WSHM_AT(wshm_req, cancel, 112);
WSHM_AT(wshm_req, released, 116);
WSHM_AT(wshm_req, waiters, 120);
WSHM_AT(wshm_req, reserved1, 124);
WSHM_SIZE(wshm_rx_ctl, 4 * WSHM_LINE);
WSHM_AT(wshm_rx_ctl, sq_head, 0);
WSHM_AT(wshm_rx_ctl, pad0, 4);
WSHM_AT(wshm_rx_ctl, need_wake, 128);
WSHM_AT(wshm_rx_ctl, pad1, 132);
WSHM_AT(wshm_rx_ctl, cq_tail, 256);
WSHM_AT(wshm_rx_ctl, pad2, 260);
WSHM_AT(wshm_rx_ctl, engine_state, 384);
WSHM_AT(wshm_rx_ctl, end_status, 388);
WSHM_AT(wshm_rx_ctl, instance_id, 392);
WSHM_AT(wshm_rx_ctl, pad3, 400);
WSHM_SIZE(wshm_slot, 3 * WSHM_LINE);
WSHM_AT(wshm_slot, generation, 0);
WSHM_AT(wshm_slot, state, 4);
WSHM_AT(wshm_slot, progress, 8);
WSHM_AT(wshm_slot, status, 12);
WSHM_AT(wshm_slot, detail, 16);
WSHM_AT(wshm_slot, n_samples, 20);
WSHM_AT(wshm_slot, prompt_count, 24);
WSHM_AT(wshm_slot, reserved0, 28);
WSHM_AT(wshm_slot, count, 32);
WSHM_AT(wshm_slot, finish, 96);
WSHM_AT(wshm_slot, reserved1, 112);
WSHM_AT(wshm_slot, slab_off, 128);
WSHM_AT(wshm_slot, slab_bytes, 136);
WSHM_AT(wshm_slot, sample_bytes, 144);
WSHM_AT(wshm_slot, logprob_off, 152);
WSHM_AT(wshm_slot, prompt_logprob_off, 160);
WSHM_AT(wshm_slot, logprob_bytes, 168);
WSHM_AT(wshm_slot, prompt_logprob_bytes, 172);
WSHM_AT(wshm_slot, max_tokens, 176);
WSHM_AT(wshm_slot, prompt_tokens, 180);
WSHM_AT(wshm_slot, cached_tokens, 184);
WSHM_AT(wshm_slot, invocation, 188);
WSHM_AT(wshm_slot, t_arrival_ns, 192);
WSHM_AT(wshm_slot, t_start_ns, 200);
WSHM_AT(wshm_slot, t_first_ns, 208);
WSHM_AT(wshm_slot, t_end_ns, 216);
WSHM_AT(wshm_slot, forward_ns, 224);
WSHM_AT(wshm_slot, reserved3, 232);
WSHM_AT(wshm_slot, seed, 256);
WSHM_AT(wshm_slot, digest, 264);
WSHM_AT(wshm_slot, deadline_ns, 280);
WSHM_AT(wshm_slot, activation, 288);
WSHM_AT(wshm_slot, adapter_instance, 296);
WSHM_AT(wshm_slot, desc_bytes, 304);
WSHM_AT(wshm_slot, restarts, 308);
WSHM_AT(wshm_slot, resumed_tokens, 312);
WSHM_AT(wshm_slot, reserved4, 316);
WSHM_SIZE(wshm_logprob, 8);
WSHM_AT(wshm_logprob, token, 0);
WSHM_AT(wshm_logprob, logprob, 4);
#undef WSHM_SIZE
#undef WSHM_AT
static_assert(sizeof(_Atomic uint64_t) == 8 && sizeof(_Atomic uint32_t) == 4, "ABI");
/* clang-format on */

#endif
