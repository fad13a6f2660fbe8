/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weight.c - weights from a file's rows into panels (see struct wk_weight), and rows back out.
 *
 * Packing goes by 16 outputs x 512 inputs: these are copied (rounded to bf16 if need be) into the
 * thread's scratch, checked for NaN and Inf on the way, and from there turned, four rows by four
 * pairs at a time, into 64-byte lines of a panel. Reading whole stretches of each row and turning
 * inside the first-level cache keeps it near the speed of memory with plain SSE2.
 *
 * A weight is written by whoever packs it and constant from then on.
 */
#include "kernels/cpu/cpu.h"

#include <emmintrin.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#define GROUP	 16u  /* outputs turned together: one line of the panel */
#define SLAB	 512u /* inputs turned together */
#define MAX_DIM	 (1u << 24)
#define NO_FAULT UINT64_MAX

struct job {
	struct wk_backend *be;
	struct wk_weight *w;
	const struct wk_weight_part *parts;
	uint32_t n_parts;
	_Atomic uint64_t fault; /* least output << 32 | input with a NaN or Inf, or NO_FAULT */
};

/* --- reading rows --------------------------------------------------------------------------------*/

static float f16_float(uint16_t v)
{
	uint32_t sign = (uint32_t)(v & 0x8000) << 16, exp = v >> 10 & 31, man = v & 0x3ff, bits;
	float f;

	if (!exp) { /* zero or denormal: man * 2^-24 is exact */
		f = (float)man * 0x1p-24f;
		return sign ? -f : f;
	}
	bits = sign | (exp == 31 ? 0x7f800000u : (exp + 112) << 23) | man << 13;
	memcpy(&f, &bits, sizeof(f));
	return f;
}

/* n elements from element `at` of a part's data, which may be unaligned, as bf16. */
static void read_bf16(uint16_t *dst, const struct wk_weight_part *part, size_t at, uint32_t n)
{
	const char *src = part->data;
	uint16_t half;
	float f;

	switch (part->dtype) {
	case WK_BF16:
		memcpy(dst, src + at * 2, (size_t)n * 2);
		break;
	case WK_F32:
		for (uint32_t i = 0; i < n; i++) {
			memcpy(&f, src + (at + i) * 4, 4);
			dst[i] = wk_bf16_round(f);
		}
		break;
	case WK_F16:
		for (uint32_t i = 0; i < n; i++) {
			memcpy(&half, src + (at + i) * 2, 2);
			dst[i] = wk_bf16_round(f16_float(half));
		}
		break;
	}
}

/* Output `row` of the stacked parts. */
static const struct wk_weight_part *find_part(const struct job *j, uint32_t row, uint32_t *ret_row)
{
	const struct wk_weight_part *p = j->parts;

	while (row >= p->n)
		row -= p++->n;
	*ret_row = row;
	return p;
}

/* Which stacked output stands in a column of a panel; false where the panel is padding. */
static bool panel_output(const struct wk_weight *w, uint32_t panel, uint32_t col, uint32_t *ret)
{
	uint32_t half = WK_CPU_PANEL / 2, out;

	if (!w->gate_up) {
		*ret = panel * WK_CPU_PANEL + col;
		return *ret < w->n;
	}
	out = panel * half + col % half;
	*ret = col < half ? out : w->n / 2 + out;
	return out < w->n / 2;
}

static void note_fault(struct job *j, uint32_t output, uint32_t input)
{
	uint64_t mine = (uint64_t)output << 32 | input;
	uint64_t least = atomic_load_explicit(&j->fault, memory_order_relaxed);

	while (mine < least &&
	       !atomic_compare_exchange_weak_explicit(&j->fault, &least, mine, memory_order_relaxed,
						      memory_order_relaxed))
		;
}

static void check_finite(struct job *j, const uint16_t *v, uint32_t n, uint32_t output,
			 uint32_t input)
{
	uint32_t bad = 0;

	for (uint32_t i = 0; i < n; i++)
		bad |= (v[i] & 0x7f80) == 0x7f80;
	for (uint32_t i = 0; bad && i < n; i++) {
		if ((v[i] & 0x7f80) == 0x7f80) {
			note_fault(j, output, input + i);
			return;
		}
	}
}

/* --- turning -------------------------------------------------------------------------------------*/

/* Four rows x four pairs: dst[pair][row]. The slab's rows are SLAB elements apart. */
static inline void turn4(uint16_t *dst, const uint16_t *slab)
{
	__m128i r0 = _mm_load_si128((const void *)slab);
	__m128i r1 = _mm_load_si128((const void *)(slab + SLAB));
	__m128i r2 = _mm_load_si128((const void *)(slab + 2 * SLAB));
	__m128i r3 = _mm_load_si128((const void *)(slab + 3 * SLAB));
	__m128i a = _mm_unpacklo_epi32(r0, r1), b = _mm_unpacklo_epi32(r2, r3);
	__m128i c = _mm_unpackhi_epi32(r0, r1), d = _mm_unpackhi_epi32(r2, r3);

	_mm_store_si128((void *)dst, _mm_unpacklo_epi64(a, b));
	_mm_store_si128((void *)(dst + 2 * WK_CPU_PANEL), _mm_unpackhi_epi64(a, b));
	_mm_store_si128((void *)(dst + 4 * WK_CPU_PANEL), _mm_unpacklo_epi64(c, d));
	_mm_store_si128((void *)(dst + 6 * WK_CPU_PANEL), _mm_unpackhi_epi64(c, d));
}

static void turn_slab(uint16_t *dst, const uint16_t *slab, uint32_t pairs)
{
	uint32_t i;

	for (i = 0; i + 4 <= pairs; i += 4)
		for (uint32_t r = 0; r < GROUP; r += 4)
			turn4(dst + (size_t)i * 2 * WK_CPU_PANEL + 2 * r, slab + r * SLAB + 2 * i);
	for (; i < pairs; i++)
		for (uint32_t r = 0; r < GROUP; r++)
			memcpy(dst + (size_t)i * 2 * WK_CPU_PANEL + 2 * r, slab + r * SLAB + 2 * i,
			       4);
}

/* A chunk is one panel. */
static void pack_chunk(void *arg, uint32_t panel, uint32_t thread)
{
	struct job *j = arg;
	struct wk_weight *w = j->w;
	uint16_t *slab = wk_pool_scratch(j->be->pool, thread);
	uint16_t *dst = w->data + (size_t)panel * w->pairs * 2 * WK_CPU_PANEL;

	for (uint32_t c = 0; c < WK_CPU_PANEL; c += GROUP) {
		for (uint32_t k = 0; k < w->k; k += SLAB) {
			uint32_t n = w->k - k < SLAB ? w->k - k : SLAB;

			for (uint32_t r = 0; r < GROUP; r++) {
				uint16_t *to = slab + r * SLAB;
				uint32_t out, row;
				const struct wk_weight_part *part;

				if (!panel_output(w, panel, c + r, &out)) {
					memset(to, 0, SLAB * 2);
					continue;
				}
				part = find_part(j, out, &row);
				read_bf16(to, part, (size_t)row * w->k + k, n);
				check_finite(j, to, n, out, k);
				if (n % 2)
					to[n] = 0;
			}
			turn_slab(dst + (size_t)k * WK_CPU_PANEL + 2 * c, slab, (n + 1) / 2);
		}
	}
}

/* --- the operations ------------------------------------------------------------------------------*/

/* Room for WK_MAX_ROWS packed rows of x as wide as this weight wants. */
static int reserve_x(struct wk_backend *be, const struct wk_weight *w)
{
	size_t bytes = (size_t)WK_MAX_ROWS * w->pairs * be->kern->x_pair_bytes;
	void *p;

	if (bytes <= be->x_packed_bytes)
		return 0;
	p = wk_cpu_alloc(bytes);
	if (!p)
		return wk_cpu_fail(be, ENOMEM, "no memory for %zu bytes of packed rows", bytes);
	wk_cpu_release(be->x_packed, be->x_packed_bytes);
	be->x_packed = p;
	be->x_packed_bytes = bytes;
	return 0;
}

static int check_parts(struct wk_backend *be, const struct wk_weight_part *parts, uint32_t n_parts,
		       uint32_t k, enum wk_pack pack, uint32_t *ret_n)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < n_parts; i++) {
		if ((unsigned)parts[i].dtype > WK_F16 || !parts[i].data)
			return wk_cpu_fail(be, EINVAL, "weight part %u: no data or unknown type",
					   i);
		n += parts[i].n;
	}
	if (!k || k > MAX_DIM || !n || n > MAX_DIM)
		return wk_cpu_fail(be, EINVAL, "weight of %llu x %u: not a size that is supported",
				   (unsigned long long)n, k);
	if (pack == WK_PACK_GATE_UP && (n_parts != 2 || parts[0].n != parts[1].n))
		return wk_cpu_fail(be, EINVAL, "gate and up must be two parts of one size");
	*ret_n = (uint32_t)n;
	return 0;
}

static int report_fault(struct job *j)
{
	uint64_t fault = atomic_load_explicit(&j->fault, memory_order_relaxed);
	uint32_t row;
	const struct wk_weight_part *part;

	if (fault == NO_FAULT)
		return 0;
	part = find_part(j, (uint32_t)(fault >> 32), &row);
	return wk_cpu_fail(j->be, EDOM,
			   "weight part %u, row %u, column %u: NaN or infinite in bf16",
			   (uint32_t)(part - j->parts), row, (uint32_t)fault);
}

int wk_cpu_weight_new(struct wk_backend *be, const struct wk_weight_part *parts, uint32_t n_parts,
		      uint32_t k, enum wk_pack pack, struct wk_weight **ret)
{
	struct job j = {.be = be, .parts = parts, .n_parts = n_parts, .fault = NO_FAULT};
	struct wk_weight *w;
	uint32_t n = 0, cols;
	int err = check_parts(be, parts, n_parts, k, pack, &n);

	if (err)
		return err;
	w = calloc(1, sizeof(*w));
	if (!w)
		return wk_cpu_fail(be, ENOMEM, "no memory for a weight");
	w->n = n;
	w->k = k;
	w->pairs = (k + 1) / 2;
	w->gate_up = pack == WK_PACK_GATE_UP;
	cols = w->gate_up ? n / 2 : n;
	w->panels = (cols + (w->gate_up ? 31 : 63)) / (w->gate_up ? 32 : 64);
	w->bytes = (size_t)w->panels * w->pairs * WK_CPU_PANEL * 4;
	w->data = wk_region_take(&be->weights, w->bytes);
	if (!w->data) {
		err = wk_cpu_fail(be, ENOMEM, "no memory for a weight of %zu bytes", w->bytes);
		goto fail;
	}
	err = reserve_x(be, w);
	if (err)
		goto fail;
	j.w = w;
	wk_pool_run(be->pool, pack_chunk, &j, w->panels);
	err = report_fault(&j);
	if (err)
		goto fail;
	if (w->panels > be->most_panels)
		be->most_panels = w->panels;
	*ret = w;
	return 0;
fail:
	wk_cpu_weight_free(be, w);
	return err;
}

void wk_cpu_weight_free(struct wk_backend *be, struct wk_weight *w)
{
	if (!w)
		return;
	wk_region_give(&be->weights, w->data);
	free(w);
}

size_t wk_cpu_weight_bytes(const struct wk_weight *w)
{
	return w->bytes;
}

/* --- embed ---------------------------------------------------------------------------------------*/

struct embed {
	struct wk_backend *be;
	const struct wk_weight *table;
	float *h;
	size_t stride;
	float scale;
};

/* A chunk is one row: an output's pairs lie 256 bytes apart in its panel. */
static void embed_chunk(void *arg, uint32_t row, uint32_t thread)
{
	const struct embed *e = arg;
	const struct wk_weight *w = e->table;
	uint32_t token = e->be->tokens[row];
	const uint16_t *from = w->data + 2 * (token % WK_CPU_PANEL) +
			       (size_t)(token / WK_CPU_PANEL) * w->pairs * 2 * WK_CPU_PANEL;
	float *h = e->h + row * e->stride;

	for (uint32_t i = 0; i < w->k; i++)
		h[i] = e->scale * wk_bf16_float(from[(size_t)(i / 2) * 2 * WK_CPU_PANEL + i % 2]);
}

void wk_cpu_embed(struct wk_backend *be, const struct wk_weight *table, struct wk_buf *h,
		  uint32_t h_stride, float scale)
{
	struct embed e = {be, table, h->host, h_stride, scale};
	uint32_t rows = be->batch.n_rows;

	if (!rows)
		return;
	if (table->gate_up ||
	    ((size_t)(rows - 1) * h_stride + table->k) * sizeof(float) > h->bytes) {
		wk_cpu_stick(be, EINVAL, "embed: wrong packing, or h is too small");
		return;
	}
	for (uint32_t r = 0; r < rows; r++) {
		if (be->tokens[r] >= table->n) {
			wk_cpu_stick(be, EINVAL, "embed: row %u has token %u of %u", r,
				     be->tokens[r], table->n);
			return;
		}
	}
	wk_pool_run(be->pool, embed_chunk, &e, rows);
}
