/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_readers.c - clients that misuse the index: one stops inside a read section, one writes
 * nonsense into its epoch words all the time, one dies inside, one is of another tenant. Each time
 * the engine's table grows, and the old one's memory comes back: at once where nobody reads it, and
 * otherwise no later than the deadline, although the engine has nothing else to do by then. Nobody
 * else notices anything.
 */
#include "shm/wshm_idx_abi.h"
#include "tests/e2e/engine_harness.h"
#include "tests/tap.h"

#include <pthread.h>
#include <time.h>
#include <unistd.h>

#define PROMPT	   240u
#define SLACK_NS   UINT64_C(30000000000) /* for a machine with other things to do */
#define GRACE_NS   WSHM_IDX_GRACE_NS
#define GIVE_UP_NS (60 * GRACE_NS)
#define TRIES	   4 /* until nothing else held the machine up meanwhile */

static struct eh h;
static struct wshm_idx_reader reader;
static uint64_t random_state = 0x9E3779B97F4A7C15ull;
static uint32_t wrong;

static uint64_t table(void)
{
	const struct wshm_idx_ctl *ctl = (const void *)(reader.base + WSHM_IDX_OFF_CTL);

	return ord_load(&ctl->table);
}

/* Has the memory of the table with 2^log2 buckets been given back? */
static bool gone(uint32_t log2)
{
	off_t at = (off_t)(WSHM_IDX_OFF_TABLES +
			   ((UINT64_C(1) << log2) - (UINT64_C(1) << WSHM_IDX_LOG2_MIN)) *
				   sizeof(struct wshm_idx_bucket));
	off_t end = at + (off_t)((UINT64_C(1) << log2) * sizeof(struct wshm_idx_bucket));
	off_t data = lseek(h.idx_fd[0], at, SEEK_DATA);

	return data < 0 || data >= end;
}

static void request(struct eh_session *s)
{
	uint32_t prompt[PROMPT];
	struct wshm_desc d;
	struct eh_req r;

	for (uint32_t i = 0; i < PROMPT; i++)
		prompt[i] = eh_random(&random_state) % 192;
	eh_desc(&d);
	d.max_tokens = 1;
	eh_submit(s, &d, prompt, PROMPT, NULL, &r);
	wrong += !eh_wait(&r) || eh_status(&r) != WSHM_OK;
	eh_release(&r);
}

/* Prompts until the table has been replaced: the size of the old one. */
static uint32_t grow(struct eh_session *s)
{
	uint64_t before = table();

	for (int i = 0; table() == before; i++) {
		if (i > 5000)
			bail_out("the table does not grow");
		request(s);
	}
	return (uint32_t)(before & 0xff);
}

static uint64_t wait_gone(uint32_t log2)
{
	uint64_t start = eh_now_ns();

	while (!gone(log2) && eh_now_ns() - start < GIVE_UP_NS)
		nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
	return eh_now_ns() - start;
}

static _Atomic uint64_t *epochs(struct eh_session *s)
{
	struct wshm_tx_ctl *ctl = (void *)(s->client.tx + s->layout.tx_ctl);

	return ctl->reader_epoch;
}

static void at_once(struct eh_session *s, const char *what)
{
	uint64_t took = GRACE_NS;

	for (int i = 0; i < TRIES && took >= GRACE_NS * 9 / 10; i++)
		took = wait_gone(grow(s));
	ok(took < GRACE_NS * 9 / 10, "%s: the old table's memory comes back at once (%.3f s)", what,
	   (double)took / 1e9);
}

static void by_the_deadline(uint64_t took, const char *what)
{
	ok(took < GRACE_NS + SLACK_NS, "%s: it comes back by the deadline (%.3f s)", what,
	   (double)took / 1e9);
}

/* --- the cases --------------------------------------------------------------------------------------*/

static void test_stopped(struct eh_session *s, struct eh_session *bad)
{
	uint64_t took = 0;

	for (int i = 0; i < TRIES && took <= GRACE_NS / 2; i++) {
		wshm_idx_enter(&bad->client, 3, &reader);
		took = wait_gone(grow(s));
		wshm_idx_leave(&bad->client, 3);
	}
	ok(took > GRACE_NS / 2, "a reader who stopped inside is waited for (%.3f s)",
	   (double)took / 1e9);
	by_the_deadline(took, "but not for ever");
}

struct liar {
	_Atomic uint64_t *epochs;
	_Atomic bool stop;
};

static void *lie(void *arg)
{
	struct liar *l = arg;
	uint64_t x = 0x123456789abcdefull;

	while (!atomic_load(&l->stop)) {
		for (uint32_t i = 0; i < WSHM_READERS; i++) {
			uint64_t any = (uint64_t)eh_random(&x) << 32 | eh_random(&x);

			atomic_store(&l->epochs[i], i % 4 == 0	 ? 1
						    : i % 4 == 1 ? UINT64_MAX
						    : i % 4 == 2 ? any
								 : any % 8);
		}
		nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
	}
	return NULL;
}

static void test_liar(struct eh_session *s, struct eh_session *bad)
{
	struct liar l = {.epochs = epochs(bad)};
	pthread_t thread;

	if (pthread_create(&thread, NULL, lie, &l))
		bail_out("no thread");
	by_the_deadline(wait_gone(grow(s)), "someone writes nonsense into its words");
	atomic_store(&l.stop, true);
	pthread_join(thread, NULL);
	for (uint32_t i = 0; i < WSHM_READERS; i++)
		atomic_store(&epochs(bad)[i], 0);
}

static void test_dead(struct eh_session *s, struct eh_session *bad)
{
	uint32_t log2;

	wshm_idx_enter(&bad->client, 0, &reader);
	log2 = grow(s);
	eh_close(bad);
	by_the_deadline(wait_gone(log2), "one died inside");
}

int main(void)
{
	struct eh_session *s, *bad, *dying, *stranger;
	uint32_t prompt[PROMPT] = {1, 2, 3};
	struct eh_result before, after;
	struct wshm_desc d;
	struct eh_req r;

	eh_init(&h, eh_model_dir("llama"));
	eh_arg(&h, "--threads");
	eh_arg(&h, "1");
	eh_arg(&h, "--kv-bytes");
	eh_arg(&h, "134217728");
	eh_domain(&h, 0);
	eh_domain(&h, 1);
	eh_start(&h);
	s = eh_open(&h, 0, 4, 1 << 20);
	bad = eh_open(&h, 0, 4, 1 << 20);
	dying = eh_open(&h, 0, 4, 1 << 20);
	stranger = eh_open(&h, 1, 4, 1 << 20);
	if (wshm_idx_reader_open(&reader, eh_idx_reader_fd(&h, 0)))
		bail_out("no reader");
	eh_desc(&d);
	d.logprobs = 2;
	eh_submit(s, &d, prompt, PROMPT, NULL, &r);
	eh_wait(&r);
	eh_result_take(&before, &r);
	eh_release(&r);

	at_once(s, "without readers");
	test_stopped(s, bad);
	atomic_store(&epochs(stranger)[5], 1);
	at_once(s, "with another tenant's reader inside");
	test_liar(s, bad);
	test_dead(s, dying);

	eh_submit(s, &d, prompt, PROMPT, NULL, &r);
	eh_wait(&r);
	eh_result_take(&after, &r);
	eh_release(&r);
	ok(eh_result_same(&before, &after), "answers are what they were");
	is_int(wrong, 0, "no request failed");
	is_int(h.offences, 0, "no session was ended");
	is_int(h.restarts, 0, "the engine is the one that was started");
	eh_result_free(&before);
	eh_result_free(&after);
	wshm_idx_reader_close(&reader);
	eh_stop(&h);
	return tap_done();
}
