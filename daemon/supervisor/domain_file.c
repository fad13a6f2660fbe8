/* SPDX-License-Identifier: Apache-2.0 */
/*
 * domain_file.c - one secret on disk.
 *
 *   public.secret              of the public domain
 *   tenant-NAME.secret         of a tenant; what is no letter, digit, '_' or '-' stands as %XX
 *
 * A new one is written to NAME.new, synced and linked into place, which fails where something is
 * already; one that takes another's place is renamed over it. So a secret is whole or absent, whenever
 * weftd is killed, and one that was replaced does not come back. Nothing is kept in memory.
 */
#include "daemon/supervisor/domain.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_BYTES (3 * WCTL_NAME_BYTES + 32)

static void file_name(char ret[FILE_BYTES], const char *tenant)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789_-";
	char *at = ret;

	if (!*tenant) {
		strcpy(ret, "public.secret");
		return;
	}
	at += sprintf(at, "tenant-");
	for (; *tenant; tenant++)
		at += sprintf(at, strchr(plain, *tenant) ? "%c" : "%%%02X", (unsigned char)*tenant);
	strcpy(at, ".secret");
}

static int check_file(int fd, const char *dir, const char *name, struct weft_err *err)
{
	struct stat st;

	if (fstat(fd, &st))
		return err_set(err, -errno, "%s/%s: %s", dir, name, strerror(errno));
	if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077))
		return err_set(err, -EPERM,
			       "%s/%s must be a file of uid %u and mode 0600, because who knows a "
			       "domain's secret can ask what is in its cache",
			       dir, name, (unsigned)geteuid());
	if (st.st_size != WSHM_SECRET_BYTES)
		return err_set(
			err, -EBADMSG,
			"%s/%s has %lld bytes instead of %u: bring it back from a backup, or "
			"remove it (what was cached under it will not be found again)",
			dir, name, (long long)st.st_size, WSHM_SECRET_BYTES);
	return 0;
}

/* 0, -ENOENT without a word in err, or an error. */
static int read_secret(int dir_fd, const char *dir, const char *name,
		       uint8_t ret[WSHM_SECRET_BYTES], struct weft_err *err)
{
	int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC), rc;
	uint8_t bytes[WSHM_SECRET_BYTES];

	if (fd < 0 && errno == ENOENT)
		return -ENOENT;
	if (fd < 0)
		return err_set(err, -errno, "%s/%s: %s", dir, name, strerror(errno));
	rc = check_file(fd, dir, name, err);
	if (!rc && read(fd, bytes, sizeof(bytes)) != (ssize_t)sizeof(bytes))
		rc = err_set(err, -EIO, "%s/%s cannot be read", dir, name);
	if (!rc)
		memcpy(ret, bytes, sizeof(bytes));
	explicit_bzero(bytes, sizeof(bytes));
	close(fd);
	return rc;
}

static int write_secret(int dir_fd, const char *scratch, const uint8_t bytes[WSHM_SECRET_BYTES])
{
	int fd =
		openat(dir_fd, scratch, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	int rc = 0;
	ssize_t n;

	if (fd < 0)
		return -errno;
	/* The umask may have taken bits, and never gives any. */
	if (fchmod(fd, 0600))
		rc = -errno;
	n = rc ? 0 : write(fd, bytes, WSHM_SECRET_BYTES);
	if (!rc && n != (ssize_t)WSHM_SECRET_BYTES)
		rc = n < 0 ? -errno : -ENOSPC;
	if (!rc && fsync(fd))
		rc = -errno;
	if (close(fd) && !rc)
		rc = -errno;
	return rc;
}

static int make_secret(int dir_fd, const char *name, bool replace)
{
	char scratch[FILE_BYTES + 8];
	uint8_t bytes[WSHM_SECRET_BYTES];
	int rc = 0;

	if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
		return -EIO;
	snprintf(scratch, sizeof(scratch), "%s.new", name);
	/* Left by a weftd that was killed here; the directory is locked. */
	if (unlinkat(dir_fd, scratch, 0) && errno != ENOENT)
		rc = -errno;
	if (!rc)
		rc = write_secret(dir_fd, scratch, bytes);
	if (!rc && (replace ? renameat(dir_fd, scratch, dir_fd, name)
			    : linkat(dir_fd, scratch, dir_fd, name, 0)))
		rc = -errno;
	unlinkat(dir_fd, scratch, 0);
	if (!rc && fsync(dir_fd))
		rc = -errno;
	explicit_bzero(bytes, sizeof(bytes));
	return rc;
}

int domain_file(int dir_fd, const char *dir, const char *tenant, bool replace,
		uint8_t ret[WSHM_SECRET_BYTES], struct weft_err *err)
{
	char name[FILE_BYTES];
	int rc;

	file_name(name, tenant);
	rc = replace ? -ENOENT : read_secret(dir_fd, dir, name, ret, err);
	if (rc != -ENOENT)
		return rc;
	rc = make_secret(dir_fd, name, replace);
	if (rc)
		return err_set(err, rc, "%s/%s cannot be written: %s", dir, name, strerror(-rc));
	/* What counts is what a later weftd will find. */
	rc = read_secret(dir_fd, dir, name, ret, err);
	return rc == -ENOENT ? err_set(err, rc, "%s/%s vanished", dir, name) : rc;
}
