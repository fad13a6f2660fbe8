/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_engine_end.c - an engine whose link has hung up ends, whatever its threads are held up by. Here: by
 * a log that nobody reads. tests/cuda/test_engine_end.c has devices that do not answer.
 */
#include "tests/e2e/engine_harness.h"
#include "tests/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static void start(struct eh *h, int log_fd)
{
	eh_init(h, eh_model_dir("llama"));
	eh_arg(h, "--threads");
	eh_arg(h, "1");
	h->log_fd = log_fd;
	eh_start(h);
}

static void test_plain(void)
{
	struct eh h;

	start(&h, 0);
	ok(eh_hang_up(&h, EH_WAIT_MS), "an engine that idles ends when its link hangs up");
	ok(WIFEXITED(h.exit_status) && !WEXITSTATUS(h.exit_status), "with status 0");
	eh_stop(&h);
}

/* Through an open file of its own, so that the engine's stays one that blocks. */
static void fill(int pipe_fd)
{
	char path[64], byte = '\n';
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", pipe_fd);
	fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		bail_out("opening a pipe once more");
	while (write(fd, &byte, 1) == 1)
		;
	if (errno != EAGAIN)
		bail_out("filling a pipe");
	close(fd);
}

static void test_log(void)
{
	int log[2];
	struct eh h;

	if (pipe(log))
		bail_out("pipe");
	start(&h, log[1]);
	fill(log[1]);
	ok(eh_hang_up(&h, EH_WAIT_MS), "so does one whose log nobody reads");
	eh_stop(&h);
	close(log[0]);
	close(log[1]);
}

int main(void)
{
	test_plain();
	test_log();
	return tap_done();
}
