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
/* How often it has run. */
long emu_runs(const struct emu_kernel *k);
uint32_t emu_arg_bytes(const struct emu_kernel *k);
uint32_t emu_max_threads(const struct emu_kernel *k);
/* Whether it does anything before it waits for the launch before it. */
int emu_is_early(const struct emu_kernel *k);
/* Only that much of it. Both give a digest of what it has read there. */
uint64_t emu_run_early(const struct emu_kernel *k, const uint32_t grid[3], uint32_t threads,
		       uint32_t shared_bytes, const void *args);
uint64_t emu_run(const struct emu_kernel *k, const uint32_t grid[3], uint32_t threads,
		 uint32_t shared_bytes, const void *args);

#ifdef __cplusplus
}
#endif

#endif
