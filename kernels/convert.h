/* SPDX-License-Identifier: Apache-2.0 */
/*
 * convert.h - element conversions of bf16 and IEEE half, scalar and exact.
 *
 * Widening is exact. Narrowing rounds to nearest, ties to even, and keeps a NaN a NaN.
 */
#ifndef WEFT_KERNELS_CONVERT_H
#define WEFT_KERNELS_CONVERT_H

#include <stdint.h>
#include <string.h>

static inline float wk_bits_to_f32(uint32_t u)
{
	float f;

	memcpy(&f, &u, 4);
	return f;
}

static inline uint32_t wk_f32_to_bits(float f)
{
	uint32_t u;

	memcpy(&u, &f, 4);
	return u;
}

static inline float wk_bf16_to_f32(uint16_t h)
{
	return wk_bits_to_f32((uint32_t)h << 16);
}

static inline uint16_t wk_f32_to_bf16(float f)
{
	uint32_t u = wk_f32_to_bits(f);

	if ((u & 0x7fffffff) > 0x7f800000)
		return (uint16_t)(u >> 16 | 0x40);
	return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static inline float wk_f16_to_f32(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = h >> 10 & 31, man = h & 0x3ff;

	if (exp == 31)
		return wk_bits_to_f32(sign | 0x7f800000 | man << 13);
	if (exp)
		return wk_bits_to_f32(sign | (exp + 112) << 23 | man << 13);
	/* Zero or subnormal: man * 2^-24 is exact in fp32. */
	return wk_bits_to_f32(sign | wk_f32_to_bits((float)man * 0x1p-24f));
}

#endif
