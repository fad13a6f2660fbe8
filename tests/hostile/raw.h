/* SPDX-License-Identifier: Apache-2.0 */
/*
 * raw.h - a client that obeys nothing: its own socket, its own mappings, any byte anywhere.
 *
 * It shares no code with libweft or the client end of the rings: offsets come from the section
 * tables in the regions' headers, messages and descriptors are put together by hand. The functions
 * below are what an honest client would do; tests use them until the moment they want to misbehave
 * and then write the fields themselves. The caller owns a struct raw; raw_close() ends it.
 */
#ifndef WEFT_TESTS_RAW_H
#define WEFT_TESTS_RAW_H

#include "shm/wshm_control.h"

#include <stdbool.h>
#include <sys/types.h>

#define RAW_ANY_UID ((uid_t)-1)
/* For what must come: much longer than it takes on a machine that has other things to do. */
#define RAW_PATIENCE_MS 60000

struct raw {
	int sock, tx_fd, rx_fd, wake_fd, bell_fd, index_fd, public_fd; /* owner; -1: none */
	struct wctl_welcome welcome;
	struct wctl_text refusal; /* of the last open that failed, or the goodbye */
	uint8_t *tx;
	const uint8_t *rx;
	uint64_t tx_bytes, rx_bytes;
	struct wshm_tx_ctl *tx_ctl;
	const struct wshm_rx_ctl *rx_ctl;
	_Atomic uint64_t *sq;
	struct wshm_req *req;
	const struct wshm_slot *slot;
	uint8_t *tx_arena;
	uint32_t slots, ring_entries;
	uint32_t tail; /* entries pushed by raw_push() */
};

/* A session of nothing. */
#define RAW_NONE                      \
	((struct raw){.sock = -1,     \
		      .tx_fd = -1,    \
		      .rx_fd = -1,    \
		      .wake_fd = -1,  \
		      .bell_fd = -1,  \
		      .index_fd = -1, \
		      .public_fd = -1})

/* Connect as another user (effective uid while connecting; root only). Socket or -errno. */
int raw_connect(const char *path, uid_t uid);
void raw_hello_init(struct wctl_hello *h);
/* Send any bytes with any descriptors. 0 or -errno. */
int raw_send(int sock, const void *msg, size_t bytes, const int *fds, uint32_t n_fds);
/* Bytes, 0 at hang-up, -ETIMEDOUT, -errno. n_fds: room in, arrived out (NULL: none wanted). */
int raw_recv(int sock, void *buf, size_t bytes, int *fds, uint32_t *n_fds, int timeout_ms);

/*
 * Say this hello, map what comes. 0; -EACCES refused (the words are in r->refusal), -errno. A
 * model that is still loading is waited for.
 */
int raw_open_hello(struct raw *r, const char *path, uid_t uid, const struct wctl_hello *h);
int raw_open(struct raw *r, const char *path, uid_t uid, uint32_t slots);
/* After a welcome was received by other means. */
int raw_map(struct raw *r);
void raw_close(struct raw *r);

/* --- what a request is made of --------------------------------------------------------------------*/

/* Where slot i keeps its descriptor and prompt: 4 KiB and RAW_PROMPT_MAX tokens. */
#define RAW_PROMPT_MAX 1024u
uint64_t raw_desc_off(uint32_t slot);
uint64_t raw_prompt_off(uint32_t slot);
uint64_t raw_arena_bytes(uint32_t slots);

/*
 * A plain descriptor: prompt span, n (0: leave out), max_tokens, ignore_eos. At most 64 bytes;
 * returns how many. Offsets and counts may be any numbers.
 */
uint32_t raw_desc(uint8_t *buf, uint64_t prompt_off, uint64_t tokens, uint32_t n,
		  uint32_t max_tokens);
/* Write prompt (token i is (seed + 7 i) mod (vocabulary - 1)), descriptor and record of a slot. */
void raw_prepare(struct raw *r, uint32_t slot, uint32_t generation, uint32_t seed, uint32_t tokens,
		 uint32_t max_tokens);
/* Push any entry and wake the engine if it sleeps. */
void raw_push(struct raw *r, uint32_t slot, uint32_t generation);
void raw_wake(const struct raw *r);
/* Both of the above. */
void raw_submit(struct raw *r, uint32_t slot, uint32_t generation, uint32_t seed, uint32_t tokens,
		uint32_t max_tokens);
void raw_release(struct raw *r, uint32_t slot, uint32_t generation);

/* Wait (polling) until the slot carries the generation and at least this state. */
bool raw_wait_state(const struct raw *r, uint32_t slot, uint32_t generation, uint32_t state,
		    int timeout_ms);
bool raw_wait_count(const struct raw *r, uint32_t slot, uint32_t generation, uint32_t count,
		    int timeout_ms);
/* A whole well-behaved request: its status, or -1 when it did not end in time. */
int raw_request(struct raw *r, uint32_t slot, uint32_t generation, uint32_t tokens,
		uint32_t max_tokens);
/* The session was ended for breaking the protocol: BYE and hang-up on the socket. */
bool raw_ended(struct raw *r, int timeout_ms);
/* The session is as alive as before: a request of the slot ends well. */
bool raw_alive(struct raw *r, uint32_t slot, uint32_t generation);

uint64_t raw_now_ns(void);
void raw_pause_us(unsigned us);

#endif
