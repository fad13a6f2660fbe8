/* SPDX-License-Identifier: Apache-2.0 */
/*
 * idx_read.c - a client's end of an idx region: any thread, no lock, no system call.
 *
 * Whatever the region holds, a reader stays within it and comes to an end: every number found there
 * is compared with the layout's constants before it is used, a table is looked at in two places per
 * key, a chain of tails is followed for MAX_STEPS, and what was changed under the reader's eyes is
 * read again TRIES times before the answer is "not there".
 *
 * Epochs only spare readers that: while a thread's word in tx names an epoch, the engine keeps that
 * epoch's table, for the grace period at most. Answers are right without them.
 *
 * No state but the mapping. Partners of the ordered accesses are in idx_write.c, idx_table.c and
 * idx_tail.c.
 */
#include "shm/idx.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define TRIES	  4u
#define MAX_STEPS 64u
/* Keys whose lines are asked for before the first is looked at: 32 lines are about what a core can
 * wait for at once. */
#define GROUP 16u

static const struct wshm_idx_ctl *ctl_of(const struct wshm_idx_reader *r)
{
	return (const struct wshm_idx_ctl *)(r->base + WSHM_IDX_OFF_CTL);
}

int wshm_idx_reader_open(struct wshm_idx_reader *ret, int fd)
{
	struct wshm_hdr got, want;
	int rc = wshm_region_check(fd, WSHM_IDX_BYTES);
	void *base;

	if (!rc)
		rc = wshm_map(fd, WSHM_IDX_BYTES, PROT_READ, &base);
	if (rc)
		return rc;
	memcpy(&got, base, sizeof(got));
	wshm_idx_hdr_make(&want, got.session_id);
	if (got.minor >= want.minor)
		want.minor = got.minor;
	if (memcmp(&got, &want, sizeof(got))) {
		munmap(base, WSHM_IDX_BYTES);
		return -EPROTO;
	}
	ret->base = base;
	return 0;
}

void wshm_idx_reader_close(struct wshm_idx_reader *r)
{
	if (r->base)
		munmap((void *)(uintptr_t)r->base, WSHM_IDX_BYTES);
	r->base = NULL;
}

/* --- epochs ------------------------------------------------------------------------------------------*/

static _Atomic uint64_t *epoch_of(struct wshm_client *c, uint32_t slot)
{
	return &((struct wshm_tx_ctl *)(c->tx + c->layout.tx_ctl))->reader_epoch[slot];
}

void wshm_idx_enter(struct wshm_client *c, uint32_t slot, const struct wshm_idx_reader *r)
{
	const struct wshm_idx_ctl *ctl = ctl_of(r);
	uint64_t table = ord_load(&ctl->table), seen;

	for (uint32_t i = 0; i < TRIES; i++) {
		/* E3: pairs with E2 in wshm_engine_oldest_reader() */
		ord_store_seq(epoch_of(c, slot), table >> 8);
		/* E4: pairs with E1 in wipe() and idx_table_publish() */
		seen = ord_load_seq(&ctl->table);
		if (seen == table)
			return;
		table = seen;
	}
}

void wshm_idx_leave(struct wshm_client *c, uint32_t slot)
{
	/* E5: pairs with E2 in wshm_engine_oldest_reader() */
	ord_store_release(epoch_of(c, slot), UINT64_C(0));
}

/* --- the engine's stamp ------------------------------------------------------------------------------*/

/* Which engine's words these are; 0: nobody's. */
static uint64_t idx_engine(const struct wshm_idx_reader *r)
{
	/* Y2: pairs with Y1 in wshm_idx_writer_open() and wipe() */
	return ord_load_acquire(&ctl_of(r)->engine);
}

static void read_words(uint64_t *to, const _Atomic uint64_t *from, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		/* V2: pairs with V1 in publish_secret(), wshm_idx_instance() and idx_tail.c */
		to[i] = ord_load_acquire(&from[i]);
}

bool wshm_idx_secret(const struct wshm_idx_reader *r, uint8_t ret[WSHM_SECRET_BYTES],
		     struct wshm_root *ret_root)
{
	const struct wshm_idx_ctl *ctl = ctl_of(r);
	uint64_t secret[24], root[3];

	for (uint32_t i = 0; i < TRIES; i++) {
		uint64_t engine = idx_engine(r);

		if (!engine)
			return false;
		read_words(secret, ctl->secret, 24);
		read_words(root, ctl->root, 3);
		if (idx_engine(r) != engine)
			continue;
		memcpy(ret, secret, sizeof(secret));
		ret_root->model[0] = root[0];
		ret_root->model[1] = root[1];
		ret_root->exactness = root[2];
		return true;
	}
	return false;
}

/* --- lookup ------------------------------------------------------------------------------------------*/

/* The entry's tier + 1, or 0. */
static uint32_t find_in_bucket(const struct wshm_idx_bucket *b, uint64_t fingerprint)
{
	uint64_t found = 0;

	for (uint32_t i = 0; i < WSHM_IDX_ENTRIES; i++) {
		/* X2: pairs with X1 in store() of idx_table.c */
		uint64_t tier = ord_load_acquire(&b->entry[i]) ^ fingerprint;

		/* At most one does; without a branch, since which one is anybody's guess. */
		found |= tier <= IDX_TIER_BITS ? tier : 0;
	}
	return (uint32_t)found;
}

/* Up to GROUP keys in a table of 2^log2 buckets. */
static void lookup_group(const struct wshm_idx_reader *r, uint32_t log2,
			 const struct wshm_key *keys, uint32_t n, uint8_t *tiers)
{
	const struct wshm_idx_bucket *table = (const void *)(r->base + idx_table_off(log2));
	uint64_t fingerprints[GROUP];

	for (uint32_t i = 0; i < n; i++) {
		fingerprints[i] = idx_fingerprint(&keys[i]);
		ord_expect_read(&table[idx_bucket(fingerprints[i], log2, 0)]);
		ord_expect_read(&table[idx_bucket(fingerprints[i], log2, 1)]);
	}
	for (uint32_t i = 0; i < n; i++) {
		uint64_t f = fingerprints[i];
		uint32_t found = find_in_bucket(&table[idx_bucket(f, log2, 0)], f);

		if (!found)
			found = find_in_bucket(&table[idx_bucket(f, log2, 1)], f);
		tiers[i] = found && found <= WSHM_N_TIERS ? (uint8_t)(found - 1) : WSHM_N_TIERS;
	}
}

void wshm_idx_lookup(const struct wshm_idx_reader *r, const struct wshm_key *keys, uint32_t n,
		     uint8_t *tiers)
{
	const struct wshm_idx_ctl *ctl = ctl_of(r);

	for (uint32_t i = 0; i < TRIES; i++) {
		/* E4: pairs with E1 in wipe() and idx_table_publish() */
		uint64_t table = ord_load_acquire(&ctl->table);
		uint32_t log2 = table & 0xff, group;

		if (log2 < WSHM_IDX_LOG2_MIN || log2 > WSHM_IDX_LOG2_MAX)
			break;
		for (uint32_t at = 0; at < n; at += group) {
			group = n - at < GROUP ? n - at : GROUP;
			lookup_group(r, log2, keys + at, group, tiers + at);
		}
		/* The entries' loads come before this one; see X2. */
		if (ord_load(&ctl->table) == table)
			return;
	}
	memset(tiers, WSHM_N_TIERS, n);
}

/* --- tails -------------------------------------------------------------------------------------------*/

struct tail {
	struct wshm_key parent;
	struct wshm_identity id;
	uint32_t rows, next;
	uint32_t tokens[WSHM_IDX_TAIL_ROWS];
};

/* A copy of a tail as it was at one moment; false: it changed all the time. */
static bool read_tail(const struct wshm_idx_tail *s, struct tail *ret)
{
	for (uint32_t i = 0; i < TRIES; i++) {
		/* V4: pairs with V3 in wshm_idx_tail_new() and wshm_idx_tail_free() */
		uint32_t version = ord_load_acquire(&s->version);

		if (version & 1)
			continue;
		/* U2: pairs with U1 in wshm_idx_tail_set() */
		ret->rows = ord_load_acquire(&s->rows);
		if (ret->rows > WSHM_IDX_TAIL_ROWS)
			return false;
		read_words(&ret->parent.lo, &s->parent[0], 1);
		read_words(&ret->parent.hi, &s->parent[1], 1);
		read_words(ret->id.adapter, s->adapter, 2);
		/* V2: pairs with V1 in wshm_idx_tail_new() */
		ret->id.unadapted = ord_load_acquire(&s->unadapted);
		for (uint32_t k = 0; k < ret->rows; k++)
			/* V2: pairs with V1 in wshm_idx_tail_set() */
			ret->tokens[k] = ord_load_acquire(&s->tokens[k]);
		if (ord_load(&s->version) == version)
			return true;
	}
	return false;
}

/* Rows at the head of a tail that are those of `tokens` under `id`. */
static uint32_t agreeing(const struct tail *t, const struct wshm_identity *id,
			 const uint32_t *tokens, uint32_t n)
{
	bool same_adapter =
		t->id.adapter[0] == id->adapter[0] && t->id.adapter[1] == id->adapter[1];
	uint32_t i;

	for (i = 0; i < n && i < t->rows && t->tokens[i] == tokens[i]; i++) {
		bool is_base = i < t->id.unadapted;

		if (is_base != (i < id->unadapted) || (!is_base && !same_adapter))
			break;
	}
	return i;
}

/* Along a chain; *ret_best is the best so far. False: the chain changed meanwhile. */
static bool walk(const struct wshm_idx_reader *r, const struct wshm_key *parent,
		 const struct wshm_identity *id, const uint32_t *tokens, uint32_t n,
		 uint32_t *ret_best)
{
	const struct wshm_idx_tail *tails = (const void *)(r->base + WSHM_IDX_OFF_TAILS);
	const _Atomic uint64_t *head =
		(const _Atomic uint64_t *)(r->base + WSHM_IDX_OFF_HEADS) + idx_head(parent);
	/* U4: pairs with U3 in store_head() */
	uint64_t seen = ord_load_acquire(head);
	uint32_t at = (uint32_t)seen;

	for (uint32_t step = 0; step < MAX_STEPS && at && at <= WSHM_IDX_TAILS; step++) {
		const struct wshm_idx_tail *s = &tails[at - 1];
		struct tail t;

		if (read_tail(s, &t) && wshm_key_same(&t.parent, parent)) {
			uint32_t rows = agreeing(&t, id, tokens, n);

			*ret_best = rows > *ret_best ? rows : *ret_best;
		}
		/* U4: pairs with U3 in wshm_idx_tail_new() and wshm_idx_tail_free() */
		at = ord_load_acquire(&s->next);
	}
	return ord_load(head) == seen;
}

uint32_t wshm_idx_tail_rows(const struct wshm_idx_reader *r, const struct wshm_key *parent,
			    const struct wshm_identity *id, const uint32_t *tokens, uint32_t n)
{
	uint32_t best = 0;

	for (uint32_t i = 0; i < TRIES; i++) {
		uint64_t engine = idx_engine(r);
		bool whole;

		if (!engine)
			return 0;
		whole = walk(r, parent, id, tokens, n, &best);
		if (idx_engine(r) != engine)
			best = 0;
		else if (whole)
			break;
	}
	return best;
}

/* --- instances ---------------------------------------------------------------------------------------*/

static const struct wshm_idx_instance *instances(const struct wshm_idx_reader *r)
{
	return (const void *)(r->base + WSHM_IDX_OFF_INSTANCES);
}

static int instance_check(struct wshm_instance *in)
{
	in->name[WSHM_INSTANCE_NAME - 1] = '\0';
	return in->n_invocation <= WSHM_MAX_INVOCATION && in->on_missing <= WSHM_MISSING_APPEND
		       ? 0
		       : -ENOENT;
}

int wshm_idx_at(const struct wshm_idx_reader *r, uint32_t index, struct wshm_instance *ret)
{
	const struct wshm_idx_instance *s;
	uint64_t words[WSHM_IDX_INSTANCE_WORDS];

	if (index >= WSHM_MAX_INSTANCES || index >= ord_load(&ctl_of(r)->n_instances))
		return -ENOENT;
	s = instances(r) + index;
	for (uint32_t i = 0; i < TRIES; i++) {
		uint64_t engine = idx_engine(r);
		/* V4: pairs with V3 in wshm_idx_instance() */
		uint32_t version = ord_load_acquire(&s->version), present;

		if (version & 1)
			continue;
		/* V2: pairs with V1 in wshm_idx_instance() */
		present = ord_load_acquire(&s->present);
		read_words(words, s->words, WSHM_IDX_INSTANCE_WORDS);
		if (ord_load(&s->version) != version || ord_load(&ctl_of(r)->engine) != engine)
			continue;
		if (!engine || !present)
			return -ENOENT;
		memcpy(ret, words, sizeof(*ret));
		return instance_check(ret);
	}
	return -ENOENT;
}

/* Has this place such a name, as far as one can see without a version? */
static bool may_be(const struct wshm_idx_instance *s, const uint64_t name[8])
{
	for (uint32_t i = 0; i < 8; i++)
		if (ord_load(&s->words[i]) != name[i])
			return false;
	return true;
}

int wshm_idx_find(const struct wshm_idx_reader *r, const char *name, struct wshm_instance *ret)
{
	uint32_t n = ord_load(&ctl_of(r)->n_instances);
	uint64_t words[WSHM_INSTANCE_NAME / 8] = {0};

	if (!*name || strlen(name) >= WSHM_INSTANCE_NAME)
		return -ENOENT;
	memcpy(words, name, strlen(name));
	for (uint32_t i = 0; i < n && i < WSHM_MAX_INSTANCES; i++)
		if (may_be(instances(r) + i, words) && !wshm_idx_at(r, i, ret) &&
		    !strcmp(ret->name, name))
			return 0;
	return -ENOENT;
}
