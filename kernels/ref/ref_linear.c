/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ref_linear.c - weights, embedding, norm and matrix products of the reference backend.
 *
 * Weights are widened to fp32 exactly. Sums run in double and are rounded once, so the result is
 * as good as fp32 can say it and does not hang on an order of summation.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/convert.h"
#include "kernels/ref/ref.h"

static float load_element(const struct wk_weight_part *part, size_t i)
{
	const char *p = part->data;
	uint16_t h;
	float f;

	if (part->dtype == WK_F32) {
		memcpy(&f, p + 4 * i, 4);
		return f;
	}
	memcpy(&h, p + 2 * i, 2);
	return part->dtype == WK_BF16 ? wk_bf16_to_f32(h) : wk_f16_to_f32(h);
}

static int load_part(struct wk_backend *be, const struct wk_weight_part *part, uint32_t index,
		     uint32_t k, float *dst)
{
	for (size_t i = 0; i < (size_t)part->n * k; i++) {
		dst[i] = load_element(part, i);
		if (!isfinite(dst[i]))
			return ref_fail(be, -EDOM, "part %u, row %zu, column %zu: not finite",
					index, i / k, i % k);
	}
	return 0;
}

int ref_weight_new(struct wk_backend *be, const struct wk_weight_part *parts, uint32_t n_parts,
		   uint32_t k, enum wk_pack pack, struct wk_weight **ret)
{
	struct wk_weight *w;
	uint32_t n = 0;
	float *dst;
	int r = 0;

	for (uint32_t i = 0; i < n_parts; i++)
		n += parts[i].n;
	if (!n || !k)
		return ref_fail(be, -EINVAL, "an empty weight");
	if (pack == WK_PACK_GATE_UP && (n_parts != 2 || parts[0].n != parts[1].n))
		return ref_fail(be, -EINVAL, "gate and up must be two parts of equal size");
	w = calloc(1, sizeof(*w));
	if (!w)
		return ref_fail(be, -ENOMEM, "out of memory");
	w->n = n;
	w->k = k;
	w->n_gate = pack == WK_PACK_GATE_UP ? parts[0].n : 0;
	dst = w->data = malloc((size_t)n * k * sizeof(float));
	if (!dst)
		r = ref_fail(be, -ENOMEM, "no memory for a weight of %u x %u", n, k);
	for (uint32_t i = 0; !r && i < n_parts; i++) {
		r = load_part(be, &parts[i], i, k, dst);
		dst += (size_t)parts[i].n * k;
	}
	if (r) {
		ref_weight_free(be, w);
		return r;
	}
	*ret = w;
	return 0;
}

void ref_weight_free(struct wk_backend *be, struct wk_weight *w)
{
	if (!w)
		return;
	free(w->data);
	free(w);
}

size_t ref_weight_bytes(const struct wk_weight *w)
{
	return (size_t)w->n * w->k * sizeof(float);
}

void ref_embed(struct wk_backend *be, const struct wk_weight *table, struct wk_buf *h,
	       uint32_t h_stride, float scale)
{
	for (uint32_t r = 0; r < be->batch.n_rows; r++) {
		float *dst = (float *)h->data + (size_t)r * h_stride;
		uint32_t token = be->batch.tokens[r];

		if (token >= table->n) {
			ref_stick(be, -EINVAL, "embed: token beyond the vocabulary");
			return;
		}
		for (uint32_t i = 0; i < table->k; i++)
			dst[i] = scale * table->data[(size_t)token * table->k + i];
	}
}

void ref_norm(struct wk_backend *be, const struct wk_norm *op)
{
	const float *weight = op->weight->data;

	for (uint32_t r = 0; r < op->n_rows; r++) {
		uint32_t row = op->out_rows_only ? be->batch.out_rows[r] : r;
		const float *h = (const float *)op->h->data + (size_t)row * op->h_stride;
		float *x = (float *)op->x->data + (size_t)r * op->x_stride;
		double sum = 0;
		float inv;

		for (uint32_t i = 0; i < op->dim; i++)
			sum += (double)h[i] * h[i];
		inv = (float)(1.0 / sqrt(sum / op->dim + op->eps));
		for (uint32_t i = 0; i < op->dim; i++)
			x[i] = weight[i] * (h[i] * inv);
	}
}

/* Four partial sums, so that it is not a single chain of additions. */
static double dot(const float *a, const float *b, uint32_t n)
{
	double s[4] = {0};
	uint32_t i = 0;

	for (; i + 4 <= n; i += 4)
		for (uint32_t j = 0; j < 4; j++)
			s[j] += (double)a[i + j] * b[i + j];
	for (; i < n; i++)
		s[0] += (double)a[i] * b[i];
	return (s[0] + s[1]) + (s[2] + s[3]);
}

static float silu(float x)
{
	return x / (1.0f + expf(-x));
}

/* Output j of the stacked parts, before the epilogue; delta: what an adapter adds, or NULL. */
static float sum_of(const struct wk_weight *w, const float *x, const double *delta, uint32_t j)
{
	double acc = dot(x, w->data + (size_t)j * w->k, w->k);

	return (float)(delta ? acc + delta[j] : acc);
}

static void matmul_row(const struct wk_matmul *op, uint32_t n, const float *x, const double *delta,
		       float *out)
{
	const float *bias = op->bias ? op->bias->data : NULL;

	for (uint32_t c = 0; c < n; c++) {
		uint32_t j = op->col + c;
		float acc = sum_of(op->w, x, delta, j);

		if (op->epilogue == WK_EPI_SWIGLU) {
			out[c] = silu(acc) * sum_of(op->w, x, delta, op->w->n_gate + j);
			continue;
		}
		acc = op->scale * (acc + (bias ? bias[j] : 0));
		out[c] = op->epilogue == WK_EPI_ADD ? out[c] + acc : acc;
	}
}

/* What the adapter of a row adds to each output, in `delta`; or NULL: it adds nothing. */
static const double *row_delta(struct wk_backend *be, const struct wk_matmul *op, uint32_t row,
			       const float *x, double *delta)
{
	const struct wk_lora *lora = op->site ? ref_lora_of_row(be, row) : NULL;

	if (!lora)
		return NULL;
	if (!ref_lora_fits(lora, op->site, op->w)) {
		ref_stick(be, -EINVAL, "matmul: an adapter's part does not fit the weight");
		return NULL;
	}
	memset(delta, 0, op->w->n * sizeof(*delta));
	ref_lora_row(lora, op->site, x, delta);
	return delta;
}

void ref_matmul(struct wk_backend *be, const struct wk_matmul *op)
{
	const struct wk_weight *w = op->w;
	uint32_t n_total = op->epilogue == WK_EPI_SWIGLU ? w->n_gate : w->n;
	uint32_t n = op->n_cols ? op->n_cols : n_total - op->col;
	double *delta;

	if (op->col + n > n_total || (op->epilogue == WK_EPI_SWIGLU) != (w->n_gate != 0)) {
		ref_stick(be, -EINVAL, "matmul: columns or epilogue do not fit the weight");
		return;
	}
	delta = malloc(w->n * sizeof(*delta));
	if (!delta) {
		ref_stick(be, -ENOMEM, "no memory for what an adapter adds");
		return;
	}
	for (uint32_t r = 0; r < op->n_rows; r++) {
		const float *x = (const float *)op->x->data + (size_t)r * op->x_stride;

		matmul_row(op, n, x, row_delta(be, op, r, x, delta),
			   (float *)op->out->data + (size_t)r * op->out_stride);
	}
	free(delta);
}
