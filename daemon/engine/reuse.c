/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reuse.c - sequences and the prefix cache.
 *
 *   probe    match: full blocks by reference into the table, and a block to copy the rest from,
 *            which is held; or wait, while a sequence of the same domain computes the next block
 *   adopt    there is room: copy the rows, take blocks for the rest, promise what will be computed
 *   commit   a pass has been computed: what it filled can be found from now on
 *   leave    the table goes back: promises are withdrawn, what was filled stays
 *
 * The n answers of a request are no different from n requests with the same prompt: they enter the
 * scheduler once the prompt is computed, and find it.
 *
 * A request that wants nothing of the cache leaves no trace there and takes nothing; its own
 * answers share the prompt all the same, by reference to a sibling's table. Owned by the core
 * thread.
 */
#include "daemon/engine/engine.h"

#include <assert.h>
#include <string.h>

/*
 * Positions that a sequence may take over: the last known one is always computed, for its logits;
 * and so is everything whose log-probabilities are still asked for (entry i comes from row i - 1).
 */
static uint32_t shareable(const struct sample *a)
{
	const struct request *r = a->req;
	uint32_t most = a->seq.target - 1;

	if (r->lay.prompt_logprob_bytes && r->prompt_ready < r->n_client) {
		uint32_t before = r->prompt_ready ? r->prompt_ready - 1 : 0;

		if (before < most)
			most = before;
	}
	return most;
}

static void chain_tokens(const void *arg, uint32_t first, uint32_t n, uint32_t *ret)
{
	const struct sample *a = arg;
	uint32_t n_prompt = a->req->n_prompt, asked = 0;

	if (first < n_prompt) {
		asked = n < n_prompt - first ? n : n_prompt - first;
		memcpy(ret, a->req->prompt + first, asked * sizeof(*ret));
	}
	if (n > asked)
		memcpy(ret + asked, request_out(a) + (first + asked - n_prompt),
		       (n - asked) * sizeof(*ret));
}

void reuse_chain(struct engine *e, struct sample *a)
{
	const struct request *r = a->req;

	(void)e;
	a->chain.domain = r->tenant->domain->cache;
	a->chain.adapter = r->adapter ? &r->adapter->weights->node : NULL;
	a->chain.activation = r->activation;
	a->chain.tokens = chain_tokens;
	a->chain.arg = a;
	a->chain.owner = &a->seq;
}

/* --- without the cache ---------------------------------------------------------------------------*/

static uint32_t prompt_shareable(const struct sample *a)
{
	uint32_t most = shareable(a);

	return most < a->req->n_prompt ? most : a->req->n_prompt;
}

static struct sample *donor(const struct sample *a, bool *ret_soon)
{
	struct request *r = a->req;

	*ret_soon = false;
	for (uint32_t i = 0; i < r->desc.n; i++) {
		struct sample *b = &r->samples[i];

		if (b == a || b->seq.state != SCHED_RUNNING)
			continue;
		if (b->seq.computed >= prompt_shareable(a))
			return b;
		*ret_soon = true;
	}
	return NULL;
}

/* A chain counts as a user of its adapter; without one the sequence is counted itself. */
static void adapter_use(struct engine *e, struct sample *a, bool use)
{
	if (!a->req->adapter || a->uses_adapter == use)
		return;
	a->uses_adapter = use;
	cache_adapter_use(e->cache, &a->req->adapter->weights->node, use);
}

static uint32_t sibling_probe(struct engine *e, struct sample *a)
{
	uint32_t positions = prompt_shareable(a), full = positions / WK_BLOCK_TOKENS;
	bool soon;
	struct sample *b = positions ? donor(a, &soon) : NULL;

	if (!positions)
		return 0;
	if (!b)
		return soon ? SCHED_HOLD : 0;
	block_table_share(&a->seq.table, &e->blocks, &b->seq.table, full);
	a->tail_rows = positions % WK_BLOCK_TOKENS;
	if (a->tail_rows) {
		a->tail_block = b->seq.table.blocks[full];
		block_ref(&e->blocks, a->tail_block);
	}
	return 0;
}

/* The rows have been copied, or there is no room for a copy. */
static void tail_drop(struct engine *e, struct sample *a)
{
	if (a->tail_rows && a->req->desc.no_cache)
		block_put(&e->blocks, a->tail_block);
	else if (a->tail_rows)
		cache_copied(&a->chain);
	a->tail_rows = 0;
}

/* --- waiting --------------------------------------------------------------------------------------*/

/* Leading positions, of at most n, whose rows are the same in both. */
static uint32_t common(const struct sample *a, const struct sample *b, uint32_t n)
{
	const struct cache_chain *x = &a->chain, *y = &b->chain;
	uint32_t first = x->activation < y->activation ? x->activation : y->activation, same = 0;

	if ((x->adapter != y->adapter || x->activation != y->activation) && n > first)
		n = first;
	if (n > b->seq.target)
		n = b->seq.target;
	while (same < n && request_token(a, same) == request_token(b, same))
		same++;
	return same;
}

/* Is it still computing what this one waits for? */
static bool still_waits(const struct engine *e, struct sample *a)
{
	for (uint32_t i = 0; a->wait_until && i < e->sched.n_running; i++) {
		struct sched_seq *q = e->sched.running[i];

		if (q->order != a->wait_order)
			continue;
		sched_lend(q, a->seq.priority);
		return q->computed < a->wait_until;
	}
	return false;
}

/*
 * Someone of the same domain computes the next block: wait until all that is common is done, to the
 * last row, and make it worth waiting. It cannot be for ever: a running sequence gets on, or stops
 * running.
 */
static bool wait_for(struct sample *a, const struct cache_chain *other)
{
	struct sched_seq *q = other ? other->owner : NULL;

	a->wait_until = 0;
	if (!q || other->domain != a->chain.domain)
		return false;
	a->wait_order = q->order;
	a->wait_until = common(a, sample_of(q), shareable(a));
	sched_lend(q, a->seq.priority);
	return true;
}

/* --- the scheduler's questions --------------------------------------------------------------------*/

uint32_t reuse_probe(void *engine, struct sched_seq *q)
{
	struct engine *e = engine;
	struct sample *a = sample_of(q);
	const struct adapter_handle *h = a->req->adapter;
	struct cache_found found = {0};
	uint32_t more;

	if (a->req->desc.no_cache) {
		if (sibling_probe(e, a) == SCHED_HOLD)
			return SCHED_HOLD;
		adapter_use(e, a, true);
	} else {
		if (still_waits(e, a))
			return SCHED_HOLD;
		cache_match(&a->chain, &q->table, shareable(a), &found);
		if (wait_for(a, found.wait_for))
			return SCHED_HOLD;
		a->tail_rows = found.tail_rows;
		a->tail_block = found.tail_block;
	}
	more = h && !h->weights->node.resident ? h->weights->node.n_blocks : 0;
	/* Fifteen rows are not worth a start: what is held cannot be had. */
	if (a->tail_rows &&
	    blocks_for(q->target) - q->table.n + more > blocks_available(&e->blocks))
		tail_drop(e, a);
	return more;
}

bool reuse_adopt(void *engine, struct sched_seq *q)
{
	struct engine *e = engine;
	struct sample *a = sample_of(q);
	uint32_t full = q->table.n;

	if (a->req->adapter && !adapters_place(e, a->req->adapter->weights))
		return false;
	if (!block_table_grow(&q->table, &e->blocks, blocks_for(q->target)))
		return false;
	q->computed = full * WK_BLOCK_TOKENS;
	if (a->tail_rows) {
		e->ops->kv_copy_rows(e->be, e->pool_buf, a->tail_block, q->table.blocks[full],
				     a->tail_rows);
		q->computed += a->tail_rows;
		tail_drop(e, a);
	}
	assert(q->computed < q->target);
	/* Whoever computes pays. */
	if (q->charged < q->computed)
		q->charged = q->computed;
	if (!a->req->started)
		a->req->cached = q->computed;
	if (!a->req->desc.no_cache)
		cache_promise(&a->chain, &q->table, q->target);
	q->blocked = a->req->adapter && !adapters_ready(a->req->adapter->weights);
	return true;
}

void reuse_leave(void *engine, struct sched_seq *q)
{
	struct engine *e = engine;
	struct sample *a = sample_of(q);

	tail_drop(e, a);
	adapter_use(e, a, false);
	cache_leave(&a->chain);
	q->blocked = false;
}

void reuse_commit(struct engine *e, const struct sched_plan *plan)
{
	(void)e;
	for (uint32_t i = 0; i < plan->n; i++) {
		struct sample *a = plan->seqs[i] ? sample_of(plan->seqs[i]) : NULL;

		if (a && a->seq.state == SCHED_RUNNING && !a->req->desc.no_cache)
			cache_commit(&a->chain, &a->seq.table, a->seq.computed);
	}
}
