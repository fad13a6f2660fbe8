/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptors as weapons: who closes the last copy of a TCP socket with SO_LINGER and unsent bytes
 * sleeps until the linger time is over, whatever its flags. A client that leaves the last copies in
 * weftd's or the engine's receive queues would choose for how long these stand still.
 */
#include "tests/hostile/raw.h"
#include "tests/hostile/world.h"
#include "tests/tap.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83 /* Linux 6.16 */
#endif

#define LINGER_SECONDS 4

static struct world *w;
static int listener = -1, reader = -1;

/* A connected TCP socket whose bytes nobody reads, and which lingers over them when closed. */
static int lingering(void)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct linger l = {1, LINGER_SECONDS};
	socklen_t len = sizeof(sa);
	static char bytes[65536];
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(listener, (struct sockaddr *)&sa, sizeof(sa)) || listen(listener, 1) ||
	    getsockname(listener, (struct sockaddr *)&sa, &len) ||
	    connect(fd, (struct sockaddr *)&sa, sizeof(sa)))
		skip_all("no TCP on the loopback");
	reader = accept(listener, NULL, NULL);
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
	while (send(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
		;
	return fd;
}

/* Without the lingering of our own: the other end resets the connection first. */
static void disarm(void)
{
	struct linger l = {1, 0};

	setsockopt(reader, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
	close(reader);
	close(listener);
}

/* The longest time that weftd and its engine take to answer an administrator. */
static double slowest_answer(void)
{
	double worst = 0;

	for (int i = 0; i < 20; i++) {
		uint64_t start = raw_now_ns();
		double seconds;

		json_decref(world_admin(w, "{\"cmd\":\"status\"}"));
		seconds = (double)(raw_now_ns() - start) / 1e9;
		worst = seconds > worst ? seconds : worst;
		raw_pause_us(20000);
	}
	return worst;
}

static bool kernel_keeps_descriptors_out(void)
{
	int on, s = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	socklen_t len = sizeof(on);
	bool known = !getsockopt(s, SOL_SOCKET, SO_PASSRIGHTS, &on, &len);

	close(s);
	return known;
}

static double by_the_control_socket(int *ret_sent)
{
	int fd = lingering(), sock[12], sent = 0;
	double worst;

	for (int i = 0; i < 12; i++) {
		sock[i] = raw_connect(world_socket(w), world_attacker());
		sent += sock[i] >= 0 && !raw_send(sock[i], "rubbish", 7, &fd, 1);
	}
	if (!sent)
		disarm();
	close(fd);
	worst = slowest_answer();
	for (int i = 0; i < 12; i++)
		if (sock[i] >= 0)
			close(sock[i]);
	if (sent)
		disarm();
	*ret_sent = sent;
	return worst;
}

static double by_the_bell(int *ret_sent)
{
	struct raw r;
	double worst;
	int fd, err;

	if (raw_open(&r, world_socket(w), world_attacker(), 2))
		bail_out("a raw client is refused");
	fd = lingering();
	err = raw_send(r.bell_fd, "x", 1, &fd, 1);
	if (err)
		disarm();
	close(fd);
	raw_close(&r);
	worst = slowest_answer();
	if (!err)
		disarm();
	*ret_sent = !err;
	return worst;
}

/* Each time as slow as that, not only once: then it was the machine. */
static void never_held_up(const char *where, double (*attack)(int *ret_sent))
{
	double worst = LINGER_SECONDS;
	int sent = 0;

	for (int i = 0; i < 5 && worst >= LINGER_SECONDS / 2.0; i++)
		worst = attack(&sent);
	ok(worst < LINGER_SECONDS / 2.0, "lingering sockets %s: %d sent, %.3f s", where, sent,
	   worst);
}

int main(void)
{
	struct neighbours *n;

	w = world_start(&(struct world_options){.daemon = NULL});
	n = neighbours_start(w, 1);
	if (kernel_keeps_descriptors_out())
		never_held_up("on the control socket", by_the_control_socket);
	else
		skip(1, "this kernel lets descriptors through any UNIX socket (before 6.16)");
	never_held_up("in the bell", by_the_bell);
	neighbours_stop(n);
	world_same(w);
	world_given_back(w);
	world_stop(w);
	return tap_done();
}
