/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nothing runs when nothing is asked: over two seconds weftd, the engine and a client that waits
 * use no processor time that could be measured; and that after they have worked.
 */
#include "tests/hostile/raw.h"
#include "tests/hostile/world.h"
#include "tests/tap.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* Time on a processor of all threads, by the scheduler's own account. */
static uint64_t run_ns(pid_t pid)
{
	unsigned long long ns, total = 0;
	char path[80];
	struct dirent *e;
	DIR *d;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	d = opendir(path);
	while (d && (e = readdir(d))) {
		snprintf(path, sizeof(path), "/proc/%d/task/%.20s/schedstat", (int)pid, e->d_name);
		f = e->d_name[0] == '.' ? NULL : fopen(path, "re");
		if (f && fscanf(f, "%llu", &ns) == 1)
			total += ns;
		if (f)
			fclose(f);
	}
	if (d)
		closedir(d);
	return total;
}

static void __attribute__((noreturn)) wait_idly(struct world *w)
{
	struct weft *weft = world_open(w);
	struct weft_request *got[4];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;)
		weft_wait_any(weft, got, 4, -1);
}

int main(void)
{
	struct world *w = world_start(NULL);
	struct neighbours *n = neighbours_start(w, 2);
	const char *names[] = {"weftd", "weft-engine", "a waiting client"};
	pid_t pid[3] = {world_daemon(w), world_engine(w), 0};
	uint64_t before[3], ns[3];
	bool quiet = false;

	neighbours_stop(n);
	pid[2] = fork();
	if (!pid[2])
		wait_idly(w);
	world_number_becomes(w, "sessions", 1, RAW_PATIENCE_MS);
	raw_pause_us(1000000); /* gaps between requests are not idleness yet */
	/* Time that the host takes away counts as theirs: of a few times the best. */
	for (int turn = 0; turn < 10 && !quiet; turn++) {
		for (int i = 0; i < 3; i++)
			before[i] = run_ns(pid[i]);
		raw_pause_us(2000000);
		quiet = true;
		for (int i = 0; i < 3; i++) {
			ns[i] = run_ns(pid[i]) - before[i];
			quiet = quiet && ns[i] < 1000000 * world_slowness();
		}
	}
	for (int i = 0; i < 3; i++)
		ok(before[i] > 0 && ns[i] < 1000000 * world_slowness(),
		   "%s: %.3f ms in two seconds", names[i], ns[i] / 1e6);
	kill(pid[2], SIGKILL);
	waitpid(pid[2], NULL, 0);
	world_same(w);
	world_given_back(w);
	world_stop(w);
	return tap_done();
}
