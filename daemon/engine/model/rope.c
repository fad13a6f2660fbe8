/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rope.c - inverse frequencies of the rotary embedding, with the published scalings.
 *
 * The arithmetic is float where transformers' is: at position 100,000 one unit in the last place
 * of a frequency is a hundredth of a radian, so another rounding is another model.
 */
#include <math.h>

#include "daemon/engine/model/model_private.h"

#define PI 3.14159265358979323846

/* Wavelengths above the low bound are divided by the factor, those below the high bound stay, and
 * those between are interpolated. */
static float scale_llama3(const struct model_config *c, float freq)
{
	float original = (float)c->rope_original, factor = (float)c->rope_factor;
	float wavelength = (float)(2 * PI) / freq, smooth;

	if (wavelength > (float)(c->rope_original / c->rope_low_freq))
		return freq / factor;
	if (wavelength < (float)(c->rope_original / c->rope_high_freq))
		return freq;
	smooth = (original / wavelength - (float)c->rope_low_freq) /
		 (float)(c->rope_high_freq - c->rope_low_freq);
	return (1 - smooth) * freq / factor + smooth * freq;
}

/* The pair whose wavelength fits `rotations` times into the original context. */
static double yarn_pair(const struct model_config *c, double rotations)
{
	return c->head_dim * log(c->rope_original / (rotations * 2 * PI)) /
	       (2 * log(c->rope_theta));
}

static float period(const struct model_config *c, uint32_t pair)
{
	return powf((float)c->rope_theta, (float)(2 * pair) / (float)c->head_dim);
}

static void scale_yarn(const struct model_config *c, float *freq)
{
	double low = yarn_pair(c, c->yarn_beta_fast), high = yarn_pair(c, c->yarn_beta_slow);

	if (c->yarn_truncate) {
		low = floor(low);
		high = ceil(high);
	}
	low = fmax(low, 0);
	high = fmin(high, c->head_dim - 1);
	if (low == high)
		high += 0.001;
	for (uint32_t i = 0; i < c->head_dim / 2; i++) {
		float ramp = ((float)i - (float)low) / (float)(high - low);
		float keep = 1 - fminf(fmaxf(ramp, 0), 1);
		float inter = 1.0f / ((float)c->rope_factor * period(c, i));

		freq[i] = inter * (1 - keep) + freq[i] * keep;
	}
}

void model_rope(const struct model_config *c, float *ret_inv_freq, float *ret_scale)
{
	for (uint32_t i = 0; i < c->head_dim / 2; i++) {
		float freq = 1.0f / period(c, i);

		if (c->rope == MODEL_ROPE_LINEAR)
			freq /= (float)c->rope_factor;
		if (c->rope == MODEL_ROPE_LLAMA3)
			freq = scale_llama3(c, freq);
		ret_inv_freq[i] = freq;
	}
	if (c->rope == MODEL_ROPE_YARN)
		scale_yarn(c, ret_inv_freq);
	*ret_scale = c->rope == MODEL_ROPE_YARN ? (float)c->yarn_attention_factor : 1;
}
