/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_ring.c - the round trip through a pair of regions, and the cost of waking a sleeper.
 *
 * Two processes on two cores share a real session. Round trip: the client submits, the engine
 * takes the entry, admits it, writes a token and publishes, the client takes the notice and reads
 * the token; both poll. Wake-up: the client sleeps in wait_slot until the engine publishes. Beside
 * them the machine's limits in the same situation: one line of memory passed to and fro, and a bare
 * futex.
 *
 * Times come from CLOCK_MONOTONIC, which needs no system call and agrees between cores. A figure is
 * the median of the percentiles of several batches. The child belongs to this call: it ends before
 * bench_ring() returns.
 */
#include "tools/bench.h"
#include "tools/progress.h"
#include "shm/wshm.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SLOTS	    8
#define BATCHES	    11
#define TRIP_ROUNDS 20000
#define WAKE_ROUNDS 200
#define SETTLE_NS   30000 /* long enough that the other side sleeps */
#define TRIP_P50_NS 500.0
#define N_ROWS	    7

/* What the two processes share beside the session. */
struct shared {
	_Atomic uint32_t round; /* wake-up rounds that the sleeper has begun */
	_Atomic uint32_t word;	/* the bare futex */
	_Atomic uint64_t woken_by_ns;
	_Alignas(128) _Atomic uint32_t ping; /* passed to and fro, alone on its line */
	_Alignas(128) uint8_t end[128];
};

struct bench {
	struct wshm_layout layout;
	int tx_fd, rx_fd, ro_fd;
	struct wshm_client client;
	struct wshm_engine engine;
	struct shared *sh;
	int cpu[2];
	uint64_t *ns; /* one batch of rounds */
	uint32_t generation[SLOTS];
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#else
	__asm__ volatile("" ::: "memory");
#endif
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

/* The first two cores that this process may use. */
static int choose_cpus(int cpu[2])
{
	cpu_set_t set;
	int i, n = 0;

	if (sched_getaffinity(0, sizeof(set), &set))
		return -errno;
	for (i = 0; i < CPU_SETSIZE && n < 2; i++)
		if (CPU_ISSET(i, &set))
			cpu[n++] = i;
	return n == 2 ? 0 : -ENODEV;
}

/* --- the engine's process ----------------------------------------------------------------------- */

/* Free the slot that ended first, once its client has released it; *next counts those freed. */
static void free_next(struct bench *b, uint32_t *next)
{
	uint32_t slot = *next % SLOTS;

	if (!wshm_engine_released(&b->engine, slot, b->engine.generation[slot]))
		return;
	wshm_slot_set_state(wshm_engine_slot(&b->engine, slot), WSHM_SLOT_FREE);
	++*next;
}

/* Answer every submission with one token, and free what is released, until killed. */
static void serve_trips(struct bench *b)
{
	uint32_t slot, gen, ended = 0, freed = 0;

	for (;;) {
		struct wshm_slot *s;

		if (wshm_engine_peek(&b->engine, &slot, &gen) != 1) {
			if (freed != ended)
				free_next(b, &freed);
			relax();
			continue;
		}
		s = wshm_engine_slot(&b->engine, slot);
		ord_store(&s->count[0], 0);
		wshm_slot_admit(s, gen, WSHM_SLOT_RUNNING);
		wshm_engine_accept(&b->engine);
		((uint32_t *)wshm_engine_rx_arena(&b->engine))[slot * 32] = gen;
		wshm_slot_set_count(s, 0, 1);
		wshm_slot_set_state(s, WSHM_SLOT_ENDED);
		wshm_engine_publish(&b->engine, slot);
		ended++;
	}
}

static void settle(void)
{
	uint64_t until = now_ns() + SETTLE_NS;

	while (now_ns() < until)
		relax();
}

/* Wake the sleeper of each round once it has surely gone to sleep, by its slot or by the bare word. */
static void serve_wakes(struct bench *b, bool bare)
{
	uint32_t round = 0;

	for (;;) {
		while (ord_load_acquire(&b->sh->round) ==
		       round) /* B1: pairs with B2 in wake_batch() */
			relax();
		round++;
		settle();
		ord_store(&b->sh->woken_by_ns, now_ns());
		if (bare) {
			/* B3: pairs with B4 in sleep_once() */
			ord_store_release(&b->sh->word, round);
			syscall(SYS_futex, &b->sh->word, FUTEX_WAKE, 1, NULL, NULL, 0);
		} else {
			wshm_engine_publish(&b->engine, 0);
		}
	}
}

/* Turn every odd number into the next even one. */
static void serve_pings(struct bench *b)
{
	uint32_t v;

	for (;;) {
		v = ord_load_acquire(&b->sh->ping); /* B5: pairs with B6 in ping_batch() */
		if (v & 1)
			/* B7: pairs with B8 in ping_batch() */
			ord_store_release(&b->sh->ping, v + 1);
		else
			relax();
	}
}

enum duty { TRIPS, PINGS, WAKES, BARE_WAKES };

static pid_t start_engine(struct bench *b, enum duty duty)
{
	pid_t pid = fork();

	if (pid)
		return pid < 0 ? -errno : pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	pin(b->cpu[1]);
	if (duty == TRIPS)
		serve_trips(b);
	if (duty == PINGS)
		serve_pings(b);
	serve_wakes(b, duty == BARE_WAKES);
	_exit(0);
}

static void stop_engine(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* --- the client's process ----------------------------------------------------------------------- */

/* Write the next record of a slot that the engine has freed. */
static void prepare(struct bench *b, uint32_t slot)
{
	while (wshm_slot_state(wshm_client_slot(&b->client, slot)) != WSHM_SLOT_FREE)
		relax();
	wshm_client_req_write(&b->client, slot, ++b->generation[slot], 0, 64);
}

/*
 * The last request is given back and the next one written while the engine works on this one, as a
 * client that has several does. Slot 0 is prepared before. 0, or -EIO when an answer was wrong.
 */
static int trip_batch(struct bench *b)
{
	const uint32_t *tokens = (const uint32_t *)wshm_client_rx_arena(&b->client);
	uint32_t i, slot, last, got_slot, got_gen, *gen = b->generation;
	uint64_t start = now_ns(), end;

	for (i = 0; i < TRIP_ROUNDS; i++) {
		slot = i % SLOTS;
		last = (slot + SLOTS - 1) % SLOTS;
		wshm_client_submit(&b->client, slot, gen[slot]);
		if (gen[last])
			wshm_client_release(&b->client, last, gen[last]);
		prepare(b, (slot + 1) % SLOTS);
		while (!wshm_client_notice(&b->client, &got_slot, &got_gen))
			relax();
		if (got_slot != slot || got_gen != gen[slot] ||
		    wshm_slot_count(wshm_client_slot(&b->client, slot), 0) != 1 ||
		    tokens[slot * 32] != gen[slot])
			return -EIO;
		end = now_ns();
		b->ns[i] = end - start;
		start = end;
	}
	return 0;
}

static int ping_batch(struct bench *b)
{
	uint32_t i, v = ord_load(&b->sh->ping);
	uint64_t start = now_ns(), end;

	for (i = 0; i < TRIP_ROUNDS; i++, v += 2) {
		ord_store_release(&b->sh->ping, v + 1); /* B6: pairs with B5 in serve_pings() */
		/* B8: pairs with B7 in serve_pings() */
		while (ord_load_acquire(&b->sh->ping) != v + 2)
			relax();
		end = now_ns();
		b->ns[i] = end - start;
		start = end;
	}
	return 0;
}

static void sleep_once(struct bench *b, uint32_t round, bool bare)
{
	const struct wshm_slot *s = wshm_client_slot(&b->client, 0);
	uint32_t seen = wshm_slot_progress(s);

	/* B2: pairs with B1 in serve_wakes() */
	ord_store_release(&b->sh->round, round);
	if (!bare)
		while (wshm_slot_progress(s) == seen)
			wshm_client_wait_slot(&b->client, 0, seen, 1000000000);
	else
		while (ord_load_acquire(&b->sh->word) !=
		       round) /* B4: pairs with B3 in serve_wakes() */
			syscall(SYS_futex, &b->sh->word, FUTEX_WAIT, round - 1, NULL, NULL, 0);
}

static void wake_batch(struct bench *b, uint32_t *round, bool bare)
{
	uint32_t i;

	for (i = 0; i < WAKE_ROUNDS; i++) {
		sleep_once(b, ++*round, bare);
		b->ns[i] = now_ns() - ord_load(&b->sh->woken_by_ns);
	}
}

/* --- figures ------------------------------------------------------------------------------------ */

static int by_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static int by_double(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* The p50 and p99 of each batch, gathered. */
struct percentiles {
	double p50[BATCHES], p99[BATCHES];
};

static void gather(struct bench *b, struct percentiles *p, int batch, uint32_t n)
{
	qsort(b->ns, n, sizeof(*b->ns), by_u64);
	p->p50[batch] = (double)b->ns[n / 2];
	p->p99[batch] = (double)b->ns[n - 1 - n / 100];
}

static void fill(struct bench_row *row, const char *name, double *v, double target)
{
	qsort(v, BATCHES, sizeof(*v), by_double);
	*row = (struct bench_row){
		.name = name,
		.value = v[BATCHES / 2],
		.unit = "ns",
		.target = target,
		.lo = v[0],
		.hi = v[BATCHES - 1],
		.pass = target == 0 || v[BATCHES / 2] <= target,
	};
}

static int measure_polling(struct bench *b, struct percentiles *p, enum duty duty)
{
	int (*batch)(struct bench *) = duty == TRIPS ? trip_batch : ping_batch;
	pid_t pid = start_engine(b, duty);
	int i, rc;

	if (pid < 0)
		return pid;
	rc = batch(b); /* warm */
	for (i = 0; i < BATCHES && !rc; i++) {
		rc = batch(b);
		gather(b, p, i, TRIP_ROUNDS);
		progress_step();
	}
	stop_engine(pid);
	return rc;
}

static int measure_wakes(struct bench *b, struct percentiles *p, bool bare)
{
	uint32_t round = 0;
	pid_t pid;
	int i;

	ord_store(&b->sh->round, 0);
	ord_store(&b->sh->word, 0);
	pid = start_engine(b, bare ? BARE_WAKES : WAKES);
	if (pid < 0)
		return pid;
	for (i = 0; i < BATCHES; i++) {
		wake_batch(b, &round, bare);
		gather(b, p, i, WAKE_ROUNDS);
		progress_step();
	}
	stop_engine(pid);
	return 0;
}

static void close_bench(struct bench *b)
{
	wshm_client_close(&b->client);
	wshm_engine_close(&b->engine);
	if (b->tx_fd >= 0)
		close(b->tx_fd);
	if (b->rx_fd >= 0)
		close(b->rx_fd);
	if (b->ro_fd >= 0)
		close(b->ro_fd);
	if (b->sh)
		munmap(b->sh, sizeof(*b->sh));
	free(b->ns);
}

static int open_bench(struct bench *b)
{
	struct wshm_params params = {
		.slots = SLOTS, .tx_arena_bytes = 65536, .rx_arena_bytes = 65536};
	void *page;
	int rc;

	memset(b, 0, sizeof(*b));
	b->tx_fd = b->rx_fd = b->ro_fd = -1;
	rc = choose_cpus(b->cpu);
	if (rc)
		return rc;
	page = mmap(NULL, sizeof(*b->sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		    0);
	if (page == MAP_FAILED)
		return -errno;
	b->sh = page;
	b->ns = calloc(TRIP_ROUNDS, sizeof(*b->ns));
	if (!b->ns)
		return -ENOMEM;
	rc = wshm_layout_init(&b->layout, &params);
	if (!rc)
		rc = wshm_regions_new(&b->layout, 1, &b->tx_fd, &b->rx_fd);
	if (rc)
		return rc;
	b->ro_fd = wshm_open_read_only(b->rx_fd);
	if (b->ro_fd < 0)
		return b->ro_fd;
	rc = wshm_client_open(&b->client, &b->layout, b->tx_fd, b->ro_fd);
	if (!rc)
		rc = wshm_engine_open(&b->engine, &b->layout, b->tx_fd, b->rx_fd, false);
	return rc;
}

int bench_ring(struct bench_row *rows, int max)
{
	struct percentiles trip, ping, wake, bare;
	struct bench b;
	cpu_set_t was;
	int rc;

	if (max < N_ROWS)
		return -EINVAL;
	sched_getaffinity(0, sizeof(was), &was);
	rc = open_bench(&b);
	progress_begin("weft bench ring", 4 * BATCHES);
	if (!rc) {
		pin(b.cpu[0]);
		rc = measure_polling(&b, &ping, PINGS);
	}
	if (!rc) {
		prepare(&b, 0);
		rc = measure_polling(&b, &trip, TRIPS);
	}
	if (!rc)
		rc = measure_wakes(&b, &bare, true);
	if (!rc)
		rc = measure_wakes(&b, &wake, false);
	progress_end();
	sched_setaffinity(0, sizeof(was), &was);
	close_bench(&b);
	if (rc)
		return rc;
	fill(&rows[0], "ring round trip, both polling, p50", trip.p50, TRIP_P50_NS);
	fill(&rows[1], "ring round trip, both polling, p99", trip.p99, 0);
	fill(&rows[2], "one line to and fro (machine limit), p50", ping.p50, 0);
	fill(&rows[3], "wake-up of a sleeping client, p50", wake.p50, 0);
	fill(&rows[4], "wake-up of a sleeping client, p99", wake.p99, 0);
	fill(&rows[5], "wake-up by a bare futex (machine limit), p50", bare.p50, 0);
	fill(&rows[6], "wake-up by a bare futex (machine limit), p99", bare.p99, 0);
	return N_ROWS;
}
