/* SPDX-License-Identifier: Apache-2.0 */
/*
 * region.c - make, seal, check and wipe the memfds that processes share.
 *
 * weftd makes every region; nobody maps a file that a client made. The seals keep the size fixed,
 * so no access to a mapping can fault; mode 0600 and the read-only descriptor keep clients of
 * another uid from writing rx by any road: mprotect, write, truncate, punching holes, chmod, or
 * opening /proc/self/fd anew. F_SEAL_FUTURE_WRITE would shut out a restarted engine as well.
 *
 * No state; the caller owns every descriptor.
 */
#include "shm/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U /* Linux 6.3; older kernels refuse it with EINVAL */
#endif

#define REGION_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static void section(struct wshm_hdr *h, uint32_t id, uint32_t entries, uint64_t off, uint64_t end)
{
	h->sections[h->n_sections++] =
		(struct wshm_section){.id = id, .entries = entries, .off = off, .bytes = end - off};
}

void wshm_hdr_make(struct wshm_hdr *ret, const struct wshm_layout *l, uint64_t session_id,
		   bool is_tx)
{
	uint32_t slots = l->params.slots, ring = l->ring_entries;
	struct wshm_hdr h = {
		.magic = is_tx ? WSHM_MAGIC_TX : WSHM_MAGIC_RX,
		.major = WSHM_MAJOR,
		.minor = WSHM_MINOR,
		.hdr_bytes = sizeof(h),
		.total_bytes = is_tx ? l->tx_bytes : l->rx_bytes,
		.session_id = session_id,
	};

	if (is_tx) {
		section(&h, WSHM_SEC_CTL, 1, l->tx_ctl, l->tx_ctl + sizeof(struct wshm_tx_ctl));
		section(&h, WSHM_SEC_RING, ring, l->tx_ring, l->tx_ring + ring * sizeof(uint64_t));
		section(&h, WSHM_SEC_TABLE, slots, l->tx_table,
			l->tx_table + slots * sizeof(struct wshm_req));
		section(&h, WSHM_SEC_ARENA, 0, l->tx_arena, l->tx_bytes);
	} else {
		section(&h, WSHM_SEC_CTL, 1, l->rx_ctl, l->rx_ctl + sizeof(struct wshm_rx_ctl));
		section(&h, WSHM_SEC_RING, ring, l->rx_ring, l->rx_ring + ring * sizeof(uint64_t));
		section(&h, WSHM_SEC_TABLE, slots, l->rx_table,
			l->rx_table + slots * sizeof(struct wshm_slot));
		section(&h, WSHM_SEC_ARENA, 0, l->rx_arena, l->rx_bytes);
	}
	*ret = h;
}

static int write_header(int fd, const struct wshm_hdr *h)
{
	ssize_t n = pwrite(fd, h, sizeof(*h), 0);

	if (n < 0)
		return -errno;
	return n == sizeof(*h) ? 0 : -EIO;
}

int wshm_region_make(const char *name, const struct wshm_hdr *h)
{
	int fd, rc;

	fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	if (fchmod(fd, 0600) || ftruncate(fd, (off_t)h->total_bytes)) {
		rc = -errno;
		goto fail;
	}
	rc = write_header(fd, h);
	if (rc)
		goto fail;
	if (fcntl(fd, F_ADD_SEALS, REGION_SEALS)) {
		rc = -errno;
		goto fail;
	}
	return fd;
fail:
	close(fd);
	return rc;
}

static int region_new(const struct wshm_layout *l, uint64_t session_id, bool is_tx)
{
	struct wshm_hdr h;

	wshm_hdr_make(&h, l, session_id, is_tx);
	return wshm_region_make(is_tx ? "weft-tx" : "weft-rx", &h);
}

int wshm_regions_new(const struct wshm_layout *layout, uint64_t session_id, int *ret_tx_fd,
		     int *ret_rx_fd)
{
	int tx, rx;

	tx = region_new(layout, session_id, true);
	if (tx < 0)
		return tx;
	rx = region_new(layout, session_id, false);
	if (rx < 0) {
		close(tx);
		return rx;
	}
	*ret_tx_fd = tx;
	*ret_rx_fd = rx;
	return 0;
}

int wshm_open_read_only(int rx_fd)
{
	char path[40];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", rx_fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Punching out the whole file frees its pages; holes read as zeros. */
static int wipe(int fd, uint64_t bytes)
{
	return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, bytes) ? -errno : 0;
}

int wshm_regions_reset(const struct wshm_layout *layout, uint64_t session_id, int tx_fd, int rx_fd)
{
	struct wshm_hdr h;
	int rc;

	rc = wshm_region_check(tx_fd, layout->tx_bytes);
	if (!rc)
		rc = wshm_region_check(rx_fd, layout->rx_bytes);
	if (!rc)
		rc = wipe(tx_fd, layout->tx_bytes);
	if (!rc)
		rc = wipe(rx_fd, layout->rx_bytes);
	wshm_hdr_make(&h, layout, session_id, true);
	if (!rc)
		rc = write_header(tx_fd, &h);
	wshm_hdr_make(&h, layout, session_id, false);
	if (!rc)
		rc = write_header(rx_fd, &h);
	return rc;
}

int wshm_region_check(int fd, uint64_t bytes)
{
	struct statfs fs;
	struct stat st;
	int seals;

	if (fstat(fd, &st) || fstatfs(fd, &fs))
		return -errno;
	/* A memfd of ordinary pages lives on tmpfs; one of huge pages could be punched to fault. */
	if (!S_ISREG(st.st_mode) || fs.f_type != TMPFS_MAGIC)
		return -EPROTO;
	if (st.st_size < 0 || (uint64_t)st.st_size != bytes)
		return -EPROTO;
	seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || (seals & REGION_SEALS) != REGION_SEALS)
		return -EPROTO;
	return 0;
}

int wshm_map(int fd, uint64_t bytes, int prot, void **ret)
{
	void *p = mmap(NULL, bytes, prot, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		return -errno;
	*ret = p;
	return 0;
}
