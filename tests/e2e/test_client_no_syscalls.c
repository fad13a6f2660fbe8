/* SPDX-License-Identifier: Apache-2.0 */
/*
 * With WEFT_POLL_ALWAYS a program that submits, reads its stream and frees, or asks for its result until
 * there is one, makes no system call: a seccomp filter on the thread kills the process at the first
 * one. As a control, the same filter does kill when the session sleeps.
 */
#include "tests/e2e/client_util.h"
#include "tests/e2e/fake_daemon.h"
#include "tests/tap.h"

#include <errno.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* From here on this thread may only exit. */
static int forbid(void)
{
	scmp_filter_ctx f = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int err;

	if (!f)
		return -1;
	err = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(exit_group), 0);
	if (!err)
		err = seccomp_load(f);
	return err;
}

/* polls: never waits, but asks for the result until there is one. */
static int stream(struct weft *w, const struct weft_submit_options *o, int polls)
{
	struct weft_request *r = cu_submit(w, o);
	int right;

	while (polls && r && cu_status(r) == WEFT_RUNNING)
		;
	right = r && cu_wait_end(r, 0) == o->max_tokens && cu_right(r, 0, o->max_tokens);
	weft_free(r);
	return right;
}

static int child(uint32_t flags)
{
	struct fake_options fo = {.path = fake_path()};
	struct weft_open_options oo = WEFT_OPEN_OPTIONS_INIT;
	struct fake *f = fake_start(&fo);
	struct weft_submit_options o;
	struct weft *w;

	oo.flags = flags;
	w = cu_open(&oo);
	atomic_store(&fake_controls_of(f)->gap_us, 200);
	/* Never asleep: a sleeping engine must be woken, by a system call. */
	atomic_store(&fake_controls_of(f)->busy, 1);
	cu_options(&o, 300);
	if (!w || !stream(w, &o, 0)) /* what the C library does once is done here */
		return 1;
	if (forbid())
		return 2;
	for (int i = 0; i < 4; i++)
		if (!stream(w, &o, i == 3))
			return 3;
	return 0;
}

static int run(uint32_t flags)
{
	int status;
	pid_t pid = fork();

	if (!pid)
		_exit(child(flags));
	waitpid(pid, &status, 0);
	return status;
}

int main(void)
{
	int status = run(WEFT_POLL_ALWAYS);

	/* Whoever sees nothing for a second asks the daemon, which is a system call: if the engine here got
	 * no processor for so long, once more. */
	for (int i = 0; i < 10 && !WIFEXITED(status); i++)
		status = run(WEFT_POLL_ALWAYS);

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	skip_all("sanitizers make system calls of their own");
#endif
	ok(WIFEXITED(status), "no system call in 1,200 tokens of four requests");
	is_int(WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status), 0, "all tokens right");
	status = run(0);
	ok(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS, "the filter kills one that sleeps");
	return tap_done();
}
