/* SPDX-License-Identifier: Apache-2.0 */
/* tenant.c - see tenant.h. Owned by weftd's only thread. */
#include "daemon/supervisor/tenant.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int tenants_init(struct tenants *t)
{
	*t = (struct tenants){.tenant = calloc(TENANT_MAX, sizeof(struct tenant))};
	return t->tenant ? 0 : -ENOMEM;
}

void tenants_fini(struct tenants *t)
{
	while (t->accounts) {
		struct tenant_account *a = t->accounts;

		t->accounts = a->next;
		free(a);
	}
	free(t->tenant);
	*t = (struct tenants){0};
}

int tenants_find(const struct tenants *t, const char *name)
{
	for (uint32_t i = 0; i < t->n; i++)
		if (!strcmp(t->tenant[i].conf.name, name))
			return (int)i;
	return -ENOENT;
}

int tenants_configure(struct tenants *t, const struct config *c)
{
	uint32_t fresh = 0;

	for (uint32_t i = 0; i < c->n_tenants; i++)
		fresh += tenants_find(t, c->tenants[i].name) < 0;
	if (t->n + fresh > TENANT_MAX)
		return -ENOSPC;
	for (uint32_t i = 0; i < t->n; i++)
		t->tenant[i].configured = false;
	for (uint32_t i = 0; i < c->n_tenants; i++) {
		int index = tenants_find(t, c->tenants[i].name);
		struct tenant *it = &t->tenant[index < 0 ? t->n++ : (uint32_t)index];

		if (index < 0 ||
		    memcmp(&it->conf.quota, &c->tenants[i].quota, sizeof(it->conf.quota)))
			it->version++;
		it->conf = c->tenants[i];
		it->configured = true;
	}
	return 0;
}

static struct tenant_account *account(const struct tenants *t, uid_t uid)
{
	struct tenant_account *a = t->accounts;

	while (a && a->uid != uid)
		a = a->next;
	return a;
}

uint64_t tenants_charged(const struct tenants *t, uid_t uid)
{
	const struct tenant_account *a = account(t, uid);

	return a ? a->bytes : 0;
}

uint32_t tenants_regions(const struct tenants *t, uid_t uid)
{
	const struct tenant_account *a = account(t, uid);

	return a ? a->regions : 0;
}

int tenants_charge(struct tenants *t, uid_t uid, uint64_t bytes)
{
	struct tenant_account *a = account(t, uid);

	if (!a) {
		a = calloc(1, sizeof(*a));
		if (!a)
			return -ENOMEM;
		a->uid = uid;
		a->next = t->accounts;
		t->accounts = a;
	}
	a->bytes += bytes;
	a->regions++;
	return 0;
}

void tenants_discharge(struct tenants *t, uid_t uid, uint64_t bytes)
{
	for (struct tenant_account **at = &t->accounts; *at; at = &(*at)->next) {
		struct tenant_account *a = *at;

		if (a->uid != uid)
			continue;
		assert(a->bytes >= bytes && a->regions);
		a->bytes -= bytes;
		if (!--a->regions) {
			*at = a->next;
			free(a);
		}
		return;
	}
}
