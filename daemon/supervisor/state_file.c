/* SPDX-License-Identifier: Apache-2.0 */
/* state_file.c - see state_file.h. Nothing is kept in memory. */
#include "daemon/supervisor/state_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int write_all(int fd, const char *p)
{
	for (size_t left = strlen(p); left;) {
		ssize_t n = write(fd, p, left);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		left -= (size_t)n;
	}
	return 0;
}

/* In one piece: json_dumpfd() makes a system call for each bracket and word. */
static int write_json(int fd, const json_t *j)
{
	char *text = json_dumps(j, JSON_COMPACT);
	int rc = text ? write_all(fd, text) : -ENOMEM;

	free(text);
	return rc;
}

static int write_file(int dir_fd, const char *name, const json_t *j)
{
	int fd, rc;

	/* Whatever an earlier try has left, or somebody else: opening a fifo would wait for a reader. */
	unlinkat(dir_fd, name, 0);
	fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	rc = write_json(fd, j);
	if (!rc && fsync(fd))
		rc = -errno;
	if (close(fd) && !rc)
		rc = -errno;
	return rc;
}

int state_file_save(int dir_fd, const char *name, const json_t *j)
{
	char scratch[STATE_NAME_BYTES + 4];
	int rc;

	snprintf(scratch, sizeof(scratch), "%s.new", name);
	rc = write_file(dir_fd, scratch, j);
	if (!rc && renameat(dir_fd, scratch, dir_fd, name))
		rc = -errno;
	if (!rc && fsync(dir_fd))
		rc = -errno;
	if (rc)
		unlinkat(dir_fd, scratch, 0);
	return rc;
}

/* Through a buffer: json_loadfd() makes a system call for each byte. Closes fd. */
static json_t *read_file(int fd)
{
	FILE *f = fdopen(fd, "r");
	json_t *j;

	if (!f) {
		close(fd);
		return NULL;
	}
	j = json_loadf(f, JSON_REJECT_DUPLICATES, NULL);
	fclose(f);
	return j;
}

json_t *state_file_load(int dir_fd, const char *name, const char **why)
{
	int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat st;
	json_t *j;

	*why = NULL;
	if (fd < 0) {
		if (errno != ENOENT)
			*why = strerror(errno);
		return NULL;
	}
	if (fstat(fd, &st))
		*why = strerror(errno);
	else if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 022))
		*why = "it must be a file of weftd's own that nobody else may write";
	if (*why) {
		close(fd);
		return NULL;
	}
	j = read_file(fd);
	if (!j)
		*why = "it is damaged";
	return j;
}
