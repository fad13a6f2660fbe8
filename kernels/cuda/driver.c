/* SPDX-License-Identifier: Apache-2.0 */
/*
 * driver.c - opening the CUDA driver's library. Owns what it opens; no other state.
 */
#include "kernels/cuda/driver.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *symbol;
	size_t at;
	int optional;
} calls[] = {
#define CU_CALL(name, symbol, args) {#symbol, offsetof(struct cu_driver, name), 0},
	CU_CALLS(CU_CALL)
#undef CU_CALL
#define CU_CALL(name, symbol, args) {#symbol, offsetof(struct cu_driver, name), 1},
		CU_OPTIONAL_CALLS(CU_CALL)
#undef CU_CALL
};

int cu_driver_open(struct cu_driver *d, char *why, size_t why_bytes)
{
	const char *path = getenv("WEFT_CUDA_DRIVER");
	int flags = RTLD_NOW | RTLD_LOCAL;

	memset(d, 0, sizeof(*d));
	if (!path || !*path) {
		path = "libcuda.so.1";
		/* Never unmapped: it may still have threads, and starting it again takes time. */
		flags |= RTLD_NODELETE;
	}
	d->library = dlopen(path, flags);
	if (!d->library) {
		snprintf(why, why_bytes, "no CUDA driver: %s", dlerror());
		return -ENODEV;
	}
	for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++) {
		void *symbol = dlsym(d->library, calls[i].symbol);

		if (!symbol && !calls[i].optional) {
			snprintf(why, why_bytes, "the CUDA driver %s has no %s: it is too old",
				 path, calls[i].symbol);
			cu_driver_close(d);
			return -ENOSYS;
		}
		memcpy((char *)d + calls[i].at, &symbol, sizeof(symbol));
	}
	return 0;
}

void cu_driver_close(struct cu_driver *d)
{
	if (d->library)
		dlclose(d->library);
	memset(d, 0, sizeof(*d));
}
