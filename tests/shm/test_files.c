/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model's text files in a memfd: what was written is read, sealed means sealed, and no header, however
 * damaged, makes a reader look outside its mapping.
 */
#include "shm/wshm_files.h"
#include "tests/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

static int file_of(const char *text, size_t n)
{
	int fd = memfd_create("source", 0);

	if (fd < 0 || write(fd, text, n) != (ssize_t)n)
		bail_out("memfd");
	return fd;
}

/* Two files, ended but not sealed. */
static int make(void)
{
	int fd = wshm_files_new(), a = file_of("alpha", 5), b = file_of("", 0);
	struct wshm_files_writer w;

	if (fd < 0)
		bail_out("memfd");
	wshm_files_begin(&w, fd);
	if (wshm_files_add(&w, "a.json", a, 5) || wshm_files_add(&w, "b", b, 0) ||
	    wshm_files_end(&w))
		bail_out("a set of files cannot be written");
	close(a);
	close(b);
	return fd;
}

static void round_trip(void)
{
	int fd = make();
	struct wshm_files f;
	const char *p;
	size_t n;

	is_int(wshm_files_open(&f, fd), -EPROTO, "not before it is sealed");
	is_int(wshm_files_seal(fd), 0, "sealed");
	is_int(wshm_files_open(&f, fd), 0, "then it is read");
	is_int(wshm_files_find(&f, "a.json", &p, &n), 0, "the first file");
	ok(n == 5 && !strcmp(p, "alpha"), "is what was written, with a zero after it");
	is_int(wshm_files_find(&f, "b", &p, &n), 0, "the second file");
	ok(n == 0 && !*p, "is empty");
	is_int(wshm_files_find(&f, "c", &p, &n), -ENOENT, "no third");
	is_int(wshm_files_find(&f, "", &p, &n), -ENOENT, "none without a name");
	wshm_files_close(&f);
	is_int(wshm_files_find(&f, "a.json", &p, &n), -ENOENT, "nothing in a closed one");
	ok(write(fd, "x", 1) < 0 && ftruncate(fd, 0) < 0 && ftruncate(fd, 1 << 20) < 0 &&
		   fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) < 0 &&
		   mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED,
	   "no write, no other size, no hole, no mapping to write to");
	close(fd);
}

static void refused(void)
{
	struct wshm_files_writer w;
	int fd = wshm_files_new(), src = file_of("alpha", 5), other = make(), third = make();

	is_int(wshm_files_seal(fd), -ENODATA, "one that nobody has filled");
	close(fd);
	fd = wshm_files_new();
	wshm_files_begin(&w, fd);
	is_int(wshm_files_add(&w, "a", src, 6), -EIO, "a file that is shorter than was said");
	is_int(wshm_files_add(&w, "a", src, WSHM_FILES_MAX_BYTES), -E2BIG,
	       "a file that is too long");
	is_int(wshm_files_add(&w, "123456789012345678901234567890123456789012345678", src, 5),
	       -E2BIG, "a name that is too long");
	for (uint32_t i = 0; i < WSHM_FILES_MAX; i++)
		if (wshm_files_add(&w, "a", src, 5))
			bail_out("eight files");
	is_int(wshm_files_add(&w, "a", src, 5), -E2BIG, "a ninth file");
	is_int(wshm_files_end(&w), 0, "the rest is whole");
	wshm_files_seal(fd);
	wshm_files_seal(other);
	wshm_files_seal(third);
	is_int(wshm_files_same(other, third), 1, "two with the same bytes");
	is_int(wshm_files_same(other, fd), 0, "two with others");
	close(fd);
	close(src);
	close(other);
	close(third);
}

/* Every number of the header replaced by each of these. */
static void damage(void)
{
	static const uint64_t values[] = {0,
					  1,
					  7,
					  WSHM_FILES_MAX + 1,
					  4096,
					  1u << 20,
					  UINT32_MAX,
					  UINT64_MAX,
					  INT64_MAX,
					  UINT64_MAX - 4,
					  UINT64_C(1) << 63};
	uint32_t opened = 0, outside = 0;

	for (size_t at = 0; at < sizeof(struct wshm_files_hdr); at += 8) {
		for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
			int fd = make();
			struct wshm_files f;
			const char *p;
			size_t n;

			if (pwrite(fd, &values[i], 8, (off_t)at) != 8 || wshm_files_seal(fd))
				bail_out("cannot damage a set of files");
			if (!wshm_files_open(&f, fd)) {
				opened++;
				if (!wshm_files_find(&f, "a.json", &p, &n))
					outside +=
						(const uint8_t *)p < f.base ||
						(const uint8_t *)p + n >= f.base + f.total_bytes ||
						p[n] != 0;
				wshm_files_close(&f);
			}
			close(fd);
		}
	}
	ok(opened > 0, "%u damaged headers still hold together", opened);
	is_int(outside, 0, "and none of them leads outside");
}

int main(void)
{
	round_trip();
	refused();
	damage();
	return tap_done();
}
