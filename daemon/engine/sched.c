/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sched.c - see sched.h. Waiting sequences stand in one list per tenant; the running ones, at most
 * 64, in one array by age, and every choice among them is a walk over it.
 */
#include "daemon/engine/sched.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A row of weight 100 costs this much: room for weights of 1 to 1000 without rounding away. */
#define ROW_COST UINT64_C(1000000)

void sched_init(struct sched *s, const struct sched_options *opt, struct block_pool *pool)
{
	memset(s, 0, sizeof(*s));
	s->opt = *opt;
	s->pool = pool;
	if (s->opt.max_seqs > SCHED_MAX_SEQS)
		s->opt.max_seqs = SCHED_MAX_SEQS;
	/* Every running sequence must be able to decode in every pass. */
	if (s->opt.max_seqs > s->opt.max_rows)
		s->opt.max_seqs = s->opt.max_rows;
	if (!s->opt.chunk || s->opt.chunk > s->opt.max_rows)
		s->opt.chunk = s->opt.max_rows;
}

void sched_fini(struct sched *s)
{
	free(s->tenants);
	s->tenants = NULL;
	s->n_tenants = 0;
}

int sched_tenant_set(struct sched *s, uint32_t tenant, uint32_t weight)
{
	if (tenant >= s->n_tenants) {
		struct sched_tenant *t = reallocarray(s->tenants, tenant + 1, sizeof(*t));

		if (!t)
			return -ENOMEM;
		memset(&t[s->n_tenants], 0, (tenant + 1 - s->n_tenants) * sizeof(*t));
		s->tenants = t;
		s->n_tenants = tenant + 1;
	}
	s->tenants[tenant].known = true;
	s->tenants[tenant].weight = weight ? weight : 1;
	return 0;
}

/* --- who stands where ----------------------------------------------------------------------------*/

static bool before(const struct sched_seq *a, const struct sched_seq *b)
{
	if (a->priority != b->priority)
		return a->priority > b->priority;
	return a->order < b->order;
}

/* New ones mostly belong at the end, preempted ones near the front: look from the end. */
static void wait_insert(struct sched *s, struct sched_seq *q)
{
	struct sched_tenant *t = &s->tenants[q->tenant];
	struct sched_seq *after = t->last;

	while (after && before(q, after))
		after = after->prev;
	q->prev = after;
	q->next = after ? after->next : t->first;
	*(q->next ? &q->next->prev : &t->last) = q;
	*(after ? &after->next : &t->first) = q;
	q->state = SCHED_WAITING;
	q->refused_plan = 0;
	s->n_waiting++;
}

static void wait_remove(struct sched *s, struct sched_seq *q)
{
	struct sched_tenant *t = &s->tenants[q->tenant];

	*(q->prev ? &q->prev->next : &t->first) = q->next;
	*(q->next ? &q->next->prev : &t->last) = q->prev;
	q->prev = q->next = NULL;
	q->state = SCHED_OUT;
	s->n_waiting--;
}

static void run_insert(struct sched *s, struct sched_seq *q)
{
	uint32_t i = s->n_running++;

	assert(s->n_running <= SCHED_MAX_SEQS);
	for (; i > 0 && s->running[i - 1]->order > q->order; i--)
		s->running[i] = s->running[i - 1];
	s->running[i] = q;
	q->state = SCHED_RUNNING;
	s->tenants[q->tenant].n_blocks += q->table.n;
	s->tenants[q->tenant].n_running++;
}

static uint32_t run_index(const struct sched *s, const struct sched_seq *q)
{
	uint32_t i = 0;

	while (i < s->n_running && s->running[i]->order < q->order)
		i++;
	return i;
}

/* The table goes back, and with it what the sequence meant to others. */
static void let_go(struct sched *s, struct sched_seq *q)
{
	if (s->opt.leave)
		s->opt.leave(s->opt.arg, q);
	block_table_clear(&q->table, s->pool);
	q->computed = 0;
}

/* Leave the running ones and give back all blocks. */
static void run_remove(struct sched *s, struct sched_seq *q)
{
	uint32_t i = run_index(s, q);

	assert(i < s->n_running && s->running[i] == q);
	memmove(&s->running[i], &s->running[i + 1], (s->n_running - i - 1) * sizeof(q));
	s->n_running--;
	s->tenants[q->tenant].n_blocks -= q->table.n;
	s->tenants[q->tenant].n_running--;
	let_go(s, q);
	q->n_new = 0;
	q->priority = q->own_priority;
	q->state = SCHED_OUT;
}

/* A tenant that comes back starts level with the others. */
static void tenant_lift(struct sched *s, struct sched_tenant *t)
{
	uint64_t floor = UINT64_MAX;

	for (uint32_t i = 0; i < s->n_tenants; i++)
		if (s->tenants[i].n_seqs && s->tenants[i].counter < floor)
			floor = s->tenants[i].counter;
	if (floor == UINT64_MAX)
		floor = s->last_left;
	if (t->counter < floor)
		t->counter = floor;
}

void sched_add(struct sched *s, struct sched_seq *q)
{
	struct sched_tenant *t = &s->tenants[q->tenant];

	assert(q->state == SCHED_OUT && !q->table.n && q->target);
	if (!t->n_seqs)
		tenant_lift(s, t);
	t->n_seqs++;
	q->computed = 0;
	q->n_new = 0;
	q->own_priority = q->priority;
	wait_insert(s, q);
}

void sched_lend(struct sched_seq *q, int32_t priority)
{
	/* A waiting one stands in a list by its priority, and nobody waits for it. */
	if (q->state == SCHED_RUNNING && q->priority < priority)
		q->priority = priority;
}

void sched_remove(struct sched *s, struct sched_seq *q)
{
	struct sched_tenant *t = &s->tenants[q->tenant];

	if (q->state == SCHED_OUT)
		return;
	if (q->state == SCHED_WAITING)
		wait_remove(s, q);
	else
		run_remove(s, q);
	if (--t->n_seqs == 0)
		s->last_left = t->counter;
}

/* --- blocks --------------------------------------------------------------------------------------*/

/* Does a's tenant hold more for its weight than b's? */
static int compare_share(const struct sched *s, const struct sched_seq *a,
			 const struct sched_seq *b)
{
	const struct sched_tenant *ta = &s->tenants[a->tenant], *tb = &s->tenants[b->tenant];
	uint64_t x = (uint64_t)ta->n_blocks * tb->weight, y = (uint64_t)tb->n_blocks * ta->weight;

	return a->tenant == b->tenant ? 0 : (x > y) - (x < y);
}

/* The oldest, running[0], is spared. NULL when it is alone. */
static struct sched_seq *victim(const struct sched *s)
{
	struct sched_seq *worst = NULL;

	for (uint32_t i = 1; i < s->n_running; i++) {
		struct sched_seq *q = s->running[i];
		int c = worst ? compare_share(s, q, worst) : 1;

		if (c > 0 || (c == 0 && before(worst, q)))
			worst = q;
	}
	return worst;
}

/* Room for n positions, at the cost of others if need be; false: it cost the sequence itself. */
static bool grow(struct sched *s, struct sched_seq *q, uint32_t positions)
{
	uint32_t n = blocks_for(positions), had = q->table.n;

	while (!block_table_grow(&q->table, s->pool, n)) {
		struct sched_seq *v = victim(s);

		if (!v) /* alone, and the rest of the pool is pinned */
			v = q;
		run_remove(s, v);
		wait_insert(s, v);
		s->preemptions++;
		if (v == q)
			return false;
	}
	s->tenants[q->tenant].n_blocks += q->table.n - had;
	return true;
}

/* --- the plan ------------------------------------------------------------------------------------*/

static bool eligible(const struct sched *s, const struct sched_seq *q)
{
	return (!s->only || q->group == s->only) && q->target > q->computed && !q->blocked;
}

static void give_rows(struct sched *s, struct sched_seq *q, uint32_t rows, uint32_t *left)
{
	struct sched_tenant *t = &s->tenants[q->tenant];
	uint32_t end = q->computed + rows;

	q->n_new = rows;
	*left -= rows;
	if (end > q->charged) {
		t->counter += (end - q->charged) * (ROW_COST / t->weight);
		q->charged = end;
	}
}

static void plan_decodes(struct sched *s, uint32_t *left)
{
	uint32_t i = 0;

	while (i < s->n_running) {
		struct sched_seq *q = s->running[i];

		if (eligible(s, q) && q->target - q->computed == 1 && *left) {
			if (!grow(s, q, q->target)) {
				i = run_index(s, q);
				continue;
			}
			i = run_index(s, q);
			give_rows(s, q, 1, left);
		}
		i++;
	}
}

/* The first of the tenant that may start, if any. */
static struct sched_seq *wait_first(const struct sched *s, const struct sched_tenant *t)
{
	struct sched_seq *q = t->first;

	if (t->held_plan == s->plan_no && t->n_held >= SCHED_MAX_HELD)
		return NULL;
	while (q && (!eligible(s, q) || q->passed == s->plan_no))
		q = q->next;
	return q;
}

/* Does a go before b? Between tenants the counter decides, then age. */
static bool ahead(const struct sched *s, const struct sched_seq *a, const struct sched_seq *b)
{
	uint64_t ca, cb;

	if (!b)
		return true;
	ca = s->tenants[a->tenant].counter;
	cb = s->tenants[b->tenant].counter;
	if (a->tenant == b->tenant)
		return before(a, b);
	return ca != cb ? ca < cb : a->order < b->order;
}

static struct sched_seq *next_candidate(const struct sched *s, bool may_start)
{
	struct sched_seq *best = NULL;

	for (uint32_t i = 0; i < s->n_running; i++) {
		struct sched_seq *q = s->running[i];

		if (eligible(s, q) && !q->n_new && ahead(s, q, best))
			best = q;
	}
	for (uint32_t i = 0; may_start && i < s->n_tenants; i++) {
		struct sched_seq *q = wait_first(s, &s->tenants[i]);

		if (q && ahead(s, q, best))
			best = q;
	}
	return best;
}

/* A suspect computes alone: whoever else holds blocks or a place gives them up. */
static void evict_others(struct sched *s)
{
	for (uint32_t i = s->n_running; i-- > 0;) {
		struct sched_seq *q = s->running[i];

		if (q->group == s->only)
			continue;
		run_remove(s, q);
		wait_insert(s, q);
		s->preemptions++;
	}
}

/* What a sequence more would bring its tenant to, and what one less would leave the victim's. */
static bool poorer(const struct sched *s, const struct sched_seq *q, uint32_t need,
		   const struct sched_seq *v)
{
	const struct sched_tenant *tq = &s->tenants[q->tenant], *tv = &s->tenants[v->tenant];

	return (uint64_t)(tq->n_running + 1) * tv->weight <=
		       (uint64_t)(tv->n_running - 1) * tq->weight &&
	       (uint64_t)(tq->n_blocks + need) * tv->weight <=
		       (uint64_t)(tv->n_blocks - v->table.n) * tq->weight;
}

/* All places are taken, and none would be given up for it, however little it needs. */
static bool no_place(const struct sched *s, const struct sched_seq *q)
{
	if (s->n_running < s->opt.max_seqs)
		return false;
	for (uint32_t i = 1; i < s->n_running; i++)
		if (s->running[i]->tenant != q->tenant && poorer(s, q, 0, s->running[i]))
			return false;
	return true;
}

static void hold_back(struct sched *s, struct sched_seq *q)
{
	struct sched_tenant *t = &s->tenants[q->tenant];

	q->passed = s->plan_no;
	if (t->held_plan != s->plan_no)
		t->n_held = 0;
	t->held_plan = s->plan_no;
	t->n_held++;
}

/*
 * Make room for a sequence whose tenant has less than its share, from one that has more and will
 * still have no less than the other: so the two never take from each other in turns.
 */
static bool make_room(struct sched *s, const struct sched_seq *q, uint32_t need)
{
	while (s->n_running >= s->opt.max_seqs || need > blocks_available(s->pool)) {
		struct sched_seq *best = NULL;

		for (uint32_t i = 1; i < s->n_running; i++) {
			struct sched_seq *v = s->running[i];

			if (v->tenant == q->tenant || !poorer(s, q, need, v))
				continue;
			if (!best || compare_share(s, v, best) > 0 ||
			    (compare_share(s, v, best) == 0 && before(best, v)))
				best = v;
		}
		if (!best)
			return false;
		run_remove(s, best);
		wait_insert(s, best);
		s->preemptions++;
	}
	return true;
}

/*
 * Asking what a long prompt finds costs tens of microseconds. Who had no room is asked again when
 * something has become free; and every few plans, because it may find more by then, or its tenant's
 * share may have become the smaller one.
 */
#define ASK_AGAIN_PLANS 8u

static bool refused_lately(const struct sched *s, const struct sched_seq *q)
{
	return q->refused_plan && s->n_running && s->plan_no - q->refused_plan < ASK_AGAIN_PLANS &&
	       s->n_running >= q->refused_running &&
	       blocks_available(s->pool) <= q->refused_available;
}

/*
 * Start a waiting sequence: 1 started, 0 no room (nothing may start now), -1 held back. A little
 * room is left for those that run, so that a start is not followed by a preemption at once.
 */
static int start(struct sched *s, struct sched_seq *q)
{
	uint32_t more, spare, need;

	if (s->only)
		evict_others(s);
	if (no_place(s, q) || refused_lately(s, q))
		return 0;
	q->refused_running = s->n_running;
	q->refused_available = blocks_available(s->pool);
	more = s->opt.probe ? s->opt.probe(s->opt.arg, q) : 0;
	if (more == SCHED_HOLD) {
		let_go(s, q);
		hold_back(s, q);
		return -1;
	}
	spare = s->n_running;
	need = blocks_for(q->target) - q->table.n + more;
	if (spare > s->pool->n / 16)
		spare = s->pool->n / 16;
	if ((s->n_running >= s->opt.max_seqs || need + spare > blocks_available(s->pool)) &&
	    !make_room(s, q, need))
		goto no_room;
	if (s->opt.adopt ? !s->opt.adopt(s->opt.arg, q)
			 : !block_table_grow(&q->table, s->pool, blocks_for(q->target)))
		goto no_room;
	wait_remove(s, q);
	run_insert(s, q);
	return 1;
no_room:
	let_go(s, q);
	q->refused_plan = s->plan_no;
	if (!s->n_running)
		s->stuck = q;
	return 0;
}

static uint32_t min_u32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static void plan_chunks(struct sched *s, uint32_t *left, bool may_start)
{
	while (*left) {
		struct sched_seq *q = next_candidate(s, may_start);

		if (!q)
			return;
		if (q->state == SCHED_WAITING) {
			int rc = start(s, q);

			if (rc == 0)
				may_start = false;
			if (rc <= 0 || q->blocked)
				continue;
		}
		give_rows(s, q, min_u32(min_u32(q->target - q->computed, s->opt.chunk), *left),
			  left);
	}
}

static void make_plan(struct sched *s, struct sched_plan *ret, bool may_start)
{
	uint32_t left = s->opt.max_rows;

	s->plan_no++;
	s->stuck = NULL;
	ret->n = ret->n_rows = 0;
	for (uint32_t i = 0; i < s->n_running; i++)
		s->running[i]->n_new = 0;
	plan_decodes(s, &left);
	/* Those that decode wait for the whole pass: keep it short. */
	if (left < s->opt.max_rows && s->opt.max_mixed && left > s->opt.max_mixed)
		left = s->opt.max_mixed;
	plan_chunks(s, &left, may_start);
	for (uint32_t i = 0; i < s->n_running; i++) {
		if (!s->running[i]->n_new)
			continue;
		ret->seqs[ret->n++] = s->running[i];
		ret->n_rows += s->running[i]->n_new;
	}
}

void sched_make_plan(struct sched *s, struct sched_plan *ret)
{
	make_plan(s, ret, true);
}

void sched_plan_on(struct sched *s, struct sched_plan *ret)
{
	make_plan(s, ret, false);
}

/* The tenant's first, though it was held back in the last plan: it is asked again in each. */
static const struct sched_seq *first_waiting(const struct sched *s, const struct sched_tenant *t)
{
	const struct sched_seq *q = t->first;

	while (q && !eligible(s, q))
		q = q->next;
	return q;
}

/* Would a plan start one that waits? If whoever it asks first finds no room, it asks no other. */
static bool may_start_one(const struct sched *s)
{
	const struct sched_seq *first = NULL, *able = NULL;

	for (uint32_t i = 0; i < s->n_tenants; i++) {
		const struct sched_seq *q = first_waiting(s, &s->tenants[i]);

		if (!q)
			continue;
		if (ahead(s, q, first))
			first = q;
		if (!no_place(s, q) && !refused_lately(s, q))
			able = q;
	}
	return able && !refused_lately(s, first);
}

bool sched_goes_on(const struct sched *s)
{
	uint32_t need = 0;

	if (s->only || may_start_one(s))
		return false;
	for (uint32_t i = 0; i < s->n_running; i++) {
		const struct sched_seq *q = s->running[i];

		if (eligible(s, q) && q->target - q->computed == 1)
			need += blocks_for(q->target) - q->table.n;
	}
	return need <= blocks_available(s->pool);
}

void sched_commit(const struct sched_plan *plan)
{
	for (uint32_t i = 0; i < plan->n; i++) {
		if (!plan->seqs[i])
			continue;
		plan->seqs[i]->computed += plan->seqs[i]->n_new;
		plan->seqs[i]->n_new = 0;
	}
}

bool sched_has_work(const struct sched *s)
{
	return s->n_running || s->n_waiting;
}
