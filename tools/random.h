/* SPDX-License-Identifier: Apache-2.0 */
/* random.h - normally distributed weights whose bytes depend on a seed alone. */
#ifndef WEFT_TOOLS_RANDOM_H
#define WEFT_TOOLS_RANDOM_H

#include <stdint.h>

/*
 * A value is one of so many quantiles of the normal distribution of std 1, chosen by 12 bits of a
 * counter-based generator: four values cost one draw and no arithmetic.
 */
#define RANDOM_QUANTILES 4096

/* Value i has (i + 1/2) / RANDOM_QUANTILES of the distribution below it. */
void random_quantiles(double ret[RANDOM_QUANTILES]);

/* SplitMix64 as a function of its counter. */
static inline uint64_t random_draw(uint64_t counter)
{
	uint64_t z = counter * 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

#endif
