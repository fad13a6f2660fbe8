/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_probe.c - `weft bench probe`: how long it takes to learn what of a prompt is cached.
 *
 * A child process sends a new prompt, so that it is cached, then forbids itself every system call
 * (a filter that kills) and probes. That it reaches the end shows that a probe makes none; that it
 * dies at the first call afterwards shows that the filter was there. Its figures come back through
 * shared memory.
 */
#include "libclient/weft.h"
#include "tools/bench.h"
#include "tools/bench_pipeline.h"
#include "tools/cli.h"
#include "tools/patience.h"
#include "tools/progress.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RUNS	       7
#define WARMUP	       3
#define DEFAULT_PROMPT 32768
#define FILL_TOKENS    1024 /* of one request: a step of the bar */

static struct {
	const char *socket, *model, *adapter;
	uint32_t prompt, probes, seed;
} options = {.probes = 50, .seed = 1};
static int json;

/* clang-format off */
static const struct cli_option table[] = {
	{"socket", 0, "PATH", cli_set_str, &options.socket, "the daemon's socket"},
	{"model", 'm', "NAME", cli_set_str, &options.model, "which model; default: the only one"},
	{"adapter", 'a', "NAME", cli_set_str, &options.adapter, "probe for this adapter; default: the base model"},
	{"prompt", 'p', "N", cli_set_u32, &options.prompt, "tokens of the prompt; default 32768, or what the model can take"},
	{"probes", 0, "N", cli_set_u32, &options.probes, "probes of each run; default 50"},
	{"seed", 's', "N", cli_set_u32, &options.seed, "of the prompt; default 1"},
	{"json", 'j', NULL, NULL, &json, "a JSON list instead of the table"},
};
/* clang-format on */

static const struct cli_command command = {
	"bench probe",
	"",
	"Ask again and again, under a filter that kills at any system call, how much of a cached\n"
	"prompt is cached: microseconds of a probe.",
	table,
	sizeof(table) / sizeof(*table),
	0,
};

struct report {
	_Atomic uint32_t started, done; /* the filter stands; all probes made */
	uint32_t prompt;		/* tokens of it */
	uint32_t cached, device;
	int err;
	double us[RUNS];  /* of one probe, median of a run */
	double samples[]; /* [probes] */
};

static double now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts); /* of the vDSO: no system call */
	return ts.tv_sec * 1e6 + ts.tv_nsec * 1e-3;
}

static int forbid_everything(void)
{
	struct sock_filter kill = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	struct sock_fprog program = {1, &kill};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		return -errno;
	return 0;
}

/* The prompt's KV, by requests of the base model: each goes on from the one before, and says how far it is. */
static int fill_cache(struct pipe *p, const struct cli_tokens *t)
{
	int err = 0;

	progress_begin("weft bench probe: the prompt", t->n);
	for (uint32_t n = 0; n < t->n && !err;) {
		struct pipe_call c = {.prompt = t->tokens, .max_tokens = 1};

		n = t->n - n > FILL_TOKENS ? n + FILL_TOKENS : t->n;
		c.n_prompt = n;
		err = pipe_calls(p, &c, 1);
		progress_at(n);
	}
	progress_end();
	return err;
}

static int probe_once(struct weft *w, const struct cli_tokens *t, struct report *out, double *us)
{
	struct weft_probe probe = {.size = sizeof(probe)};
	double start = now_us();
	int err = weft_probe(w, options.adapter, t->tokens, t->n, &probe);

	*us = now_us() - start;
	out->cached = probe.cached_tokens;
	out->device = probe.device_tokens;
	return err;
}

static void insertion_sort(double *v, uint32_t n) /* qsort() may allocate */
{
	for (uint32_t i = 1; i < n; i++)
		for (uint32_t k = i; k && v[k] < v[k - 1]; k--) {
			double x = v[k];

			v[k] = v[k - 1];
			v[k - 1] = x;
		}
}

static void probe_all(struct weft *w, const struct cli_tokens *t, struct report *out)
{
	for (uint32_t run = 0; run < RUNS; run++) {
		for (uint32_t i = 0; i < options.probes; i++) {
			out->err = probe_once(w, t, out, &out->samples[i]);
			if (out->err)
				return;
		}
		insertion_sort(out->samples, options.probes);
		out->us[run] = out->samples[options.probes / 2];
	}
	out->done = 1;
}

/* As long as asked for, or as long as the model can take: the request that caches it makes a token. */
static int choose_prompt(const struct weft_model *m, struct report *out)
{
	uint32_t most = m->max_positions - 1;

	out->prompt = options.prompt			  ? options.prompt
		      : m->max_positions > DEFAULT_PROMPT ? DEFAULT_PROMPT
							  : most;
	if (out->prompt > most)
		return cli_fail("bench probe: a prompt of %u tokens: the model has %u positions, "
				"which leaves %u for it (--prompt)",
				out->prompt, m->max_positions, most);
	return 0;
}

static int child(struct report *out)
{
	struct weft_open_options oo = WEFT_OPEN_OPTIONS_INIT;
	struct cli_tokens t = {0};
	struct pipe p = {.opt = {.seed = options.seed}};
	double us;

	oo.socket = options.socket;
	oo.model = options.model;
	oo.prompt_bytes =
		(1 << 20) + 8 * (uint64_t)(options.prompt ? options.prompt : DEFAULT_PROMPT);
	if (patience_open(&p.weft, &oo))
		return 1;
	weft_model_info(p.weft, &p.model);
	if (choose_prompt(&p.model, out))
		return 1;
	pipe_seed(&p, 0, 0, 0);
	if (pipe_add_random(&p, &t, out->prompt) || fill_cache(&p, &t))
		return 1;
	for (uint32_t i = 0; i < WARMUP; i++) {
		int err = probe_once(p.weft, &t, out, &us);

		if (err)
			return cli_fail("bench probe: %s", strerror(-err));
	}
	/* Without a filter there is no saying what is called; the figures are not given then. */
	if (forbid_everything())
		return cli_fail("bench probe: cannot forbid system calls: %s", strerror(errno));
	out->started = 1;
	probe_all(p.weft, &t, out);
	_exit(0); /* dies in the attempt */
}

static void add_rows(struct bench_table *t, struct report *r, bool killed)
{
	struct bench_row calls = {.name = "probe: system calls made",
				  .unit = "calls",
				  .goal = BENCH_NONE,
				  .value = r->done && killed ? 0 : 1,
				  .pass = r->done && killed};
	struct bench_row cached = {.name = "probe: tokens found cached",
				   .unit = "tokens",
				   .goal = BENCH_AT_LEAST,
				   .target = r->prompt > 16 ? r->prompt - 16 : 0,
				   .value = r->cached,
				   .lo = r->cached,
				   .hi = r->cached};
	char name[96];

	snprintf(name, sizeof(name), "probe: a cached prompt of %u tokens", r->prompt);
	/* The figure that is aimed at is one prompt's. */
	if (r->done && r->prompt == DEFAULT_PROMPT)
		bench_add_samples(t, name, "us", r->us, RUNS, BENCH_AT_MOST, 300);
	else if (r->done)
		bench_add_samples(t, name, "us", r->us, RUNS, BENCH_NONE, 0);
	calls.lo = calls.hi = calls.value;
	bench_add(t, &calls);
	bench_add(t, &cached);
}

int cmd_bench_probe(int argc, char **argv)
{
	struct bench_table t = {0};
	struct report *r;
	size_t bytes;
	pid_t pid;
	int status = 0;

	cli_parse(&command, argc, argv);
	if (!options.probes || options.probes > 100000)
		return cli_fail("bench probe: --probes %u: 1 to 100000", options.probes);
	bytes = sizeof(*r) + options.probes * sizeof(double);
	r = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1,
		 0);
	if (r == MAP_FAILED)
		return cli_fail("bench probe: %s", strerror(errno));
	fflush(stdout);
	pid = fork();
	if (!pid)
		_exit(child(r));
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return cli_fail("bench probe: %s", strerror(errno));
	if (!r->started || r->err)
		return r->err ? cli_fail("bench probe: %s", strerror(-r->err)) : 1;
	add_rows(&t, r, WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
	munmap(r, bytes);
	return bench_output(&t, json);
}
