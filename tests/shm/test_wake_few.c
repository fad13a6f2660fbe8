/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_wake_few.c - a publication costs the engine the waking of two sleepers, however many threads
 * a client puts to sleep; and yet all of an honest client's wake up, because who is woken wakes the
 * others.
 */
#include "shm/internal.h"
#include "tests/shm/pair.h"
#include "tests/tap.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#define THREADS	   40u
#define PATIENT_NS INT64_C(30000000000)
#define ASLEEP_US  200000 /* to fall asleep in, so that the test means something */

static struct pair p;
static _Atomic uint32_t ready, woken, late, over;

static const _Atomic uint32_t *word_of(bool any)
{
	return any ? &wshm_client_rx_ctl(&p.client)->cq_tail
		   : &wshm_client_slot(&p.client, 0)->progress;
}

static _Atomic uint32_t *count_of(bool any)
{
	return any ? &pair_tx_ctl(&p)->any_waiters : &wshm_client_req(&p.client, 0)->waiters;
}

/* A client that passes nothing on. */
static void *sleep_raw(void *arg)
{
	const _Atomic uint32_t *word = word_of(arg != NULL);
	uint32_t seen = ord_load(word);

	atomic_fetch_add(&ready, 1);
	if (!syscall(SYS_futex, word, FUTEX_WAIT, seen, NULL, NULL, 0) && !ord_load(&over))
		atomic_fetch_add(&woken, 1);
	return NULL;
}

static void *sleep_honest(void *arg)
{
	uint32_t seen = wshm_slot_progress(wshm_client_slot(&p.client, 0));
	int rc;

	atomic_fetch_add(&ready, 1);
	if (arg)
		rc = wshm_client_wait_any(&p.client, PATIENT_NS);
	else
		rc = wshm_client_wait_slot(&p.client, 0, seen, PATIENT_NS);
	atomic_fetch_add(rc == -ETIMEDOUT ? &late : &woken, 1);
	return NULL;
}

static void start(pthread_t *t, void *(*fn)(void *), bool any)
{
	ord_store(&ready, 0);
	ord_store(&woken, 0);
	ord_store(&late, 0);
	ord_store(&over, 0);
	for (uint32_t i = 0; i < THREADS; i++)
		if (pthread_create(&t[i], NULL, fn, any ? &p : NULL))
			bail_out("no threads");
	while (ord_load(&ready) < THREADS)
		usleep(1000);
	usleep(ASLEEP_US);
}

static void join(pthread_t *t)
{
	for (uint32_t i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
}

/* With a notice outstanding a publication is no news for those who wait for any. */
static void drain(void)
{
	uint32_t slot, generation;

	while (wshm_client_notice(&p.client, &slot, &generation))
		;
}

static void publish(void)
{
	wshm_engine_publish(&p.engine, 0);
}

static void hostile(bool any)
{
	pthread_t t[THREADS];

	drain();
	ord_store(count_of(any), THREADS);
	start(t, sleep_raw, any);
	publish();
	usleep(ASLEEP_US); /* whoever was woken has had its time to say so */
	ok(ord_load(&woken) <= 2, "%s: %u of %u sleepers were woken", any ? "any" : "slot",
	   ord_load(&woken), THREADS);
	ord_store(&over, 1);
	ord_store(count_of(any), 0);
	/* Whoever is not asleep by now finds that the word has moved. */
	wshm_futex_wake(word_of(any), UINT32_MAX);
	join(t);
}

static void honest(bool any)
{
	pthread_t t[THREADS];

	drain();
	start(t, sleep_honest, any);
	publish();
	join(t);
	is_int(ord_load(&woken), THREADS, "%s: one publication woke everybody",
	       any ? "any" : "slot");
	is_int(ord_load(&late), 0, "and nobody had to help himself");
	is_int(ord_load(count_of(any)), 0, "everybody has taken its 1 back");
}

int main(void)
{
	uint32_t slot, generation;

	pair_open(&p, 4, 0);
	wshm_client_req_write(&p.client, 0, 1, 0, 1);
	wshm_client_submit(&p.client, 0, 1);
	if (pair_admit(&p, &slot, &generation) != 1)
		bail_out("nothing was admitted");
	honest(false);
	honest(true);
	hostile(false);
	hostile(true);
	pair_close(&p);
	return tap_done();
}
