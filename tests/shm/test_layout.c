/* SPDX-License-Identifier: Apache-2.0 */
/* test_layout.c - offsets from parameters, computed by hand, and the parameters that are refused. */
#include "shm/wshm.h"
#include "tests/tap.h"

#include <errno.h>

static int init(struct wshm_layout *l, uint32_t slots, uint64_t tx, uint64_t rx)
{
	struct wshm_params p = {.slots = slots, .tx_arena_bytes = tx, .rx_arena_bytes = rx};

	return wshm_layout_init(l, &p);
}

static void test_offsets(void)
{
	struct wshm_layout l;

	is_int(init(&l, 1, 4096, 8192), 0, "one slot");
	is_int(l.ring_entries, 2, "twice the slots");
	is_int(l.tx_ctl, 256, "tx: control after the header");
	is_int(l.tx_ring, 768, "tx: ring after four lines of control");
	is_int(l.tx_table, 896, "tx: 16 bytes of ring take a line");
	is_int(l.tx_arena, 4096, "tx: arena on a page");
	is_int(l.tx_bytes, 8192, "tx: size");
	is_int(l.rx_ctl, 256, "rx: control after the header");
	is_int(l.rx_ring, 768, "rx: ring after four lines of control");
	is_int(l.rx_table, 896, "rx: table on a line");
	is_int(l.rx_arena, 4096, "rx: arena on a page");
	is_int(l.rx_bytes, 12288, "rx: size");

	is_int(init(&l, 1024, UINT64_C(1) << 32, UINT64_C(1) << 32), 0, "the largest");
	is_int(l.tx_table, 768 + 2048 * 8, "tx: table");
	is_int(l.tx_arena, 151552, "tx: 17152 + 131072 up to a page");
	is_int(l.tx_bytes, 151552 + (INT64_C(1) << 32), "tx: size");
	is_int(l.rx_table, 768 + 2048 * 8, "rx: table");
	is_int(l.rx_arena, 413696, "rx: 17152 + 393216 up to a page");
	is_int(l.rx_bytes, 413696 + (INT64_C(1) << 32), "rx: size");
}

static void test_refused(void)
{
	struct wshm_layout l = {.ring_entries = 77};

	is_int(init(&l, 0, 4096, 4096), -EINVAL, "no slot");
	is_int(init(&l, 3, 4096, 4096), -EINVAL, "not a power of two");
	is_int(init(&l, 2048, 4096, 4096), -EINVAL, "too many slots");
	is_int(init(&l, UINT32_C(1) << 31, 4096, 4096), -EINVAL, "absurdly many slots");
	is_int(init(&l, 4, 0, 4096), -EINVAL, "no tx arena");
	is_int(init(&l, 4, 4096, 0), -EINVAL, "no rx arena");
	is_int(init(&l, 4, 4097, 4096), -EINVAL, "tx arena not whole pages");
	is_int(init(&l, 4, 4096, 4095), -EINVAL, "rx arena not whole pages");
	is_int(init(&l, 4, (UINT64_C(1) << 32) + 4096, 4096), -EINVAL, "tx arena too large");
	is_int(init(&l, 4, 4096, UINT64_MAX - 4095), -EINVAL, "rx arena near 2^64");
	is_int(l.ring_entries, 77, "output untouched on failure");
}

int main(void)
{
	test_offsets();
	test_refused();
	return tap_done();
}
