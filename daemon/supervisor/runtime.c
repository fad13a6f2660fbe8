/* SPDX-License-Identifier: Apache-2.0 */
/*
 * runtime.c - the runtime directory: who may serve from it, and its sockets.
 *
 *   weftd.lock    held by the one weftd of this directory; names its process
 *   engine.lock   held by weftd and, through inheritance, by each engine: a weftd that follows a
 *                 killed one waits here until the last engine of its predecessor is gone
 *
 * Whoever holds both locks owns the sockets, so those of a dead weftd are simply replaced.
 */
#include "daemon/supervisor/weftd.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83 /* Linux 6.16 */
#endif

/* An engine whose link has hung up has only a step to finish; one that hangs dies by PDEATHSIG. */
#define ENGINE_WAIT_MS 30000
#define ORPHAN_WAIT_MS 10000

static int lock_file(const char *dir, const char *name, struct weft_err *err)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
	return fd < 0 ? err_set(err, -errno, "%s: %s", path, strerror(errno)) : fd;
}

static void pause_ms(long ms)
{
	const struct timespec t = {.tv_nsec = ms * 1000000};

	nanosleep(&t, NULL);
}

/* The process that the lock names; 0: none, or none yet. */
static pid_t lock_holder(int fd)
{
	char text[32] = "";

	if (pread(fd, text, sizeof(text) - 1, 0) < 0)
		return 0;
	return (pid_t)strtol(text, NULL, 10);
}

static int refuse_second(const struct weftd *d, pid_t holder, struct weft_err *err)
{
	char process[32] = "unknown";

	if (holder)
		snprintf(process, sizeof(process), "%d", (int)holder);
	return err_set(err, -EBUSY,
		       "another weftd (process %s) serves %s: stop it first, "
		       "or choose another --runtime-dir",
		       process, d->runtime_dir);
}

/*
 * A child that a killed weftd had just made holds the lock until it has closed what it inherited,
 * or has seen that it is orphaned: so one that names a dead process is waited for. So is one that
 * names none: its holder has yet to write, or died before.
 */
static int take_lock(struct weftd *d, struct weft_err *err)
{
	uint64_t give_up = loop_now_ns() + ORPHAN_WAIT_MS * NS_PER_MS;
	char holder[32] = "";

	d->lock_fd = lock_file(d->runtime_dir, "weftd.lock", err);
	if (d->lock_fd < 0)
		return d->lock_fd;
	while (flock(d->lock_fd, LOCK_EX | LOCK_NB)) {
		pid_t pid = lock_holder(d->lock_fd);

		bool alive = pid && (!kill(pid, 0) || errno != ESRCH);

		if (alive || loop_now_ns() > give_up)
			return refuse_second(d, pid, err);
		pause_ms(5);
	}
	snprintf(holder, sizeof(holder), "%d\n", (int)getpid());
	if (ftruncate(d->lock_fd, 0) ||
	    pwrite(d->lock_fd, holder, strlen(holder), 0) != (ssize_t)strlen(holder))
		return err_set(err, -errno, "%s/weftd.lock: %s", d->runtime_dir, strerror(errno));
	return 0;
}

static int wait_engines_gone(struct weftd *d, struct weft_err *err)
{
	uint64_t give_up = loop_now_ns() + ENGINE_WAIT_MS * NS_PER_MS;
	bool said = false;

	d->engine_lock_fd = lock_file(d->runtime_dir, "engine.lock", err);
	if (d->engine_lock_fd < 0)
		return d->engine_lock_fd;
	while (flock(d->engine_lock_fd, LOCK_EX | LOCK_NB)) {
		if (loop_now_ns() > give_up)
			return err_set(
				err, -EBUSY,
				"an engine of the weftd before this one is still running and "
				"holds %s/engine.lock: end it",
				d->runtime_dir);
		if (!said)
			log_line(LOG_LEVEL_NOTICE, "event=waiting why=\"an engine of the weftd "
						   "before this one is still ending\"");
		said = true;
		pause_ms(20);
	}
	return 0;
}

int runtime_listen(const char *dir, const char *name, int type, uint32_t mode, struct weft_err *err)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	mode_t before;
	int no = 0;

	if (fd < 0)
		return err_set(err, -errno, "socket: %s", strerror(errno));
	/* Nobody needs to send us descriptors, and closing the last copy of one can take as long as
	 * its owner likes (SO_LINGER). Accepted sockets inherit this; an older kernel does not know
	 * it, and then weftd can be held up. */
	if (setsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, &no, sizeof(no)))
		log_line(LOG_LEVEL_NOTICE,
			 "event=descriptors-accepted socket=%s why=\"this kernel is older than "
			 "6.16: "
			 "a local user can hold up weftd by descriptors that are slow to close\"",
			 name);
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/%s", dir, name);
	unlink(sa.sun_path);
	/* It is born with the mode that it shall have: clients of an earlier weftd try to connect all the
	 * time, and who may not takes that for an answer. */
	before = umask(0777 & ~mode);
	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa))) {
		err_set(err, -errno, "%s: %s", sa.sun_path, strerror(errno));
	} else if (chmod(sa.sun_path, mode) || listen(fd, 128)) {
		err_set(err, -errno, "%s: %s", sa.sun_path, strerror(errno));
	} else {
		umask(before);
		return fd;
	}
	umask(before);
	close(fd);
	return err->code;
}

/* Whoever may write the directory can put a socket of his own in the place of ours; in a sticky one
 * (/tmp) only its owner can. */
static int check_directory(const char *dir, struct weft_err *err)
{
	struct stat st;

	if (stat(dir, &st))
		return err_set(err, -errno, "%s: %s", dir, strerror(errno));
	if ((st.st_uid && st.st_uid != geteuid()) ||
	    ((st.st_mode & 022) && !(st.st_mode & S_ISVTX)))
		return err_set(err, -EPERM,
			       "%s belongs to uid %u and has mode %04o: the runtime directory must "
			       "be weftd's own (uid %u) or root's, and nobody else's to write",
			       dir, (unsigned)st.st_uid, (unsigned)(st.st_mode & 07777),
			       (unsigned)geteuid());
	return 0;
}

int runtime_open(struct weftd *d, struct weft_err *err)
{
	int rc;

	if (mkdir(d->runtime_dir, 0755) && errno != EEXIST)
		return err_set(err, -errno, "%s cannot be made: %s", d->runtime_dir,
			       strerror(errno));
	rc = check_directory(d->runtime_dir, err);
	if (rc)
		return rc;
	rc = take_lock(d, err);
	if (rc)
		return rc;
	rc = wait_engines_gone(d, err);
	d->owns_runtime = !rc;
	return rc;
}

int runtime_listen_clients(struct weftd *d, struct weft_err *err)
{
	d->client_fd = runtime_listen(d->runtime_dir, "weftd.sock", SOCK_SEQPACKET,
				      d->config.daemon.socket_mode, err);
	return d->client_fd < 0 ? d->client_fd : 0;
}

static void remove_socket(const struct weftd *d, const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", d->runtime_dir, name);
	unlink(path);
}

void runtime_close(struct weftd *d)
{
	if (d->owns_runtime) {
		remove_socket(d, "weftd.sock");
		remove_socket(d, "admin.sock");
	}
	if (d->client_fd >= 0)
		close(d->client_fd);
	if (d->engine_lock_fd >= 0)
		close(d->engine_lock_fd);
	if (d->lock_fd >= 0)
		close(d->lock_fd);
	d->client_fd = d->engine_lock_fd = d->lock_fd = -1;
}
