/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_at_once.c - all that the threads of a client, of weftd and of an engine can do beside each other, at
 * the same time: one session asked by many threads, waited at in every way; sessions that come and go in the
 * middle of things; adapters loaded and unloaded by force, prefixes pinned, the cache emptied, the status
 * read, the configuration read anew. What is asked of the base model gets, bit for bit, what it gets alone;
 * the rest ends as it should; then everything is given back. Once as a CPU computes, once with passes queued
 * ahead as for a device; and once more while engines and daemons are killed.
 *
 * Built with SAN=thread this is the race test of the daemon and of libweft (make check-races).
 */
#include "tests/e2e/adapter_files.h"
#include "tests/hostile/world.h"
#include "tests/tap.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define WAIT_MS	   120000
#define LEAST_MS   700 /* of a round; longer until everyone has come round often enough */
#define LEAST_DONE 8u

static struct world *w;
static struct weft *session; /* everyone's */
static const struct job_answer *reference;
static char dir[] = "/tmp/weft-at-once-XXXXXX";
static _Atomic bool over;
static _Atomic int wrong;

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void must(bool right, const char *what, int detail)
{
	if (right)
		return;
	diag("%s: %d", what, detail);
	atomic_fetch_add(&wrong, 1);
}

static struct weft_request *submit(struct weft *s, const struct weft_submit_options *o)
{
	struct weft_request *r = NULL;
	int rc;

	while ((rc = weft_submit(s, &r, o, NULL)) == -EAGAIN)
		usleep(500);
	must(!rc, "submitting", rc);
	return rc ? NULL : r;
}

/* All tokens of an answer, and nothing else. */
static void wait_end(struct weft_request *r, uint32_t sample)
{
	uint32_t have = 0;
	int64_t n;

	while ((n = weft_wait(r, sample, have, WAIT_MS)) > (int64_t)have)
		have = (uint32_t)n;
	must(n >= 0, "waiting", (int)n);
}

static enum weft_status status_of(struct weft_request *r)
{
	struct weft_result res = {.size = sizeof(res)};

	weft_result(r, &res);
	return res.status;
}

/* --- what the threads do: once round each -----------------------------------------------------------*/

static void ask_base(uint32_t turn)
{
	struct job_answer *a = malloc(sizeof(*a));
	uint32_t i = turn % JOBS;

	job_run(session, i, a);
	must(job_same(a, &reference[i]), "not what the base model gives alone: job", (int)i);
	free(a);
}

/* Cancelled, out of time, its adapter gone, or answered. */
static void ask_adapted(uint32_t turn)
{
	static const char *const names[] = {"plain", "again", "activated", NULL};
	uint32_t prompt[JOB_TOKENS];
	struct weft_submit_options o;
	struct weft_request *r;
	enum weft_status status;

	job_options(turn % JOBS, 192, prompt, &o);
	o.adapter = names[turn % 4];
	o.timeout_ms = turn % 5 == 4 ? 5 : 0;
	r = submit(session, &o);
	if (!r)
		return;
	if (turn % 3 == 2) {
		weft_wait(r, 0, 0, 20);
		weft_cancel(r);
	}
	if (turn % 7 != 6) {
		wait_end(r, 0);
		while ((status = status_of(r)) == WEFT_RUNNING) /* another answer goes on */
			usleep(200);
		must(status == WEFT_OK || status == WEFT_CANCELLED || status == WEFT_DEADLINE ||
			     status == WEFT_UNLOADED || status == WEFT_NO_ADAPTER ||
			     status == WEFT_NO_INVOCATION,
		     "a request ended", (int)status);
	}
	weft_free(r);
}

static void *wait_first(void *request)
{
	wait_end(request, 0);
	return NULL;
}

/* Two threads at one request. */
static void ask_together(uint32_t turn)
{
	uint32_t prompt[JOB_TOKENS];
	struct weft_submit_options o;
	struct weft_request *r;
	pthread_t other;

	job_options(3, 192, prompt, &o); /* several answers */
	r = submit(session, &o);
	if (!r || pthread_create(&other, NULL, wait_first, r))
		return;
	wait_end(r, 1);
	weft_cancel(r);
	pthread_join(other, NULL);
	weft_free(r);
}

static void listen_all(uint32_t turn)
{
	struct pollfd p = {.fd = weft_event_fd(session), .events = POLLIN};
	struct weft_request *got[8];
	int rc = 0;

	if (turn % 2 && !weft_event_arm(session))
		poll(&p, 1, 5);
	rc = weft_wait_any(session, got, 8, 5);
	must(rc >= 0 || rc == -ETIMEDOUT, "waiting for any", rc);
}

static void look_up(uint32_t turn)
{
	struct weft_probe found = {.size = sizeof(found)};
	uint32_t prompt[JOB_TOKENS];
	struct weft_submit_options o;
	struct weft_adapter all[4];
	int rc;

	job_options(turn % JOBS, 192, prompt, &o);
	rc = weft_probe(session, turn % 2 ? NULL : "activated", prompt, o.n_prompt, &found);
	must(!rc || rc == -ENOENT || rc == -EAGAIN, "probing", rc);
	weft_adapters(session, all, 4);
	usleep(200);
}

/* Former ones may not be quite gone, and fill what the tenant may have. */
static struct weft *open_own(void)
{
	struct weft_open_options o = WEFT_OPEN_OPTIONS_INIT;
	int64_t until = now_ms() + WAIT_MS;
	struct weft *own = NULL;
	int rc;

	o.socket = world_socket(w);
	while ((rc = weft_open(&own, &o, NULL)) && now_ms() < until)
		usleep(5000);
	must(!rc, "opening a session", rc);
	return own;
}

static void come_and_go(uint32_t turn)
{
	struct weft *own = open_own();
	uint32_t prompt[JOB_TOKENS];
	struct weft_submit_options o;
	struct weft_request *r[2];

	if (!own)
		return;
	job_options(turn % JOBS, 192, prompt, &o);
	for (int i = 0; i < 2; i++)
		r[i] = submit(own, &o);
	if (turn % 2 && r[1])
		weft_wait(r[1], 0, 0, WAIT_MS);
	weft_close(own); /* with all that is under way */
}

/* Not all of it can be done at any time, and then says so. */
static void admin(const char *fmt, const char *name)
{
	char line[300];
	json_t *j;

	snprintf(line, sizeof(line), fmt, name, dir, name);
	j = world_admin(w, line);
	must(j != NULL, fmt, 0);
	json_decref(j);
}

#define LOAD   "{\"cmd\":\"adapter-load\",\"name\":\"%s\",\"path\":\"%s/%s\"}"
#define UNLOAD "{\"cmd\":\"adapter-unload\",\"name\":\"%s\",\"force\":true}"

static void unpin_all(void)
{
	json_t *j = world_admin(w, "{\"cmd\":\"cache-pins\"}"), *pin;
	char line[100];
	size_t i;

	json_array_foreach(json_object_get(j, "pins"), i, pin)
	{
		snprintf(line, sizeof(line), "{\"cmd\":\"cache-unpin\",\"id\":%lld}",
			 (long long)json_integer_value(json_object_get(pin, "id")));
		json_decref(world_admin(w, line));
	}
	json_decref(j);
}

static void administer(uint32_t turn)
{
	static const char *const names[] = {"plain", "again", "activated"};

	/* Two of the three are there, in turn. */
	admin(LOAD, names[turn % 3]);
	admin(UNLOAD, names[(turn + 1) % 3]);
	admin("{\"cmd\":\"status\"}", "");
	admin("{\"cmd\":\"sessions\"}", "");
	admin("{\"cmd\":\"adapter-list\"}", "");
	admin("{\"cmd\":\"cache-pin\",\"tenant\":\"honest\",\"tokens\":[5,22,39,56,73,90,107,124,"
	      "141,"
	      "158,175,1,18,35,52,69,86,103]}",
	      "");
	if (turn % 4 == 3)
		admin("{\"cmd\":\"cache-drop\",\"all\":true}", "");
	if (turn % 8 == 7)
		admin("{\"cmd\":\"reload\"}", "");
	unpin_all();
}

/* An engine, then weftd with its engine: all go on as soon as the next is there. */
static void upset(uint32_t turn)
{
	pid_t engine = world_engine(w);

	usleep(100000 * world_slowness());
	must(engine > 0, "the engine's process", engine);
	if (engine <= 0)
		return;
	if (turn % 2) {
		kill(world_daemon(w), SIGKILL);
		must(world_wait_exit(w, WAIT_MS) >= 0, "weftd's end", 0);
		world_restart_daemon(w);
	} else {
		kill(engine, SIGKILL);
		must(world_wait_engine(w, engine, WAIT_MS) > 0, "another engine", 0);
	}
}

/* --- all of them ------------------------------------------------------------------------------------*/

typedef void (*part_fn)(uint32_t turn);

static const part_fn parts[] = {ask_base,     ask_base, ask_adapted, ask_adapted,
				ask_together, look_up,	listen_all,  come_and_go};

#define PARTS (sizeof(parts) / sizeof(*parts))

static _Atomic uint32_t done[PARTS];

static void *part_main(void *number)
{
	uintptr_t i = (uintptr_t)number;

	for (uint32_t turn = 0; !atomic_load(&over); turn++) {
		parts[i](turn + (uint32_t)i * 5);
		atomic_fetch_add(&done[i], 1);
	}
	return NULL;
}

static bool all_round(void)
{
	for (size_t i = 0; i < PARTS; i++)
		if (atomic_load(&done[i]) < LEAST_DONE)
			return false;
	return true;
}

/* This thread does what a world is not for threads to do; and processes die with the thread that made them. */
static void run_parts(part_fn own)
{
	int64_t from = now_ms();
	pthread_t threads[PARTS];
	uint32_t turn;

	atomic_store(&over, false);
	for (uintptr_t i = 0; i < PARTS; i++) {
		atomic_store(&done[i], 0);
		if (pthread_create(&threads[i], NULL, part_main, (void *)i))
			bail_out("a thread");
	}
	for (turn = 0; turn < LEAST_DONE || now_ms() < from + LEAST_MS ||
		       (!all_round() && now_ms() < from + WAIT_MS);
	     turn++)
		own(turn);
	atomic_store(&over, true);
	for (size_t i = 0; i < PARTS; i++)
		pthread_join(threads[i], NULL);
	for (size_t i = 0; i < PARTS; i++)
		diag("part %zu: %u times", i, atomic_load(&done[i]));
	diag("this thread: %u times", turn);
	ok(all_round(), "everyone came round");
}

static void a_round(const char *what, const char *env, part_fn own)
{
	/* 200 blocks: what they all want at once does not fit. */
	const struct world_options o = {.model = "kv_bytes = 800K\nprefill_chunk = 24",
					.threads = 3,
					.env = {env},
					.may_die = own == upset};

	diag("%s", what);
	w = world_start(&o);
	reference = world_reference(w);
	session = world_open(w);
	atomic_store(&wrong, 0);
	run_parts(own);
	is_int(atomic_load(&wrong), 0, "%s: all went as it should", what);
	weft_close(session);
	for (int i = 0; i < 3; i++)
		admin(UNLOAD, (const char *const[]){"plain", "again", "activated"}[i]);
	unpin_all();
	if (own != upset)
		world_same(w);
	world_given_back(w);
	world_stop(w);
}

static void write_adapter(const char *name, const struct af_adapter *a)
{
	const char *src = getenv("WEFT_SRC");
	char model[300], path[100];

	snprintf(model, sizeof(model), "%s/tests/data/models/llama", src ? src : ".");
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	af_write(path, model, a);
}

static void remove_adapter(const char *name)
{
	char path[100];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	af_remove(path);
}

int main(void)
{
	struct af_adapter a = {.linears = AF_ALL, .rank = 8, .alpha = 16, .bf16 = true, .seed = 1};

	if (!mkdtemp(dir) || chmod(dir, 0755))
		bail_out(dir);
	write_adapter("plain", &a);
	write_adapter("again", &a); /* the same content: they share their weights */
	a.seed = 2;
	a.n_invocation = 1;
	a.invocation[0] = 22; /* the second token of most prompts */
	write_adapter("activated", &a);
	a_round("pass by pass", "WEFT_TEST_SLICE_BYTES=4096", administer);
	a_round("passes queued ahead", "WEFT_TEST_AHEAD=1", administer);
	a_round("processes are killed", "WEFT_TEST_AHEAD=1", upset);
	remove_adapter("plain");
	remove_adapter("again");
	remove_adapter("activated");
	rmdir(dir);
	return tap_done();
}
