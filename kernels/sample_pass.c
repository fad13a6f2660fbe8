/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sample_pass.c - one text of the passes over a row of logits, compiled for three instruction sets.
 *
 * The bodies are always_inline and get their instruction set from the wrapper that they are inlined
 * into. No state.
 */
#include <math.h>
#include <string.h>

#include "kernels/sample_pass.h"

typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef uint32_t vu __attribute__((vector_size(64)));

#define LANES	   16
#define BODY	   static inline __attribute__((always_inline))
#define CHUNK_VECS (WK_PASS_CHUNK / LANES)
#define BLOCK_VECS (WK_PASS_BLOCK / LANES)

/* The same operations in the same order as wk_exp(). Unsigned: lanes below the minimum overflow
 * before they are masked. */
#define EXP_VEC(x, ret)                                                              \
	do {                                                                         \
		vf e_t = (x)*WK_EXP_LOG2E + WK_EXP_MAGIC;                            \
		vf e_n = e_t - WK_EXP_MAGIC;                                         \
		vf e_r = ((x)-e_n * WK_EXP_LN2HI) - e_n * WK_EXP_LN2LO;              \
		vf e_p = e_r * (1.0f / 5040) + 1.0f / 720;                           \
		e_p = e_p * e_r + 1.0f / 120;                                        \
		e_p = e_p * e_r + 1.0f / 24;                                         \
		e_p = e_p * e_r + 1.0f / 6;                                          \
		e_p = e_p * e_r + 0.5f;                                              \
		e_p = e_p * e_r + 1.0f;                                              \
		e_p = e_p * e_r + 1.0f;                                              \
		(ret) = (vf)(((vu)e_p + ((vu)e_t << 23)) & (vu)((x) >= WK_EXP_MIN)); \
	} while (0)

/* Blocks are copied so that the row's tail needs no case of its own: -Inf adds nothing. */
BODY uint32_t load_block(const float *logits, uint32_t n, uint32_t at, vf *blk)
{
	uint32_t len = n - at < WK_PASS_BLOCK ? n - at : WK_PASS_BLOCK;
	float *f = (float *)blk;

	memcpy(f, logits + at, len * sizeof(float));
	for (uint32_t i = len; i < WK_PASS_BLOCK; i++)
		f[i] = -INFINITY;
	return len;
}

BODY float lanes_max(const vf *v)
{
	float m = (*v)[0];

	for (int i = 1; i < LANES; i++)
		m = (*v)[i] > m ? (*v)[i] : m;
	return m;
}

BODY float lanes_sum(const vf *v)
{
	float s[LANES];

	memcpy(s, v, sizeof(s));
	for (int half = LANES / 2; half; half /= 2)
		for (int i = 0; i < half; i++)
			s[i] += s[i + half];
	return s[0];
}

/* Chunk maxima of a block; gives the block's. A NaN is noted in *nan. */
BODY float block_max(const vf *blk, uint32_t n_chunks, float *chunk_max, vi *nan)
{
	float max = -INFINITY;

	for (uint32_t c = 0; c < n_chunks; c++) {
		vf m = blk[c * CHUNK_VECS];

		for (uint32_t i = 0; i < CHUNK_VECS; i++) {
			vf v = blk[c * CHUNK_VECS + i];
			vi gt = v > m;

			*nan |= v != v;
			m = (vf)(((vi)v & gt) | ((vi)m & ~gt));
		}
		chunk_max[c] = lanes_max(&m);
		if (chunk_max[c] > max)
			max = chunk_max[c];
	}
	return max;
}

BODY float block_sum(const vf *blk, float max)
{
	vf sum = {0};

	for (uint32_t i = 0; i < BLOCK_VECS; i++) {
		vf x = blk[i] - max, e;

		EXP_VEC(x, e);
		sum += e;
	}
	return lanes_sum(&sum);
}

BODY void scan_body(const float *logits, uint32_t n, bool sum, float *chunk_max,
		    struct wk_scan *ret)
{
	vf blk[BLOCK_VECS];
	vi nan = {0};
	float max = -INFINITY;
	double total = 0;
	bool bad = false;

	for (uint32_t at = 0; at < n; at += WK_PASS_BLOCK) {
		uint32_t len = load_block(logits, n, at, blk);
		float m = block_max(blk, (len + WK_PASS_CHUNK - 1) / WK_PASS_CHUNK,
				    chunk_max + at / WK_PASS_CHUNK, &nan);

		if (sum && isfinite(m)) {
			if (m > max)
				total *= exp((double)max - m);
			total += block_sum(blk, m) * (m > max ? 1.0 : exp((double)m - max));
		}
		max = m > max ? m : max;
	}
	for (int i = 0; i < LANES; i++)
		bad |= nan[i] != 0;
	ret->max = max;
	ret->bad = bad || !isfinite(max);
	ret->log_sum = sum && !ret->bad ? log(total) : 0;
}

BODY double weigh_body(const float *logits, uint32_t n, float max, float inv_temp, float *weight)
{
	vf blk[BLOCK_VECS];
	double total = 0;

	for (uint32_t at = 0; at < n; at += WK_PASS_BLOCK) {
		uint32_t len = load_block(logits, n, at, blk);
		vf sum = {0};

		for (uint32_t i = 0; i < BLOCK_VECS; i++) {
			vf x = (blk[i] - max) * inv_temp;

			EXP_VEC(x, blk[i]);
			sum += blk[i];
		}
		memcpy(weight + at, blk, len * sizeof(float));
		total += lanes_sum(&sum);
	}
	return total;
}

#define VARIANT(name, attribute)                                                         \
	attribute static void scan_##name(const float *logits, uint32_t n, bool sum,     \
					  float *chunk_max, struct wk_scan *ret)         \
	{                                                                                \
		scan_body(logits, n, sum, chunk_max, ret);                               \
	}                                                                                \
	attribute static double weigh_##name(const float *logits, uint32_t n, float max, \
					     float inv_temp, float *weight)              \
	{                                                                                \
		return weigh_body(logits, n, max, inv_temp, weight);                     \
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
