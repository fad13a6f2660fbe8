/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_other_uid.c - a client of another uid cannot write rx by any road.
 *
 * Each attack is first tried on a memfd without protection, to see that it would work there: a
 * failure for some other reason would prove nothing.
 */
#include "tests/shm/pair.h"
#include "tests/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define BYTES 8192

/* Each attack returns whether it got through. All see a descriptor and a read-only mapping. */
struct target {
	int fd;
	uint8_t *map;
};

static bool reopened(struct target t, int flags)
{
	char path[40];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", t.fd);
	fd = open(path, flags);
	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static bool map_writable(struct target t)
{
	return mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, t.fd, 0) != MAP_FAILED;
}

static bool mprotect_writable(struct target t)
{
	return !mprotect(t.map, BYTES, PROT_READ | PROT_WRITE);
}

static bool write_at(struct target t)
{
	return pwrite(t.fd, "x", 1, 4096) == 1;
}

static bool truncate_it(struct target t)
{
	return !ftruncate(t.fd, BYTES);
}

static bool punch(struct target t)
{
	return !fallocate(t.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096);
}

static bool chmod_it(struct target t)
{
	return !fchmod(t.fd, 0666);
}

static bool chown_it(struct target t)
{
	return !fchown(t.fd, getuid(), -1);
}

static bool reopen_rdwr(struct target t)
{
	return reopened(t, O_RDWR);
}

static bool reopen_wronly(struct target t)
{
	return reopened(t, O_WRONLY);
}

static bool reopen_trunc(struct target t)
{
	return reopened(t, O_RDONLY | O_TRUNC);
}

static bool vm_write(struct target t)
{
	struct iovec from = {.iov_base = "x", .iov_len = 1}, to = {.iov_base = t.map, .iov_len = 1};

	return process_vm_writev(getpid(), &from, 1, &to, 1, 0) == 1;
}

static bool proc_mem_write(struct target t)
{
	int fd = open("/proc/self/mem", O_RDWR);
	bool done = fd >= 0 && pwrite(fd, "x", 1, (off_t)(uintptr_t)t.map) == 1;

	close(fd);
	return done;
}

static bool seal(struct target t)
{
	return !fcntl(t.fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE);
}

static const struct attack {
	const char *name;
	bool (*run)(struct target);
} attacks[] = {
	{"mapping it writable", map_writable},
	{"write", write_at},
	{"truncation", truncate_it},
	{"punching a hole", punch},
	{"opening it anew for reading and writing", reopen_rdwr},
	{"opening it anew for writing", reopen_wronly},
	{"mprotect of the mapping", mprotect_writable},
	{"process_vm_writev", vm_write},
	{"/proc/self/mem", proc_mem_write},
	{"sealing", seal},
	{"chown", chown_it},
	{"chmod", chmod_it},
	{"opening it anew with O_TRUNC", reopen_trunc}, /* last: it leaves nothing to write to */
};

#define N_ATTACKS (sizeof(attacks) / sizeof(attacks[0]))

/* Run every attack in a child of uid 65534; bit i of the result: attack i got through. */
static uint32_t attack_as_other(int fd, int map_prot)
{
	uint32_t *got = pair_shared_page(), result;
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		struct target t = {.fd = fd};
		uint32_t i;

		if (setgroups(0, NULL) || setresgid(65534, 65534, 65534) ||
		    setresuid(65534, 65534, 65534))
			_exit(1);
		/* Without this /proc/self would belong to root and fail for that reason. */
		prctl(PR_SET_DUMPABLE, 1);
		t.map = mmap(NULL, BYTES, map_prot, MAP_SHARED, fd, 0);
		if (t.map == MAP_FAILED)
			_exit(2);
		for (i = 0; i < N_ATTACKS; i++)
			*got |= (uint32_t)attacks[i].run(t) << i;
		_exit(0);
	}
	waitpid(pid, &status, 0);
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		bail_out("the other uid's process failed");
	result = *got;
	munmap(got, 4096);
	return result;
}

int main(void)
{
	uint32_t i, control, real;
	uint8_t before;
	struct pair p;
	int open_fd;

	if (geteuid())
		skip_all("needs root, to become another uid");
	pair_open(&p, 8, 0);
	open_fd = memfd_create("unprotected", MFD_ALLOW_SEALING);
	if (open_fd < 0 || ftruncate(open_fd, BYTES) || fchmod(open_fd, 0666) ||
	    fchown(open_fd, 65534, 65534))
		bail_out("memfd");
	control = attack_as_other(open_fd, PROT_READ | PROT_WRITE);
	before = p.engine.rx[4096];
	real = attack_as_other(p.ro_fd, PROT_READ);
	for (i = 0; i < N_ATTACKS; i++) {
		ok(control >> i & 1, "without protection %s works", attacks[i].name);
		ok(!(real >> i & 1), "on rx %s fails", attacks[i].name);
	}
	is_int(p.engine.rx[4096], before, "rx is unchanged");
	close(open_fd);
	pair_close(&p);
	return tap_done();
}
