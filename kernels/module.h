/* SPDX-License-Identifier: Apache-2.0 */
/*
 * module.h - a backend that is loaded at run time: the engine's side, and the one symbol of a module.
 */
#ifndef WEFT_KERNELS_MODULE_H
#define WEFT_KERNELS_MODULE_H

#include "kernels/backend.h"

/* Exported by a module: its table, or NULL if it was built for another `abi` (WK_ABI). */
const struct wk_ops *wk_module_ops(uint32_t abi);

/*
 * The table of a backend that is a module ("cuda"): WEFT_CUDA_MODULE names its file, else it is
 * weft-cuda.so beside the program. It stays loaded. NULL with one line in `why`.
 */
const struct wk_ops *wk_module_load(const char *name, char *why, size_t why_bytes);

#endif
