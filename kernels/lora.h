/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lora.h - what every backend does alike with LoRA: checking what it is given, and keeping it.
 */
#ifndef WEFT_KERNELS_LORA_H
#define WEFT_KERNELS_LORA_H

#include "kernels/backend.h"

/* What is wrong with a batch's segments, or NULL. */
const char *wk_segments_wrong(const struct wk_batch *b);

/* Pieces of a rank. */
static inline uint32_t wk_lora_cuts(uint32_t rank)
{
	return (rank - 1) / WK_LORA_CUT + 1;
}

/* An adapter's parts, sorted by site and column. Constant from wk_lora_parts_init() on. */
struct wk_lora_parts {
	struct wk_lora_part *parts; /* owner; their `pieces` point into `pieces` */
	uint64_t *pieces;	    /* owner */
	uint32_t *first;	    /* owner: [max_site + 2] first part of a site */
	uint32_t max_site;
	uint32_t max_cuts; /* of all parts of one site together */
};

/*
 * Copy and check parts: sizes, disjoint outputs within a site, pieces that lie aligned within
 * `pool_bytes`, given what piece_bytes() says of be. 0, -ENOMEM, or -EINVAL with *ret_why.
 */
int wk_lora_parts_init(struct wk_lora_parts *p, const struct wk_lora_part *parts, uint32_t n_parts,
		       size_t pool_bytes, const struct wk_backend *be,
		       size_t (*piece_bytes)(const struct wk_backend *be, uint32_t n, uint32_t k),
		       const char **ret_why);
void wk_lora_parts_fini(struct wk_lora_parts *p);

/* The parts of one site, by column; NULL and 0 when it has none. */
static inline const struct wk_lora_part *wk_lora_parts_of(const struct wk_lora_parts *p,
							  uint32_t site, uint32_t *ret_n)
{
	*ret_n = 0;
	if (site > p->max_site || p->first[site] == p->first[site + 1])
		return NULL;
	*ret_n = p->first[site + 1] - p->first[site];
	return p->parts + p->first[site];
}

/* Element i of a row-major matrix, unaligned allowed, as fp32 (exact). */
float wk_lora_element(const void *data, enum wk_dtype dtype, size_t i);
/* -EDOM, with the place written for whoever reads the message. */
int wk_lora_not_finite(char ret_where[64], char matrix, uint32_t row, uint32_t col);
/* -EINVAL for a source or a `first` that no piece can come from. */
int wk_lora_source_check(const struct wk_lora_source *src, uint32_t first);

#endif
