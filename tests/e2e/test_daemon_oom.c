/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whose SIGKILL was it? If the kernel ran out of memory while the engine worked it was the kernel's,
 * and the engine's requests are suspects; else it was somebody's, and they are not. /proc/vmstat is
 * a file of this test's own, in a mount namespace of its own.
 */
#include "tests/e2e/daemon_harness.h"
#include "tests/tap.h"

#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <unistd.h>

static char vmstat[] = "/tmp/weft-vmstat-XXXXXX";

static void oom_kills(int n)
{
	FILE *f = fopen(vmstat, "w");

	if (!f || fprintf(f, "nr_free_pages 7\noom_kill %d\noom_kill_disable 9\n", n) < 0 ||
	    fclose(f))
		bail_out(vmstat);
}

/* Kill the engine; how many of its sessions does the next one find to be suspects? */
static long suspects_after_kill(const struct wd *d)
{
	long starts = wd_engine_int(d, 0, "starts");

	kill((pid_t)wd_engine_int(d, 0, "pid"), SIGKILL);
	if (!wd_engine_wait(d, 0, "starts", starts + 1, WD_PATIENCE_MS) ||
	    !wd_engine_wait(d, 0, "engine.resumed", 1, WD_PATIENCE_MS))
		return -1;
	return wd_engine_int(d, 0, "engine.crashed");
}

int main(int argc, char **argv)
{
	struct wctl_hello h;
	struct wd_client c;
	struct wd d;
	int fd;

	wd_engine_or_test(argc, argv);
	fd = mkstemp(vmstat);
	if (fd < 0)
		bail_out(vmstat);
	close(fd);
	oom_kills(5);
	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount(vmstat, "/proc/vmstat", NULL, MS_BIND, NULL)) {
		unlink(vmstat);
		skip_all("needs a mount namespace of its own");
	}
	wd_start(&d, "[model m]\npath = /fake/ok\n");
	wd_hello_init(&h);
	is_int(wd_open(&c, &d, &h), 0, "a session");
	ok(wd_state_wait(&c, WSHM_ENGINE_RUNNING, WD_PATIENCE_MS), "is served");
	is_int(suspects_after_kill(&d), 0, "killed by somebody: no suspect");
	oom_kills(6);
	is_int(suspects_after_kill(&d), 1, "killed while the kernel had no memory: one");
	is_int(suspects_after_kill(&d), 0, "killed by somebody later on: none");
	wd_close(&c);
	is_int(wd_stop(&d), 0, "stopped");
	unlink(vmstat);
	return tap_done();
}
