/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine_harness.h - a real weft-engine in a process of its own, and this test in the roles of both
 * weftd (the link, the regions) and of clients (the client end of the rings).
 *
 * What goes wrong with the harness itself ends the program with "Bail out!". An engine that dies
 * while a request is waited for is started again, as weftd would do, if h.supervise is set.
 */
#ifndef WEFT_TESTS_ENGINE_HARNESS_H
#define WEFT_TESTS_ENGINE_HARNESS_H

#include "shm/wshm.h"
#include "shm/wshm_control.h"

#include <stdbool.h>
#include <sys/types.h>

#define EH_MAX_SESSIONS 16
#define EH_TENANTS	4u
#define EH_PUBLIC	EH_TENANTS /* as a domain */
#define EH_MAX_ADAPTERS 64
#define EH_MAX_ARGS	32
#define EH_WAIT_MS	60000

struct eh_session;

/* What weftd keeps of an adapter: its bytes, whatever becomes of the folder. */
struct eh_adapter {
	struct wlink_adapter msg;
	int fds[2];
};

struct eh {
	pid_t pid;
	int link, heartbeat_fd;
	struct wlink_heartbeat *heartbeat;
	struct wctl_model model;
	const char *argv[EH_MAX_ARGS];
	const char *crash_token; /* WEFT_TEST_CRASH_TOKEN, or NULL */
	int log_fd;		 /* where the engine writes its log, borrowed; 0: nowhere */
	bool supervise;
	uint32_t restarts, busy, idle, drained, offences;
	uint32_t exit_status; /* of the last engine that ended */
	struct wlink_quota quota[EH_TENANTS];
	struct wlink_domain domain[EH_TENANTS + 1]; /* sent if idx_fd is not -1 */
	int idx_fd[EH_TENANTS + 1];
	struct eh_adapter adapters[EH_MAX_ADAPTERS]; /* loaded */
	uint32_t n_adapters;
	uint64_t next_load, next_pin;
	struct eh_session *sessions[EH_MAX_SESSIONS];
	uint32_t n_sessions;
	uint64_t next_id;
};

struct eh_session {
	struct eh *h;
	uint64_t id;
	uint32_t tenant;
	struct wshm_layout layout;
	int tx_fd, rx_fd, ro_fd, wake_fd, bell[2];
	struct wshm_client client;
	uint32_t *generation; /* of each slot */
	bool *busy;
};

struct eh_req {
	struct eh_session *s;
	uint32_t slot, generation;
};

/* A model of tests/data/models, by name. */
const char *eh_model_dir(const char *name);
/* Set defaults: tenants of weight 100 without limits. Then arguments end with NULL. */
void eh_init(struct eh *h, const char *model_dir);
void eh_arg(struct eh *h, const char *arg);
void eh_start(struct eh *h);   /* to READY */
void eh_launch(struct eh *h);  /* only the process, which may never be READY */
void eh_kill(struct eh *h);    /* SIGKILL, and reap */
void eh_restart(struct eh *h); /* after its death: start, attach all sessions with resume */
void eh_stop(struct eh *h);    /* hang up, wait for its end, close everything */
/* Hang up. False: it did not end in time, and was killed. */
bool eh_hang_up(struct eh *h, int timeout_ms);

struct eh_session *eh_open(struct eh *h, uint32_t tenant, uint32_t slots, uint64_t rx_bytes);
void eh_close(struct eh_session *s); /* as if the client had died: detach, unmap */

/* Read the link until a message of this type has come; others are counted. */
void eh_expect(struct eh *h, enum wctl_type type, void *buf, uint32_t bytes);
/* Send a message of a head alone. */
void eh_tell(struct eh *h, enum wctl_type type);

/* --- domains, adapters, pins: all of it is sent again to an engine that is restarted, pins excepted */

/* Before the first session of the tenant (or EH_PUBLIC): a random secret, and a region for the
 * mirror, of which clients get h->idx_fd, opened read-only. Without it the engine makes do with a
 * secret of its own. */
void eh_domain(struct eh *h, uint32_t domain);
int eh_idx_reader_fd(const struct eh *h, uint32_t domain);

/* A fixture of tests/data/adapters, by name. */
const char *eh_adapter_dir(const char *name);
/* Load a PEFT folder under a name: 0 with *ret filled, or what the engine answered. offset and
 * on_missing as in wshm_instance. ret may be NULL. */
int eh_adapter_load(struct eh *h, const char *dir, const char *name, int32_t offset,
		    enum wshm_missing on_missing, struct wlink_adapter_reply *ret);
/* Only send the message. */
void eh_adapter_ask(struct eh *h, const char *dir, const char *name);
/* By the name that it was loaded under. 0, or what the engine answered (-EBUSY: ret->in_use). */
int eh_adapter_unload(struct eh *h, const char *name, bool force, struct wlink_adapter_reply *ret);
/* Ends with the pin's number (> 0), or what the engine answered; *ret_tokens: how many stay. */
int64_t eh_pin(struct eh *h, uint32_t domain, const uint32_t *tokens, uint32_t n,
	       uint32_t *ret_tokens);
void eh_unpin(struct eh *h, int64_t pin);
/* Evict what may be evicted of a domain, UINT32_MAX: of all. Blocks freed. */
uint64_t eh_drop(struct eh *h, uint32_t domain);
/* The engine's status: JSON, owned by the harness until the next call. */
const char *eh_report(struct eh *h);
/* A number in it, by a path as "cache.hits" or "adapters.0.in_use"; bails out if there is none. */
double eh_number(struct eh *h, const char *path);

/* Defaults for tests: greedy, 16 tokens. */
void eh_desc(struct wshm_desc *d);
/* Submit; resume (per sample) may be NULL. d's spans are filled in. */
void eh_submit(struct eh_session *s, struct wshm_desc *d, const uint32_t *prompt, uint32_t n,
	       const uint32_t *const *resume, struct eh_req *ret);
/* Submit descriptor bytes as they are; off is where the record says that they lie. */
void eh_submit_bytes(struct eh_session *s, const uint8_t *bytes, uint32_t n, uint64_t off,
		     struct eh_req *ret);
/* Wait until it has ended; false after EH_WAIT_MS. */
bool eh_wait(const struct eh_req *r);
/* Wait until sample has at least n tokens or it has ended. */
bool eh_wait_tokens(const struct eh_req *r, uint32_t sample, uint32_t n);
void eh_cancel(const struct eh_req *r);
void eh_release(const struct eh_req *r);

const struct wshm_slot *eh_slot(const struct eh_req *r);
uint32_t eh_state(const struct eh_req *r); /* FREE while the engine has not seen it */
uint32_t eh_status(const struct eh_req *r);
uint32_t eh_count(const struct eh_req *r, uint32_t sample);
const uint32_t *eh_tokens(const struct eh_req *r, uint32_t sample);
/* Entries of 1 + top pairs each; NULL: none asked for. */
const struct wshm_logprob *eh_logprobs(const struct eh_req *r, uint32_t sample);
const struct wshm_logprob *eh_prompt_logprobs(const struct eh_req *r);

/* --- results to compare ---------------------------------------------------------------------------*/

#define EH_MAX_TOKENS 256

/* A copy of everything that a request's answers consist of. */
struct eh_result {
	uint32_t status, n, count[WSHM_MAX_SAMPLES], finish[WSHM_MAX_SAMPLES];
	uint32_t tokens[WSHM_MAX_SAMPLES][EH_MAX_TOKENS];
	uint32_t logprob_bytes, prompt_bytes;
	uint8_t *logprobs; /* owned; n * EH_MAX_TOKENS * logprob_bytes */
	uint8_t *prompt;   /* owned */
};

void eh_result_take(struct eh_result *ret, const struct eh_req *r);
void eh_result_free(struct eh_result *r);
/* Bit for bit the same? Says the first difference as a TAP remark. */
bool eh_result_same(const struct eh_result *a, const struct eh_result *b);

/* xorshift: *state != 0 */
uint32_t eh_random(uint64_t *state);
uint64_t eh_now_ns(void);

#endif
