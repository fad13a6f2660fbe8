/* SPDX-License-Identifier: Apache-2.0 */
/* daemon_harness.c - see daemon_harness.h. */
#include "tests/e2e/daemon_harness.h"

#include "tests/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <libgen.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

void wd_sleep_ms(int ms)
{
	struct timespec ts = {ms / 1000, ms % 1000 * 1000000L};

	nanosleep(&ts, NULL);
}

/* --- the daemon -----------------------------------------------------------------------------------*/

static void program(char *ret, size_t bytes)
{
	const char *build = getenv("WEFT_BUILD");
	char self[512];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n < 0)
		bail_out("/proc/self/exe");
	self[n] = 0;
	if (build)
		snprintf(ret, bytes, "%s/weftd", build);
	else
		snprintf(ret, bytes, "%s/../../weftd", dirname(self));
}

void wd_spawn(struct wd *d)
{
	char path[600], conf[96], log[96], engine[512];
	ssize_t n = readlink("/proc/self/exe", engine, sizeof(engine) - 1);

	program(path, sizeof(path));
	snprintf(conf, sizeof(conf), "%s/weftd.conf", d->dir);
	snprintf(log, sizeof(log), "%s/log", d->dir);
	if (n < 0)
		bail_out("/proc/self/exe");
	engine[n] = 0;
	fflush(stdout);
	d->pid = fork();
	if (d->pid)
		return;
	dup2(open(log, O_WRONLY | O_CREAT | O_APPEND, 0644), STDERR_FILENO);
	(void)!write(STDERR_FILENO, "start\n", 6);
	if (d->uid && (chown(d->dir, d->uid, d->uid) || setgroups(0, NULL) ||
		       setresgid(d->uid, d->uid, d->uid) || setresuid(d->uid, d->uid, d->uid)))
		_exit(125);
	/* A test that is killed leaves nothing running. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (d->inject) {
		char inject[128], trace[64];

		snprintf(inject, sizeof(inject), "inject=%s", d->inject);
		snprintf(trace, sizeof(trace), "trace=%.*s", (int)strcspn(d->inject, ":"),
			 d->inject);
		execlp("strace", "strace", "-qq", "-o", "/dev/null", "-e", trace, "-e", inject,
		       path, "--foreground", "--config", conf, "--runtime-dir", d->dir, "--engine",
		       engine, (char *)NULL);
	} else {
		execl(path, "weftd", "--foreground", "--config", conf, "--runtime-dir", d->dir,
		      "--engine", engine, (char *)NULL);
	}
	_exit(126);
}

/* Is it this weftd that listens? The socket of one that was killed takes connections for as long as
 * a child of its that has not run yet holds it. Under strace the process is not ours to know. */
static bool listens(const struct wd *d)
{
	struct ucred peer = {0};
	socklen_t n = sizeof(peer);
	int sock = wd_connect(d);
	bool mine;

	if (sock < 0)
		return false;
	mine = !getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &n) &&
	       (d->inject || peer.pid == d->pid);
	close(sock);
	return mine;
}

void wd_restart(struct wd *d)
{
	wd_spawn(d);
	for (int i = 0; i < WD_PATIENCE_MS / 20; i++) {
		if (listens(d))
			return;
		if (waitpid(d->pid, NULL, WNOHANG) == d->pid)
			break;
		wd_sleep_ms(20);
	}
	wd_show_log(d);
	bail_out("weftd does not listen");
}

void wd_prepare(struct wd *d, const char *conf)
{
	char path[96];
	FILE *f;

	umask(022); /* a weftd of another user reads what is written here */
	*d = (struct wd){.dir = "/tmp/weftd-test-XXXXXX"};
	if (!mkdtemp(d->dir) || chmod(d->dir, 0755))
		bail_out("mkdtemp");
	snprintf(d->socket, sizeof(d->socket), "%s/weftd.sock", d->dir);
	snprintf(path, sizeof(path), "%s/weftd.conf", d->dir);
	f = fopen(path, "w");
	if (!f || fputs(conf, f) < 0 || fclose(f))
		bail_out("weftd.conf");
}

void wd_start(struct wd *d, const char *conf)
{
	wd_prepare(d, conf);
	wd_restart(d);
}

int wd_wait(struct wd *d)
{
	int status;

	for (int i = 0; i < WD_PATIENCE_MS / 10; i++) {
		if (waitpid(d->pid, &status, WNOHANG) == d->pid) {
			d->pid = 0;
			return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
		}
		wd_sleep_ms(10);
	}
	return -1000;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

int wd_stop(struct wd *d)
{
	int rc = 0;

	if (d->pid) {
		kill(d->pid, SIGTERM);
		rc = wd_wait(d);
		if (rc == -1000) {
			kill(d->pid, SIGKILL);
			waitpid(d->pid, NULL, 0);
		}
	}
	if (tap_failed)
		wd_show_log(d);
	nftw(d->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	return rc;
}

static char *read_log(const struct wd *d)
{
	static char text[1 << 18];
	char path[96];
	size_t n = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/log", d->dir);
	f = fopen(path, "r");
	if (f) {
		n = fread(text, 1, sizeof(text) - 1, f);
		fclose(f);
	}
	text[n] = 0;
	return text;
}

int wd_logged(const struct wd *d, const char *text)
{
	return strstr(read_log(d), text) != NULL;
}

int wd_log_wait(const struct wd *d, const char *text, int ms)
{
	for (; ms > 0 && !wd_logged(d, text); ms -= 20)
		wd_sleep_ms(20);
	return wd_logged(d, text);
}

void wd_show_log(const struct wd *d)
{
	char *save = NULL;

	for (char *l = strtok_r(read_log(d), "\n", &save); l; l = strtok_r(NULL, "\n", &save))
		diag("%s", l);
}

/* --- admin ----------------------------------------------------------------------------------------*/

static int connect_to(const char *dir, const char *name, int type)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int sock = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/%s", dir, name);
	if (connect(sock, (struct sockaddr *)&sa, sizeof(sa))) {
		int err = -errno;

		close(sock);
		return err;
	}
	return sock;
}

/* As far as the other side takes it; a signal may cut a long line in pieces. */
static void send_all(int sock, const char *text, size_t n)
{
	while (n > 0) {
		ssize_t sent = send(sock, text, n, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0)
			return;
		text += sent;
		n -= (size_t)sent;
	}
}

json_t *wd_admin(const struct wd *d, const char *line)
{
	static char buf[1 << 17];
	int sock = connect_to(d->dir, "admin.sock", SOCK_STREAM);
	size_t n = 0;

	if (sock < 0)
		return NULL;
	send_all(sock, line, strlen(line));
	send_all(sock, "\n", 1);
	while (n < sizeof(buf) - 1 && !memchr(buf, '\n', n)) {
		ssize_t got = recv(sock, buf + n, sizeof(buf) - 1 - n, 0);

		if (got <= 0)
			break;
		n += (size_t)got;
	}
	close(sock);
	return json_loadb(buf, n, 0, NULL);
}

json_t *wd_status(const struct wd *d)
{
	json_t *j = NULL;

	for (int i = 0; i < WD_PATIENCE_MS / 1000; i++) {
		json_t *engine;

		json_decref(j);
		j = wd_admin(d, "{\"cmd\":\"status\"}");
		engine = json_array_get(json_object_get(j, "engines"), 0);
		if (json_object_get(engine, "engine") ||
		    strcmp(json_string_value(json_object_get(engine, "state")) ?: "", "ready"))
			break;
	}
	return j;
}

int wd_ask(const struct wd *d, json_t **last, const char *fmt, ...)
{
	char line[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	for (char *c = line; *c; c++)
		if (*c == '\'')
			*c = '"';
	json_decref(*last);
	*last = wd_admin(d, line);
	return json_is_true(json_object_get(*last, "ok"));
}

const char *wd_error(const json_t *reply)
{
	const char *text = json_string_value(json_object_get(reply, "error"));

	return text ? text : "";
}

static long int_of(json_t *object, const char *field)
{
	char name[64];
	char *dot;
	json_t *v;

	snprintf(name, sizeof(name), "%s", field);
	dot = strchr(name, '.');
	if (dot) {
		*dot = 0;
		return int_of(json_object_get(object, name), dot + 1);
	}
	v = json_object_get(object, name);
	return json_is_true(v) ? 1 : json_is_integer(v) ? (long)json_integer_value(v) : -1;
}

long wd_engine_int(const struct wd *d, int index, const char *field)
{
	json_t *j =
		strncmp(field, "engine.", 7) ? wd_admin(d, "{\"cmd\":\"status\"}") : wd_status(d);
	long v = int_of(json_array_get(json_object_get(j, "engines"), (size_t)index), field);

	json_decref(j);
	return v;
}

long wd_daemon_int(const struct wd *d, const char *field)
{
	json_t *j = wd_admin(d, "{\"cmd\":\"status\"}");
	long v = int_of(json_object_get(j, "daemon"), field);

	json_decref(j);
	return v;
}

int wd_engine_wait(const struct wd *d, int index, const char *field, long value, int ms)
{
	bool counts = !strcmp(field, "starts");

	for (; ms > 0; ms -= 20) {
		long now = wd_engine_int(d, index, field);

		if (now == value || (counts && now > value))
			return 1;
		wd_sleep_ms(20);
	}
	return 0;
}

int wd_daemon_wait(const struct wd *d, const char *field, long value, int ms)
{
	for (; ms > 0 && wd_daemon_int(d, field) != value; ms -= 20)
		wd_sleep_ms(20);
	return wd_daemon_int(d, field) == value;
}

/* --- clients --------------------------------------------------------------------------------------*/

int wd_connect(const struct wd *d)
{
	return connect_to(d->dir, "weftd.sock", SOCK_SEQPACKET);
}

void wd_hello_init(struct wctl_hello *h)
{
	*h = (struct wctl_hello){.minor = WSHM_MINOR, .slots = 8};
	wctl_head_init(&h->head, WCTL_HELLO, sizeof(*h), 0);
	h->tx_arena_bytes = 1 << 16;
	h->rx_arena_bytes = 1 << 16;
}

int wd_recv(struct wd_client *c, int ms)
{
	union {
		struct wctl_head head;
		struct wctl_text text;
		struct wctl_models models;
		struct wctl_welcome welcome;
	} m;
	struct pollfd p = {.fd = c->sock, .events = POLLIN};
	uint32_t n = WCTL_WELCOME_FDS;
	int got;

	if (poll(&p, 1, ms) != 1)
		return -ETIMEDOUT;
	got = wctl_recv(c->sock, &m, sizeof(m), c->fds, &n);
	if (got <= 0)
		return got == -ECONNRESET ? 0 : got;
	if (m.head.type == WCTL_WELCOME && got == sizeof(m.welcome) && n == WCTL_WELCOME_FDS)
		c->welcome = m.welcome;
	if (got == sizeof(m.text))
		c->text = m.text;
	return m.head.type;
}

int wd_open(struct wd_client *c, const struct wd *d, const struct wctl_hello *h)
{
	struct wshm_layout layout;
	int type;

	*c = WD_CLIENT_NONE;
	c->sock = wd_connect(d);
	if (c->sock < 0)
		return c->sock;
	wctl_send(c->sock, h, sizeof(*h), NULL, 0);
	type = wd_recv(c, WD_PATIENCE_MS);
	if (type != WCTL_WELCOME)
		return type == WCTL_REFUSED ? -EACCES : -EPROTO;
	if (wshm_layout_init(&layout, &c->welcome.params))
		return -EPROTO;
	return wshm_client_open(&c->shm, &layout, c->fds[0], c->fds[1]);
}

void wd_close(struct wd_client *c)
{
	wshm_client_close(&c->shm);
	for (uint32_t i = 0; i < WCTL_WELCOME_FDS; i++)
		if (c->fds[i] >= 0)
			close(c->fds[i]);
	if (c->sock >= 0)
		close(c->sock);
	*c = WD_CLIENT_NONE;
}

int wd_state_wait(const struct wd_client *c, enum wshm_engine_state state, int ms)
{
	const struct wshm_rx_ctl *ctl = wshm_client_rx_ctl(&c->shm);

	for (; ms > 0 && atomic_load(&ctl->engine_state) != state; ms -= 5)
		wd_sleep_ms(5);
	return atomic_load(&ctl->engine_state) == state;
}
