/* SPDX-License-Identifier: Apache-2.0 */
/* The life of weftd: admin commands, reload, drain, signals, lock, restart, idleness, systemd. */
#include "tests/e2e/daemon_harness.h"
#include "tests/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static const char one_model[] = "[daemon]\ndrain_seconds = 1\n[model m]\npath = /fake/ok\n";

static int open_one(struct wd_client *c, const struct wd *d)
{
	struct wctl_hello h;

	wd_hello_init(&h);
	return wd_open(c, d, &h);
}

static void rewrite(const struct wd *d, const char *text)
{
	char path[96];
	FILE *f;

	snprintf(path, sizeof(path), "%s/weftd.conf", d->dir);
	f = fopen(path, "w");
	if (!f || fputs(text, f) < 0 || fclose(f))
		bail_out("weftd.conf");
}

/* Ended, even if whoever inherited it has not yet asked for its status, or the kernel is still at it: who
 * waits for its lock may know first. */
static int is_gone(long pid)
{
	const unsigned exiting = 4; /* PF_EXITING */
	char path[64], line[1024] = "", state = 0;
	unsigned flags = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%ld/stat", pid);
	f = fopen(path, "r");
	if (!f)
		return 1;
	if (!fgets(line, sizeof(line), f))
		line[0] = 0;
	fclose(f);
	if (!line[0] ||
	    sscanf(strrchr(line, ')') + 1, " %c %*d %*d %*d %*d %*d %u", &state, &flags) != 2)
		return 1;
	return state == 'Z' || state == 'X' || (flags & exiting);
}

static int admin_ok(const struct wd *d, const char *line)
{
	json_t *j = wd_admin(d, line);
	int ok = json_is_true(json_object_get(j, "ok"));

	json_decref(j);
	return ok;
}

/* Lines that come back, up to `want`, for these that are sent at once. */
static int answers(const struct wd *d, const char *lines, int want)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	struct timeval patience = {.tv_sec = 60};
	int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), n = 0;
	char c;

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/admin.sock", d->dir);
	setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (connect(sock, (struct sockaddr *)&sa, sizeof(sa)) ||
	    write(sock, lines, strlen(lines)) != (ssize_t)strlen(lines))
		bail_out("admin.sock");
	while (n < want && recv(sock, &c, 1, 0) == 1)
		n += c == '\n';
	close(sock);
	return n;
}

static void test_commands(void)
{
	struct wd d;
	struct wd_client c;
	json_t *j;
	char big[5000];

	wd_start(&d, one_model);
	open_one(&c, &d);
	ok(wd_engine_wait(&d, 0, "engine.attached", 1, WD_PATIENCE_MS),
	   "status shows the engine's own words");
	j = wd_admin(&d, "{\"cmd\":\"sessions\"}");
	is_int(json_array_size(json_object_get(j, "sessions")), 1, "sessions lists the one");
	is_int(json_integer_value(
		       json_object_get(json_array_get(json_object_get(j, "sessions"), 0), "pid")),
	       getpid(), "with its process");
	json_decref(j);
	ok(admin_ok(&d, "{\"cmd\":\"engine-restart\"}"), "engine-restart");
	ok(wd_engine_wait(&d, 0, "starts", 2, WD_PATIENCE_MS), "restarts it");
	ok(wd_engine_wait(&d, 0, "engine.resumed", 1, WD_PATIENCE_MS), "and sessions go on");
	ok(!admin_ok(&d, "{\"cmd\":\"engine-restart\",\"model\":\"x\"}"), "not of another model");
	ok(!admin_ok(&d, "{\"cmd\":\"dance\"}"), "an unknown command is an error");
	ok(!admin_ok(&d, "{\"cmd\":7}"), "a command that is no string");
	ok(!admin_ok(&d, "[]"), "no object");
	ok(!admin_ok(&d, "{\"cmd\":\"status\",\"cmd\":\"drain\"}"), "a key twice");
	ok(!admin_ok(&d, "{\"cmd\":\"drain\",\"seconds\":-1}"), "a drain into the past");
	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = 0;
	ok(!admin_ok(&d, big), "a long line of nonsense");
	is_int(answers(&d,
		       "{\"cmd\":\"sessions\"}\n{\"cmd\":\"status\"}\n[]\n"
		       "{\"cmd\":\"sessions\"}\n",
		       4),
	       4, "four requests in one piece have four answers");
	ok(admin_ok(&d, "{\"cmd\":\"status\"}"), "and status works after all that");
	wd_close(&c);
	is_int(wd_stop(&d), 0, "stopped");
}

static long weight(const struct wd *d, const char *name)
{
	json_t *j = wd_status(d), *t;
	json_t *list = json_object_get(
		json_object_get(json_array_get(json_object_get(j, "engines"), 0), "engine"),
		"tenants");
	long w = -1;
	size_t i;

	json_array_foreach(list, i,
			   t) if (!strcmp(json_string_value(json_object_get(t, "name")), name)) w =
		(long)json_integer_value(json_object_get(t, "weight"));
	json_decref(j);
	return w;
}

/* What it is once it has become that, or has not for long. */
static long weight_becomes(const struct wd *d, const char *name, long wanted)
{
	long w;

	for (int ms = 0; (w = weight(d, name)) != wanted && ms < WD_PATIENCE_MS; ms += 20)
		wd_sleep_ms(20);
	return w;
}

static void test_reload(void)
{
	struct wd d;
	struct wd_client c, e;

	wd_start(&d, "[model m]\npath = /fake/ok\n[tenant a]\ndefault = yes\nweight = 10\n");
	open_one(&c, &d);
	wd_engine_wait(&d, 0, "engine.attached", 1, WD_PATIENCE_MS);
	is_int(weight(&d, "a"), 10, "the engine knows the tenant's weight");
	rewrite(&d, "[model m]\npath = /fake/ok\n[tenant a]\ndefault = yes\nweight = 20\n"
		    "max_sessions = 1\n");
	ok(admin_ok(&d, "{\"cmd\":\"reload\"}"), "reload");
	is_int(weight_becomes(&d, "a", 20), 20, "and is told when it changes");
	is_int(open_one(&e, &d), -EACCES, "limits hold for new sessions at once");
	wd_close(&e);

	rewrite(&d, "[model m]\npath = /fake/ok\n[tenant b]\ndefault = yes\nweight = 30\n");
	kill(d.pid, SIGHUP);
	ok(wd_log_wait(&d, "1 tenants are in force", WD_PATIENCE_MS), "SIGHUP reloads too");
	is_int(open_one(&e, &d), 0, "a new tenant takes over");
	is_str(e.welcome.tenant, "b", "by its name");
	wd_engine_wait(&d, 0, "engine.attached", 2, WD_PATIENCE_MS);
	is_int(weight_becomes(&d, "b", 30), 30, "and the engine knows it");
	is_int(weight(&d, "a"), 20, "the one before keeps its index");

	rewrite(&d, "[model m]\npath = /fake/ok\nnonsense = 1\n");
	ok(!admin_ok(&d, "{\"cmd\":\"reload\"}"), "a bad file is refused");
	wd_close(&e);
	is_int(open_one(&e, &d), 0, "and what held before still does");
	is_str(e.welcome.tenant, "b", "tenant b");
	rewrite(&d, "[daemon]\nmax_sessions = 9\n[model m]\npath = /fake/die\n"
		    "[model n]\npath = /fake/ok\n");
	ok(admin_ok(&d, "{\"cmd\":\"reload\"}"), "models and [daemon] in a reload");
	ok(wd_logged(&d, "model m has changed: this takes a restart"), "a changed model is named");
	ok(wd_logged(&d, "model n is new"), "a new one too");
	ok(wd_logged(&d, "[daemon] has changed"), "and [daemon]");
	is_int(wd_engine_int(&d, 0, "starts"), 1, "nothing was restarted");
	wd_close(&c);
	wd_close(&e);
	is_int(wd_stop(&d), 0, "stopped");
}

static void test_drain(void)
{
	struct wd d;
	struct wd_client c;
	char path[96];

	wd_start(&d, one_model);
	open_one(&c, &d);
	wd_state_wait(&c, WSHM_ENGINE_RUNNING, WD_PATIENCE_MS);
	kill(d.pid, SIGTERM);
	is_int(wd_recv(&c, WD_PATIENCE_MS), WCTL_BYE, "SIGTERM: clients are told");
	ok(strstr(c.text.text, "shutting down"), "it says: %s", c.text.text);
	is_int(wd_wait(&d), 0, "exit 0");
	snprintf(path, sizeof(path), "%s/weftd.sock", d.dir);
	ok(access(path, F_OK), "the socket is gone");
	snprintf(path, sizeof(path), "%s/admin.sock", d.dir);
	ok(access(path, F_OK), "and the administrators'");
	wd_close(&c);
	wd_restart(&d);
	ok(admin_ok(&d, "{\"cmd\":\"drain\",\"seconds\":0}"), "drain by an administrator");
	is_int(wd_wait(&d), 0, "exit 0");
	wd_stop(&d);
}

/* A session that the engine has: so it is READY. */
static void wait_ready(const struct wd *d)
{
	struct wd_client c;

	ok(!open_one(&c, d) && wd_state_wait(&c, WSHM_ENGINE_RUNNING, WD_PATIENCE_MS),
	   "the engine is ready");
	wd_close(&c);
}

static void test_stubborn(void)
{
	struct wd_client c = {.fds = {-1, -1, -1, -1, -1, -1}};
	struct wctl_hello h;
	struct wd d;
	long pid;

	wd_start(&d, "[daemon]\ndrain_seconds = 1\n[model m]\npath = /fake/stubborn\n");
	wait_ready(&d);
	pid = wd_engine_int(&d, 0, "pid");
	kill(d.pid, SIGTERM);
	is_int(wd_wait(&d), 0, "an engine that does not drain is waited for, then ended");
	ok(wd_logged(&d, "drain-deadline"), "at the deadline");
	ok(is_gone(pid), "its process is gone");

	/* Until the second signal. */
	rewrite(&d, "[daemon]\ndrain_seconds = 600\n[model m]\npath = /fake/stubborn\n");
	wd_restart(&d);
	wait_ready(&d);
	c.sock = wd_connect(&d);
	kill(d.pid, SIGTERM);
	ok(wd_log_wait(&d, "event=draining seconds=600", WD_PATIENCE_MS), "it begins to drain");
	wd_hello_init(&h);
	wctl_send(c.sock, &h, sizeof(h), NULL, 0);
	is_int(wd_recv(&c, WD_PATIENCE_MS), WCTL_REFUSED, "a hello during a drain is refused");
	is_str(c.text.text, "weftd is shutting down", "and says why");
	wd_close(&c);
	kill(d.pid, SIGTERM);
	is_int(wd_wait(&d), 1, "a second signal ends it at once");
	ok(wd_logged(&d, "second signal"), "and is logged");
	wd_stop(&d);
}

static int lock_of(const struct wd *d)
{
	char path[96];
	int fd;

	snprintf(path, sizeof(path), "%s/weftd.lock", d->dir);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0 || flock(fd, LOCK_EX))
		bail_out(path);
	return fd;
}

static void test_lock_and_crash(void)
{
	struct wd d, second;
	struct wd_client c;
	uint64_t id;
	long engine;
	char text[64];
	struct stat st;
	int lock;

	wd_start(&d, one_model);
	second = d;
	wd_spawn(&second);
	is_int(wd_wait(&second), 1, "a second weftd of the directory does not start");
	snprintf(text, sizeof(text), "another weftd (process %d)", (int)d.pid);
	ok(wd_logged(&d, text), "it says who holds it");
	is_int(open_one(&c, &d), 0, "the first goes on");
	id = c.welcome.daemon_id;
	engine = wd_engine_int(&d, 0, "pid");
	kill(d.pid, SIGKILL);
	waitpid(d.pid, NULL, 0);
	is_int(wd_recv(&c, WD_PATIENCE_MS), 0, "weftd killed: clients see a hang-up");
	wd_close(&c);
	ok(!stat(d.socket, &st), "its socket is still there");
	/* As a child does that it had just made: it inherits the lock, and then lets go. */
	lock = lock_of(&d);
	wd_spawn(&d);
	wd_sleep_ms(300);
	close(lock);
	ok(wd_daemon_wait(&d, "sessions", 0, WD_PATIENCE_MS),
	   "the next one waits for what the dead one has left");
	kill(d.pid, SIGKILL);
	waitpid(d.pid, NULL, 0);
	/* As one does that died before it had written who it was. */
	lock = lock_of(&d);
	if (ftruncate(lock, 0))
		bail_out("weftd.lock");
	wd_spawn(&d);
	wd_sleep_ms(300);
	close(lock);
	ok(wd_daemon_wait(&d, "sessions", 0, WD_PATIENCE_MS), "and for one that has no name yet");
	kill(d.pid, SIGKILL);
	waitpid(d.pid, NULL, 0);
	wd_restart(&d);
	ok(is_gone(engine), "the next one starts when the engine is gone");
	is_int(open_one(&c, &d), 0, "and serves");
	ok(c.welcome.daemon_id != id, "as another daemon");
	wd_close(&c);
	is_int(wd_stop(&d), 0, "stopped");
}

/* Who may write the directory could serve in weftd's place. */
static void test_directory(void)
{
	struct wd d;

	wd_prepare(&d, one_model);
	chmod(d.dir, 0777);
	wd_spawn(&d);
	is_int(wd_wait(&d), 1, "a directory that others may write is not served from");
	ok(wd_logged(&d, "nobody else's to write"), "it says why");
	if (!geteuid()) {
		chmod(d.dir, 0755);
		if (chown(d.dir, 65534, (gid_t)-1))
			bail_out("chown");
		wd_spawn(&d);
		is_int(wd_wait(&d), 1, "nor one that is another user's");
		if (chown(d.dir, 0, (gid_t)-1))
			bail_out("chown");
	}
	chmod(d.dir, 01777);
	wd_restart(&d);
	is_int(wd_stop(&d), 0, "a sticky one will do");
}

static long kill_daemon(struct wd *d)
{
	long engine;

	wait_ready(d);
	engine = wd_engine_int(d, 0, "pid");
	kill(d->pid, SIGKILL);
	waitpid(d->pid, NULL, 0);
	return engine;
}

static void test_engines_of_the_dead(void)
{
	struct wd d;
	long engine;

	wd_start(&d, "[daemon]\ndrain_seconds = 0\n[model m]\npath = /fake/stubborn\n");
	engine = kill_daemon(&d);
	for (int ms = 0; ms < WD_PATIENCE_MS && !is_gone(engine); ms += 20)
		wd_sleep_ms(20);
	ok(is_gone(engine), "an engine that ignores the hang-up dies with weftd all the same");
	wd_restart(&d);
	is_int(wd_stop(&d), 0, "stopped");

	wd_start(&d, "[model m]\npath = /fake/orphan\n");
	engine = kill_daemon(&d);
	ok(!is_gone(engine), "one that survives weftd");
	wd_restart(&d);
	ok(is_gone(engine), "is waited for by the next weftd");
	ok(wd_logged(&d, "is still ending"), "which says so");
	is_int(wd_stop(&d), 0, "stopped");
}

static long cpu_ticks(pid_t pid)
{
	char path[64], line[1024];
	unsigned long user = 0, sys = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "r");
	if (!f || !fgets(line, sizeof(line), f))
		bail_out("/proc/PID/stat");
	fclose(f);
	sscanf(strrchr(line, ')') + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
	       &user, &sys);
	return (long)(user + sys);
}

static long switches(pid_t pid)
{
	char path[64], line[256];
	long n = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, "voluntary_ctxt_switches:", 24))
			n = atol(line + 24);
	if (f)
		fclose(f);
	return n;
}

static void test_idle(void)
{
	struct wd d;
	struct wd_client c;
	long ticks = 1, sleeps = 1;

	wd_start(&d, one_model);
	open_one(&c, &d);
	wd_state_wait(&c, WSHM_ENGINE_RUNNING, WD_PATIENCE_MS);
	/* From some moment on: what the start has left to do may wait for a processor. */
	for (int i = 0; i < 10 && (ticks || sleeps); i++) {
		ticks = cpu_ticks(d.pid);
		sleeps = switches(d.pid);
		wd_sleep_ms(2000);
		ticks = cpu_ticks(d.pid) - ticks;
		sleeps = switches(d.pid) - sleeps;
	}
	is_int(ticks, 0, "no CPU time in two seconds with an open session");
	is_int(sleeps, 0, "it did not even wake up");
	wd_close(&c);
	is_int(wd_stop(&d), 0, "stopped");
}

static void test_notify(void)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct timeval tv = {.tv_sec = 60};
	char text[256];
	ssize_t n;
	struct wd d;

	snprintf(sa.sun_path, sizeof(sa.sun_path), "/tmp/weftd-notify-%d", (int)getpid());
	if (bind(sock, (struct sockaddr *)&sa, sizeof(sa)))
		bail_out("bind");
	setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	setenv("NOTIFY_SOCKET", sa.sun_path, 1);
	wd_start(&d, one_model);
	n = recv(sock, text, sizeof(text) - 1, 0);
	text[n > 0 ? n : 0] = 0;
	is_str(text, "READY=1", "systemd is told that it serves");
	is_int(wd_stop(&d), 0, "stopped");
	n = recv(sock, text, sizeof(text) - 1, 0);
	text[n > 0 ? n : 0] = 0;
	ok(!strncmp(text, "STOPPING=1", 10), "and that it stops");
	unsetenv("NOTIFY_SOCKET");
	unlink(sa.sun_path);
	close(sock);
}

int main(int argc, char **argv)
{
	wd_engine_or_test(argc, argv);
	test_commands();
	test_reload();
	test_drain();
	test_stubborn();
	test_lock_and_crash();
	test_directory();
	test_engines_of_the_dead();
	test_idle();
	test_notify();
	return tap_done();
}
