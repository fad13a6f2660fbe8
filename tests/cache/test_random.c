/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_random.c - sequences of four domains and four adapters begin, wait, grow, are preempted and
 * end, in a pool that is always too small, while prefixes are pinned, adapters unloaded and domains
 * emptied. Whatever is found must be right and must be all there is (world.h says by whose
 * standard), and every count must be what counting gives.
 */
#include "tests/cache/world.h"

enum { BLOCKS = 56, OPS = 500000, DOCS = 8, RUNNING = 7, DOC_TOKENS = 220, PINS = 3 };

static uint64_t seed = 88172645463325252u;

static uint32_t rnd(uint32_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)((seed >> 16) % n);
}

struct run {
	struct world w;
	struct seq *running[RUNNING];
	uint32_t docs[DOCS][DOC_TOKENS];
	struct cache_pin *pins[PINS];
	int pin_domain[PINS];
	uint64_t reused, computed, waits, preempted, squeezed, refused;
};

static void make_doc(uint32_t *doc, const uint32_t *from, uint32_t n)
{
	for (uint32_t i = 0; i < DOC_TOKENS; i++)
		doc[i] = i < n ? from[i] : rnd(3);
}

static struct seq *pick(struct run *r)
{
	return r->running[rnd(RUNNING)];
}

static void forget(struct run *r, struct seq *q)
{
	for (int i = 0; i < RUNNING; i++)
		if (r->running[i] == q)
			r->running[i] = NULL;
	if (q->adapter)
		cache_adapter_use(r->w.cache, q->adapter, false);
	seq_free(q);
}

static void check_wait(struct seq *q)
{
	const struct cache_chain *owner = q->waits_for;
	const struct seq *o = owner->owner;
	uint32_t end = (q->reused / B + 1) * B;

	if (owner == &q->chain || !owner->on || o->domain != q->domain || o->n < end ||
	    owner->n * B >= end || end > q->n - 1)
		world_wrong(&q->w[0], "there is nothing to wait for");
	else if (memcmp(o->tokens, q->tokens, end * sizeof(uint32_t)))
		world_wrong(&q->w[0], "somebody computes something else");
}

/* Match, and go on or not. False: it has left again. */
static bool start(struct run *r, struct seq *q)
{
	uint32_t reused = seq_match(q, q->n - 1);

	if (q->waits && EXACT_KEYS)
		check_wait(q);
	if (q->waits && rnd(2)) {
		r->waits++;
		seq_leave(q);
		return false;
	}
	r->reused += reused;
	if (rnd(4))
		seq_promise(q, rnd(2) ? q->n : reused + rnd(q->n - reused + 1));
	return true;
}

static uint32_t some_activation(uint32_t n)
{
	switch (rnd(5)) {
	case 0:
		return 0;
	case 1:
		return 32;
	case 2:
		return WSHM_NO_ACTIVATION;
	case 3:
		return 40 + rnd(3);
	default:
		return rnd(n + 1);
	}
}

static void begin(struct run *r)
{
	struct world *w = &r->w;
	struct cache_adapter *a = rnd(3) ? &w->adapters[rnd(MAX_ADAPTERS)] : NULL;
	const uint32_t *doc = r->docs[rnd(2) ? 0 : rnd(DOCS)];
	uint32_t n = 2 + rnd(DOC_TOKENS - 42), slot = 0;
	struct seq *q;

	while (slot < RUNNING && r->running[slot])
		slot++;
	if (slot == RUNNING)
		return;
	if (a && cache_adapter_enter(w->cache, a)) {
		r->refused++;
		return;
	}
	if (a)
		cache_adapter_use(w->cache, a, true);
	q = r->running[slot] =
		seq_new(w, rnd(2) ? 0 : (int)rnd(MAX_DOMAINS), a, some_activation(n));
	seq_append(q, doc, n);
	for (uint32_t more = rnd(40); more; more--) {
		uint32_t t = rnd(3);

		seq_append(q, &t, 1);
	}
	if (!start(r, q))
		forget(r, q);
}

static void preempt(struct run *r, struct seq *q)
{
	r->preempted++;
	seq_leave(q);
	if (!rnd(3) || !start(r, q))
		forget(r, q);
}

static void step(struct run *r, struct seq *q)
{
	uint32_t end;

	if (q->computed == q->n) {
		uint32_t t = rnd(3);

		if (q->n == SEQ_TOKENS) {
			forget(r, q);
			return;
		}
		seq_append(q, &t, 1);
	}
	end = q->computed + 1 + rnd(q->n - q->computed < 40 ? q->n - q->computed : 40);
	r->computed += end - q->computed;
	if (seq_compute(q, end))
		return;
	r->computed -= end - q->computed;
	q = pick(r);
	if (q)
		preempt(r, q);
}

static void end(struct run *r, struct seq *q)
{
	if (!rnd(3))
		make_doc(r->docs[rnd(DOCS)], q->tokens, q->n < DOC_TOKENS ? q->n : DOC_TOKENS);
	forget(r, q);
}

/* Every block that is said to be available can be had, and no more are freed than are needed. */
static void squeeze(struct run *r)
{
	struct block_pool *p = &r->w.pool;
	uint32_t had = p->n_free, n = blocks_available(p);
	struct cache_stats before, after;
	struct block_table t;

	if (!n)
		return;
	n = rnd(6) ? 1 + rnd(n < 9 ? n : 9) : n;
	cache_stats(r->w.cache, NULL, &before);
	block_table_init(&t, BLOCKS);
	if (!block_table_grow(&t, p, n))
		world_wrong(&r->w, "blocks are not to be had that are available");
	cache_stats(r->w.cache, NULL, &after);
	if (before.adapters_evicted == after.adapters_evicted &&
	    p->n_free != (n < had ? had - n : 0))
		world_wrong(&r->w, "more was evicted than was needed");
	r->squeezed += n > had;
	block_table_clear(&t, p);
	block_table_fini(&t);
}

static void pin(struct run *r)
{
	uint32_t i = rnd(PINS), n;
	int d = (int)rnd(MAX_DOMAINS);
	const uint32_t *doc = r->docs[rnd(DOCS)];
	struct seq *q;

	cache_pin_free(r->pins[i]);
	r->pins[i] = NULL;
	if (rnd(2))
		return;
	r->pin_domain[i] = d;
	r->pins[i] = cache_pin_new(r->w.domains[d]->d, doc, 48, &n);
	q = seq_new(&r->w, d, NULL, 0);
	seq_append(q, doc, 49);
	if (EXACT_KEYS && (d == r->w.public || r->w.public < 0) && naive_match(q, 48) / B != n / B)
		world_wrong(&r->w, "a pin does not hold all that is there");
	seq_free(q);
}

static void unload(struct run *r)
{
	struct cache_adapter *a = &r->w.adapters[rnd(MAX_ADAPTERS)];

	if (a->users)
		return;
	for (uint32_t most = 0; !cache_adapter_drop_some(r->w.cache, a, &most); most = rnd(5))
		world_check(&r->w);
	if (a->resident || a->dependents)
		world_wrong(&r->w, "an adapter that was unloaded is still there");
	a->digest[0] += 1000; /* what is loaded next is another one */
}

/* One tenant goes and another comes. */
static void renew(struct run *r)
{
	int d = (int)rnd(MAX_DOMAINS);
	bool public = d == r->w.public;

	for (int i = 0; i < RUNNING; i++)
		if (r->running[i] && r->running[i]->domain == d)
			forget(r, r->running[i]);
	world_domain_free(&r->w, d);
	world_domain_new(&r->w, d, (uint8_t)rnd(256));
	cache_domain_weight(r->w.domains[d]->d, 1 + rnd(4));
	if (public || (r->w.public < 0 && !rnd(2))) {
		r->w.public = d;
		cache_set_public(r->w.cache, r->w.domains[d]->d);
	} else if (!rnd(4)) {
		r->w.public = -1;
		cache_set_public(r->w.cache, NULL);
	}
	/* Pins of a domain that is gone hold nothing, and are still to be freed. */
}

/* Somebody has left a tenant. With keys of 8 bits it comes to collisions, which end an engine. */
static void renew_secret(struct run *r)
{
	if (EXACT_KEYS)
		world_domain_renew(&r->w, (int)rnd(MAX_DOMAINS), (uint8_t)rnd(256));
}

static void any(struct run *r)
{
	uint32_t what = rnd(1000);
	struct seq *q = pick(r);

	if (what < 200 || !q)
		begin(r);
	else if (what < 800)
		step(r, q);
	else if (what < 870)
		end(r, q);
	else if (what < 920)
		preempt(r, q);
	else if (what < 960)
		squeeze(r);
	else if (what < 980)
		pin(r);
	else if (what < 985)
		cache_drop(r->w.cache, rnd(2) ? NULL : r->w.domains[rnd(MAX_DOMAINS)]->d);
	else if (what < 997)
		unload(r);
	else if (what < 998)
		renew_secret(r);
	else
		renew(r);
}

int main(void)
{
	static struct run r;
	struct cache_stats s;
	uint32_t ops = getenv("WEFT_CACHE_OPS") ? (uint32_t)atoi(getenv("WEFT_CACHE_OPS")) : OPS;

	if (getenv("WEFT_SEED"))
		seed ^= strtoull(getenv("WEFT_SEED"), NULL, 0) * UINT64_C(0x9e3779b97f4a7c15);
	world_init(&r.w, BLOCKS, MAX_DOMAINS, NULL);
	r.w.public = MAX_DOMAINS - 1;
	cache_set_public(r.w.cache, r.w.domains[r.w.public]->d);
	for (int i = 0; i < DOCS; i++)
		make_doc(r.docs[i], NULL, 0);
	for (uint32_t i = 0; i < ops && !r.w.errors; i++) {
		any(&r);
		if (i % 8 == 0)
			world_check(&r.w);
		if (r.w.errors)
			diag("operation %u", i);
	}
	cache_stats(r.w.cache, NULL, &s);
	diag("%llu reused, %llu computed, %llu waited, %llu preempted, %llu squeezed, %llu refused",
	     (unsigned long long)r.reused, (unsigned long long)r.computed,
	     (unsigned long long)r.waits, (unsigned long long)r.preempted,
	     (unsigned long long)r.squeezed, (unsigned long long)r.refused);
	diag("%llu blocks and %llu rows hit, %llu inserted, %llu duplicates, %llu collisions, "
	     "%llu evicted, %llu adapters evicted",
	     (unsigned long long)s.hits_full, (unsigned long long)s.hits_rows,
	     (unsigned long long)s.inserted, (unsigned long long)s.duplicates,
	     (unsigned long long)s.collisions, (unsigned long long)s.evicted,
	     (unsigned long long)s.adapters_evicted);
	ok(r.reused > 1000 && r.preempted > 100 && r.squeezed > 100 && s.duplicates > 100 &&
		   s.adapters_evicted > 100 && r.waits > 10,
	   "%u operations, of all kinds", ops);
	ok(EXACT_KEYS ? !s.collisions : s.collisions > 100,
	   EXACT_KEYS ? "no collision" : "collisions without number");
	for (int i = 0; i < RUNNING; i++)
		if (r.running[i])
			forget(&r, r.running[i]);
	for (int i = 0; i < PINS; i++)
		cache_pin_free(r.pins[i]);
	world_fini(&r.w);
	return tap_done();
}
