/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weft_probe() and weft_adapters() against indexes that the test fills: what they say is what was
 * put there, for every length of prompt, adapter and missing invocation; without a system call, from
 * many threads at once, and after another daemon has come.
 */
#include "tests/e2e/client_util.h"
#include "tests/e2e/fake_daemon.h"
#include "tests/tap.h"

#include <errno.h>
#include <pthread.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LENGTH 200u

static uint32_t prompt[LENGTH + 64];

static struct fake *start(void)
{
	struct fake_options o = {.path = fake_path()};

	return fake_start(&o);
}

static void prompt_init(void)
{
	for (uint32_t i = 0; i < LENGTH + 64; i++)
		prompt[i] = 1000 + i * i % 97;
}

/* Keys of the first n blocks of tokens[], under one of the secrets; keys[0] is the root. */
static void keys_of(int is_public, const uint32_t *tokens, uint32_t n, const uint64_t adapter[2],
		    uint32_t activation, struct wshm_key *keys)
{
	wshm_key_root(&keys[0], fake_secret[is_public], &fake_root);
	for (uint32_t i = 0; i < n; i++) {
		struct wshm_identity id = wshm_identity_of(adapter, activation, i);

		wshm_key_block(&keys[i + 1], fake_secret[is_public], &keys[i], &id,
			       tokens + 16 * i);
	}
}

static void cache(struct fake *f, int is_public, const uint32_t *tokens, uint32_t n,
		  const uint64_t adapter[2], uint32_t activation, enum wshm_tier tier)
{
	struct wshm_key keys[32];

	keys_of(is_public, tokens, n, adapter, activation, keys);
	for (uint32_t i = 1; i <= n; i++)
		wshm_idx_put(fake_index(f, is_public), &keys[i], tier);
}

/* Rows of a tail behind `blocks` blocks. */
static uint32_t cache_tail(struct fake *f, int is_public, const uint32_t *tokens, uint32_t blocks,
			   uint32_t rows, const uint64_t adapter[2], uint32_t activation)
{
	struct wshm_identity id = wshm_identity_of(adapter, activation, blocks);
	struct wshm_key keys[32];
	uint32_t tail;

	keys_of(is_public, tokens, blocks, adapter, activation, keys);
	tail = wshm_idx_tail_new(fake_index(f, is_public), &keys[blocks], &id);
	wshm_idx_tail_set(fake_index(f, is_public), tail, tokens + 16 * blocks, rows);
	return tail;
}

static const uint64_t base[2];
static const uint64_t digest[2] = {77, 88};

static int probe(struct weft *w, const char *adapter, const uint32_t *tokens, uint32_t n)
{
	struct weft_probe p = {.size = sizeof(p)};
	int err = weft_probe(w, adapter, tokens, n, &p);

	if (err < 0)
		return err;
	if (p.device_tokens + p.host_tokens + p.disk_tokens != p.cached_tokens)
		return -1000;
	return (int)p.cached_tokens;
}

static uint32_t min(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static void test_base(struct fake *f, struct weft *w)
{
	struct weft_probe p = {.size = sizeof(p)};
	struct wshm_key keys[32];
	uint32_t bad = 0;

	is_int(probe(w, NULL, prompt, LENGTH), 0, "nothing is cached");
	cache(f, 0, prompt, 6, base, WSHM_NO_ACTIVATION, WSHM_TIER_DEVICE);
	for (uint32_t n = 1; n <= LENGTH; n++)
		bad += probe(w, NULL, prompt, n) != (int)min(n > 96 ? 96 : n / 16 * 16, n - 1);
	is_int(bad, 0, "six blocks: whole blocks of the prompt, but never its last token");
	cache_tail(f, 0, prompt, 6, 5, base, WSHM_NO_ACTIVATION);
	for (uint32_t n = 97; n <= LENGTH; n++)
		bad += probe(w, NULL, prompt, n) != (int)min(101, n - 1);
	is_int(bad, 0, "and the rows of the tail");
	prompt[98]++;
	is_int(probe(w, NULL, prompt, LENGTH), 98, "as far as the tail agrees");
	prompt[98]--;
	prompt[40]++;
	is_int(probe(w, NULL, prompt, LENGTH), 32, "up to the first block that differs");
	prompt[40]--;

	keys_of(0, prompt, 6, base, WSHM_NO_ACTIVATION, keys);
	wshm_idx_put(fake_index(f, 0), &keys[5], WSHM_TIER_HOST);
	wshm_idx_put(fake_index(f, 0), &keys[6], WSHM_TIER_DISK);
	is_int(weft_probe(w, NULL, prompt, LENGTH, &p), 0, "a probe");
	ok(p.cached_tokens == 101 && p.device_tokens == 69 && p.host_tokens == 16 &&
		   p.disk_tokens == 16,
	   "where they are: %u %u %u", p.device_tokens, p.host_tokens, p.disk_tokens);
	ok(p.activation == UINT32_MAX && p.invocation == WEFT_INVOCATION_NONE, "no adapter");
	is_int(weft_probe(w, NULL, prompt, 96, &p), 0, "exactly what is cached");
	ok(p.cached_tokens == 95 && p.disk_tokens == 15, "the last token is the last block's");
	wshm_idx_remove(fake_index(f, 0), &keys[3]);
	is_int(probe(w, NULL, prompt, LENGTH), 32, "up to the first block that went");
}

static void test_public(struct fake *f, struct weft *w)
{
	struct weft_probe p = {.size = sizeof(p)};

	cache(f, 1, prompt, 8, base, WSHM_NO_ACTIVATION, WSHM_TIER_DISK);
	is_int(probe(w, NULL, prompt, LENGTH), 128, "the public prefix counts");
	cache_tail(f, 1, prompt, 8, 9, base, WSHM_NO_ACTIVATION);
	is_int(probe(w, NULL, prompt, LENGTH), 137, "with its tail");
	weft_probe(w, NULL, prompt, LENGTH, &p);
	ok(p.device_tokens == 48 + 9 && p.host_tokens == 16 && p.disk_tokens == 64,
	   "of two places the nearer: %u %u %u", p.device_tokens, p.host_tokens, p.disk_tokens);
	cache(f, 0, prompt, 11, base, WSHM_NO_ACTIVATION, WSHM_TIER_HOST);
	is_int(probe(w, NULL, prompt, LENGTH), 176, "the own chain goes on where it ends");
	cache(f, 1, prompt, 12, digest, 0, WSHM_TIER_DEVICE);
	is_int(probe(w, NULL, prompt, LENGTH), 176, "another identity's blocks do not count");
}

static const struct wshm_instance alora = {
	.name = "alora",
	.digest = {77, 88},
	.activated = 1,
	.rank = 16,
	.offset = 0,
	.on_missing = WSHM_MISSING_ERROR,
	.n_invocation = 2,
	.invocation = {5, 6},
};

static void add(struct fake *f, uint32_t at, const char *name, uint32_t on_missing, int32_t offset,
		uint32_t activated)
{
	struct wshm_instance in = alora;

	strcpy(in.name, name);
	in.on_missing = on_missing;
	in.offset = offset;
	in.activated = activated;
	in.n_invocation = activated ? 2 : 0;
	wshm_idx_instance(fake_index(f, 0), at, &in);
}

static void test_adapters(struct fake *f, struct weft *w)
{
	struct weft_adapter a[3];

	is_int(weft_adapters(w, a, 3), 0, "no adapter");
	is_int(probe(w, "alora", prompt, 9), -ENOENT, "a probe for one that is not there");
	add(f, 0, "alora", WSHM_MISSING_ERROR, 0, 1);
	add(f, 3, "base", WSHM_MISSING_BASE, 0, 1);
	add(f, 4, "append", WSHM_MISSING_APPEND, -1, 1);
	add(f, 900, "lora", WSHM_MISSING_ERROR, 0, 0);
	is_int(weft_adapters(w, a, 3), 4, "four adapters, three of them written");
	ok(!strcmp(a[0].name, "alora") && a[0].instance == 77 && a[0].activated &&
		   a[0].rank == 16 && a[0].n_invocation == 2 && a[0].invocation[1] == 6,
	   "as the engine described it");
	ok(!strcmp(a[2].name, "append") && a[2].on_missing == 2 && a[2].activation_offset == -1,
	   "likewise");
	is_int(weft_adapters(w, NULL, 0), 4, "only counted");
}

static void test_activation(struct fake *f, struct weft *w)
{
	struct weft_probe p = {.size = sizeof(p)};
	uint32_t tokens[LENGTH];

	for (uint32_t i = 0; i < LENGTH; i++)
		tokens[i] = prompt[i] + 500;
	cache(f, 0, tokens, 3, base, WSHM_NO_ACTIVATION, WSHM_TIER_DEVICE);
	is_int(weft_probe(w, "alora", tokens, 60, &p), 0, "no invocation in the prompt");
	ok(p.invocation == WEFT_INVOCATION_MISSING && !p.cached_tokens &&
		   p.activation == UINT32_MAX,
	   "a request would be refused: nothing is cached for it");
	weft_probe(w, "base", tokens, 60, &p);
	ok(p.invocation == WEFT_INVOCATION_BASE && p.cached_tokens == 48 &&
		   p.activation == UINT32_MAX,
	   "or it is the base model's");
	weft_probe(w, "append", tokens, 60, &p);
	ok(p.invocation == WEFT_INVOCATION_APPENDED && p.activation == 59 && p.cached_tokens == 48,
	   "or the invocation is appended");
	weft_probe(w, "lora", tokens, 60, &p);
	ok(p.invocation == WEFT_INVOCATION_NONE && p.activation == 0 && !p.cached_tokens,
	   "a plain adapter changes every row");
	cache(f, 0, tokens, 2, digest, 0, WSHM_TIER_HOST);
	weft_probe(w, "lora", tokens, 60, &p);
	ok(p.cached_tokens == 32 && p.host_tokens == 32, "and has blocks of its own");

	tokens[20] = tokens[40] = 5;
	tokens[21] = tokens[41] = 6;
	weft_probe(w, "alora", tokens, 60, &p);
	ok(p.invocation == WEFT_INVOCATION_FOUND && p.activation == 40, "the last invocation");
	is_int(p.cached_tokens, 16, "the base's blocks up to where the prompt differs");
	cache(f, 0, tokens, 3, digest, 40, WSHM_TIER_DEVICE);
	is_int(probe(w, "alora", tokens, 60), 48, "the adapter's blocks behind it");
	is_int(probe(w, NULL, tokens, 60), 32, "are not the base's");
	cache_tail(f, 0, tokens, 3, 9, digest, 40);
	is_int(probe(w, "alora", tokens, 60), 57, "its tail");
	cache_tail(f, 0, tokens, 2, 15, base, WSHM_NO_ACTIVATION);
	is_int(probe(w, NULL, tokens, 60), 47, "the base's tail");
	add(f, 5, "later", WSHM_MISSING_ERROR, 7, 1);
	is_int(probe(w, "later", tokens, 60), 47, "of which another's rows agree up to 47");
}

/* A block half of which is appended counts by half, where it is; one that is, not at all. */
static void test_appended_tiers(struct fake *f, struct weft *w)
{
	struct weft_probe p = {.size = sizeof(p)};
	uint32_t tokens[LENGTH];
	struct wshm_key keys[32];

	for (uint32_t n = 46; n < 49; n++) {
		uint32_t rows = n - 32 < 16 ? n - 32 : 16;

		for (uint32_t i = 0; i < LENGTH; i++)
			tokens[i] = 90000 + n * 300 + i;
		tokens[n] = 5;
		tokens[n + 1] = 6;
		cache(f, 0, tokens, 3, digest, n - 1, WSHM_TIER_DEVICE);
		keys_of(0, tokens, 3, digest, n - 1, keys);
		wshm_idx_put(fake_index(f, 0), &keys[3], WSHM_TIER_HOST);
		is_int(weft_probe(w, "append", tokens, n, &p), 0, "a probe of %u", n);
		ok(p.cached_tokens == 32 + rows && p.device_tokens == 32 && p.host_tokens == rows,
		   "%u of the prompt: %u + %u", n, p.device_tokens, p.host_tokens);
	}
}

/* The appended invocation lies across blocks, and is cached itself: all of the prompt is, no more. */
static void test_appended(struct fake *f, struct weft *w)
{
	uint32_t tokens[LENGTH], bad = 0;

	for (uint32_t n = 25; n < 60; n++) {
		struct weft_probe p = {.size = sizeof(p)};

		for (uint32_t i = 0; i < LENGTH; i++)
			tokens[i] = 3000 + n * 300 + i;
		tokens[n] = 5;
		tokens[n + 1] = 6;
		cache(f, 0, tokens, (n + 2) / 16, digest, n - 1, WSHM_TIER_DEVICE);
		cache_tail(f, 0, tokens, (n + 2) / 16, (n + 2) % 16, digest, n - 1);
		bad += weft_probe(w, "append", tokens, n, &p) != 0;
		bad += p.cached_tokens != n || p.device_tokens != n || p.activation != n - 1;
	}
	is_int(bad, 0, "an appended invocation is found like any other tokens, and not counted");
	test_appended_tiers(f, w);
}

static void test_errors(struct weft *w)
{
	struct weft_probe p = {.size = sizeof(p)};
	struct {
		struct weft_probe p;
		char after[8];
	} more = {.p.size = sizeof(more)}, less = {.after = "intact"};
	static const uint32_t longest[4097];

	is_int(weft_probe(w, NULL, prompt, 0, &p), -EINVAL, "no prompt");
	is_int(weft_probe(w, NULL, NULL, 3, &p), -EINVAL, "no prompt");
	is_int(weft_probe(w, "nobody", prompt, 3, &p), -ENOENT, "no such adapter");
	is_int(weft_probe(w, NULL, prompt, 3, &more.p), -EINVAL, "a struct of an unknown size");
	prompt[LENGTH - 1] = FAKE_VOCAB;
	is_int(weft_probe(w, NULL, prompt, LENGTH, &p), -ERANGE, "a token that no model has");
	is_int(weft_probe(w, NULL, prompt, LENGTH - 1, &p), 0,
	       "is not looked at behind the prompt");
	prompt[LENGTH - 1] = FAKE_VOCAB - 1;
	is_int(weft_probe(w, NULL, prompt, LENGTH, &p), 0, "the last of the vocabulary");
	prompt_init();
	is_int(weft_probe(w, NULL, longest, 4097, &p), -E2BIG, "more than the model has positions");
	is_int(weft_probe(w, NULL, longest, 4096, &p), 0, "as many");
	memset(&less.p, 0x55, sizeof(less.p));
	less.p.size = offsetof(struct weft_probe, device_tokens);
	is_int(weft_probe(w, NULL, prompt, LENGTH, &less.p), 0, "a shorter struct");
	ok(less.p.cached_tokens < LENGTH && less.p.device_tokens == 0x55555555,
	   "is filled as far as it goes");
}

/* --- no system call ------------------------------------------------------------------------------------*/

static int silent_child(struct weft *w)
{
	scmp_filter_ctx f = seccomp_init(SCMP_ACT_KILL_PROCESS);
	struct weft_adapter a[4];

	if (probe(w, "alora", prompt, LENGTH) < 0 || !f ||
	    seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(exit_group), 0) || seccomp_load(f))
		return 2;
	for (int i = 0; i < 100; i++)
		if (probe(w, "append", prompt, LENGTH) < 0 || probe(w, NULL, prompt, LENGTH) < 0 ||
		    weft_adapters(w, a, 4) < 0)
			return 3;
	return 0;
}

static int run_silent(int control)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		struct weft *w = cu_open(NULL); /* a session of the child's own */
		int rc = silent_child(w);

		if (control)
			close(99);
		_exit(rc);
	}
	waitpid(pid, &status, 0);
	return status;
}

static void test_silent(void)
{
	int status;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	skip(2, "sanitizers make system calls of their own");
	return;
#endif
	status = run_silent(0);
	ok(WIFEXITED(status) && !WEXITSTATUS(status), "300 calls without a system call (status %x)",
	   status);
	status = run_silent(1);
	ok(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS, "the filter kills at the first one");
}

/* --- threads and other daemons ---------------------------------------------------------------------------*/

#define THREADS 24 /* more than there are epoch words */

static struct weft *shared;
static _Atomic int stop, wrong, answers;

static void *prober(void *arg)
{
	(void)arg;
	while (!stop) {
		int n = probe(shared, NULL, prompt, LENGTH);

		/* The first daemon's index, as much of the second's as is there, or neither for a
		 * moment. */
		if (n != 96 && n != -EAGAIN && (n < 0 || n > 48 || n % 16))
			wrong++;
		answers++;
	}
	return NULL;
}

static void sleep_ms(int ms)
{
	nanosleep(&(struct timespec){.tv_nsec = ms * 1000000L}, NULL);
}

static void test_reconnect(void)
{
	struct fake *f = start();
	pthread_t threads[THREADS];
	struct weft_submit_options o;
	struct weft_request *r;
	int before, after, i;

	cache(f, 0, prompt, 6, base, WSHM_NO_ACTIVATION, WSHM_TIER_DEVICE);
	atomic_store(&fake_controls_of(f)->stall_at, 3);
	shared = cu_open(NULL);
	cu_options(&o, 10);
	r = cu_submit(shared, &o);
	is_int(weft_wait(r, 0, 2, 60000), 3, "a stream");
	for (i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, prober, NULL);
	for (i = 0; i < 6000 && answers <= THREADS; i++)
		sleep_ms(10);
	before = answers;
	fake_kill(f);
	f = start();
	cache(f, 0, prompt, 3, base, WSHM_NO_ACTIVATION, WSHM_TIER_DEVICE);
	is_int(cu_wait_end(r, 0), 10, "it goes on with another daemon");
	sleep_ms(50);
	after = answers;
	is_int(probe(shared, NULL, prompt, LENGTH), 48, "whose index is read now");
	stop = 1;
	for (i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	ok(before > THREADS && answers >= after, "24 threads probe all the time (%d answers)",
	   (int)answers);
	is_int(wrong, 0, "and never read anything but what one of the two held");
	weft_free(r);
	fake_kill(f);
	weft_wait_any(shared, &r, 1, 0);
	is_int(probe(shared, NULL, prompt, LENGTH), -EAGAIN, "no daemon: no answer");
	weft_close(shared);
}

/* An index that comes between the welcome and the session. */
static void test_late(int when)
{
	struct fake_options o = {.path = fake_path(), .late_index = when};
	struct fake *f = fake_start(&o);
	struct weft *w;

	cache(f, 0, prompt, 3, base, WSHM_NO_ACTIVATION, WSHM_TIER_DEVICE);
	w = cu_open(NULL);
	is_int(probe(w, NULL, prompt, LENGTH), 48, "another index before the session is open, %d",
	       when);
	weft_close(w);
	fake_kill(f);
}

/* Others come while many threads probe, and nobody listens to the daemon but they. */
static void test_replaced(void)
{
	struct fake *f = start();
	struct fake_controls *c = fake_controls_of(f);
	struct weft_adapter a;
	pthread_t threads[24];
	int before, rc;

	shared = cu_open(NULL);
	stop = answers = wrong = 0;
	is_int(weft_adapters(shared, &a, 1), 0, "a list of no adapters");
	for (int i = 0; i < 24; i++)
		pthread_create(&threads[i], NULL, prober, NULL);
	for (int k = 0; k < 6; k++) {
		before = answers;
		atomic_store(&c->new_index, 1);
		while (atomic_load(&c->new_index))
			sleep_ms(1);
		cache(f, 0, prompt, 3, base, WSHM_NO_ACTIVATION, WSHM_TIER_DEVICE);
		for (int i = 0; i < 6000 && (rc = probe(shared, NULL, prompt, LENGTH)) != 48; i++)
			sleep_ms(10);
		for (int i = 0; i < 6000 && answers < before + 24; i++)
			sleep_ms(10);
		if (rc != 48 || answers < before + 24)
			break;
	}
	is_int(rc, 48, "the last of many indexes is read");
	is_int(weft_adapters(shared, &a, 1), 0, "and so are its adapters");
	stop = 1;
	for (int i = 0; i < 24; i++)
		pthread_join(threads[i], NULL);
	is_int(wrong, 0, "what 24 threads have read stood in one of them");
	weft_close(shared);
	fake_kill(f);
}

static void test_fork(struct weft *w)
{
	struct weft_adapter a;
	int status;
	pid_t pid = fork();

	if (!pid)
		_exit(probe(w, NULL, prompt, 9) != -EOWNERDEAD ||
		      weft_adapters(w, &a, 1) != -EOWNERDEAD);
	waitpid(pid, &status, 0);
	is_int(status, 0, "a child has no session to probe");
}

int main(void)
{
	struct fake *f = start();
	struct weft *w = cu_open(NULL);

	prompt_init();
	test_base(f, w);
	test_public(f, w);
	test_adapters(f, w);
	test_activation(f, w);
	test_appended(f, w);
	test_errors(w);
	test_fork(w);
	weft_close(w);
	test_silent();
	fake_kill(f);
	test_reconnect();
	test_late(1);
	test_late(2);
	test_replaced();
	return tap_done();
}
