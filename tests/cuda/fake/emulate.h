/* SPDX-License-Identifier: Apache-2.0 */
/* emulate.h - running an emulated kernel, for the fake driver. */
#ifndef WEFT_TESTS_CUDA_EMULATE_H
#define WEFT_TESTS_CUDA_EMULATE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct emu_kernel;

/* NULL: there is none of this name. */
const struct emu_kernel *emu_find(const char *name);
uint32_t emu_arg_bytes(const struct emu_kernel *k);
uint32_t emu_max_threads(const struct emu_kernel *k);
void emu_run(const struct emu_kernel *k, const uint32_t grid[3], uint32_t threads,
	     uint32_t shared_bytes, const void *args);

#ifdef __cplusplus
}
#endif

#endif
