/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The descriptors that a client shares with the engine, in the worst of hands: its eventfd never
 * written, flooded, filled, drained, made blocking; its bell made blocking, filled, drained,
 * flooded, shut down. The engine must neither block nor spin nor lose anybody else's wake-up.
 */
#include "tests/hostile/raw.h"
#include "tests/hostile/world.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

static struct world *w;
static struct neighbours *n;

static struct raw open_raw(void)
{
	struct raw r;

	if (raw_open(&r, world_socket(w), world_attacker(), 8))
		bail_out("a raw client is refused");
	return r;
}

static void neighbours_ok(const char *what)
{
	ok(neighbours_advance(n, 3, RAW_PATIENCE_MS), "%s: the neighbours go on", what);
}

/* User and system time of a process in milliseconds. */
static long cpu_ms(pid_t pid)
{
	char path[40], line[512];
	unsigned long user = 0, sys = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (f && fgets(line, sizeof(line), f) && strrchr(line, ')'))
		sscanf(strrchr(line, ')') + 1,
		       " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &sys);
	if (f)
		fclose(f);
	return (long)((user + sys) * 1000 / (unsigned long)sysconf(_SC_CLK_TCK));
}

static void make_blocking(int fd)
{
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
}

/* Submit without ever writing the eventfd: own loss, until anything else wakes the engine. */
static void never_written(void)
{
	struct raw r = open_raw();

	raw_prepare(&r, 0, 1, 1, 5, 4);
	atomic_store(&r.sq[0], UINT64_C(1) << 32);
	atomic_store(&r.tx_ctl->sq_tail, 1);
	neighbours_ok("eventfd never written");
	ok(raw_wait_state(&r, 0, 1, WSHM_SLOT_ENDED, RAW_PATIENCE_MS),
	   "and it gets on with their wake-ups");
	raw_close(&r);
}

/* One request after another wakes the engine as often as a flooder does, and for a reason. */
static void busy(void)
{
	struct raw r = open_raw();
	uint64_t start = raw_now_ns();
	uint32_t g = 0, well = 0;

	while (raw_now_ns() - start < UINT64_C(2000000000) && g < 12000) {
		g++;
		raw_submit(&r, g % 8, g, g, 2, 1);
		while (atomic_load(&r.slot[g % 8].generation) != g ||
		       atomic_load(&r.slot[g % 8].state) != WSHM_SLOT_ENDED)
			sched_yield();
		well += atomic_load(&r.slot[g % 8].status) == WSHM_OK;
		raw_release(&r, g % 8, g);
		raw_pause_us(1); /* let it fall asleep */
	}
	diag("%u requests in %.1f s", g, (raw_now_ns() - start) / 1e9);
	is_int(well, g, "a client in a hurry is served");
	ok(!world_logged(w, "event=muted"), "and not taken for a flooder");
	raw_close(&r);
}

static void filled(void)
{
	const uint64_t most = UINT64_MAX - 1;
	struct raw r = open_raw();
	uint64_t one = 1;

	ok(write(r.wake_fd, &most, sizeof(most)) == sizeof(most), "eventfd filled to its maximum");
	raw_pause_us(20000);
	neighbours_ok("eventfd full");
	ok(write(r.wake_fd, &one, sizeof(one)) < 0, "it stays full: the engine does not read it");
	raw_submit(&r, 0, 1, 1, 5, 4);
	neighbours_ok("submitted with a full eventfd");
	raw_close(&r);
}

static void drained(void)
{
	struct raw r = open_raw();
	uint64_t v;
	int served = 0;

	make_blocking(r.wake_fd);
	make_blocking(r.bell_fd);
	for (uint32_t g = 1; g < 30; g++) {
		raw_submit(&r, 0, g, 1, 5, 2);
		/* Blocking now, so only when there is something. */
		if (atomic_load(&r.rx_ctl->need_wake) &&
		    write(r.wake_fd, (uint64_t[]){1}, 8) == 8 &&
		    read(r.wake_fd, &v, sizeof(v)) != sizeof(v))
			break;
		served += raw_wait_state(&r, 0, g, WSHM_SLOT_ENDED, RAW_PATIENCE_MS);
		raw_release(&r, 0, g);
		raw_pause_us(2000);
	}
	is_int(served, 29, "made blocking and drained behind the engine's back: all is served");
	neighbours_ok("eventfd blocking");
	raw_close(&r);
}

struct flooder {
	int fd;
	_Atomic bool stop;
	uint64_t writes;
	bool bell;
};

static void *flood(void *arg)
{
	struct flooder *f = arg;
	uint64_t one = 1, v;

	while (!atomic_load(&f->stop)) {
		if (f->bell)
			f->writes += send(f->fd, &one, 1, MSG_DONTWAIT | MSG_NOSIGNAL) > 0;
		else
			f->writes += write(f->fd, &one, sizeof(one)) > 0;
		if (!f->bell && f->writes % 1024 == 0 && read(f->fd, &v, sizeof(v)) < 0)
			continue;
	}
	return NULL;
}

static void flooded(bool bell)
{
	struct raw r = open_raw();
	struct flooder f = {.fd = bell ? r.bell_fd : r.wake_fd, .bell = bell};
	pthread_t t;

	raw_request(&r, 0, 1, 5, 2);
	if (pthread_create(&t, NULL, flood, &f))
		bail_out("no thread");
	neighbours_ok(bell ? "bell flooded" : "eventfd flooded");
	raw_pause_us(500000);
	ok(raw_alive(&r, 1, 1), "and so does the flooder");
	atomic_store(&f.stop, true);
	pthread_join(t, NULL);
	diag("%llu writes", (unsigned long long)f.writes);
	raw_close(&r);
}

/* The engine alone with a flooder may not burn a core for it. */
static void idle_flood(void)
{
	struct raw r = open_raw();
	struct flooder f = {.fd = r.wake_fd};
	pid_t engine = world_engine(w);
	pthread_t t;
	long before, spent;

	raw_request(&r, 0, 1, 5, 2);
	if (pthread_create(&t, NULL, flood, &f))
		bail_out("no thread");
	for (int i = 0; i < 6000 && !world_logged(w, "event=muted"); i++)
		raw_pause_us(10000);
	before = cpu_ms(engine);
	raw_pause_us(1000000);
	spent = cpu_ms(engine) - before;
	ok(spent < 500, "a flooded engine that has nothing to do spends %ld ms in a second", spent);
	ok(world_logged(w, "event=muted"), "it was muted");
	is_int(raw_request(&r, 0, 2, 5, 2), WSHM_OK, "a muted session is served all the same");
	atomic_store(&f.stop, true);
	pthread_join(t, NULL);
	raw_close(&r);
}

static void bell_full(void)
{
	struct raw r = open_raw();
	char rubbish[4096] = {0};
	int tiny = 1;

	/* No room towards us, and everything towards the engine's end full. */
	setsockopt(r.bell_fd, SOL_SOCKET, SO_RCVBUF, &tiny, sizeof(tiny));
	while (send(r.bell_fd, rubbish, sizeof(rubbish), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
		;
	make_blocking(r.bell_fd);
	for (uint32_t g = 1; g < 200; g++) {
		atomic_store(&r.tx_ctl->bell_armed, 1);
		if (raw_request(&r, g % 8, g, 4, 2) != WSHM_OK) {
			ok(0, "request %u with a full bell", g);
			break;
		}
		atomic_store(&r.tx_ctl->cq_head, atomic_load(&r.rx_ctl->cq_tail));
	}
	neighbours_ok("bell full and blocking");
	raw_close(&r);
}

static void bell_shut(void)
{
	static const int how[] = {SHUT_RD, SHUT_WR, SHUT_RDWR};

	for (size_t i = 0; i < 4; i++) {
		struct raw r = open_raw();

		if (i < 3) {
			shutdown(r.bell_fd, how[i]);
		} else {
			close(r.bell_fd);
			r.bell_fd = -1;
		}
		for (uint32_t g = 1; g < 20; g++) {
			atomic_store(&r.tx_ctl->bell_armed, 1);
			if (raw_request(&r, 0, g, 4, 3) != WSHM_OK)
				ok(0, "request %u with a bell that is shut", g);
			atomic_store(&r.tx_ctl->cq_head, atomic_load(&r.rx_ctl->cq_tail));
		}
		raw_close(&r);
	}
	neighbours_ok("bell shut down");
}

int main(void)
{
	w = world_start(NULL);
	n = neighbours_start(w, 1);
	never_written();
	busy();
	filled();
	drained();
	flooded(false);
	flooded(true);
	bell_full();
	bell_shut();
	neighbours_stop(n);
	idle_flood();
	world_same(w);
	world_given_back(w);
	world_stop(w);
	return tap_done();
}
