/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attention.cu - paged attention, in one arithmetic for prefill and decode.
 *
 * Keys are cut at absolute positions KA_CUT; a cut is an online softmax over tiles of KA_TILE keys
 * from its start, and gives max m, sum l and weighted values o of its own; cuts are merged in
 * ascending order:  m' = max(m, mc);  o = o 2^(m - m') + oc 2^(mc - m');  l likewise. A tile or cut
 * of which a row sees nothing changes none of its bits. Scores are in units of log2(e), so that all
 * exponentials are 2^x. Rounded to bf16: q, K, V and the probabilities.
 *
 * A KV head's queries are pairs (row, head of its group), numbered row by row. A warp has 16 pairs:
 * the rows of a matrix instruction.
 *
 *   wk_attn_whole	four warps with 64 pairs walk over all cuts together, sharing K and V, and
 *			merge in registers: prompts
 *   wk_attn_split	a warp takes one cut of 16 pairs and leaves (m, l, o) in memory;
 *   wk_attn_merge	merges them, row by row: decoding, and short rows over long contexts
 *
 * Both are persistent: the number of units is read from device memory, so that the same launch
 * serves any batch. K and V of a tile are copied to shared memory while the one before is worked on;
 * positions past the sequence's end are zero, never read: a block may hold anything there.
 *
 * Head sizes are compiled in steps (D); a smaller one is padded with zeros. VD: the columns of V that
 * a unit makes; two units share a head of 256.
 */
#include "kernels/cuda/device.cuh"

#define WARPS 4
#define SPLIT_WARPS \
	6 /* as many as find room for their tiles: what hides a warp's wait is the others */
#define NONE -1e30f /* the maximum of nothing: a finite number that no score reaches */

template <int D, int VD> struct tile_shape {
	static const int k_row = D * 2 + 16;
	static const int v_row = VD * 2 + 16;
	static const int bytes = KA_TILE * (k_row + v_row);
};

/* What a unit works on. */
struct unit {
	struct ka_seq seq;
	uint32_t pair0; /* of this warp */
	uint32_t group, kv_head, slice;
	uint32_t end; /* positions there are */
};

template <int VD> struct result {
	float o[VD / 8][4];
	float m[2], l[2]; /* rows lane / 4 and 8 more */
};

template <int VD> WK_DEVICE void clear(struct result<VD> &r)
{
#pragma unroll
	for (int j = 0; j < VD / 8; j++)
#pragma unroll
		for (int i = 0; i < 4; i++)
			r.o[j][i] = 0;
	r.m[0] = r.m[1] = NONE;
	r.l[0] = r.l[1] = 0;
}

WK_DEVICE const uint8_t *kv_row(const struct ka_attn &a, const struct unit &u, uint32_t pos, bool v)
{
	uint32_t block = a.table[u.seq.table + pos / 16];
	uint64_t row = ((uint64_t)(v ? a.n_kv : 0) + u.kv_head) * 16 + pos % 16;

	return a.pool + block * a.block_bytes + a.layer_offset + row * a.dim_pad * 2;
}

/*
 * The first `keys` keys of a block, K or V: columns from `col` on, COLS of them. THREADS share the copies,
 * a few keys at a time and each always the same columns: an address is then the one before and a
 * constant, where working each out from the copy's number costs more than the arithmetic of the tile.
 */
template <int COLS, int THREADS>
WK_DEVICE void load_block(const struct ka_attn &a, const uint8_t *from, uint32_t keys, uint32_t col,
			  uint8_t *to)
{
	/* As many keys as divide a block: three for 80 columns and a warp would not. */
	const int pieces = COLS / 8, fit = THREADS / pieces;
	const int group = fit >= 16 ? 16 : fit >= 8 ? 8 : fit >= 4 ? 4 : fit >= 2 ? 2 : 1;
	const uint32_t thread = threadIdx.x % THREADS, row = a.dim_pad * 2;
	const uint32_t first = thread / pieces, c = thread % pieces * 16;

	if (group * pieces < THREADS && first >= group)
		return;
	if (col * 2 + c >= row)
		keys = 0;
	from += first * row + col * 2 + c;
	to += first * (COLS * 2 + 16) + c;
#pragma unroll
	for (int k = 0; k < 16; k += group)
		wk_copy16(to + k * (COLS * 2 + 16), from + k * row, first + k < keys ? 16 : 0);
}

/* A tile by four warps, with an address worked out for each copy: in the fewest registers. */
template <int D, int VD>
WK_DEVICE void load_each(const struct ka_attn &a, const struct unit &u, uint32_t key0, uint8_t *to)
{
	typedef tile_shape<D, VD> shape;
	const int k_pieces = D / 8, v_pieces = VD / 8;

	for (uint32_t i = threadIdx.x; i < KA_TILE * k_pieces; i += WARPS * 32) {
		uint32_t key = i / k_pieces, c = i % k_pieces * 8, pos = key0 + key;
		bool there = pos < u.end && c < a.dim_pad;

		wk_copy16(to + key * shape::k_row + c * 2,
			  there ? kv_row(a, u, pos, false) + c * 2 : a.pool, there ? 16 : 0);
	}
	to += KA_TILE * shape::k_row;
	for (uint32_t i = threadIdx.x; i < KA_TILE * v_pieces; i += WARPS * 32) {
		uint32_t key = i / v_pieces, c = i % v_pieces * 8, pos = key0 + key;
		uint32_t col = u.slice * VD + c;
		bool there = pos < u.end && col < a.dim_pad;

		wk_copy16(to + key * shape::v_row + c * 2,
			  there ? kv_row(a, u, pos, true) + col * 2 : a.pool, there ? 16 : 0);
	}
}

/* Copies of a tile's K and V begin. */
template <int D, int VD, int THREADS>
WK_DEVICE void load_tile(const struct ka_attn &a, const struct unit &u, uint32_t key0, uint8_t *to)
{
	/* Four warps with a head of 256 have no register left. */
	if constexpr (D > 128 && THREADS > 32) {
		load_each<D, VD>(a, u, key0, to);
	} else {
		typedef tile_shape<D, VD> shape;
		const uint32_t half = a.n_kv * 16 * a.dim_pad * 2;
		uint8_t *v = to + KA_TILE * shape::k_row;

#pragma unroll
		for (int i = 0; i < KA_TILE; i += 16) {
			uint32_t keys = key0 + i < u.end ? u.end - key0 - i : 0;
			const uint8_t *k = keys ? kv_row(a, u, key0 + i, false) : a.pool;

			load_block<D, THREADS>(a, k, keys, 0, to + i * shape::k_row);
			load_block<VD, THREADS>(a, k + half, keys, u.slice * VD,
						v + i * shape::v_row);
		}
	}
}

/* The position of a pair, or -1 if there is no such pair. */
WK_DEVICE int pair_pos(const struct unit &u, uint32_t pair)
{
	uint32_t row = pair / u.group;

	return row < u.seq.n_rows ? (int)(u.seq.pos + row) : -1;
}

/* Elements i, i + 1 of a pair's query; zero past the head or the pairs. */
WK_DEVICE uint32_t query(const struct ka_attn &a, const struct unit &u, uint32_t pair, uint32_t i)
{
	uint32_t row = pair / u.group, head = u.kv_head * u.group + pair % u.group;

	if (row >= u.seq.n_rows || i >= a.dim)
		return 0;
	return *(const uint32_t *)(a.q + (uint64_t)(u.seq.row + row) * a.q_stride +
				   (uint64_t)head * a.dim + i);
}

template <int D>
WK_DEVICE void load_query(const struct ka_attn &a, const struct unit &u, uint32_t q[D / 16][4])
{
	uint32_t lane = threadIdx.x % 32, pair = u.pair0 + lane / 4, c = lane % 4 * 2;

#pragma unroll
	for (int k = 0; k < D / 16; k++) {
		q[k][0] = query(a, u, pair, k * 16 + c);
		q[k][1] = query(a, u, pair + 8, k * 16 + c);
		q[k][2] = query(a, u, pair, k * 16 + c + 8);
		q[k][3] = query(a, u, pair + 8, k * 16 + c + 8);
	}
}

/* s = q K of a tile: s[j] is keys 8j + (lane % 4) * 2 and one more, of rows lane / 4 and 8 more. */
template <int D>
WK_DEVICE void scores(const uint8_t *k, const uint32_t q[D / 16][4], float s[KA_TILE / 8][4])
{
	const int k_row = D * 2 + 16;
	uint32_t lane = threadIdx.x % 32;
	const uint8_t *at = k + (lane / 16 * 8 + lane % 8) * k_row + lane / 8 % 2 * 16;

#pragma unroll
	for (int j = 0; j < KA_TILE / 8; j++)
#pragma unroll
		for (int i = 0; i < 4; i++)
			s[j][i] = 0;
#pragma unroll
	for (int i = 0; i < D / 16; i++)
#pragma unroll
		for (int j = 0; j < KA_TILE / 8; j += 2) {
			struct wk_frag4 f;

			wk_ldmatrix(&f, at + j * 8 * k_row + i * 32);
			wk_mma(s[j], q[i], f.r[0], f.r[1]);
			wk_mma(s[j + 1], q[i], f.r[2], f.r[3]);
		}
}

/* Scores become probabilities of the tile, and what came before is brought to the new maximum. */
template <int VD>
WK_DEVICE void soften(const struct ka_attn &a, uint32_t key0, const int pos[2],
		      float s[KA_TILE / 8][4], struct result<VD> &r)
{
	uint32_t c = threadIdx.x % 4 * 2;

#pragma unroll
	for (int h = 0; h < 2; h++) {
		int first = a.window && pos[h] >= (int)a.window ? pos[h] + 1 - (int)a.window : 0;
		float max = NONE, sum = 0, old;

#pragma unroll
		for (int j = 0; j < KA_TILE / 8; j++)
#pragma unroll
			for (int i = 0; i < 2; i++) {
				int key = (int)key0 + j * 8 + (int)c + i;
				float v = s[j][2 * h + i] * a.scale;

				v = key <= pos[h] && key >= first ? v : NONE;
				s[j][2 * h + i] = v;
				max = fmaxf(max, v);
			}
		max = fmaxf(max, __shfl_xor_sync(WK_ALL, max, 1));
		max = fmaxf(max, __shfl_xor_sync(WK_ALL, max, 2));
		max = fmaxf(max, r.m[h]);
		old = wk_exp2(r.m[h] - max);
#pragma unroll
		for (int j = 0; j < KA_TILE / 8; j++)
#pragma unroll
			for (int i = 0; i < 2; i++) {
				float v = s[j][2 * h + i], p = v == NONE ? 0 : wk_exp2(v - max);

				s[j][2 * h + i] = p;
				sum += p;
			}
		r.m[h] = max;
		/* The sum stays this lane's own until the cut ends. */
		r.l[h] = r.l[h] * old + sum;
#pragma unroll
		for (int j = 0; j < VD / 8; j++) {
			r.o[j][2 * h] *= old;
			r.o[j][2 * h + 1] *= old;
		}
	}
}

/* o += p V. V is finite: see basic.cu. */
template <int VD>
WK_DEVICE void values(const uint8_t *v, const float s[KA_TILE / 8][4], struct result<VD> &r)
{
	const int v_row = VD * 2 + 16;
	uint32_t lane = threadIdx.x % 32;
	const uint8_t *at = v + (lane / 8 % 2 * 8 + lane % 8) * v_row + lane / 16 * 16;

#pragma unroll
	for (int k = 0; k < KA_TILE / 16; k++) {
		uint32_t p[4] = {wk_pack_bf16(s[2 * k][0], s[2 * k][1]),
				 wk_pack_bf16(s[2 * k][2], s[2 * k][3]),
				 wk_pack_bf16(s[2 * k + 1][0], s[2 * k + 1][1]),
				 wk_pack_bf16(s[2 * k + 1][2], s[2 * k + 1][3])};

#pragma unroll
		for (int j = 0; j < VD / 8; j += 2) {
			struct wk_frag4 f;

			wk_ldmatrix_trans(&f, at + k * 16 * v_row + j * 16);
			wk_mma(r.o[j], p, f.r[0], f.r[1]);
			wk_mma(r.o[j + 1], p, f.r[2], f.r[3]);
		}
	}
}

template <int D, int VD>
WK_DEVICE void tile(const struct ka_attn &a, const uint8_t *kv, uint32_t key0, const int pos[2],
		    const uint32_t q[D / 16][4], struct result<VD> &r)
{
	const uint8_t *v = kv + KA_TILE * tile_shape<D, VD>::k_row;
	float s[KA_TILE / 8][4];

	scores<D>(kv, q, s);
	soften<VD>(a, key0, pos, s, r);
	values<VD>(v, s, r);
}

/* The end of a cut: the row's sum over its four lanes. */
template <int VD> WK_DEVICE void finish_cut(struct result<VD> &r)
{
#pragma unroll
	for (int h = 0; h < 2; h++) {
		r.l[h] += __shfl_xor_sync(WK_ALL, r.l[h], 1);
		r.l[h] += __shfl_xor_sync(WK_ALL, r.l[h], 2);
	}
}

/* The factors of a merge; *m becomes the new maximum. */
WK_DEVICE void merge_factors(float *m, float cut_m, float *ret_old, float *ret_cut)
{
	float max = fmaxf(*m, cut_m);

	*ret_old = wk_exp2(*m - max);
	*ret_cut = wk_exp2(cut_m - max);
	*m = max;
}

template <int VD> WK_DEVICE void merge(struct result<VD> &to, const struct result<VD> &cut)
{
#pragma unroll
	for (int h = 0; h < 2; h++) {
		float old, now;

		merge_factors(&to.m[h], cut.m[h], &old, &now);
		to.l[h] = fmaf(cut.l[h], now, to.l[h] * old);
#pragma unroll
		for (int j = 0; j < VD / 8; j++)
#pragma unroll
			for (int i = 2 * h; i < 2 * h + 2; i++)
				to.o[j][i] = fmaf(cut.o[j][i], now, to.o[j][i] * old);
	}
}

/* First key that any row of a sequence from `pos` on sees, at the start of a cut. */
WK_DEVICE uint32_t first_cut(uint32_t pos, uint32_t window)
{
	return window && pos >= window ? (pos + 1 - window) / KA_CUT : 0;
}

/* --- whole rows ------------------------------------------------------------------------------------*/

template <int VD>
WK_DEVICE void store_rows(const struct ka_attn &a, const struct unit &u, const struct result<VD> &r)
{
	uint32_t lane = threadIdx.x % 32;

#pragma unroll
	for (int h = 0; h < 2; h++) {
		uint32_t pair = u.pair0 + lane / 4 + 8 * h, row = pair / u.group;
		uint32_t head = u.kv_head * u.group + pair % u.group;
		uint16_t *x =
			a.x + (uint64_t)(u.seq.row + row) * a.x_stride + (uint64_t)head * a.dim;

		if (row >= u.seq.n_rows)
			continue;
#pragma unroll
		for (int j = 0; j < VD / 8; j++) {
			uint32_t i = u.slice * VD + j * 8 + lane % 4 * 2;

			if (i < a.dim)
				*(uint32_t *)(x + i) = wk_pack_bf16(r.o[j][2 * h] / r.l[h],
								    r.o[j][2 * h + 1] / r.l[h]);
		}
	}
}

template <int D, int VD>
WK_DEVICE void whole_unit(const struct ka_attn &a, const struct unit &u, uint32_t last_pair,
			  uint8_t *shared)
{
	const uint32_t stage = tile_shape<D, VD>::bytes;
	uint32_t lane = threadIdx.x % 32, last_row = last_pair / u.group;
	uint32_t first_row = (u.pair0 - threadIdx.x / 32 * 16) / u.group;
	uint32_t last = u.seq.pos + (last_row < u.seq.n_rows ? last_row : u.seq.n_rows - 1);
	uint32_t key = first_cut(u.seq.pos + first_row, a.window) * KA_CUT, n = 0;
	const int pos[2] = {pair_pos(u, u.pair0 + lane / 4), pair_pos(u, u.pair0 + lane / 4 + 8)};
	/* The last pair of the warp that there is: later keys are nothing to it. */
	int sees = pair_pos(u, u.pair0 + 15);
	uint32_t q[D / 16][4];
	struct result<VD> sum, cut;

	if (sees < 0 && pair_pos(u, u.pair0) >= 0)
		sees = (int)(u.seq.pos + u.seq.n_rows - 1);
	load_query<D>(a, u, q);
	clear(sum);
	clear(cut);
	load_tile<D, VD, WARPS * 32>(a, u, key, shared);
	wk_copy_commit();
	for (; key <= last; key += KA_TILE, n++) {
		if (key + KA_TILE <= last)
			load_tile<D, VD, WARPS * 32>(a, u, key + KA_TILE,
						     shared + (n + 1) % 2 * stage);
		wk_copy_commit();
		wk_copy_wait<1>();
		__syncthreads();
		if ((int)key <= sees)
			tile<D, VD>(a, shared + n % 2 * stage, key, pos, q, cut);
		if ((key + KA_TILE) % KA_CUT == 0 || key + KA_TILE > last) {
			finish_cut(cut);
			merge(sum, cut);
			clear(cut);
		}
		__syncthreads();
	}
	wk_copy_wait<0>();
	store_rows<VD>(a, u, sum);
}

template <int D, int VD> WK_DEVICE void whole(const struct ka_attn &a, uint8_t *shared)
{
	const uint32_t slices = (D + VD - 1) / VD;
	uint32_t n;

	wk_let_next();
	wk_await_previous();
	n = *a.n_units * a.n_kv * slices;
	for (uint32_t i = blockIdx.x; i < n; i += gridDim.x) {
		const struct ka_whole w = ((const struct ka_whole *)a.units)[i / (a.n_kv * slices)];
		struct unit u;

		u.seq = a.seqs[w.seq];
		u.pair0 = w.pair + threadIdx.x / 32 * 16;
		u.group = a.n_heads / a.n_kv;
		u.kv_head = i / slices % a.n_kv;
		u.slice = i % slices;
		u.end = u.seq.pos + u.seq.n_rows;
		whole_unit<D, VD>(a, u, w.pair + WARPS * 16 - 1, shared);
	}
}

/* --- one cut ---------------------------------------------------------------------------------------*/

template <int VD>
WK_DEVICE void store_cut(const struct ka_attn &a, const struct unit &u, uint32_t part,
			 const struct result<VD> &r)
{
	uint32_t lane = threadIdx.x % 32;

#pragma unroll
	for (int h = 0; h < 2; h++) {
		uint32_t pair = u.pair0 + lane / 4 + 8 * h, row = pair / u.group;
		uint64_t at =
			(uint64_t)(part + row) * a.n_heads + u.kv_head * u.group + pair % u.group;

		if (row >= u.seq.n_rows)
			continue;
		if (lane % 4 == 0 && !u.slice)
			*(float2 *)(a.part_ml + at * 2) = make_float2(r.m[h], r.l[h]);
#pragma unroll
		for (int j = 0; j < VD / 8; j++) {
			uint32_t i = u.slice * VD + j * 8 + lane % 4 * 2;

			if (i < a.dim)
				*(float2 *)(a.part + at * a.dim_pad + i) =
					make_float2(r.o[j][2 * h], r.o[j][2 * h + 1]);
		}
	}
}

template <int D, int VD>
WK_DEVICE void split_unit(const struct ka_attn &a, const struct unit &u, uint32_t cut_no,
			  uint32_t part, uint8_t *shared)
{
	const uint32_t stage = tile_shape<D, VD>::bytes;
	uint32_t lane = threadIdx.x % 32, key = cut_no * KA_CUT, n = 0;
	uint32_t end = u.end < key + KA_CUT ? u.end : key + KA_CUT;
	const int pos[2] = {pair_pos(u, u.pair0 + lane / 4), pair_pos(u, u.pair0 + lane / 4 + 8)};
	uint32_t q[D / 16][4];
	struct result<VD> cut;

	load_tile<D, VD, 32>(a, u, key, shared);
	wk_copy_commit();
	load_query<D>(a, u, q);
	clear(cut);
	for (; key < end; key += KA_TILE, n++) {
		if (key + KA_TILE < end)
			load_tile<D, VD, 32>(a, u, key + KA_TILE, shared + (n + 1) % 2 * stage);
		wk_copy_commit();
		wk_copy_wait<1>();
		__syncwarp();
		tile<D, VD>(a, shared + n % 2 * stage, key, pos, q, cut);
		__syncwarp();
	}
	wk_copy_wait<0>();
	finish_cut(cut);
	store_cut<VD>(a, u, part, cut);
}

/*
 * One unit for each block at the most: then what takes longest is that each of a cut's eight tiles waits for
 * memory, and while the launches before compute, the cut's K and V come into the cache. Each lane of a
 * warp has one of its 16 blocks, K or V. What rotation is about to write among them it writes there.
 */
WK_DEVICE void fetch_cut(const struct ka_attn &a, uint32_t unit, uint32_t slices)
{
	const struct ka_split *w = (const struct ka_split *)a.units + unit / (a.n_kv * slices);
	const struct ka_seq *s = a.seqs + wk_early_word(&w->seq);
	uint32_t pos = wk_early_word(&w->cut) * KA_CUT + threadIdx.x / 2 * 16;
	uint32_t head = (threadIdx.x % 2 ? a.n_kv : 0) + unit / slices % a.n_kv;
	uint32_t bytes = 16 * a.dim_pad * 2;

	if (pos >= wk_early_word(&s->pos) + wk_early_word(&s->n_rows))
		return;
	wk_early_fetch(a.pool +
			       wk_early_word(a.table + wk_early_word(&s->table) + pos / 16) *
				       a.block_bytes +
			       a.layer_offset + (uint64_t)head * bytes,
		       bytes);
}

template <int D, int VD> WK_DEVICE void split(const struct ka_attn &a, uint8_t *shared)
{
	const uint32_t slices = (D + VD - 1) / VD;
	uint32_t n, warp = threadIdx.x / 32;
	uint32_t warps = blockDim.x / 32; /* as many as find room for their tiles */

	wk_let_next();
	/* The units came by a transfer before the step's first launch. A block without any ends at
	 * once: its shared memory is most of the multiprocessor's, and the product that comes after attention
	 * has weights to fetch. */
	n = wk_early_word(a.n_units) * a.n_kv * slices;
	if (blockIdx.x >= n && wk_may_end_early())
		return;
	if (n <= gridDim.x && blockIdx.x < n && warp == 0)
		fetch_cut(a, blockIdx.x, slices);
	wk_await_previous();
	shared += warp * 2 * tile_shape<D, VD>::bytes;
	/* Few units, and the last of many, are spread over all multiprocessors. */
	for (uint32_t i = warp * gridDim.x + blockIdx.x; i < n; i += gridDim.x * warps) {
		const struct ka_split w = ((const struct ka_split *)a.units)[i / (a.n_kv * slices)];
		struct unit u;

		u.seq = a.seqs[w.seq];
		u.pair0 = w.pair;
		u.group = a.n_heads / a.n_kv;
		u.kv_head = i / slices % a.n_kv;
		u.slice = i % slices;
		u.end = u.seq.pos + u.seq.n_rows;
		if (w.cut >= first_cut(u.seq.pos, a.window))
			split_unit<D, VD>(a, u, w.cut, w.part, shared);
	}
}

/* A thread block for a row (x) and a head (y); a thread for each column of the head. */
WK_KERNEL(wk_attn_merge, (256), struct ka_attn_merge)
{
	const struct ka_merge row = a.rows[blockIdx.x];
	uint32_t i = threadIdx.x, head = blockIdx.y;
	float m = NONE, l = 0, o = 0;

	if (!row.n_cuts || i >= a.dim)
		return;
		/* The sequence's first row decides which cuts were made; this one may see fewer. Loads of
	 * several cuts are under way at once: they wait for nothing. */
#pragma unroll 4
	for (uint32_t c = first_cut(row.pos, a.window); c < row.n_cuts; c++) {
		uint64_t at = (uint64_t)(row.part + c * row.step) * a.n_heads + head;
		float2 ml = *(const float2 *)(a.part_ml + at * 2);
		float old, now;

		merge_factors(&m, ml.x, &old, &now);
		l = fmaf(ml.y, now, l * old);
		o = fmaf(a.part[at * a.dim_pad + i], now, o * old);
	}
	a.x[(uint64_t)blockIdx.x * a.x_stride + (uint64_t)head * a.dim + i] =
		(uint16_t)wk_to_bf16(o / l);
}

/* BOUNDS: threads and blocks on a multiprocessor, of whole rows: how many registers there may be. */
#define ATTENTION(D, VD, BOUNDS)                                                  \
	WK_KERNEL_EARLY(wk_attn_whole_##D, BOUNDS, struct ka_attn)                \
	{                                                                         \
		WK_SHARED_BYTES(shared);                                          \
		whole<D, VD>(a, shared);                                          \
	}                                                                         \
	WK_KERNEL_EARLY(wk_attn_split_##D, (SPLIT_WARPS * 32, 1), struct ka_attn) \
	{                                                                         \
		WK_SHARED_BYTES(shared);                                          \
		split<D, VD>(a, shared);                                          \
	}

ATTENTION(32, 32, (WARPS * 32, 2))
ATTENTION(64, 64, (WARPS * 32, 2))
ATTENTION(80, 80, (WARPS * 32, 2))
ATTENTION(96, 96, (WARPS * 32, 2))
ATTENTION(128, 128, (WARPS * 32, 2))
ATTENTION(256, 128, (WARPS * 32))
