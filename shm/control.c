/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.c - one message of a control socket, with its descriptors, in or out.
 *
 * What arrives is checked as far as every receiver needs it: a packet that was cut off, is shorter
 * than a head, has another magic or states another size than it has is refused here, and its
 * descriptors are closed. Type and contents are the caller's to judge. Nothing is kept between
 * calls; sockets belong to their callers.
 */
#include "shm/wshm_control.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

union fd_space {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(WCTL_MAX_FDS * sizeof(int))];
};

void wctl_head_init(struct wctl_head *h, enum wctl_type type, uint32_t bytes, int32_t code)
{
	*h = (struct wctl_head){
		.magic = WCTL_MAGIC,
		.type = (uint16_t)type,
		.major = WSHM_MAJOR,
		.bytes = bytes,
		.code = code,
	};
}

int wctl_send(int sock, const void *msg, uint32_t bytes, const int *fds, uint32_t n_fds)
{
	struct iovec iov = {.iov_base = (void *)msg, .iov_len = bytes};
	struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};
	union fd_space space;
	ssize_t n;

	if (n_fds > WCTL_MAX_FDS || bytes < sizeof(struct wctl_head))
		return -EINVAL;
	if (n_fds) {
		struct cmsghdr *c;

		memset(&space, 0, sizeof(space));
		mh.msg_control = space.bytes;
		mh.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&mh);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
	}
	do {
		n = sendmsg(sock, &mh, MSG_NOSIGNAL | MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	return (uint32_t)n == bytes ? 0 : -EIO; /* a packet goes whole or not at all */
}

/* Collect what arrived into got[WCTL_MAX_FDS]; more cannot fit the space given to the kernel. */
static uint32_t take_fds(struct msghdr *mh, int *got)
{
	uint32_t n = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(mh); c; c = CMSG_NXTHDR(mh, c)) {
		size_t count;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count && n < WCTL_MAX_FDS; i++)
			memcpy(&got[n++], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
	}
	return n;
}

static void close_fds(const int *fds, uint32_t from, uint32_t to)
{
	for (uint32_t i = from; i < to; i++)
		close(fds[i]);
}

/* A whole, well-formed packet? */
static int judge(const struct msghdr *mh, const void *buf, ssize_t n)
{
	struct wctl_head h;

	if ((mh->msg_flags & MSG_TRUNC) || (size_t)n < sizeof(h))
		return -EPROTO;
	memcpy(&h, buf, sizeof(h));
	return h.magic == WCTL_MAGIC && h.bytes == (uint32_t)n ? 0 : -EPROTO;
}

int wctl_recv(int sock, void *buf, uint32_t buf_bytes, int *fds, uint32_t *n_fds)
{
	struct iovec iov = {.iov_base = buf, .iov_len = buf_bytes};
	union fd_space space;
	struct msghdr mh = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = space.bytes,
		.msg_controllen = sizeof(space.bytes),
	};
	uint32_t room = fds && n_fds ? *n_fds : 0, arrived, kept;
	int got[WCTL_MAX_FDS], err;
	ssize_t n;

	if (n_fds)
		*n_fds = 0;
	do {
		n = recvmsg(sock, &mh, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;

	arrived = take_fds(&mh, got);
	err = n ? judge(&mh, buf, n) : 0;
	/* Cut off with room to spare: this process has no free descriptors. */
	if (!err && (mh.msg_flags & MSG_CTRUNC))
		err = arrived < WCTL_MAX_FDS ? -EMFILE : -EPROTO;
	if (err || !n) {
		close_fds(got, 0, arrived);
		return err;
	}
	kept = arrived < room ? arrived : room;
	if (kept)
		memcpy(fds, got, kept * sizeof(int));
	close_fds(got, kept, arrived);
	if (n_fds)
		*n_fds = arrived;
	return (int)n;
}
