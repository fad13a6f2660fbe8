/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache.h - one prefix cache for the base model and all adapters.
 *
 * Everything kept is a node. A KV node is a block of up to 16 positions below a parent block;
 * what is in it is said by its tokens and its identity (wshm_key.h): whose rows they are. Blocks
 * that end at or before the activation index are the base model's, so base and adapters meet in
 * the same nodes; later ones hang below both their prefix and their adapter (a DAG):
 *
 *   root --[base]--[base]--+--[base]--[base, rows < 16: a tail]
 *                          +--[adapter A from row 5]--[adapter A]      depends on A's weights too
 *                          +--[adapter B from row 5]
 *
 * Domains have trees and secrets of their own and share nothing but memory. The public domain's
 * tree only supplies blocks: a tenant's chain takes them under its own keys.
 *
 *   full node    found by key, then confirmed: parent, identity, every token. Shared by reference,
 *                never written again.
 *   tail         the last block of a sequence, being filled or left behind: never shared, only its
 *                rows are copied, up to the published count. It becomes a full node when full.
 *   promised     a full node whose owner is just computing it: others who want it can wait
 *                (cache_found.wait_for) rather than compute it too.
 *
 * A key that is taken by something else (a collision): the resident stays, the newcomer and what
 * follows it in its sequence stay private. A key that is taken by the same thing: the sequence goes
 * over to the canonical node's block and gives its own back.
 *
 * Eviction takes leaves only: nodes that no resident node depends on, that no sequence uses and
 * nobody pinned; first from the domain that has most for its weight, in it those of least value by
 * the policy. An adapter's weights are a node too and leave after the last KV that depends on them.
 *
 * Plain data over a block_pool: no model, no clock (a logical one counts uses), no allocation per
 * lookup. Everything belongs to the core thread. Copying rows and moving weights is the caller's.
 */
#ifndef WEFT_ENGINE_CACHE_H
#define WEFT_ENGINE_CACHE_H

#include "daemon/engine/blocks.h"
#include "shm/wshm_idx.h"
#include "shm/wshm_key.h"

struct cache;
struct cache_domain;
struct cache_node;

/* --- adapters as nodes ------------------------------------------------------------------------------
 *
 * Embedded in the owner's adapter. Its blocks hold the weights while it is resident; they are idle
 * (can be reclaimed) while no sequence uses it, and go after the KV nodes that depend on it. One
 * object per digest: nodes of one are never another's.
 */
struct cache_adapter {
	/* the owner's, before cache_adapter_init() */
	uint64_t digest[2]; /* never 0, 0 */
	uint32_t n_blocks;
	/* Its blocks are about to be given back: forget where the weights were. */
	void (*left)(struct cache_adapter *a);

	/* the cache's */
	uint32_t *blocks; /* owned; [n_blocks] while resident */
	bool resident;
	uint32_t users;		  /* sequences that run with it */
	uint32_t dependents;	  /* KV nodes, in all domains */
	struct cache_node *nodes; /* these */
	uint64_t last_use, visits;
	struct cache_adapter *prev, *next; /* among the resident */
};

/* --- policy ----------------------------------------------------------------------------------------*/

/* What a policy may look at: one evictable node. */
struct cache_facts {
	uint64_t now, last_use; /* logical time: one more for each use of anything */
	uint64_t visits;
	uint32_t n_blocks; /* that evicting it frees */
	uint32_t depth;	   /* blocks before it in its chain; 0 for an adapter */
	bool is_adapter, is_tail;
};

struct cache_policy {
	const char *name;
	/* The least valuable leaf goes first. Must not grow as `now` passes without uses: a value that
	 * was computed earlier may be taken for an upper bound. */
	double (*value)(const struct cache_facts *f);
};

extern const struct cache_policy cache_policy_lru;

/* --- the cache --------------------------------------------------------------------------------------*/

struct cache_options {
	struct wshm_root root;
	const struct cache_policy *policy; /* NULL: LRU */
};

/* Takes the pool's reclaim hook. 0 or -errno. */
int cache_new(struct cache **ret, struct block_pool *pool, const struct cache_options *opt);
void cache_free(struct cache *c); /* NULL allowed; no sequence may hold a chain any more */

/* Of weight 1..1000. mirror: where changes are published, borrowed, may be NULL. */
int cache_domain_new(struct cache *c, const uint8_t secret[WSHM_SECRET_BYTES], uint32_t weight,
		     struct wshm_idx_writer *mirror, struct cache_domain **ret);
void cache_domain_free(struct cache_domain *d); /* with all its nodes; NULL allowed */
void cache_domain_weight(struct cache_domain *d, uint32_t weight);
/*
 * Under another secret and in another mirror from now on; the old one is told nothing more. Every key
 * is computed anew, in one go; nodes, chains and pins stay as they are. 0; -ENOMEM with nothing
 * changed; or -EEXIST: two keys have become one, and the cache is of no use any more.
 */
int cache_domain_renew(struct cache_domain *d, const uint8_t secret[WSHM_SECRET_BYTES],
		       struct wshm_idx_writer *mirror);
/* The domain whose nodes all others may take from; NULL: none. */
void cache_set_public(struct cache *c, struct cache_domain *d);

void cache_adapter_init(struct cache_adapter *a);
/* Take blocks for the weights: 0 with a->resident and a->blocks to be filled, or -ENOSPC with
 * nothing changed. Nothing to do if resident. */
int cache_adapter_enter(struct cache *c, struct cache_adapter *a);
/* A sequence begins or ends to run with it. */
void cache_adapter_use(struct cache *c, struct cache_adapter *a, bool use);
/* Unloaded: every node that depends on it goes, then its blocks. users must be 0. */
void cache_adapter_drop(struct cache *c, struct cache_adapter *a);
/* The same for so many nodes; *most: how many of them may still go. True when nothing is left. */
bool cache_adapter_drop_some(struct cache *c, struct cache_adapter *a, uint32_t *most);

/* --- a sequence's way through it ---------------------------------------------------------------------*/

/*
 * Embedded in the sequence. Zero it, set the first part, and keep the tokens readable and unchanged
 * below what was announced. A chain is `on` from cache_match() to cache_leave(), and counts as a
 * user of its adapter meanwhile. It has no memory of its own.
 */
struct cache_chain {
	struct cache_domain *domain;
	struct cache_adapter *adapter; /* NULL: the base model */
	uint32_t activation;	       /* WSHM_NO_ACTIVATION: no row is adapted */
	/* Copy the tokens of positions [first, first + n); n <= 16, all in one block. */
	void (*tokens)(const void *arg, uint32_t first, uint32_t n, uint32_t *ret);
	const void *arg;
	void *owner; /* the caller's; see cache_found.wait_for */

	/* the cache's */
	bool on, is_private;
	bool is_counted; /* what was found has been used, and counts as hits */
	uint32_t hit_full, hit_rows, missed;
	bool copying;		 /* copy_from is held */
	uint32_t copy_from;	 /* block: see cache_copied() */
	uint32_t n;		 /* full blocks behind `node` */
	struct cache_node *node; /* canonical node of the last full block; NULL: the root */
	struct cache_node *tail; /* its own, being filled, and not promised; NULL: none */
	struct cache_node *promised, *promised_end; /* its own, from block n on */
};

struct cache_found {
	uint32_t n_full;     /* blocks now in the table, by reference */
	uint32_t tail_rows;  /* rows of tail_block that agree with what follows; 0: none */
	uint32_t tail_block; /* to be copied from; held until cache_copied() */
	const struct cache_chain *wait_for; /* not NULL: its owner is computing the next block */
};

/*
 * Take the longest reusable prefix of at most `limit` positions: full blocks by reference into the
 * (empty) table, and say which block to copy the rest from. n_full * 16 + tail_rows <= limit.
 * Full blocks are always found; rows to copy are looked for in the 64 blocks that were used last
 * of those that follow the last full one.
 * With wait_for set the caller had better wait, giving the blocks back with cache_leave(); a
 * caller that goes on all the same is served correctly.
 */
void cache_match(struct cache_chain *ch, struct block_table *table, uint32_t limit,
		 struct cache_found *ret);
/* The rows of tail_block have been copied, or will not be (no room for a copy of its own: while it
 * is held it is not idle). Also done by cache_promise(), cache_commit() and cache_leave(). */
void cache_copied(struct cache_chain *ch);
/* How much there is, without taking anything or leaving a trace (for tests and status). */
uint32_t cache_peek(const struct cache_chain *ch, uint32_t limit);

/* The sequence, whose table now has its blocks, will compute positions up to `end`: promise the
 * full blocks among them that nobody has. */
void cache_promise(struct cache_chain *ch, const struct block_table *table, uint32_t end);
/* Positions below `computed` have their KV: blocks that are full become nodes, the rest a tail.
 * Entries of the table may be exchanged for canonical blocks. */
void cache_commit(struct cache_chain *ch, struct block_table *table, uint32_t computed);
/* The sequence gives up its table (ended, preempted): broken promises are withdrawn, the tail stays
 * as something to copy from. The caller clears the table afterwards, never before. Also for a chain
 * that is off. */
void cache_leave(struct cache_chain *ch);

/* --- administration ---------------------------------------------------------------------------------*/

struct cache_pin; /* a prefix that stays: its nodes are never evicted */
/* Pin what is cached of this prefix of the base model, to the token. NULL when out of memory;
 * *ret_tokens says how much that is. */
struct cache_pin *cache_pin_new(struct cache_domain *d, const uint32_t *tokens, uint32_t n_tokens,
				uint32_t *ret_tokens);
void cache_pin_free(struct cache_pin *p); /* NULL allowed */
/* Evict everything of a domain (NULL: of all) that may be evicted. Blocks freed. */
uint32_t cache_drop(struct cache *c, struct cache_domain *d);
/* The same for so many nodes, adding the blocks freed to *blocks. True when nothing is left. */
bool cache_drop_some(struct cache *c, struct cache_domain *d, uint32_t *most, uint64_t *blocks);

struct cache_stats {
	uint64_t nodes, tails, promised, adapters; /* now */
	uint64_t blocks;			   /* that the cache has references to */
	uint64_t pinned;			   /* nodes */
	/* Of sequences that went on to compute: blocks shared, rows to be copied, and full blocks
	 * that were asked for and not found. */
	uint64_t hits_full, hits_rows, misses;
	uint64_t inserted, duplicates, collisions, evicted, adapters_evicted, waits;
};
void cache_stats(const struct cache *c, const struct cache_domain *d, struct cache_stats *ret);

#endif
