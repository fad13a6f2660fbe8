/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device with too little room: an engine that is to take for its KV pool what is free must say how
 * much that is, and not size the pool by the host's memory. Told how much to take it serves, once its
 * first passes have run; if these find no room, it says so instead. And an engine that has lost the device
 * over the check of a kernel begins anew without that kernel.
 *
 * The engine is started as weftd does it, with a socket and a heartbeat page; what it logs is read
 * from its standard error until it ends.
 */
#include "shm/wshm_control.h"
#include "tests/cuda/fake_device.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static char engine[512], model[512];

/* The environment is the engines', which inherit it; false if there is no emulated device. */
static bool prepare(void)
{
	const char *build = getenv("WEFT_BUILD"), *src = getenv("WEFT_SRC");

	build = build ? build : "build";
	snprintf(engine, sizeof(engine), "%s/weft-engine", build);
	snprintf(model, sizeof(model), "%s/tests/data/models/llama", src ? src : ".");
	setenv("WEFT_FAKE_CUDA_BYTES", "0x38000000", 1); /* 896 MiB */
	return fake_device();
}

static void become_engine(int sock, int log, const char *kv_bytes)
{
	int page = memfd_create("heartbeat", 0);

	if (page < 0 || ftruncate(page, 4096) || dup2(log, STDERR_FILENO) < 0)
		_exit(126);
	/* Away from where they go, lest one be written over. */
	sock = fcntl(sock, F_DUPFD, 10);
	page = fcntl(page, F_DUPFD, 10);
	if (dup2(sock, WLINK_FD_SOCKET) < 0 || dup2(page, WLINK_FD_HEARTBEAT) < 0)
		_exit(126);
	execl(engine, engine, "--name", "m", "--model", model, "--backend", "cuda", "--threads",
	      "1", "--max-seqs", "2", "--max-batch-tokens", "40", kv_bytes ? "--kv-bytes" : NULL,
	      kv_bytes, (char *)NULL);
	_exit(127);
}

/* Its log until it serves or has ended. */
static void log_of(const char *kv_bytes, char *ret, size_t bytes)
{
	int link[2], log[2];
	size_t n = 0;
	ssize_t got = 1;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, link) || pipe2(log, O_CLOEXEC))
		bail_out("no socket, or no pipe");
	fflush(NULL);
	pid = fork();
	if (!pid)
		become_engine(link[1], log[1], kv_bytes);
	close(link[1]);
	close(log[1]);
	*ret = 0;
	while (got > 0 && n + 1 < bytes && !strstr(ret, "event=ready")) {
		got = read(log[0], ret + n, bytes - 1 - n);
		n += got > 0 ? (size_t)got : 0;
		ret[n] = 0;
	}
	close(link[0]); /* with which it ends */
	waitpid(pid, NULL, 0);
	close(log[0]);
}

static const char *last_line(char *log)
{
	char *end = log + strlen(log), *at;

	while (end > log && end[-1] == '\n')
		*--end = 0;
	at = strrchr(log, '\n');
	return at ? at + 1 : log;
}

int main(void)
{
	static char log[8192];

	if (!prepare()) {
		skip(1, "no emulated device here");
		return tap_done();
	}
	signal(SIGPIPE, SIG_IGN);
	log_of(NULL, log, sizeof(log));
	ok(!strstr(log, "event=ready") && strstr(log, "the device has ") &&
		   strstr(log, " bytes free"),
	   "a device with less free than a pass may need is refused, with what is free");
	diag("%s", last_line(log));
	unsetenv("WEFT_TEST_COLD");
	log_of("734003200", log, sizeof(log));
	ok(!strstr(log, "event=ready") && strstr(log, "the first passes: ") &&
		   strstr(log, "OUT_OF_MEMORY"),
	   "a pool that leaves a pass no room is noticed before anyone is served");
	diag("%s", last_line(log));
	setenv("WEFT_CUBLASLT", "/nonexistent/libcublasLt.so", 1);
	log_of("4194304", log, sizeof(log));
	ok(strstr(log, "event=ready") != NULL, "told how much to take, the engine serves");
	ok(strstr(log, "event=warm seconds=") != NULL, "after its first passes");
	ok(strstr(log, "event=goes-without why=\"/nonexistent/"),
	   "and says that it goes without cuBLASLt, and why");
	diag("%s", last_line(log));
	setenv("WEFT_TEST_COLD", "1", 1);
	setenv("WEFT_CUDA_FLASH", "1", 1);
	setenv("WEFT_FAKE_CUDA_FAIL", "cuLaunchKernel:2:719", 1);
	log_of("4194304", log, sizeof(log));
	ok(strstr(log, "event=begins-anew") && strstr(log, "wk_flash_128") &&
		   strstr(log, "event=ready") && !strstr(log, "+wgmma"),
	   "an engine that loses the device over a kernel begins anew without");
	return tap_done();
}
