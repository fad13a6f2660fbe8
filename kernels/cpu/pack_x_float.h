/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pack_x_float.h - packing of x for the paths that multiply in fp32: [pairs][rows][2] floats.
 *
 * Widening here, once per row, spares a shift for each product's broadcast.
 */
#ifndef WEFT_KERNELS_CPU_PACK_X_FLOAT_H
#define WEFT_KERNELS_CPU_PACK_X_FLOAT_H

#include "kernels/cpu/cpu.h"

static void pack_x_float(void *dst, const uint16_t *x, size_t stride, uint32_t rows, uint32_t k0,
			 uint32_t pairs, uint32_t k)
{
	uint32_t have = k - k0 < 2 * pairs ? k - k0 : 2 * pairs;

	for (uint32_t r = 0; r < rows; r++) {
		const uint16_t *from = x + r * stride + k0;
		float *to = (float *)dst + 2 * r;

		for (uint32_t i = 0; i < have; i++)
			to[(size_t)(i / 2) * 2 * rows + i % 2] = wk_bf16_float(from[i]);
		if (have < 2 * pairs)
			to[(size_t)(have / 2) * 2 * rows + have % 2] = 0;
	}
}

#endif
