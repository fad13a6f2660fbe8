/* SPDX-License-Identifier: Apache-2.0 */
/* find_engine.c - where weft-engine is: as told, else beside weftd, else in libexec. */
#include "daemon/supervisor/weftd.h"

#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool usable(const char *path)
{
	return !access(path, X_OK);
}

/* Told explicitly: it must be there, no other is tried. */
static int take(const char *path, const char *by, char *ret, size_t ret_bytes, struct weft_err *err)
{
	if ((size_t)snprintf(ret, ret_bytes, "%s", path) >= ret_bytes)
		return err_set(err, -ENAMETOOLONG, "%s names a path that is too long", by);
	if (!usable(ret))
		return err_set(err, -errno, "%s names %s, which cannot be executed: %s", by, path,
			       strerror(errno));
	return 0;
}

int engine_find(const char *option, const char *configured, char *ret, size_t ret_bytes,
		struct weft_err *err)
{
	static const char *const places[] = {"weft-engine", "../lib/weft/weft-engine",
					     "../libexec/weft/weft-engine"};
	const char *env = getenv("WEFT_ENGINE");
	char self[PATH_MAX];
	ssize_t n;

	if (option)
		return take(option, "--engine", ret, ret_bytes, err);
	if (env && *env)
		return take(env, "$WEFT_ENGINE", ret, ret_bytes, err);
	if (*configured)
		return take(configured, "engine in weftd.conf", ret, ret_bytes, err);
	n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (n < 0)
		return err_set(err, -errno, "/proc/self/exe: %s", strerror(errno));
	self[n] = 0;
	dirname(self);
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		if ((size_t)snprintf(ret, ret_bytes, "%s/%s", self, places[i]) < ret_bytes &&
		    usable(ret))
			return 0;
	}
	return err_set(err, -ENOENT,
		       "no weft-engine in %s or ../lib/weft beside it: say where it is with "
		       "--engine PATH",
		       self);
}
