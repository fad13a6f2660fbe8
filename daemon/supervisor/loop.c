/* SPDX-License-Identifier: Apache-2.0 */
/* loop.c - see loop.h. Owned by weftd's only thread. */
#include "daemon/supervisor/loop.h"

#include <errno.h>
#include <limits.h>
#include <time.h>
#include <unistd.h>

uint64_t loop_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_SECOND + (uint64_t)ts.tv_nsec;
}

int loop_init(struct loop *l)
{
	*l = (struct loop){.epoll_fd = epoll_create1(EPOLL_CLOEXEC)};
	return l->epoll_fd < 0 ? -errno : 0;
}

void loop_fini(struct loop *l)
{
	if (l->epoll_fd >= 0)
		close(l->epoll_fd);
	l->epoll_fd = -1;
}

void loop_stop(struct loop *l, int code)
{
	l->stop = true;
	l->exit_code = code;
}

/* Run what is due; milliseconds until the next, rounded up, or -1. */
static int run_timers(struct loop *l)
{
	while (l->timers && !l->stop) {
		struct loop_timer *t = l->timers;
		uint64_t now = loop_now_ns(), ms;

		if (t->at_ns > now) {
			ms = (t->at_ns - now + NS_PER_MS - 1) / NS_PER_MS;
			return ms > INT_MAX ? INT_MAX : (int)ms;
		}
		l->timers = t->next;
		t->armed = false;
		t->fn(t);
	}
	return -1;
}

int loop_run(struct loop *l)
{
	while (!l->stop) {
		struct epoll_event ev;
		int timeout = run_timers(l), n;

		if (l->stop)
			break;
		/* One at a time: a callback may free the source of another event. The kernel
		 * rotates its ready list, so nobody is starved. */
		n = epoll_wait(l->epoll_fd, &ev, 1, timeout);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 1) {
			struct loop_source *s = ev.data.ptr;

			s->fn(s, ev.events);
		}
	}
	return l->exit_code;
}

static int control(struct loop *l, int op, struct loop_source *s)
{
	struct epoll_event ev = {.events = s->events, .data.ptr = s};

	return epoll_ctl(l->epoll_fd, op, s->fd, &ev) ? -errno : 0;
}

int loop_watch(struct loop *l, struct loop_source *s, int fd, uint32_t events, loop_event_fn fn)
{
	int err;

	s->fd = fd;
	s->events = events;
	s->fn = fn;
	err = control(l, EPOLL_CTL_ADD, s);
	s->watched = !err;
	return err;
}

int loop_rewatch(struct loop *l, struct loop_source *s, uint32_t events)
{
	if (!s->watched || s->events == events)
		return 0;
	s->events = events;
	return control(l, EPOLL_CTL_MOD, s);
}

void loop_unwatch(struct loop *l, struct loop_source *s)
{
	if (s->watched)
		epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, s->fd, NULL);
	s->watched = false;
}

void loop_timer_clear(struct loop *l, struct loop_timer *t)
{
	struct loop_timer **at = &l->timers;

	if (!t->armed)
		return;
	while (*at != t)
		at = &(*at)->next;
	*at = t->next;
	t->armed = false;
}

void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t at_ns, loop_timer_fn fn)
{
	struct loop_timer **at = &l->timers;

	loop_timer_clear(l, t);
	t->at_ns = at_ns;
	t->fn = fn;
	while (*at && (*at)->at_ns <= at_ns)
		at = &(*at)->next;
	t->next = *at;
	*at = t;
	t->armed = true;
}
