/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sample_pass_impl.h - the passes over a row of logits, for vectors of one width.
 *
 * Included by sample_pass.c once for each width, which defines before: NAME(x), x with a suffix of
 * its own, and VEC_BYTES, the width of a register. The 16 lanes of a sum are PARTS vectors, so that
 * a sum has the same shape at any width. (gcc turns vectors wider than a register into scalar code.)
 */
#define PARTS	   (LANES * 4 / VEC_BYTES)
#define CHUNK_VECS (WK_PASS_CHUNK / LANES * PARTS)
#define BLOCK_VECS (WK_PASS_BLOCK / LANES * PARTS)

typedef float NAME(vf) __attribute__((vector_size(VEC_BYTES)));
typedef int32_t NAME(vi) __attribute__((vector_size(VEC_BYTES)));
typedef uint32_t NAME(vu) __attribute__((vector_size(VEC_BYTES)));

/* Blocks are copied so that the row's tail needs no case of its own: -Inf adds nothing. */
BODY uint32_t NAME(load_block)(const float *logits, uint32_t n, uint32_t at, NAME(vf) * blk)
{
	uint32_t len = n - at < WK_PASS_BLOCK ? n - at : WK_PASS_BLOCK;
	float *f = (float *)blk;

	memcpy(f, logits + at, len * sizeof(float));
	for (uint32_t i = len; i < WK_PASS_BLOCK; i++)
		f[i] = -INFINITY;
	return len;
}

BODY float NAME(lanes_max)(const NAME(vf) * v)
{
	float s[LANES], m;

	memcpy(s, v, sizeof(s));
	m = s[0];
	for (int i = 1; i < LANES; i++)
		m = s[i] > m ? s[i] : m;
	return m;
}

BODY float NAME(lanes_sum)(const NAME(vf) * v)
{
	float s[LANES];

	memcpy(s, v, sizeof(s));
	for (int half = LANES / 2; half; half /= 2)
		for (int i = 0; i < half; i++)
			s[i] += s[i + half];
	return s[0];
}

/* Chunk maxima of a block; gives the block's. A NaN is noted in *nan. */
BODY float NAME(block_max)(const NAME(vf) * blk, uint32_t n_chunks, float *chunk_max,
			   NAME(vi) * nan)
{
	float max = -INFINITY;

	for (uint32_t c = 0; c < n_chunks; c++) {
		const NAME(vf) *at = blk + c * CHUNK_VECS;
		NAME(vf) m[PARTS];

		memcpy(m, at, sizeof(m));
		for (uint32_t i = 0; i < CHUNK_VECS; i++) {
			NAME(vf) v = at[i];
			NAME(vi) gt = v > m[i % PARTS];

			*nan |= v != v;
			m[i % PARTS] =
				(NAME(vf))(((NAME(vi))v & gt) | ((NAME(vi))m[i % PARTS] & ~gt));
		}
		chunk_max[c] = NAME(lanes_max)(m);
		if (chunk_max[c] > max)
			max = chunk_max[c];
	}
	return max;
}

BODY float NAME(block_sum)(const NAME(vf) * blk, float max)
{
	NAME(vf) sum[PARTS] = {0};

	for (uint32_t i = 0; i < BLOCK_VECS; i += PARTS)
		for (uint32_t k = 0; k < PARTS; k++) {
			NAME(vf) x = blk[i + k] - max, e;

			EXP_VEC(x, e);
			sum[k] += e;
		}
	return NAME(lanes_sum)(sum);
}

BODY void NAME(scan_body)(const float *logits, uint32_t n, bool sum, float *chunk_max,
			  struct wk_scan *ret)
{
	NAME(vf) blk[BLOCK_VECS];
	NAME(vi) nan = {0};
	float max = -INFINITY;
	double total = 0;
	bool bad = false;

	for (uint32_t at = 0; at < n; at += WK_PASS_BLOCK) {
		uint32_t len = NAME(load_block)(logits, n, at, blk);
		float m = NAME(block_max)(blk, (len + WK_PASS_CHUNK - 1) / WK_PASS_CHUNK,
					  chunk_max + at / WK_PASS_CHUNK, &nan);

		if (sum && isfinite(m)) {
			if (m > max)
				total *= exp((double)max - m);
			total += NAME(block_sum)(blk, m) * (m > max ? 1.0 : exp((double)m - max));
		}
		max = m > max ? m : max;
	}
	for (uint32_t i = 0; i < LANES / PARTS; i++)
		bad |= nan[i] != 0;
	ret->max = max;
	ret->bad = bad || !isfinite(max);
	ret->log_sum = sum && !ret->bad ? log(total) : 0;
}

BODY double NAME(weigh_body)(const float *logits, uint32_t n, float max, float inv_temp,
			     float *weight)
{
	NAME(vf) blk[BLOCK_VECS];
	double total = 0;

	for (uint32_t at = 0; at < n; at += WK_PASS_BLOCK) {
		uint32_t len = NAME(load_block)(logits, n, at, blk);
		NAME(vf) sum[PARTS] = {0};

		for (uint32_t i = 0; i < BLOCK_VECS; i += PARTS)
			for (uint32_t k = 0; k < PARTS; k++) {
				NAME(vf) x = (blk[i + k] - max) * inv_temp;

				EXP_VEC(x, blk[i + k]);
				sum[k] += blk[i + k];
			}
		memcpy(weight + at, blk, len * sizeof(float));
		total += NAME(lanes_sum)(sum);
	}
	return total;
}

#undef PARTS
#undef CHUNK_VECS
#undef BLOCK_VECS
#undef VEC_BYTES
#undef NAME
