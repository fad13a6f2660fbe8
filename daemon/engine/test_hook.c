/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_hook.c - what a test needs the engine to do to itself.
 *
 * With WEFT_TEST_SECCOMP in its environment the core thread, once it has sampled a token, forbids
 * itself every system call by a filter that kills the process. Requests that run to their end
 * under it have made none; that the engine dies as soon as it wants to sleep shows that the filter
 * was there. Filters cannot be removed, so this is of no use outside a test.
 *
 * With WEFT_TEST_POISON_FREE every byte of every free block is 0xff before each pass, which is NaN
 * in any format of KV; and the engine aborts if a block that a sequence is about to fill for the
 * first time is not zero. Attention does not look at rows that are not there yet, so results alone
 * would not show that the zeroing is missing.
 *
 * With WEFT_TEST_SLICE_BYTES=N a pass brings N bytes of adapters into the pool and not what it does
 * otherwise, so that small ones take many passes. With WEFT_TEST_SLICES=N it brings nothing more
 * after N such passes, so that an adapter stays half there. Owned by the core thread.
 */
#include "daemon/engine/engine.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

int hook_no_system_calls(void)
{
	struct sock_filter kill = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	struct sock_fprog program = {1, &kill};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		return -errno;
	return 0;
}

int64_t hook_slice_bytes(int64_t otherwise)
{
	const char *text = getenv("WEFT_TEST_SLICE_BYTES");
	int64_t bytes = text ? strtoll(text, NULL, 10) : 0;

	return bytes > 0 ? bytes : otherwise; /* by nothing at a time it would never end */
}

uint64_t hook_most_slices(void)
{
	const char *text = getenv("WEFT_TEST_SLICES");

	return text ? strtoull(text, NULL, 10) : UINT64_MAX;
}

static uint8_t *block_buffer(const struct engine *e)
{
	uint8_t *bytes = malloc(e->block_bytes);

	if (!bytes)
		abort();
	return bytes;
}

void hook_poison_free(struct engine *e)
{
	uint8_t *bytes = block_buffer(e);

	memset(bytes, 0xff, e->block_bytes);
	for (uint32_t i = 0; i < e->blocks.n_free; i++)
		if (e->ops->buf_write(e->be, e->pool_buf, e->blocks.free[i] * e->block_bytes, bytes,
				      e->block_bytes))
			abort();
	free(bytes);
}

void hook_check_fresh(struct engine *e, const struct step *st)
{
	uint8_t *bytes = block_buffer(e);

	for (uint32_t i = 0; i < st->n_fresh; i++) {
		if (e->ops->buf_read(e->be, e->pool_buf, st->fresh[i] * e->block_bytes, bytes,
				     e->block_bytes))
			abort();
		if (bytes[0] || memcmp(bytes, bytes + 1, e->block_bytes - 1)) {
			log_line(LOG_LEVEL_ERROR,
				 "event=fatal what=\"a recycled block is not zero\"");
			abort();
		}
	}
	free(bytes);
}
