/* SPDX-License-Identifier: Apache-2.0 */
/*
 * domain.c - the state directory and the secrets that were read from it; see domain.h. Owned by
 * weftd's only thread.
 */
#include "daemon/supervisor/domain.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* Whoever may write the directory could put a secret of his own there. */
static int check_directory(int fd, const char *dir, struct weft_err *err)
{
	struct stat st;

	if (fstat(fd, &st))
		return err_set(err, -errno, "state_dir %s: %s", dir, strerror(errno));
	if (st.st_uid != geteuid() || (st.st_mode & 022))
		return err_set(err, -EPERM,
			       "state_dir %s belongs to uid %u and has mode %04o: it must be "
			       "weftd's own (uid %u) and nobody else's to write",
			       dir, (unsigned)st.st_uid, (unsigned)(st.st_mode & 07777),
			       (unsigned)geteuid());
	if (flock(fd, LOCK_EX | LOCK_NB))
		return err_set(err, -EBUSY,
			       "state_dir %s is used by another weftd: stop it first, or choose "
			       "another state_dir",
			       dir);
	return 0;
}

int domains_open(struct domains *d, const char *dir, struct weft_err *err)
{
	*d = (struct domains){.dir_fd = -1};
	if (strlen(dir) >= sizeof(d->dir))
		return err_set(err, -ENAMETOOLONG, "state_dir is longer than %zu bytes",
			       sizeof(d->dir) - 1);
	strcpy(d->dir, dir);
	d->secret = calloc(DOMAIN_MAX, sizeof(*d->secret));
	if (!d->secret)
		return err_set(err, -ENOMEM, "out of memory");
	if (mkdir(dir, 0700) && errno != EEXIST)
		return err_set(err, -errno, "state_dir %s cannot be made: %s", dir,
			       strerror(errno));
	d->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (d->dir_fd < 0)
		return err_set(err, -errno, "state_dir %s: %s", dir, strerror(errno));
	return check_directory(d->dir_fd, dir, err);
}

void domains_fini(struct domains *d)
{
	if (d->secret)
		explicit_bzero(d->secret, DOMAIN_MAX * sizeof(*d->secret));
	free(d->secret);
	if (d->dir_fd >= 0)
		close(d->dir_fd);
	*d = (struct domains){.dir_fd = -1};
}

static struct domain_secret *find(const struct domains *d, const char *tenant)
{
	for (uint32_t i = 0; i < d->n; i++)
		if (!strcmp(d->secret[i].tenant, tenant))
			return &d->secret[i];
	return NULL;
}

const struct domain_secret *domains_secret(const struct domains *d, const char *tenant)
{
	return find(d, tenant);
}

int domains_renew(struct domains *d, const char *tenant, struct weft_err *err)
{
	struct domain_secret *it = find(d, tenant);
	int rc = domain_file(d->dir_fd, d->dir, tenant, true, it->bytes, err);

	if (!rc)
		it->version++;
	return rc;
}

static int take(struct domains *d, const char *tenant, struct weft_err *err)
{
	int rc;

	if (domains_secret(d, tenant))
		return 0;
	if (d->n == DOMAIN_MAX)
		return err_set(err, -ENOSPC, "more than %u tenants since weftd was started",
			       TENANT_MAX);
	rc = domain_file(d->dir_fd, d->dir, tenant, false, d->secret[d->n].bytes, err);
	if (!rc) {
		d->secret[d->n].version = 1;
		strcpy(d->secret[d->n++].tenant, tenant);
	}
	return rc;
}

int domains_configure(struct domains *d, const struct config *c, struct weft_err *err)
{
	int rc = take(d, "", err);

	for (uint32_t i = 0; i < c->n_tenants && !rc; i++)
		rc = take(d, c->tenants[i].name, err);
	return rc;
}
