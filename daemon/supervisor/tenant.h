/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tenant.h - who a peer is, and what is counted against it.
 *
 * The table only grows while weftd lives: an index, once told to an engine, keeps its meaning over
 * reloads. A tenant that a reload removed stays, for its pins, and is given to nobody; the same name coming
 * back is the same tenant. Accounts count the regions of single uids.
 */
#ifndef WEFT_SUPERVISOR_TENANT_H
#define WEFT_SUPERVISOR_TENANT_H

#include "daemon/supervisor/config.h"

#define TENANT_MAX 256u

struct tenant {
	struct config_tenant conf;
	bool configured; /* stands in the configuration read last */
	uint32_t sessions;
	uint32_t version; /* one more whenever the quota changes: engines are told again */
	bool renewed; /* its domain has another secret, and not yet other regions: see moved.c */
};

struct tenant_account {
	uid_t uid;
	uint64_t bytes;
	uint32_t regions;
	struct tenant_account *next;
};

struct tenants {
	uint32_t n;
	struct tenant *tenant; /* [TENANT_MAX] */
	struct tenant_account *accounts;
};

int tenants_init(struct tenants *t);
void tenants_fini(struct tenants *t);
/* Take over a configuration. 0, or -ENOSPC with nothing changed when the table would overflow. */
int tenants_configure(struct tenants *t, const struct config *c);
/* Index of the tenant of this name, or -ENOENT. */
int tenants_find(const struct tenants *t, const char *name);

/* Bytes and regions now charged to a uid. */
uint64_t tenants_charged(const struct tenants *t, uid_t uid);
uint32_t tenants_regions(const struct tenants *t, uid_t uid);
/* Charge or give back a region. -ENOMEM only when charging a new uid. */
int tenants_charge(struct tenants *t, uid_t uid, uint64_t bytes);
void tenants_discharge(struct tenants *t, uid_t uid, uint64_t bytes);

#endif
