/* SPDX-License-Identifier: Apache-2.0 */
/* emulate_block.h - the block that runs, for hopper.cc. */
#ifndef WEFT_TESTS_CUDA_EMULATE_BLOCK_H
#define WEFT_TESTS_CUDA_EMULATE_BLOCK_H

#include <stdint.h>

#define EMU_MAX_THREADS 1024

/* Addresses of shared memory count from here; what a kernel may use begins later. */
extern uint8_t *emu_window;
uint32_t emu_window_bytes(void);
const char *emu_kernel_name(void);

/* Let the next thread run; whoever made something that others may wait for says so. */
void emu_yield(void);
void emu_went_on(void);
/* All 128 threads of a warpgroup; the last to come calls fn for all. */
void emu_meet(uint32_t group, void (*fn)(uint32_t group));

/* hopper.cc, called by emulate.cc: a block begins, a thread of it ends, all have. */
void emu_hopper_begin(void);
void emu_hopper_thread_end(void);
void emu_hopper_end(void);

#endif
