/* SPDX-License-Identifier: Apache-2.0 */
/*
 * files.c - write, seal and read the memfd of a model's small files; see wshm_files.h.
 *
 * Written through write(), never through a mapping, so that it can be sealed against writing. Read
 * through a private mapping of a sealed file, whose size cannot change: no access can fault. No state;
 * callers own descriptors and mappings.
 */
#include "shm/wshm_files.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U /* Linux 6.3; older kernels refuse it with EINVAL */
#endif

#define FILE_SEALS  (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)
#define SLICE_BYTES (256u << 10)

static_assert(sizeof(struct wshm_files_hdr) == 24 + WSHM_FILES_MAX * (WSHM_FILES_NAME + 16), "ABI");

int wshm_files_new(void)
{
	static const char name[] = "weft-files";
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL), err;

	if (fd < 0 && errno == EINVAL)
		fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	if (fchmod(fd, 0600)) {
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

/* --- writing -------------------------------------------------------------------------------------*/

void wshm_files_begin(struct wshm_files_writer *w, int fd)
{
	*w = (struct wshm_files_writer){
		.fd = fd,
		.hdr = {.magic = WSHM_FILES_MAGIC, .total_bytes = sizeof(w->hdr)},
	};
}

static int write_all(int fd, const void *p, size_t n, uint64_t off)
{
	while (n) {
		ssize_t w = pwrite(fd, p, n, (off_t)off);

		if (w < 0 && errno == EINTR)
			continue;
		if (w <= 0)
			return w < 0 ? -errno : -EIO;
		p = (const char *)p + w;
		n -= (size_t)w;
		off += (uint64_t)w;
	}
	return 0;
}

static int copy(int from, int to, uint64_t to_off, uint64_t bytes)
{
	char *slice = malloc(SLICE_BYTES);
	uint64_t at = 0;
	int err = slice ? 0 : -ENOMEM;

	while (!err && at < bytes) {
		size_t want = bytes - at < SLICE_BYTES ? (size_t)(bytes - at) : SLICE_BYTES;
		ssize_t n = pread(from, slice, want, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			err = n < 0 ? -errno : -EIO;
		else
			err = write_all(to, slice, (size_t)n, to_off + at);
		at += n > 0 ? (uint64_t)n : 0;
	}
	free(slice);
	return err;
}

int wshm_files_add(struct wshm_files_writer *w, const char *name, int from_fd, uint64_t bytes)
{
	struct wshm_files_hdr *h = &w->hdr;
	uint64_t off = (h->total_bytes + 7) & ~UINT64_C(7);
	int err;

	if (h->n == WSHM_FILES_MAX || strlen(name) >= WSHM_FILES_NAME ||
	    bytes >= WSHM_FILES_MAX_BYTES - off)
		return -E2BIG;
	err = copy(from_fd, w->fd, off, bytes);
	if (!err)
		err = write_all(w->fd, "", 1, off + bytes);
	if (err)
		return err;
	strcpy(h->file[h->n].name, name);
	h->file[h->n].off = off;
	h->file[h->n].bytes = bytes;
	h->n++;
	h->total_bytes = off + bytes + 1;
	return 0;
}

int wshm_files_end(struct wshm_files_writer *w)
{
	/* A file that failed half-way may have left more. */
	if (ftruncate(w->fd, (off_t)w->hdr.total_bytes))
		return -errno;
	return write_all(w->fd, &w->hdr, sizeof(w->hdr), 0);
}

int wshm_files_seal(int fd)
{
	struct stat st;

	if (fcntl(fd, F_ADD_SEALS, FILE_SEALS) || fstat(fd, &st))
		return -errno;
	if (!st.st_size)
		return -ENODATA;
	return (uint64_t)st.st_size > WSHM_FILES_MAX_BYTES ? -E2BIG : 0;
}

/* --- reading -------------------------------------------------------------------------------------*/

static int map(int fd, struct wshm_files *ret)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;
	void *p;

	if (seals < 0 || (seals & FILE_SEALS) != FILE_SEALS || fstat(fd, &st) ||
	    st.st_size < (off_t)sizeof(struct wshm_files_hdr) ||
	    (uint64_t)st.st_size > WSHM_FILES_MAX_BYTES)
		return -EPROTO;
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	*ret = (struct wshm_files){.base = p, .total_bytes = (uint64_t)st.st_size};
	return 0;
}

static bool well_formed(const struct wshm_files *f)
{
	const struct wshm_files_hdr *h = (const void *)f->base;

	if (h->magic != WSHM_FILES_MAGIC || h->total_bytes != f->total_bytes ||
	    h->n > WSHM_FILES_MAX || h->reserved)
		return false;
	for (uint32_t i = 0; i < h->n; i++) {
		uint64_t off = h->file[i].off, bytes = h->file[i].bytes;

		if (!memchr(h->file[i].name, 0, WSHM_FILES_NAME) || off < sizeof(*h) ||
		    off >= h->total_bytes || bytes >= h->total_bytes - off ||
		    f->base[off + bytes] != 0)
			return false;
	}
	return true;
}

int wshm_files_open(struct wshm_files *ret, int fd)
{
	struct wshm_files f;
	int err = map(fd, &f);

	if (err)
		return err;
	if (!well_formed(&f)) {
		wshm_files_close(&f);
		return -EPROTO;
	}
	*ret = f;
	return 0;
}

int wshm_files_find(const struct wshm_files *f, const char *name, const char **ret,
		    size_t *ret_bytes)
{
	const struct wshm_files_hdr *h = (const void *)f->base;

	for (uint32_t i = 0; h && i < h->n; i++) {
		if (strcmp(h->file[i].name, name))
			continue;
		*ret = (const char *)f->base + h->file[i].off;
		*ret_bytes = h->file[i].bytes;
		return 0;
	}
	return -ENOENT;
}

void wshm_files_close(struct wshm_files *f)
{
	if (f->base)
		munmap((void *)(uintptr_t)f->base, f->total_bytes);
	*f = (struct wshm_files){0};
}

int wshm_files_same(int a_fd, int b_fd)
{
	struct wshm_files a = {0}, b = {0};
	int r = map(a_fd, &a);

	r = r ? r : map(b_fd, &b);
	if (!r)
		r = a.total_bytes == b.total_bytes && !memcmp(a.base, b.base, a.total_bytes);
	wshm_files_close(&a);
	wshm_files_close(&b);
	return r;
}
