/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_text_files.c - a model's text files whose copy fails half-way: a limit on the size of files
 * stands for a machine that has no memory left. What could not be copied is left out, and a set of
 * nothing is an empty memfd, which weftd takes for none.
 */
#include "daemon/engine/model/text_files.h"
#include "shm/wshm_files.h"
#include "tests/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define LARGE (1u << 20)
#define LIMIT (600u << 10)

static char dir[] = "/tmp/weft-text-files-XXXXXX";

static const char *path_of(const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static void write_file(const char *name, size_t bytes)
{
	FILE *f = fopen(path_of(name), "w");

	for (size_t i = 0; f && i < bytes; i++)
		putc('a', f);
	if (!f || fclose(f))
		bail_out(name);
}

/* What the engine makes of the folder if no file may have more than `limit` bytes. */
static int filled(rlim_t limit)
{
	int fd = wshm_files_new(), copy = dup(fd);
	struct rlimit before, now;

	if (fd < 0 || copy < 0 || getrlimit(RLIMIT_FSIZE, &before))
		bail_out("memfd");
	now = before;
	now.rlim_cur = limit;
	if (setrlimit(RLIMIT_FSIZE, &now))
		bail_out("setrlimit");
	text_files_send(dir, copy);
	setrlimit(RLIMIT_FSIZE, &before);
	return fd;
}

static void test_whole(void)
{
	int fd = filled(RLIM_INFINITY);
	struct wshm_files f = {0};
	const char *p;
	size_t n = 0;

	is_int(wshm_files_seal(fd), 0, "a folder's one file");
	is_int(wshm_files_open(&f, fd), 0, "is handed out");
	is_int(wshm_files_find(&f, "tokenizer.json", &p, &n), 0, "under its name");
	is_int((int)n, LARGE, "whole");
	wshm_files_close(&f);
	close(fd);
}

static void test_half(void)
{
	int fd = filled(LIMIT);
	struct stat st;

	ok(!fstat(fd, &st) && st.st_size == 0, "half of the only file is nothing");
	is_int(wshm_files_seal(fd), -ENODATA, "and taken for no set");
	close(fd);
}

static void test_no_header(void)
{
	int fd = filled(100);
	struct stat st;

	ok(!fstat(fd, &st) && st.st_size == 0, "nothing is left where not even the header fits");
	close(fd);
}

static void test_other(void)
{
	struct wshm_files f = {0};
	const char *p;
	size_t n = 0;
	int fd;

	write_file("generation_config.json", 7);
	fd = filled(LIMIT);
	is_int(wshm_files_seal(fd), 0, "with a second file");
	is_int(wshm_files_open(&f, fd), 0, "there is a set");
	is_int(wshm_files_find(&f, "tokenizer.json", &p, &n), -ENOENT, "without the first");
	ok(!wshm_files_find(&f, "generation_config.json", &p, &n) && n == 7 &&
		   !strcmp(p, "aaaaaaa"),
	   "and with the second");
	wshm_files_close(&f);
	close(fd);
}

int main(void)
{
	signal(SIGXFSZ, SIG_IGN);
	if (!mkdtemp(dir))
		bail_out("mkdtemp");
	write_file("tokenizer.json", LARGE);
	test_whole();
	test_half();
	test_no_header();
	test_other();
	unlink(path_of("tokenizer.json"));
	unlink(path_of("generation_config.json"));
	rmdir(dir);
	return tap_done();
}
