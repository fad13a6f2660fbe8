/* SPDX-License-Identifier: Apache-2.0 */
/*
 * idx_region.c - make an idx region, know its header, clear what an engine left. No state.
 */
#include "shm/idx.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static void section(struct wshm_hdr *h, uint32_t id, uint32_t entries, uint64_t off, uint64_t end)
{
	h->sections[h->n_sections++] =
		(struct wshm_section){.id = id, .entries = entries, .off = off, .bytes = end - off};
}

void wshm_idx_hdr_make(struct wshm_hdr *ret, uint64_t domain_id)
{
	struct wshm_hdr h = {
		.magic = WSHM_MAGIC_IDX,
		.major = WSHM_MAJOR,
		.minor = WSHM_MINOR,
		.hdr_bytes = sizeof(h),
		.total_bytes = WSHM_IDX_BYTES,
		.session_id = domain_id,
	};

	section(&h, WSHM_SEC_CTL, 1, WSHM_IDX_OFF_CTL,
		WSHM_IDX_OFF_CTL + sizeof(struct wshm_idx_ctl));
	section(&h, WSHM_SEC_INSTANCES, WSHM_MAX_INSTANCES, WSHM_IDX_OFF_INSTANCES,
		WSHM_IDX_OFF_HEADS);
	section(&h, WSHM_SEC_HEADS, WSHM_IDX_HEADS, WSHM_IDX_OFF_HEADS, WSHM_IDX_OFF_TAILS);
	section(&h, WSHM_SEC_TAILS, WSHM_IDX_TAILS, WSHM_IDX_OFF_TAILS, WSHM_IDX_OFF_TABLES);
	section(&h, WSHM_SEC_TABLES, WSHM_IDX_LOG2_MAX - WSHM_IDX_LOG2_MIN + 1, WSHM_IDX_OFF_TABLES,
		WSHM_IDX_BYTES);
	*ret = h;
}

uint64_t wshm_idx_bytes(void)
{
	return WSHM_IDX_BYTES;
}

int wshm_idx_new(uint64_t domain_id)
{
	struct wshm_hdr h;

	wshm_idx_hdr_make(&h, domain_id);
	return wshm_region_make("weft-idx", &h);
}

int wshm_idx_clear(int fd)
{
	static const uint8_t none[16];

	static_assert(offsetof(struct wshm_idx_ctl, table) == 0 &&
			      offsetof(struct wshm_idx_ctl, engine) == 8,
		      "the two words that readers ask first");
	if (pwrite(fd, none, sizeof(none), WSHM_IDX_OFF_CTL) != (ssize_t)sizeof(none) ||
	    fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, WSHM_IDX_OFF_INSTANCES,
		      WSHM_IDX_BYTES - WSHM_IDX_OFF_INSTANCES))
		return -errno;
	return 0;
}
