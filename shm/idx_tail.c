/* SPDX-License-Identifier: Apache-2.0 */
/*
 * idx_tail.c - the engine's end of the tails: blocks that are not full, below the full one they
 * follow.
 *
 *   heads[hash of the parent's key] --> tail --next--> tail --next--> none
 *
 * How they are chained is kept privately; the region's words are copies. A tail gets a new version
 * when it comes or goes, none when rows are added: its first `rows` tokens stay as they are. A head
 * counts the changes of its chain, so that a reader who was led astray by a tail that went over to
 * another chain knows.
 *
 * Ordering guarantees:
 *   - tokens before the count of rows (U1, U2);
 *   - a tail before the head or the tail that leads to it (U3, U4);
 *   - versions as in idx_write.c (V1 to V4).
 */
#include "shm/idx_writer.h"

static struct wshm_idx_tail *tail_at(const struct wshm_idx_writer *w, uint32_t tail)
{
	return (struct wshm_idx_tail *)(w->base + WSHM_IDX_OFF_TAILS) + tail;
}

static uint32_t take_free(struct wshm_idx_writer *w)
{
	uint32_t tail;

	if (!w->free_tail)
		return w->n_tails < WSHM_IDX_TAILS ? w->n_tails++ : WSHM_NO_TAIL;
	tail = w->free_tail - 1;
	w->free_tail = w->links[tail].next;
	return tail;
}

static void store_head(struct wshm_idx_writer *w, uint32_t head)
{
	_Atomic uint64_t *heads = (_Atomic uint64_t *)(w->base + WSHM_IDX_OFF_HEADS);
	uint64_t changes = ++w->heads[head].changes;

	/* U3: pairs with U4 in walk() */
	ord_store_release(&heads[head], changes << 32 | w->heads[head].first);
}

uint32_t wshm_idx_tail_new(struct wshm_idx_writer *w, const struct wshm_key *parent,
			   const struct wshm_identity *id)
{
	uint32_t tail = take_free(w), head = idx_head(parent), version, first;
	struct wshm_idx_tail *s;

	if (tail == WSHM_NO_TAIL)
		return WSHM_NO_TAIL;
	first = w->heads[head].first;
	w->links[tail] = (struct idx_link){.next = first, .head = head};
	if (first)
		w->links[first - 1].prev = tail + 1;
	w->heads[head].first = tail + 1;

	version = idx_writer_version(w);
	s = tail_at(w, tail);
	ord_store(&s->version, version - 1);
	/* V1: pairs with V2 in read_words() */
	ord_store_release(&s->rows, 0u);
	ord_store_release(&s->parent[0], parent->lo);	   /* V1: pairs with V2 in read_words() */
	ord_store_release(&s->parent[1], parent->hi);	   /* V1: pairs with V2 in read_words() */
	ord_store_release(&s->adapter[0], id->adapter[0]); /* V1: pairs with V2 in read_words() */
	ord_store_release(&s->adapter[1], id->adapter[1]); /* V1: pairs with V2 in read_words() */
	ord_store_release(&s->unadapted, id->unadapted);   /* V1: pairs with V2 in read_words() */
	/* U3: pairs with U4 in walk() */
	ord_store_release(&s->next, first);
	/* V3: pairs with V4 in read_tail() */
	ord_store_release(&s->version, version);
	store_head(w, head);
	return tail;
}

static bool in_use(const struct wshm_idx_writer *w, uint32_t tail)
{
	return tail < w->n_tails && w->links[tail].head != IDX_FREE;
}

void wshm_idx_tail_set(struct wshm_idx_writer *w, uint32_t tail, const uint32_t *tokens,
		       uint32_t rows)
{
	struct wshm_idx_tail *s = tail_at(w, tail);

	if (!in_use(w, tail) || rows > WSHM_IDX_TAIL_ROWS || rows <= w->links[tail].rows)
		return;
	for (uint32_t i = w->links[tail].rows; i < rows; i++)
		ord_store_release(&s->tokens[i], tokens[i]); /* V1: pairs with V2 in read_words() */
	w->links[tail].rows = rows;
	/* U1: pairs with U2 in read_tail() */
	ord_store_release(&s->rows, rows);
}

void wshm_idx_tail_free(struct wshm_idx_writer *w, uint32_t tail)
{
	struct idx_link *l = &w->links[tail];
	struct wshm_idx_tail *s = tail_at(w, tail);
	uint32_t version, head;

	if (!in_use(w, tail))
		return;
	version = idx_writer_version(w);
	head = l->head;
	/* U3: pairs with U4 in walk() */
	if (l->prev)
		ord_store_release(&tail_at(w, l->prev - 1)->next, l->next);
	else
		w->heads[head].first = l->next;
	if (l->prev)
		w->links[l->prev - 1].next = l->next;
	if (l->next)
		w->links[l->next - 1].prev = l->prev;
	store_head(w, head);

	ord_store(&s->version, version - 1);
	/* V1: pairs with V2 in read_words() */
	ord_store_release(&s->rows, 0u);
	/* V3: pairs with V4 in read_tail() */
	ord_store_release(&s->version, version);
	*l = (struct idx_link){.next = w->free_tail, .head = IDX_FREE};
	w->free_tail = tail + 1;
}
