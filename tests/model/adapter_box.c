/* SPDX-License-Identifier: Apache-2.0 */
/* adapter_box.c - see adapter_box.h. */
#include "tests/model/adapter_box.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void __attribute__((noreturn)) give_up(const char *what)
{
	printf("Bail out! %s\n", what);
	exit(255);
}

static void source_path(char ret[PATH_MAX], const char *kind, const char *fixture, const char *name)
{
	const char *src = getenv("WEFT_SRC");

	snprintf(ret, PATH_MAX, "%s/tests/data/%s/%s/%s", src ? src : ".", kind, fixture, name);
}

void box_read(struct adapter_box *b, const char *fixture)
{
	char path[PATH_MAX];
	uint64_t len;
	char *text;
	FILE *f;

	memset(b, 0, sizeof(*b));
	source_path(path, "adapters", fixture, ADAPTER_CONFIG_NAME);
	b->config = json_load_file(path, 0, NULL);
	source_path(path, "adapters", fixture, ADAPTER_WEIGHTS_NAME);
	f = fopen(path, "rb");
	if (!b->config || !f || fread(&len, 8, 1, f) != 1)
		give_up(path);
	text = malloc(len);
	if (!text || fread(text, 1, len, f) != len)
		give_up(path);
	b->header = json_loadb(text, len, 0, NULL);
	free(text);
	b->data = malloc(1 << 20);
	if (!b->header || !b->data)
		give_up(path);
	b->data_bytes = fread(b->data, 1, 1 << 20, f);
	fclose(f);
}

void box_free(struct adapter_box *b)
{
	json_decref(b->config);
	json_decref(b->header);
	free(b->config_text);
	free(b->data);
	memset(b, 0, sizeof(*b));
}

uint8_t *box_data(struct adapter_box *b, const char *tensor)
{
	json_t *offsets = json_object_get(json_object_get(b->header, tensor), "data_offsets");

	if (!offsets)
		give_up(tensor);
	return b->data + json_integer_value(json_array_get(offsets, 0));
}

void box_model_open(struct model *m, const struct wk_ops *ops, const char *fixture)
{
	const struct wk_open_options bo = {.n_threads = 1};
	char path[PATH_MAX];
	struct weft_err err;

	memset(m, 0, sizeof(*m));
	m->ops = ops;
	source_path(path, "models", fixture, "");
	if (ops->open(&bo, &m->be) || model_config_read(path, &m->config, &err))
		give_up(path);
}

void box_model_close(struct model *m)
{
	m->ops->close(m->be);
}

static void write_all(int fd, const void *data, size_t bytes)
{
	if (write(fd, data, bytes) != (ssize_t)bytes)
		give_up("cannot write a memfd");
}

static int sealed(int fd)
{
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL))
		give_up("cannot seal");
	return fd;
}

static int config_fd(const struct adapter_box *b)
{
	int fd = memfd_create("config", MFD_ALLOW_SEALING);
	char *text;

	if (b->config_text) {
		write_all(fd, b->config_text, b->config_bytes);
		return sealed(fd);
	}
	text = json_dumps(b->config, 0);
	write_all(fd, text, strlen(text));
	free(text);
	return sealed(fd);
}

static int weights_fd(const struct adapter_box *b)
{
	int fd = memfd_create("weights", MFD_ALLOW_SEALING);
	char *text = json_dumps(b->header, JSON_COMPACT);
	uint64_t len = b->claimed_header ? b->claimed_header : strlen(text);

	write_all(fd, &len, 8);
	write_all(fd, text, strlen(text));
	write_all(fd, b->data, b->data_bytes);
	if (b->keep && ftruncate(fd, (off_t)b->keep))
		give_up("cannot truncate");
	free(text);
	return sealed(fd);
}

int box_open(const struct adapter_box *b, const struct model *m, const char *name,
	     struct adapter **ret, struct weft_err *err)
{
	const struct adapter_source src = {
		.name = name,
		.config_fd = config_fd(b),
		.weights_fd = weights_fd(b),
		.offset = b->offset,
		.on_missing = b->on_missing,
	};
	int r = adapter_open(m, 2 * adapter_piece_bytes(m->ops, m->be, &m->config), &src, ret, err);

	close(src.config_fd);
	close(src.weights_fd);
	return r;
}
