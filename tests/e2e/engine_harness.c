/* SPDX-License-Identifier: Apache-2.0 */
/* engine_harness.c - see engine_harness.h. */
#include "tests/e2e/engine_harness.h"

#include "libclient/private.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void __attribute__((noreturn)) bail(const char *what, int rc)
{
	printf("Bail out! harness: %s (%d, errno %d)\n", what, rc, errno);
	exit(255);
}

static void must(int rc, const char *what)
{
	if (rc < 0)
		bail(what, rc);
}

uint64_t eh_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

uint32_t eh_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return (uint32_t)(*state >> 32);
}

/* --- the process ---------------------------------------------------------------------------------*/

const char *eh_model_dir(const char *name)
{
	static char path[512];
	const char *src = getenv("WEFT_SRC");

	snprintf(path, sizeof(path), "%s/tests/data/models/%s", src ? src : ".", name);
	return path;
}

void eh_init(struct eh *h, const char *model_dir)
{
	static char program[512], dir[512];
	const char *build = getenv("WEFT_BUILD");
	const char *fixed[] = {program, "--name", "m", "--model", dir};

	memset(h, 0, sizeof(*h));
	h->pid = -1;
	h->link = -1;
	snprintf(program, sizeof(program), "%s/weft-engine", build ? build : "build");
	snprintf(dir, sizeof(dir), "%s", model_dir);
	for (size_t i = 0; i < sizeof(fixed) / sizeof(*fixed); i++)
		h->argv[i] = fixed[i];
	for (uint32_t i = 0; i < EH_TENANTS; i++)
		h->quota[i].weight = 100;
	for (uint32_t i = 0; i <= EH_TENANTS; i++)
		h->idx_fd[i] = -1;
	h->heartbeat_fd = memfd_create("heartbeat", MFD_CLOEXEC);
	must(h->heartbeat_fd, "memfd");
	must(ftruncate(h->heartbeat_fd, 4096), "ftruncate");
	h->heartbeat = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, h->heartbeat_fd, 0);
	if (h->heartbeat == MAP_FAILED)
		bail("mmap", -1);
}

void eh_arg(struct eh *h, const char *arg)
{
	int i = 0;

	while (h->argv[i])
		i++;
	if (i + 1 >= EH_MAX_ARGS)
		bail("too many arguments", i);
	h->argv[i] = arg;
}

/* In the child: link and heartbeat to descriptors 3 and 4. */
static void __attribute__((noreturn)) become_engine(struct eh *h, int sock)
{
	int a = fcntl(sock, F_DUPFD, 10), b = fcntl(h->heartbeat_fd, F_DUPFD, 10);

	if (h->crash_token)
		setenv("WEFT_TEST_CRASH_TOKEN", h->crash_token, 1);
	else
		unsetenv("WEFT_TEST_CRASH_TOKEN");
	/* The log of a hundred engines would bury the test's own lines. */
	if (h->log_fd)
		dup2(h->log_fd, STDERR_FILENO); /* before another takes its number */
	else if (!getenv("WEFT_TEST_VERBOSE"))
		dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDERR_FILENO);
	if (dup2(a, WLINK_FD_SOCKET) < 0 || dup2(b, WLINK_FD_HEARTBEAT) < 0)
		_exit(126);
	close(a);
	close(b);
	execv(h->argv[0], (char *const *)h->argv);
	_exit(127);
}

static void send_tenants(struct eh *h)
{
	for (uint32_t i = 0; i < EH_TENANTS; i++) {
		struct wlink_tenant msg = {.tenant = i, .quota = h->quota[i]};

		wctl_head_init(&msg.head, WLINK_TENANT, sizeof(msg), 0);
		snprintf(msg.name, sizeof(msg.name), "tenant%u", i);
		must(wctl_send(h->link, &msg, sizeof(msg), NULL, 0), "send tenant");
	}
}

static void send_domain(struct eh *h, uint32_t domain)
{
	must(wctl_send(h->link, &h->domain[domain], sizeof(h->domain[domain]), &h->idx_fd[domain],
		       1),
	     "send domain");
}

static void send_adapter(struct eh *h, const struct eh_adapter *a)
{
	must(wctl_send(h->link, &a->msg, sizeof(a->msg), a->fds, 2), "send adapter");
}

void eh_launch(struct eh *h)
{
	int pair[2];

	must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), "socketpair");
	fflush(stdout);
	h->pid = fork();
	must(h->pid, "fork");
	if (!h->pid)
		become_engine(h, pair[1]);
	close(pair[1]);
	h->link = pair[0];
}

static void spawn(struct eh *h)
{
	struct wlink_ready ready;

	eh_launch(h);
	eh_expect(h, WLINK_READY, &ready, sizeof(ready));
	h->model = ready.model;
	send_tenants(h);
	for (uint32_t i = 0; i <= EH_TENANTS; i++)
		if (h->idx_fd[i] >= 0)
			send_domain(h, i);
	for (uint32_t i = 0; i < h->n_adapters; i++)
		send_adapter(h, &h->adapters[i]);
}

void eh_start(struct eh *h)
{
	spawn(h);
}

static void reap(struct eh *h)
{
	int status = 0;

	if (h->pid > 0 && waitpid(h->pid, &status, 0) == h->pid)
		h->exit_status = (uint32_t)status;
	h->pid = -1;
	if (h->link >= 0)
		close(h->link);
	h->link = -1;
}

bool eh_hang_up(struct eh *h, int timeout_ms)
{
	struct pollfd p = {.fd = (int)syscall(SYS_pidfd_open, h->pid, 0), .events = POLLIN};
	bool ended;

	must(p.fd, "pidfd_open");
	close(h->link);
	h->link = -1;
	ended = poll(&p, 1, timeout_ms) == 1;
	close(p.fd);
	if (!ended)
		kill(h->pid, SIGKILL);
	reap(h);
	return ended;
}

void eh_kill(struct eh *h)
{
	if (h->pid > 0)
		kill(h->pid, SIGKILL);
	reap(h);
}

static void attach(struct eh_session *s, enum wlink_resume resume)
{
	struct wlink_attach msg = {
		.session_id = s->id,
		.params = s->layout.params,
		.tenant = s->tenant,
		.resume = resume,
		.pid = (uint32_t)getpid(),
	};
	int fds[4] = {s->tx_fd, s->rx_fd, s->wake_fd, s->bell[0]};

	wctl_head_init(&msg.head, WLINK_ATTACH, sizeof(msg), 0);
	must(wctl_send(s->h->link, &msg, sizeof(msg), fds, 4), "send attach");
}

void eh_restart(struct eh *h)
{
	reap(h);
	h->restarts++;
	spawn(h);
	for (uint32_t i = 0; i < h->n_sessions; i++)
		attach(h->sessions[i],
		       WIFSIGNALED(h->exit_status) && WTERMSIG(h->exit_status) == SIGKILL
			       ? WLINK_RESUME_KILLED
			       : WLINK_RESUME_CRASHED);
}

static void session_free(struct eh_session *s)
{
	wshm_client_close(&s->client);
	close(s->tx_fd);
	close(s->rx_fd);
	close(s->ro_fd);
	close(s->wake_fd);
	close(s->bell[0]);
	close(s->bell[1]);
	free(s->generation);
	free(s->busy);
	free(s);
}

void eh_stop(struct eh *h)
{
	if (h->link >= 0)
		close(h->link);
	h->link = -1;
	reap(h);
	while (h->n_sessions)
		session_free(h->sessions[--h->n_sessions]);
	for (uint32_t i = 0; i <= EH_TENANTS; i++)
		if (h->idx_fd[i] >= 0)
			close(h->idx_fd[i]);
	while (h->n_adapters) {
		h->n_adapters--;
		close(h->adapters[h->n_adapters].fds[0]);
		close(h->adapters[h->n_adapters].fds[1]);
	}
	munmap(h->heartbeat, 4096);
	close(h->heartbeat_fd);
}

/* --- the link ------------------------------------------------------------------------------------*/

union link_message {
	struct wctl_head head;
	struct wlink_ready ready;
	struct wlink_status status;
	struct wlink_offence offence;
	struct wctl_text text;
	struct wlink_progress progress;
	struct wlink_adapter_reply adapter;
	struct wlink_pinned pinned;
	struct wlink_drop drop;
};

/* One message if there is one within timeout_ms: its bytes, 0: none, -1: hung up. */
static int link_read(struct eh *h, union link_message *m, int timeout_ms)
{
	struct pollfd p = {.fd = h->link, .events = POLLIN};
	uint32_t n_fds = 0;
	int rc;

	if (h->link < 0)
		return -1;
	rc = poll(&p, 1, timeout_ms);
	if (rc <= 0)
		return 0;
	rc = wctl_recv(h->link, m, sizeof(*m), NULL, &n_fds);
	if (rc == -EAGAIN || rc == -EINTR)
		return 0;
	if (rc <= 0)
		return -1;
	h->busy += m->head.type == WLINK_BUSY;
	h->idle += m->head.type == WLINK_IDLE;
	h->drained += m->head.type == WLINK_DRAINED;
	h->offences += m->head.type == WLINK_OFFENCE;
	if (m->head.type == WLINK_FAILED) {
		printf("# engine: %s\n", m->text.text);
		bail("the engine could not start", 0);
	}
	return rc;
}

void eh_expect(struct eh *h, enum wctl_type type, void *buf, uint32_t bytes)
{
	static union link_message m;
	uint64_t until = eh_now_ns() + EH_WAIT_MS * UINT64_C(1000000);

	while (eh_now_ns() < until) {
		int rc = link_read(h, &m, 100);

		if (rc < 0)
			bail("the engine hung up", (int)type);
		if (!rc || m.head.type != type)
			continue;
		if (buf)
			memcpy(buf, &m, bytes < (uint32_t)rc ? bytes : (uint32_t)rc);
		return;
	}
	bail("no message of this type came", (int)type);
}

void eh_tell(struct eh *h, enum wctl_type type)
{
	struct wctl_head head;

	wctl_head_init(&head, type, sizeof(head), 0);
	must(wctl_send(h->link, &head, sizeof(head), NULL, 0), "send");
}

/* --- domains, adapters, pins ----------------------------------------------------------------------*/

void eh_domain(struct eh *h, uint32_t domain)
{
	struct wlink_domain *m = &h->domain[domain];

	wctl_head_init(&m->head, WLINK_DOMAIN, sizeof(*m), 0);
	m->domain = domain == EH_PUBLIC ? WLINK_PUBLIC : domain;
	must((int)getrandom(m->secret, sizeof(m->secret), 0), "getrandom");
	h->idx_fd[domain] = wshm_idx_new(m->domain);
	must(h->idx_fd[domain], "index region");
	if (h->link >= 0)
		send_domain(h, domain);
}

int eh_idx_reader_fd(const struct eh *h, uint32_t domain)
{
	int fd = wshm_open_read_only(h->idx_fd[domain]);

	must(fd, "read-only index");
	return fd;
}

const char *eh_adapter_dir(const char *name)
{
	static char path[512];
	const char *src = getenv("WEFT_SRC");

	snprintf(path, sizeof(path), "%s/tests/data/adapters/%s", src ? src : ".", name);
	return path;
}

/* The file's bytes in a sealed memfd, as weftd sends them. */
static int copy_file(const char *dir, const char *name)
{
	char path[1024], buf[65536];
	int from, to = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	ssize_t n;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	from = open(path, O_RDONLY | O_CLOEXEC);
	must(from, path);
	must(to, "memfd");
	while ((n = read(from, buf, sizeof(buf))) > 0)
		if (write(to, buf, (size_t)n) != n)
			bail("write", -1);
	close(from);
	must(fcntl(to, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL),
	     "seal");
	return to;
}

static struct eh_adapter *adapter_new(struct eh *h, const char *dir, const char *name,
				      int32_t offset, enum wshm_missing on_missing)
{
	struct eh_adapter *a = &h->adapters[h->n_adapters];

	if (h->n_adapters == EH_MAX_ADAPTERS)
		bail("too many adapters", 0);
	a->msg = (struct wlink_adapter){
		.load_id = ++h->next_load,
		.offset = offset,
		.on_missing = on_missing,
	};
	wctl_head_init(&a->msg.head, WLINK_ADAPTER_LOAD, sizeof(a->msg), 0);
	snprintf(a->msg.name, sizeof(a->msg.name), "%s", name);
	a->fds[0] = copy_file(dir, "adapter_config.json");
	a->fds[1] = copy_file(dir, "adapter_model.safetensors");
	send_adapter(h, a);
	return a;
}

void eh_adapter_ask(struct eh *h, const char *dir, const char *name)
{
	adapter_new(h, dir, name, 0, WSHM_MISSING_BASE);
	h->n_adapters++;
}

int eh_adapter_load(struct eh *h, const char *dir, const char *name, int32_t offset,
		    enum wshm_missing on_missing, struct wlink_adapter_reply *ret)
{
	struct eh_adapter *a = adapter_new(h, dir, name, offset, on_missing);
	struct wlink_adapter_reply reply;

	do /* answers to what a restarted engine was sent again may come before */
		eh_expect(h, WLINK_ADAPTER_LOADED, &reply, sizeof(reply));
	while (reply.load_id != a->msg.load_id);
	if (reply.head.code) {
		close(a->fds[0]);
		close(a->fds[1]);
	} else {
		h->n_adapters++;
	}
	if (ret)
		*ret = reply;
	return reply.head.code;
}

int eh_adapter_unload(struct eh *h, const char *name, bool force, struct wlink_adapter_reply *ret)
{
	struct wlink_unload msg = {.force = force};
	struct wlink_adapter_reply reply;
	uint32_t i = h->n_adapters;

	while (i > 0 && strcmp(h->adapters[i - 1].msg.name, name) != 0)
		i--;
	if (!i--)
		return -ENOENT;
	msg.load_id = h->adapters[i].msg.load_id;
	wctl_head_init(&msg.head, WLINK_ADAPTER_UNLOAD, sizeof(msg), 0);
	must(wctl_send(h->link, &msg, sizeof(msg), NULL, 0), "send unload");
	eh_expect(h, WLINK_ADAPTER_UNLOADED, &reply, sizeof(reply));
	if (reply.load_id != msg.load_id)
		bail("another adapter was unloaded", 0);
	if (!reply.head.code) {
		close(h->adapters[i].fds[0]);
		close(h->adapters[i].fds[1]);
		memmove(&h->adapters[i], &h->adapters[i + 1],
			(--h->n_adapters - i) * sizeof(h->adapters[0]));
	}
	if (ret)
		*ret = reply;
	return reply.head.code;
}

int64_t eh_pin(struct eh *h, uint32_t domain, const uint32_t *tokens, uint32_t n,
	       uint32_t *ret_tokens)
{
	struct wlink_pin msg = {
		.pin_id = ++h->next_pin,
		.domain = domain == EH_PUBLIC ? WLINK_PUBLIC : domain,
		.n_tokens = n,
	};
	struct wlink_pinned reply;
	int fd = memfd_create("pin", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	must(fd, "memfd");
	if (write(fd, tokens, n * sizeof(*tokens)) != (ssize_t)(n * sizeof(*tokens)))
		bail("write", -1);
	wctl_head_init(&msg.head, WLINK_PIN, sizeof(msg), 0);
	must(wctl_send(h->link, &msg, sizeof(msg), &fd, 1), "send pin");
	close(fd);
	eh_expect(h, WLINK_PINNED, &reply, sizeof(reply));
	if (reply.pin_id != msg.pin_id)
		bail("another pin was answered", 0);
	if (ret_tokens)
		*ret_tokens = reply.tokens;
	return reply.head.code ? reply.head.code : (int64_t)msg.pin_id;
}

void eh_unpin(struct eh *h, int64_t pin)
{
	struct wlink_pin msg = {.pin_id = (uint64_t)pin};

	wctl_head_init(&msg.head, WLINK_UNPIN, sizeof(msg), 0);
	must(wctl_send(h->link, &msg, sizeof(msg), NULL, 0), "send unpin");
}

uint64_t eh_drop(struct eh *h, uint32_t domain)
{
	struct wlink_drop msg = {
		.domain = domain == EH_PUBLIC ? WLINK_PUBLIC : domain,
		.all = domain == UINT32_MAX,
	};

	wctl_head_init(&msg.head, WLINK_DROP, sizeof(msg), 0);
	must(wctl_send(h->link, &msg, sizeof(msg), NULL, 0), "send drop");
	eh_expect(h, WLINK_DROPPED, &msg, sizeof(msg));
	must(msg.head.code, "drop");
	return msg.blocks;
}

const char *eh_report(struct eh *h)
{
	static struct wlink_status m;

	eh_tell(h, WLINK_STATUS);
	eh_expect(h, WLINK_STATUS_TEXT, &m, sizeof(m));
	if (m.text_bytes >= sizeof(m.text))
		bail("status too long", (int)m.text_bytes);
	m.text[m.text_bytes] = '\0';
	return m.text;
}

double eh_number(struct eh *h, const char *path)
{
	json_t *top = json_loads(eh_report(h), 0, NULL), *o = top;
	char copy[128], *rest = copy, *key;
	double value;

	snprintf(copy, sizeof(copy), "%s", path);
	while (o && (key = strsep(&rest, ".")))
		o = json_is_array(o) ? json_array_get(o, (size_t)atoi(key))
				     : json_object_get(o, key);
	if (!json_is_number(o) && !json_is_boolean(o))
		bail(path, 0);
	value = json_is_boolean(o) ? json_is_true(o) : json_number_value(o);
	json_decref(top);
	return value;
}

/* Take what has come; start a dead engine again if that is wanted. */
static void attend(struct eh *h)
{
	static union link_message m;
	int rc;

	while ((rc = link_read(h, &m, 0)) > 0)
		;
	if (rc < 0 && h->supervise)
		eh_restart(h);
}

/* --- sessions and requests ------------------------------------------------------------------------*/

#define TX_PER_SLOT 65536u

struct eh_session *eh_open(struct eh *h, uint32_t tenant, uint32_t slots, uint64_t rx_bytes)
{
	struct eh_session *s = calloc(1, sizeof(*s));
	struct wshm_params params = {
		.slots = slots,
		.tx_arena_bytes = (uint64_t)slots * TX_PER_SLOT,
		.rx_arena_bytes = rx_bytes,
	};

	if (!s || h->n_sessions == EH_MAX_SESSIONS)
		bail("session", 0);
	s->h = h;
	s->id = ++h->next_id;
	s->tenant = tenant;
	must(wshm_layout_init(&s->layout, &params), "layout");
	must(wshm_regions_new(&s->layout, s->id, &s->tx_fd, &s->rx_fd), "regions");
	s->ro_fd = wshm_open_read_only(s->rx_fd);
	must(s->ro_fd, "read-only rx");
	must(wshm_client_open(&s->client, &s->layout, s->tx_fd, s->ro_fd), "client end");
	s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	must(s->wake_fd, "eventfd");
	must(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, s->bell), "bell");
	s->generation = calloc(slots, sizeof(*s->generation));
	s->busy = calloc(slots, sizeof(*s->busy));
	h->sessions[h->n_sessions++] = s;
	attach(s, WLINK_RESUME_NONE);
	return s;
}

void eh_close(struct eh_session *s)
{
	struct eh *h = s->h;
	struct wlink_session msg = {.session_id = s->id}, back;
	uint32_t i = 0;

	wctl_head_init(&msg.head, WLINK_DETACH, sizeof(msg), 0);
	must(wctl_send(h->link, &msg, sizeof(msg), NULL, 0), "send detach");
	eh_expect(h, WLINK_DETACHED, &back, sizeof(back));
	if (back.session_id != s->id)
		bail("another session was detached", 0);
	while (h->sessions[i] != s)
		i++;
	h->sessions[i] = h->sessions[--h->n_sessions];
	session_free(s);
}

void eh_desc(struct wshm_desc *d)
{
	wshm_desc_init(d);
	d->temperature = 0;
	d->max_tokens = 16;
	d->ignore_eos = true;
}

static void wake(struct eh_session *s, int must_wake)
{
	uint64_t one = 1;

	must(must_wake, "client call");
	if (must_wake && write(s->wake_fd, &one, sizeof(one)) < 0)
		bail("wake", -1);
}

static uint32_t free_slot(const struct eh_session *s)
{
	uint32_t slot = 0;

	while (slot < s->layout.params.slots && s->busy[slot])
		slot++;
	if (slot == s->layout.params.slots)
		bail("no free slot", 0);
	return slot;
}

static void push(struct eh_session *s, uint32_t slot, uint64_t off, uint32_t bytes,
		 struct eh_req *ret)
{
	s->busy[slot] = true;
	*ret = (struct eh_req){s, slot, ++s->generation[slot]};
	wshm_client_req_write(&s->client, slot, ret->generation, off, bytes);
	wake(s, wshm_client_submit(&s->client, slot, ret->generation));
}

void eh_submit_bytes(struct eh_session *s, const uint8_t *bytes, uint32_t n, uint64_t off,
		     struct eh_req *ret)
{
	if (off + n <= s->layout.params.tx_arena_bytes)
		memcpy(wshm_client_tx_arena(&s->client) + off, bytes, n);
	push(s, free_slot(s), off, n, ret);
}

void eh_submit(struct eh_session *s, struct wshm_desc *d, const uint32_t *prompt, uint32_t n,
	       const uint32_t *const *resume, struct eh_req *ret)
{
	uint8_t *arena = wshm_client_tx_arena(&s->client), bytes[WSHM_MAX_DESC];
	uint32_t slot = free_slot(s);
	uint64_t at;
	int len;

	at = (uint64_t)slot * TX_PER_SLOT + WSHM_MAX_DESC;
	d->prompt = (struct wshm_span){.off = at, .tokens = n};
	memcpy(arena + at, prompt, n * sizeof(*prompt));
	at += n * sizeof(*prompt);
	for (uint32_t i = 0; i < d->n_resume; i++) {
		d->resume[i].off = at;
		memcpy(arena + at, resume[i], d->resume[i].tokens * sizeof(**resume));
		at += d->resume[i].tokens * sizeof(**resume);
	}
	if (at > (uint64_t)(slot + 1) * TX_PER_SLOT)
		bail("prompt too long for the harness", 0);
	len = wc_desc_pack(d, bytes, sizeof(bytes));
	must(len, "pack");
	memcpy(arena + (uint64_t)slot * TX_PER_SLOT, bytes, (size_t)len);
	push(s, slot, (uint64_t)slot * TX_PER_SLOT, (uint32_t)len, ret);
}

const struct wshm_slot *eh_slot(const struct eh_req *r)
{
	return wshm_client_slot(&r->s->client, r->slot);
}

uint32_t eh_state(const struct eh_req *r)
{
	if (wshm_slot_generation(eh_slot(r)) != r->generation)
		return WSHM_SLOT_FREE;
	return wshm_slot_state(eh_slot(r));
}

uint32_t eh_status(const struct eh_req *r)
{
	return ord_load(&eh_slot(r)->status);
}

uint32_t eh_count(const struct eh_req *r, uint32_t sample)
{
	return eh_state(r) == WSHM_SLOT_FREE ? 0 : wshm_slot_count(eh_slot(r), sample);
}

bool eh_wait_tokens(const struct eh_req *r, uint32_t sample, uint32_t n)
{
	uint64_t until = eh_now_ns() + EH_WAIT_MS * UINT64_C(1000000);

	while (eh_now_ns() < until) {
		uint32_t seen = wshm_slot_progress(eh_slot(r));

		if (eh_state(r) == WSHM_SLOT_ENDED || eh_count(r, sample) >= n)
			return true;
		attend(r->s->h);
		wshm_client_wait_slot(&r->s->client, r->slot, seen, 20000000);
	}
	return false;
}

bool eh_wait(const struct eh_req *r)
{
	return eh_wait_tokens(r, 0, UINT32_MAX);
}

void eh_cancel(const struct eh_req *r)
{
	wake(r->s, wshm_client_cancel(&r->s->client, r->slot, r->generation));
}

void eh_release(const struct eh_req *r)
{
	r->s->busy[r->slot] = false;
	wake(r->s, wshm_client_release(&r->s->client, r->slot, r->generation));
}

static const uint8_t *slab(const struct eh_req *r)
{
	return wshm_client_rx_arena(&r->s->client) + eh_slot(r)->slab_off;
}

const uint32_t *eh_tokens(const struct eh_req *r, uint32_t sample)
{
	return (const uint32_t *)(slab(r) + sample * eh_slot(r)->sample_bytes);
}

const struct wshm_logprob *eh_logprobs(const struct eh_req *r, uint32_t sample)
{
	const struct wshm_slot *w = eh_slot(r);

	if (!w->logprob_off)
		return NULL;
	return (const struct wshm_logprob *)(slab(r) + sample * w->sample_bytes + w->logprob_off);
}

const struct wshm_logprob *eh_prompt_logprobs(const struct eh_req *r)
{
	const struct wshm_slot *w = eh_slot(r);

	if (!w->prompt_logprob_off)
		return NULL;
	return (const struct wshm_logprob *)(slab(r) + w->prompt_logprob_off);
}

/* --- results --------------------------------------------------------------------------------------*/

void eh_result_take(struct eh_result *ret, const struct eh_req *r)
{
	const struct wshm_slot *w = eh_slot(r);

	memset(ret, 0, sizeof(*ret));
	ret->status = eh_status(r);
	ret->n = w->n_samples;
	ret->logprob_bytes = w->logprob_bytes;
	ret->prompt_bytes = w->prompt_logprob_bytes * wshm_slot_prompt_count(w);
	ret->logprobs = calloc(ret->n + 1, (size_t)EH_MAX_TOKENS * (w->logprob_bytes + 1));
	ret->prompt = calloc(1, ret->prompt_bytes + 1);
	if (w->prompt_logprob_bytes)
		memcpy(ret->prompt, eh_prompt_logprobs(r), ret->prompt_bytes);
	for (uint32_t i = 0; i < ret->n; i++) {
		uint32_t n = eh_count(r, i);

		if (n > EH_MAX_TOKENS)
			bail("too many tokens for a result", (int)n);
		ret->count[i] = n;
		ret->finish[i] = ord_load(&w->finish[i]);
		memcpy(ret->tokens[i], eh_tokens(r, i), n * sizeof(uint32_t));
		if (w->logprob_bytes)
			memcpy(ret->logprobs + (size_t)i * EH_MAX_TOKENS * w->logprob_bytes,
			       eh_logprobs(r, i), (size_t)n * w->logprob_bytes);
	}
}

void eh_result_free(struct eh_result *r)
{
	free(r->logprobs);
	free(r->prompt);
	r->logprobs = r->prompt = NULL;
}

static bool differ(const char *what, uint32_t sample, uint32_t a, uint32_t b)
{
	if (a != b)
		printf("#   sample %u: %s %u, not %u\n", sample, what, a, b);
	return a != b;
}

bool eh_result_same(const struct eh_result *a, const struct eh_result *b)
{
	if (differ("status", 0, a->status, b->status) || differ("n", 0, a->n, b->n) ||
	    differ("entry size", 0, a->logprob_bytes, b->logprob_bytes) ||
	    differ("prompt log-probabilities", 0, a->prompt_bytes, b->prompt_bytes))
		return false;
	for (uint32_t i = 0; i < a->n; i++) {
		size_t at = (size_t)i * EH_MAX_TOKENS * a->logprob_bytes;

		if (differ("count", i, a->count[i], b->count[i]) ||
		    differ("finish", i, a->finish[i], b->finish[i]))
			return false;
		for (uint32_t k = 0; k < a->count[i]; k++)
			if (a->tokens[i][k] != b->tokens[i][k]) {
				printf("#   sample %u: token %u is %u, not %u\n", i, k,
				       a->tokens[i][k], b->tokens[i][k]);
				return false;
			}
		if (memcmp(a->logprobs + at, b->logprobs + at,
			   (size_t)a->count[i] * a->logprob_bytes) != 0) {
			printf("#   sample %u: log-probabilities differ\n", i);
			return false;
		}
	}
	if (memcmp(a->prompt, b->prompt, a->prompt_bytes) != 0) {
		printf("#   log-probabilities of the prompt differ\n");
		return false;
	}
	return true;
}
