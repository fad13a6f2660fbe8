/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dummy.h - made-up tensors for a configuration, for measuring a shape whose weights nobody has.
 *
 * A dummy tensor looks to the loader as one of a file: bf16, at its own place, of the shape that is
 * asked for, with other numbers for every name. So checking, packing, digest and layout are those of
 * any model. Matrices are uniform enough, of the size that keeps activations finite (about 1 over the
 * root of their inputs); vectors lie in 0.5..1.
 *
 * The data of the tensors given out lies in one mapping, which is used from its start again once all
 * of them are let go. Owned by the loader.
 */
#ifndef WEFT_ENGINE_DUMMY_H
#define WEFT_ENGINE_DUMMY_H

#include "daemon/engine/model/model.h"
#include "daemon/engine/model/safetensors.h"

#define DUMMY_TENSORS 3 /* at once: q, k and v */
#define DUMMY_NAME    128

struct dummy {
	char *map; /* owner */
	size_t map_bytes, used;
	struct st_tensor tensors[DUMMY_TENSORS];
	char names[DUMMY_TENSORS][DUMMY_NAME];
	uint32_t n;
};

/* Bytes of all tensors that a configuration has. */
uint64_t dummy_bytes(const struct model_config *c);
/* 0, or -errno with *err: a folder that has weights is refused, lest they be taken for served. */
int dummy_open(struct dummy *d, const char *dir, const struct model_config *c,
	       struct weft_err *err);
/* A tensor [n][k], k 0: a vector. It stays until dummy_let_go() was called for it and the others. */
struct st_tensor *dummy_take(struct dummy *d, const char *name, uint32_t n, uint32_t k);
void dummy_let_go(struct dummy *d);
void dummy_close(struct dummy *d);

#endif
