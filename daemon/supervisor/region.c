/* SPDX-License-Identifier: Apache-2.0 */
/* region.c - see region.h. Owned by weftd's only thread. */
#include "daemon/supervisor/region.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

void regions_init(struct regions *r, struct tenants *tenants)
{
	*r = (struct regions){.tenants = tenants};
}

static void region_free(struct regions *r, struct region *it)
{
	if (it->tx_fd >= 0)
		close(it->tx_fd);
	if (it->rx_fd >= 0)
		close(it->rx_fd);
	if (it->bytes) {
		tenants_discharge(r->tenants, it->uid, it->bytes);
		r->bytes -= it->bytes;
	}
	free(it);
}

void regions_fini(struct regions *r)
{
	while (r->dead) {
		struct region *it = r->dead;

		r->dead = it->next;
		region_free(r, it);
	}
	r->n_dead = 0;
}

/* Another open file of the same memory. */
static int reopen(int fd, int flags)
{
	char path[32];
	int again;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, flags | O_CLOEXEC);
	return again < 0 ? -errno : again;
}

/* Replace the descriptor that memfd_create() gave: the kernel does not count that one as a writer,
 * which F_SETLEASE relies on. */
static int adopt(int *fd)
{
	int again;

	if (fchmod(*fd, 0600))
		return -errno;
	again = reopen(*fd, O_RDWR);
	if (again < 0)
		return again;
	close(*fd);
	*fd = again;
	return 0;
}

/* Is ours the only open file? With the lease held nobody can open another meanwhile, so what it
 * holds is gone for good after the hole is punched, even if some O_PATH descriptor keeps the inode. */
static bool unreachable(int fd, uint64_t bytes)
{
	if (fcntl(fd, F_SETLEASE, F_WRLCK))
		return false;
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)bytes)) {
		fcntl(fd, F_SETLEASE, F_UNLCK);
		return false;
	}
	fcntl(fd, F_SETLEASE, F_UNLCK);
	return true;
}

static bool region_unreachable(const struct region *it)
{
	return unreachable(it->tx_fd, it->layout.tx_bytes) &&
	       unreachable(it->rx_fd, it->layout.rx_bytes);
}

void regions_sweep(struct regions *r, uid_t uid)
{
	struct region **at = &r->dead;

	while (*at) {
		struct region *it = *at;

		if ((uid != UINT32_MAX && it->uid != uid) || !region_unreachable(it)) {
			at = &it->next;
			continue;
		}
		*at = it->next;
		r->n_dead--;
		r->freed++;
		region_free(r, it);
	}
}

static bool same_sizes(const struct wshm_params *a, const struct wshm_params *b)
{
	return a->slots == b->slots && a->tx_arena_bytes == b->tx_arena_bytes &&
	       a->rx_arena_bytes == b->rx_arena_bytes;
}

/* A dead region of this uid and shape, wiped; NULL when there is none. */
static struct region *reuse(struct regions *r, const struct wshm_layout *layout, uid_t uid,
			    uint64_t session_id)
{
	for (struct region **at = &r->dead; *at; at = &(*at)->next) {
		struct region *it = *at;

		if (it->uid != uid || !same_sizes(&it->layout.params, &layout->params))
			continue;
		if (wshm_regions_reset(layout, session_id, it->tx_fd, it->rx_fd))
			continue;
		*at = it->next;
		it->next = NULL;
		r->n_dead--;
		r->reused++;
		return it;
	}
	return NULL;
}

static int make(struct regions *r, const struct wshm_layout *layout, uid_t uid, uint64_t session_id,
		struct region **ret)
{
	struct region *it = calloc(1, sizeof(*it));
	int err;

	if (!it)
		return -ENOMEM;
	*it = (struct region){.layout = *layout, .uid = uid, .tx_fd = -1, .rx_fd = -1};
	err = wshm_regions_new(layout, session_id, &it->tx_fd, &it->rx_fd);
	if (!err)
		err = adopt(&it->tx_fd);
	if (!err)
		err = adopt(&it->rx_fd);
	if (!err)
		err = tenants_charge(r->tenants, uid, layout->tx_bytes + layout->rx_bytes);
	if (err) {
		region_free(r, it);
		return err;
	}
	it->bytes = layout->tx_bytes + layout->rx_bytes;
	r->bytes += it->bytes;
	*ret = it;
	return 0;
}

/* 0, -EDQUOT or -ENOSPC. */
static int fits(const struct regions *r, uint64_t bytes, uid_t uid, const struct region_limits *l)
{
	if (tenants_charged(r->tenants, uid) + bytes > l->uid_bytes ||
	    tenants_regions(r->tenants, uid) >= l->uid_regions)
		return -EDQUOT;
	if (r->bytes + bytes > l->total_bytes || r->n_live + r->n_dead >= l->total_regions)
		return -ENOSPC;
	return 0;
}

/*
 * New memory as long as the limits allow it: a program whose session ended may still be reading
 * its results in a dead region, and using that again would wipe them.
 */
int region_get(struct regions *r, const struct wshm_layout *layout, uid_t uid, uint64_t session_id,
	       const struct region_limits *limits, struct region **ret)
{
	uint64_t bytes = layout->tx_bytes + layout->rx_bytes;
	struct region *it = NULL;
	int err;

	if (fits(r, bytes, uid, limits))
		regions_sweep(r, uid);
	if (fits(r, bytes, uid, limits))
		it = reuse(r, layout, uid, session_id);
	if (!it && fits(r, bytes, uid, limits))
		regions_sweep(r, UINT32_MAX);
	if (!it) {
		err = fits(r, bytes, uid, limits);
		if (!err)
			err = make(r, layout, uid, session_id, &it);
		if (err)
			return err;
	}
	r->n_live++;
	*ret = it;
	return 0;
}

int region_open_client(const struct region *it, int *ret_tx_fd, int *ret_rx_fd)
{
	int tx = reopen(it->tx_fd, O_RDWR), rx;

	if (tx < 0)
		return tx;
	rx = wshm_open_read_only(it->rx_fd);
	if (rx < 0) {
		close(tx);
		return rx;
	}
	*ret_tx_fd = tx;
	*ret_rx_fd = rx;
	return 0;
}

void region_put(struct regions *r, struct region *it)
{
	if (!it)
		return;
	r->n_live--;
	if (region_unreachable(it)) {
		r->freed++;
		region_free(r, it);
		return;
	}
	/* As it is: a client whose session has ended through no fault of its own submits again from
	 * what stands in tx, and reads its results in rx. The pages are charged to it until then. */
	it->next = r->dead;
	r->dead = it;
	r->n_dead++;
}
