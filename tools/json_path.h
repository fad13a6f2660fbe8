/* SPDX-License-Identifier: Apache-2.0 */
/* json_path.h - a value inside nested objects, by the names on the way: "engine.cache.hits". */
#ifndef WEFT_TOOLS_JSON_PATH_H
#define WEFT_TOOLS_JSON_PATH_H

#include <jansson.h>
#include <stdbool.h>

/* NULL: not there. Borrowed from o, which may be NULL. */
json_t *json_path(const json_t *o, const char *path);
const char *json_path_text(const json_t *o, const char *path); /* "" when it is not there */
/* A number, or 1 and 0 for a truth value. False when it is not there: *ret stays. */
bool json_path_number(const json_t *o, const char *path, double *ret);
/* The object of a list whose member `key` is this text; NULL: none. */
json_t *json_path_named(const json_t *list, const char *key, const char *text);

#endif
