/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lora.cu - what an adapter adds to a product: s = round(scale * A x), then out += B s.
 *
 * A chunk is up to KA_CHUNK rows of one segment; a cut is 16 ranks of one part (a piece). The sum of
 * a row over K has one fixed order: sixteen warps take every sixteenth 32 inputs each, and their sums
 * are added in the order of the warps; nothing in it depends on the other rows of the chunk.
 *
 * With an adapter for each row a shrink is little else than reading A once: 128 KB a piece for 4096
 * inputs, by one thread block. So that it is not one wait for memory after another, a block has many
 * warps and each has the loads of four steps under way. By count of bytes and waits, not measured.
 */
#include "kernels/cuda/device.cuh"

#define THREADS	       128
#define SHRINK_WARPS   16
#define SHRINK_THREADS (SHRINK_WARPS * 32)
#define AHEAD	       4

/* Where the `cut`-th cut of a site lies: its part, or NULL, and the piece's address. */
WK_DEVICE const struct ka_part *find_cut(const struct ka_lora *lora, uint32_t site, uint32_t cut,
					 const uint8_t *pool, const uint16_t **ret_piece)
{
	if (site > lora->max_site)
		return NULL;
	for (uint32_t p = lora->first[site]; p < lora->first[site + 1]; p++) {
		const struct ka_part *part = &lora->parts[p];

		if (cut < part->n_cuts) {
			*ret_piece = (const uint16_t *)(pool + lora->pieces[part->first + cut]);
			return part;
		}
		cut -= part->n_cuts;
	}
	return NULL;
}

/* Eight inputs of a row from i on; zeros past k, where x may hold anything. */
WK_DEVICE uint4 load8(const uint16_t *row, uint32_t i, uint32_t k)
{
	uint32_t v[8];

	if (i + 8 <= k)
		return wk_load16(row + i);
	for (uint32_t j = 0; j < 8; j++)
		v[j] = i + j < k ? row[i + j] : 0;
	return make_uint4(v[0] | v[1] << 16, v[2] | v[3] << 16, v[4] | v[5] << 16,
			  v[6] | v[7] << 16);
}

WK_DEVICE uint4 masked(uint4 v, uint32_t mask)
{
	return make_uint4(v.x & mask, v.y & mask, v.z & mask, v.w & mask);
}

/* 32 inputs: two matrix steps in an order of their own, the same in x and in A. */
WK_DEVICE void shrink_step(float acc[2][4], uint4 x0, uint4 x1, uint4 a0, uint4 a1)
{
	uint32_t f0[4] = {x0.x, x1.x, x0.y, x1.y}, f1[4] = {x0.z, x1.z, x0.w, x1.w};

	wk_mma(acc[0], f0, a0.x, a0.y);
	wk_mma(acc[1], f0, a1.x, a1.y);
	wk_mma(acc[0], f1, a0.z, a0.w);
	wk_mma(acc[1], f1, a1.z, a1.w);
}

/*
 * Chunk x, cut y. A lane reads 16 bytes of each of its rows in a step. Loads of AHEAD steps stand before
 * what uses them, without a branch at either, or the compiler lets each wait for the one before: a step
 * that there is not adds zero times the first of its four. Rows that the chunk does not have are read
 * as its first: what they give is not looked at.
 */
WK_KERNEL(wk_shrink, (SHRINK_THREADS, 1), struct ka_shrink)
{
	__shared__ float sums[SHRINK_WARPS][KA_CHUNK][16];
	const struct ka_chunk chunk = a.chunks[blockIdx.x];
	uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, k_pad = (a.k + 7) / 8 * 8;
	uint32_t g = lane / 4, t = lane % 4, i = warp * 32 + t * 8;
	/* Of this warp, with no input past k. */
	uint32_t steps = (a.k / 32 + SHRINK_WARPS - 1 - warp) / SHRINK_WARPS;
	const uint16_t *piece = NULL, *a0, *a1;
	const struct ka_part *part = find_cut(chunk.lora, a.site, blockIdx.y, a.pool, &piece);
	const uint16_t *x = a.x + (uint64_t)chunk.row * a.x_stride;
	const uint16_t *x0 = x + (g < chunk.n_rows ? (uint64_t)g * a.x_stride : 0);
	const uint16_t *x1 = x + (g + 8 < chunk.n_rows ? (uint64_t)(g + 8) * a.x_stride : 0);
	float acc[2][4] = {};

	if (!part)
		return;
	a0 = piece + (uint64_t)g * k_pad;
	a1 = a0 + (uint64_t)8 * k_pad;
	for (uint32_t n = 0; n < steps; n += AHEAD, i += AHEAD * SHRINK_THREADS) {
		uint4 v[AHEAD][4];

#pragma unroll
		for (uint32_t j = 0; j < AHEAD; j++) {
			uint32_t at = i + (n + j < steps ? j : 0) * SHRINK_THREADS;

			v[j][0] = wk_load16(x0 + at);
			v[j][1] = wk_load16(x1 + at);
			v[j][2] = wk_load16(a0 + at);
			v[j][3] = wk_load16(a1 + at);
		}
#pragma unroll
		for (uint32_t j = 0; j < AHEAD; j++) {
			uint32_t mask = n + j < steps ? WK_ALL : 0;

			shrink_step(acc, masked(v[j][0], mask), masked(v[j][1], mask), v[j][2],
				    v[j][3]);
		}
	}
	/* The last inputs, fewer than 32, are those of the warp that would have had the next step. */
	i = a.k / 32 * 32 + t * 8;
	if (a.k % 32 && a.k / 32 % SHRINK_WARPS == warp) {
		const uint4 zero = make_uint4(0, 0, 0, 0);
		bool in = i < k_pad;

		shrink_step(acc, in ? load8(x0, i, a.k) : zero, in ? load8(x1, i, a.k) : zero,
			    in ? wk_load16(a0 + i) : zero, in ? wk_load16(a1 + i) : zero);
	}
	for (int j = 0; j < 2; j++)
		for (int i = 0; i < 4; i++)
			sums[warp][g + i / 2 * 8][j * 8 + t * 2 + i % 2] = acc[j][i];
	__syncthreads();
	for (uint32_t i = threadIdx.x; i < chunk.n_rows * 16; i += SHRINK_THREADS) {
		uint32_t r = i / 16, rank = i % 16;
		float sum = sums[0][r][rank];

#pragma unroll
		for (int w = 1; w < SHRINK_WARPS; w++)
			sum += sums[w][r][rank];

		a.s[(uint64_t)(chunk.row + r) * a.s_stride + blockIdx.y * 16 + rank] =
			(uint16_t)wk_to_bf16(part->scale * sum);
	}
}

/* acc += s b over two ranks in one word each. */
WK_DEVICE float expand2(float acc, uint32_t s, uint32_t b)
{
	acc = fmaf(wk_from_bf16(s & 0xffff), wk_from_bf16(b & 0xffff), acc);
	return fmaf(__uint_as_float(s & 0xffff0000), __uint_as_float(b & 0xffff0000), acc);
}

WK_DEVICE float expand8(float acc, uint4 s, uint4 b)
{
	acc = expand2(acc, s.x, b.x);
	acc = expand2(acc, s.y, b.y);
	acc = expand2(acc, s.z, b.z);
	return expand2(acc, s.w, b.w);
}

/* Chunk y; a thread for each output (x). Reads s as it was written by this step's shrink. */
WK_KERNEL(wk_expand, (THREADS), struct ka_expand)
{
	const struct ka_chunk chunk = a.chunks[blockIdx.y];
	const struct ka_lora *lora = chunk.lora;
	uint32_t j = blockIdx.x * THREADS + threadIdx.x, out = a.first + j, cut = 0;
	const struct ka_part *part = NULL;
	float acc[KA_CHUNK] = {};

	if (j >= a.n || a.site > lora->max_site)
		return;
	for (uint32_t p = lora->first[a.site]; p < lora->first[a.site + 1]; p++) {
		const struct ka_part *q = &lora->parts[p];

		if (out >= q->col && out - q->col < q->n) {
			part = q;
			break;
		}
		cut += q->n_cuts;
	}
	if (!part)
		return;
	for (uint32_t c = 0; c < part->n_cuts; c++) {
		const uint16_t *piece = (const uint16_t *)(a.pool + lora->pieces[part->first + c]);
		const uint16_t *row = piece + (uint64_t)16 * ((part->k + 7) / 8 * 8) +
				      (uint64_t)(out - part->col) * 16;
		uint4 b0 = wk_load16(row), b1 = wk_load16(row + 8);

#pragma unroll
		for (uint32_t r = 0; r < KA_CHUNK; r++) {
			const uint16_t *s;

			if (r >= chunk.n_rows)
				break;
			s = a.s + (uint64_t)(chunk.row + r) * a.s_stride + (cut + c) * 16;
			acc[r] = expand8(expand8(acc[r], *(const uint4 *)s, b0),
					 *(const uint4 *)(s + 8), b1);
		}
	}
#pragma unroll
	for (uint32_t r = 0; r < KA_CHUNK; r++)
		if (r < chunk.n_rows)
			a.out[(uint64_t)(chunk.row + r) * a.out_stride + j] += a.scale * acc[r];
}
