/* SPDX-License-Identifier: Apache-2.0 */
/*
 * status.c - the engine's numbers: collected by the core thread between two passes, turned into
 * JSON by the control thread. Numbers and names of tenants only; nothing of any request.
 */
#include "daemon/engine/engine.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct tenant_report {
	struct tenant t; /* a copy */
	uint64_t counter;
	uint32_t blocks;
	struct cache_stats cache; /* of its domain */
};

struct adapter_report {
	struct wshm_instance instance; /* a copy */
	uint32_t n_blocks, users;
	bool resident;
	struct meter_use use;
};

struct status_report {
	struct engine_counters count;
	uint64_t now_ns, preemptions;
	uint32_t running, waiting, requests, suspects, sessions, blocks, blocks_free, blocks_idle;
	uint32_t n_pins;
	uint64_t slab_bytes;
	struct cache_stats cache;
	struct own_times own;
	struct meter meter;
	bool draining;
	uint32_t n_adapters;
	struct adapter_report *adapters; /* owned */
	uint32_t n_tenants;
	struct tenant_report tenants[];
};

static void collect_adapters(struct engine *e, struct status_report *r)
{
	struct adapter_handle *all[WSHM_MAX_INSTANCES];
	uint32_t n = adapters_all(e, all, WSHM_MAX_INSTANCES);

	r->adapters = calloc(n + 1, sizeof(*r->adapters));
	for (uint32_t i = 0; r->adapters && i < n; i++)
		r->adapters[r->n_adapters++] = (struct adapter_report){
			.instance = all[i]->instance,
			.n_blocks = all[i]->weights->node.n_blocks,
			.users = all[i]->requests,
			.resident = all[i]->weights->node.resident,
			.use = all[i]->use,
		};
}

struct status_report *status_collect(struct engine *e)
{
	struct status_report *r;

	r = calloc(1, sizeof(*r) + e->n_tenants * sizeof(r->tenants[0]));
	if (!r)
		return NULL;
	r->count = e->count;
	r->now_ns = now_ns();
	r->preemptions = e->sched.preemptions;
	r->running = e->sched.n_running;
	r->waiting = e->sched.n_waiting;
	r->requests = e->n_requests;
	r->suspects = e->n_suspects;
	r->blocks = e->blocks.n;
	r->blocks_free = blocks_available(&e->blocks);
	r->blocks_idle = e->blocks.n_idle;
	for (const struct pin *p = e->pins; p; p = p->next)
		r->n_pins++;
	r->own = e->own;
	r->meter = e->meter;
	cache_stats(e->cache, NULL, &r->cache);
	collect_adapters(e, r);
	r->draining = e->draining;
	for (const struct session *s = e->sessions; s; s = s->next) {
		if (s->internal)
			continue;
		r->sessions++;
		r->slab_bytes += slab_used_bytes(&s->slabs);
	}
	for (uint32_t i = 0; i < e->n_tenants; i++) {
		if (!e->tenants[i])
			continue;
		r->tenants[r->n_tenants++] = (struct tenant_report){
			.t = *e->tenants[i],
			.counter = e->sched.tenants[i].counter,
			.blocks = e->sched.tenants[i].n_blocks,
		};
		if (e->tenants[i]->domain)
			cache_stats(e->cache, e->tenants[i]->domain->cache,
				    &r->tenants[r->n_tenants - 1].cache);
	}
	return r;
}

static uint64_t rss_bytes(void)
{
	FILE *f = fopen("/proc/self/statm", "re");
	unsigned long size = 0, rss = 0;

	if (!f)
		return 0;
	if (fscanf(f, "%lu %lu", &size, &rss) != 2)
		rss = 0;
	fclose(f);
	return (uint64_t)rss * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void put(json_t *o, const char *key, uint64_t value)
{
	json_object_set_new(o, key, json_integer((json_int_t)value));
}

/* An identifier of 64 bits: as a JSON number it would lose its last digits in many readers. */
static void put_id(json_t *o, const char *key, uint64_t value)
{
	char id[17];

	snprintf(id, sizeof(id), "%016llx", (unsigned long long)value);
	json_object_set_new(o, key, json_string(id));
}

static json_t *cache_json(const struct cache_stats *c)
{
	json_t *o = json_object();
	uint64_t asked = c->hits_full + c->misses;

	put(o, "nodes", c->nodes);
	put(o, "tails", c->tails);
	put(o, "blocks", c->blocks);
	put(o, "pinned", c->pinned);
	put(o, "hits", c->hits_full);
	put(o, "hit_rows", c->hits_rows);
	put(o, "misses", c->misses);
	json_object_set_new(o, "hit_rate",
			    json_real(asked ? (double)c->hits_full / (double)asked : 0));
	put(o, "waits", c->waits);
	put(o, "inserted", c->inserted);
	put(o, "duplicates", c->duplicates);
	put(o, "collisions", c->collisions);
	put(o, "evicted", c->evicted);
	return o;
}

static int compare_ns(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* The engine's own time per step, over the last thousand. */
static json_t *own_json(struct own_times *t)
{
	uint32_t n = t->n < OWN_TIMES ? (uint32_t)t->n : OWN_TIMES;
	json_t *o = json_object();

	qsort(t->ns, n, sizeof(t->ns[0]), compare_ns);
	put(o, "steps", n);
	put(o, "p50_ns", n ? t->ns[n / 2] : 0);
	put(o, "p99_ns", n ? t->ns[n * 99 / 100] : 0);
	return o;
}

static void put_use(json_t *o, const struct meter_use *u)
{
	put(o, "requests", u->requests);
	put(o, "tokens_in", u->tokens_in);
	put(o, "tokens_cached", u->tokens_cached);
	put(o, "tokens_out", u->tokens_out);
}

static json_t *adapters_json(const struct engine *e, const struct status_report *r)
{
	json_t *all = json_array();

	for (uint32_t i = 0; i < r->n_adapters; i++) {
		const struct adapter_report *a = &r->adapters[i];
		json_t *o = json_object();

		json_object_set_new(o, "name", json_string(a->instance.name));
		put_id(o, "instance", a->instance.digest[0]);
		json_object_set_new(o, "kind",
				    json_string(a->instance.activated ? "alora" : "lora"));
		put(o, "rank", a->instance.rank);
		put(o, "blocks", a->n_blocks);
		put(o, "bytes", a->n_blocks * e->block_bytes);
		json_object_set_new(o, "resident", json_boolean(a->resident));
		put(o, "in_use", a->users);
		put_use(o, &a->use);
		json_array_append_new(all, o);
	}
	return all;
}

static json_t *numbers(const uint64_t *from, uint32_t n, uint64_t unit)
{
	json_t *all = json_array();

	for (uint32_t i = 0; i < n; i++)
		json_array_append_new(all, json_integer((json_int_t)(from[i] / unit)));
	return all;
}

static json_t *times_json(const struct meter *m)
{
	json_t *o = json_object();
	char key[40];

	json_object_set_new(o, "bounds_us", numbers(meter_time_bounds, METER_TIME_BOUNDS, 1000));
	for (uint32_t i = 0; i < METER_N_TIMES; i++) {
		json_object_set_new(o, meter_time_names[i],
				    numbers(m->time[i].bucket, METER_TIME_BOUNDS + 1, 1));
		snprintf(key, sizeof(key), "%s_sum_us", meter_time_names[i]);
		put(o, key, m->time[i].sum_ns / 1000);
	}
	return o;
}

static json_t *sizes_json(const struct meter *m)
{
	json_t *o = json_object();
	char key[40];

	json_object_set_new(o, "bounds", numbers(meter_size_bounds, METER_SIZE_BOUNDS, 1));
	for (uint32_t i = 0; i < METER_N_SIZES; i++) {
		json_object_set_new(o, meter_size_names[i],
				    numbers(m->size[i].bucket, METER_SIZE_BOUNDS + 1, 1));
		snprintf(key, sizeof(key), "%s_sum", meter_size_names[i]);
		put(o, key, m->size[i].sum);
	}
	return o;
}

/* What became of requests and of their answers; what never happened is left out. */
static json_t *ends_json(const uint64_t *counts, uint32_t n, const char *(*name)(uint32_t))
{
	json_t *o = json_object();

	for (uint32_t i = 0; i < n; i++)
		if (counts[i])
			put(o, name(i), counts[i]);
	return o;
}

static void put_meter(json_t *o, const struct meter *m)
{
	json_t *base = json_object();

	put_use(base, &m->base);
	json_object_set_new(o, "base", base);
	json_object_set_new(o, "ended", ends_json(m->ended, WSHM_N_STATUS, wshm_status_name));
	json_object_set_new(o, "finished", ends_json(m->finished, WSHM_N_FINISH, wshm_finish_name));
	put(o, "left", m->left);
	json_object_set_new(o, "times", times_json(m));
	json_object_set_new(o, "sizes", sizes_json(m));
}

static json_t *tenant_json(const struct tenant_report *r)
{
	json_t *o = json_object();

	json_object_set_new(o, "name", json_string(r->t.name));
	put(o, "weight", r->t.quota.weight);
	put(o, "in_flight", r->t.in_flight);
	put(o, "queued_tokens", r->t.queued_tokens);
	put(o, "blocks", r->blocks);
	put(o, "served", r->counter);
	put(o, "requests", r->t.requests);
	put(o, "refused", r->t.refused);
	put(o, "tokens_in", r->t.tokens_in);
	put(o, "tokens_out", r->t.tokens_out);
	put(o, "tokens_cached", r->t.tokens_cached);
	json_object_set_new(o, "cache", cache_json(&r->cache));
	return o;
}

static json_t *engine_json(const struct engine *e, const struct status_report *r)
{
	json_t *o = json_object(), *backend = json_object();

	json_object_set_new(o, "name", json_string(e->opt.name));
	json_object_set_new(o, "model_type", json_string(e->config->model_type));
	put_id(o, "instance_id", e->instance_id);
	put(o, "pid", (uint64_t)getpid());
	put(o, "uptime_ms", (r->now_ns - r->count.start_ns) / 1000000);
	json_object_set_new(o, "draining", json_boolean(r->draining));
	json_object_set_new(backend, "name", json_string(e->info.name));
	json_object_set_new(backend, "path", json_string(e->info.path));
	put(backend, "threads", e->info.n_threads);
	json_object_set_new(o, "backend", backend);
	put(o, "steps", r->count.steps);
	put(o, "steps_ahead", r->count.steps_ahead);
	put(o, "rows", r->count.rows);
	put(o, "step_ms", r->count.step_ns / 1000000);
	put(o, "tokens_in", r->count.tokens_in);
	put(o, "tokens_out", r->count.tokens_out);
	put(o, "tokens_cached", r->count.tokens_cached);
	put(o, "requests", r->count.requests);
	put(o, "refused", r->count.refused);
	put(o, "recovered", r->count.recovered);
	put(o, "faults", r->count.faults);
	put(o, "offences", r->count.offences);
	put(o, "preemptions", r->preemptions);
	put(o, "in_flight", r->requests);
	put(o, "running", r->running);
	put(o, "queued", r->waiting);
	put(o, "suspects", r->suspects);
	put(o, "sessions", r->sessions);
	put(o, "slab_bytes", r->slab_bytes);
	put(o, "blocks", r->blocks);
	put(o, "blocks_free", r->blocks_free);
	put(o, "blocks_idle", r->blocks_idle);
	put(o, "block_bytes", e->block_bytes);
	put(o, "weight_bytes", e->weight_bytes);
	put(o, "rss_bytes", rss_bytes());
	put(o, "pins", r->n_pins);
	put(o, "adapters_placed", r->count.adapters_placed);
	put(o, "place_passes", r->count.place_passes);
	put(o, "place_most_bytes", r->count.place_most_bytes);
	put(o, "adapters_evicted", r->cache.adapters_evicted);
	json_object_set_new(o, "cache", cache_json(&r->cache));
	return o;
}

char *status_text(struct engine *e, struct status_report *r)
{
	json_t *o, *tenants;
	char *text;

	if (!r)
		return NULL;
	o = engine_json(e, r);
	json_object_set_new(o, "own_time", own_json(&r->own));
	put_meter(o, &r->meter);
	json_object_set_new(o, "adapters", adapters_json(e, r));
	tenants = json_array();
	for (uint32_t i = 0; i < r->n_tenants; i++)
		json_array_append_new(tenants, tenant_json(&r->tenants[i]));
	json_object_set_new(o, "tenants", tenants);
	text = json_dumps(o, JSON_COMPACT);
	/* More tenants, or adapters, than one message holds: the totals still go. */
	if (text && strlen(text) >= WCTL_STATUS_BYTES) {
		free(text);
		json_object_del(o, "tenants");
		text = json_dumps(o, JSON_COMPACT);
	}
	if (text && strlen(text) >= WCTL_STATUS_BYTES) {
		free(text);
		json_object_del(o, "adapters");
		text = json_dumps(o, JSON_COMPACT);
	}
	json_decref(o);
	free(r->adapters);
	free(r);
	return text;
}
