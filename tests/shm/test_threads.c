/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_threads.c - several threads of one client share a session, as libweft lets them: submission
 * and notices each under a lock, waiting, cancelling and reading slots without one. Meant for
 * SAN=thread as well.
 */
#include "tests/shm/pair.h"
#include "tests/tap.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>

#define THREADS	 3
#define REQUESTS 2000

struct shared {
	struct pair pair;
	pthread_mutex_t submit_lock, notice_lock;
	_Atomic uint32_t stop, notices, timeouts, bad;
};

struct worker {
	struct shared *sh;
	uint32_t slot;
};

static void submit(struct shared *sh, uint32_t slot, uint32_t gen)
{
	int rc;

	do {
		pthread_mutex_lock(&sh->submit_lock);
		wshm_client_req_write(&sh->pair.client, slot, gen, 0, gen);
		rc = wshm_client_submit(&sh->pair.client, slot, gen);
		pthread_mutex_unlock(&sh->submit_lock);
	} while (rc == -EAGAIN);
}

/* Owns one slot; waits for each request's end by the slot. */
static void *work(void *arg)
{
	struct worker *w = arg;
	struct shared *sh = w->sh;
	const struct wshm_slot *s = wshm_client_slot(&sh->pair.client, w->slot);
	uint32_t gen, seen;

	for (gen = 1; gen <= REQUESTS; gen++) {
		submit(sh, w->slot, gen);
		for (;;) {
			seen = wshm_slot_progress(s);
			if (wshm_slot_generation(s) == gen && wshm_slot_state(s) == WSHM_SLOT_ENDED)
				break;
			if (wshm_client_wait_slot(&sh->pair.client, w->slot, seen,
						  INT64_C(5000000000)) == -ETIMEDOUT)
				ord_add_seq(&sh->timeouts, 1);
		}
		if (wshm_slot_count(s, 0) != gen)
			ord_add_seq(&sh->bad, 1);
		wshm_client_release(&sh->pair.client, w->slot, gen);
	}
	return NULL;
}

/* Takes notices and waits for any. Two of them run. */
static void *take_notices(void *arg)
{
	struct shared *sh = arg;
	uint32_t slot, gen;
	int rc;

	while (!ord_load_acquire(&sh->stop)) {
		pthread_mutex_lock(&sh->notice_lock);
		rc = wshm_client_notice(&sh->pair.client, &slot, &gen);
		pthread_mutex_unlock(&sh->notice_lock);
		if (rc)
			ord_add_seq(&sh->notices, 1);
		else
			wshm_client_wait_any(&sh->pair.client, 20000000);
	}
	return NULL;
}

static void engine(struct shared *sh)
{
	uint32_t done = 0, slot, gen;
	int rc;

	while (done < THREADS * REQUESTS) {
		rc = pair_admit(&sh->pair, &slot, &gen);
		if (rc < 0)
			bail_out("the engine saw a violation");
		if (!rc) {
			sched_yield();
			continue;
		}
		wshm_slot_set_count(wshm_engine_slot(&sh->pair.engine, slot), 0, gen);
		pair_end(&sh->pair, slot);
		done++;
	}
}

int main(void)
{
	struct shared sh = {.submit_lock = PTHREAD_MUTEX_INITIALIZER,
			    .notice_lock = PTHREAD_MUTEX_INITIALIZER};
	pthread_t workers[THREADS], listeners[2];
	struct worker w[THREADS];
	uint32_t i;

	pair_open(&sh.pair, 4, UINT32_MAX - 100);
	for (i = 0; i < 2; i++)
		if (pthread_create(&listeners[i], NULL, take_notices, &sh))
			bail_out("pthread_create");
	for (i = 0; i < THREADS; i++) {
		w[i] = (struct worker){.sh = &sh, .slot = i};
		if (pthread_create(&workers[i], NULL, work, &w[i]))
			bail_out("pthread_create");
	}
	engine(&sh);
	for (i = 0; i < THREADS; i++)
		pthread_join(workers[i], NULL);
	ord_store_release(&sh.stop, 1);
	for (i = 0; i < 2; i++)
		pthread_join(listeners[i], NULL);
	diag("%u notices for %u requests", ord_load(&sh.notices), THREADS * REQUESTS);
	is_int(ord_load(&sh.bad), 0, "every request ended with its own count");
	is_int(ord_load(&sh.timeouts), 0, "no wait ran out");
	ok(ord_load(&sh.notices) > 0, "notices were taken meanwhile");
	pair_close(&sh.pair);
	return tap_done();
}
