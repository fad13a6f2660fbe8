/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pins_file.c - pins in the state directory, so that they outlive weftd: pin-ID.json, an object with
 * model, tenant ("": the public domain) and tokens. One that cannot be read back is left where it is,
 * and the log says so; a prefix that is not pinned is only slower. Nothing is kept in memory.
 */
#include "daemon/supervisor/pins.h"

#include "daemon/supervisor/state_file.h"
#include "daemon/supervisor/weftd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void file_name(char ret[STATE_NAME_BYTES], uint64_t id)
{
	snprintf(ret, STATE_NAME_BYTES, "pin-%llu.json", (unsigned long long)id);
}

int pins_file_save(int dir_fd, uint64_t id, const struct pins_saved *pin)
{
	char name[STATE_NAME_BYTES];
	json_t *list = json_array(), *j;
	int rc;

	for (uint32_t i = 0; i < pin->n_tokens; i++)
		json_array_append_new(list, json_integer(pin->tokens[i]));
	j = json_pack("{s:s, s:s, s:o}", "model", pin->model, "tenant", pin->tenant, "tokens",
		      list);
	if (!j)
		return -ENOMEM;
	file_name(name, id);
	rc = state_file_save(dir_fd, name, j);
	json_decref(j);
	return rc;
}

int pins_file_remove(int dir_fd, uint64_t id)
{
	char name[STATE_NAME_BYTES];
	int rc;

	file_name(name, id);
	rc = unlinkat(dir_fd, name, 0) && errno != ENOENT ? -errno : 0;
	if (rc)
		log_line(LOG_LEVEL_WARN, "pin=%llu event=pin-file error=\"%s\"",
			 (unsigned long long)id, strerror(-rc));
	return rc;
}

/* NULL, or the words that a file lacks. */
static const char *parse(json_t *j, struct pins_saved *ret)
{
	const json_t *list = json_object_get(j, "tokens");
	const char *model = json_string_value(json_object_get(j, "model"));
	const char *tenant = json_string_value(json_object_get(j, "tenant"));
	size_t n = json_array_size(list);

	if (!model || strlen(model) >= sizeof(ret->model) || !tenant ||
	    strlen(tenant) >= sizeof(ret->tenant) || !n || n > PIN_MAX_TOKENS)
		return "it is damaged";
	strcpy(ret->model, model);
	strcpy(ret->tenant, tenant);
	ret->n_tokens = (uint32_t)n;
	ret->tokens = malloc(n * sizeof(*ret->tokens));
	if (!ret->tokens)
		return "out of memory";
	for (size_t i = 0; i < n; i++) {
		const json_t *v = json_array_get(list, i);
		json_int_t id = json_integer_value(v);

		if (!json_is_integer(v) || id < 0 || id > UINT32_MAX) {
			free(ret->tokens);
			return "it is damaged";
		}
		ret->tokens[i] = (uint32_t)id;
	}
	return NULL;
}

static const char *read_one(int dir_fd, const char *name, struct pins_saved *ret)
{
	const char *why;
	json_t *j = state_file_load(dir_fd, name, &why);

	if (!j)
		return why ? why : strerror(ENOENT);
	why = parse(j, ret);
	json_decref(j);
	return why;
}

/* The number in a name of ours, 0: it is none. */
static uint64_t id_of(const char *name)
{
	char again[STATE_NAME_BYTES];
	unsigned long long id;

	if (sscanf(name, "pin-%19llu.json", &id) != 1)
		return 0;
	file_name(again, id);
	return strcmp(again, name) ? 0 : id;
}

void pins_file_load(int dir_fd, pins_saved_fn found, void *arg)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (!dir) {
		log_line(LOG_LEVEL_ERROR, "event=pin-files error=\"%s\"", strerror(errno));
		if (fd >= 0)
			close(fd);
		return;
	}
	while ((entry = readdir(dir))) {
		uint64_t id = id_of(entry->d_name);
		struct pins_saved pin = {0};
		const char *why = id ? read_one(dir_fd, entry->d_name, &pin) : NULL;

		if (why)
			log_line(LOG_LEVEL_ERROR, "pin=%llu event=pin-file why=\"%s\"",
				 (unsigned long long)id, why);
		if (id)
			found(arg, id, why ? NULL : &pin);
	}
	closedir(dir);
}
