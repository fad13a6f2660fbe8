/* SPDX-License-Identifier: Apache-2.0 */
/*
 * adapter.h - a LoRA or aLoRA adapter: read from a PEFT folder's two files, packed, placed in the
 * pool.
 *
 *   files --adapter_open()--> image: pieces as the backend wants them, in host memory
 *   image --adapter_place()--> blocks of the pool, and a wk_lora that a pass can name
 *         <--adapter_remove()-- the blocks serve something else; the image stays
 *
 * The files are outside input and are checked like a model's: whatever is not known is refused by
 * its name, half an adapter is never served. Nothing here knows of requests or the cache.
 *
 * adapter_open() may run on any thread; the rest belongs to the thread that owns the backend.
 */
#ifndef WEFT_ENGINE_ADAPTER_H
#define WEFT_ENGINE_ADAPTER_H

#include "daemon/engine/model/model.h"
#include "shm/wshm_idx.h"

#define ADAPTER_MAX_RANK	 1024
#define ADAPTER_MAX_CONFIG_BYTES (1u << 20)

struct adapter;

struct adapter_source {
	const char *name;	   /* for messages, e.g. the folder */
	int config_fd, weights_fd; /* adapter_config.json, adapter_model.safetensors; borrowed */
	int32_t offset;		   /* of the activation from the invocation's start; aLoRA only */
	enum wshm_missing on_missing;
};

/*
 * Read, check and pack, for a pool of blocks of block_bytes. 0 or -errno with a message that names
 * file and key or tensor. The instance's digest is over what changes results: weights as read,
 * effective scales, kind, invocation, offset; name and on_missing do not.
 */
int adapter_open(const struct model *m, size_t block_bytes, const struct adapter_source *src,
		 struct adapter **ret, struct weft_err *err);
/* The same from a folder (tests, tools). */
int adapter_open_dir(const struct model *m, size_t block_bytes, const char *dir,
		     const struct adapter_source *settings, struct adapter **ret,
		     struct weft_err *err);
void adapter_close(struct adapter *a); /* must have been removed; NULL allowed */

const struct wshm_instance *adapter_instance(const struct adapter *a); /* name: left empty */
uint32_t adapter_blocks(const struct adapter *a);  /* that it takes in the pool */
uint64_t adapter_bytes(const struct adapter *a);   /* of the image */
double adapter_row_flops(const struct adapter *a); /* operations for a row that it changes */

/* Bring it into its blocks, block after block until *bytes, which is what was asked for less what was
 * written, is used up: 1 when it is whole and can be used, 0 when more is to come, or -errno (the device's,
 * or -ENOMEM). *at: 0 at first; how far it has come. */
int adapter_place_some(struct adapter *a, struct model *m, struct wk_buf *pool,
		       const uint32_t *blocks, uint32_t *at, int64_t *bytes);
/* All of it. 0 or -errno. */
int adapter_place(struct adapter *a, struct model *m, struct wk_buf *pool, const uint32_t *blocks);
void adapter_remove(struct adapter *a, struct model *m);
const struct wk_lora *adapter_lora(const struct adapter *a); /* NULL while it has no place */

/* At least what a pool block must hold for any adapter of this model: the largest piece. */
size_t adapter_piece_bytes(const struct wk_ops *ops, const struct wk_backend *be,
			   const struct model_config *c);

#endif
