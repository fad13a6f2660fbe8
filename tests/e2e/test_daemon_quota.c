/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Quotas and users: sessions of a tenant, bytes of a uid, memory that a dead client keeps, and who
 * may do what. Other users are made by setresuid() in a child, so most of it needs root.
 */
#include "tests/e2e/daemon_harness.h"
#include "tests/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define ALICE 10001
#define BOB   10002
#define CAROL 10077 /* tenant by group */
#define DAVE  10099 /* of no tenant */
#define GROUP 20001

static struct wd d;

/* One session of 8 slots and two arenas of 64 KiB takes 64 KiB + 64 KiB + 8 KiB at most; two fit
 * 300 KiB, three do not. */
static const char conf[] = "[daemon]\nmax_sessions = 6\n"
			   "[model m]\npath = /fake/ok\n"
			   "[tenant ops]\nuid = 0\nmax_sessions = 3\n"
			   "[tenant lab]\nuid = 10001-10010\nmax_sessions = 5\n"
			   "max_region_bytes = 300K\n"
			   "[tenant group]\ngid = 20001\n";

static void become(uid_t uid, gid_t extra)
{
	if (setgroups(extra ? 1 : 0, &extra) || setresgid(30000, 30000, 30000) ||
	    setresuid(uid, uid, uid))
		_exit(99);
}

/* Run fn as another user; its exit status. */
static int as(uid_t uid, gid_t extra, int (*fn)(void))
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid) {
		become(uid, extra);
		_exit(fn());
	}
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int open_one(struct wd_client *c)
{
	struct wctl_hello h;

	wd_hello_init(&h);
	return wd_open(c, &d, &h);
}

/* What went before may not have been noticed yet: as soon as there is room. */
static int open_when_noticed(struct wd_client *c, const struct wctl_hello *h)
{
	int rc = -EACCES;

	for (int ms = 0; rc == -EACCES && ms < WD_PATIENCE_MS; ms += 20) {
		rc = wd_open(c, &d, h);
		if (rc) {
			wd_close(c);
			wd_sleep_ms(20);
		}
	}
	return rc;
}

static void test_session_quota(void)
{
	struct wd_client c[4];

	for (int i = 0; i < 3; i++)
		is_int(open_one(&c[i]), 0, "session %d of three", i + 1);
	is_str(c[0].welcome.tenant, "ops", "tenant by uid");
	is_int(open_one(&c[3]), -EACCES, "the fourth is refused");
	ok(strstr(c[3].text.text, "3 sessions"), "it says: %s", c[3].text.text);
	wd_close(&c[3]);
	for (int i = 0; i < 50; i++) {
		wd_close(&c[0]);
		if (open_one(&c[0]))
			break;
	}
	ok(c[0].welcome.session_id, "when one goes there is room at once, every time");
	for (int i = 0; i < 3; i++)
		wd_close(&c[i]);
}

static int tenant_is(const char *name)
{
	struct wd_client c;

	return open_one(&c) ? 1 : strcmp(c.welcome.tenant, name) ? 2 : 0;
}

static int in_lab(void)
{
	return tenant_is("lab");
}

static int in_group(void)
{
	return tenant_is("group");
}

static int in_none(void)
{
	struct wd_client c;

	return open_one(&c) == -EACCES && strstr(c.text.text, "uid 10099 belongs to no tenant") ? 0
												: 1;
}

static void test_mapping(void)
{
	is_int(as(ALICE, 0, in_lab), 0, "a uid of a range");
	is_int(as(CAROL, GROUP, in_group), 0, "a supplementary group");
	is_int(as(ALICE, GROUP, in_lab), 0, "the uid goes before the group");
	is_int(as(DAVE, 0, in_none), 0, "everybody else is refused by name");
}

static int three_regions(void)
{
	struct wd_client c[3];

	if (open_one(&c[0]) || open_one(&c[1]))
		return 1;
	if (open_one(&c[2]) != -EACCES || !strstr(c[2].text.text, "shared memory"))
		return 2;
	return 0;
}

static int one_region(void)
{
	struct wd_client c;

	return open_one(&c) ? 1 : 0;
}

/* A process of alice keeps the memory of two dead sessions mapped; what then can she, and bob? */
static int keep_and_reuse(void)
{
	struct wd_client c[2], next, more;
	uint32_t *tx[2], secret = 0xdeadbeef;
	struct wctl_hello h;

	for (int i = 0; i < 2; i++) {
		if (open_one(&c[i]))
			return 1;
		tx[i] = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, c[i].fds[0],
			     (off_t)c[i].shm.layout.tx_arena);
		if (tx[i] == MAP_FAILED)
			return 2;
		*tx[i] = secret;
	}
	wd_close(&c[0]);
	wd_close(&c[1]);
	wd_sleep_ms(300); /* past the sweep: both are dead, neither is free */
	wd_hello_init(&h);
	if (open_when_noticed(&next, &h))
		return 3; /* full, so this is one of the two */
	/* That one was wiped; what stands in the other may still be wanted by whoever maps it. */
	if ((*tx[0] == secret) == (*tx[1] == secret) || next.welcome.params.slots != 8)
		return 4;
	for (size_t i = 0; i < next.shm.layout.tx_bytes - next.shm.layout.tx_arena; i += 4)
		if (*(uint32_t *)(next.shm.tx + next.shm.layout.tx_arena + i))
			return 5;
	*tx[0] = *tx[1] = 1; /* the very same memory? */
	if (*(uint32_t *)(next.shm.tx + next.shm.layout.tx_arena) != 1)
		return 6;
	if (open_one(&more))
		return 7; /* the other of the two */
	wd_close(&more);
	if (open_one(&more))
		return 8;
	munmap(tx[0], 4096);
	munmap(tx[1], 4096);
	return 0;
}

/* Holds two dead regions mapped until it is killed. */
static pid_t keeper(void)
{
	int pipes[2];
	char byte;
	pid_t pid;

	if (pipe(pipes))
		bail_out("pipe");
	fflush(stdout);
	pid = fork();
	if (!pid) {
		struct wd_client c[2];

		become(ALICE, 0);
		if (open_one(&c[0]) || open_one(&c[1]))
			_exit(1);
		for (int i = 0; i < 2; i++) {
			mmap(NULL, 4096, PROT_READ, MAP_SHARED, c[i].fds[1], 0);
			wd_close(&c[i]);
		}
		(void)!write(pipes[1], "x", 1);
		pause();
		_exit(0);
	}
	close(pipes[1]);
	if (read(pipes[0], &byte, 1) != 1)
		bail_out("keeper");
	close(pipes[0]);
	return pid;
}

/* Small regions cost few bytes but two of weftd's descriptors each, for as long as they are kept. */
static int keep_many(void)
{
	struct wd_client c;
	struct wctl_hello h;

	wd_hello_init(&h);
	h.slots = 1;
	h.tx_arena_bytes = h.rx_arena_bytes = 4096;
	for (int i = 0; i < 10; i++) { /* twice as many as the tenant may have sessions */
		if (open_when_noticed(&c, &h))
			return 1;
		mmap(NULL, 4096, PROT_READ, MAP_SHARED, c.fds[1], 0);
		wd_close(&c);
		wd_sleep_ms(20);
	}
	if (open_when_noticed(&c, &h))
		return 2; /* one of the ten is wiped for it */
	wd_close(&c);
	h.slots = 2;
	if (wd_open(&c, &d, &h) != -EACCES || !strstr(c.text.text, "10 regions"))
		return 3; /* an eleventh is not made */
	return 0;
}

static void test_regions(void)
{
	long reused;
	pid_t pid;

	is_int(as(ALICE, 0, three_regions), 0, "two regions fit, the third is refused");
	is_int(as(ALICE, 0, three_regions), 0, "and again: a killed client's memory came back");
	is_int(as(BOB, 0, three_regions), 0, "bytes are counted for each uid");
	ok(wd_daemon_wait(&d, "region_bytes", 0, WD_PATIENCE_MS), "nothing stays charged");

	reused = wd_daemon_int(&d, "regions_reused");
	is_int(as(ALICE, 0, keep_and_reuse), 0,
	       "mapped memory stays charged, and is wiped and used again for its uid");
	ok(wd_daemon_int(&d, "regions_reused") >= reused + 2, "weftd counts that");

	is_int(as(BOB, 0, keep_many), 0, "so are regions, however small");

	pid = keeper();
	wd_sleep_ms(300);
	ok(wd_daemon_wait(&d, "regions_dead", 2, WD_PATIENCE_MS),
	   "a read-only mapping keeps a region as well");
	reused = wd_daemon_int(&d, "regions_reused");
	is_int(as(BOB, 0, three_regions), 0, "bob has his two");
	is_int(wd_daemon_int(&d, "regions_reused"), reused, "and neither is one of alice's");
	is_int(as(ALICE, 0, one_region), 0, "alice gets one of hers");
	is_int(wd_daemon_int(&d, "regions_reused"), reused + 1, "again");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	is_int(as(ALICE, 0, three_regions), 0, "the keeper killed: all is as at first");
	ok(wd_daemon_wait(&d, "regions_dead", 0, WD_PATIENCE_MS), "nothing dead is left");
}

/* Nothing that is shared may be opened anew by another uid, however a descriptor came to it. */
static int cannot_reopen(void)
{
	static const int shared[] = {1, 4, 5, 0}; /* rx, both indexes, tx */
	struct wd_client c;
	char path[64];

	if (open_one(&c))
		return 1;
	for (int i = 0; i < 4; i++) {
		int fd = c.fds[shared[i]];

		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		if (open(path, O_RDWR) >= 0 || errno != EACCES)
			return 10 + i;
		if (open(path, O_RDONLY) >= 0)
			return 20 + i;
		if (!fchmod(fd, 0666))
			return 30 + i;
		if (i < 3 &&
		    mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) != MAP_FAILED)
			return 40 + i;
		if (i < 3 && (!ftruncate(fd, 0) || pwrite(fd, "x", 1, 0) == 1))
			return 50 + i;
	}
	return 0;
}

static int admin_refused(void)
{
	json_t *j = wd_admin(&d, "{\"cmd\":\"status\"}");

	return j ? 1 : 0;
}

static void test_total(void)
{
	struct wd_client c[7];
	int n = 0, rc = 0;
	pid_t pid[3];

	/* max_sessions is 6: three of root, two of alice, one of bob. */
	for (int i = 0; i < 3; i++)
		n += !open_one(&c[i]);
	for (int i = 0; i < 3; i++) {
		int pipes[2];
		char byte = 0;

		if (pipe(pipes))
			bail_out("pipe");
		fflush(stdout);
		pid[i] = fork();
		if (!pid[i]) {
			struct wd_client own;

			become(i == 2 ? BOB : ALICE, 0);
			byte = open_one(&own) ? 'n' : 'y';
			(void)!write(pipes[1], &byte, 1);
			pause();
		}
		if (read(pipes[0], &byte, 1) == 1)
			n += byte == 'y';
		close(pipes[0]);
		close(pipes[1]);
	}
	is_int(n, 6, "six sessions of three users");
	rc = as(BOB, 0, one_region);
	is_int(rc, 1, "the seventh is refused");
	for (int i = 0; i < 3; i++) {
		kill(pid[i], SIGKILL);
		waitpid(pid[i], NULL, 0);
		wd_close(&c[i]);
	}
	ok(wd_daemon_wait(&d, "sessions", 0, WD_PATIENCE_MS), "all are gone");
}

static unsigned long long status_hex(pid_t pid, const char *field)
{
	char path[64], line[256];
	unsigned long long v = ~0ull;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, field, strlen(field)))
			sscanf(line + strlen(field), ": %llx", &v);
	if (f)
		fclose(f);
	return v;
}

static int can_execute_self(void)
{
	char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

	/* By its name: through the link itself, closed folders above it would not count. */
	if (n < 0)
		return 1;
	path[n] = 0;
	return access(path, X_OK) ? 1 : 0;
}

/* Root's weftd, engines of another user: SETGID, SETUID and KILL (5, 6, 7) are all it keeps. */
/* Adapters are read as the engines' user: weftd's own rights open no file to an administrator. */
static void test_adapter_of_nobody(void)
{
	static const char *const files[] = {"adapter_config.json", "adapter_model.safetensors"};
	char path[128], line[256];
	json_t *j;
	FILE *f;

	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%s", d.dir, files[i]);
		f = fopen(path, "w");
		if (!f || fputs("ok", f) < 0 || fchmod(fileno(f), 0600) || fclose(f))
			bail_out(path);
	}
	snprintf(line, sizeof(line), "{\"cmd\":\"adapter-load\",\"name\":\"a\",\"path\":\"%s\"}",
		 d.dir);
	j = wd_admin(&d, line);
	ok(strstr(json_string_value(json_object_get(j, "error")), "Permission denied"),
	   "an adapter that nobody may not read is not loaded");
	json_decref(j);
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%s", d.dir, files[i]);
		chmod(path, 0644);
	}
	j = wd_admin(&d, line);
	ok(json_is_true(json_object_get(j, "ok")), "one that nobody may read is");
	json_decref(j);
	j = wd_admin(&d, "{\"cmd\":\"cache-pin\",\"public\":true,\"tokens\":[1]}");
	ok(json_is_true(json_object_get(j, "ok")), "a prefix is pinned");
	json_decref(j);
	snprintf(path, sizeof(path), "%s/state/pin-1.json", d.dir);
	ok(!access(path, R_OK), "and kept, although weftd has dropped its privileges");
}

static long group_of(const char *name)
{
	char path[160];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", d.dir, name);
	return stat(path, &st) ? -errno : (long)st.st_gid;
}

static void test_privileges(void)
{
	struct wd_client c;
	long pid;

	if (as(65534, 0, can_execute_self)) {
		skip(18, "the build folder is closed to nobody");
		return;
	}
	wd_start(&d, "[daemon]\nengine_user = nobody\nadmin_group = nogroup\n"
		     "[model m]\npath = /fake/ok\n");
	is_int(open_one(&c), 0, "weftd of root, an engine of nobody: a session opens");
	is_int(group_of("admin.sock"), 65534, "the admin socket has its group");
	ok(wd_state_wait(&c, WSHM_ENGINE_RUNNING, WD_PATIENCE_MS),
	   "the engine can use its regions");
	is_int(wd_engine_int(&d, 0, "engine.uid"), 65534, "it runs as nobody");
	pid = wd_engine_int(&d, 0, "pid");
	is_int(status_hex((pid_t)pid, "CapEff"), 0, "without capabilities");
	is_int(status_hex((pid_t)pid, "Groups"), 0x65534, "and in no group but its own");
	is_int(status_hex(d.pid, "CapEff"), 0xe0, "weftd keeps three capabilities");
	is_int(status_hex(d.pid, "CapPrm"), 0xe0, "and can get no other");
	is_int(status_hex(d.pid, "CapBnd"), 0xe0, "nor can its children");
	is_int(status_hex(d.pid, "NoNewPrivs"), 1, "in any way");
	json_decref(wd_admin(&d, "{\"cmd\":\"engine-restart\"}"));
	ok(wd_engine_wait(&d, 0, "starts", 2, WD_PATIENCE_MS), "it can end and start the engine");
	ok(wd_engine_wait(&d, 0, "engine.resumed", 1, WD_PATIENCE_MS),
	   "which takes the session over");
	wd_close(&c);
	ok(wd_daemon_wait(&d, "region_bytes", 0, WD_PATIENCE_MS), "regions are given back as ever");
	test_adapter_of_nobody();
	is_int(wd_stop(&d), 0, "stopped");
}

/* Without any privilege, in a directory of its own. */
static void test_unprivileged(void)
{
	struct wd_client c;

	if (as(BOB, 0, can_execute_self)) {
		skip(8, "the build folder is closed to other users");
		return;
	}
	wd_prepare(&d, "[model m]\npath = /fake/ok\n");
	d.uid = BOB;
	wd_restart(&d);
	is_int(open_one(&c), 0, "weftd of an ordinary user: root opens a session");
	ok(wd_state_wait(&c, WSHM_ENGINE_RUNNING, WD_PATIENCE_MS), "the engine has it");
	is_int(wd_engine_int(&d, 0, "engine.uid"), BOB, "and is of the same user");
	wd_close(&c);
	is_int(as(ALICE, 0, one_region), 0, "another user opens one");
	is_int(as(ALICE, 0, cannot_reopen), 0, "and can open its regions as little as ever");
	is_int(as(ALICE, 0, admin_refused), 0, "nor be its administrator");
	ok(wd_daemon_wait(&d, "region_bytes", 0, WD_PATIENCE_MS), "regions are given back");
	is_int(wd_stop(&d), 0, "stopped");
}

int main(int argc, char **argv)
{
	wd_engine_or_test(argc, argv);
	if (geteuid())
		skip_all("needs root, to become other users");
	wd_start(&d, conf);
	test_session_quota();
	test_mapping();
	test_regions();
	is_int(as(ALICE, 0, cannot_reopen), 0, "another uid can open no region anew");
	is_int(as(ALICE, 0, admin_refused), 0, "nor talk to the admin socket");
	test_total();
	is_int(wd_engine_int(&d, 0, "starts"), 1, "the engine never noticed");
	is_int(wd_stop(&d), 0, "stopped");
	test_privileges();
	test_unprivileged();
	return tap_done();
}
