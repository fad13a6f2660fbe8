/* SPDX-License-Identifier: Apache-2.0 */
/* raw.c - see raw.h. */
#include "tests/hostile/raw.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define READY_MS 60000
#define REPLY_MS RAW_PATIENCE_MS

uint64_t raw_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

void raw_pause_us(unsigned us)
{
	struct timespec ts = {us / 1000000, us % 1000000 * 1000L};

	nanosleep(&ts, NULL);
}

/* --- socket ---------------------------------------------------------------------------------------*/

int raw_connect(const char *path, uid_t uid)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), err = 0;

	if (sock < 0)
		return -errno;
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	if (uid != RAW_ANY_UID && seteuid(uid))
		err = -errno;
	if (!err && connect(sock, (struct sockaddr *)&sa, sizeof(sa)))
		err = -errno;
	if (uid != RAW_ANY_UID && seteuid(getuid()) && !err)
		err = -errno;
	if (err) {
		close(sock);
		return err;
	}
	return sock;
}

void raw_hello_init(struct wctl_hello *h)
{
	*h = (struct wctl_hello){
		.head = {WCTL_MAGIC, WCTL_HELLO, WSHM_MAJOR, sizeof(*h), 0},
		.minor = WSHM_MINOR,
	};
}

int raw_send(int sock, const void *msg, size_t bytes, const int *fds, uint32_t n_fds)
{
	struct iovec iov = {(void *)msg, bytes};
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(64 * sizeof(int))];
	} space = {0};
	struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};

	if (n_fds) {
		struct cmsghdr *c = &space.align;

		mh.msg_control = space.bytes;
		mh.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
	}
	return sendmsg(sock, &mh, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

int raw_recv(int sock, void *buf, size_t bytes, int *fds, uint32_t *n_fds, int timeout_ms)
{
	struct pollfd p = {sock, POLLIN, 0};
	struct iovec iov = {buf, bytes};
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(WCTL_MAX_FDS * sizeof(int))];
	} space;
	struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};
	uint32_t room = n_fds ? *n_fds : 0;
	ssize_t n;

	if (n_fds) {
		*n_fds = 0;
		mh.msg_control = space.bytes;
		mh.msg_controllen = sizeof(space.bytes);
	}
	if (poll(&p, 1, timeout_ms) != 1)
		return -ETIMEDOUT;
	n = recvmsg(sock, &mh, MSG_CMSG_CLOEXEC);
	if (n < 0)
		return errno == ECONNRESET ? 0 : -errno;
	for (struct cmsghdr *c = room ? CMSG_FIRSTHDR(&mh) : NULL; c; c = CMSG_NXTHDR(&mh, c)) {
		uint32_t count = (uint32_t)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));

		for (uint32_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (*n_fds < room)
				fds[(*n_fds)++] = fd;
			else
				close(fd);
		}
	}
	return (int)n;
}

/* --- session --------------------------------------------------------------------------------------*/

static const struct wshm_section *section(const void *region, uint32_t id)
{
	const struct wshm_hdr *h = region;

	for (uint32_t i = 0; i < h->n_sections && i < WSHM_MAX_SECTIONS; i++)
		if (h->sections[i].id == id)
			return &h->sections[i];
	return NULL;
}

static void *map(int fd, int prot, uint64_t *ret_bytes)
{
	off_t end = lseek(fd, 0, SEEK_END);
	void *p = end > 0 ? mmap(NULL, (size_t)end, prot, MAP_SHARED, fd, 0) : MAP_FAILED;

	*ret_bytes = end > 0 ? (uint64_t)end : 0;
	return p == MAP_FAILED ? NULL : p;
}

int raw_map(struct raw *r)
{
	r->tx = map(r->tx_fd, PROT_READ | PROT_WRITE, &r->tx_bytes);
	r->rx = map(r->rx_fd, PROT_READ, &r->rx_bytes);
	if (!r->tx || !r->rx)
		return -EIO;
	r->tx_ctl = (void *)(r->tx + section(r->tx, WSHM_SEC_CTL)->off);
	r->rx_ctl = (const void *)(r->rx + section(r->rx, WSHM_SEC_CTL)->off);
	r->sq = (void *)(r->tx + section(r->tx, WSHM_SEC_RING)->off);
	r->req = (void *)(r->tx + section(r->tx, WSHM_SEC_TABLE)->off);
	r->slot = (const void *)(r->rx + section(r->rx, WSHM_SEC_TABLE)->off);
	r->tx_arena = r->tx + section(r->tx, WSHM_SEC_ARENA)->off;
	r->slots = section(r->rx, WSHM_SEC_TABLE)->entries;
	r->ring_entries = section(r->tx, WSHM_SEC_RING)->entries;
	return 0;
}

static int wait_running(const struct raw *r)
{
	uint64_t until = raw_now_ns() + READY_MS * UINT64_C(1000000);

	while (atomic_load(&r->rx_ctl->engine_state) == WSHM_ENGINE_STARTING) {
		if (raw_now_ns() > until)
			return -ETIMEDOUT;
		raw_pause_us(1000);
	}
	return 0;
}

int raw_open_hello(struct raw *r, const char *path, uid_t uid, const struct wctl_hello *h)
{
	union {
		struct wctl_welcome welcome;
		struct wctl_text text;
	} m = {0};
	int fds[WCTL_WELCOME_FDS] = {-1, -1, -1, -1, -1, -1}, n, err;
	uint32_t n_fds = WCTL_WELCOME_FDS;

	*r = RAW_NONE;
	r->sock = raw_connect(path, uid);
	if (r->sock < 0)
		return r->sock;
	err = raw_send(r->sock, h, sizeof(*h), NULL, 0);
	if (err)
		goto fail;
	n = raw_recv(r->sock, &m, sizeof(m), fds, &n_fds, REPLY_MS);
	r->tx_fd = fds[0];
	r->rx_fd = fds[1];
	r->wake_fd = fds[2];
	r->bell_fd = fds[3];
	r->index_fd = fds[4];
	r->public_fd = fds[5];
	err = n < 0 ? n : -EPROTO;
	if (n == (int)sizeof(m.text) && m.text.head.type == WCTL_REFUSED) {
		r->refusal = m.text;
		err = -EACCES;
	}
	if (n != (int)sizeof(m.welcome) || m.welcome.head.type != WCTL_WELCOME ||
	    n_fds != WCTL_WELCOME_FDS)
		goto fail;
	r->welcome = m.welcome;
	err = raw_map(r);
	if (!err)
		err = wait_running(r);
	if (!err)
		return 0;
fail:
	raw_close(r);
	return err;
}

int raw_open(struct raw *r, const char *path, uid_t uid, uint32_t slots)
{
	struct wctl_hello h;

	raw_hello_init(&h);
	h.slots = slots;
	h.tx_arena_bytes = raw_arena_bytes(slots);
	h.rx_arena_bytes = UINT64_C(1) << 20;
	return raw_open_hello(r, path, uid, &h);
}

void raw_close(struct raw *r)
{
	int *fds[] = {&r->sock,	   &r->tx_fd,	 &r->rx_fd,    &r->wake_fd,
		      &r->bell_fd, &r->index_fd, &r->public_fd};

	for (size_t i = 0; i < sizeof(fds) / sizeof(*fds); i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
	if (r->tx)
		munmap(r->tx, r->tx_bytes);
	if (r->rx)
		munmap((void *)(uintptr_t)r->rx, r->rx_bytes);
	r->tx = NULL;
	r->rx = NULL;
}

/* --- requests -------------------------------------------------------------------------------------*/

#define SLOT_ROOM (WSHM_MAX_DESC + RAW_PROMPT_MAX * 4)

uint64_t raw_desc_off(uint32_t slot)
{
	return (uint64_t)slot * SLOT_ROOM;
}

uint64_t raw_prompt_off(uint32_t slot)
{
	return raw_desc_off(slot) + WSHM_MAX_DESC;
}

uint64_t raw_arena_bytes(uint32_t slots)
{
	return (uint64_t)slots * SLOT_ROOM;
}

/* msgpack's shortest form of an unsigned number. */
static uint8_t *put_uint(uint8_t *p, uint64_t v)
{
	int bytes = v < 128 ? 0 : v < 256 ? 1 : v < 65536 ? 2 : v <= UINT32_MAX ? 4 : 8;

	if (!bytes) {
		*p++ = (uint8_t)v;
		return p;
	}
	*p++ = bytes == 1 ? 0xcc : bytes == 2 ? 0xcd : bytes == 4 ? 0xce : 0xcf;
	while (bytes--)
		*p++ = (uint8_t)(v >> (8 * bytes));
	return p;
}

uint32_t raw_desc(uint8_t *buf, uint64_t prompt_off, uint64_t tokens, uint32_t n,
		  uint32_t max_tokens)
{
	uint8_t *p = buf;

	*p++ = n ? 0x84 : 0x83; /* a map of so many pairs */
	*p++ = WSHM_KEY_PROMPT;
	*p++ = 0x92; /* an array of two */
	p = put_uint(p, prompt_off);
	p = put_uint(p, tokens);
	if (n) {
		*p++ = WSHM_KEY_N;
		p = put_uint(p, n);
	}
	*p++ = WSHM_KEY_MAX_TOKENS;
	p = put_uint(p, max_tokens);
	*p++ = WSHM_KEY_IGNORE_EOS;
	*p++ = 0xc3; /* true */
	return (uint32_t)(p - buf);
}

void raw_prepare(struct raw *r, uint32_t slot, uint32_t generation, uint32_t seed, uint32_t tokens,
		 uint32_t max_tokens)
{
	uint32_t vocab = r->welcome.model.vocab ? r->welcome.model.vocab : 16;
	uint32_t *prompt = (uint32_t *)(r->tx_arena + raw_prompt_off(slot));
	uint32_t bytes = raw_desc(r->tx_arena + raw_desc_off(slot), raw_prompt_off(slot), tokens, 0,
				  max_tokens);

	for (uint32_t i = 0; i < tokens; i++)
		prompt[i] = (seed + 7 * i) % (vocab - 1); /* the last one: see test_poison */
	atomic_store(&r->req[slot].desc_off, raw_desc_off(slot));
	atomic_store(&r->req[slot].desc_bytes, bytes);
	atomic_store(&r->req[slot].generation, generation);
}

void raw_wake(const struct raw *r)
{
	uint64_t one = 1;

	if (atomic_load(&r->rx_ctl->need_wake) && write(r->wake_fd, &one, sizeof(one)) < 0)
		return; /* full or broken by the test itself */
}

void raw_push(struct raw *r, uint32_t slot, uint32_t generation)
{
	atomic_store(&r->sq[r->tail & (r->ring_entries - 1)], (uint64_t)generation << 32 | slot);
	atomic_store(&r->tx_ctl->sq_tail, ++r->tail);
	raw_wake(r);
}

void raw_submit(struct raw *r, uint32_t slot, uint32_t generation, uint32_t seed, uint32_t tokens,
		uint32_t max_tokens)
{
	raw_prepare(r, slot, generation, seed, tokens, max_tokens);
	raw_push(r, slot, generation);
}

void raw_release(struct raw *r, uint32_t slot, uint32_t generation)
{
	atomic_store(&r->req[slot].released, generation);
	raw_wake(r);
}

bool raw_wait_state(const struct raw *r, uint32_t slot, uint32_t generation, uint32_t state,
		    int timeout_ms)
{
	uint64_t until = raw_now_ns() + (uint64_t)timeout_ms * 1000000;

	while (atomic_load(&r->slot[slot].generation) != generation ||
	       atomic_load(&r->slot[slot].state) < state) {
		if (raw_now_ns() > until)
			return false;
		raw_pause_us(100);
	}
	return true;
}

bool raw_wait_count(const struct raw *r, uint32_t slot, uint32_t generation, uint32_t count,
		    int timeout_ms)
{
	uint64_t until = raw_now_ns() + (uint64_t)timeout_ms * 1000000;

	while (atomic_load(&r->slot[slot].generation) != generation ||
	       atomic_load(&r->slot[slot].count[0]) < count) {
		if (raw_now_ns() > until)
			return false;
		raw_pause_us(20);
	}
	return true;
}

int raw_request(struct raw *r, uint32_t slot, uint32_t generation, uint32_t tokens,
		uint32_t max_tokens)
{
	int status;

	raw_submit(r, slot, generation, generation, tokens, max_tokens);
	if (!raw_wait_state(r, slot, generation, WSHM_SLOT_ENDED, RAW_PATIENCE_MS))
		return -1;
	status = (int)atomic_load(&r->slot[slot].status);
	raw_release(r, slot, generation);
	return status;
}

bool raw_ended(struct raw *r, int timeout_ms)
{
	uint64_t until = raw_now_ns() + (uint64_t)timeout_ms * 1000000;
	union {
		struct wctl_head head;
		struct wctl_text text;
		uint8_t space[4096];
	} m;

	for (;;) {
		uint64_t now = raw_now_ns();
		int left = now < until ? (int)((until - now) / 1000000) : 0;
		int n = raw_recv(r->sock, &m, sizeof(m), NULL, NULL, left);

		if (n == -ETIMEDOUT)
			return false;
		if (n <= 0)
			return true;
		if (n == (int)sizeof(m.text) && m.head.type == WCTL_BYE)
			r->refusal = m.text;
	}
}

bool raw_alive(struct raw *r, uint32_t slot, uint32_t generation)
{
	return raw_request(r, slot, generation, 5, 3) == WSHM_OK &&
	       atomic_load(&r->rx_ctl->engine_state) == WSHM_ENGINE_RUNNING;
}
