/* SPDX-License-Identifier: Apache-2.0 */
/*
 * linear.c - weights, embedding, norm and matrix products.
 *
 * A weight is bf16 [n][k], rows padded with zeros to 16 bytes; nothing else is packed, since both
 * cuBLASLt and our own kernels take it as it is. It is written once, before anyone else has its address, and
 * constant until the device is idle and it is given back: kernels rely on that (device.cuh).
 *
 * Products of few rows go to our own kernel, which reads weights before the launch before it has ended; the
 * others to cuBLASLt.
 *
 * A product: s of the adapters' rows first, from x as it is now; then scale * (x w + bias) into out,
 * or onto it; then the adapters' B s onto that. SwiGLU goes through a buffer that gates and ups share, in
 * fp32, since the adapters add to it before the activation; without adapters the library leaves bf16.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/convert.h"
#include "kernels/cuda/cuda.h"

#define MAX_DIM	 (1u << 24)
#define FEW_ROWS 16u /* of a product that is bound by the weights' bytes: our own kernel */

/* --- weights -----------------------------------------------------------------------------------------*/

struct source {
	struct wk_backend *be;
	const struct wk_weight *w;
	const struct wk_weight_part *parts;
};

static void row_to_bf16(uint16_t *dst, const struct wk_weight_part *part, size_t at, uint32_t n)
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
			dst[i] = wk_f32_to_bf16(f);
		}
		break;
	case WK_F16:
		for (uint32_t i = 0; i < n; i++) {
			memcpy(&half, src + (at + i) * 2, 2);
			dst[i] = wk_f32_to_bf16(wk_f16_to_f32(half));
		}
		break;
	}
}

/* First column with a NaN or Inf; n: none. */
static uint32_t not_finite(const uint16_t *v, uint32_t n)
{
	uint32_t bad = 0, i = 0;

	for (uint32_t j = 0; j < n; j++)
		bad |= (v[j] & 0x7f80) == 0x7f80;
	if (!bad)
		return n;
	while ((v[i] & 0x7f80) != 0x7f80)
		i++;
	return i;
}

static int fill_rows(void *arg, size_t off, void *dst, size_t bytes)
{
	const struct source *s = arg;
	size_t row_bytes = (size_t)s->w->k_stride * 2;
	uint32_t row = (uint32_t)(off / row_bytes), k = s->w->k, part = 0;

	while (row >= s->parts[part].n)
		row -= s->parts[part++].n;
	for (size_t at = 0; at < bytes; at += row_bytes, row++) {
		uint16_t *to = (uint16_t *)((char *)dst + at);
		uint32_t bad;

		for (; row == s->parts[part].n; part++)
			row = 0;
		row_to_bf16(to, &s->parts[part], (size_t)row * k, k);
		memset(to + k, 0, row_bytes - (size_t)k * 2);
		bad = not_finite(to, k);
		if (bad < k)
			return cuda_fail(s->be, EDOM, "part %u, row %u, column %u: not finite",
					 part, row, bad);
	}
	return 0;
}

int cuda_weight_new(struct wk_backend *be, const struct wk_weight_part *parts, uint32_t n_parts,
		    uint32_t k, enum wk_pack pack, struct wk_weight **ret)
{
	struct source s = {be, NULL, parts};
	uint64_t n = 0, row_bytes;
	struct wk_weight *w;
	int r;

	for (uint32_t i = 0; i < n_parts; i++)
		n += parts[i].n;
	if (!n || !k || n > MAX_DIM || k > MAX_DIM)
		return cuda_fail(be, EINVAL, "a weight of %llu x %u", (unsigned long long)n, k);
	if (pack == WK_PACK_GATE_UP && (n_parts != 2 || parts[0].n != parts[1].n))
		return cuda_fail(be, EINVAL, "gate and up must be two parts of equal size");
	w = calloc(1, sizeof(*w));
	if (!w)
		return cuda_fail(be, ENOMEM, "no memory for a weight's description");
	w->n = (uint32_t)n;
	w->k = k;
	w->k_stride = (k + 7) & ~7u;
	w->n_gate = pack == WK_PACK_GATE_UP ? parts[0].n : 0;
	row_bytes = (uint64_t)w->k_stride * 2;
	s.w = w;
	r = cuda_buf_new(be, n * row_bytes, &w->data);
	r = r ? r : cuda_upload(be, w->data->at, n * row_bytes, row_bytes, fill_rows, &s);
	if (r) {
		cuda_weight_free(be, w);
		return r;
	}
	*ret = w;
	return 0;
}

void cuda_weight_free(struct wk_backend *be, struct wk_weight *w)
{
	if (!w)
		return;
	cuda_buf_free(be, w->data);
	free(w);
}

size_t cuda_weight_bytes(const struct wk_weight *w)
{
	return (size_t)w->n * w->k_stride * 2;
}

/* --- rows --------------------------------------------------------------------------------------------*/

static void *device(cu_ptr p)
{
	return (void *)(uintptr_t)p;
}

void cuda_embed(struct wk_backend *be, const struct wk_weight *table, struct wk_buf *h,
		uint32_t h_stride, float scale)
{
	struct ka_embed a = {.tokens = device(be->arrays->at + be->at.tokens),
			     .drawn = device(be->drawn->at),
			     .table = device(table->data->at),
			     .h = device(h->at),
			     .k = table->k,
			     .k_stride = table->k_stride,
			     .h_stride = h_stride,
			     .scale = scale};

	if (be->max_token >= table->n) {
		cuda_stick(be, EINVAL, "embed: token %u beyond the vocabulary", be->max_token);
		return;
	}
	cuda_launch(be, K_wk_embed, be->batch.n_rows, 1, 256, 0, &a, sizeof(a));
}

void cuda_norm(struct wk_backend *be, const struct wk_norm *op)
{
	struct ka_norm a = {.h = device(op->h->at),
			    .weight = device(op->weight->at),
			    .x = device(op->x->at),
			    .dim = op->dim,
			    .h_stride = op->h_stride,
			    .x_stride = op->x_stride,
			    .eps = op->eps};

	if (!op->n_rows)
		return;
	if (op->n_rows > (op->out_rows_only ? be->batch.n_out : WK_MOST_ROWS)) {
		cuda_stick(be, EINVAL, "norm: %u rows are more than the batch has", op->n_rows);
		return;
	}
	if (op->h_stride % 4 || op->x_stride % 4) {
		cuda_stick(be, EINVAL, "norm: rows %u and %u apart are not aligned", op->h_stride,
			   op->x_stride);
		return;
	}
	if (op->out_rows_only)
		a.rows = device(be->arrays->at + be->at.out_rows);
	cuda_launch(be, K_wk_norm, op->n_rows, 1, 256, 0, &a, sizeof(a));
}

/* --- products ----------------------------------------------------------------------------------------*/

/* Shared memory of gemm.cu's tiles: four stages of rows that are 16 bytes longer than their data. */
static const struct {
	enum cuda_kernel kernel;
	uint32_t rows, cols, depth;
} tiles[] = {
	{K_wk_gemm_16, 16, 32, 256},
	{K_wk_gemm_64, 64, 64, 64},
	{K_wk_gemm_128, 128, 128, 32},
};

/*
 * Of a product of few rows, what comes into the cache before the launches before it have ended. While these
 * compute, memory has nothing else to do: some 3 us for a norm, 9 for rotation and attention of one row, in
 * which 13 and 40 MB of weights could come. The buffers of the blocks that begin at once hold 6 to 13 MB, the
 * cache two fifths of itself (20 MB of 50) besides: it is two halves, which may hold the same things
 * twice, and much more would be gone before it is read. By count, not measured. It does not change
 * when a driver turns out to refuse overlap: lists that were seen must come again.
 */
static void fetch_early(const struct wk_backend *be, struct ka_gemm *a, uint32_t cols,
			uint32_t bytes)
{
	uint32_t blocks = cuda_div_up(a->n, cols);
	uint32_t at_once = (uint32_t)be->multiprocessors * (be->shared_bytes / bytes);

	if (!be->fetch_bytes)
		return;
	a->first_blocks = blocks < at_once ? blocks : at_once;
	a->ahead = be->fetch_bytes / (a->first_blocks * cols) & ~15u;
}

static void own_product(struct wk_backend *be, const struct blas_product *p, cu_ptr bias)
{
	struct ka_gemm a = {.x = device(p->x),
			    .w = device(p->w),
			    .out = device(p->out),
			    .bias = device(bias),
			    .m = p->m,
			    .n = p->n,
			    .k = p->k,
			    .x_stride = p->x_stride,
			    .w_stride = p->w_stride,
			    .out_stride = p->out_stride,
			    .scale = p->scale,
			    .add = p->add};
	uint32_t t = p->m <= FEW_ROWS ? 0 : p->m <= 128 ? 1 : 2;
	uint32_t bytes = 4 * (tiles[t].rows + tiles[t].cols) * (tiles[t].depth * 2 + 16);

	if (p->m <= FEW_ROWS)
		fetch_early(be, &a, tiles[t].cols, bytes);
	cuda_launch(be, tiles[t].kernel, cuda_div_up(p->n, tiles[t].cols),
		    cuda_div_up(p->m, tiles[t].rows), 128, bytes, &a, sizeof(a));
}

static bool by_library(const struct wk_backend *be, const struct blas_product *p)
{
	return be->blas && !(be->small && p->m <= FEW_ROWS) && blas_takes(be->blas, p);
}

/* scale * (x w + bias) for outputs first .. first + p->n - 1 of a weight. */
static void product(struct wk_backend *be, struct blas_product *p, cu_ptr bias)
{
	struct ka_bias_add a = {.out = device(p->out),
				.bias = device(bias),
				.n = p->n,
				.out_stride = p->out_stride,
				.scale = p->scale};

	if (!by_library(be, p)) {
		own_product(be, p, bias);
		return;
	}
	cuda_product(be, p);
	if (bias)
		cuda_launch(be, K_wk_bias_add, cuda_div_up(p->n, 256), p->m, 256, 0, &a, sizeof(a));
}

static struct blas_product describe(const struct wk_matmul *op, uint32_t first, uint32_t n)
{
	const struct wk_weight *w = op->w;

	return (struct blas_product){.x = op->x->at,
				     .w = w->data->at + (uint64_t)first * w->k_stride * 2,
				     .out = op->out->at,
				     .m = op->n_rows,
				     .n = n,
				     .k = w->k,
				     .x_stride = op->x_stride,
				     .w_stride = w->k_stride,
				     .out_stride = op->out_stride,
				     .scale = op->scale,
				     .add = op->epilogue == WK_EPI_ADD};
}

/* Gates and ups may be rounded to bf16: half the bytes, which in a long prompt's pass of an 8B model are those
 * of all other activations together. Then nothing can be added to them, so there is no adapter; and the rows
 * of x must lie for 16 bytes at a time. */
static bool half_will_do(const struct wk_backend *be, const struct wk_matmul *op,
			 const struct blas_product *p)
{
	struct blas_product half = *p;

	half.half = 1;
	return p->n % 16 == 0 && op->out_stride % 8 == 0 && op->out->at % 16 == 0 &&
	       by_library(be, &half);
}

/* Gates and ups of n outputs, then their activation to x. */
static void swiglu(struct wk_backend *be, const struct wk_matmul *op, uint32_t n, bool lora)
{
	uint32_t n_gate = op->w->n_gate, both = op->col || n != n_gate ? 0 : 2 * n;
	struct blas_product p = describe(op, op->col, both ? both : n);
	struct ka_swiglu a = {.x = device(op->out->at), .n = n, .x_stride = op->out_stride};
	cu_ptr up;

	if (cuda_reserve(be, &be->glu, (size_t)WK_MOST_ROWS * 2 * n_gate * sizeof(float)))
		return;
	up = be->glu->at + (size_t)n * sizeof(float);
	p.out = be->glu->at;
	p.out_stride = 2 * n;
	p.scale = 1;
	a.y = device(be->glu->at);
	p.half = a.half = both && !lora && half_will_do(be, op, &p);
	product(be, &p, 0);
	if (!both) {
		struct blas_product ups = describe(op, n_gate + op->col, n);

		ups.out = up;
		ups.out_stride = 2 * n;
		ups.scale = 1;
		product(be, &ups, 0);
	}
	if (lora && both) {
		cuda_lora_expand(be, op, 0, both, be->glu->at, both, 1);
	} else if (lora) {
		cuda_lora_expand(be, op, op->col, n, be->glu->at, 2 * n, 1);
		cuda_lora_expand(be, op, n_gate + op->col, n, up, 2 * n, 1);
	}
	cuda_launch(be, K_wk_swiglu, cuda_div_up(n, a.half ? 2048 : 1024), op->n_rows, 256, 0, &a,
		    sizeof(a));
}

void cuda_matmul(struct wk_backend *be, const struct wk_matmul *op)
{
	const struct wk_weight *w = op->w;
	bool glu = op->epilogue == WK_EPI_SWIGLU, lora;
	uint32_t n_total = glu ? w->n_gate : w->n, n = op->n_cols ? op->n_cols : n_total - op->col;
	struct blas_product p;

	if (op->col > n_total || n > n_total - op->col || glu != (w->n_gate != 0)) {
		cuda_stick(be, EINVAL, "matmul: columns or epilogue do not fit the weight");
		return;
	}
	if (op->n_rows > WK_MOST_ROWS || op->x_stride % 8) {
		cuda_stick(be, EINVAL, "matmul: %u rows, %u elements apart", op->n_rows,
			   op->x_stride);
		return;
	}
	if (!op->n_rows || !n || be->sticky)
		return;
	lora = cuda_lora_applies(be, op);
	if (be->sticky)
		return;
	if (lora)
		cuda_lora_shrink(be, op);
	if (glu) {
		swiglu(be, op, n, lora);
		return;
	}
	p = describe(op, op->col, n);
	product(be, &p, op->bias ? op->bias->at + (uint64_t)op->col * sizeof(float) : 0);
	if (lora)
		cuda_lora_expand(be, op, op->col, n, op->out->at, op->out_stride, op->scale);
}
