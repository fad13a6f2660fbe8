/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layout.c - where everything stands in a pair of regions.
 *
 * Both sides compute the same offsets from the same three parameters: weftd when it makes the
 * regions, the engine from what weftd tells it, the client from the hello's reply. Nobody derives
 * an offset from a header that another process can write. Pure functions, no state.
 */
#include "shm/wshm.h"

#include <errno.h>

static uint64_t align_up(uint64_t n, uint64_t to)
{
	return (n + to - 1) / to * to;
}

static bool arena_ok(uint64_t bytes)
{
	return bytes && bytes <= WSHM_MAX_ARENA && bytes % WSHM_PAGE == 0;
}

int wshm_layout_init(struct wshm_layout *ret, const struct wshm_params *params)
{
	struct wshm_layout l = {.params = *params, .ring_entries = 2 * params->slots};
	uint32_t slots = params->slots;

	if (!slots || slots > WSHM_MAX_SLOTS || (slots & (slots - 1)))
		return -EINVAL;
	if (!arena_ok(params->tx_arena_bytes) || !arena_ok(params->rx_arena_bytes))
		return -EINVAL;

	l.tx_ctl = sizeof(struct wshm_hdr);
	l.tx_ring = l.tx_ctl + sizeof(struct wshm_tx_ctl);
	l.tx_table = align_up(l.tx_ring + l.ring_entries * sizeof(uint64_t), WSHM_LINE);
	l.tx_arena = align_up(l.tx_table + slots * sizeof(struct wshm_req), WSHM_PAGE);
	l.tx_bytes = l.tx_arena + params->tx_arena_bytes;

	l.rx_ctl = sizeof(struct wshm_hdr);
	l.rx_ring = l.rx_ctl + sizeof(struct wshm_rx_ctl);
	l.rx_table = align_up(l.rx_ring + l.ring_entries * sizeof(uint64_t), WSHM_LINE);
	l.rx_arena = align_up(l.rx_table + slots * sizeof(struct wshm_slot), WSHM_PAGE);
	l.rx_bytes = l.rx_arena + params->rx_arena_bytes;
	*ret = l;
	return 0;
}
