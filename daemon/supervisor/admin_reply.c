/* SPDX-License-Identifier: Apache-2.0 */
/* admin_reply.c - see admin_reply.h. Reads the daemon, changes nothing. */
#include "daemon/supervisor/admin_reply.h"

#include "daemon/supervisor/weftd.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Reasons quote what files hold, and may be cut within a character: JSON has no room for half of one. */
static json_t *text_json(const char *text)
{
	json_t *j = json_string(text);
	char *plain = j ? NULL : strdup(text);

	for (char *c = plain; c && *c; c++)
		if (*c & 0x80)
			*c = '?';
	if (plain)
		j = json_string(plain);
	free(plain);
	return j;
}

json_t *admin_reply_error(const char *text)
{
	return json_pack("{s:b, s:o}", "ok", 0, "error", text_json(text));
}

static json_int_t ms_since(uint64_t then_ns)
{
	return then_ns ? (json_int_t)((loop_now_ns() - then_ns) / NS_PER_MS) : 0;
}

static json_t *engine_json(const struct engine *e)
{
	json_t *own = e->status_text ? json_loads(e->status_text, 0, NULL) : NULL;
	uint32_t sessions = 0;

	for (const struct session *s = e->d->sessions; s; s = s->next)
		sessions += s->engine == e && s->state == SESSION_OPEN;
	return json_pack(
		"{s:s, s:s, s:s, s:i, s:i, s:i, s:o, s:b, s:I, s:I, s:I, s:i, s:o}", "model",
		e->conf.name, "path", e->conf.path, "state", engine_state_name(e->state), "pid",
		(int)e->pid, "starts", (int)e->starts, "restarts_without_step", (int)e->restarts,
		"last_failure", text_json(e->failure), "busy", (int)e->busy, "steps",
		e->heartbeat ? (json_int_t)atomic_load(&e->heartbeat->steps) : (json_int_t)0,
		"loaded_bytes", (json_int_t)e->done_bytes, "total_bytes",
		(json_int_t)e->total_bytes, "sessions", (int)sessions, "engine",
		own ? own : json_null());
}

static json_t *tenant_json(const struct tenant *t)
{
	return json_pack("{s:s, s:b, s:i, s:i, s:I, s:I, s:I, s:I, s:i}", "tenant", t->conf.name,
			 "configured", (int)t->configured, "sessions", (int)t->sessions,
			 "max_sessions", (int)t->conf.max_sessions, "max_region_bytes",
			 (json_int_t)t->conf.max_region_bytes, "max_in_flight",
			 (json_int_t)t->conf.quota.max_in_flight, "max_queued_tokens",
			 (json_int_t)t->conf.quota.max_queued_tokens, "max_rate",
			 (json_int_t)t->conf.quota.max_rate, "weight", (int)t->conf.quota.weight);
}

static json_t *daemon_json(const struct weftd *d)
{
	const struct weftd_counters *n = &d->counters;
	char id[24];

	snprintf(id, sizeof(id), "%016" PRIx64, d->daemon_id);
	return json_pack("{s:s, s:i, s:s, s:I, s:b, s:i, s:i, s:I, s:i, s:i, s:I, s:I, s:i, s:I, "
			 "s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
			 "version", WEFT_VERSION, "pid", (int)getpid(), "daemon_id", id,
			 "uptime_ms", ms_since(d->started_ns), "draining", (int)d->draining,
			 "sessions", (int)d->n_sessions, "connections_without_hello",
			 (int)d->n_pending, "region_bytes", (json_int_t)d->regions.bytes,
			 "regions_in_use", (int)d->regions.n_live, "regions_dead",
			 (int)d->regions.n_dead, "regions_reused", (json_int_t)d->regions.reused,
			 "regions_freed", (json_int_t)d->regions.freed, "adapters",
			 (int)d->registry.n, "adapters_skipped",
			 (json_int_t)json_array_size(d->registry.skipped), "adapter_file_bytes",
			 (json_int_t)d->registry.bytes, "sessions_opened", (json_int_t)n->sessions,
			 "refused", (json_int_t)n->refused, "dropped", (json_int_t)n->dropped,
			 "offences", (json_int_t)n->offences, "complaints",
			 (json_int_t)n->complaints, "engine_crashes",
			 (json_int_t)n->engine_crashes);
}

json_t *admin_reply_status(const struct weftd *d)
{
	json_t *engines = json_array(), *tenants = json_array(), *adapters = json_array();

	for (uint32_t i = 0; i < d->n_engines; i++)
		json_array_append_new(engines, engine_json(&d->engines[i]));
	for (uint32_t i = 0; i < d->tenants.n; i++)
		if (d->tenants.tenant[i].configured || d->tenants.tenant[i].sessions)
			json_array_append_new(tenants, tenant_json(&d->tenants.tenant[i]));
	for (const struct registry_entry *it = d->registry.first; it; it = it->next)
		json_array_append_new(adapters, admin_reply_adapter(it));
	return json_pack("{s:b, s:o, s:o, s:o, s:o}", "ok", 1, "daemon", daemon_json(d), "engines",
			 engines, "tenants", tenants, "adapters", adapters);
}

static json_t *session_json(const struct session *s)
{
	static const char *const links[] = {"waiting", "waiting", "attached", "leaving", "leaving"};

	return json_pack("{s:I, s:s, s:s, s:i, s:i, s:s, s:i, s:I, s:I, s:b}", "session",
			 (json_int_t)s->id, "model", s->engine->conf.name, "tenant",
			 s->d->tenants.tenant[s->tenant].conf.name, "uid", (int)s->uid, "pid",
			 (int)s->pid, "link", links[s->link], "slots",
			 (int)s->region->layout.params.slots, "region_bytes",
			 (json_int_t)s->region->bytes, "age_ms", ms_since(s->opened_ns), "gone",
			 (int)(s->state == SESSION_GONE));
}

/* null: what is not known before it is loaded, or copied. */
static json_t *known(bool is, json_int_t n)
{
	return is ? json_integer(n) : json_null();
}

json_t *admin_reply_adapter(const struct registry_entry *it)
{
	const struct wshm_instance *in = &it->instance;
	bool configured = registry_in_config(&it->d->config, it);
	json_t *invocation = json_array();
	char digest[36] = "";

	for (uint32_t i = 0; i < in->n_invocation; i++)
		json_array_append_new(invocation, json_integer(in->invocation[i]));
	if (it->served)
		snprintf(digest, sizeof(digest), "%016" PRIx64 "%016" PRIx64, in->digest[1],
			 in->digest[0]);
	return json_pack("{s:s, s:s, s:s, s:s, s:b, s:b, s:b, s:s, s:s, s:o, s:i, s:s, s:o, s:o, "
			 "s:o, s:o}",
			 "name", it->conf.name, "model", it->engine->conf.name, "state",
			 registry_state_name(it), "path", it->conf.path, "configured",
			 (int)it->configured, "survives_restart", (int)(configured || it->saved),
			 "being_replaced", (int)(it->successor != NULL), "digest", digest, "kind",
			 !it->served	 ? ""
			 : in->activated ? "alora"
					 : "lora",
			 "rank", known(it->served, in->rank), "activation_offset",
			 (int)it->conf.activation_offset, "on_missing_invocation",
			 config_on_missing_name(it->conf.on_missing), "invocation", invocation,
			 "file_bytes", known(it->weights_fd >= 0, (json_int_t)it->bytes),
			 "pool_bytes", known(it->served, (json_int_t)it->weight_bytes), "why",
			 text_json(it->why));
}

json_t *admin_reply_skipped(const json_t *entry, const char *why)
{
	json_t *j = json_pack("{s:n, s:n, s:s, s:n, s:b, s:b, s:b, s:s, s:s, s:n, s:n, s:n, s:[], "
			      "s:n, s:n, s:s}",
			      "name", "model", "state", "skipped", "path", "configured", 0,
			      "survives_restart", 1, "being_replaced", 0, "digest", "", "kind", "",
			      "rank", "activation_offset", "on_missing_invocation", "invocation",
			      "file_bytes", "pool_bytes", "why", why);

	json_object_update_existing(j, (json_t *)(uintptr_t)entry);
	return j;
}

json_t *admin_reply_sessions(const struct weftd *d)
{
	json_t *list = json_array();

	for (const struct session *s = d->sessions; s; s = s->next)
		if (s->engine && s->region)
			json_array_append_new(list, session_json(s));
	return json_pack("{s:b, s:o}", "ok", 1, "sessions", list);
}
