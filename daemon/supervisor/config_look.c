/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_look.c - do the files that a configuration names seem to be there? For `weftd --check`: they are
 * looked at with the eyes of whoever calls, and nothing is loaded. What is in them is the engine's to judge.
 */
#include "daemon/common/plain.h"
#include "daemon/supervisor/config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct look {
	FILE *to;
	uint32_t faults;
	const char *kind, *name; /* of the section that is looked at */
};

static void __attribute__((format(printf, 2, 3))) fault(struct look *l, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	plain_text(text, strlen(text));
	fprintf(l->to, "[%s %s]: %s\n", l->kind, l->name, text);
	l->faults++;
}

static bool is_folder(struct look *l, const char *path)
{
	struct stat st;

	if (stat(path, &st))
		fault(l, "%s: %s", path, strerror(errno));
	else if (!S_ISDIR(st.st_mode))
		fault(l, "%s: is no folder", path);
	else
		return true;
	return false;
}

/* 0, or -errno: a regular file that can be read. */
static int look_at(const char *folder, const char *file)
{
	char path[CONFIG_TEXT_BYTES + 64];
	int fd, err = 0;
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", folder, file);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st))
		err = -errno;
	else if (!S_ISREG(st.st_mode))
		err = -EISDIR;
	close(fd);
	return err;
}

static void need(struct look *l, const char *folder, const char *file)
{
	int err = look_at(folder, file);

	if (err == -EISDIR)
		fault(l, "%s/%s: is no regular file", folder, file);
	else if (err)
		fault(l, "%s/%s: %s", folder, file, strerror(-err));
}

/* One file, or an index that names several; not both. */
static void need_weights(struct look *l, const char *folder)
{
	const char *const single = "model.safetensors", *const index =
								"model.safetensors.index.json";
	bool sharded = look_at(folder, index) != -ENOENT;

	if (sharded && look_at(folder, single) != -ENOENT)
		fault(l, "%s: has both %s and %s", folder, single, index);
	else
		need(l, folder, sharded ? index : single);
}

static void look_at_model(struct look *l, const struct config_model *m)
{
	l->kind = "model";
	l->name = m->name;
	if (!is_folder(l, m->path))
		return;
	need(l, m->path, "config.json");
	if (strcmp(m->dummy_weights, "on")) /* those are of no file */
		need_weights(l, m->path);
}

static void look_at_adapter(struct look *l, const struct config_adapter *a)
{
	l->kind = "adapter";
	l->name = a->name;
	if (!is_folder(l, a->path))
		return;
	need(l, a->path, "adapter_config.json");
	need(l, a->path, "adapter_model.safetensors");
}

uint32_t config_look(const struct config *c, FILE *to)
{
	struct look l = {.to = to};

	for (uint32_t i = 0; i < c->n_models; i++)
		look_at_model(&l, &c->models[i]);
	for (uint32_t i = 0; i < c->n_adapters; i++)
		look_at_adapter(&l, &c->adapters[i]);
	return l.faults;
}
