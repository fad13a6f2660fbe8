/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_daemon.c - see fake_daemon.h. One thread accepts, one thread serves each session; a session
 * belongs to its thread. Controls are atomics.
 */
#include "tests/e2e/fake_daemon.h"

#include "shm/wshm_control.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MAX_SESSIONS 16

struct fake_request {
	bool live, ended;
	uint32_t generation;
	struct wshm_desc desc;
	uint32_t *prompt;
	uint32_t *resume[WSHM_MAX_SAMPLES];
	struct wshm_slab_layout slab;
};

struct fake_session {
	struct fake *f;
	pthread_t thread;
	int sock, wake, bell;
	struct wshm_engine e;
	struct fake_request *requests;
	uint32_t files_owed;
	bool loading;
};

struct fake {
	struct fake_options o;
	struct fake_controls c;
	int listener;
	pthread_t thread;
	_Atomic bool stop;
	struct fake_session sessions[MAX_SESSIONS];
	uint32_t n_sessions;
	int idx_fd[2];
	struct wshm_idx_writer *idx[2];
	pthread_mutex_t lock; /* of the three below */
	struct wshm_desc last;
	uint32_t *last_resume;
};

uint32_t fake_token(const uint32_t *prompt, uint32_t n_prompt, uint32_t sample, uint32_t position)
{
	uint64_t h = 1469598103934665603u;

	for (uint32_t i = 0; i < n_prompt; i++)
		h = (h ^ prompt[i]) * 1099511628211u;
	h = (h ^ sample) * 1099511628211u;
	h = (h ^ position) * 1099511628211u;
	return (h >> 20) % FAKE_VOCAB;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * UINT64_C(1000000000) + ts.tv_nsec;
}

/* --- the engine's end ----------------------------------------------------------------------------*/

static void must(int cond, const char *what)
{
	if (!cond) {
		fprintf(stderr, "fake daemon: %s: %s\n", what, strerror(errno));
		abort();
	}
}

static float *logprobs_of(struct fake_session *s, struct wshm_slot *slot, uint32_t sample,
			  uint32_t index)
{
	return (float *)(wshm_engine_rx_arena(&s->e) + slot->slab_off +
			 sample * slot->sample_bytes + slot->logprob_off +
			 (uint64_t)index * slot->logprob_bytes);
}

/* Entry of a token: itself, then `top` others; their values follow from the position. */
static void write_logprobs(struct fake_session *s, struct wshm_slot *slot,
			   const struct fake_request *q, uint32_t sample, uint32_t index,
			   uint32_t token)
{
	struct wshm_logprob *p = (void *)logprobs_of(s, slot, sample, index);

	if (q->desc.logprobs == WSHM_NO_LOGPROBS)
		return;
	for (uint32_t i = 0; i <= q->desc.logprobs; i++)
		p[i] = (struct wshm_logprob){token + i, -(float)(index + 1) - i};
}

static void put_token(struct fake_session *s, uint32_t i, uint32_t sample, uint32_t token)
{
	struct fake_request *q = &s->requests[i];
	struct wshm_slot *slot = wshm_engine_slot(&s->e, i);
	uint32_t *tokens = (uint32_t *)(wshm_engine_rx_arena(&s->e) + slot->slab_off +
					sample * slot->sample_bytes);
	uint32_t n = wshm_slot_count(slot, sample);

	tokens[n] = token;
	write_logprobs(s, slot, q, sample, n, token);
	wshm_slot_set_count(slot, sample, n + 1);
}

static void end(struct fake_session *s, uint32_t i, enum wshm_status status)
{
	struct wshm_slot *slot = wshm_engine_slot(&s->e, i);

	for (uint32_t k = 0; k < s->requests[i].desc.n && status == WSHM_OK; k++)
		atomic_store(&slot->finish[k], WSHM_FINISH_LENGTH);
	atomic_store(&slot->status, status);
	atomic_store(&slot->t_end_ns, now_ns());
	wshm_slot_set_state(slot, WSHM_SLOT_ENDED);
	s->requests[i].ended = true;
}

static void bell(struct fake_session *s, int ring)
{
	if (ring)
		send(s->bell, "!", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void forget(struct fake_session *s, uint32_t i)
{
	struct fake_request *q = &s->requests[i];

	free(q->prompt);
	for (uint32_t k = 0; k < WSHM_MAX_SAMPLES; k++)
		free(q->resume[k]);
	memset(q, 0, sizeof(*q));
}

static void fetch_request(struct fake_session *s, uint32_t i, struct fake_request *q)
{
	struct wshm_req_copy copy;
	uint8_t packed[WSHM_MAX_DESC];
	uint32_t key = 0;

	wshm_engine_fetch_req(&s->e, i, &copy);
	must(copy.generation == q->generation, "generation of the record");
	must(!wshm_engine_fetch(&s->e, copy.desc_off, packed, copy.desc_bytes), "fetch descriptor");
	must(!wshm_desc_decode(&q->desc, packed, copy.desc_bytes, &key), "decode descriptor");
	q->prompt = calloc(q->desc.prompt.tokens, 4);
	must(!wshm_engine_fetch_u32(&s->e, q->desc.prompt.off, q->prompt, q->desc.prompt.tokens),
	     "fetch prompt");
	for (uint32_t k = 0; k < q->desc.n_resume; k++) {
		q->resume[k] = calloc(q->desc.resume[k].tokens + 1, 4);
		must(!wshm_engine_fetch_u32(&s->e, q->desc.resume[k].off, q->resume[k],
					    q->desc.resume[k].tokens),
		     "fetch resumed tokens");
	}
}

static void remember(struct fake *f, const struct fake_request *q)
{
	pthread_mutex_lock(&f->lock);
	f->last = q->desc;
	free(f->last_resume);
	f->last_resume = NULL;
	if (q->desc.n_resume) {
		f->last_resume = calloc(q->desc.resume[0].tokens + 1, 4);
		memcpy(f->last_resume, q->resume[0], q->desc.resume[0].tokens * 4);
	}
	pthread_mutex_unlock(&f->lock);
}

static void admit(struct fake_session *s, uint32_t i, uint32_t generation)
{
	struct fake_request *q = &s->requests[i];
	struct wshm_slot *slot = wshm_engine_slot(&s->e, i);
	uint64_t share = s->e.layout.params.rx_arena_bytes / s->e.layout.params.slots;

	forget(s, i);
	q->generation = generation;
	fetch_request(s, i, q);
	wshm_slab_layout(&q->slab, q->desc.n, q->desc.max_tokens, q->desc.prompt.tokens,
			 q->desc.logprobs, q->desc.prompt_logprobs);
	must(q->slab.bytes <= share, "slab fits");
	q->live = true;
	slot->slab_off = i * (share & ~UINT64_C(127));
	slot->slab_bytes = q->slab.bytes;
	slot->sample_bytes = q->slab.sample_bytes;
	slot->logprob_off = q->slab.logprob_off;
	slot->logprob_bytes = q->slab.logprob_bytes;
	slot->prompt_logprob_off = q->slab.prompt_logprob_off;
	slot->prompt_logprob_bytes = q->slab.prompt_logprob_bytes;
	slot->n_samples = q->desc.n;
	slot->seed = q->desc.has_seed ? q->desc.seed : FAKE_SEED;
	slot->t_arrival_ns = now_ns();
	atomic_store(&slot->cached_tokens, atomic_load(&s->f->c.cached_tokens));
	slot->invocation = atomic_load(&s->f->c.invocation);
	slot->activation = atomic_load(&s->f->c.activation);
	slot->adapter_instance = atomic_load(&s->f->c.adapter_instance);
	for (uint32_t k = 0; k < WSHM_MAX_SAMPLES; k++) {
		atomic_store(&slot->count[k], 0);
		atomic_store(&slot->finish[k], 0);
	}
	for (uint32_t k = 0; k < q->desc.n_resume; k++)
		for (uint32_t t = 0; t < q->desc.resume[k].tokens; t++)
			put_token(s, i, k, q->resume[k][t]);
	remember(s->f, q);
	wshm_slot_admit(slot, generation, WSHM_SLOT_RUNNING);
	wshm_engine_accept(&s->e);
	atomic_fetch_add(&s->f->c.admitted, 1);
}

static bool step_request(struct fake_session *s, uint32_t i)
{
	struct fake_request *q = &s->requests[i];
	struct wshm_slot *slot = wshm_engine_slot(&s->e, i);
	uint32_t stall = atomic_load(&s->f->c.stall_at);
	bool moved = false, all = true;

	if (wshm_engine_released(&s->e, i, q->generation)) {
		if (!atomic_load(&s->f->c.reclaim))
			return false;
		wshm_slot_set_state(slot, WSHM_SLOT_FREE);
		forget(s, i);
		return false;
	}
	if (q->ended)
		return false;
	if (wshm_engine_cancelled(&s->e, i, q->generation)) {
		end(s, i, WSHM_CANCELLED);
		return true;
	}
	for (uint32_t k = 0; k < q->desc.n; k++) {
		uint32_t n = wshm_slot_count(slot, k);

		if (n < q->desc.max_tokens && n < stall) {
			put_token(s, i, k, fake_token(q->prompt, q->desc.prompt.tokens, k, n++));
			moved = true;
		}
		all = all && n == q->desc.max_tokens;
	}
	if (all) {
		end(s, i, WSHM_OK);
		moved = true;
	}
	return moved;
}

/* Whether anything moved. */
static bool step(struct fake_session *s)
{
	uint32_t slot, generation;
	bool moved = false;

	while (atomic_load(&s->f->c.admit) && wshm_engine_peek(&s->e, &slot, &generation) == 1)
		admit(s, slot, generation);
	for (uint32_t i = 0; i < s->e.layout.params.slots; i++) {
		if (!s->requests[i].live || !step_request(s, i))
			continue;
		bell(s, wshm_engine_publish(&s->e, i));
		moved = true;
	}
	return moved;
}

static void send_index(struct fake_session *s)
{
	struct wctl_domain m = {.tenant = "fake"};
	int fd = wshm_open_read_only(s->f->idx_fd[0]);

	wctl_head_init(&m.head, WCTL_DOMAIN, sizeof(m), 0);
	wctl_send(s->sock, &m, sizeof(m), &fd, 1);
	close(fd);
}

/* Nothing stands in the old one any more. */
static void replace_index(struct fake_session *s)
{
	struct fake *f = s->f;

	wshm_idx_writer_close(f->idx[0]);
	close(f->idx_fd[0]);
	f->idx_fd[0] = wshm_idx_new(0);
	must(f->idx_fd[0] >= 0, "make an index");
	must(!wshm_idx_writer_open(&f->idx[0], f->idx_fd[0], fake_secret[0], &fake_root),
	     "open an index");
	send_index(s);
	atomic_store(&f->c.new_index, 0);
}

static void answer_models(struct fake_session *s)
{
	static const struct wctl_model model = {
		.name = "fake", .type = "fake", .vocab = FAKE_VOCAB, .ready = 1};
	struct wctl_models m = {.n = 1, .models = {model}};

	if (s->f->o.late_index == 2)
		send_index(s);
	wctl_head_init(&m.head, WCTL_MODEL_LIST, sizeof(m), 0);
	wctl_send(s->sock, &m, sizeof(m), NULL, 0);
}

static void listen_to_client(struct fake_session *s, bool *ret_gone)
{
	uint8_t buf[sizeof(struct wctl_models)];
	struct wctl_head *h = (void *)buf;
	uint32_t n_fds = 0;
	int r = wctl_recv(s->sock, buf, sizeof(buf), NULL, &n_fds);

	if (r > 0 && h->type == WCTL_COMPLAIN)
		atomic_fetch_add(&s->f->c.complaints, 1);
	else if (r > 0 && h->type == WCTL_FILES) {
		s->files_owed++;
		atomic_fetch_add(&s->f->c.files_asked, 1);
	} else if (r > 0 && h->type == WCTL_MODELS)
		answer_models(s);
	else if (r != -EAGAIN)
		*ret_gone = true;
}

static void say_bye(struct fake_session *s)
{
	struct wctl_text t = {.text = "told to"};

	wctl_head_init(&t.head, WCTL_BYE, sizeof(t), -EPROTO);
	wctl_send(s->sock, &t, sizeof(t), NULL, 0);
}

static void answer_files(struct fake_session *s)
{
	struct wctl_head h;

	wctl_head_init(&h, WCTL_FILE_SET, sizeof(h), s->f->o.files_fd ? 0 : -ENOENT);
	for (; s->files_owed && !atomic_load(&s->f->c.hold_files); s->files_owed--)
		wctl_send(s->sock, &h, sizeof(h), &s->f->o.files_fd, s->f->o.files_fd ? 1 : 0);
}

static void set_loading(struct fake_session *s, bool loading)
{
	if (loading == s->loading)
		return;
	s->loading = loading;
	wshm_engine_set_state(&s->e, loading ? WSHM_ENGINE_STARTING : WSHM_ENGINE_RUNNING, WSHM_OK,
			      1);
	atomic_store(&s->f->c.loads, loading);
}

static void serve(struct fake_session *s)
{
	struct fake *f = s->f;
	bool gone = false;

	while (!f->stop && !gone) {
		struct pollfd p[2] = {{s->wake, POLLIN, 0}, {s->sock, POLLIN, 0}};
		bool moved = step(s);
		uint64_t n;

		if (atomic_exchange(&f->c.bye, 0))
			say_bye(s);
		if (atomic_load(&f->c.new_index))
			replace_index(s);
		set_loading(s, atomic_load(&f->c.loading));
		answer_files(s);
		if (moved) {
			usleep(atomic_load(&f->c.gap_us));
			continue;
		}
		wshm_engine_set_need_wake(&s->e, !f->c.busy);
		/* The timeout is for the controls; a wake-up comes through the descriptor. */
		if (!wshm_engine_pending(&s->e))
			poll(p, 2, f->c.busy ? 0 : 2);
		wshm_engine_set_need_wake(&s->e, false);
		if (read(s->wake, &n, sizeof(n)) > 0)
			atomic_fetch_add(&f->c.wakes, 1);
		listen_to_client(s, &gone);
	}
}

/* --- the daemon's end ----------------------------------------------------------------------------*/

static void refuse(int sock)
{
	struct wctl_text t = {.text = "no session for you today"};

	wctl_head_init(&t.head, WCTL_REFUSED, sizeof(t), -EACCES);
	wctl_send(sock, &t, sizeof(t), NULL, 0);
}

static void make_regions(const struct fake *f, const struct wshm_layout *l, int *tx, int *rx)
{
	struct wshm_layout half = *l;

	if (f->o.fault == FAKE_NO_SEALS) {
		*tx = memfd_create("tx", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		*rx = memfd_create("rx", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		must(!ftruncate(*tx, l->tx_bytes) && !ftruncate(*rx, l->rx_bytes), "truncate");
		return;
	}
	if (f->o.fault == FAKE_SHORT_RX) {
		struct wshm_params p = l->params;

		p.rx_arena_bytes /= 2;
		must(!wshm_layout_init(&half, &p), "layout");
	}
	must(!wshm_regions_new(&half, 7, tx, rx), "make regions");
}

static bool greet(struct fake_session *s)
{
	struct fake *f = s->f;
	struct wctl_hello h;
	struct wctl_welcome w = {.minor = WSHM_MINOR, .session_id = 7};
	struct wshm_layout l;
	uint32_t n_fds = 0;
	int tx, rx, sv[2], r;

	while ((r = wctl_recv(s->sock, &h, sizeof(h), NULL, &n_fds)) == -EAGAIN && !f->stop)
		usleep(500);
	if (r != (int)sizeof(h) || h.head.type != WCTL_HELLO)
		return false;
	atomic_fetch_add(&f->c.hellos, 1);
	while (atomic_load(&f->c.hold_hellos) && !f->stop)
		usleep(500);
	if (f->o.fault == FAKE_SILENT)
		return false;
	if (f->o.fault == FAKE_REFUSE) {
		refuse(s->sock);
		return false;
	}
	wctl_head_init(&w.head, f->o.fault == FAKE_GARBAGE ? 99 : WCTL_WELCOME, sizeof(w), 0);
	w.head.major = f->o.fault == FAKE_WRONG_MAJOR ? WSHM_MAJOR + 1 : WSHM_MAJOR;
	w.features = WCTL_FEATURE_FILES;
	w.params.slots = f->o.slots ? f->o.slots : h.slots ? h.slots : 64;
	w.params.tx_arena_bytes = f->o.tx_arena_bytes ? f->o.tx_arena_bytes : 1 << 20;
	if (h.tx_arena_bytes > w.params.tx_arena_bytes)
		w.params.tx_arena_bytes = h.tx_arena_bytes;
	w.params.rx_arena_bytes = f->o.rx_arena_bytes ? f->o.rx_arena_bytes : 4 << 20;
	w.model = (struct wctl_model){.name = "fake",
				      .type = "fake",
				      .vocab = FAKE_VOCAB,
				      .max_positions = 4096,
				      .ready = f->o.late_index != 2};
	must(!wshm_layout_init(&l, &w.params), "layout");
	make_regions(f, &l, &tx, &rx);
	must(!socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, sv), "socketpair");
	s->bell = sv[0];
	s->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int fds[WCTL_WELCOME_FDS] = {tx, wshm_open_read_only(rx), s->wake, sv[1]};

	for (int i = 0; i < 2; i++)
		fds[4 + i] = f->o.fault == FAKE_BAD_INDEX ? memfd_create("idx", MFD_CLOEXEC)
							  : wshm_open_read_only(f->idx_fd[i]);
	if (f->o.late_index) {
		close(fds[4]);
		fds[4] = wshm_idx_new(0);
	}
	r = wctl_send(s->sock, &w, sizeof(w), fds,
		      f->o.fault == FAKE_FEW_FDS ? WCTL_WELCOME_FDS - 1 : WCTL_WELCOME_FDS);
	if (f->o.late_index == 1)
		send_index(s);
	close(sv[1]);
	close(fds[1]);
	close(fds[4]);
	close(fds[5]);
	if (f->o.fault == FAKE_OK || f->o.fault == FAKE_NEVER_READY)
		must(!wshm_engine_open(&s->e, &l, tx, rx, false), "open the engine's end");
	close(tx);
	close(rx);
	if (r < 0 && s->e.rx) /* who said hello did not wait for the answer */
		wshm_engine_close(&s->e);
	return r >= 0 && s->e.rx;
}

static void *session_main(void *arg)
{
	struct fake_session *s = arg;
	struct fake *f = s->f;

	if (greet(s)) {
		s->requests = calloc(s->e.layout.params.slots, sizeof(*s->requests));
		if (f->o.fault != FAKE_NEVER_READY)
			wshm_engine_set_state(&s->e, WSHM_ENGINE_RUNNING, WSHM_OK, 1);
		serve(s);
		for (uint32_t i = 0; i < s->e.layout.params.slots; i++)
			forget(s, i);
		free(s->requests);
		wshm_engine_close(&s->e);
	}
	while (f->o.fault == FAKE_SILENT && !f->stop)
		usleep(1000);
	if (s->bell > 0)
		close(s->bell);
	if (s->wake > 0)
		close(s->wake);
	close(s->sock);
	return NULL;
}

static void *accept_main(void *arg)
{
	struct fake *f = arg;

	while (!f->stop) {
		struct pollfd p = {f->listener, POLLIN, 0};
		struct fake_session *s = &f->sessions[f->n_sessions];
		int sock;

		if (poll(&p, 1, 2) <= 0)
			continue;
		sock = accept4(f->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (sock < 0)
			continue;
		must(f->n_sessions < MAX_SESSIONS, "too many sessions");
		s->f = f;
		s->sock = sock;
		must(!pthread_create(&s->thread, NULL, session_main, s), "thread");
		f->n_sessions++;
	}
	return NULL;
}

const uint8_t fake_secret[2][WSHM_SECRET_BYTES] = {{1, 2, 3, [100] = 4}, {5, 6, 7, [191] = 8}};
const struct wshm_root fake_root = {.model = {11, 22}, .exactness = 33};

static void indexes_open(struct fake *f)
{
	for (int i = 0; i < 2; i++) {
		f->idx_fd[i] = wshm_idx_new((uint64_t)i);
		must(f->idx_fd[i] >= 0, "make an index");
		must(!wshm_idx_writer_open(&f->idx[i], f->idx_fd[i], fake_secret[i], &fake_root),
		     "open an index");
	}
}

struct wshm_idx_writer *fake_index(struct fake *f, int is_public)
{
	return f->idx[is_public];
}

struct fake *fake_start(const struct fake_options *o)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct fake *f = calloc(1, sizeof(*f));

	f->o = *o;
	atomic_init(&f->c.stall_at, UINT32_MAX);
	atomic_init(&f->c.admit, 1);
	atomic_init(&f->c.reclaim, 1);
	atomic_init(&f->c.gap_us, 100);
	atomic_init(&f->c.activation, UINT64_MAX);
	indexes_open(f);
	pthread_mutex_init(&f->lock, NULL);
	strcpy(addr.sun_path, o->path);
	unlink(o->path);
	f->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	must(!bind(f->listener, (void *)&addr, sizeof(addr)), "bind");
	must(!listen(f->listener, 16), "listen");
	must(!pthread_create(&f->thread, NULL, accept_main, f), "thread");
	return f;
}

struct fake_controls *fake_controls_of(struct fake *f)
{
	return &f->c;
}

void fake_kill(struct fake *f)
{
	f->stop = true;
	pthread_join(f->thread, NULL);
	for (uint32_t i = 0; i < f->n_sessions; i++)
		pthread_join(f->sessions[i].thread, NULL);
	for (int i = 0; i < 2; i++) {
		wshm_idx_writer_close(f->idx[i]);
		close(f->idx_fd[i]);
	}
	close(f->listener);
	unlink(f->o.path);
	pthread_mutex_destroy(&f->lock);
	free(f->last_resume);
	free(f);
}

struct wshm_desc fake_last_desc(struct fake *f)
{
	struct wshm_desc d;

	pthread_mutex_lock(&f->lock);
	d = f->last;
	pthread_mutex_unlock(&f->lock);
	return d;
}

uint32_t fake_last_resume(struct fake *f, uint32_t *tokens, uint32_t max)
{
	uint32_t n = 0;

	pthread_mutex_lock(&f->lock);
	if (f->last.n_resume && f->last.resume[0].tokens <= max) {
		n = f->last.resume[0].tokens;
		memcpy(tokens, f->last_resume, n * 4);
	}
	pthread_mutex_unlock(&f->lock);
	return n;
}

static char dir[64], path[96];

static void remove_dir(void)
{
	unlink(path);
	rmdir(dir);
}

const char *fake_path(void)
{
	if (!*dir) {
		strcpy(dir, "/tmp/weft-fake-XXXXXX");
		must(mkdtemp(dir) != NULL, "make a temporary directory");
		snprintf(path, sizeof(path), "%s/weftd.sock", dir);
		atexit(remove_dir);
	}
	return path;
}
