/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Adapters as weftd keeps them: loaded, listed, unloaded, replaced, sent again to the next engine;
 * of the configuration and of a reload; folders that are broken in every way; engines that refuse,
 * crash, lie or say nothing. The engine is the fake one.
 */
#include "tests/e2e/daemon_harness.h"
#include "tests/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static struct wd d;
static json_t *last; /* reply */

/* --- folders --------------------------------------------------------------------------------------*/

static const char *path_of(const char *adapter, const char *file)
{
	static char path[2][192];
	static int turn;

	turn = !turn;
	snprintf(path[turn], sizeof(path[turn]), "%s/%s%s%s", d.dir, adapter, file ? "/" : "",
		 file ? file : "");
	return path[turn];
}

static void put(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	if (!f || fputs(text, f) < 0 || fclose(f))
		bail_out(path);
}

#define CONFIG	"adapter_config.json"
#define WEIGHTS "adapter_model.safetensors"

static void folder(const char *name, const char *words, const char *weights)
{
	mkdir(path_of(name, NULL), 0755);
	put(path_of(name, CONFIG), words);
	put(path_of(name, WEIGHTS), weights);
}

/* --- asking ---------------------------------------------------------------------------------------*/

#define ask(...) wd_ask(&d, &last, __VA_ARGS__)

static const char *error(void)
{
	return wd_error(last);
}

static const char *warning(void)
{
	const char *text = json_string_value(json_object_get(last, "warning"));

	return text ? text : "";
}

static int load(const char *name, const char *dir, const char *more)
{
	return ask("{'cmd':'adapter-load','name':'%s','path':'%s'%s}", name, path_of(dir, NULL),
		   more);
}

static int unload(const char *name, const char *more)
{
	return ask("{'cmd':'adapter-unload','name':'%s'%s}", name, more);
}

/* A field of the adapter as weftd lists it; "" when it is not there. */
static const char *listed(const char *name, const char *field)
{
	static char text[300];
	json_t *it, *v;
	size_t i;

	strcpy(text, "");
	ask("{'cmd':'adapter-list'}");
	json_array_foreach(json_object_get(last, "adapters"), i, it)
	{
		if (strcmp(json_string_value(json_object_get(it, "name")), name))
			continue;
		v = json_object_get(it, field);
		if (json_is_string(v))
			snprintf(text, sizeof(text), "%s", json_string_value(v));
		else
			snprintf(text, sizeof(text), "%lld",
				 json_is_true(v) ? 1 : (long long)json_integer_value(v));
	}
	return text;
}

static int wait_for(const char *name, const char *field, const char *value, int ms)
{
	for (; ms > 0 && strcmp(listed(name, field), value); ms -= 20)
		wd_sleep_ms(20);
	return !strcmp(listed(name, field), value);
}

/* What the engine has: a copy of its status' entry, or "none". */
static const char *in_engine(const char *name)
{
	static char text[300];
	json_t *j = wd_status(&d), *it;
	size_t i;

	strcpy(text, "none");
	json_array_foreach(
		json_object_get(json_object_get(json_array_get(json_object_get(j, "engines"), 0),
						"engine"),
				"adapters"),
		i, it)
	{
		if (!strcmp(json_string_value(json_object_get(it, "name")), name))
			snprintf(text, sizeof(text), "%s offset %d missing %d",
				 json_string_value(json_object_get(it, "weights")),
				 (int)json_integer_value(json_object_get(it, "offset")),
				 (int)json_integer_value(json_object_get(it, "on_missing")));
	}
	json_decref(j);
	return text;
}

static const char *expected(const char *weights, int offset, int missing)
{
	static char text[100];
	uint64_t h = 1469598103934665603u;

	for (const char *c = weights; *c; c++)
		h = (h ^ (uint8_t)*c) * 1099511628211u;
	snprintf(text, sizeof(text), "%016llx offset %d missing %d", (unsigned long long)h, offset,
		 missing);
	return text;
}

static void kill_engine(void)
{
	long starts = wd_engine_int(&d, 0, "starts");

	kill((pid_t)wd_engine_int(&d, 0, "pid"), SIGKILL);
	if (!wd_engine_wait(&d, 0, "starts", starts + 1, WD_PATIENCE_MS))
		bail_out("the engine was not started again");
}

/* --- the tests ------------------------------------------------------------------------------------*/

static void test_load(void)
{
	folder("a", "ok", "weights of a");
	ok(load("a", "a", ",'activation_offset':-1,'on_missing_invocation':'append'"), "loaded");
	is_str(in_engine("a"), expected("weights of a", -1, 2), "the engine has just these bytes");
	is_str(json_string_value(json_object_get(json_object_get(last, "adapter"), "state")),
	       "loaded", "the answer says so");
	is_str(listed("a", "state"), "loaded", "and the list");
	is_str(listed("a", "kind"), "alora", "with what the engine found it to be");
	is_str(listed("a", "file_bytes"), "14", "and the bytes of both files");
	ok(!load("a", "a", "") && strstr(error(), "is there already"), "its name is taken");
	folder("b", "ok", "of b");
	ok(load("b", "b", ""), "another one");
	is_int(wd_daemon_int(&d, "adapters"), 2, "there are two");
	ok(unload("a", ""), "the first is unloaded");
	is_str(in_engine("a"), "none", "the engine has it no more");
	is_str(listed("a", "state"), "", "nor weftd");
	ok(!unload("a", "") && strstr(error(), "has no adapter a"), "it cannot go twice");
	ok(load("a", "a", ""), "its name is free");
	is_str(in_engine("a"), expected("weights of a", 0, 0), "by default no offset and an error");
}

static void test_requests(void)
{
	static const struct {
		const char *line, *why;
	} bad[] = {
		{"{'cmd':'adapter-load'}", "name must be a text"},
		{"{'cmd':'adapter-load','name':'x'}", "path must be a text"},
		{"{'cmd':'adapter-load','name':'x y','path':'/x'}", "a name has"},
		{"{'cmd':'adapter-load','name':'x','path':'x'}", "absolute"},
		{"{'cmd':'adapter-load','name':'x','path':'/x','model':'z'}", "no model \"z\""},
		{"{'cmd':'adapter-load','name':'x','path':'/x','modle':'m'}", "unknown field"},
		{"{'cmd':'adapter-load','name':'x','path':'/x','na':'m'}", "unknown field \"na\""},
		{"{'cmd':'adapter-load','name':'x','path':'/x','activation_offset':70000}",
		 "number"},
		{"{'cmd':'adapter-load','name':'x','path':'/x','activation_offset':'1'}", "number"},
		{"{'cmd':'adapter-load','name':'x','path':'/x','on_missing_invocation':'no'}",
		 "base"},
		{"{'cmd':'adapter-load','name':'x','path':'/x','replace':1}", "true or false"},
		{"{'cmd':'adapter-unload','name':'x','force':'yes'}", "true or false"},
		{"{'cmd':'adapter-unload'}", "name must be a text"},
		{"{'cmd':'adapter-list','model':7}", "must be a name"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		ok(!ask("%s", bad[i].line) && strstr(error(), bad[i].why), "refused (%s): %s",
		   bad[i].why, bad[i].line);
}

/* The folder, the file in it that is wrong, and what is said. */
static void broken(const char *what, const char *why)
{
	if (!ok(!load("x", "x", "") && strstr(error(), why), "%s: %s", what, why))
		diag("it said: %s", error());
}

static void test_folders(void)
{
	FILE *f;

	broken("no folder", CONFIG ": No such file");
	mkdir(path_of("x", NULL), 0755);
	broken("an empty folder", CONFIG ": No such file");
	put(path_of("x", CONFIG), "ok");
	broken("no weights", WEIGHTS ": No such file");
	mkfifo(path_of("x", WEIGHTS), 0644);
	broken("a FIFO", WEIGHTS " is no regular file");
	unlink(path_of("x", WEIGHTS));
	mkdir(path_of("x", WEIGHTS), 0755);
	broken("a directory", WEIGHTS " is no regular file");
	rmdir(path_of("x", WEIGHTS));
	ok(!symlink("/dev/zero", path_of("x", WEIGHTS)), "a link to a device");
	broken("a device", WEIGHTS " is no regular file");
	unlink(path_of("x", WEIGHTS));
	ok(!symlink(path_of("x", WEIGHTS), path_of("x", WEIGHTS)), "a link to itself");
	broken("a loop of links", WEIGHTS ": Too many levels");
	unlink(path_of("x", WEIGHTS));
	put(path_of("x", WEIGHTS), "");
	ok(!truncate(path_of("x", WEIGHTS), (1 << 20) + 1), "weights of a byte too many");
	broken("larger than max_adapter_bytes", "max_adapter_bytes is 1048576");
	put(path_of("x", WEIGHTS), "w");
	ok(!truncate(path_of("x", CONFIG), (1 << 20) + 1), "a configuration of a byte too many");
	broken("a huge configuration", CONFIG " has 1048577 bytes");
	put(path_of("x", CONFIG), "refuse");
	broken("what the engine refuses", "lora_X is not known");
	is_int(wd_daemon_int(&d, "adapters"), 2, "none of them is left");
	is_int(wd_daemon_int(&d, "adapter_file_bytes"), 14 + 6, "nor any of their bytes");
	put(path_of("x", CONFIG), "ok");
	put(path_of("x", "blob"), "linked weights");
	unlink(path_of("x", WEIGHTS));
	ok(!symlink("blob", path_of("x", WEIGHTS)), "a link to a file, as in a hub's cache");
	ok(load("x", "x", ""), "is followed");
	is_str(in_engine("x"), expected("linked weights", 0, 0), "to its bytes");
	f = fopen(path_of("x", "blob"), "w");
	fputs("changed afterwards!", f);
	fclose(f);
	kill_engine();
	ok(wait_for("x", "state", "loaded", WD_PATIENCE_MS), "after a restart of the engine");
	is_str(in_engine("x"), expected("linked weights", 0, 0), "the bytes are still those");
	ok(unload("x", ""), "and off");
}

/*
 * A folder whose name is a link, turned to the next version between the two files. A lease on the
 * first file holds its reader at open() until it is given up.
 */
static void test_turned(void)
{
	const struct timespec patience = {.tv_sec = WD_PATIENCE_MS / 1000};
	sigset_t io;
	pid_t pid;
	int fd, status;

	folder("v1", "ok", "weights of version 1");
	folder("v2", "ok", "weights of version 2");
	ok(!symlink("v1", path_of("current", NULL)), "a link to version 1");
	sigemptyset(&io);
	sigaddset(&io, SIGIO);
	sigprocmask(SIG_BLOCK, &io, NULL);
	fd = open(path_of("v1", CONFIG), O_RDWR | O_CLOEXEC);
	if (fd < 0 || fcntl(fd, F_SETLEASE, F_WRLCK)) {
		skip(5, "no leases on this file system");
		unlink(path_of("current", NULL));
		close(fd);
		return;
	}
	pid = fork();
	if (!pid)
		_exit(!load("t", "current", ""));
	is_int(sigtimedwait(&io, NULL, &patience), SIGIO, "its first file is being opened");
	unlink(path_of("current", NULL));
	ok(!symlink("v2", path_of("current", NULL)), "the link is turned to version 2");
	fcntl(fd, F_SETLEASE, F_UNLCK);
	close(fd);
	waitpid(pid, &status, 0);
	ok(WIFEXITED(status) && !WEXITSTATUS(status), "loaded");
	is_str(in_engine("t"), expected("weights of version 1", 0, 0),
	       "both files are of one version");
	ok(unload("t", ""), "and off");
	unlink(path_of("current", NULL));
}

static void test_restart(void)
{
	struct wctl_hello h;
	struct wd_client c;

	wd_hello_init(&h);
	is_int(wd_open(&c, &d, &h), 0, "a session");
	ok(wd_state_wait(&c, WSHM_ENGINE_RUNNING, WD_PATIENCE_MS), "is served");
	kill_engine();
	ok(wd_engine_wait(&d, 0, "engine.attached", 1, WD_PATIENCE_MS), "by the next engine too");
	is_int(wd_engine_int(&d, 0, "engine.loads"), 2, "which got both adapters");
	is_int(wd_engine_int(&d, 0, "engine.late_loads"), 0, "before the session");
	is_str(in_engine("a"), expected("weights of a", 0, 0), "a");
	is_str(in_engine("b"), expected("of b", 0, 0), "b");
	wd_close(&c);
}

static void test_in_use(void)
{
	folder("u", "ok used", "in use");
	ok(load("u", "u", ""), "an adapter that three requests use");
	ok(!unload("u", "") && strstr(error(), "in use by 3 requests"), "is not unloaded");
	is_str(listed("u", "state"), "loaded", "it stays");
	ok(unload("u", ",'force':true"), "but by force");
	is_str(in_engine("u"), "none", "it goes");
	load("u", "u", "");
	ok(!unload("u", "") && !unload("u", "") && strstr(error(), "2 requests"), "tried again");
	ok(!unload("u", "") && unload("u", ""), "until the last has ended");
}

static void test_replace(void)
{
	folder("v1", "ok used", "version 1");
	folder("v2", "ok", "version 2");
	folder("v3", "refuse", "version 3");
	ok(load("v", "v1", ""), "version 1");
	ok(!load("v", "v2", ",'replace':true") && strstr(error(), "in use by 3"),
	   "in use it is not replaced");
	is_str(in_engine("v"), expected("version 1", 0, 0), "it serves on");
	is_str(listed("v", "being_replaced"), "0", "and nothing waits");
	ok(load("v", "v2", ",'replace':true,'force':true"), "by force it is");
	is_str(in_engine("v"), expected("version 2", 0, 0), "version 2 serves");
	ok(!load("v", "v3", ",'replace':true") && strstr(error(), "lora_X"),
	   "a version that the engine refuses");
	ok(wait_for("v", "state", "loaded", WD_PATIENCE_MS), "the one before it comes back");
	is_str(in_engine("v"), expected("version 2", 0, 0), "with its bytes");
	ok(!load("v", "nowhere", ",'replace':true") && strstr(error(), "No such file"),
	   "a version that is not there");
	is_str(in_engine("v"), expected("version 2", 0, 0), "changes nothing");
	ok(load("v", "v2", ",'replace':true"), "the same once more");
	ok(load("w", "v2", ",'replace':true"), "replacing what is not there is loading");
	ok(unload("v", "") && unload("w", ""), "both go");
	is_int(wd_daemon_int(&d, "adapters"), 2, "nothing is left of all the versions");
}

static void test_engine_faults(void)
{
	long starts = wd_engine_int(&d, 0, "starts");

	folder("c", "crash", "c");
	ok(!load("c", "c", "") && strstr(error(), "the engine ended each time"),
	   "an adapter that ends the engine twice is given up");
	ok(wd_engine_wait(&d, 0, "starts", starts + 2, WD_PATIENCE_MS), "after two restarts");
	ok(wait_for("a", "state", "loaded", WD_PATIENCE_MS), "the others are there");
	folder("l", "liar", "l");
	ok(!load("l", "l", ""), "one that makes it talk nonsense, too");
	ok(wait_for("a", "state", "loaded", WD_PATIENCE_MS), "the others are there");
	ok(wd_daemon_wait(&d, "adapters", 2, WD_PATIENCE_MS), "and none of these");
}

/* What administrators have loaded is loaded again by the next weftd, unless this is gone. */
static void forget(void)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/state/adapters.json", d.dir);
	ok(!unlink(path), "a list of what was loaded by hand");
}

/* With a weftd whose patience is short; for everything else it is long. */
static void test_no_answer(void)
{
	kill(d.pid, SIGTERM);
	is_int(wd_wait(&d), 0, "ended");
	forget();
	put(path_of("weftd.conf", NULL),
	    "[daemon]\nload_seconds = 2\n[model m]\npath = /fake/ok\n");
	wd_restart(&d);
	ok(load("a", "a", "") && load("b", "b", ""), "two adapters");
	folder("n", "never", "n");
	ok(!load("n", "n", ""), "one that gets no answer is given up, too");
	ok(wd_logged(&d, "no answer about an adapter"), "the engine counted as hanging");
	ok(wait_for("a", "state", "loaded", WD_PATIENCE_MS) &&
		   wait_for("b", "state", "loaded", WD_PATIENCE_MS),
	   "the others are there");
	ok(wd_daemon_wait(&d, "adapters", 2, WD_PATIENCE_MS), "and it is not");
}

/* --- of the configuration -------------------------------------------------------------------------*/

static const char head[] = "[daemon]\nload_seconds = 60\nmax_adapters = 5\n"
			   "max_adapter_bytes = 1M\nmax_adapters_bytes = 2M\n"
			   "[model m]\npath = /fake/ok\n";

static void configure(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* The head, and for each %s the folder of an adapter of that path. */
static void configure(const char *fmt, ...)
{
	char text[2048];
	size_t n = (size_t)snprintf(text, sizeof(text), "%s", head);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text + n, sizeof(text) - n, fmt, ap);
	va_end(ap);
	put(path_of("weftd.conf", NULL), text);
}

static int reload_says(const char *text)
{
	int good = ask("{'cmd':'reload'}");
	const char *got = json_string_value(json_object_get(last, good ? "text" : "error"));

	if (!got || !strstr(got, text)) {
		diag("reload said: %s", got ? got : "nothing");
		return 0;
	}
	return good;
}

static void test_configured(void)
{
	configure("[adapter one]\npath = %s/a\nactivation_offset = 2\n"
		  "on_missing_invocation = base\n"
		  "[adapter bad]\npath = %s/v3\n[adapter gone]\npath = %s/nowhere\n",
		  d.dir, d.dir, d.dir);
	wd_restart(&d);
	ok(wait_for("one", "state", "loaded", WD_PATIENCE_MS),
	   "an adapter of the configuration is loaded");
	is_str(in_engine("one"), expected("weights of a", 2, 1), "as it says");
	ok(wait_for("bad", "state", "failed", WD_PATIENCE_MS),
	   "one that the engine refuses has failed");
	is_str(listed("bad", "why"), "lora_X is not known", "for the engine's reason");
	ok(wait_for("gone", "state", "failed", WD_PATIENCE_MS), "one that is not there has failed");
	ok(strstr(listed("gone", "why"), "No such file"), "and says so");
	is_str(listed("a", "state"), "", "what was loaded by hand and is on no list is not there");
	folder("v3", "ok", "mended");
	ok(reload_says("adapter bad is tried again"), "a reload tries a failed one again");
	ok(wait_for("bad", "state", "loaded", WD_PATIENCE_MS), "with success when it is mended");
	ok(wait_for("gone", "state", "failed", WD_PATIENCE_MS), "and without when it is not");
	ok(unload("gone", ""), "one that has failed can be unloaded");
	is_str(listed("gone", "state"), "", "and is listed no more");
}

static void test_reload(void)
{
	configure("[adapter one]\npath = %s/a\nactivation_offset = 2\n"
		  "on_missing_invocation = base\n"
		  "[adapter two]\npath = %s/v1\n",
		  d.dir, d.dir);
	ok(reload_says("adapter two is new"), "a new section");
	ok(strstr(json_string_value(json_object_get(last, "text")), "adapter bad was removed"),
	   "and one that was removed");
	ok(!strstr(json_string_value(json_object_get(last, "text")), "adapter one"),
	   "of the others nothing is said");
	ok(wait_for("two", "state", "loaded", WD_PATIENCE_MS), "the new one is loaded");
	ok(wait_for("bad", "state", "", WD_PATIENCE_MS), "the removed one is unloaded");
	configure("[adapter one]\npath = %s/b\n[adapter two]\npath = %s/v2\n", d.dir, d.dir);
	ok(reload_says("adapter one has changed"), "a changed path");
	ok(wait_for("one", "file_bytes", "6", WD_PATIENCE_MS), "is replaced");
	is_str(in_engine("one"), expected("of b", 0, 0), "in the engine");
	is_str(in_engine("two"), expected("version 1", 0, 0), "one in use is not, yet");
	is_str(listed("two", "being_replaced"), "1", "but it will");
	/* Each attempt ends one of its three requests; there is one a second. */
	for (int i = 0;
	     i < WD_PATIENCE_MS / 20 && strcmp(in_engine("two"), expected("version 2", 0, 0)); i++)
		wd_sleep_ms(20);
	is_str(in_engine("two"), expected("version 2", 0, 0), "when they have ended it is");
	folder("v1", "refuse", "bad version");
	configure("[adapter one]\npath = %s/b\n[adapter two]\npath = %s/v1\n", d.dir, d.dir);
	reload_says("adapter two has changed");
	for (int i = 0; i < WD_PATIENCE_MS / 20 && !strstr(listed("two", "why"), "new version");
	     i++)
		wd_sleep_ms(20);
	ok(wait_for("two", "state", "loaded", WD_PATIENCE_MS) &&
		   strstr(listed("two", "why"), "lora_X"),
	   "a new version that fails: the old one serves, and the list says why");
	is_str(in_engine("two"), expected("version 2", 0, 0), "with its bytes");
	configure("%s", "");
	ok(reload_says("adapter two was removed"), "all sections removed");
	ok(wait_for("one", "state", "", WD_PATIENCE_MS) &&
		   wait_for("two", "state", "", WD_PATIENCE_MS),
	   "all are gone");
}

static void test_limits(void)
{
	char name[16];
	FILE *f;

	for (int i = 0; i < 5; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		ok(load(name, "b", ""), "adapter %d of 5", i);
	}
	ok(!load("n5", "b", "") && strstr(error(), "max_adapters"), "there is no sixth");
	ok(load("n4", "a", ",'replace':true"), "but one may be replaced");
	for (int i = 0; i < 5; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		unload(name, "");
	}
	folder("big", "ok", "");
	f = fopen(path_of("big", WEIGHTS), "w");
	for (int i = 0; i < (900 << 10); i++)
		putc(i, f);
	fclose(f);
	ok(load("big1", "big", "") && load("big2", "big", ""), "two of 900 KiB");
	ok(!load("big3", "big", "") && strstr(error(), "max_adapters_bytes leaves"),
	   "a third would be more than 2 MiB");
	ok(unload("big1", "") && load("big3", "big", ""), "when one has gone there is room");
	unload("big2", "");
	unload("big3", "");
}

/* A request whose answer nobody waits for yet. */
static int __attribute__((format(printf, 1, 2))) ask_only(const char *fmt, ...)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), n;
	char line[300];
	va_list ap;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/admin.sock", d.dir);
	if (connect(sock, (struct sockaddr *)&sa, sizeof(sa)) || write(sock, line, (size_t)n) != n)
		bail_out("admin.sock");
	return sock;
}

#define LOAD "{\"cmd\":\"adapter-load\",\"name\":\"%s\",\"path\":\"%s/%s\"}\n"

/* Copies are made one at a time: one that is given up makes way for the next. */
static void test_given_up(void)
{
	int socks[3];

	/* weftd finds all three at once, the third while the first's copy has just begun. */
	kill(d.pid, SIGSTOP);
	socks[0] = ask_only(LOAD, "first", d.dir, "big");
	socks[1] = ask_only(LOAD, "second", d.dir, "a");
	socks[2] = ask_only("{\"cmd\":\"adapter-unload\",\"name\":\"first\"}\n");
	kill(d.pid, SIGCONT);
	ok(wait_for("second", "state", "loaded", WD_PATIENCE_MS),
	   "the second is copied and loaded");
	ok(wait_for("first", "state", "", WD_PATIENCE_MS), "the first is gone");
	for (int i = 0; i < 3; i++)
		close(socks[i]);
	/* One that fails is replaced meanwhile, at whatever point of its way. */
	for (int i = 0; i < 6; i++) {
		folder("r", i % 2 ? "slow refuse" : "refuse", "r");
		kill(d.pid, SIGSTOP);
		socks[0] = ask_only(LOAD, "first", d.dir, "r");
		socks[1] =
			ask_only("{\"cmd\":\"adapter-load\",\"name\":\"first\",\"path\":\"%s/%s\","
				 "\"replace\":true}\n",
				 d.dir, i < 3 ? "big" : "a");
		kill(d.pid, SIGCONT);
		ok(wait_for("first", "state", "loaded", WD_PATIENCE_MS),
		   "the one that replaces it is loaded");
		ok(unload("first", ""), "and unloaded");
		close(socks[0]);
		close(socks[1]);
	}
	ok(unload("second", ""), "so is the second, when it is asked for");
}

/*
 * At the start sessions wait for the adapters of the configuration: a client that has come over from
 * a weftd that was killed goes on with one of them.
 */
static void test_early_session(void)
{
	struct wctl_hello h;
	struct wd_client c;
	char text[300];

	folder("huge", "ok", "");
	/* A hole: it takes no disk, but a moment to be copied. */
	ok(!truncate(path_of("huge", WEIGHTS), 256 << 20), "an adapter of 256 MiB");
	snprintf(text, sizeof(text), "[model m]\npath = /fake/ok\n[adapter huge]\npath = %s/huge\n",
		 d.dir);
	put(path_of("weftd.conf", NULL), text);
	wd_restart(&d);
	wd_hello_init(&h);
	is_int(wd_open(&c, &d, &h), 0, "a client that comes at once is welcome");
	if (strcmp(listed("huge", "state"), "copying"))
		diag("it was copied before anybody looked: this run shows nothing");
	ok(wd_state_wait(&c, WSHM_ENGINE_RUNNING, WD_PATIENCE_MS), "it is served");
	is_int(wd_engine_int(&d, 0, "engine.loads"), 1, "the adapter was loaded");
	is_int(wd_engine_int(&d, 0, "engine.late_loads"), 0, "before the session came");
	wd_close(&c);
}

static void end(void)
{
	kill(d.pid, SIGTERM);
	is_int(wd_wait(&d), 0, "ended");
}

static int holds(const char *path, const char *text)
{
	char got[2048];
	FILE *f = fopen(path, "re");
	size_t n = f ? fread(got, 1, sizeof(got) - 1, f) : 0;

	if (f)
		fclose(f);
	got[n] = 0;
	return strstr(got, text) != NULL;
}

/* A list that is not weftd's own is not read; entries that are damaged harm no other. */
static void test_bad_lists(void)
{
	char path[160], text[1024], bad[176], fresh[176];

	end();
	snprintf(path, sizeof(path), "%s/state/adapters.json", d.dir);
	snprintf(bad, sizeof(bad), "%s.bad", path);
	snprintf(fresh, sizeof(fresh), "%s.new", path);
	snprintf(text, sizeof(text),
		 "{\"adapters\":[17,{\"name\":\"a\"},"
		 "{\"model\":\"m\",\"name\":\"a b\",\"path\":\"/x\",\"activation_offset\":0,"
		 "\"on_missing_invocation\":\"error\"},"
		 "{\"model\":\"n\",\"name\":\"n\",\"path\":\"%s/a\",\"activation_offset\":0,"
		 "\"on_missing_invocation\":\"error\"},"
		 "{\"model\":\"m\",\"name\":\"b\",\"path\":\"%s/a\",\"activation_offset\":3,"
		 "\"on_missing_invocation\":\"append\"}]}",
		 d.dir, d.dir);
	put(path, text);
	ok(!chmod(path, 0622), "a list that others may write");
	wd_restart(&d);
	is_int(wd_daemon_int(&d, "adapters"), 0, "is not read");
	end();
	ok(!chmod(path, 0600), "the same of weftd's own");
	wd_restart(&d);
	ok(wait_for("b", "state", "loaded", WD_PATIENCE_MS), "is, and its sound entry loaded");
	is_str(in_engine("b"), expected("weights of a", 3, 2), "as it says");
	is_int(wd_daemon_int(&d, "adapters"), 1, "and no other");
	is_str(listed("n", "state"), "skipped", "what another model had is listed");
	is_str(listed("n", "why"), "its model is served no more", "with the reason");
	is_int(wd_daemon_int(&d, "adapters_skipped"), 1, "and counted");
	ok(load("more", "a", "") && holds(path, "\"name\":\"n\"") && !holds(path, "a b"),
	   "it stays in the file, what is damaged does not");
	ok(unload("more", "") && unload("b", ""), "both are unloaded");
	ok(!mkdir(fresh, 0700) && !unload("n", "") && strstr(error(), "nothing was dropped"),
	   "what was skipped is not dropped while the file cannot be written");
	is_str(listed("n", "state"), "skipped", "and is listed still");
	ok(!rmdir(fresh) && unload("n", ",'model':'n'") && !holds(path, "\"name\":\"n\""),
	   "it is when it can");
	ok(!unload("n", "") && strstr(error(), "model m has no adapter n"), "once");
	end();
	/* What cannot be set aside is not written over; nor does weftd wait for who reads a fifo. */
	ok(!mkdir(bad, 0700) && !mkfifo(fresh, 0600), "a folder and a fifo in the way");
	put(path, "[17]");
	wd_restart(&d);
	is_int(wd_daemon_int(&d, "adapters"), 0, "no list is none");
	ok(load("more", "a", "") && holds(path, "[17]"), "and stays where it is");
	ok(strstr(warning(), "could not be written"), "who loads one is told so");
	is_str(listed("more", "survives_restart"), "0", "and the list says it");
	ok(!rmdir(bad) && load("less", "a", "") && holds(bad, "[17]"), "until it can be set aside");
	ok(!*warning() && holds(path, "more") && holds(path, "less"),
	   "then the next change writes all of it");
	is_str(listed("more", "survives_restart"), "1", "the first, too");
	ok(!mkdir(fresh, 0700) && unload("less", "") && strstr(warning(), "could not be written"),
	   "who unloads one is told, too");
	ok(load("last", "a", ""), "another is loaded");
	ok(!rmdir(fresh), "what was in the way goes");
	end();
	ok(holds(path, "last") && !holds(path, "less"), "and weftd writes the file at its end");
	wd_restart(&d);
	ok(wait_for("last", "state", "loaded", WD_PATIENCE_MS), "as the next one finds");
	is_str(listed("last", "survives_restart"), "1", "which may end again");
	ok(unload("more", "") && unload("last", ""), "all are unloaded");
	end();
	ok(!unlink(bad), "it is");
	put(path, "{\"adapters\":[");
	wd_restart(&d);
	is_int(wd_daemon_int(&d, "adapters"), 0, "half a list is none");
}

/* The lines of weftd's log that hold a text. */
static int lines_logged(const char *text)
{
	char line[2048];
	int n = 0;
	FILE *f;

	snprintf(line, sizeof(line), "%s/log", d.dir);
	f = fopen(line, "re");
	while (f && fgets(line, sizeof(line), f))
		n += strstr(line, text) != NULL;
	if (f)
		fclose(f);
	return n;
}

/* A file of more adapters than there is room for, of models that are there and are not. */
static void test_many_skipped(void)
{
	char path[160];
	FILE *f;
	int before;

	snprintf(path, sizeof(path), "%s/state/adapters.json", d.dir);
	f = fopen(path, "we");
	for (int i = 0; f && i < 1200; i++)
		fprintf(f,
			"%s{\"model\":\"%s\",\"name\":\"x%d\",\"path\":\"%s/b\","
			"\"activation_offset\":0,\"on_missing_invocation\":\"error\"}",
			i ? "," : "{\"adapters\":[",
			i < 100 ? "m"
			: i % 2 ? "n"
				: "o",
			i < 1100 ? i : i / 2 * 2, d.dir);
	if (!f || fputs("]}", f) < 0 || fclose(f))
		bail_out(path);
	before = lines_logged("event=adapter-skipped");
	wd_restart(&d);
	ok(wait_for("x4", "state", "loaded", WD_PATIENCE_MS), "as many are loaded as may be");
	is_str(listed("x5", "state"), "skipped", "the next is not");
	ok(strstr(listed("x5", "why"), "max_adapters"), "for the limit");
	is_int(wd_daemon_int(&d, "adapters_skipped"), 1195, "nor all the others");
	is_int(lines_logged("event=adapter-skipped") - before, 10, "a few of which are logged");
	is_int(lines_logged("event=adapters-skipped adapters=1195 not_named=1185"), 1,
	       "and the number of all");
	ask("{'cmd':'adapter-list'}");
	is_int(json_array_size(json_object_get(last, "adapters")), 105, "the list has a hundred");
	is_int(json_integer_value(json_object_get(last, "skipped")), 1195, "and says of how many");
	ask("{'cmd':'adapter-list','model':'o'}");
	is_int(json_integer_value(json_object_get(last, "skipped")), 550, "of one model, too");
	ok(!unload("x1100", "") && strstr(error(), "name one"), "a name that two models have had");
	ok(unload("x1100", ",'model':'n'") && unload("x1100", ",'model':'o'"), "takes its model");
	ok(!unload("x6", ",'skipped':true") && strstr(error(), "either"), "a name, or all");
	ok(ask("{'cmd':'adapter-unload','skipped':true,'model':'o'}"), "all of one model");
	is_int(json_integer_value(json_object_get(last, "dropped")), 549, "are dropped");
	ok(!load("x5", "a", "") && strstr(error(), "max_adapters"), "there is no room yet");
	ok(unload("x4", "") && load("x5", "a", "") && unload("x5", "") && !holds(path, "\"x5\""),
	   "what is loaded and unloaded by hand is skipped no more");
	ok(ask("{'cmd':'adapter-unload','skipped':true}"), "all of the rest");
	is_int(wd_daemon_int(&d, "adapters_skipped"), 0, "are dropped");
	for (int i = 0; i < 4; i++) {
		char name[8];

		snprintf(name, sizeof(name), "x%d", i);
		ok(unload(name, ""), "%s is unloaded", name);
	}
	ok(holds(path, "{\"adapters\":[]}"), "which leaves nothing");
	end();
}

/* New versions that the engine refuses: of one that serves, and of one that has failed. */
static void test_refused_versions(void)
{
	char path[160];

	folder("k", "ok", "k");
	folder("worse", "refuse", "worse");
	ok(load("k", "k", ""), "one is loaded by hand");
	snprintf(path, sizeof(path), "%s/state/adapters.json.bad", d.dir);
	ok(holds(path, "{\"adapters\":["), "and the list that could not be read is set aside");
	ok(!load("k", "worse", ",'replace':true"), "a new version is refused");
	ok(wait_for("k", "state", "loaded", WD_PATIENCE_MS), "the old one serves again");
	end();
	ok(!unlink(path_of("k", WEIGHTS)), "it loses its weights");
	wd_restart(&d);
	ok(wait_for("k", "state", "failed", WD_PATIENCE_MS), "and is there, as failed");
	ok(!load("k", "worse", ",'replace':true") && strstr(error(), "lora_X"),
	   "a version that the engine refuses");
	ok(wait_for("k", "state", "failed", WD_PATIENCE_MS), "leaves it so");
	ok(load("j", "b", ""), "others are loaded meanwhile");
	ok(unload("k", "") && unload("j", ""), "and unloaded, as it is");
}

/* What an administrator has loaded is there again in the next weftd, ended or killed, until it is unloaded. */
static void test_outlives(void)
{
	configure("%s", "");
	forget();
	wd_restart(&d);
	folder("lost", "ok", "lost");
	ok(load("a", "a", ",'activation_offset':-1,'on_missing_invocation':'base'") &&
		   load("b", "b", "") && load("lost", "lost", "") && load("gone", "b", ""),
	   "four are loaded");
	ok(load("b", "a", ",'replace':true"), "one is replaced");
	ok(unload("gone", ""), "one is unloaded");
	kill(d.pid, SIGKILL);
	wd_wait(&d);
	ok(!unlink(path_of("lost", WEIGHTS)), "one loses its weights");
	for (int i = 0; i < 2; i++) {
		wd_restart(&d);
		ok(wait_for("a", "state", "loaded", WD_PATIENCE_MS) &&
			   wait_for("b", "state", "loaded", WD_PATIENCE_MS),
		   "weftd %d has them", i + 2);
		is_str(in_engine("a"), expected("weights of a", -1, 1), "as was asked for");
		is_str(in_engine("b"), expected("weights of a", 0, 0), "the one that came last");
		is_str(listed("b", "configured"), "0", "as an administrator's");
		is_str(listed("gone", "state"), "", "what was unloaded stays so");
		ok(wait_for("lost", "state", "failed", WD_PATIENCE_MS),
		   "what cannot be loaded is listed");
		ok(strstr(listed("lost", "why"), "No such file"), "with the reason");
		end();
	}
	configure("[adapter b]\npath = %s/b\n", d.dir);
	wd_restart(&d);
	ok(wait_for("b", "state", "loaded", WD_PATIENCE_MS),
	   "the configuration has one of that name");
	is_str(in_engine("b"), expected("of b", 0, 0), "which wins");
	ok(unload("lost", "") && unload("a", ""), "the others are unloaded");
	end();
	configure("%s", "");
	wd_restart(&d);
	is_int(wd_daemon_int(&d, "adapters"), 0,
	       "and are not there again, nor is the one that lost");
	test_bad_lists();
	test_refused_versions();
	end();
	test_many_skipped();
}

/* An administrator who does not wait for the answer, and one whose weftd is killed. */
static void test_cut_off(void)
{
	int sock;

	folder("s", "slow", "s");
	for (int killed = 0; killed < 2; killed++) {
		sock = ask_only(LOAD, "s", d.dir, "s");
		if (!killed) {
			close(sock);
			ok(wait_for("s", "state", "loaded", WD_PATIENCE_MS),
			   "an administrator hangs up: the adapter is loaded all the same");
			unload("s", "");
			continue;
		}
		wd_sleep_ms(50);
		kill(d.pid, SIGKILL);
		wd_wait(&d);
		close(sock);
		wd_restart(&d);
		is_str(listed("s", "state"), "",
		       "weftd killed in the middle: it knows nothing of it");
		ok(load("s", "s", ""), "and loads it when it is asked again");
	}
}

int main(int argc, char **argv)
{
	wd_engine_or_test(argc, argv);
	wd_start(&d, head);
	test_load();
	test_requests();
	test_folders();
	test_turned();
	test_restart();
	test_in_use();
	test_replace();
	test_engine_faults();
	test_no_answer();
	kill(d.pid, SIGTERM);
	is_int(wd_wait(&d), 0, "ended");
	forget();
	test_configured();
	test_reload();
	test_limits();
	test_given_up();
	test_cut_off();
	kill(d.pid, SIGTERM);
	is_int(wd_wait(&d), 0, "ended");
	test_outlives();
	test_early_session();
	json_decref(last);
	is_int(wd_stop(&d), 0, "stopped");
	return tap_done();
}
