/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_engine_quiet.c - nothing runs when nothing is asked, and tokens cost no system call.
 *
 * Idle: over a second no thread of the engine is scheduled once. Busy, with --poll always and one
 * compute thread: the core thread is traced, and between two tokens far apart it makes no system
 * call at all.
 */
#include "tests/e2e/engine_harness.h"
#include "tests/tap.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint32_t prompt[40];

/* Context switches of all threads of a process, voluntary or not. */
static uint64_t switches(pid_t pid)
{
	char path[300], line[256];
	uint64_t sum = 0;
	struct dirent *d;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	while (dir && (d = readdir(dir))) {
		unsigned long long n;
		FILE *f;

		snprintf(path, sizeof(path), "/proc/%d/task/%s/status", (int)pid, d->d_name);
		f = fopen(path, "r");
		while (f && fgets(line, sizeof(line), f))
			if (sscanf(line, "voluntary_ctxt_switches: %llu", &n) == 1 ||
			    sscanf(line, "nonvoluntary_ctxt_switches: %llu", &n) == 1)
				sum += n;
		if (f)
			fclose(f);
	}
	if (dir)
		closedir(dir);
	return sum;
}

static pid_t core_thread(pid_t pid)
{
	char path[300], name[32];
	pid_t tid = -1;
	struct dirent *d;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	while (dir && (d = readdir(dir))) {
		FILE *f;

		snprintf(path, sizeof(path), "/proc/%d/task/%s/comm", (int)pid, d->d_name);
		f = fopen(path, "r");
		if (f && fgets(name, sizeof(name), f) && !strcmp(name, "weft-core\n"))
			tid = atoi(d->d_name);
		if (f)
			fclose(f);
	}
	if (dir)
		closedir(dir);
	return tid;
}

static struct eh_session *start(struct eh *h, const char *poll, const char *threads)
{
	eh_init(h, eh_model_dir("llama"));
	eh_arg(h, "--poll");
	eh_arg(h, poll);
	eh_arg(h, "--threads");
	eh_arg(h, threads);
	eh_start(h);
	return eh_open(h, 0, 8, 1 << 20);
}

static void test_idle(const char *poll)
{
	struct timespec second = {.tv_sec = 1};
	struct eh_session *s;
	struct wshm_desc d;
	uint64_t before, more = 1;
	struct eh_req r;
	struct eh h;

	s = start(&h, poll, "2");
	eh_desc(&d);
	for (int i = 0; i < 20; i++) {
		eh_submit(s, &d, prompt, 40, NULL, &r);
		eh_wait(&r);
		eh_release(&r);
	}
	eh_expect(&h, WLINK_IDLE, NULL, 0);
	/* The control thread goes back to sleep after telling, when it gets a processor. */
	for (int i = 0; i < 20 && more; i++) {
		before = switches(h.pid);
		nanosleep(&second, NULL);
		more = switches(h.pid) - before;
	}
#ifdef __SANITIZE_THREAD__
	skip(1, "the thread sanitizer has a thread of its own that wakes");
#else
	is_int(more, 0, "poll=%s: an idle engine is not scheduled once in a second", poll);
#endif
	eh_submit(s, &d, prompt, 40, NULL, &r);
	ok(eh_wait(&r) && eh_status(&r) == WSHM_OK, "and wakes when asked");
	eh_stop(&h);
}

/* Let a traced thread go on from whatever stopped it; true if that was a system call. */
static bool on_stop(pid_t tid, int status)
{
	bool call = WIFSTOPPED(status) && WSTOPSIG(status) == (SIGTRAP | 0x80);

	ptrace(PTRACE_SYSCALL, tid, NULL, NULL);
	return call;
}

static void test_no_calls(void)
{
	uint32_t calls = 0, asleep = 0;
	struct eh_session *s;
	struct wshm_desc d;
	struct eh_req r;
	uint64_t until;
	struct eh h;
	int status;
	pid_t tid;

	s = start(&h, "always", "1");
	eh_desc(&d);
	eh_submit(s, &d, prompt, 40, NULL, &r);
	eh_wait(&r);
	eh_release(&r);
	tid = core_thread(h.pid);
	if (ptrace(PTRACE_SEIZE, tid, NULL, PTRACE_O_TRACESYSGOOD) < 0) {
		skip(3, "tracing is not permitted here");
		eh_stop(&h);
		return;
	}
	ptrace(PTRACE_INTERRUPT, tid, NULL, NULL);
	waitpid(tid, &status, __WALL);
	ptrace(PTRACE_SYSCALL, tid, NULL, NULL);
	d.max_tokens = 210;
	d.logprobs = 5;
	d.temperature = 1;
	d.repetition = 1.1f;
	eh_submit(s, &d, prompt, 40, NULL, &r);
	while (eh_count(&r, 0) < 2)
		if (waitpid(tid, &status, __WALL | WNOHANG) > 0)
			on_stop(tid, status);
	while (eh_count(&r, 0) < 200)
		if (waitpid(tid, &status, __WALL | WNOHANG) > 0)
			calls += on_stop(tid, status);
	is_int(calls, 0, "no system call of the core thread in 198 tokens");
	while (eh_state(&r) != WSHM_SLOT_ENDED)
		if (waitpid(tid, &status, __WALL | WNOHANG) > 0)
			on_stop(tid, status);
	is_int(eh_count(&r, 0), 210, "the request ends as it should");
	until = eh_now_ns() + EH_WAIT_MS * UINT64_C(1000000);
	while (!asleep && eh_now_ns() < until)
		if (waitpid(tid, &status, __WALL | WNOHANG) > 0)
			asleep += on_stop(tid, status);
	ok(asleep > 0, "the tracer does see it going to sleep");
	/* A traced thread must be reaped by its tracer before its process can be. */
	kill(h.pid, SIGKILL);
	while (waitpid(tid, &status, __WALL) == tid && WIFSTOPPED(status))
		;
	eh_kill(&h);
	eh_stop(&h);
}

int main(void)
{
	for (uint32_t i = 0; i < 40; i++)
		prompt[i] = i * 4;
	test_idle("adaptive");
	test_idle("always");
	test_no_calls();
	return tap_done();
}
