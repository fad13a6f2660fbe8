/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flash.cu - attention of many rows over long contexts, on devices of compute capability 9.0.
 *
 *   wk_flash_gather	copies K and V of whole sequences, one layer, out of their blocks into tiles
 *			of KA_FLASH keys, each one contiguous piece and laid out as products read it:
 *			K [dims / 64][keys][64 dims], V turned over [keys / 64][dims][64 keys], swizzled
 *   wk_flash		a thread block takes 128 pairs (row, head of a KV head's group; numbered as in
 *			attention.cu) over all of their keys: one thread brings tiles, in stages, and
 *			two warpgroups with 64 pairs each multiply
 *
 * The gathering is read and written once for each layer and pass; in return a tile comes by one copy
 * in bulk, and no page is looked up while the matrix units work.
 *
 * A warpgroup has the scores of the next tile and the values of the last under way together, and works
 * on the scores while the values are still being added up:
 *
 *	s = q K of tile t  |  o += p V of tile t - 1   both begin
 *	s is there: maximum, probabilities, sums
 *	o is there: brought to the new maximum; p = probabilities in bf16
 *
 * The softmax is online over tiles, in units of log2: p = 2^(scale s - scale m). Rounded to bf16: q, K, V
 * and p. What a row does not see is no score but NONE, and its p is 0: a key that is NaN
 * reaches exactly the rows that see it (basic.cu), and keys past the end are zeros.
 *
 * Barriers, for each stage of K and of V: `full` when a tile has come, `empty` when all eight warps have
 * done with it. Tiles are counted from the block's first to its last, across units; both sides work
 * out the same tiles from the unit alone. Tile n is in stage n % STAGES; phase n / STAGES % 2.
 */
#include "kernels/cuda/hopper.cuh"

#define TILE	KA_FLASH
#define STAGES	2
#define GROUP	64 /* pairs of a warpgroup */
#define UNIT	(2 * GROUP)
#define THREADS 384
#define WARPS	8      /* that compute */
#define NONE	-1e30f /* the maximum of nothing: a finite number that no score reaches */

/* First tile that any row of a sequence from `pos` on sees. */
WK_DEVICE uint32_t first_tile(uint32_t pos, uint32_t window)
{
	return window && pos >= window ? (pos + 1 - window) / TILE : 0;
}

/* --- gathering --------------------------------------------------------------------------------------*/

#define GATHER_THREADS 128

WK_DEVICE uint4 key_piece(const uint8_t *rows, uint32_t row_bytes, uint32_t key, uint32_t piece,
			  uint32_t keys)
{
	return key < keys ? wk_load16(rows + key * row_bytes + piece * 16) : make_uint4(0, 0, 0, 0);
}

/* The rows of a block's head, K or V, that position `pos` is in. */
WK_DEVICE const uint8_t *block_rows(const struct ka_gather &a, uint32_t table, uint32_t pos,
				    uint32_t head)
{
	return a.pool + a.table[table + pos / 16] * a.block_bytes + a.layer_offset +
	       (uint64_t)head * 16 * a.dim * 2;
}

/* Eight keys of eight dims, turned over. */
WK_DEVICE void turn(const uint4 from[8], uint4 to[8])
{
#pragma unroll
	for (int j = 0; j < 8; j++) {
		uint32_t w[4];

#pragma unroll
		for (int i = 0; i < 4; i++) {
			const uint4 x = from[2 * i], y = from[2 * i + 1];
			uint32_t lo = j / 2 == 0 ? x.x : j / 2 == 1 ? x.y : j / 2 == 2 ? x.z : x.w;
			uint32_t hi = j / 2 == 0 ? y.x : j / 2 == 1 ? y.y : j / 2 == 2 ? y.z : y.w;

			w[i] = j % 2 ? lo >> 16 | (hi & 0xffff0000) : (lo & 0xffff) | hi << 16;
		}
		to[j] = make_uint4(w[0], w[1], w[2], w[3]);
	}
}

WK_DEVICE void gather_k(const struct ka_gather &a, uint32_t table, uint32_t key0, uint32_t end,
			uint32_t head, uint8_t *to)
{
	const uint32_t pieces = a.dim / 8;

	for (uint32_t i = threadIdx.x; i < TILE * pieces; i += GATHER_THREADS) {
		uint32_t key = i / pieces, c = i % pieces, pos = key0 + key;
		uint4 v = make_uint4(0, 0, 0, 0);

		if (pos < end)
			v = key_piece(block_rows(a, table, pos, head), a.dim * 2, pos % 16, c, 16);
		*(uint4 *)(to + c / 8 * (TILE * 128) + wk_swizzled(key, c % 8)) = v;
	}
}

/* A thread takes eight keys of eight dims; eight neighbours write whole rows of 128 bytes. */
WK_DEVICE void gather_v(const struct ka_gather &a, uint32_t table, uint32_t key0, uint32_t end,
			uint32_t head, uint8_t *to)
{
	const uint32_t pieces = a.dim / 8;

	for (uint32_t i = threadIdx.x; i < TILE / 8 * pieces; i += GATHER_THREADS) {
		uint32_t keys = i % 8 + i / 8 / pieces * 8, c = i / 8 % pieces;
		uint32_t pos = key0 + keys * 8;
		uint4 from[8], out[8];
		const uint8_t *rows = pos < end ? block_rows(a, table, pos, head) : a.pool;

#pragma unroll
		for (uint32_t k = 0; k < 8; k++)
			from[k] = key_piece(rows, a.dim * 2, pos % 16 + k, c,
					    pos < end ? pos % 16 + (end - pos) : 0);
		turn(from, out);
#pragma unroll
		for (uint32_t j = 0; j < 8; j++)
			*(uint4 *)(to + keys / 8 * (a.dim * 128) +
				   wk_swizzled(c * 8 + j, keys % 8)) = out[j];
	}
}

WK_KERNEL(wk_flash_gather, (GATHER_THREADS), struct ka_gather)
{
	const uint32_t half = TILE * a.dim * 2, n = a.counts->n_tiles * a.n_kv;

	for (uint32_t i = blockIdx.x; i < n; i += gridDim.x) {
		uint32_t tile = i / a.n_kv, head = i % a.n_kv, g = 0, end, key0;
		struct ka_seq seq;

		while (g + 1 < a.counts->n_seqs && a.gathered[g + 1].first <= tile)
			g++;
		seq = a.seqs[a.gathered[g].seq];
		key0 = (tile - a.gathered[g].first) * TILE;
		end = seq.pos + seq.n_rows;
		if (key0 / TILE < first_tile(seq.pos, a.window))
			continue;
		gather_k(a, seq.table, key0, end, head, a.tiles + (uint64_t)i * 2 * half);
		gather_v(a, seq.table, key0, end, a.n_kv + head,
			 a.tiles + (uint64_t)i * 2 * half + half);
	}
}

/* --- attention --------------------------------------------------------------------------------------*/

#ifdef WK_HOPPER

template <int D> struct place {
	static const int half = TILE * D * 2; /* K of a tile, or V */
	static const int q = GROUP * D * 2;   /* of a warpgroup */
	static const int tiles = 2 * q;
	static const int barriers = tiles + STAGES * 2 * half;
};

struct barriers {
	uint64_t full_k[STAGES], full_v[STAGES], empty_k[STAGES], empty_v[STAGES];
};

/* What a unit works on, and over which tiles. */
struct unit {
	struct ka_seq seq;
	uint32_t pair, group, kv_head;
	uint32_t first, n;    /* tiles */
	const uint8_t *tiles; /* of the sequence and KV head: tile 0 */
};

/* A row's position; of a pair that there is not, the last row's. */
WK_DEVICE uint32_t row_pos(const struct unit &u, uint32_t pair)
{
	uint32_t row = pair / u.group;

	return u.seq.pos + (row < u.seq.n_rows ? row : u.seq.n_rows - 1);
}

/* The block's unit of a round: to and fro, so that who has a heavy one has a light one next. */
WK_DEVICE uint32_t unit_number(uint32_t round)
{
	return round * gridDim.x + (round % 2 ? gridDim.x - 1 - blockIdx.x : blockIdx.x);
}

template <int D> WK_DEVICE struct unit unit_of(const struct ka_flash &a, uint32_t i)
{
	const struct ka_whole w = a.units[i / a.n_kv];
	const struct ka_gathered g = a.gathered[w.seq];
	struct unit u;

	u.seq = a.seqs[g.seq];
	u.pair = w.pair;
	u.group = a.n_heads / a.n_kv;
	u.kv_head = i % a.n_kv;
	u.first = first_tile(row_pos(u, u.pair), a.window);
	u.n = row_pos(u, u.pair + UNIT - 1) / TILE + 1 - u.first;
	u.tiles = a.tiles + ((uint64_t)g.first * a.n_kv + u.kv_head) * 2 * place<D>::half;
	return u;
}

/* One thread: all tiles of all units of this block, as stages become empty. */
template <int D> WK_DEVICE void bring(const struct ka_flash &a, uint8_t *shared, struct barriers *b)
{
	const uint32_t half = place<D>::half, n_units = a.counts->n_units * a.n_kv;
	uint32_t n = 0;

	wk_copies_begin();
	for (uint32_t round = 0, i; (i = unit_number(round)) < n_units; round++) {
		const struct unit u = unit_of<D>(a, i);

		for (uint32_t t = u.first; t < u.first + u.n; t++, n++) {
			const uint8_t *from = u.tiles + (uint64_t)t * a.n_kv * 2 * half;
			uint32_t stage = n % STAGES, before = n / STAGES % 2 ^ 1;
			uint8_t *to = shared + place<D>::tiles + stage * 2 * half;

			wk_barrier_wait(&b->empty_k[stage], before);
			wk_barrier_expect(&b->full_k[stage], half);
			wk_copy_bulk(to, from, half, &b->full_k[stage]);
			wk_barrier_wait(&b->empty_v[stage], before);
			wk_barrier_expect(&b->full_v[stage], half);
			wk_copy_bulk(to + half, from + half, half, &b->full_v[stage]);
		}
	}
}

/* A warpgroup's 64 queries, [D / 64][64][64 dims]; zeros where there is no pair. */
template <int D>
WK_DEVICE void load_queries(const struct ka_flash &a, const struct unit &u, uint32_t pair0,
			    uint8_t *to)
{
	const uint32_t pieces = D / 8;

	for (uint32_t i = threadIdx.x % 128; i < GROUP * pieces; i += 128) {
		uint32_t p = i / pieces, c = i % pieces, row = (pair0 + p) / u.group;
		uint32_t head = u.kv_head * u.group + (pair0 + p) % u.group;
		uint4 v = make_uint4(0, 0, 0, 0);

		if (row < u.seq.n_rows)
			v = *(const uint4 *)(a.q + (uint64_t)(u.seq.row + row) * a.q_stride +
					     (uint64_t)head * D + c * 8);
		wk_store_for_products(to + c / 8 * (GROUP * 128) + wk_swizzled(p, c % 8), v);
	}
}

/* What a thread has of its two rows: lane / 4 and 8 more of its warp's 16. */
template <int D> struct state {
	float o[D / 2], s[TILE / 2];
	uint32_t p[TILE / 16][4];
	float m[2], l[2]; /* m: of unscaled scores; l: this lane's part of the sum */
	int pos[2];
};

/* s = q K begins. */
template <int D> WK_DEVICE void scores(struct state<D> &r, const uint8_t *q, const uint8_t *k)
{
	const uint64_t qp = wk_product_place(q), kp = wk_product_place(k);

#pragma unroll
	for (int i = 0; i < D / 16; i++) {
		const uint64_t within = i % 4 * 2;

		wk_product(r.s, qp + within + i / 4 * (GROUP * 128 / 16),
			   kp + within + i / 4 * (TILE * 128 / 16), i > 0);
	}
	wk_product_commit();
}

/* o += p V begins. */
template <int D> WK_DEVICE void values(struct state<D> &r, const uint8_t *v)
{
	const uint64_t vp = wk_product_place(v);

#pragma unroll
	for (int i = 0; i < TILE / 16; i++)
		wk_product(r.o, r.p[i], vp + i % 4 * 2 + i / 4 * (D * 128 / 16));
	wk_product_commit();
}

/* What a row does not see is no score. */
template <int D> WK_DEVICE void mask(struct state<D> &r, uint32_t key0, uint32_t window)
{
	int c = (int)(key0 + threadIdx.x % 4 * 2);

#pragma unroll
	for (int h = 0; h < 2; h++) {
		int last = r.pos[h] - c;
		int first = window && r.pos[h] >= (int)window ? last + 1 - (int)window : -c;

#pragma unroll
		for (int j = 0; j < TILE / 8; j++)
#pragma unroll
			for (int i = 0; i < 2; i++) {
				int key = j * 8 + i;
				float &s = r.s[4 * j + 2 * h + i];

				s = key <= last && key >= first ? s : NONE;
			}
	}
}

/* Scores become probabilities; old: what o is to be multiplied by. */
template <int D> WK_DEVICE void soften(struct state<D> &r, float scale, float old[2])
{
#pragma unroll
	for (int h = 0; h < 2; h++) {
		float max0 = r.m[h], max1 = r.m[h], sum0 = 0, sum1 = 0, max, base;

#pragma unroll
		for (int j = 0; j < TILE / 8; j++) {
			max0 = fmaxf(max0, r.s[4 * j + 2 * h]);
			max1 = fmaxf(max1, r.s[4 * j + 2 * h + 1]);
		}
		max = fmaxf(max0, max1);
		max = fmaxf(max, __shfl_xor_sync(WK_ALL, max, 1));
		max = fmaxf(max, __shfl_xor_sync(WK_ALL, max, 2));
		old[h] = wk_exp2((r.m[h] - max) * scale);
		r.m[h] = max;
		/* Of a row that has seen nothing yet all are NONE, and must become 0, not 1. */
		base = max == NONE ? 0 : -max * scale;
#pragma unroll
		for (int j = 0; j < TILE / 8; j++) {
			float &s0 = r.s[4 * j + 2 * h], &s1 = r.s[4 * j + 2 * h + 1];

			s0 = wk_exp2(fmaf(s0, scale, base));
			s1 = wk_exp2(fmaf(s1, scale, base));
			sum0 += s0;
			sum1 += s1;
		}
		r.l[h] = fmaf(r.l[h], old[h], sum0 + sum1);
	}
}

template <int D> WK_DEVICE void pack(struct state<D> &r)
{
#pragma unroll
	for (int i = 0; i < TILE / 16; i++)
#pragma unroll
		for (int e = 0; e < 4; e++)
			r.p[i][e] = wk_pack_bf16(r.s[8 * i + 2 * e], r.s[8 * i + 2 * e + 1]);
}

/* Mostly no row of the warp has a new maximum. */
template <int D> WK_DEVICE void rescale(struct state<D> &r, const float old[2])
{
	if (!__ballot_sync(WK_ALL, old[0] != 1 || old[1] != 1))
		return;
#pragma unroll
	for (int j = 0; j < D / 8; j++)
#pragma unroll
		for (int e = 0; e < 4; e++)
			r.o[4 * j + e] *= old[e / 2];
}

template <int D>
WK_DEVICE void store_rows(const struct ka_flash &a, const struct unit &u, uint32_t pair0,
			  const struct state<D> &r)
{
	uint32_t lane = threadIdx.x % 32;

#pragma unroll
	for (int h = 0; h < 2; h++) {
		uint32_t pair = pair0 + threadIdx.x % 128 / 32 * 16 + lane / 4 + 8 * h;
		uint32_t row = pair / u.group, head = u.kv_head * u.group + pair % u.group;
		uint16_t *x = a.x + (uint64_t)(u.seq.row + row) * a.x_stride + (uint64_t)head * D;
		float l = r.l[h];

		l += __shfl_xor_sync(WK_ALL, l, 1);
		l += __shfl_xor_sync(WK_ALL, l, 2);
		if (row >= u.seq.n_rows)
			continue;
		l = 1 / l;
#pragma unroll
		for (int j = 0; j < D / 8; j++)
			*(uint32_t *)(x + j * 8 + lane % 4 * 2) =
				wk_pack_bf16(r.o[4 * j + 2 * h] * l, r.o[4 * j + 2 * h + 1] * l);
	}
}

/* This warp has done with a stage: all of its lanes have passed the wait for the products. */
WK_DEVICE void done_with(uint64_t *empty)
{
	if (threadIdx.x % 32 == 0)
		wk_barrier_arrive(empty);
}

/* Scores of tile n of the block, masked where a row of the warpgroup does not see all of it. */
template <int D>
WK_DEVICE void mask_tile(const struct ka_flash &a, uint32_t key0, const uint32_t ends[2],
			 struct state<D> &r)
{
	if (key0 + TILE - 1 > ends[0] ||
	    (a.window && ends[1] >= a.window && key0 < ends[1] + 1 - a.window))
		mask(r, key0, a.window);
}

template <int D>
WK_DEVICE void compute_unit(const struct ka_flash &a, const struct unit &u, uint32_t group,
			    uint32_t n, uint8_t *shared, struct barriers *b)
{
	const uint32_t half = place<D>::half, pair0 = u.pair + group * GROUP;
	const uint32_t pair = pair0 + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
	const uint32_t ends[2] = {row_pos(u, pair0), row_pos(u, pair0 + GROUP - 1)};
	uint8_t *q = shared + group * place<D>::q, *tiles = shared + place<D>::tiles;
	uint32_t stage = n % STAGES, last;
	float old[2];
	struct state<D> r;

	wk_group_sync(1 + group);
	load_queries<D>(a, u, pair0, q);
	wk_stored_for_products();
	wk_group_sync(1 + group);
#pragma unroll
	for (int i = 0; i < D / 2; i++)
		r.o[i] = 0;
#pragma unroll
	for (int h = 0; h < 2; h++) {
		r.m[h] = NONE;
		r.l[h] = 0;
		r.pos[h] = (int)row_pos(u, pair + 8 * h);
	}

	wk_barrier_wait(&b->full_k[stage], n / STAGES % 2);
	wk_hold(r.s);
	wk_product_begin();
	scores(r, q, tiles + stage * 2 * half);
	wk_product_wait<0>();
	wk_hold(r.s);
	done_with(&b->empty_k[stage]);
	mask_tile(a, u.first * TILE, ends, r);
	soften(r, a.scale, old);
	pack(r);
	for (uint32_t t = 1; t < u.n; t++) {
		last = stage;
		stage = (n + t) % STAGES;
		wk_barrier_wait(&b->full_k[stage], (n + t) / STAGES % 2);
		wk_hold(r.s);
		wk_hold(r.o);
		wk_hold(r.p);
		wk_product_begin();
		scores(r, q, tiles + stage * 2 * half);
		wk_barrier_wait(&b->full_v[last], (n + t - 1) / STAGES % 2);
		values(r, tiles + last * 2 * half + half);
		wk_product_wait<1>();
		wk_hold(r.s);
		done_with(&b->empty_k[stage]);
		mask_tile(a, (u.first + t) * TILE, ends, r);
		soften(r, a.scale, old);
		wk_done_here(r.l[0] + r.l[1]);
		wk_product_wait<0>();
		wk_hold(r.o);
		wk_hold(r.p);
		done_with(&b->empty_v[last]);
		rescale(r, old);
		pack(r);
	}
	wk_barrier_wait(&b->full_v[stage], (n + u.n - 1) / STAGES % 2);
	wk_hold(r.o);
	wk_hold(r.p);
	wk_product_begin();
	values(r, tiles + stage * 2 * half + half);
	wk_product_wait<0>();
	wk_hold(r.o);
	done_with(&b->empty_v[stage]);
	store_rows<D>(a, u, pair0, r);
}

template <int D> WK_DEVICE void flash(const struct ka_flash &a, uint8_t *shared)
{
	/* Units of eight rows must be aligned by the address itself. */
	uint8_t *at = shared + (1024 - wk_shared_address(shared) % 1024) % 1024;
	struct barriers *b = (struct barriers *)(at + place<D>::barriers);
	uint32_t group = threadIdx.x / 128;

	if (threadIdx.x == 0) {
		for (int i = 0; i < STAGES; i++) {
			wk_barrier_init(&b->full_k[i], 1);
			wk_barrier_init(&b->full_v[i], 1);
			wk_barrier_init(&b->empty_k[i], WARPS);
			wk_barrier_init(&b->empty_v[i], WARPS);
		}
		wk_barriers_made();
	}
	__syncthreads();
	if (group == 2) {
		wk_registers_fewer<24>();
		if (threadIdx.x == 2 * 128)
			bring<D>(a, at, b);
	} else {
		const uint32_t n_units = a.counts->n_units * a.n_kv;
		uint32_t n = 0;

		wk_registers_more<240>();
		for (uint32_t round = 0, i; (i = unit_number(round)) < n_units; round++) {
			const struct unit u = unit_of<D>(a, i);

			compute_unit<D>(a, u, group, n, at, b);
			n += u.n;
		}
	}
}
#else
/* Never launched: flash.c asks for the device's kind. */
template <int D> WK_DEVICE void flash(const struct ka_flash &, uint8_t *)
{
	__trap();
}
#endif

WK_KERNEL(wk_flash_64, (THREADS, 1), struct ka_flash)
{
	WK_SHARED_BYTES(shared);
	flash<64>(a, shared);
}

WK_KERNEL(wk_flash_128, (THREADS, 1), struct ka_flash)
{
	WK_SHARED_BYTES(shared);
	flash<128>(a, shared);
}
