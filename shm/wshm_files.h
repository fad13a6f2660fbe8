/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wshm_files.h - a model's small files (tokenizer.json and others) in one memfd, for clients that
 * cannot read its folder.
 *
 *   | header: magic, count, names, places | file, 0 | file, 0 | ...
 *
 * weftd makes the memfd, the engine fills it while it loads the model, weftd seals it once the engine
 * is ready (no write, no other size, no further seal), and clients get a descriptor of it. It never
 * changes after that, so readers need no order and no copy. Every number in the header is checked by
 * its reader all the same.
 */
#ifndef WEFT_SHM_FILES_H
#define WEFT_SHM_FILES_H

#include <stddef.h>
#include <stdint.h>

#define WSHM_FILES_MAGIC     UINT64_C(0x53454c4946544657) /* "WFTFILES" */
#define WSHM_FILES_MAX	     8u
#define WSHM_FILES_NAME	     48u
#define WSHM_FILES_MAX_BYTES (UINT64_C(96) << 20)

struct wshm_files_hdr {
	uint64_t magic;
	uint64_t total_bytes;
	uint32_t n;
	uint32_t reserved;
	struct {
		char name[WSHM_FILES_NAME]; /* NUL-terminated */
		uint64_t off, bytes;	    /* a zero byte follows, within total_bytes */
	} file[WSHM_FILES_MAX];
};

/* An empty memfd that can be written and sealed. fd or -errno. */
int wshm_files_new(void);

/* Filled from a zeroed struct by its one writer. */
struct wshm_files_writer {
	int fd; /* borrowed */
	struct wshm_files_hdr hdr;
};

void wshm_files_begin(struct wshm_files_writer *w, int fd);
/* Append `bytes` of from_fd, from its beginning. 0; -E2BIG: no room for it; -EIO: it is shorter;
 * -errno. What failed has added nothing. */
int wshm_files_add(struct wshm_files_writer *w, const char *name, int from_fd, uint64_t bytes);
/* Nothing can be read before this. 0 or -errno. */
int wshm_files_end(struct wshm_files_writer *w);

/* Nobody can change it from here on. -ENODATA: it was not filled; -EBUSY: mapped for writing. */
int wshm_files_seal(int fd);
/* Do two sealed ones hold the same bytes? 1, 0 or -errno. */
int wshm_files_same(int a_fd, int b_fd);

/* A mapping to read from. */
struct wshm_files {
	const uint8_t *base; /* owner of the mapping; NULL: none */
	uint64_t total_bytes;
};

/* Check and map; fd is borrowed. -EPROTO: not sealed, or not of this form. */
int wshm_files_open(struct wshm_files *f, int fd);
/* -ENOENT: no such file. *ret points into the mapping, with a zero after the bytes. */
int wshm_files_find(const struct wshm_files *f, const char *name, const char **ret,
		    size_t *ret_bytes);
void wshm_files_close(struct wshm_files *f);

#endif
