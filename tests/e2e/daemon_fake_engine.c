/* SPDX-License-Identifier: Apache-2.0 */
/*
 * daemon_fake_engine.c - an engine without a model that keeps or breaks the link protocol as its
 * model's path says; see daemon_harness.h.
 */
#include "shm/wshm_idx_abi.h"
#include "tests/e2e/daemon_harness.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAX_SESSIONS 64
#define MAX_TENANTS  16
#define MAX_ADAPTERS 300
#define MAX_PINS     300
#define MAX_DOMAINS  17 /* the last is the public one */

struct attached {
	uint64_t id;
	bool used;
	struct wshm_engine shm;
};

struct domain {
	bool told;
	uint64_t inode, secret; /* of its region; a digest */
};

/* What it does follows from words in its adapter_config.json: see daemon_harness.h. */
struct adapter {
	uint64_t id, weights; /* id 0: free; a digest */
	char name[WCTL_NAME_BYTES], words[64];
	int32_t offset;
	uint32_t on_missing, in_use;
};

/* A pin whose first token is 13 is refused; 14: answered when it is unpinned;
 * 15: the engine ends. */
struct pin {
	uint64_t id; /* 0: free */
	uint32_t domain, n_tokens;
	uint64_t tokens; /* a digest */
	bool waits;
};

static struct fake_engine {
	const char *kind;
	struct attached sessions[MAX_SESSIONS];
	int attached, resumed, crashed, restarts;
	struct wlink_tenant tenants[MAX_TENANTS];
	struct domain domains[MAX_DOMAINS];
	struct adapter adapters[MAX_ADAPTERS];
	struct pin pins[MAX_PINS];
	int loads, late_loads; /* late: after the first session */
	bool had_session;
	struct wlink_heartbeat *heartbeat;
} fake;

static bool is(const char *kind)
{
	return !strcmp(fake.kind, kind);
}

static void tell(enum wctl_type type)
{
	struct wctl_head h;

	wctl_head_init(&h, type, sizeof(h), 0);
	wctl_send(WLINK_FD_SOCKET, &h, sizeof(h), NULL, 0);
}

static void tell_session(enum wctl_type type, uint64_t id)
{
	struct wlink_session m = {.session_id = id};

	wctl_head_init(&m.head, type, sizeof(m), 0);
	wctl_send(WLINK_FD_SOCKET, &m, sizeof(m), NULL, 0);
}

static void tell_ready(void)
{
	struct wlink_ready m = {.instance_id = (uint64_t)getpid()};

	wctl_head_init(&m.head, WLINK_READY, sizeof(m), 0);
	strcpy(m.model.type, "fake");
	m.model.vocab = 100;
	m.model.max_positions = 64;
	wctl_send(WLINK_FD_SOCKET, &m, sizeof(m), NULL, 0);
}

static int adapters_text(char *at, size_t room)
{
	int n = snprintf(at, room, "\"adapters\":[");

	for (int i = 0, first = 1; i < MAX_ADAPTERS; i++) {
		const struct adapter *a = &fake.adapters[i];

		if (!a->id)
			continue;
		n += snprintf(
			at + n, room - (size_t)n,
			"%s{\"name\":\"%s\",\"id\":%llu,\"weights\":\"%016llx\",\"offset\":%d,"
			"\"on_missing\":%u}",
			first ? "" : ",", a->name, (unsigned long long)a->id,
			(unsigned long long)a->weights, a->offset, a->on_missing);
		first = 0;
	}
	return n + snprintf(at + n, room - (size_t)n, "],");
}

static int pins_text(char *at, size_t room)
{
	int n = snprintf(at, room, "\"pins\":[");

	for (int i = 0, first = 1; i < MAX_PINS; i++) {
		const struct pin *p = &fake.pins[i];

		if (!p->id)
			continue;
		n += snprintf(at + n, room - (size_t)n,
			      "%s{\"id\":%d,\"domain\":%d,\"n\":%d,\"tokens\":\"%016llx\"}",
			      first ? "" : ",", (int)p->id, (int)p->domain, (int)p->n_tokens,
			      (unsigned long long)p->tokens);
		first = 0;
	}
	return n + snprintf(at + n, room - (size_t)n, "],");
}

static void tell_status(void)
{
	struct wlink_status m = {0};
	int n = snprintf(
		m.text, sizeof(m.text),
		"{\"attached\":%d,\"resumed\":%d,\"crashed\":%d,\"restarts\":%d,\"uid\":%d,"
		"\"loads\":%d,\"late_loads\":%d,",
		fake.attached, fake.resumed, fake.crashed, fake.restarts, (int)getuid(), fake.loads,
		fake.late_loads);

	n += adapters_text(m.text + n, sizeof(m.text) - (size_t)n);
	n += pins_text(m.text + n, sizeof(m.text) - (size_t)n);
	n += snprintf(m.text + n, sizeof(m.text) - (size_t)n, "\"tenants\":[");

	for (int i = 0, first = 1; i < MAX_TENANTS; i++) {
		if (!fake.tenants[i].name[0])
			continue;
		n += snprintf(m.text + n, sizeof(m.text) - (size_t)n,
			      "%s{\"name\":\"%s\",\"weight\":%u}", first ? "" : ",",
			      fake.tenants[i].name, fake.tenants[i].quota.weight);
		first = 0;
	}
	n += snprintf(m.text + n, sizeof(m.text) - (size_t)n, "],\"domains\":[");
	for (int i = 0, first = 1; i < MAX_DOMAINS; i++) {
		const struct domain *it = &fake.domains[i];

		if (!it->told)
			continue;
		n += snprintf(m.text + n, sizeof(m.text) - (size_t)n,
			      "%s{\"domain\":%d,\"inode\":%llu,\"secret\":\"%016llx\"}",
			      first ? "" : ",", i == MAX_DOMAINS - 1 ? -1 : i,
			      (unsigned long long)it->inode, (unsigned long long)it->secret);
		first = 0;
	}
	n += snprintf(m.text + n, sizeof(m.text) - (size_t)n, "]}");
	m.text_bytes = (uint32_t)n;
	wctl_head_init(&m.head, WLINK_STATUS_TEXT,
		       (uint32_t)offsetof(struct wlink_status, text) + m.text_bytes, 0);
	wctl_send(WLINK_FD_SOCKET, &m, m.head.bytes, NULL, 0);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* What a kind does to an attachment that it should only have served. */
static void misbehave(uint64_t id)
{
	if (is("hang")) {
		tell(WLINK_BUSY);
		atomic_store(&fake.heartbeat->step_budget_ns, 200000000);
		atomic_store(&fake.heartbeat->step_start_ns, now_ns());
		for (;;)
			pause();
	}
	if (is("garbage"))
		tell((enum wctl_type)999);
	if (is("liar"))
		tell_session(WLINK_DETACHED, id);
	if (is("offend")) {
		struct wlink_offence m = {.session_id = id, .status = WSHM_PROTOCOL};

		wctl_head_init(&m.head, WLINK_OFFENCE, sizeof(m), 0);
		strcpy(m.text, "the ring's tail jumped");
		wctl_send(WLINK_FD_SOCKET, &m, sizeof(m), NULL, 0);
	}
}

/* FNV-1a, to compare by. */
static uint64_t digest(const uint8_t *p, size_t n)
{
	uint64_t h = 1469598103934665603u;

	while (n--)
		h = (h ^ *p++) * 1099511628211u;
	return h;
}

/* A domain comes once, and again with another secret and another region; always with a writable one of
 * the right kind in which no engine says that it is there, and the public one first. */
static void take_domain(const struct wlink_domain *m, const int *fds, uint32_t n_fds)
{
	uint64_t said[2], here[2] = {7, 1 + (uint64_t)getpid()};
	uint32_t i = m->domain == WLINK_PUBLIC ? MAX_DOMAINS - 1 : m->domain;
	struct stat st;

	if (i >= MAX_DOMAINS || n_fds != 1 || fstat(fds[0], &st) ||
	    (fake.domains[i].told &&
	     (i == MAX_DOMAINS - 1 || fake.domains[i].inode == st.st_ino ||
	      fake.domains[i].secret == digest(m->secret, sizeof(m->secret)))) ||
	    wshm_region_check(fds[0], wshm_idx_bytes()) ||
	    (fcntl(fds[0], F_GETFL) & O_ACCMODE) != O_RDWR ||
	    (i != MAX_DOMAINS - 1 &&
	     (!fake.domains[MAX_DOMAINS - 1].told || !fake.tenants[i].name[0])))
		_exit(9);
	if (pread(fds[0], said, sizeof(said), WSHM_IDX_OFF_CTL) != (ssize_t)sizeof(said) ||
	    said[0] || said[1] ||
	    pwrite(fds[0], here, sizeof(here), WSHM_IDX_OFF_CTL) != (ssize_t)sizeof(here))
		_exit(9);
	fake.domains[i] = (struct domain){
		.told = true, .inode = st.st_ino, .secret = digest(m->secret, sizeof(m->secret))};
}

/* --- adapters -------------------------------------------------------------------------------------*/

static void answer_adapter(enum wctl_type type, uint64_t id, int code, uint32_t in_use,
			   const char *text)
{
	struct wlink_adapter_reply m = {.load_id = id, .in_use = in_use};

	wctl_head_init(&m.head, type, sizeof(m), code);
	if (type == WLINK_ADAPTER_LOADED && !code) {
		m.instance.digest[0] = id;
		m.instance.activated = 1;
		m.instance.rank = 8;
		m.instance.n_invocation = 2;
		m.instance.invocation[0] = 7;
		m.instance.invocation[1] = 8;
		m.weight_bytes = 4096;
	}
	snprintf(m.text, sizeof(m.text), "%s", text);
	wctl_send(WLINK_FD_SOCKET, &m, sizeof(m), NULL, 0);
}

static struct adapter *adapter_of(uint64_t id, const char *name)
{
	for (int i = 0; i < MAX_ADAPTERS; i++)
		if (fake.adapters[i].id &&
		    (fake.adapters[i].id == id || !strcmp(fake.adapters[i].name, name)))
			return &fake.adapters[i];
	return NULL;
}

/* Whole, sealed against everything, and only to be read. */
static size_t take_copy(int fd, void *ret, size_t room)
{
	const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;
	struct stat st;
	ssize_t n;

	if (fstat(fd, &st) || (fcntl(fd, F_GET_SEALS) & seals) != seals ||
	    (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY)
		_exit(9);
	n = pread(fd, ret, room, 0);
	if (n < 0 || ((size_t)n < room && n != st.st_size))
		_exit(9);
	return (size_t)n;
}

static void load_adapter(const struct wlink_adapter *m, const int *fds, uint32_t n_fds)
{
	static uint8_t weights[1 << 16];
	struct adapter a = {.id = m->load_id, .offset = m->offset, .on_missing = m->on_missing};
	int i = 0;

	if (n_fds != 2 || !m->load_id || adapter_of(m->load_id, m->name) ||
	    !fake.domains[MAX_DOMAINS - 1].told)
		_exit(9);
	fake.loads++;
	fake.late_loads += fake.had_session;
	memcpy(a.name, m->name, sizeof(a.name));
	take_copy(fds[0], a.words, sizeof(a.words) - 1);
	a.weights = digest(weights, take_copy(fds[1], weights, sizeof(weights)));
	if (strstr(a.words, "crash"))
		_exit(5);
	if (strstr(a.words, "never"))
		return;
	if (strstr(a.words, "slow"))
		wd_sleep_ms(300);
	if (strstr(a.words, "refuse")) {
		answer_adapter(WLINK_ADAPTER_LOADED, a.id, -EINVAL, 0, "lora_X is not known");
		return;
	}
	a.in_use = strstr(a.words, "used") ? 3 : 0;
	while (fake.adapters[i].id)
		i++;
	fake.adapters[i] = a;
	/* As if a step had been made: the restarts that tests go on with need no patience. */
	atomic_fetch_add(&fake.heartbeat->steps, 1);
	answer_adapter(WLINK_ADAPTER_LOADED, a.id, strstr(a.words, "liar") ? 5 : 0, 0, "");
}

/* Requests that use it end one with each attempt. */
static void unload_adapter(const struct wlink_unload *m)
{
	struct adapter *a = adapter_of(m->load_id, "");

	if (!a)
		_exit(9);
	if (a->in_use && !m->force) {
		answer_adapter(WLINK_ADAPTER_UNLOADED, a->id, -EBUSY, a->in_use--, "");
		return;
	}
	a->id = 0;
	answer_adapter(WLINK_ADAPTER_UNLOADED, m->load_id, 0, 0, "");
}

/* --- pins -----------------------------------------------------------------------------------------*/

static void answer_pin(const struct pin *p, int code, const char *text)
{
	struct wlink_pinned m = {.pin_id = p->id, .tokens = code ? 0 : p->n_tokens / 16 * 16};

	wctl_head_init(&m.head, WLINK_PINNED, sizeof(m), code);
	snprintf(m.text, sizeof(m.text), "%s", text);
	wctl_send(WLINK_FD_SOCKET, &m, sizeof(m), NULL, 0);
}

static void pin(const struct wlink_pin *m, const int *fds, uint32_t n_fds)
{
	static uint32_t tokens[1 << 17];
	uint32_t domain = m->domain == WLINK_PUBLIC ? MAX_DOMAINS - 1 : m->domain;
	struct pin p = {.id = m->pin_id, .domain = m->domain, .n_tokens = m->n_tokens};
	int i = 0;

	if (n_fds != 1 || !m->pin_id || domain >= MAX_DOMAINS || !fake.domains[domain].told ||
	    take_copy(fds[0], tokens, sizeof(tokens)) != m->n_tokens * sizeof(*tokens))
		_exit(9);
	p.tokens = digest((const uint8_t *)tokens, m->n_tokens * sizeof(*tokens));
	if (tokens[0] == 13) {
		answer_pin(&p, -ENOSPC, "no room");
		return;
	}
	if (tokens[0] == 15)
		_exit(5);
	p.waits = tokens[0] == 14;
	while (fake.pins[i].id)
		if (fake.pins[i++].id == p.id)
			_exit(9);
	fake.pins[i] = p;
	if (!p.waits)
		answer_pin(&p, 0, "");
}

static void unpin(uint64_t id)
{
	for (int i = 0; i < MAX_PINS; i++) {
		struct pin *p = &fake.pins[i];

		if (p->id != id)
			continue;
		if (p->waits)
			answer_pin(p, -ECANCELED, "");
		p->id = 0;
		return;
	}
	_exit(9);
}

/* A domain of which nothing is known: as the real engine says it. */
static void drop(struct wlink_drop *m)
{
	uint32_t domain = m->domain == WLINK_PUBLIC ? MAX_DOMAINS - 1 : m->domain;
	bool known = m->all || (domain < MAX_DOMAINS && fake.domains[domain].told);

	wctl_head_init(&m->head, WLINK_DROPPED, sizeof(*m), known ? 0 : -ENOENT);
	m->blocks = m->all ? 99 : 7;
	wctl_send(WLINK_FD_SOCKET, m, sizeof(*m), NULL, 0);
}

/* --- sessions -------------------------------------------------------------------------------------*/

static void attach(const struct wlink_attach *m, int *fds, uint32_t n_fds)
{
	struct wshm_layout layout;
	int i = 0;

	while (i < MAX_SESSIONS && fake.sessions[i].used)
		i++;
	if (n_fds != 4 || i == MAX_SESSIONS || m->tenant >= MAX_TENANTS ||
	    !fake.tenants[m->tenant].name[0] || !fake.domains[m->tenant].told ||
	    !fake.domains[MAX_DOMAINS - 1].told || wshm_layout_init(&layout, &m->params) ||
	    wshm_engine_open(&fake.sessions[i].shm, &layout, fds[0], fds[1], m->resume))
		_exit(9);
	fake.sessions[i].used = true;
	fake.sessions[i].id = m->session_id;
	fake.attached++;
	fake.had_session = true;
	fake.resumed += m->resume != WLINK_RESUME_NONE;
	fake.crashed += m->resume == WLINK_RESUME_CRASHED;
	fake.restarts = (int)m->restarts;
	wshm_engine_set_state(&fake.sessions[i].shm, WSHM_ENGINE_RUNNING, WSHM_OK,
			      (uint64_t)getpid());
	misbehave(m->session_id);
}

static void detach(uint64_t id)
{
	for (int i = 0; i < MAX_SESSIONS; i++)
		if (fake.sessions[i].used && fake.sessions[i].id == id) {
			wshm_engine_close(&fake.sessions[i].shm);
			fake.sessions[i].used = false;
			fake.attached--;
			tell_session(WLINK_DETACHED, id);
			return;
		}
	_exit(9);
}

/* Is there a file of this name beside the log, which standard error goes to? */
static bool beside_log(const char *name)
{
	char path[128];
	ssize_t n = readlink("/proc/self/fd/2", path, sizeof(path) - 20);

	while (n > 0 && path[n - 1] != '/')
		n--;
	if (n <= 0)
		_exit(7);
	strcpy(path + n, name);
	return !access(path, F_OK);
}

/* Until a weftd has said that it waits for this to end. */
static void outlive(void)
{
	static char text[1 << 16];
	int fd = open("/proc/self/fd/2", O_RDONLY | O_CLOEXEC);

	for (int ms = 0; fd >= 0 && ms < WD_PATIENCE_MS; ms += 20) {
		ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

		text[n < 0 ? 0 : n] = 0;
		if (strstr(text, "is still ending"))
			break;
		wd_sleep_ms(20);
	}
}

static void serve(void)
{
	union {
		struct wctl_head head;
		struct wlink_attach attach;
		struct wlink_session session;
		struct wlink_tenant tenant;
		struct wlink_domain domain;
		struct wlink_adapter adapter;
		struct wlink_unload unload;
		struct wlink_pin pin;
		struct wlink_drop drop;
		struct wlink_drain drain;
	} m;
	int fds[4];
	uint32_t n = 4;
	int got;

	while ((got = wctl_recv(WLINK_FD_SOCKET, &m, sizeof(m), fds, &n)) > 0) {
		if (m.head.type == WLINK_ATTACH)
			attach(&m.attach, fds, n);
		else if (m.head.type == WLINK_DETACH)
			detach(m.session.session_id);
		else if (m.head.type == WLINK_TENANT && m.tenant.tenant < MAX_TENANTS)
			fake.tenants[m.tenant.tenant] = m.tenant;
		else if (m.head.type == WLINK_DOMAIN)
			take_domain(&m.domain, fds, n);
		else if (m.head.type == WLINK_ADAPTER_LOAD)
			load_adapter(&m.adapter, fds, n);
		else if (m.head.type == WLINK_ADAPTER_UNLOAD)
			unload_adapter(&m.unload);
		else if (m.head.type == WLINK_PIN)
			pin(&m.pin, fds, n);
		else if (m.head.type == WLINK_UNPIN)
			unpin(m.pin.pin_id);
		else if (m.head.type == WLINK_DROP)
			drop(&m.drop);
		else if (m.head.type == WLINK_NUDGE && !is("deaf"))
			tell(WLINK_NUDGED);
		else if (m.head.type == WLINK_STATUS)
			tell_status();
		else if (m.head.type == WLINK_DRAIN && !is("stubborn"))
			tell(WLINK_DRAINED);
		for (uint32_t i = 0; i < n && i < 4; i++)
			close(fds[i]);
		n = 4;
	}
	if (is("stubborn"))
		sleep(60);
	if (is("orphan"))
		outlive();
}

static void load(void)
{
	struct wlink_progress p = {.done_bytes = 1, .total_bytes = 2};
	struct wctl_text t = {0};

	if (is("die"))
		_exit(3);
	if (is("usage"))
		_exit(2);
	if (is("orphan"))
		prctl(PR_SET_PDEATHSIG, 0);
	if (is("refuse")) {
		wctl_head_init(&t.head, WLINK_FAILED, sizeof(t), -1);
		strcpy(t.text, "config.json: unknown architecture \"Foo\"");
		wctl_send(WLINK_FD_SOCKET, &t, sizeof(t), NULL, 0);
		_exit(1);
	}
	if (is("short") && beside_log("hold")) {
		wctl_head_init(&t.head, WLINK_FAILED, sizeof(t), -ENOMEM);
		strcpy(t.text, "no memory for a weight");
		wctl_send(WLINK_FD_SOCKET, &t, sizeof(t), NULL, 0);
		_exit(1);
	}
	if (is("silent"))
		for (;;)
			pause();
	if (is("slow")) {
		wctl_head_init(&p.head, WLINK_PROGRESS, sizeof(p), 0);
		wctl_send(WLINK_FD_SOCKET, &p, sizeof(p), NULL, 0);
		for (int ms = 0; beside_log("hold") && ms < WD_PATIENCE_MS; ms += 10)
			wd_sleep_ms(10);
	}
}

/* The engine may hold the three descriptors that it is given, the standard ones, and no more. */
static void check_inheritance(void)
{
	for (int fd = WLINK_FD_FILES + 1; fd < 256; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			_exit(8);
}

void wd_engine_or_test(int argc, char **argv)
{
	fake.kind = NULL;
	if (argc < 5 || strcmp(argv[0], "weft-engine"))
		return;
	for (int i = 1; i + 1 < argc; i += 2)
		if (!strcmp(argv[i], "--model"))
			fake.kind = strrchr(argv[i + 1], '/') + 1;
	if (!fake.kind)
		_exit(7);
	check_inheritance();
	fake.heartbeat =
		mmap(NULL, WSHM_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, WLINK_FD_HEARTBEAT, 0);
	if (fake.heartbeat == MAP_FAILED)
		_exit(7);
	load();
	tell_ready();
	serve();
	_exit(0);
}
