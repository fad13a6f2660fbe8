/* SPDX-License-Identifier: Apache-2.0 */
/* pair.c - see pair.h. */
#include "tests/shm/pair.h"
#include "tests/tap.h"

#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static void must(int rc, const char *what)
{
	if (rc)
		bail_out(what);
}

void pair_open(struct pair *p, uint32_t slots, uint32_t start)
{
	struct wshm_params params = {
		.slots = slots, .tx_arena_bytes = 65536, .rx_arena_bytes = 65536};
	struct wshm_rx_ctl *rx;
	struct wshm_tx_ctl *tx;

	memset(p, 0, sizeof(*p));
	must(wshm_layout_init(&p->layout, &params), "wshm_layout_init");
	must(wshm_regions_new(&p->layout, 42, &p->tx_fd, &p->rx_fd), "wshm_regions_new");
	p->ro_fd = wshm_open_read_only(p->rx_fd);
	if (p->ro_fd < 0)
		bail_out("wshm_open_read_only");
	must(wshm_client_open(&p->client, &p->layout, p->tx_fd, p->ro_fd), "wshm_client_open");
	must(wshm_engine_open(&p->engine, &p->layout, p->tx_fd, p->rx_fd, false),
	     "wshm_engine_open");
	if (!start)
		return;

	/* A session that has lived long: both sides read their counters anew. */
	tx = pair_tx_ctl(p);
	rx = (struct wshm_rx_ctl *)(p->engine.rx + p->layout.rx_ctl);
	ord_store(&tx->sq_tail, start);
	ord_store(&tx->cq_head, start);
	ord_store(&rx->sq_head, start);
	ord_store(&rx->cq_tail, start);
	wshm_client_close(&p->client);
	must(wshm_client_open(&p->client, &p->layout, p->tx_fd, p->ro_fd), "wshm_client_open");
	pair_restart_engine(p);
}

void pair_close(struct pair *p)
{
	wshm_client_close(&p->client);
	wshm_engine_close(&p->engine);
	close(p->tx_fd);
	close(p->rx_fd);
	close(p->ro_fd);
}

void pair_restart_engine(struct pair *p)
{
	wshm_engine_close(&p->engine);
	must(wshm_engine_open(&p->engine, &p->layout, p->tx_fd, p->rx_fd, true),
	     "wshm_engine_open");
}

struct wshm_tx_ctl *pair_tx_ctl(struct pair *p)
{
	return (struct wshm_tx_ctl *)(p->client.tx + p->layout.tx_ctl);
}

void pair_push_raw(struct pair *p, uint32_t tail, uint64_t entry)
{
	_Atomic uint64_t *ring = (_Atomic uint64_t *)(p->client.tx + p->layout.tx_ring);

	ord_store(&ring[(tail - 1) & (p->layout.ring_entries - 1)], entry);
	ord_store_seq(&pair_tx_ctl(p)->sq_tail, tail);
}

int pair_admit(struct pair *p, uint32_t *ret_slot, uint32_t *ret_generation)
{
	int rc = wshm_engine_peek(&p->engine, ret_slot, ret_generation);
	struct wshm_slot *s;
	uint32_t i;

	if (rc != 1)
		return rc;
	s = wshm_engine_slot(&p->engine, *ret_slot);
	for (i = 0; i < WSHM_MAX_SAMPLES; i++)
		ord_store(&s->count[i], 0);
	wshm_slot_admit(s, *ret_generation, WSHM_SLOT_QUEUED);
	wshm_engine_accept(&p->engine);
	return 1;
}

void pair_end(struct pair *p, uint32_t slot)
{
	wshm_slot_set_state(wshm_engine_slot(&p->engine, slot), WSHM_SLOT_ENDED);
	wshm_engine_publish(&p->engine, slot);
}

void *pair_shared_page(void)
{
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		bail_out("mmap");
	return page;
}

uint32_t pair_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return (uint32_t)(*state * UINT64_C(0x2545f4914f6cdd1d) >> 32);
}

void pair_spin(uint32_t n)
{
	while (n--)
		__asm__ volatile("" ::: "memory");
}

uint64_t pair_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}
