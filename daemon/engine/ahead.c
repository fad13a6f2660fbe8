/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ahead.c - a pass that is queued before the results of the one before it are known.
 *
 * A device that computes beside the host would stand still while the host reads what a pass gave,
 * tells clients and makes up the next. So the next one is queued while it computes, if all that this
 * one does is to go on with what runs. A row then names its token by the draw that makes it; how far
 * each sequence will have come is known without it.
 *
 * What needs the token itself waits for it: penalties. So do log-probabilities of prompt tokens, which
 * are taken from the pass just run, and whatever is more than going on: a sequence that could start
 * (as a request's other answers do once its prompt is computed), one that would have to give way, a
 * suspect, chores.
 *
 * A request that arrives behind a queued pass waits for one pass more. So a pass is queued late: when
 * the one that computes has no more left, going by the last one of as many rows, than the host takes
 * to make it up. Until then the core thread looks at its rings; who is found there starts as before.
 *
 * Not known is only whether a sequence ends. If it does, by its token, its client or its deadline,
 * its row in the pass that is queued is computed for nobody: the pass forgets whose it was. Blocks
 * and adapters may be given away at once, since a device does one thing after the other; who frees
 * what a queued pass reads asks for quiet first (step_quiet()). Owned by the core thread.
 */
#include "daemon/engine/engine.h"

/* A plan, a batch and a graph, with room to spare; where launches are sent one by one it takes longer. */
#define LEAD_NS UINT64_C(300000)

bool ahead_possible(const struct engine *e, const struct step *st)
{
	if (!e->info.queues && !e->opt.ahead)
		return false;
	if (st->n_given || e->n_suspects || e->opt.poison_free || chores_left(e))
		return false;
	for (uint32_t i = 0; i < st->n_draws; i++) {
		const struct sample *a = st->drawn_for[i];

		if (a && (a->seq.state == SCHED_OUT || sampling_needs_tokens(&a->req->desc)))
			return false;
	}
	return true;
}

bool ahead_early(const struct engine *e, const struct step *st, uint64_t now)
{
	uint64_t lead = 2 * st->made_ns > LEAD_NS ? 2 * st->made_ns : LEAD_NS;

	if (st->n_rows != e->last_rows || now + lead >= st->begun_ns + e->last_ns)
		return false;
	return ahead_possible(e, st) && !e->ops->query(e->be, st->ticket);
}

void ahead_advance(struct engine *e, struct step *st)
{
	if (st->advanced)
		return;
	st->advanced = true;
	sched_commit(&st->plan);
	for (uint32_t i = 0; i < st->n_draws; i++) {
		struct sample *a = st->drawn_for[i];

		if (!a)
			continue;
		a->pending = true;
		a->drawn_at = i;
		/* With its last token a sequence has nothing left to compute. */
		if (a->n_out + 1 < a->req->desc.max_tokens)
			a->seq.target++;
	}
}

uint32_t ahead_token(const struct sample *a, uint32_t position)
{
	if (a->pending && position == a->req->n_prompt + a->n_out)
		return WK_DRAWN | a->drawn_at;
	return request_token(a, position);
}

void ahead_forget_sample(struct engine *e, const struct sample *a)
{
	struct step *st = e->flying;

	for (uint32_t i = 0; st && i < st->plan.n; i++)
		if (st->plan.seqs[i] == &a->seq)
			st->plan.seqs[i] = NULL;
	for (uint32_t i = 0; st && i < st->n_draws; i++)
		if (st->drawn_for[i] == a)
			st->drawn_for[i] = NULL;
}

void ahead_forget_request(struct engine *e, const struct request *r)
{
	struct step *st = e->flying;
	uint32_t n_given = 0;

	if (!st)
		return;
	for (uint32_t i = 0; i < r->desc.n; i++)
		ahead_forget_sample(e, &r->samples[i]);
	for (uint32_t i = 0; i < st->n_touched; i++)
		if (st->touched[i] == r)
			st->touched[i] = NULL;
	for (uint32_t i = 0; i < st->n_given; i++)
		if (st->given[i].req != r)
			st->given[n_given++] = st->given[i];
	st->n_given = n_given;
}
