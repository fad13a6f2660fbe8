/* SPDX-License-Identifier: Apache-2.0 */
/*
 * safetensors.c - see safetensors.h.
 *
 * Order of work: a file is mapped, its header parsed and checked by itself, its tensors sorted by
 * offset and held against the size of the data; when all files are in, the tensors are sorted by
 * name across files and held against the index. A file that somebody shortens while it is mapped
 * ends the process with SIGBUS: the loader runs in the engine, which is restarted.
 */
#include "daemon/engine/model/safetensors.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/common/err.h"
#include "daemon/engine/model/json_file.h"
#include "kernels/convert.h"

#define SINGLE_NAME	"model.safetensors"
#define INDEX_NAME	"model.safetensors.index.json"
#define INDEX_MAX_BYTES (16u << 20)

struct st_file {
	char *name; /* owner */
	void *map;
	size_t bytes;
};

static const struct {
	const char *name;
	enum wk_dtype dtype;
	size_t bytes;
} dtypes[] = {{"BF16", WK_BF16, 2}, {"F16", WK_F16, 2}, {"F32", WK_F32, 4}};

#define N_DTYPES (sizeof(dtypes) / sizeof(dtypes[0]))

const char *st_dtype_name(enum wk_dtype dtype)
{
	for (size_t i = 0; i < N_DTYPES; i++)
		if (dtypes[i].dtype == dtype)
			return dtypes[i].name;
	return "?";
}

size_t st_dtype_bytes(enum wk_dtype dtype)
{
	return dtype == WK_F32 ? 4 : 2;
}

/* --- one entry of a header -----------------------------------------------------------------------*/

/* Where a message points: file and tensor. Names come from the file, so they are cut. */
struct place {
	const char *dir, *file, *tensor;
	struct weft_err *err;
};

#define fail_at(p, fmt, ...)                                                              \
	err_set((p)->err, -EINVAL, "%s/%s: tensor \"%.100s\": " fmt, (p)->dir, (p)->file, \
		(p)->tensor, ##__VA_ARGS__)

static int parse_dtype(const struct place *p, json_t *v, struct st_tensor *t)
{
	const char *s = json_string_value(v);

	if (!s)
		return fail_at(p, "dtype must be a string");
	for (size_t i = 0; i < N_DTYPES; i++)
		if (!strcmp(s, dtypes[i].name)) {
			t->dtype = dtypes[i].dtype;
			return 0;
		}
	return fail_at(p, "dtype %.20s is not supported (BF16, F16, F32)", s);
}

static int parse_shape(const struct place *p, json_t *v, struct st_tensor *t)
{
	uint64_t bytes = st_dtype_bytes(t->dtype);

	if (!json_is_array(v))
		return fail_at(p, "shape must be an array");
	if (!json_array_size(v) || json_array_size(v) > ST_MAX_DIMS)
		return fail_at(p, "shape has %zu dimensions (1 to %d)", json_array_size(v),
			       ST_MAX_DIMS);
	t->n_dims = (uint32_t)json_array_size(v);
	for (uint32_t i = 0; i < t->n_dims; i++) {
		json_t *d = json_array_get(v, i);

		if (!json_is_integer(d) || json_integer_value(d) < 0)
			return fail_at(p, "shape must hold integers >= 0");
		t->shape[i] = (uint64_t)json_integer_value(d);
		if (!t->shape[i])
			return fail_at(p, "dimension %u is zero", i);
		if (__builtin_mul_overflow(bytes, t->shape[i], &bytes))
			return fail_at(p, "shape is absurdly large");
	}
	t->bytes = bytes;
	return 0;
}

static int parse_offsets(const struct place *p, json_t *v, uint64_t data_bytes, struct st_tensor *t)
{
	json_t *b = json_array_get(v, 0), *e = json_array_get(v, 1);
	uint64_t begin, end;

	if (!json_is_array(v) || json_array_size(v) != 2 || !json_is_integer(b) ||
	    !json_is_integer(e) || json_integer_value(b) < 0 || json_integer_value(e) < 0)
		return fail_at(p, "data_offsets must be two integers >= 0");
	begin = (uint64_t)json_integer_value(b);
	end = (uint64_t)json_integer_value(e);
	if (begin > end || end > data_bytes)
		return fail_at(p, "data_offsets [%llu, %llu] are outside the %llu bytes of data",
			       (unsigned long long)begin, (unsigned long long)end,
			       (unsigned long long)data_bytes);
	if (end - begin != t->bytes)
		return fail_at(p, "data_offsets span %llu bytes, dtype and shape need %llu",
			       (unsigned long long)(end - begin), (unsigned long long)t->bytes);
	t->begin = begin;
	return 0;
}

static int parse_entry(const struct place *p, json_t *v, uint64_t data_bytes, struct st_tensor *t)
{
	const char *key;
	json_t *sub;
	int r;

	if (!json_is_object(v))
		return fail_at(p, "must be an object");
	if (strlen(p->tensor) > ST_MAX_NAME)
		return fail_at(p, "its name is longer than %d bytes", ST_MAX_NAME);
	json_object_foreach(
		v, key,
		sub) if (strcmp(key, "dtype") && strcmp(key, "shape") &&
			 strcmp(key, "data_offsets")) return fail_at(p, "unknown key \"%.40s\"",
								     key);
	if (json_object_size(v) != 3)
		return fail_at(p, "needs dtype, shape and data_offsets");
	r = parse_dtype(p, json_object_get(v, "dtype"), t);
	r = r ? r : parse_shape(p, json_object_get(v, "shape"), t);
	return r ? r : parse_offsets(p, json_object_get(v, "data_offsets"), data_bytes, t);
}

/* --- a header ------------------------------------------------------------------------------------*/

static int by_begin(const void *a, const void *b)
{
	const struct st_tensor *x = a, *y = b;

	return x->begin < y->begin ? -1 : x->begin > y->begin;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct st_tensor *)a)->name, ((const struct st_tensor *)b)->name);
}

/* The tensors of one file, sorted by offset, must cover its data exactly. */
static int check_cover(const struct place *where, struct st_tensor *t, uint32_t n,
		       uint64_t data_bytes)
{
	struct place p = *where;
	uint64_t at = 0;

	qsort(t, n, sizeof(*t), by_begin);
	for (uint32_t i = 0; i < n; at += t[i++].bytes) {
		p.tensor = t[i].name;
		if (t[i].begin < at)
			return fail_at(&p, "overlaps \"%.100s\"", t[i - 1].name);
		if (t[i].begin > at)
			return fail_at(&p, "a hole of %llu bytes lies before it",
				       (unsigned long long)(t[i].begin - at));
	}
	if (at != data_bytes)
		return err_set(p.err, -EINVAL, "%s/%s: %llu bytes after the last tensor", p.dir,
			       p.file, (unsigned long long)(data_bytes - at));
	return 0;
}

static int check_metadata(const struct place *p, json_t *v)
{
	const char *key;
	json_t *sub;

	if (!json_is_object(v))
		return err_set(p->err, -EINVAL, "%s/%s: __metadata__ must be an object", p->dir,
			       p->file);
	json_object_foreach(v, key, sub) if (!json_is_string(sub)) return err_set(
		p->err, -EINVAL, "%s/%s: __metadata__ \"%.40s\" must be a string", p->dir, p->file,
		key);
	return 0;
}

static int grow(struct st_set *set, size_t more)
{
	size_t want = set->n_tensors + more;
	struct st_tensor *t;

	if (want <= set->cap_tensors)
		return 0;
	t = realloc(set->tensors, want * sizeof(*t));
	if (!t)
		return -ENOMEM;
	set->tensors = t;
	set->cap_tensors = (uint32_t)want;
	return 0;
}

static int parse_entries(struct st_set *set, struct place *p, json_t *root, uint64_t data_bytes)
{
	uint32_t first = set->n_tensors;
	json_t *v;
	int r;

	if (json_object_size(root) + first > ST_MAX_TENSORS)
		return err_set(p->err, -E2BIG, "%s/%s: %zu tensors; at most %d are allowed", p->dir,
			       p->file, json_object_size(root), ST_MAX_TENSORS);
	if (grow(set, json_object_size(root)))
		return err_set(p->err, -ENOMEM, "%s/%s: out of memory", p->dir, p->file);
	json_object_foreach(root, p->tensor, v)
	{
		struct st_tensor *t = &set->tensors[set->n_tensors];

		if (!strcmp(p->tensor, "__metadata__")) {
			r = check_metadata(p, v);
			if (r)
				return r;
			continue;
		}
		memset(t, 0, sizeof(*t));
		t->file = p->file;
		r = parse_entry(p, v, data_bytes, t);
		if (r)
			return r;
		t->name = strdup(p->tensor);
		if (!t->name)
			return err_set(p->err, -ENOMEM, "%s/%s: out of memory", p->dir, p->file);
		set->n_tensors++;
	}
	if (set->n_tensors == first)
		return err_set(p->err, -EINVAL, "%s/%s: no tensors", p->dir, p->file);
	return check_cover(p, set->tensors + first, set->n_tensors - first, data_bytes);
}

int safetensors_parse(struct st_set *set, const char *file, const char *header, size_t header_bytes,
		      uint64_t data_bytes, struct weft_err *err)
{
	struct place p = {.dir = set->dir ? set->dir : ".", .file = file, .err = err};
	char where[PATH_MAX + 300];
	json_t *root;
	int r;

	snprintf(where, sizeof(where), "%s/%s: header", p.dir, file);
	r = json_object_parse(where, header, header_bytes, &root, err);
	if (r)
		return r;
	r = parse_entries(set, &p, root, data_bytes);
	json_decref(root);
	return r;
}

/* --- files ---------------------------------------------------------------------------------------*/

static int map_fd(struct st_set *set, struct st_file *f, int fd, struct weft_err *err)
{
	if (f->bytes < 8)
		return err_set(err, -EINVAL, "%s/%s: truncated: %zu bytes", set->dir, f->name,
			       f->bytes);
	f->map = mmap(NULL, f->bytes, PROT_READ, MAP_PRIVATE, fd, 0);
	if (f->map == MAP_FAILED) {
		int r = -errno;

		f->map = NULL;
		return err_set(err, r, "%s/%s: cannot map: %s", set->dir, f->name, strerror(-r));
	}
	return 0;
}

static int map_file(struct st_set *set, struct st_file *f, struct weft_err *err)
{
	int fd, r;

	fd = model_file_open(set->dir, f->name, &f->bytes, err);
	if (fd < 0)
		return fd;
	r = map_fd(set, f, fd, err);
	close(fd);
	return r;
}

static int map_given(struct st_set *set, struct st_file *f, int fd, struct weft_err *err)
{
	char where[PATH_MAX + 300];
	int r;

	snprintf(where, sizeof(where), "%s/%s", set->dir, f->name);
	r = model_file_size(where, fd, &f->bytes, err);
	return r ? r : map_fd(set, f, fd, err);
}

static uint64_t read_le64(const uint8_t *p)
{
	uint64_t v = 0;

	for (int i = 7; i >= 0; i--)
		v = v << 8 | p[i];
	return v;
}

/* Map one file (fd < 0: of the folder) and add its tensors to the set. */
static int add_file(struct st_set *set, const char *name, int fd, struct weft_err *err)
{
	struct st_file *f = &set->files[set->n_files];
	uint32_t first = set->n_tensors;
	const char *base;
	uint64_t header;
	int r;

	f->name = strdup(name);
	if (!f->name)
		return err_set(err, -ENOMEM, "%s/%s: out of memory", set->dir, name);
	set->n_files++;
	r = fd < 0 ? map_file(set, f, err) : map_given(set, f, fd, err);
	if (r)
		return r;
	header = read_le64(f->map);
	if (header > f->bytes - 8)
		return err_set(err, -EINVAL,
			       "%s/%s: truncated: a header of %llu bytes in a file of %zu",
			       set->dir, name, (unsigned long long)header, f->bytes);
	if (header > ST_MAX_HEADER_BYTES)
		return err_set(err, -EFBIG, "%s/%s: a header of %llu bytes; at most %u are read",
			       set->dir, name, (unsigned long long)header, ST_MAX_HEADER_BYTES);
	base = (const char *)f->map + 8;
	r = safetensors_parse(set, f->name, base, (size_t)header, f->bytes - 8 - header, err);
	for (uint32_t i = first; !r && i < set->n_tensors; i++)
		set->tensors[i].data = base + header + set->tensors[i].begin;
	return r;
}

static int check_duplicates(const struct st_set *set, struct weft_err *err)
{
	for (uint32_t i = 1; i < set->n_tensors; i++)
		if (!strcmp(set->tensors[i - 1].name, set->tensors[i].name))
			return err_set(err, -EINVAL, "%s: tensor \"%.100s\" is in %s and in %s",
				       set->dir, set->tensors[i].name, set->tensors[i - 1].file,
				       set->tensors[i].file);
	return 0;
}

/* --- the index of a sharded model ----------------------------------------------------------------*/

/* Only a plain name inside the folder is opened, whatever the index says. */
static bool is_plain_name(const char *s)
{
	size_t len = strlen(s), ext = strlen(".safetensors");

	return len > ext && len <= ST_MAX_NAME && s[0] != '.' && !strchr(s, '/') &&
	       !strcmp(s + len - ext, ".safetensors");
}

static bool have_file(const struct st_set *set, const char *name)
{
	for (uint32_t i = 0; i < set->n_files; i++)
		if (!strcmp(set->files[i].name, name))
			return true;
	return false;
}

static int check_against_map(struct st_set *set, json_t *map, struct weft_err *err)
{
	const char *name;
	json_t *v;

	json_object_foreach(map, name, v)
	{
		struct st_tensor *t = safetensors_find(set, name);

		if (!t || strcmp(t->file, json_string_value(v)))
			return err_set(err, -EINVAL,
				       "%s/" INDEX_NAME ": tensor \"%.100s\" is not in %s",
				       set->dir, name, json_string_value(v));
	}
	for (uint32_t i = 0; i < set->n_tensors; i++)
		if (!json_object_get(map, set->tensors[i].name))
			return err_set(err, -EINVAL,
				       "%s/%s: tensor \"%.100s\" is not in " INDEX_NAME, set->dir,
				       set->tensors[i].file, set->tensors[i].name);
	return 0;
}

static int open_shards(struct st_set *set, json_t *map, struct weft_err *err)
{
	const char *name;
	json_t *v;
	int r;

	json_object_foreach(map, name, v)
	{
		const char *file = json_string_value(v);

		if (!file)
			return err_set(err, -EINVAL,
				       "%s/" INDEX_NAME
				       ": tensor \"%.100s\": file must be a string",
				       set->dir, name);
		if (!is_plain_name(file))
			return err_set(err, -EINVAL,
				       "%s/" INDEX_NAME
				       ": tensor \"%.100s\": \"%.100s\" is not the "
				       "name of a .safetensors file of this folder",
				       set->dir, name, file);
		if (have_file(set, file))
			continue;
		if (set->n_files == ST_MAX_FILES)
			return err_set(err, -E2BIG, "%s/" INDEX_NAME ": more than %d files",
				       set->dir, ST_MAX_FILES);
		r = add_file(set, file, -1, err);
		if (r)
			return r;
	}
	qsort(set->tensors, set->n_tensors, sizeof(*set->tensors), by_name);
	r = check_duplicates(set, err);
	return r ? r : check_against_map(set, map, err);
}

static int open_index(struct st_set *set, json_t *index, struct weft_err *err)
{
	json_t *map = json_object_get(index, "weight_map"), *v;
	const char *key;

	json_object_foreach(index, key,
			    v) if (strcmp(key, "weight_map") &&
				   strcmp(key,
					  "metadata")) return err_set(err, -EINVAL,
								      "%s/" INDEX_NAME
								      ": unknown key \"%.40s\"",
								      set->dir, key);
	if (!json_is_object(map) || !json_object_size(map))
		return err_set(err, -EINVAL,
			       "%s/" INDEX_NAME ": weight_map must be an object with tensors",
			       set->dir);
	return open_shards(set, map, err);
}

static bool has_file(const char *dir, const char *name)
{
	char path[PATH_MAX];

	return snprintf(path, sizeof(path), "%s/%s", dir, name) < (int)sizeof(path) &&
	       !access(path, F_OK);
}

static int set_init(struct st_set *set, const char *dir, uint32_t max_files, struct weft_err *err)
{
	memset(set, 0, sizeof(*set));
	set->dir = strdup(dir);
	set->files = calloc(max_files, sizeof(*set->files));
	return set->dir && set->files ? 0 : err_set(err, -ENOMEM, "%s: out of memory", dir);
}

int safetensors_open(const char *dir, struct st_set *set, struct weft_err *err)
{
	bool single, sharded;
	json_t *index;
	int r;

	r = set_init(set, dir, ST_MAX_FILES, err);
	if (r)
		return r;
	single = has_file(dir, SINGLE_NAME);
	sharded = has_file(dir, INDEX_NAME);
	if (single && sharded)
		return err_set(err, -EINVAL,
			       "%s: both " SINGLE_NAME " and " INDEX_NAME
			       " are there; remove the one that is not meant",
			       dir);
	if (sharded) {
		r = json_object_read(dir, INDEX_NAME, INDEX_MAX_BYTES, &index, err);
		if (r)
			return r;
		r = open_index(set, index, err);
		json_decref(index);
		return r;
	}
	r = add_file(set, SINGLE_NAME, -1, err);
	if (!r)
		qsort(set->tensors, set->n_tensors, sizeof(*set->tensors), by_name);
	return r;
}

int safetensors_open_fd(const char *dir, const char *name, int fd, struct st_set *set,
			struct weft_err *err)
{
	int r = set_init(set, dir, 1, err);

	r = r ? r : add_file(set, name, fd, err);
	if (!r)
		qsort(set->tensors, set->n_tensors, sizeof(*set->tensors), by_name);
	return r;
}

void safetensors_close(struct st_set *set)
{
	for (uint32_t i = 0; i < set->n_tensors; i++)
		free(set->tensors[i].name);
	for (uint32_t i = 0; i < set->n_files; i++) {
		if (set->files[i].map)
			munmap(set->files[i].map, set->files[i].bytes);
		free(set->files[i].name);
	}
	free(set->tensors);
	free(set->files);
	free(set->dir);
	memset(set, 0, sizeof(*set));
}

struct st_tensor *safetensors_find(struct st_set *set, const char *name)
{
	struct st_tensor key = {.name = (char *)name};

	if (!set->n_tensors)
		return NULL;
	return bsearch(&key, set->tensors, set->n_tensors, sizeof(key), by_name);
}

void safetensors_advise(const struct st_tensor *t, bool needed)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	uintptr_t begin = (uintptr_t)t->data, end = begin + t->bytes;

	/* Whole pages only when giving back: neighbours share the first and the last. */
	begin = needed ? begin & ~(page - 1) : (begin + page - 1) & ~(page - 1);
	end = needed ? end : end & ~(page - 1);
	if (begin < end)
		madvise((void *)begin, end - begin, needed ? MADV_POPULATE_READ : MADV_DONTNEED);
}

static float element(const struct st_tensor *t, uint64_t i)
{
	uint16_t half;
	float f;

	if (t->dtype == WK_F32) {
		memcpy(&f, (const char *)t->data + 4 * i, 4);
		return f;
	}
	memcpy(&half, (const char *)t->data + 2 * i, 2);
	return t->dtype == WK_BF16 ? wk_bf16_to_f32(half) : wk_f16_to_f32(half);
}

void safetensors_read(const struct st_tensor *t, float *ret)
{
	for (uint64_t i = 0; i < t->bytes / st_dtype_bytes(t->dtype); i++)
		ret[i] = element(t, i);
}

int safetensors_check_finite(const char *dir, const struct st_tensor *t, struct weft_err *err)
{
	uint64_t n = t->bytes / st_dtype_bytes(t->dtype), row = t->n_dims == 2 ? t->shape[1] : n;

	for (uint64_t i = 0; i < n; i++) {
		float f = element(t, i);

		if (!isfinite(f))
			return err_set(err, -EINVAL,
				       "%s/%s: tensor \"%s\": %s at row %llu, column %llu", dir,
				       t->file, t->name, isnan(f) ? "NaN" : "Inf",
				       (unsigned long long)(i / row),
				       (unsigned long long)(i % row));
	}
	return 0;
}
