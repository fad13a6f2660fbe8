/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_serve.c - `weft bench serve`: clients against a running daemon.
 *
 * Each client is a process of its own (fork, then weft_open) that sends its share of the requests
 * one after another and writes its measurements to shared memory: when it submitted, when it saw
 * each token, and the engine's own stage times. The parent adds them up. A client's wait is the
 * library's own, so what is measured is what a program sees.
 *
 * "TTFT minus forward" is the client's time from before weft_submit() to the sight of the first
 * token, less the time the engine spent in forward passes for it: what the system adds.
 */
#include "libclient/weft.h"
#include "tools/bench.h"
#include "tools/cli.h"
#include "tools/patience.h"
#include "tools/progress.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct sample {
	double submit_s, first_s, end_s; /* CLOCK_MONOTONIC */
	double forward_s;
	double arrival_s, start_s, published_s; /* the engine's own times */
	uint32_t tokens;
	uint32_t n_gaps; /* entries in this request's gaps */
};

struct shared {
	_Atomic int failed;
	_Atomic uint32_t ready, go, done;
	uint32_t n; /* requests in all */
};

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec * 1e-9;
}

static void sleep_until(double t)
{
	double d = t - now_s();

	if (d > 0)
		nanosleep(&(struct timespec){(time_t)d, (long)((d - (time_t)d) * 1e9)}, NULL);
}

/* Every prompt is another one, so that no cache can shorten a run. */
static void make_prompt(uint32_t *prompt, uint32_t n, uint32_t vocab, uint64_t seed)
{
	uint64_t x = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;

	for (uint32_t i = 0; i < n; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		prompt[i] = (uint32_t)(x >> 33) % vocab;
	}
}

/* One request from submission to end; gaps has room for one entry a token. */
static int one_request(struct weft *w, const struct bench_serve_options *o, const uint32_t *prompt,
		       struct sample *s, double *gaps)
{
	struct weft_result res = {.size = sizeof(res)};
	struct weft_submit_options so;
	struct weft_request *r;
	struct weft_error e;
	double last = 0;
	uint32_t have = 0;
	char text[256];
	int64_t n;

	weft_submit_options_init(&so);
	so.prompt = prompt;
	so.n_prompt = o->prompt;
	so.max_tokens = o->tokens;
	so.ignore_eos = 1;
	s->submit_s = now_s();
	if (weft_submit(w, &r, &so, &e) < 0)
		return cli_fail("%s", e.message);
	while ((n = weft_wait(r, 0, have, 600000)) > have) {
		double t = now_s();

		if (!have)
			s->first_s = t;
		else
			gaps[s->n_gaps++] = (t - last) / (n - have);
		last = t;
		have = (uint32_t)n;
	}
	s->end_s = last;
	weft_result(r, &res);
	weft_free(r);
	if (n < 0)
		return cli_fail("wait for tokens: %s", strerror((int)-n));
	if (res.status != WEFT_OK || have != o->tokens) {
		weft_status_text(&res, text, sizeof(text));
		return cli_fail("a request ended after %u of %u tokens: %s", have, o->tokens, text);
	}
	s->tokens = have;
	s->forward_s = res.forward_ns * 1e-9;
	s->arrival_s = res.arrival_ns * 1e-9;
	s->start_s = res.start_ns * 1e-9;
	s->published_s = res.first_token_ns * 1e-9;
	return 0;
}

static int client(const struct bench_serve_options *o, uint32_t self, struct shared *sh,
		  struct sample *samples, double *gaps)
{
	struct weft_open_options oo = WEFT_OPEN_OPTIONS_INIT;
	uint32_t *prompt = calloc(o->prompt, sizeof(*prompt));
	struct sample warm;
	struct weft_model m;
	struct weft_error e;
	struct weft *w;
	double start;
	int err;

	oo.socket = o->socket;
	oo.model = o->model;
	oo.flags = o->poll_always ? WEFT_POLL_ALWAYS : 0;
	if (!prompt)
		return cli_fail("out of memory");
	/* One of them is enough to say that all wait. */
	if (self)
		err = weft_open(&w, &oo, &e) < 0 ? cli_fail("%s", e.message) : 0;
	else
		err = patience_open(&w, &oo);
	if (err)
		return err;
	weft_model_info(w, &m);
	for (uint32_t i = 0; i < o->warm_up; i++) {
		memset(&warm, 0, sizeof(warm));
		make_prompt(prompt, o->prompt, m.vocab,
			    ((uint64_t)o->seed << 32) + self * 7919 + i);
		if (one_request(w, o, prompt, &warm, gaps))
			return 1;
	}
	sh->ready++;
	while (!sh->go)
		usleep(500);
	start = now_s();
	for (uint32_t i = self; i < sh->n; i += o->clients) {
		make_prompt(prompt, o->prompt, m.vocab, ((uint64_t)o->seed << 32) + 1000003 + i);
		if (o->rate > 0)
			sleep_until(start + i / o->rate);
		if (one_request(w, o, prompt, &samples[i], gaps + (size_t)i * o->tokens))
			return 1;
		sh->done++;
	}
	weft_close(w);
	free(prompt);
	return 0;
}

/* Is none of them dead? It stays to be waited for. */
static bool alive(const pid_t *pids, uint32_t n)
{
	siginfo_t info = {0};

	for (uint32_t i = 0; i < n; i++)
		if (pids[i] > 0 &&
		    !waitid(P_PID, (id_t)pids[i], &info, WEXITED | WNOHANG | WNOWAIT) &&
		    info.si_pid && (info.si_code != CLD_EXITED || info.si_status))
			return false;
	return true;
}

/* Start the clients, wait until all are ready, let them go, wait for their end. */
static int run_clients(const struct bench_serve_options *o, struct shared *sh,
		       struct sample *samples, double *gaps)
{
	pid_t pids[256];
	uint32_t started = 0;
	int failed = 0;

	for (; started < o->clients; started++) {
		pids[started] = fork();
		if (pids[started] < 0)
			break;
		if (!pids[started]) {
			int err = client(o, started, sh, samples, gaps);

			if (err)
				sh->failed = 1;
			_exit(err);
		}
	}
	failed = started < o->clients;
	while (!failed && !sh->failed && sh->ready < o->clients) {
		int status;

		usleep(1000);
		/* One that died without a word must not be waited for. */
		for (uint32_t i = 0; i < started; i++)
			if (pids[i] > 0 && waitpid(pids[i], &status, WNOHANG) == pids[i]) {
				pids[i] = 0;
				failed |= !WIFEXITED(status) || WEXITSTATUS(status) ||
					  sh->ready < o->clients;
			}
	}
	sh->go = 1;
	/* Only who shows how far they are wakes up beside them. */
	progress_begin("weft bench serve", sh->n);
	while (!failed && !sh->failed && progress_wanted() && sh->done < sh->n &&
	       alive(pids, started)) {
		usleep(100000);
		progress_at(sh->done);
	}
	progress_end();
	for (uint32_t i = 0; i < started; i++) {
		int status;

		if (pids[i] > 0 && waitpid(pids[i], &status, 0) == pids[i])
			failed |= !WIFEXITED(status) || WEXITSTATUS(status);
	}
	return failed || sh->failed ? -1 : 0;
}

static void add_percentiles(struct bench_table *t, const char *what, const char *unit, double *v,
			    uint32_t n)
{
	static const double ps[] = {0.5, 0.9, 0.99};
	char name[96];

	for (uint32_t i = 0; i < 3; i++) {
		struct bench_row r = {.name = name, .unit = unit, .pass = 1};

		snprintf(name, sizeof(name), "serve: %s, p%.0f", what, ps[i] * 100);
		r.value = bench_percentile(v, n, ps[i]);
		r.lo = n ? v[0] : 0;
		r.hi = n ? v[n - 1] : 0;
		bench_add(t, &r);
	}
}

static void add_rate(struct bench_table *t, const struct sample *s, uint32_t n)
{
	double first = s[0].submit_s, last = s[0].end_s, tokens = 0;
	struct bench_row r = {
		.name = "serve: tokens generated, all clients", .unit = "tok/s", .pass = 1};

	for (uint32_t i = 0; i < n; i++) {
		first = s[i].submit_s < first ? s[i].submit_s : first;
		last = s[i].end_s > last ? s[i].end_s : last;
		tokens += s[i].tokens;
	}
	r.value = r.lo = r.hi = tokens / (last - first);
	bench_add(t, &r);
}

/* Where the time that is not forward time goes. */
static void add_parts(struct bench_table *t, const struct sample *s, double *v, uint32_t n)
{
	static const char *const names[] = {
		"serve: of which submission to arrival in the engine",
		"serve: of which arrival to start",
		"serve: of which start to publication, forward time excepted",
		"serve: of which publication to sight",
	};

	for (uint32_t k = 0; k < 4; k++) {
		for (uint32_t i = 0; i < n; i++)
			v[i] = 1e6 * (k == 0   ? s[i].arrival_s - s[i].submit_s
				      : k == 1 ? s[i].start_s - s[i].arrival_s
				      : k == 2 ? s[i].published_s - s[i].start_s - s[i].forward_s
					       : s[i].first_s - s[i].published_s);
		bench_add_samples(t, names[k], "us", v, n, BENCH_NONE, 0);
	}
}

static void add_rows(struct bench_table *t, const struct bench_serve_options *o, struct sample *s,
		     double *gaps)
{
	uint32_t n = o->requests, n_gaps = 0;
	double *v = calloc(n, sizeof(*v));

	if (!v)
		return;
	for (uint32_t i = 0; i < n; i++)
		v[i] = (s[i].first_s - s[i].submit_s) * 1e3;
	add_percentiles(t, "time to first token", "ms", v, n);
	for (uint32_t i = 0; i < n; i++)
		v[i] = (s[i].first_s - s[i].submit_s - s[i].forward_s) * 1e6;
	add_percentiles(t, "TTFT minus forward time", "us", v, n);
	if (o->parts)
		add_parts(t, s, v, n);
	/* Close up the gaps of all requests. */
	for (uint32_t i = 0; i < n; i++) {
		memmove(gaps + n_gaps, gaps + (size_t)i * o->tokens, s[i].n_gaps * sizeof(*gaps));
		n_gaps += s[i].n_gaps;
	}
	for (uint32_t i = 0; i < n_gaps; i++)
		gaps[i] *= 1e3;
	if (n_gaps)
		add_percentiles(t, "time between tokens", "ms", gaps, n_gaps);
	add_rate(t, s, n);
	free(v);
}

int bench_serve(const struct bench_serve_options *o, struct bench_table *t)
{
	size_t gaps_bytes = (size_t)o->requests * o->tokens * sizeof(double);
	size_t bytes = sizeof(struct shared) + o->requests * sizeof(struct sample) + gaps_bytes;
	struct sample *samples;
	struct shared *sh;
	double *gaps;
	int err;

	if (!o->clients || o->clients > 256 || o->requests < o->clients || !o->prompt || !o->tokens)
		return cli_fail("bench serve: 1 to 256 clients, at least one request each, of at "
				"least one token") -
		       2;
	sh = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (sh == MAP_FAILED)
		return cli_fail("bench serve: %s", strerror(errno)) - 2;
	sh->n = o->requests;
	gaps = (double *)(sh + 1);
	samples = (struct sample *)(gaps + (size_t)o->requests * o->tokens);
	err = run_clients(o, sh, samples, gaps);
	if (!err)
		add_rows(t, o, samples, gaps);
	munmap(sh, bytes);
	return err;
}
