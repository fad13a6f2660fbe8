/* SPDX-License-Identifier: Apache-2.0 */
/*
 * After fork() the child is told clearly; the parent's stream is not disturbed by whatever it does. So
 * too where the kernel refuses to wipe pages in a child.
 */
#include "tests/e2e/client_util.h"
#include "tests/e2e/fake_daemon.h"
#include "tests/tap.h"

#include <errno.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* Where the session's tx region is mapped. */
static void *tx_mapping(size_t *ret_bytes)
{
	FILE *f = fopen("/proc/self/maps", "r");
	unsigned long from = 0, to = 0;
	char line[300];
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f))
		found = strstr(line, "memfd:weft-tx") && strstr(line, "rw-s") &&
			sscanf(line, "%lx-%lx", &from, &to) == 2;
	if (f)
		fclose(f);
	*ret_bytes = to - from;
	return found ? (void *)from : NULL;
}

/* The region is not inherited, so a child's own memory may come to lie in its place. */
static int child_with_memory(struct weft *w, void *tx, size_t bytes)
{
	unsigned char *p = mmap(tx, bytes, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (p != tx)
		return 1;
	memset(p, 7, bytes);
	weft_close(w);
	return p[0] == 7 && p[bytes - 1] == 7 ? 0 : 2;
}

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

static void forks(void)
{
	struct fake_options fo = {.path = fake_path()};
	struct fake *f = fake_start(&fo);
	struct weft *w = cu_open(NULL);
	struct weft_submit_options o;
	struct weft_request *r;
	size_t tx_bytes;
	void *tx;
	int status;
	pid_t pid;

	atomic_store(&fake_controls_of(f)->stall_at, 20);
	cu_options(&o, 60);
	r = cu_submit(w, &o);
	is_int(weft_wait(r, 0, 19, 60000), 20, "the parent has twenty tokens");
	pid = fork();
	if (!pid)
		_exit(child(w, r));
	waitpid(pid, &status, 0);
	ok(WIFEXITED(status), "the child did not crash");
	is_int(WEXITSTATUS(status), 0, "every call said -EOWNERDEAD, and its own session works");
	tx = tx_mapping(&tx_bytes);
	pid = fork();
	if (!pid)
		_exit(child_with_memory(w, tx, tx_bytes));
	waitpid(pid, &status, 0);
	ok(tx && WIFEXITED(status) && !WEXITSTATUS(status),
	   "closing in a child leaves alone what it has mapped since (status %d)", status);
	atomic_store(&fake_controls_of(f)->stall_at, UINT32_MAX);
	is_int(cu_wait_end(r, 0), 60, "the parent's stream went on");
	ok(cu_right(r, 0, 60), "undisturbed");
	weft_free(r);
	r = cu_submit(w, &o);
	is_int(cu_wait_end(r, 0), 60, "and it can submit");
	weft_close(w);
	fake_kill(f);
}

/* From here on, as a kernel that does not know the advice. */
static int refuse_wiping(void)
{
	scmp_filter_ctx f = seccomp_init(SCMP_ACT_ALLOW);
	int err = f ? seccomp_rule_add(f, SCMP_ACT_ERRNO(EINVAL), SCMP_SYS(madvise), 1,
				       SCMP_A2(SCMP_CMP_EQ, MADV_WIPEONFORK))
		    : -ENOMEM;

	err = err ? err : seccomp_load(f);
	if (f)
		seccomp_release(f);
	return err;
}

int main(void)
{
	forks();
	is_int(refuse_wiping(), 0, "no page is wiped any more");
	forks();
	return tap_done();
}
