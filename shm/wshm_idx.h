/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wshm_idx.h - the prefix index as a domain's clients see it: one region per domain and engine,
 * made by weftd, written by the engine alone, mapped read-only by that domain's clients. The layout is
 * in wshm_idx_abi.h.
 *
 *   +------------------+-----------+--------------------+--------------------------------------+
 *   | header, control  | instances | tails              | tables: 2^k buckets each, growing k  |
 *   +------------------+-----------+--------------------+--------------------------------------+
 *
 * It is a mirror: the engine never reads from it what it decides by, and what a client reads is a
 * hint that the engine checks again. So a reader needs no lock and no right to write; it must only
 * never take a torn or a stale entry for a good one within one table generation, never loop without
 * bound, and never leave the region, whatever it finds there.
 *
 *   table      buckets of one line, two of which a key may be in; an entry is one word, a key's
 *              fingerprint and the tier of its block, so it is whole whenever it is read.
 *   tails      what follows a full block without filling one: tokens, identity and count of rows,
 *              found by the key of the block before it. Readers validate each by its version.
 *   instances  the adapters: name, digest, invocation, offset; so that a probe can find the
 *              activation index itself.
 *
 * The region has its maximum size from the start; untouched pages cost nothing. A table that is
 * nearly full is followed by one of twice the size: filled little by little, then published as a
 * new table generation. The old one's pages are given back after a grace period: every client reader of the
 * domain has been seen outside, or in a later epoch (wshm_tx_ctl.reader_epoch), or WSHM_IDX_GRACE_NS
 * have passed. A reader that was thrown out that way reads zeros, sees that the generation has
 * changed, and starts again; a dead or lying one delays memory by that long and nothing else.
 */
#ifndef WEFT_SHM_IDX_H
#define WEFT_SHM_IDX_H

#include "shm/wshm.h"
#include "shm/wshm_key.h"

#define WSHM_IDX_GRACE_NS   UINT64_C(1000000000)
#define WSHM_MAX_INSTANCES  1024u
#define WSHM_MAX_INVOCATION 64u
#define WSHM_INSTANCE_NAME  64u

/* Where a block's bytes are; a lower one is nearer. */
enum wshm_tier { WSHM_TIER_DEVICE = 0, WSHM_TIER_HOST = 1, WSHM_TIER_DISK = 2, WSHM_N_TIERS };

/* --- made by weftd -----------------------------------------------------------------------------------*/

/* A region, sealed, of mode 0600, of its full (virtual) size, with a valid header and nothing in it.
 * fd or -errno. Clients get a read-only descriptor (wshm_open_read_only). */
int wshm_idx_new(uint64_t domain_id);
uint64_t wshm_idx_bytes(void);
/* Its engine is dead, and what it left is cached nowhere: clients are told that there is none, and
 * the memory goes. Between two engines, or for good. 0 or -errno. */
int wshm_idx_clear(int fd);

/* --- instances ---------------------------------------------------------------------------------------*/

enum wshm_missing { WSHM_MISSING_ERROR = 0, WSHM_MISSING_BASE = 1, WSHM_MISSING_APPEND = 2 };

/* An adapter as programs see it. */
struct wshm_instance {
	char name[WSHM_INSTANCE_NAME];
	uint64_t digest[2];  /* of its content; digest[0] is the instance number in slots */
	uint32_t activated;  /* nonzero: aLoRA */
	uint32_t rank;	     /* the largest */
	int32_t offset;	     /* of the activation from the start of the invocation */
	uint32_t on_missing; /* enum wshm_missing */
	uint32_t n_invocation;
	uint32_t invocation[WSHM_MAX_INVOCATION];
	uint32_t reserved; /* zero */
};

/* --- the engine's end: one thread -------------------------------------------------------------------*/

struct wshm_idx_writer;

/* Map and empty the region: a new engine begins with nothing. The secret and the root become
 * readable for the domain's clients. 0 or -errno. */
int wshm_idx_writer_open(struct wshm_idx_writer **ret, int fd,
			 const uint8_t secret[WSHM_SECRET_BYTES], const struct wshm_root *root);
void wshm_idx_writer_close(struct wshm_idx_writer *w); /* NULL allowed */

/* A full block came, or changed its tier; or it went. A full region takes no more: a mirror may
 * lack entries. */
void wshm_idx_put(struct wshm_idx_writer *w, const struct wshm_key *key, enum wshm_tier tier);
void wshm_idx_remove(struct wshm_idx_writer *w, const struct wshm_key *key);

/* A tail below `parent`: returns a handle for the other two, or WSHM_NO_TAIL when there is no room.
 * rows 1..15; tokens and identity of all rows so far. */
#define WSHM_NO_TAIL UINT32_MAX
uint32_t wshm_idx_tail_new(struct wshm_idx_writer *w, const struct wshm_key *parent,
			   const struct wshm_identity *id);
/* Rows were added: there are `rows` now, whose tokens are tokens[0..rows). */
void wshm_idx_tail_set(struct wshm_idx_writer *w, uint32_t tail, const uint32_t *tokens,
		       uint32_t rows);
void wshm_idx_tail_free(struct wshm_idx_writer *w, uint32_t tail);

/* Instance `index` (below WSHM_MAX_INSTANCES) is this one; NULL: none. */
void wshm_idx_instance(struct wshm_idx_writer *w, uint32_t index, const struct wshm_instance *in);

/* The epoch that a reader would enter now; and: readers of this domain have been seen at `oldest`
 * at the least (UINT64_MAX: none is inside). Called between steps; gives back what may be. True if
 * something still waits (call again within the grace period). */
uint64_t wshm_idx_epoch(const struct wshm_idx_writer *w);
bool wshm_idx_reclaim(struct wshm_idx_writer *w, uint64_t oldest, uint64_t now_ns);
/* The oldest epoch that readers of a session claim to be in, UINT64_MAX: none. The engine's view of
 * what a client writes: any value is possible. */
uint64_t wshm_engine_oldest_reader(const struct wshm_engine *e);

/* --- a client's end: any thread -----------------------------------------------------------------------*/

struct wshm_idx_reader {
	const uint8_t *base; /* owner of the mapping; NULL: none */
};

int wshm_idx_reader_open(struct wshm_idx_reader *ret, int fd); /* 0 or -errno */
void wshm_idx_reader_close(struct wshm_idx_reader *r);	       /* zeroed allowed */

/*
 * Enter and leave a read section; between them lookups see one table generation or restart.
 * `slot` (< WSHM_READERS) is one of the words in the client's tx region, held by the calling thread
 * alone. No system call.
 */
void wshm_idx_enter(struct wshm_client *c, uint32_t slot, const struct wshm_idx_reader *r);
void wshm_idx_leave(struct wshm_client *c, uint32_t slot);

/* The root key and the secret as the engine published them; false: no engine has yet. */
bool wshm_idx_secret(const struct wshm_idx_reader *r, uint8_t ret[WSHM_SECRET_BYTES],
		     struct wshm_root *ret_root);
/* Look up n keys (all loads started early, so that they overlap): tiers[i] is the tier or
 * WSHM_N_TIERS when it is not there. */
void wshm_idx_lookup(const struct wshm_idx_reader *r, const struct wshm_key *keys, uint32_t n,
		     uint8_t *tiers);
/* The longest agreeing tail below `parent`: rows of `tokens` (n of them, of which those from
 * `unadapted` on are of `id`'s adapter) that some tail holds. */
uint32_t wshm_idx_tail_rows(const struct wshm_idx_reader *r, const struct wshm_key *parent,
			    const struct wshm_identity *id, const uint32_t *tokens, uint32_t n);
/* The instance of this name, or by index: 0, -ENOENT. */
int wshm_idx_find(const struct wshm_idx_reader *r, const char *name, struct wshm_instance *ret);
int wshm_idx_at(const struct wshm_idx_reader *r, uint32_t index, struct wshm_instance *ret);

#endif
