/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine_health.c - is the engine getting anywhere?
 *
 * While it loads, READY or progress must come within load_seconds. Afterwards the timer runs only
 * while the engine owes something: it says it is busy, a nudge is out, or a session waits to be
 * detached, or an answer about an adapter or the cache is due. Life is a completed step (the heartbeat page), or an answer. A step under way has its
 * own budget, stated by the engine before it starts. Silence leads to one nudge; no answer to that
 * leads to SIGKILL. An answer that is due has load_seconds from the last one on; meanwhile the
 * engine's control thread may be reading an adapter, so a nudge has that long, too, unless a step
 * has overrun its own budget.
 */
#include "daemon/supervisor/weftd.h"

#include <stdatomic.h>
#include <stdio.h>

/* A nudge is one tiny step, but on an overloaded machine even that takes its time, and killing an
 * engine for the machine's sake makes things worse: a third of step_seconds, and this at least. */
#define NUDGE_GRACE_NS (3 * NS_PER_SECOND)
/* The engine states its budgets itself; even a 512-row step of a huge model ends before this. */
#define BUDGET_MAX_NS (600 * NS_PER_SECOND)

static void on_health(struct loop_timer *t);

/*
 * A SIGKILL does not say whose it was. If the kernel has run out of memory meanwhile it was the
 * kernel's, and the requests that the engine was computing are suspects; a process that somebody
 * else kills is nobody's fault.
 */
uint64_t engine_oom_kills(void)
{
	FILE *f = fopen("/proc/vmstat", "re");
	unsigned long long n = 0;
	char line[128];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "oom_kill %llu", &n) == 1)
			break;
	if (f)
		fclose(f);
	return n;
}

static uint64_t default_budget_ns(const struct engine *e)
{
	return e->d->config.daemon.step_seconds * NS_PER_SECOND;
}

static uint64_t nudge_grace_ns(const struct engine *e)
{
	uint64_t third = default_budget_ns(e) / 3;

	return third > NUDGE_GRACE_NS ? third : NUDGE_GRACE_NS;
}

/* When the step under way must have ended; 0 between steps. */
static uint64_t step_deadline(const struct engine *e, uint64_t now)
{
	uint64_t start = atomic_load(&e->heartbeat->step_start_ns);
	uint64_t budget = atomic_load(&e->heartbeat->step_budget_ns);

	if (!start || start > now)
		return 0;
	if (!budget)
		budget = default_budget_ns(e);
	return start + (budget < BUDGET_MAX_NS ? budget : BUDGET_MAX_NS);
}

static uint64_t answer_deadline(const struct engine *e)
{
	return e->owed_ns + e->d->config.daemon.load_seconds * NS_PER_SECOND;
}

void engine_owes(struct engine *e)
{
	if (!e->n_owed++)
		e->owed_ns = loop_now_ns();
	engine_health_arm(e);
}

void engine_answered(struct engine *e)
{
	if (e->n_owed)
		e->n_owed--;
	e->owed_ns = loop_now_ns();
	engine_health_arm(e);
}

static bool owes(const struct engine *e)
{
	return e->busy || e->nudged || e->n_detaching;
}

/* The moment at which silence becomes suspicious, or, after a nudge, fatal. */
static uint64_t deadline(struct engine *e, uint64_t now)
{
	uint64_t steps = atomic_load(&e->heartbeat->steps), at, step;

	if (steps != e->steps_seen) {
		e->steps_seen = steps;
		e->alive_ns = now;
		e->nudged = false;
	}
	step = step_deadline(e, now);
	if (e->nudged)
		at = e->nudge_ns + nudge_grace_ns(e);
	else if (step)
		return step;
	else
		at = e->alive_ns + default_budget_ns(e);
	if (e->n_owed && !step && at < answer_deadline(e))
		at = answer_deadline(e);
	/* Nobody answers in the middle of a step that is within its time. */
	if (step > now && step > at)
		at = step;
	return at;
}

static uint64_t next_look(struct engine *e, uint64_t now)
{
	uint64_t at = owes(e) ? deadline(e, now) : UINT64_MAX;

	return e->n_owed && answer_deadline(e) < at ? answer_deadline(e) : at;
}

void engine_health_arm(struct engine *e)
{
	struct loop *l = &e->d->loop;
	uint64_t now = loop_now_ns();

	if (e->state == ENGINE_LOADING)
		loop_timer_set(l, &e->timer,
			       e->alive_ns + e->d->config.daemon.load_seconds * NS_PER_SECOND,
			       on_health);
	else if (e->state == ENGINE_READY && (owes(e) || e->n_owed))
		loop_timer_set(l, &e->timer, next_look(e, now), on_health);
	else if (e->state == ENGINE_READY)
		loop_timer_clear(l, &e->timer);
}

static void on_health(struct loop_timer *t)
{
	struct engine *e = container_of(t, struct engine, timer);
	uint64_t now = loop_now_ns();

	if (e->state == ENGINE_LOADING) {
		engine_kill(e, "no progress while loading");
		return;
	}
	if (e->state == ENGINE_READY && e->n_owed && now >= answer_deadline(e)) {
		engine_kill(e, "no answer about an adapter or the cache within load_seconds");
		return;
	}
	if (e->state != ENGINE_READY || (!owes(e) && !e->n_owed))
		return;
	if (!owes(e)) {
		engine_health_arm(e);
		return;
	}
	if (deadline(e, now) > now) {
		engine_health_arm(e);
	} else if (!owes(e)) {
		/* deadline() saw the step that a nudge had asked for */
	} else if (!e->nudged) {
		engine_nudge(e);
	} else {
		engine_kill(e, "no step completed within its time, and no answer to a nudge");
	}
}

void engine_nudge(struct engine *e)
{
	if (e->state != ENGINE_READY || e->nudged)
		return;
	e->nudged = true;
	e->nudge_ns = loop_now_ns();
	e->want_nudge = true;
	engine_health_arm(e);
	engine_flush(e);
}
