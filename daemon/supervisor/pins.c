/* SPDX-License-Identifier: Apache-2.0 */
/* pins.c - see pins.h. Owned by weftd's only thread. */
#include "daemon/supervisor/pins.h"

#include "daemon/supervisor/admin_reply.h"
#include "daemon/supervisor/weftd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* A prefix that ended so many engines is not given to another one. */
#define MAX_CRASHES 2u
#define PIN_SEALS   (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)

enum pin_state { PIN_SEND, PIN_SENT, PIN_HELD, PIN_FAILED, PIN_LEAVE, PIN_LEFT };

struct pins_entry {
	struct pins_entry *next;
	struct engine *engine; /* borrowed */
	uint32_t domain;       /* a tenant's index, or ENGINE_PUBLIC */
	uint64_t id;
	enum pin_state state;
	bool held, owed;  /* has been HELD; the engine owes a PINNED */
	uint32_t crashes; /* engines that ended while they computed it */
	bool saved;	  /* there is a file of it */
	uint32_t *tokens; /* owner */
	uint32_t n_tokens, pinned_tokens;
	uint64_t ticket;
	char why[WCTL_TEXT_BYTES];
};

struct pins_drop {
	struct pins_drop *next;
	struct engine *engine; /* borrowed */
	uint32_t domain;
	bool all, sent;
	uint64_t ticket;
};

static uint32_t wire_domain(uint32_t domain)
{
	return domain == ENGINE_PUBLIC ? WLINK_PUBLIC : domain;
}

static void answer(struct weftd *d, uint64_t *ticket, json_t *j)
{
	uint64_t t = *ticket;

	*ticket = 0;
	if (t)
		admin_answer(d, t, j);
	else
		json_decref(j);
}

/* --- pins -----------------------------------------------------------------------------------------*/

static void entry_free(struct weftd *d, struct pins_entry *it)
{
	struct pins_entry **at = &d->pins.first;

	while (*at != it)
		at = &(*at)->next;
	*at = it->next;
	d->pins.n--;
	answer(d, &it->ticket, admin_reply_error("the pin was removed"));
	free(it->tokens);
	free(it);
}

static const struct pins_entry *same(const struct engine *e, uint32_t domain,
				     const uint32_t *tokens, uint32_t n)
{
	for (const struct pins_entry *it = e->d->pins.first; it; it = it->next)
		if (it->engine == e && it->domain == domain && it->n_tokens == n &&
		    it->state < PIN_LEAVE && !memcmp(it->tokens, tokens, n * sizeof(*tokens)))
			return it;
	return NULL;
}

/* At its place in the order of numbers. NULL: out of memory. */
static struct pins_entry *entry_new(struct engine *e, uint32_t domain, uint64_t id,
				    uint32_t *tokens, uint32_t n_tokens)
{
	struct pins_entry **at = &e->d->pins.first, *it = calloc(1, sizeof(*it));

	if (!it)
		return NULL;
	while (*at && (*at)->id < id)
		at = &(*at)->next;
	*it = (struct pins_entry){
		.next = *at,
		.engine = e,
		.domain = domain,
		.id = id,
		.tokens = tokens,
		.n_tokens = n_tokens,
	};
	*at = it;
	e->d->pins.n++;
	return it;
}

int pins_add(struct engine *e, uint32_t domain, uint32_t *tokens, uint32_t n_tokens,
	     uint64_t ticket, struct weft_err *err)
{
	struct pins_entry *it;
	const struct pins_entry *twin = same(e, domain, tokens, n_tokens);

	if (e->state == ENGINE_FAILED)
		return err_set(err, -EIO, "model %s cannot be served: %.160s", e->conf.name,
			       e->failure);
	if (twin)
		return err_set(err, -EEXIST, "pin %llu holds these tokens already",
			       (unsigned long long)twin->id);
	if (e->d->pins.n >= PINS_MAX)
		return err_set(err, -ENOSPC, "there are %u pins: no more are possible", PINS_MAX);
	it = entry_new(e, domain, e->d->pins.last_id + 1, tokens, n_tokens);
	if (!it)
		return err_set(err, -ENOMEM, "out of memory");
	e->d->pins.last_id++;
	it->ticket = ticket;
	engine_flush(e);
	return 0;
}

/* Numbers go on where the last weftd ended, so that none means another pin than it did. */
static void restore(void *arg, uint64_t id, struct pins_saved *pin)
{
	struct weftd *d = arg;
	struct engine *e = pin ? weftd_engine(d, pin->model) : NULL;
	struct pins_entry *it = NULL;
	int domain = ENGINE_PUBLIC;

	if (id > d->pins.last_id)
		d->pins.last_id = id;
	if (!pin)
		return;
	if (*pin->tenant)
		domain = tenants_find(&d->tenants, pin->tenant);
	if (e && domain >= 0 && d->pins.n < PINS_MAX)
		it = entry_new(e, (uint32_t)domain, id, pin->tokens, pin->n_tokens);
	if (!it) {
		log_line(LOG_LEVEL_WARN,
			 "pin=%llu event=pin-left model=%s tenant=%s why=\"there is no such model "
			 "or "
			 "tenant, or no room\"",
			 (unsigned long long)id, pin->model, pin->tenant);
		free(pin->tokens);
		return;
	}
	it->held = it->saved = true;
}

void pins_start(struct weftd *d)
{
	pins_file_load(d->domains.dir_fd, restore, d);
	for (uint32_t i = 0; i < d->n_engines; i++)
		engine_flush(&d->engines[i]);
}

static void save(struct weftd *d, struct pins_entry *it)
{
	struct pins_saved pin = {.tokens = it->tokens, .n_tokens = it->n_tokens};
	int rc;

	strcpy(pin.model, it->engine->conf.name);
	if (it->domain != ENGINE_PUBLIC)
		strcpy(pin.tenant, d->tenants.tenant[it->domain].conf.name);
	rc = pins_file_save(d->domains.dir_fd, it->id, &pin);
	it->saved = !rc;
	if (!rc)
		return;
	snprintf(it->why, sizeof(it->why), "it will not outlive weftd: %s", strerror(-rc));
	log_line(LOG_LEVEL_WARN, "pin=%llu event=pin-file why=\"%s\"", (unsigned long long)it->id,
		 it->why);
}

int pins_remove(struct weftd *d, uint64_t id, int *ret_left, struct weft_err *err)
{
	struct pins_entry *it = d->pins.first;
	struct engine *e;

	while (it && (it->id != id || it->state >= PIN_LEAVE))
		it = it->next;
	if (!it)
		return err_set(err, -ENOENT, "there is no pin %llu", (unsigned long long)id);
	e = it->engine;
	*ret_left = it->saved ? pins_file_remove(d->domains.dir_fd, id) : 0;
	it->saved = false;
	answer(d, &it->ticket, admin_reply_error("it was unpinned before it was computed"));
	if (it->state == PIN_SENT || it->state == PIN_HELD) {
		it->state = PIN_LEAVE;
		engine_flush(e);
	} else {
		entry_free(d, it);
	}
	return 0;
}

static json_t *entry_json(const struct weftd *d, const struct pins_entry *it)
{
	static const char *const states[] = {"waiting", "computing", "pinned",
					     "failed",	"leaving",   "leaving"};

	return json_pack("{s:I, s:s, s:s, s:b, s:s, s:i, s:i, s:s}", "id", (json_int_t)it->id,
			 "model", it->engine->conf.name, "tenant",
			 it->domain == ENGINE_PUBLIC ? "" : d->tenants.tenant[it->domain].conf.name,
			 "public", (int)(it->domain == ENGINE_PUBLIC), "state", states[it->state],
			 "tokens", (int)it->n_tokens, "pinned_tokens", (int)it->pinned_tokens,
			 "why", it->why);
}

json_t *pins_list(const struct weftd *d)
{
	json_t *list = json_array();

	for (const struct pins_entry *it = d->pins.first; it; it = it->next)
		if (it->state < PIN_LEAVE)
			json_array_append_new(list, entry_json(d, it));
	return list;
}

/* --- drops ----------------------------------------------------------------------------------------*/

/* What was dropped, and whose it was; by the end of the engine, which takes all with it. */
static json_t *dropped_json(const struct pins_drop *it, uint64_t blocks, bool engine_ended)
{
	const struct weftd *d = it->engine->d;
	bool public = !it->all && it->domain == ENGINE_PUBLIC;

	return json_pack("{s:b, s:s, s:s, s:b, s:b, s:I, s:b}", "ok", 1, "model",
			 it->engine->conf.name, "tenant",
			 it->all || public ? "" : d->tenants.tenant[it->domain].conf.name, "public",
			 (int)public, "all", (int)it->all, "blocks", (json_int_t)blocks,
			 "engine_ended", (int)engine_ended);
}

static void drop_free(struct weftd *d, struct pins_drop *it)
{
	struct pins_drop **at = &d->pins.drops;

	while (*at != it)
		at = &(*at)->next;
	*at = it->next;
	answer(d, &it->ticket, admin_reply_error("weftd is shutting down"));
	free(it);
}

int pins_drop(struct engine *e, uint32_t domain, bool all, uint64_t ticket, struct weft_err *err)
{
	struct pins_drop **at = &e->d->pins.drops, *it;

	if (e->state != ENGINE_READY)
		return err_set(err, -EAGAIN, "model %s has no engine just now (%s), so no cache",
			       e->conf.name, engine_state_name(e->state));
	it = calloc(1, sizeof(*it));
	if (!it)
		return err_set(err, -ENOMEM, "out of memory");
	*it = (struct pins_drop){.engine = e, .domain = domain, .all = all, .ticket = ticket};
	while (*at)
		at = &(*at)->next;
	*at = it;
	engine_flush(e);
	return 0;
}

void pins_fini(struct weftd *d)
{
	while (d->pins.drops)
		drop_free(d, d->pins.drops);
	while (d->pins.first)
		entry_free(d, d->pins.first);
}

/* --- the engine -----------------------------------------------------------------------------------*/

/* The tokens as the engine gets them: it can neither be surprised by a change nor make one. */
static int tokens_fd(const struct pins_entry *it)
{
	size_t bytes = it->n_tokens * sizeof(*it->tokens);
	int fd = memfd_create("weft-pin", MFD_CLOEXEC | MFD_ALLOW_SEALING), again;
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = write(fd, it->tokens, bytes);
	if (n != (ssize_t)bytes || fcntl(fd, F_ADD_SEALS, PIN_SEALS))
		again = n < 0 ? -errno : -ENOMEM;
	else
		again = wshm_open_read_only(fd);
	close(fd);
	return again;
}

static int send_pin(struct pins_entry *it)
{
	struct wlink_pin m = {
		.pin_id = it->id,
		.domain = wire_domain(it->domain),
		.n_tokens = it->n_tokens,
	};
	int err = engine_send_domain(it->engine, it->domain), fd;

	if (err)
		return err;
	fd = tokens_fd(it);
	if (fd < 0)
		return fd;
	wctl_head_init(&m.head, WLINK_PIN, sizeof(m), 0);
	err = wctl_send(it->engine->link, &m, sizeof(m), &fd, 1);
	close(fd);
	if (!err) {
		it->state = PIN_SENT;
		it->owed = true;
	}
	return err;
}

static int send_unpin(struct weftd *d, struct pins_entry *it)
{
	struct wlink_pin m = {.pin_id = it->id};
	int err;

	wctl_head_init(&m.head, WLINK_UNPIN, sizeof(m), 0);
	err = wctl_send(it->engine->link, &m, sizeof(m), NULL, 0);
	if (err)
		return err;
	it->state = PIN_LEFT;
	if (!it->owed)
		entry_free(d, it);
	return 0;
}

static int send_drop(struct pins_drop *it)
{
	struct wlink_drop m = {.domain = wire_domain(it->domain), .all = it->all};
	int err;

	wctl_head_init(&m.head, WLINK_DROP, sizeof(m), 0);
	err = wctl_send(it->engine->link, &m, sizeof(m), NULL, 0);
	if (err)
		return err;
	it->sent = true;
	engine_owes(it->engine);
	return 0;
}

int pins_send(struct engine *e)
{
	struct pins_entry *it, *next;
	int err = 0;

	for (it = e->d->pins.first; it && !err; it = next) {
		next = it->next;
		if (it->engine == e && it->state == PIN_SEND)
			err = send_pin(it);
		else if (it->engine == e && it->state == PIN_LEAVE)
			err = send_unpin(e->d, it);
	}
	for (struct pins_drop *drop = e->d->pins.drops; drop && !err; drop = drop->next)
		if (drop->engine == e && !drop->sent)
			err = send_drop(drop);
	return err;
}

static void pin_failed(struct weftd *d, struct pins_entry *it, int code, const char *text)
{
	snprintf(it->why, sizeof(it->why), "%s", *text ? text : strerror(-code));
	log_line(LOG_LEVEL_ERROR, "model=%s pin=%llu event=pin-failed why=\"%s\"",
		 it->engine->conf.name, (unsigned long long)it->id, it->why);
	answer(d, &it->ticket, admin_reply_error(it->why));
	if (it->held)
		it->state = PIN_FAILED; /* the next engine is asked again */
	else
		entry_free(d, it);
}

int pins_on_pinned(struct engine *e, const struct wlink_pinned *m)
{
	struct weftd *d = e->d;
	struct pins_entry *it = d->pins.first;

	while (it && (it->engine != e || it->id != m->pin_id || !it->owed))
		it = it->next;
	if (!it || m->head.code > 0 || (!m->head.code && m->tokens > it->n_tokens))
		return -EPROTO;
	it->owed = false;
	if (it->state == PIN_LEFT) {
		entry_free(d, it);
	} else if (it->state == PIN_SENT && m->head.code) {
		pin_failed(d, it, m->head.code, m->text);
	} else if (it->state == PIN_SENT) {
		it->state = PIN_HELD;
		it->crashes = 0;
		it->held = true;
		it->pinned_tokens = m->tokens;
		it->why[0] = 0;
		if (!it->saved)
			save(d, it);
		log_line(LOG_LEVEL_NOTICE, "model=%s pin=%llu event=pinned tokens=%u", e->conf.name,
			 (unsigned long long)it->id, m->tokens);
		answer(d, &it->ticket, json_pack("{s:b, s:o}", "ok", 1, "pin", entry_json(d, it)));
	}
	return 0;
}

int pins_on_dropped(struct engine *e, const struct wlink_drop *m)
{
	struct pins_drop *it = e->d->pins.drops;

	while (it && (it->engine != e || !it->sent))
		it = it->next;
	if (!it || m->head.code > 0)
		return -EPROTO;
	engine_answered(e);
	/* -ENOENT: no session of the domain has been there, so nothing is cached. */
	if (m->head.code && m->head.code != -ENOENT)
		answer(e->d, &it->ticket, admin_reply_error(strerror(-m->head.code)));
	else
		answer(e->d, &it->ticket, dropped_json(it, m->head.code ? 0 : m->blocks, false));
	drop_free(e->d, it);
	return 0;
}

void pins_engine_gone(struct engine *e)
{
	struct weftd *d = e->d;
	bool blamed = false;

	for (struct pins_entry *it = d->pins.first, *next; it; it = next) {
		next = it->next;
		if (it->engine != e)
			continue;
		/* They are computed one at a time, in order. */
		if (it->owed && !blamed && !e->killed_outside) {
			blamed = true;
			it->crashes++;
		}
		it->owed = false;
		it->pinned_tokens = 0;
		if (it->state >= PIN_LEAVE)
			entry_free(d, it);
		else if (it->crashes < MAX_CRASHES)
			it->state = PIN_SEND;
		else if (it->state != PIN_FAILED)
			pin_failed(d, it, -EIO, "the engine ended each time while it was computed");
	}
	for (struct pins_drop *it = d->pins.drops, *next; it; it = next) {
		next = it->next;
		if (it->engine != e)
			continue;
		answer(d, &it->ticket, dropped_json(it, 0, true));
		drop_free(d, it);
	}
}

void pins_engine_failed(struct engine *e)
{
	char why[WCTL_TEXT_BYTES];

	snprintf(why, sizeof(why), "model %s cannot be served: %.160s", e->conf.name, e->failure);
	for (struct pins_entry *it = e->d->pins.first, *next; it; it = next) {
		next = it->next;
		if (it->engine != e)
			continue;
		answer(e->d, &it->ticket, admin_reply_error(why));
		if (!it->held)
			entry_free(e->d, it);
	}
}
