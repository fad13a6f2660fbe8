/* SPDX-License-Identifier: Apache-2.0 */
/*
 * idx_table.c - the engine's end of the tables: put, remove, grow, give back.
 *
 * A key has two buckets of eight entries to be in and goes to the emptier one, so that a table can
 * be filled by two thirds and more before some key finds both full. Entries never move within a
 * table, and each is one word: a reader needs neither lock nor version, what it finds is whole.
 * (It may also find a key that has just gone; what it reads is a hint.)
 *
 * Growing: at 5/8, or when some key finds no room, a table of twice the size is begun. Each put and
 * remove then moves a few buckets; until it is done readers stay with the old table, and changes are
 * made in both:
 *
 *   cur   [###########|...............]      entries of buckets below `moved` are in next as well
 *                     moved
 *   next  [######################|..............................]
 *
 * A bucket's entries go to two neighbours of the new table, so moving runs through memory in order,
 * and there is always room but for what was put there meanwhile. What fitted only the new table is
 * seen when that is published. No call does more than a few microseconds of it.
 *
 * The old table's pages are given back when every reader has been seen in a later epoch or the grace
 * period is over, some at a time. A table's place is used once in an engine's life: who still reads
 * there finds zeros, never something else.
 *
 * Ordering guarantees:
 *   - who sees an entry of a table, or zeros where it was given back, and then sees that the table
 *     is still the published one, has read that table (X1, X2);
 *   - the engine either sees a reader's epoch, or the reader sees the new table (E1 to E4).
 */
#include "shm/idx_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#define NOWHERE UINT32_MAX

/* Moved by each change while a table grows: some 40 entries of two lines each, under a
 * microsecond, so that growing is done after 1/64 of the table has changed again. */
#define MOVE_BUCKETS 8u
/* Given back at a time: 16 pages, and as many of the copy; some 20 us. */
#define GIVE_BYTES (UINT64_C(16) * WSHM_PAGE)

/* --- one table ---------------------------------------------------------------------------------------*/

int idx_table_init(struct wshm_idx_writer *w, struct idx_table *t, uint32_t log2)
{
	uint64_t *own = mmap(NULL, idx_table_bytes(log2), PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (own == MAP_FAILED)
		return -ENOMEM;
	/* Pages come one by one as the table is filled; clearing a huge one takes a fifth of a
	 * millisecond. Where there are none, the call fails, and nothing is lost. */
	madvise(own, idx_table_bytes(log2), MADV_NOHUGEPAGE);
	*t = (struct idx_table){
		.shared = (struct wshm_idx_bucket *)(w->base + idx_table_off(log2)),
		.own = own,
		.log2 = log2,
	};
	return 0;
}

void idx_table_fini(struct idx_table *t)
{
	if (t->own)
		munmap(t->own, idx_table_bytes(t->log2));
	*t = (struct idx_table){0};
}

void idx_table_publish(struct wshm_idx_writer *w)
{
	/* E1: pairs with E4 in wshm_idx_enter() */
	ord_store_seq(&idx_writer_ctl(w)->table, w->generation << 8 | w->cur.log2);
}

static void store(struct idx_table *t, uint32_t at, uint64_t entry)
{
	t->own[at] = entry;
	/* X1: pairs with X2 in find_in_bucket() */
	ord_store_release(&t->shared[at / WSHM_IDX_ENTRIES].entry[at % WSHM_IDX_ENTRIES], entry);
}

/* Where the entry with this fingerprint is, or NOWHERE. */
static uint32_t find(const struct idx_table *t, uint64_t fingerprint)
{
	for (uint32_t choice = 0; choice < 2; choice++) {
		uint32_t at = idx_bucket(fingerprint, t->log2, choice) * WSHM_IDX_ENTRIES;

		for (uint32_t i = 0; i < WSHM_IDX_ENTRIES; i++)
			if ((t->own[at + i] ^ fingerprint) - 1 < IDX_TIER_BITS)
				return at + i;
	}
	return NOWHERE;
}

/* How many entries of a bucket are free, and one of them. */
static uint32_t room(const struct idx_table *t, uint32_t bucket, uint32_t *ret_at)
{
	uint32_t at = bucket * WSHM_IDX_ENTRIES, n = 0;

	for (uint32_t i = WSHM_IDX_ENTRIES; i--;) {
		if (t->own[at + i])
			continue;
		*ret_at = at + i;
		n++;
	}
	return n;
}

/* A new entry: where it went, or NOWHERE. */
static uint32_t insert(struct idx_table *t, uint64_t entry)
{
	uint32_t at = NOWHERE, other = NOWHERE;
	uint32_t n = room(t, idx_bucket(entry, t->log2, 0), &at);

	if (room(t, idx_bucket(entry, t->log2, 1), &other) > n)
		at = other;
	if (at == NOWHERE)
		return NOWHERE;
	store(t, at, entry);
	t->n++;
	return at;
}

static void clear(struct idx_table *t, uint32_t at)
{
	store(t, at, 0);
	t->n--;
}

/* --- growing -----------------------------------------------------------------------------------------*/

static void grow_begin(struct wshm_idx_writer *w)
{
	if (w->next.own || w->cur.log2 == WSHM_IDX_LOG2_MAX)
		return;
	w->moved = 0;
	/* Without memory this table serves on, and the next change asks again. */
	(void)idx_table_init(w, &w->next, w->cur.log2 + 1);
}

static void grow_end(struct wshm_idx_writer *w)
{
	w->retired[w->n_retired++] = (struct idx_retired){
		.own = (uint8_t *)w->cur.own,
		.log2 = w->cur.log2,
		.generation = w->generation,
	};
	w->cur = w->next;
	w->next = (struct idx_table){0};
	w->generation++;
	idx_table_publish(w);
}

/* To the bucket of the same choice, which is nearly always free; see the head of this file. */
static void move_entry(struct wshm_idx_writer *w, uint32_t from, uint64_t entry)
{
	uint32_t choice = idx_bucket(entry, w->cur.log2, 0) == from ? 0 : 1, at;

	if (room(&w->next, idx_bucket(entry, w->next.log2, choice), &at)) {
		store(&w->next, at, entry);
		w->next.n++;
	} else if (insert(&w->next, entry) == NOWHERE) {
		w->dropped++;
	}
}

static void grow_some(struct wshm_idx_writer *w)
{
	for (uint32_t k = 0; k < MOVE_BUCKETS && w->next.own; k++) {
		const uint64_t *own = w->cur.own + (size_t)w->moved * WSHM_IDX_ENTRIES;

		for (uint32_t i = 0; i < WSHM_IDX_ENTRIES; i++)
			if (own[i])
				move_entry(w, w->moved, own[i]);
		if (++w->moved == 1u << w->cur.log2)
			grow_end(w);
	}
}

/* --- put and remove ----------------------------------------------------------------------------------*/

/* While growing: an entry of cur is in next too once its bucket was moved, and what fitted only
 * next always. */
static bool in_next(const struct wshm_idx_writer *w, uint32_t at_in_cur)
{
	return w->next.own && (at_in_cur == NOWHERE || at_in_cur / WSHM_IDX_ENTRIES < w->moved);
}

static void put_new(struct wshm_idx_writer *w, uint64_t entry)
{
	uint32_t at = insert(&w->cur, entry);

	if (at == NOWHERE || w->cur.n > (5u << w->cur.log2))
		grow_begin(w);
	if (in_next(w, at)) {
		if (insert(&w->next, entry) == NOWHERE)
			w->dropped++;
	} else if (at == NOWHERE) {
		w->dropped++;
	}
}

void wshm_idx_put(struct wshm_idx_writer *w, const struct wshm_key *key, enum wshm_tier tier)
{
	uint64_t fingerprint = idx_fingerprint(key), entry = fingerprint | ((uint64_t)tier + 1);
	uint32_t at, at_next = NOWHERE;

	if ((uint32_t)tier >= WSHM_N_TIERS)
		return;
	at = find(&w->cur, fingerprint);
	if (in_next(w, at))
		at_next = find(&w->next, fingerprint);
	if (at != NOWHERE)
		store(&w->cur, at, entry);
	if (at_next != NOWHERE)
		store(&w->next, at_next, entry);
	if (at == NOWHERE && at_next == NOWHERE)
		put_new(w, entry);
	grow_some(w);
}

void wshm_idx_remove(struct wshm_idx_writer *w, const struct wshm_key *key)
{
	uint64_t fingerprint = idx_fingerprint(key);
	uint32_t at = find(&w->cur, fingerprint), at_next = NOWHERE;

	if (in_next(w, at))
		at_next = find(&w->next, fingerprint);
	if (at != NOWHERE)
		clear(&w->cur, at);
	if (at_next != NOWHERE)
		clear(&w->next, at_next);
	grow_some(w);
}

/* --- giving back -------------------------------------------------------------------------------------*/

/* Some pages of a table, and of its copy; true: all of them are gone. */
static bool give_back(struct wshm_idx_writer *w, struct idx_retired *r)
{
	uint64_t bytes = idx_table_bytes(r->log2) - r->given_bytes;

	if (bytes > GIVE_BYTES)
		bytes = GIVE_BYTES;
	/* A failure costs memory until the next engine; nothing else depends on it. */
	(void)fallocate(w->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			(off_t)(idx_table_off(r->log2) + r->given_bytes), (off_t)bytes);
	munmap(r->own + r->given_bytes, bytes);
	r->given_bytes += bytes;
	return r->given_bytes == idx_table_bytes(r->log2);
}

void idx_table_forget_retired(struct wshm_idx_writer *w)
{
	for (uint32_t i = 0; i < w->n_retired; i++) {
		struct idx_retired *r = &w->retired[i];

		munmap(r->own + r->given_bytes, idx_table_bytes(r->log2) - r->given_bytes);
	}
	w->n_retired = 0;
}

bool wshm_idx_reclaim(struct wshm_idx_writer *w, uint64_t oldest, uint64_t now_ns)
{
	struct idx_retired *r = w->retired;

	for (uint32_t i = 0; i < w->n_retired; i++)
		if (!r[i].deadline_ns)
			r[i].deadline_ns = now_ns + WSHM_IDX_GRACE_NS;
	if (!w->n_retired || (oldest <= r->generation && now_ns < r->deadline_ns))
		return w->n_retired;
	if (give_back(w, r)) {
		w->n_retired--;
		for (uint32_t i = 0; i < w->n_retired; i++)
			r[i] = r[i + 1];
	}
	return w->n_retired;
}
