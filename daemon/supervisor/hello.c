/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hello.c - from the first message to the welcome.
 *
 * Everything a hello says is checked before anything is made for it; then regions, eventfd and bell
 * are made, the welcome is sent, and only what the client has received is attached to the engine.
 * While the model loads the welcome says so (ready 0) and the attachment follows: the client sees
 * it in rx and asks for the models again.
 */
#include "daemon/supervisor/weftd.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

/* What a client gets that does not say: 64 requests, prompts of a million tokens (more with more
 * than 256 requests, so that all can stand at once), results of four million. Pages cost nothing
 * until they are touched. */
#define DEFAULT_SLOTS	 64u
#define DEFAULT_TX_ARENA (UINT64_C(4) << 20)
#define DEFAULT_TX_SLOT	 (UINT64_C(16) << 10) /* at least: a descriptor and 3,000 tokens */
#define DEFAULT_RX_ARENA (UINT64_C(16) << 20)

static bool all_zero(const uint8_t *p, size_t n)
{
	while (n--)
		if (*p++)
			return false;
	return true;
}

/* What makes the message itself unacceptable, or NULL. */
static const char *malformed(const struct wctl_hello *h, uint32_t n_fds)
{
	if (h->head.bytes != sizeof(*h))
		return "hello of another size";
	if (n_fds)
		return "hello with descriptors";
	if (h->head.code || h->reserved0 || !all_zero(h->reserved, sizeof(h->reserved)))
		return "reserved fields of the hello are not zero";
	if (!memchr(h->model, 0, sizeof(h->model)))
		return "model name without an end";
	return NULL;
}

static struct engine *choose_engine(struct session *s, const char *name)
{
	struct weftd *d = s->d;
	struct engine *e = *name ? weftd_engine(d, name) : &d->engines[0];

	if (!d->n_engines) {
		session_refuse(s, -ENOENT, "no model is served: weftd's configuration has none");
		return NULL;
	}
	if (!*name && d->n_engines > 1) {
		session_refuse(s, -EINVAL, "%u models are served: name one (weft model list)",
			       d->n_engines);
		return NULL;
	}
	if (!e) {
		/* The words go into the log, where a quotation mark would end them. */
		session_refuse(s, -ENOENT, "no model \"%.64s\" is served (weft model list)",
			       config_name_ok(name) ? name : "?");
		return NULL;
	}
	if (e->state == ENGINE_FAILED) {
		session_refuse(s, -EIO, "model %s cannot be served: %.160s", e->conf.name,
			       e->failure);
		return NULL;
	}
	return e;
}

int session_tenant(const struct session *s)
{
	gid_t groups[SESSION_MAX_GROUPS];
	socklen_t bytes = sizeof(groups);
	struct ucred cred;
	socklen_t cred_bytes = sizeof(cred);
	uint32_t n = 0;
	int index;

	/* Of a peer in more groups than this the rest does not count: -ERANGE leaves none. */
	if (!getsockopt(s->sock, SOL_SOCKET, SO_PEERGROUPS, groups, &bytes))
		n = bytes / sizeof(gid_t);
	if (!getsockopt(s->sock, SOL_SOCKET, SO_PEERCRED, &cred, &cred_bytes) &&
	    n < SESSION_MAX_GROUPS)
		groups[n++] = cred.gid;
	index = config_tenant_of(&s->d->config, s->uid, groups, n);
	if (index < 0)
		return index;
	return tenants_find(&s->d->tenants, s->d->config.tenants[index].name);
}

/* The tenant's index, or -errno after a refusal. */
static int choose_tenant(struct session *s)
{
	int tenant = session_tenant(s);

	if (tenant < 0)
		session_refuse(s, -EACCES, "uid %u belongs to no tenant of weftd.conf", s->uid);
	return tenant;
}

/*
 * Could the answer be another one in a moment? A session that has ended counts until its engine has
 * let go of it, and a region until the dying client's last descriptor is gone; a program that is
 * run again at once shall not be refused for that.
 */
static bool room_to_come(const struct weftd *d)
{
	if (d->sweep_timer.armed)
		return true;
	for (const struct session *s = d->sessions; s; s = s->next)
		if (s->state == SESSION_GONE)
			return true;
	return false;
}

/* Wait for that, within the time of the hello. true: it waits, judge it again later. */
static bool park(struct session *s, bool may_wait)
{
	if (!may_wait || !room_to_come(s->d))
		return false;
	s->parked = true;
	if (s->d->unread_timer.armed)
		session_look_for_unread(s->d);
	/* Only its hang-up is of interest meanwhile. */
	loop_rewatch(&s->d->loop, &s->source, 0);
	return true;
}

static bool session_quota_ok(struct session *s, const struct tenant *t, bool may_wait)
{
	bool tenant_full = t->sessions >= t->conf.max_sessions;

	if (!tenant_full && s->d->n_sessions < s->d->max_sessions)
		return true;
	if (park(s, may_wait))
		return false;
	if (tenant_full)
		session_refuse(s, -EDQUOT, "tenant %s has its %u sessions open already",
			       t->conf.name, t->conf.max_sessions);
	else
		session_refuse(s, -EBUSY, "weftd has its %u sessions open already",
			       s->d->max_sessions);
	return false;
}

static uint64_t round_up(uint64_t v, uint64_t to)
{
	return (v + to - 1) / to * to;
}

/* Defaults filled in and rounded up to what a layout can have. */
static int choose_layout(struct session *s, const struct wctl_hello *h, struct wshm_layout *ret)
{
	uint32_t slots = h->slots ? h->slots : DEFAULT_SLOTS;
	uint64_t prompts = slots * DEFAULT_TX_SLOT;
	struct wshm_params p = {
		.tx_arena_bytes = h->tx_arena_bytes	       ? h->tx_arena_bytes
				  : prompts > DEFAULT_TX_ARENA ? prompts
							       : DEFAULT_TX_ARENA,
		.rx_arena_bytes = h->rx_arena_bytes ? h->rx_arena_bytes : DEFAULT_RX_ARENA,
	};

	if (slots > WSHM_MAX_SLOTS || p.tx_arena_bytes > WSHM_MAX_ARENA ||
	    p.rx_arena_bytes > WSHM_MAX_ARENA) {
		session_refuse(s, -EINVAL,
			       "hello wants %u slots and arenas of %llu and %llu bytes; at most "
			       "%u and %llu are possible",
			       slots, (unsigned long long)p.tx_arena_bytes,
			       (unsigned long long)p.rx_arena_bytes, WSHM_MAX_SLOTS,
			       (unsigned long long)WSHM_MAX_ARENA);
		return -EINVAL;
	}
	for (p.slots = 1; p.slots < slots;)
		p.slots *= 2;
	p.tx_arena_bytes = round_up(p.tx_arena_bytes, WSHM_PAGE);
	p.rx_arena_bytes = round_up(p.rx_arena_bytes, WSHM_PAGE);
	if (wshm_layout_init(ret, &p)) {
		session_refuse(s, -EINVAL, "hello wants regions that are not possible");
		return -EINVAL;
	}
	return 0;
}

static int get_region(struct session *s, const struct wshm_layout *layout, const struct tenant *t,
		      bool may_wait)
{
	struct weftd *d = s->d;
	/* For every session that may be open one of an earlier one that is still held. */
	const struct region_limits limits = {
		.uid_bytes = t->conf.max_region_bytes,
		.total_bytes = d->config.daemon.max_region_bytes,
		.uid_regions = 2 * t->conf.max_sessions,
		.total_regions = 2 * d->max_sessions,
	};
	int err = region_get(&d->regions, layout, s->uid, s->id, &limits, &s->region);

	if ((err == -EDQUOT || err == -ENOSPC) && park(s, may_wait))
		return err;
	if (err == -EDQUOT)
		session_refuse(s, err,
			       "uid %u would have more than its %llu bytes in %u regions of shared "
			       "memory (%llu in %u are charged, %llu wanted)",
			       s->uid, (unsigned long long)limits.uid_bytes, limits.uid_regions,
			       (unsigned long long)tenants_charged(&d->tenants, s->uid),
			       tenants_regions(&d->tenants, s->uid),
			       (unsigned long long)(layout->tx_bytes + layout->rx_bytes));
	else if (err == -ENOSPC)
		session_refuse(s, err,
			       "weftd has no more than its %llu bytes in %u regions of shared "
			       "memory",
			       (unsigned long long)limits.total_bytes, limits.total_regions);
	else if (err)
		session_refuse(s, err, "regions cannot be made: %s", err_memory_text(-err));
	return err;
}

/* fds: see WCTL_WELCOME. */
static int send_welcome(struct session *s, const struct tenant *t, const int fds[WCTL_WELCOME_FDS])
{
	struct wctl_welcome m = {
		.minor = WSHM_MINOR,
		.max_in_flight = t->conf.quota.max_in_flight,
		.features = WCTL_FEATURE_FILES | WCTL_FEATURE_DOMAIN,
		.session_id = s->id,
		.daemon_id = s->d->daemon_id,
		.params = s->region->layout.params,
	};

	wctl_head_init(&m.head, WCTL_WELCOME, sizeof(m), 0);
	engine_describe(s->engine, &m.model);
	memcpy(m.tenant, t->conf.name, sizeof(m.tenant));
	return wctl_send(s->sock, &m, sizeof(m), fds, WCTL_WELCOME_FDS);
}

/* The indexes of the client's own domain and of the public one, for reading only. */
static int open_indexes(struct session *s, int *ret_own, int *ret_public)
{
	int own = engine_index(s->engine, (uint32_t)s->tenant);
	int public = engine_index(s->engine, ENGINE_PUBLIC);

	if (own < 0 || public < 0)
		return own < 0 ? own : public;
	*ret_own = wshm_open_read_only(own);
	if (*ret_own < 0)
		return *ret_own;
	*ret_public = wshm_open_read_only(public);
	return *ret_public < 0 ? *ret_public : 0;
}

/* Make the descriptors and send those of the client. On failure everything of the session's own is
 * given back by session_end(). */
static int welcome(struct session *s, const struct tenant *t)
{
	enum { TX, RX, WAKE, BELL, OWN, PUBLIC };
	int fds[WCTL_WELCOME_FDS] = {-1, -1, -1, -1, -1, -1};
	int bells[2] = {-1, -1}, err;

	s->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (s->wake < 0)
		return -errno;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, bells))
		return -errno;
	s->bell = bells[0];
	fds[WAKE] = s->wake;
	fds[BELL] = bells[1];
	/* Our end is never read: what a client put there, descriptors that are slow to close among
	 * it, would be ours to clean up. So it can send nothing. */
	err = shutdown(s->bell, SHUT_RD) ? -errno : 0;
	if (!err)
		err = region_open_client(s->region, &fds[TX], &fds[RX]);
	if (!err)
		err = open_indexes(s, &fds[OWN], &fds[PUBLIC]);
	if (!err)
		err = send_welcome(s, t, fds);
	for (uint32_t i = 0; i < WCTL_WELCOME_FDS; i++)
		if (i != WAKE && fds[i] >= 0)
			close(fds[i]);
	return err;
}

static void open_session(struct session *s, struct engine *e, int tenant)
{
	struct weftd *d = s->d;

	loop_timer_clear(&d->loop, &s->hello_timer);
	s->engine = e;
	s->tenant = tenant;
	d->n_sessions++;
	d->tenants.tenant[tenant].sessions++;
}

static bool id_taken(const struct weftd *d, uint64_t id)
{
	for (const struct session *s = d->sessions; s; s = s->next)
		if (s->id == id)
			return true;
	return false;
}

/* Clients see their session's number: one that was counted up would tell each of them how many sessions
 * others have opened since. Short enough for logs. */
static int choose_id(struct session *s)
{
	uint32_t id = 0;

	while (!id || id_taken(s->d, id))
		if (getrandom(&id, sizeof(id), 0) != (ssize_t)sizeof(id) && errno != EINTR) {
			session_refuse(s, -EIO, "session cannot be numbered: %s", strerror(errno));
			return -EIO;
		}
	s->id = id;
	return 0;
}

/* Everything that depends on more than the message itself. */
static void admit(struct session *s, bool may_wait)
{
	struct weftd *d = s->d;
	struct engine *e = choose_engine(s, s->hello.model);
	struct wshm_layout layout;
	int tenant, err;

	if (!e)
		return;
	if (d->draining) {
		session_refuse(s, -ESHUTDOWN, "weftd is shutting down");
		return;
	}
	tenant = choose_tenant(s);
	if (tenant < 0 || choose_layout(s, &s->hello, &layout) ||
	    !session_quota_ok(s, &d->tenants.tenant[tenant], may_wait))
		return;
	if (choose_id(s) || get_region(s, &layout, &d->tenants.tenant[tenant], may_wait))
		return;
	open_session(s, e, tenant);
	err = welcome(s, &d->tenants.tenant[tenant]);
	if (err) {
		session_refuse(s, err, "session cannot be made: %s", strerror(-err));
		return;
	}
	d->n_pending--;
	s->state = SESSION_OPEN;
	s->link = LINK_ATTACH;
	s->opened_ns = loop_now_ns();
	d->counters.sessions++;
	log_limited(&d->session_limit, LOG_LEVEL_INFO,
		    "model=%s session=%llu event=opened uid=%u pid=%d tenant=%s", e->conf.name,
		    (unsigned long long)s->id, s->uid, (int)s->pid,
		    d->tenants.tenant[tenant].conf.name);
	engine_flush(e);
}

void session_hello(struct session *s, const struct wctl_hello *h, uint32_t n_fds)
{
	const char *why;

	if (h->head.major != WSHM_MAJOR) {
		session_refuse(s, -EPROTONOSUPPORT,
			       "libweft speaks protocol %u, weftd %u: install the same version",
			       h->head.major, WSHM_MAJOR);
		return;
	}
	why = malformed(h, n_fds);
	if (why) {
		session_refuse(s, -EPROTO, "%s", why);
		return;
	}
	s->hello = *h;
	admit(s, true);
}

void session_hello_again(struct session *s, bool may_wait)
{
	s->parked = false;
	loop_rewatch(&s->d->loop, &s->source, EPOLLIN);
	admit(s, may_wait);
}
