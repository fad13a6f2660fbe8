/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients that never read their welcome, and make weftd end the session: its descriptors stay in
 * their sockets, on their way, and the kernel limits how many of these weftd may have, of all
 * clients together. So such a session counts until it has been read or the socket closed, and a
 * tenant can have no more of them than sessions.
 */
#include "tests/hostile/raw.h"
#include "tests/hostile/world.h"
#include "tests/tap.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#define SESSIONS 5

static struct world *w;

/* Say hello, let the welcome lie, have the session ended. The socket. */
static int leave_unread(void)
{
	int sock = raw_connect(world_socket(w), world_attacker());
	struct pollfd p = {sock, POLLIN, 0};
	struct wctl_hello h;

	raw_hello_init(&h);
	h.slots = 1;
	h.tx_arena_bytes = h.rx_arena_bytes = 4096;
	if (sock < 0 || raw_send(sock, &h, sizeof(h), NULL, 0) || poll(&p, 1, RAW_PATIENCE_MS) != 1)
		bail_out("no answer to a hello");
	raw_send(sock, "garbage", 7, NULL, 0);
	for (int i = 0; i < RAW_PATIENCE_MS && !(p.revents & POLLHUP); i++) {
		p.events = 0;
		poll(&p, 1, 1);
	}
	if (!(p.revents & POLLHUP))
		bail_out("garbage does not end a session");
	return sock;
}

static uint16_t next_message(int sock, uint32_t *ret_fds)
{
	int fds[WCTL_WELCOME_FDS];
	union {
		struct wctl_head head;
		struct wctl_welcome welcome;
	} m = {0};

	*ret_fds = WCTL_WELCOME_FDS;
	if (raw_recv(sock, &m, sizeof(m), fds, ret_fds, RAW_PATIENCE_MS) <= 0)
		return 0;
	for (uint32_t i = 0; i < *ret_fds; i++)
		close(fds[i]);
	return m.head.type;
}

int main(void)
{
	const char *quota = "max_sessions = 5"; /* SESSIONS */
	struct neighbours *n = NULL;
	int sock[SESSIONS];
	uint32_t fds;
	struct raw r;

	w = world_start(
		&(struct world_options){.honest = geteuid() ? quota : NULL, .other = quota});
	if (!geteuid())
		n = neighbours_start(w, 1);
	for (int i = 0; i < SESSIONS; i++)
		sock[i] = leave_unread();
	is_int(raw_open(&r, world_socket(w), world_attacker(), 2), -EACCES,
	       "a tenant with as many welcomes unread as it may have sessions is refused another");
	ok(strstr(r.refusal.text, "session"), "told why: %s", r.refusal.text);
	is_int(next_message(sock[0], &fds), WCTL_WELCOME, "the welcome can be read after the end");
	is_int(fds, WCTL_WELCOME_FDS, "with what came with it");
	is_int(next_message(sock[0], &fds), WCTL_BYE, "then the goodbye");
	is_int(raw_open(&r, world_socket(w), world_attacker(), 2), 0, "and one has room");
	raw_close(&r);
	close(sock[1]);
	is_int(raw_open(&r, world_socket(w), world_attacker(), 2), 0, "a closed one has gone, too");
	raw_close(&r);
	if (n)
		neighbours_stop(n);
	for (int i = 0; i < SESSIONS; i++)
		if (i != 1)
			close(sock[i]);
	ok(world_number_becomes(w, "sessions", 0, RAW_PATIENCE_MS),
	   "all have gone when their clients have");
	world_same(w);
	world_given_back(w);
	for (int i = 0; i < 3; i++)
		leave_unread();
	world_stop(w);
	return tap_done();
}
