/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_take_files.c - which of an engine's sets of text files weftd hands out: a whole one, the one that
 * is out already if the new one holds the same, and never one that no client could read.
 */
#include "daemon/supervisor/engine.h"
#include "shm/wshm_files.h"
#include "tests/tap.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static struct engine *e;

static int file_of(const char *text, size_t n)
{
	int fd = memfd_create("source", MFD_CLOEXEC);

	if (fd < 0 || write(fd, text, n) != (ssize_t)n)
		bail_out("memfd");
	return fd;
}

static int set_of(const char *text)
{
	int fd = wshm_files_new(), from = file_of(text, 5);
	struct wshm_files_writer w;

	if (fd < 0)
		bail_out("memfd");
	wshm_files_begin(&w, fd);
	if (wshm_files_add(&w, "tokenizer.json", from, 5) || wshm_files_end(&w))
		bail_out("a set of files cannot be written");
	close(from);
	return fd;
}

/* Bytes, but no header. */
static int torn(void)
{
	int fd = wshm_files_new();

	if (fd < 0 || pwrite(fd, "half a file", 11, 4096) != 11)
		bail_out("memfd");
	return fd;
}

static void take(int fd)
{
	e->filling_fd = fd;
	engine_take_files(e);
}

int main(void)
{
	int first, second;

	e = calloc(1, sizeof(*e));
	if (!e)
		bail_out("memory");
	e->files_fd = -1;
	take(torn());
	is_int(e->files_fd, -1, "a set without a header is not handed out");
	is_int(engine_open_files(e), -ENOENT, "clients hear that there is none");
	is_int(e->filling_fd, -1, "and it is let go");

	first = set_of("alpha");
	take(first);
	is_int(e->files_fd, first, "a whole one is");
	take(torn());
	is_int(e->files_fd, first, "and stays when the next engine brings a torn one");
	take(wshm_files_new());
	is_int(e->files_fd, first, "or an empty one");
	take(set_of("alpha"));
	is_int(e->files_fd, first, "or the same");
	second = set_of("bravo");
	take(second);
	is_int(e->files_fd, second, "another whole one takes its place");
	close(second);
	free(e);
	return tap_done();
}
