/* SPDX-License-Identifier: Apache-2.0 */
/* After fork() the child is told clearly; the parent's stream is not disturbed by whatever it does. */
#include "tests/e2e/client_util.h"
#include "tests/e2e/fake_daemon.h"
#include "tests/tap.h"

#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

static int child(struct weft *w, struct weft_request *r)
{
	struct weft_result res = {.size = sizeof(res)};
	struct weft_request *other = NULL, *got[1];
	const struct weft_logprob *lp;
	struct weft_submit_options o;
	struct weft_error e = {0};
	struct weft_model m;
	uint32_t n = 99;

	cu_options(&o, 5);
	if (weft_submit(w, &other, &o, &e) != -EOWNERDEAD || other || !strstr(e.message, "fork"))
		return 1;
	if (weft_wait(r, 0, 0, 100) != -EOWNERDEAD || weft_cancel(r) != -EOWNERDEAD)
		return 2;
	if (weft_wait_any(w, got, 1, 100) != -EOWNERDEAD || weft_event_fd(w) != -EOWNERDEAD ||
	    weft_event_arm(w) != -EOWNERDEAD)
		return 3;
	if (weft_result(r, &res) != -EOWNERDEAD || weft_logprobs(r, 0, 0, &lp) != -EOWNERDEAD)
		return 4;
	if (weft_tokens(r, 0, &n) || n)
		return 5;
	if (weft_model_info(w, &m) != -EOWNERDEAD)
		return 6;
	weft_free(r);
	weft_close(w);
	w = cu_open(NULL);
	if (!w)
		return 7;
	r = cu_submit(w, &o);
	if (!r || cu_wait_end(r, 0) != 5 || !cu_right(r, 0, 5))
		return 8;
	weft_close(w);
	return 0;
}

int main(void)
{
	struct fake_options fo = {.path = fake_path()};
	struct fake *f = fake_start(&fo);
	struct weft *w = cu_open(NULL);
	struct weft_submit_options o;
	struct weft_request *r;
	int status;
	pid_t pid;

	atomic_store(&fake_controls_of(f)->stall_at, 20);
	cu_options(&o, 60);
	r = cu_submit(w, &o);
	is_int(weft_wait(r, 0, 19, 5000), 20, "the parent has twenty tokens");
	pid = fork();
	if (!pid)
		_exit(child(w, r));
	waitpid(pid, &status, 0);
	ok(WIFEXITED(status), "the child did not crash");
	is_int(WEXITSTATUS(status), 0, "every call said -EOWNERDEAD, and its own session works");
	atomic_store(&fake_controls_of(f)->stall_at, UINT32_MAX);
	is_int(cu_wait_end(r, 0), 60, "the parent's stream went on");
	ok(cu_right(r, 0, 60), "undisturbed");
	weft_free(r);
	r = cu_submit(w, &o);
	is_int(cu_wait_end(r, 0), 60, "and it can submit");
	weft_close(w);
	fake_kill(f);
	return tap_done();
}
