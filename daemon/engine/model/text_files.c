/* SPDX-License-Identifier: Apache-2.0 */
/*
 * text_files.c - a model's text files, copied for clients into a memfd of weftd's.
 *
 * The engine reads them, because it runs as the user that may read the folder and does so anyway.
 * Their contents are judged by whoever uses them (libweft-text): only kind and size are looked at.
 */
#include "daemon/engine/model/text_files.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "daemon/common/err.h"
#include "daemon/common/log.h"
#include "daemon/engine/model/json_file.h"
#include "shm/wshm_files.h"

/* The limits are several times what the largest published files have. */
static const struct {
	const char *name;
	size_t max_bytes;
} known[] = {
	{"tokenizer.json", 64u << 20},	       {"tokenizer_config.json", 8u << 20},
	{"special_tokens_map.json", 1u << 20}, {"generation_config.json", 1u << 20},
	{"chat_template.jinja", 1u << 20},
};

static int add(struct wshm_files_writer *w, const char *dir, const char *name, size_t max_bytes,
	       struct weft_err *err)
{
	size_t bytes;
	int fd = model_file_open(dir, name, &bytes, err), rc;

	if (fd < 0)
		return fd;
	if (bytes > max_bytes)
		rc = err_set(err, -EFBIG, "%s: %zu bytes; at most %zu are handed out", name, bytes,
			     max_bytes);
	else if ((rc = wshm_files_add(w, name, fd, bytes)))
		err_set(err, rc, "%s: cannot be copied: %s", name, err_memory_text(-rc));
	close(fd);
	return rc;
}

void text_files_send(const char *dir, int fd)
{
	struct wshm_files_writer w;
	struct weft_err err;
	int rc;

	wshm_files_begin(&w, fd);
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		rc = add(&w, dir, known[i].name, known[i].max_bytes, &err);
		if (rc && rc != -ENOENT)
			log_line(LOG_LEVEL_WARN, "event=file-left-out why=\"%s\"", err.message);
	}
	rc = w.hdr.n ? wshm_files_end(&w) : 0;
	/* What is half written is not taken for a whole, not even by its size. */
	if ((rc || !w.hdr.n) && ftruncate(fd, 0) && !rc)
		rc = -errno;
	if (rc)
		log_line(LOG_LEVEL_WARN, "event=files-left-out why=\"%s\"", strerror(-rc));
	close(fd);
}
