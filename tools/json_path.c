/* SPDX-License-Identifier: Apache-2.0 */
/* json_path.c - see json_path.h. Holds no state. */
#include "tools/json_path.h"

#include <string.h>

json_t *json_path(const json_t *o, const char *path)
{
	char key[64];

	while (o) {
		size_t n = strcspn(path, ".");

		if (n >= sizeof(key))
			return NULL;
		memcpy(key, path, n);
		key[n] = 0;
		if (!path[n])
			return json_object_get(o, key);
		o = json_object_get(o, key);
		path += n + 1;
	}
	return NULL;
}

const char *json_path_text(const json_t *o, const char *path)
{
	const char *s = json_string_value(json_path(o, path));

	return s ? s : "";
}

bool json_path_number(const json_t *o, const char *path, double *ret)
{
	const json_t *v = json_path(o, path);

	if (json_is_boolean(v))
		*ret = json_is_true(v);
	else if (json_is_number(v))
		*ret = json_number_value(v);
	else
		return false;
	return true;
}

json_t *json_path_named(const json_t *list, const char *key, const char *text)
{
	json_t *item;
	size_t i;

	json_array_foreach((json_t *)list, i, item)
	{
		if (!strcmp(json_path_text(item, key), text))
			return item;
	}
	return NULL;
}
