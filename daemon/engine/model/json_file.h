/* SPDX-License-Identifier: Apache-2.0 */
/* json_file.h - read one JSON file of a model folder, with a cap on its size. */
#ifndef WEFT_ENGINE_JSON_FILE_H
#define WEFT_ENGINE_JSON_FILE_H

#include <jansson.h>
#include <stddef.h>

struct weft_err;

/*
 * Open dir/name for reading and check that it is a regular file. A symbolic link is followed:
 * download caches consist of them. Returns a descriptor and its size, or -errno with *err set.
 */
int model_file_open(const char *dir, const char *name, size_t *ret_bytes, struct weft_err *err);

/* The size of an open file, which must be a regular one (or a memfd). */
int model_file_size(const char *where, int fd, size_t *ret_bytes, struct weft_err *err);

/*
 * Parse text as one JSON object; duplicate keys are refused. `where` names the file in messages.
 * 0 with an owned reference, or -errno with *err set.
 */
int json_object_parse(const char *where, const char *text, size_t len, json_t **ret,
		      struct weft_err *err);

/* The same from an open file, from its beginning; fd is borrowed and its position left alone. */
int json_object_read_fd(const char *where, int fd, size_t max_bytes, json_t **ret,
			struct weft_err *err);

/* The same from dir/name; -ENOENT if there is no such file. */
int json_object_read(const char *dir, const char *name, size_t max_bytes, json_t **ret,
		     struct weft_err *err);

#endif
