/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gemm.cu - our own matrix product: for few rows, for the deterministic mode, and for when there is no
 * cuBLASLt.
 *
 * out[m][n] = scale * (x[m][k] w[n][k] + bias), or added to out. bf16 in, fp32 sums and out. Each
 * output is summed by one warp, 16 inputs at a time in ascending order, whatever the tile's shape
 * is: so the bits of a row depend neither on the number of rows nor on the tile that was chosen.
 *
 * Tiles of x and w go through shared memory in STAGES buffers of BK inputs, filled by asynchronous
 * copies; what lies past k is filled with zeros, never read. Rows past m or n are not even that: what a
 * buffer happens to hold there gives outputs that are not stored. Rows of a buffer are 16 bytes
 * longer than their data, so that the eight rows of a matrix load lie in different banks.
 *
 * Few rows are bound by the weights' bytes, so memory must never be without requests. Weights do not change:
 * a block asks for those of its first buffers before it waits for the launch before it, and for as many
 * more to come into the cache as a.ahead says. What is on its way into the buffers of all blocks is twice or
 * more of what memory's latency holds (4.5 TB/s in 0.8 us are 3.6 MB; 128 blocks of 48 KB are 6.3 MB),
 * so shares need not be even over multiprocessors, as long as most blocks are there at once. And each
 * output is a chain of dependent matrix instructions: with 32 columns on a multiprocessor, 16 inputs a step
 * take 1 KB of weights per some 33 cycles, where memory brings about 19 bytes a cycle. By count, not measured.
 */
#include "kernels/cuda/device.cuh"

#define THREADS 128

template <int BM, int BN, int BK, int STAGES> struct tile_shape {
	static const int row_bytes = BK * 2 + 16;
	static const int stage_bytes = (BM + BN) * row_bytes;
};

/* Rows first..first+ROWS-1 of a matrix [rows][k], inputs at..at+BK-1. EARLY: before the wait. */
template <int ROWS, int BK, bool EARLY>
WK_DEVICE void load_rows(uint8_t *to, const uint16_t *from, uint32_t first, uint32_t rows,
			 uint32_t k, uint32_t stride, uint32_t at)
{
	const int pieces = BK / 8, apart = THREADS / pieces; /* rows between two of a thread's */
	uint32_t r = threadIdx.x / pieces, c = at + threadIdx.x % pieces * 8;
	uint32_t bytes = c >= k ? 0 : k - c < 8 ? (k - c) * 2 : 16;

	to += r * (BK * 2 + 16) + threadIdx.x % pieces * 16;
	from += (uint64_t)(first + r) * stride + (bytes ? c : 0);
#pragma unroll
	for (int i = 0; i < ROWS; i += apart) {
		if (first + r + i >= rows)
			break;
		if constexpr (EARLY)
			wk_early_copy16(to + i * (BK * 2 + 16), from, bytes);
		else
			wk_copy16(to + i * (BK * 2 + 16), from, bytes);
		from += (uint64_t)apart * stride;
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
	const uint8_t *pb =
		stage + (BM + n0 + lane / 16 * 8 + lane % 8) * row_bytes + lane / 8 % 2 * 16;

#pragma unroll
	for (int k = 0; k < BK; k += 16) {
		struct wk_frag4 fa[WM / 16], fb;

#pragma unroll
		for (int i = 0; i < WM / 16; i++)
			wk_ldmatrix(&fa[i], pa + i * 16 * row_bytes + k * 2);
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

/* The weights that a block's buffers have no room for yet, from input `at` on, on their way into the cache. */
template <int BN> WK_DEVICE void fetch_ahead(const struct ka_gemm &a, uint32_t col, uint32_t at)
{
	uint32_t row = col + threadIdx.x, left = at < a.w_stride ? (a.w_stride - at) * 2 : 0;
	uint32_t bytes = left < a.ahead ? left : a.ahead;

	if (threadIdx.x < BN && row < a.n && blockIdx.x < a.first_blocks && bytes)
		wk_early_fetch(a.w + (uint64_t)row * a.w_stride + at, bytes);
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

	wk_let_next();
	for (uint32_t s = 0; s < STAGES - 1 && s < steps; s++)
		load_rows<BN, BK, true>(shared + s * shape::stage_bytes + BM * shape::row_bytes,
					a.w, col, a.n, a.k, a.w_stride, s * BK);
	fetch_ahead<BN>(a, col, (STAGES - 1) * BK);
	wk_await_previous();
	/* The first of these groups has all that was asked for before. */
	for (uint32_t s = 0; s < STAGES - 1; s++) {
		if (s < steps)
			load_rows<BM, BK, false>(shared + s * shape::stage_bytes, a.x, row, a.m,
						 a.k, a.x_stride, s * BK);
		wk_copy_commit();
	}
	for (uint32_t s = 0; s < steps; s++) {
		uint32_t next = s + STAGES - 1;

		wk_copy_wait<STAGES - 2>();
		__syncthreads(); /* stage s is there; all are done with the one before it */
		if (next < steps) {
			uint8_t *to = shared + next % STAGES * shape::stage_bytes;

			load_rows<BM, BK, false>(to, a.x, row, a.m, a.k, a.x_stride, next * BK);
			load_rows<BN, BK, false>(to + BM * shape::row_bytes, a.w, col, a.n, a.k,
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

/* --- few rows --------------------------------------------------------------------------------------*/

#define FEW		16  /* rows */
#define FEW_COLS	32  /* a warp has eight of them */
#define FEW_INPUTS	256 /* of a buffer */
#define FEW_STAGES	4
#define FEW_APART	(THREADS / (FEW_INPUTS / 8)) /* rows between two pieces of a thread's */
#define FEW_GROUP	64			     /* inputs whose operands are read at once */
#define FEW_PARTS	(FEW_INPUTS / FEW_GROUP)
#define FEW_ROW_BYTES	(FEW_INPUTS * 2 + 16)
#define FEW_STAGE_BYTES ((FEW + FEW_COLS) * FEW_ROW_BYTES)

/* A thread's pieces of a buffer: always the same columns, every FEW_APART-th row. */
struct few_source {
	const uint16_t *at;
	uint32_t apart; /* elements */
	uint32_t rows;	/* how far its first row is from the end of those there are */
	uint8_t *to;
};

WK_DEVICE struct few_source few_from(const uint16_t *from, uint32_t first, uint32_t rows,
				     uint32_t stride, uint8_t *to)
{
	const uint32_t pieces = FEW_INPUTS / 8, r = threadIdx.x / pieces, c = threadIdx.x % pieces;

	return {from + (uint64_t)(first + r) * stride + c * 8, FEW_APART * stride,
		first + r < rows ? rows - first - r : 0, to + r * FEW_ROW_BYTES + c * 16};
}

/* How much there is of a thread's pieces of a step. */
WK_DEVICE uint32_t few_bytes(uint32_t k, uint32_t step)
{
	uint32_t c = step * FEW_INPUTS + threadIdx.x % (FEW_INPUTS / 8) * 8;

	return c >= k ? 0 : k - c < 8 ? (k - c) * 2 : 16;
}

/* Rows FIRST.. of a buffer that begins at `to`, ROWS of them; *from goes on with them. */
template <int FIRST, int ROWS, bool EARLY>
WK_DEVICE void few_copy(const struct few_source &f, uint8_t *to, const uint16_t **from,
			uint32_t bytes)
{
#pragma unroll
	for (uint32_t i = FIRST; i < FIRST + ROWS; i += FEW_APART) {
		if (i < f.rows) {
			if constexpr (EARLY)
				wk_early_copy16(to + i * FEW_ROW_BYTES, *from, bytes);
			else
				wk_copy16(to + i * FEW_ROW_BYTES, *from, bytes);
		}
		*from += f.apart;
	}
}

/* All rows of a step, of x or w. */
template <int ROWS, bool EARLY>
WK_DEVICE void few_load(const struct few_source &f, uint32_t step, uint32_t bytes)
{
	const uint16_t *from = f.at + step * FEW_INPUTS;

	few_copy<0, ROWS, EARLY>(f, f.to + step * FEW_STAGE_BYTES, &from, bytes);
}

/* A step's copies on their way, a part of them at a time. */
struct few_next {
	const uint16_t *x, *w;
	uint8_t *to_x, *to_w;
	bool there, whole; /* whole: all of it is 16 bytes, which is cheaper to say */
	uint32_t bytes;
};

template <int PART>
WK_DEVICE void few_part(const struct few_source &x, const struct few_source &w, struct few_next &n)
{
	const int rows = FEW / FEW_PARTS, cols = FEW_COLS / FEW_PARTS;

	if (!n.there)
		return;
	if (n.whole) {
		few_copy<PART * rows, rows, false>(x, n.to_x, &n.x, 16);
		few_copy<PART * cols, cols, false>(w, n.to_w, &n.w, 16);
	} else {
		few_copy<PART * rows, rows, false>(x, n.to_x, &n.x, n.bytes);
		few_copy<PART * cols, cols, false>(w, n.to_w, &n.w, n.bytes);
	}
}

/* What the matrix instructions of FEW_GROUP inputs read. */
struct few_operands {
	struct wk_frag4 x[FEW_GROUP / 16], w[FEW_GROUP / 32];
};

WK_DEVICE void few_read(struct few_operands *o, const uint8_t *x, const uint8_t *w)
{
#pragma unroll
	for (int i = 0; i < FEW_GROUP / 32; i++) {
		wk_ldmatrix(&o->w[i], w + i * 64);
		wk_ldmatrix(&o->x[2 * i], x + i * 64);
		wk_ldmatrix(&o->x[2 * i + 1], x + i * 64 + 32);
	}
}

WK_DEVICE void few_multiply(const struct few_operands &o, float acc[4])
{
#pragma unroll
	for (int i = 0; i < FEW_GROUP / 32; i++) {
		wk_mma(acc, o.x[2 * i].r, o.w[i].r[0], o.w[i].r[1]);
		wk_mma(acc, o.x[2 * i + 1].r, o.w[i].r[2], o.w[i].r[3]);
	}
}

/* Parts PART.. of a step: multiplied while the next is read and a part of a later step is asked for. */
template <int PART>
WK_DEVICE void few_step(const struct few_source &x, const struct few_source &w, struct few_next &n,
			const uint8_t *px, const uint8_t *pw, const struct few_operands &now,
			float acc[4])
{
	struct few_operands next;

	if constexpr (PART + 1 < FEW_PARTS)
		few_read(&next, px + (PART + 1) * FEW_GROUP * 2, pw + (PART + 1) * FEW_GROUP * 2);
	few_multiply(now, acc);
	few_part<PART>(x, w, n);
	if constexpr (PART + 1 < FEW_PARTS)
		few_step<PART + 1>(x, w, n, px, pw, next, acc);
}

/* A block's 32 columns, each warp eight of them in one chain, which is what takes longest: everything else
 * stands between its instructions. */
WK_DEVICE void few_rows(const struct ka_gemm &a, uint8_t *shared)
{
	const uint32_t col = blockIdx.x * FEW_COLS, steps = (a.k + FEW_INPUTS - 1) / FEW_INPUTS;
	const uint32_t lane = threadIdx.x % 32, n0 = threadIdx.x / 32 * 8;
	const struct few_source x = few_from(a.x, 0, a.m, a.x_stride, shared);
	const struct few_source w =
		few_from(a.w, col, a.n, a.w_stride, shared + FEW * FEW_ROW_BYTES);
	/* Matrices of x: rows 0-7 and 8-15 of inputs 0-7, then of 8-15. Of w: inputs 0-7, 8-15 and so on. */
	const uint8_t *px = shared + lane % 16 * FEW_ROW_BYTES + lane / 16 * 16;
	const uint8_t *pw = shared + (FEW + n0 + lane % 8) * FEW_ROW_BYTES + lane / 8 * 16;
	uint32_t stage = 0; /* where this step's buffer begins */
	float acc[4] = {};

	wk_let_next();
	for (uint32_t s = 0; s < FEW_STAGES - 1 && s < steps; s++)
		few_load<FEW_COLS, true>(w, s, few_bytes(a.k, s));
	fetch_ahead<FEW_COLS>(a, col, (FEW_STAGES - 1) * FEW_INPUTS);
	wk_await_previous();
	/* The first of these groups has all that was asked for before. */
	for (uint32_t s = 0; s < FEW_STAGES - 1; s++) {
		if (s < steps)
			few_load<FEW, false>(x, s, few_bytes(a.k, s));
		wk_copy_commit();
	}
	for (uint32_t s = 0; s < steps; s++) {
		const uint32_t later = s + FEW_STAGES - 1;
		const uint32_t freed =
			stage ? stage - FEW_STAGE_BYTES : (FEW_STAGES - 1) * FEW_STAGE_BYTES;
		struct few_next n = {x.at + later * FEW_INPUTS,
				     w.at + later * FEW_INPUTS,
				     x.to + freed,
				     w.to + freed,
				     later < steps,
				     (later + 1) * FEW_INPUTS <= a.k,
				     few_bytes(a.k, later)};
		struct few_operands first;

		wk_copy_wait<FEW_STAGES - 2>();
		__syncthreads(); /* this step is there; all are done with the one before it */
		few_read(&first, px + stage, pw + stage);
		few_step<0>(x, w, n, px + stage, pw + stage, first, acc);
		wk_copy_commit();
		stage = stage == (FEW_STAGES - 1) * FEW_STAGE_BYTES ? 0 : stage + FEW_STAGE_BYTES;
	}
	for (uint32_t i = 0; i < 4; i++)
		put(a, lane / 4 + i / 2 * 8, col + n0 + lane % 4 * 2 + i % 2, acc[i]);
}

/* The host chooses by m (linear.c), with the shared memory that tile_shape says: KA_GEMM_*. */
WK_KERNEL_EARLY(wk_gemm_16, (THREADS), struct ka_gemm)
{
	WK_SHARED_BYTES(shared);
	few_rows(a, shared);
}

WK_KERNEL_EARLY(wk_gemm_64, (THREADS), struct ka_gemm)
{
	WK_SHARED_BYTES(shared);
	product<64, 64, 64, 4, 2>(a, shared);
}

WK_KERNEL_EARLY(wk_gemm_128, (THREADS), struct ka_gemm)
{
	WK_SHARED_BYTES(shared);
	product<128, 128, 32, 4, 2>(a, shared);
}
