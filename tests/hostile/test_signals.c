/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients that stop (SIGSTOP) or die (SIGKILL) at every step of a session: connected, said hello,
 * mapped, submitted, at the first token, in mid-stream, before the release. A dead one's slots,
 * blocks and regions come back; a stopped one keeps what it has, costs nobody anything, and goes on
 * when it is continued.
 */
#include "tests/hostile/raw.h"
#include "tests/hostile/world.h"
#include "tests/tap.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum step {
	CONNECTED,
	SAID_HELLO,
	MAPPED,
	SUBMITTED,
	FIRST_TOKEN,
	MID_STREAM,
	UNRELEASED,
	N_STEPS
};

static const char *const names[N_STEPS] = {
	"connected",	 "after the hello",   "mapped", "submitted", "at the first token",
	"in mid-stream", "before the release"};
static struct world *w;

#define LONG_REQUEST 400u

/* Halt when the step is the one asked for. Waits for the parent's word through SIGCONT, or death. */
static void reached(enum step at, enum step want)
{
	if (at == want)
		raise(SIGSTOP);
}

/* In a child: a session up to its end, with a halt on the way. Exit status 0: served well. */
static void __attribute__((noreturn)) client(enum step halt)
{
	struct wctl_hello h;
	struct raw r = RAW_NONE;
	int fds[WCTL_WELCOME_FDS];
	uint32_t n_fds = WCTL_WELCOME_FDS, served = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	r.sock = raw_connect(world_socket(w), world_attacker());
	reached(CONNECTED, halt);
	raw_hello_init(&h);
	h.slots = 4;
	h.tx_arena_bytes = raw_arena_bytes(4);
	if (raw_send(r.sock, &h, sizeof(h), NULL, 0))
		_exit(halt == CONNECTED ? 0 : 2); /* too late for a hello */
	reached(SAID_HELLO, halt);
	if (raw_recv(r.sock, &r.welcome, sizeof(r.welcome), fds, &n_fds, RAW_PATIENCE_MS) !=
		    (int)sizeof(r.welcome) ||
	    n_fds != WCTL_WELCOME_FDS)
		_exit(halt == CONNECTED ? 0 : 3);
	r.tx_fd = fds[0];
	r.rx_fd = fds[1];
	r.wake_fd = fds[2];
	r.bell_fd = fds[3];
	r.index_fd = fds[4];
	r.public_fd = fds[5];
	if (raw_map(&r))
		_exit(4);
	reached(MAPPED, halt);
	while (atomic_load(&r.rx_ctl->engine_state) == WSHM_ENGINE_STARTING)
		raw_pause_us(1000);
	for (uint32_t i = 0; i < 4; i++)
		raw_submit(&r, i, 1, i, 20, LONG_REQUEST);
	reached(SUBMITTED, halt);
	raw_wait_count(&r, 0, 1, 1, RAW_PATIENCE_MS);
	reached(FIRST_TOKEN, halt);
	raw_wait_count(&r, 0, 1, LONG_REQUEST / 2, RAW_PATIENCE_MS);
	reached(MID_STREAM, halt);
	for (uint32_t i = 0; i < 4; i++)
		served += raw_wait_state(&r, i, 1, WSHM_SLOT_ENDED, RAW_PATIENCE_MS) &&
			  atomic_load(&r.slot[i].count[0]) == LONG_REQUEST;
	reached(UNRELEASED, halt);
	for (uint32_t i = 0; i < 4; i++)
		raw_release(&r, i, 1);
	_exit(served == 4 ? 0 : 5);
}

static pid_t start(enum step halt)
{
	pid_t pid = fork();
	int status;

	if (!pid)
		client(halt);
	if (pid < 0 || waitpid(pid, &status, WUNTRACED) != pid || !WIFSTOPPED(status))
		bail_out("the client did not come to its step");
	return pid;
}

static void killed(enum step at)
{
	pid_t pid[3];
	int status;

	for (int i = 0; i < 3; i++)
		pid[i] = start(at);
	for (int i = 0; i < 3; i++) {
		kill(pid[i], SIGKILL);
		waitpid(pid[i], &status, 0);
	}
	ok(world_number_becomes(w, "sessions", 1, RAW_PATIENCE_MS) &&
		   world_number_becomes(w, "connections_without_hello", 0, RAW_PATIENCE_MS),
	   "killed %s: nothing of it is left but the neighbour", names[at]);
}

static void stopped(enum step at, const struct neighbours *n)
{
	pid_t pid = start(at);
	int status;

	ok(neighbours_advance(n, 4, RAW_PATIENCE_MS), "stopped %s: the neighbours go on",
	   names[at]);
	kill(pid, SIGCONT);
	waitpid(pid, &status, 0);
	ok(WIFEXITED(status) && WEXITSTATUS(status) == 0, "continued %s, it is served well (%d)",
	   names[at], WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

/* Many at once, stopped in mid-stream, killed together. */
static void crowd(const struct neighbours *n)
{
	pid_t pid[6];

	for (int i = 0; i < 6; i++)
		pid[i] = start(i % 2 ? MID_STREAM : UNRELEASED);
	ok(neighbours_advance(n, 2, RAW_PATIENCE_MS),
	   "a crowd of stopped clients: the neighbours go on");
	for (int i = 0; i < 6; i++)
		kill(pid[i], SIGKILL);
	for (int i = 0; i < 6; i++)
		waitpid(pid[i], NULL, 0);
	ok(world_number_becomes(w, "sessions", 1, RAW_PATIENCE_MS),
	   "killed together: all comes back");
}

int main(void)
{
	struct neighbours *n;

	w = world_start(&(struct world_options){.daemon = "hello_seconds = 30"});
	n = neighbours_start(w, 1);
	for (int at = 0; at < N_STEPS; at++) {
		killed((enum step)at);
		stopped((enum step)at, n);
	}
	crowd(n);
	neighbours_stop(n);
	world_same(w);
	world_given_back(w);
	world_stop(w);
	return tap_done();
}
