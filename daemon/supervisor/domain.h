/* SPDX-License-Identifier: Apache-2.0 */
/*
 * domain.h - the secrets of domains, on disk and in memory, and their index regions.
 *
 * A domain is a tenant's (same number) or the public one (WLINK_PUBLIC). Its secret names KV
 * blocks, so it outlives engines and weftd: a file of 192 random bytes and mode 0600 in the state
 * directory. A file that is short, long, readable by others or not to be read at all is an error
 * that names it; a secret is never replaced in silence, because everything that was named by the
 * old one would be lost. Its index regions, one per engine, live as long as weftd.
 *
 * Except that a reload may take somebody out of a tenant who has mapped its index, and has read the
 * secret there: then the domain gets another secret and other regions, and the old ones are fed no more
 * (weftd_reload()). If the configuration changes while weftd does not run that is not needed: the next
 * one makes regions that nobody has, and who knows a secret and sees no region can ask nothing with it.
 */
#ifndef WEFT_SUPERVISOR_DOMAIN_H
#define WEFT_SUPERVISOR_DOMAIN_H

#include "daemon/common/err.h"
#include "daemon/supervisor/tenant.h"

#include <stdbool.h>
#include <stdint.h>

#define DOMAIN_MAX	(TENANT_MAX + 1u)
#define STATE_DIR_BYTES CONFIG_TEXT_BYTES

struct domain_secret {
	char tenant[WCTL_NAME_BYTES]; /* "": the public domain, which no tenant's name can be */
	uint8_t bytes[WSHM_SECRET_BYTES];
	uint32_t version; /* one more whenever it is replaced: engines are told again */
};

struct domains {
	char dir[STATE_DIR_BYTES];
	int dir_fd; /* -1: not open; holds the lock of the directory */
	uint32_t n;
	struct domain_secret *secret; /* [DOMAIN_MAX] */
};

/* Open the state directory, make it if it is missing; there is one weftd to a directory. */
int domains_open(struct domains *d, const char *dir, struct weft_err *err);
void domains_fini(struct domains *d); /* after domains_open() failed, too */
/* Read or make the secrets of the public domain and of all tenants of a configuration. On failure
 * some may have been made, which does no harm. */
int domains_configure(struct domains *d, const struct config *c, struct weft_err *err);
/* The secret of a tenant by its name, "": of the public domain. NULL: never configured. */
const struct domain_secret *domains_secret(const struct domains *d, const char *tenant);
/* Give a tenant that was configured another one. On failure it has its old one, or in the file already the
 * new one: either is as good for the next weftd. */
int domains_renew(struct domains *d, const char *tenant, struct weft_err *err);

/* domain_file.c: read the secret of this tenant, or make it; replace: make another one. */
int domain_file(int dir_fd, const char *dir, const char *tenant, bool replace,
		uint8_t ret[WSHM_SECRET_BYTES], struct weft_err *err);

#endif
