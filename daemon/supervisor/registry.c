/* SPDX-License-Identifier: Apache-2.0 */
/* registry.c - see registry.h. Owned by weftd's only thread. */
#include "daemon/supervisor/registry.h"

#include "daemon/supervisor/admin_reply.h"
#include "daemon/supervisor/weftd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* An adapter that ended so many engines while they loaded it is not given to another one. */
#define MAX_CRASHES 2u
/* How often it is tried to unload an adapter that requests use. They run, so this is no idle work. */
#define RETRY_NS NS_PER_SECOND

static void start_copies(struct weftd *d);
static void gone(struct registry_entry *it);

const char *registry_state_name(const struct registry_entry *it)
{
	static const char *const names[] = {"copying", "waiting",   "waiting",	 "loading",
					    "loaded",  "unloading", "unloading", "failed"};

	return it->leaving && it->state == ENTRY_LOADED ? "leaving" : names[it->state];
}

struct registry_entry *registry_find(struct weftd *d, const struct engine *e, const char *name)
{
	for (struct registry_entry *it = d->registry.first; it; it = it->next)
		if (it->engine == e && !strcmp(it->conf.name, name))
			return it;
	return NULL;
}

/* --- administrators who wait ------------------------------------------------------------------------*/

static void answer(struct weftd *d, uint64_t *ticket, json_t *j)
{
	uint64_t t = *ticket;

	*ticket = 0;
	if (t)
		admin_answer(d, t, j);
	else
		json_decref(j);
}

static void answer_error(struct weftd *d, uint64_t *ticket, const char *text)
{
	if (*ticket)
		answer(d, ticket, admin_reply_error(text));
}

/* It is done; not_saved, 0 or -errno: but not written down. */
static void answer_done(struct registry_entry *it, uint64_t *ticket, int not_saved)
{
	char text[200];
	json_t *j;

	if (!*ticket)
		return;
	j = json_pack("{s:b, s:o}", "ok", 1, "adapter", admin_reply_adapter(it));
	snprintf(text, sizeof(text),
		 "adapters.json in the state directory could not be written (%s): a weftd that is "
		 "started again may not know of this",
		 strerror(-not_saved));
	if (not_saved)
		json_object_set_new(j, "warning", json_string(text));
	answer(it->d, ticket, j);
}

/* --- entries ----------------------------------------------------------------------------------------*/

/* What was copied is of no use. */
static void drop_copy(struct registry_entry *it)
{
	if (it->config_fd >= 0)
		close(it->config_fd);
	if (it->weights_fd >= 0)
		close(it->weights_fd);
	it->config_fd = it->weights_fd = -1;
	it->d->registry.bytes -= it->bytes;
	it->bytes = 0;
}

static void entry_free(struct registry_entry *it)
{
	struct registry *r;

	if (!it)
		return;
	r = &it->d->registry;
	copier_abandon(it);
	entry_free(it->successor);
	entry_free(it->former);
	answer_error(it->d, &it->load_ticket, "it was given up");
	answer_error(it->d, &it->unload_ticket, "it was given up");
	drop_copy(it);
	r->n--;
	free(it);
}

static struct registry_entry *entry_new(struct weftd *d, const struct registry_load *how)
{
	struct registry_entry *it = calloc(1, sizeof(*it));

	if (!it)
		return NULL;
	*it = (struct registry_entry){
		.d = d,
		.engine = how->engine,
		.conf = how->conf,
		.configured = how->configured,
		.early = how->early,
		.by_hand = !how->configured,
		.kept = how->kept,
		.saved = how->kept,
		.load_id = ++d->registry.load_id,
		.config_fd = -1,
		.weights_fd = -1,
		.load_ticket = how->ticket,
	};
	d->registry.n++;
	return it;
}

/* Where the list points to this entry. */
static struct registry_entry **place_of(struct registry_entry *it)
{
	struct registry_entry **at = &it->d->registry.first;

	while (*at != it)
		at = &(*at)->next;
	return at;
}

static void append(struct registry_entry *it)
{
	struct registry_entry **at = &it->d->registry.first;

	while (*at)
		at = &(*at)->next;
	*at = it;
}

static void take_out(struct registry_entry *it)
{
	*place_of(it) = it->next;
	it->next = NULL;
}

static void put_in_place_of(struct registry_entry *it, struct registry_entry *old)
{
	*place_of(old) = it;
	it->next = old->next;
	old->next = NULL;
}

static void note(struct registry_entry *it, enum log_level level, const char *event)
{
	log_line(level, "model=%s adapter=%s event=%s%s%s%s", it->engine->conf.name, it->conf.name,
		 event, *it->why ? " why=\"" : "", it->why, *it->why ? "\"" : "");
}

/* --- transitions ------------------------------------------------------------------------------------*/

static void on_retry_timer(struct loop_timer *t)
{
	struct registry *r = container_of(t, struct registry, retry_timer);
	struct weftd *d = container_of(r, struct weftd, registry);

	for (struct registry_entry *it = r->first; it; it = it->next)
		if (it->leaving && it->state == ENTRY_LOADED)
			it->state = ENTRY_UNLOAD;
	for (uint32_t i = 0; i < d->n_engines; i++)
		engine_flush(&d->engines[i]);
}

/*
 * Let it go: at once if no engine has it and no request can name it, else by asking the engine. An
 * engine that is started again may have to continue requests with it, so it is loaded there first.
 */
static void leave(struct registry_entry *it, bool force, bool patient)
{
	bool needed = it->served && !force && it->engine->state != ENGINE_FAILED;

	it->leaving = true;
	it->force = force;
	it->patient |= patient;
	switch (it->state) {
	case ENTRY_LOADED:
		it->state = ENTRY_UNLOAD;
		engine_flush(it->engine);
		break;
	case ENTRY_LOAD:
		if (!needed)
			gone(it);
		break;
	case ENTRY_COPYING:
	case ENTRY_HELD:
	case ENTRY_FAILED:
		gone(it);
		break;
	default:; /* the engine owes an answer: then */
	}
}

/* It is not to leave after all. */
static void stay(struct registry_entry *it)
{
	it->leaving = it->force = it->patient = false;
}

/* It takes the place of the one that has left, which is kept in case this one does not load. */
static void succeed(struct registry_entry *old)
{
	struct registry_entry *it = old->successor;

	put_in_place_of(it, old);
	old->successor = NULL;
	it->predecessor = NULL;
	it->former = old;
	it->state = ENTRY_LOAD;
	engine_flush(it->engine);
}

/* No engine has it any more. Frees it, unless it may have to come back. */
static void gone(struct registry_entry *it)
{
	bool replaced = it->successor && it->successor->state == ENTRY_HELD;
	int not_saved = 0;

	note(it, LOG_LEVEL_NOTICE, "adapter-unloaded");
	/* Before it is answered: who was told so will not find it in the next weftd, nor another of its name
	 * that the configuration's stood before. */
	if (!replaced) {
		take_out(it);
		it->saved = false;
		not_saved = registry_file_save(it->d);
	}
	answer_error(it->d, &it->load_ticket, "it was unloaded before it was loaded");
	answer_done(it, &it->unload_ticket, it->by_hand ? not_saved : 0);
	stay(it);
	if (replaced)
		succeed(it);
	else
		entry_free(it);
}

/* The new one will not come: the old one serves on. */
static void fail_successor(struct registry_entry *it)
{
	struct registry_entry *old = it->predecessor;

	old->successor = NULL;
	stay(old);
	if (it->configured)
		snprintf(old->why, sizeof(old->why), "its new version: %.200s", it->why);
	entry_free(it);
}

/* The old one has left already: it is loaded again. */
static void restore_former(struct registry_entry *it)
{
	struct registry_entry *old = it->former;

	it->former = NULL;
	put_in_place_of(old, it);
	snprintf(old->why, sizeof(old->why), "its new version: %.200s", it->why);
	/* One that had failed itself has no copy, or none that an engine would be given. */
	old->state = old->weights_fd < 0 || old->crashes >= MAX_CRASHES ? ENTRY_FAILED : ENTRY_LOAD;
	stay(old);
	note(old, LOG_LEVEL_NOTICE, "adapter-restored");
	entry_free(it);
	engine_flush(old->engine);
}

/* It has never served, so there is nothing for its successor to wait for. */
static void give_way(struct registry_entry *it)
{
	struct registry_entry *next = it->successor;

	put_in_place_of(next, it);
	it->successor = NULL;
	next->predecessor = NULL;
	if (next->state == ENTRY_HELD)
		next->state = ENTRY_LOAD;
	entry_free(it);
	engine_flush(next->engine);
}

static void fail(struct registry_entry *it, const char *why)
{
	char text[WCTL_TEXT_BYTES + 80];

	if (it->state == ENTRY_COPYING)
		drop_copy(it);
	snprintf(it->why, sizeof(it->why), "%s", why);
	snprintf(text, sizeof(text), "adapter %s: %s", it->conf.name, why);
	note(it, LOG_LEVEL_ERROR, "adapter-failed");
	answer_error(it->d, &it->load_ticket, text);
	if (it->predecessor) {
		fail_successor(it);
	} else if (it->former) {
		restore_former(it);
	} else if (it->leaving) {
		it->state = ENTRY_FAILED;
		gone(it);
	} else if (it->configured || it->served || it->kept) {
		it->state = ENTRY_FAILED;
	} else if (it->successor) {
		give_way(it);
	} else {
		take_out(it);
		entry_free(it);
	}
}

/* --- copies -----------------------------------------------------------------------------------------*/

static struct registry_entry *next_to_copy(struct weftd *d)
{
	for (struct registry_entry *it = d->registry.first; it; it = it->next) {
		if (it->state == ENTRY_COPYING)
			return it;
		if (it->successor && it->successor->state == ENTRY_COPYING)
			return it->successor;
	}
	return NULL;
}

/* One at a time: so the limit of all bytes holds while they come. */
static void start_copies(struct weftd *d)
{
	const struct config_daemon *c = &d->config.daemon;
	struct registry_entry *it;

	while (!d->registry.running && (it = next_to_copy(d))) {
		struct weft_err err = {0};
		uint64_t room = c->max_adapters_bytes > d->registry.bytes
					? c->max_adapters_bytes - d->registry.bytes
					: 0;

		if (room > c->max_adapter_bytes)
			room = c->max_adapter_bytes;
		if (copier_start(it, room, &err)) {
			struct engine *e = it->engine;

			fail(it, err.message);
			engine_flush(e); /* sessions may have waited for this copy */
		}
	}
}

void registry_copied(struct registry_entry *it, const char *why)
{
	struct weftd *d = it->d;
	struct engine *e = it->engine;

	d->registry.bytes += it->bytes;
	if (why) {
		fail(it, why);
	} else if (it->predecessor) {
		it->state = ENTRY_HELD;
		leave(it->predecessor, it->force, it->patient);
	} else {
		it->state = ENTRY_LOAD;
	}
	start_copies(d);
	engine_flush(e);
}

bool registry_settled(const struct engine *e)
{
	for (const struct registry_entry *it = e->d->registry.first; it; it = it->next)
		if (it->engine == e && it->early && it->state == ENTRY_COPYING)
			return false;
	return true;
}

/* --- what others ask for ----------------------------------------------------------------------------*/

static int check_load(struct weftd *d, const struct registry_load *how,
		      const struct registry_entry *old, struct weft_err *err)
{
	if (!old && d->registry.n >= d->config.daemon.max_adapters)
		return err_set(err, -ENOSPC,
			       "there are %u adapters: max_adapters (weftd.conf) allows no more",
			       d->registry.n);
	if (how->engine->state == ENGINE_FAILED)
		return err_set(err, -EIO, "model %s cannot be served: %.160s",
			       how->engine->conf.name, how->engine->failure);
	if (old && !how->replace)
		return err_set(err, -EEXIST,
			       "adapter %s is there already (%s): unload it first, or replace it",
			       how->conf.name, registry_state_name(old));
	if (old && (old->successor || old->leaving || old->former))
		return err_set(err, -EBUSY, "adapter %s is being replaced or unloaded already",
			       how->conf.name);
	return 0;
}

int registry_load(struct weftd *d, const struct registry_load *how, struct weft_err *err)
{
	struct registry_entry *old = registry_find(d, how->engine, how->conf.name), *it;
	int rc = check_load(d, how, old, err);

	if (rc)
		return rc;
	it = entry_new(d, how);
	if (!it)
		return err_set(err, -ENOMEM, "out of memory");
	it->force = how->force;
	it->patient = how->patient;
	if (old) {
		it->predecessor = old;
		old->successor = it;
	} else {
		append(it);
	}
	start_copies(d);
	return 0;
}

int registry_unload(struct registry_entry *it, bool force, uint64_t ticket, struct weft_err *err)
{
	struct weftd *d = it->d;

	if (it->successor || it->former)
		return err_set(err, -EBUSY, "adapter %s is being replaced", it->conf.name);
	if (it->unload_ticket)
		return err_set(err, -EBUSY, "adapter %s is being unloaded already", it->conf.name);
	it->unload_ticket = ticket;
	leave(it, force, false); /* it may be gone now, and its copy given up */
	start_copies(d);
	return 0;
}

void registry_fini(struct weftd *d)
{
	loop_timer_clear(&d->loop, &d->registry.retry_timer);
	/* There may be room on the disk by now. */
	if (d->registry.unsaved)
		registry_file_save(d);
	while (d->registry.first) {
		struct registry_entry *it = d->registry.first;

		take_out(it);
		entry_free(it);
	}
	json_decref(d->registry.skipped);
	d->registry.skipped = NULL;
	copiers_fini(d);
}

/* --- the engine -------------------------------------------------------------------------------------*/

static int send_load(struct registry_entry *it)
{
	struct wlink_adapter m = {
		.load_id = it->load_id,
		.offset = it->conf.activation_offset,
		.on_missing = it->conf.on_missing,
	};
	const int fds[2] = {it->config_fd, it->weights_fd};

	wctl_head_init(&m.head, WLINK_ADAPTER_LOAD, sizeof(m), 0);
	memcpy(m.name, it->conf.name, sizeof(m.name));
	return wctl_send(it->engine->link, &m, sizeof(m), fds, 2);
}

static int send_unload(struct registry_entry *it)
{
	struct wlink_unload m = {.load_id = it->load_id, .force = it->force};

	wctl_head_init(&m.head, WLINK_ADAPTER_UNLOAD, sizeof(m), 0);
	it->asked_by_force = it->force;
	return wctl_send(it->engine->link, &m, sizeof(m), NULL, 0);
}

int registry_send(struct engine *e)
{
	int err = 0;

	for (struct registry_entry *it = e->d->registry.first; it && !err; it = it->next) {
		if (it->engine != e || (it->state != ENTRY_LOAD && it->state != ENTRY_UNLOAD))
			continue;
		err = it->state == ENTRY_LOAD ? send_load(it) : send_unload(it);
		if (err)
			break;
		it->state = it->state == ENTRY_LOAD ? ENTRY_LOADING : ENTRY_UNLOADING;
		engine_owes(e);
	}
	return err;
}

static struct registry_entry *by_id(struct engine *e, uint64_t load_id, enum entry_state state)
{
	for (struct registry_entry *it = e->d->registry.first; it; it = it->next)
		if (it->engine == e && it->load_id == load_id && it->state == state)
			return it;
	return NULL;
}

int registry_on_loaded(struct engine *e, const struct wlink_adapter_reply *m)
{
	struct registry_entry *it = by_id(e, m->load_id, ENTRY_LOADING);
	int not_saved = 0;
	bool write;

	if (!it || m->head.code > 0 || m->instance.n_invocation > WSHM_MAX_INVOCATION)
		return -EPROTO;
	engine_answered(e);
	it->crashes = 0;
	if (m->head.code) {
		fail(it, *m->text ? m->text : strerror(-m->head.code));
		start_copies(e->d); /* its successor's may have been given up with it */
		return 0;
	}
	write = (it->by_hand && !it->served && !it->kept) || (it->former && it->former->by_hand);
	it->instance = m->instance;
	it->weight_bytes = m->weight_bytes;
	it->state = ENTRY_LOADED;
	it->served = true;
	entry_free(it->former);
	it->former = NULL;
	note(it, LOG_LEVEL_NOTICE, "adapter-loaded");
	if (write)
		not_saved = registry_file_save(e->d);
	answer_done(it, &it->load_ticket, not_saved);
	if (it->leaving)
		leave(it, it->force, it->patient);
	return 0;
}

/* It is in use, or the engine does not want to for another reason. */
static void unload_refused(struct registry_entry *it, const struct wlink_adapter_reply *m)
{
	char text[WCTL_TEXT_BYTES + 120];

	if (m->head.code == -EBUSY)
		snprintf(text, sizeof(text),
			 "adapter %s is in use by %u requests: wait for them, or end them by force",
			 it->conf.name, m->in_use);
	else
		snprintf(text, sizeof(text), "adapter %s cannot be unloaded: %s", it->conf.name,
			 *m->text ? m->text : strerror(-m->head.code));
	it->state = ENTRY_LOADED;
	if (m->head.code == -EBUSY && it->force && !it->asked_by_force) {
		/* Force was asked for while the engine was answering. */
		it->state = ENTRY_UNLOAD;
		engine_flush(it->engine);
		return;
	}
	if (it->unload_ticket)
		answer(it->d, &it->unload_ticket,
		       json_pack("{s:b, s:s, s:i}", "ok", 0, "error", text, "in_use",
				 m->head.code == -EBUSY ? (int)m->in_use : 0));
	if (it->patient && m->head.code == -EBUSY) {
		if (!it->d->registry.retry_timer.armed)
			loop_timer_set(&it->d->loop, &it->d->registry.retry_timer,
				       loop_now_ns() + RETRY_NS, on_retry_timer);
		return;
	}
	stay(it);
	if (it->successor)
		fail(it->successor, text);
}

int registry_on_unloaded(struct engine *e, const struct wlink_adapter_reply *m)
{
	struct registry_entry *it = by_id(e, m->load_id, ENTRY_UNLOADING);

	if (!it || m->head.code > 0)
		return -EPROTO;
	engine_answered(e);
	if (m->head.code)
		unload_refused(it, m);
	else
		gone(it);
	return 0;
}

/* What the engine had is to be sent again. The first that it had not answered for is the one that
 * it was busy with. */
static void send_again(struct registry_entry *it, bool *blamed)
{
	enum entry_state was = it->state;

	if (was == ENTRY_LOADING || was == ENTRY_LOADED || was == ENTRY_UNLOAD ||
	    was == ENTRY_UNLOADING || (was == ENTRY_FAILED && it->weights_fd >= 0))
		it->state = ENTRY_LOAD;
	if (was == ENTRY_FAILED && it->state == ENTRY_LOAD)
		it->why[0] = 0;
	if (was == ENTRY_LOADING && !*blamed && !it->engine->killed_outside) {
		*blamed = true;
		it->crashes++;
	}
	if (it->crashes >= MAX_CRASHES)
		fail(it, "the engine ended each time while it was loading it");
	else if (it->leaving && it->force)
		gone(it);
}

void registry_engine_gone(struct engine *e)
{
	struct registry_entry *it, *next;
	bool blamed = false;

	for (it = e->d->registry.first; it; it = next) {
		next = it->next;
		if (it->engine == e && it->crashes < MAX_CRASHES)
			send_again(it, &blamed);
	}
	start_copies(e->d);
}

void registry_engine_failed(struct engine *e)
{
	char why[WCTL_TEXT_BYTES];

	snprintf(why, sizeof(why), "model %s cannot be served: %.160s", e->conf.name, e->failure);
	for (struct registry_entry *it = e->d->registry.first; it; it = it->next) {
		if (it->engine != e)
			continue;
		answer_error(e->d, &it->load_ticket, why);
		answer_error(e->d, &it->unload_ticket, why);
		if (it->successor)
			answer_error(e->d, &it->successor->load_ticket, why);
	}
}

/* --- the configuration ------------------------------------------------------------------------------*/

static struct registry_load from_config(struct weftd *d, const struct config_adapter *c, bool early)
{
	return (struct registry_load){
		.engine = weftd_engine(d, c->model),
		.conf = *c,
		.configured = true,
		.early = early,
		.replace = true,
		.patient = true,
	};
}

void registry_start(struct weftd *d)
{
	for (uint32_t i = 0; i < d->config.n_adapters; i++) {
		struct registry_load how = from_config(d, &d->config.adapters[i], true);
		struct weft_err err = {0};

		if (registry_load(d, &how, &err))
			log_line(LOG_LEVEL_ERROR, "adapter=%s event=adapter-failed why=\"%s\"",
				 how.conf.name, err.message);
	}
	registry_file_load(d);
}

bool registry_in_config(const struct config *c, const struct registry_entry *it)
{
	for (uint32_t i = 0; i < c->n_adapters; i++)
		if (!strcmp(c->adapters[i].name, it->conf.name) &&
		    !strcmp(c->adapters[i].model, it->engine->conf.name))
			return true;
	return false;
}

static void reload_removed(struct weftd *d, const struct config *c, registry_say_fn say, void *arg)
{
	struct registry_entry *it, *next;

	for (it = d->registry.first; it; it = next) {
		next = it->next;
		if (!it->configured || registry_in_config(c, it))
			continue;
		it->configured = false;
		say(arg, it->conf.name, "was removed: unloaded when no request uses it");
		if (it->successor)
			fail(it->successor, "it was removed from the configuration");
		if (!it->leaving)
			leave(it, false, true);
	}
}

/* One section of the file against what is there. */
static void reload_one(struct weftd *d, const struct config_adapter *c, registry_say_fn say,
		       void *arg)
{
	struct registry_load how = from_config(d, c, false);
	struct registry_entry *it = how.engine ? registry_find(d, how.engine, c->name) : NULL;
	const char *what = "is new: loaded now";
	struct weft_err err = {0};

	if (!how.engine) {
		say(arg, c->name, "is of a new model: loaded after a restart of weftd");
		return;
	}
	if (it && it->successor && memcmp(&it->successor->conf, c, sizeof(*c)))
		fail(it->successor, "the configuration has changed again");
	if (it && it->state == ENTRY_FAILED) {
		what = "is tried again";
		leave(it, true, false);
		it = NULL;
	} else if (it && !it->leaving && !memcmp(&it->conf, c, sizeof(*c))) {
		it->configured = true;
		return;
	} else if (it && it->leaving && !it->successor && it->state == ENTRY_LOADED &&
		   !memcmp(&it->conf, c, sizeof(*c))) {
		it->configured = true; /* it was removed and has come back in time */
		stay(it);
		return;
	} else if (it && it->successor) {
		return; /* under way already */
	} else if (it) {
		what = "has changed: replaced when no request uses it";
	}
	if (registry_load(d, &how, &err))
		say(arg, c->name, err.message);
	else
		say(arg, c->name, what);
}

void registry_reload(struct weftd *d, const struct config *c, registry_say_fn say, void *arg)
{
	reload_removed(d, c, say, arg);
	for (uint32_t i = 0; i < c->n_adapters; i++)
		reload_one(d, &c->adapters[i], say, arg);
	start_copies(d);
}
