/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wshm_control.h - the messages of the two control sockets; both are SOCK_SEQPACKET, one message
 * per packet, fixed-size little-endian structs, descriptors by SCM_RIGHTS.
 *
 *   client <-> weftd    /run/weft/weftd.sock: hello, models, complaints; none while tokens flow
 *   weftd  <-> engine   a socketpair inherited over exec: sessions come and go, health, status
 *
 * A receiver checks magic, type and exact size before anything else, closes descriptors that it
 * did not expect, and treats the rest as a protocol error that ends the connection.
 */
#ifndef WEFT_SHM_CONTROL_H
#define WEFT_SHM_CONTROL_H

#include "shm/wshm_idx.h"

/* Trailing comments stay in columns. */
/* clang-format off */

#define WCTL_MAGIC	 0x4c544357u	/* "WCTL" */
#define WCTL_NAME_BYTES	 64u
#define WCTL_TEXT_BYTES	 256u
#define WCTL_MAX_MODELS	 16u
#define WCTL_MAX_EOS	 16u
#define WCTL_MAX_FDS	 8u
#define WCTL_WELCOME_FDS 6u
#define WCTL_STATUS_BYTES 131072u /* all adapters that weftd takes, with tenants; must fit a socket's usual 208 KiB */
#define WCTL_MAX_FILES_ASKED 4u
#define WCTL_MAX_INDEXES  2u	/* that a client may leave unread; one more ends its session */

/* Features of a welcome and of a hello. */
#define WCTL_FEATURE_FILES  UINT64_C(1)	/* WCTL_FILES is known */
#define WCTL_FEATURE_DOMAIN UINT64_C(2)	/* WCTL_DOMAIN is; in a hello: the client takes it */

enum wctl_type {
	/* client -> weftd */
	WCTL_HELLO = 1,		/* struct wctl_hello; first and once */
	WCTL_MODELS = 2,	/* wctl_head alone; allowed before the hello too */
	WCTL_COMPLAIN = 3,	/* wctl_head alone: no progress for a second; rate-limited */
	WCTL_FILES = 4,		/* wctl_head alone: the model's text files; after the welcome, and only
				 * if that says WCTL_FEATURE_FILES; at most WCTL_MAX_FILES_ASKED times */
	/* weftd -> client */
	WCTL_WELCOME = 16,	/* struct wctl_welcome + fds: tx, rx (read-only), wake, bell, and the
				 * indexes (read-only) of the domain and of the public one */
	WCTL_REFUSED = 17,	/* struct wctl_text; the connection is closed */
	WCTL_MODEL_LIST = 18,	/* struct wctl_models */
	WCTL_BYE = 19,		/* struct wctl_text: the session is over (protocol, drain, admin) */
	WCTL_FILE_SET = 20,	/* wctl_head; code 0: + fd (sealed, see wshm_files.h); -ENOENT: none */
	WCTL_DOMAIN = 21,	/* struct wctl_domain + fd: the index (read-only) that takes the place of the
				 * welcome's, which shows nothing more; at any time, if the hello had
				 * WCTL_FEATURE_DOMAIN (other sessions are ended then) */

	/* weftd -> engine */
	WLINK_ATTACH = 32,	/* struct wlink_attach + fds: tx, rx, wake, bell */
	WLINK_DETACH = 33,	/* struct wlink_session: release everything; the client is gone, or
				 * (head.code 1) will be attached again */
	WLINK_NUDGE = 34,	/* run one tiny step or say that all is idle */
	WLINK_STATUS = 35,
	WLINK_DRAIN = 36,	/* struct wlink_drain */
	WLINK_TENANT = 37,	/* struct wlink_tenant: new or changed */
	WLINK_DOMAIN = 38,	/* struct wlink_domain + fd: its idx region; before the first session of it, and
				 * when both are others */
	WLINK_ADAPTER_LOAD = 39,	/* struct wlink_adapter + fds: adapter_config.json, weights */
	WLINK_ADAPTER_UNLOAD = 40,	/* struct wlink_unload */
	WLINK_PIN = 41,		/* struct wlink_pin + fd: the tokens, u32 each, in a sealed memfd */
	WLINK_UNPIN = 42,	/* struct wlink_pin, only pin_id */
	WLINK_DROP = 43,	/* struct wlink_drop */
	/* engine -> weftd */
	WLINK_READY = 48,	/* struct wlink_ready: the model is loaded */
	WLINK_FAILED = 49,	/* struct wctl_text: could not start; do not try again at once */
	WLINK_DETACHED = 50,	/* struct wlink_session: no longer touches the regions */
	WLINK_OFFENCE = 51,	/* struct wlink_offence: the session broke the protocol; ended */
	WLINK_BUSY = 52,	/* wctl_head: from now on the heartbeat page must move */
	WLINK_IDLE = 53,	/* wctl_head */
	WLINK_STATUS_TEXT = 54,	/* struct wlink_status: JSON */
	WLINK_DRAINED = 55,	/* wctl_head */
	WLINK_NUDGED = 56,	/* wctl_head: the core thread answered */
	WLINK_PROGRESS = 57,	/* struct wlink_progress: loading */
	WLINK_ADAPTER_LOADED = 58,	/* struct wlink_adapter_reply; head.code: 0 or why not */
	WLINK_ADAPTER_UNLOADED = 59,	/* struct wlink_adapter_reply; -EBUSY: in use, nothing changed */
	WLINK_PINNED = 60,	/* struct wlink_pinned; head.code */
	WLINK_DROPPED = 61,	/* struct wlink_drop, blocks freed */
};

struct wctl_head {
	uint32_t magic;
	uint16_t type;		/* enum wctl_type */
	uint16_t major;
	uint32_t bytes;		/* of the whole message */
	int32_t code;		/* 0 or -errno, where a reply has one */
};

struct wctl_text {
	struct wctl_head head;
	char text[WCTL_TEXT_BYTES];	/* NUL-terminated, one line */
};

struct wctl_hello {
	struct wctl_head head;
	uint16_t minor;
	uint16_t reserved0;
	uint32_t slots;			/* wanted; 0: the default. The welcome says what was given */
	uint64_t features;		/* wanted; unknown bits are ignored */
	uint64_t tx_arena_bytes, rx_arena_bytes;	/* 0: the default */
	char model[WCTL_NAME_BYTES];	/* "": the only one */
	uint8_t reserved[64];		/* zero */
};

struct wctl_model {
	char name[WCTL_NAME_BYTES];
	char type[32];			/* "llama", ... */
	uint32_t vocab, max_positions;
	uint32_t n_eos, eos[WCTL_MAX_EOS];
	uint32_t bos;			/* UINT32_MAX: none */
	uint64_t weight_bytes;
	uint32_t ready;			/* the engine has loaded it */
	uint32_t failed;		/* it says that it cannot: a hello is refused with its reason */
};

struct wctl_models {
	struct wctl_head head;
	uint32_t n;
	uint32_t reserved;
	struct wctl_model models[WCTL_MAX_MODELS];
};

struct wctl_welcome {
	struct wctl_head head;
	uint16_t minor;
	uint16_t reserved0;
	uint32_t max_in_flight;		/* of the tenant */
	uint64_t features;
	uint64_t session_id;
	uint64_t daemon_id;		/* changes when weftd restarts */
	struct wshm_params params;	/* the layout follows from it */
	struct wctl_model model;
	char tenant[WCTL_NAME_BYTES];
};

/* A reload has moved the session to this tenant, or may have taken another uid out of it. */
struct wctl_domain {
	struct wctl_head head;
	uint32_t max_in_flight;		/* of the tenant */
	uint32_t reserved;
	char tenant[WCTL_NAME_BYTES];
};

/* --- weftd <-> engine -----------------------------------------------------------------------------*/

/*
 * Order. After READY weftd sends, to each engine process alike:
 *
 *   DOMAIN of the public domain
 *   ADAPTER_LOAD of every adapter, with the load_id that it had before
 *   of each session: TENANT and DOMAIN of its tenant, unless sent to this process; ATTACH
 *   PIN of every pin, with TENANT and DOMAIN of its domain before it, unless sent
 *
 * and from then on whatever changes. It waits for no answer in between: the engine takes messages
 * in order, so a session that is attached after an ADAPTER_LOAD finds that adapter (or that it has
 * failed). A DOMAIN comes once for each process and domain, and with the same region to the next
 * process; until it comes again, with another secret and another region, which take the place of the
 * first: what is cached stays. A session that moves to another tenant is detached, and attached again as
 * after the end of an engine that was killed from outside. An adapter's name is in use once at a time: the UNLOAD of an adapter is answered before
 * another of its name is loaded.
 *
 * ADAPTER_LOAD, ADAPTER_UNLOAD, PIN and DROP have one answer each, those of a kind in order; UNPIN
 * has none, and a pin whose UNPIN has crossed its PINNED is released all the same. While answers
 * are owed, either one of them must come or a step be completed every load_seconds
 * (weftd.conf(5)), else the engine counts as hanging. A NUDGE may be answered late, within that
 * time, while an adapter is being loaded, unless a step has overrun its own budget meanwhile.
 */

/* Descriptors that the engine inherits at exec, by number. */
#define WLINK_FD_SOCKET	   3	/* this socketpair */
#define WLINK_FD_HEARTBEAT 4	/* memfd of one page: struct wlink_heartbeat */
#define WLINK_FD_FILES	   6	/* empty memfd, if --files says so: the model's text files (wshm_files.h),
				 * to be filled and closed before READY. 5 is a lock: to be left alone */

/* Written by the engine's core thread, read by weftd. */
struct wlink_heartbeat {
	_Atomic uint64_t steps;		/* completed device steps (and nudges) */
	_Atomic uint64_t step_start_ns;	/* CLOCK_MONOTONIC; 0: not in a step */
	_Atomic uint64_t step_budget_ns;	/* this step's own time budget */
	_Atomic uint32_t busy;
	uint32_t reserved;
};

struct wlink_quota {
	uint32_t max_in_flight;		/* requests of the tenant in this engine */
	uint32_t max_queued_tokens;	/* prompt tokens not yet started */
	uint32_t max_rate;		/* descriptors per second, 0: no limit */
	uint32_t weight;		/* fair share, 1..1000, 100 is normal */
};

struct wlink_tenant {
	struct wctl_head head;
	uint32_t tenant;		/* index, stable while weftd lives */
	uint32_t reserved;
	char name[WCTL_NAME_BYTES];
	struct wlink_quota quota;
};

/*
 * A tenant's domain: its number is the tenant's; WLINK_PUBLIC is the public one. The secret outlives
 * engines and weftd (a file of mode 0600 in the state directory).
 */
#define WLINK_PUBLIC UINT32_MAX

struct wlink_domain {
	struct wctl_head head;
	uint32_t domain;
	uint32_t reserved;
	uint8_t secret[WSHM_SECRET_BYTES];
};

/*
 * Load an adapter: the two files as sealed memfds (weftd's copies: an engine that is started again
 * gets the same bytes, whatever has become of the folder). weftd sends all that are loaded after
 * READY, before the first ATTACH; the engine takes messages in order.
 */
struct wlink_adapter {
	struct wctl_head head;
	uint64_t load_id;		/* a handle: one weftd never uses it for another copy */
	char name[WCTL_NAME_BYTES];
	int32_t offset;			/* of the activation */
	uint32_t on_missing;		/* enum wshm_missing */
};

struct wlink_unload {
	struct wctl_head head;
	uint64_t load_id;
	uint32_t force;			/* end what uses it (WSHM_UNLOADED), then unload */
	uint32_t reserved;
};

struct wlink_adapter_reply {
	struct wctl_head head;		/* code: 0 or -errno, then text says why */
	uint64_t load_id;
	struct wshm_instance instance;	/* of LOADED, code 0 */
	uint64_t weight_bytes;		/* in the pool */
	uint32_t in_use;		/* of UNLOADED with -EBUSY: requests */
	uint32_t reserved;
	char text[WCTL_TEXT_BYTES];
};

/* Compute a prefix, keep it in a domain and never evict it. */
struct wlink_pin {
	struct wctl_head head;
	uint64_t pin_id;
	uint32_t domain;
	uint32_t n_tokens;
};

struct wlink_pinned {
	struct wctl_head head;
	uint64_t pin_id;
	uint32_t tokens;		/* pinned */
	uint32_t reserved;
	char text[WCTL_TEXT_BYTES];
};

struct wlink_drop {
	struct wctl_head head;
	uint32_t domain;
	uint32_t all;			/* every domain */
	uint64_t blocks;		/* of the reply: freed */
};

/* How the engine ended that served these regions before. Only its own fault counts against the
 * requests that it was computing: killing a process loses none. */
enum wlink_resume {
	WLINK_RESUME_NONE = 0,		/* there was none */
	WLINK_RESUME_CRASHED = 1,	/* crashed, exited, or was killed by weftd because it hung */
	WLINK_RESUME_KILLED = 2,	/* killed from outside */
};

struct wlink_attach {
	struct wctl_head head;
	uint64_t session_id;
	struct wshm_params params;
	uint32_t tenant;		/* a WLINK_TENANT came before */
	uint32_t resume;		/* enum wlink_resume */
	uint32_t pid;			/* of the client, for logs only */
	uint32_t restarts;		/* of the engine, without a completed step between */
};

struct wlink_session {
	struct wctl_head head;
	uint64_t session_id;
};

struct wlink_offence {
	struct wctl_head head;
	uint64_t session_id;
	uint32_t status;		/* enum wshm_status */
	uint32_t reserved;
	char text[WCTL_TEXT_BYTES];
};

struct wlink_drain {
	struct wctl_head head;
	uint64_t deadline_ns;		/* CLOCK_MONOTONIC */
};

struct wlink_ready {
	struct wctl_head head;
	uint64_t instance_id;
	struct wctl_model model;
};

struct wlink_progress {
	struct wctl_head head;
	uint64_t done_bytes, total_bytes;
};

struct wlink_status {
	struct wctl_head head;
	uint32_t text_bytes;
	uint32_t reserved;
	char text[WCTL_STATUS_BYTES];	/* a JSON object; only text_bytes of it are sent */
};

/* Fill a head. */
void wctl_head_init(struct wctl_head *h, enum wctl_type type, uint32_t bytes, int32_t code);
/*
 * Send one message with descriptors (borrowed). 0 or -errno (-EAGAIN when the peer does not
 * read); never raises SIGPIPE.
 */
int wctl_send(int sock, const void *msg, uint32_t bytes, const int *fds, uint32_t n_fds);
/*
 * Receive one message into buf. Returns its bytes (>= sizeof head, equal to head.bytes), 0 at
 * hang-up, -EPROTO for a malformed one, -EAGAIN, -errno. Descriptors (close-on-exec) go to fds[]
 * up to *n_fds, the rest are closed; *n_fds is how many arrived. The caller owns them.
 */
int wctl_recv(int sock, void *buf, uint32_t buf_bytes, int *fds, uint32_t *n_fds);

#endif
