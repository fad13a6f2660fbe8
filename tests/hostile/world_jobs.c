/* SPDX-License-Identifier: Apache-2.0 */
/*
 * world_jobs.c - honest clients: what they ask, what they got alone, whether they still get it.
 *
 * Neighbours are processes of their own (libweft sessions survive no fork), forked by the test and
 * talking to it through one shared page of counters.
 */
#include "tests/hostile/raw.h"
#include "tests/hostile/world.h"
#include "tests/tap.h"

#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define WAIT_MS	       120000 /* for one step of a request; engines restart meanwhile */
#define MAX_NEIGHBOURS 8u

struct counters {
	_Atomic uint32_t stop, begun; /* begun: how many have ended a request */
	_Atomic uint64_t done, wrong, failed, resubmitted, longest_ns;
	_Atomic int first_status;
	_Atomic uint32_t first_job;
};

struct neighbours {
	struct counters *c; /* shared with the children; owner */
	uint32_t n;
	pid_t pid[MAX_NEIGHBOURS];
};

static void *shared(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		bail_out("no memory");
	return p;
}

/* --- jobs -----------------------------------------------------------------------------------------*/

void job_options(uint32_t i, uint32_t vocab, uint32_t *prompt, struct weft_submit_options *o)
{
	uint32_t n = 3 + i * 6; /* 3..45: inside, at and across block borders */

	for (uint32_t k = 0; k < n; k++)
		prompt[k] = (i * 31 + k * 17 + 5) % (vocab - 1); /* the last one is for tests */
	weft_submit_options_init(o);
	o->prompt = prompt;
	o->n_prompt = n;
	o->max_tokens = 24 + i * 16;
	o->ignore_eos = 1;
	o->has_seed = 1;
	o->seed = 1000 + i;
	o->temperature = i % 4 ? 0.9f : 0;
	o->top_k = i % 3 == 1 ? 40 : 0;
	o->top_p = i % 3 == 2 ? 0.9f : 1;
	o->logprobs = i % 2 ? JOB_TOP : WEFT_NO_LOGPROBS;
	o->prompt_logprobs = i == 3 || i == 6 ? JOB_TOP : WEFT_NO_LOGPROBS;
	o->n = i == 3 ? JOB_N : 1;
	o->repetition_penalty = i == 5 ? 1.2f : 1;
	o->frequency_penalty = i == 6 ? 0.5f : 0;
}

static void copy_answer(struct weft_request *r, struct job_answer *ret)
{
	const struct weft_logprob *lp;

	for (uint32_t i = 0; i < JOB_TOKENS; i++) {
		int n = weft_prompt_logprobs(r, i, &lp);

		if (n > 0)
			memcpy(ret->prompt_logprobs[i], lp, (size_t)n * sizeof(*lp));
	}
	for (uint32_t s = 0; s < ret->n; s++) {
		const uint32_t *t = weft_tokens(r, s, &ret->count[s]);

		if (ret->count[s] > JOB_TOKENS)
			ret->count[s] = JOB_TOKENS;
		memcpy(ret->tokens[s], t, ret->count[s] * sizeof(*t));
		for (uint32_t i = 0; i < ret->count[s]; i++) {
			int n = weft_logprobs(r, s, i, &lp);

			if (n > 0)
				memcpy(ret->logprobs[s][i], lp, (size_t)n * sizeof(*lp));
		}
	}
}

void job_run(struct weft *w, uint32_t i, struct job_answer *ret)
{
	struct weft_result res = {.size = sizeof(res)};
	uint32_t prompt[JOB_TOKENS];
	struct weft_submit_options o;
	struct weft_request *r = NULL;
	struct weft_model m;

	memset(ret, 0, sizeof(*ret));
	ret->status = weft_model_info(w, &m);
	if (ret->status)
		return;
	job_options(i, m.vocab, prompt, &o);
	ret->n = o.n;
	ret->status = weft_submit(w, &r, &o, NULL);
	if (ret->status)
		return;
	for (uint32_t s = 0; s < o.n; s++) {
		int64_t n = 0;
		uint32_t have = 0;

		while ((n = weft_wait(r, s, have, WAIT_MS)) > have)
			have = (uint32_t)n;
		if (n < 0)
			ret->status = (int)n;
	}
	if (!ret->status && !weft_result(r, &res)) {
		ret->status = (int)res.status;
		ret->resubmitted = res.resubmitted;
	}
	copy_answer(r, ret);
	weft_free(r);
}

bool job_same(const struct job_answer *a, const struct job_answer *b)
{
	return a->status == b->status && a->n == b->n &&
	       !memcmp(a->count, b->count, sizeof(a->count)) &&
	       !memcmp(a->tokens, b->tokens, sizeof(a->tokens)) &&
	       !memcmp(a->logprobs, b->logprobs, sizeof(a->logprobs)) &&
	       !memcmp(a->prompt_logprobs, b->prompt_logprobs, sizeof(a->prompt_logprobs));
}

struct weft *world_open(const struct world *w)
{
	struct weft_open_options o = WEFT_OPEN_OPTIONS_INIT;
	struct weft_error e = {0};
	struct weft *weft = NULL;

	o.socket = world_socket(w);
	if (weft_open(&weft, &o, &e)) {
		diag("open: %d %s", e.code, e.message);
		bail_out("an honest client is refused");
	}
	return weft;
}

const struct job_answer *world_reference(struct world *w)
{
	static struct job_answer *reference;
	struct weft *weft;

	if (reference)
		return reference;
	reference = shared(JOBS * sizeof(*reference));
	weft = world_open(w);
	for (uint32_t i = 0; i < JOBS; i++) {
		struct weft_submit_options o;
		uint32_t prompt[JOB_TOKENS];

		job_run(weft, i, &reference[i]);
		job_options(i, 16, prompt, &o);
		if (reference[i].status || reference[i].count[o.n - 1] != o.max_tokens) {
			diag("job %u: status %d, %u tokens", i, reference[i].status,
			     reference[i].count[0]);
			bail_out("jobs do not even work alone");
		}
		if (o.prompt_logprobs != WEFT_NO_LOGPROBS &&
		    !reference[i].prompt_logprobs[o.n_prompt - 1][JOB_TOP].logprob)
			bail_out("no log-probabilities of the prompt");
	}
	weft_close(weft);
	return reference;
}

/* --- neighbours -----------------------------------------------------------------------------------*/

static void __attribute__((noreturn))
neighbour(struct world *w, struct counters *c, uint32_t index, const struct job_answer *reference)
{
	struct job_answer *got = malloc(sizeof(*got));
	struct weft *weft = world_open(w);
	uint32_t i = index;

	for (; !atomic_load(&c->stop); i++) {
		uint64_t start = raw_now_ns(), took;

		job_run(weft, i % JOBS, got);
		took = raw_now_ns() - start;
		if (took > atomic_load(&c->longest_ns))
			atomic_store(&c->longest_ns, took);
		atomic_fetch_add(&c->resubmitted, got->resubmitted);
		if (got->status != reference[i % JOBS].status) {
			atomic_store(&c->first_status, got->status);
			atomic_store(&c->first_job, i % JOBS);
			atomic_fetch_add(&c->failed, 1);
		} else if (!job_same(got, &reference[i % JOBS])) {
			atomic_store(&c->first_job, i % JOBS);
			atomic_fetch_add(&c->wrong, 1);
		}
		atomic_fetch_add(&c->done, 1);
		if (i == index)
			atomic_fetch_add(&c->begun, 1);
	}
	weft_close(weft);
	free(got);
	_exit(0);
}

struct neighbours *neighbours_start(struct world *w, uint32_t n)
{
	uint64_t until = raw_now_ns() + 60 * UINT64_C(1000000000) * world_slowness();
	const struct job_answer *reference = world_reference(w);
	struct neighbours *it = calloc(1, sizeof(*it));

	if (!it || n > MAX_NEIGHBOURS)
		bail_out("neighbours cannot be had");
	it->c = shared(sizeof(*it->c));
	it->n = n;
	for (uint32_t i = 0; i < n; i++) {
		it->pid[i] = fork();
		if (!it->pid[i]) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			neighbour(w, it->c, i * 3, reference);
		}
	}
	/* Each: one that has not opened its session would be refused when weftd is killed. */
	while (atomic_load(&it->c->begun) < n) {
		if (raw_now_ns() > until)
			bail_out("neighbours have not begun");
		raw_pause_us(1000);
	}
	return it;
}

uint64_t neighbours_done(const struct neighbours *n)
{
	return atomic_load(&n->c->done);
}

bool neighbours_advance(const struct neighbours *n, uint64_t more, int timeout_ms)
{
	uint64_t until = raw_now_ns() + (uint64_t)timeout_ms * 1000000 * world_slowness();
	uint64_t want = neighbours_done(n) + more;

	while (neighbours_done(n) < want) {
		if (raw_now_ns() > until)
			return false;
		raw_pause_us(1000);
	}
	return true;
}

void neighbours_stop(struct neighbours *n)
{
	struct counters *c = n->c;
	uint64_t until = raw_now_ns() + 60 * UINT64_C(1000000000) * world_slowness();
	uint32_t ended = 0;
	int status;

	ok(neighbours_advance(n, 1, 60000), "the neighbours go on");
	atomic_store(&c->stop, 1);
	for (uint32_t i = 0; i < n->n; i++) {
		while (!waitpid(n->pid[i], &status, WNOHANG) && raw_now_ns() < until)
			raw_pause_us(1000);
		if (raw_now_ns() >= until) {
			kill(n->pid[i], SIGKILL);
			waitpid(n->pid[i], &status, 0);
		}
		ended += status == 0;
	}
	is_int(ended, n->n, "every neighbour comes to its end");
	if (!ok(!atomic_load(&c->wrong) && !atomic_load(&c->failed),
		"the neighbours' %llu answers are those that they get alone",
		(unsigned long long)atomic_load(&c->done)))
		diag("%llu wrong, %llu failed; job %u, status %d",
		     (unsigned long long)atomic_load(&c->wrong),
		     (unsigned long long)atomic_load(&c->failed), atomic_load(&c->first_job),
		     atomic_load(&c->first_status));
	diag("longest request %.0f ms, %llu resubmitted", atomic_load(&c->longest_ns) / 1e6,
	     (unsigned long long)atomic_load(&c->resubmitted));
	munmap(c, sizeof(*c));
	free(n);
}
