/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every kind of system call that weftd makes fails once, at each of its first few times: weftd
 * either says at its start what is wrong and exits with 1, or goes on, serves the next client, and
 * ends in good order. strace makes the calls fail.
 */
#include "tests/e2e/daemon_harness.h"
#include "tests/tap.h"

#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct {
	const char *call, *error;
	int times;
} faults[] = {
	{"memfd_create", "ENOMEM", 6},
	{"eventfd2", "EMFILE", 2},
	{"socketpair", "EMFILE", 3},
	{"accept4", "EMFILE", 2},
	{"accept4", "ECONNABORTED", 2},
	{"epoll_ctl", "ENOMEM", 9},
	{"fallocate", "EOPNOTSUPP", 2},
	{"fchmod", "EPERM", 3},
	{"ftruncate", "ENOMEM", 4},
	{"sendmsg", "ENOBUFS", 4},
	{"recvmsg", "ENOMEM", 4},
	{"pidfd_open", "EMFILE", 2},
	{"getsockopt", "ENOBUFS", 4},
	{"bind", "EADDRINUSE", 2},
	{"signalfd4", "EMFILE", 1},
	{"epoll_create1", "EMFILE", 1},
	{"clone", "EAGAIN", 2},
	{"waitid", "EINTR", 2},
	{"fsync", "EIO", 5},
	{"linkat", "EACCES", 2},
	{"flock", "ENOLCK", 3},
	{"mkdir", "ENOSPC", 1},
	{"pipe2", "EMFILE", 1},
};

/* weftd runs under strace, whose child it is; strace passes its exit status on. */
static pid_t child_of(pid_t parent)
{
	char path[64];
	int pid = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)parent, (int)parent);
	f = fopen(path, "r");
	if (!f || fscanf(f, "%d", &pid) != 1)
		pid = 0;
	if (f)
		fclose(f);
	return pid;
}

/* Until somebody listens or weftd is gone. */
static void settle(struct wd *d)
{
	for (int i = 0; i < WD_PATIENCE_MS / 10; i++) {
		int sock = wd_connect(d);
		siginfo_t si = {0};

		if (sock >= 0) {
			close(sock);
			return;
		}
		if (!waitid(P_PID, (id_t)d->pid, &si, WEXITED | WNOHANG | WNOWAIT) && si.si_pid)
			return;
		wd_sleep_ms(10);
	}
}

/* One of a few clients in a row must be served: the fault is used up by the others. */
static int serves(struct wd *d)
{
	struct wctl_hello h;

	wd_hello_init(&h);
	for (int i = 0; i < 5; i++) {
		struct wd_client c;
		int good = !wd_open(&c, d, &h) &&
			   wd_state_wait(&c, WSHM_ENGINE_RUNNING, WD_PATIENCE_MS);

		wd_close(&c);
		if (good)
			return 1;
	}
	return 0;
}

static void put(const struct wd *d, const char *name, const char *text)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", d->dir, name);
	f = fopen(path, "w");
	if (!f || fputs(text, f) < 0 || fclose(f))
		bail_out(path);
}

/* A model with an adapter: copying that makes calls of its own. */
static void configure(const struct wd *d)
{
	char text[256];

	put(d, "adapter_config.json", "ok");
	put(d, "adapter_model.safetensors", "weights");
	snprintf(text, sizeof(text), "[model m]\npath = /fake/ok\n[adapter a]\npath = %s\n",
		 d->dir);
	put(d, "weftd.conf", text);
}

static void one(const char *call, const char *error, int when)
{
	char inject[96];
	struct wd d;
	int served, status;
	pid_t pid;

	snprintf(inject, sizeof(inject), "%s:error=%s:when=%d", call, error, when);
	wd_prepare(&d, "");
	configure(&d);
	d.inject = inject;
	wd_spawn(&d);
	settle(&d);
	served = serves(&d);
	pid = child_of(d.pid);
	if (pid && served) /* else it is about to end by itself */
		kill(pid, SIGTERM);
	status = wd_wait(&d);
	if (served)
		is_int(status, 0, "%s: serves, and ends in good order", inject);
	else
		ok(status == 1 && wd_logged(&d, "\nweftd: "),
		   "%s: does not start, and says why (%d)", inject, status);
	wd_stop(&d);
}

static int mode_of(const struct wd *d, const char *name)
{
	char path[128];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", d->dir, name);
	return stat(path, &st) ? -errno : (int)(st.st_mode & 07777);
}

/* Clients that wait for a weftd to come back take it for good if they may not connect. So the mode
 * is right without any chmod(), which would come a moment too late. */
static void test_modes(void)
{
	char inject[] = "?chmod,fchmodat:retval=0";
	struct wd d;
	pid_t pid;

	wd_prepare(&d, "[daemon]\nsocket_mode = 0666\n[model m]\npath = /fake/ok\n");
	d.inject = inject;
	wd_spawn(&d);
	settle(&d);
	is_int(mode_of(&d, "weftd.sock"), 0666, "the clients' socket has its mode from the start");
	is_int(mode_of(&d, "admin.sock"), 0660, "and the administrators'");
	pid = child_of(d.pid);
	if (pid)
		kill(pid, SIGTERM);
	is_int(wd_wait(&d), 0, "ended");
	wd_stop(&d);
}

int main(int argc, char **argv)
{
	wd_engine_or_test(argc, argv);
	if (system("strace -qq -o /dev/null -e trace=none true 2>/dev/null"))
		skip_all("strace cannot trace here");
	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
		for (int when = 1; when <= faults[i].times; when++)
			one(faults[i].call, faults[i].error, when);
	test_modes();
	return tap_done();
}
