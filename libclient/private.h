/* SPDX-License-Identifier: Apache-2.0 */
/*
 * private.h - what a session is made of, for libclient's own files.
 *
 *   struct weft ── link ──► struct link      one connection: socket, regions, slots, arena
 *        │                     ▲   ▲
 *        └─ requests ─► struct weft_request ── cur ─► struct attempt ─ prev ─► struct attempt
 *                                                     (this daemon)            (an earlier one)
 *
 * An attempt is a request as one daemon knows it: link, slot, generation. It never changes once it
 * is published through r->cur, so tokens are read without a lock. When a daemon goes away and the
 * request is submitted to the next one, a new attempt is put in front; the old one keeps its link,
 * and with it the old read-only mapping, until the request is freed.
 *
 * Locks: w->lock guards everything below that does not say otherwise, and every wshm_client_*
 * call that changes a ring. w->connect_lock is held by the one thread that reconnects; it is taken
 * before w->lock, never inside it. Neither is held while waiting for tokens. weft_probe() takes
 * none, unless there is no index to be read: see probe.c.
 */
#ifndef WEFT_LIBCLIENT_PRIVATE_H
#define WEFT_LIBCLIENT_PRIVATE_H

#include "libclient/arena.h"
#include "libclient/weft.h"
#include "shm/wshm.h"
#include "shm/wshm_control.h"
#include "shm/wshm_files.h"

#include <pthread.h>
#include <stdbool.h>

#define NS_PER_MS  INT64_C(1000000)
#define NS_PER_SEC INT64_C(1000000000)

enum link_slot_state { LINK_SLOT_FREE, LINK_SLOT_USED, LINK_SLOT_RELEASED };

struct link_slot {
	enum link_slot_state state;
	uint32_t generation;
	struct weft_request *request; /* borrowed; NULL unless USED */
	uint64_t off, bytes;	      /* in the tx arena; bytes 0: nothing held */
};

/* The index of a domain. The daemon may send another one; probes that are under way keep this one. */
struct index {
	struct wshm_idx_reader r;
	struct index *next_retired;
};

struct link {
	struct wshm_client c;
	int sock, wake_fd, bell_fd; /* owner; -1: closed */
	uint32_t refs;		    /* the session's and one per attempt */
	struct wctl_welcome welcome;
	struct arena arena;
	struct link_slot *slots;
	uint32_t *free_slots; /* owner; a stack */
	uint32_t *released;   /* owner; a ring, the oldest at released_head */
	uint32_t n_free, n_released, released_head;
	_Atomic(struct index *) index; /* owner; the domain's; replaced under the session's lock */
	struct index *retired_indexes; /* owner; guarded likewise */
	struct wshm_idx_reader public_idx;
	_Atomic uint32_t readers; /* epoch words of tx that some thread uses now, a bit each */
	struct link *next_retired;
};

struct attempt {
	struct attempt *prev;	   /* owner of the earlier ones */
	struct link *link;	   /* a reference */
	const struct wshm_slot *s; /* in link's rx */
	uint32_t slot, generation;
	uint32_t base[WSHM_MAX_SAMPLES]; /* tokens that earlier attempts had delivered */
};

struct weft_request {
	struct weft *w;
	struct weft_request *next, **pprev; /* the session's list */
	_Atomic(struct attempt *) cur;	    /* owner; written under w->lock */
	_Atomic int local_status;	    /* WEFT_RUNNING, or how libweft itself ended it */
	_Atomic bool cancelled;
	bool news;	       /* wait_any is to list it without a notice */
	bool any_listed;       /* any_progress is of the current attempt */
	uint32_t any_progress; /* progress when wait_any last listed it */
	_Atomic uint32_t resubmitted;
	uint32_t n, max_tokens, n_prompt;
	uint32_t logprobs, prompt_logprobs;
	uint32_t flags;
	int64_t deadline_ns;	      /* CLOCK_MONOTONIC; 0: none */
	struct wshm_slab_layout slab; /* what the engine must have laid out */
	/* weft_result() was asked in vain since, at this progress; 0: not yet */
	_Atomic int64_t polled_since_ns;
	_Atomic uint32_t polled_progress;
	/* The waiting thread's; with several of them each is right now and then. No order. */
	_Atomic int64_t last_news_ns, gap_ns;
	_Atomic int64_t quiet_since_ns; /* waited for in vain since; 0: it has just moved */
};

enum session_state { SESSION_UP, SESSION_DOWN, SESSION_DEAD };

struct weft {
	_Atomic uint32_t *fork_page; /* wiped in a child; [0] is 1 in the process that opened */
	uint32_t forks; /* there had been when it was opened, where these are counted */
	pthread_mutex_t lock, connect_lock;
	_Atomic int state;	     /* enum session_state; written under lock */
	_Atomic int end_status;	     /* enum weft_status, once DEAD */
	_Atomic(struct link *) link; /* a reference; written under lock */
	_Atomic uint32_t probing;    /* threads that read w->link without the lock */
	struct link *retired;	     /* references to those that such a thread may still read */
	struct weft_request *requests;
	uint32_t n_news;	 /* requests with .news */
	char *socket, *model;	 /* owner */
	struct wshm_files files; /* constant once it is there; see files.c for the rest */
	bool files_asked, files_unsound;
	uint32_t files_answers;	 /* so many have come */
	int files_code;		 /* of the last */
	struct wctl_hello hello; /* as asked at weft_open() */
	uint32_t flags, wait_ready_ms, reconnect_ms;
	int event_fd; /* epoll: bell, control socket, timer while down; -1: unused */
	int timer_fd; /* -1: unused */
	/* guarded by connect_lock */
	_Atomic(struct link *) joining; /* owner; a hello that is not answered yet; NULL: none */
	int64_t joining_by_ns;		/* is given up then */
	_Atomic int64_t down_since_ns, next_try_ns, backoff_ns;
	_Atomic int64_t last_check_ns, last_complaint_ns;
	_Atomic int64_t any_quiet_since_ns; /* wait_any was in vain since; 0: not */
};

/* error.c */
int wc_fail(struct weft_error *error, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* link.c: one connection */
int64_t wc_now_ns(void);
int wc_link_connect(const char *path, int64_t deadline_ns, int *ret_sock, struct weft_error *error);
int wc_link_begin(struct link **ret, const char *path, const struct wctl_hello *hello,
		  int64_t deadline_ns, struct weft_error *error);
int wc_link_finish(struct link *l, int64_t deadline_ns, struct weft_error *error);
int wc_link_open(struct link **ret, const char *path, const struct wctl_hello *hello,
		 int64_t deadline_ns, struct weft_error *error);
void wc_link_put(struct link *l); /* under lock; NULL allowed */
void wc_link_take_index(struct link *l, int fd);
void wc_link_put_indexes(struct link *l);
int wc_link_recv(int sock, void *buf, uint32_t bytes, int *fds, uint32_t *n_fds,
		 int64_t deadline_ns);
void wc_link_hang_up(struct link *l);
void wc_link_wake_engine(const struct link *l);
int wc_link_slot_get(struct link *l, struct weft_request *r, uint64_t bytes, uint32_t *ret_slot);
void wc_link_slot_cancel(struct link *l, uint32_t slot);
void wc_link_slot_put(struct link *l, uint32_t slot);
bool wc_link_has_released(const struct link *l);

/* session.c */
bool wc_session_forked(const struct weft *w);
int wc_session_check(struct weft *w, bool no_progress, int64_t until_ns);
int64_t wc_session_retry_in_ns(struct weft *w);
void wc_session_end(struct weft *w, enum weft_status status);
void wc_session_put_retired(struct weft *w);
void wc_session_down(struct weft *w);
void wc_session_listen(struct weft *w);

/* wait.c */
void wc_wait_polled(struct weft_request *r);

/* files.c */
void wc_files_answer(struct weft *w, int code, int fd);

/* probe.c */
void wc_probe_end(struct weft *w);

/* request.c */
void wc_request_resume_all(struct weft *w, struct link *to);
void wc_request_end_unwanted(struct weft *w);
uint64_t wc_request_bytes_needed(struct weft *w);
void wc_request_end_local(struct weft_request *r, enum weft_status status);
bool wc_request_ended(const struct weft_request *r);
const uint32_t *wc_request_tokens(const struct weft_request *r, uint32_t sample,
				  uint32_t *ret_count);
bool wc_request_sample_ended(const struct weft_request *r, uint32_t sample);

/* descriptor.c: pack into buf; bytes, or -E2BIG */
int wc_desc_pack(const struct wshm_desc *d, uint8_t *buf, uint32_t buf_bytes);
int wc_desc_from_options(struct wshm_desc *d, const struct weft_submit_options *o,
			 struct weft_error *error);

/* --- what the engine writes, as this attempt sees it ---------------------------------------------*/

/* FREE: not admitted yet; what stands in the slot is another request's. */
static inline uint32_t attempt_state(const struct attempt *a)
{
	if (wshm_slot_generation(a->s) != a->generation)
		return WSHM_SLOT_FREE;
	return wshm_slot_state(a->s);
}

/* WEFT_RUNNING, or how libweft itself ended the request. */
static inline int request_local_status(const struct weft_request *r)
{
	/* L2: pairs with L1 in wc_request_end_local() */
	return atomic_load_explicit(&r->local_status, memory_order_acquire);
}

#endif
