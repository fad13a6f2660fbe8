/* SPDX-License-Identifier: Apache-2.0 */
/*
 * module.c - loading a backend that is not linked in. A module stays loaded once it is: tables that
 * were handed out point into it.
 */
#include "kernels/module.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef const struct wk_ops *(*module_ops_fn)(uint32_t abi);

/* The module's file; false if the program's own place cannot be told. */
static bool find(char path[PATH_MAX])
{
	const char *given = getenv("WEFT_CUDA_MODULE");
	char self[PATH_MAX];
	ssize_t n;

	if (given && *given)
		return snprintf(path, PATH_MAX, "%s", given) < PATH_MAX;
	n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (n <= 0)
		return false;
	self[n] = 0;
	*strrchr(self, '/') = 0;
	return snprintf(path, PATH_MAX, "%s/weft-cuda.so", self) < PATH_MAX;
}

const struct wk_ops *wk_module_load(const char *name, char *why, size_t why_bytes)
{
	const struct wk_ops *ops;
	module_ops_fn get;
	char path[PATH_MAX];
	void *library, *symbol;

	if (strcmp(name, "cuda") || !find(path)) {
		snprintf(why, why_bytes, "no backend %s", name);
		return NULL;
	}
	library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!library) {
		snprintf(why, why_bytes, "%s", dlerror());
		return NULL;
	}
	symbol = dlsym(library, "wk_module_ops");
	memcpy(&get, &symbol, sizeof(get));
	ops = get ? get(WK_ABI) : NULL;
	if (ops && ops->abi == WK_ABI && !strcmp(ops->name, name))
		return ops;
	snprintf(why, why_bytes, "%s is of another version than this program (interface %d)", path,
		 WK_ABI);
	dlclose(library);
	return NULL;
}
