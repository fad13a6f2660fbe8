/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weftd is out of descriptors just when somebody connects: to the clients' socket, to the
 * administrators'. What waits there keeps it from sleeping unless it looks away for a while; those
 * who are served notice nothing, and as soon as there are descriptors again everybody is.
 */
#include "tests/hostile/raw.h"
#include "tests/hostile/world.h"
#include "tests/tap.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define WATCH_US    1000000
#define MOST_CPU_MS 100 /* a loop that spins takes more even of a crowded machine's second */

static struct world *w;

static long cpu_ms(pid_t pid)
{
	unsigned long user = 0, sys = 0;
	char path[40], line[512];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (f && fgets(line, sizeof(line), f) && strrchr(line, ')'))
		sscanf(strrchr(line, ')'), ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
		       &user, &sys);
	if (f)
		fclose(f);
	return (long)((user + sys) * 1000 / (unsigned long)sysconf(_SC_CLK_TCK));
}

static void *ask_admin(void *arg)
{
	json_t *status = world_admin(w, "{\"cmd\":\"status\"}");

	*(bool *)arg = json_is_true(json_object_get(status, "ok"));
	json_decref(status);
	return NULL;
}

static void *open_session(void *arg)
{
	struct raw r;

	*(bool *)arg = !raw_open(&r, world_socket(w), RAW_ANY_UID, 2);
	raw_close(&r);
	return NULL;
}

/* Somebody connects while there is no descriptor for him. */
static void waits(const char *what, void *(*connect)(void *), const struct neighbours *n)
{
	struct rlimit none, before;
	bool served = false;
	pthread_t t;
	long used;

	if (prlimit(world_daemon(w), RLIMIT_NOFILE, NULL, &before))
		bail_out("prlimit");
	none = (struct rlimit){3, before.rlim_max};
	prlimit(world_daemon(w), RLIMIT_NOFILE, &none, NULL);
	/* Before the other's patience begins. */
	ok(neighbours_advance(n, 3, 60000), "%s: the neighbours go on", what);
	used = cpu_ms(world_daemon(w));
	if (pthread_create(&t, NULL, connect, &served))
		bail_out("no thread");
	usleep(WATCH_US);
	used = cpu_ms(world_daemon(w)) - used;
	ok(used < MOST_CPU_MS, "%s: weftd sleeps meanwhile (%ld ms)", what, used);
	prlimit(world_daemon(w), RLIMIT_NOFILE, &before, NULL);
	pthread_join(t, NULL);
	ok(served, "%s: served as soon as there are descriptors", what);
}

int main(void)
{
	struct neighbours *n;

	w = world_start(NULL);
	n = neighbours_start(w, 1);
	waits("administrator", ask_admin, n);
	waits("client", open_session, n);
	neighbours_stop(n);
	world_same(w);
	world_given_back(w);
	world_stop(w);
	return tap_done();
}
