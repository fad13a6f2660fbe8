/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_machine.c - `weft bench machine`: what this machine can do at most, as the other benchmarks
 * see it: arithmetic of each instruction path that the CPU has, streaming bandwidth, both on one
 * thread and on all. Measured RUNS times in turn, since neighbours make the figures swing.
 */
#include "kernels/backend.h"
#include "kernels/probe.h"
#include "tools/bench.h"
#include "tools/cli.h"
#include "tools/progress.h"

#include <string.h>
#include <unistd.h>

#define RUNS 7

/* Does this CPU have the path? The backend knows. */
static bool have_path(const char *path)
{
	struct wk_open_options o = {.n_threads = 1, .path = path};
	struct wk_backend *be;

	if (wk_cpu_ops.open(&o, &be) < 0)
		return false;
	wk_cpu_ops.close(be);
	return true;
}

static int measure(struct bench_table *t, uint32_t threads, const char *const *paths, uint32_t n)
{
	double stream[RUNS], peak[8][RUNS];
	struct wk_probe *probe;
	char name[96];

	if (wk_probe_new(threads, WK_PROBE_STREAM_BYTES, &probe) < 0)
		return cli_fail("bench machine: no memory or threads for the probe") - 2;
	for (uint32_t r = 0; r < RUNS; r++) {
		stream[r] = wk_probe_stream_of(probe) / 1e9;
		for (uint32_t i = 0; i < n; i++)
			peak[i][r] = wk_probe_peak_of(probe, paths[i]) / 1e9;
		progress_step();
	}
	wk_probe_free(probe);
	for (uint32_t i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "machine: arithmetic peak, %s, %u thread%s", paths[i],
			 threads, threads > 1 ? "s" : "");
		bench_add_samples(t, name, "Gop/s", peak[i], RUNS, BENCH_NONE, 0);
	}
	snprintf(name, sizeof(name), "machine: streaming bandwidth, %u thread%s", threads,
		 threads > 1 ? "s" : "");
	bench_add_samples(t, name, "GB/s", stream, RUNS, BENCH_NONE, 0);
	return 0;
}

int bench_machine(struct bench_table *t)
{
	static const char *const all[] = {"avx512bf16", "avx512", "avx2"};
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	const char *paths[3];
	uint32_t n = 0;
	int err;

	for (uint32_t i = 0; i < 3; i++)
		if (have_path(all[i]))
			paths[n++] = all[i];
	progress_begin("weft bench machine", cpus > 1 ? 2 * RUNS : RUNS);
	err = measure(t, 1, paths, n);
	if (!err && cpus > 1)
		err = measure(t, (uint32_t)cpus, paths, n);
	progress_end();
	return err;
}
