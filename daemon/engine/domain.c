/* SPDX-License-Identifier: Apache-2.0 */
/*
 * domain.c - who may reuse whose KV.
 *
 * A domain is a tenant's own tree in the cache, under a secret that weftd keeps for it, and the
 * mirror of that tree that the tenant's clients read. weftd sends both before the tenant's first
 * session, and others in their place when a reload may have taken somebody out of the tenant; a tenant
 * without them still gets a domain, with a secret that nobody else has and no mirror.
 *
 * What clients may still be reading goes back late: each session says in its tx region in which
 * epoch its readers are, and the mirror waits for the oldest of them, up to its own limit. Owned by
 * the core thread; the control thread opens mirrors and gives them away.
 */
#include "daemon/engine/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <xxhash.h>

void domain_root(const struct engine *e, struct wshm_root *ret)
{
	/* Everything that decides the bits of a block besides weights and tokens. */
	const struct {
		uint64_t arith_rev, block_bytes;
		uint32_t block_tokens, n_layers, n_kv_heads, head_dim, x_bytes, zero;
	} format = {
		.arith_rev = e->info.arith_rev,
		.block_bytes = e->block_bytes,
		.block_tokens = WK_BLOCK_TOKENS,
		.n_layers = e->config->n_layers,
		.n_kv_heads = e->config->n_kv_heads,
		.head_dim = e->config->head_dim,
		.x_bytes = e->info.x_bytes,
	};
	uint8_t digest[16];

	model_digest(e->model, digest);
	memcpy(ret->model, digest, sizeof(ret->model));
	ret->exactness = XXH3_64bits(&format, sizeof(format));
}

struct domain *domain_find(const struct engine *e, uint32_t number)
{
	struct domain *d = e->domains;

	while (d && d->number != number)
		d = d->next;
	return d;
}

static int domain_new(struct engine *e, const struct domain_open *open)
{
	const struct tenant *t = tenant_get(e, open->number);
	struct domain *d = calloc(1, sizeof(*d));
	int rc = -ENOMEM;

	if (!d)
		goto fail;
	d->number = open->number;
	d->mirror = open->mirror;
	rc = cache_domain_new(e->cache, open->secret, t ? t->quota.weight : 100, open->mirror,
			      &d->cache);
	if (rc)
		goto fail;
	if (d->number == DOMAIN_PUBLIC)
		cache_set_public(e->cache, d->cache);
	d->next = e->domains;
	e->domains = d;
	if (d->mirror)
		adapters_mirror(e, d->mirror);
	return 0;
fail:
	free(d);
	wshm_idx_writer_close(open->mirror);
	return rc;
}

/*
 * Somebody has the old mirror, and the secret that stands in it, who is of this domain no longer. What
 * is cached stays, for those who are, and so do pins and running requests.
 */
static void domain_renew(struct engine *e, struct domain *d, const struct domain_open *open)
{
	/* Its readers are told that it shows nothing before anything more can be cached. */
	wshm_idx_writer_close(d->mirror);
	d->mirror = open->mirror;
	if (cache_domain_renew(d->cache, open->secret, d->mirror)) {
		log_line(LOG_LEVEL_ERROR, "event=domain-renew-failed domain=%u", d->number);
		abort(); /* the next engine begins with the new secret, and with nothing cached */
	}
	if (d->mirror)
		adapters_mirror(e, d->mirror);
}

int domain_set(struct engine *e, const struct domain_open *open)
{
	struct domain *d = domain_find(e, open->number);

	if (!d)
		return domain_new(e, open);
	domain_renew(e, d, open);
	return 0;
}

struct domain *domain_of(struct engine *e, uint32_t number)
{
	struct domain_open open = {.number = number};
	struct domain *d = domain_find(e, number);

	if (d)
		return d;
	if (getrandom(open.secret, sizeof(open.secret), 0) != (ssize_t)sizeof(open.secret) ||
	    domain_new(e, &open))
		return NULL;
	return domain_find(e, number);
}

/* --- the mirrors ---------------------------------------------------------------------------------*/

/* Sessions whose clients can read this domain's mirror: its own, or all of the public one's. */
static uint64_t oldest_reader(const struct engine *e, const struct domain *d)
{
	uint64_t oldest = UINT64_MAX;

	for (const struct session *s = e->sessions; s; s = s->next) {
		uint64_t seen;

		if (d->number != DOMAIN_PUBLIC && s->tenant != d->number)
			continue;
		seen = wshm_engine_oldest_reader(&s->shm);
		if (seen < oldest)
			oldest = seen;
	}
	return oldest;
}

bool domain_reclaim(struct engine *e, uint64_t now)
{
	bool waits = false;

	for (struct domain *d = e->domains; d; d = d->next) {
		if (!d->mirror)
			continue;
		/* Readers are looked at only if there is something to be had: their words are in
		 * memory that clients write. */
		d->waits = wshm_idx_reclaim(d->mirror, 0, now);
		if (d->waits)
			d->waits = wshm_idx_reclaim(d->mirror, oldest_reader(e, d), now);
		waits |= d->waits;
	}
	return waits;
}
