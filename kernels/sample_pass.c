/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sample_pass.c - one text of the passes over a row of logits, compiled for three instruction sets.
 *
 * The bodies (sample_pass_impl.h, for three widths of vector) are always_inline and get their
 * instruction set from the wrapper that they are inlined into. No state.
 */
#include <math.h>
#include <string.h>

#include "kernels/sample_pass.h"

#define LANES 16
#define BODY  static inline __attribute__((always_inline))

/* The same operations in the same order as wk_exp(). Unsigned: lanes below the minimum overflow
 * before they are masked. */
#define EXP_VEC(x, ret)                                                       \
	do {                                                                  \
		NAME(vf) e_t = (x)*WK_EXP_LOG2E + WK_EXP_MAGIC;               \
		NAME(vf) e_n = e_t - WK_EXP_MAGIC;                            \
		NAME(vf) e_r = ((x)-e_n * WK_EXP_LN2HI) - e_n * WK_EXP_LN2LO; \
		NAME(vf) e_p = e_r * (1.0f / 5040) + 1.0f / 720;              \
		e_p = e_p * e_r + 1.0f / 120;                                 \
		e_p = e_p * e_r + 1.0f / 24;                                  \
		e_p = e_p * e_r + 1.0f / 6;                                   \
		e_p = e_p * e_r + 0.5f;                                       \
		e_p = e_p * e_r + 1.0f;                                       \
		e_p = e_p * e_r + 1.0f;                                       \
		(ret) = (NAME(vf))(((NAME(vu))e_p + ((NAME(vu))e_t << 23)) &  \
				   (NAME(vu))((x) >= WK_EXP_MIN));            \
	} while (0)

#define NAME(x)	  baseline_##x
#define VEC_BYTES 16
#include "kernels/sample_pass_impl.h"

#ifdef __x86_64__
#define NAME(x)	  avx2_##x
#define VEC_BYTES 32
#include "kernels/sample_pass_impl.h"

#define NAME(x)	  avx512_##x
#define VEC_BYTES 64
#include "kernels/sample_pass_impl.h"
#endif

#define VARIANT(name, attribute)                                                         \
	attribute static void scan_##name(const float *logits, uint32_t n, bool sum,     \
					  float *chunk_max, struct wk_scan *ret)         \
	{                                                                                \
		name##_scan_body(logits, n, sum, chunk_max, ret);                        \
	}                                                                                \
	attribute static double weigh_##name(const float *logits, uint32_t n, float max, \
					     float inv_temp, float *weight)              \
	{                                                                                \
		return name##_weigh_body(logits, n, max, inv_temp, weight);              \
	}                                                                                \
	static const struct wk_passes passes_##name = {scan_##name, weigh_##name}

VARIANT(baseline, );

#ifdef __x86_64__
VARIANT(avx2, __attribute__((target("avx2"))));
VARIANT(avx512, __attribute__((target("avx512f,avx512bw,avx512dq"))));

const struct wk_passes *wk_passes_get(enum wk_sample_level level)
{
	bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
		      __builtin_cpu_supports("avx512dq");

	if (avx512 && (level == WK_SAMPLE_BEST || level == WK_SAMPLE_AVX512))
		return &passes_avx512;
	if (__builtin_cpu_supports("avx2") && level != WK_SAMPLE_BASELINE)
		return &passes_avx2;
	return &passes_baseline;
}
#else
const struct wk_passes *wk_passes_get(enum wk_sample_level level)
{
	return &passes_baseline;
}
#endif
