/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Domains: their secrets on disk, what the engine is told of them and when, and that a client gets
 * the indexes of its own domain and of the public one and no other; and when a reload gives a domain
 * another secret. The fake engine ends at once when a session comes before its domain, or a domain again
 * that is the same.
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

#define ALICE 30001
#define BOB   30002

static const char conf[] = "[model m]\npath = /fake/ok\n"
			   "[tenant ours]\nuid = 0\n"
			   "[tenant ../public]\nuid = 30001\n"
			   "[tenant public]\nuid = 30002\n";
/* By the rule that domain_file.c states, written out by hand. */
static const char *const files[] = {
	"public.secret",
	"tenant-ours.secret",
	"tenant-%2E%2E%2Fpublic.secret",
	"tenant-public.secret",
};

static struct wd d;

static const char *state_path(const char *file)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/state/%s", d.dir, file);
	return path;
}

static uint64_t fnv(const uint8_t *p, size_t n)
{
	uint64_t h = 1469598103934665603u;

	while (n--)
		h = (h ^ *p++) * 1099511628211u;
	return h;
}

/* The file's digest as the fake engine gives it; "" when it is not as it should be. */
static const char *file_digest(const char *file)
{
	static char text[17];
	uint8_t bytes[200];
	struct stat st;
	int fd = open(state_path(file), O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, bytes, sizeof(bytes));

	text[0] = 0;
	if (n == 192 && !fstat(fd, &st) && (st.st_mode & 07777) == 0600 && S_ISREG(st.st_mode))
		snprintf(text, sizeof(text), "%016llx", (unsigned long long)fnv(bytes, 192));
	if (fd >= 0)
		close(fd);
	return text;
}

/* What the engine was told of a domain; the caller releases it. */
static json_t *told(int domain)
{
	json_t *j = wd_status(&d), *it, *ret = NULL;
	size_t i;

	json_array_foreach(
		json_object_get(json_object_get(json_array_get(json_object_get(j, "engines"), 0),
						"engine"),
				"domains"),
		i, it)
	{
		if (json_integer_value(json_object_get(it, "domain")) == domain)
			ret = json_incref(it);
	}
	json_decref(j);
	return ret;
}

static char *told_secret(int domain)
{
	json_t *j = told(domain);
	const char *text = json_string_value(json_object_get(j, "secret"));
	char *ret = strdup(text ? text : "none");

	json_decref(j);
	return ret;
}

static uint64_t told_inode(int domain)
{
	json_t *j = told(domain);
	uint64_t ret = (uint64_t)json_integer_value(json_object_get(j, "inode"));

	json_decref(j);
	return ret;
}

static int open_one(struct wd_client *c)
{
	struct wctl_hello h;

	wd_hello_init(&h);
	return wd_open(c, &d, &h);
}

struct seen {
	int rc;
	uint64_t own, public;
	int flags;
};

/* What a client of this uid is handed. */
static struct seen session_of(uid_t uid)
{
	struct seen s = {.rc = -1};
	int pipes[2];
	pid_t pid;

	if (pipe(pipes))
		bail_out("pipe");
	fflush(stdout);
	pid = fork();
	if (!pid) {
		struct wd_client c;
		struct stat own, public;

		if (uid &&
		    (setgroups(0, NULL) || setresgid(uid, uid, uid) || setresuid(uid, uid, uid)))
			_exit(99);
		s.rc = open_one(&c);
		if (!s.rc && !fstat(c.fds[4], &own) && !fstat(c.fds[5], &public)) {
			s.own = own.st_ino;
			s.public = public.st_ino;
			s.flags = (fcntl(c.fds[4], F_GETFL) | fcntl(c.fds[5], F_GETFL)) & O_ACCMODE;
			s.rc = wd_state_wait(&c, WSHM_ENGINE_RUNNING, WD_PATIENCE_MS) ? 0 : -2;
		}
		(void)!write(pipes[1], &s, sizeof(s));
		_exit(0);
	}
	close(pipes[1]);
	if (read(pipes[0], &s, sizeof(s)) != sizeof(s))
		s.rc = -3;
	close(pipes[0]);
	waitpid(pid, NULL, 0);
	return s;
}

static void test_secrets(void)
{
	char digests[4][17];
	struct stat st;
	int same = 0;

	for (int i = 0; i < 4; i++) {
		strcpy(digests[i], file_digest(files[i]));
		ok(digests[i][0], "%s is a file of 192 bytes and mode 0600", files[i]);
		for (int k = 0; k < i; k++)
			same += !strcmp(digests[i], digests[k]);
	}
	is_int(same, 0, "no two secrets are equal");
	is_int(stat(state_path(""), &st) ? -1 : (int)(st.st_mode & 07777), 0700,
	       "the state directory is weftd's alone");
}

static void test_sessions(void)
{
	struct seen ours = session_of(0), alice = session_of(ALICE), bob = session_of(BOB);

	is_int(ours.rc | alice.rc | bob.rc, 0, "three tenants have a session each");
	is_int(ours.flags | alice.flags | bob.flags, O_RDONLY, "with read-only indexes");
	ok(ours.public == alice.public && alice.public == bob.public, "one public index for all");
	ok(ours.own != alice.own && alice.own != bob.own && bob.own != ours.own &&
		   ours.own != ours.public && bob.own != bob.public,
	   "and one for each domain, of a tenant called public too");
	ok(session_of(ALICE).own == alice.own, "the next session of a tenant gets the same");
	ok(told_inode(0) == ours.own && told_inode(1) == alice.own && told_inode(2) == bob.own &&
		   told_inode(-1) == ours.public,
	   "the engine writes what each of them reads");
}

static void test_told(const char *when)
{
	static const int domains[] = {-1, 0, 1, 2};

	for (int i = 0; i < 4; i++) {
		char *secret = told_secret(domains[i]);

		is_str(secret, file_digest(files[i]), "%s: the engine has the secret of %s", when,
		       files[i]);
		free(secret);
	}
}

static void test_engine_restart(void)
{
	struct wd_client c;
	struct stat st = {0};
	uint64_t public;

	is_int(open_one(&c), 0, "a session stays open");
	fstat(c.fds[4], &st);
	public = told_inode(-1);
	kill((pid_t)wd_engine_int(&d, 0, "pid"), SIGKILL);
	ok(wd_engine_wait(&d, 0, "starts", 2, WD_PATIENCE_MS) &&
		   wd_engine_wait(&d, 0, "engine.attached", 1, WD_PATIENCE_MS),
	   "the engine is killed, the next one serves it");
	ok(told_inode(0) == st.st_ino && told_inode(-1) == public, "with the same indexes");
	session_of(ALICE);
	session_of(BOB);
	test_told("after its restart");
	wd_close(&c);
}

static void rewrite(const char *text)
{
	char path[96];
	FILE *f;

	snprintf(path, sizeof(path), "%s/weftd.conf", d.dir);
	f = fopen(path, "w");
	if (!f || fputs(text, f) < 0 || fclose(f))
		bail_out("weftd.conf");
}

/* weftd is expected to say this and give up. */
static void refuses(const char *what, const char *text)
{
	char path[96];

	snprintf(path, sizeof(path), "%s/log", d.dir);
	(void)!truncate(path, 0);
	wd_spawn(&d);
	is_int(wd_wait(&d), 1, "%s: weftd does not start", what);
	ok(wd_logged(&d, text), "%s: it says \"%s\"", what, text);
}

static void put(const char *file, const void *bytes, size_t n, mode_t mode)
{
	int fd = open(state_path(file), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode);

	if (fd < 0 || fchmod(fd, mode) || write(fd, bytes, n) != (ssize_t)n || close(fd))
		bail_out(file);
}

static void test_bad_files(void)
{
	const char *file = "tenant-ours.secret";
	uint8_t bytes[193];
	char elsewhere[128];
	int fd = open(state_path(file), O_RDONLY);

	if (fd < 0 || read(fd, bytes, 192) != 192)
		bail_out("the secret cannot be read");
	close(fd);
	put(file, bytes, 191, 0600);
	refuses("a secret cut short", "tenant-ours.secret has 191 bytes");
	put(file, bytes, 0, 0600);
	refuses("an empty secret", "tenant-ours.secret has 0 bytes");
	put(file, bytes, 193, 0600);
	refuses("a secret too long", "tenant-ours.secret has 193 bytes");
	put(file, bytes, 192, 0640);
	refuses("a secret that a group can read", "tenant-ours.secret must be a file");
	unlink(state_path(file));
	mkdir(state_path(file), 0700);
	refuses("a folder in its place", "tenant-ours.secret must be a file");
	rmdir(state_path(file));
	mkfifo(state_path(file), 0600);
	refuses("a FIFO in its place", "tenant-ours.secret must be a file");
	unlink(state_path(file));
	snprintf(elsewhere, sizeof(elsewhere), "%s/elsewhere", d.dir);
	fd = open(elsewhere, O_WRONLY | O_CREAT, 0600);
	is_int((int)write(fd, bytes, 192), 192, "a good file elsewhere");
	close(fd);
	is_int(symlink(elsewhere, state_path(file)), 0, "and a link to it");
	refuses("a link in its place", "tenant-ours.secret: ");
	unlink(state_path(file));
	chmod(state_path(""), 0770);
	refuses("a state directory that others may write", "nobody else's to write");
	chmod(state_path(""), 0700);
	put(file, bytes, 192, 0600);
}

static void test_reload(void)
{
	static const char more[] = "[model m]\npath = /fake/ok\n[tenant ours]\nuid = 0\n"
				   "[tenant new]\nuid = 30003\n";
	json_t *j;

	put("tenant-new.secret", "short", 5, 0600);
	rewrite(more);
	j = wd_admin(&d, "{\"cmd\":\"reload\"}");
	ok(json_is_false(json_object_get(j, "ok")),
	   "a reload whose tenant's secret is short fails");
	ok(strstr(json_string_value(json_object_get(j, "error")), "tenant-new.secret has 5 bytes"),
	   "and says so");
	json_decref(j);
	is_int(session_of(BOB).rc, 0, "nothing has changed: the removed tenant is still served");
	is_int(session_of(30003).rc, -EACCES, "and the new one is not");
	unlink(state_path("tenant-new.secret"));
	put("tenant-new.secret.new", "half", 4, 0600); /* weftd was killed while it wrote it */
	j = wd_admin(&d, "{\"cmd\":\"reload\"}");
	ok(json_is_true(json_object_get(j, "ok")), "without the file the reload makes one");
	json_decref(j);
	ok(file_digest("tenant-new.secret")[0], "of the right kind");
	ok(access(state_path("tenant-new.secret.new"), F_OK), "and nothing half-written is left");
	is_int(session_of(30003).rc, 0, "and the new tenant is served");
}

static int reload(const char *tenants)
{
	char text[512];
	json_t *j;
	int good;

	snprintf(text, sizeof(text), "[model m]\npath = /fake/ok\n%s", tenants);
	rewrite(text);
	j = wd_admin(&d, "{\"cmd\":\"reload\"}");
	good = json_is_true(json_object_get(j, "ok"));
	json_decref(j);
	return good;
}

/* Does the tenant `ours`, whose index is in use, get another secret by a reload of the second? */
static void renews(const char *before, const char *after, int want, const char *what)
{
	char old[17];
	int rc = reload(before) ? session_of(0).rc : -1;

	strcpy(old, file_digest(files[1]));
	rc |= reload(after) ? 0 : -1;
	is_int(rc ? rc : strcmp(old, file_digest(files[1])) != 0, want, "%s: %s", what,
	       want ? "another secret" : "the same secret");
}

static void test_who_may_leave(void)
{
	static const char ours[] = "[tenant ours]\nuid = 0, 30000-30010\n";

	renews(ours, ours, 0, "nothing has changed");
	renews(ours, "[tenant ours]\nuid = 29999-30010, 0, 40000\n", 0, "uids have come");
	renews(ours, "[tenant ours]\nuid = 0, 30000-30009\n", 1, "the last of a range has gone");
	renews(ours, "[tenant ours]\nuid = 30000-30010\n", 1, "a single uid has gone");
	renews(ours, "[tenant ours]\nuid = 0, 30000-30010\nweight = 7\n[tenant x]\nuid = 9\n", 0,
	       "another tenant has come, and a quota has changed");
	renews("[tenant ours]\ndefault = yes\n", "[tenant ours]\ndefault = yes\nweight = 7\n", 0,
	       "of a default tenant only a quota");
	renews("[tenant ours]\ndefault = yes\n",
	       "[tenant ours]\ndefault = yes\n[tenant x]\nuid = 9\n", 1,
	       "a uid is taken from the default tenant");
	renews("[tenant ours]\ngid = 0\n[tenant x]\ngid = 9\n",
	       "[tenant x]\ngid = 9\n[tenant ours]\ngid = 0\n", 1,
	       "who is of two groups may be the other tenant's now");
	renews("[tenant ours]\ngid = 0\n", "[tenant ours]\ngid = 0\n[tenant x]\nuid = 9\n", 1,
	       "a uid is taken from a group's tenant");
	renews(ours, "[tenant x]\ndefault = yes\n", 1, "a tenant has gone");
	renews(ours, "[tenant theirs]\nuid = 0, 30000-30010\n", 1, "or has another name");
}

static int open_feature(struct wd_client *c)
{
	struct wctl_hello h;

	wd_hello_init(&h);
	h.features = WCTL_FEATURE_DOMAIN;
	return wd_open(c, &d, &h);
}

/* An open session whose tenant changes, or loses others, in one daemon and one engine. */
static void test_moved_session(void)
{
	static const char first[] = "[tenant ours]\nuid = 0, 30001\n[tenant x]\nuid = 9\n";
	static const char less[] = "[tenant ours]\nuid = 0\n[tenant x]\nuid = 9\n";
	static const char moved[] = "[tenant ours]\nuid = 30001\n[tenant x]\nuid = 0, 9\n";
	struct wd_client c, idle;
	struct stat st = {0};
	long resumed;
	char *secret;

	ok(reload(first) && !open_feature(&c) && !open_feature(&idle), "two sessions");
	ok(wd_state_wait(&c, WSHM_ENGINE_RUNNING, WD_PATIENCE_MS), "are attached");
	fstat(c.fds[4], &st);
	is_int(told_inode(0) == st.st_ino, 1, "the engine writes what they read");
	resumed = wd_engine_int(&d, 0, "engine.resumed");
	ok(reload(less), "somebody else leaves the tenant");
	ok(wd_recv(&c, WD_PATIENCE_MS) == WCTL_DOMAIN && told_inode(0) != st.st_ino,
	   "the session is told of another index, which is what the engine writes");
	secret = told_secret(0);
	is_str(secret, file_digest(files[1]), "under the new secret");
	free(secret);
	is_int(wd_engine_int(&d, 0, "engine.resumed"), resumed, "it is not attached anew");
	ok(reload(moved), "its own uid goes to another tenant");
	is_int(wd_recv(&c, WD_PATIENCE_MS), WCTL_DOMAIN, "it is told again");
	ok(wd_engine_wait(&d, 0, "engine.resumed", resumed + 2, WD_PATIENCE_MS) &&
		   wd_engine_wait(&d, 0, "engine.attached", 2, WD_PATIENCE_MS),
	   "sessions are attached anew");
	is_int(wd_engine_int(&d, 0, "starts"), 1, "by the same engine");
	ok(reload(less) && wd_engine_wait(&d, 0, "engine.attached", 1, WD_PATIENCE_MS),
	   "a third time it is the end of a session that has read nothing");
	ok(wd_recv(&idle, WD_PATIENCE_MS) == WCTL_DOMAIN &&
		   wd_recv(&idle, WD_PATIENCE_MS) == WCTL_DOMAIN &&
		   wd_recv(&idle, WD_PATIENCE_MS) == WCTL_BYE,
	   "which can still be read");
	is_int(wd_recv(&c, WD_PATIENCE_MS), WCTL_DOMAIN, "the other one goes on");
	wd_close(&c);
	wd_close(&idle);
	ok(wd_daemon_wait(&d, "sessions", 0, WD_PATIENCE_MS), "no session is left");

	/* The new secret cannot be written: nothing changes. */
	ok(reload(first) && session_of(ALICE).rc == 0, "the other uid is back");
	unlink(state_path(files[1]));
	mkdir(state_path(files[1]), 0700);
	ok(!reload(less), "a secret that cannot be replaced refuses the reload");
	is_int(session_of(ALICE).rc, 0, "which changes nothing");
	rmdir(state_path(files[1]));
	ok(reload(less) && file_digest(files[1])[0], "without what was in its place it is made");
	is_int(session_of(ALICE).rc, -EACCES, "and the uid has left");
}

/* Two daemons with one state directory would each believe that it alone writes there. */
static void test_shared_directory(void)
{
	struct wd first = d;
	char text[256];

	snprintf(text, sizeof(text), "[daemon]\nstate_dir = %s/state\n[model m]\npath = /fake/ok\n",
		 first.dir);
	wd_prepare(&d, text);
	wd_spawn(&d);
	is_int(wd_wait(&d), 1, "a second weftd with the same state directory does not start");
	ok(wd_logged(&d, "is used by another weftd"), "and says why");
	wd_stop(&d);
	d = first;
}

int main(int argc, char **argv)
{
	char *before, *after;

	wd_engine_or_test(argc, argv);
	if (geteuid())
		skip_all("needs root, to become other users");
	wd_start(&d, conf);
	test_secrets();
	test_sessions();
	test_told("at first");
	test_engine_restart();
	test_shared_directory();
	before = told_secret(2);
	kill(d.pid, SIGKILL);
	wd_wait(&d);
	wd_restart(&d);
	session_of(BOB);
	after = told_secret(2);
	is_str(after, before, "a secret outlives a weftd that is killed");
	free(before);
	free(after);
	kill(d.pid, SIGTERM);
	is_int(wd_wait(&d), 0, "ended");
	test_bad_files();
	wd_restart(&d);
	is_int(session_of(0).rc, 0, "with its own file back it serves again");
	test_reload();
	test_moved_session();
	test_who_may_leave();
	is_int(wd_stop(&d), 0, "stopped");
	return tap_done();
}
