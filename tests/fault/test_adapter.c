/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stream with an adapter goes on, token for token, when the engine is killed, and when weftd is, whether
 * the adapter stands in the configuration or an administrator has loaded it; if its folder is gone by then,
 * the stream ends with the reason. An adapter in use is not unloaded but by force, which ends its
 * requests and nobody else's.
 */
#include "tests/e2e/adapter_files.h"
#include "tests/hostile/raw.h"
#include "tests/hostile/world.h"
#include "tests/tap.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define LONG	2000u
#define LONGEST 8000u /* where it must not have ended before something else is done */

static struct world *w;
static char dir[] = "/tmp/weft-adapters-XXXXXX", model[300];
static struct af_adapter two; /* what folder two holds */
static uint32_t prompt[JOB_TOKENS];

static const char *folder(const char *name)
{
	static char path[2][64];
	static int turn;

	turn = !turn;
	snprintf(path[turn], sizeof(path[turn]), "%s/%s", dir, name);
	return path[turn];
}

/* Whether an administrator's command is done; else what it said. */
static bool admin(const char *cmd, const char *more, const char **ret_error)
{
	static char text[300];
	char line[300];
	json_t *j;
	bool ok;

	snprintf(line, sizeof(line), "{\"cmd\":\"%s\"%s}", cmd, more);
	j = world_admin(w, line);
	ok = json_is_true(json_object_get(j, "ok"));
	snprintf(text, sizeof(text), "%s",
		 ok ? "" : json_string_value(json_object_get(j, "error")));
	if (ret_error)
		*ret_error = text;
	json_decref(j);
	return ok;
}

static bool load(const char *name, const char *from)
{
	char more[200];

	snprintf(more, sizeof(more), ",\"name\":\"%s\",\"path\":\"%s\"", name, folder(from));
	return admin("adapter-load", more, NULL);
}

static struct weft_request *begin_of(struct weft *weft, const char *adapter, uint32_t tokens)
{
	struct weft_submit_options o;
	struct weft_request *r = NULL;

	job_options(4, 192, prompt, &o);
	o.max_tokens = tokens;
	o.adapter = adapter;
	is_int(weft_submit(weft, &r, &o, NULL), 0, "a long stream with %s",
	       adapter ? adapter : "the base model");
	return r;
}

static struct weft_request *begin(struct weft *weft, const char *adapter)
{
	return begin_of(weft, adapter, LONG);
}

/* Until it has this many tokens, or has ended; how many it has. */
static uint32_t upto(struct weft_request *r, uint32_t n)
{
	int64_t got;
	uint32_t have = 0;

	while (have < n && (got = weft_wait(r, 0, have, 60000)) > (int64_t)have)
		have = (uint32_t)got;
	return have;
}

static enum weft_status status_of(struct weft_request *r)
{
	struct weft_result res = {.size = sizeof(res)};

	weft_result(r, &res);
	return res.status;
}

static void finish(struct weft_request *r, const uint32_t *want, const char *what)
{
	const uint32_t *tokens;
	uint32_t n = 0;

	is_int(upto(r, LONG), LONG, "%s: all tokens come", what);
	tokens = weft_tokens(r, 0, &n);
	ok(n == LONG && !memcmp(tokens, want, sizeof(*want) * LONG), "%s: the right ones", what);
	weft_free(r);
}

static void alone(struct weft *weft, const char *adapter, uint32_t *ret)
{
	struct weft_request *r = begin(weft, adapter);
	uint32_t n = 0;

	upto(r, LONG);
	memcpy(ret, weft_tokens(r, 0, &n), sizeof(*ret) * LONG);
	is_int(n, LONG, "undisturbed");
	weft_free(r);
}

static void test_engine(struct weft *weft, const uint32_t *keep, const uint32_t *byhand)
{
	struct weft_request *a = begin(weft, "keep"), *b = begin(weft, "byhand");

	for (uint32_t at = 300; at < LONG; at += 700) {
		pid_t before = world_engine(w);

		upto(a, at);
		kill(before, SIGKILL);
		ok(world_wait_engine(w, before, 60000) > 0, "the engine is killed at %u", at);
	}
	finish(a, keep, "over three engines");
	finish(b, byhand, "the other adapter");
}

static void test_in_use(struct weft *weft, const uint32_t *base)
{
	struct weft_request *a = begin_of(weft, "byhand", LONGEST), *b = begin(weft, NULL);
	const char *why = "";
	bool done;

	upto(a, 50);
	/* Done, if this process was held up until the request had ended: with another one then. */
	for (int i = 0; (done = admin("adapter-unload", ",\"name\":\"byhand\"", &why)) && i < 20;
	     i++) {
		upto(a, LONGEST);
		weft_free(a);
		ok(load("byhand", "two"), "it had ended: loaded again");
		a = begin_of(weft, "byhand", LONGEST);
		upto(a, 50);
	}
	ok(!done && strstr(why, "in use by 1"), "in use it is not unloaded: %s", why);
	ok(weft_wait(a, 0, 50, RAW_PATIENCE_MS) > 50, "and its request goes on");
	ok(admin("adapter-unload", ",\"name\":\"byhand\",\"force\":true", NULL), "by force it is");
	upto(a, LONGEST);
	is_int(status_of(a), WEFT_UNLOADED, "its request ends with the reason");
	weft_free(a);
	finish(b, base, "a request of the base model beside it");
}

static void kill_daemon(void)
{
	kill(world_daemon(w), SIGKILL);
	world_wait_exit(w, 60000);
}

static void test_daemon(struct weft *weft, const uint32_t *keep, const uint32_t *byhand)
{
	enum weft_status status = WEFT_OK;
	struct weft_request *a, *b;

	ok(load("byhand", "two"), "loaded by hand again");
	for (int i = 0; i < 2; i++) {
		a = begin(weft, "keep");
		b = begin(weft, "byhand");
		upto(a, 300);
		upto(b, 300);
		kill_daemon();
		world_restart_daemon(w);
		finish(a, keep, "over two daemons");
		finish(b, byhand, "the one that was loaded by hand, too");
	}
	/* It may have ended well if this process was held up before the kill. */
	for (int i = 0; status == WEFT_OK && i < 20; i++) {
		if (i)
			ok(admin("adapter-unload", ",\"name\":\"byhand\"", NULL) &&
				   load("byhand", "two"),
			   "once more");
		b = begin_of(weft, "byhand", LONGEST);
		upto(b, 300);
		kill_daemon();
		af_remove(folder("two"));
		world_restart_daemon(w);
		upto(b, LONGEST);
		status = status_of(b);
		weft_free(b);
		af_write(folder("two"), model, &two);
	}
	is_int(status, WEFT_NO_ADAPTER, "its folder gone, the next daemon has it not");
}

int main(void)
{
	static uint32_t base[LONG], keep[LONG], byhand[LONG];
	struct af_adapter af = {.linears = AF_ALL, .rank = 8, .alpha = 64, .bf16 = true, .seed = 1};
	const char *src = getenv("WEFT_SRC");
	char lines[200];
	struct world_options o = {.model = lines, .may_die = true};
	struct weft *weft;

	snprintf(model, sizeof(model), "%s/tests/data/models/llama", src ? src : ".");
	if (!mkdtemp(dir) || chmod(dir, 0755))
		bail_out(dir);
	af_write(folder("one"), model, &af);
	af.seed = 2;
	af.n_invocation = 1;
	job_options(4, 192, prompt, &(struct weft_submit_options){.size = 0});
	af.invocation[0] = prompt[10];
	two = af;
	af_write(folder("two"), model, &two);
	snprintf(lines, sizeof(lines), "[adapter keep]\npath = %s", folder("one"));
	w = world_start(&o);
	weft = world_open(w);
	ok(load("byhand", "two"), "an aLoRA is loaded by hand");
	alone(weft, NULL, base);
	alone(weft, "keep", keep);
	alone(weft, "byhand", byhand);
	ok(memcmp(base, keep, sizeof(base)) && memcmp(base, byhand, sizeof(base)) &&
		   memcmp(keep, byhand, sizeof(keep)),
	   "three models, three answers");
	test_engine(weft, keep, byhand);
	test_in_use(weft, base);
	test_daemon(weft, keep, byhand);
	weft_close(weft);
	world_stop(w);
	af_remove(folder("one"));
	af_remove(folder("two"));
	rmdir(dir);
	return tap_done();
}
