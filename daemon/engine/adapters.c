/* SPDX-License-Identifier: Apache-2.0 */
/* adapters.c - see adapters.h. */
#include "daemon/engine/adapters.h"
#include "daemon/engine/engine.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <urcu-qsbr.h>

/* liburcu orders by fences and assembly, which the thread sanitizer does not see. */
#if defined(__SANITIZE_THREAD__)
#define UNDER_TSAN
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UNDER_TSAN
#endif
#endif
#ifdef UNDER_TSAN
void __tsan_acquire(void *addr);
void __tsan_release(void *addr);
#define SEEN_BEFORE(at) __tsan_release(at)
#define SEEN_AFTER(at)	__tsan_acquire(at)
#else
#define SEEN_BEFORE(at) ((void)(at))
#define SEEN_AFTER(at)	((void)(at))
#endif

/* --- control thread ------------------------------------------------------------------------------*/

/* The control thread is the only writer, so it reads the table as its own. */
static struct adapter_table *table_of(struct engine *e)
{
	return e->adapters;
}

/* Publish a table with one handle more, or without one (NULL allowed for either). 0 or -ENOMEM. */
static int publish(struct engine *e, struct adapter_handle *add,
		   const struct adapter_handle *remove)
{
	struct adapter_table *old = table_of(e), *t;
	uint32_t n = old ? old->n : 0;

	t = calloc(1, sizeof(*t) + (n + 1) * sizeof(struct adapter_handle *));
	if (!t)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++)
		if (old->handles[i] != remove)
			t->handles[t->n++] = old->handles[i];
	if (add)
		t->handles[t->n++] = add;
	SEEN_BEFORE(&e->adapters);
	rcu_assign_pointer(e->adapters, t);
	synchronize_rcu();
	SEEN_AFTER(&e->requests); /* any address of the core thread's would do */
	free(old);
	return 0;
}

struct adapter_handle *adapters_by_id(struct engine *e, uint64_t load_id)
{
	struct adapter_table *t = table_of(e);

	for (uint32_t i = 0; t && i < t->n; i++)
		if (t->handles[i]->load_id == load_id)
			return t->handles[i];
	return NULL;
}

bool adapters_last(struct engine *e, const struct adapter_handle *h)
{
	struct adapter_table *t = table_of(e);

	for (uint32_t i = 0; i < t->n; i++)
		if (t->handles[i] != h && t->handles[i]->weights == h->weights &&
		    !t->handles[i]->unloading)
			return false;
	return true;
}

/* The lowest number that no handle has in the mirrors. */
static uint32_t free_index(struct engine *e)
{
	struct adapter_table *t = table_of(e);
	uint32_t index = 0;

	for (uint32_t i = 0; t && i < t->n; i++)
		if (t->handles[i]->index == index) {
			index++;
			i = UINT32_MAX; /* from the start again */
		}
	return index;
}

static struct adapter_weights *same_content(struct engine *e, const struct wshm_instance *in)
{
	struct adapter_table *t = table_of(e);

	for (uint32_t i = 0; t && i < t->n; i++)
		if (!memcmp(t->handles[i]->instance.digest, in->digest, sizeof(in->digest)))
			return t->handles[i]->weights;
	return NULL;
}

/* The blocks are about to serve something else. */
static void weights_left(struct cache_adapter *node)
{
	struct adapter_weights *w = (struct adapter_weights *)node;

	for (struct adapter_weights **at = &w->engine->placing; *at; at = &(*at)->next_placing)
		if (*at == w) {
			*at = w->next_placing;
			break;
		}
	step_quiet(w->engine); /* a pass that is queued may use it still, for a row that has gone */
	adapter_remove(w->image, w->engine->model);
}

static void weights_put(struct adapter_weights *w)
{
	if (!w || --w->n_handles)
		return;
	adapter_close(w->image);
	free(w);
}

/* Takes the image over in any case. NULL: no memory. */
static struct adapter_weights *weights_get(struct engine *e, struct adapter *image)
{
	const struct wshm_instance *in = adapter_instance(image);
	struct adapter_weights *w = same_content(e, in);

	if (w || !(w = calloc(1, sizeof(*w)))) {
		adapter_close(image);
	} else {
		w->engine = e;
		w->image = image;
		w->node.digest[0] = in->digest[0];
		w->node.digest[1] = in->digest[1];
		w->node.n_blocks = adapter_blocks(image);
		w->node.left = weights_left;
		cache_adapter_init(&w->node);
	}
	if (w)
		w->n_handles++;
	return w;
}

/* What can be said before anything is read. 0 or -errno. */
static int check_message(struct engine *e, const struct wlink_adapter *msg, struct weft_err *err)
{
	size_t n = strnlen(msg->name, sizeof(msg->name));

	if (!n || n == sizeof(msg->name) || msg->on_missing > WSHM_MISSING_APPEND)
		return err_set(err, -EPROTO, "loading an adapter: the message makes no sense");
	if (adapters_by_id(e, msg->load_id))
		return err_set(err, -EEXIST, "loading %s: it is loaded already", msg->name);
	if (table_of(e) && table_of(e)->n >= WSHM_MAX_INSTANCES)
		return err_set(err, -ENOSPC, "loading %s: %u adapters are loaded, no more fit",
			       msg->name, WSHM_MAX_INSTANCES);
	return 0;
}

static int open_image(struct engine *e, const struct wlink_adapter *msg, int config_fd,
		      int weights_fd, struct adapter **ret, struct weft_err *err)
{
	const struct adapter_source src = {
		.name = msg->name,
		.config_fd = config_fd,
		.weights_fd = weights_fd,
		.offset = msg->offset,
		.on_missing = (enum wshm_missing)msg->on_missing,
	};
	struct adapter *image;
	int rc = adapter_open(e->model, e->block_bytes, &src, &image, err);

	if (rc)
		return rc;
	if (adapter_blocks(image) >= e->blocks.n) {
		rc = err_set(err, -ENOSPC,
			     "loading %s: its weights take %u blocks, the pool has %u: raise "
			     "kv-bytes",
			     msg->name, adapter_blocks(image), e->blocks.n);
		adapter_close(image);
		return rc;
	}
	*ret = image;
	return 0;
}

int adapters_load(struct engine *e, const struct wlink_adapter *msg, int config_fd, int weights_fd,
		  struct adapter_handle **ret, struct weft_err *err)
{
	struct adapter_handle *h;
	struct adapter *image = NULL;
	int rc = check_message(e, msg, err);

	if (!rc)
		rc = open_image(e, msg, config_fd, weights_fd, &image, err);
	if (rc)
		return rc;
	h = calloc(1, sizeof(*h));
	if (!h) {
		adapter_close(image);
		return err_set(err, -ENOMEM, "loading %s: out of memory", msg->name);
	}
	h->load_id = msg->load_id;
	h->index = free_index(e);
	h->instance = *adapter_instance(image);
	memcpy(h->instance.name, msg->name, sizeof(h->instance.name));
	h->instance.on_missing = msg->on_missing;
	h->weights = weights_get(e, image);
	if (!h->weights || publish(e, h, NULL)) {
		weights_put(h->weights);
		free(h);
		return err_set(err, -ENOMEM, "loading %s: out of memory", msg->name);
	}
	*ret = h;
	return 0;
}

void adapters_forget(struct engine *e, struct adapter_handle *h)
{
	if (publish(e, NULL, h)) {
		log_line(LOG_LEVEL_ERROR, "event=fatal what=memory");
		_exit(1);
	}
	weights_put(h->weights);
	free(h);
}

/* --- core thread ----------------------------------------------------------------------------------*/

void adapters_reader(bool start)
{
	if (start)
		rcu_register_thread();
	else
		rcu_unregister_thread();
}

void adapters_quiescent(struct engine *e)
{
	SEEN_BEFORE(&e->requests);
	rcu_quiescent_state();
}

void adapters_asleep(struct engine *e, bool asleep)
{
	SEEN_BEFORE(&e->requests);
	if (asleep)
		rcu_thread_offline();
	else
		rcu_thread_online();
}

static const struct adapter_table *table_now(const struct engine *e)
{
	const struct adapter_table *t = rcu_dereference(e->adapters);

	SEEN_AFTER((void *)&e->adapters);
	return t;
}

/* The newest that fits; name NULL: any. */
static struct adapter_handle *find(const struct engine *e, const char *name, uint64_t instance)
{
	struct adapter_handle *found = NULL;
	const struct adapter_table *t;

	rcu_read_lock();
	t = table_now(e);
	for (uint32_t i = t ? t->n : 0; i-- > 0 && !found;) {
		struct adapter_handle *h = t->handles[i];

		if (!h->gone && (!name || !strcmp(h->instance.name, name)) &&
		    (!instance || h->instance.digest[0] == instance))
			found = h;
	}
	rcu_read_unlock();
	/* A handle goes only after this thread has let go of it: adapters_leave(). */
	return found;
}

struct adapter_handle *adapters_find(const struct engine *e, const char *name, uint64_t instance)
{
	return find(e, name, instance);
}

struct adapter_handle *adapters_by_instance(const struct engine *e, uint64_t instance)
{
	return instance ? find(e, NULL, instance) : NULL;
}

bool adapters_ready(const struct adapter_weights *w)
{
	return adapter_lora(w->image) != NULL;
}

/* Sequences that have waited for it can compute. */
static void unblock(struct engine *e, const struct adapter_weights *w)
{
	for (uint32_t i = 0; i < e->sched.n_running; i++) {
		struct sample *a = sample_of(e->sched.running[i]);

		if (a->req->adapter && a->req->adapter->weights == w)
			a->seq.blocked = false;
	}
}

void adapters_place_some(struct engine *e, int64_t *bytes)
{
	struct adapter_weights *w;

	while ((w = e->placing) && *bytes > 0) {
		int rc = adapter_place_some(w->image, e->model, e->pool_buf, w->node.blocks,
					    &w->n_placed, bytes);

		if (rc < 0) { /* a device or a heap that cannot do this can do nothing else */
			log_line(LOG_LEVEL_ERROR,
				 "event=fatal what=\"placing an adapter\" errno=%d", -rc);
			_exit(1);
		}
		if (!rc)
			return;
		e->placing = w->next_placing;
		e->count.adapters_placed++;
		unblock(e, w);
	}
}

bool adapters_place(struct engine *e, struct adapter_weights *w)
{
	struct adapter_weights **at = &e->placing;

	if (w->node.resident)
		return true;
	if (cache_adapter_enter(e->cache, &w->node))
		return false;
	assert(!adapters_ready(w)); /* its former blocks have long been others' */
	w->n_placed = 0;
	w->next_placing = NULL;
	while (*at)
		at = &(*at)->next_placing;
	*at = w;
	/* Most are whole with what this pass may still move. */
	chores_place(e);
	return true;
}

void adapters_enter(struct engine *e, struct adapter_handle *h)
{
	for (struct domain *d = e->domains; d; d = d->next)
		if (d->mirror)
			wshm_idx_instance(d->mirror, h->index, &h->instance);
	if (h->weights->node.n_blocks <= e->blocks.n_free)
		adapters_place(e, h->weights);
}

uint32_t adapters_all(const struct engine *e, struct adapter_handle **ret, uint32_t max)
{
	const struct adapter_table *t;
	uint32_t n = 0;

	rcu_read_lock();
	t = table_now(e);
	for (uint32_t i = 0; t && i < t->n && n < max; i++)
		if (!t->handles[i]->gone)
			ret[n++] = t->handles[i];
	rcu_read_unlock();
	return n;
}

void adapters_mirror(const struct engine *e, struct wshm_idx_writer *mirror)
{
	struct adapter_handle *all[WSHM_MAX_INSTANCES];
	uint32_t n = adapters_all(e, all, WSHM_MAX_INSTANCES);

	for (uint32_t i = 0; i < n; i++)
		wshm_idx_instance(mirror, all[i]->index, &all[i]->instance);
}

static void end_users(struct engine *e, const struct adapter_handle *h)
{
	struct request *r, *next;

	for (r = e->requests; r; r = next) {
		next = r->next;
		if (r->adapter == h)
			request_end(e, r, WSHM_UNLOADED, 0);
	}
}

void adapters_leave(struct engine *e, struct adapter_mail *m)
{
	struct adapter_handle *h = m->handle;

	if (h->requests && !m->force) {
		m->reply.head.code = -EBUSY;
		m->reply.in_use = h->requests;
		snprintf(m->reply.text, sizeof(m->reply.text),
			 "%u requests use it: wait for them, or unload it by force", h->requests);
		return;
	}
	h->gone = true;
	end_users(e, h);
	for (struct domain *d = e->domains; d; d = d->next)
		if (d->mirror)
			wshm_idx_instance(d->mirror, h->index, NULL);
}

bool adapters_leave_some(struct engine *e, const struct adapter_mail *m, uint32_t *nodes)
{
	struct cache_adapter *node = &m->handle->weights->node;

	/* Another handle of the same content may have come, and be in use already. */
	return !m->last || node->users || cache_adapter_drop_some(e->cache, node, nodes);
}
