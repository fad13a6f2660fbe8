/* SPDX-License-Identifier: Apache-2.0 */
/*
 * backend.c - finding a backend by its name. Holds no state.
 */
#include "kernels/backend.h"

#include <string.h>

const struct wk_ops *wk_ops_by_name(const char *name)
{
	if (!strcmp(name, wk_ref_ops.name))
		return &wk_ref_ops;
	if (!strcmp(name, wk_cpu_ops.name))
		return &wk_cpu_ops;
	return NULL;
}
