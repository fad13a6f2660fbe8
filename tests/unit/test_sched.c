/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_sched.c - the scheduler on plain data: budget, decodes first, priorities, fairness, and what
 * happens when blocks run out, and what is shared or waited for. A "model" here just adds a token when a plan reaches the target.
 */
#include "daemon/engine/sched.h"
#include "kernels/backend.h"
#include "tests/tap.h"

#define MAX 256

struct job {
	struct sched_seq q;
	uint32_t prompt, want, made, preempted;
	uint64_t started_at, done_at;
};

static struct sched s;
static struct block_pool pool;
static struct job jobs[MAX];
static uint32_t n_jobs;
static uint64_t now, rows[3]; /* passes; rows by tenant */

static void begin(uint32_t blocks, uint32_t max_rows, uint32_t seqs, uint32_t chunk)
{
	struct sched_options opt = {.max_rows = max_rows, .max_seqs = seqs, .chunk = chunk};

	block_pool_init(&pool, blocks);
	sched_init(&s, &opt, &pool);
	sched_tenant_set(&s, 0, 100);
	memset(jobs, 0, sizeof(jobs));
	n_jobs = 0;
	now = rows[0] = rows[1] = rows[2] = 0;
}

static void end(void)
{
	for (uint32_t i = 0; i < n_jobs; i++) {
		sched_remove(&s, &jobs[i].q);
		block_table_fini(&jobs[i].q.table);
	}
	is_int(pool.n_free, pool.n, "no block is lost");
	sched_fini(&s);
	block_pool_fini(&pool);
}

static struct job *add(uint32_t tenant, int32_t priority, uint32_t prompt, uint32_t want)
{
	struct job *j = &jobs[n_jobs++];

	j->prompt = prompt;
	j->want = want;
	j->q.tenant = tenant;
	j->q.priority = priority;
	j->q.order = n_jobs;
	j->q.group = n_jobs;
	j->q.target = prompt;
	block_table_init(&j->q.table, blocks_for(prompt + want));
	sched_add(&s, &j->q);
	return j;
}

static bool sane(const struct sched_plan *plan)
{
	uint32_t rows = 0;
	bool good = plan->n_rows <= s.opt.max_rows && plan->n <= s.opt.max_seqs;

	for (uint32_t i = 0; i < plan->n; i++) {
		const struct sched_seq *q = plan->seqs[i];

		rows += q->n_new;
		good = good && q->n_new && q->state == SCHED_RUNNING &&
		       q->computed + q->n_new <= q->target &&
		       blocks_for(q->computed + q->n_new) <= q->table.n &&
		       (i == 0 || plan->seqs[i - 1]->order < q->order);
	}
	return good && rows == plan->n_rows;
}

/* One pass; false when the plan broke a rule or nothing was planned. */
static bool pass(struct sched_plan *plan)
{
	sched_make_plan(&s, plan);
	if (!sane(plan) || !plan->n)
		return false;
	now++;
	for (uint32_t i = 0; i < plan->n; i++)
		rows[plan->seqs[i]->tenant] += plan->seqs[i]->n_new;
	for (uint32_t i = 0; i < plan->n; i++)
		if (!((struct job *)plan->seqs[i])->started_at)
			((struct job *)plan->seqs[i])->started_at = now;
	sched_commit(plan);
	for (uint32_t i = 0; i < plan->n; i++) {
		struct job *j = (struct job *)plan->seqs[i];

		if (j->q.computed != j->q.target)
			continue;
		if (++j->made == j->want) {
			j->done_at = now;
			sched_remove(&s, &j->q);
		} else {
			j->q.target++;
		}
	}
	return true;
}

static bool run_all(uint64_t limit)
{
	struct sched_plan plan;

	while (sched_has_work(&s) && limit--)
		if (!pass(&plan))
			return false;
	return !sched_has_work(&s);
}

static void test_budget(void)
{
	struct sched_plan plan;
	struct job *a, *b;

	begin(1000, 64, 64, 0);
	a = add(0, 0, 100, 4);
	pass(&plan);
	is_int(plan.n_rows, 64, "a long prompt takes the whole budget");
	b = add(0, 0, 40, 4);
	pass(&plan);
	ok(plan.n == 2 && a->q.computed == 100 && b->q.computed == 28,
	   "the rest of it comes first, the next one fills up");
	pass(&plan);
	ok(plan.n == 2 && plan.n_rows == 13 && a->q.computed == 101 && b->q.computed == 40,
	   "a decode goes with a chunk");
	ok(run_all(100) && a->made == 4 && b->made == 4, "both come to their end");
	end();

	begin(1000, 64, 64, 17);
	a = add(0, 0, 100, 1);
	pass(&plan);
	is_int(plan.n_rows, 17, "a chunk limit holds");
	ok(run_all(100) && now == 6, "100 rows in chunks of 17 take 6 passes");
	end();
}

static void test_decodes_first(void)
{
	struct sched_plan plan;
	bool every = true;

	begin(10000, 32, 64, 0);
	for (int i = 0; i < 20; i++)
		add(0, 0, 1, 1000);
	while (s.n_running < 20)
		pass(&plan);
	add(0, 100, 5000, 10);
	for (int i = 0; i < 50; i++) {
		uint32_t decodes = 0;

		pass(&plan);
		for (uint32_t k = 0; k < plan.n; k++)
			decodes += plan.seqs[k] != &jobs[20].q;
		every = every && decodes == 20;
	}
	ok(every, "every decode is in every pass, whatever the priority of a prompt");
	is_int(jobs[20].q.computed, 50 * 12, "the prompt gets the rest");
	end();
}

static void test_priority(void)
{
	struct job *low, *high, *first;

	begin(1000, 16, 1, 0);
	first = add(0, 0, 16, 8);
	low = add(0, -5, 16, 2);
	high = add(0, 5, 16, 2);
	ok(run_all(100), "three jobs, one at a time");
	ok(high->started_at < first->started_at && first->started_at < low->started_at,
	   "the higher priority starts first, the lower last");
	end();

	begin(1000, 16, 1, 0);
	sched_tenant_set(&s, 1, 100);
	add(0, 100, 160, 1);
	add(0, 100, 160, 1);
	low = add(1, -100, 16, 1);
	ok(run_all(100), "another tenant's priorities");
	ok(low->started_at < jobs[1].started_at, "do not matter");
	end();
}

/* Two tenants that always have more to do get rows in the ratio of their weights. */
static void test_fairness(void)
{
	struct sched_plan plan;

	begin(100000, 64, 64, 0);
	sched_tenant_set(&s, 0, 300);
	sched_tenant_set(&s, 1, 100);
	for (int i = 0; i < 100; i++) {
		add(0, 0, 500, 1);
		add(1, 0, 500, 1);
	}
	for (int i = 0; i < 600; i++)
		pass(&plan);
	ok(rows[0] > 2.9 * rows[1] && rows[0] < 3.1 * rows[1],
	   "weights 3 to 1 give rows 3 to 1 (%llu, %llu)", (unsigned long long)rows[0],
	   (unsigned long long)rows[1]);
	end();

	begin(100000, 64, 64, 0);
	sched_tenant_set(&s, 1, 100);
	for (int i = 0; i < 50; i++)
		add(0, 0, 500, 1);
	for (int i = 0; i < 200; i++)
		pass(&plan);
	for (int i = 0; i < 50; i++)
		add(1, 0, 500, 1);
	rows[0] = rows[1] = 0;
	for (int i = 0; i < 100; i++)
		pass(&plan);
	ok(rows[1] < 1.2 * rows[0] && rows[0] < 1.2 * rows[1],
	   "a tenant that was idle has saved nothing up (%llu, %llu)", (unsigned long long)rows[0],
	   (unsigned long long)rows[1]);
	end();
}

static void test_preemption(void)
{
	struct job *a, *b;
	struct sched_plan plan;

	/* Two that both want 10 blocks, of 12. */
	begin(12, 64, 64, 0);
	a = add(0, 0, 32, 128);
	b = add(0, 0, 32, 128);
	ok(run_all(2000), "two that do not fit together both end");
	ok(s.preemptions > 0 && a->made == 128 && b->made == 128 && a->done_at < b->done_at,
	   "the older first, the younger after having lost its blocks");
	end();

	begin(12, 64, 64, 0);
	a = add(0, 0, 32, 128);
	b = add(0, 9, 32, 128);
	ok(run_all(2000) && a->made == 128 && b->made == 128 && a->done_at < b->done_at,
	   "the oldest is spared, whatever the others' priority");
	end();

	begin(30, 64, 64, 0);
	sched_tenant_set(&s, 1, 100);
	add(0, 0, 100, 200);
	add(0, 0, 100, 200);
	a = add(0, 5, 100, 100);
	b = add(1, -5, 32, 100);
	for (int i = 0; i < 400 && !s.preemptions; i++)
		pass(&plan);
	ok(b->q.state == SCHED_RUNNING || b->done_at, "a tenant with few blocks keeps them");
	ok(run_all(5000), "and all end");
	end();

	begin(4, 64, 64, 0);
	a = add(0, 0, 40, 24);
	ok(run_all(100) && a->made == 24, "one that takes the whole pool runs in it");
	end();
}

/* A large request is not overtaken for ever by small ones that fit better. */
static void test_large_waits_not_for_ever(void)
{
	struct sched_plan plan;
	struct job *large;
	uint64_t small = 0;

	begin(20, 64, 8, 0);
	for (int i = 0; i < 5; i++)
		add(0, 0, 30, 20);
	for (int i = 0; i < 3; i++)
		pass(&plan);
	large = add(0, 0, 250, 20);
	while (!large->started_at && n_jobs < MAX - 1) {
		if (s.n_waiting < 4)
			add(0, 0, 30, 20);
		pass(&plan);
		small++;
	}
	ok(large->started_at, "a request of 17 of 20 blocks starts while small ones keep coming");
	ok(run_all(20000), "and all end");
	end();
}

/* A tenant that has taken every place, or every block, makes room for one that comes later. */
static void test_latecomer(void)
{
	struct sched_plan plan;
	struct job *late[3];
	uint64_t before;

	for (int scarce = 0; scarce < 2; scarce++) {
		begin(scarce ? 70 : 10000, 64, scarce ? 64 : 16, 0);
		sched_tenant_set(&s, 1, 100);
		for (int i = 0; i < 16; i++)
			add(0, 0, 64, 600);
		for (int i = 0; i < 40; i++)
			pass(&plan);
		for (int i = 0; i < 3; i++)
			late[i] = add(1, 0, 64, 10);
		before = now;
		while (!late[2]->done_at && now < before + 200)
			pass(&plan);
		ok(late[2]->done_at, "a latecomer's requests end in %u passes, with %s taken",
		   (uint32_t)(now - before), scarce ? "all blocks" : "all places");
		for (int i = 0; i < 100; i++)
			add(1, 0, 64, 600);
		before = s.preemptions;
		for (int i = 0; i < 100; i++)
			pass(&plan);
		ok(s.preemptions - before < 60, "and the two do not take from each other for ever");
		ok(s.tenants[0].n_running && s.tenants[1].n_running, "both go on");
		end();
	}
}

static void test_mixed(void)
{
	struct sched_plan plan;

	begin(10000, 512, 64, 0);
	s.opt.max_mixed = 100;
	add(0, 0, 1000, 50);
	pass(&plan);
	is_int(plan.n_rows, 512, "a pass that only fills is as long as may be");
	pass(&plan);
	add(0, 0, 1000, 50);
	pass(&plan);
	is_int(plan.n_rows, 101, "one that decodes too is short");
	end();
}

static void test_only(void)
{
	struct sched_plan plan;
	bool alone = true;
	struct job *b;

	begin(20, 64, 4, 0);
	for (int i = 0; i < 4; i++)
		add(0, 0, 60, 1000);
	for (int i = 0; i < 5; i++)
		pass(&plan);
	b = add(0, 0, 60, 5);
	s.only = b->q.group;
	for (int i = 0; i < 5 && alone; i++)
		alone = pass(&plan) && plan.n == 1 && plan.seqs[0] == &b->q;
	ok(alone && b->done_at, "a group that is to run alone does, though all was taken");
	s.only = 0;
	pass(&plan);
	ok(plan.n > 0, "and the others go on");
	end();
}

/*
 * Random loads: any plan is within its bounds, every pass gets something done, everybody ends, and
 * nobody is starved: the oldest of all is never passed over for long.
 */
static void test_random(void)
{
	uint32_t x = 4711, finished = 0;
	bool good = true;

	for (int round = 0; round < 60 && good; round++) {
		struct sched_plan plan;
		uint32_t blocks, left = 100;

		x = x * 1664525 + 1013904223;
		blocks = 8 + (x >> 16) % 60;
		begin(blocks, 1 + (x >> 8) % 128, 1 + (x >> 4) % 64, (x >> 20) % 40);
		sched_tenant_set(&s, 1, 50);
		sched_tenant_set(&s, 2, 700);
		for (uint64_t guard = 0; (left || sched_has_work(&s)) && good; guard++) {
			x = x * 1664525 + 1013904223;
			if (left && (x >> 30 || !sched_has_work(&s))) {
				uint32_t most = blocks * WK_BLOCK_TOKENS - 1;
				uint32_t prompt = 1 + (x >> 3) % (most / 2);
				uint32_t want = 1 + (x >> 9) % (most / 2);

				add((x >> 5) % 3, (int32_t)((x >> 11) % 5), prompt, want);
				left--;
			}
			if ((x & 0xff) == 7 && n_jobs) /* a cancel */
				sched_remove(&s, &jobs[(x >> 10) % n_jobs].q);
			if (sched_has_work(&s))
				good = pass(&plan) && guard < 2000000;
		}
		for (uint32_t i = 0; i < n_jobs; i++) {
			finished += jobs[i].done_at != 0;
			sched_remove(&s, &jobs[i].q);
			block_table_fini(&jobs[i].q.table);
		}
		good = good && pool.n_free == pool.n;
		sched_fini(&s);
		block_pool_fini(&pool);
	}
	ok(good, "60 random loads: every plan is sound, every pass does something, all end");
	ok(finished > 3000, "%u jobs came to their end", finished);
}

/* --- what a sequence finds of itself --------------------------------------------------------------*/

/* A pretended cache of one prefix: a job's `found` blocks by reference, `more` blocks beside. */
static struct {
	uint32_t found, more, block[8];
	uint32_t probes, adopts, leaves;
	const struct sched_seq *hold; /* held back while this one runs */
	bool refuse;
} fake;

static uint32_t fake_probe(void *arg, struct sched_seq *q)
{
	fake.probes++;
	if (fake.hold && fake.hold != q && fake.hold->state == SCHED_RUNNING) {
		sched_lend((struct sched_seq *)fake.hold, q->priority);
		return SCHED_HOLD;
	}
	for (uint32_t i = 0; i < fake.found; i++) {
		block_ref(&pool, fake.block[i]);
		q->table.blocks[q->table.n++] = fake.block[i];
	}
	return fake.more;
}

static bool fake_adopt(void *arg, struct sched_seq *q)
{
	fake.adopts++;
	if (fake.refuse)
		return false;
	q->computed = fake.found * WK_BLOCK_TOKENS;
	return block_table_grow(&q->table, &pool, blocks_for(q->target));
}

static void fake_leave(void *arg, struct sched_seq *q)
{
	fake.leaves++;
}

static void begin_fake(uint32_t blocks, uint32_t found)
{
	begin(blocks, 64, 8, 16);
	memset(&fake, 0, sizeof(fake));
	s.opt.probe = fake_probe;
	s.opt.adopt = fake_adopt;
	s.opt.leave = fake_leave;
	for (uint32_t i = 0; i < found; i++)
		fake.block[i] = block_get(&pool);
	fake.found = found;
}

static void end_fake(uint32_t found)
{
	for (uint32_t i = 0; i < found; i++)
		block_put(&pool, fake.block[i]);
	end();
}

static void test_found(void)
{
	struct sched_plan plan;
	struct job *j;

	begin_fake(8, 3);
	j = add(0, 0, 50, 2);
	ok(pass(&plan), "a sequence of which three blocks are there");
	is_int(rows[0], 2, "computes the rest alone");
	is_int(pool.n_free, 8 - 4, "and takes one block");
	ok(run_all(10) && j->done_at, "it ends");
	is_int(fake.leaves, 1, "and says that it leaves");
	end_fake(3);
}

static void test_hold(void)
{
	struct sched_plan plan;
	struct job *first, *second, *third;

	begin_fake(32, 0);
	first = add(0, 0, 80, 1);
	ok(pass(&plan) && first->q.state == SCHED_RUNNING, "the first runs");
	fake.hold = &first->q;
	second = add(0, 9, 40, 1);
	third = add(0, 5, 40, 1);
	pass(&plan);
	ok(second->q.state == SCHED_WAITING && third->q.state == SCHED_WAITING,
	   "those that wait for it do not start");
	is_int(first->q.priority, 9, "it has the highest of their priorities");
	is_int(second->q.table.n, 0, "they hold no block meanwhile");
	while (first->q.state == SCHED_RUNNING)
		pass(&plan);
	is_int(first->q.priority, 0, "which it gives back");
	ok(run_all(100) && second->done_at && third->done_at, "then they run");
	end_fake(0);
}

/* A crowd that waits for one, and somebody else's request behind it. */
static void test_crowd(void)
{
	struct sched_plan plan;
	struct job *first, *other;

	begin_fake(64, 0);
	sched_tenant_set(&s, 1, 100);
	first = add(0, 0, 160, 1);
	pass(&plan);
	fake.hold = &first->q;
	for (int i = 0; i < 200; i++)
		add(0, 0, 40, 1);
	fake.probes = 0;
	pass(&plan);
	is_int(fake.probes, SCHED_MAX_HELD, "a plan asks for a bounded number of those that wait");
	fake.probes = 0;
	other = add(1, 0, 40, 1);
	fake.hold = NULL;
	pass(&plan);
	ok(other->started_at, "another tenant starts beside them");
	ok(fake.probes <= 8, "with all places taken nobody is asked (%u)", fake.probes);
	fake.probes = 0;
	pass(&plan);
	is_int(fake.probes, 0, "nor later on");
	ok(run_all(1000), "all end");
	end_fake(0);
}

static void test_no_room(void)
{
	struct sched_plan plan;
	struct job *j;

	begin_fake(8, 0);
	fake.more = 5;
	j = add(0, 0, 64, 1);
	sched_make_plan(&s, &plan);
	ok(!plan.n && s.stuck == &j->q, "what can never fit beside an adapter is named as stuck");
	is_int(pool.n_free, 8, "and holds nothing");
	fake.more = 4;
	ok(pass(&plan) && !s.stuck, "with one block less to ask for it starts");
	sched_remove(&s, &j->q);
	fake.more = 0;
	fake.refuse = true;
	j = add(0, 0, 16, 1);
	sched_make_plan(&s, &plan);
	ok(!plan.n && j->q.state == SCHED_WAITING,
	   "nor does one start that finds no room after all");
	is_int(fake.leaves, 3, "each time it leaves");
	end_fake(0);
}

/* Who has no room is not asked in every plan what it finds; when there is room, it starts at once. */
static void test_asked_again(void)
{
	struct job *first, *second;
	struct sched_plan plan;
	uint32_t plans = 0;

	begin_fake(8, 0);
	first = add(0, 0, 80, 40);
	pass(&plan);
	second = add(0, 0, 64, 1);
	fake.probes = 0;
	for (uint32_t i = 0; i < 32; i++)
		pass(&plan);
	ok(fake.probes >= 4 && fake.probes <= 5, "asked %u times in 32 plans", fake.probes);
	ok(second->q.state == SCHED_WAITING && !second->q.table.n, "it waits, and holds nothing");
	for (; first->q.state == SCHED_RUNNING && plans < 100; plans++)
		pass(&plan);
	pass(&plan);
	ok(second->started_at && second->started_at <= first->done_at + 1,
	   "it starts in the plan after the other's end");
	ok(run_all(100) && second->done_at, "and ends");
	end_fake(0);
}

/* While nothing becomes free, the cache may come to have more of it. */
static void test_finds_more(void)
{
	struct job *first, *second;
	struct sched_plan plan;
	uint32_t plans = 0;

	begin_fake(12, 4);
	fake.found = 0;
	first = add(0, 0, 64, 32);
	pass(&plan);
	second = add(0, 0, 78, 1);
	pass(&plan);
	ok(second->q.state == SCHED_WAITING, "no room");
	fake.found = 4;
	for (; second->q.state == SCHED_WAITING && plans < 100; plans++)
		pass(&plan);
	ok(first->q.state == SCHED_RUNNING && plans <= 8,
	   "it starts beside the other after %u plans", plans);
	ok(run_all(100) && second->done_at, "and ends");
	end_fake(4);
}

/* The one that runs alone wants a block more than the pool has beside what is pinned. */
static void test_alone_and_pinned(void)
{
	uint32_t block[4];
	struct sched_plan plan;
	struct job *j;

	begin(8, 64, 8, 0);
	j = add(0, 0, 64, 40);
	ok(pass(&plan), "it runs");
	for (int i = 0; i < 4; i++)
		block[i] = block_get(&pool);
	sched_make_plan(&s, &plan);
	sched_make_plan(&s, &plan);
	ok(!plan.n && s.stuck == &j->q, "without a block to grow into it ends up stuck");
	for (int i = 0; i < 4; i++)
		block_put(&pool, block[i]);
	ok(run_all(100) && j->done_at, "and goes on when there is one");
	end();
}

/* --- only going on --------------------------------------------------------------------------------*/

static void test_goes_on(void)
{
	struct sched_plan plan;
	struct job *a, *b;
	uint32_t went = 0;

	begin(6, 64, 2, 0);
	sched_tenant_set(&s, 1, 100);
	a = add(0, 0, 30, 40);
	pass(&plan);
	ok(sched_goes_on(&s), "one that runs goes on");
	b = add(0, 0, 40, 8);
	ok(!sched_goes_on(&s), "another that could start is more than going on");
	sched_plan_on(&s, &plan);
	ok(plan.n == 1 && plan.seqs[0] == &a->q && b->q.state == SCHED_WAITING,
	   "is not started by such a plan all the same");
	sched_commit(&plan);
	a->q.target++;
	pass(&plan);
	add(0, 0, 8, 8);
	ok(sched_goes_on(&s), "all places are taken: nobody of the tenant's own could start");
	add(1, 0, 8, 8);
	ok(!sched_goes_on(&s), "but of a tenant that has less could");
	end();

	begin(6, 128, 2, 0);
	a = add(0, 0, 47, 40);
	b = add(0, 0, 48, 40);
	pass(&plan);
	ok(a->q.computed == 47 && b->q.computed == 48 && !pool.n_free,
	   "two run, and hold the pool between them");
	ok(!sched_goes_on(&s), "there is no block for one of them: somebody has to give way");
	b->q.blocked = true;
	ok(sched_goes_on(&s), "one that is blocked needs none");
	sched_plan_on(&s, &plan);
	ok(plan.n == 1 && plan.seqs[0] == &a->q, "and has no rows");
	plan.seqs[0] = NULL;
	sched_commit(&plan);
	is_int(a->q.computed, 47, "what has gone from a plan is not committed");
	b->q.blocked = false;
	s.only = a->q.group;
	ok(!sched_goes_on(&s), "nor with a suspect");
	s.only = 0;
	end();

	/* A pool of one: two tenants wait, and the one who is asked first has found no room. */
	begin(8, 64, 8, 0);
	sched_tenant_set(&s, 1, 100);
	sched_tenant_set(&s, 2, 100);
	add(0, 0, 90, 30);
	while (jobs[0].q.computed < 90)
		pass(&plan);
	add(1, 0, 120, 8);
	add(2, 0, 120, 8);
	for (uint32_t i = 0; i < 16; i++) {
		went += sched_goes_on(&s);
		pass(&plan);
	}
	ok(jobs[1].q.state == SCHED_WAITING && jobs[2].q.state == SCHED_WAITING && went >= 12,
	   "no room for either: they are not asked in each plan (%u of 16 go on)", went);
	end();
}

int main(void)
{
	test_found();
	test_hold();
	test_crowd();
	test_no_room();
	test_asked_again();
	test_finds_more();
	test_alone_and_pinned();
	test_goes_on();
	test_budget();
	test_decodes_first();
	test_priority();
	test_fairness();
	test_preemption();
	test_large_waits_not_for_ever();
	test_latecomer();
	test_mixed();
	test_only();
	test_random();
	return tap_done();
}
