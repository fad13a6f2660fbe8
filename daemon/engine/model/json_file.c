/* SPDX-License-Identifier: Apache-2.0 */
/*
 * json_file.c - read one JSON file of a model's or adapter's folder, with a cap on its size.
 *
 * The files are outside input: whoever can write a model folder writes them. jansson bounds the
 * depth of nesting; the cap on the size bounds what it allocates.
 */
#include "daemon/engine/model/json_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/common/err.h"

int model_file_size(const char *where, int fd, size_t *ret_bytes, struct weft_err *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0) {
		int r = -errno;

		return err_set(err, r, "%s: cannot stat: %s", where, strerror(-r));
	}
	if (!S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "%s: not a regular file", where);
	*ret_bytes = (size_t)st.st_size;
	return 0;
}

int model_file_open(const char *dir, const char *name, size_t *ret_bytes, struct weft_err *err)
{
	char path[PATH_MAX];
	int fd, r;

	if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path))
		return err_set(err, -ENAMETOOLONG, "%s: the path of the folder is too long", name);
	/* O_NONBLOCK: opening a named pipe must not hang. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0) {
		r = -errno;
		return err_set(err, r, "%s: cannot open: %s", path, strerror(-r));
	}
	r = model_file_size(path, fd, ret_bytes, err);
	if (r) {
		close(fd);
		return r;
	}
	return fd;
}

/* jansson quotes the text near an error as it stands: make it one printable line. */
static void make_printable(char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			*s = ' ';
}

int json_object_parse(const char *where, const char *text, size_t len, json_t **ret,
		      struct weft_err *err)
{
	json_error_t je;
	json_t *root;

	root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &je);
	if (!root && !*je.text) /* jansson has nothing to say of the text itself */
		return err_set(err, -ENOMEM, "%s: no memory to read it", where);
	if (!root) {
		make_printable(je.text);
		return err_set(err, -EINVAL, "%s: not valid JSON, line %d column %d: %s", where,
			       je.line, je.column, je.text);
	}
	if (!json_is_object(root)) {
		json_decref(root);
		return err_set(err, -EINVAL, "%s: must be a JSON object", where);
	}
	*ret = root;
	return 0;
}

static int read_all(int fd, char *buf, size_t len)
{
	for (size_t at = 0; at < len;) {
		ssize_t n = pread(fd, buf + at, len - at, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		at += (size_t)n;
	}
	return 0;
}

int json_object_read_fd(const char *where, int fd, size_t max_bytes, json_t **ret,
			struct weft_err *err)
{
	size_t len;
	char *text;
	int r;

	r = model_file_size(where, fd, &len, err);
	if (r)
		return r;
	if (len > max_bytes)
		return err_set(err, -EFBIG, "%s: %zu bytes; at most %zu are read", where, len,
			       max_bytes);
	text = malloc(len + 1);
	r = text ? read_all(fd, text, len) : -ENOMEM;
	if (r)
		err_set(err, r, "%s: cannot read: %s", where, strerror(-r));
	else
		r = json_object_parse(where, text, len, ret, err);
	free(text);
	return r;
}

int json_object_read(const char *dir, const char *name, size_t max_bytes, json_t **ret,
		     struct weft_err *err)
{
	char where[PATH_MAX];
	size_t len;
	int fd, r;

	fd = model_file_open(dir, name, &len, err);
	if (fd < 0)
		return fd;
	snprintf(where, sizeof(where), "%s/%s", dir, name);
	r = json_object_read_fd(where, fd, max_bytes, ret, err);
	close(fd);
	return r;
}
