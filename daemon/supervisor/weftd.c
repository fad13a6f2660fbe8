/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weftd.c - the daemon as a whole: start, signals, reload, drain, end.
 *
 * Order of the start: configuration, directory and locks (an older engine must be gone), sockets,
 * privileges dropped, engines. Order of the end: engines drain, clients are told, links are
 * closed, processes are waited for. Owned by its only thread.
 */
#include "daemon/supervisor/weftd.h"

#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* Beyond the deadline of a drain: for the engine's own last messages and its exit. */
#define DRAIN_EXTRA_NS (2 * NS_PER_SECOND)
/* Lines about sessions that open and close, in ten seconds. */
#define SESSION_LOG_BURST 200
#define ACCEPT_PAUSE_NS	  NS_PER_SECOND
/* Descriptors of a session: socket, tx, rx, eventfd, bell; and tx and rx of an ended one whose
 * memory is still held. */
#define FDS_PER_SESSION 7u
/* Copies of them that may be on their way at once, which the same limit is for: to a client that
 * reads nothing, and to an engine that does something else. */
#define FLIGHT_PER_SESSION (WCTL_WELCOME_FDS + WCTL_MAX_FILES_ASKED + WCTL_MAX_INDEXES + 4u)
#define FDS_OF_OWN	   (64u + WEFTD_MAX_PENDING + 6u * WCTL_MAX_MODELS)

/* The two files of an adapter, and of the one that replaces it. */
#define FDS_PER_ADAPTER 4u

/* Beside those: an index region of each domain for each engine, and adapters. Tenants that a reload brings use
 * descriptors that sessions might have had. */
static rlim_t own_descriptors(const struct config *c)
{
	return FDS_OF_OWN + (rlim_t)c->n_models * (c->n_tenants + 1) +
	       FDS_PER_ADAPTER * (rlim_t)c->daemon.max_adapters;
}

struct engine *weftd_engine(struct weftd *d, const char *name)
{
	for (uint32_t i = 0; i < d->n_engines; i++)
		if (!strcmp(d->engines[i].conf.name, name))
			return &d->engines[i];
	return NULL;
}

/* --- clients --------------------------------------------------------------------------------------*/

static void on_accept_timer(struct loop_timer *t)
{
	struct weftd *d = container_of(t, struct weftd, accept_timer);

	loop_rewatch(&d->loop, &d->client_source, EPOLLIN);
}

static void on_client(struct loop_source *s, uint32_t events)
{
	struct weftd *d = container_of(s, struct weftd, client_source);
	int err = session_accept(d, d->client_fd);

	if (!err)
		return;
	/* Nothing can be accepted just now; without a pause the loop would spin on it. */
	log_limited(&d->refuse_limit, LOG_LEVEL_ERROR, "event=accept error=\"%s\"", strerror(-err));
	loop_rewatch(&d->loop, &d->client_source, 0);
	loop_timer_set(&d->loop, &d->accept_timer, loop_now_ns() + ACCEPT_PAUSE_NS,
		       on_accept_timer);
}

/* --- drain ----------------------------------------------------------------------------------------*/

static bool engine_done(const struct engine *e)
{
	return !e->pid || e->drained || e->gave_up;
}

void weftd_drain_check(struct weftd *d)
{
	if (!d->draining)
		return;
	for (uint32_t i = 0; i < d->n_engines; i++)
		if (!engine_done(&d->engines[i]))
			return;
	loop_stop(&d->loop, 0);
}

static void on_drain_timer(struct loop_timer *t)
{
	struct weftd *d = container_of(t, struct weftd, drain_timer);

	log_line(LOG_LEVEL_WARN, "event=drain-deadline");
	loop_stop(&d->loop, 0);
}

void weftd_drain(struct weftd *d, uint32_t seconds)
{
	uint64_t deadline = loop_now_ns() + seconds * NS_PER_SECOND;

	if (d->draining)
		return;
	d->draining = true;
	log_line(LOG_LEVEL_NOTICE, "event=draining seconds=%u sessions=%u", seconds, d->n_sessions);
	notify("STOPPING=1\nSTATUS=Draining");
	loop_timer_set(&d->loop, &d->drain_timer, deadline + DRAIN_EXTRA_NS, on_drain_timer);
	for (uint32_t i = 0; i < d->n_engines; i++) {
		struct engine *e = &d->engines[i];

		if (e->state != ENGINE_READY) {
			engine_stop(e);
			e->drained = true; /* nothing that it could still do */
			continue;
		}
		e->want_drain = true;
		e->drain_deadline_ns = deadline;
		engine_flush(e);
	}
	weftd_drain_check(d);
}

/* --- signals --------------------------------------------------------------------------------------*/

static void on_signal(struct loop_source *s, uint32_t events)
{
	struct weftd *d = container_of(s, struct weftd, signal_source);
	struct signalfd_siginfo si;
	char text[8192];

	if (read(d->signal_fd, &si, sizeof(si)) != (ssize_t)sizeof(si))
		return;
	if (si.ssi_signo == SIGHUP) {
		notify("RELOADING=1");
		weftd_reload(d, text, sizeof(text));
		notify("READY=1");
	} else if (d->draining) {
		log_line(LOG_LEVEL_WARN, "event=stopped-at-once why=\"second signal\"");
		loop_stop(&d->loop, 1);
	} else {
		weftd_drain(d, d->config.daemon.drain_seconds);
	}
}

static int open_signals(struct weftd *d)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	if (sigprocmask(SIG_BLOCK, &set, NULL))
		return -errno;
	d->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (d->signal_fd < 0)
		return -errno;
	return loop_watch(&d->loop, &d->signal_source, d->signal_fd, EPOLLIN, on_signal);
}

/* --- reload ---------------------------------------------------------------------------------------*/

static void say(char **out, size_t *room, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void say(char **out, size_t *room, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(*out, *room, fmt, ap);
	va_end(ap);
	if (n > 0 && (size_t)n < *room) {
		log_line(LOG_LEVEL_NOTICE, "event=reload text=\"%.*s\"", n - 1, *out);
		*out += n;
		*room -= (size_t)n;
	}
}

struct reload_output {
	char **out;
	size_t *room;
};

static void say_adapter(void *arg, const char *name, const char *text)
{
	struct reload_output *o = arg;

	say(o->out, o->room, "adapter %s %s\n", name, text);
}

/* Models: those that could not be served are tried again as the file now says; of the others
 * nothing changes. */
static void reload_models(struct weftd *d, const struct config *c, char **out, size_t *room)
{
	for (uint32_t i = 0; i < c->n_models; i++) {
		struct engine *e = weftd_engine(d, c->models[i].name);

		if (!e) {
			say(out, room, "model %s is new: it is served after a restart of weftd\n",
			    c->models[i].name);
		} else if (e->state == ENGINE_FAILED) {
			e->conf = c->models[i];
			e->state = ENGINE_STOPPED;
			e->restarts = 0;
			say(out, room, "model %s is tried again\n", e->conf.name);
			engine_start(e);
		} else if (memcmp(&e->conf, &c->models[i], sizeof(e->conf))) {
			say(out, room, "model %s has changed: this takes a restart of weftd\n",
			    e->conf.name);
		}
	}
	for (uint32_t i = 0; i < d->n_engines; i++) {
		bool there = false;

		for (uint32_t k = 0; k < c->n_models; k++)
			there |= !strcmp(c->models[k].name, d->engines[i].conf.name);
		if (!there)
			say(out, room,
			    "model %s was removed: it is served until a restart of "
			    "weftd\n",
			    d->engines[i].conf.name);
	}
}

static void say_moved(const struct moved *m, char **out, size_t *room)
{
	if (m->renewed)
		say(out, room,
		    "%u tenants may have lost somebody: what they cache has new secrets\n",
		    m->renewed);
	if (m->sessions)
		say(out, room, "%u open sessions have moved to another tenant\n", m->sessions);
	if (m->ended)
		say(out, room, "%u open sessions have ended: their users have no tenant\n",
		    m->ended);
}

int weftd_reload(struct weftd *d, char *out, size_t out_bytes)
{
	struct config_report *report = calloc(1, sizeof(*report));
	struct config *c = calloc(1, sizeof(*c));
	size_t room = out_bytes;
	struct weft_err why = {0};
	struct moved moved;
	int err = report && c ? config_load(c, d->options.config_file, report) : -ENOMEM;

	*out = 0;
	if (err == -EINVAL)
		err_set(&why, err, "%.500s", report->text);
	else if (!err)
		err = domains_configure(&d->domains, c, &why);
	if (!err)
		err = moved_renew(d, c, &why);
	if (!err)
		err = tenants_configure(&d->tenants, c);
	if (err) {
		const char *text = why.code ? why.message : strerror(-err);

		log_line(LOG_LEVEL_ERROR, "event=reload-refused errors=%u first=\"%.300s\"",
			 report ? report->errors : 0, text);
		snprintf(out, out_bytes, "%s", report && report->errors ? report->text : text);
	} else {
		say(&out, &room, "%u tenants are in force\n", c->n_tenants);
		if (memcmp(&c->daemon, &d->config.daemon, sizeof(c->daemon)))
			say(&out, &room, "[daemon] has changed: this takes a restart of weftd\n");
		reload_models(d, c, &out, &room);
		registry_reload(d, c, say_adapter, &(struct reload_output){&out, &room});
		d->config.n_tenants = c->n_tenants;
		memcpy(d->config.tenants, c->tenants, sizeof(c->tenants));
		d->config.n_adapters = c->n_adapters;
		memcpy(d->config.adapters, c->adapters, sizeof(c->adapters));
	}
	moved = moved_apply(d);
	if (!err)
		say_moved(&moved, &out, &room);
	for (uint32_t i = 0; i < d->n_engines; i++)
		engine_flush(&d->engines[i]);
	free(report);
	free(c);
	return err;
}

/* --- start ----------------------------------------------------------------------------------------*/

static int load_config(struct weftd *d, const struct weftd_options *options, struct weft_err *err)
{
	struct config_report *report = calloc(1, sizeof(*report));
	int rc = report ? config_load(&d->config, options->config_file, report) : -ENOMEM;

	if (rc && rc != -EINVAL)
		err_set(err, rc, "reading the configuration: %s", strerror(-rc));
	else if (rc && report->errors > 1)
		err_set(err, rc, "%.*s (and %u more: --check shows all)",
			(int)strcspn(report->text, "\n"), report->text, report->errors - 1);
	else if (rc)
		err_set(err, rc, "%.*s", (int)strcspn(report->text, "\n"), report->text);
	free(report);
	if (rc)
		return rc;
	snprintf(d->runtime_dir, sizeof(d->runtime_dir), "%s",
		 options->runtime_dir ? options->runtime_dir : d->config.daemon.runtime_dir);
	if (options->runtime_dir && strlen(options->runtime_dir) >= sizeof(d->runtime_dir))
		return err_set(err, -ENAMETOOLONG,
			       "--runtime-dir is longer than %zu bytes: a socket's path may not be "
			       "longer",
			       sizeof(d->runtime_dir) - 1);
	return 0;
}

static rlim_t larger(rlim_t a, rlim_t b)
{
	return a > b ? a : b;
}

/* As many descriptors as the sessions may need, or as many sessions as there are descriptors. */
static int raise_limits(struct weftd *d, struct weft_err *err)
{
	rlim_t own = own_descriptors(&d->config), n = d->config.daemon.max_sessions;
	rlim_t need = larger(n * FDS_PER_SESSION + own, n * FLIGHT_PER_SESSION);
	struct rlimit rl;

	d->max_sessions = d->config.daemon.max_sessions;
	if (getrlimit(RLIMIT_NOFILE, &rl))
		return err_set(err, -errno, "RLIMIT_NOFILE: %s", strerror(errno));
	if (rl.rlim_cur >= need)
		return 0;
	rl.rlim_cur = need < rl.rlim_max ? need : rl.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &rl))
		return err_set(err, -errno, "RLIMIT_NOFILE: %s", strerror(errno));
	if (rl.rlim_cur >= need)
		return 0;
	if (rl.rlim_cur < own + FDS_PER_SESSION)
		return err_set(err, -EMFILE,
			       "a limit of %llu file descriptors is too low for weftd",
			       (unsigned long long)rl.rlim_cur);
	n = (rl.rlim_cur - own) / FDS_PER_SESSION;
	if (n * FLIGHT_PER_SESSION > rl.rlim_cur)
		n = rl.rlim_cur / FLIGHT_PER_SESSION;
	d->max_sessions = (uint32_t)n;
	log_line(LOG_LEVEL_WARN,
		 "event=descriptor-limit max_sessions=%u why=\"%llu file descriptors are allowed: "
		 "raise it (LimitNOFILE=)\"",
		 d->max_sessions, (unsigned long long)rl.rlim_cur);
	return 0;
}

/* Nobody could be served within a limit that the index of a domain exceeds; one that only large sessions
 * exceed refuses those. */
static int check_file_limit(struct weft_err *err)
{
	struct rlimit rl;

	if (getrlimit(RLIMIT_FSIZE, &rl))
		return err_set(err, -errno, "RLIMIT_FSIZE: %s", strerror(errno));
	if (rl.rlim_cur >= wshm_idx_bytes())
		return 0;
	return err_set(err, -EFBIG,
		       "a limit of %llu bytes for files (RLIMIT_FSIZE) is too low for weftd, whose "
		       "shared memory counts as files: an index alone has %llu",
		       (unsigned long long)rl.rlim_cur, (unsigned long long)wshm_idx_bytes());
}

static int open_admin(struct weftd *d, struct weft_err *err)
{
	struct group *g = getgrnam(d->config.daemon.admin_group);
	gid_t own = getegid();
	int fd, rc;

	/* The socket is born with its group, which takes a capability that weftd keeps anyway; to give it
	 * away afterwards would take CHOWN. */
	if (g && !geteuid() && setegid(g->gr_gid))
		log_line(LOG_LEVEL_WARN, "event=admin-group error=\"%s\"", strerror(errno));
	fd = runtime_listen(d->runtime_dir, "admin.sock", SOCK_STREAM, 0660, err);
	if (getegid() != own && setegid(own)) {
		err_set(err, -errno, "setegid: %s", strerror(errno));
		if (fd >= 0)
			close(fd);
		return err->code;
	}
	if (fd < 0)
		return fd;
	rc = admin_open(d, fd, g ? g->gr_gid : (gid_t)-1);
	return rc ? err_set(err, rc, "admin.sock: %s", strerror(-rc)) : 0;
}

/* Beside the runtime directory, so that a daemon of one's own needs no path to be given; but what is
 * in /run is gone at the next boot, so the machine's own daemon has a folder that stays. */
static int open_state(struct weftd *d, struct weft_err *err)
{
	char beside[sizeof(d->runtime_dir) + 8];
	const char *dir = d->config.daemon.state_dir;
	int rc;

	snprintf(beside, sizeof(beside), "%s/state", d->runtime_dir);
	if (!*dir)
		dir = strcmp(d->runtime_dir, RUNTIME_DIR_DEFAULT) ? beside : STATE_DIR_DEFAULT;
	rc = domains_open(&d->domains, dir, err);
	return rc ? rc : domains_configure(&d->domains, &d->config, err);
}

static int open_all(struct weftd *d, struct weft_err *err)
{
	int rc = raise_limits(d, err);

	if (!rc)
		rc = check_file_limit(err);
	if (!rc)
		rc = engine_find(d->options.engine, d->config.daemon.engine, d->engine_path,
				 sizeof(d->engine_path), err);
	if (!rc)
		rc = privilege_engine_user(d->config.daemon.engine_user, &d->engine_uid, err);
	if (!rc)
		rc = runtime_open(d, err);
	if (!rc)
		rc = open_state(d, err);
	if (!rc)
		rc = open_admin(d, err);
	if (!rc)
		rc = runtime_listen_clients(d, err);
	if (!rc)
		rc = privilege_drop(d->engine_uid, err);
	if (rc)
		return rc;
	rc = open_signals(d);
	if (!rc)
		rc = loop_watch(&d->loop, &d->client_source, d->client_fd, EPOLLIN, on_client);
	return rc ? err_set(err, rc, "signals and sockets: %s", strerror(-rc)) : 0;
}

/* Who installs weftd has no model yet: it runs all the same, so that it can be asked what is missing. */
static void say_ready(const struct weftd *d)
{
	if (d->n_engines) {
		notify("READY=1");
		return;
	}
	log_line(LOG_LEVEL_WARN,
		 "event=no-model why=\"%s has no [model NAME] section: nobody is served until it "
		 "has "
		 "one and weftd is restarted\"",
		 d->options.config_file);
	notify("READY=1\nSTATUS=Serving nobody: the configuration has no [model NAME] section");
}

int weftd_start(struct weftd *d, const struct weftd_options *options, struct weft_err *err)
{
	int rc;

	*d = (struct weftd){
		.options = *options,
		.engine_uid = (uid_t)-1,
		.started_ns = loop_now_ns(),
		.lock_fd = -1,
		.engine_lock_fd = -1,
		.client_fd = -1,
		.signal_fd = -1,
		.domains.dir_fd = -1,
		.loop.epoll_fd = -1,
		.admin.fd = -1,
		.session_limit.burst = SESSION_LOG_BURST,
	};
	/* Regions count as files: one beyond the limit of file sizes is an error, not the end. */
	signal(SIGXFSZ, SIG_IGN);
	rc = load_config(d, options, err);
	if (rc)
		return rc;
	rc = loop_init(&d->loop);
	if (!rc)
		rc = tenants_init(&d->tenants);
	if (!rc)
		rc = tenants_configure(&d->tenants, &d->config);
	if (!rc && getrandom(&d->daemon_id, sizeof(d->daemon_id), 0) != sizeof(d->daemon_id))
		rc = -errno;
	if (rc)
		return err_set(err, rc, "weftd cannot start: %s", strerror(-rc));
	regions_init(&d->regions, &d->tenants);
	rc = open_all(d, err);
	if (rc)
		return rc;
	for (; d->n_engines < d->config.n_models; d->n_engines++)
		engine_init(&d->engines[d->n_engines], d, &d->config.models[d->n_engines]);
	for (uint32_t i = 0; i < d->n_engines; i++)
		engine_start(&d->engines[i]);
	registry_start(d);
	pins_start(d);
	log_line(LOG_LEVEL_NOTICE, "event=serving socket=%s/weftd.sock models=%u version=%s",
		 d->runtime_dir, d->n_engines, WEFT_VERSION);
	say_ready(d);
	return 0;
}

int weftd_run(struct weftd *d)
{
	return loop_run(&d->loop);
}

/* --- end ------------------------------------------------------------------------------------------*/

/* Links are closed: engines exit by themselves. Those that do not are killed (engine_fini). */
static void wait_engines(struct weftd *d)
{
	uint64_t give_up = loop_now_ns() + DRAIN_EXTRA_NS;

	for (uint32_t i = 0; i < d->n_engines; i++) {
		struct pollfd p = {.fd = d->engines[i].pidfd, .events = POLLIN};
		uint64_t now = loop_now_ns();

		if (d->engines[i].pid && now < give_up)
			poll(&p, 1, (int)((give_up - now) / NS_PER_MS));
	}
}

void weftd_fini(struct weftd *d)
{
	/* Nothing is started any more, whatever goes from here on. */
	d->draining = true;
	/* Before the clients are told, who at once look for the next weftd. */
	loop_unwatch(&d->loop, &d->client_source);
	for (uint32_t i = 0; i < d->n_engines; i++)
		engine_stop(&d->engines[i]);
	if (d->loop.exit_code == 0)
		wait_engines(d);
	for (uint32_t i = 0; i < d->n_engines; i++)
		engine_fini(&d->engines[i]);
	while (d->sessions) {
		struct session *s = d->sessions;

		s->link = LINK_NONE; /* all engines are gone: this frees it */
		session_forget_unread(s);
		if (s->state == SESSION_GONE)
			session_release(s);
		else
			session_end(s, -ESHUTDOWN, "weftd is shutting down");
	}
	registry_fini(d);
	pins_fini(d);
	if (d->admin.fd >= 0)
		admin_close(d);
	loop_timer_clear(&d->loop, &d->sweep_timer);
	loop_timer_clear(&d->loop, &d->retry_timer);
	loop_timer_clear(&d->loop, &d->unread_timer);
	regions_fini(&d->regions);
	domains_fini(&d->domains);
	tenants_fini(&d->tenants);
	loop_unwatch(&d->loop, &d->signal_source);
	if (d->signal_fd >= 0)
		close(d->signal_fd);
	runtime_close(d);
	loop_fini(&d->loop);
}
