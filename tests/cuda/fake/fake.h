/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake.h - what the files of the fake driver share: driver.c (device, failures), memory.c, stream.c (what is put
 * on streams, events, graphs, kernels).
 */
#ifndef WEFT_TESTS_CUDA_FAKE_FAKE_H
#define WEFT_TESTS_CUDA_FAKE_FAKE_H

#include "kernels/cuda/driver.h"

#define EXPORT	     __attribute__((visibility("default")))
#define INVALID	     1
#define NOT_FOUND    500
#define SHARED_LIMIT (227u << 10) /* of a Hopper block */

/* driver.c: things made and not given back. */
extern long fake_live;
/* What a call is to give: 0 to go on. */
cu_result fake_fate(const char *call);

#define CALL(call)                               \
	do {                                     \
		cu_result r_ = fake_fate(#call); \
		if (r_)                          \
			return r_;               \
	} while (0)

/* stream.c: do all that waits on any stream. */
void fake_run_all(void);
/* A device would read or write what is no longer there: ends the program. */
void fake_must_be_still(uint64_t at, size_t bytes);

#endif
