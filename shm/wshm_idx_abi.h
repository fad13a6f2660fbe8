/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wshm_idx_abi.h - the layout of an idx region: nothing but fixed-width types. What it means and
 * how it is read is in wshm_idx.h.
 *
 *   0        wshm_hdr (magic IDX; session_id is the domain's number)
 *   256      wshm_idx_ctl
 *   4096     wshm_idx_instance[WSHM_MAX_INSTANCES]
 *            heads u64[WSHM_IDX_HEADS]       of the chains of tails
 *            wshm_idx_tail[WSHM_IDX_TAILS]
 *            tables of 2^7, 2^8, ... 2^18 buckets, one behind the other
 *
 * All of it is written by the engine alone. The size is the same for every domain; what was never
 * touched has no memory behind it.
 */
#ifndef WEFT_SHM_IDX_ABI_H
#define WEFT_SHM_IDX_ABI_H

#include "shm/wshm_abi.h"

/* clang-format off */
#define WSHM_MAGIC_IDX		UINT64_C(0x7869746665770001)	/* bytes 01 00 "weft" "ix" */
#define WSHM_SEC_INSTANCES	5u
#define WSHM_SEC_HEADS		6u
#define WSHM_SEC_TAILS		7u
#define WSHM_SEC_TABLES		8u

/* Tables: from 1,024 entries (two pages) to 2,097,152: a terabyte of blocks of 512 KiB. The largest
 * is 16 MiB, all together twice that. Not more, since a client that reads where nothing was ever
 * written makes pages come into being, in its own domain's region and in the public one. */
#define WSHM_IDX_LOG2_MIN	7u
#define WSHM_IDX_LOG2_MAX	18u
#define WSHM_IDX_ENTRIES	8u	/* of a bucket: one line of the processors we know */
#define WSHM_IDX_HEADS		16384u
#define WSHM_IDX_TAILS		65536u
#define WSHM_IDX_TAIL_ROWS	15u	/* one less than a block */
#define WSHM_IDX_INSTANCE_WORDS	45u

struct wshm_idx_ctl {
	_Atomic uint64_t table;		/* generation << 8 | log2 of its buckets; 0: none */
	_Atomic uint64_t engine;	/* which one wrote all this; 0: none, or one that is starting */
	_Atomic uint32_t n_instances;	/* those at this index and above are empty */
	uint8_t pad0[108];
	_Atomic uint64_t root[3];	/* struct wshm_root */
	_Atomic uint64_t secret[24];
	uint8_t pad1[40];
};

/*
 * An entry is one word, so there is none that is half old and half new:
 *
 *   63                    44 43 42 41                    22 21                    2 1    0
 *  +------------------------+-----+------------------------+-----------------------+------+
 *  | bucket, first choice   |     | bucket, second choice  |                       | tier |
 *  +------------------------+-----+------------------------+-----------------------+------+
 *   <------------------------- fingerprint of the key, 62 bits --------------------> 0: empty,
 *                                                                                    else tier + 1
 *
 * A table of 2^n buckets uses the upper n bits of both choices. So a bucket's entries go to two
 * neighbouring buckets of the next table, whichever choice had put them there.
 */
struct wshm_idx_bucket {
	_Atomic uint64_t entry[WSHM_IDX_ENTRIES];
};

/* A struct wshm_instance as words. */
struct wshm_idx_instance {
	_Atomic uint32_t version;	/* odd: being written */
	_Atomic uint32_t present;
	_Atomic uint64_t words[WSHM_IDX_INSTANCE_WORDS];
	uint8_t reserved[16];
};

/* A head is (count of changes << 32 | first); first and next are a tail's index + 1, 0: none. */
struct wshm_idx_tail {
	_Atomic uint32_t version;	/* odd: being written; its own tokens grow without */
	_Atomic uint32_t rows;
	_Atomic uint64_t parent[2];	/* key of the full block before it */
	_Atomic uint64_t adapter[2];
	_Atomic uint32_t unadapted;
	_Atomic uint32_t next;
	_Atomic uint32_t tokens[WSHM_IDX_TAIL_ROWS];
	uint8_t reserved[20];
};

#define WSHM_IDX_OFF_CTL	UINT64_C(256)
#define WSHM_IDX_OFF_INSTANCES	UINT64_C(4096)
#define WSHM_IDX_OFF_HEADS	UINT64_C(397312)
#define WSHM_IDX_OFF_TAILS	UINT64_C(528384)
#define WSHM_IDX_OFF_TABLES	UINT64_C(8916992)
#define WSHM_IDX_BYTES		UINT64_C(42463232)

#define WSHM_SIZE(s, n)	 static_assert(sizeof(struct s) == (n), "ABI: size of " #s)
#define WSHM_AT(s, f, n) static_assert(offsetof(struct s, f) == (n), "ABI: offset of " #f)
WSHM_SIZE(wshm_idx_ctl, 384);
WSHM_AT(wshm_idx_ctl, table, 0);
WSHM_AT(wshm_idx_ctl, engine, 8);
WSHM_AT(wshm_idx_ctl, n_instances, 16);
WSHM_AT(wshm_idx_ctl, pad0, 20);
WSHM_AT(wshm_idx_ctl, root, 128);
WSHM_AT(wshm_idx_ctl, secret, 152);
WSHM_AT(wshm_idx_ctl, pad1, 344);
WSHM_SIZE(wshm_idx_bucket, 64);
WSHM_AT(wshm_idx_bucket, entry, 0);
WSHM_SIZE(wshm_idx_instance, 384);
WSHM_AT(wshm_idx_instance, version, 0);
WSHM_AT(wshm_idx_instance, present, 4);
WSHM_AT(wshm_idx_instance, words, 8);
WSHM_AT(wshm_idx_instance, reserved, 368);
WSHM_SIZE(wshm_idx_tail, 128);
WSHM_AT(wshm_idx_tail, version, 0);
WSHM_AT(wshm_idx_tail, rows, 4);
WSHM_AT(wshm_idx_tail, parent, 8);
WSHM_AT(wshm_idx_tail, adapter, 24);
WSHM_AT(wshm_idx_tail, unadapted, 40);
WSHM_AT(wshm_idx_tail, next, 44);
WSHM_AT(wshm_idx_tail, tokens, 48);
WSHM_AT(wshm_idx_tail, reserved, 108);
#undef WSHM_SIZE
#undef WSHM_AT
static_assert(WSHM_IDX_OFF_CTL == sizeof(struct wshm_hdr), "ABI");
static_assert(WSHM_IDX_OFF_CTL + sizeof(struct wshm_idx_ctl) <= WSHM_PAGE, "ABI: one page");
static_assert(WSHM_IDX_OFF_HEADS == WSHM_IDX_OFF_INSTANCES + 1024 * sizeof(struct wshm_idx_instance),
	      "ABI");
static_assert(WSHM_IDX_OFF_TAILS == WSHM_IDX_OFF_HEADS + WSHM_IDX_HEADS * 8, "ABI");
static_assert(WSHM_IDX_OFF_TABLES ==
		      WSHM_IDX_OFF_TAILS + WSHM_IDX_TAILS * sizeof(struct wshm_idx_tail), "ABI");
static_assert(WSHM_IDX_OFF_TABLES % WSHM_PAGE == 0, "ABI: tables are given back by whole pages");
static_assert(WSHM_IDX_BYTES ==
		      WSHM_IDX_OFF_TABLES + ((UINT64_C(2) << WSHM_IDX_LOG2_MAX) -
					     (UINT64_C(1) << WSHM_IDX_LOG2_MIN)) *
						    sizeof(struct wshm_idx_bucket), "ABI");
/* clang-format on */

#endif
