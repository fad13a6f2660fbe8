/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The regions that a real weftd hands out, in the hands of another uid: no road leads to writing
 * rx or an index; tx may be emptied, punched and unmapped under the engine but neither shrunk nor unsealed; no
 * tenant finds a way to another's memory.
 */
#include "tests/hostile/raw.h"
#include "tests/hostile/world.h"
#include "tests/tap.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static struct world *w;

/* --- rx: each attack says whether it got through --------------------------------------------------*/

static int open_again(int fd, int flags)
{
	char path[40];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, flags | O_CLOEXEC);
}

static bool by_mmap(struct raw *r)
{
	return mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, r->rx_fd, 0) != MAP_FAILED;
}

static bool by_mprotect(struct raw *r)
{
	return !mprotect((void *)(uintptr_t)r->rx, 4096, PROT_READ | PROT_WRITE);
}

static bool by_pwrite(struct raw *r)
{
	return pwrite(r->rx_fd, "x", 1, 4096) == 1;
}

static bool by_pwritev(struct raw *r)
{
	struct iovec v = {"x", 1};

	return pwritev2(r->rx_fd, &v, 1, 4096, 0) == 1;
}

static bool by_ftruncate(struct raw *r)
{
	return !ftruncate(r->rx_fd, 0) || !ftruncate(r->rx_fd, (off_t)r->rx_bytes);
}

static bool by_punching(struct raw *r)
{
	return !fallocate(r->rx_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096);
}

static bool by_zeroing(struct raw *r)
{
	return !fallocate(r->rx_fd, FALLOC_FL_ZERO_RANGE, 0, 4096);
}

static bool by_removing(struct raw *r)
{
	return !madvise((void *)(uintptr_t)r->rx, 4096, MADV_REMOVE);
}

static bool by_fchmod(struct raw *r)
{
	return !fchmod(r->rx_fd, 0666);
}

static bool by_fchown(struct raw *r)
{
	return !fchown(r->rx_fd, getuid(), getgid());
}

static bool by_reopening(struct raw *r)
{
	return open_again(r->rx_fd, O_RDWR) >= 0 || open_again(r->rx_fd, O_WRONLY) >= 0 ||
	       open_again(r->rx_fd, O_RDONLY | O_TRUNC) >= 0;
}

static bool by_fcntl(struct raw *r)
{
	/* F_SETFL cannot change the access mode; a mapping afterwards would show that it did. */
	fcntl(r->rx_fd, F_SETFL, O_RDWR);
	return by_mmap(r) || !fcntl(r->rx_fd, F_ADD_SEALS, F_SEAL_WRITE);
}

static bool by_remap(struct raw *r)
{
	void *p = mremap((void *)(uintptr_t)r->rx, 0, r->rx_bytes, MREMAP_MAYMOVE);

	return p != MAP_FAILED && !mprotect(p, 4096, PROT_READ | PROT_WRITE);
}

static bool by_ptrace_write(struct raw *r)
{
	struct iovec from = {"x", 1}, to = {(void *)(uintptr_t)r->rx, 1};
	int fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	bool done = process_vm_writev(getpid(), &from, 1, &to, 1, 0) == 1;

	done |= fd >= 0 && pwrite(fd, "x", 1, (off_t)(uintptr_t)r->rx) == 1;
	if (fd >= 0)
		close(fd);
	return done;
}

static bool by_splice(struct raw *r)
{
	int p[2];
	bool done = false;

	if (pipe(p))
		return false;
	if (write(p[1], "xxxx", 4) == 4)
		done = splice(p[0], NULL, r->rx_fd, &(loff_t){4096}, 4, 0) > 0;
	close(p[0]);
	close(p[1]);
	return done;
}

static const struct {
	const char *name;
	bool (*run)(struct raw *);
} roads[] = {
	{"mapping it writable", by_mmap},
	{"mprotect", by_mprotect},
	{"pwrite", by_pwrite},
	{"pwritev2", by_pwritev},
	{"ftruncate", by_ftruncate},
	{"punching a hole", by_punching},
	{"zeroing a range", by_zeroing},
	{"MADV_REMOVE", by_removing},
	{"fchmod", by_fchmod},
	{"fchown", by_fchown},
	{"reopening through /proc", by_reopening},
	{"fcntl", by_fcntl},
	{"a second mapping by mremap", by_remap},
	{"process_vm_writev and /proc/self/mem", by_ptrace_write},
	{"splice", by_splice},
};
#define N_ROADS (sizeof(roads) / sizeof(*roads))

static void become_other(void)
{
	if (setgroups(0, NULL) || setresgid(WORLD_OTHER_UID, WORLD_OTHER_UID, WORLD_OTHER_UID) ||
	    setresuid(WORLD_OTHER_UID, WORLD_OTHER_UID, WORLD_OTHER_UID))
		_exit(100);
	/* Else /proc/self would be root's and attacks fail for that reason alone. */
	prctl(PR_SET_DUMPABLE, 1);
}

/* The regions that a client may read only. The roads lead to whatever stands as rx. */
enum { RX, OWN_INDEX, PUBLIC_INDEX, N_READ_ONLY };
static const char *const read_only[N_READ_ONLY] = {"rx", "the index", "the public index"};

static uint64_t try_roads(struct raw *r, int fd, const uint8_t *base, uint64_t bytes)
{
	struct raw as_rx = *r;
	uint64_t got = 0;

	as_rx.rx_fd = fd;
	as_rx.rx = base ? base : mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
	as_rx.rx_bytes = bytes;
	for (size_t i = 0; i < N_ROADS; i++)
		got |= (uint64_t)roads[i].run(&as_rx) << i;
	return got;
}

/* Of each region, bit i: road i led there. Of the first, bit 63: the session did not even work. */
static void read_only_as_other(uint64_t ret[N_READ_ONLY])
{
	uint64_t *got = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid = fork();
	int status;

	if (!pid) {
		struct raw r;

		become_other();
		if (raw_open(&r, world_socket(w), RAW_ANY_UID, 4) || !raw_alive(&r, 0, 1)) {
			*got = UINT64_C(1) << 63;
			_exit(0);
		}
		got[RX] = try_roads(&r, r.rx_fd, r.rx, r.rx_bytes);
		got[OWN_INDEX] = try_roads(&r, r.index_fd, NULL, wshm_idx_bytes());
		got[PUBLIC_INDEX] = try_roads(&r, r.public_fd, NULL, wshm_idx_bytes());
		/* The session must have survived all of it. */
		*got |= (uint64_t)!raw_alive(&r, 0, 2) << 62;
		_exit(0);
	}
	waitpid(pid, &status, 0);
	memcpy(ret, got, N_READ_ONLY * sizeof(*ret));
	if (status)
		ret[RX] = UINT64_C(1) << 63;
	munmap(got, 4096);
}

static void read_only_roads(void)
{
	uint64_t got[N_READ_ONLY];

	if (geteuid()) {
		skip(N_READ_ONLY * (int)N_ROADS + 2, "only root can be another user");
		return;
	}
	read_only_as_other(got);
	ok(!(got[RX] >> 63), "a session of another uid works");
	for (int k = 0; k < N_READ_ONLY; k++)
		for (size_t i = 0; i < N_ROADS; i++)
			ok(!(got[k] >> i & 1), "%s cannot be written: %s", read_only[k],
			   roads[i].name);
	ok(!(got[RX] >> 62 & 1), "and the session works after all of it");
}

/* Each tenant has an index of its own, with a secret of its own; the public one is the same. */
static void indexes_apart(void)
{
	uint8_t secret[2][2][WSHM_SECRET_BYTES];
	struct stat st[2][2];
	bool read = true;

	if (geteuid()) {
		skip(5, "only root can be another user");
		return;
	}
	for (int who = 0; who < 2; who++) {
		struct raw r;

		if (raw_open(&r, world_socket(w), who ? world_attacker() : RAW_ANY_UID, 4))
			bail_out("a raw client is refused");
		for (int which = 0; which < 2; which++) {
			struct wshm_idx_reader reader;
			struct wshm_root root;
			int fd = which ? r.public_fd : r.index_fd;

			fstat(fd, &st[who][which]);
			read = !wshm_idx_reader_open(&reader, fd) &&
			       wshm_idx_secret(&reader, secret[who][which], &root) && read;
			wshm_idx_reader_close(&reader);
		}
		raw_close(&r);
	}
	ok(read, "indexes can be read");
	ok(st[0][0].st_ino != st[1][0].st_ino, "two tenants have two indexes");
	ok(memcmp(secret[0][0], secret[1][0], WSHM_SECRET_BYTES) != 0, "with different secrets");
	ok(st[0][1].st_ino == st[1][1].st_ino &&
		   !memcmp(secret[0][1], secret[1][1], WSHM_SECRET_BYTES),
	   "and one that is public");
	ok(memcmp(secret[0][0], secret[0][1], WSHM_SECRET_BYTES) != 0,
	   "whose secret is not a tenant's");
}

/* --- tx -------------------------------------------------------------------------------------------*/

static void tx_seals(void)
{
	struct raw r;
	int seals;

	if (raw_open(&r, world_socket(w), world_attacker(), 4))
		bail_out("a raw client is refused");
	seals = fcntl(r.tx_fd, F_GET_SEALS);
	ok((seals & (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) ==
		   (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL),
	   "tx cannot change its size or seals");
	ok(ftruncate(r.tx_fd, 0) && errno == EPERM, "shrinking tx is refused");
	ok(ftruncate(r.tx_fd, (off_t)r.tx_bytes * 2) && errno == EPERM, "growing tx is refused");
	ok(fcntl(r.tx_fd, F_ADD_SEALS, F_SEAL_WRITE), "sealing tx against the daemon is refused");
	seals = fcntl(r.rx_fd, F_GET_SEALS);
	ok((seals & (F_SEAL_SHRINK | F_SEAL_GROW)) == (F_SEAL_SHRINK | F_SEAL_GROW),
	   "rx cannot change its size");
	ok(raw_alive(&r, 0, 1), "the session works");
	raw_close(&r);
}

struct puncher {
	struct raw *r;
	_Atomic bool stop;
	uint64_t punched;
};

/* Whole pages vanish under the engine, arena first, the rings and records too. */
static void *punch_always(void *arg)
{
	struct puncher *p = arg;
	off_t arena = (off_t)(p->r->tx_arena - p->r->tx), bytes = (off_t)p->r->tx_bytes;

	while (!atomic_load(&p->stop)) {
		off_t at = arena + (off_t)(p->punched * 4096) % (bytes - arena);

		if (p->punched % 2)
			fallocate(p->r->tx_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at,
				  4096);
		else
			madvise(p->r->tx + at, 4096, MADV_REMOVE);
		p->punched++;
	}
	return NULL;
}

static void tx_punched(const struct neighbours *n)
{
	uint32_t ended = 0, tries = 400 / world_slowness();
	struct puncher p = {0};
	struct raw r;
	pthread_t t;

	if (raw_open(&r, world_socket(w), world_attacker(), 4))
		bail_out("a raw client is refused");
	p.r = &r;
	if (pthread_create(&t, NULL, punch_always, &p))
		bail_out("no thread");
	for (uint32_t g = 1; g <= tries; g++)
		ended += raw_request(&r, g % 4, g, 1000, 1) >= 0;
	atomic_store(&p.stop, true);
	pthread_join(t, NULL);
	is_int(ended, tries, "requests whose prompts are punched away end (%llu holes)",
	       (unsigned long long)p.punched);
	raw_close(&r);
	/* All of it at once: records and rings become zeros. */
	if (raw_open(&r, world_socket(w), world_attacker(), 4))
		bail_out("a raw client is refused");
	raw_submit(&r, 0, 1, 1, 20, 400);
	raw_wait_count(&r, 0, 1, 3, RAW_PATIENCE_MS);
	ok(!fallocate(r.tx_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)r.tx_bytes),
	   "all of tx is emptied in mid-stream");
	raw_wake(&r);
	ok(raw_ended(&r, RAW_PATIENCE_MS), "that is a tail that went back: the session ends");
	ok(neighbours_advance(n, 2, RAW_PATIENCE_MS), "the neighbours go on");
	raw_close(&r);
}

/* --- tenants --------------------------------------------------------------------------------------*/

/* As another uid: can anything of weftd's, the engine's or an honest client's be opened? */
static void others_memory(void)
{
	pid_t victims[3] = {world_daemon(w), world_engine(w), getpid()}, pid;
	struct raw mine;
	int status;

	if (geteuid()) {
		skip(2, "only root can be another user");
		return;
	}
	if (raw_open(&mine, world_socket(w), RAW_ANY_UID, 2))
		bail_out("a raw client is refused");
	fflush(stdout);
	pid = fork();
	if (!pid) {
		int through = 0;

		become_other();
		for (int v = 0; v < 3; v++)
			for (int fd = 0; fd < 64; fd++) {
				char path[48];

				snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)victims[v], fd);
				through += open(path, O_RDONLY | O_CLOEXEC) >= 0;
			}
		for (int v = 0; v < 3; v++) {
			char byte;
			struct iovec to = {&byte, 1}, from = {(void *)(uintptr_t)mine.rx, 1};

			through += process_vm_readv(victims[v], &to, 1, &from, 1, 0) == 1;
			through += syscall(SYS_pidfd_getfd,
					   (int)syscall(SYS_pidfd_open, victims[v], 0), 5, 0) >= 0;
		}
		_exit(through > 99 ? 99 : through);
	}
	waitpid(pid, &status, 0);
	ok(WIFEXITED(status) && WEXITSTATUS(status) == 0,
	   "nothing of weftd, engine or honest clients can be opened by another uid (%d)",
	   WIFEXITED(status) ? WEXITSTATUS(status) : -1);
	raw_close(&mine);
}

/* What was written in one session is not found in the next, of whatever tenant. */
static void no_leftovers(void)
{
	static const char mark[] = "the secret of the tenant before";
	bool found = false;
	struct raw r;

	for (int round = 0; round < 4; round++) {
		if (raw_open(&r, world_socket(w), round % 2 ? world_attacker() : RAW_ANY_UID, 4))
			bail_out("a raw client is refused");
		found |= memmem(r.tx, r.tx_bytes, mark, sizeof(mark)) != NULL;
		for (uint64_t at = 0; at < r.rx_bytes - (uint64_t)((const uint8_t *)r.slot - r.rx);
		     at++)
			if (((const uint8_t *)r.slot)[at]) {
				found = true;
				diag("byte %llu of the slots and results is not zero",
				     (unsigned long long)at);
				break;
			}
		memcpy(r.tx_arena + raw_arena_bytes(4) - 4096, mark, sizeof(mark));
		for (uint32_t i = 0; i < 4; i++)
			raw_submit(&r, i, 1, i, 20, 60);
		raw_wait_state(&r, 3, 1, WSHM_SLOT_ENDED, RAW_PATIENCE_MS);
		raw_close(&r);
	}
	ok(!found, "a new session's regions hold nothing of an earlier one");
}

int main(void)
{
	struct neighbours *n;

	w = world_start(NULL);
	n = neighbours_start(w, 1);
	read_only_roads();
	indexes_apart();
	tx_seals();
	tx_punched(n);
	others_memory();
	no_leftovers();
	neighbours_stop(n);
	world_same(w);
	world_given_back(w);
	world_stop(w);
	return tap_done();
}
