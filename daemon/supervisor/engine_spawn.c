/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine_spawn.c - make the engine's process: its three descriptors, its user, nothing else.
 *
 * The child gets fd 3 (link), 4 (heartbeat page) and 5 (the engine lock, which it only has to keep
 * open); everything above is closed whatever its flags. It dies with weftd (PDEATHSIG) besides
 * seeing its link hang up.
 */
#include "daemon/supervisor/weftd.h"
#include "shm/wshm_files.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_ARGS 32

struct args {
	int n;
	char *argv[MAX_ARGS];
	char numbers[6][24];
	int n_numbers;
};

static void add(struct args *a, const char *option, const char *value)
{
	if (!*value)
		return;
	a->argv[a->n++] = (char *)option;
	a->argv[a->n++] = (char *)value;
}

static void add_number(struct args *a, const char *option, uint64_t value)
{
	char *text = a->numbers[a->n_numbers++];

	if (!value)
		return;
	snprintf(text, sizeof(a->numbers[0]), "%llu", (unsigned long long)value);
	add(a, option, text);
}

static void build_args(struct args *a, const struct engine *e)
{
	const struct config_model *m = &e->conf;

	*a = (struct args){0};
	a->argv[a->n++] = (char *)"weft-engine";
	add(a, "--name", m->name);
	add(a, "--model", m->path);
	add(a, "--backend", m->backend);
	add(a, "--deterministic", m->deterministic);
	add(a, "--dummy-weights", m->dummy_weights);
	add(a, "--poll", m->poll);
	add_number(a, "--threads", m->threads);
	add_number(a, "--kv-bytes", m->kv_bytes);
	add_number(a, "--max-batch-tokens", m->max_batch_tokens);
	add_number(a, "--max-seqs", m->max_seqs);
	add_number(a, "--prefill-chunk", m->prefill_chunk);
	a->argv[a->n++] = (char *)"--files";
}

/* fds[0] becomes WLINK_FD_SOCKET, and so on. All are moved out of the way first, so that
 * none is overwritten before its turn. */
int engine_place_fds(const int *fds, int n)
{
	int high[ENGINE_MAX_FDS];

	for (int i = 0; i < n; i++) {
		high[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 16);
		if (high[i] < 0)
			return -errno;
	}
	for (int i = 0; i < n; i++)
		if (dup2(high[i], WLINK_FD_SOCKET + i) < 0)
			return -errno;
	return syscall(SYS_close_range, WLINK_FD_SOCKET + n, ~0u, 0) ? -errno : 0;
}

static void reset_signals(void)
{
	sigset_t none;

	for (int s = 1; s < NSIG; s++)
		if (s != SIGKILL && s != SIGSTOP)
			signal(s, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* In the child; the parent is single-threaded, so anything may be called here. */
static void __attribute__((noreturn)) child(const struct engine *e, pid_t parent, int link)
{
	const int fds[4] = {link, e->heartbeat_fd, e->d->engine_lock_fd, e->filling_fd};
	struct args args;
	int null, err;

	build_args(&args, e);
	reset_signals();
	err = privilege_become(e->d->config.daemon.engine_user, e->d->engine_uid);
	if (!err) {
		/* After the change of user, which clears it; the parent may be gone already. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(0);
		null = open("/dev/null", O_RDWR);
		if (null >= 0) {
			dup2(null, STDIN_FILENO);
			dup2(null, STDOUT_FILENO);
		}
		err = engine_place_fds(fds, 4);
	}
	if (!err) {
		execv(e->d->engine_path, args.argv);
		err = -errno;
	}
	log_line(LOG_LEVEL_ERROR, "model=%s event=exec-failed path=%s error=\"%s\"", e->conf.name,
		 e->d->engine_path, strerror(-err));
	_exit(127);
}

static int make_heartbeat(struct engine *e)
{
	e->heartbeat_fd = memfd_create("weft-heartbeat", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (e->heartbeat_fd < 0 || ftruncate(e->heartbeat_fd, WSHM_PAGE) ||
	    /* weftd reads it: the engine must not be able to take the page away. */
	    fcntl(e->heartbeat_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		return -errno;
	e->heartbeat = mmap(NULL, WSHM_PAGE, PROT_READ, MAP_SHARED, e->heartbeat_fd, 0);
	if (e->heartbeat == MAP_FAILED) {
		e->heartbeat = NULL;
		return -errno;
	}
	return 0;
}

static int make_link(int pair[2])
{
	/* Room for a few hundred messages; more wait as state (engine_flush). */
	int bytes = 1 << 18;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return -errno;
	setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	/* Only weftd's end: the engine chooses for itself. */
	return fcntl(pair[0], F_SETFL, O_NONBLOCK) ? -errno : 0;
}

static void discard(struct engine *e)
{
	if (e->link >= 0)
		close(e->link);
	if (e->heartbeat)
		munmap(e->heartbeat, WSHM_PAGE);
	if (e->heartbeat_fd >= 0)
		close(e->heartbeat_fd);
	if (e->filling_fd >= 0)
		close(e->filling_fd);
	e->link = e->heartbeat_fd = e->filling_fd = -1;
	e->heartbeat = NULL;
}

int engine_spawn(struct engine *e)
{
	int pair[2] = {-1, -1}, err = make_heartbeat(e);
	pid_t parent = getpid(), pid;

	if (!err) {
		e->filling_fd = wshm_files_new();
		err = e->filling_fd < 0 ? e->filling_fd : 0;
	}
	if (!err)
		err = make_link(pair);
	e->link = pair[0];
	if (err)
		goto fail;
	pid = fork();
	if (!pid)
		child(e, parent, pair[1]);
	if (pid < 0) {
		err = -errno;
		goto fail;
	}
	/* Not reaped by anybody else, so the number still means this child. */
	e->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (e->pidfd < 0) {
		err = -errno;
		kill(pid, SIGKILL);
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		goto fail;
	}
	fcntl(e->pidfd, F_SETFD, FD_CLOEXEC);
	e->pid = pid;
	close(pair[1]);
	return 0;
fail:
	if (pair[1] >= 0)
		close(pair[1]);
	discard(e);
	return err;
}
