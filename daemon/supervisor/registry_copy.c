/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry_copy.c - a child process reads an adapter's two files into memfds of weftd's.
 *
 * The child runs as the engines' user, so an adapter must be readable for that user, just as a
 * model is, and naming a path to weftd opens nothing that one could not have served anyway.
 * Symbolic links are followed (a Hugging Face cache consists of them); what they lead to must be a
 * regular file, which is looked at through O_PATH before it is opened, so that no FIFO blocks and
 * no device acts. The folder is looked up once: if its name is a link that is turned to another
 * version meanwhile, both files are still of one. One child runs at a time. One that makes no
 * progress is given up: killed, and reaped whenever the kernel lets it go.
 */
#include "daemon/supervisor/weftd.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_CONFIG_BYTES (UINT64_C(1) << 20)
#define SLICE_BYTES	 (1u << 20)
#define LOOK_EVERY_NS	 NS_PER_SECOND
#define PATIENCE_NS	 (30 * NS_PER_SECOND)
#define COPY_SEALS	 (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U
#endif

struct copier {
	struct weftd *d;
	struct copier *next;	      /* among the abandoned */
	struct registry_entry *owner; /* borrowed; NULL: abandoned */
	pid_t pid;
	int pidfd, report_fd;
	struct loop_source source;
	struct loop_timer timer;
	uint64_t seen_bytes, moved_ns;
};

/* --- the child ------------------------------------------------------------------------------------*/

enum { CHILD_CONFIG = 3, CHILD_WEIGHTS, CHILD_REPORT };

static void __attribute__((noreturn, format(printf, 1, 2))) give_up(const char *fmt, ...)
{
	char text[WCTL_TEXT_BYTES];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	(void)!write(CHILD_REPORT, text, strlen(text));
	_exit(1);
}

struct folder {
	int fd;
	const char *path; /* borrowed; for what is said of it */
};

static int open_regular(const struct folder *dir, const char *name, struct stat *st)
{
	int fd = openat(dir->fd, name, O_PATH | O_CLOEXEC), again;
	char self[32];

	if (fd < 0 || fstat(fd, st))
		give_up("%s/%s: %s", dir->path, name, strerror(errno));
	if (!S_ISREG(st->st_mode))
		give_up("%s/%s is no regular file", dir->path, name);
	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	again = open(self, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (again < 0)
		give_up("%s/%s: %s", dir->path, name, strerror(errno));
	close(fd);
	return again;
}

static void copy_bytes(int from, int to, uint64_t bytes, const char *name)
{
	char *slice = malloc(SLICE_BYTES);

	while (bytes) {
		ssize_t n =
			slice ? read(from, slice, SLICE_BYTES < bytes ? SLICE_BYTES : bytes) : -1;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			give_up("%s: %s", name, strerror(errno));
		if (!n)
			give_up("%s became shorter while it was read", name);
		for (ssize_t done = 0, w; done < n; done += w) {
			w = write(to, slice + done, (size_t)(n - done));
			if (w <= 0)
				give_up("%s: no memory for its copy: %s", name,
					err_memory_text(errno));
		}
		bytes -= (uint64_t)n;
	}
	free(slice);
}

static void copy_file(const struct folder *dir, const char *name, int to, uint64_t room,
		      const char *limit)
{
	struct stat before, after;
	int fd = open_regular(dir, name, &before);

	if ((uint64_t)before.st_size > room)
		give_up("%s has %lld bytes, %s is %llu", name, (long long)before.st_size, limit,
			(unsigned long long)room);
	copy_bytes(fd, to, (uint64_t)before.st_size, name);
	if (fstat(fd, &after) || after.st_size != before.st_size ||
	    after.st_mtim.tv_sec != before.st_mtim.tv_sec ||
	    after.st_mtim.tv_nsec != before.st_mtim.tv_nsec)
		give_up("%s changed while it was read", name);
}

static void __attribute__((noreturn))
child(const struct registry_entry *it, uint64_t room, pid_t parent, int report)
{
	const int fds[3] = {it->config_fd, it->weights_fd, report};
	const struct weftd *d = it->d;
	struct folder dir = {.path = it->conf.path};
	int err = engine_place_fds(fds, 3);

	if (!err)
		err = privilege_become(d->config.daemon.engine_user, d->engine_uid);
	if (err) /* CHILD_REPORT may not be in place */
		_exit(2);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(0);
	dir.fd = open(dir.path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir.fd < 0)
		give_up("%s/adapter_config.json: %s", dir.path, strerror(errno));
	copy_file(&dir, "adapter_config.json", CHILD_CONFIG, MAX_CONFIG_BYTES, "the limit");
	copy_file(&dir, "adapter_model.safetensors", CHILD_WEIGHTS, room,
		  room < d->config.daemon.max_adapter_bytes ? "what max_adapters_bytes leaves"
							    : "max_adapter_bytes");
	_exit(0);
}

/* --- the parent -----------------------------------------------------------------------------------*/

static void copier_free(struct copier *c)
{
	struct weftd *d = c->d;

	loop_timer_clear(&d->loop, &c->timer);
	loop_unwatch(&d->loop, &c->source);
	if (c->pidfd >= 0)
		close(c->pidfd);
	if (c->report_fd >= 0)
		close(c->report_fd);
	for (struct copier **at = &d->registry.abandoned; *at; at = &(*at)->next)
		if (*at == c) {
			*at = c->next;
			break;
		}
	if (d->registry.running == c)
		d->registry.running = NULL;
	free(c);
}

void copier_abandon(struct registry_entry *it)
{
	struct copier *c = it->copier;

	if (!c)
		return;
	it->copier = NULL;
	c->owner = NULL;
	syscall(SYS_pidfd_send_signal, c->pidfd, SIGKILL, NULL, 0);
	loop_timer_clear(&c->d->loop, &c->timer);
	c->d->registry.running = NULL;
	c->next = c->d->registry.abandoned;
	c->d->registry.abandoned = c;
}

void copiers_fini(struct weftd *d)
{
	while (d->registry.abandoned)
		copier_free(d->registry.abandoned);
}

static uint64_t copied_bytes(const struct registry_entry *it)
{
	struct stat config = {0}, weights = {0};

	if (fstat(it->config_fd, &config) || fstat(it->weights_fd, &weights))
		return 0;
	return (uint64_t)config.st_size + (uint64_t)weights.st_size;
}

/* Nobody can change it from here on; what is kept and handed out can only be read. */
static int seal(int *fd)
{
	int again;

	if (fcntl(*fd, F_ADD_SEALS, COPY_SEALS))
		return -errno;
	again = wshm_open_read_only(*fd);
	if (again < 0)
		return again;
	close(*fd);
	*fd = again;
	return 0;
}

/* What the child had to say, or what can be said of its end. NULL: all is well. */
static const char *outcome(struct copier *c, char *text, size_t bytes)
{
	siginfo_t si = {0};
	ssize_t n;

	while (waitid(P_PIDFD, (id_t)c->pidfd, &si, WEXITED) < 0 && errno == EINTR)
		;
	if (si.si_code == CLD_EXITED && si.si_status == 0)
		return NULL;
	n = read(c->report_fd, text, bytes - 1);
	if (n <= 0)
		n = snprintf(text, bytes, "its files could not be read: %s %d",
			     si.si_code == CLD_EXITED ? "exit status" : "signal", si.si_status);
	text[n] = 0;
	return text;
}

static void on_end(struct loop_source *s, uint32_t events)
{
	struct copier *c = container_of(s, struct copier, source);
	struct registry_entry *it = c->owner;
	char text[WCTL_TEXT_BYTES];
	const char *why = outcome(c, text, sizeof(text));
	int err = 0;

	copier_free(c);
	if (!it)
		return;
	it->copier = NULL;
	it->bytes = copied_bytes(it);
	if (!why)
		err = seal(&it->config_fd);
	if (!why && !err)
		err = seal(&it->weights_fd);
	if (err) {
		snprintf(text, sizeof(text), "its copy cannot be sealed: %s", strerror(-err));
		why = text;
	}
	registry_copied(it, why);
}

static void on_look(struct loop_timer *t)
{
	struct copier *c = container_of(t, struct copier, timer);
	struct registry_entry *it = c->owner;
	uint64_t bytes = copied_bytes(it), now = loop_now_ns();

	if (bytes != c->seen_bytes) {
		c->seen_bytes = bytes;
		c->moved_ns = now;
	} else if (now - c->moved_ns > PATIENCE_NS) {
		copier_abandon(it);
		registry_copied(it, "its files cannot be read: no progress for 30 seconds");
		return;
	}
	loop_timer_set(&c->d->loop, t, now + LOOK_EVERY_NS, on_look);
}

static int make_memfd(const char *name)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

	if (fd < 0 && errno == EINVAL)
		fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return fd < 0 ? -errno : fd;
}

static int spawn(struct copier *c, uint64_t room)
{
	pid_t parent = getpid();
	int pipes[2], err = 0;

	if (pipe2(pipes, O_CLOEXEC | O_NONBLOCK))
		return -errno;
	c->report_fd = pipes[0];
	c->pid = fork();
	if (!c->pid)
		child(c->owner, room, parent, pipes[1]);
	if (c->pid < 0)
		err = -errno;
	close(pipes[1]);
	if (err)
		return err;
	c->pidfd = (int)syscall(SYS_pidfd_open, c->pid, 0);
	if (c->pidfd >= 0) {
		fcntl(c->pidfd, F_SETFD, FD_CLOEXEC);
		err = loop_watch(&c->d->loop, &c->source, c->pidfd, EPOLLIN, on_end);
	} else {
		err = -errno;
	}
	if (err) {
		kill(c->pid, SIGKILL);
		while (waitpid(c->pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	return err;
}

int copier_start(struct registry_entry *it, uint64_t room, struct weft_err *err)
{
	struct copier *c = calloc(1, sizeof(*c));
	int rc = c ? 0 : -ENOMEM;

	it->config_fd = make_memfd("weft-adapter-config");
	it->weights_fd = make_memfd("weft-adapter");
	if (it->config_fd < 0 || it->weights_fd < 0)
		rc = it->config_fd < 0 ? it->config_fd : it->weights_fd;
	if (!rc) {
		*c = (struct copier){.d = it->d, .owner = it, .pidfd = -1, .report_fd = -1};
		c->moved_ns = loop_now_ns();
		rc = spawn(c, room);
	}
	if (rc) {
		if (c && c->d)
			copier_free(c);
		else
			free(c);
		return err_set(err, rc, "its files cannot be copied: %s", strerror(-rc));
	}
	it->copier = c;
	it->d->registry.running = c;
	loop_timer_set(&c->d->loop, &c->timer, loop_now_ns() + LOOK_EVERY_NS, on_look);
	return 0;
}
