/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kv.c - the KV pool: size and zeroing of blocks, copying rows between them, and blocks to the host.
 *
 * attention.h has the layout. Positions are interleaved in it (16 keys in each 64 bytes of K, two
 * in each 32 bits of V), so a row is copied element by element.
 */
#include <errno.h>

#include "kernels/cpu/attention.h"

#define CACHE_STRIDE 16384u /* a quarter of the set stride of a 1 MiB, 16-way L2 */

size_t wk_cpu_kv_block_bytes(const struct wk_backend *be, const struct wk_kv_shape *shape)
{
	size_t bytes = (size_t)shape->n_layers * shape->n_kv_heads * wk_kv_head_bytes(shape);

	/*
	 * Blocks a power of two apart would put the same layer of all of them into the same few
	 * sets of the caches, and a cut of keys could not stay in L2: shift each by one head.
	 */
	if (bytes % CACHE_STRIDE == 0)
		bytes += wk_kv_head_bytes(shape);
	bytes = bytes < shape->min_block_bytes ? shape->min_block_bytes : bytes;
	return (bytes + WK_POOL_ALIGN - 1) / WK_POOL_ALIGN * WK_POOL_ALIGN;
}

int wk_cpu_kv_bind(struct wk_backend *be, const struct wk_kv_shape *shape, struct wk_buf *pool,
		   uint32_t n_blocks)
{
	size_t bytes;

	if (!shape->n_layers || !shape->n_kv_heads || shape->head_dim < 8 ||
	    shape->head_dim > WK_HEAD_DIM_MAX || shape->head_dim % 2)
		return wk_cpu_fail(be, EINVAL, "unsupported KV shape: %u layers, %u heads of %u",
				   shape->n_layers, shape->n_kv_heads, shape->head_dim);
	bytes = wk_cpu_kv_block_bytes(be, shape);
	if (pool->bytes / bytes < n_blocks)
		return wk_cpu_fail(be, EINVAL, "pool of %zu bytes is too small for %u blocks",
				   pool->bytes, n_blocks);
	be->kv = *shape;
	be->kv_block_bytes = bytes;
	be->kv_blocks = n_blocks;
	be->pool_buf = pool;
	return 0;
}

void wk_cpu_kv_zero(struct wk_backend *be, struct wk_buf *pool, const uint32_t *blocks, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		if (blocks[i] >= be->kv_blocks) {
			wk_cpu_stick(be, EINVAL, "kv_zero: block %u of %u", blocks[i],
				     be->kv_blocks);
			return;
		}
		memset((char *)pool->host + blocks[i] * be->kv_block_bytes, 0, be->kv_block_bytes);
	}
}

/* The first n keys of one layer and head. */
static void copy_head(char *dst, const char *src, const struct wk_kv_shape *s, uint32_t n)
{
	uint32_t dim_pad = wk_dim_pad(s->head_dim);
	size_t k_bytes = wk_kv_k_bytes(s);
	uint16_t *v_dst = (uint16_t *)(dst + k_bytes);
	const uint16_t *v_src = (const uint16_t *)(src + k_bytes);

	for (uint32_t i = 0; i < s->head_dim / 2; i++)
		memcpy(dst + (size_t)i * 64, src + (size_t)i * 64, (size_t)n * 4);
	for (uint32_t j = 0; j < n; j++)
		for (uint32_t d = 0; d < s->head_dim; d++) {
			size_t at = ((size_t)j / 2 * dim_pad + d) * 2 + j % 2;

			v_dst[at] = v_src[at];
		}
}

void wk_cpu_kv_copy_rows(struct wk_backend *be, struct wk_buf *pool, uint32_t src, uint32_t dst,
			 uint32_t n_rows)
{
	if (src >= be->kv_blocks || n_rows > WK_BLOCK_TOKENS || src == dst) {
		wk_cpu_stick(be, EINVAL, "kv_copy_rows: block %u to %u, %u rows", src, dst, n_rows);
		return;
	}
	wk_cpu_kv_zero(be, pool, &dst, 1);
	if (be->sticky)
		return;
	for (uint32_t layer = 0; layer < be->kv.n_layers; layer++)
		for (uint32_t head = 0; head < be->kv.n_kv_heads; head++)
			copy_head(wk_kv_head(be, pool, dst, layer, head),
				  wk_kv_head(be, pool, src, layer, head), &be->kv, n_rows);
}

/* --- blocks to the host and back -----------------------------------------------------------------*/

int wk_cpu_host_new(struct wk_backend *be, size_t bytes, void **ret)
{
	void *p = wk_cpu_alloc(bytes);

	if (!p)
		return wk_cpu_fail(be, ENOMEM, "no memory for %zu bytes of blocks", bytes);
	*ret = p;
	return 0;
}

void wk_cpu_host_free(struct wk_backend *be, void *host, size_t bytes)
{
	wk_cpu_release(host, bytes);
}

static int check_copies(struct wk_backend *be, const struct wk_buf *pool,
			const struct wk_block_copy *copies, uint32_t n)
{
	if (be->sticky)
		return be->sticky;
	if (!be->kv_blocks || pool != be->pool_buf)
		return wk_cpu_fail(be, EINVAL, "copies of blocks of a pool that is not bound");
	for (uint32_t i = 0; i < n; i++)
		if (copies[i].block >= be->kv_blocks)
			return wk_cpu_fail(be, EINVAL, "a copy of block %u of %u", copies[i].block,
					   be->kv_blocks);
	return 0;
}

int wk_cpu_kv_copy_out(struct wk_backend *be, const struct wk_buf *pool,
		       const struct wk_block_copy *copies, uint32_t n, uint64_t *ret_ticket)
{
	int err = check_copies(be, pool, copies, n);

	if (err)
		return err;
	for (uint32_t i = 0; i < n; i++)
		memcpy(copies[i].host, (char *)pool->host + copies[i].block * be->kv_block_bytes,
		       be->kv_block_bytes);
	*ret_ticket = ++be->copy_ticket;
	return 0;
}

int wk_cpu_kv_copy_in(struct wk_backend *be, struct wk_buf *pool,
		      const struct wk_block_copy *copies, uint32_t n, uint64_t *ret_ticket)
{
	int err = check_copies(be, pool, copies, n);

	if (err)
		return err;
	for (uint32_t i = 0; i < n; i++)
		memcpy((char *)pool->host + copies[i].block * be->kv_block_bytes, copies[i].host,
		       be->kv_block_bytes);
	*ret_ticket = ++be->copy_ticket;
	return 0;
}

int wk_cpu_copy_query(struct wk_backend *be, uint64_t ticket)
{
	if (!be->sticky && ticket > be->copy_ticket)
		return wk_cpu_fail(be, EINVAL, "a copy's ticket that was never given out");
	return be->sticky ? be->sticky : 1;
}

int wk_cpu_copy_wait(struct wk_backend *be, uint64_t ticket)
{
	int r = wk_cpu_copy_query(be, ticket);

	return r < 0 ? r : 0;
}
