/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gemm.cu - our own matrix product, for when there is no cuBLASLt and for the deterministic mode.
 *
 * out[m][n] = scale * (x[m][k] w[n][k] + bias), or added to out. bf16 in, fp32 sums and out. Each
 * output is summed by one warp, 16 inputs at a time in ascending order, whatever the tile's shape
 * is: so the bits of a row depend neither on the number of rows nor on the tile that was chosen.
 *
 * Tiles of x and w go through shared memory in STAGES buffers of BK inputs, filled by asynchronous
 * copies; what lies past m, n or k is filled with zeros, never read. Rows of a buffer are 16 bytes
 * longer than their data, so that the eight rows of a matrix load lie in different banks.
 */
#include "kernels/cuda/device.cuh"

#define THREADS 128

template <int BM, int BN, int BK, int STAGES> struct tile_shape {
	static const int row_bytes = BK * 2 + 16;
	static const int stage_bytes = (BM + BN) * row_bytes;
};

/* Rows first..first+ROWS-1 of a matrix [rows][k], inputs at..at+BK-1. */
template <int ROWS, int BK>
WK_DEVICE void load_rows(uint8_t *to, const uint16_t *from, uint32_t first, uint32_t rows,
			 uint32_t k, uint32_t stride, uint32_t at)
{
	const int pieces = BK / 8;

	for (int i = threadIdx.x; i < ROWS * pieces; i += THREADS) {
		uint32_t r = i / pieces, c = at + i % pieces * 8, bytes = 0;

		if (first + r < rows && c < k)
			bytes = k - c < 8 ? (k - c) * 2 : 16;
		wk_copy16(to + r * (BK * 2 + 16) + i % pieces * 16,
			  from + (bytes ? (uint64_t)(first + r) * stride + c : 0), bytes);
	}
}

/* A warp's tile of WM x WN outputs over one stage. */
template <int BM, int BK, int WM, int WN>
WK_DEVICE void multiply(const uint8_t *stage, uint32_t m0, uint32_t n0,
			float acc[WM / 16][WN / 8][4])
{
	const int row_bytes = BK * 2 + 16;
	uint32_t lane = threadIdx.x % 32;
	/* Matrices of a: rows 0-7 and 8-15 of inputs 0-7, then of 8-15. Of b: inputs, then outputs. */
	const uint8_t *pa = stage + (m0 + lane % 16) * row_bytes + lane / 16 * 16;
	const uint8_t *pb = stage + (BM + n0 + lane % 8) * row_bytes + lane / 8 % 2 * 16 +
			    (WN > 8 ? lane / 16 * 8 * row_bytes : lane / 16 * 32);

#pragma unroll
	for (int k = 0; k < BK; k += 16) {
		struct wk_frag4 fa[WM / 16], fb;

#pragma unroll
		for (int i = 0; i < WM / 16; i++)
			wk_ldmatrix(&fa[i], pa + i * 16 * row_bytes + k * 2);
		if constexpr (WN == 8) {
			/* Four matrices are 32 inputs of the eight outputs: enough for two steps. */
			if (k % 32 == 0) {
				wk_ldmatrix(&fb, pb + k * 2);
				wk_mma(acc[0][0], fa[0].r, fb.r[0], fb.r[1]);
				wk_ldmatrix(&fa[0], pa + (k + 16) * 2);
				wk_mma(acc[0][0], fa[0].r, fb.r[2], fb.r[3]);
			}
		} else {
#pragma unroll
			for (int j = 0; j < WN / 8; j += 2) {
				wk_ldmatrix(&fb, pb + j * 8 * row_bytes + k * 2);
#pragma unroll
				for (int i = 0; i < WM / 16; i++) {
					wk_mma(acc[i][j], fa[i].r, fb.r[0], fb.r[1]);
					wk_mma(acc[i][j + 1], fa[i].r, fb.r[2], fb.r[3]);
				}
			}
		}
	}
}

WK_DEVICE void put(const struct ka_gemm &a, uint32_t row, uint32_t col, float sum)
{
	float *out = a.out + (uint64_t)row * a.out_stride + col;

	if (row >= a.m || col >= a.n)
		return;
	if (a.bias)
		sum += a.bias[col];
	sum = a.scale * sum;
	*out = a.add ? *out + sum : sum;
}

template <int BM, int BN, int BK, int STAGES, int WARPS_M>
WK_DEVICE void product(const struct ka_gemm &a, uint8_t *shared)
{
	const int WM = BM / WARPS_M, WN = BN / (4 / WARPS_M);
	typedef tile_shape<BM, BN, BK, STAGES> shape;
	uint32_t row = blockIdx.y * BM, col = blockIdx.x * BN, warp = threadIdx.x / 32;
	uint32_t m0 = warp % WARPS_M * WM, n0 = warp / WARPS_M * WN, lane = threadIdx.x % 32;
	uint32_t steps = (a.k + BK - 1) / BK;
	float acc[WM / 16][WN / 8][4] = {};

	for (uint32_t s = 0; s < STAGES - 1; s++) {
		if (s < steps) {
			uint8_t *to = shared + s * shape::stage_bytes;

			load_rows<BM, BK>(to, a.x, row, a.m, a.k, a.x_stride, s * BK);
			load_rows<BN, BK>(to + BM * shape::row_bytes, a.w, col, a.n, a.k,
					  a.w_stride, s * BK);
		}
		wk_copy_commit();
	}
	for (uint32_t s = 0; s < steps; s++) {
		uint32_t next = s + STAGES - 1;

		wk_copy_wait<STAGES - 2>();
		__syncthreads(); /* stage s is there; all are done with the one before it */
		if (next < steps) {
			uint8_t *to = shared + next % STAGES * shape::stage_bytes;

			load_rows<BM, BK>(to, a.x, row, a.m, a.k, a.x_stride, next * BK);
			load_rows<BN, BK>(to + BM * shape::row_bytes, a.w, col, a.n, a.k,
					  a.w_stride, next * BK);
		}
		wk_copy_commit();
		multiply<BM, BK, WM, WN>(shared + s % STAGES * shape::stage_bytes, m0, n0, acc);
	}
#pragma unroll
	for (int i = 0; i < WM / 16; i++)
#pragma unroll
		for (int j = 0; j < WN / 8; j++) {
			uint32_t r = row + m0 + i * 16 + lane / 4;
			uint32_t c = col + n0 + j * 8 + lane % 4 * 2;

			put(a, r, c, acc[i][j][0]);
			put(a, r, c + 1, acc[i][j][1]);
			put(a, r + 8, c, acc[i][j][2]);
			put(a, r + 8, c + 1, acc[i][j][3]);
		}
}

/* The host chooses by m (linear.c), with the shared memory that tile_shape says: KA_GEMM_*. */
WK_KERNEL(wk_gemm_16, (THREADS), struct ka_gemm)
{
	WK_SHARED_BYTES(shared);
	product<16, 32, 128, 4, 1>(a, shared);
}

WK_KERNEL(wk_gemm_64, (THREADS), struct ka_gemm)
{
	WK_SHARED_BYTES(shared);
	product<64, 64, 64, 4, 2>(a, shared);
}

WK_KERNEL(wk_gemm_128, (THREADS), struct ka_gemm)
{
	WK_SHARED_BYTES(shared);
	product<128, 128, 32, 4, 2>(a, shared);
}
