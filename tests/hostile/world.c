/* SPDX-License-Identifier: Apache-2.0 */
/* world.c - see world.h: the private daemon. The honest work is in world_jobs.c. */
#include "tests/hostile/world.h"

#include "tests/hostile/raw.h"
#include "tests/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOWNESS 10u
#else
#define SLOWNESS 1u
#endif

struct world {
	struct world_options o;
	char dir[64], socket[96], admin[96], config[96], log[96], model[96];
	pid_t daemon;			  /* 0: none */
	pid_t first_daemon, first_engine; /* for world_same() */
	long long blocks;
};

#define MODEL_BYTES (1u << 20) /* more than the fixture's largest file */

/* What must not survive the test, whatever ends it. */
static char left_dir[64];
static pid_t left_daemon, owner;

unsigned world_slowness(void)
{
	return SLOWNESS;
}

uid_t world_attacker(void)
{
	return geteuid() ? RAW_ANY_UID : WORLD_OTHER_UID;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	return remove(path);
}

static void clean_up(void)
{
	if (getpid() != owner)
		return;
	if (left_daemon > 0) {
		kill(left_daemon, SIGKILL);
		waitpid(left_daemon, NULL, 0);
	}
	if (left_dir[0])
		nftw(left_dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	left_dir[0] = 0;
}

/* --- starting -------------------------------------------------------------------------------------*/

static void show_log(const struct world *w)
{
	FILE *f = fopen(w->log, "re");
	char line[512];

	while (f && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		diag("%s", line);
	}
	if (f)
		fclose(f);
}

static void fail(const struct world *w, const char *what)
{
	show_log(w);
	bail_out(what);
}

static const char *program(const char *name, char *buf, size_t bytes)
{
	const char *build = getenv("WEFT_BUILD");

	snprintf(buf, bytes, "%s/%s", build ? build : "build", name);
	return buf;
}

/* One file of the fixture; in config.json there is room for more positions than its own 256. */
static void copy_file(const struct world *w, const char *from, const char *name)
{
	static const char old[] = "\"max_position_embeddings\": 256";
	char path[512], *text, *at;
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", from, name);
	text = malloc(MODEL_BYTES);
	f = fopen(path, "re");
	if (!text || !f)
		bail_out("tests/data/models/llama cannot be read: is WEFT_SRC set?");
	n = fread(text, 1, MODEL_BYTES, f);
	fclose(f);
	snprintf(path, sizeof(path), "%s/%s", w->model, name);
	f = fopen(path, "we");
	at = memmem(text, n, old, sizeof(old) - 1);
	if (!f)
		bail_out("no temporary file");
	if (at) {
		fwrite(text, 1, (size_t)(at - text), f);
		fprintf(f, "\"max_position_embeddings\": %u", WORLD_POSITIONS);
		at += sizeof(old) - 1;
		fwrite(at, 1, n - (size_t)(at - text), f);
	} else {
		fwrite(text, 1, n, f);
	}
	if (fclose(f))
		bail_out("the temporary directory is full");
	free(text);
}

static void make_model(const struct world *w)
{
	const char *src = getenv("WEFT_SRC");
	char from[400];

	snprintf(from, sizeof(from), "%s/tests/data/models/llama", src ? src : ".");
	if (mkdir(w->model, 0755))
		bail_out("no temporary directory");
	copy_file(w, from, "config.json");
	copy_file(w, from, "generation_config.json");
	copy_file(w, from, "model.safetensors");
	/* Of another vocabulary: it is handed out, not used. */
	snprintf(from, sizeof(from), "%s/tests/data/chat", src ? src : ".");
	copy_file(w, from, "tokenizer.json");
}

static void write_config(const struct world *w)
{
	const struct world_options *o = &w->o;
	FILE *f = fopen(w->config, "we");

	if (!f)
		bail_out("no temporary file");
	fprintf(f,
		"[daemon]\nsocket_mode = 0666\n%s\n"
		"[model tiny]\npath = %s\nthreads = %u\n%s\n",
		o->daemon ? o->daemon : "", w->model, o->threads ? o->threads : 1,
		o->model ? o->model : "kv_bytes = 8M");
	if (o->tenants)
		fprintf(f, "%s", o->tenants);
	else
		fprintf(f, "[tenant honest]\nuid = %u\n%s\n", geteuid(),
			o->honest ? o->honest : "");
	if (!geteuid() && !o->tenants)
		fprintf(f, "[tenant other]\nuid = %u\n%s\n", WORLD_OTHER_UID,
			o->other ? o->other : "");
	fclose(f);
}

static void spawn(struct world *w)
{
	char weftd[256];

	program("weftd", weftd, sizeof(weftd));
	w->daemon = fork();
	if (!w->daemon) {
		int fd = open(w->log, O_WRONLY | O_CREAT | O_APPEND, 0644);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(fd, 1);
		dup2(fd, 2);
		for (int i = 0; w->o.env[i]; i++)
			putenv((char *)(uintptr_t)w->o.env[i]);
		execl(weftd, "weftd", "--foreground", "--runtime-dir", w->dir, "--config",
		      w->config, (char *)NULL);
		_exit(127);
	}
	left_daemon = w->daemon;
}

static void wait_ready(struct world *w)
{
	uint64_t until = raw_now_ns() + 60 * SLOWNESS * UINT64_C(1000000000);
	json_t *status, *engine;
	bool ready = false;

	while (!ready) {
		if (raw_now_ns() > until || waitpid(w->daemon, NULL, WNOHANG))
			fail(w, "weftd does not serve");
		raw_pause_us(5000);
		status = world_admin(w, "{\"cmd\":\"status\"}");
		engine = json_array_get(json_object_get(status, "engines"), 0);
		ready = engine &&
			!strcmp(json_string_value(json_object_get(engine, "state")), "ready");
		json_decref(status);
	}
}

struct world *world_start(const struct world_options *o)
{
	struct world *w = calloc(1, sizeof(*w));

	if (!w)
		bail_out("no memory");
	if (o)
		w->o = *o;
	strcpy(w->dir, "/tmp/weft-test-XXXXXX");
	if (!mkdtemp(w->dir) || chmod(w->dir, 0755))
		bail_out("no temporary directory");
	strcpy(left_dir, w->dir);
	if (!owner)
		atexit(clean_up);
	owner = getpid();
	signal(SIGPIPE, SIG_IGN);
	snprintf(w->socket, sizeof(w->socket), "%s/weftd.sock", w->dir);
	snprintf(w->admin, sizeof(w->admin), "%s/admin.sock", w->dir);
	snprintf(w->config, sizeof(w->config), "%s/weftd.conf", w->dir);
	snprintf(w->log, sizeof(w->log), "%s/log", w->dir);
	snprintf(w->model, sizeof(w->model), "%s/model", w->dir);
	make_model(w);
	write_config(w);
	spawn(w);
	wait_ready(w);
	w->first_daemon = w->daemon;
	w->first_engine = world_engine(w);
	w->blocks = world_number(w, "blocks");
	return w;
}

void world_tenants(struct world *w, const char *tenants)
{
	w->o.tenants = tenants;
	write_config(w);
}

bool world_reload(struct world *w, const char *tenants)
{
	json_t *j;
	bool good;

	world_tenants(w, tenants);
	j = world_admin(w, "{\"cmd\":\"reload\"}");
	good = json_is_true(json_object_get(j, "ok"));
	if (!good)
		diag("%s", json_string_value(json_object_get(j, "error")));
	json_decref(j);
	return good;
}

void world_restart_daemon(struct world *w)
{
	spawn(w);
	wait_ready(w);
}

int world_wait_exit(struct world *w, int timeout_ms)
{
	uint64_t until = raw_now_ns() + (uint64_t)timeout_ms * 1000000;
	int status;

	while (waitpid(w->daemon, &status, WNOHANG) == 0) {
		if (raw_now_ns() > until)
			return -1;
		raw_pause_us(2000);
	}
	left_daemon = w->daemon = 0;
	return status;
}

void world_stop(struct world *w)
{
	int status = 0;

	if (w->daemon > 0) {
		kill(w->daemon, SIGTERM);
		status = world_wait_exit(w, 20000 * (int)SLOWNESS);
	}
	if (!ok(status == 0, "weftd stops by itself"))
		diag("wait status %d", status);
	if (tap_failed)
		show_log(w);
	clean_up();
	left_daemon = 0;
	free(w);
}

const char *world_socket(const struct world *w)
{
	return w->socket;
}

pid_t world_daemon(const struct world *w)
{
	return w->daemon;
}

const char *world_dir(const struct world *w)
{
	return w->dir;
}

/* --- asking ---------------------------------------------------------------------------------------*/

static int admin_connect(const struct world *w)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", w->admin);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof(sa))) {
		close(fd);
		return -1;
	}
	return fd;
}

json_t *world_admin(const struct world *w, const char *line)
{
	static char text[262144];
	struct pollfd p = {admin_connect(w), POLLIN, 0};
	size_t have = 0;
	json_t *j;

	if (p.fd < 0)
		return NULL;
	if (write(p.fd, line, strlen(line)) > 0 && write(p.fd, "\n", 1) == 1) {
		while (have < sizeof(text) && !memchr(text, '\n', have) &&
		       poll(&p, 1, RAW_PATIENCE_MS) == 1) {
			ssize_t n = read(p.fd, text + have, sizeof(text) - have);

			if (n <= 0)
				break;
			have += (size_t)n;
		}
	}
	close(p.fd);
	j = json_loadb(text, have, JSON_DISABLE_EOF_CHECK, NULL);
	return j;
}

static const json_t *find(const json_t *j, const char *name)
{
	const char *key;
	const json_t *hit;
	json_t *v;
	size_t i;

	if (json_is_object(j)) {
		v = json_object_get(j, name);
		if (json_is_number(v))
			return v;
		/* jansson's iteration macros want what is not const. */
		json_object_foreach((json_t *)(uintptr_t)j, key, v)
		{
			hit = find(v, name);
			if (hit)
				return hit;
		}
	}
	json_array_foreach((json_t *)(uintptr_t)j, i, v)
	{
		hit = find(v, name);
		if (hit)
			return hit;
	}
	return NULL;
}

long long world_number(const struct world *w, const char *name)
{
	long long n = -1;

	/* weftd does not wait for the engine's part longer than a second. */
	for (int i = 0; n < 0 && i < 60; i++) {
		json_t *status = world_admin(w, "{\"cmd\":\"status\"}");
		const json_t *v = find(status, name);

		if (v)
			n = (long long)json_number_value(v);
		else
			raw_pause_us(10000);
		json_decref(status);
	}
	return n;
}

bool world_number_becomes(const struct world *w, const char *name, long long value, int timeout_ms)
{
	uint64_t until = raw_now_ns() + (uint64_t)timeout_ms * 1000000 * SLOWNESS;

	while (world_number(w, name) != value) {
		if (raw_now_ns() > until)
			return false;
		raw_pause_us(10000);
	}
	return true;
}

bool world_logged(const struct world *w, const char *text)
{
	FILE *f = fopen(w->log, "re");
	char line[1024];
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f))
		found = strstr(line, text) != NULL;
	if (f)
		fclose(f);
	return found;
}

pid_t world_engine(const struct world *w)
{
	json_t *status = world_admin(w, "{\"cmd\":\"status\"}");
	json_t *engine = json_array_get(json_object_get(status, "engines"), 0);
	pid_t pid = (pid_t)json_integer_value(json_object_get(engine, "pid"));

	json_decref(status);
	return pid;
}

pid_t world_wait_engine(const struct world *w, pid_t before, int timeout_ms)
{
	uint64_t until = raw_now_ns() + (uint64_t)timeout_ms * 1000000;
	const char *state;
	pid_t pid = 0;

	while (raw_now_ns() < until) {
		json_t *status = world_admin(w, "{\"cmd\":\"status\"}");
		json_t *engine = json_array_get(json_object_get(status, "engines"), 0);

		state = json_string_value(json_object_get(engine, "state"));
		pid = (pid_t)json_integer_value(json_object_get(engine, "pid"));
		if (state && strcmp(state, "ready"))
			pid = 0;
		json_decref(status);
		if (pid && pid != before)
			return pid;
		raw_pause_us(2000);
	}
	return 0;
}

/* --- judging --------------------------------------------------------------------------------------*/

void world_same(const struct world *w)
{
	ok(!waitpid(w->daemon, NULL, WNOHANG) && w->daemon == w->first_daemon,
	   "weftd is the process that was started");
	is_int(world_engine(w), w->first_engine, "the engine is the process that was started");
	is_int(world_number(w, "starts"), 1, "and was started once");
	is_int(world_number(w, "engine_crashes"), 0, "no engine has crashed");
}

void world_given_back(const struct world *w)
{
	static const char *const zero[] = {
		"region_bytes", "regions_in_use", "connections_without_hello",
		"in_flight",	"slab_bytes",	  "queued"};

	ok(world_number_becomes(w, "sessions", 0, RAW_PATIENCE_MS), "no session is left");
	for (size_t i = 0; i < sizeof(zero) / sizeof(*zero); i++)
		if (!ok(world_number_becomes(w, zero[i], 0, RAW_PATIENCE_MS), "%s comes back",
			zero[i]))
			diag("%s is %lld", zero[i], world_number(w, zero[i]));
	if (!ok(world_number_becomes(w, "blocks_free", w->blocks, RAW_PATIENCE_MS) && w->blocks > 0,
		"every block is free again"))
		diag("%lld of %lld are free", world_number(w, "blocks_free"), w->blocks);
}
