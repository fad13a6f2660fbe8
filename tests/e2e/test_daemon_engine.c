/* SPDX-License-Identifier: Apache-2.0 */
/* Engines: killed, hanging, silent, talking nonsense, refusing: each is seen and dealt with. */
#include "tests/e2e/daemon_harness.h"
#include "tests/tap.h"

#include <errno.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

static const char conf[] = "[daemon]\nload_seconds = %d\nstep_seconds = 1\n[model m]\n"
			   "path = /fake/%s\n";

static void start(struct wd *d, const char *kind)
{
	char text[256];

	diag("an engine that is: %s", kind);
	snprintf(text, sizeof(text), conf, strcmp(kind, "silent") ? 60 : 1, kind);
	wd_start(d, text);
}

/* A slow engine does not get ready while it is held. */
static void hold(const struct wd *d, int on)
{
	char path[96];
	FILE *f;

	snprintf(path, sizeof(path), "%s/hold", d->dir);
	if (!on) {
		unlink(path);
		return;
	}
	f = fopen(path, "w");
	if (!f || fclose(f))
		bail_out(path);
}

static int open_one(struct wd_client *c, const struct wd *d)
{
	struct wctl_hello h;

	wd_hello_init(&h);
	return wd_open(c, d, &h);
}

static void test_killed(void)
{
	struct wd d;
	struct wd_client c[3];
	long pid;

	start(&d, "ok");
	for (int i = 0; i < 3; i++)
		is_int(open_one(&c[i], &d), 0, "session %d opens", i);
	ok(wd_engine_wait(&d, 0, "engine.attached", 3, WD_PATIENCE_MS), "three are attached");
	is_int(wd_engine_int(&d, 0, "engine.resumed"), 0, "as new ones");
	pid = wd_engine_int(&d, 0, "pid");
	kill((pid_t)pid, SIGKILL);
	ok(wd_engine_wait(&d, 0, "starts", 2, WD_PATIENCE_MS), "killed: started again");
	ok(wd_engine_wait(&d, 0, "engine.attached", 3, WD_PATIENCE_MS),
	   "the three are attached again");
	is_int(wd_engine_int(&d, 0, "engine.resumed"), 3, "as served before");
	is_int(wd_engine_int(&d, 0, "engine.restarts"), 1, "one restart without a step between");
	ok(wd_engine_int(&d, 0, "pid") != pid, "it is another process");
	is_int(wd_recv(&c[0], 0), -ETIMEDOUT, "clients were told nothing");
	wd_close(&c[0]);
	ok(wd_engine_wait(&d, 0, "engine.attached", 2, WD_PATIENCE_MS),
	   "detaching works as before");

	/* A client that goes while there is no engine. */
	pid = wd_engine_int(&d, 0, "pid");
	kill((pid_t)pid, SIGKILL);
	wd_close(&c[1]);
	ok(wd_engine_wait(&d, 0, "engine.attached", 1, WD_PATIENCE_MS),
	   "gone meanwhile: not attached again");
	is_int(wd_daemon_int(&d, "sessions"), 1, "nor counted");
	ok(wd_engine_int(&d, 0, "engine.restarts") == 2, "the second restart in a row");
	wd_close(&c[2]);
	is_int(wd_stop(&d), 0, "stopped");
}

/* What counts is how the engine ended that served the session, not one that never got so far. */
static void fate(int first, int second, int crashed)
{
	struct wd d;
	struct wd_client c;

	start(&d, "slow");
	is_int(open_one(&c, &d), 0, "a session opens");
	ok(wd_engine_wait(&d, 0, "engine.attached", 1, WD_PATIENCE_MS), "and is attached");
	hold(&d, 1);
	kill((pid_t)wd_engine_int(&d, 0, "pid"), first);
	ok(wd_engine_wait(&d, 0, "starts", 2, WD_PATIENCE_MS), "signal %d: started again", first);
	kill((pid_t)wd_engine_int(&d, 0, "pid"), second);
	ok(wd_engine_wait(&d, 0, "starts", 3, WD_PATIENCE_MS), "signal %d while loading: and again",
	   second);
	hold(&d, 0);
	ok(wd_engine_wait(&d, 0, "engine.attached", 1, WD_PATIENCE_MS), "attached");
	is_int(wd_engine_int(&d, 0, "engine.crashed"), crashed, "%s its engine crashed",
	       crashed ? "told that" : "not told that");
	wd_close(&c);
	is_int(wd_stop(&d), 0, "stopped");
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void test_backoff(void)
{
	struct wd d;
	/* The fewest milliseconds in which so many can have been started: at once, at once, and then
	 * after 100, 200, 400... */
	static const uint64_t least[] = {0, 0, 0, 100, 300, 700, 1500, 3100, 6300, 11300, 16300};
	uint64_t begun = now_ms(), took;
	long starts;

	start(&d, "die");
	while ((starts = wd_engine_int(&d, 0, "starts")) < 4 && now_ms() - begun < WD_PATIENCE_MS)
		wd_sleep_ms(20);
	took = now_ms() - begun;
	ok(starts >= 4 && starts <= 10 && took >= least[starts],
	   "dies at once: started %ld times, the last time after %llu ms or sooner", starts,
	   (unsigned long long)took);
	ok(wd_daemon_int(&d, "engine_crashes") >= starts - 1, "each death is counted");
	ok(wd_logged(&d, "exit status 3"), "and its status logged");
	is_int(wd_stop(&d), 0, "stopped");
}

static void test_hang(void)
{
	struct wd d;
	struct wd_client c;

	start(&d, "hang");
	is_int(open_one(&c, &d), 0, "a session opens, the engine starts a step of 200 ms");
	/* 200 ms of budget, 3 s for the nudge. */
	ok(wd_log_wait(&d, "event=engine-killed", WD_PATIENCE_MS), "without an end: killed");
	ok(wd_logged(&d, "no answer to a nudge"), "after a nudge");
	ok(wd_engine_wait(&d, 0, "starts", 2, WD_PATIENCE_MS), "and started again");
	is_int(wd_stop(&d), 0, "stopped even while one hangs");
	wd_close(&c);
}

static void test_complaint(void)
{
	struct wd d;
	struct wd_client c;
	struct wctl_head head;

	wctl_head_init(&head, WCTL_COMPLAIN, sizeof(head), 0);
	start(&d, "deaf");
	open_one(&c, &d);
	ok(wd_state_wait(&c, WSHM_ENGINE_RUNNING, WD_PATIENCE_MS), "attached");
	kill(d.pid, SIGSTOP); /* it is to find all of them at once */
	for (int i = 0; i < 20; i++)
		wctl_send(c.sock, &head, sizeof(head), NULL, 0);
	kill(d.pid, SIGCONT);
	ok(wd_log_wait(&d, "event=engine-killed", WD_PATIENCE_MS), "deaf to the nudge: killed");
	is_int(wd_daemon_int(&d, "complaints"), 1, "twenty complaints at once count as one");
	ok(wd_state_wait(&c, WSHM_ENGINE_RUNNING, WD_PATIENCE_MS), "the session goes on");
	wd_close(&c);
	wd_stop(&d);

	start(&d, "ok");
	open_one(&c, &d);
	wd_state_wait(&c, WSHM_ENGINE_RUNNING, WD_PATIENCE_MS);
	wctl_send(c.sock, &head, sizeof(head), NULL, 0);
	wd_sleep_ms(3500);
	is_int(wd_engine_int(&d, 0, "starts"), 1, "an engine that answers is left alone");
	wd_close(&c);
	wd_stop(&d);
}

static void test_loading(void)
{
	struct wd d;
	struct wd_client c;

	wd_prepare(&d, "[model m]\npath = /fake/slow\n");
	hold(&d, 1);
	wd_restart(&d);
	is_int(open_one(&c, &d), 0, "a session opens while the model loads");
	is_int(c.welcome.model.ready, 0, "and is told so");
	hold(&d, 0);
	ok(wd_state_wait(&c, WSHM_ENGINE_RUNNING, WD_PATIENCE_MS),
	   "it is attached when it has loaded");
	wd_close(&c);
	is_int(wd_stop(&d), 0, "stopped");

	start(&d, "silent");
	ok(wd_log_wait(&d, "no progress while loading", WD_PATIENCE_MS), "never READY: killed");
	ok(wd_engine_wait(&d, 0, "starts", 2, WD_PATIENCE_MS), "and started again");
	is_int(wd_stop(&d), 0, "stopped");
}

static void test_refuse(void)
{
	struct wd d;
	struct wd_client c;

	start(&d, "refuse");
	ok(wd_log_wait(&d, "unknown architecture", WD_PATIENCE_MS), "the reason is logged");
	wd_sleep_ms(500);
	is_int(wd_engine_int(&d, 0, "starts"), 1, "it is not tried again");
	is_int(open_one(&c, &d), -EACCES, "clients are refused");
	ok(strstr(c.text.text, "unknown architecture \"Foo\""), "it says: %s", c.text.text);
	wd_close(&c);
	kill(d.pid, SIGHUP);
	ok(wd_engine_wait(&d, 0, "starts", 2, WD_PATIENCE_MS), "a reload tries again");
	is_int(wd_stop(&d), 0, "stopped");
}

/* For want of memory: whoever was served before waits for it, but a first start says so at once. */
static void test_short(void)
{
	struct wd d;
	struct wd_client c;

	start(&d, "short");
	is_int(open_one(&c, &d), 0, "a session opens");
	ok(wd_engine_wait(&d, 0, "engine.attached", 1, WD_PATIENCE_MS), "and is attached");
	hold(&d, 1);
	kill((pid_t)wd_engine_int(&d, 0, "pid"), SIGKILL);
	ok(wd_engine_wait(&d, 0, "starts", 3, WD_PATIENCE_MS), "no memory: tried again");
	ok(wd_logged(&d, "event=short why=\"no memory for a weight\""), "and the log says why");
	is_int(wd_recv(&c, 0), -ETIMEDOUT, "the client was told nothing");
	hold(&d, 0);
	ok(wd_engine_wait(&d, 0, "engine.attached", 1, WD_PATIENCE_MS), "and is served again");
	is_int(wd_engine_int(&d, 0, "engine.crashed"), 0, "and is no suspect for it");
	wd_close(&c);
	is_int(wd_stop(&d), 0, "stopped");

	wd_prepare(&d, "[model m]\npath = /fake/short\n");
	hold(&d, 1);
	wd_restart(&d);
	ok(wd_log_wait(&d, "event=refused why=\"no memory for a weight\"", WD_PATIENCE_MS),
	   "at the first start that is the end of it");
	is_int(wd_engine_int(&d, 0, "starts"), 1, "it is not tried again");
	is_int(wd_stop(&d), 0, "stopped");
}

static int listed_as_failed(const struct wd *d)
{
	struct wctl_models m = {0};
	struct wctl_head h;
	int sock = wd_connect(d), good;

	wctl_head_init(&h, WCTL_MODELS, sizeof(h), 0);
	good = !wctl_send(sock, &h, sizeof(h), NULL, 0) &&
	       wctl_recv(sock, &m, sizeof(m), NULL, NULL) == (int)sizeof(m) && m.n == 1 &&
	       m.models[0].failed && !m.models[0].ready;
	close(sock);
	return good;
}

/* An engine that does not take its command line will not take it the next time. */
static void test_usage(void)
{
	struct wd d;
	struct wd_client c;

	start(&d, "usage");
	ok(wd_log_wait(&d, "exit status 2", WD_PATIENCE_MS), "its exit status is logged");
	wd_sleep_ms(300);
	is_int(wd_engine_int(&d, 0, "starts"), 1, "it is not tried again");
	is_int(open_one(&c, &d), -EACCES, "clients are refused");
	ok(strstr(c.text.text, "command line"), "and told why: %s", c.text.text);
	ok(listed_as_failed(&d), "the list of models shows it as failed, not as loading");
	wd_close(&c);
	is_int(wd_stop(&d), 0, "stopped");
}

static void test_nonsense(const char *kind, const char *what)
{
	struct wd d;
	struct wd_client c;

	start(&d, kind);
	open_one(&c, &d);
	ok(wd_log_wait(&d, "makes no sense", WD_PATIENCE_MS), "%s: killed", what);
	ok(wd_engine_wait(&d, 0, "starts", 2, WD_PATIENCE_MS), "and started again");
	wd_close(&c);
	is_int(wd_stop(&d), 0, "stopped");
}

static void test_offence(void)
{
	struct wd d;
	struct wd_client c;

	start(&d, "offend");
	open_one(&c, &d);
	is_int(wd_recv(&c, WD_PATIENCE_MS), WCTL_BYE, "an offence ends the session");
	is_str(c.text.text, "the ring's tail jumped", "with the engine's words");
	is_int(wd_recv(&c, WD_PATIENCE_MS), 0, "and a hang-up");
	is_int(wd_daemon_int(&d, "offences"), 1, "it is counted");
	ok(wd_daemon_wait(&d, "sessions", 0, WD_PATIENCE_MS), "nothing is left of it");
	wd_close(&c);
	ok(wd_engine_int(&d, 0, "engine.attached") == 0, "nor in the engine");
	is_int(wd_stop(&d), 0, "stopped");
}

int main(int argc, char **argv)
{
	wd_engine_or_test(argc, argv);
	test_killed();
	fate(SIGSEGV, SIGKILL, 1);
	fate(SIGKILL, SIGSEGV, 0);
	test_backoff();
	test_hang();
	test_complaint();
	test_loading();
	test_refuse();
	test_short();
	test_usage();
	test_nonsense("garbage", "a message of no known type");
	test_nonsense("liar", "an answer that nothing asked for");
	test_offence();
	return tap_done();
}
