/* SPDX-License-Identifier: Apache-2.0 */
/* test_header.c - the client refuses a region whose header is off in any byte. */
#include "tests/shm/pair.h"
#include "tests/tap.h"

#include <errno.h>
#include <unistd.h>

/* Flip each bit of the header behind fd; return how many flips a client accepted. */
static int accepted_flips(struct pair *p, int fd, uint32_t from, uint32_t to)
{
	struct wshm_client c;
	int accepted = 0;
	uint32_t i, bit;
	uint8_t byte, bad;

	for (i = from; i < to; i++)
		for (bit = 0; bit < 8; bit++) {
			if (pread(fd, &byte, 1, i) != 1)
				bail_out("pread");
			bad = byte ^ 1u << bit;
			if (pwrite(fd, &bad, 1, i) != 1)
				bail_out("pwrite");
			if (wshm_client_open(&c, &p->layout, p->tx_fd, p->ro_fd) != -EPROTO)
				accepted++;
			wshm_client_close(&c);
			if (pwrite(fd, &byte, 1, i) != 1)
				bail_out("pwrite");
		}
	return accepted;
}

int main(void)
{
	const uint32_t minor = offsetof(struct wshm_hdr, minor);
	struct wshm_layout other;
	struct wshm_params params;
	struct wshm_client c;
	struct pair p;

	pair_open(&p, 8, 0);
	is_int(accepted_flips(&p, p.tx_fd, 0, minor), 0, "tx: magic and major");
	is_int(accepted_flips(&p, p.tx_fd, minor, minor + 2), 15,
	       "tx: a higher minor is accepted, the lower is not");
	is_int(accepted_flips(&p, p.tx_fd, minor + 2, sizeof(struct wshm_hdr)), 0,
	       "tx: every other bit");
	is_int(accepted_flips(&p, p.rx_fd, 0, minor), 0, "rx: magic and major");
	is_int(accepted_flips(&p, p.rx_fd, minor, minor + 2), 15, "rx: minor");
	is_int(accepted_flips(&p, p.rx_fd, minor + 2, sizeof(struct wshm_hdr)), 0,
	       "rx: every other bit");

	params = p.layout.params;
	params.slots = 4; /* same sizes after rounding up to pages, other offsets */
	wshm_layout_init(&other, &params);
	is_int(other.tx_bytes, p.layout.tx_bytes, "another layout of the same size");
	is_int(wshm_client_open(&c, &other, p.tx_fd, p.ro_fd), -EPROTO, "is refused");
	ok(wshm_client_open(&c, &p.layout, p.rx_fd, p.tx_fd) == -EPROTO, "regions swapped");
	is_int(wshm_client_open(&c, &p.layout, p.ro_fd, p.ro_fd), -EACCES, "tx read-only");
	is_int(wshm_client_open(&c, &p.layout, p.tx_fd, p.ro_fd), 0, "untouched: accepted");
	wshm_client_close(&c);
	wshm_client_close(&c);
	pair_close(&p);
	return tap_done();
}
