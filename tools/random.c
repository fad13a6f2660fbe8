/* SPDX-License-Identifier: Apache-2.0 */
/* random.c - see random.h: quantiles by halving, accurate to the last bits of a float. */
#include "tools/random.h"

#include <math.h>

void random_quantiles(double ret[RANDOM_QUANTILES])
{
	for (int i = 0; i < RANDOM_QUANTILES / 2; i++) {
		double want = (i + 0.5) / RANDOM_QUANTILES, low = -6, high = 0;

		for (int step = 0; step < 40; step++) {
			double mid = (low + high) / 2;

			if (0.5 * erfc(-mid / sqrt(2)) < want)
				low = mid;
			else
				high = mid;
		}
		ret[i] = low;
		ret[RANDOM_QUANTILES - 1 - i] = -low;
	}
}
