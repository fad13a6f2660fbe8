/* SPDX-License-Identifier: Apache-2.0 */
/*
 * safetensors.h - the tensors of a model or an adapter, mapped from safetensors files.
 *
 *	file:	u64 header length | header, JSON | data
 *	header:	{ "name": { "dtype": "BF16", "shape": [n, k], "data_offsets": [begin, end] }, ... }
 *
 * Everything is checked before a tensor can be seen: lengths with checked arithmetic, dtype and
 * shape against the offsets, and that the tensors cover the data of their file exactly, without
 * overlap or hole. The values are not looked at.
 *
 * A set owns its mappings and names; it belongs to one thread.
 */
#ifndef WEFT_ENGINE_SAFETENSORS_H
#define WEFT_ENGINE_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/backend.h"

struct weft_err;

#define ST_MAX_DIMS	    4
#define ST_MAX_HEADER_BYTES (16u << 20) /* a 405B model's header has 0.2 MB */
#define ST_MAX_TENSORS	    65536
#define ST_MAX_FILES	    1024
#define ST_MAX_NAME	    255

struct st_tensor {
	char *name;	  /* owner: the set */
	const char *file; /* name of its file, borrowed from the set */
	enum wk_dtype dtype;
	uint32_t n_dims;
	uint64_t shape[ST_MAX_DIMS];
	uint64_t bytes;
	uint64_t begin;	  /* in the data of its file */
	const void *data; /* mapped, unaligned; NULL in a set made by safetensors_parse() */
	bool used;	  /* a mark for the caller: which tensors it knew */
};

struct st_file;

struct st_set {
	char *dir;
	struct st_file *files; /* owner */
	uint32_t n_files;
	struct st_tensor *tensors; /* owner; by name */
	uint32_t n_tensors, cap_tensors;
};

/*
 * Open model.safetensors of a folder, or the shards that model.safetensors.index.json names.
 * 0 or -errno with a line that names the file and the tensor. The set is to be given to
 * safetensors_close() either way.
 */
int safetensors_open(const char *dir, struct st_set *set, struct weft_err *err);
/* The same of one file that is open already; dir and name are for messages, fd is borrowed. */
int safetensors_open_fd(const char *dir, const char *name, int fd, struct st_set *set,
			struct weft_err *err);
void safetensors_close(struct st_set *set);

/* Check a header alone and add its tensors to a zeroed or open set; `data_bytes` follow it. */
int safetensors_parse(struct st_set *set, const char *file, const char *header, size_t header_bytes,
		      uint64_t data_bytes, struct weft_err *err);

struct st_tensor *safetensors_find(struct st_set *set, const char *name);

/* The pages of a tensor's data are needed now (read ahead) or no longer. */
void safetensors_advise(const struct st_tensor *t, bool needed);

/* All elements as fp32, ret of n elements; and: 0, or -EINVAL naming the first NaN or Inf. */
void safetensors_read(const struct st_tensor *t, float *ret);
int safetensors_check_finite(const char *dir, const struct st_tensor *t, struct weft_err *err);

const char *st_dtype_name(enum wk_dtype dtype);
size_t st_dtype_bytes(enum wk_dtype dtype);

#endif
