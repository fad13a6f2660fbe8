/* SPDX-License-Identifier: Apache-2.0 */
/* idx_world.c - see idx_world.h. */
#include "tests/shm/idx_world.h"
#include "tests/tap.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

const uint8_t idx_world_secret[WSHM_SECRET_BYTES] = {3, 1, 4, 1, 5, 9, [190] = 2, 6};
const struct wshm_root idx_world_root = {.model = {0x1111, 0x2222}, .exactness = 0x3333};

static void must(int cond, const char *what)
{
	if (!cond)
		bail_out(what);
}

void idx_world_open(struct idx_world *x)
{
	*x = (struct idx_world){.fd = wshm_idx_new(7)};
	must(x->fd >= 0, "wshm_idx_new");
	x->ro_fd = wshm_open_read_only(x->fd);
	must(x->ro_fd >= 0, "wshm_open_read_only");
	must(!wshm_idx_writer_open(&x->w, x->fd, idx_world_secret, &idx_world_root),
	     "wshm_idx_writer_open");
	must(!wshm_idx_reader_open(&x->r, x->ro_fd), "wshm_idx_reader_open");
}

void idx_world_close(struct idx_world *x)
{
	wshm_idx_reader_close(&x->r);
	wshm_idx_writer_close(x->w);
	close(x->fd);
	close(x->ro_fd);
}

void idx_world_restart(struct idx_world *x)
{
	wshm_idx_writer_close(x->w);
	must(!wshm_idx_writer_open(&x->w, x->fd, idx_world_secret, &idx_world_root),
	     "wshm_idx_writer_open");
}

/* splitmix64 */
static uint64_t mix(uint64_t z)
{
	z += UINT64_C(0x9e3779b97f4a7c15);
	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

struct wshm_key idx_world_key(uint64_t n)
{
	return (struct wshm_key){mix(2 * n), mix(2 * n + 1)};
}

uint32_t idx_world_look(const struct wshm_idx_reader *r, const struct wshm_key *key)
{
	uint8_t tier;

	wshm_idx_lookup(r, key, 1, &tier);
	return tier;
}

uint64_t idx_world_bytes(const struct idx_world *x)
{
	struct stat st;

	must(!fstat(x->fd, &st), "fstat");
	return (uint64_t)st.st_blocks * 512;
}

uint8_t *idx_world_map(const struct idx_world *x)
{
	void *p = mmap(NULL, WSHM_IDX_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, x->fd, 0);

	must(p != MAP_FAILED, "mmap");
	return p;
}
