/* SPDX-License-Identifier: Apache-2.0 */
/* dummy.c - see dummy.h. */
#include "daemon/engine/model/dummy.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/common/err.h"

#define ALIGN 4096 /* of a tensor's data: nothing relies on it */

static uint64_t heads_out(const struct model_config *c)
{
	return (uint64_t)(c->n_heads + 2 * c->n_kv_heads) * c->head_dim;
}

uint64_t dummy_bytes(const struct model_config *c)
{
	const uint64_t q = (uint64_t)c->n_heads * c->head_dim, hidden = c->hidden;
	uint64_t layer = hidden * (heads_out(c) + q + 3 * (uint64_t)c->ffn) + 2 * hidden;

	layer += c->qkv_bias ? heads_out(c) : 0;
	layer += c->o_bias ? hidden : 0;
	layer += c->qk_norm ? 2 * (uint64_t)c->head_dim : 0;
	return 2 * (layer * c->n_layers + hidden * c->vocab * (c->tied_head ? 1 : 2) + hidden);
}

static bool has_weights(const char *dir)
{
	static const char *const files[] = {"model.safetensors", "model.safetensors.index.json"};
	char path[PATH_MAX];

	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, files[i]);
		if (!access(path, F_OK))
			return true;
	}
	return false;
}

int dummy_open(struct dummy *d, const char *dir, const struct model_config *c, struct weft_err *err)
{
	const uint64_t n[] = {c->vocab, heads_out(c), c->hidden, 2 * (uint64_t)c->ffn};
	uint64_t widest = c->ffn > c->hidden ? c->ffn : c->hidden, rows = 0;

	memset(d, 0, sizeof(*d));
	if (has_weights(dir))
		return err_set(
			err, -EEXIST,
			"%s has weights: dummy weights are for a folder with config.json alone",
			dir);
	for (int i = 0; i < 4; i++)
		rows = n[i] > rows ? n[i] : rows;
	if ((uint64_t)c->n_heads * c->head_dim > widest)
		widest = (uint64_t)c->n_heads * c->head_dim;
	/* More than any weight has; what is never written takes no memory. */
	d->map_bytes = 2 * rows * widest + DUMMY_TENSORS * ALIGN;
	d->map = mmap(NULL, d->map_bytes, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (d->map == MAP_FAILED) {
		d->map = NULL;
		return err_set(err, -ENOMEM, "no memory for dummy weights of %zu bytes",
			       d->map_bytes);
	}
	return 0;
}

static uint64_t mix(uint64_t x)
{
	x ^= x >> 32;
	x *= UINT64_C(0xd6e8feb86659fd93);
	x ^= x >> 32;
	x *= UINT64_C(0xd6e8feb86659fd93);
	return x ^ x >> 32;
}

static uint64_t seed_of(const char *name)
{
	uint64_t h = 0;

	for (; *name; name++)
		h = mix(h + (unsigned char)*name);
	return h;
}

/* bf16 of sign and magnitude from 2^exponent to twice that, four of each random number. */
static void fill(uint16_t *to, uint64_t n, uint64_t seed, uint32_t exponent, bool positive)
{
	const uint64_t ones = UINT64_C(0x0001000100010001);
	const uint64_t keep = ones * (positive ? 0x007f : 0x807f), set = ones * (exponent << 7);

	for (uint64_t i = 0; i < n; i += 4) {
		uint64_t v = (mix(seed + i) & keep) | set;

		memcpy(to + i, &v, n - i < 4 ? (n - i) * 2 : 8);
	}
}

/* Of bf16: the largest power of two whose square times k is not over 1/2. */
static uint32_t exponent_of(uint32_t k)
{
	uint32_t e = 127;

	for (uint64_t square = 1; square < 2 * (uint64_t)k; square *= 4)
		e--;
	return e;
}

struct st_tensor *dummy_take(struct dummy *d, const char *name, uint32_t n, uint32_t k)
{
	const uint64_t count = (uint64_t)n * (k ? k : 1);
	uint32_t i = d->n++;

	assert(i < DUMMY_TENSORS && d->used + count * 2 <= d->map_bytes);
	snprintf(d->names[i], sizeof(d->names[i]), "%s", name);
	d->tensors[i] = (struct st_tensor){
		.name = d->names[i],
		.file = "(dummy)",
		.dtype = WK_BF16,
		.n_dims = k ? 2 : 1,
		.shape = {n, k},
		.bytes = count * 2,
		.data = d->map + d->used,
		.used = true,
	};
	fill((uint16_t *)(d->map + d->used), count, seed_of(name), k ? exponent_of(k) : 126, !k);
	d->used += (count * 2 + ALIGN - 1) / ALIGN * ALIGN;
	return &d->tensors[i];
}

void dummy_let_go(struct dummy *d)
{
	assert(d->n);
	if (!--d->n)
		d->used = 0;
}

void dummy_close(struct dummy *d)
{
	if (d->map)
		munmap(d->map, d->map_bytes);
	memset(d, 0, sizeof(*d));
}
