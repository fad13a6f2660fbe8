/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flash.c - attention of long prompts with the instructions of compute capability 9.0: when, and where.
 *
 * A sequence goes this way if the device has the instructions, the head size is one that flash.cu has,
 * its rows make a whole unit, those that do fill half of the device together (the other way is less
 * than half as fast), and there is room for its keys and values in be->tiles: whoever comes later in the
 * batch and finds none goes as on other devices. The room is for all that the pool can hold, up to
 * TILES_BYTES, and is made at the first attention; a device that has not so much free goes without.
 * Deterministic mode has one arithmetic, and this is another. For tests WEFT_CUDA_FLASH=2 sends every
 * sequence of more than one row this way.
 *
 * When a backend is opened the kernels compute a made-up problem, which a formula in double computes
 * too: 33 rows at the end of 300 keys in scattered blocks, two KV heads of four queries each, all by one
 * thread block, so that stages are used again and again. What differs is not used, and the backend
 * says so; so is what ends with an error, in a context that is then left, or in a process that is.
 */
#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/convert.h"
#include "kernels/cuda/cuda.h"

#define CAPABILITY  90
#define TILES_BYTES ((size_t)512 << 20) /* 131,072 tokens of eight KV heads of 128 */
#define UNIT_PAIRS  128u
#define THREADS	    384
#define STAGES	    2

static void *device(cu_ptr p)
{
	return (void *)(uintptr_t)p;
}

static uint32_t tile_bytes(uint32_t n_kv, uint32_t dim)
{
	return n_kv * 2 * KA_FLASH * dim * (uint32_t)sizeof(uint16_t);
}

/* Queries and stages of K and V; barriers; and to align all of it. */
static uint32_t shared_bytes(uint32_t dim)
{
	return (UNIT_PAIRS + STAGES * 2 * KA_FLASH) * dim * (uint32_t)sizeof(uint16_t) +
	       4 * STAGES * (uint32_t)sizeof(uint64_t) + 1024;
}

static bool has_kernel(uint32_t dim)
{
	return dim == 64 || dim == 128;
}

static void launch(struct wk_backend *be, uint32_t dim, uint32_t blocks, const struct ka_gather *g,
		   const struct ka_flash *f)
{
	cuda_launch(be, K_wk_flash_gather, 8 * blocks, 1, 128, 0, g, sizeof(*g));
	cuda_launch(be, dim == 64 ? K_wk_flash_64 : K_wk_flash_128, blocks, 1, THREADS,
		    shared_bytes(dim), f, sizeof(*f));
}

/* --- a step ------------------------------------------------------------------------------------------*/

bool cuda_flash_fits(const struct wk_backend *be, const struct wk_attention *op)
{
	return be->flash && has_kernel(be->kv.head_dim) && op->scale > 0 && op->q_stride % 8 == 0 &&
	       op->q->at % 16 == 0;
}

int cuda_flash_reserve(struct wk_backend *be)
{
	size_t tile = tile_bytes(be->kv.n_kv_heads, be->kv.head_dim);
	/* Each sequence may leave a part of its last tile empty. */
	size_t tiles = (size_t)be->n_blocks * WK_BLOCK_TOKENS / KA_FLASH + 64;
	int r;

	if (tiles > TILES_BYTES / tile)
		tiles = TILES_BYTES / tile;
	be->tiles_room = (uint32_t)tiles;
	if (be->tiles && be->tiles->bytes >= tiles * tile)
		return 0;
	cuda_flush(be);
	cuda_buf_free(be, be->tiles);
	be->tiles = NULL;
	r = cuda_buf_new(be, tiles * tile, &be->tiles);
	if (r != -ENOMEM || be->sticky)
		return r;
	be->flash = false;
	return 0;
}

static bool makes_units(const struct wk_backend *be, const struct wk_seq *s, uint32_t group)
{
	return s->n_rows > 1 && (be->flash_all || s->n_rows * group >= UNIT_PAIRS);
}

bool cuda_flash_fills(const struct wk_backend *be, uint32_t group)
{
	uint32_t blocks = 0;

	for (uint32_t i = 0; i < be->batch.n_seqs; i++)
		if (makes_units(be, &be->seqs[i], group))
			blocks += cuda_div_up(be->seqs[i].n_rows * group, UNIT_PAIRS) *
				  be->kv.n_kv_heads;
	return be->flash_all || 2 * blocks >= (uint32_t)be->multiprocessors;
}

bool cuda_flash_add(const struct wk_backend *be, struct cuda_flash_division *d,
		    const struct wk_seq *s, uint32_t index, uint32_t group)
{
	uint32_t tiles = cuda_div_up(s->pos + s->n_rows, KA_FLASH);
	uint32_t units = cuda_div_up(s->n_rows * group, UNIT_PAIRS);

	if (!makes_units(be, s, group) || tiles > be->tiles_room - d->counts.n_tiles)
		return false;
	/* What sees most comes first. */
	for (uint32_t i = units; i--;)
		d->units[d->counts.n_units++] = (struct ka_whole){d->counts.n_seqs, i * UNIT_PAIRS};
	d->gathered[d->counts.n_seqs++] = (struct ka_gathered){index, d->counts.n_tiles};
	d->counts.n_tiles += tiles;
	return true;
}

struct order {
	const struct wk_seq *seqs;
	const struct ka_gathered *gathered;
};

static uint32_t position(const struct order *o, const struct ka_whole *u)
{
	const struct wk_seq *s = &o->seqs[o->gathered[u->seq].seq];

	/* Pairs of a group stand for one row; for an order the pair is as good. */
	return s->pos + u->pair;
}

static int later_first(const void *a, const void *b, void *order)
{
	uint32_t x = position(order, a), y = position(order, b);

	return x < y ? 1 : x > y ? -1 : 0;
}

void cuda_flash_sort(const struct wk_backend *be, struct cuda_flash_division *d)
{
	struct order o = {be->seqs, d->gathered};

	if (d->counts.n_seqs > 1)
		qsort_r(d->units, d->counts.n_units, sizeof(*d->units), later_first, &o);
}

void cuda_flash_run(struct wk_backend *be, const struct ka_attn *a)
{
	const char *units = device(be->units->at);
	struct ka_gather g = {.pool = a->pool,
			      .tiles = device(be->tiles->at),
			      .seqs = a->seqs,
			      .table = a->table,
			      .gathered = (const void *)(units + be->at.gathered),
			      .counts = (const void *)(units + be->at.flash_counts),
			      .block_bytes = a->block_bytes,
			      .layer_offset = a->layer_offset,
			      .n_kv = a->n_kv,
			      .dim = a->dim,
			      .window = a->window};
	struct ka_flash f = {.q = a->q,
			     .x = a->x,
			     .tiles = g.tiles,
			     .seqs = a->seqs,
			     .gathered = g.gathered,
			     .units = (const void *)(units + be->at.flash),
			     .counts = g.counts,
			     .n_heads = a->n_heads,
			     .n_kv = a->n_kv,
			     .q_stride = a->q_stride,
			     .x_stride = a->x_stride,
			     .window = a->window,
			     .scale = a->scale};

	launch(be, a->dim, (uint32_t)be->multiprocessors, &g, &f);
}

/* --- the check at open -------------------------------------------------------------------------------*/

enum {
	KEYS = 300,
	ROWS = 33,
	POS = KEYS - ROWS,
	KV_HEADS = 2,
	GROUP = 4,
	HEADS = KV_HEADS * GROUP,
	BLOCKS = (KEYS + WK_BLOCK_TOKENS - 1) / WK_BLOCK_TOKENS,
	POOL_BLOCKS = 24, /* more than BLOCKS, and no multiple of the stride that scatters them */
	SCATTER = 7,
	UNITS = (ROWS * GROUP + 127) / 128,
};

/* Probabilities and results are rounded to bf16: each changes a sum of values below 1, with weights
 * that are 1 in all, by 2^-9 at the most. Twice that; what is laid out otherwise differs by tenths. */
#define TOLERANCE (1.0 / 128)

struct problem {
	struct ka_seq seq;
	struct ka_gathered gathered;
	struct ka_flash_counts counts;
	struct ka_whole units[UNITS];
	uint32_t table[BLOCKS];
	_Alignas(16) uint16_t q[ROWS][HEADS * 128]; /* of dim 64: half of each row */
	uint16_t x[ROWS][HEADS * 128];
	uint16_t kv[2][KV_HEADS][KEYS][128];
	_Alignas(16) uint16_t pool[POOL_BLOCKS * 2 * KV_HEADS * WK_BLOCK_TOKENS * 128];
};

/* Numbers in (-1, 1) that bf16 holds. */
static uint16_t made_up(uint32_t *state)
{
	*state = *state * 1664525u + 1013904223u;
	return wk_f32_to_bf16((float)((int)(*state >> 24) - 127) / 128);
}

static void make_up(struct problem *p, uint32_t dim)
{
	uint32_t state = dim;

	p->seq = (struct ka_seq){.row = 0, .n_rows = ROWS, .pos = POS, .table = 0};
	p->counts = (struct ka_flash_counts){1, (KEYS + KA_FLASH - 1) / KA_FLASH, UNITS};
	for (uint32_t i = 0; i < UNITS; i++)
		p->units[i].pair = i * UNIT_PAIRS;
	for (uint32_t i = 0; i < BLOCKS; i++)
		p->table[i] = (i + 1) * SCATTER % POOL_BLOCKS;
	for (uint32_t i = 0; i < ROWS * HEADS * dim; i++)
		p->q[i / (HEADS * dim)][i % (HEADS * dim)] = made_up(&state);
	/* What is not a key of the sequence's is NaN. */
	memset(p->pool, 0xff, sizeof(p->pool));
	for (uint32_t h = 0; h < 2 * KV_HEADS; h++)
		for (uint32_t key = 0; key < KEYS; key++)
			for (uint32_t i = 0; i < dim; i++) {
				size_t head = (size_t)p->table[key / 16] * 2 * KV_HEADS + h;
				uint16_t v = made_up(&state);

				p->kv[h / KV_HEADS][h % KV_HEADS][key][i] = v;
				p->pool[(head * 16 + key % 16) * dim + i] = v;
			}
}

static float scale_of(uint32_t dim)
{
	return 6 / sqrtf((float)dim); /* scores of -4 to 4: a few keys decide each row */
}

/* How far the results of a row and head are from what they should be. */
static double error_of(const struct problem *p, uint32_t dim, uint32_t row, uint32_t head)
{
	const uint16_t *q = &p->q[row][(size_t)head * dim], *x = &p->x[row][(size_t)head * dim];
	double weight[KEYS], sum = 0, worst = 0;
	uint32_t h = head / GROUP;

	for (uint32_t key = 0; key <= POS + row; key++) {
		double s = 0;

		for (uint32_t i = 0; i < dim; i++)
			s += (double)wk_bf16_to_f32(q[i]) * wk_bf16_to_f32(p->kv[0][h][key][i]);
		weight[key] = exp(s * scale_of(dim));
		sum += weight[key];
	}
	for (uint32_t i = 0; i < dim; i++) {
		double want = 0, off;

		for (uint32_t key = 0; key <= POS + row; key++)
			want += weight[key] * wk_bf16_to_f32(p->kv[1][h][key][i]);
		off = fabs(wk_bf16_to_f32(x[i]) - want / sum);
		if (!(off <= worst)) /* a NaN is far off */
			worst = isnan(off) ? INFINITY : off;
	}
	return worst;
}

static double worst_of(const struct problem *p, uint32_t dim)
{
	double worst = 0;

	for (uint32_t row = 0; row < ROWS; row++)
		for (uint32_t head = 0; head < HEADS; head++)
			worst = fmax(worst, error_of(p, dim, row, head));
	return worst;
}

/* Everything in one buffer, the tiles behind it. */
static int compute(struct wk_backend *be, struct problem *p, uint32_t dim)
{
	const size_t tiles = (sizeof(*p) + 255) / 256 * 256;
	struct wk_buf *buf = NULL;
	int r = cuda_buf_new(be, tiles + p->counts.n_tiles * tile_bytes(KV_HEADS, dim), &buf);
	const char *at = r ? NULL : device(buf->at);
	struct ka_gather g = {.pool = (const void *)(at + offsetof(struct problem, pool)),
			      .tiles = (void *)(at + tiles),
			      .seqs = (const void *)(at + offsetof(struct problem, seq)),
			      .table = (const void *)(at + offsetof(struct problem, table)),
			      .gathered = (const void *)(at + offsetof(struct problem, gathered)),
			      .counts = (const void *)(at + offsetof(struct problem, counts)),
			      .block_bytes = 2 * KV_HEADS * WK_BLOCK_TOKENS * dim * 2,
			      .n_kv = KV_HEADS,
			      .dim = dim};
	struct ka_flash f = {.q = (const void *)(at + offsetof(struct problem, q)),
			     .x = (void *)(at + offsetof(struct problem, x)),
			     .tiles = g.tiles,
			     .seqs = g.seqs,
			     .gathered = g.gathered,
			     .units = (const void *)(at + offsetof(struct problem, units)),
			     .counts = g.counts,
			     .n_heads = HEADS,
			     .n_kv = KV_HEADS,
			     .q_stride = HEADS * 128,
			     .x_stride = HEADS * 128,
			     .scale = scale_of(dim) * CUDA_LOG2E};

	r = r ? r : cuda_buf_write(be, buf, 0, p, sizeof(*p));
	if (!r)
		launch(be, dim, 1, &g, &f);
	r = r ? r : be->sticky;
	r = r ? r : cuda_buf_read(be, buf, offsetof(struct problem, x), p->x, sizeof(p->x));
	cuda_buf_free(be, buf);
	return r;
}

/* Remembered behind what else the backend has to do without. */
static void goes_without(struct wk_backend *be, uint32_t dim, double off)
{
	size_t at = strlen(be->error);

	be->flash = false;
	snprintf(be->error + at, sizeof(be->error) - at,
		 "%sattention with wgmma is not used: of heads of %u it is off by %.2g",
		 at ? "; " : "", dim, off);
}

static int check(struct wk_backend *be, uint32_t dim)
{
	struct problem *p = calloc(1, sizeof(*p));
	double off;
	int r;

	if (!p)
		return cuda_fail(be, ENOMEM, "no memory to check attention");
	make_up(p, dim);
	r = compute(be, p, dim);
	off = r ? 0 : worst_of(p, dim);
	if (!(off <= TOLERANCE))
		goes_without(be, dim, off);
	free(p);
	return r;
}

int cuda_flash_open(struct wk_backend *be)
{
	int r;

	be->flash = be->flash && be->capability == CAPABILITY && !be->deterministic &&
		    be->shared_bytes >= shared_bytes(128);
	if (!be->flash)
		return 0;
	be->flash_checking = true;
	r = check(be, 128);
	r = r || !be->flash ? r : check(be, 64);
	be->flash_checking = r != 0;
	return r;
}
