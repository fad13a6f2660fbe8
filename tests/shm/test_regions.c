/* SPDX-License-Identifier: Apache-2.0 */
/* test_regions.c - seals, mode and sizes of new regions; what a receiver refuses; wiping. */
#include "tests/shm/pair.h"
#include "tests/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static void test_made(struct pair *p)
{
	int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	struct stat tx, rx;

	fstat(p->tx_fd, &tx);
	fstat(p->rx_fd, &rx);
	is_int(tx.st_size, p->layout.tx_bytes, "tx has its size");
	is_int(rx.st_size, p->layout.rx_bytes, "rx has its size");
	is_int(rx.st_mode & 07777, 0600, "rx is mode 0600");
	is_int(tx.st_mode & 07777, 0600, "tx is mode 0600");
	is_int(fcntl(p->tx_fd, F_GET_SEALS) & seals, seals, "tx is sealed");
	is_int(fcntl(p->rx_fd, F_GET_SEALS) & seals, seals, "rx is sealed");
	ok(ftruncate(p->tx_fd, 0) && errno == EPERM, "even its maker cannot shrink tx");
	ok(ftruncate(p->rx_fd, 1 << 24) && errno == EPERM, "even its maker cannot grow rx");
	ok(fcntl(p->tx_fd, F_ADD_SEALS, F_SEAL_WRITE) && errno == EPERM, "no seal can be added");
	is_int(fcntl(p->tx_fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC, "tx closes on exec");
	is_int(fcntl(p->rx_fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC, "rx closes on exec");
	is_int(fcntl(p->ro_fd, F_GETFL) & O_ACCMODE, O_RDONLY, "the client's rx is read-only");
	is_int(fcntl(p->ro_fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC, "and closes on exec");
}

/* A memfd of this size with these seals. */
static int memfd(uint64_t bytes, int seals)
{
	int fd = memfd_create("t", MFD_ALLOW_SEALING | MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, bytes) || fcntl(fd, F_ADD_SEALS, seals))
		bail_out("memfd");
	return fd;
}

static void refused(int fd, const char *what)
{
	is_int(wshm_region_check(fd, 8192), -EPROTO, "refused: %s", what);
	close(fd);
}

static void test_check(void)
{
	int all = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL, fds[2], fd;
	char path[] = "/tmp/weft-region-XXXXXX";

	fd = memfd(8192, all);
	is_int(wshm_region_check(fd, 8192), 0, "a sealed memfd of the right size");
	is_int(wshm_region_check(fd, 4096), -EPROTO, "refused: larger than stated");
	is_int(wshm_region_check(fd, 16384), -EPROTO, "refused: smaller than stated");
	is_int(wshm_region_check(fd, UINT64_C(1) << 63), -EPROTO, "refused: an absurd size");
	close(fd);
	refused(memfd(8192, F_SEAL_GROW | F_SEAL_SEAL), "can shrink");
	refused(memfd(8192, F_SEAL_SHRINK | F_SEAL_SEAL), "can grow");
	refused(memfd(8192, F_SEAL_SHRINK | F_SEAL_GROW), "seals can be added");
	if (pipe(fds))
		bail_out("pipe");
	refused(fds[0], "a pipe");
	close(fds[1]);
	refused(open("/", O_RDONLY), "a folder");
	refused(open("/dev/zero", O_RDWR), "a device");
	fd = mkstemp(path);
	if (fd < 0 || ftruncate(fd, 8192))
		bail_out("mkstemp");
	unlink(path);
	refused(fd, "an ordinary file");
	is_int(wshm_region_check(-1, 8192), -EBADF, "not a descriptor");
}

static void test_reset(struct pair *p)
{
	int fd = memfd(p->layout.rx_bytes, 0);
	uint32_t i, bad = 0, slot, gen;

	memset(wshm_client_tx_arena(&p->client), 0x5a, p->layout.params.tx_arena_bytes);
	memset(wshm_engine_rx_arena(&p->engine), 0x5a, p->layout.params.rx_arena_bytes);
	wshm_client_req_write(&p->client, 3, 9, 16, 32);
	wshm_client_submit(&p->client, 3, 9);
	pair_admit(p, &slot, &gen);
	pair_end(p, slot);
	is_int(wshm_regions_reset(&p->layout, 43, p->tx_fd, p->rx_fd), 0, "wiped");
	for (i = sizeof(struct wshm_hdr); i < p->layout.tx_bytes; i++)
		bad += p->client.tx[i] != 0;
	is_int(bad, 0, "tx is all zero after its header");
	for (i = sizeof(struct wshm_hdr); i < p->layout.rx_bytes; i++)
		bad += p->client.rx[i] != 0;
	is_int(bad, 0, "rx is all zero after its header");
	wshm_client_close(&p->client);
	is_int(wshm_client_open(&p->client, &p->layout, p->tx_fd, p->ro_fd), 0,
	       "and the pair serves again");
	is_int(((const struct wshm_hdr *)p->client.rx)->session_id, 43, "as the new session");
	is_int(wshm_regions_reset(&p->layout, 44, p->tx_fd, fd), -EPROTO,
	       "not when a descriptor is the wrong one");
	close(fd);
}

static uint32_t open_descriptors(void)
{
	uint32_t n = 0;
	int fd;

	for (fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* With room for 0, 1, 2... more descriptors: fails cleanly until there is enough. */
static void test_descriptors_run_out(const struct wshm_layout *layout)
{
	uint32_t before = open_descriptors(), room, left_open = 0, failed = 0;
	struct rlimit was, few;
	int tx = -1, rx = -1, rc;

	getrlimit(RLIMIT_NOFILE, &was);
	few = was;
	for (room = 0; room < 3; room++) {
		few.rlim_cur = before + room;
		setrlimit(RLIMIT_NOFILE, &few);
		rc = wshm_regions_new(layout, 1, &tx, &rx);
		if (!rc)
			break;
		failed += rc == -EMFILE && tx == -1 && rx == -1;
		left_open += open_descriptors() != before;
	}
	setrlimit(RLIMIT_NOFILE, &was);
	is_int(room, 2, "two descriptors are needed");
	is_int(failed, 2, "with fewer it fails, outputs untouched");
	is_int(left_open, 0, "and leaves nothing open");
	close(tx);
	close(rx);
}

/* As a process that may map no more. */
static void test_mappings_run_out(struct pair *p)
{
	struct wshm_client c;
	struct wshm_engine e;
	struct rlimit was, none;

	getrlimit(RLIMIT_AS, &was);
	none = was;
	none.rlim_cur = 1;
	setrlimit(RLIMIT_AS, &none);
	is_int(wshm_client_open(&c, &p->layout, p->tx_fd, p->ro_fd), -ENOMEM,
	       "no room to map: the client says so");
	is_int(wshm_engine_open(&e, &p->layout, p->tx_fd, p->rx_fd, false), -ENOMEM,
	       "and the engine");
	setrlimit(RLIMIT_AS, &was);
	ok(!c.tx && !c.rx && !e.tx && !e.rx && !e.generation, "nothing is left behind");
}

int main(void)
{
	struct pair p;

	close_range(3, UINT_MAX, 0); /* what was inherited: descriptors are counted below */
	pair_open(&p, 8, 0);
	test_made(&p);
	test_check();
	test_reset(&p);
	test_descriptors_run_out(&p.layout);
	test_mappings_run_out(&p);
	pair_close(&p);
	return tap_done();
}
