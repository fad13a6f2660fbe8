/* SPDX-License-Identifier: Apache-2.0 */
/*
 * link.c - one connection to a daemon: connect, hello, regions, request slots, arena.
 *
 * A link is made whole or not at all, and is never repaired: when the daemon goes away the session
 * makes a new one (session.c). Its mappings live until the last attempt that used it is gone. All
 * of it is guarded by the session's lock, but for the mappings themselves.
 *
 * Slots: the engine gives a slot back (state FREE under our generation) some time after we have
 * written `released`. Only then may its number and its bytes in the arena be used again, since an
 * engine that restarts reads them once more. Every slot is in use, in the ring of those released or
 * on the stack of free ones; the one used last is used next, with the same bytes, because its pages
 * are there and in the caches of both sides: the first touch of another page costs 15 us.
 */
#include "libclient/private.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

int64_t wc_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}

static int ms_left(int64_t deadline_ns)
{
	int64_t left = deadline_ns - wc_now_ns();

	if (left <= 0)
		return 0;
	return left / NS_PER_MS >= 3600000 ? 3600000 : (int)(left / NS_PER_MS) + 1;
}

/* --- connect and hello ---------------------------------------------------------------------------*/

int wc_link_connect(const char *path, int64_t deadline_ns, int *ret_sock, struct weft_error *error)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int sock, err;

	if (strlen(path) >= sizeof(addr.sun_path))
		return wc_fail(error, -ENAMETOOLONG,
			       "connect to %.128s: the path of a socket has "
			       "at most %zu bytes",
			       path, sizeof(addr.sun_path) - 1);
	strcpy(addr.sun_path, path);
	sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (sock < 0) {
		err = -errno;
		return wc_fail(error, err, "make a socket: %s", strerror(-err));
	}
	/* A full backlog shows as EAGAIN here; poll() does not tell when there is room. */
	while (connect(sock, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		err = -errno;
		if ((err == -EAGAIN || err == -EINTR) && ms_left(deadline_ns)) {
			nanosleep(&(struct timespec){.tv_nsec = 2 * NS_PER_MS}, NULL);
			continue;
		}
		close(sock);
		if (err == -EPROTOTYPE)
			return wc_fail(
				error, err,
				"connect to %s: that is another kind of socket; sessions are "
				"opened at weftd.sock (admin.sock beside it is for weft "
				"status, adapter and cache)",
				path);
		return wc_fail(error, err,
			       "connect to %s: %s; is weftd running, and may this "
			       "user use it?",
			       path, strerror(-err));
	}
	*ret_sock = sock;
	return 0;
}

/* wctl_recv() with a time limit; descriptors optional. */
int wc_link_recv(int sock, void *buf, uint32_t bytes, int *fds, uint32_t *n_fds,
		 int64_t deadline_ns)
{
	for (;;) {
		struct pollfd p = {.fd = sock, .events = POLLIN};
		uint32_t none = 0, *n = n_fds ? n_fds : &none, room = *n;
		int r = wctl_recv(sock, buf, bytes, fds, n);
		int ms;

		if (r != -EAGAIN && r != -EINTR)
			return r ? r : -ECONNRESET;
		*n = room;
		ms = ms_left(deadline_ns);
		if (!ms)
			return -ETIMEDOUT;
		poll(&p, 1, ms);
	}
}

static void close_fds(const int *fds, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		close(fds[i]);
}

/* Is it the welcome that we can use? */
static int welcome_check(const struct wctl_welcome *w, int bytes, uint32_t n_fds,
			 struct wshm_layout *layout, struct weft_error *error)
{
	if (w->head.type == WCTL_REFUSED && bytes == (int)sizeof(struct wctl_text)) {
		const struct wctl_text *t = (const void *)w;
		int code = t->head.code < 0 ? t->head.code : -ECONNREFUSED;

		return wc_fail(error, code, "the daemon refused the session: %.*s",
			       (int)sizeof(t->text) - 64, t->text);
	}
	if (w->head.type != WCTL_WELCOME || bytes != (int)sizeof(*w))
		return wc_fail(error, -EPROTO,
			       "the daemon's answer to the hello is not known "
			       "(type %u, %d bytes): libweft and weftd differ in version",
			       w->head.type, bytes);
	if (w->head.major != WSHM_MAJOR)
		return wc_fail(error, -EPROTO,
			       "the daemon speaks protocol %u, libweft %u: "
			       "install the same version of both",
			       w->head.major, WSHM_MAJOR);
	if (n_fds != WCTL_WELCOME_FDS)
		return wc_fail(error, -EPROTO, "the daemon sent %u descriptors instead of %u",
			       n_fds, WCTL_WELCOME_FDS);
	if (wshm_layout_init(layout, &w->params) < 0)
		return wc_fail(error, -EPROTO, "the daemon's region sizes are out of range");
	return 0;
}

static int hello(int sock, const struct wctl_hello *h, struct weft_error *error)
{
	int r = wctl_send(sock, h, sizeof(*h), NULL, 0);

	/* A daemon that refuses at once may have hung up before it read our hello. */
	if (r < 0 && r != -EPIPE)
		return wc_fail(error, r, "say hello to the daemon: %s", strerror(-r));
	return 0;
}

/* Receive the answer; fds: see WCTL_WELCOME. */
static int hello_answer(int sock, int64_t deadline_ns, struct wctl_welcome *welcome,
			struct wshm_layout *layout, int fds[WCTL_WELCOME_FDS],
			struct weft_error *error)
{
	union {
		struct wctl_welcome welcome;
		struct wctl_text text;
	} m;
	int all[WCTL_MAX_FDS];
	uint32_t n_fds = WCTL_MAX_FDS;
	int r;

	memset(&m, 0, sizeof(m));
	r = wc_link_recv(sock, &m, sizeof(m), all, &n_fds, deadline_ns);
	if (r == -ETIMEDOUT)
		return wc_fail(error, r,
			       "wait for the daemon's answer to the hello: none came; weftd "
			       "listens and is stuck or stopped, see its log");
	if (r < 0)
		return wc_fail(error, r, "wait for the daemon's answer to the hello: %s",
			       strerror(-r));
	r = welcome_check(&m.welcome, r, n_fds, layout, error);
	if (r < 0) {
		close_fds(all, n_fds);
		return r;
	}
	memcpy(fds, all, WCTL_WELCOME_FDS * sizeof(*fds));
	*welcome = m.welcome;
	return 0;
}

/* --- regions -------------------------------------------------------------------------------------*/

static int regions_open(struct link *l, const struct wshm_layout *layout, int tx_fd, int rx_fd,
			struct weft_error *error)
{
	int r = wshm_region_check(tx_fd, layout->tx_bytes);

	if (r < 0)
		return wc_fail(error, r,
			       "the daemon's tx region is not of the agreed size or not "
			       "sealed; not mapped");
	r = wshm_region_check(rx_fd, layout->rx_bytes);
	if (r < 0)
		return wc_fail(error, r,
			       "the daemon's rx region is not of the agreed size or not "
			       "sealed; not mapped");
	r = wshm_client_open(&l->c, layout, tx_fd, rx_fd);
	if (r < 0)
		return wc_fail(error, r, "map the session's regions: %s", strerror(-r));
	/* A child never writes here, and must not keep these pages alive. */
	madvise(l->c.tx, layout->tx_bytes, MADV_DONTFORK);
	return 0;
}

static int index_open(struct index **ret, int fd)
{
	struct index *x = calloc(1, sizeof(*x));
	int r = x ? wshm_idx_reader_open(&x->r, fd) : -ENOMEM;

	if (r < 0)
		free(x);
	else
		*ret = x;
	return r;
}

static void index_close(struct index *x)
{
	if (!x)
		return;
	wshm_idx_reader_close(&x->r);
	free(x);
}

/* Under the session's lock: the daemon has sent another index, for the old one shows nothing any more. The
 * descriptor is taken over. If it cannot be mapped probes go on saying that nothing is known. */
void wc_link_take_index(struct link *l, int fd)
{
	struct index *was = atomic_load_explicit(&l->index, memory_order_relaxed), *x;
	int r = index_open(&x, fd);

	close(fd);
	if (r < 0)
		return;
	/* D8: pairs with D9 in index_of() */
	atomic_store_explicit(&l->index, x, memory_order_seq_cst);
	was->next_retired = l->retired_indexes;
	l->retired_indexes = was;
}

/* Under the session's lock, when nobody probes; or nobody has the link any more. */
void wc_link_put_indexes(struct link *l)
{
	while (l->retired_indexes) {
		struct index *x = l->retired_indexes;

		l->retired_indexes = x->next_retired;
		index_close(x);
	}
}

static int indexes_open(struct link *l, const int fds[2], struct weft_error *error)
{
	struct index *x = NULL;
	int r = index_open(&x, fds[0]);

	if (!r)
		atomic_init(&l->index, x);
	if (!r)
		r = wshm_idx_reader_open(&l->public_idx, fds[1]);
	if (r == -ENOMEM)
		return wc_fail(error, r, "out of memory for an index");
	if (r < 0)
		return wc_fail(error, r,
			       "the daemon's index is not of the known size, not sealed, or of "
			       "another version; not mapped");
	return 0;
}

/* Generations start anywhere: a mistake that relies on small ones shows at once. */
static int slots_init(struct link *l, struct weft_error *error)
{
	uint32_t n = l->c.layout.params.slots;

	l->slots = calloc(n, sizeof(*l->slots));
	l->free_slots = calloc(n, sizeof(*l->free_slots));
	l->released = calloc(n, sizeof(*l->released));
	if (!l->slots || !l->free_slots || !l->released ||
	    wc_arena_init(&l->arena, l->c.layout.params.tx_arena_bytes, n) < 0)
		return wc_fail(error, -ENOMEM, "out of memory for %u request slots", n);
	while (l->n_free < n) {
		l->free_slots[l->n_free] = n - 1 - l->n_free;
		l->n_free++;
	}
	for (uint32_t i = 0; i < n; i++)
		if (getrandom(&l->slots[i].generation, sizeof(uint32_t), GRND_NONBLOCK) < 0)
			l->slots[i].generation = (uint32_t)wc_now_ns() + i;
	return 0;
}

/* Connect and say hello; wc_link_finish() makes a link of it. */
int wc_link_begin(struct link **ret, const char *path, const struct wctl_hello *h,
		  int64_t deadline_ns, struct weft_error *error)
{
	struct link *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return wc_fail(error, -ENOMEM, "out of memory for a session");
	l->refs = 1;
	l->sock = l->wake_fd = l->bell_fd = -1;
	r = wc_link_connect(path, deadline_ns, &l->sock, error);
	if (!r)
		r = hello(l->sock, h, error);
	if (r < 0) {
		wc_link_put(l);
		return r;
	}
	*ret = l;
	return 0;
}

/* Wait for the answer. After -ETIMEDOUT it can be waited for again; any other error is the end of it. */
int wc_link_finish(struct link *l, int64_t deadline_ns, struct weft_error *error)
{
	int fds[WCTL_WELCOME_FDS] = {-1, -1, -1, -1, -1, -1};
	struct wshm_layout layout;
	int r = hello_answer(l->sock, deadline_ns, &l->welcome, &layout, fds, error);

	if (r < 0)
		return r;
	l->wake_fd = fds[2];
	l->bell_fd = fds[3];
	r = regions_open(l, &layout, fds[0], fds[1], error);
	close_fds(fds, 2);
	if (!r)
		r = indexes_open(l, &fds[4], error);
	close_fds(&fds[4], 2);
	if (!r)
		r = slots_init(l, error);
	return r;
}

int wc_link_open(struct link **ret, const char *path, const struct wctl_hello *h,
		 int64_t deadline_ns, struct weft_error *error)
{
	struct link *l;
	int r = wc_link_begin(&l, path, h, deadline_ns, error);

	if (r < 0)
		return r;
	r = wc_link_finish(l, deadline_ns, error);
	if (r < 0)
		wc_link_put(l);
	else
		*ret = l;
	return r;
}

void wc_link_hang_up(struct link *l)
{
	int *fds[] = {&l->sock, &l->wake_fd, &l->bell_fd};

	for (uint32_t i = 0; i < 3; i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
}

void wc_link_put(struct link *l)
{
	if (!l || --l->refs)
		return;
	wc_link_hang_up(l);
	wshm_client_close(&l->c);
	wc_link_put_indexes(l);
	index_close(atomic_load_explicit(&l->index, memory_order_relaxed));
	wshm_idx_reader_close(&l->public_idx);
	wc_arena_fini(&l->arena);
	free(l->released);
	free(l->free_slots);
	free(l->slots);
	free(l);
}

void wc_link_wake_engine(const struct link *l)
{
	uint64_t one = 1;

	/* EAGAIN: the counter is full, so the engine has been told already. */
	if (write(l->wake_fd, &one, sizeof(one)) < 0)
		return;
}

/* --- slots ---------------------------------------------------------------------------------------*/

/* Is the engine done with a released slot? */
static bool is_back(const struct link *l, uint32_t slot)
{
	const struct wshm_slot *rx = wshm_client_slot(&l->c, slot);

	return wshm_slot_generation(rx) == l->slots[slot].generation &&
	       wshm_slot_state(rx) == WSHM_SLOT_FREE;
}

static void slot_free(struct link *l, uint32_t slot)
{
	struct link_slot *s = &l->slots[slot];

	wc_arena_put(&l->arena, s->off, s->bytes);
	s->bytes = 0;
	s->request = NULL;
	s->state = LINK_SLOT_FREE;
	l->free_slots[l->n_free++] = slot;
}

static uint32_t *released_at(struct link *l, uint32_t i)
{
	return &l->released[(l->released_head + i) % l->c.layout.params.slots];
}

/* Take back what the engine has given back, up to the first that it has not; all: and behind that. */
static void reclaim(struct link *l, bool all)
{
	uint32_t kept = 0, n = l->n_released;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t slot = *released_at(l, i);

		if (is_back(l, slot)) {
			slot_free(l, slot);
			continue;
		}
		if (!all) {
			l->released_head = (l->released_head + i) % l->c.layout.params.slots;
			l->n_released -= i;
			return;
		}
		*released_at(l, kept++) = slot;
	}
	l->n_released = kept;
}

bool wc_link_has_released(const struct link *l)
{
	return l->n_released;
}

/* A free slot with `bytes` of the arena. 0; -EAGAIN; -ENOSPC when they can never fit. */
int wc_link_slot_get(struct link *l, struct weft_request *r, uint64_t bytes, uint32_t *ret_slot)
{
	struct link_slot *s;
	uint64_t off;

	if (bytes > l->c.layout.params.tx_arena_bytes)
		return -ENOSPC;
	reclaim(l, false);
	if (!l->n_free || wc_arena_get(&l->arena, bytes, &off) < 0) {
		reclaim(l, true);
		if (!l->n_free || wc_arena_get(&l->arena, bytes, &off) < 0)
			return -EAGAIN;
	}
	*ret_slot = l->free_slots[--l->n_free];
	s = &l->slots[*ret_slot];
	s->off = off;
	s->bytes = bytes;
	s->request = r;
	s->state = LINK_SLOT_USED;
	if (!++s->generation)
		s->generation = 1; /* 0 stands for "none" in both regions */
	return 0;
}

/* Undo wc_link_slot_get() for a request that was not submitted. */
void wc_link_slot_cancel(struct link *l, uint32_t slot)
{
	slot_free(l, slot);
}

/* Give a slot back to the engine. */
void wc_link_slot_put(struct link *l, uint32_t slot)
{
	struct link_slot *s = &l->slots[slot];

	s->request = NULL;
	s->state = LINK_SLOT_RELEASED;
	*released_at(l, l->n_released++) = slot;
	if (wshm_client_release(&l->c, slot, s->generation) == 1)
		wc_link_wake_engine(l);
}
