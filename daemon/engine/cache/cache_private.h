/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache_private.h - the cache's own structures, shared by the files of this folder.
 *
 *   cache --> domain --> root --> children: nodes, in a list, the newest first
 *                |-----> index: key -> full and promised nodes
 *                `-----> heap:  the nodes that may be evicted now, the least valuable first
 *
 * A node is in the heap exactly while nothing needs it: no child, no chain that ends at it, no
 * owner that still fills it, no pin. A chain needs only its last node; that one needs its parent.
 *
 * Why a pool's idle block can always be had: a sequence whose chain leads through a node holds that
 * node's block in its table, and the same is true of every ancestor; a pin holds the whole path. So
 * below a node whose block is idle there is no chain, no promise and no pin, and taking leaf after
 * leaf gets to it.
 */
#ifndef WEFT_ENGINE_CACHE_PRIVATE_H
#define WEFT_ENGINE_CACHE_PRIVATE_H

#include "daemon/engine/cache/cache.h"

#include <string.h>

#define CACHE_BLOCK WSHM_BLOCK_TOKENS
/* Children that a search for rows to copy, or for tails that have become redundant, looks at: bounds
 * the work where many prompts part. About 5 us when none of them is in the processor's caches. */
#define CACHE_SCAN 64u

enum node_state {
	NODE_TAIL,     /* rows < 16; not in the index */
	NODE_PROMISED, /* all tokens are known, rows are being computed; in the index */
	NODE_FULL,     /* 16 rows; in the index */
};

struct cache_node {
	uint32_t tokens[CACHE_BLOCK];

	struct cache_node *parent;     /* the domain's root above the first block */
	struct cache_adapter *adapter; /* whose rows from `unadapted` on; NULL: the base's, all */
	uint32_t unadapted;
	uint32_t index; /* which block of its sequence */
	uint32_t block; /* with a reference of the cache's, or BLOCK_NONE */
	uint8_t state, rows;
	struct cache_node *child, *prev, *next; /* first child; siblings */

	uint32_t users; /* chains of which it is the last full block */
	uint32_t pins;
	struct cache_chain *owner; /* who promised it, or fills the tail; NULL: nobody any more */

	struct wshm_key key; /* not of a tail */
	struct cache_domain *domain;
	struct cache_node *dep_prev, *dep_next; /* among the adapter's dependents */
	uint64_t last_use, visits;
	double value;	      /* when it was last looked at */
	uint32_t heap_at;     /* its place, or NOT_IN_HEAP */
	uint32_t mirror_tail; /* handle, or WSHM_NO_TAIL */
};

#define NOT_IN_HEAP UINT32_MAX

struct index_slot {
	uint64_t lo;
	struct cache_node *node;
};

struct node_index {
	struct index_slot *slots; /* owned; [mask + 1] */
	uint64_t mask;
	uint64_t n;
	uint64_t seed;
};

struct cache_domain {
	struct cache *cache;
	struct cache_domain *prev, *next;
	uint8_t secret[WSHM_SECRET_BYTES];
	struct wshm_idx_writer *mirror; /* borrowed; NULL allowed */
	struct cache_node root;		/* of its fields only key, child and index mean anything */
	struct node_index index;
	uint32_t weight;
	uint32_t n_heap;
	struct cache_node **heap; /* owned; room for one node per block of the pool */
	struct cache_pin *pins;
	struct cache_stats stats;
};

struct node_chunk;

struct cache {
	struct block_pool *pool;
	struct wshm_root root;
	const struct cache_policy *policy;
	struct cache_domain *domains, *public;
	struct cache_adapter *adapters; /* resident */
	uint32_t n_spare;		/* of them: nobody uses, nothing depends on */
	uint64_t now;
	uint64_t seed;
	struct cache_node *reserve; /* owned: memory of the first nodes; [n_reserve) */
	uint32_t n_reserve, n_reserved;
	struct node_chunk *chunks; /* owned: memory of the others */
	struct cache_node *spare;  /* linked by next */
	struct cache_stats stats;  /* of adapters, and of domains that are gone */
};

/* Whose rows a block of a sequence has. */
struct block_label {
	struct cache_adapter *adapter;
	uint32_t unadapted;
};

/* --- index.c ----------------------------------------------------------------------------------------*/

/* For n nodes. 0 or -ENOMEM. */
int index_init(struct node_index *x, uint64_t seed, uint32_t n);
void index_fini(struct node_index *x);
struct cache_node *index_find(const struct node_index *x, const struct wshm_key *key);
/* Its key must not be there. False when there is no room. */
bool index_insert(struct node_index *x, struct cache_node *n);
void index_remove(struct node_index *x, struct cache_node *n);

/* --- node.c -----------------------------------------------------------------------------------------*/

/* A new tail below the parent, without block and rows. NULL when out of memory. */
struct cache_node *node_new(struct cache_node *parent, struct cache_domain *d, uint32_t index,
			    const struct block_label *label);
/* Without children, users and owner. Its block may become free. */
void node_free(struct cache_node *n);
bool node_reserve(struct cache *c, uint32_t n); /* once; false: no memory */
void node_free_all(struct cache *c);		/* the memory, when no node is left */
void node_attach(struct cache_node *n, uint32_t block);
/* A tail's 16 tokens and key are set: enter it in the index. False when out of memory. */
bool node_promise(struct cache_node *n, struct cache_chain *owner);
/* The promise is withdrawn; what has been computed stays as a tail of its owner's. */
void node_unpromise(struct cache_node *n);
/* A tail or promised node with 16 tokens, key and block. False when out of memory. */
bool node_fill(struct cache_node *n);
/* The rows of a tail or promised node have become more. */
void node_grow(struct cache_node *n, uint32_t rows);
void node_to_front(struct cache_node *n);
/* Its domain's secret, index and mirror are new, and so is its parent's key. False: its key is taken. */
bool node_renew(struct cache_node *n);

/* How many rows of a block that has label and tokens[0..n) are those of a node. */
uint32_t node_agree(const struct cache_node *node, const struct block_label *label,
		    const uint32_t *tokens, uint32_t n);
static inline struct block_label node_label(const struct cache_node *n)
{
	return (struct block_label){n->adapter, n->unadapted};
}
/* Would a tail of these rows add nothing to its siblings? */
bool node_is_redundant(const struct cache_node *tail);
/* Free sibling tails that nobody fills and that have nothing that this node has not. */
void node_prune_siblings(struct cache_node *n);

static inline bool node_is_root(const struct cache_node *n)
{
	return n == &n->domain->root;
}

/* --- match.c ----------------------------------------------------------------------------------------*/

/* A block to be looked for below a parent. */
struct wanted {
	struct block_label label;
	uint32_t index;
	uint32_t tokens[CACHE_BLOCK];
};

/* Of the block's tokens only the first `rows`. */
void wanted_get(struct wanted *w, const struct cache_chain *ch, uint32_t index, uint32_t rows);
void wanted_key(const struct wanted *w, const struct cache_node *parent, struct wshm_key *ret);
bool wanted_is(const struct wanted *w, const struct cache_node *parent, const struct cache_node *n);
/* The full or promised node below the parent; NULL: there is none. */
struct cache_node *wanted_find(const struct wanted *w, const struct cache_node *parent);

/* The sequence goes on with what it has found. */
void match_count(struct cache_chain *ch);

/* --- evict.c ----------------------------------------------------------------------------------------*/

/* What decides whether a node may be evicted has changed. */
void evict_update(struct cache_node *n);
void evict_forget(struct cache_node *n);	/* it is about to be freed */
void evict_reclaim(void *cache, uint32_t want); /* for block_pool.reclaim */
/* Everything below and including it, whatever its value; no chain or pin may be there. */
void evict_subtree(struct cache_node *n);

/* --- weights.c --------------------------------------------------------------------------------------*/

/* An adapter that may be evicted has users or dependents added, or taken away. */
void weights_count(struct cache *c, struct cache_adapter *a, int users, int dependents);
bool weights_are_spare(const struct cache_adapter *a);
void weights_evict(struct cache *c, struct cache_adapter *a);

/* --- pin.c ------------------------------------------------------------------------------------------*/

void pin_forget_all(struct cache_domain *d);

#endif
