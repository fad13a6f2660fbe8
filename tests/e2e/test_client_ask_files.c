/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asking for a model's text files while the daemon takes its time: other threads submit and wait
 * meanwhile, one question serves all who ask, a model that loads is waited for as long as
 * wait_ready_ms says, and an answer may come from the next daemon.
 */
#include "libclient/weft.h"
#include "shm/wshm_files.h"
#include "tests/e2e/client_util.h"
#include "tests/e2e/fake_daemon.h"
#include "tests/tap.h"

#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#define ASKERS	    3
#define PATIENCE_MS 60000

static const char text[] = "what stands in tokenizer.json";

struct asker {
	pthread_t thread;
	struct weft *w;
	_Atomic int code; /* 1: not back yet */
	const char *got;
	size_t bytes;
};

static void *ask(void *arg)
{
	struct asker *a = arg;
	struct weft_error e = {0};

	atomic_store(&a->code, weft_model_file(a->w, "tokenizer.json", &a->got, &a->bytes, &e));
	return NULL;
}

static void asker_start(struct asker *a, struct weft *w)
{
	*a = (struct asker){.w = w};
	atomic_init(&a->code, 1);
	if (pthread_create(&a->thread, NULL, ask, a))
		bail_out("thread");
}

static bool right(struct asker *a)
{
	return !a->code && a->bytes == strlen(text) && !memcmp(a->got, text, a->bytes);
}

/* One sealed file. */
static int files_new(void)
{
	struct wshm_files_writer w = {0};
	int fd = wshm_files_new(), from = memfd_create("text", MFD_CLOEXEC);

	if (fd < 0 || write(from, text, strlen(text)) != (ssize_t)strlen(text))
		bail_out("memfd");
	wshm_files_begin(&w, fd);
	if (wshm_files_add(&w, "tokenizer.json", from, strlen(text)) || wshm_files_end(&w) ||
	    wshm_files_seal(fd))
		bail_out("files");
	close(from);
	return fd;
}

static bool reaches(_Atomic uint32_t *value, uint32_t want)
{
	for (int i = 0; i < PATIENCE_MS && atomic_load(value) < want; i++)
		usleep(1000);
	return atomic_load(value) >= want;
}

/* A request from this thread, from submission to its last token. */
static void one_request(struct weft *w, const char *what)
{
	struct weft_submit_options o;
	struct weft_request *r;

	cu_options(&o, 20);
	r = cu_submit(w, &o);
	ok(r && cu_wait_end(r, 0) == 20 && cu_right(r, 0, 20), "%s", what);
	weft_free(r);
}

static void test_meanwhile(int files_fd)
{
	struct fake_options fo = {.path = fake_path(), .files_fd = files_fd};
	struct asker a[ASKERS];
	uint32_t n_back = 0, n_right = 0;
	struct fake *f = fake_start(&fo);
	struct fake_controls *c = fake_controls_of(f);
	struct weft *w = cu_open(NULL);

	atomic_store(&c->hold_files, 1);
	for (int i = 0; i < ASKERS; i++)
		asker_start(&a[i], w);
	ok(reaches(&c->files_asked, 1), "the daemon is asked, and does not answer yet");
	one_request(w, "meanwhile another thread submits and waits");
	one_request(w, "and again");
	for (int i = 0; i < ASKERS; i++)
		n_back += a[i].code != 1;
	/* The five seconds that an answer may take are not over, or the machine was busy for so long. */
	if (!ok(!n_back || a[0].code == -ETIMEDOUT, "before the answer was there"))
		diag("%u are back", n_back);
	atomic_store(&c->hold_files, 0);
	for (int i = 0; i < ASKERS; i++) {
		pthread_join(a[i].thread, NULL);
		n_right += right(&a[i]);
	}
	ok(n_right == ASKERS || a[0].code == -ETIMEDOUT, "then all have it");
	is_int(c->files_asked, 1, "it was asked once");
	weft_close(w);
	fake_kill(f);
}

/* An engine that was started again loads the model for longer than reconnect_ms. */
static void test_loading(int files_fd)
{
	struct fake_options fo = {.path = fake_path(), .files_fd = files_fd};
	struct weft_open_options o = WEFT_OPEN_OPTIONS_INIT;
	struct asker a;
	struct fake *f = fake_start(&fo);
	struct fake_controls *c = fake_controls_of(f);
	struct weft_error e = {0};
	struct weft *w;
	const char *p;
	size_t n;

	o.reconnect_ms = 100;
	o.wait_ready_ms = PATIENCE_MS;
	w = cu_open(&o);
	atomic_store(&c->loading, 1);
	ok(reaches(&c->loads, 1), "the engine loads");
	asker_start(&a, w);
	usleep(500000);
	is_int(a.code, 1, "a model that loads is waited for");
	atomic_store(&c->loading, 0);
	pthread_join(a.thread, NULL);
	ok(right(&a), "as long as it takes");
	weft_close(w);
	o.wait_ready_ms = 2000; /* the fake engine is ready at once */
	w = cu_open(&o);
	atomic_store(&c->loading, 1);
	ok(reaches(&c->loads, 1), "the engine loads again");
	is_int(weft_model_file(w, "tokenizer.json", &p, &n, &e), -ETIMEDOUT, "%s", e.message);
	weft_close(w);
	fake_kill(f);
}

/* The daemon that was asked dies; the next one is asked and answers. */
static void test_next_daemon(int files_fd)
{
	struct fake_options fo = {.path = fake_path(), .files_fd = files_fd};
	struct fake *f = fake_start(&fo);
	struct weft *w = cu_open(NULL);
	struct asker a;

	atomic_store(&fake_controls_of(f)->hold_files, 1);
	asker_start(&a, w);
	ok(reaches(&fake_controls_of(f)->files_asked, 1), "the first one is asked");
	fake_kill(f);
	f = fake_start(&fo);
	pthread_join(a.thread, NULL);
	ok(right(&a), "the next one answers");
	is_int(fake_controls_of(f)->files_asked, 1, "it was asked once");
	weft_close(w);
	fake_kill(f);
}

static void test_none(void)
{
	struct fake_options fo = {.path = fake_path()};
	struct fake *f = fake_start(&fo);
	struct weft *w = cu_open(NULL);
	struct weft_error e = {0};
	const char *p;
	size_t n;

	for (int i = 0; i < 2; i++)
		is_int(weft_model_file(w, "tokenizer.json", &p, &n, &e), -ENOENT, "%s", e.message);
	weft_close(w);
	fake_kill(f);
}

int main(void)
{
	int files_fd = files_new();

	test_meanwhile(files_fd);
	test_loading(files_fd);
	test_next_daemon(files_fd);
	test_none();
	close(files_fd);
	return tap_done();
}
