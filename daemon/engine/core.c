/* SPDX-License-Identifier: Apache-2.0 */
/*
 * core.c - the core thread: rings -> admit -> schedule -> forward -> sample -> publish -> reclaim,
 * over and over; and how it sleeps.
 *
 * While anything can compute there is no system call in the loop. Otherwise the thread may spin a
 * little (poll=always: SPIN_ALWAYS_NS; adaptive: only when the last gap was shorter than a wake-up
 * costs), and then sleeps in epoll_wait on its own eventfd and on every session's wake descriptor.
 * Sleeping is announced first (need_wake), then every ring and flag is looked at once more: so a
 * client either is seen or sees the announcement and writes its descriptor.
 *
 * A wake descriptor is shared with a client, so it is watched edge-triggered and never read. A
 * client that writes it without submitting anything costs a wake-up each time; past MUTE_WAKES in
 * a second its descriptor is not watched for a while, and its ring is polled by timer instead.
 *
 * weftd hears BUSY before a pass and IDLE once nothing has happened for IDLE_AFTER_NS, so gaps
 * between requests cause no traffic.
 */
#include "daemon/engine/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#define MS		 UINT64_C(1000000)
#define SPIN_ALWAYS_NS	 (50 * MS)
#define SPIN_ADAPTIVE_NS 50000 /* about what a wake-up costs */
#define IDLE_AFTER_NS	 (60 * MS)
#define MUTE_WAKES	 2000
#define MUTE_WINDOW_NS	 (1000 * MS)
#define MUTED_POLL_NS	 (10 * MS)
#define READERS_NS	 (20 * MS) /* between looks at readers who hold up memory; a second at most */
#define MAX_EVENTS	 64

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

int core_init(struct engine *e)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};

	e->next_deadline_ns = NO_DEADLINE;
	e->count.start_ns = now_ns();
	e->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (e->epoll_fd < 0)
		return -errno;
	return epoll_ctl(e->epoll_fd, EPOLL_CTL_ADD, e->to_core.event_fd, &ev) < 0 ? -errno : 0;
}

void core_tell(struct engine *e, enum mail_type type, uint64_t session_id)
{
	struct mail *mail = mail_new(type);

	if (!mail)
		abort(); /* weftd would draw wrong conclusions from silence */
	mail->session_id = session_id;
	mail_send(&e->to_control, mail);
}

static void announce(struct engine *e, bool busy)
{
	if (e->announced_busy == busy)
		return;
	e->announced_busy = busy;
	ord_store(&e->heartbeat->busy, busy);
	core_tell(e, busy ? MAIL_BUSY : MAIL_IDLE, 0);
}

/* --- messages from the control thread ------------------------------------------------------------*/

static void drain_start(struct engine *e, uint64_t deadline_ns)
{
	e->draining = true;
	e->drained = false;
	e->drain_deadline_ns = deadline_ns;
	for (struct session *s = e->sessions; s; s = s->next)
		if (!s->over)
			wshm_engine_set_state(&s->shm, WSHM_ENGINE_DRAINING, WSHM_OK,
					      e->instance_id);
}

static void report(struct engine *e)
{
	struct mail *mail = mail_new(MAIL_REPORT);

	if (!mail)
		return;
	mail->object = status_collect(e);
	mail_send(&e->to_control, mail);
}

static void detach(struct engine *e, uint64_t id, bool returns)
{
	struct session *s = session_find(e, id);

	if (!s) {
		core_tell(e, MAIL_DETACHED, id);
		return;
	}
	if (s->muted_until_ns)
		e->n_muted--;
	s->returns = returns;
	session_detach(e, s);
}

static void tenant(struct engine *e, struct wlink_tenant *msg)
{
	if (tenant_set(e, msg->tenant + 1, msg->name, &msg->quota))
		log_line(LOG_LEVEL_ERROR, "event=tenant-failed");
	free(msg);
}

static void domain(struct engine *e, struct domain_open *open)
{
	int rc = domain_set(e, open);

	if (rc)
		log_line(LOG_LEVEL_ERROR, "event=domain-failed domain=%u errno=%d", open->number,
			 -rc);
	explicit_bzero(open, sizeof(*open));
	free(open);
}

static void handle(struct engine *e, struct mail *mail)
{
	switch (mail->type) {
	case MAIL_ATTACH:
		session_attach(e, mail->object, (enum wlink_resume)mail->value);
		break;
	case MAIL_DETACH:
		detach(e, mail->session_id, mail->value == 1);
		break;
	case MAIL_TENANT:
		tenant(e, mail->object);
		break;
	case MAIL_DOMAIN:
		domain(e, mail->object);
		break;
	case MAIL_ADAPTER:
	case MAIL_DROP:
		chores_add(e, mail);
		return;
	case MAIL_PIN:
		pin_start(e, mail->object);
		break;
	case MAIL_UNPIN:
		pin_drop(e, mail->value);
		break;
	case MAIL_NUDGE:
		ord_store(&e->heartbeat->steps, ord_load(&e->heartbeat->steps) + 1);
		core_tell(e, MAIL_NUDGED, 0);
		break;
	case MAIL_STATUS:
		report(e);
		break;
	case MAIL_DRAIN:
		drain_start(e, mail->value);
		break;
	case MAIL_STOP:
		e->stop = true;
		break;
	default:
		break;
	}
	free(mail);
}

static bool handle_mail(struct engine *e)
{
	struct mail *mail;
	bool any = false;

	if (!mail_waiting(&e->to_core))
		return false;
	while ((mail = mail_take(&e->to_core))) {
		handle(e, mail);
		any = true;
	}
	return any;
}

/* --- a round -------------------------------------------------------------------------------------*/

static void check_deadlines(struct engine *e, uint64_t now)
{
	struct request *r, *next;

	if (now < e->next_deadline_ns)
		return;
	e->next_deadline_ns = NO_DEADLINE;
	for (r = e->requests; r; r = next) {
		next = r->next;
		if (now >= r->deadline_ns)
			request_end(e, r, WSHM_DEADLINE, 0);
		else if (r->deadline_ns < e->next_deadline_ns)
			e->next_deadline_ns = r->deadline_ns;
	}
}

static void check_drain(struct engine *e, uint64_t now)
{
	struct request *r, *next;

	if (!e->draining || e->drained)
		return;
	for (r = e->requests; r && now >= e->drain_deadline_ns; r = next) {
		next = r->next;
		request_end(e, r, WSHM_SHUTDOWN, 0);
	}
	if (e->n_requests)
		return;
	e->drained = true;
	core_tell(e, MAIL_DRAINED, 0);
}

/* Everything but computing. True if something was there to be done. */
static bool look_around(struct engine *e, bool all)
{
	bool any = handle_mail(e);
	uint64_t now = now_ns();

	for (struct session *s = e->sessions; s; s = s->next)
		any |= session_poll(e, s, now, all);
	check_deadlines(e, now);
	check_drain(e, now);
	publish_wake(e, false);
	if (all)
		e->readers_waited = domain_reclaim(e, now);
	return any;
}

/* --- sleeping ------------------------------------------------------------------------------------*/

static void need_wake(struct engine *e, bool need)
{
	for (struct session *s = e->sessions; s; s = s->next)
		if (!s->over)
			wshm_engine_set_need_wake(&s->shm, need);
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Milliseconds for epoll_wait, rounded up; -1: for ever. */
static int sleep_ms(const struct engine *e, uint64_t now)
{
	uint64_t until = e->next_deadline_ns, ms;

	if (e->announced_busy)
		until = sooner(until, e->last_work_ns + IDLE_AFTER_NS);
	if (e->draining && !e->drained)
		until = sooner(until, e->drain_deadline_ns);
	if (e->n_muted)
		until = sooner(until, now + MUTED_POLL_NS);
	if (e->readers_waited)
		until = sooner(until, now + READERS_NS);
	if (until == NO_DEADLINE)
		return -1;
	if (until <= now)
		return 0;
	ms = (until - now + MS - 1) / MS;
	return ms > 60000 ? 60000 : (int)ms;
}

static void session_woke(struct engine *e, struct session *s, uint64_t now)
{
	if (now - s->wake_window_ns > MUTE_WINDOW_NS) {
		s->wake_window_ns = now;
		s->wakes = 0;
	}
	if (++s->wakes < MUTE_WAKES || s->over || s->muted_until_ns)
		return;
	epoll_ctl(e->epoll_fd, EPOLL_CTL_DEL, s->wake_fd, NULL);
	s->muted_until_ns = now + MUTE_WINDOW_NS;
	e->n_muted++;
	log_limited(&e->log_session, LOG_LEVEL_WARN, "event=muted session=%llu wakes=%u",
		    (unsigned long long)s->id, s->wakes);
}

static void unmute(struct engine *e, uint64_t now)
{
	for (struct session *s = e->sessions; s && e->n_muted; s = s->next) {
		struct epoll_event ev = {.events = EPOLLIN | EPOLLET, .data.ptr = s};

		if (!s->muted_until_ns || now < s->muted_until_ns)
			continue;
		s->muted_until_ns = 0;
		e->n_muted--;
		if (!s->over)
			epoll_ctl(e->epoll_fd, EPOLL_CTL_ADD, s->wake_fd, &ev);
	}
}

static void core_sleep(struct engine *e)
{
	struct epoll_event events[MAX_EVENTS];
	uint64_t now;
	int n;

	need_wake(e, true);
	if (!look_around(e, true) && !e->wakes_owed && !sched_has_work(&e->sched) && !e->stop) {
		e->ops->idle(e->be, true);
		adapters_asleep(e, true);
		n = epoll_wait(e->epoll_fd, events, MAX_EVENTS, sleep_ms(e, now_ns()));
		adapters_asleep(e, false);
		e->ops->idle(e->be, false);
		now = now_ns();
		for (int i = 0; i < n; i++)
			if (events[i].data.ptr)
				session_woke(e, events[i].data.ptr, now);
			else
				mail_quiet(&e->to_core);
		if (e->n_muted)
			unmute(e, now);
	}
	need_wake(e, false);
}

static void cpu_relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#endif
}

static bool may_spin(const struct engine *e, uint64_t idle_ns)
{
	if (e->opt.poll_always)
		return idle_ns < SPIN_ALWAYS_NS;
	return e->last_gap_ns < SPIN_ADAPTIVE_NS && idle_ns < SPIN_ADAPTIVE_NS;
}

static void worked(struct engine *e, bool *was_idle)
{
	uint64_t now = now_ns();

	if (*was_idle)
		e->last_gap_ns = now - e->last_work_ns;
	*was_idle = false;
	e->last_work_ns = now;
}

static void test_hook(struct engine *e)
{
	e->opt.no_system_calls = false;
	if (hook_no_system_calls())
		abort(); /* the test must not pass because nothing was forbidden */
}

void *core_main(void *arg)
{
	struct engine *e = arg;
	bool was_idle = true;

	adapters_reader(true);
	e->ops->idle(e->be, true);
	e->ops->idle(e->be, false);
	while (!e->stop) {
		bool any = look_around(e, false);
		uint64_t idle_ns;

		adapters_quiescent(e);
		if (chores_left(e))
			step_finish(e);
		chores_run(e);
		if (sched_has_work(&e->sched) || e->flying) {
			announce(e, true);
			if (step_run(e)) {
				worked(e, &was_idle);
				if (e->opt.no_system_calls && e->count.tokens_out)
					test_hook(e);
				continue;
			}
		}
		publish_wake_end(e);
		if (chores_left(e))
			continue;
		if (any)
			worked(e, &was_idle);
		was_idle = true;
		idle_ns = now_ns() - e->last_work_ns;
		if (idle_ns >= IDLE_AFTER_NS)
			announce(e, false);
		if (may_spin(e, idle_ns))
			cpu_relax();
		else
			core_sleep(e);
	}
	step_quiet(e);
	adapters_reader(false);
	core_tell(e, MAIL_STOPPED, 0);
	return NULL;
}
