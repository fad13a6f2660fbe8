/* SPDX-License-Identifier: Apache-2.0 */
/*
 * moved.c - what a reload does when it takes a uid out of a tenant.
 *
 * Clients of a tenant map the index of its domain, in which its secret stands, and nothing can take a
 * mapping from a client, nor from one whose session has ended already. So a tenant that may have lost
 * somebody gets another secret, which the file has before anything else happens, and other regions, which
 * its remaining clients are sent; the old ones are cleared and fed no more. Who may have left is judged by
 * the two configurations alone, and rather too often than too seldom: it costs the tenant nothing that is
 * cached, but an engine computes all its keys anew.
 *
 * Sessions follow their uid: the engine lets go of the session, and takes it up again as the other
 * tenant's, as a new engine does with those of one that was killed. So its requests go on, from the token
 * they were at, with what the other tenant has cached. One whose uid has no tenant any more ends.
 *
 * Owned by weftd's only thread.
 */
#include "daemon/supervisor/weftd.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* --- who may have left ----------------------------------------------------------------------------*/

static bool range_within(const struct config_range *r, const struct config_ranges *all)
{
	for (uint32_t i = 0; i < all->n; i++)
		if (all->range[i].first <= r->first && r->last <= all->range[i].last)
			return true;
	return false;
}

/* false: perhaps, where a range lies over two that adjoin. */
static bool within(const struct config_ranges *a, const struct config_ranges *b)
{
	for (uint32_t i = 0; i < a->n; i++)
		if (!range_within(&a->range[i], b))
			return false;
	return true;
}

static bool same_ranges(const struct config_ranges *a, const struct config_ranges *b)
{
	return a->n == b->n && !memcmp(a->range, b->range, a->n * sizeof(a->range[0]));
}

/* Does every peer get the tenant of the same name from both? */
static bool same_rules(const struct config *a, const struct config *b)
{
	if (a->n_tenants != b->n_tenants)
		return false;
	for (uint32_t i = 0; i < a->n_tenants; i++) {
		const struct config_tenant *x = &a->tenants[i], *y = &b->tenants[i];

		/* In the same order, since a peer may be of groups of several tenants. */
		if (strcmp(x->name, y->name) || !same_ranges(&x->uids, &y->uids) ||
		    !same_ranges(&x->gids, &y->gids) || x->is_default != y->is_default)
			return false;
	}
	return true;
}

static const struct config_tenant *tenant_named(const struct config *c, const char *name)
{
	for (uint32_t i = 0; i < c->n_tenants; i++)
		if (!strcmp(c->tenants[i].name, name))
			return &c->tenants[i];
	return NULL;
}

/*
 * Can a peer that `now` puts into this tenant be put elsewhere by `next`? Not one that is there by its
 * uid and stays in its list: uids come first, and no two tenants claim the same. But one that is there by
 * a group or by default, as soon as anybody's rules change.
 */
static bool may_leave(const struct config *now, const struct config *next, const char *name)
{
	const struct config_tenant *a = tenant_named(now, name), *b = tenant_named(next, name);

	if (!a)
		return false; /* nobody is in it */
	if (!b || !within(&a->uids, &b->uids))
		return true;
	return (a->gids.n || a->is_default) && !same_rules(now, next);
}

/* Has somebody been given a region, or will an engine be told of one? */
static bool has_index(const struct weftd *d, uint32_t tenant)
{
	for (uint32_t i = 0; i < d->n_engines; i++)
		if (d->engines[i].index_fd[tenant] >= 0)
			return true;
	return false;
}

int moved_renew(struct weftd *d, const struct config *next, struct weft_err *err)
{
	int rc = 0;

	for (uint32_t i = 0; i < d->tenants.n && !rc; i++) {
		struct tenant *t = &d->tenants.tenant[i];

		if (!has_index(d, i) || !may_leave(&d->config, next, t->conf.name))
			continue;
		rc = domains_renew(&d->domains, t->conf.name, err);
		t->renewed = !rc;
	}
	return rc;
}

/* --- sessions -------------------------------------------------------------------------------------*/

static void move(struct session *s, int tenant)
{
	struct tenant *all = s->d->tenants.tenant;

	log_limited(&s->d->session_limit, LOG_LEVEL_INFO,
		    "model=%s session=%llu event=moved uid=%u from=%s to=%s", s->engine->conf.name,
		    (unsigned long long)s->id, s->uid, all[s->tenant].conf.name,
		    all[tenant].conf.name);
	/* A session that is open already is not refused for a limit on how many there are. */
	all[s->tenant].sessions--;
	all[tenant].sessions++;
	s->tenant = tenant;
	if (s->link == LINK_ATTACHED)
		s->link = LINK_DETACH; /* and attached again by on_detached() */
}

static void judge(struct session *s, struct moved *m)
{
	int tenant = session_tenant(s);
	bool moves = tenant >= 0 && tenant != s->tenant;
	char why[WCTL_TEXT_BYTES];

	if (tenant < 0) {
		m->ended++;
		snprintf(why, sizeof(why), "uid %u belongs to no tenant of weftd.conf any more",
			 s->uid);
		session_end(s, -EACCES, why);
	} else if (moves && s->d->draining) {
		session_end(s, -ESHUTDOWN, "weftd is shutting down");
	} else if (moves) {
		m->sessions++;
		move(s, tenant);
		session_send_index(s);
	} else if (s->d->tenants.tenant[tenant].renewed) {
		session_send_index(s);
	}
}

struct moved moved_apply(struct weftd *d)
{
	struct moved m = {0};

	for (uint32_t i = 0; i < d->tenants.n; i++) {
		m.renewed += d->tenants.tenant[i].renewed;
		for (uint32_t k = 0; k < d->n_engines && d->tenants.tenant[i].renewed; k++)
			engine_forget_index(&d->engines[k], i);
	}
	for (struct session *s = d->sessions, *next; s; s = next) {
		next = s->next;
		if (s->state == SESSION_OPEN)
			judge(s, &m);
	}
	for (uint32_t i = 0; i < d->tenants.n; i++)
		d->tenants.tenant[i].renewed = false;
	return m;
}
