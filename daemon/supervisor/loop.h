/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop.h - weftd's one loop: descriptors and deadlines.
 *
 * Sources and timers are embedded in their owners, who may remove and free any of them from any
 * callback: one event is taken from the kernel at a time, so no stale one can be pending. There
 * is no periodic timer; with nothing armed the loop sleeps for ever.
 */
#ifndef WEFT_SUPERVISOR_LOOP_H
#define WEFT_SUPERVISOR_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

#define NS_PER_SECOND UINT64_C(1000000000)
#define NS_PER_MS     UINT64_C(1000000)

struct loop_source;
struct loop_timer;
typedef void (*loop_event_fn)(struct loop_source *s, uint32_t events);
typedef void (*loop_timer_fn)(struct loop_timer *t);

struct loop_source {
	int fd; /* borrowed; watched while `watched` */
	uint32_t events;
	bool watched;
	loop_event_fn fn;
};

struct loop_timer {
	uint64_t at_ns; /* CLOCK_MONOTONIC */
	bool armed;
	loop_timer_fn fn;
	struct loop_timer *next; /* by time; owned by the loop while armed */
};

struct loop {
	int epoll_fd;
	struct loop_timer *timers;
	bool stop;
	int exit_code;
};

uint64_t loop_now_ns(void);

int loop_init(struct loop *l);
void loop_fini(struct loop *l);
/* Until loop_stop(). Returns its code, or a negative errno when the kernel refuses. */
int loop_run(struct loop *l);
void loop_stop(struct loop *l, int code);

int loop_watch(struct loop *l, struct loop_source *s, int fd, uint32_t events, loop_event_fn fn);
/* Change the events of a watched source; no call when nothing changes. */
int loop_rewatch(struct loop *l, struct loop_source *s, uint32_t events);
/* Before the descriptor is closed. Unwatched sources are allowed. */
void loop_unwatch(struct loop *l, struct loop_source *s);

/* Arm (again) for a point in time. */
void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t at_ns, loop_timer_fn fn);
void loop_timer_clear(struct loop *l, struct loop_timer *t);

#endif
