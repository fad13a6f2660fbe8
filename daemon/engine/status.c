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
};

struct status_report {
	struct engine_counters count;
	uint64_t now_ns, preemptions;
	uint32_t running, waiting, requests, suspects, sessions, blocks, blocks_free;
	uint64_t slab_bytes;
	bool draining;
	uint32_t n_tenants;
	struct tenant_report tenants[];
};

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
	r->blocks_free = e->blocks.n_free;
	r->draining = e->draining;
	for (const struct session *s = e->sessions; s; s = s->next) {
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
	return o;
}

static json_t *engine_json(const struct engine *e, const struct status_report *r)
{
	json_t *o = json_object(), *backend = json_object();
	char id[17];

	/* An identifier of 64 bits: as a JSON number it would lose its last digits in many readers. */
	snprintf(id, sizeof(id), "%016llx", (unsigned long long)e->instance_id);
	json_object_set_new(o, "name", json_string(e->opt.name));
	json_object_set_new(o, "model_type", json_string(e->config->model_type));
	json_object_set_new(o, "instance_id", json_string(id));
	put(o, "pid", (uint64_t)getpid());
	put(o, "uptime_ms", (r->now_ns - r->count.start_ns) / 1000000);
	json_object_set_new(o, "draining", json_boolean(r->draining));
	json_object_set_new(backend, "name", json_string(e->info.name));
	json_object_set_new(backend, "path", json_string(e->info.path));
	put(backend, "threads", e->info.n_threads);
	json_object_set_new(o, "backend", backend);
	put(o, "steps", r->count.steps);
	put(o, "rows", r->count.rows);
	put(o, "step_ms", r->count.step_ns / 1000000);
	put(o, "tokens_in", r->count.tokens_in);
	put(o, "tokens_out", r->count.tokens_out);
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
	put(o, "block_bytes", e->block_bytes);
	put(o, "weight_bytes", e->weight_bytes);
	put(o, "rss_bytes", rss_bytes());
	return o;
}

char *status_text(struct engine *e, struct status_report *r)
{
	json_t *o, *tenants;
	char *text;

	if (!r)
		return NULL;
	o = engine_json(e, r);
	tenants = json_array();
	for (uint32_t i = 0; i < r->n_tenants; i++)
		json_array_append_new(tenants, tenant_json(&r->tenants[i]));
	json_object_set_new(o, "tenants", tenants);
	text = json_dumps(o, JSON_COMPACT);
	/* More tenants than one message holds: the totals still go. */
	if (text && strlen(text) >= WCTL_STATUS_BYTES) {
		free(text);
		json_object_del(o, "tenants");
		text = json_dumps(o, JSON_COMPACT);
	}
	json_decref(o);
	free(r);
	return text;
}
