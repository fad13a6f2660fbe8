/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_adapter.c - libFuzzer on both files of an adapter, through the loader as the engine calls it.
 *
 *	input:	u16 length of the configuration | configuration | weights
 *
 * The backend is one of this file's own, which reads all that it is told to pack; the sanitizer sees
 * whether that was there. Whatever is accepted must lie in blocks without overlap.
 */
#include "daemon/common/err.h"
#include "daemon/engine/model/adapter_private.h"
#include "daemon/engine/model/model_private.h"
#include "daemon/engine/model/safetensors.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BLOCK_BYTES 1024 /* three pieces of the largest kind do not fit */
#define POOL_BLOCKS 512

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool cond)
{
	if (!cond)
		abort();
}

/* --- the backend ---------------------------------------------------------------------------------*/

static size_t piece_bytes(const struct wk_backend *be, uint32_t n, uint32_t k)
{
	(void)be;
	return n + k;
}

static uint8_t sum_of(const void *data, size_t bytes)
{
	const uint8_t *p = data;
	uint8_t sum = 0;

	while (bytes--)
		sum = (uint8_t)(sum + *p++);
	return sum;
}

static int pack(const struct wk_backend *be, const struct wk_lora_source *s, uint32_t first,
		void *dst, char ret_where[64])
{
	require(first % WK_LORA_CUT == 0 && first < s->rank);
	memset(dst,
	       sum_of(s->a, (size_t)s->rank * s->k * st_dtype_bytes(s->a_dtype)) +
		       sum_of(s->b, (size_t)s->n * s->rank * st_dtype_bytes(s->b_dtype)),
	       piece_bytes(be, s->n, s->k));
	strcpy(ret_where, "");
	return 0;
}

static uint8_t pool[POOL_BLOCKS * BLOCK_BYTES];
static uint8_t taken[POOL_BLOCKS * BLOCK_BYTES];

static int buf_write(struct wk_backend *be, struct wk_buf *buf, size_t off, const void *src,
		     size_t bytes)
{
	(void)be;
	(void)buf;
	require(bytes && off <= sizeof(pool) && bytes <= sizeof(pool) - off);
	memcpy(pool + off, src, bytes);
	return 0;
}

static int lora_new(struct wk_backend *be, const struct wk_lora_part *parts, uint32_t n_parts,
		    struct wk_lora **ret)
{
	(void)be;
	memset(taken, 0, sizeof(taken));
	for (uint32_t i = 0; i < n_parts; i++)
		for (uint32_t c = 0; c * WK_LORA_CUT < parts[i].rank; c++)
			for (uint32_t b = 0; b < parts[i].n + parts[i].k; b++) {
				uint64_t at = parts[i].pieces[c] + b;

				require(parts[i].pieces[c] % WK_POOL_ALIGN == 0);
				require(at / BLOCK_BYTES == parts[i].pieces[c] / BLOCK_BYTES);
				require(!taken[at]++);
			}
	*ret = (struct wk_lora *)taken;
	return 0;
}

static void lora_free(struct wk_backend *be, struct wk_lora *lora)
{
	(void)be;
	(void)lora;
}

static const struct wk_ops ops = {
	.lora_piece_bytes = piece_bytes,
	.lora_pack = pack,
	.buf_write = buf_write,
	.lora_new = lora_new,
	.lora_free = lora_free,
};

/* --- a run ---------------------------------------------------------------------------------------*/

static struct model model = {
	.ops = &ops,
	.config = {.model_type = "llama",
		   .n_layers = 2,
		   .hidden = 8,
		   .n_heads = 1,
		   .n_kv_heads = 1,
		   .head_dim = 8,
		   .ffn = 300,
		   .vocab = 32},
};

static int file_of(const void *data, size_t bytes)
{
	int fd = memfd_create("fuzz", 0);

	require(fd >= 0 && write(fd, data, bytes) == (ssize_t)bytes);
	return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct adapter_source src = {.name = "fuzzed"};
	uint32_t blocks[POOL_BLOCKS];
	struct weft_err err = {0};
	struct adapter *a = NULL;
	size_t len;
	int r;

	if (size < 2)
		return 0;
	len = data[0] | (size_t)data[1] << 8;
	len = len < size - 2 ? len : size - 2;
	src.config_fd = file_of(data + 2, len);
	src.weights_fd = file_of(data + 2 + len, size - 2 - len);
	r = adapter_open(&model, BLOCK_BYTES, &src, &a, &err);
	close(src.config_fd);
	close(src.weights_fd);
	if (r) {
		require(!a && r < 0 && strstr(err.message, "fuzzed"));
		return 0;
	}
	require(adapter_blocks(a) && adapter_blocks(a) <= POOL_BLOCKS);
	require(adapter_instance(a)->digest[0]);
	for (uint32_t i = 0; i < POOL_BLOCKS; i++)
		blocks[i] = POOL_BLOCKS - 1 - i;
	require(!adapter_place(a, &model, NULL, blocks) && adapter_lora(a));
	adapter_remove(a, &model);
	adapter_close(a);
	return 0;
}
