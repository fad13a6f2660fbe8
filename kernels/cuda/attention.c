/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attention.c - KV blocks, rotation and attention: what the host decides.
 *
 * A batch is divided for attention when its first attention comes, since only then the number of
 * query heads to a KV head is known. Each sequence goes one of two ways, with the same bits
 * (attention.cu): its rows with all of their keys at once, if there are enough of them to fill the
 * device; or cut by cut, with partial results in memory. Hopper devices have a third way for many rows,
 * faster and with bits of its own (flash.c). The room for those is made at the first
 * attention, which says how many heads a row has: a device must have it free beside the pool (the
 * engine leaves it, DEVICE_MARGIN), and one that has not fails that step. A sequence for which no
 * room is left in it goes the first way.
 */
#include <errno.h>
#include <string.h>

#include "kernels/cuda/cuda.h"

#define PART_BYTES  ((size_t)256 << 20) /* of partial results, at the most */
#define WHOLE_PAIRS 64u
#define SPLIT_WARPS 6u
#define SPLIT_PAIRS 16u
#define HEAD_SIZES  6
#define FIRST_BYTES ((size_t)256 << 10) /* of units: 64 sequences of 32k, or a pass of all rows */

static const struct {
	uint32_t dim, v_dim;
	enum cuda_kernel whole, split;
} sizes[HEAD_SIZES] = {
	{32, 32, K_wk_attn_whole_32, K_wk_attn_split_32},
	{64, 64, K_wk_attn_whole_64, K_wk_attn_split_64},
	{80, 80, K_wk_attn_whole_80, K_wk_attn_split_80},
	{96, 96, K_wk_attn_whole_96, K_wk_attn_split_96},
	{128, 128, K_wk_attn_whole_128, K_wk_attn_split_128},
	{256, 128, K_wk_attn_whole_256, K_wk_attn_split_256},
};

static int size_of(uint32_t dim)
{
	int i = 0;

	while (sizes[i].dim < dim)
		i++;
	return i;
}

static uint32_t dim_pad(const struct wk_kv_shape *s)
{
	return (s->head_dim + 7) & ~7u;
}

static void *device(cu_ptr p)
{
	return (void *)(uintptr_t)p;
}

/* --- blocks ------------------------------------------------------------------------------------------*/

/* All heads of K of a layer, or of V. */
static size_t half_layer_bytes(const struct wk_kv_shape *s)
{
	return (size_t)s->n_kv_heads * WK_BLOCK_TOKENS * dim_pad(s) * sizeof(uint16_t);
}

size_t cuda_kv_block_bytes(const struct wk_backend *be, const struct wk_kv_shape *shape)
{
	size_t bytes = shape->n_layers * 2 * half_layer_bytes(shape);

	bytes = bytes < shape->min_block_bytes ? shape->min_block_bytes : bytes;
	return (bytes + WK_POOL_ALIGN - 1) / WK_POOL_ALIGN * WK_POOL_ALIGN;
}

int cuda_kv_bind(struct wk_backend *be, const struct wk_kv_shape *shape, struct wk_buf *pool,
		 uint32_t n_blocks)
{
	size_t bytes;

	if (!shape->n_layers || !shape->n_kv_heads || shape->head_dim < 8 ||
	    shape->head_dim > 256 || shape->head_dim % 2)
		return cuda_fail(be, EINVAL, "unsupported KV shape: %u layers, %u heads of %u",
				 shape->n_layers, shape->n_kv_heads, shape->head_dim);
	bytes = cuda_kv_block_bytes(be, shape);
	if (pool->bytes / bytes < n_blocks)
		return cuda_fail(be, EINVAL, "pool of %zu bytes is too small for %u blocks",
				 pool->bytes, n_blocks);
	be->kv = *shape;
	be->block_bytes = bytes;
	be->n_blocks = n_blocks;
	be->pool = pool;
	be->group = 0;
	return 0;
}

void cuda_kv_zero(struct wk_backend *be, struct wk_buf *pool, const uint32_t *blocks, uint32_t n)
{
	struct ka_zero a = {.pool = device(pool->at), .block_bytes = be->block_bytes};

	for (uint32_t at = 0; at < n; at += a.n) {
		uint32_t pieces = (uint32_t)(be->block_bytes / 16 / 1024) + 1;

		a.n = n - at < KA_ZERO_BLOCKS ? n - at : KA_ZERO_BLOCKS;
		for (uint32_t i = 0; i < KA_ZERO_BLOCKS; i++)
			a.blocks[i] = i < a.n ? blocks[at + i] : 0;
		for (uint32_t i = 0; i < a.n; i++)
			if (a.blocks[i] >= be->n_blocks) {
				cuda_stick(be, EINVAL, "kv_zero: block %u of %u", a.blocks[i],
					   be->n_blocks);
				return;
			}
		cuda_launch(be, K_wk_zero, pieces < 64 ? pieces : 64, a.n, 256, 0, &a, sizeof(a));
	}
}

void cuda_kv_copy_rows(struct wk_backend *be, struct wk_buf *pool, uint32_t src, uint32_t dst,
		       uint32_t n_rows)
{
	uint32_t row = dim_pad(&be->kv) * sizeof(uint16_t);
	struct ka_copy_rows a = {.pool = device(pool->at),
				 .block_bytes = be->block_bytes,
				 .src = src,
				 .dst = dst,
				 .n_heads = be->kv.n_layers * 2 * be->kv.n_kv_heads,
				 .head_size = WK_BLOCK_TOKENS * row,
				 .copy_size = n_rows * row};
	uint32_t pieces = (uint32_t)(be->block_bytes / 16 / 256) + 1;

	if (src >= be->n_blocks || dst >= be->n_blocks || n_rows > WK_BLOCK_TOKENS || src == dst) {
		cuda_stick(be, EINVAL, "kv_copy_rows: block %u to %u, %u rows", src, dst, n_rows);
		return;
	}
	cuda_launch(be, K_wk_copy_rows, pieces < 256 ? pieces : 256, 1, 256, 0, &a, sizeof(a));
}

/* --- rotation ----------------------------------------------------------------------------------------*/

static bool layer_wrong(struct wk_backend *be, const char *what, uint32_t layer, uint32_t n_heads)
{
	if (!be->n_blocks || layer >= be->kv.n_layers)
		cuda_stick(be, EINVAL, "%s: no KV pool, or no layer %u", what, layer);
	else if (!n_heads || n_heads % be->kv.n_kv_heads)
		cuda_stick(be, EINVAL, "%s: %u heads are no multiple of %u KV heads", what, n_heads,
			   be->kv.n_kv_heads);
	return be->sticky;
}

void cuda_rope_append(struct wk_backend *be, const struct wk_rope_append *op)
{
	uint32_t heads = op->n_heads + 2 * be->kv.n_kv_heads;
	struct ka_rope a = {.y = device(op->y->at),
			    .q = device(op->q->at),
			    .pool = device(op->pool->at),
			    .q_norm = op->q_norm ? device(op->q_norm->at) : NULL,
			    .k_norm = op->k_norm ? device(op->k_norm->at) : NULL,
			    .inv_freq = device(op->inv_freq->at),
			    .row_seq = device(be->arrays->at + be->at.row_seq),
			    .table = device(be->arrays->at + be->at.table),
			    .block_bytes = be->block_bytes,
			    .layer_offset = op->layer * 2 * half_layer_bytes(&be->kv),
			    .norm_eps = op->norm_eps,
			    .rope_scale = op->rope_scale,
			    .n_heads = op->n_heads,
			    .n_kv = be->kv.n_kv_heads,
			    .dim = be->kv.head_dim,
			    .dim_pad = dim_pad(&be->kv),
			    .y_stride = op->y_stride,
			    .q_stride = op->q_stride};

	if (layer_wrong(be, "rope_append", op->layer, op->n_heads))
		return;
	/* Few rows: a head for each warp, not four one after another. */
	cuda_launch(be, K_wk_rope, be->batch.n_rows,
		    cuda_div_up(heads, be->batch.n_rows < 64 ? 4 : 16), 128, 0, &a, sizeof(a));
}

/* --- the division of a batch -------------------------------------------------------------------------*/

static uint32_t cuts_of(const struct wk_seq *s)
{
	return (s->pos + s->n_rows - 1) / WK_ATTN_CUT + 1;
}

/* Enough thread blocks of whole rows to fill the device, or too little to gain by cutting. */
static bool goes_whole(const struct wk_backend *be, const struct wk_seq *s, uint32_t group)
{
	uint32_t blocks = cuda_div_up(s->n_rows * group, WHOLE_PAIRS) * be->kv.n_kv_heads;

	return s->n_rows > 1 && blocks >= (uint32_t)be->multiprocessors;
}

static int reserve_parts(struct wk_backend *be, uint32_t n_heads)
{
	size_t row = (size_t)n_heads * dim_pad(&be->kv) * sizeof(float);
	size_t rows = PART_BYTES / row;
	int r;

	if (be->part_heads == n_heads && be->part)
		return 0;
	r = cuda_reserve(be, &be->part, rows * row);
	r = r ? r : cuda_reserve(be, &be->part_ml, rows * n_heads * 2 * sizeof(float));
	be->part_rows = r ? 0 : (uint32_t)rows;
	be->part_heads = n_heads;
	return r;
}

struct division {
	struct ka_whole *whole;
	struct ka_split *split;
	struct ka_merge *merge;
	uint32_t n_whole, n_split, parts;
	uint32_t room_parts;
	struct cuda_flash_division flash;
};

static void nothing_to_merge(struct division *d, const struct wk_seq *s)
{
	for (uint32_t i = 0; i < s->n_rows; i++)
		d->merge[s->row + i] = (struct ka_merge){0};
}

static void divide_whole(struct division *d, const struct wk_seq *s, uint32_t index, uint32_t pairs)
{
	for (uint32_t p = 0; p < pairs; p += WHOLE_PAIRS)
		d->whole[d->n_whole++] = (struct ka_whole){index, p};
	nothing_to_merge(d, s);
}

static void divide_split(struct division *d, const struct wk_seq *s, uint32_t index, uint32_t pairs)
{
	for (uint32_t c = 0; c < cuts_of(s); c++)
		for (uint32_t p = 0; p < pairs; p += SPLIT_PAIRS)
			d->split[d->n_split++] =
				(struct ka_split){index, p, c, d->parts + c * s->n_rows};
	for (uint32_t i = 0; i < s->n_rows; i++)
		d->merge[s->row + i] = (struct ka_merge){
			d->parts + i, s->n_rows, (s->pos + i) / WK_ATTN_CUT + 1, s->pos + i};
	d->parts += cuts_of(s) * s->n_rows;
}

static void divide(struct wk_backend *be, uint32_t group, struct division *d)
{
	bool flash = be->flashed && cuda_flash_fills(be, group);

	for (uint32_t i = 0; i < be->batch.n_seqs; i++) {
		const struct wk_seq *s = &be->seqs[i];
		uint64_t parts = (uint64_t)cuts_of(s) * s->n_rows;

		if (flash && cuda_flash_add(be, &d->flash, s, i, group))
			nothing_to_merge(d, s);
		else if (goes_whole(be, s, group) || parts > d->room_parts - d->parts)
			divide_whole(d, s, i, s->n_rows * group);
		else
			divide_split(d, s, i, s->n_rows * group);
	}
}

/* The most units that any division of this batch has. */
static void count_units(const struct wk_backend *be, uint32_t group, size_t *ret_whole,
			size_t *ret_split)
{
	*ret_whole = *ret_split = 0;
	for (uint32_t i = 0; i < be->batch.n_seqs; i++) {
		const struct wk_seq *s = &be->seqs[i];
		uint64_t parts = (uint64_t)cuts_of(s) * s->n_rows;

		*ret_whole += cuda_div_up(s->n_rows * group, WHOLE_PAIRS);
		if (!goes_whole(be, s, group) && parts <= be->part_rows)
			*ret_split +=
				(size_t)cuda_div_up(s->n_rows * group, SPLIT_PAIRS) * cuts_of(s);
	}
}

/* Places in the units' buffer: counts, rows to merge, units. They follow from the number of rows,
 * unless groups of more than 32 heads make more whole units than rows. */
static int lay_out_units(struct wk_backend *be, size_t whole, size_t split)
{
	struct cuda_layout *at = &be->at;
	size_t rows = be->batch.n_rows, most = whole > rows ? whole : rows, need;

	at->n_units = 0;
	at->flash_counts = 128;
	at->merge = 256;
	at->whole = at->merge + rows * sizeof(struct ka_merge);
	at->flash = at->whole + most * sizeof(struct ka_whole);
	at->gathered = at->flash + (be->flashed ? most * sizeof(struct ka_whole) : 0);
	at->split = at->gathered + (be->flashed ? rows * sizeof(struct ka_gathered) : 0);
	at->split = (at->split + 15) / 16 * 16;
	at->units_bytes = at->split + split * sizeof(struct ka_split);
	need = at->units_bytes > FIRST_BYTES ? at->units_bytes : FIRST_BYTES;
	if (cuda_shared_reserve(be, &be->slots[be->slot].units, need))
		return be->sticky ? be->sticky : -ENOMEM;
	return cuda_reserve(be, &be->units, need);
}

static int upload_units(struct wk_backend *be, uint32_t group)
{
	size_t whole, split;
	struct division d = {.room_parts = be->part_rows};
	uint32_t *counts;
	char *to;
	int r;

	count_units(be, group, &whole, &split);
	r = lay_out_units(be, whole, split);
	if (r)
		return r;
	to = be->slots[be->slot].units.host;
	d.whole = (struct ka_whole *)(to + be->at.whole);
	d.split = (struct ka_split *)(to + be->at.split);
	d.merge = (struct ka_merge *)(to + be->at.merge);
	d.flash.units = (struct ka_whole *)(to + be->at.flash);
	d.flash.gathered = (struct ka_gathered *)(to + be->at.gathered);
	divide(be, group, &d);
	cuda_flash_sort(be, &d.flash);
	counts = (uint32_t *)to;
	counts[0] = be->n_whole = d.n_whole;
	counts[1] = be->n_split = d.n_split;
	memcpy(to + be->at.flash_counts, &d.flash.counts, sizeof(d.flash.counts));
	be->n_flash = d.flash.counts.n_units;
	be->group = group;
	return cu_ok(be, copy_to, "uploading attention's units", be->units->at, to,
		     d.n_split ? be->at.units_bytes : be->at.split, be->stream);
}

static int prepare(struct wk_backend *be, const struct wk_attention *op)
{
	uint32_t group = op->n_heads / be->kv.n_kv_heads;
	bool flashed = cuda_flash_fits(be, op);
	int r;

	if (be->group == group && be->flashed == flashed)
		return 0;
	/* Another division of the same batch: what was noted needs the first one. */
	if (be->group)
		cuda_flush(be);
	be->flashed = flashed;
	r = reserve_parts(be, op->n_heads);
	r = r || !flashed ? r : cuda_flash_reserve(be);
	be->flashed = be->flashed && be->flash;
	if (!r && be->group)
		r = cuda_drain(be); /* the slot's units may be on their way */
	r = r ? r : upload_units(be, group);
	if (r)
		cuda_stick_last(be, r);
	return r;
}

/* --- attention ---------------------------------------------------------------------------------------*/

static uint32_t tile_bytes(int size)
{
	return 32 * ((sizes[size].dim * 2 + 16) + (sizes[size].v_dim * 2 + 16));
}

static void run_whole(struct wk_backend *be, struct ka_attn a, int size)
{
	uint32_t bytes = 2 * tile_bytes(size);

	a.n_units = device(be->units->at + be->at.n_units);
	a.units = device(be->units->at + be->at.whole);
	/* Two blocks on a multiprocessor hide each other's waits; registers allow no more. */
	cuda_launch(be, sizes[size].whole, 2 * (uint32_t)be->multiprocessors, 1, 128, bytes, &a,
		    sizeof(a));
}

static void run_split(struct wk_backend *be, const struct wk_attention *op, struct ka_attn a,
		      int size)
{
	struct ka_attn_merge m = {.rows = device(be->units->at + be->at.merge),
				  .part = a.part,
				  .part_ml = a.part_ml,
				  .x = a.x,
				  .n_heads = op->n_heads,
				  .dim = a.dim,
				  .dim_pad = a.dim_pad,
				  .x_stride = op->x_stride,
				  .window = op->window};
	uint32_t warps = SPLIT_WARPS, bytes = 2 * tile_bytes(size);

	a.n_units = device(be->units->at + be->at.n_units + sizeof(uint32_t));
	a.units = device(be->units->at + be->at.split);
	while (warps > 1 && warps * bytes > be->shared_bytes)
		warps--;
	cuda_launch(be, sizes[size].split, (uint32_t)be->multiprocessors, 1, 32 * warps,
		    warps * bytes, &a, sizeof(a));
	cuda_launch(be, K_wk_attn_merge, be->batch.n_rows, op->n_heads, (a.dim + 31) / 32 * 32, 0,
		    &m, sizeof(m));
}

void cuda_attention(struct wk_backend *be, const struct wk_attention *op)
{
	int size = size_of(be->kv.head_dim);
	struct ka_attn a = {.q = device(op->q->at),
			    .pool = device(op->pool->at),
			    .x = device(op->x->at),
			    .seqs = device(be->arrays->at + be->at.seqs),
			    .table = device(be->arrays->at + be->at.table),
			    .block_bytes = be->block_bytes,
			    .layer_offset = op->layer * 2 * half_layer_bytes(&be->kv),
			    .n_heads = op->n_heads,
			    .n_kv = be->kv.n_kv_heads,
			    .dim = be->kv.head_dim,
			    .dim_pad = dim_pad(&be->kv),
			    .q_stride = op->q_stride,
			    .x_stride = op->x_stride,
			    .window = op->window,
			    .scale = op->scale * CUDA_LOG2E};

	if (layer_wrong(be, "attention", op->layer, op->n_heads) || prepare(be, op))
		return;
	if (op->q_stride % 2 || op->x_stride % 2) {
		cuda_stick(be, EINVAL, "attention: rows %u and %u apart are not aligned",
			   op->q_stride, op->x_stride);
		return;
	}
	a.part = device(be->part->at);
	a.part_ml = device(be->part_ml->at);
	if (be->n_flash)
		cuda_flash_run(be, &a);
	if (be->n_whole)
		run_whole(be, a, size);
	if (be->n_split)
		run_split(be, op, a, size);
}
