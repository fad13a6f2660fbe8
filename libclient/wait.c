/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wait.c - waiting for tokens.
 *
 * weft_wait() looks at its request alone; weft_wait_any() at the completion ring, whose notices
 * say which slots to look at. Sleeps last at most a second, after which the control socket is
 * checked. Before a sleep, weft_wait() spins only if recent tokens came closer together than a
 * wake-up takes; with WEFT_POLL_ALWAYS it spins until something happens and a token costs no
 * system call.
 *
 * Any thread may call anything; notices are consumed under the session's lock. A notice whose
 * generation is an old one still means "look at this slot": the engine may have kept back a newer
 * one because of it.
 */
#include "libclient/private.h"

#include <errno.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SLICE_NS NS_PER_SEC
/* What a futex wake-up costs on the machines we measured (15-20 us at the median): spinning
 * longer than this costs more than it saves. */
#define WAKE_UP_NS INT64_C(20000)
/* Pauses between two looks at the clock while spinning: about 10 us. */
#define PAUSES_PER_CLOCK 256

static inline void pause_cpu(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

static void sleep_ns(int64_t ns)
{
	nanosleep(&(struct timespec){ns / NS_PER_SEC, ns % NS_PER_SEC}, NULL);
}

/* A session that is down, and this thread's attempt is over or another thread is at it. */
static void sleep_until_retry(struct weft *w, int64_t until_ns)
{
	int64_t left = until_ns - wc_now_ns(), in = wc_session_retry_in_ns(w);

	if (left > 0)
		sleep_ns(in < left ? in : left);
}

static int64_t deadline_of(int timeout_ms)
{
	if (timeout_ms < 0)
		return INT64_MAX;
	return timeout_ms ? wc_now_ns() + timeout_ms * NS_PER_MS : 0;
}

static int64_t min_ns(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* --- one request ---------------------------------------------------------------------------------*/

/* More tokens than `have`, or the end? *ret_n is how many there are. */
static bool has_news(const struct weft_request *r, uint32_t sample, uint32_t have, uint32_t *ret_n)
{
	wc_request_tokens(r, sample, ret_n);
	if (*ret_n > have)
		return true;
	if (!wc_request_sample_ended(r, sample))
		return false;
	/* The last tokens were published before the end was. */
	wc_request_tokens(r, sample, ret_n);
	return true;
}

/* Ended by the engine, or together with it: its last wake-up is not news of any request, but must not be
 * slept off. */
static bool engine_over(const struct wshm_client *c)
{
	uint32_t state = wshm_rx_engine_state(wshm_client_rx_ctl(c));

	return state == WSHM_ENGINE_ENDED || state == WSHM_ENGINE_ORPHANED;
}

/* Spin until the slot's progress is not `seen`, or the time or the engine is over. */
static bool spin(const struct attempt *a, uint32_t seen, int64_t until_ns)
{
	do {
		for (uint32_t i = 0; i < PAUSES_PER_CLOCK; i++) {
			if (wshm_slot_progress(a->s) != seen)
				return true;
			pause_cpu();
		}
		if (engine_over(&a->link->c))
			return true;
	} while (wc_now_ns() < until_ns);
	return false;
}

/* Times of a request's waiting: where several threads wait for one, at worst a second is counted anew or a spin is
 * too long. */
static int64_t noted(const _Atomic int64_t *ns)
{
	return atomic_load_explicit(ns, memory_order_relaxed);
}

static void note(_Atomic int64_t *ns, int64_t value)
{
	atomic_store_explicit(ns, value, memory_order_relaxed);
}

/* Has nobody looked after the session for a second, or is there a daemon to be found? */
static bool check_due(struct weft *w)
{
	return atomic_load(&w->state) == SESSION_DOWN ||
	       wc_now_ns() - atomic_load(&w->last_check_ns) >= SLICE_NS;
}

/*
 * A wait was in vain. However short a program's waits are, and however often signals end them, the
 * session is looked after once a second: an engine that has gone before weftd cannot say that it has.
 */
static void waited_in_vain(struct weft_request *r)
{
	int64_t since = noted(&r->quiet_since_ns);

	if (!since)
		note(&r->quiet_since_ns, wc_now_ns());
	else if (wc_now_ns() - since >= SLICE_NS && check_due(r->w))
		wc_session_check(r->w, true, 0);
}

/*
 * The program asks for the result of a request that runs, and perhaps never waits. Nothing new for a
 * second, or a session that is known to be down, is a reason to look after it: tokens that flow cost no
 * system call here. Any thread may ask, at the same time too: at worst a second is counted anew.
 */
void wc_wait_polled(struct weft_request *r)
{
	struct weft *w = r->w;
	/* A2: pairs with A1 in attempt_publish() */
	const struct attempt *a = atomic_load_explicit(&r->cur, memory_order_acquire);
	uint32_t progress = wshm_slot_progress(a->s);
	int64_t since = atomic_load_explicit(&r->polled_since_ns, memory_order_relaxed), now;

	if (wc_request_ended(r))
		return;
	if (atomic_load(&w->state) != SESSION_UP || engine_over(&a->link->c)) {
		wc_session_check(w, false, 0);
		return;
	}
	now = wc_now_ns();
	if (since && progress == atomic_load_explicit(&r->polled_progress, memory_order_relaxed)) {
		if (now - since >= SLICE_NS && check_due(w))
			wc_session_check(w, true, 0);
		return;
	}
	atomic_store_explicit(&r->polled_progress, progress, memory_order_relaxed);
	atomic_store_explicit(&r->polled_since_ns, now, memory_order_relaxed);
}

static void check_engine(struct weft *w, const struct wshm_client *c)
{
	if (engine_over(c))
		wc_session_check(w, false, 0);
}

/* Sleep or spin for one slice. 0: look again; -EINTR. */
static int wait_slice(struct weft_request *r, const struct attempt *a, uint32_t seen,
		      int64_t deadline_ns)
{
	struct weft *w = r->w;
	int64_t now = wc_now_ns(), until = min_ns(deadline_ns, now + SLICE_NS);
	int64_t gap = noted(&r->gap_ns);
	int err;

	if (!noted(&r->quiet_since_ns))
		note(&r->quiet_since_ns, now);
	if (atomic_load(&w->state) == SESSION_UP)
		check_engine(w, &a->link->c);
	if (atomic_load(&w->state) != SESSION_UP) {
		err = wc_session_check(w, false, until);
		if (!err && atomic_load(&w->state) == SESSION_DOWN)
			sleep_until_retry(w, until);
		return 0; /* a dead session has ended the request */
	}
	if (w->flags & WEFT_POLL_ALWAYS) {
		err = spin(a, seen, until) ? 0 : -ETIMEDOUT;
	} else {
		if (gap && gap <= WAKE_UP_NS && spin(a, seen, min_ns(until, now + WAKE_UP_NS)))
			return 0;
		err = wshm_client_wait_slot(&a->link->c, a->slot, seen, until - now);
	}
	if (err == -ETIMEDOUT || err == -EINTR)
		waited_in_vain(r);
	else
		note(&r->quiet_since_ns, 0);
	return err == -ETIMEDOUT ? 0 : err;
}

static void note_gap(struct weft_request *r)
{
	int64_t now = wc_now_ns(), last = noted(&r->last_news_ns), mean = noted(&r->gap_ns);
	int64_t gap = now - last;

	if (last)
		note(&r->gap_ns, mean ? (3 * mean + gap) / 4 : gap);
	note(&r->last_news_ns, now);
	note(&r->quiet_since_ns, 0);
}

int64_t weft_wait(struct weft_request *r, uint32_t sample, uint32_t have, int timeout_ms)
{
	int64_t deadline = 0;
	bool slept = false;

	if (wc_session_forked(r->w))
		return -EOWNERDEAD;
	if (sample >= r->n)
		return -EINVAL;
	for (;;) {
		/* A2: pairs with A1 in attempt_publish() */
		const struct attempt *a = atomic_load_explicit(&r->cur, memory_order_acquire);
		uint32_t seen = wshm_slot_progress(a->s), n;
		int err;

		if (has_news(r, sample, have, &n)) {
			note_gap(r);
			return n;
		}
		if (!slept)
			deadline = deadline_of(timeout_ms);
		if (timeout_ms >= 0 && wc_now_ns() >= deadline) {
			if (!slept) /* the wait of a moment, or none */
				waited_in_vain(r);
			return -ETIMEDOUT;
		}
		err = wait_slice(r, a, seen, deadline);
		if (err < 0)
			return err;
		slept = true;
	}
}

/* --- any request ---------------------------------------------------------------------------------*/

/* Under the lock: has the request something that was not listed yet? */
static bool unlisted(struct weft_request *r)
{
	const struct attempt *a = atomic_load_explicit(&r->cur, memory_order_relaxed);
	uint32_t progress = wshm_slot_progress(a->s);

	if (attempt_state(a) == WSHM_SLOT_FREE || (r->any_listed && progress == r->any_progress))
		return false;
	r->any_listed = true;
	r->any_progress = progress;
	return true;
}

static uint32_t collect_local(struct weft *w, struct weft_request **ret, uint32_t max)
{
	uint32_t n = 0;

	for (struct weft_request *r = w->requests; r && w->n_news && n < max; r = r->next) {
		if (!r->news)
			continue;
		r->news = false;
		w->n_news--;
		unlisted(r);
		ret[n++] = r;
	}
	return n;
}

static uint32_t collect(struct weft *w, struct weft_request **ret, uint32_t max)
{
	uint32_t n, slot, generation;
	struct link *l;

	pthread_mutex_lock(&w->lock);
	l = atomic_load_explicit(&w->link, memory_order_relaxed);
	n = collect_local(w, ret, max);
	while (n < max && wshm_client_notice(&l->c, &slot, &generation) == 1) {
		struct weft_request *r;

		if (slot >= l->c.layout.params.slots)
			continue;
		r = l->slots[slot].request;
		if (r && unlisted(r))
			ret[n++] = r;
	}
	if (n)
		atomic_store(&w->any_quiet_since_ns, 0);
	pthread_mutex_unlock(&w->lock);
	return n;
}

static bool any_running(struct weft *w)
{
	bool running = false;

	pthread_mutex_lock(&w->lock);
	for (struct weft_request *r = w->requests; r && !running; r = r->next)
		running = !wc_request_ended(r);
	pthread_mutex_unlock(&w->lock);
	return running;
}

/*
 * Has wait_any listed nothing for a second, however short its waits were, though something was asked
 * for? Then the engine may have stopped without dying, which nobody but its clients may notice.
 */
static bool any_is_quiet(struct weft *w)
{
	int64_t since = atomic_load(&w->any_quiet_since_ns);

	return since && wc_now_ns() - since >= SLICE_NS && any_running(w);
}

/* When nothing is there and the caller does not wait: look at the socket now and then, always if
 * the program may have come here because the event descriptor told it to. As wc_session_check(). */
static int check_now_and_then(struct weft *w)
{
	bool quiet = any_is_quiet(w);

	return !(w->flags & WEFT_POLL_ALWAYS) || check_due(w) ? wc_session_check(w, quiet, 0) : 0;
}

static int spin_any(const struct wshm_client *c, int64_t until_ns)
{
	const struct wshm_rx_ctl *ctl = wshm_client_rx_ctl(c);

	do {
		for (uint32_t i = 0; i < PAUSES_PER_CLOCK; i++) {
			/* W4: pairs with W1 in wshm_engine_publish(); nobody sleeps here. */
			if (atomic_load_explicit(&ctl->cq_tail, memory_order_acquire) != c->cq_head)
				return 0;
			pause_cpu();
		}
		if (engine_over(c))
			return 0;
	} while (wc_now_ns() < until_ns);
	return -ETIMEDOUT;
}

static int wait_any_slice(struct weft *w, int64_t deadline_ns)
{
	int64_t now = wc_now_ns(), until = min_ns(deadline_ns, now + SLICE_NS);
	struct wshm_client c;
	struct link *l;
	int err;

	if (atomic_load(&w->state) != SESSION_UP) {
		err = wc_session_check(w, false, until);
		if (!err && atomic_load(&w->state) == SESSION_DOWN)
			sleep_until_retry(w, until);
		return err;
	}
	/* A copy of the ring's end, so that our position cannot change under the sleeper, and a
	 * reference, so that the mapping stays if another thread adopts a new daemon. */
	pthread_mutex_lock(&w->lock);
	l = atomic_load_explicit(&w->link, memory_order_relaxed);
	l->refs++;
	c = l->c;
	pthread_mutex_unlock(&w->lock);
	check_engine(w, &c);
	if (atomic_load(&w->state) != SESSION_UP)
		err = 0;
	else if (w->flags & WEFT_POLL_ALWAYS)
		err = spin_any(&c, until);
	else
		err = wshm_client_wait_any(&c, until - now);
	pthread_mutex_lock(&w->lock);
	wc_link_put(l);
	pthread_mutex_unlock(&w->lock);
	if (err == -ETIMEDOUT && wc_now_ns() - now >= SLICE_NS)
		err = wc_session_check(w, any_is_quiet(w), 0);
	else if (err == -EINTR && check_due(w))
		wc_session_check(w, any_is_quiet(w), 0);
	return err == -ETIMEDOUT ? 0 : err;
}

int weft_wait_any(struct weft *w, struct weft_request **ret, uint32_t max, int timeout_ms)
{
	int64_t deadline = 0;
	int err = 0;

	if (wc_session_forked(w))
		return -EOWNERDEAD;
	if (!max)
		return -EINVAL;
	for (bool first = true;; first = false) {
		uint32_t n = collect(w, ret, max);

		if (n)
			return (int)n;
		if (err < 0)
			return err;
		if (first)
			deadline = deadline_of(timeout_ms);
		/* Each time: another thread's submission begins it anew. */
		if (!atomic_load(&w->any_quiet_since_ns))
			atomic_store(&w->any_quiet_since_ns, wc_now_ns());
		if (timeout_ms >= 0 && wc_now_ns() >= deadline) {
			err = check_now_and_then(w);
			n = collect(w, ret, max);
			return n ? (int)n : err ? err : -ETIMEDOUT;
		}
		/* What ended with the session is listed before the error is. */
		err = wait_any_slice(w, deadline);
	}
}

static void drain_bell(int fd)
{
	char byte[64];

	while (fd >= 0 && recv(fd, byte, sizeof(byte), MSG_DONTWAIT) > 0)
		;
}

int weft_event_arm(struct weft *w)
{
	const struct wshm_rx_ctl *ctl;
	struct link *l;
	uint64_t ticks;
	int news;

	if (wc_session_forked(w))
		return -EOWNERDEAD;
	pthread_mutex_lock(&w->lock);
	l = atomic_load_explicit(&w->link, memory_order_relaxed);
	drain_bell(l->bell_fd);
	if (w->timer_fd >= 0 && read(w->timer_fd, &ticks, sizeof(ticks)) < 0)
		ticks = 0; /* EAGAIN: it has not run out */
	wshm_client_arm_bell(&l->c, true);
	/* Both sequentially consistent: either the engine sees the bell armed, or we its notice.
	 * W4: pairs with W1 in wshm_engine_publish() */
	ctl = wshm_client_rx_ctl(&l->c);
	news = w->n_news || atomic_load(&ctl->cq_tail) != l->c.cq_head;
	pthread_mutex_unlock(&w->lock);
	return news;
}
