/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of the control sockets: whole or refused, and no descriptor is ever left open. */
#include "shm/wshm_control.h"
#include "tests/tap.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static int pair[2];

static int open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

static void send_raw(const void *data, size_t bytes, int n_fds)
{
	char space[CMSG_SPACE(32 * sizeof(int))] = {0};
	struct iovec iov = {(void *)data, bytes};
	struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};

	if (n_fds) {
		struct cmsghdr *c;

		mh.msg_control = space;
		mh.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&mh);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		for (int i = 0, fd = 0; i < n_fds; i++)
			memcpy(CMSG_DATA(c) + i * sizeof(int), &fd, sizeof(int));
	}
	if (sendmsg(pair[0], &mh, MSG_NOSIGNAL) != (ssize_t)bytes)
		bail_out("sendmsg failed");
}

static void test_round_trip(void)
{
	struct wctl_text out = {0}, in;
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), zero = open("/dev/zero", O_RDONLY);
	int send_fds[2] = {null, zero}, fds[4];
	struct stat a, b;
	uint32_t n = 4;

	wctl_head_init(&out.head, WCTL_BYE, sizeof(out), -EPIPE);
	strcpy(out.text, "over");
	is_int(wctl_send(pair[0], &out, sizeof(out), send_fds, 2), 0, "a message is sent");
	is_int(wctl_recv(pair[1], &in, sizeof(in), fds, &n), sizeof(in), "and received whole");
	is_int(n, 2, "with its two descriptors");
	ok(in.head.type == WCTL_BYE && in.head.code == -EPIPE && !strcmp(in.text, "over"),
	   "contents are the same");
	ok(!fstat(fds[1], &a) && !fstat(zero, &b) && a.st_rdev == b.st_rdev, "in their order");
	ok(fcntl(fds[0], F_GETFD) & FD_CLOEXEC, "descriptors are close-on-exec");
	close(fds[0]);
	close(fds[1]);
	close(null);
	close(zero);
	errno = 0;
	is_int(wctl_recv(pair[1], &in, sizeof(in), NULL, NULL), -EAGAIN, "nothing more: -EAGAIN");
}

static void expect(const char *what, const void *data, size_t bytes, int n_fds, int want)
{
	char buf[sizeof(struct wctl_text)];
	int before = open_fds(), fds[2];
	uint32_t n = 2;
	int got;

	send_raw(data, bytes, n_fds);
	got = wctl_recv(pair[1], buf, sizeof(buf), fds, &n);
	is_int(got, want, "%s", what);
	for (uint32_t i = 0; got > 0 && i < n && i < 2; i++)
		close(fds[i]);
	is_int(open_fds(), before, "%s: no descriptor stays open", what);
}

static void test_malformed(void)
{
	char big[sizeof(struct wctl_text) + 64] = {0};
	struct wctl_head h;

	wctl_head_init(&h, WCTL_MODELS, sizeof(h), 0);
	expect("a bare head", &h, sizeof(h), 0, sizeof(h));
	expect("two descriptors", &h, sizeof(h), 2, sizeof(h));
	expect("three descriptors where two are wanted", &h, sizeof(h), 3, sizeof(h));
	expect("more descriptors than any message has", &h, sizeof(h), 20, -EPROTO);
	expect("half a head", &h, sizeof(h) / 2, 1, -EPROTO);
	memcpy(big, &h, sizeof(h));
	expect("more bytes than stated", big, sizeof(h) + 1, 1, -EPROTO);
	h.bytes = sizeof(big);
	memcpy(big, &h, sizeof(h));
	expect("longer than the receiver's room", big, sizeof(big), 1, -EPROTO);
	expect("fewer bytes than stated", &h, sizeof(h), 2, -EPROTO);
	h.bytes = sizeof(h);
	h.magic ^= 1;
	expect("another magic", &h, sizeof(h), 1, -EPROTO);
}

static void test_no_descriptors_left(void)
{
	struct rlimit old, low;
	struct wctl_head h;
	int fds[4];
	uint32_t n = 4;

	wctl_head_init(&h, WCTL_MODELS, sizeof(h), 0);
	send_raw(&h, sizeof(h), 3);
	getrlimit(RLIMIT_NOFILE, &old);
	low = old;
	low.rlim_cur = (rlim_t)dup(0); /* the lowest free number: not one more may be opened */
	close((int)low.rlim_cur);
	setrlimit(RLIMIT_NOFILE, &low);
	is_int(wctl_recv(pair[1], &h, sizeof(h), fds, &n), -EMFILE, "a full table: -EMFILE");
	is_int(n, 0, "and nothing to close");
	setrlimit(RLIMIT_NOFILE, &old);
}

static void test_send_failures(void)
{
	struct wctl_text t = {0};
	int rc, sent = 0, bad = -1;

	wctl_head_init(&t.head, WCTL_BYE, sizeof(t), 0);
	is_int(wctl_send(pair[0], &t, 4, NULL, 0), -EINVAL, "shorter than a head: refused");
	is_int(wctl_send(pair[0], &t, sizeof(t), NULL, WCTL_MAX_FDS + 1), -EINVAL,
	       "too many descriptors: refused");
	is_int(wctl_send(pair[0], &t, sizeof(t), &bad, 1), -EBADF, "a bad descriptor: -EBADF");
	while (!(rc = wctl_send(pair[0], &t, sizeof(t), NULL, 0)) && sent < 100000)
		sent++;
	is_int(rc, -EAGAIN, "a peer that does not read: -EAGAIN, no blocking");
	close(pair[1]);
	rc = wctl_send(pair[0], &t, sizeof(t), NULL, 0);
	ok(rc == -EPIPE || rc == -ECONNRESET, "a peer that is gone: an error, no signal");
}

int main(void)
{
	char buf[64];
	struct wctl_head h;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair))
		bail_out("socketpair");
	test_round_trip();
	test_malformed();
	test_no_descriptors_left();
	wctl_head_init(&h, WCTL_MODELS, sizeof(h), 0);
	wctl_send(pair[1], &h, sizeof(h), NULL, 0);
	is_int(wctl_recv(pair[0], buf, sizeof(buf), NULL, NULL), sizeof(h), "no room wanted");
	test_send_failures();
	is_int(wctl_recv(pair[0], buf, sizeof(buf), NULL, NULL), 0, "hang-up is 0");
	return tap_done();
}
