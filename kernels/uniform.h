/* SPDX-License-Identifier: Apache-2.0 */
/* uniform.h - the generator behind wk_uniform(), for its test. */
#ifndef WEFT_KERNELS_UNIFORM_H
#define WEFT_KERNELS_UNIFORM_H

#include "kernels/backend.h"

void wk_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t ret[4]);

#endif
