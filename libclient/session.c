/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.c - open, close, models; and what happens when the daemon goes away.
 *
 *   UP ── hang-up, BYE ──► DOWN ── hello answered ──► UP
 *    │                      │
 *    └─ protocol, ENDED     └─ reconnect_ms passed, refused for good ──► DEAD
 *
 * Nobody watches the control socket in the background: whichever thread waits for tokens, or asks for
 * results in vain, looks at it once a second (wc_session_check()), and at once when the engine says in
 * rx that weftd is gone, which wakes all who wait. While the session is DOWN each call is at most one
 * attempt to connect, and there is one at the end of reconnect_ms. A caller's own time limit holds: a
 * hello that is not answered within it goes on being waited for by the next call, until HELLO_NS have
 * passed since it was said. The new daemon takes its lock
 * only once the old engine is gone; so when its welcome is here, nobody writes to the old rx any more,
 * and what the requests have received can be counted.
 *
 * fork(): one page is wiped in children by the kernel. A child must not touch the socket, the
 * regions or the locks (their holder may not exist there), so every call looks at that page first.
 */
#include "libclient/private.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_SOCKET	     "/run/weft/weftd.sock"
#define DEFAULT_WAIT_MS	     120000
#define DEFAULT_RECONNECT_MS 60000
#define HELLO_NS	     (5 * NS_PER_SEC)  /* a daemon answers at once, or is stuck */
#define OPEN_HELLO_NS	     (30 * NS_PER_SEC) /* the same, when nothing else can be tried */
#define LAST_HELLO_NS	     NS_PER_SEC	       /* the last attempt's, when the time is over */
#define LOOK_NS		     (10 * NS_PER_MS)  /* has another thread had an answer? */
#define BACKOFF_MIN_NS	     (10 * NS_PER_MS)
#define BACKOFF_MAX_NS	     (200 * NS_PER_MS) /* who waits for tokens feels it */
#define COMPLAINT_NS	     (2 * NS_PER_SEC)  /* the daemon limits the rate too */

/* --- fork ----------------------------------------------------------------------------------------*/

/* A kernel that wipes no page (gVisor's refuses to) leaves fork() to count; children that are made in
 * another way are not told there. */
static _Atomic uint32_t forks;
static pthread_once_t counting = PTHREAD_ONCE_INIT;
static int not_counted; /* why, or 0 */

static void count_fork(void)
{
	atomic_fetch_add_explicit(&forks, 1, memory_order_relaxed);
}

static void count_forks(void)
{
	not_counted = -pthread_atfork(NULL, NULL, count_fork);
}

static int fork_page_new(struct weft *w)
{
	void *p = mmap(NULL, WSHM_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int err = 0;

	if (p == MAP_FAILED)
		return -errno;
	if (madvise(p, WSHM_PAGE, MADV_WIPEONFORK) < 0) {
		pthread_once(&counting, count_forks);
		err = not_counted;
	}
	if (err) {
		munmap(p, WSHM_PAGE);
		return err;
	}
	w->forks = atomic_load_explicit(&forks, memory_order_relaxed);
	w->fork_page = p;
	atomic_store_explicit(w->fork_page, 1, memory_order_relaxed);
	return 0;
}

bool wc_session_forked(const struct weft *w)
{
	return !atomic_load_explicit(w->fork_page, memory_order_relaxed) ||
	       atomic_load_explicit(&forks, memory_order_relaxed) != w->forks;
}

/* --- event descriptor ----------------------------------------------------------------------------*/

static void event_watch(struct weft *w, int fd)
{
	struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};

	if (w->event_fd >= 0 && fd >= 0)
		epoll_ctl(w->event_fd, EPOLL_CTL_ADD, fd, &e);
}

/* While the session is down, the descriptor becomes readable when it is time to connect again. */
static void event_timer(struct weft *w, int64_t in_ns)
{
	struct itimerspec t = {.it_value = {in_ns / NS_PER_SEC, in_ns % NS_PER_SEC}};

	if (w->timer_fd >= 0)
		timerfd_settime(w->timer_fd, 0, &t, NULL);
}

/*
 * An epoll descriptor, because bell and socket are other ones after the daemon has restarted, and
 * the program must not notice.
 */
int weft_event_fd(struct weft *w)
{
	struct link *l;
	int fd;

	if (wc_session_forked(w))
		return -EOWNERDEAD;
	pthread_mutex_lock(&w->lock);
	if (w->event_fd < 0) {
		w->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
		fd = epoll_create1(EPOLL_CLOEXEC);
		if (fd < 0 || w->timer_fd < 0) {
			int err = -errno;

			if (fd >= 0)
				close(fd);
			if (w->timer_fd >= 0)
				close(w->timer_fd);
			w->timer_fd = -1;
			pthread_mutex_unlock(&w->lock);
			return err;
		}
		w->event_fd = fd;
		l = atomic_load_explicit(&w->link, memory_order_relaxed);
		event_watch(w, w->timer_fd);
		event_watch(w, l->bell_fd);
		event_watch(w, l->sock);
		if (w->state != SESSION_UP)
			event_timer(w, 1);
	}
	fd = w->event_fd;
	pthread_mutex_unlock(&w->lock);
	return fd;
}

/* --- losing and finding the daemon ---------------------------------------------------------------*/

/* Under the lock: the session is over for good. */
void wc_session_end(struct weft *w, enum weft_status status)
{
	if (w->state == SESSION_DEAD)
		return;
	atomic_store(&w->end_status, status);
	atomic_store(&w->state, SESSION_DEAD);
	for (struct weft_request *r = w->requests; r; r = r->next)
		wc_request_end_local(r, status);
	event_timer(w, 1);
}

/* Under the lock. */
void wc_session_down(struct weft *w)
{
	wc_link_hang_up(w->link);
	w->files_asked = false; /* nobody will answer */
	w->down_since_ns = wc_now_ns();
	w->next_try_ns = w->down_since_ns;
	w->backoff_ns = BACKOFF_MIN_NS;
	atomic_store(&w->state, SESSION_DOWN);
	wc_request_end_unwanted(w);
	event_timer(w, 1);
}

/* Under the lock: read what the daemon has to say. */
void wc_session_listen(struct weft *w)
{
	struct link *l = w->link;
	union {
		struct wctl_head head;
		struct wctl_text text;
		struct wctl_models models;
	} m;
	int r;

	do {
		uint32_t n_fds = 1;
		int fd = -1;

		r = wctl_recv(l->sock, &m, sizeof(m), &fd, &n_fds);
		if (r > 0 && m.head.type == WCTL_FILE_SET)
			wc_files_answer(w, m.head.code, fd);
		else if (r > 0 && m.head.type == WCTL_DOMAIN && fd >= 0)
			wc_link_take_index(l, fd);
		else if (fd >= 0)
			close(fd);
		/* It had a descriptor for which this process has no room. */
		if (r == -EMFILE && m.head.type == WCTL_FILE_SET)
			wc_files_answer(w, r, -1);
		if (r > 0 && m.head.type == WCTL_BYE && m.head.code == -EPROTO) {
			wc_session_end(w, WEFT_PROTOCOL);
			return;
		}
	} while (r == -EMFILE || (r > 0 && m.head.type != WCTL_BYE));
	wc_session_put_retired(w);
	if (r != -EAGAIN && r != -EINTR)
		wc_session_down(w);
}

static int check_up(struct weft *w, bool no_progress)
{
	const struct wshm_rx_ctl *ctl;
	struct wctl_head complaint;
	int64_t now = wc_now_ns();

	pthread_mutex_lock(&w->lock);
	if (w->state == SESSION_UP) {
		ctl = wshm_client_rx_ctl(&w->link->c);
		if (wshm_rx_engine_state(ctl) == WSHM_ENGINE_ENDED)
			wc_session_end(w, (enum weft_status)atomic_load(&ctl->end_status));
		else if (wshm_rx_engine_state(ctl) == WSHM_ENGINE_ORPHANED)
			wc_session_down(w); /* whatever else still holds the socket */
		else
			wc_session_listen(w);
	}
	if (w->state == SESSION_UP && no_progress && now - w->last_complaint_ns >= COMPLAINT_NS) {
		w->last_complaint_ns = now;
		wctl_head_init(&complaint, WCTL_COMPLAIN, sizeof(complaint), 0);
		wctl_send(w->link->sock, &complaint, sizeof(complaint), NULL, 0);
	}
	w->last_check_ns = now;
	wc_session_put_retired(w);
	pthread_mutex_unlock(&w->lock);
	return w->state == SESSION_DEAD ? -ECONNRESET : 0;
}

/* Under the lock: links and indexes that were replaced go, unless some thread may still probe them; then the
 * next one who looks after the session tries again. */
void wc_session_put_retired(struct weft *w)
{
	if (!w->retired && !w->link->retired_indexes)
		return;
	/* D4: pairs with D1 in probe_begin() and D5 in wc_probe_end(): whoever probes and is not
	 * counted here sees what has replaced these. */
	if (atomic_load_explicit(&w->probing, memory_order_seq_cst))
		return;
	wc_link_put_indexes(w->link);
	while (w->retired) {
		struct link *l = w->retired;

		w->retired = l->next_retired;
		wc_link_put(l);
	}
}

/* Under connect_lock and the session's lock: go on with the new daemon. */
static void session_adopt(struct weft *w, struct link *to)
{
	struct link *from = w->link;

	/* A daemon whose engine is still loading knows nothing of the model but its name. */
	if (!to->welcome.model.vocab)
		to->welcome.model = from->welcome.model;
	/* D3: pairs with D2 in probe_begin() */
	atomic_store_explicit(&w->link, to, memory_order_seq_cst);
	atomic_store(&w->state, SESSION_UP);
	event_watch(w, to->bell_fd);
	event_watch(w, to->sock);
	event_timer(w, 1); /* a program asleep on the descriptor arms the new bell */
	wc_request_resume_all(w, to);
	from->next_retired = w->retired;
	w->retired = from;
	wc_session_put_retired(w);
}

/* Will another attempt be refused in the same way? */
static bool refused_for_good(int err)
{
	return err == -EPROTO || err == -EACCES || err == -EPERM || err == -ENODEV ||
	       err == -EOPNOTSUPP;
}

/* Under connect_lock: when reconnect_ms are over. */
static int64_t reconnect_end(const struct weft *w)
{
	return w->down_since_ns + w->reconnect_ms * NS_PER_MS;
}

/* Under connect_lock: say hello, with room for what is to be submitted again. */
static int join_begin(struct weft *w, int64_t until_ns)
{
	struct wctl_hello h = w->hello;
	struct wshm_params *p;
	int64_t now, last;
	struct link *to;
	uint64_t need;
	int err;

	pthread_mutex_lock(&w->lock);
	p = &w->link->c.layout.params;
	need = (wc_request_bytes_needed(w) + WSHM_PAGE - 1) / WSHM_PAGE * WSHM_PAGE;
	h.slots = p->slots;
	h.tx_arena_bytes = need > p->tx_arena_bytes ? need : p->tx_arena_bytes;
	h.rx_arena_bytes = p->rx_arena_bytes;
	pthread_mutex_unlock(&w->lock);
	err = wc_link_begin(&to, w->socket, &h, until_ns, NULL);
	if (err)
		return err;
	now = wc_now_ns();
	last = reconnect_end(w);
	w->joining_by_ns = now + HELLO_NS;
	if (w->joining_by_ns > last)
		w->joining_by_ns = last > now + LAST_HELLO_NS ? last : now + LAST_HELLO_NS;
	atomic_store(&w->joining, to);
	return 0;
}

/* Who has an event loop comes back when there is an answer, or there will be none. */
static void join_watch(struct weft *w, const struct link *to)
{
	int64_t left = w->joining_by_ns - wc_now_ns();

	pthread_mutex_lock(&w->lock);
	event_watch(w, to->sock);
	event_timer(w, left > 0 ? left : 1);
	pthread_mutex_unlock(&w->lock);
}

/* Under connect_lock: one attempt, or a while more of the one that is under way. */
static void reconnect_once(struct weft *w, int64_t until_ns)
{
	int err = w->joining ? 0 : join_begin(w, until_ns);
	struct link *to = w->joining;

	if (to) {
		err = wc_link_finish(to, until_ns < w->joining_by_ns ? until_ns : w->joining_by_ns,
				     NULL);
		if (err == -ETIMEDOUT && wc_now_ns() < w->joining_by_ns) {
			join_watch(w, to);
			return;
		}
		atomic_store(&w->joining, NULL);
		if (err)
			wc_link_put(to);
	}
	pthread_mutex_lock(&w->lock);
	if (!err) {
		session_adopt(w, to);
	} else if (refused_for_good(err)) {
		wc_session_end(w, WEFT_LOST);
	} else {
		int64_t now = wc_now_ns(), last = reconnect_end(w);

		w->next_try_ns = now + w->backoff_ns;
		if (w->next_try_ns > last)
			w->next_try_ns = last;
		event_timer(w, w->next_try_ns > now ? w->next_try_ns - now : 1);
		w->backoff_ns =
			w->backoff_ns * 2 < BACKOFF_MAX_NS ? w->backoff_ns * 2 : BACKOFF_MAX_NS;
	}
	pthread_mutex_unlock(&w->lock);
}

static int check_down(struct weft *w, int64_t until_ns)
{
	int64_t now = wc_now_ns();

	if (pthread_mutex_trylock(&w->connect_lock))
		return 0; /* another thread is at it */
	if (w->state == SESSION_DOWN && (w->joining || now >= w->next_try_ns)) {
		reconnect_once(w, until_ns);
		pthread_mutex_lock(&w->lock);
		if (w->state == SESSION_DOWN && !w->joining && wc_now_ns() >= reconnect_end(w))
			wc_session_end(w, WEFT_LOST);
		pthread_mutex_unlock(&w->lock);
	}
	pthread_mutex_unlock(&w->connect_lock);
	return w->state == SESSION_DEAD ? -ECONNRESET : 0;
}

/*
 * Look after the session: 0, or -ECONNRESET when it is over. no_progress: the caller has seen
 * nothing for a while, so the daemon is asked to look at its engine. until_ns: how long the caller can
 * wait for a daemon that has been said hello to; 0: only look.
 */
int wc_session_check(struct weft *w, bool no_progress, int64_t until_ns)
{
	switch (atomic_load(&w->state)) {
	case SESSION_UP:
		if (check_up(w, no_progress) < 0)
			return -ECONNRESET;
		return w->state == SESSION_DOWN ? check_down(w, until_ns) : 0;
	case SESSION_DOWN:
		return check_down(w, until_ns);
	default:
		return -ECONNRESET;
	}
}

/* How long to sleep before the next wc_session_check() of a session that is down. */
int64_t wc_session_retry_in_ns(struct weft *w)
{
	int64_t in = w->next_try_ns - wc_now_ns();

	if (atomic_load(&w->joining))
		return LOOK_NS;
	/* The figure may be stale (another thread is connecting): stay within sane bounds. */
	return in < NS_PER_MS ? NS_PER_MS : in > BACKOFF_MAX_NS ? BACKOFF_MAX_NS : in;
}

/* --- models --------------------------------------------------------------------------------------*/

static void model_convert(struct weft_model *to, const struct wctl_model *from)
{
	static_assert(sizeof(to->name) == sizeof(from->name), "names fit");
	static_assert(sizeof(to->eos) == sizeof(from->eos), "end tokens fit");
	memset(to, 0, sizeof(*to));
	memcpy(to->name, from->name, sizeof(to->name) - 1);
	memcpy(to->type, from->type, sizeof(to->type) - 1);
	to->vocab = from->vocab;
	to->max_positions = from->max_positions;
	to->n_eos = from->n_eos <= WCTL_MAX_EOS ? from->n_eos : WCTL_MAX_EOS;
	memcpy(to->eos, from->eos, sizeof(to->eos));
	to->bos = from->bos;
	to->ready = from->ready;
	to->failed = from->failed;
	to->weight_bytes = from->weight_bytes;
}

/* What came with a message, before there is a session; l may be NULL. */
static void take_descriptor(struct link *l, const struct wctl_head *m, int fd)
{
	if (l && m->type == WCTL_DOMAIN)
		wc_link_take_index(l, fd);
	else
		close(fd);
}

/* l: the link of this socket, NULL: none yet. */
static int models_ask(int sock, struct link *l, struct wctl_models *m, int64_t deadline_ns,
		      struct weft_error *error)
{
	struct wctl_head ask;
	int r;

	wctl_head_init(&ask, WCTL_MODELS, sizeof(ask), 0);
	r = wctl_send(sock, &ask, sizeof(ask), NULL, 0);
	while (r >= 0) {
		uint32_t n_fds = 1;
		int fd = -1;

		r = wc_link_recv(sock, m, sizeof(*m), &fd, &n_fds, deadline_ns);
		if (r > 0 && fd >= 0)
			take_descriptor(l, &m->head, fd);
		if (r > 0 && m->head.type != WCTL_DOMAIN)
			break;
	}
	if (r < 0)
		return wc_fail(error, r, "ask the daemon for its models: %s", strerror(-r));
	if (m->head.type != WCTL_MODEL_LIST || r != (int)sizeof(*m) || m->n > WCTL_MAX_MODELS)
		return wc_fail(error, -EPROTO,
			       "ask the daemon for its models: its answer is not "
			       "known (type %u); libweft and weftd differ in version",
			       m->head.type);
	return 0;
}

static const char *socket_path(const char *given)
{
	const char *env = getenv("WEFT_SOCKET");

	return given ? given : env && *env ? env : DEFAULT_SOCKET;
}

int weft_models(const char *socket, struct weft_model *ret, uint32_t max, struct weft_error *error)
{
	int64_t deadline = wc_now_ns() + HELLO_NS;
	struct wctl_models *m = calloc(1, sizeof(*m));
	int sock, r;

	if (!m)
		return wc_fail(error, -ENOMEM, "out of memory");
	r = wc_link_connect(socket_path(socket), deadline, &sock, error);
	if (r < 0)
		goto out;
	r = models_ask(sock, NULL, m, deadline, error);
	close(sock);
	if (r < 0)
		goto out;
	for (uint32_t i = 0; i < m->n && i < max; i++)
		model_convert(&ret[i], &m->models[i]);
	r = (int)m->n;
out:
	free(m);
	return r;
}

int weft_model_info(struct weft *w, struct weft_model *ret)
{
	if (wc_session_forked(w))
		return -EOWNERDEAD;
	pthread_mutex_lock(&w->lock);
	model_convert(ret, &w->link->welcome.model);
	pthread_mutex_unlock(&w->lock);
	return 0;
}

/* --- open and close ------------------------------------------------------------------------------*/

/* Sleep on the socket, where a refusal or a hang-up would show, until rx says that the engine runs. */
static int wait_ready(struct link *l, int64_t deadline_ns, struct weft_error *error)
{
	const struct wshm_rx_ctl *ctl = wshm_client_rx_ctl(&l->c);
	struct wctl_text t;
	int ms = 1;

	for (;;) {
		struct pollfd p = {.fd = l->sock, .events = POLLIN};
		uint32_t n_fds = 1, state = wshm_rx_engine_state(ctl);
		int r, fd = -1;

		if (state == WSHM_ENGINE_RUNNING || state == WSHM_ENGINE_DRAINING)
			return 0;
		if (state == WSHM_ENGINE_ENDED)
			return wc_fail(error, -ECONNRESET,
				       "the daemon ended the session while "
				       "the model was loading");
		r = wctl_recv(l->sock, &t, sizeof(t), &fd, &n_fds);
		if (fd >= 0)
			take_descriptor(l, &t.head, fd);
		if (r == (int)sizeof(t) && t.head.type == WCTL_BYE)
			return wc_fail(error, t.head.code ? t.head.code : -ECONNRESET,
				       "the daemon ended the session: %.*s", 180, t.text);
		if (r <= 0 && r != -EAGAIN && r != -EINTR)
			return wc_fail(error, -ECONNRESET,
				       "the daemon hung up while the model was "
				       "loading; see its log");
		if (wc_now_ns() >= deadline_ns)
			return wc_fail(error, -ETIMEDOUT,
				       "the model %s is not loaded yet; wait "
				       "longer, or see the daemon's log",
				       l->welcome.model.name);
		poll(&p, 1, ms);
		ms = ms < 10 ? ms + 1 : 10;
	}
}

/* The welcome may have come before the model's figures were known. */
static int learn_model(struct link *l, int64_t deadline_ns, struct weft_error *error)
{
	struct wctl_models *m;
	int r;

	if (l->welcome.model.ready)
		return 0;
	m = calloc(1, sizeof(*m));
	if (!m)
		return wc_fail(error, -ENOMEM, "out of memory");
	r = models_ask(l->sock, l, m, deadline_ns, error);
	for (uint32_t i = 0; r >= 0 && i < m->n; i++)
		if (!memcmp(m->models[i].name, l->welcome.model.name, WCTL_NAME_BYTES))
			l->welcome.model = m->models[i];
	free(m);
	return r;
}

static int hello_init(struct weft *w, const struct weft_open_options *o, struct weft_error *error)
{
	struct wctl_hello *h = &w->hello;
	uint64_t page = WSHM_PAGE - 1;

	wctl_head_init(&h->head, WCTL_HELLO, sizeof(*h), 0);
	h->head.major = WSHM_MAJOR;
	h->minor = WSHM_MINOR;
	h->features = WCTL_FEATURE_DOMAIN;
	h->slots = 0;
	for (uint32_t n = 1; o->slots && !h->slots && n <= WSHM_MAX_SLOTS; n *= 2)
		if (n >= o->slots)
			h->slots = n;
	if (o->slots && !h->slots)
		return wc_fail(error, -EINVAL, "open a session: %u slots; at most %u", o->slots,
			       WSHM_MAX_SLOTS);
	if (o->prompt_bytes > WSHM_MAX_ARENA || o->result_bytes > WSHM_MAX_ARENA)
		return wc_fail(error, -EINVAL,
			       "open a session: prompt_bytes and result_bytes may "
			       "be at most %llu",
			       (unsigned long long)WSHM_MAX_ARENA);
	h->tx_arena_bytes = (o->prompt_bytes + page) & ~page;
	h->rx_arena_bytes = (o->result_bytes + page) & ~page;
	if (w->model && strlen(w->model) >= sizeof(h->model))
		return wc_fail(error, -EINVAL,
			       "open a session: the model's name is longer than "
			       "%zu bytes",
			       sizeof(h->model) - 1);
	if (w->model)
		strcpy(h->model, w->model);
	return 0;
}

static void session_free(struct weft *w)
{
	if (w->event_fd >= 0)
		close(w->event_fd);
	if (w->timer_fd >= 0)
		close(w->timer_fd);
	if (w->fork_page)
		munmap(w->fork_page, WSHM_PAGE);
	pthread_mutex_destroy(&w->connect_lock);
	pthread_mutex_destroy(&w->lock);
	wshm_files_close(&w->files);
	free(w->socket);
	free(w->model);
	free(w);
}

static struct weft *session_new(const struct weft_open_options *o, struct weft_error *error)
{
	struct weft *w = calloc(1, sizeof(*w));
	int err;

	if (!w) {
		wc_fail(error, -ENOMEM, "out of memory for a session");
		return NULL;
	}
	pthread_mutex_init(&w->lock, NULL);
	pthread_mutex_init(&w->connect_lock, NULL);
	w->event_fd = w->timer_fd = -1;
	w->flags = o->flags;
	w->wait_ready_ms = o->wait_ready_ms ? o->wait_ready_ms : DEFAULT_WAIT_MS;
	w->reconnect_ms = o->reconnect_ms ? o->reconnect_ms : DEFAULT_RECONNECT_MS;
	w->socket = strdup(socket_path(o->socket));
	w->model = o->model ? strdup(o->model) : NULL;
	err = !w->socket || (o->model && !w->model) ? -ENOMEM : fork_page_new(w);
	if (err < 0) {
		wc_fail(error, err, "prepare a session: %s", strerror(-err));
		session_free(w);
		return NULL;
	}
	return w;
}

int weft_open(struct weft **ret, const struct weft_open_options *options, struct weft_error *error)
{
	struct weft_open_options defaults = WEFT_OPEN_OPTIONS_INIT;
	const struct weft_open_options *o = options ? options : &defaults;
	int64_t deadline, hello_by;
	struct link *l = NULL;
	struct weft *w;
	int err;

	if (o->size != sizeof(*o))
		return wc_fail(error, -EINVAL,
			       "open a session: options of %zu bytes, libweft %s "
			       "knows %zu",
			       o->size, WEFT_VERSION, sizeof(*o));
	w = session_new(o, error);
	if (!w)
		return error && error->code ? error->code : -ENOMEM;
	deadline = wc_now_ns() + w->wait_ready_ms * NS_PER_MS;
	/* Models take their time to load, an answer takes none; who sets a limit means both. */
	hello_by = o->wait_ready_ms ? deadline : wc_now_ns() + OPEN_HELLO_NS;
	err = hello_init(w, o, error);
	if (!err)
		err = wc_link_open(&l, w->socket, &w->hello, hello_by, error);
	if (!err)
		err = wait_ready(l, deadline, error);
	if (!err)
		err = learn_model(l, deadline, error);
	if (err < 0) {
		wc_link_put(l);
		session_free(w);
		return err;
	}
	atomic_init(&w->link, l);
	*ret = w;
	return 0;
}

/* tx is not inherited: what is mapped in its place by now is the child's own. */
static void link_put_in_child(struct link *l)
{
	l->c.tx = NULL;
	wc_link_put(l);
}

/* In a child: memory and descriptors only; the regions are not touched. */
static void close_in_child(struct weft *w)
{
	struct weft_request *next;

	for (struct weft_request *r = w->requests; r; r = next) {
		struct attempt *a = r->cur, *prev;

		next = r->next;
		for (; a; a = prev) {
			prev = a->prev;
			link_put_in_child(a->link);
			free(a);
		}
		free(r);
	}
	for (struct link *l = w->retired, *later; l; l = later) {
		later = l->next_retired;
		link_put_in_child(l);
	}
	link_put_in_child(w->link);
	if (w->joining)
		link_put_in_child(w->joining);
	session_free(w);
}

void weft_close(struct weft *w)
{
	if (!w)
		return;
	if (wc_session_forked(w)) {
		close_in_child(w);
		return;
	}
	while (w->requests)
		weft_free(w->requests);
	wc_session_put_retired(w);
	wc_link_put(w->link);
	wc_link_put(w->joining);
	session_free(w);
}
