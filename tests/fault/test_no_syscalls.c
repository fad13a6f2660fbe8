/* SPDX-License-Identifier: Apache-2.0 */
/*
 * While tokens flow nobody enters the kernel: with poll=always and one compute thread, a filter
 * that kills on any system call stands in the engine's core thread from the first token on, and in
 * the client from its first token to its last. That both die at the next call that they make
 * afterwards shows that the filters were there.
 */
#include "tests/hostile/raw.h"
#include "tests/hostile/world.h"
#include "tests/tap.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define TOKENS 4000u

struct report {
	_Atomic uint32_t started, tokens, last, status;
};

static void forbid_everything(void)
{
	struct sock_filter kill = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	struct sock_fprog program = {1, &kill};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		_exit(9);
}

/* In a child: stream with logprobs; the report says how far it came. Never returns alive. */
static void __attribute__((noreturn)) client(struct world *w, struct report *out)
{
	struct weft_open_options o = WEFT_OPEN_OPTIONS_INIT;
	struct weft_result res = {.size = sizeof(res)};
	struct weft_submit_options so;
	const struct weft_logprob *lp;
	uint32_t prompt[JOB_TOKENS], have = 1;
	struct weft_request *r;
	struct weft *weft;
	int64_t n;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	o.socket = world_socket(w);
	o.flags = WEFT_POLL_ALWAYS;
	if (weft_open(&weft, &o, NULL))
		_exit(8);
	job_options(1, 192, prompt, &so);
	so.max_tokens = TOKENS;
	if (weft_submit(weft, &r, &so, NULL) || weft_wait(r, 0, 0, RAW_PATIENCE_MS) < 1)
		_exit(7);
	forbid_everything();
	atomic_store(&out->started, 1);
	while ((n = weft_wait(r, 0, have, -1)) > have) {
		have = (uint32_t)n;
		if (weft_logprobs(r, 0, have - 1, &lp) > 0)
			atomic_store(&out->last, lp[0].token);
	}
	weft_result(r, &res);
	atomic_store(&out->status, (uint32_t)res.status + 1);
	atomic_store(&out->tokens, (uint32_t)n);
	_exit(0); /* a system call: the filter's proof */
}

int main(void)
{
	struct world *w = world_start(&(struct world_options){
		.model = "kv_bytes = 16M\npoll = always", .env = {"WEFT_TEST_SECCOMP=1"}});
	struct report *out =
		mmap(NULL, sizeof(*out), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t engine, next = 1;
	uint32_t tries = 0;
	int status = 0;

	if (out == MAP_FAILED)
		bail_out("no memory");
	/* A client that sees nothing for a second looks at its socket: if the engine got no processor for so
	 * long, once more. */
	while (next > 0 && tries < 10 && atomic_load(&out->tokens) != TOKENS) {
		pid_t pid;

		tries++;
		memset(out, 0, sizeof(*out));
		engine = world_engine(w);
		pid = fork();
		if (!pid)
			client(w, out);
		waitpid(pid, &status, 0);
		next = world_wait_engine(w, engine, RAW_PATIENCE_MS);
	}
	is_int(atomic_load(&out->started), 1, "the first token came and the filters were set");
	is_int(atomic_load(&out->tokens), TOKENS, "all tokens came");
	is_int(atomic_load(&out->status), WEFT_OK + 1, "and the end");
	ok(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS,
	   "the client dies at its first system call after that");
	ok(next > 0, "and so does the engine, when it wants to sleep");
	is_int(world_number(w, "starts"), 1 + tries, "once");
	world_given_back(w);
	world_stop(w);
	return tap_done();
}
