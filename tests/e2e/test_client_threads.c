/* SPDX-License-Identifier: Apache-2.0 */
/* Eight threads share a session: they submit, wait, cancel and free at once, more than fits. */
#include "tests/e2e/client_util.h"
#include "tests/e2e/fake_daemon.h"
#include "tests/tap.h"

#include <errno.h>
#include <pthread.h>
#include <unistd.h>

#define THREADS 8
#define ROUNDS	60

static struct weft *session;
static _Atomic int wrong, done, refused;

static struct weft_request *submit_patiently(const struct weft_submit_options *o)
{
	struct weft_request *r;
	int err;

	while ((err = weft_submit(session, &r, o, NULL)) == -EAGAIN) {
		atomic_fetch_add(&refused, 1);
		usleep(200);
	}
	return err ? NULL : r;
}

static void *worker(void *arg)
{
	uint32_t self = (uint32_t)(uintptr_t)arg;

	for (uint32_t i = 0; i < ROUNDS; i++) {
		uint32_t prompt[40], n, n_prompt = 1 + (self * 7 + i) % 40;
		struct weft_submit_options o;
		struct weft_request *r;
		const uint32_t *t;

		for (uint32_t k = 0; k < n_prompt; k++)
			prompt[k] = self * 1000 + i + k;
		weft_submit_options_init(&o);
		o.prompt = prompt;
		o.n_prompt = n_prompt;
		o.max_tokens = 1 + i % 9;
		r = submit_patiently(&o);
		if (!r) {
			atomic_fetch_add(&wrong, 1);
			continue;
		}
		if (i % 5 == 4)
			weft_cancel(r);
		if (i % 7 != 6) {
			cu_wait_end(r, 0);
			t = weft_tokens(r, 0, &n);
			if (i % 5 != 4 && n != o.max_tokens)
				atomic_fetch_add(&wrong, 1);
			for (uint32_t k = 0; k < n; k++)
				if (t[k] != fake_token(prompt, n_prompt, 0, k))
					atomic_fetch_add(&wrong, 1);
		}
		weft_free(r);
		atomic_fetch_add(&done, 1);
	}
	return NULL;
}

static void *any_worker(void *arg)
{
	_Atomic int *stop = arg;
	struct weft_request *got[4];

	while (!*stop)
		weft_wait_any(session, got, 4, 10);
	return NULL;
}

int main(void)
{
	struct fake_options fo = {.path = fake_path(), .slots = 4};
	struct fake *f = fake_start(&fo);
	pthread_t t[THREADS], any;
	_Atomic int stop = 0;

	atomic_store(&fake_controls_of(f)->gap_us, 20);
	session = cu_open(NULL);
	ok(session != NULL, "open");
	pthread_create(&any, NULL, any_worker, &stop);
	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_create(&t[i], NULL, worker, (void *)i);
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	stop = 1;
	pthread_join(any, NULL);
	is_int(done, THREADS * ROUNDS, "every request was served");
	is_int(wrong, 0, "and none got another's tokens");
	diag("%d submissions had to be tried again", refused);
	weft_close(session);
	fake_kill(f);
	return tap_done();
}
