/* SPDX-License-Identifier: Apache-2.0 */
/*
 * basic.cu - the kernels that touch each element once: marks, blocks, embedding, norm, bias, SwiGLU,
 * rotation and KV append.
 */
#include "kernels/cuda/device.cuh"

#define NORM_THREADS 256
#define ROPE_THREADS 128

/* The last thing of a step: the host reads `where` instead of asking the driver. */
WK_KERNEL(wk_mark, (1), struct ka_mark)
{
	/* C2: pairs with C1 in cuda_done() */
	__threadfence_system();
	*(volatile uint64_t *)a.where = a.value;
}

/* One thread block row (y) for each KV block. */
WK_KERNEL(wk_zero, (256), struct ka_zero)
{
	uint4 *to = (uint4 *)(a.pool + a.blocks[blockIdx.y] * a.block_bytes);
	uint64_t n = a.block_bytes / 16;

	for (uint64_t i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
		to[i] = make_uint4(0, 0, 0, 0);
}

WK_KERNEL(wk_copy_rows, (256), struct ka_copy_rows)
{
	uint4 *to = (uint4 *)(a.pool + a.dst * a.block_bytes);
	const uint4 *from = (const uint4 *)(a.pool + a.src * a.block_bytes);
	uint64_t n = a.block_bytes / 16, used = (uint64_t)a.n_heads * a.head_size / 16;

	for (uint64_t i = blockIdx.x * blockDim.x + threadIdx.x; i < n;
	     i += gridDim.x * blockDim.x) {
		uint32_t in_head = (uint32_t)(i * 16 % a.head_size);

		to[i] = i < used && in_head < a.copy_size ? from[i] : make_uint4(0, 0, 0, 0);
	}
}

WK_KERNEL(wk_embed, (256), struct ka_embed)
{
	uint32_t name = a.tokens[blockIdx.x];
	uint32_t token = name & KA_DRAWN ? a.drawn[name & ~KA_DRAWN] : name;
	const uint16_t *from = a.table + (uint64_t)token * a.k_stride;
	float *to = a.h + (uint64_t)blockIdx.x * a.h_stride;

	for (uint32_t i = threadIdx.x; i < a.k; i += blockDim.x)
		to[i] = a.scale * wk_from_bf16(from[i]);
}

/* --- norm ------------------------------------------------------------------------------------------*/

WK_DEVICE float block_sum(float v, float *shared)
{
	float sum = 0;

	v = wk_warp_sum(v);
	if (threadIdx.x % 32 == 0)
		shared[threadIdx.x / 32] = v;
	__syncthreads();
	for (uint32_t i = 0; i < blockDim.x / 32; i++)
		sum += shared[i];
	return sum;
}

WK_DEVICE void norm_row(const struct ka_norm &a, uint32_t row, float *shared)
{
	uint32_t whole = a.dim / 4 * 4;
	const float *h = a.h + (uint64_t)row * a.h_stride;
	uint16_t *x = a.x + (uint64_t)blockIdx.x * a.x_stride;
	float sum = 0, inv;

	for (uint32_t i = threadIdx.x * 4; i < whole; i += NORM_THREADS * 4) {
		float4 v = *(const float4 *)(h + i);

		sum += (v.x * v.x + v.y * v.y) + (v.z * v.z + v.w * v.w);
	}
	for (uint32_t i = whole + threadIdx.x; i < a.dim; i += NORM_THREADS)
		sum += h[i] * h[i];
	sum = block_sum(sum, shared);
	inv = 1.0f / sqrtf(sum / a.dim + a.eps);
	for (uint32_t i = threadIdx.x * 4; i < whole; i += NORM_THREADS * 4) {
		float4 v = *(const float4 *)(h + i), w = wk_load_floats(a.weight + i);
		uint32_t lo = wk_pack_bf16(w.x * (v.x * inv), w.y * (v.y * inv));
		uint32_t hi = wk_pack_bf16(w.z * (v.z * inv), w.w * (v.w * inv));

		*(uint2 *)(x + i) = make_uint2(lo, hi);
	}
	for (uint32_t i = whole + threadIdx.x; i < a.dim; i += NORM_THREADS)
		x[i] = (uint16_t)wk_to_bf16(a.weight[i] * (h[i] * inv));
}

/* A thread block for each row. h and weight are read 16 bytes at a time. Between two steps whatever is read
 * once a step has left the cache: the weight is on its way back before there is anything to norm. */
WK_KERNEL_EARLY(wk_norm, (NORM_THREADS), struct ka_norm)
{
	__shared__ float shared[NORM_THREADS / 32];
	uint32_t whole = a.dim / 4 * 4;

	wk_let_next();
	if (blockIdx.x == 0 && threadIdx.x == 0 && whole)
		wk_early_fetch(a.weight, whole * sizeof(float));
	wk_await_previous();
	norm_row(a, a.rows ? a.rows[blockIdx.x] : blockIdx.x, shared);
}

/* --- after a product -------------------------------------------------------------------------------*/

/* Only where the product could not take the bias with it. Row y, columns x. */
WK_KERNEL(wk_bias_add, (256), struct ka_bias_add)
{
	uint32_t j = blockIdx.x * blockDim.x + threadIdx.x;

	if (j < a.n)
		a.out[(uint64_t)blockIdx.y * a.out_stride + j] += a.scale * a.bias[j];
}

WK_DEVICE float silu(float x)
{
	return x / (1.0f + expf(-x));
}

/* Two gates and two ups in bf16. */
WK_DEVICE uint32_t silu_two(uint32_t gate, uint32_t up)
{
	return wk_pack_bf16(silu(wk_from_bf16(gate & 0xffff)) * wk_from_bf16(up & 0xffff),
			    silu(wk_from_bf16(gate >> 16)) * wk_from_bf16(up >> 16));
}

/* Eight outputs of a row. */
WK_DEVICE void swiglu_half(const struct ka_swiglu &a, uint16_t *x, uint32_t i)
{
	const uint16_t *gate = (const uint16_t *)a.y + (uint64_t)blockIdx.y * 2 * a.n + i;
	uint4 g, u;

	if (i >= a.n)
		return;
	g = wk_load16(gate);
	u = wk_load16(gate + a.n);
	*(uint4 *)(x + i) = make_uint4(silu_two(g.x, u.x), silu_two(g.y, u.y), silu_two(g.z, u.z),
				       silu_two(g.w, u.w));
}

WK_KERNEL(wk_swiglu, (256), struct ka_swiglu)
{
	const float *gate = (const float *)a.y + (uint64_t)blockIdx.y * 2 * a.n, *up = gate + a.n;
	uint16_t *x = a.x + (uint64_t)blockIdx.y * a.x_stride;
	uint32_t i = (blockIdx.x * blockDim.x + threadIdx.x) * 4;

	if (a.half) {
		swiglu_half(a, x, 2 * i);
		return;
	}
	if (a.n % 4 == 0 && i < a.n) {
		float4 g = wk_load_floats(gate + i), u = wk_load_floats(up + i);
		uint32_t lo = wk_pack_bf16(silu(g.x) * u.x, silu(g.y) * u.y);
		uint32_t hi = wk_pack_bf16(silu(g.z) * u.z, silu(g.w) * u.w);

		if (a.x_stride % 4 == 0) {
			*(uint2 *)(x + i) = make_uint2(lo, hi);
			return;
		}
		x[i] = (uint16_t)lo;
		x[i + 1] = (uint16_t)(lo >> 16);
		x[i + 2] = (uint16_t)hi;
		x[i + 3] = (uint16_t)(hi >> 16);
		return;
	}
	for (uint32_t end = i + 4; i < end && i < a.n; i++)
		x[i] = (uint16_t)wk_to_bf16(silu(gate[i]) * up[i]);
}

/* --- rotation and KV append ------------------------------------------------------------------------*/

/* Sine and cosine of an angle of any size: reduced by quarter turns in double, then a Taylor series
 * on +-pi/4 (error below 1e-8), without the local memory that sincosf() takes for large angles. */
WK_DEVICE void sin_cos(float angle, float *ret_sin, float *ret_cos)
{
	double turns = rint((double)angle * 0.63661977236758134308);
	float r = (float)((double)angle - turns * 1.57079632679489661923), z = r * r;
	int quarter = (int)((long long)turns & 3);
	float s = r + r * z * (-1.0f / 6 + z * (1.0f / 120 + z * (-1.0f / 5040 + z / 362880)));
	float c = 1 + z * (-0.5f + z * (1.0f / 24 + z * (-1.0f / 720 + z / 40320)));
	float sine = quarter & 1 ? c : s, cosine = quarter & 1 ? s : c;

	*ret_sin = quarter & 2 ? -sine : sine;
	*ret_cos = quarter == 1 || quarter == 2 ? -cosine : cosine;
}

/* One head by one warp: normed if there is a weight, rotated, rounded. */
WK_DEVICE void rope_head(const struct ka_rope &a, const float *y, const float *norm, uint32_t pos,
			 uint16_t *to)
{
	uint32_t lane = threadIdx.x % 32, half = a.dim / 2;
	float inv = 1;

	if (norm) {
		float sum = 0;

		for (uint32_t i = lane; i < a.dim; i += 32)
			sum += y[i] * y[i];
		inv = 1.0f / sqrtf(wk_warp_sum(sum) / a.dim + a.norm_eps);
	}
	for (uint32_t i = lane; i < half; i += 32) {
		float u = y[i], v = y[i + half], s, c;

		if (norm) {
			u = norm[i] * (u * inv);
			v = norm[i + half] * (v * inv);
		}
		sin_cos((float)pos * a.inv_freq[i], &s, &c);
		s *= a.rope_scale;
		c *= a.rope_scale;
		to[i] = (uint16_t)wk_to_bf16(u * c - v * s);
		to[i + half] = (uint16_t)wk_to_bf16(v * c + u * s);
	}
}

WK_DEVICE bool broken(float v)
{
	return (wk_to_bf16(v) & 0x7f80) == 0x7f80;
}

/*
 * Attention multiplies the values of keys that a row does not see by zero, and zero times NaN is NaN. So
 * V is always finite: what is not is stored as zero, and the key's K is made NaN, which reaches exactly
 * the rows that see the key.
 */
WK_DEVICE void mark_broken(const struct ka_rope &a, const float *v, uint16_t *k)
{
	bool bad = false;

	for (uint32_t i = threadIdx.x % 32; i < a.dim; i += 32)
		bad = bad || broken(v[i]);
	if (__ballot_sync(WK_ALL, bad) && threadIdx.x % 32 == 0)
		k[0] = 0x7fc0;
}

/* Row x; the heads of a row are divided among the warps of its thread blocks (y). */
WK_KERNEL(wk_rope, (ROPE_THREADS), struct ka_rope)
{
	uint32_t row = blockIdx.x, pos = a.row_seq[row].pos;
	uint32_t block = a.table[a.row_seq[row].table + pos / 16], token = pos % 16;
	const float *y = a.y + (uint64_t)row * a.y_stride;
	uint8_t *kv = a.pool + block * a.block_bytes + a.layer_offset;
	uint32_t heads = a.n_heads + 2 * a.n_kv, lane = threadIdx.x % 32;
	uint32_t warp = blockIdx.y * (ROPE_THREADS / 32) + threadIdx.x / 32;

	for (uint32_t h = warp; h < heads; h += gridDim.y * (ROPE_THREADS / 32)) {
		const float *from = y + (uint64_t)h * a.dim;
		uint16_t *to;

		if (h < a.n_heads) {
			to = a.q + (uint64_t)row * a.q_stride + (uint64_t)h * a.dim;
			rope_head(a, from, a.q_norm, pos, to);
			continue;
		}
		to = (uint16_t *)kv + ((uint64_t)(h - a.n_heads) * 16 + token) * a.dim_pad;
		if (h < a.n_heads + a.n_kv) {
			rope_head(a, from, a.k_norm, pos, to);
			mark_broken(a, from + (uint64_t)a.n_kv * a.dim, to);
			continue;
		}
		for (uint32_t i = lane; i < a.dim; i += 32)
			to[i] = broken(from[i]) ? 0 : (uint16_t)wk_to_bf16(from[i]);
	}
}
